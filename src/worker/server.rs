//! A server connection on its worker.

use std::{io, sync::Arc};

use tokio::sync::oneshot;

use super::{conn::Conn, long::Pace, message::CancelJob, pins::Pin, routed::Routed, spans::Recording};
use crate::{
    cluster::CatalogState,
    pool::Pool,
    protocol::BackendKeyData,
    server::{CancelTarget, Names},
    session::state::ServerSession,
};

/// Where a server stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ServerState {
    /// In its shard's idle list.
    Idle,
    /// Between two users: about to be handed to the next.
    Free,
    /// Works for a client.
    Active(usize),
    /// Checked before use.
    Testing,
    /// Runs the reset query, or a rollback.
    Resetting,
    /// Its client has left; the rest of the reply is thrown away.
    Draining,
    /// Free, but a cancel request for it is still under way.
    BeingCanceled,
}

/// One server.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) conn: Conn,
    pub(crate) session: ServerSession,
    pub(crate) state: ServerState,
    pub(crate) pool: Arc<Pool>,
    /// The pool's shard on this worker.
    pub(crate) shard: usize,
    pub(crate) routed: Routed,
    /// What is known of its host's catalog, where the database has no nodes.
    pub(crate) catalog: Arc<CatalogState>,
    /// Unique in the process.
    pub(crate) id: u64,
    /// Its client has it until it leaves (pool mode `session`).
    pub(crate) session_client: bool,
    /// It is there for one client that replicates, and what it says passes as it is.
    pub(crate) tunnel: bool,
    /// Why its client keeps it between transactions, if it does.
    pub(crate) pin: Option<Pin>,
    /// Its address is gone from those of its host's name.
    pub(crate) obsolete: bool,
    /// The pool's generation when it was opened.
    pub(crate) generation: u64,
    /// The start of a message whose rest has not come.
    pub(crate) pending: Vec<u8>,
    /// When it came into its state, in microseconds of the process clock.
    pub(crate) since: u64,
    /// When the client's transaction began; 0: none is open.
    pub(crate) transaction_start: u64,
    /// When the client's last request was sent; 0: it has been answered.
    pub(crate) query_start: u64,
    /// How long its client has waited for it, until that has been counted.
    pub(crate) waited: u64,
    /// What is noted of its transaction, while some are traced.
    pub(crate) recording: Option<Box<Recording>>,
    /// When the last of its requests that are measured was answered.
    pub(crate) measured: u64,
    /// When its last reply ended: since then a transaction that is open has been idle.
    pub(crate) answered: u64,
    /// All that has been notified by it has been heard, but for what its client does.
    pub(crate) heard: bool,
    /// When its life is over; `u64::MAX`: never.
    pub(crate) expires: u64,
    /// Bytes thrown away since its client left.
    pub(crate) drained: usize,
    pub(crate) pace: Pace,
    /// Cancel requests under way.
    pub(crate) cancels: u32,
    /// Cancels that wait until the client's own query runs.
    pub(crate) deferred_cancels: Vec<oneshot::Sender<Option<CancelJob>>>,
    pub(crate) info: Box<ServerInfo>,
}

impl Server {
    /// Sends; any answer wakes the worker. What the socket does not take is kept.
    pub(super) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.wake_at(1);
        self.conn.send(bytes)
    }

    /// Why it is not to be used again, if its settings or its address are not those of now.
    pub(crate) fn why_outdated(&self) -> Option<&'static str> {
        if !self.pool.is_current(self.generation) {
            Some("database configuration changed")
        } else if self.obsolete {
            Some("obsolete connection")
        } else {
            None
        }
    }

    /// Notes whether its address is gone from those of its host's name.
    pub(crate) fn look_at_name(&mut self, names: &Names) {
        // Nodes are looked up in another way, and unix sockets have no addresses.
        if self.pool.seat.is_none()
            && let Ok(address) = self.info.peer.parse()
        {
            self.obsolete |= names.is_gone(&self.info.host, address);
        }
    }
}

/// What is needed to cancel, and for SHOW SERVERS.
#[derive(Debug)]
pub(crate) struct ServerInfo {
    pub(crate) cancel_target: Arc<CancelTarget>,
    pub(crate) key: BackendKeyData,
    /// Host of the configuration.
    pub(crate) host: String,
    pub(crate) peer: String,
    pub(crate) peer_port: u16,
    pub(crate) local: String,
    pub(crate) local_port: u16,
    pub(crate) tls: String,
    /// Unix time, in microseconds.
    pub(crate) connected_at: u64,
}
