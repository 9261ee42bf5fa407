//! Counters of a shard: written by one worker, read by anyone.

use std::sync::atomic::{AtomicU64, Ordering};

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

            /// What came since `earlier`.
            pub fn since(&self, earlier: &Self) -> Self {
                Self { $($name: self.$name.saturating_sub(earlier.$name),)* }
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
