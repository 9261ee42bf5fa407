//! Connections to PostgreSQL: opening, logging in, cancelling. Runs on tokio; ends with a `ServerLogin`
//! that is handed to a worker, or with an `OwnSession` for pooler's own questions, or a `ListeningSession` for what its
//! clients listen to.

mod cancel;
mod connect;
mod error;
mod listening;
mod login;
mod names;
mod own;
mod race;
mod wire;

use std::{net::IpAddr, sync::Arc, time::Duration};

pub use cancel::{CancelError, CancelTarget, PeerConnection, cancel};
pub use connect::connect;
pub use error::{ConnectError, Failure, ServerError};
pub use listening::{Heard, ListeningSession, Notification, Notifications};
pub use names::{KnownName, Names};
pub use own::{OwnSession, QueryError, Row, Table};
pub use race::first_of;

use crate::{
    auth::ScramKeys,
    config::{At, SslMode},
    error::Secret,
    net::{Stream, tls::ServerTls},
    protocol::{BackendKeyData, ProtocolVersion},
};

/// Where a server is and how to reach it: enough to connect, and to cancel.
#[derive(Clone, Debug)]
pub struct ServerAddress {
    /// Name, IP address, or directory of a unix socket (starts with `/`, an abstract one with `@`).
    pub host: String,
    pub port: u16,
    /// Which addresses of the name are meant; a certificate has to be for the name.
    pub at: At,
    pub sslmode: SslMode,
    /// TLS settings towards servers; shared by all databases.
    pub tls: Arc<ServerTls>,
    pub keepalive: Keepalive,
    /// Where its name is looked up; `None`: anew for each connection.
    pub names: Option<Arc<Names>>,
}

impl ServerAddress {
    /// It leads to one place only, as far as is known.
    pub fn is_one_place(&self) -> bool {
        self.names.as_ref().is_none_or(|names| names.count(&self.host) < 2)
    }

    /// Neither an IP address nor a unix socket.
    pub fn is_name(&self) -> bool {
        !self.host.starts_with(['/', '@']) && self.host.parse::<IpAddr>().is_err()
    }

    /// Whether both lead to the same server in the same way.
    pub fn is_same(&self, other: &Self) -> bool {
        (&self.host, self.port, self.at, self.sslmode) == (&other.host, other.port, other.at, other.sslmode)
    }
}

/// TCP keepalive, towards clients and servers. Zero: the system's default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keepalive {
    pub enabled: bool,
    pub idle: Duration,
    pub interval: Duration,
    pub count: u32,
    pub user_timeout: Duration,
}

/// What the server may ask a login to prove.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// Nothing is known: only `trust`, `peer` and certificates work.
    None,
    /// Clear text: works for every method.
    Password(Secret<String>),
    /// `md5` + 32 hex: works for md5 only.
    Md5(Secret<String>),
    /// SCRAM pass-through: keys that the client proved.
    Scram(ScramKeys),
}

/// One login to make.
#[derive(Clone, Debug)]
pub struct ConnectSpec {
    pub address: ServerAddress,
    pub user: String,
    pub database: String,
    pub credentials: Credentials,
    /// Further startup parameters (`application_name`, …).
    pub parameters: Vec<(String, String)>,
    /// Run once after login; a failure is logged and ignored.
    pub connect_query: Option<String>,
    /// Bounds TCP connect, TLS and login together.
    pub timeout: Duration,
}

impl ConnectSpec {
    /// Logs in as a client does: with its startup parameters, and nothing is asked behind.
    pub fn stand_in_for(&mut self, parameters: &[(String, String)]) {
        let is_own = |name: &str| parameters.iter().any(|(own, _)| own.eq_ignore_ascii_case(name));
        self.parameters.retain(|(name, _)| !is_own(name));
        self.parameters.extend_from_slice(parameters);
        self.connect_query = None;
    }
}

/// A server connection that is logged in and idle (ReadyForQuery `I` has been read).
#[derive(Debug)]
pub struct ServerLogin {
    pub stream: Stream,
    /// Clear bytes that were read after ReadyForQuery (whole or partial messages): to be handled before
    /// anything that is read from `stream`.
    pub leftover: Vec<u8>,
    /// Pid 0 and no secret if the server sent none: then nothing can be cancelled.
    pub key: BackendKeyData,
    pub protocol: ProtocolVersion,
    /// ParameterStatus in the order received.
    pub parameters: Vec<(String, String)>,
    /// What was asked for: host and port of the configuration.
    pub host: String,
    pub port: u16,
    /// The address that was connected to (after DNS), for SHOW SERVERS.
    pub peer: String,
    pub peer_port: u16,
    pub local: String,
    pub local_port: u16,
    pub tls_description: String,
    /// Where to cancel queries of this connection.
    pub cancel_target: Arc<CancelTarget>,
}
