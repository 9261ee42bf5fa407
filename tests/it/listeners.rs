//! The connections that listen for clients: what operators see of them, how they end, and what clients are told then (S31, S35,
//! S36).

use std::{collections::BTreeMap, time::Duration};

use pooler::demo::process::wait_until;

use crate::support::{
    database::{Database, password_of},
    load::start,
    msg::*,
    pooler::{Pooler, Setup},
    raw::{PATIENCE, Raw},
    replicated::DATABASE,
};

fn listeners(pooler: &Pooler) -> Vec<BTreeMap<String, String>> {
    pooler.console("SHOW LISTENERS").into_iter().map(|row| row.into_iter().collect()).collect()
}

/// Channel and payload of the next message.
fn heard(client: &mut Raw) -> String {
    let frame = client.frame();
    assert_eq!(frame.tag, b'A', "{frame:?}");
    String::from_utf8_lossy(&frame.body[4..]).replace('\0', "|")
}

/// A client is told that notifications may have been missed, and its connection ends.
fn assert_told(client: &mut Raw) {
    let last = client.closed();
    let errors: Vec<&Frame> = last.iter().filter(|frame| frame.tag == b'E').collect();
    assert_eq!(errors.len(), 1, "{last:?}");
    assert_eq!((errors[0].field(b'S'), errors[0].field(b'C')), ("FATAL".into(), "08006".into()));
    assert!(errors[0].field(b'H').starts_with("Notifications may have been missed"), "{last:?}");
}

#[test]
fn console_shows_who_listens() {
    let database = Database::new();
    let pooler = Pooler::of(&database, &["default_pool_size = 2"]);
    assert!(listeners(&pooler).is_empty());
    let (mut first, mut second) = (pooler.connect(), pooler.connect_as("other"));
    first.sql("LISTEN a");
    first.sql("LISTEN b");
    second.sql("LISTEN a");
    database.sql("NOTIFY a; NOTIFY c");
    assert_eq!((heard(&mut first), heard(&mut second)), ("a||".into(), "a||".into()));
    let shown = listeners(&pooler).remove(0);
    let pid = database.sql("SELECT pid FROM pg_stat_activity WHERE application_name = 'pooler listener' AND datname = current_database()").remove(0);
    for (column, value) in [
        ("database", &*database.name),
        ("user", "app"),
        ("state", "listening"),
        ("remote_pid", &*pid),
        ("clients", "2"),
        ("channels", "2"),
        ("notifications", "1"),
        ("delivered", "2"),
    ] {
        assert_eq!(shown[column], value, "{column}: {shown:?}");
    }
    assert!(shown["addr"].ends_with(&database.port.to_string()), "{shown:?}");
    // Nobody needs it any more: it goes, some time later, and comes again.
    drop(first);
    second.sql("UNLISTEN *");
    let gone = wait_until(PATIENCE, || listeners(&pooler).is_empty().then_some(()));
    assert!(gone.is_some(), "{:?}", listeners(&pooler));
    database.wait_for("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pooler listener' AND datname = current_database()", &["0"]);
    second.sql("LISTEN a");
    database.sql("NOTIFY a, 'again'");
    assert_eq!(heard(&mut second), "a|again|");
}

#[test]
fn loss_of_the_listener_is_told_to_those_who_listen() {
    let database = Database::new();
    let pooler = Pooler::of(&database, &["default_pool_size = 2"]);
    let (mut idle, mut busy, mut before) = (pooler.connect(), pooler.connect(), pooler.connect());
    let mut other = pooler.connect();
    idle.sql("LISTEN a");
    busy.sql("LISTEN a");
    busy.sql("BEGIN");
    before.sql("BEGIN");
    before.sql("LISTEN a");
    database.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pooler listener' AND datname = current_database()");
    for client in [&mut idle, &mut busy, &mut before] {
        assert_told(client);
    }
    // All others go on, and who comes again listens again.
    assert_eq!(other.sql("SELECT 1"), ["1"]);
    let mut again = pooler.connect();
    again.sql("LISTEN a");
    other.sql("NOTIFY a, 'heard'");
    assert_eq!(heard(&mut again), "a|heard|");
    pooler.wait_for_log("the connection that listens for clients has ended");
}

/// Where there cannot be such a connection, the server listens for its client.
#[test]
fn without_a_listener_the_server_is_kept() {
    let database = Database::new();
    database.sql(&format!("ALTER DATABASE {} CONNECTION LIMIT 1", database.name));
    // Pooler has no other connection of its own.
    let pooler = Pooler::of(&database, &["default_pool_size = 1", "session_functions = \"trust\""]);
    let mut client = pooler.connect();
    client.sql("LISTEN a");
    let pinned = pooler.pinned();
    database.sql(&format!("ALTER DATABASE {} CONNECTION LIMIT -1", database.name));
    assert_eq!(pinned, ["LISTEN"]);
    database.sql("NOTIFY a, 'x'");
    assert_eq!(heard(&mut client), "a|x|");
    client.sql("UNLISTEN a");
    // Next time there is one.
    let shared = wait_until(PATIENCE, || {
        client.sql("LISTEN a");
        let shared = listeners(&pooler).iter().any(|row| row["state"] == "listening");
        if !shared {
            client.sql("UNLISTEN a");
        }
        shared.then_some(())
    });
    assert!(shared.is_some());
}

#[test]
fn kill_reconnect_and_a_server_elsewhere_end_it() {
    let database = Database::new();
    let pooler = Pooler::of(&database, &["default_pool_size = 2"]);
    let mut client = pooler.connect();
    client.sql("LISTEN a");
    // What has nothing to do with it changes nothing.
    pooler.edit("default_pool_size = 2", "default_pool_size = 3");
    pooler.console("RELOAD");
    pooler.console("PAUSE");
    database.sql("NOTIFY a, 'while paused'");
    assert_eq!(heard(&mut client), "a|while paused|");
    pooler.console("RESUME");
    for how in ["RECONNECT", "RELOAD"] {
        if how == "RELOAD" {
            pooler.edit("host = \"127.0.0.1\"", "host = \"localhost\"");
        }
        pooler.console(how);
        assert_told(&mut client);
        client = pooler.connect();
        client.sql("LISTEN a");
    }
    pooler.console("KILL");
    let last = client.closed();
    assert_eq!(last.iter().map(|frame| frame.field(b'C')).collect::<Vec<_>>(), ["57P01"]);
    let gone = wait_until(PATIENCE, || listeners(&pooler).is_empty().then_some(()));
    assert!(gone.is_some());
    pooler.console("RESUME");
}

/// S35: what a client does not read is kept up to a bound, and no longer.
#[test]
fn client_that_does_not_read_is_ended() {
    let database = Database::new();
    let pooler = Pooler::of(&database, &["default_pool_size = 2"]);
    let (mut lazy, mut eager, mut busy) = (pooler.connect(), pooler.connect(), pooler.connect());
    for client in [&mut lazy, &mut eager, &mut busy] {
        client.sql("LISTEN a");
    }
    busy.sql("BEGIN");
    let payload = "x".repeat(7000);
    let batch = format!(
        "DO $$ BEGIN FOR i IN 1..200 LOOP PERFORM pg_notify('a', i || '{payload}'); END LOOP; END $$"
    );
    let mut told = 0;
    for _ in 0..20 {
        database.sql(&batch);
        for _ in 0..200 {
            assert!(heard(&mut eager).len() > 7000);
            told += 1;
        }
    }
    assert_eq!(told, 4000);
    // More than sockets hold, and more than a transaction may take.
    let mut last = Vec::new();
    busy.drain(&mut last).unwrap();
    assert!(last.windows(5).any(|part| part == b"53200"), "{}", String::from_utf8_lossy(&last));
    // What it had not taken is cut.
    last.clear();
    lazy.drain(&mut last).unwrap();
    assert!(last.len() < 28_000_000, "{}", last.len());
    pooler.wait_for_log("notifications are not read");
    assert_eq!(eager.sql("SELECT 1"), ["1"]);
}

/// What cannot be said in the client's encoding is not said in another one.
#[test]
fn encoding_of_a_client_is_kept() {
    let database = Database::new();
    let pooler = Pooler::of(&database, &["default_pool_size = 2"]);
    let mut client = pooler.connect();
    client.sql("LISTEN \"\u{fc}\"");
    database.sql("NOTIFY \"\u{fc}\", '\u{e9}'");
    assert_eq!(heard(&mut client), "\u{fc}|\u{e9}|");
    client.sql("LISTEN ascii");
    client.sql("SET client_encoding = 'LATIN1'");
    database.sql("NOTIFY ascii, 'plain'");
    assert_eq!(heard(&mut client), "ascii|plain|");
    database.sql("NOTIFY ascii, '\u{e9}'");
    let last = client.closed();
    assert_eq!(last.iter().map(|frame| frame.field(b'C')).collect::<Vec<_>>(), ["22P05"]);
    // Its server listens for one that has another encoding from the start.
    let mut latin = Raw::login_with(
        pooler.port,
        "app",
        &pooler.database,
        &password_of("app"),
        &[("client_encoding", "LATIN1")],
    );
    latin.sql("LISTEN ascii");
    database.sql("NOTIFY ascii, '\u{e9}'");
    let frame = latin.frame();
    assert_eq!(&frame.body[4..], b"ascii\0\xe9\0");
}

/// In session mode nothing is shared.
#[test]
fn session_mode_listens_by_its_own_server() {
    let database = Database::new();
    let pooler = Pooler::of(&database, &["pool_mode = \"session\""]);
    let (mut client, mut other) = (pooler.connect(), pooler.connect());
    client.sql("LISTEN a");
    assert!(listeners(&pooler).is_empty());
    other.sql("NOTIFY a, 'x'");
    assert_eq!(heard(&mut client), "a|x|");
}

/// A thousand clients, each with a channel of its own and one that all share, on three workers between which other clients move.
#[test]
fn a_thousand_listen_by_one_connection() {
    const CLIENTS: usize = 1000;
    let database = Database::new();
    let setup = Setup::new(&database)
        .setting("default_pool_size = 2")
        .setting("workers = 3")
        .setting("client_placement = \"rotate\"")
        .setting("auth_type = \"plain\"");
    let pooler = setup.start();
    let mut clients: Vec<Raw> = (0..CLIENTS).map(|_| pooler.connect()).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        client.send(&query(&format!("LISTEN own{n}; LISTEN common")));
    }
    clients.iter_mut().for_each(|client| drop(client.ready(1)));
    let mut speakers = [pooler.connect(), pooler.connect(), pooler.connect()];
    for round in 0..3 {
        for (speaker, client) in speakers.iter_mut().enumerate() {
            let notify = "PERFORM pg_notify('own' || i, r || '.' || s)";
            client.send(&query(&format!(
                "DO $$ DECLARE r int = {round}; s int = {speaker}; BEGIN FOR i IN 0..{} LOOP {notify}; END LOOP; \
                 NOTIFY common, '{round}.{speaker}'; END $$",
                CLIENTS - 1
            )));
        }
        speakers.iter_mut().for_each(|speaker| drop(speaker.ready(1)));
    }
    let mut order = None;
    for (n, client) in clients.iter_mut().enumerate() {
        let told: Vec<String> = (0..18).map(|_| heard(client)).collect();
        let of = |channel: &str| -> Vec<String> {
            let prefix = format!("{channel}|");
            told.iter().filter_map(|line| line.strip_prefix(&prefix)).map(str::to_owned).collect()
        };
        let (own, common) = (of(&format!("own{n}")), of("common"));
        // The same for all, and for both channels.
        assert_eq!(own, common);
        assert_eq!(*order.get_or_insert_with(|| own.clone()), own);
        assert_eq!(own.len(), 9);
    }
    let shown = listeners(&pooler).remove(0);
    assert_eq!((&*shown["clients"], &*shown["channels"]), ("1000", "1001"));
    assert!(database.server_count() <= 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokio_postgres_listens() {
    let database = Database::new();
    let pooler = Pooler::of(&database, &["default_pool_size = 2"]);
    let (client, mut connection) = pooler.client_config().connect(tokio_postgres::NoTls).await.unwrap();
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok(message)) = std::future::poll_fn(|context| connection.poll_message(context)).await {
            if let tokio_postgres::AsyncMessage::Notification(told) = message {
                let _ = sender.send(format!("{}|{}", told.channel(), told.payload()));
            }
        }
    });
    client.batch_execute("LISTEN a; LISTEN b").await.unwrap();
    client.execute("LISTEN c", &[]).await.unwrap();
    client.query("SELECT pg_notify('c', $1)", &[&"own"]).await.unwrap();
    let other = pooler.client().await;
    for channel in ["a", "b"] {
        other.execute("SELECT pg_notify($1, 'from another')", &[&channel]).await.unwrap();
    }
    for expected in ["c|own", "a|from another", "b|from another"] {
        let told = tokio::time::timeout(PATIENCE, receiver.recv()).await.unwrap();
        assert_eq!(told.as_deref(), Some(expected));
    }
}

/// S31: a change of the primary ends it, as the end of a server would.
#[test]
fn failover_is_told_to_those_who_listen() {
    let mut cluster = start(1);
    let pooler = cluster.setup(&[0, 1]).start();
    cluster.wait_for_replicas(&pooler);
    let (mut client, mut other) = (pooler.connect(), pooler.connect());
    client.sql("LISTEN a");
    // Reads go to replicas; the listener is at the primary.
    client.sql("SELECT 1");
    other.sql("NOTIFY a, 'before'");
    assert_eq!(heard(&mut client), "a|before|");
    client.sql("BEGIN READ ONLY");
    client.sql("LISTEN b");
    client.sql("COMMIT");
    client.sql("SHOW pooler.route");
    client.sql("BEGIN");
    client.sql("NOTIFY b, 'own'");
    client.sql("COMMIT");
    let own = client.received.iter().rfind(|frame| frame.tag == b'A').unwrap();
    assert_eq!((&own.body[..4], &own.body[4..]), (&client.key[..4], &b"b\0own\0"[..]));
    cluster.synchronous(1);
    cluster.crash(0);
    cluster.promote(1);
    assert_told(&mut client);
    let mut again = Raw::login(pooler.port, "app", DATABASE, &password_of("app"));
    again.sql("LISTEN a");
    other.sql("NOTIFY a, 'behind'");
    assert_eq!(heard(&mut again), "a|behind|");
    again.silent(Duration::from_millis(50));
}

/// What somebody has notified is there for whoever is told of it, on whatever node it looks: also if no acknowledgement has
/// passed through pooler.
#[test]
fn reads_behind_a_notification_show_what_it_tells_of() {
    let cluster = start(1);
    let pooler = cluster.setup(&[0, 1]).start();
    cluster.wait_for_replicas(&pooler);
    cluster.sql(0, "CREATE TABLE job (x int); GRANT SELECT ON job TO app");
    cluster.catch_up(1, 0);
    let mut client = pooler.connect();
    client.sql("LISTEN job");
    cluster.sql(1, "SELECT pg_wal_replay_pause()");
    for n in 1..=20 {
        cluster.sql(0, &format!("BEGIN; INSERT INTO job VALUES ({n}); NOTIFY job; COMMIT"));
        assert_eq!(heard(&mut client), "job||");
        assert_eq!(client.sql("SELECT count(*) FROM job"), [n.to_string()]);
    }
    cluster.sql(1, "SELECT pg_wal_replay_resume()");
}
