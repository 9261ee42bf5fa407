//! Classes of texts, in a database with few things in it. Cases name the hazards that they cover.

use super::*;
use crate::sql::{PoolerStatement, TransactionMode, slot};

/// A database with few things in it.
pub(super) struct Database;

const SAFE: &[&str] = &[
    "count",
    "sum",
    "max",
    "lower",
    "upper",
    "now",
    "abs",
    "round",
    "coalesced",
    "row_number",
    "json_object",
    "generate_series",
    "age",
    "left",
    "bpchar",
    "random",
    "string_agg",
    "Mixed",
    "in",
    "sleepy",
    "odd\"name",
    "getall",
    "safe_type",
    "setseed",
];
const TAINTED: &[&str] =
    &["seq", "pg_stat_activity", "v_write", "volatile_col", "bad_type", "größe", "safe_type"];

fn within(list: &[&str], name: &[u8]) -> bool {
    list.iter().any(|known| known.as_bytes() == name)
}

impl Facts for Database {
    fn is_unknown(&self) -> bool {
        false
    }

    fn function_is_safe(&self, name: &[u8]) -> bool {
        within(SAFE, name)
    }

    fn function_reads_anything(&self, name: &[u8]) -> bool {
        within(&["getall"], name)
    }

    fn function_writes_nothing(&self, name: &[u8]) -> bool {
        within(SAFE, name) || within(&["nextval", "set_config", "pg_advisory_lock"], name)
    }

    fn function_touches_session(&self, name: &[u8]) -> bool {
        within(&["sets_things"], name)
    }

    fn relation_touches_session(&self, name: &[u8]) -> bool {
        within(&["v_write", "triggered"], name)
    }

    fn is_tainted(&self, name: &[u8]) -> bool {
        within(TAINTED, name)
    }

    fn tainted_may_write(&self, name: &[u8]) -> bool {
        within(&["v_write", "volatile_col", "bad_type"], name)
    }

    fn operator_is_safe(&self, operator: &[u8]) -> bool {
        operator != b"<->" && operator != b"~"
    }

    fn add_reads(&self, name: &[u8], slots: &mut Vec<u16>) -> bool {
        if name == b"v" {
            slots.push(slot(b"behind_v"));
        }
        slots.push(slot(name));
        name != b"strange"
    }

    fn writes_of(&self, name: &[u8]) -> Names {
        if name == b"triggered" { Names::Any } else { Names::Known(Box::new([slot(name)])) }
    }
}

pub(super) const DIALECT: Dialect = Dialect { standard_strings: true, ascii_safe: true };

fn class(text: &str) -> Class {
    classify_with(text.as_bytes(), DIALECT, &Database)
}

fn known(names: &[&str]) -> Names {
    let mut slots: Vec<u16> = names.iter().map(|name| slot(name.as_bytes())).collect();
    slots.sort_unstable();
    slots.dedup();
    Names::Known(slots.into())
}

#[test]
fn what_only_reads_may_go_to_a_replica() {
    for text in [
        "SELECT 1",
        "select abalance from pgbench_accounts where aid = $1;",
        "TABLE t",
        "VALUES (1), (2)",
        "(SELECT 1) UNION ALL (SELECT 2)",
        "((select a from t))",
        "WITH x AS (SELECT 1) SELECT * FROM x",
        "WITH RECURSIVE x(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM x) SELECT n FROM x",
        "WITH x(a, b) AS NOT MATERIALIZED (SELECT 1, 2) SELECT * FROM x",
        "WITH x AS MATERIALIZED (SELECT 1) SELECT * FROM x",
        "EXPLAIN SELECT a FROM t",
        "EXPLAIN (COSTS off, FORMAT json) SELECT a FROM t",
        ";; SELECT 1 ;;",
        "SELECT 1; SELECT 2",
        "SELECT count(*), max(a) FROM t GROUP BY b HAVING count(*) > 1 ORDER BY 1 DESC LIMIT 1 OFFSET 2",
        "SELECT row_number() OVER (PARTITION BY a ORDER BY b) FROM t",
        "SELECT sum(a) FILTER (WHERE b) FROM t",
        "SELECT a FROM t WHERE b IN (1, 2) AND (c = ANY ($1) OR NOT EXISTS (SELECT 1 FROM u WHERE u.id = t.id))",
        "SELECT coalesce(a, 'x'), CASE WHEN (a) THEN (b) ELSE (c) END, CAST(a AS numeric(10, 2)) FROM t",
        "SELECT a::varchar(10), b::timestamp(3) with time zone, interval '1 day', '1'::char(3) FROM t",
        "SELECT extract(year FROM a), substring(b FROM 1 FOR 2), trim(BOTH ' ' FROM c), position('a' IN b) FROM t",
        "SELECT * FROM a LEFT JOIN (b INNER JOIN c ON true) ON a.id = b.id",
        "SELECT * FROM a JOIN (SELECT 1) b ON true",
        "SELECT * FROM a JOIN LATERAL (SELECT 1) b ON true",
        "SELECT * FROM a CROSS JOIN (b) NATURAL JOIN c",
        "SELECT * FROM generate_series(1, 2) AS g(n)",
        "SELECT a.\"update\", b.insert, c.into FROM a, b, c",
        "SELECT \"insert\", \"into\" FROM t",
        "SELECT 'INSERT INTO x', $$nextval('s')$$, E'\\'; DELETE FROM t' FROM t",
        "SELECT a -- nextval('s'); DELETE FROM t\n FROM t /* INSERT INTO /* t */ */",
        "SELECT current_timestamp(3), current_user",
        "SELECT a FROM ROWS",
        "SELECT LEFT(a, 1) FROM t",
        "SELECT \"Mixed\"(1)",
        "SELECT pg_catalog.lower('A')",
        "SELECT LOWER(a) FROM \"T\"",
        "SELECT a FROM t GROUP BY ROLLUP (a)",
        "SELECT a FROM t GROUP BY GROUPING SETS ((a), ())",
        "SELECT DISTINCT ON (a) a, b FROM t ORDER BY (a)",
        "SELECT a FROM t WHERE a ILIKE b AND c BETWEEN (1) AND (2)",
        "SELECT \"odd\"\"name\"(1)",
        "SELECT a FROM t FETCH FIRST 5 ROWS ONLY",
        "SELECT a[1:2], b->>'c', d #> '{a}' FROM t",
        "SELECT U&'d\\0061t' UESCAPE '!'",
        "SELECT 'a'\n'b'",
        "SELECT a FROM t WHERE b = 'größe'",
        "SELECT a AS \"größe der\", \"ÄÖ\" FROM t",
        "SELECT a FROM \"naïve\", grün",
        "SELECT '' FROM only_this",
        "SELECT a FROM t ORDER BY b USING <",
        "SELECT a AS for_update FROM t",
        "SELECT string_agg(a, ',' ORDER BY b) FROM t",
        // A name that would be cut by the server; the alias of an ORM.
        "SELECT 1 AS \"posts.comments.author.profile.organisation.subscription.createdAt.year\"",
    ] {
        let class = class(text);
        assert_eq!((&class.kind, class.why), (&Kind::Read, Why::Read), "{text}: {class:?}");
        assert_eq!(class.writes, known(&[]), "{text}");
        assert!(!class.async_commit && !class.session && class.culprit.is_none(), "{text}: {class:?}");
    }
}

#[track_caller]
fn primary(cases: &[(&str, Why, &str)]) {
    for (text, why, culprit) in cases {
        let class = class(text);
        let found = (&class.kind, class.why, class.culprit.as_deref().unwrap_or_default());
        assert_eq!(found, (&Kind::Primary, *why, *culprit), "{text}");
        assert_eq!(class.reads, Names::Any, "{text}");
    }
}

/// S55
#[test]
fn what_changes_or_locks_is_for_the_primary() {
    primary(&[
        ("INSERT INTO t VALUES (1)", Why::Statement, "INSERT"),
        ("update t set a = 1", Why::Statement, "update"),
        ("DELETE FROM t", Why::Statement, "DELETE"),
        ("MERGE INTO t USING u ON true WHEN MATCHED THEN DO NOTHING", Why::Statement, "MERGE"),
        ("TRUNCATE t", Why::Statement, "TRUNCATE"),
        ("COPY t TO STDOUT", Why::Statement, "COPY"),
        ("CREATE TABLE t (a int)", Why::Statement, "CREATE"),
        ("LOCK TABLE t IN ACCESS SHARE MODE", Why::Statement, "LOCK"),
        ("ANALYZE", Why::Statement, "ANALYZE"),
        ("\"select\" 1", Why::Statement, "select"),
        ("(INSERT INTO t VALUES (1))", Why::Statement, "INSERT"),
        ("(", Why::Statement, "("),
        ("1", Why::Statement, "1"),
        ("WITH x AS (INSERT INTO t VALUES (1) RETURNING *) SELECT * FROM x", Why::Word, "INSERT"),
        ("WITH x AS (SELECT 1) DELETE FROM t", Why::Word, "DELETE"),
        ("SELECT a INTO b FROM t", Why::Word, "INTO"),
        ("SELECT 1; DELETE FROM t", Why::Statement, "DELETE"),
        ("SELECT a FROM t FOR UPDATE", Why::Word, "UPDATE"),
        ("SELECT a FROM t FOR NO KEY UPDATE SKIP LOCKED", Why::Word, "NO"),
        ("SELECT a FROM t FOR SHARE OF t", Why::Word, "SHARE"),
        ("SELECT a FROM t FOR/**/KEY SHARE", Why::Word, "KEY"),
        ("SELECT count(*) FROM (SELECT 1 FROM t FOR UPDATE) x", Why::Word, "UPDATE"),
        ("EXPLAIN ANALYZE SELECT 1", Why::Word, "ANALYZE"),
        ("EXPLAIN (analyse) SELECT 1", Why::Word, "analyse"),
        ("EXPLAIN (\"analyze\") SELECT 1", Why::Word, "analyze"),
        ("EXPLAIN INSERT INTO t VALUES (1)", Why::Word, "INSERT"),
        ("EXPLAIN EXECUTE p", Why::Word, "EXECUTE"),
        ("EXPLAIN CREATE TABLE x AS SELECT 1", Why::Word, "CREATE"),
        ("EXPLAIN DECLARE c CURSOR FOR SELECT 1", Why::Word, "DECLARE"),
        ("EXPLAIN REFRESH MATERIALIZED VIEW x", Why::Word, "REFRESH"),
        // A column of this name only loses the replica.
        ("SELECT update FROM t", Why::Word, "update"),
        ("SHOW TimeZone", Why::Statement, "SHOW"),
    ]);
}

#[test]
fn functions_have_to_be_known_as_safe() {
    let long = format!("SELECT {}(1)", "a".repeat(64));
    primary(&[
        ("SELECT nextval('s')", Why::Function, "nextval"),
        ("SELECT NextVal ('s')", Why::Function, "NextVal"),
        ("SELECT nextval/*x*/\n('s')", Why::Function, "nextval"),
        ("SELECT \"nextval\"('s')", Why::Function, "nextval"),
        ("SELECT \"LOWER\"('s')", Why::Function, "LOWER"),
        ("SELECT pg_catalog . nextval('s')", Why::Function, "nextval"),
        ("SELECT lower(nextval('s')::text)", Why::Function, "nextval"),
        ("SELECT a FROM t WHERE b IN (SELECT unknown_f(1))", Why::Function, "unknown_f"),
        ("SELECT * FROM t JOIN f(1) ON true", Why::Function, "f"),
        ("SELECT f((SELECT 1))", Why::Function, "f"),
        (&long, Why::Function, &"a".repeat(64)),
        ("SELECT größer(1)", Why::Function, "größer"),
        ("SELECT \"Größer\"(1)", Why::Function, "Größer"),
        // Keywords as names: behind a dot, or where their syntax is not.
        ("SELECT public.values(1)", Why::Function, "values"),
        ("SELECT public.exists(1)", Why::Function, "exists"),
        ("SELECT public.select(1)", Why::Function, "select"),
        ("SELECT filter(1)", Why::Function, "filter"),
        ("SELECT over(1)", Why::Function, "over"),
        ("SELECT by(1)", Why::Function, "by"),
        ("SELECT join(1)", Why::Function, "join"),
        ("SELECT a, join(1)", Why::Function, "join"),
        ("SELECT a FROM t FETCH FIRST join(1) ROWS ONLY", Why::Function, "join"),
        ("SELECT join((SELECT 1))", Why::Function, "join"),
        ("SELECT rollup(1)", Why::Function, "rollup"),
        ("SELECT a FROM t ORDER BY rollup(1)", Why::Function, "rollup"),
        ("SELECT sets(1)", Why::Function, "sets"),
        ("SELECT NOT materialized(1)", Why::Function, "materialized"),
        ("SELECT conflict(1)", Why::Function, "conflict"),
        ("SELECT * FROM a JOIN b ON conflict(1)", Why::Function, "conflict"),
        ("SELECT set(1)", Why::Function, "set"),
        ("SELECT if(1)", Why::Function, "if"),
        ("SELECT recursive(1)", Why::Function, "recursive"),
        // An expression behind a parenthesis that closes.
        ("SELECT DISTINCT ON (a) filter(1)", Why::Function, "filter"),
        ("SELECT DISTINCT ON ((a), (b)) over(1)", Why::Function, "over"),
        ("SELECT DISTINCT ON ((SELECT DISTINCT ON (a) 1 FROM t)) over(1)", Why::Function, "over"),
        ("SELECT 1 OPERATOR(pg_catalog.+) filter(1)", Why::Function, "OPERATOR"),
        // TREAT(x AS f) calls pg_catalog.f(x).
        ("SELECT TREAT('s' AS nextval)", Why::Function, "TREAT"),
        // Keywords of newer servers are functions of older ones.
        ("SELECT json_value(1)", Why::Function, "json_value"),
        ("SELECT system_user(1)", Why::Function, "system_user"),
        ("SELECT system_user", Why::Function, "system_user"),
    ]);
    let deep = format!("SELECT {}DISTINCT ON (a) over(1)", "(SELECT ".repeat(70));
    assert_eq!(class(&deep).why, Why::Function);
}

#[test]
fn what_is_not_the_same_on_a_replica_taints() {
    primary(&[
        ("SELECT last_value FROM seq", Why::Relation, "seq"),
        ("SELECT * FROM public.SEQ s", Why::Relation, "SEQ"),
        ("SELECT * FROM a, \"seq\"", Why::Relation, "seq"),
        ("SELECT t.volatile_col FROM t", Why::Relation, "volatile_col"),
        ("SELECT x::bad_type", Why::Relation, "bad_type"),
        ("SELECT x::bad_type(3)", Why::Function, "bad_type"),
        ("SELECT CAST(x AS bad_type(3))", Why::Relation, "bad_type"),
        ("SELECT x::safe_type(3)", Why::Relation, "safe_type"),
        ("SELECT bad_type 'x'", Why::Relation, "bad_type"),
        ("SELECT a <-> b FROM t", Why::Relation, "<->"),
        ("SELECT a NOT SIMILAR TO b FROM t", Why::Relation, "SIMILAR"),
        ("SELECT * FROM pg_temp.t", Why::Relation, "pg_temp"),
        ("SELECT * FROM pg_temp_3.t", Why::Relation, "pg_temp_3"),
        ("SELECT * FROM größe", Why::Relation, "größe"),
        // A server whose encoding has a byte per character would fold more than ASCII.
        ("SELECT * FROM GRÖSSE", Why::Relation, "GRÖSSE"),
        // A name that is cut.
        (&format!("SELECT 1 AS {}", "ü".repeat(32)), Why::Relation, &"ü".repeat(32)),
    ]);
}

/// H17
#[test]
fn what_cannot_be_read_is_for_the_primary() {
    for text in
        ["SELECT 'a", "SELECT $$a", "SELECT /* a", "SELECT U&\"a\"", "SELECT 1a", "SELECT \\g", "SELECT \"\""]
    {
        let class = class(text);
        assert_eq!((class.kind, class.why), (Kind::Primary, Why::Unreadable), "{text}");
        assert_eq!((class.writes, class.session), (Names::Any, true), "{text}");
    }
    let lax = Dialect { standard_strings: false, ..DIALECT };
    let text = br"SELECT 'a\' , nextval('s'), ' '";
    assert_eq!(classify_with(text, DIALECT, &Database).kind, Kind::Primary);
    assert_eq!(classify_with(br"SELECT 'a\' || nextval(' ')", lax, &Database).kind, Kind::Primary);
    assert_eq!(classify_with(br"SELECT 'a\' || nextval( '", lax, &Database).kind, Kind::Read);
}

/// H17
#[test]
fn encodings_other_than_utf8_are_read_as_long_as_they_are_ascii() {
    let sjis = Dialect::of("on", "SJIS");
    assert_eq!(classify_with(b"SELECT 'a' FROM t", sjis, &Database).kind, Kind::Read);
    let class = classify_with(b"SELECT '\x95\\' FROM t", sjis, &Database);
    assert_eq!((class.kind, class.why), (Kind::Primary, Why::Encoding));
    for (encoding, safe) in [
        ("UTF8", true),
        ("utf-8", true),
        ("'utf-8'", true),
        ("unicode", true),
        ("LATIN1", false),
        ("", false),
    ] {
        assert_eq!(Dialect::of("on", encoding).ascii_safe, safe, "{encoding}");
    }
    assert!(!Dialect::of("", "UTF8").standard_strings);
}

#[test]
fn without_a_catalog_nothing_is_safe() {
    let catalog = Catalog::default();
    for text in ["SELECT 1", "SELECT a FROM t", "SELECT count(*)", "VALUES (1 + 1)"] {
        let class = classify(text.as_bytes(), DIALECT, &catalog);
        assert_eq!((class.kind, class.why), (Kind::Primary, Why::NoCatalog), "{text}");
    }
    assert_eq!(classify(b"BEGIN", DIALECT, &catalog).kind, Kind::Begin(TransactionMode::default()));
    assert_eq!(classify(b"", DIALECT, &catalog).kind, Kind::Empty);
    assert_eq!(classify(b"INSERT INTO t VALUES (1)", DIALECT, &catalog).writes, Names::Any);
}

#[test]
fn reads_are_every_name_that_may_be_a_relation() {
    for (text, names) in [
        ("SELECT 1", &[][..]),
        ("SELECT a FROM t WHERE b = $1", &["a", "t", "b"]),
        ("SELECT A, \"B\" FROM public.T AS x", &["a", "B", "public", "t", "x"]),
        ("SELECT count(*) FROM t, t t2, t", &["t", "t2"]),
        ("SELECT * FROM v", &["v", "behind_v"]),
        ("SELECT * FROM position, time", &["position", "time"]),
        ("SELECT t.select, t.left FROM t", &["t", "select", "left"]),
        ("SELECT x FROM \"user\" WHERE user IS NOT NULL", &["x", "user"]),
        ("SELECT 1; TABLE u; SELECT a FROM t", &["u", "a", "t"]),
        ("SELECT \"a\"\"b\" FROM t", &["a\"b", "t"]),
    ] {
        let class = class(text);
        assert_eq!((class.kind, class.reads), (Kind::Read, known(names)), "{text}");
    }
    for text in ["SELECT getall(1)", "SELECT * FROM strange", "SELECT 1; SELECT getall(1)"] {
        let class = class(text);
        assert_eq!((class.kind, class.reads), (Kind::Read, Names::Any), "{text}");
    }
}

#[test]
fn writes_are_the_targets_of_the_text() {
    for (text, names) in [
        ("INSERT INTO t (a, b) VALUES (1, lower('x')) RETURNING a", &["t"][..]),
        ("INSERT INTO \"T\" AS x (a) SELECT b FROM u ON CONFLICT (a) DO UPDATE SET b = excluded.b", &["T"]),
        ("INSERT INTO t (a) VALUES (nextval('s'))", &["t"]),
        ("INSERT INTO t VALUES (1) ON CONFLICT DO NOTHING", &["t"]),
        ("INSERT INTO t DEFAULT VALUES", &["t"]),
        ("INSERT INTO t OVERRIDING SYSTEM VALUE TABLE u", &["t"]),
        ("INSERT INTO t WITH x AS (SELECT 1) TABLE x", &["t"]),
        ("DELETE FROM t", &["t"]),
        ("UPDATE public . T SET a = a + 1 WHERE b = $1", &["t"]),
        ("UPDATE ONLY t * SET (a, b) = (1, 2)", &["t"]),
        ("UPDATE ONLY (t) SET a = 1", &["t"]),
        ("UPDATE set SET (a) = (1)", &["set"]),
        ("UPDATE t x SET (a, b) = (SELECT 1, 2 FROM u)", &["t"]),
        ("DELETE FROM ONLY t USING u WHERE t.a = u.a", &["t"]),
        (
            "MERGE INTO t USING u ON t.a = u.a WHEN MATCHED THEN UPDATE SET b = 1 WHEN NOT MATCHED THEN INSERT (a) VALUES (1)",
            &["t"],
        ),
        ("MERGE INTO ONLY t USING u ON true WHEN MATCHED THEN DELETE", &["t"]),
        ("WITH x AS (INSERT INTO a VALUES (1)), y AS (UPDATE b SET c = 1) DELETE FROM d", &["a", "b", "d"]),
        ("WITH x AS (DELETE FROM a RETURNING *) SELECT count(*) FROM x FOR UPDATE", &["a"]),
        ("INSERT INTO a VALUES (1); SELECT 1; UPDATE b SET c = 1", &["a", "b"]),
        ("BEGIN; INSERT INTO a VALUES (1); COMMIT", &["a"]),
        ("COPY t (a, b) FROM STDIN", &["t"]),
        ("COPY BINARY s.t FROM STDIN", &["t"]),
        ("COPY t FROM STDIN WITH (FORMAT csv, HEADER true)", &["t"]),
        ("COPY t TO STDOUT", &[]),
        ("COPY (SELECT a FROM t) TO STDOUT", &[]),
        ("COPY (DELETE FROM t RETURNING *) TO STDOUT", &["t"]),
        ("SELECT a FROM t FOR UPDATE", &[]),
        ("SELECT a FROM t FOR NO KEY UPDATE", &[]),
        ("SELECT a FROM t WHERE count(*) > 1 FOR KEY SHARE", &[]),
        ("SELECT nextval('s')", &[]),
        ("SELECT last_value FROM seq", &[]),
        ("SELECT * FROM pg_stat_activity", &[]),
        ("EXPLAIN ANALYZE SELECT a FROM t", &[]),
        ("LOCK TABLE t", &[]),
        ("LISTEN x", &[]),
        ("SHOW x", &[]),
        ("SET x = 1", &[]),
        ("COMMIT AND CHAIN", &[]),
    ] {
        let class = class(text);
        assert_eq!((class.kind, class.writes), (Kind::Primary, known(names)), "{text}");
    }
}

#[test]
fn what_is_not_known_may_change_anything() {
    for text in [
        "INSERT INTO triggered VALUES (1)",
        "SELECT 1 insert INTO t",
        "SELECT 1 merge INTO t",
        "SELECT 1 merge INTO t FROM u JOIN v USING (a)",
        "SELECT 1 insert INTO t FROM u",
        "SELECT 1 delete FROM f(1)",
        "WITH x AS (INSERT INTO t (a) VALUES (1)) SELECT 1 delete FROM f(1)",
        "SELECT 1 delete FROM x.f(1)",
        "INSERT INTO t VALUES (unknown_f(1))",
        "INSERT INTO t SELECT * FROM v_write",
        "UPDATE t SET a = t.volatile_col",
        "UPDATE t SET a = b <-> c",
        "SELECT unknown_f(1)",
        "SELECT * FROM v_write",
        "SELECT a INTO b FROM t",
        "CREATE TABLE t (a int)",
        "TRUNCATE t",
        "DO $$ $$",
        "CALL p()",
        "EXECUTE p",
        "ALTER TABLE t ADD a int",
        "COMMIT PREPARED 'x'",
        "ROLLBACK PREPARED 'x'",
        "PREPARE TRANSACTION 'x'",
        "SET CONSTRAINTS ALL IMMEDIATE",
        "COPY t FROM PROGRAM 'x'",
        "COPY t TO PROGRAM 'x'",
        "UPDATE",
        "INSERT t",
        "DELETE t",
        "UPDATE t",
        "INSERT INTO t SELECT 1 AS insert",
        "UPDATE \"größe",
        "INSERT INTO GRÖSSE VALUES (1)",
        "EXPLAIN ANALYZE EXECUTE p",
        "SELECT a FROM t WHERE unknown_f(1) FOR UPDATE",
        "COPY t",
        "COPY (UPDATE (t)) TO STDOUT",
        "INSERT INTO a SELECT * FROM b JOIN c ON conflict(1)",
        "UPDATE t SET a = set(1)",
        "UPDATE t SET a = 1 WHERE set(1)",
        "UPDATE t SET a = 1 WHERE b AT TIME ZONE set(1)",
        "FETCH 1 FROM c",
        "SELECT CASE WHEN a THEN update ELSE b END FROM t",
        "INSERT INTO t VALUES (1); DO $$ $$",
        "WITH x AS (CALL p()) SELECT 1",
    ] {
        let class = class(text);
        assert_eq!((class.kind, class.writes), (Kind::Primary, Names::Any), "{text}");
    }
}

#[test]
fn session_state_is_noticed() {
    for (text, session) in [
        ("SET x = 1", false),
        ("SET SESSION x = 1", false),
        ("SET LOCAL x = 1", false),
        ("SET TIME ZONE 'UTC'", false),
        ("SET LOCAL TIME ZONE 'UTC'", false),
        ("SET extra_float_digits = 3", false),
        ("SET SESSION extra_float_digits TO '1';", false),
        ("SET extra_float_digits = 0", false),
        ("SET extra_float_digits = -3", false),
        ("SET extra_float_digits TO DEFAULT", false),
        ("SET ROLE r", false),
        ("SET SESSION AUTHORIZATION r", false),
        ("SET local.x = 1", false),
        ("SET session.x = 1", false),
        ("SET transaction.x = 1", false),
        ("SET constraints.x TO 1", false),
        ("SET LOCAL session.x TO 1", false),
        ("SELECT 1 insert INTO TEMP t", true),
        ("SET TRANSACTION READ ONLY", false),
        ("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", false),
        ("SET CONSTRAINTS ALL DEFERRED", false),
        ("RESET ALL", false),
        ("RESET x", false),
        ("SHOW x", false),
        ("DISCARD ALL", true),
        ("PREPARE p AS SELECT 1", true),
        ("PREPARE TRANSACTION 'x'", false),
        ("PREPARE transaction AS SELECT 'x'", true),
        ("PREPARE transaction(text) AS SELECT 'x'", true),
        ("DEALLOCATE p", false),
        ("LISTEN x", true),
        ("UNLISTEN *", true),
        ("NOTIFY x", false),
        ("LOAD 'x'", true),
        ("DO $$ $$", true),
        ("CALL p()", true),
        ("DECLARE c CURSOR WITH HOLD FOR SELECT 1", true),
        ("DECLARE c CURSOR WITHOUT HOLD FOR SELECT 1", false),
        ("DECLARE c CURSOR FOR SELECT hold FROM t", false),
        ("CREATE TEMP TABLE t (a int)", true),
        ("CREATE LOCAL TEMPORARY TABLE t (a int)", true),
        ("CREATE OR REPLACE TEMP VIEW v AS SELECT 1", true),
        ("CREATE TABLE pg_temp.t (a int)", true),
        ("CREATE TABLE \"pg_temp\".t (a int)", true),
        ("CREATE TABLE weather (a int, temp int)", false),
        ("SELECT 1 INTO TEMP t", true),
        ("SELECT 1 INTO t", false),
        ("INSERT INTO triggered VALUES (1)", true),
        ("SELECT * FROM v_write", true),
        ("SELECT * FROM seq", false),
        ("INSERT INTO pg_temp.t VALUES (1)", true),
        ("SELECT * FROM pg_temp.t", true),
        ("SELECT 1", false),
        ("SELECT set_config('a', 'b', false)", false),
        ("SELECT set_config('a', 'b', true)", false),
        ("SELECT set_config('a', $1, TRUE)", false),
        ("SELECT set_config('a', lower('b', 'c'), 't')", false),
        ("SELECT set_config('a', 'b', $1)", false),
        ("SELECT set_config('a', 'b', not true)", false),
        ("SELECT set_config('a', 'b', true), set_config('a', 'b', false)", false),
        ("SELECT set_config('a', true)", false),
        ("SELECT set_config('TimeZone', 'UTC', false)", false),
        ("SELECT set_config('timezone', $1, false)", false),
        ("SELECT set_config('timezone' || '', 'UTC', false)", true),
        ("SELECT set_config($1, 'UTC', false)", true),
        ("SELECT set_config('TimeZone', 'UTC', false), set_config('a', 'b', false)", false),
        ("SELECT set_config('default_transaction_read_only', 'on', false)", false),
        ("SELECT pg_advisory_lock(1)", true),
        ("SELECT pg_try_advisory_lock_shared(1)", true),
        ("SELECT pg_advisory_xact_lock(1)", false),
        ("SELECT nextval('s')", false),
        ("SELECT currval('s')", true),
        ("SELECT lastval()", true),
        ("SELECT setseed(1)", true),
        ("SELECT dblink_exec('x')", true),
        ("SELECT unknown_f(1)", false),
        ("SELECT sets_things(1)", true),
        ("INSERT INTO t VALUES (1); SET x = 1", false),
        ("INSERT INTO t VALUES (1)", false),
        ("BEGIN", false),
        ("SET transaction_read_only = on", false),
        ("SET default_transaction_read_only = on", false),
    ] {
        assert_eq!(class(text).session, session, "{text}");
    }
}

#[test]
fn synchronous_commit_is_noticed() {
    for (text, expected) in [
        ("SET synchronous_commit = off", true),
        ("SET LOCAL \"Synchronous_Commit\" TO off", true),
        ("SELECT set_config('synchronous_commit', 'off', false)", true),
        ("ALTER ROLE r SET synchronous_commit = off", true),
        ("DO $$ BEGIN SET synchronous_commit = off; END $$", true),
        ("SELECT 1; SET SYNCHRONOUS_COMMIT = off", true),
        ("SELECT set_config($1, 'off', false)", true),
        ("SELECT set_config(E'synchronous\\137commit', 'off', false)", true),
        ("SELECT set_config('synchronous_'\n'commit', 'off', false)", true),
        ("SELECT set_config('a' || 'b', 'off', false)", true),
        ("SET U&\"synchronous\\005fcommit\" = off", true),
        ("SELECT set_config('a', 'off', false)", false),
        ("SET x = off", false),
        ("INSERT INTO t VALUES ('synchronous_commi')", false),
        ("UPDATE t SET synchronous = 1", false),
    ] {
        assert_eq!(class(text).async_commit, expected, "{text}");
    }
}

#[test]
fn hints_are_read_from_the_first_comment() {
    for (text, hint) in [
        ("/* pooler: primary */ SELECT 1", Some(Hint::Primary)),
        ("SELECT 1 -- POOLER:replica", Some(Hint::Replica)),
        ("SELECT 1 /*pooler  :  Replica,traceparent='x'*/", Some(Hint::Replica)),
        ("SELECT 1", None),
        ("/* x */ SELECT 1 /* pooler: primary */", None),
        ("SELECT '/* pooler: primary */'", None),
        ("/* mypooler: primary */ SELECT 1", None),
        ("/* pooler: primaryx */ SELECT 1", None),
        ("/* pooler primary; pooler: primary */ SELECT 1", Some(Hint::Primary)),
        ("/* pooler: primary", None),
        ("/* pooler: replica */ DELETE FROM t", Some(Hint::Replica)),
        ("/* pooler: primary */", Some(Hint::Primary)),
        ("-- pooler: replica\nBEGIN", Some(Hint::Replica)),
        ("/**/ SELECT 1 -- pooler: primary", None),
    ] {
        assert_eq!(class(text).hint, hint, "{text}");
    }
}

/// H15, H16
#[test]
fn several_statements_are_taken_together() {
    primary(&[
        ("BEGIN; SELECT 1", Why::Several, "BEGIN"),
        ("SELECT 1; COMMIT", Why::Several, "COMMIT"),
        ("SET x = 1; SELECT 1", Why::Several, "SET"),
        ("SAVEPOINT a; SELECT 1", Why::Several, "SAVEPOINT"),
        ("SELECT 1; SELECT 2; SELECT nextval('s')", Why::Function, "nextval"),
        ("SELECT 1 ; CHECKPOINT", Why::Statement, "CHECKPOINT"),
    ]);
}

#[test]
fn texts_without_statements_are_empty() {
    for text in ["", " ", ";", " ; ; ", "-- x", "/* x */ ; -- y", "\0SELECT nextval('s')"] {
        let class = class(text);
        assert_eq!((class.kind, class.writes, class.session), (Kind::Empty, known(&[]), false), "{text:?}");
    }
}

/// Long and deep texts cost time in proportion, and no stack.
#[test]
fn long_and_deep_texts_are_classified_in_linear_time() {
    let many = 50_000;
    let texts = [
        format!("SELECT {}1{}", "(".repeat(many), ")".repeat(many)),
        format!("SELECT {}1{}", "f(".repeat(many), ")".repeat(many)),
        format!("SELECT {}1{}", "set_config(".repeat(many), ")".repeat(many)),
        format!("SELECT {}1", "1+".repeat(many)),
        format!("SELECT {}1", "(SELECT ".repeat(many)),
        format!("SELECT {}", "a".repeat(many)),
        format!("SELECT {}1", "a,".repeat(many)),
        format!("SELECT {}1", "DISTINCT ON (".repeat(many)),
        format!("{}SELECT 1", "WITH x AS (".repeat(many)),
        format!("/* {} */ SELECT 1", "pooler  ".repeat(many)),
        format!("INSERT INTO t VALUES ('{}')", "synchronous_".repeat(many)),
        "SELECT 1;".repeat(many),
        "BEGIN;".repeat(many),
        "SET a = b,".repeat(many),
        format!("SELECT {}1", (0..many).map(|n| format!("c{n},")).collect::<String>()),
    ];
    for text in texts {
        let start = std::time::Instant::now();
        let kind = class(&text).kind;
        let beginning: String = text.chars().take(30).collect();
        assert!(start.elapsed().as_secs() < 10, "{beginning}: {kind:?} in {:?}", start.elapsed());
    }
}

#[test]
fn culprits_are_short() {
    for text in [format!("SELECT {}(1)", "a".repeat(100)), format!("SELECT \"{}\"(1)", "é".repeat(100))] {
        let culprit = class(&text).culprit.unwrap();
        assert!(culprit.len() <= 64 && culprit.len() > 60, "{culprit}");
    }
}

proptest::proptest! {
    #[test]
    fn any_bytes_have_a_class(text: Vec<u8>, standard_strings: bool) {
        classify_with(&text, Dialect { standard_strings, ascii_safe: true }, &Database);
    }

    /// Whatever surrounds it, a call of an unknown function as a statement of its own is never lost.
    #[test]
    fn pieces_of_sql_hide_nothing_that_follows_them(
        pieces in proptest::collection::vec(proptest::sample::select(PIECES), 0..12)
    ) {
        let text = format!("{}\n;SELECT nextval('s')", pieces.join(" "));
        let class = class(&text);
        let whole = crate::sql::lexer::Lexer::new(text.as_bytes(), true).flatten().any(|t| text[t.range()] == *"nextval");
        proptest::prop_assert!(!whole || class.kind != Kind::Read, "{text}");
    }
}

const PIECES: &[&str] = &[
    "SELECT", "a", "FROM", "(", ")", ",", ".", "\"b\"", "'c'", "$$", "/*", "*/", "--", "\n", "AS", "WITH",
    "INSERT", "INTO", "UPDATE", "SET", "FOR", "ON", "DISTINCT", "OVER", "FILTER", "JOIN", "E'\\'", ";",
    "COPY", "BEGIN", "COMMIT", "::", "pooler.x", "=", "'", "lower", "lower(",
];

#[test]
fn statements_about_pooler_are_recognised() {
    let set = |name: &str, value: &str, local| {
        Kind::Pooler(PoolerStatement::Set { name: name.into(), value: Some(value.into()), local })
    };
    let default =
        |local| Kind::Pooler(PoolerStatement::Set { name: "pooler.route".into(), value: None, local });
    let unclear = || Kind::Pooler(PoolerStatement::Unclear);
    for (text, kind) in [
        ("SET pooler.route = 'replica'", set("pooler.route", "replica", false)),
        ("SET pooler.route TO Primary;", set("pooler.route", "primary", false)),
        ("SET LOCAL Pooler.Route = auto", set("pooler.route", "auto", true)),
        ("SET SESSION pooler.read_consistency = 'fresh'", set("pooler.read_consistency", "fresh", false)),
        ("SET pooler.read_after = '0/16B3748'", set("pooler.read_after", "0/16B3748", false)),
        ("SET pooler.x = -1", set("pooler.x", "-1", false)),
        ("SET pooler.x = on", set("pooler.x", "on", false)),
        ("SET pooler.route TO DEFAULT", default(false)),
        ("SET LOCAL pooler.route = DEFAULT", default(true)),
        ("RESET pooler.route", Kind::Pooler(PoolerStatement::Reset { name: "pooler.route".into() })),
        ("/* x */ show pooler . lsn ;", Kind::Pooler(PoolerStatement::Show { name: "pooler.lsn".into() })),
        // What a server would take for a setting that somebody has made up.
        ("SET pooler.route = 'a', 'b'", unclear()),
        ("SET pooler.route = 'it''s'", unclear()),
        ("SET SESSION pooler.route", unclear()),
        ("SET pooler.route FROM CURRENT", unclear()),
        ("SELECT 1; SET pooler.route = 'primary'", unclear()),
        ("SET LOCAL pooler.route = 'primary'; SELECT 1", unclear()),
        ("SET x = 1; SHOW pooler.lsn; COMMIT", unclear()),
        ("SHOW pooler", Kind::Primary),
        ("SHOW other.route", Kind::Primary),
        ("SELECT 1; SET x = 'pooler.route'", Kind::Primary),
    ] {
        let class = class(text);
        let own = matches!(class.kind, Kind::Pooler(_));
        assert_eq!(crate::sql::names_pooler(text.as_bytes(), true), own, "{text}");
        assert_eq!((class.kind, class.session, class.writes), (kind, false, known(&[])), "{text}");
    }
}
