//! The names of a snapshot, and what is known of each: one table, found by bytes without allocating.

use std::hash::BuildHasher as _;

use hashbrown::HashTable;

/// A function, an aggregate, or a type (whose name with arguments is a cast).
pub(super) const FUNCTION: u16 = 1;
/// Some function of this name is dangerous.
pub(super) const FUNCTION_BAD: u16 = 1 << 1;
/// Some function of this name may read what the text does not mention.
pub(super) const FUNCTION_READS: u16 = 1 << 2;
/// Some function of this name may touch the session.
pub(super) const FUNCTION_SESSION: u16 = 1 << 3;
/// Some function of this name can be called as `row.name`.
pub(super) const ATTRIBUTE: u16 = 1 << 4;
pub(super) const TAINTED: u16 = 1 << 5;
pub(super) const OPERATOR: u16 = 1 << 6;
pub(super) const OPERATOR_BAD: u16 = 1 << 7;
pub(super) const RELATION: u16 = 1 << 8;
/// Reading or writing a relation of this name may touch the session.
pub(super) const RELATION_SESSION: u16 = 1 << 9;
/// Some function of this name may change relations.
pub(super) const FUNCTION_WRITES: u16 = 1 << 10;
/// Tainted, and reading it may change relations.
pub(super) const TAINT_WRITES: u16 = 1 << 11;
/// What bears this name leaves something in the session that no text tells of.
pub(super) const HIDES: u16 = 1 << 12;
/// And that nobody can ask for.
pub(super) const HIDES_MORE: u16 = 1 << 13;
/// What bears this name asks for the last numbers of sequences.
pub(super) const ASKS: u16 = 1 << 14;
/// What bears this name leaves something that nobody can clear.
pub(super) const LASTS: u16 = 1 << 15;

/// Effects of a name: a place in the catalog's lists, or one of these.
pub(super) const OWN: u32 = u32::MAX;
pub(super) const ANY: u32 = u32::MAX - 1;

/// What a name stands for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    start: u32,
    length: u16,
    pub(super) flags: u16,
    /// Relations: what is read where it is mentioned.
    pub(super) reads: u32,
    /// Relations: what changes when it is written.
    pub(super) writes: u32,
}

#[derive(Debug, Default)]
pub(super) struct Names {
    entries: Vec<Entry>,
    bytes: Vec<u8>,
    table: HashTable<u32>,
    hasher: foldhash::fast::RandomState,
}

impl Names {
    /// Number of a name.
    pub(super) fn find(&self, name: &[u8]) -> Option<u32> {
        let hash = self.hasher.hash_one(name);
        self.table.find(hash, |id| self.bytes_of(*id) == Some(name)).copied()
    }

    pub(super) fn get(&self, id: u32) -> Option<&Entry> {
        self.entries.get(id as usize)
    }

    /// Flags of a name; 0 if it is not known.
    pub(super) fn flags(&self, name: &[u8]) -> u16 {
        self.find(name).map_or(0, |id| self.flags_of(id))
    }

    pub(super) fn flags_of(&self, id: u32) -> u16 {
        self.get(id).map_or(0, |entry| entry.flags)
    }

    pub(super) fn bytes_of(&self, id: u32) -> Option<&[u8]> {
        let entry = self.get(id)?;
        self.bytes.get(entry.start as usize..)?.get(..usize::from(entry.length))
    }

    /// Number of a name, new or not, with these flags added. `None`: more names than anyone has.
    pub(super) fn add(&mut self, name: &str, flags: u16) -> Option<u32> {
        let id = match self.find(name.as_bytes()) {
            Some(id) => id,
            None => self.insert(name)?,
        };
        self.mark(id, flags);
        Some(id)
    }

    fn insert(&mut self, name: &str) -> Option<u32> {
        let id = u32::try_from(self.entries.len()).ok()?;
        let (start, length) = (u32::try_from(self.bytes.len()).ok()?, u16::try_from(name.len()).ok()?);
        self.bytes.extend_from_slice(name.as_bytes());
        self.entries.push(Entry { start, length, flags: 0, reads: OWN, writes: ANY });
        let hash = self.hasher.hash_one(name.as_bytes());
        let Self { entries, bytes, table, hasher } = self;
        let rehash = |id: &u32| {
            let entry = entries.get(*id as usize);
            let name = entry.and_then(|e| bytes.get(e.start as usize..)?.get(..usize::from(e.length)));
            hasher.hash_one(name.unwrap_or_default())
        };
        table.insert_unique(hash, id, rehash);
        Some(id)
    }

    /// Adds flags; whether they are new.
    pub(super) fn mark(&mut self, id: u32, flags: u16) -> bool {
        let Some(entry) = self.entries.get_mut(id as usize) else { return false };
        let before = entry.flags;
        entry.flags |= flags;
        entry.flags != before
    }

    pub(super) fn set_effects(&mut self, id: u32, reads: u32, writes: u32) {
        if let Some(entry) = self.entries.get_mut(id as usize) {
            (entry.reads, entry.writes) = (reads, writes);
        }
    }

    /// Those of these flags that some name has.
    pub(super) fn with_all(&self, flags: u16) -> u16 {
        self.entries.iter().fold(0, |found, entry| found | entry.flags) & flags
    }

    /// Names with one of these flags.
    pub(super) fn with(&self, flags: u16) -> impl Iterator<Item = &[u8]> {
        let ids = (0..).zip(&self.entries).filter(move |(_, entry)| entry.flags & flags != 0);
        ids.filter_map(|(id, _)| self.bytes_of(id))
    }

    pub(super) fn shrink(&mut self) {
        self.entries.shrink_to_fit();
        self.bytes.shrink_to_fit();
    }

    /// Bytes that it takes.
    pub(super) fn size(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>() + self.bytes.capacity() + self.table.allocation_size()
    }
}
