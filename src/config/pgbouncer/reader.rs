//! From the lines of a pgbouncer.ini to a `Config`.

use std::{path::Path, sync::Arc, time::Duration};

use super::{
    given::{Given, Refused, apply},
    ini::{Item, Place},
    pairs::pairs,
    parameters::{PARAMETERS, parameter},
};
use crate::{
    config::{
        Database, LoadBalanceHosts, Loaded, MOST_NODES, NodeAddress, Peer, Problem, Problems, Settings, User,
        check,
        file::{Dialect, LONGEST_NAME, Reader},
        settings::{POOL_MODES, SETTINGS},
        suggest::closest,
        value::{Codec as _, Input},
    },
    error::Secret,
};

/// What PgBouncer has no setting for is as it does it.
const AS_PGBOUNCER: &[(&str, &str)] = &[
    ("auth_query_lifetime", "0"),
    ("auth_pam_service", "pgbouncer"),
    ("client_write_timeout", "0"),
    ("log_format", "pgbouncer"),
];
/// Longest user name, as in auth_file.
const LONGEST_USER: usize = 127;

/// The sections of the file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Section {
    Pgbouncer,
    Databases,
    Users,
    Peers,
}

/// What is known so far.
pub(super) struct IniReader<'a> {
    reader: Reader<'a>,
    given: Given,
    /// Whether `[pgbouncer]` is there.
    has_main: bool,
}

/// The settings that a pgbouncer.ini starts from.
pub(super) fn defaults() -> Settings {
    let mut settings = Settings::default();
    for parameter in PARAMETERS {
        if let Some(default) = parameter.default {
            // A test applies each of them.
            let _ = apply(&mut settings, parameter, default);
        }
    }
    for row in SETTINGS {
        if let Some((_, value)) = AS_PGBOUNCER.iter().find(|(name, _)| *name == row.name) {
            let _ = row.apply(&mut settings, &Input::text(*value));
        }
    }
    settings
}

impl<'a> IniReader<'a> {
    pub(super) fn new(path: &'a Path) -> Self {
        let mut reader = Reader::new(path, "", &|_| None, Dialect::PgBouncer);
        reader.config.settings = defaults();
        Self { reader, given: Given::default(), has_main: false }
    }

    pub(super) fn read(mut self, items: Vec<(Place, Item)>) -> Result<Loaded, Problems> {
        self.read_items(items);
        if !self.has_main {
            let problem = Problem::in_file(self.reader.file, "main section missing from config file");
            self.reader.problems.push(problem.remedy("add a line [pgbouncer] above its settings"));
        }
        self.reader.read_auth_file();
        self.reader.read_hba();
        self.complete_databases();
        if self.reader.problems.is_empty() {
            check::check(&mut self.reader);
        }
        self.reader.config.pgbouncer = Some(self.given);
        self.reader.finish()
    }

    fn read_items(&mut self, items: Vec<(Place, Item)>) {
        let mut section = None;
        for (place, item) in items {
            match item {
                Item::Section(name) => {
                    section = self.section(&place, &name);
                    if section.is_none() {
                        // What follows would be told to be wrong once more.
                        return;
                    }
                }
                Item::Entry { key, value } => match section {
                    Some(Section::Pgbouncer) => self.setting(&place, &key, &value),
                    Some(Section::Databases) => self.database(&place, &key, &value),
                    Some(Section::Users) => self.user(&place, &key, &value),
                    Some(Section::Peers) => self.peer(&place, &key, &value),
                    None => {
                        let problem = place.problem(format!("value without section: {}", key.escape_debug()));
                        self.reader.problems.push(problem.remedy("put [pgbouncer] above it"));
                        return;
                    }
                },
            }
        }
    }

    fn section(&mut self, place: &Place, name: &str) -> Option<Section> {
        let section = match name {
            "pgbouncer" => Section::Pgbouncer,
            "databases" => Section::Databases,
            "users" => Section::Users,
            "peers" => Section::Peers,
            _ => {
                let problem = place.problem(format!("invalid section \"{}\"", name.escape_debug()));
                let remedy = "there are [pgbouncer], [databases], [users] and [peers]";
                self.reader.problems.push(problem.remedy(remedy));
                return None;
            }
        };
        if section == Section::Pgbouncer {
            if self.has_main && self.given.start_over() {
                let problem =
                    place.problem("another [pgbouncer]: what the one above sets is back at its default");
                self.reader
                    .warnings
                    .push(problem.remedy(
                        "this is what PgBouncer does; remove the line, or put the settings below it",
                    ));
                self.reader.config.settings = defaults();
                for (name, value) in self.given.0.clone() {
                    if let Some(parameter) = parameter(name) {
                        // It was applied before.
                        let _ = apply(&mut self.reader.config.settings, parameter, &value);
                    }
                }
            }
            self.has_main = true;
            self.reader.remember_line("pooler", "", &place.file, place.line);
        }
        Some(section)
    }

    fn setting(&mut self, place: &Place, key: &str, value: &str) {
        let Some(parameter) = parameter(key) else {
            let names = PARAMETERS.iter().map(|parameter| parameter.name);
            let remedy = if SETTINGS.iter().any(|row| row.name == key) {
                "it is a setting of pooler.toml; `pooler import FILE` makes one of this file".to_owned()
            } else {
                match closest(key, names) {
                    Some(name) => format!("did you mean {name}?"),
                    None => "remove it".to_owned(),
                }
            };
            let problem = place.problem(format!("unknown parameter: pgbouncer/{}", key.escape_debug()));
            self.reader.problems.push(problem.remedy(remedy));
            return;
        };
        self.reader.remember_line("pooler", parameter.name, &place.file, place.line);
        match apply(&mut self.reader.config.settings, parameter, value) {
            Ok(None) => {}
            Ok(Some(told)) => self.reader.warnings.push(place.problem(told)),
            Err(Refused { message, remedy }) => {
                self.reader.problems.push(place.problem(message).remedy(remedy));
            }
        }
        self.given.note(parameter, value);
    }

    /// The pairs of a connect string, or a problem.
    fn pairs(&mut self, place: &Place, what: &str, value: &str) -> Option<Vec<(String, String)>> {
        let pairs = pairs(value);
        if pairs.is_none() {
            let problem = place.problem(format!("syntax error in connection string of {what}"));
            self.reader.problems.push(problem.remedy(
                "write key=value, or key='value' with '' for a quote, with spaces between; no empty values",
            ));
        }
        pairs
    }

    fn database(&mut self, place: &Place, name: &str, value: &str) {
        let table = format!("databases.{name}");
        self.reader.remember_line(&table, "", &place.file, place.line);
        self.reader.check_name(&table, name, LONGEST_NAME);
        // Only `pgbouncer` is the console's in PgBouncer, but here `pooler` leads there, too.
        if crate::config::is_console(name) {
            let problem = place.problem(format!("database name \"{name}\" is reserved"));
            self.reader.problems.push(problem.remedy("it leads to the console; choose another name"));
        }
        let Some(pairs) = self.pairs(place, &format!("database \"{}\"", name.escape_debug()), value) else {
            return;
        };
        let mut database = Database { name: name.to_owned(), ..Database::default() };
        for (key, value) in pairs {
            if let Err(Refused { message, remedy }) = database_pair(&mut database, &key, value) {
                let message = format!("database \"{}\": {message}", name.escape_debug());
                self.reader.problems.push(place.problem(message).remedy(remedy));
            }
        }
        // All of them have the one port, wherever it stands in the line.
        let port = database.port;
        let hosts = std::mem::take(&mut database.hosts);
        database.set_hosts(hosts.into_iter().map(|host| NodeAddress { port, ..host }).collect());
        // In the order of pooler.toml, whatever that of the line.
        database.server_parameters.sort_by_key(|(name, _)| name.to_ascii_lowercase());
        if database.password.is_some() {
            self.reader.warn_if_others_can_read(&place.file);
        }
        self.reader.config.databases.insert(name.to_owned(), Arc::new(database));
    }

    fn user(&mut self, place: &Place, name: &str, value: &str) {
        let table = format!("users.{name}");
        self.reader.remember_line(&table, "", &place.file, place.line);
        self.reader.check_name(&table, name, LONGEST_USER);
        let Some(pairs) = self.pairs(place, &format!("user \"{}\"", name.escape_debug()), value) else {
            return;
        };
        let mut user = User { name: name.to_owned(), ..User::default() };
        for (key, value) in pairs {
            if let Err(Refused { message, remedy }) = user_pair(&mut user, &key, &value) {
                let message = format!("user \"{}\": {message}", name.escape_debug());
                self.reader.problems.push(place.problem(message).remedy(remedy));
            }
        }
        self.reader.config.users.insert(name.to_owned(), Arc::new(user));
    }

    fn peer(&mut self, place: &Place, id: &str, value: &str) {
        let Some(id) = id.parse().ok().filter(|id| *id > 0) else {
            let problem = place.problem("ids of peers must be a number larger than 0 and at most 65535");
            self.reader.problems.push(problem.remedy("write ID = host=… port=…"));
            return;
        };
        self.reader.remember_line(&format!("peers.{id}"), "", &place.file, place.line);
        let Some(pairs) = self.pairs(place, "a peer", value) else { return };
        let mut peer = Peer::new(id);
        for (key, value) in pairs {
            if let Err(Refused { message, remedy }) = peer_pair(&mut peer, &key, value) {
                self.reader.problems.push(place.problem(format!("peer {id}: {message}")).remedy(remedy));
            }
        }
        self.reader.config.peers.insert(id, peer);
    }

    /// Databases without a host are at the unix socket of the same directory.
    fn complete_databases(&mut self) {
        let directory = self.reader.config.settings.unix_socket_dir.clone();
        let Some(directory) = directory else { return };
        for database in self.reader.config.databases.values_mut().filter(|database| database.host.is_empty())
        {
            Arc::make_mut(database).host = directory.to_string_lossy().into_owned();
        }
    }
}

fn refused(message: impl Into<String>, remedy: impl Into<String>) -> Refused {
    Refused { message: message.into(), remedy: remedy.into() }
}

/// A number as atoi(3) would take it, if it is one; `None`: it is negative, which stands for "not set".
fn count(key: &str, value: &str) -> Result<Option<u32>, Refused> {
    let invalid = || refused(format!("invalid value for {key}"), "expected a whole number");
    let number = value.parse::<i64>().map_err(|_| invalid())?;
    if number < 0 {
        return Ok(None);
    }
    match u32::try_from(number) {
        Ok(number) if i32::try_from(number).is_ok() => Ok(Some(number)),
        _ => Err(invalid()),
    }
}

/// As `count`, where 0 stands for "not set", too.
fn limit(key: &str, value: &str) -> Result<Option<u32>, Refused> {
    count(key, value).map(|number| number.filter(|number| *number > 0))
}

fn seconds(number: Option<u32>) -> Option<Duration> {
    number.map(|number| Duration::from_secs(u64::from(number)))
}

fn mode(value: &str) -> Result<Option<crate::config::PoolMode>, Refused> {
    let found = POOL_MODES.parse(&Input::text(value));
    found.map(Some).map_err(|_| {
        refused(
            format!("invalid pool mode: {}", value.escape_debug()),
            format!("expected {}", POOL_MODES.form()),
        )
    })
}

fn port(value: &str) -> Result<u16, Refused> {
    let port = value.parse::<u16>().ok().filter(|port| *port > 0);
    port.ok_or_else(|| refused("invalid port", "expected a whole number from 1 to 65535"))
}

fn peer_pair(peer: &mut Peer, key: &str, value: String) -> Result<(), Refused> {
    match key {
        "host" => peer.host = value,
        "port" => peer.port = port(&value)?,
        "pool_size" => peer.pool_size = count(key, &value)?,
        _ => {
            let message = format!("unrecognized connection parameter: {}", key.escape_debug());
            return Err(refused(message, meant(key, &["host", "port", "pool_size"])));
        }
    }
    Ok(())
}

fn database_pair(database: &mut Database, key: &str, value: String) -> Result<(), Refused> {
    let mut parameter = |name: &str, value: String| {
        database.server_parameters.retain(|(known, _)| known != name);
        database.server_parameters.push((name.to_owned(), value));
    };
    match key {
        "dbname" => database.dbname = Some(value),
        "host" => {
            let hosts: Vec<_> =
                value.split(',').map(|host| NodeAddress::new(host.trim(), database.port)).collect();
            if hosts.iter().any(|host| host.host.is_empty()) || hosts.len() > MOST_NODES {
                let known = format!("write 1 to {MOST_NODES} hosts, with one comma between two");
                return Err(refused("invalid list of hosts", known));
            }
            database.hosts = hosts;
        }
        "port" => database.port = port(&value)?,
        "user" => database.user = Some(value),
        "password" => database.password = Some(Secret(value)),
        "auth_user" => database.auth_user = Some(value),
        "auth_query" => database.auth_query = Some(value),
        "auth_dbname" => database.auth_dbname = Some(value),
        "client_encoding" => parameter("client_encoding", value),
        "datestyle" => parameter("DateStyle", value),
        "timezone" => parameter("TimeZone", value),
        "application_name" => parameter("application_name", value),
        "pool_size" => database.pool_size = count(key, &value)?,
        "min_pool_size" => database.min_pool_size = count(key, &value)?,
        "reserve_pool_size" | "reserve_pool" => database.reserve_pool_size = count(key, &value)?,
        "max_db_connections" => database.max_db_connections = limit(key, &value)?,
        "max_db_client_connections" => database.max_db_client_connections = limit(key, &value)?,
        "pool_mode" => database.pool_mode = mode(&value)?,
        "connect_query" => database.connect_query = Some(value),
        "query_wait_timeout" => database.query_wait_timeout = seconds(count(key, &value)?),
        "server_lifetime" => database.server_lifetime = seconds(limit(key, &value)?),
        "load_balance_hosts" => {
            let found = crate::config::value_of(&value, LoadBalanceHosts::WORDS);
            let expected =
                || refused("invalid value for load_balance_hosts", "expected disable or round-robin");
            database.load_balance_hosts = found.ok_or_else(expected)?;
        }
        _ => {
            let message = format!("unrecognized connection parameter: {}", key.escape_debug());
            return Err(refused(message, meant(key, DATABASE_KEYS)));
        }
    }
    Ok(())
}

const DATABASE_KEYS: &[&str] = &[
    "dbname",
    "host",
    "port",
    "user",
    "password",
    "auth_user",
    "auth_dbname",
    "auth_query",
    "client_encoding",
    "datestyle",
    "timezone",
    "application_name",
    "pool_size",
    "min_pool_size",
    "reserve_pool_size",
    "max_db_connections",
    "max_db_client_connections",
    "pool_mode",
    "connect_query",
    "query_wait_timeout",
    "server_lifetime",
    "load_balance_hosts",
];
const USER_KEYS: &[&str] = &[
    "pool_mode",
    "pool_size",
    "reserve_pool_size",
    "max_user_connections",
    "max_user_client_connections",
    "query_timeout",
    "query_wait_timeout",
    "idle_transaction_timeout",
    "transaction_timeout",
    "client_idle_timeout",
];

fn meant(key: &str, names: &[&'static str]) -> String {
    match closest(key, names.iter().copied()) {
        Some(name) => format!("did you mean {name}?"),
        None => format!("there are {}", names.join(", ")),
    }
}

fn user_pair(user: &mut User, key: &str, value: &str) -> Result<(), Refused> {
    match key {
        "pool_mode" => user.pool_mode = mode(value)?,
        "pool_size" => user.pool_size = count(key, value)?,
        "reserve_pool_size" => user.reserve_pool_size = count(key, value)?,
        "max_user_connections" => user.max_user_connections = limit(key, value)?,
        "max_user_client_connections" => user.max_user_client_connections = limit(key, value)?,
        "query_timeout" => user.query_timeout = seconds(limit(key, value)?),
        "query_wait_timeout" => user.query_wait_timeout = seconds(count(key, value)?),
        "idle_transaction_timeout" => user.idle_transaction_timeout = seconds(limit(key, value)?),
        "transaction_timeout" => user.transaction_timeout = seconds(limit(key, value)?),
        "client_idle_timeout" => user.client_idle_timeout = seconds(limit(key, value)?),
        _ => {
            let message = format!("unrecognized user parameter: {}", key.escape_debug());
            return Err(refused(message, meant(key, USER_KEYS)));
        }
    }
    Ok(())
}
