//! Snapshots of made-up rows.

use std::sync::Arc;

use super::*;

/// Result sets, empty but for what a test puts in.
struct Made(Vec<Vec<Vec<Option<String>>>>);

const BUILTINS: usize = 1;
const TYPES: usize = 2;
const OPERATORS: usize = 3;
const FUNCTIONS: usize = 4;
const RELATIONS: usize = 7;
const INHERITS: usize = 8;
const TRIGGERS: usize = 10;
const FOREIGN_KEYS: usize = 9;
const MENTIONS: usize = 15;

impl Made {
    fn new() -> Self {
        let made = Self(vec![Vec::new(); queries::SETS])
            .row(0, &["150000", "on"])
            .row(BUILTINS, &["lower", "f", "f"])
            .row(BUILTINS, &["count", "f", "f"])
            .row(BUILTINS, &["nextval", "t", "f"])
            .row(BUILTINS, &["set_config", "t", "f"])
            .row(TYPES, &["25", "text"]);
        ["=", "+", "<", "||", "<<", ">>"]
            .into_iter()
            .fold(made, |made, name| made.row(OPERATORS, &[name, ""]))
    }

    /// Empty values are NULL.
    fn row(mut self, set: usize, values: &[&str]) -> Self {
        self.0[set].push(values.iter().map(|v| (!v.is_empty()).then(|| (*v).to_owned())).collect());
        self
    }

    fn function(self, oid: &str, name: &str, language: &str, source: &str) -> Self {
        let mut values = vec![oid, name, "f", "v", language, "", source, "", "", "", "f", ""];
        let at = values.len() - 1;
        values[at] = "23";
        self.row(FUNCTIONS, &values)
    }

    fn relation(self, oid: &str, name: &str, kind: &str, view: &str) -> Self {
        self.row(RELATIONS, &[oid, name, kind, "p", "f", "f", view, "public"])
    }

    fn catalog(&self) -> Catalog {
        Catalog::of(1, &self.0).unwrap()
    }
}

#[test]
fn nothing_known_is_dangerous_in_every_way() {
    let catalog = Catalog::default();
    assert!(catalog.is_unknown() && catalog.is_tainted(b"x") && catalog.tainted_may_write(b"x"));
    assert!(!catalog.function_is_safe(b"lower") && !catalog.operator_is_safe(b"="));
    assert!(catalog.function_reads_anything(b"lower") && catalog.function_touches_session(b"lower"));
    assert!(!catalog.function_writes_nothing(b"lower") && catalog.relation_touches_session(b"x"));
    assert!(!catalog.add_reads(b"x", &mut Vec::new()) && catalog.has_async_commits());
    assert_eq!(catalog.writes_of(b"x"), Names::Any);
}

#[test]
fn rows_that_are_not_understood_make_no_snapshot() {
    let build = |rows: &[_]| Catalog::of(1, rows).unwrap_err();
    assert_eq!(build(&[]), CatalogError::Sets(0));
    let made = Made::new().row(BUILTINS, &["f", "yes", "f"]);
    assert_eq!(build(&made.0), CatalogError::Value { set: BUILTINS, column: 1 });
    let made = Made::new().row(INHERITS, &["1", "x"]);
    assert_eq!(build(&made.0), CatalogError::Value { set: INHERITS, column: 1 });
    let made = Made::new().row(FUNCTIONS, &["16384"]);
    assert_eq!(build(&made.0), CatalogError::Value { set: FUNCTIONS, column: 11 });
}

#[test]
fn every_overload_counts_whatever_its_order() {
    for names in [["f", "lower"], ["lower", "f"]] {
        let made = Made::new().function("20000", names[0], "plpgsql", "BEGIN RETURN 1; END");
        let made = made.function("20001", names[1], "plpgsql", "BEGIN DELETE FROM t; RETURN 1; END");
        let catalog = made.catalog();
        assert!(catalog.function_is_safe(names[0].as_bytes()), "{names:?}");
        assert!(!catalog.function_is_safe(names[1].as_bytes()), "{names:?}");
        assert!(!catalog.function_writes_nothing(names[1].as_bytes()), "{names:?}");
    }
}

#[test]
fn harm_spreads_against_the_order_of_oids_and_through_cycles() {
    // Each calls the next, which was made later; the last one decides.
    for (last, safe) in [("SELECT lower('x')", true), ("SELECT nextval('s')::text", false)] {
        let mut made = Made::new();
        for at in 0..20 {
            let source = format!("SELECT f{}(1)", at + 1);
            made = made.function(&(20_000 + at).to_string(), &format!("f{at}"), "sql", &source);
        }
        let made =
            made.function("30000", "f20", "sql", last).relation("30001", "v", "v", "SELECT f0(1) AS x");
        let catalog = made.catalog();
        assert_eq!(catalog.function_is_safe(b"f0"), safe);
        assert_eq!(catalog.is_tainted(b"v"), !safe);
        assert!(catalog.function_writes_nothing(b"f0") && !catalog.tainted_may_write(b"v"));
    }
    let cycle = Made::new().function("20000", "a", "plpgsql", "BEGIN RETURN b(1); END").function(
        "20001",
        "b",
        "sql",
        "SELECT a(1)",
    );
    assert!(cycle.catalog().function_is_safe(b"a") && cycle.catalog().function_is_safe(b"b"));
}

#[test]
fn a_chain_too_deep_to_follow_leaves_nothing_safe() {
    let mut made = Made::new();
    for at in 0..300 {
        let source = format!("SELECT f{}(1)", at + 1);
        made = made.function(&(20_000 + at).to_string(), &format!("f{at}"), "sql", &source);
    }
    let catalog = made.function("30000", "f300", "sql", "SELECT nextval('s')").catalog();
    assert!(catalog.poison().is_some() && catalog.is_tainted(b"anything"));
}

#[test]
fn plpgsql_is_proven_statement_by_statement() {
    let proven = [
        "BEGIN NEW.at := lower('x'); RETURN NEW; END",
        "DECLARE a text; b CURSOR FOR SELECT 1; BEGIN a := lower($1); $1 := a; a[1] = 'x'; RETURN a; END",
        "BEGIN IF a < b THEN RAISE EXCEPTION 'no: %', a; ELSIF (a = b) THEN NULL; ELSE RETURN 1; END IF; END",
        "<<here>> BEGIN LOOP EXIT here WHEN a < 1; END LOOP; END here",
        "BEGIN RETURN CASE WHEN a = 1 THEN comment.x ELSE b END; END",
        "BEGIN -- INSERT INTO t\n /* EXECUTE */ RETURN 'DELETE FROM t'; END",
    ];
    let harmful = [
        "BEGIN INSERT INTO t VALUES (1); END",
        "BEGIN WITH x AS (DELETE FROM t RETURNING *) SELECT count(*) INTO a FROM x; END",
        "BEGIN EXECUTE 'SELECT 1'; END",
        "BEGIN RETURN QUERY EXECUTE a; END",
        "BEGIN RETURN 1; EXCEPTION WHEN others THEN RETURN 2; END",
        "BEGIN LOCK TABLE t; END",
        "BEGIN IF a < 1 THEN TRUNCATE t; END IF; END",
        "BEGIN IF a < 1 THEN NOTIFY x; END IF; END",
        "BEGIN PERFORM 1 FROM t FOR SHARE; END",
        "BEGIN PERFORM 1 FROM t FOR NO KEY UPDATE; END",
        "BEGIN PERFORM unknown_function(1); END",
        "BEGIN PERFORM pg_catalog.nextval('s'); END",
        "BEGIN PERFORM \"nextval\"('s'); END",
        "BEGIN PERFORM s.in(1); END",
        "BEGIN CALL p(); END",
        "BEGIN DO 'x'; END",
        "BEGIN COMMIT; END",
        "BEGIN SET a = 1; END",
        "BEGIN STATEMENT_OF_POSTGRESQL_25 x; END",
        "BEGIN a := 'b\\'; nextval('s'); --'; END",
        "BEGIN a := 'unterminated; END",
        "BEGIN a := b ~~~ c; END",
        "BEGIN a := U&\"\\006c\"(1); END",
    ];
    let judge =
        |source: &str| Made::new().function("20000", "f", "plpgsql", source).catalog().function_is_safe(b"f");
    for source in proven {
        assert!(judge(source), "{source}");
    }
    for source in harmful {
        assert!(!judge(source), "{source}");
    }
}

#[test]
fn keywords_before_parentheses_are_calls_where_a_function_has_that_name() {
    let source = "BEGIN IF (a < 1) THEN RETURN 1; END IF; RETURN 2; END";
    let made = Made::new().function("20000", "f", "plpgsql", source);
    assert!(made.catalog().function_is_safe(b"f"));
    let made = made.function("20001", "if", "sql", "DELETE FROM t");
    assert!(!made.catalog().function_is_safe(b"f"));
}

#[test]
fn namesakes_share_taint_reads_and_writes() {
    let made = Made::new()
        .relation("20000", "t", "r", "")
        .relation("20001", "t", "v", "SELECT 1 AS x")
        .relation("20002", "u", "r", "")
        .relation("20003", "s", "r", "")
        .relation("20004", "s", "S", "")
        .row(MENTIONS, &["20001", "20002"]);
    let catalog = made.catalog();
    let mut slots = Vec::new();
    assert!(catalog.add_reads(b"t", &mut slots) && slots.contains(&slot(b"u")));
    assert_eq!(catalog.writes_of(b"t"), Names::Any, "one of them is a view");
    assert!(catalog.is_tainted(b"s") && !catalog.is_tainted(b"t"));
}

#[test]
fn cascades_end_in_circles() {
    let made = Made::new()
        .relation("20000", "a", "r", "")
        .relation("20001", "b", "r", "")
        .relation("20002", "b_child", "r", "")
        .row(INHERITS, &["20002", "20001"])
        .row(FOREIGN_KEYS, &["20001", "20000"])
        .row(FOREIGN_KEYS, &["20000", "20002"]);
    let catalog = made.catalog();
    let known = |names: &[&[u8]]| {
        let mut slots: Vec<u16> = names.iter().map(|name| slot(name)).collect();
        slots.sort_unstable();
        Names::Known(slots.into())
    };
    assert_eq!(catalog.writes_of(b"a"), known(&[b"a", b"b"]));
    assert_eq!(catalog.writes_of(b"b_child"), known(&[b"a", b"b", b"b_child"]));
}

#[test]
fn names_that_the_server_would_cut_are_dangerous() {
    let catalog = Made::new().catalog();
    let long = [b'x'; 64];
    assert!(catalog.is_tainted(&long) && !catalog.add_reads(&long, &mut Vec::new()));
    assert!(!catalog.is_tainted(&long[1..]));
}

#[test]
fn what_functions_hide_is_found_by_the_names_that_a_text_mentions() {
    let made = Made::new()
        .function("20000", "set_tenant", "sql", "SELECT set_config('app.tenant', $1, false)")
        .function("20001", "set_any", "plpgsql", "BEGIN PERFORM set_config(k, v, false); END")
        .function("20002", "set_local", "sql", "SELECT set_config('app.x', $1, true)")
        .function("20003", "outer", "plpgsql", "BEGIN PERFORM set_tenant('a'); END")
        .function("20004", "last", "sql", "SELECT lastval()")
        .function("20005", "touch", "plpgsql", "BEGIN NEW.at := now(); RETURN NEW; END")
        .function("20006", "makes", "plpgsql", "BEGIN CREATE TEMP TABLE t (); RETURN NEW; END")
        .function("20007", "py", "plpython3u", "GD['x'] = 1")
        .relation("20010", "quiet", "r", "")
        .relation("20011", "loud", "r", "")
        .relation("20012", "part_of_loud", "r", "")
        .relation("20013", "v", "v", "SELECT outer(1) AS x")
        .row(INHERITS, &["20012", "20010"])
        .row(TRIGGERS, &["20010", "20005", "", ""])
        .row(TRIGGERS, &["20011", "20006", "", ""]);
    let catalog = made.catalog();
    let unknown = Catalog::outdated(&Arc::new(made.catalog()));
    let names = |text: &[u8]| unknown.hidden_in(text).map(|traces| (traces.names, traces.unclear));
    assert_eq!(names(b"SELECT 1"), Some((vec!["app.tenant".into()], false)));
    assert_eq!(names(b"SELECT set_any('a', 'b')"), Some((vec!["app.tenant".into()], true)));
    let asked = Traces { names: vec!["app.tenant".into()], ..Traces::everything() };
    let more = Traces { unclear: true, ..asked.clone() };
    let asks = Traces { asks: Asks::Amid, ..Traces::default() };
    for (text, expected) in [
        ("SELECT set_tenant('x')", Some(&asked)),
        ("SELECT \"Set_Tenant\"('x'), SET_TENANT(1)", Some(&asked)),
        ("SELECT * FROM v", Some(&asked)),
        ("SELECT public.outer()", Some(&asked)),
        ("SELECT set_any('a', 'b')", Some(&more)),
        ("SELECT py()", Some(&Traces { lasts: true, ..more.clone() })),
        ("DO 'BEGIN PERFORM set_tenant(''x''); END'", Some(&asked)),
        ("SELECT x FROM t WHERE y LIKE $1 ESCAPE '\\'", None),
        ("SELECT u&\"\\0061\"()", Some(&Traces { asks: Asks::Amid, ..asked.clone() })),
        ("INSERT INTO loud VALUES (1)", Some(&asked)),
        ("DO $$ BEGIN PERFORM set_tenant('x'); END $$", Some(&asked)),
        ("EXECUTE p", Some(&asked)),
        ("SELECT last()", Some(&asks)),
        ("SELECT set_local('x'), touch(), lower('tenant')", None),
        ("UPDATE quiet SET x = 1; SELECT * FROM part_of_loud", None),
    ] {
        assert_eq!(catalog.hidden_in(text.as_bytes()).as_deref(), expected, "{text}");
    }
    let made = made.row(INHERITS, &["20011", "20010"]);
    assert_eq!(made.catalog().hidden_in(b"INSERT INTO quiet VALUES (1)").as_deref(), Some(&asked));
    assert_eq!(Made::new().catalog().hidden_in(b"SELECT set_tenant('x')"), None);
    assert_eq!(Catalog::default().hidden_in(b"SELECT 1").as_deref(), Some(&Traces::everything()));
}
