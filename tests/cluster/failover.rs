//! Roles, and how fast their changes are found.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use pooler::cluster::{MonitorSettings, Role};

use super::watch::{freeze, roles, servers, session, until, until_roles, watch};

const UP: [Role; 2] = [Role::Primary, Role::Replica];

#[tokio::test(flavor = "multi_thread")]
async fn roles_are_found_and_a_promotion_within_a_second() {
    let mut servers = servers(&[]);
    let cluster = watch(&servers, "postgres", MonitorSettings::default());
    assert_eq!(cluster.primary(), None);
    let took = until_roles(&cluster, &UP).await;
    assert_eq!(cluster.primary(), Some(0));
    until("the replica is of use", || cluster.choose_replica(0, None, 7) == Some(1)).await;
    assert!(cluster.staleness(1).unwrap() < Duration::from_secs(3));
    println!("roles found after {took:?}");
    let (epoch, generation) = (cluster.epoch(), cluster.generation());

    // The machine of the primary dies.
    servers.primary.crash().unwrap();
    let took = until_roles(&cluster, &[Role::Down, Role::Replica]).await;
    println!("crash found after {took:?}");
    assert!(took < Duration::from_millis(500), "{took:?}");
    assert_eq!(cluster.primary(), None);
    // Reads that have all they need go on.
    assert_eq!(cluster.choose_replica(0, None, 7), Some(1));
    // What operators are told follows the role.
    until("the reason is told", || cluster.nodes[0].report().reason.is_some()).await;

    let mut admin = session(&servers, servers.replica.as_ref().unwrap()).await;
    let start = Instant::now();
    assert_eq!(admin.ask("SELECT pg_promote()").await.as_deref(), Some("t"));
    let promoted = start.elapsed();
    until_roles(&cluster, &[Role::Down, Role::Primary]).await;
    println!("promotion took {promoted:?}, found after {:?}", start.elapsed());
    assert!(start.elapsed() < promoted + Duration::from_secs(1), "{:?}", start.elapsed());
    assert_eq!((cluster.primary(), cluster.choose_replica(0, None, 7)), (Some(1), None));
    assert!(cluster.generation() > generation && cluster.floors.of(&pooler::sql::Names::Any) >= epoch);
    until("its timeline is told", || cluster.nodes[1].report().timeline == 2).await;

    // H29: the old primary comes back and takes writes: it gets none.
    servers.primary.start().unwrap();
    until_roles(&cluster, &[Role::Fenced, Role::Primary]).await;
    // The role counts at once; what operators are told follows it.
    let told = || cluster.nodes[0].report().reason.is_some_and(|r| r.contains("timeline 1 is older than 2"));
    until("the reason for the fence is told", told).await;
    // Not even when it is the only one.
    servers.replica.as_mut().unwrap().stop();
    until_roles(&cluster, &[Role::Fenced, Role::Down]).await;
    assert_eq!(cluster.primary(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn switchover_without_a_crash_is_found_by_the_next_probe() {
    let servers = servers(&[]);
    let settings =
        MonitorSettings { check_interval: Duration::from_millis(300), ..MonitorSettings::default() };
    let cluster = watch(&servers, "postgres", settings);
    until_roles(&cluster, &UP).await;
    let mut admin = session(&servers, servers.replica.as_ref().unwrap()).await;
    admin.ask("SELECT pg_promote()").await;
    let took = until_roles(&cluster, &[Role::Fenced, Role::Primary]).await;
    assert!(took < Duration::from_millis(1000), "{took:?}");
    // A worker that hears of it makes it faster.
    cluster.observe(1, true);
    until_roles(&cluster, &[Role::Fenced, Role::Primary]).await;
}

/// S60: a host that hangs is found out in time and delays nothing.
#[tokio::test(flavor = "multi_thread")]
async fn hung_nodes_are_down_after_three_misses_and_come_back() {
    let servers = servers(&[]);
    let settings = MonitorSettings {
        check_interval: Duration::from_millis(200),
        check_timeout: Duration::from_millis(200),
    };
    let cluster = watch(&servers, "postgres", settings);
    until_roles(&cluster, &UP).await;
    let replica = servers.replica.as_ref().unwrap();
    freeze(replica, "STOP");
    let took = until_roles(&cluster, &[Role::Primary, Role::Down]).await;
    assert!(took > Duration::from_millis(400) && took < Duration::from_secs(4), "{took:?}");
    assert_eq!(cluster.primary(), Some(0));
    freeze(replica, "CONT");
    until_roles(&cluster, &UP).await;
    until("it is of use again", || cluster.choose_replica(0, None, 7) == Some(1)).await;

    freeze(&servers.primary, "STOP");
    let took = until_roles(&cluster, &[Role::Down, Role::Replica]).await;
    assert!(took > Duration::from_millis(400), "{took:?}");
    freeze(&servers.primary, "CONT");
    until_roles(&cluster, &UP).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn restarted_replica_has_caught_nothing_until_it_says_so() {
    let mut servers = servers(&[]);
    let cluster = watch(&servers, "postgres", MonitorSettings::default());
    until_roles(&cluster, &UP).await;
    until("it is of use", || cluster.choose_replica(0, None, 7) == Some(1)).await;
    servers.replica.as_mut().unwrap().stop();
    until_roles(&cluster, &[Role::Primary, Role::Down]).await;
    assert_eq!((cluster.caught(1), cluster.primary()), (0, Some(0)));
    servers.replica.as_mut().unwrap().start().unwrap();
    until_roles(&cluster, &UP).await;
    until("it is of use again", || cluster.choose_replica(0, None, 7) == Some(1)).await;

    // The primary restarts: the same one, on the same timeline, and what was caught stays.
    servers.primary.stop();
    until_roles(&cluster, &[Role::Down, Role::Replica]).await;
    servers.primary.start().unwrap();
    until_roles(&cluster, &UP).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn role_that_may_not_log_in_is_told_and_plain_role_is_enough() {
    let servers = servers(&[]);
    let cluster = watch(&servers, "nobody_at_all", MonitorSettings::default());
    until("a reason", || cluster.nodes[0].report().reason.is_some()).await;
    assert_eq!(roles(&cluster), [Role::Unknown, Role::Unknown]);
    let reason = cluster.nodes[0].report().reason.unwrap();
    assert!(reason.contains("nobody_at_all"), "{reason}");

    session(&servers, &servers.primary).await.ask("CREATE ROLE plain LOGIN").await;
    let cluster = watch(&servers, "plain", MonitorSettings::default());
    until_roles(&cluster, &UP).await;
    until("the replica is of use", || cluster.choose_replica(0, None, 7) == Some(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn monitor_ends_with_its_cluster_or_when_told() {
    let servers = servers(&[]);
    for stop in [true, false] {
        let cluster = watch(&servers, "postgres", MonitorSettings::default());
        until_roles(&cluster, &UP).await;
        let weak = Arc::downgrade(&cluster);
        if stop {
            cluster.stop();
        }
        drop(cluster);
        until("nobody holds the cluster", || weak.upgrade().is_none()).await;
    }
    let mut admin = session(&servers, &servers.primary).await;
    let count = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'";
    let start = Instant::now();
    while admin.ask(count).await.as_deref() != Some("1") {
        assert!(start.elapsed() < Duration::from_secs(5), "sessions of the monitor are left");
    }
}
