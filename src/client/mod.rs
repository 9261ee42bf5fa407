//! From accept to login: the part of a client's life that runs on tokio.
//!
//! It ends with a `LoggedIn` that is handed to a worker, which sends AuthenticationOk and what follows.

pub mod error;
pub mod failures;
mod ldap;
pub mod limits;
pub mod login;
pub mod lookup;
mod pam;
pub mod password;
pub mod startup;
pub mod wire;

use std::sync::Arc;

use crate::{
    auth::ScramKeys,
    config::{Database, PeerAddr, User},
    net::Stream,
    protocol::ProtocolVersion,
};

/// A client that proved who it is. AuthenticationOk has **not** been sent yet: the worker sends it with
/// the parameters and the key in one write, as soon as the pool knows them.
#[derive(Debug)]
pub struct LoggedIn {
    pub stream: Stream,
    /// Clear bytes that were read after the last authentication message (a client may pipeline).
    pub leftover: Vec<u8>,
    /// What has to go out **in front of** AuthenticationOk, in the same write: AuthenticationSASLFinal after
    /// SCRAM, NegotiateProtocolVersion if due and no authentication message carried it. Often empty.
    pub unsent: Vec<u8>,
    /// 3.0 or 3.2, as negotiated.
    pub protocol: ProtocolVersion,
    /// Login name.
    pub user: String,
    /// The user's configuration (a default one for a user that only `--upstream` or trust knows).
    pub user_config: Arc<User>,
    /// The database that was asked for, resolved (also through `*`). `None`: the admin console.
    pub database: Option<Arc<Database>>,
    /// What the client may do on the admin console; set if and only if `database` is `None`.
    pub console: Option<ConsoleRight>,
    /// The name that was asked for.
    pub database_name: String,
    /// Startup parameters other than user, database, replication, options and `_pq_.*`; those of
    /// `options` (`-c name=value`, `--name=value`) come first, as in PostgreSQL, so that a later entry wins.
    pub parameters: Vec<(String, String)>,
    /// With another than `None`, `options` are among the parameters as they came.
    pub replication: startup::Replication,
    /// Keys proved against a stored SCRAM secret: they log in to a server that stores the same one.
    pub scram_keys: Option<ScramKeys>,
    /// What auth_query has found of the user.
    pub looked_up: Option<crate::error::Secret<String>>,
    /// The clear-text password, if the client sent it (auth_type plain, ldap, pam): may log in to the server.
    pub password: Option<crate::error::Secret<String>>,
    pub peer: PeerAddr,
    /// `TLSv1.3/TLS_AES_256_GCM_SHA384`, or empty.
    pub tls_description: String,
    /// Counts the connection until it is dropped.
    pub permit: limits::ClientPermit,
}

/// What a client may do on the console.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConsoleRight {
    /// admin_users.
    Admin,
    /// stats_users: SHOW only.
    Stats,
}
