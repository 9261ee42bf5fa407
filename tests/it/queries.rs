//! SHOW QUERIES: what kinds of statements there were, what they took, and that nothing of their values is shown.

use std::collections::BTreeMap;

use crate::support::{database::Database, msg::*, pooler::Pooler, replicated::Replicated};

const COUNTED: &str = "query_statistics = 500";

/// Rows by text.
fn queries(pooler: &Pooler) -> BTreeMap<String, BTreeMap<String, String>> {
    let rows = pooler.console("SHOW QUERIES").into_iter();
    let rows = rows.map(|row| row.into_iter().collect::<BTreeMap<_, _>>());
    rows.map(|row| (row["query"].clone(), row)).collect()
}

fn numbers<const N: usize>(pooler: &Pooler, query: &str, columns: [&str; N]) -> [u64; N] {
    let queries = queries(pooler);
    let row = queries.get(query).unwrap_or_else(|| panic!("no {query} in {:?}", queries.keys()));
    columns.map(|column| row[column].parse().unwrap())
}

#[test]
fn statements_are_counted_by_kind_whatever_protocol_they_use() {
    let database = Database::new();
    let pooler = Pooler::of(&database, &[COUNTED]);
    let mut client = pooler.connect();
    for n in 0..5 {
        client.sql(&format!("SELECT {n}::int FROM generate_series(1, 3) -- {n}"));
    }
    let kind = "SELECT ?::int FROM generate_series(?, ...)";
    assert_eq!(numbers(&pooler, kind, ["calls", "rows", "errors"]), [5, 15, 0]);
    // Unnamed, and named: the same text.
    let values = [Some("7")];
    let text = "SELECT $1::int AS a";
    client.send(&[parse("", text), bind("", &values), execute(), sync()].concat());
    client.ready(1);
    client.send(&[parse("s", text), sync()].concat());
    client.ready(1);
    for _ in 0..3 {
        client.send(&[bind("s", &values), describe_portal(""), execute(), sync()].concat());
        client.ready(1);
    }
    assert_eq!(numbers(&pooler, text, ["calls", "rows"]), [4, 4]);
    let row = &queries(&pooler)[text];
    assert_eq!((row["database"].as_str(), row["user"].as_str()), (database.name.as_str(), "app"));
}

#[test]
fn time_rows_and_bytes_are_those_of_the_statement() {
    let database = Database::new();
    let pooler = Pooler::of(&database, &[COUNTED, "default_pool_size = 1"]);
    let mut client = pooler.connect();
    client.sql("CREATE TABLE t (a int, b text)");
    client.sql("INSERT INTO t SELECT x, repeat('x', 1000) FROM generate_series(1, 100) x");
    client.sql("SELECT b FROM t");
    client.sql("SELECT pg_sleep(0.2)");
    assert_eq!(
        numbers(&pooler, "INSERT INTO t SELECT x, repeat(?, ...) FROM generate_series(?, ...) x", ["rows"]),
        [100]
    );
    let [rows, bytes] = numbers(&pooler, "SELECT b FROM t", ["rows", "bytes"]);
    assert!(rows == 100 && (100_000..110_000).contains(&bytes), "{rows} {bytes}");
    let [total, average, most, wait] =
        numbers(&pooler, "SELECT pg_sleep(?)", ["total_time", "avg_time", "max_time", "total_wait_time"]);
    assert!(total >= 200_000 && (total, total) == (average, most) && wait < 100_000, "{total} {wait}");
    // The one that has taken the most is the first.
    let first = &pooler.console("SHOW QUERIES")[0];
    assert!(first.contains(&("query".to_owned(), "SELECT pg_sleep(?)".to_owned())), "{first:?}");
    // Waiting is told apart from execution.
    client.sql("BEGIN");
    let mut waits = pooler.connect();
    waits.send(&query("SELECT 'waits'"));
    pooler.wait_for_pool("cl_waiting", 1);
    std::thread::sleep(std::time::Duration::from_millis(50));
    client.sql("COMMIT");
    waits.ready(1);
    let [time, wait] = numbers(&pooler, "SELECT ?", ["total_time", "total_wait_time"]);
    assert!(wait >= 50_000 && time < wait, "{time} {wait}");
}

#[test]
fn pipelines_are_taken_apart() {
    let database = Database::new();
    let pooler = Pooler::of(&database, &[COUNTED]);
    let mut client = pooler.connect();
    let run = |text: &str| [parse("", text), bind("", &[]), execute()].concat();
    // One batch of two, then one whose first fails: what the server skips has not been called.
    let batch = [run("SELECT 1 AS one"), run("SELECT 2 AS two FROM generate_series(1, 2)"), sync()].concat();
    let failing = [run("SELECT 1/0 AS bad"), run("SELECT 3 AS skipped"), sync()].concat();
    client.send(&[batch.repeat(10), failing, batch].concat());
    client.ready(12);
    for (text, expected) in [
        ("SELECT ? AS one", [11, 11, 0]),
        ("SELECT ? AS two FROM generate_series(?, ...)", [11, 22, 0]),
        ("SELECT ?/? AS bad", [1, 0, 1]),
    ] {
        assert_eq!(numbers(&pooler, text, ["calls", "rows", "errors"]), expected, "{text}");
    }
    assert!(!queries(&pooler).contains_key("SELECT ? AS skipped"));
    // Several statements in a Query are one; an error in it is its own.
    client.sql("SELECT 4 AS a; SELECT 5 AS b, c FROM generate_series(1, 3) c");
    assert_eq!(
        numbers(&pooler, "SELECT ? AS a; SELECT ? AS b, c FROM generate_series(?, ...) c", ["calls", "rows"]),
        [1, 4]
    );
    assert!(client.try_sql("SELECT 1/0 AS simple").is_err());
    client.sql("SELECT 'fine'");
    assert_eq!(numbers(&pooler, "SELECT ?/? AS simple", ["calls", "errors"]), [1, 1]);
    assert_eq!(numbers(&pooler, "SELECT ?", ["calls", "errors"]), [1, 0]);
    // Portals that are read in parts.
    client.send(
        &[
            query("BEGIN"),
            parse("", "SELECT x AS part FROM generate_series(1, 10) x"),
            bind_portal("p", "", &[]),
        ]
        .concat(),
    );
    for _ in 0..4 {
        client.send(&execute_portal("p", 3));
    }
    client.send(&[sync(), query("COMMIT")].concat());
    client.ready(3);
    assert_eq!(numbers(&pooler, "SELECT x AS part FROM generate_series(?, ...) x", ["calls"]), [4]);
    // COPY.
    client.sql("CREATE TABLE c (a int)");
    client.send(&[query("COPY c FROM STDIN"), copy_data("1\n2\n"), copy_done()].concat());
    client.ready(1);
    assert_eq!(numbers(&pooler, "COPY c FROM STDIN", ["calls", "rows"]), [1, 2]);
}

#[test]
fn values_are_never_shown() {
    let database = Database::new();
    let pooler = Pooler::of(&database, &[COUNTED]);
    let mut client = pooler.connect();
    for text in [
        "SELECT 'hidden'",
        "SELECT E'a\\'hidden', $a$hidden$a$, 1 /* hidden */",
        "SELECT 1 AS \"a\" -- hidden",
        "SET app.x = hidden",
        "DO $$ BEGIN PERFORM 'hidden'; END $$",
    ] {
        client.sql(text);
    }
    client.sql("SET standard_conforming_strings = off");
    client.sql("SET escape_string_warning = off");
    client.sql("SELECT 'a\\' hidden'");
    assert!(client.try_sql("SELECT 'hidden").is_err());
    client.send(&[parse("", "SELECT $1::text"), bind("", &[Some("hidden")]), execute(), sync()].concat());
    client.ready(1);
    let shown = queries(&pooler);
    assert!(shown.len() >= 7 && shown.keys().all(|text| !text.contains("hidden")), "{:?}", shown.keys());
}

#[test]
fn kinds_are_few_and_can_be_done_without() {
    let database = Database::new();
    let pooler = Pooler::of(&database, &["query_statistics = 20", "workers = 1"]);
    let mut client = pooler.connect();
    for n in 0..200 {
        client.sql(&format!("SELECT 1 AS a{n}"));
        client.sql("SELECT 'often'");
    }
    assert_eq!(queries(&pooler).len(), 20);
    assert_eq!(numbers(&pooler, "SELECT ?", ["calls"]), [200]);
    pooler.console("SET query_statistics = 0");
    assert!(queries(&pooler).is_empty());
    client.sql("SELECT 1");
    assert!(queries(&pooler).is_empty());
    pooler.console("SET query_statistics = 5");
    client.sql("SELECT 1");
    assert_eq!(numbers(&pooler, "SELECT ?", ["calls"]), [1]);
}

#[test]
fn statements_in_session_mode_are_counted_too() {
    let database = Database::new();
    let pooler = Pooler::of(&database, &[COUNTED, "pool_mode = \"session\""]);
    let mut client = pooler.connect();
    client.send(&[parse("s", "SELECT 1 AS named"), bind("s", &[]), execute(), sync()].concat());
    client.ready(1);
    client.sql("SELECT 2 AS simple");
    assert_eq!(numbers(&pooler, "SELECT ? AS simple", ["calls"]), [1]);
    assert_eq!(numbers(&pooler, "<prepared statement that pooler does not follow>", ["calls"]), [1]);
}

#[test]
fn nodes_are_told_apart() {
    let cluster = Replicated::start(1, &[]);
    let pooler = cluster.setup(&[0, 1]).setting(COUNTED).start();
    cluster.connect(0).sql("CREATE TABLE t AS SELECT 1 AS a");
    cluster.catch_up_all();
    cluster.wait_for_replicas(&pooler);
    let mut client = pooler.connect();
    client.sql("UPDATE t SET a = 2");
    for _ in 0..20 {
        client.sql("SELECT a FROM t");
    }
    let rows = pooler.console("SHOW QUERIES");
    let node_of = |text: &str| {
        let row = rows.iter().find(|row| row.contains(&("query".to_owned(), text.to_owned()))).unwrap();
        row.iter().find(|(name, _)| name == "node").unwrap().1.clone()
    };
    assert_eq!(node_of("UPDATE t SET a = ?"), format!("127.0.0.1:{}", cluster.node(0).port));
    let calls: u64 = rows
        .iter()
        .filter(|row| row.contains(&("query".to_owned(), "SELECT a FROM t".to_owned())))
        .map(|row| row.iter().find(|(name, _)| name == "calls").unwrap().1.parse::<u64>().unwrap())
        .sum();
    assert_eq!(calls, 20);
}
