//! Equal values meet in one `Arc`, so that comparing them is comparing pointers.

use std::{
    hash::{BuildHasher, Hash, RandomState},
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
};

use hashbrown::HashTable;

/// Holds values weakly: what nobody uses any more is swept out.
#[derive(Debug)]
pub struct Interner<T> {
    /// Seeded at random: clients choose what is hashed.
    hasher: RandomState,
    table: Mutex<Table<T>>,
    /// Entries, for those who only want to know how many there are.
    len: AtomicUsize,
}

#[derive(Debug)]
struct Table<T> {
    entries: HashTable<(u64, Weak<T>)>,
    /// Size at which dead entries are swept out next: constant cost per insertion.
    sweep_at: usize,
}

impl<T> Default for Interner<T> {
    fn default() -> Self {
        let table = Table { entries: HashTable::new(), sweep_at: 0 };
        Self { hasher: RandomState::new(), table: Mutex::new(table), len: AtomicUsize::new(0) }
    }
}

impl<T> Interner<T> {
    /// The shared value that `same` accepts; made by `make` if nobody holds one. `key` is what is hashed: equal
    /// values must have equal keys, and `same` decides (never the hash alone).
    pub fn intern(&self, key: &impl Hash, same: impl Fn(&T) -> bool, make: impl FnOnce() -> T) -> Arc<T> {
        let hash = self.hasher.hash_one(key);
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let found = table
            .entries
            .iter_hash(hash)
            .filter(|(h, _)| *h == hash)
            .find_map(|(_, weak)| weak.upgrade().filter(|value| same(value)));
        if let Some(value) = found {
            return value;
        }
        let value = Arc::new(make());
        table.sweep();
        table.entries.insert_unique(hash, (hash, Arc::downgrade(&value)), |(h, _)| *h);
        self.len.store(table.entries.len(), Ordering::Relaxed);
        value
    }

    /// Entries, dead ones included. Takes no lock.
    pub fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T> Table<T> {
    fn sweep(&mut self) {
        if self.entries.len() < self.sweep_at.max(64) {
            return;
        }
        self.entries.retain(|(_, weak)| weak.strong_count() > 0);
        self.entries.shrink_to(self.entries.len() * 2, |(h, _)| *h);
        self.sweep_at = self.entries.len() * 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn intern(interner: &Interner<String>, text: &str) -> Arc<String> {
        interner.intern(&text, |s| s == text, || text.to_owned())
    }

    #[test]
    fn equal_values_share_a_pointer() {
        let interner = Interner::default();
        let (a, b, c) = (intern(&interner, "x"), intern(&interner, "x"), intern(&interner, "y"));
        assert!(Arc::ptr_eq(&a, &b));
        assert!(!Arc::ptr_eq(&a, &c));
    }

    #[test]
    fn dead_values_are_swept_out() {
        let interner = Interner::default();
        let kept = intern(&interner, "kept");
        for i in 0..100_000 {
            intern(&interner, &format!("value {i}"));
        }
        assert!(interner.len() <= 64, "{} entries", interner.len());
        assert!(Arc::ptr_eq(&kept, &intern(&interner, "kept")));
    }

    // S19: equal hashes must not make statements meet; `same` decides.
    #[test]
    fn equal_hashes_stay_distinct() {
        let interner = Interner::<String>::default();
        let a = interner.intern(&1, |s| s == "a", || "a".into());
        let b = interner.intern(&1, |s| s == "b", || "b".into());
        assert_eq!((a.as_str(), b.as_str()), ("a", "b"));
    }
}
