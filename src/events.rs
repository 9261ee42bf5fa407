//! What has happened lately, for operators who look: the last few hundred events of the process, in bounded memory.
//!
//! What is told here is logged where it happens, too.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

/// So many are remembered.
const KEPT: usize = 200;
/// Longest text of one, and longest name, in characters.
const LONGEST: usize = 300;

/// What kind of event it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The process has started, or is about to end.
    Process,
    /// Another node is the primary.
    Failover,
    /// A node has another role.
    Node,
    /// A server cannot be reached, or can be again.
    Server,
    /// The configuration was read again, or a setting changed.
    Configuration,
    /// An operator has paused, resumed or ended something.
    Command,
    /// One process takes the place of another.
    Takeover,
    /// The connection that listens for clients was lost.
    Listener,
}

impl Kind {
    /// One word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Failover => "failover",
            Self::Node => "node",
            Self::Server => "server",
            Self::Configuration => "configuration",
            Self::Command => "command",
            Self::Takeover => "takeover",
            Self::Listener => "listener",
        }
    }
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Goes up by one with each.
    pub number: u64,
    /// Unix time in microseconds.
    pub at: u64,
    pub kind: Kind,
    /// It is nothing good.
    pub bad: bool,
    /// Or none.
    pub database: String,
    pub text: String,
}

/// The last events.
#[derive(Debug, Default)]
pub struct Events(Mutex<Ring>);

#[derive(Debug, Default)]
struct Ring {
    last: u64,
    events: VecDeque<Event>,
}

impl Events {
    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something good, or neither good nor bad, has happened.
    pub fn tell(&self, kind: Kind, database: &str, text: &str) {
        self.add(kind, false, database, text);
    }

    /// Something bad has happened.
    pub fn warn(&self, kind: Kind, database: &str, text: &str) {
        self.add(kind, true, database, text);
    }

    fn add(&self, kind: Kind, bad: bool, database: &str, text: &str) {
        let short = |text: &str| text.chars().take(LONGEST).collect::<String>();
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let at = u64::try_from(unix.as_micros()).unwrap_or(0);
        let mut ring = self.lock();
        ring.last += 1;
        let event = Event { number: ring.last, at, kind, bad, database: short(database), text: short(text) };
        if ring.events.len() == KEPT {
            ring.events.pop_front();
        }
        ring.events.push_back(event);
    }

    /// The last ones, latest first.
    pub fn latest(&self, most: usize) -> Vec<Event> {
        self.lock().events.iter().rev().take(most).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_kept_and_are_short() {
        let events = Events::default();
        for n in 0..KEPT + 5 {
            events.tell(Kind::Node, "app", &n.to_string());
        }
        events.warn(Kind::Server, &"d".repeat(1000), &"é".repeat(1000));
        let latest = events.latest(usize::MAX);
        assert_eq!(latest.len(), KEPT);
        assert_eq!((latest[0].text.chars().count(), latest[0].database.len()), (LONGEST, LONGEST));
        assert!(latest[0].bad && latest[0].kind == Kind::Server && !latest[1].bad);
        assert_eq!((latest[1].text.as_str(), latest[1].number), ("204", 205));
        assert_eq!(latest[KEPT - 1].text, "6");
        assert_eq!(events.latest(2).len(), 2);
    }
}
