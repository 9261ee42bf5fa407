//! Requests that wait for a node: for how long, what they are told, and what operators see of them.
//!
//! Covers H1, H29, S58.

use std::time::Duration;

use pooler::demo::process::wait_until;

use crate::{
    routing_edges::behind,
    routing_table::{nodes, start},
    support::{msg::*, pooler::Pooler, raw::PATIENCE, replicated::Replicated, truth::client},
};

/// What SHOW CLIENTS says of the routes of all clients.
fn routes(pooler: &Pooler) -> Vec<String> {
    let rows = pooler.console("SHOW CLIENTS").into_iter().flatten();
    rows.filter(|(column, _)| column == "route").map(|(_, value)| value).collect()
}

/// Whether some client gets to where this says.
fn gets_to(pooler: &Pooler, route: &str) -> bool {
    wait_until(PATIENCE, || routes(pooler).iter().any(|found| found == route).then_some(())).is_some()
}

fn wait_for_route(pooler: &Pooler, route: &str) {
    assert!(gets_to(pooler, route), "no client is at {route}: {:?}", routes(pooler));
}

#[test]
fn last_route_of_each_client_is_shown() {
    let cluster = nodes();
    let pooler = start(&cluster, |setup| setup);
    let mut client = client(&pooler, "app");
    for (sql, route) in [
        ("SELECT count(*) FROM item", "replica: read"),
        ("UPDATE target SET x = 9 WHERE id = 2", "primary: statement"),
        ("/* pooler: primary */ SELECT 1", "primary: asked"),
        ("/* pooler: replica */ SELECT 1", "replica: asked"),
    ] {
        client.sql(sql);
        wait_for_route(&pooler, route);
    }
}

/// A read that waits for a replica is not one that waits for a primary: it goes there.
#[test]
fn read_may_wait_longer_for_a_replica_than_for_a_primary() {
    let cluster = nodes();
    let pooler =
        start(&cluster, |setup| setup.setting("causal_wait = \"4s\"").setting("failover_hold = \"2s\""));
    let (mut writer, mut reader) = (client(&pooler, "app"), client(&pooler, "app"));
    reader.sql("SET pooler.read_consistency = fresh");
    behind(&cluster, || {
        writer.sql("INSERT INTO log VALUES ('longer')");
        assert_eq!(reader.sql("SELECT count(*) FROM log WHERE what = 'longer'"), ["1"]);
        writer.sql("DELETE FROM log WHERE what = 'longer'");
    });
}

/// The hold for a primary begins when there is none, however long the read has waited for a replica.
#[test]
fn read_that_has_waited_for_a_replica_waits_for_a_primary_too() {
    let mut cluster = nodes();
    let pooler = start(&cluster, |setup| {
        setup
            .setting("node_check_interval = \"200ms\"")
            .setting("causal_wait = \"9s\"")
            .setting("failover_hold = \"8s\"")
    });
    let (mut writer, mut reader) = (client(&pooler, "app"), client(&pooler, "app"));
    reader.sql("SET pooler.read_consistency = fresh");
    let replay =
        |cluster: &Replicated, sql: &str| [1, 2].iter().for_each(|&node| drop(cluster.admin(node).sql(sql)));
    replay(&cluster, "SELECT pg_wal_replay_pause()");
    writer.sql("INSERT INTO log VALUES ('both')");
    reader.send(&query("SELECT count(*) FROM log WHERE what = 'both'"));
    let stale = gets_to(&pooler, "hold: stale");
    cluster.stop_fast(0);
    let lost = gets_to(&pooler, "hold: no_primary");
    cluster.restart(0);
    let frames = reader.ready(1);
    replay(&cluster, "SELECT pg_wal_replay_resume()");
    assert!(stale && lost, "{stale} {lost}");
    let rows: Vec<String> = frames.iter().filter(|frame| frame.tag == b'D').map(Frame::row).collect();
    assert_eq!(rows, ["1"], "{frames:?}");
    client(&pooler, "app").sql("DELETE FROM log WHERE what = 'both'");
}

/// H1: the next read is another one, and sees what was written since.
#[test]
fn read_behind_one_that_was_cancelled_while_it_waited_is_fresh() {
    let cluster = nodes();
    let pooler = start(&cluster, |setup| setup.setting("causal_wait = \"60s\""));
    let (mut writer, mut reader) = (client(&pooler, "app"), client(&pooler, "app"));
    reader.sql("SET pooler.read_consistency = fresh");
    let count = query("SELECT count(*) FROM log WHERE what = 'since'");
    behind(&cluster, || {
        writer.sql("INSERT INTO log VALUES ('since')");
        reader.send(&count);
        wait_for_route(&pooler, "hold: stale");
        reader.cancel();
        assert_eq!(reader.ready(1)[0].field(b'C'), "57014");
    });
    cluster.catch_up_all();
    cluster.wait_for_replicas(&pooler);
    behind(&cluster, || {
        writer.sql("INSERT INTO log VALUES ('since')");
        reader.send(&count);
        reader.silent(Duration::from_millis(500));
    });
    assert_eq!(reader.ready(1)[1].row(), "2");
    writer.sql("DELETE FROM log WHERE what = 'since'");
}

/// What may write is refused with the truth where a replica is asked for and there is none, and reads go to the primary.
#[test]
fn write_for_a_replica_is_refused_where_there_is_none() {
    let cluster = nodes();
    let pooler = cluster.setup(&[0]).setting("failover_hold = \"1s\"").start();
    let mut client = client(&pooler, "app");
    let write = "UPDATE target SET x = 4 WHERE id = 3";
    client.sql(write);
    for (set, sql) in [
        ("RESET pooler.route", format!("/* pooler: replica */ {write}")),
        ("SET pooler.route = replica", write.to_owned()),
    ] {
        client.sql(set);
        client.send(&query(&sql));
        wait_for_route(&pooler, "hold: no_replica");
        let frames = client.ready(1);
        let error = &frames[0];
        assert_eq!((error.tag, error.field(b'C').as_str()), (b'E', "57P03"), "{frames:?}");
        assert!(error.field(b'M').contains("replica"), "{error:?}");
        assert!(error.field(b'H').contains("SHOW NODES"), "{error:?}");
        assert_eq!(client.sql("SELECT count(*) FROM item"), ["20"]);
    }
    client.sql("SET pooler.route = auto");
    client.sql(write);
}
