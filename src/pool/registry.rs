//! All pools of the process, and the state that pools of one database or one user share.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
};

use super::{DatabaseState, Pool, PoolKey, PoolSettings, budget::Budget, seat::Seat};
use crate::{
    auth::ScramKeys,
    cluster::{
        Cluster, Legacy,
        discovery::{self, Found, FoundBySource, Source},
    },
    config::{Config, Database, NodeAddress, User},
    error::Secret,
    events::Events,
    net::tls::ServerTls,
    server::{ConnectSpec, Credentials, Keepalive, Names, ServerAddress},
};

/// The pools, by key.
#[derive(Debug)]
pub struct Pools {
    workers: usize,
    /// Of hosts.
    pub names: Arc<Names>,
    /// What has happened lately.
    pub events: Arc<Events>,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    events: Arc<Events>,
    pools: HashMap<PoolKey, Arc<Pool>>,
    databases: BTreeMap<String, Arc<DatabaseState>>,
    /// Of databases that have nodes.
    clusters: HashMap<String, Arc<Cluster>>,
    /// What the nodes of databases have left to those that take their place.
    legacies: HashMap<String, Legacy>,
    /// Pools that have taken the place of others before the reload that is to tell of them.
    renewed: Vec<Arc<Pool>>,
    /// Where nodes are found out.
    found: FoundBySource,
    users: HashMap<String, Arc<Budget>>,
    /// Paused by name.
    paused: BTreeSet<String>,
    /// Set by PAUSE without a database: new databases are paused too.
    all_paused: bool,
}

/// What is needed to build a pool's settings.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    pub config: &'a Config,
    pub tls: &'a Arc<ServerTls>,
    /// Where host names are looked up; `None`: anew each time.
    pub names: Option<&'a Arc<Names>>,
}

impl Pools {
    /// None yet.
    pub fn new(workers: usize) -> Self {
        let events: Arc<Events> = Arc::default();
        let inner = Inner { events: Arc::clone(&events), ..Inner::default() };
        Self { workers, names: Arc::default(), events, inner: Mutex::new(inner) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pool in which a client of this user works on this database, or begins to; made when first asked for. `live`
    /// tells the configuration in force: it is asked here, so that no older one comes behind a reload.
    pub fn pool<F>(&self, live: F, database: &Arc<Database>, user: &User) -> Arc<Pool>
    where
        F: FnOnce() -> (Arc<Config>, Arc<ServerTls>),
    {
        let mut inner = self.lock();
        let (config, tls) = live();
        let context = Context { config: &config, tls: &tls, names: Some(&self.names) };
        let current = config.resolve_database(&database.name);
        if let Some(current) = &current {
            inner.renew_early(context, current, self.workers);
        }
        let database = current.as_ref().unwrap_or(database);
        let pool = inner.home_pool(context, database, database.server_user(&user.name), self.workers);
        if current.is_none() {
            // A reload has removed it since the login began.
            inner.pools.remove(&pool.key);
            pool.remove();
        }
        pool
    }

    /// The cluster of a database, if it has one and somebody has used it.
    pub fn cluster(&self, database: &str) -> Option<Arc<Cluster>> {
        self.lock().clusters.get(database).cloned()
    }

    /// All clusters that somebody has used, sorted by database.
    pub fn clusters(&self) -> Vec<Arc<Cluster>> {
        let mut clusters: Vec<_> = self.lock().clusters.values().cloned().collect();
        clusters.sort_by(|a, b| a.database.cmp(&b.database));
        clusters
    }

    /// All pools, sorted by database and user.
    pub fn all(&self) -> Vec<Arc<Pool>> {
        let mut pools: Vec<_> = self.lock().pools.values().cloned().collect();
        pools.sort_by(|a, b| a.key.cmp(&b.key));
        pools
    }

    /// The shared state of a database.
    pub fn database(&self, name: &str) -> Arc<DatabaseState> {
        self.lock().database(name)
    }

    /// Server connections that log in as this user.
    pub fn user_servers(&self, name: &str) -> u32 {
        self.lock().users.get(name).map_or(0, |b| b.used())
    }

    /// Server connections that are open or being opened, of one database or of all.
    pub fn open_servers(&self, database: Option<&str>) -> u32 {
        let inner = self.lock();
        inner.concerned(database).map(|pool| pool.open_servers()).sum()
    }

    /// Pauses or resumes one database, or all. The end of a pause of all leaves those paused that were paused by name.
    pub fn set_paused(&self, database: Option<&str>, paused: bool) {
        let mut inner = self.lock();
        match database {
            Some(name) if paused => drop(inner.paused.insert(name.to_owned())),
            Some(name) => drop(inner.paused.remove(name)),
            None => inner.all_paused = paused,
        }
        for (name, state) in &inner.databases {
            state.paused.store(inner.is_paused(name), Ordering::Release);
            state.catalogs.look_again();
        }
        if paused {
            inner.concerned(database).for_each(|pool| pool.give_up_logins());
        }
    }

    /// Whether everything is paused.
    pub fn all_paused(&self) -> bool {
        self.lock().all_paused
    }

    /// Whether any database was paused, by name or with all others.
    pub fn is_any_paused(&self) -> bool {
        let inner = self.lock();
        inner.all_paused || !inner.paused.is_empty()
    }

    /// Databases that take no new clients.
    pub fn disabled(&self) -> Vec<String> {
        let inner = self.lock();
        let disabled = inner.databases.iter().filter(|(_, state)| state.disabled.load(Ordering::Acquire));
        disabled.map(|(name, _)| name.clone()).collect()
    }

    /// Whether this database was paused by name.
    pub fn is_paused(&self, database: &str) -> bool {
        self.lock().paused.contains(database)
    }

    /// Refuses new clients of a database, or takes them again.
    pub fn set_disabled(&self, database: &str, disabled: bool) {
        let state = self.lock().database(database);
        state.disabled.store(disabled, Ordering::Release);
        state.catalogs.look_again();
    }

    /// Drops a pool that has no servers, of a database without nodes. False if it is to stay.
    pub fn drop_idle(&self, pool: &Arc<Pool>) -> bool {
        let mut inner = self.lock();
        let is_known = inner.pools.get(&pool.key).is_some_and(|known| Arc::ptr_eq(known, pool));
        let goes = is_known && pool.open_servers() == 0 && pool.seat.is_none();
        if goes {
            inner.pools.remove(&pool.key);
            pool.retire();
        }
        goes
    }

    /// Forgets a database that has no pools.
    pub fn forget_database(&self, name: &str) {
        let mut inner = self.lock();
        if inner.concerned(Some(name)).next().is_none() {
            inner.databases.remove(name);
        }
    }

    /// Puts a new configuration in force.
    pub fn reload(&self, context: Context<'_>, tls_changed: bool) -> Reloaded {
        let mut inner = self.lock();
        let inner = &mut *inner;
        let mut removed = Vec::new();
        inner.pools.retain(|key, pool| match context.config.resolve_database(&key.database) {
            Some(database) => {
                if serves(pool, &database, &inner.found) {
                    configure(context, pool, &database, tls_changed);
                }
                true
            }
            None => {
                removed.push(key.database.clone());
                pool.remove();
                false
            }
        });
        let mut renewed = std::mem::take(&mut inner.renewed);
        renewed.extend(inner.renew(context, true, self.workers));
        removed.sort();
        removed.dedup();
        Reloaded { removed, renewed }
    }

    /// Nodes were found (`None`: they are the same, and who leads is not known). Returns what takes the place of pools whose
    /// nodes are others now.
    pub fn found(&self, context: Context<'_>, source: &Source, found: Option<Found>) -> Vec<Arc<Pool>> {
        let mut inner = self.lock();
        match found {
            Some(found) => drop(inner.found.insert(source.clone(), found)),
            None => {
                if let Some(found) = inner.found.get_mut(source) {
                    found.leader = None;
                }
            }
        }
        let renewed = inner.renew(context, false, self.workers);
        inner.tell_leaders(context);
        renewed
    }

    /// Nobody asks for these nodes any more.
    pub fn forget_found(&self, source: &Source) {
        self.lock().found.remove(source);
    }

    /// What was found last.
    pub fn found_last(&self, source: &Source) -> Option<Found> {
        self.lock().found.get(source).cloned()
    }

    /// Some database whose nodes this source tells has no primary.
    pub fn lacks_primary(&self, config: &Config, source: &Source) -> bool {
        self.lock().clusters.values().any(|cluster| {
            let database = config.resolve_database(&cluster.database);
            cluster.primary().is_none() && database.is_some_and(|d| Source::of(&d).contains(source))
        })
    }
}

/// Whether a pool leads to one of the nodes of now.
fn serves(pool: &Pool, database: &Database, found: &FoundBySource) -> bool {
    match &pool.seat {
        Some(seat) => seat.cluster.has_nodes(&discovery::nodes_of(database, found)),
        None => !database.has_nodes(),
    }
}

/// What has become of the pools.
#[derive(Debug, Default)]
pub struct Reloaded {
    /// Databases that are gone.
    pub removed: Vec<String>,
    /// New pools in the place of those whose nodes have changed, one of each user.
    pub renewed: Vec<Arc<Pool>>,
}

/// Gives a pool the settings of a configuration; servers stay if they are reached as before.
fn configure(context: Context<'_>, pool: &Pool, database: &Arc<Database>, tls_changed: bool) {
    let node = pool.seat.as_ref().and_then(Seat::place);
    let new = settings(context, database, &pool.key.user, node.map(|node| &node.address));
    let recycle = tls_changed || !pool.settings().same_server(&new);
    pool.database.servers.set_limit(context.config.max_db_connections(database).unwrap_or(0));
    pool.user_servers.set_limit(user_limit(context.config, &pool.key.user));
    pool.configure(new, recycle);
}

impl Inner {
    /// The pool of a server's user in which a client begins; with it those on all nodes are made.
    fn home_pool(
        &mut self,
        context: Context<'_>,
        database: &Arc<Database>,
        user: &str,
        workers: usize,
    ) -> Arc<Pool> {
        let key = |node: String| PoolKey { database: database.name.clone(), user: user.to_owned(), node };
        let Some(cluster) = self.cluster(database) else {
            return self.pool(context, database, key(String::new()), None, workers);
        };
        let pools: Vec<Arc<Pool>> = (0..cluster.nodes.len())
            .map(|node| {
                let name = cluster.nodes.get(node).map(|n| n.address.to_string()).unwrap_or_default();
                self.pool(context, database, key(name), Some((&cluster, node)), workers)
            })
            .collect();
        for seat in pools.iter().filter_map(|pool| pool.seat.as_ref()) {
            seat.introduce(&pools);
        }
        // A cluster has at least one node.
        let home = pools.into_iter().nth(cluster.home());
        home.unwrap_or_else(|| self.pool(context, database, key(String::new()), None, workers))
    }

    /// Makes clusters and pools in the place of those whose nodes are others now; returns one pool of each user.
    /// `by_operator`: the configuration says so.
    fn renew(&mut self, context: Context<'_>, by_operator: bool, workers: usize) -> Vec<Arc<Pool>> {
        let mut replaced = Vec::new();
        let found = &self.found;
        self.pools.retain(|key, pool| {
            let Some(database) = context.config.resolve_database(&key.database) else { return true };
            let serves = serves(pool, &database, found);
            if !serves {
                replaced.push((Arc::clone(pool), database));
            }
            serves
        });
        self.end_clusters(context, by_operator);
        let renewed = self.replace(context, &replaced, workers);
        self.legacies.values_mut().for_each(Legacy::lapse);
        renewed
    }

    /// A login comes between a new configuration and the reload of the pools: a database whose nodes it changes has to be
    /// seen to first, or pools of both lists would be one another's siblings.
    fn renew_early(&mut self, context: Context<'_>, database: &Database, workers: usize) {
        let known = self.clusters.get(&database.name);
        if known.is_some_and(|known| !known.has_nodes(&discovery::nodes_of(database, &self.found))) {
            let renewed = self.renew(context, true, workers);
            self.renewed.extend(renewed);
        }
    }

    /// Stops watching nodes that are not those of their databases any more. What they leave to the next ones is kept.
    fn end_clusters(&mut self, context: Context<'_>, by_operator: bool) {
        let (legacies, found) = (&mut self.legacies, &self.found);
        self.clusters.retain(|name, cluster| {
            let database = context.config.resolve_database(name);
            if database.is_some_and(|d| cluster.has_nodes(&discovery::nodes_of(&d, found))) {
                return true;
            }
            cluster.stop();
            legacies.insert(name.clone(), cluster.legacy(by_operator));
            false
        });
    }

    fn tell_leaders(&self, context: Context<'_>) {
        for cluster in self.clusters.values() {
            let database = context.config.resolve_database(&cluster.database);
            let leader = database.and_then(|database| discovery::leader_of(&database, &self.found));
            cluster.set_leader(leader.as_ref());
        }
    }

    /// Makes pools on the nodes of now in the place of these, one of each user is returned. What clients have proved is
    /// known there too.
    fn replace(
        &mut self,
        context: Context<'_>,
        replaced: &[(Arc<Pool>, Arc<Database>)],
        workers: usize,
    ) -> Vec<Arc<Pool>> {
        let mut renewed: BTreeMap<(&str, &str), Arc<Pool>> = BTreeMap::new();
        for (old, database) in replaced {
            let key = (old.key.database.as_str(), old.key.user.as_str());
            let new = renewed
                .entry(key)
                .or_insert_with(|| self.home_pool(context, database, &old.key.user, workers));
            if let Some(proved) = old.proved_credentials() {
                new.offer_credentials(&proved);
            }
        }
        // Whoever sees that finds the others.
        replaced.iter().for_each(|(old, _)| old.replace());
        renewed.into_values().collect()
    }

    /// The pool with this key; made when first asked for.
    fn pool(
        &mut self,
        context: Context<'_>,
        database: &Arc<Database>,
        key: PoolKey,
        place: Option<(&Arc<Cluster>, usize)>,
        workers: usize,
    ) -> Arc<Pool> {
        if let Some(pool) = self.pools.get(&key) {
            return Arc::clone(pool);
        }
        let node = place.and_then(|(cluster, node)| cluster.nodes.get(node)).map(|node| &node.address);
        let settings = settings(context, database, &key.user, node);
        let state = self.database(&key.database);
        state.servers.set_limit(context.config.max_db_connections(database).unwrap_or(0));
        let budget = Arc::clone(self.users.entry(key.user.clone()).or_default());
        budget.set_limit(user_limit(context.config, &key.user));
        let seat = place.map(|(cluster, node)| Seat::new(Arc::clone(cluster), node));
        let pool = Arc::new(Pool::new(key.clone(), seat, settings, state, budget, workers));
        self.pools.insert(key, Arc::clone(&pool));
        pool
    }

    /// The cluster of a database that has nodes.
    fn cluster(&mut self, database: &Database) -> Option<Arc<Cluster>> {
        if !database.has_nodes() {
            return None;
        }
        let nodes = discovery::nodes_of(database, &self.found);
        let known = self.clusters.get(&database.name).filter(|cluster| cluster.has_nodes(&nodes));
        if let Some(known) = known {
            return Some(Arc::clone(known));
        }
        let name = database.name.clone();
        let mut cluster = match self.legacies.remove(&database.name) {
            Some(legacy) => Cluster::after(name, nodes, legacy),
            None => Cluster::new(name, nodes),
        };
        cluster.events = Arc::clone(&self.events);
        cluster.set_leader(discovery::leader_of(database, &self.found).as_ref());
        let cluster = Arc::new(cluster);
        self.clusters.insert(database.name.clone(), Arc::clone(&cluster));
        Some(cluster)
    }

    fn database(&mut self, name: &str) -> Arc<DatabaseState> {
        let paused = self.is_paused(name);
        let state = self.databases.entry(name.to_owned()).or_insert_with(|| {
            let state = DatabaseState::default();
            state.paused.store(paused, Ordering::Release);
            Arc::new(state)
        });
        Arc::clone(state)
    }

    /// The pools of one database, or all.
    fn concerned(&self, database: Option<&str>) -> impl Iterator<Item = &Arc<Pool>> {
        self.pools.values().filter(move |pool| database.is_none_or(|name| pool.key.database == name))
    }

    fn is_paused(&self, database: &str) -> bool {
        self.all_paused || self.paused.contains(database)
    }
}

impl PoolSettings {
    /// Where it may go, for the log.
    pub fn host_text(&self) -> String {
        self.hosts.iter().map(|host| host.host.as_str()).collect::<Vec<_>>().join(",")
    }

    /// All connections go to one server, as far as is known.
    pub fn is_one_place(&self) -> bool {
        match &*self.hosts {
            [host] => host.is_one_place(),
            _ => false,
        }
    }

    /// Whether both lead to the same servers in the same way: connections may stay.
    pub fn same_server(&self, other: &Self) -> bool {
        let (a, b) = (&self.connect, &other.connect);
        self.hosts.len() == other.hosts.len()
            && self.hosts.iter().zip(other.hosts.iter()).all(|(a, b)| a.is_same(b))
            && self.database.load_balance_hosts == other.database.load_balance_hosts
            && a.user == b.user
            && a.database == b.database
            && a.parameters == b.parameters
            && a.connect_query == b.connect_query
    }
}

fn user_limit(config: &Config, user: &str) -> u32 {
    let known = config.users.get(user).cloned().unwrap_or_default();
    config.max_user_connections(&known).unwrap_or(0)
}

/// The settings of the pool of `server_user` on `database`, or on one of its nodes.
fn settings(
    context: Context<'_>,
    database: &Arc<Database>,
    server_user: &str,
    node: Option<&NodeAddress>,
) -> PoolSettings {
    let config = context.config;
    let global = &config.settings;
    let user = config.users.get(server_user).cloned().unwrap_or_default();
    let address = |place: &NodeAddress| ServerAddress {
        host: place.host.clone(),
        port: place.port,
        at: place.at,
        sslmode: config.server_tls_sslmode(database),
        tls: Arc::clone(context.tls),
        keepalive: Keepalive::of(global),
        // Nodes are looked at all the time: what is true of them now counts.
        names: context.names.filter(|_| node.is_none()).cloned(),
    };
    let hosts: Arc<[ServerAddress]> = match node {
        Some(node) => [address(node)].into(),
        None => database.places().iter().map(address).collect(),
    };
    let first = hosts
        .first()
        .cloned()
        .unwrap_or_else(|| address(&NodeAddress::new(database.host.clone(), database.port)));
    let secret = database.password.as_ref().or(user.password.as_ref());
    PoolSettings {
        mode: config.pool_mode(database, &user),
        size: config.pool_size(database, &user).unwrap_or(0),
        min_size: config.min_pool_size(database, &user),
        reserve_size: config.reserve_pool_size(database, &user),
        pinned_size: config.settings.pinned_pool_size,
        reserve_timeout: global.reserve_pool_timeout,
        server_lifetime: config.server_lifetime(database),
        connect: ConnectSpec {
            address: first,
            user: server_user.to_owned(),
            database: database.server_dbname().to_owned(),
            credentials: secret.map_or(Credentials::None, credentials),
            parameters: database.server_parameters.clone(),
            connect_query: database.connect_query.clone(),
            timeout: global.server_connect_timeout,
        },
        hosts,
        database: Arc::clone(database),
    }
}

/// How auth_user logs in at a database, on each of its nodes or hosts: secrets are the same on all.
pub fn lookup_specs(context: Context<'_>, database: &Database, auth_user: &str) -> Vec<ConnectSpec> {
    // The password of a database is that of its own user; names of users are sent in UTF-8.
    let database = Arc::new(Database {
        password: None,
        server_parameters: [("application_name", "pooler"), ("client_encoding", "UTF8")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec(),
        ..database.clone()
    });
    let spec = |node| settings(context, &database, auth_user, node).connect;
    match database.nodes.as_slice() {
        [] => database.places().iter().map(Some).map(spec).collect(),
        nodes => nodes.iter().map(Some).map(spec).collect(),
    }
}

/// How a user logs in at a database for clients, on one of its nodes, or else on its host.
pub fn login_spec(
    context: Context<'_>,
    database: &Arc<Database>,
    server_user: &str,
    place: &NodeAddress,
) -> ConnectSpec {
    settings(context, database, server_user, Some(place)).connect
}

/// What a stored secret is good for; a SCRAM secret is not: its keys must come from a client.
pub fn credentials(secret: &Secret<String>) -> Credentials {
    let text = secret.0.as_str();
    let is_md5 =
        text.strip_prefix("md5").is_some_and(|h| h.len() == 32 && h.bytes().all(|b| b.is_ascii_hexdigit()));
    if text.starts_with("SCRAM-SHA-256$") {
        Credentials::None
    } else if is_md5 {
        Credentials::Md5(secret.clone())
    } else {
        Credentials::Password(secret.clone())
    }
}

/// What a client's login is good for at the server.
pub fn proved(password: Option<&Secret<String>>, keys: Option<&ScramKeys>) -> Option<Credentials> {
    let password = password.map(|p| Credentials::Password(p.clone()));
    password.or_else(|| keys.map(|k| Credentials::Scram(k.clone())))
}
