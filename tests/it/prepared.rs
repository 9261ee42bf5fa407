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

#[test]
fn prepare_in_a_transaction_that_breaks_off_is_not_seen_by_others() {
    let pair = Pair::new();
    let mut client = pair.pooler.connect();
    client.sql("BEGIN");
    client.sql("PREPARE mine AS SELECT 1");
    drop(client);
    pair.next_client_is_untouched();
}

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

#[test]
fn changed_result_type_heals_or_fails_once() {
    let pair = Pair::new();
    pair.database.sql("CREATE TABLE t AS SELECT 1 AS x; GRANT ALL ON t TO app");
    let mut client = pair.pooler.connect();
    prepare(&mut client, "s", "SELECT * FROM t");
    assert_eq!(call(&mut client, "s"), row("1"));
    pair.database.sql("ALTER TABLE t ADD COLUMN y int DEFAULT 2");
    let first = call(&mut client, "s");
    assert!(first == row("1|2") || first == Err("0A000".to_owned()), "{first:?}");
    assert_eq!(call(&mut client, "s"), row("1|2"));
    let mut other = pair.pooler.connect();
    prepare(&mut other, "s", "SELECT * FROM t");
    assert_eq!(call(&mut other, "s"), row("1|2"));
}

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
