//! Counters of a shard: written by one worker, read by anyone; and averages over the last while.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Counters of one shard. Times in microseconds.
        #[derive(Debug, Default)]
        pub struct ShardStats { $($(#[$doc])* pub $name: Counter,)* }

        /// The sum over shards, at one moment.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Totals { $($(#[$doc])* pub $name: u64,)* }

        impl Totals {
            /// Adds what a shard has counted.
            pub fn add(&mut self, shard: &ShardStats) {
                $(self.$name += shard.$name.get();)*
            }

            /// Adds another sum.
            pub fn plus(&self, other: &Self) -> Self {
                Self { $($name: self.$name.saturating_add(other.$name),)* }
            }

            /// What came since `earlier`.
            pub fn since(&self, earlier: &Self) -> Self {
                Self { $($name: self.$name.saturating_sub(earlier.$name),)* }
            }

            /// How much of each came in a second, if this came in so many microseconds.
            fn per_second(&self, micros: u64) -> Self {
                let rate = |n: u64| u128::from(n) * 1_000_000 / u128::from(micros.max(1));
                Self { $($name: u64::try_from(rate(self.$name)).unwrap_or(u64::MAX),)* }
            }
        }
    };
}

counters! {
    /// Times a client was given a server.
    server_assignments,
    transactions,
    queries,
    /// Bytes from clients.
    received,
    /// Bytes from servers.
    sent,
    transaction_time,
    query_time,
    wait_time,
    client_parses,
    server_parses,
    binds,
    logins,
    /// Times a server was asked what its client has left in the session.
    questions,
    /// Times it held what no text had told of.
    surprises,
    /// Requests that were sent again elsewhere.
    retries,
}

/// A counter with one writer: no locked instruction on the path of a query.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds; only the owning worker may.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// The value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Room for reasons of routing.
const REASONS: usize = 32;

/// How many requests came for which reason, by its number.
#[derive(Debug, Default)]
pub struct Routes([Counter; REASONS]);

impl Routes {
    /// Counts one; only the owning worker may.
    pub fn add(&self, reason: usize) {
        if let Some(counter) = self.0.get(reason) {
            counter.add(1);
        }
    }

    /// How many there were.
    pub fn get(&self, reason: usize) -> u64 {
        self.0.get(reason).map_or(0, Counter::get)
    }
}

impl Totals {
    /// Counts and bytes per second, times per transaction, query and assignment: what PgBouncer calls averages.
    pub fn averages(&self, micros: u64) -> Self {
        Self {
            transaction_time: self.transaction_time / self.transactions.max(1),
            query_time: self.query_time / self.queries.max(1),
            wait_time: self.wait_time / self.server_assignments.max(1),
            ..self.per_second(micros)
        }
    }
}

/// What each database had counted at one moment.
#[derive(Clone, Debug, Default)]
struct Snapshot {
    /// Microseconds of the process clock.
    at: u64,
    totals: BTreeMap<String, Totals>,
}

/// The last two ticks of stats_period. Averages are taken since the older one, as in PgBouncer, so that they are over
/// one to two periods and never over next to nothing.
#[derive(Debug, Default)]
pub struct History(Mutex<[Snapshot; 2]>);

impl History {
    fn lock(&self) -> MutexGuard<'_, [Snapshot; 2]> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what is counted now. Returns averages of all databases together since the last tick.
    pub fn tick(&self, now: u64, totals: BTreeMap<String, Totals>) -> Totals {
        let mut snapshots = self.lock();
        let [_, last] = &*snapshots;
        let sum = difference(&totals, &last.totals).values().fold(Totals::default(), |sum, t| sum.plus(t));
        let averages = sum.averages(now.saturating_sub(last.at));
        let last = last.clone();
        *snapshots = [last, Snapshot { at: now, totals }];
        averages
    }

    /// What each database counted since the tick before the last, and how many microseconds ago that was.
    pub fn window(&self, now: u64, totals: &BTreeMap<String, Totals>) -> (u64, BTreeMap<String, Totals>) {
        let [older, _] = &*self.lock();
        (now.saturating_sub(older.at), difference(totals, &older.totals))
    }
}

fn difference(
    totals: &BTreeMap<String, Totals>,
    earlier: &BTreeMap<String, Totals>,
) -> BTreeMap<String, Totals> {
    let since = |(name, t): (&String, &Totals)| {
        (name.clone(), t.since(&earlier.get(name).copied().unwrap_or_default()))
    };
    totals.iter().map(since).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(transactions: u64, transaction_time: u64) -> BTreeMap<String, Totals> {
        BTreeMap::from([("app".to_owned(), Totals { transactions, transaction_time, ..Totals::default() })])
    }

    #[test]
    fn averages_are_per_second_and_times_per_item() {
        let totals = Totals {
            transactions: 10,
            queries: 20,
            server_assignments: 4,
            received: 3_000,
            transaction_time: 1_000,
            query_time: 800,
            wait_time: 8,
            ..Totals::default()
        };
        let averages = totals.averages(2_000_000);
        assert_eq!(
            (averages.transactions, averages.queries, averages.server_assignments, averages.received),
            (5, 10, 2, 1_500)
        );
        assert_eq!((averages.transaction_time, averages.query_time, averages.wait_time), (100, 40, 2));
        assert_eq!(Totals::default().averages(0), Totals::default());
    }

    #[test]
    fn averages_forget_what_was_before_the_tick_before_the_last() {
        let history = History::default();
        let second = 1_000_000;
        // Before any tick: since the start.
        let (over, since) = history.window(4 * second, &counted(8, 80));
        assert_eq!((over, since), (4 * second, counted(8, 80)));
        assert_eq!(history.tick(10 * second, counted(1_000, 2_000)).transactions, 100);
        assert_eq!(history.tick(20 * second, counted(1_500, 2_500)).transactions, 50);
        let (over, since) = history.window(25 * second, &counted(1_800, 2_800));
        assert_eq!((over, since), (15 * second, counted(800, 800)));
        assert_eq!(history.tick(30 * second, counted(1_800, 2_800)).transaction_time, 1);
        let (over, since) = history.window(30 * second, &counted(1_800, 2_800));
        assert_eq!((over, since), (10 * second, counted(300, 300)));
    }

    #[test]
    fn totals_that_shrink_with_a_removed_pool_count_as_none() {
        let history = History::default();
        history.tick(1, counted(100, 100));
        history.tick(2, counted(100, 100));
        assert_eq!(history.window(3, &counted(5, 5)).1, counted(0, 0));
    }
}
