//! The ground under the tests of routing: clusters with replicas that can be delayed, killed, promoted and asked who ran
//! what.

use crate::support::{
    database::password_of,
    msg::*,
    raw::{PATIENCE, Raw},
    replicated::{DATABASE, Replicated, marker},
};

use pooler::demo::process::wait_until;

fn rows(cluster: &Replicated, index: usize) -> Vec<String> {
    cluster.sql(index, "SELECT string_agg(x::text, ',' ORDER BY x) FROM t")
}

#[test]
fn nodes_say_who_ran_what() {
    let cluster = Replicated::start(1, &["log_statement = all"]);
    let mut primary = cluster.connect(0);
    primary.sql(&format!("CREATE TABLE t (x int) {}", marker("create")));
    primary.sql(&format!("SELECT 1;\nSELECT\n2 {}", marker("several")));
    assert_eq!(primary.try_sql(&format!("SELEC {}", marker("unparsable"))).unwrap_err().field(b'C'), "42601");
    cluster.catch_up_all();
    let mut replica = cluster.connect(1);
    let text = format!("SELECT count(*)\nFROM t {}", marker("read"));
    let run = [bind("a", &[]), execute(), sync()].concat();
    replica.send_all(&[parse("a", &text), run.clone(), run]);
    replica.ready(2);
    assert_eq!(replica.sql(&format!("SHOW transaction_read_only {}", marker("show"))), ["on"]);
    let runs = cluster.runs();
    let ran = |name| runs.ran_on(name);
    assert_eq!((ran("create"), ran("several"), ran("unparsable")), (vec![0], vec![0], vec![0]));
    assert_eq!((ran("read"), ran("show"), ran("nobody's")), (vec![1, 1], vec![1], vec![]));
    assert_eq!((cluster.calls(0, "FROM t"), cluster.calls(1, "FROM t")), (0, 2));
}

#[test]
fn replicas_lag_freeze_cascade_and_wait_for_commits() {
    let mut cluster = Replicated::start(2, &[]);
    let cascaded = cluster.add(1);
    let mut primary = cluster.connect(0);
    primary.sql("CREATE TABLE t (x int)");
    cluster.catch_up_all();
    cluster.configure(1, &["recovery_min_apply_delay = '10s'"]);
    let mut admin = cluster.admin(1);
    let set = wait_until(PATIENCE, || (admin.sql("SHOW recovery_min_apply_delay") == ["10s"]).then_some(()));
    assert!(set.is_some());
    cluster.synchronous(2);
    primary.sql("INSERT INTO t VALUES (1)");
    cluster.catch_up(2, 0);
    assert_eq!(rows(&cluster, 2), ["1"]);
    assert_eq!(rows(&cluster, 1), ["NULL"], "the delayed replica has it already");
    cluster.configure(1, &[]);
    cluster.catch_up_all();
    assert_eq!((rows(&cluster, 1), rows(&cluster, cascaded)), (vec!["1".to_owned()], vec!["1".to_owned()]));
    // A frozen node takes connections (the kernel does) and says nothing, and whoever waits for it waits.
    cluster.freeze(2);
    primary.send(&query("INSERT INTO t VALUES (2)"));
    primary.silent(std::time::Duration::from_millis(300));
    cluster.thaw(2);
    primary.ready(1);
}

#[test]
fn a_replica_takes_over_and_the_old_primary_follows() {
    let mut cluster = Replicated::start(2, &[]);
    cluster.connect(0).sql("CREATE TABLE t AS SELECT 1 AS x");
    cluster.catch_up_all();
    cluster.crash(0);
    cluster.promote(1);
    cluster.follow(2, 1);
    assert_eq!((cluster.primary(), cluster.replicas()), (1, vec![2]));
    cluster.connect(1).sql("INSERT INTO t VALUES (2)");
    cluster.catch_up_all();
    // Two primaries at once.
    cluster.restart(0);
    cluster.connect(0).sql("INSERT INTO t VALUES (3)");
    assert_eq!((rows(&cluster, 0), rows(&cluster, 1)), (vec!["1,3".to_owned()], vec!["1,2".to_owned()]));
    cluster.rejoin(0, 1);
    cluster.catch_up_all();
    assert_eq!((rows(&cluster, 0), rows(&cluster, 2)), (vec!["1,2".to_owned()], vec!["1,2".to_owned()]));
    assert_eq!(cluster.sql(0, "SELECT pg_is_in_recovery()"), ["t"]);
    // And back again, by a planned switchover.
    cluster.stop_fast(1);
    cluster.promote(0);
    cluster.follow(2, 0);
    cluster.connect(0).sql("INSERT INTO t VALUES (4)");
    cluster.catch_up_all();
    assert_eq!(rows(&cluster, 2), ["1,2,4"]);
    cluster.stop_immediately(2);
    let gone = std::net::TcpStream::connect(("127.0.0.1", cluster.node(2).port));
    assert!(gone.is_err());
    cluster.restart(2);
    Raw::login(cluster.node(2).port, "boss", DATABASE, &password_of("boss")).sql("SELECT x FROM t");
}
