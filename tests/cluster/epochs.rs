//! The epoch rule: a replica that has caught a later epoch than a write's shows the write.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use pooler::{
    cluster::{Cluster, MonitorSettings, Role},
    demo::cluster::Cluster as Servers,
};

use super::watch::{Session, servers, session, until, until_roles, watch};

/// As a reader that finds no replica: wants a poll, and looks again.
async fn until_caught(cluster: &Cluster, written: u64) -> Duration {
    let start = Instant::now();
    while !cluster.caught_up(1, written) {
        let advanced = cluster.advanced();
        cluster.want_poll();
        let _ = tokio::time::timeout(Duration::from_millis(20), advanced).await;
        assert!(start.elapsed() < Duration::from_secs(20), "the replica does not catch up");
    }
    start.elapsed()
}

struct Outcome {
    stale: u32,
    /// Sorted.
    waits: Vec<Duration>,
}

impl Outcome {
    fn percentile(&self, percent: usize) -> Duration {
        self.waits[(self.waits.len() - 1) * percent / 100]
    }
}

/// Writes, waits until the replica has caught up, and looks whether it shows the write.
async fn hammer(
    servers: &Servers,
    cluster: &Arc<Cluster>,
    writers: u32,
    writes: u32,
    before: &str,
) -> Outcome {
    let work = |id: u32, mut primary: Session, mut replica: Session, cluster: Arc<Cluster>| async move {
        let mut outcome = Outcome { stale: 0, waits: Vec::new() };
        for value in 1..=writes {
            primary.ask(&format!("UPDATE hammer SET value = {value} WHERE id = {id}")).await;
            // Between the acknowledgement by the server and the client.
            let written = cluster.epoch();
            outcome.waits.push(until_caught(&cluster, written).await);
            let shown = replica.ask(&format!("SELECT value FROM hammer WHERE id = {id}")).await;
            outcome.stale += u32::from(shown != Some(value.to_string()));
        }
        outcome
    };
    let mut tasks = Vec::new();
    for id in 0..writers {
        let mut primary = session(servers, &servers.primary).await;
        primary.ask(&format!("INSERT INTO hammer VALUES ({id}, 0)")).await;
        primary.ask(before).await;
        let replica = session(servers, servers.replica.as_ref().unwrap()).await;
        tasks.push(tokio::spawn(work(id, primary, replica, cluster.clone())));
    }
    let mut whole = Outcome { stale: 0, waits: Vec::new() };
    for task in tasks {
        let outcome = task.await.unwrap();
        whole.stale += outcome.stale;
        whole.waits.extend(outcome.waits);
    }
    whole.waits.sort();
    println!(
        "{} writes, caught after p50 {:?}, p90 {:?}, p99 {:?}",
        whole.waits.len(),
        whole.percentile(50),
        whole.percentile(90),
        whole.percentile(99)
    );
    whole
}

async fn start(conf: &[&str]) -> (Servers, Arc<Cluster>) {
    let servers = servers(conf);
    session(&servers, &servers.primary)
        .await
        .ask("CREATE TABLE hammer (id int PRIMARY KEY, value int)")
        .await;
    let cluster = watch(&servers, "postgres", MonitorSettings::default());
    until_roles(&cluster, &[Role::Primary, Role::Replica]).await;
    let written = cluster.epoch();
    until_caught(&cluster, written).await;
    (servers, cluster)
}

#[tokio::test(flavor = "multi_thread")]
async fn replica_that_caught_up_shows_the_write() {
    let (servers, cluster) = start(&[]).await;
    let outcome = hammer(&servers, &cluster, 4, 1000, "SELECT").await;
    assert_eq!(outcome.stale, 0);
    // Idle: nobody is asked but once a second.
    let before = cluster.epoch();
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert!(cluster.epoch() - before <= 4, "{}", cluster.epoch() - before);
    until("fresh by the heartbeat", || cluster.staleness(1).unwrap() < Duration::from_millis(900)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replica_that_applies_late_is_waited_for() {
    let (servers, cluster) = start(&["recovery_min_apply_delay = '20ms'"]).await;
    let outcome = hammer(&servers, &cluster, 4, 250, "SELECT").await;
    assert_eq!(outcome.stale, 0);
    assert!(outcome.percentile(50) >= Duration::from_millis(15), "{:?}", outcome.percentile(50));
}

/// A commit that is acknowledged before it is flushed is beyond the flushed position.
#[tokio::test(flavor = "multi_thread")]
async fn asynchronous_commits_count_by_inserted_positions() {
    let (servers, cluster) = start(&[]).await;
    // Nobody told: flushed positions are wrong. If they were not, this test would prove nothing.
    let unaware = hammer(&servers, &cluster, 4, 50, "SET synchronous_commit = off").await;
    assert!(unaware.stale > 0, "the test does not see asynchronous commits");
    session(&servers, &servers.primary).await.ask("TRUNCATE hammer").await;
    cluster.note_async_commits();
    let outcome = hammer(&servers, &cluster, 8, 100, "SET synchronous_commit = off").await;
    assert_eq!(outcome.stale, 0);
}

/// Settings of the server and of roles are found without being told.
#[tokio::test(flavor = "multi_thread")]
async fn asynchronous_commits_by_settings_are_found() {
    for (conf, sql) in [
        ("synchronous_commit = off", "SELECT"),
        (
            "synchronous_commit = on",
            "CREATE ROLE writer LOGIN; ALTER ROLE writer SET synchronous_commit = off",
        ),
    ] {
        let servers = servers(&[conf]);
        session(&servers, &servers.primary).await.ask(sql).await;
        let cluster = watch(&servers, "postgres", MonitorSettings::default());
        until_roles(&cluster, &[Role::Primary, Role::Replica]).await;
        until("they are found", || cluster.acknowledges_before_flush()).await;
    }
}
