//! When a reply wakes its worker: long ones come in large pieces, and what comes in front of one comes with it.
//!
//! PostgreSQL sends 8 kB at a time. A worker that passes on each of these wakes up, and wakes its client, 128 times per
//! megabyte, and that is most of what a large result costs. So a server amid a long reply wakes its worker only when
//! `PIECE` bytes are there (SO_RCVLOWAT, socket(7)). Where a reply ends nobody knows beforehand: what is less than a
//! piece is fetched every `PAUSE`. A server that was silent for a pause is one like any other again.

use std::{io, time::Duration};

use super::{
    Worker,
    server::{Server, ServerState},
};

/// From so many bytes on a reply is a long one.
const LONG: usize = 64 << 10;
const PIECE: usize = 32 << 10;
/// What the end of a long reply may be late by.
const PAUSE: Duration = Duration::from_micros(250);

/// What is to be expected in front of a reply, at most: an error may come in its place, and is longer.
const FRONT: usize = 64;

/// How a server's reply comes.
#[derive(Debug)]
pub(crate) struct Pace {
    /// Bytes of the reply so far; of its last part, if there was a pause in it.
    read: usize,
    /// The same when it was fetched last.
    fetched: usize,
    /// So many bytes wake the worker.
    wakes_at: usize,
    /// It is in its worker's list of long replies.
    listed: bool,
}

impl Default for Pace {
    fn default() -> Self {
        Self { read: 0, fetched: 0, wakes_at: 1, listed: false }
    }
}

impl Pace {
    /// So many bytes have been read; the last of them ended a reply.
    pub(super) fn note(&mut self, read: usize, ended: bool) {
        self.read = if ended { 0 } else { self.read + read };
    }

    /// Its socket waits until there is a piece.
    fn gathers(&self) -> bool {
        self.wakes_at == PIECE
    }

    /// It does not wake up for what is to come in front.
    pub(super) fn expects_more(&self) -> bool {
        self.wakes_at > 1 && !self.gathers()
    }
}

impl Server {
    /// A socket that cannot is read as before.
    pub(super) fn wake_at(&mut self, bytes: usize) {
        if self.pace.wakes_at != bytes && self.conn.wire().wake_at(bytes).is_ok() {
            self.pace.wakes_at = bytes;
        }
    }

    /// Sends what is sure to be answered behind so many bytes: these alone wake nobody. For servers that change their
    /// settings for each client, that is every other time.
    pub(super) fn send_behind(&mut self, in_front: usize, bytes: &[u8]) -> io::Result<()> {
        self.wake_at(if in_front <= FRONT { in_front + 1 } else { 1 });
        self.conn.send(bytes)
    }
}

impl Worker {
    /// Whatever a server says is to be read.
    pub(super) fn wake_for_anything(&mut self, slot: usize) {
        if let Some(server) = self.servers.get_mut(slot) {
            server.wake_at(1);
        }
    }

    /// More of a reply was read, or its end.
    pub(super) fn keep_pace(&mut self, slot: usize) {
        let Some(server) = self.servers.get_mut(slot) else { return };
        let long = server.pace.read >= LONG;
        if !long && server.state == ServerState::Free && !server.pace.gathers() {
            // Nothing is to come but for the next client: what it sends decides.
            return;
        }
        if long == server.pace.gathers() && !server.pace.expects_more() {
            return;
        }
        server.wake_at(if long { PIECE } else { 1 });
        if server.pace.gathers() && !std::mem::replace(&mut server.pace.listed, true) {
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
        if server.pace.gathers() {
            server.conn.readable = true;
            self.server_readable(slot);
        }
        let Some(server) = self.servers.get_mut(slot).filter(|s| s.id == id) else { return false };
        let pace = &mut server.pace;
        if !pace.gathers() || pace.read == pace.fetched {
            (pace.read, pace.listed) = (0, false);
            if pace.gathers() {
                server.wake_at(1);
            }
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
