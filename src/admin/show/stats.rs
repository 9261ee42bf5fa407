//! SHOW STATS, STATS_TOTALS, STATS_AVERAGES and TOTALS.

use super::{
    super::result::{
        Columns,
        Kind::{Numeric, Text},
        Row,
    },
    text,
};
use crate::{admin::commands::Commands, pool::stats::Totals};

pub(super) const STATS: Columns = &[
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
    // What total_query_count was called up to 1.7, for tools of that time.
    ("total_requests", Numeric),
];

pub(super) const STATS_TOTALS: Columns = &[
    ("database", Text),
    ("server_assignment_count", Numeric),
    ("xact_count", Numeric),
    ("query_count", Numeric),
    ("bytes_received", Numeric),
    ("bytes_sent", Numeric),
    ("xact_time", Numeric),
    ("query_time", Numeric),
    ("wait_time", Numeric),
    ("client_parse_count", Numeric),
    ("server_parse_count", Numeric),
    ("bind_count", Numeric),
    ("client_login_count", Numeric),
];

pub(super) const STATS_AVERAGES: Columns = &[
    ("database", Text),
    ("server_assignment_count", Numeric),
    ("xact_count", Numeric),
    ("query_count", Numeric),
    ("bytes_received", Numeric),
    ("bytes_sent", Numeric),
    ("xact_time", Numeric),
    ("query_time", Numeric),
    ("wait_time", Numeric),
    ("avg_client_parse_count", Numeric),
    ("avg_server_parse_count", Numeric),
    ("avg_bind_count", Numeric),
    ("avg_client_login_count", Numeric),
];

pub(super) const TOTALS: Columns = &[("name", Text), ("value", Numeric)];

/// Names of the rows of TOTALS, after `total_` or `avg_`; in the order of [`values`].
const NAMES: [&str; 12] = [
    "server_assignment_count",
    "xact_count",
    "query_count",
    "client_bytes",
    "server_bytes",
    "xact_time",
    "query_time",
    "wait_time",
    "ps_client_parse_count",
    "ps_server_parse_count",
    "ps_bind_count",
    "client_login_count",
];

/// The counters in the order in which all of these commands show them.
fn values(t: &Totals) -> [u64; 12] {
    [
        t.server_assignments,
        t.transactions,
        t.queries,
        t.received,
        t.sent,
        t.transaction_time,
        t.query_time,
        t.wait_time,
        t.client_parses,
        t.server_parses,
        t.binds,
        t.logins,
    ]
}

pub(super) fn stats(commands: &Commands) -> Vec<Row> {
    let rows = commands.statistics().into_iter().map(|(database, total, average)| {
        let mut row = vec![text(database)];
        row.extend(values(&total).map(text));
        row.extend(values(&average).map(text));
        row.push(text(total.queries));
        row
    });
    rows.collect()
}

pub(super) fn totals_by_database(commands: &Commands) -> Vec<Row> {
    by_database(commands.statistics().into_iter().map(|(database, total, _)| (database, total)))
}

pub(super) fn averages_by_database(commands: &Commands) -> Vec<Row> {
    by_database(commands.statistics().into_iter().map(|(database, _, average)| (database, average)))
}

fn by_database(shown: impl Iterator<Item = (String, Totals)>) -> Vec<Row> {
    let rows = shown.map(|(database, numbers)| {
        let mut row = vec![text(database)];
        row.extend(values(&numbers).map(text));
        row
    });
    rows.collect()
}

pub(super) fn totals(commands: &Commands) -> Vec<Row> {
    let (total, average) = commands.sums();
    let named = |prefix, totals: &Totals| {
        let rows = NAMES.into_iter().zip(values(totals));
        rows.map(|(name, value)| vec![text(format!("{prefix}{name}")), text(value)]).collect::<Vec<_>>()
    };
    [named("total_", &total), named("avg_", &average)].concat()
}
