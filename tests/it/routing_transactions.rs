//! Where transactions, units and what a session has set send statements: step by step, as simple queries and in the
//! extended protocol. Who ran a step is read in the logs of the nodes.
//!
//! Covers H15, H16, H17, H18, H21, S56, S57 and ROUTING 2.3.12–2.3.14, 6.

use pooler::demo::process::wait_until;

use crate::{
    routing_table::{nodes, start},
    support::{
        msg::*,
        pooler::Pooler,
        raw::{PATIENCE, Raw},
        replicated::{Replicated, marker},
        truth::client,
    },
};

/// Where a step has to run.
#[derive(Clone, Copy, Debug, PartialEq)]
enum At {
    /// On a replica.
    R,
    /// On the primary.
    P,
    /// Wherever it is, or nowhere: pooler may answer.
    Any,
    /// Where the last step with a place ran.
    There,
}
use At::*;

/// What comes back: rows joined by commas, `!SQLSTATE`, or `*` for whatever it is.
type Step = (At, &'static str, &'static str);

const SCRIPTS: &[(&str, &[Step])] = &[
    (
        "autocommit",
        &[
            (R, "SELECT count(*) FROM item", "20"),
            (P, "UPDATE target SET x = 3 WHERE id = 3 RETURNING x", "3"),
        ],
    ),
    (
        "read only",
        &[
            (Any, "BEGIN READ ONLY", ""),
            (R, "SELECT count(*) FROM item", "20"),
            (There, "SELECT count(*) FROM category", "4"),
            (Any, "COMMIT", ""),
        ],
    ),
    (
        "what is prepared means what it meant",
        &[
            (Any, "SET DateStyle = 'ISO, DMY'", ""),
            (P, "PREPARE dated AS SELECT date '01/02/2020'", ""),
            (P, "EXECUTE dated", "2020-02-01"),
            (Any, "BEGIN READ ONLY", ""),
            (R, "SELECT count(*) FROM item", "20"),
            (There, "SET DateStyle = 'ISO, MDY'", ""),
            (Any, "COMMIT", ""),
            (R, "SELECT 1 + count(*) FROM item", "21"),
            (P, "EXECUTE dated", "2020-02-01"),
            (Any, "SELECT date '01/02/2020'", "2020-01-02"),
            (P, "EXECUTE dated", "2020-02-01"),
            (P, "DEALLOCATE dated", ""),
            (Any, "RESET DateStyle", ""),
            (Any, "SELECT 2 + count(*) FROM item", "22"),
        ],
    ),
    (
        "start transaction",
        &[
            (Any, "START TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY", ""),
            (R, "SELECT count(*) FROM item", "20"),
            (There, "SELECT count(*) FROM item", "20"),
            (Any, "END", ""),
            (R, "SELECT 1", "1"),
        ],
    ),
    (
        "read only said late",
        &[
            (Any, "BEGIN", ""),
            (Any, "SET TRANSACTION READ ONLY", ""),
            (R, "SELECT count(*) FROM item", "20"),
            (There, "SELECT count(*) FROM category", "4"),
            (Any, "ROLLBACK", ""),
        ],
    ),
    (
        "savepoints of a reader",
        &[
            (Any, "BEGIN TRANSACTION READ ONLY", ""),
            (Any, "SAVEPOINT a", ""),
            (R, "SELECT 1/(id - 1) FROM item WHERE id = 1", "!22012"),
            (Any, "ROLLBACK TO a", ""),
            (There, "SELECT count(*) FROM item", "20"),
            (Any, "RELEASE a", ""),
            (Any, "COMMIT", ""),
        ],
    ),
    (
        "chain of readers",
        &[
            (Any, "BEGIN READ ONLY", ""),
            (R, "SELECT 1", "1"),
            (Any, "COMMIT AND CHAIN", ""),
            (There, "SELECT 2", "2"),
            (Any, "INSERT INTO log VALUES ('never')", "!25006"),
            (Any, "ROLLBACK", ""),
        ],
    ),
    (
        "write in a reader",
        &[
            (Any, "BEGIN READ ONLY", ""),
            (Any, "INSERT INTO log VALUES ('never')", "!25006"),
            (Any, "SELECT 1", "!25P02"),
            (Any, "ROLLBACK", ""),
            (R, "SELECT count(*) FROM log WHERE what = 'never'", "0"),
        ],
    ),
    (
        "bare",
        &[
            (Any, "BEGIN", ""),
            (P, "SELECT count(*) FROM item", "20"),
            (P, "SELECT 1", "1"),
            (Any, "COMMIT", ""),
            (R, "SELECT 1", "1"),
        ],
    ),
    (
        "write",
        &[
            (Any, "BEGIN", ""),
            (P, "INSERT INTO target VALUES (5000)", ""),
            (P, "SELECT count(*) FROM target WHERE id = 5000", "1"),
            (Any, "ROLLBACK", ""),
        ],
    ),
    ("read write", &[(Any, "BEGIN READ WRITE", ""), (P, "SELECT 1", "1"), (Any, "COMMIT", "")]),
    (
        "failed",
        &[
            (Any, "BEGIN", ""),
            (P, "SELECT 1/0", "!22012"),
            (Any, "SELECT 1", "!25P02"),
            (Any, "COMMIT", ""),
            (R, "SELECT 1", "1"),
        ],
    ),
    (
        "serializable",
        &[
            (Any, "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY", ""),
            (P, "SELECT count(*) FROM item", "20"),
            (Any, "COMMIT", ""),
            (Any, "BEGIN READ ONLY, ISOLATION LEVEL SERIALIZABLE, DEFERRABLE", ""),
            (P, "SELECT count(*) FROM item", "20"),
            (Any, "COMMIT", ""),
            (Any, "BEGIN READ ONLY", ""),
            (Any, "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", ""),
            (P, "SELECT count(*) FROM item", "20"),
            (Any, "COMMIT", ""),
        ],
    ),
    (
        "serializable by default",
        &[
            (Any, "SET default_transaction_isolation = serializable", ""),
            (Any, "SELECT count(*) FROM item", "20"),
            (Any, "BEGIN READ ONLY", ""),
            (Any, "SELECT count(*) FROM item", "20"),
            (Any, "COMMIT", ""),
            (Any, "RESET default_transaction_isolation", ""),
        ],
    ),
    (
        "advisory lock of a reader",
        &[
            (Any, "BEGIN READ ONLY", ""),
            (P, "SELECT pg_try_advisory_xact_lock(9000)", "t"),
            (Any, "COMMIT", ""),
        ],
    ),
    (
        "characteristics",
        &[
            (Any, "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", ""),
            (Any, "SELECT count(*) FROM item", "20"),
            (Any, "INSERT INTO log VALUES ('never')", "!25006"),
            (Any, "BEGIN", ""),
            (Any, "INSERT INTO log VALUES ('never')", "!25006"),
            (Any, "ROLLBACK", ""),
            (Any, "BEGIN READ WRITE", ""),
            (P, "INSERT INTO target VALUES (5001)", ""),
            (Any, "ROLLBACK", ""),
            (Any, "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE", ""),
            (P, "DELETE FROM target WHERE id = 5001", ""),
        ],
    ),
    (
        "two phases",
        &[
            (Any, "BEGIN", ""),
            (P, "INSERT INTO target VALUES (5002)", ""),
            (P, "PREPARE TRANSACTION 'two phases'", ""),
            (P, "SELECT count(*) FROM pg_prepared_xacts WHERE gid = 'two phases'", "1"),
            (P, "ROLLBACK PREPARED 'two phases'", ""),
        ],
    ),
    (
        "route",
        &[
            (Any, "SET pooler.route = primary", ""),
            (P, "SELECT count(*) FROM item", "20"),
            (Any, "SET pooler.route = auto", ""),
            (R, "SELECT count(*) FROM item", "20"),
            (Any, "SET pooler.read_consistency = 'primary'", ""),
            (P, "SELECT count(*) FROM item", "20"),
            (Any, "SET pooler.read_consistency TO eventual", ""),
            (R, "SELECT count(*) FROM item", "20"),
            (Any, "SET pooler.route = replica", ""),
            (R, "SELECT count(*) FROM item", "20"),
            (Any, "SET pooler.route = sideways", "!22023"),
            (R, "/* pooler: replica */ SELECT count(*) FROM item", "20"),
            (P, "/* pooler: primary */ SELECT count(*) FROM item", "20"),
        ],
    ),
    (
        "search_path",
        &[
            (Any, "SET search_path = other", ""),
            (Any, "SELECT note FROM thing", "elsewhere"),
            (P, "SELECT initcap('x')", "X"),
            (Any, "SET search_path = other, pg_catalog", ""),
            (P, "SELECT initcap('x')", "x"),
            (Any, "RESET search_path", ""),
        ],
    ),
    (
        "tenant",
        &[
            (Any, "SELECT string_agg(id::text, ' ' ORDER BY id) FROM rls_item", "NULL"),
            (Any, "SET app.tenant = 'a'", ""),
            (Any, "SELECT string_agg(id::text, ' ' ORDER BY id) FROM rls_item", "1 3"),
            (Any, "SELECT string_agg(id::text, ' ' ORDER BY id) FROM v_rls", "1 3"),
            (Any, "SET app.tenant = 'b'", ""),
            (Any, "SELECT string_agg(id::text, ' ' ORDER BY id) FROM rls_item", "2"),
            (Any, "RESET app.tenant", ""),
            (Any, "SELECT string_agg(id::text, ' ' ORDER BY id) FROM rls_item", "NULL"),
        ],
    ),
    (
        "settings",
        &[
            (Any, "SET TIME ZONE 'Asia/Tokyo'", ""),
            (Any, "SELECT made::text FROM item WHERE id = 1", "2024-01-01 09:00:00+09"),
            (Any, "SET DateStyle = German", ""),
            (Any, "SELECT made::text FROM item WHERE id = 1", "01.01.2024 09:00:00 JST"),
            (Any, "SET extra_float_digits = -5", ""),
            (Any, "SELECT 0.1::float8 + 0.2::float8", "0.3"),
            (Any, "BEGIN READ ONLY", ""),
            (Any, "SET LOCAL TIME ZONE 'UTC'", ""),
            (Any, "SELECT made::text FROM item WHERE id = 1", "01.01.2024 00:00:00 UTC"),
            (Any, "COMMIT", ""),
            (Any, "SELECT made::text FROM item WHERE id = 1", "01.01.2024 09:00:00 JST"),
            (Any, "RESET ALL", ""),
            (Any, "SELECT made AT TIME ZONE 'UTC' FROM item WHERE id = 1", "2024-01-01 00:00:00"),
        ],
    ),
    (
        "set_config",
        &[
            (P, "SELECT set_config('TimeZone', 'Asia/Tokyo', false)", "Asia/Tokyo"),
            (Any, "SELECT made::text FROM item WHERE id = 1", "2024-01-01 09:00:00+09"),
            (Any, "RESET TIME ZONE", ""),
        ],
    ),
    (
        "role",
        &[
            (Any, "SET ROLE pg_monitor", ""),
            (Any, "SELECT current_user", "pg_monitor"),
            (Any, "SELECT count(*) FROM item", "!42501"),
            (Any, "RESET ROLE", ""),
            (Any, "SELECT current_user", "app"),
        ],
    ),
    (
        "temporary table",
        &[
            (P, "CREATE TEMP TABLE category AS SELECT 99 AS id", ""),
            (P, "SELECT id FROM category", "99"),
            (P, "DROP TABLE category", ""),
            (Any, "SELECT count(*) FROM category", "4"),
        ],
    ),
    (
        "prepared by SQL",
        &[
            (P, "PREPARE by_sql AS SELECT count(*) FROM item", ""),
            (P, "EXECUTE by_sql", "20"),
            (P, "DEALLOCATE by_sql", ""),
            (Any, "SELECT 2 + count(*) FROM item", "22"),
        ],
    ),
    (
        "cursor",
        &[
            (P, "DECLARE held CURSOR WITH HOLD FOR SELECT id FROM item ORDER BY id", ""),
            (P, "FETCH 2 FROM held", "1,2"),
            (P, "CLOSE held", ""),
            (Any, "BEGIN", ""),
            (P, "DECLARE kept CURSOR FOR SELECT id FROM item ORDER BY id", ""),
            (P, "FETCH 1 FROM kept", "1"),
            (Any, "COMMIT", ""),
        ],
    ),
    (
        "sequence",
        &[
            (Any, "BEGIN", ""),
            (P, "SELECT nextval('seq') > 0", "t"),
            (P, "SELECT currval('seq') = lastval()", "t"),
            (Any, "COMMIT", ""),
        ],
    ),
    (
        "advisory lock",
        &[
            (P, "SELECT pg_advisory_lock(9001)", ""),
            (Any, "SELECT count(*) FROM item", "20"),
            (P, "SELECT pg_advisory_unlock(9001)", "t"),
        ],
    ),
    (
        "strings by the old rules",
        &[
            (R, "SELECT 'a\\' || ', nextval($$seq$$) -- '\n", "a\\, nextval($$seq$$) -- "),
            (Any, "SET standard_conforming_strings = off", ""),
            (P, "SELECT 'a\\' || ', nextval($$seq$$) > 0 -- '\n", "*"),
            (Any, "SET standard_conforming_strings = on", ""),
            (R, "SELECT 'a\\' || ', nextval($$seq$$) -- '\n", "a\\, nextval($$seq$$) -- "),
        ],
    ),
    (
        "encoding that hides quotes",
        &[
            (Any, "SET client_encoding = 'SJIS'", ""),
            // In plain ASCII nothing can hide.
            (R, "SELECT 1", "1"),
            (Any, "SET client_encoding = 'LATIN1'", ""),
            (R, "SELECT 1", "1"),
        ],
    ),
    (
        "a new function",
        &[
            (P, "CREATE OR REPLACE FUNCTION f_new() RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 1'", ""),
            (Any, "SELECT f_new()", "1"),
            (
                P,
                "CREATE OR REPLACE FUNCTION f_new() RETURNS int LANGUAGE sql AS \
                 'INSERT INTO log VALUES (''new'') RETURNING 2'",
                "",
            ),
            (P, "SELECT f_new()", "2"),
            (P, "DROP FUNCTION f_new()", ""),
        ],
    ),
    (
        "a table that becomes a view",
        &[
            (P, "CREATE TABLE changing AS SELECT 1 AS x", ""),
            (Any, "SELECT count(*) FROM changing", "*"),
            (P, "DROP TABLE changing", ""),
            (P, "CREATE VIEW changing AS SELECT nextval('seq') AS x", ""),
            (P, "SELECT count(*) FROM changing", "1"),
            (P, "DROP VIEW changing", ""),
        ],
    ),
];

/// What a step answers, as scripts write it.
fn answer(frames: &[Frame]) -> String {
    match frames.iter().find(|frame| frame.tag == b'E') {
        Some(error) => format!("!{}", error.field(b'C')),
        None => {
            let rows = frames.iter().filter(|frame| frame.tag == b'D');
            rows.map(Frame::row).collect::<Vec<_>>().join(",")
        }
    }
}

fn send(client: &mut Raw, text: &str, extended: bool) -> String {
    if extended {
        client.send_all(&[parse("", text), bind("", &[]), execute(), sync()]);
    } else {
        client.send(&query(text));
    }
    answer(&client.ready(1))
}

/// Names of the steps of a script, as their markers have them.
fn name(script: &str, extended: bool, step: usize) -> String {
    format!("{script} {extended} {step}")
}

fn marked(text: &str, name: &str) -> String {
    format!("{text} {}", marker(name))
}

fn play(client: &mut Raw, script: &str, steps: &[Step], extended: bool) -> Vec<String> {
    let mut wrong = Vec::new();
    for (step, (_, sql, expected)) in steps.iter().enumerate() {
        let got = send(client, &marked(sql, &name(script, extended, step)), extended);
        if got != *expected && *expected != "*" {
            wrong.push(format!("{script}, extended {extended}, {sql}: {got:?} and not {expected:?}"));
        }
    }
    wrong
}

#[test]
fn scripts_are_true_of_postgresql() {
    let cluster = nodes();
    let mut wrong = Vec::new();
    for (script, steps) in SCRIPTS.iter().filter(|(script, _)| *script != "route") {
        let mut client = cluster.connect_as(0, "app");
        wrong.extend(play(&mut client, &format!("direct {script}"), steps, false));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn transactions_and_sessions_run_where_they_belong() {
    let cluster = nodes();
    // What a client sets stays where it has set it: with one server on each node that is what the next statement finds.
    let pooler = start(&cluster, |setup| setup.setting("default_pool_size = 1\ncurrval = \"transaction\""));
    let mut wrong = Vec::new();
    for extended in [false, true] {
        for (script, steps) in SCRIPTS {
            let mut client = client(&pooler, "app");
            wrong.extend(play(&mut client, script, steps, extended));
            // What the one before has done to the catalog must not send this one's reads to the primary.
            if steps.iter().any(|(_, sql, _)| sql.starts_with("CREATE") || sql.starts_with("DROP")) {
                cluster.catch_up_all();
                cluster.wait_for_replicas(&pooler);
            }
        }
    }
    let runs = cluster.runs();
    for extended in [false, true] {
        for (script, steps) in SCRIPTS {
            let mut last = Vec::new();
            for (step, (at, sql, _)) in steps.iter().enumerate() {
                let ran = runs.ran_on(&name(script, extended, step));
                let right = match at {
                    R => ran.len() == 1 && ran[0] != 0,
                    P => ran == [0],
                    There => ran == last,
                    Any => true,
                };
                if !right {
                    wrong.push(format!(
                        "{script}, extended {extended}, {sql}: ran on {ran:?}, expected {at:?}"
                    ));
                }
                if *at != Any {
                    last = ran;
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// One unit up to Sync goes as a whole.
#[test]
fn units_go_as_a_whole() {
    let cluster = nodes();
    let pooler = start(&cluster, |setup| setup);
    let mut client = client(&pooler, "app");
    let read = "SELECT count(*) FROM item";
    let write = "UPDATE target SET x = 4 WHERE id = 3";
    let units: &[(&str, &[&str], bool)] = &[
        ("reads", &[read, read, "SELECT 1"], true),
        ("read then write", &[read, write], false),
        ("write then read", &[write, read], false),
        ("begin", &["BEGIN", read, "COMMIT"], false),
        ("read only", &["BEGIN READ ONLY", read, "COMMIT"], true),
    ];
    for (unit, texts, _) in units {
        let one = |(step, text): (usize, &&str)| {
            let text = marked(text, &name(&format!("unit {unit}"), true, step));
            [parse("", &text), bind("", &[]), describe_portal(""), execute()].concat()
        };
        let mut messages: Vec<Vec<u8>> = texts.iter().enumerate().map(one).collect();
        messages.push(sync());
        client.send_all(&messages);
        let frames = client.ready(1);
        assert!(frames.iter().all(|frame| frame.tag != b'E'), "{unit}: {frames:?}");
    }
    let runs = cluster.runs();
    for (unit, texts, replica) in units {
        for (step, text) in texts.iter().enumerate().filter(|(_, text)| text.starts_with("SELECT")) {
            let ran = runs.ran_on(&name(&format!("unit {unit}"), true, step));
            // A unit that begins a read-only transaction may go to the primary: it is right, if dear.
            let right = ran.len() == 1 && (ran[0] != 0) == *replica || *unit == "read only" && ran == [0];
            assert!(right, "{unit}, {text}: {ran:?}");
        }
    }
}

/// Units that are sent together go each where it belongs, and are answered in order.
#[test]
fn each_unit_of_a_pipeline_goes_where_it_belongs() {
    let cluster = nodes();
    let pooler = start(&cluster, |setup| setup);
    let read = "SELECT count(*) FROM item";
    let locks = "SELECT id FROM item WHERE id = 1 FOR UPDATE";
    let silent = "SELECT pg_try_advisory_xact_lock(9002)";
    let texts = [read, locks, silent];
    let mut wrong = Vec::new();
    // Every three of them, as extended units and as queries.
    for case in 0..54 {
        let units = [texts[case % 3], texts[case / 3 % 3], texts[case / 9 % 3]];
        let mut client = client(&pooler, "app");
        let unit_name = |step: usize| format!("pipeline {case} {step}");
        let send = |(step, text): (usize, &&str)| {
            let text = marked(text, &unit_name(step));
            if case < 27 {
                query(&text)
            } else {
                [parse("", &text), bind("", &[]), execute(), sync()].concat()
            }
        };
        client.send_all(&units.iter().enumerate().map(send).collect::<Vec<_>>());
        for (step, text) in units.iter().enumerate() {
            let mut frames = Vec::new();
            while frames.last().is_none_or(|frame: &Frame| frame.tag != b'Z') {
                match client.try_frame() {
                    Ok(Some(frame)) => frames.push(frame),
                    other => {
                        wrong.push(format!("{units:?}: no answer to unit {step}: {other:?}"));
                        break;
                    }
                }
            }
            let expected = if *text == read {
                "20"
            } else if *text == locks {
                "1"
            } else {
                "t"
            };
            if answer(&frames) != expected {
                wrong.push(format!("{units:?}: unit {step}: {frames:?}"));
            }
            let ran = cluster.runs().ran_on(&unit_name(step));
            if ran.len() != 1 || *text != read && ran != [0] {
                wrong.push(format!("{units:?}: unit {step} ran on {ran:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// A prepared statement goes where its text may go each time, and with the transaction that it is in (S56, S57).
#[test]
fn prepared_statements_go_with_their_transaction() {
    let cluster = nodes();
    let pooler = start(&cluster, |setup| setup);
    let mut client = client(&pooler, "app");
    let texts = [marked("SELECT count(*) FROM item", "of all"), marked("SELECT 5", "of none")];
    client.send_all(&[parse("a", &texts[0]), parse("b", &texts[1]), sync()]);
    client.ready(1);
    let run = |client: &mut Raw, statement: &str| {
        client.send_all(&[bind(statement, &[]), execute(), sync()]);
        answer(&client.ready(1))
    };
    assert_eq!((run(&mut client, "a").as_str(), run(&mut client, "b").as_str()), ("20", "5"));
    client.sql("BEGIN");
    client.sql("INSERT INTO item (id, name) VALUES (1000, 'new')");
    assert_eq!(run(&mut client, "a"), "21");
    client.sql("ROLLBACK");
    assert_eq!(run(&mut client, "a"), "20");
    let ran: Vec<bool> = cluster.runs().ran_on("of all").iter().map(|&node| node == 0).collect();
    assert_eq!(ran.iter().filter(|&&primary| primary).count(), 1, "{ran:?}");
    assert_eq!(ran.len(), 3);
}

/// An exported snapshot is of one server (H21, 2.3.12).
#[test]
fn exported_snapshots_are_imported_where_they_are() {
    let cluster = nodes();
    let pooler = start(&cluster, |setup| setup);
    let (mut exporter, mut importer) = (client(&pooler, "app"), client(&pooler, "app"));
    exporter.sql("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");
    let snapshot = exporter.sql("SELECT pg_export_snapshot()").remove(0);
    importer.sql("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");
    importer.sql(&format!("SET TRANSACTION SNAPSHOT '{snapshot}'"));
    assert_eq!(importer.sql("SELECT count(*) FROM item"), ["20"]);
    importer.sql("COMMIT");
    exporter.sql("COMMIT");
}

/// Users and databases may have a route of their own.
#[test]
fn configured_routes_hold() {
    let cluster = nodes();
    let nodes = |alias: &str, route: &str| {
        let ports: Vec<String> =
            (0..3).map(|index| format!("\"127.0.0.1:{}\"", cluster.node(index).port)).collect();
        format!(
            "[databases.{alias}]\nnodes = [{}]\ndbname = \"replicated\"\nroute = \"{route}\"\n",
            ports.join(", ")
        )
    };
    let pooler = start(&cluster, |setup| {
        setup
            .own_users()
            .section("[users.app]\npassword = \"secret of app\"\n")
            .section("[users.other]\npassword = \"secret of other\"\nroute = \"primary\"\n")
            .section(&nodes("always_primary", "primary"))
            .section(&nodes("never_primary", "replica"))
    });
    let ask = |user: &str, database: &str, name: &str| {
        let mut client = Raw::login(pooler.port, user, database, "");
        client.sql(&marked("SELECT 1", name))
    };
    // Each of the databases has yet to find out who is who.
    let warm = || (ask("app", "never_primary", "warming up"), cluster.runs().ran_on("warming up"));
    assert!(wait_until(PATIENCE, || warm().1.iter().any(|&node| node != 0).then_some(())).is_some());
    ask("app", "always_primary", "alias primary");
    ask("app", "never_primary", "alias replica");
    ask("other", "replicated", "user primary");
    let mut reader = Raw::login(pooler.port, "app", "never_primary", "");
    let refused = reader.try_sql(&marked("INSERT INTO log VALUES ('never')", "refused")).unwrap_err();
    assert_eq!(refused.field(b'C'), "25006");
    let runs = cluster.runs();
    assert_eq!((runs.ran_on("alias primary"), runs.ran_on("user primary")), (vec![0], vec![0]));
    let ran = runs.ran_on("alias replica");
    assert!(ran.len() == 1 && ran[0] != 0, "{ran:?}");
    assert!(!runs.ran_on("refused").contains(&0));
}

/// Megabytes, deep nesting and long lists are read in linear time and constant stack.
#[test]
fn bad_input_is_for_the_primary_and_harms_nobody() {
    let cluster = nodes();
    let pooler: Pooler = start(&cluster, |setup| setup);
    let mut client = client(&pooler, "app");
    let deep = |open: &str, close: &str| format!("SELECT {}1{}", open.repeat(5000), close.repeat(5000));
    let list: String = (0..200_000).map(|n| format!("{n}, ")).collect();
    let texts = [
        ("parentheses", deep("(", ")")),
        ("comments", deep("/*", "*/")),
        ("sums", format!("SELECT 1{}", "+1".repeat(5000))),
        ("list", format!("SELECT count(*) FROM item WHERE id IN ({list}0)")),
        ("string", format!("SELECT length('{}')", "x".repeat(3 << 20))),
        ("dollars", format!("SELECT 1 {}", "$a".repeat(100_000))),
        ("quotes", format!("SELECT {}", "'".repeat(100_001))),
    ];
    for (name, text) in &texts {
        let direct = cluster.connect_as(0, "app").try_sql(text).map_err(|error| error.field(b'C'));
        let pooled = client.try_sql(&marked(text, name)).map_err(|error| error.field(b'C'));
        assert_eq!(pooled, direct, "{name}");
    }
    assert_eq!(client.sql("SELECT count(*) FROM item"), ["20"]);
}

/// Without any replica all go on at the primary, and come back to the replicas when there are some.
#[test]
fn reads_are_served_without_replicas() {
    let mut cluster: std::sync::MutexGuard<'static, Replicated> = nodes();
    let pooler = start(&cluster, |setup| setup.setting("node_check_interval = \"200ms\""));
    let mut client = client(&pooler, "app");
    cluster.stop_fast(1);
    cluster.stop_fast(2);
    for step in 0..20 {
        assert_eq!(client.sql(&marked("SELECT count(*) FROM item", &format!("alone {step}"))), ["20"]);
    }
    let runs = cluster.runs();
    cluster.restart(1);
    cluster.restart(2);
    cluster.wait_for_replicas(&pooler);
    assert!((0..20).all(|step| runs.ran_on(&format!("alone {step}")) == [0]));
}
