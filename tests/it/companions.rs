//! Programs that watch PgBouncer, as Debian has them: they find at the console what they look for.

use std::collections::BTreeMap;

use pooler::demo::process::{Guarded, TempDir, free_port, wait_until};

use crate::{
    pgbouncer::{Running, Stage, err, out},
    support::{
        database::{Database, password_of},
        debian::{here, http_get, newer, run, variables},
        pooler::{Pooler, Setup},
        raw::{PATIENCE, Raw},
    },
};

/// A console, and clients of `app` at a database whose numbers stand still.
struct Watched {
    database: Database,
    port: u16,
    _clients: [Raw; 2],
}

impl Watched {
    fn new(database: Database, port: u16) -> Self {
        let login = || Raw::login(port, "app", &database.name, &password_of("app"));
        let mut clients = [login(), login()];
        for client in &mut clients {
            (0..3).for_each(|_| drop(client.sql("SELECT 1")));
        }
        Self { database, port, _clients: clients }
    }

    /// A row of SHOW for the test's database.
    fn shown(&self, what: &str) -> BTreeMap<String, String> {
        let key = if what == "DATABASES" { "name" } else { "database" };
        let row = self.rows(what).into_iter().find(|row| row[key] == self.database.name);
        row.unwrap_or_else(|| panic!("SHOW {what} without {}", self.database.name))
    }

    fn rows(&self, what: &str) -> Vec<BTreeMap<String, String>> {
        let mut admin = Raw::login(self.port, "admin", "pgbouncer", &password_of("admin"));
        admin.send(&crate::support::msg::query(&format!("SHOW {what}")));
        let frames = admin.ready(1);
        let columns = frames.iter().find(|frame| frame.tag == b'T').unwrap().columns();
        let rows = frames.iter().filter(|frame| frame.tag == b'D').map(|frame| frame.values());
        let row = |values: Vec<Option<String>>| {
            let names = columns.iter().map(|(name, _)| name.clone());
            names.zip(values.into_iter().map(Option::unwrap_or_default)).collect()
        };
        rows.map(row).collect()
    }

    fn list(&self, name: &str) -> String {
        self.rows("LISTS").into_iter().find(|row| row["list"] == name).unwrap()["items"].clone()
    }

    fn setting(&self, name: &str) -> String {
        self.rows("CONFIG").into_iter().find(|row| row["key"] == name).unwrap()["value"].clone()
    }
}

fn of_ini(stage: &Stage, database: &Database) {
    stage.file(
        "userlist.txt",
        &format!("\"app\" \"{}\"\n\"admin\" \"{}\"\n", password_of("app"), password_of("admin")),
    );
    stage.file(
        "pgbouncer.ini",
        &format!(
            "[databases]\n{} = host=127.0.0.1 port={} reserve_pool=3\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = @PORT@\nunix_socket_dir =\nauth_type = md5\nauth_file = @DIR@/userlist.txt\n\
             admin_users = admin\nstats_users = app\nignore_startup_parameters = extra_float_digits\n\
             default_pool_size = 7\nmax_client_conn = 77\n",
            database.name, database.port
        ),
    );
}

fn of_toml(database: &Database) -> Setup {
    let setup = Setup::new(database).setting("default_pool_size = 7").setting("max_client_conn = 77");
    setup.setting("stats_users = [\"app\"]").database("reserve_pool_size = 3")
}

/// Runs a check in front of a pgbouncer.ini and in front of a pooler.toml.
fn in_both_ways(check: impl Fn(&Watched)) {
    let (stage, database) = (Stage::new(), Database::new());
    of_ini(&stage, &database);
    let running: Running<'_> = stage.start(&[]);
    check(&Watched::new(database, stage.port));
    running.stop();

    let database = Database::new();
    let pooler: Pooler = of_toml(&database).start();
    check(&Watched::new(database, pooler.port));
}

/// Starts an exporter and reads what it serves, each metric with its labels in order; the numbers are Prometheus's.
fn metrics(arguments: &[&str], port: u16) -> BTreeMap<String, f64> {
    let dir = TempDir::new(None).unwrap();
    let log = dir.path().join("exporter.log");
    let mut variables = variables();
    variables.push(("PGPASSWORD", password_of("app")));
    let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let _exporter = Guarded::spawn_with(None, arguments, &variables, &log, "KILL").unwrap();
    let body = wait_until(PATIENCE, || http_get(port, "/metrics"));
    let body = body.unwrap_or_else(|| panic!("{}", std::fs::read_to_string(&log).unwrap_or_default()));
    let lines = body.lines().filter(|line| !line.starts_with('#'));
    let numbers = lines.filter_map(|line| line.rsplit_once(' '));
    numbers.map(|(name, number)| (name.to_owned(), number.parse().unwrap())).collect()
}

/// Asserts that metrics are numbers of the console, in its unit.
fn assert_metrics(metrics: &BTreeMap<String, f64>, expected: &[(String, &str, f64)]) {
    for (name, shown, scale) in expected {
        let shown = shown.parse::<f64>().unwrap() * scale;
        let found = metrics.get(name).unwrap_or_else(|| panic!("no {name} in {metrics:#?}"));
        assert!((found - shown).abs() <= shown.abs() * 1e-9, "{name}: {found} and not {shown}");
    }
}

/// 1.7 of Debian 12 is written for PgBouncer up to 1.7: it asks for columns that have been called otherwise since.
#[test]
fn exporter_of_debian_12_serves_what_the_console_shows() {
    in_both_ways(|watched| {
        let port = free_port().unwrap();
        let (program, console, web) =
            (here("usr/bin/prometheus-pgbouncer-exporter"), watched.port.to_string(), port.to_string());
        let arguments = [
            "python3",
            program.to_str().unwrap(),
            "--host",
            "127.0.0.1",
            "--port",
            &web,
            "--pgbouncer-host",
            "127.0.0.1",
            "--pgbouncer-port",
            &console,
            "--pgbouncer-user",
            "app",
        ];
        let metrics = metrics(&arguments, port);
        let (stats, pools, databases) =
            (watched.shown("STATS"), watched.shown("POOLS"), watched.shown("DATABASES"));
        let name = &watched.database.name;
        let of_database = |metric: &str| format!("pgbouncer_{metric}{{database=\"{name}\"}}");
        let of_pool = |metric: &str| format!("pgbouncer_{metric}{{database=\"{name}\",user=\"app\"}}");
        let lists = ["databases", "users", "pools", "free_clients", "dns_names", "dns_pending"]
            .map(|list| (format!("pgbouncer_{list}"), watched.list(list)));
        assert_metrics(&metrics, &lists.each_ref().map(|(name, shown)| (name.clone(), shown.as_str(), 1.0)));
        assert_metrics(
            &metrics,
            &[
                (of_database("requests_total"), "6", 1.0),
                (of_database("requests_total"), &stats["total_query_count"], 1.0),
                (of_database("received_bytes_total"), &stats["total_received"], 1.0),
                (of_database("sent_bytes_total"), &stats["total_sent"], 1.0),
                (of_database("query_microseconds_total"), &stats["total_query_time"], 1.0),
                (of_pool("active_clients"), "2", 1.0),
                (of_pool("active_clients"), &pools["cl_active"], 1.0),
                (of_pool("waiting_clients"), &pools["cl_waiting"], 1.0),
                (of_database("pool_size"), "7", 1.0),
                (of_database("reserve_pool"), "3", 1.0),
                (of_database("reserve_pool"), &databases["reserve_pool_size"], 1.0),
            ],
        );
    });
}

/// That of Debian 13, which is the one of prometheus-community.
#[test]
fn exporter_of_debian_13_serves_what_the_console_shows() {
    in_both_ways(|watched| {
        let port = free_port().unwrap();
        let program = newer("usr/bin/prometheus-pgbouncer-exporter");
        let secret = password_of("app").replace(' ', "%20");
        let connection = format!(
            "--pgBouncer.connectionString=postgres://app:{secret}@127.0.0.1:{}/pgbouncer?sslmode=disable",
            watched.port
        );
        let listen = format!("--web.listen-address=127.0.0.1:{port}");
        let metrics = metrics(&[program.to_str().unwrap(), &connection, &listen], port);
        assert_metrics(&metrics, &[("pgbouncer_up".to_owned(), "1", 1.0)]);
        let (stats, pools, databases) =
            (watched.shown("STATS"), watched.shown("POOLS"), watched.shown("DATABASES"));
        let name = &watched.database.name;
        let of_stats = |metric: &str| format!("pgbouncer_stats_{metric}{{database=\"{name}\"}}");
        let of_pool = |metric: &str| format!("pgbouncer_pools_{metric}{{database=\"{name}\",user=\"app\"}}");
        let of_database = |metric: &str| {
            let start = format!("pgbouncer_databases_{metric}{{");
            let found = metrics
                .keys()
                .find(|key| key.starts_with(&start) && key.contains(&format!("name=\"{name}\"")));
            found.cloned().unwrap_or(start)
        };
        let micro = 1e-6;
        assert_metrics(
            &metrics,
            &[
                (of_stats("queries_pooled_total"), "6", 1.0),
                (of_stats("queries_pooled_total"), &stats["total_query_count"], 1.0),
                (of_stats("queries_duration_seconds_total"), &stats["total_query_time"], micro),
                (of_stats("received_bytes_total"), &stats["total_received"], 1.0),
                (of_stats("sent_bytes_total"), &stats["total_sent"], 1.0),
                (of_stats("client_wait_seconds_total"), &stats["total_wait_time"], micro),
                (of_stats("sql_transactions_pooled_total"), &stats["total_xact_count"], 1.0),
                (of_stats("server_in_transaction_seconds_total"), &stats["total_xact_time"], micro),
                (of_pool("client_active_connections"), "2", 1.0),
                (of_pool("client_active_connections"), &pools["cl_active"], 1.0),
                (of_pool("client_waiting_connections"), &pools["cl_waiting"], 1.0),
                (of_pool("server_active_connections"), &pools["sv_active"], 1.0),
                (of_pool("server_idle_connections"), &pools["sv_idle"], 1.0),
                (of_pool("server_used_connections"), &pools["sv_used"], 1.0),
                (of_pool("server_testing_connections"), &pools["sv_tested"], 1.0),
                (of_pool("server_login_connections"), &pools["sv_login"], 1.0),
                (of_pool("client_maxwait_seconds"), &pools["maxwait"], 1.0),
                (of_database("pool_size"), "7", 1.0),
                (of_database("max_connections"), &databases["max_connections"], 1.0),
                (of_database("current_connections"), &databases["current_connections"], 1.0),
                (of_database("paused"), "0", 1.0),
                (of_database("disabled"), "0", 1.0),
                ("pgbouncer_databases".to_owned(), &watched.list("databases"), 1.0),
                ("pgbouncer_users".to_owned(), &watched.list("users"), 1.0),
                ("pgbouncer_pools".to_owned(), &watched.list("pools"), 1.0),
                ("pgbouncer_config_max_client_connections".to_owned(), "77", 1.0),
                (
                    "pgbouncer_config_max_user_connections".to_owned(),
                    &watched.setting("max_user_connections"),
                    1.0,
                ),
            ],
        );
    });
}

/// check_postgres (for Nagios and Icinga): pools, clients in all, and whether a setting has changed.
#[test]
fn check_postgres_finds_pools_and_settings() {
    in_both_ways(|watched| {
        let program = here("usr/bin/check_postgres");
        let port = watched.port.to_string();
        let check = |action: &str, more: &[&str]| {
            let mut arguments = vec![program.to_str().unwrap(), "--host=127.0.0.1", "--dbuser=app"];
            let (action, port) = (format!("--action={action}"), format!("--port={port}"));
            arguments.extend([action.as_str(), &port, "--dbname=pgbouncer"]);
            arguments.extend(more);
            let output = run("perl", &arguments, &[("PGPASSWORD", &password_of("app"))]);
            (output.status.code().unwrap(), out(&output), err(&output))
        };
        let name = &watched.database.name;
        let only = format!("--include={name}");
        for (action, shown) in [
            ("pgb_pool_cl_active", 2),
            ("pgb_pool_cl_waiting", 0),
            ("pgb_pool_sv_active", watched.shown("POOLS")["sv_active"].parse().unwrap()),
            ("pgb_pool_sv_idle", watched.shown("POOLS")["sv_idle"].parse().unwrap()),
            ("pgb_pool_sv_used", 0),
            ("pgb_pool_sv_tested", 0),
            ("pgb_pool_sv_login", 0),
            ("pgb_pool_maxwait", 0),
        ] {
            let answer = check(action, &[&only, "--warning=50", "--critical=60"]);
            assert!(answer.0 == 0 && answer.1.contains(&format!("{name}={shown}")), "{action}: {answer:?}");
        }
        let answer = check("pgb_pool_cl_active", &[&only, "--warning=1", "--critical=2"]);
        assert!(answer.0 == 2 && answer.1.contains("CRITICAL"), "{answer:?}");
        let answer = check("pgbouncer_backends", &["--warning=60", "--critical=70"]);
        // Its own connection is one.
        assert!(answer.0 == 0 && answer.1.contains("3 of 77 connections"), "{answer:?}");
        let sum = |answer: &(i32, String, String)| {
            let found = answer.1.split(|c: char| !c.is_ascii_hexdigit()).find(|word| word.len() == 32);
            found.unwrap_or_else(|| panic!("{answer:?}")).to_owned()
        };
        let before = sum(&check("pgbouncer_checksum", &["--critical=0"]));
        let same = check("pgbouncer_checksum", &[&format!("--critical={before}")]);
        assert_eq!(same.0, 0, "{same:?}");
        let mut admin = Raw::login(watched.port, "admin", "pgbouncer", &password_of("admin"));
        admin.sql("SET query_timeout = 7");
        let changed = check("pgbouncer_checksum", &[&format!("--critical={before}")]);
        assert_eq!(changed.0, 2, "{changed:?}");
        assert_ne!(sum(&changed), before);
    });
}

#[test]
fn plugins_of_munin_draw_connections_and_requests() {
    in_both_ways(|watched| {
        let (port, secret) = (watched.port.to_string(), password_of("app"));
        let plugin = |name: &str, arguments: &[&str]| {
            let program = here(&format!("usr/share/munin/plugins/{name}"));
            let arguments: Vec<&str> =
                std::iter::once(program.to_str().unwrap()).chain(arguments.iter().copied()).collect();
            let of_libpq =
                [("PGHOST", "127.0.0.1"), ("PGPORT", &port), ("PGUSER", "app"), ("PGPASSWORD", &secret)];
            let output = run("perl", &arguments, &of_libpq);
            assert!(output.status.success(), "{name} {arguments:?}: {}{}", out(&output), err(&output));
            out(&output)
        };
        let name = &watched.database.name;
        assert!(plugin("pgbouncer_connections", &["config"]).contains("cl_active.label Active clients"));
        let values = plugin("pgbouncer_connections", &[]);
        assert!(
            values.contains("cl_active.value 2\n") && values.contains("cl_waiting.value 0\n"),
            "{values}"
        );
        assert!(plugin("pgbouncer_requests", &["config"]).contains(&format!("{name}.label {name}")));
        let values = plugin("pgbouncer_requests", &[]);
        let assignments = &watched.shown("STATS")["total_server_assignment_count"];
        assert!(values.contains(&format!("{name}.value {assignments}\n")), "{values}");
    });
}
