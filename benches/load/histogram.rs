//! Latencies in buckets that grow with the value: 64 per power of two, so within 1.6 % of the truth.

const SUB_BITS: u32 = 6;
const SUB: u64 = 1 << SUB_BITS;

/// Counts of nanosecond values.
pub(crate) struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

impl Histogram {
    pub(crate) fn new() -> Self {
        Self { counts: vec![0; 64 << SUB_BITS], total: 0 }
    }

    pub(crate) fn record(&mut self, nanos: u64) {
        if let Some(slot) = self.counts.get_mut(bucket(nanos)) {
            *slot += 1;
            self.total += 1;
        }
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (slot, more) in self.counts.iter_mut().zip(&other.counts) {
            *slot += more;
        }
        self.total += other.total;
    }

    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// The value, in microseconds, that `per_mille` of 1000 do not exceed; 0 if there are none.
    pub(crate) fn micros_at(&self, per_mille: u64) -> f64 {
        let wanted = (self.total * per_mille).div_ceil(1000).max(1);
        let mut seen = 0;
        for (index, count) in (0u64..).zip(&self.counts) {
            seen += count;
            if seen >= wanted {
                return middle(index) / 1000.0;
            }
        }
        0.0
    }
}

fn bucket(value: u64) -> usize {
    let power = value.max(1).ilog2();
    let index = if power < SUB_BITS {
        value
    } else {
        let shift = power - SUB_BITS;
        u64::from(shift + 1) * SUB + ((value >> shift) - SUB)
    };
    usize::try_from(index).unwrap_or(usize::MAX)
}

fn middle(index: u64) -> f64 {
    if index < SUB {
        return index as f64;
    }
    let shift = index / SUB - 1;
    let low = (index % SUB + SUB) << shift;
    low as f64 + (1u64 << shift) as f64 / 2.0
}
