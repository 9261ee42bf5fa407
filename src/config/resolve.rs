//! Which value counts: the user's, else the database's, else that of `[pooler]`.
//!
//! A number of 0 in the file means "no limit" and a time of 0 "off"; here that becomes `None`, so that
//! nobody compares with it. As in PgBouncer, the user of pools and server limits is the one that logs in at the server,
//! that of client limits and client time-outs the one that logged in at pooler.

use std::{sync::Arc, time::Duration};

use super::{
    Config, Database, NodeAddress, PoolMode, ReadConsistency, Route, SslMode, User,
    file::{LONGEST_NAME, RESERVED},
};

/// Where and how auth_query is asked.
#[derive(Clone, Debug)]
pub struct Lookup {
    pub database: Arc<Database>,
    pub auth_user: String,
    pub query: String,
}

fn limit(number: u32) -> Option<u32> {
    (number > 0).then_some(number)
}

fn unless_zero(time: Duration) -> Option<Duration> {
    (!time.is_zero()).then_some(time)
}

impl Config {
    /// The database of that name, or what `*` makes of it. `None`: there is none, or it is the console.
    pub fn resolve_database(&self, name: &str) -> Option<Arc<Database>> {
        if is_console(name) || name.len() > LONGEST_NAME || name == "*" {
            return None;
        }
        if let Some(database) = self.databases.get(name) {
            return Some(Arc::clone(database));
        }
        let mut database = Database::clone(self.databases.get("*")?);
        database.dbname.get_or_insert_with(|| name.to_owned());
        database.name = name.to_owned();
        Some(Arc::new(database))
    }

    /// Who tells what a user has to prove who asks for a database; `None`: the user is in a list, or there is nobody to ask.
    pub fn lookup(&self, user: &str, database: &str) -> Option<Lookup> {
        if self.users.get(user).is_some_and(|user| user.password.is_some()) {
            return None;
        }
        let asked_for = self.resolve_database(database);
        let own = asked_for.as_deref();
        let global = &self.settings;
        let auth_user = own.and_then(|d| d.auth_user.as_ref()).unwrap_or(&global.auth_user);
        let query = own.and_then(|d| d.auth_query.as_ref()).unwrap_or(&global.auth_query);
        let elsewhere = own.and_then(|d| d.auth_dbname.as_ref()).unwrap_or(&global.auth_dbname);
        if auth_user.is_empty() || query.is_empty() {
            return None;
        }
        let (auth_user, query) = (auth_user.clone(), query.clone());
        let database = if elsewhere.is_empty() { asked_for } else { self.resolve_database(elsewhere) };
        Some(Lookup { database: database?, auth_user, query })
    }

    pub fn pool_mode(&self, database: &Database, user: &User) -> PoolMode {
        user.pool_mode.or(database.pool_mode).unwrap_or(self.settings.pool_mode)
    }

    /// Server connections of the pool; `None`: no limit.
    pub fn pool_size(&self, database: &Database, user: &User) -> Option<u32> {
        limit(user.pool_size.or(database.pool_size).unwrap_or(self.settings.default_pool_size))
    }

    /// Server connections that the pool keeps open; never more than its size.
    pub fn min_pool_size(&self, database: &Database, user: &User) -> u32 {
        let min = database.min_pool_size.unwrap_or(self.settings.min_pool_size);
        self.pool_size(database, user).map_or(min, |size| min.min(size))
    }

    /// Server connections beyond the pool's size; 0: none.
    pub fn reserve_pool_size(&self, database: &Database, user: &User) -> u32 {
        user.reserve_pool_size.or(database.reserve_pool_size).unwrap_or(self.settings.reserve_pool_size)
    }

    pub fn max_db_connections(&self, database: &Database) -> Option<u32> {
        limit(database.max_db_connections.unwrap_or(self.settings.max_db_connections))
    }

    pub fn max_db_client_connections(&self, database: &Database) -> Option<u32> {
        limit(database.max_db_client_connections.unwrap_or(self.settings.max_db_client_connections))
    }

    pub fn max_user_connections(&self, user: &User) -> Option<u32> {
        limit(user.max_user_connections.unwrap_or(self.settings.max_user_connections))
    }

    pub fn max_user_client_connections(&self, user: &User) -> Option<u32> {
        limit(user.max_user_client_connections.unwrap_or(self.settings.max_user_client_connections))
    }

    pub fn query_wait_timeout(&self, database: &Database, user: &User) -> Option<Duration> {
        let own = user.query_wait_timeout.or(database.query_wait_timeout);
        unless_zero(own.unwrap_or(self.settings.query_wait_timeout))
    }

    pub fn query_timeout(&self, user: &User) -> Option<Duration> {
        unless_zero(user.query_timeout.unwrap_or(self.settings.query_timeout))
    }

    pub fn transaction_timeout(&self, user: &User) -> Option<Duration> {
        unless_zero(user.transaction_timeout.unwrap_or(self.settings.transaction_timeout))
    }

    pub fn idle_transaction_timeout(&self, user: &User) -> Option<Duration> {
        unless_zero(user.idle_transaction_timeout.unwrap_or(self.settings.idle_transaction_timeout))
    }

    pub fn client_idle_timeout(&self, user: &User) -> Option<Duration> {
        unless_zero(user.client_idle_timeout.unwrap_or(self.settings.client_idle_timeout))
    }

    /// Zero: use each connection only once.
    pub fn server_lifetime(&self, database: &Database) -> Duration {
        database.server_lifetime.unwrap_or(self.settings.server_lifetime)
    }

    pub fn route(&self, database: &Database, user: &User) -> Route {
        user.route.or(database.route).unwrap_or(self.settings.route)
    }

    pub fn read_consistency(&self, database: &Database, user: &User) -> ReadConsistency {
        user.read_consistency.or(database.read_consistency).unwrap_or(self.settings.read_consistency)
    }

    pub fn server_tls_sslmode(&self, database: &Database) -> SslMode {
        database.server_tls_sslmode.unwrap_or(self.settings.server_tls_sslmode)
    }
}

/// Whether a database name leads to the console.
pub fn is_console(name: &str) -> bool {
    RESERVED.contains(&name)
}

impl Database {
    /// Whether it has a primary and replicas.
    pub fn has_nodes(&self) -> bool {
        !self.nodes.is_empty() || !self.patroni.is_empty()
    }

    /// Where its servers are: one place, or several of which any will do.
    pub fn places(&self) -> Vec<NodeAddress> {
        match self.hosts.as_slice() {
            [] => vec![NodeAddress::new(self.host.clone(), self.port)],
            hosts => hosts.to_vec(),
        }
    }

    /// Sets where its servers are.
    pub(super) fn set_hosts(&mut self, hosts: Vec<NodeAddress>) {
        if let Some(first) = hosts.first() {
            self.host.clone_from(&first.host);
            self.port = first.port;
        }
        self.hosts = if hosts.len() > 1 { hosts } else { Vec::new() };
    }

    /// Its host or hosts, as SHOW tells them.
    pub fn host_text(&self) -> String {
        let text = |place: &NodeAddress| match place.port == self.port {
            true => place.host.clone(),
            false => place.to_string(),
        };
        self.places().iter().map(text).collect::<Vec<_>>().join(",")
    }

    /// Name of the database at the server.
    pub fn server_dbname(&self) -> &str {
        self.dbname.as_deref().unwrap_or(&self.name)
    }

    /// Who logs in at the server for a client.
    pub fn server_user<'a>(&'a self, client_user: &'a str) -> &'a str {
        self.user.as_deref().unwrap_or(client_user)
    }
}
