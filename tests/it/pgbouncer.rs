//! In the place of PgBouncer: its name, its arguments, its files.
//!
//! With POOLER_TEST_PGBOUNCER in the environment (a command that runs a real PgBouncer, as an unprivileged user may)
//! what does not start is compared with that, too.

use std::{
    fs,
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _, symlink},
        process::CommandExt as _,
    },
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use nix::unistd::{Gid, Group, Uid, User};
use pooler::demo::process::{Guarded, RunAs, TempDir, free_port, signal, wait_until};

use crate::support::{
    database::{Database, certificates, password_of},
    raw::PATIENCE,
    systemd::Systemd,
};

/// A directory of the user who runs it, with the program under its other name.
pub struct Stage {
    pub dir: TempDir,
    who: Option<RunAs>,
    pub port: u16,
}

impl Stage {
    pub fn new() -> Self {
        let who = RunAs::unprivileged().unwrap();
        let dir = TempDir::new(who).unwrap();
        symlink(env!("CARGO_BIN_EXE_pooler"), dir.path().join("pgbouncer")).unwrap();
        Self { dir, who, port: free_port().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file; `@DIR@`, `@PORT@`, `@USER@` and `@GROUP@` stand for those of the stage.
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, self.filled(text)).unwrap();
        if let Some(who) = self.who {
            std::os::unix::fs::chown(&path, Some(who.uid), Some(who.gid)).unwrap();
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    pub fn filled(&self, text: &str) -> String {
        let dir = self.dir.path().to_str().unwrap();
        let owner = fs::metadata(self.dir.path()).unwrap();
        let user = User::from_uid(Uid::from_raw(owner.uid())).unwrap().unwrap().name;
        let group = Group::from_gid(Gid::from_raw(owner.gid())).unwrap().unwrap().name;
        let text = text.replace("@DIR@", dir).replace("@PORT@", &self.port.to_string());
        text.replace("@USER@", &user).replace("@GROUP@", &group)
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// Runs a program in the directory to its end, which has to come.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Output {
        let mut command = Command::new("timeout");
        command
            .args(["-k", "1", "60", program])
            .args(arguments)
            .current_dir(self.dir.path())
            .stdin(Stdio::null());
        if let Some(who) = self.who {
            command.uid(who.uid).gid(who.gid);
        }
        command.output().unwrap()
    }

    /// Starts it with pgbouncer.ini.
    pub fn start(&self, variables: &[(&str, &str)]) -> Running<'_> {
        let program = self.path("pgbouncer");
        let ini = self.path("pgbouncer.ini");
        let arguments = [program.to_str().unwrap(), ini.to_str().unwrap()];
        let log = self.file("stderr", "");
        let process = Guarded::spawn_with(self.who, &arguments, variables, &log, "TERM").unwrap();
        let mut running = Running { stage: self, process };
        let up = wait_until(PATIENCE, || {
            let ended = running.process.ended().is_some();
            (self.read("stderr").contains("process up") || ended).then_some(!ended)
        });
        assert_eq!(up, Some(true), "{}", self.read("stderr"));
        running
    }

    pub fn psql(&self, host: &str, user: &str, database: &str, password: &str, sql: &str) -> Output {
        let port = self.port.to_string();
        let mut command = Command::new("psql");
        command.args(["-X", "-At", "-w", "-h", host, "-p", &port, "-U", user, "-d", database, "-c", sql]);
        command.env("PGPASSWORD", password).stdin(Stdio::null()).output().unwrap()
    }
}

pub struct Running<'a> {
    stage: &'a Stage,
    pub process: Guarded,
}

impl Running<'_> {
    pub fn wait_for_log(&self, text: &str) {
        let found = wait_until(PATIENCE, || self.stage.read("stderr").contains(text).then_some(()));
        assert!(found.is_some(), "no {text} in\n{}", self.stage.read("stderr"));
    }

    pub fn stop(mut self) {
        assert_eq!(self.process.stop().unwrap().code(), Some(0), "{}", self.stage.read("stderr"));
    }
}

/// A process in the background, which ends with the test.
struct Daemon(u32);

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = signal(self.0, "KILL");
    }
}

pub fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Without the time and the process.
fn without_head(log: &str) -> String {
    let line = |line: &str| match line.split_once("] ") {
        Some((_, message)) => message.to_owned(),
        None => line.to_owned(),
    };
    log.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// What is installed where pgbouncer.ini is named.
const INI: &str = "[databases]\n[pgbouncer]\nlisten_port = @PORT@\nunix_socket_dir = @DIR@\n";

#[test]
fn command_line_is_that_of_pgbouncer() {
    let stage = Stage::new();
    let program = stage.path("pgbouncer");
    let program = program.to_str().unwrap();
    let real = std::env::var("POOLER_TEST_PGBOUNCER").ok();
    for (arguments, code, message) in [
        (&[][..], 1, "no configuration file specified"),
        (&["a", "b"], 1, "no configuration file specified"),
        (&["--nope", "a"], 1, "unrecognized option '--nope'"),
        (&["-x", "a"], 1, "invalid option -- 'x'"),
        (&["-u"], 1, "option requires an argument -- 'u'"),
        (&["--user"], 1, "option '--user' requires an argument"),
        (&["--daemon=x"], 1, "option '--daemon' doesn't allow an argument"),
    ] {
        for program in std::iter::once(program).chain(real.as_deref()) {
            let output = stage.run(program, arguments);
            assert_eq!(
                (output.status.code(), out(&output).as_str()),
                (Some(code), ""),
                "{program} {arguments:?}"
            );
            let text = err(&output);
            let first = text.lines().next().unwrap_or_default();
            assert!(first.ends_with(&format!("pgbouncer: {message}")), "{program}: {text}");
            assert!(text.ends_with("pgbouncer --help\" for more information.\n"), "{program}: {text}");
        }
    }
    for (arguments, first) in
        [(["-V"], "PgBouncer 1."), (["--version"], "PgBouncer 1."), (["-h"], program), (["--help"], program)]
    {
        let output = stage.run(program, &arguments);
        assert_eq!(output.status.code(), Some(0));
        assert!(out(&output).starts_with(first), "{}", out(&output));
    }
    // The same by the command.
    let output = stage.run(env!("CARGO_BIN_EXE_pooler"), &["pgbouncer", "-V"]);
    assert!(out(&output).starts_with("PgBouncer 1."), "{}", err(&output));
}

#[test]
fn what_does_not_start_says_why_as_pgbouncer_does() {
    let stage = Stage::new();
    let program = stage.path("pgbouncer");
    let real = std::env::var("POOLER_TEST_PGBOUNCER").ok();
    let me = std::process::id().to_string();
    stage.file("live.pid", &me);
    stage.file("odd.pid", "no number");
    let occupied =
        std::os::unix::net::UnixListener::bind(stage.path(&stage.filled(".s.PGSQL.@PORT@"))).unwrap();
    let free = "[databases]\n[pgbouncer]\nlisten_port = @PORT@\nunix_socket_dir =\nlisten_addr = 127.0.0.1\n";
    for (arguments, ini, error, fatal) in [
        (&[][..], "", "main section missing from config file", "cannot load config file"),
        (&[], "[pgbouncer]\nx=1\n", "unknown parameter: pgbouncer/x", "cannot load config file"),
        (
            &[],
            "[pgbouncer]\nlisten_port=x\n",
            "invalid value \"x\" for parameter listen_port",
            "cannot load config file",
        ),
        (&[], "x=1\n", "value without section: x", "cannot load config file"),
        (&[], "[foo]\n", "invalid section \"foo\"", "cannot load config file"),
        (&[], "[pgbouncer]\nlisten_port 7\n", "syntax error in configuration", "cannot load config file"),
        (
            &[],
            "%include /nowhere\n[pgbouncer]\n",
            "could not load file \"/nowhere\": No such file",
            "cannot load config file",
        ),
        (
            &[],
            "[pgbouncer]\n[databases]\na=foo=1\n",
            "unrecognized connection parameter: foo",
            "cannot load config file",
        ),
        (
            &[],
            "[pgbouncer]\n[databases]\na=host\n",
            "syntax error in connection string",
            "cannot load config file",
        ),
        (
            &[],
            "[pgbouncer]\n[databases]\npgbouncer=host=a\n",
            "database name \"pgbouncer\" is reserved",
            "cannot load config file",
        ),
        (
            &[],
            "[pgbouncer]\n[users]\na=foo=1\n",
            "unrecognized user parameter: foo",
            "cannot load config file",
        ),
        (&[], &format!("{INI}pidfile = @DIR@/p.pid\n"), "", "unix socket is in use, cannot continue"),
        (&["-d"], free, "", "daemon needs pidfile configured"),
        (&["-u", "no_such_user"], free, "", "could not find user 'no_such_user' to switch to"),
        (&["-u", "root"], free, "", "failed to assume identity of user 'root': "),
        (&[], &format!("{free}pidfile = @DIR@/live.pid\n"), "", "exists, another instance running?"),
        (&[], &format!("{free}pidfile = @DIR@/odd.pid\n"), "", "exists, another instance running?"),
        (
            &[],
            &format!("{free}pidfile = /nowhere/x.pid\n"),
            "",
            "could not open pidfile '/nowhere/x.pid': No such file",
        ),
    ] {
        stage.file("t.ini", ini);
        // PgBouncer takes the socket of one that does not answer.
        let real = real.as_deref().filter(|_| !fatal.starts_with("unix socket"));
        for program in std::iter::once(program.to_str().unwrap()).chain(real) {
            let output = stage.run(program, &[arguments, &["t.ini"]].concat());
            let text = without_head(&err(&output));
            assert_eq!(output.status.code(), Some(1), "{program}: {text}");
            let last = text.lines().last().unwrap_or_default();
            assert!(last.starts_with("FATAL ") && last.contains(fatal), "{program} {ini}: {text}");
            let told = text.lines().any(|line| line.starts_with("ERROR ") && line.contains(error));
            assert_eq!(told, !error.is_empty(), "{program} {ini}: {text}");
            let quiet = stage.run(program, &[arguments, &["-q", "t.ini"]].concat());
            assert_eq!((err(&quiet).as_str(), quiet.status.code()), ("", Some(1)), "{program} {ini}");
        }
    }
    drop(occupied);
    // Nothing was left behind.
    assert_eq!(stage.read("live.pid"), me);
    assert_eq!(stage.read("odd.pid"), "no number");
}

#[test]
fn root_is_refused_or_becomes_the_user_that_is_named() {
    let Some(who) = RunAs::unprivileged().unwrap() else {
        // Nobody else than root could be refused: what others may not do is told above.
        return;
    };
    let stage = Stage::new();
    let program = stage.path("pgbouncer");
    stage.file("p.ini", &format!("{INI}pidfile = @DIR@/p.pid\nlogfile = @DIR@/p.log\n"));
    let run = |arguments: &[&str]| {
        Command::new(&program)
            .args(arguments)
            .current_dir(stage.dir.path())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    };
    let refused = run(&["p.ini"]);
    assert_eq!(refused.status.code(), Some(1));
    assert_eq!(without_head(&err(&refused)), "FATAL PgBouncer should not run as root");
    let name = Command::new("id").args(["-un", &who.uid.to_string()]).output().unwrap();
    let name = out(&name).trim().to_owned();
    for user in [&["-u", &name][..], &[]] {
        if user.is_empty() {
            stage.file(
                "p.ini",
                &format!("{INI}pidfile = @DIR@/p.pid\nlogfile = @DIR@/p.log\nuser = {name}\n"),
            );
        }
        let started = run(&[user, &["-d", "p.ini"]].concat());
        assert_eq!(started.status.code(), Some(0), "{}", err(&started));
        let pid = wait_until(PATIENCE, || stage.read("p.pid").trim().parse::<u32>().ok()).unwrap();
        let _daemon = Daemon(pid);
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let ids = |id: u32| format!("\t{id}\t{id}\t{id}\t{id}\n");
        assert!(status.contains(&format!("Uid:{}", ids(who.uid))), "{status}");
        assert!(status.contains(&format!("Gid:{}", ids(who.gid))), "{status}");
        assert!(status.contains(&format!("Groups:\t{} \n", who.gid)), "{status}");
        signal(pid, "TERM").unwrap();
        assert!(wait_until(PATIENCE, || (!stage.path("p.pid").exists()).then_some(())).is_some());
    }
}

#[test]
fn daemon_leaves_a_pid_file_and_a_log_and_takes_them_away_again() {
    let stage = Stage::new();
    let program = stage.path("pgbouncer");
    let program = program.to_str().unwrap();
    // Of a process that no system has.
    stage.file("p.pid", "2147483647");
    stage.file("p.ini", &format!("{INI}pidfile = p.pid\nlogfile = p.log\n"));
    let started = stage.run(program, &["-d", "p.ini"]);
    assert_eq!((started.status.code(), out(&started).as_str()), (Some(0), ""), "{}", err(&started));
    let up = wait_until(PATIENCE, || stage.read("p.log").contains("process up").then_some(()));
    assert!(up.is_some(), "{}", stage.read("p.log"));
    assert!(stage.read("p.log").contains("LOG stale pidfile, removing"));
    let pid: u32 = stage.read("p.pid").trim().parse().unwrap();
    let _daemon = Daemon(pid);
    let socket = stage.path(&stage.filled(".s.PGSQL.@PORT@"));
    assert!(socket.exists());
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.split(' ').collect();
    // As `ps -C pgbouncer` finds it; a session of its own, without a terminal.
    assert_eq!((fields[1], fields[5], fields[6]), ("(pgbouncer)", pid.to_string().as_str(), "0"), "{stat}");
    // Somebody rotates the log.
    fs::rename(stage.path("p.log"), stage.path("old.log")).unwrap();
    signal(pid, "HUP").unwrap();
    let reloaded =
        wait_until(PATIENCE, || stage.read("p.log").contains("configuration reloaded").then_some(()));
    assert!(reloaded.is_some(), "{}", stage.read("old.log"));
    signal(pid, "TERM").unwrap();
    let gone = wait_until(PATIENCE, || (!stage.path("p.pid").exists() && !socket.exists()).then_some(()));
    assert!(gone.is_some(), "{}", stage.read("p.log"));
    assert!(stage.read("p.log").contains("got SIGTERM, shutting down, waiting for all clients disconnect"));
    // The lines are those that log readers know.
    for line in (stage.read("old.log") + &stage.read("p.log")).lines() {
        let (date, rest) = line.split_at(10);
        assert!(date.bytes().filter(|byte| *byte == b'-').count() == 2, "{line}");
        assert!(
            rest.contains(&format!(" UTC [{pid}] ")) || rest.contains("stale") || rest.contains("WARNING"),
            "{line}"
        );
    }
}

#[test]
fn a_usual_configuration_serves_as_it_is() {
    let (stage, database) = (Stage::new(), Database::new());
    let scram = database.sql("SELECT rolpassword FROM pg_authid WHERE rolname = 'scram_user'").remove(0);
    let md5 = database.sql("SELECT rolpassword FROM pg_authid WHERE rolname = 'md5_user'").remove(0);
    stage.file(
        "userlist.txt",
        &format!(
            ";; users\n\"app\" \"{}\"\n\"scram_user\" \"{scram}\" \"rest\"\n\"md5_user\" \"{md5}\"\n\"boss\" \"b\"\"oss\"\n",
            password_of("app")
        ),
    );
    stage.file("limits.ini", "default_pool_size = 3\n; of the whole process\nmax_client_conn = 50\n");
    let ini = format!(
        ";;;\n;;; PgBouncer configuration file\n;;;\n[databases]\n\
         {name} = host=127.0.0.1 port={port} connect_query='SELECT 1'\n\
         'other name' = host=127.0.0.1 port={port} dbname={name} user=app password='{password}' application_name=forced\n\
         * = host=127.0.0.1 port={port}\n\
         [users]\n;user1 = pool_size=5\napp = pool_mode=transaction\n\
         [pgbouncer]\n\tlisten_addr = localhost\nlisten_port = @PORT@\nunix_socket_dir = @DIR@\nunix_socket_mode = 0700\n\
         auth_type = md5\nauth_file = @DIR@/userlist.txt\nadmin_users = boss, app\nlogfile = @DIR@/pgbouncer.log\n\
         pidfile = @DIR@/pgbouncer.pid\n%include {dir}/limits.ini\nserver_reset_query = DISCARD ALL\n\
         ignore_startup_parameters = extra_float_digits\npkt_buf = 8192\n\
         application_name_add_host = 1\n",
        name = database.name,
        port = database.port,
        password = password_of("app"),
        dir = stage.dir.path().display(),
    );
    stage.file("pgbouncer.ini", &ini);
    let run = stage.start(&[]);
    let socket = stage.dir.path().to_str().unwrap();
    let name = database.name.as_str();
    let ask = |user: &str, database: &str, sql: &str| {
        let password = if user == "boss" { "b\"oss".to_owned() } else { password_of(user) };
        let output = stage.psql("127.0.0.1", user, database, &password, sql);
        if output.status.success() { out(&output) } else { err(&output) }
    };
    let who = "SELECT current_user || ' ' || current_database() || ' ' || split_part(current_setting('application_name'), ' - 127.0.0.1:', 1)";
    assert_eq!(ask("app", name, who), format!("app {name} psql\n"));
    assert_eq!(ask("scram_user", name, who), format!("scram_user {name} psql\n"), "SCRAM passes through");
    assert_eq!(ask("md5_user", name, who), format!("md5_user {name} psql\n"));
    assert_eq!(ask("boss", "other name", who), format!("app {name} psql\n"));
    assert_eq!(ask("app", "postgres", "SELECT current_database()"), "postgres\n");
    assert!(ask("app", "nosuchdb", "SELECT 1").contains("database \"nosuchdb\" does not exist"));
    let refused = stage.psql("127.0.0.1", "app", name, "wrong", "SELECT 1");
    assert!(err(&refused).contains("password authentication failed"), "{}", err(&refused));
    assert!(ask("app", name, "SHOW application_name").starts_with("psql - 127.0.0.1:"));
    let local = stage.psql(socket, "app", name, &password_of("app"), "SHOW application_name");
    assert!(out(&local).starts_with("psql - unix("), "{}", err(&local));
    let mode = fs::metadata(stage.path(&stage.filled(".s.PGSQL.@PORT@"))).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    assert_eq!(stage.read("pgbouncer.pid"), format!("{}\n", run.process.pid()));

    assert!(ask("boss", "pgbouncer", "SHOW VERSION").starts_with("PgBouncer 1."));
    let shown = ask("boss", "pgbouncer", "SHOW CONFIG");
    for line in [
        "default_pool_size|3|20|yes",
        "max_client_conn|50|100|yes",
        "pool_mode|session|session|yes",
        "unix_socket_mode|448|0777|no",
        "auth_type|md5|md5|yes",
        "pkt_buf|8192|4096|no",
        &stage.filled("conffile|@DIR@/pgbouncer.ini||yes"),
        &stage.filled("listen_port|@PORT@|6432|no"),
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line} in {shown}");
    }
    let pools = ask("boss", "pgbouncer", "SHOW POOLS");
    let mode_of = |user: &str| {
        let line = pools.lines().find(|line| line.starts_with(&format!("{name}|{user}|")));
        line.and_then(|line| line.split('|').nth_back(1)).unwrap_or_default().to_owned()
    };
    assert_eq!(
        (mode_of("app").as_str(), mode_of("scram_user").as_str()),
        ("transaction", "session"),
        "{pools}"
    );

    // What a file with an error does, what a good one does, what SET does until then.
    assert_eq!(
        ask("boss", "pgbouncer", "SET query_timeout = '7'"),
        "SET\n".replace("SET", "SET query_timeout=7")
    );
    assert!(ask("boss", "pgbouncer", "SHOW CONFIG").contains("query_timeout|7|0|yes"));
    stage.file("pgbouncer.ini", &ini.replace("pkt_buf", "pkt_buff"));
    let refused = ask("boss", "pgbouncer", "RELOAD");
    assert!(
        refused.contains("RELOAD failed, see logs") && refused.contains("did you mean pkt_buf?"),
        "{refused}"
    );
    assert!(ask("boss", "pgbouncer", "SHOW CONFIG").contains("query_timeout|7|0|yes"));
    stage.file("limits.ini", "default_pool_size = 4\nlisten_backlog = 7\n");
    stage.file("pgbouncer.ini", &ini);
    assert_eq!(ask("boss", "pgbouncer", "RELOAD"), "RELOAD\n");
    let shown = ask("boss", "pgbouncer", "SHOW CONFIG");
    for line in [
        "default_pool_size|4|20|yes",
        "max_client_conn|100|100|yes",
        "query_timeout|0|0|yes",
        "listen_backlog|128|128|no",
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line} in {shown}");
    }
    run.wait_for_log("listen_backlog has changed: takes effect after a restart");
    for part in [
        "WARNING",
        "pkt_buf makes no difference: ",
        &format!("LOG C-0x0: {name}/app@127.0.0.1:"),
        &format!(" login attempt: db={name} user=app tls=no replication=no"),
        &format!("LOG S-0x0: {name}/app@127.0.0.1:{} new connection to server", database.port),
        "pooler error: password authentication failed",
    ] {
        assert!(stage.read("stderr").contains(part), "{part} in\n{}", stage.read("stderr"));
    }
    run.stop();
    assert_eq!(stage.read("stderr"), stage.read("pgbouncer.log"));
    assert!(!stage.read("stderr").contains(&password_of("app")));
    assert!(!stage.path("pgbouncer.pid").exists());
}

#[test]
fn users_are_looked_up_by_auth_query() {
    let (stage, database) = (Stage::new(), Database::new());
    database.sql(
        "CREATE FUNCTION look(text) RETURNS TABLE (a text, b text) LANGUAGE sql SECURITY DEFINER AS $$ \
                  SELECT rolname, rolpassword FROM pg_authid WHERE rolname = $1 $$",
    );
    stage.file("userlist.txt", &format!("\"other\" \"{}\"\n", password_of("other")));
    stage.file(
        "pgbouncer.ini",
        &format!(
            "[databases]\n{name} = host=127.0.0.1 port={port} auth_query='SELECT a, b FROM look($1)'\n\
             plain = host=127.0.0.1 port={port} dbname={name}\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = @PORT@\nunix_socket_dir =\nauth_type = scram-sha-256\n\
             auth_file = @DIR@/userlist.txt\nauth_user = other\nstats_users = app\n",
            name = database.name,
            port = database.port
        ),
    );
    let run = stage.start(&[]);
    let ask = |database: &str, password: &str| {
        stage.psql("127.0.0.1", "app", database, password, "SELECT current_user")
    };
    let answer = ask(&database.name, &password_of("app"));
    assert_eq!(out(&answer), "app\n", "{}", err(&answer));
    let refused = ask(&database.name, "wrong");
    assert!(err(&refused).contains("password authentication failed for user \"app\""), "{}", err(&refused));
    // `other` may not read pg_authid itself.
    let refused = ask("plain", &password_of("app"));
    assert!(err(&refused).contains("the user cannot be looked up"), "{}", err(&refused));
    run.wait_for_log("permission denied for table pg_authid");
    run.stop();
}

#[test]
fn hba_lines_that_cannot_be_read_are_passed_over_unless_they_keep_somebody_out() {
    let (stage, database) = (Stage::new(), Database::new());
    stage.file("userlist.txt", &format!("\"app\" \"{}\"\n", password_of("app")));
    stage.file("hba", "host all +group all trust\nlocal samerole all peer\nhost sameuser all all trust\nhost all app 127.0.0.1/32 md5\n");
    stage.file(
        "pgbouncer.ini",
        &format!(
            "[databases]\n{} = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = @PORT@\n\
             unix_socket_dir =\nauth_type = hba\nauth_hba_file = @DIR@/hba\nauth_file = @DIR@/userlist.txt\n",
            database.name, database.port
        ),
    );
    let run = stage.start(&[]);
    let answer = stage.psql("127.0.0.1", "app", &database.name, &password_of("app"), "SELECT 1");
    assert_eq!(out(&answer), "1\n", "{}", err(&answer));
    run.wait_for_log("hba:1: \"+group\" is not supported (correct the line");
    run.wait_for_log("hba:2: \"samerole\" is not supported (correct the line");
    run.stop();
    stage.file("hba", "host all +group all reject\nhost all all all trust\n");
    let refused = stage.run(stage.path("pgbouncer").to_str().unwrap(), &["pgbouncer.ini"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        err(&refused).contains("hba:1: \"+group\" is not supported (correct the line: without it more"),
        "{}",
        err(&refused)
    );
}

#[test]
fn tls_towards_clients_is_as_configured() {
    let (stage, database) = (Stage::new(), Database::new());
    for name in ["server.crt", "server.key"] {
        stage.file(name, &fs::read_to_string(certificates().join(name)).unwrap());
    }
    stage.file("userlist.txt", &format!("\"app\" \"{}\"\n", password_of("app")));
    stage.file(
        "pgbouncer.ini",
        &format!(
            "[databases]\n{} = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = @PORT@\n\
             unix_socket_dir =\nauth_type = scram-sha-256\nauth_file = @DIR@/userlist.txt\nclient_tls_sslmode = require\n\
             client_tls_cert_file = @DIR@/server.crt\nclient_tls_key_file = @DIR@/server.key\n\
             client_tls_protocols = tlsv1.1,tlsv1.2\nclient_tls_ciphers = HIGH:!aNULL:!AES256:!CHACHA20\nserver_tls_sslmode = require\n",
            database.name, database.port
        ),
    );
    let run = stage.start(&[]);
    let ask = |mode: &str| {
        let parameters = format!("dbname={} sslmode={mode}", database.name);
        stage.psql(
            "127.0.0.1",
            "app",
            &parameters,
            &password_of("app"),
            "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()",
        )
    };
    assert_eq!(out(&ask("require")), "t\n", "{}", err(&ask("require")));
    run.wait_for_log("user=app tls=TLSv1.2/TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 replication=no");
    let newer = ask("require ssl_min_protocol_version=TLSv1.3");
    assert_ne!(newer.status.code(), Some(0));
    assert!(err(&ask("disable")).contains("SSL required"), "{}", err(&ask("disable")));
    run.stop();
}

#[test]
fn systemd_is_told_what_becomes_of_the_process() {
    let stage = Stage::new();
    stage.file("pgbouncer.ini", INI);
    let systemd = Systemd::at(&stage.path("notify"));
    let told = || systemd.told();
    let run = stage.start(&[("NOTIFY_SOCKET", systemd.path.to_str().unwrap())]);
    assert_eq!(told(), "READY=1");
    run.process.signal("HUP").unwrap();
    assert!(told().starts_with("RELOADING=1\nMONOTONIC_USEC="));
    assert_eq!(told(), "READY=1");
    run.stop();
    assert_eq!(told(), "STOPPING=1");
}

#[test]
fn the_toml_that_import_prints_can_be_used() {
    let stage = Stage::new();
    stage.file("userlist.txt", "\"app\" \"x\"\n");
    stage.file(
        "p.ini",
        &format!(
            "{INI}auth_file = userlist.txt\npkt_buf = 1\n[databases]\na = host=h password='${{x}}' user=u\n"
        ),
    );
    let program = env!("CARGO_BIN_EXE_pooler");
    let imported = stage.run(program, &["import", "p.ini"]);
    assert_eq!(imported.status.code(), Some(0), "{}", err(&imported));
    let toml = stage.file("p.toml", &out(&imported));
    let checked = stage.run(program, &["check", "-c", toml.to_str().unwrap()]);
    assert_eq!(checked.status.code(), Some(0), "{}{}", out(&checked), out(&imported));
    assert!(out(&checked).contains("p.toml: ok (1 database, 1 user, "), "{}", out(&checked));
    for part in [
        "pool_mode = \"session\"",
        "# \"transaction\" shares",
        "# Not here: pkt_buf = 1 (",
        "password = \"$${x}\"",
    ] {
        assert!(out(&imported).contains(part), "{part} in\n{}", out(&imported));
    }
    stage.file("p.ini", "[pgbouncer]\nnope = 1\n");
    let refused = stage.run(program, &["import", "p.ini"]);
    assert_eq!((refused.status.code(), out(&refused).as_str()), (Some(1), ""));
    assert!(err(&refused).contains("p.ini:2: unknown parameter: pgbouncer/nope"), "{}", err(&refused));
    // An ini is known by its name, too.
    stage.file("p.ini", INI);
    let checked = stage.run(program, &["check", "-c", "p.ini"]);
    assert!(out(&checked).contains("p.ini: ok (0 databases"), "{}", out(&checked));
}

#[test]
fn online_restart_takes_the_place_of_the_old_process() {
    let stage = Stage::new();
    let program = stage.path("pgbouncer");
    let program = program.to_str().unwrap();
    stage.file("p.ini", &format!("{INI}pidfile = p.pid\nlogfile = p.log\n"));
    let pid = || stage.read("p.pid").trim().parse::<u32>().ok();
    let start = || {
        let before = pid();
        let started = stage.run(program, &["-d", "-R", "p.ini"]);
        assert_eq!((started.status.code(), out(&started).as_str()), (Some(0), ""), "{}", err(&started));
        let new = wait_until(PATIENCE, || pid().filter(|_| pid() != before));
        Daemon(new.unwrap_or_else(|| panic!("{}", stage.read("p.log"))))
    };
    let first = start();
    assert!(stage.read("p.log").contains("LOG old process not found, try to continue normally"));
    let socket = stage.path(&stage.filled(".s.PGSQL.@PORT@"));
    let second = start();
    let gone = wait_until(PATIENCE, || {
        let status = fs::read_to_string(format!("/proc/{}/status", first.0)).unwrap_or_default();
        (status.is_empty() || status.contains("State:\tZ")).then_some(())
    });
    assert!(gone.is_some(), "{}", stage.read("p.log"));
    for line in [
        &format!("LOG taking over 1 sockets from process {}", first.0),
        &format!("LOG process {} has taken over", second.0),
        "LOG client connections dropped, exiting",
    ] {
        assert!(stage.read("p.log").contains(line), "{line} in\n{}", stage.read("p.log"));
    }
    assert!(socket.exists());
    assert_eq!(pid(), Some(second.0));
    signal(second.0, "TERM").unwrap();
    assert!(wait_until(PATIENCE, || (!socket.exists() && pid().is_none()).then_some(())).is_some());
}

/// All hosts have the port of the line. Nobody is at the first one.
#[test]
fn lists_of_hosts_and_settings_about_them_are_those_of_pgbouncer() {
    let database = Database::new();
    let stage = Stage::new();
    let name = database.name.as_str();
    let ini = format!(
        "[databases]\n{name} = host=127.0.0.9,127.0.0.1 port={} load_balance_hosts=disable\n\
         [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = @PORT@\nunix_socket_dir =\nauth_type = plain\n\
         auth_file = @DIR@/users\nadmin_users = boss\npool_mode = transaction\ndefault_pool_size = 1\nquery_wait_notify = 1\n\
         login_notify_message = welcome\n",
        database.port
    );
    stage.file("users", &format!("\"app\" \"{}\"\n\"boss\" \"b\"\n", password_of("app")));
    stage.file("pgbouncer.ini", &ini);
    let run = stage.start(&[]);
    let ask = |sql: &str| stage.psql("127.0.0.1", "app", name, &password_of("app"), sql);
    let console = |sql: &str| out(&stage.psql("127.0.0.1", "boss", "pgbouncer", "b", sql));
    let answer = ask("SELECT 'reached'");
    assert_eq!(out(&answer), "reached\n", "{}", err(&answer));
    assert_eq!(err(&answer), "NOTICE:  welcome\n");
    run.wait_for_log("this host is passed over");
    let shown = console("SHOW DATABASES");
    let line = format!("{name}|127.0.0.9,127.0.0.1|{}|{name}|", database.port);
    assert!(shown.lines().any(|shown| shown.starts_with(&line) && shown.contains("|disable|")), "{shown}");
    assert!(console("SHOW POOLS").contains("|transaction|disable\n"));
    let waits = std::thread::scope(|scope| {
        let holds = scope.spawn(|| ask("SELECT pg_sleep(3)"));
        database.wait_for("SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(3)'", &["1"]);
        let waits = ask("SELECT 'late'");
        assert!(holds.join().unwrap().status.success());
        waits
    });
    assert_eq!(out(&waits), "late\n");
    let queued = "NOTICE:  No server connection available in postgres backend, client being queued\n";
    assert_eq!(err(&waits), format!("NOTICE:  welcome\n{queued}"));
    // PgBouncer's default.
    stage.file("pgbouncer.ini", &ini.replace("query_wait_notify = 1\n", ""));
    assert_eq!(console("RELOAD"), "RELOAD\n");
    assert!(console("SHOW CONFIG").contains("query_wait_notify|5|5|yes\n"));
    run.stop();
}
