//! What a reload changes.

use super::*;

const OLD: &str =
    "[pooler]\nlisten_port=7000\n[databases.a]\nhost='h'\n[databases.b]\nhost='h'\n[users.u]\n[users.v]\n";

fn diff(new: &str) -> Diff {
    Config::diff(&load(OLD).unwrap().config, &load(new).unwrap().config)
}

#[test]
fn the_same_file_changes_nothing() {
    assert!(diff(OLD).is_empty());
    assert!(
        diff(&OLD.replace("[databases.a]\n", "[databases.a]\ndbname='a'\n")).databases_to_recycle.is_empty()
    );
}

#[test]
fn other_peers_are_noticed() {
    let peers = |host: &str| {
        OLD.replace("[pooler]\n", "[pooler]\npeer_id=1\n") + &format!("[peers.2]\nhost='{host}'\n")
    };
    let (one, other) = (load(&peers("a")).unwrap().config, load(&peers("b")).unwrap().config);
    assert!(Config::diff(&one, &one).is_empty());
    assert!(Config::diff(&one, &other).peers_changed);
}

#[test]
fn only_another_way_to_the_server_recycles_connections() {
    for line in [
        "port=1",
        "dbname='x'",
        "user='x'",
        "connect_query='x'",
        "timezone='UTC'",
        "server_tls_sslmode='require'",
    ] {
        let diff = diff(&OLD.replace("[databases.a]\n", &format!("[databases.a]\n{line}\n")));
        assert_eq!(diff.databases_to_recycle, ["a"], "{line}");
        assert_eq!(diff.databases_changed, Vec::<String>::new(), "{line}");
    }
    for line in ["pool_size=5", "password='x'", "pool_mode='session'", "server_lifetime=5"] {
        let diff = diff(&OLD.replace("[databases.a]\n", &format!("[databases.a]\n{line}\n")));
        assert_eq!(diff.databases_changed, ["a"], "{line}");
        assert_eq!(diff.databases_to_recycle, Vec::<String>::new(), "{line}");
    }
}

#[test]
fn a_change_of_server_tls_recycles_who_uses_it() {
    let new = OLD.replace("[databases.a]\n", "[databases.a]\nserver_tls_sslmode='prefer'\n");
    let new = new.replace("[pooler]\n", "[pooler]\nserver_tls_sslmode='require'\n");
    assert_eq!(diff(&new).databases_to_recycle, ["b"]);
    let dir = Dir::new();
    let ca = format!("[pooler]\nserver_tls_ca_file='{}'\n", dir.file("ca.pem", "").display());
    assert_eq!(diff(&OLD.replace("[pooler]\n", &ca)).databases_to_recycle, ["a", "b"]);
}

#[test]
fn what_comes_and_goes_is_named() {
    let diff = diff(
        "[pooler]\nlisten_port=7001\nworkers=2\npool_mode='session'\n\
         [databases.b]\nhost='h'\n[databases.c]\nhost='h'\n[users.v]\npool_size=1\n[users.w]\n",
    );
    let expected = Diff {
        databases_added: vec!["c".to_owned()],
        databases_removed: vec!["a".to_owned()],
        databases_to_recycle: vec![],
        databases_changed: vec![],
        users_added: vec!["w".to_owned()],
        users_removed: vec!["u".to_owned()],
        users_changed: vec!["v".to_owned()],
        peers_changed: false,
        settings_changed: vec!["pool_mode"],
        needs_restart: vec!["listen_port", "workers"],
    };
    assert_eq!(diff, expected);
}

#[test]
fn settings_that_need_a_restart_stay_as_they_run() {
    let running = settings("listen_port = 7000\npool_mode = 'session'");
    let mut new = settings("listen_port = 7001\npool_mode = 'statement'");
    new.keep_restart_settings(&running);
    assert_eq!((new.listen_port, new.pool_mode), (7000, PoolMode::Statement));
}
