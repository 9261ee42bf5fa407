//! RELOAD and SIGHUP: what changes applies to clients that are connected, what does not change is left alone
//! (S47, S48).

use std::{fs, net::TcpListener, path::Path, process::Command, thread};

use pooler::demo::process::{TempDir, wait_until};

use crate::support::{
    compare::Pair,
    database::{Database, Version, certificates, password_of},
    msg::*,
    pooler::{Pooler, Setup},
    raw::{PATIENCE, Raw},
};

fn reload(pooler: &Pooler) {
    pooler.admin().sql("RELOAD");
}

/// Reloads by signal and waits for the end of it.
fn hang_up(pooler: &Pooler) {
    let count = || pooler.log().matches("configuration reloaded").count();
    let before = count();
    pooler.signal("HUP");
    assert!(wait_until(PATIENCE, || (count() > before).then_some(())).is_some(), "{}", pooler.log());
}

fn backend(client: &mut Raw) -> String {
    client.sql("SELECT pg_backend_pid()").remove(0)
}

#[test]
fn same_configuration_keeps_every_connection() {
    let pair = Pair::with(&["default_pool_size = 2"]);
    let (mut one, mut two) = (pair.pooler.connect(), pair.pooler.connect());
    one.sql("BEGIN");
    let (first, second) = (backend(&mut one), backend(&mut two));
    one.sql("COMMIT");
    for way in [reload, hang_up, reload, hang_up] {
        way(&pair.pooler);
        one.sql("BEGIN");
        two.sql("BEGIN");
        let mut now = [backend(&mut one), backend(&mut two)];
        now.sort();
        let mut before = [first.clone(), second.clone()];
        before.sort();
        assert_eq!(now, before);
        one.sql("COMMIT");
        two.sql("COMMIT");
    }
    assert_eq!(pair.database.server_count(), 2);
}

#[test]
fn pool_size_applies_to_clients_that_wait_already() {
    let pair = Pair::new();
    let mut clients: Vec<_> = (0..3).map(|_| pair.pooler.connect()).collect();
    for client in &mut clients {
        client.send(&query("BEGIN"));
    }
    pair.pooler.wait_for_pool("cl_waiting", 2);
    pair.pooler.edit("default_pool_size = 1", "default_pool_size = 3");
    reload(&pair.pooler);
    for client in &mut clients {
        client.ready(1);
    }
    // Smaller again: those that are too many go when they are free.
    pair.pooler.edit("default_pool_size = 3", "default_pool_size = 2");
    hang_up(&pair.pooler);
    for client in &mut clients {
        client.sql("COMMIT");
    }
    pair.pooler.wait_for_pool("sv_idle", 2);
    let two = wait_until(PATIENCE, || (pair.database.server_count() == 2).then_some(()));
    assert!(two.is_some());
}

#[test]
fn time_limits_apply_to_clients_that_are_connected() {
    for (setting, sqlstate) in [
        ("client_idle_timeout", "57P05"),
        ("idle_transaction_timeout", "25P03"),
        ("transaction_timeout", "57014"),
        ("query_timeout", "57014"),
        ("query_wait_timeout", "53300"),
    ] {
        let pair = Pair::with(&["default_pool_size = 1", &format!("{setting} = 0")]);
        let (mut client, mut other) = (pair.pooler.connect(), pair.pooler.connect());
        match setting {
            "query_wait_timeout" => {
                other.sql("BEGIN");
                client.send(&query("SELECT 1"));
                pair.pooler.wait_for_pool("cl_waiting", 1);
            }
            "query_timeout" => client.send(&query("SELECT pg_sleep(600)")),
            "client_idle_timeout" => {}
            _ => drop(client.sql("BEGIN")),
        }
        pair.pooler.edit(&format!("{setting} = 0"), &format!("{setting} = \"100ms\""));
        reload(&pair.pooler);
        let last = client.closed().pop().unwrap();
        assert_eq!(last.field(b'C'), sqlstate, "{setting}: {last:?}");
    }
}

/// Two clusters and a pooler that may be sent from one to the other.
struct Move {
    from: Database,
    to: Database,
    pooler: Pooler,
}

impl Move {
    fn new() -> Self {
        let (from, to) = (Database::new(), Database::of(Version::V18));
        let dbname = format!("dbname = \"{}\"", from.name);
        let pooler = Setup::new(&from).setting("default_pool_size = 1").database(&dbname).start();
        Self { from, to, pooler }
    }

    fn go(&self) {
        self.pooler.edit(&format!("port = {}", self.from.port), &format!("port = {}", self.to.port));
        let dbname = |database: &Database| format!("dbname = \"{}\"", database.name);
        self.pooler.edit(&dbname(&self.from), &dbname(&self.to));
        reload(&self.pooler);
    }
}

fn version(client: &mut Raw) -> String {
    client.sql("SHOW server_version_num").remove(0)[..2].to_owned()
}

#[test]
fn new_server_serves_the_next_transaction_of_connected_clients() {
    let moved = Move::new();
    let old = moved.from.sql("SHOW server_version_num")[0][..2].to_owned();
    let (mut idle, mut busy) = (moved.pooler.connect(), moved.pooler.connect());
    assert_eq!(version(&mut idle), old);
    busy.sql("BEGIN");
    idle.send(&query("SHOW server_version_num"));
    moved.pooler.wait_for_pool("cl_waiting", 1);
    moved.go();
    assert_eq!(version(&mut busy), old, "a transaction keeps its server");
    busy.sql("COMMIT");
    assert!(idle.ready(1)[1].row().starts_with("18"));
    assert_eq!(version(&mut busy), "18");
    let gone = wait_until(PATIENCE, || (moved.from.server_count() == 0).then_some(()));
    assert!(gone.is_some(), "connections to the old server are left");
}

#[test]
fn there_and_back_again_is_noticed() {
    let database = Database::new();
    let pooler = Setup::new(&database).setting("default_pool_size = 1").start();
    let mut client = pooler.connect();
    let before = backend(&mut client);
    let port = format!("port = {}", database.port);
    // In a transaction all the while: the server that it has must not be taken for a new one.
    client.sql("BEGIN");
    pooler.edit(&port, "port = 1");
    reload(&pooler);
    pooler.edit("port = 1", &port);
    reload(&pooler);
    assert_eq!(backend(&mut client), before);
    client.sql("COMMIT");
    assert_ne!(backend(&mut client), before);
}

#[test]
fn login_under_way_at_the_old_server_is_given_up() {
    let database = Database::new();
    // Takes connections and never says anything, as a host that hangs.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let old = format!("port = {}", silent.local_addr().unwrap().port());
    let new = format!("port = {}", database.port);
    let pooler = Setup::new(&database).setting("server_connect_timeout = 0").start();
    pooler.edit(&new, &old);
    reload(&pooler);
    let (port, name) = (pooler.port, database.name.clone());
    let client = thread::spawn(move || Raw::login(port, "app", &name, &password_of("app")).sql("SELECT 1"));
    let (mut connection, _) = silent.accept().unwrap();
    pooler.edit(&old, &new);
    reload(&pooler);
    assert_eq!(client.join().unwrap(), ["1"]);
    let mut rest = Vec::new();
    std::io::Read::read_to_end(&mut connection, &mut rest).unwrap();
}

// H30
#[test]
fn new_server_password_helps_clients_that_are_connected() {
    let database = Database::new();
    let role = format!("changing_{}", database.name);
    database.sql(&format!("CREATE ROLE {role} LOGIN PASSWORD 'old'"));
    let hba = database.sql("SHOW hba_file").remove(0);
    let rules = fs::read_to_string(&hba).unwrap();
    fs::write(&hba, format!("host all {role} 127.0.0.1/32 scram-sha-256\n{rules}")).unwrap();
    database.sql("SELECT pg_reload_conf()");
    let dir = TempDir::new(None).unwrap();
    let secret = dir.path().join("secret");
    fs::write(&secret, "old\n").unwrap();
    let pooler = Setup::new(&database)
        .database(&format!("user = \"{role}\"\npassword_file = \"{}\"", secret.display()))
        // One server: a client that moves finds no other.
        .setting("default_pool_size = 1")
        .start();
    let mut client = pooler.connect();
    assert_eq!(client.sql("SELECT current_user"), [role.as_str()]);
    database.sql(&format!("ALTER ROLE {role} PASSWORD 'new'"));
    let mut admin = pooler.admin();
    admin.sql("RECONNECT");
    let refused = Raw::open(pooler.port).try_login("app", &database.name, &password_of("app"), &[]);
    assert_eq!(refused.unwrap_err().field(b'C'), "28P01");
    fs::write(&secret, "new").unwrap();
    admin.sql("RELOAD");
    // At once, although the pause after a failed login is not over.
    assert_eq!(client.sql("SELECT current_user"), [role.as_str()]);
    let before = backend(&mut client);
    fs::write(&secret, "other").unwrap();
    admin.sql("RELOAD");
    assert_eq!(backend(&mut client), before, "who is logged in stays logged in");
}

#[test]
fn new_login_password_counts_for_new_clients() {
    let pair = Pair::new();
    let mut old = pair.pooler.connect();
    let line = format!("password = \"{}\"", password_of("app"));
    pair.pooler.edit(&line, "password = \"${POOLER_TEST_UNSET:-brand new}\"");
    reload(&pair.pooler);
    assert_eq!(old.sql("SELECT 1"), ["1"]);
    let login = |password: &str| {
        Raw::open(pair.pooler.port)
            .try_login("app", &pair.database.name, password, &[])
            .map_err(|e| e.field(b'C'))
    };
    assert_eq!(login(&password_of("app")), Err("28P01".to_owned()));
    assert_eq!(login("brand new"), Ok(()));
}

#[test]
fn removed_database_ends_its_clients_and_may_come_back() {
    let (kept, removed) = (Database::new(), Database::new());
    let section = format!("[databases.{}]\nhost = \"127.0.0.1\"\nport = {}", removed.name, removed.port);
    let pooler = Setup::new(&kept).section(&section).start();
    let login = || Raw::login(pooler.port, "app", &removed.name, &password_of("app"));
    let mut stays = pooler.connect();
    stays.sql("SELECT 1");
    for round in 0..2 {
        let (mut idle, mut busy) = (login(), login());
        idle.sql("SELECT 1");
        busy.sql("BEGIN");
        pooler.edit(&section, "");
        reload(&pooler);
        for client in [&mut idle, &mut busy] {
            let last = client.closed().pop().unwrap();
            assert_eq!((last.field(b'C'), last.field(b'M')), ("57P01".into(), "database removed".into()));
        }
        let gone = wait_until(PATIENCE, || (removed.server_count() == 0).then_some(()));
        assert!(gone.is_some(), "servers are left in round {round}");
        let refused =
            Raw::open(pooler.port).try_login("app", &removed.name, &password_of("app"), &[]).unwrap_err();
        assert_eq!(refused.field(b'M'), format!("no such database: {}", removed.name));
        assert!(!pooler.console("SHOW POOLS").iter().any(|row| row[0].1 == removed.name));
        assert!(!pooler.console("SHOW STATS").iter().any(|row| row[0].1 == removed.name));
        pooler.rewrite(&format!("{}\n{section}\n", pooler.toml()));
        reload(&pooler);
    }
    assert_eq!(login().sql("SELECT 1"), ["1"]);
    assert_eq!(stays.sql("SELECT 1"), ["1"]);
}

#[test]
fn bad_file_changes_nothing_and_says_why() {
    let pair = Pair::new();
    let mut client = pair.pooler.connect();
    let before = backend(&mut client);
    let good = pair.pooler.toml();
    let certificate = certificates().join("server.crt");
    let foreign_key = certificates().join("client.key");
    let tls = format!(
        "client_tls_sslmode = \"prefer\"\nclient_tls_cert_file = \"{}\"\nclient_tls_key_file = \"{}\"\n",
        certificate.display(),
        foreign_key.display()
    );
    for (bad, reasons) in [
        (
            good.replace("default_pool_size = 1", "defualt_pool_size = 9"),
            &["defualt_pool_size", "did you mean"][..],
        ),
        (
            good.replace("default_pool_size = 1", "default_pool_size = -1\nquery_timeout = \"soon\""),
            &["default_pool_size", "query_timeout"],
        ),
        (good.replace("[pooler]", "[pooler"), &["pooler.toml:1"]),
        (good.replace("default_pool_size = 1", &tls), &["client.key"]),
    ] {
        pair.pooler.rewrite(&bad);
        let error = pair.pooler.admin().try_sql("RELOAD").unwrap_err();
        assert_eq!(
            (error.field(b'C'), error.field(b'M')),
            ("F0000".to_owned(), "RELOAD failed, see logs for additional details".to_owned())
        );
        let failures = || pair.pooler.log().matches("configuration not reloaded").count();
        let before_signal = failures();
        pair.pooler.signal("HUP");
        assert!(wait_until(PATIENCE, || (failures() > before_signal).then_some(())).is_some());
        for reason in reasons {
            assert!(error.field(b'D').contains(reason), "{reason} in {}", error.field(b'D'));
            assert!(pair.pooler.log().contains(reason), "{reason} in {}", pair.pooler.log());
        }
        assert_eq!(backend(&mut client), before);
        let size = pair.pooler.admin().sql("SHOW CONFIG");
        assert!(size.contains(&"default_pool_size|1|20|yes".to_owned()), "{size:?}");
        assert_eq!(pair.pooler.connect().sql("SELECT 1"), ["1"]);
    }
    pair.pooler.rewrite(&good);
    reload(&pair.pooler);
    assert_eq!(backend(&mut client), before);
}

#[test]
fn what_needs_a_restart_is_said_and_kept() {
    let pair = Pair::with(&["default_pool_size = 1", "listen_backlog = 100"]);
    pair.pooler.edit("listen_backlog = 100", "listen_backlog = 200");
    reload(&pair.pooler);
    pair.pooler.wait_for_log("listen_backlog has changed: takes effect after a restart");
    assert!(pair.pooler.admin().sql("SHOW CONFIG").contains(&"listen_backlog|100|1024|no".to_owned()));
}

#[test]
fn logins_never_fail_while_configurations_change() {
    let moved = Move::new();
    let (port, name) = (moved.pooler.port, moved.from.name.clone());
    let clients: Vec<_> = (0..3)
        .map(|_| {
            let name = name.clone();
            thread::spawn(move || {
                for _ in 0..15 {
                    let mut client = Raw::login(port, "app", &name, &password_of("app"));
                    assert_eq!(client.sql("SELECT 1"), ["1"]);
                }
            })
        })
        .collect();
    let good = moved.pooler.toml();
    let mut admin = moved.pooler.admin();
    let mut round = 0;
    while clients.iter().any(|client| !client.is_finished()) {
        round += 1;
        moved.pooler.rewrite(&good);
        if round % 2 == 0 {
            moved.go();
        } else {
            admin.sql("RELOAD");
        }
    }
    for client in clients {
        client.join().unwrap();
    }
    assert!(round > 3, "{round} reloads");
}

/// A statement under a name, a temporary table: what a session has on its server.
fn settle_in(client: &mut Raw) {
    client.send_all(&[parse("mine", "SELECT 'kept'"), sync()]);
    client.ready(1);
    client.sql("CREATE TEMP TABLE mine AS SELECT 1 AS x");
}

fn finds_its_statement(client: &mut Raw) {
    client.send_all(&[bind("mine", &[]), execute(), sync()]);
    let frames = client.ready(1);
    assert_eq!(frames[1].row(), "kept", "{frames:?}");
}

#[test]
fn clients_keep_the_pool_mode_that_they_came_under() {
    let pair = Pair::with(&["default_pool_size = 2", "pool_mode = \"session\""]);
    let mut session = pair.pooler.connect();
    settle_in(&mut session);
    pair.pooler.edit("pool_mode = \"session\"", "pool_mode = \"transaction\"");
    reload(&pair.pooler);
    // The first client has its server for itself, the others share the second one.
    let (mut one, mut two) = (pair.pooler.connect(), pair.pooler.connect());
    for _ in 0..3 {
        finds_its_statement(&mut session);
        assert_eq!(session.sql("SELECT x FROM mine"), ["1"]);
        for client in [&mut one, &mut two] {
            assert_eq!(client.sql("SELECT to_regclass('pg_temp.mine') IS NULL"), ["t"]);
        }
    }
    // When it leaves, nothing of it stays.
    drop(session);
    pair.pooler.wait_for_pool("sv_idle", 2);
    one.sql("BEGIN");
    for client in [&mut one, &mut two] {
        let left = "SELECT to_regclass('pg_temp.mine') IS NULL, count(*) FROM pg_prepared_statements";
        assert_eq!(client.sql(left), ["t|0"]);
    }
    one.sql("COMMIT");
    // And back: names that the pooler looks after stay what they were.
    one.send_all(&[parse("mine", "SELECT 'kept'"), sync()]);
    one.ready(1);
    pair.pooler.edit("pool_mode = \"transaction\"", "pool_mode = \"session\"");
    reload(&pair.pooler);
    let mut session = pair.pooler.connect();
    settle_in(&mut session);
    for client in [&mut one, &mut session] {
        finds_its_statement(client);
    }
    assert_eq!(two.sql("SELECT to_regclass('pg_temp.mine') IS NULL"), ["t"]);
}

/// Another authority and a certificate for 127.0.0.1 by it, in this directory.
fn other_authority(dir: &Path) {
    let script = r#"
        openssl req -x509 -days 30 -subj '/CN=Other authority' -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 \
            -nodes -keyout ca.key -out ca.crt
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=localhost -keyout server.key -out server.csr
        printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\n' >server.ext
        openssl x509 -req -days 30 -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -extfile server.ext -out server.crt
    "#;
    let output = Command::new("sh").args(["-euc", script]).current_dir(dir).output().unwrap();
    assert!(output.status.success(), "openssl: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn certificate_shown_to_clients_is_replaced_by_a_reload() {
    // S48
    let files = TempDir::new(None).unwrap();
    let other = TempDir::new(None).unwrap();
    other_authority(other.path());
    let install = |from: &Path| {
        for name in ["server.crt", "server.key"] {
            fs::copy(from.join(name), files.path().join(name)).unwrap();
        }
    };
    install(certificates());
    let path = |name: &str| files.path().join(name).display().to_string();
    let pair = Pair::with(&[
        "default_pool_size = 1",
        "client_tls_sslmode = \"allow\"",
        &format!("client_tls_cert_file = \"{}\"", path("server.crt")),
        &format!("client_tls_key_file = \"{}\"", path("server.key")),
    ]);
    let trusts = |authority: &Path| {
        let url = format!("sslmode=verify-full sslrootcert={}", authority.join("ca.crt").display());
        let url = format!("dbname={} host=127.0.0.1 {url}", pair.database.name);
        pair.pooler.psql(&["-d", &url, "-c", "SELECT 1"]).status.success()
    };
    let mut plain = pair.pooler.connect();
    let before = backend(&mut plain);
    assert!(trusts(certificates()) && !trusts(other.path()));
    install(other.path());
    assert!(trusts(certificates()), "files count when they are loaded");
    reload(&pair.pooler);
    assert!(!trusts(certificates()) && trusts(other.path()));
    assert_eq!(backend(&mut plain), before, "servers have nothing to do with it");
}

#[test]
fn authority_of_servers_recycles_them_only_when_it_changes() {
    // S48
    let files = TempDir::new(None).unwrap();
    let other = TempDir::new(None).unwrap();
    other_authority(other.path());
    let authority = files.path().join("ca.crt");
    fs::copy(certificates().join("ca.crt"), &authority).unwrap();
    let pair = Pair::with(&[
        "default_pool_size = 1",
        "server_tls_sslmode = \"verify-full\"",
        &format!("server_tls_ca_file = \"{}\"", authority.display()),
    ]);
    let mut client = pair.pooler.connect();
    let first = backend(&mut client);
    // Written again, the same: nothing has changed.
    fs::copy(certificates().join("ca.crt"), &authority).unwrap();
    reload(&pair.pooler);
    assert_eq!(backend(&mut client), first);
    // One more authority: servers are connected to anew.
    let both = [fs::read(&authority).unwrap(), fs::read(other.path().join("ca.crt")).unwrap()].concat();
    fs::write(&authority, both).unwrap();
    reload(&pair.pooler);
    let second = backend(&mut client);
    assert_ne!(second, first);
    // Only the wrong one: nobody is connected to unchecked.
    fs::copy(other.path().join("ca.crt"), &authority).unwrap();
    reload(&pair.pooler);
    client.send(&query("SELECT 1"));
    let refused = client.closed().pop().unwrap();
    assert!(refused.field(b'M').contains("TLS with the server failed"), "{refused:?}");
    fs::copy(certificates().join("ca.crt"), &authority).unwrap();
    reload(&pair.pooler);
    assert_eq!(pair.pooler.connect().sql("SELECT 1"), ["1"]);
}
