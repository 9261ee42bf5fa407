//! Which node runs which statement: hundreds of them (routing_table.txt), each sent in five ways for real. Who ran it is
//! read in the logs of the nodes; what came back is compared with what the primary says.
//!
//! Covers every line of ROUTING 2.2 and 2.3, H15–H17, H21, S55, S57.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crate::support::{
    pooler::{Pooler, Setup},
    raw::Raw,
    replicated::Replicated,
    truth::{Place, Row, Way, client, error_of, rows, set_up},
};

pub(crate) const TABLE: &str = include_str!("routing_table.txt");
const SET_UP: &str = include_str!("routing_table.sql");

/// A primary and two replicas with all that the table needs, for one test at a time: DDL of one may send the reads of
/// another to the primary for a moment.
pub(crate) fn nodes() -> MutexGuard<'static, Replicated> {
    static NODES: OnceLock<Mutex<Replicated>> = OnceLock::new();
    let nodes = NODES.get_or_init(|| {
        let cluster = Replicated::start(2, &["log_statement = all"]);
        set_up(&cluster, SET_UP);
        Mutex::new(cluster)
    });
    let nodes = nodes.lock().unwrap_or_else(PoisonError::into_inner);
    nodes.catch_up_all();
    nodes
}

/// A pooler in front of them that has found out all it needs to use the replicas. Where reads go must depend on what they
/// are, not on who wrote a moment ago or how busy the machine is.
pub(crate) fn start(cluster: &Replicated, adapt: impl Fn(Setup) -> Setup) -> Pooler {
    let setup = cluster.setup(&[1, 0, 2]).setting("read_consistency = \"eventual\"");

    // Without passwords: there are many logins.
    let setup = setup.setting("auth_type = \"trust\"").setting("node_check_timeout = \"10s\"");
    let pooler = adapt(setup).start();
    cluster.wait_for_replicas(&pooler);
    pooler
}

/// What a client has proved opens every node: with a SCRAM secret pooler cannot log in by itself.
#[test]
fn keys_of_clients_are_for_all_nodes() {
    let cluster = nodes();
    let secret =
        cluster.admin(0).sql("SELECT rolpassword FROM pg_authid WHERE rolname = 'app'").swap_remove(0);
    assert!(secret.starts_with("SCRAM-SHA-256$"), "{secret}");
    let user = format!("[users.app]\npassword = \"{secret}\"");
    let pooler = cluster.setup(&[0, 1, 2]).own_users().section(&user).start();
    cluster.wait_for_replicas(&pooler);
}

#[test]
fn table_is_true_of_postgresql() {
    let cluster = nodes();
    let rows = rows(TABLE);
    assert!(rows.len() >= 300, "{}", rows.len());
    let mut wrong = Vec::new();
    let mut primary = cluster.connect_as(0, "app");
    let mut replica = cluster.connect_as(1, "app");
    for row in rows.iter().filter(|row| row.place == Place::Replica) {
        let told = row.send(&mut primary, row.plainest_way(), "plain", &cluster);
        for way in row.ways() {
            let answer = row.send(&mut replica, way, "plain", &cluster);
            if error_of(&told).is_some() || answer.len() != told.len() || answer != told && !row.is("varies")
            {
                wrong.push(format!("line {} {way:?}: {told:?} and at a replica {answer:?}", row.line));
            }
        }
    }
    for row in rows.iter().filter(|row| row.place != Place::Replica) {
        let mut client = cluster.connect_as(0, row.role());
        let answer = row.send(&mut client, row.plainest_way(), "plain", &cluster);
        if error_of(&answer) != row.error.as_deref() {
            wrong.push(format!("line {}: {answer:?}", row.line));
        }
    }
    assert!(wrong.is_empty(), "{} are not as the table says:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_statement_runs_where_it_belongs() {
    let cluster = nodes();
    // Session advisory locks stay on a server: with one of them nobody waits for himself.
    let pooler = start(&cluster, |setup| setup.setting("default_pool_size = 1"));
    let rows = rows(TABLE);
    let mut wrong = Vec::new();
    let mut report = |row: &Row, way: Way, text: String| {
        wrong.push(format!("line {} ({}) {way:?}: {text}", row.line, row.section));
    };
    // Reads first: what the others do to the catalog may send them to the primary for a moment.
    let (reads, others): (Vec<&Row>, Vec<&Row>) = rows.iter().partition(|row| row.place != Place::Primary);
    let mut primary = cluster.connect_as(0, "app");
    for row in &reads {
        // A client of its own, so that what one leaves behind does not decide for the next.
        let mut reader = client(&pooler, row.role());
        let told = row.send(&mut primary, row.plainest_way(), "plain", &cluster);
        for way in row.ways() {
            let answer = row.send(&mut reader, way, "pooled", &cluster);
            let differs = if row.is("varies") { answer.len() != told.len() } else { answer != told };
            if differs || error_of(&answer) != row.error.as_deref() {
                report(row, way, format!("the primary says {told:?}, pooler {answer:?}"));
            }
        }
    }
    for row in &others {
        let mut client: Raw = client(&pooler, row.role());
        row.ways().for_each(|way| drop(row.send(&mut client, way, "pooled", &cluster)));
    }
    let runs = cluster.runs();
    for row in &rows {
        for way in row.ways() {
            let ran = runs.ran_on(&row.name("pooled", way));
            if let Some(text) = misplaced(row, way, &ran) {
                report(row, way, text);
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {} are wrong:\n{}", wrong.len(), rows.len() * 5, wrong.join("\n"));
}

/// What is wrong with where a statement ran.
fn misplaced(row: &Row, way: Way, ran: &[usize]) -> Option<String> {
    let answered = row.is("answered");
    let right = match row.place {
        Place::Primary => (answered || !ran.is_empty()) && ran.iter().all(|&node| node == 0),
        Place::Replica => !ran.is_empty() && ran.iter().all(|&node| node != 0),
        Place::Same => true,
    };
    // Not twice, as after a first try elsewhere; what cannot be parsed is not executed at all.
    let counted = row.place != Place::Same && row.error.is_none() && !answered;
    let often = counted && ran.len() != Row::executions(way);
    (!right || often).then(|| format!("ran on {ran:?}, not {} on the {:?}", Row::executions(way), row.place))
}
