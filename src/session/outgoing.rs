//! What to write after reading a chunk: the chunk itself where nothing changed, else a copy with the changes.
//!
//! Keeps the rule "one write per readable event": as long as every byte passes through untouched, no
//! byte is copied; with the first injected or dropped byte the output moves to a staging buffer.

use std::ops::Range;

/// The output being built from one input chunk.
#[derive(Debug)]
pub struct Outgoing<'a> {
    input: &'a [u8],
    staged: &'a mut Vec<u8>,
    /// Run of the input that passes and is not in `staged` yet.
    run: Range<usize>,
}

impl<'a> Outgoing<'a> {
    /// Starts with nothing to write. `staged` must be empty.
    pub fn new(input: &'a [u8], staged: &'a mut Vec<u8>) -> Self {
        debug_assert!(staged.is_empty());
        Self { input, staged, run: 0..0 }
    }

    /// Passes `input[from..to]` through.
    pub fn pass(&mut self, from: usize, to: usize) {
        if self.run.end == from && !self.run.is_empty() {
            self.run.end = to;
            return;
        }
        self.stage_run();
        self.run = from..to;
    }

    /// Bytes that had to be copied so far.
    pub fn staged(&self) -> usize {
        self.staged.len()
    }

    /// Inserts bytes of the pooler's own at this place.
    pub fn inject(&mut self) -> &mut Vec<u8> {
        self.stage_run();
        self.staged
    }

    fn stage_run(&mut self) {
        if let Some(bytes) = self.input.get(self.run.clone()) {
            self.staged.extend_from_slice(bytes);
        }
        self.run = 0..0;
    }

    /// The bytes to write.
    pub fn finish(mut self) -> &'a [u8] {
        if self.staged.is_empty() {
            return self.input.get(self.run).unwrap_or_default();
        }
        self.stage_run();
        self.staged
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn untouched_input_is_not_copied() {
        let mut staged = Vec::new();
        let input = b"abcdef";
        let mut out = Outgoing::new(input, &mut staged);
        out.pass(1, 3);
        out.pass(3, 6);
        let written = out.finish();
        assert_eq!(written, b"bcdef");
        assert_eq!(written.as_ptr(), input[1..].as_ptr());
    }

    #[test]
    fn injections_keep_their_place() {
        let mut staged = Vec::new();
        let mut out = Outgoing::new(b"abcdef", &mut staged);
        out.pass(0, 2);
        out.inject().extend_from_slice(b"--");
        out.pass(2, 4);
        out.pass(5, 6);
        out.inject().extend_from_slice(b"!");
        assert_eq!(out.finish(), b"ab--cdf!");
    }

    #[test]
    fn nothing_passed_writes_nothing() {
        let mut staged = Vec::new();
        assert_eq!(Outgoing::new(b"abc", &mut staged).finish(), b"");
    }
}
