//! What servers say unasked, in use and idle: notices, notifications, parameters, their own end.

use std::io::Write as _;

use pooler::demo::{
    cluster::{Cluster, ClusterOptions},
    process::wait_until,
};

use crate::support::{
    compare::Pair,
    database::{Database, Version, options, password_of, start, superuser},
    msg::*,
    pooler::Pooler,
    raw::{PATIENCE, Raw},
};

/// H43: notices keep their place among the messages, few and many.
#[test]
fn notices_arrive_in_order() {
    Pair::new().same(|client| {
        client.sql("DO $$ BEGIN FOR i IN 1..3 LOOP RAISE NOTICE 'notice %', i; END LOOP; END $$");
        client.send_all(&[
            query("SELECT 1; DO $$ BEGIN RAISE WARNING 'amid'; END $$; SELECT 2"),
            parse("", "DO $$ BEGIN RAISE NOTICE 'extended'; END $$"),
            bind("", &[]),
            execute(),
            sync(),
        ]);
        client.ready(2);
        client.send(&query("DO $$ BEGIN FOR i IN 1..5000 LOOP RAISE NOTICE 'flood %', i; END LOOP; END $$"));
        client.ready(1);
    });
}

/// Notifications come while a client is idle, and its servers know nothing of them.
#[test]
fn notifications_reach_the_session_that_listens_and_no_other() {
    let database = Database::new();
    let pooler = Pooler::of(&database, &["default_pool_size = 2"]);
    let (mut listener, mut other) = (pooler.connect(), pooler.connect());
    listener.sql("LISTEN news");
    other.sql("SELECT 1");
    database.sql("NOTIFY news, 'from outside'");
    let frame = listener.frame();
    assert_eq!(frame.tag, b'A');
    assert!(frame.body[4..].starts_with(b"news\0from outside\0"), "{frame:?}");
    other.sql("NOTIFY news, 'from a neighbour'");
    assert!(listener.frame().body[4..].starts_with(b"news\0from a neighbour\0"));
    assert!(other.received.iter().all(|frame| frame.tag != b'A'));
    // Nobody gets the server with its subscription.
    drop(listener);
    pooler.wait_for_pool("sv_active", 0);
    let mut clients = [pooler.connect(), pooler.connect()];
    for client in &mut clients {
        client.sql("BEGIN");
        assert!(client.sql("SELECT * FROM pg_listening_channels()").is_empty());
    }
}

#[test]
fn psql_listens() {
    let database = Database::new();
    let pooler = Pooler::of(&database, &["default_pool_size = 2"]);
    let mut psql = std::process::Command::new("psql")
        .args([
            "-XAt",
            "-h",
            "127.0.0.1",
            "-U",
            "app",
            "-p",
            &pooler.port.to_string(),
            "-d",
            &pooler.database,
        ])
        .env("PGPASSWORD", password_of("app"))
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = psql.stdin.take().unwrap();
    input.write_all(b"LISTEN news;\n").unwrap();
    let listens = || {
        let listeners = pooler.console("SHOW LISTENERS");
        listeners.iter().flatten().any(|(name, value)| name == "channels" && value == "1").then_some(())
    };
    wait_until(PATIENCE, listens).expect("pooler listens for it");
    pooler.connect().sql("NOTIFY news, 'hello'");
    input.write_all(b"SELECT 'next';\n\\q\n").unwrap();
    drop(input);
    let said = String::from_utf8(psql.wait_with_output().unwrap().stdout).unwrap();
    assert!(
        said.contains("LISTEN\nnext\nAsynchronous notification \"news\" with payload \"hello\""),
        "{said}"
    );
}

fn own_cluster() -> Cluster {
    start(&ClusterOptions { tls: None, client_ca: None, ..options(Version::Distribution) })
}

fn in_front_of(cluster: &Cluster, settings: &str) -> Pooler {
    let mut pooler = Pooler::start(&format!(
        "[pooler]\nlisten_addr = \"127.0.0.1\"\nlisten_port = @PORT@\nadmin_users = [\"admin\"]\n{settings}\n\
         [databases.postgres]\nhost = \"127.0.0.1\"\nport = {}\n[users.app]\npassword = \"{}\"\n[users.admin]\n\
         password = \"{}\"\n",
        cluster.primary.port,
        password_of("app"),
        password_of("admin")
    ));
    pooler.database = "postgres".to_owned();
    pooler
}

/// A reload of the server reports parameters on idle servers, on idle clients' servers, and amid transactions.
#[test]
fn parameters_that_a_reload_changes_are_what_clients_see() {
    let cluster = own_cluster();
    let pooler = in_front_of(&cluster, "default_pool_size = 2");
    let (mut idle, mut own, mut busy) = (pooler.connect(), pooler.connect(), pooler.connect());
    own.sql("SET DateStyle = 'German, DMY'");
    busy.sql("BEGIN");
    idle.sql("SELECT 1");
    let mut admin = superuser(&cluster, "postgres");
    admin.sql("ALTER SYSTEM SET DateStyle = 'SQL, DMY'");
    admin.sql("SELECT pg_reload_conf()");
    let in_force = wait_until(PATIENCE, || (admin.sql("SHOW DateStyle") == ["SQL, DMY"]).then_some(()));
    assert!(in_force.is_some());
    // Whatever a client sees, it is what the server does and what it was told last.
    for client in [&mut idle, &mut own, &mut busy] {
        let shown = client.sql("SHOW DateStyle");
        let dated = client.sql("SELECT date '2026-01-31'");
        let format = match shown[0].as_str() {
            "SQL, DMY" => "31/01/2026",
            "German, DMY" => "31.01.2026",
            "ISO, MDY" => "2026-01-31",
            other => panic!("{other}"),
        };
        assert_eq!(dated, [format]);
        let mut reported = client.received.iter().filter(|frame| frame.tag == b'S').filter_map(|frame| {
            let text = String::from_utf8_lossy(&frame.body).into_owned();
            text.strip_prefix("DateStyle\0").map(|value| value.trim_end_matches('\0').to_owned())
        });
        let told = client.parameter("DateStyle").unwrap().to_owned();
        assert_eq!(reported.next_back().unwrap_or(told), shown[0]);
    }
    assert_eq!(own.sql("SHOW DateStyle"), ["German, DMY"]);
    busy.sql("COMMIT");

    // New servers start with it, and so do the clients that come after them.
    admin.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'");
    pooler.wait_for_pool("sv_idle", 0);
    idle.sql("SELECT 1");
    let mut new = pooler.connect();
    assert_eq!(new.parameter("DateStyle"), Some("SQL, DMY"));
    assert_eq!(new.sql("SHOW DateStyle"), ["SQL, DMY"]);
    assert_eq!(own.sql("SHOW DateStyle"), ["German, DMY"]);
}

/// H42: idle servers that the server ends by itself are replaced, and nobody hears of it.
#[test]
fn end_of_idle_servers_is_noticed_before_a_client_meets_it() {
    let database = Database::new();
    let pooler = Pooler::of(&database, &["default_pool_size = 3"]);
    let mut clients: Vec<Raw> = (0..3).map(|_| pooler.connect()).collect();
    for _ in 0..5 {
        clients.iter_mut().for_each(|client| drop(client.sql("BEGIN")));
        clients.iter_mut().for_each(|client| drop(client.sql("COMMIT")));
        database.terminate("app");
        pooler.wait_for_pool("sv_idle", 0);
    }
    for client in &mut clients {
        assert_eq!(client.sql("SELECT 'never noticed'"), ["never noticed"]);
        assert!(client.received.iter().all(|frame| frame.tag != b'E' && frame.tag != b'N'));
    }
}

#[test]
fn idle_session_timeout_of_the_server_is_no_error_of_a_client() {
    let database = Database::new();
    let pooler = Pooler::of(&database, &["default_pool_size = 1"]);
    database.sql(&format!("ALTER ROLE app IN DATABASE {} SET idle_session_timeout = '300ms'", database.name));
    let mut client = pooler.connect();
    for _ in 0..3 {
        assert_eq!(client.sql("SHOW idle_session_timeout"), ["300ms"]);
        pooler.wait_for_pool("sv_idle", 0);
    }
    assert!(client.received.iter().all(|frame| frame.tag != b'E'));
}

/// The server's last words amid a transaction are the client's, and come once.
#[test]
fn end_of_a_server_in_use_is_told_once() {
    let database = Database::new();
    let pooler = Pooler::of(&database, &["default_pool_size = 1"]);
    for statement in ["SELECT 1", "SELECT 1 / 0"] {
        let mut client = pooler.connect();
        client.sql("BEGIN");
        let _ = client.try_sql(statement);
        client.received.clear();
        database.terminate("app");
        let frames = client.closed();
        assert_eq!(frames.iter().map(|frame| frame.field(b'C')).collect::<Vec<_>>(), ["57P01"], "{frames:?}");
        assert_eq!(pooler.connect().sql("SELECT 'next'"), ["next"]);
    }
}

/// A crash of the whole cluster, and its return.
#[test]
fn crashed_server_is_found_again() {
    let mut cluster = own_cluster();
    let pooler = in_front_of(&cluster, "server_login_retry = 0.5");
    let (mut idle, mut busy) = (pooler.connect(), pooler.connect());
    idle.sql("SELECT 1");
    busy.sql("BEGIN");
    // Commits are asynchronous in test clusters: the crash must not take the roles with it.
    superuser(&cluster, "postgres").sql("CHECKPOINT");
    cluster.primary.crash().unwrap();
    let last = busy.closed();
    assert!(last.iter().all(|frame| frame.tag != b'Z'), "{last:?}");
    assert_eq!(last.iter().filter(|frame| frame.tag == b'E').count(), 1, "{last:?}");
    idle.send(&query("SELECT 'waited for it'"));
    pooler.wait_for_pool("cl_waiting", 1);
    cluster.primary.start().unwrap();
    assert_eq!(idle.ready(1)[1].row(), "waited for it");
    assert_eq!(pooler.connect().sql("SELECT 'again'"), ["again"]);
}
