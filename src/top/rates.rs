//! What has happened between two samples.

use std::time::Duration;

use super::sample::{Counters, Query, Sample};

/// Of one database, or of all; times are averages in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Rates {
    pub(super) transactions: f64,
    pub(super) queries: f64,
    pub(super) received: f64,
    pub(super) sent: f64,
    pub(super) transaction_time: Option<f64>,
    pub(super) query_time: Option<f64>,
    /// Of each transaction.
    pub(super) wait_time: Option<f64>,
}

#[expect(clippy::cast_precision_loss, reason = "shown with three digits")]
pub(super) fn float(number: u64) -> f64 {
    number as f64
}

/// `None`: the counters have begun anew.
pub(super) fn rates(before: &Counters, after: &Counters, time: Duration) -> Option<Rates> {
    let seconds = time.as_secs_f64();
    if seconds <= 0.0 {
        return None;
    }
    let grown = |of: fn(&Counters) -> u64| of(after).checked_sub(of(before)).map(float);
    let (transactions, queries) = (grown(|c| c.transactions)?, grown(|c| c.queries)?);
    let average = |time: f64, count: f64| (count > 0.0).then(|| time / count);
    Some(Rates {
        transactions: transactions / seconds,
        queries: queries / seconds,
        received: grown(|c| c.received)? / seconds,
        sent: grown(|c| c.sent)? / seconds,
        transaction_time: average(grown(|c| c.transaction_time)?, transactions),
        query_time: average(grown(|c| c.query_time)?, queries),
        wait_time: average(grown(|c| c.wait_time)?, transactions),
    })
}

/// Of one database.
pub(super) fn of_database(before: &Sample, after: &Sample, name: &str) -> Option<Rates> {
    let find = |sample: &Sample| sample.databases.iter().find(|d| d.name == name).map(|d| d.counters);
    rates(&find(before).unwrap_or_default(), &find(after)?, after.at.duration_since(before.at))
}

/// Of all together. What is gone meanwhile has not happened backwards.
pub(super) fn of_all(before: &Sample, after: &Sample) -> Option<Rates> {
    let sum = |sample: &Sample| {
        let still_there =
            sample.databases.iter().filter(|d| after.databases.iter().any(|other| other.name == d.name));
        still_there.fold(Counters::default(), |sum, d| Counters {
            transactions: sum.transactions + d.counters.transactions,
            queries: sum.queries + d.counters.queries,
            received: sum.received + d.counters.received,
            sent: sum.sent + d.counters.sent,
            transaction_time: sum.transaction_time + d.counters.transaction_time,
            query_time: sum.query_time + d.counters.query_time,
            wait_time: sum.wait_time + d.counters.wait_time,
        })
    };
    rates(&sum(before), &sum(after), after.at.duration_since(before.at))
}

/// Calls of a kind of statement in a second.
pub(super) fn calls(before: &Sample, after: &Sample, query: &Query) -> Option<f64> {
    let is_same = |other: &&Query| {
        (&other.database, &other.user, &other.node, &other.text)
            == (&query.database, &query.user, &query.node, &query.text)
    };
    let known = before.queries.as_ref()?.iter().find(is_same).map_or(0, |other| other.calls);
    let seconds = after.at.duration_since(before.at).as_secs_f64();
    let grown = query.calls.checked_sub(known)?;
    (seconds > 0.0).then(|| float(grown) / seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_per_second_and_averages_per_piece() {
        let before = Counters { transactions: 100, queries: 200, received: 10, ..Counters::default() };
        let after = Counters {
            transactions: 150,
            queries: 400,
            received: 4010,
            sent: 2000,
            transaction_time: 50_000,
            query_time: 20_000,
            wait_time: 0,
        };
        let found = rates(&before, &after, Duration::from_secs(2)).unwrap();
        assert_eq!(
            (found.transactions, found.queries, found.received, found.sent),
            (25.0, 100.0, 2000.0, 1000.0)
        );
        assert_eq!(
            (found.transaction_time, found.query_time, found.wait_time),
            (Some(1000.0), Some(100.0), Some(0.0))
        );
        // Nothing has happened: there is nothing to divide by.
        let idle = rates(&after, &after, Duration::from_secs(2)).unwrap();
        assert_eq!((idle.transactions, idle.transaction_time), (0.0, None));
        // Another process answers now.
        assert_eq!(rates(&after, &before, Duration::from_secs(2)), None);
        assert_eq!(rates(&before, &after, Duration::ZERO), None);
    }
}
