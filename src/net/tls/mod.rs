//! TLS towards clients and towards servers, by rustls with the ring provider.
//!
//! Owns what the settings and files say (`ClientTls`, `ServerTls`), the checks of certificates and the
//! `tls-server-end-point` binding. Does no I/O on sockets: handshakes are run by who owns the socket.
//! Sources: libpq docs "SSL Support"; PostgreSQL docs "Secure TCP/IP Connections with SSL".

mod certificate;
mod files;
mod subject;
mod suites;
mod to_clients;
mod to_servers;
mod verify;

use std::{fmt, path::PathBuf, sync::Arc};

pub use certificate::server_end_point;
pub use subject::names;
pub use to_clients::ClientTls;
pub use to_servers::ServerTls;

/// The ALPN name of the PostgreSQL protocol (IANA registry; PostgreSQL 17).
const ALPN: &[u8] = b"postgresql";

/// TLS settings that cannot be used. Each names the file and what to do about it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{setting}: cannot read \"{}\": {source}", path.display())]
    Read { setting: &'static str, path: PathBuf, source: Arc<std::io::Error> },
    /// A file is not PEM, or holds nothing of what it should.
    #[error("{setting}: \"{}\" holds no {expected}: {reason}", path.display())]
    Content { setting: &'static str, path: PathBuf, expected: &'static str, reason: String },
    /// A certificate authority that cannot be trusted, because it cannot be read.
    #[error("{setting}: \"{}\" holds a certificate that cannot serve as authority: {source}", path.display())]
    Authority { setting: &'static str, path: PathBuf, source: Box<rustls::Error> },
    /// Certificate and key do not belong together, or are of a kind that cannot be used.
    #[error("{setting}: key \"{}\" does not serve certificate \"{}\": {source}", key.display(), certificate.display())]
    Identity { setting: &'static str, certificate: PathBuf, key: PathBuf, source: Box<rustls::Error> },
    /// A setting is missing that another one asks for.
    #[error("{setting} is not set, but {because}")]
    Missing { setting: &'static str, because: &'static str },
    /// Protocols or cipher suites of which there are none.
    #[error("{setting}: \"{}\" leaves nothing to offer", text.escape_debug())]
    Choice { setting: &'static str, text: String },
    /// The system's store of authorities cannot be used.
    #[error("the system's certificate authorities cannot be loaded: {0}")]
    SystemRoots(String),
    /// rustls refuses the combination of settings.
    #[error("TLS cannot be set up: {0}")]
    Setup(String),
}

impl TlsError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Read { .. } => "Check that the file exists and that the pooler's user may read it.".into(),
            Self::Content { expected, .. } => {
                format!("The file must be in PEM format and hold a {expected}.")
            }
            Self::Authority { setting, .. } => {
                format!("List only certificates of authorities in {setting}, in PEM format.")
            }
            Self::Identity { .. } => {
                "The first certificate of the file must be the one that the key was made for.".into()
            }
            Self::Missing { setting, .. } => format!("Set {setting}."),
            Self::Choice { .. } => {
                "There are TLS 1.2 and 1.3, and suites with ECDHE and AES-GCM or ChaCha20: name some of these, or remove the setting."
                    .into()
            }
            Self::SystemRoots(_) => "Set server_tls_ca_file, or install the system's ca-certificates.".into(),
            Self::Setup(_) => "Check the TLS settings.".into(),
        }
    }
}

/// SHA-256 over the settings and the contents of the files a TLS configuration was made of: equal means that
/// a reload changed nothing.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Fingerprint([u8; 32]);

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fingerprint(…)")
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// `TLSv1.3/TLS_AES_256_GCM_SHA384`, as PgBouncer writes it; empty before the handshake is done.
pub fn describe(connection: &rustls::CommonState) -> String {
    let version = match connection.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_3) => "TLSv1.3",
        Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
        _ => return String::new(),
    };
    let Some(suite) = connection.negotiated_cipher_suite() else { return version.to_owned() };
    let name = suite.suite().as_str().unwrap_or("unknown").replacen("TLS13_", "TLS_", 1);
    format!("{version}/{name}")
}

#[cfg(test)]
mod tests;
