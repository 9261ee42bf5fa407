//! Why a login at a server failed, sorted so that a pool can decide what to do with its waiters.

use std::{io, time::Duration};

use crate::{
    auth::AuthError,
    error::Report,
    net::tls::TlsError,
    protocol::{
        backend::{self, error_field},
        encode::{self, Severity},
    },
};

/// What a failed login means to the clients that wait for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The server's own answer, which would be the same for each waiter: give it to them.
    Server,
    /// Nobody answered, or the server is starting up: may pass, so waiters go on waiting.
    Unreachable,
    /// The pooler has no secret that the server accepts, or the wrong kind: needs the operator.
    Credentials,
    /// No TLS where it is demanded, or a certificate that is not trusted: needs the operator.
    Tls,
    /// Whoever answered does not speak PostgreSQL's protocol.
    Protocol,
}

/// A login at a server that failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("server login failed: cannot resolve host name \"{host}\": {reason}")]
    Resolve { host: String, reason: String },
    /// TCP or unix socket: refused, unreachable, reset.
    #[error("server connection to {target} failed: {reason}")]
    Network { target: String, kind: io::ErrorKind, reason: String },
    #[error("server login at {target} took longer than {} s", limit.as_secs_f32())]
    Timeout { target: String, limit: Duration },
    /// End of stream before the login was complete.
    #[error("server closed the connection during login")]
    Closed,
    /// The server answered `N`, or with an error, and sslmode is require or more.
    #[error("server refused SSL")]
    TlsRefused,
    /// The handshake failed, or the certificate is not trusted.
    #[error("TLS with the server failed: {0}")]
    Handshake(String),
    /// The settings for the server's sslmode cannot be used.
    #[error("{0}")]
    TlsSettings(Box<TlsError>),
    /// ErrorResponse.
    #[error("{0}")]
    Refused(Box<ServerError>),
    /// The server asks for a secret that cannot be made of what the pooler has.
    #[error("server login failed: wrong password type")]
    WrongSecret { asked: &'static str, have: &'static str },
    /// The server asks for a method that the pooler does not know.
    #[error("server login failed: authentication method {0} is not supported")]
    Method(&'static str),
    #[error(transparent)]
    Auth(#[from] AuthError),
    #[error("server login failed: {0}")]
    Protocol(&'static str),
    /// connect_query left a transaction open.
    #[error("connect_query left a transaction open")]
    OpenTransaction,
}

impl ConnectError {
    /// What the pool should make of it.
    pub fn failure(&self) -> Failure {
        match self {
            // cannot_connect_now: starting up, shutting down or in recovery.
            Self::Refused(error) if error.sqlstate() == Some("57P03") => Failure::Unreachable,
            Self::Refused(_) => Failure::Server,
            Self::Resolve { .. } | Self::Network { .. } | Self::Timeout { .. } | Self::Closed => {
                Failure::Unreachable
            }
            Self::TlsRefused | Self::Handshake(_) | Self::TlsSettings(_) => Failure::Tls,
            Self::WrongSecret { .. } | Self::Method(_) | Self::Auth(_) => Failure::Credentials,
            Self::Protocol(_) | Self::OpenTransaction => Failure::Protocol,
        }
    }

    /// From an I/O error after the connection was made; one of TLS keeps being one.
    pub(super) fn io(target: &str, error: &io::Error) -> Self {
        if error.get_ref().is_some_and(|e| e.is::<rustls::Error>()) {
            return Self::Handshake(error.to_string());
        }
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Closed,
            kind => Self::Network { target: target.to_owned(), kind, reason: error.to_string() },
        }
    }
}

impl Report for ConnectError {
    fn sqlstate(&self) -> &'static str {
        match self {
            // `write` forwards the server's own; this stands for it in the log.
            Self::Refused(_) => "08004",
            Self::Auth(error) => error.sqlstate(),
            Self::WrongSecret { .. } | Self::Method(_) => "28000",
            Self::Protocol(_) => "08P01",
            Self::OpenTransaction => "25001",
            Self::TlsSettings(_) => "F0000",
            Self::Resolve { .. }
            | Self::Network { .. }
            | Self::Timeout { .. }
            | Self::Closed
            | Self::TlsRefused
            | Self::Handshake(_) => "08001",
        }
    }

    fn detail(&self) -> Option<String> {
        match self {
            Self::WrongSecret { asked, have } => {
                Some(format!("The server asks for {asked}; the pooler has {have}."))
            }
            Self::Refused(error) => error.field(b'D'),
            Self::Auth(error) => error.detail(),
            _ => None,
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::WrongSecret { .. } => {
                "Set the user's plain password in auth_file, or user and password of the database. SCRAM keys \
                 pass through only if pooler and server store the same SCRAM secret."
            }
            Self::Method(_) => {
                "Let the server's pg_hba.conf ask the pooler for scram-sha-256, md5, password, cert or trust."
            }
            Self::TlsRefused => "Set ssl = on at the server, or set server_tls_sslmode to prefer.",
            Self::Handshake(_) => {
                "Check server_tls_ca_file, server_tls_cert_file and the server's certificate; verify-full \
                 also wants the name of the host in it."
            }
            Self::Timeout { .. } => "See server_connect_timeout.",
            Self::OpenTransaction => "connect_query must end the transactions that it begins.",
            Self::TlsSettings(error) => return Some(error.hint()),
            Self::Refused(error) if error.sqlstate() == Some("28P01") => {
                "The server refused the user or password with which pooler logged in there: see user and password of \
                 the database, and the user's password, in pooler's configuration."
            }
            Self::Refused(error) => return error.field(b'H'),
            Self::Auth(error) => return error.hint(),
            _ => return None,
        };
        Some(hint.to_owned())
    }

    /// The server's own error goes out with its own SQLSTATE and all its fields.
    fn write(&self, out: &mut Vec<u8>, severity: Severity) {
        if let Self::Refused(error) = self {
            return error.write(out, severity);
        }
        let (message, detail, hint) = (self.message(), self.detail(), self.hint());
        encode::error(out, severity, self.sqlstate(), &message, detail.as_deref(), hint.as_deref());
    }
}

/// An ErrorResponse that ended a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerError {
    /// The fields as they came.
    fields: Vec<u8>,
    /// It came before the server asked for any proof: pg_hba.conf has no line for this connection, there
    /// are too many connections, the protocol is refused.
    pub before_authentication: bool,
}

impl ServerError {
    pub(super) fn new(fields: Vec<u8>, before_authentication: bool) -> Self {
        Self { fields, before_authentication }
    }

    /// SQLSTATE, if the server sent one of the proper form.
    pub fn sqlstate(&self) -> Option<&str> {
        let code = std::str::from_utf8(error_field(&self.fields, b'C')?).ok()?;
        let proper = code.len() == 5 && code.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_uppercase());
        proper.then_some(code)
    }

    /// One field by its code (`S`, `V`, `C`, `M`, `D`, `H`, …).
    pub fn field(&self, code: u8) -> Option<String> {
        error_field(&self.fields, code).map(|value| String::from_utf8_lossy(value).into_owned())
    }

    /// The primary message.
    pub fn message(&self) -> String {
        self.field(b'M').unwrap_or_else(|| "server login failed without a message".to_owned())
    }

    /// Appends the ErrorResponse with all fields, but with this severity. Without a proper SQLSTATE it gets
    /// 08004: drivers rely on there being one.
    pub fn write(&self, out: &mut Vec<u8>, severity: Severity) {
        let text = match severity {
            Severity::Error => "ERROR",
            Severity::Fatal => "FATAL",
            Severity::Warning => "WARNING",
            Severity::Notice => "NOTICE",
        };
        let message = self.message();
        let sqlstate = self.sqlstate().unwrap_or("08004");
        encode::message(out, backend::ERROR_RESPONSE, |body| {
            for (code, value) in [(b'S', text), (b'V', text), (b'C', sqlstate), (b'M', message.as_str())] {
                body.push(code);
                encode::cstr(body, value.as_bytes());
            }
            for (code, value) in backend::error_fields(&self.fields) {
                if !matches!(code, b'S' | b'V' | b'C' | b'M') {
                    body.push(code);
                    encode::cstr(body, value);
                }
            }
            body.push(0);
        });
    }
}

impl std::fmt::Display for ServerError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message())
    }
}
