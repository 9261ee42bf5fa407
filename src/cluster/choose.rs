//! Which replica a read goes to. On the path of every read: atomics only, no allocation.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use super::{Cluster, Node, Role};

/// A replica that has just come gets fewer reads: its caches are cold.
const SLOW_START: Duration = Duration::from_secs(10);
/// How much busier it counts at first.
const COLD: u64 = 10;
/// Microseconds beside which differences of a request's time do not matter.
const SHORT: u64 = 1000;
/// How much busier a replica counts that did not answer the monitor in time.
const SILENT: u64 = 1000;

impl Cluster {
    /// A replica that has caught an epoch after `floor` and is no further behind than `max_lag`: the less busy one of
    /// two that `random` picks. `None`: the read has to go to the primary, or to wait.
    pub fn choose_replica(&self, floor: u64, max_lag: Option<Duration>, random: u64) -> Option<usize> {
        let eligible = || {
            let nodes = self.nodes.iter().enumerate();
            nodes.filter(move |(index, node)| self.may_read(*index, node, floor, max_lag))
        };
        let count = eligible().count() as u64;
        let first = random.checked_rem(count)?;
        let mut second = (random >> 32).checked_rem(count - 1).unwrap_or(first);
        if count > 1 && second >= first {
            second += 1;
        }
        let pick = |nth: u64| usize::try_from(nth).ok().and_then(|nth| eligible().nth(nth));
        // One that has ceased to be eligible meanwhile shifts the others; any of them will do.
        let (first, second) = match (pick(first), pick(second)) {
            (Some(first), Some(second)) => (first, second),
            (found, None) | (None, found) => return found.map(|(index, _)| index),
        };
        if first.0 == second.0 || self.no_busier(first.1, second.1) { Some(first.0) } else { Some(second.0) }
    }

    /// The less busy one of two nodes; the first if there is no difference worth mentioning.
    pub fn less_busy(&self, first: usize, second: usize) -> usize {
        let (Some(one), Some(other)) = (self.nodes.get(first), self.nodes.get(second)) else { return first };
        if self.no_busier(one, other) { first } else { second }
    }

    /// A request took so many microseconds at this node.
    pub fn took(&self, node: usize, micros: u64) {
        if let Some(node) = self.nodes.get(node) {
            node.latency.note(micros, self.clock());
        }
    }

    /// Whether a read may go to this node.
    pub fn is_eligible(&self, node: usize, floor: u64, max_lag: Option<Duration>) -> bool {
        self.nodes.get(node).is_some_and(|found| self.may_read(node, found, floor, max_lag))
    }

    /// A replica has caught an epoch after `floor`.
    pub fn caught_up(&self, node: usize, floor: u64) -> bool {
        self.nodes.get(node).is_some_and(|found| found.role() == Role::Replica) && self.caught(node) > floor
    }

    /// What a replica shows is no older than this, by pooler's clock alone. `None`: not known.
    pub fn staleness(&self, node: usize) -> Option<Duration> {
        let start = self.mark(self.nodes.get(node)?).start.load(Ordering::Acquire);
        let start = Duration::from_micros(start);
        (!start.is_zero()).then(|| self.made.elapsed().saturating_sub(start))
    }

    /// A live connection to this node said whether it is a standby.
    pub fn observe(&self, node: usize, in_hot_standby: bool) {
        let expected = match self.nodes.get(node).map(Node::role) {
            Some(Role::Primary | Role::Fenced) => Some(false),
            Some(Role::Replica) => Some(true),
            Some(Role::Down) => None,
            // Nobody expects anything of it.
            Some(Role::Unknown) | None => return,
        };
        if expected != Some(in_hot_standby) {
            self.suspect();
        }
    }

    fn may_read(&self, index: usize, node: &Node, floor: u64, max_lag: Option<Duration>) -> bool {
        let fresh = || max_lag.is_none_or(|lag| self.staleness(index).is_some_and(|is| is <= lag));
        node.address.weight > 0 && self.caught_up(index, floor) && fresh()
    }

    fn no_busier(&self, first: &Node, second: &Node) -> bool {
        let now = self.clock();
        let time = |node: &Node| node.latency.at(now);
        // Of one that has not worked yet nothing is known: as fast as the other.
        let (first_time, second_time) = match (time(first), time(second)) {
            (0, known) | (known, 0) => (known, known),
            both => both,
        };
        // By a little more or less nobody is told apart: all reads would go to one that is a hair faster.
        let first_cost = cost(first, first_time + SHORT, second, now);
        first_cost * 5 <= cost(second, second_time + SHORT, first, now) * 6
    }

    /// Time since the cluster was made.
    fn clock(&self) -> Duration {
        self.made.elapsed()
    }

    /// An instant by the clock of the cluster, in microseconds; never 0.
    pub(super) fn micros(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.made).as_micros()).unwrap_or(u64::MAX).max(1)
    }
}

/// (busy + 1) × time ÷ weight, times the weight of the other one.
fn cost(node: &Node, time: u64, other: &Node, now: Duration) -> u128 {
    // In thousandths. One that has nothing to do gets its reads, however new it is: else it would stay cold.
    let busy = u128::from(node.busy.load(Ordering::Relaxed)) * u128::from(cold(node, now)) + 1000;
    let silent = if node.silent.load(Ordering::Relaxed) { SILENT } else { 1 };
    busy * u128::from(time) * u128::from(other.address.weight) * u128::from(silent)
}

/// How much more a node counts for being new, in thousandths.
fn cold(node: &Node, now: Duration) -> u64 {
    let since = Duration::from_micros(node.reads_since.load(Ordering::Relaxed));
    let left = SLOW_START.saturating_sub(now.saturating_sub(since)).as_millis();
    let share = u64::try_from(left * 1000 / SLOW_START.as_millis()).unwrap_or(0);
    1000 + share * (COLD - 1)
}

/// How long requests take at a node: a moving average that forgets itself, so that one that was slow once gets another
/// chance.
#[derive(Debug, Default)]
pub(super) struct Latency {
    /// Microseconds, and in the lower half when they were noted, in milliseconds of the cluster's clock.
    noted: AtomicU64,
}

/// Milliseconds in which half of it is forgotten.
const HALF_LIFE: u64 = 256;

impl Latency {
    /// A request took so many microseconds.
    fn note(&self, micros: u64, now: Duration) {
        let before = self.at(now);
        let micros = micros.clamp(1, u64::from(u32::MAX));
        // Workers may overwrite each other's: it is an estimate.
        let average = if before == 0 { micros } else { before - before / 8 + micros / 8 };
        self.noted.store(average << 32 | millis(now), Ordering::Relaxed);
    }

    /// Microseconds; 0: nothing is known.
    fn at(&self, now: Duration) -> u64 {
        let noted = self.noted.load(Ordering::Relaxed);
        let age = millis(now).wrapping_sub(noted) & u64::from(u32::MAX);
        // Noted a moment later, by another worker.
        let age = if age > u64::from(u32::MAX) - HALF_LIFE { 0 } else { age };
        (noted >> 32) >> (age / HALF_LIFE).min(63)
    }
}

/// In 32 bits there is room for 49 days; then it begins anew, and ages are told by the difference.
fn millis(now: Duration) -> u64 {
    u64::try_from(now.as_millis()).unwrap_or(0) & u64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::NodeAddress;

    fn cluster(nodes: usize) -> Cluster {
        let node = |_| NodeAddress::new("db", 5432);
        let cluster = Cluster::new("db".to_owned(), (0..nodes).map(node).collect());
        for node in &cluster.nodes {
            node.role.store(Role::Replica as u8, Ordering::Release);
            node.caught_flush.epoch.store(5, Ordering::SeqCst);
        }
        cluster
    }

    /// How often each node is chosen.
    fn chosen(cluster: &Cluster, floor: u64, max_lag: Option<Duration>) -> Vec<u32> {
        let mut counts = vec![0; cluster.nodes.len()];
        for round in 0..1000_u64 {
            // As a random generator would: both halves are of use.
            let random = round.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            if let Some(node) = cluster.choose_replica(floor, max_lag, random) {
                counts[node] += 1;
            }
        }
        counts
    }

    #[test]
    fn only_replicas_that_have_caught_up_are_chosen() {
        let cluster = cluster(5);
        cluster.nodes[0].role.store(Role::Primary as u8, Ordering::Release);
        cluster.nodes[1].caught_flush.epoch.store(0, Ordering::SeqCst);
        cluster.nodes[2].caught_flush.epoch.store(4, Ordering::SeqCst);
        cluster.nodes[4].role.store(Role::Down as u8, Ordering::Release);
        let counts = chosen(&cluster, 0, None);
        assert!(counts[2] > 200 && counts[3] > 200 && counts[2] + counts[3] == 1000, "{counts:?}");
        assert_eq!(chosen(&cluster, 4, None), [0, 0, 0, 1000, 0]);
        assert_eq!(cluster.choose_replica(5, None, 7), None);
        assert!(cluster.caught_up(3, 4) && !cluster.caught_up(3, 5) && !cluster.caught_up(0, 0));
        // Commits that may not be flushed count by the other mark.
        cluster.note_async_commits();
        assert_eq!(cluster.choose_replica(0, None, 7), None);
        assert_eq!(super::super::Cluster::new("x".to_owned(), vec![]).choose_replica(0, None, 7), None);
    }

    #[test]
    fn lag_is_bounded_by_the_time_of_the_caught_epoch() {
        let cluster = cluster(2);
        assert_eq!(cluster.staleness(0), None);
        assert_eq!(cluster.choose_replica(0, Some(Duration::from_secs(3600)), 7), None);
        cluster.nodes[1].caught_flush.start.store(cluster.micros(Instant::now()), Ordering::Release);
        assert_eq!(chosen(&cluster, 0, Some(Duration::from_secs(3600))), [0, 1000]);
        std::thread::sleep(Duration::from_millis(5));
        assert_eq!(cluster.choose_replica(0, Some(Duration::from_millis(4)), 7), None);
    }

    /// S58: the less busy one, by weight and by the time that it takes.
    #[test]
    fn less_busy_replica_is_chosen() {
        let set = |busy: [u32; 2], latency: [u64; 2]| {
            let cluster = cluster(2);
            for (index, node) in cluster.nodes.iter().enumerate() {
                node.busy.store(busy[index], Ordering::Relaxed);
                if latency[index] > 0 {
                    cluster.took(index, latency[index]);
                }
            }
            cluster
        };
        for (busy, latency, expected) in [
            ([3, 2], [100, 100], 1),
            ([2, 3], [100, 100], 0),
            ([2, 3], [2000, 100], 1),
            // A fraction of a millisecond makes no difference.
            ([2, 3], [200, 100], 0),
            ([1, 2], [0, 100], 0),
            ([2, 1], [0, 100], 1),
        ] {
            assert_eq!(chosen(&set(busy, latency), 0, None)[expected], 1000, "{busy:?} {latency:?}");
        }
        let mut heavy = set([5, 2], [100, 100]);
        heavy.nodes[0].address.weight = 3;
        assert_eq!(chosen(&heavy, 0, None), [1000, 0]);
        heavy.nodes[0].address.weight = 0;
        assert_eq!(chosen(&heavy, 0, None), [0, 1000]);
        let silent = set([0, 9], [100, 100]);
        silent.nodes[0].silent.store(true, Ordering::Relaxed);
        assert_eq!(chosen(&silent, 0, None), [0, 1000]);
    }

    #[test]
    fn latency_follows_what_is_noted_and_forgets_itself() {
        let latency = Latency::default();
        let at = Duration::from_millis;
        assert_eq!(latency.at(at(5)), 0);
        latency.note(800, at(1000));
        latency.note(1600, at(1000));
        assert_eq!(latency.at(at(1000)), 900);
        assert_eq!((latency.at(at(1256)), latency.at(at(1512)), latency.at(at(9000))), (450, 225, 0));
        latency.note(u64::MAX, at(9000));
        assert_eq!(latency.at(at(9000)), u64::from(u32::MAX));
        // Of more than an hour nothing is left after ten seconds.
        assert_eq!(latency.at(at(19_000)), 0);
        // The clock of 32 bits begins anew, and another worker's is a moment ahead.
        let end = 1 << 32;
        latency.note(800, at(end - 56));
        let ages = [end - 57, end - 56, end + 200, end + 9000].map(|now| latency.at(at(now)));
        assert_eq!(ages, [800, 800, 400, 0]);
    }

    /// Which of two that are alike is asked is a matter of chance: one that is a little faster does not get everything.
    #[test]
    fn replicas_that_are_nearly_alike_share_the_reads() {
        let cluster = cluster(2);
        cluster.took(0, 60);
        cluster.took(1, 200);
        let counts = chosen(&cluster, 0, None);
        assert!(counts.iter().all(|count| *count > 300), "{counts:?}");
    }

    #[test]
    fn new_replica_starts_slowly() {
        let mut cluster = cluster(2);
        cluster.made = Instant::now().checked_sub(Duration::from_secs(60)).unwrap();
        let ago = |seconds| cluster.micros(Instant::now().checked_sub(Duration::from_secs(seconds)).unwrap());
        cluster.nodes[0].reads_since.store(ago(30), Ordering::Relaxed);
        cluster.nodes[0].busy.store(4, Ordering::Relaxed);
        let chosen_with = |busy, age| {
            cluster.nodes[1].busy.store(busy, Ordering::Relaxed);
            cluster.nodes[1].reads_since.store(ago(age), Ordering::Relaxed);
            chosen(&cluster, 0, None)
        };
        for (age, expected) in [(0, [1000, 0]), (4, [1000, 0]), (9, [0, 1000]), (20, [0, 1000])] {
            assert_eq!(chosen_with(1, age), expected, "{age}");
        }
        // It gets some from the beginning.
        assert_eq!(chosen_with(0, 0), [0, 1000]);
    }

    #[test]
    fn node_that_is_not_what_it_should_be_is_suspect() {
        for (role, standby, suspect) in [
            (Role::Primary, false, false),
            (Role::Primary, true, true),
            (Role::Replica, true, false),
            (Role::Replica, false, true),
            (Role::Fenced, false, false),
            (Role::Fenced, true, true),
            (Role::Down, true, true),
            (Role::Unknown, true, false),
        ] {
            let cluster = cluster(1);
            cluster.nodes[0].role.store(role as u8, Ordering::Release);
            cluster.observe(0, standby);
            assert_eq!(cluster.suspected.load(Ordering::Relaxed), suspect, "{role} {standby}");
        }
    }
}
