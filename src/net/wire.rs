//! A socket on a worker: non-blocking, registered once (edge-triggered), clear or TLS.
//!
//! Whoever reads must go on until the socket is drained: [`Read::drained`] says so without the extra call
//! that would only return "would block".

use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd},
};

use mio::{Interest, Registry, Token, event::Source};
use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::{Socket, Stream};

/// A connected socket of a worker.
#[derive(Debug)]
pub struct Wire {
    socket: PollSocket,
    tls: Option<Box<rustls::Connection>>,
}

#[derive(Debug)]
enum PollSocket {
    Tcp(mio::net::TcpStream),
    Unix(mio::net::UnixStream),
}

/// Result of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read {
    /// Bytes read.
    pub n: usize,
    /// Nothing is left in the socket: the next bytes will raise an event.
    pub drained: bool,
    /// The peer has ended its side; no more bytes will come.
    pub eof: bool,
}

impl Wire {
    /// Takes over a socket and registers it.
    pub fn register(stream: Stream, registry: &Registry, token: Token) -> io::Result<Self> {
        let mut wire = Self::detached(stream);
        wire.attach(registry, token)?;
        Ok(wire)
    }

    /// Takes over a socket that is to be attached.
    pub fn detached(stream: Stream) -> Self {
        let socket = match stream.socket {
            Socket::Tcp(tcp) => PollSocket::Tcp(mio::net::TcpStream::from_std(tcp)),
            Socket::Unix(unix) => PollSocket::Unix(mio::net::UnixStream::from_std(unix)),
        };
        Self { socket, tls: stream.tls }
    }

    /// Its socket.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.socket.fd()
    }

    /// Moves to another worker: first off this one's registry …
    pub fn detach(&mut self, registry: &Registry) -> io::Result<()> {
        registry.deregister(self.socket.source())
    }

    /// … then on to the other's.
    pub fn attach(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(self.socket.source(), token, Interest::READABLE | Interest::WRITABLE)
    }

    /// Reads what is there.
    pub fn read(&mut self, buf: &mut [u8]) -> io::Result<Read> {
        match &mut self.tls {
            None => read_socket(&mut self.socket, buf),
            Some(tls) => read_tls(&mut self.socket, tls, buf),
        }
    }

    /// Writes as much as the socket takes; 0 if it is full.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else { return write_socket(&mut self.socket, bytes) };
        let mut taken = 0;
        while flush_tls(&mut self.socket, tls)? {
            let rest = bytes.get(taken..).unwrap_or_default();
            if rest.is_empty() {
                break;
            }
            taken += tls.writer().write(rest)?;
        }
        Ok(taken)
    }

    /// Sends what TLS still holds back. True if nothing is left.
    pub fn flush(&mut self) -> io::Result<bool> {
        match &mut self.tls {
            None => Ok(true),
            Some(tls) => flush_tls(&mut self.socket, tls),
        }
    }

    /// Tells a TLS peer that the end is meant (close_notify), as far as the socket takes it.
    pub fn close_notify(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
            // The connection ends either way.
            let _ = flush_tls(&mut self.socket, tls);
        }
    }

    /// From now on an event says that so many bytes are there to be read, or the end.
    pub fn wake_at(&self, bytes: usize) -> io::Result<()> {
        match &self.socket {
            PollSocket::Tcp(tcp) => set_low_water_mark(tcp.as_fd(), bytes),
            // unix(7) sockets know no such mark.
            PollSocket::Unix(_) => Err(ErrorKind::Unsupported.into()),
        }
    }

    /// TLS holds records that the socket did not take.
    pub fn has_unsent(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.wants_write())
    }

    /// TLS is on.
    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }
}

impl PollSocket {
    fn source(&mut self) -> &mut dyn Source {
        match self {
            Self::Tcp(tcp) => tcp,
            Self::Unix(unix) => unix,
        }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(tcp) => tcp.as_fd(),
            Self::Unix(unix) => unix.as_fd(),
        }
    }
}

// Straight to the kernel: in a process of several threads libc makes each of these calls a cancellation point
// (pthreads(7)), which costs two atomic operations.
impl io::Read for PollSocket {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let (n, _) = recv(self.fd(), buf, RecvFlags::empty())?;
        Ok(n)
    }
}

impl io::Write for PollSocket {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        Ok(send(self.fd(), buf, SendFlags::NOSIGNAL)?)
    }

    fn write_vectored(&mut self, bufs: &[io::IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(tcp) => tcp.write_vectored(bufs),
            Self::Unix(unix) => unix.write_vectored(bufs),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// SO_RCVLOWAT (socket(7)), which `socket2` does not have.
fn set_low_water_mark(socket: BorrowedFd<'_>, bytes: usize) -> io::Result<()> {
    let value = libc::c_int::try_from(bytes).map_err(io::Error::other)?;
    let size = std::mem::size_of_val(&value);
    // SAFETY: setsockopt(2) on an open socket, with a pointer to a living integer and its size.
    #[allow(unsafe_code)]
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVLOWAT,
            std::ptr::from_ref(&value).cast(),
            libc::socklen_t::try_from(size).unwrap_or(4),
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn read_socket(socket: &mut PollSocket, buf: &mut [u8]) -> io::Result<Read> {
    loop {
        return match socket.read(buf) {
            Ok(0) => Ok(Read { n: 0, drained: true, eof: true }),
            // epoll(7), question 9: a short read means that a stream socket is drained.
            Ok(n) => Ok(Read { n, drained: n < buf.len(), eof: false }),
            Err(e) if e.kind() == ErrorKind::WouldBlock => Ok(Read { n: 0, drained: true, eof: false }),
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            Err(e) => Err(e),
        };
    }
}

fn write_socket(socket: &mut PollSocket, bytes: &[u8]) -> io::Result<usize> {
    let mut taken = 0;
    while let Some(rest) = bytes.get(taken..).filter(|r| !r.is_empty()) {
        match socket.write(rest) {
            // A short write means that the socket is full: the next room raises an event.
            Ok(n) if n < rest.len() => return Ok(taken + n),
            Ok(n) => taken += n,
            Err(e) if e.kind() == ErrorKind::WouldBlock => break,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(taken)
}

/// Decrypts into `buf` until it is full or the socket is drained.
fn read_tls(socket: &mut PollSocket, tls: &mut rustls::Connection, buf: &mut [u8]) -> io::Result<Read> {
    let mut n = 0;
    let mut drained = false;
    loop {
        let room = buf.get_mut(n..).unwrap_or_default();
        if room.is_empty() {
            return Ok(Read { n, drained: false, eof: false });
        }
        match tls.reader().read(room) {
            Ok(0) => return Ok(Read { n, drained: true, eof: true }),
            Ok(got) => {
                n += got;
                continue;
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            // The peer left without close_notify: an end like any other to PostgreSQL's protocol.
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => {
                return Ok(Read { n, drained: true, eof: true });
            }
            Err(e) => return Err(e),
        }
        if drained {
            return Ok(Read { n, drained: true, eof: false });
        }
        drained = feed_tls(socket, tls)?;
    }
}

/// Reads records once. True if the socket is drained.
fn feed_tls(socket: &mut PollSocket, tls: &mut rustls::Connection) -> io::Result<bool> {
    let mut counted = CountedRead { socket, short: false };
    match tls.read_tls(&mut counted) {
        Ok(_) => {}
        Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(true),
        Err(e) if e.kind() == ErrorKind::Interrupted => return Ok(false),
        Err(e) => return Err(e),
    }
    let drained = counted.short;
    tls.process_new_packets().map_err(|e| io::Error::new(ErrorKind::InvalidData, e))?;
    Ok(drained)
}

/// Notices a read that got less than it asked for.
struct CountedRead<'a> {
    socket: &'a mut PollSocket,
    short: bool,
}

impl io::Read for CountedRead<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.socket.read(buf)?;
        // The end of the stream (0) has to be read again by nobody.
        self.short = n < buf.len();
        Ok(n)
    }
}

fn flush_tls(socket: &mut PollSocket, tls: &mut rustls::Connection) -> io::Result<bool> {
    while tls.wants_write() {
        match tls.write_tls(socket) {
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(true)
}
