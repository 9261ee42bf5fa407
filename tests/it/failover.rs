//! What clients see when nodes die, hang, come back, and when the primary changes: a pause. POOLER_FAILOVER_ROUNDS is the
//! number of rounds of the longest test (20 by hand).
//!
//! Covers H14, H26, H28, H29, S31, S58–S60 and ROUTING 4.6, 5.

use std::{process::Command, time::Duration};

use pooler::demo::process::wait_until;

use crate::support::{
    load::{Load, Reply, Story, Work, ask, assert_balanced, assert_kept, assert_served, start},
    msg::*,
    pooler::{Pooler, Setup},
    raw::Raw,
    replicated::{DATABASE, Replicated},
};

/// Service has to go on within a second of a promotion; other tests run on this machine.
const SOON: Duration = Duration::from_secs(10);

fn pooler(cluster: &Replicated, order: &[usize], adapt: impl Fn(Setup) -> Setup) -> Pooler {
    let pooler = adapt(cluster.setup(order)).start();
    cluster.wait_for_replicas(&pooler);
    pooler
}

fn pause(seconds: f32) {
    std::thread::sleep(Duration::from_secs_f32(seconds));
}

fn rounds() -> usize {
    std::env::var("POOLER_FAILOVER_ROUNDS").map_or(2, |rounds| rounds.parse().unwrap())
}

/// Kills the primary, promotes the synchronous replica, and makes the others follow it.
fn fail_over(cluster: &mut Replicated, load: &Load, to: usize) {
    let old = cluster.primary();
    cluster.crash(old);
    pause(0.2);
    cluster.promote(to);
    eprintln!("service goes on {:?} after promotion", load.goes_on(SOON));
    for replica in cluster.replicas() {
        cluster.follow_or_rejoin(replica, to);
    }
    cluster.rejoin(old, to);
}

/// The test of the tests: at one PostgreSQL all is well, and what is lost or doubled is found.
#[test]
fn load_tells_what_was_lost() {
    let cluster = start(0);
    let work = [Work::Ledger, Work::Ledger, Work::Bank, Work::Bank, Work::Reads];
    let stories = Load::run(&work, &|| cluster.connect(0), |load| {
        load.goes_on(SOON);
    });
    let (ledger, bank): (Vec<Story>, Vec<Story>) =
        stories.into_iter().partition(|story| story.acknowledged.first().is_none_or(|id| *id < 200_000_000));
    assert_kept(&cluster, 0, "ledger", &ledger);
    assert_kept(&cluster, 0, "history", &bank);
    assert_balanced(&cluster, 0);
    let found = |damage: &str, check: &dyn Fn()| {
        let mut admin = cluster.admin(0);
        admin.sql("BEGIN");
        admin.sql(damage);
        admin.sql("COMMIT");
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(check)).is_err()
    };
    assert!(found("UPDATE teller SET balance = balance + 1 WHERE id = 1", &|| assert_balanced(&cluster, 0)));
    let kept = || assert_kept(&cluster, 0, "ledger", &ledger);
    assert!(found("INSERT INTO ledger SELECT min(id) FROM ledger", &kept));
    assert!(found("DELETE FROM ledger WHERE id = (SELECT min(id) FROM ledger)", &kept));
}

#[test]
fn primary_killed_under_load_loses_nothing_that_was_acknowledged() {
    let mut cluster = start(2);
    let pooler = pooler(&cluster, &[0, 1, 2], |setup| setup);
    let mut idle = pooler.connect();
    let work = [Work::Ledger, Work::Ledger, Work::Ledger, Work::Ledger, Work::Reads];
    let stories = Load::run(&work, &|| pooler.connect(), |load| {
        for round in 0..rounds() {
            let next = cluster.replicas()[round % 2];
            cluster.synchronous(next);
            pause(0.5);
            // Until then writes may be under way that began when nobody waited for the replica.
            load.goes_on(SOON);
            let primary = cluster.primary();
            cluster.catch_up(next, primary);
            fail_over(&mut cluster, load, next);
            // Who was not at work has not noticed.
            assert_eq!(idle.sql("SELECT count(*) FROM still"), ["100"]);
            idle.sql("CREATE TEMP TABLE mine (x int); DROP TABLE mine");
        }
    });
    cluster.wait_until_idle(&pooler);
    assert_kept(&cluster, cluster.primary(), "ledger", &stories);
    assert_served(&stories, rounds());
}

#[test]
fn replicas_die_hang_and_return_without_an_error_for_readers() {
    let mut cluster = start(2);
    let pooler = pooler(&cluster, &[0, 1, 2], |setup| setup.setting("node_check_interval = \"200ms\""));
    let work = [Work::Reads, Work::Reads, Work::Reads, Work::Reads, Work::Ledger];
    let stories = Load::run(&work, &|| pooler.connect(), |load| {
        let step = |load: &Load| {
            pause(0.3);
            load.goes_on(SOON);
        };
        step(load);
        cluster.crash(1);
        step(load);
        cluster.restart(1);
        step(load);
        cluster.freeze(2);
        pause(2.0);
        step(load);
        cluster.thaw(2);
        step(load);
        cluster.stop_fast(1);
        cluster.stop_immediately(2);
        step(load);
        cluster.restart(1);
        cluster.restart(2);
        step(load);
        cluster.freeze(1);
        pause(1.0);
        cluster.crash(1);
        step(load);
        cluster.restart(1);
        cluster.wait_for_replicas(&pooler);
    });
    cluster.wait_until_idle(&pooler);
    assert_served(&stories, 0);
    assert_kept(&cluster, 0, "ledger", &stories);
}

/// A frozen machine sends no EOF: only a deadline finds it (S60).
#[test]
fn primary_that_hangs_is_left_for_the_promoted_one() {
    let mut cluster = start(2);
    cluster.synchronous(1);
    let pooler = pooler(&cluster, &[0, 1, 2], |setup| setup);
    let work = [Work::Ledger, Work::Ledger, Work::Reads];
    let stories = Load::run(&work, &|| pooler.connect(), |load| {
        pause(0.5);
        cluster.freeze(0);
        pause(0.5);
        cluster.promote(1);
        eprintln!("service goes on {:?} after promotion", load.goes_on(2 * SOON));
        cluster.follow_or_rejoin(2, 1);
        // It wakes up, and believes that it is the primary.
        cluster.thaw(0);
        pause(2.0);
        load.goes_on(SOON);
    });
    assert_served(&stories, 1);
    assert_kept(&cluster, 1, "ledger", &stories);
}

#[test]
fn an_old_primary_that_comes_back_gets_nothing() {
    let mut cluster = start(2);
    cluster.synchronous(1);
    let pooler = pooler(&cluster, &[0, 1, 2], |setup| setup);
    let rows = |cluster: &Replicated| cluster.number(0, "SELECT count(*) FROM ledger");
    let mut after_restart = 0;
    let stories = Load::run(&[Work::Ledger; 3], &|| pooler.connect(), |load| {
        pause(0.5);
        cluster.crash(0);
        cluster.promote(1);
        load.goes_on(SOON);
        cluster.restart(0);
        after_restart = rows(&cluster);
        pause(3.0);
        load.goes_on(SOON);
    });
    assert_eq!(rows(&cluster), after_restart, "the old timeline was written to");
    assert_served(&stories, 1);
    assert_kept(&cluster, 1, "ledger", &stories);
    let nodes = pooler.console("SHOW NODES");
    let fenced = nodes.iter().filter(|row| row.iter().any(|(_, value)| value == "fenced")).count();
    assert_eq!(fenced, 1, "{nodes:?}");
    // A pooler that finds two primaries when it starts takes the one of the newer timeline.
    for order in [[0, 1], [1, 0]] {
        let fresh = cluster.setup(&order).start();
        let mut client = fresh.connect();
        (0..10).for_each(|_| drop(client.sql("INSERT INTO ledger VALUES (-1)")));
        assert_eq!(rows(&cluster), after_restart, "written to by a pooler with nodes {order:?}");
        assert_eq!(client.sql("SELECT count(*) > 0 FROM ledger WHERE id = -1"), ["t"]);
    }
}

#[test]
fn of_two_primaries_the_newer_timeline_wins_and_nobody_goes_back() {
    let mut cluster = start(1);
    let pooler = pooler(&cluster, &[0, 1], |setup| setup);
    let stories = Load::run(&[Work::Ledger; 3], &|| pooler.connect(), |load| {
        pause(0.5);
        // The old one does not notice.
        cluster.promote(1);
        pause(3.0);
        load.goes_on(SOON);
    });
    let ids = |node: usize| -> std::collections::HashSet<String> {
        cluster.sql(node, "SELECT id FROM ledger").into_iter().collect()
    };
    let (old, new) = (ids(0), ids(1));
    for story in &stories {
        // From the first that only the new one has, all are there.
        let only_new = |id: &&i64| !old.contains(&id.to_string());
        let after: Vec<&i64> = story.acknowledged.iter().skip_while(|id| !only_new(id)).collect();
        assert!(after.len() > 10, "still at the old primary after 3 seconds");
        let lost: Vec<_> = after.iter().filter(|id| !new.contains(&id.to_string())).collect();
        assert!(lost.is_empty(), "written to the old timeline after the new one was found: {lost:?}");
        assert_eq!(story.disconnects, 0);
    }
}

/// A replica that is ahead of the promoted one has rows that never were (ROUTING 4.6).
#[test]
fn replica_ahead_of_the_new_primary_serves_no_reads() {
    let mut cluster = start(2);
    let pooler = pooler(&cluster, &[0, 1, 2], |setup| setup);
    let mut client = pooler.connect();
    client.sql("INSERT INTO ledger VALUES (1)");
    cluster.catch_up_all();
    cluster.freeze(1);
    // Known to node 2 and nobody else that lives.
    client.sql("INSERT INTO ledger SELECT 2 FROM generate_series(1, 20000)");
    cluster.catch_up(2, 0);
    cluster.crash(0);
    cluster.thaw(1);
    cluster.promote(1);
    client.sql("INSERT INTO ledger VALUES (3)");
    for _ in 0..200 {
        assert_eq!(client.sql("SELECT count(*), max(id) FROM ledger WHERE id IN (1, 2, 3)"), ["2|3"]);
    }
    cluster.rejoin(2, 1);
    cluster.wait_for_replicas(&pooler);
    assert_eq!(client.sql("SELECT count(*), max(id) FROM ledger WHERE id IN (1, 2, 3)"), ["2|3"]);
}

/// Without a primary reads go on, and writes wait, but not for ever.
#[test]
fn without_a_primary_reads_go_on_and_writes_wait() {
    let mut cluster = start(1);
    let pooler = pooler(&cluster, &[0, 1], |setup| setup.setting("failover_hold = \"2s\""));
    let (mut reader, mut writer) = (pooler.connect(), pooler.connect());
    cluster.crash(0);
    for _ in 0..50 {
        assert_eq!(reader.sql("SELECT count(*) FROM still"), ["100"]);
    }
    let start = std::time::Instant::now();
    let error = loop {
        match ask(&mut writer, &query("INSERT INTO ledger VALUES (1)")) {
            // Sent on the connection before it was known to be lost.
            Reply::Error(error, b'I') if start.elapsed() < Duration::from_secs(1) => drop(error),
            Reply::Error(error, b'I') => break error,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(error.field(b'C'), "57P03", "{error:?}");
    // What waits when the new primary appears is served.
    writer.send(&query("INSERT INTO ledger VALUES (2)"));
    pause(0.5);
    cluster.promote(1);
    assert!(writer.ready(1).iter().all(|frame| frame.tag != b'E'));
    assert_eq!(reader.sql("SELECT id FROM ledger"), ["2"]);
}

/// A server that says that it is being ended, while it has nothing to do, raises the same doubt as one whose connection is lost
/// amid its work: the others may follow, so nothing is begun on the primary until it has answered the monitor.
#[test]
fn primary_that_ends_idle_servers_has_to_answer_before_more_is_begun() {
    let cluster = start(1);
    let pooler = pooler(&cluster, &[0, 1], |setup| setup.setting("node_check_timeout = \"60s\""));
    let mut clients: Vec<Raw> = (0..2).map(|_| pooler.connect()).collect();
    for step in ["BEGIN", "INSERT INTO ledger VALUES (0)", "ROLLBACK"] {
        clients.iter_mut().for_each(|client| drop(client.sql(step)));
    }
    let servers = "SELECT pid FROM pg_stat_activity WHERE usename = 'app' AND query = 'ROLLBACK'";
    let mut admin = cluster.admin(0);
    assert_eq!(admin.sql(servers).len(), 2);
    // As a server that shuts down, it takes no new sessions: the monitor, which wants one, gets no answer.
    let postmaster = cluster.node(0).pid().unwrap().to_string();
    let signal = |name: &str| {
        assert!(Command::new("kill").args([name, postmaster.as_str()]).status().unwrap().success())
    };
    signal("-STOP");
    let open = || pooler.console("SHOW SERVERS").len();
    let before = open();
    admin.sql(&format!("SELECT pg_terminate_backend(pid) FROM ({servers} LIMIT 1) s"));
    assert!(wait_until(SOON, || (open() < before).then_some(())).is_some(), "{}", pooler.log());
    clients[0].send(&query("INSERT INTO ledger VALUES (1)"));
    pooler.wait_for_pool("cl_waiting", 1);
    assert_eq!(admin.sql("SELECT count(*) FROM ledger"), ["0"]);
    signal("-CONT");
    assert!(clients[0].ready(1).iter().all(|frame| frame.tag != b'E'));
    assert_eq!(admin.sql("SELECT count(*) FROM ledger"), ["1"]);
}

/// Of a batch whose beginning has been answered, nothing is done when its server dies: Sync alone does not say so.
#[test]
fn batches_that_are_lost_halfway_end_with_an_error() {
    let mut cluster = start(1);
    cluster.synchronous(1);
    let pooler = pooler(&cluster, &[0, 1], |setup| setup);
    let insert = |id: &str| [bind("", &[Some(id)]), execute()].concat();
    let (mut parsed, mut executed) = (pooler.connect(), pooler.connect());
    let text = "INSERT INTO ledger VALUES ($1)";
    parsed.send(&[parse("", text), flush()].concat());
    parsed.until(b'1');
    executed.send(&[parse("", text), insert("1"), flush()].concat());
    executed.until(b'C');
    cluster.crash(0);
    cluster.promote(1);
    for (client, rest) in [(&mut parsed, [insert("2"), sync()].concat()), (&mut executed, sync())] {
        match ask(client, &rest) {
            Reply::Error(error, b'I') => assert_eq!(error.field(b'C'), "08006"),
            other => panic!("{other:?}"),
        }
        assert_eq!(client.sql("SELECT count(*) FROM ledger"), ["0"]);
        let again = [parse("", text), insert("3"), sync()].concat();
        assert!(matches!(ask(client, &again), Reply::Rows(..)));
        client.sql("DELETE FROM ledger");
    }
}

/// A transaction that is open when the primary dies fails, and its client goes on.
#[test]
fn open_transactions_fail_and_their_clients_go_on() {
    let mut cluster = start(1);
    cluster.synchronous(1);
    let pooler = pooler(&cluster, &[0, 1], |setup| setup);
    let mut clients: Vec<Raw> = (0..3).map(|_| pooler.connect()).collect();
    for client in &mut clients {
        client.sql("BEGIN");
        client.sql("INSERT INTO ledger VALUES (1)");
    }
    clients[1].send(&query("SELECT pg_sleep(30), count(*) FROM ledger"));
    pause(0.3);
    cluster.crash(0);
    cluster.promote(1);
    let told = clients[1].ready(1);
    assert!(told.iter().any(|frame| frame.tag == b'E'), "{told:?}");
    assert!(matches!(ask(&mut clients[0], &query("SELECT 1")), Reply::Error(..)));
    assert!(matches!(ask(&mut clients[2], &query("COMMIT")), Reply::Error(..)));
    for client in &mut clients {
        let Reply::Rows(..) = ask(client, &query("ROLLBACK")) else { panic!("no ROLLBACK") };
        assert_eq!(client.sql("SELECT count(*) FROM ledger"), ["0"]);
        client.sql("BEGIN");
        client.sql("INSERT INTO ledger VALUES (2)");
        client.sql("ROLLBACK");
    }
}

/// Of a write whose answer is lost nobody knows whether it was committed. Its client is told so, and told apart from those
/// whose transactions were certainly rolled back; nothing is done twice (H14).
#[test]
fn lost_answer_to_a_commit_is_told_as_unknown() {
    let mut cluster = start(1);
    let pooler = pooler(&cluster, &[0, 1], |setup| setup);
    let [mut alone, mut block, mut open] = [(); 3].map(|()| pooler.connect());
    // What is committed waits for a replica that says nothing, and so does its answer.
    cluster.synchronous(1);
    cluster.freeze(1);
    alone.send(&query("INSERT INTO ledger VALUES (1)"));
    block.sql("BEGIN");
    block.sql("INSERT INTO ledger VALUES (2)");
    block.send(&query("COMMIT"));
    open.sql("BEGIN");
    open.sql("INSERT INTO ledger VALUES (3)");
    open.send(&query("SELECT pg_sleep(30)"));
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event IN ('SyncRep', 'PgSleep')";
    let all = wait_until(SOON, || (cluster.number(0, waiting) == 3).then_some(()));
    assert!(all.is_some(), "{}", pooler.log());
    cluster.crash(0);
    for (client, expected) in [(&mut alone, "08007"), (&mut block, "08007"), (&mut open, "08006")] {
        let told = client.ready(1);
        let error = told.iter().find(|frame| frame.tag == b'E').unwrap();
        assert_eq!(error.field(b'C'), expected, "{told:?}");
    }
    cluster.thaw(1);
    cluster.restart(0);
    open.sql("ROLLBACK");
    for client in [&mut alone, &mut block, &mut open] {
        client.sql("INSERT INTO ledger VALUES (4)");
    }
    assert_eq!(cluster.sql(0, "SELECT id FROM ledger ORDER BY id"), ["1", "2", "4", "4", "4"]);
}

/// A replica that cancels a read, since replay cannot wait for it, is no error of the reader (H26).
#[test]
fn read_that_a_replica_cancels_for_recovery_runs_elsewhere() {
    let mut cluster = start(1);
    cluster.configure(1, &["max_standby_streaming_delay = 0"]);
    let pooler = pooler(&cluster, &[0, 1], |setup| setup);
    let mut client = pooler.connect();
    client.send(&query("SELECT pg_sleep(2)::text || count(*) FROM still"));
    let running = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    let there = wait_until(SOON, || (cluster.number(1, running) == 1).then_some(()));
    assert!(there.is_some(), "not on the replica: {:?}", pooler.console("SHOW ROUTES"));
    let mut admin = cluster.admin(0);
    ["BEGIN", "LOCK TABLE still", "COMMIT"].iter().for_each(|sql| drop(admin.sql(sql)));
    let told = client.ready(1);
    assert!(told.iter().all(|frame| frame.tag != b'E'), "{told:?}");
    assert_eq!(told.iter().find(|frame| frame.tag == b'D').map(Frame::row).as_deref(), Some("100"));
    let conflicts = "SELECT confl_lock FROM pg_stat_database_conflicts WHERE datname = current_database()";
    // Counted some time later.
    assert!(wait_until(SOON, || (cluster.number(1, conflicts) > 0).then_some(())).is_some(), "not cancelled");
}

/// Somebody who ends a read wants it to end: it is not repeated for ever.
#[test]
fn a_read_whose_servers_are_ended_again_and_again_fails() {
    let cluster = start(1);
    let pooler = pooler(&cluster, &[0, 1], |setup| setup);
    let mut client = pooler.connect();
    client.send(&query("SELECT pg_sleep(30) AS endless"));
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE wait_event = 'PgSleep' AND query = 'SELECT pg_sleep(30) AS endless'";
    let start = std::time::Instant::now();
    let mut ended = 0;
    while ended < 3 {
        assert!(start.elapsed() < SOON, "ended {ended} times");
        ended += (0..2).map(|node| cluster.sql(node, end).len()).sum::<usize>();
    }
    let told = client.ready(1);
    assert!(told.iter().any(|frame| frame.tag == b'E' && frame.field(b'C') == "57P01"), "{told:?}");
    assert_eq!(client.sql("SELECT 1"), ["1"]);
}

/// Columns that a client has asked for before are not others all of a sudden: it is told, as by PostgreSQL.
#[test]
fn result_that_changed_on_a_replica_is_an_error_as_on_the_primary() {
    let cluster = start(1);
    let pooler = pooler(&cluster, &[0, 1], |setup| setup);
    let mut client = pooler.connect();
    client.sql("SELECT count(*) FROM still");
    client.send_all(&[parse("s", "SELECT * FROM still"), describe("s"), sync()]);
    client.ready(1);
    let run = [bind("s", &[]), execute(), sync()];
    client.send_all(&run);
    assert!(client.ready(1).iter().any(|frame| frame.tag == b'D'));
    cluster.connect(0).sql("ALTER TABLE still ADD COLUMN more int");
    cluster.catch_up_all();
    client.send_all(&run);
    let told = client.ready(1);
    assert!(told.iter().any(|frame| frame.tag == b'E' && frame.field(b'C') == "0A000"), "{told:?}");
    assert!(cluster.calls(1, "SELECT * FROM still") > 0);
}

/// PAUSE, promote, RESUME: nobody notices (a TPC-B-like load).
#[test]
fn paused_switchover_shows_no_error() {
    let mut cluster = start(2);
    let pooler = pooler(&cluster, &[0, 1, 2], |setup| setup);
    let work = [Work::Bank, Work::Bank, Work::Bank, Work::Bank, Work::Reads];
    let stories = Load::run(&work, &|| pooler.connect(), |load| {
        let mut console = pooler.admin();
        for (old, new) in [(0, 1), (1, 0)] {
            pause(0.5);
            console.sql(&format!("PAUSE {DATABASE}"));
            cluster.catch_up(new, old);
            cluster.promote(new);
            cluster.stop_fast(old);
            console.sql(&format!("RESUME {DATABASE}"));
            eprintln!("service goes on after {:?}", load.goes_on(SOON));
            cluster.follow_or_rejoin(2, new);
            cluster.rejoin(old, new);
        }
    });
    assert_served(&stories, 0);
    assert_kept(&cluster, 0, "history", &stories);
    assert_balanced(&cluster, 0);
}

/// The same without a word to pooler: transactions that were open fail, nothing else does.
#[test]
fn unannounced_switchover_fails_open_transactions_only() {
    let mut cluster = start(2);
    let pooler = pooler(&cluster, &[0, 1, 2], |setup| setup);
    let mut idle: Vec<Raw> = (0..5).map(|_| pooler.connect()).collect();
    let work = [Work::Bank, Work::Bank, Work::Bank, Work::Reads, Work::Reads];
    let stories = Load::run(&work, &|| pooler.connect(), |load| {
        pause(0.5);
        // Sends all it has to the replicas before it ends.
        cluster.stop_fast(0);
        cluster.promote(1);
        for client in &mut idle {
            client.sql("INSERT INTO ledger VALUES (1)");
        }
        eprintln!("service goes on after {:?}", load.goes_on(SOON));
        cluster.follow_or_rejoin(2, 1);
        cluster.rejoin(0, 1);
        pause(0.5);
    });
    assert_served(&stories, 1);
    assert_kept(&cluster, 1, "history", &stories);
    assert_balanced(&cluster, 1);
}
