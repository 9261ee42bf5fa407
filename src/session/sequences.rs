//! `currval()` and `lastval()`: right, or an error, and never a number that another client has drawn.
//!
//! A server keeps the last number of each sequence that its session has drawn (sequence.c), by `nextval()`, by a
//! default, in a trigger: no text tells. So a server is the only one to know, and it would tell whoever asks. It forgets
//! with DISCARD SEQUENCES, which goes in front where the numbers may be another client's: before the transactions of
//! clients that are known to ask, and before the first question of others. Then the server says itself that there is
//! no number yet. A client that asks outside of a transaction block wants a number of an earlier one: its server
//! stays with it from then on.

use super::{
    downstream::Downstream,
    outgoing::Outgoing,
    pipeline::Expected,
    state::{ClientSession, NOBODY, SOMEBODY, ServerSession},
    statements,
    traces::Asking,
    upstream::Upstream,
};
use crate::{
    protocol::{
        TransactionStatus,
        backend::{self as be, error_field},
        encode, frontend as fe,
    },
    sql::traces::Asks,
};

const DISCARD: &str = "DISCARD SEQUENCES";
/// Of the statement and the portal that carry it in the extended protocol.
const NAME: &[u8] = b"pooler sequences";

/// How a client asks for the last numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Habit {
    #[default]
    Never,
    /// In the transaction that has drawn them.
    Amid,
    /// Later: its servers stay with it once a statement of a kind that draws numbers has run there.
    Later,
    /// That was not enough: from the first statement on.
    Always,
}

impl Habit {
    /// What it means for the client's servers.
    pub fn told(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::Amid => "servers forget the numbers of others in front of their transactions",
            Self::Later => {
                "they keep the servers on which they have inserted, because they ask for those numbers later"
            }
            Self::Always => "they keep their servers",
        }
    }
}

/// What is known of a client.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sequences {
    habit: Habit,
    /// It has changed, and nobody has been told.
    news: bool,
    /// It has changed with the question that is being answered.
    fresh: bool,
    /// Another server, or the numbers of others, were in the way.
    lost: bool,
    /// How often it has met a server: numbers that it has drawn on an earlier one are not its last ones.
    turn: u64,
}

impl Sequences {
    /// Of a client whose like are known.
    pub fn with(habit: Habit) -> Self {
        Self { habit, ..Self::default() }
    }

    /// What others of its kind are to be known by.
    pub fn take_news(&mut self) -> Option<Habit> {
        std::mem::take(&mut self.news).then_some(self.habit)
    }

    /// How it asks, as far as is known.
    pub(super) fn habit(&self) -> Habit {
        self.habit
    }

    /// It asks for numbers.
    pub(super) fn asks(&self) -> bool {
        self.habit != Habit::Never
    }

    /// It asks for numbers of earlier transactions.
    pub(super) fn asks_later(&self) -> bool {
        self.habit == Habit::Later
    }

    fn learn(&mut self, habit: Habit) {
        self.news |= habit > self.habit;
        self.fresh |= habit > self.habit;
        self.habit = self.habit.max(habit);
    }

    /// Its question has been answered.
    pub(super) fn on_ready(&mut self) {
        self.fresh = false;
    }
}

impl ServerSession {
    /// Numbers are the client's matter in session mode, and nobody draws any at a standby.
    fn minds_sequences(&self) -> bool {
        self.asking != Asking::Never && self.in_hot_standby != Some(true)
    }

    /// The client's own last numbers, and nothing else.
    fn has_numbers_of(&self, client: &ClientSession) -> bool {
        self.sequences_of == client.id && self.sequences_turn == client.sequences.turn
    }

    /// From here on it draws numbers for this client. `clean`: and has no others.
    fn draws_for(&mut self, client: &mut ClientSession, clean: bool) {
        client.sequences.turn += 1;
        self.sequences_turn = client.sequences.turn;
        self.sequences_of = if clean { client.id } else { SOMEBODY };
    }

    /// The server has numbers that its client asks for later.
    fn keep_numbers(&mut self) {
        self.bonds.sequences |= self.minds_sequences();
    }

    /// A client's transaction begins here. Returns what has to go in front.
    pub(super) fn meet_sequences(&mut self, client: &mut ClientSession) -> Option<&'static str> {
        if self.in_hot_standby == Some(true) {
            return None;
        }
        let habit = client.sequences.habit;
        // Who keeps the server must not find numbers of others there, whoever asks when.
        let keeps = self.asking == Asking::Never;
        self.bonds.sequences |= !keeps && habit == Habit::Always;
        if self.has_numbers_of(client) {
            return None;
        }
        let forget = (keeps || habit != Habit::Never) && self.sequences_of != NOBODY;
        client.sequences.lost |= habit != Habit::Never;
        self.draws_for(client, forget || self.sequences_of == NOBODY);
        forget.then_some(DISCARD)
    }
}

/// The text names what draws numbers.
fn draws(text: &[u8]) -> bool {
    let is_word = |at: usize| {
        let word =
            |word: &[u8]| text.get(at..at + word.len()).is_some_and(|part| part.eq_ignore_ascii_case(word));
        word(b"nextval") || word(b"setval")
    };
    memchr::memchr2_iter(b'n', b'N', text).chain(memchr::memchr2_iter(b's', b'S', text)).any(is_word)
}

impl Upstream<'_> {
    /// A text is about to be executed: of a client that asks for its numbers later.
    pub(super) fn note_draws(&mut self, text: &[u8]) {
        if self.client.sequences.habit == Habit::Later && draws(text) {
            self.server.keep_numbers();
        }
    }

    /// A text asks for numbers. `query`: it comes in a Query.
    pub(super) fn ask_for_sequences(&mut self, asks: Asks, query: bool, out: &mut Outgoing<'_>) {
        if asks == Asks::Nothing || !self.server.minds_sequences() {
            return;
        }
        let alone = self.server.status == TransactionStatus::Idle && !self.server.pipeline.executes();
        let later = asks == Asks::First && alone;
        self.client.sequences.learn(if later { Habit::Later } else { Habit::Amid });
        // It refuses the question as well.
        let refuses = self.server.status == TransactionStatus::Failed && self.server.pipeline.is_empty();
        if refuses || self.server.has_numbers_of(self.client) {
            return;
        }
        self.client.sequences.lost = true;
        self.server.draws_for(self.client, true);
        let pipeline = &mut self.server.pipeline;
        if query && pipeline.is_closed() {
            pipeline.push(Expected::InjectedDiscard);
            encode::query(out.inject(), DISCARD);
            return;
        }
        // A Query would end the implicit transaction.
        let mut text_and_types = DISCARD.as_bytes().to_vec();
        text_and_types.extend_from_slice(b"\0\0\0");
        let staged = out.inject();
        statements::write_close(staged, NAME);
        statements::write_parse(staged, NAME, &text_and_types);
        encode::message(staged, fe::BIND, |b| {
            encode::cstr(b, NAME);
            encode::cstr(b, NAME);
            b.extend_from_slice(&[0; 6]);
        });
        encode::message(staged, fe::EXECUTE, |b| {
            encode::cstr(b, NAME);
            b.extend_from_slice(&[0; 4]);
        });
        statements::write_close(staged, NAME);
        for expected in [
            Expected::InjectedStep,
            Expected::InjectedStep,
            Expected::InjectedStep,
            Expected::InjectedExecute,
            Expected::InjectedStep,
        ] {
            pipeline.push(expected);
        }
    }
}

impl Downstream<'_> {
    /// DISCARD ALL or DISCARD SEQUENCES has been carried out. What has been drawn since is this client's; of one that is gone,
    /// nobody can tell.
    pub(super) fn numbers_are_gone(&mut self, tag: &[u8]) {
        let own = self.server.pipeline.front_is_own_query();
        self.server.sequences_of = match self.client.id {
            NOBODY if own && tag == b"DISCARD ALL" => NOBODY,
            NOBODY => SOMEBODY,
            client => client,
        };
        self.server.sequences_turn = self.client.sequences.turn;
        self.server.bonds.sequences &= self.server.pipeline.front_is_injected();
    }

    /// A statement of the client has ended: it may have drawn numbers that are asked for later.
    pub(super) fn note_drawn(&mut self, tag: &[u8]) {
        const DRAWS: [&[u8]; 6] = [b"INSERT", b"UPDATE", b"MERGE", b"COPY", b"CALL", b"DO"];
        if self.client.sequences.habit == Habit::Later && DRAWS.iter().any(|word| tag.starts_with(word)) {
            self.server.keep_numbers();
        }
    }

    /// There is no number, perhaps because of pooler: the error with a hint. From here on the client keeps its server.
    pub(super) fn hinted(&mut self, error: &[u8]) -> Option<Vec<u8>> {
        if error_field(error, b'C') != Some(b"55000") || !self.client.sequences.lost {
            return None;
        }
        let about = matches!(error_field(error, b'R'), Some(b"currval_oid" | b"lastval"));
        if !about || error_field(error, b'H').is_some() {
            return None;
        }
        let known = self.client.sequences.habit >= Habit::Later && !self.client.sequences.fresh;
        self.client.sequences.learn(if known { Habit::Always } else { Habit::Later });
        let hint = "The number was drawn on another server connection of pooler, or the client was not known to ask for it. \
            From now on clients with this application_name keep their server: run it again. \
            INSERT … RETURNING needs neither; see also the setting \"currval\".";
        let mut hinted = Vec::new();
        encode::message(&mut hinted, be::ERROR_RESPONSE, |b| {
            for (code, value) in be::error_fields(error) {
                b.push(code);
                encode::cstr(b, value);
            }
            b.push(b'H');
            encode::cstr(b, hint.as_bytes());
            b.push(0);
        });
        Some(hinted)
    }
}
