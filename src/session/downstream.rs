//! From the server to the client: which replies pass, and what they tell.
//!
//! Rows cost the reading of a header. Only control messages of a few bytes are read: ReadyForQuery,
//! ParameterStatus, CommandComplete and errors.

use std::sync::Arc;

use super::{
    outgoing::Outgoing,
    pipeline::{Expected, Synthetic, Undone, Verdict},
    state::{ClientSession, ServerSession, Shared},
};
use crate::protocol::{
    TransactionStatus, backend as be, encode,
    frame::{HEADER, Header, split_cstr},
};

/// Control messages longer than this pass unread (an error with a very long text).
const READ_AT_MOST: usize = 64 << 10;

/// One pass over the server's bytes.
#[derive(Debug)]
pub struct Downstream<'a> {
    pub client: &'a mut ClientSession,
    pub server: &'a mut ServerSession,
    pub shared: &'a Shared,
    /// Transactions that ended (ReadyForQuery `I` of the client's own).
    pub transactions: u64,
    /// Queries that were answered.
    pub ready: u64,
    /// The server said that it ends the connection.
    pub fatal: bool,
}

/// The server broke the protocol.
#[derive(Debug, PartialEq, Eq)]
pub struct Broken(pub &'static str);

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
                continue;
            }
            let Some(header) = Header::peek(rest) else { return Ok(pos) };
            if header.len < 4 || header.len > i32::MAX.unsigned_abs() {
                return Err(Broken("message length out of range"));
            }
            let total = header.total();
            if is_read(header.tag) && total <= READ_AT_MOST && rest.len() < total {
                return Ok(pos);
            }
            let n = total.min(rest.len());
            let message = rest.get(..n).unwrap_or_default();
            if self.message(header.tag, message, pos, out)? {
                self.server.passing = total - n;
            } else {
                self.server.swallowing = total - n;
            }
            pos += n;
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
        if tag == be::AUTHENTICATION || tag == be::BACKEND_KEY_DATA {
            return Err(Broken("login message after login"));
        }
        while let Some(synthetic) = self.server.pipeline.next_synthetic() {
            write_synthetic(out.inject(), synthetic);
        }
        let body = message.get(HEADER..).unwrap_or_default();
        if tag == be::PARAMETER_STATUS {
            self.parameter_status(body);
        }
        if tag == be::COMMAND_COMPLETE {
            self.command_complete(body);
        }
        let mut undone = std::mem::take(&mut self.server.undone);
        let verdict = self.server.pipeline.on_reply(tag, &mut undone);
        for entry in undone.drain(..) {
            self.take_back(&entry);
        }
        self.server.undone = undone;
        if tag == be::READY_FOR_QUERY {
            self.ready_for_query(body, verdict);
        }
        if tag == be::ERROR_RESPONSE {
            self.fatal |= matches!(be::error_field(body, b'V'), Some(b"FATAL" | b"PANIC"));
            self.drop_stale_plans(body);
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
            Verdict::RenameDuplicate => {
                let name = self.server.pipeline.take_refused_name().unwrap_or_default();
                write_renamed(out.inject(), message, &name);
                // The message has been written; what is left of it (nothing, it was read whole) must not pass.
                return false;
            }
            Verdict::Unexpected => self.server.spoiled = Some("unexpected message"),
            Verdict::Forward => {}
        }
        out.pass(at, at + message.len());
        true
    }

    fn ready_for_query(&mut self, body: &[u8], verdict: Verdict) {
        self.server.status = TransactionStatus::from_byte(body.first().copied().unwrap_or(b'T'));
        if verdict == Verdict::Forward {
            self.ready += 1;
            if self.server.status == TransactionStatus::Idle {
                self.transactions += 1;
            }
        }
    }

    /// "cached plan must not change result type" (plancache.c): the server would say so for ever, also to a client that
    /// prepares anew, because it shares the statement. The next use prepares again.
    fn drop_stale_plans(&mut self, error: &[u8]) {
        let stale = be::error_field(error, b'C') == Some(b"0A000")
            && be::error_field(error, b'R') == Some(b"RevalidateCachedQuery");
        if stale {
            self.server.statements.clear();
            self.server.statements.doubt();
        }
    }

    /// What the server reports is the truth for it, and for the client that caused it.
    fn parameter_status(&mut self, body: &[u8]) {
        let Some((name, value)) = read_parameter(body) else { return };
        let same = Arc::ptr_eq(&self.client.label, &self.server.label);
        self.server.report(name, value, self.shared);
        if !super::params::is_settable(name) {
            return;
        }
        self.client.label = if same {
            Arc::clone(&self.server.label)
        } else {
            self.shared.labels.with(&self.client.label, name, value)
        };
    }

    /// Tags that say that prepared statements or settings are gone.
    fn command_complete(&mut self, body: &[u8]) {
        match body.strip_suffix(b"\0") {
            Some(b"DEALLOCATE ALL") => self.forget_statements(),
            Some(b"DISCARD ALL") => {
                self.forget_statements();
                self.server.forget_unreported(self.shared);
            }
            Some(b"PREPARE") => self.server.pinned = Some("PREPARE"),
            Some(b"LISTEN") => self.server.pinned = Some("LISTEN"),
            Some(b"LOAD") => self.server.pinned = Some("LOAD"),
            Some(b"RESET") => self.server.forget_unreported(self.shared),
            _ => {}
        }
    }

    fn forget_statements(&mut self) {
        self.server.statements.clear();
        self.client.statements = None;
    }

    /// The server skipped a message: what was noted when it was sent did not happen.
    fn take_back(&mut self, undone: &Undone) {
        if matches!(undone.expected, Expected::ParseUnnamed | Expected::InjectedParseUnnamed) {
            self.client.unnamed.clear();
            self.server.unnamed_of = 0;
        }
        if undone.expected == Expected::InjectedCloseQuiet {
            self.server.statements.doubt();
        }
        let Some(detail) = &undone.detail else { return };
        // A later batch that is under way has its own say on the name.
        let named_later = self.server.pipeline.mentions(&detail.name);
        match undone.expected {
            Expected::Parse | Expected::SyntheticParse => {
                if undone.expected == Expected::Parse {
                    self.server.statements.remove(&detail.statement);
                }
                if !named_later && let Some(statements) = self.client.statements.as_mut() {
                    statements.remove(&detail.name);
                }
            }
            Expected::InjectedParse => self.server.statements.remove(&detail.statement),
            Expected::InjectedClose => self.server.statements.insert(Arc::clone(&detail.statement)),
            Expected::SyntheticClose if !named_later => {
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
        let at_login = match name {
            "session_authorization" => &self.login_role,
            "is_superuser" => &self.login_superuser,
            _ => return,
        };
        self.spoiled = if at_login.as_deref() == Some(value) { None } else { Some("role changed") };
    }
}

/// Name and value of a ParameterStatus body.
pub fn read_parameter(body: &[u8]) -> Option<(&str, &str)> {
    let (name, rest) = split_cstr(body)?;
    let (value, _) = split_cstr(rest)?;
    Some((std::str::from_utf8(name).ok()?, std::str::from_utf8(value).ok()?))
}

/// Messages whose body is needed.
fn is_read(tag: u8) -> bool {
    matches!(tag, be::READY_FOR_QUERY | be::PARAMETER_STATUS | be::COMMAND_COMPLETE | be::ERROR_RESPONSE)
}

/// Appends an answer of the pooler's own.
pub fn write_synthetic(out: &mut Vec<u8>, synthetic: Synthetic) {
    let tag = match synthetic {
        Synthetic::ParseComplete => be::PARSE_COMPLETE,
        Synthetic::CloseComplete => be::CLOSE_COMPLETE,
    };
    encode::message(out, tag, |_| {});
}

/// Appends the server's refusal of a duplicate Parse with the client's name for the statement in it.
fn write_renamed(out: &mut Vec<u8>, message: &[u8], name: &[u8]) {
    let body = message.get(HEADER..).unwrap_or_default();
    if be::error_field(body, b'C') != Some(b"42P05") {
        out.extend_from_slice(message);
        return;
    }
    encode::message(out, be::ERROR_RESPONSE, |b| {
        let mut rest = body;
        while let Some((&code, tail)) = rest.split_first().filter(|(code, _)| **code != 0) {
            let Some((value, tail)) = split_cstr(tail) else { break };
            b.push(code);
            if code == b'M' {
                let text = [b"prepared statement \"", name, b"\" already exists"].concat();
                encode::cstr(b, &text);
            } else {
                encode::cstr(b, value);
            }
            rest = tail;
        }
        b.push(0);
    });
}
