//! A client on its worker.

use std::sync::Arc;

use super::{conn::Conn, listening::Listening, message::ConsoleLink, routing::Routing};
use crate::{
    client::{limits::ClientPermit, startup::Replication},
    config::{PeerAddr, PoolMode, User},
    protocol::BackendKeyData,
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
    /// Waits for a node that can take its request.
    Held,
    /// Has a server.
    Linked(usize),
    /// Wants to replicate; waits for a server of its own.
    TunnelWaiting(Box<TunnelWait>),
    /// All that it sends goes to this server as it is, and the other way round.
    Tunnel(usize),
    /// Talks to the console.
    Console(ConsoleLink),
}

/// Of a client that waits for a server of its own.
#[derive(Debug)]
pub(crate) struct TunnelWait {
    /// For the server.
    pub(crate) parameters: Vec<(String, String)>,
    pub(crate) connecting: bool,
    /// Not before, in microseconds of the process clock.
    pub(crate) retry_at: u64,
    /// With what the last attempt has ended.
    pub(crate) last: Option<String>,
}

impl ClientState {
    /// The server that the client has.
    pub(crate) fn server(&self) -> Option<usize> {
        match self {
            Self::Linked(slot) | Self::LoginLinked(slot) | Self::Tunnel(slot) => Some(*slot),
            _ => None,
        }
    }

    /// In a queue.
    pub(crate) fn is_waiting(&self) -> bool {
        matches!(self, Self::Waiting | Self::Held | Self::LoginWaiting)
    }
}

/// Why a request is not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It was cancelled while it waited.
    Canceled,
    /// Its transaction was open on a server that is gone.
    TransactionLost,
    /// No node took writes for as long as it may wait.
    NoPrimary,
    /// No replica could take what its client wants to be done by one and no other.
    NoReplica,
    /// For as long it was not found out who is the primary on the timeline of its `pooler.read_after`.
    Behind,
    /// The replica of its transaction did not show what had been committed meanwhile, for as long as it may wait.
    NotReplayed,
    /// Its server takes settings of its session no more; what it has said is in [`ClientInfo::refused`].
    Settings,
    /// Its transaction has failed, and has not been ended.
    Aborted,
}

/// What is thrown away of a request that is not carried out, as after an error at its first message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Discarding {
    Nothing,
    /// The first message, and all up to Sync if it is one of the extended query protocol.
    Request(Refusal),
    /// All up to Sync.
    UpToSync,
}

/// One client. Small: thousands of them are idle.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) conn: Conn,
    pub(crate) session: ClientSession,
    pub(crate) state: ClientState,
    /// Its pool's shard on this worker.
    pub(crate) shard: usize,
    /// The pool mode that it came under. It keeps that although a reload may change the pool's: what it has left on a
    /// server, or what its names stand for, depends on it.
    pub(crate) mode: PoolMode,
    /// The start of a message whose rest has not come, or a request that waits for a server.
    pub(crate) pending: Vec<u8>,
    /// When it came into its state, in microseconds of the process clock.
    pub(crate) since: u64,
    /// Its request was cancelled while it waited: what is left of it is to be thrown away up to here.
    pub(crate) discarding: Discarding,
    /// No server knows of its transaction any more: until it ends it, all that it asks for is refused, with this.
    pub(crate) aborted: Option<Refusal>,
    /// `pending` holds messages that have to wait for the server: nothing more is read meanwhile.
    pub(crate) stalled: bool,
    /// Bytes of a message that is thrown away and still on its way.
    pub(crate) ignoring: usize,
    /// Where the database has nodes: made with its first request.
    pub(crate) routing: Option<Box<Routing>>,
    /// As long as it listens without a server of its own.
    pub(crate) listening: Option<Box<Listening>>,
    pub(crate) info: Box<ClientInfo>,
}

impl Client {
    /// It has no server any more, and nothing of its input waits for the replies of one.
    pub(crate) fn part(&mut self, now: u64) {
        self.state = ClientState::Idle;
        self.since = now;
        self.stalled = false;
        self.session.held = false;
        if let Some(listening) = &mut self.listening {
            listening.owns = false;
        }
    }

    /// More of a reply can go to it. One that is behind for a while takes the end of a short one, for later.
    pub(crate) fn takes_more(&self) -> bool {
        self.conn.is_flushed() || (self.info.stuck_since > 0 && self.conn.has_room())
    }
}

/// What is needed at login, at the end, and for SHOW CLIENTS.
#[derive(Debug)]
pub(crate) struct ClientInfo {
    pub(crate) user: String,
    pub(crate) user_config: Arc<User>,
    pub(crate) database: String,
    pub(crate) peer: PeerAddr,
    pub(crate) tls: String,
    /// Its cancel key.
    pub(crate) key: BackendKeyData,
    pub(crate) replication: Replication,
    /// Startup parameters, until they are in its label.
    pub(crate) wanted: Params,
    /// What goes out in front of AuthenticationOk (the server's SCRAM proof).
    pub(crate) unsent: Vec<u8>,
    /// Unix time of the login, in microseconds.
    pub(crate) connected_at: u64,
    /// When the wait for a server began of which it has been told.
    pub(crate) told_of: u64,
    /// When bytes that it does not read began to wait; 0: none do.
    pub(crate) stuck_since: u64,
    /// The error of a server that its next request is to be refused with.
    pub(crate) refused: Option<Box<[u8]>>,
    /// It is not given to another process.
    pub(crate) stays: bool,
    /// Held for what its end gives back.
    pub(crate) _permit: ClientPermit,
}
