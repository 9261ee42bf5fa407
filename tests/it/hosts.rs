//! Several hosts of which any will do: turns, hosts that are not there, and nothing that passes from one to the other.

use std::fs;

use pooler::demo::process::{free_port, wait_until};

use crate::support::{
    database::{Database, Version, options, password_of, shared, start, superuser},
    gate::Gate,
    msg::*,
    pooler::{Pooler, Setup},
    raw::{PATIENCE, Raw},
};

/// Hosts at these ports of 127.0.0.1.
fn at(database: &str, ports: &[u16]) -> Setup {
    let hosts: Vec<String> = ports.iter().map(|port| format!("\"127.0.0.1:{port}\"")).collect();
    Setup::nodes(database, &[]).entry(&format!("host = [{}]", hosts.join(", ")))
}

/// The same, without the connections that pooler has for itself.
fn counted(database: &str, gates: &[&Gate]) -> Setup {
    let ports: Vec<u16> = gates.iter().map(|gate| gate.port).collect();
    at(database, &ports).setting("session_functions = \"trust\"")
}

/// The same database at two clusters of different versions.
struct Two {
    database: Database,
    ports: [u16; 2],
}

impl Two {
    fn new() -> Self {
        let database = Database::new();
        let other = shared(Version::V18);
        superuser(other, "postgres").sql(&format!("CREATE DATABASE {} OWNER app", database.name));
        let ports = [database.port, other.primary.port];
        Self { database, ports }
    }

    fn setup(&self) -> Setup {
        at(&self.database.name, &self.ports)
    }

    /// By the superuser of the second one.
    fn sql_at_second(&self, sql: &str) -> Vec<String> {
        superuser(shared(Version::V18), &self.database.name).sql(sql)
    }
}

/// Which of the two a client's transaction is on.
fn port_of(client: &mut Raw) -> u16 {
    client.sql("SELECT inet_server_port()")[0].parse().unwrap()
}

#[test]
fn new_connections_go_to_each_host_in_turn() {
    let database = Database::new();
    let gates = [Gate::before(database.port), Gate::before(database.port)];
    let pooler = counted(&database.name, &[&gates[0], &gates[1]]).start();
    let clients = pooler.hold(6);
    assert_eq!(gates.each_ref().map(Gate::connections), [3, 3]);
    drop(clients);
}

#[test]
fn without_balancing_a_host_stays_until_it_cannot_be_reached() {
    let database = Database::new();
    let gates = [Gate::before(database.port), Gate::before(database.port)];
    let pooler = counted(&database.name, &[&gates[0], &gates[1]])
        .database("load_balance_hosts = \"disable\"")
        .setting("server_connect_timeout = 0")
        .start();
    let mut clients = pooler.hold(3);
    assert_eq!(gates.each_ref().map(Gate::connections), [3, 0]);
    gates[0].shut();
    clients.extend(pooler.hold(1));
    assert_eq!(gates.each_ref().map(Gate::connections), [4, 1]);
    gates[0].open();
    clients.extend(pooler.hold(3));
    assert_eq!(gates.each_ref().map(Gate::connections), [4, 4]);
}

/// Without a limit, who waited for the silent one would wait for ever.
#[test]
fn hosts_that_refuse_or_do_not_answer_are_passed_over_and_come_back() {
    let database = Database::new();
    let silent = Gate::before(database.port);
    silent.shut();
    let pooler = at(&database.name, &[free_port().unwrap(), silent.port, database.port])
        .setting("server_connect_timeout = 0")
        .setting("server_login_retry = 1")
        .start();
    let clients = pooler.hold(6);
    assert_eq!(database.server_count(), 6);
    let log = pooler.log();
    assert!(log.contains("this host is passed over: server connection to 127.0.0.1:"), "{log}");
    assert!(log.contains("this host is passed over: it does not answer"), "{log}");
    // None of the clients was told, nor has the pool as a whole failed.
    assert!(!log.contains("server login failed"), "{log}");
    drop(clients);
    silent.open();
    let reached = wait_until(PATIENCE, || {
        pooler.admin().sql("RECONNECT");
        let before = silent.connections();
        drop(pooler.hold(3));
        (silent.connections() > before && pooler.console("SHOW SERVERS").len() >= 3).then_some(())
    });
    assert!(reached.is_some(), "{}", pooler.log());
}

#[test]
fn when_no_host_can_be_reached_clients_wait_and_go_on_when_one_is() {
    let database = Database::new();
    let ports = [free_port().unwrap(), free_port().unwrap()];
    let pooler = at(&database.name, &ports).setting("client_login_timeout = 60").start();
    let waiting = {
        let (port, name) = (pooler.port, database.name.clone());
        std::thread::spawn(move || {
            Raw::login(port, "app", &name, &password_of("app")).sql("SELECT 'in time'")
        })
    };
    pooler.wait_for_log("server login failed");
    let _gate = Gate::at("127.0.0.1", ports[1], database.port);
    assert_eq!(waiting.join().unwrap(), ["in time"]);
}

/// What a server says of the login itself is told, although another host could not be reached.
#[test]
fn what_a_server_says_is_told() {
    let database = Database::new();
    let pooler = at("nowhere", &[database.port, free_port().unwrap()]).start();
    let error = Raw::open(pooler.port).try_login("app", "nowhere", &password_of("app"), &[]).unwrap_err();
    assert_eq!(error.field(b'C'), "3D000");
}

/// H36: the request goes where the connection goes to.
#[test]
fn cancel_requests_go_to_the_host_of_their_connection() {
    let two = Two::new();
    let pooler = two.setup().start();
    let mut clients = pooler.hold(2);
    let mut ports: Vec<u16> = clients.iter_mut().map(port_of).collect();
    for client in &mut clients {
        client.send(&query("SELECT pg_sleep(600)"));
        let sleeping = "SELECT count(*) > 0 FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' \
            AND state = 'active' AND datname = current_database()";
        let sleeps = || two.database.sql(sleeping)[0] == "t" || two.sql_at_second(sleeping)[0] == "t";
        assert!(wait_until(PATIENCE, || sleeps().then_some(())).is_some());
        client.cancel();
        assert_eq!(client.ready(1)[1].field(b'C'), "57014");
    }
    ports.sort_unstable();
    let mut expected = two.ports;
    expected.sort_unstable();
    assert_eq!(ports, expected);
}

/// H22, H28: settings are those of the client whatever the host's own are, and statements are there.
#[test]
fn settings_and_statements_follow_from_host_to_host() {
    let two = Two::new();
    let name = &two.database.name;
    two.sql_at_second(&format!("ALTER DATABASE {name} SET TimeZone = 'Asia/Tokyo'"));
    two.sql_at_second(&format!("ALTER DATABASE {name} SET work_mem = '8MB'"));
    let pooler = two.setup().setting("server_round_robin = true").setting("workers = 1").start();
    // One server at each.
    drop(pooler.hold(2));
    let mut client = pooler.connect_with(&[("TimeZone", "Europe/Paris"), ("application_name", "wanderer")]);
    client.sql("SET work_mem = '5MB'");
    let settings =
        "current_setting('TimeZone'), current_setting('work_mem'), current_setting('application_name')";
    client.send_all(&[parse("p", &format!("SELECT inet_server_port(), {settings}")), sync()]);
    client.ready(1);
    let mut seen = Vec::new();
    for _ in 0..6 {
        client.send_all(&[bind("p", &[]), execute(), sync()]);
        let frames = client.ready(1);
        let mut values =
            frames.iter().find(|frame| frame.tag == b'D').unwrap().values().into_iter().flatten();
        seen.push(values.next().unwrap());
        assert_eq!(values.collect::<Vec<_>>(), ["Europe/Paris", "5MB", "wanderer"]);
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 2, "{seen:?}");
    // Whoever is told one host's time zone has it at the other, too.
    let mut plain = pooler.connect();
    let told = vec![plain.parameter("TimeZone").unwrap().to_owned()];
    for _ in 0..4 {
        assert_eq!(plain.sql("SHOW TimeZone"), told);
    }
}

/// A function is harmless at one host and leaves a setting at the other: each has a catalog of its own.
#[test]
fn what_functions_leave_is_told_by_the_catalog_of_their_host() {
    let two = Two::new();
    two.database.sql("CREATE FUNCTION f(text) RETURNS text LANGUAGE sql AS $$ SELECT $1 $$");
    two.sql_at_second(
        "CREATE FUNCTION f(text) RETURNS text LANGUAGE sql AS $$ SELECT set_config('app.tenant', $1, false) $$",
    );
    let pooler = two.setup().setting("server_round_robin = true").setting("workers = 1").start();
    drop(pooler.hold(2));
    // From the first request on: nobody gets a server whose host has not been looked at.
    let (mut client, mut other) = (pooler.connect(), pooler.connect());
    let tenant =
        "SELECT inet_server_port(), coalesce(nullif(current_setting('app.tenant', true), ''), 'none')";
    let mut left = 0;
    for round in 0..8 {
        let asked = client.sql(&format!("SELECT inet_server_port(), f('r{round}')"));
        let second = asked[0].starts_with(&two.ports[1].to_string());
        left += usize::from(second);
        let last = |rows: Vec<String>| rows[0].split('|').nth(1).unwrap().to_owned();
        for _ in 0..2 {
            assert_eq!(last(other.sql(tenant)), "none", "round {round}");
        }
        if second {
            for _ in 0..2 {
                assert_eq!(last(client.sql(tenant)), format!("r{round}"));
            }
        }
    }
    assert!(left > 0 && left < 8, "{left}");
}

/// Nobody knows whether what is notified at one host is heard at another: servers listen themselves.
#[test]
fn who_listens_keeps_its_server_and_hears_what_is_notified_there() {
    let two = Two::new();
    let pooler = two.setup().start();
    let mut client = pooler.connect();
    client.sql("LISTEN news");
    assert_eq!(pooler.pinned().len(), 1);
    assert!(pooler.console("SHOW LISTENERS").is_empty());
    let port = port_of(&mut client);
    let notify = "NOTIFY news, 'heard'";
    if port == two.ports[0] {
        two.database.sql(notify)
    } else {
        two.sql_at_second(notify)
    };
    let frames = client.until(b'A');
    assert_eq!(frames.last().unwrap().tag, b'A');
}

#[test]
fn users_are_looked_up_at_whichever_host_answers() {
    let database = Database::new();
    database.sql("CREATE TABLE secrets AS SELECT 'app'::text AS name, 'looked up'::text AS secret");
    database.sql("GRANT SELECT ON secrets TO trust_user");
    let silent = Gate::before(database.port);
    silent.shut();
    let pooler = at(&database.name, &[free_port().unwrap(), silent.port, database.port])
        .own_users()
        .setting("auth_user = \"trust_user\"")
        .setting("auth_query = \"SELECT name, secret FROM secrets WHERE name = $1\"")
        .setting("server_connect_timeout = 0")
        .database("user = \"trust_user\"")
        .start();
    let mut client = Raw::login(pooler.port, "app", &database.name, "looked up");
    assert_eq!(client.sql("SELECT current_user"), ["trust_user"]);
}

/// S47: the same list keeps connections, another one gives them up.
#[test]
fn reload_with_other_hosts_gives_up_connections_and_with_the_same_keeps_them() {
    let database = Database::new();
    let gates = [Gate::before(database.port), Gate::before(database.port), Gate::before(database.port)];
    let pooler = counted(&database.name, &[&gates[0], &gates[1]]).start();
    let pids = |pooler: &Pooler| {
        let mut pids: Vec<String> =
            pooler.hold(2).iter_mut().map(|client| client.sql("SELECT pg_backend_pid()").remove(0)).collect();
        pids.sort();
        pids
    };
    let before = pids(&pooler);
    pooler.admin().sql("RELOAD");
    assert_eq!(pids(&pooler), before);
    pooler.edit(&gates[1].port.to_string(), &gates[2].port.to_string());
    pooler.admin().sql("RELOAD");
    let after = pids(&pooler);
    assert!(after.iter().all(|pid| !before.contains(pid)), "{before:?} {after:?}");
    assert_eq!(gates.each_ref().map(Gate::connections), [2, 1, 1]);
    pooler.edit("host = [", "load_balance_hosts = \"disable\"\nhost = [");
    pooler.admin().sql("RELOAD");
    assert!(pids(&pooler).iter().all(|pid| !after.contains(pid)));
    assert_eq!(gates[2].connections(), 1);
}

#[test]
fn console_shows_hosts_and_how_they_are_balanced() {
    let database = Database::new();
    let pooler = at(&database.name, &[database.port, 1]).start();
    pooler.connect().sql("SELECT 1");
    let value = |command: &str, column: &str| {
        let rows = pooler.console(command);
        let is_own = |row: &&Vec<(String, String)>| row.iter().any(|(_, value)| *value == database.name);
        let row = rows.iter().find(is_own).unwrap().clone();
        row.into_iter().find(|(name, _)| name == column).unwrap().1
    };
    assert_eq!(value("SHOW DATABASES", "host"), "127.0.0.1,127.0.0.1:1");
    assert_eq!(value("SHOW DATABASES", "load_balance_hosts"), "round-robin");
    assert_eq!(value("SHOW POOLS", "load_balance_hosts"), "round-robin");
}

#[test]
fn abstract_unix_sockets_are_reached() {
    let name = format!("pooler-test-{}", free_port().unwrap());
    let mut cluster = start(&options(Version::Distribution));
    let directory = cluster.dir().display().to_string();
    cluster.primary.configure(&format!("unix_socket_directories = '{directory}, @{name}'")).unwrap();
    cluster.primary.stop();
    cluster.primary.start().unwrap();
    let entry = format!("host = \"@{name}\"\nport = {}\nuser = \"postgres\"", cluster.primary.port);
    let pooler = Setup::nodes("postgres", &[]).entry(&entry).start();
    assert_eq!(pooler.connect().sql("SELECT inet_server_port() IS NULL"), ["t"]);
    let sockets = fs::read_to_string("/proc/net/unix").unwrap();
    assert!(sockets.contains(&format!("@{name}/.s.PGSQL.{}", cluster.primary.port)), "{sockets}");
    let servers = pooler.console("SHOW SERVERS");
    let address = servers[0].iter().find(|(column, _)| column == "addr").unwrap();
    assert_eq!(address.1, format!("@{name}"));
}
