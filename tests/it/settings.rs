//! Settings that no other group of tests is about: each does what docs/settings.md says.

use std::{fs, net::TcpListener, os::unix::fs::PermissionsExt, thread};

use pooler::demo::process::{TempDir, wait_until};

use crate::support::{
    compare::Pair,
    database::{Database, password_of},
    msg::*,
    pooler::Setup,
    raw::{PATIENCE, Raw},
};

fn backend(client: &mut Raw) -> String {
    client.sql("SELECT pg_backend_pid()").remove(0)
}

#[test]
fn listen_addr_names_every_address_to_listen_on() {
    let database = Database::new();
    let toml = |addresses: &str| {
        format!(
            "[pooler]\nlisten_addr = {addresses}\nlisten_port = @PORT@\n[databases.app]\nhost = \"127.0.0.1\"\n\
             port = {}\n",
            database.port
        )
    };
    for (addresses, reachable, unreachable) in [
        ("\"127.0.0.1\"", &["127.0.0.1"][..], &["127.0.0.2"][..]),
        ("[\"127.0.0.1\", \"127.0.0.2\"]", &["127.0.0.1", "127.0.0.2"], &["127.0.0.3"]),
        ("\"*\"", &["127.0.0.1", "127.0.0.3", "::1"], &[]),
    ] {
        let pooler = crate::support::pooler::Pooler::start(&toml(addresses));
        let open = |host: &str| std::net::TcpStream::connect((host, pooler.port)).is_ok();
        assert!(reachable.iter().all(|host| open(host)), "{addresses}");
        assert!(!unreachable.iter().any(|host| open(host)), "{addresses}");
    }
}

#[test]
fn unix_socket_has_its_mode_and_clients() {
    let database = Database::new();
    let dir = TempDir::new(None).unwrap();
    let pooler = Setup::new(&database)
        .setting(&format!("unix_socket_dir = \"{}\"\nunix_socket_mode = \"0700\"", dir.path().display()))
        .start();
    let path = dir.path().join(format!(".s.PGSQL.{}", pooler.port));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    let mut client = Raw::open_unix(&path);
    client.try_login("app", &database.name, &password_of("app"), &[]).unwrap();
    assert_eq!(client.sql("SELECT 1"), ["1"]);
    let row = pooler.admin().sql("SHOW CLIENTS").into_iter().find(|row| row.starts_with("C|app|")).unwrap();
    let own_pid = std::process::id().to_string();
    let columns: Vec<_> = row.split('|').collect();
    assert_eq!((columns[5], columns[16]), ("unix", own_pid.as_str()), "{row}");
}

#[test]
fn max_connect_attempts_bounds_logins_at_the_server() {
    // Takes connections and never says anything.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let (database, port) = (Database::new(), silent.local_addr().unwrap().port());
    for attempts in [1, 3] {
        let pooler = Setup::new(&database)
            .setting(&format!("max_connect_attempts = {attempts}"))
            .section(&format!("[databases.silent]\nhost = \"127.0.0.1\"\nport = {port}"))
            .start();
        let address = pooler.port;
        let clients: Vec<_> = (0..6)
            .map(|_| {
                thread::spawn(move || Raw::open(address).try_login("app", "silent", &password_of("app"), &[]))
            })
            .collect();
        let numbers = || {
            let row =
                pooler.admin().sql("SHOW POOLS").into_iter().find(|row| row.starts_with("silent|app|"))?;
            let columns: Vec<u32> = row.split('|').filter_map(|column| column.parse().ok()).collect();
            Some((columns[1], columns[10]))
        };
        let all_wait = wait_until(PATIENCE, || (numbers() == Some((6, attempts))).then_some(()));
        assert!(all_wait.is_some(), "waiting and logging in: {:?}, not 6 and {attempts}", numbers());
        pooler.admin().sql("KILL silent");
        for client in clients {
            assert_eq!(client.join().unwrap().unwrap_err().field(b'M'), "database removed");
        }
    }
}

#[test]
fn server_round_robin_takes_the_server_that_was_idle_the_longest() {
    for (round_robin, different) in [(false, 1), (true, 2)] {
        let pair = Pair::with(&[
            "default_pool_size = 2",
            &format!("server_round_robin = {round_robin}"),
            "workers = 1",
        ]);
        let (mut one, mut two) = (pair.pooler.connect(), pair.pooler.connect());
        one.sql("BEGIN");
        two.sql("SELECT 1");
        one.sql("COMMIT");
        let mut pids: Vec<_> = (0..4).map(|_| backend(&mut one)).collect();
        pids.sort();
        pids.dedup();
        assert_eq!(pids.len(), different, "server_round_robin = {round_robin}");
    }
}

#[test]
fn server_reset_query_runs_where_it_is_said_to() {
    let reset = "server_reset_query = \"INSERT INTO resets VALUES (1)\"";
    for (settings, at_the_end, after_each) in [
        (&["pool_mode = \"session\"", reset][..], 1, false),
        (&["pool_mode = \"transaction\"", reset], 0, false),
        (&["pool_mode = \"transaction\"", reset, "server_reset_query_always = true"], 2, true),
        (&["pool_mode = \"session\"", "server_reset_query = \"\""], 0, false),
    ] {
        let lines: Vec<&str> = settings.iter().copied().chain(["default_pool_size = 1"]).collect();
        let pair = Pair::with(&lines);
        pair.database.connect().sql("CREATE TABLE resets (x int)");
        let mut client = pair.pooler.connect();
        client.sql("SELECT 1");
        client.sql("SELECT 2");
        let count = "SELECT count(*) FROM resets";
        if after_each {
            pair.database.wait_for(count, &[&at_the_end.to_string()]);
        }
        drop(client);
        pair.pooler.wait_for_pool("cl_active", 0);
        pair.pooler.wait_for_pool("sv_idle", 1);
        pair.database.wait_for(count, &[&at_the_end.to_string()]);
    }
}

#[test]
fn max_packet_size_bounds_what_has_to_be_read_as_a_whole() {
    let pair = Pair::with(&["max_packet_size = 4096"]);
    let mut client = pair.pooler.connect();
    let long = "x".repeat(10_000);
    // A query is streamed.
    assert_eq!(client.sql(&format!("SELECT length('{long}')")), ["10000"]);
    client.send_all(&[parse("", &format!("SELECT length('{long}')")), sync()]);
    let last = client.closed().pop().unwrap();
    assert_eq!(last.field(b'C'), "08P01", "{last:?}");
    assert!(last.field(b'M').contains("max_packet_size"), "{last:?}");
}

#[test]
fn ignored_startup_parameters_are_dropped_others_are_left_to_the_server() {
    for (setting, expected) in [("\"\"", Err("42704".to_owned())), ("\"other, no_such_parameter\"", Ok(()))] {
        let pair = Pair::with(&[&format!("ignore_startup_parameters = {setting}")]);
        let mut client = Raw::open(pair.pooler.port);
        let parameters = [("no_such_parameter", "1"), ("extra_float_digits", "2")];
        let login = client.try_login("app", &pair.database.name, &password_of("app"), &parameters);
        assert_eq!(login.map_err(|error| error.field(b'C')), expected, "{setting}");
        if expected.is_ok() {
            assert_eq!(client.sql("SHOW extra_float_digits"), ["2"]);
        }
    }
}

/// Whether the kernel's timer of keepalive runs for connections of pooler to this remote or at this local port.
fn probed(local: Option<u16>, remote: Option<u16>) -> Vec<bool> {
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let port = |address: &str| u16::from_str_radix(address.split(':').nth(1).unwrap(), 16).unwrap();
    let rows = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    // Established ones; the sixth column starts with the kind of timer, 2 is keepalive.
    rows.filter(|row| row[3] == "01")
        .filter(|row| local.is_none_or(|l| port(row[1]) == l) && remote.is_none_or(|r| port(row[2]) == r))
        .map(|row| row[5].starts_with("02"))
        .collect()
}

#[test]
fn silent_connections_are_probed_at_both_ends() {
    for on in [true, false] {
        let database = Database::new();
        // A port of its own in between, so that other tests' connections are not mistaken for this one's.
        let pooler = Setup::new(&database).setting(&format!("tcp_keepalive = {on}")).start();
        let mut client = pooler.connect();
        client.sql("SELECT 1");
        let at_clients = wait_until(PATIENCE, || {
            let timers = probed(Some(pooler.port), None);
            (timers == [on]).then_some(())
        });
        assert!(at_clients.is_some(), "tcp_keepalive = {on}: {:?}", probed(Some(pooler.port), None));
        let row = pooler.admin().sql("SHOW SERVERS").remove(0);
        let local = row.split('|').nth(8).unwrap().parse().unwrap();
        let at_servers =
            wait_until(PATIENCE, || (probed(Some(local), Some(database.port)) == [on]).then_some(()));
        assert!(at_servers.is_some(), "tcp_keepalive = {on}");
    }
}
