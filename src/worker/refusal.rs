//! What a client is told of a request that is not carried out.

use super::{
    Worker,
    answer::Answer,
    classes::class_of,
    client::{Client, Discarding, Refusal},
};
use crate::{
    protocol::{
        TransactionStatus,
        encode::{self, Severity},
    },
    session::{
        pipeline::Expected,
        state::NOBODY,
        unit::{self, Extent},
        upstream::STREAM_OVER,
    },
    sql::Kind,
};

/// Makes a server's transaction fail, whatever its user may do. Operators find it in the server's log.
const FAILURE: &str =
    "DO $pooler$ BEGIN RAISE EXCEPTION 'pooler has refused a statement of this transaction'; END $pooler$";

impl Refusal {
    /// The error, with which the client stays connected. `told`: what the server has said, if it has refused.
    pub(super) fn write(self, told: Option<Box<[u8]>>, out: &mut Vec<u8>) {
        if let Some(told) = told {
            return out.extend_from_slice(&told);
        }
        let (sqlstate, message, hint) = match self {
            Self::Canceled => ("57014", "canceling statement due to user request", None),
            // SQL:2016, 40003: statement completion unknown; 08006 is what libpq's users look for.
            Self::TransactionLost => (
                "08006",
                "the transaction was lost with the connection to the server",
                Some("It has been rolled back. It can be repeated."),
            ),
            Self::NoPrimary => (
                "57P03",
                "no node of the database takes writes",
                Some("See SHOW NODES on pooler's console, and failover_hold."),
            ),
            Self::NoReplica => (
                "57P03",
                "a replica is asked for, and there is none that could take this",
                Some(
                    "What may write does not go to the primary instead. See SHOW NODES on pooler's console, and failover_hold.",
                ),
            ),
            Self::Behind => (
                "57P03",
                "pooler.read_after is of a newer timeline than that of the primary that pooler knows",
                Some(
                    "See SHOW NODES on pooler's console, and failover_hold. SET pooler.read_after = '' does without.",
                ),
            ),
            // As a replica's own conflicts with what it replays: libraries repeat such transactions.
            Self::NotReplayed => (
                "40001",
                "the replica of this transaction does not show what was committed meanwhile",
                Some("Repeat the transaction. See SHOW NODES on pooler's console, and failover_hold."),
            ),
            Self::Settings => ("42501", "the settings of this session are refused by the server", None),
            Self::Aborted => (
                "25P02",
                "current transaction is aborted, commands ignored until end of transaction block",
                None,
            ),
        };
        encode::error(out, Severity::Error, sqlstate, message, None, hint);
    }
}

impl Client {
    /// The status of its transaction behind a refusal, if no server has it.
    pub(super) fn status_refused(&self) -> u8 {
        if self.aborted.is_some() { b'E' } else { b'I' }
    }

    /// An error has met the transaction that it has begun and no server knows of.
    pub(super) fn abort_held_begin(&mut self) {
        if self.routing.as_mut().is_some_and(|routing| routing.begin.take().is_some()) {
            self.aborted = Some(Refusal::Aborted);
        }
    }
}

impl Worker {
    /// A client is told of an error that its server knows nothing of: the transaction that it has open has failed, on its
    /// server too. No reply may be due.
    pub(super) fn fail_transaction(&mut self, slot: usize) {
        let Some(client) = self.clients.get_mut(slot) else { return };
        client.abort_held_begin();
        let Some(server_slot) = client.state.server() else { return };
        let Some(server) = self.servers.get_mut(server_slot) else { return };
        if server.session.status != TransactionStatus::InTransaction {
            return;
        }
        server.session.pipeline.push(Expected::InjectedFailure);
        // A simple Query drops the unnamed statement (postgres.c, exec_simple_query).
        server.session.unnamed_of = NOBODY;
        let mut query = Vec::new();
        encode::query(&mut query, FAILURE);
        if server.send(&query).is_err() {
            // What the server said before it went away is still to be read.
            self.look_later_at_server(server_slot);
        }
    }

    /// The next statement of a client's open transaction has waited for its replica, and waits no more.
    pub(super) fn refuse_open_read(&mut self, slot: usize, refusal: Refusal) {
        self.fail_transaction(slot);
        let Some(client) = self.clients.get_mut(slot) else { return };
        (client.stalled, client.session.held) = (false, false);
        client.discarding = Discarding::Request(refusal);
        if let Some(server) = client.state.server().and_then(|server| self.servers.get_mut(server)) {
            server.routed.waits = None;
        }
        self.client_readable(slot);
    }

    /// A request of a client whose transaction is lost. What a client sends ahead must not be carried out as if there had
    /// been no BEGIN. Returns how many bytes were used; 0: more has to come.
    pub(super) fn refuse_aborted(&mut self, slot: usize, refusal: Refusal, input: &[u8]) -> usize {
        let Some(client) = self.clients.get_mut(slot) else { return 0 };
        let cut = unit::parts(input, &client.session, |_| {}) == Extent::Cut;
        if cut && input.len() < STREAM_OVER {
            return 0;
        }
        let ends = unit::only_text(input, &client.session)
            .filter(|(text, _)| matches!(class_of(text, &client.session).kind, Kind::End));
        client.aborted = ends.is_none().then_some(Refusal::Aborted);
        if let Some(routing) = client.routing.as_mut().filter(|_| ends.is_some()) {
            routing.transaction_ended(false);
        }
        match ends {
            Some((_, len)) if refusal == Refusal::Aborted => {
                let request = input.get(..len).unwrap_or_default();
                self.send_to_client(slot, &Answer::Done("ROLLBACK").to(request, b'I'));
                len
            }
            _ => {
                client.discarding = Discarding::Request(refusal);
                self.discard_request(slot, input)
            }
        }
    }
}
