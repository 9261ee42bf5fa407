//! A wire and the bytes that it did not take yet.

use std::{io, os::fd::BorrowedFd};

use crate::net::wire::{Read, Wire};

/// Keeps up to so many bytes of an emptied backlog's buffer for the next one.
const KEEP: usize = 4 << 10;

/// Bytes of a backlog up to which the end of a reply may join it, so that the server is free.
const ROOM: usize = 64 << 10;

/// Bytes of a backlog from which on nothing more should be added to it.
const CHOKED: usize = 256 << 10;

/// One end of a relay.
#[derive(Debug)]
pub(crate) struct Conn {
    wire: Wire,
    /// Written to as soon as the socket has room.
    backlog: Vec<u8>,
    /// How much of `backlog` has been written.
    sent: usize,
    /// There may be bytes to read: an event said so, and no read has drained the socket since.
    pub(crate) readable: bool,
    /// `readable` is only a guess: no event has said so.
    pub(crate) guessed: bool,
    /// It is in its worker's list of those that get another turn.
    pub(crate) queued: bool,
    /// The peer has ended its side: no event will say so again, so reading goes on until the end is read.
    pub(crate) hung_up: bool,
}

impl Conn {
    pub(crate) fn new(wire: Wire) -> Self {
        // Bytes may have come before the socket was registered.
        Self {
            wire,
            backlog: Vec::new(),
            sent: 0,
            readable: true,
            guessed: true,
            queued: false,
            hung_up: false,
        }
    }

    pub(crate) fn wire(&mut self) -> &mut Wire {
        &mut self.wire
    }

    /// Its socket.
    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.wire.descriptor()
    }

    /// It comes from another worker: events in between are gone.
    pub(crate) fn look_again(&mut self) {
        self.readable = true;
        self.guessed = true;
        self.queued = false;
    }

    /// Nothing is known that a read would not find out: an event has said that bytes are there, and not that they are
    /// the last ones.
    pub(crate) fn surely_has_bytes(&self) -> bool {
        self.readable && !self.guessed && !self.hung_up
    }

    /// Everything that was sent has left.
    pub(crate) fn is_flushed(&self) -> bool {
        self.backlog.is_empty() && !self.wire.has_unsent()
    }

    /// So much waits to leave that no more should be added.
    pub(crate) fn is_choked(&self) -> bool {
        self.backlog.len() > CHOKED
    }

    /// What waits to leave is little enough for the rest of a reply to wait with it.
    pub(crate) fn has_room(&self) -> bool {
        self.backlog.len() < ROOM
    }

    /// Reads; notes when the socket is drained.
    pub(crate) fn read(&mut self, buf: &mut [u8]) -> io::Result<Read> {
        debug_assert!(!buf.is_empty(), "nothing read into nothing looks like the end");
        self.guessed = false;
        let read = self.wire.read(buf)?;
        self.readable = !read.drained || (self.hung_up && !read.eof);
        Ok(read)
    }

    /// Writes, or keeps what the socket does not take.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let taken = if self.backlog.is_empty() { self.wire.write(bytes)? } else { 0 };
        if let Some(rest) = bytes.get(taken..).filter(|r| !r.is_empty()) {
            self.backlog.extend_from_slice(rest);
        }
        Ok(())
    }

    /// Writes what was kept. True if everything has left.
    pub(crate) fn flush(&mut self) -> io::Result<bool> {
        if !self.wire.flush()? {
            return Ok(false);
        }
        if self.backlog.is_empty() {
            return Ok(true);
        }
        let rest = self.backlog.get(self.sent..).unwrap_or_default();
        self.sent += self.wire.write(rest)?;
        if self.sent < self.backlog.len() {
            return Ok(false);
        }
        self.sent = 0;
        self.backlog.clear();
        if self.backlog.capacity() > KEEP {
            self.backlog = Vec::new();
        }
        Ok(true)
    }
}
