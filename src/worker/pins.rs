//! Servers that stay with their clients between transactions: how many, why, and since when.
//!
//! They have a budget of their own: as long as it lasts, the pool may open another server in the place of each, so that
//! others need not wait because somebody holds a lock or a temporary table.

use super::Worker;
use crate::session::bonds::Bond;

/// A server that its client keeps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pin {
    pub(crate) bond: Bond,
    /// In microseconds of the process clock.
    pub(crate) since: u64,
    /// It counts in the budget of pins, and not in that of the pool.
    apart: bool,
}

impl Worker {
    /// A reply has come to its end: whether something binds the server to its client may have changed.
    pub(super) fn note_pin(&mut self, slot: usize, bond: Option<Bond>) {
        let Some(server) = self.servers.get_mut(slot) else { return };
        let Some(bond) = bond else { return self.unpin(slot) };
        if server.pin.is_some_and(|pin| pin.bond == bond) {
            return;
        }
        if let Some(shard) = server.pool.shards.get(self.id) {
            shard.pins.add(bond as usize);
        }
        if let Some(pin) = &mut server.pin {
            pin.bond = bond;
            return;
        }
        let apart = server.pool.set_apart();
        server.pin = Some(Pin { bond, since: self.now, apart });
        let shard = server.shard;
        if apart {
            self.grow(shard);
        }
    }

    /// The client does not keep it any more.
    pub(super) fn unpin(&mut self, slot: usize) {
        let Some(server) = self.servers.get_mut(slot) else { return };
        if server.pin.take().is_some_and(|pin| pin.apart) {
            server.pool.take_back();
        }
    }
}
