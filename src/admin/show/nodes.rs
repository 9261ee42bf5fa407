//! SHOW NODES, ROUTES and WHY: what PgBouncer has nothing of.

use std::collections::BTreeMap;

use super::{
    super::result::{
        Columns,
        Kind::{Int4, Int8, Text},
        Row,
    },
    connections::time,
    text,
};
use crate::{
    admin::commands::Commands,
    cluster::{Cluster, Node},
    sql::{self, Class, Dialect, Names},
    worker::decision::{Decision, decision_for},
};

pub(super) const NODES: Columns = &[
    ("database", Text),
    ("node", Text),
    ("role", Text),
    ("weight", Int4),
    ("timeline", Int4),
    ("lsn", Text),
    ("lag_bytes", Int8),
    ("lag_us", Int8),
    ("epoch", Int8),
    ("caught", Int8),
    ("busy", Int4),
    ("probe_us", Int8),
    ("since", Text),
    ("reason", Text),
];

pub(super) const ROUTES: Columns = &[("database", Text), ("node", Text), ("route", Text), ("requests", Int8)];

/// Columns of SHOW WHY.
pub(crate) const WHY: Columns = &[
    ("database", Text),
    ("route", Text),
    ("reason", Text),
    ("because_of", Text),
    ("hint", Text),
    ("reads", Text),
    ("changes", Text),
];

/// A row for each node that somebody has used.
pub(super) fn nodes(commands: &Commands) -> Vec<Row> {
    let clusters = commands.process.pools.clusters();
    clusters
        .iter()
        .flat_map(|cluster| cluster.nodes.iter().enumerate().map(|(i, node)| node_row(cluster, i, node)))
        .collect()
}

fn node_row(cluster: &Cluster, index: usize, node: &Node) -> Row {
    let report = node.report();
    vec![
        text(&cluster.database),
        text(&node.address),
        text(node.role()),
        text(node.address.weight),
        text(report.timeline),
        text(format!("{:X}/{:X}", report.lsn >> 32, report.lsn & 0xffff_ffff)),
        text(report.lag_bytes),
        cluster.staleness(index).map(|lag| lag.as_micros().to_string()),
        text(cluster.epoch()),
        text(cluster.caught(index)),
        text(node.busy.load(std::sync::atomic::Ordering::Relaxed)),
        text(report.probe_time),
        time(report.since),
        report.reason,
    ]
}

/// How often requests went where, and why.
pub(super) fn routes(commands: &Commands) -> Vec<Row> {
    let mut counts: BTreeMap<(String, String, &'static str), u64> = BTreeMap::new();
    for pool in commands.process.pools.all().iter().filter(|pool| pool.seat.is_some()) {
        for decision in Decision::ALL {
            let count: u64 = pool.shards.iter().map(|shard| shard.routes.get(decision.index())).sum();
            if count > 0 {
                let key = (pool.key.database.clone(), pool.key.node.clone(), decision.as_str());
                *counts.entry(key).or_default() += count;
            }
        }
    }
    counts.into_iter().map(|((d, n, why), count)| vec![text(d), text(n), text(why), text(count)]).collect()
}

/// Where a text would go by itself, in each database that has nodes and that somebody has used.
pub(crate) fn why(commands: &Commands, sql: &str) -> Vec<Row> {
    let dialect = Dialect { standard_strings: true, ascii_safe: true };
    let clusters = commands.process.pools.clusters();
    let rows = clusters.iter().map(|cluster| {
        let class = sql::classify(sql.as_bytes(), dialect, &cluster.catalog.current());
        why_row(cluster, class)
    });
    rows.collect()
}

fn why_row(cluster: &Cluster, class: Class) -> Row {
    let decision = decision_for(&class);
    let (route, reason) = decision.as_str().split_once(": ").unwrap_or((decision.as_str(), ""));
    let names = |names: &Names| match names {
        Names::Known(slots) => text(slots.len()),
        Names::Any => text("any"),
    };
    vec![
        text(&cluster.database),
        text(route),
        text(reason),
        class.culprit.as_deref().and_then(text),
        class.hint.map(|hint| format!("{hint:?}").to_ascii_lowercase()),
        names(&class.reads),
        names(&class.writes),
    ]
}
