//! Clients that vanish at the worst moment: the server comes back clean, or not at all (H20, S26–S28, S31).

use crate::support::{compare::Pair, msg::*};

#[test]
fn client_that_vanishes_amid_a_reply_frees_its_server() {
    let pair = Pair::new();
    let replies = [
        "SELECT repeat('x', 50000000)",
        "SELECT generate_series(1, 20000000)",
        "COPY (SELECT repeat('y', 1000) FROM generate_series(1, 100000)) TO STDOUT",
    ];
    for sql in replies {
        let mut client = pair.pooler.connect();
        client.send(&query(sql));
        client.bytes(1_000);
        drop(client);
        pair.next_client_is_untouched();
        pair.pooler.wait_for_pool("sv_active", 0);
        pair.pooler.wait_for_pool("cl_active", 0);
    }
}

#[test]
fn client_that_vanishes_while_its_query_runs_stops_it() {
    let pair = Pair::new();
    let mut client = pair.pooler.connect();
    client.send(&query("SELECT pg_sleep(600)"));
    let sleeping = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                    AND state = 'active' AND query LIKE 'SELECT pg_sleep%'";
    pair.database.wait_for(sleeping, &["1"]);
    drop(client);
    pair.database.wait_for(sleeping, &["0"]);
    pair.next_client_is_untouched();
}

#[test]
fn half_a_message_never_runs() {
    let pair = Pair::new();
    pair.database.sql("CREATE TABLE t (x int); GRANT ALL ON t TO app");
    let whole = query("INSERT INTO t VALUES (1) /* a text that is long enough to be cut anywhere */");
    for cut in [1, 4, 5, 6, 30, whole.len() - 1] {
        let mut client = pair.pooler.connect();
        client.send(&whole[..cut]);
        drop(client);
        // After a statement of its own the client has a server when it breaks off.
        let mut client = pair.pooler.connect();
        client.sql("BEGIN");
        client.send(&whole[..cut]);
        drop(client);
        pair.next_client_is_untouched();
    }
    assert_eq!(pair.database.sql("SELECT count(*) FROM t"), ["0"]);
}

#[test]
fn transaction_of_a_client_that_leaves_is_rolled_back() {
    let pair = Pair::new();
    pair.database.sql("CREATE TABLE t (x int); GRANT ALL ON t TO app");
    for goodbye in [None, Some(terminate())] {
        for last in ["SELECT 1", "SELECT 1 / 0"] {
            let mut client = pair.pooler.connect();
            client.sql("BEGIN; INSERT INTO t VALUES (1); LOCK t");
            let _ = client.try_sql(last);
            if let Some(message) = &goodbye {
                client.send(message);
            }
            drop(client);
            pair.next_client_is_untouched();
            let mut next = pair.pooler.connect();
            assert_eq!(next.sql("SELECT count(*) FROM t"), ["0"]);
        }
    }
}

#[test]
fn implicit_transaction_of_a_client_that_leaves_before_sync_is_rolled_back() {
    let pair = Pair::new();
    pair.database.sql("CREATE TABLE t (x int); GRANT ALL ON t TO app");
    let mut client = pair.pooler.connect();
    client.send_all(&[parse("", "INSERT INTO t VALUES (1)"), bind("", &[]), execute(), flush()]);
    client.until(b'C');
    drop(client);
    pair.next_client_is_untouched();
    assert_eq!(pair.database.sql("SELECT count(*) FROM t"), ["0"]);
}

#[test]
fn what_was_sent_before_terminate_is_done() {
    let pair = Pair::new();
    pair.database.sql("CREATE TABLE t (x int); GRANT ALL ON t TO app");
    let mut client = pair.pooler.connect();
    client.send_all(&[query("INSERT INTO t VALUES (1)"), terminate()]);
    client.closed();
    pair.database.wait_for("SELECT count(*) FROM t", &["1"]);
}

#[test]
fn client_that_stops_sending_still_gets_its_reply() {
    let pair = Pair::new();
    let mut client = pair.pooler.connect();
    client.send(&query("SELECT 'late'"));
    client.finish_sending();
    let frames = client.closed();
    // PostgreSQL answers; a pooler may also take the end of input for a client that has gone.
    assert!(frames.is_empty() || frames[1].row() == "late", "{frames:?}");
    pair.next_client_is_untouched();
}

#[test]
fn server_killed_while_idle_is_replaced_unseen() {
    let pair = Pair::new();
    let mut client = pair.pooler.connect();
    for _ in 0..3 {
        let before = client.sql("SELECT pg_backend_pid()");
        pair.database.sql(&format!("SELECT pg_terminate_backend({})", before[0]));
        pair.database
            .wait_for(&format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {}", before[0]), &["0"]);
        pair.pooler.wait_for_pool("sv_idle", 0);
        assert_ne!(client.sql("SELECT pg_backend_pid()"), before);
    }
}

#[test]
fn server_killed_amid_a_query_gives_one_error() {
    let pair = Pair::new();
    let mut client = pair.pooler.connect();
    let mut bystander = pair.pooler.connect();
    client.send(&query("SELECT pg_sleep(600)"));
    let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() \
                AND state = 'active' AND query LIKE 'SELECT pg_sleep%'";
    pair.database.wait_for(kill, &["t"]);
    let errors: Vec<String> =
        client.closed().iter().filter(|frame| frame.tag == b'E').map(|frame| frame.field(b'C')).collect();
    assert_eq!(errors, ["57P01"]);
    assert_eq!(bystander.sql("SELECT 'alive'"), ["alive"]);
    pair.next_client_is_untouched();
}

// S31: the error was written into the middle of a row, and could pass for the end of it.
#[test]
fn server_killed_amid_a_row_does_not_change_the_row() {
    let pair = Pair::new();
    let mut client = pair.pooler.connect();
    client.send(&query("SELECT repeat('x', 50000000)"));
    client.until(b'T');
    client.bytes(1_000);
    let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() \
                AND query LIKE 'SELECT repeat%'";
    pair.database.wait_for(kill, &["t"]);
    pair.database.wait_for(kill, &[]);
    let mut rest = Vec::new();
    let _ = client.drain(&mut rest);
    assert!(rest.iter().all(|&b| b == b'x'), "{} bytes", rest.len());
    pair.next_client_is_untouched();
}

// H14: nobody knows whether a write was done whose server is lost; it is never tried again.
#[test]
fn write_whose_server_is_killed_is_not_repeated() {
    let pair = Pair::new();
    let mut client = pair.pooler.connect();
    client.sql("CREATE TABLE written (x int)");
    client.send(&query("INSERT INTO written SELECT 1 FROM pg_sleep(600)"));
    let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() \
                AND state = 'active' AND query LIKE 'INSERT INTO written%'";
    pair.database.wait_for(kill, &["t"]);
    let errors = client.closed().iter().filter(|frame| frame.tag == b'E').count();
    assert_eq!(errors, 1);
    let mut next = pair.pooler.connect();
    assert_eq!(next.sql("SELECT count(*) FROM written"), ["0"]);
    pair.database.wait_for(kill, &[]);
}
