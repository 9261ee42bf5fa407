//! SHOW QUERIES: what kinds of statements take the most time, which PgBouncer has nothing of.

use std::{cmp::Reverse, collections::HashMap};

use super::{
    super::result::{
        Columns,
        Kind::{Int8, Text},
        Row,
    },
    text,
};
use crate::{
    admin::commands::Commands,
    worker::{queries::QueryRow, report::ReportKind},
};

/// Rows that are shown.
const MOST: usize = 100;

pub(super) const QUERIES: Columns = &[
    ("database", Text),
    ("user", Text),
    ("node", Text),
    ("query", Text),
    ("calls", Int8),
    ("errors", Int8),
    ("total_time", Int8),
    ("avg_time", Int8),
    ("max_time", Int8),
    ("total_wait_time", Int8),
    ("rows", Int8),
    ("bytes", Int8),
];

/// Those that have taken the most time first. Times in microseconds.
pub(super) async fn queries(commands: &Commands) -> Vec<Row> {
    top_queries(commands, MOST).await.into_iter().map(shown).collect()
}

/// The same, so many at most.
pub(crate) async fn top_queries(commands: &Commands, most: usize) -> Vec<QueryRow> {
    let mut sums: HashMap<[String; 4], QueryRow> = HashMap::new();
    for row in commands.report(ReportKind::Queries).await.queries {
        let key = [&row.database, &row.user, &row.node, &row.text].map(String::clone);
        match sums.get_mut(&key) {
            Some(sum) => sum.add(&row),
            None => drop(sums.insert(key, row)),
        }
    }
    let mut rows: Vec<QueryRow> = sums.into_values().collect();
    rows.sort_by_cached_key(|row| (Reverse(row.time), Reverse(row.calls), row.text.clone()));
    rows.truncate(most);
    rows
}

fn shown(row: QueryRow) -> Row {
    let mut shown = vec![text(row.database), text(row.user), text(row.node), text(row.text)];
    let average = row.time.checked_div(row.calls).unwrap_or(0);
    let numbers = [row.calls, row.errors, row.time, average, row.longest, row.wait, row.rows, row.bytes];
    shown.extend(numbers.map(text));
    shown
}

impl QueryRow {
    /// Adds the same kind's row of another worker.
    fn add(&mut self, other: &Self) {
        self.calls += other.calls;
        self.errors += other.errors;
        self.time += other.time;
        self.longest = self.longest.max(other.longest);
        self.wait += other.wait;
        self.rows += other.rows;
        self.bytes += other.bytes;
    }
}
