//! TLS towards clients and servers, by rustls.

/// TLS settings towards servers: roots, client certificate. One per loaded configuration.
#[derive(Debug)]
pub struct ServerTls {}
