//! What reaches a worker from outside: new sockets, cancels, commands.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering},
    mpsc::{self, Receiver, Sender},
};

use tokio::sync::{mpsc as tokio_mpsc, oneshot};

use super::{client::Client, departure::Departing, server::Server};
use crate::{
    client::LoggedIn,
    cluster::Cluster,
    config::Config,
    pool::Pool,
    protocol::BackendKeyData,
    server::{CancelTarget, ConnectError, Notifications, ServerLogin},
    worker::{
        listeners::End,
        process::TunnelTo,
        report::{ReportKind, WorkerReport},
    },
};

/// One message.
pub(crate) enum Message {
    /// A client that proved who it is, and its pool. `late`: it came when the process was shutting down already.
    Client { login: Box<LoggedIn>, pool: Arc<Pool>, late: bool },
    /// A client of the admin console: its messages go to `console`.
    Console { login: Box<LoggedIn>, console: ConsoleLink },
    /// Bytes for a console client.
    ConsoleOutput { client: ClientRef, bytes: Vec<u8>, close: bool },
    /// A login at a server has ended (`None`: it was given up); the pool's generation when it began.
    Connected { pool: Arc<Pool>, generation: u64, result: Option<LoginResult> },
    /// A login at a server for one client has ended; the pool's generation when it began.
    Tunnel { to: Box<TunnelTo>, generation: u64, result: LoginResult },
    /// Close the least recently used idle server of this pool: one of its clients needs the place.
    EvictOf { pool: Arc<Pool> },
    /// A server that another worker gives away.
    Server { server: Box<Server> },
    /// A client that another worker gives away, and its pool.
    Moved { client: Box<Client>, pool: Arc<Pool> },
    /// Give clients to another process.
    GiveAway { to: tokio_mpsc::UnboundedSender<Departing> },
    /// Another worker has clients waiting for a server of this pool.
    Want { pool: Arc<Pool>, worker: usize },
    /// There may be room for another server of this pool.
    Grow { pool: Arc<Pool> },
    /// Close the least recently used idle server of the database or of the user: another pool needs the place.
    Evict { database: String, user: String },
    /// Find out what to cancel; `None` if nothing is to be done.
    Cancel { key: BackendKeyData, reply: oneshot::Sender<Option<CancelJob>> },
    /// A cancel request has been delivered, or given up. `lost`: it may still be on its way.
    CancelDone { server: ServerRef, lost: bool },
    /// The nodes of a cluster have other roles.
    ClusterChanged { cluster: Arc<Cluster> },
    /// Addresses of host names have gone away.
    NamesChanged,
    /// A replica that reads may wait for has caught up with more.
    ClusterAdvanced,
    /// What a listener has heard: notifications that clients may listen to.
    Heard { listener: u64, notifications: Arc<Notifications> },
    /// A listener has done what was asked with this ticket, and told all that it had heard before.
    Answered { listener: u64, ticket: u64 },
    /// A listener has ended.
    Deaf { listener: u64, end: End },
    /// A new configuration is in force, or the state of pools has changed: look at every pool again.
    Refresh { config: Arc<Config> },
    /// Rows for the console.
    Report { kind: ReportKind, reply: oneshot::Sender<WorkerReport> },
    /// Close clients (and servers) of a database, or of all.
    Kill { database: Option<String>, reason: &'static str },
    /// Close the client of this pid (see `pid_of`). Answers whether it was here.
    KillClient { pid: u32, reply: oneshot::Sender<bool> },
    /// Read nothing any more, if that still holds. Answers how many connections have not taken everything yet.
    Suspend { reply: oneshot::Sender<usize> },
    /// Close those that have not.
    DropUnflushed,
    /// Read again.
    EndSuspension,
    /// Close everything and end.
    Stop,
}

/// How a login at a server ended.
pub(crate) type LoginResult = Result<Box<ServerLogin>, ConnectError>;

/// A message of a console client.
#[derive(Debug)]
pub(crate) enum ConsoleInput {
    /// Who it is, so that output finds it, and its cancel key.
    Connected { client: ClientRef, key: BackendKeyData },
    /// One complete message.
    Frame(u8, Vec<u8>),
}

/// Messages that a console may have to work off; more stay in the socket.
const CONSOLE_QUEUE: usize = 64;

/// The way from a worker to the console of one client.
#[derive(Clone, Debug)]
pub(crate) struct ConsoleLink {
    pub(crate) input: tokio_mpsc::Sender<ConsoleInput>,
    /// Set by a cancel request.
    pub(crate) cancelled: Arc<AtomicBool>,
}

impl ConsoleLink {
    pub(crate) fn new() -> (Self, tokio_mpsc::Receiver<ConsoleInput>) {
        let (input, receiver) = tokio_mpsc::channel(CONSOLE_QUEUE);
        (Self { input, cancelled: Arc::default() }, receiver)
    }
}

/// A client on a worker, as long as it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClientRef {
    pub(crate) worker: usize,
    pub(crate) slot: usize,
    pub(crate) id: u64,
}

/// A server on a worker, as long as it stays there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ServerRef {
    pub(crate) worker: usize,
    pub(crate) slot: usize,
    pub(crate) id: u64,
}

/// A cancel request to send.
#[derive(Debug)]
pub(crate) struct CancelJob {
    pub(crate) server: ServerRef,
    pub(crate) target: Arc<CancelTarget>,
    pub(crate) key: BackendKeyData,
}

/// The way to a worker.
#[derive(Debug)]
pub(crate) struct WorkerHandle {
    sender: Sender<Message>,
    waker: mio::Waker,
    /// The worker has been woken and has not looked yet.
    woken: AtomicBool,
    /// Clients that live on it (or are on their way).
    pub(crate) clients: AtomicUsize,
    /// Thousandths of a core that it has used lately.
    pub(crate) usage: AtomicU32,
}

impl WorkerHandle {
    pub(crate) fn new(waker: mio::Waker) -> (Self, Receiver<Message>) {
        let (sender, receiver) = mpsc::channel();
        (
            Self {
                sender,
                waker,
                woken: AtomicBool::new(false),
                clients: AtomicUsize::new(0),
                usage: AtomicU32::new(0),
            },
            receiver,
        )
    }

    /// Sends a message. A worker that has ended drops it.
    pub(crate) fn send(&self, message: Message) {
        if self.sender.send(message).is_ok() && !self.woken.swap(true, Ordering::AcqRel) {
            // Fails only when the worker is gone.
            let _ = self.waker.wake();
        }
    }

    /// To be called by the worker before it looks for messages.
    pub(crate) fn rearm(&self) {
        // Ordered before the reads of messages that follow.
        self.woken.swap(false, Ordering::AcqRel);
    }
}
