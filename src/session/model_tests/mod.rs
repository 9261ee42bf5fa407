//! Clients on a few model servers, in any order and any cut: each client must receive, byte for byte, what it would
//! receive from a model server of its own (S1–S9, S15–S22, H1–H9).

mod server;
mod stage;

use proptest::prelude::*;
use stage::{Move, Stage, pass, play_alone};

use crate::protocol::{backend as be, encode, frontend as fe};

/// One message of a client.
#[derive(Clone, Debug)]
pub(super) enum Op {
    Parse(&'static str, &'static str),
    Bind(&'static str, &'static str),
    DescribeStatement(&'static str),
    DescribePortal(&'static str),
    Execute(&'static str, u32),
    CloseStatement(&'static str),
    ClosePortal(&'static str),
    Flush,
    Sync,
    Query(&'static str),
    /// DEALLOCATE in extended protocol, with Sync. It is not bound again: which name it means to the pooler is settled
    /// when it is bound, to PostgreSQL when it is executed.
    Deallocate(&'static str),
    Copy(Copy),
}

/// A COPY FROM STDIN, with all that belongs to it; none of it waits for an answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Copy {
    /// In a Query that ends with it (else in extended protocol).
    query: Option<&'static str>,
    /// A Sync comes before the data.
    early: bool,
    data: &'static str,
    /// Ends with CopyDone (else CopyFail).
    done: bool,
}

impl Copy {
    fn write(&self, out: &mut Vec<u8>) {
        match self.query {
            Some(sql) => Op::Query(sql).write(out),
            None => [Op::Parse("", "COPY"), Op::Bind("", ""), Op::Execute("", 0)]
                .iter()
                .for_each(|op| op.write(out)),
        }
        if self.early {
            Op::Sync.write(out);
        }
        encode::message(out, fe::COPY_DATA, |b| b.extend_from_slice(self.data.as_bytes()));
        let end = if self.done { fe::COPY_DONE } else { fe::COPY_FAIL };
        encode::message(out, end, |b| b.extend_from_slice(if self.done { b"" } else { b"\0" }));
        if self.query.is_none() {
            [Op::Sync, Op::CloseStatement(""), Op::Sync].iter().for_each(|op| op.write(out));
        }
    }
}

impl Op {
    fn write(&self, out: &mut Vec<u8>) {
        let named = |out: &mut Vec<u8>, tag, kind: u8, name: &str| {
            encode::message(out, tag, |b| {
                b.push(kind);
                encode::cstr(b, name.as_bytes());
            });
        };
        match self {
            Self::Parse(name, sql) => encode::message(out, fe::PARSE, |b| {
                encode::cstr(b, name.as_bytes());
                encode::cstr(b, sql.as_bytes());
                b.extend_from_slice(&[0, 0]);
            }),
            Self::Bind(portal, name) => encode::message(out, fe::BIND, |b| {
                encode::cstr(b, portal.as_bytes());
                encode::cstr(b, name.as_bytes());
                b.extend_from_slice(&[0; 6]);
            }),
            Self::DescribeStatement(name) => named(out, fe::DESCRIBE, b'S', name),
            Self::DescribePortal(name) => named(out, fe::DESCRIBE, b'P', name),
            Self::CloseStatement(name) => named(out, fe::CLOSE, b'S', name),
            Self::ClosePortal(name) => named(out, fe::CLOSE, b'P', name),
            Self::Execute(portal, most) => encode::message(out, fe::EXECUTE, |b| {
                encode::cstr(b, portal.as_bytes());
                b.extend_from_slice(&most.to_be_bytes());
            }),
            Self::Flush => encode::message(out, fe::FLUSH, |_| {}),
            Self::Sync => encode::message(out, fe::SYNC, |_| {}),
            Self::Query(sql) => encode::query(out, sql),
            Self::Copy(copy) => copy.write(out),
            Self::Deallocate(sql) => {
                let run = [Self::Parse("", sql), Self::Bind("", ""), Self::Execute("", 0)];
                let end = [Self::Sync, Self::CloseStatement(""), Self::Sync];
                run.iter().chain(&end).for_each(|op| op.write(out));
            }
        }
    }
}

fn statement() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["", "a", "b", "c"])
}

fn portal() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["", "", "p"])
}

/// Texts that do one thing.
fn single() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "rows 1",
        "rows 2",
        "rows 3",
        "rows 4",
        "do",
        "",
        "notice",
        "fail",
        "bad",
        "BEGIN",
        "COMMIT",
        "ROLLBACK",
        "SET TimeZone TO one",
        "SET TimeZone TO two",
        "SET TimeZone TO DEFAULT",
        "RESET ALL",
        "RESET TimeZone",
        "RESET unreported",
        "SHOW TimeZone",
        "SHOW unreported",
    ])
}

fn deallocate() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["DEALLOCATE ALL", "DEALLOCATE a", "DEALLOCATE \"b\"", "deallocate prepare C;"])
}

fn several() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "DISCARD ALL",
        "rows 1; rows 2",
        "do; fail; do",
        "SET TimeZone TO one; fail",
        "BEGIN; rows 1",
        "RESET ALL; fail",
        "fail; COMMIT",
        ";",
    ])
}

fn copy() -> impl Strategy<Value = Op> {
    let query = prop::sample::select(vec![None, None, Some("COPY"), Some("do; COPY"), Some("fail; COPY")]);
    let data = prop::sample::select(vec!["good", "bad"]);
    (query, any::<bool>(), data, any::<bool>())
        .prop_map(|(query, early, data, done)| Op::Copy(Copy { query, early, data, done }))
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (statement(), single()).prop_map(|(name, sql)| Op::Parse(name, sql)),
        4 => (portal(), statement()).prop_map(|(portal, name)| Op::Bind(portal, name)),
        1 => statement().prop_map(Op::DescribeStatement),
        1 => portal().prop_map(Op::DescribePortal),
        4 => (portal(), 0..3_u32).prop_map(|(portal, most)| Op::Execute(portal, most)),
        1 => statement().prop_map(Op::CloseStatement),
        1 => portal().prop_map(Op::ClosePortal),
        1 => Just(Op::Flush),
        4 => Just(Op::Sync),
        2 => single().prop_map(Op::Query),
        1 => several().prop_map(Op::Query),
        1 => deallocate().prop_map(Op::Query),
        1 => deallocate().prop_map(Op::Deallocate),
        1 => copy(),
    ]
}

/// All that one client sends; ends outside a transaction.
fn script() -> impl Strategy<Value = Vec<Op>> {
    prop::collection::vec(op(), 1..25)
}

fn bytes(script: &[Op]) -> Vec<u8> {
    let end = [Op::Sync, Op::Query("ROLLBACK"), Op::Query("SHOW TimeZone")];
    [bytes_of(script), bytes_of(&end)].concat()
}

fn bytes_of(ops: &[Op]) -> Vec<u8> {
    let mut bytes = Vec::new();
    ops.iter().for_each(|op| op.write(&mut bytes));
    bytes
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let some = prop_oneof![Just(1), 2..40_usize, Just(usize::MAX)];
    let one = (any::<bool>(), 0..8_usize, some).prop_map(|(up, who, bytes)| Move { up, who, bytes });
    prop::collection::vec(one, 0..200)
}

// The Sync that a COPY had eaten counted as a batch in front of the reset, which was then taken for an unknown one.
#[test]
fn reset_behind_a_copy_that_has_eaten_a_sync_is_recognised() {
    let copy = Op::Copy(Copy { query: None, early: true, data: "good", done: true });
    let script = [copy, Op::Query("SET TimeZone TO DEFAULT")];
    // The second client has startup values of its own.
    let scripts = [bytes(&[]), bytes(&script)];
    let mut stage = Stage::new(&scripts, 1, 1);
    stage.play(&[]);
    assert_eq!(stage.received(1), play_alone(1, &scripts[1]));
}

// An answer of the pooler's own got into the middle of a message of the server.
#[test]
fn answer_at_flush_waits_for_the_end_of_a_message() {
    let parts = [
        bytes_of(&[Op::Parse("a", "rows 1"), Op::Sync]),
        bytes_of(&[Op::DescribeStatement("a"), Op::Flush]),
        bytes_of(&[Op::CloseStatement("a"), Op::Flush, Op::Sync]),
    ];
    let script = parts.concat();
    let up = |bytes| Move { up: true, who: 0, bytes };
    let down = |bytes| Move { up: false, who: 0, bytes };
    for cut in 0..50 {
        let mut stage = Stage::new(std::slice::from_ref(&script), 1, 1);
        let whole = usize::MAX;
        stage.play(&[up(parts[0].len()), down(whole), up(parts[1].len()), down(cut), up(whole)]);
        assert_eq!(stage.received(0), play_alone(0, &script), "{cut}");
    }
}

proptest! {
    // More with PROPTEST_CASES.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    // S3, S4, S8, S9, S15, S17, S20–S22, H1, H3–H9
    #[test]
    fn clients_see_what_a_server_of_their_own_would_send(
        scripts in prop::collection::vec(script(), 1..4),
        moves in moves(),
        servers in 1..3_usize,
        cache in 1..4_usize,
    ) {
        let scripts: Vec<Vec<u8>> = scripts.iter().map(|script| bytes(script)).collect();
        let mut stage = Stage::new(&scripts, servers, cache);
        stage.play(&moves);
        for (index, script) in scripts.iter().enumerate() {
            let expected = play_alone(index, script);
            prop_assert_eq!(stage.received(index), expected, "client {}", index);
        }
    }

    // S9, S10, H35: whatever the reads bring, messages of any length pass as they are.
    #[test]
    fn any_cut_gives_the_same_bytes(
        rows in prop::collection::vec((0..40_000_usize, any::<u8>()), 0..12),
        value in 0..60_000_usize,
        cuts in prop::collection::vec(1..30_000_usize, 1..20),
    ) {
        let (mut request, mut reply) = (Vec::new(), Vec::new());
        encode::message(&mut request, fe::BIND, |b| b.resize(b.len() + 8 + value, 0));
        Op::Execute("", 0).write(&mut request);
        encode::message(&mut request, fe::COPY_DATA, |b| b.resize(b.len() + value / 2, b'x'));
        Op::Sync.write(&mut request);
        for (tag, body) in [(be::BIND_COMPLETE, &b""[..]), (be::NOTICE_RESPONSE, b"MNote\0\0")] {
            encode::message(&mut reply, tag, |b| b.extend_from_slice(body));
        }
        for (length, byte) in rows {
            encode::message(&mut reply, be::DATA_ROW, |b| b.resize(b.len() + length, byte));
        }
        encode::message(&mut reply, be::COMMAND_COMPLETE, |b| b.extend_from_slice(b"SELECT 1\0"));
        encode::ready_for_query(&mut reply, b'I');
        prop_assert!(pass(&request, &reply, &cuts) == (request, reply));
    }
}
