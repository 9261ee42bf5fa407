//! A connection to PostgreSQL or a pooler: plain or TLS, blocking login, then whatever the caller does.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConnection;
use rustls::pki_types::ServerName;

use crate::scram::{Password, Scram};
use crate::{Res, tls};

const PROTOCOL_3_0: u32 = 3 << 16;
const SSL_REQUEST: u32 = 80_877_103;
const SASL: u32 = 10;
const SASL_CONTINUE: u32 = 11;

/// Where and as whom to log in.
pub(crate) struct Target {
    pub(crate) port: u16,
    pub(crate) user: String,
    pub(crate) database: String,
    pub(crate) password: Password,
    pub(crate) tls: Option<Arc<rustls::ClientConfig>>,
}

/// A logged-in connection.
pub(crate) struct Wire {
    pub(crate) socket: TcpStream,
    pub(crate) tls: Option<Box<ClientConnection>>,
    unread: Vec<u8>,
}

impl Wire {
    /// Connects and logs in, blocking.
    pub(crate) fn login(target: &Target) -> Res<Self> {
        let mut socket = TcpStream::connect(("127.0.0.1", target.port))?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(Duration::from_secs(30)))?;
        let tls = match &target.tls {
            Some(config) => Some(Box::new(start_tls(&mut socket, config)?)),
            None => None,
        };
        let mut wire = Self { socket, tls, unread: Vec::new() };
        let mut startup = Vec::new();
        startup.extend_from_slice(&PROTOCOL_3_0.to_be_bytes());
        for text in ["user", &target.user, "database", &target.database, ""] {
            cstr(&mut startup, text);
        }
        wire.send(&with_length(&startup)?)?;
        wire.authenticate(target)?;
        Ok(wire)
    }

    fn authenticate(&mut self, target: &Target) -> Res<()> {
        let mut scram = None;
        loop {
            let (tag, body) = self.message()?;
            match tag {
                b'R' => self.answer(&body, target, &mut scram)?,
                b'Z' => return Ok(()),
                b'E' => return Err(error_text(&body).into()),
                _ => {}
            }
        }
    }

    fn answer(&mut self, body: &[u8], target: &Target, scram: &mut Option<Scram>) -> Res<()> {
        let (code, data) = body.split_first_chunk::<4>().ok_or("short authentication message")?;
        let mut out = Vec::new();
        match u32::from_be_bytes(*code) {
            SASL => {
                let exchange = Scram::new()?;
                let first = exchange.first();
                message(&mut out, b'p', |b| {
                    cstr(b, "SCRAM-SHA-256");
                    b.extend_from_slice(&u32::try_from(first.len()).unwrap_or(0).to_be_bytes());
                    b.extend_from_slice(first.as_bytes());
                });
                *scram = Some(exchange);
            }
            SASL_CONTINUE => {
                let exchange = scram.as_ref().ok_or("SASL out of order")?;
                let last = exchange.last(std::str::from_utf8(data)?, &target.password)?;
                message(&mut out, b'p', |b| b.extend_from_slice(last.as_bytes()));
            }
            0 | 12 => return Ok(()),
            other => return Err(format!("authentication request {other}: only SCRAM is measured").into()),
        }
        self.send(&out)
    }

    /// Sends a request and reads until ReadyForQuery, blocking.
    pub(crate) fn exchange(&mut self, request: &[u8]) -> Res<()> {
        self.send(request)?;
        loop {
            match self.message()? {
                (b'Z', _) => return Ok(()),
                (b'E', body) => return Err(error_text(&body).into()),
                _ => {}
            }
        }
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> Res<()> {
        match &mut self.tls {
            Some(tls) => rustls::Stream::new(tls.as_mut(), &mut self.socket).write_all(bytes)?,
            None => self.socket.write_all(bytes)?,
        }
        Ok(())
    }

    fn message(&mut self) -> Res<(u8, Vec<u8>)> {
        loop {
            if let Some((&[tag, a, b, c, d], rest)) = self.unread.split_first_chunk::<5>() {
                let len = (u32::from_be_bytes([a, b, c, d]) as usize).saturating_sub(4);
                if let Some(body) = rest.get(..len) {
                    let body = body.to_vec();
                    self.unread.drain(..len + 5);
                    return Ok((tag, body));
                }
            }
            self.fill()?;
        }
    }

    fn fill(&mut self) -> Res<()> {
        let mut chunk = [0; 8192];
        let count = match &mut self.tls {
            Some(tls) => rustls::Stream::new(tls.as_mut(), &mut self.socket).read(&mut chunk)?,
            None => self.socket.read(&mut chunk)?,
        };
        if count == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        self.unread.extend_from_slice(chunk.get(..count).unwrap_or_default());
        Ok(())
    }
}

fn start_tls(socket: &mut TcpStream, config: &Arc<rustls::ClientConfig>) -> Res<ClientConnection> {
    socket.write_all(&with_length(&SSL_REQUEST.to_be_bytes())?)?;
    let mut reply = [0];
    socket.read_exact(&mut reply)?;
    if reply != *b"S" {
        return Err("the server declined TLS".into());
    }
    let name = ServerName::try_from(tls::SERVER_NAME)?;
    let mut connection = ClientConnection::new(Arc::clone(config), name)?;
    while connection.is_handshaking() {
        connection.complete_io(socket)?;
    }
    Ok(connection)
}

fn with_length(body: &[u8]) -> Res<Vec<u8>> {
    let mut packet = u32::try_from(body.len() + 4)?.to_be_bytes().to_vec();
    packet.extend_from_slice(body);
    Ok(packet)
}

/// Appends a message with its header.
pub(crate) fn message(out: &mut Vec<u8>, tag: u8, body: impl FnOnce(&mut Vec<u8>)) {
    out.push(tag);
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    body(out);
    let len = u32::try_from(out.len() - at).unwrap_or(u32::MAX);
    if let Some(slot) = out.get_mut(at..at + 4) {
        slot.copy_from_slice(&len.to_be_bytes());
    }
}

/// Appends a NUL-terminated string.
pub(crate) fn cstr(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
    out.push(0);
}

/// SQLSTATE and text of an ErrorResponse.
pub(crate) fn error_text(body: &[u8]) -> String {
    body.split(|&b| b == 0)
        .filter(|field| matches!(field.first(), Some(b'C' | b'M')))
        .map(|field| String::from_utf8_lossy(field.get(1..).unwrap_or_default()))
        .collect::<Vec<_>>()
        .join(" ")
}
