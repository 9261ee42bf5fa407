//! The start without a file: `--upstream postgres://user:password@host/db` serves that database to that user
//! with that password, who may also look at the console.

use std::sync::Arc;

use super::{
    Config, Database, User, check,
    file::{LONGEST_NAME, RESERVED, take_url},
    interpolate::{Environment, process_environment},
    problem::{Problem, Problems},
    url,
};
use crate::error::Secret;

const EXAMPLE: &str = "write postgres://user:password@host:port/dbname";

impl Config {
    /// Serves one database. `listen` is `ADDR:PORT` (`[::1]:6432`, `*:6432`), or only one of the two; the
    /// password may come from `PGPASSWORD` instead. No message repeats the password.
    pub fn from_upstream(url: &str, listen: Option<&str>) -> Result<Self, Problems> {
        Self::from_upstream_in(url, listen, &process_environment)
    }

    /// As `from_upstream`, with another environment.
    pub fn from_upstream_in(
        url: &str,
        listen: Option<&str>,
        environment: Environment<'_>,
    ) -> Result<Self, Problems> {
        let mut problems = Vec::new();
        let mut config = Self::default();
        if let Some(listen) = listen {
            match parse_listen(listen, config.settings.listen_port) {
                Some((address, port)) => {
                    config.settings.listen_addr =
                        address.map_or(config.settings.listen_addr, |address| vec![address]);
                    config.settings.listen_port = port;
                }
                None => problems.push(
                    Problem::of_call(format!(
                        "--listen: \"{}\" is not an address and a port",
                        listen.escape_debug()
                    ))
                    .remedy("write ADDR:PORT, for example 127.0.0.1:6432, [::1]:6432 or *:6432"),
                ),
            }
        }
        match url::parse(url) {
            Ok(url) => config.serve(url, environment, &mut problems),
            Err(error) => {
                problems.push(Problem::of_call(format!("--upstream: {error}")).remedy(error.remedy()))
            }
        }
        if problems.is_empty() { Ok(config) } else { Err(Problems(problems)) }
    }

    fn serve(&mut self, url: url::ServerUrl, environment: Environment<'_>, problems: &mut Vec<Problem>) {
        let mut problem = |message: &str, remedy: &str| {
            problems.push(Problem::of_call(format!("--upstream: {message}")).remedy(remedy));
        };
        let mut database = Database::default();
        take_url(&mut database, url);
        let set = |password: &String| !password.is_empty();
        let password = database.password.take().or_else(|| environment("PGPASSWORD").filter(set).map(Secret));
        if database.host.is_empty() {
            problem("the URL names no host", EXAMPLE);
        }
        if database.user.is_none() {
            problem("the URL names no user", EXAMPLE);
        }
        if password.is_none() {
            problem(
                "there is no password, in the URL or in PGPASSWORD",
                "give one: clients log in at pooler with it, and pooler at the server",
            );
        }
        // As in libpq, the name of the user is the default.
        let user = database.user.clone().unwrap_or_default();
        let name = database.dbname.clone().unwrap_or_else(|| user.clone());
        if name.len() > LONGEST_NAME || user.len() > LONGEST_NAME {
            problem(
                "the name of the user or of the database is longer than 63 bytes",
                "PostgreSQL has no such names",
            );
        }
        if RESERVED.contains(&name.as_str()) {
            problem(
                "the name of the database leads to pooler's console",
                "use a pooler.toml with another name for it (dbname keeps the server's)",
            );
        }
        if let Some(message) = check::own_address(&self.settings, &database) {
            problem(&message, "give the address of PostgreSQL, or another one with --listen");
        }
        database.name.clone_from(&name);
        database.password.clone_from(&password);
        self.databases.insert(name, Arc::new(database));
        // There is nobody else who could look.
        self.settings.stats_users = vec![user.clone()];
        self.users.insert(user.clone(), Arc::new(User { name: user, password, ..User::default() }));
    }
}

/// The address, if one is given, and the port.
pub(crate) fn parse_listen(text: &str, default_port: u16) -> Option<(Option<String>, u16)> {
    let port_of = |port: &str| port.parse::<u16>().ok().filter(|port| *port > 0);
    if let Some(rest) = text.strip_prefix('[') {
        let (address, after) = rest.split_once(']')?;
        address.parse::<std::net::Ipv6Addr>().ok()?;
        let port = if after.is_empty() { default_port } else { port_of(after.strip_prefix(':')?)? };
        return Some((Some(address.to_owned()), port));
    }
    if text.parse::<std::net::Ipv6Addr>().is_ok() {
        return Some((Some(text.to_owned()), default_port));
    }
    match text.split_once(':') {
        Some((address, port)) => {
            let address = (!address.is_empty()).then(|| address.to_owned());
            Some((address, port_of(port)?))
        }
        None if text.is_empty() => None,
        None if text.bytes().all(|byte| byte.is_ascii_digit()) => Some((None, port_of(text)?)),
        None => Some((Some(text.to_owned()), default_port)),
    }
}
