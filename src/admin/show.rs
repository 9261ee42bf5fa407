//! The SHOW commands: columns, types and order as in PgBouncer 1.25.

use std::{collections::BTreeMap, time::SystemTime};

use super::result::{
    Kind::{Int4, Int8, Numeric, Text},
    Table,
};
use crate::{
    app::commands::Commands,
    config::{PeerAddr, PoolMode},
    pool::stats::Totals,
    worker::report::{PoolRow, ReportKind},
};

type Row = Vec<Option<String>>;

fn text(value: impl ToString) -> Option<String> {
    Some(value.to_string())
}

fn mode(mode: PoolMode) -> &'static str {
    match mode {
        PoolMode::Session => "session",
        PoolMode::Transaction => "transaction",
        PoolMode::Statement => "statement",
    }
}

/// Unix microseconds as `YYYY-MM-DD HH:MM:SS UTC`.
fn time(micros: u64) -> Option<String> {
    let seconds = micros / 1_000_000;
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days to civil date: Howard Hinnant, "chrono-compatible low-level date algorithms".
    let z = days + 719_468;
    let era = z / 146_097;
    let doe = z % 146_097;
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let (day, month) = (doy - (153 * mp + 2) / 5 + 1, if mp < 10 { mp + 3 } else { mp - 9 });
    let year = yoe + era * 400 + u64::from(month <= 2);
    let (h, m, s) = (rest / 3_600, rest / 60 % 60, rest % 60);
    text(format!("{year:04}-{month:02}-{day:02} {h:02}:{m:02}:{s:02} UTC"))
}

/// The table behind `SHOW what`; `None` if there is no such thing.
pub(super) async fn table(commands: &Commands, what: &str) -> Option<Table> {
    Some(match what.to_ascii_uppercase().as_str() {
        "VERSION" => Table {
            columns: &[("version", Text)],
            rows: vec![vec![text(format!("pooler {}", env!("CARGO_PKG_VERSION")))]],
        },
        "POOLS" => pools(commands).await,
        "CLIENTS" => clients(commands).await,
        "SERVERS" => servers(commands).await,
        "DATABASES" => databases(commands),
        "USERS" => users(commands),
        "STATS" => stats(commands),
        "CONFIG" => config(commands),
        "LISTS" => lists(commands).await,
        "STATE" => state(commands),
        _ => return None,
    })
}

async fn pools(commands: &Commands) -> Table {
    let mut sums: BTreeMap<(String, String), PoolRow> = BTreeMap::new();
    for row in commands.report(ReportKind::Pools).await.pools {
        match sums.get_mut(&(row.database.clone(), row.user.clone())) {
            Some(sum) => sum.add(&row),
            None => {
                sums.insert((row.database.clone(), row.user.clone()), row);
            }
        }
    }
    let rows = sums.into_values().map(|p| {
        let counts = [
            p.cl_active,
            p.cl_waiting,
            p.cl_active_cancel_req,
            0,
            p.sv_active,
            p.sv_active_cancel,
            p.sv_being_canceled,
            p.sv_idle,
            p.sv_used,
            p.sv_tested,
            p.sv_login,
            p.maxwait / 1_000_000,
            p.maxwait % 1_000_000,
        ];
        let mut row = vec![text(&p.database), text(&p.user)];
        row.extend(counts.map(text));
        row.extend([text(mode(p.mode)), None]);
        row
    });
    Table {
        columns: &[
            ("database", Text),
            ("user", Text),
            ("cl_active", Int4),
            ("cl_waiting", Int4),
            ("cl_active_cancel_req", Int4),
            ("cl_waiting_cancel_req", Int4),
            ("sv_active", Int4),
            ("sv_active_cancel", Int4),
            ("sv_being_canceled", Int4),
            ("sv_idle", Int4),
            ("sv_used", Int4),
            ("sv_tested", Int4),
            ("sv_login", Int4),
            ("maxwait", Int4),
            ("maxwait_us", Int4),
            ("pool_mode", Text),
            ("load_balance_hosts", Text),
        ],
        rows: rows.collect(),
    }
}

const CONNECTION: &[(&str, super::result::Kind)] = &[
    ("type", Text),
    ("user", Text),
    ("database", Text),
    ("replication", Text),
    ("state", Text),
    ("addr", Text),
    ("port", Int4),
    ("local_addr", Text),
    ("local_port", Int4),
    ("connect_time", Text),
    ("request_time", Text),
    ("wait", Int4),
    ("wait_us", Int4),
    ("close_needed", Int4),
    ("ptr", Text),
    ("link", Text),
    ("remote_pid", Int4),
    ("tls", Text),
    ("application_name", Text),
    ("prepared_statements", Int4),
    ("id", Int4),
];

fn pointer(id: u64) -> Option<String> {
    text(format!("0x{id:x}"))
}

async fn clients(commands: &Commands) -> Table {
    let rows = commands.report(ReportKind::Clients).await.clients.into_iter().map(|c| -> Row {
        let (addr, port, local, local_port, pid) = match &c.peer {
            PeerAddr::Tcp { peer, local } => {
                (peer.ip().to_string(), peer.port(), local.ip().to_string(), local.port(), 0)
            }
            PeerAddr::Unix { pid, .. } => ("unix".to_owned(), 0, "unix".to_owned(), 0, *pid),
        };
        vec![
            text("C"),
            text(c.user),
            text(c.database),
            text("none"),
            text(c.state),
            text(addr),
            text(port),
            text(local),
            text(local_port),
            time(c.connected_at),
            time(c.request_at),
            text(c.wait / 1_000_000),
            text(c.wait % 1_000_000),
            text(0),
            pointer(c.id),
            c.link.map_or(text(""), pointer),
            text(pid),
            text(c.tls),
            text(c.application_name),
            text(c.prepared_statements),
            text(c.id),
        ]
    });
    Table { columns: CONNECTION, rows: rows.collect() }
}

async fn servers(commands: &Commands) -> Table {
    let rows = commands.report(ReportKind::Servers).await.servers.into_iter().map(|s| -> Row {
        vec![
            text("S"),
            text(s.user),
            text(s.database),
            text("none"),
            text(s.state),
            text(s.peer),
            text(s.port),
            text(s.local),
            text(s.local_port),
            time(s.connected_at),
            time(s.request_at),
            text(0),
            text(0),
            text(u8::from(s.close_needed)),
            pointer(s.id),
            s.link.map_or(text(""), pointer),
            text(s.remote_pid),
            text(s.tls),
            text(s.application_name),
            text(s.prepared_statements),
            text(s.id),
        ]
    });
    Table { columns: CONNECTION, rows: rows.collect() }
}

fn databases(commands: &Commands) -> Table {
    let process = &commands.process;
    let live = process.config();
    let rows = live.databases.values().map(|d| -> Row {
        let state = process.pools.database(&d.name);
        let paused = state.paused.load(std::sync::atomic::Ordering::Acquire);
        let global = &live.settings;
        vec![
            text(&d.name),
            text(&d.host),
            text(d.port),
            text(d.server_dbname()),
            d.user.clone(),
            text(d.pool_size.unwrap_or(global.default_pool_size)),
            text(d.min_pool_size.unwrap_or(global.min_pool_size)),
            text(d.reserve_pool_size.unwrap_or(global.reserve_pool_size)),
            text(live.server_lifetime(d).as_secs()),
            d.pool_mode.map(|m| mode(m).to_owned()),
            None,
            text(live.max_db_connections(d).unwrap_or(0)),
            text(state.servers.used()),
            text(live.max_db_client_connections(d).unwrap_or(0)),
            text(process.logins.limits.of_database(&d.name)),
            text(u8::from(paused)),
            text(0),
        ]
    });
    Table {
        columns: &[
            ("name", Text),
            ("host", Text),
            ("port", Int4),
            ("database", Text),
            ("force_user", Text),
            ("pool_size", Int4),
            ("min_pool_size", Int4),
            ("reserve_pool_size", Int4),
            ("server_lifetime", Int4),
            ("pool_mode", Text),
            ("load_balance_hosts", Text),
            ("max_connections", Int4),
            ("current_connections", Int4),
            ("max_client_connections", Int4),
            ("current_client_connections", Int4),
            ("paused", Int4),
            ("disabled", Int4),
        ],
        rows: rows.collect(),
    }
}

fn users(commands: &Commands) -> Table {
    let process = &commands.process;
    let live = process.config();
    let padded = |size: Option<u32>| size.map_or(text(""), |n| text(format!("{n:9}")));
    let rows = live.users.values().map(|u| -> Row {
        vec![
            text(&u.name),
            padded(u.pool_size),
            padded(u.reserve_pool_size),
            u.pool_mode.map(|m| mode(m).to_owned()),
            text(live.max_user_connections(u).unwrap_or(0)),
            text(process.pools.user_servers(&u.name)),
            text(live.max_user_client_connections(u).unwrap_or(0)),
            text(process.logins.limits.of_user(&u.name)),
        ]
    });
    Table {
        columns: &[
            ("name", Text),
            ("pool_size", Text),
            ("reserve_pool_size", Text),
            ("pool_mode", Text),
            ("max_user_connections", Int4),
            ("current_connections", Int4),
            ("max_user_client_connections", Int4),
            ("current_client_connections", Int4),
        ],
        rows: rows.collect(),
    }
}

/// Averages are over the life of the process so far.
fn stats(commands: &Commands) -> Table {
    let mut sums: BTreeMap<String, Totals> = BTreeMap::new();
    for pool in commands.process.pools.all() {
        let sum = sums.entry(pool.key.database.clone()).or_default();
        pool.shards.iter().for_each(|shard| sum.add(&shard.stats));
    }
    let up = SystemTime::now().duration_since(commands.process.started).unwrap_or_default().as_secs().max(1);
    let rows = sums.into_iter().map(|(database, t)| -> Row {
        let each = |time: u64, n: u64| time / n.max(1);
        let counts = [t.server_assignments, t.transactions, t.queries, t.received, t.sent];
        let more = [t.client_parses, t.server_parses, t.binds, t.logins];
        let mut row = vec![text(database)];
        row.extend(counts.map(text));
        row.extend([t.transaction_time, t.query_time, t.wait_time].map(text));
        row.extend(more.map(text));
        row.extend(counts.map(|n| text(n / up)));
        row.extend([
            text(each(t.transaction_time, t.transactions)),
            text(each(t.query_time, t.queries)),
            text(each(t.wait_time, t.server_assignments)),
        ]);
        row.extend(more.map(|n| text(n / up)));
        row
    });
    Table {
        columns: &[
            ("database", Text),
            ("total_server_assignment_count", Numeric),
            ("total_xact_count", Numeric),
            ("total_query_count", Numeric),
            ("total_received", Numeric),
            ("total_sent", Numeric),
            ("total_xact_time", Numeric),
            ("total_query_time", Numeric),
            ("total_wait_time", Numeric),
            ("total_client_parse_count", Numeric),
            ("total_server_parse_count", Numeric),
            ("total_bind_count", Numeric),
            ("total_client_login_count", Numeric),
            ("avg_server_assignment_count", Numeric),
            ("avg_xact_count", Numeric),
            ("avg_query_count", Numeric),
            ("avg_recv", Numeric),
            ("avg_sent", Numeric),
            ("avg_xact_time", Numeric),
            ("avg_query_time", Numeric),
            ("avg_wait_time", Numeric),
            ("avg_client_parse_count", Numeric),
            ("avg_server_parse_count", Numeric),
            ("avg_bind_count", Numeric),
            ("avg_client_login_count", Numeric),
        ],
        rows: rows.collect(),
    }
}

fn config(commands: &Commands) -> Table {
    let rows = commands.process.config().settings.rows().into_iter().map(|s| {
        let changeable = if s.changeable { "yes" } else { "no" };
        vec![text(s.key), s.value, s.default, text(changeable)]
    });
    Table {
        columns: &[("key", Text), ("value", Text), ("default", Text), ("changeable", Text)],
        rows: rows.collect(),
    }
}

async fn lists(commands: &Commands) -> Table {
    let live = commands.process.config();
    let servers = commands.report(ReportKind::Servers).await.servers;
    let idle = servers.iter().filter(|s| s.state == "idle").count();
    let clients = commands.report(ReportKind::Clients).await.clients.len();
    let items: [(&str, usize); 14] = [
        ("databases", live.databases.len()),
        ("users", live.users.len()),
        ("peers", 0),
        ("pools", commands.process.pools.all().len()),
        ("peer_pools", 0),
        ("free_clients", 0),
        ("used_clients", clients),
        ("login_clients", 0),
        ("free_servers", idle),
        ("used_servers", servers.len() - idle),
        ("dns_names", 0),
        ("dns_zones", 0),
        ("dns_queries", 0),
        ("dns_pending", 0),
    ];
    let rows = items.iter().map(|(list, n)| vec![text(list), text(n)]);
    Table { columns: &[("list", Text), ("items", Int8)], rows: rows.collect() }
}

fn state(commands: &Commands) -> Table {
    let paused = commands.process.pools.all_paused();
    let word = |yes| text(if yes { "yes" } else { "no" });
    let rows = vec![
        vec![text("active"), word(!paused)],
        vec![text("paused"), word(paused)],
        vec![text("suspended"), word(false)],
    ];
    Table { columns: &[("key", Text), ("value", Text)], rows }
}

impl PoolRow {
    /// Adds the same pool's row of another worker.
    fn add(&mut self, other: &Self) {
        self.cl_active += other.cl_active;
        self.cl_waiting += other.cl_waiting;
        self.cl_active_cancel_req += other.cl_active_cancel_req;
        self.sv_active += other.sv_active;
        self.sv_active_cancel += other.sv_active_cancel;
        self.sv_being_canceled += other.sv_being_canceled;
        self.sv_idle += other.sv_idle;
        self.sv_used += other.sv_used;
        self.sv_tested += other.sv_tested;
        self.sv_login += other.sv_login;
        self.maxwait = self.maxwait.max(other.maxwait);
    }
}
