//! Metrics by HTTP: numbers are right after a known load, and what is asked for in a wrong way costs nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
    time::Duration,
};

use pooler::demo::process::{TempDir, free_port, wait_until};

use crate::{
    restarts::Instance,
    support::{
        database::{Database, password_of},
        msg::*,
        pooler::{Pooler, Setup},
        raw::{PATIENCE, Raw},
        replicated::{DATABASE, Replicated},
    },
};

/// A pooler with metrics.
pub(crate) struct Seen {
    pub(crate) pooler: Pooler,
    pub(crate) port: u16,
}

/// An answer.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

pub(crate) fn exchange(port: u16, request: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // Whoever is refused early may find the connection closed.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
}

pub(crate) fn get(port: u16, path: &str) -> Answer {
    exchange(port, format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())
}

/// Samples by name and labels, as they are written.
fn scrape(port: u16) -> BTreeMap<String, f64> {
    let answer = get(port, "/metrics");
    assert_eq!(answer.status, 200, "{}", answer.body);
    let lines = answer.body.lines().filter(|line| !line.starts_with('#'));
    let sample = |line: &str| {
        let (name, value) = line.rsplit_once(' ').unwrap();
        (name.to_owned(), value.parse().unwrap_or_else(|_| panic!("{line}")))
    };
    lines.map(sample).collect()
}

impl Seen {
    pub(crate) fn start(setup: Setup) -> Self {
        let port = free_port().unwrap();
        Self { pooler: setup.setting(&format!("metrics_addr = {port}")).start(), port }
    }

    /// The sum of the samples of this name that have all these labels.
    pub(crate) fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        let samples = scrape(self.port);
        let of = |key: &&String| {
            let (own, rest) = key.split_once('{').unwrap_or((key, ""));
            own == name && labels.iter().all(|label| rest.contains(label))
        };
        samples.keys().filter(of).map(|key| samples[key]).sum()
    }

    pub(crate) fn wait_for(&self, name: &str, labels: &[&str], expected: f64) {
        let mut last = 0.0;
        let met = wait_until(PATIENCE, || {
            last = self.sum(name, labels);
            (last == expected).then_some(())
        });
        assert!(met.is_some(), "{name} {labels:?} is {last}, not {expected}");
    }
}

const OF_APP: &str = "user=\"app\"";

#[test]
fn counts_are_right_after_a_known_load() {
    let database = Database::new();
    let seen = Seen::start(Setup::new(&database).setting("default_pool_size = 2"));
    let mut client = seen.pooler.connect();
    client.sql("SELECT 1");
    let names = [
        "pooler_transactions_total",
        "pooler_queries_total",
        "pooler_transaction_duration_seconds_count",
        "pooler_query_duration_seconds_count",
        "pooler_wait_duration_seconds_count",
    ];
    let counts = || names.map(|name| seen.sum(name, &[OF_APP]));
    let before = counts();
    (0..10).for_each(|_| drop(client.sql("SELECT 1")));
    // One transaction of three requests.
    for sql in ["BEGIN", "SELECT 2", "COMMIT"] {
        client.sql(sql);
    }
    let after = counts();
    let more: Vec<f64> = after.iter().zip(before).map(|(after, before)| after - before).collect();
    assert_eq!(more, [11.0, 13.0, 11.0, 13.0, 11.0]);
    // What takes long is in the buckets that say so.
    client.sql("SELECT pg_sleep(0.3)");
    let buckets =
        |end: &str| seen.sum("pooler_query_duration_seconds_bucket", &[OF_APP, &format!("le=\"{end}\"")]);
    let all = buckets("+Inf");
    assert_eq!(all, seen.sum("pooler_query_duration_seconds_count", &[OF_APP]));
    assert!(buckets("0.262144") <= all - 1.0 && buckets("67.108864") == all, "{all}");
    assert!(seen.sum("pooler_query_duration_seconds_sum", &[OF_APP]) >= 0.3);
    let bytes = seen.sum("pooler_sent_bytes_total", &[OF_APP]);
    client.sql("SELECT repeat('x', 100000)");
    assert!(seen.sum("pooler_sent_bytes_total", &[OF_APP]) - bytes > 100_000.0);
    assert!(seen.sum("pooler_received_bytes_total", &[OF_APP]) > 100.0);
    assert_eq!(seen.sum("pooler_logins_total", &[OF_APP]), 1.0);
    assert_eq!(seen.sum("pooler_build_info", &[&format!("version=\"{}\"", env!("CARGO_PKG_VERSION"))]), 1.0);
    assert!(seen.sum("process_resident_memory_bytes", &[]) > 1e6);
}

#[test]
fn pipelines_count_each_of_their_transactions() {
    let database = Database::new();
    let seen = Seen::start(Setup::new(&database));
    let mut client = seen.pooler.connect();
    client.send_all(&[parse("s", "SELECT 1"), sync()]);
    client.ready(1);
    let names =
        ["pooler_transactions_total", "pooler_transaction_duration_seconds_count", "pooler_binds_total"];
    let counts = || names.map(|name| seen.sum(name, &[OF_APP]));
    let before = counts();
    client.send(&[bind("s", &[]), execute(), sync()].concat().repeat(20));
    client.ready(20);
    let more: Vec<f64> = counts().iter().zip(before).map(|(after, before)| after - before).collect();
    assert_eq!(more, [20.0, 20.0, 20.0]);
    assert!(seen.sum("pooler_prepared_statements", &[]) >= 1.0);
    assert_eq!(seen.sum("pooler_client_parses_total", &[OF_APP]), 1.0);
}

#[test]
fn clients_and_servers_are_shown_by_what_they_do() {
    let database = Database::new();
    let seen =
        Seen::start(Setup::new(&database).setting("default_pool_size = 1").setting("pinned_pool_size = 0"));
    let state = |state: &str| format!("state=\"{state}\"");
    let mut holder = seen.pooler.connect();
    holder.sql("BEGIN");
    let mut waits = seen.pooler.connect();
    let idle = seen.pooler.connect();
    waits.send(&query("SELECT 1"));
    for (is, count) in [("waiting", 1.0), ("active", 1.0), ("idle", 1.0)] {
        seen.wait_for("pooler_clients", &[OF_APP, &state(is)], count);
    }
    assert_eq!(seen.sum("pooler_servers", &[OF_APP, &state("active")]), 1.0);
    assert_eq!(
        (seen.sum("pooler_pool_size", &[OF_APP]), seen.sum("pooler_pool_servers", &[OF_APP])),
        (1.0, 1.0)
    );
    assert!(seen.sum("pooler_clients_longest_wait_seconds", &[OF_APP]) > 0.0);
    std::thread::sleep(Duration::from_millis(20));
    holder.sql("COMMIT");
    waits.ready(1);
    assert!(seen.sum("pooler_wait_duration_seconds_sum", &[OF_APP]) >= 0.02);
    seen.wait_for("pooler_servers", &[OF_APP, &state("idle")], 1.0);
    holder.sql("SELECT pg_advisory_lock(1)");
    assert_eq!(seen.sum("pooler_servers_pinned", &[OF_APP, "reason=\"advisory lock\""]), 1.0);
    assert_eq!(seen.sum("pooler_servers_pinned", &[]), 1.0);
    assert_eq!(seen.sum("pooler_pins_total", &[OF_APP, "reason=\"advisory lock\""]), 1.0);
    holder.sql("SELECT pg_advisory_unlock(1)");
    seen.wait_for("pooler_servers_pinned", &[OF_APP, "reason=\"advisory lock\""], 0.0);
    drop(idle);
    seen.wait_for("pooler_client_connections", &[], 2.0);
}

#[test]
fn errors_are_counted_by_sqlstate_and_by_who_gives_them() {
    let database = Database::new();
    let settings = ["workers = 1", "default_pool_size = 1", "query_wait_timeout = 1"];
    let setup = settings.iter().fold(Setup::new(&database), |setup, line| setup.setting(line));
    let seen = Seen::start(setup);
    let mut client = seen.pooler.connect();
    let errors = |source: &str, code: &str| {
        seen.sum("pooler_errors_total", &[&format!("source=\"{source}\""), &format!("sqlstate=\"{code}\"")])
    };
    for _ in 0..3 {
        assert!(client.try_sql("SELECT 1/0").is_err());
    }
    assert!(client.try_sql("SELECT nothing").is_err());
    assert!(client.try_sql("DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = 'AB123'; END $$").is_err());
    assert_eq!(
        (errors("server", "22012"), errors("server", "42703"), errors("server", "AB123")),
        (3.0, 1.0, 1.0)
    );
    // In one read.
    client.send(&[query("SELECT 1/0"), query("SELECT 1/0")].concat());
    client.ready(2);
    assert_eq!(errors("server", "22012"), 5.0);
    client.sql("BEGIN");
    let mut late = seen.pooler.connect();
    late.send(&query("SELECT 1"));
    assert_eq!(late.closed().iter().find(|f| f.tag == b'E').unwrap().field(b'C'), "53300");
    assert_eq!(errors("pooler", "53300"), 1.0);
    // However many codes programs make up: each worker tells so many apart.
    client.sql("ROLLBACK");
    for n in 0..100 {
        let raise = format!("DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = 'X{n:04}'; END $$");
        assert!(client.try_sql(&raise).is_err());
    }
    let series = scrape(seen.port).into_keys().filter(|key| key.starts_with("pooler_errors_total"));
    assert!(series.count() < 100);
    assert!(errors("server", "other") > 10.0);
}

#[test]
fn failed_logins_are_counted_by_reason() {
    let database = Database::new();
    let setup = Setup::new(&database).setting("client_login_timeout = \"300ms\"");
    let seen = Seen::start(setup.setting("max_user_client_connections = 1"));
    let failed = |reason: &str| seen.sum("pooler_failed_logins_total", &[&format!("reason=\"{reason}\"")]);
    // Whether it listens was found out by a connection that said nothing.
    assert_eq!(seen.sum("pooler_failed_logins_total", &[]), failed("closed"));
    let before = failed("closed");
    let login = |user: &str, database: &str, password: &str| {
        Raw::open(seen.pooler.port).try_login(user, database, password, &[]).expect_err("it got in");
    };
    login("app", &database.name, "wrong");
    login("nobody", &database.name, "wrong");
    login("app", "nowhere", &password_of("app"));
    login("app", "pooler", &password_of("app"));
    let held = seen.pooler.connect();
    login("app", &database.name, &password_of("app"));
    // Neither a startup packet nor TLS.
    let mut stream = TcpStream::connect(("127.0.0.1", seen.pooler.port)).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let silent = TcpStream::connect(("127.0.0.1", seen.pooler.port)).unwrap();
    drop(TcpStream::connect(("127.0.0.1", seen.pooler.port)).unwrap());
    for (reason, count) in [
        ("password", 2.0),
        ("no_database", 1.0),
        ("not_allowed", 1.0),
        ("limit", 1.0),
        ("protocol", 1.0),
        ("timeout", 1.0),
        ("closed", before + 1.0),
    ] {
        seen.wait_for("pooler_failed_logins_total", &[&format!("reason=\"{reason}\"")], count);
    }
    assert_eq!(failed("tls") + failed("lookup"), 0.0);
    drop((held, silent));
}

#[test]
fn names_of_databases_are_escaped() {
    let database = Database::new();
    let odd = "a\"b\\c\u{e9} {x}";
    let section = format!(
        "[databases.'{odd}']\nhost = \"127.0.0.1\"\nport = {}\ndbname = \"{}\"",
        database.port, database.name
    );
    let seen = Seen::start(Setup::new(&database).section(&section));
    let mut client = Raw::login(seen.pooler.port, "app", odd, &password_of("app"));
    client.sql("SELECT 1");
    let label = "database=\"a\\\"b\\\\c\u{e9} {x}\"";
    assert_eq!(seen.sum("pooler_transactions_total", &[label]), 1.0);
}

/// `docs/metrics.md`: name and labels of each metric.
fn documented() -> BTreeMap<String, BTreeSet<String>> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    let text = fs::read_to_string(file).unwrap();
    let row = |line: &str| {
        let cells: Vec<&str> = line.strip_prefix("| `")?.split('|').map(str::trim).collect();
        let labels = cells[2].split(", ").map(|label| label.trim_matches('`').to_owned());
        Some((cells[0].trim_matches('`').to_owned(), labels.filter(|label| !label.is_empty()).collect()))
    };
    text.lines().filter_map(row).collect()
}

#[test]
fn each_metric_that_is_documented_is_scraped_and_the_other_way_round() {
    let cluster = Replicated::start(1, &[]);
    let seen = Seen::start(cluster.setup(&[0, 1]).setting("session_audit = 1"));
    cluster.wait_for_replicas(&seen.pooler);
    let mut client = seen.pooler.connect();
    client.sql("LISTEN x");
    client.sql("CREATE TEMP TABLE kept AS SELECT 1");
    assert!(client.try_sql("SELECT 1/0").is_err());
    let mut read = Vec::new();
    let answer = get(seen.port, "/metrics");
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut kinds = BTreeMap::new();
    for line in answer.body.lines() {
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            kinds.insert(name.to_owned(), kind.to_owned());
            continue;
        }
        if line.starts_with('#') {
            continue;
        }
        read.push(line);
        let (name, rest) = line.split_once(['{', ' ']).unwrap();
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| {
            name.strip_suffix(suffix)
                .filter(|family| kinds.get(*family).is_some_and(|kind| kind == "histogram"))
        });
        let labels = rest.split(',').filter_map(|pair| Some(pair.split_once("=\"")?.0.to_owned()));
        let labels: BTreeSet<String> = labels.filter(|label| label != "le").collect();
        found.entry(family.unwrap_or(name).to_owned()).or_default().extend(labels);
    }
    let documented = documented();
    let names: BTreeSet<&String> = documented.keys().collect();
    assert_eq!(kinds.keys().collect::<BTreeSet<_>>(), names);
    assert_eq!(found.keys().collect::<BTreeSet<_>>(), names, "without a sample");
    for (name, labels) in &found {
        assert_eq!(labels, &documented[name], "{name}");
    }
}

#[test]
fn routes_lag_and_roles_of_nodes_are_told() {
    let cluster = Replicated::start(1, &[]);
    let seen = Seen::start(cluster.setup(&[0, 1]));
    cluster.connect(0).sql("CREATE TABLE t AS SELECT 1 AS a");
    cluster.catch_up_all();
    cluster.wait_for_replicas(&seen.pooler);
    let mut client = seen.pooler.connect();
    let routes =
        |route: &str| seen.sum("pooler_routes_total", &[&format!("route=\"{route}\""), "user=\"app\""]);
    let to_replica = wait_until(PATIENCE, || {
        client.sql("SELECT a FROM t");
        (routes("replica") > 0.0).then_some(())
    });
    assert!(to_replica.is_some(), "no read gets to the replica");
    let before = (routes("replica"), routes("primary"));
    (0..5).for_each(|_| drop(client.sql("SELECT a FROM t")));
    client.sql("UPDATE t SET a = 2");
    assert_eq!((routes("replica") - before.0, routes("primary") - before.1), (5.0, 1.0));
    let role = |node: usize, role: &str| {
        let node = format!("node=\"127.0.0.1:{}\"", cluster.node(node).port);
        seen.sum("pooler_node_role", &[&node, &format!("role=\"{role}\"")])
    };
    assert_eq!((role(0, "primary"), role(0, "replica"), role(1, "replica")), (1.0, 0.0, 1.0));
    // A replica that replays nothing: reads that must see more go to the primary.
    cluster.admin(1).sql("SELECT pg_wal_replay_pause()");
    client.sql("UPDATE t SET a = 3");
    assert_eq!(client.sql("SELECT a FROM t"), ["3"]);
    assert_eq!(seen.sum("pooler_stale_reads_avoided_total", &[DATABASE]), 1.0);
    seen.wait_for("pooler_node_role", &["role=\"primary\""], 1.0);
    let behind = wait_until(PATIENCE, || (seen.sum("pooler_node_lag_bytes", &[]) > 0.0).then_some(()));
    assert!(behind.is_some(), "no lag");
}

#[test]
fn readiness_follows_pause_and_shutdown() {
    let database = Database::new();
    let seen = Seen::start(Setup::new(&database));
    let ready = || {
        let answer = get(seen.port, "/readyz");
        (answer.status, answer.body)
    };
    assert_eq!(ready(), (200, "ready\n".to_owned()));
    assert_eq!(get(seen.port, "/healthz").status, 200);
    let mut client = seen.pooler.connect();
    client.sql("SELECT 1");
    seen.pooler.console("PAUSE");
    assert_eq!(ready(), (503, "paused\n".to_owned()));
    assert_eq!(seen.sum("pooler_paused", &[]), 1.0);
    seen.pooler.console("RESUME");
    assert_eq!(ready(), (200, "ready\n".to_owned()));
    client.sql("BEGIN");
    seen.pooler.console("SHUTDOWN WAIT_FOR_CLIENTS");
    assert_eq!(ready(), (503, "shutting down\n".to_owned()));
    // It lives yet, and can be seen.
    assert_eq!(get(seen.port, "/healthz").status, 200);
    assert_eq!(seen.sum("pooler_shutting_down", &[]), 1.0);
    client.sql("COMMIT");
}

#[test]
fn a_server_that_nobody_has_reached_makes_it_unready() {
    let database = Database::new();
    let nobody = free_port().unwrap();
    let other = format!(
        "[databases.other]\nhost = \"127.0.0.1\"\nport = {}\ndbname = \"{}\"",
        database.port, database.name
    );
    let seen = Seen::start(
        Setup::new(&database).by_port(nobody).setting("client_login_timeout = 1").section(&other),
    );
    // Not tried.
    assert_eq!(get(seen.port, "/readyz").status, 200);
    let mut last = None;
    let unready = wait_until(PATIENCE, || {
        let mut client = Raw::open(seen.pooler.port);
        let password = password_of("app");
        let _ = client.try_login("app", &database.name, &password, &[]);
        let answer = get(seen.port, "/readyz");
        last = Some(answer.body);
        (answer.status == 503).then_some(())
    });
    assert!(unready.is_some(), "{last:?}");
    assert_eq!(last.as_deref(), Some("no server can be reached\n"));
    assert_eq!(seen.sum("pooler_pool_unreachable", &[OF_APP]), 1.0);
    // One that can be reached is enough.
    let password = password_of("app");
    Raw::login(seen.pooler.port, "app", "other", &password).sql("SELECT 1");
    assert_eq!(get(seen.port, "/readyz").status, 200);
}

#[test]
fn formats_are_those_that_were_asked_for() {
    let database = Database::new();
    let seen = Seen::start(Setup::new(&database));
    let text = get(seen.port, "/metrics?x=y");
    assert!(text.head.contains("content-type: text/plain; version=0.0.4"), "{}", text.head);
    assert!(text.body.contains("# TYPE pooler_transactions_total counter\n"));
    let accept = "GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n\r\n";
    let open = exchange(seen.port, accept.as_bytes());
    assert!(open.head.contains("content-type: application/openmetrics-text; version=1.0.0"), "{}", open.head);
    assert!(open.body.contains("# TYPE pooler_transactions counter\n") && open.body.ends_with("# EOF\n"));
}

#[test]
fn what_is_asked_in_a_wrong_way_is_refused() {
    let database = Database::new();
    let seen = Seen::start(Setup::new(&database));
    let status = |request: &str| exchange(seen.port, request.as_bytes()).status;
    assert_eq!(status("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), 404);
    assert_eq!(status("GET /metrics/../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n"), 404);
    assert_eq!(status("POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"), 405);
    assert_eq!(status("DELETE /readyz HTTP/1.1\r\nHost: x\r\n\r\n"), 405);
    assert_eq!(status("nonsense\r\n\r\n"), 400);
    assert_eq!(status("GET /metrics SPDY/9\r\n\r\n"), 400);
    let long = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(100_000));
    assert!([414, 431].contains(&status(&long)));
    let many = format!("GET /metrics HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(1_000));
    assert_eq!(status(&many), 431);
    // Who says nothing, or never ends, holds up nobody, however many there are.
    let mut silent: Vec<TcpStream> =
        (0..150).map(|_| TcpStream::connect(("127.0.0.1", seen.port)).unwrap()).collect();
    for stream in &mut silent[..8] {
        stream.write_all(b"GET /metrics HTTP/1.1\r\nA: ").unwrap();
    }
    assert_eq!(get(seen.port, "/metrics").status, 200);
    let mut client = seen.pooler.connect();
    assert_eq!(client.sql("SELECT 1"), ["1"]);
}

#[test]
fn scrapes_do_not_disturb_transactions() {
    let database = Database::new();
    let seen = Seen::start(Setup::new(&database));
    let port = seen.port;
    let scraper = std::thread::spawn(move || (0..100).map(|_| scrape(port).len()).min());
    let mut client = seen.pooler.connect();
    let mut transactions = 0;
    while !scraper.is_finished() {
        assert_eq!(client.sql("SELECT 1"), ["1"]);
        transactions += 1;
    }
    assert!(scraper.join().unwrap() > Some(10));
    assert_eq!(seen.sum("pooler_transactions_total", &[OF_APP]), f64::from(transactions));
}

#[test]
fn an_address_that_is_taken_is_named() {
    let database = Database::new();
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let dir = TempDir::new(None).unwrap();
    let file = dir.path().join("pooler.toml");
    let toml = format!(
        "[pooler]\nlisten_port = {}\nmetrics_addr = {port}\n[databases.{}]\nhost = \"127.0.0.1\"\nport = {}\n",
        free_port().unwrap(),
        database.name,
        database.port
    );
    fs::write(&file, toml).unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_pooler"))
        .args(["run", "-c", file.to_str().unwrap()])
        .output()
        .unwrap();
    assert!(!output.status.success());
    let said =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(said.contains(&format!("cannot listen on metrics_addr 127.0.0.1:{port}")), "{said}");
}

#[test]
fn a_process_that_takes_over_tells_its_own_metrics() {
    let database = Database::new();
    let port = free_port().unwrap();
    let settings = format!("metrics_addr = {port}\n");
    let dir = TempDir::new(None).unwrap();
    let old = Instance::start(&database, free_port().unwrap(), dir, &[], &settings, "");
    let started = || scrape(port)["pooler_start_time_seconds"];
    let before = started();
    let new = old.take_over(&database, &settings);
    let changed = wait_until(PATIENCE, || {
        TcpStream::connect(("127.0.0.1", port)).ok()?;
        (started() > before).then_some(())
    });
    assert!(changed.is_some(), "{}", new.log());
    assert_eq!(get(port, "/readyz").status, 200);
}
