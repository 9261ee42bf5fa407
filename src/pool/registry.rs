//! All pools of the process, and the state that pools of one database or one user share.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
};

use super::{DatabaseState, Pool, PoolKey, PoolSettings, budget::Budget};
use crate::{
    auth::ScramKeys,
    config::{Config, Database, User},
    error::Secret,
    net::tls::ServerTls,
    server::{ConnectSpec, Credentials, Keepalive, ServerAddress},
};

/// The pools, by key.
#[derive(Debug)]
pub struct Pools {
    workers: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    pools: HashMap<PoolKey, Arc<Pool>>,
    databases: BTreeMap<String, Arc<DatabaseState>>,
    users: HashMap<String, Arc<Budget>>,
    /// Set by PAUSE without a database: new databases are paused too.
    all_paused: bool,
}

/// What is needed to build a pool's settings.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    pub config: &'a Config,
    pub tls: &'a Arc<ServerTls>,
}

impl Pools {
    /// None yet.
    pub fn new(workers: usize) -> Self {
        Self { workers, inner: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pool in which a client of this user works on this database; made when first asked for.
    pub fn pool(&self, context: Context<'_>, database: &Arc<Database>, user: &User) -> Arc<Pool> {
        let server_user = database.server_user(&user.name).to_owned();
        let key = PoolKey { database: database.name.clone(), user: server_user };
        let mut inner = self.lock();
        if let Some(pool) = inner.pools.get(&key) {
            return Arc::clone(pool);
        }
        let settings = settings(context, database, &key.user);
        let state = inner.database(&key.database);
        state.servers.set_limit(context.config.max_db_connections(database).unwrap_or(0));
        let budget = Arc::clone(inner.users.entry(key.user.clone()).or_default());
        budget.set_limit(user_limit(context.config, &key.user));
        let pool = Arc::new(Pool::new(key.clone(), settings, state, budget, self.workers));
        inner.pools.insert(key, Arc::clone(&pool));
        pool
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

    /// Pauses or resumes one database, or all.
    pub fn set_paused(&self, database: Option<&str>, paused: bool) {
        let mut inner = self.lock();
        match database {
            Some(name) => inner.database(name).paused.store(paused, Ordering::Release),
            None => {
                inner.all_paused = paused;
                inner.databases.values().for_each(|d| d.paused.store(paused, Ordering::Release));
            }
        }
    }

    /// Whether everything is paused.
    pub fn all_paused(&self) -> bool {
        self.lock().all_paused
    }

    /// Puts a new configuration in force. Returns the databases that are gone.
    pub fn reload(&self, context: Context<'_>, tls_changed: bool) -> Vec<String> {
        let mut inner = self.lock();
        let mut removed = Vec::new();
        inner.pools.retain(|key, pool| {
            let Some(database) = context.config.resolve_database(&key.database) else {
                removed.push(key.database.clone());
                pool.recycle();
                return false;
            };
            let old = pool.settings();
            let new = settings(context, &database, &key.user);
            let recycle = tls_changed || !old.same_server(&new);
            pool.database.servers.set_limit(context.config.max_db_connections(&database).unwrap_or(0));
            pool.user_servers.set_limit(user_limit(context.config, &key.user));
            pool.configure(new, recycle);
            true
        });
        removed.sort();
        removed.dedup();
        removed
    }
}

impl Inner {
    fn database(&mut self, name: &str) -> Arc<DatabaseState> {
        let paused = self.all_paused;
        let state = self.databases.entry(name.to_owned()).or_insert_with(|| {
            let state = DatabaseState::default();
            state.paused.store(paused, Ordering::Release);
            Arc::new(state)
        });
        Arc::clone(state)
    }
}

impl PoolSettings {
    /// Whether both lead to the same server in the same way: connections may stay.
    pub fn same_server(&self, other: &Self) -> bool {
        let (a, b) = (&self.connect, &other.connect);
        a.address.host == b.address.host
            && a.address.port == b.address.port
            && a.address.sslmode == b.address.sslmode
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

/// The settings of the pool of `server_user` on `database`.
fn settings(context: Context<'_>, database: &Arc<Database>, server_user: &str) -> PoolSettings {
    let config = context.config;
    let global = &config.settings;
    let user = config.users.get(server_user).cloned().unwrap_or_default();
    let address = ServerAddress {
        host: database.host.clone(),
        port: database.port,
        sslmode: config.server_tls_sslmode(database),
        tls: Arc::clone(context.tls),
        keepalive: Keepalive {
            enabled: global.tcp_keepalive,
            idle: global.tcp_keepidle,
            interval: global.tcp_keepintvl,
            count: global.tcp_keepcnt,
            user_timeout: global.tcp_user_timeout,
        },
    };
    let secret = database.password.as_ref().or(user.password.as_ref());
    PoolSettings {
        mode: config.pool_mode(database, &user),
        size: config.pool_size(database, &user).unwrap_or(0),
        min_size: config.min_pool_size(database, &user),
        reserve_size: config.reserve_pool_size(database, &user),
        reserve_timeout: global.reserve_pool_timeout,
        server_lifetime: config.server_lifetime(database),
        connect: ConnectSpec {
            address,
            user: server_user.to_owned(),
            database: database.server_dbname().to_owned(),
            credentials: secret.map_or(Credentials::None, credentials),
            parameters: database.server_parameters.clone(),
            connect_query: database.connect_query.clone(),
            timeout: global.server_connect_timeout,
        },
        database: Arc::clone(database),
    }
}

/// What a stored secret is good for; a SCRAM secret is not: its keys must come from a client.
fn credentials(secret: &Secret<String>) -> Credentials {
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
