//! What the tests stand on: clusters, poolers, a client that sends any bytes, and comparison of the two ends.

#![allow(dead_code, reason = "what one group of tests needs, the next may not yet")]

pub mod compare;
pub mod database;
pub mod debian;
pub mod gate;
pub mod hammer;
pub mod http;
pub mod load;
pub mod msg;
pub mod pgbouncer;
pub mod pooler;
pub mod raw;
pub mod replicated;
pub mod systemd;
pub mod tls;
pub mod truth;
