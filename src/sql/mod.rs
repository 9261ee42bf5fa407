//! What a text does, as far as routing is concerned: a flat lexer faithful to PostgreSQL's scanner (scan.l), and rules
//! over its tokens. Pure, linear in time, constant in stack.
//!
//! Unknown is treated as dangerous: whatever is not proven to read only, and to mean the same on a replica, is for the
//! primary.

mod bodies;
mod calls;
pub mod catalog;
pub mod channels;
mod classify;
mod control;
mod facts;
mod fingerprint;
mod keywords;
pub mod lexer;
mod names;
mod numbers;
mod scan;
mod shape;
mod targets;
pub mod traceparent;
pub mod traces;

use std::hash::BuildHasher as _;

pub use catalog::Catalog;
pub use classify::{classify, classify_with};
pub use control::names_pooler;
pub use facts::Facts;
pub use fingerprint::fingerprint;
pub use shape::shape;

/// How the server reads a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dialect {
    /// standard_conforming_strings: a backslash in '…' is a backslash.
    pub standard_strings: bool,
    /// client_encoding is UTF8: what looks like ASCII is ASCII, and names are the same bytes as in the catalog. In other
    /// encodings only texts in plain ASCII are read.
    pub ascii_safe: bool,
}

impl Dialect {
    /// By the values of the parameters; unknown ones are taken for the dangerous ones.
    pub fn of(standard_conforming_strings: &str, client_encoding: &str) -> Self {
        // As clean_encoding_name (src/common/encnames.c) reads it: asyncpg asks for `'utf-8'`, with the quotes.
        let is = |name: &str| {
            let letters = client_encoding.bytes().filter(u8::is_ascii_alphanumeric);
            letters.map(|b| b.to_ascii_lowercase()).eq(name.bytes())
        };
        let utf8 = is("utf8") || is("unicode");
        Self { standard_strings: standard_conforming_strings == "on", ascii_safe: utf8 }
    }
}

/// Number of slots that names of relations are spread over.
pub const SLOTS: usize = 4096;

/// The slot of a relation's name (folded, without schema). Names that share one only cost freshness bought too dearly.
pub fn slot(name: &[u8]) -> u16 {
    let hash = foldhash::quality::FixedState::default().hash_one(name);
    u16::try_from(hash % SLOTS as u64).unwrap_or(0)
}

/// Relations, by slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Names {
    /// These at most; sorted, each once.
    Known(Box<[u16]>),
    /// Any of the database.
    Any,
}

/// Where a statement asks to be run (`/* pooler: primary */`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    Primary,
    Replica,
}

/// The transaction that a statement asks for; `None`: it does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransactionMode {
    pub read_only: Option<bool>,
    pub serializable: Option<bool>,
}

/// A statement about pooler itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PoolerStatement {
    /// `SET pooler.name = value`; name in lower case, value as its string means. `None`: `TO DEFAULT`.
    Set { name: Box<str>, value: Option<Box<str>>, local: bool },
    /// `RESET pooler.name`.
    Reset { name: Box<str> },
    /// `SHOW pooler.name`.
    Show { name: Box<str> },
    /// One of them among other statements, or a SET whose value cannot be read.
    Unclear,
}

/// What kind of text it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Reads only, and means the same on a replica.
    Read,
    /// Everything else.
    Primary,
    /// BEGIN or START TRANSACTION, alone.
    Begin(TransactionMode),
    /// SET TRANSACTION, alone.
    SetTransaction(TransactionMode),
    /// SET SESSION CHARACTERISTICS AS TRANSACTION, alone.
    SetCharacteristics(TransactionMode),
    /// COMMIT, END, ROLLBACK, ABORT (not PREPARED, not TO), alone.
    End,
    /// SAVEPOINT, RELEASE, ROLLBACK TO, alone.
    Savepoint,
    /// Alone, or unclear.
    Pooler(PoolerStatement),
    /// No statement at all.
    Empty,
}

/// Why a text has its kind: shown to operators, and counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Why {
    Read,
    /// Its first word is not one of statements that only read.
    Statement,
    /// A word that changes data, or locks (`INSERT`, `FOR UPDATE`, …).
    Word,
    /// A function that is not known to be safe.
    Function,
    /// A relation, type or operator that is not the same on a replica.
    Relation,
    /// It cannot be read (unterminated, unknown tokens).
    Unreadable,
    /// client_encoding makes it unsafe to read.
    Encoding,
    /// The catalog of the database is not known (yet).
    NoCatalog,
    /// Transaction control or settings among several statements.
    Several,
}

impl Why {
    /// One word for counters and SHOW.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Statement => "statement",
            Self::Word => "word",
            Self::Function => "function",
            Self::Relation => "relation",
            Self::Unreadable => "unreadable",
            Self::Encoding => "encoding",
            Self::NoCatalog => "no_catalog",
            Self::Several => "several",
        }
    }
}

/// Whether a name needs no quotes: PostgreSQL would write none.
pub fn is_plain_name(name: &str) -> bool {
    keywords::is_plain_name(name)
}

/// Whether a text begins, behind blanks, as one of these (in lower case).
pub fn begins_as(text: &[u8], words: &[&[u8]]) -> bool {
    let text = text.trim_ascii_start();
    words.iter().any(|word| text.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word)))
}

/// Whether a text begins as what changes rows.
pub fn changes_rows(text: &[u8]) -> bool {
    begins_as(text, &[b"insert", b"update", b"delete", b"merge"])
}

/// Whether a text runs code (DO) that may create, alter or drop something, which its tag will not tell.
pub fn hides_definitions(text: &[u8]) -> bool {
    const WORDS: [&[u8]; 5] = [b"create", b"alter", b"drop", b"execute", b"import"];
    let is = |at: usize, word: &[u8]| {
        text.get(at..at + word.len()).is_some_and(|part| part.eq_ignore_ascii_case(word))
    };
    // Its body is a string. (ON CONFLICT DO NOTHING is none of this.)
    let runs = |at: usize| {
        let alone =
            at.checked_sub(1).and_then(|before| text.get(before)).is_none_or(|b| !b.is_ascii_alphanumeric());
        if !alone || !is(at, b"do") {
            return false;
        }
        let body = text.get(at + 2..).unwrap_or_default();
        let next = at + 2 + (body.len() - body.trim_ascii_start().len());
        let strings: [&[u8]; 3] = [b"language", b"e'", b"u&'"];
        text.get(next).is_some_and(|byte| !byte.is_ascii_alphabetic())
            || strings.iter().any(|start| is(next, start))
    };
    // Behind a comment, or among other statements: wherever it is.
    let text_alone = text.trim_ascii_start().first().is_some_and(u8::is_ascii_alphabetic)
        && !text.trim_ascii_end().strip_suffix(b";").unwrap_or(text).contains(&b';');
    let first = text.len() - text.trim_ascii_start().len();
    let found = if text_alone { runs(first) } else { (first..text.len()).any(runs) };
    found && (first..text.len()).any(|at| WORDS.iter().any(|word| is(at, word)))
}

/// The text is one PREPARE and nothing else.
pub fn is_one_prepare(text: &[u8]) -> bool {
    let mut tokens = lexer::Lexer::new(text, true);
    let first = tokens.next().and_then(Result::ok).and_then(|token| text.get(token.range()));
    let mut ended = false;
    let alone = tokens.all(|token| {
        let Ok(token) = token else { return false };
        let ends = token.kind == lexer::TokenKind::Punctuation(b';');
        let behind = ended;
        ended |= ends;
        !behind || ends
    });
    alone && first.is_some_and(|word| word.eq_ignore_ascii_case(b"prepare"))
}

/// What a text does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Class {
    pub kind: Kind,
    pub why: Why,
    /// What made it so: the word, the function, the relation.
    pub culprit: Option<Box<str>>,
    pub hint: Option<Hint>,
    /// What it may read.
    pub reads: Names,
    /// What it may change.
    pub writes: Names,
    /// It mentions synchronous_commit: from here on a commit may be acknowledged before it is flushed.
    pub async_commit: bool,
    /// It may leave something in the session (SET, PREPARE, LISTEN, set_config, temporary tables, advisory locks, …).
    pub session: bool,
    /// It depends on what a literal says: it does not hold for all texts of the same shape.
    pub literal: bool,
}

impl Class {
    /// For the primary, with everything that it may do.
    pub fn primary(why: Why) -> Self {
        Self {
            kind: Kind::Primary,
            why,
            culprit: None,
            hint: None,
            reads: Names::Any,
            writes: Names::Any,
            async_commit: false,
            session: true,
            literal: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_that_may_alter_definitions_is_found() {
        for (text, expected) in [
            ("DO $$ BEGIN CREATE TABLE t (); END $$", true),
            (" do language plpgsql 'BEGIN EXECUTE x; END';", true),
            ("/* a */ DO E'BEGIN DROP TABLE t; END'", true),
            ("SELECT 1; DO $x$BEGIN ALTER TABLE t; END$x$", true),
            ("DO $$ BEGIN UPDATE t SET x = 1; END $$", false),
            ("INSERT INTO t (created) VALUES (1) ON CONFLICT DO NOTHING;", false),
            ("/* a */ INSERT INTO t (created) VALUES (1) ON CONFLICT DO UPDATE SET x = 1", false),
            ("SELECT created FROM t", false),
            ("", false),
        ] {
            assert_eq!(hides_definitions(text.as_bytes()), expected, "{text}");
        }
    }
}
