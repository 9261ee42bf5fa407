//! Why a login or a question failed, and what to do about it.

use crate::{
    error::{Printable, Report as _},
    server::{ConnectError, QueryError, ServerError},
};

/// What went wrong.
#[derive(Debug)]
pub(super) enum Trouble {
    Login(ConnectError),
    /// auth_query failed.
    Question(QueryError),
    /// auth_query answers with so many columns.
    Columns(usize),
    /// auth_query answers about somebody else.
    OtherUser,
}

/// Who or what has to be mended: findings of one kind are told together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum About {
    /// The place, for whoever logs in.
    Place,
    /// The database, for whoever logs in.
    Database,
    /// The user.
    User,
    /// The user may be right, but has no business there.
    Access,
    /// Only a client could prove who it is.
    Client,
}

impl Trouble {
    /// Without secrets, in one line.
    pub(super) fn message(&self) -> String {
        let text = match self {
            Self::Login(ConnectError::WrongSecret { asked, have }) => {
                format!("the server asks for {asked}; pooler has {have}")
            }
            Self::Login(error) => error.to_string(),
            Self::Question(error) => error.to_string(),
            Self::Columns(count) => format!("auth_query answers with {count} columns, not with 2"),
            Self::OtherUser => "auth_query answers about another user than it was asked for".to_owned(),
        };
        Printable(&text).to_string()
    }

    /// `needs_client`: the secret would come from a client.
    pub(super) fn about(&self, needs_client: bool) -> About {
        let Self::Login(error) = self else { return About::Database };
        match error {
            ConnectError::WrongSecret { asked, have: "no password" }
                if needs_client && asked.contains("SCRAM") =>
            {
                About::Client
            }
            ConnectError::WrongSecret { .. } => About::User,
            ConnectError::Refused(error) => match error.sqlstate() {
                Some("3D000") => About::Database,
                Some("42501") => About::Access,
                Some("28000") if error.message().contains("pg_hba.conf") => About::Access,
                Some(code) if code.starts_with("28") => About::User,
                Some("53300") if error.message().contains("for role") => About::User,
                Some("53300") if error.message().contains("for database") => About::Database,
                _ => About::Place,
            },
            ConnectError::Auth(_) => About::User,
            _ => About::Place,
        }
    }

    /// What to do. `user` logs in at a database that the server calls `dbname`.
    pub(super) fn remedy(&self, user: &str, dbname: &str) -> String {
        match self {
            Self::Login(ConnectError::Refused(error)) => refused(error, user, dbname),
            Self::Login(error) => unreached(error),
            Self::Question(error) if error.sqlstate() == Some("42501") => {
                "let auth_query call a function of a superuser's (SECURITY DEFINER, with a search_path of its own), and \
                 GRANT EXECUTE on it to auth_user"
                    .to_owned()
            }
            Self::Question(_) => "correct auth_query, or auth_dbname: where it is asked".to_owned(),
            Self::Columns(_) | Self::OtherUser => {
                "let auth_query return the name that it is asked for ($1) and the secret".to_owned()
            }
        }
    }
}

fn refused(error: &ServerError, user: &str, dbname: &str) -> String {
    let (user, dbname) = (name(user), name(dbname));
    match error.sqlstate() {
        Some("28P01") => format!(
            "give the right password in pooler's configuration, or set it: ALTER ROLE {user} PASSWORD …; a role that does \
             not exist is refused in the same words"
        ),
        Some("28000") if error.message().contains("pg_hba.conf") => format!(
            "let it in by a line in the server's pg_hba.conf, and reload: host {dbname} {user} THIS_ADDRESS scram-sha-256"
        ),
        Some("28000") if error.message().contains("does not exist") => {
            format!("CREATE ROLE {user} LOGIN PASSWORD …, or remove the user from pooler's configuration")
        }
        Some("28000") if error.message().contains("not permitted to log in") => {
            format!("ALTER ROLE {user} LOGIN")
        }
        Some("28000") => "see the server's log, and the line in pg_hba.conf that it names".to_owned(),
        Some("3D000") => format!("CREATE DATABASE {dbname}, or say with `dbname` what the server calls it"),
        Some("42501") => format!("GRANT CONNECT ON DATABASE {dbname} TO {user}"),
        Some("53300") if error.message().contains("for role") => {
            format!("close other connections, or ALTER ROLE {user} CONNECTION LIMIT …")
        }
        Some("53300") if error.message().contains("for database") => {
            format!("close other connections, or ALTER DATABASE {dbname} CONNECTION LIMIT …")
        }
        Some("53300") => "close other connections, or raise max_connections of the server".to_owned(),
        Some("57P03") => "wait until the server is up, and try again; its log says what it does".to_owned(),
        _ => error
            .field(b'H')
            .map_or_else(|| "see the server's log".to_owned(), |hint| Printable(&hint).to_string()),
    }
}

fn unreached(error: &ConnectError) -> String {
    match error {
        ConnectError::Resolve { .. } => "check the name, or give an IP address".to_owned(),
        ConnectError::Network { kind: std::io::ErrorKind::ConnectionRefused, .. } => {
            "start PostgreSQL there, let it listen on this address (listen_addresses), or correct host and port".to_owned()
        }
        ConnectError::Network { kind: std::io::ErrorKind::NotFound, .. } => {
            "there is no such unix socket: correct directory and port, or start PostgreSQL".to_owned()
        }
        ConnectError::Network { kind: std::io::ErrorKind::PermissionDenied, .. } => {
            "let this user into the directory of the unix socket, or use TCP".to_owned()
        }
        ConnectError::Network { .. } => "check host and port, the network and firewalls".to_owned(),
        ConnectError::Timeout { .. } => {
            "check host and port, and firewalls between here and there: nobody answers".to_owned()
        }
        ConnectError::Closed | ConnectError::Protocol(_) => {
            "check host and port: perhaps something else than PostgreSQL listens there".to_owned()
        }
        other => other.hint().unwrap_or_else(|| "see the server's log".to_owned()),
    }
}

/// As in SQL.
fn name(text: &str) -> String {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if text.chars().all(plain) && text.starts_with(|c: char| !c.is_ascii_digit()) {
        return text.to_owned();
    }
    format!("\"{}\"", Printable(&text.replace('"', "\"\"")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_sql() {
        for (text, expected) in [
            ("app", "app"),
            ("my app", "\"my app\""),
            ("a\"b", "\"a\"\"b\""),
            ("1a", "\"1a\""),
            ("a\nb", "\"a\\nb\""),
        ] {
            assert_eq!(name(text), expected);
        }
    }

    #[test]
    fn who_has_to_act_is_told_apart() {
        let wrong = |asked, have| Trouble::Login(ConnectError::WrongSecret { asked, have });
        assert_eq!(wrong("a SCRAM proof", "no password").about(true), About::Client);
        assert_eq!(wrong("a SCRAM proof", "no password").about(false), About::User);
        assert_eq!(wrong("an MD5 password", "no password").about(true), About::User);
        assert_eq!(Trouble::Login(ConnectError::TlsRefused).about(false), About::Place);
        assert_eq!(Trouble::Columns(3).about(false), About::Database);
    }
}
