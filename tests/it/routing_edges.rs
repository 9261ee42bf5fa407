//! Routing where messages come in unusual company: pipelines that are cut, held back or sent again, transactions that go
//! on behind their COMMIT, errors of replicas amid a transaction.
//!
//! Covers H1, H3, H9, H11, H15, H18, H26, S56, S57.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use pooler::demo::process::wait_until;

use crate::{
    routing_table::{nodes, start},
    support::{
        msg::*,
        pooler::Pooler,
        raw::{PATIENCE, Raw},
        replicated::{Replicated, marker},
        truth::client,
    },
};

/// Tags of messages.
fn tags(frames: &[Frame]) -> String {
    frames.iter().map(|frame| char::from(frame.tag)).collect()
}

/// No replica replays anything meanwhile.
pub(crate) fn behind<T>(cluster: &Replicated, work: impl FnOnce() -> T) -> T {
    let replicas = [1, 2];
    let all = |sql: &str| replicas.iter().for_each(|node| drop(cluster.admin(*node).sql(sql)));
    all("SELECT pg_wal_replay_pause()");
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
    all("SELECT pg_wal_replay_resume()");
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// A client to whom every acknowledged write must show.
fn fresh(pooler: &Pooler) -> Raw {
    let mut client = client(pooler, "app");
    client.sql("SET pooler.read_consistency = fresh");
    client
}

/// What the primary would refuse too, in a read-only transaction on a replica.
#[test]
fn error_amid_a_read_only_transaction_is_told() {
    let cluster = nodes();
    let pooler = start(&cluster, |setup| setup);
    let mut client = client(&pooler, "app");
    let wrong = "SELECT no_such_column FROM item";
    client.sql("BEGIN READ ONLY");
    assert_eq!(client.try_sql(wrong).unwrap_err().field(b'C'), "42703");
    assert_eq!(client.try_sql("SELECT 1").unwrap_err().field(b'C'), "25P02");
    client.sql("ROLLBACK");
    let unit =
        ["BEGIN READ ONLY", wrong, "COMMIT"].map(|sql| [parse("", sql), bind("", &[]), execute()].concat());
    client.send_all(&[unit.concat(), sync()]);
    let frames = client.ready(1);
    assert!(tags(&frames).ends_with("EZ"), "{frames:?}");
    client.sql("ROLLBACK");
    assert_eq!(client.sql("SELECT count(*) FROM item"), ["20"]);
}

/// What waited for replies when its replica was lost is sent once.
#[test]
fn requests_that_were_held_back_are_sent_again_once() {
    let cluster = nodes();
    let pooler = start(&cluster, |setup| setup);
    let mut client = client(&pooler, "app");
    let sleeps = format!("SELECT pg_sleep(2)::text {}", marker("sleeps"));
    client.send_all(&[parse("a", &sleeps), sync(), parse("b", "SELECT 2"), sync()]);
    client.ready(2);
    pooler.console("RECONNECT");
    client.send_all(&[bind("a", &[]), execute(), sync(), bind("b", &[]), execute(), sync()]);
    std::thread::sleep(Duration::from_millis(700));
    for node in [1, 2] {
        let ends = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                    WHERE state = 'active' AND query LIKE '%pg_sleep(2)::text%' AND pid <> pg_backend_pid()";
        cluster.admin(node).sql(ends);
    }
    assert_eq!(tags(&client.ready(2)), "2DCZ2DCZ");
    client.silent(Duration::from_millis(300));
    assert!(cluster.runs().ran_on("sleeps").len() > 1);
}

/// One queue for all replicas: nobody waits for the server of one while another could serve him.
#[test]
fn reads_do_not_wait_behind_a_long_one_of_another_replica() {
    let cluster = nodes();
    for workers in [1, 2] {
        let pooler = start(&cluster, |setup| {
            setup.setting(&format!("workers = {workers}")).setting("default_pool_size = 1")
        });
        let mut sleeper = client(&pooler, "app");
        sleeper.send(&query("SELECT pg_sleep(100)::text"));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let mut reader = client(&pooler, "app");
                    (0..100).for_each(|_| drop(reader.sql("SELECT count(*) FROM item")));
                });
            }
        });
        sleeper.silent(Duration::from_millis(1));
        let frames = cancelled(&pooler, &mut sleeper);
        assert!(tags(&frames).ends_with("EZ"), "{frames:?}");
    }
}

/// A client that waits for a replica is looked at often, and none of these looks reads what it sends meanwhile.
#[test]
fn client_that_waits_for_a_replica_is_not_read_on() {
    let cluster = nodes();
    let pooler = start(&cluster, |setup| setup.setting("causal_wait = 60"));
    let (mut writer, mut reader) = (fresh(&pooler), fresh(&pooler));
    let count = "SELECT count(*) FROM log WHERE what = 'flood'";
    assert_eq!(reader.sql(count), ["0"]);
    let sending = behind(&cluster, || {
        writer.sql("INSERT INTO log VALUES ('flood')");
        reader.send(&query(count));
        // More than the buffers of the sockets hold.
        let flood = query(&format!("SELECT 1 /* {} */", "x".repeat(1 << 20))).repeat(64);
        let sending = reader.send_meanwhile(flood);
        std::thread::sleep(Duration::from_secs(3));
        assert!(!sending.is_finished(), "all of it was read");
        sending
    });
    assert_eq!(tags(&reader.ready(65)), format!("TDCZ{}", "TDCZ".repeat(64)));
    sending.join().unwrap();
    writer.sql("DELETE FROM log WHERE what = 'flood'");
}

/// A transaction that goes on behind its COMMIT has committed all the same (H18).
#[test]
fn what_a_chain_or_a_flush_has_committed_is_seen() {
    let cluster = nodes();
    let pooler = start(&cluster, |setup| setup);
    let commit = || vec![parse("", "COMMIT"), bind("", &[]), execute(), flush()];
    let ways: [(&str, Vec<Vec<u8>>); 4] = [
        ("chain", vec![query("COMMIT AND CHAIN")]),
        ("several", vec![query("COMMIT; BEGIN")]),
        (
            "unit",
            vec![
                [parse("", "COMMIT"), bind("", &[]), execute()].concat(),
                [parse("", "BEGIN"), bind("", &[]), execute(), sync()].concat(),
            ],
        ),
        ("flush", commit()),
    ];
    for (way, ends) in ways {
        let (mut writer, mut reader) = (fresh(&pooler), fresh(&pooler));
        let count = format!("SELECT count(*) FROM log WHERE what = 'way {way}'");
        assert_eq!(reader.sql(&count), ["0"]);
        behind(&cluster, || {
            writer.sql("BEGIN");
            writer.sql(&format!("INSERT INTO log VALUES ('way {way}')"));
            writer.send_all(&ends);
            writer.until(b'C');
            assert_eq!(reader.sql(&count), ["1"], "{way}");
            if way == "flush" {
                writer.send(&sync());
            }
            writer.until(b'Z');
            assert_eq!(reader.sql(&count), ["1"], "{way}");
            writer.sql("ROLLBACK");
            assert_eq!(reader.sql(&count), ["1"], "{way}, rolled back");
            writer.sql(&format!("DELETE FROM log WHERE what = 'way {way}'"));
        });
        cluster.catch_up_all();
    }
}

/// A write by a statement that was prepared in the same pipeline, in a unit of its own.
#[test]
fn write_that_waited_for_its_parse_is_seen() {
    let cluster = nodes();
    let pooler = start(&cluster, |setup| setup);
    let (mut writer, mut reader) = (fresh(&pooler), fresh(&pooler));
    let count = "SELECT count(*) FROM log WHERE what = 'prepared'";
    assert_eq!(reader.sql(count), ["0"]);
    behind(&cluster, || {
        let insert = parse("i", "INSERT INTO log SELECT 'prepared' FROM pg_sleep(2)");
        writer.send_all(&[insert, sync(), bind("i", &[]), execute(), sync()]);
        writer.ready(2);
        assert_eq!(reader.sql(count), ["1"]);
        writer.sql("DELETE FROM log WHERE what = 'prepared'");
    });
}

/// A transaction that a text with several statements has begun on a replica stays there (H15, S56).
#[test]
fn transaction_that_was_begun_among_others_stays_on_its_replica() {
    let cluster = nodes();
    let pooler = start(&cluster, |setup| setup);
    let mut client = client(&pooler, "app");
    client.sql("/* pooler: replica */ SELECT 1; BEGIN");
    let refused = client.try_sql("UPDATE target SET x = 4 WHERE id = 3").unwrap_err();
    assert_eq!(refused.field(b'C'), "25006");
    client.sql("ROLLBACK");
    client.sql("UPDATE target SET x = 4 WHERE id = 3");
}

/// What comes behind the end of a read-only transaction, of which the COMMIT came in pieces, is not for the replica.
#[test]
fn write_behind_a_commit_in_pieces_goes_to_the_primary() {
    let cluster = nodes();
    let pooler = start(&cluster, |setup| setup);
    let mut client = client(&pooler, "app");
    client.sql("BEGIN READ ONLY");
    assert_eq!(client.sql("SELECT count(*) FROM item"), ["20"]);
    client.send_all(&[parse("", "COMMIT"), bind("", &[]), execute()]);
    std::thread::sleep(Duration::from_millis(200));
    client.send_all(&[sync(), query("UPDATE target SET x = 4 WHERE id = 3")]);
    let frames = client.ready(2);
    assert_eq!(tags(&frames), "12CZCZ", "{frames:?}");
}

/// A request to pooler that comes while another is worked on is answered by pooler.
#[test]
fn settings_of_poolers_own_work_behind_queries() {
    let cluster = nodes();
    let pooler = start(&cluster, |setup| setup);
    let mut client = client(&pooler, "app");
    for (behind, route) in [("SELECT 1", "primary"), ("UPDATE target SET x = 4 WHERE id = 3", "replica")] {
        client.send_all(&[
            query(behind),
            query(&format!("SET pooler.route = {route}")),
            query("SHOW pooler.route"),
        ]);
        let frames = client.ready(3);
        assert_eq!(frames.iter().rfind(|frame| frame.tag == b'D').map(Frame::row), Some(route.to_owned()));
        let name = format!("behind {route}");
        client.sql(&format!("SELECT 1 {}", marker(&name)));
        let ran = cluster.runs().ran_on(&name);
        assert_eq!(ran.iter().map(|node| *node == 0).collect::<Vec<_>>(), [route == "primary"], "{route}");
    }
}

/// A transaction that is lost with its server stays failed for what the client has sent ahead, or sends on: none of it is
/// committed by itself.
#[test]
fn rest_of_a_lost_transaction_is_refused() {
    let cluster = nodes();
    let pooler = start(&cluster, |setup| setup);
    let insert = "INSERT INTO log VALUES ('rest')";
    let slow = query("SELECT pg_sleep(20)::text AS lost");
    let count = "SELECT count(*) FROM log WHERE what = 'rest'";
    // What was sent before the server is lost, and how each of the statements is answered.
    for (case, begin) in [("begun", "BEGIN"), ("idle", "BEGIN"), ("pipelined", "BEGIN READ WRITE")] {
        let mut client = client(&pooler, "app");
        let expected = match case {
            "pipelined" => {
                client.send_all(&[query(begin), query(insert), slow.clone()]);
                client.until(b'Z');
                client.until(b'Z');
                2
            }
            _ => {
                client.sql(begin);
                client.sql(insert);
                if case == "begun" {
                    client.send(&slow);
                }
                usize::from(case == "begun") + 1
            }
        };
        std::thread::sleep(Duration::from_millis(300));
        let ends = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() \
                    AND (query LIKE 'SELECT pg_sleep(20)%' OR state = 'idle in transaction')";
        cluster.admin(0).sql(ends);
        std::thread::sleep(Duration::from_millis(300));
        client.send_all(&[query(insert)]);
        let frames = client.ready(if case == "idle" { 1 } else { 2 });
        let errors = frames.iter().filter(|frame| frame.tag == b'E').count();
        assert_eq!(errors, if case == "pipelined" { 2 } else { expected }, "{case}: {frames:?}");
        assert!(frames.iter().all(|frame| frame.tag != b'Z' || frame.body == b"E"), "{case}: {frames:?}");
        client.send_all(&[parse("", insert), bind("", &[]), execute(), sync(), query("COMMIT")]);
        let frames = client.ready(2);
        assert_eq!(tags(&frames), "EZCZ", "{case}: {frames:?}");
        assert_eq!(frames.last().map(|frame| frame.body.clone()), Some(b"I".to_vec()));
        client.sql("SET pooler.route = primary");
        assert_eq!(client.sql(count), ["0"], "{case}");
    }
}

/// A transaction that was open when the nodes were changed is seen by who reads from the new ones.
#[test]
fn write_amid_a_change_of_nodes_is_seen() {
    let cluster = nodes();
    let pooler = start(&cluster, |setup| setup);
    let mut writer = client(&pooler, "app");
    writer.sql("BEGIN");
    writer.sql("INSERT INTO log VALUES ('amid')");
    cluster.catch_up_all();
    behind(&cluster, || {
        let (a, b) = (format!(":{}\"", cluster.node(1).port), format!(":{}\"", cluster.node(2).port));
        pooler.rewrite(&pooler.toml().replace(&a, "?").replace(&b, &a).replace('?', &b));
        pooler.console("RELOAD");
        cluster.wait_for_replicas(&pooler);
        let mut reader = fresh(&pooler);
        let count = "SELECT count(*) FROM log WHERE what = 'amid'";
        (0..5).for_each(|_| assert_eq!(reader.sql(count), ["0"]));
        writer.sql("COMMIT");
        assert_eq!(reader.sql("SELECT count(*) FROM log WHERE what = 'amid'"), ["1"]);
        writer.sql("DELETE FROM log WHERE what = 'amid'");
    });
}

/// What a DO has altered is known before anybody can use it: here which relations a write changes.
#[test]
fn definitions_that_are_hidden_in_code_are_noticed() {
    let cluster = nodes();
    cluster.sql(0, "CREATE TABLE IF NOT EXISTS told (what text); GRANT ALL ON told TO app");
    cluster.catch_up_all();
    let pooler = start(&cluster, |setup| setup);
    let (mut writer, mut reader) =
        (Raw::login(pooler.port, "boss", "replicated", "secret of boss"), fresh(&pooler));
    let count = "SELECT count(*) FROM told";
    let before: i64 = reader.sql(count)[0].parse().unwrap();
    writer.sql(
        "DO $$ BEGIN CREATE FUNCTION f_tells() RETURNS trigger LANGUAGE plpgsql AS \
         'BEGIN INSERT INTO told VALUES (''trigger''); RETURN NEW; END'; \
         CREATE TRIGGER tells BEFORE INSERT ON log FOR EACH ROW EXECUTE FUNCTION f_tells(); END $$",
    );
    // The replicas have seen that, and pooler knows.
    cluster.catch_up_all();
    std::thread::sleep(Duration::from_millis(1500));
    let seen = behind(&cluster, || {
        writer.sql("INSERT INTO log VALUES ('do')");
        reader.sql(count)
    });
    cluster.sql(0, "DROP FUNCTION f_tells CASCADE; DELETE FROM log WHERE what = 'do'; DROP TABLE told");
    assert_eq!(seen, [(before + 1).to_string()]);
}

/// In READ COMMITTED each statement sees what was acknowledged before it, in a read-only transaction on a replica too: it
/// waits until that has it.
#[test]
fn statement_of_a_read_only_transaction_waits_for_what_was_acknowledged() {
    let cluster = nodes();
    let pooler = start(&cluster, |setup| setup);
    let (mut reader, mut writer) = (fresh(&pooler), client(&pooler, "app"));
    writer.sql("CREATE TABLE IF NOT EXISTS waited_for (v int)");
    writer.sql("TRUNCATE waited_for");
    // Until the new table is known, and replayed.
    let before = cluster.runs();
    drop(before);
    let on_replica = |reader: &mut Raw, name: &str| {
        reader.sql("BEGIN READ ONLY");
        reader.sql(&format!("SELECT count(*) FROM waited_for {}", marker(name)));
        cluster.runs().ran_on(name).iter().any(|&node| node != 0)
    };
    let mut found = false;
    for attempt in 0..50 {
        found = on_replica(&mut reader, &format!("waits {attempt}"));
        if found {
            break;
        }
        reader.sql("COMMIT");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(found, "no read-only transaction runs on a replica");
    [1, 2].iter().for_each(|&node| drop(cluster.admin(node).sql("SELECT pg_wal_replay_pause()")));
    writer.sql("INSERT INTO waited_for VALUES (1)");
    let resume = std::thread::scope(|scope| {
        let late = scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(400));
            [1, 2].iter().for_each(|&node| drop(cluster.admin(node).sql("SELECT pg_wal_replay_resume()")));
        });
        let count = reader.sql("SELECT count(*) FROM waited_for");
        late.join().unwrap();
        count
    });
    assert_eq!(resume, ["1"]);
    reader.sql("COMMIT");
}

/// What comes back when a client is cancelled again and again, until it is answered.
pub(crate) fn cancelled(pooler: &Pooler, client: &mut Raw) -> Vec<Frame> {
    let (answered, key) = (AtomicBool::new(false), client.key.clone());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !answered.load(Ordering::Acquire) {
                pooler.connect().cancel_with(&key);
            }
        });
        let frames = client.ready(1);
        answered.store(true, Ordering::Release);
        frames
    })
}

/// What waits for a replica that replays nothing is told so in the end, by every way of the protocol, and can be cancelled:
/// the transaction has failed, until its client ends it. Its server is as good as before.
#[test]
fn statement_of_a_read_only_transaction_does_not_wait_for_ever() {
    let cluster = nodes();
    let pooler = start(&cluster, |setup| setup.setting("failover_hold = 0"));
    let mut writer = client(&pooler, "app");
    let count = "SELECT count(*) FROM log WHERE what = 'meanwhile'";
    let named = || [bind("counts", &[]), execute()].concat();
    let unnamed = || [parse("", count), bind("", &[]), execute()].concat();
    let one = [parse("", "SELECT 1"), bind("", &[]), execute()].concat();
    let cases = [
        ("simple", vec![query(count)], "EZ"),
        ("unnamed", vec![unnamed(), sync()], "EZ"),
        ("named", vec![named(), named(), sync()], "EZ"),
        ("behind another", vec![query("SELECT 1"), query(count), query("SELECT 2")], "TDCZEZEZ"),
        ("behind Flush", vec![one, flush(), unnamed(), unnamed(), sync()], "12DCEZ"),
        ("cancelled", vec![query(count)], "EZ"),
    ];
    for (case, messages, expected) in cases {
        let mut reader = fresh(&pooler);
        reader.send_all(&[parse("counts", count), sync()]);
        reader.ready(1);
        // Once it has been replayed everywhere, replicas serve again.
        cluster.catch_up_all();
        let name = format!("never {case}");
        let found = wait_until(PATIENCE, || {
            reader.sql("BEGIN READ ONLY");
            reader.sql(&format!("SELECT count(*) FROM log {}", marker(&name)));
            let found = cluster.runs().ran_on(&name).iter().any(|&node| node != 0);
            if !found {
                reader.sql("COMMIT");
            }
            found.then_some(())
        });
        assert_eq!(found, Some(()), "{case}: no read-only transaction runs on a replica");
        behind(&cluster, || {
            writer.sql("INSERT INTO log VALUES ('meanwhile')");
            reader.send_all(&messages);
            let frames = match case {
                "cancelled" => cancelled(&pooler, &mut reader),
                _ => reader.ready(expected.matches('Z').count()),
            };
            assert_eq!(tags(&frames), expected, "{case}: {frames:?}");
            let error = frames.iter().find(|frame| frame.tag == b'E').unwrap();
            let sqlstate = if case == "cancelled" { "57014" } else { "40001" };
            assert_eq!(error.field(b'C'), sqlstate, "{case}");
            assert_eq!(error.field(b'H').contains("Repeat"), case != "cancelled", "{case}");
            let last = frames.last().map(|frame| frame.body.clone());
            assert_eq!(last, Some(b"E".to_vec()), "{case}");
            assert_eq!(reader.try_sql("SELECT 1").unwrap_err().field(b'C'), "25P02", "{case}");
            reader.send(&query("COMMIT"));
            let frames = reader.ready(1);
            assert_eq!((tags(&frames).as_str(), frames[0].body.as_slice()), ("CZ", &b"ROLLBACK\0"[..]));
            // The next one goes where the row is.
            assert_ne!(reader.sql(count), ["0"], "{case}");
        });
    }
    let mut client = client(&pooler, "app");
    client.sql("SET pooler.route = replica");
    (0..4).for_each(|_| assert_eq!(client.sql("SELECT 1"), ["1"]));
}

/// A backend that its client and pooler have left amid a write commits all the same, and nobody is told: who has seen that on
/// the primary sees it on replicas too.
#[test]
fn commit_of_a_client_that_has_left_is_not_unseen() {
    let cluster = nodes();
    let pooler = start(&cluster, |setup| setup);
    let mut reader = fresh(&pooler);
    reader.sql("CREATE TABLE abandoned (x int)");
    cluster.catch_up_all();
    let mut blocker = cluster.connect(0);
    blocker.sql("BEGIN");
    blocker.sql("LOCK TABLE abandoned IN SHARE MODE");
    let mut gone = fresh(&pooler);
    let until = |what: &str, done: &mut dyn FnMut() -> bool| {
        assert!(wait_until(PATIENCE, || done().then_some(())).is_some(), "not {what}: {}", pooler.log());
    };
    // What no Sync has ended: the server is closed, and not read to its end.
    gone.send_all(&[query("INSERT INTO abandoned VALUES (1)"), parse("", "SELECT 1")]);
    let blocked = "SELECT count(*) FROM pg_stat_activity \
                   WHERE wait_event_type = 'Lock' AND query LIKE 'INSERT INTO abandoned%'";
    until("blocked", &mut || cluster.number(0, blocked) == 1);
    gone.disconnect();
    let is_active =
        |row: &Vec<(String, String)>| row.iter().any(|(name, value)| name == "state" && value == "active");
    until("closed", &mut || !pooler.console("SHOW SERVERS").iter().any(is_active));
    assert_eq!(cluster.number(0, blocked), 1, "its backend has noticed");
    let mut times = 0;
    until("read on a replica since", &mut || {
        times += 1;
        let name = format!("abandoned {times}");
        assert_eq!(reader.sql(&format!("SELECT count(*) FROM abandoned {}", marker(&name))), ["0"]);
        cluster.runs().ran_on(&name).iter().any(|&node| node != 0)
    });
    behind(&cluster, || {
        blocker.sql("COMMIT");
        until("committed", &mut || cluster.number(0, "SELECT count(*) FROM abandoned") == 1);
        for route in ["primary", "auto", "auto"] {
            reader.sql(&format!("SET pooler.route = {route}"));
            assert_eq!(reader.sql("SELECT count(*) FROM abandoned"), ["1"], "{route}");
        }
    });
}
