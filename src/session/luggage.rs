//! A client's session as it passes to another process, between two transactions.
//!
//! Only what a client may leave to a pooler passes, and not what binds it to a server, what it listens to, and what it has
//! prepared by SQL: such a session stays where it is.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};

use super::{
    params::{Label, Params},
    sequences::{Habit, Sequences},
    state::{ClientSession, Shared},
    statements::ClientStatements,
};

type Pairs = Vec<(String, String)>;

/// What a session takes along.
#[derive(Serialize, Deserialize)]
pub struct Luggage {
    label: Pairs,
    startup: Pairs,
    statements: Vec<PackedStatement>,
    unnamed: String,
    habit: u8,
    /// Meanings of statements are hashes, which another version may make in another way.
    scheme: u64,
}

/// A prepared statement of the protocol: bytes in base64.
#[derive(Serialize, Deserialize)]
pub(super) struct PackedStatement {
    pub(super) name: String,
    pub(super) text_and_types: String,
    pub(super) search_path: String,
    /// What it meant to the client.
    pub(super) told: Option<u64>,
    /// Its parameters, as a server has described them.
    pub(super) parameters: Option<String>,
}

const HABITS: [Habit; 4] = [Habit::Never, Habit::Amid, Habit::Later, Habit::Always];

pub(super) fn packed(bytes: &[u8]) -> String {
    BASE64_STANDARD.encode(bytes)
}

pub(super) fn unpacked(text: &str) -> Option<Vec<u8>> {
    BASE64_STANDARD.decode(text).ok()
}

fn pairs(label: &Label) -> Pairs {
    label.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn label(pairs: &Pairs, shared: &Shared) -> Label {
    shared.labels.intern(Params::from_pairs(pairs.iter().map(|(n, v)| (n.as_str(), v.as_str()))))
}

impl ClientSession {
    /// What the session takes along; `None`: it has to stay.
    pub fn pack(&self) -> Option<Luggage> {
        let stays = self.passing > 0 || self.held || self.prepared.is_some() || self.channels.is_some();
        let habit = HABITS.iter().position(|habit| *habit == self.sequences.habit())?;
        (!stays).then(|| Luggage {
            label: pairs(&self.label),
            startup: pairs(&self.startup),
            statements: self.statements.as_ref().map(|statements| statements.pack()).unwrap_or_default(),
            unnamed: packed(&self.unnamed),
            habit: u8::try_from(habit).unwrap_or(u8::MAX),
            scheme: super::statements::scheme(),
        })
    }
}

impl Luggage {
    /// Whether there are named statements, which not every process can keep.
    pub fn has_statements(&self) -> bool {
        !self.statements.is_empty()
    }

    /// The session, in this process; `None`: that cannot be.
    pub fn unpack(&self, id: u64, shared: &Shared) -> Option<ClientSession> {
        let mut session = ClientSession::new(id, label(&self.label, shared));
        session.startup = label(&self.startup, shared);
        let meanings = self.scheme == super::statements::scheme();
        if self.has_statements() {
            let statements = ClientStatements::unpack(&self.statements, &shared.registry, meanings)?;
            session.statements = Some(Box::new(statements));
        }
        session.unnamed = unpacked(&self.unnamed)?;
        session.sequences = Sequences::with(*HABITS.get(usize::from(self.habit))?);
        Some(session)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::{params::Labels, statements::Registry};

    fn shared() -> Shared {
        Shared { registry: Registry::new(7), labels: Labels::default() }
    }

    fn passed_on(session: &ClientSession, there: &Shared) -> Option<ClientSession> {
        let json = serde_json::to_string(&session.pack()?).unwrap();
        serde_json::from_str::<Luggage>(&json).unwrap().unpack(9, there)
    }

    #[test]
    fn sessions_arrive_as_they_were() {
        let (here, there) = (shared(), shared());
        let startup =
            here.labels.intern(Params::from_pairs([("DateStyle", "ISO, DMY"), ("a.b", "\u{e9}'\n")]));
        let mut session = ClientSession::new(3, startup);
        session.label = here.labels.with(&session.startup, "TimeZone", "");
        session.unnamed = b"SELECT '\xff'\0\0\0".to_vec();
        session.sequences = Sequences::with(Habit::Amid);
        let mut statements = ClientStatements::default();
        let statement = here.registry.intern(b"SELECT $1\0\0\x01\0\0\0\0", "p");
        statements.insert(b"n\xff", statement);
        session.statements = Some(Box::new(statements));
        let moved = passed_on(&session, &there).unwrap();
        assert_eq!((moved.id, &moved.label, &moved.startup), (9, &session.label, &session.startup));
        assert_eq!((&moved.unnamed, moved.sequences.habit()), (&session.unnamed, Habit::Amid));
        let found = moved.statements.as_ref().unwrap().get(b"n\xff").unwrap();
        assert_eq!(*found.text_and_types, *b"SELECT $1\0\0\x01\0\0\0\0");
        assert!(moved.statements.unwrap().told(b"n\xff").is_none(), "no server has said yet");
    }

    #[test]
    fn sessions_that_are_bound_stay() {
        let mut session = ClientSession::new(3, shared().labels.intern(Params::default()));
        assert!(session.pack().is_some());
        session.channels = Some(Box::default());
        assert!(session.pack().is_none());
        session.channels = None;
        session.held = true;
        assert!(session.pack().is_none());
        session.held = false;
        session.passing = 1;
        assert!(session.pack().is_none());
    }
}
