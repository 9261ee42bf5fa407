//! What kinds of statements there were, and what they took: of one worker, in bounded memory.
//!
//! A kind is a text without its literals ([`sql::fingerprint`]) in one pool. A statement that is prepared, or whose text has come
//! before, is known by one look at a table; memory is taken for new kinds only.

use std::{collections::VecDeque, hash::BuildHasher as _};

use hashbrown::HashTable;

use super::{
    state::{ClientSession, ServerSession},
    upstream::Upstream,
};
use crate::{
    protocol::{backend as be, frame::split_cstr},
    sql::{self, Dialect},
};

/// Texts and statements whose kind is remembered, by their hash.
const PLACES: usize = 1024;
/// How many kinds are looked at for the one that makes room.
const CANDIDATES: usize = 16;

/// Stands for statements that passed without being read.
const UNREAD: &[u8] = b"<prepared statement that pooler does not follow>";

/// Which kind a request is of, and when it was sent. Nothing is counted for the default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meter {
    place: u32,
    /// Of the kind that is in that place; 0: none.
    serial: u32,
    /// Microseconds of the process clock.
    pub sent: u64,
}

/// Those of the requests under way that are measured. Where none are, it takes a number.
#[derive(Debug, Default)]
pub(super) struct Meters {
    /// With the number of each request among all that could be measured.
    measured: VecDeque<(u32, Meter)>,
    /// Of the next request.
    next: Meter,
    sent: u32,
    answered: u32,
}

impl Meters {
    pub(super) fn note_next(&mut self, meter: Meter) {
        self.next = meter;
    }

    /// A request is sent.
    pub(super) fn push(&mut self) {
        self.sent = self.sent.wrapping_add(1);
        if self.next.serial > 0 {
            self.measured.push_back((self.sent, std::mem::take(&mut self.next)));
        }
    }

    /// Of the first request that has not been answered.
    pub(super) fn first(&self) -> Meter {
        let number = self.answered.wrapping_add(1);
        self.measured.front().filter(|first| first.0 == number).map_or_else(Meter::default, |first| first.1)
    }

    /// It has been answered, or never will be.
    pub(super) fn pop(&mut self) -> Meter {
        let meter = self.first();
        if meter.serial > 0 {
            self.measured.pop_front();
        }
        self.answered = self.answered.wrapping_add(1);
        meter
    }
}

/// A request that has been answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done {
    pub meter: Meter,
    pub rows: u64,
    /// What the server has said.
    pub bytes: u64,
    pub failed: bool,
}

/// How long a request took, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Took {
    /// At the server.
    pub time: u64,
    /// Until there was one.
    pub wait: u64,
}

/// One kind.
#[derive(Clone, Debug)]
pub struct Kind {
    hash: u64,
    serial: u32,
    /// Calls, halved each time that it was considered to make room.
    weight: u64,
    /// Number of the pool.
    pub pool: usize,
    pub text: Box<[u8]>,
    pub calls: u64,
    pub errors: u64,
    pub time: u64,
    pub longest: u64,
    pub wait: u64,
    pub rows: u64,
    pub bytes: u64,
}

/// Where a text or a statement was found before.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    key: u64,
    pool: usize,
    place: u32,
    serial: u32,
}

/// All kinds of one worker.
#[derive(Debug, Default)]
pub struct Queries {
    /// Seeded: nobody can choose texts that are taken for each other.
    hasher: foldhash::fast::RandomState,
    most: usize,
    known: Vec<Known>,
    kinds: Vec<Kind>,
    /// Places in `kinds`.
    by_hash: HashTable<u32>,
    serial: u32,
    /// Where to look for what makes room.
    hand: usize,
    text: Vec<u8>,
}

impl Queries {
    /// Remembers so many kinds, and none of those before if that is another number.
    pub fn keep(&mut self, most: usize) {
        if self.most != most {
            *self = Self { most, serial: self.serial, ..Self::default() };
        }
    }

    /// Whether any are remembered.
    pub fn are_kept(&self) -> bool {
        self.most > 0
    }

    /// A pool has gone, and its number may be another's.
    pub fn forget(&mut self, pool: usize) {
        // Its kinds go when their places are needed; nobody sees them any more.
        for kind in self.kinds.iter_mut().filter(|kind| kind.pool == pool) {
            (kind.pool, kind.weight, kind.serial) = (usize::MAX, 0, 0);
        }
    }

    /// All of them.
    pub fn kinds(&self) -> impl Iterator<Item = &Kind> {
        self.kinds.iter().filter(|kind| kind.calls > 0 && kind.pool != usize::MAX)
    }

    /// The text of a request's kind, if it is still there.
    pub fn text_of(&self, meter: Meter) -> Option<&[u8]> {
        self.kind(meter).map(|kind| &*kind.text)
    }

    fn kind(&self, meter: Meter) -> Option<&Kind> {
        let kind = self.kinds.get(meter.place as usize);
        kind.filter(|kind| kind.serial == meter.serial && meter.serial > 0)
    }

    /// Counts a request that has been answered.
    pub fn count(&mut self, done: &Done, took: Took) {
        if self.kind(done.meter).is_none() {
            return;
        }
        let Some(kind) = self.kinds.get_mut(done.meter.place as usize) else { return };
        kind.calls += 1;
        kind.weight += 1;
        kind.errors += u64::from(done.failed);
        kind.time += took.time;
        kind.longest = kind.longest.max(took.time);
        kind.wait += took.wait;
        kind.rows += done.rows;
        kind.bytes += done.bytes;
    }

    fn of_text(&mut self, text: &[u8], pool: usize, dialect: impl FnOnce() -> Dialect) -> Meter {
        self.find(self.hasher.hash_one(text), pool, text, dialect)
    }

    fn of_statement(
        &mut self,
        id: u64,
        text: &[u8],
        pool: usize,
        dialect: impl FnOnce() -> Dialect,
    ) -> Meter {
        // Numbers that no text has.
        self.find(self.hasher.hash_one(id), pool, text, dialect)
    }

    fn find(&mut self, key: u64, pool: usize, text: &[u8], dialect: impl FnOnce() -> Dialect) -> Meter {
        if self.known.is_empty() {
            self.known.resize(PLACES, Known::default());
        }
        let at = usize::try_from((key ^ pool as u64) % PLACES as u64).unwrap_or(0);
        if let Some(known) = self.known.get(at).filter(|known| known.key == key && known.pool == pool) {
            let meter = Meter { place: known.place, serial: known.serial, sent: 0 };
            if self.kind(meter).is_some() {
                return meter;
            }
        }
        let mut shown = std::mem::take(&mut self.text);
        sql::fingerprint(text, dialect(), &mut shown);
        let meter = self.of_kind(&shown, pool);
        self.text = shown;
        if let Some(known) = self.known.get_mut(at) {
            *known = Known { key, pool, place: meter.place, serial: meter.serial };
        }
        meter
    }

    /// The place of a kind, new or not.
    fn of_kind(&mut self, text: &[u8], pool: usize) -> Meter {
        let hash = self.hasher.hash_one((text, pool));
        let kinds = &self.kinds;
        let is_it = |place: &u32| {
            let kind = kinds.get(*place as usize);
            kind.is_some_and(|kind| kind.hash == hash && kind.pool == pool && *kind.text == *text)
        };
        if let Some(&place) = self.by_hash.find(hash, is_it) {
            let serial = kinds.get(place as usize).map_or(0, |kind| kind.serial);
            return Meter { place, serial, sent: 0 };
        }
        let place = self.make_room();
        self.serial = self.serial.wrapping_add(1).max(1);
        let kind = Kind {
            hash,
            serial: self.serial,
            weight: 0,
            pool,
            text: text.into(),
            calls: 0,
            errors: 0,
            time: 0,
            longest: 0,
            wait: 0,
            rows: 0,
            bytes: 0,
        };
        match self.kinds.get_mut(place) {
            Some(place) => *place = kind,
            None => self.kinds.push(kind),
        }
        let place = u32::try_from(place).unwrap_or(0);
        let kinds = &self.kinds;
        let hash_of = |place: &u32| kinds.get(*place as usize).map_or(0, |kind| kind.hash);
        self.by_hash.insert_unique(hash, place, hash_of);
        Meter { place, serial: self.serial, sent: 0 }
    }

    /// A free place, behind the others or that of the one that counts least among a few.
    fn make_room(&mut self) -> usize {
        if self.kinds.len() < self.most {
            return self.kinds.len();
        }
        let mut least = (u64::MAX, 0);
        for _ in 0..CANDIDATES {
            self.hand = (self.hand + 1) % self.kinds.len().max(1);
            let Some(kind) = self.kinds.get_mut(self.hand) else { continue };
            least = least.min((kind.weight, self.hand));
            kind.weight /= 2;
        }
        let place = least.1;
        if let Some(hash) = self.kinds.get(place).map(|kind| kind.hash)
            && let Ok(entry) = self.by_hash.find_entry(hash, |known| *known as usize == place)
        {
            entry.remove();
        }
        place
    }
}

/// The portal that was bound last, by its hash, and what is executed there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bound {
    portal: u64,
    meter: Meter,
}

impl ClientSession {
    /// How its texts are read.
    fn dialect(&self) -> Dialect {
        let value = |name| self.label.get(name).unwrap_or_default();
        Dialect::of(value("standard_conforming_strings"), value("client_encoding"))
    }
}

impl Upstream<'_> {
    /// A text is about to be sent.
    pub(super) fn meter_text(&mut self, text: &[u8]) {
        let Some(queries) = &mut self.queries else { return };
        let client = &self.client;
        let meter = queries.of_text(text, self.pool, || client.dialect());
        self.server.pipeline.meter(Meter { sent: self.now, ..meter });
    }

    /// A statement is bound to a portal.
    pub(super) fn meter_bound(&mut self, portal: &[u8], name: &[u8]) {
        let Some(queries) = &mut self.queries else { return };
        let client = &self.client;
        let text_of = |text| split_cstr(text).map_or(text, |(text, _)| text);
        let known = client.statements.as_ref().and_then(|known| known.get(name));
        let meter = match known {
            _ if name.is_empty() => queries.of_text(text_of(&client.unnamed), self.pool, || client.dialect()),
            Some(known) => {
                queries.of_statement(known.id, text_of(&known.text_and_types), self.pool, || client.dialect())
            }
            None => queries.of_kind(UNREAD, self.pool),
        };
        self.server.bound = Some(Bound { portal: queries.hasher.hash_one(portal), meter });
    }

    /// A portal is about to be executed. Of one that was bound before others nothing is known.
    pub(super) fn meter_executed(&mut self, body: &[u8]) {
        let Some(queries) = &self.queries else { return };
        let portal = split_cstr(body).map(|(portal, _)| queries.hasher.hash_one(portal));
        let bound = self.server.bound.filter(|bound| portal == Some(bound.portal));
        let meter = bound.map(|bound| Meter { sent: self.now, ..bound.meter });
        self.server.pipeline.meter(meter.unwrap_or_default());
    }
}

impl ServerSession {
    /// A reply has been taken: it may be the last one of a request.
    pub(super) fn meter_reply(&mut self, tag: u8, len: usize) {
        let said = self.said + len as u64;
        self.failed |= tag == be::ERROR_RESPONSE;
        if let Some(meter) = self.pipeline.take_answered() {
            let (rows, failed) = (std::mem::take(&mut self.rows), std::mem::take(&mut self.failed));
            let bytes = said - std::mem::replace(&mut self.said_before, said);
            if meter.serial > 0 {
                self.done.push(Done { meter, rows, bytes, failed });
            }
        }
        if tag == be::READY_FOR_QUERY {
            (self.rows, self.failed, self.said_before) = (0, false, said);
        }
    }

    /// What was bound is somebody else's affair.
    pub fn forget_bound(&mut self) {
        self.bound = None;
    }
}

/// How many rows a tag tells of.
pub(super) fn rows_of(tag: &[u8]) -> u64 {
    let digits = tag.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let digits = tag.get(tag.len() - digits..).unwrap_or_default();
    digits.iter().fold(0, |rows: u64, digit| rows.saturating_mul(10).saturating_add(u64::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIALECT: Dialect = Dialect { standard_strings: true, ascii_safe: true };

    fn ran(queries: &mut Queries, text: &str, pool: usize, time: u64) {
        let meter = queries.of_text(text.as_bytes(), pool, || DIALECT);
        let done = Done { meter, rows: 2, bytes: 10, failed: false };
        queries.count(&done, Took { time, wait: 1 });
    }

    fn counts(queries: &Queries) -> Vec<(String, usize, u64, u64)> {
        let mut counts: Vec<_> = queries
            .kinds()
            .map(|k| (String::from_utf8_lossy(&k.text).into_owned(), k.pool, k.calls, k.longest))
            .collect();
        counts.sort();
        counts
    }

    #[test]
    fn texts_of_one_kind_are_counted_together() {
        let mut queries = Queries::default();
        queries.keep(10);
        for n in 0..5 {
            ran(&mut queries, &format!("SELECT {n}"), 1, n);
        }
        ran(&mut queries, "SELECT 1", 2, 9);
        let statement = queries.of_statement(7, b"SELECT 33", 1, || DIALECT);
        queries.count(&Done { meter: statement, rows: 0, bytes: 0, failed: true }, Took::default());
        let expected =
            [("SELECT ?", 1, 6, 4), ("SELECT ?", 2, 1, 9)].map(|(t, p, c, l)| (t.to_owned(), p, c, l));
        assert_eq!(counts(&queries), expected);
        let first = queries.kinds().find(|kind| kind.pool == 1).unwrap();
        assert_eq!((first.rows, first.bytes, first.errors, first.wait), (10, 50, 1, 5));
    }

    #[test]
    fn new_kinds_push_out_those_that_count_least() {
        let mut queries = Queries::default();
        queries.keep(64);
        let often: Vec<String> = (0..8).map(|n| format!("SELECT often{n}")).collect();
        for round in 0..2_000 {
            often.iter().for_each(|text| ran(&mut queries, text, 0, 1));
            ran(&mut queries, &format!("SELECT once{round}"), 0, 1);
        }
        assert_eq!((queries.kinds.len(), queries.by_hash.len()), (64, 64));
        for text in &often {
            let found = counts(&queries).into_iter().find(|(known, ..)| known == text);
            assert!(found.is_some_and(|(_, _, calls, _)| calls == 2_000), "{text}");
        }
    }

    #[test]
    fn what_was_pushed_out_is_counted_for_nobody_else() {
        let mut queries = Queries::default();
        queries.keep(1);
        let old = queries.of_text(b"SELECT old", 0, || DIALECT);
        ran(&mut queries, "SELECT new", 0, 1);
        queries.count(&Done { meter: old, rows: 0, bytes: 0, failed: false }, Took::default());
        queries.count(&Done { meter: Meter::default(), rows: 0, bytes: 0, failed: false }, Took::default());
        assert_eq!(counts(&queries), [("SELECT new".to_owned(), 0, 1, 1)]);
        queries.keep(2);
        assert!(counts(&queries).is_empty());
    }

    #[test]
    fn a_pool_that_has_gone_leaves_nothing_to_the_next() {
        let mut queries = Queries::default();
        queries.keep(2);
        ran(&mut queries, "SELECT 1", 0, 5);
        queries.forget(0);
        assert!(counts(&queries).is_empty());
        ran(&mut queries, "SELECT 1", 0, 7);
        ran(&mut queries, "BEGIN", 0, 8);
        let expected =
            [("BEGIN", 0, 1, 8), ("SELECT ?", 0, 1, 7)].map(|(t, p, c, l)| (t.to_owned(), p, c, l));
        assert_eq!(counts(&queries), expected);
    }

    #[test]
    fn tags_tell_of_rows() {
        for (tag, rows) in [("SELECT 12", 12), ("INSERT 0 3", 3), ("BEGIN", 0), ("", 0), ("COPY 7", 7)] {
            assert_eq!(rows_of(tag.as_bytes()), rows, "{tag}");
        }
        assert_eq!(rows_of(&[b'9'; 40]), u64::MAX);
    }
}
