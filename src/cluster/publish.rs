//! What the monitor makes known to the workers, in the order that keeps them right.

use std::{
    sync::{PoisonError, atomic::Ordering},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use super::{Caught, Cluster, NONE, Node, NodeReport, Role, decide::Verdict, epochs::Mark};
use crate::sql::Names;

impl Cluster {
    /// Makes roles known. With `other_primary` (another node, or a new timeline) nothing that was caught counts any
    /// more: positions of two timelines cannot be compared.
    ///
    /// First no read goes where it must not, then roles change, then those who wait for it are told.
    pub(super) fn publish(&self, verdict: &Verdict, other_primary: bool) {
        for (node, ruling) in self.nodes.iter().zip(&verdict.rulings) {
            if other_primary || !ruling.eligible {
                node.forget_caught();
            }
            if !ruling.eligible {
                node.reads_since.store(0, Ordering::Relaxed);
            }
        }
        if let Some(last) = verdict.accepted {
            // Behind what was replayed on another one: see `has_replayed`.
            self.timeline.store(last.timeline, Ordering::SeqCst);
        }
        if other_primary {
            self.floors.raise(&Names::Any, self.epoch());
            self.floors.forget_left(self.epoch());
        }
        let mut changed = other_primary;
        for (node, ruling) in self.nodes.iter().zip(&verdict.rulings) {
            let before = node.role.swap(ruling.role as u8, Ordering::SeqCst);
            changed |= before != ruling.role as u8;
        }
        let primary = verdict.primary.and_then(|index| u32::try_from(index).ok()).unwrap_or(NONE);
        if self.primary.load(Ordering::SeqCst) != primary {
            // They were about the one before.
            self.settled.fetch_max(self.doubts.load(Ordering::SeqCst), Ordering::SeqCst);
        }
        changed |= self.primary.swap(primary, Ordering::SeqCst) != primary;
        if changed {
            self.tell_of_change();
        }
    }

    /// The primary has answered a question that was asked after so many losses of connections.
    pub(super) fn settle_doubts(&self, doubts: u64) {
        let before = self.settled.fetch_max(doubts, Ordering::SeqCst);
        if before < doubts && !self.is_doubtful() {
            self.settled_at.store(self.micros(Instant::now()), Ordering::Relaxed);
            self.tell_of_change();
        }
    }

    /// Who waits for a node looks for one again.
    fn tell_of_change(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
        self.changed.notify_waiters();
    }

    /// A replica has replayed these marks (flushed, inserted). True if one of them is news.
    pub(super) fn caught_marks(&self, node: usize, marks: (Option<&Mark>, Option<&Mark>)) -> bool {
        let Some(node) = self.nodes.get(node) else { return false };
        let flush =
            marks.0.is_some_and(|mark| node.caught_flush.advance(mark.epoch, self.micros(mark.start)));
        let insert =
            marks.1.is_some_and(|mark| node.caught_insert.advance(mark.epoch, self.micros(mark.start)));
        if flush || insert {
            self.starts_reading(node);
            self.advanced.notify_waiters();
        }
        flush || insert
    }

    /// No primary was ever seen: nothing was written through pooler, so that any state is fresh enough.
    pub(super) fn caught_nothing_to_catch(&self, node: usize) {
        let Some(node) = self.nodes.get(node) else { return };
        let epoch = self.epoch();
        for caught in [&node.caught_flush, &node.caught_insert] {
            caught.epoch.fetch_max(epoch, Ordering::SeqCst);
        }
        self.starts_reading(node);
    }

    fn starts_reading(&self, node: &Node) {
        let now = self.micros(Instant::now());
        // It may have been one for long: then nothing changes.
        let _ = node.reads_since.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
    }
}

impl Caught {
    fn advance(&self, epoch: u64, start: u64) -> bool {
        let news = self.epoch.fetch_max(epoch, Ordering::SeqCst) < epoch;
        if news {
            // Whoever reads between the two takes it for older than it is.
            self.start.fetch_max(start, Ordering::AcqRel);
        }
        news
    }
}

impl Node {
    /// Nothing that it caught counts any more.
    pub(super) fn forget_caught(&self) {
        for caught in [&self.caught_flush, &self.caught_insert] {
            caught.epoch.store(0, Ordering::SeqCst);
            caught.start.store(0, Ordering::Release);
        }
        self.forget_replayed();
    }

    /// Epochs that it has caught, by flushed and by inserted positions.
    pub(super) fn caught_both(&self) -> (u64, u64) {
        let of = |caught: &Caught| caught.epoch.load(Ordering::SeqCst);
        (of(&self.caught_flush), of(&self.caught_insert))
    }

    /// It answers in time, or not.
    pub(super) fn set_silent(&self, silent: bool) {
        self.silent.store(silent, Ordering::Relaxed);
    }

    /// Changes what operators are told.
    pub(super) fn update_report(&self, role_before: Role, change: impl FnOnce(&mut NodeReport)) {
        let mut report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut report);
        if role_before != self.role() || report.since == 0 {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            report.since = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
        }
    }
}
