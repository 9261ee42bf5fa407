//! The admin console: result sets, both query protocols, rights, and commands.

use std::{collections::HashMap, fs, process::Command};

use pooler::demo::process::wait_until;

use crate::support::{
    compare::Pair,
    database::{Database, password_of},
    msg::*,
    pooler::Setup,
    raw::{PATIENCE, Raw},
};

/// Type OIDs of the console's columns, as shared/PGBOUNCER.md writes them.
const T: u32 = 25;
const I: u32 = 23;
const Q: u32 = 20;
const N: u32 = 1700;

/// PgBouncer 1.25's result sets: command, then columns with their types.
fn result_sets() -> Vec<(&'static str, Vec<(&'static str, u32)>)> {
    let list = |kind: u32, names: &'static str| names.split_whitespace().map(move |name| (name, kind));
    let connections: Vec<_> = list(T, "type user database replication state addr")
        .chain(list(I, "port"))
        .chain(list(T, "local_addr"))
        .chain(list(I, "local_port"))
        .chain(list(T, "connect_time request_time"))
        .chain(list(I, "wait wait_us close_needed"))
        .chain(list(T, "ptr link"))
        .chain(list(I, "remote_pid"))
        .chain(list(T, "tls application_name"))
        .chain(list(I, "prepared_statements id"))
        .collect();
    let buffers = "recv_pos pkt_pos pkt_remain send_pos send_remain pkt_avail send_avail";
    let averages = "database server_assignment_count xact_count query_count bytes_received bytes_sent xact_time \
         query_time wait_time";
    vec![
        ("SOCKETS", connections.iter().copied().chain(list(I, buffers)).collect()),
        ("ACTIVE_SOCKETS", connections.iter().copied().chain(list(I, buffers)).collect()),
        // The last ones are not PgBouncer's, and not of 1.25 in DATABASES and STATS.
        ("CLIENTS", connections.iter().copied().chain(["route", "node", "class"].map(|name| (name, T))).collect()),
        ("SERVERS", connections.into_iter().chain([("pinned", T)]).collect()),
        (
            "POOLS",
            list(T, "database user")
                .chain(list(
                    I,
                    "cl_active cl_waiting cl_active_cancel_req cl_waiting_cancel_req sv_active \
                     sv_active_cancel sv_being_canceled sv_idle sv_used sv_tested sv_login maxwait maxwait_us",
                ))
                .chain(list(T, "pool_mode load_balance_hosts"))
                .collect(),
        ),
        (
            "DATABASES",
            list(T, "name host")
                .chain(list(I, "port"))
                .chain(list(T, "database force_user"))
                .chain(list(I, "pool_size min_pool_size reserve_pool_size server_lifetime"))
                .chain(list(T, "pool_mode load_balance_hosts"))
                .chain(list(
                    I,
                    "max_connections current_connections max_client_connections \
                     current_client_connections paused disabled reserve_pool",
                ))
                .collect(),
        ),
        (
            "USERS",
            list(T, "name pool_size reserve_pool_size pool_mode")
                .chain(list(
                    I,
                    "max_user_connections current_connections max_user_client_connections \
                     current_client_connections",
                ))
                .collect(),
        ),
        ("LISTS", vec![("list", T), ("items", Q)]),
        (
            "STATS",
            list(T, "database")
                .chain(list(
                    N,
                    "total_server_assignment_count total_xact_count total_query_count total_received total_sent \
                     total_xact_time total_query_time total_wait_time total_client_parse_count \
                     total_server_parse_count total_bind_count total_client_login_count \
                     avg_server_assignment_count avg_xact_count avg_query_count avg_recv avg_sent avg_xact_time \
                     avg_query_time avg_wait_time avg_client_parse_count avg_server_parse_count avg_bind_count \
                     avg_client_login_count total_requests",
                ))
                .collect(),
        ),
        (
            "STATS_TOTALS",
            list(T, "database")
                .chain(list(N, averages).skip(1))
                .chain(list(N, "client_parse_count server_parse_count bind_count client_login_count"))
                .collect(),
        ),
        (
            "STATS_AVERAGES",
            list(T, "database")
                .chain(list(N, averages).skip(1))
                .chain(list(
                    N,
                    "avg_client_parse_count avg_server_parse_count avg_bind_count avg_client_login_count",
                ))
                .collect(),
        ),
        ("TOTALS", vec![("name", T), ("value", N)]),
        ("CONFIG", list(T, "key value default changeable").collect()),
        ("STATE", list(T, "key value").collect()),
        ("VERSION", vec![("version", T)]),
    ]
}

fn described(frame: &Frame) -> Vec<(String, u32)> {
    assert_eq!(frame.tag, b'T', "{frame:?}");
    frame.columns()
}

/// One row as a map from column to value.
fn row_where(rows: &[Vec<(String, String)>], column: &str, value: &str) -> HashMap<String, String> {
    let found = rows.iter().find(|row| row.iter().any(|(name, v)| name == column && v == value));
    found.unwrap_or_else(|| panic!("no {column} {value} in {rows:?}")).iter().cloned().collect()
}

fn message_of(error: &Frame) -> (String, String) {
    (error.field(b'C'), error.field(b'M'))
}

#[test]
fn result_sets_have_pgbouncers_columns_in_both_protocols() {
    let pair = Pair::new();
    pair.pooler.connect().sql("SELECT 1");
    let mut admin = pair.pooler.admin();
    for (what, columns) in result_sets() {
        let expected: Vec<_> = columns.iter().map(|(name, kind)| ((*name).to_owned(), *kind)).collect();
        admin.send(&query(&format!("SHOW {what};")));
        let simple = admin.ready(1);
        assert_eq!(described(&simple[0]), expected, "SHOW {what}");
        for row in simple.iter().filter(|frame| frame.tag == b'D') {
            assert_eq!(row.values().len(), expected.len(), "SHOW {what}: {row:?}");
        }
        assert!(simple.iter().any(|frame| frame.tag == b'D'), "SHOW {what} has no rows");
        assert_eq!(format!("{:?}", simple[simple.len() - 2]), "CommandComplete SHOW");

        let lower = format!("show {}", what.to_lowercase());
        admin.send_all(&[
            parse("", &lower),
            describe(""),
            bind("", &[]),
            describe_portal(""),
            execute(),
            sync(),
        ]);
        let extended = admin.ready(1);
        let tags: String =
            extended.iter().map(|frame| char::from(frame.tag)).filter(|tag| *tag != 'D').collect();
        assert_eq!(tags, "1tT2TCZ", "{what}");
        assert_eq!(described(&extended[2]), expected, "{what}");
        assert_eq!(described(&extended[4]), expected, "{what}");
    }
    let closed = admin.try_sql("SHOW FDS").unwrap_err();
    assert_eq!(message_of(&closed).1, "invalid command 'SHOW FDS', use SHOW HELP;");
}

#[test]
fn what_there_is_nothing_of_is_shown_as_nothing() {
    let pair = Pair::new();
    let mut admin = pair.pooler.admin();
    for (what, columns) in [
        ("MEM", "name size used free memtotal"),
        ("PEERS", "peer_id host port pool_size"),
        ("PEER_POOLS", "peer_id cl_active_cancel_req cl_waiting_cancel_req sv_active_cancel sv_login"),
        ("DNS_HOSTS", "hostname ttl addrs"),
        ("DNS_ZONES", "zonename serial count"),
    ] {
        admin.send(&query(&format!("SHOW {what}")));
        let frames = admin.ready(1);
        let tags: String = frames.iter().map(|frame| char::from(frame.tag)).collect();
        let names: Vec<_> = described(&frames[0]).into_iter().map(|(name, _)| name).collect();
        assert_eq!((tags.as_str(), names.join(" ").as_str()), ("TCZ", columns));
    }
}

#[test]
fn sockets_are_clients_and_servers_with_the_states_of_both() {
    let pair = Pair::new();
    let mut app = pair.pooler.connect();
    app.sql("BEGIN");
    let state = |rows: &[Vec<(String, String)>], kind: &str| row_where(rows, "type", kind)["state"].clone();
    let all = pair.pooler.console("SHOW SOCKETS");
    assert_eq!((state(&all, "S").as_str(), all.len()), ("sv_active", 3), "{all:?}");
    assert_eq!(row_where(&all, "user", "app")["database"], pair.database.name);
    app.sql("COMMIT");
    let active = pair.pooler.console("SHOW ACTIVE_SOCKETS");
    assert_eq!((state(&active, "C").as_str(), active.len()), ("cl_active", 1), "the console's: {active:?}");
}

#[test]
fn help_is_a_notice_and_lists_every_command() {
    let pair = Pair::new();
    let mut admin = pair.pooler.admin();
    admin.send_all(&[
        query("SHOW HELP"),
        parse("", "SHOW HELP"),
        describe(""),
        bind("", &[]),
        execute(),
        sync(),
    ]);
    let frames = admin.ready(2);
    let tags: String = frames.iter().map(|frame| char::from(frame.tag)).collect();
    assert_eq!(tags, "NCZ1tn2NCZ");
    assert_eq!(frames[0].field(b'M'), "Console usage");
    let help = frames[0].field(b'D');
    for (what, _) in result_sets() {
        assert!(help.contains(what), "{what} in {help}");
    }
}

#[test]
fn console_itself_is_a_pool_and_a_database() {
    let pair = Pair::new();
    let mut app = pair.pooler.connect();
    app.sql("SELECT 1");
    let _second = pair.pooler.admin();
    let console = row_where(&pair.pooler.console("SHOW POOLS"), "database", "pgbouncer");
    assert_eq!(
        (&*console["user"], &*console["cl_active"], &*console["pool_mode"], &*console["sv_idle"]),
        ("pgbouncer", "2", "statement", "0")
    );
    let console = row_where(&pair.pooler.console("SHOW DATABASES"), "name", "pgbouncer");
    assert_eq!(console["port"], pair.pooler.port.to_string());
    assert_eq!(
        (&*console["host"], &*console["force_user"], &*console["pool_size"], &*console["pool_mode"]),
        ("", "pgbouncer", "2", "statement")
    );
    let clients = pair.pooler.console("SHOW CLIENTS");
    assert_eq!(clients.len(), 3, "{clients:?}");
    let mine = row_where(&clients, "user", "app");
    assert_eq!((&*mine["state"], &*mine["type"], &*mine["replication"]), ("idle", "C", "none"));
    let lists = pair.pooler.console("SHOW LISTS");
    let item = |name: &str| row_where(&lists, "list", name)["items"].clone();
    assert_eq!(
        (item("databases"), item("pools"), item("used_servers")),
        ("2".into(), "2".into(), "1".into())
    );
}

#[test]
fn databases_made_by_the_star_are_shown_and_the_star_is_not() {
    let database = Database::new();
    let pooler = Setup::new(&database)
        .section(&format!("[databases.\"*\"]\nhost = \"127.0.0.1\"\nport = {}\npool_size = 7", database.port))
        .start();
    let other = Database::new();
    Raw::login(pooler.port, "app", &other.name, &password_of("app")).sql("SELECT 1");
    let rows = pooler.console("SHOW DATABASES");
    assert_eq!(row_where(&rows, "name", &other.name)["pool_size"], "7");
    assert!(!rows.iter().any(|row| row[0].1 == "*"), "{rows:?}");
}

#[test]
fn statistics_count_as_pgbouncer_does_and_averages_forget() {
    let pair = Pair::with(&["default_pool_size = 1", "stats_period = 1"]);
    let mut app = pair.pooler.connect();
    for _ in 0..20 {
        app.sql("SELECT 1");
    }
    app.sql("BEGIN");
    app.sql("SELECT 2");
    app.sql("COMMIT");
    let stats = |database: &str| row_where(&pair.pooler.console("SHOW STATS"), "database", database);
    let row = stats(&pair.database.name);
    for (column, expected) in [
        ("total_xact_count", "21"),
        ("total_query_count", "23"),
        ("total_client_login_count", "1"),
        ("total_client_parse_count", "0"),
    ] {
        assert_eq!(row[column], expected, "{column} in {row:?}");
    }
    assert_ne!(row["total_received"], "0");
    assert_ne!(row["total_sent"], "0");
    // 23 queries within one or two periods of a second: the rate shows, and then is over.
    let rate = |expected: fn(u64) -> bool| {
        wait_until(PATIENCE, || {
            let rate = stats(&pair.database.name)["avg_query_count"].parse().unwrap();
            expected(rate).then_some(())
        })
    };
    assert!(rate(|n| n == 0).is_some(), "averages do not forget");
    for _ in 0..200 {
        app.sql("SELECT 1");
    }
    assert!(rate(|n| n > 0).is_some(), "averages do not see new queries");
    assert!(rate(|n| n == 0).is_some(), "averages do not forget");
    assert_eq!(stats(&pair.database.name)["total_query_count"], "223");
    let line = wait_until(PATIENCE, || {
        pair.pooler.log().lines().rfind(|line| line.contains("stats: ")).map(str::to_owned)
    });
    let line = line.expect("no line of statistics in the log");
    for part in ["xacts/s, ", "queries/s, ", "client logins/s, in ", "B/s, xact ", "us, wait "] {
        assert!(line.contains(part), "{part} in {line}");
    }
    // Each console command is a transaction of the console's.
    let before: u64 = stats("pgbouncer")["total_xact_count"].parse().unwrap();
    let after: u64 = stats("pgbouncer")["total_xact_count"].parse().unwrap();
    assert_eq!(after, before + 1);
}

#[test]
fn statements_assignments_and_waits_are_counted() {
    let pair = Pair::new();
    let (mut one, mut two) = (pair.pooler.connect(), pair.pooler.connect());
    for client in [&mut one, &mut two] {
        client.send_all(&[parse("s", "SELECT 1"), bind("s", &[]), execute(), sync()]);
        client.ready(1);
        client.send_all(&[bind("s", &[]), execute(), bind("s", &[]), execute(), sync()]);
        client.ready(1);
    }
    one.sql("BEGIN");
    two.send(&query("SELECT 2"));
    pair.pooler.wait_for_pool("cl_waiting", 1);
    let waited = wait_until(PATIENCE, || (pair.pooler.pool("maxwait_us") > 0).then_some(()));
    assert!(waited.is_some());
    let clients = pair.pooler.console("SHOW CLIENTS");
    let waiting = row_where(&clients, "state", "waiting");
    assert!(waiting["wait"] != "0" || waiting["wait_us"] != "0", "{waiting:?}");
    let active =
        clients.iter().find(|row| row.iter().any(|(name, value)| name == "link" && !value.is_empty()));
    let active: HashMap<_, _> = active.expect("a linked client").iter().cloned().collect();
    let server = row_where(&pair.pooler.console("SHOW SERVERS"), "type", "S");
    assert_eq!((&active["link"], &server["link"]), (&server["ptr"], &active["ptr"]));
    assert_eq!(
        (&*active["state"], &*server["state"], &*server["prepared_statements"]),
        ("active", "active", "1")
    );
    one.sql("COMMIT");
    two.ready(1);
    let row = row_where(&pair.pooler.console("SHOW STATS"), "database", &pair.database.name);
    for (column, expected) in [
        ("total_client_parse_count", "2"),
        // The second client's statement was there already.
        ("total_server_parse_count", "1"),
        ("total_bind_count", "6"),
        ("total_xact_count", "6"),
        ("total_server_assignment_count", "6"),
        ("total_client_login_count", "2"),
    ] {
        assert_eq!(row[column], expected, "{column} in {row:?}");
    }
    assert_ne!(row["total_wait_time"], "0");
}

#[test]
fn log_stats_can_be_switched_off() {
    let pair = Pair::with(&["stats_period = 1", "log_stats = false"]);
    let two_periods = wait_until(PATIENCE, || {
        let row = row_where(&pair.pooler.console("SHOW STATS"), "database", "pgbouncer");
        (row["total_query_count"].parse::<u64>().unwrap() > 3 && row["avg_query_count"] != "0").then_some(())
    });
    assert!(two_periods.is_some());
    assert!(!pair.pooler.log().contains("stats: "), "{}", pair.pooler.log());
}

#[test]
fn portals_are_fetched_in_parts_and_in_binary() {
    let pair = Pair::new();
    let mut admin = pair.pooler.admin();
    admin.send_all(&[
        parse("lists", "SHOW LISTS"),
        bind_portal("p", "lists", &[]),
        execute_portal("p", 2),
        execute_portal("p", 0),
        close_portal("p"),
        close("lists"),
        sync(),
    ]);
    let tags: String = admin.ready(1).iter().map(|frame| char::from(frame.tag)).collect();
    assert_eq!(tags, format!("12DDs{}C33Z", "D".repeat(12)));
    // As with a driver's cursor: within a transaction a portal outlives Sync, not its end.
    admin.send_all(&[
        query("BEGIN"),
        parse("", "SHOW LISTS"),
        bind_portal("c", "", &[]),
        execute_portal("c", 5),
        sync(),
    ]);
    admin.send_all(&[execute_portal("c", 5), sync(), query("COMMIT"), execute_portal("c", 5), sync()]);
    let tags: String = admin.ready(5).iter().map(|frame| char::from(frame.tag)).collect();
    assert_eq!(tags, "CZ12DDDDDsZDDDDDsZCZEZ");
    // Bind with one result format for all: binary.
    let binary = build(b'B', |b| b.extend(b"\0\0\0\0\0\0\0\x01\0\x01"));
    admin.send_all(&[parse("", "SHOW LISTS"), binary, execute_portal("", 1), sync()]);
    let frames = admin.ready(1);
    let row = &frames[2].body;
    let expected = [&b"\0\x02\0\0\0\x09databases\0\0\0\x08"[..], &2_u64.to_be_bytes()].concat();
    assert_eq!(*row, expected, "{frames:?}");
}

#[test]
fn errors_of_the_extended_protocol_skip_to_sync() {
    let pair = Pair::new();
    let mut admin = pair.pooler.admin();
    let value = build(b'B', |b| b.extend(b"\0\0\0\0\0\x01\0\0\0\x017\0\0"));
    let cases: Vec<(Vec<Vec<u8>>, &str, &str)> = vec![
        (vec![parse("", "SHOW NOTHING")], "42601", "invalid command 'SHOW NOTHING', use SHOW HELP;"),
        (vec![parse("", "SELECT $1")], "42601", "invalid command 'SELECT $1', use SHOW HELP;"),
        (vec![bind("x", &[])], "26000", "prepared statement \"x\" does not exist"),
        (vec![describe("x")], "26000", "prepared statement \"x\" does not exist"),
        (vec![describe_portal("x")], "34000", "portal \"x\" does not exist"),
        (vec![execute_portal("x", 0)], "34000", "portal \"x\" does not exist"),
        (
            vec![parse("a", "SHOW STATE"), parse("a", "SHOW STATE")],
            "42P05",
            "prepared statement \"a\" already exists",
        ),
        (
            vec![parse("", "SHOW STATE"), value],
            "08P01",
            "bind message supplies 1 parameters, but prepared statement \"\" requires 0",
        ),
        (vec![parse("", "PAUSE nosuchdb"), bind("", &[]), execute()], "3D000", "no such database: nosuchdb"),
    ];
    for (mut messages, sqlstate, message) in cases {
        // What follows must not be answered.
        messages.extend([parse("", "SHOW STATE"), bind("", &[]), execute(), sync()]);
        admin.send_all(&messages);
        let frames = admin.ready(1);
        let error = &frames[frames.len() - 2];
        assert_eq!(error.tag, b'E', "{frames:?}");
        assert_eq!(message_of(error), (sqlstate.to_owned(), message.to_owned()));
        admin.send_all(&[parse("", "SHOW STATE"), bind("", &[]), execute(), sync()]);
        assert_eq!(admin.ready(1).iter().filter(|frame| frame.tag == b'D').count(), 3);
    }
    admin.send_all(&[
        parse("", "PAUSE"),
        describe(""),
        bind("", &[]),
        describe_portal(""),
        execute(),
        sync(),
    ]);
    let frames = admin.ready(1);
    let tags: String = frames.iter().map(|frame| char::from(frame.tag)).collect();
    assert_eq!((tags.as_str(), format!("{:?}", frames[5]).as_str()), ("1tn2nCZ", "CommandComplete PAUSE"));
    assert_eq!(admin.sql("SHOW STATE"), ["active|no", "paused|yes", "suspended|no"]);
    admin.sql("RESUME");
}

#[tokio::test]
async fn tokio_postgres_reads_typed_columns() {
    let pair = Pair::new();
    pair.pooler.connect().sql("SELECT 1");
    for database in ["pooler", "pgbouncer"] {
        let (client, connection) = tokio_postgres::Config::new()
            .host("127.0.0.1")
            .port(pair.pooler.port)
            .user("admin")
            .password(password_of("admin"))
            .dbname(database)
            .connect(tokio_postgres::NoTls)
            .await
            .unwrap();
        tokio::spawn(connection);
        let rows = client.query("SHOW POOLS", &[]).await.unwrap();
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[1].get::<_, &str>("database"), pair.database.name);
        assert_eq!(rows[1].get::<_, i32>("sv_idle"), 1);
        assert_eq!(rows[1].get::<_, Option<&str>>("load_balance_hosts"), None);
        let lists = client.query("SHOW LISTS", &[]).await.unwrap();
        assert_eq!(lists[0].get::<_, i64>("items"), 2);
        assert_eq!(client.execute("RELOAD", &[]).await.unwrap(), 0);
        client.simple_query("").await.unwrap();
        let error = client.query("SHOW EVERYTHING", &[]).await.unwrap_err();
        assert_eq!(error.code().unwrap().code(), "42601");
    }
}

#[test]
fn psql_works_with_the_console() {
    let pair = Pair::new();
    let output = Command::new("psql")
        .args(["-X", "-At", "-h", "127.0.0.1", "-U", "admin", "-d", "pgbouncer", "-p"])
        .arg(pair.pooler.port.to_string())
        .args(["-c", "SHOW VERSION", "-c", "SHOW STATE", "-c", "PAUSE", "-c", "RESUME", "-c", "SHOW HELP"])
        .env("PGPASSWORD", password_of("admin"))
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let version = format!("pooler {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(out, format!("{version}active|yes\npaused|no\nsuspended|no\nPAUSE\nRESUME\nSHOW\n"), "{err}");
    assert!(err.contains("NOTICE:  Console usage"), "{err}");
}

#[test]
fn drivers_find_what_they_ask_every_server_for() {
    let pair = Pair::new();
    let mut admin = pair.pooler.admin();
    for (sql, rows) in [
        ("SHOW client_encoding", &["UTF-8"][..]),
        ("SHOW standard_conforming_strings", &["on"]),
        ("show datestyle;", &["ISO"]),
        ("SHOW TimeZone", &["GMT"]),
        ("SHOW default_transaction_isolation", &["read committed"]),
    ] {
        assert_eq!(admin.sql(sql), rows, "{sql}");
    }
    for sql in [
        "SET extra_float_digits = 3",
        "SET application_name = 'PostgreSQL JDBC Driver'",
        "SET DateStyle TO ISO",
    ] {
        admin.send(&query(sql));
        let frames: Vec<_> = admin.ready(1).iter().map(|frame| format!("{frame:?}")).collect();
        assert_eq!(
            frames,
            ["NoticeResponse NOTICE 00000 SET ignored", "CommandComplete SET", "ReadyForQuery I"]
        );
    }
    admin.send_all(&[query("BEGIN"), query("SHOW STATE"), query("COMMIT"), query(";")]);
    let frames: Vec<_> = admin.ready(4).iter().map(|frame| format!("{frame:?}")).collect();
    let status: Vec<_> = frames.iter().filter(|frame| frame.starts_with("Ready")).collect();
    assert_eq!(status, ["ReadyForQuery T", "ReadyForQuery T", "ReadyForQuery I", "ReadyForQuery I"]);
    assert_eq!(frames[frames.len() - 2], "EmptyQueryResponse");
}

#[test]
fn bad_commands_give_clear_errors_and_the_session_goes_on() {
    // S54
    let pair = Pair::new();
    let database = &pair.database.name;
    let mut admin = pair.pooler.admin();
    let long = format!("PAUSE {}", "x".repeat(64));
    let cases: Vec<(String, &str, String)> = [
        "HELLO",
        "SHOW",
        "SHOW POOLS CLIENTS",
        "SHOW POOLS; SHOW STATS",
        "DROP DATABASE app",
        "RELOAD now",
        "SHUTDOWN now",
        "\u{1F600}",
        &long,
    ]
    .into_iter()
    .map(|sql| (sql.to_owned(), "42601", format!("invalid command '{sql}', use SHOW HELP;")))
    .chain(
        [
            ("PAUSE nosuchdb", "3D000", "no such database: nosuchdb"),
            ("RESUME nosuchdb", "3D000", "no such database: nosuchdb"),
            ("KILL nosuchdb", "3D000", "no such database: nosuchdb"),
            ("RECONNECT nosuchdb", "3D000", "no such database: nosuchdb"),
            ("DISABLE nosuchdb", "3D000", "no such database: nosuchdb"),
            ("PAUSE pgbouncer", "42501", "cannot pause admin db: pgbouncer"),
            ("KILL pooler", "42501", "cannot kill admin db: pooler"),
            ("RECONNECT pooler", "42501", "cannot reconnect admin db: pooler"),
            ("DISABLE pgbouncer", "42501", "cannot disable admin db: pgbouncer"),
            ("ENABLE pgbouncer", "42501", "cannot enable admin db: pgbouncer"),
            ("DISABLE", "42601", "a database is required"),
            ("RESUME", "55000", "pooler is not paused/suspended"),
            ("KILL_CLIENT", "22023", "invalid client pointer supplied"),
            ("KILL_CLIENT me", "22023", "invalid client pointer supplied"),
            ("KILL_CLIENT 999999", "42704", "client not found"),
            ("SET pool_mode = 'x'", "22023", "SET failed"),
            ("SET nosuchsetting = 1", "22023", "SET failed"),
        ]
        .map(|(sql, code, message)| (sql.to_owned(), code, message.to_owned())),
    )
    .chain([(format!("RESUME {database}"), "55000", format!("database {database} is not paused"))])
    .collect();
    for (sql, code, message) in cases {
        let error = admin.try_sql(&sql).expect_err(&sql);
        assert_eq!((error.field(b'S'), message_of(&error)), ("ERROR".to_owned(), (code.to_owned(), message)));
    }
    let detail = admin.try_sql("SET defualt_pool_size = 1").unwrap_err().field(b'D');
    assert!(detail.contains("did you mean \"default_pool_size\""), "{detail}");
    admin.send(&function_call(1, &[]));
    assert_eq!(message_of(&admin.ready(1)[0]).0, "0A000");
    assert_eq!(admin.sql("SHOW STATE").len(), 3);
    admin.send(&build(b'?', |_| {}));
    assert_eq!(message_of(&admin.closed()[0]).0, "08P01");
}

#[test]
fn only_admins_may_change_anything() {
    // S54
    let database = Database::new();
    let users = "[users.watcher]\npassword = \"secret of watcher\"";
    let pooler = Setup::new(&database).setting("stats_users = [\"watcher\"]").section(users).start();
    let mut watcher = Raw::login(pooler.port, "watcher", "pgbouncer", &password_of("watcher"));
    for (what, _) in result_sets() {
        watcher.sql(&format!("SHOW {what}"));
    }
    for sql in [
        "RELOAD",
        "PAUSE",
        "RESUME",
        "DISABLE x",
        "ENABLE x",
        "RECONNECT",
        "KILL",
        "KILL_CLIENT 1",
        "WAIT_CLOSE",
        "SHUTDOWN",
        "SHUTDOWN WAIT_FOR_CLIENTS",
        "SET default_pool_size = 1",
    ] {
        let error = watcher.try_sql(sql).expect_err(sql);
        assert_eq!(message_of(&error), ("42501".to_owned(), "admin access needed".to_owned()), "{sql}");
        watcher.send_all(&[parse("", sql), bind("", &[]), execute(), sync()]);
        let frames = watcher.ready(1);
        assert_eq!(frames[2].field(b'M'), "admin access needed", "{sql}: {frames:?}");
    }
    let mut app = Raw::open(pooler.port);
    let refused = app.try_login("app", "pooler", &password_of("app"), &[]).unwrap_err();
    assert_eq!((refused.field(b'S'), refused.field(b'M')), ("FATAL".to_owned(), "not allowed".to_owned()));
    let mut stranger = Raw::open(pooler.port);
    let refused = stranger.try_login("admin", "pooler", "wrong", &[]).unwrap_err();
    assert_eq!(refused.field(b'C'), "28P01");
}

#[test]
fn admins_that_vanish_leave_nothing_behind() {
    // S54
    let pair = Pair::new();
    let descriptors = || fs::read_dir(format!("/proc/{}/fd", pair.pooler.pid())).unwrap().count();
    pair.pooler.admin().sql("SHOW CLIENTS");
    let settled = |expected: usize| {
        let alone = || pair.pooler.console("SHOW CLIENTS").len() == 1;
        wait_until(PATIENCE, || (alone() && descriptors() <= expected).then_some(()))
    };
    let before = descriptors();
    for round in 0..60 {
        let mut admin = pair.pooler.admin();
        // In the middle of an answer, of a message, of a wait.
        match round % 4 {
            0 => admin.send(&query("SHOW STATS")),
            1 => admin.send(&query("SHOW CLIENTS")[..7]),
            2 => admin.send_all(&vec![query("SHOW POOLS"); 50]),
            _ => admin.send_all(&[parse("", "SHOW LISTS"), bind("", &[]), execute()]),
        }
    }
    assert!(settled(before).is_some(), "{} descriptors, {before} before", descriptors());
    let row = row_where(&pair.pooler.console("SHOW USERS"), "name", "admin");
    assert_eq!(row["current_client_connections"], "1");
}

#[test]
fn commands_that_pile_up_are_all_answered_in_order() {
    let pair = Pair::new();
    let mut admin = pair.pooler.admin();
    let commands = [query("SHOW STATE"), query("SHOW CONFIG"), query("NONSENSE")].concat().repeat(1_000);
    let sender = admin.send_meanwhile(commands);
    for _ in 0..1_000 {
        assert_eq!(admin.ready(1).iter().filter(|frame| frame.tag == b'D').count(), 3);
        assert!(admin.ready(1).iter().filter(|frame| frame.tag == b'D').count() > 50);
        assert_eq!(admin.ready(1)[0].field(b'C'), "42601");
        admin.received.clear();
    }
    sender.join().unwrap();
}

#[test]
fn set_lasts_until_the_next_reload() {
    let pair = Pair::new();
    let mut admin = pair.pooler.admin();
    let size = |admin: &mut Raw| {
        let rows = admin.sql("SHOW CONFIG");
        rows.into_iter().find(|row| row.starts_with("default_pool_size|")).unwrap()
    };
    admin.send(&query("SET default_pool_size = 3"));
    assert_eq!(format!("{:?}", admin.ready(1)[0]), "CommandComplete SET default_pool_size=3");
    assert_eq!(size(&mut admin), "default_pool_size|3|20|yes");
    // It is in force: three clients work at the same time.
    let mut clients: Vec<_> = (0..3).map(|_| pair.pooler.connect()).collect();
    for client in &mut clients {
        client.sql("BEGIN");
    }
    for client in &mut clients {
        client.sql("COMMIT");
    }
    admin.sql("RELOAD");
    assert_eq!(size(&mut admin), "default_pool_size|1|20|yes");
    pair.pooler.wait_for_pool("sv_idle", 1);
}

#[test]
fn reconnect_replaces_servers_and_wait_close_waits_for_the_old_ones() {
    let pair = Pair::new();
    let mut app = pair.pooler.connect();
    let pid = app.sql("SELECT pg_backend_pid()");
    app.sql("BEGIN");
    let mut admin = pair.pooler.admin();
    admin.sql(&format!("RECONNECT {}", pair.database.name));
    assert_eq!(row_where(&pair.pooler.console("SHOW SERVERS"), "type", "S")["close_needed"], "1");
    admin.send(&query("WAIT_CLOSE"));
    assert_eq!(app.sql("SELECT pg_backend_pid()"), pid, "a transaction keeps its server");
    app.sql("COMMIT");
    assert_eq!(format!("{:?}", admin.ready(1)[0]), "CommandComplete WAIT_CLOSE");
    assert_ne!(app.sql("SELECT pg_backend_pid()"), pid);
}

#[test]
fn kill_client_ends_one_client_by_the_id_that_is_shown() {
    let pair = Pair::new();
    let (mut victim, mut other) = (pair.pooler.connect(), pair.pooler.connect());
    other.sql("SELECT 1");
    victim.sql("SET application_name = 'victim'");
    let row = row_where(&pair.pooler.console("SHOW CLIENTS"), "application_name", "victim");
    assert_eq!(format!("{:#x}", row["id"].parse::<u32>().unwrap()), row["ptr"]);
    pair.pooler.admin().sql(&format!("KILL_CLIENT {}", row["id"]));
    assert_eq!(message_of(&victim.closed()[0]), ("57P01".to_owned(), "admin forced disconnect".to_owned()));
    assert_eq!(other.sql("SELECT 1"), ["1"]);
}

#[test]
fn kill_drops_clients_and_servers_and_leaves_the_database_paused() {
    let pair = Pair::new();
    let mut busy = pair.pooler.connect();
    busy.sql("BEGIN");
    let mut waiting = pair.pooler.connect();
    waiting.send(&query("SELECT 1"));
    pair.pooler.wait_for_pool("cl_waiting", 1);
    let mut admin = pair.pooler.admin();
    admin.sql(&format!("KILL {}", pair.database.name));
    for client in [&mut busy, &mut waiting] {
        assert_eq!(client.closed()[0].field(b'M'), "database removed");
    }
    let gone = wait_until(PATIENCE, || (pair.database.server_count() == 0).then_some(()));
    assert!(gone.is_some(), "servers are left");
    let mut next = pair.pooler.connect();
    next.send(&query("SELECT 1"));
    pair.pooler.wait_for_pool("cl_waiting", 1);
    assert_eq!(row_where(&pair.pooler.console("SHOW DATABASES"), "name", &pair.database.name)["paused"], "1");
    admin.sql(&format!("RESUME {}", pair.database.name));
    assert_eq!(next.ready(1)[1].row(), "1");
}

#[test]
fn disabled_database_refuses_new_clients_until_it_is_enabled() {
    let pair = Pair::new();
    let name = &pair.database.name;
    let mut old = pair.pooler.connect();
    let mut admin = pair.pooler.admin();
    admin.sql(&format!("DISABLE {name}"));
    assert_eq!(old.sql("SELECT 1"), ["1"]);
    let refused = Raw::open(pair.pooler.port).try_login("app", name, &password_of("app"), &[]).unwrap_err();
    assert_eq!(message_of(&refused), ("57P03".to_owned(), format!("database \"{name}\" is disabled")));
    assert_eq!(row_where(&pair.pooler.console("SHOW DATABASES"), "name", name)["disabled"], "1");
    admin.sql(&format!("ENABLE {name}"));
    assert_eq!(pair.pooler.connect().sql("SELECT 1"), ["1"]);
}
