//! Throwaway PostgreSQL clusters: a primary and, if asked for, a streaming replica in a temporary directory.
//!
//! Serves `pooler demo` and the tests. Durability is off; nothing here is meant for data that matters.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use super::process::{Guarded, RunAs, TempDir, free_port, signal_each, wait_until};

/// Why a cluster did not start.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum ClusterError {
    #[error(
        "PostgreSQL's {0} was not found; install PostgreSQL: scripts/install.sh, or apt-get install postgresql"
    )]
    NoBinaries(String),
    #[error("{program} failed: {log}")]
    Failed { program: String, log: String },
    #[error("interrupted")]
    Interrupted,
    #[error("cannot prepare the cluster: {0}")]
    Io(#[from] io::Error),
}

/// The programs of one PostgreSQL version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binaries {
    dir: PathBuf,
    major: u32,
}

impl Binaries {
    /// Newest version that the distribution installed.
    pub fn newest() -> Result<Self, ClusterError> {
        Self::installed().into_iter().max_by_key(|found| found.major).ok_or_else(|| missing("initdb"))
    }

    /// The programs in a directory (`initdb` and `postgres` at least).
    pub fn in_dir(dir: &Path) -> Result<Self, ClusterError> {
        let none = || missing(&dir.join("postgres").display().to_string());
        let output = Command::new(dir.join("postgres")).arg("--version").output().map_err(|_| none())?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let number = text.split_whitespace().nth(2).and_then(|version| version.split(['.', 'b', 'r']).next());
        let major = number.and_then(|major| major.parse().ok()).ok_or_else(none)?;
        Ok(Self { dir: dir.to_owned(), major })
    }

    /// Every version found under the place where Debian puts them, and on PATH.
    pub fn installed() -> Vec<Self> {
        let mut dirs: Vec<PathBuf> =
            std::env::var_os("PATH").iter().flat_map(std::env::split_paths).collect();
        if let Ok(versions) = fs::read_dir("/usr/lib/postgresql") {
            dirs.extend(versions.flatten().map(|version| version.path().join("bin")));
        }
        // A link in PATH may lead to one program of several: the others are where it leads to.
        let homes =
            dirs.iter().filter_map(|dir| Some(dir.join("initdb").canonicalize().ok()?.parent()?.to_owned()));
        homes.filter_map(|dir| Self::in_dir(&dir).ok()).collect()
    }

    /// Major version, as 15.
    pub fn major(&self) -> u32 {
        self.major
    }

    /// Path of a program; `None` where this build comes without it.
    pub fn program(&self, name: &str) -> Option<PathBuf> {
        Some(self.dir.join(name)).filter(|path| path.is_file())
    }

    fn need(&self, name: &str) -> Result<PathBuf, ClusterError> {
        self.program(name).ok_or_else(|| missing(&self.dir.join(name).display().to_string()))
    }
}

fn missing(what: &str) -> ClusterError {
    ClusterError::NoBinaries(what.to_owned())
}

/// What to start.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// Programs to use.
    pub binaries: Binaries,
    /// With a streaming replica.
    pub replica: bool,
    /// Lines for pg_hba.conf, before the last one (everyone by SCRAM over TCP).
    pub hba: Vec<String>,
    /// Lines for postgresql.conf of both nodes.
    pub conf: Vec<String>,
    /// PEM files of a certificate and its key, readable by the caller; with them the server speaks TLS.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// PEM file of the authority that client certificates are checked against.
    pub client_ca: Option<PathBuf>,
}

impl ClusterOptions {
    /// A primary alone, SCRAM, no TLS.
    pub fn new(binaries: Binaries) -> Self {
        Self { binaries, replica: false, hba: Vec::new(), conf: Vec::new(), tls: None, client_ca: None }
    }
}

/// A server. Its superuser `postgres` needs no password at the unix socket, whose directory is closed to others.
#[derive(Debug)]
pub struct Node {
    /// TCP port at 127.0.0.1; the unix socket in the cluster's directory carries the same number.
    pub port: u16,
    data: PathBuf,
    log: PathBuf,
    binaries: Binaries,
    who: Option<RunAs>,
    process: Option<Guarded>,
}

impl Node {
    /// The server's log so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Process id of the postmaster while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Guarded::pid)
    }

    /// Starts the server and waits until it accepts connections.
    pub fn start(&mut self) -> Result<(), ClusterError> {
        let program = self.binaries.need("postgres")?;
        let (program, data) = (program.display().to_string(), self.data.display().to_string());
        let port = self.port.to_string();
        // QUIT is the immediate shutdown: quick, and shared memory is cleaned up.
        let mut process = Guarded::spawn(self.who, &[&program, "-D", &data, "-p", &port], &self.log, "QUIT")?;
        let pid_file = self.data.join("postmaster.pid");
        let ready = wait_until(Duration::from_secs(60), || {
            if process.ended().is_some() {
                return Some(false);
            }
            let text = fs::read_to_string(&pid_file).ok()?;
            let mut lines = text.lines();
            // The file of a server that was killed is still there until the new one writes its own.
            let own = lines.next()? == process.pid().to_string();
            (own && lines.nth(6)?.trim_end() == "ready").then_some(true)
        });
        if ready != Some(true) {
            drop(process);
            return Err(ClusterError::Failed { program, log: tail(&self.log()) });
        }
        self.process = Some(process);
        Ok(())
    }

    /// Stops the server at once, as an operator would in haste.
    pub fn stop(&mut self) {
        self.process = None;
    }

    /// Ends the server by a signal (`INT`: no new sessions, open transactions end, everything goes to the replicas).
    pub fn stop_by(&mut self, signal: &str) -> io::Result<()> {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        process.signal(signal)?;
        process.wait(Duration::from_secs(30));
        Ok(())
    }

    /// Kills the postmaster and its children, as the death of the machine would.
    pub fn crash(&mut self) -> io::Result<()> {
        self.signal_all("KILL")?;
        if let Some(mut process) = self.process.take() {
            process.wait(Duration::from_secs(10));
        }
        Ok(())
    }

    /// Sends a signal to the postmaster and its children: with `STOP` the machine seems to hang, until `CONT`.
    pub fn signal_all(&self, name: &str) -> io::Result<()> {
        let Some(pid) = self.pid() else { return Ok(()) };
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        signal_each(&[pid], name)?;
        let children: Vec<u32> = children.split_whitespace().filter_map(|pid| pid.parse().ok()).collect();
        // Some are gone already, perhaps: they leave when they have nothing to do, or miss the postmaster.
        let _ = signal_each(&children, name);
        Ok(())
    }

    /// Reads its configuration files again.
    pub fn reload(&self) -> io::Result<()> {
        self.process.as_ref().map_or(Ok(()), |process| process.signal("HUP"))
    }

    /// Appends a line to postgresql.conf.
    pub fn configure(&self, line: &str) -> io::Result<()> {
        append(&self.data.join("postgresql.conf"), line)
    }

    /// Its data directory.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Another server beside this one, of the same version and user, whose data is yet to be put into its directory.
    pub fn beside(&self, name: &str) -> Result<Self, ClusterError> {
        let place = |file: &str| self.data.with_file_name(file);
        Ok(Self {
            port: free_port()?,
            data: place(name),
            log: place(&format!("{name}.log")),
            binaries: self.binaries.clone(),
            who: self.who,
            process: None,
        })
    }

    /// Runs a shell script as the user of the server.
    pub fn shell(&self, script: &str) -> Result<(), ClusterError> {
        let log = self.data.with_file_name("shell.log");
        let status = Guarded::spawn(self.who, &["/bin/sh", "-c", script], &log, "TERM")?.finish(|| false)?;
        let failed = || fs::read_to_string(&log).map(|log| tail(&log)).unwrap_or_default();
        let program = || "sh".to_owned();
        if status.success() {
            Ok(())
        } else {
            Err(ClusterError::Failed { program: program(), log: failed() })
        }
    }
}

/// A primary, its replica if there is one, and the directory that holds them.
#[derive(Debug)]
pub struct Cluster {
    /// Takes writes.
    pub primary: Node,
    /// Follows by streaming.
    pub replica: Option<Node>,
    dir: TempDir,
}

impl Cluster {
    /// Makes and starts it; every wait ends when `interrupted` says so.
    pub fn start(options: &ClusterOptions, interrupted: &dyn Fn() -> bool) -> Result<Self, ClusterError> {
        let who = RunAs::unprivileged()?;
        let dir = TempDir::new(who)?;
        let mut maker = Maker { options, who, dir: dir.path(), interrupted };
        let primary = maker.primary()?;
        let replica = options.replica.then(|| maker.replica(&primary)).transpose()?;
        Ok(Self { primary, replica, dir })
    }

    /// The directory; unix sockets are there too.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Leaves the directory with data and logs behind.
    pub fn keep(&mut self) -> io::Result<()> {
        self.dir.keep()
    }
}

struct Maker<'a> {
    options: &'a ClusterOptions,
    who: Option<RunAs>,
    dir: &'a Path,
    interrupted: &'a dyn Fn() -> bool,
}

impl Maker<'_> {
    fn primary(&mut self) -> Result<Node, ClusterError> {
        let mut node = self.node("primary")?;
        let data = node.data.display().to_string();
        let initdb = self.options.binaries.need("initdb")?.display().to_string();
        let args =
            [&initdb, "-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8", "-A", "trust", "-N", "-D", &data];
        self.run("initdb", &args)?;
        self.write_conf(&node)?;
        if self.options.replica && self.options.binaries.program("pg_basebackup").is_none() {
            // A cluster that never ran is a complete backup of itself.
            self.run("cp", &["cp", "-a", &data, &self.dir.join("replica").display().to_string()])?;
        }
        node.start()?;
        Ok(node)
    }

    fn replica(&mut self, primary: &Node) -> Result<Node, ClusterError> {
        let mut node = self.node("replica")?;
        if let Some(program) = self.options.binaries.program("pg_basebackup") {
            let (program, port) = (program.display().to_string(), primary.port.to_string());
            let (dir, data) = (self.dir.display().to_string(), node.data.display().to_string());
            let to = ["-h", &dir, "-p", &port, "-D", &data];
            let args = [&program, "-U", "postgres", "-c", "fast", "-X", "stream", "-N"];
            self.run("pg_basebackup", &[&args[..], &to].concat())?;
        }
        node.configure(&format!(
            "primary_conninfo = 'host={} port={} user=postgres application_name=replica'",
            self.dir.display(),
            primary.port
        ))?;
        self.give(&node.data.join("standby.signal"), "")?;
        node.start()?;
        Ok(node)
    }

    fn node(&self, name: &str) -> Result<Node, ClusterError> {
        Ok(Node {
            port: free_port()?,
            data: self.dir.join(name),
            log: self.dir.join(format!("{name}.log")),
            binaries: self.options.binaries.clone(),
            who: self.who,
            process: None,
        })
    }

    fn write_conf(&self, node: &Node) -> Result<(), ClusterError> {
        let mut conf = format!("unix_socket_directories = '{}'\n{CONF}", self.dir.display());
        if let Some((certificate, key)) = &self.options.tls {
            self.give(&node.data.join("server.crt"), &fs::read_to_string(certificate)?)?;
            self.give(&node.data.join("server.key"), &fs::read_to_string(key)?)?;
            conf.push_str("ssl = on\n");
        }
        if let Some(authority) = &self.options.client_ca {
            self.give(&node.data.join("root.crt"), &fs::read_to_string(authority)?)?;
            conf.push_str("ssl_ca_file = 'root.crt'\n");
        }
        for line in &self.options.conf {
            conf.push_str(line);
            conf.push('\n');
        }
        append(&node.data.join("postgresql.conf"), &conf)?;
        let hba = [HBA_FIRST, &self.options.hba.join("\n"), HBA_LAST].join("\n");
        Ok(fs::write(node.data.join("pg_hba.conf"), hba)?)
    }

    /// Writes a file that the server may read and nobody else.
    fn give(&self, path: &Path, text: &str) -> io::Result<()> {
        use std::os::unix::fs::{PermissionsExt, chown};
        fs::write(path, text)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        self.who.map_or(Ok(()), |who| chown(path, Some(who.uid), Some(who.gid)))
    }

    fn run(&self, name: &str, args: &[&str]) -> Result<(), ClusterError> {
        let log = self.dir.join(format!("{name}.log"));
        let status = Guarded::spawn(self.who, args, &log, "TERM")?.finish(self.interrupted)?;
        if (self.interrupted)() {
            return Err(ClusterError::Interrupted);
        }
        if status.success() {
            return Ok(());
        }
        let text = fs::read_to_string(&log).unwrap_or_default();
        Err(ClusterError::Failed { program: name.to_owned(), log: tail(&text) })
    }
}

const CONF: &str = "\
listen_addresses = '127.0.0.1'
max_connections = 200
shared_buffers = '64MB'
fsync = off
full_page_writes = off
synchronous_commit = off
wal_level = replica
log_line_prefix = '%m [%p] %u@%d '
";

const HBA_FIRST: &str = "local all all trust\nlocal replication all trust\n";

const HBA_LAST: &str = "host all all 127.0.0.1/32 scram-sha-256\n";

fn append(path: &Path, text: &str) -> io::Result<()> {
    let mut file = fs::File::options().append(true).open(path)?;
    io::Write::write_all(&mut file, format!("{text}\n").as_bytes())
}

/// The last lines of a log, enough to see why something failed.
pub fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines.get(lines.len().saturating_sub(15)..).unwrap_or_default().join("\n")
}
