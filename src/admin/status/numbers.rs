//! What the page shows, gathered at one moment.

use std::{cmp::Reverse, collections::BTreeMap, sync::PoisonError};

use serde::Serialize;

use super::history::Point;
use crate::{
    admin::{
        commands::Commands,
        metrics::gather::{NodeSample, PoolSample, Snapshot},
        show::top_queries,
    },
    pool::{PoolKey, histogram::Distribution},
    session::bonds::Bond,
};

/// Of each kind of lines the page shows so many at most.
const MOST_POOLS: usize = 200;
const MOST_NODES: usize = 200;
const MOST_EVENTS: usize = 60;
const MOST_STATEMENTS: usize = 15;
/// A longer text is cut there, in characters.
const LONGEST_TEXT: usize = 600;

/// All of it. Times in microseconds, but for those of the clock, which are milliseconds of Unix time.
#[derive(Serialize)]
struct Numbers {
    version: &'static str,
    now: u64,
    started: u64,
    state: &'static str,
    why_not_ready: Option<&'static str>,
    workers: usize,
    clients: u64,
    max_clients: u64,
    memory: Option<u64>,
    cpu: Option<u64>,
    totals: Totals,
    databases: Vec<DatabaseNumbers>,
    pools: Vec<PoolNumbers>,
    /// How many there are in all.
    pool_count: usize,
    nodes: Vec<NodeNumbers>,
    pins: BTreeMap<&'static str, u64>,
    failed_logins: BTreeMap<&'static str, u64>,
    errors: BTreeMap<String, u64>,
    history: Vec<Point>,
    events: Vec<EventNumbers>,
    /// `None`: query_statistics is 0.
    statements: Option<Vec<StatementNumbers>>,
}

#[derive(Default, Serialize)]
struct Totals {
    idle: u64,
    active: u64,
    waiting: u64,
    servers: u64,
    busy: u64,
    transactions: u64,
    queries: u64,
    stale_reads_avoided: u64,
    retries: u64,
}

#[derive(Serialize)]
struct DatabaseNumbers {
    name: String,
    paused: bool,
    disabled: bool,
}

#[derive(Serialize)]
struct PoolNumbers {
    database: String,
    user: String,
    node: String,
    idle: u64,
    active: u64,
    waiting: u64,
    longest_wait: u64,
    busy: u64,
    free: u64,
    opening: u64,
    pinned: u64,
    size: u64,
    counted: u64,
    unreachable: bool,
    transactions: u64,
    queries: u64,
    p50: Option<u64>,
    p99: Option<u64>,
}

#[derive(Serialize)]
struct NodeNumbers {
    database: String,
    node: String,
    role: String,
    timeline: u32,
    lag: Option<u64>,
    lag_bytes: u64,
    busy: u64,
    probe: u64,
    reason: Option<String>,
    transactions: u64,
}

#[derive(Serialize)]
struct EventNumbers {
    number: u64,
    at: u64,
    kind: &'static str,
    bad: bool,
    database: String,
    text: String,
}

#[derive(Serialize)]
struct StatementNumbers {
    database: String,
    user: String,
    node: String,
    text: String,
    calls: u64,
    errors: u64,
    time: u64,
    longest: u64,
    wait: u64,
    rows: u64,
}

/// As JSON; `None`: it cannot be written.
pub(super) async fn gather(commands: &Commands) -> Option<Vec<u8>> {
    let snapshot = Snapshot::take(commands).await;
    let counted = commands.process.config().settings.query_statistics > 0;
    let statements = if counted { Some(statements(commands).await) } else { None };
    let history = commands.status.history.lock().unwrap_or_else(PoisonError::into_inner).points();
    serde_json::to_vec(&numbers(commands, snapshot, history, statements)).ok()
}

fn numbers(
    commands: &Commands,
    snapshot: Snapshot,
    history: Vec<Point>,
    statements: Option<Vec<StatementNumbers>>,
) -> Numbers {
    let process = &commands.process;
    let why_not_ready = snapshot.why_not_ready().map(str::trim_end);
    let state = match () {
        () if snapshot.shutting_down => "shutting down",
        () if commands.is_suspended() => "suspended",
        () if snapshot.paused => "paused",
        () => "running",
    };
    let mut totals = Totals::default();
    let (mut pins, mut errors) = (BTreeMap::new(), BTreeMap::new());
    let mut by_node: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for (key, pool) in &snapshot.pools {
        totals.add(pool);
        *by_node.entry((&key.database, &key.node)).or_default() += pool.totals.transactions;
        for (bond, count) in Bond::ALL.into_iter().zip(pool.row.pinned).filter(|(_, count)| *count > 0) {
            *pins.entry(bond.as_str()).or_default() += count;
        }
        for ((_, code), count) in &pool.errors {
            *errors.entry(code.clone()).or_default() += count;
        }
    }
    let nodes = snapshot.nodes.iter().take(MOST_NODES);
    let node = |node: &NodeSample| {
        let transactions = by_node.get(&(node.database.as_str(), node.node.as_str()));
        NodeNumbers::of(node, transactions.copied().unwrap_or(0))
    };
    let nodes = nodes.map(node).collect();
    let pool_count = snapshot.pools.len();
    Numbers {
        version: env!("CARGO_PKG_VERSION"),
        now: process.clock.unix_micros() / 1000,
        started: snapshot.started / 1000,
        state,
        why_not_ready,
        workers: snapshot.workers,
        clients: snapshot.clients,
        max_clients: snapshot.max_clients,
        memory: snapshot.usage.resident_bytes,
        cpu: snapshot.usage.cpu_time,
        totals,
        databases: snapshot
            .databases
            .into_iter()
            .map(|(name, d)| DatabaseNumbers { name, paused: d.paused, disabled: d.disabled })
            .collect(),
        pools: busiest(snapshot.pools),
        pool_count,
        nodes,
        pins,
        failed_logins: snapshot.failed_logins.into_iter().filter(|(_, count)| *count > 0).collect(),
        errors,
        history,
        events: events(commands),
        statements,
    }
}

impl Totals {
    fn add(&mut self, pool: &PoolSample) {
        let row = &pool.row;
        self.idle += row.cl_idle;
        self.active += row.cl_active.saturating_sub(row.cl_idle);
        self.waiting += row.cl_waiting;
        self.servers += row.open_servers();
        self.busy += row.sv_active + row.sv_active_cancel + row.sv_being_canceled;
        self.transactions += pool.totals.transactions;
        self.queries += pool.totals.queries;
        self.stale_reads_avoided += pool.stale_reads_avoided;
        self.retries += pool.totals.retries;
    }
}

/// Those that have the most to do, by name.
fn busiest(pools: BTreeMap<PoolKey, PoolSample>) -> Vec<PoolNumbers> {
    let mut pools: Vec<_> = pools.into_iter().collect();
    if pools.len() > MOST_POOLS {
        pools.sort_by_key(|(_, pool)| {
            Reverse((pool.row.cl_waiting, pool.row.cl_active, pool.totals.transactions))
        });
        pools.truncate(MOST_POOLS);
        pools.sort_by(|(a, _), (b, _)| a.cmp(b));
    }
    pools.into_iter().map(|(key, pool)| PoolNumbers::of(key, &pool)).collect()
}

impl PoolNumbers {
    fn of(key: PoolKey, pool: &PoolSample) -> Self {
        let row = &pool.row;
        let times: &Distribution = &pool.transactions.distribution;
        Self {
            database: key.database,
            user: key.user,
            node: key.node,
            idle: row.cl_idle,
            active: row.cl_active.saturating_sub(row.cl_idle),
            waiting: row.cl_waiting,
            longest_wait: row.maxwait,
            busy: row.sv_active + row.sv_active_cancel + row.sv_being_canceled,
            free: row.sv_idle + row.sv_used + row.sv_tested,
            opening: row.sv_login,
            pinned: row.pinned.iter().sum(),
            size: pool.size,
            counted: pool.counted,
            unreachable: pool.unreachable,
            transactions: pool.totals.transactions,
            queries: pool.totals.queries,
            p50: times.quantile(0.5),
            p99: times.quantile(0.99),
        }
    }
}

impl NodeNumbers {
    fn of(node: &NodeSample, transactions: u64) -> Self {
        Self {
            database: node.database.clone(),
            node: node.node.clone(),
            role: node.role.to_string(),
            timeline: node.timeline,
            lag: node.lag,
            lag_bytes: node.lag_bytes,
            busy: node.busy,
            probe: node.probe,
            reason: node.reason.clone(),
            transactions,
        }
    }
}

fn events(commands: &Commands) -> Vec<EventNumbers> {
    let events = commands.process.pools.events.latest(MOST_EVENTS).into_iter();
    let event = |event: crate::events::Event| EventNumbers {
        number: event.number,
        at: event.at / 1000,
        kind: event.kind.as_str(),
        bad: event.bad,
        database: event.database,
        text: event.text,
    };
    events.map(event).collect()
}

async fn statements(commands: &Commands) -> Vec<StatementNumbers> {
    let rows = top_queries(commands, MOST_STATEMENTS).await.into_iter();
    let statement = |row: crate::worker::queries::QueryRow| StatementNumbers {
        database: row.database,
        user: row.user,
        node: row.node,
        text: row.text.chars().take(LONGEST_TEXT).collect(),
        calls: row.calls,
        errors: row.errors,
        time: row.time,
        longest: row.longest,
        wait: row.wait,
        rows: row.rows,
    };
    rows.map(statement).collect()
}
