//! The ground under the other tests: clusters, logins, the client, and that nothing stays behind.

use std::{path::Path, process::Command, time::Duration};

use pooler::demo::process::{Guarded, TempDir, wait_until};

use crate::support::{
    database::{Database, ROLES, Version, options, password_of, start},
    msg::*,
    raw::{PATIENCE, Raw},
};

#[test]
fn every_role_logs_in_by_its_method() {
    let database = Database::new();
    for (role, _) in ROLES {
        assert_eq!(database.connect_as(role).sql("SELECT current_user"), [role]);
    }
}

#[test]
fn wrong_password_is_refused_with_its_sqlstate() {
    let database = Database::new();
    for role in ["scram_user", "md5_user", "plain_user"] {
        let refused = Raw::open(database.port).try_login(role, &database.name, "wrong", &[]);
        assert_eq!(refused.unwrap_err().field(b'C'), "28P01", "{role}");
    }
}

#[test]
fn postgresql_18_runs_and_reports_search_path() {
    let database = Database::of(Version::V18);
    let mut client = database.connect();
    assert!(client.parameter("server_version").unwrap().starts_with("18"));
    assert_eq!(client.parameter("search_path"), Some("\"$user\", public"));
    assert_eq!(client.sql("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"), ["f"]);
    assert_eq!(client.sql("SHOW ssl"), ["on"]);
}

#[test]
fn client_keeps_every_message_in_order() {
    let mut client = Database::new().connect();
    client.send_all(&[
        parse("a", "SELECT $1::int4 AS x"),
        bind("a", &[Some("7")]),
        describe_portal(""),
        execute(),
        bind("b", &[]),
        sync(),
    ]);
    client.ready(1);
    assert_eq!(
        client.received.iter().map(|frame| format!("{frame:?}")).collect::<Vec<_>>(),
        [
            "ParseComplete",
            "BindComplete",
            "RowDescription [(\"x\", 23)]",
            "DataRow 7",
            "CommandComplete SELECT 1",
            "ErrorResponse ERROR 26000 prepared statement \"b\" does not exist",
            "ReadyForQuery I",
        ]
    );
}

#[test]
fn cancel_ends_the_running_query() {
    let database = Database::new();
    let mut client = database.connect();
    client.send(&query("SELECT pg_sleep(60)"));
    database.wait_for("SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'", &["1"]);
    client.cancel();
    assert_eq!(client.ready(1)[1].field(b'C'), "57014");
}

#[test]
fn replica_follows_in_both_versions_and_a_crashed_primary_comes_back() {
    for version in [Version::Distribution, Version::V18] {
        let mut cluster = start(&pooler::demo::cluster::ClusterOptions { replica: true, ..options(version) });
        let port = cluster.replica.as_ref().unwrap().port;
        let mut primary = Raw::login(cluster.primary.port, "app", "postgres", &password_of("app"));
        primary.sql("CREATE TEMP TABLE writable (x int)");
        // The role came by replication: it was made after the copy.
        let replica = wait_until(PATIENCE, || {
            let mut raw = Raw::open(port);
            raw.try_login("app", "postgres", &password_of("app"), &[]).ok().map(|()| raw)
        });
        assert_eq!(replica.unwrap().sql("SELECT pg_is_in_recovery()"), ["t"], "{version:?}");
        cluster.primary.crash().unwrap();
        primary.closed();
        cluster.primary.start().unwrap();
        let mut primary = Raw::login(cluster.primary.port, "app", "postgres", &password_of("app"));
        assert_eq!(primary.sql("SELECT pg_is_in_recovery()"), ["f"]);
    }
}

#[test]
fn guarded_child_and_its_directory_go_when_the_owner_is_killed() {
    let dir = TempDir::new(None).unwrap();
    let log = dir.path().join("log");
    let child = Guarded::spawn(None, &["sleep", "600"], &log, "TERM").unwrap();
    let running = Path::new("/proc").join(child.pid().to_string());
    assert!(running.exists());
    // What the death of the owner does: all its descriptors close.
    drop(child);
    let path = dir.path().to_owned();
    drop(dir);
    assert!(
        wait_until(Duration::from_secs(5), || (!running.exists() && !path.exists()).then_some(())).is_some()
    );
}

#[test]
fn guarded_child_gives_its_exit_status() {
    let dir = TempDir::new(None).unwrap();
    let mut child = Guarded::spawn(None, &["sh", "-c", "exit 7"], &dir.path().join("log"), "TERM").unwrap();
    assert_eq!(child.wait(PATIENCE).and_then(|status| status.code()), Some(7));
}

#[test]
fn psql_is_there() {
    assert!(Command::new("psql").arg("--version").status().expect("run scripts/install.sh").success());
}
