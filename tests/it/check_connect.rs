//! `pooler check --connect`: what a configuration leads to, and what would fail there.

use std::{
    fs,
    process::{Command, Output, Stdio},
};

use pooler::demo::process::{TempDir, free_port};

use crate::support::{
    database::{Database, certificates, password_of},
    replicated::Replicated,
};

/// What it says, and its exit code.
fn checked(toml: &str) -> (String, Option<i32>) {
    let dir = TempDir::new(None).unwrap();
    let file = dir.path().join("pooler.toml");
    fs::write(&file, toml).unwrap();
    let output: Output = Command::new(env!("CARGO_BIN_EXE_pooler"))
        .args(["check", "--connect", "-c", file.to_str().unwrap()])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned();
    // Of nobody.
    assert!(!text.contains("secret of") && !text.contains("wr0ng"), "{text}");
    (text, output.status.code())
}

fn assert_says(toml: &str, code: i32, parts: &[&str]) -> String {
    let (text, exit) = checked(toml);
    assert_eq!(exit, Some(code), "{text}");
    for part in parts {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    text
}

fn user(name: &str) -> String {
    format!("[users.{name}]\npassword = \"{}\"\n", password_of(name))
}

/// A configuration for the database.
fn toml(database: &Database, settings: &str, entry: &str, rest: &str) -> String {
    format!(
        "[pooler]\nadmin_users = [\"admin\"]\n{settings}\n[databases.{}]\nhost = \"127.0.0.1\"\nport = {}\n{entry}\n\
         {}[users.admin]\npassword = \"wr0ng\"\n{rest}\n",
        database.name,
        database.port,
        user("app")
    )
}

#[test]
fn what_works_is_told_with_the_servers_and_their_users() {
    let database = Database::new();
    let users = ["scram_user", "md5_user", "plain_user", "trust_user"].map(user).concat();
    let text = assert_says(
        &toml(&database, "max_db_connections = 50", "", &users),
        0,
        &[
            "primary, PostgreSQL 1",
            ", TLS\n",
            "users who get in: app, md5_user, plain_user, scram_user, trust_user\n",
            // The console's user need not be known to PostgreSQL.
            "note: users of the console who are let in by no database, or not by all: admin\n",
            "(0 errors, 0 warnings)\n",
        ],
    );
    assert!(
        text.contains("may take 50 connections") && text.contains("max_connections 200, 3 of them"),
        "{text}"
    );
    // A mistake in the file itself is told as ever, and nobody is asked.
    let text = assert_says("[pooler]\nlisten_port = 0\n", 1, &["invalid value for listen_port"]);
    assert!(!text.contains("logins"), "{text}");
}

#[test]
fn what_would_fail_is_told_with_a_remedy() {
    let database = Database::new();
    let nobody = free_port().unwrap();
    let closed = format!("[databases.closed]\nhost = \"127.0.0.1\"\nport = {nobody}\n");
    let missing = format!("[databases.missing]\nhost = \"127.0.0.1\"\nport = {}\n", database.port);
    let wrong = "[users.other]\npassword = \"wr0ng\"\n";
    let unknown = "[databases.unknown]\nhost = \"no-such-host.invalid\"\n";
    assert_says(
        &toml(&database, "", "", &[&closed, &missing, wrong, unknown].concat()),
        1,
        &[
            &format!(
                "error: 127.0.0.1:{nobody} (database closed): server connection to 127.0.0.1:{nobody} failed"
            ),
            "  start PostgreSQL there, let it listen on this address (listen_addresses), or correct host and port\n",
            &format!(
                "error: database missing at 127.0.0.1:{}: database \"missing\" does not exist\n",
                database.port
            ),
            "  CREATE DATABASE missing, or say with `dbname`",
            "error: user other, database missing",
            "password authentication failed for user \"other\"",
            "ALTER ROLE other PASSWORD",
            "error: no-such-host.invalid:5432 (database unknown): ",
            "  check the name, or give an IP address\n",
        ],
    );
    // A database's own user is everybody's: its password counts.
    let own = format!("user = \"other\"\npassword = \"{}\"", password_of("other"));
    assert_says(&toml(&database, "", &own, ""), 0, &["users who get in: other\n"]);
    assert_says(
        &toml(&database, "", "user = \"other\"\npassword = \"wr0ng\"", ""),
        1,
        &["error: user other, database"],
    );
    // An md5 hash is of no use where SCRAM is asked for.
    let hash = "[users.scram_user]\npassword = \"md50123456789abcdef0123456789abcdef\"\n";
    assert_says(
        &toml(&database, "", "", hash),
        1,
        &["the server asks for a SCRAM proof; pooler has only an MD5 hash", "Set the user's plain password"],
    );
}

#[test]
fn rights_limits_and_settings_of_the_server_are_compared() {
    let database = Database::new();
    let (name, role) = (&database.name, format!("limited_{}", database.name));
    database.sql(&format!("CREATE ROLE {role} LOGIN PASSWORD 'secret of {role}' CONNECTION LIMIT 3"));
    database.sql(&format!("ALTER DATABASE {name} CONNECTION LIMIT 40"));
    database.sql(&format!("ALTER DATABASE {name} SET idle_session_timeout = '5min'"));
    let both = toml(&database, "", "", &user(&role));
    assert_says(
        &both,
        0,
        &[
            &format!(
                "warning: 127.0.0.1:{}: role {role} may have 3 connections, and its pools more\n",
                database.port
            ),
            "set max_user_connections = 3",
            &format!("database {name} may have 40 connections, and its pools more\n"),
            "sessions that are idle for 300 s are ended (idle_session_timeout)",
            "(0 errors, 3 warnings)",
        ],
    );
    let many = both.replace("[pooler]", "[pooler]\ndefault_pool_size = 150\nserver_idle_timeout = 60");
    assert_says(
        &many,
        0,
        &["the pools may take 310 connections, and the server has 197 (max_connections 200, 3"],
    );

    // Not everybody has to get in everywhere, but somebody has to.
    database.sql(&format!("REVOKE CONNECT ON DATABASE {name} FROM PUBLIC"));
    let elsewhere = format!("[databases.postgres]\nhost = \"127.0.0.1\"\nport = {}\n", database.port);
    let grant = format!("  GRANT CONNECT ON DATABASE {name} TO {role}\n");
    assert_says(&both, 1, &[&format!("error: user {role}, database {name} at"), "permission denied", &grant]);
    assert_says(
        &format!("{both}{elsewhere}"),
        0,
        &[&format!("warning: user {role}, database {name} at"), &grant],
    );
}

#[test]
fn tls_is_as_configured() {
    let database = Database::new();
    let certs = certificates().display();
    let with = |ca: &str| {
        let settings = format!(
            "server_tls_sslmode = \"verify-full\"\nserver_tls_ca_file = \"{certs}/{ca}.crt\"\nmax_db_connections = 50"
        );
        toml(&database, &settings, "", "")
    };
    assert_says(&with("ca"), 0, &[", TLS\n", "0 errors, 0 warnings"]);
    assert_says(
        &with("stranger_ca"),
        1,
        &[
            "TLS with the server failed: ",
            "Check server_tls_ca_file",
            "0 of 2 logins succeed (1 error, 0 warnings)",
        ],
    );
    assert_says(&toml(&database, "server_tls_sslmode = \"disable\"", "", ""), 0, &[", no TLS\n"]);
}

#[test]
fn auth_query_is_tried() {
    let database = Database::new();
    let query = "SELECT name, secret FROM lookup($1)";
    let of = |query: &str| {
        toml(
            &database,
            &format!("max_db_connections = 50\nauth_user = \"app\"\nauth_query = \"{query}\""),
            "",
            "",
        )
    };
    let plain = "SELECT rolname, rolpassword FROM pg_authid WHERE rolname=$1";
    assert_says(
        &of(plain),
        1,
        &[
            "error: auth_query in database ",
            ", as app: permission denied for ",
            "SECURITY DEFINER",
            "GRANT EXECUTE",
        ],
    );
    assert_says(&of(query), 1, &["function lookup(unknown) does not exist", "correct auth_query"]);
    database.sql(
        "CREATE FUNCTION lookup(INOUT name text, OUT secret text) LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog \
         AS 'SELECT rolname, rolpassword FROM pg_authid WHERE rolname = name'",
    );
    assert_says(&of(query), 0, &["2 of 2 logins succeed (0 errors, 0 warnings)"]);
    assert_says(&of("SELECT name FROM lookup($1)"), 1, &["auth_query answers with 1 columns, not with 2"]);
    assert_says(&of("SELECT 'root', secret FROM lookup($1)"), 1, &["auth_query answers about another user"]);
}

#[test]
fn roles_of_nodes_are_found_out() {
    let mut cluster = Replicated::start(1, &[]);
    cluster.catch_up_all();
    let port = |cluster: &Replicated, index: usize| cluster.node(index).port;
    let (first, second) = (port(&cluster, 0), port(&cluster, 1));
    let toml = |nodes: &[u16]| {
        let nodes: Vec<String> = nodes.iter().map(|port| format!("\"127.0.0.1:{port}\"")).collect();
        format!("[databases.replicated]\nnodes = [{}]\n{}", nodes.join(", "), user("app"))
    };
    let fine = assert_says(
        &toml(&[second, first]),
        0,
        &[
            &format!("replicated: 127.0.0.1:{first} primary, PostgreSQL 1"),
            &format!("replicated: 127.0.0.1:{second} replica, 0 bytes behind, PostgreSQL 1"),
            "2 of 2 logins succeed (0 errors, 0 warnings)",
        ],
    );
    // app may see all (pg_monitor).
    assert!(!fine.contains("pg_monitor"), "{fine}");
    cluster.sql(0, "REVOKE pg_monitor FROM app");
    cluster.catch_up_all();
    assert_says(&toml(&[first, second]), 0, &["GRANT pg_monitor TO app"]);

    // H22: what the same query may be answered otherwise by.
    cluster.configure(1, &["timezone = 'Asia/Tokyo'", "recovery_min_apply_delay = '5s'"]);
    assert_says(
        &toml(&[first, second]),
        0,
        &[
            "settings differ between ",
            "Asia/Tokyo",
            "the replica shows everything 5 s late (recovery_min_apply_delay)",
        ],
    );
    cluster.configure(1, &[]);

    assert_says(&toml(&[second]), 1, &["error: database replicated: no node that answers is a primary\n"]);
    let host = format!("[databases.replicated]\nhost = \"127.0.0.1\"\nport = {second}\n{}", user("app"));
    assert_says(&host, 0, &["takes no writes, it is a replica"]);

    cluster.promote(1);
    assert_says(
        &toml(&[first, second]),
        1,
        &["error: database replicated: 2 nodes take writes (", "on timeline 1", "on timeline 2"],
    );
    cluster.stop_fast(0);
    assert_says(
        &toml(&[first, second]),
        1,
        &[
            &format!("error: 127.0.0.1:{first} (database replicated): "),
            &format!("127.0.0.1:{second} primary"),
        ],
    );
    // A server that hangs is not waited for for ever.
    cluster.freeze(1);
    let impatient = format!("[pooler]\nserver_connect_timeout = 1\n{}", toml(&[second]));
    assert_says(&impatient, 1, &["took longer than 1 s", "nobody answers"]);
    cluster.thaw(1);
}
