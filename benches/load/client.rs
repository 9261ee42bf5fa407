//! A client in the event loop: reads replies only as far as to know where they end.

use std::io::{self, Read, Write};
use std::time::Instant;

use mio::net::TcpStream;
use rustls::ClientConnection;

use crate::Res;
use crate::wire::{Wire, error_text};
use crate::work::Work;

/// What one wakeup of a client brought.
pub(crate) struct Progress {
    /// A transaction ended, begun then.
    pub(crate) done: Option<Instant>,
    /// A request failed.
    pub(crate) failed: Option<String>,
}

/// One connection with one request under way.
pub(crate) struct Client {
    pub(crate) socket: TcpStream,
    tls: Option<Box<ClientConnection>>,
    replies: Replies,
    work: Work,
    out: Vec<u8>,
    last_step: bool,
    begun: Instant,
}

impl Client {
    pub(crate) fn new(wire: Wire, work: Work) -> Res<Self> {
        wire.socket.set_nonblocking(true)?;
        let socket = TcpStream::from_std(wire.socket);
        let replies = Replies::default();
        Ok(Self {
            socket,
            tls: wire.tls,
            replies,
            work,
            out: Vec::new(),
            last_step: true,
            begun: Instant::now(),
        })
    }

    /// Sends the next request.
    pub(crate) fn ask(&mut self) -> Res<()> {
        if self.last_step {
            self.begun = Instant::now();
        }
        self.last_step = self.work.next(&mut self.out);
        self.flush()
    }

    /// Writes what waits to be written, as far as the socket takes it.
    pub(crate) fn flush(&mut self) -> Res<()> {
        if let Some(tls) = &mut self.tls {
            tls.writer().write_all(&self.out)?;
            self.out.clear();
            while tls.wants_write() {
                match tls.write_tls(&mut self.socket) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    other => other?,
                };
            }
            return Ok(());
        }
        while !self.out.is_empty() {
            match self.socket.write(&self.out) {
                Ok(count) => drop(self.out.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Reads what is there. When the reply is complete the next request goes out.
    pub(crate) fn wake(&mut self, buffer: &mut [u8]) -> Res<Progress> {
        let ready = match self.tls {
            Some(_) => self.read_tls(buffer)?,
            None => self.read_plain(buffer)?,
        };
        let mut progress = Progress { done: None, failed: self.replies.error.take() };
        if ready {
            progress.done = self.last_step.then_some(self.begun);
            self.ask()?;
        }
        Ok(progress)
    }

    /// A read that does not fill the buffer has emptied the socket (epoll(7)), so one call is enough.
    fn read_plain(&mut self, buffer: &mut [u8]) -> Res<bool> {
        let mut ready = false;
        loop {
            match self.socket.read(buffer) {
                Ok(0) => return Err("the server closed the connection".into()),
                Ok(count) => {
                    ready |= self.replies.take(buffer.get(..count).unwrap_or_default());
                    if count < buffer.len() {
                        return Ok(ready);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(ready),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn read_tls(&mut self, buffer: &mut [u8]) -> Res<bool> {
        let Some(tls) = &mut self.tls else { return Ok(false) };
        let mut ready = false;
        loop {
            match tls.read_tls(&mut self.socket) {
                Ok(0) => return Err("the server closed the connection".into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(ready),
                Err(error) => return Err(error.into()),
            }
            tls.process_new_packets()?;
            loop {
                match tls.reader().read(buffer) {
                    Ok(0) => break,
                    Ok(count) => ready |= self.replies.take(buffer.get(..count).unwrap_or_default()),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }
}

/// Where in the stream of messages a client is.
#[derive(Default)]
struct Replies {
    header: Vec<u8>,
    skip: usize,
    /// Start of an ErrorResponse that is being read, or the text of a whole one.
    body: Option<Vec<u8>>,
    error: Option<String>,
}

impl Replies {
    /// Walks over `bytes`; `true` if a ReadyForQuery ended in them.
    fn take(&mut self, mut bytes: &[u8]) -> bool {
        let mut ready = false;
        loop {
            let (body, rest) = bytes.split_at(self.skip.min(bytes.len()));
            self.skip -= body.len();
            bytes = rest;
            if let Some(error) = &mut self.body {
                error.extend_from_slice(body);
            }
            if self.skip > 0 {
                return ready;
            }
            ready |= self.end_message();
            let (head, rest) = bytes.split_at((5 - self.header.len()).min(bytes.len()));
            self.header.extend_from_slice(head);
            bytes = rest;
            let &[tag, a, b, c, d] = self.header.as_slice() else { return ready };
            self.skip = (u32::from_be_bytes([a, b, c, d]) as usize).saturating_sub(4);
            self.body = (tag == b'E').then(Vec::new);
        }
    }

    /// Called where no body is left to skip: forgets the header, and tells if it was ReadyForQuery's.
    fn end_message(&mut self) -> bool {
        if self.header.len() < 5 {
            return false;
        }
        if let Some(body) = self.body.take() {
            self.error = Some(error_text(&body));
        }
        let ready = self.header.first() == Some(&b'Z');
        self.header.clear();
        ready
    }
}
