//! What statements change: the relations behind INSERT INTO, UPDATE, DELETE FROM, MERGE INTO and COPY … FROM, wherever
//! in a statement they are.

use super::{
    Facts, Why,
    keywords::{self, Group, Key, Word},
    lexer::{Token, TokenKind},
    names,
    scan::{Last, Scan},
};

/// How far the name of a relation that changes has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    None,
    /// This keyword comes first.
    Behind(Key),
    /// The name comes.
    Wanted,
    /// The name, or its schema.
    Name(Token),
    /// A dot was there.
    Dotted,
    /// COPY: it changes if FROM comes.
    Copied(Token),
}

impl<F: Facts + ?Sized> Scan<'_, F> {
    /// A keyword that changes data, locks rows, or makes relations.
    pub(super) fn changes(&mut self, key: Key, token: Token) {
        let why = if self.last == Last::Start { Why::Statement } else { Why::Word };
        let merging = self.form.merges && self.last == Last::Word(Key::Then);
        self.target_of = key;
        match key {
            // Behind INSERT and MERGE it is read as part of the target: this is SELECT … INTO.
            Key::Into | Key::Call | Key::Create | Key::Execute | Key::Declare | Key::Refresh => {
                self.writes.any = true;
            }
            Key::Insert if !merging => {
                self.form.inserts = true;
                self.target = Target::Behind(Key::Into);
            }
            Key::Merge => {
                self.form.merges = true;
                self.target = Target::Behind(Key::Into);
            }
            Key::Delete if !merging => self.target = Target::Behind(Key::From),
            Key::Update => {
                let locks = self.last == Last::Word(Key::For)
                    || (self.last == Last::Word(Key::Key) && self.second == Last::Word(Key::No));
                let acts = merging || self.last == Last::Word(Key::Do);
                self.awaits_set |= !locks;
                if !locks && !acts {
                    self.target = Target::Wanted;
                }
            }
            _ => {}
        }
        self.violate(why, Some(token));
    }

    pub(super) fn copy(&mut self, token: Token) {
        self.violate(Why::Statement, Some(token));
        (self.form.copy, self.target_of) = (true, Key::Copy);
        self.target = Target::Wanted;
    }

    /// It is COPY itself that is read, not the query in it.
    fn copies(&self) -> bool {
        self.form.copy && self.depth == 0
    }

    /// FROM or TO outside of parentheses; the first tells.
    pub(super) fn copy_direction(&mut self, key: Key) {
        if let Target::Copied(token) = self.target
            && key == Key::From
        {
            self.write(token);
        }
        self.target = Target::None;
    }

    /// A token while the name of a target is being read. False: it is none of that, and has to be looked at.
    pub(super) fn target_token(&mut self, token: Token) -> bool {
        let word = match token.kind {
            TokenKind::Word => keywords::of(self.text, token),
            TokenKind::Quoted => Word::NAME,
            _ => Word { key: Key::Other, group: Group::Reserved },
        };
        let names = matches!(token.kind, TokenKind::Word | TokenKind::Quoted);
        let dot = token.kind == TokenKind::Punctuation(b'.');
        match self.target {
            Target::Behind(key) if word.key == key => self.target = Target::Wanted,
            Target::Wanted if word.key == Key::Only => {}
            // COPY BINARY t
            Target::Wanted if self.copies() && word.group == Group::Function => {}
            Target::Wanted if names && matches!(word.group, Group::Name | Group::Column) => {
                // `SELECT 1 insert INTO TEMP t`
                self.session |= word.key == Key::Temp;
                self.target = Target::Name(token);
            }
            Target::Dotted if names => self.target = Target::Name(token),
            Target::Name(schema) if dot => {
                self.note_temporary(schema);
                self.target = Target::Dotted;
            }
            // UPDATE t *
            Target::Name(_) if self.text.get(token.range()) == Some(b"*") => return true,
            // ONLY (t); its end is read as any other.
            Target::Wanted
                if token.kind == TokenKind::Punctuation(b'(') && self.last == Last::Word(Key::Only) =>
            {
                return false;
            }
            // COPY (SELECT …)
            Target::Wanted if self.copies() && token.kind == TokenKind::Punctuation(b'(') => {
                self.target = Target::None;
                return false;
            }
            Target::Copied(_) => return false,
            _ => {
                let named = matches!(self.target, Target::Name(_));
                self.writes.any |= named && !self.follows(token, word);
                self.end_target();
                return false;
            }
        }
        self.push(Last::Word(word.key));
        true
    }

    /// What may come behind the name of the target. If it is something else, the word that asked for a target was the
    /// name of a column: `SELECT 1 insert INTO t` makes a table, `SELECT 1 delete FROM f(1)` calls a function.
    fn follows(&self, token: Token, word: Word) -> bool {
        let open = token.kind == TokenKind::Punctuation(b'(');
        let is = |keyword: &[u8]| {
            token.kind == TokenKind::Word
                && self.text.get(token.range()).is_some_and(|text| text.eq_ignore_ascii_case(keyword))
        };
        match self.target_of {
            Key::Copy => true,
            Key::Insert => {
                let source = matches!(word.key, Key::As | Key::Select | Key::Values | Key::With | Key::Table);
                open || source || is(b"default") || is(b"overriding")
            }
            Key::Merge => !open && (word.group != Group::Reserved || word.key == Key::As || is(b"using")),
            _ => !open,
        }
    }

    /// Its name is complete; if there is none, anything may change.
    pub(super) fn end_target(&mut self) {
        let target = std::mem::replace(&mut self.target, Target::None);
        match target {
            Target::None => {}
            Target::Name(token) if self.copies() => self.target = Target::Copied(token),
            Target::Name(token) => self.write(token),
            Target::Behind(_) | Target::Wanted | Target::Dotted | Target::Copied(_) => self.writes.any = true,
        }
        if matches!(target, Target::Name(_)) {
            // Whatever key the name looked like.
            self.last = Last::Word(Key::Other);
        }
    }

    fn write(&mut self, token: Token) {
        let mut buffer = [0; names::LONGEST];
        match names::fold(self.text, token, &mut buffer) {
            Some(name) => {
                self.writes.add(&self.catalog.writes_of(name));
                self.session |= self.catalog.relation_touches_session(name);
            }
            None => (self.writes.any, self.session) = (true, true),
        }
    }

    /// A schema that is the session's own.
    pub(super) fn note_temporary(&mut self, token: Token) {
        let mut buffer = [0; names::LONGEST];
        let name = names::fold(self.text, token, &mut buffer).unwrap_or_default();
        self.session |= name.starts_with(b"pg_temp");
    }
}
