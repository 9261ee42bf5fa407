//! Statements that are recognised by their text: those that reset settings (RESET, DISCARD ALL, SET … TO DEFAULT), drop
//! prepared statements (DEALLOCATE, DISCARD ALL) or listen (LISTEN, UNLISTEN).

use std::sync::Arc;

use crate::sql::{
    channels::{Channels, channels},
    traces::{Traces, is_quiet, traces},
};

/// What one statement resets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reset {
    /// RESET ALL, DISCARD ALL.
    All,
    /// RESET, or SET … TO DEFAULT; `local`: SET LOCAL.
    One { name: Box<str>, local: bool },
}

/// What a statement does to its session by its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextEffect {
    pub reset: Option<Reset>,
    /// The server may forget all statements: DEALLOCATE ALL, DISCARD ALL.
    pub forgets: bool,
    /// What may be left behind.
    pub traces: Option<Box<Traces>>,
    /// What it listens to, in UTF-8.
    pub channels: Option<Arc<Channels>>,
}

/// What a text does, if it does anything.
pub fn effect_of(sql: &[u8]) -> Option<TextEffect> {
    // Nearly all texts; on the way of each.
    if is_quiet(sql) {
        return None;
    }
    let effect = TextEffect {
        reset: reset_of(sql),
        forgets: forgets(sql),
        traces: traces(sql),
        channels: channels(sql).map(Arc::new),
    };
    let some =
        effect.forgets || effect.reset.is_some() || effect.traces.is_some() || effect.channels.is_some();
    some.then_some(effect)
}

/// What this text resets, if it is one statement that does nothing else. Text in ASCII only: in other encodings a
/// byte may be part of a character, whatever it looks like.
fn reset_of(sql: &[u8]) -> Option<Reset> {
    let sql = sql.trim_ascii_start();
    // Nearly all texts end here.
    let &[a, b, c, ..] = sql else { return None };
    if !matches!(&[a | 0x20, b | 0x20, c | 0x20], b"res" | b"dis" | b"set") && !matches!(a, b'/' | b'-') {
        return None;
    }
    let sql = sql.split(|&b| b == 0).next().filter(|sql| sql.is_ascii())?;
    let mut words = Words { rest: std::str::from_utf8(sql).ok()? };
    let verb = words.next()?;
    let reset = match verb.keyword()? {
        k if k.eq_ignore_ascii_case("discard") => words.keyword("all").then_some(Reset::All)?,
        k if k.eq_ignore_ascii_case("reset") => words.reset()?,
        k if k.eq_ignore_ascii_case("set") => words.set()?,
        _ => return None,
    };
    words.at_end().then_some(reset)
}

/// The text may hold a DEALLOCATE ALL or DISCARD ALL at its start.
fn forgets(sql: &[u8]) -> bool {
    let sql = sql.trim_ascii_start();
    ["deallocate", "discard"]
        .iter()
        .any(|w| sql.get(..w.len()).is_some_and(|s| s.eq_ignore_ascii_case(w.as_bytes())))
}

/// The name in `DEALLOCATE [PREPARE] name`, as the server would read it; `None` for anything else, ALL included.
pub fn deallocate_target(sql: &[u8], encoding: &str) -> Option<Box<[u8]>> {
    let sql = sql.trim_ascii();
    let (word, rest) = sql.split_at_checked("deallocate".len())?;
    if !word.eq_ignore_ascii_case(b"deallocate") || !rest.first()?.is_ascii_whitespace() {
        return None;
    }
    let mut rest = rest.trim_ascii().strip_suffix(b";").unwrap_or(rest).trim_ascii();
    if let Some((word, behind)) = rest.split_at_checked("prepare".len())
        && word.eq_ignore_ascii_case(b"prepare")
        && behind.first().is_some_and(u8::is_ascii_whitespace)
    {
        rest = behind.trim_ascii();
    }
    if let Some(quoted) = rest.strip_prefix(b"\"") {
        let name = quoted.strip_suffix(b"\"")?;
        return (!name.is_empty() && !name.contains(&b'"')).then(|| name.into());
    }
    let name = plain_name(rest, encoding)?;
    (!rest.eq_ignore_ascii_case(b"all")).then_some(name)
}

/// An unquoted name as the server would read it: ASCII letters in lower case, but for bytes that only look like one.
fn plain_name(name: &[u8], encoding: &str) -> Option<Box<[u8]>> {
    // Encodings in which the second byte of a character may be below 0x80 (PG_ENCODING_BE_LAST, pg_wchar.h).
    let japanese = matches!(encoding, "SJIS" | "SHIFT_JIS_2004");
    let pairs = japanese || matches!(encoding, "BIG5" | "GBK" | "UHC" | "GB18030" | "JOHAB");
    let mut second = false;
    let mut lower = Vec::with_capacity(name.len());
    for &byte in name {
        let known = second || byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80;
        lower.push(if second { byte } else { byte.to_ascii_lowercase() });
        let single = byte < 0x80 || (japanese && matches!(byte, 0xa1..=0xdf));
        second = pairs && !second && !single;
        if !known {
            return None;
        }
    }
    (!lower.is_empty()).then(|| lower.into())
}

/// A word of SQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word<'a> {
    Plain(&'a str),
    Quoted(&'a str),
    Sign(char),
}

impl<'a> Word<'a> {
    fn keyword(self) -> Option<&'a str> {
        if let Self::Plain(word) = self { Some(word) } else { None }
    }

    fn identifier(self) -> Option<&'a str> {
        match self {
            Self::Plain(name) | Self::Quoted(name) => Some(name),
            Self::Sign(_) => None,
        }
    }
}

/// Words of a text, without white space and comments.
#[derive(Clone, Copy, Debug)]
struct Words<'a> {
    rest: &'a str,
}

impl<'a> Words<'a> {
    fn skip_blanks(&mut self) {
        loop {
            self.rest = self.rest.trim_ascii_start();
            let behind = if let Some(comment) = self.rest.strip_prefix("--") {
                comment.split_once('\n').map_or("", |(_, behind)| behind)
            } else if let Some(comment) = self.rest.strip_prefix("/*")
                && let Some((inside, behind)) = comment.split_once("*/")
                && !inside.contains("/*")
            {
                behind
            } else {
                return;
            };
            self.rest = behind;
        }
    }

    fn next(&mut self) -> Option<Word<'a>> {
        self.skip_blanks();
        if let Some(quoted) = self.rest.strip_prefix('"') {
            let (name, behind) = quoted.split_once('"')?;
            self.rest = behind;
            // A doubled quote is in no parameter's name.
            return (!behind.starts_with('"')).then_some(Word::Quoted(name));
        }
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '$';
        let end = self.rest.find(|c| !is_part(c)).unwrap_or(self.rest.len());
        let (word, behind) = self.rest.split_at(end);
        if word.is_empty() {
            let sign = behind.chars().next()?;
            self.rest = behind.get(1..)?;
            return Some(Word::Sign(sign));
        }
        self.rest = behind;
        Some(Word::Plain(word))
    }

    /// Takes this keyword, if it is the next word.
    fn keyword(&mut self, keyword: &str) -> bool {
        let mut ahead = *self;
        let found = ahead.next().and_then(Word::keyword).is_some_and(|k| k.eq_ignore_ascii_case(keyword));
        if found {
            *self = ahead;
        }
        found
    }

    fn sign(&mut self, sign: char) -> bool {
        let mut ahead = *self;
        let found = ahead.next() == Some(Word::Sign(sign));
        if found {
            *self = ahead;
        }
        found
    }

    /// A parameter's name, which may have parts.
    fn name(&mut self) -> Option<Box<str>> {
        let mut name = self.next()?.identifier()?.to_owned();
        while self.sign('.') {
            name.push('.');
            name.push_str(self.next()?.identifier()?);
        }
        Some(name.into())
    }

    fn time_zone(&mut self) -> bool {
        let before = *self;
        let found = self.keyword("time") && self.keyword("zone");
        if !found {
            *self = before;
        }
        found
    }

    /// Behind RESET.
    fn reset(&mut self) -> Option<Reset> {
        if self.keyword("all") {
            return Some(Reset::All);
        }
        let name = if self.time_zone() { "TimeZone".into() } else { self.name()? };
        Some(Reset::One { name, local: false })
    }

    /// Behind SET.
    fn set(&mut self) -> Option<Reset> {
        let local = self.keyword("local");
        if !local {
            self.keyword("session");
        }
        if self.time_zone() {
            let default = self.keyword("default") || self.keyword("local");
            return default.then(|| Reset::One { name: "TimeZone".into(), local });
        }
        let name = self.name()?;
        if name.eq_ignore_ascii_case("names") {
            self.keyword("default");
            return Some(Reset::One { name: "client_encoding".into(), local });
        }
        let default = (self.sign('=') || self.keyword("to")) && self.keyword("default");
        default.then_some(Reset::One { name, local })
    }

    /// Nothing but semicolons follows.
    fn at_end(&mut self) -> bool {
        while self.sign(';') {}
        self.skip_blanks();
        self.rest.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(name: &str, local: bool) -> Option<Reset> {
        Some(Reset::One { name: name.into(), local })
    }

    #[test]
    fn statements_that_reset_are_recognised() {
        for (sql, expected) in [
            ("RESET ALL", Some(Reset::All)),
            (" reset\n all ; ; ", Some(Reset::All)),
            ("/* a */ -- b\nDISCARD ALL;-- c", Some(Reset::All)),
            ("RESET TimeZone", one("TimeZone", false)),
            ("RESET TIME ZONE", one("TimeZone", false)),
            ("reset \"DateStyle\" /* c */", one("DateStyle", false)),
            ("RESET my.\"own\".setting", one("my.own.setting", false)),
            ("SET search_path TO DEFAULT", one("search_path", false)),
            ("set session statement_timeout=default", one("statement_timeout", false)),
            ("SET LOCAL TIME ZONE LOCAL", one("TimeZone", true)),
            ("SET LOCAL x = DEFAULT;", one("x", true)),
            ("SET NAMES DEFAULT", one("client_encoding", false)),
            ("SET NAMES", one("client_encoding", false)),
        ] {
            assert_eq!(reset_of(sql.as_bytes()), expected, "{sql}");
            assert_eq!(reset_of(format!("{sql}\0\0\0").as_bytes()), expected, "{sql}");
        }
    }

    #[test]
    fn other_statements_are_not() {
        for sql in [
            "",
            ";",
            "SELECT 1",
            "RESET",
            "RESET ALL; SELECT 1",
            "RESET SESSION AUTHORIZATION",
            "RESET TRANSACTION ISOLATION LEVEL",
            "SET x TO 1",
            "SET x TO 'default'",
            "SET NAMES 'utf8'",
            "SET TIME ZONE 'UTC'",
            "SET SESSION AUTHORIZATION DEFAULT",
            "SET LOCAL",
            "DISCARD PLANS",
            "DISCARD",
            "DEALLOCATE ALL",
            "reset \"a\"\"b\"",
            "reset \"open",
            "/* open RESET ALL",
            "/* /* */ RESET ALL",
            "RESET \u{fc}",
            "\0RESET ALL",
        ] {
            assert_eq!(reset_of(sql.as_bytes()), None, "{sql}");
        }
    }

    #[test]
    fn target_of_deallocate_is_read_as_the_server_does() {
        for (sql, target) in [
            (&b"DEALLOCATE a"[..], Some(&b"a"[..])),
            (b" deallocate\tPREPARE Ab_1 ; ", Some(b"ab_1")),
            (b"DEALLOCATE \"Ab\"", Some(b"Ab")),
            (b"DEALLOCATE ALL", None),
            (b"DEALLOCATE PREPARE all", None),
            (b"DEALLOCATE \"a\"\"b\"", None),
            (b"DEALLOCATE a; SELECT 1", None),
            (b"DEALLOCATE", None),
            (b"DEALLOCATEa", None),
            (b"SELECT 1", None),
        ] {
            assert_eq!(deallocate_target(sql, "UTF8").as_deref(), target, "{}", String::from_utf8_lossy(sql));
        }
    }

    // H17
    #[test]
    fn second_byte_of_a_character_is_no_letter() {
        let sql = b"DEALLOCATE \x83AB";
        assert_eq!(deallocate_target(sql, "SJIS").as_deref(), Some(&b"\x83Ab"[..]));
        assert_eq!(deallocate_target(sql, "LATIN1").as_deref(), Some(&b"\x83ab"[..]));
        assert_eq!(deallocate_target(b"DEALLOCATE \x95\\", "SJIS").as_deref(), Some(&b"\x95\\"[..]));
        // A katakana of one byte, and what follows it.
        assert_eq!(deallocate_target(b"DEALLOCATE \xb1AB", "SJIS").as_deref(), Some(&b"\xb1ab"[..]));
        assert_eq!(deallocate_target(b"DEALLOCATE \x95\\", "UTF8"), None);
    }
}
