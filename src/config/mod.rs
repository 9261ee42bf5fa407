//! The resolved configuration: what everything downstream reads, whatever file format it came from.
//!
//! Immutable once built; a reload builds a new one and compares. Times: zero means "off" where the
//! setting may be off. Sizes of pools: number of server connections.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

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
    /// The file it came from; `None` with `--upstream`.
    pub path: Option<PathBuf>,
}

impl Config {
    /// The database that serves a name: its own entry, or `*`.
    pub fn database(&self, name: &str) -> Option<&Arc<Database>> {
        self.databases.get(name).or_else(|| self.databases.get("*"))
    }
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
}

/// `[pooler]`. Names as in the settings table (and PgBouncer's where the thing is the same).
#[derive(Clone, Debug, Default)]
pub struct Settings {
    // Listening
    pub listen_addr: Vec<String>,
    pub listen_port: u16,
    pub listen_backlog: u32,
    pub unix_socket_dir: Option<PathBuf>,
    pub unix_socket_mode: u32,
    /// Worker threads; 0: one per core.
    pub workers: usize,
    // Pools
    pub pool_mode: PoolMode,
    pub default_pool_size: u32,
    pub min_pool_size: u32,
    pub reserve_pool_size: u32,
    pub reserve_pool_timeout: Duration,
    pub max_client_conn: u32,
    pub max_db_connections: u32,
    pub max_user_connections: u32,
    pub max_db_client_connections: u32,
    pub max_user_client_connections: u32,
    /// Logins at one server that may be under way at once, per pool.
    pub max_connect_attempts: u32,
    pub server_round_robin: bool,
    // Server care
    pub server_lifetime: Duration,
    pub server_idle_timeout: Duration,
    pub server_connect_timeout: Duration,
    pub server_login_retry: Duration,
    pub server_check_delay: Duration,
    pub server_check_query: String,
    pub server_reset_query: String,
    pub server_reset_query_always: bool,
    // Time-outs
    pub query_timeout: Duration,
    pub query_wait_timeout: Duration,
    pub transaction_timeout: Duration,
    pub idle_transaction_timeout: Duration,
    pub client_idle_timeout: Duration,
    pub client_login_timeout: Duration,
    pub client_write_timeout: Duration,
    pub cancel_wait_timeout: Duration,
    /// How long SIGTERM waits for clients; 0: for ever.
    pub shutdown_timeout: Duration,
    // Protocol
    pub max_prepared_statements: u32,
    /// Longest message that has to be read as a whole (Parse, a Bind's head).
    pub max_packet_size: u32,
    pub ignore_startup_parameters: Vec<String>,
    // Authentication
    pub auth_type: AuthType,
    pub auth_file: Option<PathBuf>,
    pub scram_iterations: u32,
    pub admin_users: Vec<String>,
    pub stats_users: Vec<String>,
    // TLS, clients
    pub client_tls_sslmode: SslMode,
    pub client_tls_cert_file: Option<PathBuf>,
    pub client_tls_key_file: Option<PathBuf>,
    pub client_tls_ca_file: Option<PathBuf>,
    // TLS, servers
    pub server_tls_sslmode: SslMode,
    pub server_tls_ca_file: Option<PathBuf>,
    pub server_tls_cert_file: Option<PathBuf>,
    pub server_tls_key_file: Option<PathBuf>,
    // TCP
    pub tcp_keepalive: bool,
    pub tcp_keepidle: Duration,
    pub tcp_keepintvl: Duration,
    pub tcp_keepcnt: u32,
    pub tcp_user_timeout: Duration,
    // Log and statistics
    pub log_format: LogFormat,
    pub log_level: String,
    pub log_connections: bool,
    pub log_disconnections: bool,
    pub log_pooler_errors: bool,
    pub log_stats: bool,
    pub stats_period: Duration,
}

/// `[databases.NAME]`. `None`: the default of `[pooler]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Database {
    /// Name that clients ask for.
    pub name: String,
    /// Host names, IP addresses, or a directory of a unix socket (starts with `/`).
    pub host: String,
    pub port: u16,
    /// Name at the server; `None`: the same (for `*`, the name that was asked for).
    pub dbname: Option<String>,
    /// Login at the server for every client; `None`: each client's own name.
    pub user: Option<String>,
    pub password: Option<Secret<String>>,
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

/// Where a client comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerAddr {
    /// TCP: both ends.
    Tcp { peer: SocketAddr, local: SocketAddr },
    /// Unix socket: process id of the peer, if known.
    Unix { pid: u32, uid: u32 },
}
