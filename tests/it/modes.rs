//! Pool modes: of the pooler, of a database, of a user; what a session keeps and when its server goes back.

use crate::support::{
    database::{Database, password_of},
    msg::*,
    pooler::{Pooler, Setup},
    raw::Raw,
};

const PID: &str = "SELECT pg_backend_pid()";

fn of(database: &Database, mode: &str) -> Pooler {
    Pooler::of(database, &[&format!("pool_mode = \"{mode}\""), "default_pool_size = 1"])
}

/// S36: in session mode everything of a session stays with it, and goes with it.
#[test]
fn session_mode_keeps_the_server_and_resets_it_at_the_end() {
    let database = Database::new();
    let pooler = of(&database, "session");
    for farewell in [vec![], terminate()] {
        let mut client = pooler.connect();
        let pid = client.sql(PID);
        client.sql("SET work_mem = '7MB'");
        client.sql("CREATE TEMP TABLE mine (x int)");
        client.sql("SELECT pg_advisory_lock(1)");
        client.sql("PREPARE p AS SELECT 'prepared'");
        client.sql("DECLARE c CURSOR WITH HOLD FOR SELECT 'held'");
        client.send_all(&[parse("named", "SELECT 'named'"), sync()]);
        client.ready(1);
        client.sql("LISTEN news");
        client.sql("SELECT set_config('search_path', 'pg_catalog', false)");
        client.sql("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY");
        // Another client waits, however long the session does nothing.
        let mut waiter = pooler.connect();
        waiter.send(&query("SELECT 1"));
        pooler.wait_for_pool("cl_waiting", 1);
        assert_eq!(client.sql(PID), pid);
        assert_eq!(client.sql("SHOW work_mem"), ["7MB"]);
        assert_eq!(client.sql("SELECT count(*) FROM pg_temp.mine"), ["0"]);
        assert_eq!(client.sql("EXECUTE p"), ["prepared"]);
        assert_eq!(client.sql("FETCH c"), ["held"]);
        client.send_all(&[bind("named", &[]), execute(), sync()]);
        assert_eq!(client.ready(1)[1].row(), "named");
        client.send(&farewell);
        drop(client);
        waiter.ready(1);
        assert_eq!(waiter.sql(PID), pid);
        assert_eq!(waiter.sql("SHOW work_mem"), ["4MB"]);
        assert_eq!(waiter.sql("SHOW search_path"), ["\"$user\", public"]);
        assert_eq!(waiter.sql("SHOW default_transaction_read_only"), ["off"]);
        assert_eq!(waiter.sql("SELECT to_regclass('pg_temp.mine')"), ["NULL"]);
        for leftovers in [
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
            "SELECT count(*) FROM pg_prepared_statements",
            "SELECT count(*) FROM pg_cursors",
            "SELECT count(*) FROM pg_listening_channels()",
        ] {
            assert_eq!(waiter.sql(leftovers), ["0"], "{leftovers}");
        }
    }
}

/// In session mode prepared statements pass untouched: SQL sees them under the client's own names.
#[test]
fn session_mode_leaves_names_of_statements_alone() {
    let database = Database::new();
    let pooler = of(&database, "session");
    let mut client = pooler.connect();
    client.send_all(&[parse("mine", "SELECT $1::int + 1"), sync()]);
    client.ready(1);
    assert_eq!(client.sql("SELECT name FROM pg_prepared_statements"), ["mine"]);
    assert_eq!(client.sql("EXECUTE mine(41)"), ["42"]);
    client.sql("DEALLOCATE mine");
    client.send_all(&[bind("mine", &[Some("1")]), sync()]);
    assert_eq!(client.ready(1)[0].field(b'C'), "26000");
}

#[test]
fn session_mode_rolls_back_and_resets_after_a_client_that_vanishes() {
    let database = Database::new();
    database.sql("CREATE TABLE t (x int); GRANT ALL ON t TO app");
    let pooler = of(&database, "session");
    let mut client = pooler.connect();
    client.sql("SET work_mem = '7MB'");
    client.sql("BEGIN; INSERT INTO t VALUES (1)");
    drop(client);
    let mut next = pooler.connect();
    assert_eq!(next.sql("SELECT count(*) FROM t"), ["0"]);
    assert_eq!(next.sql("SHOW work_mem"), ["4MB"]);
}

#[test]
fn reset_query_is_the_one_that_is_set() {
    let database = Database::new();
    database.sql("CREATE SEQUENCE resets; GRANT ALL ON resets TO app");
    let counted = "server_reset_query = \"SELECT nextval('resets')\"";
    let resets = || database.sql("SELECT last_value, is_called FROM resets");
    let pooler = Pooler::of(&database, &["pool_mode = \"session\"", counted]);
    pooler.connect().sql("SELECT 1");
    database.wait_for("SELECT last_value, is_called FROM resets", &["1|t"]);
    drop(pooler);

    let pooler = Pooler::of(&database, &[counted]);
    let mut client = pooler.connect();
    client.sql("SELECT 1");
    drop(client);
    drop(pooler);
    assert_eq!(resets(), ["1|t"], "not in transaction mode");

    let pooler = Pooler::of(&database, &[counted, "server_reset_query_always = true"]);
    let mut client = pooler.connect();
    client.sql("SELECT 1");
    client.sql("SELECT 1");
    database.wait_for("SELECT last_value >= 3 FROM resets", &["t"]);
    drop(client);
    drop(pooler);

    // Without one the session's settings stay: the operator wanted it so.
    let pooler = Pooler::of(
        &database,
        &["pool_mode = \"session\"", "server_reset_query = \"\"", "default_pool_size = 1"],
    );
    pooler.connect().sql("CREATE TEMP TABLE left_behind ()");
    assert_eq!(pooler.connect().sql("SELECT to_regclass('pg_temp.left_behind') IS NOT NULL"), ["t"]);
}

#[test]
fn statement_mode_gives_the_server_back_after_each_statement() {
    let database = Database::new();
    let pooler = of(&database, "statement");
    let (mut one, mut two) = (pooler.connect(), pooler.connect());
    for _ in 0..5 {
        assert_eq!(one.sql(PID), two.sql(PID));
    }
    one.send_all(&[parse("s", "SELECT $1::int"), bind("s", &[Some("7")]), execute(), sync()]);
    assert_eq!(one.ready(1)[2].row(), "7");
    two.sql("SELECT 1");
    one.send_all(&[bind("s", &[Some("8")]), execute(), sync()]);
    assert_eq!(one.ready(1)[1].row(), "8");
    // Several in one string are one statement here, also with a transaction of their own.
    assert_eq!(one.sql("SELECT 1; SELECT 2"), ["1", "2"]);
    assert_eq!(one.sql("BEGIN; SELECT 3; COMMIT"), ["3"]);
}

#[test]
fn statement_mode_refuses_transaction_blocks_and_rolls_them_back() {
    let database = Database::new();
    database.sql("CREATE TABLE t (x int); GRANT ALL ON t TO app");
    let pooler = of(&database, "statement");
    let extended = [parse("", "BEGIN"), bind("", &[]), execute(), sync()].concat();
    for begin in
        [query("BEGIN"), query("BEGIN; INSERT INTO t VALUES (1)"), query("START TRANSACTION"), extended]
    {
        let mut client = pooler.connect();
        client.send(&begin);
        let frames = client.closed();
        let error = frames.last().unwrap();
        assert_eq!(
            (error.tag, error.field(b'V').as_str(), error.field(b'C').as_str()),
            (b'E', "FATAL", "0A000")
        );
        assert_eq!(error.field(b'M'), "transaction blocks not allowed in statement pooling mode");
        assert_eq!(pooler.connect().sql("SELECT pg_current_xact_id_if_assigned()"), ["NULL"]);
    }
    assert_eq!(database.sql("SELECT count(*) FROM t"), ["0"]);
}

/// The user's mode beats the database's, which beats the general one.
#[test]
fn mode_may_differ_by_database_and_user() {
    let database = Database::new();
    let section = |name: &str, mode: &str| {
        format!(
            "[databases.{name}]\nhost = \"127.0.0.1\"\nport = {}\ndbname = \"{}\"\n{mode}\npool_size = 1\n",
            database.port, database.name
        )
    };
    let user =
        |name: &str, mode: &str| format!("[users.{name}]\npassword = \"{}\"\n{mode}\n", password_of(name));
    let pooler = Setup::new(&database)
        .own_users()
        .setting("pool_mode = \"statement\"")
        .section(&section("sessions", "pool_mode = \"session\""))
        .section(&section("transactions", "pool_mode = \"transaction\""))
        .section(&user("app", ""))
        .section(&user("other", "pool_mode = \"transaction\""))
        .start();
    let connect = |role: &str, name: &str| Raw::login(pooler.port, role, name, &password_of(role));

    let mut session = connect("app", "sessions");
    let pid = session.sql(PID);
    let mut waits = connect("app", "sessions");
    waits.send(&query("SELECT 'after it'"));
    pooler.wait_for_pool_of("sessions", "app", "cl_waiting", 1);
    assert_eq!(session.sql(PID), pid);
    drop(session);
    assert_eq!(waits.ready(1)[1].row(), "after it");

    let mut transaction = connect("app", "transactions");
    assert_eq!(transaction.sql("BEGIN; SELECT 'open'"), ["open"]);
    transaction.sql("COMMIT");
    assert_eq!(connect("app", "transactions").sql("SELECT 'shared'"), ["shared"]);

    for name in ["sessions", &pooler.database] {
        let mut user = connect("other", name);
        user.sql("BEGIN");
        user.sql("COMMIT");
        assert_eq!(connect("other", name).sql("SELECT 'shared'"), ["shared"], "{name}");
    }
    let mut statement = pooler.connect();
    statement.send(&query("BEGIN"));
    assert!(statement.closed().last().unwrap().field(b'M').contains("statement pooling mode"));
}

/// Clients in session mode get the same transcript as at PostgreSQL, also for what transaction mode has to pin.
#[test]
fn session_state_and_pipelines_look_as_they_do_at_postgresql() {
    for mode in ["session", "transaction"] {
        let pair = crate::support::compare::Pair::with(&[
            &format!("pool_mode = \"{mode}\""),
            "default_pool_size = 1",
        ]);
        pair.same(|client| {
            client.sql("SET application_name = 'mine'");
            client.sql("CREATE TEMP TABLE mine AS SELECT 7 AS x");
            client.sql("SELECT * FROM mine");
            client.sql("PREPARE p AS SELECT x FROM mine");
            client.sql("EXECUTE p");
            client.send_all(&[
                parse("n", "SELECT 1"),
                bind("n", &[]),
                execute(),
                sync(),
                parse("n", "SELECT 2"),
                sync(),
                close("n"),
                parse("n", "SELECT 3"),
                bind("n", &[]),
                execute(),
                sync(),
            ]);
            client.ready(3);
            client.sql("DISCARD ALL");
            let _ = client.try_sql("EXECUTE p");
        });
    }
}

/// Makes servers outdated while a session keeps one, and reads what becomes of that.
fn reconnect(pooler: &Pooler, client: &mut Raw) -> Vec<Frame> {
    client.sql("BEGIN");
    pooler.admin().sql("RECONNECT");
    // Not amid a transaction.
    client.sql("SELECT 1");
    client.send(&query("COMMIT"));
    client.closed()
}

#[test]
fn servers_of_sessions_that_are_outdated_end_with_them_or_at_once() {
    let database = Database::new();
    let pooler = of(&database, "session");
    let mut client = pooler.connect();
    let pid = client.sql(PID);
    pooler.admin().sql("RECONNECT");
    assert_eq!(client.sql(PID), pid);
    // As the setting is now.
    pooler.admin().sql("SET server_fast_close = 1");
    let frames = client.closed();
    let said = |frames: &[Frame]| frames.last().map(|f| (f.field(b'S'), f.field(b'C'), f.field(b'M')));
    let expected = ["FATAL", "57P01", "database configuration changed"].map(str::to_owned);
    assert_eq!(said(&frames), Some(expected.clone().into()));
    let mut client = pooler.connect();
    assert_ne!(client.sql(PID), pid);
    let frames = reconnect(&pooler, &mut client);
    assert_eq!(frames[0].tag, b'C');
    assert_eq!(said(&frames), Some(expected.into()));
}

/// The same of those that temporary tables keep with their clients; others change servers between transactions.
#[test]
fn pinned_servers_that_are_outdated_end_at_once_if_wanted() {
    let database = Database::new();
    let pooler = of(&database, "transaction");
    pooler.admin().sql("SET server_fast_close = 1");
    let (mut client, mut pinned) = (pooler.connect(), pooler.connect());
    pinned.sql("CREATE TEMP TABLE mine (x int)");
    let frames = reconnect(&pooler, &mut pinned);
    assert_eq!(frames.last().unwrap().field(b'M'), "database configuration changed");
    client.sql("BEGIN");
    let pid = client.sql(PID);
    pooler.admin().sql("RECONNECT");
    assert_eq!(client.sql(PID), pid);
    client.sql("COMMIT");
    assert_ne!(client.sql(PID), pid);
}

/// As PgBouncer: who uses the simple protocol is disconnected, within a transaction and without.
#[test]
fn simple_queries_are_refused_if_that_is_wanted() {
    let database = Database::new();
    let pooler = Pooler::of(&database, &["disable_pqexec = true", "login_notify_message = \"hello\""]);
    let extended = |sql| [parse("", sql), bind("", &[]), execute(), sync()].concat();
    let refused = ["FATAL", "08P01", "PQexec disallowed"].map(str::to_owned);
    for before in [vec![], extended("BEGIN"), parse("", "SELECT 1")] {
        let mut client = pooler.connect();
        client.send(&extended("SELECT 'extended'"));
        assert!(client.ready(1).iter().any(|frame| frame.tag == b'D'));
        client.send(&before);
        if before.ends_with(&sync()) && !before.is_empty() {
            client.ready(1);
        }
        client.send(&query("SELECT 1"));
        let frames = client.closed();
        let error = frames.last().unwrap();
        assert_eq!([b'S', b'C', b'M'].map(|field| error.field(field)), refused, "{frames:?}");
        assert!(frames.iter().all(|frame| frame.tag != b'D'), "{frames:?}");
    }
    // The console is spoken to in no other way.
    assert!(!pooler.console("SHOW POOLS").is_empty());
    let output = pooler.psql(&["-c", "\\conninfo"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("NOTICE:  hello"), "{output:?}");
}
