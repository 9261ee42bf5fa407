//! The nodes of a database: which one is the primary, which replicas have caught up with what. Found, not configured.
//!
//! What the workers read on the path of a query are atomics; the monitor (one task for each cluster) writes them.
//! Source of the rules: PostgreSQL docs, "Hot Standby", "System Information Functions".
//!
//! # Epochs
//!
//! The monitor takes a number *before* it asks the primary for its WAL position; a replica has *caught* the highest
//! number whose answer it has replayed. Who wrote notes the number that was last taken when its commit was
//! acknowledged: a replica that has caught a higher one has that commit. No clocks are compared.

mod ask;
mod choose;
mod decide;
pub mod discovery;
mod epochs;
pub mod floors;
mod keeper;
mod left;
mod legacy;
mod monitor;
mod publish;
mod reign;
pub mod snapshot;
mod tokens;
mod watched;

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering},
    },
    time::Instant,
};

use epochs::Epochs;
use floors::Floors;
pub use keeper::{Source, keep_catalog};
pub use legacy::Legacy;
pub use monitor::{MonitorSettings, monitor};
pub use reign::Reign;
pub use snapshot::CatalogState;
pub use tokens::Token;
use tokio::sync::{Notify, futures::Notified};

pub use crate::config::{At, NodeAddress};
use crate::events::Events;

/// What a node is at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Role {
    /// Not known yet.
    Unknown = 0,
    Primary = 1,
    Replica = 2,
    /// Takes writes, but another node is the primary, or it belongs to another system: not to be used for anything.
    Fenced = 3,
    /// Cannot be reached.
    Down = 4,
}

impl Role {
    /// It is to be used for nothing.
    pub fn is_out(self) -> bool {
        matches!(self, Self::Fenced | Self::Down)
    }

    fn of(byte: u8) -> Self {
        match byte {
            1 => Self::Primary,
            2 => Self::Replica,
            3 => Self::Fenced,
            4 => Self::Down,
            _ => Self::Unknown,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "unknown",
            Self::Primary => "primary",
            Self::Replica => "replica",
            Self::Fenced => "fenced",
            Self::Down => "down",
        })
    }
}

/// What the monitor found out about a node, for operators.
#[derive(Clone, Debug, Default)]
pub struct NodeReport {
    pub timeline: u32,
    /// Last WAL position (flushed or replayed).
    pub lsn: u64,
    /// Bytes behind the primary's last known position.
    pub lag_bytes: u64,
    /// Microseconds that the last probe took.
    pub probe_time: u64,
    pub system_identifier: u64,
    /// Why it is down or fenced.
    pub reason: Option<String>,
    /// When its role changed (process clock of the monitor, Unix time in microseconds).
    pub since: u64,
}

/// How far a node is.
#[derive(Debug, Default)]
struct Caught {
    /// 0: it has caught none.
    epoch: AtomicU64,
    /// When the primary was asked in that epoch, in microseconds since the cluster was made; 0: never.
    start: AtomicU64,
}

/// One node.
#[derive(Debug)]
pub struct Node {
    pub address: NodeAddress,
    role: AtomicU8,
    /// Highest epoch whose flushed position it has replayed.
    caught_flush: Caught,
    /// Highest epoch whose inserted position it has replayed.
    caught_insert: Caught,
    /// How much of the primary's timeline it has replayed; 0: not known.
    replayed: AtomicU64,
    /// It did not answer the last question in time.
    silent: AtomicBool,
    /// When it began to get reads, in microseconds since the cluster was made; 0: it gets none.
    reads_since: AtomicU64,
    /// Requests that work on it at the moment.
    pub busy: AtomicU32,
    latency: choose::Latency,
    report: Mutex<NodeReport>,
}

impl Node {
    fn new(address: NodeAddress) -> Self {
        Self {
            address,
            role: AtomicU8::new(0),
            caught_flush: Caught::default(),
            caught_insert: Caught::default(),
            replayed: AtomicU64::new(0),
            silent: AtomicBool::new(false),
            reads_since: AtomicU64::new(0),
            busy: AtomicU32::new(0),
            latency: choose::Latency::default(),
            report: Mutex::default(),
        }
    }

    /// What it is.
    pub fn role(&self) -> Role {
        Role::of(self.role.load(Ordering::Acquire))
    }

    /// What is known of it.
    pub fn report(&self) -> NodeReport {
        self.report.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Microseconds for which a primary that has answered is not doubted again.
const DOUBTLESS: u64 = 500_000;

/// No node.
const NONE: u32 = u32::MAX;

/// The nodes of one database.
#[derive(Debug)]
pub struct Cluster {
    pub database: String,
    pub nodes: Box<[Node]>,
    /// Index of the primary, or [`NONE`].
    primary: AtomicU32,
    /// Goes up when roles change.
    generation: AtomicU64,
    /// Of the last primary; 0: there was none.
    timeline: AtomicU32,
    /// The number that was last taken. This, the floors and the catalog are the next list's too, see [`Legacy`].
    epoch: Arc<AtomicU64>,
    /// What the primary has said of its WAL.
    marks: Mutex<Epochs>,
    position: Mutex<Option<tokens::Position>>,
    /// Somebody waits for a position, or for a replica to reach one.
    exact_wanted: AtomicBool,
    /// What readers must have seen.
    pub floors: Arc<Floors>,
    /// What is known of the database's catalog.
    pub catalog: Arc<CatalogState>,
    /// Where it is told what happens to nodes.
    pub events: Arc<Events>,
    /// A monitor has been started.
    pub monitored: AtomicBool,
    /// Commits may be acknowledged before they are flushed: inserted positions count.
    async_commits: Arc<AtomicBool>,
    /// Somebody waits for a replica to catch up: poll now.
    poll_wanted: AtomicBool,
    /// The primary may be lost: probe now, and often.
    suspected: AtomicBool,
    /// How often a connection to the primary was lost, and how many of these losses have been looked into.
    doubts: AtomicU64,
    settled: AtomicU64,
    /// When the last doubt was settled, in microseconds since the cluster was made; 0: never.
    settled_at: AtomicU64,
    /// Reads wait for a replica to catch up.
    waited_for: AtomicBool,
    stopped: AtomicBool,
    succession: reign::Succession,
    /// Index of the only node that may be the primary, or [`NONE`]: not known.
    leader: AtomicU32,
    /// Wakes the monitor, which does not keep the cluster alive.
    wake: Arc<Notify>,
    changed: Notify,
    advanced: Notify,
    /// Its clock starts here.
    made: Instant,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.wake.notify_one();
    }
}

impl Cluster {
    /// Nothing is known of the nodes yet.
    pub fn new(database: String, nodes: Vec<NodeAddress>) -> Self {
        Self {
            database,
            nodes: nodes.into_iter().map(Node::new).collect(),
            primary: AtomicU32::new(NONE),
            generation: AtomicU64::new(0),
            timeline: AtomicU32::new(0),
            epoch: Arc::new(AtomicU64::new(1)),
            marks: Mutex::default(),
            position: Mutex::default(),
            exact_wanted: AtomicBool::new(false),
            floors: Arc::default(),
            catalog: Arc::default(),
            events: Arc::default(),
            monitored: AtomicBool::new(false),
            async_commits: Arc::default(),
            poll_wanted: AtomicBool::new(false),
            suspected: AtomicBool::new(false),
            doubts: AtomicU64::new(0),
            settled: AtomicU64::new(0),
            settled_at: AtomicU64::new(0),
            waited_for: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            succession: reign::Succession::default(),
            leader: AtomicU32::new(NONE),
            wake: Arc::default(),
            changed: Notify::new(),
            advanced: Notify::new(),
            made: Instant::now(),
        }
    }

    /// Whether these are its nodes, weights included.
    pub fn has_nodes(&self, nodes: &[NodeAddress]) -> bool {
        self.nodes.iter().map(|node| &node.address).eq(nodes)
    }

    /// The index of the node with this address.
    pub fn number_of(&self, address: &NodeAddress) -> Option<usize> {
        self.nodes.iter().position(|node| node.address.is_same(address))
    }

    /// Where a client begins: at the primary, or else at a node that is not known to be of no use.
    pub fn home(&self) -> usize {
        let usable = |node: &Node| !node.role().is_out();
        self.primary().or_else(|| self.nodes.iter().position(usable)).unwrap_or(0)
    }

    /// Where writes go.
    pub fn primary(&self) -> Option<usize> {
        let index = self.primary.load(Ordering::Acquire);
        (index != NONE).then_some(index as usize)
    }

    /// Goes up whenever a role changes.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The epoch that whoever writes now belongs to.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::SeqCst)
    }

    fn marks(&self) -> MutexGuard<'_, Epochs> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The highest epoch that a replica has caught; 0 if it is no replica of the primary.
    pub fn caught(&self, node: usize) -> u64 {
        self.nodes.get(node).map_or(0, |node| self.mark(node).epoch.load(Ordering::SeqCst))
    }

    /// How far a node is, as commits are acknowledged here.
    fn mark<'a>(&self, node: &'a Node) -> &'a Caught {
        if self.async_commits.load(Ordering::Acquire) { &node.caught_insert } else { &node.caught_flush }
    }

    /// From here on commits may be acknowledged before they are flushed.
    pub fn note_async_commits(&self) {
        self.async_commits.store(true, Ordering::Release);
    }

    /// Commits may be acknowledged before they are flushed.
    pub fn acknowledges_before_flush(&self) -> bool {
        self.async_commits.load(Ordering::Acquire)
    }

    /// A read found no replica that has caught up: poll soon. Replicas are asked for 200 ms then; whoever waits for
    /// longer says so again.
    pub fn want_poll(&self) {
        if !self.poll_wanted.swap(true, Ordering::AcqRel) {
            self.wake.notify_one();
        }
    }

    /// A connection to some node was lost or refused, or it answered as if it were something else.
    pub fn suspect(&self) {
        if !self.suspected.swap(true, Ordering::AcqRel) {
            self.wake.notify_one();
        }
    }

    /// A connection to this node was lost. If it is the primary, the others may be about to go the same way: nothing is begun
    /// there until it has answered the monitor. That is not asked of it all the time: somebody may end sessions one by one.
    pub fn lost_connection(&self, node: usize) {
        let settled_at = self.settled_at.load(Ordering::Relaxed);
        let rests = settled_at > 0 && self.micros(Instant::now()) < settled_at + DOUBTLESS;
        if self.primary() == Some(node) && !rests {
            self.doubts.fetch_add(1, Ordering::SeqCst);
        }
        self.suspect();
    }

    /// Whether the primary has to answer the monitor before anything is begun there.
    pub fn is_doubtful(&self) -> bool {
        self.settled.load(Ordering::SeqCst) < self.doubts.load(Ordering::SeqCst)
    }

    /// Some node is a replica that reads may be sent to.
    pub fn has_replicas(&self) -> bool {
        self.nodes.iter().any(|node| node.role() == Role::Replica && node.address.weight > 0)
    }

    /// Ends when the generation is another one than this; returns it.
    pub async fn changed_since(&self, generation: u64) -> u64 {
        loop {
            let changed = self.changed.notified();
            let now = self.generation();
            if now != generation || self.is_stopped() {
                return now;
            }
            changed.await;
        }
    }

    /// A read waits from now on.
    pub fn wait(&self) {
        self.waited_for.store(true, Ordering::SeqCst);
    }

    /// Whether reads have waited since this was asked last.
    pub fn take_waiting(&self) -> bool {
        self.waited_for.swap(false, Ordering::SeqCst)
    }

    /// Ends when a replica has replayed more, or the primary has told its position, after the call.
    pub fn advanced(&self) -> Notified<'_> {
        self.advanced.notified()
    }

    /// Ends the tasks that watch it.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.wake.notify_one();
        self.catalog.wake.notify_one();
        self.changed.notify_waiters();
        self.advanced.notify_waiters();
    }

    /// Nobody watches it any more.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }
}
