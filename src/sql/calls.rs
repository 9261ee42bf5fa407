//! Which identifiers before `(` are calls of functions, and what calling them may do.

use super::{
    Facts, Why,
    control::{MOST_AHEAD, is_of_settings, set_config_arguments, starts_with_pooler},
    keywords::{self, Group, Key},
    lexer::{Lexer, TokenKind},
    names,
    scan::{Last, Pending, Scan},
};

impl<F: Facts + ?Sized> Scan<'_, F> {
    /// An identifier before `(`: a call, unless that cannot be.
    pub(super) fn before_parenthesis(&mut self, pending: Pending, lexer: &Lexer<'_>) {
        use Key::{As, By, Cross, Full, Grouping, Inner, Left, Natural, Not, Outer, Recursive, Right, With};
        if pending.word.group == Group::Column {
            return;
        }
        let second = |key| pending.second == Last::Word(key);
        let is_syntax = match (pending.word.key, pending.before) {
            // The alias of a relation with its columns, a type with its modifiers; a query with its columns.
            (_, Last::Word(As | With)) => return self.mention(pending),
            (_, Last::Word(Recursive)) if second(With) => return self.mention(pending),
            (Key::Explain | Key::Copy, Last::Start) | (Key::Over | Key::Filter, Last::Close) => true,
            (Key::By, Last::Word(Key::Group | Key::Order | Key::Partition)) => true,
            (Key::Join, Last::Word(Left | Right | Inner | Full | Outer | Cross | Natural)) => true,
            (Key::Rollup | Key::Cube, Last::Word(By)) => second(Key::Group),
            (Key::Sets, Last::Word(Grouping)) => true,
            (Key::Materialized, Last::Word(Not)) => second(As),
            (Key::Conflict, Last::Word(Key::On)) => self.form.inserts && !self.form.joins,
            (Key::Insert, Last::Word(Key::Then)) => self.form.merges,
            (Key::Set, _) => self.set == Some(pending.token),
            _ => false,
        };
        if !is_syntax {
            self.call(pending, lexer);
        }
    }

    fn call(&mut self, pending: Pending, lexer: &Lexer<'_>) {
        let token = pending.token;
        let mut buffer = [0; names::LONGEST];
        let name = names::fold(self.text, token, &mut buffer).filter(|_| token.len() <= names::LONGEST);
        let Some(name) = name else {
            self.session = true;
            self.writes.any = true;
            return self.violate(Why::Function, Some(token));
        };
        self.literal |= is_of_settings(name);
        // A server would take it for a setting that somebody has made up.
        if is_of_settings(name) && starts_with_pooler(lexer) {
            self.own = true;
            return self.violate(Why::Function, Some(token));
        }
        let special = matches!(pending.word.key, Key::Treat | Key::Operator);
        let safe = !special && self.catalog.function_is_safe(name);
        if !safe && starts_query(lexer) {
            return;
        }
        self.session |= self.leaves_state(name, lexer);
        self.reads.any |= self.violation.is_none() && self.catalog.function_reads_anything(name);
        if !safe {
            self.violate(Why::Function, Some(token));
            self.writes.any |= special || !self.catalog.function_writes_nothing(name);
        } else if self.catalog.is_tainted(name) {
            // A type of this name: `x::t(3)`, `t(x)`.
            self.violate(Why::Relation, Some(token));
            self.writes.any |= self.catalog.tainted_may_write(name);
        }
    }

    /// Calling it may leave something in the session.
    fn leaves_state(&mut self, name: &[u8], lexer: &Lexer<'_>) -> bool {
        match name {
            b"nextval" | b"setval" => false,
            b"setseed" | b"currval" | b"lastval" => true,
            b"set_config" => {
                let told = set_config_arguments(lexer, MOST_AHEAD);
                let (local, plain) = (told.whole && told.local, told.whole && told.name.is_some());
                self.hidden_setting |= !plain;
                // Its name being known, it follows the client.
                !local && !plain
            }
            _ if name.starts_with(b"dblink") => true,
            _ if name.windows(8).any(|part| part == b"advisory") => {
                !name.windows(4).any(|part| part == b"xact")
            }
            _ => self.catalog.function_touches_session(name),
        }
    }
}

/// A query comes next: `name (SELECT …` is no call, whose argument would be in parentheses of its own.
fn starts_query(lexer: &Lexer<'_>) -> bool {
    let next = lexer.clone().next().and_then(Result::ok).filter(|token| token.kind == TokenKind::Word);
    next.is_some_and(|token| matches!(keywords::of(lexer.text(), token).key, Key::Select | Key::With))
}
