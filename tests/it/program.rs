//! The program: its command line, what it reads, and what it logs.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use pooler::demo::process::{Guarded, TempDir, free_port, wait_until};

use crate::support::{
    compare::Pair,
    database::{Database, certificates, password_of},
    msg::{bind, execute, parse, sync},
    pooler::Setup,
    raw::{PATIENCE, Raw},
};

const POOLER: &str = env!("CARGO_BIN_EXE_pooler");

/// Runs it to its end.
fn pooler(arguments: &[&str]) -> Output {
    let mut command = Command::new(POOLER);
    command.args(arguments).env_remove("POOLER_UPSTREAM").current_dir("/").stdin(Stdio::null());
    command.output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A running program that was started with these arguments and variables, at a port of its own.
struct Running {
    port: u16,
    process: Guarded,
    dir: TempDir,
}

impl Running {
    fn start(arguments: impl Fn(u16, &Path) -> Vec<String>, variables: &[(&str, &str)]) -> Self {
        let (port, dir) = (free_port().unwrap(), TempDir::new(None).unwrap());
        let arguments = arguments(port, dir.path());
        let arguments: Vec<&str> =
            std::iter::once(POOLER).chain(arguments.iter().map(String::as_str)).collect();
        let log = dir.path().join("pooler.log");
        let process = Guarded::spawn_with(None, &arguments, variables, &log, "TERM").unwrap();
        let mut running = Self { port, process, dir };
        let up = wait_until(PATIENCE, || {
            (running.log().contains("process up") || running.process.ended().is_some()).then_some(())
        });
        assert!(up.is_some() && running.process.ended().is_none(), "{}", running.log());
        running
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("pooler.log")).unwrap_or_default()
    }

    fn psql(&self, user: &str, database: &str, password: &str, sql: &str) -> Output {
        let mut command = Command::new("psql");
        command.args([
            "-X",
            "-At",
            "-h",
            "127.0.0.1",
            "-p",
            &self.port.to_string(),
            "-U",
            user,
            "-d",
            database,
        ]);
        command.args(["-c", sql]).env("PGPASSWORD", password).stdin(Stdio::null());
        command.output().unwrap()
    }

    fn stop(mut self) -> String {
        assert_eq!(self.process.stop().unwrap().code(), Some(0), "{}", self.log());
        self.log()
    }
}

fn url_of(database: &Database, user_and_password: &str) -> String {
    format!("postgres://{user_and_password}@127.0.0.1:{}/{}", database.port, database.name)
}

#[test]
fn version_and_help_are_told() {
    for argument in ["--version", "-V"] {
        let output = pooler(&[argument]);
        assert_eq!(
            (out(&output), output.status.code()),
            (format!("pooler {}\n", env!("CARGO_PKG_VERSION")), Some(0))
        );
    }
    let help = pooler(&["--help"]);
    for part in ["run", "check", "init", "top", "demo", "--upstream", "POOLER_UPSTREAM", "--config"] {
        assert!(out(&help).contains(part), "{part} in {}", out(&help));
    }
}

#[test]
fn upstream_alone_serves_a_database() {
    let database = Database::new();
    let query = "SELECT current_user || ' ' || current_database()";
    let expected = format!("app {}\n", database.name);
    let with_password = url_of(&database, "app:secret%20of%20app");
    let without = url_of(&database, "app");
    let listen = |port: u16| format!("127.0.0.1:{port}");
    let secret = password_of("app");
    for run in [
        Running::start(
            |port, _| ["--upstream", &with_password, "--listen", &listen(port)].map(str::to_owned).to_vec(),
            &[],
        ),
        Running::start(
            |port, _| ["run", "--upstream", &without, "--listen", &listen(port)].map(str::to_owned).to_vec(),
            &[("PGPASSWORD", &secret)],
        ),
        Running::start(
            |port, _| ["run", "--listen", &listen(port)].map(str::to_owned).to_vec(),
            &[("POOLER_UPSTREAM", &with_password)],
        ),
    ] {
        let output = run.psql("app", &database.name, &secret, query);
        assert_eq!(out(&output), expected, "{}", err(&output));
        let refused = run.psql("app", &database.name, "wrong", query);
        assert!(err(&refused).contains("authentication failed"), "{}", err(&refused));
        // It may look at the console, and no more.
        let pools = run.psql("app", "pooler", &secret, "SHOW POOLS");
        assert!(out(&pools).contains(&format!("{}|app|", database.name)), "{}", err(&pools));
        let refused = run.psql("app", "pooler", &secret, "SHUTDOWN");
        assert!(err(&refused).contains("admin access needed"), "{}", err(&refused));
        // Nothing to reload, and nothing to fear from it.
        run.process.signal("HUP").unwrap();
        let said = wait_until(PATIENCE, || run.log().contains("nothing to reload").then_some(()));
        assert!(said.is_some(), "{}", run.log());
        let log = run.stop();
        assert!(!log.contains(&secret) && !log.contains("secret%20"), "{log}");
    }
}

fn file(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn secrets_come_from_the_environment_and_from_files() {
    let database = Database::new();
    let secret = password_of("app");
    let run = Running::start(
        |port, dir| {
            file(dir, "server-secret", &format!("{}\n", password_of("app")));
            file(dir, "users.txt", "\"listed\" \"from the list\"\n");
            let toml = format!(
                "[pooler]\nlisten_addr = \"${{ADDRESS:-127.0.0.1}}\"\nlisten_port = {port}\nauth_file = \"users.txt\"\n\
                 [databases.shared]\nhost = \"127.0.0.1\"\nport = {}\ndbname = \"{}\"\nuser = \"app\"\n\
                 password_file = \"server-secret\"\n[users.app]\npassword = \"${{APP_PASSWORD}}\"\n",
                database.port, database.name
            );
            vec!["-c".to_owned(), file(dir, "my.toml", &toml).display().to_string()]
        },
        &[("APP_PASSWORD", &secret)],
    );
    for (user, password) in [("app", secret.as_str()), ("listed", "from the list")] {
        let output = run.psql(user, "shared", password, "SELECT current_user");
        assert_eq!(out(&output), "app\n", "{}", err(&output));
    }
    run.stop();
}

#[test]
fn check_tells_every_problem_with_its_line_and_remedy() {
    let dir = TempDir::new(None).unwrap();
    let path = file(
        dir.path(),
        "bad.toml",
        "[pooler]\n\
         listen_prot = 6432\n\
         default_pool_size = \"many\"\n\
         tcp_defer_accept = 1\n\
         pool_size = 5\n\
         [databases.app]\n\
         hosst = \"127.0.0.1\"\n\
         [databases.other]\n\
         host = \"127.0.0.1\"\n\
         password = \"${NOT_SET_ANYWHERE}\"\n\
         [users.app]\n\
         password_file = \"/nowhere/at/all\"\n\
         [usres.app]\n",
    );
    let name = path.display();
    let output = pooler(&["check", "-c", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let text = out(&output);
    for (line, part, remedy) in [
        (2, "listen_prot", "did you mean listen_port?"),
        (3, "default_pool_size", ""),
        (4, "tcp_defer_accept", "remove it"),
        (5, "pool_size", "default_pool_size"),
        (7, "hosst", "did you mean host?"),
        (10, "NOT_SET_ANYWHERE", "${NOT_SET_ANYWHERE:-default}"),
        (12, "/nowhere/at/all", "give the path"),
        (13, "usres", "users"),
    ] {
        let start = format!("{name}:{line}: ");
        let at = text.find(&start).unwrap_or_else(|| panic!("no {start} in\n{text}"));
        let problem = &text[at..];
        let problem = &problem[..problem[1..].find(&name.to_string()).map_or(problem.len(), |end| end + 1)];
        assert!(problem.contains(part) && problem.contains(remedy), "{part}, {remedy} in {problem}");
    }
    let bad = pooler(&["run", "-c", path.to_str().unwrap()]);
    assert_eq!(bad.status.code(), Some(1));
    assert!(err(&bad).contains("did you mean listen_port?"), "{}", err(&bad));
}

#[test]
fn check_says_ok_or_what_cannot_be_read() {
    let dir = TempDir::new(None).unwrap();
    let check = |text: &str| {
        let path = file(dir.path(), "pooler.toml", text);
        let output = pooler(&["check", "-c", path.to_str().unwrap()]);
        (output.status.code(), out(&output))
    };
    let (code, text) = check("[databases.app]\nhost = \"127.0.0.1\"\n[users.app]\npassword = \"x\"\n");
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("ok (1 database, 1 user, "), "{text}");
    let certificates = certificates().display();
    let (code, text) = check(&format!(
        "[pooler]\nclient_tls_sslmode = \"require\"\nclient_tls_cert_file = \"{certificates}/server.crt\"\n\
         client_tls_key_file = \"{certificates}/client.key\"\n[databases.app]\nhost = \"127.0.0.1\"\n"
    ));
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("client.key") && text.contains("1 problem"), "{text}");
    let missing = pooler(&["check", "-c", "/nowhere/at/all"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(out(&missing).contains("cannot read the file"), "{}", out(&missing));
    assert_eq!(pooler(&["check", "--nonsense"]).status.code(), Some(2));
    assert_eq!(pooler(&["check"]).status.code(), Some(2));
}

#[test]
fn port_that_is_taken_is_told_with_a_remedy() {
    let database = Database::new();
    let taken = format!("127.0.0.1:{}", database.port + 1);
    let _listener = std::net::TcpListener::bind(&taken).ok();
    let output = pooler(&["--upstream", &url_of(&database, "app:x"), "--listen", &taken]);
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).contains("another process listens there"), "{}", err(&output));
}

#[test]
fn secrets_never_reach_the_log() {
    // H40: with everything logged that can be.
    let database = Database::new();
    let dir = TempDir::new(None).unwrap();
    let users = file(dir.path(), "users.txt", "\"listed\" \"hidden in the list\"\n");
    let secrets = [
        password_of("app"),
        "hidden in the list".to_owned(),
        "wrong but secret".to_owned(),
        "secret of a role".to_owned(),
        "half a secret".to_owned(),
        "secret in a parameter".to_owned(),
        "secret of the url".to_owned(),
    ];
    for auth in ["plain", "md5", "scram-sha-256"] {
        let pooler = Setup::new(&database)
            .setting("log_level = \"trace\"")
            .setting(&format!("auth_type = \"{auth}\"\nauth_file = \"{}\"", users.display()))
            .section(&format!(
                "[databases.viaurl]\nurl = \"postgres://app:secret%20of%20the%20url@127.0.0.1:{}/{}\"",
                database.port, database.name
            ))
            .start();
        let mut app = pooler.connect();
        app.sql("SELECT 1");
        // It may not, but the pooler sees it all the same.
        app.try_sql("CREATE ROLE temporary_role PASSWORD 'secret of a role'").unwrap_err();
        app.try_sql("SELECT 'secret of a role'::int").unwrap_err();
        let parameter = bind("", &[Some("secret in a parameter")]);
        app.send_all(&[parse("", "SELECT $1::text"), parameter, execute(), sync()]);
        app.ready(1);
        for (user, name) in
            [("app", database.name.as_str()), ("app", "pooler"), ("listed", "nosuchdb"), ("nobody", "x")]
        {
            let login = Raw::open(pooler.port).try_login(user, name, "wrong but secret", &[]);
            assert_eq!(login.unwrap_err().field(b'C'), "28P01");
        }
        // The server refuses what the URL says.
        let refused = Raw::open(pooler.port).try_login("app", "viaurl", &password_of("app"), &[]);
        assert_eq!(refused.unwrap_err().field(b'C'), "28P01");
        let mut admin = pooler.admin();
        for command in [
            "SHOW CONFIG",
            "SHOW USERS",
            "SHOW DATABASES",
            "SHOW CLIENTS",
            "SHOW SERVERS",
            "RELOAD",
            "RECONNECT",
        ] {
            let rows = admin.sql(command).join("\n");
            assert!(secrets.iter().all(|secret| !rows.contains(secret)), "{command}: {rows}");
        }
        // Broken in the middle of a secret.
        let good = pooler.toml();
        pooler.rewrite(
            &good.replace("[users.admin]", "[users.odd]\npassword = \"half a secret\n[users.admin]"),
        );
        let detail = admin.try_sql("RELOAD").unwrap_err().field(b'D');
        assert!(!detail.contains("half a secret"), "{detail}");
        pooler.rewrite(&format!("{good}\nhalf a secret"));
        admin.try_sql("RELOAD").unwrap_err();
        pooler.rewrite(&good);
        admin.sql("RELOAD");
        let log = pooler.log();
        assert!(log.contains(" TRACE ") || log.contains("DEBUG"), "not everything is logged: {log}");
        for secret in &secrets {
            assert!(
                !log.contains(secret.as_str()) && !log.contains(&secret.replace(' ', "%20")),
                "{secret} in {log}"
            );
        }
        assert!(!log.contains("SCRAM-SHA-256$"), "{log}");
    }
}

#[test]
fn json_log_has_an_object_on_each_line() {
    let database = Database::new();
    let pooler =
        Setup::new(&database).setting("log_format = \"json\"").setting("log_level = \"debug\"").start();
    pooler.connect().sql("SELECT 1");
    Raw::open(pooler.port).try_login("app\n\"odd", "x\\", "wrong", &[]).unwrap_err();
    pooler.admin().sql("RELOAD");
    pooler.wait_for_log("configuration reloaded");
    let log = pooler.log();
    let lines: Vec<_> = log.lines().collect();
    assert!(lines.len() > 5, "{log}");
    // PostgreSQL's parser says whether it is JSON.
    for line in lines {
        let sql = format!(
            "SELECT l->>'level' IN ('INFO', 'WARN', 'DEBUG', 'ERROR'), (l->>'timestamp')::timestamptz < now() + '1 min', \
             l->'fields'->>'message' <> '' FROM (SELECT $json${line}$json$::json AS l) x"
        );
        assert_eq!(database.sql(&sql), ["t|t|t"], "{line}");
    }
    assert!(log.contains("\"user\":\"app\""), "fields are fields: {log}");
}

#[test]
fn text_log_has_a_line_for_each_event() {
    let pair = Pair::new();
    pair.pooler.connect().sql("SELECT 1");
    let mut refused = Raw::open(pair.pooler.port);
    refused.try_login("evil\nINFO forged", "x", "wrong", &[]).unwrap_err();
    pair.pooler.wait_for_log("forged");
    // PostgreSQL repeats the bad value, and pooler what PostgreSQL says.
    let name = pair.database.name.clone();
    let parameters = [("DateStyle", "bad\nINFO forged too")];
    let refused = Raw::open(pair.pooler.port).try_login("app", &name, &password_of("app"), &parameters);
    assert!(refused.unwrap_err().field(b'M').contains("forged too"));
    pair.pooler.wait_for_log("forged too");
    let log = pair.pooler.log();
    for line in log.lines() {
        let mut words = line.split_whitespace();
        let (time, level) = (words.next().unwrap(), words.next().unwrap());
        assert!(time.ends_with('Z') && ["INFO", "WARN"].contains(&level), "{line}");
    }
    for part in ["login attempt: db=", "new connection to server", "pooler error: ", "closing because: "] {
        assert!(log.contains(part), "{part} in {log}");
    }
    assert!(!log.contains('\u{1b}'), "colours in a file");
}

#[test]
fn log_level_follows_the_setting_and_the_option_beats_it() {
    let pair = Pair::with(&["log_level = \"info\""]);
    pair.pooler.edit("log_level = \"info\"", "log_level = \"warn\"");
    pair.pooler.admin().sql("RELOAD");
    let before = pair.pooler.log().len();
    pair.pooler.connect().sql("SELECT 1");
    Raw::open(pair.pooler.port).try_login("app", "x", "wrong", &[]).unwrap_err();
    pair.pooler.wait_for_log("pooler error: ");
    assert!(!pair.pooler.log()[before..].contains(" INFO "), "{}", pair.pooler.log());
    pair.pooler.edit("log_level = \"warn\"", "log_level = \"debug\"");
    pair.pooler.admin().sql("RELOAD");
    pair.pooler.admin().sql("RECONNECT");
    pair.pooler.connect().sql("SELECT 1");
    for level in [" INFO ", "DEBUG "] {
        pair.pooler.wait_for_log(level);
    }
    let database = Database::new();
    let quiet = Running::start(
        |port, _| {
            let url = url_of(&database, "app:secret%20of%20app");
            vec![
                "-v".to_owned(),
                "--upstream".to_owned(),
                url,
                "--listen".to_owned(),
                format!("127.0.0.1:{port}"),
            ]
        },
        &[],
    );
    quiet.psql("app", &database.name, &password_of("app"), "SELECT 1");
    let log = quiet.stop();
    assert!(log.contains("DEBUG ") && !log.contains("TRACE "), "{log}");
}

#[test]
fn what_is_not_to_be_logged_is_not() {
    let flags = ["log_connections", "log_disconnections", "log_pooler_errors"];
    let lines = flags.map(|flag| format!("{flag} = true"));
    let pair = Pair::with(&lines.each_ref().map(String::as_str));
    for line in &lines {
        pair.pooler.edit(line, &line.replace("true", "false"));
    }
    pair.pooler.admin().sql("RELOAD");
    let before = pair.pooler.log().len();
    let mut app = pair.pooler.connect();
    app.sql("SELECT 1");
    Raw::open(pair.pooler.port).try_login("app", "x", "wrong", &[]).unwrap_err();
    drop(app);
    pair.pooler.admin().sql("RECONNECT");
    pair.pooler.wait_for_log("RECONNECT command issued");
    let log = &pair.pooler.log()[before..];
    for part in ["login attempt", "new connection", "pooler error", "closing because"] {
        assert!(!log.contains(part), "{part} in {log}");
    }
}
