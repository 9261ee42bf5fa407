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
