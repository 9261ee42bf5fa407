//! SQL PREPARE: what a client has prepared by text follows it to other servers.
//!
//! A server tells the texts itself (pg_prepared_statements), once a transaction is over that may have changed them. In
//! front of a transaction on another server, what others have left there is deallocated, and what is missing is
//! prepared; where both are equal that costs a comparison of two pointers. A text that cannot be repeated as it is (with
//! other statements beside it, in other letters than ASCII), or too many of them, bind the server instead.

use std::sync::Arc;

use super::{
    bonds::Bond,
    params::Label,
    pipeline::Expected,
    state::{ClientSession, ServerSession},
};
use crate::sql;

/// Most statements, and bytes of texts, that follow a client.
const MOST: usize = 16;
const MOST_BYTES: usize = 16 << 10;

/// Names and texts of PREPARE, by name.
#[derive(Debug)]
pub struct Prepared {
    texts: Box<[(String, String)]>,
    /// The settings that they were read under: DateStyle and the like say what their literals mean.
    under: Label,
}

/// What a session holds; nearly always nothing.
pub type Texts = Option<Arc<Prepared>>;

/// What a server has told, if it can follow its client.
pub(super) fn of_answer(mut told: Vec<(String, String)>, under: &Label) -> Result<Texts, ()> {
    let bytes: usize = told.iter().map(|(name, text)| name.len() + text.len()).sum();
    let repeatable = |(name, text): &(String, String)| {
        name.is_ascii() && text.is_ascii() && !text.contains('\\') && sql::is_one_prepare(text.as_bytes())
    };
    if told.len() > MOST || bytes > MOST_BYTES || !told.iter().all(repeatable) {
        return Err(());
    }
    told.sort_unstable();
    let none = told.is_empty();
    Ok((!none).then(|| Arc::new(Prepared { texts: told.into(), under: Arc::clone(under) })))
}

fn same(one: &Texts, other: &Texts) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        (None, None) => true,
        _ => false,
    }
}

fn entries(texts: &Texts) -> &[(String, String)] {
    texts.as_ref().map_or(&[], |known| &known.texts)
}

impl ServerSession {
    /// Makes the server's statements those of a client whose transaction begins here: what goes in front, noted.
    pub(super) fn adopt_prepared(&mut self, client: &ClientSession, mut write: impl FnMut(&str)) {
        // EXECUTE is for the primary.
        if same(&self.prepared, &client.prepared) || self.in_hot_standby == Some(true) {
            return;
        }
        let (there, wanted) = (entries(&self.prepared), entries(&client.prepared));
        for (name, _) in there.iter().filter(|entry| !wanted.contains(entry)) {
            self.pipeline.push(Expected::InjectedDiscard);
            write(&format!("DEALLOCATE \"{}\"", name.replace('"', "\"\"")));
        }
        for (_, text) in wanted.iter().filter(|entry| !there.contains(entry)) {
            self.pipeline.push(Expected::InjectedPrepare);
            write(text);
        }
        self.unnamed_of = super::state::NOBODY;
        self.prepared.clone_from(&client.prepared);
    }

    /// What the server has told of statements, after a transaction of this client. False: they bind it.
    pub(super) fn learn_prepared(&mut self, client: &mut ClientSession, told: Vec<(String, String)>) -> bool {
        if self.in_hot_standby == Some(true) {
            return told.is_empty();
        }
        self.prepared_stays &= !told.is_empty();
        let learnt = of_answer(told, &client.label).ok().filter(|_| !self.prepared_stays);
        let Some(learnt) = learnt else {
            (self.prepared, client.prepared) = (None, None);
            return false;
        };
        if entries(&learnt) != entries(&self.prepared) {
            self.prepared = learnt;
        }
        client.prepared.clone_from(&self.prepared);
        true
    }

    /// A transaction is over. Under other settings the same texts may mean something else: then the server stays.
    pub(super) fn keep_prepared(&mut self, client: &mut ClientSession) {
        if client.prepared.as_ref().is_some_and(|known| !Arc::ptr_eq(&known.under, &client.label)) {
            (self.prepared, client.prepared) = (None, None);
            self.prepared_stays = true;
            self.bonds.objects = self.bonds.objects.or(Some(Bond::Prepare));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_be_repeated_follows() {
        let label = Arc::default();
        let follows = |texts: &[&str]| {
            let told = texts.iter().map(|text| ("p".to_owned(), (*text).to_owned())).collect();
            of_answer(told, &label).map(|texts| entries(&texts).len())
        };
        assert_eq!(follows(&[]), Ok(0));
        assert_eq!(follows(&["PREPARE p AS SELECT 1;"]), Ok(1));
        for text in [
            "PREPARE p AS SELECT 1; SELECT 2",
            "SELECT 2; PREPARE p AS SELECT 1",
            "PREPARE p AS SELECT '\u{e9}'",
            "PREPARE p AS SELECT '\\'",
            &format!("PREPARE p AS SELECT '{}'", "x".repeat(MOST_BYTES)),
        ] {
            assert_eq!(follows(&[text]), Err(()), "{text}");
        }
        assert_eq!(follows(&["PREPARE p AS SELECT 1"; MOST + 1]), Err(()));
    }
}
