//! Authentication exchanges, both as server (towards clients) and as client (towards PostgreSQL).
//! No sockets. Source: PostgreSQL docs "SASL Authentication"; RFC 5802, 7677, 5929.

pub mod error;
pub mod md5;
pub mod scram;
pub mod scram_client;
pub mod scram_server;
pub mod secrets;
pub mod stored;

pub use error::AuthError;
pub(crate) use scram::random;
pub use scram::{ScramKeys, ScramSecret};
pub use scram_client::{ScramClient, ScramSecretSource};
pub use scram_server::ScramServer;
pub use secrets::SecretCache;
pub use stored::Stored;
