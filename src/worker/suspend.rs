//! SUSPEND: nothing is read from clients and servers until RESUME; what they are owed still leaves.

use std::sync::atomic::Ordering;

use super::{End, Worker};
use crate::worker::client::ClientState;

impl Worker {
    /// Reads nothing from now on, the console's clients apart. Returns how many connections have not taken everything yet. Who
    /// said RESUME meanwhile has told this worker so before, or will.
    pub(super) fn suspend(&mut self) -> usize {
        self.suspended |= self.process.suspended.load(Ordering::Acquire);
        self.unflushed().len()
    }

    /// Disconnects whoever still has not taken everything.
    pub(super) fn drop_unflushed(&mut self) {
        for end in self.unflushed() {
            match end {
                End::Client(slot) => self.close_client(slot, "suspend_timeout"),
                End::Server(slot) => self.close_server(slot, "suspend_timeout"),
            }
        }
    }

    fn unflushed(&self) -> Vec<End> {
        let clients = self.clients.iter().filter(|(_, client)| !client.conn.is_flushed());
        let servers = self.servers.iter().filter(|(_, server)| !server.conn.is_flushed());
        let servers = servers.map(|(slot, _)| End::Server(slot));
        clients.map(|(slot, _)| End::Client(slot)).chain(servers).collect()
    }

    /// Everybody is read again: no event will come again for what has arrived meanwhile.
    pub(super) fn end_suspension(&mut self) {
        if !std::mem::take(&mut self.suspended) {
            return;
        }
        let clients: Vec<usize> = self.clients.iter().map(|(slot, _)| slot).collect();
        clients.into_iter().for_each(|slot| self.look_later_at_client(slot));
        let servers: Vec<usize> = self.servers.iter().map(|(slot, _)| slot).collect();
        servers.into_iter().for_each(|slot| self.look_later_at_server(slot));
        self.fetch_long();
    }

    /// This client is not to be read now.
    pub(super) fn is_client_suspended(&self, slot: usize) -> bool {
        self.suspended
            && !self.clients.get(slot).is_some_and(|client| matches!(client.state, ClientState::Console(_)))
    }
}
