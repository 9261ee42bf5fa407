//! `pooler init`: what it writes passes the checks, pooler starts with it, and psql works.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Output, Stdio},
};

use pooler::demo::process::{Guarded, TempDir, free_port, wait_until};

use crate::support::{
    database::{Database, Version, certificates, options, password_of, start, superuser},
    pooler::Setup,
    raw::PATIENCE,
    replicated::{DATABASE, Replicated},
};

const POOLER: &str = env!("CARGO_BIN_EXE_pooler");

/// Runs it in a directory, with nothing in the environment but what is given.
fn run(dir: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(POOLER);
    command.args(arguments).current_dir(dir).stdin(Stdio::null()).env_clear();
    command.env("PATH", std::env::var_os("PATH").unwrap()).envs(variables.iter().copied());
    command.output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

fn url(database: &Database, user: &str) -> String {
    let password = password_of(user).replace(' ', "%20");
    format!("postgres://{user}:{password}@127.0.0.1:{}/{}", database.port, database.name)
}

fn read(dir: &Path, name: &str) -> String {
    fs::read_to_string(dir.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn init(dir: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> String {
    let output = run(dir, &[&["init"], arguments].concat(), variables);
    assert!(output.status.success(), "{}", said(&output));
    assert!(!said(&output).contains("secret of"), "{}", said(&output));
    said(&output)
}

fn fails(dir: &Path, arguments: &[&str], variables: &[(&str, &str)], parts: &[&str]) {
    let output = run(dir, &[&["init"], arguments].concat(), variables);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.starts_with("pooler init: ") && text.contains("\n  "), "{text}");
    for part in parts {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(!text.contains("secret of") && !text.contains("wr0ng"), "{text}");
}

/// Both checks find nothing, and clients are served.
fn assert_serves(dir: &Path, port: u16, user: &str, password: &str, databases: &[&str]) {
    for arguments in [&["check"][..], &["check", "--connect"]] {
        let output = run(dir, arguments, &[]);
        let text = said(&output);
        assert!(output.status.success(), "{text}\n{}", read(dir, "pooler.toml"));
        assert!(text.contains(" 0 warnings)"), "{text}\n{}", read(dir, "pooler.toml"));
    }
    let log = dir.join("log");
    let config = dir.join("pooler.toml");
    let arguments = [POOLER, "-c", config.to_str().unwrap()];
    let mut process = Guarded::spawn(None, &arguments, &log, "INT").unwrap();
    let up = wait_until(PATIENCE, || {
        (fs::read_to_string(&log).unwrap_or_default().contains("process up") || process.ended().is_some())
            .then_some(())
    });
    assert!(up.is_some() && process.ended().is_none(), "{}", read(dir, "log"));
    let psql = |user: &str, database: &str, password: &str, sql: &str| {
        let port = port.to_string();
        let arguments = ["-X", "-At", "-h", "127.0.0.1", "-p", &port, "-U", user, "-d", database, "-c", sql];
        let output =
            Command::new("psql").args(arguments).env("PGPASSWORD", password).stdin(Stdio::null()).output();
        said(&output.unwrap())
    };
    for database in databases {
        let sql = "SELECT current_user || ' ' || current_database()";
        assert_eq!(psql(user, database, password, sql), format!("{user} {database}\n"));
    }
    let admin = read(dir, "admin.password");
    assert_eq!(admin.trim().len(), 48);
    assert!(psql("admin", "pooler", admin.trim(), "SHOW POOLS").contains(user));
    assert!(psql(user, databases[0], "wrong", "SELECT 1").contains("authentication failed"));
    assert_eq!(process.stop().unwrap().code(), Some(0));
}

#[test]
fn what_it_writes_passes_the_checks_and_serves_clients() {
    // A cluster of its own: every database is written down.
    let cluster = start(&options(Version::Distribution));
    let mut admin = superuser(&cluster, "postgres");
    for sql in [
        "CREATE DATABASE shop OWNER app",
        "CREATE DATABASE \"two words ${X}\"",
        "CREATE DATABASE pgbouncer",
        "CREATE DATABASE closed",
        "REVOKE CONNECT ON DATABASE closed FROM PUBLIC",
    ] {
        admin.sql(sql);
    }
    let url = |user: &str| {
        format!("postgres://{user}:secret%20of%20{user}@127.0.0.1:{}/shop", cluster.primary.port)
    };
    let dir = TempDir::new(None).unwrap();
    let port = free_port().unwrap();
    let listen = format!("127.0.0.1:{port}");
    let said = init(dir.path(), &[&url("app"), "--listen", &listen, "--cores", "2"], &[]);
    assert!(said.starts_with("Wrote app.password, admin.password, pooler.toml.\n"), "{said}");
    assert!(said.contains(&format!("psql -h 127.0.0.1 -p {port} -U app shop\n")), "{said}");
    let toml = read(dir.path(), "pooler.toml");
    for part in [
        "(max_connections), 3 of them reserved: 197 for all users.",
        "With 2 cores more than about 10 connections at work",
        "\ndefault_pool_size = 10\n",
        "# The server has TLS.",
        "server_tls_sslmode = \"require\"",
        "admin_users = [\"admin\"]",
        "[databases.shop]\nhost = \"127.0.0.1\"\n",
        "[databases.\"two words ${X}\"]",
        "[databases.pgbouncer_database]\nhost = \"127.0.0.1\"",
        "dbname = \"pgbouncer\"",
        "password_file = \"app.password\"",
        "# For the console: not known to PostgreSQL.",
    ] {
        assert!(toml.contains(part), "{part} in\n{toml}");
    }
    assert!(
        !toml.contains("secret of") && !toml.contains("closed") && !toml.contains(".postgres]"),
        "{toml}"
    );
    for file in ["app.password", "admin.password"] {
        let mode = fs::metadata(dir.path().join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    assert_eq!(read(dir.path(), "app.password"), "secret of app\n");
    assert_serves(dir.path(), port, "app", &password_of("app"), &["shop", "two words ${X}"]);

    // What is there stays, unless it is to go.
    let before = read(dir.path(), "admin.password");
    fails(dir.path(), &[&url("app")], &[], &["pooler.toml is there already", "--force"]);
    fails(dir.path(), &[&url("other"), "-o", "other.toml"], &[], &["admin.password is there already"]);
    assert!(!dir.path().join("other.toml").exists() && !dir.path().join("other.password").exists());
    assert_eq!((read(dir.path(), "admin.password"), read(dir.path(), "pooler.toml")), (before.clone(), toml));
    init(dir.path(), &[&url("other"), "--force"], &[]);
    assert_ne!(read(dir.path(), "admin.password"), before);
}

#[test]
fn postgresql_is_named_by_options_or_the_environment() {
    let database = Database::new();
    let dir = TempDir::new(None).unwrap();
    let (port, password) = (database.port.to_string(), password_of("app"));
    let libpq = [
        ("PGHOST", "127.0.0.1"),
        ("PGPORT", &port),
        ("PGUSER", "app"),
        ("PGDATABASE", &database.name),
        ("PGPASSWORD", &password),
    ];
    let named = format!("[databases.{}]\nhost = \"127.0.0.1\"\nport = {port}\n", database.name);
    init(dir.path(), &["-o", "a.toml"], &libpq);
    assert!(read(dir.path(), "a.toml").contains(&named));

    let both = [&libpq[..], &[("DATABASE_URL", "postgres://nobody@127.0.0.1:1/x")]].concat();
    let options =
        ["--host", "127.0.0.1", "-p", &port, "-U", "app", "-d", &database.name, "--force", "-o", "a.toml"];
    init(dir.path(), &options, &both);
    assert!(read(dir.path(), "a.toml").contains(&named));
    fails(dir.path(), &["-o", "b.toml"], &both, &["127.0.0.1:1, user nobody", "start PostgreSQL there"]);

    // The password file of libpq.
    let pgpass = dir.path().join("pgpass");
    fs::write(&pgpass, format!("127.0.0.1:{port}:*:app:{password}\n")).unwrap();
    fs::set_permissions(&pgpass, fs::Permissions::from_mode(0o600)).unwrap();
    let file = [("PGPASSFILE", pgpass.to_str().unwrap())];
    let no_password = format!("postgres://app@127.0.0.1:{port}/{}?sslmode=disable", database.name);
    init(dir.path(), &[&no_password, "-o", "-"], &file);
    fails(dir.path(), &[&no_password, "-o", "c.toml"], &[], &["pooler has no password", "PGPASSWORD"]);

    // To standard output, where no secret goes.
    let text = init(dir.path(), &[&url(&database, "app"), "-o", "-"], &[]);
    assert!(
        text.contains("password = \"${APP_PASSWORD}\"") && text.contains("password = \"${ADMIN_PASSWORD}\""),
        "{text}"
    );
    let certs = certificates().display();
    let full = format!("{}?sslmode=verify-full", url(&database, "app"));
    let text = init(dir.path(), &[&full, "-o", "-"], &[("PGSSLROOTCERT", &format!("{certs}/ca.crt"))]);
    assert!(text.contains("server_tls_sslmode = \"verify-full\"\nserver_tls_ca_file = \""), "{text}");
}

#[test]
fn mistakes_name_the_remedy_and_leave_nothing_behind() {
    let database = Database::new();
    let dir = TempDir::new(None).unwrap();
    let wrong = format!("postgres://app:wr0ng@127.0.0.1:{}/{}", database.port, database.name);
    for (arguments, parts) in [
        (vec![wrong.as_str()], ["password authentication failed", "ALTER ROLE app PASSWORD"]),
        (vec!["mysql://app:wr0ng@h/d"], ["does not start with postgres://", "write postgres://"]),
        (vec![&*url(&database, "app"), "--listen", "x:y"], ["--listen", "127.0.0.1:6432"]),
        (
            vec![&*url(&database, "app"), "--node", "127.0.0.1:1"],
            ["--node 127.0.0.1:1", "that this machine reaches"],
        ),
        (
            vec![&*url(&database, "app"), "-o", "no/where.toml"],
            ["cannot write no/", "make the directory first"],
        ),
    ] {
        fails(dir.path(), &arguments, &[], &parts);
    }
    let primary = format!("127.0.0.1:{}", database.port);
    // The primary itself is no further node.
    let pooler = Setup::new(&database).start();
    let through = format!("postgres://app:secret%20of%20app@127.0.0.1:{}/pooler", pooler.port);
    fails(dir.path(), &[&through], &[], &[]);
    init(dir.path(), &[&url(&database, "app"), "--node", &primary, "-o", "-"], &[]);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn replicas_are_found_or_named_and_what_cannot_be_reached_is_said() {
    let cluster = Replicated::start(1, &[]);
    cluster.catch_up_all();
    let (first, second) = (cluster.node(0).port, cluster.node(1).port);
    let of = |port: u16| format!("postgres://app:secret%20of%20app@127.0.0.1:{port}/{DATABASE}");
    let dir = TempDir::new(None).unwrap();
    // Its port is not one that could be guessed.
    let text = init(dir.path(), &[&of(first), "-o", "-"], &[]);
    assert!(text.contains("# There is a replica") && text.contains("pooler init --node HOST:PORT"), "{text}");
    assert!(text.contains(&format!("# nodes = [\"127.0.0.1:{first}\", \"REPLICA:5432\"]")), "{text}");
    let port = free_port().unwrap();
    let (listen, node) = (format!("127.0.0.1:{port}"), format!("127.0.0.1:{second}"));
    init(dir.path(), &[&of(first), "--node", &node, "--listen", &listen], &[]);
    let toml = read(dir.path(), "pooler.toml");
    assert!(
        toml.contains(&format!("nodes = [\n    \"127.0.0.1:{first}\",\n    \"127.0.0.1:{second}\",\n]")),
        "{toml}"
    );
    assert!(!toml.contains("There is a replica"), "{toml}");
    assert_serves(dir.path(), port, "app", &password_of("app"), &[DATABASE]);

    // A replica leads to its primary, as far as it says where that is.
    let sender = cluster.sql(1, "SELECT sender_host, sender_port FROM pg_stat_wal_receiver").remove(0);
    let output = run(dir.path(), &["init", &of(second), "-o", "-"], &[]);
    let expected = if output.status.success() {
        format!("at {}:{first}", sender.split('|').next().unwrap())
    } else {
        "is a replica; its primary".to_owned()
    };
    assert!(said(&output).contains(&expected), "{expected} in {}", said(&output));
    cluster.sql(0, "REVOKE pg_monitor FROM app");
    cluster.catch_up_all();
    fails(
        dir.path(),
        &[&of(second), "-o", "-"],
        &[],
        &["is a replica, and does not tell app", "name the primary"],
    );
    let text = init(dir.path(), &[&of(first), "-o", "-"], &[]);
    assert!(text.contains("is hidden from app: GRANT pg_monitor"), "{text}");
}
