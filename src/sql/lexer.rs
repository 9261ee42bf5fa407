//! A text as PostgreSQL's scanner sees it: tokens with their places, nothing decoded.
//!
//! Follows src/backend/parser/scan.l of PostgreSQL 18. Refuses a little more than the server does (`U&"…"`), never
//! less: what is refused here is for the primary. Servers before 15 read `1a` as two tokens; here it is refused.
//! Linear in time, constant in space: no recursion, nothing is allocated.

use std::ops::Range;

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// A keyword or an identifier without quotes.
    Word,
    /// `"…"`
    Quoted,
    Number,
    /// `'…'` (all parts of it, if it is continued on other lines), `$tag$…$tag$`.
    Text,
    /// A string in which a backslash means something: `E'…'`, `U&'…'`, `'…'` unless strings conform to the standard.
    Escaped,
    /// `B'…'`, `X'…'`
    Bits,
    /// `$1`
    Param,
    /// One of `,()[];.:`.
    Punctuation(u8),
    /// `::`, `:=`, `=>`, `..`
    Mark,
    /// An operator of any length.
    Operator,
}

/// Where a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    pub kind: TokenKind,
    /// Its end above its start: moved at once, a token costs nothing to hand over.
    place: u64,
    /// Classes of all bytes of a word or a quoted identifier, or-ed.
    pub(super) classes: u8,
}

/// The text cannot be read from here on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Junk;

const SPACE: u8 = 1;
pub(super) const LETTER: u8 = 2;
pub(super) const DIGIT: u8 = 4;
/// Part of an operator.
const OPERATOR: u8 = 8;
/// `$`, in words not at their start. In quoted identifiers: a quote.
pub(super) const ODD: u8 = 16;
pub(super) const UPPER: u8 = 32;
/// Not ASCII.
pub(super) const HIGH: u8 = 64;
/// Operators with one of these may end in a sign.
const SPECIAL: u8 = 128;

const CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        #[expect(clippy::indexing_slicing, clippy::cast_possible_truncation, reason = "below 256")]
        {
            classes[byte] = match byte as u8 {
                b' ' | b'\t' | b'\n' | b'\r' | b'\x0c' | b'\x0b' => SPACE,
                b'a'..=b'z' | b'_' => LETTER,
                b'A'..=b'Z' => LETTER | UPPER,
                b'\x80'.. => LETTER | HIGH,
                b'0'..=b'9' => DIGIT,
                b'$' => ODD,
                b'+' | b'-' | b'*' | b'/' | b'<' | b'>' | b'=' => OPERATOR,
                b'~' | b'!' | b'@' | b'#' | b'%' | b'^' | b'&' | b'|' | b'`' | b'?' => OPERATOR | SPECIAL,
                _ => 0,
            };
        }
        byte += 1;
    }
    classes
};

fn class(byte: u8) -> u8 {
    CLASSES.get(usize::from(byte)).copied().unwrap_or(0)
}

/// A name goes on with this byte.
pub(super) fn goes_on(byte: u8) -> bool {
    class(byte) & (LETTER | DIGIT | ODD) != 0
}

/// Longest name of an operator (NAMEDATALEN - 1).
const LONGEST_OPERATOR: usize = 63;

/// Reads one text. Ends at its end, at a NUL, or after the first junk.
#[derive(Clone, Debug)]
pub struct Lexer<'t> {
    text: &'t [u8],
    at: usize,
    standard_strings: bool,
    /// Up to here every byte is a sign of its own: what is left of a run of operators whose first was taken.
    signs: usize,
    comment: Option<(usize, usize)>,
}

impl<'t> Lexer<'t> {
    pub fn new(text: &'t [u8], standard_strings: bool) -> Self {
        let end = find(text, 0, 0).unwrap_or(text.len());
        // No message is as long as that.
        let text = text.get(..end).filter(|text| u32::try_from(text.len()).is_ok()).unwrap_or(b"\\");
        Self { text, at: 0, standard_strings, signs: 0, comment: None }
    }

    /// The text up to its first NUL.
    pub fn text(&self) -> &'t [u8] {
        self.text
    }

    /// The first comment so far, with what encloses it.
    pub fn comment(&self) -> Option<&'t [u8]> {
        self.comment.and_then(|(start, end)| self.text.get(start..end))
    }

    /// 0 behind the end.
    pub(super) fn byte(&self, at: usize) -> u8 {
        self.text.get(at).copied().unwrap_or(0)
    }

    pub(super) fn class(&self, at: usize) -> u8 {
        class(self.byte(at))
    }

    fn skip(&self, mut at: usize, classes: u8) -> usize {
        while self.class(at) & classes != 0 {
            at += 1;
        }
        at
    }

    fn skip_blank(&mut self) -> Result<(), Junk> {
        loop {
            let start = self.at;
            let byte = self.byte(start);
            if class(byte) & SPACE != 0 {
                self.at += 1;
                continue;
            }
            let end = match byte {
                b'-' if self.byte(start + 1) == b'-' => self.line_end(start),
                b'/' if self.byte(start + 1) == b'*' => self.block_end(start)?,
                _ => return Ok(()),
            };
            self.at = end;
            self.comment = self.comment.or(Some((start, end)));
        }
    }

    fn line_end(&self, mut at: usize) -> usize {
        while at < self.text.len() && !matches!(self.byte(at), b'\n' | b'\r') {
            at += 1;
        }
        at
    }

    /// Behind a comment in `/* */`; they nest.
    fn block_end(&self, start: usize) -> Result<usize, Junk> {
        let (mut at, mut depth) = (start + 2, 1_usize);
        while depth > 0 {
            match (self.byte(at), self.byte(at + 1)) {
                (b'/', b'*') => (at, depth) = (at + 2, depth + 1),
                (b'*', b'/') => (at, depth) = (at + 2, depth - 1),
                (0, _) => return Err(Junk),
                _ => at += 1,
            }
        }
        Ok(at)
    }

    /// One token, which starts with this byte.
    fn token(&mut self, first: u8) -> Result<(TokenKind, usize, u8), Junk> {
        let (at, next) = (self.at, self.byte(self.at + 1));
        let plain = |kind, end| Ok((kind, end, 0));
        if class(first) & LETTER != 0 {
            return self.word(at, first, next);
        }
        match first {
            b'\'' => {
                let kind = if self.standard_strings { TokenKind::Text } else { TokenKind::Escaped };
                plain(kind, self.string_end(at + 1, !self.standard_strings, true)?)
            }
            b'"' => self.quoted(at + 1),
            b'$' => self.dollar(at),
            b'0'..=b'9' => plain(TokenKind::Number, self.number_end(at)?),
            b'.' if next.is_ascii_digit() => plain(TokenKind::Number, self.number_end(at)?),
            b'.' if next == b'.' => plain(TokenKind::Mark, at + 2),
            b':' if matches!(next, b':' | b'=') => plain(TokenKind::Mark, at + 2),
            b',' | b'(' | b')' | b'[' | b']' | b';' | b'.' | b':' => {
                plain(TokenKind::Punctuation(first), at + 1)
            }
            _ if class(first) & OPERATOR != 0 => self.operator(at),
            _ => Err(Junk),
        }
    }

    fn word(&self, at: usize, first: u8, next: u8) -> Result<(TokenKind, usize, u8), Junk> {
        if next == b'\'' {
            match first {
                b'e' | b'E' => return Ok((TokenKind::Escaped, self.string_end(at + 2, true, true)?, 0)),
                b'b' | b'B' | b'x' | b'X' => {
                    return Ok((TokenKind::Bits, self.string_end(at + 2, false, false)?, 0));
                }
                // Of N'…' the scanner makes the keyword NCHAR and a string: N is a word that ends here anyway.
                _ => {}
            }
        }
        if next == b'&' && matches!(first, b'u' | b'U') {
            match self.byte(at + 2) {
                // An error unless strings conform to the standard.
                b'\'' if self.standard_strings => {
                    return Ok((TokenKind::Escaped, self.string_end(at + 3, false, true)?, 0));
                }
                b'\'' | b'"' => return Err(Junk),
                _ => {}
            }
        }
        let (mut end, mut classes) = (at, 0);
        for byte in self.text.get(at..).unwrap_or_default() {
            let class = class(*byte);
            if class & (LETTER | DIGIT | ODD) == 0 {
                break;
            }
            classes |= class;
            end += 1;
        }
        Ok((TokenKind::Word, end, classes))
    }

    /// Behind a string whose first byte inside its quotes is at `at`. `doubles`: two quotes are one inside.
    fn string_end(&self, mut at: usize, escapes: bool, doubles: bool) -> Result<usize, Junk> {
        loop {
            at = if escapes {
                let rest = self.text.get(at..).unwrap_or_default();
                rest.iter().position(|b| matches!(b, b'\'' | b'\\')).map(|found| at + found)
            } else {
                find(self.text, at, b'\'')
            }
            .ok_or(Junk)?;
            let next = self.byte(at + 1);
            if self.byte(at) == b'\\' || (doubles && next == b'\'') {
                at += 2;
                continue;
            }
            match self.continuation(at + 1) {
                Some(inside) => at = inside,
                None => return Ok(at + 1),
            }
        }
    }

    /// A string goes on behind spaces and `--` comments with a newline among them; where, inside its quotes.
    fn continuation(&self, mut at: usize) -> Option<usize> {
        let mut newline = false;
        loop {
            match self.byte(at) {
                b'\n' | b'\r' => (at, newline) = (at + 1, true),
                b'-' if self.byte(at + 1) == b'-' => at = self.line_end(at),
                b'\'' if newline => return Some(at + 1),
                byte if class(byte) & SPACE != 0 => at += 1,
                _ => return None,
            }
        }
    }

    fn quoted(&self, inside: usize) -> Result<(TokenKind, usize, u8), Junk> {
        let (mut at, mut classes) = (inside, 0);
        loop {
            let rest = self.text.get(at..).unwrap_or_default();
            for byte in rest {
                if *byte == b'"' {
                    break;
                }
                classes |= class(*byte) & HIGH;
                at += 1;
            }
            match (self.byte(at), self.byte(at + 1)) {
                (b'"', b'"') => (at, classes) = (at + 2, classes | ODD),
                // An identifier of no length.
                (b'"', _) if at > inside => return Ok((TokenKind::Quoted, at + 1, classes)),
                _ => return Err(Junk),
            }
        }
    }

    /// `$1`, or a string between `$tag$`s.
    fn dollar(&self, start: usize) -> Result<(TokenKind, usize, u8), Junk> {
        if self.byte(start + 1).is_ascii_digit() {
            let end = self.skip(start + 1, DIGIT);
            return if self.class(end) & LETTER == 0 { Ok((TokenKind::Param, end, 0)) } else { Err(Junk) };
        }
        let tag = self.skip(start + 1, LETTER | DIGIT);
        if self.byte(tag) != b'$' {
            return Err(Junk);
        }
        let delimiter = self.text.get(start..=tag).unwrap_or_default();
        let mut at = tag + 1;
        // A tag holds no $, so that no byte is compared more than twice.
        loop {
            at = find(self.text, at, b'$').ok_or(Junk)?;
            if self.text.get(at..).is_some_and(|rest| rest.starts_with(delimiter)) {
                return Ok((TokenKind::Text, at + delimiter.len(), 0));
            }
            at += 1;
        }
    }

    /// As many operator bytes as can be, up to a comment; signs at its end count only for operators with special bytes.
    fn operator(&mut self, start: usize) -> Result<(TokenKind, usize, u8), Junk> {
        if start < self.signs {
            return Ok((TokenKind::Operator, start + 1, 0));
        }
        let (mut end, mut classes) = (start, 0);
        let comment = |at| matches!((self.byte(at), self.byte(at + 1)), (b'-', b'-') | (b'/', b'*'));
        while self.class(end) & OPERATOR != 0 && !comment(end) {
            classes |= self.class(end);
            end += 1;
        }
        self.signs = end;
        if classes & SPECIAL == 0 {
            while end > start + 1 && matches!(self.byte(end - 1), b'+' | b'-') {
                end -= 1;
            }
        }
        if end - start > LONGEST_OPERATOR {
            return Err(Junk);
        }
        let mark = self.text.get(start..end) == Some(b"=>");
        Ok((if mark { TokenKind::Mark } else { TokenKind::Operator }, end, 0))
    }
}

impl Iterator for Lexer<'_> {
    type Item = Result<Token, Junk>;

    fn next(&mut self) -> Option<Self::Item> {
        let read = self.skip_blank().and_then(|()| match self.byte(self.at) {
            0 => Ok(None),
            first => self.token(first).map(Some),
        });
        match read {
            Ok(None) => None,
            Ok(Some((kind, end, classes))) => {
                let start = std::mem::replace(&mut self.at, end);
                Some(Ok(Token { kind, place: (end as u64) << 32 | start as u64, classes }))
            }
            Err(Junk) => {
                self.at = self.text.len();
                Some(Err(Junk))
            }
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "each half is 32 bits")]
impl Token {
    pub fn start(&self) -> usize {
        self.place as u32 as usize
    }

    pub fn range(&self) -> Range<usize> {
        Self::range_of(self.place)
    }

    /// Of a place that was kept.
    pub(super) fn range_of(place: u64) -> Range<usize> {
        place as u32 as usize..(place >> 32) as usize
    }

    pub(super) fn len(&self) -> usize {
        self.range().len()
    }

    /// As a number, for memory; none is 0.
    pub(super) fn place(&self) -> u64 {
        self.place
    }
}

/// First place of a byte from `at` on.
pub(super) fn find(text: &[u8], at: usize, byte: u8) -> Option<usize> {
    let mut from = at;
    // `contains` is much faster than `position`; together they read a byte twice at most.
    for chunk in text.get(at..)?.chunks(256) {
        if chunk.contains(&byte) {
            return chunk.iter().position(|b| *b == byte).map(|found| from + found);
        }
        from += chunk.len();
    }
    None
}

#[cfg(test)]
#[path = "lexer_tests.rs"]
mod tests;
