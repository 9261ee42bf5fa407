//! Lists of nodes that change by RELOAD: what was known of the nodes before, and who is at work there.
//!
//! Covers H29, S59.

use std::time::{Duration, Instant};

use pooler::demo::process::wait_until;

use crate::support::{
    load::{Reply, ask, start},
    msg::*,
    pooler::Pooler,
    raw::{PATIENCE, Raw},
    replicated::{DATABASE, Replicated},
};

/// Gives the pooler these nodes and no others.
fn relist(pooler: &Pooler, cluster: &Replicated, order: &[usize]) {
    let ports = order.iter().map(|&index| format!("\"127.0.0.1:{}\"", cluster.node(index).port));
    let toml = pooler.toml();
    let line = toml.lines().find(|line| line.starts_with("nodes = ")).unwrap();
    pooler.edit(line, &format!("nodes = [{}]", ports.collect::<Vec<_>>().join(", ")));
    pooler.admin().sql("RELOAD");
}

/// Role and reason of the node, as operators are told.
fn told(pooler: &Pooler, cluster: &Replicated, node: usize) -> (String, String) {
    let name = format!("127.0.0.1:{}", cluster.node(node).port);
    let rows = pooler.console("SHOW NODES");
    let row = rows.iter().find(|row| row.iter().any(|(column, value)| column == "node" && *value == name));
    let value =
        |wanted: &str| row?.iter().find(|(column, _)| column == wanted).map(|(_, value)| value.clone());
    (value("role").unwrap_or_default(), value("reason").unwrap_or_default())
}

fn wait_for_role(pooler: &Pooler, cluster: &Replicated, node: usize, role: &str) {
    let met = wait_until(PATIENCE, || (told(pooler, cluster, node).0 == role).then_some(()));
    assert!(met.is_some(), "{:?}\n{}", told(pooler, cluster, node), pooler.log());
}

fn insert(id: i64) -> Vec<u8> {
    query(&format!("INSERT INTO ledger VALUES ({id})"))
}

/// H29: an old primary gets no writes when it is the only node of a new list, by whatever name.
#[test]
fn never_back_to_a_lower_timeline_by_another_list() {
    let mut cluster = start(1);
    let pooler = cluster.setup(&[0, 1]).setting("failover_hold = \"500ms\"").start();
    let mut client = pooler.connect();
    client.sql("INSERT INTO ledger VALUES (1)");
    cluster.catch_up_all();
    cluster.promote(1);
    wait_for_role(&pooler, &cluster, 1, "primary");
    client.sql("INSERT INTO ledger VALUES (2)");
    let refused = |client: &mut Raw| match ask(client, &insert(3)) {
        Reply::Error(error, b'I') => assert_eq!(error.field(b'C'), "57P03", "{error:?}"),
        other => panic!("{other:?}"),
    };
    relist(&pooler, &cluster, &[0]);
    refused(&mut client);
    let (role, reason) = told(&pooler, &cluster, 0);
    assert!(role == "fenced" && reason.contains("older than 2 of the last primary"), "{role}: {reason}");
    // The list before that is forgotten; its primary is not.
    pooler.edit("\"127.0.0.1:", "\"localhost:");
    pooler.admin().sql("RELOAD");
    refused(&mut client);
    relist(&pooler, &cluster, &[0, 1]);
    client.sql("INSERT INTO ledger VALUES (4)");
    assert_eq!(cluster.sql(0, "SELECT id FROM ledger"), ["1"]);
    assert_eq!(cluster.sql(1, "SELECT id FROM ledger ORDER BY id"), ["1", "2", "4"]);
}

/// An operator who gives a list of other servers means them.
#[test]
fn nodes_of_another_system_take_over_when_none_of_the_old_is_left() {
    let (one, other) = (start(0), start(0));
    let pooler = one.setup(&[0]).start();
    let mut client = pooler.connect();
    client.sql("INSERT INTO ledger VALUES (1)");
    // In one list with those that are known they are strangers.
    let (known, strange) = (one.node(0).port, other.node(0).port);
    pooler
        .edit(&format!("\"127.0.0.1:{known}\""), &format!("\"127.0.0.1:{strange}\", \"127.0.0.1:{known}\""));
    pooler.admin().sql("RELOAD");
    client.sql("INSERT INTO ledger VALUES (2)");
    wait_for_role(&pooler, &other, 0, "fenced");
    relist(&pooler, &other, &[0]);
    client.sql("INSERT INTO ledger VALUES (3)");
    assert_eq!(one.sql(0, "SELECT id FROM ledger ORDER BY id"), ["1", "2"]);
    assert_eq!(other.sql(0, "SELECT id FROM ledger"), ["3"]);
}

/// Keys that a login has shown are good for the servers of the new list too, and min_pool_size is kept on all of them.
#[test]
fn clients_go_on_with_what_they_have_proved_and_every_node_has_its_minimum() {
    let cluster = start(2);
    cluster.sql(0, "SET password_encryption = 'scram-sha-256'; CREATE ROLE prover LOGIN PASSWORD 'proof'; GRANT ALL ON ledger TO prover");
    cluster.catch_up_all();
    let secret = cluster.sql(0, "SELECT rolpassword FROM pg_authid WHERE rolname = 'prover'").remove(0);
    let pooler = cluster
        .setup(&[0, 1])
        .database("min_pool_size = 2")
        .section(&format!("[users.prover]\npassword = \"{secret}\"\n"))
        .start();
    let mut client = Raw::login(pooler.port, "prover", DATABASE, "proof");
    client.sql("INSERT INTO ledger VALUES (1)");
    let minimum = |nodes: &[usize]| {
        let sessions = "SELECT count(*) FROM pg_stat_activity \
                        WHERE usename = 'prover' AND application_name <> 'pooler'";
        let met = wait_until(PATIENCE, || {
            nodes.iter().all(|&node| cluster.number(node, sessions) == 2).then_some(())
        });
        let counts: Vec<i64> = nodes.iter().map(|&node| cluster.number(node, sessions)).collect();
        assert!(met.is_some(), "{counts:?}\n{}", pooler.log());
    };
    minimum(&[0, 1]);
    relist(&pooler, &cluster, &[2, 0]);
    minimum(&[2, 0]);
    let rest = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'prover'";
    assert!(wait_until(PATIENCE, || (cluster.number(1, rest) == 0).then_some(())).is_some());
    client.sql("INSERT INTO ledger VALUES (2)");
    assert_eq!(client.sql("SELECT count(*) FROM ledger"), ["2"]);
    // Nobody is left at the nodes that nobody names.
    assert_eq!(cluster.number(1, rest), 0);
}

/// Whoever waits for a node that is gone for good goes to the new ones, not only with its next request.
#[test]
fn those_who_wait_are_served_by_the_new_list() {
    let mut cluster = start(1);
    let pooler = cluster.setup(&[0]).setting("failover_hold = \"60s\"").start();
    let mut idle = pooler.connect();
    let mut waiting = pooler.connect();
    idle.sql("INSERT INTO ledger VALUES (1)");
    cluster.catch_up_all();
    cluster.crash(0);
    wait_for_role(&pooler, &cluster, 0, "down");
    cluster.promote(1);
    waiting.send(&insert(2));
    let port = pooler.port;
    std::thread::scope(|scope| {
        let login = scope.spawn(move || Raw::login(port, "other", DATABASE, "secret of other"));
        drop(login);
        std::thread::sleep(Duration::from_millis(200));
        relist(&pooler, &cluster, &[1]);
    });
    assert!(waiting.ready(1).iter().all(|frame| frame.tag != b'E'));
    idle.sql("INSERT INTO ledger VALUES (3)");
    assert_eq!(cluster.sql(1, "SELECT id FROM ledger ORDER BY id"), ["1", "2", "3"]);
}

/// A transaction that was open when the list changed does not commit on what has become an old primary.
#[test]
fn transaction_of_an_old_list_ends_with_the_reign_of_its_primary() {
    let mut cluster = start(1);
    let pooler = cluster.setup(&[0, 1]).start();
    let (mut amid, mut other) = (pooler.connect(), pooler.connect());
    amid.sql("BEGIN");
    amid.sql("INSERT INTO ledger VALUES (1)");
    relist(&pooler, &cluster, &[1, 0]);
    // Nothing has happened to its node: it goes on.
    wait_for_role(&pooler, &cluster, 0, "primary");
    amid.sql("INSERT INTO ledger VALUES (2)");
    cluster.promote(1);
    wait_for_role(&pooler, &cluster, 1, "primary");
    let start = Instant::now();
    other.sql("INSERT INTO ledger VALUES (3)");
    assert!(start.elapsed() < PATIENCE);
    match ask(&mut amid, &query("COMMIT")) {
        Reply::Error(error, _) => assert_eq!(error.field(b'C'), "08006", "{error:?}"),
        Reply::Rows(..) => panic!("committed on the old timeline"),
        Reply::Closed(error) => panic!("{error:?}"),
    }
    assert_eq!(cluster.sql(0, "SELECT count(*) FROM ledger"), ["0"]);
    assert_eq!(cluster.sql(1, "SELECT id FROM ledger"), ["3"]);
}

/// A list may change often, and pooler stays as small as it was.
#[test]
fn lists_that_change_leave_nothing_behind() {
    let cluster = start(1);
    let pooler = cluster.setup(&[0, 1]).setting("workers = 1").start();
    let (mut busy, mut idle) = (pooler.connect(), pooler.connect());
    let mut change = |times: usize| {
        for _ in 0..times {
            for order in [[1, 0], [0, 1]] {
                relist(&pooler, &cluster, &order);
                busy.sql("SELECT 1");
            }
        }
        idle.sql("SELECT 1");
        pooler.memory("VmRSS")
    };
    let before = change(5);
    let after = change(20);
    assert!(after < before + 1500, "{before} kB before, {after} kB after 40 lists");
}

/// The primary is dead when the list changes: replicas of the new list show what they did, to those who have written and
/// read before as well as to those who come (H29).
#[test]
fn reads_go_on_where_the_list_changes_without_a_primary() {
    let mut cluster = start(2);
    let pooler = cluster.setup(&[0, 1, 2]).setting("failover_hold = \"2s\"").start();
    cluster.wait_for_replicas(&pooler);
    let (mut writer, mut reader) = (pooler.connect(), pooler.connect());
    writer.sql("INSERT INTO ledger VALUES (1)");
    let mut read = || {
        assert_eq!(reader.sql("SELECT id FROM ledger"), ["1"]);
        let by_replicas = (1..3).map(|node| cluster.calls(node, "SELECT id FROM ledger")).sum::<i64>();
        (by_replicas > 0).then_some(())
    };
    assert!(wait_until(PATIENCE, &mut read).is_some(), "{}", pooler.log());
    cluster.catch_up_all();
    cluster.crash(0);
    wait_for_role(&pooler, &cluster, 0, "down");
    for order in [[2, 1, 0], [1, 0, 2]] {
        relist(&pooler, &cluster, &order);
        for client in [&mut writer, &mut reader, &mut pooler.connect()] {
            assert_eq!(client.sql("SELECT id FROM ledger"), ["1"]);
        }
    }
    match ask(&mut writer, &insert(2)) {
        Reply::Error(error, b'I') => assert_eq!(error.field(b'C'), "57P03", "{error:?}"),
        other => panic!("{other:?}"),
    }
    cluster.promote(1);
    wait_for_role(&pooler, &cluster, 1, "primary");
    writer.sql("INSERT INTO ledger VALUES (2)");
    assert_eq!(reader.sql("SELECT id FROM ledger ORDER BY id"), ["1", "2"]);
}
