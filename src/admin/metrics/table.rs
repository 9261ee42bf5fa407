//! All metrics there are, in the order of the docs.

use super::{
    Kind::{self, Counter, Gauge, Histogram},
    Metric, Sample,
    Value::{self, Count, Level, Times},
    gather::{DatabaseSample, ListenerSample, NodeSample, PoolSample, Snapshot},
    level, seconds,
};
use crate::{cluster::Role, pool::PoolKey, session::bonds::Bond};

/// Values of further labels, and how often they came.
type Counted = (Vec<&'static str>, u64);

const POOL: &[&str] = &["database", "user", "node"];
const NODE: &[&str] = &["database", "node"];
const ROLES: [(Role, &str); 5] = [
    (Role::Primary, "primary"),
    (Role::Replica, "replica"),
    (Role::Fenced, "fenced"),
    (Role::Down, "down"),
    (Role::Unknown, "unknown"),
];

/// `name kind [labels]: help, samples;`
macro_rules! metrics {
    ($($name:literal $kind:expr, $labels:expr, $help:literal, $samples:expr;)+) => {
        pub(super) static METRICS: &[Metric] = &[$(Metric {
            name: $name,
            kind: { const KIND: Kind = $kind; KIND },
            labels: $labels,
            help: $help,
            samples: $samples,
        },)+];
    };
}

metrics! {
    "pooler_build_info" Gauge, &["version"],
        "Always 1; its label tells the version",
        |_| vec![Sample { labels: vec![env!("CARGO_PKG_VERSION")], value: Level(1.0) }];
    "pooler_start_time_seconds" Gauge, &[],
        "Unix time at which the process began",
        |s| one(Level(seconds(s.started)));
    "pooler_workers" Gauge, &[],
        "Worker threads",
        |s| one(Level(level(u64::try_from(s.workers).unwrap_or(0))));
    "pooler_paused" Gauge, &[],
        "Whether all databases are paused",
        |s| one(flag(s.paused));
    "pooler_shutting_down" Gauge, &[],
        "Whether the process takes no new clients",
        |s| one(flag(s.shutting_down));
    "pooler_client_connections" Gauge, &[],
        "Connections of clients, those that are logging in included",
        |s| one(Level(level(s.clients)));
    "pooler_client_connections_limit" Gauge, &[],
        "The setting max_client_conn",
        |s| one(Level(level(s.max_clients)));
    "pooler_console_connections" Gauge, &[],
        "Connections to the console",
        |s| one(Level(level(s.consoles)));
    "pooler_prepared_statements" Gauge, &[],
        "Different prepared statements in the cache that all clients and servers share",
        |s| one(Level(level(u64::try_from(s.statements).unwrap_or(0))));
    "pooler_database_paused" Gauge, &["database"],
        "Whether the database is paused, by itself or with all others",
        |s| databases(s, |d| d.paused);
    "pooler_database_disabled" Gauge, &["database"],
        "Whether the database takes no new clients (DISABLE)",
        |s| databases(s, |d| d.disabled);

    "pooler_clients" Gauge, &["database", "user", "node", "state"],
        "Clients: idle (no transaction), active (with a server, or at their login) or waiting (for a server)",
        |s| by_state(s, |p| vec![
            ("idle", p.row.cl_idle),
            ("active", p.row.cl_active.saturating_sub(p.row.cl_idle)),
            ("waiting", p.row.cl_waiting),
        ]);
    "pooler_clients_longest_wait_seconds" Gauge, POOL,
        "How long the first client of those that wait for a server has waited",
        |s| pools(s, |p| Level(seconds(p.row.maxwait)));
    "pooler_servers" Gauge, &["database", "user", "node", "state"],
        "Server connections, by what they do: login, idle, used (idle for so long that they are checked before use), tested, \
         active, active_cancel (a cancel request is under way) or being_canceled (the same without a client)",
        |s| by_state(s, |p| vec![
            ("login", p.row.sv_login),
            ("idle", p.row.sv_idle),
            ("used", p.row.sv_used),
            ("tested", p.row.sv_tested),
            ("active", p.row.sv_active),
            ("active_cancel", p.row.sv_active_cancel),
            ("being_canceled", p.row.sv_being_canceled),
        ]);
    "pooler_servers_pinned" Gauge, &["database", "user", "node", "reason"],
        "Servers that stay with their clients between transactions, by the reasons that there have been (SHOW PINS)",
        pinned;
    "pooler_pool_servers" Gauge, POOL,
        "Server connections that are open or being opened",
        |s| pools(s, |p| Level(level(p.counted)));
    "pooler_pool_size" Gauge, POOL,
        "Server connections that the pool may have; 0: no limit",
        |s| pools(s, |p| Level(level(p.size)));
    "pooler_pool_unreachable" Gauge, POOL,
        "Whether the last attempt to connect to the server failed",
        |s| pools(s, |p| flag(p.unreachable));

    "pooler_transactions" Counter, POOL,
        "Transactions that have ended",
        |s| pools(s, |p| Count(p.totals.transactions));
    "pooler_queries" Counter, POOL,
        "Queries of clients: simple ones, and executions of prepared ones",
        |s| pools(s, |p| Count(p.totals.queries));
    "pooler_transaction_duration_seconds" Histogram, POOL,
        "How long transactions take from their first request to the end of their last reply, without the wait for a server. \
         Those of a pipeline that end together share their time",
        |s| pools(s, |p| Times(&p.transactions));
    "pooler_query_duration_seconds" Histogram, POOL,
        "How long requests take from when they are sent to the server to the end of the reply. Those of a pipeline that end \
         together share their time",
        |s| pools(s, |p| Times(&p.queries));
    "pooler_wait_duration_seconds" Histogram, POOL,
        "How long clients wait for a server, once for each that they are given: in the first bucket are those that need not wait",
        |s| pools(s, |p| Times(&p.waits));
    "pooler_received_bytes" Counter, POOL,
        "Bytes from clients",
        |s| pools(s, |p| Count(p.totals.received));
    "pooler_sent_bytes" Counter, POOL,
        "Bytes from servers, for clients",
        |s| pools(s, |p| Count(p.totals.sent));
    "pooler_logins" Counter, POOL,
        "Clients that have logged in",
        |s| pools(s, |p| Count(p.totals.logins));
    "pooler_failed_logins" Counter, &["reason"],
        "Logins that have failed, by reason: password (wrong, or of an unknown user), not_allowed (by rules, certificates or lists \
         of users), no_database, limit (too many clients), tls, timeout, lookup (auth_query could not be asked), protocol (no startup \
         packet that could be served) or closed (the client went away before its login was over)",
        |s| s.failed_logins.iter().map(|(reason, count)| Sample { labels: vec![reason], value: Count(*count) }).collect();
    "pooler_errors" Counter, &["database", "user", "node", "source", "sqlstate"],
        "Errors by their SQLSTATE, and by who has given them: server or pooler. Up to 40 codes of a pool and worker are told \
         apart; the rest is other",
        errors;
    "pooler_client_parses" Counter, POOL,
        "Statements that clients have prepared",
        |s| pools(s, |p| Count(p.totals.client_parses));
    "pooler_server_parses" Counter, POOL,
        "Statements that were prepared at servers",
        |s| pools(s, |p| Count(p.totals.server_parses));
    "pooler_binds" Counter, POOL,
        "Executions of prepared statements",
        |s| pools(s, |p| Count(p.totals.binds));
    "pooler_pins" Counter, &["database", "user", "node", "reason"],
        "How often servers came to stay with their clients, by reason (SHOW PINS)",
        |s| by_word(s, |p| p.pins.iter().map(|(reason, count)| (vec![*reason], *count)).collect());
    "pooler_session_questions" Counter, POOL,
        "How often servers were asked what their clients have left in the session (SHOW AUDIT)",
        |s| pools(s, |p| Count(p.totals.questions));
    "pooler_session_surprises" Counter, POOL,
        "How often there was something that no text had told of (SHOW AUDIT)",
        |s| pools(s, |p| Count(p.totals.surprises));

    "pooler_routes" Counter, &["database", "user", "node", "route", "reason"],
        "Requests by where they went, and why, in databases with nodes (SHOW ROUTES)",
        |s| by_word(s, |p| {
            p.routes.iter().map(|((route, reason), count)| (vec![*route, *reason], *count)).collect()
        });
    "pooler_stale_reads_avoided" Counter, POOL,
        "Reads that went to the primary because no replica had caught up with what they must see",
        |s| routed(s, |p| p.stale_reads_avoided);
    "pooler_retries" Counter, POOL,
        "Requests that were sent again elsewhere, by where they had failed",
        |s| routed(s, |p| p.totals.retries);
    "pooler_node_role" Gauge, &["database", "node", "role"],
        "1 for the role that the node has, 0 for the others (SHOW NODES)",
        roles;
    "pooler_node_lag_seconds" Gauge, NODE,
        "How far a replica is behind the primary; missing where that is not known",
        |s| s.nodes.iter().filter_map(|n| Some(node(n, Level(seconds(n.lag?))))).collect();
    "pooler_node_lag_bytes" Gauge, NODE,
        "The same in bytes of WAL, of when the node was last looked at",
        |s| nodes(s, |n| level(n.lag_bytes));
    "pooler_node_timeline" Gauge, NODE,
        "The node's timeline; 0: not known",
        |s| nodes(s, |n| level(n.timeline.into()));
    "pooler_node_busy_servers" Gauge, NODE,
        "Servers at the node that work for clients",
        |s| nodes(s, |n| level(n.busy));
    "pooler_node_probe_seconds" Gauge, NODE,
        "How long the node took to answer when it was last looked at",
        |s| nodes(s, |n| seconds(n.probe));

    "pooler_listener_connected" Gauge, &["database"],
        "Whether the connection that listens for clients is there (SHOW LISTENERS)",
        |s| listeners(s, |l| flag(l.connected));
    "pooler_listener_clients" Gauge, &["database"],
        "Clients that it listens for",
        |s| listeners(s, |l| Level(level(l.clients)));
    "pooler_listener_notifications" Counter, &["database"],
        "Notifications that it has heard since it is there",
        |s| listeners(s, |l| Count(l.notifications));
    "pooler_listener_deliveries" Counter, &["database"],
        "Notifications that clients were told of by it",
        |s| listeners(s, |l| Count(l.delivered));

    "pooler_trace_spans" Counter, &["outcome"],
        "Spans of traced transactions (otlp_endpoint): exported, dropped (the queue was full) or failed (the collector did not take \
         them)",
        |s| s.spans.iter().map(|(outcome, count)| Sample { labels: vec![outcome], value: Count(*count) }).collect();

    "process_cpu_seconds" Counter, &[],
        "Time on processors, of all threads",
        |s| s.usage.cpu_time.into_iter().flat_map(|time| one(Value::Seconds(time))).collect();
    "process_resident_memory_bytes" Gauge, &[],
        "Memory that the process has",
        |s| s.usage.resident_bytes.into_iter().flat_map(|n| one(Level(level(n)))).collect();
    "process_open_fds" Gauge, &[],
        "Files and sockets that are open",
        |s| s.usage.open_files.into_iter().flat_map(|n| one(Level(level(n)))).collect();
    "process_max_fds" Gauge, &[],
        "How many may be",
        |s| s.usage.most_files.into_iter().flat_map(|n| one(Level(level(n)))).collect();
}

fn one<'s>(value: Value<'s>) -> Vec<Sample<'s>> {
    vec![Sample { labels: Vec::new(), value }]
}

fn flag<'s>(yes: bool) -> Value<'s> {
    Level(if yes { 1.0 } else { 0.0 })
}

fn names(key: &PoolKey) -> Vec<&str> {
    vec![&key.database, &key.user, &key.node]
}

fn pools(snapshot: &Snapshot, value: for<'s> fn(&'s PoolSample) -> Value<'s>) -> Vec<Sample<'_>> {
    snapshot.pools.iter().map(|(key, pool)| Sample { labels: names(key), value: value(pool) }).collect()
}

/// Where the database has nodes.
fn routed(snapshot: &Snapshot, count: fn(&PoolSample) -> u64) -> Vec<Sample<'_>> {
    let with_nodes = snapshot.pools.iter().filter(|(key, _)| !key.node.is_empty());
    with_nodes.map(|(key, pool)| Sample { labels: names(key), value: Count(count(pool)) }).collect()
}

fn by_state(snapshot: &Snapshot, states: fn(&PoolSample) -> Vec<(&'static str, u64)>) -> Vec<Sample<'_>> {
    let samples = snapshot.pools.iter().flat_map(|(key, pool)| {
        let sample = move |(state, n)| {
            let mut labels = names(key);
            labels.push(state);
            Sample { labels, value: Level(level(n)) }
        };
        states(pool).into_iter().map(sample)
    });
    samples.collect()
}

/// Counts by words, of which there are many that never come.
fn by_word(snapshot: &Snapshot, counts: fn(&PoolSample) -> Vec<Counted>) -> Vec<Sample<'_>> {
    let samples = snapshot.pools.iter().flat_map(|(key, pool)| {
        let sample = move |(words, count): Counted| Sample {
            labels: names(key).into_iter().chain(words).collect(),
            value: Count(count),
        };
        counts(pool).into_iter().filter(|(_, count)| *count > 0).map(sample)
    });
    samples.collect()
}

fn pinned(snapshot: &Snapshot) -> Vec<Sample<'_>> {
    let samples = snapshot.pools.iter().flat_map(|(key, pool)| {
        let counts = Bond::ALL.into_iter().zip(pool.row.pinned);
        let been = counts.filter(|(bond, _)| pool.pins.get(bond.as_str()).is_some_and(|pins| *pins > 0));
        been.map(|(bond, count)| Sample {
            labels: names(key).into_iter().chain([bond.as_str()]).collect(),
            value: Level(level(count)),
        })
    });
    samples.collect()
}

fn errors(snapshot: &Snapshot) -> Vec<Sample<'_>> {
    let samples = snapshot.pools.iter().flat_map(|(key, pool)| {
        pool.errors.iter().map(|((source, code), count)| Sample {
            labels: names(key).into_iter().chain([*source, code.as_str()]).collect(),
            value: Count(*count),
        })
    });
    samples.collect()
}

fn databases(snapshot: &Snapshot, is: fn(&DatabaseSample) -> bool) -> Vec<Sample<'_>> {
    let samples = snapshot.databases.iter();
    samples.map(|(name, database)| Sample { labels: vec![name], value: flag(is(database)) }).collect()
}

fn node<'s>(node: &'s NodeSample, value: Value<'s>) -> Sample<'s> {
    Sample { labels: vec![&node.database, &node.node], value }
}

fn nodes(snapshot: &Snapshot, value: fn(&NodeSample) -> f64) -> Vec<Sample<'_>> {
    snapshot.nodes.iter().map(|n| node(n, Level(value(n)))).collect()
}

fn roles(snapshot: &Snapshot) -> Vec<Sample<'_>> {
    let samples = snapshot.nodes.iter().flat_map(|node| {
        ROLES.iter().map(|(role, word)| Sample {
            labels: vec![&node.database, &node.node, word],
            value: flag(node.role == *role),
        })
    });
    samples.collect()
}

fn listeners(snapshot: &Snapshot, value: fn(&ListenerSample) -> Value<'static>) -> Vec<Sample<'_>> {
    let samples = snapshot.listeners.iter();
    samples.map(|listener| Sample { labels: vec![&listener.database], value: value(listener) }).collect()
}
