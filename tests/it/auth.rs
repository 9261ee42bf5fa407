//! Who gets in, and how pooler gets in at PostgreSQL: every method with every kind of stored secret.

use std::process::Command;

use pooler::demo::{cluster::ClusterOptions, process::wait_until};

use crate::support::{
    compare::Pair,
    database::{Database, ROLES, Version, options, password_of, shared, start, superuser},
    msg::*,
    pooler::{Pooler, Setup},
    raw::{PATIENCE, Raw, startup},
};

fn shared_sql(sql: &str) -> Vec<String> {
    superuser(shared(Version::Distribution), "postgres").sql(sql)
}

/// What `pg_authid` stores for a role.
fn stored(role: &str) -> String {
    shared_sql(&format!("SELECT rolpassword FROM pg_authid WHERE rolname = '{role}'")).swap_remove(0)
}

fn user(name: &str, secret: &str) -> String {
    format!("[users.{name}]\npassword = \"{secret}\"\n")
}

fn login(pooler: &Pooler, user: &str, password: &str) -> Result<Raw, Frame> {
    let mut raw = Raw::open(pooler.port);
    raw.try_login(user, &pooler.database, password, &[]).map(|()| raw)
}

/// First authentication request that a user meets: 0 none, 3 clear text, 5 MD5, 10 SASL.
fn asked(pooler: &Pooler, user: &str) -> u32 {
    let mut raw = Raw::open(pooler.port);
    raw.send(&startup(3 << 16, &[("user", user), ("database", &pooler.database)]));
    let frame = raw.frame();
    assert_eq!(frame.tag, b'R', "{frame:?}");
    u32::from_be_bytes(frame.body[..4].try_into().unwrap())
}

/// Plain password, MD5 hash and SCRAM secret, under each auth_type that can use them; the server's own method is
/// SCRAM (`scram_user`) or MD5 (`md5_user`).
#[test]
fn every_auth_type_takes_every_secret_that_it_can_check() {
    let database = Database::new();
    let (scram, md5) = (stored("scram_user"), stored("md5_user"));
    assert!(scram.starts_with("SCRAM-SHA-256$") && md5.starts_with("md5"));
    let plain_of = |role: &str| password_of(role);
    // auth_type, user, stored secret, what is asked for
    let cases = [
        ("trust", "scram_user", plain_of("scram_user"), 0),
        ("plain", "scram_user", plain_of("scram_user"), 3),
        ("plain", "scram_user", scram.clone(), 3),
        ("plain", "md5_user", md5.clone(), 3),
        ("md5", "scram_user", plain_of("scram_user"), 5),
        ("md5", "md5_user", md5.clone(), 5),
        ("md5", "scram_user", scram.clone(), 10),
        ("scram-sha-256", "scram_user", plain_of("scram_user"), 10),
        ("scram-sha-256", "scram_user", scram.clone(), 10),
    ];
    for (auth_type, role, secret, expected) in cases {
        let pooler = Setup::new(&database)
            .own_users()
            .setting(&format!("auth_type = \"{auth_type}\""))
            .section(&user(role, &secret))
            .start();
        let name = format!("{auth_type} {role} {}", &secret[..4]);
        if expected > 0 {
            assert_eq!(asked(&pooler, role), expected, "{name}");
            let refused = login(&pooler, role, "wrong").unwrap_err();
            assert_eq!(refused.field(b'C'), "28P01", "{name}");
        }
        let mut client = login(&pooler, role, &password_of(role)).unwrap_or_else(|e| panic!("{name}: {e:?}"));
        assert_eq!(client.sql("SELECT current_user"), [role], "{name}");
    }
}

#[test]
fn md5_hash_cannot_answer_for_scram() {
    let database = Database::new();
    let pooler = Setup::new(&database).own_users().section(&user("md5_user", &stored("md5_user"))).start();
    // As an unknown user: what the list holds is nobody's business.
    let refused = login(&pooler, "md5_user", &password_of("md5_user")).unwrap_err();
    let unknown = login(&pooler, "nobody_known", "x").unwrap_err();
    assert_eq!(refused.field(b'M').replace("md5_user", "nobody_known"), unknown.field(b'M'));
    assert_eq!(refused.field(b'C'), "28P01");
}

#[test]
fn every_method_of_the_server_is_answered_with_the_stored_password() {
    let database = Database::new();
    let pooler = Setup::new(&database).start();
    for (role, method) in ROLES {
        let mut client =
            login(&pooler, role, &password_of(role)).unwrap_or_else(|e| panic!("{method}: {e:?}"));
        assert_eq!(client.sql("SELECT current_user"), [role], "{method}");
    }
}

/// No password is stored anywhere: the client's proof opens the server, also for servers that are opened later.
#[test]
fn scram_passes_through_without_a_stored_password() {
    let database = Database::new();
    let setup = || Setup::new(&database).own_users().section(&user("scram_user", &stored("scram_user")));
    let pooler = setup().start();
    let connect = || login(&pooler, "scram_user", &password_of("scram_user")).unwrap();
    let mut clients: Vec<Raw> = (0..4).map(|_| connect()).collect();
    for client in &mut clients {
        client.sql("BEGIN");
    }
    assert_eq!(database.server_count(), 4);
    drop(clients);
    // All servers gone and nobody logs in: the keys of the last login are still good.
    let mut late = connect();
    database.terminate("scram_user");
    let again = wait_until(PATIENCE, || late.try_sql("SELECT 'again'").ok());
    assert_eq!(again.unwrap(), ["again"]);

    // Over psql and TLS, where the client binds the channel, it passes through too.
    let pooler = setup().tls("require").start();
    let output = Command::new("psql")
        .args(["-XAt", "-c", "SELECT current_user", "-d"])
        .arg(format!(
            "host=127.0.0.1 port={} dbname={} user=scram_user sslmode=require channel_binding=require",
            pooler.port, pooler.database
        ))
        .env("PGPASSWORD", password_of("scram_user"))
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "scram_user\n", "{output:?}");
}

#[test]
fn secret_of_another_salt_is_told_apart_from_a_wrong_password() {
    let database = Database::new();
    // The right password, but a secret that the server does not have.
    let pooler = Setup::new(&database).own_users().section(&user("scram_user", &other_secret())).start();
    let error = login(&pooler, "scram_user", "pencil").unwrap_err();
    assert_eq!(error.field(b'C'), "28P01", "{error:?}");
    assert!(error.field(b'M').contains("scram_user"), "the server's own words: {error:?}");
    // What pooler itself refuses does not get as far as the server.
    let attempts = || pooler.log().matches("server login failed").count();
    let before = attempts();
    let error = login(&pooler, "scram_user", "wrong").unwrap_err();
    assert_eq!((error.field(b'C').as_str(), attempts()), ("28P01", before), "{error:?}");
}

/// Of `pencil` (RFC 7677), with a salt that no server of the tests uses.
fn other_secret() -> String {
    "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:\
     wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
        .to_owned()
}

#[test]
fn clear_text_of_the_client_opens_the_server() {
    let database = Database::new();
    let pooler = Setup::new(&database)
        .own_users()
        .setting("auth_type = \"plain\"")
        .section(&user("scram_user", &stored("scram_user")))
        .section(&user("md5_user", &stored("md5_user")))
        .start();
    for role in ["scram_user", "md5_user"] {
        let mut client = login(&pooler, role, &password_of(role)).unwrap();
        assert_eq!(client.sql("SELECT current_user"), [role]);
    }
}

/// S46: the same messages in the same order, with the same lengths.
#[test]
fn unknown_user_and_wrong_password_give_the_same_transcript() {
    let database = Database::new();
    for auth_type in ["plain", "md5", "scram-sha-256"] {
        let pooler = Setup::new(&database).setting(&format!("auth_type = \"{auth_type}\"")).start();
        let transcript = |user: &str, database: &str| {
            let mut raw = Raw::open(pooler.port);
            let error = raw.try_login(user, database, "wrong", &[]).unwrap_err();
            let shape: Vec<(u8, usize)> = raw
                .received
                .iter()
                .map(|frame| (frame.tag, frame.body.len() + 10 - frame_name(frame, user)))
                .collect();
            (shape, error.field(b'C'), error.field(b'M').replace(user, "USER"))
        };
        let known = transcript("app", &pooler.database);
        assert_eq!(transcript("nix", &pooler.database), known, "{auth_type}");
        assert_eq!(transcript("app", "no_such_database"), known, "{auth_type}");
        assert_eq!(transcript("nix", "no_such_database"), known, "{auth_type}");
        assert_eq!(known.0.last().map(|(tag, _)| *tag), Some(b'E'));
    }
}

/// How much longer a message is for naming the user.
fn frame_name(frame: &Frame, user: &str) -> usize {
    if frame.tag == b'E' && frame.field(b'M').contains(user) { user.len() } else { 0 }
}

/// The salt that an unknown user is shown must not change, or it would tell.
#[test]
fn unknown_user_is_shown_one_salt() {
    let pair = Pair::new();
    let salt = |user: &str| {
        let mut raw = Raw::open(pair.pooler.port);
        raw.send(&startup(3 << 16, &[("user", user), ("database", &pair.database.name)]));
        raw.frame();
        let first = b"n,,n=,r=0123456789";
        raw.send(&build(b'p', |b| {
            b.extend(b"SCRAM-SHA-256\0");
            b.extend(u32::try_from(first.len()).unwrap().to_be_bytes());
            b.extend(first);
        }));
        let challenge = String::from_utf8(raw.frame().body[4..].to_vec()).unwrap();
        challenge.split(',').nth(1).unwrap().to_owned()
    };
    assert_eq!(salt("nobody_known"), salt("nobody_known"));
    assert_ne!(salt("nobody_known"), salt("nobody_else"));
    assert_eq!(salt("app"), salt("app"));
}

/// S46, S52: clients get the server's own error, and the server is asked seldom.
#[test]
fn wrong_server_password_is_not_tried_in_a_loop() {
    let mut options = ClusterOptions { tls: None, client_ca: None, ..options(Version::Distribution) };
    options.conf.push("log_connections = on".to_owned());
    let cluster = start(&options);
    let mut pooler = Pooler::start(&format!(
        "[pooler]\nlisten_addr = \"127.0.0.1\"\nlisten_port = @PORT@\nauth_type = \"trust\"\nserver_login_retry = 60\n\
         [databases.postgres]\nhost = \"127.0.0.1\"\nport = {}\n[users.app]\npassword = \"not this one\"\n",
        cluster.primary.port
    ));
    pooler.database = "postgres".to_owned();
    let errors: Vec<Frame> = std::thread::scope(|scope| {
        let logins: Vec<_> =
            (0..20).map(|_| scope.spawn(|| login(&pooler, "app", "").unwrap_err())).collect();
        logins.into_iter().map(|login| login.join().unwrap()).collect()
    });
    for error in errors {
        assert_eq!(error.field(b'C'), "28P01", "{error:?}");
        assert_eq!(error.field(b'M'), "password authentication failed for user \"app\"");
    }
    let attempts = || cluster.primary.log().matches("password authentication failed").count();
    // Those that came at once may have made several attempts at once, each client none of its own.
    assert!((1..=8).contains(&attempts()), "{}", attempts());

    // A reload with the right password serves the next client at once.
    pooler.rewrite(&pooler.toml().replace("not this one", &password_of("app")));
    pooler.signal("HUP");
    let served = wait_until(PATIENCE, || login(&pooler, "app", "").ok());
    assert_eq!(served.unwrap().sql("SELECT current_user"), ["app"]);
}

/// The server's own error, with its fields, for each reason that it has.
#[test]
fn waiting_clients_get_the_real_error_of_the_server() {
    let database = Database::new();
    let direct = |database_name: &str| {
        Raw::open(database.port).try_login("app", database_name, &password_of("app"), &[]).unwrap_err()
    };
    let pooler = Setup::new(&database)
        .section(&format!("[databases.absent]\nhost = \"127.0.0.1\"\nport = {}\n", database.port))
        .start();
    let refused = Raw::open(pooler.port).try_login("app", "absent", &password_of("app"), &[]).unwrap_err();
    let expected = direct("absent");
    for field in *b"CM" {
        assert_eq!(refused.field(field), expected.field(field));
    }

    shared_sql(&format!("REVOKE CONNECT ON DATABASE {} FROM PUBLIC, app", database.name));
    shared_sql(&format!("ALTER DATABASE {} OWNER TO postgres", database.name));
    let refused = login(&pooler, "app", &password_of("app")).unwrap_err();
    let expected = direct(&database.name);
    assert_eq!(expected.field(b'C'), "42501");
    for field in *b"CMD" {
        assert_eq!(refused.field(field), expected.field(field));
    }
}

#[test]
fn missing_server_password_says_what_to_do() {
    let database = Database::new();
    let pooler = Setup::new(&database)
        .own_users()
        .setting("auth_type = \"trust\"")
        .section("[users.scram_user]\n")
        .start();
    let error = login(&pooler, "scram_user", "").unwrap_err();
    assert_eq!(error.field(b'C'), "28000");
    assert!(error.field(b'M').contains("wrong password type"), "{error:?}");
    assert!(error.field(b'D').contains("no password"), "{error:?}");
    assert!(error.field(b'H').contains("auth_file"), "{error:?}");
}

/// Hashing a password takes long on purpose; whoever is logged in must not feel it.
#[test]
fn hashing_does_not_run_on_workers() {
    let database = Database::new();
    let pooler = Setup::new(&database)
        .setting("scram_iterations = 200000")
        .setting("client_login_timeout = \"5min\"")
        .start();
    // The plain password of the list is hashed before the client is asked for its proof.
    assert_eq!(asked(&pooler, "other"), 10);
    let (workers, others) = processor_time(pooler.pid());
    assert!(others > 10 && workers * 4 < others, "{workers} ticks of workers, {others} of other threads");
}

/// Processor time that the workers of a pooler have used, and its other threads.
fn processor_time(pid: u32) -> (u64, u64) {
    let (mut workers, mut others) = (0, 0);
    for thread in std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten() {
        let Ok(stat) = std::fs::read_to_string(thread.path().join("stat")) else { continue };
        let (name, numbers) = stat.rsplit_once(") ").unwrap();
        let ticks = numbers.split(' ').skip(11).take(2).map(|text| text.parse::<u64>().unwrap()).sum::<u64>();
        if name.contains("pooler-worker") { workers += ticks } else { others += ticks }
    }
    (workers, others)
}
