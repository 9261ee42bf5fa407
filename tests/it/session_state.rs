//! What a client leaves in its session is its own: settings follow it to every server, and what cannot follow keeps the
//! server with it for as long as it lives (H5, H16, H22, H44, S20, S36, S42, S43).

use std::time::Duration;

use crate::support::{
    database::{Database, password_of},
    msg::*,
    pooler::{Pooler, Setup},
    raw::Raw,
};

/// A database and a pooler whose servers are taken in turn: no client has the same one twice in a row.
fn turning() -> (Database, Pooler) {
    let database = Database::new();
    let pooler =
        Pooler::of(&database, &["default_pool_size = 3", "server_round_robin = true", "workers = 1"]);
    let mut clients: Vec<Raw> = (0..3).map(|_| pooler.connect()).collect();
    ["BEGIN", "COMMIT"].iter().for_each(|sql| clients.iter_mut().for_each(|client| drop(client.sql(sql))));
    pooler.wait_for_pool("sv_idle", 3);
    (database, pooler)
}

/// What sessions may differ in.
const STATE: &str = "SELECT current_setting('work_mem'), current_setting('statement_timeout'), \
    coalesce(nullif(current_setting('app.tenant', true), ''), 'none'), \
    coalesce(nullif(current_setting('app.other', true), ''), 'none'), current_user, \
    current_setting('search_path'), current_setting('default_transaction_isolation')";

fn state(client: &mut Raw) -> Vec<String> {
    client.sql(STATE)
}

fn backend(client: &mut Raw) -> String {
    client.sql("SELECT pg_backend_pid()")[0].clone()
}

/// Runs each script at PostgreSQL and through pooler, where another client works on all servers in between. Statements are
/// one message each; those that fail are meant to.
fn same_state(scripts: &[&[&str]], send: impl Fn(&mut Raw, &str)) {
    let (database, pooler) = turning();
    database.sql("GRANT pg_monitor TO app");
    let mut other = pooler.connect();
    let untouched = state(&mut other);
    for script in scripts {
        let (mut direct, mut pooled) = (database.connect(), pooler.connect());
        for sql in *script {
            send(&mut direct, sql);
            send(&mut pooled, sql);
            for _ in 0..4 {
                assert_eq!(state(&mut other), untouched, "{script:?}: the other client, behind {sql}");
            }
            let open = |client: &Raw| client.received.last().map(|frame| frame.body.clone());
            assert_eq!(open(&pooled), open(&direct), "{script:?}: {sql}");
            if open(&direct).as_deref() == Some(b"I") {
                let expected = state(&mut direct);
                for _ in 0..4 {
                    assert_eq!(state(&mut pooled), expected, "{script:?}: behind {sql}");
                }
            }
        }
        drop(pooled);
        for _ in 0..4 {
            assert_eq!(state(&mut other), untouched, "{script:?}: behind its client");
        }
    }
}

const SCRIPTS: [&[&str]; 15] = [
    &["SET work_mem = '7MB'", "SET app.tenant = 'it''s \\ \u{fc}'", "RESET work_mem", "RESET ALL"],
    &["SET SESSION statement_timeout = '5min'", "SET statement_timeout TO DEFAULT"],
    &["SELECT set_config('app.tenant', 'a', false), set_config('work_mem', '8MB', false)", "DISCARD ALL"],
    &["BEGIN", "SET work_mem = '9MB'", "ROLLBACK", "BEGIN", "SET work_mem = '9MB'", "COMMIT"],
    &["BEGIN", "SET app.tenant = 'a'", "SAVEPOINT s", "SET app.tenant = 'b'", "ROLLBACK TO s", "COMMIT"],
    &["BEGIN", "SET LOCAL work_mem = '9MB'", "SELECT set_config('app.tenant', 'a', true)", "COMMIT"],
    &["BEGIN", "SET work_mem = '6MB'", "SELECT 1/0", "COMMIT", "SET work_mem = '5MB'"],
    &["SET ROLE pg_monitor", "SET work_mem = '7MB'", "RESET ROLE", "SET ROLE pg_monitor", "SET ROLE NONE"],
    &["SET search_path = \"Odd, name\", pg_catalog", "SET work_mem = '7MB'; SET app.other = '1'"],
    &["SET search_path = \"$user\", \"Odd name\", public", "SET search_path = ''", "RESET search_path"],
    &["SELECT set_config('search_path', 'user,public', false)", "SET search_path = \"user\", x_1"],
    &["SET app.\"Mixed\" = '1'", "SET \"a\".b.c1 = E'\\\\\\''", "RESET ALL"],
    &["SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE", "RESET ALL"],
    &["DO $$ BEGIN SET work_mem = '7MB'; PERFORM set_config('statement_timeout', '9min', false); END $$"],
    &[
        "SET work_mem = '7MB'; SELECT 1/0",
        "BEGIN; SET work_mem = '6MB'; COMMIT; SELECT 1/0",
        "RESET work_mem",
    ],
];

#[test]
fn settings_follow_their_client_and_nobody_else() {
    same_state(&SCRIPTS, |client, sql| {
        client.send(&query(sql));
        client.ready(1);
    });
}

#[test]
fn settings_follow_in_the_extended_protocol() {
    let single =
        SCRIPTS.iter().filter(|script| script.iter().all(|sql| !sql.contains("; ") || sql.starts_with("DO")));
    let single: Vec<&[&str]> = single.copied().collect();
    assert!(single.len() > 8);
    same_state(&single, |client, sql| {
        client.send_all(&[parse("", sql), bind("", &[]), execute(), sync()]);
        client.ready(1);
    });
    same_state(&single, |client, sql| {
        client.send_all(&[parse("named", sql), close("other"), sync()]);
        client.ready(1);
        client.send_all(&[bind("named", &[]), execute(), sync(), close("named"), sync()]);
        client.ready(2);
    });
}

/// What is sent without waiting for answers.
#[test]
fn settings_hold_for_what_follows_in_the_pipeline() {
    let (_database, pooler) = turning();
    let (mut client, mut other) = (pooler.connect(), pooler.connect());
    let unit = |sql: &str| [parse("", sql), bind("", &[]), execute(), sync()].concat();
    for round in 1..=5 {
        let set = format!("SET work_mem = '{round}MB'");
        client.send_all(&[
            unit(&set),
            unit("SHOW work_mem"),
            query(&set),
            query("SHOW work_mem"),
            unit(&set),
        ]);
        client.ready(5);
        assert_eq!(client.sql("SHOW work_mem"), [format!("{round}MB")]);
        assert_eq!(other.sql("SHOW work_mem"), ["4MB"]);
    }
}

/// A server that is not waked up for the answers to settings in front is waked up by the shortest answer behind them, also
/// where its settings are refused, or notifications come later.
#[test]
fn short_answers_behind_settings_are_not_waited_for() {
    let database = Database::new();
    let pooler = Setup::new(&database).setting("default_pool_size = 1\nworkers = 1").start();
    let mut clients: Vec<Raw> = (0..2).map(|_| pooler.connect()).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        client.sql(&format!("SET statement_timeout = '{}min'; SET search_path = s{n}, public", n + 1));
        client.sql(&format!("SET lock_timeout = '{}min'; SET app.number = {n}", n + 1));
    }
    let unit = |sql: &str| [parse("", sql), bind("", &[]), execute(), sync()].concat();
    for _ in 0..3 {
        for (n, client) in clients.iter_mut().enumerate() {
            // Whole requests, and what is answered in parts.
            for request in [vec![], query(""), sync(), unit(""), query("BEGIN"), query("COMMIT")] {
                let requests = usize::from(!request.is_empty());
                client.send(&request);
                client.ready(requests);
            }
            let steps =
                [(parse("", "SELECT 1"), b'1'), (bind("", &[]), b'2'), (execute(), b'C'), (sync(), b'Z')];
            for (message, answer) in steps {
                client.send_all(&[message, flush()]);
                client.until(answer);
            }
            assert_eq!(client.sql("SHOW lock_timeout"), [format!("{}min", n + 1)]);
            client.sql("DECLARE c CURSOR WITH HOLD FOR SELECT 1");
            client.sql("CLOSE c");
        }
    }
}

/// Nothing runs without the settings that it needs (under another role it would do something else), the client stays, and
/// nobody else meets any of it.
#[test]
fn settings_that_are_refused_are_an_error_and_nothing_is_carried_out() {
    let (database, pooler) = turning();
    database.sql(
        "CREATE ROLE refused; GRANT refused TO app; CREATE TABLE seen (who text, n serial); \
         GRANT ALL ON seen, seen_n_seq TO app, refused",
    );
    let (mut client, mut other) = (pooler.connect(), pooler.connect());
    let insert = "INSERT INTO seen VALUES (current_user)";
    client.sql("SET work_mem = '7MB'; SET ROLE refused");
    for _ in 0..4 {
        client.sql(insert);
        assert_eq!(other.sql("SELECT current_user"), ["app"]);
    }
    database.sql("REVOKE refused FROM app");
    let unit = |sql: &str| [parse("", sql), bind("", &[]), execute(), sync()].concat();
    for round in 0..4 {
        let error = client.try_sql(insert).unwrap_err();
        assert_eq!((error.field(b'S'), error.field(b'C')), ("ERROR".into(), "42501".into()), "{round}");
        // Each request of a pipeline is one of its own, as it is where the role is not let in.
        client.send_all(&[
            unit(insert),
            query(insert),
            unit("SELECT 1"),
            parse("n", "SELECT 1"),
            flush(),
            sync(),
        ]);
        let frames = client.ready(4);
        let tags: String = frames.iter().map(|frame| char::from(frame.tag)).collect();
        assert_eq!(tags, "EZEZEZEZ");
        assert_eq!(other.sql("SELECT current_user || current_setting('work_mem')"), ["app4MB"]);
    }
    assert_eq!(database.sql("SELECT DISTINCT who FROM seen"), ["refused"]);
    assert_eq!(database.sql("SELECT count(*) FROM seen"), ["4"]);
    // A way out, as at PostgreSQL.
    client.sql("RESET ROLE");
    assert_eq!(client.sql("SELECT current_user || current_setting('work_mem')"), ["app7MB"]);
    database.sql("GRANT refused TO app");
    client.sql("SET ROLE refused");
    database.sql("REVOKE refused FROM app");
    assert_eq!(client.try_sql("BEGIN").unwrap_err().field(b'C'), "42501");
    client.sql("DISCARD ALL");
    for _ in 0..4 {
        assert_eq!(client.sql("SELECT current_user || current_setting('work_mem')"), ["app4MB"]);
    }
    pooler.wait_for_pool("sv_idle", 3);
}

/// A text that is passed on before all of it has come.
#[test]
fn settings_behind_a_long_text_follow() {
    let (_database, pooler) = turning();
    let (mut client, mut other) = (pooler.connect(), pooler.connect());
    client.sql(&format!("SELECT length('{}'); SET work_mem = '7MB'", "x".repeat(1 << 20)));
    for _ in 0..4 {
        assert_eq!(
            (client.sql("SHOW work_mem"), other.sql("SHOW work_mem")),
            (vec!["7MB".into()], vec!["4MB".into()])
        );
    }
}

/// A prepared SET is one whenever it is executed.
#[test]
fn prepared_settings_count_when_they_are_executed() {
    let (_database, pooler) = turning();
    let (mut client, mut other) = (pooler.connect(), pooler.connect());
    let set = "SELECT set_config('app.tenant', $1, false)";
    client.send_all(&[parse("set", set), sync()]);
    client.ready(1);
    let tenant = "SELECT current_setting('app.tenant', true)";
    for value in ["a", "b", "c", "d"] {
        client.send_all(&[bind("set", &[Some(value)]), execute(), sync()]);
        client.ready(1);
        for _ in 0..3 {
            assert_eq!(client.sql(tenant), [value]);
            assert_ne!(other.sql(tenant), [value]);
        }
    }
}

/// Ways to bind a server to its client, how the binding ends, and what SHOW SERVERS calls it.
const BOUND: [(&str, &str, &str, &str); 8] = [
    ("CREATE TEMP TABLE t (x int)", "SELECT count(*) FROM t", "DROP TABLE t", "temporary objects"),
    ("SELECT 1 AS x INTO TEMP t", "SELECT count(*) FROM t", "DISCARD TEMP", "temporary objects"),
    ("CREATE TEMP SEQUENCE s", "SELECT nextval('s')", "DROP SEQUENCE s", "temporary objects"),
    ("SELECT pg_advisory_lock(77)", "SELECT 1", "SELECT pg_advisory_unlock(77)", "advisory lock"),
    (
        "BEGIN; DECLARE c SCROLL CURSOR WITH HOLD FOR SELECT 1; COMMIT",
        "FETCH ABSOLUTE 1 FROM c",
        "CLOSE c",
        "cursor WITH HOLD",
    ),
    ("DO $$ BEGIN EXECUTE 'LISTEN news'; END $$", "SELECT 1", "UNLISTEN news", "LISTEN"),
    ("PREPARE p AS SELECT '\u{e9}'", "EXECUTE p", "DEALLOCATE p", "PREPARE"),
    (
        "DO $$ BEGIN CREATE TEMP TABLE t (x int); END $$",
        "SELECT count(*) FROM t",
        "DO $$ BEGIN DROP TABLE t; END $$",
        "temporary objects",
    ),
];

#[test]
fn what_cannot_follow_binds_the_server_for_as_long_as_it_is_there() {
    let (_database, pooler) = turning();
    let mut other = pooler.connect();
    for (binds, uses, ends, reason) in BOUND {
        let mut client = pooler.connect();
        client.sql(binds);
        let own = backend(&mut client);
        for _ in 0..4 {
            client.sql(uses);
            assert_eq!(backend(&mut client), own, "{binds}");
            assert_ne!(backend(&mut other), own, "{binds}");
        }
        let pinned = pooler.pinned();
        assert_eq!(pinned, [reason], "{binds}");
        client.sql(ends);
        assert!(pooler.pinned().is_empty(), "{binds}: still pinned");
        let servers: Vec<String> = (0..4).map(|_| backend(&mut client)).collect();
        assert!(servers.iter().any(|server| *server != own), "{binds}: still bound behind {ends}");
    }
}

/// What comes and goes in between does not hide that another is still there.
#[test]
fn each_of_several_things_binds_the_server_by_itself() {
    let database = Database::new();
    database.sql(&format!("CREATE ROLE ruler SUPERUSER LOGIN PASSWORD '{}'", password_of("ruler")));
    let pooler = Setup::new(&database)
        .setting("default_pool_size = 3\nserver_round_robin = true\nworkers = 1")
        .section(&format!("[users.ruler]\npassword = \"{}\"", password_of("ruler")))
        .start();
    let others = [
        ("SELECT pg_advisory_lock(7)", "SELECT pg_advisory_unlock(7)", "advisory lock"),
        ("SET SESSION AUTHORIZATION app", "RESET SESSION AUTHORIZATION", "SESSION AUTHORIZATION"),
        ("SET work_mem = '7MB'", "RESET work_mem", ""),
    ];
    let reason_now = || pooler.pinned().concat();
    for (binds, uses, ends, reason) in BOUND.iter().filter(|(.., reason)| *reason != "advisory lock") {
        for (begin, end, other) in others {
            let case = format!("{binds}, {begin}");
            let mut client = pooler.connect_as("ruler");
            for sql in [*binds, begin, "SELECT 1", end, "SELECT 1"] {
                client.sql(sql);
            }
            assert_eq!(reason_now(), *reason, "{case}");
            for sql in [*uses, *uses, *ends, begin, *binds, *ends] {
                client.sql(sql);
            }
            assert_eq!(reason_now(), other, "{case}");
            client.sql(end);
            assert_eq!(reason_now(), "", "{case}");
        }
    }
}

#[test]
fn nothing_is_left_behind_by_a_client_that_is_gone() {
    let (database, pooler) = turning();
    for (binds, ..) in BOUND {
        let mut client = pooler.connect();
        client.sql(binds);
        let own = backend(&mut client);
        drop(client);
        pooler.wait_for_pool("sv_idle", 3);
        let left =
            format!("SELECT (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = {own})");
        assert_eq!(database.sql(&left), ["0"], "{binds}");
        let mut next = pooler.connect();
        for _ in 0..3 {
            let state = "SELECT count(*) FROM pg_class WHERE relnamespace = pg_my_temp_schema()";
            assert_eq!(next.sql(state), ["0"], "{binds}");
            let more = "SELECT (SELECT count(*) FROM pg_prepared_statements WHERE from_sql) \
                        + (SELECT count(*) FROM pg_cursors WHERE is_holdable) \
                        + (SELECT count(*) FROM pg_listening_channels())";
            assert_eq!(next.sql(more), ["0"], "{binds}");
        }
    }
    // Without waiting for the answer.
    for sql in ["SET work_mem = '7MB'", "SELECT set_config('app.tenant', 'gone', false)", "SET ROLE NONE"] {
        let mut client = pooler.connect();
        client.send(&query(sql));
        client.disconnect();
    }
    pooler.wait_for_pool("sv_idle", 3);
    let mut next = pooler.connect();
    for _ in 0..6 {
        assert_eq!(next.sql("SHOW work_mem"), ["4MB"]);
        assert_ne!(next.sql("SELECT current_setting('app.tenant', true)"), ["gone"]);
    }
}

/// A setting whose name is not told keeps the server until the client leaves.
/// FunctionCall names a function by its number (pg_proc.dat).
#[test]
fn what_function_calls_leave_is_noticed() {
    const SET_CONFIG: u32 = 2078;
    const ADVISORY_LOCK: u32 = 2880;
    const ADVISORY_UNLOCK: u32 = 2884;
    let (_database, pooler) = turning();
    let mut other = pooler.connect();
    for (binds, ends, reason) in [
        (function_call(ADVISORY_LOCK, &["77"]), function_call(ADVISORY_UNLOCK, &["77"]), "advisory lock"),
        (function_call(SET_CONFIG, &["app.tenant", "a", "f"]), query("DISCARD ALL"), "setting"),
    ] {
        let mut client = pooler.connect();
        client.send(&binds);
        client.ready(1);
        assert_eq!(pooler.pinned(), [reason]);
        for _ in 0..4 {
            assert_eq!(other.sql("SELECT current_setting('app.tenant', true) = 'a'"), ["NULL"]);
        }
        client.send(&ends);
        client.ready(1);
        assert!(pooler.pinned().is_empty(), "{reason}");
    }
}

/// Names pass as they are: nobody else's statement has them, and what they set is noticed.
#[test]
fn statements_that_are_not_tracked_bind_the_server() {
    let database = Database::new();
    let pooler = Pooler::of(
        &database,
        &["default_pool_size = 3", "server_round_robin = true", "workers = 1", "max_prepared_statements = 0"],
    );
    let (mut one, mut two, mut other) = (pooler.connect(), pooler.connect(), pooler.connect());
    let run = |client: &mut Raw, messages: &[Vec<u8>]| {
        client.send_all(messages);
        let frames = client.ready(1);
        assert!(frames.iter().all(|frame| frame.tag != b'E'), "{frames:?}");
        frames.iter().filter(|frame| frame.tag == b'D').map(|row| row.row()).collect::<Vec<_>>()
    };
    run(&mut one, &[parse("x", "SELECT 'one'"), parse("set", "SET app.tenant = 'a'"), sync()]);
    run(&mut two, &[parse("x", "SELECT 'two'"), sync()]);
    for _ in 0..3 {
        assert_eq!(run(&mut one, &[bind("x", &[]), execute(), sync()]), ["one"]);
        assert_eq!(run(&mut two, &[bind("x", &[]), execute(), sync()]), ["two"]);
    }
    assert_eq!(pooler.pinned(), ["PREPARE", "PREPARE"]);
    run(&mut one, &[bind("set", &[]), execute(), sync()]);
    run(&mut one, &[close("x"), close("set"), sync()]);
    run(&mut two, &[close("x"), sync()]);
    assert!(pooler.pinned().is_empty());
    for _ in 0..4 {
        assert_eq!(state(&mut other)[0].split('|').nth(2), Some("none"));
        assert_eq!(state(&mut one)[0].split('|').nth(2), Some("a"));
    }
}

/// Looking now and then: what is found is logged with the texts, without their values, and counted.
#[test]
fn audit_finds_what_no_text_told() {
    let database = Database::new();
    database.sql(
        "CREATE FUNCTION hides(text) RETURNS text LANGUAGE sql AS \
         $$ SELECT set_config('work_mem', '7MB', false) $$",
    );
    let options =
        ["default_pool_size = 1", "workers = 1", "session_functions = \"trust\"", "session_audit = 2"];
    let pooler = Pooler::of(&database, &options);
    let mut client = pooler.connect();
    for _ in 0..2 {
        client.sql("SELECT hides('a secret')");
    }
    pooler.wait_for_log(
        "a transaction has left settings (work_mem), which no text of it told: SELECT hides('')",
    );
    assert!(!pooler.log().contains("a secret"));
    let audit = pooler.console("SHOW AUDIT").remove(0);
    let count = |name: &str| audit.iter().find(|(n, _)| n == name).unwrap().1.parse::<u32>().unwrap();
    assert!(count("questions") >= 1 && count("surprises") == 1, "{audit:?}");
    // What was left follows the client, and nobody meets it.
    assert_eq!(client.sql("SHOW work_mem"), ["7MB"]);
    assert_eq!(pooler.connect().sql("SHOW work_mem"), ["4MB"]);
}

/// DISCARD ALL does not clear it: nobody else gets the server.
#[test]
fn what_nobody_can_clear_goes_with_its_server() {
    let (database, pooler) = turning();
    let mut client = pooler.connect();
    client.sql("SELECT setseed(0.5)");
    let own = backend(&mut client);
    client.sql("DISCARD ALL");
    assert_eq!(
        (backend(&mut client), pooler.pinned()),
        (own.clone(), vec!["what outlives DISCARD ALL".to_owned()])
    );
    drop(client);
    database.wait_for(&format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {own}"), &["0"]);
}

#[test]
fn setting_of_unknown_name_binds_the_server() {
    let (_database, pooler) = turning();
    let (mut client, mut other) = (pooler.connect(), pooler.connect());
    client.send_all(&[
        parse("", "SELECT set_config($1, $2, false)"),
        bind("", &[Some("app.secret"), Some("mine")]),
        execute(),
        sync(),
    ]);
    client.ready(1);
    let secret = "SELECT current_setting('app.secret', true)";
    for _ in 0..4 {
        assert_eq!(client.sql(secret), ["mine"]);
        assert_ne!(other.sql(secret), ["mine"]);
    }
    drop(client);
    pooler.wait_for_pool("sv_idle", 3);
    for _ in 0..6 {
        assert_ne!(other.sql(secret), ["mine"]);
    }
}

/// The question about what is left must not be hit by a cancel request, nor is it told of.
#[test]
fn questions_of_poolers_own_do_not_show() {
    let (_database, pooler) = turning();
    let mut client = pooler.connect();
    client.send(&query("SET work_mem = '7MB'"));
    let tags: Vec<u8> = client.ready(1).iter().map(|frame| frame.tag).collect();
    assert_eq!(tags, b"CZ");
    client.send_all(&[query("SELECT set_config('app.tenant', 'a', false)"), query("SELECT 1")]);
    let tags: Vec<u8> = client.ready(2).iter().map(|frame| frame.tag).collect();
    assert_eq!(tags, b"TDCZTDCZ");
    client.silent(Duration::from_millis(50));
}

/// What functions do to the session is found by asking always, and told to the operator.
#[test]
fn what_functions_hide_is_found_by_asking_always() {
    let database = Database::new();
    let options = [
        "default_pool_size = 3",
        "server_round_robin = true",
        "workers = 1",
        "session_state = \"always\"",
        "session_functions = \"trust\"",
    ];
    let pooler = Pooler::of(&database, &options);
    database.sql(
        "CREATE FUNCTION hides() RETURNS text LANGUAGE sql AS \
         $$ SELECT set_config('work_mem', '7MB', false) $$; GRANT ALL ON SCHEMA public TO app",
    );
    database.sql(
        "CREATE FUNCTION keeps() RETURNS text LANGUAGE plpgsql AS \
         $$ BEGIN CREATE TEMP TABLE t (x int); RETURN 'kept'; END $$",
    );
    let (mut client, mut other) = (pooler.connect(), pooler.connect());
    client.sql("SELECT hides()");
    for _ in 0..6 {
        assert_eq!(
            (client.sql("SHOW work_mem"), other.sql("SHOW work_mem")),
            (vec!["7MB".into()], vec!["4MB".into()])
        );
    }
    pooler.wait_for_log("a transaction has left settings (work_mem), which no text of it told");
    client.sql("SELECT keeps()");
    assert_eq!(pooler.pinned(), ["temporary objects"]);
    for _ in 0..6 {
        assert_eq!(client.sql("SELECT count(*) FROM t"), ["0"]);
        assert!(other.try_sql("SELECT count(*) FROM t").is_err());
    }
}

// H45: a role that is dropped and made anew is another one, on servers too that have had the former one.
#[test]
fn role_is_the_one_that_has_the_name_now() {
    let database = Database::new();
    let pooler = Pooler::of(&database, &["default_pool_size = 2", "workers = 1"]);
    let role = format!("{}_worker", database.name);
    let make = format!(
        "CREATE ROLE {role}; GRANT {role} TO app; CREATE TABLE for_worker AS SELECT 'seen' AS word; GRANT SELECT ON for_worker TO {role}"
    );
    database.sql(&make);
    let (set, read) = (format!("SET ROLE {role}"), "SELECT word, current_user FROM for_worker");
    let mut holder = pooler.connect();
    holder.sql("BEGIN");
    let mut first = pooler.connect();
    first.sql(&set);
    assert_eq!(first.sql(read), [format!("seen|{role}")]);
    drop(first);
    database.sql(&format!("DROP TABLE for_worker; DROP ROLE {role}; {make}"));
    holder.sql("COMMIT");
    // On the server that has just become free.
    let mut second = pooler.connect();
    second.sql(&set);
    holder.sql("BEGIN");
    // On the other one.
    assert_eq!(second.sql(read), [format!("seen|{role}")]);
    holder.sql("COMMIT");
    second.sql("RESET ROLE");
    database.sql(&format!("DROP TABLE for_worker; DROP ROLE {role}"));
}
