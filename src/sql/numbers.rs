//! Where numbers end.

use super::lexer::{DIGIT, Junk, LETTER, Lexer};

impl Lexer<'_> {
    /// Behind the number that starts here. What follows it at once must not be a letter.
    pub(super) fn number_end(&self, start: usize) -> Result<usize, Junk> {
        let mut at = start;
        let radix = self.byte(at + 1) | 0x20;
        if self.byte(at) == b'0' && matches!(radix, b'x' | b'o' | b'b') {
            at = self.radix_end(at + 2, radix);
            // Not one digit, or something that is none.
            let bad = at == start + 2 || self.class(at) & (LETTER | DIGIT) != 0;
            return if bad { Err(Junk) } else { Ok(at) };
        }
        at = self.digits_end(at);
        if self.byte(at) == b'.' && self.byte(at + 1) != b'.' {
            at = self.digits_end(at + 1);
        }
        if self.byte(at) | 0x20 == b'e' {
            at += if matches!(self.byte(at + 1), b'+' | b'-') { 2 } else { 1 };
            let digits = at;
            at = self.digits_end(digits);
            if at == digits {
                return Err(Junk);
            }
        }
        if self.class(at) & LETTER == 0 { Ok(at) } else { Err(Junk) }
    }

    /// Behind digits with single `_` between them; `at` itself if there is none.
    fn digits_end(&self, at: usize) -> usize {
        if !self.byte(at).is_ascii_digit() {
            return at;
        }
        let mut at = at + 1;
        loop {
            let digit = if self.byte(at) == b'_' { at + 1 } else { at };
            if !self.byte(digit).is_ascii_digit() {
                return at;
            }
            at = digit + 1;
        }
    }

    fn radix_end(&self, mut at: usize, radix: u8) -> usize {
        loop {
            let digit = if self.byte(at) == b'_' { at + 1 } else { at };
            let fits = match radix {
                b'x' => self.byte(digit).is_ascii_hexdigit(),
                b'o' => matches!(self.byte(digit), b'0'..=b'7'),
                _ => matches!(self.byte(digit), b'0' | b'1'),
            };
            if !fits {
                return at;
            }
            at = digit + 1;
        }
    }
}
