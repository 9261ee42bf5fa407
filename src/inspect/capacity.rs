//! How many connections the pools of a configuration may take at one server, at most.
//!
//! A pool may take its size, its reserve, and others in the place of those that stay with a client; max_db_connections and
//! max_user_connections bound what the pools of a database, or of a user, take together.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::config::{Config, Database, User};

/// More than any server has.
pub(super) const UNLIMITED: u64 = 1 << 32;

/// The pools that lead to one server.
#[derive(Debug, Default)]
pub(super) struct Pools {
    databases: BTreeMap<String, Arc<Database>>,
    pools: BTreeSet<(String, String)>,
}

impl Pools {
    /// Adds the pool of a server's user.
    pub(super) fn add(&mut self, database: &Arc<Database>, user: &str) {
        self.databases.insert(database.name.clone(), Arc::clone(database));
        self.pools.insert((database.name.clone(), user.to_owned()));
    }

    pub(super) fn count(&self) -> u64 {
        self.pools.len() as u64
    }

    /// What they may take together.
    pub(super) fn demand(&self, config: &Config) -> u64 {
        self.bounded(config, |_, _| true).saturating_mul(processes(config))
    }

    /// What those of one user may take.
    pub(super) fn demand_of_user(&self, config: &Config, user: &str) -> u64 {
        self.bounded(config, |_, pool_user| pool_user == user).saturating_mul(processes(config))
    }

    /// What those may take that lead to a database of this name at the server.
    pub(super) fn demand_of_database(&self, config: &Config, dbname: &str) -> u64 {
        let leads = |database: &Database, _: &str| database.server_dbname() == dbname;
        self.bounded(config, leads).saturating_mul(processes(config))
    }

    /// Connections that pooler has for itself: those that watch nodes, listen for all clients, read catalogs and look
    /// users up.
    pub(super) fn own(&self, config: &Config) -> u64 {
        let of = |database: &Database| {
            2 + u64::from(database.has_nodes()) + u64::from(config.lookup("", &database.name).is_some())
        };
        self.databases.values().map(|database| of(database)).sum::<u64>().saturating_mul(processes(config))
    }

    /// Both kinds of limits hold: what each database may take, and what each user may, whichever is less.
    fn bounded(&self, config: &Config, counts: impl Fn(&Database, &str) -> bool) -> u64 {
        let mut by_database: BTreeMap<&str, u64> = BTreeMap::new();
        let mut by_user: BTreeMap<&str, u64> = BTreeMap::new();
        for (name, user) in &self.pools {
            let Some(database) = self.databases.get(name).filter(|database| counts(database, user)) else {
                continue;
            };
            let pool = pool(config, database, user);
            *by_database.entry(name).or_default() += pool;
            *by_user.entry(user).or_default() += pool;
        }
        let limit = |number: Option<u32>| number.map_or(UNLIMITED, u64::from);
        let databases = by_database.into_iter().map(|(name, sum)| {
            let of = self.databases.get(name).and_then(|database| config.max_db_connections(database));
            sum.min(limit(of))
        });
        let users = by_user
            .into_iter()
            .map(|(name, sum)| sum.min(limit(config.max_user_connections(&user_of(config, name)))));
        databases.sum::<u64>().min(users.sum())
    }
}

fn user_of(config: &Config, name: &str) -> User {
    config.users.get(name).map(|user| User::clone(user)).unwrap_or_default()
}

/// What one pool may take.
fn pool(config: &Config, database: &Database, user: &str) -> u64 {
    let user = user_of(config, user);
    let reserve = match config.settings.reserve_pool_timeout.is_zero() {
        true => 0,
        false => config.reserve_pool_size(database, &user),
    };
    match config.pool_size(database, &user) {
        Some(size) => u64::from(size) + u64::from(reserve) + u64::from(config.settings.pinned_pool_size),
        None => UNLIMITED,
    }
}

/// Processes that share the clients, with pools of their own each.
pub(super) fn processes(config: &Config) -> u64 {
    let others = config.settings.peer_id > 0 && config.settings.so_reuseport;
    if others { (config.peers.len() as u64).max(1) } else { 1 }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn demand(settings: &str, rest: &str) -> (u64, u64) {
        let text = format!(
            "[pooler]\npinned_pool_size = 5\n{settings}\n[databases.a]\nhost = \"h\"\n[databases.b]\nhost = \"h\"\n{rest}\n\
             [users.u]\npassword = \"x\"\n[users.v]\npassword = \"x\""
        );
        let config = Config::from_text(Path::new("p.toml"), &text, &|_| None).unwrap().config;
        let mut pools = Pools::default();
        for database in config.databases.values() {
            pools.add(database, "u");
            pools.add(database, "v");
            pools.add(database, "v");
        }
        (pools.demand(&config), pools.demand_of_user(&config, "v"))
    }

    #[test]
    fn limits_of_databases_and_users_bound_what_pools_take() {
        assert_eq!(demand("", ""), (100, 50));
        assert_eq!(demand("reserve_pool_size = 3", ""), (112, 56));
        assert_eq!(demand("reserve_pool_size = 3\nreserve_pool_timeout = 0", ""), (100, 50));
        assert_eq!(demand("max_db_connections = 30", ""), (60, 50));
        assert_eq!(demand("max_user_connections = 20", ""), (40, 20));
        assert_eq!(demand("", "max_db_connections = 7"), (57, 32));
        assert!(demand("default_pool_size = 0", "").0 >= UNLIMITED);
        assert_eq!(demand("default_pool_size = 0\nmax_user_connections = 9", ""), (18, 9));
        // Each process has pools of its own.
        let peers = "[peers.1]\nhost = \"/a\"\n[peers.2]\nhost = \"/b\"";
        assert_eq!(demand("peer_id = 1\nso_reuseport = true", peers), (200, 100));
    }
}
