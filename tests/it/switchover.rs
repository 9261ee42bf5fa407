//! A switchover as operators of PgBouncer script it: psql at the console, and the ini. Clients notice a pause.

use std::process::{Child, Command, Stdio};

use pooler::demo::{cluster::Binaries, process::wait_until};

use crate::{
    pgbouncer::{Stage, err, out},
    support::{
        database::password_of,
        raw::{PATIENCE, Raw},
        replicated::{DATABASE, Replicated},
    },
};

/// A primary and a replica, and what stands in front of them.
struct Rehearsal {
    cluster: Replicated,
    stage: Stage,
}

impl Rehearsal {
    fn new(pool_mode: &str) -> Self {
        let cluster = Replicated::start(1, &[]);
        cluster.connect(0).sql("CREATE TABLE written (id int, at timestamptz DEFAULT now())");
        let stage = Stage::new();
        stage.file(
            "userlist.txt",
            &format!("\"app\" \"{}\"\n\"admin\" \"{}\"\n", password_of("app"), password_of("admin")),
        );
        let rehearsal = Self { cluster, stage };
        rehearsal.write_ini(pool_mode, rehearsal.cluster.node(0).port);
        rehearsal
    }

    fn write_ini(&self, pool_mode: &str, port: u16) {
        self.stage.file(
            "pgbouncer.ini",
            &format!(
                "[databases]\n{DATABASE} = host=127.0.0.1 port={port}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
                 listen_port = @PORT@\nunix_socket_dir =\nauth_type = scram-sha-256\nauth_file = @DIR@/userlist.txt\n\
                 admin_users = admin\npool_mode = {pool_mode}\ndefault_pool_size = 3\n"
            ),
        );
    }

    /// As a script says it; the answer.
    fn console(&self, command: &str) -> String {
        let output = self.stage.psql("127.0.0.1", "admin", "pgbouncer", &password_of("admin"), command);
        assert!(output.status.success(), "{command}: {}", err(&output));
        out(&output)
    }

    /// Writers, each transaction of which leaves a row.
    fn load(&self, more: &[&str]) -> Child {
        let script = self.stage.file(
            "write.sql",
            "BEGIN;\nINSERT INTO written VALUES (:client_id);\nSELECT count(*) FROM written WHERE id = :client_id;\nEND;\n",
        );
        let pgbench = Binaries::newest().unwrap().program("pgbench").expect("pgbench");
        let mut command = Command::new(pgbench);
        // A thread for each client: pgbench waits for PREPARE and for logins, and no other client of the thread goes on.
        command.args(["-n", "-c", "8", "-j", "8", "-T", "6", "-f", script.to_str().unwrap()]).args(more);
        command.args(["-h", "127.0.0.1", "-p", &self.stage.port.to_string(), "-U", "app", DATABASE]);
        command.env("PGPASSWORD", password_of("app"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    fn written(&self, node: usize) -> i64 {
        self.cluster.number(node, "SELECT count(*) FROM written")
    }

    /// Server connections of clients at a node.
    fn servers(&self, node: usize) -> i64 {
        let count =
            "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND backend_type = 'client backend'";
        self.cluster.number(node, count)
    }

    /// What operators do while the load goes on: the replica takes over.
    fn switch_over(&mut self, pool_mode: &str, pause: &str, resume: &str) {
        let under_way = wait_until(PATIENCE, || (self.written(0) > 20).then_some(()));
        assert!(under_way.is_some(), "{}", self.stage.read("stderr"));
        assert_eq!(self.console(pause), "PAUSE\n");
        let paused = self.console("SHOW DATABASES");
        let row = paused.lines().find(|line| line.starts_with(DATABASE)).unwrap();
        assert_eq!(row.split('|').nth(15), Some("1"), "{paused}");
        // PostgreSQL's processes take a moment to end.
        let closed = wait_until(PATIENCE, || (self.servers(0) == 0).then_some(()));
        assert!(closed.is_some(), "{}", self.console("SHOW SERVERS"));
        let before = self.written(0);

        self.cluster.catch_up(1, 0);
        self.cluster.stop_fast(0);
        self.cluster.promote(1);
        assert_eq!(self.written(1), before);
        self.write_ini(pool_mode, self.cluster.node(1).port);
        assert_eq!(self.console("RELOAD"), "RELOAD\n");
        assert_eq!(self.console(resume), "RESUME\n");
        let goes_on = wait_until(PATIENCE, || (self.written(1) > before).then_some(()));
        assert!(goes_on.is_some(), "{}", self.stage.read("stderr"));
    }

    /// No client has seen an error, and every transaction that one was told of is there, once.
    fn assert_kept(&self, load: Child) {
        let output = load.wait_with_output().unwrap();
        let (text, errors) = (out(&output), err(&output));
        let number = |label: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(label));
            let line = line.unwrap_or_else(|| panic!("no {label} in {text}{errors}"));
            line.trim().split([' ', '/']).next().unwrap().parse::<i64>().unwrap()
        };
        assert!(output.status.success() && !errors.contains("error"), "{text}{errors}");
        assert_eq!(number("number of failed transactions:"), 0, "{text}");
        assert_eq!(self.written(1), number("number of transactions actually processed:"), "{text}{errors}");
    }
}

#[test]
fn switchover_by_pause_and_reload_in_transaction_mode() {
    let mut rehearsal = Rehearsal::new("transaction");

    let process = rehearsal.stage.start(&[]).process;
    let load = rehearsal.load(&["-M", "prepared"]);
    rehearsal.switch_over("transaction", "PAUSE", "RESUME");
    rehearsal.assert_kept(load);
    assert!(rehearsal.stage.read("stderr").contains("configuration reloaded"));
    drop(process);
}

/// In session mode PAUSE waits for clients to leave: those of an application that connects for each transaction do.
#[test]
fn switchover_by_pause_and_reload_in_session_mode() {
    let mut rehearsal = Rehearsal::new("session");
    let process = rehearsal.stage.start(&[]).process;
    // One that stays, for a while.
    let mut idle = Raw::login(rehearsal.stage.port, "app", DATABASE, &password_of("app"));
    let pid = idle.sql("SELECT pg_backend_pid()").remove(0);
    let port = rehearsal.stage.port.to_string();
    let mut pause = Command::new("psql");
    pause.args([
        "-XAt",
        "-w",
        "-h",
        "127.0.0.1",
        "-p",
        &port,
        "-U",
        "admin",
        "-d",
        "pgbouncer",
        "-c",
        "PAUSE",
    ]);
    let mut pause = pause.env("PGPASSWORD", password_of("admin")).stdout(Stdio::piped()).spawn().unwrap();
    let waits = || {
        rehearsal
            .console("SHOW DATABASES")
            .lines()
            .any(|line| line.starts_with(DATABASE) && line.ends_with("|1|0|0"))
    };
    assert!(
        wait_until(PATIENCE, || waits().then_some(())).is_some(),
        "{}",
        rehearsal.console("SHOW DATABASES")
    );
    assert_eq!(idle.sql("SELECT pg_backend_pid()"), [pid]);
    assert!(pause.try_wait().unwrap().is_none(), "PAUSE does not wait");
    drop(idle);
    let paused = pause.wait_with_output().unwrap();
    assert_eq!(out(&paused), "PAUSE\n");
    assert_eq!(rehearsal.console("RESUME"), "RESUME\n");

    let load = rehearsal.load(&["-C"]);
    rehearsal.switch_over("session", &format!("PAUSE {DATABASE}"), &format!("RESUME {DATABASE}"));
    rehearsal.assert_kept(load);
    drop(process);
}
