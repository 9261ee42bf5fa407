//! Errors by their SQLSTATE. Programs may make up codes of their own, so only so many are told apart.

use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering},
};

/// Codes that are told apart.
const MOST: usize = 40;

/// What the others are counted as.
pub const OTHERS: &str = "other";

/// How many errors there were, by code. Takes no memory until there is one, and is filled without a lock.
#[derive(Debug, Default)]
pub struct Sqlstates(OnceLock<Box<Table>>);

#[derive(Debug)]
struct Table {
    /// Codes in the order in which they came; a code of 0 is a free place.
    known: [(AtomicU64, AtomicU64); MOST],
    others: AtomicU64,
}

impl Table {
    fn new() -> Box<Self> {
        Box::new(Self { known: std::array::from_fn(|_| Default::default()), others: AtomicU64::new(0) })
    }

    fn counter(&self, code: u64) -> &AtomicU64 {
        for (known, counter) in &self.known {
            let taken = known.compare_exchange(0, code, Ordering::AcqRel, Ordering::Acquire);
            if taken.is_ok() || taken == Err(code) {
                return counter;
            }
        }
        &self.others
    }
}

/// Letters and digits in a number; `None` if there is anything else.
fn packed(code: [u8; 5]) -> Option<u64> {
    let valid = code.iter().all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase());
    valid.then(|| code.iter().fold(0, |packed, byte| packed << 8 | u64::from(*byte)))
}

fn unpacked(code: u64) -> String {
    let bytes = code.to_be_bytes();
    bytes.into_iter().filter(|byte| *byte != 0).map(char::from).collect()
}

impl Sqlstates {
    /// Counts one.
    pub fn add(&self, code: [u8; 5]) {
        let table = self.0.get_or_init(Table::new);
        let counter = packed(code).map_or(&table.others, |code| table.counter(code));
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Each code, and how often it came.
    pub fn counts(&self) -> Vec<(String, u64)> {
        let Some(table) = self.0.get() else { return Vec::new() };
        let known = table
            .known
            .iter()
            .map(|(code, counter)| (unpacked(code.load(Ordering::Acquire)), counter.load(Ordering::Relaxed)));
        let others = (OTHERS.to_owned(), table.others.load(Ordering::Relaxed));
        known.chain([others]).filter(|(_, count)| *count > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_counted_by_code() {
        let errors = Sqlstates::default();
        assert!(errors.counts().is_empty());
        for code in [b"23505", b"40001", b"23505", b"P0001"] {
            errors.add(*code);
        }
        let expected = [("23505", 2), ("40001", 1), ("P0001", 1)].map(|(code, n)| (code.to_owned(), n));
        assert_eq!(errors.counts(), expected);
    }

    #[test]
    fn only_so_many_codes_are_told_apart() {
        let errors = Sqlstates::default();
        for number in 0..1_000 {
            let code = format!("X{number:04}");
            errors.add(*code.as_bytes().first_chunk().unwrap());
        }
        errors.add(*b"a\"\n\\\0");
        let counts = errors.counts();
        assert_eq!(counts.len(), MOST + 1);
        assert_eq!(counts.last(), Some(&(OTHERS.to_owned(), 1_001 - MOST as u64)));
    }
}
