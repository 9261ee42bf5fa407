//! Several processes that clients may reach by the same address: whichever gets a cancel request, it finds its query, and
//! nothing else (H36, S39, S40).
//!
//! With POOLER_TEST_PGBOUNCER in the environment (a program that runs a real PgBouncer, as an unprivileged user may) that
//! is a peer, too.

use std::path::Path;

use pooler::demo::process::{TempDir, free_port, wait_until};

use crate::support::{
    database::{Database, Version, password_of},
    msg::*,
    pgbouncer::AsPgbouncer,
    pooler::{Pooler, Setup},
    raw::{PATIENCE, Raw, cancel_request, startup},
    tls,
};

const SLEEPING: &str = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                        AND state = 'active' AND query LIKE 'SELECT pg_sleep%'";

fn section(id: u16, host: &str, port: u16) -> String {
    format!("[peers.{id}]\nhost = \"{host}\"\nport = {port}")
}

/// A process with a number among peers at these ports.
fn peer(database: &Database, id: u16, port: u16, peers: &[(u16, u16)]) -> Setup {
    let setup = Setup::new(database).at(port).setting(&format!("peer_id = {id}"));
    peers.iter().fold(setup, |setup, (id, port)| setup.section(&section(*id, "127.0.0.1", *port)))
}

/// The client's query runs until somebody cancels it, which is done by `through`.
fn assert_cancelled(database: &Database, client: &mut Raw, through: impl FnOnce(&[u8])) {
    client.send(&query("SELECT pg_sleep(600)"));
    database.wait_for(SLEEPING, &["1"]);
    through(&client.key);
    let frames = client.ready(1);
    assert_eq!(frames[1].field(b'C'), "57014");
    assert_eq!(client.sql("SELECT 'not hit'"), ["not hit"]);
}

/// Sends a request and waits until it has been seen to.
fn cancel_at(port: u16, key: &[u8]) {
    let mut other = Raw::open(port);
    other.send(&cancel_request(key));
    assert_eq!(other.closed(), [], "a CancelRequest has no answer");
}

fn number(pooler: &Pooler, show: &str, column: &str) -> Vec<u32> {
    let rows = pooler.console(show).into_iter().flatten();
    rows.filter(|(name, _)| name == column).map(|(_, value)| value.parse().unwrap()).collect()
}

#[test]
fn keys_say_whose_they_are_and_little_else() {
    let database = Database::of(Version::V18);
    let pooler = peer(&database, 0x1234, free_port().unwrap(), &[]).start();
    let mut keys = std::collections::BTreeSet::new();
    for version in [3 << 16, (3 << 16) | 2] {
        for _ in 0..20 {
            let mut client = Raw::open(pooler.port);
            client.send(&startup(version, &[("user", "app"), ("database", &database.name)]));
            client.finish_login("app", &password_of("app"));
            let key = client.key.clone();
            assert_eq!((key.len(), key[0] & 0x80, &key[1..3], key[7] & 3), (8, 0, &[0x34, 0x12][..], 3));
            keys.insert(key);
            assert_cancelled(&database, &mut client, |key| cancel_at(pooler.port, key));
        }
    }
    assert_eq!(keys.len(), 40);
    for byte in [0, 3, 4, 5, 6, 7] {
        let values: std::collections::BTreeSet<u8> = keys.iter().map(|key| key[byte]).collect();
        assert!(values.len() > 5, "byte {byte} is hardly random: {keys:?}");
    }
    // The console's clients have such keys, too.
    assert_eq!(pooler.admin().key[1..3], [0x34, 0x12]);
    // What is off in a single bit is another key, wherever that is.
    let mut client = pooler.connect();
    client.send(&query("SELECT pg_sleep(0.5), 'done'"));
    database.wait_for(SLEEPING, &["1"]);
    for bit in 0..64 {
        let mut key = client.key.clone();
        key[bit / 8] ^= 1 << (bit % 8);
        // The bits that count hops.
        if bit != 56 && bit != 57 {
            cancel_at(pooler.port, &key);
        }
    }
    assert_eq!(client.ready(1)[1].row(), "|done");
}

/// The programs that take a pgbouncer.ini.
fn programs() -> Vec<String> {
    let own = env!("CARGO_BIN_EXE_pooler").to_owned();
    std::iter::once(own).chain(std::env::var("POOLER_TEST_PGBOUNCER").ok()).collect()
}

#[test]
fn cancel_reaches_its_query_through_either_process() {
    for program in programs() {
        let database = Database::new();
        let (ours, theirs) = (free_port().unwrap(), free_port().unwrap());
        let pooler = peer(&database, 1, ours, &[(1, ours), (300, theirs)]).start();
        let lines = format!(
            "peer_id = 300\n[peers]\n1 = host=127.0.0.1 port={ours}\n300 = host=127.0.0.1 port={theirs}\n"
        );
        let other = AsPgbouncer::start(Path::new(&program), &database, theirs, &lines);
        let mut here = pooler.connect();
        let mut there = Raw::login(theirs, "app", &database.name, &password_of("app"));
        assert_eq!(there.key[1..3], [44, 1], "{program}");
        for _ in 0..5 {
            assert_cancelled(&database, &mut here, |key| cancel_at(theirs, key));
            assert_cancelled(&database, &mut there, |key| cancel_at(ours, key));
            assert_cancelled(&database, &mut here, |key| cancel_at(ours, key));
        }
        // The same to dashboards.
        let shown = |port| Raw::login(port, "app", "pgbouncer", &password_of("app")).sql("SHOW PEERS");
        let rows = [format!("1|127.0.0.1|{ours}|20"), format!("300|127.0.0.1|{theirs}|20")];
        assert_eq!(shown(theirs), rows, "{program}: {}", other.log());
        let mut console = Raw::login(theirs, "app", "pgbouncer", &password_of("app"));
        assert_eq!(console.sql("SHOW PEER_POOLS"), ["1|0|0|0|0"], "{program}");
        assert_eq!(pooler.admin().sql("SHOW PEERS"), rows);
        assert_eq!(pooler.admin().sql("SHOW PEER_POOLS"), ["300|0|0|0|0"]);
        let lists = pooler.admin().sql("SHOW LISTS");
        assert!(
            lists.contains(&"peers|2".to_owned()) && lists.contains(&"peer_pools|1".to_owned()),
            "{lists:?}"
        );
    }
}

#[test]
fn requests_go_over_unix_sockets_and_tls_as_settings_say() {
    let database = Database::new();
    let sockets = TempDir::new(None).unwrap();
    let dir = sockets.path().display().to_string();
    let (one, two) = (free_port().unwrap(), free_port().unwrap());
    let _first =
        peer(&database, 1, one, &[]).tls("require").setting(&format!("unix_socket_dir = \"{dir}\"")).start();
    let options = tls::Options { direct: false, alpn: Some("postgresql"), certificate: None };
    let mut client = tls::open(one, options).unwrap();
    client.try_login("app", &database.name, &password_of("app"), &[]).unwrap();
    for (host, mode) in [(dir.as_str(), "require"), ("127.0.0.1", "require"), ("127.0.0.1", "prefer")] {
        let setup = Setup::new(&database).at(two).setting("peer_id = 2").section(&section(1, host, one));
        let _second = setup.setting(&format!("server_tls_sslmode = \"{mode}\"")).start();
        assert_cancelled(&database, &mut client, |key| cancel_at(two, key));
    }
    // Of a stranger: nothing is said to it.
    let certs = crate::support::database::certificates().display();
    let setup = Setup::new(&database).at(two).setting("peer_id = 2").section(&section(1, "127.0.0.1", one));
    let second = setup
        .setting("server_tls_sslmode = \"verify-ca\"")
        .setting(&format!("server_tls_ca_file = \"{certs}/client.crt\""))
        .start();
    client.send(&query("SELECT pg_sleep(0.5), 'done'"));
    database.wait_for(SLEEPING, &["1"]);
    cancel_at(two, &client.key);
    assert_eq!(client.ready(1)[1].row(), "|done");
    second.wait_for_log("cancel request for peer 1 failed: ");
}

/// Two processes that believe each other to be a third one.
#[test]
fn requests_never_go_round_for_ever() {
    let database = Database::new();
    let (one, two) = (free_port().unwrap(), free_port().unwrap());
    let first = peer(&database, 1, one, &[(3, two), (4, one)]).start();
    let second = peer(&database, 2, two, &[(3, one)]).start();
    let mut client = first.connect();
    client.send(&query("SELECT pg_sleep(0.5), 'done'"));
    database.wait_for(SLEEPING, &["1"]);
    for id in [3, 4] {
        for hops in 0..4 {
            let mut key = client.key.clone();
            key[1] = id;
            key[7] = (key[7] & !3) | hops;
            cancel_at(one, &key);
        }
    }
    assert_eq!(client.ready(1)[1].row(), "|done");
    for pooler in [&first, &second] {
        pooler.wait_for_log("a cancel request for peer 3 has been passed on too often");
        let busy: u32 = ["cl_active_cancel_req", "cl_waiting_cancel_req", "sv_active_cancel", "sv_login"]
            .iter()
            .flat_map(|column| number(pooler, "SHOW PEER_POOLS", column))
            .sum();
        assert_eq!(busy, 0);
    }
    assert_cancelled(&database, &mut client, |key| cancel_at(one, key));
}

// S39
#[test]
fn unknown_and_dead_peers_do_no_harm() {
    let database = Database::new();
    let (port, dead) = (free_port().unwrap(), free_port().unwrap());
    let pooler = peer(&database, 1, port, &[(1, port), (2, dead)]).start();
    let mut client = pooler.connect();
    client.send(&query("SELECT pg_sleep(0.5), 'done'"));
    database.wait_for(SLEEPING, &["1"]);
    for id in [0_u16, 1, 2, 3, 65535] {
        for _ in 0..20 {
            let mut key = client.key.clone();
            key[1..3].copy_from_slice(&id.to_le_bytes());
            key[5] ^= 1;
            cancel_at(port, &key);
        }
    }
    assert_eq!(client.ready(1)[1].row(), "|done");
    pooler.wait_for_log("cancel request for peer 2 failed: ");
    assert!(
        !pooler.log().contains("for peer 3") && !pooler.log().contains("for peer 65535"),
        "{}",
        pooler.log()
    );
}

/// A peer that accepts and says nothing more.
#[test]
fn a_peer_that_hangs_takes_as_many_requests_as_it_may_and_no_longer_than_the_limit() {
    let database = Database::new();
    let (port, deaf) = (free_port().unwrap(), free_port().unwrap());
    let silent = std::net::TcpListener::bind(("127.0.0.1", deaf)).unwrap();
    let pooler = peer(&database, 1, port, &[])
        .setting("cancel_wait_timeout = \"2s\"")
        .setting("server_tls_sslmode = \"disable\"")
        .section(&(section(2, "127.0.0.1", deaf) + "\npool_size = 2"))
        .start();
    let mut client = pooler.connect();
    let mut key = client.key.clone();
    key[1] = 2;
    let requests: Vec<Raw> = (0..5)
        .map(|_| {
            let mut other = Raw::open(port);
            other.send(&cancel_request(&key));
            other
        })
        .collect();
    let shown = || pooler.admin().sql("SHOW PEER_POOLS");
    assert!(wait_until(PATIENCE, || (shown() == ["2|2|3|2|0"]).then_some(())).is_some(), "{:?}", shown());
    // Meanwhile its own clients are served.
    assert_cancelled(&database, &mut client, |key| cancel_at(port, key));
    for mut request in requests {
        assert_eq!(request.closed(), []);
    }
    pooler.wait_for_log("cancel request for peer 2 failed: ");
    assert_eq!(shown(), ["2|0|0|0|0"]);
    drop(silent);
}

#[test]
fn peers_come_and_go_by_reload() {
    let database = Database::new();
    let (one, two) = (free_port().unwrap(), free_port().unwrap());
    let first = Setup::new(&database).at(one).start();
    let second = Setup::new(&database).at(two).start();
    let mut early = first.connect();
    assert_eq!(second.admin().sql("SHOW PEERS"), Vec::<String>::new());
    let (before, listed) = (second.toml(), second.toml() + &section(1, "127.0.0.1", one));
    let with_id =
        |toml: &str, id: u16| toml.replacen("[pooler]\n", &format!("[pooler]\npeer_id = {id}\n"), 1);
    // Peers are no use to who is none.
    second.rewrite(&listed);
    let refused = second.admin().try_sql("RELOAD").unwrap_err();
    assert!(refused.field(b'D').contains("this process has no peer_id"), "{refused:?}");
    second.rewrite(&with_id(&listed, 2));
    second.admin().sql("RELOAD");
    assert_eq!(second.admin().sql("SHOW PEERS"), [format!("1|127.0.0.1|{one}|20")]);
    first.admin().sql("SET peer_id = 1");
    let mut late = first.connect();
    assert_cancelled(&database, &mut late, |key| cancel_at(two, key));
    // Who came before has a key of the old kind, which its own process knows.
    assert_cancelled(&database, &mut early, |key| cancel_at(one, key));
    second.rewrite(&before);
    second.admin().sql("RELOAD");
    assert_eq!(second.admin().sql("SHOW PEER_POOLS"), Vec::<String>::new());
    late.send(&query("SELECT pg_sleep(0.3), 'done'"));
    database.wait_for(SLEEPING, &["1"]);
    cancel_at(two, &late.key);
    assert_eq!(late.ready(1)[1].row(), "|done");
    // Another id: those who are connected keep their keys.
    first.admin().sql("SET peer_id = 7");
    assert_cancelled(&database, &mut late, |key| cancel_at(one, key));
    first.admin().sql("SET peer_id = 0");
    assert_cancelled(&database, &mut late, |key| cancel_at(one, key));
}
