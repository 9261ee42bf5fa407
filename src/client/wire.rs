//! A client's socket during login: reads whole packets under a cap, writes one step at a time.
//!
//! Reads what is there in one system call, which may be more than one packet; what is left over goes to the
//! worker. Nothing is reserved for a length before the length is checked.

use std::{
    io,
    os::fd::{AsRawFd as _, RawFd},
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixStream},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use zeroize::Zeroizing;

use super::error::LoginError;
use crate::{
    net::{Socket, Stream, tls},
    protocol::{
        frame::{HEADER, Header},
        frontend,
        startup::{StartupPacket, StartupPacketError, packet_len},
    },
};

/// First read: fits the startup packets and SCRAM messages of all known drivers.
const FIRST_READ: usize = 1024;
/// Longest message of a client that has not logged in.
const MAX_MESSAGE: usize = 8192;
/// First byte of a TLS connection (a handshake record), which no startup packet begins with.
const TLS_HANDSHAKE: u8 = 0x16;
/// How long a client that is being turned away may take to read why.
const FAREWELL: Duration = Duration::from_secs(1);

/// A socket, as accepted or with TLS on it.
#[derive(Debug)]
enum Io {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
    /// A TLS handshake has it, or a failed one lost it.
    Gone,
}

/// The socket and its buffers.
#[derive(Debug)]
pub struct Wire {
    io: Io,
    input: Vec<u8>,
    /// What the next `flush` writes.
    pub(crate) out: Vec<u8>,
}

impl Wire {
    /// For an accepted TCP connection.
    pub fn tcp(socket: TcpStream) -> Self {
        Self::new(Io::Tcp(socket))
    }

    /// For an accepted connection on a unix socket.
    pub fn unix(socket: UnixStream) -> Self {
        Self::new(Io::Unix(socket))
    }

    fn new(io: Io) -> Self {
        Self { io, input: Vec::with_capacity(FIRST_READ), out: Vec::new() }
    }

    /// The socket's file descriptor; -1: lost.
    pub(crate) fn descriptor(&self) -> RawFd {
        match &self.io {
            Io::Tcp(socket) => socket.as_raw_fd(),
            Io::Unix(socket) => socket.as_raw_fd(),
            Io::Tls(stream) => stream.get_ref().0.as_raw_fd(),
            Io::Gone => -1,
        }
    }

    /// A TCP connection without TLS.
    pub(crate) fn is_clear_tcp(&self) -> bool {
        matches!(self.io, Io::Tcp(_))
    }

    /// TLS is established.
    pub(crate) fn is_tls(&self) -> bool {
        matches!(self.io, Io::Tls(_))
    }

    /// Whether bytes behind the last packet have been read already.
    pub(crate) fn has_input(&self) -> bool {
        !self.input.is_empty()
    }

    /// Protocol and cipher, `TLSv1.3/TLS_AES_256_GCM_SHA384`; empty without TLS.
    pub(crate) fn tls_description(&self) -> String {
        let Io::Tls(tls) = &self.io else { return String::new() };
        let (_, session) = tls.get_ref();
        let version = session.protocol_version().and_then(|version| version.as_str()).unwrap_or("TLS");
        let suite = session.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str()).unwrap_or("?");
        format!("{}/{}", version.replace('_', "."), suite.replace("TLS13_", "TLS_"))
    }

    /// Reads until at least `need` bytes are buffered. Cancel safe.
    async fn fill(&mut self, need: usize) -> Result<(), LoginError> {
        while self.input.len() < need {
            self.input.reserve(need - self.input.len());
            let read = match &mut self.io {
                Io::Tcp(socket) => socket.read_buf(&mut self.input).await,
                Io::Unix(socket) => socket.read_buf(&mut self.input).await,
                Io::Tls(stream) => stream.read_buf(&mut self.input).await,
                Io::Gone => Ok(0),
            };
            match read {
                Ok(0) => return Err(LoginError::Closed),
                Ok(_) => {}
                Err(e) if is_disconnect(&e) => return Err(LoginError::Closed),
                Err(e) => return Err(LoginError::Io(e)),
            }
        }
        Ok(())
    }

    fn consume(&mut self, count: usize) {
        self.input.drain(..count.min(self.input.len()));
    }

    /// Whether the client starts with a TLS handshake. Waits for the first byte.
    pub(crate) async fn starts_with_tls(&mut self) -> Result<bool, LoginError> {
        self.fill(1).await?;
        Ok(self.input.first() == Some(&TLS_HANDSHAKE))
    }

    /// Reads one packet without a tag.
    pub(crate) async fn startup_packet(&mut self) -> Result<StartupPacket, LoginError> {
        self.fill(4).await?;
        let len = packet_len(&self.input)?.ok_or(StartupPacketError::Length)?;
        self.fill(len).await?;
        let packet = self.input.get(..len).ok_or(StartupPacketError::Length)?;
        let parsed = StartupPacket::parse(packet);
        self.consume(len);
        Ok(parsed?)
    }

    /// Reads the body of one PasswordMessage, SASLInitialResponse or SASLResponse.
    pub(crate) async fn password_message(&mut self) -> Result<Zeroizing<Vec<u8>>, LoginError> {
        self.fill(HEADER).await?;
        let header = Header::peek(&self.input).ok_or(LoginError::MessageLength)?;
        match header.tag {
            frontend::PASSWORD => {}
            frontend::TERMINATE => return Err(LoginError::Closed),
            tag => return Err(LoginError::NotPassword(tag)),
        }
        let total = header.total();
        if header.len < 4 || total > MAX_MESSAGE {
            return Err(LoginError::MessageLength);
        }
        self.fill(total).await?;
        let body = self.input.get(HEADER..total).ok_or(LoginError::MessageLength)?;
        let body = Zeroizing::new(body.to_vec());
        if let Some(read) = self.input.get_mut(..total) {
            // It may hold a password, and the buffer may live on with the client.
            zeroize::Zeroize::zeroize(read);
        }
        self.consume(total);
        Ok(body)
    }

    /// Writes what has been put into `out`, in one write. Cancel safe: what is written leaves `out`.
    pub(crate) async fn flush(&mut self) -> Result<(), LoginError> {
        self.write_out()
            .await
            .map_err(|e| if is_disconnect(&e) { LoginError::Closed } else { LoginError::Io(e) })
    }

    async fn write_out(&mut self) -> io::Result<()> {
        while !self.out.is_empty() {
            let written = match &mut self.io {
                Io::Tcp(socket) => socket.write(&self.out).await?,
                Io::Unix(socket) => socket.write(&self.out).await?,
                Io::Tls(stream) => stream.write(&self.out).await?,
                Io::Gone => self.out.len(),
            };
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.out.drain(..written.min(self.out.len()));
        }
        match &mut self.io {
            Io::Tls(stream) => stream.flush().await,
            Io::Tcp(_) | Io::Unix(_) | Io::Gone => Ok(()),
        }
    }

    /// Runs the TLS handshake as server. Bytes that were read already belong to it.
    pub(crate) async fn accept_tls(&mut self, config: &Arc<rustls::ServerConfig>) -> Result<(), LoginError> {
        let Io::Tcp(socket) = std::mem::replace(&mut self.io, Io::Gone) else {
            return Err(LoginError::RepeatedRequest);
        };
        let (mut read, mut refused) = (std::mem::take(&mut self.input), false);
        let accept = TlsAcceptor::from(Arc::clone(config))
            .accept_with(socket, |session| refused = feed(session, &read).is_err());
        // A refused ClientHello leaves an alert to be written; the client closes when it has read it.
        let handshake =
            async { if refused { tokio::time::timeout(FAREWELL, accept).await? } else { accept.await } };
        self.io = Io::Tls(Box::new(handshake.await.map_err(LoginError::Handshake)?));
        read.clear();
        self.input = read;
        Ok(())
    }

    /// Who the client's certificate says that it is; it has been verified.
    pub(crate) fn certified_names(&self) -> Vec<String> {
        let Io::Tls(stream) = &self.io else { return Vec::new() };
        let certificates = stream.get_ref().1.peer_certificates();
        certificates.and_then(|chain| chain.first()).map(tls::names).unwrap_or_default()
    }

    /// Whether the client chose the protocol `postgresql` by ALPN.
    pub(crate) fn has_alpn(&self) -> bool {
        matches!(&self.io, Io::Tls(stream) if stream.get_ref().1.alpn_protocol() == Some(b"postgresql"))
    }

    /// Writes what is in `out` and closes the sending side; gives up on a client that does not read.
    pub(crate) async fn say_goodbye(&mut self) {
        let farewell = async {
            self.flush().await?;
            match &mut self.io {
                Io::Tcp(socket) => socket.shutdown().await?,
                Io::Unix(socket) => socket.shutdown().await?,
                Io::Tls(stream) => stream.shutdown().await?,
                Io::Gone => {}
            }
            Ok::<(), LoginError>(())
        };
        // Nobody is left to hear of a failure.
        let _ = tokio::time::timeout(FAREWELL, farewell).await;
        self.discard_input();
    }

    /// Closing a socket with unread input resets it, and the reset may overtake our last message.
    fn discard_input(&mut self) {
        let mut scratch = [0; 4096];
        for _ in 0..16 {
            let read = match &self.io {
                Io::Tcp(socket) => socket.try_read(&mut scratch),
                Io::Unix(socket) => socket.try_read(&mut scratch),
                Io::Tls(stream) => stream.get_ref().0.try_read(&mut scratch),
                Io::Gone => return,
            };
            if !matches!(read, Ok(1..)) {
                return;
            }
        }
    }

    /// Takes the socket off tokio, with what has been read too far and what has not been written yet.
    pub(crate) fn into_parts(self) -> io::Result<(Stream, Vec<u8>, Vec<u8>)> {
        let stream = match self.io {
            Io::Tcp(socket) => Stream { socket: Socket::Tcp(socket.into_std()?), tls: None },
            Io::Unix(socket) => Stream { socket: Socket::Unix(socket.into_std()?), tls: None },
            Io::Tls(stream) => {
                let (socket, session) = stream.into_inner();
                let tls = Some(Box::new(rustls::Connection::Server(session)));
                Stream { socket: Socket::Tcp(socket.into_std()?), tls }
            }
            Io::Gone => return Err(io::ErrorKind::NotConnected.into()),
        };
        // An idle client must not keep the login's buffer.
        let leftover = if self.input.is_empty() { Vec::new() } else { self.input };
        Ok((stream, leftover, self.out))
    }
}

/// Gives a session the bytes that were read before it existed.
fn feed(session: &mut rustls::ServerConnection, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        session.read_tls(&mut bytes)?;
        session.process_new_packets().map_err(io::Error::other)?;
    }
    Ok(())
}

/// The client is gone: nothing to report.
fn is_disconnect(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), ConnectionReset | ConnectionAborted | BrokenPipe | UnexpectedEof)
}
