//! What a text may leave in its session when its transaction is over, as far as its words tell. The server knows the rest:
//! it is asked (`session::traces`).
//!
//! What hides in functions is not seen here.

use super::{
    bodies,
    control::{Lasting, lasting, set_config_arguments},
    lexer::{Lexer, Token, TokenKind},
    names,
};

/// Most settings that one text is looked through for.
const MOST_NAMES: usize = 64;
/// Tokens of its arguments that a call is looked through for.
const MOST_ARGUMENTS: usize = 63;

/// Whether a text calls `currval()` or `lastval()`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Asks {
    #[default]
    Nothing,
    /// Behind another statement of the same text, or somewhere in a DO block.
    Amid,
    /// In its first statement.
    First,
}

/// What a text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Statements,
    /// A body in PL/pgSQL.
    Procedural,
    /// A string that a statement is put together of.
    Part,
}

/// What may be left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traces {
    pub settings: bool,
    /// Temporary relations and the like, cursors WITH HOLD, what it listens to, prepared statements.
    pub objects: bool,
    /// Advisory locks.
    pub locks: bool,
    /// Settings with a dot in their name that may have been set: the server lists them nowhere.
    pub names: Vec<Box<str>>,
    /// A setting whose name the text does not tell: nobody can ask for it.
    pub unclear: bool,
    /// What nobody can ask for, nor clear: the seed of random numbers, connections of dblink, replication origins.
    pub lasts: bool,
    /// Not left, but read: what the session's last sequence numbers are.
    pub asks: Asks,
}

impl Traces {
    /// Nothing is left.
    pub fn are_none(&self) -> bool {
        !(self.settings || self.objects || self.locks || self.unclear || self.lasts)
    }

    /// Nothing is left, and nothing asked for.
    pub fn is_nothing(&self) -> bool {
        self.are_none() && self.asks == Asks::Nothing
    }

    /// What another text may leave too.
    pub fn add(&mut self, other: &Self) {
        self.settings |= other.settings;
        self.objects |= other.objects;
        self.locks |= other.locks;
        self.unclear |= other.unclear;
        self.lasts |= other.lasts;
        other.names.iter().for_each(|name| self.name(name));
    }

    fn name(&mut self, name: &str) {
        if self.names.iter().any(|known| **known == *name) {
            return;
        }
        if self.names.len() < MOST_NAMES {
            self.names.push(name.into());
        } else {
            self.unclear = true;
        }
    }

    /// What a function leaves that is called by its number (pg_proc.dat; those of users have higher ones).
    pub fn of_function(oid: u32) -> Self {
        const SET_CONFIG: u32 = 2078;
        const SETSEED: u32 = 1599;
        const CURRVAL: u32 = 1575;
        const LASTVAL: u32 = 2559;
        // lo_open, loread and the like: what clients call so nearly always.
        if matches!(oid, 715 | 764 | 767 | 952..=958 | 964 | 1004 | 3170..=3172 | 3457..=3460) {
            return Self::default();
        }
        let asks = if matches!(oid, CURRVAL | LASTVAL) { Asks::First } else { Asks::Nothing };
        Self { unclear: oid == SET_CONFIG, lasts: oid == SETSEED, asks, ..Self::everything() }
    }

    /// All that can be asked for.
    pub fn everything() -> Self {
        Self { settings: true, objects: true, locks: true, ..Self::default() }
    }
}

/// What this text may leave; `None`: nothing.
pub fn traces(text: &[u8]) -> Option<Box<Traces>> {
    let text = up_to_nul(text);
    let mut traces = read(text, true, Form::Statements);
    if text.contains(&b'\\') {
        let other = read(text, false, Form::Statements);
        traces.add(&other);
        traces.asks = traces.asks.max(other.asks);
    }
    (!traces.is_nothing()).then(|| Box::new(traces))
}

fn up_to_nul(text: &[u8]) -> &[u8] {
    memchr::memchr(0, text).and_then(|end| text.get(..end)).unwrap_or(text)
}

/// Nearly all texts: one statement of those that leave nothing by themselves, without any of the words that could.
pub fn is_quiet(text: &[u8]) -> bool {
    let text = up_to_nul(text).trim_ascii();
    let text = text.strip_suffix(b";").unwrap_or(text);
    begins_quietly(text) && !(looks_suspicious(text) && is_suspicious(text))
}

fn begins_quietly(text: &[u8]) -> bool {
    const LONGEST: usize = 9;
    let mut first = [0; LONGEST];
    let mut end = 0;
    for (to, byte) in first.iter_mut().zip(text).take_while(|(_, byte)| byte.is_ascii_alphabetic()) {
        *to = byte | 0x20;
        end += 1;
    }
    let longer = end == LONGEST && text.get(LONGEST).is_some_and(u8::is_ascii_alphabetic);
    !longer && is_quiet_verb(first.get(..end).unwrap_or_default())
}

#[rustfmt::skip]
fn is_quiet_verb(verb: &[u8]) -> bool {
    matches!(
        verb,
        b"select" | b"insert" | b"update" | b"delete" | b"with" | b"begin" | b"commit" | b"rollback" | b"start"
        | b"end" | b"savepoint" | b"release" | b"values" | b"fetch" | b"merge" | b"copy" | b"show" | b"explain"
    )
}

/// Whether anything that [`is_suspicious`] looks for may be there: by two or three letters of each word, for many
/// places at a time (the inner loops become SIMD), without a branch.
fn looks_suspicious(text: &[u8]) -> bool {
    const AT_ONCE: usize = 16;
    const AHEAD: usize = 2;
    let Some(last) = text.len().checked_sub(AT_ONCE + AHEAD) else { return true };
    let mut found = 0;
    let mut at = 0;
    loop {
        let at_offset = |offset| text.get(at + offset..).and_then(<[u8]>::first_chunk::<AT_ONCE>);
        let (Some(a), Some(b), Some(c)) = (at_offset(0), at_offset(1), at_offset(AHEAD)) else { return true };
        for ((&a, &b), &c) in a.iter().zip(b).zip(c) {
            let end = (a == b';') | (c == b';');
            let (a, b, c) = (a | 0x20, b | 0x20, c | 0x20);
            let config = (a == b'n') & (b == b'f');
            let advisory = (a == b'd') & (b == b'v');
            let temp = (b == b'm') & (c == b'p');
            let dblink = (a == b'd') & (b == b'b');
            let setseed = (a == b't') & (b == b's') & (c == b'e');
            let value = ((a == b'r') & (b == b'r') | (a == b's') & (b == b't')) & (c == b'v');
            // U&"…" may spell any of them.
            let spelled = (a == b'&') & (b == b'"');
            let runs =
                (a == b'x') & (b == b'm') & (c == b'l') | (a == b't') & (b == b's') & (c == b'_' | 0x20);
            let origin = (a == b'n') & (b == b'_' | 0x20) & (c == b'o');
            found |=
                u8::from(end | config | advisory | temp | dblink | setseed | value | runs | origin | spelled);
        }
        if at == last {
            return found != 0;
        }
        // The last ones overlap those before them.
        at = (at + AT_ONCE).min(last);
    }
}

/// A statement behind the first, or `set_config`, `…advisory_…`, `temp`, `dblink`, `setseed`, `currval`, `lastval`, `…_to_xml`,
/// `ts_stat`, `ts_rewrite`, `…_origin_…` or `U&"…"` is in it: found by their rarest letters.
fn is_suspicious(text: &[u8]) -> bool {
    let in_others = |at| {
        is_around(text, at, b"set", b"config")
            || is_around(text, at, b"advisory", b"")
            || is_around(text, at, b"_to", b"xml")
            || is_around(text, at, b"ts", b"stat")
            || is_around(text, at, b"ts", b"rewrite")
            || is_around(text, at, b"", b"origin_")
            || is_around(text, at, b"te", b"p")
    };
    memchr::memchr(b';', text).is_some()
        || memchr::memchr3_iter(b'_', b'm', b'M', text).any(in_others)
        || memchr::memchr2_iter(b'k', b'K', text).any(|at| is_around(text, at, b"dblin", b""))
        || memchr::memchr2_iter(b'd', b'D', text).any(|at| is_around(text, at, b"setsee", b""))
        || has_sequence_value(text)
        || has_spelled_name(text)
}

/// `currval` or `lastval`.
fn has_sequence_value(text: &[u8]) -> bool {
    let in_either = |at| is_around(text, at, b"curr", b"al") || is_around(text, at, b"last", b"al");
    memchr::memchr2_iter(b'v', b'V', text).any(in_either)
}

/// `U&"…"`: a name in escapes.
fn has_spelled_name(text: &[u8]) -> bool {
    memchr::memchr_iter(b'&', text).any(|at| is_around(text, at, b"u", b"\""))
}

fn has_set_config(text: &[u8]) -> bool {
    memchr::memchr_iter(b'_', text).any(|at| is_around(text, at, b"set", b"config"))
}

/// These letters are before and behind a byte of the text.
fn is_around(text: &[u8], at: usize, before: &[u8], behind: &[u8]) -> bool {
    let start = at.checked_sub(before.len()).and_then(|start| text.get(start..at));
    let end = text.get(at + 1..at + 1 + behind.len());
    start.is_some_and(|word| word.eq_ignore_ascii_case(before))
        && end.is_some_and(|word| word.eq_ignore_ascii_case(behind))
}

pub(super) fn read(text: &[u8], standard_strings: bool, form: Form) -> Traces {
    let mut traces = Traces::default();
    let mut lexer = Lexer::new(text, standard_strings);
    let (mut starts, mut first, mut before): (_, _, &[u8]) = (true, true, b"");
    let (mut has_block, mut creates) = (false, false);
    while let Some(token) = lexer.next() {
        let Ok(token) = token else {
            // Whatever it is.
            traces.add(&Traces::everything());
            traces.unclear |= form != Form::Statements || has_set_config(text) || has_spelled_name(text);
            traces.asks =
                if has_sequence_value(text) || has_spelled_name(text) { Asks::First } else { Asks::Nothing };
            return traces;
        };
        let raw = text.get(token.range()).unwrap_or_default();
        if starts {
            traces.begin(raw, &lexer, form);
            let is = |word: &[u8]| raw.eq_ignore_ascii_case(word);
            has_block |= form == Form::Statements && is(b"do");
            creates |= form == Form::Statements && is(b"create");
        }
        traces.word(token, before, &lexer);
        let asks = traces.asks.max(if first { Asks::First } else { Asks::Amid });
        traces.asks = if asks_for_sequence(token, &lexer) { asks } else { traces.asks };
        let ends = token.kind == TokenKind::Punctuation(b';');
        starts = ends || form == Form::Procedural && starts_block(raw);
        first &= !ends;
        before = raw;
    }
    if creates && makes_code(text) {
        // They may be called before it is known what they do.
        let names = bodies::of_blocks(text).names;
        traces.add(&Traces { names, ..Traces::everything() });
    }
    if has_block {
        // Once for all of them: a text may consist of nothing else.
        let blocks = bodies::of_blocks(text);
        traces.add(&blocks);
        traces.asks = traces.asks.max(blocks.asks);
    }
    traces
}

/// It is about a function or a procedure.
fn makes_code(text: &[u8]) -> bool {
    let finds = |word: &[u8]| text.windows(word.len()).any(|part| part.eq_ignore_ascii_case(word));
    finds(b"function") || finds(b"procedure")
}

/// A statement may follow this word of PL/pgSQL.
fn starts_block(word: &[u8]) -> bool {
    ["begin", "then", "else", "loop"].iter().any(|known| word.eq_ignore_ascii_case(known.as_bytes()))
}

/// A call of `currval` or `lastval` starts here.
fn asks_for_sequence(token: Token, lexer: &Lexer<'_>) -> bool {
    let mut buffer = [0; names::LONGEST];
    matches!(token.kind, TokenKind::Word | TokenKind::Quoted)
        && matches!(names::fold(lexer.text(), token, &mut buffer), Some(b"currval" | b"lastval"))
        && is_called(lexer)
}

/// A parenthesis follows.
fn is_called(lexer: &Lexer<'_>) -> bool {
    let next = lexer.clone().next().and_then(Result::ok);
    next.is_some_and(|next| next.kind == TokenKind::Punctuation(b'('))
}

impl Traces {
    /// The first word of a statement.
    fn begin(&mut self, first: &[u8], lexer: &Lexer<'_>, form: Form) {
        let is = |words: &[&str]| words.iter().any(|word| first.eq_ignore_ascii_case(word.as_bytes()));
        if is(&["set"]) {
            self.set(lexer, form);
        } else if form == Form::Procedural && is(&["declare", "close"]) {
            // Its variables, and cursors of its own.
        } else if is(&["reset"]) {
            self.settings = true;
        } else if is(&["do"]) && form != Form::Statements {
            self.add(&Self { unclear: true, ..Self::everything() });
        } else if is(&["do", "call", "discard"]) {
            self.add(&Self::everything());
        } else if is(&["create", "drop", "declare", "close", "listen", "unlisten", "prepare", "deallocate"]) {
            self.objects = true;
        }
    }

    /// Behind SET.
    fn set(&mut self, lexer: &Lexer<'_>, form: Form) {
        match lasting(lexer) {
            Lasting::Nothing => return,
            // The name is put in its place elsewhere.
            Lasting::Setting(name) if name.is_empty() => self.unclear |= form == Form::Part,
            Lasting::Setting(name) if name.contains('.') => self.name(&name),
            Lasting::Setting(_) => {}
            Lasting::Unreadable => self.unclear = true,
        }
        self.settings = true;
    }

    /// Any word, and what stands before it (EXPLAIN ANALYZE CREATE TEMP TABLE … makes one). Many tables are called templates, or
    /// advisories.
    fn word(&mut self, token: Token, before: &[u8], lexer: &Lexer<'_>) {
        if !matches!(token.kind, TokenKind::Word | TokenKind::Quoted) {
            return;
        }
        let mut buffer = [0; names::LONGEST];
        let Some(name) = names::fold(lexer.text(), token, &mut buffer) else { return };
        let behind = |words: &[&str]| words.iter().any(|word| before.eq_ignore_ascii_case(word.as_bytes()));
        let temporary = matches!(name, b"temp" | b"temporary")
            && behind(&["into", "local", "global", "create", "replace"]);
        // DECLARE … WITH HOLD in a body, in any form.
        self.objects |= name == b"hold" && behind(&["with"]);
        self.objects |= temporary || name == b"pg_temp" || name.starts_with(b"pg_temp_");
        let locks = name.starts_with(b"pg_advisory_") || name.starts_with(b"pg_try_advisory_");
        // Those of a transaction end with it.
        self.locks |= locks && memchr::memmem::find(name, b"xact").is_none();
        self.lasts |= (name == b"setseed" || name.starts_with(b"dblink")) && is_called(lexer);
        if name == b"set_config" {
            self.set_config(lexer);
        }
        // They run a text that they are given.
        let runs = matches!(name, b"ts_stat" | b"ts_rewrite") || name.ends_with(b"_to_xml");
        if runs && is_called(lexer) {
            self.add(&Self { unclear: true, ..Self::everything() });
        }
        self.lasts |= name.starts_with(b"pg_replication_origin_session_");
    }

    /// Behind `set_config`.
    fn set_config(&mut self, lexer: &Lexer<'_>) {
        let mut behind = lexer.clone();
        if !matches!(behind.next(), Some(Ok(token)) if token.kind == TokenKind::Punctuation(b'(')) {
            return;
        }
        let told = set_config_arguments(&behind, MOST_ARGUMENTS);
        if told.local && told.whole {
            return;
        }
        self.settings = true;
        match told.name {
            Some(name) if name.contains('.') => self.name(&name.to_ascii_lowercase()),
            Some(_) => {}
            None => self.unclear = true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Traces {
        Traces {
            settings: true,
            names: names.iter().map(|name| (*name).into()).collect(),
            ..Traces::default()
        }
    }

    fn settings() -> Traces {
        names(&[])
    }

    fn lasts() -> Traces {
        Traces { lasts: true, ..Traces::default() }
    }

    fn asks(asks: Asks) -> Traces {
        Traces { asks, ..Traces::default() }
    }

    fn objects() -> Traces {
        Traces { objects: true, ..Traces::default() }
    }

    fn locks() -> Traces {
        Traces { locks: true, ..Traces::default() }
    }

    #[test]
    fn what_is_left_is_told_by_the_words() {
        for (text, expected) in [
            ("SET work_mem = '1MB'", settings()),
            ("set session work_mem to 1", settings()),
            ("SET app.tenant = 'x'", names(&["app.tenant"])),
            ("SET SESSION App.\"Tenant\" TO 'x'", names(&["app.tenant"])),
            ("SET session.x = 1", names(&["session.x"])),
            ("SET local.x = 1", names(&["local.x"])),
            ("SET local TO 1", settings()),
            ("SET constraints = 1", settings()),
            ("BEGIN; SET a.b = 1; SET LOCAL c.d = 1", names(&["a.b"])),
            ("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", settings()),
            ("SET ROLE app", settings()),
            ("RESET ALL", settings()),
            ("SELECT set_config('a.B', $1, false)", names(&["a.b"])),
            ("SELECT pg_catalog.set_config ( 'work_mem', f(1, 2), $1 )", settings()),
            ("SELECT Set_Config('a.b', 'true', true), set_config('c.d', '', 'f')", names(&["c.d"])),
            ("SELECT set_config($1, $2, false)", Traces { unclear: true, ..settings() }),
            ("SELECT set_config('a.' || x, '1', false)", Traces { unclear: true, ..settings() }),
            ("DO $$ $$", Traces::everything()),
            ("/* c */ CALL p()", Traces::everything()),
            ("DISCARD ALL", Traces::everything()),
            ("CREATE TEMP TABLE t (x int)", objects()),
            ("SELECT 1 INTO TEMPORARY t", objects()),
            ("SELECT 1 INTO pg_temp.t", objects()),
            ("EXPLAIN ANALYZE CREATE TEMP TABLE t AS SELECT 1", objects()),
            (
                "SELECT u&\"set\\005fconfig\"('a.b', 'x', false)",
                Traces { unclear: true, asks: Asks::First, ..Traces::everything() },
            ),
            (
                "SELECT query_to_xml('SELECT 1', true, true, '')",
                Traces { unclear: true, ..Traces::everything() },
            ),
            ("SELECT * FROM ts_stat('SELECT v')", Traces { unclear: true, ..Traces::everything() }),
            ("SELECT pg_replication_origin_session_setup('x')", lasts()),
            ("SELECT currval('s')", asks(Asks::First)),
            ("SELECT pg_catalog.\"lastval\" ()", asks(Asks::First)),
            ("INSERT INTO t DEFAULT VALUES; SELECT LASTVAL()", asks(Asks::Amid)),
            ("SELECT 1; SELECT lastval(); SELECT lastval()", asks(Asks::Amid)),
            ("DO $$ BEGIN PERFORM currval('s'); END $$", Traces { asks: Asks::Amid, ..Traces::everything() }),
            ("SELECT '\\', currval('s') --'", asks(Asks::First)),
            ("SELECT lastval(); \u{1}", Traces { asks: Asks::First, ..Traces::everything() }),
            ("DECLARE c CURSOR WITH HOLD FOR SELECT 1", objects()),
            ("SELECT 1; LISTEN a", objects()),
            ("SELECT pg_try_advisory_lock(1)", locks()),
            ("select \"pg_advisory_unlock_all\"()", locks()),
            ("SELECT setseed(0.5)", lasts()),
            ("SELECT dblink_connect('x')", lasts()),
            ("SELECT '\\'; SET a.b = 1; --'", names(&["a.b"])),
            ("SELECT temp FROM t; é\u{1}", Traces::everything()),
            ("SELECT set_config(a, b, c); \u{1}", Traces { unclear: true, ..Traces::everything() }),
        ] {
            assert_eq!(traces(text.as_bytes()).map(|traces| *traces), Some(expected), "{text}");
            assert_eq!(traces(format!("{text}\0\0\0").as_bytes()), traces(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn most_texts_leave_nothing() {
        for text in [
            "",
            ";",
            "SELECT 1",
            " select * FROM offset_configs WHERE name = 'x';",
            "UPDATE t SET x = 1",
            "BEGIN",
            "SET LOCAL a.b = 1",
            "SET TRANSACTION READ ONLY",
            "BEGIN; SET LOCAL work_mem = 1; SELECT set_config('a.b', $1, true); COMMIT",
            "SET CONSTRAINTS ALL DEFERRED",
            "SELECT 'set_config(1)', 'advisory_'",
            "SHOW work_mem",
            "EXPLAIN SELECT 1",
            "SELECT temp, temporary FROM templates JOIN temp_readings USING (advisory_id)",
            "SELECT pg_advisory_xact_lock(1), pg_try_advisory_xact_lock_shared(2)",
            "SELECT dblinks, setseeds FROM dblink",
            "SELECT lastval, currval FROM t WHERE lastval IN (1) AND x = 'currval(1)'",
        ] {
            assert_eq!(traces(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn what_is_quiet_leaves_nothing() {
        let words = [
            "set_config('a', 'b', false)",
            "pg_advisory_lock(1)",
            "1 INTO TEMP t",
            "1 into temp",
            "dblink('')",
        ];
        let words = words.iter().chain(&[
            "U&\"pg\\005ftemp\"",
            "SetSeed(1)",
            "CurrVal('s')",
            "lastval()",
            "Query_To_XML('')",
            "ts_stat('')",
            "TS_REWRITE('')",
            "pg_replication_origin_session_setup('')",
            "1; SET a.b = 1",
            "1;listen a",
        ]);
        for word in words {
            // At every place of what is looked at together.
            for before in 0..40 {
                for behind in 0..40 {
                    let text = format!("SELECT {}{word}{}", "x".repeat(before), "y".repeat(behind));
                    assert!(!is_quiet(text.as_bytes()), "{text}");
                }
            }
        }
        for text in [
            "SELECT abalance FROM pgbench_accounts WHERE aid = 1;\0",
            "SELECT $1 FROM t\0\0\x01\0\0\0\x17",
            "select 1",
            "BEGIN;\0",
            "Savepoint a",
        ] {
            assert!(is_quiet(text.as_bytes()), "{text}");
        }
        for text in ["savepoints a", "savepointselect 1", "", "SET x = 1", "selec", "/**/ select 1"] {
            assert!(!is_quiet(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn too_many_names_are_unclear() {
        let text: String = (0..=MOST_NAMES).map(|n| format!("SET a.b{n} = 1;")).collect();
        let traces = traces(text.as_bytes()).unwrap();
        assert!(traces.unclear && traces.names.len() == MOST_NAMES);
    }
}
