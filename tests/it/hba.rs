//! auth_hba_file, and the auth_types that ask for no password.

use std::{
    fs,
    process::{Command, Output},
};

use pooler::demo::process::TempDir;

use crate::support::{
    database::{Database, certificates, password_of},
    pooler::{Pooler, Setup},
    raw::Raw,
};

fn psql(pooler: &Pooler, host: &str, user: &str, more: &str) -> String {
    let string = format!("host={host} port={} user={user} dbname={} {more}", pooler.port, pooler.database);
    let output: Output = Command::new("psql")
        .args(["-X", "-At", "-w", "-d", &string, "-c", "SELECT current_user"])
        .env("PGPASSWORD", password_of(user))
        .env("HOME", "/nowhere")
        .output()
        .expect("psql: run scripts/install.sh");
    let text = if output.status.success() { &output.stdout } else { &output.stderr };
    String::from_utf8_lossy(text).trim().to_owned()
}

fn who_runs_this() -> String {
    let output = Command::new("id").arg("-un").output().unwrap();
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// A pooler that knows every role, with these rules and maps.
fn start(database: &Database, rules: &str, maps: &str) -> (Pooler, TempDir) {
    let dir = certificates();
    let name = |what: &str| dir.join(format!("{what}-of-{}", database.name));
    let (hba, ident) = (name("hba"), name("ident"));
    fs::write(&hba, rules).unwrap();
    fs::write(&ident, maps).unwrap();
    let sockets = TempDir::new(None).unwrap();
    let pooler = Setup::new(database)
        .tls("prefer")
        .setting(&format!("auth_type = \"hba\"\nauth_hba_file = \"{}\"", hba.display()))
        .setting(&format!(
            "auth_ident_file = \"{}\"\nunix_socket_dir = \"{}\"",
            ident.display(),
            sockets.path().display()
        ))
        .start();
    (pooler, sockets)
}

#[test]
fn the_first_rule_that_fits_says_how_clients_prove_who_they_are() {
    let database = Database::new();
    let me = who_runs_this();
    let (pooler, sockets) = start(
        &database,
        &format!(
            "host all admin all scram-sha-256\n\
             hostssl {name} app all cert\n\
             hostnossl {name} app 127.0.0.1/32 scram-sha-256\n\
             host all other all reject\n\
             host all trust_user 127.0.0.0 255.0.0.0 trust\n\
             host all plain_user all password\n\
             hostssl all scram_user all cert map=certs\n\
             hostssl all md5_user all cert\n\
             local all app peer map=people\n\
             local all plain_user peer\n",
            name = database.name
        ),
        &format!("people {me} app\ncerts app scram_user\n"),
    );
    let socket = sockets.path().display().to_string();
    let certs = certificates().display();
    let cert = format!("sslmode=require sslcert={certs}/client.crt sslkey={certs}/client.key");
    let named = cert.replace("client.crt", "named.crt");
    for (host, user, more, expected) in [
        ("127.0.0.1", "app", "sslmode=disable", "app"),
        ("127.0.0.1", "app", named.as_str(), "app"),
        ("127.0.0.1", "scram_user", &named, "scram_user"),
        ("127.0.0.1", "md5_user", &named, "certificate authentication failed"),
        ("127.0.0.1", "md5_user", &cert, "certificate authentication failed"),
        ("127.0.0.1", "app", cert.as_str(), "app"),
        ("127.0.0.1", "app", "sslmode=require", "certificate authentication failed"),
        ("127.0.0.1", "scram_user", &cert, "scram_user"),
        ("127.0.0.1", "scram_user", "sslmode=disable", "no authentication method is found"),
        ("127.0.0.1", "other", "sslmode=disable", "login rejected"),
        ("127.0.0.1", "trust_user", "sslmode=disable", "trust_user"),
        ("127.0.0.1", "plain_user", "sslmode=disable", "plain_user"),
        ("127.0.0.1", "md5_user", "sslmode=disable", "no authentication method is found"),
        (&socket, "app", "", "app"),
        (&socket, "plain_user", "", "unix socket login rejected"),
        (&socket, "trust_user", "", "no authentication method is found"),
    ] {
        let got = psql(&pooler, host, user, more);
        assert!(
            got == expected
                || got.ends_with(&format!("FATAL:  {expected}"))
                || got.contains(&format!("FATAL:  {expected}\n")),
            "{host} {user} {more}: {got}"
        );
    }
    // With a password that is wrong, and one that nobody asks for.
    assert!(Raw::open(pooler.port).try_login("plain_user", &database.name, "wrong", &[]).is_err());
    assert!(Raw::open(pooler.port).try_login("trust_user", &database.name, "wrong", &[]).is_ok());

    let hba = certificates().join(format!("hba-of-{}", database.name));
    fs::write(&hba, "host all admin all scram-sha-256\nhost all other all md5\n").unwrap();
    pooler.admin().sql("RELOAD");
    assert_eq!(psql(&pooler, "127.0.0.1", "other", ""), "other");
    assert!(psql(&pooler, "127.0.0.1", "app", "").contains("no authentication method is found"));
    // A bad file changes nothing.
    fs::write(&hba, "host all +everybody all trust\n").unwrap();
    let refused = pooler.admin().try_sql("RELOAD").unwrap_err();
    assert!(refused.field(b'D').contains(":1: \"+everybody\" is not supported"), "{}", refused.field(b'D'));
    assert_eq!(psql(&pooler, "127.0.0.1", "other", ""), "other");
}

#[test]
fn rules_count_as_soon_as_the_console_says_so() {
    let database = Database::new();
    let hba = certificates().join(format!("set-of-{}", database.name));
    fs::write(&hba, "host all admin all scram-sha-256\nhost all app all reject\n").unwrap();
    let pooler = Setup::new(&database).start();
    let mut admin = pooler.admin();
    assert_eq!(psql(&pooler, "127.0.0.1", "app", ""), "app");
    let refused = admin.try_sql("SET auth_type = 'hba'").unwrap_err();
    assert!(refused.field(b'D').contains("there is no auth_hba_file"), "{}", refused.field(b'D'));
    assert_eq!(psql(&pooler, "127.0.0.1", "app", ""), "app");
    admin.sql(&format!("SET auth_hba_file = '{}'", hba.display()));
    admin.sql("SET auth_type = 'hba'");
    assert!(psql(&pooler, "127.0.0.1", "app", "").contains("login rejected"));
    assert_eq!(pooler.admin().sql("SHOW VERSION").len(), 1);
}

#[test]
fn any_lets_everybody_in_where_a_database_has_a_user_of_its_own() {
    let database = Database::new();
    let entry = format!(
        "[databases.own]\nhost = \"127.0.0.1\"\nport = {}\ndbname = \"{}\"\nuser = \"app\"\npassword = \"{}\"",
        database.port,
        database.name,
        password_of("app")
    );
    let pooler = Setup::new(&database).setting("auth_type = \"any\"").section(&entry).start();
    let mut anybody = Raw::login(pooler.port, "whoever", "own", "");
    assert_eq!(anybody.sql("SELECT current_user"), ["app"]);
    let refused = Raw::open(pooler.port).try_login("whoever", &database.name, "", &[]).unwrap_err();
    assert_eq!(refused.field(b'C'), "28000");
    let mut console = Raw::login(pooler.port, "whoever", "pooler", "");
    assert_eq!(console.sql("SHOW VERSION").len(), 1);
    assert_eq!(console.try_sql("RELOAD").unwrap_err().field(b'M'), "admin access needed");
}

#[test]
fn certificates_are_proof_only_if_they_are_verified() {
    let database = Database::new();
    let certs = certificates().display();
    let pooler = Setup::new(&database).tls("verify-full").setting("auth_type = \"cert\"").start();
    let with = |name: &str| format!("sslmode=require sslcert={certs}/{name}.crt sslkey={certs}/client.key");
    assert_eq!(psql(&pooler, "127.0.0.1", "app", &with("client")), "app");
    assert!(
        psql(&pooler, "127.0.0.1", "other", &with("client")).contains("certificate authentication failed")
    );
    let stranger = psql(&pooler, "127.0.0.1", "app", &with("stranger"));
    assert!(!stranger.starts_with("app"), "{stranger}");
}
