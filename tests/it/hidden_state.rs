//! What functions, triggers and views leave in the session although no text tells of it (H16, H22, S36).

use crate::support::{
    database::Database,
    msg::*,
    pooler::{Pooler, Setup},
    raw::Raw,
};

/// Functions that leave something, each in its own way.
const FUNCTIONS: &str = "\
    CREATE FUNCTION set_tenant(text) RETURNS text LANGUAGE sql AS $$ SELECT set_config('app.tenant', $1, false) $$; \
    CREATE FUNCTION outer_set(x text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM set_tenant(x); END $$; \
    CREATE FUNCTION set_in_block(x text) RETURNS void LANGUAGE plpgsql AS \
        $$ BEGIN EXECUTE 'SET app.tenant = ' || quote_literal(x); END $$; \
    CREATE FUNCTION set_any(k text, v text) RETURNS text LANGUAGE sql AS $$ SELECT set_config(k, v, false) $$; \
    CREATE FUNCTION make_temp() RETURNS trigger LANGUAGE plpgsql AS \
        $$ BEGIN CREATE TEMP TABLE IF NOT EXISTS made (x int); RETURN NEW; END $$; \
    CREATE FUNCTION lock_it() RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_lock(7); END $$; \
    CREATE FUNCTION last_one() RETURNS bigint LANGUAGE sql AS $$ SELECT lastval() $$; \
    CREATE TABLE loud (x serial); \
    CREATE TRIGGER t BEFORE INSERT ON loud FOR EACH ROW EXECUTE FUNCTION make_temp(); \
    CREATE VIEW telling AS SELECT set_tenant('view') AS x; \
    GRANT ALL ON loud, loud_x_seq, telling TO app";

/// Servers are taken in turn.
fn turning(functions: &str, settings: &str) -> (Database, Pooler) {
    let database = Database::new();
    database.sql(functions);
    let setting = format!("default_pool_size = 3\nserver_round_robin = true\nworkers = 1\n{settings}");
    let pooler = Setup::new(&database).setting(&setting).start();
    (database, pooler)
}

/// Connections that pooler has for itself.
const OWN: &str = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pooler' AND datname = current_database()";

const TENANT: &str = "SELECT coalesce(nullif(current_setting('app.tenant', true), ''), 'none')";

fn tenant(client: &mut Raw) -> String {
    client.sql(TENANT)[0].clone()
}

fn unnamed(sql: &str) -> Vec<u8> {
    [parse("", sql), bind("", &[]), execute(), sync()].concat()
}

fn named(sql: &str) -> Vec<u8> {
    [parse("named", sql), sync(), bind("named", &[]), execute(), sync(), close("named"), sync()].concat()
}

/// From the first request on: before the catalog is known, servers are asked behind every transaction.
#[test]
fn settings_that_functions_leave_follow_their_client_and_nobody_else() {
    for (protocol, replies) in [(query as fn(&str) -> Vec<u8>, 1), (unnamed, 1), (named, 3)] {
        let (_database, pooler) = turning(FUNCTIONS, "");
        let (mut client, mut other) = (pooler.connect(), pooler.connect());
        for (sql, expected) in [
            ("SELECT set_tenant('a')", "a"),
            ("SELECT outer_set('b')", "b"),
            ("SELECT set_in_block('c')", "c"),
            ("SELECT * FROM telling", "view"),
            ("DO $$ BEGIN PERFORM set_tenant('d'); END $$", "d"),
            ("SELECT set_any('app.tenant', 'e')", "e"),
        ] {
            client.send(&protocol(sql));
            let frames = client.ready(replies);
            assert!(frames.iter().all(|frame| frame.tag != b'E'), "{sql}: {frames:?}");
            for _ in 0..4 {
                assert_eq!(tenant(&mut other), "none", "{sql}");
                assert_eq!(tenant(&mut client), expected, "{sql}");
            }
        }
        // Of the last one nobody can tell what it has set.
        assert_eq!(pooler.pinned(), ["setting"]);
        drop(client);
        for _ in 0..4 {
            assert_eq!(tenant(&mut other), "none");
        }
    }
}

#[test]
fn what_triggers_and_functions_make_binds_the_server() {
    let (_database, pooler) = turning(FUNCTIONS, "");
    for (sql, end, reason) in [
        ("INSERT INTO loud DEFAULT VALUES", "DROP TABLE made", "temporary objects"),
        ("SELECT lock_it()", "SELECT pg_advisory_unlock(7)", "advisory lock"),
    ] {
        let mut client = pooler.connect();
        client.sql(sql);
        assert_eq!(pooler.pinned(), [reason]);
        client.sql(end);
        assert!(pooler.pinned().is_empty(), "{end}");
    }
}

#[test]
fn functions_tell_no_numbers_of_others() {
    let (_database, pooler) = turning(FUNCTIONS, "");
    let mut others: Vec<Raw> = (0..3).map(|_| pooler.connect()).collect();
    for sql in ["BEGIN", "SELECT nextval('loud_x_seq')", "COMMIT"] {
        others.iter_mut().for_each(|other| drop(other.sql(sql)));
    }
    let mut client = pooler.connect();
    for _ in 0..4 {
        assert_eq!(client.try_sql("SELECT last_one()").unwrap_err().field(b'C'), "55000");
    }
}

#[test]
fn functions_made_by_one_client_count_for_the_next_at_once() {
    let (database, pooler) = turning("SELECT 1", "");
    database.sql("GRANT CREATE ON SCHEMA public TO app");
    let (mut maker, mut client, mut other) = (pooler.connect(), pooler.connect(), pooler.connect());
    // The catalog is known, and there is nothing to look for.
    let known = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pooler' AND state = 'idle' \
        AND datname = current_database()";
    database.wait_for(known, &["1"]);
    for round in 0..5 {
        maker.sql(&format!(
            "CREATE FUNCTION f{round}() RETURNS text LANGUAGE sql AS $$ SELECT set_config('work_mem', '1{round}MB', false) $$"
        ));
        maker.sql(&format!("ALTER FUNCTION f{round} RENAME TO g{round}"));
        client.sql(&format!("SELECT g{round}()"));
        for _ in 0..4 {
            assert_eq!(other.sql("SHOW work_mem"), ["4MB"], "round {round}");
        }
        client.sql("RESET work_mem");
        maker.sql(&format!("DROP FUNCTION g{round}"));
    }
}

#[test]
fn policies_say_what_becomes_of_servers() {
    let (database, pooler) = turning(FUNCTIONS, "session_functions = \"pin\"");
    let mut client = pooler.connect();
    // Only what is known to be there binds.
    client.sql("SELECT 1");
    assert!(pooler.pinned().is_empty());
    database.wait_for(OWN, &["1"]);
    client.sql("SELECT set_tenant('a')");
    assert_eq!(pooler.pinned(), ["setting"]);
    let (database, pooler) =
        turning(FUNCTIONS, "session_functions = \"trust\"\nsession_state = \"suspected\"");
    let mut client = pooler.connect();
    client.sql("SELECT lock_it()");
    assert!(pooler.pinned().is_empty());
    assert_eq!(database.sql(OWN), ["0"]);
}

/// Its own connection is in nobody's way while a database is paused.
#[test]
fn own_connection_ends_with_a_pause() {
    let (database, pooler) = turning(FUNCTIONS, "");
    let mut client = pooler.connect();
    client.sql("SELECT 1");
    database.wait_for(OWN, &["1"]);
    pooler.console("PAUSE");
    database.wait_for(OWN, &["0"]);
    pooler.console("RESUME");
    client.sql("SELECT set_tenant('a')");
    database.wait_for(OWN, &["1"]);
    let mut other = pooler.connect();
    for _ in 0..4 {
        assert_eq!((tenant(&mut other), tenant(&mut client)), ("none".to_owned(), "a".to_owned()));
    }
}
