//! The SHOW commands: columns, types and order as in PgBouncer 1.25.

mod connections;
mod listeners;
mod nodes;
mod peers;
mod pins;
mod pools;
mod queries;
mod settings;
mod stats;

use std::net::SocketAddr;

use super::result::{
    Columns,
    Kind::{Int4, Int8, Text},
    Row,
};
use crate::{admin::commands::Commands, config::PoolMode, server::KnownName, worker::report::ReportKind};

pub(super) use nodes::{WHY, why};
pub(super) use queries::top_queries;

/// Name under which the console shows itself among databases, pools and users, whatever it was called by.
pub(crate) const CONSOLE: &str = "pgbouncer";

/// What can be shown, and its columns; HELP has none.
static SHOWS: &[(&str, Columns)] = &[
    ("HELP", &[]),
    ("VERSION", &[("version", Text)]),
    ("POOLS", pools::POOLS),
    ("CLIENTS", connections::CLIENTS),
    ("SERVERS", connections::SERVERS),
    ("SOCKETS", connections::SOCKETS),
    ("ACTIVE_SOCKETS", connections::SOCKETS),
    // What there is nothing of here: programs ask for it all the same.
    ("MEM", &[("name", Text), ("size", Int4), ("used", Int4), ("free", Int4), ("memtotal", Int4)]),
    ("DNS_HOSTS", &[("hostname", Text), ("ttl", Int8), ("addrs", Text)]),
    ("DNS_ZONES", &[("zonename", Text), ("serial", Int8), ("count", Int4)]),
    ("PEERS", peers::PEERS),
    ("PEER_POOLS", peers::PEER_POOLS),
    ("DATABASES", pools::DATABASES),
    ("USERS", pools::USERS),
    ("STATS", stats::STATS),
    ("STATS_TOTALS", stats::STATS_TOTALS),
    ("STATS_AVERAGES", stats::STATS_AVERAGES),
    ("TOTALS", stats::TOTALS),
    ("LISTENERS", listeners::LISTENERS),
    ("NODES", nodes::NODES),
    ("ROUTES", nodes::ROUTES),
    ("PINS", pins::PINS),
    ("QUERIES", queries::QUERIES),
    ("AUDIT", pins::AUDIT),
    ("CONFIG", settings::CONFIG),
    ("LISTS", &[("list", Text), ("items", Int8)]),
    ("STATE", &[("key", Text), ("value", Text)]),
    // What drivers ask every server for.
    ("CLIENT_ENCODING", &[("client_encoding", Text)]),
    ("DATESTYLE", &[("DateStyle", Text)]),
    ("DEFAULT_TRANSACTION_ISOLATION", &[("default_transaction_isolation", Text)]),
    ("EXTRA_FLOAT_DIGITS", &[("extra_float_digits", Text)]),
    ("STANDARD_CONFORMING_STRINGS", &[("standard_conforming_strings", Text)]),
    ("TIMEZONE", &[("TimeZone", Text)]),
];

/// Columns of `SHOW what` (upper case); `None` if there is no such thing.
pub(super) fn columns(what: &str) -> Option<Columns> {
    SHOWS.iter().find(|(name, _)| *name == what).map(|(_, columns)| *columns)
}

/// The rows of `SHOW what`.
pub(super) async fn rows(commands: &Commands, what: &str) -> Vec<Row> {
    match what {
        "VERSION" if commands.process.config().pgbouncer.is_some() => {
            one(crate::cli::pgbouncer::VERSION.to_owned())
        }
        "VERSION" => one(format!("pooler {}", env!("CARGO_PKG_VERSION"))),
        "POOLS" => pools::pools(commands).await,
        "CLIENTS" => connections::clients(commands).await,
        "SERVERS" => connections::servers(commands).await,
        "SOCKETS" => connections::sockets(commands, false).await,
        "ACTIVE_SOCKETS" => connections::sockets(commands, true).await,
        "PEERS" => peers::peers(commands),
        "PEER_POOLS" => peers::peer_pools(commands),
        "DATABASES" => pools::databases(commands),
        "USERS" => pools::users(commands),
        "STATS" => stats::stats(commands),
        "STATS_TOTALS" => stats::totals_by_database(commands),
        "STATS_AVERAGES" => stats::averages_by_database(commands),
        "TOTALS" => stats::totals(commands),
        "LISTENERS" => listeners::listeners(commands),
        "NODES" => nodes::nodes(commands),
        "ROUTES" => nodes::routes(commands),
        "PINS" => pins::pins(commands).await,
        "QUERIES" => queries::queries(commands).await,
        "AUDIT" => pins::audit(commands),
        "CONFIG" => settings::config(commands),
        "LISTS" => lists(commands).await,
        "STATE" => state(commands),
        "DNS_HOSTS" => dns_hosts(commands),
        "CLIENT_ENCODING" => one("UTF-8"),
        "DATESTYLE" => one("ISO"),
        "DEFAULT_TRANSACTION_ISOLATION" => one("read committed"),
        "EXTRA_FLOAT_DIGITS" => one("1"),
        "STANDARD_CONFORMING_STRINGS" => one("on"),
        "TIMEZONE" => one("GMT"),
        _ => Vec::new(),
    }
}

fn text(value: impl ToString) -> Option<String> {
    Some(value.to_string())
}

fn one(value: impl ToString) -> Vec<Row> {
    vec![vec![text(value)]]
}

fn mode(mode: PoolMode) -> &'static str {
    match mode {
        PoolMode::Session => "session",
        PoolMode::Transaction => "transaction",
        PoolMode::Statement => "statement",
    }
}

/// The console counts as a database with a pool, as in PgBouncer. What is "free" there are spare objects in its
/// memory: here there are none.
async fn lists(commands: &Commands) -> Vec<Row> {
    let live = commands.process.config();
    let servers = commands.report(ReportKind::Servers).await.servers.len();
    let clients = commands.report(ReportKind::Clients).await.clients.len();
    let connections = usize::try_from(commands.process.logins.limits.clients()).unwrap_or(0);
    let items: [(&str, usize); 14] = [
        ("databases", pools::shown_databases(commands).len() + 1),
        ("users", live.users.len()),
        ("peers", live.peers.len()),
        ("pools", commands.process.pools.all().len() + 1),
        ("peer_pools", commands.process.peers.pools(&live).len()),
        ("free_clients", 0),
        ("used_clients", clients),
        ("login_clients", connections.saturating_sub(clients)),
        ("free_servers", 0),
        ("used_servers", servers),
        ("dns_names", commands.process.pools.names.known().len()),
        ("dns_zones", 0),
        ("dns_queries", 0),
        ("dns_pending", 0),
    ];
    items.iter().map(|(list, n)| vec![text(list), text(n)]).collect()
}

/// Addresses with port 0, as in PgBouncer.
fn dns_hosts(commands: &Commands) -> Vec<Row> {
    let row = |known: KnownName| {
        let addresses = known.addresses.iter().map(|ip| SocketAddr::new(*ip, 0).to_string());
        vec![text(known.name), text(known.ttl.as_secs()), text(addresses.collect::<Vec<_>>().join(","))]
    };
    commands.process.pools.names.known().into_iter().map(row).collect()
}

fn state(commands: &Commands) -> Vec<Row> {
    let paused = commands.process.pools.all_paused();
    let suspended = commands.is_suspended();
    let word = |yes| text(if yes { "yes" } else { "no" });
    vec![
        vec![text("active"), word(!paused && !suspended)],
        vec![text("paused"), word(paused)],
        vec![text("suspended"), word(suspended)],
    ]
}
