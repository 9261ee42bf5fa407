//! SQL PREPARE: what a client has prepared is there on every server, and nobody else's (H16, S36).

use crate::support::{
    database::Database,
    msg::*,
    pooler::{Pooler, Setup},
    raw::Raw,
};

/// Servers are taken in turn.
fn turning() -> (Database, Pooler) {
    let database = Database::new();
    database
        .sql("CREATE TABLE things (x int); INSERT INTO things VALUES (1), (2); GRANT ALL ON things TO app");
    let setting = "default_pool_size = 3\nserver_round_robin = true\nworkers = 1";
    let pooler = Setup::new(&database).setting(setting).start();
    let mut clients: Vec<Raw> = (0..3).map(|_| pooler.connect()).collect();
    ["BEGIN", "COMMIT"].iter().for_each(|sql| clients.iter_mut().for_each(|client| drop(client.sql(sql))));
    pooler.wait_for_pool("sv_idle", 3);
    (database, pooler)
}

const MINE: &str = "SELECT name FROM pg_prepared_statements WHERE from_sql ORDER BY name";

fn sqlstate(client: &mut Raw, sql: &str) -> String {
    client.try_sql(sql).unwrap_err().field(b'C')
}

#[test]
fn prepared_texts_follow_their_client_and_nobody_else() {
    let (_database, pooler) = turning();
    let mut clients: Vec<Raw> = (0..3).map(|_| pooler.connect()).collect();
    let mut stranger = pooler.connect();
    for (n, client) in clients.iter_mut().enumerate() {
        client.sql(&format!("PREPARE p (int) AS SELECT {n} + $1"));
        client.sql(&format!("prepare \"Odd \"\"name\"\"\" AS SELECT 'odd {n}'; "));
    }
    assert_eq!(pooler.pinned().len(), 0);
    for round in 0..4 {
        for (n, client) in clients.iter_mut().enumerate() {
            assert_eq!(client.sql(&format!("EXECUTE p ({round})")), [(n + round).to_string()]);
            assert_eq!(client.sql("EXECUTE \"Odd \"\"name\"\"\""), [format!("odd {n}")]);
            client.send_all(&[parse("", "EXECUTE p (0)"), bind("", &[]), execute(), sync()]);
            assert!(client.ready(1).iter().any(|frame| frame.tag == b'D' && frame.row() == n.to_string()));
            assert_eq!(client.sql(MINE), ["Odd \"name\"", "p"]);
        }
        assert_eq!(sqlstate(&mut stranger, "EXECUTE p (1)"), "26000");
        assert!(stranger.sql(MINE).is_empty());
    }
    // Nor is a server kept where they were prepared again.
    for _ in 0..4 {
        clients[0].sql("SELECT 1");
    }
    assert_eq!(pooler.pinned().len(), 0);
    clients[0].sql("DEALLOCATE p");
    for _ in 0..4 {
        assert_eq!(sqlstate(&mut clients[0], "EXECUTE p (1)"), "26000");
        assert_eq!(clients[0].sql(MINE), ["Odd \"name\""]);
        assert_eq!(clients[1].sql("EXECUTE p (1)"), ["2"]);
    }
    clients[1].sql("DEALLOCATE ALL");
    clients[2].sql("DISCARD ALL");
    for client in &mut clients[1..] {
        for _ in 0..4 {
            assert!(client.sql(MINE).is_empty());
        }
    }
    // The name is free again.
    clients[1].sql("PREPARE p AS SELECT 'new'");
    for _ in 0..4 {
        assert_eq!(clients[1].sql("EXECUTE p"), ["new"]);
    }
}

/// PREPARE is not undone by a rollback (PostgreSQL docs, PREPARE), but what fails is not done.
#[test]
fn rollbacks_and_errors_leave_what_postgresql_leaves() {
    let (database, pooler) = turning();
    let mut direct = database.connect();
    let mut pooled = pooler.connect();
    for script in [
        &["BEGIN", "PREPARE a AS SELECT 1", "ROLLBACK", "EXECUTE a"][..],
        &["BEGIN", "PREPARE b AS SELECT 1", "SELECT 1/0", "EXECUTE b", "ROLLBACK", "EXECUTE b"],
        &["PREPARE c AS SELECT 1/0", "EXECUTE c", "PREPARE c AS SELECT 1", "EXECUTE c"],
        &["PREPARE d AS SELECT * FROM nowhere", "EXECUTE d"],
        &["BEGIN", "PREPARE e AS SELECT 1", "DEALLOCATE e", "PREPARE e AS SELECT 2", "COMMIT", "EXECUTE e"],
        &["PREPARE f AS SELECT 1; SELECT 2", "EXECUTE f", "DEALLOCATE f"],
        &["DO $$ BEGIN EXECUTE 'PREPARE g AS SELECT 3'; END $$", "EXECUTE g"],
        &["EXPLAIN (COSTS OFF) EXECUTE g", "CREATE TEMP TABLE made AS EXECUTE g", "DROP TABLE made"],
    ] {
        for sql in script {
            let plain = |answer: Result<Vec<String>, Frame>| answer.map_err(|error| error.field(b'C'));
            assert_eq!(plain(pooled.try_sql(sql)), plain(direct.try_sql(sql)), "{sql}");
        }
        for _ in 0..3 {
            assert_eq!(pooled.sql(MINE), direct.sql(MINE), "{script:?}");
        }
    }
    assert_eq!(pooler.pinned().len(), 0);
}

/// What cannot be prepared again is an error where it is executed, costs nothing else, and is not gone.
#[test]
fn statement_that_cannot_be_prepared_again_is_an_error() {
    let (database, pooler) = turning();
    let mut client = pooler.connect();
    client.sql("PREPARE p AS SELECT count(*) FROM things");
    client.sql("PREPARE q AS SELECT 'still there'");
    assert_eq!(client.sql("EXECUTE p"), ["2"]);
    database.sql("DROP TABLE things");
    for _ in 0..4 {
        // Also where the server never had it.
        let error = client.try_sql("EXECUTE p").unwrap_err();
        assert_eq!(
            (error.field(b'C'), error.field(b'M')),
            ("42P01".into(), "relation \"things\" does not exist".into())
        );
        // In the text of PREPARE.
        assert_eq!(error.field(b'P'), "35");
        assert_eq!(client.sql("EXECUTE q"), ["still there"]);
        client.sql("DO $$ BEGIN PERFORM 1; END $$");
        client.sql("PREPARE r AS SELECT 1; DEALLOCATE r");
    }
    assert_eq!(sqlstate(&mut client, "BEGIN; SELECT 1/0"), "22012");
    client.sql("ROLLBACK");
    database.sql("CREATE TABLE things (x int); GRANT ALL ON things TO app");
    for _ in 0..4 {
        assert_eq!(client.sql("EXECUTE p"), ["0"]);
    }
    database.sql("DROP TABLE things");
    assert_eq!(sqlstate(&mut client, "EXECUTE p"), "42P01");
    client.sql("DEALLOCATE ALL");
    for _ in 0..4 {
        assert_eq!(sqlstate(&mut client, "EXECUTE p"), "26000");
    }
}

/// Nor on a server that stays with its client because of something else.
#[test]
fn statement_that_is_missing_where_its_client_stays_is_prepared_when_it_can_be() {
    let (_database, pooler) = turning();
    let mut client = pooler.connect();
    client.sql("CREATE TEMP TABLE mine (x int); PREPARE p AS SELECT count(*) FROM mine");
    assert_eq!(client.sql("EXECUTE p"), ["0"]);
    client.sql("DROP TABLE mine");
    for round in 0..4 {
        assert_eq!(sqlstate(&mut client, "EXECUTE p"), "42P01");
        // Wherever that is.
        client.sql("CREATE TEMP TABLE mine AS SELECT 1 AS x");
        for _ in 0..2 {
            assert_eq!(client.sql("EXECUTE p"), ["1"], "{round}");
        }
        client.sql("DROP TABLE mine");
    }
}

/// What literals mean is said by settings: those of the time when they were prepared.
#[test]
fn settings_that_change_keep_the_server() {
    let (_database, pooler) = turning();
    let mut client = pooler.connect();
    client.sql("SET DateStyle = 'ISO, DMY'");
    client.sql("PREPARE p AS SELECT date '01/02/2020'");
    for _ in 0..4 {
        assert_eq!(client.sql("EXECUTE p"), ["2020-02-01"]);
    }
    assert_eq!(pooler.pinned().len(), 0);
    client.sql("SET DateStyle = 'ISO, MDY'");
    for _ in 0..4 {
        assert_eq!(client.sql("EXECUTE p"), ["2020-02-01"]);
    }
    client.sql("DEALLOCATE p");
    assert_eq!(pooler.pinned().len(), 0);
}

#[test]
fn too_many_bind_the_server() {
    let (_database, pooler) = turning();
    let mut client = pooler.connect();
    for n in 0..17 {
        client.sql(&format!("PREPARE p{n} AS SELECT {n}"));
    }
    assert_eq!(pooler.pinned().len(), 1);
    for n in 0..17 {
        assert_eq!(client.sql(&format!("EXECUTE p{n}")), [n.to_string()]);
    }
    client.sql("DEALLOCATE p0");
    assert_eq!(pooler.pinned().len(), 0);
    for _ in 0..4 {
        assert_eq!(client.sql("EXECUTE p16"), ["16"]);
    }
}
