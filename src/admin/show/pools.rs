//! SHOW POOLS, DATABASES and USERS.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::Ordering},
};

use super::{
    super::result::{
        Columns,
        Kind::{Int4, Text},
        Row,
    },
    CONSOLE, mode, text,
};
use crate::{
    admin::commands::Commands,
    config::{Database, LoadBalanceHosts, word_of},
    pool::PoolKey,
    worker::report::{PoolRow, ReportKind},
};

pub(super) const POOLS: Columns = &[
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
];

pub(super) const DATABASES: Columns = &[
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
    // What reserve_pool_size was called up to 1.23, for tools of that time.
    ("reserve_pool", Int4),
];

pub(super) const USERS: Columns = &[
    ("name", Text),
    ("pool_size", Text),
    ("reserve_pool_size", Text),
    ("pool_mode", Text),
    ("max_user_connections", Int4),
    ("current_connections", Int4),
    ("max_user_client_connections", Int4),
    ("current_client_connections", Int4),
];

/// Sorted by database and user; the console is a pool in mode `statement`, as in PgBouncer.
pub(super) async fn pools(commands: &Commands) -> Vec<Row> {
    let mut report = commands.report(ReportKind::Pools).await;
    // What a reload has removed is shown as long as somebody is left in it.
    let known: BTreeSet<PoolKey> = commands.process.pools.all().iter().map(|pool| pool.key.clone()).collect();
    let key = |row: &PoolRow| PoolKey {
        database: row.database.clone(),
        user: row.user.clone(),
        node: row.node.clone(),
    };
    report.pools.retain(|row| row.is_used() || known.contains(&key(row)));
    report.pools.push(PoolRow {
        database: CONSOLE.to_owned(),
        user: CONSOLE.to_owned(),
        mode: crate::config::PoolMode::Statement,
        cl_active: report.consoles,
        ..PoolRow::default()
    });
    let mut sums: BTreeMap<(String, String), PoolRow> = BTreeMap::new();
    for row in report.pools {
        match sums.get_mut(&(row.database.clone(), row.user.clone())) {
            Some(sum) => sum.add(&row),
            None => {
                sums.insert((row.database.clone(), row.user.clone()), row);
            }
        }
    }
    let live = commands.process.config();
    let row =
        |pool: PoolRow| pool_row(&pool, live.resolve_database(&pool.database).as_deref().and_then(balance));
    sums.into_values().map(row).collect()
}

/// How its hosts are balanced, if there are several.
fn balance(database: &Database) -> Option<String> {
    let word = word_of(&database.load_balance_hosts, LoadBalanceHosts::WORDS);
    word.filter(|_| !database.hosts.is_empty()).map(str::to_owned)
}

fn pool_row(p: &PoolRow, balance: Option<String>) -> Row {
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
    row.extend([text(mode(p.mode)), balance]);
    row
}

/// The databases of the configuration, and those that `*` has made; not `*` itself.
pub(super) fn shown_databases(commands: &Commands) -> Vec<Arc<Database>> {
    let live = commands.process.config();
    let mut shown = live.databases.clone();
    shown.remove("*");
    for pool in commands.process.pools.all() {
        if !shown.contains_key(&pool.key.database)
            && let Some(database) = live.resolve_database(&pool.key.database)
        {
            shown.insert(pool.key.database.clone(), database);
        }
    }
    shown.into_values().collect()
}

pub(super) fn databases(commands: &Commands) -> Vec<Row> {
    let mut rows: Vec<Row> = shown_databases(commands).iter().map(|d| database_row(commands, d)).collect();
    rows.push(console_row(commands));
    rows.sort();
    rows
}

fn database_row(commands: &Commands, d: &Database) -> Row {
    let process = &commands.process;
    let live = process.config();
    let global = &live.settings;
    let state = process.pools.database(&d.name);
    vec![
        text(&d.name),
        text(d.host_text()),
        text(d.port),
        text(d.server_dbname()),
        d.user.clone(),
        text(d.pool_size.unwrap_or(global.default_pool_size)),
        text(d.min_pool_size.unwrap_or(global.min_pool_size)),
        text(d.reserve_pool_size.unwrap_or(global.reserve_pool_size)),
        text(live.server_lifetime(d).as_secs()),
        d.pool_mode.map(|m| mode(m).to_owned()),
        balance(d),
        text(live.max_db_connections(d).unwrap_or(0)),
        text(state.servers.used()),
        text(live.max_db_client_connections(d).unwrap_or(0)),
        text(process.logins.limits.of_database(&d.name)),
        text(u8::from(state.paused.load(Ordering::Acquire))),
        text(u8::from(state.disabled.load(Ordering::Acquire))),
        text(d.reserve_pool_size.unwrap_or(global.reserve_pool_size)),
    ]
}

fn console_row(commands: &Commands) -> Row {
    let live = commands.process.config();
    let limits = &commands.process.logins.limits;
    let clients = limits.of_database("pooler") + limits.of_database("pgbouncer");
    let zero = || text(0);
    vec![
        text(CONSOLE),
        None,
        text(live.settings.listen_port),
        text(CONSOLE),
        text(CONSOLE),
        text(2),
        zero(),
        zero(),
        text(live.settings.server_lifetime.as_secs()),
        text("statement"),
        None,
        zero(),
        zero(),
        zero(),
        text(clients),
        zero(),
        zero(),
        zero(),
    ]
}

pub(super) fn users(commands: &Commands) -> Vec<Row> {
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
    rows.collect()
}

impl PoolRow {
    /// Adds the same pool's row of another worker.
    pub(in crate::admin) fn add(&mut self, other: &Self) {
        self.cl_active += other.cl_active;
        self.cl_idle += other.cl_idle;
        self.cl_waiting += other.cl_waiting;
        self.cl_active_cancel_req += other.cl_active_cancel_req;
        self.sv_active += other.sv_active;
        self.sv_active_cancel += other.sv_active_cancel;
        self.sv_being_canceled += other.sv_being_canceled;
        self.sv_idle += other.sv_idle;
        self.sv_used += other.sv_used;
        self.sv_tested += other.sv_tested;
        self.sv_login += other.sv_login;
        for (sum, more) in self.pinned.iter_mut().zip(other.pinned) {
            *sum += more;
        }
        self.maxwait = self.maxwait.max(other.maxwait);
    }
}
