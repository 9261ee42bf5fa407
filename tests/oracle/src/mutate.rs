//! Mutations of statements: where quotes and comments begin and end, calls where keywords are, writes inside of reads.

/// What is put between tokens, or instead of one.
const PIECES: &[&str] = &[
    "'",
    "''",
    "'a'",
    "\"",
    "\"\"",
    "\"a\"",
    "\\",
    "$$",
    "$a$",
    "$a$ x $a$",
    "/*",
    "*/",
    "/* ' */",
    "--",
    "-- '\n",
    "\n",
    "\r",
    "\x0b",
    "E'\\'",
    "E'",
    "e'\\\\'",
    "U&'",
    "U&\"a\"",
    "N'a'",
    "B'1'",
    "X'1f",
    "'a'\n'b'",
    "'\n--x\n'",
    "$1",
    "$1a",
    "1",
    "1.",
    "1..2",
    "0x1f",
    "1_0",
    "1e",
    "é",
    "\"É\"",
    "É",
    ";",
    ";;",
    "(",
    ")",
    "()",
    ",",
    ".",
    "..",
    "::",
    ":=",
    "=>",
    ":",
    "[",
    "]",
    "*",
    "+",
    "-",
    "@-",
    "<->",
    "=-",
    "+-",
    "||",
    "!=",
    " FOR UPDATE",
    " FOR SHARE",
    " FOR NO KEY UPDATE",
    " FOR KEY SHARE OF a",
    "nextval('s')",
    ", nextval('s')",
    " + nextval('s')",
    "pg_catalog.nextval('s')",
    "\"nextval\"('s')",
    "nextval /* x */ ('s')",
    "nextval",
    "unsafe_f(1)",
    "filter(1)",
    "over(1)",
    "by(1)",
    "join(1)",
    "join(select 1)",
    "if(1)",
    "set(1)",
    "sets(1)",
    "rollup(1)",
    "cube(1)",
    "materialized(1)",
    "recursive(1)",
    "conflict(1)",
    "as(1)",
    "with(1)",
    "x.in(1)",
    "x.select(1)",
    "x.values(1)",
    "values(1)",
    "treat(1 as nextval)",
    "treat(1 as int)",
    "operator(pg_catalog.+)",
    "cast(1 as unsafe_t(3))",
    "a::unsafe_t(3)",
    "tainted",
    "x.tainted",
    "\"tainted\"",
    "TAINTED",
    "pg_locks",
    " INTO x",
    " INTO TEMP x",
    "INSERT INTO x VALUES (1)",
    "UPDATE x SET a = 1",
    "DELETE FROM x",
    "MERGE INTO x USING y ON true WHEN MATCHED THEN DELETE",
    "; DELETE FROM x",
    "; SELECT nextval('s')",
    "; COMMIT",
    "BEGIN;",
    "WITH x AS (DELETE FROM y RETURNING *) ",
    "(DELETE FROM y RETURNING *)",
    "WITH RECURSIVE x(a) AS (SELECT 1) ",
    " AS ",
    " AS x(a)",
    " WITH ORDINALITY",
    "DISTINCT ON (1) ",
    "DISTINCT ",
    "GROUP BY ",
    "ORDER BY ",
    " USING <->",
    "CASE WHEN true THEN ",
    " END",
    "EXPLAIN ",
    "EXPLAIN ANALYZE ",
    "EXPLAIN (ANALYZE false) ",
    "SELECT ",
    "VALUES (1) ",
    "TABLE x ",
    " UNION ALL SELECT 1",
    " ON CONFLICT ",
    " ON CONFLICT (a) DO UPDATE SET (a) = (1)",
    " LIMIT 1",
    " FETCH FIRST join(1) ROWS ONLY",
    " TABLESAMPLE system (1)",
    " TABLESAMPLE nextval (1)",
    "COPY ",
    "COPY (",
    ") TO STDOUT",
    " FROM STDIN",
    "SET LOCAL ",
    "SET SESSION ",
    "PREPARE x AS ",
    "DECLARE c CURSOR WITH HOLD FOR ",
    "CREATE TEMP TABLE x AS ",
    "CREATE TABLE x AS ",
    "pg_temp.x",
    "ONLY ",
    "ONLY (x)",
    "LATERAL ",
    " RETURNING nextval('s')",
    "current_schema",
    "current_timestamp(3)",
    "system_user",
    "json_object(1)",
    "json_value(1)",
];

/// Words that are keywords somewhere.
const WORDS: &str = "abort all analyze and any array as begin between bigint bit boolean by call case cast char character coalesce \
    collate column commit conflict copy create cross cube current current_date cycle day declare default delete desc distinct do \
    document double else end escape except execute exists explain extract false fetch filter first float following for from full \
    function grant greatest group grouping groups having hold if ilike in index inner inout insert int integer intersect interval into \
    is isnull join json key language last lateral leading least left like limit local localtime lock match materialized merge name \
    natural nchar next no none normalize not nothing notnull nullif nulls numeric of offset old on only operator or order ordinality \
    out outer over overlaps overlay partition placing position precision prepare primary range real recursive references refresh \
    replace returning right rollback rollup row rows savepoint search select session set setof sets share show similar simple smallint \
    some start substring symmetric system table tablesample temp temporary then time timestamp to trailing treat trim true truncate \
    union unique unlogged update user using value values varchar variadic version view when where window with within without work \
    xmlelement xmlforest xmltable year zone";

pub struct Mutator<'s> {
    state: u64,
    statements: &'s [String],
    words: Vec<&'static str>,
}

impl<'s> Mutator<'s> {
    pub fn new(seed: u64, statements: &'s [String]) -> Self {
        let words = WORDS.split_whitespace().collect();
        Self { state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1, statements, words }
    }

    /// A text, and whether its strings conform to the standard.
    pub fn next(&mut self) -> (String, bool) {
        let mut parts = self.parts();
        for _ in 0..=self.below(3) {
            self.mutate(&mut parts);
        }
        let mut text = parts.concat();
        text.retain(|c| c != '\0');
        (text, self.below(8) != 0)
    }

    fn random(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.random()).unwrap_or(0) % limit.max(1)
    }

    /// A statement in tokens and what is between them.
    fn parts(&mut self) -> Vec<String> {
        let place = self.below(self.statements.len());
        let text: String = self.statements[place].chars().take(600).collect();
        let (mut parts, mut end) = (Vec::new(), 0);
        for token in pg_query::scan_tokens(&text).unwrap_or_default() {
            let (start, stop) = (token.start as usize, token.end as usize);
            parts.extend([text[end..start].to_owned(), text[start..stop].to_owned()]);
            end = stop;
        }
        parts.push(text[end..].to_owned());
        parts.retain(|part| !part.is_empty());
        parts
    }

    fn word(&mut self) -> &'static str {
        let place = self.below(self.words.len());
        self.words[place]
    }

    fn piece(&mut self) -> String {
        match self.below(10) {
            0 | 1 => self.word().to_owned(),
            2 => format!("{}(1)", self.word()),
            3 => format!("x.{}(1)", self.word()),
            _ => PIECES[self.below(PIECES.len())].to_owned(),
        }
    }

    fn mutate(&mut self, parts: &mut Vec<String>) {
        let at = self.below(parts.len());
        let Some(part) = parts.get(at).cloned() else { return parts.push(self.piece()) };
        let is_word = part.starts_with(|c: char| c.is_alphabetic());
        match self.below(12) {
            0..=2 => {
                let space = if self.below(2) == 0 { " " } else { "" };
                parts.insert(at, format!("{space}{}{space}", self.piece()));
            }
            3 | 4 => parts[at] = self.piece(),
            5 => drop(parts.remove(at)),
            6 => parts.insert(at, part),
            7 => {
                let other = self.parts();
                parts.truncate(at);
                let from = self.below(other.len());
                parts.extend_from_slice(&other[from..]);
            }
            8 => {
                let other = self.parts();
                parts.push(";\n".to_owned());
                parts.extend(other);
            }
            9 => {
                // Anywhere, in the middle of tokens too.
                let mut text = parts.concat();
                let mut place = self.below(text.len() + 1);
                while !text.is_char_boundary(place) {
                    place -= 1;
                }
                text.insert_str(place, &self.piece());
                *parts = vec![text];
            }
            10 if is_word => {
                parts[at] = if self.below(2) == 0 { format!("\"{part}\"") } else { part.to_uppercase() }
            }
            10 if part.starts_with('\'') => {
                parts[at] = ["E", "U&", "N", "X", "e"][self.below(5)].to_owned() + &part
            }
            11 if is_word => parts[at] = self.word().to_owned(),
            _ => {
                let blank = ["/**/", "\n", "--x\n", "\t", "/* /* */ */", ""][self.below(6)];
                parts.insert(at, blank.to_owned());
            }
        }
    }
}
