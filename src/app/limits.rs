//! Limits on client connections, counted before authentication.

/// Counts one client connection until it is dropped.
#[derive(Debug)]
pub struct ClientPermit {}
