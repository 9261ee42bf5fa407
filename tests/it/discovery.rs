//! Nodes that are found: the addresses of a name.
//!
//! Covers H29, H31, S59.

use std::time::Duration;

use pooler::demo::process::{free_port, wait_until};

use crate::support::{
    gate::Gate,
    load::{Load, Reply, Work, ask, assert_kept, assert_served, start},
    msg::*,
    pooler::Pooler,
    raw::{PATIENCE, Raw},
    replicated::Replicated,
};

const SOON: Duration = Duration::from_secs(10);

/// A name whose addresses lead to nodes: 127.0.0.2 to the first, 127.0.0.3 to the second, and so on.
struct Name {
    port: u16,
    gates: Vec<Gate>,
}

impl Name {
    fn of(cluster: &Replicated) -> Self {
        let mut name = Self { port: free_port().unwrap(), gates: Vec::new() };
        (0..cluster.count()).for_each(|node| name.lead_to(cluster, node));
        name
    }

    /// Another address.
    fn lead_to(&mut self, cluster: &Replicated, node: usize) {
        let address = format!("127.0.0.{}", self.gates.len() + 2);
        self.gates.push(Gate::at(&address, self.port, cluster.node(node).port));
    }

    /// /etc/hosts with these of its addresses.
    fn hosts(addresses: &[usize]) -> String {
        let lines = addresses.iter().map(|address| format!("127.0.0.{} many.test\n", address + 2));
        format!("127.0.0.1 localhost\n{}", lines.collect::<String>())
    }

    fn pooler(&self, cluster: &Replicated, addresses: &[usize]) -> Pooler {
        let setup =
            cluster.setup(&[]).entry(&format!("nodes = [\"many.test:{} addresses=each\"]", self.port));
        setup
            .hosts(&Self::hosts(addresses))
            .setting("node_discovery_interval = \"100ms\"")
            .setting("failover_hold = \"2s\"")
            .start()
    }
}

/// Nodes and their roles, as operators are told.
pub(crate) fn nodes(pooler: &Pooler) -> Vec<String> {
    let value = |row: &[(String, String)], wanted: &str| {
        row.iter().find(|(column, _)| column == wanted).map(|(_, value)| value.clone()).unwrap()
    };
    pooler.console("SHOW NODES").iter().map(|row| value(row, "node") + " " + &value(row, "role")).collect()
}

pub(crate) fn wait_for_nodes(pooler: &Pooler, expected: &[String]) {
    let mut last = Vec::new();
    let met = wait_until(PATIENCE, || {
        last = nodes(pooler);
        (last == expected).then_some(())
    });
    assert!(met.is_some(), "{last:?}, not {expected:?}:\n{}", pooler.log());
}

pub(crate) fn refused(client: &mut Raw) {
    match ask(client, &query("INSERT INTO ledger VALUES (-1)")) {
        Reply::Error(error, b'I') => assert_eq!(error.field(b'C'), "57P03", "{error:?}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn addresses_of_a_name_come_and_go_under_load() {
    let cluster = start(2);
    let name = Name::of(&cluster);
    let pooler = name.pooler(&cluster, &[0, 1, 2]);
    let shown = |addresses: &[(usize, &str)]| -> Vec<String> {
        let port = name.port;
        addresses.iter().map(|(a, role)| format!("many.test(127.0.0.{}):{port} {role}", a + 2)).collect()
    };
    // The first login finds them all.
    let mut idle = pooler.connect();
    idle.sql("SELECT 1");
    wait_for_nodes(&pooler, &shown(&[(0, "primary"), (1, "replica"), (2, "replica")]));
    cluster.wait_for_replicas(&pooler);
    let work = [Work::Ledger, Work::Ledger, Work::Ledger, Work::Reads, Work::Reads];
    let stories = Load::run(&work, &|| pooler.connect(), |load| {
        for _ in 0..3 {
            pooler.set_hosts(&Name::hosts(&[0, 2]));
            wait_for_nodes(&pooler, &shown(&[(0, "primary"), (2, "replica")]));
            load.goes_on(SOON);
            pooler.set_hosts(&Name::hosts(&[0, 1, 2]));
            wait_for_nodes(&pooler, &shown(&[(0, "primary"), (1, "replica"), (2, "replica")]));
            load.goes_on(SOON);
        }
        // Nobody knows the name any more: that takes no node away.
        pooler.set_hosts(&Name::hosts(&[]));
        pooler.wait_for_log("the nodes that were found last stay in force");
        load.goes_on(SOON);
        assert_eq!(nodes(&pooler), shown(&[(0, "primary"), (1, "replica"), (2, "replica")]));
    });
    assert_served(&stories, 0);
    assert_kept(&cluster, 0, "ledger", &stories);
    cluster.wait_for_replicas(&pooler);
    idle.sql("INSERT INTO ledger VALUES (-1)");
    // What is not marked is one node, whatever its name leads to.
    pooler.set_hosts(&Name::hosts(&[0, 1]));
    pooler.edit(" addresses=each", "");
    pooler.admin().sql("RELOAD");
    idle.sql("SELECT 1");
    let rows = nodes(&pooler);
    assert!(rows.len() == 1 && rows[0].starts_with(&format!("many.test:{} ", name.port)), "{rows:?}");
}

/// As where a scheduler takes a dead server's address out of the name, and gives it another one when it is back.
#[test]
fn primary_that_returns_at_another_address_gets_nothing() {
    let mut cluster = start(1);
    let mut name = Name::of(&cluster);
    name.lead_to(&cluster, 0);
    let pooler = name.pooler(&cluster, &[0, 1]);
    let (mut idle, mut waiting) = (pooler.connect(), pooler.connect());
    idle.sql("INSERT INTO ledger VALUES (1)");
    cluster.catch_up_all();
    cluster.crash(0);
    pooler.set_hosts(&Name::hosts(&[1]));
    let shown =
        |address: usize, role: &str| format!("many.test(127.0.0.{}):{} {role}", address + 2, name.port);
    wait_for_nodes(&pooler, &[shown(1, "replica")]);
    waiting.send(&query("INSERT INTO ledger VALUES (2)"));
    cluster.promote(1);
    assert!(waiting.ready(1).iter().all(|frame| frame.tag != b'E'));
    cluster.restart(0);
    pooler.set_hosts(&Name::hosts(&[1, 2]));
    wait_for_nodes(&pooler, &[shown(1, "primary"), shown(2, "fenced")]);
    idle.sql("INSERT INTO ledger VALUES (3)");
    // Not even when it is all that is left of the name.
    pooler.set_hosts(&Name::hosts(&[2]));
    wait_for_nodes(&pooler, &[shown(2, "fenced")]);
    refused(&mut idle);
    pooler.set_hosts(&Name::hosts(&[1, 2]));
    idle.sql("INSERT INTO ledger VALUES (4)");
    assert_eq!(cluster.sql(0, "SELECT id FROM ledger"), ["1"]);
    assert_eq!(cluster.sql(1, "SELECT id FROM ledger ORDER BY id"), ["1", "2", "3", "4"]);
}
