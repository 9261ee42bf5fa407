//! `postgres://user:password@host:port/dbname?param=value`, as libpq reads it (PostgreSQL docs, 34.1.1.2).
//!
//! One host only. No message repeats a part of the URL that could be, or contain, the password.

use super::{
    SslMode,
    settings::SSL_MODES,
    value::{Codec, Input},
};
use crate::error::Secret;

/// What a URL says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct ServerUrl {
    pub host: Option<String>,
    pub port: Option<u16>,
    pub user: Option<String>,
    pub password: Option<Secret<String>>,
    pub dbname: Option<String>,
    pub sslmode: Option<SslMode>,
    /// Startup parameters: `application_name`, `client_encoding`, `options`.
    pub parameters: Vec<(String, String)>,
}

/// Why a URL cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UrlError {
    #[error("the URL does not start with postgres:// or postgresql://")]
    Scheme,
    #[error(
        "the URL has a \"%\" that is not followed by two hexadecimal digits, or that gives no UTF-8 text"
    )]
    Percent,
    #[error("the URL names more than one host")]
    SeveralHosts,
    #[error("the URL has an IPv6 address without its \"]\"")]
    Bracket,
    #[error("the port in the URL is not a number from 1 to 65535")]
    Port,
    #[error("the sslmode in the URL is unknown")]
    SslMode,
    #[error("the URL has a parameter without \"=\"")]
    NoValue,
    #[error("the parameter \"{0}\" of the URL is not supported")]
    Parameter(&'static str),
    /// Its name is not repeated: it may be a part of a password with a bare "?".
    #[error("a parameter of the URL is unknown")]
    UnknownParameter,
    #[error("the URL contains a NUL byte")]
    Nul,
}

impl UrlError {
    /// What to do.
    pub(crate) fn remedy(&self) -> String {
        match self {
            Self::Scheme => "write postgres://user:password@host:port/dbname".to_owned(),
            Self::Percent => {
                "write special characters of user and password as %XX: @ as %40, / as %2F, % as %25"
                    .to_owned()
            }
            Self::SeveralHosts => "name one host".to_owned(),
            Self::Bracket => "write [::1]:5432".to_owned(),
            Self::Port => {
                "write host:5432; special characters in the password need %XX (@ as %40, / as %2F)".to_owned()
            }
            Self::SslMode => format!("expected {}", SSL_MODES.form()),
            Self::NoValue => "write ?name=value&name=value".to_owned(),
            Self::UnknownParameter => {
                "remove it from the URL; a \"?\" in user or password is written %3F".to_owned()
            }
            Self::Parameter(name) => match *name {
                "sslrootcert" => "remove it and set server_tls_ca_file in pooler.toml".to_owned(),
                "sslcert" => "remove it and set server_tls_cert_file in pooler.toml".to_owned(),
                "sslkey" => "remove it and set server_tls_key_file in pooler.toml".to_owned(),
                "connect_timeout" => "remove it and set server_connect_timeout in pooler.toml".to_owned(),
                _ => "remove it from the URL".to_owned(),
            },
            Self::Nul => "remove %00".to_owned(),
        }
    }
}

/// Parameters that libpq and common drivers know and that would promise what pooler does not do.
const UNSUPPORTED: [&str; 24] = [
    "channel_binding",
    "connect_timeout",
    "connection_limit",
    "fallback_application_name",
    "gssencmode",
    "hostaddr",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "load_balance_hosts",
    "passfile",
    "pool_timeout",
    "replication",
    "require_auth",
    "schema",
    "search_path",
    "sslcert",
    "sslcrl",
    "sslkey",
    "sslnegotiation",
    "sslrootcert",
    "target_session_attrs",
    "tcp_user_timeout",
];

/// Reads a URL.
pub(crate) fn parse(url: &str) -> Result<ServerUrl, UrlError> {
    let rest = ["postgres://", "postgresql://"].iter().find_map(|scheme| url.trim().strip_prefix(scheme));
    let rest = rest.ok_or(UrlError::Scheme)?;
    let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
    let (authority, dbname) =
        rest.split_once('/').map_or((rest, ""), |(authority, dbname)| (authority, dbname));
    let mut server = ServerUrl { dbname: decoded(dbname)?, ..ServerUrl::default() };
    let hostport = match authority.rsplit_once('@') {
        None => authority,
        Some((login, hostport)) => {
            let (user, password) = login.split_once(':').unwrap_or((login, ""));
            server.user = decoded(user)?;
            server.password = decoded(password)?.map(Secret);
            hostport
        }
    };
    read_host(&mut server, hostport)?;
    for parameter in query.unwrap_or_default().split('&').filter(|parameter| !parameter.is_empty()) {
        let (name, value) = parameter.split_once('=').ok_or(UrlError::NoValue)?;
        read_parameter(&mut server, &decoded(name)?.unwrap_or_default(), decoded(value)?)?;
    }
    Ok(server)
}

fn read_host(server: &mut ServerUrl, hostport: &str) -> Result<(), UrlError> {
    if hostport.contains(',') {
        return Err(UrlError::SeveralHosts);
    }
    let (host, port) = match hostport.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']').ok_or(UrlError::Bracket)?;
            let port = if after.is_empty() { "" } else { after.strip_prefix(':').ok_or(UrlError::Port)? };
            (host, port)
        }
        None => hostport.split_once(':').unwrap_or((hostport, "")),
    };
    server.host = decoded(host)?;
    if !port.is_empty() {
        server.port = Some(read_port(port)?);
    }
    Ok(())
}

fn read_port(port: &str) -> Result<u16, UrlError> {
    port.parse().ok().filter(|port| *port > 0).ok_or(UrlError::Port)
}

fn read_parameter(server: &mut ServerUrl, name: &str, value: Option<String>) -> Result<(), UrlError> {
    // As in libpq, an empty value is as good as none.
    let Some(value) = value else { return Ok(()) };
    match name {
        "host" if value.contains(',') => return Err(UrlError::SeveralHosts),
        "host" => server.host = Some(value),
        "port" => server.port = Some(read_port(&value)?),
        "user" => server.user = Some(value),
        "password" => server.password = Some(Secret(value)),
        "dbname" => server.dbname = Some(value),
        "sslmode" => {
            server.sslmode = Some(SSL_MODES.parse(&Input::text(value)).map_err(|_| UrlError::SslMode)?);
        }
        "application_name" | "client_encoding" | "options" => {
            server.parameters.push((name.to_owned(), value))
        }
        // Says what happens anyway.
        "channel_binding" if value == "prefer" => {}
        "target_session_attrs" if value == "any" => {}
        "sslnegotiation" if value == "postgres" => {}
        // Other drivers' word for what pooler itself is.
        "pgbouncer" => {}
        _ => {
            let known = UNSUPPORTED.iter().find(|known| **known == name);
            return Err(known.map_or(UrlError::UnknownParameter, |name| UrlError::Parameter(name)));
        }
    }
    Ok(())
}

/// Undoes percent-encoding; `None` if nothing is there.
fn decoded(text: &str) -> Result<Option<String>, UrlError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let mut digit = || rest.next().and_then(|byte| char::from(byte).to_digit(16));
            let (high, low) = (digit().ok_or(UrlError::Percent)?, digit().ok_or(UrlError::Percent)?);
            bytes.push(u8::try_from(high * 16 + low).map_err(|_| UrlError::Percent)?);
        } else {
            bytes.push(byte);
        }
    }
    let text = String::from_utf8(bytes).map_err(|_| UrlError::Percent)?;
    if text.contains('\0') {
        return Err(UrlError::Nul);
    }
    Ok((!text.is_empty()).then_some(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(url: &str) -> String {
        let url = parse(url).unwrap();
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        format!(
            "{} {} {} {} {} {}",
            or_dash(url.user),
            or_dash(url.password.map(|password| password.0)),
            or_dash(url.host),
            or_dash(url.port.map(|port| port.to_string())),
            or_dash(url.dbname),
            or_dash(url.sslmode.map(|mode| format!("{mode:?}"))),
        )
    }

    #[test]
    fn urls_are_read_as_libpq_reads_them() {
        for (url, expected) in [
            ("postgres://u:p@h:5433/d", "u p h 5433 d -"),
            ("postgresql://u:p@h/d", "u p h - d -"),
            ("postgres://h", "- - h - - -"),
            ("postgres://u@h/", "u - h - - -"),
            ("postgres://u:p%40%2F%3A%25@h/d", "u p@/:% h - d -"),
            ("postgres://u:a@b@h/d", "u a@b h - d -"),
            ("postgres://u:a:b@h/d", "u a:b h - d -"),
            ("postgres://u:p@[::1]:5432/d", "u p ::1 5432 d -"),
            ("postgres://u:p@[::1]/d", "u p ::1 - d -"),
            ("postgres://u:p@%2Frun%2Fpg:5433/d", "u p /run/pg 5433 d -"),
            ("postgres://u:p@/d?host=/run/pg&port=6000", "u p /run/pg 6000 d -"),
            ("postgres:///d?host=h&user=u&password=p%26", "u p& h - d -"),
            ("postgres://u:p@h/d?sslmode=verify-full", "u p h - d VerifyFull"),
            ("postgres://u:p@h/d?sslmode=REQUIRE&pgbouncer=true&channel_binding=prefer", "u p h - d Require"),
            ("postgres://u:p@h/my%20db?", "u p h - my db -"),
            ("  postgres://u:%F0%9F%90%98@h/d\n", "u 🐘 h - d -"),
        ] {
            assert_eq!(summary(url), expected, "{url}");
        }
    }

    #[test]
    fn startup_parameters_are_kept() {
        let url = parse("postgres://h/d?application_name=a%20b&options=-c%20x%3D1").unwrap();
        let expected = [("application_name", "a b"), ("options", "-c x=1")];
        assert_eq!(url.parameters, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn what_cannot_be_used_is_refused_without_repeating_it() {
        for (url, expected) in [
            ("mysql://u:s3cret@h/d", UrlError::Scheme),
            ("u:s3cret@h/d", UrlError::Scheme),
            ("", UrlError::Scheme),
            ("postgres://u:s3cret%@h/d", UrlError::Percent),
            ("postgres://u:s3cret%zz@h/d", UrlError::Percent),
            ("postgres://u:s3cret%ff@h/d", UrlError::Percent),
            ("postgres://u:s3cret%00@h/d", UrlError::Nul),
            ("postgres://u:s3cret@a,b/d", UrlError::SeveralHosts),
            ("postgres://u:s3cret@[::1/d", UrlError::Bracket),
            ("postgres://u:s3cret@h:0/d", UrlError::Port),
            ("postgres://u:s3cret@h:65536/d", UrlError::Port),
            ("postgres://u:s3cret/x@h/d", UrlError::Port),
            ("postgres://u:s3cret@h/d?sslmode=maybe", UrlError::SslMode),
            ("postgres://u:s3cret@h/d?sslmode", UrlError::NoValue),
            ("postgres://u:s3cret@h/d?sslrootcert=/ca", UrlError::Parameter("sslrootcert")),
            ("postgres://u:123?s3cret=x@h/d", UrlError::UnknownParameter),
            ("postgres://u:s3cret@h/d?channel_binding=require", UrlError::Parameter("channel_binding")),
        ] {
            let error = parse(url).unwrap_err();
            assert_eq!(error, expected, "{url}");
            assert!(!format!("{error} {error:?} {}", error.remedy()).contains("s3cret"), "{url}");
        }
    }
}
