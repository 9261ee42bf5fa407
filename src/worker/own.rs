//! Requests about pooler itself (`SET pooler.route`), by every way of the protocol, message by message. No server sees
//! them.
//!
//! While nothing is owed to a client, messages about such statements are answered here, each by itself, up to Sync: Parse,
//! Describe, Flush and then Bind, Execute as well as all of them at once. A name that a statement gets stands among the
//! client's other names. A BEGIN in front of them (pgjdbc sends it so) is held, as by `begin`. What comes behind them in
//! the same batch and is about something else goes to a server as if the batch had begun there. Where they cannot be
//! answered (behind others that no Sync has ended) the server is given something to refuse in their place: see
//! [`Upstream`](crate::session::upstream::Upstream).

use super::{
    Worker,
    answer::{Answer, describe_row},
    begin::HeldBegin,
    classes::class_of,
    client::{Client, ClientState},
    portals::{Bind, Portals, Run},
    settings::Within,
    tokens::Asked,
};
use crate::{
    config::PoolMode,
    protocol::{
        TransactionStatus, backend as be, encode,
        frame::{HEADER, Header, split_cstr, split_u32},
        frontend as fe,
    },
    session::state::{ClientSession, SOMEBODY},
    sql::{Kind, PoolerStatement},
};

/// What a client has asked of pooler itself and is not done with.
#[derive(Debug, Default)]
pub(super) struct Own {
    /// It waits for the answer.
    pub(super) asked: Option<Asked>,
    /// Messages of the extended protocol that no Sync has ended.
    batch: Option<Box<Batch>>,
}

#[derive(Debug, Default)]
struct Batch {
    portals: Portals,
    /// Up to Sync nothing is done.
    failed: bool,
}

/// A statement that is answered here.
#[derive(Clone, Debug)]
pub(super) enum Request {
    Pooler(PoolerStatement),
    Begin(HeldBegin),
}

impl Request {
    /// It gives a row.
    pub(super) fn is_show(&self) -> bool {
        matches!(self, Self::Pooler(PoolerStatement::Show { .. }))
    }
}

impl Own {
    /// In another cluster: a question has to be asked anew.
    pub(super) fn moved(self) -> Self {
        Self { asked: None, ..self }
    }

    /// An error has been told, and no Sync has ended it.
    pub(super) fn skips(&self) -> bool {
        self.batch.as_ref().is_some_and(|batch| batch.failed)
    }

    /// Messages have been answered, and no Sync has ended them.
    pub(super) fn is_amid_batch(&self) -> bool {
        self.batch.is_some()
    }

    /// What it waits for is not carried out.
    pub(super) fn refused(&mut self) {
        *self = Self::default();
    }
}

/// What has become of a client's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// It is not about pooler.
    Nothing,
    /// So many bytes were answered.
    Used(usize),
    /// The same, and what follows has to wait.
    Waits(usize),
}

/// What has become of one message.
enum Step {
    /// Answered: so many bytes.
    Done(usize),
    /// The same, and it ends the batch.
    Ends(usize),
    /// It waits.
    Waits,
    /// Not all of it is here.
    Cut,
    /// It is not about pooler.
    Other,
}

impl Worker {
    /// Answers what a client's input begins with, if it is about pooler, and everything before it has been answered.
    pub(super) fn answer_own(&mut self, slot: usize, input: &[u8]) -> Said {
        if !self.begins_own(slot, input) {
            return Said::Nothing;
        }
        // Behind an error nothing goes to the server up to Sync, whatever that still owes.
        let failed = self.own_of(slot).is_some_and(|own| own.skips());
        let Some(status) = self.status_of(slot).or(failed.then_some(b'E')) else { return Said::Nothing };
        if let Some(client) = self.clients.get_mut(slot)
            && client.routing.as_ref().is_some_and(|routing| routing.own.asked.is_some())
        {
            client.stalled = false;
        }
        let (mut used, mut out) = (0, Vec::new());
        let waits = loop {
            let rest = input.get(used..).unwrap_or_default();
            let step = self.answer_message(slot, rest, status, &mut out);
            if matches!(step, Step::Ends(_) | Step::Other)
                && let Some(own) = self.own_of(slot)
            {
                own.batch = None;
            }
            match step {
                Step::Done(len) => used += len,
                Step::Ends(len) => {
                    used += len;
                    break false;
                }
                Step::Waits => break true,
                Step::Cut | Step::Other => break false,
            }
        };
        if !out.is_empty() {
            self.send_to_client(slot, &out);
        }
        match (waits, used) {
            (true, used) => Said::Waits(used),
            (false, 0) => Said::Nothing,
            (false, used) => Said::Used(used),
        }
    }

    /// Whether the next message is, or belongs to what has been begun here.
    fn begins_own(&mut self, slot: usize, input: &[u8]) -> bool {
        let Some(client) = self.clients.get(slot) else { return false };
        let routed = self.shards.get(client.shard).is_some_and(|shard| shard.seat.is_some());
        // Amid a message there is none to look at.
        if !routed || client.session.passing > 0 {
            return false;
        }
        if client.routing.as_ref().is_some_and(|routing| routing.own.batch.is_some()) {
            return true;
        }
        // Drivers close statements in front of what they do next. No server has to know.
        if input.first() == Some(&fe::CLOSE) {
            return true;
        }
        if !self.look_at(slot, input).is_some_and(|scan| scan.own || scan.unread) {
            return false;
        }
        self.clients.get(slot).is_some_and(|client| {
            first_text(input, &client.session).is_some_and(|tail| self.request(client, tail).is_some())
        })
    }

    /// What the text at the start of this asks for, if it is answered here.
    fn request(&self, client: &Client, tail: &[u8]) -> Option<Request> {
        let (text, _) = split_cstr(tail)?;
        if text.windows(6).any(|part| part.eq_ignore_ascii_case(b"pooler"))
            && let Kind::Pooler(statement) = class_of(text, &client.session).kind
        {
            return Some(Request::Pooler(statement));
        }
        let begun = client.routing.as_ref().is_some_and(|routing| routing.begin.is_some());
        let shard = self.shards.get(client.shard)?;
        let tracked = shard.tracked_statements(client.mode).is_some();
        // Its server must not know of it yet, and there has to be one that it can be sent to.
        let may =
            !begun && tracked && client.mode == PoolMode::Transaction && client.state.server().is_none();
        shard.seat.as_ref().filter(|_| may)?.cluster.primary()?;
        HeldBegin::of(text, &client.session).map(Request::Begin)
    }

    /// The same for a text of this client.
    fn request_of(&self, slot: usize, tail: &[u8]) -> Option<Request> {
        self.request(self.clients.get(slot)?, tail)
    }

    /// The status of a client's transaction, if no reply to it is due.
    fn status_of(&self, slot: usize) -> Option<u8> {
        let client = self.clients.get(slot)?;
        let begun = client.routing.as_ref().is_some_and(|routing| routing.begin.is_some());
        let ClientState::Linked(server) = client.state else {
            return Some(if begun { b'T' } else { client.status_refused() });
        };
        let session = &self.servers.get(server)?.session;
        let quiet =
            session.pipeline.is_empty() && session.pipeline.is_closed() && client.session.passing == 0;
        match session.status {
            _ if !quiet => None,
            TransactionStatus::Idle => Some(b'I'),
            TransactionStatus::InTransaction => Some(b'T'),
            // The server has to say so.
            TransactionStatus::Failed => None,
        }
    }

    fn own_of(&mut self, slot: usize) -> Option<&mut Own> {
        self.clients.get_mut(slot).map(|client| &mut client.routing.get_or_insert_default().own)
    }

    fn batch_of(&mut self, slot: usize) -> Option<&mut Batch> {
        self.own_of(slot).map(|own| &mut **own.batch.get_or_insert_default())
    }

    fn answer_message(&mut self, slot: usize, rest: &[u8], status: u8, out: &mut Vec<u8>) -> Step {
        let Some(header) = Header::peek(rest) else { return Step::Cut };
        let (tag, len) = (header.tag, header.total());
        let batch = self.own_of(slot).and_then(|own| own.batch.as_deref());
        let begun = batch.is_some();
        match tag {
            fe::TERMINATE => return Step::Other,
            _ if header.len < 4 => return Step::Other,
            // As after every error.
            _ if tag != fe::SYNC && batch.is_some_and(|batch| batch.failed) => {
                return self.skip(slot, len, rest);
            }
            _ => {}
        }
        let Some(message) = rest.get(..len) else {
            // A long one, of which a server gets what is there.
            return if rest.len() < crate::session::upstream::STREAM_OVER { Step::Cut } else { Step::Other };
        };
        let body = message.get(HEADER..).unwrap_or_default();
        let done = match tag {
            fe::SYNC if begun => {
                let failed = batch.is_some_and(|batch| batch.failed);
                // BEGIN may have been among it.
                let status = self.status_of(slot).unwrap_or(status);
                encode::ready_for_query(out, self.end_of_batch(slot, status, failed));
                return Step::Ends(len);
            }
            fe::FLUSH if begun => Some(()),
            fe::QUERY => return self.answer_query(slot, message, status, out),
            fe::EXECUTE => return self.answer_execute(slot, body, len, out),
            fe::PARSE => self.answer_parse(slot, body, out),
            fe::BIND => self.answer_bind(slot, body, out),
            fe::DESCRIBE => self.answer_describe(slot, body, out),
            fe::CLOSE => self.answer_close(slot, body, out),
            _ => None,
        };
        done.map_or(Step::Other, |()| Step::Done(len))
    }

    fn skip(&mut self, slot: usize, len: usize, rest: &[u8]) -> Step {
        let here = len.min(rest.len());
        if let Some(client) = self.clients.get_mut(slot) {
            client.ignoring = len - here;
        }
        if here == 0 { Step::Cut } else { Step::Done(here) }
    }

    fn answer_query(&mut self, slot: usize, message: &[u8], status: u8, out: &mut Vec<u8>) -> Step {
        let body = message.get(HEADER..).unwrap_or_default();
        let Some(Request::Pooler(statement)) = self.request_of(slot, body) else { return Step::Other };
        let within = self.within(slot);
        let Some(answer) = self.carry_out_setting(slot, &statement, within) else { return Step::Waits };
        self.replace_unnamed(slot, &[]);
        // BEGIN may have come in front of it, in a batch that it ends.
        let status = self.status_of(slot).unwrap_or(status);
        let failed = matches!(answer, Answer::Refused(..));
        if failed {
            self.fail_transaction(slot);
        }
        out.extend_from_slice(&answer.to(message, self.end_of_batch(slot, status, failed)));
        Step::Ends(message.len())
    }

    /// What a statement belongs to that comes now.
    fn within(&mut self, slot: usize) -> Within {
        match self.status_of(slot) {
            Some(b'T') => Within::Block,
            _ if self.own_of(slot).is_some_and(|own| own.batch.is_some()) => Within::Batch,
            _ => Within::Nothing,
        }
    }

    /// A batch ends here in which the transaction had this status. The one behind it.
    fn end_of_batch(&mut self, slot: usize, status: u8, failed: bool) -> u8 {
        if status == b'I' {
            self.transaction_ended(slot, !failed);
        }
        if failed { behind_error(status) } else { status }
    }

    fn answer_parse(&mut self, slot: usize, body: &[u8], out: &mut Vec<u8>) -> Option<()> {
        let (name, tail) = split_cstr(body)?;
        let request = self.request_of(slot, tail)?;
        parameters(tail)?;
        let session = &mut self.clients.get_mut(slot)?.session;
        let taken = session.statements.as_ref().is_some_and(|known| known.get(name).is_some());
        if matches!(request, Request::Pooler(PoolerStatement::Unclear)) {
            return self.give_answer(slot, &Answer::unclear(), out);
        }
        if taken {
            let name = String::from_utf8_lossy(name);
            let message = format!("prepared statement \"{name}\" already exists");
            return self.give_answer(slot, &Answer::Refused("42P05", message, "Close it first."), out);
        }
        if name.is_empty() {
            self.replace_unnamed(slot, tail);
        } else {
            let path = session.label.get("search_path").unwrap_or_default();
            let statement = self.process.shared.registry.intern(tail, path);
            session.statements.get_or_insert_default().insert(name, statement);
        }
        self.batch_of(slot)?;
        encode::message(out, be::PARSE_COMPLETE, |_| {});
        Some(())
    }

    fn answer_bind(&mut self, slot: usize, body: &[u8], out: &mut Vec<u8>) -> Option<()> {
        let bind = Bind::read(body)?;
        let tail = known(bind.statement, &self.clients.get(slot)?.session)?;
        let types = parameters(tail).map_or(0, |types| (types.len() - 2) / 4);
        let request = self.request_of(slot, tail)?;
        let batch = self.batch_of(slot)?;
        let bound = bind.refusal(types, &request).map_or_else(|| batch.portals.bind(&bind, request), Err);
        match bound {
            Ok(()) => encode::message(out, be::BIND_COMPLETE, |_| {}),
            Err(refused) => self.give_answer(slot, &refused, out)?,
        }
        Some(())
    }

    fn answer_describe(&mut self, slot: usize, body: &[u8], out: &mut Vec<u8>) -> Option<()> {
        let (kind, name) = body.split_first()?;
        let name = split_cstr(name)?.0;
        let (described, format) = if *kind == b'S' {
            let tail = known(name, &self.clients.get(slot)?.session)?;
            let request = self.request_of(slot, tail)?;
            encode::message(out, be::PARAMETER_DESCRIPTION, |b| {
                b.extend_from_slice(parameters(tail).unwrap_or(&[0, 0]));
            });
            (request, 0)
        } else {
            let portal = self.portals(slot)?.get(name)?;
            (portal.request.clone(), portal.format)
        };
        self.batch_of(slot)?;
        match &described {
            Request::Pooler(PoolerStatement::Show { name }) if !self.is_shown(slot, name) => {
                self.give_answer(slot, &Answer::unknown(name), out)?;
            }
            Request::Pooler(PoolerStatement::Show { name }) => describe_row(name, format, out),
            _ => encode::message(out, be::NO_DATA, |_| {}),
        }
        Some(())
    }

    fn answer_execute(&mut self, slot: usize, body: &[u8], len: usize, out: &mut Vec<u8>) -> Step {
        let Some((name, rows)) = split_cstr(body) else { return Step::Other };
        let within = self.within(slot);
        let answer = match self.portals(slot).and_then(|portals| portals.run(name)) {
            None => return Step::Other,
            Some(Run::Answer(answer)) => {
                self.give_answer(slot, &answer, out);
                return Step::Done(len);
            }
            Some(Run::Now(Request::Pooler(statement))) => self.carry_out_setting(slot, &statement, within),
            Some(Run::Now(Request::Begin(begin))) => {
                let answer = begin.answer();
                if let Some(client) = self.clients.get_mut(slot) {
                    client.routing.get_or_insert_default().begin = Some(begin);
                }
                Some(answer)
            }
        };
        let Some(answer) = answer else { return Step::Waits };
        let rows = split_u32(rows).map_or(0, |(rows, _)| rows);
        match answer {
            Answer::Refused(..) => {}
            _ if self.batch_of(slot).is_none_or(|batch| batch.portals.ran(name, rows)) => {}
            answer => {
                answer.row(out);
                encode::message(out, be::PORTAL_SUSPENDED, |_| {});
                return Step::Done(len);
            }
        }
        self.give_answer(slot, &answer, out);
        Step::Done(len)
    }

    /// Of other statements, too, where pooler answers that anyway.
    fn answer_close(&mut self, slot: usize, body: &[u8], out: &mut Vec<u8>) -> Option<()> {
        let (kind, name) = body.split_first()?;
        let name = split_cstr(name)?.0;
        let client = self.clients.get_mut(slot)?;
        if *kind == b'S' {
            let tracked = self.shards.get(client.shard)?.tracked_statements(client.mode).is_some();
            let own = known(name, &client.session).is_some_and(|tail| is_own(tail, &client.session));
            if !own && (name.is_empty() || !tracked) {
                return None;
            }
            if name.is_empty() {
                self.replace_unnamed(slot, &[]);
            } else if let Some(statements) = &mut client.session.statements {
                statements.remove(name);
            }
        } else {
            let linked = client.state.server().is_some();
            if linked && self.portals(slot).is_none_or(|portals| portals.get(name).is_none()) {
                return None;
            }
            self.batch_of(slot)?.portals.remove(name);
        }
        self.batch_of(slot)?;
        encode::message(out, be::CLOSE_COMPLETE, |_| {});
        Some(())
    }

    fn portals(&mut self, slot: usize) -> Option<&Portals> {
        self.own_of(slot)?.batch.as_ref().map(|batch| &batch.portals)
    }

    /// Gives an answer to Execute; what follows an error is skipped.
    fn give_answer(&mut self, slot: usize, answer: &Answer, out: &mut Vec<u8>) -> Option<()> {
        let failed = !answer.execute(out);
        if failed {
            self.fail_transaction(slot);
        }
        self.batch_of(slot)?.failed = failed;
        Some(())
    }

    /// The client's unnamed statement is this one now (none if it is empty), and not what its server has.
    fn replace_unnamed(&mut self, slot: usize, tail: &[u8]) {
        let Some(client) = self.clients.get_mut(slot) else { return };
        client.session.forget_unnamed();
        client.session.unnamed.extend_from_slice(tail);
        if let Some(server) = client.state.server().and_then(|server| self.servers.get_mut(server))
            && server.session.unnamed_of == client.session.id
        {
            server.session.unnamed_of = SOMEBODY;
        }
    }
}

/// The status of a transaction that an error of pooler's own has met.
fn behind_error(status: u8) -> u8 {
    if status == b'T' { b'E' } else { status }
}

/// Text and types of what a client has prepared.
fn known<'a>(name: &[u8], client: &'a ClientSession) -> Option<&'a [u8]> {
    match name {
        [] => Some(client.unnamed.as_slice()).filter(|tail| !tail.is_empty()),
        name => client.statements.as_ref()?.get(name).map(|statement| &*statement.text_and_types),
    }
}

/// Number and types of parameters behind a text, if they are all there.
fn parameters(tail: &[u8]) -> Option<&[u8]> {
    let (_, types) = split_cstr(tail)?;
    let (count, oids) = types.split_first_chunk::<2>()?;
    (oids.len() == usize::from(u16::from_be_bytes(*count)) * 4).then_some(types)
}

/// Whether the text at the start of this is about pooler.
fn is_own(tail: &[u8], client: &ClientSession) -> bool {
    let text = split_cstr(tail).map_or(tail, |(text, _)| text);
    matches!(class_of(text, client).kind, Kind::Pooler(_))
}

/// What the first message is about.
fn first_text<'a>(input: &'a [u8], client: &'a ClientSession) -> Option<&'a [u8]> {
    let header = Header::peek(input)?;
    let body = input.get(HEADER..header.total())?;
    match header.tag {
        fe::QUERY => Some(body),
        fe::PARSE => split_cstr(body).map(|(_, tail)| tail),
        fe::BIND => known(split_cstr(split_cstr(body)?.1)?.0, client),
        fe::DESCRIBE => known(split_cstr(body.strip_prefix(b"S")?)?.0, client),
        _ => None,
    }
}
