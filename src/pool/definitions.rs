//! What is known of the functions of a database that has no nodes: they may leave something in the sessions of its
//! clients.
//!
//! If it has several hosts, or its host's name several addresses, each has a catalog of its own: nothing says that they are
//! the same.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU32, Ordering},
    },
};

use super::Pool;
use crate::{
    cluster::{CatalogState, Source},
    config::At,
    server::{ConnectSpec, ServerAddress},
    sql::Catalog,
};

/// So many looks in a row must find that nobody has wanted to know.
const PATIENCE: u32 = 6;

/// Read with the credentials of one pool, at one host.
#[derive(Debug)]
pub struct Definitions {
    database: String,
    pool: Weak<Pool>,
    address: ServerAddress,
    catalog: Arc<CatalogState>,
    /// Looks since somebody has wanted to know.
    unwanted: AtomicU32,
}

/// Where a server is: its host, and which address of the name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Site {
    host: String,
    port: u16,
    ip: Option<IpAddr>,
}

impl Site {
    /// `ip`: where a connection has gone to.
    pub fn new(host: &str, port: u16, ip: Option<IpAddr>) -> Self {
        Self { host: host.to_owned(), port, ip: ip.filter(|_| host.parse::<IpAddr>().is_err()) }
    }

    /// That of an address without a name, or with one of its addresses.
    pub fn of(address: &ServerAddress) -> Self {
        let ip = match address.at {
            At::Ip(ip) => Some(ip),
            At::Any | At::Each => None,
        };
        Self::new(&address.host, address.port, ip)
    }
}

/// Those of a database, by site.
#[derive(Debug, Default)]
pub struct Catalogs(Mutex<HashMap<Site, AtHost>>);

#[derive(Debug, Default)]
struct AtHost {
    catalog: Arc<CatalogState>,
    /// Who keeps it.
    keeper: Option<Arc<Definitions>>,
}

impl Catalogs {
    fn lock(&self) -> MutexGuard<'_, HashMap<Site, AtHost>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// That of a site.
    pub fn of(&self, place: Site) -> Arc<CatalogState> {
        Arc::clone(&self.lock().entry(place).or_default().catalog)
    }

    /// Whom a pool's credentials put in charge of a site's; `None` if somebody is already.
    pub fn take_over(&self, pool: &Arc<Pool>, address: &ServerAddress) -> Option<Arc<Definitions>> {
        let mut all = self.lock();
        let known = all.entry(Site::of(address)).or_default();
        if known.is_kept() {
            return None;
        }
        let definitions = Arc::new(Definitions {
            database: pool.key.database.clone(),
            pool: Arc::downgrade(pool),
            address: address.clone(),
            catalog: Arc::clone(&known.catalog),
            unwanted: AtomicU32::new(0),
        });
        known.keeper = Some(Arc::clone(&definitions));
        // Those of hosts that are not asked any more, and of which no server is left.
        all.retain(|_, known| known.is_kept() || Arc::strong_count(&known.catalog) > 1);
        Some(definitions)
    }

    /// Something was created, altered or dropped at one of the hosts: others may follow it.
    pub fn outdate(&self) {
        self.lock().values().for_each(|known| known.catalog.outdate());
    }

    /// Somebody may need to know again.
    pub fn look_again(&self) {
        self.lock().values().for_each(|known| known.catalog.look_again());
    }

    /// Whether somebody has begun to keep some.
    pub fn are_kept(&self) -> bool {
        self.lock().values().any(|known| known.keeper.is_some())
    }

    /// Where they were kept by somebody who has ended.
    pub fn left(&self) -> Vec<ServerAddress> {
        let ended =
            |known: &AtHost| known.keeper.as_ref().filter(|_| !known.is_kept()).map(|k| k.address.clone());
        self.lock().values().filter_map(ended).collect()
    }
}

impl AtHost {
    fn is_kept(&self) -> bool {
        self.keeper.as_ref().is_some_and(|keeper| !keeper.is_stopped())
    }
}

impl Definitions {
    /// How to log in; `None`: nobody needs to.
    pub fn spec(&self) -> Option<ConnectSpec> {
        let pool = self.pool.upgrade()?;
        Some(ConnectSpec { address: self.address_of(&pool)?, ..pool.own_spec("pooler") })
    }

    /// The way to its host.
    fn address_of(&self, pool: &Pool) -> Option<ServerAddress> {
        let is_own = |host: &&ServerAddress| host.host == self.address.host && host.port == self.address.port;
        let host = pool.settings().hosts.iter().find(is_own).cloned()?;
        let gone = match (self.address.at, &host.names) {
            (At::Ip(ip), Some(names)) => names.is_gone(&host.host, ip),
            _ => false,
        };
        (!gone).then_some(ServerAddress { at: self.address.at, ..host })
    }
}

impl Source for Definitions {
    fn database(&self) -> &str {
        &self.database
    }

    fn catalog(&self) -> &CatalogState {
        &self.catalog
    }

    /// Servers of another generation are reached in another way.
    fn primary(&self) -> Option<usize> {
        let generation = self.pool.upgrade()?.generation.load(Ordering::Acquire);
        usize::try_from(generation).ok()
    }

    fn is_stopped(&self) -> bool {
        let gone =
            |pool: Arc<Pool>| pool.is_removed() || pool.is_replaced() || self.address_of(&pool).is_none();
        self.pool.upgrade().is_none_or(gone)
    }

    fn rests(&self) -> bool {
        let out_of_use = self
            .pool
            .upgrade()
            .is_some_and(|pool| pool.is_paused() || pool.database.disabled.load(Ordering::Acquire));
        if self.catalog.take_wanted() {
            self.unwanted.store(0, Ordering::Relaxed);
        } else if self.unwanted.fetch_add(1, Ordering::Relaxed) >= PATIENCE {
            // Whoever wants to know from here on wakes it.
            self.catalog.distrust();
            return out_of_use || !self.catalog.is_wanted();
        }
        if out_of_use {
            self.catalog.distrust();
        }
        out_of_use
    }

    fn taken(&self, _: &Catalog) {}

    fn without(&self) -> &'static str {
        "servers are asked behind every transaction what it has left in the session"
    }
}
