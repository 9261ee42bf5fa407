//! Cancel requests: they reach the query of their own session and nothing else (H36–H38, S37–S41).

use crate::support::{compare::Pair, database::Database, database::Version, msg::*, pooler::Pooler};

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

#[test]
fn wrong_unknown_and_idle_keys_have_no_effect() {
    let pair = Pair::new();
    let (mut client, idle) = (pair.pooler.connect(), pair.pooler.connect());
    client.send(&query("SELECT pg_sleep(0.5), 'done'"));
    pair.database.wait_for(SLEEPING, &["1"]);
    let mut wrong = client.key.clone();
    *wrong.last_mut().unwrap() ^= 1;
    let mut unknown = client.key.clone();
    unknown[0] ^= 0x40;
    for key in [&wrong, &unknown, &idle.key] {
        for _ in 0..20 {
            idle.cancel_with(key);
        }
    }
    assert_eq!(client.ready(1)[1].row(), "|done");
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
