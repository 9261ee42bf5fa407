//! A client on its worker.

use std::sync::Arc;

use tokio::sync::mpsc::UnboundedSender;

use super::{conn::Conn, message::ConsoleInput};
use crate::{
    app::limits::ClientPermit,
    config::{PeerAddr, User},
    session::{params::Params, state::ClientSession},
};

/// Where a client stands.
#[derive(Debug)]
pub(crate) enum ClientState {
    /// Proved who it is; waits for a server, to be told the parameters.
    LoginWaiting,
    /// A server tries the client's startup parameters.
    LoginLinked(usize),
    /// No request is open.
    Idle,
    /// In the queue of its pool, with a request that has not been read (or not been sent).
    Waiting,
    /// Has a server.
    Linked(usize),
    /// Talks to the console.
    Console(UnboundedSender<ConsoleInput>),
}

impl ClientState {
    /// The server that the client has.
    pub(crate) fn server(&self) -> Option<usize> {
        match self {
            Self::Linked(slot) | Self::LoginLinked(slot) => Some(*slot),
            _ => None,
        }
    }

    /// In a queue.
    pub(crate) fn is_waiting(&self) -> bool {
        matches!(self, Self::Waiting | Self::LoginWaiting)
    }
}

/// One client. Small: thousands of them are idle.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) conn: Conn,
    pub(crate) session: ClientSession,
    pub(crate) state: ClientState,
    /// Its pool's shard on this worker.
    pub(crate) shard: usize,
    /// The start of a message whose rest has not come, or a request that waits for a server.
    pub(crate) pending: Vec<u8>,
    /// When it came into its state, in microseconds of the process clock.
    pub(crate) since: u64,
    /// Its request was cancelled while it waited: what is left of it is to be thrown away up to here.
    pub(crate) discarding: bool,
    pub(crate) info: Box<ClientInfo>,
}

/// What is needed at login, at the end, and for SHOW CLIENTS.
#[derive(Debug)]
pub(crate) struct ClientInfo {
    pub(crate) user: String,
    pub(crate) user_config: Arc<User>,
    pub(crate) database: String,
    pub(crate) peer: PeerAddr,
    pub(crate) tls: String,
    /// Secret of its cancel key.
    pub(crate) secret: Box<[u8]>,
    /// Startup parameters, until they are in its label.
    pub(crate) wanted: Params,
    /// What goes out in front of AuthenticationOk (the server's SCRAM proof).
    pub(crate) unsent: Vec<u8>,
    /// Unix time of the login, in microseconds.
    pub(crate) connected_at: u64,
    /// When bytes that it does not read began to wait; 0: none do.
    pub(crate) stuck_since: u64,
    /// Held for what its end gives back.
    pub(crate) _permit: ClientPermit,
}
