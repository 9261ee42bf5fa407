//! Input that no client should send: an error or a closed connection to its sender, nothing to anyone else (S12, H35, H39).

use std::time::Duration;

use crate::support::{
    compare::Pair,
    database::password_of,
    msg::*,
    pooler::Pooler,
    raw::{Chunks, Raw, packet, startup},
};

/// A message with a length that is not its own.
fn lie(tag: u8, len: u32) -> Vec<u8> {
    [&[tag][..], &len.to_be_bytes(), b"some bytes\0"].concat()
}

#[test]
fn malformed_messages_end_their_connection_only() {
    let pair = Pair::with(&["default_pool_size = 2"]);
    let mut bystander = pair.pooler.connect();
    bystander.sql("BEGIN");
    let bad = [
        lie(b'Q', 0),
        lie(b'Q', 3),
        lie(b'Q', u32::MAX),
        lie(b'Q', 0x8000_0000),
        lie(b'P', 0x7fff_ffff),
        lie(b'S', 1_000_000_000),
        lie(b'y', 12),
        lie(0, 12),
        build(b'Q', |b| b.extend(b"no end")),
        build(b'P', |b| b.extend(b"no end")),
        build(b'B', |b| b.extend(b"\0\0\xff\xff")),
        build(b'B', |b| b.extend(b"p\0s\0\0\0\0\x01\x7f\xff\xff\xff")),
        build(b'D', |b| b.extend(b"Xname\0")),
        build(b'E', |b| b.extend(b"p\0\0")),
        build(b'C', |_| {}),
        build(b'F', |b| b.extend([0, 0])),
    ];
    for bytes in bad {
        println!("{bytes:?}");
        let mut client = pair.pooler.connect();
        client.send_all(&[bytes.clone(), sync()]);
        client.finish_sending();
        let frames = client.closed();
        let errors: Vec<String> =
            frames.iter().filter(|frame| frame.tag == b'E').map(|frame| frame.field(b'C')).collect();
        // A body is read from its start: the name of a statement or portal may be found wrong first.
        assert!(
            errors.iter().all(|code| ["08P01", "26000", "34000"].contains(&code.as_str())),
            "{bytes:?}: {errors:?}"
        );
        assert_eq!(bystander.sql("SELECT 'unaffected'"), ["unaffected"], "{bytes:?}");
    }
    bystander.sql("COMMIT");
    pair.next_client_is_untouched();
}

#[test]
fn unknown_message_type_is_a_protocol_violation() {
    let pair = Pair::new();
    let mut client = pair.pooler.connect();
    client.send(&build(b'y', |b| b.extend(b"what")));
    assert_eq!(client.closed().last().map(|frame| frame.field(b'C')).as_deref(), Some("08P01"));
    pair.next_client_is_untouched();
}

#[test]
fn malformed_startup_packets_end_their_connection_only() {
    let pair = Pair::new();
    let mut bystander = pair.pooler.connect();
    let bad: [Vec<u8>; 10] = [
        vec![0; 64],
        vec![0xff; 64],
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        packet(b""),
        packet(&[0, 3]),
        packet(&[0, 3, 0, 0, b'u', b's', b'e', b'r']),
        startup(3 << 16, &[]),
        startup(2 << 16, &[("user", "app")]),
        startup(9 << 16, &[("user", "app")]),
        startup(3 << 16, &[("user", "app"), ("options", &"x".repeat(20_000))]),
    ];
    for bytes in bad {
        let mut client = Raw::open(pair.pooler.port);
        // It may be refused before all of it is sent.
        let _ = client.try_send(&bytes);
        client.finish_sending();
        // A message of the old protocol or none: what counts is that it ends, and that nothing else does.
        let mut rest = Vec::new();
        let _ = client.drain(&mut rest);
        assert_eq!(bystander.sql("SELECT 'unaffected'"), ["unaffected"], "{bytes:?}");
    }
}

// S12: a client that ends before it has begun (Terminate in front of the startup packet) takes any answer for an error.
#[test]
fn startup_packets_of_impossible_length_are_not_answered() {
    let pair = Pair::new();
    let begun = startup(3 << 16, &[("user", "app")]);
    for bytes in [[&b"X\0\0\0\x04"[..], &begun].concat(), vec![0; 64], packet(b""), packet(&[0, 3])] {
        for port in [pair.database.port, pair.pooler.port] {
            let mut client = Raw::open(port);
            let _ = client.try_send(&bytes);
            client.finish_sending();
            let mut answer = Vec::new();
            let _ = client.drain(&mut answer);
            assert_eq!(answer, b"", "{bytes:?}");
        }
    }
}

#[test]
fn startup_packet_may_come_byte_by_byte() {
    let pair = Pair::new();
    let mut client = Raw::open(pair.pooler.port);
    client.chunks = Chunks::Of(1);
    client.try_login("app", &pair.database.name, &password_of("app"), &[]).unwrap();
    assert_eq!(client.sql("SELECT 1"), ["1"]);
}

#[test]
fn gssapi_is_declined_and_login_goes_on() {
    let pair = Pair::new();
    let mut client = Raw::open(pair.pooler.port);
    client.send(&packet(&80_877_104_u32.to_be_bytes()));
    assert_eq!(client.bytes(1), b"N");
    client.send(&packet(&80_877_103_u32.to_be_bytes()));
    assert_eq!(client.bytes(1), b"N");
    client.try_login("app", &pair.database.name, &password_of("app"), &[]).unwrap();
}

#[test]
fn newer_protocol_and_unknown_protocol_options_are_negotiated() {
    let pair = Pair::new();
    let pairs = [("user", "app"), ("database", pair.database.name.as_str()), ("_pq_.surely_unknown", "1")];
    let mut client = Raw::open(pair.pooler.port);
    client.send(&startup((3 << 16) | 9999, &pairs));
    let first = client.frame();
    assert_eq!(first.tag, b'v', "{first:?}");
    assert!(first.body.ends_with(b"\0\0\0\x01_pq_.surely_unknown\0"), "{:?}", first.body);
}

#[test]
fn clients_that_connect_and_say_nothing_are_closed_in_time() {
    let pair = Pair::with(&["default_pool_size = 1", "client_login_timeout = 1"]);
    let mut silent = Raw::open(pair.pooler.port);
    let mut halfway = Raw::open(pair.pooler.port);
    halfway.send(&startup(3 << 16, &[("user", "app"), ("database", &pair.database.name)]));
    assert_eq!(halfway.frame().tag, b'R');
    let start = std::time::Instant::now();
    silent.closed();
    halfway.closed();
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[test]
fn wrong_password_unknown_user_and_unknown_database_look_alike() {
    let pair = Pair::new();
    let known = pair.database.name.as_str();
    let refused = |user: &str, database: &str| {
        let error = Raw::open(pair.pooler.port).try_login(user, database, "wrong", &[]).unwrap_err();
        (error.field(b'C'), error.field(b'M').replace(user, "USER"))
    };
    let expected = refused("app", known);
    assert_eq!(expected.0, "28P01");
    assert_eq!(refused("nobody_known", known), expected);
    assert_eq!(refused("app", "no_such_database"), expected);
}

/// Most memory that the pooler has had so far, in kB.
fn most_memory(pooler: &Pooler) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", pooler.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
}

// H35: what means nothing without a server was gathered up to its announced length.
#[test]
fn message_that_is_thrown_away_costs_no_memory() {
    let pair = Pair::new();
    let mut client = pair.pooler.connect();
    client.sql("SELECT 1");
    let before = most_memory(&pair.pooler);
    client.send(&copy_data(&"x".repeat(100 << 20)));
    assert_eq!(client.sql("SELECT 'in step'"), ["in step"]);
    let after = most_memory(&pair.pooler);
    assert!(after < before + (20 << 10), "{before} kB, then {after} kB");
}

// H8, H35: a Bind of 16 bytes may need a Parse of a megabyte in front, and thousands of them are read at once.
#[test]
fn statements_that_are_prepared_again_and_again_cost_no_memory() {
    let pair = Pair::with(&["default_pool_size = 1", "max_prepared_statements = 1"]);
    let mut client = pair.pooler.connect();
    for name in ["a", "b"] {
        let long = format!("SELECT '{name}' /* {} */", "x".repeat(1_000_000));
        client.send_all(&[parse(name, &long), sync()]);
        client.ready(1);
    }
    let before = most_memory(&pair.pooler);
    let binds = [bind("a", &[]), bind("b", &[])].concat().repeat(100);
    client.send_all(&[binds, execute(), sync()]);
    assert_eq!(client.ready(1)[200].row(), "b");
    let after = most_memory(&pair.pooler);
    assert!(after < before + (40 << 10), "{before} kB, then {after} kB");
}

// H8: answers that the pooler gives itself are not gathered for a client that does not read them, nor are entries of the
// reply queue. Looking through these must not cost others their turn either.
#[test]
fn endless_pipeline_costs_neither_memory_nor_time_of_others() {
    let pair = Pair::with(&["default_pool_size = 3", "workers = 1"]);
    let mut bystander = pair.pooler.connect();
    let before = most_memory(&pair.pooler);
    let name = "n".repeat(200);
    let pairs = [parse(&name, "SELECT 1"), close(&name)].concat();
    for (start, message) in [
        (query("SELECT pg_sleep(2)"), bind("s", &[])),
        (query("SELECT pg_sleep(2)"), [pairs.clone(), sync()].concat()),
        (query("SELECT pg_sleep(2)"), pairs.clone()),
        (parse("s", "SELECT 1"), pairs),
        (close("none"), [close("none"), flush()].concat()),
    ] {
        let mut client = pair.pooler.connect();
        client.send_all(&[parse("s", "SELECT 1"), sync()]);
        client.ready(1);
        client.send(&start);
        let sender = client.send_meanwhile(message.repeat((20 << 20) / message.len()));
        let start = std::time::Instant::now();
        while start.elapsed() < Duration::from_secs(1) {
            let sent = std::time::Instant::now();
            bystander.sql("SELECT 1");
            // Far more than it takes, far less than it took.
            assert!(sent.elapsed() < Duration::from_secs(3), "{:?}", sent.elapsed());
        }
        client.disconnect();
        sender.join().unwrap();
    }
    let after = most_memory(&pair.pooler);
    assert!(after < before + (30 << 10), "{before} kB, then {after} kB");
}
