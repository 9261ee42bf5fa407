//! Transactions whose connection pooler has closed before they were over.
//!
//! Their backends notice that when they next read or write to it: until then they may commit. So they count as open until a
//! question to the primary, asked after the close, finds no such backend any more: it leaves pg_stat_activity when its
//! transaction is over (pgstat_beshutdown_hook runs behind ShutdownPostgres). A time limit would not do: a statement may run
//! for hours without a look at its client. Nor would the end of the connection: it is our own doing. (Where a proxy between the
//! two gives other process IDs nothing more can be known, and they count as gone.)

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::floors::{Changes, Floors, Open};

#[derive(Debug)]
struct Transaction {
    changes: Changes,
    /// The place of its commit, if one was sent.
    commit: Option<usize>,
    /// Process ID of its backend.
    backend: u32,
    /// When it was left. Only a question that took a later number was asked while there was such a backend, or after.
    epoch: u64,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Left(Mutex<Vec<Transaction>>);

impl Left {
    fn lock(&self) -> MutexGuard<'_, Vec<Transaction>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    /// The connection to their backend is about to be closed, and nobody knows what becomes of them.
    pub fn leave(mut self, backend: u32) {
        let Some((cluster, changes, commit)) = self.take() else { return };
        let epoch = cluster.epoch();
        // Readers may have seen it already.
        cluster.floors.raise_all(&changes, epoch);
        cluster.floors.left.lock().push(Transaction { changes, commit, backend, epoch });
        cluster.wake.notify_one();
    }
}

impl Floors {
    /// It has to be asked whether backends are gone.
    pub(super) fn has_left(&self) -> bool {
        !self.left.lock().is_empty()
    }

    /// The primary has told which backends it has, in answer to the question with the number `asked`. What others have
    /// committed was so before the end of this epoch.
    pub(super) fn settle_left(&self, asked: u64, backends: &[u32], epoch: u64) {
        self.end_left(epoch, |left| left.epoch < asked && !backends.contains(&left.backend));
    }

    /// Another primary: what the one before still commits is in no node's future.
    pub(super) fn forget_left(&self, epoch: u64) {
        self.end_left(epoch, |_| true);
    }

    fn end_left(&self, epoch: u64, over: impl Fn(&Transaction) -> bool) {
        for left in self.left.lock().extract_if(.., |left| over(left)) {
            // First the floors: somebody may look between the two.
            self.raise_all(&left.changes, epoch);
            self.end(&left.changes, left.commit);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{super::Cluster, *};
    use crate::sql::Names;

    fn known(slots: &[u16]) -> (Names, Changes) {
        let names = Names::Known(slots.into());
        let mut changes = Changes::default();
        changes.add(&names);
        (names, changes)
    }

    #[test]
    fn what_was_left_is_open_until_its_backend_is_gone() {
        let cluster = Arc::new(Cluster::new("db".to_owned(), Vec::new()));
        let floors = &cluster.floors;
        let leave = |slot, backend, commits| {
            let mut open = Open::default();
            open.add(&cluster, &known(&[slot]).1);
            if commits {
                open.commits();
            }
            open.leave(backend);
        };
        let is_open = |slot| floors.may_show_more(&known(&[slot]).1, &Open::default());
        Open::default().leave(7);
        assert!(!floors.has_left());
        leave(4, 70, true);
        leave(5, 71, false);
        assert_eq!((floors.of(&known(&[4]).0), floors.of(&known(&[5]).0)), (1, 1));
        // Asked before that; and still there.
        floors.settle_left(1, &[], 9);
        floors.settle_left(2, &[71, 70], 9);
        assert!(is_open(4) && is_open(5) && floors.commits_under_way(1));
        assert_eq!(floors.of(&Names::Any), 1);
        floors.settle_left(3, &[71], 3);
        assert!(!is_open(4) && is_open(5) && !floors.commits_under_way(u64::MAX) && floors.has_left());
        assert_eq!(
            (floors.of(&known(&[4]).0), floors.of(&known(&[5]).0)),
            (3, 1),
            "it may have been committed late"
        );
        floors.forget_left(8);
        assert!(!is_open(5) && !floors.has_left());
        assert_eq!(floors.of(&known(&[5]).0), 8);
    }
}
