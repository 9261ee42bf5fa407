//! What is known of the functions of a database that has no nodes: they may leave something in the sessions of its
//! clients.

use std::sync::{
    Arc, Mutex, PoisonError, Weak,
    atomic::{AtomicU32, Ordering},
};

use super::Pool;
use crate::{
    cluster::{CatalogState, Source},
    sql::Catalog,
};

/// So many looks in a row must find that nobody has wanted to know.
const PATIENCE: u32 = 6;

/// Read with the credentials of one pool.
#[derive(Debug)]
pub struct Definitions {
    database: String,
    pool: Weak<Pool>,
    catalog: Arc<CatalogState>,
    /// Looks since somebody has wanted to know.
    unwanted: AtomicU32,
}

/// The one in charge, if there is one.
#[derive(Debug, Default)]
pub struct InCharge(Mutex<Option<Arc<Definitions>>>);

impl InCharge {
    /// Whom a pool's credentials put in charge; `None` if somebody is already.
    pub fn take_over(&self, pool: &Arc<Pool>) -> Option<Arc<Definitions>> {
        let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if current.as_ref().is_some_and(|current| !current.is_stopped()) {
            return None;
        }
        let definitions = Arc::new(Definitions {
            database: pool.key.database.clone(),
            pool: Arc::downgrade(pool),
            catalog: Arc::clone(&pool.database.catalog),
            unwanted: AtomicU32::new(0),
        });
        *current = Some(Arc::clone(&definitions));
        Some(definitions)
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
        self.pool.upgrade().is_none_or(|pool| pool.is_removed() || pool.is_replaced())
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
