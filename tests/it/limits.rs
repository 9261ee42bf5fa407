//! Limits: how many clients and servers there may be, who waits, who goes first, and that nothing is counted twice.

use std::sync::atomic::{AtomicUsize, Ordering};

use pooler::demo::process::wait_until;

use crate::support::{
    database::{Database, password_of},
    msg::*,
    pooler::{Pooler, Setup},
    raw::{PATIENCE, Raw, startup},
    tls::{self, Options, ssl_request},
};

const ACTIVE: &str = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                      AND usename <> 'postgres' AND state <> 'idle'";

fn login(pooler: &Pooler, role: &str) -> Result<Raw, Frame> {
    let mut raw = Raw::open(pooler.port);
    raw.try_login(role, &pooler.database, &password_of(role), &[]).map(|()| raw)
}

/// A login that succeeds as soon as somebody else has been counted off.
fn login_soon(pooler: &Pooler, role: &str) -> Raw {
    wait_until(PATIENCE, || login(pooler, role).ok()).expect("a place")
}

fn second_database(database: &Database, name: &str, more: &str) -> String {
    format!(
        "[databases.{name}]\nhost = \"127.0.0.1\"\nport = {}\ndbname = \"{}\"\n{more}\n",
        database.port, database.name
    )
}

#[test]
fn client_limits_refuse_the_one_beyond_and_admit_again() {
    let database = Database::new();
    for (setting, text) in [
        ("max_client_conn = 2", "no more connections allowed (max_client_conn)"),
        ("max_db_client_connections = 2", "client connections exceeded (max_db_client_connections)"),
        ("max_user_client_connections = 2", "client connections exceeded (max_user_client_connections)"),
    ] {
        let pooler = Pooler::of(&database, &[setting]);
        let clients = [login(&pooler, "app").unwrap(), login(&pooler, "app").unwrap()];
        let refused = login(&pooler, "app").unwrap_err();
        assert_eq!((refused.field(b'C').as_str(), refused.field(b'M').as_str()), ("53300", text));
        assert!(refused.field(b'H').contains(setting.split(' ').next().unwrap()), "{refused:?}");
        // Whoever has to look into it gets in.
        assert!(!pooler.console("SHOW POOLS").is_empty());
        drop(clients);
        login_soon(&pooler, "app").sql("SELECT 1");
    }
}

#[test]
fn own_limit_of_a_database_or_user_beats_the_general_one() {
    let database = Database::new();
    let pooler = Setup::new(&database)
        .setting("max_db_client_connections = 1")
        .setting("max_user_client_connections = 1")
        .database("max_db_client_connections = 3")
        .section("[users.scram_more]\n")
        .start();
    let toml = pooler.toml().replace("[users.app]\n", "[users.app]\nmax_user_client_connections = 0\n");
    pooler.rewrite(&toml);
    pooler.signal("HUP");
    let first = login_soon(&pooler, "app");
    let second = login_soon(&pooler, "app");
    let third = login(&pooler, "app").unwrap();
    assert!(login(&pooler, "app").unwrap_err().field(b'M').contains("max_db_client_connections"));
    drop((first, second, third));
    let _other = login_soon(&pooler, "other");
    assert!(login(&pooler, "other").unwrap_err().field(b'M').contains("max_user_client_connections"));
}

/// S51: whatever way a connection ends, it is counted off once.
#[test]
fn counters_balance_however_connections_end() {
    let database = Database::new();
    let pooler = Setup::new(&database)
        .tls("prefer")
        .setting("max_client_conn = 3")
        .setting("max_db_client_connections = 3")
        .setting("max_user_client_connections = 3")
        .setting("client_login_timeout = 1")
        .start();
    let name = pooler.database.clone();
    let ends: [&dyn Fn(); 9] = [
        &|| drop(Raw::open(pooler.port)),
        &|| drop(Raw::open(pooler.port).try_login("app", &name, "wrong", &[])),
        &|| drop(Raw::open(pooler.port).try_login("nobody_known", &name, "wrong", &[])),
        &|| drop(Raw::open(pooler.port).try_login("app", "no_such_database", &password_of("app"), &[])),
        &|| {
            let mut raw = Raw::open(pooler.port);
            raw.send(&startup(3 << 16, &[("user", "app"), ("database", &name)]));
            raw.frame();
        },
        &|| {
            let mut raw = Raw::open(pooler.port);
            raw.send(&ssl_request());
            raw.bytes(1);
            raw.send(b"no handshake at all");
        },
        &|| drop(tls::open(pooler.port, Options { direct: true, ..Options::default() })),
        &|| drop(login(&pooler, "app")),
        &|| {
            if let Ok(mut raw) = login(&pooler, "app") {
                raw.send_all(&[query("SELECT 1"), terminate()]);
                raw.closed();
            }
        },
    ];
    for _ in 0..5 {
        ends.iter().for_each(|end| end());
    }
    let mut all = [login_soon(&pooler, "app"), login_soon(&pooler, "app"), login_soon(&pooler, "app")];
    assert!(login(&pooler, "app").is_err(), "counted off twice");
    for client in &mut all {
        client.sql("SELECT 1");
    }
}

#[test]
fn pool_has_no_more_servers_than_its_size_and_the_rest_waits() {
    let database = Database::new();
    let pooler = Pooler::of(&database, &["default_pool_size = 3"]);
    let mut clients: Vec<Raw> = (0..10).map(|_| pooler.connect()).collect();
    for client in &mut clients {
        client.send(&query("BEGIN"));
    }
    pooler.wait_for_pool("cl_waiting", 7);
    assert_eq!(database.server_count(), 3);
    for client in &mut clients {
        // In whatever order they are served, each is when its turn has come.
        client.send(&query("COMMIT"));
    }
    for client in &mut clients {
        client.ready(2);
    }
    assert_eq!(database.server_count(), 3);
    assert_eq!((pooler.pool("cl_waiting"), pooler.pool("sv_active")), (0, 0));
}

#[test]
fn sizes_of_databases_and_users_beat_the_default() {
    let database = Database::new();
    let pooler = Setup::new(&database)
        .own_users()
        .setting("default_pool_size = 1")
        .database("pool_size = 2")
        .section(&format!("[users.app]\npassword = \"{}\"\npool_size = 3\n", password_of("app")))
        .section(&format!("[users.other]\npassword = \"{}\"\n", password_of("other")))
        .start();
    for (role, size) in [("app", 3), ("other", 2)] {
        let mut clients: Vec<Raw> = (0..5).map(|_| pooler.connect_as(role)).collect();
        clients.iter_mut().for_each(|client| client.send(&query("SELECT pg_sleep(600)")));
        let running = format!("{ACTIVE} AND usename = '{role}'");
        database.wait_for(&running, &[&size.to_string()]);
        drop(clients);
        database.wait_for(&running, &["0"]);
    }
}

#[test]
fn zero_is_no_limit() {
    let database = Database::new();
    let pooler = Pooler::of(
        &database,
        &["default_pool_size = 0", "max_db_connections = 0", "max_user_connections = 0"],
    );
    let mut clients: Vec<Raw> = (0..30).map(|_| pooler.connect()).collect();
    for client in &mut clients {
        client.sql("BEGIN");
    }
    assert_eq!(database.server_count(), 30);
}

/// Two pools of one database share its limit; an idle server of the one makes room for the other.
#[test]
fn max_db_connections_holds_for_all_users_together() {
    let database = Database::new();
    let pooler = Pooler::of(&database, &["max_db_connections = 2"]);
    let (mut one, mut two) = (pooler.connect_as("app"), pooler.connect_as("other"));
    let mut three = pooler.connect_as("app");
    for _ in 0..5 {
        for client in [&mut one, &mut two, &mut three] {
            client.sql("SELECT 1");
            assert!(database.server_count() <= 2);
        }
    }
    one.sql("BEGIN");
    three.sql("BEGIN");
    two.send(&query("SELECT 'waited'"));
    pooler.wait_for_waiting("other", 1);
    assert_eq!(database.server_count(), 2);
    one.sql("COMMIT");
    assert_eq!(two.ready(1)[1].row(), "waited");
    assert!(database.server_count() <= 2);
}

#[test]
fn max_user_connections_holds_for_all_databases_together() {
    let database = Database::new();
    let pooler = Setup::new(&database)
        .setting("max_user_connections = 2")
        .section(&second_database(&database, "again", ""))
        .start();
    let connect = |name: &str| Raw::login(pooler.port, "app", name, &password_of("app"));
    let (mut one, mut two) = (connect(&pooler.database), connect("again"));
    one.sql("BEGIN");
    two.sql("BEGIN");
    let mut three = connect("again");
    three.send(&query("SELECT 'waited'"));
    pooler.wait_for_pool_of("again", "app", "cl_waiting", 1);
    assert_eq!(database.server_count(), 2);
    one.sql("COMMIT");
    assert_eq!(three.ready(1)[1].row(), "waited");
    assert!(database.server_count() <= 2);
}

/// S52: at boot, before any client; after servers were lost; and when they have been idle for long.
#[test]
fn minimum_is_there_from_the_start_and_kept() {
    let database = Database::new();
    let forced = format!("user = \"app\"\npassword = \"{}\"\nmin_pool_size = 3", password_of("app"));
    let pooler = Setup::new(&database)
        .setting("server_idle_timeout = 0.5")
        .section(&second_database(&database, "forced", &forced))
        .start();
    let count = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND usename = 'app' \
         AND application_name <> 'pooler'";
    database.wait_for(count, &["3"]);
    database.terminate("app");
    database.wait_for(count, &["3"]);
    // Seven at once, of which four have been idle for too long afterwards, and no more.
    let connect = || Raw::login(pooler.port, "app", "forced", &password_of("app"));
    let mut clients: Vec<Raw> = (0..7).map(|_| connect()).collect();
    clients.iter_mut().for_each(|client| drop(client.sql("BEGIN")));
    database.wait_for(count, &["7"]);
    clients.iter_mut().for_each(|client| drop(client.sql("COMMIT")));
    let mut fewest = 7;
    let met = wait_until(PATIENCE, || {
        fewest = fewest.min(database.server_count());
        (fewest <= 3).then_some(())
    });
    assert!(met.is_some() && fewest == 3, "{fewest}");
    database.sql("SELECT pg_sleep(0.7)");
    assert_eq!(database.server_count(), 3);
}

/// Without a forced user there is a pool as soon as there is a client, on whichever worker.
#[test]
fn minimum_is_kept_from_the_first_client_on() {
    let database = Database::new();
    let pooler = Pooler::of(&database, &["min_pool_size = 2", "client_placement = \"even\"", "workers = 4"]);
    let mut client = pooler.connect_as("other");
    client.sql("SELECT 1");
    drop(client);
    let count =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND usename = 'other'";
    database.wait_for(count, &["2"]);
}

#[test]
fn filling_the_minimum_takes_nothing_from_other_pools() {
    let database = Database::new();
    let pooler = Pooler::of(&database, &["min_pool_size = 2", "max_db_connections = 2"]);
    let (mut one, mut two) = (pooler.connect_as("app"), pooler.connect_as("app"));
    one.sql("BEGIN");
    two.sql("BEGIN");
    let pids = [one.sql("SELECT pg_backend_pid()"), two.sql("SELECT pg_backend_pid()")].concat();
    // Its login is told what the pool's first server says: it needs one for a moment.
    let other = std::thread::spawn({
        let (port, name) = (pooler.port, pooler.database.clone());
        move || Raw::login(port, "other", &name, &password_of("other"))
    });
    pooler.wait_for_waiting("other", 1);
    one.sql("COMMIT");
    let _other = other.join().unwrap();
    // Now `other` is one short of its minimum, and `app` has an idle server.
    two.sql("COMMIT");
    database.sql("SELECT pg_sleep(0.5)");
    let left: Vec<String> = database.sql(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND usename = 'app' \
         AND application_name <> 'pooler'",
    );
    assert!(left.len() == 1 && pids.contains(&left[0]), "{left:?} of {pids:?}");
}

#[test]
fn reserve_is_opened_for_those_who_have_waited() {
    let database = Database::new();
    let reserve = |timeout: &str| {
        let timeout = format!("reserve_pool_timeout = {timeout}");
        Pooler::of(&database, &["default_pool_size = 1", "reserve_pool_size = 1", &timeout])
    };
    let pooler = reserve("0.2");
    let (mut holder, mut second, mut third) = (pooler.connect(), pooler.connect(), pooler.connect());
    holder.sql("BEGIN");
    second.sql("BEGIN");
    assert_eq!(database.server_count(), 2);
    third.send(&query("SELECT 'last'"));
    pooler.wait_for_pool("cl_waiting", 1);
    database.sql("SELECT pg_sleep(0.5)");
    assert_eq!(database.server_count(), 2);
    second.sql("COMMIT");
    assert_eq!(third.ready(1)[1].row(), "last");
    drop((holder, second, third));
    drop(pooler);

    // 0: no reserve.
    database.wait_for(
        "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND datname = current_database() \
         AND application_name <> 'pooler'",
        &["0"],
    );
    let pooler = reserve("0");
    let (mut holder, mut second) = (pooler.connect(), pooler.connect());
    holder.sql("BEGIN");
    second.send(&query("SELECT 1"));
    pooler.wait_for_pool("cl_waiting", 1);
    database.sql("SELECT pg_sleep(0.3)");
    assert_eq!(database.server_count(), 1);
}

/// S34: first come, first served.
#[test]
fn queue_is_served_in_order() {
    let database = Database::new();
    database.sql("CREATE TABLE served (turn serial, who int); GRANT ALL ON served, served_turn_seq TO app");
    let pooler = Pooler::of(&database, &["default_pool_size = 1", "workers = 1"]);
    let mut holder = pooler.connect();
    let mut queue: Vec<Raw> = (0..20).map(|_| pooler.connect()).collect();
    holder.sql("BEGIN");
    for (number, client) in (0..).zip(&mut queue) {
        client.send(&query(&format!("INSERT INTO served (who) VALUES ({number})")));
        pooler.wait_for_pool("cl_waiting", number + 1);
    }
    holder.sql("COMMIT");
    queue.iter_mut().for_each(|client| drop(client.ready(1)));
    let order: Vec<u32> =
        database.sql("SELECT who FROM served ORDER BY turn").iter().map(|who| who.parse().unwrap()).collect();
    assert_eq!(order, (0..20).collect::<Vec<_>>());
}

#[test]
fn queued_client_that_vanishes_leaves_the_queue_and_its_request_never_runs() {
    let database = Database::new();
    database.sql("CREATE TABLE t (x int); GRANT ALL ON t TO app");
    let pooler = Pooler::of(&database, &["default_pool_size = 1"]);
    let (mut holder, mut goes, mut stays) = (pooler.connect(), pooler.connect(), pooler.connect());
    holder.sql("BEGIN");
    goes.send(&query("INSERT INTO t VALUES (1)"));
    pooler.wait_for_pool("cl_waiting", 1);
    stays.send(&query("INSERT INTO t VALUES (2)"));
    pooler.wait_for_pool("cl_waiting", 2);
    drop(goes);
    pooler.wait_for_pool("cl_waiting", 1);
    holder.sql("COMMIT");
    stays.ready(1);
    assert_eq!(database.sql("SELECT x FROM t"), ["2"]);
}

/// S33: time-outs, departures and hand-overs at the same moment lose neither server nor place.
#[test]
fn storm_of_time_outs_and_departures_leaves_every_server_in_the_pool() {
    let database = Database::new();
    let pooler = Pooler::of(
        &database,
        &[
            "default_pool_size = 3",
            "query_wait_timeout = 0.1",
            "client_placement = \"rotate\"",
            "workers = 3",
        ],
    );
    let (served, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for seed in 0..24_u32 {
            let (pooler, served, refused) = (&pooler, &served, &refused);
            scope.spawn(move || {
                let mut random = seed.wrapping_mul(2_654_435_761) | 1;
                for _ in 0..12 {
                    random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    let mut client = pooler.connect();
                    client.send(&query(&format!("SELECT pg_sleep(0.{:02})", (random >> 16) % 4)));
                    if (random >> 24) % 4 == 0 {
                        continue;
                    }
                    match client.try_frame() {
                        Ok(Some(frame)) if frame.tag == b'E' => refused.fetch_add(1, Ordering::Relaxed),
                        Ok(Some(_)) => served.fetch_add(1, Ordering::Relaxed),
                        _ => 0,
                    };
                }
            });
        }
    });
    assert!(served.load(Ordering::Relaxed) > 0);
    pooler.wait_for_pool("cl_waiting", 0);
    pooler.wait_for_pool("cl_active", 0);
    pooler.wait_for_pool("sv_active", 0);
    // All three can be had at the same time, and no fourth.
    let mut clients = [pooler.connect(), pooler.connect(), pooler.connect()];
    for client in &mut clients {
        client.sql("BEGIN");
    }
    assert_eq!(database.server_count(), 3);
}

/// S50: out of descriptors. Clients beyond the limit are told why, or wait; it passes; servers are still reached.
#[test]
fn running_out_of_descriptors_passes() {
    let database = Database::new();
    let pooler =
        Setup::new(&database).setting("default_pool_size = 2").setting("workers = 2").files(64).start();
    let mut early = pooler.connect();
    // More than there are descriptors for, and none of them says a word: those beyond stay in the kernel's queue.
    let silent: Vec<Raw> = (0..80).map(|_| Raw::open(pooler.port)).collect();
    let noticed = wait_until(PATIENCE, || pooler.log().contains("cannot accept clients").then_some(()));
    assert!(noticed.is_some(), "{}", pooler.log());
    early.sql("BEGIN");
    assert_eq!(early.sql("SELECT 'unaffected'"), ["unaffected"]);
    early.sql("COMMIT");
    drop(silent);
    assert_eq!(login_soon(&pooler, "app").sql("SELECT 'recovered'"), ["recovered"]);
    let log = pooler.log();
    assert_eq!(log.matches("cannot accept clients").count(), 1, "{log}");
    assert_eq!(log.matches("accepting clients again").count(), 1, "{log}");
    assert!(!log.contains("server login failed"), "{log}");

    // Clients that say what they want are refused before the last descriptor is gone: some are kept for servers.
    let mut clients = Vec::new();
    let error = loop {
        assert!(clients.len() < 80);
        match login(&pooler, "app") {
            Ok(client) => clients.push(client),
            Err(error) => break error,
        }
    };
    assert_eq!(error.field(b'C'), "53300");
    assert!(error.field(b'M').contains("open files"), "{error:?}");
    clients[0].sql("BEGIN");
    clients[1].sql("BEGIN");
    assert_eq!(pooler.log().matches("cannot accept clients").count(), 1);
}

/// S50: the descriptors of many clients have large numbers.
#[test]
fn more_than_1024_clients_are_served() {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, ..limit };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).unwrap();
    let database = Database::new();
    let pooler = Setup::new(&database).setting("auth_type = \"trust\"").files(4096).start();
    let mut clients: Vec<Raw> = (0..1200).map(|_| pooler.connect()).collect();
    for client in clients.iter_mut().rev().take(200) {
        assert_eq!(client.sql("SELECT 'served'"), ["served"]);
    }
    let highest = std::fs::read_dir(format!("/proc/{}/fd", pooler.pid())).unwrap().flatten();
    let highest = highest.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).max();
    assert!(highest > Some(1100), "{highest:?}");
}

/// S52: the server refuses connections. Waiting clients get its error, attempts are few, and it is found again.
#[test]
fn server_that_is_full_is_asked_seldom_and_found_again() {
    let database = Database::new();
    // A role of its own: others log in as the usual ones at the same time.
    database.sql("CREATE ROLE limited LOGIN CONNECTION LIMIT 0 PASSWORD 'secret of limited'");
    let limited = format!("[users.limited]\npassword = \"{}\"\n", password_of("limited"));
    let pooler = Setup::new(&database).setting("server_login_retry = 0.5").section(&limited).start();
    let refused: Vec<Frame> = (0..10).map(|_| login(&pooler, "limited").unwrap_err()).collect();
    for error in refused {
        assert_eq!((error.field(b'C').as_str(), error.field(b'V').as_str()), ("53300", "FATAL"));
        assert_eq!(error.field(b'M'), "too many connections for role \"limited\"");
    }
    let attempts = pooler.log().matches("server login failed").count();
    assert!(attempts < 10, "{attempts}");
    database.sql("ALTER ROLE limited CONNECTION LIMIT -1");
    assert_eq!(login_soon(&pooler, "limited").sql("SELECT 'found'"), ["found"]);
}
