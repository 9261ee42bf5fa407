//! Pools: one per database and login user, with a shard on every worker and a budget for all shards together.
//!
//! What the workers share is small: counters, the parameters that a login is told, the last failure, and since when
//! the first client of each shard waits. Servers and queues live in the shards, on the workers.

pub mod budget;
pub mod registry;
pub mod stats;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use budget::Budget;
use stats::ShardStats;

use crate::{
    config::{Database, PoolMode},
    server::{ConnectSpec, Credentials},
    session::params::{Label, Params},
};

/// What makes clients share servers: the database as clients call it, and the user who logs in to the server.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PoolKey {
    pub database: String,
    pub user: String,
}

/// The settings of a pool, resolved; replaced as a whole by a reload.
#[derive(Clone, Debug)]
pub struct PoolSettings {
    pub mode: PoolMode,
    /// 0: unlimited.
    pub size: u32,
    pub min_size: u32,
    pub reserve_size: u32,
    pub reserve_timeout: Duration,
    pub server_lifetime: Duration,
    pub connect: ConnectSpec,
    pub database: Arc<Database>,
}

/// What the first server login of a pool told: what clients are told at their login.
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
    /// SQLSTATE and message for clients.
    pub sqlstate: String,
    pub message: String,
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
}

/// One pool, as all workers see it.
#[derive(Debug)]
pub struct Pool {
    pub key: PoolKey,
    settings: Mutex<Arc<PoolSettings>>,
    /// Servers that were opened before this changed are closed when they are free.
    pub generation: AtomicU64,
    pub database: Arc<DatabaseState>,
    pub user_servers: Arc<Budget>,
    servers: Budget,
    credentials: Mutex<Credentials>,
    welcome: Mutex<Option<Arc<Welcome>>>,
    /// Startup parameters that a server has accepted, and the label it made of them.
    accepted: Mutex<HashMap<Params, Label>>,
    failure: Mutex<Option<Failure>>,
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
        settings: PoolSettings,
        database: Arc<DatabaseState>,
        user_servers: Arc<Budget>,
        workers: usize,
    ) -> Self {
        let credentials = settings.connect.credentials.clone();
        let servers = Budget::default();
        servers.set_limit(settings.size);
        Self {
            key,
            settings: Mutex::new(Arc::new(settings)),
            generation: AtomicU64::new(0),
            database,
            user_servers,
            servers,
            credentials: Mutex::new(credentials),
            welcome: Mutex::new(None),
            accepted: Mutex::new(HashMap::new()),
            failure: Mutex::new(None),
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
        if !matches!(settings.connect.credentials, Credentials::None) {
            *lock(&self.credentials) = settings.connect.credentials.clone();
        }
        *lock(&self.settings) = Arc::new(settings);
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
    }

    /// How to log in, with the newest credentials.
    pub fn connect_spec(&self) -> ConnectSpec {
        let mut spec = self.settings().connect.clone();
        spec.credentials = lock(&self.credentials).clone();
        spec
    }

    /// Keys or a password that a client just proved, for pools that have none of their own.
    pub fn offer_credentials(&self, offered: Credentials) {
        let mut current = lock(&self.credentials);
        if matches!(*current, Credentials::None | Credentials::Scram(_)) {
            *current = offered;
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

    /// Gives the place of a server back.
    pub fn release_server(&self) {
        self.servers.release();
        self.database.servers.release();
        self.user_servers.release();
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

    /// Notes what the first server told.
    pub fn set_welcome(&self, welcome: Arc<Welcome>) {
        *lock(&self.welcome) = Some(welcome);
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
