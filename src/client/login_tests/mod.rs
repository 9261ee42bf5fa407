//! Logins over real sockets: a listener of ours on the loopback, real clients (psql, tokio-postgres) and
//! clients that say exactly what a test wants them to say.

mod clients;
mod failures;
mod protocol;
mod stage;
