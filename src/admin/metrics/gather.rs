//! What a scrape tells, gathered at one moment.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::Ordering},
};

use super::process::Usage;
use crate::{
    admin::commands::Commands,
    cluster::{Cluster, Role},
    pool::{
        Pool, PoolKey,
        histogram::{Distribution, Histogram},
        stats::Totals,
    },
    session::bonds::Bond,
    worker::{
        decision::Decision,
        report::{PoolRow, ReportKind},
    },
};

/// With more pools than this, those of all users of a database are told of together; with more databases, all are.
const MOST_POOLS: usize = 2_000;
/// Stands for all users, or all databases.
const ALL: &str = "*";

/// All numbers of one moment.
#[derive(Debug)]
pub(in crate::admin) struct Snapshot {
    /// Unix time in microseconds.
    pub(in crate::admin) started: u64,
    pub(in crate::admin) workers: usize,
    pub(in crate::admin) clients: u64,
    pub(in crate::admin) max_clients: u64,
    pub(in crate::admin) consoles: u64,
    pub(in crate::admin) statements: usize,
    pub(in crate::admin) paused: bool,
    pub(in crate::admin) shutting_down: bool,
    pub(in crate::admin) usage: Usage,
    pub(in crate::admin) pools: BTreeMap<PoolKey, PoolSample>,
    pub(in crate::admin) databases: BTreeMap<String, DatabaseSample>,
    pub(in crate::admin) nodes: Vec<NodeSample>,
    pub(in crate::admin) listeners: Vec<ListenerSample>,
    pub(in crate::admin) failed_logins: Vec<(&'static str, u64)>,
    pub(in crate::admin) spans: [(&'static str, u64); 3],
}

/// A distribution of times, and their sum in microseconds.
#[derive(Debug, Default)]
pub(in crate::admin) struct Times {
    pub(in crate::admin) sum: u64,
    pub(in crate::admin) distribution: Distribution,
}

/// Of one pool, or of several.
#[derive(Debug, Default)]
pub(in crate::admin) struct PoolSample {
    pub(in crate::admin) row: PoolRow,
    /// 0: no limit.
    pub(in crate::admin) size: u64,
    /// Servers that count in it, those that are being opened included.
    pub(in crate::admin) counted: u64,
    pub(in crate::admin) unreachable: bool,
    pub(in crate::admin) totals: Totals,
    pub(in crate::admin) transactions: Times,
    pub(in crate::admin) queries: Times,
    pub(in crate::admin) waits: Times,
    pub(in crate::admin) routes: BTreeMap<(&'static str, &'static str), u64>,
    pub(in crate::admin) stale_reads_avoided: u64,
    pub(in crate::admin) pins: BTreeMap<&'static str, u64>,
    /// By who has given them, and the SQLSTATE.
    pub(in crate::admin) errors: BTreeMap<(&'static str, String), u64>,
}

#[derive(Debug, Default)]
pub(in crate::admin) struct DatabaseSample {
    pub(in crate::admin) paused: bool,
    pub(in crate::admin) disabled: bool,
}

#[derive(Debug)]
pub(in crate::admin) struct NodeSample {
    pub(in crate::admin) database: String,
    pub(in crate::admin) node: String,
    pub(in crate::admin) role: Role,
    pub(in crate::admin) timeline: u32,
    pub(in crate::admin) lag_bytes: u64,
    /// Microseconds; `None`: it is no replica, or not known.
    pub(in crate::admin) lag: Option<u64>,
    pub(in crate::admin) busy: u64,
    /// Microseconds.
    pub(in crate::admin) probe: u64,
    /// Why it is not used.
    pub(in crate::admin) reason: Option<String>,
}

#[derive(Debug)]
pub(in crate::admin) struct ListenerSample {
    pub(in crate::admin) database: String,
    pub(in crate::admin) connected: bool,
    pub(in crate::admin) clients: u64,
    pub(in crate::admin) notifications: u64,
    pub(in crate::admin) delivered: u64,
}

impl Snapshot {
    pub(in crate::admin) async fn take(commands: &Commands) -> Self {
        let report = commands.report(ReportKind::Pools).await;
        let process = &commands.process;
        let pools = process.pools.all();
        let known: BTreeSet<&PoolKey> = pools.iter().map(|pool| &pool.key).collect();
        let label = Label::for_pools(&pools);
        let mut samples: BTreeMap<PoolKey, PoolSample> = BTreeMap::new();
        let mut databases: BTreeMap<String, DatabaseSample> = BTreeMap::new();
        for pool in &pools {
            samples.entry(label.of(&pool.key)).or_default().add(pool);
            let state = databases.entry(label.of(&pool.key).database).or_default();
            state.paused |= pool.is_paused();
            state.disabled |= pool.database.disabled.load(Ordering::Acquire);
        }
        for row in report.pools {
            let key =
                PoolKey { database: row.database.clone(), user: row.user.clone(), node: row.node.clone() };
            // What a reload has removed is shown as long as somebody is left in it.
            if row.is_used() || known.contains(&key) {
                samples.entry(label.of(&key)).or_default().row.add(&row);
            }
        }
        Self {
            started: process.clock.unix_of(0),
            workers: process.workers.len(),
            clients: process.logins.limits.clients().into(),
            max_clients: process.config().settings.max_client_conn.into(),
            consoles: report.consoles,
            statements: process.shared.registry.len(),
            paused: process.pools.all_paused(),
            shutting_down: commands.is_shutting_down(),
            usage: Usage::now(),
            pools: samples,
            databases,
            nodes: process.pools.clusters().iter().flat_map(|cluster| nodes(cluster)).collect(),
            listeners: listeners(commands),
            failed_logins: process.logins.failures.counts(),
            spans: [
                ("exported", process.spans.exported.load(Ordering::Relaxed)),
                ("dropped", process.spans.dropped.load(Ordering::Relaxed)),
                ("failed", process.spans.failed.load(Ordering::Relaxed)),
            ],
        }
    }
}

impl Snapshot {
    /// Why clients should be sent elsewhere. Who waits for a server that is away for a while is better off here: it counts only
    /// when no pool has reached any.
    pub(in crate::admin) fn why_not_ready(&self) -> Option<&'static str> {
        let reached = |p: &PoolSample| !p.unreachable || p.row.open_servers() > 0;
        if self.shutting_down {
            Some("shutting down\n")
        } else if self.paused {
            Some("paused\n")
        } else if !self.pools.is_empty() && !self.pools.values().any(reached) {
            Some("no server can be reached\n")
        } else {
            None
        }
    }
}

/// How closely pools are told apart.
#[derive(Clone, Copy, Debug)]
enum Label {
    Pool,
    Database,
    Nothing,
}

impl Label {
    fn for_pools(pools: &[Arc<Pool>]) -> Self {
        let databases: BTreeSet<&str> = pools.iter().map(|pool| pool.key.database.as_str()).collect();
        match () {
            () if pools.len() <= MOST_POOLS => Self::Pool,
            () if databases.len() <= MOST_POOLS => Self::Database,
            () => Self::Nothing,
        }
    }

    fn of(self, key: &PoolKey) -> PoolKey {
        let mut key = key.clone();
        if !matches!(self, Self::Pool) {
            ALL.clone_into(&mut key.user);
        }
        if matches!(self, Self::Nothing) {
            ALL.clone_into(&mut key.database);
            ALL.clone_into(&mut key.node);
        }
        key
    }
}

impl Times {
    fn add(&mut self, sum: u64, shard: &Histogram) {
        self.sum += sum;
        self.distribution.add(shard);
    }
}

impl PoolSample {
    fn add(&mut self, pool: &Pool) {
        self.size += u64::from(pool.settings().size);
        self.counted += u64::from(pool.open_servers());
        self.unreachable |= pool.failure().is_some();
        for shard in &pool.shards {
            self.totals.add(&shard.stats);
            self.transactions.add(shard.stats.transaction_time.get(), &shard.transaction_times);
            self.queries.add(shard.stats.query_time.get(), &shard.query_times);
            self.waits.add(shard.stats.wait_time.get(), &shard.wait_times);
            for decision in Decision::ALL.into_iter().filter(|_| pool.seat.is_some()) {
                let Some((route, reason)) = decision.as_str().split_once(": ") else { continue };
                let count = shard.routes.get(decision.index());
                *self.routes.entry((route, reason)).or_default() += count;
                self.stale_reads_avoided += if decision == Decision::Stale { count } else { 0 };
            }
            for bond in Bond::ALL {
                *self.pins.entry(bond.as_str()).or_default() += shard.pins.get(bond as usize);
            }
            for (source, errors) in [("server", &shard.errors), ("pooler", &shard.refusals)] {
                for (code, count) in errors.counts() {
                    *self.errors.entry((source, code)).or_default() += count;
                }
            }
        }
    }
}

fn nodes(cluster: &Cluster) -> Vec<NodeSample> {
    let sample = |(index, node): (usize, &crate::cluster::Node)| {
        let report = node.report();
        NodeSample {
            database: cluster.database.clone(),
            node: node.address.to_string(),
            role: node.role(),
            timeline: report.timeline,
            lag_bytes: report.lag_bytes,
            lag: cluster.staleness(index).and_then(|lag| u64::try_from(lag.as_micros()).ok()),
            busy: node.busy.load(Ordering::Relaxed).into(),
            probe: report.probe_time,
            reason: report.reason,
        }
    };
    cluster.nodes.iter().enumerate().map(sample).collect()
}

/// One for each database: there are two for a while when the way to it changes.
fn listeners(commands: &Commands) -> Vec<ListenerSample> {
    let mut samples: BTreeMap<String, ListenerSample> = BTreeMap::new();
    for listener in commands.process.listeners.all() {
        let sample = samples.entry(listener.database.clone()).or_insert_with(|| ListenerSample {
            database: listener.database.clone(),
            connected: false,
            clients: 0,
            notifications: 0,
            delivered: 0,
        });
        sample.connected |= listener.pid.load(Ordering::Acquire) != 0;
        sample.clients += u64::try_from(listener.clients.load(Ordering::Relaxed)).unwrap_or(0);
        sample.notifications += listener.received.load(Ordering::Relaxed);
        sample.delivered += listener.delivered.load(Ordering::Relaxed);
    }
    samples.into_values().collect()
}
