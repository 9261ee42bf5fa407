//! How many, and which.

use std::time::{Duration, Instant};

use super::{Case, Ground, SOON, case, said};
use crate::support::{msg::*, raw::Raw};

const ONE: &str = "default_pool_size = 1";

#[rustfmt::skip]
pub(super) const CASES: &[Case] = &[
    case("default_pool_size", "", "1", served, ["3 served, 0 wait", "1 served, 2 wait"]),
    case("max_db_connections", "", "2", served, ["3 served, 0 wait", "2 served, 1 wait"]),
    case("max_user_connections", "", "2", served, ["3 served, 0 wait", "2 served, 1 wait"]),
    case("pool_mode", ONE, "transaction", served, ["1 served, 2 wait", "3 served, 0 wait"]),
    case("reserve_pool_size", "default_pool_size = 1\nreserve_pool_timeout = 0.1", "1", served_later, ["1 served, 2 wait", "2 served, 1 wait"]),
    case("reserve_pool_timeout", "default_pool_size = 1\nreserve_pool_size = 1", "0.1", served_later, ["1 served, 2 wait", "2 served, 1 wait"]),
    case("max_client_conn", "", "2", let_in, ["4: ok", "2: no more connections allowed (max_client_conn)"]),
    case("max_db_client_connections", "", "2", let_in, ["4: ok", "2: client connections exceeded (max_db_client_connections)"]),
    case("max_user_client_connections", "", "2", let_in, ["4: ok", "2: client connections exceeded (max_user_client_connections)"]),
    case("min_pool_size", "", "2", kept_open, ["1", "2"]),
    case("max_packet_size", "", "2000", long_statement, ["ok", "Parse message of 4021 bytes exceeds max_packet_size"]),
    case("max_prepared_statements", "pool_mode = transaction", "0", name_at_the_server, ["another", "s"]),
    case("server_check_delay", "server_check_query = INSERT INTO noted VALUES (1)", "0", notes_of_a_second_client, ["0", "1"]),
    case("server_check_query", "server_check_delay = 0", "INSERT INTO noted VALUES (1)", notes_of_a_second_client, ["0", "1"]),
    case("server_reset_query", "", "INSERT INTO noted VALUES (1)", notes_of_a_client, ["0", "1"]),
    case("server_reset_query_always", "pool_mode = transaction\nserver_reset_query = INSERT INTO noted VALUES (1)", "1", notes_of_a_client, ["0", "1"]),
    case("server_round_robin", "pool_mode = transaction", "1", servers_in_turn, ["1", "2"]),
];

/// Three clients ask something; some get a server and keep it, in session mode.
fn ask_by_three(ground: &Ground) -> Vec<Raw> {
    let mut clients: Vec<Raw> = (0..3).map(|_| ground.login()).collect();
    clients.iter_mut().for_each(|client| client.send(&query("SELECT 1")));
    clients
}

fn count(mut clients: Vec<Raw>, at_most: Duration) -> String {
    // Nobody who waits is served any more while nobody leaves.
    let end = Instant::now() + at_most;
    let mut answered =
        |client: &mut Raw| client.within(end.saturating_duration_since(Instant::now())).is_some();
    let served = clients.iter_mut().map(&mut answered).filter(|answered| *answered).count();
    format!("{served} served, {} wait", clients.len() - served)
}

fn served(ground: &Ground) -> String {
    count(ask_by_three(ground), Duration::from_millis(300))
}

fn served_later(ground: &Ground) -> String {
    count(ask_by_three(ground), SOON)
}

fn let_in(ground: &Ground) -> String {
    let mut clients = Vec::new();
    for _ in 0..4 {
        match ground.try_login("app", &[]) {
            Ok(client) => clients.push(client),
            Err(message) => return format!("{}: {message}", clients.len()),
        }
    }
    format!("{}: ok", clients.len())
}

fn kept_open(ground: &Ground) -> String {
    let mut client = ground.login();
    client.sql("SELECT 1");
    std::thread::sleep(Duration::from_millis(300));
    (ground.pool("sv_active") + ground.pool("sv_idle") + ground.pool("sv_used")).to_string()
}

fn long_statement(ground: &Ground) -> String {
    let mut client = ground.login();
    let text = format!("SELECT 1 AS {}", "x".repeat(4000));
    client.send_all(&[parse("", &text), sync()]);
    let answer = client.frame();
    said(if answer.tag == b'E' { Err(answer.field(b'M')) } else { Ok(()) })
}

fn name_at_the_server(ground: &Ground) -> String {
    let mut client = ground.login();
    client.send_all(&[parse("s", "SELECT 'prepared'"), sync()]);
    client.ready(1);
    let sql =
        "SELECT name FROM pg_prepared_statements WHERE statement LIKE '%prepared''' AND from_sql = false";
    let name = client.sql(sql).remove(0);
    if name == "s" { name } else { "another".to_owned() }
}

fn notes_of_a_client(ground: &Ground) -> String {
    ground.noted();
    let mut client = ground.login();
    client.sql("SELECT 1");
    drop(client);
    std::thread::sleep(Duration::from_millis(200));
    ground.noted().to_string()
}

/// The server is there already.
fn notes_of_a_second_client(ground: &Ground) -> String {
    ground.login().sql("SELECT 1");
    std::thread::sleep(Duration::from_millis(100));
    ground.noted();
    ground.login().sql("SELECT 1");
    ground.noted().to_string()
}

/// How many servers serve one client where two are idle.
fn servers_in_turn(ground: &Ground) -> String {
    let (mut one, mut two) = (ground.login(), ground.login());
    one.sql("BEGIN");
    two.sql("SELECT 1");
    one.sql("COMMIT");
    let mut pids: Vec<_> = (0..4).map(|_| one.sql("SELECT pg_backend_pid()")).collect();
    pids.sort();
    pids.dedup();
    pids.len().to_string()
}
