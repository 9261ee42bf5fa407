//! Large values and slow readers: memory stays small, nobody blocks anybody, and what was used comes back.

use pooler::demo::process::wait_until;

use crate::support::{
    compare::Pair,
    database::{Database, password_of},
    msg::*,
    pooler::{Pooler, Setup},
    raw::{PATIENCE, Raw},
    tls::{self, Options},
};

/// What pooler may use beyond what it had, in kB; the values are ten times as large and more.
const ROOM: u64 = 24 << 10;
const PIECE: &[u8] = &[b'x'; 64 << 10];

/// Runs the work and asserts that the pooler's memory never grew by more than [`ROOM`].
fn in_little_memory(pooler: &Pooler, what: &str, work: impl FnOnce()) {
    let before = pooler.memory("VmHWM");
    work();
    let after = pooler.memory("VmHWM");
    assert!(after < before + ROOM, "{what}: from {before} kB to {after} kB at most");
}

/// A message of this type with a body of the head, so many `x`, and the tail, in pieces.
fn send_large(client: &mut Raw, tag: u8, head: &[u8], count: usize, tail: &[u8]) {
    let len = u32::try_from(4 + head.len() + count + tail.len()).unwrap();
    client.send(&[&[tag][..], &len.to_be_bytes(), head].concat());
    for _ in 0..count / PIECE.len() {
        client.send(PIECE);
    }
    client.send(&PIECE[..count % PIECE.len()]);
    client.send(tail);
}

/// Reads one message that is too large to keep. Returns its type and the length of its body.
fn skip_large(client: &mut Raw) -> (u8, usize) {
    let header = client.bytes(5);
    let len = usize::try_from(u32::from_be_bytes(header[1..].try_into().unwrap())).unwrap() - 4;
    let mut left = len;
    while left > 0 {
        left -= client.bytes(left.min(PIECE.len())).len();
    }
    (header[0], len)
}

/// H35: values near the limit of 1 GB stream through, in every direction and kind of message.
#[test]
fn giant_values_pass_in_little_memory() {
    const GIANT: usize = 500_000_000;
    let database = Database::new();
    database.sql("CREATE TABLE t (x text); GRANT ALL ON t TO app");
    let pooler = Pooler::of(&database, &["default_pool_size = 1"]);
    let mut client = pooler.connect();
    client.sql("SELECT 1");

    in_little_memory(&pooler, "row", || {
        client.send(&query(&format!("SELECT repeat('x', {GIANT})")));
        client.until(b'T');
        assert_eq!(skip_large(&mut client), (b'D', GIANT + 6));
        client.ready(1);
    });
    in_little_memory(&pooler, "COPY OUT", || {
        client.send(&query("COPY (SELECT repeat('x', 20000000) FROM generate_series(1, 20)) TO STDOUT"));
        client.until(b'H');
        for _ in 0..20 {
            assert_eq!(skip_large(&mut client), (b'd', 20_000_001));
        }
        client.ready(1);
    });
    in_little_memory(&pooler, "COPY IN", || {
        client.send(&query("COPY t FROM STDIN WHERE x IS NULL"));
        client.until(b'G');
        send_large(&mut client, b'd', b"", GIANT, b"\n");
        client.send(&copy_done());
        assert_eq!(format!("{:?}", client.ready(1)[0]), "CommandComplete COPY 0");
    });
    in_little_memory(&pooler, "Query", || {
        send_large(&mut client, b'Q', b"SELECT length('", GIANT / 2, b"')\0");
        assert_eq!(client.ready(1)[1].row(), (GIANT / 2).to_string());
    });
    in_little_memory(&pooler, "Bind", || {
        client.send(&parse("s", "SELECT length($1)"));
        let len = u32::try_from(GIANT / 2).unwrap().to_be_bytes();
        send_large(&mut client, b'B', &[&b"\0s\0\0\0\0\x01"[..], &len].concat(), GIANT / 2, b"\0\0");
        client.send_all(&[execute(), sync()]);
        assert_eq!(client.ready(1)[2].row(), (GIANT / 2).to_string());
    });
    assert_eq!(pooler.connect().sql("SELECT 'next'"), ["next"]);
}

#[test]
fn giant_values_pass_in_little_memory_over_tls() {
    const LARGE: usize = 60_000_000;
    let database = Database::new();
    let pooler = Setup::new(&database).tls("require").setting("server_tls_sslmode = \"require\"").start();
    let mut client = tls::open(pooler.port, Options::default()).unwrap();
    client.try_login("app", &pooler.database, &password_of("app"), &[]).unwrap();
    client.sql("SELECT 1");
    in_little_memory(&pooler, "row", || {
        client.send(&query(&format!("SELECT repeat('x', {LARGE})")));
        client.until(b'T');
        assert_eq!(skip_large(&mut client), (b'D', LARGE + 6));
        client.ready(1);
    });
    in_little_memory(&pooler, "Query", || {
        send_large(&mut client, b'Q', b"SELECT length('", LARGE, b"')\0");
        assert_eq!(client.ready(1)[1].row(), LARGE.to_string());
    });
}

/// A client that does not read what it asked for holds neither the memory of pooler nor, between its requests, a
/// server.
#[test]
fn slow_reader_keeps_no_server_once_its_reply_is_complete() {
    let database = Database::new();
    database.sql("CREATE SEQUENCE s; GRANT ALL ON s TO app");
    let pooler = Pooler::of(&database, &["default_pool_size = 1"]);
    let (mut slow, mut quick) = (pooler.connect(), pooler.connect());
    let mut sent = 0;
    loop {
        slow.send(&query("SELECT nextval('s'), repeat('x', 60000)"));
        sent += 1;
        let reached = format!("SELECT last_value >= {sent} FROM s");
        let runs =
            wait_until(std::time::Duration::from_secs(1), || (database.sql(&reached) == ["t"]).then_some(()));
        // At every moment, also when bytes stay behind.
        assert_eq!(quick.sql("SELECT 'served'"), ["served"]);
        if runs.is_none() {
            break;
        }
        assert!(sent < 2000, "the kernel buffers without end");
    }
    for turn in 1..=sent {
        let frames = slow.ready(1);
        assert!(frames[1].row().starts_with(&format!("{turn}|xxx")), "{:?}", frames[1]);
    }
}

#[test]
fn slow_readers_of_endless_replies_cost_little_memory() {
    let database = Database::new();
    let pooler = Pooler::of(&database, &["default_pool_size = 20"]);
    let mut clients: Vec<Raw> = (0..20).map(|_| pooler.connect()).collect();
    in_little_memory(&pooler, "20 slow readers", || {
        for client in &mut clients {
            client.send(&query("SELECT repeat('x', 1000) FROM generate_series(1, 10000000)"));
        }
        pooler.wait_for_pool("sv_active", 20);
        // The kernel's buffers are full when the servers wait for room.
        database.wait_for(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'ClientWrite'",
            &["20"],
        );
    });
    // S26
    drop(clients);
    pooler.wait_for_pool("sv_active", 0);
    pooler.wait_for_pool("cl_active", 0);
    assert_eq!(pooler.connect().sql("SELECT 'next'"), ["next"]);
}

/// S35: what large messages needed comes back when they are through, although their clients stay.
#[test]
fn memory_of_large_messages_comes_back() {
    let database = Database::new();
    let pooler = Pooler::of(&database, &["default_pool_size = 2"]);
    let mut clients: Vec<Raw> = (0..12).map(|_| pooler.connect()).collect();
    clients[0].sql("SELECT 1");
    let before = pooler.memory("VmRSS");
    let value = "x".repeat(8_000_000);
    let statement = format!("SELECT length('{value}')");
    for client in &mut clients {
        assert_eq!(client.sql(&statement), ["8000000"]);
        // A Parse has to be gathered.
        client.send_all(&[parse("", &statement), bind("", &[]), execute(), sync()]);
        assert_eq!(client.ready(1)[2].row(), "8000000");
        client.send_all(&[parse("large", &statement), bind("large", &[]), execute(), close("large"), sync()]);
        assert_eq!(client.ready(1)[2].row(), "8000000");
        client.sql("SELECT 1");
    }
    // Two servers have been told the named one, whose text is there once; the unnamed ones are gone.
    let allowed = before + 2 * ROOM;
    let mut after = 0;
    let met = wait_until(PATIENCE, || {
        after = pooler.memory("VmRSS");
        (after < allowed).then_some(())
    });
    assert!(met.is_some(), "from {before} kB to {after} kB for 12 clients with statements of 8 MB");
}

/// H8: a client that sends more than anyone reads, while its replies are large too.
#[test]
fn both_directions_full_is_no_deadlock() {
    let pair = Pair::new();
    pair.database.sql("CREATE TABLE t (x text); GRANT ALL ON t TO app");
    let value = "x".repeat(10_000);
    let one = [bind("s", &[Some(&value)]), execute()].concat();
    let mut client = pair.pooler.connect();
    client.send_all(&[parse("s", "INSERT INTO t VALUES ($1) RETURNING x || x"), sync()]);
    client.ready(1);
    let sending = client.send_meanwhile([one.repeat(3000), sync()].concat());
    let frames = client.ready(1);
    sending.join().unwrap();
    let rows = frames.iter().filter(|frame| frame.tag == b'D' && frame.row().len() == 20_000).count();
    assert_eq!(rows, 3000);

    // The same with many simple queries.
    let sending = client
        .send_meanwhile(query(&format!("INSERT INTO t VALUES ('{value}') RETURNING x || x")).repeat(1000));
    let frames = client.ready(1000);
    sending.join().unwrap();
    assert_eq!(frames.iter().filter(|frame| frame.tag == b'D').count(), 1000);
    pair.next_client_is_untouched();
}
