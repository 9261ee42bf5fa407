//! What a client's messages may leave in the session although no word of theirs tells of it: noted before they are sent.

use super::{
    outgoing::Outgoing,
    pipeline::Expected,
    text::effect_of,
    traces::Asking,
    upstream::{Upstream, text_of},
};
use crate::sql::{Catalog, traces::Traces};

/// FirstNormalObjectId (access/transam.h): from here on functions are made by users.
const FIRST_OF_USERS: u32 = 16384;

/// What a database's functions may leave in the session that no text tells of.
#[derive(Clone, Copy, Debug)]
pub struct Hidden<'a> {
    pub catalog: &'a Catalog,
    /// The server is not asked, but stays with the client.
    pub binds: bool,
}

impl Upstream<'_> {
    /// A function by its number: no text tells what it leaves.
    pub(super) fn function_call(&mut self, body: &[u8], out: &mut Outgoing<'_>) -> bool {
        if self.server.pipeline.skipping() {
            return false;
        }
        let oid = body.first_chunk().copied().map_or(0, u32::from_be_bytes);
        let called = Traces::of_function(oid);
        self.ask_for_sequences(called.asks, true, out);
        self.server.traces.expect(&called);
        if let Some(hidden) = self.hidden.filter(|_| oid >= FIRST_OF_USERS)
            && let Some(traces) = hidden.catalog.hidden_anywhere()
        {
            self.expect_left(&traces, true, out);
        }
        self.note(Expected::FunctionCall)
    }

    /// Notes what functions leave that a text calls. `query`: it comes in a Query.
    pub(super) fn expect_hidden(&mut self, text: &[u8], query: bool, out: &mut Outgoing<'_>) {
        let Some(hidden) = self.hidden else { return };
        let mut traces = hidden.catalog.hidden_in(text_of(text));
        if self.server.altered && traces.is_none() {
            // By what the transaction has made itself.
            traces = Some(Box::new(Traces::everything()));
        }
        if let Some(traces) = traces {
            self.expect_left(&traces, query, out);
        }
    }

    /// A statement is bound, whose text is of use now and then.
    pub(super) fn note_bound(&mut self, name: &[u8]) {
        if self.server.audit.is_none() && !self.client.sequences.asks_later() {
            return;
        }
        let named = self.statement(name).filter(|_| !name.is_empty());
        let unnamed = std::mem::take(&mut self.client.unnamed);
        let text = named.as_ref().map_or(&*unnamed, |named| &*named.text_and_types);
        self.server.note_text(text_of(text));
        self.note_draws(text);
        self.client.unnamed = unnamed;
    }

    /// The same of a statement that is bound.
    pub(super) fn expect_hidden_of(&mut self, name: &[u8], out: &mut Outgoing<'_>) {
        let Some(hidden) = self.hidden else { return };
        if name.is_empty() {
            let text = std::mem::take(&mut self.client.unnamed);
            self.expect_hidden(&text, false, out);
            self.client.unnamed = text;
        } else if let Some(traces) = self.statement(name).and_then(|known| known.hidden(hidden.catalog)) {
            self.expect_left(&traces, false, out);
        }
    }

    pub(super) fn expect_left(&mut self, traces: &Traces, query: bool, out: &mut Outgoing<'_>) {
        self.ask_for_sequences(traces.asks, query, out);
        if traces.are_none() {
            return;
        }
        self.server.traces.expect(traces);
        if self.hidden.is_some_and(|hidden| hidden.binds && hidden.catalog.generation != 0) {
            self.server.traces.expect(&Traces { unclear: true, ..Traces::default() });
        }
    }

    /// A name passes as it is: its server stays with the client for as long as there are such, and whatever one of the texts
    /// may leave is asked for behind each transaction that uses any.
    pub(super) fn keep_with_untracked(&mut self, text: &[u8]) {
        if self.server.asking == Asking::Never {
            return;
        }
        let mut traces = effect_of(text).and_then(|effect| effect.traces).unwrap_or_default();
        if let Some(hidden) = self.hidden.and_then(|hidden| hidden.catalog.hidden_in(text_of(text))) {
            traces.add(&hidden);
            traces.asks = traces.asks.max(hidden.asks);
        }
        traces.objects = true;
        self.server.traces.expect(&traces);
        let untracked = self.server.untracked.get_or_insert_default();
        untracked.add(&traces);
        untracked.asks = untracked.asks.max(traces.asks);
    }
}
