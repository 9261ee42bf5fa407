//! Whether a directory knows a user by a password: a bind, or a search and a bind (`config::ldap` says how).
//!
//! A small client of its own, since three messages are all that it takes. Each step has its limit; nothing blocks. Certificates
//! are checked by the authorities of the system, or by those that libldap's configuration names (`TLS_CACERT`).

mod ber;

use std::{io, path::Path, sync::Arc, time::Duration};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use self::ber::Answer;
use crate::{
    config::ldap::{Encryption, Ldap, Way},
    error::Printable,
};

/// Longest time to connect to one server; libpq's and PgBouncer's.
const CONNECT: Duration = Duration::from_secs(3);
/// Longest time for an answer.
const ANSWER: Duration = Duration::from_secs(10);
const ANSWER_SECONDS: u8 = 10;
/// Longest message that is read: names of entries, and what a server says.
const LONGEST: usize = 64 * 1024;
/// Where libldap looks for its configuration.
const CONFIGURATIONS: &[&str] = &["/etc/ldap/ldap.conf", "/etc/openldap/ldap.conf"];

/// Why nobody was let in. For the log.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LdapError {
    #[error("no server can be reached: {0}")]
    Unreachable(String),
    #[error("the server did not answer in time")]
    Timeout,
    #[error("connection lost: {0}")]
    Io(#[from] io::Error),
    #[error("unexpected message from the server")]
    Protocol,
    #[error("StartTLS was refused: {0}")]
    StartTls(String),
    #[error("certificate authorities cannot be loaded: {0}")]
    Authorities(String),
    #[error("could not bind as ldapbinddn: {0}")]
    Searcher(String),
    #[error("the search failed: {0}")]
    Search(String),
    #[error("the search found no entry")]
    Nobody,
    #[error("the search found more than one entry")]
    NotUnique,
    #[error("the server refused name and password: {0}")]
    Refused(String),
    #[error("the name cannot stand where ldapprefix and ldapsuffix put it")]
    Name,
}

/// Lets whoever the directory knows in. The password is not empty: that would be an anonymous bind, which proves nothing (RFC
/// 4513, 5.1.2).
pub(crate) async fn authenticate(ldap: &Ldap, user: &str, password: &str) -> Result<(), LdapError> {
    if password.is_empty() {
        return Err(LdapError::Refused("the password is empty".to_owned()));
    }
    let name = match &ldap.way {
        Way::Bind { prefix, suffix } => bind_name(prefix, user, suffix)?,
        Way::Search { .. } => {
            let mut searcher = Connection::open(ldap).await?;
            let found = searcher.search(ldap, user).await;
            searcher.close().await;
            found?
        }
    };
    // An empty name would be an anonymous bind, too.
    if name.is_empty() {
        return Err(LdapError::Nobody);
    }
    // A connection of its own: what the searcher may do is over.
    let mut connection = Connection::open(ldap).await?;
    let bound = connection.bind(&name, password).await;
    connection.close().await;
    bound?.map_err(LdapError::Refused)
}

/// Where the name becomes part of a DN (`cn=` in front) it is escaped as RFC 4514 says; elsewhere (`@example.net` behind, `DOMAIN\`
/// in front) it stands as it is, if nothing in it could make it another.
fn bind_name(prefix: &str, user: &str, suffix: &str) -> Result<String, LdapError> {
    if prefix.trim_end().ends_with('=') {
        return Ok(format!("{prefix}{}{suffix}", escaped(user)));
    }
    let odd = |c: char| c.is_control() || ",=+<>#;\\\"@/".contains(c);
    if user.contains(odd) || user.trim() != user {
        return Err(LdapError::Name);
    }
    Ok(format!("{prefix}{user}{suffix}"))
}

/// A value of a DN (RFC 4514, 2.4).
fn escaped(value: &str) -> String {
    let last = value.chars().count().saturating_sub(1);
    let mut out = String::new();
    for (index, c) in value.chars().enumerate() {
        match c {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' | '=' => out.extend(['\\', c]),
            '#' if index == 0 => out.extend(['\\', c]),
            ' ' if index == 0 || index == last => out.extend(['\\', c]),
            c if c.is_control() => {
                let mut buffer = [0; 4];
                for byte in c.encode_utf8(&mut buffer).bytes() {
                    out.push_str(&format!("\\{byte:02x}"));
                }
            }
            c => out.push(c),
        }
    }
    out
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// A connection to a directory.
struct Connection {
    stream: Box<dyn Stream>,
    /// Number of the last request.
    id: u8,
}

impl Connection {
    /// To the first server that can be reached.
    async fn open(ldap: &Ldap) -> Result<Self, LdapError> {
        let tls = match ldap.encryption {
            Encryption::None => None,
            Encryption::StartTls | Encryption::Ldaps => {
                let built = tokio::task::spawn_blocking(authorities).await;
                Some(built.map_err(|error| LdapError::Authorities(error.to_string()))??)
            }
        };
        let mut failed = String::from("none is configured");
        for (host, port) in &ldap.servers {
            match timeout(CONNECT, Self::connect(host, *port, ldap.encryption, tls.as_ref())).await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(error)) => failed = format!("{host}:{port}: {error}"),
                Err(_) => failed = format!("{host}:{port} does not answer in {} s", CONNECT.as_secs()),
            }
        }
        Err(LdapError::Unreachable(failed))
    }

    async fn connect(
        host: &str,
        port: u16,
        encryption: Encryption,
        tls: Option<&Arc<ClientConfig>>,
    ) -> Result<Self, LdapError> {
        let socket = TcpStream::connect((host, port)).await?;
        socket.set_nodelay(true)?;
        let Some(config) = tls else { return Ok(Self { stream: Box::new(socket), id: 0 }) };
        let mut clear = Self { stream: Box::new(tokio::io::empty()), id: 0 };
        let mut socket = socket;
        if encryption == Encryption::StartTls {
            clear.id += 1;
            socket.write_all(&ber::start_tls(clear.id)).await?;
            match read(&mut socket, clear.id).await? {
                Answer::Result(0, _) => {}
                Answer::Result(code, said) => return Err(LdapError::StartTls(tell(code, &said))),
                _ => return Err(LdapError::Protocol),
            }
        }
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let stream = TlsConnector::from(Arc::clone(config)).connect(name, socket).await?;
        Ok(Self { stream: Box::new(stream), id: clear.id })
    }

    async fn send(&mut self, request: &[u8]) -> Result<(), LdapError> {
        let write = async {
            self.stream.write_all(request).await?;
            self.stream.flush().await
        };
        Ok(timeout(ANSWER, write).await.map_err(|_| LdapError::Timeout)??)
    }

    async fn answer(&mut self) -> Result<Answer, LdapError> {
        timeout(ANSWER, read(&mut self.stream, self.id)).await.map_err(|_| LdapError::Timeout)?
    }

    /// Binds; what the server says if it does not want to.
    async fn bind(&mut self, name: &str, password: &str) -> Result<Result<(), String>, LdapError> {
        self.id += 1;
        self.send(&ber::bind(self.id, name, password)).await?;
        match self.answer().await? {
            Answer::Result(0, _) => Ok(Ok(())),
            Answer::Result(code, said) => Ok(Err(tell(code, &said))),
            _ => Err(LdapError::Protocol),
        }
    }

    /// The name of the one entry that is the user.
    async fn search(&mut self, ldap: &Ldap, user: &str) -> Result<String, LdapError> {
        let Way::Search { base, scope, filter, binddn, bindpasswd } = &ldap.way else {
            return Err(LdapError::Protocol);
        };
        self.bind(binddn, &bindpasswd.0).await?.map_err(LdapError::Searcher)?;
        self.id += 1;
        self.send(&ber::search(self.id, base, *scope, filter, user, ANSWER_SECONDS)).await?;
        let mut found: Option<String> = None;
        loop {
            match self.answer().await? {
                Answer::Entry(_) if found.is_some() => return Err(LdapError::NotUnique),
                Answer::Entry(name) => found = Some(name),
                Answer::Reference => {}
                Answer::Result(0, _) => return found.ok_or(LdapError::Nobody),
                Answer::Result(code, said) => return Err(LdapError::Search(tell(code, &said))),
            }
        }
    }

    async fn close(mut self) {
        // Whether it hears that or not.
        let _ = self.send(&ber::unbind(self.id + 1)).await;
        let _ = timeout(CONNECT, self.stream.shutdown()).await;
    }
}

async fn read(stream: &mut (impl AsyncRead + Unpin), id: u8) -> Result<Answer, LdapError> {
    let mut bytes = Vec::new();
    let whole = loop {
        match ber::head(&bytes) {
            Some((start, length)) => break start.saturating_add(length),
            None if bytes.len() > 6 => return Err(LdapError::Protocol),
            None => bytes.push(stream.read_u8().await?),
        }
    };
    if whole > LONGEST {
        return Err(LdapError::Protocol);
    }
    let had = bytes.len();
    bytes.resize(whole, 0);
    stream.read_exact(bytes.get_mut(had..).unwrap_or_default()).await?;
    ber::answer(&bytes, id).ok_or(LdapError::Protocol)
}

/// The result of a request as it is logged.
fn tell(code: u64, said: &str) -> String {
    let name = match code {
        1 => "operations error",
        4 => "size limit exceeded",
        8 => "stronger authentication required",
        13 => "confidentiality required",
        32 => "no such object",
        34 => "invalid DN syntax",
        48 => "inappropriate authentication",
        49 => "invalid credentials",
        50 => "insufficient access rights",
        52 => "unavailable",
        53 => "unwilling to perform",
        _ => "error",
    };
    let blank = if said.is_empty() { "" } else { ": " };
    format!("{name} ({code}){blank}{}", Printable(said))
}

/// Whom certificates of directories are checked by. Blocks on files.
fn authorities() -> Result<Arc<ClientConfig>, LdapError> {
    let wrong = |error: String| LdapError::Authorities(error);
    let mut roots = RootCertStore::empty();
    match named_authorities() {
        Some(file) => {
            let certificates =
                CertificateDer::pem_file_iter(&file).map_err(|error| wrong(format!("{file}: {error}")))?;
            for certificate in certificates {
                let certificate = certificate.map_err(|error| wrong(format!("{file}: {error}")))?;
                roots.add(certificate).map_err(|error| wrong(format!("{file}: {error}")))?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() {
        return Err(wrong("there are none".to_owned()));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// The file that libldap would use: from the environment, or from its configuration.
fn named_authorities() -> Option<String> {
    if let Ok(file) = std::env::var("LDAPTLS_CACERT") {
        return Some(file);
    }
    let text = CONFIGURATIONS.iter().find_map(|path| std::fs::read_to_string(path).ok())?;
    let line = |line: &str| {
        let (key, file) = line.trim().split_once(char::is_whitespace)?;
        key.eq_ignore_ascii_case("TLS_CACERT").then(|| file.trim().to_owned())
    };
    text.lines().find_map(line).filter(|file| Path::new(file).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_what_they_should_and_nothing_more() {
        for (prefix, user, suffix, expected) in [
            ("cn=", "alice", ",dc=x", Some("cn=alice,dc=x")),
            ("cn=", "a,dc=y+uid=b", ",dc=x", Some("cn=a\\,dc\\=y\\+uid\\=b,dc=x")),
            ("uid = ", " #a\"\\ ", "", Some("uid = \\ #a\\\"\\\\\\ ")),
            ("cn=", "#a;<b>", "", Some("cn=\\#a\\;\\<b\\>")),
            ("cn=", "a\u{1}", "", Some("cn=a\\01")),
            ("", "alice", "@example.net", Some("alice@example.net")),
            ("DOMAIN\\", "älice b", "", Some("DOMAIN\\älice b")),
            ("", "cn=admin,dc=x", "", None),
            ("", "admin@other.net", "@example.net", None),
            ("DOMAIN\\", "OTHER\\a", "", None),
            ("", "a\0", "@x", None),
        ] {
            assert_eq!(bind_name(prefix, user, suffix).ok().as_deref(), expected, "{prefix}{user}{suffix}");
        }
    }
}
