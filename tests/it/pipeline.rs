//! Extended query protocol in any order and any cut: a client sees what PostgreSQL would send (H1–H9, S1–S11).

use crate::support::{
    compare::Pair,
    msg::*,
    raw::{Chunks, Raw},
};

/// Parse, Bind and Execute of one text, unnamed.
fn run(sql: &str) -> Vec<u8> {
    [parse("", sql), bind("", &[]), execute()].concat()
}

/// Another client that keeps a server to itself until it is dropped.
fn holder(pair: &Pair) -> Raw {
    let mut holder = pair.pooler.connect();
    holder.sql("BEGIN");
    holder
}

// S1, H9
#[test]
fn simple_query_amid_extended_messages_keeps_the_order() {
    let pair = Pair::new();
    pair.database.sql("CREATE TABLE t (x int); GRANT ALL ON t TO app");
    pair.same(|client| {
        client.sql("BEGIN");
        client.send_all(&[run("INSERT INTO t VALUES (1)"), query("ROLLBACK"), sync()]);
        client.ready(2);
        assert_eq!(client.sql("SELECT count(*) FROM t"), ["0"]);
        client.send_all(&[run("INSERT INTO t VALUES (2)"), query("COMMIT"), run("DELETE FROM t"), sync()]);
        client.ready(2);
        client.send_all(&[
            query("SELECT 1"),
            run("SELECT 2"),
            sync(),
            query(""),
            run(""),
            sync(),
            query(";"),
        ]);
        client.ready(5);
    });
}

// S2
#[test]
fn after_an_error_everything_up_to_sync_is_skipped() {
    let pair = Pair::new();
    pair.same(|client| {
        client.send_all(&[parse("", "SELECT broken("), query("SELECT 1")]);
        client.until(b'E');
        client.send(&sync());
        client.ready(1);
        client.send_all(&[
            parse("", "SELECT 1 / $1::int"),
            bind("", &[Some("0")]),
            execute(),
            query("SELECT 1"),
        ]);
        client.until(b'E');
        client.send(&sync());
        client.ready(1);
        assert_eq!(client.sql("SELECT 'in step'"), ["in step"]);
    });
}

// S3, S9, S10, H7
#[test]
fn batches_in_every_order_are_answered_as_by_postgresql() {
    let pair = Pair::new();
    pair.same(|client| {
        let messages = [
            parse("a", "SELECT 1 AS x"),
            parse("b", "SELECT $1::text AS y, generate_series(1, 3)"),
            describe("a"),
            describe("b"),
            bind("a", &[]),
            bind_portal("p", "b", &[Some("t")]),
            describe_portal("p"),
            execute(),
            execute_portal("p", 2),
            close_portal("p"),
            close("a"),
        ];
        // Each start and each stride (11 is prime) gives another order.
        for (start, stride) in (0..11).flat_map(|start| [1, 2, 3, 10].map(|stride| (start, stride))) {
            let order = (0..messages.len()).map(|i| messages[(start + i * stride) % messages.len()].clone());
            client.send(&order.chain([sync(), close("a"), close("b"), sync()]).collect::<Vec<_>>().concat());
            client.ready(2);
        }
    });
}

// S3, S9
#[test]
fn texts_longer_than_a_buffer_pass() {
    let pair = Pair::new();
    pair.same(|client| {
        for size in [4_000, 8_100, 8_192, 8_300, 70_000] {
            let sql = format!("SELECT length($1), '{}'", "x".repeat(size));
            client.send_all(&[
                parse("long", &sql),
                describe("long"),
                bind("long", &[Some(&sql)]),
                execute(),
                sync(),
            ]);
            client.send_all(&[close("long"), sync()]);
            client.ready(2);
        }
    });
}

// S4
#[test]
fn error_at_any_place_of_a_pipeline_spares_the_next_batches() {
    let pair = Pair::new();
    pair.same(|client| {
        for failing in 0..5 {
            let part = |i| run(if i == failing { "SELECT 1 / 0" } else { "SELECT 'fine'" });
            let batch: Vec<u8> = (0..5).flat_map(part).chain(sync()).collect();
            client.send_all(&[batch.clone(), run("SELECT 'next'"), sync(), batch]);
            client.ready(3);
        }
    });
}

// H3, S5
#[test]
fn flush_is_answered_at_once() {
    let pair = Pair::new();
    pair.same(|client| {
        for name in ["", "named", "another"] {
            client.send_all(&[parse(name, "SELECT $1::int + 1"), describe(name), flush()]);
            client.until(b'T');
            client.send_all(&[bind(name, &[Some("41")]), execute(), flush()]);
            client.until(b'C');
            client.send(&sync());
            client.ready(1);
        }
    });
}

// H3, S5: a Close that the pooler answers was only answered together with the next reply of the server.
#[test]
fn flush_behind_a_close_is_answered_at_once() {
    let pair = Pair::new();
    pair.same(|client| {
        client.send_all(&[parse("s", "SELECT 1"), sync()]);
        client.ready(1);
        client.send_all(&[bind("s", &[]), execute(), close("s"), flush()]);
        client.until(b'3');
        client.send(&sync());
        client.ready(1);
    });
}

// S6
#[test]
fn flush_with_more_statements_than_the_cache_holds_leaves_nothing_unread() {
    let pair = Pair::with(&["default_pool_size = 1", "max_prepared_statements = 2"]);
    pair.same(|client| {
        let names: Vec<String> = (0..6).map(|i| format!("s{i}")).collect();
        for name in &names {
            client.send_all(&[parse(name, &format!("SELECT '{name}'")), flush()]);
            client.until(b'1');
        }
        for name in names.iter().chain(names.iter().rev()) {
            client.send_all(&[bind(name, &[]), execute(), flush()]);
            client.until(b'C');
        }
        client.send(&sync());
        client.ready(1);
    });
}

// H3, S8
#[test]
fn open_implicit_transaction_keeps_its_server() {
    let pair = Pair::new();
    let mut client = pair.pooler.connect();
    client.send_all(&[run("SELECT pg_backend_pid()"), flush()]);
    let mine = client.until(b'C')[2].row();
    let mut other = pair.pooler.connect();
    other.send(&query("SELECT pg_backend_pid()"));
    pair.pooler.wait_for_pool("cl_waiting", 1);
    client.send_all(&[run("SELECT pg_backend_pid()"), sync()]);
    assert_eq!(client.ready(1)[2].row(), mine);
    assert_eq!(other.ready(1)[1].row(), mine);
}

// H4, S7
#[test]
fn suspended_portal_goes_on_in_its_transaction_and_ends_with_it() {
    let pair = Pair::new();
    let rows = "SELECT generate_series(1, 7)";
    pair.same(|client| {
        client.sql("BEGIN");
        client.send_all(&[
            parse("", rows),
            bind_portal("c", "", &[]),
            describe_portal("c"),
            execute_portal("c", 2),
        ]);
        client.send(&flush());
        client.until(b's');
        client.send_all(&[execute_portal("c", 2), sync()]);
        client.ready(1);
        client.send_all(&[execute_portal("c", 2), execute_portal("c", 0), execute_portal("c", 0), sync()]);
        client.ready(1);
        client.send_all(&[close_portal("c"), close_portal("never there"), execute_portal("c", 0), sync()]);
        client.ready(1);
        client.sql("ROLLBACK");
        client.send_all(&[parse("", rows), bind_portal("c", "", &[]), execute_portal("c", 2), sync()]);
        client.send_all(&[execute_portal("c", 2), sync()]);
        client.ready(2);
    });
}

// H9, H15, S8
#[test]
fn every_sync_and_query_has_its_ready_for_query() {
    let pair = Pair::new();
    pair.same(|client| {
        let many = (0..20).flat_map(|i| [query(&format!("SELECT {i}")), sync(), sync()]);
        client.send(&many.collect::<Vec<_>>().concat());
        client.ready(60);
        client.send_all(&[
            query("BEGIN"),
            query("SELECT 1 / 0"),
            query("SELECT 2"),
            sync(),
            query("ROLLBACK"),
            sync(),
        ]);
        client.ready(6);
        client.send(&query("SELECT 1; SELECT 2; BEGIN; SELECT 3; COMMIT; SELECT 1 / 0; SELECT 4"));
        client.ready(1);
    });
}

// H8
#[test]
fn pipeline_larger_than_all_buffers_drains_in_both_directions() {
    let pair = Pair::new();
    let value = "x".repeat(10_000);
    let one = [parse("", "SELECT $1::text"), bind("", &[Some(&value)]), execute()].concat();
    let mut client = pair.pooler.connect();
    let sender = client.send_meanwhile([one.repeat(2_000), sync()].concat());
    let frames = client.ready(1);
    sender.join().unwrap();
    assert_eq!(frames.iter().filter(|frame| frame.tag == b'D' && frame.row() == value).count(), 2_000);
    pair.next_client_is_untouched();
}

// H1
#[test]
fn statement_after_a_failing_message_can_still_be_used_later() {
    let pair = Pair::with(&["default_pool_size = 2"]);
    let mut client = pair.pooler.connect();
    client.send_all(&[parse("s", "SELECT 'prepared'"), sync()]);
    client.ready(1);
    // The other server does not know the statement: its Parse goes in front of what fails here.
    let _first_server = holder(&pair);
    client.send_all(&[parse("", "SELECT broken("), bind("s", &[]), execute(), sync()]);
    let tags: Vec<u8> = client.ready(1).iter().map(|frame| frame.tag).collect();
    assert_eq!(tags, b"EZ");
    client.send_all(&[bind("s", &[]), execute(), sync()]);
    assert_eq!(client.ready(1)[1].row(), "prepared");
}

// H2
#[test]
fn statement_that_cannot_be_prepared_any_more_fails_at_its_bind() {
    let pair = Pair::with(&["default_pool_size = 2"]);
    pair.database.sql("CREATE TABLE gone (x int); GRANT ALL ON gone TO app");
    let mut client = pair.pooler.connect();
    client.send_all(&[parse("s", "SELECT * FROM gone"), sync()]);
    client.ready(1);
    let _first_server = holder(&pair);
    pair.database.sql("DROP TABLE gone");
    client.send_all(&[bind("s", &[]), execute(), sync()]);
    let frames = client.ready(1);
    assert_eq!(frames.iter().map(|frame| frame.tag).collect::<Vec<_>>(), b"EZ");
    assert_eq!(frames[0].field(b'C'), "42P01");
    assert_eq!(client.sql("SELECT 'in step'"), ["in step"]);
}

// H5
#[test]
fn unnamed_statement_outlives_sync_and_other_clients() {
    let pair = Pair::new();
    let (mut one, mut two) = (pair.pooler.connect(), pair.pooler.connect());
    for (client, sql) in [(&mut one, "SELECT 'one'"), (&mut two, "SELECT 'two'")] {
        client.send_all(&[parse("", sql), sync()]);
        client.ready(1);
    }
    for _ in 0..2 {
        for (client, row) in [(&mut one, "one"), (&mut two, "two")] {
            client.send_all(&[bind("", &[]), execute(), sync()]);
            assert_eq!(client.ready(1)[1].row(), row);
        }
    }
}

// H41, S11
#[test]
fn function_call_passes() {
    let pair = Pair::new();
    pair.same(|client| {
        // int4pl
        client.send(&function_call(177, &["40", "2"]));
        client.ready(1);
        client.send(&function_call(177, &["40", "none"]));
        client.ready(1);
        client.send_all(&[query("BEGIN"), function_call(177, &["1", "1"]), query("COMMIT")]);
        client.ready(3);
    });
}

// H43
#[test]
fn notices_keep_their_place() {
    let pair = Pair::new();
    let notice = "DO $$ BEGIN FOR i IN 1..100 LOOP RAISE NOTICE 'n %', i; END LOOP; END $$";
    pair.same(|client| {
        client.send_all(&[query(notice), run("SELECT 1"), run(notice), run("SELECT 2"), sync()]);
        client.ready(2);
    });
}

// S8, S17
#[test]
fn replies_do_not_mix_when_many_clients_pipeline_on_few_servers() {
    let pair = Pair::with(&["default_pool_size = 2"]);
    std::thread::scope(|scope| {
        for id in 0..20 {
            let pooler = &pair.pooler;
            scope.spawn(move || {
                let mut client = pooler.connect();
                client.chunks = Chunks::Of(100);
                for round in 0..20 {
                    let sql = format!("SELECT '{id} {round}'");
                    client.send_all(&[
                        parse("s", &sql),
                        bind("s", &[]),
                        execute(),
                        close("s"),
                        sync(),
                        query(&sql),
                    ]);
                    let rows: Vec<_> =
                        client.ready(2).iter().filter(|f| f.tag == b'D').map(Frame::row).collect();
                    assert_eq!(rows, [format!("{id} {round}"), format!("{id} {round}")]);
                }
            });
        }
    });
}

// H18: what the end of a transaction looks like, and where it does not end.
#[test]
fn every_way_to_end_a_transaction_is_understood() {
    let pair = Pair::new();
    pair.database.sql("CREATE TABLE t (x int); GRANT ALL ON t TO app");
    let steps = [
        "BEGIN",
        "BEGIN",
        "SAVEPOINT s",
        "SELECT 1 / 0",
        "SELECT 'refused'",
        "ROLLBACK TO s",
        "INSERT INTO t VALUES (1)",
        "RELEASE s",
        "ROLLBACK AND CHAIN",
        "SELECT count(*) FROM t",
        "COMMIT AND CHAIN",
        "SELECT 1 / 0",
        "COMMIT",
        "COMMIT",
        "ROLLBACK",
        "BEGIN; SELECT 1 / 0",
        "END",
        "START TRANSACTION READ ONLY; SELECT 1; ABORT; SELECT 2",
        "BEGIN",
        "PREPARE TRANSACTION 'gid'",
        "SELECT 'out of it'",
    ];
    pair.same(|client| {
        for step in steps {
            client.send(&query(step));
            client.ready(1);
        }
        client.send_all(&steps.map(query));
        client.ready(steps.len());
        for step in steps {
            client.send_all(&if step.contains(';') { vec![query(step)] } else { vec![run(step), sync()] });
            client.ready(1);
        }
    });
}

// What a batch that fails leaves to the batches behind it, which are sent before the error comes.
#[test]
fn batches_that_are_under_way_do_not_suffer_from_an_error_before_them() {
    let pair = Pair::with(&["default_pool_size = 1", "max_prepared_statements = 1"]);
    pair.same(|client| {
        // The server's unnamed statement is another client's.
        let mut other = pair.pooler.connect();
        other.send_all(&[parse("", "SELECT 'of another'"), sync()]);
        other.ready(1);
        client.send_all(&[bind("none", &[]), parse("", "SELECT 'skipped'"), sync()]);
        client.send_all(&[bind("", &[]), execute(), sync()]);
        client.ready(2);
        // Evicted and prepared by messages that are skipped.
        client.send_all(&[parse("a", "SELECT 'a'"), sync()]);
        client.send_all(&[bind("none", &[]), parse("b", "SELECT 'b'"), bind("a", &[]), sync()]);
        client.send_all(&[bind("a", &[]), execute(), parse("b", "SELECT 'b'"), bind("b", &[]), sync()]);
        client.send_all(&[query("DEALLOCATE a"), query("DEALLOCATE a"), query("DEALLOCATE b")]);
        client.ready(6);
    });
}
