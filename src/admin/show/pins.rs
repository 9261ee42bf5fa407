//! SHOW PINS and AUDIT: servers that stay with their clients between transactions, and why; how often servers were asked what
//! is left in their sessions. PgBouncer has nothing of it.

use std::collections::BTreeMap;

use super::{
    super::result::{
        Columns,
        Kind::{Int4, Int8, Text},
        Row,
    },
    text,
};
use crate::{admin::commands::Commands, session::bonds::Bond, worker::report::ReportKind};

pub(super) const PINS: Columns = &[
    ("database", Text),
    ("user", Text),
    ("reason", Text),
    ("servers", Int4),
    ("longest", Int8),
    ("pins", Int8),
];

pub(super) const AUDIT: Columns =
    &[("database", Text), ("user", Text), ("questions", Int8), ("surprises", Int8)];

/// How many servers are kept, and for how long.
#[derive(Default)]
struct Kept {
    servers: u64,
    /// In microseconds.
    longest: u64,
    /// How often a server came to be kept.
    pins: u64,
}

/// A row for each reason that there has been in a pool.
pub(super) async fn pins(commands: &Commands) -> Vec<Row> {
    let mut found: BTreeMap<(String, String, &'static str), Kept> = BTreeMap::new();
    for pool in commands.process.pools.all() {
        for bond in Bond::ALL {
            let pins: u64 = pool.shards.iter().map(|shard| shard.pins.get(bond as usize)).sum();
            if pins > 0 {
                let key = (pool.key.database.clone(), pool.key.user.clone(), bond.as_str());
                found.entry(key).or_default().pins += pins;
            }
        }
    }
    let servers = commands.report(ReportKind::Servers).await.servers;
    for server in servers.into_iter().filter(|server| !server.pinned.is_empty()) {
        let kept = found.entry((server.database, server.user, server.pinned)).or_default();
        kept.servers += 1;
        kept.longest = kept.longest.max(server.pinned_for);
    }
    let row = |((database, user, reason), kept): (_, Kept)| {
        vec![
            text(database),
            text(user),
            text(reason),
            text(kept.servers),
            text(kept.longest / 1_000_000),
            text(kept.pins),
        ]
    };
    found.into_iter().map(row).collect()
}

/// How often servers of each pool were asked, and held what no text had told of.
pub(super) fn audit(commands: &Commands) -> Vec<Row> {
    let mut found: BTreeMap<(String, String), (u64, u64)> = BTreeMap::new();
    for pool in commands.process.pools.all() {
        let counts = found.entry((pool.key.database.clone(), pool.key.user.clone())).or_default();
        for shard in &pool.shards {
            counts.0 += shard.stats.questions.get();
            counts.1 += shard.stats.surprises.get();
        }
    }
    let row = |((database, user), (questions, surprises)): ((String, String), (u64, u64))| {
        vec![text(database), text(user), text(questions), text(surprises)]
    };
    found.into_iter().map(row).collect()
}
