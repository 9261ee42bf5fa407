//! Pools: one per database and login user, with a shard on every worker and a budget for all shards together.
//!
//! What the workers share is small: counters, the parameters that a login is told, the last failure, and since when
//! the first client of each shard waits. Servers and queues live in the shards, on the workers.

pub mod budget;
pub mod definitions;
pub mod habits;
pub mod histogram;
pub mod hosts;
pub mod registry;
pub mod seat;
pub mod sqlstates;
pub mod stats;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use budget::Budget;
use definitions::Catalogs;
use habits::Habits;
use histogram::Histogram;
use hosts::Marks;
use seat::Seat;
use sqlstates::Sqlstates;
use stats::{Routes, ShardStats};
use tokio::sync::{Notify, futures::Notified};

use crate::{
    config::{Database, PoolMode},
    server::{ConnectSpec, Credentials, ServerAddress},
    session::params::{Label, Params},
};

/// What makes clients share servers: the database as clients call it, the user who logs in to the server, and which one of
/// the database's nodes that is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PoolKey {
    pub database: String,
    pub user: String,
    /// `host:port`; empty if the database has no nodes.
    pub node: String,
}

/// The settings of a pool, resolved; replaced as a whole by a reload.
#[derive(Clone, Debug)]
pub struct PoolSettings {
    pub mode: PoolMode,
    /// 0: unlimited.
    pub size: u32,
    pub min_size: u32,
    pub reserve_size: u32,
    /// Servers that stay with their clients and do not count in `size`.
    pub pinned_size: u32,
    pub reserve_timeout: Duration,
    pub server_lifetime: Duration,
    pub connect: ConnectSpec,
    /// Where it may go; the first one is that of `connect`.
    pub hosts: Arc<[ServerAddress]>,
    pub database: Arc<Database>,
}

/// What the newest server login of a pool told: what clients are told at their login.
#[derive(Clone, Debug)]
pub struct Welcome {
    /// ParameterStatus in the server's order.
    pub parameters: Vec<(String, String)>,
    /// The parameters of these that follow a client.
    pub label: Label,
}

/// Why the pool cannot reach its server at the moment.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What clients are told.
    pub sqlstate: String,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
    /// The server itself refused the login: waiting is of no use.
    pub refused: bool,
    /// Next attempt not before.
    pub retry_at: Instant,
    /// Pause before the attempt after that.
    pub pause: Duration,
}

/// A database: limits and switches that its pools have in common.
#[derive(Debug, Default)]
pub struct DatabaseState {
    pub servers: Budget,
    pub paused: AtomicBool,
    pub disabled: AtomicBool,
    pub habits: Habits,
    /// Of a database without nodes; others have one in their cluster.
    pub catalogs: Catalogs,
    /// Where it cannot be reached.
    pub hosts: Marks,
}

/// One pool, as all workers see it.
#[derive(Debug)]
pub struct Pool {
    pub key: PoolKey,
    /// `None`: the database has one server.
    pub seat: Option<Seat>,
    settings: Mutex<Arc<PoolSettings>>,
    /// Servers that were opened before this changed are closed when they are free.
    pub generation: AtomicU64,
    /// A reload has removed the database.
    removed: AtomicBool,
    /// A reload has changed the nodes of the database, or it was idle for too long: clients go to other pools with their next
    /// request.
    replaced: AtomicBool,
    /// Wakes logins at the server that are under way when the generation changes, or when they are to be given up.
    outdated: Notify,
    pub database: Arc<DatabaseState>,
    pub user_servers: Arc<Budget>,
    servers: Budget,
    /// Servers that stay with their clients, and do not count in `servers`.
    pinned: Budget,
    credentials: Mutex<Credentials>,
    welcome: Mutex<Option<Arc<Welcome>>>,
    /// Startup parameters that a server has accepted, and the label it made of them.
    accepted: Mutex<HashMap<Params, Label>>,
    failure: Mutex<Option<Failure>>,
    /// Whose turn it is among several hosts.
    turn: AtomicUsize,
    /// The first worker sees to it that min_pool_size is kept.
    pub kept: AtomicBool,
    pub shards: Box<[Shard]>,
}

/// What a shard shows to the other workers. Written by its own worker only, so it has cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Shard {
    /// When the first client in the queue came, in microseconds of the process clock; 0: nobody waits.
    pub waiting_since: AtomicU64,
    /// Servers that nobody uses.
    pub idle: AtomicU32,
    pub stats: ShardStats,
    pub transaction_times: Histogram,
    pub query_times: Histogram,
    /// Of all times that a client was given a server: most wait for none.
    pub wait_times: Histogram,
    /// Errors of servers.
    pub errors: Sqlstates,
    /// Errors of pooler's own.
    pub refusals: Sqlstates,
    /// Requests by the reason for which they came to this node.
    pub routes: Routes,
    /// How often servers came to stay with their clients, by the number of the reason.
    pub pins: Routes,
}

/// Most sets of startup parameters that are remembered as good.
const MAX_ACCEPTED: usize = 1000;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    /// A pool without servers.
    pub fn new(
        key: PoolKey,
        seat: Option<Seat>,
        settings: PoolSettings,
        database: Arc<DatabaseState>,
        user_servers: Arc<Budget>,
        workers: usize,
    ) -> Self {
        let credentials = settings.connect.credentials.clone();
        let servers = Budget::default();
        servers.set_limit(settings.size);
        let pinned = Budget::default();
        pinned.set_limit(settings.pinned_size);
        Self {
            key,
            seat,
            settings: Mutex::new(Arc::new(settings)),
            generation: AtomicU64::new(0),
            removed: AtomicBool::new(false),
            replaced: AtomicBool::new(false),
            outdated: Notify::new(),
            database,
            user_servers,
            servers,
            pinned,
            credentials: Mutex::new(credentials),
            welcome: Mutex::new(None),
            accepted: Mutex::new(HashMap::new()),
            failure: Mutex::new(None),
            turn: AtomicUsize::new(0),
            kept: AtomicBool::new(false),
            shards: (0..workers).map(|_| Shard::default()).collect(),
        }
    }

    /// The settings in force.
    pub fn settings(&self) -> Arc<PoolSettings> {
        Arc::clone(&lock(&self.settings))
    }

    /// Puts new settings in force. `recycle`: servers that are open now are not to be used again.
    pub fn configure(&self, settings: PoolSettings, recycle: bool) {
        self.servers.set_limit(settings.size);
        self.pinned.set_limit(settings.pinned_size);
        // What a client has proved stays as long as the configuration says what it said then.
        if settings.connect.credentials != self.settings().connect.credentials {
            *lock(&self.credentials) = settings.connect.credentials.clone();
            // With the old ones the server may have refused.
            *lock(&self.failure) = None;
        }
        *lock(&self.settings) = Arc::new(settings);
        // Whatever was wrong may have been put right.
        *lock(&self.failure) = None;
        self.database.hosts.forget();
        if recycle {
            self.recycle();
        }
    }

    /// Marks all open servers as outdated (RECONNECT, changed connection settings).
    pub fn recycle(&self) {
        *lock(&self.welcome) = None;
        *lock(&self.failure) = None;
        lock(&self.accepted).clear();
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.database.catalogs.outdate();
        self.database.hosts.forget();
        self.outdated.notify_waiters();
    }

    /// The database is gone: no client may stay, no server is to be used again.
    pub fn remove(&self) {
        self.removed.store(true, Ordering::Release);
        self.recycle();
    }

    /// Whether the database is gone.
    pub fn is_removed(&self) -> bool {
        self.removed.load(Ordering::Acquire)
    }

    /// Nobody has used it for long: who comes nevertheless goes to another pool.
    pub(super) fn retire(&self) {
        self.replaced.store(true, Ordering::Release);
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.outdated.notify_waiters();
    }

    /// The nodes of the database have changed: no client is to use this pool again.
    pub fn replace(&self) {
        self.replaced.store(true, Ordering::Release);
        self.recycle();
    }

    /// Whether clients have to look for another pool.
    pub fn is_replaced(&self) -> bool {
        self.replaced.load(Ordering::Acquire)
    }

    /// Ends logins at the server that are under way: nobody would get what they bring.
    pub fn give_up_logins(&self) {
        self.outdated.notify_waiters();
    }

    /// Ends when logins at the server that are under way at the moment of the call are of no use any more.
    pub fn outdated(&self) -> Notified<'_> {
        self.outdated.notified()
    }

    /// Whether a server of this generation may be used.
    pub fn is_current(&self, generation: u64) -> bool {
        self.generation.load(Ordering::Acquire) == generation
    }

    /// How to log in, with the newest credentials.
    pub fn connect_spec(&self) -> ConnectSpec {
        let mut spec = self.settings().connect.clone();
        spec.credentials = lock(&self.credentials).clone();
        spec
    }

    /// How pooler logs in for itself where this pool does (at the first host, if there are several), under that
    /// application_name.
    pub fn own_spec(&self, name: &str) -> ConnectSpec {
        let parameters = [("application_name", name), ("client_encoding", "UTF8")];
        let parameters = parameters.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        ConnectSpec { connect_query: None, parameters, ..self.connect_spec() }
    }

    /// Keys or a password that a client just proved, for pools that have none of their own (or only a hash): this one
    /// and those of the same user on the other nodes. The last ones count: passwords change.
    pub fn offer_credentials(&self, offered: &Credentials) {
        let Some(seat) = &self.seat else { return self.take_credentials(offered) };
        seat.pools().for_each(|pool| pool.take_credentials(offered));
    }

    /// What a client has proved, if that is what the pool logs in with.
    pub fn proved_credentials(&self) -> Option<Credentials> {
        let proved = lock(&self.credentials).clone();
        (proved != self.settings().connect.credentials).then_some(proved)
    }

    fn take_credentials(&self, offered: &Credentials) {
        let useful = match self.settings().connect.credentials {
            Credentials::None => true,
            Credentials::Md5(_) => matches!(offered, Credentials::Password(_)),
            Credentials::Password(_) | Credentials::Scram(_) => false,
        };
        if useful {
            *lock(&self.credentials) = offered.clone();
        }
    }

    /// Reserves a place for one more server. `reserve`: the reserve pool may be used.
    pub fn reserve_server(&self, reserve: bool) -> bool {
        let extra = if reserve { self.settings().reserve_size } else { 0 };
        if !self.servers.acquire(extra) {
            return false;
        }
        if !self.database.servers.acquire(0) {
            self.servers.release();
            return false;
        }
        if !self.user_servers.acquire(0) {
            self.database.servers.release();
            self.servers.release();
            return false;
        }
        true
    }

    /// The pool's own limit is reached. `reserve`: the reserve pool may be used.
    pub fn is_full(&self, reserve: bool) -> bool {
        let extra = if reserve { self.settings().reserve_size } else { 0 };
        self.servers.limit() > 0 && self.servers.used() >= self.servers.limit().saturating_add(extra)
    }

    /// Gives the place of a server back.
    pub fn release_server(&self) {
        self.servers.release();
        self.database.servers.release();
        self.user_servers.release();
    }

    /// A server stays with its client: another may be opened in its place, if the budget for that is not used up.
    pub fn set_apart(&self) -> bool {
        // 0 is none here.
        let apart = self.pinned.limit() > 0 && self.pinned.acquire(0);
        if apart {
            self.servers.release();
        }
        apart
    }

    /// It is like others again, although there may be too many now: what is free is closed then.
    pub fn take_back(&self) {
        self.pinned.release();
        self.servers.acquire(u32::MAX);
    }

    /// Servers that are open or being opened.
    pub fn open_servers(&self) -> u32 {
        self.servers.used()
    }

    /// More servers are open than the settings allow.
    pub fn over_limit(&self) -> bool {
        let settings = self.settings();
        settings.size > 0 && self.servers.used() > settings.size.saturating_add(settings.reserve_size)
    }

    /// What logins are told, once a server has been seen.
    pub fn welcome(&self) -> Option<Arc<Welcome>> {
        lock(&self.welcome).clone()
    }

    /// Notes what a new server told. If it is not what was known, defaults have changed (ALTER ROLE, a configuration file):
    /// for new clients the last one counts, as it would without a pooler.
    pub fn set_welcome(&self, welcome: Welcome) {
        let mut current = lock(&self.welcome);
        if current.as_ref().is_none_or(|c| c.parameters != welcome.parameters) {
            *current = Some(Arc::new(welcome));
            lock(&self.accepted).clear();
        }
    }

    /// The label that a server made of these startup parameters, if one has accepted them before.
    pub fn accepted(&self, wanted: &Params) -> Option<Label> {
        lock(&self.accepted).get(wanted).cloned()
    }

    /// Notes that a server accepted these startup parameters.
    pub fn accept(&self, wanted: Params, label: Label) {
        let mut accepted = lock(&self.accepted);
        if accepted.len() >= MAX_ACCEPTED {
            accepted.clear();
        }
        accepted.insert(wanted, label);
    }

    /// The last failure, if the server has not been reached since.
    pub fn failure(&self) -> Option<Failure> {
        lock(&self.failure).clone()
    }

    /// Notes a failure, or with `None` a success.
    pub fn set_failure(&self, failure: Option<Failure>) {
        *lock(&self.failure) = failure;
    }

    /// Whether a server may be opened now, as far as earlier failures go.
    pub fn may_connect(&self, now: Instant) -> bool {
        lock(&self.failure).as_ref().is_none_or(|f| f.retry_at <= now)
    }

    /// Nothing is to be handed out.
    pub fn is_paused(&self) -> bool {
        self.database.paused.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests;
