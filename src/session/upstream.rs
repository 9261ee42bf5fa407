//! From the client to the server: which bytes pass, which are rewritten, what goes in front.
//!
//! Works on whole messages up to [`STREAM_OVER`] bytes; longer ones pass as they come, but for Parse, which has
//! to be read as a whole to be recognised.

use std::{borrow::Cow, num::NonZeroUsize, sync::Arc};

use super::{
    effects::Effect,
    hidden::Hidden,
    outgoing::Outgoing,
    pipeline::{Detail, Expected, Former},
    queries::Queries,
    state::{ClientSession, Counts, NOBODY, ServerSession, Shared},
    statements::{self, Copy, Statement},
    text::{TextEffect, deallocate_target, effect_of},
};
use crate::{
    protocol::{
        TransactionStatus, encode,
        frame::{HEADER, Header, split_cstr},
        frontend as fe,
    },
    sql::{self, channels::Channels},
};

/// Messages up to this size (header included) are not sent before they are complete, so that a client that dies in the
/// middle of one costs nothing.
pub const STREAM_OVER: usize = 16 << 10;

/// Messages of a few bytes may need long ones in front (Parse): no more is put together at once than this and one
/// message.
const MAX_STAGED: usize = 1 << 20;

/// Makes a server say that pooler does not answer this: text and number of types, as in Parse. Not by an error of syntax, so
/// that it comes where the answer would have come.
const REFUSAL: &[u8] = b"DO $pooler$ BEGIN RAISE EXCEPTION \
    'settings of pooler itself cannot be set or shown behind statements that no Sync has ended' \
    USING ERRCODE = '0A000', HINT = 'Send Sync first, and the statement alone.'; END $pooler$\0\0\0";

/// In front of a statement's name on servers: a name that no server knows, for a client to which the statement means something
/// else than to the server.
pub(super) const CHANGED: &[u8] = b"changed ";

/// Why reading stopped.
#[derive(Debug, PartialEq, Eq)]
pub enum Stop {
    /// The input is used up, or ends inside a message.
    NeedMore,
    /// What comes next depends on replies that are still to come: go on when the server has said more.
    Held,
    /// Enough for one write: go on when the server has taken it.
    Full,
    /// The next message changes what pooler listens to, which has to be heard first: see [`Upstream::lacks`].
    Channels,
    /// Terminate.
    Terminate,
    /// The client broke the protocol; message as PostgreSQL would put it.
    Broken(String),
}

/// What clients are told that send a Query where none is served, as by PgBouncer.
pub const NO_SIMPLE_QUERIES: &str = "PQexec disallowed";

/// What a client's name stands for on servers.
enum Reached {
    Statement(Arc<Statement>),
    /// A name that is sure not to exist.
    Nothing(Vec<u8>),
}

impl Reached {
    fn server_name(&self) -> &[u8] {
        match self {
            Self::Statement(statement) => &statement.server_name,
            Self::Nothing(name) => name,
        }
    }
}

/// One pass over the client's bytes.
#[derive(Debug)]
pub struct Upstream<'a> {
    pub client: &'a mut ClientSession,
    pub server: &'a mut ServerSession,
    pub shared: &'a Shared,
    /// max_prepared_statements; `None`: names pass through untouched.
    pub max_statements: Option<NonZeroUsize>,
    /// Longest Parse of a named statement.
    pub max_packet_size: usize,
    /// Microseconds of the process clock.
    pub now: u64,
    pub counts: Counts,
    /// Flush was seen: answers that the pooler gives itself are due at once.
    pub flush: bool,
    pub hidden: Option<Hidden<'a>>,
    /// LISTEN is pooler's part, where that is possible.
    pub listens: bool,
    /// All that had been notified before this was sent has been heard.
    pub heard: bool,
    /// What pooler has to listen to, up to now, before more can be sent.
    pub lacks: Option<Arc<Channels>>,
    /// Queries of the simple protocol are served.
    pub simple: bool,
    /// Statements about pooler itself may be among it: the server must not take them for settings that somebody has made up.
    pub refuses: bool,
    /// What kinds of statements there are; `None`: nobody wants to know.
    pub queries: Option<&'a mut Queries>,
    /// Number of the server's pool there.
    pub pool: usize,
}

impl Upstream<'_> {
    /// Translates as many messages of `input` as are there. Returns how many bytes were used, and why it stopped.
    pub fn translate(&mut self, input: &[u8], out: &mut Outgoing<'_>) -> (usize, Stop) {
        let mut pos = 0;
        loop {
            let rest = input.get(pos..).unwrap_or_default();
            if self.client.passing > 0 {
                let n = self.client.passing.min(rest.len());
                out.pass(pos, pos + n);
                self.client.passing -= n;
                pos += n;
                if self.client.passing > 0 {
                    return (pos, Stop::NeedMore);
                }
                continue;
            }
            let Some(header) = Header::peek(rest) else { return (pos, Stop::NeedMore) };
            if let Err(stop) = check(header) {
                return (pos, stop);
            }
            if header.tag == fe::QUERY && !self.simple {
                return (pos, Stop::Broken(NO_SIMPLE_QUERIES.to_owned()));
            }
            let total = header.total();
            let message = rest.get(..total).unwrap_or(rest);
            let complete = message.len() == total;
            // However it comes, in one piece or in many.
            if header.tag == fe::PARSE && total > self.max_packet_size {
                let message = format!("Parse message of {total} bytes exceeds max_packet_size");
                return (pos, Stop::Broken(message));
            }
            if !complete && (total <= STREAM_OVER || rest.len() < STREAM_OVER.min(total)) {
                return (pos, Stop::NeedMore);
            }
            if !complete && header.tag == fe::PARSE {
                return (pos, Stop::NeedMore);
            }
            if out.staged() > MAX_STAGED {
                return (pos, Stop::Full);
            }
            if self.is_held(header.tag, message)
                || header.tag == fe::BIND && self.must_look_first(message, out)
            {
                // So that what is waited for does come, whatever else is owed.
                encode::message(out.inject(), fe::FLUSH, |_| {});
                self.flush = true;
                return (pos, Stop::Held);
            }
            self.message(header.tag, message, pos, out);
            if self.lacks.is_some() {
                return (pos, Stop::Channels);
            }
            self.client.passing = total - message.len();
            pos += message.len();
        }
    }

    /// Has to wait for replies: what it means depends on them, or too much is owed already.
    fn is_held(&self, tag: u8, message: &[u8]) -> bool {
        let pipeline = &self.server.pipeline;
        if pipeline.is_empty()
            || pipeline.skipping()
            || pipeline.copy_in()
            || is_copy(tag)
            || tag == fe::FLUSH
        {
            return false;
        }
        // What is notified before and behind a change of what it listens to is told apart by when it comes.
        let listens = self.client.channels.is_some() && pipeline.owes_ready();
        pipeline.is_full() || listens || self.depends_on_replies(tag, message)
    }

    /// A name is used whose fate an earlier batch of the pipeline decides, and that batch has not been answered.
    ///
    /// Or a RESET has not been answered, which must have brought back the client's startup values first.
    fn depends_on_replies(&self, tag: u8, message: &[u8]) -> bool {
        let pipeline = &self.server.pipeline;
        let asks = self.client.sequences.asks() && pipeline.owes_discard();
        if pipeline.is_closed() && (self.server.resets.are_expected() || asks) {
            return true;
        }
        let body = message.get(HEADER..).unwrap_or_default();
        let uses = matches!(tag, fe::BIND | fe::DESCRIBE);
        if uses
            && self.server.pipeline.unnamed_is_uncertain(self.client.id)
            && name_in(tag, body).is_some_and(<[u8]>::is_empty)
        {
            return true;
        }
        if self.max_statements.is_none() || !self.server.pipeline.decides_on_statements() {
            return false;
        }
        let Some(name) = self.statement_of(tag, body) else { return false };
        let statement = self.statement(&name);
        let is_fresh = |s: &Arc<Statement>| self.server.statements.copy_of(s) == Copy::Fresh;
        // What is prepared now may displace others, or fail where they are still there.
        let prepares = tag == fe::PARSE || statement.as_ref().is_some_and(|s| !is_fresh(s));
        self.server.pipeline.must_wait(|detail| {
            let same = statement.as_ref().is_some_and(|s| Arc::ptr_eq(s, &detail.statement));
            prepares || same || *detail.name == *name
        })
    }

    /// Whether the server's copy is still to be described, or to be made, before it is known to mean what the client was told.
    fn must_look_first(&mut self, message: &[u8], out: &mut Outgoing<'_>) -> bool {
        let Some(limit) = self.max_statements else { return false };
        let Some(known) = self.client.statements.as_ref().filter(|known| !known.is_empty()) else {
            return false;
        };
        let Some(name) = name_in(fe::BIND, message.get(HEADER..).unwrap_or_default()) else { return false };
        let Some((statement, _)) = known.told(name) else { return false };
        let pipeline = &self.server.pipeline;
        if pipeline.skipping() || pipeline.copy_in() {
            return false;
        }
        if self.server.statements.copy_of(statement) == Copy::Fresh {
            return self.server.statements.meaning_of(statement).is_none() && pipeline.describes(statement);
        }
        let statement = Arc::clone(statement);
        self.ensure(&statement, name, limit, out);
        true
    }

    /// The named statement that a message is about.
    fn statement_of<'m>(&self, tag: u8, body: &'m [u8]) -> Option<Cow<'m, [u8]>> {
        let text = match name_in(tag, body) {
            Some(name) if !name.is_empty() => return Some(Cow::Borrowed(name)),
            None if tag == fe::QUERY => body,
            Some(_) if tag == fe::PARSE => body.get(1..)?,
            Some(_) if tag == fe::BIND => &self.client.unnamed,
            _ => return None,
        };
        deallocate_target(split_cstr(text)?.0, self.encoding()).map(|name| Cow::Owned(name.into()))
    }

    pub(super) fn encoding(&self) -> &str {
        self.client.label.get("client_encoding").unwrap_or_default()
    }

    /// The unnamed statement of the client and of the server is about to change.
    fn forget_unnamed(&mut self) {
        let (client, owner) = (&mut *self.client, self.server.unnamed_of);
        let former = || Former { text: Some(std::mem::take(&mut client.unnamed)), owner };
        self.server.pipeline.unnamed_changes(former);
        self.client.forget_unnamed();
    }

    /// The server's unnamed statement is about to change, the client's is not.
    fn replace_unnamed(&mut self) {
        let owner = self.server.unnamed_of;
        self.server.pipeline.unnamed_changes(|| Former { text: None, owner });
    }

    /// One message; `bytes` may end early if it is longer than [`STREAM_OVER`].
    fn message(&mut self, tag: u8, bytes: &[u8], at: usize, out: &mut Outgoing<'_>) {
        let body = bytes.get(HEADER..).unwrap_or_default();
        let handled = match tag {
            fe::QUERY => self.query(body, out),
            fe::PARSE => self.parse(body, out),
            fe::BIND => self.bind(bytes, body, out),
            fe::DESCRIBE => self.describe(body, out),
            fe::CLOSE => self.close(body),
            fe::EXECUTE => self.execute(body),
            fe::SYNC => self.note(Expected::Sync),
            fe::FLUSH => {
                self.flush = true;
                false
            }
            fe::FUNCTION_CALL => self.function_call(body, out),
            fe::COPY_DONE | fe::COPY_FAIL => self.note(Expected::CopyEnd),
            _ => false,
        };
        if !handled {
            out.pass(at, at + bytes.len());
        }
    }

    /// Notes a message that passes as it is.
    pub(super) fn note(&mut self, expected: Expected) -> bool {
        self.server.pipeline.push(expected);
        false
    }

    fn query(&mut self, body: &[u8], out: &mut Outgoing<'_>) -> bool {
        if self.server.pipeline.skipping() {
            self.counts.queries += 1;
            return false;
        }
        let effect = effect_of(body);
        let asked = self.asked(effect.as_ref().filter(|_| body.last() == Some(&0)));
        if self.has_to_wait(asked.as_ref()) {
            return true;
        }
        self.counts.queries += 1;
        if body.last() != Some(&0) {
            self.server.traces.expect_anything();
            if let Some(hidden) = self.hidden.and_then(|hidden| hidden.catalog.hidden_anywhere()) {
                self.expect_left(&hidden, true, out);
            }
        }
        if let Some(refusal) = self.refused(body) {
            self.forget_unnamed();
            self.server.unnamed_of = NOBODY;
            self.note(Expected::Query);
            encode::message(out.inject(), fe::QUERY, |b| encode::cstr(b, text_of(refusal)));
            return true;
        }
        let rewritten = self.deallocate(body);
        if let Some(((_, gone), limit)) = rewritten.as_ref().zip(self.max_statements) {
            self.ensure_name(&gone.statement, &gone.name, limit, out);
        }
        // A simple Query drops the unnamed statement (postgres.c, exec_simple_query).
        self.forget_unnamed();
        self.server.unnamed_of = NOBODY;
        self.server.note_text(text_of(body));
        self.note_draws(body);
        self.meter_text(text_of(body));
        self.expect_hidden(body, true, out);
        if let Some((channels, shared)) = asked {
            return self.listen(&channels, shared, effect, out);
        }
        if let Some(effect) = effect {
            self.ask_for_sequences(effect.asks(), true, out);
            expect(effect, self.server);
        }
        let Some((sql, gone)) = rewritten else { return self.note(Expected::Query) };
        self.server.pipeline.push_statement(Expected::DeallocateQuery, &gone.name, &gone.statement);
        encode::message(out.inject(), fe::QUERY, |b| b.extend_from_slice(&sql));
        true
    }

    fn parse(&mut self, body: &[u8], out: &mut Outgoing<'_>) -> bool {
        self.counts.client_parses += 1;
        if self.server.pipeline.skipping() {
            return false;
        }
        let Some((name, tail)) = split_cstr(body) else { return self.note(Expected::ParseUnnamed) };
        if name.is_empty() {
            return self.parse_unnamed(tail, out);
        }
        let Some(limit) = self.max_statements.filter(|_| well_formed(tail)) else {
            self.counts.server_parses += 1;
            self.forget_own(name);
            self.keep_with_untracked(tail);
            return self.note(Expected::ParseUnnamed);
        };
        let search_path = self.client.label.get("search_path").unwrap_or_default();
        let statement = self.shared.registry.intern(tail, search_path);
        if let Some(existing) = self.statement(name) {
            self.refuse_duplicate(name, &statement, existing, limit, out);
            return true;
        }
        self.client.statements.get_or_insert_default().insert(name, Arc::clone(&statement));
        let copy = self.server.statements.touch(&statement);
        if copy == Copy::Fresh && self.is_recent(&statement) {
            let meaning = self.server.statements.meaning_of(&statement);
            self.client.statements.get_or_insert_default().tell(name, &statement, meaning);
            self.server.pipeline.push_statement(Expected::SyntheticParse, name, &statement);
            return true;
        }
        // Although the server may have it: see `statements`.
        self.prepare(&statement, name, limit, Expected::Parse, copy, out);
        true
    }

    /// The server would only repeat what it said on its copy. (In a failed transaction it refuses most Parses; what an
    /// earlier batch leaves behind is not known yet.)
    fn is_recent(&self, statement: &Statement) -> bool {
        self.server.status != TransactionStatus::Failed
            && !self.server.pipeline.owes_ready()
            && self.server.statements.is_recent(statement, self.shared.registry.moment(self.now))
    }

    fn parse_unnamed(&mut self, tail: &[u8], out: &mut Outgoing<'_>) -> bool {
        self.counts.server_parses += 1;
        self.forget_unnamed();
        self.client.unnamed.extend_from_slice(tail);
        self.server.unnamed_of = self.client.id;
        self.server.pipeline.push(Expected::ParseUnnamed);
        if let Some(refusal) = self.refused(tail) {
            statements::write_parse(out.inject(), b"", refusal);
            return true;
        }
        let Some((text_and_types, _)) = self.deallocate(tail) else { return false };
        statements::write_parse(out.inject(), b"", &text_and_types);
        true
    }

    /// Makes the server refuse the name, so that transaction and pipeline fail as they would without a pooler: by its copy,
    /// or by one of an empty text, which also a failed transaction takes. The new text may be wrong in another way, and that
    /// comes first; or the server may take it after all, because a statement of the same batch has freed the name.
    fn refuse_duplicate(
        &mut self,
        name: &[u8],
        new: &Arc<Statement>,
        existing: Arc<Statement>,
        limit: NonZeroUsize,
        out: &mut Outgoing<'_>,
    ) {
        let there = self.server.statements.touch(&existing) != Copy::Missing;
        let taken = if there { existing } else { self.shared.registry.intern(b"\0\0\0", "") };
        self.ensure_name(&taken, b"", limit, out);
        self.server.pipeline.push_statement(Expected::DuplicateParse, name, new);
        let text_and_types = self.refused(&new.text_and_types).unwrap_or(&new.text_and_types);
        statements::write_parse(out.inject(), &taken.server_name, text_and_types);
    }

    fn bind(&mut self, bytes: &[u8], body: &[u8], out: &mut Outgoing<'_>) -> bool {
        self.counts.binds += 1;
        if self.server.pipeline.skipping() {
            return false;
        }
        let Some((portal, behind)) = split_cstr(body) else { return self.note(Expected::Bind) };
        let Some((name, values)) = split_cstr(behind) else { return self.note(Expected::Bind) };
        if !name.is_empty()
            && let Some(untracked) = self.server.untracked.take()
        {
            self.server.traces.expect(&untracked);
            self.ask_for_sequences(untracked.asks, false, out);
            self.server.untracked = Some(untracked);
        }
        self.note_bound(name);
        self.meter_bound(portal, name);
        self.expect_hidden_of(name, out);
        let mut effect = self.effect(name, out);
        if let Some(Effect::Text(effect)) = &effect {
            self.ask_for_sequences(effect.asks(), false, out);
        }
        let asked = match &effect {
            Some(Effect::Text(effect)) if effect.channels.is_some() => self.asked(Some(effect)),
            _ => None,
        };
        let instead = asked
            .filter(|(channels, shared)| *shared && self.can_bind(channels))
            .map(|(channels, _)| channels);
        if let Some(channels) = instead.clone() {
            if self.has_to_wait(Some(&(Arc::clone(&channels), true))) {
                self.counts.binds -= 1;
                return true;
            }
            effect = Some(Effect::Channels(channels));
        }
        if effect.is_some() || !self.server.effects.are_none() {
            self.server.effects.bind(portal, effect);
        }
        let reached = match instead {
            Some(channels) => self.reach_instead(&channels, name, out).map(Reached::Statement),
            None => self.reach(name, out),
        };
        let Some(mut reached) = reached else { return self.note(Expected::Bind) };
        if let Reached::Statement(statement) = &reached
            && self.is_changed(name, statement)
        {
            reached = Reached::Nothing([CHANGED, &statement.server_name].concat());
        }
        let server_name = reached.server_name();
        self.server.pipeline.push(Expected::Bind);
        // The length as the client sent it: the message may still be on its way.
        let Some(header) = Header::peek(bytes) else { return false };
        let length = header.len as usize + server_name.len() - name.len();
        let staged = out.inject();
        staged.push(fe::BIND);
        staged.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
        staged.extend_from_slice(portal);
        staged.push(0);
        staged.extend_from_slice(server_name);
        staged.push(0);
        staged.extend_from_slice(values);
        true
    }

    /// The server's copy takes or gives other types than the client was told when it prepared the statement.
    fn is_changed(&self, name: &[u8], statement: &Statement) -> bool {
        let told = self.client.statements.as_ref().and_then(|known| known.told(name));
        let meaning = self.server.statements.meaning_of(statement);
        told.zip(meaning).is_some_and(|((_, told), meaning)| told != meaning)
    }

    /// What executing a statement will change.
    fn effect(&mut self, name: &[u8], out: &mut Outgoing<'_>) -> Option<Effect> {
        if !name.is_empty() {
            let statement = self.client.statements.as_ref()?.get(name)?;
            let effect =
                statement.effect.as_deref().filter(|_| self.refused(&statement.text_and_types).is_none());
            return effect.cloned().map(Effect::Text);
        }
        // What the server does not get it does not do.
        if self.refused(&self.client.unnamed).is_some() {
            return None;
        }
        let Some((_, gone)) = self.deallocate(&self.client.unnamed) else {
            return effect_of(&self.client.unnamed).map(Effect::Text);
        };
        self.ensure_name(&gone.statement, &gone.name, self.max_statements?, out);
        // It was parsed when the name may have stood for something else: parse it again, as it is meant now.
        self.server.unnamed_of = NOBODY;
        Some(Effect::Deallocate(gone))
    }

    fn execute(&mut self, body: &[u8]) -> bool {
        self.counts.queries += 1;
        self.meter_executed(body);
        let server = &mut *self.server;
        if server.effects.are_none() || server.pipeline.skipping() {
            return self.note(Expected::Execute);
        }
        let effect = split_cstr(body).and_then(|(portal, _)| server.effects.of(portal));
        match effect {
            Some(Effect::Deallocate(gone)) => {
                server.pipeline.push_statement(Expected::DeallocateExecute, &gone.name, &gone.statement);
                return false;
            }
            Some(Effect::Channels(channels)) => {
                server.pipeline.push_channels(Expected::ChannelsExecute, channels);
                return false;
            }
            Some(Effect::Text(effect)) => {
                let effect = effect.clone();
                let channels = effect.channels.clone().filter(|_| self.client.channels.is_some());
                expect(effect, server);
                if let Some(channels) = channels {
                    server.pipeline.push_channels(Expected::ChannelsExecute, &channels);
                    return false;
                }
            }
            None => {}
        }
        self.note(Expected::Execute)
    }

    fn describe(&mut self, body: &[u8], out: &mut Outgoing<'_>) -> bool {
        if self.server.pipeline.skipping() {
            return false;
        }
        let name = body.split_first().filter(|(kind, _)| **kind == b'S').and_then(|(_, n)| split_cstr(n));
        let reached = name.and_then(|(name, _)| self.reach(name, out));
        self.server.pipeline.push(Expected::Describe);
        let Some(reached) = reached else { return false };
        encode::message(out.inject(), fe::DESCRIBE, |b| {
            b.push(b'S');
            encode::cstr(b, reached.server_name());
        });
        true
    }

    /// Close of a named statement is answered here: others use the server's copy.
    fn close(&mut self, body: &[u8]) -> bool {
        if self.server.pipeline.skipping() {
            return false;
        }
        let name = body.split_first().filter(|(kind, _)| **kind == b'S').and_then(|(_, n)| split_cstr(n));
        let Some((name, _)) = name.filter(|_| self.max_statements.is_some()) else {
            self.forget_own(name.map_or(&[], |(name, _)| name));
            if let Some(untracked) = &self.server.untracked {
                self.server.traces.expect(untracked);
            }
            return self.note(Expected::Close);
        };
        if name.is_empty() {
            self.forget_unnamed();
            self.server.unnamed_of = NOBODY;
            return self.note(Expected::CloseUnnamed);
        }
        match self.client.statements.as_mut().and_then(|s| s.remove(name)) {
            Some(gone) => self.server.pipeline.push_statement(Expected::SyntheticClose, name, &gone),
            None => {
                self.server.pipeline.push(Expected::SyntheticCloseUnknown);
            }
        }
        true
    }

    /// Where names pass through untouched, only those of statements about pooler itself are kept.
    fn forget_own(&mut self, name: &[u8]) {
        if let Some(known) = self.client.statements.as_mut().filter(|_| self.max_statements.is_none()) {
            known.remove(name);
        }
    }

    pub(super) fn statement(&self, name: &[u8]) -> Option<Arc<Statement>> {
        self.client.statements.as_ref()?.get(name).cloned()
    }

    /// Makes sure that the server has what the client calls `name`. Returns the server's name for it, or `None` if the
    /// client's words can pass as they are.
    fn reach(&mut self, name: &[u8], out: &mut Outgoing<'_>) -> Option<Reached> {
        if name.is_empty() {
            self.reach_unnamed(out);
            return None;
        }
        let limit = self.max_statements?;
        let Some(statement) = self.statement(name) else {
            // Not the client's: the server says so, unless the name is one that only poolers use.
            return self.shared.registry.owns_name(name).then(|| Reached::Nothing([b"no ", name].concat()));
        };
        self.ensure(&statement, name, limit, out);
        Some(Reached::Statement(statement))
    }

    fn reach_unnamed(&mut self, out: &mut Outgoing<'_>) {
        if self.server.unnamed_of == self.client.id {
            return;
        }
        if self.client.unnamed.is_empty() {
            // The one that the server holds is another client's: the server must say that there is none.
            if self.server.unnamed_of != NOBODY {
                self.replace_unnamed();
                self.server.pipeline.push(Expected::InjectedStep);
                statements::write_close(out.inject(), b"");
                self.server.unnamed_of = NOBODY;
            }
            return;
        }
        self.replace_unnamed();
        self.server.pipeline.push(Expected::InjectedParseUnnamed);
        let rewritten = self.deallocate(&self.client.unnamed);
        let text_and_types = match (self.refused(&self.client.unnamed), &rewritten) {
            (Some(refusal), _) => refusal,
            (None, Some((sql, _))) => sql,
            (None, None) => &self.client.unnamed,
        };
        statements::write_parse(out.inject(), b"", text_and_types);
        self.server.unnamed_of = self.client.id;
        self.counts.server_parses += 1;
    }

    pub(super) fn ensure(
        &mut self,
        statement: &Arc<Statement>,
        name: &[u8],
        limit: NonZeroUsize,
        out: &mut Outgoing<'_>,
    ) {
        let copy = self.server.statements.touch(statement);
        if copy != Copy::Fresh {
            self.prepare(statement, name, limit, Expected::InjectedParse, copy, out);
        }
    }

    /// Makes sure that the server has something of the statement's name, to be deallocated. An empty text can be prepared at
    /// any time; the statement's own may fail by now, and an error in front of a simple Query would leave the client without
    /// ReadyForQuery.
    fn ensure_name(
        &mut self,
        statement: &Arc<Statement>,
        name: &[u8],
        limit: NonZeroUsize,
        out: &mut Outgoing<'_>,
    ) {
        if self.server.statements.touch(statement) != Copy::Missing {
            return;
        }
        self.make_room(statement, limit, out);
        self.server.statements.insert_outdated(Arc::clone(statement));
        statements::write_parse(out.inject(), &statement.server_name, b"\0\0\0");
        self.server.pipeline.push_statement(Expected::InjectedParse, name, statement);
    }

    /// Closes what is in the way of a statement that the server does not have.
    fn make_room(&mut self, statement: &Statement, limit: NonZeroUsize, out: &mut Outgoing<'_>) {
        let server = &mut *self.server;
        if server.statements.is_doubtful() {
            server.pipeline.push(Expected::InjectedStep);
            statement.write_close(out.inject());
        }
        while let Some(evicted) = server.statements.evict(limit) {
            evicted.write_close(out.inject());
            server.pipeline.push_statement(Expected::InjectedClose, b"", &evicted);
        }
    }

    /// Writes a Parse for the server, behind what makes room for it.
    fn prepare(
        &mut self,
        statement: &Arc<Statement>,
        name: &[u8],
        limit: NonZeroUsize,
        expected: Expected,
        copy: Copy,
        out: &mut Outgoing<'_>,
    ) {
        self.counts.server_parses += 1;
        if copy == Copy::Missing {
            self.make_room(statement, limit, out);
        } else {
            self.server.pipeline.push_statement(Expected::InjectedClose, b"", statement);
            statement.write_close(out.inject());
        }
        self.server.statements.insert(Arc::clone(statement), self.shared.registry.moment(self.now));
        let staged = out.inject();
        if let Some(refusal) = self.refused(&statement.text_and_types) {
            statements::write_parse(staged, &statement.server_name, refusal);
        } else if expected == Expected::Parse {
            statement.write_parse(staged);
        } else {
            statement.write_parse_again(staged);
        }
        statement.write_describe(staged);
        let told = if expected == Expected::Parse { name } else { b"" };
        let pipeline = &mut self.server.pipeline;
        pipeline.push_statement(expected, name, statement);
        pipeline.push_statement(Expected::InjectedDescribe, told, statement);
    }

    /// What the server gets in the place of a statement about pooler itself: text and no types.
    fn refused(&self, text_and_rest: &[u8]) -> Option<&'static [u8]> {
        if !self.refuses {
            return None;
        }
        let standard_strings = self.client.label.get("standard_conforming_strings") == Some("on");
        sql::names_pooler(text_of(text_and_rest), standard_strings).then_some(REFUSAL)
    }

    /// `DEALLOCATE name` of a statement that was prepared by Parse: the text with the server's name in it. Goes to the
    /// server, which alone knows whether the transaction lets it happen.
    fn deallocate(&self, text_and_rest: &[u8]) -> Option<(Vec<u8>, Detail)> {
        self.max_statements?;
        self.client.statements.as_ref().filter(|s| !s.is_empty())?;
        let (text, rest) = split_cstr(text_and_rest)?;
        let name = deallocate_target(text, self.encoding())?;
        if self.server.status == TransactionStatus::Failed {
            return None;
        }
        let statement = self.statement(&name)?;
        let mut sql = b"DEALLOCATE \"".to_vec();
        sql.extend_from_slice(&statement.server_name);
        sql.extend_from_slice(b"\"\0");
        sql.extend_from_slice(rest);
        Some((sql, Detail { name, statement }))
    }
}

/// Refuses what no client may send after login. Texts as in postgres.c and pqcomm.c.
fn check(header: Header) -> Result<(), Stop> {
    match header.tag {
        fe::TERMINATE => return Err(Stop::Terminate),
        fe::QUERY | fe::PARSE | fe::BIND | fe::DESCRIBE | fe::EXECUTE | fe::CLOSE | fe::FLUSH | fe::SYNC => {}
        fe::FUNCTION_CALL | fe::COPY_DATA | fe::COPY_DONE | fe::COPY_FAIL => {}
        other => return Err(Stop::Broken(format!("invalid frontend message type {other}"))),
    }
    if header.len < 4 || header.len > i32::MAX.unsigned_abs() - 1 {
        return Err(Stop::Broken(format!("invalid message length {}", header.len)));
    }
    Ok(())
}

/// The statement's name in a message that has one.
fn name_in(tag: u8, body: &[u8]) -> Option<&[u8]> {
    let named = match tag {
        fe::PARSE => split_cstr(body),
        fe::BIND => split_cstr(body).and_then(|(_, behind)| split_cstr(behind)),
        fe::DESCRIBE | fe::CLOSE => body.strip_prefix(b"S").and_then(split_cstr),
        _ => None,
    };
    named.map(|(name, _)| name)
}

/// Notes what the statement does that is noted next.
pub(super) fn expect(effect: TextEffect, server: &mut ServerSession) {
    if let Some(reset) = effect.reset {
        server.resets.expect(reset, &server.pipeline);
    }
    if effect.forgets {
        server.pipeline.expect_forgetting();
    }
    if let Some(traces) = effect.traces.filter(|traces| !traces.are_none()) {
        server.traces.expect(&traces);
    }
}

pub(super) fn text_of(text_and_rest: &[u8]) -> &[u8] {
    split_cstr(text_and_rest).map_or(text_and_rest, |(text, _)| text)
}

fn is_copy(tag: u8) -> bool {
    matches!(tag, fe::COPY_DATA | fe::COPY_DONE | fe::COPY_FAIL)
}

/// Query, NUL, number of types, types: nothing missing, nothing left over.
fn well_formed(text_and_types: &[u8]) -> bool {
    let Some((_, types)) = split_cstr(text_and_types) else { return false };
    let Some((count, oids)) = types.split_first_chunk::<2>() else { return false };
    oids.len() == usize::from(u16::from_be_bytes(*count)) * 4
}
