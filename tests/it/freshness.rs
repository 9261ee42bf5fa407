//! Reads see what was acknowledged before they began, whoever wrote it and however: hammered with writers and readers on
//! connections of their own. POOLER_HAMMER_READS makes each test read so often (200000 by hand).
//!
//! Covers ROUTING 4: acknowledged writes of others, monotonic reads, synchronous_commit on and off, subtransactions,
//! prepared transactions, replicas behind replicas; triggers, rules, cascades, partitions, views and DDL.

use std::{
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use pooler::demo::process::wait_until;

use crate::support::{
    hammer::{Channel, Hammer, Op, Outcome, Player, reads},
    msg::{Frame, bind, close, execute, parse, query, sync},
    pooler::Pooler,
    raw::{PATIENCE, Raw},
    replicated::Replicated,
};

const KEYS: usize = 8;

const SET_UP: &[&str] = &[
    "CREATE TABLE plain (k int PRIMARY KEY, v int)",
    "CREATE TABLE still (x int)",
    "INSERT INTO still VALUES (1)",
    "CREATE VIEW plain_view AS SELECT * FROM plain",
    "CREATE VIEW plain_deep AS SELECT k, v FROM (SELECT * FROM plain_view) AS inner_one",
    "CREATE FUNCTION plain_value(int) RETURNS int STABLE LANGUAGE sql AS 'SELECT v FROM plain WHERE k = $1'",
    "CREATE FUNCTION plain_set(int, int) RETURNS int LANGUAGE sql AS 'UPDATE plain SET v = $2 WHERE k = $1 RETURNING v'",
    "CREATE FUNCTION plain_set_dynamic(int, int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN \
     EXECUTE format('UPDATE %s SET v = %s WHERE k = %s', 'pl' || 'ain', $2, $1); RETURN $2; END $$",
    "CREATE TABLE opaque (k int PRIMARY KEY, v int)",
    "CREATE PROCEDURE opaque_call(int, int) LANGUAGE sql AS 'UPDATE opaque SET v = $2 WHERE k = $1'",
    // What a trigger does.
    "CREATE TABLE source (k int PRIMARY KEY, v int)",
    "CREATE TABLE copied (k int PRIMARY KEY, v int)",
    "CREATE FUNCTION copy_it() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
     UPDATE copied SET v = NEW.v WHERE k = NEW.k; RETURN NEW; END $$",
    "CREATE TRIGGER copies AFTER UPDATE ON source FOR EACH ROW EXECUTE FUNCTION copy_it()",
    "CREATE TABLE source_late (k int PRIMARY KEY, v int)",
    "CREATE TABLE copied_late (k int PRIMARY KEY, v int)",
    "CREATE FUNCTION copy_late() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
     UPDATE copied_late SET v = NEW.v WHERE k = NEW.k; RETURN NULL; END $$",
    "CREATE CONSTRAINT TRIGGER late AFTER UPDATE ON source_late DEFERRABLE INITIALLY DEFERRED \
     FOR EACH ROW EXECUTE FUNCTION copy_late()",
    // What a rule does.
    "CREATE TABLE ruled (k int PRIMARY KEY, v int)",
    "CREATE TABLE ruled_copy (k int PRIMARY KEY, v int)",
    "CREATE RULE also AS ON UPDATE TO ruled DO ALSO UPDATE ruled_copy SET v = NEW.v WHERE k = NEW.k",
    // What a foreign key does.
    "CREATE TABLE father (k int PRIMARY KEY, v int UNIQUE)",
    "CREATE TABLE son (k int PRIMARY KEY, v int REFERENCES father (v) ON UPDATE CASCADE)",
    // Partitions and children.
    "CREATE TABLE parts (k int, v int) PARTITION BY LIST (k)",
    "CREATE TABLE older (k int, v int)",
    "CREATE TABLE younger () INHERITS (older)",
    // DDL, and what is refreshed.
    "CREATE VIEW said AS SELECT 0 AS v",
    "CREATE TABLE told (k int PRIMARY KEY, v int)",
    "CREATE MATERIALIZED VIEW told_later AS SELECT * FROM told",
    "CREATE TABLE bulk (x int)",
];

/// Ways to read table `plain`.
const PLAIN_READS: [&str; 6] = [
    "SELECT v AS hammered FROM plain WHERE k = {k}",
    "SELECT max(v) AS hammered FROM public.plain WHERE k = {k}",
    "SELECT v AS hammered FROM plain_view WHERE k = {k}",
    "SELECT v AS hammered FROM plain_deep WHERE k = {k}",
    "SELECT plain_value({k}) AS hammered",
    "WITH w AS (SELECT * FROM \"plain\") SELECT w.v AS hammered FROM still, w WHERE w.k = {k}",
];

/// Ways to write it in one query.
const PLAIN_WRITES: [&str; 12] = [
    "UPDATE plain SET v = {n} WHERE k = {k}",
    "UPDATE ONLY public.\"plain\" AS p SET v = {n} WHERE p.k = {k} RETURNING v",
    "UPDATE plain_view SET v = {n} WHERE k = {k}",
    "INSERT INTO plain VALUES ({k}, {n}) ON CONFLICT (k) DO UPDATE SET v = excluded.v",
    "WITH w AS (UPDATE plain SET v = {n} WHERE k = {k} RETURNING v) SELECT v FROM w",
    "MERGE INTO plain USING (SELECT {k} AS k) s ON s.k = plain.k WHEN MATCHED THEN UPDATE SET v = {n}",
    "SELECT plain_set({k}, {n})",
    "SELECT plain_set_dynamic({k}, {n})",
    "DELETE FROM plain WHERE k = {k}; INSERT INTO plain VALUES ({k}, {n})",
    "SELECT 1; UPDATE plain SET v = {n} WHERE k = {k}; SELECT 2",
    "BEGIN; {sub UPDATE plain SET v = {n} WHERE k = {k}}COMMIT",
    "BEGIN; SET LOCAL synchronous_commit = off; UPDATE plain SET v = {n} WHERE k = {k}; COMMIT",
];

fn channel(name: &str, keys: usize, writes: &[&str], reads: &[&str]) -> Channel {
    let ops = |texts: &[&str]| texts.iter().flat_map(|text| [Op::query(text), Op::unnamed(text)]).collect();
    // Several statements cannot be prepared.
    let writes = writes.iter().flat_map(|text| match text.contains(';') && !text.contains("$$") {
        true => vec![Op::query(text)],
        false => vec![Op::query(text), Op::unnamed(text)],
    });
    Channel { name: name.to_owned(), keys, writes: writes.collect(), reads: ops(reads) }
}

/// Everything that may be written in one place and read in another.
fn channels() -> Vec<Channel> {
    let mut plain = channel("plain", KEYS, &PLAIN_WRITES, &PLAIN_READS);
    let update = "UPDATE plain SET v = {n} WHERE k = {k}";
    plain.writes.push(Op::prepared("UPDATE plain SET v = $2 WHERE k = $1"));
    plain.writes.push(Op::queries(&["BEGIN", update, "COMMIT"]));
    plain.writes.push(Op::queries(&["BEGIN", "SAVEPOINT a", update, "RELEASE a", "SELECT 1", "END"]));
    plain.writes.push(Op::queries(&[
        "BEGIN",
        update,
        "PREPARE TRANSACTION 'g{k}'",
        "COMMIT PREPARED 'g{k}'",
    ]));
    plain.reads.push(Op::prepared("SELECT v AS hammered FROM plain WHERE k = $1"));
    plain.reads.push(Op::query("SELECT 1; SELECT v AS hammered FROM plain WHERE k = {k}"));
    plain.reads.push(Op::queries(&["BEGIN READ ONLY", PLAIN_READS[0], "COMMIT"]));
    plain.reads.push(Op::queries(&["BEGIN", "SET TRANSACTION READ ONLY", PLAIN_READS[2], "COMMIT"]));
    let hammered = |table: &str| format!("SELECT v AS hammered FROM {table} WHERE k = {{k}}");
    let update = |table: &str| format!("UPDATE {table} SET v = {{n}} WHERE k = {{k}}");
    let pair = |name: &str, keys: usize, write: &str, read: &str| {
        channel(name, keys, &[&update(write)], &[&hammered(read)])
    };
    vec![
        plain,
        pair("trigger", KEYS, "source", "copied"),
        pair("deferred trigger", KEYS, "source_late", "copied_late"),
        pair("rule", KEYS, "ruled", "ruled_copy"),
        channel(
            "cascade",
            KEYS,
            &["UPDATE father SET v = {n} * 100 + {k} WHERE k = {k}"],
            &["SELECT v / 100 AS hammered FROM son WHERE k = {k}"],
        ),
        channel("partition of a table", KEYS, &[&update("parts")], &["SELECT v AS hammered FROM parts_{k}"]),
        pair("child", 1, "younger", "older"),
    ]
}

/// What changes definitions, or might: reads go to the primary until the catalog has been read again.
fn changing_channels() -> Vec<Channel> {
    vec![
        channel(
            "opaque",
            KEYS,
            &["CALL opaque_call({k}, {n})", "DO $$ BEGIN UPDATE opaque SET v = {n} WHERE k = {k}; END $$"],
            &["SELECT v AS hammered FROM opaque WHERE k = {k}"],
        ),
        channel(
            "view",
            1,
            &["CREATE OR REPLACE VIEW said AS SELECT {n} AS v"],
            &["SELECT v AS hammered FROM said"],
        ),
        Channel {
            writes: vec![Op::queries(&[
                "UPDATE told SET v = {n} WHERE k = {k}",
                "REFRESH MATERIALIZED VIEW told_later",
            ])],
            ..channel("materialized view", 1, &[], &["SELECT v AS hammered FROM told_later WHERE k = {k}"])
        },
    ]
}

/// Tables of their own for each channel, written and read in the plainest ways.
fn plain_channels() -> Vec<Channel> {
    let one = |t: usize| Channel {
        name: format!("t{t}"),
        keys: 2,
        writes: vec![
            Op::query(&format!("UPDATE t{t} SET v = {{n}} WHERE k = {{k}}")),
            Op::prepared(&format!("UPDATE t{t} SET v = $2 WHERE k = $1")),
        ],
        reads: vec![
            Op::query(&format!("SELECT v AS hammered FROM t{t} WHERE k = {{k}}")),
            Op::prepared(&format!("SELECT v AS hammered FROM t{t} WHERE k = $1")),
        ],
    };
    (0..10).map(one).collect()
}

/// A primary, two replicas, and a third one behind the first of them; for one test at a time.
fn nodes() -> MutexGuard<'static, Replicated> {
    static NODES: OnceLock<Mutex<Replicated>> = OnceLock::new();
    let nodes = NODES.get_or_init(|| {
        let mut cluster = Replicated::start(2, &[]);
        cluster.add(1);
        let mut app = cluster.connect(0);
        SET_UP.iter().for_each(|sql| drop(app.sql(sql)));
        for key in 1..=KEYS {
            app.sql(&format!("CREATE TABLE parts_{key} PARTITION OF parts FOR VALUES IN ({key})"));
        }
        (0..10).for_each(|t| drop(app.sql(&format!("CREATE TABLE t{t} (k int PRIMARY KEY, v int)"))));
        Mutex::new(cluster)
    });
    let mut nodes = nodes.lock().unwrap_or_else(PoisonError::into_inner);
    (0..nodes.count()).for_each(|index| nodes.configure(index, &[]));
    zero(&nodes);
    nodes
}

/// All numbers back to zero.
fn zero(cluster: &Replicated) {
    let mut app = cluster.connect(0);
    for gid in app.sql("SELECT gid FROM pg_prepared_xacts") {
        app.sql(&format!("ROLLBACK PREPARED '{gid}'"));
    }
    let keyed = ["plain", "source", "copied", "source_late", "copied_late", "ruled", "ruled_copy", "parts"];
    let own: Vec<String> = (0..10).map(|t| format!("t{t}")).collect();
    for table in keyed.into_iter().chain(own.iter().map(String::as_str)).chain(["younger", "told", "opaque"])
    {
        app.sql(&format!("TRUNCATE {table}"));
        app.sql(&format!("INSERT INTO {table} SELECT k, 0 FROM generate_series(1, {KEYS}) k"));
    }
    app.sql("TRUNCATE father, son; INSERT INTO father SELECT k, k FROM generate_series(1, 8) k");
    app.sql("INSERT INTO son SELECT * FROM father; CREATE OR REPLACE VIEW said AS SELECT 0 AS v");
    app.sql("REFRESH MATERIALIZED VIEW told_later; TRUNCATE bulk");
    cluster.catch_up_all();
}

fn pooler(cluster: &Replicated, settings: &[&str]) -> Pooler {
    let setup = cluster.setup(&[2, 0, 3, 1]).setting("node_check_timeout = \"10s\"");
    let pooler = settings.iter().fold(setup, |setup, line| setup.setting(line)).start();
    cluster.wait_for_replicas(&pooler);
    pooler
}

/// Reads that ran on replicas so far.
fn on_replicas(cluster: &Replicated) -> i64 {
    cluster.replicas().into_iter().map(|index| cluster.calls(index, "hammered")).sum()
}

/// Hammers through pooler; what came of it and the share of reads that replicas served.
#[expect(clippy::cast_precision_loss, reason = "a share")]
fn hammer<'a>(
    cluster: &Replicated,
    pooler: &'a Pooler,
    adapt: impl FnOnce(&mut Hammer<'a>),
) -> (Outcome, f64) {
    let mut hammer = Hammer {
        channels: channels(),
        writers: 4,
        readers: 4,
        reads: reads(20_000),
        reads_per_write: 3,
        rest: Duration::ZERO,
        hot: true,
        writer: Box::new(|| pooler.connect()),
        reader: Box::new(|| pooler.connect()),
    };
    adapt(&mut hammer);
    let before = on_replicas(cluster);
    let outcome = hammer.run();
    let share = (on_replicas(cluster) - before) as f64 / outcome.reads as f64;
    eprintln!("{:.0} % of the reads on replicas", 100.0 * share);
    (outcome, share)
}

fn assert_fresh(outcome: &Outcome) {
    assert!(outcome.writes > 5, "{outcome:?}");
    assert_eq!((outcome.stale, outcome.backwards), (0, 0), "{:#?}", outcome.examples);
}

/// Keeps the replicas busy while something else runs.
fn with_load<T>(cluster: &Replicated, work: impl FnOnce() -> T) -> T {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut admin = cluster.admin(0);
            while !over.load(Ordering::SeqCst) {
                admin.sql("INSERT INTO bulk SELECT generate_series(1, 5000)");
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        over.store(true, Ordering::SeqCst);
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// The test of the test: the same hammer finds what nobody prevents.
#[test]
fn hammer_finds_stale_reads_where_nothing_prevents_them() {
    let mut cluster = nodes();
    cluster.configure(1, &["recovery_min_apply_delay = '20ms'"]);
    for (replica, stale) in [(1, true), (3, true), (0, false)] {
        zero(&cluster);
        let hammer = Hammer {
            channels: channels(),
            writers: 2,
            readers: 2,
            reads: 1000,
            reads_per_write: 3,
            rest: Duration::ZERO,
            hot: true,
            writer: Box::new(|| cluster.connect(0)),
            reader: Box::new(|| cluster.connect(replica)),
        };
        let outcome = hammer.run();
        assert!(if stale { outcome.stale > 50 } else { outcome.stale == 0 }, "node {replica}: {outcome:?}");
    }
}

#[test]
fn fresh_reads_see_what_was_acknowledged_to_anyone() {
    let mut cluster = nodes();
    cluster.configure(0, &["synchronous_commit = on"]);
    cluster.configure(2, &["recovery_min_apply_delay = '20ms'"]);
    let pooler = pooler(&cluster, &[]);
    // At full speed no replica keeps up; with rests replicas are read from as soon as they have caught up.
    assert_fresh(&hammer(&cluster, &pooler, |_| {}).0);
    zero(&cluster);
    let (outcome, share) = hammer(&cluster, &pooler, |hammer| hammer.rest = Duration::from_millis(60));
    assert_fresh(&outcome);
    assert!(share > 0.03, "{share}");
}

#[test]
fn fresh_reads_see_what_was_committed_asynchronously_under_load() {
    let mut cluster = nodes();
    cluster.configure(0, &["synchronous_commit = off"]);
    cluster.configure(1, &["recovery_min_apply_delay = '5ms'"]);
    let pooler = pooler(&cluster, &[]);
    with_load(&cluster, || {
        assert_fresh(&hammer(&cluster, &pooler, |_| {}).0);
        zero(&cluster);
        // What a write has changed is known: the other tables are read from replicas all the time.
        let (outcome, share) = hammer(&cluster, &pooler, |hammer| {
            hammer.channels = plain_channels();
            hammer.rest = Duration::from_millis(60);
        });
        assert_fresh(&outcome);
        assert!(share > 0.01, "{share}");
    });
}

#[test]
fn fresh_reads_see_definitions_that_change() {
    let mut cluster = nodes();
    cluster.configure(2, &["recovery_min_apply_delay = '20ms'"]);
    let pooler = pooler(&cluster, &[]);
    let (outcome, share) = hammer(&cluster, &pooler, |hammer| {
        hammer.channels = changing_channels();
        (hammer.writers, hammer.rest) = (1, Duration::from_millis(300));
    });
    assert_fresh(&outcome);
    assert!(share > 0.005, "{share}");
}

#[test]
fn most_fresh_reads_run_on_replicas() {
    let mut cluster = nodes();
    cluster.configure(0, &["synchronous_commit = on"]);
    let pooler = pooler(&cluster, &[]);
    let (outcome, share) = hammer(&cluster, &pooler, |hammer| {
        hammer.channels = plain_channels();
        (hammer.reads_per_write, hammer.hot) = (9, false);
    });
    assert_fresh(&outcome);
    // 0.75 where replay takes a millisecond; here the machine does much else.
    assert!(share > 0.4, "{share}");
}

#[test]
fn a_session_sees_its_own_writes_and_eventual_readers_what_there_is() {
    let mut cluster = nodes();
    let delay = ["recovery_min_apply_delay = '300ms'"];
    [1, 2, 3].into_iter().for_each(|index| cluster.configure(index, &delay));
    let session = pooler(&cluster, &["read_consistency = \"session\""]);
    let channel = channels().remove(0);
    let mut player = Player::new(session.connect());
    let rounds = i64::try_from(reads(20_000) / 50).unwrap();
    for number in 1..=rounds {
        let step = usize::try_from(number).unwrap();
        player.play(&channel.writes[step % channel.writes.len()], 1, number);
        let found = player.play(&channel.reads[step % channel.reads.len()], 1, 0);
        assert_eq!(found, Some(number), "{:?}", channel.reads[step % channel.reads.len()]);
    }
    let before = on_replicas(&cluster);
    // Who has not written reads from replicas, however old.
    let mut other = Player::new(session.connect());
    let served = wait_until(PATIENCE, || {
        other.play(&channel.reads[0], 1, 0);
        (on_replicas(&cluster) > before).then_some(())
    });
    assert!(served.is_some(), "{:?}", session.console("SHOW ROUTES"));
    drop((player, other));
    drop(session);
    // The rule turned off: the hammer has to find it.
    zero(&cluster);
    let eventual = pooler(&cluster, &["read_consistency = \"eventual\""]);
    let (outcome, share) = hammer(&cluster, &eventual, |hammer| hammer.reads = 1000);
    assert!(outcome.stale > 50 && share > 0.5, "{outcome:?}, {share}");
    // A client may ask for more.
    zero(&cluster);
    let ask = |level: &'static str| -> Raw {
        let mut raw = eventual.connect();
        raw.sql(&format!("SET pooler.read_consistency = {level}"));
        raw
    };
    let (outcome, _) = hammer(&cluster, &eventual, |hammer| {
        hammer.reader = Box::new(|| ask("fresh"));
        hammer.reads = 1000;
    });
    assert_fresh(&outcome);
    zero(&cluster);
    let (outcome, share) = hammer(&cluster, &eventual, |hammer| {
        hammer.reader = Box::new(|| ask("'primary'"));
        hammer.reads = 1000;
    });
    assert_fresh(&outcome);
    assert!(share < 0.001, "{share}");
}

/// A client does not go back in time, whoever answers it.
#[test]
fn reads_of_a_client_are_monotonic() {
    let mut cluster = nodes();
    cluster.configure(2, &["recovery_min_apply_delay = '200ms'"]);
    let pooler = pooler(&cluster, &[]);
    let mut client = pooler.connect();
    // Written behind pooler's back, so that only what this client has seen binds it.
    let mut writer = cluster.connect(0);
    let mut last = 0;
    for number in 1..=300 {
        writer.sql(&format!("UPDATE plain SET v = {number} WHERE k = 1"));
        let found: i64 = client.sql("SELECT v FROM plain WHERE k = 1")[0].parse().unwrap();
        assert!(found >= last, "{found} after {last}");
        last = found;
    }
}

/// A replica shows a commit that its primary still waits with: who has seen it there must not lose sight of it.
#[test]
fn what_was_seen_on_a_replica_is_seen_on_the_primary_after_it() {
    let mut cluster = nodes();
    let pooler = pooler(&cluster, &[]);
    let [mut writer, mut alone, mut begun, mut other] = [(); 4].map(|()| pooler.connect());
    let (update, read) = ("UPDATE t2 SET v = 1 WHERE k = 1", "SELECT v FROM t2 WHERE k = 1");
    let on_primary = format!("/* pooler: primary */ {read}");
    cluster.configure(0, &["synchronous_commit = on", "synchronous_standby_names = 'nobody'"]);
    writer.send(&query(update));
    for client in [&mut alone, &mut begun] {
        let seen = wait_until(PATIENCE, || (client.sql(read) == ["1"]).then_some(()));
        assert!(seen.is_some(), "no replica shows it");
    }
    assert_eq!(cluster.sql(0, read), ["0"], "the primary does not show it yet");
    // Who has not seen it does not wait.
    assert_eq!(other.sql(&on_primary), ["0"]);
    begun.sql("BEGIN");
    for client in [&mut alone, &mut begun] {
        client.send(&query(&on_primary));
        client.silent(Duration::from_millis(50));
    }
    cluster.configure(0, &[]);
    for client in [&mut alone, &mut begun] {
        let told = client.ready(1);
        assert_eq!(told.iter().find(|frame| frame.tag == b'D').map(Frame::row).as_deref(), Some("1"));
    }
    writer.ready(1);
}

/// Strict reads see what others wrote past pooler, and replicas serve them: they wait for one that has caught up.
#[test]
fn strict_reads_see_writes_past_pooler() {
    let mut cluster = nodes();
    let delay = ["recovery_min_apply_delay = '5ms'"];
    [1, 2, 3].into_iter().for_each(|index| cluster.configure(index, &delay));
    let pooler = pooler(&cluster, &["read_consistency = \"strict\"", "causal_wait = \"2s\""]);
    let mut past = cluster.connect(0);
    let (mut simple, mut waits) = (pooler.connect(), 0);
    past.sql("UPDATE t0 SET v = 0; INSERT INTO t0 SELECT 77, 0 ON CONFLICT DO NOTHING");
    for number in 1..=100 {
        past.sql(&format!("UPDATE t0 SET v = {number} WHERE k = 77"));
        assert_eq!(simple.sql("SELECT v, k, 'strict' FROM t0 WHERE k = 77"), [format!("{number}|77|strict")]);
        waits = number;
    }
    assert_eq!(waits, 100);
    let served = |node: usize| {
        cluster.number(
            node,
            "SELECT coalesce(sum(calls), 0)::int FROM pg_stat_statements WHERE query LIKE 'SELECT v, k, $1%'",
        )
    };
    let on_replicas: i64 = cluster.replicas().into_iter().map(served).sum();
    assert!(on_replicas >= 90, "{on_replicas}: {:?}", pooler.console("SHOW ROUTES"));
}

/// A read that no replica can serve in time goes to the primary.
#[test]
fn read_that_waits_in_vain_goes_to_the_primary() {
    let mut cluster = nodes();
    let delay = ["recovery_min_apply_delay = '10s'"];
    [1, 2, 3].into_iter().for_each(|index| cluster.configure(index, &delay));
    let pooler = pooler(&cluster, &["causal_wait = \"150ms\""]);
    let mut client = pooler.connect();
    client.sql("INSERT INTO t1 SELECT 88, 1 ON CONFLICT (k) DO UPDATE SET v = 1");
    let started = std::time::Instant::now();
    assert_eq!(client.sql("SELECT v FROM t1 WHERE k = 88"), ["1"]);
    let took = started.elapsed();
    assert!(took >= std::time::Duration::from_millis(140), "{took:?}: it did not wait");
    let routes = format!("{:?}", pooler.console("SHOW ROUTES"));
    assert!(routes.contains("primary: stale"), "{routes}");
}

/// What was looked at and then answered by pooler itself must not let what follows pass for looked at.
#[test]
fn bytes_that_were_answered_here_do_not_hide_a_write() {
    let cluster = nodes();
    let pooler = pooler(&cluster, &[]);
    let mut client = pooler.connect();
    let name = "x".repeat(50);
    let read = |table: &str| {
        let text = format!("SELECT v FROM {table} WHERE k = 1");
        [parse(&name, &text), bind(&name, &[]), execute(), sync()].concat()
    };
    for _ in 0..20 {
        client.send_all(&[
            read("t2"),
            [close(&name), read("t3")].concat(),
            query("DELETE FROM t4"),
            [close(&name), sync()].concat(),
        ]);
        let told = client.ready(4);
        let errors: Vec<_> = told.iter().filter(|frame| frame.tag == b'E').collect();
        assert!(errors.is_empty(), "{errors:?}");
    }
}
