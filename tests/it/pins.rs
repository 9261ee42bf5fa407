//! Servers that stay with their clients: their budget, how long they may, and what operators see of them (S36).

use std::time::Duration;

use crate::support::{database::Database, msg::*, pooler::Pooler};

const LOCK: &str = "SELECT pg_advisory_lock(7)";
const UNLOCK: &str = "SELECT pg_advisory_unlock(7)";

const SERVERS: &str = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND datname = current_database() \
    AND application_name <> 'pooler'";

/// SHOW PINS without how long: reason, servers, pins.
fn pins(pooler: &Pooler) -> Vec<[String; 3]> {
    let rows = pooler.console("SHOW PINS");
    let column =
        |row: &Vec<(String, String)>, name: &str| row.iter().find(|(n, _)| n == name).unwrap().1.clone();
    rows.iter().map(|row| ["reason", "servers", "pins"].map(|name| column(row, name))).collect()
}

fn row(reason: &str, servers: &str, pins: &str) -> [String; 3] {
    [reason, servers, pins].map(str::to_owned)
}

#[test]
fn pinned_servers_have_a_budget_of_their_own() {
    let database = Database::new();
    let pooler =
        Pooler::of(&database, &["default_pool_size = 1", "pinned_pool_size = 1", "query_wait_timeout = 1"]);
    let (mut holder, mut other) = (pooler.connect(), pooler.connect());
    for round in 1..=3 {
        holder.sql(LOCK);
        // Another server takes its place.
        assert_eq!(other.sql("SELECT 1"), ["1"]);
        assert_eq!(database.server_count(), 2);
        assert_eq!(pins(&pooler)[0], row("advisory lock", "1", &round.to_string()));
        // There is no budget for a second one: nobody else gets on.
        let mut third = pooler.connect();
        third.sql("CREATE TEMP TABLE t ()");
        other.send(&query("SELECT 1"));
        assert_eq!(other.closed().iter().find(|f| f.tag == b'E').unwrap().field(b'C'), "53300");
        third.sql("DROP TABLE t");
        drop(third);
        holder.sql(UNLOCK);
        // And one of them is too many then.
        other = pooler.connect();
        other.sql("SELECT 1");
        holder.sql("SELECT 1");
        database.wait_for(SERVERS, &["1"]);
        let gone = pins(&pooler);
        assert_eq!(gone.len(), 2);
        assert!(gone.iter().all(|row| row[1] == "0"), "{gone:?}");
    }
}

#[test]
fn without_a_budget_pinned_servers_count_in_the_pool() {
    let database = Database::new();
    let pooler =
        Pooler::of(&database, &["default_pool_size = 1", "pinned_pool_size = 0", "query_wait_timeout = 1"]);
    let (mut holder, mut other) = (pooler.connect(), pooler.connect());
    holder.sql(LOCK);
    other.send(&query("SELECT 1"));
    assert_eq!(other.closed().iter().find(|f| f.tag == b'E').unwrap().field(b'C'), "53300");
    assert_eq!(holder.sql(UNLOCK), ["t"]);
}

#[test]
fn idle_clients_lose_pinned_servers_in_time() {
    let database = Database::new();
    let pooler = Pooler::of(
        &database,
        &["default_pool_size = 1", "pinned_pool_size = 0", "pinned_idle_timeout = 1.5", "workers = 1"],
    );
    let (mut holder, mut other, mut free) = (pooler.connect(), pooler.connect(), pooler.connect());
    free.sql("SELECT 1");
    holder.sql(LOCK);
    // Who goes on using it keeps it.
    for _ in 0..6 {
        std::thread::sleep(Duration::from_millis(400));
        holder.sql("SELECT 1");
    }
    let error = holder.closed().into_iter().find(|frame| frame.tag == b'E').unwrap();
    assert_eq!((error.field(b'S'), error.field(b'C')), ("FATAL".to_owned(), "57P05".to_owned()));
    assert!(error.field(b'H').contains("advisory lock"), "{}", error.field(b'H'));
    assert_eq!(other.sql("SELECT pg_try_advisory_lock(7), pg_advisory_unlock(7)"), ["t|t"]);
    // And who keeps none is not disturbed.
    assert_eq!(free.sql("SELECT 1"), ["1"]);
}
