//! Restarts that nobody notices: new processes beside old ones, and sockets that stay open meanwhile.

use std::{
    fs,
    io::Write as _,
    net::TcpStream,
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use pooler::demo::{
    cluster::Binaries,
    process::{Guarded, RunAs, TempDir, free_port, signal, wait_until},
};

use crate::support::{
    compare::Pair,
    database::{Database, ROLES, certificates, password_of},
    msg::*,
    raw::{PATIENCE, Raw},
    systemd::Systemd,
    tls,
};

const SLEEPING: &str = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                        AND state = 'active' AND query LIKE 'SELECT pg_sleep%'";

/// One of several processes on the same port, which has a unix socket to itself.
pub struct Instance {
    process: Guarded,
    dir: TempDir,
    /// Where its unix socket is.
    sockets: PathBuf,
    port: u16,
}

impl Instance {
    /// With these lines in `[pooler]` and these sections. `before` is what runs it.
    pub fn start(
        database: &Database,
        port: u16,
        dir: TempDir,
        before: &[&str],
        settings: &str,
        sections: &str,
    ) -> Self {
        let sockets = dir.path().to_owned();
        let settings = format!("listen_port = {port}\n{settings}");
        Self::start_at(&sockets, database, port, dir, (before, &[]), &settings, sections)
    }

    /// In the place of this one.
    pub fn take_over(&self, database: &Database, settings: &str) -> Self {
        self.take_over_with(database, settings, "")
    }

    fn take_over_with(&self, database: &Database, settings: &str, sections: &str) -> Self {
        let dir = TempDir::new(None).unwrap();
        let settings = format!("listen_port = {}\n{settings}", self.port);
        Self::start_at(&self.sockets, database, self.port, dir, (&[], &["-R"]), &settings, sections)
    }

    /// Clients that are not the console's.
    fn clients(&self) -> usize {
        self.console("SHOW CLIENTS").iter().filter(|row| !row.contains("|pooler|")).count()
    }

    fn wait_for_clients(&self, number: usize) {
        let met = wait_until(PATIENCE, || (self.clients() == number).then_some(()));
        assert!(met.is_some(), "{:#?}\n{}", self.console("SHOW CLIENTS"), self.log());
    }

    fn start_at(
        sockets: &Path,
        database: &Database,
        port: u16,
        dir: TempDir,
        (before, options): (&[&str], &[&str]),
        settings: &str,
        sections: &str,
    ) -> Self {
        let toml = dir.path().join("pooler.toml");
        let user = |role| format!("[users.{role}]\npassword = \"{}\"\n", password_of(role));
        let is_told = |role: &&str| !sections.contains(&format!("[users.{role}]\npassword"));
        let users: String = ROLES.iter().map(|(role, _)| *role).filter(is_told).map(user).collect();
        let text = format!(
            "[pooler]\nunix_socket_dir = \"{}\"\n{settings}\n[databases.{}]\n\
             host = \"127.0.0.1\"\nport = {}\n{users}{sections}",
            sockets.display(),
            database.name,
            database.port
        );
        fs::write(&toml, text).unwrap();
        let program = [env!("CARGO_BIN_EXE_pooler"), "run", "-c", toml.to_str().unwrap()];
        let log = dir.path().join("log");
        let _ = fs::remove_file(&log);
        let process = Guarded::spawn(None, &[before, &program, options].concat(), &log, "TERM").unwrap();
        let mut this = Self { process, dir, sockets: sockets.to_owned(), port };
        let up = wait_until(PATIENCE, || {
            let ended = this.process.ended().is_some();
            (this.log().contains("process up") || ended).then_some(!ended)
        });
        assert_eq!(up, Some(true), "{}", this.log());
        this
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    fn wait_for_log(&self, text: &str) {
        let found = wait_until(PATIENCE, || self.log().contains(text).then_some(()));
        assert!(found.is_some(), "no \"{text}\" in\n{}", self.log());
    }

    fn console(&self, command: &str) -> Vec<String> {
        let socket = self.sockets.join(format!(".s.PGSQL.{}", self.port));
        Raw::login_unix(&socket, "pooler", "pooler").sql(command)
    }

    /// Transactions so far.
    fn transactions(&self) -> u64 {
        let rows = self.console("SHOW TOTALS");
        let row = rows.iter().find_map(|row| row.strip_prefix("total_xact_count|")).unwrap();
        row.parse().unwrap()
    }

    /// Asks it to end when all have left, which has to come; its directory.
    fn leave(mut self) -> TempDir {
        self.process.signal("TERM").unwrap();
        self.ends();
        self.dir
    }

    /// Ends well, by itself.
    fn ends(&mut self) {
        let status = self.process.wait(PATIENCE).unwrap_or_else(|| panic!("goes on:\n{}", self.log()));
        assert_eq!(status.code(), Some(0), "{}", self.log());
        assert!(!self.log().contains("panicked"), "{}", self.log());
    }

    /// Where a successor asks.
    fn place(&self) -> PathBuf {
        self.sockets.join(format!(".s.POOLER.{}", self.port))
    }
}

/// Runs of pgbench, one after the other, until they are told to end.
#[derive(Default)]
struct Bench {
    over: AtomicBool,
    runs: AtomicU64,
    transactions: AtomicU64,
    failures: Mutex<Vec<String>>,
}

impl Bench {
    /// Makes its tables.
    fn prepare(database: &Database) {
        let output = Self::command(database, database.port, &["-i", "-q"]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn command(database: &Database, port: u16, arguments: &[&str]) -> Command {
        let program =
            Binaries::newest().unwrap().program("pgbench").expect("pgbench: run scripts/install.sh");
        let mut command = Command::new(program);
        command
            .args(["-h", "127.0.0.1", "-U", "app", "-p", &port.to_string()])
            .args(arguments)
            .arg(&database.name)
            .env("PGPASSWORD", password_of("app"))
            .stdin(Stdio::null());
        command
    }

    /// One run after the other.
    fn run(&self, database: &Database, port: u16, arguments: &[&str]) {
        while !self.over.load(SeqCst) {
            let output = Self::command(database, port, arguments).output().unwrap();
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let number = |name: &str| {
                let line = text.lines().find_map(|line| line.strip_prefix(name));
                line.and_then(|line| line.split(['/', ' ']).next()?.parse::<u64>().ok())
            };
            let failed = number("number of failed transactions: ");
            if !output.status.success() || failed != Some(0) {
                let told = String::from_utf8_lossy(&output.stderr);
                self.failures.lock().unwrap().push(format!("{arguments:?}: {text}{told}"));
            }
            self.transactions
                .fetch_add(number("number of transactions actually processed: ").unwrap_or(0), SeqCst);
            self.runs.fetch_add(1, SeqCst);
        }
    }

    /// Load of all kinds, some of it by clients that stay for `long`, while `during` does what it does to the processes behind the port. Nothing may fail, or be done
    /// twice.
    fn while_it_runs(database: &Database, port: u16, long: &[&[&str]], during: impl FnOnce(&Self)) {
        Self::prepare(database);
        let bench = Self::default();
        let short: [&[&str]; 4] = [
            &["-n", "-C", "-c", "2", "-T", "1", "-M", "simple"],
            &["-n", "-C", "-c", "2", "-T", "1", "-M", "extended"],
            &["-n", "-c", "3", "-T", "1", "-M", "simple"],
            &["-n", "-c", "3", "-T", "1", "-M", "prepared"],
        ];
        std::thread::scope(|scope| {
            for arguments in short.iter().chain(long) {
                let bench = &bench;
                scope.spawn(move || bench.run(database, port, arguments));
            }
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| during(&bench)));
            bench.over.store(true, SeqCst);
            result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        });
        assert_eq!(bench.failures.into_inner().unwrap(), Vec::<String>::new());
        let truth =
            "SELECT count(*), sum(delta) = (SELECT sum(abalance) FROM pgbench_accounts) FROM pgbench_history";
        assert_eq!(database.sql(truth), [format!("{}|t", bench.transactions.into_inner())]);
    }

    /// Some more of the load has been begun and ended.
    fn goes_on(&self) {
        let before = self.runs.load(SeqCst);
        let on = wait_until(4 * PATIENCE, || (self.runs.load(SeqCst) > before + 6).then_some(()));
        assert!(on.is_some(), "no load: {:?}", self.failures.lock().unwrap());
    }
}

// The rehearsal: two processes on one port, which are peers, are replaced in turn.
#[test]
fn rolling_restart_fails_no_transaction_and_cancel_works_through_whoever_is_there() {
    let database = Database::new();
    let port = free_port().unwrap();
    let dirs: Vec<TempDir> = (0..2).map(|_| TempDir::new(None).unwrap()).collect();
    let peers: String = (1..)
        .zip(&dirs)
        .map(|(id, dir)| format!("[peers.{id}]\nhost = \"{}\"\nport = {port}\n", dir.path().display()))
        .collect();
    let start = |id: usize, dir: TempDir| {
        let settings = format!("so_reuseport = true\npeer_id = {id}\ndefault_pool_size = 5");
        Instance::start(&database, port, dir, &[], &settings, &peers)
    };
    let mut instances: Vec<Option<Instance>> =
        (1..).zip(dirs).map(|(id, dir)| Some(start(id, dir))).collect();
    Bench::while_it_runs(&database, port, &[], |bench| {
        for turn in 0..4 {
            bench.goes_on();
            for instance in instances.iter().flatten() {
                assert!(instance.transactions() > 0, "{}", instance.log());
            }
            for _ in 0..10 {
                let mut client = Raw::login(port, "app", &database.name, &password_of("app"));
                client.send(&query("SELECT pg_sleep(600)"));
                database.wait_for(SLEEPING, &["1"]);
                client.cancel();
                assert_eq!(client.ready(1)[1].field(b'C'), "57014");
            }
            let slot = turn % 2;
            let old = instances[slot].take().unwrap();
            let dir = old.leave();
            instances[slot] = Some(start(slot + 1, dir));
        }
    });
    for instance in instances.into_iter().flatten() {
        instance.leave();
    }
}

#[test]
fn who_has_come_before_a_shutdown_is_served_to_the_end() {
    let mut pair = Pair::new();
    let open = || Raw::open(pair.pooler.port);
    let mut early: Vec<Raw> = (0..5).map(|_| open()).collect();
    // In the kernel's queue when the signal comes.
    pair.pooler.signal("STOP");
    early.extend((0..20).map(|_| open()));
    pair.pooler.signal("TERM");
    pair.pooler.signal("CONT");
    pair.pooler.wait_for_log("got SIGTERM");
    let refused = || TcpStream::connect(("127.0.0.1", pair.pooler.port)).is_err().then_some(());
    assert!(wait_until(PATIENCE, refused).is_some(), "still accepts");
    for mut client in early {
        client.try_login("app", &pair.database.name, &password_of("app"), &[]).unwrap();
        assert_eq!(client.sql("SELECT 'served'"), ["served"]);
        assert!(pair.pooler.is_running());
    }
    assert_eq!(pair.pooler.ended(), Some(0));
}

#[test]
fn connection_that_never_logs_in_ends_a_shutdown_with_its_time() {
    let mut pair = Pair::with(&["client_login_timeout = \"500ms\""]);
    let mut silent = Raw::open(pair.pooler.port);
    pair.pooler.signal("TERM");
    assert_eq!(silent.closed().last().unwrap().field(b'M'), "client_login_timeout");
    assert_eq!(pair.pooler.ended(), Some(0));
}

#[test]
fn systemd_hears_how_long_an_end_may_take() {
    let dir = TempDir::new(None).unwrap();
    let systemd = Systemd::at(&dir.path().join("notify"));
    let told = || systemd.told();
    let database = Database::new();
    let notify = format!("NOTIFY_SOCKET={}", systemd.path.display());
    let own = TempDir::new(None).unwrap();
    let port = free_port().unwrap();
    let mut instance =
        Instance::start(&database, port, own, &["env", &notify], "shutdown_timeout = \"300ms\"", "");
    assert_eq!(told(), "READY=1");
    let mut client = Raw::login(port, "app", &database.name, &password_of("app"));
    client.sql("SELECT 1");
    instance.process.signal("TERM").unwrap();
    // At the beginning: the client is still there.
    assert_eq!(told(), "STOPPING=1\nEXTEND_TIMEOUT_USEC=10300000");
    assert_eq!(client.closed().last().unwrap().field(b'C'), "57P01");
    instance.wait_for_log("shutdown_timeout is over, dropping 1 client connections");
    assert_eq!(instance.process.wait(PATIENCE).unwrap().code(), Some(0));
}

/// Does what systemd does for a socket unit: opens the sockets, and starts the service with them, again when it has ended.
const SOCKET_UNIT: &str = r#"
use Socket; use strict;
my ($port, $path, @program) = @ARGV;
$^F = 100;
socket(my $tcp, PF_INET, SOCK_STREAM, 0) or die; setsockopt($tcp, SOL_SOCKET, SO_REUSEADDR, 1);
bind($tcp, sockaddr_in($port, INADDR_LOOPBACK)) or die $!; listen($tcp, 100);
socket(my $unix, PF_UNIX, SOCK_STREAM, 0) or die; bind($unix, sockaddr_un($path)) or die $!; listen($unix, 100);
die unless fileno($tcp) == 3 && fileno($unix) == 4;
for (1..2) {
    my $child = fork();
    if (!$child) { $ENV{LISTEN_PID} = $$; $ENV{LISTEN_FDS} = 2; exec @program; }
    $SIG{TERM} = sub { kill 'TERM', $child };
    1 while waitpid($child, 0) < 0;
    exit $? >> 8 if $?;
}
"#;

#[test]
fn sockets_of_systemd_are_served_and_nobody_is_refused_while_the_service_restarts() {
    let database = Database::new();
    let dir = TempDir::new(None).unwrap();
    let (port, unused) = (free_port().unwrap(), free_port().unwrap());
    // Where a socket of its own would be.
    let path = dir.path().join(format!(".s.PGSQL.{unused}"));
    let (number, file) = (port.to_string(), path.display().to_string());
    let before = ["perl", "-e", SOCKET_UNIT, &number, &file];
    let mut instance = Instance::start(&database, unused, dir, &before, "", "");
    let pid = |log: &str, nth: usize| {
        let mut lines = log.lines().filter(|line| line.contains("process up: "));
        let line = lines.nth(nth).unwrap_or_else(|| panic!("{log}"));
        line.rsplit(' ').next().unwrap().parse::<u32>().unwrap()
    };
    assert!(instance.log().contains("sockets passed by systemd"), "{}", instance.log());
    assert!(instance.log().contains(&format!("listening on 127.0.0.1:{port}")), "{}", instance.log());
    assert!(instance.log().contains(&format!("listening on {file}")), "{}", instance.log());
    assert!(TcpStream::connect(("127.0.0.1", unused)).is_err());
    let login = |over_unix: bool| {
        let mut raw = if over_unix { Raw::open_unix(&path) } else { Raw::open(port) };
        raw.try_login("app", &database.name, &password_of("app"), &[]).unwrap();
        raw
    };
    let mut early = login(false);
    assert_eq!(login(true).sql("SELECT 1"), ["1"]);
    signal(pid(&instance.log(), 0), "TERM").unwrap();
    instance.wait_for_log("got SIGTERM");
    std::thread::scope(|scope| {
        let late: Vec<_> = [false, true, false, true]
            .map(|unix| scope.spawn(move || login(unix).sql("SELECT 'late'")))
            .into();
        assert_eq!(early.sql("SELECT 2"), ["2"]);
        std::thread::sleep(Duration::from_millis(200));
        assert!(late.iter().all(|late| !late.is_finished()), "served by a process that is about to end");
        drop(early);
        for late in late {
            assert_eq!(late.join().unwrap(), ["late"]);
        }
    });
    assert!(path.exists(), "it is not pooler's to remove");
    // No descriptor is left for programs that the process starts.
    let second = pid(&instance.log(), 1);
    for fd in [3, 4] {
        let info = fs::read_to_string(format!("/proc/{second}/fdinfo/{fd}"));
        let flags = info.iter().flat_map(|text| text.lines()).find_map(|line| line.strip_prefix("flags:"));
        let flags = flags.map(|flags| u32::from_str_radix(flags.trim(), 8).unwrap());
        assert_eq!(flags.map(|flags| flags & 0o2_000_000), Some(0o2_000_000), "close-on-exec of {fd}");
    }
    signal(second, "TERM").unwrap();
    assert_eq!(instance.process.wait(PATIENCE).unwrap().code(), Some(0), "{}", instance.log());
}

#[test]
fn what_is_no_listening_socket_ends_the_start() {
    let database = Database::new();
    let dir = TempDir::new(None).unwrap();
    let toml = dir.path().join("p.toml");
    fs::write(&toml, format!("[databases.{}]\nhost = \"h\"\n[users.app]\npassword = \"x\"\n", database.name))
        .unwrap();
    // Descriptor 3 is a file.
    let script = "exec 3</dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$@\"";
    let output = Command::new("/bin/sh")
        .args(["-c", script, "sh", env!("CARGO_BIN_EXE_pooler"), "run", "-c", toml.to_str().unwrap()])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("cannot listen on a socket passed by systemd"), "{told}");
}

#[test]
fn sockets_that_are_meant_for_another_process_are_left_alone() {
    let (database, port) = (Database::new(), free_port().unwrap());
    let before = ["env", "LISTEN_PID=1", "LISTEN_FDS=1"];
    let instance = Instance::start(&database, port, TempDir::new(None).unwrap(), &before, "", "");
    assert_eq!(Raw::login(port, "app", &database.name, &password_of("app")).sql("SELECT 1"), ["1"]);
    instance.leave();
}

/// A client of `app` by the port that all share.
fn login(port: u16, database: &Database) -> Raw {
    Raw::login(port, "app", &database.name, &password_of("app"))
}

// The rehearsal: one process takes over from the other, again and again.
#[test]
fn takeover_fails_no_transaction_and_cancel_finds_clients_of_every_process() {
    let (database, port) = (Database::new(), free_port().unwrap());
    let dir = TempDir::new(None).unwrap();
    let pidfile = dir.path().join("pid");
    let settings = format!("default_pool_size = 5\npidfile = \"{}\"", pidfile.display());
    let mut processes = vec![Instance::start(&database, port, dir, &[], &settings, "")];
    let mut stay = Vec::new();
    let long: [&[&str]; 2] =
        [&["-n", "-c", "2", "-T", "20", "-M", "prepared"], &["-n", "-c", "2", "-T", "20", "-M", "simple"]];
    Bench::while_it_runs(&database, port, &long, |bench| {
        for turn in 0..4 {
            bench.goes_on();
            let mut client = login(port, &database);
            client.sql("BEGIN");
            stay.push(client);
            let old = processes.last().unwrap();
            let new = old.take_over(&database, &settings);
            old.wait_for_log(&format!("process {} has taken over", new.process.pid()));
            assert_eq!(fs::read_to_string(&pidfile).unwrap(), format!("{}\n", new.process.pid()), "{turn}");
            assert_eq!(new.console("SHOW CLIENTS").iter().filter(|row| row.contains("|pooler|")).count(), 1);
            processes.push(new);
        }
        bench.goes_on();
        // Of the first process, the last one, and all in between.
        stay.push(login(port, &database));
        for client in &mut stay {
            client.send(&query("SELECT pg_sleep(600)"));
            database.wait_for(SLEEPING, &["1"]);
            client.cancel();
            assert_eq!(client.ready(1)[1].field(b'C'), "57014");
            client.sql("ROLLBACK");
            assert_eq!(client.sql("SELECT 'goes on'"), ["goes on"]);
        }
    });
    drop(stay);
    let last = processes.pop().unwrap();
    for process in &mut processes {
        process.ends();
    }
    // Those who stayed for long did so through all of the processes.
    // Told when the old process is gone; those that end at the same time may not come to say it.
    last.wait_for_log(" clients have come from the old process");
    for process in processes.iter().skip(1).chain([&last]) {
        assert!(!process.log().contains(" 0 clients have come"), "{}", process.log());
    }
    let left: Vec<_> = fs::read_dir(&last.sockets)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with(".s."))
        .collect();
    assert_eq!(left.len(), 2, "sockets of processes that are gone: {left:?}");
    assert!(login(port, &database).sql("SELECT 1") == ["1"]);
    last.leave();
    assert!(!pidfile.exists());
}

// S50
#[test]
fn descriptors_stay_as_many_as_they_were_from_process_to_process() {
    let (database, port) = (Database::new(), free_port().unwrap());
    let descriptors = |instance: &Instance| {
        let count = || fs::read_dir(format!("/proc/{}/fd", instance.process.pid())).unwrap().count();
        login(port, &database).sql("SELECT 1");
        // The client has been forgotten, too.
        let quiet = || (instance.log().matches("client unexpected eof").count() >= 1).then_some(());
        assert!(wait_until(PATIENCE, quiet).is_some(), "{}", instance.log());
        count()
    };
    let mut process = Instance::start(&database, port, TempDir::new(None).unwrap(), &[], "", "");
    let first = descriptors(&process);
    for _ in 0..3 {
        let next = process.take_over(&database, "");
        process.ends();
        // The sockets of the first one have gone with it: its directory is in use.
        let old = std::mem::replace(&mut process, next);
        assert_eq!(descriptors(&process), first, "{}", process.log());
        std::mem::forget(old.dir);
    }
    process.leave();
}

/// Clients that stay with the old process could not go on: nobody can tell it RESUME any more.
#[test]
fn takeover_is_refused_while_databases_are_paused_and_keeps_what_is_disabled() {
    let (database, port) = (Database::new(), free_port().unwrap());
    let mut old = Instance::start(&database, port, TempDir::new(None).unwrap(), &[], "", "");
    old.console(&format!("PAUSE {}", database.name));
    let toml = old.dir.path().join("pooler.toml");
    let second = Command::new(env!("CARGO_BIN_EXE_pooler")).arg("run").arg("-R").arg("-c").arg(toml).output();
    let second = second.unwrap();
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(
        !second.status.success() && said.contains("its databases are paused: RESUME there first"),
        "{said}"
    );
    old.console(&format!("RESUME {}", database.name));
    assert_eq!(login(port, &database).sql("SELECT 1"), ["1"]);
    old.console(&format!("DISABLE {}", database.name));
    let new = old.take_over(&database, "");
    old.ends();
    let mut raw = Raw::open(port);
    let refused = raw.try_login("app", &database.name, &password_of("app"), &[]).unwrap_err();
    assert!(refused.field(b'M').contains("is disabled"), "{refused:?}");
    new.console(&format!("ENABLE {}", database.name));
    assert_eq!(login(port, &database).sql("SELECT 1"), ["1"]);
    new.leave();
}

#[test]
fn takeover_ends_with_its_time_for_those_who_stay() {
    let (database, port) = (Database::new(), free_port().unwrap());
    let mut old = Instance::start(
        &database,
        port,
        TempDir::new(None).unwrap(),
        &[],
        "shutdown_timeout = \"500ms\"",
        "",
    );
    let mut client = login(port, &database);
    client.sql("BEGIN");
    let new = old.take_over(&database, "");
    assert_eq!(client.closed().last().unwrap().field(b'C'), "57P01");
    old.ends();
    assert_eq!(login(port, &database).sql("SELECT 1"), ["1"]);
    new.leave();
}

#[test]
fn systemd_hears_which_process_is_the_service_now() {
    let dir = TempDir::new(None).unwrap();
    let systemd = Systemd::at(&dir.path().join("notify"));
    let told = || systemd.told();
    let (database, port) = (Database::new(), free_port().unwrap());
    let notify = format!("NOTIFY_SOCKET={}", systemd.path.display());
    let own = TempDir::new(None).unwrap();
    let mut old = Instance::start(&database, port, own, &["env", &notify], "", "");
    assert_eq!(told(), "READY=1");
    // This one is not told whom to notify.
    let new = old.take_over(&database, "");
    assert_eq!(told(), format!("MAINPID={}", new.process.pid()));
    old.ends();
    assert!(systemd.is_told_nothing(), "the service does not stop");
    new.leave();
}

/// Where all may write, anybody may take the name first.
#[test]
fn nothing_is_taken_from_another_user() {
    let Some(who) = RunAs::unprivileged().unwrap() else {
        // There is no other user to be.
        return;
    };
    let port = free_port().unwrap();
    let (theirs, own) = (TempDir::new(Some(who)).unwrap(), TempDir::new(None).unwrap());
    let path = theirs.path().join(format!(".s.POOLER.{port}"));
    let script = "use Socket; socket(my $s, PF_UNIX, SOCK_STREAM, 0); bind($s, sockaddr_un($ARGV[0])) or die; \
                  listen($s, 5); while (accept(my $c, $s)) { print STDERR 'asked: ', <$c> // '', qq(\\n); }";
    let log = theirs.path().join("log");
    let place = path.display().to_string();
    let _stranger = Guarded::spawn(Some(who), &["perl", "-e", script, &place], &log, "KILL").unwrap();
    assert!(wait_until(PATIENCE, || path.exists().then_some(())).is_some());
    let toml = own.path().join("p.toml");
    let text = format!(
        "[pooler]\nlisten_port = {port}\nunix_socket_dir = \"{}\"\n[databases.a]\nhost = \"h\"\n\
         [users.a]\npassword = \"x\"\n",
        theirs.path().display()
    );
    fs::write(&toml, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_pooler"));
    let output = command.args(["-R", "-c", toml.to_str().unwrap()]).stdin(Stdio::null()).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("cannot take over from the old process: it is another user's"), "{told}");
}

#[test]
fn whoever_asks_and_goes_again_changes_nothing() {
    let (database, port) = (Database::new(), free_port().unwrap());
    let mut old = Instance::start(&database, port, TempDir::new(None).unwrap(), &[], "", "");
    assert_eq!(fs::metadata(old.place()).unwrap().permissions().mode() & 0o777, 0o600);
    let taken = br#"{"Take":{"language":1}}"#;
    let other = br#"{"Take":{"language":77}}"#;
    let message = |body: &[u8]| [&u32::try_from(body.len()).unwrap().to_be_bytes(), body].concat();
    for bytes in
        [vec![], vec![0, 0], vec![0xff; 8], message(b"x"), message(taken), message(other), message(b"{}")]
    {
        let mut stranger = UnixStream::connect(old.place()).unwrap();
        stranger.write_all(&bytes).unwrap();
        stranger.shutdown(std::net::Shutdown::Write).unwrap();
        // Until it has been seen to; what nobody has read ends in a reset.
        let _ = std::io::copy(&mut stranger, &mut std::io::sink());
        assert_eq!(login(port, &database).sql("SELECT 1"), ["1"]);
    }
    assert!(!old.log().contains("has taken over"), "{}", old.log());
    let new = old.take_over(&database, "");
    old.ends();
    new.leave();
}

#[test]
fn the_settings_of_the_new_process_say_where_it_listens() {
    let (database, port) = (Database::new(), free_port().unwrap());
    let both = r#"listen_addr = ["127.0.0.1", "127.0.0.2"]"#;
    let mut old = Instance::start(&database, port, TempDir::new(None).unwrap(), &[], both, "");
    let mut new = old.take_over(&database, r#"listen_addr = ["127.0.0.3", "127.0.0.1"]"#);
    old.ends();
    new.wait_for_log(&format!("listening on 127.0.0.2:{port} no more"));
    let open = |address: &str| TcpStream::connect((address, port)).is_ok();
    assert_eq!(["127.0.0.1", "127.0.0.2", "127.0.0.3"].map(open), [true, false, true]);
    // One that cannot start leaves the place to the one that is there.
    let dir = TempDir::new(None).unwrap();
    let toml = dir.path().join("p.toml");
    let text = format!(
        "[pooler]\nlisten_port = {port}\nlisten_addr = [\"192.0.2.1\"]\nunix_socket_dir = \"{}\"\n\
         [databases.a]\nhost = \"h\"\n[users.a]\npassword = \"x\"\n",
        new.sockets.display()
    );
    fs::write(&toml, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_pooler"));
    let output = command.args(["-R", "-c", toml.to_str().unwrap()]).stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(new.process.ended().is_none());
    assert_eq!(login(port, &database).sql("SELECT 1"), ["1"]);
    new.wait_for_log("a successor has asked, and gone again");
    assert_eq!(new.clients(), 0, "its unix socket is where it was");
    new.leave();
}

/// Sessions of each kind that can go on elsewhere, which do so while their clients notice nothing.
#[test]
fn clients_move_between_transactions_with_all_that_is_theirs() {
    let (database, port) = (Database::new(), free_port().unwrap());
    database.sql("CREATE TABLE t (x int, y text); GRANT ALL ON t TO app");
    // What it has for a server is what its client has proved.
    let secret = database.sql("SELECT rolpassword FROM pg_authid WHERE rolname = 'scram_user'").remove(0);
    let sections = format!("[users.scram_user]\npassword = \"{secret}\"\n");
    let dir = TempDir::new(None).unwrap();
    let socket = dir.path().join(format!(".s.PGSQL.{port}"));
    let settings = "default_pool_size = 3\nworkers = 2";
    let mut old = Instance::start(&database, port, dir, &[], settings, &sections);
    let with = |user: &str, more: &[(&str, &str)]| {
        Raw::login_with(port, user, &database.name, &password_of(user), more)
    };
    let mut settings_of = with("app", &[("DateStyle", "German"), ("application_name", "it's"), ("a.b", "c")]);
    settings_of.sql("SET TimeZone = 'Asia/Kolkata'");
    settings_of.sql("SET app.tenant = 'x''y'");
    settings_of.sql("SET ROLE app");
    let mut statements = login(port, &database);
    statements.send_all(&[parse("named", "SELECT $1 || y FROM t WHERE x = $2"), sync()]);
    statements.ready(1);
    statements.send_all(&[parse("", "SELECT 'unnamed', $1::int + 1"), sync()]);
    statements.ready(1);
    let mut secretive = with("scram_user", &[]);
    secretive.sql("SELECT 1");
    let mut local = Raw::open_unix(&socket);
    local.try_login("app", &database.name, &password_of("app"), &[]).unwrap();
    let mut never_used = login(port, &database);
    let mut busy = login(port, &database);
    busy.sql("BEGIN; INSERT INTO t VALUES (7, 'busy')");
    let mut amid = login(port, &database);
    amid.send(&query("SELECT pg_sleep(1), 'amid'"));
    database.wait_for(SLEEPING, &["1"]);

    let new = old.take_over_with(&database, settings, &sections);
    // All but those who are in transactions.
    new.wait_for_clients(5);
    let who = "SELECT current_setting('DateStyle'), current_setting('TimeZone'), current_setting('app.tenant'), \
               current_setting('a.b'), current_user, application_name FROM pg_stat_activity \
               WHERE pid = pg_backend_pid()";
    assert_eq!(settings_of.sql(who), ["German, DMY|Asia/Kolkata|x'y|c|app|it's"]);
    assert_eq!(settings_of.sql("RESET TimeZone; SHOW DateStyle"), ["German, DMY"]);
    assert_eq!(busy.sql("SELECT y FROM t"), ["busy"]);
    busy.sql("COMMIT");
    statements.send_all(&[bind("named", &[Some("<"), Some("7")]), execute(), sync()]);
    assert_eq!(statements.ready(1)[1].row(), "<busy");
    statements.send_all(&[bind("", &[Some("41")]), execute(), sync()]);
    assert_eq!(statements.ready(1)[1].row(), "unnamed|42");
    statements.send_all(&[parse("named", "SELECT 1"), sync()]);
    assert_eq!(statements.ready(1)[0].field(b'C'), "42P05", "its name is taken");
    for client in [&mut secretive, &mut local, &mut never_used] {
        assert_eq!(client.sql("SELECT 'on'"), ["on"]);
    }
    assert_eq!(amid.ready(1)[1].row(), "|amid");
    // Now the others, too; and cancel requests find them.
    new.wait_for_clients(7);
    old.ends();
    assert!(old.log().contains("client connections dropped, exiting"), "{}", old.log());
    for client in [&mut settings_of, &mut statements, &mut never_used, &mut busy, &mut amid] {
        client.send(&query("SELECT pg_sleep(600)"));
        database.wait_for(SLEEPING, &["1"]);
        client.cancel();
        assert_eq!(client.ready(1)[1].field(b'C'), "57014");
    }
    new.wait_for_log("7 clients have come from the old process");
    drop((settings_of, statements, secretive, local, never_used, busy, amid));
    new.wait_for_clients(0);
    new.leave();
}

#[test]
fn what_cannot_move_stays_until_it_is_done() {
    let (database, port) = (Database::new(), free_port().unwrap());
    let certs = certificates().display();
    let settings = format!(
        "default_pool_size = 20\nclient_tls_sslmode = \"allow\"\n\
         client_tls_cert_file = \"{certs}/server.crt\"\nclient_tls_key_file = \"{certs}/server.key\""
    );
    let sections = "[users.other]\npassword = \"secret of other\"\npool_mode = \"session\"\n";
    let mut old = Instance::start(&database, port, TempDir::new(None).unwrap(), &[], &settings, sections);
    let mut listens = login(port, &database);
    listens.sql("LISTEN c");
    let mut has_table = login(port, &database);
    has_table.sql("CREATE TEMP TABLE mine AS SELECT 5 AS x");
    let mut has_prepared = login(port, &database);
    has_prepared.sql("PREPARE p AS SELECT 6");
    let mut session = Raw::login(port, "other", &database.name, &password_of("other"));
    session.sql("SELECT 1");
    let options = tls::Options { direct: false, alpn: Some("postgresql"), certificate: None };
    let mut secure = tls::open(port, options).unwrap();
    secure.try_login("app", &database.name, &password_of("app"), &[]).unwrap();
    secure.sql("SELECT 1");
    let mut moves = login(port, &database);
    moves.sql("SELECT 1");

    let new = old.take_over_with(&database, &settings, sections);
    new.wait_for_clients(1);
    assert_eq!(moves.sql("SELECT 'moved'"), ["moved"]);
    // Through the other process.
    moves.sql("NOTIFY c, 'heard'");
    let heard = listens.sql("SELECT 'listens'");
    assert_eq!(heard, ["listens"]);
    let told = wait_until(PATIENCE, || {
        listens.sql("SELECT 1");
        listens.received.iter().any(|frame| frame.tag == b'A').then_some(())
    });
    assert!(told.is_some(), "{listens:?}");
    assert_eq!(has_table.sql("SELECT x FROM mine"), ["5"]);
    assert_eq!(has_prepared.sql("EXECUTE p"), ["6"]);
    assert_eq!(session.sql("SELECT 'session'"), ["session"]);
    assert_eq!(secure.sql("SELECT 'secure'"), ["secure"]);
    // What kept them is gone, or they go.
    has_table.sql("DROP TABLE mine");
    has_table.sql("SELECT 1");
    has_prepared.sql("DEALLOCATE ALL");
    has_prepared.sql("SELECT 1");
    new.wait_for_clients(3);
    assert!(old.process.ended().is_none());
    drop((listens, session, secure));
    old.ends();
    for client in [&mut moves, &mut has_table, &mut has_prepared] {
        assert_eq!(client.sql("SELECT 'on'"), ["on"]);
    }
    drop((moves, has_table, has_prepared));
    new.leave();
}

/// The new process has other settings: whoever it cannot take goes on where it was.
#[test]
fn clients_that_the_new_process_cannot_take_stay() {
    let (database, port) = (Database::new(), free_port().unwrap());
    let mut old = Instance::start(&database, port, TempDir::new(None).unwrap(), &[], "", "");
    let mut clients: Vec<Raw> = (0..4).map(|_| login(port, &database)).collect();
    clients[0].send_all(&[parse("s", "SELECT 'kept'"), sync()]);
    clients[0].ready(1);
    // No statements, and room for two.
    let new = old.take_over(&database, "max_prepared_statements = 0\nmax_client_conn = 2");
    new.wait_for_clients(2);
    for client in &mut clients {
        for _ in 0..3 {
            assert_eq!(client.sql("SELECT 'on'"), ["on"]);
        }
    }
    clients[0].send_all(&[bind("s", &[]), execute(), sync()]);
    assert_eq!(clients[0].ready(1)[1].row(), "kept");
    assert_eq!(new.clients(), 2);
    assert!(old.process.ended().is_none());
    drop(clients);
    old.ends();
    new.leave();
}

/// The new process dies amid all that.
#[test]
fn clients_outlive_a_new_process_that_is_killed() {
    let (database, port) = (Database::new(), free_port().unwrap());
    let mut old = Instance::start(&database, port, TempDir::new(None).unwrap(), &[], "", "");
    let mut stays = login(port, &database);
    stays.sql("BEGIN");
    let mut new = old.take_over(&database, "");
    new.process.signal("KILL").unwrap();
    assert!(new.process.wait(PATIENCE).is_some());
    stays.sql("COMMIT");
    old.wait_for_log("the new process takes no more clients");
    for _ in 0..3 {
        assert_eq!(stays.sql("SELECT 'on'"), ["on"]);
    }
    // The place is free for the next one.
    drop(stays);
    old.ends();
    let next = new.take_over(&database, "");
    assert_eq!(login(port, &database).sql("SELECT 1"), ["1"]);
    next.leave();
}
