//! Sockets and TLS.
//!
//! Connections are opened and logged in with tokio (sequential code, off the workers) and then handed to a
//! worker as plain non-blocking sockets, with the TLS session beside them.

pub mod http;
pub mod timer;
pub mod tls;
pub mod wire;

use std::{net::TcpStream, os::unix::net::UnixStream};

/// A connected, non-blocking stream socket that no reactor owns at the moment.
#[derive(Debug)]
pub enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A socket with the TLS session that was set up on it.
#[derive(Debug)]
pub struct Stream {
    pub socket: Socket,
    /// The established session (no handshake pending), as client or as server; `None`: clear text.
    pub tls: Option<Box<rustls::Connection>>,
}
