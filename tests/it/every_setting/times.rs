//! Time limits: with one of 0.2 s, what takes longer ends.

use std::{io::Read, net::TcpStream, thread::sleep, time::Duration};

use pooler::demo::process::wait_until;

use super::{Case, Ground, SOON, case, said, yes};
use crate::support::{
    database::password_of,
    load::{Reply, ask},
    msg::{build, query},
    raw::{Raw, startup},
};

const ONE: &str = "default_pool_size = 1";
const LONG: Duration = Duration::from_millis(500);

#[rustfmt::skip]
pub(super) const CASES: &[Case] = &[
    case("query_timeout", "", "0.2", long_query, ["ok", "query timeout"]),
    case("query_wait_timeout", ONE, "0.2", long_wait, ["waits", "query_wait_timeout"]),
    case("transaction_timeout", "", "0.2", long_transaction, ["ok", "transaction timeout"]),
    case("idle_transaction_timeout", "", "0.2", idle_transaction, ["ok", "idle transaction timeout"]),
    case("client_idle_timeout", "pool_mode = transaction", "0.2", idle_client, ["ok", "client_idle_timeout"]),
    case("client_login_timeout", "", "0.2", silent_client, ["stays", "goes"]),
    case("cancel_wait_timeout", "", "0.2", shown_cancel_wait_timeout, ["10", "0.2"]),
    case("server_idle_timeout", "pool_mode = transaction", "0.2", idle_server, ["stays", "goes"]),
    case("server_lifetime", "pool_mode = transaction", "0.2", idle_server, ["stays", "goes"]),
    case("server_connect_timeout", "", "0.2", connects_in_vain, ["no", "yes"]),
    case("server_login_retry", "", "0.1", attempts, ["few", "many"]),
    case("stats_period", "", "1", stats_line, ["no", "yes"]),
    case("log_stats", "stats_period = 1", "0", stats_line, ["yes", "no"]),
];

/// What becomes of it when a client with a server does this.
fn after(ground: &Ground, steps: &[&str], pause: Duration) -> String {
    let mut client = ground.login();
    for step in steps {
        match ask(&mut client, &query(step)) {
            Reply::Rows(..) => {}
            Reply::Error(error, _) | Reply::Closed(Some(error)) => return error.field(b'M'),
            Reply::Closed(None) => return "closed".to_owned(),
        }
    }
    sleep(pause);
    match ask(&mut client, &query("SELECT 1")) {
        Reply::Rows(..) => "ok".to_owned(),
        Reply::Error(error, _) | Reply::Closed(Some(error)) => error.field(b'M'),
        // What was sent may have met a closed socket: what came before is lost then.
        Reply::Closed(None) => {
            client.within(LONG).map_or_else(|| "closed".to_owned(), |error| error.field(b'M'))
        }
    }
}

fn long_query(ground: &Ground) -> String {
    after(ground, &["SELECT pg_sleep(0.6)"], Duration::ZERO)
}

fn long_transaction(ground: &Ground) -> String {
    after(ground, &["BEGIN", "SELECT pg_sleep(0.6)"], Duration::ZERO)
}

fn idle_transaction(ground: &Ground) -> String {
    after(ground, &["BEGIN"], LONG)
}

fn idle_client(ground: &Ground) -> String {
    after(ground, &["SELECT 1"], LONG)
}

fn long_wait(ground: &Ground) -> String {
    let (mut holder, mut waiter) = (ground.login(), ground.login());
    holder.sql("SELECT 1");
    waiter.send(&query("SELECT 1"));
    waiter.within(SOON).map_or_else(|| "waits".to_owned(), |error| error.field(b'M'))
}

fn silent_client(ground: &Ground) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", ground.stage.port)).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let mut told = Vec::new();
    if stream.read_to_end(&mut told).is_ok() { "goes" } else { "stays" }.to_owned()
}

/// What it does needs a server that hangs: `cancel::` and `timeouts::` show it.
fn shown_cancel_wait_timeout(ground: &Ground) -> String {
    let rows = ground.admin().sql("SHOW CONFIG");
    rows.iter()
        .find_map(|row| row.strip_prefix("cancel_wait_timeout|")?.split('|').next())
        .unwrap()
        .to_owned()
}

fn idle_server(ground: &Ground) -> String {
    let mut client = ground.login();
    client.sql("SELECT 1");
    let gone =
        wait_until(Duration::from_millis(1500), || (ground.database.server_count() == 0).then_some(()));
    if gone.is_some() { "goes" } else { "stays" }.to_owned()
}

fn connects_in_vain(ground: &Ground) -> String {
    // An attempt that is under way has the limit that it began with.
    ground.admin().sql("KILL silent");
    ground.admin().sql("RESUME silent");
    let port = ground.stage.port;
    let waits = || {
        let mut raw = Raw::open(port);
        let pairs = [("user", "app"), ("database", "silent")];
        raw.send(&startup(3 << 16, &pairs));
        let salt: [u8; 4] = raw.frame().body[4..].try_into().unwrap();
        let password = password_of("app");
        let hash = postgres_protocol::authentication::md5_hash(b"app", password.as_bytes(), salt);
        raw.send(&build(b'p', |body| {
            body.extend(hash.as_bytes());
            body.push(0);
        }));
        sleep(Duration::from_millis(400));
    };
    yes(ground.logged(waits, "took longer than 0.2 s", SOON))
}

/// How often a server is tried that refuses connections.
fn attempts(ground: &Ground) -> String {
    let before = ground.stage.read("stderr").len();
    let port = ground.stage.port;
    let mut raw = Raw::open(port);
    let login = std::thread::spawn(move || {
        said(raw.try_login("app", "closed", &password_of("app"), &[]).map_err(|error| error.field(b'M')))
    });
    sleep(Duration::from_millis(1300));
    ground.admin().sql("KILL closed");
    login.join().unwrap();
    ground.admin().sql("RESUME closed");
    let tried = ground.stage.read("stderr")[before..].matches("Connection refused").count();
    if tried > 6 { "many".to_owned() } else { format!("few{}", if tried == 0 { ": none" } else { "" }) }
}

fn stats_line(ground: &Ground) -> String {
    yes(ground.logged(|| {}, "stats: ", Duration::from_millis(1300)))
}
