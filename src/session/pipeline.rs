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
//! | InjectedQuery, Restore | … ReadyForQuery            | is swallowed and reported to the caller         |
//! | Question               | … ReadyForQuery            | is swallowed                                    |
//! | InjectedDiscard, -Prepare| … ReadyForQuery          | is swallowed; the caller looks at it            |
//! | InjectedFailure        | … ReadyForQuery            | is swallowed                                    |
//! | Synthetic*             | nothing                    | (never in front when a reply is read)           |
//! | CopyEnd, UnnamedChanges| nothing                    | (never in front)                                |

use std::{collections::VecDeque, sync::Arc};

use super::{
    channels::Asked,
    queries::{Meter, Meters},
    statements::Statement,
};
use crate::{
    protocol::backend as be,
    sql::channels::{Action, Channels},
};

/// Most entries that are owed at a time: bounds memory, and what looking through them costs.
const MAX_OWED: usize = 4096;

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
    /// Execute of a DEALLOCATE; has a [`Detail`].
    DeallocateExecute,
    /// Close of a portal.
    Close,
    /// Close of the unnamed statement.
    CloseUnnamed,
    Query,
    /// A Query with DEALLOCATE of a statement that was prepared by Parse; has a [`Detail`].
    DeallocateQuery,
    /// A Query with LISTEN or UNLISTEN; has an [`Asked`].
    ChannelsQuery,
    /// The same by Execute.
    ChannelsExecute,
    FunctionCall,
    Sync,
    /// A Parse that the pooler put in front of a Bind or Describe; has a [`Detail`].
    InjectedParse,
    /// The unnamed statement, parsed again on another server.
    InjectedParseUnnamed,
    /// A Close that makes room on the server, or for a new copy; has a [`Detail`].
    InjectedClose,
    /// A look at what has just been prepared; has a [`Detail`].
    InjectedDescribe,
    /// What needs no bookkeeping and is answered by one message.
    InjectedStep,
    /// Execute of a statement of the pooler's own, within a batch of the client.
    InjectedExecute,
    /// DISCARD SEQUENCES in front of a Query, DEALLOCATE.
    InjectedDiscard,
    /// PREPARE of what the client has prepared elsewhere.
    InjectedPrepare,
    /// Settings, checks and resets.
    InjectedQuery,
    /// Makes the open transaction fail: its error is what is wanted.
    InjectedFailure,
    /// What a client has left in the session; its ReadyForQuery is passed in place of the client's.
    Question,
    /// Puts back startup values after a RESET; its ReadyForQuery is passed in place of that of the RESET.
    Restore,
    /// ParseComplete that the pooler gives; has a [`Detail`].
    SyntheticParse,
    /// CloseComplete that the pooler gives; has a [`Detail`] if the name was known.
    SyntheticClose,
    /// CloseComplete for a name that was not known.
    SyntheticCloseUnknown,
    /// Marks where the client ended COPY data that it sent before it was asked; not answered by itself.
    CopyEnd,
    /// Stands in front of what changes the unnamed statement and may be skipped; has a [`Former`].
    UnnamedChanges,
}

impl Expected {
    /// Ends with ReadyForQuery.
    fn ends_ready(self) -> bool {
        matches!(
            self,
            Self::Query
                | Self::DeallocateQuery
                | Self::ChannelsQuery
                | Self::FunctionCall
                | Self::Sync
                | Self::InjectedQuery
                | Self::InjectedFailure
                | Self::InjectedDiscard
                | Self::InjectedPrepare
                | Self::Restore
                | Self::Question
        )
    }

    /// Written by the pooler: the client must not see the answer.
    fn is_injected(self) -> bool {
        matches!(
            self,
            Self::InjectedParse
                | Self::InjectedParseUnnamed
                | Self::InjectedClose
                | Self::InjectedStep
                | Self::InjectedExecute
                | Self::InjectedDiscard
                | Self::InjectedPrepare
                | Self::InjectedDescribe
                | Self::InjectedQuery
                | Self::InjectedFailure
                | Self::Restore
                | Self::Question
        )
    }

    /// Written by the pooler, and answered to its end.
    fn is_own_query(self) -> bool {
        self.is_injected() && self.ends_ready()
    }

    /// Its ReadyForQuery is the client's.
    fn stands_in(self) -> bool {
        matches!(self, Self::Restore | Self::Question)
    }

    /// What it takes is measured.
    fn is_metered(self) -> bool {
        matches!(
            self,
            Self::Query
                | Self::DeallocateQuery
                | Self::ChannelsQuery
                | Self::Execute
                | Self::DeallocateExecute
                | Self::ChannelsExecute
        )
    }

    fn has_channels(self) -> bool {
        matches!(self, Self::ChannelsQuery | Self::ChannelsExecute)
    }

    fn has_detail(self) -> bool {
        matches!(
            self,
            Self::Parse
                | Self::DuplicateParse
                | Self::DeallocateQuery
                | Self::DeallocateExecute
                | Self::InjectedParse
                | Self::InjectedClose
                | Self::InjectedDescribe
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

/// The unnamed statement before it changed.
#[derive(Debug)]
pub struct Former {
    /// The client's, if that is what changes.
    pub text: Option<Vec<u8>>,
    /// Whose the server had.
    pub owner: u64,
}

/// An entry that was not carried out, because an error made the server skip it, or a COPY eats it (Sync).
#[derive(Debug)]
pub struct Undone {
    pub expected: Expected,
    pub detail: Option<Detail>,
    pub former: Option<Former>,
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
    formers: VecDeque<Former>,
    channels: VecDeque<Asked>,
    meters: Meters,
    /// Of the one that was answered last.
    answered: Option<Meter>,
    /// The server ignores everything until a Sync that has not been sent yet.
    skipping: bool,
    /// Extended-query messages were sent that no Sync (or Query) has ended yet: their transaction is open, although
    /// everything may have been answered (Flush).
    open: bool,
    /// The server reads COPY data and ignores Flush and Sync until the client ends it.
    copy_in: bool,
    /// The COPY eats Syncs, if it comes to reading them.
    eats_syncs: bool,
    /// Such a COPY has failed, perhaps before it read anything (triggers): each of the Syncs may have its ReadyForQuery, or
    /// not.
    uncertain: bool,
    /// A DEALLOCATE ALL or DISCARD ALL may be among what is owed.
    forgetting: bool,
    /// A duplicate Parse that the server has taken.
    accepted_duplicate: Option<Detail>,
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

    /// Batches of the client that are owed, each with its ReadyForQuery.
    pub fn batches(&self) -> usize {
        self.queue.iter().filter(|e| e.ends_ready() && (!e.is_injected() || e.stands_in())).count()
    }

    /// The server ignores what comes before the next Sync: nothing may be injected or noted.
    pub fn skipping(&self) -> bool {
        self.skipping
    }

    /// The server reads COPY data.
    pub fn copy_in(&self) -> bool {
        self.copy_in
    }

    /// Nobody knows how many ReadyForQuery are to come: who gets the server next could take one for its own.
    pub fn is_uncertain(&self) -> bool {
        self.uncertain
    }

    /// The server has been told nothing that only a Sync will end.
    pub fn is_closed(&self) -> bool {
        !self.open && !self.skipping
    }

    /// The server is sure to answer the last message as soon as it has carried it out.
    pub fn ends_ready(&self) -> bool {
        let ready = |e: &Expected| matches!(e, Expected::Query | Expected::FunctionCall | Expected::Sync);
        self.queue.back().is_some_and(ready)
    }

    /// The server carries out a query of the pooler's own: a cancel request must not hit it. (A statement that the pooler
    /// prepares for the client is part of what the client wants cancelled: it may wait for a lock.)
    pub fn front_is_own_query(&self) -> bool {
        self.queue.front().is_some_and(|front| front.is_own_query())
    }

    /// The server carries out what the pooler has put in front of a client's own words.
    pub fn front_is_injected(&self) -> bool {
        self.queue.front().is_some_and(|front| front.is_injected())
    }

    /// The server carries out settings, a check or a reset of the pooler's own.
    pub fn front_is_set_up(&self) -> bool {
        self.queue.front() == Some(&Expected::InjectedQuery)
    }

    /// What of the session is put in order by the statement that the next reply belongs to, if its error matters.
    pub fn front_in_order(&self) -> Option<Expected> {
        self.queue
            .front()
            .copied()
            .filter(|e| matches!(e, Expected::InjectedDiscard | Expected::InjectedPrepare))
    }

    /// Of what kind the next request is.
    pub(super) fn meter(&mut self, meter: Meter) {
        self.meters.note_next(meter);
    }

    /// The request that the last reply has ended, if it was the end of one.
    pub(super) fn take_answered(&mut self) -> Option<Meter> {
        self.answered.take()
    }

    /// Something of the client's is being carried out.
    pub fn executes(&self) -> bool {
        self.queue.iter().any(|e| matches!(e, Expected::Query | Expected::Execute | Expected::FunctionCall))
    }

    /// Numbers of sequences are to be forgotten, or statements, and it is not known yet that they are.
    pub fn owes_discard(&self) -> bool {
        self.queue.iter().any(|e| matches!(e, Expected::InjectedDiscard | Expected::InjectedExecute))
    }

    /// The next reply tells what a client has left in the session.
    pub fn front_is_question(&self) -> bool {
        self.queue.front() == Some(&Expected::Question)
    }

    /// The Parse that was just taken although the client had the name in use.
    pub fn take_accepted_duplicate(&mut self) -> Option<Detail> {
        self.accepted_duplicate.take()
    }

    /// The client's name in the duplicate Parse that the next reply belongs to.
    pub fn duplicate_name(&self) -> Option<&[u8]> {
        let front = self.queue.front() == Some(&Expected::DuplicateParse);
        self.details.front().filter(|_| front).map(|detail| &*detail.name)
    }

    /// The statement that the next reply is about.
    pub fn front_statement(&self) -> Option<&Detail> {
        self.details.front().filter(|_| self.queue.front().is_some_and(|e| e.has_detail()))
    }

    /// What the next reply belongs to is a DEALLOCATE of this statement, by that name of the client's.
    pub fn deallocated(&self) -> Option<&Detail> {
        let front =
            matches!(self.queue.front(), Some(Expected::DeallocateQuery | Expected::DeallocateExecute));
        self.details.front().filter(|_| front)
    }

    /// Notes that the unnamed statement is about to change, by the message that is noted next. Nothing of it is needed if
    /// no error of an earlier message can make the server skip that one.
    pub fn unnamed_changes(&mut self, former: impl FnOnce() -> Former) {
        if self.queue.back().is_some_and(|e| !e.ends_ready()) {
            self.queue.push_back(Expected::UnnamedChanges);
            self.formers.push_back(former());
        }
    }

    /// The next of the changes of the unnamed statement that are still to come, if it is known what was before.
    pub fn next_unnamed_change(&mut self) -> Option<Option<&mut Former>> {
        let changes = |e: &&Expected| {
            matches!(
                e,
                Expected::UnnamedChanges
                    | Expected::ParseUnnamed
                    | Expected::InjectedParseUnnamed
                    | Expected::CloseUnnamed
                    | Expected::Query
                    | Expected::DeallocateQuery
                    | Expected::ChannelsQuery
            )
        };
        let next = self.queue.iter().find(changes)?;
        let known = *next == Expected::UnnamedChanges;
        Some(self.formers.front_mut().filter(|_| known))
    }

    /// An earlier batch decides whether the server has this client's unnamed statement.
    pub fn unnamed_is_uncertain(&self, client: u64) -> bool {
        if self.formers.is_empty() {
            return false;
        }
        let earlier = self.queue.iter().rposition(|e| e.ends_ready()).unwrap_or(0);
        let changes = self.queue.iter().take(earlier).filter(|e| **e == Expected::UnnamedChanges).count();
        self.formers.iter().take(changes).any(|former| former.owner != client)
    }

    /// The statement that the next reply describes, if the pooler asked for that; with a name if the client prepares it.
    pub fn described(&self) -> Option<&Detail> {
        let asked = self.queue.front() == Some(&Expected::InjectedDescribe);
        self.details.front().filter(|_| asked)
    }

    /// The pooler has asked what a statement means, and has not been told.
    pub fn describes(&self, statement: &Statement) -> bool {
        let mut details = self.details.iter();
        let mut about = |e: &Expected| {
            e.has_detail() && details.next().is_some_and(|detail| detail.statement.id == statement.id)
        };
        self.queue.iter().any(|e| about(e) && *e == Expected::InjectedDescribe)
    }

    /// The Query that is noted next may make the server forget all statements.
    pub fn expect_forgetting(&mut self) {
        self.forgetting = true;
    }

    /// So much is owed that nothing more should be sent before some of it has been answered.
    pub fn is_full(&self) -> bool {
        self.queue.len() >= MAX_OWED
    }

    /// An earlier batch has not been answered to its end.
    pub fn owes_ready(&self) -> bool {
        self.queue.iter().any(|expected| expected.ends_ready())
    }

    /// The fate of some statement depends on replies that are still to come.
    pub fn decides_on_statements(&self) -> bool {
        self.forgetting || !self.details.is_empty()
    }

    /// An earlier batch decides on a statement that `concerns` the next message. Its replies will come by themselves: wait
    /// for them.
    pub fn must_wait(&self, concerns: impl Fn(&Detail) -> bool) -> bool {
        let mut details = self.details.iter();
        let mut about = self.forgetting;
        for &expected in &self.queue {
            about |= expected.has_detail() && details.next().is_some_and(&concerns);
            if about && expected.ends_ready() {
                return true;
            }
        }
        false
    }

    /// Notes a message that was sent. Returns false if the server will ignore it.
    pub fn push(&mut self, expected: Expected) -> bool {
        debug_assert!(!expected.has_detail() && !expected.has_channels());
        debug_assert!(expected != Expected::UnnamedChanges);
        self.push_any(expected)
    }

    /// Notes a message with LISTEN or UNLISTEN. Returns false if the server will ignore it.
    pub fn push_channels(&mut self, expected: Expected, channels: &Arc<Channels>) -> bool {
        debug_assert!(expected.has_channels());
        let noted = self.push_any(expected);
        self.channels.extend(noted.then(|| Asked::new(Arc::clone(channels))));
        noted
    }

    /// What has been carried out, if the next reply belongs to a message with LISTEN or UNLISTEN.
    pub fn next_action(&mut self) -> Option<Action> {
        let front = self.queue.front().is_some_and(|front| front.has_channels());
        self.channels.front_mut().filter(|_| front)?.next_action()
    }

    fn push_any(&mut self, expected: Expected) -> bool {
        if self.copy_in {
            match expected {
                Expected::CopyEnd => {
                    self.copy_in = false;
                    return true;
                }
                // CopyGetData ignores them (copyfromparse.c).
                Expected::Sync => {
                    self.eats_syncs = true;
                    return false;
                }
                _ => {}
            }
        }
        if expected == Expected::CopyEnd && self.queue.is_empty() {
            // Of a COPY that has failed.
            return false;
        }
        if self.skipping {
            if expected != Expected::Sync {
                return false;
            }
            self.skipping = false;
        }
        match expected {
            // What the client sends up to Sync behind a failure does not get to the server.
            Expected::Query
            | Expected::ChannelsQuery
            | Expected::FunctionCall
            | Expected::Sync
            | Expected::InjectedFailure => {
                self.open = false;
            }
            Expected::InjectedQuery
            | Expected::InjectedDiscard
            | Expected::InjectedPrepare
            | Expected::Restore
            | Expected::Question
            | Expected::CopyEnd => {}
            _ => self.open = true,
        }
        self.append(expected);
        true
    }

    fn append(&mut self, expected: Expected) {
        self.queue.push_back(expected);
        if expected.is_metered() {
            self.meters.push();
        }
    }

    /// Notes a message about a statement. Not to be called while [`Self::skipping`].
    pub fn push_statement(&mut self, expected: Expected, name: &[u8], statement: &Arc<Statement>) {
        debug_assert!(expected.has_detail() && !self.skipping);
        self.open = !expected.ends_ready();
        self.append(expected);
        self.details.push_back(Detail { name: name.into(), statement: Arc::clone(statement) });
    }

    /// The next answer that the pooler has to give before the next reply of the server.
    pub fn next_synthetic(&mut self) -> Option<Synthetic> {
        let synthetic = match self.queue.front()? {
            Expected::SyntheticParse => Synthetic::ParseComplete,
            Expected::SyntheticClose | Expected::SyntheticCloseUnknown => Synthetic::CloseComplete,
            _ => return None,
        };
        self.pop_answered();
        Some(synthetic)
    }

    fn pop(&mut self) -> Option<Undone> {
        Some(self.pop_metered()?.0)
    }

    /// The next one, and what it is measured by if it could be.
    fn pop_metered(&mut self) -> Option<(Undone, Option<Meter>)> {
        let expected = self.queue.pop_front()?;
        // The COPY that it belongs to is over: nothing is owed for it.
        while self.queue.front() == Some(&Expected::CopyEnd) {
            self.queue.pop_front();
        }
        let detail = if expected.has_detail() { self.details.pop_front() } else { None };
        if expected.has_channels() {
            self.channels.pop_front();
        }
        let meter = expected.is_metered().then(|| self.meters.pop());
        let changes = expected == Expected::UnnamedChanges;
        let former = if changes { self.formers.pop_front() } else { None };
        self.forgetting &= !self.queue.is_empty();
        Some((Undone { expected, detail, former }, meter))
    }

    /// Takes out what has been answered: what comes next cannot be skipped any more.
    fn pop_answered(&mut self) {
        self.answered = self.pop_metered().and_then(|(_, meter)| meter);
        while self.queue.front() == Some(&Expected::UnnamedChanges) {
            self.pop();
        }
    }

    fn pop_as(&mut self, verdict: Verdict) -> Verdict {
        self.pop_answered();
        verdict
    }

    /// A reply with this tag goes to the client, and changes nothing here.
    pub fn shows(&self, tag: u8) -> bool {
        match self.queue.front() {
            Some(Expected::Query) => matches!(tag, be::DATA_ROW | be::COPY_DATA | be::ROW_DESCRIPTION),
            Some(Expected::Execute) => matches!(tag, be::DATA_ROW | be::COPY_DATA),
            _ => false,
        }
    }

    /// Takes one reply of the server. Call [`Self::next_synthetic`] until `None` first. What the server skips is appended to
    /// `undone`, latest first.
    pub fn on_reply(&mut self, tag: u8, undone: &mut Vec<Undone>) -> Verdict {
        use Expected as E;
        let Some(&front) = self.queue.front() else {
            return match tag {
                be::NOTICE_RESPONSE
                | be::NOTIFICATION_RESPONSE
                | be::PARAMETER_STATUS
                | be::ERROR_RESPONSE => Verdict::Forward,
                be::READY_FOR_QUERY if self.uncertain => {
                    self.skipping = false;
                    self.open = false;
                    Verdict::Forward
                }
                _ => Verdict::Unexpected,
            };
        };
        let shown = if front.is_injected() { Verdict::Swallow } else { Verdict::Forward };
        match (tag, front) {
            (be::DATA_ROW | be::COPY_DATA | be::COPY_DONE | be::COPY_OUT_RESPONSE, _) => shown,
            (be::NOTICE_RESPONSE | be::PARAMETER_STATUS, _) => shown,
            (be::NOTIFICATION_RESPONSE, _) => Verdict::Forward,
            (be::PARSE_COMPLETE, E::Parse | E::ParseUnnamed) => self.pop_as(Verdict::Forward),
            (be::PARSE_COMPLETE, E::DuplicateParse) => {
                self.accepted_duplicate = self.details.front().cloned();
                self.pop_as(Verdict::Forward)
            }
            (be::PARSE_COMPLETE, E::InjectedParse | E::InjectedParseUnnamed) => self.pop_as(Verdict::Swallow),
            (be::BIND_COMPLETE, E::Bind) => self.pop_as(Verdict::Forward),
            (be::CLOSE_COMPLETE, E::Close | E::CloseUnnamed) => self.pop_as(Verdict::Forward),
            (be::CLOSE_COMPLETE, E::InjectedClose) => self.pop_as(Verdict::Swallow),
            (be::PARSE_COMPLETE | be::BIND_COMPLETE | be::CLOSE_COMPLETE, E::InjectedStep) => {
                self.pop_as(Verdict::Swallow)
            }
            (be::COMMAND_COMPLETE, E::InjectedExecute) => self.pop_as(Verdict::Swallow),
            (be::ROW_DESCRIPTION | be::NO_DATA, E::Describe) => self.pop_as(Verdict::Forward),
            (be::ROW_DESCRIPTION | be::NO_DATA, E::InjectedDescribe) => self.pop_as(Verdict::Swallow),
            (be::PARAMETER_DESCRIPTION, E::InjectedDescribe) => Verdict::Swallow,
            (
                be::ROW_DESCRIPTION,
                E::Query | E::ChannelsQuery | E::InjectedQuery | E::Restore | E::Question,
            ) => shown,
            (be::PARAMETER_DESCRIPTION, E::Describe) => Verdict::Forward,
            (
                be::COMMAND_COMPLETE | be::EMPTY_QUERY_RESPONSE | be::PORTAL_SUSPENDED,
                E::Execute | E::DeallocateExecute | E::ChannelsExecute,
            ) => {
                self.end_copy_in();
                self.pop_as(Verdict::Forward)
            }
            (
                be::COMMAND_COMPLETE | be::EMPTY_QUERY_RESPONSE,
                E::Query
                | E::DeallocateQuery
                | E::ChannelsQuery
                | E::InjectedQuery
                | E::InjectedFailure
                | E::InjectedDiscard
                | E::InjectedPrepare
                | E::Restore
                | E::Question,
            ) => {
                self.end_copy_in();
                shown
            }
            (be::FUNCTION_CALL_RESPONSE, E::FunctionCall) => shown,
            (be::COPY_IN_RESPONSE | be::COPY_BOTH_RESPONSE, E::Query | E::ChannelsQuery | E::Execute) => {
                self.begin_copy_in(front, undone);
                Verdict::Forward
            }
            (be::READY_FOR_QUERY, _) if front.ends_ready() => {
                self.end_copy_in();
                self.pop_as(if front.stands_in() { Verdict::Forward } else { shown })
            }
            (be::ERROR_RESPONSE, _) => self.on_error(front, undone),
            _ => Verdict::Unexpected,
        }
    }

    /// The server reads COPY data from here on: it eats the Syncs that were sent before the data ends.
    fn begin_copy_in(&mut self, front: Expected, undone: &mut Vec<Undone>) {
        let end = self.queue.iter().position(|&e| e == Expected::CopyEnd);
        let until = end.unwrap_or(self.queue.len());
        let before = undone.len();
        let mut index = 0;
        self.queue.retain(|&expected| {
            index += 1;
            let eaten = index <= until && expected == Expected::Sync;
            undone.extend(eaten.then_some(Undone { expected, detail: None, former: None }));
            !eaten
        });
        self.eats_syncs = undone.len() > before;
        if front == Expected::Execute {
            self.open = !self.queue.contains(&Expected::Sync);
        }
        self.copy_in = end.is_none();
        // A Query can hold another COPY, whose data ends elsewhere.
        if let Some(end) = self.queue.iter().position(|&e| e == Expected::CopyEnd) {
            self.queue.remove(end);
        }
    }

    fn end_copy_in(&mut self) {
        self.copy_in = false;
        self.eats_syncs = false;
    }

    fn on_error(&mut self, front: Expected, undone: &mut Vec<Undone>) -> Verdict {
        self.uncertain |= self.eats_syncs;
        self.end_copy_in();
        match front {
            Expected::Query
            | Expected::DeallocateQuery
            | Expected::ChannelsQuery
            | Expected::FunctionCall
            | Expected::Sync => {
                return Verdict::Forward;
            }
            Expected::InjectedQuery | Expected::Restore => return Verdict::InjectedFailed,
            Expected::InjectedFailure
            | Expected::InjectedDiscard
            | Expected::InjectedPrepare
            | Expected::Question => return Verdict::Swallow,
            _ => {}
        }
        let first = undone.len();
        self.skipping = true;
        // The error is that of what it keeps from being executed first.
        let executed = self.queue.iter().take_while(|e| **e != Expected::Sync).any(|e| e.is_metered());
        self.answered = executed.then(|| self.meters.first());
        while let Some(&next) = self.queue.front() {
            if next == Expected::Sync {
                self.skipping = false;
                break;
            }
            let Some(entry) = self.pop() else { break };
            undone.push(entry);
        }
        // Latest first, so that taking back restores the state from before the earliest.
        if let Some(fresh) = undone.get_mut(first..) {
            fresh.reverse();
        }
        Verdict::Forward
    }
}
