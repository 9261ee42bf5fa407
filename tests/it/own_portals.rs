//! Portals of pooler's own statements, message by message as at PostgreSQL; how many there may be; and the cancel request
//! for one that waits.
//!
//! Covers H5, H9, H37, S5.

use pooler::demo::process::wait_until;

use crate::{
    own_settings::{OTHER, OWN, plain},
    routing_edges::cancelled,
    routing_table::{nodes, start},
    support::{
        msg::*,
        pooler::Pooler,
        raw::{PATIENCE, Raw},
        replicated::marker,
        truth::client,
    },
};

/// Bind with values as text, and formats of results.
fn bind_as(portal: &str, values: &[&str], formats: &[u16]) -> Vec<u8> {
    let short = |n: usize| u16::try_from(n).unwrap().to_be_bytes();
    build(b'B', |b| {
        b.extend(portal.as_bytes());
        b.extend([0, 0, 0, 0]);
        b.extend(short(values.len()));
        for value in values {
            b.extend(u32::try_from(value.len()).unwrap().to_be_bytes());
            b.extend(value.as_bytes());
        }
        b.extend(short(formats.len()));
        formats.iter().for_each(|format| b.extend(format.to_be_bytes()));
    })
}

/// All that comes back to these messages, with nothing left out but where in the sources an error is from.
fn answers(client: &mut Raw, messages: &[Vec<u8>]) -> Vec<String> {
    client.send_all(messages);
    let told = |frame: &Frame| match frame.tag {
        b'T' => format!("RowDescription {}", String::from_utf8_lossy(&frame.body).escape_debug()),
        _ => format!("{frame:?}"),
    };
    client.ready(1).iter().map(told).collect()
}

/// What is sent about a setting of this name.
fn cases(setting: &str) -> Vec<(&'static str, Vec<Vec<u8>>)> {
    let show = || parse("", &format!("SHOW {setting}"));
    let set = || parse("", &format!("SET {setting} = 'primary'"));
    let rows = |rows: u32| execute_portal("", rows);
    let typed = || parse_typed("", &format!("SHOW {setting}"), &[23]);
    vec![
        ("one row", vec![show(), bind("", &[]), rows(1), sync()]),
        ("one row, and the end", vec![show(), bind("", &[]), rows(1), rows(1), rows(0), sync()]),
        ("more rows", vec![show(), bind("", &[]), rows(2), rows(2), sync()]),
        ("all rows", vec![show(), bind("", &[]), rows(0), rows(0), rows(1), sync()]),
        ("rows below zero", vec![show(), bind("", &[]), rows(u32::MAX), sync()]),
        ("described", vec![show(), bind("", &[]), describe_portal(""), rows(1), describe_portal(""), sync()]),
        ("set, one row", vec![set(), bind("", &[]), rows(1), sync()]),
        ("set twice", vec![set(), bind("", &[]), rows(0), rows(0), set(), sync()]),
        ("binary", vec![show(), bind_as("", &[], &[1]), describe_portal(""), rows(0), sync()]),
        ("text", vec![show(), bind_as("", &[], &[0]), describe_portal(""), rows(0), sync()]),
        ("a format that is none", vec![show(), bind_as("", &[], &[2]), rows(0), sync()]),
        ("too many formats", vec![show(), bind_as("", &[], &[0, 1]), rows(0), sync()]),
        ("a format of nothing", vec![set(), bind_as("", &[], &[1]), describe_portal(""), rows(0), sync()]),
        ("formats of nothing", vec![set(), bind_as("", &[], &[1, 1]), rows(0), sync()]),
        ("a value too many", vec![show(), bind_as("", &["1"], &[]), rows(0), sync()]),
        ("a value", vec![typed(), describe(""), bind_as("", &["1"], &[]), rows(0), sync()]),
        ("a value too few", vec![typed(), bind_as("", &[], &[]), rows(0), sync()]),
        (
            "names",
            vec![show(), bind_as("a", &[], &[]), bind_as("b", &[], &[]), execute_portal("a", 0), sync()],
        ),
        ("a name twice", vec![show(), bind_as("a", &[], &[]), bind_as("a", &[], &[]), sync()]),
        (
            "a name again",
            vec![show(), bind_as("a", &[], &[]), close_portal("a"), bind_as("a", &[], &[]), sync()],
        ),
        ("closed", vec![show(), bind_as("a", &[], &[]), close_portal("a"), execute_portal("a", 0), sync()]),
        ("unnamed again", vec![show(), bind("", &[]), bind("", &[]), rows(0), sync()]),
        ("without Bind", vec![show(), execute_portal("c", 0), sync()]),
    ]
}

#[test]
fn portals_of_poolers_own_are_as_those_of_postgresql() {
    let cluster = nodes();
    let pooler = start(&cluster, |setup| setup);
    for begin in ["SELECT 1", "BEGIN", "BEGIN READ ONLY; SELECT 1"] {
        for ((case, own), (_, other)) in cases(OWN).into_iter().zip(cases(OTHER)) {
            let (mut through, mut direct) = (client(&pooler, "app"), plain(&cluster));
            for client in [&mut through, &mut direct] {
                begin.split("; ").for_each(|sql| drop(client.sql(sql)));
            }
            let expected: Vec<_> =
                answers(&mut direct, &other).iter().map(|line| line.replace(OTHER, OWN)).collect();
            assert_eq!(answers(&mut through, &own), expected, "{case} behind {begin}");
            through.sql("ROLLBACK");
            assert_eq!(through.sql("SELECT 'in step'"), ["in step"]);
        }
    }
}

#[test]
fn portals_of_one_batch_are_bounded() {
    let cluster = nodes();
    let pooler = start(&cluster, |setup| setup);
    let mut client = client(&pooler, "app");
    let binds = |count: usize| (0..count).map(|n| bind_as(&format!("p{n}"), &[], &[])).collect::<Vec<_>>();
    for (count, refused) in [(64, false), (65, true), (1000, true), (64, false)] {
        client.send_all(&[vec![parse("", "SHOW pooler.route")], binds(count), vec![sync()]].concat());
        let frames = client.ready(1);
        let error = frames.iter().find(|frame| frame.tag == b'E');
        assert_eq!(error.map(|error| error.field(b'C')), refused.then(|| "54000".to_owned()), "{count}");
        assert_eq!(frames.iter().filter(|frame| frame.tag == b'2').count(), 64, "{count}");
    }
    // Those that are closed do not count, nor the unnamed one.
    let closed = (0..200).flat_map(|_| [bind_as("p", &[], &[]), close_portal("p"), bind("", &[])]);
    client.send_all(
        &[vec![parse("", "SHOW pooler.route")], closed.collect(), vec![execute(), sync()]].concat(),
    );
    let frames = client.ready(1);
    assert!(frames.iter().all(|frame| frame.tag != b'E'), "{frames:?}");
}

/// A client that waits for the primary's position with a server at hand.
fn cancels(pooler: &Pooler, client: &mut Raw, request: &[u8], status: &[u8]) {
    client.send(request);
    let frames = cancelled(pooler, client);
    let error = frames.iter().find(|frame| frame.tag == b'E').unwrap();
    assert_eq!(error.field(b'C'), "57014", "{frames:?}");
    assert_eq!(frames.last().unwrap().body, status, "{frames:?}");
}

#[test]
fn question_for_the_position_is_cancelled_with_a_server_at_hand() {
    let cluster = nodes();
    let held = |setup: crate::support::pooler::Setup| setup.setting("failover_hold = \"60s\"");
    let pooler = start(&cluster, held);
    let session = held(cluster.setup(&[1, 0, 2])).setting("pool_mode = \"session\"").start();
    let (mut reader, mut keeper) = (client(&pooler, "app"), client(&session, "app"));
    // On a replica, so that the primary may be silent.
    let name = marker("asks from a replica");
    let on_replica = wait_until(PATIENCE, || {
        reader.sql("BEGIN READ ONLY");
        reader.sql(&format!("SELECT count(*) FROM item {name}"));
        let found = cluster.runs().ran_on("asks from a replica").last().is_some_and(|&node| node != 0);
        if !found {
            reader.sql("COMMIT");
        }
        found.then_some(())
    });
    assert!(on_replica.is_some());
    keeper.sql("SELECT 1");
    let show = "SHOW pooler.lsn";
    let unit = [parse("", show), bind("", &[]), execute(), sync()].concat();
    cluster.freeze(0);
    let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        cancels(&pooler, &mut reader, &query(show), b"E");
        for request in [query(show), unit] {
            cancels(&session, &mut keeper, &request, b"I");
        }
    }));
    cluster.thaw(0);
    found.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    assert_eq!(reader.try_sql("SELECT 1").unwrap_err().field(b'C'), "25P02");
    reader.sql("ROLLBACK");
    for client in [&mut reader, &mut keeper] {
        assert_eq!(client.sql("SELECT 'in step'"), ["in step"]);
        assert_eq!(client.sql(show).len(), 1);
    }
}
