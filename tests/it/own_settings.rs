//! Settings of pooler's own in transactions: set, local and undone as PostgreSQL does with its settings.
//!
//! Covers H1, H5, H18, S58.

use pooler::demo::process::wait_until;

use crate::{
    routing_edges::behind,
    routing_table::{nodes, start},
    support::{
        database::password_of,
        msg::*,
        pooler::Pooler,
        raw::{PATIENCE, Raw},
        replicated::{DATABASE, Replicated, marker},
        truth::client,
    },
};

/// A setting of pooler's, and the one that stands for it at PostgreSQL.
pub(crate) const OWN: &str = "pooler.route";
pub(crate) const OTHER: &str = "tested.route";

/// Steps, each sent when the one before has been answered. `$` is the setting; what `|` parts comes in one batch of the
/// extended protocol.
const SCRIPTS: &[&[&str]] = &[
    &["BEGIN", "SET $ = 'primary'", "SHOW $", "COMMIT", "SHOW $"],
    &["BEGIN", "SET $ = 'primary'", "SHOW $", "ROLLBACK", "SHOW $"],
    &["BEGIN", "SELECT 1", "SET $ = 'primary'", "SHOW $", "COMMIT", "SHOW $"],
    &["BEGIN", "SELECT 1", "SET $ = 'primary'", "SELECT 1", "ROLLBACK", "SHOW $"],
    &["BEGIN READ ONLY", "SET $ = 'replica'", "SELECT 1", "ABORT", "SHOW $"],
    // A transaction that has failed.
    &["BEGIN", "SET $ = 'primary'", "SELECT 1/0", "COMMIT", "SHOW $"],
    &["BEGIN", "SET $ = 'primary'", "SELECT 1/0", "SELECT 1", "ROLLBACK", "SHOW $"],
    &["BEGIN", "SET $ = 'primary'", "INSERT INTO once VALUES (1)", "COMMIT", "SHOW $"],
    &["BEGIN", "INSERT INTO once VALUES (1)", "SET $ = 'primary'", "SHOW $", "COMMIT", "SHOW $"],
    // SET LOCAL.
    &["BEGIN", "SET LOCAL $ = 'primary'", "SHOW $", "COMMIT", "SHOW $"],
    &["BEGIN READ ONLY", "SELECT 1", "SET LOCAL $ = 'primary'", "SHOW $", "SELECT 1", "COMMIT", "SHOW $"],
    &["BEGIN", "SET LOCAL $ = 'primary'", "SHOW $", "ROLLBACK", "SHOW $"],
    &["SET LOCAL $ = 'primary'", "SHOW $", "BEGIN", "SHOW $", "COMMIT", "SHOW $"],
    &["SET LOCAL $ TO DEFAULT", "SET $ = 'replica'", "SET LOCAL $ TO DEFAULT", "SHOW $"],
    &["BEGIN", "SET $ = 'primary'", "SET LOCAL $ = 'replica'", "SHOW $", "COMMIT", "SHOW $"],
    &["BEGIN", "SET LOCAL $ = 'primary'", "SET $ = 'replica'", "SHOW $", "COMMIT", "SHOW $"],
    // Back to what it was.
    &["SET $ = 'primary'", "BEGIN", "RESET $", "SHOW $", "ROLLBACK", "SHOW $", "RESET $", "SHOW $"],
    &["SET $ = 'primary'", "BEGIN", "SET LOCAL $ TO DEFAULT", "SHOW $", "COMMIT", "SHOW $"],
    &["SET $ = 'primary'", "BEGIN", "SET $ TO DEFAULT", "SHOW $", "COMMIT", "SHOW $"],
    &["SET $ = 'primary'", "RESET ALL", "SHOW $"],
    &["SET $ = 'primary'", "DISCARD ALL", "SHOW $"],
    &["SET $ = 'primary'", "BEGIN", "RESET ALL", "SHOW $", "ROLLBACK", "SHOW $"],
    &["SET $ = 'primary'", "BEGIN", "SET LOCAL $ = 'replica'", "RESET ALL", "SHOW $", "COMMIT", "SHOW $"],
    &["SET $ = 'primary'", "BEGIN", "DISCARD ALL", "ROLLBACK", "SHOW $"],
    &["SET $ = 'primary'", "RESET statement_timeout", "SHOW $"],
    // The next transaction is another one.
    &[
        "BEGIN",
        "SET $ = 'primary'",
        "COMMIT AND CHAIN",
        "SET LOCAL $ = 'replica'",
        "SHOW $",
        "ROLLBACK",
        "SHOW $",
    ],
    &["BEGIN", "SET LOCAL $ = 'primary'", "COMMIT AND CHAIN", "SHOW $", "COMMIT", "SHOW $"],
    &["BEGIN", "SET $ = 'primary'", "COMMIT", "BEGIN", "SELECT 1/0", "ROLLBACK", "SHOW $"],
    &["BEGIN", "SET $ = 'primary'", "COMMIT", "SELECT 1/0", "ROLLBACK", "SHOW $"],
    // Savepoints that were there before.
    &[
        "BEGIN",
        "SAVEPOINT a",
        "SELECT 1/0",
        "ROLLBACK TO a",
        "SET $ = 'primary'",
        "SHOW $",
        "COMMIT",
        "SHOW $",
    ],
    &[
        "BEGIN",
        "SET $ = 'primary'",
        "SAVEPOINT a",
        "SELECT 1/0",
        "ROLLBACK TO a",
        "SHOW $",
        "COMMIT",
        "SHOW $",
    ],
    &[
        "BEGIN",
        "SET $ = 'primary'",
        "SAVEPOINT a",
        "SELECT 1/0",
        "ROLLBACK TO a",
        "SHOW $",
        "ROLLBACK",
        "SHOW $",
    ],
    // Without a block.
    &["SET $ = 'primary'", "SELECT 1/0", "SHOW $"],
];

/// Queries with several statements.
const SEVERAL: &[&[&str]] = &[
    &["BEGIN", "SET $ = 'primary'", "COMMIT; SELECT 1/0", "SHOW $"],
    &["BEGIN", "SET $ = 'primary'", "ROLLBACK; SELECT 1", "SHOW $"],
    &["BEGIN", "SET $ = 'primary'", "COMMIT; BEGIN", "ROLLBACK", "SHOW $"],
    &["BEGIN", "SET $ = 'primary'", "ROLLBACK; BEGIN; SELECT 1; COMMIT", "SHOW $"],
    &["BEGIN", "SET $ = 'primary'", "SAVEPOINT a; SELECT 1; ROLLBACK TO a; COMMIT", "SHOW $"],
];

/// Batches: what no block is begun for is undone by an error up to Sync.
const BATCHES: &[&[&str]] = &[
    &["SET $ = 'primary'|SHOW $", "SHOW $"],
    &["SET $ = 'primary'|SELECT 1/0", "SHOW $"],
    &["SET $ = 'primary'|SELECT 1|SELECT 1/0", "SHOW $"],
    &["SET $ = 'primary'|SELECT 1", "SHOW $", "SELECT 1/0", "SHOW $"],
    &["SET $ = 'primary'|INSERT INTO once VALUES (1)", "SHOW $"],
    &["SET $ = 'primary'|RESET ALL", "SHOW $"],
    &["BEGIN|SET $ = 'primary'", "SHOW $", "ROLLBACK", "SHOW $"],
    &["BEGIN|SET $ = 'primary'|COMMIT", "SHOW $"],
    &["BEGIN|SET $ = 'primary'|SELECT 1|ROLLBACK", "SHOW $"],
    &["BEGIN|SET LOCAL $ = 'primary'|SHOW $|SELECT 1|COMMIT", "SHOW $"],
    &["SET $ = 'primary'|BEGIN", "SHOW $", "ROLLBACK", "SHOW $"],
    &["SET $ = 'primary'|BEGIN|SELECT 1", "SHOW $", "COMMIT", "SHOW $"],
    &["BEGIN", "SET $ = 'primary'|SELECT 1/0", "COMMIT", "SHOW $"],
    &["BEGIN", "SET $ = 'primary'|COMMIT|SELECT 1/0", "SHOW $"],
];

/// All that comes back, with the name of pooler's setting.
fn transcript(client: &mut Raw, setting: &str, script: &[&str], extended: bool) -> Vec<String> {
    let mut lines = Vec::new();
    for step in script {
        let sql = step.replace('$', setting);
        let one = |sql: &str| [parse("", sql), bind("", &[]), describe_portal(""), execute()].concat();
        let request = match extended {
            true => [sql.split('|').flat_map(one).collect(), sync()].concat(),
            false => query(&sql),
        };
        client.send(&request);
        lines.push(format!("> {step}"));
        lines.extend(client.ready(1).iter().map(|frame| format!("{frame:?}").replace(setting, "$")));
    }
    lines
}

/// A client at the primary itself, whose setting is at its start what pooler's is.
pub(crate) fn plain(cluster: &Replicated) -> Raw {
    let port = cluster.node(cluster.primary()).port;
    let options = format!("-c {OTHER}=auto");
    Raw::login_with(port, "app", DATABASE, &password_of("app"), &[("options", &options)])
}

fn undone(pooler: &Pooler, cluster: &Replicated, script: &[&str], extended: bool) {
    let expected = transcript(&mut plain(cluster), OTHER, script, extended);
    let found = transcript(&mut client(pooler, "app"), OWN, script, extended);
    assert_eq!(found, expected, "{script:?}, extended: {extended}");
}

#[test]
fn settings_in_transactions_are_undone_as_at_postgresql() {
    let cluster = nodes();
    cluster.sql(0, "CREATE TABLE IF NOT EXISTS once (x int UNIQUE DEFERRABLE INITIALLY DEFERRED)");
    cluster.sql(0, "TRUNCATE once; INSERT INTO once VALUES (1); GRANT ALL ON once TO app");
    cluster.catch_up_all();
    let pooler = start(&cluster, |setup| setup);
    for script in SCRIPTS {
        [false, true].iter().for_each(|extended| undone(&pooler, &cluster, script, *extended));
    }
    SEVERAL.iter().for_each(|script| undone(&pooler, &cluster, script, false));
    BATCHES.iter().for_each(|script| undone(&pooler, &cluster, script, true));
    // Where a client keeps its server.
    let session = cluster.setup(&[1, 0, 2]).setting("pool_mode = \"session\"").start();
    for script in SCRIPTS.iter().chain(&BATCHES[..5]) {
        undone(&session, &cluster, script, true);
    }
}

/// What was asked for at login is what RESET brings back.
#[test]
fn settings_go_back_to_what_was_asked_for_at_login() {
    let cluster = nodes();
    let pooler = start(&cluster, |setup| setup);
    let login = |port: u16, setting: &str| {
        let options = format!("-c {setting}=primary");
        Raw::login_with(port, "app", DATABASE, &password_of("app"), &[("options", &options)])
    };
    for reset in ["RESET $", "RESET ALL", "SET $ TO DEFAULT", "DISCARD ALL"] {
        let script = ["SHOW $", "SET $ = 'replica'", "SHOW $", reset, "SHOW $"];
        let mut direct = login(cluster.node(cluster.primary()).port, OTHER);
        let expected = transcript(&mut direct, OTHER, &script, false);
        assert_eq!(transcript(&mut login(pooler.port, OWN), OWN, &script, false), expected, "{reset}");
    }
}

/// An error of pooler's own, and a transaction that is lost with its server.
#[test]
fn settings_of_what_pooler_itself_has_failed_are_undone() {
    let cluster = nodes();
    let pooler = start(&cluster, |setup| setup);
    let mut client = client(&pooler, "app");
    let wrong = "SET pooler.route = 'nonsense'";
    let one = |sql: &str| [parse("", sql), bind("", &[]), execute()].concat();
    for steps in [&["BEGIN"][..], &["BEGIN", "SELECT 1"], &["BEGIN", "UPDATE target SET x = 4 WHERE id = 3"]]
    {
        for end in ["ROLLBACK", "COMMIT"] {
            steps.iter().for_each(|sql| drop(client.sql(sql)));
            client.sql("SET pooler.route = primary");
            assert_eq!(client.try_sql(wrong).unwrap_err().field(b'C'), "22023");
            client.sql(end);
            assert_eq!(client.sql("SHOW pooler.route"), ["auto"], "{steps:?} {end}");
        }
    }
    client.send_all(&[one("SET pooler.route = primary"), one(wrong), sync()]);
    client.ready(1);
    assert_eq!(client.sql("SHOW pooler.route"), ["auto"]);
    // In one batch with what no server may see.
    client.send_all(&[one("SET pooler.route = primary"), one("SELECT 1"), one(wrong), sync()]);
    client.ready(1);
    assert_eq!(client.sql("SHOW pooler.route"), ["auto"]);
    for commits in [false, true] {
        client.sql("BEGIN");
        client.sql("UPDATE target SET x = 4 WHERE id = 3");
        client.sql("SET pooler.route = primary");
        let ends = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity \
                    WHERE pid <> pg_backend_pid() AND state = 'idle in transaction'";
        cluster.admin(0).sql(ends);
        if commits {
            assert!(client.try_sql("COMMIT").is_err());
        } else {
            assert!(client.try_sql("SELECT 1").is_err());
            client.sql("ROLLBACK");
        }
        assert_eq!(client.sql("SHOW pooler.route"), ["auto"], "{commits}");
    }
}

/// A read that fails on a replica and is run again on the primary has not failed.
#[test]
fn settings_outlive_a_read_that_is_run_again() {
    let cluster = nodes();
    let pooler = start(&cluster, |setup| setup);
    let mut client = client(&pooler, "app");
    let one = |sql: &str| [parse("", sql), bind("", &[]), execute()].concat();
    cluster.sql(0, "DROP TABLE IF EXISTS unseen");
    cluster.catch_up_all();
    let count = "SELECT count(*) FROM unseen";
    let again = behind(&cluster, || {
        cluster.sql(0, "CREATE TABLE unseen (x int); GRANT ALL ON unseen TO app");
        // Once pooler knows the table, which the replicas do not.
        wait_until(PATIENCE, || {
            client.sql("RESET pooler.read_consistency");
            client.send_all(&[one("SET pooler.read_consistency = session"), one(count), sync()]);
            let frames = client.ready(1);
            assert!(frames.iter().all(|frame| frame.tag != b'E'), "{frames:?}");
            assert_eq!(client.sql("SHOW pooler.read_consistency"), ["session"]);
            let routes = pooler.console("SHOW ROUTES");
            routes.iter().flatten().any(|(_, value)| value == "primary: again").then_some(())
        })
    });
    assert!(again.is_some(), "no read was run again: {:?}", pooler.console("SHOW ROUTES"));
    cluster.sql(0, "DROP TABLE unseen");
}

/// What SET LOCAL says is heeded in its transaction, and not behind it.
#[test]
fn local_route_is_for_one_transaction() {
    let cluster = nodes();
    let pooler = start(&cluster, |setup| setup);
    let mut client = client(&pooler, "app");
    let ran = |client: &mut Raw, name: &str| {
        client.sql(&format!("SELECT count(*) FROM item {}", marker(name)));
        cluster.runs().ran_on(name).iter().map(|&node| node == 0).collect::<Vec<_>>()
    };
    for round in 0..3 {
        client.sql("BEGIN READ ONLY");
        client.sql("SET LOCAL pooler.route = primary");
        assert_eq!(ran(&mut client, &format!("local {round}")), [true]);
        client.sql("COMMIT");
        assert_eq!(ran(&mut client, &format!("behind local {round}")), [false]);
    }
}
