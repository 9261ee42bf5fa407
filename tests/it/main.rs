//! Pooler as a whole, in front of real PostgreSQL servers.
//!
//! One binary, so that all of it shares one cluster per PostgreSQL version. Each test has a database and a pooler
//! of its own; most compare what a client sees through pooler with what it sees at PostgreSQL itself.

#![allow(unreachable_pub, reason = "a binary has no outside")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod support;

mod auth;
mod bad_input;
mod cancel;
mod check_connect;
mod companions;
mod console;
mod copy;
mod currval;
mod demo;
mod directories;
mod disconnect;
mod discovery;
mod every_setting;
mod failover;
mod freshness;
mod harness;
mod hba;
mod held_requests;
mod hidden_state;
mod hosts;
mod idle_pools;
mod init;
mod limits;
mod listeners;
mod logins;
mod lookups;
mod memory;
mod metrics;
mod modes;
mod names;
mod node_lists;
mod notices;
mod notifications;
mod own_portals;
mod own_settings;
mod pam;
mod parameters;
mod patroni;
mod peers;
mod pgbouncer;
mod pins;
mod pipeline;
mod prepared;
mod program;
mod queries;
mod query_log;
mod reload;
mod replicas;
mod replication;
mod restarts;
mod routing_console;
mod routing_edges;
mod routing_table;
mod routing_transactions;
mod session_state;
mod settings;
mod shutdown;
mod sql_prepare;
mod status;
mod suspend;
mod switchover;
mod timeouts;
mod tls;
mod tokens;
mod top;
mod traces;
mod waiting;
