//! LISTEN and NOTIFY in transaction mode: clients listen by one connection that they share, and notice nothing of it (H25,
//! S36).

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};

use crate::support::{compare::Pair, database::Database, msg::*, pooler::Pooler, raw::Raw};

/// What a client has received: notifications as `channel|payload|who`, other messages as they are.
fn lines(client: &Raw) -> Vec<String> {
    let line = |frame: &Frame| match frame.tag {
        b'A' => notification(client, frame),
        _ => format!("{frame:?}"),
    };
    client.received.iter().map(line).collect()
}

fn notification(client: &Raw, frame: &Frame) -> String {
    assert_eq!(frame.tag, b'A', "{frame:?}");
    let (pid, text) = frame.body.split_at(4);
    let who = if pid == &client.key[..4] { "itself" } else { "another" };
    let text = String::from_utf8_lossy(text.strip_suffix(b"\0").unwrap()).replace('\0', "|");
    format!("{text}|{who}")
}

/// The next message, which has to be a notification.
fn heard(client: &mut Raw) -> String {
    let frame = client.frame();
    notification(client, &frame)
}

/// Runs the script at PostgreSQL and through pooler, each with another client of the same kind at hand.
fn same(script: impl Fn(&mut Raw, &mut Raw)) {
    let pair = Pair::with(&["default_pool_size = 2"]);
    let (mut direct, mut other) = (pair.database.connect(), pair.database.connect());
    script(&mut direct, &mut other);
    let (mut pooled, mut pooled_other) = (pair.pooler.connect(), pair.pooler.connect());
    script(&mut pooled, &mut pooled_other);
    assert_eq!(lines(&pooled), lines(&direct));
    assert_eq!(lines(&pooled_other), lines(&other));
    assert!(pair.pooler.pinned().is_empty(), "a server is kept");
}

#[test]
fn notifications_are_told_as_by_postgresql() {
    same(|client, other| {
        client.sql("LISTEN news");
        assert_eq!(client.sql("SELECT 1"), ["1"]);
        client.sql("NOTIFY news");
        client.sql("NOTIFY news, 'own'");
        client.sql("NOTIFY other");
        other.sql("SELECT pg_notify('news', 'from another')");
        assert_eq!(heard(client), "news|from another|another");
        // Not amid a transaction, and in order.
        client.sql("BEGIN");
        client.sql("NOTIFY news, 'third'");
        other.sql("NOTIFY news, 'first'");
        other.sql("NOTIFY news, 'second'");
        client.sql("SELECT 2");
        client.sql("COMMIT");
        client.sql("UNLISTEN news");
        other.sql("NOTIFY news, 'unheard'");
        client.sql("NOTIFY news, 'unheard'");
        client.sql("SELECT 3");
    });
}

#[test]
fn listen_takes_part_in_transactions() {
    same(|client, other| {
        for (end, savepoint) in [("COMMIT", false), ("ROLLBACK", false), ("COMMIT", true), ("ROLLBACK", true)]
        {
            client.sql("BEGIN");
            client.sql("LISTEN a");
            client.sql("LISTEN \"B \"\"b\"");
            client.sql("UNLISTEN a");
            client.sql("NOTIFY \"B \"\"b\", 'with it'");
            other.sql("NOTIFY \"B \"\"b\", 'before it'");
            if savepoint {
                client.sql("SAVEPOINT s");
                client.sql("ROLLBACK TO s");
            }
            client.sql(end);
            other.sql("NOTIFY a, 'unheard'");
            other.sql("NOTIFY \"B \"\"b\", 'behind it'");
            if end == "COMMIT" {
                assert_eq!(heard(client), "B \"b|behind it|another");
            }
            client.sql("BEGIN");
            client.sql("UNLISTEN *");
            client.sql("ROLLBACK");
            other.sql("NOTIFY \"B \"\"b\", 'still'");
            if end == "COMMIT" {
                assert_eq!(heard(client), "B \"b|still|another");
            }
            client.sql("UNLISTEN *");
            other.sql("NOTIFY \"B \"\"b\", 'not any more'");
            client.sql("SELECT 1");
        }
        // Within a transaction that has failed, and one that fails when it is committed.
        client.sql("CREATE TEMP TABLE t (x int UNIQUE DEFERRABLE INITIALLY DEFERRED)");
        client.sql("BEGIN");
        client.sql("LISTEN a");
        assert_eq!(client.try_sql("SELECT 1/0").unwrap_err().field(b'C'), "22012");
        assert_eq!(client.try_sql("LISTEN b").unwrap_err().field(b'C'), "25P02");
        assert_eq!(client.try_sql("UNLISTEN *").unwrap_err().field(b'C'), "25P02");
        client.sql("COMMIT");
        client.sql("BEGIN");
        client.sql("LISTEN a");
        client.sql("INSERT INTO t VALUES (1), (1)");
        assert_eq!(client.try_sql("COMMIT").unwrap_err().field(b'C'), "23505");
        client.sql("BEGIN");
        client.sql("LISTEN c");
        client.sql("COMMIT AND CHAIN");
        client.sql("LISTEN d");
        client.sql("NOTIFY c");
        client.sql("ROLLBACK");
        ["a", "b", "c", "d"].iter().for_each(|channel| drop(other.sql(&format!("NOTIFY {channel}"))));
        assert_eq!(heard(client), "c||another");
        client.sql("NOTIFY c");
        client.sql("DISCARD ALL");
        other.sql("NOTIFY c");
        client.sql("SELECT 1");
    });
}

#[test]
fn texts_of_many_statements() {
    same(|client, other| {
        let all = ["a", "b", "c", "d", "e"];
        for text in [
            "LISTEN a; LISTEN b; UNLISTEN a",
            "LISTEN a; NOTIFY a, 'at once'; SELECT 1",
            "BEGIN; LISTEN b; COMMIT; LISTEN c; SELECT 1/0",
            "BEGIN; LISTEN b; ROLLBACK; BEGIN; LISTEN c; COMMIT; SELECT ';LISTEN d'",
            "LISTEN d; SELECT 1/0; LISTEN e",
            "UNLISTEN *; LISTEN e;; NOTIFY e, 'x'; /* LISTEN d */",
        ] {
            client.send(&query(text));
            client.ready(1);
            client.sql("BEGIN");
            all.iter().for_each(|channel| drop(other.sql(&format!("NOTIFY {channel}, 'probe'"))));
            client.sql("COMMIT");
            client.sql("UNLISTEN *");
        }
    });
}

#[test]
fn listen_in_the_extended_protocol() {
    let unit = |name: &str, sql: &str| {
        [parse(name, sql), describe(name), bind(name, &[]), describe_portal(""), execute()].concat()
    };
    same(|client, other| {
        for name in ["", "named"] {
            client.send_all(&[unit(name, "LISTEN a"), sync()]);
            client.ready(1);
            // Prepared before, within a transaction, all at once.
            client.send_all(&[close("named"), unit("", "BEGIN"), unit(name, "LISTEN b"), sync()]);
            client.ready(1);
            client.send_all(&[unit("", "NOTIFY b, 'own'"), unit("", "COMMIT"), sync()]);
            client.ready(1);
            client.send_all(&[unit("", "LISTEN c"), unit("", "SELECT 1/0"), sync()]);
            client.ready(1);
            client.send_all(&[unit("", "UNLISTEN a"), sync(), unit("", "SELECT 1"), sync()]);
            client.ready(2);
            for channel in ["a", "b", "c"] {
                client.send_all(&[unit("", &format!("NOTIFY {channel}")), sync()]);
                client.ready(1);
                other.sql(&format!("NOTIFY {channel}"));
                if channel == "b" {
                    assert_eq!(heard(client), "b||another");
                }
            }
            client.send_all(&[parse("ear", "LISTEN d"), sync()]);
            client.ready(1);
            client.send_all(&[bind("ear", &[]), execute(), sync()]);
            client.ready(1);
            client.send_all(&[bind("ear", &[]), execute(), sync(), close("ear"), sync()]);
            client.ready(2);
            client.send_all(&[unit("", "NOTIFY d"), sync()]);
            client.ready(1);
            client.send_all(&[unit("", "UNLISTEN *"), sync()]);
            client.ready(1);
            client.send_all(&[unit("", "NOTIFY b"), sync()]);
            client.ready(1);
        }
    });
}

/// What is sent without waiting for answers: each ReadyForQuery has its notifications in front of it.
#[test]
fn pipelines_are_told_in_order() {
    let unit = |sql: &str| [parse("", sql), bind("", &[]), execute(), sync()].concat();
    same(|client, _| {
        client.send_all(&[
            query("SELECT 1"),
            query("LISTEN a"),
            query("NOTIFY a, '1'"),
            unit("NOTIFY a, '2'"),
            query("BEGIN"),
            unit("NOTIFY a, '3'"),
            query("LISTEN b"),
            query("COMMIT"),
            unit("NOTIFY b, '4'"),
            query("SELECT 1/0"),
            query("UNLISTEN a"),
            query("NOTIFY a, '5'"),
            unit("NOTIFY b, '6'"),
            query("UNLISTEN *"),
            query("NOTIFY b, '7'"),
        ]);
        client.ready(15);
    });
}

/// H25: what others have notified on the same server is not taken for the client's own, nor the other way round.
#[test]
fn who_has_notified_is_told_apart_on_one_server() {
    let database = Database::new();
    let pooler = Pooler::of(&database, &["default_pool_size = 1"]);
    let (mut client, mut other) = (pooler.connect(), pooler.connect());
    client.sql("LISTEN news");
    for round in 0..200 {
        // Both wait for the same server; who is first is a matter of chance.
        other.send(&query(&format!("NOTIFY news, 'other {round}'")));
        client.send(&query(&format!("NOTIFY news, 'own {round}'")));
        client.ready(1);
        other.ready(1);
    }
    client.sql("NOTIFY news, 'last'");
    let heard: Vec<String> = lines(&client).into_iter().filter(|line| line.starts_with("news|")).collect();
    assert_eq!(heard.len(), 401);
    for round in 0..200 {
        for (line, times) in
            [(format!("news|own {round}|itself"), 1), (format!("news|other {round}|another"), 1)]
        {
            assert_eq!(heard.iter().filter(|heard| **heard == line).count(), times, "{line}: {heard:?}");
        }
    }
}

/// Where pooler cannot know what becomes of it, the server listens, and is kept.
#[test]
fn what_pooler_cannot_follow_keeps_its_server() {
    let database = Database::new();
    let pooler = Pooler::of(&database, &["default_pool_size = 2"]);
    let mut other = pooler.connect();
    for (texts, channels) in [
        (vec!["DO $$ BEGIN EXECUTE 'LISTEN a'; END $$"], vec!["a"]),
        (
            vec!["BEGIN", "SAVEPOINT s", "LISTEN a", "SAVEPOINT t", "LISTEN b", "ROLLBACK TO t", "COMMIT"],
            vec!["a"],
        ),
        (vec!["LISTEN a", "DO $$ BEGIN EXECUTE 'LISTEN b'; EXECUTE 'LISTEN a'; END $$"], vec!["a", "b"]),
        (vec!["DO $$ BEGIN EXECUTE 'LISTEN b'; END $$", "LISTEN a", "LISTEN b"], vec!["a", "b"]),
    ] {
        let mut client = pooler.connect();
        texts.iter().for_each(|sql| drop(client.sql(sql)));
        assert_eq!(pooler.pinned(), ["LISTEN"], "{texts:?}");
        client.received.clear();
        for round in 0..20 {
            ["a", "b"].iter().for_each(|channel| drop(other.sql(&format!("NOTIFY {channel}, '{round}'"))));
        }
        client.sql("SELECT 1");
        for channel in ["a", "b"] {
            let of_it: Vec<String> =
                lines(&client).into_iter().filter(|line| line.starts_with(&format!("{channel}|"))).collect();
            let expected: Vec<String> = (0..20).map(|round| format!("{channel}|{round}|another")).collect();
            let listens = channels.contains(&channel);
            assert_eq!(of_it, if listens { expected } else { Vec::new() }, "{texts:?}");
        }
        client.sql("UNLISTEN *");
        assert!(pooler.pinned().is_empty(), "{texts:?}");
        client.received.clear();
        other.sql("NOTIFY a");
        other.sql("NOTIFY b");
        client.sql("SELECT 1");
        assert!(client.received.iter().all(|frame| frame.tag != b'A'), "{texts:?}");
    }
}

/// A subscription that a function has hidden is nobody's: who gets the server next hears nothing of it.
#[test]
fn hidden_subscription_reaches_no_stranger() {
    let database = Database::new();
    let options = ["default_pool_size = 1", "session_state = \"suspected\"", "session_functions = \"trust\""];
    let pooler = Pooler::of(&database, &options);
    database.sql(
        "CREATE FUNCTION hides() RETURNS void LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'LISTEN hidden'; END $$",
    );
    let (mut client, mut stranger) = (pooler.connect(), pooler.connect());
    client.sql("SELECT hides()");
    assert!(pooler.pinned().is_empty());
    stranger.sql("BEGIN");
    database.sql("NOTIFY hidden");
    stranger.sql("COMMIT");
    stranger.sql("SELECT 1");
    assert!(stranger.received.iter().all(|frame| frame.tag != b'A'));
    // Nor is the server used again.
    database.wait_for(
        "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%hides%' AND pid <> pg_backend_pid() AND datname = current_database()",
        &["0"],
    );
}

/// A pool whose servers are all busy listens all the same, and one connection is enough for all.
#[test]
fn listeners_share_one_connection_and_need_no_server() {
    let database = Database::new();
    let pooler = Pooler::of(&database, &["default_pool_size = 2", "max_db_connections = 2"]);
    let mut clients: Vec<Raw> = (0..50).map(|_| pooler.connect()).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        client.sql("LISTEN common");
        client.sql(&format!("LISTEN channel{n}"));
    }
    let mut busy = [pooler.connect(), pooler.connect()];
    busy.iter_mut().for_each(|client| drop(client.sql("BEGIN")));
    assert_eq!(database.server_count(), 3);
    database.sql("NOTIFY common, 'x'");
    for n in 0..50 {
        database.sql(&format!("NOTIFY channel{n}"));
    }
    for (n, client) in clients.iter_mut().enumerate() {
        assert_eq!(heard(client), "common|x|another");
        assert_eq!(heard(client), format!("channel{n}||another"));
    }
    clients[0].silent(Duration::from_millis(50));
}

/// Clients listen and stop listening, notify and move between servers, while somebody speaks all the time: each hears all that
/// is said from its LISTEN on to its UNLISTEN, once and in order, and knows its own.
#[test]
fn what_comes_and_goes_hears_all_that_is_meant_for_it() {
    const CLIENTS: usize = 8;
    const ROUNDS: usize = 12;
    let database = Database::new();
    let pooler = Pooler::of(
        &database,
        &[
            "default_pool_size = 3",
            "server_round_robin = true",
            "workers = 3",
            "client_placement = \"rotate\"",
        ],
    );
    // The number that was said last, and acknowledged.
    let said = AtomicUsize::new(0);
    let over = AtomicBool::new(false);
    let clients: Vec<Raw> = (0..CLIENTS).map(|_| pooler.connect()).collect();
    let mut speaker = pooler.connect();
    std::thread::scope(|scope| {
        let listeners: Vec<_> = clients
            .into_iter()
            .enumerate()
            .map(|(n, client)| {
                let said = &said;
                scope.spawn(move || listen_in_rounds(client, n, ROUNDS, said))
            })
            .collect();
        scope.spawn(|| {
            for number in 1.. {
                speaker.sql(&format!("NOTIFY said, '{number}'"));
                said.store(number, Ordering::SeqCst);
                if over.load(Ordering::SeqCst) {
                    return;
                }
            }
        });
        let results: Vec<_> = listeners.into_iter().map(|listener| listener.join()).collect();
        over.store(true, Ordering::SeqCst);
        assert!(results.iter().all(Result::is_ok));
    });
    assert!(pooler.pinned().is_empty());
}

fn listen_in_rounds(mut client: Raw, n: usize, rounds: usize, said: &AtomicUsize) {
    for round in 0..rounds {
        client.received.clear();
        let before = said.load(Ordering::SeqCst);
        if round % 3 == 0 {
            client.sql("BEGIN");
            client.sql("LISTEN said");
            client.sql("LISTEN echo");
            client.sql("COMMIT");
        } else {
            client.sql("LISTEN said; LISTEN echo");
        }
        let from = said.load(Ordering::SeqCst);
        for number in 0..5 {
            let own = format!("echo|{n}.{round}.{number}|itself");
            client.sql(&format!("NOTIFY echo, '{n}.{round}.{number}'"));
            // In front of its ReadyForQuery.
            let told = lines(&client);
            assert_eq!(told.iter().filter(|line| **line == own).count(), 1, "{own}: {told:?}");
            client.sql("SELECT 1");
        }
        while said.load(Ordering::SeqCst) == from {
            client.sql("SELECT 1");
        }
        let to = said.load(Ordering::SeqCst);
        client.sql("UNLISTEN *");
        let behind = client.received.len();
        client.sql("SELECT 1");
        let told = lines(&client);
        assert!(told[behind..].iter().all(|line| !line.contains('|')), "{told:?}");
        let others =
            told.iter().filter(|line| line.starts_with("echo|")).filter(|line| line.ends_with("|itself"));
        assert_eq!(others.count(), 5, "{told:?}");
        let numbers: Vec<usize> = told
            .iter()
            .filter_map(|line| line.strip_prefix("said|")?.strip_suffix("|another"))
            .map(|number| number.parse().unwrap())
            .collect();
        // All that was said in between, and nothing that had been said before it asked. One may have been committed before
        // it listened, and acknowledged later.
        assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{numbers:?}");
        let (first, last) = (numbers[0], numbers[numbers.len() - 1]);
        assert!(before < first && first <= from + 2 && last >= to, "{before} {from} {to}: {numbers:?}");
    }
}

/// Where nobody can tell what a client listens to, it is told so, and does not go on as if all were well.
#[test]
fn client_of_which_it_is_not_known_what_it_listens_to_is_ended() {
    let unit = |sql: &str| [parse("", sql), bind("", &[]), execute()].concat();
    let database = Database::new();
    let pooler = Pooler::of(&database, &["default_pool_size = 2"]);
    for messages in [
        // Which of the savepoints it went back to is in no tag.
        ["BEGIN", "SAVEPOINT s", "LISTEN a", "SAVEPOINT t", "ROLLBACK TO t", "COMMIT"].map(unit).concat(),
        query("SELECT '\\'; UNLISTEN a"),
    ] {
        let mut client = pooler.connect();
        client.sql("LISTEN b");
        client.send_all(&[messages, sync()]);
        let last = client.closed();
        let error = last.iter().rfind(|frame| frame.tag == b'E').unwrap();
        assert_eq!((error.field(b'S'), error.field(b'C')), ("FATAL".into(), "0A000".into()), "{last:?}");
    }
    assert_eq!(pooler.connect().sql("SELECT 1"), ["1"]);
}
