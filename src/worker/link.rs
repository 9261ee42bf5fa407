//! A database's listener, as one worker uses it: who listens to what here, what is asked for, and who waits for the answer.
//!
//! All that a turn of the worker asks for is one [`Command`] with one ticket.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
};

use foldhash::fast::RandomState;

use super::listeners::{Command, Listener, Name};

/// The way to a listener.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) listener: Arc<Listener>,
    pub(super) asks: Asks,
}

/// What a worker asks of a listener.
#[derive(Debug)]
pub(super) struct Asks {
    worker: usize,
    /// Channels, and the slots of those who listen to them here, or may do so soon.
    topics: HashMap<Name, HashSet<usize, RandomState>, RandomState>,
    /// To be asked at the end of this turn.
    draft: Option<Command>,
    /// The last ticket that was asked for.
    issued: u64,
    /// Tickets that have not been answered, and when they were asked for.
    times: VecDeque<(u64, u64)>,
    /// When the one was asked for that was answered last.
    confirmed: u64,
    /// Tickets that clients wait for.
    waiting: VecDeque<Waiting>,
}

/// A client that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Waiting {
    pub(super) ticket: u64,
    pub(super) slot: usize,
    pub(super) id: u64,
}

impl Asks {
    pub(super) fn of(worker: usize) -> Self {
        Self {
            worker,
            topics: HashMap::default(),
            draft: None,
            issued: 0,
            times: VecDeque::new(),
            confirmed: 0,
            waiting: VecDeque::new(),
        }
    }

    /// Who listens to a channel here, or may do so soon.
    pub(super) fn listeners(&self, channel: &[u8]) -> impl Iterator<Item = usize> {
        self.topics.get(channel).into_iter().flatten().copied()
    }

    /// A client needs the channel.
    pub(super) fn want(&mut self, channel: &[u8], slot: usize) {
        if let Some(topic) = self.topics.get_mut(channel) {
            topic.insert(slot);
            return;
        }
        self.draft().listen.push(channel.into());
        self.topics.insert(channel.into(), std::iter::once(slot).collect());
    }

    /// A client needs the channel no more.
    pub(super) fn leave(&mut self, channel: &[u8], slot: usize) {
        let Some(topic) = self.topics.get_mut(channel) else { return };
        topic.remove(&slot);
        if !topic.is_empty() {
            return;
        }
        self.topics.remove(channel);
        let draft = self.draft();
        let asked = draft.listen.len();
        draft.listen.retain(|asked| **asked != *channel);
        if draft.listen.len() == asked {
            draft.unlisten.push(channel.into());
        }
    }

    /// The ticket of this turn: the answer to it comes behind all that has been notified up to `now`.
    pub(super) fn ticket(&mut self, now: u64) -> u64 {
        let next = self.issued + 1;
        let draft = self.draft();
        if draft.ticket == 0 {
            draft.ticket = next;
            self.issued = next;
            self.times.push_back((next, now));
        }
        self.issued
    }

    /// A client waits for a ticket of this turn.
    pub(super) fn wait(&mut self, waiting: Waiting) {
        self.waiting.push_back(waiting);
    }

    /// All that had been notified before this time has been heard.
    pub(super) fn has_heard(&self, time: u64) -> bool {
        time < self.confirmed
    }

    /// A ticket has been answered, and all before it. Returns who has waited for them.
    pub(super) fn answered(&mut self, ticket: u64) -> Vec<Waiting> {
        while let Some((_, at)) = self.times.front().copied().filter(|(issued, _)| *issued <= ticket) {
            self.confirmed = at;
            self.times.pop_front();
        }
        let count = self.waiting.iter().take_while(|waiting| waiting.ticket <= ticket).count();
        self.waiting.drain(..count).collect()
    }

    /// What this turn asks for, if anything.
    pub(super) fn take_draft(&mut self) -> Option<Command> {
        self.draft.take()
    }

    fn draft(&mut self) -> &mut Command {
        let worker = self.worker;
        self.draft.get_or_insert_with(|| Command { worker, ..Command::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drafted(asks: &mut Asks) -> (Vec<String>, Vec<String>, u64) {
        let draft = asks.take_draft().unwrap_or_default();
        let names = |names: Vec<Name>| -> Vec<String> {
            names.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect()
        };
        (names(draft.unlisten), names(draft.listen), draft.ticket)
    }

    fn nothing() -> Vec<String> {
        Vec::new()
    }

    #[test]
    fn channels_are_asked_for_once_and_given_back_by_the_last() {
        let mut asks = Asks::of(1);
        asks.want(b"a", 1);
        asks.want(b"a", 2);
        assert_eq!(drafted(&mut asks), (nothing(), vec!["a".into()], 0));
        asks.leave(b"a", 1);
        asks.leave(b"b", 1);
        assert_eq!(drafted(&mut asks), (nothing(), nothing(), 0));
        assert_eq!(asks.listeners(b"a").collect::<Vec<_>>(), [2]);
        // Whatever happens within a turn: what is given back in it comes first.
        asks.leave(b"a", 2);
        asks.want(b"a", 3);
        asks.leave(b"a", 3);
        asks.want(b"a", 3);
        asks.want(b"b", 3);
        asks.leave(b"b", 3);
        assert_eq!(drafted(&mut asks), (vec!["a".into()], vec!["a".into()], 0));
    }

    #[test]
    fn who_waits_goes_on_with_its_ticket() {
        let mut asks = Asks::of(0);
        let waiting = |ticket, slot| Waiting { ticket, slot, id: 7 };
        for (now, slot) in [(10, 1), (10, 2)] {
            let ticket = asks.ticket(now);
            asks.wait(waiting(ticket, slot));
        }
        assert_eq!(drafted(&mut asks).2, 1);
        let ticket = asks.ticket(20);
        asks.wait(waiting(ticket, 3));
        assert_eq!(drafted(&mut asks).2, 2);
        assert!(!asks.has_heard(5));
        assert_eq!(asks.answered(1), [waiting(1, 1), waiting(1, 2)]);
        // What is of the same time may have come later.
        assert!(asks.has_heard(9) && !asks.has_heard(10));
        assert_eq!(asks.answered(2), [waiting(2, 3)]);
        assert!(asks.has_heard(19) && asks.answered(2).is_empty());
    }
}
