//! Time-outs: each ends what it should, with an SQLSTATE, and nothing else; and the servers stay in order.

use std::net::TcpListener;

use pooler::demo::{
    cluster::ClusterOptions,
    process::{signal, wait_until},
};

use crate::support::{
    database::{Database, Version, options, password_of, start, superuser},
    msg::*,
    pooler::{Pooler, Setup},
    raw::{PATIENCE, Raw},
};

const SLEEPING: &str = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                        AND state = 'active' AND query LIKE 'SELECT pg_sleep%'";

/// A process that is stopped for as long as this value lives.
struct Stopped(u32);

impl Stopped {
    fn new(pid: u32) -> Self {
        signal(pid, "STOP").unwrap();
        Self(pid)
    }

    fn backend_of(client: &mut Raw) -> Self {
        Self::new(client.sql("SELECT pg_backend_pid()")[0].parse().unwrap())
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // It may have ended.
        let _ = signal(self.0, "CONT");
    }
}

/// The one error with which a connection ends.
fn last_words(client: &mut Raw) -> Frame {
    let frames = client.closed();
    let errors: Vec<&Frame> = frames.iter().filter(|frame| frame.tag == b'E').collect();
    assert_eq!(errors.len(), 1, "{frames:?}");
    assert_eq!(frames.last(), Some(errors[0]), "{frames:?}");
    errors[0].clone()
}

fn assert_error(client: &mut Raw, sqlstate: &str, message: &str) {
    let error = last_words(client);
    assert_eq!(
        (error.field(b'V').as_str(), error.field(b'C').as_str(), error.field(b'M').as_str()),
        ("FATAL", sqlstate, message)
    );
}

/// Another client gets the server, and finds nothing of the one before.
fn assert_next_is_served(pooler: &Pooler) {
    assert_eq!(pooler.connect().sql("SELECT 'next', pg_current_xact_id_if_assigned()"), ["next|NULL"]);
}

/// S30: also amid a batch of which part has been sent.
#[test]
fn query_wait_timeout_gives_one_error_and_drops_the_batch() {
    let database = Database::new();
    database.sql("CREATE TABLE t (x int); GRANT ALL ON t TO app");
    let pooler = Pooler::of(&database, &["default_pool_size = 1", "query_wait_timeout = 0.5"]);
    let insert =
        [parse("s", "INSERT INTO t VALUES (1)"), bind("s", &[]), describe_portal(""), execute()].concat();
    let whole = [insert.clone(), sync(), insert.clone(), sync()].concat();
    for request in [query("INSERT INTO t VALUES (1)"), whole, insert[..insert.len() - 3].to_vec()] {
        let (mut holder, mut waiter) = (pooler.connect(), pooler.connect());
        waiter.sql("SELECT 1");
        holder.sql("BEGIN");
        waiter.send(&request);
        assert_error(&mut waiter, "53300", "query_wait_timeout");
        assert_eq!(holder.sql("SELECT 'undisturbed'"), ["undisturbed"]);
        holder.sql("COMMIT");
        assert_next_is_served(&pooler);
    }
    assert_eq!(database.sql("SELECT count(*) FROM t"), ["0"]);
}

/// Who has waited in vain is told what for.
#[test]
fn query_wait_timeout_says_that_the_database_is_paused() {
    let database = Database::new();
    let pooler = Pooler::of(&database, &["query_wait_timeout = 0.5"]);
    let mut client = pooler.connect();
    pooler.console("PAUSE");
    client.send(&query("SELECT 1"));
    let error = last_words(&mut client);
    assert_eq!((error.field(b'M').as_str(), error.field(b'C').as_str()), ("query_wait_timeout", "57P03"));
    assert!(error.field(b'H').contains("RESUME"), "{error:?}");
}

#[test]
fn query_timeout_ends_the_query_at_the_server_too() {
    let database = Database::new();
    let pooler = Pooler::of(&database, &["default_pool_size = 1", "query_timeout = 1"]);
    let extended = [parse("", "SELECT pg_sleep(600)"), bind("", &[]), execute(), sync()].concat();
    for request in [query("SELECT pg_sleep(600)"), extended, query("BEGIN; SELECT pg_sleep(600)")] {
        let mut client = pooler.connect();
        client.send(&request);
        assert_error(&mut client, "57014", "query timeout");
        database.wait_for(
            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)' \
                           AND datname = current_database() AND state = 'active'",
            &["0"],
        );
        assert_next_is_served(&pooler);
    }
    // Each query has that long, however many there are.
    let mut client = pooler.connect();
    let queries: Vec<Vec<u8>> = (0..4).map(|_| query("SELECT pg_sleep(0.4)")).collect();
    client.send_all(&queries);
    assert!(client.ready(4).iter().all(|frame| frame.tag != b'E'));
}

#[test]
fn time_out_of_a_user_beats_the_general_one() {
    let database = Database::new();
    let user = format!("[users.app]\npassword = \"{}\"\nquery_timeout = 0.5\n", password_of("app"));
    let other = format!("[users.other]\npassword = \"{}\"\n", password_of("other"));
    let pooler = Setup::new(&database)
        .own_users()
        .setting("query_timeout = 60")
        .section(&user)
        .section(&other)
        .start();
    let (mut app, mut unlimited) = (pooler.connect(), pooler.connect_as("other"));
    unlimited.send(&query("SELECT pg_sleep(1.2), 'done'"));
    app.send(&query("SELECT pg_sleep(600)"));
    assert_error(&mut app, "57014", "query timeout");
    assert_eq!(unlimited.ready(1)[1].row(), "|done");
}

#[test]
fn transaction_timeout_ends_transactions_however_busy() {
    let database = Database::new();
    let pooler = Pooler::of(&database, &["default_pool_size = 1", "transaction_timeout = 0.7"]);
    let mut client = pooler.connect();
    client.sql("BEGIN");
    client.sql("CREATE TABLE never_there ()");
    let error = wait_until(PATIENCE, || {
        client.send(&query("SELECT 1"));
        loop {
            match client.try_frame() {
                Ok(Some(frame)) if frame.tag == b'E' => return Some(frame),
                Ok(Some(frame)) if frame.tag == b'Z' => return None,
                Ok(Some(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    });
    assert_eq!(
        error.map(|error| (error.field(b'C'), error.field(b'M'))),
        Some(("57014".into(), "transaction timeout".into()))
    );
    assert_next_is_served(&pooler);
    assert_eq!(database.sql("SELECT to_regclass('never_there')"), ["NULL"]);

    // One that was opened without BEGIN and is waiting for its Sync.
    let mut client = pooler.connect();
    client.send_all(&[parse("", "SELECT 1"), bind("", &[]), execute(), flush()]);
    client.until(b'C');
    assert_error(&mut client, "57014", "transaction timeout");
    assert_next_is_served(&pooler);
}

#[test]
fn time_between_transactions_is_no_part_of_them_in_session_mode() {
    let database = Database::new();
    let pooler = Pooler::of(
        &database,
        &["pool_mode = \"session\"", "transaction_timeout = 0.5", "idle_transaction_timeout = 0.5"],
    );
    let mut client = pooler.connect();
    client.sql("SELECT 1");
    database.sql("SELECT pg_sleep(1)");
    client.sql("BEGIN");
    // Several rounds of the deadlines' clock, each of which would end it.
    client.sql("SELECT pg_sleep(0.25)");
    assert_eq!(client.sql("SELECT 'still there'"), ["still there"]);
    client.sql("COMMIT");
    database.sql("SELECT pg_sleep(0.7)");
    assert_eq!(client.sql("SELECT 'idle is fine'"), ["idle is fine"]);
}

#[test]
fn idle_transaction_timeout_frees_the_server() {
    let database = Database::new();
    database.sql("CREATE TABLE t (x int); GRANT ALL ON t TO app");
    let pooler = Pooler::of(&database, &["default_pool_size = 1", "idle_transaction_timeout = 0.5"]);
    for begin in ["BEGIN; INSERT INTO t VALUES (1)", "BEGIN; SELECT 1 / 0"] {
        let mut client = pooler.connect();
        let _ = client.try_sql(begin);
        client.received.clear();
        assert_error(&mut client, "25P03", "idle transaction timeout");
        assert_next_is_served(&pooler);
    }
    assert_eq!(database.sql("SELECT count(*) FROM t"), ["0"]);
    // Not while it works, nor outside of a transaction.
    let mut client = pooler.connect();
    client.sql("BEGIN");
    client.sql("SELECT pg_sleep(1)");
    client.sql("COMMIT");
    database.sql("SELECT pg_sleep(0.8)");
    assert_eq!(client.sql("SELECT 'still there'"), ["still there"]);
}

#[test]
fn client_idle_timeout_ends_clients_without_work_in_every_mode() {
    let database = Database::new();
    for mode in ["transaction", "session"] {
        let pooler =
            Pooler::of(&database, &[&format!("pool_mode = \"{mode}\""), "client_idle_timeout = 0.6"]);
        let (mut never, mut once, mut busy) = (pooler.connect(), pooler.connect(), pooler.connect());
        once.sql("SELECT 1");
        busy.sql("BEGIN");
        assert_error(&mut never, "57P05", "client_idle_timeout");
        assert_error(&mut once, "57P05", "client_idle_timeout");
        // In a transaction another time-out counts.
        assert_eq!(busy.sql("SELECT 'still there'"), ["still there"], "{mode}");
        busy.sql("COMMIT");
        assert_error(&mut busy, "57P05", "client_idle_timeout");
    }
}

#[test]
fn client_login_timeout_ends_the_wait_for_a_server_that_is_down() {
    let database = Database::new();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let pooler =
        Setup::new(&database).server("127.0.0.1", closed).setting("client_login_timeout = 1").start();
    let error =
        Raw::open(pooler.port).try_login("app", &pooler.database, &password_of("app"), &[]).unwrap_err();
    assert_eq!(error.field(b'C'), "08001", "{error:?}");
    assert_eq!(error.field(b'M'), "client_login_timeout (server down)");
    let cause = error.field(b'D');
    assert!(cause.contains(&closed.to_string()) && cause.contains("refused"), "{error:?}");
    assert!(error.field(b'H').contains("host and port"), "{error:?}");
}

#[test]
fn server_connect_timeout_gives_up_on_a_silent_server() {
    let database = Database::new();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let pooler = Setup::new(&database)
        .server("127.0.0.1", silent.local_addr().unwrap().port())
        .setting("server_connect_timeout = 0.3")
        .setting("server_login_retry = 0.2")
        .setting("client_login_timeout = 2")
        .start();
    let error =
        Raw::open(pooler.port).try_login("app", &pooler.database, &password_of("app"), &[]).unwrap_err();
    assert_eq!(error.field(b'M'), "client_login_timeout (server down)", "{error:?}");
    let log = pooler.log();
    assert!(log.matches("took longer than 0.3 s").count() > 1, "tried again: {log}");
}

#[test]
fn server_idle_timeout_closes_what_nobody_needs() {
    let database = Database::new();
    let pooler = Pooler::of(&database, &["server_idle_timeout = 0.5"]);
    let mut client = pooler.connect();
    client.sql("BEGIN");
    database.sql("SELECT pg_sleep(0.8)");
    assert_eq!(client.sql("SELECT 'in use'"), ["in use"]);
    client.sql("COMMIT");
    pooler.wait_for_pool("sv_idle", 0);
    assert_eq!(database.server_count(), 0);
    assert!(pooler.log().contains("closing because: server idle timeout"));
    assert_eq!(client.sql("SELECT 'a new one'"), ["a new one"]);
}

#[test]
fn server_lifetime_replaces_servers_between_uses() {
    let database = Database::new();
    let pooler = Pooler::of(&database, &["default_pool_size = 1", "server_lifetime = 1"]);
    let mut client = pooler.connect();
    client.sql("BEGIN");
    let first = client.sql("SELECT pg_backend_pid()");
    database.sql("SELECT pg_sleep(1.3)");
    assert_eq!(client.sql("SELECT pg_backend_pid()"), first, "not while it is in use");
    client.sql("COMMIT");
    assert_ne!(client.sql("SELECT pg_backend_pid()"), first);
    assert!(pooler.log().contains("closing because: server lifetime over"));
}

#[test]
fn server_lifetime_zero_uses_each_server_once() {
    let database = Database::new();
    let pooler = Pooler::of(&database, &["default_pool_size = 2", "server_lifetime = 0"]);
    let mut client = pooler.connect();
    let mut pids: Vec<String> = (0..5).flat_map(|_| client.sql("SELECT pg_backend_pid()")).collect();
    pids.sort();
    pids.dedup();
    assert_eq!(pids.len(), 5);
    assert!(database.server_count() <= 2);
}

#[test]
fn check_query_runs_before_a_server_that_was_idle_is_used() {
    let database = Database::new();
    database.sql("CREATE SEQUENCE checks; GRANT ALL ON checks TO app");
    let check = "server_check_query = \"SELECT nextval('checks')\"";
    let checks = || database.sql("SELECT last_value, is_called FROM checks");

    let pooler = Pooler::of(&database, &["default_pool_size = 1", check]);
    let mut client = pooler.connect();
    (0..5).for_each(|_| drop(client.sql("SELECT 1")));
    assert_eq!(checks(), ["1|f"], "used a moment ago");
    drop(client);
    drop(pooler);

    let pooler = Pooler::of(&database, &["default_pool_size = 1", check, "server_check_delay = 0"]);
    let mut client = pooler.connect();
    (0..5).for_each(|_| drop(client.sql("SELECT 1")));
    assert_ne!(checks(), ["1|f"]);
    drop(client);
    drop(pooler);

    // A server that fails its check is replaced, and the client does not notice.
    let broken = ["default_pool_size = 1", "server_check_query = \"SELECT 1 / 0\"", "server_check_delay = 0"];
    let pooler = Pooler::of(&database, &broken);
    let mut client = pooler.connect();
    for _ in 0..3 {
        assert_eq!(client.sql("SELECT 'served'"), ["served"]);
    }
    assert!(pooler.log().contains("closing because: reset or check query failed"));
}

#[test]
fn idle_server_that_does_not_answer_its_check_is_replaced() {
    let database = Database::new();
    let pooler = Pooler::of(
        &database,
        &["default_pool_size = 1", "server_check_delay = 0", "server_connect_timeout = 0.5"],
    );
    let mut client = pooler.connect();
    let stopped = Stopped::backend_of(&mut client);
    assert_ne!(client.sql("SELECT pg_backend_pid()"), [stopped.0.to_string()]);
    assert!(pooler.log().contains("closing because: check or reset query timeout"));
}

#[test]
fn cancel_wait_timeout_ends_a_cancel_that_cannot_be_delivered() {
    let cluster = start(&ClusterOptions { tls: None, client_ca: None, ..options(Version::Distribution) });
    let users = format!("[users.app]\npassword = \"{}\"\n", password_of("app"));
    let pooler = Pooler::start(&format!(
        "[pooler]\nlisten_addr = \"127.0.0.1\"\nlisten_port = @PORT@\ncancel_wait_timeout = 0.5\n\
         [databases.postgres]\nhost = \"127.0.0.1\"\nport = {}\n{users}",
        cluster.primary.port
    ));
    let mut client = Raw::login(pooler.port, "app", "postgres", &password_of("app"));
    client.sql("SELECT 1");
    client.send(&query("SELECT pg_sleep(600)"));
    let mut admin = superuser(&cluster, "postgres");
    assert!(wait_until(PATIENCE, || (admin.sql(SLEEPING) == ["1"]).then_some(())).is_some());
    let stopped = Stopped::new(cluster.primary.pid().unwrap());
    client.cancel();
    assert!(pooler.log().contains("cancel request failed"), "{}", pooler.log());
    drop(stopped);
    // The postmaster may still find that request. If not, another one does it.
    client.cancel();
    assert_eq!(client.ready(1)[1].field(b'C'), "57014");
}

/// It starts when bytes first stay behind, also if the client has not read one of them.
#[test]
fn client_write_timeout_ends_clients_that_do_not_read() {
    let database = Database::new();
    let pooler = Pooler::of(&database, &["default_pool_size = 1", "client_write_timeout = 0.5"]);
    let requests = [
        query("SELECT repeat('x', 50000000)"),
        query("SELECT repeat('x', 1000) FROM generate_series(1, 100000)"),
        query("COPY (SELECT repeat('x', 1000) FROM generate_series(1, 100000)) TO STDOUT"),
    ];
    for (request, already) in requests.into_iter().zip(0..) {
        let mut client = pooler.connect();
        client.send(&request);
        let count = || pooler.log().matches("closing because: client_write_timeout").count();
        assert!(wait_until(PATIENCE, || (count() > already).then_some(())).is_some());
        assert_next_is_served(&pooler);
        pooler.wait_for_pool("cl_active", 0);
    }
    // One that reads slowly, but reads, stays.
    let mut slow = pooler.connect();
    slow.send(&query("SELECT repeat('x', 60000000)"));
    let header: usize = slow.until(b'T').len();
    assert_eq!(header, 1);
    for _ in 0..10 {
        slow.bytes(6_000_000);
        database.sql("SELECT pg_sleep(0.2)");
    }
    slow.bytes(11);
    assert_eq!(slow.ready(1).last().map(|frame| frame.tag), Some(b'Z'));
}

/// S32: a server that stops reading. The client gets an error with its SQLSTATE, not a reset.
#[test]
fn server_that_stops_reading_ends_in_an_error_for_the_client() {
    let database = Database::new();
    database.sql("CREATE TABLE t (x text); GRANT ALL ON t TO app");
    let pooler = Pooler::of(&database, &["default_pool_size = 1", "query_timeout = 1"]);
    let value = "x".repeat(30_000_000);
    let simple = query(&format!("INSERT INTO t VALUES ('{value}')"));
    let extended =
        [parse("", "INSERT INTO t VALUES ($1)"), bind("", &[Some(&value)]), execute(), sync()].concat();
    for request in [simple, extended] {
        let mut client = pooler.connect();
        client.sql("BEGIN");
        let stopped = Stopped::backend_of(&mut client);
        let mut sender = client.sender();
        let sending = std::thread::spawn(move || sender(&request));
        assert_error(&mut client, "57014", "query timeout");
        // It could not send all of it, or it was thrown away.
        let _ = sending.join().unwrap();
        drop(stopped);
        assert_next_is_served(&pooler);
    }
    assert_eq!(database.sql("SELECT count(*) FROM t"), ["0"]);
}

#[test]
fn stopped_server_amid_a_query_ends_with_query_timeout() {
    let database = Database::new();
    let pooler = Pooler::of(&database, &["default_pool_size = 1", "query_timeout = 0.5"]);
    let mut client = pooler.connect();
    let stopped = Stopped::backend_of(&mut client);
    client.send(&query("SELECT 1"));
    assert_error(&mut client, "57014", "query timeout");
    assert_next_is_served(&pooler);
    drop(stopped);
    database.wait_for(SLEEPING, &["0"]);
}
