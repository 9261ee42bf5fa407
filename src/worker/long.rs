//! Long replies come in large pieces.
//!
//! PostgreSQL sends 8 kB at a time. A worker that passes on each of these wakes up, and wakes its client, 128 times per
//! megabyte, and that is most of what a large result costs. So a server amid a long reply wakes its worker only when
//! `PIECE` bytes are there (SO_RCVLOWAT, socket(7)). Where a reply ends nobody knows beforehand: what is less than a
//! piece is fetched every `PAUSE`. A server that was silent for a pause is one like any other again.

use std::time::Duration;

use super::{Worker, server::Server};

/// From so many bytes on a reply is a long one.
const LONG: usize = 64 << 10;
const PIECE: usize = 32 << 10;
/// What the end of a long reply may be late by.
const PAUSE: Duration = Duration::from_micros(250);

/// How a server's reply comes.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// Bytes of the reply so far; of its last part, if there was a pause in it.
    read: usize,
    /// The same when it was fetched last.
    fetched: usize,
    /// Its socket waits until there is a piece.
    gathers: bool,
    /// It is in its worker's list of long replies.
    listed: bool,
}

impl Pace {
    /// So many bytes have been read; the last of them ended a reply.
    pub(super) fn note(&mut self, read: usize, ended: bool) {
        self.read = if ended { 0 } else { self.read + read };
    }
}

impl Server {
    fn set_pace(&mut self, gathers: bool) {
        if self.pace.gathers != gathers {
            // A socket that cannot is read as before.
            self.pace.gathers = gathers && self.conn.wire().wake_at(PIECE).is_ok();
            if !gathers {
                let _ = self.conn.wire().wake_at(1);
            }
        }
    }
}

impl Worker {
    /// More of a reply was read, or its end.
    pub(super) fn keep_pace(&mut self, slot: usize) {
        let Some(server) = self.servers.get_mut(slot) else { return };
        let long = server.pace.read >= LONG;
        if long == server.pace.gathers {
            return;
        }
        server.set_pace(long);
        if server.pace.gathers && !std::mem::replace(&mut server.pace.listed, true) {
            server.pace.fetched = server.pace.read;
            self.long.push((slot, server.id));
            if self.long.len() == 1 {
                self.set_timer();
            }
        }
    }

    /// Fetches what is there of the long replies.
    pub(super) fn fetch_long(&mut self) {
        let mut long = std::mem::take(&mut self.long);
        long.retain(|&(slot, id)| self.fetch(slot, id));
        // Nothing else adds to it meanwhile but servers that were not in it.
        long.append(&mut self.long);
        self.long = long;
        if !self.long.is_empty() {
            self.set_timer();
        }
    }

    /// True: there may be more of it.
    fn fetch(&mut self, slot: usize, id: u64) -> bool {
        let Some(server) = self.servers.get_mut(slot).filter(|s| s.id == id) else { return false };
        if server.pace.gathers {
            server.conn.readable = true;
            self.server_readable(slot);
        }
        let Some(server) = self.servers.get_mut(slot).filter(|s| s.id == id) else { return false };
        let pace = &mut server.pace;
        if !pace.gathers || pace.read == pace.fetched {
            (pace.read, pace.listed) = (0, false);
            server.set_pace(false);
            return false;
        }
        pace.fetched = pace.read;
        true
    }

    fn set_timer(&self) {
        if let Err(error) = self.timer.set(PAUSE) {
            tracing::error!("worker {} cannot set its timer: {error}", self.id);
        }
    }
}
