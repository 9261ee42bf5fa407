//! Authentication exchanges, both as server (towards clients) and as client (towards PostgreSQL).
//! Pure: no sockets. Source: PostgreSQL docs "SASL Authentication"; RFC 5802, 7677, 5929, 9266.

/// The keys a client proved during SCRAM: enough to log in to a server that stores the same secret.
#[derive(Clone, PartialEq, Eq)]
pub struct ScramKeys {
    pub client_key: [u8; 32],
    pub server_key: [u8; 32],
}

impl std::fmt::Debug for ScramKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ScramKeys(…)")
    }
}
