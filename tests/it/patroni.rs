//! Nodes that Patroni's REST API tells, played by a script, in front of real servers.
//!
//! Covers H29, S59.

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use pooler::demo::process::free_port;

use crate::{
    discovery::{refused, wait_for_nodes},
    support::{
        database::certificates,
        http::{Answer, Http},
        load::{Load, Work, assert_kept, assert_served, start},
        msg::*,
        pooler::Pooler,
        replicated::Replicated,
    },
};

const SOON: Duration = Duration::from_secs(10);

/// What Patroni says of these nodes: which one leads, and tags of each.
fn members(cluster: &Replicated, leader: usize, nodes: &[(usize, &str)]) -> String {
    let members = nodes.iter().map(|&(node, tags)| {
        let (port, role) = (cluster.node(node).port, if node == leader { "leader" } else { "replica" });
        format!(
            r#"{{"name": "n{node}", "role": "{role}", "state": "running", "api_url": "http://n{node}:8008/patroni",
                "host": "127.0.0.1", "port": {port}, "timeline": 1, "lag": 0, "tags": {{{tags}}}}}"#
        )
    });
    format!(r#"{{"members": [{}], "scope": "test"}}"#, members.collect::<Vec<_>>().join(", "))
}

fn pooler(cluster: &Replicated, apis: &[String]) -> Pooler {
    let apis: Vec<String> = apis.iter().map(|api| format!("\"{api}\"")).collect();
    cluster
        .setup(&[])
        .entry(&format!("patroni = [{}]", apis.join(", ")))
        .setting("node_discovery_interval = \"100ms\"")
        .setting("failover_hold = \"1s\"")
        .start()
}

/// Lines of SHOW NODES, in the order of the addresses.
fn shown(cluster: &Replicated, nodes: &[(usize, &str)]) -> Vec<String> {
    let mut nodes: Vec<(u16, &str)> = nodes.iter().map(|&(n, role)| (cluster.node(n).port, role)).collect();
    nodes.sort_unstable();
    nodes.iter().map(|(port, role)| format!("127.0.0.1:{port} {role}")).collect()
}

#[test]
fn members_come_and_go_under_load() {
    let cluster = start(2);
    let two = members(&cluster, 0, &[(0, ""), (1, "")]);
    let api = Http::start(Answer::Body(two.clone()));
    // The first API is that of a machine that is down.
    let dead = format!("http://127.0.0.1:{}", free_port().unwrap());
    let pooler = pooler(&cluster, &[dead, format!("http://127.0.0.1:{}", api.port)]);
    let mut client = pooler.connect();
    client.sql("CREATE TEMP TABLE mine (x int); DROP TABLE mine");
    wait_for_nodes(&pooler, &shown(&cluster, &[(0, "primary"), (1, "replica")]));
    let work = [Work::Ledger, Work::Ledger, Work::Reads, Work::Reads];
    let three = |tags| Answer::Body(members(&cluster, 0, &[(0, ""), (1, ""), (2, tags)]));
    let all = shown(&cluster, &[(0, "primary"), (1, "replica"), (2, "replica")]);
    let stories = Load::run(&work, &|| pooler.connect(), |load| {
        // A member that is not to be read from.
        api.answer(three("\"noloadbalance\": true"));
        wait_for_nodes(&pooler, &all);
        for _ in 0..5 {
            load.goes_on(SOON);
        }
        assert_eq!(cluster.calls(2, "FROM still"), 0);
        api.answer(Answer::Body(two));
        wait_for_nodes(&pooler, &shown(&cluster, &[(0, "primary"), (1, "replica")]));
        load.goes_on(SOON);
        api.answer(three(""));
        wait_for_nodes(&pooler, &all);
        load.goes_on(SOON);
    });
    cluster.wait_for_replicas(&pooler);
    assert_served(&stories, 0);
    assert_kept(&cluster, 0, "ledger", &stories);
}

/// H29: of what calls itself a primary, whoever does not keep Patroni's lock gets no writes.
#[test]
fn only_the_leader_of_patroni_gets_writes() {
    let mut cluster = start(1);
    let led_by = |cluster: &Replicated, leader| Answer::Body(members(cluster, leader, &[(0, ""), (1, "")]));
    let api = Http::start(led_by(&cluster, 0));
    let pooler = pooler(&cluster, &[format!("http://127.0.0.1:{}", api.port)]);
    let mut client = pooler.connect();
    client.sql("INSERT INTO ledger VALUES (1)");
    cluster.catch_up_all();
    // The lock has gone to the other one, and the old primary does not know yet.
    api.answer(led_by(&cluster, 1));
    wait_for_nodes(&pooler, &shown(&cluster, &[(0, "fenced"), (1, "replica")]));
    refused(&mut client);
    // What waits is served when the leader is promoted.
    client.send(&query("INSERT INTO ledger VALUES (2)"));
    cluster.promote(1);
    assert!(client.ready(1).iter().all(|frame| frame.tag != b'E'));
    // Somebody else has promoted a server past Patroni: PostgreSQL alone would say that it is the primary.
    let late = cluster.add(1);
    cluster.catch_up(late, 1);
    let with_late = |cluster: &Replicated, leader| {
        Answer::Body(members(cluster, leader, &[(0, ""), (1, ""), (late, "")]))
    };
    api.answer(with_late(&cluster, 1));
    wait_for_nodes(&pooler, &shown(&cluster, &[(0, "fenced"), (1, "primary"), (late, "replica")]));
    cluster.promote(late);
    wait_for_nodes(&pooler, &shown(&cluster, &[(0, "fenced"), (1, "fenced"), (late, "fenced")]));
    refused(&mut client);
    // An API that does not answer says nothing about leaders.
    api.answer(Answer::Nothing);
    wait_for_nodes(&pooler, &shown(&cluster, &[(0, "fenced"), (1, "fenced"), (late, "primary")]));
    client.sql("INSERT INTO ledger VALUES (3)");
    assert_eq!(cluster.sql(0, "SELECT id FROM ledger"), ["1"]);
    assert_eq!(cluster.sql(1, "SELECT id FROM ledger ORDER BY id"), ["1", "2"]);
    assert_eq!(cluster.sql(late, "SELECT id FROM ledger ORDER BY id"), ["1", "2", "3"]);
}

#[test]
fn api_that_is_down_or_talks_nonsense_takes_no_node_away() {
    let cluster = start(1);
    let right = Answer::Body(members(&cluster, 0, &[(0, ""), (1, "")]));
    let api = Http::start(right.clone());
    let pooler = pooler(&cluster, &[format!("http://127.0.0.1:{}", api.port)]);
    let mut client = pooler.connect();
    client.sql("SELECT 1");
    let all = shown(&cluster, &[(0, "primary"), (1, "replica")]);
    wait_for_nodes(&pooler, &all);
    let stories = Load::run(&[Work::Ledger, Work::Reads], &|| pooler.connect(), |load| {
        for (nonsense, told) in [
            (Answer::Nothing, "connection closed"),
            (Answer::Body("<html>".to_owned()), "not the answer of Patroni"),
            (Answer::Body(r#"{"members": []}"#.to_owned()), "names no member"),
            (
                Answer::Raw(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n".to_vec()),
                "status 503",
            ),
            (Answer::Raw(b"\0\xff\n\nSSH-2.0-OpenSSH\r\n".to_vec()), "invalid HTTP"),
            (Answer::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{".to_vec()), "ends early"),
            (Answer::Endless("HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n"), "longer than"),
            (Answer::Endless("HTTP/1.1 200 OK\r\n\r\n"), "longer than"),
            (Answer::Endless("HTTP/1.1 200 OK\r\nX: "), "too large"),
            (Answer::Silence, "no answer within"),
        ] {
            // What is wrong is told once.
            api.answer(right.clone());
            let mark = pooler.log().len();
            api.answer(nonsense.clone());
            let log = pooler.log().split_off(mark);
            assert!(log.contains(told), "{nonsense:?}, {told}:\n{log}");
            load.goes_on(SOON);
        }
        api.answer(right);
    });
    assert_served(&stories, 0);
    assert_kept(&cluster, 0, "ledger", &stories);
    wait_for_nodes(&pooler, &all);
    assert!(pooler.memory("VmHWM") < 100_000, "{}", pooler.memory("VmHWM"));
}

/// Certificates of the API are checked as those of servers with verify-full.
#[test]
fn api_by_https_is_believed_if_its_certificate_is_right() {
    let cluster = start(0);
    let dir = pooler::demo::process::TempDir::new(None).unwrap();
    std::fs::write(dir.path().join("cluster"), members(&cluster, 0, &[(0, "")])).unwrap();
    let certs = certificates().display();
    for (certificate, right) in [("server", true), ("elsewhere", false)] {
        let port = free_port().unwrap();
        // Serves the file by its name.
        let mut server = Command::new("openssl")
            .args(["s_server", "-quiet", "-WWW", "-accept", &format!("127.0.0.1:{port}")])
            .args([
                "-cert",
                &format!("{certs}/{certificate}.crt"),
                "-key",
                &format!("{certs}/{certificate}.key"),
            ])
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let pooler = cluster
            .setup(&[])
            .entry(&format!("patroni = [\"https://localhost:{port}\"]"))
            .setting("node_discovery_interval = \"100ms\"")
            .setting(&format!("server_tls_ca_file = \"{certs}/ca.crt\""))
            .start();
        if right {
            assert_eq!(pooler.connect().sql("SELECT 1"), ["1"]);
            wait_for_nodes(&pooler, &shown(&cluster, &[(0, "primary")]));
        } else {
            pooler.wait_for_log("invalid peer certificate");
        }
        server.kill().unwrap();
        server.wait().unwrap();
    }
}
