//! What is known of a database's catalog at the moment, for all workers.

use std::sync::{
    Arc, PoisonError, RwLock,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use tokio::sync::Notify;

use crate::sql::Catalog;

/// The snapshot in force. Between a change that was seen and the next snapshot nothing is known.
#[derive(Debug, Default)]
pub struct CatalogState {
    current: RwLock<Arc<Catalog>>,
    /// Generation of `current`; 0: nothing is known.
    generation: AtomicU64,
    /// Goes up with every change that was seen.
    changes: AtomicU64,
    pub(super) wake: Arc<Notify>,
    /// Somebody has wanted to know since this was asked last.
    wanted: AtomicBool,
    /// The first snapshot has been taken, or there is no hope of it for now.
    tried: AtomicBool,
    first: Notify,
}

/// Generations are unique in the process: classes are remembered by them, whatever database they are for.
static NEXT: AtomicU64 = AtomicU64::new(1);

impl CatalogState {
    /// The generation in force.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The snapshot in force, or one that knows nothing.
    pub fn current(&self) -> Arc<Catalog> {
        let current = Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner));
        if current.generation == self.generation() { current } else { Arc::new(Catalog::outdated(&current)) }
    }

    /// Makes a copy the one in force, or one that knows nothing; and lets it be known that somebody wants it.
    pub fn refresh(&self, copy: &mut Arc<Catalog>) {
        if !self.wanted.load(Ordering::Relaxed) {
            self.wanted.store(true, Ordering::SeqCst);
            if self.generation.load(Ordering::SeqCst) == 0 {
                self.wake.notify_one();
            }
        }
        let generation = self.generation();
        if generation != copy.generation || (generation == 0 && !self.is_newest(copy)) {
            *copy = self.current();
        }
    }

    fn is_newest(&self, copy: &Catalog) -> bool {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        // Before the first one there is nothing to be outdated.
        current.generation == 0 || copy.is_outdated(&current)
    }

    /// Ends when the first snapshot has been taken, or there is no hope of it for now. Until then nobody can tell which
    /// settings functions hide.
    pub async fn was_looked_at(&self) {
        let first = self.first.notified();
        tokio::pin!(first);
        first.as_mut().enable();
        if !self.tried.load(Ordering::Acquire) {
            first.await;
        }
    }

    /// Nobody is to wait for it any longer.
    pub fn set_tried(&self) {
        if !self.tried.swap(true, Ordering::AcqRel) {
            self.first.notify_waiters();
        }
    }

    /// Whether somebody has wanted to know since this was asked last.
    pub fn take_wanted(&self) -> bool {
        self.wanted.swap(false, Ordering::SeqCst)
    }

    /// The same, and it stays so.
    pub fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::SeqCst)
    }

    /// To be looked at again now.
    pub fn look_again(&self) {
        self.wake.notify_one();
    }

    /// Something was created, altered or dropped: what was known may be wrong. Before its client is told.
    pub fn outdate(&self) {
        self.changes.fetch_add(1, Ordering::SeqCst);
        self.generation.store(0, Ordering::SeqCst);
        self.wake.notify_one();
    }

    /// What is known may be wrong, for another reason.
    pub fn distrust(&self) {
        self.generation.store(0, Ordering::SeqCst);
    }

    /// To be asked before a snapshot is taken, for [`Self::publish`].
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::SeqCst)
    }

    /// A generation for the next snapshot.
    pub fn next_generation() -> u64 {
        NEXT.fetch_add(1, Ordering::Relaxed)
    }

    /// Puts a snapshot in force, unless something has changed since `changes`. True if it did.
    pub fn publish(&self, catalog: Arc<Catalog>, changes: u64) -> bool {
        let generation = catalog.generation;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = catalog;
        self.generation.store(generation, Ordering::SeqCst);
        // In this order: a change that came in between takes it back, whichever of the two was first.
        let valid = self.changes() == changes;
        if !valid {
            self.generation.store(0, Ordering::SeqCst);
        }
        valid
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[allow(clippy::field_reassign_with_default, reason = "its other fields are private")]
    fn catalog_of(generation: u64) -> Catalog {
        let mut catalog = Catalog::default();
        catalog.generation = generation;
        catalog
    }

    #[test]
    fn change_during_a_snapshot_leaves_nothing_known() {
        let state = CatalogState::default();
        assert!(state.current().is_unknown());
        let snapshot = || {
            let generation = CatalogState::next_generation();
            (generation, Arc::new(catalog_of(generation)))
        };
        let (generation, catalog) = snapshot();
        let changes = state.changes();
        assert!(state.publish(catalog, changes));
        assert_eq!((state.generation(), state.current().generation), (generation, generation));
        state.outdate();
        assert!(state.current().is_unknown());
        let changes = state.changes();
        let (_, catalog) = snapshot();
        state.outdate();
        assert!(!state.publish(catalog, changes));
        assert!(state.current().is_unknown());
    }
}
