//! Clients of the admin console: their messages go to a task, its answers come back as bytes.

use tokio::sync::mpsc::error::TrySendError;

use super::{
    Worker,
    client::ClientState,
    message::{ClientRef, ConsoleInput, ConsoleLink},
};
use crate::protocol::{
    frame::{HEADER, Header},
    frontend as fe,
};

/// Longest message that the console reads.
const MAX_MESSAGE: usize = 64 << 10;

impl Worker {
    /// Reads and hands on whole messages, unless earlier ones or their answers still wait: reading on would only fill
    /// memory.
    pub(super) fn console_readable(&mut self, slot: usize) {
        let Some(client) = self.clients.get_mut(slot) else { return };
        let ClientState::Console(console) = &client.state else { return };
        if !client.conn.is_flushed() {
            return;
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut eof = false;
        while client.conn.readable && client.pending.len() <= MAX_MESSAGE && !eof {
            match client.conn.read(&mut buffer) {
                Ok(read) => {
                    client.pending.extend_from_slice(buffer.get(..read.n).unwrap_or_default());
                    eof = read.eof;
                }
                Err(_) => eof = true,
            }
        }
        self.buffer = buffer;
        let (used, end) = hand_on(console, &client.pending);
        client.pending.drain(..used);
        if eof || end {
            self.close_client(slot, "client close request");
        }
    }

    /// An answer of the console, which has taken what it was handed.
    pub(super) fn console_output(&mut self, client: ClientRef, bytes: &[u8], close: bool) {
        if self.clients.get(client.slot).is_none_or(|c| c.session.id != client.id) {
            return;
        }
        self.send_to_client(client.slot, bytes);
        if close {
            self.close_client(client.slot, "console closed");
        } else {
            self.console_readable(client.slot);
        }
    }
}

/// Sends whole messages to the console. Returns how many bytes they were, and whether the client is to be closed.
fn hand_on(console: &ConsoleLink, input: &[u8]) -> (usize, bool) {
    let mut used = 0;
    loop {
        let rest = input.get(used..).unwrap_or_default();
        let Some(header) = Header::peek(rest) else { return (used, false) };
        if header.len < 4 || header.total() > MAX_MESSAGE || header.tag == fe::TERMINATE {
            return (used, true);
        }
        let Some(message) = rest.get(..header.total()) else { return (used, false) };
        let body = message.get(HEADER..).unwrap_or_default().to_vec();
        match console.input.try_send(ConsoleInput::Frame(header.tag, body)) {
            Ok(()) => used += header.total(),
            Err(TrySendError::Full(_)) => return (used, false),
            Err(TrySendError::Closed(_)) => return (used, true),
        }
    }
}
