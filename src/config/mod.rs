//! The resolved configuration: what everything downstream reads, whatever file format it came from.
//!
//! Immutable once built; a reload builds a new one and compares. Times: zero means "off" where the
//! setting may be off. Sizes of pools: number of server connections.

mod auth_file;
mod check;
mod diff;
#[cfg(test)]
pub(crate) mod document;
mod entries;
mod file;
mod foreign;
mod hba;
mod interpolate;
pub mod ldap;
pub mod literal;
mod nodes;
mod pgbouncer;
mod problem;
mod resolve;
mod secrets;
mod settings;
mod suggest;
mod table;
#[cfg(test)]
mod tests;
mod upstream;
pub(crate) mod url;
mod value;

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

pub use self::{
    diff::Diff,
    file::Loaded,
    hba::{Asking, Demand, Hba},
    interpolate::Environment,
    nodes::{At, MOST_NODES, NodeAddress, PatroniApi, host_with_port},
    pgbouncer::Given,
    problem::{Problem, Problems},
    resolve::{Lookup, is_console},
    settings::{SETTINGS, Settings, ShownSetting},
    table::{Change, Row, SettingError},
    value::{Endpoint, HttpUrl, Input},
};
pub(crate) use self::{upstream::parse_listen, value::host_and_port};
use crate::error::Secret;

/// Everything that was configured.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// `[pooler]`: settings of the whole process and defaults of databases and users.
    pub settings: Settings,
    /// `[databases.NAME]` by the name that clients ask for; `*` serves every other name.
    pub databases: BTreeMap<String, Arc<Database>>,
    /// `[users.NAME]` by login name, merged with `auth_file`.
    pub users: BTreeMap<String, Arc<User>>,
    /// `[peers.ID]` by their ids.
    pub peers: BTreeMap<u16, Peer>,
    /// What `auth_hba_file` says, if that counts.
    pub hba: Arc<Hba>,
    /// The file it came from; `None` with `--upstream`.
    pub path: Option<PathBuf>,
    /// What SHOW CONFIG and SET call the settings if that is a pgbouncer.ini.
    pub pgbouncer: Option<Given>,
}

/// When a server goes back to its pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PoolMode {
    /// When the client leaves.
    Session,
    /// After each transaction.
    #[default]
    Transaction,
    /// After each statement; transaction blocks are refused.
    Statement,
}

/// How clients prove who they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AuthType {
    /// No proof; the user must be known.
    Trust,
    /// Password in clear text.
    Plain,
    /// MD5, or SCRAM where the stored secret is a SCRAM one.
    Md5,
    /// SCRAM-SHA-256, and -PLUS over TLS.
    #[default]
    ScramSha256,
    /// A certificate with the user's name.
    Cert,
    /// No proof, and nobody is asked who it is: for databases with a user of their own.
    Any,
    /// As auth_hba_file says.
    Hba,
    /// The user of the system by that name; only in auth_hba_file.
    Peer,
    /// Nobody; only in auth_hba_file.
    Reject,
    /// Whom a directory knows by the password.
    Ldap,
    /// Whom the system knows by the password.
    Pam,
}

/// libpq's sslmode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum SslMode {
    /// Never.
    #[default]
    Disable,
    /// Without, unless the other side insists.
    Allow,
    /// With, if the other side can.
    Prefer,
    /// Always, whoever it is.
    Require,
    /// Always, with a certificate of a trusted authority.
    VerifyCa,
    /// As verify-ca, and the certificate names the host.
    VerifyFull,
}

/// Format of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// One readable line an event.
    #[default]
    Text,
    /// One JSON object an event.
    Json,
    /// As PgBouncer's.
    Pgbouncer,
}

/// Which worker serves a client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientPlacement {
    /// As few workers as the load needs.
    #[default]
    Packed,
    /// All workers, the same number of clients each.
    Even,
    /// Another worker after each transaction.
    Rotate,
}

/// When a server is asked what its client has left in the session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SessionState {
    /// When a text may have left something.
    #[default]
    Suspected,
    /// Behind every transaction.
    Always,
}

/// What becomes of servers on which functions may have left something in the session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SessionFunctions {
    /// They are not looked at.
    Trust,
    /// They are asked.
    #[default]
    Probe,
    /// They stay with their clients.
    Pin,
}

/// From when on clients get right answers from currval() and lastval().
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Currval {
    /// Once one of their kind has asked.
    #[default]
    Learn,
    /// From the start, for numbers of the same transaction.
    Transaction,
    /// From the start, for all numbers: they keep their servers.
    Session,
}

/// Which of several hosts the next connection goes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LoadBalanceHosts {
    /// Each in turn.
    #[default]
    RoundRobin,
    /// The same, until it cannot be reached.
    Disable,
}

impl SslMode {
    /// The mode of a word, in any case.
    pub fn named(word: &str) -> Option<Self> {
        let found = settings::SSL_MODES.0.iter().find(|(known, _)| known.eq_ignore_ascii_case(word));
        found.map(|(_, mode)| *mode)
    }

    /// How it is written.
    pub fn word(self) -> &'static str {
        word_of(&self, settings::SSL_MODES.0).unwrap_or_default()
    }
}

impl LoadBalanceHosts {
    /// How each is written.
    pub const WORDS: &[(&str, Self)] = &[("disable", Self::Disable), ("round-robin", Self::RoundRobin)];
}

/// What a read must have seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadConsistency {
    /// Every write that anyone has been told of, also by others than this pooler.
    Strict,
    /// Every write that pooler has acknowledged to anyone.
    #[default]
    Fresh,
    /// Every write of the same client.
    Session,
    /// Nothing in particular; see `max_lag`.
    Eventual,
    /// Reads stay on the primary.
    Primary,
}

/// Where requests go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Route {
    /// Reads to replicas, everything else to the primary.
    #[default]
    Auto,
    /// Everything to the primary.
    Primary,
    /// Everything to replicas; writes fail there.
    Replica,
}

impl ReadConsistency {
    /// How each is written.
    pub const WORDS: &[(&str, Self)] = &[
        ("strict", Self::Strict),
        ("fresh", Self::Fresh),
        ("session", Self::Session),
        ("eventual", Self::Eventual),
        ("primary", Self::Primary),
    ];
}

impl Route {
    /// How each is written.
    pub const WORDS: &[(&str, Self)] =
        &[("auto", Self::Auto), ("primary", Self::Primary), ("replica", Self::Replica)];
}

/// The value of a word, exactly as it is written.
pub fn value_of<T: Copy>(word: &str, words: &[(&str, T)]) -> Option<T> {
    words.iter().find(|(known, _)| *known == word).map(|(_, value)| *value)
}

/// How a value is written.
pub fn word_of<T: PartialEq>(value: &T, words: &[(&'static str, T)]) -> Option<&'static str> {
    words.iter().find(|(_, known)| known == value).map(|(word, _)| *word)
}

/// `[databases.NAME]`. `None`: the default of `[pooler]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Database {
    /// Name that clients ask for.
    pub name: String,
    /// Host name, IP address, directory of a unix socket (starts with `/`), or the same of an abstract one (`@`).
    pub host: String,
    pub port: u16,
    /// All hosts if there are several, of which nothing is known but that any will do; the first one is `host` and `port`.
    pub hosts: Vec<NodeAddress>,
    /// Which of them the next connection goes to.
    pub load_balance_hosts: LoadBalanceHosts,
    /// A primary and its replicas, whichever is which; the first one is `host` and `port`. Empty: one server.
    pub nodes: Vec<NodeAddress>,
    /// REST APIs that tell the nodes instead.
    pub patroni: Vec<PatroniApi>,
    pub route: Option<Route>,
    pub read_consistency: Option<ReadConsistency>,
    /// Name at the server; `None`: the same (for `*`, the name that was asked for).
    pub dbname: Option<String>,
    /// Login at the server for every client; `None`: each client's own name.
    pub user: Option<String>,
    pub password: Option<Secret<String>>,
    /// Instead of the settings of these names.
    pub auth_user: Option<String>,
    pub auth_query: Option<String>,
    pub auth_dbname: Option<String>,
    pub pool_size: Option<u32>,
    pub min_pool_size: Option<u32>,
    pub reserve_pool_size: Option<u32>,
    pub max_db_connections: Option<u32>,
    pub max_db_client_connections: Option<u32>,
    pub pool_mode: Option<PoolMode>,
    pub query_wait_timeout: Option<Duration>,
    pub server_lifetime: Option<Duration>,
    /// Run once after each server login.
    pub connect_query: Option<String>,
    /// Startup parameters at the server (`application_name`, `client_encoding`, …).
    pub server_parameters: Vec<(String, String)>,
    pub server_tls_sslmode: Option<SslMode>,
}

/// `[users.NAME]`, merged with the user's line in `auth_file`. `None`: the default of `[pooler]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    pub name: String,
    /// Plain password, `md5…` hash or `SCRAM-SHA-256$…` secret; told apart by shape.
    pub password: Option<Secret<String>>,
    pub pool_mode: Option<PoolMode>,
    pub route: Option<Route>,
    pub read_consistency: Option<ReadConsistency>,
    pub pool_size: Option<u32>,
    pub reserve_pool_size: Option<u32>,
    pub max_user_connections: Option<u32>,
    pub max_user_client_connections: Option<u32>,
    pub query_timeout: Option<Duration>,
    pub query_wait_timeout: Option<Duration>,
    pub transaction_timeout: Option<Duration>,
    pub idle_transaction_timeout: Option<Duration>,
    pub client_idle_timeout: Option<Duration>,
}

/// `[peers.ID]`: another process that clients may reach by the same address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its `peer_id`.
    pub id: u16,
    /// Host name, IP address, or a directory of a unix socket (starts with `/`).
    pub host: String,
    pub port: u16,
    /// Cancel requests that may be on their way to it; `None`: as `default_pool_size`.
    pub pool_size: Option<u32>,
}

impl Peer {
    /// Without a host yet.
    pub fn new(id: u16) -> Self {
        Self { id, host: String::new(), port: 6432, pool_size: None }
    }
}

impl Default for Database {
    fn default() -> Self {
        Self {
            name: String::new(),
            host: String::new(),
            port: 5432,
            hosts: Vec::new(),
            load_balance_hosts: LoadBalanceHosts::default(),
            nodes: Vec::new(),
            patroni: Vec::new(),
            route: None,
            read_consistency: None,
            dbname: None,
            user: None,
            password: None,
            auth_user: None,
            auth_query: None,
            auth_dbname: None,
            pool_size: None,
            min_pool_size: None,
            reserve_pool_size: None,
            max_db_connections: None,
            max_db_client_connections: None,
            pool_mode: None,
            query_wait_timeout: None,
            server_lifetime: None,
            connect_query: None,
            server_parameters: Vec::new(),
            server_tls_sslmode: None,
        }
    }
}

/// Where a client comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerAddr {
    /// TCP: both ends.
    Tcp { peer: SocketAddr, local: SocketAddr },
    /// Unix socket: process id of the peer, if known.
    Unix { pid: u32, uid: u32 },
}
