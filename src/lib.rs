//! pooler: thousands of PostgreSQL client sessions on a few server connections.
//!
//! # Layers, lowest first (kept by `tests/architecture.rs`)
//!
//! | layer | owns |
//! |---|---|
//! | `error`, `protocol` | how errors are told; tags, headers, startup packets, encoding |
//! | `config`, `auth` | settings table, `pooler.toml`; SCRAM, md5, stored secrets (pure) |
//! | `session` | reply queue, prepared statements, parameter labels, translation both ways (pure) |
//! | `net` | sockets of a worker, TLS |
//! | `server` | connecting and logging in to PostgreSQL, cancel requests |
//! | `pool` | budgets, the shared face of a pool, statistics |
//! | `client` | from accept to a proven login |
//! | `worker` | threads with an epoll each: queues, relay, release, deadlines |
//! | `admin` | the console |
//! | `app` | listeners, commands, signals, reload |
//!
//! # Life of a query
//!
//! A client logs in on tokio (`client::login`) and is handed to a worker as a bare socket (`worker::login`). Its
//! request stays unread in the socket until a server is free (`worker::queue`). `worker::relay` reads it,
//! `session::upstream` notes what the server will owe and puts settings and missing statements in front, and one write
//! sends it. The reply comes the same way back through `session::downstream`; with ReadyForQuery and nothing
//! owed, `worker::release` frees the server for the first who waits. Clients share as few workers as the load needs
//! and move between transactions (`worker::balance`).

pub(crate) mod admin;
pub mod app;
pub mod auth;
pub mod cli;
pub mod client;
pub mod config;
pub mod demo;
pub mod error;
pub mod net;
pub mod pool;
pub mod protocol;
pub mod server;
pub mod session;
pub(crate) mod worker;
