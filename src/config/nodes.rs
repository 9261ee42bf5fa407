//! Where the nodes of a database are, or where that is found out.

use std::{fmt, net::IpAddr};

/// Most nodes of a database.
pub const MOST_NODES: usize = 64;

/// Where a node of a database is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NodeAddress {
    /// Name, IP address, or directory of a unix socket.
    pub host: String,
    pub port: u16,
    /// Share of the reads, compared with other replicas; 0: none.
    pub weight: u32,
    /// Which addresses of the name are meant.
    pub at: At,
}

/// Which addresses of a name are meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum At {
    /// Whichever answers: they lead to the same server.
    #[default]
    Any,
    /// Each is another node. Which there are has to be found out before anybody can connect.
    Each,
    /// This one, which was found.
    Ip(IpAddr),
}

impl NodeAddress {
    /// With the same share of the reads as others.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self { host: host.into(), port, weight: 1, at: At::Any }
    }

    /// Whether both lead to the same server, whatever share of the reads it gets.
    pub fn is_same(&self, other: &Self) -> bool {
        (&self.host, self.port, self.at) == (&other.host, other.port, other.at)
    }

    /// The IP address, where it needs no name.
    pub fn ip(&self) -> Option<IpAddr> {
        match self.at {
            At::Any => self.host.parse().ok(),
            At::Each => None,
            At::Ip(ip) => Some(ip),
        }
    }
}

/// As in logs and in SHOW.
impl fmt::Display for NodeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at {
            At::Any => write!(f, "{}:{}", self.host, self.port),
            At::Each => write!(f, "{}(not found yet):{}", self.host, self.port),
            At::Ip(ip) => write!(f, "{}({ip}):{}", self.host, self.port),
        }
    }
}

/// The REST API of a member of a Patroni cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PatroniApi {
    pub https: bool,
    pub host: String,
    pub port: u16,
}

/// Host and port as they are written together: addresses of IPv6 stand in brackets (RFC 3986, 3.2.2).
pub fn host_with_port(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// As in the configuration.
impl fmt::Display for PatroniApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.https { "https" } else { "http" };
        write!(f, "{scheme}://{}", host_with_port(&self.host, self.port))
    }
}
