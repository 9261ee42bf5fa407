//! From the server to the client: which replies pass, and what they tell.
//!
//! Rows cost the reading of a header. Only control messages of a few bytes are read: ReadyForQuery,
//! ParameterStatus, CommandComplete and errors.

use std::sync::Arc;

use super::{
    channels::listen_tag,
    ending::Outcome,
    outgoing::Outgoing,
    pipeline::{Detail, Expected, Synthetic, Undone, Verdict},
    queries::rows_of,
    state::{ClientSession, NOBODY, SOMEBODY, ServerSession, Shared},
    statements::Description,
    traces::Asking,
    upstream,
};
use crate::protocol::{
    TransactionStatus, backend as be, encode,
    frame::{HEADER, Header, split_cstr},
};

/// Messages longer than this pass unread (an error with a very long text), however much of them is there at once.
const READ_AT_MOST: usize = 64 << 10;

/// CommandComplete of a SET.
const SET_DONE: &[u8] = b"C\0\0\0\x08SET\0";

/// One pass over the server's bytes.
#[derive(Debug)]
pub struct Downstream<'a> {
    pub client: &'a mut ClientSession,
    pub server: &'a mut ServerSession,
    pub shared: &'a Shared,
    /// Transactions that ended (ReadyForQuery `I` of the client's own).
    pub transactions: u64,
    /// ReadyForQuery behind which something may have been committed, as far as can be told.
    pub committed: u64,
    /// Commands that were completed, as the client is told, and no ReadyForQuery behind them yet.
    pub completed: u64,
    /// Whether the transaction that was open was committed, if it is over; those behind it do not count.
    pub ended: Option<bool>,
    /// Queries that were answered.
    pub ready: u64,
    /// How often the server was asked what its client has left.
    pub asked: u64,
    /// The server said that it ends the connection.
    pub fatal: bool,
    /// It did so because somebody ends it from outside: others may follow.
    pub terminated: bool,
    /// SQLSTATE of the first error, if no ReadyForQuery came before it.
    pub error: Option<[u8; 5]>,
    /// Stop behind each ReadyForQuery of the client's: it may have to be kept back.
    pub stops: bool,
    /// It did.
    pub stopped: bool,
    /// To be sent to the server: settings of the client that a RESET has undone.
    pub request: Vec<u8>,
}

/// The server broke the protocol.
#[derive(Debug, PartialEq, Eq)]
pub struct Broken(pub &'static str);

impl<'a> Downstream<'a> {
    /// Nothing has passed yet.
    pub fn new(client: &'a mut ClientSession, server: &'a mut ServerSession, shared: &'a Shared) -> Self {
        Self {
            client,
            server,
            shared,
            transactions: 0,
            committed: 0,
            completed: 0,
            ended: None,
            ready: 0,
            asked: 0,
            fatal: false,
            terminated: false,
            error: None,
            stops: false,
            stopped: false,
            request: Vec::new(),
        }
    }
}

impl Downstream<'_> {
    /// Passes as many messages of `input` as are there. Returns how many bytes were used.
    pub fn translate(&mut self, input: &[u8], out: &mut Outgoing<'_>) -> Result<usize, Broken> {
        let mut pos = 0;
        loop {
            let rest = input.get(pos..).unwrap_or_default();
            if self.server.passing > 0 || self.server.swallowing > 0 {
                let used = self.body_rest(rest.len(), pos, out);
                if used == 0 {
                    return Ok(pos);
                }
                pos += used;
                self.server.said += used as u64;
                continue;
            }
            // Also behind the last reply that was read: no other may come to carry them along (Flush).
            self.give_synthetic(out);
            let Some(header) = Header::peek(rest) else { return Ok(pos) };
            if header.len < 4 || header.len > i32::MAX.unsigned_abs() {
                return Err(Broken("message length out of range"));
            }
            let total = header.total();
            if rest.len() < total && total <= READ_AT_MOST && self.is_read(header.tag) {
                return Ok(pos);
            }
            let n = total.min(rest.len());
            let message = rest.get(..n).unwrap_or_default();
            let passes = self.message(header.tag, message, pos, out)?;
            pos += n;
            self.server.said += n as u64;
            if passes {
                self.server.passing = total - n;
            } else {
                self.server.swallowing = total - n;
            }
            if self.stops && passes && header.tag == be::READY_FOR_QUERY {
                self.stopped = true;
                return Ok(pos);
            }
            if n == total && passes && matches!(header.tag, be::DATA_ROW | be::COPY_DATA) {
                let end = end_of_run(header.tag, input, pos);
                if end > pos {
                    out.pass(pos, end);
                    self.server.said += (end - pos) as u64;
                    pos = end;
                }
            }
        }
    }

    /// Messages whose body is needed.
    fn is_read(&self, tag: u8) -> bool {
        match tag {
            be::READY_FOR_QUERY | be::PARAMETER_STATUS | be::COMMAND_COMPLETE | be::ERROR_RESPONSE => true,
            be::NOTIFICATION_RESPONSE => true,
            be::PARAMETER_DESCRIPTION | be::ROW_DESCRIPTION => self.server.pipeline.described().is_some(),
            be::DATA_ROW => self.server.pipeline.front_is_question(),
            _ => false,
        }
    }

    /// Gives the pooler's own answers that are due.
    fn give_synthetic(&mut self, out: &mut Outgoing<'_>) {
        while let Some(synthetic) = self.server.next_synthetic() {
            write_synthetic(out.inject(), synthetic);
        }
    }

    /// Goes on with a body that did not fit into one read.
    fn body_rest(&mut self, available: usize, pos: usize, out: &mut Outgoing<'_>) -> usize {
        if self.server.swallowing > 0 {
            let n = self.server.swallowing.min(available);
            self.server.swallowing -= n;
            return n;
        }
        let n = self.server.passing.min(available);
        self.server.passing -= n;
        if self.server.injected_failed.is_none() {
            out.pass(pos, pos + n);
        }
        n
    }

    /// One message. Returns whether it passes.
    fn message(
        &mut self,
        tag: u8,
        message: &[u8],
        at: usize,
        out: &mut Outgoing<'_>,
    ) -> Result<bool, Broken> {
        // Most of all messages, and they change nothing.
        if self.server.pipeline.shows(tag) && self.server.injected_failed.is_none() {
            out.pass(at, at + message.len());
            return Ok(true);
        }
        // Settings in front of a request: several for each, where clients take turns with different ones.
        if message == SET_DONE && self.server.pipeline.front_is_set_up() {
            return Ok(false);
        }
        if tag == be::AUTHENTICATION || tag == be::BACKEND_KEY_DATA {
            return Err(Broken("login message after login"));
        }
        let is_short = message.len() <= READ_AT_MOST
            && Header::peek(message).is_some_and(|header| header.total() == message.len());
        let body = message.get(HEADER..).filter(|_| is_short).unwrap_or_default();
        if tag == be::PARAMETER_STATUS && self.parameter_status(body) {
            return Ok(false);
        }
        if tag == be::NOTIFICATION_RESPONSE && !self.is_addressed(body) {
            return Ok(false);
        }
        let mut listens = false;
        if tag == be::COMMAND_COMPLETE {
            listens = self.follow_channels(body);
            self.command_complete(body);
        }
        if is_short && matches!(tag, be::PARAMETER_DESCRIPTION | be::ROW_DESCRIPTION | be::NO_DATA) {
            self.learn(tag, body);
        }
        let answers =
            matches!(tag, be::DATA_ROW | be::ERROR_RESPONSE) && self.server.pipeline.front_is_question();
        if answers {
            match tag {
                be::DATA_ROW => self.server.traces.row(body),
                _ => self.server.traces.fail(body),
            }
        }
        self.terminated |= tag == be::ERROR_RESPONSE && is_ended(body);
        if tag == be::ERROR_RESPONSE && self.server.outlived && is_fatal(body) {
            self.server.last_words = Some(body.into());
            return Ok(false);
        }
        if tag == be::ERROR_RESPONSE
            && let Some(expected) = self.server.pipeline.front_in_order()
        {
            self.order_refused(expected, message, body);
        }
        let changed = tag == be::ERROR_RESPONSE && self.is_of_changed(body);
        let reworded = match tag {
            be::ERROR_RESPONSE if changed => Some(changed_result()),
            be::ERROR_RESPONSE => self.reworded(body),
            _ => listens.then(listen_tag),
        };
        if tag == be::READY_FOR_QUERY
            && self.server.pipeline.front_in_order() == Some(Expected::InjectedPrepare)
        {
            self.prepare_over();
        }
        let server = &mut *self.server;
        let verdict = server.pipeline.on_reply(tag, &mut server.undone);
        server.meter_reply(tag, message.len());
        if !server.undone.is_empty() {
            self.take_back_undone();
        }
        if tag == be::PARSE_COMPLETE {
            self.duplicate_accepted();
        }
        if tag == be::READY_FOR_QUERY && self.ready_for_query(body, verdict, out) {
            return Ok(false);
        }
        if tag == be::ERROR_RESPONSE && answers {
            self.fatal |= is_fatal(body);
        } else if tag == be::ERROR_RESPONSE {
            self.server.erred = true;
            self.server.note_error(body);
            let code = || be::error_field(body, b'C')?.first_chunk().copied();
            // A client that has described the statement must not get rows of another shape from elsewhere instead.
            if self.ready == 0 && !changed && !is_changed_result(body) {
                self.error = self.error.or_else(code);
            }
            self.fatal |= is_fatal(body);
            self.drop_stale_plans(body);
            self.server.resets.on_error();
            // Portals do not outlive it.
            self.server.effects.clear();
        }
        if let Some(reworded) = reworded
            && verdict == Verdict::Forward
            && self.server.injected_failed.is_none()
        {
            out.inject().extend_from_slice(&reworded);
            return Ok(false);
        }
        Ok(self.carry_out(verdict, message, at, out))
    }

    fn carry_out(&mut self, verdict: Verdict, message: &[u8], at: usize, out: &mut Outgoing<'_>) -> bool {
        if self.server.injected_failed.is_some() {
            return false;
        }
        match verdict {
            Verdict::Swallow => return false,
            Verdict::InjectedFailed => {
                self.server.injected_failed = Some(message.into());
                return false;
            }
            Verdict::Unexpected => self.server.spoiled = Some("unexpected message"),
            Verdict::Forward => {}
        }
        out.pass(at, at + message.len());
        true
    }

    /// Returns whether the client is to be told later.
    fn ready_for_query(&mut self, body: &[u8], verdict: Verdict, out: &mut Outgoing<'_>) -> bool {
        self.server.status = TransactionStatus::from_byte(body.first().copied().unwrap_or(b'T'));
        if let Some(channels) = &mut self.client.channels {
            channels.on_ready(self.server.status, self.server.erred);
        }
        self.server.savepoint &= self.server.status != TransactionStatus::Idle;
        let now = Outcome {
            ended: self.server.ending.on_ready(self.server.status, self.server.erred),
            aborted: self.server.take_abort(),
            commits: std::mem::take(&mut self.server.commits),
        };
        if self.server.altered && self.server.status == TransactionStatus::Idle {
            // Only now others see it.
            self.server.publish_altered();
            self.shared.registry.schema_changed();
        }
        if verdict != Verdict::Forward {
            return false;
        }
        if self.server.status == TransactionStatus::Idle && self.server.pipeline.is_empty() {
            self.server.effects.clear();
        }
        let outcome = self.server.told_later.take().unwrap_or(now);
        let asks = self.server.asking == Asking::Always || self.server.traces.are_suspected();
        let later = self.server.resets.are_expected() && self.restore(out) || asks && self.ask_for_traces();
        if later {
            self.server.told_later = Some(outcome);
            return true;
        }
        if self.server.status == TransactionStatus::Idle {
            self.server.keep_prepared(self.client);
        }
        self.client.sequences.on_ready();
        self.ended = self.ended.or(outcome.ended);
        self.ready += 1;
        self.completed = 0;
        let over = self.server.status == TransactionStatus::Idle;
        self.transactions += u64::from(over);
        // COMMIT AND CHAIN: another one is open behind it.
        self.committed += u64::from(outcome.commits || (over && !outcome.aborted));
        false
    }

    /// Errors that say that the server's statements are not what they should be: the next use prepares them anew, here
    /// or, for "cached plan must not change result type" (plancache.c), on any server.
    fn drop_stale_plans(&mut self, error: &[u8]) {
        match be::error_field(error, b'C') {
            _ if is_changed_result(error) => self.server.statements.outdate(),
            // Deallocated by other means than a DEALLOCATE of the client (in a function).
            Some(b"26000") if self.own_name(error).is_some() => {
                self.server.statements.clear();
                self.server.statements.doubt();
            }
            _ => {}
        }
    }

    /// The name in an error that the pooler gave to a statement.
    fn own_name<'e>(&self, error: &'e [u8]) -> Option<&'e [u8]> {
        if !matches!(be::error_field(error, b'C'), Some(b"26000" | b"42P05")) {
            return None;
        }
        let message = be::error_field(error, b'M')?;
        message.split(|&b| b == b'"').find(|part| self.shared.registry.owns_name(part))
    }

    /// What was to put the session in order is refused. In a failed transaction the server refuses what follows too, a
    /// statement may be gone, and one that cannot be prepared any more is missed where it is executed; otherwise the client
    /// must not get what comes.
    fn order_refused(&mut self, expected: Expected, message: &[u8], body: &[u8]) {
        self.server.sequences_of = SOMEBODY;
        let code = be::error_field(body, b'C');
        if expected == Expected::InjectedPrepare && code != Some(b"42P05") {
            self.prepare_refused(body);
        } else if !matches!(code, Some(b"25P02" | b"26000")) {
            self.server.injected_failed = Some(message.into());
        }
    }

    /// The error as the client is to read it, if not as the server says it.
    fn reworded(&mut self, error: &[u8]) -> Option<Vec<u8>> {
        self.renamed(error).or_else(|| self.hinted(error)).or_else(|| self.refused_before(error))
    }

    /// The client has used a statement that means something else now: see [`upstream::CHANGED`].
    fn is_of_changed(&self, error: &[u8]) -> bool {
        let message =
            be::error_field(error, b'C').filter(|code| *code == b"26000").and(be::error_field(error, b'M'));
        let own = |part: &[u8]| {
            part.strip_prefix(upstream::CHANGED).is_some_and(|name| self.shared.registry.owns_name(name))
        };
        message.is_some_and(|message| message.split(|&b| b == b'"').any(own))
    }

    /// The error in the client's words, if it names a statement as only the pooler does.
    fn renamed(&self, error: &[u8]) -> Option<Vec<u8>> {
        let own = self.own_name(error)?;
        let mut renamed = Vec::new();
        write_renamed(&mut renamed, error, own, &self.name_for_client(own)?);
        Some(renamed)
    }

    /// What the client calls the statement that has this name on servers.
    fn name_for_client(&self, own: &[u8]) -> Option<Box<[u8]>> {
        if let Some(name) = self.server.pipeline.duplicate_name() {
            return Some(name.into());
        }
        let front =
            self.server.pipeline.front_statement().filter(|detail| *detail.statement.server_name == *own);
        let known = || self.client.statements.as_ref()?.name_of(own);
        front.map(|detail| detail.name.clone()).or_else(|| known().map(Into::into))
    }

    /// Takes note of what the server says on a statement that was just prepared.
    fn learn(&mut self, tag: u8, body: &[u8]) {
        let server = &mut *self.server;
        let Some(Detail { name, statement }) = server.pipeline.described() else { return };
        let description = match tag {
            be::PARAMETER_DESCRIPTION => Description::Parameters(body),
            be::ROW_DESCRIPTION => Description::Row(body),
            be::NO_DATA => Description::Row(&[]),
            _ => return,
        };
        let meaning = server.statements.learn(statement, description);
        if let Some(known) = self.client.statements.as_mut().filter(|_| !name.is_empty()) {
            known.tell(name, statement, meaning);
        }
    }

    /// What the server reports is the truth for it, and for the client that caused it. Returns whether the client is to
    /// be told later.
    fn parameter_status(&mut self, body: &[u8]) -> bool {
        let Some((name, value)) = read_parameter(body) else { return false };
        let same = Arc::ptr_eq(&self.client.label, &self.server.label);
        self.server.report(name, value, self.shared);
        if !super::params::is_settable(name) {
            return false;
        }
        if self.server.resets.keep_back_parameters() {
            return true;
        }
        self.client.label = if same {
            Arc::clone(&self.server.label)
        } else {
            self.shared.labels.with(&self.client.label, name, value)
        };
        false
    }

    /// The server had lost the statement (DEALLOCATE ALL in a function, or behind another statement). Now it has another
    /// one under a name that other clients use too: no name is to be trusted any more.
    fn duplicate_accepted(&mut self) {
        let Some(accepted) = self.server.pipeline.take_accepted_duplicate() else { return };
        self.server.statements.clear();
        self.server.statements.doubt();
        self.client.statements.get_or_insert_default().insert(&accepted.name, accepted.statement);
    }

    /// Tags that say that prepared statements or settings are gone.
    fn command_complete(&mut self, body: &[u8]) {
        let tag = body.strip_suffix(b"\0").unwrap_or(body);
        if tag.starts_with(b"DISCARD ") && matches!(tag, b"DISCARD ALL" | b"DISCARD SEQUENCES") {
            self.numbers_are_gone(tag);
        }
        if self.server.pipeline.front_is_injected() && !self.server.pipeline.front_is_own_query() {
            return;
        }
        self.server.tags = self.server.tags.saturating_add(1);
        self.server.rolled_back = tag == b"ROLLBACK";
        if !self.server.pipeline.front_is_own_query() {
            self.completed += 1;
            self.server.ending.on_tag(tag);
            self.note_drawn(tag);
            let rows = rows_of(tag);
            self.server.rows += rows;
            self.server.rows_told = self.server.rows_told.saturating_add(rows);
            self.server.traces.on_tag(tag);
            self.server.commits |= matches!(tag, b"COMMIT" | b"CALL" | b"DO");
            self.server.savepoint |= tag == b"SAVEPOINT";
        }
        if alters_schema(tag) {
            self.shared.registry.schema_changed();
            self.server.altered = true;
        }
        if tag == b"DISCARD ALL" {
            self.server.discarded = true;
            self.server.bonds.discard();
        }
        match tag {
            b"DEALLOCATE" => return self.forget_deallocated(),
            b"DEALLOCATE ALL" | b"DISCARD ALL" => {
                self.prepared_are_gone();
                self.forget_statements();
            }
            b"PREPARE" | b"LISTEN" | b"LOAD" if !self.server.pipeline.front_is_own_query() => {
                self.server.bonds.on_tag(tag);
            }
            b"RESET" | b"SET" => {}
            _ => return,
        }
        if !self.server.pipeline.front_is_own_query() {
            self.server.resets.on_tag(tag);
        } else if tag == b"DISCARD ALL" || (tag == b"RESET" && self.client.id == NOBODY) {
            // The reset query. (RESET in front of a client's request is noted already.)
            self.server.forget_unreported(self.shared);
            if tag == b"DISCARD ALL" {
                self.server.untracked = None;
                self.server.traces.clear();
            }
        }
    }

    fn forget_deallocated(&mut self) {
        let Some(gone) = self.server.pipeline.deallocated() else { return };
        self.server.statements.remove(&gone.statement);
        if let Some(statements) = self.client.statements.as_mut() {
            statements.remove(&gone.name);
        }
    }

    fn forget_statements(&mut self) {
        (self.server.prepared, self.client.prepared) = (None, None);
        self.server.statements.clear();
        self.client.statements = None;
    }

    /// What the unnamed statement is at this point of the replies: the client's text, if it has changed, and whose the
    /// server has. Messages that were sent meanwhile have their own say.
    fn set_unnamed(&mut self, text: Option<Vec<u8>>, owner: u64) {
        match self.server.pipeline.next_unnamed_change() {
            Some(Some(former)) => {
                former.owner = owner;
                former.text = former.text.take().map(|now| text.unwrap_or(now));
            }
            Some(None) => {}
            None => {
                self.server.unnamed_of = owner;
                self.client.unnamed = text.unwrap_or(std::mem::take(&mut self.client.unnamed));
            }
        }
    }

    fn take_back_undone(&mut self) {
        let mut undone = std::mem::take(&mut self.server.undone);
        for entry in undone.drain(..) {
            self.take_back(entry);
        }
        self.server.undone = undone;
    }

    /// The server skipped a message: what was noted when it was sent did not happen.
    fn take_back(&mut self, undone: Undone) {
        match undone.expected {
            // What failed has dropped the one before; what was skipped gets back what was before next.
            Expected::ParseUnnamed => self.set_unnamed(Some(Vec::new()), NOBODY),
            Expected::InjectedParseUnnamed => self.set_unnamed(None, NOBODY),
            Expected::InjectedExecute => self.server.sequences_of = SOMEBODY,
            Expected::UnnamedChanges => {
                if let Some(former) = undone.former {
                    self.set_unnamed(former.text, former.owner);
                }
                return;
            }
            Expected::Query
            | Expected::DeallocateQuery
            | Expected::ChannelsQuery
            | Expected::FunctionCall
            | Expected::Sync => {
                self.server.resets.on_skipped_batch();
            }
            _ => {}
        }
        let Some(detail) = &undone.detail else { return };
        // Nothing of a later batch is about the name: it would have waited.
        match undone.expected {
            Expected::Parse | Expected::SyntheticParse => {
                if undone.expected == Expected::Parse {
                    self.server.statements.remove(&detail.statement);
                }
                if let Some(statements) = self.client.statements.as_mut() {
                    statements.remove(&detail.name);
                }
            }
            Expected::InjectedParse => self.server.statements.remove(&detail.statement),
            Expected::InjectedClose => {
                self.server.statements.insert_outdated(Arc::clone(&detail.statement));
            }
            Expected::SyntheticClose => {
                let statements = self.client.statements.get_or_insert_default();
                statements.insert(&detail.name, Arc::clone(&detail.statement));
            }
            _ => {}
        }
    }
}

impl ServerSession {
    /// Takes note of a ParameterStatus.
    pub fn report(&mut self, name: &str, value: &str, shared: &Shared) {
        if super::params::is_settable(name) {
            self.label = shared.labels.with(&self.label, name, value);
        }
        match name {
            "session_authorization" => self.foreign.role = self.login_role.as_deref() != Some(value),
            "in_hot_standby" => self.in_hot_standby = Some(value == "on"),
            "is_superuser" => self.foreign.superuser = self.login_superuser.as_deref() != Some(value),
            _ => {}
        }
    }
}

/// "cached plan must not change result type"
fn is_changed_result(error: &[u8]) -> bool {
    let field = |code| be::error_field(error, code);
    field(b'C') == Some(b"0A000") && field(b'R') == Some(b"RevalidateCachedQuery")
}

/// The same error, as PostgreSQL has it.
fn changed_result() -> Vec<u8> {
    let mut error = Vec::new();
    encode::message(&mut error, be::ERROR_RESPONSE, |b| {
        b.extend_from_slice(
            b"SERROR\0VERROR\0C0A000\0Mcached plan must not change result type\0Fplancache.c\0RRevalidateCachedQuery\0\0",
        );
    });
    error
}

/// The error ends the connection.
fn is_fatal(error: &[u8]) -> bool {
    matches!(be::error_field(error, b'V'), Some(b"FATAL" | b"PANIC"))
}

/// The same, because of a shutdown (admin_shutdown), a crash of another process (crash_shutdown), or pg_terminate_backend.
fn is_ended(error: &[u8]) -> bool {
    is_fatal(error) && matches!(be::error_field(error, b'C'), Some(b"57P01" | b"57P02"))
}

/// Name and value of a ParameterStatus body.
pub fn read_parameter(body: &[u8]) -> Option<(&str, &str)> {
    let (name, rest) = split_cstr(body)?;
    let (value, _) = split_cstr(rest)?;
    Some((std::str::from_utf8(name).ok()?, std::str::from_utf8(value).ok()?))
}

/// The command may change what the text of a statement means.
fn alters_schema(tag: &[u8]) -> bool {
    let words: &[&[u8]] = match tag.first() {
        Some(b'A') => &[b"ALTER"],
        Some(b'C') => &[b"CREATE", b"COMMIT PREPARED"],
        Some(b'D') => &[b"DROP"],
        Some(b'I') => &[b"IMPORT"],
        _ => return false,
    };
    words.iter().any(|word| tag.starts_with(word))
}

/// Where a run of complete messages with this tag ends. Nothing that follows a row that passed can change what
/// becomes of the next row.
fn end_of_run(tag: u8, input: &[u8], mut pos: usize) -> usize {
    while let Some(rest) = input.get(pos..)
        && let Some(header) = Header::peek(rest)
        && header.tag == tag
        && header.len >= 4
        && header.total() <= rest.len()
    {
        pos += header.total();
    }
    pos
}

/// Appends an answer of the pooler's own.
pub fn write_synthetic(out: &mut Vec<u8>, synthetic: Synthetic) {
    let tag = match synthetic {
        Synthetic::ParseComplete => be::PARSE_COMPLETE,
        Synthetic::CloseComplete => be::CLOSE_COMPLETE,
    };
    encode::message(out, tag, |_| {});
}

/// Appends an error with another name in its message.
fn write_renamed(out: &mut Vec<u8>, error: &[u8], own: &[u8], name: &[u8]) {
    encode::message(out, be::ERROR_RESPONSE, |b| {
        for (code, value) in be::error_fields(error) {
            b.push(code);
            let parts = value.split(|&c| c == b'"').map(|part| if part == own { name } else { part });
            for (i, part) in parts.enumerate() {
                if i > 0 {
                    b.push(b'"');
                }
                b.extend_from_slice(part);
            }
            b.push(0);
        }
        b.push(0);
    });
}
