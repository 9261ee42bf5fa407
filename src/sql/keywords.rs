//! Words that mean something to the classifier, found without comparing strings.
//!
//! Groups as in PostgreSQL's kwlist.h. A word that became a keyword lately (or will) is not listed, unless what is
//! exempt from rules as a keyword is harmless as a name: `json_value(` may be anybody's function on PostgreSQL 14.

use super::lexer::{Token, UPPER};

/// What may be done with a keyword as a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Group {
    /// No keyword, or one that names anything: a function before `(`, a relation elsewhere.
    Name,
    /// Names relations and columns; before `(` it is no function, but syntax.
    Column,
    /// Names functions and types, no relations.
    Function,
    /// Names nothing.
    Reserved,
}

/// A word that rules ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[rustfmt::skip]
#[expect(clippy::enum_variant_names, reason = "KEY is a keyword")]
pub(super) enum Key {
    /// None of the others.
    Other,
    Abort, Analyze, As, Begin, By, Call, Close, Commit, Conflict, Copy, Create, Cross, Cube, Deallocate, Declare, Delete,
    Discard, Distinct, Do, End, Execute, Explain, Filter, For, From, Full, Global, Group, Grouping, Hold, Inner, Insert,
    Into, Join, Key, Left, Listen, Load, Local, Lock, Materialized, Merge, Natural, No, Not, Notify, On, Only, Operator,
    Order, Outer, Over, Partition, Prepare, Program, Recursive, Refresh, Release, Replace, Reset, Right, Rollback, Rollup,
    Savepoint, Select, Set, Sets, Share, Show, Similar, Start, SystemUser, Table, Temp, Then, To, Treat, Unlisten, Update, Values,
    With,
}

/// A word as the rules see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) key: Key,
    pub(super) group: Group,
}

impl Word {
    /// An identifier.
    pub(super) const NAME: Self = Self { key: Key::Other, group: Group::Name };
    const RESERVED: Self = Self { key: Key::Other, group: Group::Reserved };
}

/// Longest word that fits.
const WIDTH: usize = 16;

/// The first bytes of an identifier as a number; in lower case if it is a word.
pub(super) fn digest(text: &[u8], start: usize, len: usize, fold: bool) -> u128 {
    let whole = text.get(start..start + WIDTH).and_then(|bytes| <[u8; WIDTH]>::try_from(bytes).ok());
    let mut word = u128::from_le_bytes(whole.unwrap_or_else(|| {
        let mut bytes = [0; WIDTH];
        let rest = text.get(start..).unwrap_or_default();
        bytes.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
        bytes
    }));
    if len < WIDTH {
        word &= (1 << (8 * len)) - 1;
    }
    if fold { lower(word) } else { word }
}

const fn lower(word: u128) -> u128 {
    const ONES: u128 = u128::MAX / 255;
    let low = word & (ONES * 0x7f);
    // Bit 7 of each byte: it is at least 'A', and not above 'Z', and ASCII.
    let upper = (low + ONES * 0x3f) & !(low + ONES * 0x25) & !word & (ONES * 0x80);
    word | (upper >> 2)
}

/// Spreads digests over places in tables.
#[expect(clippy::cast_possible_truncation, reason = "both halves are used")]
const fn spread(digest: u128) -> u64 {
    let (low, high) = (digest as u64, (digest >> 64) as u64);
    let mixed = (low ^ high.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    mixed ^ (mixed >> 32)
}

/// Where an identifier is remembered.
pub(super) fn place(digest: u128) -> u8 {
    (spread(digest) >> 56) as u8
}

const PLACES: usize = 512;

#[expect(clippy::indexing_slicing, clippy::cast_possible_truncation, reason = "computed when compiled")]
static TABLE: [(u128, Word); PLACES] = {
    let mut table = [(0, Word::NAME); PLACES];
    let mut row = 0;
    while row < WORDS.len() {
        let (text, group, key) = WORDS[row];
        let bytes = text.as_bytes();
        assert!(bytes.len() <= WIDTH);
        let (mut digest, mut at) = (0_u128, bytes.len());
        while at > 0 {
            at -= 1;
            digest = (digest << 8) | bytes[at] as u128;
        }
        let mut place = spread(digest) as usize % PLACES;
        while table[place].0 != 0 {
            place = (place + 1) % PLACES;
        }
        table[place] = (digest, Word { key, group });
        row += 1;
    }
    table
};

/// What a word is that is not behind a dot.
pub(super) fn word(text: &[u8], token: Token, digest: u128) -> Word {
    if token.len() > WIDTH {
        // The only one of this length.
        let long = text.get(token.range()).is_some_and(|w| w.eq_ignore_ascii_case(b"current_timestamp"));
        return if long { Word::RESERVED } else { Word::NAME };
    }
    lookup(digest)
}

/// Whether quote_identifier (ruleutils.c) would leave a name as it is.
pub(super) fn is_plain_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    let begins = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
    let is_free = match name.len() > WIDTH {
        true => name != "current_timestamp",
        false => lookup(digest(name.as_bytes(), 0, name.len(), false)).group == Name,
    };
    begins && name.bytes().all(plain) && is_free
}

#[expect(clippy::cast_possible_truncation, reason = "a place")]
fn lookup(digest: u128) -> Word {
    let mut place = spread(digest) as usize % PLACES;
    loop {
        match TABLE.get(place) {
            Some((found, word)) if *found == digest => return *word,
            Some((0, _)) | None => return Word::NAME,
            _ => place = (place + 1) % PLACES,
        }
    }
}

/// What a token is as a word, if it is one.
pub(super) fn of(text: &[u8], token: Token) -> Word {
    word(text, token, digest(text, token.start(), token.len(), token.classes & UPPER != 0))
}

use Group::{Column, Function, Name, Reserved};

#[rustfmt::skip]
const WORDS: &[(&str, Group, Key)] = &[
    ("abort", Name, Key::Abort), ("all", Reserved, Key::Other), ("analyse", Reserved, Key::Analyze),
    ("analyze", Reserved, Key::Analyze), ("and", Reserved, Key::Other), ("any", Reserved, Key::Other),
    ("array", Reserved, Key::Other), ("as", Reserved, Key::As), ("asc", Reserved, Key::Other),
    ("asymmetric", Reserved, Key::Other), ("authorization", Function, Key::Other), ("begin", Name, Key::Begin),
    ("between", Column, Key::Other), ("bigint", Column, Key::Other), ("binary", Function, Key::Other),
    ("bit", Column, Key::Other), ("boolean", Column, Key::Other), ("both", Reserved, Key::Other),
    ("by", Name, Key::By), ("call", Name, Key::Call), ("case", Reserved, Key::Other), ("cast", Reserved, Key::Other),
    ("char", Column, Key::Other), ("character", Column, Key::Other), ("check", Reserved, Key::Other),
    ("close", Name, Key::Close), ("coalesce", Column, Key::Other), ("collate", Reserved, Key::Other),
    ("collation", Function, Key::Other), ("column", Reserved, Key::Other), ("commit", Name, Key::Commit),
    ("concurrently", Function, Key::Other), ("conflict", Name, Key::Conflict), ("constraint", Reserved, Key::Other),
    ("copy", Name, Key::Copy), ("create", Reserved, Key::Create), ("cross", Function, Key::Cross),
    ("cube", Name, Key::Cube), ("current_catalog", Reserved, Key::Other), ("current_date", Reserved, Key::Other),
    ("current_role", Reserved, Key::Other), ("current_schema", Function, Key::Other),
    ("current_time", Reserved, Key::Other), ("current_user", Reserved, Key::Other),
    ("deallocate", Name, Key::Deallocate), ("dec", Column, Key::Other), ("decimal", Column, Key::Other),
    ("declare", Name, Key::Declare), ("default", Reserved, Key::Other), ("deferrable", Reserved, Key::Other),
    ("delete", Name, Key::Delete), ("desc", Reserved, Key::Other), ("discard", Name, Key::Discard),
    ("distinct", Reserved, Key::Distinct), ("do", Reserved, Key::Do), ("else", Reserved, Key::Other),
    ("end", Reserved, Key::End), ("except", Reserved, Key::Other), ("execute", Name, Key::Execute),
    ("exists", Column, Key::Other), ("explain", Name, Key::Explain), ("extract", Column, Key::Other),
    ("false", Reserved, Key::Other), ("fetch", Reserved, Key::Other), ("filter", Name, Key::Filter),
    ("float", Column, Key::Other), ("for", Reserved, Key::For), ("foreign", Reserved, Key::Other),
    ("freeze", Function, Key::Other), ("from", Reserved, Key::From), ("full", Function, Key::Full),
    ("global", Name, Key::Global), ("grant", Reserved, Key::Other), ("greatest", Column, Key::Other),
    ("group", Reserved, Key::Group), ("grouping", Column, Key::Grouping), ("having", Reserved, Key::Other),
    ("hold", Name, Key::Hold), ("ilike", Function, Key::Other), ("in", Reserved, Key::Other),
    ("initially", Reserved, Key::Other), ("inner", Function, Key::Inner), ("insert", Name, Key::Insert),
    ("int", Column, Key::Other), ("integer", Column, Key::Other), ("intersect", Reserved, Key::Other),
    ("interval", Column, Key::Other), ("into", Reserved, Key::Into), ("is", Function, Key::Other),
    ("isnull", Function, Key::Other), ("join", Function, Key::Join), ("key", Name, Key::Key),
    ("lateral", Reserved, Key::Other), ("leading", Reserved, Key::Other), ("least", Column, Key::Other),
    ("left", Function, Key::Left), ("like", Function, Key::Other), ("limit", Reserved, Key::Other),
    ("listen", Name, Key::Listen), ("load", Name, Key::Load), ("local", Name, Key::Local),
    ("localtime", Reserved, Key::Other), ("localtimestamp", Reserved, Key::Other), ("lock", Name, Key::Lock),
    ("materialized", Name, Key::Materialized), ("merge", Name, Key::Merge), ("national", Column, Key::Other),
    ("natural", Function, Key::Natural), ("nchar", Column, Key::Other), ("no", Name, Key::No),
    ("not", Reserved, Key::Not), ("notify", Name, Key::Notify), ("notnull", Function, Key::Other),
    ("null", Reserved, Key::Other), ("nullif", Column, Key::Other), ("numeric", Column, Key::Other),
    ("offset", Reserved, Key::Other), ("on", Reserved, Key::On), ("only", Reserved, Key::Only),
    ("operator", Name, Key::Operator), ("or", Reserved, Key::Other), ("order", Reserved, Key::Order),
    ("outer", Function, Key::Outer), ("over", Name, Key::Over), ("overlaps", Function, Key::Other),
    ("overlay", Column, Key::Other), ("partition", Name, Key::Partition), ("placing", Reserved, Key::Other),
    ("position", Column, Key::Other), ("precision", Column, Key::Other), ("prepare", Name, Key::Prepare),
    ("primary", Reserved, Key::Other), ("program", Name, Key::Program), ("real", Column, Key::Other),
    ("recursive", Name, Key::Recursive), ("references", Reserved, Key::Other), ("refresh", Name, Key::Refresh),
    ("release", Name, Key::Release), ("replace", Name, Key::Replace), ("reset", Name, Key::Reset),
    ("returning", Reserved, Key::Other), ("right", Function, Key::Right), ("rollback", Name, Key::Rollback),
    ("rollup", Name, Key::Rollup), ("row", Column, Key::Other), ("savepoint", Name, Key::Savepoint),
    ("select", Reserved, Key::Select), ("session_user", Reserved, Key::Other), ("set", Name, Key::Set),
    ("sets", Name, Key::Sets), ("share", Name, Key::Share), ("show", Name, Key::Show),
    ("similar", Function, Key::Similar), ("smallint", Column, Key::Other), ("some", Reserved, Key::Other),
    ("start", Name, Key::Start), ("substring", Column, Key::Other), ("symmetric", Reserved, Key::Other),
    ("system_user", Name, Key::SystemUser), ("table", Reserved, Key::Table), ("tablesample", Function, Key::Other), ("temp", Name, Key::Temp),
    ("temporary", Name, Key::Temp), ("then", Reserved, Key::Then), ("time", Column, Key::Other),
    ("timestamp", Column, Key::Other), ("to", Reserved, Key::To), ("trailing", Reserved, Key::Other),
    // TREAT(x AS y) calls pg_catalog.y(x).
    ("treat", Name, Key::Treat), ("trim", Column, Key::Other), ("true", Reserved, Key::Other),
    ("union", Reserved, Key::Other), ("unique", Reserved, Key::Other), ("unlisten", Name, Key::Unlisten),
    ("update", Name, Key::Update), ("user", Reserved, Key::Other), ("using", Reserved, Key::Other),
    ("values", Column, Key::Values), ("varchar", Column, Key::Other), ("variadic", Reserved, Key::Other),
    ("verbose", Function, Key::Other), ("when", Reserved, Key::Other), ("where", Reserved, Key::Other),
    ("window", Reserved, Key::Other), ("with", Reserved, Key::With), ("xmlattributes", Column, Key::Other),
    ("xmlconcat", Column, Key::Other), ("xmlelement", Column, Key::Other), ("xmlexists", Column, Key::Other),
    ("xmlforest", Column, Key::Other), ("xmlnamespaces", Column, Key::Other), ("xmlparse", Column, Key::Other),
    ("xmlpi", Column, Key::Other), ("xmlroot", Column, Key::Other), ("xmlserialize", Column, Key::Other),
    ("xmltable", Column, Key::Other),
];
