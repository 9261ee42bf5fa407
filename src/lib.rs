//! pooler: thousands of PostgreSQL client sessions on a few server connections.

pub mod app;
pub mod auth;
pub mod cli;
pub mod client;
pub mod config;
pub mod error;
pub mod net;
pub mod protocol;
pub mod server;
pub mod session;
