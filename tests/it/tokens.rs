//! Read tokens: what was written by one pooler is seen by readers of another one in front of the same nodes. And settings of
//! pooler's own, by every way of the protocol.
//!
//! Covers ROUTING 4.3–4.7, H1, H3, H5, H6, H29, S5, S58.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use pooler::demo::process::wait_until;

use crate::support::{
    database::password_of,
    msg::*,
    pooler::Pooler,
    raw::{Chunks, PATIENCE, Raw},
    replicated::{DATABASE, Replicated, marker},
};

const READ: &str = "SELECT v AS told FROM tokens WHERE k = 1";

fn prepare(cluster: &Replicated) {
    let mut app = cluster.connect(0);
    app.sql("CREATE TABLE IF NOT EXISTS tokens (k int PRIMARY KEY, v int)");
    app.sql("INSERT INTO tokens VALUES (1, 0) ON CONFLICT (k) DO UPDATE SET v = 0");
    cluster.catch_up_all();
}

/// A primary and two replicas, for one test at a time.
fn nodes() -> MutexGuard<'static, Replicated> {
    static NODES: OnceLock<Mutex<Replicated>> = OnceLock::new();
    let nodes = NODES.get_or_init(|| Mutex::new(Replicated::start(2, &["log_statement = all"])));
    let mut nodes = nodes.lock().unwrap_or_else(PoisonError::into_inner);
    (0..nodes.count()).for_each(|index| nodes.configure(index, &[]));
    prepare(&nodes);
    nodes
}

fn pooler(cluster: &Replicated, order: &[usize], settings: &[&str]) -> Pooler {
    let setup = cluster.setup(order).setting("node_check_timeout = \"10s\"");
    let pooler = settings.iter().fold(setup, |setup, line| setup.setting(line)).start();
    cluster.wait_for_replicas(&pooler);
    pooler
}

fn told(client: &mut Raw) -> String {
    client.sql("SHOW pooler.lsn").remove(0)
}

fn tags(frames: &[Frame]) -> String {
    frames.iter().map(|frame| char::from(frame.tag)).collect()
}

fn login(pooler: &Pooler, options: &str) -> Raw {
    Raw::login_with(pooler.port, "app", DATABASE, &password_of("app"), &[("options", options)])
}

/// Writes through one pooler, carries the token to the other one, and reads there. How many reads were stale.
fn stale_reads(rounds: usize, writer: &mut Raw, reader: &mut Raw, with_token: bool) -> usize {
    let mut stale = 0;
    for _ in 0..rounds {
        let written = writer.sql("UPDATE tokens SET v = v + 1 WHERE k = 1 RETURNING v");
        let token = told(writer);
        if with_token {
            reader.sql(&format!("SET pooler.read_after = '{token}'"));
            assert_eq!(reader.sql("SHOW pooler.read_after"), [token]);
        }
        stale += usize::from(reader.sql(READ) != written);
    }
    stale
}

#[test]
fn token_carries_a_write_to_readers_of_another_pooler() {
    let mut cluster = nodes();
    cluster.configure(1, &["recovery_min_apply_delay = '30ms'"]);
    cluster.configure(2, &["recovery_min_apply_delay = '10ms'"]);
    for commit in ["on", "off"] {
        cluster.configure(0, &[&format!("synchronous_commit = {commit}")]);
        let writing = pooler(&cluster, &[0, 1, 2], &[]);
        let eventual = ["read_consistency = \"eventual\"", "causal_wait = \"5s\""];
        let reading = pooler(&cluster, &[2, 1, 0], &eventual);
        let (mut writer, mut reader) = (writing.connect(), reading.connect());
        let on_replicas =
            || -> i64 { cluster.replicas().iter().map(|&node| cluster.calls(node, "AS told")).sum() };
        let before = on_replicas();
        assert_eq!(
            stale_reads(if commit == "on" { 200 } else { 30 }, &mut writer, &mut reader, true),
            0,
            "{commit}"
        );
        let served = on_replicas() - before;
        assert!(served >= 20, "{served} reads on replicas: {:?}", reading.console("SHOW ROUTES"));
        // The test of the test.
        reader.sql("RESET pooler.read_after");
        assert_eq!(reader.sql("SHOW pooler.read_after"), [""]);
        let stale = stale_reads(30, &mut writer, &mut reader, false);
        assert!(stale > 20, "{stale}");
    }
}

/// Read-only transactions, what asks for a replica, and a login with a token.
#[test]
fn token_binds_every_kind_of_read() {
    let mut cluster = nodes();
    let delay = ["recovery_min_apply_delay = '50ms'"];
    [1, 2].into_iter().for_each(|index| cluster.configure(index, &delay));
    let writing = pooler(&cluster, &[0, 1, 2], &[]);
    // Reads do not wait here: they go to the primary.
    let reading = pooler(&cluster, &[0, 1, 2], &["read_consistency = \"eventual\""]);
    let (mut writer, mut reader) = (writing.connect(), reading.connect());
    let hinted = format!("/* pooler: replica */ {READ}");
    for round in 0..10 {
        for way in 0..5 {
            let written = writer.sql("UPDATE tokens SET v = v + 1 WHERE k = 1 RETURNING v");
            let set = format!("SET pooler.read_after = '{}'", told(&mut writer));
            let found = match way {
                0 => {
                    reader.sql("BEGIN READ ONLY");
                    reader.sql(&set);
                    let found = reader.sql(READ);
                    reader.sql("COMMIT");
                    found
                }
                // The transaction is on a replica already, and waits there.
                1 => {
                    reader.sql("RESET pooler.read_after");
                    reader.sql("BEGIN READ ONLY");
                    reader.sql("SELECT 1");
                    reader.sql(&set);
                    let found = reader.sql(READ);
                    reader.sql("COMMIT");
                    found
                }
                2 => {
                    reader.sql(&set);
                    reader.sql(&hinted)
                }
                3 => {
                    reader.send_all(&[query(&set), query(READ), query(READ)]);
                    let frames = reader.ready(3);
                    frames.iter().filter(|frame| frame.tag == b'D').map(Frame::row).take(1).collect()
                }
                _ => {
                    let token = told(&mut writer);
                    login(&reading, &format!("-c pooler.read_after={token}")).sql(READ)
                }
            };
            assert_eq!(found, written, "round {round}, way {way}");
        }
    }
}

#[test]
fn tokens_that_cannot_be_are_refused() {
    let cluster = nodes();
    let pooler = pooler(&cluster, &[0, 1, 2], &["failover_hold = \"1s\""]);
    let mut client = pooler.connect();
    let first = told(&mut client);
    assert!(first.starts_with("1:0/"), "{first}");
    client.sql(&format!("SET pooler.read_after = '{first}'"));
    for wrong in ["x", "1:", "0:0/1", "1:0/x", "1:0/1 ", "-1:0/1", "1", "1:0/100000000"] {
        let error = client.try_sql(&format!("SET pooler.read_after = '{wrong}'")).unwrap_err();
        assert_eq!(
            (error.field(b'C'), error.field(b'H').contains("pooler.lsn")),
            ("22023".to_owned(), true),
            "{wrong}"
        );
        // Nothing is changed.
        assert_eq!(client.sql("SHOW pooler.read_after"), [first.as_str()]);
    }
    for (statement, state) in [
        ("SET pooler.lsn = '1:0/1'", "55P02"),
        ("RESET pooler.lsn", "55P02"),
        ("SET pooler.read_after = '1:0/1', '1:0/2'", "0A000"),
        ("SELECT 1; SET pooler.read_after = '1:0/1'", "0A000"),
        ("SHOW pooler.nothing", "42704"),
    ] {
        assert_eq!(client.try_sql(statement).unwrap_err().field(b'C'), state, "{statement}");
    }
    // Taken away in each way; a position alone will do.
    for (statement, shown) in [
        ("SET pooler.read_after = ''", ""),
        ("SET pooler.read_after = '0/16b3748'", "0/16B3748"),
        ("SET pooler.read_after TO DEFAULT", ""),
        ("SET pooler.read_after = '1:0/1'", "1:0/1"),
        ("RESET pooler.read_after", ""),
    ] {
        client.sql(statement);
        assert_eq!(client.sql("SHOW pooler.read_after"), [shown], "{statement}");
        assert_eq!(client.sql(READ), ["0"]);
    }
    let mut refused = Raw::open(pooler.port);
    let options = [("options", "-c pooler.read_after=nonsense")];
    let error = refused.try_login("app", DATABASE, &password_of("app"), &options).unwrap_err();
    assert_eq!(error.field(b'C'), "22023");
    // Of a timeline that nobody has heard of: nothing is read or written that may be older than it.
    for statement in [READ, "UPDATE tokens SET v = 1 WHERE k = 1"] {
        let mut ahead = login(&pooler, "-c pooler.read_after=7:0/1");
        let error = ahead.try_sql(statement).unwrap_err();
        assert_eq!(error.field(b'C'), "57P03");
        assert!(error.field(b'M').contains("timeline"), "{error:?}");
        // RESET goes back to what was asked for at login.
        ahead.sql("SET pooler.read_after = ''");
        assert_eq!(ahead.sql(READ), ["0"]);
    }
    // In a transaction that is on the older primary it is refused at once.
    client.sql("BEGIN");
    client.sql("UPDATE tokens SET v = 1 WHERE k = 1");
    assert_eq!(client.try_sql("SET pooler.read_after = '7:0/1'").unwrap_err().field(b'C'), "55000");
    client.sql("ROLLBACK");
}

/// Inside a transaction the answer covers what was acknowledged before, and is none if that is not all it has written.
#[test]
fn position_is_told_in_a_transaction_that_has_not_written() {
    let cluster = nodes();
    let pooler = pooler(&cluster, &[1, 0, 2], &[]);
    let mut client = pooler.connect();
    for begin in ["BEGIN", "BEGIN READ ONLY"] {
        client.sql(begin);
        told(&mut client);
        client.sql("SELECT 1");
        told(&mut client);
        client.sql("COMMIT");
    }
    // Behind what has not been answered yet.
    for (begin, sleep) in
        [("BEGIN READ ONLY", "SELECT pg_sleep(0.2)::text"), ("BEGIN", "SELECT 1 FROM pg_sleep(0.2)")]
    {
        let show = "SHOW pooler.lsn";
        client.send_all(&[begin, sleep, show, sleep, show, "COMMIT", show].map(query));
        let frames = client.ready(7);
        assert_eq!(tags(&frames), "CZTDCZTDCZTDCZTDCZCZTDCZ", "{begin}");
    }
    client.sql("BEGIN");
    client.sql("UPDATE tokens SET v = 5 WHERE k = 1");
    assert_eq!(client.try_sql("SHOW pooler.lsn").unwrap_err().field(b'C'), "25001");
    client.sql("COMMIT");
    told(&mut client);
}

#[test]
fn position_is_told_in_session_mode() {
    let cluster = nodes();
    let session = cluster.setup(&[0, 1, 2]).setting("pool_mode = \"session\"").start();
    let mut client = session.connect();
    client.sql("UPDATE tokens SET v = 5 WHERE k = 1");
    let token = told(&mut client);
    client.sql(&format!("SET pooler.read_after = '{token}'"));
    assert_eq!(client.sql(READ), ["5"]);
    // Names pass through to the server, but for those of pooler's statements.
    for text in ["SHOW pooler.read_after", "SELECT 'other'", "SHOW pooler.read_after"] {
        let shown = if text.starts_with("SHOW") { token.as_str() } else { "other" };
        client.send_all(&[parse("s", text), describe("s"), flush()]);
        client.until(b'T');
        client.send_all(&[bind("s", &[]), execute(), sync(), close("s"), sync()]);
        let frames = client.ready(2);
        assert_eq!(tags(&frames), "2DCZ3Z");
        assert_eq!(frames[1].row(), shown);
    }
}

/// H29: a token outlives the primary that it was read from.
#[test]
fn token_holds_across_a_promotion() {
    let mut cluster = Replicated::start(2, &[]);
    prepare(&cluster);
    let settings = ["read_consistency = \"eventual\"", "node_check_interval = \"200ms\""];
    let (writing, reading) =
        (pooler(&cluster, &[0, 1, 2], &settings), pooler(&cluster, &[2, 1, 0], &settings));
    let (mut writer, mut reader) = (writing.connect(), reading.connect());
    writer.sql("UPDATE tokens SET v = 1 WHERE k = 1");
    let old = told(&mut writer);
    assert!(old.starts_with("1:"), "{old}");
    cluster.catch_up_all();
    reader.sql(&format!("SET pooler.read_after = '{old}'"));
    assert_eq!(reader.sql(READ), ["1"]);
    // While there is no primary nobody can tell a position.
    cluster.stop_immediately(0);
    cluster.promote(1);
    // The other one stays behind, on the old timeline.
    let mut writer = writing.connect();
    assert_eq!(writer.sql("UPDATE tokens SET v = 2 WHERE k = 1 RETURNING v"), ["2"]);
    let new = told(&mut writer);
    assert!(new.starts_with("2:"), "{new}");
    for token in [&old, &new] {
        // Perhaps before this pooler has seen the promotion.
        for mut reader in [reading.connect(), login(&reading, &format!("-c pooler.read_after={token}"))] {
            reader.sql(&format!("SET pooler.read_after = '{token}'"));
            assert_eq!(reader.sql(READ), ["2"], "{token}");
        }
    }
    // Once it follows it serves reads again, with either token.
    cluster.follow(2, 1);
    cluster.catch_up(2, 1);
    for token in [old, new] {
        let before = cluster.calls(2, "AS told");
        let served = wait_until(PATIENCE, || {
            let mut reader = reading.connect();
            reader.sql(&format!("SET pooler.read_after = '{token}'"));
            assert_eq!(reader.sql(READ), ["2"], "{token}");
            (cluster.calls(2, "AS told") > before).then_some(())
        });
        assert!(served.is_some(), "{token}: {:?}", reading.console("SHOW NODES"));
    }
}

#[test]
fn position_cannot_be_told_without_a_primary() {
    let mut cluster = Replicated::start(1, &[]);
    prepare(&cluster);
    let pooler = pooler(&cluster, &[0, 1], &["failover_hold = \"1s\""]);
    let mut client = pooler.connect();
    told(&mut client);
    cluster.stop_fast(0);
    let error = client.try_sql("SHOW pooler.lsn").unwrap_err();
    assert_eq!(error.field(b'C'), "57P03", "{error:?}");
    assert_eq!(client.sql("SHOW pooler.route"), ["auto"]);
    cluster.restart(0);
    told(&mut client);
}

/// What a server has made of pooler's settings: nothing, whatever came.
fn is_unknown_to_servers(pooler: &Pooler) {
    let mut client = pooler.connect();
    let ask = "/* pooler: primary */ SELECT current_setting('pooler' || '.route', true)";
    for _ in 0..5 {
        let set = client.sql(ask);
        assert!(set == ["NULL"] || set == [""], "{set:?}");
    }
}

/// As asyncpg, tokio-postgres, pgjdbc and psycopg send them, cut in any way (S5, H5, H6).
#[test]
fn settings_of_poolers_own_work_by_every_way_of_the_protocol() {
    let cluster = nodes();
    let pooler = pooler(&cluster, &[1, 0, 2], &["default_pool_size = 1"]);
    let (set, show) = ("SET pooler.route = 'primary'", "SHOW pooler.route");
    for (chunks, begin) in [
        (Chunks::Whole, None),
        (Chunks::Of(1), None),
        (Chunks::Of(7), Some("BEGIN")),
        (Chunks::Whole, Some("BEGIN; SELECT 1")),
    ] {
        let mut client = pooler.connect();
        client.chunks = chunks;
        let status = if begin.is_some() { b"T" } else { b"I" };
        begin.into_iter().flat_map(|begin| begin.split("; ")).for_each(|sql| drop(client.sql(sql)));
        let mut expect = |messages: &[Vec<u8>], ready: usize, expected: &str| -> Vec<Frame> {
            client.send_all(messages);
            let last = expected.bytes().last().unwrap();
            let frames = if ready > 0 { client.ready(ready) } else { client.until(last) };
            assert_eq!(tags(&frames), expected, "{chunks:?} {begin:?} {frames:?}");
            for frame in frames.iter().filter(|frame| frame.tag == b'Z') {
                assert_eq!(frame.body, status);
            }
            frames
        };
        let run = |name: &str| [bind(name, &[]), execute(), sync()];
        // asyncpg.
        expect(&[parse("a", set), describe("a"), flush()], 0, "1tn");
        expect(&run("a"), 1, "2CZ");
        let frames = expect(&[parse("b", show), describe("b"), flush()], 0, "1tT");
        assert_eq!(frames[2].columns(), [("pooler.route".to_owned(), 25)]);
        let frames = expect(&run("b"), 1, "2DCZ");
        assert_eq!(frames[1].row(), "primary");
        // tokio-postgres.
        expect(&[parse("c", "SET pooler.route TO 'replica'"), describe("c"), sync()], 1, "1tnZ");
        expect(&run("c"), 1, "2CZ");
        let frames = expect(&run("b"), 1, "2DCZ");
        assert_eq!(frames[1].row(), "replica");
        expect(&[close("c"), sync()], 1, "3Z");
        // psycopg and pgjdbc; a pipeline; one behind the other without Sync.
        expect(&[parse("", set), bind("", &[]), describe_portal(""), execute(), sync()], 1, "12nCZ");
        let frames = expect(
            &[bind_portal("p", "b", &[]), describe_portal("p"), execute_portal("p", 0), sync()],
            1,
            "2TDCZ",
        );
        assert_eq!(frames[2].row(), "primary");
        let both = [run("a").concat(), run("b").concat()];
        expect(&both, 2, "2CZ2DCZ");
        expect(&[bind("a", &[]), execute(), bind("b", &[]), execute(), sync()], 1, "2C2DCZ");
        // In front of something else.
        let frames = expect(
            &[bind("b", &[]), execute(), parse("", "SELECT 'else'"), bind("", &[]), execute(), sync()],
            1,
            "2DC12DCZ",
        );
        assert_eq!(frames[6 - 1].row(), "else");
        // The unnamed one is still there.
        expect(&[parse("", show), sync()], 1, "1Z");
        expect(&run(""), 1, "2DCZ");
        // Errors: up to Sync nothing is done. A name is taken once, and free again behind Close.
        if begin.is_none() {
            let frames = expect(&[parse("", "SET pooler.route = 'x'"), run("").concat()], 1, "12EZ");
            assert_eq!(frames[2].field(b'C'), "22023");
            expect(&[parse("", "SHOW pooler.x"), describe(""), bind("", &[]), execute(), sync()], 1, "1tEZ");
            let frames = expect(&[parse("b", set), bind("b", &[]), execute(), sync()], 1, "EZ");
            assert_eq!(frames[0].field(b'C'), "42P05");
            let frames = expect(&[parse("b", "SELECT 1"), sync()], 1, "EZ");
            assert_eq!(frames[0].field(b'C'), "42P05");
            expect(&[close("b"), parse("b", "SELECT 'b'"), bind("b", &[]), execute(), sync()], 1, "312DCZ");
            expect(&[close("b"), parse("b", show), bind("b", &[]), execute(), sync()], 1, "312DCZ");
            expect(&[query("DEALLOCATE b")], 1, "CZ");
            let frames = expect(&run("b"), 1, "EZ");
            assert_eq!(frames[0].field(b'C'), "26000");
        }
        expect(&[parse("n", "SHOW pooler.lsn"), describe("n"), flush()], 0, "1tT");
        expect(&[run("n").concat(), run("n").concat()], 2, "2DCZ2DCZ");
        drop(client);
    }
    // pgjdbc, which sends BEGIN in front of the first statement of a transaction.
    let mut client = pooler.connect();
    client.sql("RESET pooler.route");
    let begin = |name: &str| [bind(name, &[]), execute()].concat();
    let own = [parse("", show), bind("", &[]), describe_portal(""), execute()].concat();
    let select = [parse("", "SELECT 1"), bind("", &[]), execute()].concat();
    client.send_all(&[parse("S_1", "BEGIN"), begin("S_1"), own.clone(), sync()]);
    let expect = |client: &mut Raw, expected: &str, status: u8| {
        let frames = client.ready(1);
        assert_eq!(
            (tags(&frames).as_str(), frames.last().unwrap().body[0]),
            (expected, status),
            "{frames:?}"
        );
    };
    expect(&mut client, "12C12TDCZ", b'T');
    assert_eq!(client.sql("UPDATE tokens SET v = 7 WHERE k = 1 RETURNING v"), ["7"]);
    client.sql("ROLLBACK");
    assert_eq!(client.sql(&format!("/* pooler: primary */ {READ}")), ["0"]);
    // Its name is known to servers as well, and what follows is in the transaction.
    client.send_all(&[begin("S_1"), own, select, sync()]);
    expect(&mut client, "2C12TDC12DCZ", b'T');
    client.sql("COMMIT");
    client.send_all(&[begin("S_1"), sync(), query("ROLLBACK")]);
    expect(&mut client, "2CZ", b'T');
    expect(&mut client, "CZ", b'I');
    is_unknown_to_servers(&pooler);
}

/// Where they cannot be answered the error says so, and no server takes them for settings that somebody has made up.
#[test]
fn settings_of_poolers_own_never_reach_a_server() {
    let cluster = nodes();
    let pooler = pooler(&cluster, &[1, 0, 2], &["default_pool_size = 1"]);
    let set = "SET pooler.route = 'primary'";
    let one = |sql: &str| [parse("", sql), bind("", &[]), execute()].concat();
    let write = one("UPDATE tokens SET v = 99 WHERE k = 1");
    let mut client = pooler.connect();
    client.send_all(&[parse("own", set), sync()]);
    client.ready(1);
    let named = [bind("own", &[]), execute()].concat();
    // Each in parts: the next one is sent when the one before has been answered.
    let batches = [
        ("behind", vec![vec![write.clone(), one(set), sync()]], "12C12EZ"),
        ("named", vec![vec![write.clone(), named.clone(), sync()]], "12C2EZ"),
        ("behind Flush", vec![vec![write.clone(), flush()], vec![one(set), sync()]], "12C12EZ"),
        ("named behind Flush", vec![vec![write.clone(), flush()], vec![named, sync()]], "12C2EZ"),
        ("Query behind Flush", vec![vec![write.clone(), flush()], vec![query(set), sync()]], "12CEZZ"),
        ("in front and behind", vec![vec![one("SHOW pooler.route"), write, one(set), sync()]], "12DC12C12EZ"),
    ];
    for (name, parts, expected) in batches {
        let count = parts.len();
        let mut frames = Vec::new();
        for (index, part) in parts.into_iter().enumerate() {
            client.send_all(&part);
            if index + 1 < count {
                frames.extend(client.until(b'C'));
            }
        }
        frames.extend(client.ready(expected.matches('Z').count()));
        assert_eq!(tags(&frames), expected, "{name}: {frames:?}");
        let error = frames.iter().find(|frame| frame.tag == b'E').unwrap();
        assert_eq!(error.field(b'C'), "0A000", "{name}");
        assert!(error.field(b'H').contains("Sync"), "{error:?}");
        assert_eq!(client.sql("SHOW pooler.route"), ["auto"], "{name}");
        // The write of the same batch is rolled back.
        assert_eq!(client.sql(&format!("/* pooler: primary */ {READ}")), ["0"], "{name}");
    }
    // However it is cut: nothing waits for an answer that will not come.
    for begin in [None, Some("BEGIN"), Some("BEGIN READ ONLY; SELECT 1")] {
        begin.into_iter().flat_map(|begin| begin.split("; ")).for_each(|sql| drop(client.sql(sql)));
        client.chunks = Chunks::Of(1);
        client.send_all(&[one("SELECT 1"), one(set), sync()]);
        client.chunks = Chunks::Whole;
        assert_eq!(tags(&client.ready(1)), "12DC12EZ", "{begin:?}");
        if begin.is_some() {
            client.sql("ROLLBACK");
        }
    }
    // In a failed transaction, and among other statements.
    client.sql("BEGIN");
    assert_eq!(client.try_sql("SELECT 1/0").unwrap_err().field(b'C'), "22012");
    for failed in [query(set), [one(set), sync()].concat()] {
        client.send(&failed);
        let frames = client.ready(1);
        assert_eq!((tags(&frames).as_str(), frames[0].field(b'C')), ("EZ", "25P02".to_owned()));
    }
    client.sql("ROLLBACK");
    let several = format!("SELECT 1; {set}; SELECT 2 {}", marker("several"));
    assert_eq!(client.try_sql(&several).unwrap_err().field(b'C'), "0A000");
    assert_eq!(client.try_sql("SET pooler.route = 'it''s'").unwrap_err().field(b'C'), "0A000");
    client.send_all(&[parse("", "SET pooler.route = a, b"), bind("", &[]), execute(), sync()]);
    assert_eq!(tags(&client.ready(1)), "EZ");
    // By functions a server would do it, to no avail.
    for text in [
        "SELECT set_config('pooler.route', 'primary', false)",
        "SELECT v, current_setting('pooler.route', true) FROM tokens",
        "PREPARE prepared AS SELECT set_config('pooler.route', 'primary', false)",
        "SELECT set_config(new_value => 'primary', setting_name => 'pooler.route', is_local => false)",
    ] {
        let error = client.try_sql(text).unwrap_err();
        assert_eq!(error.field(b'C'), "0A000", "{text}");
        assert!(error.field(b'H').starts_with("SET pooler.name = "), "{error:?}");
        client.send_all(&[parse("", text), describe(""), sync()]);
        assert_eq!(tags(&client.ready(1)), "EZ", "{text}");
        client.send_all(&[one("SELECT 1"), one(text), sync()]);
        assert_eq!(tags(&client.ready(1)), "12DC12EZ", "{text}");
    }
    assert_eq!(client.sql("SHOW pooler.route"), ["auto"]);
    assert_eq!(cluster.runs().ran_on("several"), [] as [usize; 0]);
    is_unknown_to_servers(&pooler);
}

/// As in PostgreSQL: an error of pooler's own fails the transaction, on its server too. Nothing of it is committed, and
/// savepoints bring it back (H5).
#[test]
fn errors_of_poolers_own_fail_the_transaction() {
    let cluster = nodes();
    let pooler = pooler(&cluster, &[1, 0, 2], &["default_pool_size = 1"]);
    let wrong = "SET pooler.route = 'nonsense'";
    let one = |sql: &str| [parse("", sql), bind("", &[]), execute()].concat();
    let write = "UPDATE tokens SET v = 5 WHERE k = 1";
    let begun: [&[&str]; 4] =
        [&["BEGIN"], &["BEGIN", write], &["BEGIN READ ONLY", "SELECT 1"], &["BEGIN", write, "SAVEPOINT s"]];
    let errors = [
        ("simple", vec![query(wrong)], "EZ"),
        ("extended", vec![one(wrong), sync()], "12EZ"),
        ("in front", vec![one(wrong), one(write), sync()], "12EZ"),
        ("unclear", vec![query("SET pooler.route = a, b")], "EZ"),
        ("unknown", vec![parse("", "SHOW pooler.x"), describe(""), sync()], "1tEZ"),
        ("sent ahead", vec![query(wrong), query(write), one("SELECT 1"), sync()], "EZEZEZ"),
    ];
    let expect = |client: &mut Raw, expected: &str, case: &str| {
        let frames = client.ready(expected.matches('Z').count());
        assert_eq!(tags(&frames), expected, "{case}: {frames:?}");
        let failed = frames.iter().filter(|frame| frame.tag == b'Z').all(|frame| frame.body == b"E");
        assert!(failed, "{case}: {frames:?}");
    };
    for (steps, (name, messages, expected)) in begun.iter().flat_map(|b| errors.iter().map(move |e| (b, e))) {
        let case = format!("{steps:?} {name}");
        for chunks in [Chunks::Whole, Chunks::Of(5)] {
            let mut client = pooler.connect();
            client.chunks = chunks;
            steps.iter().for_each(|sql| drop(client.sql(sql)));
            client.send_all(messages);
            expect(&mut client, expected, &case);
            for refused in ["SELECT 1", "SHOW pooler.route", write] {
                assert_eq!(client.try_sql(refused).unwrap_err().field(b'C'), "25P02", "{case} {refused}");
            }
            if steps.len() == 3 {
                client.sql("ROLLBACK TO s");
                assert_eq!(client.sql("SHOW pooler.route"), ["auto"], "{case}");
                assert_eq!(client.sql("SELECT v FROM tokens WHERE k = 1"), ["5"], "{case}");
                client.send(&query(wrong));
                expect(&mut client, "EZ", &case);
            }
            client.send(&query("COMMIT"));
            let frames = client.ready(1);
            assert_eq!(
                (tags(&frames).as_str(), frames[0].body.as_slice()),
                ("CZ", &b"ROLLBACK\0"[..]),
                "{case}"
            );
            assert_eq!(frames[1].body, b"I", "{case}");
            assert_eq!(client.sql(&format!("/* pooler: primary */ {READ}")), ["0"], "{case}");
        }
    }
    // The batch goes on when the error has been told.
    let mut client = pooler.connect();
    client.sql("BEGIN");
    client.sql(write);
    client.send_all(&[one(wrong), flush()]);
    assert_eq!(tags(&client.until(b'E')), "12E");
    client.send_all(&[one(write), one("COMMIT"), sync()]);
    expect(&mut client, "Z", "behind Flush");
    client.sql("ROLLBACK");
    // BEGIN in front of it, as pgjdbc sends it.
    client.send_all(&[one("BEGIN"), one(wrong), flush()]);
    assert_eq!(tags(&client.until(b'E')), "12C12E");
    client.send_all(&[one(write), sync(), query(write)]);
    expect(&mut client, "ZEZ", "behind BEGIN");
    client.sql("ROLLBACK");
    assert_eq!(client.sql(&format!("/* pooler: primary */ {READ}")), ["0"]);
    is_unknown_to_servers(&pooler);
}
