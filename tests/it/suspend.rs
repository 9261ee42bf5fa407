//! SUSPEND: nothing is read, wherever a transaction is, until RESUME.

use std::time::Duration;

use crate::support::{
    compare::Pair,
    msg::*,
    pooler::Pooler,
    raw::{PATIENCE, Raw},
};
use pooler::demo::process::wait_until;

/// Long enough for what is read to be answered.
const WHILE: Duration = Duration::from_millis(300);

fn state(pooler: &Pooler) -> [String; 3] {
    let rows = pooler.console("SHOW STATE");
    ["active", "paused", "suspended"]
        .map(|key| rows.iter().find(|row| row[0].1 == key).unwrap_or_else(|| panic!("no {key}"))[1].1.clone())
}

fn refusal(admin: &mut Raw, command: &str) -> (String, String) {
    let error = admin.try_sql(command).unwrap_err();
    (error.field(b'C'), error.field(b'M'))
}

/// A client that takes nothing of a large reply, so that what pooler has for it does not leave.
fn deaf(pair: &Pair) -> Raw {
    let mut deaf = pair.pooler.connect();
    deaf.send(&query("SELECT repeat('x', 1000000) FROM generate_series(1, 40)"));
    deaf.frame();
    let stuck = "SELECT wait_event FROM pg_stat_activity WHERE query LIKE 'SELECT repeat%'";
    pair.database.wait_for(stuck, &["ClientWrite"]);
    deaf
}

#[test]
fn suspended_clients_wait_wherever_they_are_and_go_on() {
    let pair = Pair::with(&["default_pool_size = 3"]);
    let (mut idle, mut open, mut asking) =
        (pair.pooler.connect(), pair.pooler.connect(), pair.pooler.connect());
    idle.sql("SELECT 1");
    open.sql("BEGIN");
    open.sql("CREATE TABLE suspended (x int)");
    let mut holder = pair.database.connect();
    holder.sql("SELECT pg_advisory_lock(7)");
    asking.send(&query("SELECT pg_advisory_xact_lock(7), 'asked'"));
    pair.database
        .wait_for("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted", &["1"]);
    let mut admin = pair.pooler.admin();
    // It does not wait for transactions.
    admin.sql("SUSPEND");
    assert_eq!(state(&pair.pooler), ["no", "no", "yes"]);
    // The server answers now, and nobody reads it.
    holder.sql("SELECT pg_advisory_unlock(7)");
    idle.send(&query("SELECT 2"));
    open.send(&query("INSERT INTO suspended VALUES (1)"));
    idle.silent(WHILE);
    open.silent(WHILE);
    asking.silent(WHILE);
    let mut late = pair.pooler.connect();
    late.send(&query("SELECT 4"));
    late.silent(WHILE);
    for command in ["SUSPEND", "PAUSE"] {
        let expected = ("55000".to_owned(), "already suspended/paused".to_owned());
        assert_eq!(refusal(&mut admin, command), expected, "{command}");
    }
    admin.sql("RESUME");
    assert_eq!(state(&pair.pooler), ["yes", "no", "no"]);
    assert_eq!(idle.ready(1)[1].row(), "2");
    assert_eq!(format!("{:?}", open.ready(1)[0]), "CommandComplete INSERT 0 1");
    assert_eq!(asking.ready(1)[1].row(), "|asked");
    assert_eq!(late.ready(1)[1].row(), "4");
    open.sql("COMMIT");
    assert_eq!(refusal(&mut admin, "RESUME").1, "pooler is not paused/suspended");
}

#[test]
fn suspend_is_refused_while_databases_are_paused() {
    let pair = Pair::new();
    let mut admin = pair.pooler.admin();
    let name = &pair.database.name;
    admin.sql(&format!("PAUSE {name}"));
    assert_eq!(refusal(&mut admin, "SUSPEND").1, "cannot suspend with paused databases");
    admin.sql(&format!("RESUME {name}"));
    admin.sql("PAUSE");
    assert_eq!(refusal(&mut admin, "SUSPEND").1, "already suspended/paused");
    admin.sql("RESUME");
    assert_eq!(pair.pooler.connect().sql("SELECT 1"), ["1"]);
}

#[test]
fn a_database_that_is_removed_while_it_is_paused_can_be_resumed() {
    let pair = Pair::new();
    let section = format!("\n[databases.gone]\nhost = \"127.0.0.1\"\nport = {}\n", pair.database.port);
    let toml = pair.pooler.toml();
    pair.pooler.rewrite(&format!("{toml}{section}"));
    let mut admin = pair.pooler.admin();
    admin.sql("RELOAD");
    admin.sql("PAUSE gone");
    pair.pooler.rewrite(&toml);
    admin.sql("RELOAD");
    assert_eq!(refusal(&mut admin, "SUSPEND").1, "cannot suspend with paused databases");
    admin.sql("RESUME gone");
    assert_eq!(refusal(&mut admin, "RESUME gone").1, "no such database: gone");
    admin.sql("SUSPEND");
    admin.sql("RESUME");
}

#[test]
fn clients_that_take_nothing_do_not_hold_up_a_suspend_for_ever() {
    let pair = Pair::with(&["suspend_timeout = \"200ms\""]);
    let mut deaf = deaf(&pair);
    let mut other = pair.pooler.connect();
    let mut admin = pair.pooler.admin();
    admin.sql("SUSPEND");
    pair.pooler.wait_for_log("suspend_timeout");
    admin.sql("RESUME");
    assert_eq!(other.sql("SELECT 1"), ["1"]);
    // What had been written comes, and then the end.
    let mut rest = Vec::new();
    while deaf.drain(&mut rest).is_ok_and(|n| n > 0) {}
    assert!(rest.len() < 40_000_000, "all of it came");
}

#[test]
fn cancelled_suspend_is_over() {
    let pair = Pair::with(&["suspend_timeout = 0"]);
    let mut deaf = deaf(&pair);
    let mut admin = pair.pooler.admin();
    admin.send(&query("SUSPEND"));
    let suspended = wait_until(PATIENCE, || (state(&pair.pooler)[2] == "yes").then_some(()));
    assert!(suspended.is_some());
    admin.cancel();
    assert_eq!(admin.ready(1)[0].field(b'C'), "57014");
    assert_eq!(state(&pair.pooler), ["yes", "no", "no"]);
    // It was not the client's fault.
    assert_eq!(deaf.ready(1).iter().filter(|frame| frame.tag == b'D').count(), 40);
}

#[test]
fn signals_resume_and_end_a_suspended_process() {
    let mut pair = Pair::new();
    let mut app = pair.pooler.connect();
    let mut admin = pair.pooler.admin();
    admin.sql("SUSPEND");
    pair.pooler.signal("USR1");
    pair.pooler.wait_for_log("already paused/suspended");
    app.send(&query("SELECT 1"));
    pair.pooler.signal("USR2");
    assert_eq!(app.ready(1)[1].row(), "1");
    admin.sql("SUSPEND");
    // Nobody could leave.
    pair.pooler.signal("TERM");
    assert_eq!(pair.pooler.ended(), Some(0));
}
