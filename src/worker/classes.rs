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

/// Classes, each in the place that its key says; the last one stays.
#[derive(Debug, Default)]
pub(crate) struct Classes {
    /// Seeded: nobody can choose texts that fall into one place.
    hasher: foldhash::fast::RandomState,
    texts: Vec<Option<Text>>,
    /// Hashes of texts that have been seen once: what comes only once is not worth a place.
    once: Vec<u64>,
    statements: Vec<Option<Known>>,
    /// One that is not remembered.
    last: Option<Class>,
    /// How the clients with this label write.
    dialect: Option<(Label, Dialect)>,
}

#[derive(Debug)]
struct Text {
    text: Box<[u8]>,
    dialect: Dialect,
    /// Of the catalog.
    generation: u64,
    class: Class,
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
        let hash = self.hasher.hash_one(text);
        let place = usize::try_from(hash).unwrap_or(0) % PLACES;
        let knows = |known: &Text| {
            known.generation == catalog.generation && known.dialect == dialect && *known.text == *text
        };
        if !self.texts.get(place).and_then(Option::as_ref).is_some_and(knows) {
            let class = sql::classify(text, dialect, catalog);
            if !self.came_before(place, hash) {
                return Some(self.last.insert(class));
            }
            let known = Text { text: text.into(), dialect, generation: catalog.generation, class };
            *self.texts.get_mut(place)? = Some(known);
        }
        self.texts.get(place)?.as_ref().map(|known| &known.class)
    }

    /// Whether the last text of this place that was not remembered was this one.
    fn came_before(&mut self, place: usize, hash: u64) -> bool {
        if self.once.is_empty() {
            self.once.resize(PLACES, 0);
            self.texts.resize_with(PLACES, || None);
        }
        self.once.get_mut(place).is_some_and(|once| std::mem::replace(once, hash) == hash)
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
