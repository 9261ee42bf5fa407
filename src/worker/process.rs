//! What all threads of the process share.

use std::{
    hash::{BuildHasher as _, RandomState},
    path::PathBuf,
    sync::{
        Arc, Mutex, OnceLock, PoisonError, RwLock, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::runtime::Handle;

use super::memory;
use crate::{
    client::login::LoginShared,
    cluster::{self, CatalogState, Cluster, MonitorSettings},
    config::{At, ClientPlacement, Config, Database, PoolMode, SessionFunctions, User},
    net::tls::{ClientTls, ServerTls},
    pool::{
        Pool,
        definitions::Site,
        hosts::Attempt,
        registry::{Context, Pools},
    },
    protocol::{BackendKeyData, ProtocolVersion, peering},
    server::{self, CancelTarget, ConnectError, ServerAddress, ServerLogin},
    session::{params::Labels, state::Shared, statements::Registry},
    worker::{
        balance,
        directory::{Directory, Place},
        discovery::Discovery,
        listeners::Listeners,
        login::secret_length,
        message::{ClientRef, Message, WorkerHandle},
        peers::Peers,
        spans::Spans,
    },
};

/// So long the first clients of a database wait for its catalog.
const FUNCTIONS_WITHIN: Duration = Duration::from_secs(2);

/// How often it is looked whether names are to be looked up.
const NAMES_TICK: Duration = Duration::from_millis(200);

/// Most worker threads.
pub(crate) const MAX_WORKERS: usize = 1024;

/// What the console calls a client, and, without peers, the pid in its cancel key: positive, as drivers expect.
pub(crate) fn pid_of(client: u64) -> u32 {
    u32::try_from(client & 0x7fff_ffff).unwrap_or(0)
}

fn expiry(now: u64, lifetime: Duration, random: u64) -> u64 {
    if lifetime.is_zero() {
        return u64::MAX;
    }
    let lifetime = u64::try_from(lifetime.as_micros()).unwrap_or(u64::MAX);
    now.saturating_add(lifetime - random % (lifetime / 10).max(1))
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

/// Whom a server is connected to for, and with what.
#[derive(Debug)]
pub(crate) struct TunnelTo {
    pub(crate) client: ClientRef,
    pub(crate) pool: Arc<Pool>,
    pub(crate) parameters: Vec<(String, String)>,
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
    pub(crate) peers: Peers,
    /// The process whose place this one has taken, which may have clients yet: where cancel requests for them reach it.
    pub(crate) predecessor: OnceLock<PathBuf>,
    pub(crate) discovery: Discovery,
    pub(crate) listeners: Listeners,
    pub(crate) spans: Spans,
    pub(crate) logins: Arc<LoginShared>,
    pub(crate) runtime: Handle,
    /// No new clients; waiting for the old ones.
    pub(crate) shutting_down: AtomicBool,
    /// Connections on their way to a worker, and sockets on which more may be accepted.
    arrivals: AtomicUsize,
    /// Nothing is read from clients and servers (SUSPEND).
    pub(crate) suspended: AtomicBool,
    /// No servers for anyone any more: who waits for one is sent away.
    pub(crate) servers_closing: AtomicBool,
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
        let pools = Pools::new(workers.len());
        pools.names.configure(&live.config.settings);
        let random = SystemRandom::new();
        let mut token = [0; 4];
        // Only makes names differ between processes; zeros would do too.
        let _ = random.fill(&mut token);
        Self {
            clock: Clock::new(),
            shared: Shared { registry: Registry::new(u32::from_ne_bytes(token)), labels: Labels::default() },
            pools,
            directory: Directory::default(),
            peers: Peers::default(),
            predecessor: OnceLock::new(),
            discovery: Discovery::default(),
            listeners: Listeners::default(),
            spans: Spans::default(),
            workers,
            logins,
            runtime,
            shutting_down: AtomicBool::new(false),
            arrivals: AtomicUsize::new(0),
            suspended: AtomicBool::new(false),
            servers_closing: AtomicBool::new(false),
            live: RwLock::new(live),
            ids: AtomicU64::new(1),
            random,
            jitter: Mutex::new(RandomState::new()),
        }
    }

    /// Counts a connection, or what may bring some, until it is dropped.
    pub(crate) fn arriving(self: &Arc<Self>) -> Arriving {
        self.arrivals.fetch_add(1, Ordering::AcqRel);
        Arriving(Arc::clone(self))
    }

    /// Clients that are connected or about to be; those of the console do not count.
    pub(crate) fn clients(&self) -> usize {
        // In this order: who arrives meanwhile is counted twice rather than not at all.
        let arriving = self.arrivals.load(Ordering::Acquire);
        arriving + self.workers.iter().map(|worker| worker.clients.load(Ordering::Acquire)).sum::<usize>()
    }

    /// Configuration and TLS in force.
    pub(crate) fn live(&self) -> Live {
        self.live.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The configuration in force.
    pub(crate) fn config(&self) -> Arc<Config> {
        Arc::clone(&self.live.read().unwrap_or_else(PoisonError::into_inner).config)
    }

    /// What pools are made of.
    pub(crate) fn context<'a>(&'a self, live: &'a Live) -> Context<'a> {
        Context { config: &live.config, tls: &live.server_tls, names: Some(&self.pools.names) }
    }

    /// Replaces configuration and TLS.
    pub(crate) fn set_live(&self, live: Live) {
        self.pools.names.configure(&live.config.settings);
        *self.live.write().unwrap_or_else(PoisonError::into_inner) = live;
    }

    /// Tells every worker that configuration or pools have changed.
    pub(crate) fn refresh(&self) {
        let config = self.config();
        for worker in &self.workers {
            worker.send(Message::Refresh { config: Arc::clone(&config) });
        }
    }

    /// The pool for a login, with the settings in force, although the login began under older ones.
    pub(crate) fn pool(&self, database: &Arc<Database>, user: &User) -> Arc<Pool> {
        let live = || {
            let live = self.live();
            (live.config, live.server_tls)
        };
        let pool = self.pools.pool(live, database, user);
        self.keep_minimum(&pool);
        pool
    }

    /// Starts to watch the nodes of a pool's database, once.
    pub(crate) fn watch(self: &Arc<Self>, pool: &Arc<Pool>) {
        let Some(seat) = &pool.seat else { return self.keep_definitions(pool) };
        if seat.cluster.monitored.swap(true, Ordering::AcqRel) {
            return;
        }
        let (cluster, first) = (Arc::clone(&seat.cluster), Arc::clone(pool));
        self.runtime.spawn(tell_workers(Arc::downgrade(self), Arc::clone(&cluster)));
        self.runtime.spawn(wake_readers(Arc::downgrade(self), Arc::clone(&cluster)));
        let spec_of = move |node| {
            // Nodes are watched as the first user of the database, with whatever proves who that is.
            let pool = first.seat.as_ref().and_then(|seat| seat.sibling(node));
            pool.as_ref().unwrap_or(&first).own_spec("pooler")
        };
        let process = Arc::downgrade(self);
        let settings = move || match process.upgrade() {
            Some(process) => {
                let settings = &process.config().settings;
                MonitorSettings {
                    check_interval: settings.node_check_interval,
                    check_timeout: settings.node_check_timeout,
                }
            }
            None => MonitorSettings::default(),
        };
        self.runtime.spawn(cluster::keep_catalog(Arc::clone(&cluster), spec_of.clone()));
        self.runtime.spawn(cluster::monitor(cluster, spec_of, settings));
    }

    /// What functions leave in the sessions of a pool is looked for.
    fn looks_at_functions(&self, pool: &Pool) -> bool {
        let trusted = self.config().settings.session_functions == SessionFunctions::Trust;
        !trusted && pool.settings().mode != PoolMode::Session
    }

    /// Starts to keep what is known of the functions of a database without nodes, once, with the credentials of this pool.
    fn keep_definitions(&self, pool: &Arc<Pool>) {
        // Where others lead to is known when a server has been reached.
        if let Some(place) = certain_place(pool).filter(|_| self.looks_at_functions(pool)) {
            self.keep_definitions_at(pool, &place);
        }
    }

    fn keep_definitions_at(&self, pool: &Arc<Pool>, place: &ServerAddress) {
        let Some(definitions) = pool.database.catalogs.take_over(pool, place) else { return };
        let (of, last) = (Arc::downgrade(&definitions), pool.own_spec("pooler"));
        let spec_of = move |_| of.upgrade().and_then(|of| of.spec()).unwrap_or_else(|| last.clone());
        self.runtime.spawn(cluster::keep_catalog(definitions, spec_of));
    }

    /// The same where somebody has begun to, and may have ended.
    pub(super) fn look_at_functions_again(&self, pool: &Arc<Pool>) {
        if pool.seat.is_none() && pool.database.catalogs.are_kept() {
            self.keep_definitions(pool);
            for place in pool.database.catalogs.left() {
                self.keep_definitions_at(pool, &place);
            }
        }
    }

    /// Ends when it is known what functions of a pool's database leave in sessions, or after a while without that. Where it
    /// may lead to several places, that of a server's is waited for when it has been reached.
    pub(crate) async fn functions_were_looked_at(&self, pool: &Pool) {
        if !self.looks_at_functions(pool) {
            return;
        }
        match &pool.seat {
            Some(seat) => looked_at(&seat.cluster.catalog).await,
            None => {
                if let Some(place) = certain_place(pool) {
                    looked_at(&pool.database.catalogs.of(Site::of(&place))).await;
                }
            }
        }
    }

    /// The same of the place that a server has been found at: before anybody works there.
    async fn functions_were_looked_at_there(&self, pool: &Arc<Pool>, login: &ServerLogin) {
        if pool.seat.is_some() || !self.looks_at_functions(pool) {
            return;
        }
        let is_its = |host: &&ServerAddress| host.host == login.host && host.port == login.port;
        let Some(mut place) = pool.settings().hosts.iter().find(is_its).cloned() else { return };
        if let Some(ip) = login.peer.parse().ok().filter(|_| place.is_name()) {
            place.at = At::Ip(ip);
        }
        self.keep_definitions_at(pool, &place);
        looked_at(&pool.database.catalogs.of(Site::of(&place))).await;
    }

    /// Puts the configuration in force for pools and workers. Returns the databases that are gone.
    pub(crate) fn renew_pools(self: &Arc<Self>, tls_changed: bool) -> Vec<String> {
        let live = self.live();
        let context = self.context(&live);
        let reloaded = self.pools.reload(context, tls_changed);
        self.take_in(&reloaded.renewed);
        // Other hosts have other catalogs.
        self.pools.all().iter().for_each(|pool| self.look_at_functions_again(pool));
        self.refresh();
        self.discover();
        reloaded.removed
    }

    /// Sees to pools that have taken the place of others.
    pub(crate) fn take_in(self: &Arc<Self>, renewed: &[Arc<Pool>]) {
        for pool in renewed {
            self.watch(pool);
            self.keep_minimum(pool);
        }
    }

    /// Lets the first worker know of a pool whose min_pool_size it is to see to, here and on the other nodes.
    pub(crate) fn keep_minimum(&self, pool: &Arc<Pool>) {
        let Some(worker) = self.workers.first() else { return };
        if pool.settings().min_size == 0 || pool.kept.swap(true, Ordering::AcqRel) {
            return;
        }
        worker.send(Message::Grow { pool: Arc::clone(pool) });
        if let Some(seat) = &pool.seat {
            seat.pools().for_each(|pool| self.keep_minimum(&pool));
        }
    }

    /// Next number for a client or server: one counter for both, as in PgBouncer.
    pub(crate) fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }

    /// A number for a client whose pid (see [`pid_of`]) is nobody else's, and its cancel key.
    pub(crate) fn new_client(&self, place: Place, protocol: ProtocolVersion) -> (u64, BackendKeyData) {
        let peer = self.config().settings.peer_id;
        loop {
            let id = self.next_id();
            let key = self.new_key(pid_of(id), protocol, peer);
            if self.directory.claim(pid_of(id), &key, place) {
                return (id, key);
            }
        }
    }

    /// The client of a cancel request that may have been passed on by peers, and its key as it was made.
    pub(crate) fn find(&self, key: &BackendKeyData) -> Option<(BackendKeyData, Place)> {
        let place = |key: BackendKeyData| self.directory.get(&key).map(|place| (key, place));
        // Only keys that were made for peers count hops.
        let peer = self.config().settings.peer_id;
        let is_ours = peer > 0 && peering::peer_of(key) == peer;
        place(key.clone()).or_else(|| place(is_ours.then(|| peering::as_made(key))?))
    }

    /// A cancel request that is for no client of this process. Goes to one other at most: whoever gets it twice may have begun
    /// something else in between.
    pub(crate) async fn pass_on(&self, key: &BackendKeyData) {
        let live = self.live();
        match self.predecessor.get() {
            Some(path) if self.peers.maker(key, &live.config).is_none() => {
                let limit = live.config.settings.cancel_wait_timeout;
                let passed = async { server::PeerConnection::at(path, limit).await?.cancel(key).await };
                if let Err(error) = passed.await {
                    tracing::debug!("the process before this one takes no cancel request: {error}");
                }
            }
            _ => self.peers.pass_on(key, &live.config, &live.server_tls).await,
        }
    }

    /// The worker for a new client; counts one more there. `moves`: the client may go to another one later.
    pub(crate) fn place(&self, moves: bool) -> Option<&WorkerHandle> {
        let even = !moves || self.config().settings.client_placement == ClientPlacement::Even;
        let handle = balance::place(&self.workers, even)?;
        handle.clients.fetch_add(1, Ordering::Relaxed);
        Some(handle)
    }

    /// A number for a client that brings its cancel key along; `None`: somebody else has that.
    pub(crate) fn claim(&self, key: &BackendKeyData) -> Option<u64> {
        let nowhere = Place { worker: 0, slot: usize::MAX };
        loop {
            let id = self.next_id();
            if self.directory.claim(pid_of(id), key, nowhere) {
                return Some(id);
            }
            if key.pid == 0 || self.directory.get(key).is_some() {
                return None;
            }
        }
    }

    /// A cancel key. What proves anything is the secret, and among peers all that is random.
    fn new_key(&self, pid: u32, protocol: ProtocolVersion, peer: u16) -> BackendKeyData {
        let length = if peer == 0 { secret_length(protocol) } else { peering::SECRET };
        let (mut start, mut secret) = ([0; 4], vec![0; length]);
        if self.random.fill(&mut start).and_then(|()| self.random.fill(&mut secret)).is_err() {
            // Without randomness a key must match nothing.
            return BackendKeyData { pid, secret: Box::default() };
        }
        if peer == 0 {
            return BackendKeyData { pid, secret: secret.into() };
        }
        let mut key = BackendKeyData { pid: u32::from_ne_bytes(start), secret: secret.into() };
        peering::mark(&mut key, peer);
        key
    }

    /// When a server that is opened now is too old: its lifetime, less up to a tenth, so that servers that were opened
    /// together do not end together. Without a lifetime it is closed after its first use, however late that is.
    pub(crate) fn expiry(&self, server: u64, now: u64, lifetime: Duration) -> u64 {
        let random = self.jitter.lock().unwrap_or_else(PoisonError::into_inner).hash_one(server);
        expiry(now, lifetime, random)
    }

    /// Logs in to a server off the workers; the worker gets the result. Its place has been reserved.
    pub(crate) fn connect_server(self: &Arc<Self>, worker: usize, pool: &Arc<Pool>) {
        let (process, pool) = (Arc::clone(self), Arc::clone(pool));
        self.runtime.spawn(async move {
            // In this order: a change in between makes the result outdated, never wrong.
            let outdated = pool.outdated();
            let generation = pool.generation.load(Ordering::Acquire);
            let longest_pause = process.config().settings.server_login_retry;
            let result = tokio::select! {
                result = Box::pin(connect(&pool, longest_pause, None)) => Some(result.map(Box::new)),
                // Another server is asked now: no reason to wait for this one, which may never answer.
                () = outdated => None,
            };
            if let Some(Ok(login)) = &result {
                process.functions_were_looked_at_there(&pool, login).await;
            }
            if let Some(Ok(login)) = &result
                && process.config().settings.log_connections
            {
                tracing::info!(
                    database = pool.key.database,
                    user = pool.key.user,
                    host = login.host,
                    port = login.port,
                    "new connection to server"
                );
            }
            if let Some(handle) = process.workers.get(worker) {
                handle.send(Message::Connected { pool, generation, result });
            }
        });
    }

    /// The same for one client alone, with its startup parameters.
    pub(crate) fn connect_tunnel(self: &Arc<Self>, to: TunnelTo) {
        let process = Arc::clone(self);
        self.runtime.spawn(async move {
            let pool = &to.pool;
            let generation = pool.generation.load(Ordering::Acquire);
            let settings = process.config();
            let longest_pause = settings.settings.server_login_retry;
            let result = Box::pin(connect(pool, longest_pause, Some(&to.parameters))).await;
            if let Ok(login) = &result
                && settings.settings.log_connections
            {
                let (database, user) = (&pool.key.database, &pool.key.user);
                let (host, port) = (&login.host, login.port);
                tracing::info!(database, user, host, port, "new connection to server, for replication");
            }
            if let Some(handle) = process.workers.get(to.client.worker) {
                handle.send(Message::Tunnel { to: Box::new(to), generation, result: result.map(Box::new) });
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

    /// Many clients have left: gives back what they used.
    pub(crate) fn trim_memory(&self) {
        self.runtime.spawn_blocking(memory::trim);
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

/// Somebody is on the way to a worker.
pub(crate) struct Arriving(Arc<Process>);

impl Drop for Arriving {
    fn drop(&mut self) {
        self.0.arrivals.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Looks host names up now and then, if the configuration says so, and lets the workers know when addresses have gone.
pub(crate) async fn keep_names(process: Weak<Process>) {
    let mut looked = Instant::now();
    let mut losses = 0;
    loop {
        let Some(this) = process.upgrade() else { return };
        let names = Arc::clone(&this.pools.names);
        let gone = names.gone();
        tokio::pin!(gone);
        gone.as_mut().enable();
        let period = this.config().settings.dns_zone_check_period;
        if !period.is_zero() && looked.elapsed() >= period {
            looked = Instant::now();
            names.look_all_up_again().await;
        }
        drop(this);
        // At the latest then: whatever is told in between is counted.
        let _ = tokio::time::timeout(NAMES_TICK, gone).await;
        let now = names.losses();
        if std::mem::replace(&mut losses, now) != now
            && let Some(this) = process.upgrade()
        {
            for worker in &this.workers {
                worker.send(Message::NamesChanged);
            }
        }
    }
}

/// Where all servers of a pool are, if its host is the only one and no name.
fn certain_place(pool: &Pool) -> Option<ServerAddress> {
    match &*pool.settings().hosts {
        [host] if !host.is_name() => Some(host.clone()),
        _ => None,
    }
}

/// Waits for the first snapshot, for a while.
async fn looked_at(catalog: &CatalogState) {
    if tokio::time::timeout(FUNCTIONS_WITHIN, catalog.was_looked_at()).await.is_err() {
        // Servers are asked behind every transaction then.
        catalog.set_tried();
    }
}

/// Opens a connection of a pool, to whichever of its hosts is the first that lets it in.
/// `alone`: for one client, with its startup parameters.
async fn connect(
    pool: &Pool,
    longest_pause: Duration,
    alone: Option<&[(String, String)]>,
) -> Result<ServerLogin, ConnectError> {
    let mut attempts = pool.attempts(Instant::now());
    if let Some(own) = alone {
        attempts.iter_mut().for_each(|attempt| attempt.spec.stand_in_for(own));
    }
    let hosts: Vec<ServerAddress> = attempts.iter().map(|attempt| attempt.spec.address.clone()).collect();
    for ServerAddress { host, port, .. } in &hosts {
        tracing::debug!(
            database = pool.key.database,
            user = pool.key.user,
            host,
            port,
            "connecting to server"
        );
    }
    if let [Attempt { spec, .. }] = attempts.as_slice() {
        return server::connect(spec).await;
    }
    let attempts = attempts
        .into_iter()
        .map(|Attempt { spec, patience }| (patience, async move { server::connect(&spec).await }));
    let failed = |number: usize, error: Option<&ConnectError>| {
        if let Some(host) = hosts.get(number) {
            pool.host_failed(host, error, longest_pause);
        }
    };
    let (number, login) = server::first_of(attempts, failed).await?;
    if let Some(host) = hosts.get(number) {
        pool.host_answered(host);
    }
    Ok(login)
}

/// Lets the workers know of changes, as long as the cluster is in use.
async fn tell_workers(process: Weak<Process>, cluster: Arc<Cluster>) {
    let mut generation = 0;
    while !cluster.is_stopped() {
        generation = cluster.changed_since(generation).await;
        let Some(process) = process.upgrade() else { return };
        process.discovery.hurry();
        for worker in &process.workers {
            worker.send(Message::ClusterChanged { cluster: Arc::clone(&cluster) });
        }
    }
}

/// Lets the workers know when reads that wait for a replica may go on.
async fn wake_readers(process: Weak<Process>, cluster: Arc<Cluster>) {
    loop {
        // Before the question, so that no end is missed.
        let advanced = cluster.advanced();
        if cluster.is_stopped() {
            return;
        }
        advanced.await;
        if cluster.take_waiting() {
            let Some(process) = process.upgrade() else { return };
            process.workers.iter().for_each(|worker| worker.send(Message::ClusterAdvanced));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // S52: servers that were opened together do not end together.
    #[test]
    fn lifetimes_are_spread_over_their_last_tenth() {
        let hour = Duration::from_secs(3600);
        let micros = 3_600_000_000;
        assert_eq!(expiry(7, hour, 0), 7 + micros);
        assert_eq!(expiry(7, hour, micros / 10 - 1), 7 + micros - micros / 10 + 1);
        assert_eq!(expiry(7, hour, micros / 10), 7 + micros);
        assert_eq!(expiry(7, Duration::from_micros(3), u64::MAX), 10);
        assert_eq!(expiry(7, Duration::ZERO, 1), u64::MAX);
    }
}
