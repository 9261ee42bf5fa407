//! The server that a command is to talk to: a URL, options, what libpq's environment and password file say, or a question.
//!
//! Source: PostgreSQL docs, 34.1 "Database Connection Control Functions", 34.15 "Environment Variables", 34.16 "The Password
//! File". No message repeats a password.

use std::{
    convert::Infallible,
    fs,
    io::{self, IsTerminal as _, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use clap::Args;
use ratatui::crossterm::{
    event::{self, Event, KeyCode, KeyEventKind, KeyModifiers},
    terminal,
};

use crate::{
    config::{At, Environment, Problem, Settings, SslMode, host_with_port, url},
    error::Secret,
    net::tls::{ServerTls, TlsError},
    server::{ConnectError, ConnectSpec, Credentials, Keepalive, OwnSession, ServerAddress},
};

/// How a server is named on the command line.
#[derive(Args, Clone, Debug, Default)]
pub struct TargetArguments {
    /// postgres://user:password@host:port/dbname. Other users of the machine may see arguments: leave the password to PGPASSWORD, to
    /// ~/.pgpass, or to the question for it.
    #[arg(value_name = "URL", value_parser = secret)]
    pub url: Option<Secret<String>>,
    /// Host name, IP address, or the directory of a unix socket.
    #[arg(long, value_name = "HOST", conflicts_with = "url")]
    pub host: Option<String>,
    /// Its port.
    #[arg(long, short, value_name = "PORT", conflicts_with = "url", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// Who logs in.
    #[arg(long, short = 'U', value_name = "NAME", conflicts_with = "url")]
    pub user: Option<String>,
}

fn secret(text: &str) -> Result<Secret<String>, Infallible> {
    Ok(Secret(text.to_owned()))
}

/// What counts where nothing is said.
#[derive(Clone, Copy, Debug)]
pub struct Defaults<'a> {
    /// `None`: libpq's.
    pub host: Option<&'a str>,
    pub port: u16,
    /// `None`: the user's name.
    pub dbname: Option<&'a str>,
    /// PGHOST, PGPORT and PGDATABASE tell the place of PostgreSQL.
    pub is_postgres: bool,
}

/// The server.
#[derive(Clone, Debug)]
pub struct Target {
    pub host: String,
    pub port: u16,
    pub user: String,
    pub dbname: String,
    pub password: Option<Secret<String>>,
    pub sslmode: SslMode,
    pub parameters: Vec<(String, String)>,
    /// Authorities of the server's certificate.
    pub ca_file: Option<PathBuf>,
    tls: Arc<ServerTls>,
}

/// Where libpq looks for the unix socket of a server that nobody names.
const SOCKET_DIRECTORIES: [&str; 2] = ["/var/run/postgresql", "/tmp"];

impl Target {
    /// `dbname`: as an option says.
    pub fn resolve(
        arguments: &TargetArguments,
        dbname: Option<&str>,
        defaults: Defaults<'_>,
        environment: Environment<'_>,
    ) -> Result<Self, Problem> {
        let given = match &arguments.url {
            Some(text) => url::parse(&for_servers(&text.0))
                .map_err(|error| Problem::of_call(error.to_string()).remedy(error.remedy()))?,
            None => url::ServerUrl::default(),
        };
        let set = |name: &str| environment(name).filter(|value| !value.is_empty());
        let place = |name: &str| if defaults.is_postgres { set(name) } else { None };
        let port = match place("PGPORT") {
            Some(text) => Some(text.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(|| {
                Problem::of_call("PGPORT is not a port")
                    .remedy("set it to a number from 1 to 65535, or unset it")
            })?),
            None => None,
        };
        let port = arguments.port.or(given.port).or(port).unwrap_or(defaults.port);
        let host = arguments.host.clone().or(given.host).or_else(|| place("PGHOST"));
        let host = host.or_else(|| defaults.host.map(str::to_owned)).unwrap_or_else(|| local_host(port));
        if host.contains(',') {
            return Err(Problem::of_call("more than one host is named").remedy("name one"));
        }
        let user = arguments.user.clone().or(given.user).or_else(|| set("PGUSER")).or_else(system_user);
        let user = user.ok_or_else(|| {
            Problem::of_call("nobody says who is to log in").remedy("give --user, or a user in the URL")
        })?;
        let dbname = dbname.map(str::to_owned).or(given.dbname).or_else(|| place("PGDATABASE"));
        let dbname = dbname.or_else(|| defaults.dbname.map(str::to_owned)).unwrap_or_else(|| user.clone());
        let mode = match set("PGSSLMODE") {
            Some(word) => Some(SslMode::named(&word).ok_or_else(|| {
                Problem::of_call("PGSSLMODE is no sslmode").remedy("set it to prefer, require or verify-full")
            })?),
            None => None,
        };
        let mode = given.sslmode.or(mode);
        let password = given.password.or_else(|| set("PGPASSWORD").map(Secret));
        let password = password.or_else(|| from_password_file(environment, &host, port, &dbname, &user));
        let ca_file = set("PGSSLROOTCERT").filter(|file| file != "system");
        let ca_file = ca_file.map(|file| std::path::absolute(&file).unwrap_or(PathBuf::from(file)));
        let settings = Settings { server_tls_ca_file: ca_file.clone(), ..Settings::default() };
        let tls = ServerTls::build(&settings)
            .map_err(|error: TlsError| Problem::of_call(error.to_string()).remedy(error.hint()))?;
        Ok(Self {
            host,
            port,
            user,
            dbname,
            password,
            sslmode: mode.unwrap_or(SslMode::Prefer),
            parameters: given.parameters,
            ca_file,
            tls: Arc::new(tls),
        })
    }

    /// The same login at another place.
    pub fn at(&self, host: &str, port: u16) -> Self {
        Self { host: host.to_owned(), port, ..self.clone() }
    }

    /// The server is on this machine.
    pub fn is_local(&self) -> bool {
        self.host.starts_with(['/', '@'])
            || self.host == "localhost"
            || self.host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }

    /// Logs in.
    pub async fn connect(&self, limit: Duration) -> Result<OwnSession, ConnectError> {
        let mut parameters = vec![
            ("application_name".to_owned(), "pooler".to_owned()),
            ("client_encoding".to_owned(), "UTF8".to_owned()),
        ];
        parameters.extend(self.parameters.iter().filter(|(name, _)| name == "options").cloned());
        let spec = ConnectSpec {
            address: ServerAddress {
                host: self.host.clone(),
                port: self.port,
                at: At::Any,
                sslmode: self.sslmode,
                tls: Arc::clone(&self.tls),
                keepalive: Keepalive::default(),
                names: None,
            },
            user: self.user.clone(),
            database: self.dbname.clone(),
            credentials: self.password.clone().map_or(Credentials::None, Credentials::Password),
            parameters,
            connect_query: None,
            timeout: limit,
        };
        OwnSession::connect(&spec).await
    }

    /// Logs in; asks for the password if the server does, there is none, and somebody is there to be asked.
    pub async fn connect_asking(&mut self, limit: Duration) -> Result<OwnSession, ConnectError> {
        match self.connect(limit).await {
            Err(error @ ConnectError::WrongSecret { have: "no password", .. }) => {
                let Some(password) = ask_password(&self.user) else { return Err(error) };
                self.password = Some(password);
                self.connect(limit).await
            }
            result => result,
        }
    }
}

/// As messages name it.
impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&host_with_port(&self.host, self.port))
    }
}

/// What applications' libraries (Prisma and others) are told by their URL, and what says nothing of the server.
const OF_LIBRARIES: [&str; 6] = [
    "schema",
    "connection_limit",
    "pool_timeout",
    "connect_timeout",
    "socket_timeout",
    "statement_cache_size",
];

/// A URL without that.
fn for_servers(text: &str) -> String {
    let Some((place, query)) = text.split_once('?') else { return text.to_owned() };
    let is_kept = |parameter: &&str| {
        let name = parameter.split('=').next().unwrap_or_default();
        !OF_LIBRARIES.contains(&name)
    };
    let kept: Vec<&str> = query.split('&').filter(is_kept).collect();
    if kept.is_empty() { place.to_owned() } else { format!("{place}?{}", kept.join("&")) }
}

fn local_host(port: u16) -> String {
    let has_socket = |dir: &&&str| Path::new(dir).join(format!(".s.PGSQL.{port}")).exists();
    SOCKET_DIRECTORIES.iter().find(has_socket).map_or("localhost", |dir| dir).to_owned()
}

fn system_user() -> Option<String> {
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).ok()??;
    Some(user.name)
}

/// What libpq's password file says. One that others can read does not count.
fn from_password_file(
    environment: Environment<'_>,
    host: &str,
    port: u16,
    dbname: &str,
    user: &str,
) -> Option<Secret<String>> {
    let set = |name: &str| environment(name).filter(|value| !value.is_empty());
    let file =
        set("PGPASSFILE").map(PathBuf::from).or_else(|| Some(Path::new(&set("HOME")?).join(".pgpass")))?;
    let mode = fs::metadata(&file).ok()?.mode();
    if mode & 0o077 != 0 {
        eprintln!("warning: {} is passed over: others can read it\n  chmod 600 {0}", file.display());
        return None;
    }
    let text = fs::read_to_string(&file).ok()?;
    let host = if host.starts_with('/') { "localhost" } else { host };
    let wanted = [host, &port.to_string(), dbname, user];
    text.lines().find_map(|line| password_of_line(line, wanted)).map(Secret)
}

/// `host:port:database:user:password`, with `*` for anything, and `\` in front of `:` and `\`.
fn password_of_line(line: &str, wanted: [&str; 4]) -> Option<String> {
    if line.starts_with('#') {
        return None;
    }
    let mut fields = vec![String::new()];
    let mut characters = line.trim_end_matches('\r').chars();
    while let Some(c) = characters.next() {
        match c {
            ':' if fields.len() < 5 => fields.push(String::new()),
            '\\' => fields.last_mut()?.extend(characters.next()),
            other => fields.last_mut()?.push(other),
        }
    }
    let [place @ .., password] = fields.as_slice() else { return None };
    let fits =
        place.len() == 4 && place.iter().zip(wanted).all(|(field, wanted)| field == "*" || field == wanted);
    (fits && !password.is_empty()).then(|| password.clone())
}

/// Asks at the terminal, without showing what is typed. `None`: nobody is there, or does not want to say.
fn ask_password(user: &str) -> Option<Secret<String>> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return None;
    }
    eprint!("Password of user {}: ", crate::error::Printable(user));
    let _ = io::stderr().flush();
    terminal::enable_raw_mode().ok()?;
    let typed = read_line();
    let _ = terminal::disable_raw_mode();
    eprintln!();
    typed.filter(|text| !text.is_empty()).map(Secret)
}

fn read_line() -> Option<String> {
    let mut typed = String::new();
    loop {
        let Event::Key(key) = event::read().ok()? else { continue };
        if key.kind == KeyEventKind::Release {
            continue;
        }
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Enter => return Some(typed),
            KeyCode::Esc => return None,
            KeyCode::Char('c' | 'd') if control => return None,
            KeyCode::Char('u') if control => typed.clear(),
            KeyCode::Char(c) if !control => typed.push(c),
            KeyCode::Backspace => drop(typed.pop()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::demo::process::TempDir;

    const POSTGRES: Defaults<'_> = Defaults { host: Some("h0"), port: 5432, dbname: None, is_postgres: true };

    fn resolved(arguments: &TargetArguments, defaults: Defaults<'_>, set: &[(&str, &str)]) -> String {
        let environment =
            |name: &str| set.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        match Target::resolve(arguments, None, defaults, &environment) {
            Ok(t) => {
                let password = t.password.map_or("-".to_owned(), |password| password.0);
                format!("{}@{}:{}/{} {password} {:?}", t.user, t.host, t.port, t.dbname, t.sslmode)
            }
            Err(problem) => format!("error: {problem}"),
        }
    }

    fn of_url(url: &str) -> TargetArguments {
        TargetArguments { url: Some(Secret(url.to_owned())), ..TargetArguments::default() }
    }

    #[test]
    fn url_counts_before_options_before_the_environment() {
        let environment =
            [("PGHOST", "eh"), ("PGPORT", "5"), ("PGUSER", "eu"), ("PGDATABASE", "ed"), ("PGPASSWORD", "ep")];
        let options = TargetArguments {
            host: Some("oh".to_owned()),
            port: Some(7),
            user: Some("ou".to_owned()),
            ..TargetArguments::default()
        };
        let console =
            Defaults { host: Some("127.0.0.1"), port: 6432, dbname: Some("pgbouncer"), is_postgres: false };
        for (arguments, defaults, set, expected) in [
            (of_url("postgres://u:p@h:1/d?sslmode=require"), POSTGRES, &environment[..], "u@h:1/d p Require"),
            (of_url("postgres://u@h"), POSTGRES, &[][..], "u@h:5432/u - Prefer"),
            // An application's, as it is.
            (
                of_url("postgresql://u:p@h/d?schema=public&sslmode=require&connection_limit=5"),
                POSTGRES,
                &[][..],
                "u@h:5432/d p Require",
            ),
            (of_url("postgres://u:p@h/d?schema=public"), POSTGRES, &[][..], "u@h:5432/d p Prefer"),
            (options.clone(), POSTGRES, &environment[..], "ou@oh:7/ed ep Prefer"),
            (TargetArguments::default(), POSTGRES, &environment[..], "eu@eh:5/ed ep Prefer"),
            // Where PostgreSQL is does not tell where pooler is.
            (TargetArguments::default(), console, &environment[..], "eu@127.0.0.1:6432/pgbouncer ep Prefer"),
            (
                TargetArguments::default(),
                POSTGRES,
                &[("PGUSER", "u"), ("PGSSLMODE", "verify-full")][..],
                "u@h0:5432/u - VerifyFull",
            ),
        ] {
            assert_eq!(resolved(&arguments, defaults, set), expected);
        }
    }

    #[test]
    fn mistakes_are_told_with_a_remedy_and_without_the_password() {
        for (arguments, set, expected) in [
            (of_url("postgres://u:s3cret@a,b/d"), ("", ""), "more than one host"),
            (of_url("mysql://u:s3cret@h/d"), ("", ""), "does not start with postgres://"),
            (TargetArguments::default(), ("PGPORT", "x"), "PGPORT is not a port"),
            (TargetArguments::default(), ("PGSSLMODE", "x"), "PGSSLMODE is no sslmode"),
            (TargetArguments::default(), ("PGSSLROOTCERT", "/nowhere/ca.crt"), "/nowhere/ca.crt"),
        ] {
            let said = resolved(&arguments, POSTGRES, &[set]);
            assert!(
                said.starts_with("error: ") && said.contains(expected) && said.contains("\n  "),
                "{said}"
            );
            assert!(!said.contains("s3cret"), "{said}");
        }
    }

    #[test]
    fn password_file_is_read_as_libpq_reads_it() {
        for (line, expected) in [
            ("h:5432:d:u:secret", Some("secret")),
            ("*:*:*:*:a:b", Some("a:b")),
            (r"h:*:d:u:a\:b\\c", Some(r"a:b\c")),
            ("h:5432:d:u:", None),
            ("h:5432:d:u", None),
            ("#h:5432:d:u:secret", None),
            ("h:5433:d:u:secret", None),
            ("*:*:*:v:secret", None),
            ("", None),
        ] {
            assert_eq!(password_of_line(line, ["h", "5432", "d", "u"]).as_deref(), expected, "{line}");
        }
        let dir = TempDir::new(None).unwrap();
        let file = dir.path().join(".pgpass");
        fs::write(&file, "other:*:*:*:no\nh0:5432:u:u:yes\n").unwrap();
        let set = [("HOME", dir.path().to_str().unwrap()), ("PGUSER", "u")];
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(resolved(&TargetArguments::default(), POSTGRES, &set), "u@h0:5432/u yes Prefer");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(resolved(&TargetArguments::default(), POSTGRES, &set), "u@h0:5432/u - Prefer");
    }
}
