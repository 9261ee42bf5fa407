//! `SHOW pooler.lsn` and `pooler.read_after`: what one client has written, another one reads, by another pooler too.
//!
//! The token that SHOW gives is where the primary's WAL ended when it was asked after the question had come, so that it
//! covers all that was acknowledged to anyone by then; the monitor asks for it, and one answer serves all who wait. With a
//! token a client's reads go to replicas that have replayed it, in addition to what read_consistency says. The primary has
//! always written it, unless it is one of a timeline that this pooler has not heard of: then nothing is sent to any node.

use std::{sync::Arc, time::Duration};

use super::{Worker, answer::Answer, client::Client};
use crate::{
    cluster::{Cluster, Token},
    protocol::TransactionStatus,
};

/// A primary that is up may take so long to tell its position.
const PATIENCE: Duration = Duration::from_secs(1);

/// A question for the primary's position.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    /// The answer has to be to a later one.
    epoch: u64,
    /// Microseconds of the process clock.
    since: u64,
}

impl Worker {
    /// SHOW pooler.lsn. `None`: the primary has not been asked yet.
    pub(super) fn tell_lsn(&mut self, slot: usize) -> Option<Answer> {
        let unlikely = Answer::Refused("57P03", "no node is known".to_owned(), "Try again.");
        let Some(client) = self.clients.get_mut(slot) else { return Some(unlikely) };
        let seat = self.shards.get(client.shard).and_then(|shard| shard.seat.as_ref());
        let Some(cluster) = seat.map(|seat| Arc::clone(&seat.cluster)) else { return Some(unlikely) };
        let server = client.state.server().and_then(|server| self.servers.get(server));
        if server.is_some_and(|s| s.session.status != TransactionStatus::Idle && s.routed.has_written()) {
            return Some(Answer::Refused(
                "25001",
                "SHOW pooler.lsn cannot cover what this transaction has written before it is committed"
                    .to_owned(),
                "Ask behind COMMIT.",
            ));
        }
        let own = &mut client.routing.get_or_insert_default().own;
        let new = Asked { epoch: cluster.epoch(), since: self.now };
        let asked = *own.asked.get_or_insert(new);
        if let Some(token) = cluster.position_after(asked.epoch) {
            own.asked = None;
            return Some(Answer::Value { name: "pooler.lsn".to_owned(), value: token.to_string() });
        }
        let hold = self.config.settings.failover_hold;
        let patience = if cluster.primary().is_some() { hold.max(PATIENCE) } else { hold };
        if u128::from(self.now.saturating_sub(asked.since)) > patience.as_micros() {
            own.asked = None;
            return Some(Answer::Refused(
                "57P03",
                "no node of the database takes writes, and none could tell its position".to_owned(),
                "See SHOW NODES on pooler's console, and failover_hold.",
            ));
        }
        cluster.wait();
        cluster.want_poll();
        None
    }

    /// SET pooler.read_after for a client that has a server already: that would not be left for a newer primary.
    pub(super) fn refuse_token(&self, slot: usize, value: &str) -> Option<Answer> {
        let client = self.clients.get(slot).filter(|client| client.state.server().is_some())?;
        let token = Token::parse(value)?;
        let known = self.cluster_of(client)?.timeline();
        (token.timeline > known).then(|| {
            let message = format!(
                "pooler has not heard of timeline {}: the primary that it knows is on timeline {known}",
                token.timeline
            );
            Answer::Refused("55000", message, "Try again in a moment, outside of a transaction.")
        })
    }

    /// Whether a replica has replayed what this client's reads must see by its token.
    pub(super) fn has_replayed_token(&self, client: &Client, cluster: &Cluster, node: usize) -> bool {
        let token = client.routing.as_ref().and_then(|routing| routing.settings.read_after);
        token.is_none_or(|token| cluster.has_replayed(node, token))
    }

    /// A client's token proves that there is a newer primary than the one that is known here. Looks for it.
    pub(super) fn is_ahead_of(&self, client: &Client, cluster: &Cluster) -> bool {
        let token = client.routing.as_ref().and_then(|routing| routing.settings.read_after);
        let ahead = token.is_some_and(|token| token.timeline > cluster.timeline());
        if ahead {
            cluster.suspect();
        }
        ahead
    }
}

/// The setting `pooler.read_after`: a token, or nothing. False, and nothing is changed, if it is neither.
pub(super) fn assign_token(setting: &mut Option<Token>, value: &str) -> bool {
    if value.is_empty() {
        *setting = None;
        return true;
    }
    assign(setting, Token::parse(value))
}

/// False, and nothing is changed, if there is no value.
pub(super) fn assign<T>(setting: &mut Option<T>, value: Option<T>) -> bool {
    let known = value.is_some();
    if known {
        *setting = value;
    }
    known
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_is_set_and_taken_away() {
        let mut setting = None;
        let token = Token { timeline: 3, lsn: 0x10 };
        for (value, known, expected) in [
            ("3:0/10", true, Some(token)),
            ("3:0/x", false, Some(token)),
            ("", true, None),
            ("0/10", true, Some(Token { timeline: 0, ..token })),
        ] {
            assert_eq!((assign_token(&mut setting, value), setting), (known, expected), "{value:?}");
        }
    }
}
