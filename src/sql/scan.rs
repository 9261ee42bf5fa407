//! Rules over the tokens of statements that read or change rows: SELECT, WITH, VALUES, TABLE, EXPLAIN, INSERT, UPDATE,
//! DELETE, MERGE, COPY. What these rules do not know is for the primary, and may change anything.
//!
//! A word behind a dot is a name. An identifier before `(` is a function, unless what stands before makes that
//! impossible. Every other identifier may be a relation, a type, or a function of a row (`t.f` is `f(t)`).

use super::{
    Facts, Why,
    keywords::{self, Group, Key, Word},
    lexer::{Lexer, Token, TokenKind, UPPER},
    names::{self, Gathered},
    targets::Target,
};

/// What stands before a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Last {
    Start,
    Dot,
    Open,
    Close,
    /// Of DISTINCT ON (…): an expression follows.
    CloseOn,
    Comma,
    /// A keyword, or an identifier (`Key::Other`).
    Word(Key),
    Else,
}

/// An identifier, until the token behind it tells what it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pending {
    pub(super) token: Token,
    pub(super) word: Word,
    /// Where it is remembered.
    place: u8,
    pub(super) before: Last,
    /// What stands before that.
    pub(super) second: Last,
}

/// Remembered identifiers.
const MEMO: usize = 64;

/// What was found in all statements of a text, and where the scan of one is.
pub(super) struct Scan<'a, F: ?Sized> {
    pub(super) text: &'a [u8],
    pub(super) catalog: &'a F,
    /// The first thing that makes the text one for the primary.
    pub(super) violation: Option<(Why, Option<Token>)>,
    pub(super) reads: Gathered,
    pub(super) writes: Gathered,
    pub(super) session: bool,
    /// A call is about a setting of pooler's.
    pub(super) own: bool,
    /// set_config with a name that cannot be read here.
    pub(super) hidden_setting: bool,
    /// A literal was looked into.
    pub(super) literal: bool,
    /// Identifiers that were looked up already, by their places.
    memo: [u64; MEMO],
    pending: Option<Pending>,
    pub(super) last: Last,
    pub(super) second: Last,
    pub(super) target: Target,
    /// The word that asked for it.
    pub(super) target_of: Key,
    /// UPDATE was there; SET comes, and is then this token.
    pub(super) awaits_set: bool,
    pub(super) set: Option<Token>,
    /// The first words seen of this statement, that change what others mean.
    pub(super) form: Form,
    pub(super) depth: usize,
    /// Depths at which DISTINCT ON (…) is open, as bits; `all` if they are too deep to tell.
    distinct_on: u64,
}

/// What kind of statement it is so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Form {
    pub(super) explain: bool,
    pub(super) copy: bool,
    pub(super) inserts: bool,
    pub(super) merges: bool,
    pub(super) joins: bool,
}

impl<'a, F: Facts + ?Sized> Scan<'a, F> {
    pub(super) fn new(text: &'a [u8], catalog: &'a F) -> Self {
        Self {
            text,
            catalog,
            violation: None,
            reads: Gathered::default(),
            writes: Gathered::default(),
            session: false,
            own: false,
            hidden_setting: false,
            literal: false,
            memo: [0; MEMO],
            pending: None,
            last: Last::Start,
            second: Last::Start,
            target: Target::None,
            target_of: Key::Other,
            awaits_set: false,
            set: None,
            form: Form::default(),
            depth: 0,
            distinct_on: 0,
        }
    }

    pub(super) fn violate(&mut self, why: Why, token: Option<Token>) {
        let why = match why {
            Why::Function | Why::Relation if self.catalog.is_unknown() => Why::NoCatalog,
            why => why,
        };
        self.violation.get_or_insert((why, token));
    }

    /// Its first tokens, up to a word, were read by the caller and say that the rules here are for it.
    pub(super) fn start(&mut self) {
        (self.last, self.second) = (Last::Start, Last::Start);
        (self.form, self.target, self.awaits_set) = (Form::default(), Target::None, false);
        (self.depth, self.distinct_on) = (0, 0);
    }

    /// The statement is over.
    pub(super) fn finish(&mut self) {
        if let Some(pending) = self.pending.take() {
            self.mention(pending);
        }
        // Only DELETE is complete with the name of its target.
        self.writes.any |= self.target != Target::None && self.target_of != Key::Delete;
        self.end_target();
    }

    /// One token; the lexer is behind it.
    pub(super) fn token(&mut self, token: Token, lexer: &Lexer<'_>) {
        if let Some(pending) = self.pending.take() {
            if token.kind == TokenKind::Punctuation(b'(') {
                self.before_parenthesis(pending, lexer);
            } else {
                self.mention(pending);
            }
        }
        if self.target != Target::None && self.target_token(token) {
            return;
        }
        let last = match token.kind {
            TokenKind::Word => self.word(token),
            TokenKind::Quoted => self.quoted(token),
            TokenKind::Punctuation(byte) => self.punctuation(byte),
            TokenKind::Operator => self.spelled(token),
            _ => Last::Else,
        };
        self.push(last);
    }

    pub(super) fn push(&mut self, last: Last) {
        self.second = self.last;
        self.last = last;
    }

    fn punctuation(&mut self, byte: u8) -> Last {
        match byte {
            b'(' => {
                self.depth += 1;
                if self.last == Last::Word(Key::On) && self.second == Last::Word(Key::Distinct) {
                    self.distinct_on |= 1_u64.checked_shl(self.depth_bit()).unwrap_or(u64::MAX);
                }
                Last::Open
            }
            b')' => {
                let bit = 1_u64.checked_shl(self.depth_bit()).unwrap_or(u64::MAX);
                self.depth = self.depth.saturating_sub(1);
                if self.distinct_on & bit == 0 {
                    return Last::Close;
                }
                if bit != u64::MAX {
                    self.distinct_on &= !bit;
                }
                Last::CloseOn
            }
            b',' => Last::Comma,
            b'.' => Last::Dot,
            _ => Last::Else,
        }
    }

    fn depth_bit(&self) -> u32 {
        u32::try_from(self.depth).unwrap_or(u32::MAX)
    }

    fn spelled(&mut self, token: Token) -> Last {
        let operator = self.text.get(token.range()).unwrap_or_default();
        let star = operator == b"*"
            && matches!(self.last, Last::Open | Last::Comma | Last::Dot | Last::Word(Key::Select));
        if !star {
            self.operator(if operator == b"!=" { b"<>" } else { operator }, Some(token));
        }
        Last::Else
    }

    fn operator(&mut self, operator: &[u8], token: Option<Token>) {
        if !self.catalog.operator_is_safe(operator) {
            self.violate(Why::Relation, token);
            self.writes.any = true;
        }
    }

    fn quoted(&mut self, token: Token) -> Last {
        if self.form.explain && self.text.get(token.range()) == Some(b"\"analyze\"") {
            self.violate(Why::Word, Some(token));
        }
        let place = keywords::place(keywords::digest(self.text, token.start(), token.len(), false));
        let (before, second) = (self.last, self.second);
        self.pending = Some(Pending { token, word: Word::NAME, place, before, second });
        Last::Word(Key::Other)
    }

    fn word(&mut self, token: Token) -> Last {
        let fold = token.classes & UPPER != 0;
        let digest = keywords::digest(self.text, token.start(), token.len(), fold);
        let word = if self.last == Last::Dot { Word::NAME } else { keywords::word(self.text, token, digest) };
        if word.key != Key::Other {
            self.keyword(word.key, token);
        }
        if word.group != Group::Reserved {
            let place = keywords::place(digest);
            self.pending = Some(Pending { token, word, place, before: self.last, second: self.second });
        }
        Last::Word(word.key)
    }

    /// Keywords that forbid, or change what others mean.
    fn keyword(&mut self, key: Key, token: Token) {
        match key {
            Key::Insert | Key::Update | Key::Delete | Key::Merge | Key::Call | Key::Into => {
                self.changes(key, token);
            }
            Key::Share | Key::No | Key::Key if self.last == Last::Word(Key::For) => {
                self.violate(Why::Word, Some(token));
            }
            Key::Create => self.changes(key, token),
            Key::Analyze | Key::Execute | Key::Declare | Key::Refresh if self.form.explain => {
                self.changes(key, token);
            }
            Key::Set if self.awaits_set && self.last != Last::Word(Key::As) => {
                (self.awaits_set, self.set) = (false, Some(token));
            }
            // Tells how pooler logged in (PostgreSQL 16).
            Key::SystemUser => self.violate(Why::Function, Some(token)),
            Key::Explain if self.last == Last::Start => self.form.explain = true,
            Key::Copy if self.last == Last::Start => self.copy(token),
            Key::From | Key::To if self.depth == 0 && matches!(self.target, Target::Copied(_)) => {
                self.copy_direction(key)
            }
            Key::Program if self.form.copy => self.writes.any = true,
            Key::Join => self.form.joins = true,
            Key::Temp if self.last == Last::Word(Key::Into) => self.session = true,
            // The operators of other keywords taint every name if they are not safe.
            Key::Similar => self.operator(b"~", Some(token)),
            _ => {}
        }
    }

    /// An identifier that is no function before `(`: a relation, a type, a column, an alias.
    pub(super) fn mention(&mut self, pending: Pending) {
        let token = pending.token;
        if pending.word.group == Group::Function || self.is_known(token, pending.place) {
            return;
        }
        let mut buffer = [0; names::LONGEST];
        let Some(name) = names::fold(self.text, token, &mut buffer) else {
            self.writes.any = true;
            return self.violate(Why::Relation, Some(token));
        };
        if name.starts_with(b"pg_temp") {
            self.session = true;
            self.violate(Why::Relation, Some(token));
        }
        if self.catalog.is_tainted(name) {
            self.violate(Why::Relation, Some(token));
            self.writes.any |= self.catalog.tainted_may_write(name);
            self.session |= self.catalog.relation_touches_session(name);
        }
        if self.violation.is_none() && !self.reads.any {
            self.reads.reserve();
            self.reads.any = !self.catalog.add_reads(name, &mut self.reads.slots);
        }
    }

    /// The same identifier was here before. If not, from now on it was.
    fn is_known(&mut self, token: Token, place: u8) -> bool {
        let Some(entry) = self.memo.get_mut(usize::from(place) % MEMO) else { return false };
        let known = Token::range_of(*entry);
        if known.len() == token.len() && self.text.get(known) == self.text.get(token.range()) {
            return true;
        }
        *entry = token.place();
        false
    }
}
