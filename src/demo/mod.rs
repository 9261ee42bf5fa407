//! `pooler demo`: shows on any machine with PostgreSQL what a pooler is for.
//!
//! Starts a throwaway primary and replica, pooler in front, drives many clients through a few server connections
//! with pgbench, and leaves the whole thing up for a look until Ctrl-C. Every part is a child of its own.

pub mod cluster;
pub mod interrupt;
pub mod process;

use std::{
    fmt::Write as _,
    fs,
    io::{self, BufRead, BufReader, Read, Write as _},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    time::Duration,
};

use crate::cli::Demo;
use cluster::{Binaries, Cluster, ClusterError, ClusterOptions, tail};
use interrupt::Interrupt;
use process::{Guarded, free_port, wait_until};

/// Why the demo ended early.
#[derive(Debug, thiserror::Error)]
enum DemoError {
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error("{0} was not found; install PostgreSQL: scripts/install.sh, or apt-get install postgresql")]
    NoProgram(&'static str),
    #[error("{what} failed:\n{log}")]
    Failed { what: &'static str, log: String },
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl DemoError {
    fn failed(what: &'static str, log: &Path) -> Self {
        Self::Failed { what, log: tail(&fs::read_to_string(log).unwrap_or_default()) }
    }
}

/// Runs the demo to its end.
pub fn run(options: &Demo) -> ExitCode {
    let interrupt = match Interrupt::catch() {
        Ok(interrupt) => interrupt,
        Err(error) => return complain(&DemoError::Io(error)),
    };
    match show(options, &interrupt) {
        Ok(()) => {
            println!(
                "\nStopped; nothing is left behind{}.",
                if options.keep { " but that directory" } else { "" }
            );
            ExitCode::SUCCESS
        }
        // What fails while everything is being stopped is no news.
        Err(_) if interrupt.asked() => ExitCode::from(130),
        Err(error) => complain(&error),
    }
}

fn complain(error: &DemoError) -> ExitCode {
    eprintln!("pooler demo: {error}");
    ExitCode::FAILURE
}

fn show(options: &Demo, interrupt: &Interrupt) -> Result<(), DemoError> {
    let binaries = Binaries::newest()?;
    println!("PostgreSQL {}: starting a throwaway primary and a streaming replica …", binaries.major());
    let stage = Stage::set(binaries, options, interrupt)?;
    println!("  in {}", stage.cluster.dir().display());

    println!("Loading pgbench's tables …");
    stage.load()?;

    println!("Starting pooler on 127.0.0.1:{} …", stage.port);
    let mut pooler = stage.start_pooler()?;

    println!(
        "\n{} clients through {} server connections, {} seconds:",
        options.clients, options.pool_size, options.seconds
    );
    stage.drive(options)?;

    println!("\nWhat the console says (SHOW POOLS):");
    println!("{}", stage.console("SHOW POOLS")?);
    println!("{}", stage.next_steps());
    while !interrupt.asked() {
        if pooler.ended().is_some() {
            return Err(DemoError::failed("pooler", &stage.log("pooler")));
        }
        std::thread::sleep(process::POLL * 5);
    }
    Ok(())
}

/// Everything that stands while the demo plays.
struct Stage<'a> {
    cluster: Cluster,
    psql: PathBuf,
    pgbench: PathBuf,
    port: u16,
    app_password: String,
    admin_password: String,
    pool_size: u32,
    interrupt: &'a Interrupt,
}

impl<'a> Stage<'a> {
    fn set(binaries: Binaries, options: &Demo, interrupt: &'a Interrupt) -> Result<Self, DemoError> {
        let psql = binaries.program("psql").ok_or(DemoError::NoProgram("psql"))?;
        let pgbench = binaries.program("pgbench").ok_or(DemoError::NoProgram("pgbench"))?;
        let wanted = ClusterOptions {
            replica: true,
            conf: vec![format!(
                "max_connections = {}",
                options.pool_size.saturating_mul(2).saturating_add(100)
            )],
            ..ClusterOptions::new(binaries)
        };
        let mut cluster = Cluster::start(&wanted, &|| interrupt.asked())?;
        if options.keep {
            cluster.keep()?;
        }
        // PgBouncer's port, if it is free, is the one that people remember.
        let usual = std::net::TcpListener::bind(("127.0.0.1", 6432)).is_ok();
        let port = if usual { 6432 } else { free_port()? };
        Ok(Self {
            cluster,
            psql,
            pgbench,
            port,
            app_password: password()?,
            admin_password: password()?,
            pool_size: options.pool_size,
            interrupt,
        })
    }

    /// The user `app`, its database and pgbench's tables, straight at the primary.
    fn load(&self) -> Result<(), DemoError> {
        self.sql(&format!("CREATE ROLE app LOGIN PASSWORD '{}'", self.app_password))?;
        self.sql("CREATE DATABASE app OWNER app")?;
        let (program, port) = (self.pgbench.display().to_string(), self.cluster.primary.port.to_string());
        let args = [&program, "-h", "127.0.0.1", "-p", &port, "-U", "app", "-i", "-q", "-s", "10", "app"];
        let log = self.log("pgbench");
        let pgbench = Guarded::spawn_with(None, &args, &[("PGPASSWORD", &self.app_password)], &log, "TERM")?;
        let status = pgbench.finish(|| self.interrupt.asked())?;
        if status.success() { Ok(()) } else { Err(DemoError::failed("pgbench -i", &log)) }
    }

    fn start_pooler(&self) -> Result<Guarded, DemoError> {
        let file = self.cluster.dir().join("pooler.toml");
        let private = fs::File::options().write(true).create_new(true).mode(0o600).open(&file);
        private?.write_all(self.config().as_bytes())?;
        let program = std::env::current_exe()?.display().to_string();
        let log = self.log("pooler");
        let arguments = [program.as_str(), "run", "-c", &file.display().to_string()];
        let mut pooler = Guarded::spawn(None, &arguments, &log, "TERM")?;
        let ready = wait_until(Duration::from_secs(30), || {
            if pooler.ended().is_some() || self.interrupt.asked() {
                return Some(false);
            }
            std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok().then_some(true)
        });
        if ready == Some(true) { Ok(pooler) } else { Err(DemoError::failed("pooler", &log)) }
    }

    fn config(&self) -> String {
        let replica = self.cluster.replica.as_ref().map_or(self.cluster.primary.port, |replica| replica.port);
        format!(
            "[pooler]\nlisten_addr = \"127.0.0.1\"\nlisten_port = {}\nauth_type = \"scram-sha-256\"\n\
             admin_users = [\"admin\"]\ndefault_pool_size = {}\n\n\
             [databases.app]\nhost = \"127.0.0.1\"\nport = {}\n\n\
             # The same database at the replica, which only reads.\n\
             [databases.app_replica]\nhost = \"127.0.0.1\"\nport = {replica}\ndbname = \"app\"\n\n\
             [users.app]\npassword = \"{}\"\n\n[users.admin]\npassword = \"{}\"\n",
            self.port, self.pool_size, self.cluster.primary.port, self.app_password, self.admin_password
        )
    }

    /// Runs the clients and shows every two seconds how they do and how many connections PostgreSQL sees.
    fn drive(&self, options: &Demo) -> Result<(), DemoError> {
        let mut pgbench = self.client(&self.pgbench, "app", &self.app_password, self.port);
        pgbench.args([
            "-n",
            "-P",
            "2",
            "-j",
            "2",
            "-M",
            "extended",
            "-b",
            "select-only@9",
            "-b",
            "tpcb-like@1",
        ]);
        pgbench.args(["-c", &options.clients.to_string(), "-T", &options.seconds.to_string(), "app"]);
        // pgbench dies with this process: its pipe breaks, and its server is gone.
        let mut child = pgbench.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let said = self.watch(&mut child);
        if self.interrupt.asked() {
            let _ = child.kill();
        }
        let mut summary = String::new();
        if let Some(mut output) = child.stdout.take() {
            output.read_to_string(&mut summary)?;
        }
        if !child.wait()?.success() {
            let pooler = fs::read_to_string(self.log("pooler")).unwrap_or_default();
            let log = format!("{}\n--- the end of pooler's log:\n{}", tail(&said), tail(&pooler));
            return Err(DemoError::Failed { what: "pgbench", log });
        }
        for line in summary.lines().filter(|line| SUMMARY.iter().any(|start| line.starts_with(start))) {
            println!("  {line}");
        }
        Ok(())
    }

    /// Shows pgbench's progress; the rest of what it said is returned.
    fn watch(&self, child: &mut Child) -> String {
        let mut said = String::new();
        let Some(output) = child.stderr.take() else { return said };
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if self.interrupt.asked() {
                break;
            }
            let Some(progress) = line.strip_prefix("progress: ") else {
                let _ = writeln!(said, "{line}");
                continue;
            };
            let count = self.sql("SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND application_name <> 'pooler'");
            let count = count.unwrap_or_else(|_| "?".to_owned());
            println!("  {progress}; connections at PostgreSQL: {}", count.trim());
        }
        said
    }

    /// One statement as superuser over the unix socket of the primary.
    fn sql(&self, statement: &str) -> Result<String, DemoError> {
        let mut psql = Command::new(&self.psql);
        psql.arg("-h").arg(self.cluster.dir()).args(["-p", &self.cluster.primary.port.to_string()]);
        psql.args(["-X", "-At", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-c", statement, "postgres"]);
        output(&mut psql)
    }

    /// One command at pooler's console.
    fn console(&self, command: &str) -> Result<String, DemoError> {
        let mut psql = self.client(&self.psql, "admin", &self.admin_password, self.port);
        output(psql.args(["-X", "-P", "pager=off", "-P", "footer=off", "-c", command, "pooler"]))
    }

    fn client(&self, program: &Path, user: &str, password: &str, port: u16) -> Command {
        let mut command = Command::new(program);
        command.args(["-h", "127.0.0.1", "-p", &port.to_string(), "-U", user]);
        command.env("PGPASSWORD", password);
        command
    }

    fn log(&self, name: &str) -> PathBuf {
        self.cluster.dir().join(format!("{name}.log"))
    }

    fn next_steps(&self) -> String {
        let Self { port, app_password, admin_password, .. } = self;
        let dir = self.cluster.dir().display();
        format!(
            "It stays up until you press Ctrl-C. In another terminal:\n\n  \
             the application's database   psql postgres://app:{app_password}@127.0.0.1:{port}/app\n  \
             the same at the replica      psql postgres://app:{app_password}@127.0.0.1:{port}/app_replica\n  \
             pooler's console             psql postgres://admin:{admin_password}@127.0.0.1:{port}/pooler\n  \
             pools and rates, live        pooler top postgres://admin:{admin_password}@127.0.0.1:{port}/pooler\n\n\
             At the console, SHOW HELP lists the commands. Configuration and logs: {dir}/pooler.toml, {dir}/pooler.log"
        )
    }
}

/// The lines of pgbench's summary that matter here.
const SUMMARY: [&str; 4] = ["number of transactions actually", "number of failed", "latency average", "tps"];

fn output(command: &mut Command) -> Result<String, DemoError> {
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(DemoError::Failed { what: "psql", log: String::from_utf8_lossy(&output.stderr).into_owned() })
}

/// A password for as long as the demo runs: other users of the machine can reach the port.
fn password() -> io::Result<String> {
    let mut bytes = [0_u8; 8];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    }))
}
