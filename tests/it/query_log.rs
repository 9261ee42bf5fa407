//! The log of slow queries, and of a sample of all: waiting and execution apart, and no values.

use std::time::Duration;

use pooler::demo::process::wait_until;

use crate::support::{
    database::{Database, password_of},
    msg::*,
    pooler::{Pooler, Setup},
    raw::{PATIENCE, Raw},
};

/// Lines of the log about queries.
fn lines(pooler: &Pooler) -> Vec<String> {
    let log = pooler.log();
    log.lines().filter(|line| line.contains(" query: ")).map(str::to_owned).collect()
}

/// So many lines about queries, which come behind the replies.
fn wait_for(pooler: &Pooler, count: usize) -> Vec<String> {
    let found = wait_until(PATIENCE, || (lines(pooler).len() >= count).then_some(()));
    assert!(found.is_some(), "{:#?}", lines(pooler));
    let lines = lines(pooler);
    assert_eq!(lines.len(), count, "{lines:#?}");
    lines
}

/// A number of a line.
fn number(line: &str, name: &str) -> u64 {
    let (_, rest) = line.split_once(&format!("{name}=")).unwrap_or_else(|| panic!("no {name}: {line}"));
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..digits].parse().unwrap()
}

#[test]
fn slow_queries_are_logged_with_wait_and_execution_apart() {
    let database = Database::new();
    let pooler = Pooler::of(&database, &["default_pool_size = 1", "log_min_duration = \"200ms\""]);
    let mut client = pooler.connect();
    client.sql("SELECT 'quick'");
    client.sql("SELECT pg_sleep(0.3), 'hidden'");
    let values = [Some("hidden")];
    client.send(
        &[parse("s", "SELECT pg_sleep(0.3), $1::text"), bind("s", &values), execute(), sync()].concat(),
    );
    client.ready(1);
    let slow = wait_for(&pooler, 2);
    assert!(
        slow[0].contains("slow query: SELECT pg_sleep(?), ? ") && slow[0].contains("user=\"app\""),
        "{slow:#?}"
    );
    assert!(slow[1].contains("slow query: SELECT pg_sleep(?), $1::text"), "{slow:#?}");
    for line in &slow {
        assert!(number(line, "time_us") >= 300_000 && number(line, "wait_us") < 200_000, "{line}");
        assert_eq!(number(line, "rows"), 1);
    }
    // What waits for long is slow, too.
    client.sql("BEGIN");
    let mut waits = pooler.connect();
    waits.send(&query("SELECT 'waits' AS waits"));
    pooler.wait_for_pool("cl_waiting", 1);
    std::thread::sleep(Duration::from_millis(250));
    client.sql("COMMIT");
    waits.ready(1);
    let slow = wait_for(&pooler, 3);
    let waited =
        slow.iter().find(|line| line.contains("SELECT ? AS waits")).unwrap_or_else(|| panic!("{slow:#?}"));
    assert!(number(waited, "wait_us") >= 250_000, "{waited}");
    assert!(number(waited, "time_us") < number(waited, "wait_us"), "{waited}");
    assert!(!pooler.log().contains("hidden"));
}

#[test]
fn one_in_so_many_queries_is_logged() {
    let database = Database::new();
    let settings = ["log_query_sample = 10", "workers = 1", "query_statistics = 0"];
    let pooler = Pooler::of(&database, &settings);
    let mut client = pooler.connect();
    for n in 0..100 {
        client.sql(&format!("SELECT {n} AS n"));
    }
    let sampled = wait_for(&pooler, 10);
    assert!(sampled.iter().all(|line| line.contains("sampled query: SELECT ? AS n")), "{sampled:#?}");
    // Kept for the log alone.
    assert!(pooler.console("SHOW QUERIES").is_empty());
    pooler.console("SET log_query_sample = 0");
    (0..100).for_each(|_| drop(client.sql("SELECT 1")));
    pooler.console("SET log_query_sample = 1");
    assert!(client.try_sql("SELECT 1/0").is_err());
    let last = wait_for(&pooler, 11).pop().unwrap();
    assert!(last.contains("failed=true") && last.contains("SELECT ?/?"), "{last}");
}

#[test]
fn texts_cannot_forge_lines() {
    let database = Database::new();
    let pooler = Setup::new(&database).setting("log_query_sample = 1").start();
    let mut client = Raw::login(pooler.port, "app", &database.name, &password_of("app"));
    client.sql("SELECT 1 AS \"a\nb slow query: forged\u{1b}[31m\"");
    let lines = wait_for(&pooler, 1);
    assert!(!lines[0].contains('\u{1b}'), "{lines:#?}");
}
