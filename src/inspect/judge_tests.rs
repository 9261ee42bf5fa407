//! Findings of outcomes.

use std::path::Path;

use super::{Facts, Login, Outcome, judge::judge, plan::plan, trouble::Trouble, verdict::Verdict};
use crate::{cluster::discovery::FoundBySource, config::Config, net::tls::ServerTls, server::ConnectError};

/// A primary without peculiarities.
fn facts() -> Facts {
    Facts {
        system: "1".to_owned(),
        timeline: 1,
        lsn: Some(1 << 30),
        version: 150_006,
        max_connections: 100,
        reserved: 3,
        monitors: true,
        ..Facts::default()
    }
}

fn replica() -> Facts {
    Facts { standby: true, streams: true, ..facts() }
}

fn login(facts: Facts) -> Result<Login, Trouble> {
    Ok(Login { encrypted: false, version: "15.6".to_owned(), facts: Ok(facts) })
}

/// What is found where each login, by its place and user, ends so.
fn found(toml: &str, end: impl Fn(&str, &str) -> Result<Login, Trouble>) -> Verdict {
    let config = Config::from_text(Path::new("p.toml"), toml, &|_| None).unwrap().config;
    let tls = ServerTls::build(&config.settings).unwrap().into();
    let plan = plan(&config, &tls, &FoundBySource::new());
    let logins = plan.attempts.into_iter().map(|attempt| {
        let result = end(&attempt.place.to_string(), &attempt.user);
        (attempt, result)
    });
    let outcome = Outcome { logins: logins.collect(), lookups: Vec::new() };
    judge(&config, &outcome, plan.notes, Vec::new())
}

/// Errors and warnings by the start of their messages, and nothing else; each has a remedy.
fn assert_found(verdict: &Verdict, errors: &[&str], warnings: &[&str]) {
    for (serious, expected) in [(true, errors), (false, warnings)] {
        let messages: Vec<&str> = verdict
            .findings
            .iter()
            .filter(|finding| finding.serious == serious)
            .map(|finding| finding.message.as_str())
            .collect();
        assert_eq!(messages.len(), expected.len(), "{messages:#?}");
        for part in expected {
            assert!(messages.iter().any(|message| message.contains(part)), "{part} in {messages:#?}");
        }
    }
    assert!(verdict.findings.iter().all(|finding| !finding.remedy.is_empty()));
    assert_eq!(verdict.would_fail(), !errors.is_empty());
}

const NODES: &str = "[databases.d]\nnodes = [\"a\", \"b\"]\n[users.u]\npassword = \"x\"\n";

fn nodes(a: Facts, b: Facts) -> Verdict {
    found(NODES, |place, _| login(if place == "a:5432" { a.clone() } else { b.clone() }))
}

#[test]
fn primary_and_replica_are_fine_and_are_told() {
    let verdict = nodes(facts(), Facts { lsn: Some((1 << 30) - 2048), replayed_ago: Some(3), ..replica() });
    assert_found(&verdict, &[], &[]);
    let text = verdict.text(Path::new("p.toml"));
    for part in [
        "d: a:5432 primary, PostgreSQL 15.6, no TLS\n",
        "d: b:5432 replica, 2 kB behind (the last commit it has is 3 s old)",
        "d: users who get in: u\n",
        "a:5432: 1 pool may take 25 connections, and pooler 3 for itself; the server has 97 (max_connections 100, 3 of them",
        "p.toml: 2 of 2 logins succeed (0 errors, 0 warnings)\n",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn roles_that_do_not_fit_are_errors() {
    assert_found(&nodes(replica(), replica()), &["no node that answers is a primary"], &[]);
    let behind = Facts { timeline: 2, ..facts() };
    assert_found(
        &nodes(facts(), behind),
        &["2 nodes take writes (a:5432 on timeline 1, b:5432 on timeline 2)"],
        &[],
    );
    let other = Facts { system: "2".to_owned(), ..replica() };
    assert_found(&nodes(facts(), other), &["its nodes are not one cluster"], &[]);
}

#[test]
fn replicas_that_get_old_are_warned_of() {
    assert_found(&nodes(facts(), Facts { streams: false, ..replica() }), &[], &["receives nothing"]);
    let far = Facts { lsn: Some((1 << 30) - (64 << 20)), ..replica() };
    assert_found(&nodes(facts(), far), &[], &["the replica is 64 MB behind"]);
    let read_only = Facts { read_only: true, ..facts() };
    assert_found(&nodes(read_only, replica()), &[], &["default_transaction_read_only is on at the primary"]);
    let verdict = nodes(Facts { monitors: false, ..facts() }, Facts { monitors: false, ..replica() });
    assert_found(&verdict, &[], &[]);
    assert!(verdict.notes.iter().any(|note| note.contains("GRANT pg_monitor TO u")), "{:?}", verdict.notes);
}

#[test]
fn nodes_that_answer_otherwise_are_warned_of() {
    let set = |facts: Facts, settings: &[&str], collation: &str| Facts {
        settings: settings.iter().map(|&text| text.to_owned()).collect(),
        collation: Some(collation.to_owned()),
        ..facts
    };
    let here = set(facts(), &["TimeZone=UTC", "search_path=public"], "2.36");
    assert_found(
        &nodes(here.clone(), set(replica(), &["TimeZone=UTC", "search_path=public"], "2.36")),
        &[],
        &[],
    );
    assert_found(
        &nodes(here, set(replica(), &["TimeZone=Europe/Berlin", "search_path=public"], "2.41")),
        &[],
        &[
            "settings differ between a:5432 and b:5432: TimeZone=UTC and Europe/Berlin",
            "sort by different versions of their library (2.36 and 2.41)",
        ],
    );
    let late = Facts { apply_delay: 3_600_000, ..replica() };
    assert_found(
        &nodes(facts(), late),
        &[],
        &["b:5432 (database d): the replica shows everything 3600 s late"],
    );
    // H21: standbys know no SERIALIZABLE.
    let strict = |facts: Facts| Facts { serializable: true, ..facts };
    assert_found(
        &nodes(strict(facts()), strict(replica())),
        &[],
        &[
            "user u, database d at b:5432: default_transaction_isolation is serializable, which replicas refuse",
        ],
    );
}

#[test]
fn versions_are_compared_with_what_is_tested_and_with_each_other() {
    let of = |version| Facts { version, ..facts() };
    let old = Facts { version: 130_002, ..replica() };
    assert_found(
        &nodes(of(130_002), old),
        &[],
        &["a:5432 (database d): PostgreSQL 13 is older", "b:5432 (database d): PostgreSQL 13 is older"],
    );
    let mixed = Facts { version: 180_000, ..replica() };
    assert_found(&nodes(facts(), mixed), &[], &["different versions (a:5432 has 15, b:5432 has 18)"]);
    // It has no function for the question.
    let verdict = found(NODES, |place, _| match place {
        "a:5432" => login(facts()),
        _ => {
            Ok(Login { encrypted: false, version: "9.6.24".to_owned(), facts: Err("no function".to_owned()) })
        }
    });
    assert_found(
        &verdict,
        &["b:5432 (database d): PostgreSQL 9 does not tell what nodes are asked for"],
        &["does not tell what it is: no function", "different versions"],
    );
}

#[test]
fn hosts_of_which_any_will_do_are_compared() {
    let toml = "[databases.d]\nhost = [\"a\", \"b\"]\n[users.u]\npassword = \"x\"\n";
    let verdict = found(toml, |place, _| login(if place == "a:5432" { facts() } else { replica() }));
    assert_found(&verdict, &[], &["1 of its hosts are replicas (b:5432)"]);
    let single = toml.replace("[\"a\", \"b\"]", "\"a\"");
    assert_found(&found(&single, |_, _| login(replica())), &[], &["a:5432 takes no writes"]);
    let other = |place: &str, _: &str| login(Facts { system: place.to_owned(), ..facts() });
    assert_found(&found(toml, other), &[], &["its hosts have data of their own each"]);
}

#[test]
fn room_is_compared_with_what_pools_may_take() {
    let toml = |settings: &str| {
        format!(
            "[pooler]\n{settings}\n[databases.d]\nhost = \"a\"\n[users.u]\npassword = \"x\"\n[users.v]\npassword = \"x\"\n"
        )
    };
    let small = |_: &str, _: &str| login(Facts { max_connections: 50, ..facts() });
    let verdict = found(&toml(""), small);
    assert_found(&verdict, &[], &["a:5432: the pools may take 50 connections, and the server has 47"]);
    assert!(verdict.findings[0].remedy.contains("no more than 22 "), "{}", verdict.findings[0].remedy);
    assert_found(&found(&toml("max_user_connections = 20"), small), &[], &[]);
    assert_found(
        &found(&toml("default_pool_size = 0"), small),
        &[],
        &["the pools may take any number of connections"],
    );

    let limited = |_: &str, user: &str| {
        let role_limit = if user == "u" { Some(4) } else { None };
        login(Facts { role_limit, database_limit: Some(30), ..facts() })
    };
    assert_found(
        &found(&toml(""), limited),
        &[],
        &["role u may have 4 connections", "database d may have 30 connections"],
    );
    let superuser = |_: &str, _: &str| login(Facts { superuser: true, role_limit: Some(4), ..facts() });
    assert_found(&found(&toml(""), superuser), &[], &[]);
}

#[test]
fn sessions_that_the_server_ends_are_warned_of() {
    let toml = |timeout: &str| {
        format!(
            "[pooler]\nserver_idle_timeout = {timeout}\n[databases.d]\nhost = \"a\"\n[users.u]\npassword = \"x\"\n"
        )
    };
    let ends = |_: &str, _: &str| login(Facts { idle_session_timeout: 60_000, ..facts() });
    for (timeout, warned) in [("600", true), ("0", true), ("60", true), ("59", false)] {
        let expected: &[&str] = if warned {
            &[
                "user u, database d at a:5432: sessions that are idle for 60 s are ended (idle_session_timeout)",
            ]
        } else {
            &[]
        };
        assert_found(&found(&toml(timeout), ends), &[], expected);
    }
}

#[test]
fn same_trouble_is_told_once_and_operators_need_not_be_known_to_servers() {
    let toml = "[pooler]\nadmin_users = [\"admin\"]\n[databases.d]\nhost = \"a\"\n[databases.e]\nhost = \"a\"\n\
                [users.admin]\npassword = \"x\"\n[users.u]\npassword = \"x\"\n[users.v]\npassword = \"x\"\n";
    let silent =
        || ConnectError::Timeout { target: "a:5432".to_owned(), limit: std::time::Duration::from_secs(1) };
    let verdict = found(toml, |_, _| Err(Trouble::Login(silent())));
    assert_found(&verdict, &["a:5432 (database d, e): server login at a:5432 took longer than 1 s"], &[]);

    let wrong = |asked| Trouble::Login(ConnectError::WrongSecret { asked, have: "only an MD5 hash" });
    let verdict =
        found(toml, |_, user| if user == "u" { login(facts()) } else { Err(wrong("a SCRAM proof")) });
    assert_found(
        &verdict,
        &["user v, database d, e at a:5432: the server asks for a SCRAM proof; pooler has only an MD5 hash"],
        &[],
    );
    assert!(verdict.notes.iter().any(|note| note.ends_with("not by all: admin")), "{:?}", verdict.notes);
}

#[test]
fn what_only_a_client_can_prove_is_no_error() {
    let secret = "SCRAM-SHA-256$4096:c2FsdHNhbHRzYWx0c2E=$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let toml = |auth: &str| {
        format!(
            "[pooler]\nauth_type = \"{auth}\"\n[databases.d]\nhost = \"a\"\n[users.u]\npassword = \"{secret}\"\n"
        )
    };
    let end = |asked| {
        move |_: &str, _: &str| Err(Trouble::Login(ConnectError::WrongSecret { asked, have: "no password" }))
    };
    let verdict = found(&toml("scram-sha-256"), end("a SCRAM proof"));
    assert_found(&verdict, &[], &[]);
    assert!(
        verdict
            .notes
            .iter()
            .any(|note| note.contains("only their clients can log in") && note.ends_with(": u"))
    );
    assert!(!verdict.text(Path::new("p")).contains("AAAA"));
    // No client proves anything, or not to this server.
    assert_found(&found(&toml("trust"), end("a SCRAM proof")), &["user u, database d"], &[]);
    assert_found(&found(&toml("scram-sha-256"), end("an MD5 password")), &["user u, database d"], &[]);
}
