//! SQL PREPARE: what a client has prepared by text follows it to other servers.
//!
//! A server tells the texts itself (pg_prepared_statements), once a transaction is over that may have changed them. In
//! front of a transaction on another server, what others have left there is deallocated, and what is missing is
//! prepared; where both are equal that costs a comparison of two pointers. A text that cannot be repeated as it is (with
//! other statements beside it, in other letters than ASCII), or too many of them, bind the server instead.

use std::{collections::VecDeque, sync::Arc};

use super::{
    bonds::Bond,
    downstream::Downstream,
    params::Label,
    pipeline::{Expected, Pipeline},
    state::{ClientSession, ServerSession},
};
use crate::{
    protocol::{backend as be, encode},
    sql,
};

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

/// Statements that are on their way to a server, and those that it refused: the client has them all the same.
#[derive(Debug, Default)]
pub struct Replay {
    sent: VecDeque<String>,
    /// Names, and bodies of the errors.
    refused: Vec<(String, Box<[u8]>)>,
}

impl Replay {
    fn refuse(&mut self, error: &[u8]) {
        if let Some(name) = self.sent.front() {
            self.refused.push((name.clone(), error.into()));
        }
    }

    fn error_of(&self, name: &[u8]) -> Option<&[u8]> {
        self.refused.iter().find(|(refused, _)| refused.as_bytes() == name).map(|(_, error)| &**error)
    }
}

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

/// Prepares a statement again in front of what follows.
fn prepare(
    (name, text): &(String, String),
    pipeline: &mut Pipeline,
    replay: &mut Replay,
    write: &mut impl FnMut(&str),
) {
    pipeline.push(Expected::InjectedPrepare);
    replay.sent.push_back(name.clone());
    write(text);
}

impl ServerSession {
    /// The settings under which a client's statements have to be prepared here, if they are not its own of today: they
    /// changed on a standby, which has no statements to keep.
    pub(super) fn prepares_under(&self, client: &ClientSession) -> Option<Label> {
        let known = client.prepared.as_ref()?;
        let elsewhere = same(&self.prepared, &client.prepared) || self.in_hot_standby == Some(true);
        (!elsewhere && !Arc::ptr_eq(&known.under, &client.label)).then(|| Arc::clone(&known.under))
    }

    /// Makes the server's statements those of a client whose transaction begins here: what goes in front, noted.
    pub(super) fn adopt_prepared(&mut self, client: &ClientSession, mut write: impl FnMut(&str)) {
        // EXECUTE is for the primary.
        if self.in_hot_standby == Some(true) {
            return;
        }
        if same(&self.prepared, &client.prepared) {
            return self.prepare_refused_again(write);
        }
        let (there, wanted) = (entries(&self.prepared), entries(&client.prepared));
        for (name, _) in there.iter().filter(|entry| !wanted.contains(entry)) {
            self.pipeline.push(Expected::InjectedDiscard);
            write(&format!("DEALLOCATE \"{}\"", name.replace('"', "\"\"")));
        }
        for entry in wanted.iter().filter(|entry| !there.contains(entry)) {
            prepare(entry, &mut self.pipeline, self.replay.get_or_insert_default(), &mut write);
        }
        self.unnamed_of = super::state::NOBODY;
        self.prepared.clone_from(&client.prepared);
    }

    /// What was refused here may be taken by now: for a client that stays, since another server would be asked anyway.
    fn prepare_refused_again(&mut self, mut write: impl FnMut(&str)) {
        let Some(replay) = &mut self.replay else { return };
        for (name, _) in std::mem::take(&mut replay.refused) {
            if let Some(entry) = entries(&self.prepared).iter().find(|(known, _)| *known == name) {
                prepare(entry, &mut self.pipeline, replay, &mut write);
            }
        }
        self.unnamed_of = super::state::NOBODY;
    }

    /// What the server has told of statements, after a transaction of this client. False: they bind it.
    pub(super) fn learn_prepared(
        &mut self,
        client: &mut ClientSession,
        mut told: Vec<(String, String)>,
    ) -> bool {
        if self.in_hot_standby == Some(true) {
            return told.is_empty();
        }
        // What was refused here is not gone: what it lacks may be there again by the next time.
        if let Some(replay) = &mut self.replay {
            replay.refused.retain(|(name, _)| !told.iter().any(|(there, _)| there == name));
            let refused = |name: &String| replay.error_of(name.as_bytes()).is_some();
            let missing = |name: &String| refused(name) && !told.iter().any(|(there, _)| there == name);
            let kept: Vec<_> =
                entries(&client.prepared).iter().filter(|(name, _)| missing(name)).cloned().collect();
            told.extend(kept);
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
        if self.in_hot_standby == Some(true) {
            return;
        }
        if client.prepared.as_ref().is_some_and(|known| !Arc::ptr_eq(&known.under, &client.label)) {
            (self.prepared, client.prepared) = (None, None);
            self.prepared_stays = true;
            self.bonds.objects = self.bonds.objects.or(Some(Bond::Prepare));
        }
    }
}

impl Downstream<'_> {
    /// The server refuses a statement that the client has: it is missing here, for whatever passes, not for ever.
    pub(super) fn prepare_refused(&mut self, error: &[u8]) {
        self.server.replay.get_or_insert_default().refuse(error);
        self.server.spoiled = self.server.spoiled.or(Some("a statement could not be prepared again"));
    }

    /// One that was on its way is there, or refused.
    pub(super) fn prepare_over(&mut self) {
        if let Some(replay) = &mut self.server.replay {
            replay.sent.pop_front();
            if replay.sent.is_empty() && replay.refused.is_empty() {
                self.server.replay = None;
            }
        }
    }

    /// The client has deallocated all that it had.
    pub(super) fn prepared_are_gone(&mut self) {
        self.server.replay = None;
    }

    /// "Does not exist" of a statement that was refused here: why, as its EXECUTE would have said it at a server that has it.
    pub(super) fn refused_before(&self, error: &[u8]) -> Option<Vec<u8>> {
        let replay =
            self.server.replay.as_ref().filter(|_| be::error_field(error, b'C') == Some(b"26000"))?;
        let message = be::error_field(error, b'M')?;
        let cause = message.split(|&b| b == b'"').find_map(|name| replay.error_of(name))?;
        let mut out = Vec::new();
        encode::message(&mut out, be::ERROR_RESPONSE, |b| {
            for (code, value) in be::error_fields(cause) {
                b.push(code);
                encode::cstr(b, value);
            }
            b.push(0);
        });
        Some(out)
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
