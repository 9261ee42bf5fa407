//! auth_query: users whom only PostgreSQL knows.

use crate::support::{
    database::{Database, password_of},
    pooler::{Pooler, Setup},
    raw::Raw,
};

/// How roles without rights of their own read secrets, as in PgBouncer's documentation.
const FUNCTION: &str = "CREATE FUNCTION user_lookup(i text, OUT uname text, OUT phash text) RETURNS record \
    LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog AS $$ \
    SELECT rolname, CASE WHEN rolvaliduntil < now() THEN NULL ELSE rolpassword END FROM pg_authid \
    WHERE rolname = i AND rolcanlogin $$";

/// A database in which `other` may look users up.
fn database() -> Database {
    let database = Database::new();
    database.sql(FUNCTION);
    database
}

/// A pooler that lists only `other`, who looks the others up, and `admin`.
fn setup(database: &Database, settings: &str) -> Setup {
    let auth_user = if settings.contains("auth_user") { "" } else { "auth_user = \"other\"" };
    let setup = Setup::new(database)
        .own_users()
        .setting(auth_user)
        .setting("auth_query = \"SELECT * FROM user_lookup($1)\"")
        .section(&format!("[users.other]\npassword = \"{}\"", password_of("other")));
    settings.lines().fold(setup, Setup::setting)
}

fn refusal(pooler: &Pooler, user: &str, password: &str, parameters: &[(&str, &str)]) -> String {
    let mut raw = Raw::open(pooler.port);
    match raw.try_login(user, &pooler.database, password, parameters) {
        Ok(()) => "logged in".to_owned(),
        Err(error) => format!("{} {}", error.field(b'C'), error.field(b'M')),
    }
}

fn role(database: &Database, name: &str, rest: &str) -> String {
    // Roles are those of the whole cluster.
    let name = format!("{name}_of_{}", database.name);
    database.sql(&format!("CREATE ROLE {name} LOGIN PASSWORD 'first' {rest}"));
    name
}

#[test]
fn users_in_no_list_are_looked_up() {
    let database = database();
    for auth_type in ["md5", "scram-sha-256", "plain"] {
        let pooler = setup(&database, &format!("auth_type = \"{auth_type}\"")).start();
        for user in ["app", "scram_user", "md5_user"] {
            if user == "md5_user" && auth_type == "scram-sha-256" {
                continue;
            }
            let mut client = Raw::login(pooler.port, user, &database.name, &password_of(user));
            assert_eq!(client.sql("SELECT current_user"), [user], "{auth_type}");
            let refused = refusal(&pooler, user, "wrong", &[]);
            assert!(
                refused.starts_with("28P01 password authentication failed for user"),
                "{auth_type}: {refused}"
            );
        }
        let unknown = refusal(&pooler, "nobody_at_all", "wrong", &[]);
        assert_eq!(unknown, "28P01 password authentication failed for user \"nobody_at_all\"", "{auth_type}");
        let long = "x".repeat(100);
        assert!(refusal(&pooler, &long, "wrong", &[]).starts_with("28P01 "), "{auth_type}");
    }
}

/// CVE-2025-2291: a password that has expired is none.
#[test]
fn expired_passwords_and_roles_that_cannot_log_in_are_refused() {
    let database = database();
    let expired = role(&database, "expired", "VALID UNTIL '2000-01-01'");
    let valid = role(&database, "valid", "VALID UNTIL '2100-01-01'");
    let group = role(&database, "closed", "");
    database.sql(&format!("ALTER ROLE {group} NOLOGIN"));
    let pooler = setup(&database, "").start();
    assert!(refusal(&pooler, &expired, "first", &[]).starts_with("28P01 "));
    assert!(refusal(&pooler, &group, "first", &[]).starts_with("28P01 "));
    // What PostgreSQL itself says: it has to let the role in by this address.
    let admitted = refusal(&pooler, &valid, "first", &[]);
    assert!(admitted.contains("no pg_hba.conf entry") || admitted == "logged in", "{admitted}");
}

/// CVE-2025-12819: nothing that a client sends reaches the session that asks.
#[test]
fn parameters_of_clients_do_not_reach_the_question() {
    let database = database();
    database.sql("CREATE SCHEMA evil");
    database.sql(
        "CREATE FUNCTION evil.user_lookup(i text, OUT uname text, OUT phash text) LANGUAGE sql AS $$ SELECT i, 'evil' $$",
    );
    database.sql("GRANT USAGE ON SCHEMA evil TO other");
    let pooler = setup(&database, "auth_type = \"plain\"").start();
    for parameters in
        [("search_path", "evil"), ("options", "-c search_path=evil"), ("options", "--search_path=evil")]
    {
        let refused = refusal(&pooler, "app", "evil", &[parameters]);
        assert!(refused.starts_with("28P01 "), "{refused}");
        assert_eq!(refusal(&pooler, "app", &password_of("app"), &[parameters]), "logged in");
    }
}

#[test]
fn answers_count_for_their_lifetime_and_until_somebody_cannot_prove_them() {
    let database = database();
    let outcome = |pooler: &Pooler, user: &str, password: &str| {
        // The server's own word counts as a success: pooler has let the client in.
        let refused = refusal(pooler, user, password, &[]);
        if refused.starts_with("28P01 password authentication failed for user") { "wrong" } else { "right" }
    };
    let user = role(&database, "changing", "");
    let kept = setup(&database, "auth_query_lifetime = \"1h\"").start();
    let asked = setup(&database, "auth_query_lifetime = 0").start();
    for pooler in [&kept, &asked] {
        assert_eq!(outcome(pooler, &user, "first"), "right");
    }
    database.sql(&format!("ALTER ROLE {user} PASSWORD 'second'"));
    assert_eq!(outcome(&asked, &user, "first"), "wrong");
    assert_eq!(outcome(&asked, &user, "second"), "right");
    assert_eq!(outcome(&kept, &user, "first"), "right", "for an hour");
    assert_eq!(outcome(&kept, &user, "second"), "wrong", "which is not what was found");
    assert_eq!(outcome(&kept, &user, "second"), "right", "after another look");
    database.sql(&format!("ALTER ROLE {user} PASSWORD 'third'"));
    kept.admin().sql("RELOAD");
    assert_eq!(outcome(&kept, &user, "third"), "right", "a reload forgets");
}

#[test]
fn lookups_outlive_their_session_and_their_failures_are_told_to_the_log_alone() {
    let database = database();
    let pooler = setup(&database, "auth_query_lifetime = 0").start();
    assert_eq!(refusal(&pooler, "app", &password_of("app"), &[]), "logged in");
    let ended = database.sql(&format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'other' AND datname = '{}' \
         AND application_name = 'pooler'",
        database.name
    ));
    assert_eq!(ended, ["1"], "one session asks");
    assert_eq!(refusal(&pooler, "app", &password_of("app"), &[]), "logged in");
    database.sql("DROP FUNCTION user_lookup");
    assert_eq!(refusal(&pooler, "app", &password_of("app"), &[]), "57P03 the user cannot be looked up");
    pooler.wait_for_log("auth_query failed in database");
    pooler.wait_for_log("function user_lookup(unknown) does not exist");
    database.sql(FUNCTION);
    assert_eq!(refusal(&pooler, "app", &password_of("app"), &[]), "logged in");
    database.sql("DROP FUNCTION user_lookup");
    database.sql("CREATE FUNCTION user_lookup(text) RETURNS text LANGUAGE sql AS $$ SELECT 'app' $$");
    assert_eq!(refusal(&pooler, "app", &password_of("app"), &[]), "57P03 the user cannot be looked up");
    pooler.wait_for_log("expected 2 columns, not 1");
}

#[test]
fn strangers_do_not_find_out_which_databases_there_are() {
    let database = database();
    let star = format!("[databases.\"*\"]\nhost = \"127.0.0.1\"\nport = {}", database.port);
    let pooler = setup(&database, "").section(&star).start();
    for name in [database.name.as_str(), "no_such_database_1", "no_such_database_2"] {
        let refused = Raw::open(pooler.port).try_login("app", name, "wrong", &[]).unwrap_err();
        let told = (refused.field(b'C'), refused.field(b'M'));
        let expected = ("28P01".to_owned(), "password authentication failed for user \"app\"".to_owned());
        assert_eq!(told, expected, "{name}");
    }
}

#[test]
fn databases_have_lookups_of_their_own_and_the_console_that_of_auth_dbname() {
    let (database, empty) = (database(), Database::new());
    let entry = |name: &str, rest: &str| {
        format!(
            "[databases.{name}]\nhost = \"127.0.0.1\"\nport = {}\ndbname = \"{}\"\n{rest}",
            empty.port, empty.name
        )
    };
    let pooler = setup(&database, "auth_user = \"\"\nstats_users = [\"app\"]")
        .database("auth_user = \"other\"")
        .section(&entry("elsewhere", &format!("auth_user = \"other\"\nauth_dbname = \"{}\"", database.name)))
        .section(&entry("alone", ""))
        .section(&entry("forced", &format!(
            "auth_user = \"other\"\nauth_query = \"SELECT $1::text, 'of all'\"\nuser = \"app\"\npassword = \"{}\"",
            password_of("app")
        )))
        .start();
    let login = |name: &str, password: &str| {
        let mut raw = Raw::open(pooler.port);
        raw.try_login("app", name, password, &[]).map(|()| raw).map_err(|error| error.field(b'C'))
    };
    let secret = password_of("app");
    assert!(login(&database.name, &secret).is_ok());
    assert_eq!(login("elsewhere", &secret).unwrap().sql("SELECT current_database()"), [empty.name.as_str()]);
    assert_eq!(login("alone", &secret).unwrap_err(), "28P01");
    assert_eq!(login("forced", "of all").unwrap().sql("SELECT current_user"), ["app"]);
    assert_eq!(login("forced", &secret).unwrap_err(), "28P01");
    assert_eq!(login("pooler", &secret).unwrap_err(), "28P01", "there is nobody to ask for the console");
    assert_eq!(login("no_such_database", &secret).unwrap_err(), "28P01");
    pooler
        .edit("auth_user = \"\"\n", &format!("auth_user = \"other\"\nauth_dbname = \"{}\"\n", database.name));
    pooler.admin().sql("RELOAD");
    assert_eq!(login("pooler", &secret).unwrap().sql("SHOW VERSION").len(), 1);
    assert_eq!(login("no_such_database", &secret).unwrap_err(), "3D000");
}
