//! Authentication exchanges, both as server (towards clients) and as client (towards PostgreSQL).
//! Pure: no sockets. Source: PostgreSQL docs "SASL Authentication"; RFC 5802, 7677, 5929, 9266.

pub mod error;
pub mod md5;
pub mod scram;
pub mod scram_client;
pub mod scram_server;

pub use error::AuthError;
pub use scram::{ScramKeys, ScramSecret};
pub use scram_client::{ScramClient, ScramSecretSource};
pub use scram_server::ScramServer;
