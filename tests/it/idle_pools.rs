//! Pools and databases that nobody uses: dropped after a while, if wanted, and made anew when somebody comes.

use pooler::demo::process::wait_until;

use crate::support::{
    database::{Database, password_of},
    msg::*,
    pooler::{Pooler, Setup},
    raw::{PATIENCE, Raw},
};

/// Databases and users of the pools that there are, the console's aside.
fn pools(pooler: &Pooler) -> Vec<(String, String)> {
    let of = |row: &[(String, String)], name: &str| row.iter().find(|(n, _)| n == name).unwrap().1.clone();
    let rows = pooler.console("SHOW POOLS");
    let found = rows.iter().map(|row| (of(row, "database"), of(row, "user")));
    found.filter(|(database, _)| database != "pgbouncer").collect()
}

fn wait_for_pools(pooler: &Pooler, expected: &[(&str, &str)]) {
    let expected: Vec<_> = expected.iter().map(|(d, u)| ((*d).to_owned(), (*u).to_owned())).collect();
    let met = wait_until(PATIENCE, || (pools(pooler) == expected).then_some(()));
    assert!(met.is_some(), "{:?} and not {expected:?}\n{}", pools(pooler), pooler.log());
}

fn databases(pooler: &Pooler) -> Vec<String> {
    pooler.console("SHOW DATABASES").into_iter().map(|row| row[0].1.clone()).collect()
}

fn setup(database: &Database) -> Setup {
    Setup::new(database).setting("server_idle_timeout = 0.1")
}

#[test]
fn pools_without_clients_and_servers_are_dropped_and_come_back() {
    let database = Database::new();
    let name = database.name.as_str();
    let pooler = setup(&database).setting("pool_idle_timeout = 0.3").start();
    let mut stays = pooler.connect_as("other");
    stays.sql("SELECT 1");
    for _ in 0..2 {
        pooler.connect().sql("CREATE TEMP TABLE x (y int)");
        // Who is connected keeps its pool, although it does nothing and has no server.
        wait_for_pools(&pooler, &[(name, "other")]);
        pooler.wait_for_log(&format!(
            "cleaning up idle pool for user app on db {name} because: pool idle timeout"
        ));
    }
    assert_eq!(stays.sql("SELECT current_user"), ["other"]);
    // As the setting is now.
    pooler.admin().sql("SET pool_idle_timeout = 0");
    drop(stays);
    pooler.connect().sql("SELECT 1");
    database.wait_for("SELECT count(*) FROM pg_stat_activity WHERE usename IN ('app', 'other') AND application_name <> 'pooler'", &["0"]);
    let mut both = pools(&pooler);
    both.sort();
    assert_eq!(both, [(name.to_owned(), "app".to_owned()), (name.to_owned(), "other".to_owned())]);
    // Databases of the configuration stay in any case.
    let mut shown = databases(&pooler);
    shown.sort();
    assert_eq!(shown, ["pgbouncer", name]);
}

#[test]
fn databases_that_only_the_star_knows_are_dropped() {
    let (database, other) = (Database::new(), Database::new());
    let star = format!("[databases.\"*\"]\nhost = \"127.0.0.1\"\nport = {}", database.port);
    let pooler = setup(&database).section(&star).setting("autodb_idle_timeout = 0.3").start();
    let login = |name: &str| Raw::login(pooler.port, "app", name, &password_of("app"));
    let mut client = login(&other.name);
    client.sql("SELECT 1");
    pooler.connect().sql("SELECT 1");
    pooler.admin().sql(&format!("DISABLE {}", other.name));
    assert!(databases(&pooler).contains(&other.name));
    drop(client);
    pooler.wait_for_pool_of(&other.name, "app", "sv_idle", 0);
    assert!(databases(&pooler).contains(&other.name));
    pooler.admin().sql(&format!("ENABLE {}", other.name));
    // That of the configuration stays.
    wait_for_pools(&pooler, &[(&database.name, "app")]);
    assert!(!databases(&pooler).contains(&other.name));
    pooler.wait_for_log(&format!("dropping database '{}'", other.name));
    let mut back = login(&other.name);
    assert_eq!(back.sql("SELECT current_database()"), vec![other.name.clone()]);
    assert!(databases(&pooler).contains(&other.name));
}

/// By default pools stay.
#[test]
fn without_the_setting_pools_stay() {
    let database = Database::new();
    let pooler = setup(&database).start();
    pooler.connect().sql("SELECT 1");
    pooler.wait_for_log("closing because: server idle timeout");
    // More than one look later.
    database.sql("SELECT pg_sleep(1)");
    assert_eq!(pools(&pooler), [(database.name.clone(), "app".to_owned())]);
}

/// Clients that come and go while their pool is dropped over and over are served all the same, within pool_size.
#[test]
fn clients_that_come_at_the_moment_are_served() {
    let database = Database::new();
    let pooler = setup(&database)
        .setting("pool_idle_timeout = 0.001")
        .setting("server_lifetime = 0")
        .setting("default_pool_size = 2")
        .setting("workers = 2")
        .start();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for round in 0..40 {
                    let mut client = pooler.connect();
                    assert_eq!(client.sql(&format!("SELECT {round}")), [round.to_string()]);
                    client.send(&query("SELECT pg_sleep(0.02)"));
                    client.ready(1);
                }
            });
        }
    });
    wait_for_pools(&pooler, &[]);
    assert!(pooler.log().contains("cleaning up idle pool"));
}
