//! Who waits for a server, and until when (H16, H37, S30, S39, S51).

use std::time::Duration;

use pooler::demo::process::wait_until;

use crate::support::{compare::Pair, database::Database, gate::Gate, msg::*, pooler::Setup, raw::PATIENCE};

// S30: clients that had sent nothing were put in the queue when they logged in, and ended by query_wait_timeout.
#[test]
fn client_without_a_request_does_not_wait() {
    let pair = Pair::with(&["default_pool_size = 1", "query_wait_timeout = 1"]);
    let mut holder = pair.pooler.connect();
    holder.sql("BEGIN");
    let mut idle = pair.pooler.connect();
    let mut waiting = pair.pooler.connect();
    waiting.send(&query("SELECT 1"));
    // When the one that does wait has waited too long, so has the other.
    assert_eq!(waiting.closed()[0].field(b'C'), "53300");
    holder.sql("COMMIT");
    assert_eq!(idle.sql("SELECT 'alive'"), ["alive"]);
}

// H37, S39: a cancel request for a client without a query made it lose the next one.
#[test]
fn cancel_of_a_client_without_a_request_is_ignored() {
    let pair = Pair::new();
    let mut holder = pair.pooler.connect();
    holder.sql("BEGIN");
    let mut idle = pair.pooler.connect();
    idle.cancel();
    holder.sql("COMMIT");
    assert_eq!(idle.sql("SELECT 'not hit'"), ["not hit"]);
}

// H37: what asks for nothing (the rest of a COPY that has failed, Flush) was taken for the request that was cancelled, and
// the request behind it thrown away up to a Sync that never came.
#[test]
fn cancel_in_the_queue_spares_what_asks_for_nothing() {
    let pair = Pair::new();
    let mut holder = pair.pooler.connect();
    holder.sql("BEGIN");
    let mut waiting = pair.pooler.connect();
    waiting.send_all(&[copy_done(), flush(), query("SELECT 'cancelled'")]);
    pair.pooler.wait_for_pool("cl_waiting", 1);
    let mut idle = pair.pooler.connect();
    // Its worker has looked for what came with the login, and is told of what comes next.
    pair.pooler.console("SHOW CLIENTS");
    idle.send_all(&[copy_done(), flush()]);
    pair.pooler.wait_for_pool("cl_waiting", 2);
    idle.cancel();
    waiting.cancel();
    let tags: String = waiting.ready(1).iter().map(|frame| char::from(frame.tag)).collect();
    assert_eq!(tags, "EZ");
    holder.sql("COMMIT");
    for mut client in [waiting, idle] {
        assert_eq!(client.sql("SELECT 'in step'"), ["in step"]);
    }
}

// S51: whoever left while all servers were busy stayed in the queue, and kept its place among the clients.
#[test]
fn clients_that_leave_while_all_servers_are_busy_are_gone() {
    let pair = Pair::new();
    let mut clients: Vec<_> = (0..10).map(|_| pair.pooler.connect()).collect();
    clients.iter_mut().for_each(|client| assert_eq!(client.sql("SELECT 1"), ["1"]));
    let mut holder = pair.pooler.connect();
    holder.sql("BEGIN");
    for (i, mut client) in clients.into_iter().enumerate() {
        if i % 2 == 0 {
            client.send(&terminate());
        }
    }
    pair.pooler.wait_for_pool("cl_active", 1);
    assert_eq!(pair.pooler.pool("cl_waiting"), 0);
}

// A client that is slow to send a long Parse had a server to itself meanwhile, without any time limit.
#[test]
fn half_a_parse_holds_no_server() {
    let pair = Pair::new();
    let mut slow = pair.pooler.connect();
    let whole = parse("s", &format!("SELECT 'long' /* {} */", "x".repeat(100_000)));
    slow.send(&whole[..50_000]);
    std::thread::sleep(Duration::from_millis(50));
    pair.next_client_is_untouched();
    slow.send(&whole[50_000..]);
    slow.send_all(&[bind("s", &[]), execute(), sync()]);
    assert_eq!(slow.ready(1)[2].row(), "long");
}

// S52: a pool that had reached its own limit closed the idle servers of others, again and again, and won nothing by it.
#[test]
fn full_pool_does_not_close_servers_of_others() {
    let pair = Pair::with(&["default_pool_size = 1", "max_db_connections = 2", "workers = 1"]);
    let mut other = pair.pooler.connect_as("other");
    let before = other.sql("SELECT pg_backend_pid()");
    let (mut holder, mut waiting) = (pair.pooler.connect(), pair.pooler.connect());
    holder.sql("BEGIN");
    waiting.send(&query("SELECT 'served'"));
    pair.pooler.wait_for_pool("cl_waiting", 1);
    assert_eq!(other.sql("SELECT pg_backend_pid()"), before);
    holder.sql("COMMIT");
    assert_eq!(waiting.ready(1)[1].row(), "served");
}

// H16: what ReadyForQuery says decides, not the text.
#[test]
fn transaction_that_a_string_of_statements_leaves_open_keeps_its_server() {
    let pair = Pair::new();
    let (mut first, mut second) = (pair.pooler.connect(), pair.pooler.connect());
    first.sql("CREATE TABLE t (x int)");
    for (string, open) in
        [("SELECT 1; BEGIN; INSERT INTO t VALUES (1)", true), ("BEGIN; SELECT 1; COMMIT", false)]
    {
        first.sql(string);
        second.send(&query("SELECT count(*) FROM t"));
        if open {
            pair.pooler.wait_for_pool("cl_waiting", 1);
            first.sql("ROLLBACK; SELECT 2");
        }
        let row = second.ready(1).into_iter().find(|frame| frame.tag == b'D').unwrap();
        assert_eq!(row.row(), "0", "{string}");
    }
    first.sql("SET TimeZone TO 'Asia/Tokyo'; SELECT 1");
    assert_eq!(second.sql("SHOW TimeZone"), pair.pooler.connect().sql("SHOW TimeZone"));
    assert_eq!(first.sql("SHOW TimeZone"), ["Asia/Tokyo"]);
}

/// The texts of the notices among these.
fn notices(frames: &[Frame]) -> Vec<String> {
    frames.iter().filter(|frame| frame.tag == b'N').map(|frame| frame.field(b'M')).collect()
}

const QUEUED: &str = "No server connection available in postgres backend, client being queued";

#[test]
fn who_waits_for_long_is_told_once_for_each_wait_if_wanted() {
    let pair = Pair::with(&["default_pool_size = 1", "query_wait_notify = 0.1"]);
    let mut holder = pair.pooler.connect();
    let mut client = pair.pooler.connect();
    for _ in 0..2 {
        holder.sql("BEGIN");
        client.send(&query("SELECT 'served'"));
        assert_eq!(notices(&client.until(b'N')), [QUEUED]);
        client.silent(Duration::from_millis(500));
        holder.sql("COMMIT");
        let frames = client.ready(1);
        assert!(
            notices(&frames).is_empty() && frames[1].values() == [Some("served".to_owned())],
            "{frames:?}"
        );
    }
    // As the setting is now.
    pair.pooler.admin().sql("SET query_wait_notify = 0");
    holder.sql("BEGIN");
    client.send(&query("SELECT 1"));
    pair.pooler.wait_for_pool("cl_waiting", 1);
    client.silent(Duration::from_millis(500));
    holder.sql("COMMIT");
    assert!(notices(&client.ready(1)).is_empty());
}

#[test]
fn nobody_is_told_at_login_and_by_default() {
    let pair = Pair::with(&["default_pool_size = 1"]);
    let mut holder = pair.pooler.connect();
    holder.sql("BEGIN");
    let mut client = pair.pooler.connect();
    client.send(&query("SELECT 1"));
    pair.pooler.wait_for_pool("cl_waiting", 1);
    pair.pooler.admin().sql("SET query_wait_notify = 0.1");
    client.until(b'N');
    // Who waits within the login must not hear of it before AuthenticationOk.
    let database = Database::new();
    let gate = Gate::before(database.port);
    gate.shut();
    let pooler = Setup::new(&database)
        .by_port(gate.port)
        .setting("query_wait_notify = 0.05")
        .setting("login_notify_message = \"welcome\"")
        .start();
    let output = std::thread::scope(|scope| {
        let login = scope.spawn(|| pooler.psql(&["-c", "SELECT 'in'"]));
        let waits =
            || (pooler.pool("maxwait_us") + pooler.pool("maxwait") * 1_000_000 > 300_000).then_some(());
        assert!(wait_until(PATIENCE, waits).is_some(), "{}", pooler.log());
        gate.open();
        login.join().unwrap()
    });
    assert_eq!(String::from_utf8_lossy(&output.stderr), "NOTICE:  welcome\n", "{output:?}");
}
