//! Replication connections: each has a server of its own, and everything passes in both directions (H33).

use std::{
    path::Path,
    process::{Command, Output, Stdio},
};

use pooler::demo::{
    cluster::{Cluster, ClusterOptions},
    process::{TempDir, wait_until},
};

use crate::support::{
    database::{Version, certificates, options, password_of, start, superuser},
    msg::*,
    pooler::{Pooler, Setup},
    raw::{PATIENCE, Raw},
    replicated::Replicated,
};

const DATABASE: &str = "replicated";

/// A cluster that can be replicated by `app`, in every way.
struct Source {
    cluster: Cluster,
}

impl Source {
    fn new() -> Self {
        let mut options = options(Version::Distribution);
        options.hba.push("host replication app 127.0.0.1/32 scram-sha-256".to_owned());
        let conf = vec!["wal_level = logical".to_owned(), "max_wal_size = '4GB'".to_owned()];
        let source = Self { cluster: start(&ClusterOptions { conf, ..options }) };
        let mut admin = superuser(&source.cluster, "postgres");
        admin.sql("ALTER ROLE app REPLICATION");
        admin.sql(&format!("CREATE DATABASE {DATABASE} OWNER app"));
        source
    }

    fn sql(&self, sql: &str) -> Vec<String> {
        superuser(&self.cluster, DATABASE).sql(sql)
    }

    fn wait_for(&self, sql: &str, expected: &[&str]) {
        let met = wait_until(PATIENCE, || (self.sql(sql) == expected).then_some(()));
        assert!(met.is_some(), "{sql}: {:?}", self.sql(sql));
    }

    /// Also under the name that programs for physical replication ask for.
    fn setup(&self) -> Setup {
        let entry = format!("host = \"127.0.0.1\"\nport = {}", self.cluster.primary.port);
        Setup::nodes(DATABASE, &[]).entry(&entry).section(&format!("[databases.replication]\n{entry}"))
    }

    /// Runs a program of PostgreSQL as `app` through the pooler.
    fn run(&self, pooler: &Pooler, program: &str, arguments: &[&str]) -> Output {
        let program = Version::Distribution.binaries().program(program).unwrap();
        let port = pooler.port.to_string();
        Command::new(program)
            .args(["-h", "127.0.0.1", "-p", &port, "-U", "app", "-w"])
            .args(arguments)
            .env("PGPASSWORD", password_of("app"))
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// The position up to which WAL has been written then.
    fn write(&self, rows: u32) -> String {
        self.sql(&format!("SET synchronous_commit = on; INSERT INTO t SELECT generate_series(1, {rows})"));
        self.sql("SELECT pg_current_wal_lsn()").remove(0)
    }
}

/// A client that replicates, logged in.
fn walsender(pooler: &Pooler, database: &str, kind: &str) -> Raw {
    Raw::login_with(pooler.port, "app", database, &password_of("app"), &[("replication", kind)])
}

fn assert_success(output: &Output, pooler: &Pooler) {
    assert!(output.status.success(), "{output:?}\n{}", pooler.log());
}

fn column(pooler: &Pooler, command: &str, column: &str) -> Vec<String> {
    let rows = pooler.console(command).into_iter().flatten();
    rows.filter(|(name, _)| name == column).map(|(_, value)| value).collect()
}

#[test]
fn base_backup_is_complete() {
    let source = Source::new();
    source.sql("CREATE TABLE t AS SELECT x, repeat('x', 500) FROM generate_series(1, 50000) x");
    let pooler = source.setup().start();
    let dir = TempDir::new(None).unwrap();
    let data = dir.path().join("data").display().to_string();
    // WAL comes by a connection of its own.
    let output = source.run(&pooler, "pg_basebackup", &["-D", &data, "-X", "stream", "-c", "fast", "-N"]);
    assert_success(&output, &pooler);
    let verify = Version::Distribution.binaries().program("pg_verifybackup").unwrap();
    let verified = Command::new(verify).arg(&data).output().unwrap();
    assert_success(&verified, &pooler);
    // Nothing is kept.
    pooler.wait_for_pool_of("replication", "app", "sv_active", 0);
    assert!(pooler.console("SHOW SERVERS").is_empty());
    let log = pooler.log();
    assert!(log.contains("db=replication user=app tls=no replication=yes"), "{log}");
    assert_eq!(log.matches("new connection to server, for replication").count(), 2, "{log}");
}

#[test]
fn backup_goes_over_tls_on_both_legs() {
    let source = Source::new();
    source.sql("CREATE TABLE t AS SELECT x FROM generate_series(1, 50000) x");
    let ca = certificates().join("ca.crt");
    let server = format!("server_tls_sslmode = \"verify-ca\"\nserver_tls_ca_file = \"{}\"", ca.display());
    let pooler = source.setup().tls("allow").setting(&server).start();
    let dir = TempDir::new(None).unwrap();
    let data = dir.path().join("data").display().to_string();
    let verified = format!("sslmode=verify-ca sslrootcert={}", ca.display());
    let arguments = ["-D", &data, "-X", "stream", "-c", "fast", "-N", "-d", &verified];
    assert_success(&source.run(&pooler, "pg_basebackup", &arguments), &pooler);
    let verify = Version::Distribution.binaries().program("pg_verifybackup").unwrap();
    assert_success(&Command::new(verify).arg(&data).output().unwrap(), &pooler);
    let log = pooler.log();
    assert!(log.contains("user=app tls=TLSv1.3") && log.contains("replication=yes"), "{log}");
    // As long as one is there, the server says how it is connected.
    let _client = walsender(&pooler, DATABASE, "database");
    source.wait_for("SELECT ssl FROM pg_stat_ssl JOIN pg_stat_replication USING (pid)", &["t"]);
}

/// Where there are nodes it is the primary that is copied, also after a failover.
#[test]
fn replication_goes_to_the_primary_of_nodes() {
    let mut cluster = Replicated::start(1, &[]);
    cluster.sql(0, "ALTER ROLE app REPLICATION");
    cluster.catch_up_all();
    let pooler = cluster.setup(&[1, 0]).start();
    let copied = || walsender(&pooler, DATABASE, "database").sql("SHOW port").remove(0);
    assert_eq!(copied(), cluster.node(0).port.to_string());
    cluster.crash(0);
    cluster.promote(1);
    assert_eq!(copied(), cluster.node(1).port.to_string());
}

fn segments(dir: &Path) -> u64 {
    std::fs::read_dir(dir).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum()
}

#[test]
fn wal_is_received_as_it_is_written() {
    let source = Source::new();
    source.sql("CREATE TABLE t (x int)");
    let pooler = source.setup().start();
    let dir = TempDir::new(None).unwrap();
    let data = dir.path().display().to_string();
    let slot = ["-D", &data, "--slot", "receiver", "--create-slot"];
    assert_success(&source.run(&pooler, "pg_receivewal", &slot), &pooler);
    let end = source.write(300_000);
    let receive = ["-D", &data, "--slot", "receiver", "--no-loop", "--endpos", &end];
    assert_success(&source.run(&pooler, "pg_receivewal", &receive), &pooler);
    assert!(segments(dir.path()) >= 16 << 20);
    // The server has heard how far the client is.
    source.wait_for("SELECT restart_lsn IS NOT NULL FROM pg_replication_slots", &["t"]);
}

#[test]
fn logical_changes_are_received_by_database() {
    let source = Source::new();
    source.sql("CREATE TABLE t (x int)");
    let pooler = source.setup().start();
    let common = ["-d", DATABASE, "--slot", "changes"];
    let create = [&common[..], &["--create-slot", "-P", "test_decoding"]].concat();
    assert_success(&source.run(&pooler, "pg_recvlogical", &create), &pooler);
    let end = source.write(1000);
    let receive = [&common[..], &["--start", "--endpos", &end, "-f", "-", "--no-loop"]].concat();
    let output = source.run(&pooler, "pg_recvlogical", &receive);
    assert_success(&output, &pooler);
    let changes = String::from_utf8_lossy(&output.stdout);
    assert_eq!(changes.matches("table public.t: INSERT: x[integer]:").count(), 1000);
    assert!(pooler.log().contains("replication=database"));
}

#[test]
fn subscription_follows_through_pooler() {
    let source = Source::new();
    source.sql("CREATE TABLE t (x int PRIMARY KEY)");
    source.sql("GRANT ALL ON t TO app");
    source.sql("INSERT INTO t SELECT generate_series(1, 1000)");
    source.sql("CREATE PUBLICATION p FOR TABLE t");
    let pooler = source.setup().start();
    let target = start(&options(Version::Distribution));
    let mut admin = superuser(&target, "postgres");
    admin.sql("CREATE TABLE t (x int PRIMARY KEY)");
    let way = format!("host=127.0.0.1 port={} user=app dbname={DATABASE}", pooler.port);
    let password = password_of("app");
    admin.sql(&format!("CREATE SUBSCRIPTION s CONNECTION $${way} password='{password}'$$ PUBLICATION p"));
    let count = |admin: &mut Raw| admin.sql("SELECT count(*) FROM t")[0].parse::<u32>().unwrap();
    let wait = |admin: &mut Raw, expected| {
        let met = wait_until(PATIENCE, || (count(admin) == expected).then_some(()));
        assert!(met.is_some(), "{} of {expected}\n{}", count(admin), pooler.log());
    };
    wait(&mut admin, 1000);
    source.sql("INSERT INTO t SELECT generate_series(1001, 2000)");
    wait(&mut admin, 2000);
    assert_eq!(column(&pooler, "SHOW SERVERS", "replication"), ["logical"]);
    // The last one is the console itself.
    assert_eq!(column(&pooler, "SHOW CLIENTS", "replication"), ["logical", "none"]);
    // It connects again, and goes on.
    pooler.admin().sql("RECONNECT");
    source.sql("DELETE FROM t WHERE x > 500");
    wait(&mut admin, 500);
    admin.sql("DROP SUBSCRIPTION s");
    source.wait_for("SELECT count(*) FROM pg_replication_slots", &["0"]);
}

/// What a client is told at login is the server's own; other clients of the pool are not concerned.
#[test]
fn startup_parameters_and_errors_are_those_of_the_server() {
    let source = Source::new();
    let pooler = source.setup().database("application_name = \"of the database\"").start();
    let options = [
        ("replication", "database"),
        ("options", "-c work_mem=7MB -c search_path=pg_catalog"),
        ("DateStyle", "German"),
    ];
    let login = |port| Raw::login_with(port, "app", DATABASE, &password_of("app"), &options);
    let mut client = login(pooler.port);
    let mut direct = login(source.cluster.primary.port);
    assert_eq!(client.parameter("DateStyle"), direct.parameter("DateStyle"));
    assert_eq!(client.parameter("server_version"), direct.parameter("server_version"));
    for sql in ["SHOW work_mem", "SHOW search_path", "IDENTIFY_SYSTEM", "SELECT 1; SELECT 2", "nonsense"] {
        client.send(&query(sql));
        direct.send(&query(sql));
        assert_eq!(format!("{:?}", client.ready(1)), format!("{:?}", direct.ready(1)), "{sql}");
    }
    assert_eq!(client.sql("SHOW application_name"), ["of the database"]);
    assert_eq!(pooler.connect().sql("SHOW DateStyle"), ["ISO, MDY"]);
    // Who may not, is told so by the server.
    let refused = |port| {
        let password = password_of("scram_user");
        let more = [("replication", "database")];
        Raw::open(port).try_login("scram_user", DATABASE, &password, &more).unwrap_err()
    };
    let (through, direct) = (refused(pooler.port), refused(source.cluster.primary.port));
    assert_eq!(through.field(b'M'), direct.field(b'M'));
    assert_eq!(through.field(b'C'), direct.field(b'C'));
}

/// H36: by the key that the client was given.
#[test]
fn queries_of_replication_connections_are_cancelled() {
    let source = Source::new();
    let pooler = source.setup().start();
    let mut client = walsender(&pooler, DATABASE, "database");
    client.send(&query("SELECT pg_sleep(600)"));
    let sleeping =
        "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active'";
    source.wait_for(sleeping, &["1"]);
    client.cancel();
    assert_eq!(client.ready(1)[1].field(b'C'), "57014");
    assert_eq!(client.sql("SELECT 'goes on'"), ["goes on"]);
}

#[test]
fn replication_counts_in_the_pool_and_takes_the_place_of_idle_servers() {
    let source = Source::new();
    let pooler = source.setup().setting("default_pool_size = 2").setting("client_login_timeout = 30").start();
    let mut others = [pooler.connect(), pooler.connect()];
    others.iter_mut().for_each(|other| drop(other.sql("BEGIN")));
    others[0].sql("COMMIT");
    // Two servers, one of them idle.
    let mut first = walsender(&pooler, DATABASE, "true");
    assert!(pooler.log().contains("closing because: evicted"));
    first.sql("IDENTIFY_SYSTEM");
    let port = pooler.port;
    let second = std::thread::spawn(move || {
        let mut second =
            Raw::login_with(port, "app", DATABASE, &password_of("app"), &[("replication", "true")]);
        second.sql("IDENTIFY_SYSTEM")
    });
    pooler.wait_for_waiting("app", 1);
    assert_eq!(pooler.pool("sv_active"), 2);
    drop(first);
    assert_eq!(second.join().unwrap().len(), 1);
    others[1].sql("COMMIT");
    // Who waits too long is told why.
    let mut holders = [pooler.connect(), pooler.connect()];
    holders.iter_mut().for_each(|other| drop(other.sql("BEGIN")));
    pooler.admin().sql("SET client_login_timeout = 3");
    let more = [("replication", "true")];
    let error = Raw::open(port).try_login("app", DATABASE, &password_of("app"), &more).unwrap_err();
    assert_eq!(
        (error.field(b'C'), error.field(b'M')),
        ("53300".into(), "client_login_timeout (server down)".into())
    );
}

/// RECONNECT, RELOAD and KILL_CLIENT end them; PostgreSQL's own end is theirs, too.
#[test]
fn replication_ends_at_once_when_its_server_is_outdated_or_gone() {
    let source = Source::new();
    let pooler = source.setup().start();
    let start = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'walsender'";
    let ends: [&dyn Fn(); 3] =
        [&|| drop(pooler.admin().sql("RECONNECT")), &|| drop(source.sql(start)), &|| {
            let id = column(&pooler, "SHOW CLIENTS", "id").remove(0);
            pooler.admin().sql(&format!("KILL_CLIENT {id}"));
        }];
    for end in ends {
        let mut client = walsender(&pooler, DATABASE, "true");
        client.sql("IDENTIFY_SYSTEM");
        end();
        client.closed();
        source.wait_for("SELECT count(*) FROM pg_stat_replication", &["0"]);
        pooler.wait_for_pool("sv_active", 0);
    }
}

/// H8, H12: what nobody reads stays with the server.
#[test]
fn wal_that_the_client_does_not_read_is_not_gathered() {
    let source = Source::new();
    source.sql("CREATE TABLE t (x int)");
    let begin = source.sql("SELECT pg_current_wal_lsn()").remove(0);
    source.write(1_500_000);
    let pooler = source.setup().start();
    let mut client = walsender(&pooler, DATABASE, "true");
    client.sql("IDENTIFY_SYSTEM");
    let before = pooler.memory("VmRSS");
    client.send(&query(&format!("START_REPLICATION PHYSICAL {begin}")));
    let frames = client.until(b'W');
    assert_eq!(frames.last().unwrap().tag, b'W');
    source.wait_for("SELECT state FROM pg_stat_replication", &["catchup"]);
    // All the sockets between are full.
    let sent = || source.sql("SELECT sent_lsn FROM pg_stat_replication").remove(0);
    let mut last = sent();
    let stuck = wait_until(PATIENCE, || {
        std::thread::sleep(std::time::Duration::from_millis(300));
        let now = sent();
        (std::mem::replace(&mut last, now.clone()) == now).then_some(())
    });
    assert!(stuck.is_some());
    let grown = pooler.memory("VmRSS").saturating_sub(before);
    assert!(grown < 8 << 10, "{grown} kB");
    // And comes when it is read.
    let mut received = 0;
    while received < 64 << 20 {
        received += client.frame().body.len();
        client.received.clear();
    }
}
