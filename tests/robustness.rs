//! Properties of `tests/fuzz` with random input: raw bytes, and messages that are nearly right.

#![allow(unreachable_pub, reason = "a library for cargo fuzz")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

#[path = "fuzz/src/lib.rs"]
mod fuzz;

use proptest::{collection::vec, prelude::*, sample::select};

/// What messages are made of.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let known: &[&[u8]] = &[
        b"\0",
        b"a\0",
        b"b\0",
        b"S",
        b"P",
        b"I",
        b"T",
        b"E",
        b"\0\0",
        b"\0\0\0\0",
        b"\0\x01",
        b"\xff\xff\xff\xff",
        b"SELECT 1\0",
        b"DEALLOCATE a\0",
        b"DEALLOCATE ALL\0",
        b"DISCARD ALL\0",
        b"BEGIN\0",
        b"COPY t FROM STDIN\0",
        b"SET\0",
        b"RESET\0",
        b"INSERT 0 1\0",
        b"client_encoding\0UTF8\0",
        b"search_path\0a, b\0",
        b"SERROR\0VERROR\0C26000\0Mprepared statement\0\0",
        b"SFATAL\0VFATAL\0C57P01\0Mend\0\0",
    ];
    prop_oneof![
        8 => select(known).prop_map(<[u8]>::to_vec),
        1 => vec(any::<u8>(), 0..40),
    ]
}

/// A message with one of these tags; now and then with a length that is not its own.
fn message(tags: &'static [u8]) -> impl Strategy<Value = Vec<u8>> {
    let tag = prop_oneof![60 => select(tags), 1 => any::<u8>()];
    let lie = prop_oneof![30 => Just(0_i32), 1 => -8..8_i32, 1 => any::<i32>()];
    (tag, vec(piece(), 0..5), lie).prop_map(|(tag, pieces, lie)| {
        let body = pieces.concat();
        let len = i32::try_from(body.len() + 4).unwrap().wrapping_add(lie);
        [&[tag][..], &len.to_be_bytes(), &body].concat()
    })
}

/// Turns of client and server, as the targets read them.
fn dialogue() -> impl Strategy<Value = Vec<u8>> {
    let client =
        vec(message(b"QQPPPPPBBBBBDDDDEEEECCCSSSSSHFXdcf"), 1..6).prop_map(|messages| (0, messages.concat()));
    let server =
        vec(message(b"1233CCDDEINRSTZZZZAGHWVcdnstv"), 1..6).prop_map(|messages| (0x80, messages.concat()));
    vec(prop_oneof![client, server], 1..12).prop_map(|turns| {
        let cut = |(direction, bytes): (u8, Vec<u8>)| {
            bytes
                .chunks(0x7f)
                .flat_map(|chunk| [&[direction | u8::try_from(chunk.len()).unwrap()][..], chunk].concat())
                .collect::<Vec<u8>>()
        };
        turns.into_iter().flat_map(cut).collect()
    })
}

fn raw() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..400)
}

/// What the other side of a SCRAM exchange may send, in halves of the same length.
fn scram_messages() -> impl Strategy<Value = Vec<u8>> {
    let piece = select(
        &[
            "SCRAM-SHA-256\0",
            "\0\0\0\x20",
            "n,,",
            "y,,",
            "p=tls-server-end-point,,",
            "n=",
            "n=,r=abc",
            ",",
            "r=",
            "s=W22ZaJ0SNY7soEsUEjb6gQ==",
            "i=1",
            "i=4096",
            "i=0",
            "i=-1",
            "c=biws",
            "p=AAAA",
            "v=AAAA",
            "m=x",
            "e=other-error",
            "=",
            "é",
        ][..],
    );
    let half = || vec(piece.clone(), 0..8).prop_map(|pieces| pieces.concat().into_bytes());
    (half(), half()).prop_map(|(mut one, mut two)| {
        let len = one.len().max(two.len());
        one.resize(len, b'x');
        two.resize(len, b'x');
        [one, two].concat()
    })
}

/// Lines of a configuration in any order, some of them broken.
fn configuration() -> impl Strategy<Value = Vec<u8>> {
    let line = select(
        &[
            "[pooler]",
            "[databases.a]",
            "[databases.'*']",
            "[users.u]",
            "[users]",
            "[",
            "host = \"h\"",
            "host = 7",
            "port = 5432",
            "port = 0",
            "url = \"postgres://u:p@h:1/d?sslmode=require\"",
            "url = \"postgres://\"",
            "password = \"x\"",
            "password_file = \"/nowhere\"",
            "auth_file = \"/nowhere\"",
            "pool_mode = \"session\"",
            "pool_mode = 3",
            "query_timeout = \"1h\"",
            "query_timeout = -1",
            "max_packet_size = \"16MB\"",
            "max_packet_size = 99999999999999999999",
            "listen_addr = [\"a\", 1]",
            "admin_users = \"a, b\"",
            "password = \"${X}\"",
            "password = \"${X:-y}\"",
            "password = \"${\"",
            "# comment",
            "\"\"\"",
            "x = {",
            "ünbekannt = 1",
        ][..],
    );
    vec(line, 0..14).prop_map(|lines| lines.join("\n").into_bytes())
}

/// Found by chance: a ParameterStatus of an impossible length counted or not, as the bytes came.
#[test]
fn parameter_status_without_end_is_passed_unread() {
    let server = b"C\0\0\0\x10DISCARD ALL\0S\x57\x51\x41\x88client_encoding\0UTF8\0";
    let turn = 0x80 | u8::try_from(server.len()).unwrap();
    fuzz::chunks(&[&[turn][..], server].concat());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    /// S12, H35: whatever comes from either end.
    #[test]
    fn relay_survives_any_bytes(data in prop_oneof![dialogue(), raw()]) {
        fuzz::relay(&data);
    }

    /// S9: the same comes out however it is cut.
    #[test]
    fn chunks_make_no_difference(data in prop_oneof![3 => dialogue(), 1 => raw()]) {
        fuzz::chunks(&data);
    }

    #[test]
    fn startup_survives_any_bytes(body in raw()) {
        fuzz::startup(&body);
        let len = u32::try_from(body.len() + 8).unwrap();
        fuzz::startup(&[&len.to_be_bytes()[..], &[0, 3, 0, 0], &body].concat());
    }

    /// S13
    #[test]
    fn scram_lets_nobody_in(data in prop_oneof![scram_messages(), raw()]) {
        fuzz::scram(&data);
    }

    #[test]
    fn configuration_loads_or_says_why_not(data in prop_oneof![configuration(), raw()]) {
        fuzz::config(&data);
    }
}
