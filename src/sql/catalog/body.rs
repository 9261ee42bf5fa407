//! What the body of a function shows, token by token: whether it can be proven to read only (PL/pgSQL), and which
//! functions and relations it mentions.
//!
//! A proof for PL/pgSQL: no statement that is not known to be harmless, no EXECUTE, no handler of exceptions (they swallow
//! what a standby refuses), every call to a safe function, every operator safe, no tainted name. Bodies in SQL are judged
//! by the classifier; of them only the mentions are taken from here.

use super::{
    super::lexer::{Lexer, Token, TokenKind},
    names::{FUNCTION, Names, OPERATOR},
    words::{HARMFUL, NO_CALLS, NO_WRITES, SESSION, STARTS, UTILITIES},
};

const ASYNC: &[u8] = b"synchronous_commit";

/// What a body shows.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// As PL/pgSQL, it cannot be proven harmless, whatever its functions do.
    pub(super) harmful: bool,
    /// Part of what is harmful may change relations.
    pub(super) writes: bool,
    /// It cannot be read, or not for certain.
    pub(super) unclear: bool,
    /// It may touch the session by itself.
    pub(super) session: bool,
    /// It may read relations by itself.
    pub(super) reads: bool,
    pub(super) async_commit: bool,
    /// Known names that it mentions, strings included.
    pub(super) words: Vec<u32>,
    /// Functions that it calls.
    pub(super) calls: Vec<u32>,
    pub(super) operators: Vec<u32>,
}

/// Where the next word stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// A statement starts here.
    Start,
    /// A statement may start here.
    Perhaps,
    Within,
}

struct Scan<'a> {
    text: &'a [u8],
    names: &'a Names,
    facts: Facts,
    place: Place,
    declaring: bool,
    /// SET belongs to a statement that changes a table or an object.
    set_is_data: bool,
}

/// Facts of a body; `names` holds every name of the database already.
pub(super) fn facts(text: &[u8], names: &Names) -> Facts {
    let scan = Scan {
        text,
        names,
        facts: Facts::default(),
        place: Place::Start,
        declaring: false,
        set_is_data: false,
    };
    scan.run()
}

/// An identifier as it is stored: lower case unless quoted.
fn fold(word: &[u8], kind: TokenKind) -> Vec<u8> {
    match kind {
        TokenKind::Quoted => {
            let inside = word.get(1..word.len().saturating_sub(1)).unwrap_or_default();
            let mut quote = false;
            let kept = inside.iter().filter(|byte| {
                quote = **byte == b'"' && !quote;
                !quote
            });
            kept.copied().collect()
        }
        _ => word.to_ascii_lowercase(),
    }
}

fn among(list: &[&str], word: &[u8]) -> bool {
    list.iter().any(|item| item.as_bytes() == word)
}

impl<'a> Scan<'a> {
    fn run(mut self) -> Facts {
        let mut windows = self.text.windows(ASYNC.len());
        self.facts.async_commit = windows.any(|part| part.eq_ignore_ascii_case(ASYNC));
        let tokens: Result<Vec<Token>, _> = Lexer::new(self.text, true).collect();
        let Ok(tokens) = tokens else {
            self.unreadable();
            return self.facts;
        };
        let mut before: Option<Token> = None;
        for (at, token) in tokens.iter().enumerate() {
            self.token(*token, before, tokens.get(at + 1).copied());
            before = Some(*token);
        }
        for list in [&mut self.facts.words, &mut self.facts.calls, &mut self.facts.operators] {
            list.sort_unstable();
            list.dedup();
        }
        self.facts
    }

    fn unreadable(&mut self) {
        self.facts.unclear = true;
        self.harm(true);
        self.facts.reads = true;
        self.facts.session = true;
    }

    fn harm(&mut self, condition: bool) {
        self.facts.harmful |= condition;
        self.facts.writes |= condition;
    }

    fn bytes(&self, token: Token) -> &'a [u8] {
        self.text.get(token.range()).unwrap_or_default()
    }

    fn is(&self, token: Option<Token>, bytes: &[u8]) -> bool {
        token.is_some_and(|token| self.bytes(token) == bytes)
    }

    fn token(&mut self, token: Token, before: Option<Token>, after: Option<Token>) {
        let bytes = self.bytes(token);
        match token.kind {
            TokenKind::Word | TokenKind::Quoted => return self.word(token, before, after),
            TokenKind::Text | TokenKind::Escaped => {
                // With standard_conforming_strings off it would end elsewhere.
                if bytes.first() == Some(&b'\'') && bytes.contains(&b'\\') {
                    self.unreadable();
                }
                self.string(bytes);
            }
            TokenKind::Operator => match self.names.find(bytes) {
                Some(id) if self.names.flags_of(id) & OPERATOR != 0 => self.facts.operators.push(id),
                _ => self.harm(true),
            },
            _ => {}
        }
        match bytes {
            b";" => (self.place, self.set_is_data) = (Place::Start, false),
            // The end of a label, if a statement could start before it.
            b">>" => self.place = Place::Perhaps,
            b"<<" if self.place == Place::Start => self.place = Place::Within,
            _ => {
                // `$1 := …`
                let target = token.kind == TokenKind::Param && self.assigns(after);
                self.harm(self.place == Place::Start && !self.declaring && !target);
                self.place = Place::Within;
            }
        }
    }

    /// Words of a string: it may be run as SQL.
    fn string(&mut self, bytes: &[u8]) {
        let mut data = false;
        for word in
            bytes.split(|byte| !(byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | b'\x80'..)))
        {
            let word = word.to_ascii_lowercase();
            data |= among(&["alter", "conflict", "merge", "update"], &word);
            self.mention(&word, data);
        }
    }

    /// A word in a statement or in a string.
    fn mention(&mut self, word: &[u8], set_is_data: bool) {
        self.facts.session |=
            among(SESSION, word) || (word == b"set" && !set_is_data) || word.starts_with(b"dblink");
        if let Some(id) = self.names.find(word) {
            self.facts.words.push(id);
        }
    }

    fn assigns(&self, after: Option<Token>) -> bool {
        [&b":="[..], b"=", b".", b"["].iter().any(|mark| self.is(after, mark))
    }

    fn word(&mut self, token: Token, before: Option<Token>, after: Option<Token>) {
        let word = fold(self.bytes(token), token.kind);
        let keyword = token.kind == TokenKind::Word && !self.is(before, b".");
        if word.len() > 63 || (token.kind == TokenKind::Word && !word.is_ascii()) {
            // Cut, or folded, as only the server knows.
            self.harm(self.names.find(&word).is_none());
        }
        self.facts.reads |= keyword && among(&["from", "table", "execute"], &word);
        self.set_is_data |= keyword && among(&["alter", "conflict", "merge", "update"], &word);
        let data = self.set_is_data || !keyword;
        self.mention(&word, data);
        if self.is(after, b"(") {
            self.call(&word, keyword);
        }
        self.judge(&word, keyword, after);
        let locks = word == b"share"
            && before.is_some_and(|token| among(&["for", "key"], &self.bytes(token).to_ascii_lowercase()));
        self.harm(keyword && among(HARMFUL, &word));
        self.facts.harmful |= keyword && locks;
        self.follow(&word, keyword);
    }

    fn call(&mut self, word: &[u8], keyword: bool) {
        match self.names.find(word) {
            Some(id) if self.names.flags_of(id) & FUNCTION != 0 => self.facts.calls.push(id),
            _ => self.harm(!(keyword && among(NO_CALLS, word))),
        }
    }

    /// A word where a statement starts, or may start.
    fn judge(&mut self, word: &[u8], keyword: bool, after: Option<Token>) {
        let bad = match self.place {
            Place::Within => false,
            Place::Perhaps => keyword && among(UTILITIES, word) && !self.assigns(after),
            Place::Start if self.declaring => false,
            Place::Start => !(self.assigns(after) || keyword && among(STARTS, word)),
        };
        self.facts.harmful |= bad;
        self.facts.writes |= bad && !(keyword && among(NO_WRITES, word));
    }

    /// What this word makes of the place behind it.
    fn follow(&mut self, word: &[u8], keyword: bool) {
        if !keyword {
            self.place = Place::Within;
            return;
        }
        self.place = match word {
            b"declare" => {
                self.declaring = true;
                Place::Start
            }
            b"begin" => {
                self.declaring = false;
                Place::Start
            }
            b"loop" => Place::Start,
            b"then" | b"else" => Place::Perhaps,
            _ => Place::Within,
        };
        self.set_is_data &= self.place == Place::Within;
    }
}

/// A body in SQL's own form (`RETURN …`, `BEGIN ATOMIC …`) as plain statements.
pub(super) fn statements(body: &str) -> String {
    let body = body.trim();
    if let Some(expression) = body.strip_prefix("RETURN ") {
        return format!("SELECT {expression}");
    }
    let inner = body.strip_prefix("BEGIN ATOMIC").and_then(|rest| rest.strip_suffix("END"));
    inner.unwrap_or(body).to_owned()
}
