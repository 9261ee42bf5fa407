//! Why a login did not come about.

use std::io;

use crate::{
    auth::AuthError,
    client::{limits::LimitError, lookup::LookupError},
    error::Report,
    protocol::startup::{OptionsError, StartupPacketError},
};

/// A login that failed. The client has been told (if it could be) and the reason logged.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// The client went away. Said to nobody.
    #[error("client unexpected eof")]
    Closed,
    #[error("client socket error: {0}")]
    Io(#[from] io::Error),
    #[error("TLS handshake failed: {0}")]
    Handshake(io::Error),

    #[error(transparent)]
    Packet(#[from] StartupPacketError),
    #[error(transparent)]
    Startup(#[from] StartupError),
    #[error(transparent)]
    Options(#[from] OptionsError),
    #[error(transparent)]
    Limit(#[from] LimitError),
    #[error(transparent)]
    Auth(#[from] AuthError),
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// A wrong password or an unknown user, in PostgreSQL's words whatever the method.
    #[error("password authentication failed for user \"{user}\"")]
    WrongPassword { user: String, cause: AuthError },

    /// Clear bytes behind an SSLRequest or GSSENCRequest: somebody stuffs commands into a session that
    /// is about to be encrypted (CVE-2021-23214).
    #[error("received unencrypted data after {0} request")]
    Unencrypted(&'static str),
    #[error("received a second or misplaced encryption request")]
    RepeatedRequest,
    #[error("received direct SSL connection request without ALPN protocol negotiation extension")]
    NoAlpn,
    #[error("SSL required")]
    SslRequired,
    #[error("expected password response, got message type {0}")]
    NotPassword(u8),
    #[error("invalid length of authentication message")]
    MessageLength,
    #[error("no such database: {0}")]
    NoSuchDatabase(String),
    /// The console, for a user who is neither in admin_users nor in stats_users.
    #[error("not allowed")]
    ConsoleNotAllowed,
    /// auth_hba_file, in PgBouncer's words.
    #[error("no authentication method is found")]
    NoRule,
    #[error("login rejected")]
    Rejected,
    #[error("unix socket login rejected")]
    Peer,
    #[error("certificate authentication failed")]
    Certificate,
    /// A directory or the system does not know the user by the password.
    #[error("{by} authentication failed for user \"{user}\"")]
    Elsewhere { by: &'static str, user: String },
    /// auth_type any, and nobody to log in as at the server.
    #[error("database \"{0}\" has no user of its own")]
    NoForcedUser(String),
    #[error("client_login_timeout")]
    Timeout,
}

/// A startup packet that asks for something that is not served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartupError {
    #[error("no PostgreSQL user name specified in startup packet")]
    NoUser,
    #[error("invalid value for parameter \"replication\": \"{0}\"")]
    ReplicationValue(String),
}

impl Report for StartupError {
    fn sqlstate(&self) -> &'static str {
        match self {
            Self::NoUser => "28000",
            Self::ReplicationValue(_) => "22023",
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NoUser => None,
            Self::ReplicationValue(_) => {
                Some("Valid values are: \"false\", 0, \"true\", 1, \"database\".".to_owned())
            }
        }
    }
}

impl LoginError {
    /// The error as it goes to the client; `None` if nobody could read it.
    pub fn report(&self) -> Option<&dyn Report> {
        match self {
            Self::Closed | Self::Io(_) | Self::Handshake(_) => None,
            // PostgreSQL says nothing either. Clients that end before they have begun send such a thing.
            Self::Packet(StartupPacketError::Length | StartupPacketError::CancelLength) => None,
            _ => Some(self),
        }
    }

    fn inner(&self) -> Option<&dyn Report> {
        match self {
            Self::Packet(e) => Some(e),
            Self::Startup(e) => Some(e),
            Self::Options(e) => Some(e),
            Self::Limit(e) => Some(e),
            Self::Auth(e) | Self::WrongPassword { cause: e, .. } => Some(e),
            _ => None,
        }
    }
}

impl Report for LoginError {
    fn sqlstate(&self) -> &'static str {
        match self {
            Self::Closed | Self::Io(_) => "08006",
            Self::SslRequired | Self::NoRule | Self::Rejected | Self::Peer | Self::Certificate => "28000",
            Self::NoForcedUser(_) | Self::Elsewhere { .. } => "28000",
            // It may work the next time.
            Self::Lookup(_) => "57P03",
            Self::NoSuchDatabase(_) => "3D000",
            Self::ConsoleNotAllowed => "42501",
            _ => self.inner().map_or("08P01", Report::sqlstate),
        }
    }

    fn detail(&self) -> Option<String> {
        match self {
            // What PgBouncer says: here for those who look for it.
            Self::WrongPassword { cause: cause @ AuthError::Sasl, .. } => Some(format!("{cause}.")),
            _ => self.inner().and_then(Report::detail),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::SslRequired => {
                Some("Connect with sslmode=require, or lower client_tls_sslmode of the pooler.".to_owned())
            }
            Self::ConsoleNotAllowed => {
                Some("The console serves the users in admin_users and stats_users.".to_owned())
            }
            Self::NoForcedUser(_) => Some(
                "With auth_type any each database needs user and password in the pooler's configuration."
                    .to_owned(),
            ),
            Self::NoRule => Some("No line of auth_hba_file fits.".to_owned()),
            Self::Lookup(_) => Some("The log of the pooler says why auth_query failed.".to_owned()),
            Self::NoAlpn => Some("Offer the ALPN protocol \"postgresql\".".to_owned()),
            _ => self.inner().and_then(Report::hint),
        }
    }
}
