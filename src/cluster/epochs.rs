//! Which epochs a replica has caught: the primary's positions by number, and a replica's position against them. Pure.
//!
//! Source of the rounding: xlog.c, XLogBytePosToRecPtr: a position just past the header of a page that is still empty
//! stands for the end of the page before.

use std::{collections::VecDeque, time::Instant};

/// More of them than this are thinned out: a replica that is behind for so long catches in larger steps.
const MAX_OPEN: usize = 1024;
/// Headers at the start of a WAL page, and of the first page of a segment (xlog_internal.h).
const SHORT_HEADER: u64 = 24;
const LONG_HEADER: u64 = 40;

/// Sizes in the WAL of a system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WalSizes {
    pub(super) page: u64,
    pub(super) segment: u64,
}

impl Default for WalSizes {
    fn default() -> Self {
        Self { page: 8192, segment: 16 << 20 }
    }
}

impl WalSizes {
    /// The end of the last record, for an insert position.
    pub(super) fn end_of_record(self, insert: u64) -> u64 {
        let first_page = insert.checked_rem(self.segment).is_some_and(|offset| offset < self.page);
        let header = if first_page { LONG_HEADER } else { SHORT_HEADER };
        match insert.checked_rem(self.page) {
            Some(offset) if offset == header => insert - offset,
            _ => insert,
        }
    }
}

/// Reads an LSN (`0/301E018`).
pub(super) fn parse_lsn(text: &str) -> Option<u64> {
    let (high, low) = text.split_once('/')?;
    let (high, low) = (u32::from_str_radix(high, 16).ok()?, u32::from_str_radix(low, 16).ok()?);
    Some(u64::from(high) << 32 | u64::from(low))
}

/// The answer to a poll of the primary.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    /// The number that was taken before it was asked.
    pub(super) epoch: u64,
    /// When it was asked.
    pub(super) start: Instant,
    pub(super) flush: u64,
    /// The end of the last record.
    pub(super) insert: u64,
}

/// The marks that some replica may still have to catch, and the last one that all have.
#[derive(Clone, Debug, Default)]
pub(super) struct Epochs {
    marks: VecDeque<Mark>,
    /// Whose positions they are.
    timeline: u32,
}

impl Epochs {
    /// Another primary: its positions have nothing to do with these.
    pub(super) fn clear(&mut self) {
        self.marks.clear();
    }

    /// Nothing, unless they are of this timeline.
    pub(super) fn keep_of(&mut self, timeline: u32) {
        if self.timeline != timeline {
            self.clear();
        }
    }

    pub(super) fn push(&mut self, timeline: u32, mark: Mark) {
        self.keep_of(timeline);
        self.timeline = timeline;
        // A primary that restarted may have lost what it had not flushed.
        while self.marks.back().is_some_and(|last| last.flush > mark.flush || last.insert > mark.insert) {
            self.marks.pop_back();
        }
        self.marks.push_back(mark);
        if self.marks.len() > MAX_OPEN {
            let newest = mark.epoch;
            let mut keep = false;
            self.marks.retain(|mark| {
                keep = !keep;
                keep || mark.epoch == newest
            });
        }
    }

    pub(super) fn newest(&self) -> Option<&Mark> {
        self.marks.back()
    }

    /// The newest marks whose flushed and whose inserted position `replayed` has reached.
    pub(super) fn caught(&self, replayed: u64) -> (Option<&Mark>, Option<&Mark>) {
        let before = |reached: usize| reached.checked_sub(1).and_then(|index| self.marks.get(index));
        (
            before(self.marks.partition_point(|mark| mark.flush <= replayed)),
            before(self.marks.partition_point(|mark| mark.insert <= replayed)),
        )
    }

    /// Every replica has caught `epoch`: marks before it are of no use.
    pub(super) fn forget_before(&mut self, epoch: u64) {
        while self.marks.front().is_some_and(|mark| mark.epoch < epoch) {
            self.marks.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(epoch: u64, flush: u64, insert: u64) -> Mark {
        Mark { epoch, start: Instant::now(), flush, insert }
    }

    fn caught(epochs: &Epochs, replayed: u64) -> (u64, u64) {
        let (flush, insert) = epochs.caught(replayed);
        (flush.map_or(0, |mark| mark.epoch), insert.map_or(0, |mark| mark.epoch))
    }

    #[test]
    fn lsn_is_two_hexadecimal_halves() {
        assert_eq!(parse_lsn("0/301E018"), Some(0x0301_E018));
        assert_eq!(parse_lsn("1A/FF"), Some(0x1A_0000_00FF));
        for wrong in ["", "/", "1", "0/", "0/1/2", "0/100000000", "x/1"] {
            assert_eq!(parse_lsn(wrong), None, "{wrong}");
        }
    }

    /// Trap 1 of the epoch rule: on an idle primary such a position would never be replayed.
    #[test]
    fn position_behind_a_page_header_is_the_end_of_the_page_before() {
        let sizes = WalSizes::default();
        let table = [
            (0x0301_E018, 0x0301_E000),
            (0x0301_E000, 0x0301_E000),
            (0x0301_E020, 0x0301_E020),
            // The first page of a segment has a longer header.
            (0x0300_0028, 0x0300_0000),
            (0x0300_0018, 0x0300_0018),
            (0x0300_2028, 0x0300_2028),
        ];
        for (insert, end) in table {
            assert_eq!(sizes.end_of_record(insert), end, "{insert:X}");
        }
        let nonsense = WalSizes { page: 0, segment: 0 };
        assert_eq!(nonsense.end_of_record(5), 5);
    }

    #[test]
    fn replica_has_caught_what_it_has_replayed() {
        let mut epochs = Epochs::default();
        assert_eq!(caught(&epochs, 100), (0, 0));
        for (epoch, flush, insert) in [(2, 10, 15), (3, 10, 20), (5, 20, 20), (6, 30, 44)] {
            epochs.push(1, mark(epoch, flush, insert));
        }
        let table = [(9, (0, 0)), (10, (3, 0)), (15, (3, 2)), (20, (5, 5)), (43, (6, 5)), (44, (6, 6))];
        for (replayed, expected) in table {
            assert_eq!(caught(&epochs, replayed), expected, "{replayed}");
        }
        epochs.forget_before(5);
        assert_eq!(caught(&epochs, 19), (0, 0));
        assert_eq!(caught(&epochs, 20), (5, 5));
        let mut others = epochs.clone();
        epochs.keep_of(1);
        others.keep_of(2);
        assert_eq!((caught(&epochs, 20), caught(&others, 20)), ((5, 5), (0, 0)));
        epochs.push(2, mark(7, 5, 5));
        assert_eq!((caught(&epochs, 4), caught(&epochs, 100)), ((0, 0), (7, 7)));
        epochs.clear();
        assert_eq!(caught(&epochs, 100), (0, 0));
    }

    #[test]
    fn unflushed_tail_lost_in_a_crash_takes_its_marks_along() {
        let mut epochs = Epochs::default();
        for (epoch, flush, insert) in [(2, 10, 15), (3, 10, 90), (4, 12, 20)] {
            epochs.push(1, mark(epoch, flush, insert));
        }
        assert_eq!(caught(&epochs, 20), (4, 4));
        assert_eq!(caught(&epochs, 15), (4, 2));
    }

    #[test]
    fn marks_are_bounded_and_the_newest_stays() {
        let mut epochs = Epochs::default();
        for epoch in 1..=10_000 {
            epochs.push(1, mark(epoch, epoch, epoch));
            assert_eq!(epochs.newest().map(|mark| mark.epoch), Some(epoch));
        }
        assert!(epochs.marks.len() <= MAX_OPEN);
        assert_eq!(caught(&epochs, 10_000), (10_000, 10_000));
        // Too little is caught rather than too much.
        for replayed in [1, 77, 5_000, 9_999] {
            let (flush, insert) = caught(&epochs, replayed);
            assert!(flush <= replayed && insert <= replayed);
        }
    }
}
