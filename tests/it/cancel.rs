//! Cancel requests: they reach the query of their own session and nothing else (H36–H38, S37–S41).

use crate::support::{
    compare::Pair,
    database::{Database, Version},
    gate::Gate,
    msg::*,
    pooler::{Pooler, Setup},
};

const SLEEPING: &str = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                        AND state = 'active' AND query LIKE 'SELECT pg_sleep%'";

#[test]
fn running_query_is_cancelled_and_the_next_one_is_not() {
    let pair = Pair::new();
    let mut client = pair.pooler.connect();
    for _ in 0..10 {
        client.send(&query("SELECT pg_sleep(600)"));
        pair.database.wait_for(SLEEPING, &["1"]);
        client.cancel();
        let frames = client.ready(1);
        assert_eq!(frames[1].field(b'C'), "57014");
        assert_eq!(client.sql("SELECT 'not hit'"), ["not hit"]);
    }
}

#[test]
fn late_cancel_never_hits_the_next_client() {
    let pair = Pair::new();
    let (mut one, mut two) = (pair.pooler.connect(), pair.pooler.connect());
    for round in 0..30 {
        one.send(&query("SELECT 1"));
        // Sometimes before the reply, sometimes after it: the server has passed to the other client by then.
        let late = if round % 2 == 0 {
            one.ready(1);
            None
        } else {
            Some(())
        };
        two.send(&query("SELECT pg_sleep(0.02)"));
        one.cancel();
        if late.is_some() {
            one.ready(1);
        }
        let frames = two.ready(1);
        assert!(frames.iter().all(|frame| frame.tag != b'E'), "round {round}: {frames:?}");
    }
}

#[test]
fn waiting_client_is_cancelled_without_a_server() {
    let pair = Pair::new();
    let (mut holder, mut waiter) = (pair.pooler.connect(), pair.pooler.connect());
    holder.sql("BEGIN");
    waiter.send(&query("SELECT 'never runs'"));
    pair.pooler.wait_for_pool("cl_waiting", 1);
    waiter.cancel();
    let frames = waiter.ready(1);
    assert_eq!(frames[0].field(b'C'), "57014");
    assert_eq!(holder.sql("SELECT 'undisturbed'"), ["undisturbed"]);
    holder.sql("COMMIT");
    assert_eq!(waiter.sql("SELECT 'again'"), ["again"]);
}

// H37, H9: what is thrown away ends where it would have ended after an error of its first message.
#[test]
fn request_that_is_cancelled_in_the_queue_gets_one_ready_for_query() {
    let pair = Pair::new();
    let (mut holder, mut waiter) = (pair.pooler.connect(), pair.pooler.connect());
    let batch = || [parse("", "SELECT 1"), bind("", &[]), execute()].concat();
    let skipped = [batch(), query("SELECT 'skipped'"), sync()].concat();
    let done = [query("SELECT 'skipped'"), batch(), sync()].concat();
    for (request, tags) in [(skipped, &b"EZ"[..]), (done, &b"EZ12DCZ"[..])] {
        holder.sql("BEGIN");
        waiter.send(&request);
        pair.pooler.wait_for_pool("cl_waiting", 1);
        waiter.cancel();
        let mut seen: Vec<u8> = waiter.ready(1).iter().map(|frame| frame.tag).collect();
        holder.sql("COMMIT");
        if tags.len() > 2 {
            seen.extend(waiter.ready(1).iter().map(|frame| frame.tag));
        }
        assert_eq!(seen, tags);
        assert_eq!(waiter.sql("SELECT 'in step'"), ["in step"]);
    }
}

/// Replies to the Parse that the pooler puts in front come with those of the client's query, not before.
#[test]
fn query_with_an_injected_parse_is_cancelled_at_once() {
    let pair = Pair::with(&["default_pool_size = 2"]);
    let (mut client, mut holder) = (pair.pooler.connect(), pair.pooler.connect());
    client.send_all(&[parse("slow", "SELECT pg_sleep(600)"), sync()]);
    client.ready(1);
    // The server that knows the statement is taken.
    holder.sql("BEGIN");
    client.send_all(&[bind("slow", &[]), execute(), sync()]);
    pair.database.wait_for(&format!("{SLEEPING} AND wait_event = 'PgSleep'"), &["1"]);
    client.cancel();
    let frames = client.ready(1);
    assert_eq!(frames.iter().map(|frame| frame.tag).collect::<Vec<_>>(), b"2EZ");
    assert_eq!(frames[1].field(b'C'), "57014");
    assert_eq!(client.sql("SELECT 'not hit'"), ["not hit"]);
}

#[test]
fn wrong_unknown_and_idle_keys_have_no_effect() {
    let pair = Pair::new();
    let (mut client, idle) = (pair.pooler.connect(), pair.pooler.connect());
    client.send(&query("SELECT pg_sleep(0.5), 'done'"));
    pair.database.wait_for(SLEEPING, &["1"]);
    // Each bit counts.
    let wrong = (0..client.key.len() * 8).map(|bit| {
        let mut wrong = client.key.clone();
        wrong[bit / 8] ^= 1 << (bit % 8);
        wrong
    });
    for key in wrong.chain([idle.key.clone()]) {
        idle.cancel_with(&key);
    }
    let frames = client.ready(1);
    assert_eq!(frames[1].tag, b'D', "{frames:?}");
    assert_eq!(frames[1].row(), "|done");
}

#[test]
fn a_thousand_cancels_starve_nobody() {
    let pair = Pair::new();
    let mut client = pair.pooler.connect();
    client.send(&query("SELECT pg_sleep(600)"));
    pair.database.wait_for(SLEEPING, &["1"]);
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| (0..50).for_each(|_| client.cancel()));
        }
    });
    assert_eq!(client.ready(1)[1].field(b'C'), "57014");
    pair.next_client_is_untouched();
}

#[test]
fn cancel_costs_no_place_in_a_full_pooler() {
    let pair = Pair::with(&["default_pool_size = 1", "max_client_conn = 1"]);
    let mut client = pair.pooler.connect();
    client.send(&query("SELECT pg_sleep(600)"));
    pair.database.wait_for(SLEEPING, &["1"]);
    client.cancel();
    assert_eq!(client.ready(1)[1].field(b'C'), "57014");
}

#[test]
fn cancel_works_with_the_long_keys_of_postgresql_18() {
    let database = Database::of(Version::V18);
    let pooler = Pooler::of(&database, &["default_pool_size = 1"]);
    let mut client = pooler.connect();
    client.send(&query("SELECT pg_sleep(600)"));
    database.wait_for(SLEEPING, &["1"]);
    client.cancel();
    assert_eq!(client.ready(1)[1].field(b'C'), "57014");
}

// H36: the request was kept until what the pooler had put in front was through, which waited for a lock.
#[test]
fn statement_that_waits_for_a_lock_on_a_new_server_is_cancelled() {
    let pair = Pair::with(&["default_pool_size = 2", "workers = 1"]);
    pair.database.sql("CREATE TABLE t (x int); GRANT ALL ON t TO app");
    let (mut client, mut holder) = (pair.pooler.connect(), pair.pooler.connect());
    client.send_all(&[parse("s", "SELECT * FROM t"), sync()]);
    client.ready(1);
    // The only server that has the statement.
    holder.sql("BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE");
    client.send_all(&[bind("s", &[]), execute(), sync()]);
    pair.database.wait_for("SELECT count(*) FROM pg_locks WHERE NOT granted", &["1"]);
    client.cancel();
    assert_eq!(client.ready(1)[0].field(b'C'), "57014");
    holder.sql("COMMIT");
    client.send_all(&[bind("s", &[]), execute(), sync()]);
    assert_eq!(client.ready(1).iter().map(|frame| frame.tag).collect::<Vec<_>>(), b"2CZ");
}

// H36: nor is one kept until settings are there that have to be tried first.
#[test]
fn request_that_waits_for_its_settings_is_cancelled() {
    let database = Database::new();
    let pooler = Setup::new(&database).setting("default_pool_size = 1\nworkers = 1").start();
    let mut client = pooler.connect();
    let mut other = pooler.connect();
    client.sql("SET default_text_search_config = 'pg_catalog.simple'");
    // The next server has never heard of it.
    pooler.console("RECONNECT");
    other.sql("SELECT 1");
    let mut holder = database.superuser();
    holder.sql("BEGIN; LOCK TABLE pg_ts_config IN ACCESS EXCLUSIVE MODE");
    client.send(&query("CREATE TEMP TABLE never (x int)"));
    database.wait_for(
        "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'pg_ts_config'::regclass",
        &["1"],
    );
    client.cancel();
    let tags: Vec<(u8, String)> =
        client.ready(1).iter().map(|frame| (frame.tag, frame.field(b'C'))).collect();
    assert_eq!(tags[0], (b'E', "57014".into()));
    assert_eq!(tags.len(), 2);
    holder.sql("COMMIT");
    assert_eq!(client.sql("SHOW default_text_search_config"), ["pg_catalog.simple"]);
    assert_eq!(other.sql("SELECT count(*) FROM pg_class WHERE relname = 'never'"), ["0"]);
}

// H36: a request that was given up may arrive when the server works for somebody else.
#[test]
fn server_is_not_used_again_after_a_cancel_request_of_unknown_fate() {
    let database = Database::new();
    let gate = Gate::before(database.port);
    let settings = ["default_pool_size = 1", "cancel_wait_timeout = \"200ms\""];
    let setup = settings.iter().fold(Setup::new(&database), |setup, line| setup.setting(line));
    let pooler = setup.by_port(gate.port).start();
    let mut client = pooler.connect();
    let before = client.sql("SELECT pg_backend_pid()");
    client.send(&query("SELECT pg_sleep(1)"));
    database.wait_for(SLEEPING, &["1"]);
    gate.shut();
    client.cancel();
    gate.open();
    client.ready(1);
    assert_ne!(client.sql("SELECT pg_backend_pid()"), before);
}
