//! The reply queue of one server connection: what the server still owes, and what to do with each reply.
//!
//! Every message that is sent to the server and will be answered leaves an [`Expected`]; each reply pops or
//! keeps the front. Messages that the pooler slipped in are swallowed, answers that the pooler gives itself
//! are put in their place. Source: PostgreSQL docs, "Message Flow"; postgres.c for what an error skips.
//!
//! | front                  | answered by                | an ErrorResponse                                |
//! |------------------------|----------------------------|-------------------------------------------------|
//! | Query, FunctionCall    | … ReadyForQuery            | is part of the reply                            |
//! | Sync                   | ReadyForQuery              | is part of the reply (a commit that fails)      |
//! | Parse, Bind, …         | one message (Describe: 1–2)| drops everything up to the next Sync            |
//! | Execute                | … CommandComplete, I, s    | drops everything up to the next Sync            |
//! | InjectedQuery          | … ReadyForQuery            | is swallowed and reported to the caller         |
//! | Synthetic*, CopyEnd    | nothing                    | (never in front when a reply is read)           |

use std::{collections::VecDeque, sync::Arc};

use super::statements::Statement;
use crate::protocol::backend as be;

/// One reply (or run of replies) that is owed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Parse of a named statement that went to the server; has a [`Detail`].
    Parse,
    /// Parse of a name that the client has in use: the server is made to refuse it. Has a [`Detail`].
    DuplicateParse,
    /// Parse of the unnamed statement.
    ParseUnnamed,
    Bind,
    /// Describe of a statement (ParameterDescription first) or of a portal.
    Describe,
    Execute,
    /// Close of a portal.
    Close,
    Query,
    FunctionCall,
    Sync,
    /// A Parse that the pooler put in front of a Bind or Describe; has a [`Detail`].
    InjectedParse,
    /// The unnamed statement, parsed again on another server.
    InjectedParseUnnamed,
    /// A Close that makes room on the server; has a [`Detail`].
    InjectedClose,
    /// A Close whose statement needs no bookkeeping.
    InjectedCloseQuiet,
    /// Settings, checks and resets.
    InjectedQuery,
    /// ParseComplete that the pooler gives; has a [`Detail`].
    SyntheticParse,
    /// CloseComplete that the pooler gives; has a [`Detail`] if the name was known.
    SyntheticClose,
    /// CloseComplete for a name that was not known.
    SyntheticCloseUnknown,
    /// Marks where the client ended its COPY data; not answered by itself.
    CopyEnd,
}

impl Expected {
    /// Ends with ReadyForQuery.
    fn ends_ready(self) -> bool {
        matches!(self, Self::Query | Self::FunctionCall | Self::Sync | Self::InjectedQuery)
    }

    /// Written by the pooler: the client must not see the answer.
    fn is_injected(self) -> bool {
        matches!(
            self,
            Self::InjectedParse
                | Self::InjectedParseUnnamed
                | Self::InjectedClose
                | Self::InjectedCloseQuiet
                | Self::InjectedQuery
        )
    }

    fn has_detail(self) -> bool {
        matches!(
            self,
            Self::Parse
                | Self::DuplicateParse
                | Self::InjectedParse
                | Self::InjectedClose
                | Self::SyntheticParse
                | Self::SyntheticClose
        )
    }
}

/// The statement that an entry is about: needed to take back what was noted when it was sent.
#[derive(Clone, Debug)]
pub struct Detail {
    /// The client's name for it.
    pub name: Box<[u8]>,
    pub statement: Arc<Statement>,
}

/// An entry that was not carried out, because an error made the server skip it.
#[derive(Debug)]
pub struct Undone {
    pub expected: Expected,
    pub detail: Option<Detail>,
}

/// What to do with a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The client gets it.
    Forward,
    /// The client must not see it.
    Swallow,
    /// Nobody asked for it: forward, but do not use the server again.
    Unexpected,
    /// Swallow: a query of the pooler's own failed.
    InjectedFailed,
    /// Forward with the client's statement name in it: the refusal of a duplicate Parse.
    RenameDuplicate,
}

/// An answer that the pooler gives in the server's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Synthetic {
    ParseComplete,
    CloseComplete,
}

/// The queue. See the module's table.
#[derive(Debug, Default)]
pub struct Pipeline {
    queue: VecDeque<Expected>,
    details: VecDeque<Detail>,
    /// The server ignores everything until a Sync that has not been sent yet.
    skipping: bool,
    /// Extended-query messages were sent that no Sync (or Query) has ended yet: their transaction is open, although
    /// everything may have been answered (Flush).
    open: bool,
    /// The server reads COPY data and ignores Flush and Sync until the client ends it.
    copy_in: bool,
    /// A DEALLOCATE ALL or DISCARD ALL may be among what is owed.
    forgetting: bool,
    /// The client's name in the duplicate Parse that is being refused.
    refused_name: Option<Box<[u8]>>,
}

impl Pipeline {
    /// Nothing is owed.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Entries that are owed.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// The server ignores what comes before the next Sync: nothing may be injected or noted.
    pub fn skipping(&self) -> bool {
        self.skipping
    }

    /// The server reads COPY data.
    pub fn copy_in(&self) -> bool {
        self.copy_in
    }

    /// The server has been told nothing that only a Sync will end.
    pub fn is_closed(&self) -> bool {
        !self.open && !self.skipping
    }

    /// The reply that comes next belongs to something that the pooler sent by itself.
    pub fn front_is_injected(&self) -> bool {
        self.queue.front().is_some_and(|e| e.is_injected())
    }

    /// The Query that is noted next may make the server forget all statements.
    pub fn expect_forgetting(&mut self) {
        self.forgetting = true;
    }

    /// What the name stands for depends on replies of an earlier batch, which will come by themselves: wait for them.
    pub fn must_wait_for(&self, name: &[u8]) -> bool {
        if self.queue.is_empty() {
            return false;
        }
        let mut details = self.details.iter();
        let mut about = self.forgetting;
        for &expected in &self.queue {
            if about && expected.ends_ready() {
                return true;
            }
            about |= expected.has_detail() && details.next().is_some_and(|d| *d.name == *name);
        }
        false
    }

    /// Whether an entry that is still owed is about the client's statement `name`.
    pub fn mentions(&self, name: &[u8]) -> bool {
        self.details.iter().any(|d| *d.name == *name)
    }

    /// Notes a message that was sent. Returns false if the server will ignore it.
    pub fn push(&mut self, expected: Expected) -> bool {
        debug_assert!(!expected.has_detail());
        if self.copy_in {
            match expected {
                Expected::CopyEnd => self.copy_in = false,
                // CopyGetData ignores them (copyfromparse.c).
                Expected::Sync => return false,
                _ => {}
            }
        }
        if self.skipping {
            if expected != Expected::Sync {
                return false;
            }
            self.skipping = false;
        }
        match expected {
            Expected::Query | Expected::FunctionCall | Expected::Sync => self.open = false,
            Expected::InjectedQuery | Expected::CopyEnd => {}
            _ => self.open = true,
        }
        self.queue.push_back(expected);
        true
    }

    /// Notes a message about a statement. Not to be called while [`Self::skipping`].
    pub fn push_statement(&mut self, expected: Expected, name: &[u8], statement: &Arc<Statement>) {
        debug_assert!(expected.has_detail() && !self.skipping);
        self.open = true;
        self.queue.push_back(expected);
        self.details.push_back(Detail { name: name.into(), statement: Arc::clone(statement) });
    }

    /// The next answer that the pooler has to give before the next reply of the server.
    pub fn next_synthetic(&mut self) -> Option<Synthetic> {
        loop {
            let synthetic = match self.queue.front()? {
                Expected::SyntheticParse => Some(Synthetic::ParseComplete),
                Expected::SyntheticClose | Expected::SyntheticCloseUnknown => Some(Synthetic::CloseComplete),
                Expected::CopyEnd => None,
                _ => return None,
            };
            self.pop();
            if synthetic.is_some() {
                return synthetic;
            }
        }
    }

    fn pop(&mut self) -> Option<(Expected, Option<Detail>)> {
        let expected = self.queue.pop_front()?;
        let detail = if expected.has_detail() { self.details.pop_front() } else { None };
        self.forgetting &= !self.queue.is_empty();
        Some((expected, detail))
    }

    fn pop_as(&mut self, verdict: Verdict) -> Verdict {
        self.pop();
        verdict
    }

    /// Takes one reply of the server. Call [`Self::next_synthetic`] until `None` first. What an error made the
    /// server skip is appended to `undone`, latest first.
    pub fn on_reply(&mut self, tag: u8, undone: &mut Vec<Undone>) -> Verdict {
        use Expected as E;
        let Some(&front) = self.queue.front() else {
            return match tag {
                be::NOTICE_RESPONSE
                | be::NOTIFICATION_RESPONSE
                | be::PARAMETER_STATUS
                | be::ERROR_RESPONSE => Verdict::Forward,
                _ => Verdict::Unexpected,
            };
        };
        let shown = if front.is_injected() { Verdict::Swallow } else { Verdict::Forward };
        match (tag, front) {
            (be::DATA_ROW | be::COPY_DATA | be::COPY_DONE | be::COPY_OUT_RESPONSE, _) => shown,
            (be::NOTICE_RESPONSE | be::PARAMETER_STATUS, _) => shown,
            (be::NOTIFICATION_RESPONSE, _) => Verdict::Forward,
            (be::PARSE_COMPLETE, E::Parse | E::ParseUnnamed | E::DuplicateParse) => {
                self.pop_as(Verdict::Forward)
            }
            (be::PARSE_COMPLETE, E::InjectedParse | E::InjectedParseUnnamed) => self.pop_as(Verdict::Swallow),
            (be::BIND_COMPLETE, E::Bind) => self.pop_as(Verdict::Forward),
            (be::CLOSE_COMPLETE, E::Close) => self.pop_as(Verdict::Forward),
            (be::CLOSE_COMPLETE, E::InjectedClose | E::InjectedCloseQuiet) => self.pop_as(Verdict::Swallow),
            (be::ROW_DESCRIPTION | be::NO_DATA, E::Describe) => self.pop_as(Verdict::Forward),
            (be::ROW_DESCRIPTION, E::Query | E::InjectedQuery) => shown,
            (be::PARAMETER_DESCRIPTION, E::Describe) => Verdict::Forward,
            (be::COMMAND_COMPLETE | be::EMPTY_QUERY_RESPONSE | be::PORTAL_SUSPENDED, E::Execute) => {
                self.copy_in = false;
                self.pop_as(Verdict::Forward)
            }
            (be::COMMAND_COMPLETE | be::EMPTY_QUERY_RESPONSE, E::Query | E::InjectedQuery) => {
                self.copy_in = false;
                shown
            }
            (be::FUNCTION_CALL_RESPONSE, E::FunctionCall) => shown,
            (be::COPY_IN_RESPONSE | be::COPY_BOTH_RESPONSE, E::Query | E::Execute) => {
                self.begin_copy_in(front);
                Verdict::Forward
            }
            (be::READY_FOR_QUERY, _) if front.ends_ready() => {
                self.copy_in = false;
                self.pop_as(shown)
            }
            (be::ERROR_RESPONSE, _) => self.on_error(front, undone),
            _ => Verdict::Unexpected,
        }
    }

    /// The server reads COPY data from here on: it eats the Syncs that were sent before the data ends.
    fn begin_copy_in(&mut self, front: Expected) {
        self.copy_in = true;
        let end = self.queue.iter().position(|&e| e == Expected::CopyEnd);
        if front == Expected::Execute {
            let until = end.unwrap_or(self.queue.len());
            let mut index = 0;
            self.queue.retain(|&e| {
                index += 1;
                index > until || e != Expected::Sync
            });
            self.open = !self.queue.contains(&Expected::Sync);
        }
        if end.is_some() {
            self.copy_in = false;
        }
    }

    fn on_error(&mut self, front: Expected, undone: &mut Vec<Undone>) -> Verdict {
        self.copy_in = false;
        match front {
            Expected::Query | Expected::FunctionCall | Expected::Sync => return Verdict::Forward,
            Expected::InjectedQuery => return Verdict::InjectedFailed,
            _ => {}
        }
        let first = undone.len();
        let mut verdict = Verdict::Forward;
        self.skipping = true;
        while let Some(&next) = self.queue.front() {
            if next == Expected::Sync {
                self.skipping = false;
                break;
            }
            let Some((expected, detail)) = self.pop() else { break };
            if expected == Expected::DuplicateParse && undone.len() == first {
                self.refused_name = detail.as_ref().map(|d| d.name.clone());
                verdict = Verdict::RenameDuplicate;
            }
            undone.push(Undone { expected, detail });
        }
        // Latest first, so that taking back restores the state from before the earliest.
        if let Some(fresh) = undone.get_mut(first..) {
            fresh.reverse();
        }
        verdict
    }

    /// The client's name in the Parse that was just refused as a duplicate.
    pub fn take_refused_name(&mut self) -> Option<Box<[u8]>> {
        self.refused_name.take()
    }
}
