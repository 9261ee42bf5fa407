//! The packets that open a connection: they have a length and no tag.
//!
//! Reads them and the `options` in them; what a session makes of the parameters is `client::startup`.
//! Source: PostgreSQL docs "Message Formats" (StartupMessage, CancelRequest, SSLRequest, GSSENCRequest),
//! `ProcessStartupPacket` and `pg_split_opts` in PostgreSQL.

use super::{
    BackendKeyData, ProtocolVersion,
    frame::{split_cstr, split_u32},
};
use crate::error::Report;

/// CancelRequest code.
pub const CANCEL_REQUEST: u32 = 80_877_102;
/// SSLRequest code.
pub const SSL_REQUEST: u32 = 80_877_103;
/// GSSENCRequest code.
pub const GSSENC_REQUEST: u32 = 80_877_104;
/// Longest startup packet that is read, as in PostgreSQL (MAX_STARTUP_PACKET_LENGTH).
pub const MAX_STARTUP_PACKET: usize = 10_000;
/// Shortest packet: its length and a code.
const MIN_STARTUP_PACKET: usize = 8;
/// Longest secret of a CancelRequest (protocol 3.2).
const MAX_CANCEL_SECRET: usize = 256;

/// What a client may open with.
#[derive(Debug, PartialEq, Eq)]
pub enum StartupPacket {
    /// Asks for TLS.
    SslRequest,
    /// Asks for GSSAPI encryption.
    GssEncRequest,
    /// Asks to cancel the query of another connection.
    Cancel(BackendKeyData),
    /// Asks for a session: version and parameters (`user`, `database`, `options`, …) in order.
    Startup(ProtocolVersion, Vec<(String, String)>),
}

/// Why a packet cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartupPacketError {
    #[error("invalid length of startup packet")]
    Length,
    #[error("unsupported frontend protocol {}.{}: server supports 3.0 to 3.2", .0.major(), .0.minor())]
    Version(ProtocolVersion),
    #[error("invalid startup packet layout: expected terminator as last byte")]
    Terminator,
    #[error("invalid byte sequence for encoding \"UTF8\" in startup packet")]
    Utf8,
    #[error("invalid length of cancel request")]
    CancelLength,
}

impl Report for StartupPacketError {
    fn sqlstate(&self) -> &'static str {
        match self {
            Self::Version(_) => "0A000",
            Self::Utf8 => "22021",
            Self::Length | Self::Terminator | Self::CancelLength => "08P01",
        }
    }
}

/// Reads the length in front of a packet: how long the whole packet is. `None` if fewer than four bytes
/// are there; an error if the length is out of bounds (before anything is reserved for it).
pub fn packet_len(bytes: &[u8]) -> Result<Option<usize>, StartupPacketError> {
    let Some((len, _)) = split_u32(bytes) else { return Ok(None) };
    match usize::try_from(len) {
        Ok(len @ MIN_STARTUP_PACKET..=MAX_STARTUP_PACKET) => Ok(Some(len)),
        _ => Err(StartupPacketError::Length),
    }
}

impl StartupPacket {
    /// Reads a whole packet, its length included.
    pub fn parse(packet: &[u8]) -> Result<Self, StartupPacketError> {
        if packet_len(packet)? != Some(packet.len()) {
            return Err(StartupPacketError::Length);
        }
        let (_, rest) = split_u32(packet).ok_or(StartupPacketError::Length)?;
        let (code, body) = split_u32(rest).ok_or(StartupPacketError::Length)?;
        match code {
            SSL_REQUEST if body.is_empty() => Ok(Self::SslRequest),
            GSSENC_REQUEST if body.is_empty() => Ok(Self::GssEncRequest),
            SSL_REQUEST | GSSENC_REQUEST => Err(StartupPacketError::Length),
            CANCEL_REQUEST => parse_cancel(body),
            _ => match ProtocolVersion(code) {
                version if version.major() == 3 => Ok(Self::Startup(version, parse_parameters(body)?)),
                version => Err(StartupPacketError::Version(version)),
            },
        }
    }
}

fn parse_cancel(body: &[u8]) -> Result<StartupPacket, StartupPacketError> {
    match split_u32(body) {
        Some((pid, secret)) if (4..=MAX_CANCEL_SECRET).contains(&secret.len()) => {
            Ok(StartupPacket::Cancel(BackendKeyData { pid, secret: secret.into() }))
        }
        _ => Err(StartupPacketError::CancelLength),
    }
}

fn parse_parameters(body: &[u8]) -> Result<Vec<(String, String)>, StartupPacketError> {
    let mut parameters = Vec::with_capacity(8);
    let mut rest = body;
    loop {
        let (name, tail) = split_cstr(rest).ok_or(StartupPacketError::Terminator)?;
        if name.is_empty() {
            // The empty name is the terminator, and nothing may follow it.
            return if tail.is_empty() { Ok(parameters) } else { Err(StartupPacketError::Terminator) };
        }
        let (value, tail) = split_cstr(tail).ok_or(StartupPacketError::Terminator)?;
        parameters.push((utf8(name)?, utf8(value)?));
        rest = tail;
    }
}

fn utf8(bytes: &[u8]) -> Result<String, StartupPacketError> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| StartupPacketError::Utf8)
}

/// Why the startup parameter `options` is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    #[error("unsupported options startup parameter: only '-c config=val' and '--config=val' are allowed")]
    Switch,
    #[error("{0} in startup parameter \"options\" requires a value")]
    NoValue(String),
}

impl Report for OptionsError {
    fn sqlstate(&self) -> &'static str {
        match self {
            Self::Switch => "0A000",
            Self::NoValue(_) => "42601",
        }
    }

    fn hint(&self) -> Option<String> {
        Some("Write options as \"-c name=value\", \"-cname=value\" or \"--name=value\".".to_owned())
    }
}

/// Reads `options`: `-c name=value`, `-cname=value` and `--name=value`, in order.
pub fn parse_options(options: &str) -> Result<Vec<(String, String)>, OptionsError> {
    let mut settings = Vec::new();
    let mut words = split_options(options).into_iter();
    while let Some(word) = words.next() {
        let assignment = if let Some(long) = word.strip_prefix("--") {
            long.to_owned()
        } else if word == "-c" {
            words.next().ok_or_else(|| OptionsError::NoValue("-c".to_owned()))?
        } else if let Some(attached) = word.strip_prefix("-c") {
            attached.to_owned()
        } else {
            return Err(OptionsError::Switch);
        };
        let Some((name, value)) = assignment.split_once('=').filter(|(name, _)| !name.is_empty()) else {
            return Err(OptionsError::NoValue(word));
        };
        // As in PostgreSQL (ParseLongOption): dashes in names stand for underscores.
        settings.push((name.replace('-', "_"), value.to_owned()));
    }
    Ok(settings)
}

/// Splits at white space; a backslash takes the next character as it is.
fn split_options(options: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = options.chars();
    while let Some(c) = chars.next() {
        match c {
            // C's isspace().
            ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c' => words.extend(word.take()),
            '\\' => word.get_or_insert_default().extend(chars.next()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::encode;

    fn packet(code: u32, body: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        encode::sized(&mut out, |b| {
            b.extend_from_slice(&code.to_be_bytes());
            b.extend_from_slice(body);
        });
        out
    }

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn startup_is_read_in_order() {
        let parsed = StartupPacket::parse(&packet(3 << 16, b"user\0bob\0database\0app\0user\0eve\0\0"));
        let expected = pairs(&[("user", "bob"), ("database", "app"), ("user", "eve")]);
        assert_eq!(parsed, Ok(StartupPacket::Startup(ProtocolVersion::V3_0, expected)));
    }

    #[test]
    fn requests_are_told_apart() {
        assert_eq!(StartupPacket::parse(&packet(SSL_REQUEST, b"")), Ok(StartupPacket::SslRequest));
        assert_eq!(StartupPacket::parse(&packet(GSSENC_REQUEST, b"")), Ok(StartupPacket::GssEncRequest));
        assert_eq!(StartupPacket::parse(&packet(SSL_REQUEST, b"x")), Err(StartupPacketError::Length));
    }

    #[test]
    fn cancel_takes_secrets_of_4_to_256_bytes() {
        for (len, good) in [(0, false), (3, false), (4, true), (32, true), (256, true), (257, false)] {
            let body = [&7u32.to_be_bytes()[..], &vec![9; len]].concat();
            match StartupPacket::parse(&packet(CANCEL_REQUEST, &body)) {
                Ok(StartupPacket::Cancel(key)) => {
                    assert!(good);
                    assert_eq!((key.pid, key.secret.len()), (7, len));
                }
                other => assert!(!good && other == Err(StartupPacketError::CancelLength), "{len}"),
            }
        }
    }

    /// S12: malformed packets.
    #[test]
    fn malformed_packets_are_refused() {
        use StartupPacketError::{Length, Terminator, Utf8, Version};
        for (bytes, expected) in [
            (vec![0, 0, 0, 7, 0, 3, 0], Length),
            (vec![0, 0, 0x27, 0x11, 0, 3, 0, 0], Length),
            (vec![0xff; 8], Length),
            (vec![0; 8], Length),
            (packet(3 << 16, b""), Terminator),
            (packet(3 << 16, b"user\0bob\0"), Terminator),
            (packet(3 << 16, b"user\0bob"), Terminator),
            (packet(3 << 16, b"user\0"), Terminator),
            (packet(3 << 16, b"user\0bob\0\0x"), Terminator),
            (packet(3 << 16, b"user\0b\xffb\0\0"), Utf8),
            (packet(2 << 16, b"x"), Version(ProtocolVersion(2 << 16))),
            (packet(4 << 16, b"\0"), Version(ProtocolVersion(4 << 16))),
        ] {
            assert_eq!(StartupPacket::parse(&bytes), Err(expected), "{bytes:?}");
        }
        let v2 = StartupPacketError::Version(ProtocolVersion(2 << 16));
        assert!(v2.to_string().starts_with("unsupported frontend protocol 2.0"));
        assert_eq!(v2.sqlstate(), "0A000");
    }

    #[test]
    fn options_are_read_as_postgresql_does() {
        for (text, expected) in [
            ("", vec![]),
            ("  ", vec![]),
            ("-c a=b", vec![("a", "b")]),
            ("-ca=b\t--work-mem=1MB", vec![("a", "b"), ("work_mem", "1MB")]),
            (r"-c search_path=a\ b,\\c -c x=", vec![("search_path", r"a b,\c"), ("x", "")]),
            ("-c a=b=c", vec![("a", "b=c")]),
            ("-c geqo-seed=1", vec![("geqo_seed", "1")]),
        ] {
            assert_eq!(parse_options(text), Ok(pairs(&expected)), "{text}");
        }
        for text in ["-B 4", "-d5", "x", "-", r"\ "] {
            assert_eq!(parse_options(text), Err(OptionsError::Switch), "{text}");
        }
        for text in ["-c", "-c a", "--a", "--", "-c =1"] {
            assert!(matches!(parse_options(text), Err(OptionsError::NoValue(_))), "{text}");
        }
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = packet_len(&bytes);
            let _ = StartupPacket::parse(&bytes);
            let _ = StartupPacket::parse(&packet(3 << 16, &bytes));
            let _ = StartupPacket::parse(&packet(CANCEL_REQUEST, &bytes));
        }

        #[test]
        fn whatever_is_written_is_read(list in prop::collection::vec(("[^\0]{1,20}", "[^\0]{0,20}"), 0..8)) {
            let mut body = Vec::new();
            for (name, value) in &list {
                encode::cstr(&mut body, name.as_bytes());
                encode::cstr(&mut body, value.as_bytes());
            }
            body.push(0);
            let parsed = StartupPacket::parse(&packet(3 << 16, &body));
            prop_assert_eq!(parsed, Ok(StartupPacket::Startup(ProtocolVersion::V3_0, list)));
        }

        #[test]
        fn any_value_survives_escaping_in_options(value in "\\PC*", name in "[a-z_]{1,10}") {
            let escaped: String = value
                .chars()
                .flat_map(|c| [(c == '\\' || c.is_whitespace()).then_some('\\'), Some(c)])
                .flatten()
                .collect();
            let parsed = parse_options(&format!("-c {name}={escaped}"));
            prop_assert_eq!(parsed, Ok(vec![(name, value)]));
        }

        #[test]
        fn random_options_never_panic(text in any::<String>()) {
            let _ = parse_options(&text);
        }
    }
}
