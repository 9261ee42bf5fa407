//! Reads that a replica could not answer are run again elsewhere, as long as their client has seen nothing of the reply.
//!
//! A hot standby commits nothing, and only what is proven to read only is sent again, so nothing happens twice. Replies
//! of a replica are held back until they are complete or longer than PostgreSQL's own buffer: nobody waits longer for
//! that, because the server does not send less by itself (pqcomm.c, PQ_SEND_BUFFER_SIZE).
//!
//! | while nothing has passed | then |
//! |---|---|
//! | ReadyForQuery, or more than 8 KB | all passes, nothing is held back any more |
//! | an error that the primary would not give ([`again`]) | read to ReadyForQuery, then sent again |
//! | the connection is lost, or its node is | sent again |

use super::{Worker, begin::HeldBegin, server::ServerState};
use crate::session::unit;

/// Requests up to this size are kept to be sent again.
const MAX_KEPT: usize = 64 << 10;
/// What PostgreSQL collects before it sends (pqcomm.c).
const HELD_AT_MOST: usize = 8 << 10;
/// Times that a request is sent again.
pub(super) const MOST_TRIES: u8 = 2;

/// A request that a replica works on, and what was sent behind it.
#[derive(Debug, Default)]
pub(crate) struct Attempt {
    /// The client's bytes, as they came.
    request: Vec<u8>,
    /// The BEGIN in front of them that the client has been told of.
    pub(super) begin: Option<HeldBegin>,
    /// Replies that have not passed.
    held: Vec<u8>,
    /// Its errors are the truth: it is made again only if the connection is lost.
    on_primary: bool,
    /// An error was among them that is not to reach the client.
    failed: Option<Elsewhere>,
}

impl Attempt {
    /// A read on the primary; `None` if it cannot be sent twice.
    pub(super) fn on_primary(request: &[u8], spare: &mut Spare) -> Option<Self> {
        let mut attempt = Self { on_primary: true, ..Self::default() };
        if !attempt.takes(request) {
            return None;
        }
        attempt.request = spare.take();
        attempt.request.extend_from_slice(request);
        Some(attempt)
    }

    /// Whether a request may be sent behind the ones that are kept.
    pub(crate) fn takes(&self, request: &[u8]) -> bool {
        let short = self.request.len() + request.len() <= MAX_KEPT;
        self.failed.is_none() && short && !unit::names_statements(request)
    }

    /// So many bytes at its end have not been sent.
    pub(super) fn cut(&mut self, unsent: usize) {
        self.request.truncate(self.request.len().saturating_sub(unsent));
    }

    /// It is to be made again.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed.is_some()
    }
}

/// Buffers of requests that have been answered, for the next ones.
#[derive(Debug, Default)]
pub(crate) struct Spare(Vec<Vec<u8>>);

impl Spare {
    /// More buffers than this are not kept, nor larger ones.
    const MOST: usize = 64;
    const LARGEST: usize = 4 << 10;

    fn take(&mut self) -> Vec<u8> {
        self.0.pop().unwrap_or_default()
    }

    fn keep(&mut self, mut buffer: Vec<u8>) {
        if self.0.len() < Self::MOST && buffer.capacity() <= Self::LARGEST {
            buffer.clear();
            self.0.push(buffer);
        }
    }
}

/// Where a request goes that has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Elsewhere {
    /// To any node but this.
    NotTo(usize),
    Primary,
}

/// What becomes of an error of a replica: whether another node would answer the same read. SQLSTATEs of ROUTING: recovery
/// conflicts and lack of resources pass on other replicas too, the rest is the standby's nature, or its lag.
fn again(sqlstate: &[u8]) -> Option<bool> {
    let transient: [&[u8]; 9] =
        [b"40001", b"40P01", b"53200", b"53300", b"57P01", b"57P02", b"57P03", b"57P04", b"57P05"];
    let lagging: [&[u8]; 5] = [b"42P01", b"42703", b"42883", b"42704", b"3F000"];
    let standby: [&[u8]; 6] = [b"25006", b"0A000", b"55000", b"XX000", b"XX001", b"XX002"];
    if transient.contains(&sqlstate) || sqlstate.starts_with(b"08") || sqlstate.starts_with(b"58") {
        return Some(true);
    }
    (lagging.contains(&sqlstate) || standby.contains(&sqlstate)).then_some(false)
}

impl Worker {
    /// A client's request is about to be sent to a replica: the first one is kept if it can be sent again, and all that
    /// follow it with it.
    pub(super) fn keep_request(&mut self, slot: usize, server_slot: usize, request: &[u8], first: bool) {
        let (Some(client), Some(server)) = (self.clients.get(slot), self.servers.get_mut(server_slot)) else {
            return;
        };
        let proven = client.routing.as_ref().is_some_and(|routing| routing.why.is_proven());
        if first && proven && Attempt::default().takes(request) {
            let request = self.spare.take();
            server.routed.attempt = Some(Attempt { request, ..Attempt::default() });
        }
        if let Some(attempt) = &mut server.routed.attempt {
            attempt.request.extend_from_slice(request);
        }
    }

    /// Bytes for a client from its replica. Returns what may pass now; `None`: nothing.
    pub(super) fn hold_back<'b>(
        &mut self,
        slot: usize,
        bytes: &'b [u8],
        ready: u64,
        error: Option<[u8; 5]>,
    ) -> Option<std::borrow::Cow<'b, [u8]>> {
        let Some(server) = self.servers.get_mut(slot) else { return Some(bytes.into()) };
        let node = server.pool.seat.as_ref().map_or(0, |seat| seat.node);
        let Some(attempt) = &mut server.routed.attempt else { return Some(bytes.into()) };
        if attempt.failed.is_none()
            && !attempt.on_primary
            && let Some(elsewhere) = error.and_then(|code| again(&code))
        {
            attempt.failed = Some(if elsewhere { Elsewhere::NotTo(node) } else { Elsewhere::Primary });
        }
        if attempt.failed.is_some() {
            return None;
        }
        if ready == 0 && attempt.held.len() + bytes.len() <= HELD_AT_MOST {
            attempt.held.extend_from_slice(bytes);
            return None;
        }
        let mut held = std::mem::take(&mut attempt.held);
        self.spare.keep(std::mem::take(&mut attempt.request));
        server.routed.attempt = None;
        if held.is_empty() {
            return Some(bytes.into());
        }
        held.extend_from_slice(bytes);
        Some(held.into())
    }

    /// A replica has said all that it has to say to a request that failed there. True if it is sent again.
    pub(super) fn replay_failed(&mut self, slot: usize) -> bool {
        let Some(server) = self.servers.get_mut(slot) else { return false };
        let ServerState::Active(client) = server.state else { return false };
        let failed = server.routed.attempt.as_ref().and_then(|attempt| attempt.failed);
        let Some(elsewhere) = failed.filter(|_| server.session.owes_nothing()) else { return false };
        let Some(attempt) = server.routed.take_attempt() else { return false };
        // In a transaction that its BEGIN has opened: it is rolled back.
        server.state = ServerState::Draining;
        server.since = self.now;
        server.drained = 0;
        self.send_again(client, attempt, elsewhere);
        self.go_on_draining(slot);
        self.look_later_at_client(client);
        true
    }

    /// A server is lost (or its node is). True if its client's request is sent again elsewhere.
    pub(super) fn replay_lost(&mut self, slot: usize) -> bool {
        let Some(server) = self.servers.get_mut(slot) else { return false };
        let ServerState::Active(client) = server.state else { return false };
        let Some(attempt) = server.routed.take_attempt() else { return false };
        let node = server.pool.seat.as_ref().map_or(0, |seat| seat.node);
        self.send_again(client, attempt, Elsewhere::NotTo(node));
        self.look_later_at_client(client);
        true
    }

    fn send_again(&mut self, slot: usize, attempt: Attempt, elsewhere: Elsewhere) {
        let mut request = attempt.request;
        let Some(client) = self.clients.get_mut(slot) else { return };
        let pool = self.shards.get(client.shard).map(|shard| &shard.pool);
        if let Some(shard) = pool.and_then(|pool| pool.shards.get(self.id)) {
            shard.stats.retries.add(1);
        }
        request.extend_from_slice(&client.pending);
        client.pending = request;
        client.part(self.now);
        client.session.passing = 0;
        if let Some(routing) = client.routing.as_mut() {
            routing.begin = attempt.begin;
            routing.tries = routing.tries.saturating_add(1);
            routing.elsewhere =
                Some(if routing.tries >= MOST_TRIES { Elsewhere::Primary } else { elsewhere });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_errors_of_standbys_are_run_again() {
        for (code, expected) in [
            (b"40001", Some(true)),
            (b"57P01", Some(true)),
            (b"08006", Some(true)),
            (b"25006", Some(false)),
            (b"42P01", Some(false)),
            (b"57014", None),
            (b"22012", None),
            (b"23505", None),
            (b"42601", None),
            (b"P0001", None),
        ] {
            assert_eq!(again(code), expected, "{}", String::from_utf8_lossy(code));
        }
    }
}
