//! Clients of databases with nodes outlive their servers: what was under way fails with the truth, and their next
//! transaction finds another server.
//!
//! The server's part is played to its end: each batch that it owes gets the error and ReadyForQuery, by the way that the
//! server's own replies would take, so that all that was noted is put right.

use super::{
    Worker,
    client::{ClientState, Discarding, Refusal},
    server::{Server, ServerState},
};
use crate::{
    config::PoolMode,
    protocol::{
        TransactionStatus, backend as be,
        encode::{self, Severity},
    },
    session::{bonds::Bond, traces::Asking},
};

/// More batches than this are not answered one by one.
const MANY: usize = 4096;

/// Why a client cannot go on without the server that it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tie {
    /// There is no other, or it has a session there.
    Alone,
    /// Part of a message has passed.
    AmidMessage,
    /// How much has been answered is not known.
    Uncertain,
    /// What its last statements have left in the session is not known.
    Unasked,
    /// Something is gone with the server that the client counts on; of LISTEN: how its transaction has ended decides it.
    By(Bond),
}

impl Tie {
    /// What its client is told.
    pub(crate) fn hint(self) -> Option<String> {
        let lost = match self {
            Self::Alone => return None,
            Self::AmidMessage => "Part of a message had been passed on.",
            Self::Uncertain => "It was not certain what the server had answered.",
            Self::Unasked => "What the last statements had left in the session was not known yet.",
            Self::By(bond) => {
                return Some(format!("Something of its session ({}) was lost with it.", bond.as_str()));
            }
        };
        Some(lost.to_owned())
    }
}

impl Server {
    /// Its client has begun a transaction there and not ended it, as far as it has sent it.
    fn in_transaction(&self) -> bool {
        let open = self.session.status != TransactionStatus::Idle;
        if self.session.pipeline.is_empty() { open } else { self.routed.is_in_transaction() }
    }
}

impl Worker {
    /// The connection to a server is lost: its client goes on without it (and the server is closed), or why it cannot.
    pub(super) fn outlive(&mut self, slot: usize) -> Result<(), Tie> {
        if let Some(tie) = self.tie_to(slot) {
            return Err(tie);
        }
        let Some(server) = self.servers.get_mut(slot) else { return Err(Tie::Alone) };
        let ServerState::Active(client_slot) = server.state else { return Err(Tie::Alone) };
        server.session.spoiled = Some("server conn crashed?");
        server.session.swallowing = 0;
        let in_transaction = server.in_transaction();
        let nothing_owed = server.session.pipeline.is_empty() && server.session.pipeline.is_closed();
        let error = self.last_words(slot);
        self.note_told(client_slot, &error);
        for _ in 0..MANY {
            let status = if in_transaction { b'E' } else { b'I' };
            let Some(reply) = self.part_of_server(slot, client_slot, &error, status) else { break };
            self.deliver(slot, &reply);
        }
        self.tell_ready_at_once(client_slot);
        let Some(server) = self.servers.get(slot).filter(|s| s.state == ServerState::Active(client_slot))
        else {
            return Ok(());
        };
        let unended = !server.session.pipeline.is_closed();
        let failed = server.session.pipeline.skipping();
        if let Some(client) = self.clients.get_mut(client_slot) {
            client.part(self.now);
            if unended && failed {
                client.discarding = Discarding::UpToSync;
            } else if unended {
                // All that was sent of its batch has been answered: nobody has told it yet that the batch is lost.
                client.discarding = Discarding::Request(Refusal::TransactionLost);
            }
            let told = if nothing_owed { Refusal::TransactionLost } else { Refusal::Aborted };
            client.aborted = in_transaction.then_some(told);
        }
        self.close_server(slot, "server conn crashed?");
        self.look_later_at_client(client_slot);
        Ok(())
    }

    /// Why a server's client cannot do without it.
    fn tie_to(&self, slot: usize) -> Option<Tie> {
        let server = self.servers.get(slot)?;
        let ServerState::Active(client) = server.state else { return Some(Tie::Alone) };
        let Some(client) = self.clients.get(client) else { return Some(Tie::Alone) };
        let session = &server.session;
        let linked = matches!(client.state, ClientState::Linked(_)) && client.mode != PoolMode::Session;
        if server.pool.seat.is_none() || !linked {
            return Some(Tie::Alone);
        }
        if session.passing > 0 || client.session.passing > 0 {
            return Some(Tie::AmidMessage);
        }
        if session.pipeline.is_uncertain() || session.injected_failed.is_some() {
            return Some(Tie::Uncertain);
        }
        // It cannot be asked any more.
        if session.asking != Asking::Never && session.traces.are_suspected() {
            return Some(Tie::Unasked);
        }
        if client.session.channels.as_ref().is_some_and(|channels| channels.are_pending()) {
            return Some(Tie::By(Bond::Listen));
        }
        session.bonds.reason().filter(|bond| *bond != Bond::Currval).map(Tie::By)
    }

    /// What the server would say next, if it could.
    fn part_of_server(&self, slot: usize, client: usize, error: &[u8], status: u8) -> Option<Vec<u8>> {
        let server = self.servers.get(slot).filter(|s| s.state == ServerState::Active(client))?;
        let pipeline = &server.session.pipeline;
        if pipeline.is_empty() {
            return None;
        }
        let mut reply = Vec::new();
        if pipeline.front_is_own_query() {
            encode::message(&mut reply, be::COMMAND_COMPLETE, |b| b.push(0));
            encode::ready_for_query(&mut reply, b'I');
            return Some(reply);
        }
        reply.extend_from_slice(error);
        if pipeline.batches() > 0 {
            encode::ready_for_query(&mut reply, status);
        }
        Some(reply)
    }

    /// The error for what was under way: the server's own, if it said something, else what is known.
    fn last_words(&mut self, slot: usize) -> Vec<u8> {
        let mut out = Vec::new();
        let Some(server) = self.servers.get_mut(slot) else { return out };
        let said = server.session.last_words.take();
        let field = |code| {
            let value = be::error_field(said.as_deref()?, code)?;
            Some(String::from_utf8_lossy(value).into_owned())
        };
        if let (Some(sqlstate), Some(message)) = (field(b'C'), field(b'M')) {
            let (detail, hint) = (field(b'D'), field(b'H'));
            encode::error(&mut out, Severity::Error, &sqlstate, &message, detail.as_deref(), hint.as_deref());
            return out;
        }
        // SQL:2016, class 08: 007 is "transaction resolution unknown".
        let (sqlstate, hint) = if server.routed.may_have_committed() {
            ("08007", "It may have been committed or not: look before you repeat it.")
        } else {
            ("08006", "The transaction has been rolled back. It can be repeated.")
        };
        let message = "the connection to the server was lost";
        encode::error(&mut out, Severity::Error, sqlstate, message, None, Some(hint));
        out
    }
}
