//! Cancel requests: whom they concern, and that they never reach anyone else.
//!
//! A request is sent only while the client's own query runs; until it has been delivered, the server goes to nobody
//! else.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::{
    Worker,
    client::{ClientState, Discarding, Refusal},
    message::{CancelJob, Message, ServerRef},
    server::ServerState,
};
use crate::protocol::BackendKeyData;

impl Worker {
    /// What a cancel request asks for. The start of the key has led here; all of the secret decides.
    pub(super) fn cancel(&mut self, key: BackendKeyData, reply: oneshot::Sender<Option<CancelJob>>) {
        let slot = match self.process.directory.get(&key) {
            Some(place) if place.worker == self.id => place.slot,
            // It has moved since.
            Some(place) => {
                if let Some(worker) = self.process.workers.get(place.worker) {
                    worker.send(Message::Cancel { key, reply });
                }
                return;
            }
            None => {
                // The caller may have gone away.
                let _ = reply.send(None);
                return;
            }
        };
        let known = self.clients.get(slot).is_some_and(|c| same_secret(&c.info.key.secret, &key.secret));
        let state = self.clients.get(slot).filter(|_| known).map(|c| &c.state);
        match state {
            Some(ClientState::Waiting | ClientState::Held) => {
                self.refuse_waiting(slot, Refusal::Canceled);
                // The caller may have gone away.
                let _ = reply.send(None);
            }
            Some(ClientState::Linked(server)) => self.cancel_linked(*server, reply),
            Some(ClientState::Tunnel(server)) => self.start_cancel(*server, reply),
            Some(ClientState::Console(console)) => {
                console.cancelled.store(true, std::sync::atomic::Ordering::Release);
                let _ = reply.send(None);
            }
            _ => {
                let _ = reply.send(None);
            }
        }
    }

    /// The request leaves the queue; what the client has sent of it is thrown away up to its end.
    pub(super) fn refuse_waiting(&mut self, slot: usize, refusal: Refusal) {
        self.dequeue(slot);
        let Some(client) = self.clients.get_mut(slot) else { return };
        client.part(self.now);
        client.discarding = Discarding::Request(refusal);
        self.client_readable(slot);
        // It may have waited with what asks for nothing: its next request is not the one that was cancelled.
        if let Some(client) = self.clients.get_mut(slot)
            && client.discarding == Discarding::Request(refusal)
            && client.pending.is_empty()
            && !client.conn.readable
        {
            client.discarding = Discarding::Nothing;
        }
    }

    fn cancel_linked(&mut self, slot: usize, reply: oneshot::Sender<Option<CancelJob>>) {
        let Some(server) = self.servers.get_mut(slot) else { return };
        let client = match server.state {
            ServerState::Active(client) => Some(client),
            _ => None,
        };
        let routing = client.and_then(|client| self.clients.get(client)).and_then(|c| c.routing.as_ref());
        let asks = routing.is_some_and(|routing| routing.own.asked.is_some());
        if (asks || server.routed.waits_since().is_some()) && server.session.pipeline.is_empty() {
            let _ = reply.send(None);
            if let Some(client) = client {
                self.refuse_open_read(client, Refusal::Canceled);
            }
        } else if server.session.pipeline.is_empty() {
            // Nothing runs: PostgreSQL would ignore it too.
            let _ = reply.send(None);
        } else if server.session.pipeline.front_is_own_query() && server.session.trying.is_none() {
            server.deferred_cancels.push(reply);
        } else {
            self.start_cancel(slot, reply);
        }
    }

    fn start_cancel(&mut self, slot: usize, reply: oneshot::Sender<Option<CancelJob>>) {
        let Some(server) = self.servers.get_mut(slot) else { return };
        let job = CancelJob {
            server: ServerRef { worker: self.id, slot, id: server.id },
            target: Arc::clone(&server.info.cancel_target),
            key: server.info.key.clone(),
        };
        if reply.send(Some(job)).is_ok() {
            server.cancels += 1;
        }
    }

    /// Stops what a server does for a client that left long ago, and gives its place back.
    pub(super) fn cancel_and_close(&mut self, slot: usize) {
        let Some(server) = self.servers.get(slot) else { return };
        self.process.cancel_server(&server.info.cancel_target, &server.info.key);
        self.close_server(slot, "client disconnected with query in progress");
    }

    /// The pooler's own query is through: now the client's query can be hit.
    pub(super) fn start_deferred_cancels(&mut self, slot: usize) {
        let Some(server) = self.servers.get_mut(slot) else { return };
        let over = server.session.pipeline.is_empty();
        for reply in std::mem::take(&mut server.deferred_cancels) {
            if over {
                let _ = reply.send(None);
            } else {
                self.start_cancel(slot, reply);
            }
        }
    }

    /// The server has seen the request: it may go on to others. If nobody knows whether it has, it may not.
    pub(super) fn cancel_done(&mut self, server: ServerRef, lost: bool) {
        let Some(state) = self.servers.get_mut(server.slot).filter(|s| s.id == server.id) else { return };
        state.cancels = state.cancels.saturating_sub(1);
        if lost {
            state.session.spoiled.get_or_insert("a cancel request may still be on its way");
        }
        if state.cancels > 0 || state.state != ServerState::BeingCanceled {
            return;
        }
        match state.session.why_spoiled() {
            Some(reason) => self.close_server(server.slot, reason),
            None => self.free(server.slot),
        }
    }
}

/// Compares without telling by time how much is equal.
fn same_secret(ours: &[u8], theirs: &[u8]) -> bool {
    let differing = ours.iter().zip(theirs).fold(0, |acc, (a, b)| acc | (a ^ b));
    ours.len() == theirs.len() && differing == 0
}
