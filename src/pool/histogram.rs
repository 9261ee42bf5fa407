//! How times are distributed: counts in buckets that grow, two to each doubling, written by one worker, read by anyone.

use super::stats::Counter;

/// The first bucket ends here; a power of two.
const FIRST: u64 = 64;
/// Doublings between the end of the first bucket and that of the last: 67 seconds.
const DOUBLINGS: usize = 20;
/// The last one has no end.
const BUCKETS: usize = 2 * DOUBLINGS + 2;

/// Times in microseconds, of one shard.
#[derive(Debug)]
pub struct Histogram([Counter; BUCKETS]);

impl Default for Histogram {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Counter::default()))
    }
}

impl Histogram {
    /// Counts one that took so long; only the owning worker may.
    pub fn add(&self, micros: u64) {
        self.add_several(micros, 1);
    }

    /// Counts several that took so long together: nobody knows which of them took more.
    pub fn share(&self, micros: u64, count: u64) {
        match count {
            1 => self.add(micros),
            _ => self.add_several(micros.checked_div(count).unwrap_or(0), count),
        }
    }

    fn add_several(&self, micros: u64, count: u64) {
        if let Some(bucket) = self.0.get(bucket_of(micros)) {
            bucket.add(count);
        }
    }
}

/// The bucket with the smallest end that is not less.
fn bucket_of(micros: u64) -> usize {
    let below = micros.saturating_sub(1);
    if below < FIRST {
        return 0;
    }
    let doublings = below.ilog2();
    let upper_half = (below >> (doublings - 1)) & 1;
    let bucket = u64::from(2 * (doublings - FIRST.ilog2())) + upper_half + 1;
    usize::try_from(bucket).map_or(BUCKETS - 1, |bucket| bucket.min(BUCKETS - 1))
}

/// The longest time that a bucket counts; of the last one there is none.
fn end_of(bucket: usize) -> Option<u64> {
    let doublings = bucket / 2;
    match bucket % 2 {
        _ if bucket + 1 >= BUCKETS => None,
        0 => Some(FIRST << doublings),
        _ => Some((FIRST << doublings) / 2 * 3),
    }
}

/// The sum over shards, at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Distribution([u64; BUCKETS]);

impl Default for Distribution {
    fn default() -> Self {
        Self([0; BUCKETS])
    }
}

impl Distribution {
    /// Adds what a shard has counted.
    pub fn add(&mut self, shard: &Histogram) {
        for (sum, counter) in self.0.iter_mut().zip(&shard.0) {
            *sum += counter.get();
        }
    }

    /// Adds another sum.
    pub fn merge(&mut self, other: &Self) {
        for (sum, more) in self.0.iter_mut().zip(other.0) {
            *sum += more;
        }
    }

    /// What came since `earlier`.
    pub fn since(&self, earlier: &Self) -> Self {
        let mut since = *self;
        for (count, before) in since.0.iter_mut().zip(earlier.0) {
            *count = count.saturating_sub(before);
        }
        since
    }

    /// The time (microseconds) that such a part of all is within, about; `None`: there are none. What is longer than the last
    /// bucket counts as that.
    pub fn quantile(&self, part: f64) -> Option<u64> {
        let rank = self.count() as f64 * part;
        let mut below = 0_u64;
        let mut start = 0_u64;
        for (end, count) in self.buckets() {
            let end = end.unwrap_or(start);
            if count > 0 && (below + count) as f64 >= rank {
                let within = (rank - below as f64) / count as f64;
                let width = end.saturating_sub(start) as f64 * within.clamp(0.0, 1.0);
                // Less than the width of a bucket: no more than 2^26.
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "from 0 to 2^26"
                )]
                return Some(start + width as u64);
            }
            below += count;
            start = end;
        }
        None
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The longest time of each bucket, and how many are in it.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<u64>, u64)> {
        self.0.iter().enumerate().map(|(bucket, count)| (end_of(bucket), *count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_time_is_in_the_first_bucket_that_holds_it() {
        for micros in
            (0..5_000).chain([99_999, 100_000, 1 << 20, (1 << 26) - 1, 1 << 26, (1 << 26) + 1, u64::MAX])
        {
            let bucket = bucket_of(micros);
            assert!(end_of(bucket).is_none_or(|end| micros <= end), "{micros} in {bucket}");
            let before = bucket.checked_sub(1).and_then(end_of);
            assert!(before.is_none_or(|end| micros > end), "{micros} in {bucket}");
        }
        let ends: Vec<u64> = (0..BUCKETS).filter_map(end_of).collect();
        assert!(ends.is_sorted() && ends.len() == BUCKETS - 1, "{ends:?}");
        assert_eq!((ends[0], ends[1], ends[2], ends[BUCKETS - 2]), (64, 96, 128, 1 << 26));
    }

    #[test]
    fn quantiles_lie_in_the_bucket_that_holds_them() {
        let shard = Histogram::default();
        let all = |shard: &Histogram| {
            let mut all = Distribution::default();
            all.add(shard);
            all
        };
        assert_eq!(all(&shard).quantile(0.5), None);
        (0..90).for_each(|_| shard.add(100));
        let before = all(&shard);
        (0..10).for_each(|_| shard.add(5_000));
        let quantile = |part| all(&shard).quantile(part).unwrap();
        assert!((96..=128).contains(&quantile(0.5)) && (96..=128).contains(&quantile(0.9)));
        assert!((4_096..=6_144).contains(&quantile(0.95)) && quantile(0.99) > quantile(0.95));
        assert!(all(&shard).since(&before).quantile(0.0).unwrap() >= 4_096);
        shard.add(u64::MAX);
        assert_eq!(quantile(1.0), 1 << 26);
    }

    #[test]
    fn sums_are_over_shards() {
        let shards = [Histogram::default(), Histogram::default()];
        shards[0].share(100, 2);
        shards[1].add(10);
        shards[1].add(u64::MAX);
        let mut sum = Distribution::default();
        shards.iter().for_each(|shard| sum.add(shard));
        let mut twice = sum;
        twice.merge(&sum);
        assert_eq!((sum.count(), twice.count()), (4, 8));
        let buckets: Vec<_> = twice.buckets().collect();
        assert_eq!((buckets[0], buckets[BUCKETS - 1]), ((Some(64), 6), (None, 2)));
    }
}
