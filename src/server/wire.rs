//! A connection to a server while it belongs to tokio: opening, TLS, and messages one at a time.
//!
//! Knows nothing of logins. Whole messages are gathered here, with a bound; the relay of sessions is the
//! workers'.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use rustls::{ClientConfig, pki_types::ServerName};
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixStream},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{ConnectError, Keepalive};
use crate::{
    config::Settings,
    net::{Socket, Stream},
    protocol::{
        frame::{HEADER, Header},
        startup::SSL_REQUEST,
    },
};

/// Longest message that a login reads, as libpq bounds errors (MAX_ERRLEN).
const LOGIN_MESSAGE: usize = 30_000;
/// Bytes asked for at once, by a login.
const READ: usize = 4096;

/// Where a socket is connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => match path.to_string_lossy().strip_prefix('\0') {
                Some(name) => write!(f, "@{name}"),
                None => path.display().fmt(f),
            },
        }
    }
}

enum Io {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A connection and the bytes that were read ahead.
pub(super) struct Wire {
    io: Io,
    pub(super) endpoint: Endpoint,
    target: String,
    buffer: Vec<u8>,
    /// Longest message that is read.
    pub(super) longest: usize,
    /// Bytes asked for at once.
    pub(super) at_once: usize,
}

/// A message of the server.
pub(super) struct Message {
    pub(super) tag: u8,
    pub(super) body: Vec<u8>,
}

/// The answer to SSLRequest.
pub(super) enum TlsAnswer {
    /// `S`: the handshake may begin.
    Willing,
    /// `N`
    Unwilling,
    /// An ErrorResponse, which nobody has authenticated: not to be shown (CVE-2024-10977).
    Error,
}

impl Wire {
    /// Connects to one endpoint.
    pub(super) async fn open(endpoint: Endpoint, keepalive: &Keepalive) -> Result<Self, ConnectError> {
        let target = endpoint.to_string();
        let connected = match &endpoint {
            Endpoint::Tcp(address) => open_tcp(*address, keepalive).await.map(Io::Tcp),
            Endpoint::Unix(path) => UnixStream::connect(path).await.map(Io::Unix),
        };
        match connected {
            Ok(io) => {
                Ok(Self { io, endpoint, target, buffer: Vec::new(), longest: LOGIN_MESSAGE, at_once: READ })
            }
            Err(e) => Err(ConnectError::Network { target, kind: e.kind(), reason: e.to_string() }),
        }
    }

    /// Sends SSLRequest and reads the one byte that answers it, and no more: whatever somebody slipped in
    /// behind it goes to the handshake, which fails of it (CVE-2021-23222).
    pub(super) async fn request_tls(&mut self) -> Result<TlsAnswer, ConnectError> {
        let [a, b, c, d] = SSL_REQUEST.to_be_bytes();
        self.send(&[0, 0, 0, 8, a, b, c, d]).await?;
        let mut answer = [0];
        let read = match &mut self.io {
            Io::Tcp(io) => io.read_exact(&mut answer).await,
            Io::Unix(io) => io.read_exact(&mut answer).await,
            Io::Tls(io) => io.read_exact(&mut answer).await,
        };
        read.map_err(|e| ConnectError::io(&self.target, &e))?;
        match answer {
            [b'S'] => Ok(TlsAnswer::Willing),
            [b'N'] => Ok(TlsAnswer::Unwilling),
            [b'E'] => Ok(TlsAnswer::Error),
            _ => Err(ConnectError::Protocol("unexpected answer to SSLRequest")),
        }
    }

    /// Runs the handshake.
    pub(super) async fn start_tls(
        self,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> Result<Self, ConnectError> {
        let Io::Tcp(tcp) = self.io else {
            return Err(ConnectError::Protocol("TLS is for TCP only"));
        };
        let stream = TlsConnector::from(config).connect(name, tcp).await.map_err(|e| {
            let reason = match e.kind() {
                io::ErrorKind::UnexpectedEof => "connection closed during the handshake".to_owned(),
                _ => e.to_string(),
            };
            ConnectError::Handshake(reason)
        })?;
        Ok(Self { io: Io::Tls(Box::new(stream)), ..self })
    }

    /// The TLS session, if any.
    pub(super) fn tls(&self) -> Option<&rustls::ClientConnection> {
        match &self.io {
            Io::Tls(stream) => Some(stream.get_ref().1),
            Io::Tcp(_) | Io::Unix(_) => None,
        }
    }

    /// Our address and port; the port is 0 for a unix socket.
    pub(super) fn local(&self) -> Option<(IpAddr, u16)> {
        let tcp = match &self.io {
            Io::Tcp(tcp) => tcp,
            Io::Tls(stream) => stream.get_ref().0,
            Io::Unix(_) => return None,
        };
        tcp.local_addr().ok().map(|address| (address.ip(), address.port()))
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<(), ConnectError> {
        let sent = match &mut self.io {
            Io::Tcp(io) => io.write_all(bytes).await,
            Io::Unix(io) => io.write_all(bytes).await,
            Io::Tls(io) => match io.write_all(bytes).await {
                Ok(()) => io.flush().await,
                failed => failed,
            },
        };
        sent.map_err(|e| ConnectError::io(&self.target, &e))
    }

    /// Reads the next message.
    pub(super) async fn message(&mut self) -> Result<Message, ConnectError> {
        loop {
            if let Some(header) = Header::peek(&self.buffer) {
                if header.len < 4 || header.total() > self.longest {
                    return Err(ConnectError::Protocol("message of an impossible length from the server"));
                }
                if self.buffer.len() >= header.total() {
                    let rest = self.buffer.split_off(header.total());
                    let mut body = std::mem::replace(&mut self.buffer, rest);
                    body.drain(..HEADER);
                    return Ok(Message { tag: header.tag, body });
                }
            }
            if self.fill().await? == 0 {
                return Err(ConnectError::Closed);
            }
        }
    }

    /// Waits for messages, and gives all that are here as a whole, one behind the other. May be given up and called again.
    pub(super) async fn messages(&mut self) -> Result<Vec<u8>, ConnectError> {
        loop {
            let mut end = 0;
            while let Some(header) = self.buffer.get(end..).and_then(Header::peek) {
                if header.len < 4 || header.total() > self.longest {
                    return Err(ConnectError::Protocol("message of an impossible length from the server"));
                }
                if self.buffer.len() - end < header.total() {
                    break;
                }
                end += header.total();
            }
            if end > 0 {
                let rest = self.buffer.split_off(end);
                return Ok(std::mem::replace(&mut self.buffer, rest));
            }
            if self.fill().await? == 0 {
                return Err(ConnectError::Closed);
            }
        }
    }

    /// Waits for the end of the stream; what comes before it is dropped.
    pub(super) async fn drain(&mut self) {
        while self.fill().await.is_ok_and(|read| read > 0) {
            self.buffer.clear();
        }
    }

    async fn fill(&mut self) -> Result<usize, ConnectError> {
        self.buffer.reserve(self.at_once);
        let read = match &mut self.io {
            Io::Tcp(io) => io.read_buf(&mut self.buffer).await,
            Io::Unix(io) => io.read_buf(&mut self.buffer).await,
            Io::Tls(io) => io.read_buf(&mut self.buffer).await,
        };
        read.map_err(|e| ConnectError::io(&self.target, &e))
    }

    /// Gives the socket up: to its next owner, with the bytes that were read ahead.
    pub(super) fn into_stream(self) -> Result<(Stream, Vec<u8>), ConnectError> {
        let taken = match self.io {
            Io::Tcp(tcp) => tcp.into_std().map(|s| Stream { socket: Socket::Tcp(s), tls: None }),
            Io::Unix(unix) => unix.into_std().map(|s| Stream { socket: Socket::Unix(s), tls: None }),
            Io::Tls(stream) => {
                let (tcp, session) = stream.into_inner();
                let tls = Some(Box::new(rustls::Connection::Client(session)));
                tcp.into_std().map(|s| Stream { socket: Socket::Tcp(s), tls })
            }
        };
        let mut leftover = self.buffer;
        leftover.shrink_to_fit();
        match taken {
            Ok(stream) => Ok((stream, leftover)),
            Err(e) => Err(ConnectError::io(&self.target, &e)),
        }
    }
}

async fn open_tcp(address: SocketAddr, keepalive: &Keepalive) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    keepalive.apply(&stream)?;
    Ok(stream)
}

impl Keepalive {
    /// What the settings say.
    pub fn of(settings: &Settings) -> Self {
        Self {
            enabled: settings.tcp_keepalive,
            idle: settings.tcp_keepidle,
            interval: settings.tcp_keepintvl,
            count: settings.tcp_keepcnt,
            user_timeout: settings.tcp_user_timeout,
        }
    }

    /// Sets the options of a socket.
    pub fn apply(&self, stream: &TcpStream) -> io::Result<()> {
        let socket = SockRef::from(stream);
        let given = |time: Duration| (!time.is_zero()).then_some(time);
        if self.enabled {
            let mut options = TcpKeepalive::new();
            if let Some(idle) = given(self.idle) {
                options = options.with_time(idle);
            }
            if let Some(interval) = given(self.interval) {
                options = options.with_interval(interval);
            }
            if self.count > 0 {
                options = options.with_retries(self.count);
            }
            socket.set_tcp_keepalive(&options)?;
        }
        if let Some(timeout) = given(self.user_timeout) {
            socket.set_tcp_user_timeout(Some(timeout))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn keepalive_sets_what_is_given_and_leaves_the_rest() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let plain = TcpStream::connect(address).await.unwrap();
        Keepalive::default().apply(&plain).unwrap();
        assert!(!SockRef::from(&plain).keepalive().unwrap());
        let kernel_default = SockRef::from(&plain).tcp_keepalive_time().unwrap();

        let settings = Settings {
            tcp_keepalive: true,
            tcp_keepidle: Duration::ZERO,
            tcp_keepintvl: Duration::from_secs(7),
            tcp_keepcnt: 3,
            tcp_user_timeout: Duration::from_secs(11),
            ..Settings::default()
        };
        let probed = TcpStream::connect(address).await.unwrap();
        Keepalive::of(&settings).apply(&probed).unwrap();
        let socket = SockRef::from(&probed);
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), kernel_default);
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), Duration::from_secs(7));
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), 3);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_secs(11)));

        let idle = Keepalive { enabled: true, idle: Duration::from_secs(5), ..Keepalive::default() };
        idle.apply(&plain).unwrap();
        assert_eq!(SockRef::from(&plain).tcp_keepalive_time().unwrap(), Duration::from_secs(5));
    }
}
