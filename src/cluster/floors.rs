//! What readers must have seen: for each relation, or for the whole database, the epoch of the last write.

use std::sync::{
    Arc,
    atomic::{AtomicU32, AtomicU64, Ordering},
};

use super::left::Left;
use crate::sql::{Names, SLOTS};

/// Epochs of the last writes.
#[derive(Debug)]
pub struct Floors {
    /// Of writes whose effect is not known: every read has to have seen them.
    everything: AtomicU64,
    /// Of any write.
    latest: AtomicU64,
    slots: Box<[AtomicU64]>,
    /// Transactions that may have changed something, and have not been acknowledged: of everything, of all kinds, by slot.
    open_everything: AtomicU32,
    open: AtomicU32,
    open_slots: Box<[AtomicU32]>,
    /// Those of them that may have been committed.
    commits: Commits,
    /// Those of them that nobody will acknowledge.
    pub(super) left: Left,
}

impl Default for Floors {
    fn default() -> Self {
        Self {
            everything: AtomicU64::new(0),
            latest: AtomicU64::new(0),
            slots: (0..SLOTS).map(|_| AtomicU64::new(0)).collect(),
            open_everything: AtomicU32::new(0),
            open: AtomicU32::new(0),
            open_slots: (0..SLOTS).map(|_| AtomicU32::new(0)).collect(),
            commits: Commits::default(),
            left: Left::default(),
        }
    }
}

impl Floors {
    /// A transaction that changed these was acknowledged in this epoch. Before its client is told.
    pub fn raise(&self, changed: &Names, epoch: u64) {
        match changed {
            Names::Any => self.raise_slots(true, &[], epoch),
            Names::Known(slots) => self.raise_slots(false, slots, epoch),
        }
    }

    fn raise_slots(&self, everything: bool, slots: &[u16], epoch: u64) {
        if everything {
            self.everything.fetch_max(epoch, Ordering::SeqCst);
        }
        for slot in slots.iter().filter_map(|slot| self.slots.get(usize::from(*slot))) {
            slot.fetch_max(epoch, Ordering::SeqCst);
        }
        self.latest.fetch_max(epoch, Ordering::SeqCst);
    }

    /// The epoch that a reader of these must have seen the end of.
    pub fn of(&self, read: &Names) -> u64 {
        let slots = match read {
            Names::Any => return self.latest.load(Ordering::SeqCst),
            Names::Known(slots) => slots,
        };
        let known = slots.iter().filter_map(|slot| self.slots.get(usize::from(*slot)));
        let highest = known.map(|slot| slot.load(Ordering::SeqCst)).max().unwrap_or(0);
        highest.max(self.everything.load(Ordering::SeqCst))
    }
}

impl Floors {
    /// Something that is read here may be changed by a transaction of others that has not been acknowledged: whoever read it
    /// may have seen more than the floors tell. `own`: the reader's own transaction.
    pub fn may_show_more(&self, read: &Changes, own: &Open) -> bool {
        let others = |counter: &AtomicU32, own: usize| counter.load(Ordering::SeqCst) as usize > own;
        let own = &own.changes;
        if !others(&self.open, usize::from(!own.is_empty())) {
            return false;
        }
        let by_others = |slot: &u16| {
            let mine = usize::from(own.slots().contains(slot));
            self.open_slots.get(usize::from(*slot)).is_some_and(|counter| others(counter, mine))
        };
        read.everything
            || others(&self.open_everything, usize::from(own.everything))
            || read.slots().iter().any(by_others)
    }

    /// A commit that was sent by the end of this epoch has not been acknowledged: a replica may show it although the primary
    /// does not yet.
    pub fn commits_under_way(&self, epoch: u64) -> bool {
        self.commits.are_under_way(epoch)
    }
}

/// Commits that have been sent and not been acknowledged, by the epoch in which they were sent.
///
/// A commit is flushed, streamed and replayed before the primary shows it: xact.c, RecordTransactionCommit comes before
/// ProcArrayEndTransaction.
#[derive(Debug)]
struct Commits([AtomicU64; 64]);

/// A place holds the earliest epoch of the commits in it, and below that their number.
const COUNT_BITS: u32 = 20;

impl Default for Commits {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl Commits {
    /// One was sent. Returns its place.
    fn begin(&self, epoch: u64) -> usize {
        let index = usize::try_from(epoch % 64).unwrap_or(0);
        let Some(place) = self.0.get(index) else { return index };
        let with_one_more = |held: u64| {
            let count = held & ((1 << COUNT_BITS) - 1);
            Some(if count == 0 { epoch << COUNT_BITS | 1 } else { held + 1 })
        };
        let _ = place.fetch_update(Ordering::SeqCst, Ordering::SeqCst, with_one_more);
        index
    }

    fn end(&self, index: usize) {
        if let Some(place) = self.0.get(index) {
            place.fetch_sub(1, Ordering::SeqCst);
        }
    }

    fn are_under_way(&self, epoch: u64) -> bool {
        let within = |held: u64| held & ((1 << COUNT_BITS) - 1) > 0 && held >> COUNT_BITS <= epoch;
        self.0.iter().any(|place| within(place.load(Ordering::SeqCst)))
    }
}

/// A set of relations that grows. A few of them take no memory.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    few: [u16; FEW],
    count: usize,
    /// All, if they are more than a few.
    many: Vec<u16>,
    everything: bool,
}

/// So many relations have room in the set itself.
const FEW: usize = 12;
/// More relations than this are taken for all.
const MANY: usize = 256;

impl Changes {
    /// Adds these.
    pub fn add(&mut self, names: &Names) {
        match names {
            Names::Any => self.add_everything(),
            Names::Known(slots) => self.add_slots(slots),
        }
    }

    /// Adds those of another set.
    pub fn add_all(&mut self, other: &Self) {
        if other.everything {
            return self.add_everything();
        }
        self.add_slots(other.slots());
    }

    fn add_everything(&mut self) {
        self.clear();
        self.everything = true;
    }

    fn add_slots(&mut self, slots: &[u16]) {
        for &slot in slots {
            if self.everything || self.slots().contains(&slot) {
                continue;
            }
            match self.few.get_mut(self.count) {
                Some(place) => *place = slot,
                None if self.count >= MANY => return self.add_everything(),
                None => {
                    if self.many.is_empty() {
                        self.many.extend_from_slice(&self.few);
                    }
                    self.many.push(slot);
                }
            }
            self.count += 1;
        }
    }

    /// Each once; none if it is everything.
    fn slots(&self) -> &[u16] {
        self.few.get(..self.count).unwrap_or(&self.many)
    }

    /// None.
    pub fn is_empty(&self) -> bool {
        self.count == 0 && !self.everything
    }

    /// Sets that share a relation share a bit.
    pub fn mask(&self) -> u64 {
        let bits = self.slots().iter().fold(0, |bits, slot| bits | 1 << (slot % 64));
        if self.everything { u64::MAX } else { bits }
    }

    /// None again.
    pub fn clear(&mut self) {
        self.count = 0;
        self.many.clear();
        self.everything = false;
    }
}

/// What a server's transactions may have changed, until they are acknowledged.
#[derive(Debug, Default)]
pub struct Open {
    of: Option<Arc<super::Cluster>>,
    changes: Changes,
    /// Their commit has been sent, and has this place.
    commit: Option<usize>,
}

impl Open {
    /// More was sent that may change something.
    pub fn add(&mut self, cluster: &Arc<super::Cluster>, changes: &Changes) {
        if changes.is_empty() {
            return;
        }
        let mut before = std::mem::take(self);
        self.commit = before.commit.take();
        self.of = Some(Arc::clone(cluster));
        self.changes = before.changes.clone();
        self.changes.add_all(changes);
        cluster.floors.count(&self.changes, 1);
        // Its end comes after the new beginning: something is open all the time.
        drop(before);
    }

    /// None.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// They are about to be committed.
    pub fn commits(&mut self) {
        if let (Some(cluster), None) = (&self.of, self.commit) {
            self.commit = Some(cluster.floors.commits.begin(cluster.epoch()));
        }
    }

    /// The primary shows them, or never will.
    pub fn commit_ended(&mut self) {
        if let (Some(cluster), Some(place)) = (&self.of, self.commit.take()) {
            cluster.floors.commits.end(place);
        }
    }

    /// It may be anything.
    pub fn is_everything(&self) -> bool {
        self.changes.everything
    }

    /// They are acknowledged: raises the floors. False if there is nothing.
    pub fn acknowledge(&self, epoch: u64) -> bool {
        let Some(cluster) = self.of.as_ref().filter(|_| !self.changes.is_empty()) else { return false };
        cluster.floors.raise_all(&self.changes, epoch);
        true
    }

    /// They go on to count as open, and whoever takes them ends them.
    pub(super) fn take(&mut self) -> Option<(Arc<super::Cluster>, Changes, Option<usize>)> {
        let cluster = self.of.take()?;
        Some((cluster, std::mem::take(&mut self.changes), self.commit.take()))
    }
}

impl Floors {
    pub(super) fn raise_all(&self, changes: &Changes, epoch: u64) {
        self.raise_slots(changes.everything, changes.slots(), epoch);
    }

    /// So much was open, with a commit at this place.
    pub(super) fn end(&self, changes: &Changes, commit: Option<usize>) {
        if let Some(place) = commit {
            self.commits.end(place);
        }
        self.count(changes, -1);
    }

    fn count(&self, changes: &Changes, change: i32) {
        let add = |counter: &AtomicU32| _ = counter.fetch_add(change.cast_unsigned(), Ordering::SeqCst);
        add(&self.open);
        if changes.everything {
            add(&self.open_everything);
        }
        let slots = changes.slots().iter();
        slots.filter_map(|slot| self.open_slots.get(usize::from(*slot))).for_each(add);
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some((cluster, changes, commit)) = self.take() {
            cluster.floors.end(&changes, commit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(slots: &[u16]) -> Names {
        Names::Known(slots.into())
    }

    #[test]
    fn readers_see_what_concerns_them() {
        let floors = Floors::default();
        floors.raise(&known(&[1, 7]), 5);
        assert_eq!(floors.of(&known(&[2])), 0);
        assert_eq!(floors.of(&known(&[2, 7])), 5);
        assert_eq!(floors.of(&Names::Any), 5);
        floors.raise(&Names::Any, 6);
        assert_eq!(floors.of(&known(&[2])), 6);
        floors.raise(&known(&[2]), 9);
        assert_eq!(floors.of(&known(&[1])), 6);
        assert_eq!(floors.of(&Names::Any), 9);
        // Late, from another thread.
        floors.raise(&known(&[2]), 8);
        assert_eq!(floors.of(&known(&[2])), 9);
    }

    #[test]
    fn sets_grow_to_everything() {
        let (mut set, mut other) = (Changes::default(), Changes::default());
        assert!(set.is_empty());
        for slot in 0..256 {
            set.add(&known(&[slot, slot / 2]));
            let all: Vec<u16> = (0..=slot).collect();
            assert_eq!((set.slots(), set.everything, set.is_empty()), (&all[..], false, false));
        }
        other.add(&known(&[7]));
        other.add_all(&set);
        assert_eq!((other.slots().len(), other.everything), (256, false));
        set.add(&known(&[300]));
        assert!(set.everything && set.slots().is_empty());
        set.add(&known(&[301]));
        assert!(set.everything && set.slots().is_empty());
        other.add_all(&set);
        assert!(other.everything && !other.is_empty());
        other.clear();
        assert!(other.is_empty() && other.slots().is_empty());
        other.add(&known(&[3, 3]));
        assert_eq!(other.slots(), [3]);
    }

    #[test]
    fn commits_are_under_way_until_they_are_answered() {
        let cluster = Arc::new(super::super::Cluster::new("db".to_owned(), Vec::new()));
        let under_way = |epoch| cluster.floors.commits_under_way(epoch);
        let mut changes = Changes::default();
        changes.add(&known(&[4]));
        let mut nothing = Open::default();
        nothing.commits();
        assert!(!under_way(u64::MAX));
        let mut first = Open::default();
        first.add(&cluster, &changes);
        assert!(!under_way(u64::MAX));
        let epoch = cluster.epoch();
        first.commits();
        first.commits();
        // More of the same server's: the earlier one still counts.
        first.add(&cluster, &changes);
        assert!(under_way(epoch) && !under_way(epoch - 1));
        cluster.epoch.fetch_add(64, Ordering::SeqCst);
        let mut second = Open::default();
        second.add(&cluster, &changes);
        second.commits();
        first.commit_ended();
        first.commit_ended();
        // They share a place, which is taken for as early as the first.
        assert!(under_way(epoch));
        drop(second);
        assert!(!under_way(u64::MAX));
        first.commits();
        assert!(under_way(epoch + 64) && !under_way(epoch + 63));
        drop(first);
        assert!(!under_way(u64::MAX));
    }

    #[test]
    fn sets_that_share_a_relation_share_a_bit() {
        let of = |names: Names| {
            let mut changes = Changes::default();
            changes.add(&names);
            changes.mask()
        };
        assert_eq!((of(known(&[])), of(Names::Any)), (0, u64::MAX));
        assert_eq!(of(known(&[1, 64])), 3);
        assert_ne!(of(known(&[200, 9])) & of(known(&[200])), 0);
    }

    #[test]
    fn what_is_open_may_show_more() {
        let cluster = Arc::new(super::super::Cluster::new("db".to_owned(), Vec::new()));
        let of = |names: Names| {
            let mut changes = Changes::default();
            changes.add(&names);
            changes
        };
        let shows = |names: Names| cluster.floors.may_show_more(&of(names), &Open::default());
        let mut open = Open::default();
        assert!(open.is_empty() && !open.acknowledge(3) && !shows(Names::Any));
        open.add(&cluster, &of(known(&[4])));
        assert!(shows(known(&[4])) && shows(Names::Any) && !shows(known(&[5])));
        open.add(&cluster, &of(known(&[4, 5])));
        assert!(shows(known(&[5])));
        // To its own reader it shows nothing that is not told.
        assert!(!cluster.floors.may_show_more(&of(known(&[5])), &open));
        assert!(open.acknowledge(3));
        assert_eq!(cluster.floors.of(&known(&[5])), 3);
        let mut other = Open::default();
        other.add(&cluster, &of(Names::Any));
        drop(open);
        assert!(shows(known(&[6])));
        drop(other);
        assert!(!shows(Names::Any) && !shows(known(&[4])) && !shows(known(&[5])));
    }
}
