//! BEGIN is answered before any server has it: only the statement behind it tells which node the transaction belongs to.
//!
//! In databases with nodes, and in pool mode `transaction`. It is sent in front of that statement, in the same write. What
//! differs from PostgreSQL: the transaction starts (`now()`) with its first statement.

use super::{Worker, answer::Answer, classes::class_of, routing::Routing};
use crate::{
    config::{PoolMode, Route},
    protocol::{
        encode,
        frame::{HEADER, Header, split_cstr},
        frontend as fe,
    },
    session::{
        pipeline::Expected,
        state::{ClientSession, NOBODY, ServerSession},
        unit,
    },
    sql::{self, Class, Hint, Kind, TransactionMode},
};

/// Longer texts are sent as they are.
const LONGEST: usize = 1024;

/// A BEGIN that no server has yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HeldBegin {
    /// Its text, as the client wrote it.
    text: Box<[u8]>,
    pub(super) mode: TransactionMode,
}

impl HeldBegin {
    /// A text, if it is one that can be held.
    pub(super) fn of(text: &[u8], client: &ClientSession) -> Option<Self> {
        if text.len() > LONGEST || !may_begin(text) {
            return None;
        }
        held_mode(&class_of(text, client)).map(|mode| Self { text: text.into(), mode })
    }

    /// What its client has written.
    pub(super) fn text(&self) -> &[u8] {
        &self.text
    }

    /// The answer to it.
    pub(super) fn answer(&self) -> Answer {
        Answer::Done(tag_of(&self.text))
    }

    /// Puts it in front of what is sent next.
    pub(super) fn send(&self, server: &mut ServerSession, out: &mut Vec<u8>) {
        server.pipeline.push(Expected::InjectedQuery);
        // A simple Query drops the unnamed statement (postgres.c, exec_simple_query).
        server.unnamed_of = NOBODY;
        encode::message(out, fe::QUERY, |b| {
            b.extend_from_slice(&self.text);
            b.push(0);
        });
    }
}

impl Worker {
    /// Answers a BEGIN in the place of a server, if the client's request is nothing else. Returns how many bytes it was.
    pub(super) fn hold_begin(&mut self, slot: usize, input: &[u8]) -> Option<usize> {
        let client = self.clients.get(slot)?;
        let seat = self.shards.get(client.shard)?.seat.as_ref()?;
        let held = client.routing.as_ref().is_some_and(|routing| routing.begin.is_some());
        if held || client.mode != PoolMode::Transaction || self.wanted_route(client) == Route::Primary {
            return None;
        }
        seat.cluster.primary()?;
        let begins = self.look_at(slot, input).is_some_and(|scan| scan.begins.is_some() || scan.unread);
        if !begins {
            return None;
        }
        let client = self.clients.get(slot)?;
        let (text, len) = unit::only_text(input, &client.session)?;
        let begin = HeldBegin::of(text, &client.session)?;
        let request = input.get(..len)?;
        let answer = begin.answer().to(request, b'T');
        let client = self.clients.get_mut(slot)?;
        take_unnamed(request, &mut client.session);
        let routing: &mut Routing = client.routing.get_or_insert_default();
        routing.begin = Some(begin);
        self.send_to_client(slot, &answer);
        Some(len)
    }
}

/// A transaction whose node the next statement decides on.
fn held_mode(class: &Class) -> Option<TransactionMode> {
    match class.kind {
        Kind::Begin(mode) if class.hint != Some(Hint::Primary) => {
            (mode.serializable != Some(true) && mode.read_only != Some(false)).then_some(mode)
        }
        _ => None,
    }
}

/// Whether it is worth a closer look.
fn may_begin(text: &[u8]) -> bool {
    sql::begins_as(text, &[b"begin", b"start", b"/*", b"--"])
}

fn tag_of(text: &[u8]) -> &'static str {
    // Only one of the two words is a command.
    let is_start = text.windows(5).position(|w| w.eq_ignore_ascii_case(b"start"));
    let is_begin = text.windows(5).position(|w| w.eq_ignore_ascii_case(b"begin"));
    match (is_start, is_begin) {
        (Some(start), Some(begin)) if start < begin => "START TRANSACTION",
        (Some(_), None) => "START TRANSACTION",
        _ => "BEGIN",
    }
}

/// An unnamed Parse counts, although no server has seen it.
pub(super) fn take_unnamed(request: &[u8], client: &mut ClientSession) {
    let Some(header) = Header::peek(request) else { return };
    let body = request.get(HEADER..header.total()).unwrap_or_default();
    match header.tag {
        fe::PARSE => {
            if let Some(([], tail)) = split_cstr(body) {
                client.forget_unnamed();
                client.unnamed.extend_from_slice(tail);
            }
        }
        fe::QUERY => client.forget_unnamed(),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tag_is_that_of_the_command() {
        assert_eq!(tag_of(b"begin read only"), "BEGIN");
        assert_eq!(tag_of(b"START TRANSACTION READ ONLY"), "START TRANSACTION");
        assert!(may_begin(b" /* x */ BEGIN") && may_begin(b"BEGIN") && !may_begin(b"SELECT 1"));
    }
}
