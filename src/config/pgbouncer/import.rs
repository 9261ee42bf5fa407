//! Writes a configuration as a pooler.toml.
//!
//! What pooler's own default is, is not written; what could be better is said in a comment above its line.

use std::fmt::Write as _;

use super::parameters::{Meaning, PARAMETERS};
use crate::config::{
    Config, Database, LoadBalanceHosts, Peer, Settings, User,
    entries::{DATABASE_KEYS, DatabaseEntry, PEER_KEYS, PeerEntry, USER_KEYS, UserEntry},
    literal::{key, quoted, without_references},
    settings::SETTINGS,
    table::Row,
    value::HostName,
};

/// Setting, its literal, and what to think of instead.
const BETTER: &[(&str, &str, &str)] = &[
    (
        "pool_mode",
        "\"session\"",
        "\"transaction\" shares servers among many more clients: SET, prepared statements, temporary tables, LISTEN and the like work there, too.",
    ),
    ("pool_mode", "\"statement\"", "\"transaction\" shares servers as well, and allows transactions."),
    (
        "max_client_conn",
        "100",
        "An idle client costs about a kilobyte: the limit may be as high as 10000, which is the default here.",
    ),
    ("listen_backlog", "128", "Too few when a thousand clients reconnect at once; 1024 is the default here."),
    ("auth_type", "\"md5\"", "\"scram-sha-256\" unless passwords are stored as md5 hashes."),
    ("auth_type", "\"plain\"", "\"scram-sha-256\" sends no passwords."),
    (
        "client_write_timeout",
        "0",
        "PgBouncer waits for ever for clients that take no more bytes; \"1min\" is the default here.",
    ),
    (
        "max_packet_size",
        "1073741823",
        "\"16MB\", the default here, bounds the memory that one client can take by one message.",
    ),
    ("log_format", "\"pgbouncer\"", "\"text\" or \"json\" say more."),
];

/// The pooler.toml that is read into the same configuration.
pub(super) fn toml(config: &Config) -> String {
    let path = config.path.as_deref().map(|path| path.display().to_string()).unwrap_or_default();
    let mut out = format!("# Made of {} by `pooler import`.\n\n[pooler]\n", one_line(&path));
    let defaults = Settings::default();
    for row in SETTINGS {
        let (Some(literal), default) = ((row.literal)(&config.settings), (row.literal)(&defaults)) else {
            continue;
        };
        if Some(&literal) == default.as_ref() {
            continue;
        }
        for (_, _, better) in BETTER.iter().filter(|(name, value, _)| *name == row.name && *value == literal)
        {
            let _ = writeln!(out, "# {better}");
        }
        let _ = writeln!(out, "{} = {}", row.name, without_references(&literal));
    }
    out.push_str(&without_effect(config));
    for database in config.databases.values() {
        let _ = write!(out, "\n[databases.{}]\n", key(&database.name));
        let password = database.password.as_ref().map(|password| password.0.as_str());
        entry(&mut out, DATABASE_KEYS, &database_entry(database), password);
    }
    for user in config.users.values().filter(|user| has_settings(user) || user.password.is_none()) {
        let _ = write!(out, "\n[users.{}]\n", key(&user.name));
        entry(
            &mut out,
            USER_KEYS,
            &UserEntry { user: User { password: None, ..User::clone(user) }, ..UserEntry::default() },
            None,
        );
    }
    for peer in config.peers.values() {
        let _ = write!(out, "\n[peers.{}]\n", peer.id);
        let port = (peer.port != Peer::new(peer.id).port).then_some(peer.port);
        let written = PeerEntry { host: Some(peer.host.clone()), port, pool_size: peer.pool_size };
        entry(&mut out, PEER_KEYS, &written, None);
    }
    out
}

fn without_effect(config: &Config) -> String {
    let mut out = String::new();
    let Some(given) = &config.pgbouncer else { return out };
    for parameter in PARAMETERS {
        if let Meaning::Unused(reason) = parameter.meaning
            && let Some(value) =
                given.0.get(parameter.name).filter(|value| Some(value.as_str()) != parameter.default)
        {
            let _ = writeln!(out, "# Not here: {} = {} ({reason}).", parameter.name, one_line(value));
        }
    }
    out
}

fn entry<S>(out: &mut String, rows: &[Row<S>], entry: &S, password: Option<&str>) {
    for row in rows {
        let literal = match (row.name, password) {
            ("password", Some(password)) => {
                out.push_str(
                    "# Better in a file of its own (password_file), or in the environment (\"${NAME}\").\n",
                );
                Some(quoted(password))
            }
            _ => (row.literal)(entry),
        };
        if let Some(literal) = literal {
            let _ = writeln!(out, "{} = {}", row.name, without_references(&literal));
        }
    }
}

fn database_entry(database: &Database) -> DatabaseEntry {
    let parameter = |name: &str| {
        let found = database.server_parameters.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.clone())
    };
    let places = database.places();
    let balance = database.load_balance_hosts;
    let hosts = places.into_iter().map(|place| HostName { host: place.host, port: None });
    DatabaseEntry {
        host: Some(hosts.collect()),
        load_balance_hosts: (balance != LoadBalanceHosts::default()).then_some(balance),
        port: (database.port != Database::default().port).then_some(database.port),
        application_name: parameter("application_name"),
        client_encoding: parameter("client_encoding"),
        datestyle: parameter("DateStyle"),
        timezone: parameter("TimeZone"),
        database: Database { password: None, ..database.clone() },
        ..DatabaseEntry::default()
    }
}

/// Whether it is more than a line of auth_file.
fn has_settings(user: &User) -> bool {
    *user != User { name: user.name.clone(), password: user.password.clone(), ..User::default() }
}

fn one_line(text: &str) -> String {
    text.escape_debug().to_string()
}
