//! The monitor of a cluster at real PostgreSQL servers: roles, failovers, and the epoch rule.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking; clippy sees only #[test] functions as tests"
)]

mod cluster {
    mod epochs;
    mod failover;
    pub(crate) mod watch;
}
