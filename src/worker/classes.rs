//! What a worker remembers of texts and statements, so that the same one is not taken apart again and again. No lock, and
//! no memory taken for what is known.

use std::{hash::BuildHasher as _, sync::Arc};

use crate::{
    session::{params::Label, state::ClientSession, statements::Statement},
    sql::{self, Catalog, Class, Dialect},
};

/// Places for texts, and for statements.
const PLACES: usize = 512;
/// Longer texts are not remembered.
const LONGEST: usize = 4096;

/// What nearly all clients use; classes of statements hold for it.
pub(super) const DIALECT: Dialect = Dialect { standard_strings: true, ascii_safe: true };

/// Classes, each in a place that its key says; the last one stays.
#[derive(Debug, Default)]
pub(crate) struct Classes {
    /// Seeded: nobody can choose texts that fall into one place.
    hasher: foldhash::fast::RandomState,
    texts: Vec<Option<Text>>,
    /// The shape of the text that is looked at, if it has one.
    shape: Vec<u8>,
    /// Hashes of texts that have been seen once: what comes only once is not worth a place.
    once: Vec<u64>,
    statements: Vec<Option<Known>>,
    /// One that is not remembered.
    last: Option<Class>,
    /// How the clients with this label write.
    dialect: Option<(Label, Dialect)>,
}

/// What a class holds for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key<'a> {
    /// The text, or the shape of all those that it is.
    text: &'a [u8],
    shaped: bool,
    dialect: Dialect,
    /// Of the catalog.
    generation: u64,
}

#[derive(Debug)]
struct Text {
    text: Box<[u8]>,
    shaped: bool,
    dialect: Dialect,
    generation: u64,
    class: Class,
}

impl Text {
    fn new(key: Key<'_>, class: Class) -> Self {
        let Key { text, shaped, dialect, generation } = key;
        Self { text: text.into(), shaped, dialect, generation, class }
    }

    fn key(&self) -> Key<'_> {
        let Self { text, shaped, dialect, generation, .. } = self;
        Key { text, shaped: *shaped, dialect: *dialect, generation: *generation }
    }
}

#[derive(Debug)]
struct Known {
    /// The statement.
    id: u64,
    /// Of the catalog.
    generation: u64,
    class: Arc<Class>,
}

impl Classes {
    /// How a client's texts are read.
    pub(super) fn dialect(&mut self, client: &ClientSession) -> Dialect {
        match &self.dialect {
            Some((label, dialect)) if Arc::ptr_eq(label, &client.label) => *dialect,
            _ => {
                let dialect = dialect(client);
                self.dialect = Some((Arc::clone(&client.label), dialect));
                dialect
            }
        }
    }

    /// What a text does.
    pub(super) fn of_text(&mut self, text: &[u8], dialect: Dialect, catalog: &Catalog) -> Option<&Class> {
        if text.len() > LONGEST {
            return Some(self.last.insert(sql::classify(text, dialect, catalog)));
        }
        let generation = catalog.generation;
        let exact = Key { text, shaped: false, dialect, generation };
        let mut shape = std::mem::take(&mut self.shape);
        let shaped = (dialect == DIALECT && sql::shape(text, &mut shape)).then_some(Key {
            text: &shape,
            shaped: true,
            ..exact
        });
        let place = shaped.and_then(|key| self.find(key)).or_else(|| self.find(exact)).or_else(|| {
            let class = sql::classify(text, dialect, catalog);
            let key = shaped.filter(|_| !class.literal).unwrap_or(exact);
            self.remember(key, class)
        });
        self.shape = shape;
        match place {
            Some(place) => self.texts.get(place)?.as_ref().map(|known| &known.class),
            None => self.last.as_ref(),
        }
    }

    /// Where it is known.
    fn find(&self, key: Key<'_>) -> Option<usize> {
        let is_known = |place: &usize| {
            self.texts.get(*place).and_then(Option::as_ref).is_some_and(|known| known.key() == key)
        };
        places(self.hasher.hash_one(key.text)).into_iter().find(is_known)
    }

    /// In a place, which is told, or as the last one.
    fn remember(&mut self, key: Key<'_>, class: Class) -> Option<usize> {
        let hash = self.hasher.hash_one(key.text);
        if !self.came_before(hash) {
            self.last = Some(class);
            return None;
        }
        let place = self.place_for(hash, key.generation);
        *self.texts.get_mut(place)? = Some(Text::new(key, class));
        Some(place)
    }

    /// Whether this text was the last one of its share that was not remembered.
    fn came_before(&mut self, hash: u64) -> bool {
        if self.once.is_empty() {
            self.once.resize(PLACES, 0);
            self.texts.resize_with(PLACES, || None);
        }
        // By other bits than the places: texts that share these do not push each other out here too.
        let share = place(hash >> 32);
        self.once.get_mut(share).is_some_and(|once| std::mem::replace(once, hash) == hash)
    }

    /// The one of a text's places that is of less use.
    fn place_for(&self, hash: u64, generation: u64) -> usize {
        let [first, second] = places(hash);
        let of_use = |place: usize| {
            self.texts.get(place).and_then(Option::as_ref).is_some_and(|known| known.generation == generation)
        };
        match (of_use(first), of_use(second)) {
            (true, false) => second,
            // One of the two, and not the same one for all texts.
            (true, true) if hash >> 63 == 1 => second,
            _ => first,
        }
    }

    /// What a statement does that was prepared in [`DIALECT`].
    pub(super) fn of_statement(&mut self, statement: &Statement, catalog: &Catalog) -> Option<&Class> {
        if self.statements.is_empty() {
            self.statements.resize_with(PLACES, || None);
        }
        let place = usize::try_from(statement.id).unwrap_or(0) % PLACES;
        let place = self.statements.get_mut(place)?;
        let (id, generation) = (statement.id, catalog.generation);
        if !place.as_ref().is_some_and(|known| known.id == id && known.generation == generation) {
            let class = statement.class(generation, |text| sql::classify(text, DIALECT, catalog));
            *place = Some(Known { id, generation, class });
        }
        place.as_ref().map(|known| &*known.class)
    }
}

fn place(hash: u64) -> usize {
    usize::try_from(hash % PLACES as u64).unwrap_or(0)
}

/// Where a text may be: two texts that are used in turn have room beside each other.
fn places(hash: u64) -> [usize; 2] {
    let place = place(hash);
    [place, place ^ 1]
}

/// How a client's texts are read, by its parameters.
fn dialect(client: &ClientSession) -> Dialect {
    let value = |name| client.label.get(name).unwrap_or_default();
    Dialect::of(value("standard_conforming_strings"), value("client_encoding"))
}

/// What a text of a client does, as far as that can be told without knowing its database.
pub(super) fn class_of(text: &[u8], client: &ClientSession) -> Class {
    sql::classify(text, dialect(client), &Catalog::default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{session::statements::Registry, sql::Kind};

    #[allow(clippy::field_reassign_with_default, reason = "its other fields are private")]
    fn catalog(generation: u64) -> Catalog {
        let mut catalog = Catalog::default();
        catalog.generation = generation;
        catalog
    }

    #[test]
    fn known_texts_keep_their_class_until_the_catalog_changes() {
        let mut classes = Classes::default();
        let dull = Dialect { standard_strings: false, ..DIALECT };
        for (text, dialect, generation) in [
            (&b"BEGIN"[..], DIALECT, 1),
            (b"BEGIN", DIALECT, 1),
            (b"BEGIN", DIALECT, 1),
            (b"SELECT '\\'", DIALECT, 1),
            (b"SELECT '\\'", DIALECT, 1),
            (b"SELECT '\\'", dull, 1),
            (b"SELECT '\\'", dull, 1),
            (b"BEGIN", DIALECT, 2),
            (&[b' '; LONGEST + 1], DIALECT, 2),
        ] {
            let catalog = catalog(generation);
            let class = classes.of_text(text, dialect, &catalog).cloned();
            assert_eq!(class, Some(sql::classify(text, dialect, &catalog)), "{text:?} {generation}");
        }
        // Two if they fall into the same places, which are as random as the hasher.
        let known = classes.texts.iter().flatten().count();
        assert!((2..=3).contains(&known), "{known}");
    }

    /// Values do not make other texts; what they say may.
    #[test]
    fn texts_of_one_shape_have_one_place() {
        let mut classes = Classes::default();
        for number in 0..100 {
            let text = format!("SELECT {number}, 'a{number}'");
            let class = classes.of_text(text.as_bytes(), DIALECT, &catalog(1)).cloned();
            assert_eq!(class, Some(sql::classify(text.as_bytes(), DIALECT, &catalog(1))));
        }
        assert_eq!(classes.texts.iter().flatten().count(), 1);
        for (name, own) in [("a.b", false), ("pooler.route", true), ("a.c", false), ("pooler.x", true)] {
            for _ in 0..3 {
                let text = format!("SELECT set_config('{name}', '1', false)");
                let class = classes.of_text(text.as_bytes(), DIALECT, &catalog(1)).unwrap();
                assert_eq!(matches!(class.kind, Kind::Pooler(_)), own, "{name}");
            }
        }
    }

    /// Two texts that fall into one place, used in turn, are both remembered.
    #[test]
    fn texts_that_share_a_place_do_not_push_each_other_out() {
        let mut classes = Classes::default();
        let key = |text: &String| places(classes.hasher.hash_one(text.as_bytes()))[0];
        let texts: Vec<String> = (0..PLACES * 8).map(|n| format!("SELECT x{n}")).collect();
        let share = |hash: u64| place(hash >> 32);
        let first = &texts[0];
        let apart = |text: &&String| {
            share(classes.hasher.hash_one(text.as_bytes()))
                != share(classes.hasher.hash_one(first.as_bytes()))
        };
        let second =
            texts.iter().skip(1).filter(|text| key(text) == key(first)).find(apart).expect("there are many");
        let (first, second) = (first.clone(), second.clone());
        for _ in 0..3 {
            for text in [&first, &second] {
                classes.of_text(text.as_bytes(), DIALECT, &catalog(1));
            }
        }
        assert_eq!(classes.texts.iter().flatten().count(), 2);
    }

    #[test]
    fn statements_that_share_a_place_are_told_apart() {
        let (mut classes, registry) = (Classes::default(), Registry::new(0));
        let begin = registry.intern(b"BEGIN\0\0\0", "");
        let fillers: Vec<_> =
            (1..PLACES).map(|n| registry.intern(format!("SELECT {n}\0\0\0").as_bytes(), "")).collect();
        let commit = registry.intern(b"COMMIT\0\0\0", "");
        assert_eq!((commit.id - begin.id, fillers.len()), (PLACES as u64, PLACES - 1));
        for _ in 0..2 {
            let kind = |class: Option<&Class>| class.map(|class| class.kind.clone());
            assert!(matches!(kind(classes.of_statement(&begin, &catalog(1))), Some(Kind::Begin(_))));
            assert_eq!(kind(classes.of_statement(&commit, &catalog(1))), Some(Kind::End));
        }
    }
}
