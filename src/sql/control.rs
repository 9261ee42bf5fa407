//! Statements about transactions and settings: BEGIN, SET TRANSACTION, COMMIT, SAVEPOINT, SET, RESET, SHOW.
//!
//! What is not in the grammar here is left to the server: it is for the primary.

use super::{
    Kind, PoolerStatement, TransactionMode,
    keywords::Key,
    lexer::{Lexer, Token, TokenKind},
    names,
};

/// What the names of pooler's own settings begin with.
const OWN: &str = "pooler.";

/// Tokens of arguments that are looked at. Longer ones are not what people write, and reading ahead again and again is to
/// stay linear.
pub(super) const MOST_AHEAD: usize = 24;

/// What such a statement does.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Control {
    pub(super) kind: Kind,
    /// It may change relations.
    pub(super) writes: bool,
}

/// Reads the statement behind its first word.
pub(super) fn parse(first: Key, lexer: &Lexer<'_>) -> Control {
    let mut words = Words::new(lexer.clone());
    let kind = match first {
        Key::Begin => words.begin(),
        Key::Start => words.word("transaction").then(|| words.modes()).flatten().map(Kind::Begin),
        Key::Commit | Key::End | Key::Rollback | Key::Abort => return words.end_of_transaction(first),
        Key::Savepoint => words.name_to_end().then_some(Kind::Savepoint),
        Key::Release => {
            // SAVEPOINT may be the word, or the name.
            let word = words.word("savepoint");
            (words.name_to_end() || (word && words.at_end())).then_some(Kind::Savepoint)
        }
        Key::Set => return words.set(),
        Key::Reset => {
            let name = words.pooler_name().filter(|_| words.at_end());
            name.map(|name| Kind::Pooler(PoolerStatement::Reset { name }))
        }
        _ => {
            let name = words.pooler_name().filter(|_| words.at_end());
            name.map(|name| Kind::Pooler(PoolerStatement::Show { name }))
        }
    };
    Control { kind: kind.unwrap_or(Kind::Primary), writes: false }
}

/// The tokens of one statement.
struct Words<'t> {
    lexer: Lexer<'t>,
    /// `None`: at its end, or at junk.
    now: Option<Token>,
}

impl<'t> Words<'t> {
    fn new(lexer: Lexer<'t>) -> Self {
        let mut words = Self { lexer, now: None };
        words.step();
        words
    }

    fn step(&mut self) {
        let token = self.lexer.next().and_then(Result::ok);
        self.now = token.filter(|token| token.kind != TokenKind::Punctuation(b';'));
    }

    fn at_end(&self) -> bool {
        self.now.is_none()
    }

    fn raw(&self, token: Token) -> &'t [u8] {
        self.lexer.text().get(token.range()).unwrap_or_default()
    }

    /// Takes this keyword.
    fn word(&mut self, word: &str) -> bool {
        let found = self.now.is_some_and(|token| {
            token.kind == TokenKind::Word && self.raw(token).eq_ignore_ascii_case(word.as_bytes())
        });
        if found {
            self.step();
        }
        found
    }

    /// Takes this keyword of SET, unless it is the name of a setting, or the start of one (`SET local.x = 1`).
    fn option(&mut self, word: &str) -> bool {
        let mut behind = self.lexer.clone();
        let name = behind.next().and_then(Result::ok).is_some_and(|token| {
            let raw = self.raw(token);
            matches!(raw, b"." | b"=") || raw.eq_ignore_ascii_case(b"to")
        });
        !name && self.word(word)
    }

    /// Takes these keywords; on false it may have taken some of them.
    fn phrase(&mut self, words: &[&str]) -> bool {
        words.iter().all(|word| self.word(word))
    }

    fn punctuation(&mut self, kind: TokenKind) -> bool {
        let found = self.now.is_some_and(|token| token.kind == kind);
        if found {
            self.step();
        }
        found
    }

    /// Takes a name that no keyword can be.
    fn name(&mut self) -> Option<Box<str>> {
        let token = self.now.filter(|t| matches!(t.kind, TokenKind::Word | TokenKind::Quoted))?;
        let mut buffer = [0; names::LONGEST];
        let name = names::fold(self.lexer.text(), token, &mut buffer)?;
        let name = std::str::from_utf8(name).ok()?.into();
        self.step();
        Some(name)
    }

    fn name_to_end(&mut self) -> bool {
        let name = self.now.is_some_and(|t| matches!(t.kind, TokenKind::Word | TokenKind::Quoted));
        if name {
            self.step();
        }
        name && self.at_end()
    }

    /// BEGIN [WORK | TRANSACTION] modes.
    fn begin(&mut self) -> Option<Kind> {
        let _ = self.word("work") || self.word("transaction");
        self.modes().map(Kind::Begin)
    }

    /// Transaction modes up to the end; the last of a kind counts.
    fn modes(&mut self) -> Option<TransactionMode> {
        let mut mode = TransactionMode::default();
        let mut comma = false;
        while !self.at_end() {
            if self.word("isolation") {
                mode.serializable = Some(self.isolation_level()?);
            } else if self.word("read") {
                let only = self.word("only");
                mode.read_only = (only || self.word("write")).then_some(only);
                mode.read_only?;
            } else if !(self.word("deferrable") || self.phrase(&["not", "deferrable"])) {
                return None;
            }
            comma = self.punctuation(TokenKind::Punctuation(b','));
        }
        (!comma).then_some(mode)
    }

    /// Whether it is SERIALIZABLE.
    fn isolation_level(&mut self) -> Option<bool> {
        if !self.word("level") {
            return None;
        }
        if self.word("serializable") {
            return Some(true);
        }
        let known = if self.word("read") {
            self.word("committed") || self.word("uncommitted")
        } else {
            self.phrase(&["repeatable", "read"])
        };
        known.then_some(false)
    }

    fn end_of_transaction(&mut self, first: Key) -> Control {
        let plain = |kind| Control { kind, writes: false };
        let primary = Control { kind: Kind::Primary, writes: true };
        let _ = self.word("work") || self.word("transaction");
        if self.at_end() {
            return plain(Kind::End);
        }
        if self.word("and") {
            let no = self.word("no");
            return match self.word("chain") && self.at_end() {
                true if no => plain(Kind::End),
                true => plain(Kind::Primary),
                false => primary,
            };
        }
        if first == Key::Rollback && self.word("to") {
            let word = self.word("savepoint");
            if self.name_to_end() || (word && self.at_end()) {
                return plain(Kind::Savepoint);
            }
        }
        // … PREPARED: what it changes was not seen.
        primary
    }

    fn set(&mut self) -> Control {
        let control = |kind| Control { kind, writes: false };
        if self.option("constraints") {
            // Runs deferred triggers.
            return Control { kind: Kind::Primary, writes: true };
        }
        let local = self.option("local");
        let session = !local && self.option("session");
        if self.option("transaction") {
            return control(self.modes().map_or(Kind::Primary, Kind::SetTransaction));
        }
        // SET SESSION CHARACTERISTICS, or SET SESSION SESSION CHARACTERISTICS.
        let doubled = self.option("session");
        if (session || doubled) && self.word("characteristics") {
            let mode = self.phrase(&["as", "transaction"]).then(|| self.modes()).flatten();
            let mode = mode.filter(|_| !local);
            return control(mode.map_or(Kind::Primary, Kind::SetCharacteristics));
        }
        if doubled {
            return control(Kind::Primary);
        }
        control(self.setting(local))
    }

    /// name = value
    fn setting(&mut self, local: bool) -> Kind {
        let Some(name) = self.setting_name() else { return Kind::Primary };
        let pooler = name.starts_with(OWN);
        let unclear = || if pooler { Kind::Pooler(PoolerStatement::Unclear) } else { Kind::Primary };
        let equals = self.now.is_some_and(|t| t.kind == TokenKind::Operator && self.raw(t) == b"=");
        if equals {
            self.step();
        } else if !self.word("to") {
            return unclear();
        }
        if self.word("default") {
            let reset = pooler && self.at_end();
            let set = || Kind::Pooler(PoolerStatement::Set { name, value: None, local });
            return if reset { set() } else { unclear() };
        }
        let Some(value) = self.value().filter(|_| self.at_end()) else { return unclear() };
        if pooler {
            return Kind::Pooler(PoolerStatement::Set { name, value: Some(value), local });
        }
        let read_only = |value| TransactionMode { read_only: Some(value), serializable: None };
        let isolation = |value| TransactionMode { read_only: None, serializable: Some(value) };
        match &*name {
            "transaction_read_only" => truth(&value).map(read_only).map(Kind::SetTransaction),
            "transaction_isolation" => is_serializable(&value).map(isolation).map(Kind::SetTransaction),
            "default_transaction_read_only" if !local => {
                truth(&value).map(read_only).map(Kind::SetCharacteristics)
            }
            "default_transaction_isolation" if !local => {
                is_serializable(&value).map(isolation).map(Kind::SetCharacteristics)
            }
            _ => None,
        }
        .unwrap_or(Kind::Primary)
    }

    /// A name with dots in it. Settings are found whatever their case is.
    fn setting_name(&mut self) -> Option<Box<str>> {
        let mut name = String::from(self.name()?);
        while self.punctuation(TokenKind::Punctuation(b'.')) {
            name.push('.');
            name.push_str(&self.name()?);
        }
        name.make_ascii_lowercase();
        Some(name.into())
    }

    fn pooler_name(&mut self) -> Option<Box<str>> {
        self.setting_name().filter(|name| name.starts_with(OWN))
    }

    /// One word, string or number.
    fn value(&mut self) -> Option<Box<str>> {
        let token = self.now?;
        let raw = std::str::from_utf8(self.raw(token)).ok()?;
        let value = match token.kind {
            TokenKind::Word | TokenKind::Quoted => return self.name(),
            TokenKind::Number => raw.into(),
            TokenKind::Text | TokenKind::Escaped => content(raw)?.into(),
            TokenKind::Operator if matches!(raw, "+" | "-") => {
                self.step();
                let number = self.now.filter(|token| token.kind == TokenKind::Number)?;
                [raw, std::str::from_utf8(self.raw(number)).ok()?].concat().into()
            }
            _ => return None,
        };
        self.step();
        Some(value)
    }
}

/// What a string of one part without escapes means.
fn content(raw: &str) -> Option<&str> {
    let inside = raw.strip_prefix('\'').or_else(|| raw.strip_prefix(['e', 'E'])?.strip_prefix('\''));
    inside?.strip_suffix('\'').filter(|inside| !inside.contains(['\'', '\\']))
}

/// A boolean as parse_bool (src/backend/utils/adt/bool.c) reads it.
fn truth(value: &str) -> Option<bool> {
    let value = value.to_ascii_lowercase();
    let starts = |word: &str, least: usize| value.len() >= least && word.starts_with(&value);
    if starts("true", 1) || starts("yes", 1) || starts("on", 2) || value == "1" {
        return Some(true);
    }
    (starts("false", 1) || starts("no", 1) || starts("off", 2) || value == "0").then_some(false)
}

fn is_serializable(value: &str) -> Option<bool> {
    let others = ["repeatable read", "read committed", "read uncommitted"];
    let is = |level: &str| value.eq_ignore_ascii_case(level);
    if is("serializable") { Some(true) } else { others.into_iter().any(is).then_some(false) }
}

/// The first word of a statement that is read here.
pub(super) fn is_control(key: Key) -> bool {
    matches!(
        key,
        Key::Begin
            | Key::Start
            | Key::Commit
            | Key::End
            | Key::Rollback
            | Key::Abort
            | Key::Savepoint
            | Key::Release
            | Key::Set
            | Key::Reset
            | Key::Show
    )
}

/// Functions that set or show a setting.
pub(super) fn is_of_settings(function: &[u8]) -> bool {
    matches!(function, b"set_config" | b"current_setting")
}

/// The name of a setting among the arguments of a call, behind its `(`, is literally one of pooler's.
pub(super) fn starts_with_pooler(lexer: &Lexer<'_>) -> bool {
    let opens = |token: &Token| token.kind == TokenKind::Punctuation(b'(');
    let first = lexer.clone().map_while(Result::ok).find(|token| !opens(token));
    first.is_some_and(|token| is_own_name(lexer, token)) || has_own_by_name(lexer)
}

/// `setting_name => 'pooler.x'`, in whatever place.
fn has_own_by_name(lexer: &Lexer<'_>) -> bool {
    let (mut depth, mut named, mut last) = (0_usize, false, None);
    for token in lexer.clone().take(MOST_AHEAD).map_while(Result::ok) {
        let raw = lexer.text().get(token.range()).unwrap_or_default();
        match token.kind {
            TokenKind::Punctuation(b'(') => depth += 1,
            TokenKind::Punctuation(b')') if depth == 0 => return false,
            TokenKind::Punctuation(b')') => depth -= 1,
            _ if named => return is_own_name(lexer, token),
            _ if raw == b"=>" || raw == b":=" => {
                named = last.is_some_and(|token| is_setting_name(lexer, token))
            }
            _ => last = Some(token),
        }
    }
    false
}

fn is_setting_name(lexer: &Lexer<'_>, token: Token) -> bool {
    let mut buffer = [0; names::LONGEST];
    matches!(token.kind, TokenKind::Word | TokenKind::Quoted)
        && names::fold(lexer.text(), token, &mut buffer) == Some(b"setting_name")
}

/// A string that begins as the names of pooler's settings do.
fn is_own_name(lexer: &Lexer<'_>, token: Token) -> bool {
    let raw = lexer.text().get(token.range());
    let name = raw.and_then(|raw| std::str::from_utf8(raw).ok()).and_then(content);
    name.and_then(|name| name.get(..OWN.len())).is_some_and(|start| start.eq_ignore_ascii_case(OWN))
}

/// A name that was just read is that of a function which is called for a setting of pooler's.
pub(super) fn calls_pooler(name: Token, lexer: &Lexer<'_>) -> bool {
    let mut buffer = [0; names::LONGEST];
    let called = matches!(name.kind, TokenKind::Word | TokenKind::Quoted)
        && names::fold(lexer.text(), name, &mut buffer).is_some_and(is_of_settings);
    let mut behind = lexer.clone();
    called
        && matches!(behind.next(), Some(Ok(token)) if token.kind == TokenKind::Punctuation(b'('))
        && starts_with_pooler(&behind)
}

/// A statement of the text sets, resets or shows a setting of pooler's, or a function of it does.
pub fn names_pooler(text: &[u8], standard_strings: bool) -> bool {
    let mut lexer = Lexer::new(text, standard_strings);
    let mut starts = true;
    while let Some(Ok(token)) = lexer.next() {
        let raw = text.get(token.range()).unwrap_or_default();
        let is = |word: &&str| raw.eq_ignore_ascii_case(word.as_bytes());
        if starts && ["set", "reset", "show"].iter().any(is) {
            let mut words = Words::new(lexer.clone());
            let _ = words.option("session") || words.option("local");
            if words.pooler_name().is_some() {
                return true;
            }
        }
        if calls_pooler(token, &lexer) {
            return true;
        }
        starts = token.kind == TokenKind::Punctuation(b';');
    }
    false
}

/// What the arguments of a call of set_config tell.
#[derive(Debug, Default)]
pub(super) struct SetConfig<'t> {
    /// Which setting it is: the first one is a plain string.
    pub(super) name: Option<&'t str>,
    /// The third one is literally true: it ends with the transaction.
    pub(super) local: bool,
    /// They have been read to their end.
    pub(super) whole: bool,
}

/// Reads the arguments of set_config behind its `(`, up to so many tokens: reading ahead again and again is to stay linear.
pub(super) fn set_config_arguments<'t>(lexer: &Lexer<'t>, most: usize) -> SetConfig<'t> {
    let mut told = SetConfig::default();
    let (mut argument, mut tokens, mut depth) = (0, 0, 0_usize);
    for token in lexer.clone().take(most).map_while(Result::ok) {
        match token.kind {
            TokenKind::Punctuation(b'(' | b'[') => depth += 1,
            TokenKind::Punctuation(b')') if depth == 0 => {
                told.whole = true;
                break;
            }
            TokenKind::Punctuation(b')' | b']') => depth = depth.saturating_sub(1),
            TokenKind::Punctuation(b',') if depth == 0 => {
                (argument, tokens) = (argument + 1, 0);
                continue;
            }
            _ => {}
        }
        tokens += 1;
        let raw = lexer.text().get(token.range()).unwrap_or_default();
        if argument == 0 {
            told.name = std::str::from_utf8(raw).ok().filter(|_| tokens == 1).and_then(content);
        }
        told.local = argument == 2 && tokens == 1 && is_true(token, raw);
    }
    told
}

/// What a SET sets for longer than its transaction.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Lasting {
    Nothing,
    /// A setting of this name, in lower case; empty where there is another word in its place.
    Setting(Box<str>),
    /// A setting whose name cannot be told.
    Unreadable,
}

/// Reads a SET behind that word.
pub(super) fn lasting(lexer: &Lexer<'_>) -> Lasting {
    let mut words = Words::new(lexer.clone());
    if ["local", "transaction", "constraints"].iter().any(|word| words.option(word)) {
        return Lasting::Nothing;
    }
    words.option("session");
    match words.setting_name() {
        Some(name) => Lasting::Setting(name),
        None if words.now.is_some_and(|token| matches!(token.kind, TokenKind::Word | TokenKind::Quoted)) => {
            Lasting::Unreadable
        }
        None => Lasting::Setting(Box::default()),
    }
}

fn is_true(token: Token, raw: &[u8]) -> bool {
    let raw = std::str::from_utf8(raw).unwrap_or_default();
    match token.kind {
        TokenKind::Word => raw.eq_ignore_ascii_case("true"),
        TokenKind::Text => content(raw).and_then(truth) == Some(true),
        _ => false,
    }
}

#[cfg(test)]
#[path = "control_tests.rs"]
mod tests;
