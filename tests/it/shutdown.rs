//! The end of the process, and pauses: nothing that runs is cut off, nobody waits for ever (S49).

use std::{net::TcpStream, thread};

use pooler::demo::process::{TempDir, wait_until};

use crate::support::{
    compare::Pair,
    database::{Database, password_of},
    msg::*,
    pooler::{Pooler, Setup},
    raw::{PATIENCE, Raw},
};

fn told(client: &mut Raw) -> (String, String) {
    let frames = client.closed();
    let last = frames.last().unwrap_or_else(|| panic!("closed without a word; {client:?}"));
    (last.field(b'C'), last.field(b'M'))
}

fn gone() -> (String, String) {
    ("57P01".to_owned(), "pooler is shutting down".to_owned())
}

/// Nobody is let in any more.
fn wait_until_closed(pooler: &Pooler) {
    let refused = || TcpStream::connect(("127.0.0.1", pooler.port)).is_err().then_some(());
    assert!(wait_until(PATIENCE, refused).is_some(), "still accepts");
}

#[test]
fn sigterm_waits_for_clients_and_ends_with_0() {
    let mut pair = Pair::new();
    let (mut app, mut other) = (pair.pooler.connect(), pair.pooler.connect());
    app.sql("BEGIN");
    pair.pooler.signal("TERM");
    pair.pooler.wait_for_log("got SIGTERM");
    wait_until_closed(&pair.pooler);
    assert_eq!(app.sql("SELECT 1"), ["1"]);
    app.sql("CREATE TABLE done (x int)");
    app.sql("COMMIT");
    // Connected clients go on: they are waited for.
    assert_eq!(other.sql("SELECT count(*) FROM done"), ["0"]);
    drop(other);
    assert_eq!(app.sql("SELECT 2"), ["2"]);
    assert!(pair.pooler.is_running());
    drop(app);
    assert_eq!(pair.pooler.ended(), Some(0));
    pair.pooler.wait_for_log("client connections dropped, exiting");
}

#[test]
fn second_signal_ends_at_once_and_rolls_back() {
    for (first, second) in [("TERM", "TERM"), ("INT", "INT"), ("TERM", "INT"), ("INT", "TERM")] {
        let mut pair = Pair::new();
        let mut app = pair.pooler.connect();
        app.sql("CREATE TABLE kept (x int)");
        app.sql("BEGIN");
        app.sql("INSERT INTO kept VALUES (1)");
        pair.pooler.signal(first);
        pair.pooler.wait_for_log(&format!("got SIG{first}"));
        assert_eq!(app.sql("SELECT count(*) FROM kept"), ["1"]);
        pair.pooler.signal(second);
        assert_eq!(told(&mut app), gone(), "{first} {second}");
        assert_eq!(pair.pooler.ended(), Some(0), "{first} {second}");
        assert_eq!(pair.database.sql("SELECT count(*) FROM kept"), ["0"]);
    }
}

#[test]
fn sigquit_ends_at_once_and_tells_everybody() {
    let mut pair = Pair::new();
    let (mut idle, mut busy, mut admin) = (pair.pooler.connect(), pair.pooler.connect(), pair.pooler.admin());
    busy.send(&query("SELECT pg_sleep(600)"));
    pair.pooler.wait_for_pool("sv_active", 1);
    pair.pooler.signal("QUIT");
    for client in [&mut idle, &mut busy, &mut admin] {
        assert_eq!(told(client), gone());
    }
    assert_eq!(pair.pooler.ended(), Some(0));
}

#[test]
fn sigint_waits_for_transactions_only_and_sends_waiting_clients_away() {
    let mut pair = Pair::new();
    let (mut idle, mut busy, mut waiting) =
        (pair.pooler.connect(), pair.pooler.connect(), pair.pooler.connect());
    busy.sql("BEGIN");
    waiting.send(&query("SELECT 1"));
    pair.pooler.wait_for_pool("cl_waiting", 1);
    pair.pooler.signal("INT");
    assert_eq!(told(&mut waiting), ("57P01".to_owned(), "server shutting down".to_owned()));
    busy.sql("CREATE TABLE done (x int)");
    busy.sql("COMMIT");
    assert_eq!(told(&mut busy), gone());
    assert_eq!(told(&mut idle), gone());
    assert_eq!(pair.pooler.ended(), Some(0));
    assert_eq!(pair.database.sql("SELECT count(*) FROM done"), ["0"]);
}

#[test]
fn shutdown_timeout_bounds_the_wait() {
    let mut pair = Pair::with(&["shutdown_timeout = \"200ms\""]);
    let mut app = pair.pooler.connect();
    app.sql("BEGIN");
    pair.pooler.signal("TERM");
    assert_eq!(told(&mut app), gone());
    assert_eq!(pair.pooler.ended(), Some(0));
}

#[test]
fn shutdown_command_is_answered_and_ends_the_process() {
    let mut pair = Pair::new();
    let mut app = pair.pooler.connect();
    app.sql("BEGIN");
    let mut admin = pair.pooler.admin();
    admin.send(&query("SHUTDOWN"));
    let frames: Vec<_> = admin.closed().iter().map(|frame| format!("{frame:?}")).collect();
    assert_eq!(frames[..2], ["CommandComplete SHUTDOWN", "ReadyForQuery I"], "{frames:?}");
    assert_eq!(told(&mut app), gone());
    assert_eq!(pair.pooler.ended(), Some(0));
}

#[test]
fn console_stays_reachable_while_a_shutdown_waits() {
    let sockets = TempDir::new(None).unwrap();
    let database = Database::new();
    let mut pooler =
        Setup::new(&database).setting(&format!("unix_socket_dir = \"{}\"", sockets.path().display())).start();
    let path = sockets.path().join(format!(".s.PGSQL.{}", pooler.port));
    let mut app = pooler.connect();
    app.sql("BEGIN");
    let mut admin = pooler.admin();
    admin.send(&query("SHUTDOWN WAIT_FOR_CLIENTS"));
    assert_eq!(format!("{:?}", admin.ready(1)[0]), "CommandComplete SHUTDOWN");
    wait_until_closed(&pooler);
    // The owner of the process needs no password there.
    let mut second = Raw::login_unix(&path, "pgbouncer", "pgbouncer");
    let clients = second.sql("SHOW CLIENTS");
    assert!(clients.iter().any(|row| row.starts_with("C|app|")), "{clients:?}");
    assert_eq!(second.try_sql("RESUME").unwrap_err().field(b'M'), "pooler is shutting down");
    let mut late = Raw::open_unix(&path);
    let refused = late.try_login("app", &database.name, &password_of("app"), &[]).unwrap_err();
    assert_eq!((refused.field(b'C'), refused.field(b'M')), gone());
    app.sql("COMMIT");
    drop(app);
    // Clients of the console are not waited for.
    assert_eq!(told(&mut admin), gone());
    assert_eq!(pooler.ended(), Some(0));
    assert!(!path.exists(), "the socket file is left");
}

#[test]
fn shutdown_wait_for_servers_waits_for_transactions() {
    let mut pair = Pair::new();
    let mut app = pair.pooler.connect();
    app.sql("BEGIN");
    pair.pooler.admin().sql("SHUTDOWN WAIT_FOR_SERVERS");
    assert_eq!(app.sql("SELECT 1"), ["1"]);
    assert!(pair.pooler.is_running());
    app.sql("COMMIT");
    assert_eq!(told(&mut app), gone());
    assert_eq!(pair.pooler.ended(), Some(0));
}

#[test]
fn pause_waits_for_transactions_closes_servers_and_resume_wakes_all() {
    let pair = Pair::with(&["default_pool_size = 3"]);
    let (mut busy, mut idle) = (pair.pooler.connect(), pair.pooler.connect());
    idle.sql("SELECT 1");
    busy.sql("BEGIN");
    let mut admin = pair.pooler.admin();
    admin.send(&query("PAUSE"));
    let paused = wait_until(PATIENCE, || (pair.pooler.console("SHOW STATE")[1][1].1 == "yes").then_some(()));
    assert!(paused.is_some());
    // What runs goes on.
    assert_eq!(busy.sql("SELECT 2"), ["2"]);
    busy.sql("COMMIT");
    assert_eq!(format!("{:?}", admin.ready(1)[0]), "CommandComplete PAUSE");
    let none_left = wait_until(PATIENCE, || (pair.database.server_count() == 0).then_some(()));
    assert!(none_left.is_some(), "servers are left");
    assert_eq!(admin.try_sql("PAUSE").unwrap_err().field(b'M'), "already suspended/paused");
    // Old and new clients wait; logins go on.
    let mut clients: Vec<_> = (0..5).map(|_| pair.pooler.connect()).collect();
    clients.extend([busy, idle]);
    for client in &mut clients {
        client.send(&query("SELECT 3"));
    }
    pair.pooler.wait_for_pool("cl_waiting", 7);
    assert_eq!(pair.database.server_count(), 0, "a pause opens no servers");
    admin.sql("RESUME");
    for client in &mut clients {
        assert_eq!(client.ready(1)[1].row(), "3");
    }
}

#[test]
fn pause_of_one_database_leaves_the_others_alone() {
    let (one, two) = (Database::new(), Database::new());
    let section = format!("[databases.{}]\nhost = \"127.0.0.1\"\nport = {}", two.name, two.port);
    let pooler = Setup::new(&one).section(&section).start();
    let mut admin = pooler.admin();
    admin.sql(&format!("PAUSE {}", one.name));
    // The pool has never had a server: even the login waits for one.
    let (port, name) = (pooler.port, one.name.clone());
    let paused = thread::spawn(move || Raw::login(port, "app", &name, &password_of("app")).sql("SELECT 1"));
    pooler.wait_for_pool("cl_waiting", 1);
    assert_eq!(Raw::login(pooler.port, "app", &two.name, &password_of("app")).sql("SELECT 2"), ["2"]);
    let flags: Vec<_> =
        admin.sql("SHOW DATABASES").iter().map(|row| row.split('|').nth(15).unwrap().to_owned()).collect();
    assert_eq!(flags.iter().filter(|flag| *flag == "1").count(), 1, "{flags:?}");
    assert_eq!(admin.sql("SHOW STATE")[1], "paused|no");
    // The end of a pause of everything is not the end of this one.
    admin.sql("PAUSE");
    admin.sql("RESUME");
    pooler.wait_for_pool("cl_waiting", 1);
    admin.sql(&format!("RESUME {}", one.name));
    assert_eq!(paused.join().unwrap(), ["1"]);
}

#[test]
fn pause_does_not_wait_for_a_server_that_never_answers() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let database = Database::new();
    let section =
        format!("[databases.silent]\nhost = \"127.0.0.1\"\nport = {}", silent.local_addr().unwrap().port());
    let pooler = Setup::new(&database).setting("server_connect_timeout = 0").section(&section).start();
    let port = pooler.port;
    let client = thread::spawn(move || Raw::open(port).try_login("app", "silent", &password_of("app"), &[]));
    let (_held, _) = silent.accept().unwrap();
    let mut admin = pooler.admin();
    admin.sql("PAUSE silent");
    // After the pause it is tried again.
    admin.sql("RESUME silent");
    silent.accept().unwrap();
    admin.sql("KILL silent");
    assert_eq!(client.join().unwrap().unwrap_err().field(b'M'), "database removed");
}

#[test]
fn cancelled_pause_is_over() {
    let pair = Pair::new();
    let mut busy = pair.pooler.connect();
    busy.sql("BEGIN");
    let mut admin = pair.pooler.admin();
    admin.send(&query("PAUSE"));
    let paused = wait_until(PATIENCE, || (pair.pooler.console("SHOW STATE")[1][1].1 == "yes").then_some(()));
    assert!(paused.is_some());
    admin.cancel();
    assert_eq!(admin.ready(1)[0].field(b'C'), "57014");
    assert_eq!(admin.sql("SHOW STATE")[1], "paused|no");
    busy.sql("COMMIT");
    assert_eq!(pair.pooler.connect().sql("SELECT 1"), ["1"]);
}

#[test]
fn signals_pause_and_resume() {
    let pair = Pair::new();
    let mut app = pair.pooler.connect();
    app.sql("SELECT 1");
    pair.pooler.signal("USR1");
    let gone = wait_until(PATIENCE, || (pair.database.server_count() == 0).then_some(()));
    assert!(gone.is_some(), "servers are left");
    app.send(&query("SELECT 2"));
    pair.pooler.wait_for_pool("cl_waiting", 1);
    pair.pooler.signal("USR2");
    assert_eq!(app.ready(1)[1].row(), "2");
}
