//! Pooler as a whole, in front of real PostgreSQL servers.
//!
//! One binary, so that all of it shares one cluster per PostgreSQL version. Each test has a database and a pooler
//! of its own; most compare what a client sees through pooler with what it sees at PostgreSQL itself.

#![allow(unreachable_pub, reason = "a binary has no outside")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod support;

mod bad_input;
mod cancel;
mod copy;
mod demo;
mod disconnect;
mod harness;
mod pipeline;
mod prepared;
