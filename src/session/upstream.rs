//! From the client to the server: which bytes pass, which are rewritten, what goes in front.
//!
//! Works on whole messages up to [`STREAM_OVER`] bytes; longer ones pass as they come, but for Parse, which has
//! to be read as a whole to be recognised.

use std::{num::NonZeroUsize, sync::Arc};

use super::{
    outgoing::Outgoing,
    pipeline::Expected,
    state::{ClientSession, Counts, ServerSession, Shared},
    statements::{self, Statement},
};
use crate::protocol::{
    TransactionStatus, encode,
    frame::{HEADER, Header, split_cstr},
    frontend as fe,
};

/// Messages up to this size (header included) are not sent before they are complete, so that a client that dies in the
/// middle of one costs nothing.
pub const STREAM_OVER: usize = 16 << 10;

/// Why reading stopped.
#[derive(Debug, PartialEq, Eq)]
pub enum Stop {
    /// The input is used up, or ends inside a message.
    NeedMore,
    /// What comes next depends on replies that are still to come: go on when the server has said more.
    Held,
    /// Terminate.
    Terminate,
    /// The client broke the protocol; message as PostgreSQL would put it.
    Broken(String),
}

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
    pub counts: Counts,
    /// Flush was seen: answers that the pooler gives itself are due at once.
    pub flush: bool,
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
            let total = header.total();
            let message = rest.get(..total).unwrap_or(rest);
            let complete = message.len() == total;
            if !complete && (total <= STREAM_OVER || rest.len() < STREAM_OVER.min(total)) {
                return (pos, Stop::NeedMore);
            }
            if !complete && header.tag == fe::PARSE {
                if total > self.max_packet_size {
                    return (
                        pos,
                        Stop::Broken(format!("Parse message of {total} bytes exceeds max_packet_size")),
                    );
                }
                return (pos, Stop::NeedMore);
            }
            if self.is_held(header.tag, message) {
                return (pos, Stop::Held);
            }
            self.message(header.tag, message, pos, out);
            self.client.passing = total - message.len();
            pos += message.len();
        }
    }

    /// A name is used whose fate an earlier batch of the pipeline decides, and that batch has not been answered.
    fn is_held(&self, tag: u8, message: &[u8]) -> bool {
        if self.server.pipeline.is_empty() || self.max_statements.is_none() {
            return false;
        }
        let body = message.get(HEADER..).unwrap_or_default();
        let name = match tag {
            fe::PARSE => split_cstr(body),
            fe::BIND => split_cstr(body).and_then(|(_, behind)| split_cstr(behind)),
            fe::DESCRIBE | fe::CLOSE => body.strip_prefix(b"S").and_then(split_cstr),
            _ => None,
        };
        name.is_some_and(|(name, _)| !name.is_empty() && self.server.pipeline.must_wait_for(name))
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
            fe::EXECUTE => {
                self.counts.queries += 1;
                self.note(Expected::Execute)
            }
            fe::SYNC => self.note(Expected::Sync),
            fe::FLUSH => {
                self.flush = true;
                false
            }
            fe::FUNCTION_CALL => self.note(Expected::FunctionCall),
            fe::COPY_DONE | fe::COPY_FAIL => self.note(Expected::CopyEnd),
            _ => false,
        };
        if !handled {
            out.pass(at, at + bytes.len());
        }
    }

    /// Notes a message that passes as it is.
    fn note(&mut self, expected: Expected) -> bool {
        self.server.pipeline.push(expected);
        false
    }

    fn query(&mut self, body: &[u8], out: &mut Outgoing<'_>) -> bool {
        self.counts.queries += 1;
        if self.server.pipeline.skipping() {
            return false;
        }
        let rewritten = self.deallocate(body, out);
        // A simple Query drops the unnamed statement (postgres.c, exec_simple_query).
        self.client.unnamed.clear();
        self.server.unnamed_of = 0;
        if forgets(body) {
            self.server.pipeline.expect_forgetting();
        }
        self.server.pipeline.push(Expected::Query);
        if let Some(sql) = &rewritten {
            encode::message(out.inject(), fe::QUERY, |b| b.extend_from_slice(sql));
        }
        rewritten.is_some()
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
            return self.note(Expected::ParseUnnamed);
        };
        if let Some(existing) = self.statement(name) {
            self.refuse_duplicate(name, tail, &existing, limit, out);
            return true;
        }
        let search_path = self.client.label.get("search_path").unwrap_or_default();
        let statement = self.shared.registry.intern(tail, search_path);
        self.client.statements.get_or_insert_default().insert(name, Arc::clone(&statement));
        // In a failed transaction PostgreSQL refuses most Parses: let it decide.
        let failed = self.server.status == TransactionStatus::Failed;
        let known = self.server.statements.touch(&statement);
        if known && !failed {
            self.server.pipeline.push_statement(Expected::SyntheticParse, name, &statement);
            return true;
        }
        self.prepare(&statement, name, limit, Expected::Parse, known, out);
        true
    }

    fn parse_unnamed(&mut self, tail: &[u8], out: &mut Outgoing<'_>) -> bool {
        self.counts.server_parses += 1;
        let rewritten = self.deallocate(tail, out);
        self.client.unnamed.clear();
        self.client.unnamed.extend_from_slice(tail);
        self.server.unnamed_of = self.client.id;
        self.server.pipeline.push(Expected::ParseUnnamed);
        if let Some(text_and_types) = &rewritten {
            statements::write_parse(out.inject(), b"", text_and_types);
        }
        rewritten.is_some()
    }

    /// Makes the server refuse the name, so that transaction and pipeline fail as they would without a pooler.
    fn refuse_duplicate(
        &mut self,
        name: &[u8],
        tail: &[u8],
        existing: &Arc<Statement>,
        limit: NonZeroUsize,
        out: &mut Outgoing<'_>,
    ) {
        self.ensure(existing, name, limit, out);
        self.server.pipeline.push_statement(Expected::DuplicateParse, name, existing);
        statements::write_parse(out.inject(), &existing.server_name, tail);
    }

    fn bind(&mut self, bytes: &[u8], body: &[u8], out: &mut Outgoing<'_>) -> bool {
        self.counts.binds += 1;
        if self.server.pipeline.skipping() {
            return false;
        }
        let Some((portal, behind)) = split_cstr(body) else { return self.note(Expected::Bind) };
        let Some((name, values)) = split_cstr(behind) else { return self.note(Expected::Bind) };
        let Some(reached) = self.reach(name, out) else { return self.note(Expected::Bind) };
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
            return self.note(Expected::Close);
        };
        if name.is_empty() {
            self.client.unnamed.clear();
            self.server.unnamed_of = 0;
            return self.note(Expected::Close);
        }
        match self.client.statements.as_mut().and_then(|s| s.remove(name)) {
            Some(gone) => self.server.pipeline.push_statement(Expected::SyntheticClose, name, &gone),
            None => {
                self.server.pipeline.push(Expected::SyntheticCloseUnknown);
            }
        }
        true
    }

    fn statement(&self, name: &[u8]) -> Option<Arc<Statement>> {
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
            if self.server.unnamed_of != 0 {
                self.server.pipeline.push(Expected::InjectedCloseQuiet);
                statements::write_close(out.inject(), b"");
                self.server.unnamed_of = 0;
            }
            return;
        }
        self.server.pipeline.push(Expected::InjectedParseUnnamed);
        statements::write_parse(out.inject(), b"", &self.client.unnamed);
        self.server.unnamed_of = self.client.id;
        self.counts.server_parses += 1;
    }

    fn ensure(
        &mut self,
        statement: &Arc<Statement>,
        name: &[u8],
        limit: NonZeroUsize,
        out: &mut Outgoing<'_>,
    ) {
        if !self.server.statements.touch(statement) {
            self.prepare(statement, name, limit, Expected::InjectedParse, false, out);
        }
    }

    /// Writes a Parse for the server, behind what makes room for it.
    fn prepare(
        &mut self,
        statement: &Arc<Statement>,
        name: &[u8],
        limit: NonZeroUsize,
        expected: Expected,
        known: bool,
        out: &mut Outgoing<'_>,
    ) {
        self.counts.server_parses += 1;
        let server = &mut *self.server;
        if known || server.statements.is_doubtful() {
            server.pipeline.push(Expected::InjectedCloseQuiet);
            statement.write_close(out.inject());
        }
        if !known {
            while let Some(evicted) = server.statements.evict(limit) {
                evicted.write_close(out.inject());
                server.pipeline.push_statement(Expected::InjectedClose, b"", &evicted);
            }
            server.statements.insert(Arc::clone(statement));
        }
        statement.write_parse(out.inject());
        server.pipeline.push_statement(expected, name, statement);
    }

    /// `DEALLOCATE name` of a statement that was prepared by Parse: the text with the server's name in it. Goes to the
    /// server, which alone knows whether the transaction lets it happen.
    fn deallocate(&mut self, text_and_rest: &[u8], out: &mut Outgoing<'_>) -> Option<Vec<u8>> {
        let limit = self.max_statements?;
        let (text, rest) = split_cstr(text_and_rest)?;
        self.client.statements.as_ref().filter(|s| !s.is_empty())?;
        let name = deallocate_target(text)?;
        if self.server.status == TransactionStatus::Failed {
            return None;
        }
        let statement = self.statement(&name)?;
        self.ensure(&statement, &name, limit, out);
        // From here on the server may or may not have it: an error takes the DEALLOCATE back, not this note.
        self.server.statements.remove(&statement);
        self.server.statements.doubt();
        if let Some(statements) = self.client.statements.as_mut() {
            statements.remove(&name);
        }
        let mut sql = b"DEALLOCATE \"".to_vec();
        sql.extend_from_slice(&statement.server_name);
        sql.extend_from_slice(b"\"\0");
        sql.extend_from_slice(rest);
        Some(sql)
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

/// Query, NUL, number of types, types: nothing missing, nothing left over.
fn well_formed(text_and_types: &[u8]) -> bool {
    let Some((_, types)) = split_cstr(text_and_types) else { return false };
    let Some((count, oids)) = types.split_first_chunk::<2>() else { return false };
    oids.len() == usize::from(u16::from_be_bytes(*count)) * 4
}

/// The text may hold a DEALLOCATE ALL or DISCARD ALL at its start.
fn forgets(sql: &[u8]) -> bool {
    let sql = sql.trim_ascii_start();
    ["deallocate", "discard"]
        .iter()
        .any(|w| sql.get(..w.len()).is_some_and(|s| s.eq_ignore_ascii_case(w.as_bytes())))
}

/// The name in `DEALLOCATE [PREPARE] name`, as the server would read it; `None` for anything else, ALL included.
fn deallocate_target(sql: &[u8]) -> Option<Box<[u8]>> {
    let sql = sql.trim_ascii();
    let (word, rest) = sql.split_at_checked("deallocate".len())?;
    if !word.eq_ignore_ascii_case(b"deallocate") || !rest.first()?.is_ascii_whitespace() {
        return None;
    }
    let mut rest = rest.trim_ascii().strip_suffix(b";").unwrap_or(rest).trim_ascii();
    if let Some((word, behind)) = rest.split_at_checked("prepare".len())
        && word.eq_ignore_ascii_case(b"prepare")
        && behind.first().is_some_and(u8::is_ascii_whitespace)
    {
        rest = behind.trim_ascii();
    }
    if let Some(quoted) = rest.strip_prefix(b"\"") {
        let name = quoted.strip_suffix(b"\"")?;
        return (!name.is_empty() && !name.contains(&b'"')).then(|| name.into());
    }
    let plain =
        !rest.is_empty() && rest.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_' || *b >= 0x80);
    (plain && !rest.eq_ignore_ascii_case(b"all")).then(|| rest.to_ascii_lowercase().into())
}
