//! COPY in both sub-protocols, and what goes wrong in its middle (H32–H34, S24, S29).

use crate::support::{compare::Pair, msg::*};

const COPY: &str = "COPY t FROM STDIN";

fn pair() -> Pair {
    let pair = Pair::new();
    pair.database.sql("CREATE TABLE t (x int); GRANT ALL ON t TO app");
    pair
}

/// Parse, Bind and Execute, without Sync.
fn extended(sql: &str) -> Vec<u8> {
    [parse("", sql), bind("", &[]), execute()].concat()
}

#[test]
fn copy_in_and_out_pass_in_both_protocols() {
    pair().same(|client| {
        client.send(&query(COPY));
        client.until(b'G');
        client.send_all(&[copy_data("1\n2"), copy_data("\n3\n"), copy_done()]);
        client.ready(1);
        client.send_all(&[extended(COPY), copy_data("4\n"), copy_done(), sync()]);
        client.ready(1);
        client.send(&query("COPY t TO STDOUT; SELECT count(*) FROM t"));
        client.ready(1);
        client.send_all(&[extended("COPY t TO STDOUT"), extended("SELECT 1"), sync(), query("TRUNCATE t")]);
        client.ready(2);
    });
}

#[test]
fn copy_data_sent_before_the_server_asked_for_it_passes() {
    pair().same(|client| {
        client.send_all(&[
            query(COPY),
            copy_data("1\n"),
            copy_done(),
            query("TRUNCATE t"),
            query("SELECT 1"),
        ]);
        client.ready(3);
        client.send_all(&[
            parse("s", "SELECT 1"),
            extended(COPY),
            copy_data("1\n"),
            copy_done(),
            bind("s", &[]),
        ]);
        client.send_all(&[execute(), close("s"), sync(), query("TRUNCATE t")]);
        client.ready(2);
    });
}

#[test]
fn copy_that_fails_in_the_middle_is_answered_once() {
    pair().same(|client| {
        client.send(&query(COPY));
        client.until(b'G');
        client.send_all(&[copy_data("1\n"), copy_data("no number\n"), copy_data("3\n")]);
        client.until(b'E');
        client.send_all(&[copy_data("4\n"), copy_done(), query("SELECT count(*) FROM t")]);
        client.ready(2);
        client.send_all(&[extended(COPY), copy_data("no number\n"), copy_data("3\n")]);
        client.until(b'E');
        client.send_all(&[copy_data("4\n"), copy_done(), extended("SELECT 1"), sync()]);
        client.send(&query("SELECT count(*) FROM t"));
        client.ready(2);
    });
}

#[test]
fn copy_fail_undoes_the_copy() {
    pair().same(|client| {
        client.send_all(&[query(COPY), copy_data("1\n"), copy_fail("changed my mind")]);
        client.ready(1);
        client.send_all(&[extended(COPY), copy_data("1\n"), copy_fail("again"), sync()]);
        client.ready(1);
        assert_eq!(client.sql("SELECT count(*) FROM t"), ["0"]);
    });
}

#[test]
fn client_that_leaves_amid_copy_leaves_no_rows() {
    let pair = pair();
    for messages in [vec![query(COPY)], vec![extended(COPY), flush()]] {
        let mut client = pair.pooler.connect();
        client.send_all(&messages);
        client.until(b'G');
        client.send(&copy_data("1\n2\n"));
        drop(client);
        pair.next_client_is_untouched();
        assert_eq!(pair.database.sql("SELECT count(*) FROM t"), ["0"]);
    }
}

#[test]
fn failing_copies_in_a_row_never_lose_the_only_server() {
    let pair = pair();
    let mut client = pair.pooler.connect();
    for _ in 0..300 {
        client.send_all(&[query(COPY), copy_data("no number\n"), copy_data("2\n"), copy_done()]);
        client.send_all(&[extended(COPY), copy_data("no number\n"), copy_done(), sync()]);
        let frames = client.ready(2);
        assert_eq!(frames.iter().filter(|frame| frame.tag == b'E').count(), 2);
    }
    pair.next_client_is_untouched();
    assert_eq!(pair.database.server_count(), 1);
}

// H32, S29: the end of the data was taken for something that the server still owes.
#[test]
fn server_is_free_as_soon_as_the_copy_is_over() {
    let pair = pair();
    let mut client = pair.pooler.connect();
    client.send(&query(COPY));
    client.until(b'G');
    client.send_all(&[copy_data("1\n"), copy_done()]);
    client.ready(1);
    pair.next_client_is_untouched();
    client.send_all(&[query(COPY), copy_data("no number\n"), copy_done()]);
    client.ready(1);
    pair.next_client_is_untouched();
    assert_eq!(pair.database.sql("SELECT count(*) FROM t"), ["1"]);
    assert_eq!(client.sql("SELECT 'in step'"), ["in step"]);
}

// CopyGetData ignores a Sync in the simple protocol too.
#[test]
fn sync_amid_a_simple_copy_is_not_answered() {
    let pair = pair();
    pair.same(|client| {
        client.send_all(&[query(COPY), sync(), copy_data("1\n"), copy_done(), query("TRUNCATE t")]);
        client.ready(2);
        assert_eq!(client.sql("SELECT 'in step'"), ["in step"]);
    });
}

// H32: COPY data that is still on its way when the error comes has no reply that would free the server.
#[test]
fn copy_data_behind_the_error_holds_no_server() {
    let pair = pair();
    let mut client = pair.pooler.connect();
    let large = copy_data(&"1\n".repeat(100_000));
    client.send_all(&[query(COPY), copy_data("no number\n"), large[..50_000].to_vec()]);
    client.ready(1);
    client.send(&large[50_000..]);
    client.send(&copy_done());
    pair.next_client_is_untouched();
    assert_eq!(client.sql("SELECT 'in step'"), ["in step"]);
}

// The same behind the first of two COPYs whose data was sent before the server asked for it.
#[test]
fn sync_amid_the_second_copy_of_a_query_is_not_answered() {
    let pair = pair();
    let mut client = pair.pooler.connect();
    client.send(&[query(&format!("{COPY}; {COPY}")), copy_data("1\n"), copy_done()].concat());
    client.until(b'G');
    client.until(b'G');
    client.send_all(&[sync(), copy_data("2\n"), copy_done()]);
    client.ready(1);
    pair.next_client_is_untouched();
    assert_eq!(client.sql("SELECT count(*) FROM t"), ["2"]);
}

// A COPY can fail between CopyInResponse and its first read (triggers, views): then it has not eaten the Sync.
#[test]
fn copy_that_fails_before_it_reads_frees_its_server() {
    let pair = pair();
    pair.database.sql("CREATE VIEW v AS SELECT 1 AS x; GRANT ALL ON v TO app");
    let copy = extended("COPY v FROM STDIN");
    pair.same(|client| {
        client.sql("BEGIN");
        client.send_all(&[copy.clone(), sync()]);
        client.ready(1);
        client.sql("ROLLBACK");
    });
    let mut client = pair.pooler.connect();
    client.send_all(&[copy, sync()]);
    client.ready(1);
    pair.next_client_is_untouched();
    assert_eq!(client.sql("SELECT 'in step'"), ["in step"]);
}

// The same, and the client has ended the COPY meanwhile: its second ReadyForQuery went to whoever came next.
#[test]
fn copy_that_fails_before_it_reads_leaves_no_reply_to_the_next_client() {
    let pair = pair();
    pair.database.sql(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
         'BEGIN PERFORM pg_advisory_xact_lock(1); RAISE EXCEPTION ''refused''; END';
         CREATE TRIGGER refuse BEFORE INSERT ON t EXECUTE FUNCTION refuse()",
    );
    let mut holder = pair.database.connect();
    for _ in 0..20 {
        holder.sql("SELECT pg_advisory_lock(1)");
        let (mut copying, mut next) = (pair.pooler.connect(), pair.pooler.connect());
        copying.send_all(&[extended(COPY), sync()]);
        copying.until(b'G');
        copying.send_all(&[copy_data("1\n"), copy_done(), sync()]);
        next.send(&query("SELECT 'mine'"));
        pair.pooler.wait_for_pool("cl_waiting", 1);
        holder.sql("SELECT pg_advisory_unlock(1)");
        copying.until(b'E');
        assert_eq!(next.ready(1)[1].row(), "mine");
        pair.next_client_is_untouched();
    }
}
