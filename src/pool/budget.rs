//! A counter with a limit: how many of something may be open.

use std::sync::atomic::{AtomicU32, Ordering};

/// Places taken, and how many there are.
#[derive(Debug, Default)]
pub struct Budget {
    used: AtomicU32,
    /// 0: unlimited.
    limit: AtomicU32,
}

impl Budget {
    /// Sets the limit; 0 for none. What is in use stays in use.
    pub fn set_limit(&self, limit: u32) {
        self.limit.store(limit, Ordering::Release);
    }

    /// The limit; 0 for none.
    pub fn limit(&self) -> u32 {
        self.limit.load(Ordering::Acquire)
    }

    /// Places in use.
    pub fn used(&self) -> u32 {
        self.used.load(Ordering::Acquire)
    }

    /// Takes a place if one is free, counting `extra` ones above the limit.
    pub fn acquire(&self, extra: u32) -> bool {
        let limit = match self.limit() {
            0 => u32::MAX,
            limit => limit.saturating_add(extra),
        };
        let take = |used: u32| (used < limit).then(|| used + 1);
        self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, take).is_ok()
    }

    /// Gives a place back.
    pub fn release(&self) {
        let give = |used: u32| used.checked_sub(1);
        let balanced = self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, give).is_ok();
        debug_assert!(balanced, "released more than was acquired");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limit_holds_and_zero_means_unlimited() {
        let budget = Budget::default();
        budget.set_limit(2);
        assert!(budget.acquire(0) && budget.acquire(0) && !budget.acquire(0));
        assert!(budget.acquire(1));
        budget.release();
        budget.set_limit(0);
        assert!((0..100).all(|_| budget.acquire(0)));
        assert_eq!(budget.used(), 102);
    }

    // S33: acquires and releases from many threads stay balanced and within the limit.
    #[test]
    fn limit_holds_under_contention() {
        let budget = Budget::default();
        budget.set_limit(3);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..100_000 {
                        if budget.acquire(0) {
                            assert!(budget.used() <= 3);
                            budget.release();
                        }
                    }
                });
            }
        });
        assert_eq!(budget.used(), 0);
    }
}
