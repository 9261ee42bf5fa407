//! What must be known of a database to tell whether a text may run on a replica: safe functions, and names that taint
//! whatever mentions them. Immutable; a newer snapshot replaces it.
//!
//! A name counts with all that bear it, in whatever schema: a text does not show which one it means. What is not known
//! to be harmless is dangerous. A snapshot is made of rows alone ([`Catalog::build`]), so that it needs no server to be
//! tested.

mod body;
mod build;
mod builtin;
mod effects;
mod extensions;
mod hides;
mod names;
mod proof;
mod queries;
mod rows;
mod words;
mod writes;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use super::{
    Dialect, Kind, Names, classify,
    lexer::{Lexer, TokenKind},
    slot,
    traces::{Asks, Traces},
};
use names::{
    ANY, ASKS, ATTRIBUTE, FUNCTION, FUNCTION_BAD, FUNCTION_READS, FUNCTION_SESSION, FUNCTION_WRITES, HIDES,
    HIDES_MORE, LASTS, OPERATOR, OPERATOR_BAD, OWN, RELATION, RELATION_SESSION, TAINT_WRITES, TAINTED,
};
pub use queries::{load_text, signature_text};
pub use rows::Results;

/// Longest identifier (NAMEDATALEN - 1); the server cuts longer ones.
const LONGEST: usize = 63;

/// Why rows make no snapshot.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CatalogError {
    #[error("the catalog queries gave {0} result sets")]
    Sets(usize),
    #[error("unexpected value in column {column} of result set {set} of the catalog queries")]
    Value { set: usize, column: usize },
    #[error("the database has more names than can be kept")]
    TooLarge,
}

/// Whether a text only reads, by what the snapshot says so far, and what it reads. Decided by the classifier.
pub type IsRead<'a> = &'a dyn Fn(&[u8], &Catalog) -> Option<Names>;

/// One snapshot. Names are folded (lower case unless quoted) and without schema: a name counts with all that bear it.
#[derive(Debug, Default)]
pub struct Catalog {
    /// Goes up with each snapshot of the database; 0: nothing is known.
    pub generation: u64,
    names: names::Names,
    /// Places in `slots` of each list of them.
    lists: Box<[(u32, u32)]>,
    slots: Box<[u16]>,
    async_commits: bool,
    /// Some name hides what it leaves in the session.
    hides: bool,
    /// Settings with a dot in their names that are set so.
    hidden_settings: Box<[Box<str>]>,
    /// The one before, where nothing is known any more.
    last: Option<Arc<Catalog>>,
    /// What is called without being mentioned and is not safe: with it nothing is known.
    poison: Option<Box<str>>,
}

impl Catalog {
    /// Nothing can be called safe.
    pub fn is_unknown(&self) -> bool {
        self.generation == 0 || self.poison.is_some()
    }

    /// Every function (aggregate, window function) of this name is safe on a replica, and gives what it gives on the
    /// primary. A type of this name is one too: `name(…)` is a cast.
    pub fn function_is_safe(&self, name: &[u8]) -> bool {
        !self.is_unknown() && self.names.flags(name) & (FUNCTION | FUNCTION_BAD) == FUNCTION
    }

    /// There is a function (or a type) of this name.
    pub fn is_function(&self, name: &[u8]) -> bool {
        self.names.flags(name) & FUNCTION != 0
    }

    /// There is a relation of this name.
    pub fn is_relation(&self, name: &[u8]) -> bool {
        self.names.flags(name) & RELATION != 0
    }

    /// Functions of this name may read relations that the text does not mention.
    pub fn function_reads_anything(&self, name: &[u8]) -> bool {
        let flags = self.names.flags(name);
        flags & FUNCTION == 0 || flags & FUNCTION_READS != 0
    }

    /// Functions of this name change no relation that may be read on a replica: they are safe, or PostgreSQL's own
    /// nextval, advisory locks, …, or call only such.
    pub fn function_writes_nothing(&self, name: &[u8]) -> bool {
        !self.is_unknown() && self.names.flags(name) & (FUNCTION | FUNCTION_WRITES) == FUNCTION
    }

    /// Functions of this name may change session state (set_config, advisory locks, …).
    pub fn function_touches_session(&self, name: &[u8]) -> bool {
        let flags = self.names.flags(name);
        flags & FUNCTION == 0 || flags & FUNCTION_SESSION != 0
    }

    /// Reading or writing the relation of this name may change session state: by a view's functions, by triggers.
    pub fn relation_touches_session(&self, name: &[u8]) -> bool {
        self.is_unknown() || self.names.flags(name) & RELATION_SESSION != 0
    }

    /// Whatever mentions this identifier is for the primary.
    pub fn is_tainted(&self, name: &[u8]) -> bool {
        if self.is_unknown() || name.len() > LONGEST || name.starts_with(b"pg_temp") {
            return true;
        }
        let flags = self.names.flags(name);
        flags & TAINTED != 0 || flags & (ATTRIBUTE | FUNCTION_BAD) == ATTRIBUTE | FUNCTION_BAD
    }

    /// Reading what is tainted by this identifier may change relations (a view that calls functions that write, a
    /// foreign table); false if its values are merely not the same on a replica.
    pub fn tainted_may_write(&self, name: &[u8]) -> bool {
        let flags = self.names.flags(name);
        let known = !self.is_unknown() && name.len() <= LONGEST;
        let function = flags & (ATTRIBUTE | FUNCTION_WRITES) == ATTRIBUTE | FUNCTION_WRITES;
        !known || flags & TAINT_WRITES != 0 || function || name.starts_with(b"pg_temp")
    }

    /// Operators with this spelling are safe.
    pub fn operator_is_safe(&self, operator: &[u8]) -> bool {
        !self.is_unknown() && self.names.flags(operator) & (OPERATOR | OPERATOR_BAD) == OPERATOR
    }

    /// Why nothing can be called safe although there is a snapshot: a cast, or an operator that keywords stand for, is
    /// called without being mentioned, and is not safe.
    pub fn poison(&self) -> Option<&str> {
        self.poison.as_deref()
    }

    /// Adds the slots of what is read where this identifier is mentioned: itself, what a view reads, the tables that it
    /// is a partition or a child of (a write to those may be one to it: see [`Catalog::writes_of`]). False if that
    /// cannot be told.
    pub fn add_reads(&self, name: &[u8], slots: &mut Vec<u16>) -> bool {
        if self.is_unknown() || name.len() > LONGEST {
            return false;
        }
        slots.push(slot(name));
        let Some(entry) = self.names.find(name).and_then(|id| self.names.get(id)) else {
            return true;
        };
        // `row.name` calls a function, perhaps.
        if entry.flags & (ATTRIBUTE | FUNCTION_READS) == ATTRIBUTE | FUNCTION_READS {
            return false;
        }
        match entry.reads {
            OWN => true,
            ANY => false,
            list => {
                slots.extend_from_slice(self.list(list));
                true
            }
        }
    }

    /// What changes when a statement inserts into, updates or deletes from the relation of this name: itself, the tables
    /// that it is a partition or a child of, those that foreign keys change along with it. `Any` if it has triggers
    /// that may write, or rules, or is a view, or is not known.
    pub fn writes_of(&self, name: &[u8]) -> Names {
        match self.names.find(name).and_then(|id| self.names.get(id)) {
            Some(entry) if !self.is_unknown() => match entry.writes {
                ANY => Names::Any,
                OWN => Names::Known([slot(name)].into()),
                list => Names::Known(self.list(list).into()),
            },
            _ => Names::Any,
        }
    }

    /// Some role or database sets synchronous_commit to off (or a function mentions it).
    pub fn has_async_commits(&self) -> bool {
        self.is_unknown() || self.async_commits
    }

    /// What functions, triggers and the like leave in the session of whoever sends this text, beyond what its words tell
    /// (`sql::traces`). While nothing is known that may be anything.
    pub fn hidden_in(&self, text: &[u8]) -> Option<Box<Traces>> {
        let Some(known) = self.known() else { return Some(Box::new(Traces::everything())) };
        if known.hides {
            let unknown = if self.generation == 0 { HIDES } else { 0 };
            return known.traces_of(unknown | known.flags_in(text));
        }
        (self.generation == 0).then(|| Box::new(Traces::everything()))
    }

    /// What a text may leave that has not been seen to its end, or a function that is called by its number.
    pub fn hidden_anywhere(&self) -> Option<Box<Traces>> {
        let Some(known) = self.known() else { return Some(Box::new(Traces::everything())) };
        known.traces_of(known.names.with_all(HIDES | HIDES_MORE | ASKS | LASTS) | HIDES)
    }

    /// The last snapshot: what it says of names is better than nothing.
    fn known(&self) -> Option<&Self> {
        if self.generation == 0 { self.last.as_deref() } else { Some(self) }
    }

    fn traces_of(&self, flags: u16) -> Option<Box<Traces>> {
        let asks = if flags & ASKS == 0 { Asks::Nothing } else { Asks::Amid };
        let hides = flags & (HIDES | HIDES_MORE | LASTS) != 0;
        let names = if hides { self.hidden_settings.to_vec() } else { Vec::new() };
        let (unclear, lasts) = (flags & HIDES_MORE != 0, flags & LASTS != 0);
        let left = if hides { Traces::everything() } else { Traces::default() };
        let traces = Traces { names, unclear, lasts, asks, ..left };
        (!traces.is_nothing()).then(|| Box::new(traces))
    }

    /// What is known once this snapshot is not to be trusted any more.
    pub fn outdated(last: &Arc<Self>) -> Self {
        Self { last: Some(Arc::clone(last)), ..Self::default() }
    }

    /// Whether this is what `last` has become.
    pub fn is_outdated(&self, last: &Arc<Self>) -> bool {
        self.generation == 0 && self.last.as_ref().is_some_and(|known| Arc::ptr_eq(known, last))
    }

    /// Whether there is anything that [`Self::hidden_in`] could find.
    pub fn hides(&self) -> bool {
        self.generation == 0 || self.hides
    }

    /// Of all names that a text mentions; words of strings too: they may be run (DO).
    fn flags_in(&self, text: &[u8]) -> u16 {
        let any = HIDES | ASKS;
        let mut flags = 0;
        for token in Lexer::new(text, true) {
            // Or a name in escapes.
            let Ok(token) = token else { return flags | any };
            let raw = text.get(token.range()).unwrap_or_default();
            match token.kind {
                TokenKind::Word | TokenKind::Quoted => {
                    let mut buffer = [0; LONGEST];
                    let name = super::names::fold(text, token, &mut buffer);
                    flags |= name.map_or(any, |name| self.names.flags(name));
                    // What was prepared may be anything.
                    flags |= if raw.eq_ignore_ascii_case(b"execute") { HIDES } else { 0 };
                }
                TokenKind::Text | TokenKind::Escaped => flags |= self.flags_of_words(raw),
                _ => {}
            }
        }
        flags & (HIDES | HIDES_MORE | ASKS | LASTS)
    }

    /// Of the words of a string, as they stand there and in lower case.
    fn flags_of_words(&self, string: &[u8]) -> u16 {
        let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | 0x80..);
        let words = string.split(|byte| !is_word(byte)).filter(|word| !word.is_empty());
        let mut flags = 0;
        for word in words {
            let mut buffer = [0; LONGEST];
            let Some(lower) = buffer.get_mut(..word.len()) else { continue };
            lower.copy_from_slice(word);
            lower.make_ascii_lowercase();
            flags |= self.names.flags(word) | self.names.flags(lower);
        }
        flags
    }

    /// Bytes that it takes.
    pub fn size(&self) -> usize {
        size_of::<Self>() + self.names.size() + size_of_val(&*self.lists) + size_of_val(&*self.slots)
    }

    /// Names that taint, for operators to look at.
    pub fn tainted(&self) -> impl Iterator<Item = &[u8]> {
        self.names.with(TAINTED)
    }

    /// A snapshot of rows that [`load_text`] gave, in their order. `generation` is not 0.
    pub fn build(generation: u64, results: &Results, is_read: IsRead<'_>) -> Result<Self, CatalogError> {
        build::build(generation, results, is_read)
    }

    /// The same with the classifier as judge.
    pub fn of(generation: u64, results: &Results) -> Result<Self, CatalogError> {
        // What the server prints of views and expressions reads the same with any setting of strings.
        let dialect = Dialect { standard_strings: true, ascii_safe: true };
        Self::build(generation, results, &|text, catalog| {
            let class = classify(text, dialect, catalog);
            (class.kind == Kind::Read).then_some(class.reads)
        })
    }

    fn list(&self, list: u32) -> &[u16] {
        let Some((start, end)) = self.lists.get(list as usize) else { return &[] };
        self.slots.get(*start as usize..*end as usize).unwrap_or_default()
    }
}
