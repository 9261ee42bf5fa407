//! Prepared statements of many clients on few servers (H2, H5, H6, H10, S14–S25).

use crate::support::{compare::Pair, msg::*, raw::Raw};

/// Executes a prepared statement; its rows, or the SQLSTATE of its error.
fn call(client: &mut Raw, name: &str) -> Result<Vec<String>, String> {
    client.send_all(&[bind(name, &[]), execute(), sync()]);
    let frames = client.ready(1);
    match frames.iter().find(|frame| frame.tag == b'E') {
        Some(error) => Err(error.field(b'C')),
        None => Ok(frames.iter().filter(|frame| frame.tag == b'D').map(Frame::row).collect()),
    }
}

fn prepare(client: &mut Raw, name: &str, sql: &str) {
    client.send_all(&[parse(name, sql), sync()]);
    let frames = client.ready(1);
    assert_eq!(frames[0].tag, b'1', "{frames:?}");
}

fn row(text: &str) -> Result<Vec<String>, String> {
    Ok(vec![text.to_owned()])
}

// H6
#[test]
fn same_name_twice_is_an_error_and_unnamed_is_replaced() {
    let pair = Pair::new();
    pair.same(|client| {
        client.send_all(&[parse("a", "SELECT 1"), sync(), parse("a", "SELECT 2"), sync()]);
        client.send_all(&[parse("", "SELECT 3"), parse("", "SELECT 4"), bind("", &[]), execute(), sync()]);
        client.send_all(&[bind("a", &[]), execute(), sync()]);
        client.ready(4);
    });
}

// H7, S21
#[test]
fn close_is_answered_in_order_even_for_names_that_are_not_there() {
    let pair = Pair::new();
    pair.same(|client| {
        client.send_all(&[close("none"), parse("a", "SELECT 1"), close("none"), bind_portal("a", "a", &[])]);
        client.send_all(&[close_portal("a"), bind("a", &[]), execute(), close("a"), bind("a", &[]), sync()]);
        client.send_all(&[parse("a", "SELECT 'anew'"), bind("a", &[]), execute(), sync()]);
        client.ready(2);
    });
}

// S14
#[test]
fn client_that_leaves_before_sync_harms_no_one() {
    let pair = Pair::new();
    for _ in 0..5 {
        let mut gone = pair.pooler.connect();
        gone.send(&parse("s", "SELECT 'shared text'"));
        drop(gone);
        let mut next = pair.pooler.connect();
        prepare(&mut next, "s", "SELECT 'shared text'");
        assert_eq!(call(&mut next, "s"), row("shared text"));
    }
}

// S15
#[test]
fn parse_that_failed_is_forgotten() {
    let pair = Pair::new();
    pair.same(|client| {
        for round in 0..2 {
            client.send_all(&[
                parse("ok", "SELECT 'ok'"),
                parse("x", "SELECT broken("),
                parse("y", "SELECT 1"),
                sync(),
            ]);
            client.send_all(&[bind("ok", &[]), execute(), sync(), bind("x", &[]), execute(), sync()]);
            client.send_all(&[bind("y", &[]), execute(), sync(), parse("x", "SELECT 'now good'"), sync()]);
            client.send_all(&[bind("x", &[]), execute(), sync(), close("x"), close("ok"), sync()]);
            client.ready(7);
            assert!(client.received.iter().any(|frame| frame.tag == b'E'), "round {round}");
        }
    });
}

// S15
#[test]
fn parse_that_failed_for_one_client_works_for_another_later() {
    let pair = Pair::new();
    let (mut one, mut two) = (pair.pooler.connect(), pair.pooler.connect());
    one.send_all(&[parse("s", "SELECT x FROM later"), sync()]);
    assert_eq!(one.ready(1)[0].field(b'C'), "42P01");
    pair.database.sql("CREATE TABLE later AS SELECT 1 AS x; GRANT ALL ON later TO app");
    for client in [&mut two, &mut one] {
        prepare(client, "s", "SELECT x FROM later");
        assert_eq!(call(client, "s"), row("1"));
    }
}

// S16
#[test]
fn statement_evicted_within_its_own_batch_still_runs() {
    let pair = Pair::with(&["default_pool_size = 1", "max_prepared_statements = 1"]);
    pair.same(|client| {
        client.send_all(&[parse("a", "SELECT 'a'"), parse("b", "SELECT 'b'"), parse("c", "SELECT 'c'")]);
        client.send_all(&[bind("a", &[]), execute(), bind("b", &[]), execute(), describe("c"), sync()]);
        client.send_all(&[
            bind_portal("p", "a", &[]),
            bind("b", &[]),
            execute(),
            execute_portal("p", 0),
            sync(),
        ]);
        client.send_all(&[bind("c", &[]), execute(), close("a"), bind("b", &[]), execute(), sync()]);
        client.ready(3);
    });
}

// S17, S18
#[test]
fn server_never_holds_more_statements_than_the_cache() {
    let pair = Pair::with(&["default_pool_size = 1", "max_prepared_statements = 10"]);
    let mut clients: Vec<Raw> = (0..10).map(|_| pair.pooler.connect()).collect();
    for i in 0..10 {
        for (id, client) in clients.iter_mut().enumerate() {
            prepare(client, &format!("s{i}"), &format!("SELECT '{id} {i}'"));
        }
    }
    for i in 0..10 {
        for (id, client) in clients.iter_mut().enumerate() {
            assert_eq!(call(client, &format!("s{i}")), row(&format!("{id} {i}")));
        }
    }
    let held: u32 = clients[0].sql("SELECT count(*) FROM pg_prepared_statements")[0].parse().unwrap();
    assert!((1..=10).contains(&held), "{held} statements");
}

#[test]
fn clients_with_one_text_share_one_statement() {
    let pair = Pair::new();
    let mut clients: Vec<Raw> = (0..5).map(|_| pair.pooler.connect()).collect();
    for (id, client) in clients.iter_mut().enumerate() {
        prepare(client, &format!("mine{id}"), "SELECT 'shared'");
        assert_eq!(call(client, &format!("mine{id}")), row("shared"));
    }
    assert_eq!(clients[0].sql("SELECT count(*) FROM pg_prepared_statements"), ["1"]);
}

// S19
#[test]
fn texts_that_look_alike_stay_apart() {
    let pair = Pair::new();
    // The first two have the same 32-bit murmur hash.
    let texts = [
        "SELECT 1 /* force_close_72_1104700233803323 */",
        "SELECT 1 /* force_close_246_1106019706635764 */",
        "SELECT 1  /* force_close_72_1104700233803323 */",
    ];
    let mut client = pair.pooler.connect();
    for (i, text) in texts.iter().enumerate() {
        prepare(&mut client, &format!("s{i}"), text);
    }
    assert_eq!(client.sql("SELECT count(DISTINCT statement) FROM pg_prepared_statements"), ["3"]);
    pair.same(|client| {
        // int4, text, and whatever PostgreSQL finds itself.
        for (name, types) in [("i", vec![23]), ("t", vec![25]), ("u", vec![])] {
            client.send_all(&[parse_typed(name, "SELECT $1", &types), describe(name), sync()]);
            client.ready(1);
        }
    });
}

// S20
#[test]
fn deallocate_and_discard_are_understood() {
    let pair = Pair::new();
    pair.same(|client| {
        let gone = ["DEALLOCATE a", "DEALLOCATE PREPARE \"a\"", "DEALLOCATE ALL", "DISCARD ALL"];
        for (i, forget) in gone.iter().enumerate() {
            client.send_all(&[parse("a", &format!("SELECT 'old {i}'")), bind("a", &[]), execute(), sync()]);
            client.send_all(&[query(forget), bind("a", &[]), execute(), sync()]);
            client.send_all(&[parse("a", &format!("SELECT 'new {i}'")), bind("a", &[]), execute(), sync()]);
            client.send_all(&[close("a"), sync()]);
            client.ready(5);
        }
        client.send_all(&[
            parse("a", "SELECT 'a'"),
            sync(),
            query("BEGIN"),
            query("DEALLOCATE a"),
            query("ROLLBACK"),
        ]);
        client.send_all(&[bind("a", &[]), execute(), sync(), query("DEALLOCATE unknown")]);
        client.ready(6);
    });
}

// S20
#[test]
fn deallocate_by_one_client_leaves_the_statements_of_another() {
    let pair = Pair::new();
    let (mut one, mut two) = (pair.pooler.connect(), pair.pooler.connect());
    for client in [&mut one, &mut two] {
        prepare(client, "s", "SELECT 'both'");
    }
    for forget in ["DEALLOCATE ALL", "DISCARD ALL"] {
        one.sql(forget);
        assert_eq!(call(&mut one, "s"), Err("26000".to_owned()), "{forget}");
        assert_eq!(call(&mut two, "s"), row("both"), "{forget}");
    }
}

// S22
#[test]
fn errors_do_not_cost_the_statements_of_a_server() {
    let pair = Pair::new();
    let mut client = pair.pooler.connect();
    prepare(&mut client, "s", "SELECT 'kept'");
    call(&mut client, "s").unwrap();
    let prepared =
        "SELECT prepare_time FROM pg_prepared_statements WHERE statement LIKE '%kept%' AND NOT from_sql";
    let before = client.sql(prepared);
    assert_eq!(before.len(), 1);
    for _ in 0..20 {
        client.try_sql("SELECT 1 / 0").unwrap_err();
        assert_eq!(call(&mut client, "s"), row("kept"));
    }
    assert_eq!(client.sql(prepared), before);
}

// S23
#[test]
fn prepare_in_a_transaction_that_breaks_off_is_not_seen_by_others() {
    let pair = Pair::new();
    let mut client = pair.pooler.connect();
    client.sql("BEGIN");
    client.sql("PREPARE mine AS SELECT 1");
    drop(client);
    pair.next_client_is_untouched();
}

// S24
#[test]
fn null_and_many_parameters_pass() {
    let pair = Pair::new();
    pair.same(|client| {
        client.send_all(&[
            parse("n", "SELECT $1::text, $2::int IS NULL"),
            bind("n", &[None, None]),
            execute(),
            sync(),
        ]);
        client.ready(1);
        let list = (1..=65_535).map(|i| format!("${i}")).collect::<Vec<_>>().join(",");
        let values = vec![Some("1"); 65_535];
        let sql = format!("SELECT count(*) FROM unnest(ARRAY[{list}]::int[])");
        client.send_all(&[parse("m", &sql), bind("m", &values), execute(), sync()]);
        client.ready(1);
    });
}

/// A pool with two servers and a table `t` of one column.
fn two_servers() -> Pair {
    let pair = Pair::with(&["default_pool_size = 2"]);
    pair.database.sql("CREATE TABLE t AS SELECT 1 AS x; ALTER TABLE t OWNER TO app");
    pair
}

/// Executes a statement of each client at the same time, so that both servers are used.
fn call_on_both(clients: [(&mut Raw, &str); 2]) -> [Result<Vec<String>, String>; 2] {
    let opened = clients.map(|(client, name)| {
        client.sql("BEGIN");
        (client, name)
    });
    let called = opened.map(|(client, name)| (call(client, name), client));
    called.map(|(result, client)| {
        client.sql("ROLLBACK");
        result
    })
}

// H10, S25: a plan that is shared must not be older than the Parse of the client that runs it.
#[test]
fn client_that_prepares_after_a_change_never_sees_what_was_before() {
    let pair = two_servers();
    let sql = "SELECT * FROM t";
    let (mut one, mut two) = (pair.pooler.connect(), pair.pooler.connect());
    let changes = [
        ("ALTER TABLE t ADD COLUMN y int DEFAULT 2", "1|2"),
        ("ALTER TABLE t ALTER COLUMN y TYPE text USING 'two'", "1|two"),
        ("ALTER TABLE t DROP COLUMN y", "1"),
        ("ALTER TABLE t RENAME COLUMN x TO z", "1"),
    ];
    for (change, expected) in changes {
        // On both servers, as it was.
        for client in [&mut one, &mut two] {
            client.send_all(&[close("s"), sync()]);
            client.ready(1);
            prepare(client, "s", sql);
        }
        for result in call_on_both([(&mut one, "s"), (&mut two, "s")]) {
            result.unwrap();
        }
        one.sql(change);
        let mut new = pair.pooler.connect();
        new.send_all(&[parse("n", sql), describe("n"), bind("n", &[]), execute(), sync()]);
        let frames = new.ready(1);
        assert_eq!(frames.iter().map(|frame| frame.tag).collect::<Vec<_>>(), b"1tT2DCZ", "{change}");
        assert_eq!(frames[4].row(), expected);
        let both = call_on_both([(&mut new, "n"), (&mut one, "s")]);
        assert_eq!(both, [row(expected), Err("0A000".to_owned())], "{change}");
    }
}

// H10: what others do not see before COMMIT counts from COMMIT on.
#[test]
fn change_in_a_transaction_counts_once_it_is_committed() {
    let pair = two_servers();
    let sql = "SELECT * FROM t";
    let (mut changer, mut client) = (pair.pooler.connect(), pair.pooler.connect());
    for sql in ["BEGIN", "CREATE VIEW v AS SELECT 1", "ALTER TABLE t ADD COLUMN y int DEFAULT 2"] {
        changer.sql(sql);
    }
    // Waits for the lock of the ALTER TABLE, which ends with the transaction.
    client.send_all(&[parse("a", sql), bind("a", &[]), execute(), sync()]);
    changer.sql("COMMIT");
    client.ready(1);
    prepare(&mut client, "b", sql);
    assert_eq!(call(&mut client, "b"), row("1|2"));
    prepare(&mut changer, "c", sql);
    assert_eq!(call(&mut changer, "c"), row("1|2"));
}

// S22, S25: sharing is what a pooler is for.
#[test]
fn text_that_was_just_prepared_is_not_prepared_again() {
    let pair = Pair::new();
    for _ in 0..20 {
        let mut client = pair.pooler.connect();
        prepare(&mut client, "s", "SELECT 'shared'");
        assert_eq!(call(&mut client, "s"), row("shared"));
    }
    let stats = pair.pooler.console("SHOW STATS");
    let total = |name: &str| -> u64 {
        let values = stats.iter().flatten().filter(|(column, _)| column == name);
        values.map(|(_, value)| value.parse::<u64>().unwrap()).sum()
    };
    assert_eq!(total("total_client_parse_count"), 20);
    // Once, and again for each second that has passed.
    assert!((1..=10).contains(&total("total_server_parse_count")), "{stats:?}");
}

// H10, S25: rows of other types than it was told would be taken for what they are not. The server that has the former copy says
// so by itself, the others have to be made to.
#[test]
fn statement_of_another_meaning_is_refused_by_every_server() {
    let pair = two_servers();
    let [mut one, mut two, mut owner] = [(); 3].map(|()| pair.pooler.connect());
    prepare(&mut one, "s", "SELECT * FROM t");
    assert_eq!(call(&mut one, "s"), row("1"));
    // Of another table, but of the same types.
    owner.sql("DROP TABLE t; CREATE TABLE t AS SELECT 1 AS x");
    for _ in 0..3 {
        assert_eq!(call(&mut one, "s"), row("1"));
    }
    let changed = || Err("0A000".to_owned());
    for alter in ["ALTER x TYPE real", "ADD COLUMN y int DEFAULT 2"] {
        owner.sql(&format!("ALTER TABLE t {alter}"));
        prepare(&mut two, "s", "SELECT * FROM t");
        for _ in 0..3 {
            let expected = if alter.starts_with("ADD") { row("1|2") } else { row("1") };
            assert_eq!(call_on_both([(&mut one, "s"), (&mut two, "s")]), [changed(), expected.clone()]);
            assert_eq!(call_on_both([(&mut two, "s"), (&mut one, "s")]), [expected, changed()]);
        }
        two.send_all(&[close("s"), sync()]);
        two.ready(1);
    }
    // It is said as by PostgreSQL, and the transaction has failed.
    one.sql("BEGIN");
    one.send_all(&[bind("s", &[]), execute(), sync()]);
    let frames = one.ready(1);
    let told = (frames[0].field(b'M'), frames[0].field(b'R'), frames[1].body.as_slice());
    assert_eq!(
        told,
        ("cached plan must not change result type".into(), "RevalidateCachedQuery".into(), &b"E"[..])
    );
    one.sql("ROLLBACK");
    // Back to what it was.
    owner.sql("ALTER TABLE t DROP COLUMN y; ALTER TABLE t ALTER x TYPE int");
    prepare(&mut two, "s", "SELECT * FROM t");
    for _ in 0..3 {
        assert_eq!(call_on_both([(&mut one, "s"), (&mut two, "s")]), [row("1"), row("1")]);
    }
}

// H10: a new overload must not change what a client was told about its parameters.
#[test]
fn parameter_types_stay_those_that_the_client_was_told() {
    let pair = two_servers();
    let function = |kind: &str| {
        let body = format!("AS $$ SELECT '{kind} ' || $1 $$ LANGUAGE sql");
        pair.database.sql(&format!("CREATE FUNCTION f({kind}) RETURNS text {body}"));
    };
    function("int");
    let mut clients = [pair.pooler.connect(), pair.pooler.connect()];
    let told = [&[0, 1][..], &23_u32.to_be_bytes()].concat();
    for client in &mut clients {
        client.send_all(&[parse("s", "SELECT f($1)"), describe("s"), sync()]);
        assert_eq!(client.ready(1)[1].body, told);
    }
    function("text");
    // On two servers, at least one of which has not seen the statement yet.
    for client in &mut clients {
        client.sql("BEGIN");
        client.send_all(&[describe("s"), bind("s", &[Some("7")]), execute(), sync()]);
        let frames = client.ready(1);
        assert_eq!(frames[0].body, told);
        assert_eq!(frames[3].row(), "int 7");
    }
}

// A statement that is lost without a tag that says so is prepared anew after one error at most.
#[test]
fn statements_deallocated_by_a_function_come_back() {
    let pair = Pair::new();
    let (mut one, mut two) = (pair.pooler.connect(), pair.pooler.connect());
    prepare(&mut one, "a", "SELECT 'a'");
    prepare(&mut one, "b", "SELECT 'b'");
    prepare(&mut two, "a", "SELECT 'a'");
    one.sql("DO $$ BEGIN EXECUTE 'DEALLOCATE ALL'; END $$");
    assert_eq!(call(&mut two, "a"), Err("26000".to_owned()));
    for _ in 0..2 {
        assert_eq!(call(&mut two, "a"), row("a"));
        assert_eq!(call(&mut one, "b"), row("b"));
        assert_eq!(call(&mut one, "a"), row("a"));
    }
}

// H28
#[test]
fn statements_follow_their_client_to_every_server() {
    let pair = Pair::with(&["default_pool_size = 4"]);
    let mut client = pair.pooler.connect();
    prepare(&mut client, "s", "SELECT 'anywhere'");
    let mut holders = Vec::new();
    for _ in 0..4 {
        assert_eq!(call(&mut client, "s"), row("anywhere"));
        if holders.len() < 3 {
            let mut holder = pair.pooler.connect();
            holder.sql("BEGIN");
            holders.push(holder);
        }
    }
    assert!(pair.database.server_count() > 1);
}

// H17: in these encodings the second byte of a character may look like a letter, a backslash, a bracket.
#[test]
fn names_in_other_encodings_are_understood() {
    let pair = Pair::new();
    // SJIS: U+30A2 (second byte `A`), U+8868 (`\`); GBK: U+4E02 (`@`), U+4E53 (`\`); in the case that it was written.
    for (encoding, name) in
        [("SJIS", "\u{30a2}x"), ("SJIS", "\u{8868}"), ("GBK", "\u{4e02}"), ("GBK", "\u{4e53}b")]
    {
        let encoded = pair.database.sql(&format!("SELECT encode(convert_to('{name}', '{encoding}'), 'hex')"));
        let bytes: Vec<u8> = (0..encoded[0].len())
            .step_by(2)
            .map(|i| u8::from_str_radix(&encoded[0][i..i + 2], 16).unwrap())
            .collect();
        assert!(bytes.iter().any(|b| !b.is_ascii()), "{encoded:?}");
        pair.same(|client| {
            client.sql(&format!("SET client_encoding TO '{encoding}'"));
            let deallocate = |quote: &[u8]| {
                let sql = [&b"deallocate prepare "[..], quote, &bytes, quote, b"\0"].concat();
                build(b'Q', |b| b.extend_from_slice(&sql))
            };
            let parse = build(b'P', |b| b.extend([&bytes[..], b"\0SELECT 'found'\0\0\0"].concat()));
            let bind = build(b'B', |b| b.extend([&b"\0"[..], &bytes, b"\0\0\0\0\0\0\0"].concat()));
            for quote in [&b""[..], b"\""] {
                client.send_all(&[parse.clone(), bind.clone(), execute(), sync(), deallocate(quote)]);
                client.send_all(&[bind.clone(), sync(), deallocate(quote), parse.clone(), sync()]);
                client.send_all(&[deallocate(quote), query("RESET TimeZone"), query("SELECT 'in step'")]);
                client.ready(8);
            }
        });
    }
}

// S17: also while many clients prepare at the same time.
#[test]
fn clients_that_prepare_at_once_do_not_overfill_a_server() {
    let pair = Pair::with(&["default_pool_size = 2", "max_prepared_statements = 5"]);
    std::thread::scope(|scope| {
        for id in 0..10 {
            let pooler = &pair.pooler;
            scope.spawn(move || {
                let mut client = pooler.connect();
                for i in 0..10 {
                    let name = format!("s{i}");
                    prepare(&mut client, &name, &format!("SELECT '{id} {i}'"));
                    assert_eq!(call(&mut client, &name), row(&format!("{id} {i}")));
                }
                let held: u32 = client.sql("SELECT count(*) FROM pg_prepared_statements")[0].parse().unwrap();
                assert!(held <= 5, "{held} statements");
                for i in 0..10 {
                    assert_eq!(call(&mut client, &format!("s{i}")), row(&format!("{id} {i}")));
                }
            });
        }
    });
}

// H5: what an error made the server skip was taken for done, and a client ran the unnamed statement of another one.
#[test]
fn unnamed_statement_of_another_client_is_never_run() {
    let pair = Pair::new();
    let broken = || parse("x", "broken(");
    let use_it = || [bind("", &[]), execute(), sync()].concat();
    for messages in [
        vec![broken(), bind("", &[]), sync(), use_it()],
        vec![broken(), parse("", "SELECT 'mine'"), sync(), use_it()],
        vec![broken(), query("SELECT 1"), sync(), use_it()],
        vec![parse("", "broken("), sync(), use_it()],
        vec![query("SELECT 1"), use_it()],
    ] {
        for at_once in [true, false] {
            let (mut one, mut two) = (pair.pooler.connect(), pair.pooler.connect());
            one.send_all(&[parse("", "SELECT 'of another'"), sync()]);
            one.ready(1);
            let (last, first) = messages.split_last().unwrap();
            two.send_all(first);
            if !at_once {
                two.ready(1);
            }
            two.send(last);
            let frames = two.ready(1 + usize::from(at_once));
            let error = frames.iter().rfind(|frame| frame.tag == b'E').expect("an error");
            assert_eq!(error.field(b'C'), "26000", "{messages:?} {at_once}: {frames:?}");
        }
    }
}

#[test]
fn unnamed_statement_of_a_later_batch_outlives_the_error_of_an_earlier_one() {
    let pair = Pair::new();
    pair.same(|client| {
        client.send_all(&[parse("x", "broken("), parse("", "SELECT 'first'"), sync()]);
        client.send_all(&[parse("", "SELECT 'second'"), sync(), bind("", &[]), execute(), sync()]);
        client.ready(3);
        client.send_all(&[bind("", &[]), execute(), sync()]);
        client.ready(1);
    });
}

// H1, S4: the server has a text once for all names; what an error skipped was missing under the other name.
#[test]
fn other_name_of_a_text_works_although_an_error_skipped_the_first() {
    let pair = Pair::new();
    pair.same(|client| {
        client.send_all(&[parse("x", "broken("), parse("one", "SELECT 'both'"), sync()]);
        client.send_all(&[parse("two", "SELECT 'both'"), bind("two", &[]), execute(), sync()]);
        client.ready(2);
        client.send_all(&[close("two"), sync()]);
        client.ready(1);
    });
}

// H2, S20: the statement was prepared again to be deallocated; when that failed, the simple Query got no ReadyForQuery.
#[test]
fn statement_that_cannot_be_prepared_any_more_can_be_deallocated() {
    let pair = Pair::with(&["default_pool_size = 2", "workers = 1"]);
    pair.database.sql("CREATE TABLE gone (x int); GRANT ALL ON gone TO app");
    let (mut client, mut holder) = (pair.pooler.connect(), pair.pooler.connect());
    prepare(&mut client, "s", "SELECT * FROM gone");
    // The only server that has the statement.
    holder.sql("BEGIN");
    pair.database.sql("DROP TABLE gone");
    assert_eq!(client.try_sql("DEALLOCATE s"), Ok(vec![]));
    assert_eq!(call(&mut client, "s"), Err("26000".to_owned()));
    prepare(&mut client, "s", "SELECT 'anew'");
    assert_eq!(call(&mut client, "s"), row("anew"));
}

// S20: a name that is freed by what the pooler does not read can be used at once, and harms no one.
#[test]
fn name_freed_in_the_same_pipeline_gets_its_new_text() {
    let pair = Pair::new();
    let mut other = pair.pooler.connect();
    prepare(&mut other, "o", "SELECT 'old'");
    for hidden in ["DEALLOCATE ALL", "DO $$ BEGIN EXECUTE 'DEALLOCATE ALL'; END $$"] {
        let mut client = pair.pooler.connect();
        prepare(&mut client, "s", "SELECT 'old'");
        client.send_all(&[
            parse("", hidden),
            bind("", &[]),
            execute(),
            sync(),
            parse("s", "SELECT 'new'"),
            sync(),
        ]);
        client.ready(2);
        assert_eq!(call(&mut client, "s"), row("new"));
        assert_eq!(call(&mut other, "o"), row("old"));
        let mut third = pair.pooler.connect();
        prepare(&mut third, "t", "SELECT 'old'");
        assert_eq!(call(&mut third, "t"), row("old"));
    }
}

// S3: the error that refuses a duplicate name is rewritten; one that was too long to be read whole came out broken.
#[test]
fn duplicate_name_with_another_and_very_long_error_keeps_the_client_in_step() {
    let pair = Pair::new();
    pair.same(|client| {
        client.send_all(&[parse("s", "SELECT 1"), sync(), parse("s", &"x".repeat(100_000)), sync()]);
        client.ready(2);
        client.send_all(&[bind("s", &[]), execute(), close("s"), sync()]);
        client.ready(1);
    });
}
