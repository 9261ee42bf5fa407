//! Errors that pooler tells clients of by itself, counted by their SQLSTATE.

use super::Worker;
use crate::protocol::{backend, frame::HEADER};

impl Worker {
    /// A client is about to be told of an error that no server has given.
    pub(super) fn note_told(&self, slot: usize, error: &[u8]) {
        let body = error.get(HEADER..).unwrap_or_default();
        let code = backend::error_field(body, b'C').and_then(|code| code.first_chunk());
        let pool =
            self.clients.get(slot).and_then(|client| self.shards.get(client.shard)).map(|shard| &shard.pool);
        if let (Some(code), Some(shard)) = (code, pool.and_then(|pool| pool.shards.get(self.id))) {
            shard.refusals.add(*code);
        }
    }
}
