//! From a client to its server: reading requests, and what becomes of them. The way back is in `replies`.

use super::{
    READS_PER_TURN, Worker,
    begin::HeldBegin,
    client::{ClientState, Discarding, Refusal},
    conn::Conn,
    own::Said,
    route::Target,
    server::ServerState,
};
use crate::{
    config::Config,
    error::{Printable, Report as _},
    net::wire::Read,
    protocol::{
        TransactionStatus,
        encode::{self, Severity},
        frame::Header,
        frontend as fe,
    },
    session::{
        downstream::write_synthetic,
        outgoing::Outgoing,
        upstream::{NO_SIMPLE_QUERIES, Stop, Upstream},
    },
    worker::release::ClientError,
};

/// Buffers above this size are not kept.
const LARGE: usize = 1 << 20;

/// What a client without a server has sent.
#[derive(Debug, PartialEq, Eq)]
enum Request {
    /// Not yet enough of a message to do anything about it (or nothing).
    Incomplete,
    /// A message of so many bytes that means nothing without a server: COPY data that comes after the COPY failed,
    /// Flush. It may still be on its way.
    Ignore(usize),
    Terminate,
    /// Needs a server.
    Work,
}

impl Worker {
    /// A client may have bytes for us, read or unread.
    pub(super) fn client_readable(&mut self, slot: usize) {
        if self.is_client_suspended(slot) {
            return;
        }
        let Some(client) = self.clients.get(slot) else { return };
        match client.state {
            ClientState::Idle => self.idle_client_readable(slot),
            ClientState::Linked(server) => self.pump_client(slot, server),
            ClientState::Tunnel(server) => self.tunnel_up(slot, server),
            ClientState::Console(_) => self.console_readable(slot),
            ClientState::Waiting
            | ClientState::Held
            | ClientState::LoginWaiting
            | ClientState::LoginLinked(_)
            | ClientState::TunnelWaiting(_) => {}
        }
    }

    /// The request stays in the socket until there is a server for it: queued clients cost nothing. Only who surely has
    /// one may queue: others would wait for nothing, until query_wait_timeout, and their end would not be seen.
    fn idle_client_readable(&mut self, slot: usize) {
        let Some(client) = self.clients.get(slot) else { return };
        let (shard, flushed) = (client.shard, client.conn.is_flushed());
        if !flushed {
            return;
        }
        let thrown_away = client.discarding != Discarding::Nothing || client.ignoring > 0;
        let surely = client.conn.surely_has_bytes() && client.pending.is_empty() && !thrown_away;
        // Where there are nodes, the request says which one.
        let routed = self.shards.get(shard).is_some_and(|s| s.seat.is_some());
        if surely && !routed && !self.can_checkout(shard) {
            // Not into a pool that is no more: the client is moved on when it is read.
            let replaced = self.shards.get(shard).is_some_and(|s| s.pool.is_replaced());
            if !replaced {
                return self.enqueue(slot, ClientState::Waiting);
            }
        }
        self.read_client(slot);
        // What is left in the socket (or its end) raises no event.
        if let Some(client) = self.clients.get(slot)
            && client.conn.readable
            && matches!(client.state, ClientState::Idle | ClientState::Linked(_))
        {
            self.look_later_at_client(slot);
        }
    }

    /// Reads from a linked client for as long as its server takes the bytes.
    fn pump_client(&mut self, slot: usize, server: usize) {
        for turn in 0.. {
            let Some(client) = self.clients.get(slot) else { return };
            if client.state.server() != Some(server) {
                // What is left in its socket raises no event, wherever it has gone.
                if client.conn.readable {
                    self.look_later_at_client(slot);
                }
                return;
            }
            // A client that reads nothing gets no further, as at PostgreSQL.
            let waits =
                client.conn.is_choked() || self.servers.get(server).is_none_or(|s| !s.conn.is_flushed());
            let nothing = !client.conn.readable && (turn > 0 || client.pending.is_empty());
            if waits || nothing || client.session.held || client.waits_behind() {
                return;
            }
            if turn == READS_PER_TURN {
                return self.look_later_at_client(slot);
            }
            self.read_client(slot);
        }
    }

    /// One read (none if unread input is there and the socket has nothing), and what follows from it.
    fn read_client(&mut self, slot: usize) {
        let Some(client) = self.clients.get_mut(slot) else { return };
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut eof = false;
        let mut n = 0;
        if client.conn.readable && !client.stalled {
            match client.conn.read(&mut buffer) {
                Ok(read) => (n, eof) = (read.n, read.eof),
                Err(_) => eof = true,
            }
        }
        if client.pending.is_empty() {
            let input = buffer.get(..n).unwrap_or_default();
            let used = self.process_input(slot, input);
            self.keep_rest(slot, input.get(used..).unwrap_or_default());
        } else {
            let mut input = std::mem::take(&mut client.pending);
            input.extend_from_slice(buffer.get(..n).unwrap_or_default());
            let used = self.process_input(slot, &input);
            input.drain(..used);
            if let Some(client) = self.clients.get_mut(slot) {
                client.pending = rest_of(input);
            }
        }
        self.buffer = buffer;
        if eof && self.clients.get(slot).is_some_and(|c| !c.state.is_waiting() || !c.pending.is_empty()) {
            self.close_client(slot, "client unexpected eof");
        }
        // What came may have been of no interest to the server: COPY data behind the error.
        if let Some(ClientState::Linked(server)) = self.clients.get(slot).map(|c| &c.state) {
            let server = *server;
            self.unlink_if_unused(slot, server);
        }
    }

    fn keep_rest(&mut self, slot: usize, rest: &[u8]) {
        if rest.is_empty() {
            return;
        }
        if let Some(client) = self.clients.get_mut(slot) {
            client.pending.extend_from_slice(rest);
        }
    }

    /// What to do with bytes of a client. Returns how many were used.
    fn process_input(&mut self, slot: usize, input: &[u8]) -> usize {
        let mut used = 0;
        self.scanned = None;
        loop {
            let Some(client) = self.clients.get_mut(slot) else { return input.len() };
            let rest = input.get(used..).unwrap_or_default();
            if client.ignoring > 0 {
                let n = client.ignoring.min(rest.len());
                client.ignoring -= n;
                used += n;
                if n == 0 {
                    return used;
                }
                continue;
            }
            if client.discarding != Discarding::Nothing {
                let n = self.discard_request(slot, rest);
                if n == 0 {
                    return used;
                }
                used += n;
                continue;
            }
            match client.state {
                ClientState::Linked(server) => {
                    let (sent, goes_on) = self.send_on(slot, server, rest);
                    used += sent;
                    if !goes_on {
                        return used;
                    }
                    continue;
                }
                ClientState::Idle => {}
                _ => return used,
            }
            match request(rest, max_packet_size(&self.config)) {
                Request::Incomplete => return used,
                Request::Ignore(n) => client.ignoring = n,
                Request::Terminate => {
                    self.close_client(slot, "client close request");
                    return input.len();
                }
                Request::Work if self.config.settings.disable_pqexec && rest.first() == Some(&fe::QUERY) => {
                    self.fail_client(slot, &ClientError::Protocol(NO_SIMPLE_QUERIES.to_owned()));
                    return input.len();
                }
                Request::Work => {
                    let skips = client.routing.as_ref().is_some_and(|routing| routing.own.skips());
                    if let Some(refusal) = client.aborted.filter(|_| !skips) {
                        let n = self.refuse_aborted(slot, refusal, rest);
                        if n == 0 {
                            return used;
                        }
                        used += n;
                        continue;
                    }
                    self.rehome(slot);
                    match self.answer_own(slot, rest) {
                        Said::Nothing => {}
                        Said::Used(n) => {
                            used += n;
                            continue;
                        }
                        Said::Waits(n) => {
                            self.hold(slot);
                            return used + n;
                        }
                    }
                    if let Some(n) = self.hold_begin(slot, rest) {
                        used += n;
                        continue;
                    }
                    let Target::Shard(shard) = self.route(slot, rest) else {
                        self.hold(slot);
                        return used;
                    };
                    let Some(server) = self.checkout(shard) else {
                        self.enqueue(slot, ClientState::Waiting);
                        return used;
                    };
                    self.link(slot, server);
                }
            }
        }
    }

    /// Sends what the client's server may get. Returns how many bytes were used, and whether the rest is for another one.
    fn send_on(&mut self, slot: usize, server: usize, input: &[u8]) -> (usize, bool) {
        match self.answer_own(slot, input) {
            Said::Nothing => {}
            Said::Used(used) => {
                // They may have been looked at already, and what follows has not.
                self.note_sent(server, used);
                return (used, true);
            }
            Said::Waits(used) => {
                self.note_sent(server, used);
                if let Some(client) = self.clients.get_mut(slot) {
                    (client.stalled, client.session.held) = (true, true);
                }
                return (used, false);
            }
        }
        let admitted = self.admit(slot, server, input);
        let sent = match input.get(..admitted) {
            Some([]) if !input.is_empty() => 0,
            input => self.forward(slot, server, input.unwrap_or_default()),
        };
        let linked = self.clients.get(slot).is_some_and(|client| client.state.server() == Some(server));
        if linked {
            self.note_sent(server, sent);
        }
        let refused = admitted < input.len() && sent == admitted;
        (sent, refused && self.leave_replica(slot, server))
    }

    /// Sends to the server what the client sent, translated, in one write. Returns how many bytes were used.
    fn forward(&mut self, slot: usize, server_slot: usize, input: &[u8]) -> usize {
        if self.clients.get(slot).is_some_and(|client| client.listening.is_some())
            && !self.begins_heard(slot, server_slot)
        {
            return 0;
        }
        if !input.is_empty() && self.tries_settings(slot, server_slot) {
            return 0;
        }
        let (Some(client), Some(server)) = (self.clients.get_mut(slot), self.servers.get_mut(server_slot))
        else {
            return input.len();
        };
        let Some(shard) = self.shards.get_mut(client.shard) else { return input.len() };
        let max_statements = shard.tracked_statements(client.mode);
        let hidden = shard.hidden(client.mode, self.config.settings.session_functions, &server.catalog);
        let mut staging = std::mem::take(&mut self.staging);
        staging.clear();
        let mut out = Outgoing::new(input, &mut staging);
        let mut answer = 0;
        let passing = client.session.passing;
        let (mut first, mut held) = (false, None);
        // Not into the middle of a message (the rest of COPY data whose COPY has failed).
        if server.session.is_free() && client.session.passing == 0 {
            answer = server.session.adopt(&mut client.session, |sql| encode::query(out.inject(), sql));
            server.transaction_start = self.now;
            server.session.forget_bound();
            first = true;
            if let Some(begin) = client.routing.as_mut().and_then(|routing| routing.begin.take()) {
                begin.send(&mut server.session, out.inject());
                held = self.config.settings.otlp_endpoint.is_some().then(|| begin.clone());
                if let Some(attempt) = &mut server.routed.attempt {
                    attempt.begin = Some(begin);
                }
            }
        }
        let (listens, heard) = (client.may_share_listener(), client.has_heard());
        let mut upstream = Upstream {
            client: &mut client.session,
            server: &mut server.session,
            shared: &self.process.shared,
            max_statements,
            max_packet_size: max_packet_size(&self.config),
            now: self.now,
            counts: Default::default(),
            flush: false,
            hidden,
            listens,
            heard,
            lacks: None,
            simple: !self.config.settings.disable_pqexec,
            refuses: server.routed.own,
            queries: self.queries.are_kept().then_some(&mut self.queries),
            pool: server.shard,
        };
        let (used, stop) = upstream.translate(input, &mut out);
        let (counts, flush, lacks) = (upstream.counts, upstream.flush, upstream.lacks.take());
        let habit = client.session.sequences.take_news();
        let bytes = out.finish();
        // What goes in front is answered first, and is nothing to wake up for.
        let in_front = if server.session.pipeline.ends_ready() { answer } else { 0 };
        let sent = if bytes.is_empty() { Ok(()) } else { server.send_behind(in_front, bytes) };
        if let Some(stats) = shard.pool.shards.get(self.id).map(|s| &s.stats) {
            stats.received.add(u64::try_from(used).unwrap_or(0));
            stats.queries.add(counts.queries);
            stats.client_parses.add(counts.client_parses);
            stats.server_parses.add(counts.server_parses);
            stats.binds.add(counts.binds);
        }
        if server.query_start == 0 && !server.session.pipeline.is_empty() {
            server.query_start = self.now;
        }
        self.staging = reusable(staging);
        if self.traces() {
            let sent = input.get(..used).unwrap_or_default();
            let first = first.then(|| held.as_ref().map(HeldBegin::text));
            self.span_sent((slot, server_slot), sent, passing, counts.queries, first);
        }
        if let Some(habit) = habit {
            self.note_habit(slot, habit);
        }
        if sent.is_err() {
            // What the server said before it went away is still to be read.
            self.look_later_at_server(server_slot);
        }
        if let Some(client) = self.clients.get_mut(slot) {
            client.stalled = matches!(stop, Stop::Held | Stop::Full);
            if let Some(listening) = client.listening.as_mut().filter(|_| used > 0) {
                listening.fresh = false;
            }
        }
        let answered = flush && self.answer_flush(slot, server_slot);
        match stop {
            Stop::NeedMore => {}
            // Otherwise the server's next reply lets it go on.
            Stop::Held if !answered => {
                if let Some(client) = self.clients.get_mut(slot) {
                    client.session.held = true;
                }
            }
            Stop::Held | Stop::Full => self.look_later_at_client(slot),
            Stop::Channels => {
                if let Some(channels) = lacks {
                    self.listen_first(slot, server_slot, &channels);
                }
            }
            Stop::Terminate => self.close_client(slot, "client close request"),
            Stop::Broken(message) => self.fail_client(slot, &ClientError::Protocol(message)),
        }
        used
    }

    /// Flush: answers that the pooler gives itself, and that no reply of the server will carry along. True if there were
    /// any.
    fn answer_flush(&mut self, slot: usize, server_slot: usize) -> bool {
        let Some(server) = self.servers.get_mut(server_slot) else { return false };
        let mut bytes = Vec::new();
        while let Some(synthetic) = server.session.next_synthetic() {
            write_synthetic(&mut bytes, synthetic);
        }
        if !bytes.is_empty() {
            self.send_to_client(slot, &bytes);
        }
        !bytes.is_empty()
    }

    /// There is room in a client's socket again.
    pub(super) fn client_writable(&mut self, slot: usize) {
        let Some(client) = self.clients.get_mut(slot) else { return };
        match client.conn.flush() {
            Err(_) => self.close_client(slot, "client unexpected eof"),
            Ok(false) => client.info.stuck_since = self.now,
            Ok(true) => {
                client.info.stuck_since = 0;
                if let Some(server) = client.state.server() {
                    self.server_readable(server);
                }
                self.client_readable(slot);
            }
        }
    }

    /// There is room in a server's socket again.
    pub(super) fn server_writable(&mut self, slot: usize) {
        let Some(server) = self.servers.get_mut(slot) else { return };
        match (server.conn.flush(), server.state) {
            (Err(_), _) => self.server_readable(slot),
            (Ok(true), ServerState::Active(client)) => self.client_readable(client),
            _ => {}
        }
    }

    /// Sends bytes of the pooler's own to a client.
    pub(super) fn send_to_client(&mut self, slot: usize, bytes: &[u8]) {
        let Some(client) = self.clients.get_mut(slot) else { return };
        if client.conn.send(bytes).is_err() {
            self.close_client(slot, "client unexpected eof");
        }
    }

    /// Throws away the next message of a request that is not carried out (it may still be on its way); says so at
    /// its first, and ends it with ReadyForQuery. Returns how many bytes were used.
    pub(super) fn discard_request(&mut self, slot: usize, input: &[u8]) -> usize {
        let Some(header) = Header::peek(input) else { return 0 };
        if header.tag == fe::TERMINATE || header.len < 4 {
            self.close_client(slot, "client close request");
            return input.len();
        }
        let used = header.total().min(input.len());
        let server = self.clients.get(slot).and_then(|c| c.state.server()).and_then(|s| self.servers.get(s));
        // What was refused with a transaction open on a server has failed it.
        let failed = server.is_some_and(|s| s.session.status != TransactionStatus::Idle);
        let Some(client) = self.clients.get_mut(slot) else { return used };
        client.ignoring = header.total() - used;
        if asks_nothing(header.tag) {
            return used;
        }
        let refusal = match client.discarding {
            Discarding::Request(refusal) => Some(refusal),
            _ => None,
        };
        let alone = refusal.is_some() && matches!(header.tag, fe::QUERY | fe::FUNCTION_CALL);
        let ends = alone || header.tag == fe::SYNC;
        client.discarding = if ends { Discarding::Nothing } else { Discarding::UpToSync };
        let mut bytes = Vec::new();
        if let Some(refusal) = refusal {
            let told = client.info.refused.take().filter(|_| refusal == Refusal::Settings);
            refusal.write(told, &mut bytes);
            if let Some(routing) = &mut client.routing {
                routing.own.refused();
                // The next request is another one, and has to see what was written meanwhile.
                routing.answered();
            }
            client.abort_held_begin();
            self.note_told(slot, &bytes);
        }
        let Some(client) = self.clients.get_mut(slot) else { return used };
        if ends {
            let status = if failed { b'E' } else { client.status_refused() };
            if let Some(routing) = client.routing.as_mut().filter(|_| status == b'I') {
                routing.transaction_ended(false);
            }
            encode::ready_for_query(&mut bytes, status);
        }
        self.send_to_client(slot, &bytes);
        used
    }

    /// Sends an error that ends a client, unless it is amid a message, for the rest of which it would be taken.
    pub(super) fn send_last_words(&mut self, slot: usize, error: &[u8]) {
        let server = self.clients.get(slot).and_then(|c| c.state.server()).and_then(|s| self.servers.get(s));
        if server.is_none_or(|s| s.session.passing == 0) {
            self.send_to_client(slot, error);
        }
    }

    /// Ends a client with an error.
    pub(super) fn fail_client(&mut self, slot: usize, error: &ClientError) {
        let mut bytes = Vec::new();
        error.write(&mut bytes, Severity::Fatal);
        self.note_told(slot, &bytes);
        if self.config.settings.log_pooler_errors {
            // The server's words may be the client's own.
            let message = error.message();
            let hint = if matches!(error, ClientError::Server(_)) { None } else { error.hint() };
            tracing::warn!(sqlstate = error.sqlstate(), hint, "pooler error: {}", Printable(&message));
        }
        // Nobody has looked where a message ends.
        if self.clients.get(slot).is_some_and(|client| !matches!(client.state, ClientState::Tunnel(_))) {
            self.send_last_words(slot, &bytes);
        }
        if let Some(client) = self.clients.get_mut(slot) {
            discard_input(&mut client.conn);
        }
        self.close_client(slot, "pooler error");
    }
}

/// Closing a socket with unread input resets it, and the reset may overtake the error that was just sent.
fn discard_input(conn: &mut Conn) {
    let mut scratch = [0; 16 << 10];
    for _ in 0..64 {
        if !matches!(conn.read(&mut scratch), Ok(Read { n: 1.., .. })) {
            return;
        }
    }
}

/// A buffer for the next time, unless a large message made it large.
pub(super) fn reusable(buffer: Vec<u8>) -> Vec<u8> {
    if buffer.capacity() > LARGE { Vec::new() } else { buffer }
}

/// The start of a message whose rest has not come. A large one that is done with leaves no buffer behind.
pub(super) fn rest_of(input: Vec<u8>) -> Vec<u8> {
    if input.is_empty() { Vec::new() } else { input }
}

fn max_packet_size(config: &Config) -> usize {
    usize::try_from(config.settings.max_packet_size).unwrap_or(usize::MAX)
}

/// Means nothing without a server.
fn asks_nothing(tag: u8) -> bool {
    matches!(tag, fe::COPY_DATA | fe::COPY_DONE | fe::COPY_FAIL | fe::FLUSH)
}

/// The first message of a client that has no server.
fn request(input: &[u8], max_packet_size: usize) -> Request {
    let Some(header) = Header::peek(input) else { return Request::Incomplete };
    let total = header.total();
    let enough = match header.tag {
        // It must be read as a whole; a client that is slow to send it must not have a server meanwhile.
        fe::PARSE if total <= max_packet_size => total,
        _ => total.min(crate::session::upstream::STREAM_OVER),
    };
    let possible = header.len >= 4 && header.len < i32::MAX.unsigned_abs();
    match header.tag {
        fe::TERMINATE => Request::Terminate,
        tag if asks_nothing(tag) && possible => Request::Ignore(total),
        _ if possible && input.len() < enough => Request::Incomplete,
        _ => Request::Work,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_messages_are_told_apart() {
        let cases: [(&[u8], Request); 12] = [
            (b"", Request::Incomplete),
            (b"Q\0\0\0", Request::Incomplete),
            (b"Q\0\0\0\x08abc", Request::Incomplete),
            (b"Q\0\0\0\x08abc\0", Request::Work),
            (b"S\0\0\0\x04", Request::Work),
            (b"X\0\0\0\x04", Request::Terminate),
            (b"c\0\0\0\x04S\0\0\0\x04", Request::Ignore(5)),
            (b"H\0\0\0\x04", Request::Ignore(5)),
            (b"d\0\0\0\x08ab", Request::Ignore(9)),
            // H35: refused with a server at hand, as every impossible length.
            (b"d\xff\xff\xff\xffab", Request::Work),
            (b"P\0\0\x80\0ab", Request::Incomplete),
            (b"P\x7f\0\0\0ab", Request::Incomplete),
        ];
        for (input, expected) in cases {
            assert_eq!(request(input, 1 << 30), expected, "{input:?}");
        }
    }
}
