//! What all threads of the process share.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::runtime::Handle;

use crate::{
    client::login::LoginShared,
    config::{ClientPlacement, Config},
    net::tls::{ClientTls, ServerTls},
    pool::{
        Pool,
        registry::{Context, Pools},
    },
    protocol::{BackendKeyData, ProtocolVersion},
    server::{self, CancelTarget},
    session::{params::Labels, state::Shared, statements::Registry},
    worker::{
        balance,
        directory::{Directory, Place},
        login::secret_length,
        message::{Message, WorkerHandle},
    },
};

/// Most worker threads.
pub(crate) const MAX_WORKERS: usize = 1024;

/// The pid in a client's cancel key: positive, as drivers expect. What proves anything is the secret.
pub(crate) fn pid_of(client: u64) -> u32 {
    u32::try_from(client & 0x7fff_ffff).unwrap_or(0)
}

/// Time since the process started, cheap to compare.
#[derive(Debug)]
pub(crate) struct Clock {
    start: Instant,
    unix_start: u64,
}

impl Clock {
    fn new() -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { start: Instant::now(), unix_start: u64::try_from(unix.as_micros()).unwrap_or(0) }
    }

    /// Microseconds since the start; never 0, which stands for "not".
    pub(crate) fn micros(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX - 1) + 1
    }

    /// Unix time in microseconds.
    pub(crate) fn unix_micros(&self) -> u64 {
        self.unix_of(self.micros())
    }

    /// Unix time in microseconds of a time of this clock.
    pub(crate) fn unix_of(&self, micros: u64) -> u64 {
        self.unix_start + micros
    }
}

/// What is replaced as a whole by a reload.
#[derive(Clone, Debug)]
pub(crate) struct Live {
    pub(crate) config: Arc<Config>,
    pub(crate) client_tls: Option<Arc<ClientTls>>,
    pub(crate) server_tls: Arc<ServerTls>,
}

/// One per process.
pub(crate) struct Process {
    pub(crate) clock: Clock,
    pub(crate) shared: Shared,
    pub(crate) workers: Vec<WorkerHandle>,
    pub(crate) pools: Pools,
    pub(crate) directory: Directory,
    pub(crate) logins: Arc<LoginShared>,
    pub(crate) runtime: Handle,
    pub(crate) started: SystemTime,
    /// No new clients; waiting for the old ones.
    pub(crate) shutting_down: AtomicBool,
    live: RwLock<Live>,
    ids: AtomicU64,
    random: SystemRandom,
    jitter: Mutex<RandomState>,
}

impl Process {
    pub(crate) fn new(
        live: Live,
        workers: Vec<WorkerHandle>,
        logins: Arc<LoginShared>,
        runtime: Handle,
    ) -> Self {
        let random = SystemRandom::new();
        let mut token = [0; 4];
        // Only makes names differ between processes; zeros would do too.
        let _ = random.fill(&mut token);
        Self {
            clock: Clock::new(),
            shared: Shared { registry: Registry::new(u32::from_ne_bytes(token)), labels: Labels::default() },
            pools: Pools::new(workers.len()),
            directory: Directory::default(),
            workers,
            logins,
            runtime,
            started: SystemTime::now(),
            shutting_down: AtomicBool::new(false),
            live: RwLock::new(live),
            ids: AtomicU64::new(1),
            random,
            jitter: Mutex::new(RandomState::new()),
        }
    }

    /// Configuration and TLS in force.
    pub(crate) fn live(&self) -> Live {
        self.live.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The configuration in force.
    pub(crate) fn config(&self) -> Arc<Config> {
        Arc::clone(&self.live.read().unwrap_or_else(PoisonError::into_inner).config)
    }

    /// Replaces configuration and TLS.
    pub(crate) fn set_live(&self, live: Live) {
        *self.live.write().unwrap_or_else(PoisonError::into_inner) = live;
    }

    /// Tells every worker that configuration or pools have changed.
    pub(crate) fn refresh(&self) {
        let config = self.config();
        for worker in &self.workers {
            worker.send(Message::Refresh { config: Arc::clone(&config) });
        }
    }

    /// The pool for a login.
    pub(crate) fn pool(
        &self,
        database: &Arc<crate::config::Database>,
        user: &crate::config::User,
    ) -> Arc<Pool> {
        let live = self.live();
        self.pools.pool(Context { config: &live.config, tls: &live.server_tls }, database, user)
    }

    /// Next number for a client or server: one counter for both, as in PgBouncer.
    pub(crate) fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }

    /// A number for a client whose pid (see [`pid_of`]) is nobody else's.
    pub(crate) fn new_client(&self, place: Place) -> u64 {
        loop {
            let id = self.next_id();
            if self.directory.claim(pid_of(id), place).is_some() {
                return id;
            }
        }
    }

    /// The worker for a new client; counts one more there. `moves`: the client may go to another one later.
    pub(crate) fn place(&self, moves: bool) -> Option<&WorkerHandle> {
        let even = !moves || self.config().settings.client_placement == ClientPlacement::Even;
        let handle = balance::place(&self.workers, even)?;
        handle.clients.fetch_add(1, Ordering::Relaxed);
        Some(handle)
    }

    /// A new secret for a cancel key.
    pub(crate) fn cancel_secret(&self, protocol: ProtocolVersion) -> Box<[u8]> {
        let mut secret = vec![0; secret_length(protocol)];
        if self.random.fill(&mut secret).is_err() {
            // Without randomness a key must match nothing.
            return Box::default();
        }
        secret.into()
    }

    /// When a server that is opened now is too old: its lifetime, less up to a tenth, so that servers that were opened
    /// together do not end together.
    pub(crate) fn expiry(&self, now: u64, lifetime: Duration) -> u64 {
        let lifetime = u64::try_from(lifetime.as_micros()).unwrap_or(u64::MAX);
        let jitter = self.jitter.lock().unwrap_or_else(PoisonError::into_inner).hash_one(now);
        let less = if lifetime < 10 { 0 } else { jitter % (lifetime / 10) };
        now.saturating_add(lifetime - less)
    }

    /// Logs in to a server off the workers; the worker gets the result. Its place has been reserved.
    pub(crate) fn connect_server(self: &Arc<Self>, worker: usize, pool: &Arc<Pool>) {
        let (process, pool) = (Arc::clone(self), Arc::clone(pool));
        self.runtime.spawn(async move {
            let spec = pool.connect_spec();
            let result = server::connect(&spec).await.map(Box::new);
            if result.is_ok() && process.config().settings.log_connections {
                tracing::info!(
                    database = pool.key.database,
                    user = pool.key.user,
                    "new connection to server"
                );
            }
            if let Some(handle) = process.workers.get(worker) {
                handle.send(Message::Connected { pool, result });
            }
        });
    }

    /// Sends a cancel request by itself: nobody waits for it.
    pub(crate) fn cancel_server(&self, target: &Arc<CancelTarget>, key: &BackendKeyData) {
        let (target, key) = (Arc::clone(target), key.clone());
        let limit = self.config().settings.cancel_wait_timeout;
        self.runtime.spawn(async move {
            if let Err(error) = server::cancel(&target, &key, limit).await {
                tracing::warn!("cancel request failed: {error}");
            }
        });
    }

    /// A server was closed: its place may be what another worker waits for.
    pub(crate) fn server_closed(&self, worker: usize, pool: &Arc<Pool>) {
        for (other, shard) in pool.shards.iter().enumerate() {
            if other != worker
                && shard.waiting_since.load(Ordering::Acquire) > 0
                && let Some(handle) = self.workers.get(other)
            {
                handle.send(Message::Grow { pool: Arc::clone(pool) });
            }
        }
    }
}
