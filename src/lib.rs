//! pooler: thousands of PostgreSQL client sessions on a few server connections.
//!
//! # Layers, lowest first (kept by `tests/architecture.rs`)
//!
//! | layer | owns |
//! |---|---|
//! | `calendar`, `error`, `events`, `protocol` | dates; how errors are told; what has happened lately; tags, headers, startup packets, encoding |
//! | `config`, `auth` | settings table, `pooler.toml`, pgbouncer.ini, HBA rules; SCRAM, md5, stored secrets (pure) |
//! | `sql` | what a text does: lexer, classes, what is known of a database's catalog (pure) |
//! | `session` | reply queue, prepared statements, parameter labels, translation both ways (pure) |
//! | `net` | sockets of a worker, TLS |
//! | `server` | connecting and logging in to PostgreSQL (names: `server::names`), cancel requests |
//! | `cluster` | the nodes of a database: roles, and what replicas have caught up with |
//! | `pool` | budgets, the shared face of a pool, lists of hosts (`pool::hosts`), statistics |
//! | `client` | from accept to a proven login (auth_query, `client::ldap`, `client::pam`); limits on clients |
//! | `worker` | threads with an epoll each: queues, relay, release, deadlines; what they share (`worker::process`), peers (`worker::peers`) |
//! | `cli` | arguments, also those of PgBouncer |
//! | `admin` | what operators can do and see: the console, its commands, reload, metrics, the status page |
//! | `app` | the process: log, listeners, signals, user, background, pid file |
//! | `inspect` | what a configuration leads to, for `pooler check --connect` |
//! | `init`, `top` | `pooler init`, which writes a configuration; `pooler top`, which watches a console |
//! | `demo` | throwaway clusters, for `pooler demo` and the tests |
//!
//! *Client* and *server* are the two ends of pooler (a server is one connection to PostgreSQL); *upstream* is the way from
//! client to server, *downstream* the way back. A *label* is a set of parameters that can be compared by its pointer.
//!
//! # Life of a query
//!
//! A client logs in on tokio (`client::login`) and is handed to a worker as a bare socket (`worker::login`). Its
//! request stays unread in the socket until a server is free (`worker::queue`). `worker::relay` reads it,
//! `session::upstream` notes what the server will owe and puts settings (`session::setting`) and missing statements in front, and
//! one write sends it; settings that might be refused are tried before (`worker::trying`). The reply comes back by `worker::replies` and `session::downstream`; with ReadyForQuery and nothing
//! owed, `worker::release` frees the server for the first who waits. If a text may
//! have left something in the session, or a function that it calls (`session::hidden`, by the database's catalog), the server is
//! asked first (`session::traces`): settings become the client's label, what SQL PREPARE has made follows (`session::prepared`),
//! and what cannot follow it keeps the server (`worker::pins`). What each kind of statement takes is counted (`session::queries`), and transactions are traced (`worker::spans`). What clients listen to is heard by one connection of their database
//! (`worker::listeners`, `worker::listening`, `worker::notifications`; `session::channels`). Clients share as few workers as the load needs
//! and move between transactions (`worker::balance`), also to the process that takes this one's place (`worker::departure`,
//! `app::succession`). Who replicates has a server alone, and all that they say passes as it is (`worker::tunnel`).
//!
//! # Where the database has nodes
//!
//! `cluster` finds them (`cluster::discovery`, whose tasks `worker::discovery` runs) and watches them: roles, and which
//! replica has replayed what. `worker::route` looks at a request as a whole (`session::unit`), asks `sql` what it does, by
//! the catalog that `cluster` keeps, and picks a node, which is a pool of its own. `worker::routed` lets a pipeline go on there
//! as far as it may, and raises the floors that later reads must have seen before a writer is told that it is done.
//! `worker::replay` runs reads again elsewhere, `worker::lost` lets clients outlive
//! their servers, `worker::begin` and `worker::own` answer what no server needs to see.

pub(crate) mod admin;
pub mod app;
pub mod auth;
mod calendar;
pub mod cli;
pub mod client;
pub mod cluster;
pub mod config;
pub mod demo;
pub mod error;
pub mod events;
pub mod init;
pub mod inspect;
pub mod net;
pub mod pool;
pub mod protocol;
pub mod server;
pub mod session;
pub mod sql;
pub mod top;
pub(crate) mod worker;
