//! Throughput and latency of the last minutes, for the page: a point every few seconds, in bounded memory.

use std::{collections::VecDeque, sync::Arc};

use serde::Serialize;

use crate::pool::{Pool, histogram::Distribution, stats::Totals};

/// Points that are kept.
const KEPT: usize = 150;

/// What all pools have counted, at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sums {
    totals: Totals,
    errors: u64,
    transactions: Distribution,
    waits: Distribution,
}

impl Sums {
    pub(super) fn of(pools: &[Arc<Pool>]) -> Self {
        let mut sums = Self::default();
        for shard in pools.iter().flat_map(|pool| &pool.shards) {
            sums.totals.add(&shard.stats);
            sums.transactions.add(&shard.transaction_times);
            sums.waits.add(&shard.wait_times);
            let errors = [&shard.errors, &shard.refusals].into_iter().flat_map(|errors| errors.counts());
            sums.errors += errors.map(|(_, count)| count).sum::<u64>();
        }
        sums
    }
}

/// What came in a while, by second; times in microseconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Point {
    /// Unix time in milliseconds.
    at: u64,
    transactions: f64,
    queries: f64,
    errors: f64,
    received: f64,
    sent: f64,
    p50: Option<u64>,
    p99: Option<u64>,
    /// Of the waits for a server.
    wait_p99: Option<u64>,
}

/// The last points.
#[derive(Debug, Default)]
pub(super) struct History {
    last: Option<(u64, Sums)>,
    points: VecDeque<Point>,
}

impl History {
    /// Notes what has been counted up to `now`, in microseconds of the process clock.
    pub(super) fn add(&mut self, now: u64, unix: u64, sums: Sums) {
        if let Some((then, before)) = self.last.replace((now, sums)) {
            let more = sums.totals.since(&before.totals);
            let seconds = now.saturating_sub(then).max(1) as f64 / 1e6;
            let rate = |count: u64| (count as f64 / seconds * 10.0).round() / 10.0;
            let transactions = sums.transactions.since(&before.transactions);
            if self.points.len() == KEPT {
                self.points.pop_front();
            }
            self.points.push_back(Point {
                at: unix / 1000,
                transactions: rate(more.transactions),
                queries: rate(more.queries),
                errors: rate(sums.errors.saturating_sub(before.errors)),
                received: rate(more.received),
                sent: rate(more.sent),
                p50: transactions.quantile(0.5),
                p99: transactions.quantile(0.99),
                wait_p99: sums.waits.since(&before.waits).quantile(0.99),
            });
        }
    }

    /// All points, the oldest first.
    pub(super) fn points(&self) -> Vec<Point> {
        self.points.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_of_what_came_in_between_and_bounded() {
        let mut history = History::default();
        let counted = |transactions| Sums {
            totals: Totals { transactions, ..Totals::default() },
            errors: transactions / 2,
            ..Sums::default()
        };
        history.add(1_000_000, 5_000_000, counted(100));
        assert!(history.points().is_empty());
        history.add(3_000_000, 7_000_000, counted(150));
        // A pool has gone, and its counts with it.
        history.add(5_000_000, 9_000_000, counted(20));
        let points = history.points();
        assert_eq!((points[0].at, points[0].transactions, points[0].errors), (7_000, 25.0, 12.5));
        assert_eq!((points[1].transactions, points[1].errors, points[1].p99), (0.0, 0.0, None));
        (0..500).for_each(|n| history.add(6_000_000 + n, n, counted(n)));
        assert_eq!(history.points().len(), KEPT);
    }
}
