//! What the bodies of functions and of DO blocks may leave in a session, by their words.

use super::{
    lexer::{Lexer, TokenKind},
    traces::{Asks, Form, Traces, read},
};

/// What a body in PL/pgSQL may leave, whatever it is called with.
pub(super) fn of_procedural(text: &[u8]) -> Traces {
    let mut traces = read(text, true, Form::Procedural);
    if executes(text) {
        // What it builds is not known, but for the words that it is built of.
        traces.add(&Traces::everything());
        for string in strings(text) {
            let part = read(string, true, Form::Part);
            traces.add(&part);
            traces.asks = traces.asks.max(part.asks);
        }
    }
    traces
}

/// What a body in SQL may leave.
pub(super) fn of_statements(text: &[u8]) -> Traces {
    read(text, true, Form::Statements)
}

/// What the DO blocks of a text may leave: all its strings are bodies, as far as can be told here.
pub(super) fn of_blocks(text: &[u8]) -> Traces {
    let mut traces = Traces::everything();
    // Other languages have variables of their own (GD, %_SHARED).
    let is_known = |word: &[u8]| word.eq_ignore_ascii_case(b"plpgsql") || word.eq_ignore_ascii_case(b"sql");
    traces.lasts = languages(text).any(|language| !is_known(language));
    for string in strings(text) {
        let part = of_procedural(string);
        traces.add(&part);
        // Numbers that a block asks for are nearly always those that it has drawn itself.
        if part.asks != Asks::Nothing {
            traces.asks = Asks::Amid;
        }
    }
    traces
}

/// What stands behind LANGUAGE.
fn languages(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut behind = false;
    Lexer::new(text, true).map_while(Result::ok).filter_map(move |token| {
        let word = text.get(token.range()).unwrap_or_default();
        let is_name = std::mem::replace(&mut behind, word.eq_ignore_ascii_case(b"language"));
        is_name.then(|| inside(word).unwrap_or(word))
    })
}

/// It runs statements that it has put together.
fn executes(text: &[u8]) -> bool {
    Lexer::new(text, true).map_while(Result::ok).any(|token| {
        let word = text.get(token.range()).unwrap_or_default();
        token.kind == TokenKind::Word && word.eq_ignore_ascii_case(b"execute")
    })
}

/// The insides of all strings.
fn strings(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let tokens = Lexer::new(text, true).map_while(Result::ok);
    let texts = tokens.filter(|token| matches!(token.kind, TokenKind::Text | TokenKind::Escaped));
    texts.filter_map(|token| inside(text.get(token.range())?))
}

/// Without its quotes.
fn inside(string: &[u8]) -> Option<&[u8]> {
    if string.first() == Some(&b'$') {
        let tag = string.iter().skip(1).position(|byte| *byte == b'$')? + 2;
        return string.get(tag..string.len().checked_sub(tag)?);
    }
    let start = string.iter().position(|byte| *byte == b'\'')? + 1;
    string.get(start..string.len().checked_sub(1)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(names: &[&str]) -> Traces {
        Traces {
            settings: true,
            names: names.iter().map(|name| (*name).into()).collect(),
            ..Traces::default()
        }
    }

    #[test]
    fn what_procedures_leave_is_told_by_their_words() {
        let objects = Traces { objects: true, ..Traces::default() };
        let anything = |names: &[&str], unclear| Traces {
            unclear,
            names: names.iter().map(|name| (*name).into()).collect(),
            ..Traces::everything()
        };
        for (body, expected) in [
            ("BEGIN PERFORM set_config('app.tenant', x, false); END", settings(&["app.tenant"])),
            ("begin SET app.tenant = 'a'; END", settings(&["app.tenant"])),
            (
                "BEGIN IF x THEN SET a.b TO 1; ELSE SET SESSION c.d = 2; END IF; END",
                settings(&["a.b", "c.d"]),
            ),
            ("BEGIN LOOP SET work_mem = '1MB'; END LOOP; END", settings(&[])),
            ("BEGIN PERFORM set_config(k, v, false); END", Traces { unclear: true, ..settings(&[]) }),
            ("DECLARE x int; BEGIN CREATE TEMP TABLE t (); RETURN; END", objects.clone()),
            ("BEGIN EXECUTE 'SET app.tenant = ' || quote_literal(x); END", anything(&["app.tenant"], false)),
            ("BEGIN EXECUTE format('SET %I = %L', k, v); END", anything(&[], true)),
            ("BEGIN EXECUTE 'SET ' || k; END", anything(&[], true)),
            ("BEGIN EXECUTE $x$SELECT set_config($x$ || k; END", anything(&[], true)),
            ("BEGIN EXECUTE statement; END", anything(&[], false)),
            ("BEGIN PERFORM pg_advisory_lock(1); END", Traces { locks: true, ..Traces::default() }),
            ("BEGIN RETURN lastval(); END", Traces { asks: Asks::First, ..Traces::default() }),
            ("BEGIN PERFORM setseed(1); END", Traces { lasts: true, ..Traces::default() }),
            ("BEGIN \u{1}", Traces { unclear: true, ..Traces::everything() }),
        ] {
            assert_eq!(of_procedural(body.as_bytes()), expected, "{body}");
        }
    }

    #[test]
    fn most_procedures_leave_nothing() {
        for body in [
            "DECLARE c CURSOR FOR SELECT 1; n int := 0; BEGIN OPEN c; CLOSE c; RETURN n; END",
            "BEGIN UPDATE t SET x = 1, y = 'SET a.b = 1'; RETURN NEW; END",
            "BEGIN SET LOCAL app.tenant = 'x'; PERFORM set_config('a.b', x, true); END",
            "BEGIN RAISE EXCEPTION 'set_config(%) TEMP', x; END",
            "BEGIN NEW.updated_at := now(); RETURN NEW; END",
        ] {
            assert!(of_procedural(body.as_bytes()).is_nothing(), "{body}");
        }
        assert!(of_statements(b"SELECT 1; UPDATE t SET x = 1").is_nothing());
    }

    #[test]
    fn other_languages_last() {
        assert!(of_blocks(b"DO LANGUAGE plpython3u $$ GD['x'] = 1 $$").lasts);
        assert!(!of_blocks(b"DO $$ BEGIN END $$ LANGUAGE 'plpgsql'").lasts);
    }

    #[test]
    fn names_in_blocks_are_found() {
        let blocks = of_blocks(b"DO LANGUAGE plpgsql $x$ BEGIN SET a.b = 1; PERFORM currval('s'); END $x$");
        assert_eq!(blocks, Traces { names: vec!["a.b".into()], asks: Asks::Amid, ..Traces::everything() });
        let blocks = of_blocks(b"DO 'BEGIN PERFORM set_config(''c.d'', ''x'', false); END'");
        assert!(blocks.unclear, "quotes within quotes are not read");
    }
}
