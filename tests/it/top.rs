//! `pooler top`: a running pooler by its console, as text and on a terminal.
//!
//! With POOLER_TEST_PGBOUNCER in the environment (a program that runs a real PgBouncer, as an unprivileged user may) that is
//! watched, too.

use std::{
    fs,
    io::{Read as _, Write as _},
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Mutex},
};

use pooler::demo::process::{self, TempDir, free_port, wait_until};

use crate::support::{
    database::{Database, password_of},
    pgbouncer::AsPgbouncer,
    pooler::{Pooler, Setup},
    raw::{PATIENCE, Raw},
    replicated::Replicated,
};

const POOLER: &str = env!("CARGO_BIN_EXE_pooler");

fn top(port: u16, user: &str, password: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(POOLER);
    command.args(["top", "-p", &port.to_string(), "-U", user, "-n", "0.2"]).args(arguments);
    command.env("PGPASSWORD", password).env_remove("PGPASSFILE").env("HOME", "/nonexistent");
    command.stdin(Stdio::null()).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

/// As the console's user of [`Setup`].
fn look(pooler: &Pooler) -> String {
    let output = top(pooler.port, "admin", &password_of("admin"), &[]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(!said(&output).contains('\u{1b}'), "{}", said(&output));
    said(&output)
}

fn assert_says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part} in\n{text}");
    }
}

#[test]
fn pools_rates_and_statements_are_shown_as_text() {
    let database = Database::new();
    let pooler =
        Setup::new(&database).setting("query_statistics = 100").setting("default_pool_size = 3").start();
    let mut client = pooler.connect();
    client.sql("SELECT 1 AS one");
    client.sql("CREATE TEMP TABLE kept (x int)");
    let busy = pooler.hold(2);
    let name = &database.name;
    let text = look(&pooler);
    assert_says(
        &text,
        &[
            &format!("pooler {} at 127.0.0.1:{}\n", env!("CARGO_PKG_VERSION"), pooler.port),
            "clients (0 waiting)",
            " tx/s ",
            "SELECT ? AS one",
            "No database with nodes has been used",
            "temporary",
        ],
    );
    let row = |view: &str, start: &str| -> Vec<String> {
        let lines = text.lines().skip_while(|line| *line != view).skip(2);
        let line =
            lines.take_while(|line| !line.is_empty()).find(|line| line.trim_start().starts_with(start));
        line.unwrap_or_else(|| panic!("no {start} in {view} of\n{text}"))
            .split_whitespace()
            .map(str::to_owned)
            .collect()
    };
    let pool = row("Pools", name);
    assert_eq!((&pool[1], &pool[pool.len() - 1]), (&"app".to_owned(), &"transaction".to_owned()));
    assert!(pool.contains(&"3/3".to_owned()) && pool.contains(&"100%".to_owned()), "{pool:?}");
    assert_eq!(row("Databases", name)[0], *name);
    drop(busy);
    // Without statistics of statements it says how to get them.
    let pooler = Setup::new(&database).start();
    pooler.connect().sql("SELECT 1");
    assert_says(&look(&pooler), &["Statements are not counted: set query_statistics = 500 in [pooler]"]);
}

#[test]
fn nodes_are_shown_with_roles() {
    let cluster = Replicated::start(1, &[]);
    let pooler = cluster.setup(&[0, 1]).start();
    cluster.wait_for_replicas(&pooler);
    let text = look(&pooler);
    let node = |index: usize, role: &str| {
        let place = format!("127.0.0.1:{}", cluster.node(index).port);
        text.lines().any(|line| line.split_whitespace().skip(1).take(2).eq([place.as_str(), role]))
    };
    assert!(node(0, "primary") && node(1, "replica"), "{text}");
}

#[test]
fn names_of_others_cannot_steer_the_terminal() {
    let database = Database::new();
    let pooler = Setup::new(&database)
        .setting("query_statistics = 100")
        .section(&format!(
            "[databases.\"\\u001b[2Jevil\\u202e\"]\nhost = \"127.0.0.1\"\nport = {}\ndbname = \"{}\"",
            database.port, database.name
        ))
        .start();
    let mut client = Raw::login(pooler.port, "app", "\u{1b}[2Jevil\u{202e}", &password_of("app"));
    client.sql("SELECT 1 AS \"\u{1b}]0;owned\u{7}\"");
    let text = look(&pooler);
    assert_says(&text, &["\\u{1b}[2Jevil\u{fffd}", "\\u{1b}]0;owned\\u{7}"]);
}

#[test]
fn mistakes_name_the_remedy() {
    let database = Database::new();
    let pooler = Setup::new(&database).start();
    let nobody = free_port().unwrap();
    for (port, user, password, parts) in [
        (pooler.port, "admin", "wr0ng", ["authentication failed", "admin_users or stats_users"]),
        (pooler.port, "admin", "", ["no password", "PGPASSWORD"]),
        (pooler.port, "app", &password_of("app"), ["", "admin_users or stats_users"]),
        (nobody, "admin", "x", ["failed", "start pooler, or name its address"]),
    ] {
        let output = top(port, user, password, &[]);
        let text = said(&output);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert_says(&text, &parts);
        assert!(text.starts_with("pooler top: ") && !text.contains("wr0ng"), "{text}");
    }
    // PostgreSQL itself has nothing to show.
    let url = format!("postgres://app:secret%20of%20app@127.0.0.1:{}/{}", database.port, database.name);
    let output = Command::new(POOLER).args(["top", &url]).stdin(Stdio::null()).output().unwrap();
    assert_says(&said(&output), &["unrecognized configuration parameter", "is this the console of pooler"]);
}

/// pooler top on a terminal of its own (script's).
struct OnTerminal {
    child: Child,
    dir: TempDir,
    shown: Arc<Mutex<Vec<u8>>>,
}

impl OnTerminal {
    fn start(port: u16, columns: u16, rows: u16) -> Self {
        let dir = TempDir::new(None).unwrap();
        let top = format!(
            "echo $$ >{}; exec {POOLER} top -p {port} -U admin -n 0.1",
            dir.path().join("pid").display()
        );
        let command =
            format!("stty cols {columns} rows {rows}; sh -c '{top}'; echo \"ended by $?\"; stty -a");
        let mut child = Command::new("script")
            .args(["-qfc", &command, "/dev/null"])
            .env_remove("PGPASSWORD")
            .env_remove("PGPASSFILE")
            .env("HOME", "/nonexistent")
            .env("TERM", "xterm-256color")
            .env("SHELL", "/bin/sh")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let shown = Arc::new(Mutex::new(Vec::new()));
        let (mut out, seen) = (child.stdout.take().unwrap(), Arc::clone(&shown));
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = out.read(&mut bytes) {
                seen.lock().unwrap().extend_from_slice(&bytes[..count]);
            }
        });
        Self { child, dir, shown }
    }

    /// The process of pooler top.
    fn pid(&self) -> u32 {
        fs::read_to_string(self.dir.path().join("pid")).unwrap().trim().parse().unwrap()
    }

    fn resize(&self, columns: u16, rows: u16) {
        let terminal = fs::read_link(format!("/proc/{}/fd/0", self.pid())).unwrap();
        let (columns, rows) = (columns.to_string(), rows.to_string());
        let arguments = ["-F", terminal.to_str().unwrap(), "cols", &columns, "rows", &rows];
        assert!(Command::new("stty").args(arguments).status().unwrap().success());
    }

    /// Gives the password of the console's user.
    fn log_in(&mut self) {
        self.wait_for("Password of user admin: ", 0);
        // What was wrong is taken back.
        self.press(&format!("wrong\u{7f}\u{15}{}\r", password_of("admin")));
        self.wait_for("\u{1b}[?1049h", 0);
        assert!(!self.text().contains("secret"), "{}", self.text());
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().unwrap()).into_owned()
    }

    fn press(&mut self, keys: &str) {
        let input = self.child.stdin.as_mut().unwrap();
        input.write_all(keys.as_bytes()).unwrap();
        input.flush().unwrap();
    }

    /// Waits until this was drawn after what has been drawn so far.
    fn wait_for(&self, text: &str, since: usize) {
        let met = wait_until(PATIENCE, || self.text().get(since..)?.contains(text).then_some(()));
        assert!(met.is_some(), "no {text} in {:?}", self.text());
    }

    /// What was drawn is read from here on.
    fn now(&self) -> usize {
        self.text().len()
    }
}

impl Drop for OnTerminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn terminal_is_drawn_obeys_keys_survives_a_restart_and_is_left_as_it_was() {
    let database = Database::new();
    let pooler = Setup::new(&database).start();
    let port = pooler.port;
    pooler.connect().sql("SELECT 1");
    let mut screen = OnTerminal::start(port, 120, 30);
    screen.log_in();
    screen.wait_for("transaction", 0);
    let since = screen.now();
    screen.press("4");
    screen.wait_for("query_statistics", since);
    let since = screen.now();
    screen.press("?");
    screen.wait_for("Keys", since);
    screen.press("x");
    // It waits for the next one.
    let since = screen.now();
    pooler.stop();
    screen.wait_for("connection", since);
    let since = screen.now();
    let _next = Setup::new(&database).at(port).start();
    screen.wait_for("leave", since);
    screen.press("q");
    screen.wait_for("ended by 0", since);
    screen.wait_for("\u{1b}[?1049l", since);
    // Echo and lines are back.
    screen.wait_for(" icanon", since);
    screen.wait_for(" echo ", since);
}

#[test]
fn terminal_may_change_its_size_and_is_left_as_it_was_by_sigterm_too() {
    let database = Database::new();
    let pooler = Setup::new(&database).start();
    pooler.connect().sql("SELECT 1");
    let mut screen = OnTerminal::start(pooler.port, 120, 30);
    screen.log_in();
    screen.wait_for("transaction", 0);
    for (columns, rows, shown) in [(50, 12, "maxwait"), (10, 2, "database"), (120, 40, "transaction")] {
        let since = screen.now();
        screen.resize(columns, rows);
        screen.wait_for(shown, since);
    }
    let since = screen.now();
    process::signal(screen.pid(), "TERM").unwrap();
    screen.wait_for("ended by 0", since);
    screen.wait_for("\u{1b}[?1049l", since);
    screen.wait_for(" icanon", since);
}

#[test]
fn pgbouncer_is_watched_as_far_as_it_tells() {
    let Ok(program) = std::env::var("POOLER_TEST_PGBOUNCER") else {
        // The same by pooler in its place, which knows more.
        let database = Database::new();
        let pooler = Setup::new(&database).start();
        assert_says(&look(&pooler), &["No database with nodes"]);
        return;
    };
    let database = Database::new();
    let port = free_port().unwrap();
    let _process = AsPgbouncer::start(Path::new(&program), &database, port, "");
    let mut client = Raw::login(port, "app", &database.name, &password_of("app"));
    client.sql("SELECT 1");
    let output = top(port, "app", &password_of("app"), &[]);
    let text = said(&output);
    assert!(output.status.success(), "{text}");
    assert_says(
        &text,
        &[
            "PgBouncer 1.",
            "transaction\n",
            "This console knows no nodes.",
            "This console counts no statements.",
        ],
    );
    let is_pool = |line: &str| line.split_whitespace().take(2).eq([database.name.as_str(), "app"]);
    assert!(text.lines().any(is_pool), "{text}");
}
