//! `currval()` and `lastval()` tell the client's own numbers, or an error, and never a number that another client has
//! drawn (H16, S36).

use crate::support::{
    database::Database,
    msg::*,
    pooler::{Pooler, Setup},
    raw::Raw,
};

const DRAW: &str = "INSERT INTO items DEFAULT VALUES";
const LAST: &str = "SELECT lastval()";
/// Its number in pg_proc.dat.
const LASTVAL: u32 = 2559;

/// Servers are taken in turn, and each remembers numbers of another client.
fn used(more: &str) -> (Database, Pooler) {
    let database = Database::new();
    database.sql("CREATE TABLE items (id serial)");
    database.sql("GRANT ALL ON items, items_id_seq TO app");
    let size = if more.contains("default_pool_size") { "" } else { "default_pool_size = 20\n" };
    let setting = format!("{size}server_round_robin = true\nworkers = 1\n{more}");
    let pooler = Setup::new(&database).setting(&setting).start();
    // One server of the pool has one client at a time.
    let count = if size.is_empty() { 1 } else { 3 };
    let mut clients: Vec<Raw> = (0..count).map(|_| pooler.connect()).collect();
    for sql in ["BEGIN", DRAW, "COMMIT"] {
        clients.iter_mut().for_each(|client| drop(client.sql(sql)));
    }
    drop(clients);
    pooler.wait_for_pool("sv_idle", count);
    (database, pooler)
}

fn extended(sql: &str) -> Vec<u8> {
    [parse("", sql), bind("", &[]), execute(), sync()].concat()
}

/// What a message brings: the value of its last row, or SQLSTATE and hint of its error.
fn answer(client: &mut Raw, message: &[u8]) -> Result<String, (String, String)> {
    client.send(message);
    let frames = client.ready(1);
    if let Some(error) = frames.iter().find(|frame| frame.tag == b'E') {
        return Err((error.field(b'C'), error.field(b'H')));
    }
    Ok(frames.iter().rfind(|frame| frame.tag == b'D').map(|row| row.row()).unwrap_or_default())
}

fn assert_unknown(answer: &Result<String, (String, String)>) {
    let (sqlstate, hint) = answer.as_ref().unwrap_err();
    assert_eq!(sqlstate, "55000");
    assert!(hint.contains("RETURNING"), "no hint: {hint}");
}

#[test]
fn who_has_drawn_no_number_is_told_none() {
    for protocol in [query, extended] {
        let (_database, pooler) = used("");
        for ask in [LAST, "SELECT currval('items_id_seq')", "SELECT \"currval\"('items_id_seq'::regclass)"] {
            let mut client = pooler.connect();
            for _ in 0..4 {
                assert_unknown(&answer(&mut client, &protocol(ask)));
            }
            let mut client = pooler.connect();
            client.sql("BEGIN");
            assert_unknown(&answer(&mut client, &protocol(ask)));
            assert_eq!(client.sql("ROLLBACK"), [""; 0]);
        }
        let mut client = pooler.connect();
        assert_unknown(&answer(&mut client, &function_call(LASTVAL, &[])));
        // In the middle of a batch, behind statements that are known already.
        let mut client = pooler.connect();
        client.send_all(&[parse("ask", LAST), sync()]);
        client.ready(1);
        let batch =
            [parse("", "SELECT 1"), bind("", &[]), execute(), bind("ask", &[]), execute(), sync()].concat();
        assert_unknown(&answer(&mut client, &batch));
    }
}

#[test]
fn numbers_of_the_same_transaction_are_right_once_the_application_is_known() {
    for protocol in [query, extended] {
        let (_database, pooler) = used("");
        let mut other = pooler.connect();
        let transaction = |client: &mut Raw, other: &mut Raw| {
            client.sql("BEGIN");
            let drawn = client.sql(&format!("{DRAW} RETURNING id"))[0].clone();
            other.sql(DRAW);
            let told = answer(client, &protocol(LAST));
            client.sql("COMMIT");
            (drawn, told)
        };
        let mut client = pooler.connect();
        assert_unknown(&transaction(&mut client, &mut other).1);
        for _ in 0..4 {
            let (drawn, told) = transaction(&mut client, &mut other);
            assert_eq!(told, Ok(drawn));
            let mut another = pooler.connect();
            let (drawn, told) = transaction(&mut another, &mut other);
            assert_eq!(told, Ok(drawn));
        }
        // Not the application of its neighbour.
        let mut stranger = pooler.connect_with(&[("application_name", "stranger")]);
        assert_unknown(&transaction(&mut stranger, &mut other).1);
    }
}

#[test]
fn a_text_that_draws_and_asks_is_right_at_once() {
    let (_database, pooler) = used("");
    for _ in 0..4 {
        let mut client = pooler.connect();
        let text = format!("{DRAW} RETURNING id; SELECT lastval()");
        let rows = client.sql(&text);
        assert_eq!(rows[0], rows[1]);
        // Its server is not kept for that.
        assert!(pooler.console("SHOW SERVERS").iter().all(|row| row.iter().all(|(_, v)| v != "currval")));
    }
}

#[test]
fn who_asks_later_keeps_its_server_from_then_on() {
    let (_database, pooler) = used("");
    let mut other = pooler.connect();
    let mut first = pooler.connect();
    first.sql(DRAW);
    other.sql("SELECT 1");
    assert_unknown(&answer(&mut first, &query(LAST)));
    for _ in 0..2 {
        let mut client = pooler.connect();
        for _ in 0..3 {
            let drawn = client.sql(&format!("{DRAW} RETURNING id"))[0].clone();
            other.sql(DRAW);
            assert_eq!(answer(&mut client, &extended(LAST)), Ok(drawn));
        }
        assert_eq!(pooler.pinned(), ["currval"]);
        client.sql("DISCARD SEQUENCES");
        assert!(pooler.pinned().is_empty());
        assert_eq!(answer(&mut client, &query(LAST)).unwrap_err().0, "55000");
    }
    drop(first);
    pooler.wait_for_pool("sv_active", 0);
}

#[test]
fn settings_make_the_first_question_right() {
    let (_database, pooler) = used("currval = \"transaction\"");
    let (mut client, mut other) = (pooler.connect(), pooler.connect());
    for _ in 0..4 {
        client.sql("BEGIN");
        let drawn = client.sql(&format!("{DRAW} RETURNING id"))[0].clone();
        assert_eq!(answer(&mut client, &extended(LAST)), Ok(drawn));
        client.sql("COMMIT");
        other.sql(DRAW);
    }
    let (_database, pooler) = used("currval = \"session\"");
    let (mut client, mut other) = (pooler.connect(), pooler.connect());
    let drawn = client.sql(&format!("{DRAW} RETURNING id"))[0].clone();
    other.sql(DRAW);
    assert_eq!(answer(&mut client, &extended(LAST)), Ok(drawn));
}

/// A failed transaction refuses the question, whatever was put in front of it.
#[test]
fn failed_transactions_answer_as_ever() {
    let (_database, pooler) = used("");
    let mut client = pooler.connect();
    for protocol in [query, extended] {
        client.sql("BEGIN");
        assert_eq!(answer(&mut client, &query("SELECT 1/0")).unwrap_err().0, "22012");
        for _ in 0..2 {
            assert_eq!(answer(&mut client, &protocol(LAST)).unwrap_err().0, "25P02");
        }
        client.sql("ROLLBACK");
        // Sent before it is known that the transaction has failed.
        client.send_all(&[query("BEGIN"), query("SELECT 1/0"), protocol(LAST), query("ROLLBACK")]);
        let frames = client.ready(4);
        let errors: Vec<String> = frames.iter().filter(|f| f.tag == b'E').map(|f| f.field(b'C')).collect();
        assert_eq!(errors, ["22012", "25P02"]);
        assert_unknown(&answer(&mut client, &protocol(LAST)));
    }
}

/// What was to make the server forget is skipped with the batch that fails: the next one, sent at the same time, is told
/// nothing either.
#[test]
fn pipelines_that_fail_tell_no_numbers_of_others() {
    let (_database, pooler) = used("");
    for protocol in [query, extended] {
        let mut client = pooler.connect();
        let failing = [parse("", "SELECT 1/0"), bind("", &[]), execute()].concat();
        let asks = [parse("", LAST), bind("", &[]), execute(), sync()].concat();
        client.send_all(&[
            query("BEGIN"),
            query("SELECT 1/0"),
            protocol(LAST),
            query("ROLLBACK"),
            protocol(LAST),
            failing,
            asks.clone(),
            asks,
        ]);
        let frames = client.ready(7);
        let errors: Vec<String> = frames.iter().filter(|f| f.tag == b'E').map(|f| f.field(b'C')).collect();
        assert_eq!(errors, ["22012", "25P02", "55000", "22012", "55000"]);
    }
}

/// A client that leaves while its server is being made to forget leaves its own numbers behind.
#[test]
fn numbers_of_a_client_that_is_gone_are_nobodys() {
    let (_database, pooler) = used("default_pool_size = 1\ncurrval = \"transaction\"");
    for _ in 0..5 {
        let mut gone = pooler.connect();
        gone.send(&query(DRAW));
        drop(gone);
        pooler.wait_for_pool("sv_active", 0);
        let mut client = pooler.connect();
        assert_unknown(&answer(&mut client, &query(LAST)));
    }
}

/// The last number is not the last one on this server.
#[test]
fn numbers_of_an_earlier_server_are_not_the_last_ones() {
    let (_database, pooler) = used("");
    let mut client = pooler.connect();
    for _ in 0..4 {
        client.sql(DRAW);
    }
    assert_unknown(&answer(&mut client, &query(LAST)));
}

/// Many clients that draw and ask in all ways: each knows what it would be told by a server of its own.
#[test]
fn nobody_is_ever_told_the_number_of_another() {
    let (_database, pooler) = used("");
    let mut clients: Vec<(Raw, Option<String>)> = (0..6).map(|_| (pooler.connect(), None)).collect();
    let mut state = 1_u32;
    let (mut right, mut unknown) = (0, 0);
    for _ in 0..600 {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let choice = state >> 16;
        let count = clients.len();
        let (client, last) = &mut clients[choice as usize % count];
        let protocol = if choice & 64 == 0 { query } else { extended };
        match choice / 128 % 8 {
            0..=3 => *last = Some(client.sql(&format!("{DRAW} RETURNING id"))[0].clone()),
            4 => drop(client.sql("SELECT 1")),
            5 => {
                client.sql("DISCARD SEQUENCES");
                *last = None;
            }
            _ => match answer(client, &protocol(LAST)) {
                Ok(told) => {
                    assert_eq!(Some(&told), last.as_ref());
                    right += 1;
                }
                Err((sqlstate, _)) => {
                    assert_eq!(sqlstate, "55000");
                    unknown += 1;
                }
            },
        }
        // One of them comes anew, now and then.
        if choice.is_multiple_of(97) {
            (*client, *last) = (pooler.connect(), None);
        }
    }
    assert!(right > 10 && unknown > 1, "{right} right, {unknown} unknown");
}
