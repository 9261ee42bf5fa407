//! Child processes that end with their owner, and directories that go with them.
//!
//! A guarded child runs under a small shell that holds the reading end of a pipe. When the owner closes the pipe,
//! or dies by whatever signal, the shell stops the child; nothing stays behind, not even after `kill -9`.

use std::{
    fs::DirBuilder,
    io::{self, BufRead, BufReader, Write},
    os::unix::{
        fs::{DirBuilderExt, MetadataExt},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

/// How often a condition is looked at again.
pub const POLL: Duration = Duration::from_millis(10);

/// User and group that a child runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunAs {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

impl RunAs {
    /// Who PostgreSQL's programs run as: they refuse root, so root steps down to `postgres` or `nobody`.
    /// `None` when this process may run them itself.
    pub fn unprivileged() -> io::Result<Option<Self>> {
        if std::fs::metadata("/proc/self")?.uid() != 0 {
            return Ok(None);
        }
        let found = ["postgres", "nobody"].into_iter().find_map(Self::named);
        found
            .map(Some)
            .ok_or_else(|| io::Error::other("PostgreSQL refuses root, and there is no user postgres"))
    }

    fn named(user: &str) -> Option<Self> {
        let id = |flag| {
            let output = Command::new("id").args([flag, user]).stderr(Stdio::null()).output().ok()?;
            String::from_utf8(output.stdout).ok()?.trim().parse().ok()
        };
        Some(Self { uid: id("-u")?, gid: id("-g")? })
    }

    fn command(self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.uid(self.uid).gid(self.gid);
        command
    }
}

/// Runs the child named by its arguments with output to `$LOG` and stops it by `$STOP` at the end of standard input.
/// Descriptor 3 keeps that input, since a shell gives its background jobs /dev/null. Every process is waited for
/// by the one that started it: in containers nobody else does.
const GUARD: &str = r#"
exec 3<&0 </dev/null
"$@" >>"$LOG" 2>&1 3<&- &
child=$!
echo "$child"
{
    read -r end <&3
    trap 'kill $nap; wait $nap; exit' TERM
    kill -s "$STOP" "$child"
    sleep 20 & nap=$!
    wait "$nap"
    kill -s KILL "$child"
} >/dev/null 2>&1 &
watcher=$!
wait "$child"; status=$?
kill "$watcher"; wait "$watcher"
exit "$status"
"#;

/// A child that is stopped when this value is dropped or when this process dies.
#[derive(Debug)]
pub struct Guarded {
    guard: Child,
    pid: u32,
}

impl Guarded {
    /// Starts `args` (program first) with output appended to `log`; `stop` is the name of the signal that ends it.
    pub fn spawn(who: Option<RunAs>, args: &[&str], log: &Path, stop: &str) -> io::Result<Self> {
        Self::spawn_with(who, args, &[], log, stop)
    }

    /// The same with variables for its environment.
    pub fn spawn_with(
        who: Option<RunAs>,
        args: &[&str],
        variables: &[(&str, &str)],
        log: &Path,
        stop: &str,
    ) -> io::Result<Self> {
        let mut guard = who.map_or_else(|| Command::new("/bin/sh"), |who| who.command("/bin/sh"));
        let mut guard = guard
            // A place that every user may enter: the caller's own may be closed to `postgres`.
            .current_dir("/")
            .env("LC_ALL", "C.UTF-8")
            .envs(variables.iter().copied())
            .args(["-c", GUARD, "guard"])
            .args(args)
            .env("LOG", log)
            .env("STOP", stop)
            // Ctrl-C at the terminal reaches a whole process group: the owner decides what stops when.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut line = String::new();
        if let Some(output) = guard.stdout.take() {
            BufReader::new(output).read_line(&mut line)?;
        }
        let pid = line.trim().parse().map_err(|_| io::Error::other("the guarding shell did not start"))?;
        Ok(Self { guard, pid })
    }

    /// Process id of the child itself.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends the child a signal by its name (`TERM`, `HUP`, `KILL`, `STOP`, …).
    pub fn signal(&self, name: &str) -> io::Result<()> {
        signal(self.pid, name)
    }

    /// How it ended, if it has (128 + number after a signal, as shells say it).
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.guard.try_wait().ok().flatten()
    }

    /// Waits for its end, at most so long.
    pub fn wait(&mut self, at_most: Duration) -> Option<ExitStatus> {
        wait_until(at_most, || self.ended())
    }

    /// Waits for its own end, or stops it when `interrupted` says so.
    pub fn finish(mut self, interrupted: impl Fn() -> bool) -> io::Result<ExitStatus> {
        while !interrupted() {
            if let Some(status) = self.ended() {
                return Ok(status);
            }
            std::thread::sleep(POLL);
        }
        self.stop()
    }

    /// Asks it to end and waits until it has.
    pub fn stop(&mut self) -> io::Result<ExitStatus> {
        drop(self.guard.stdin.take());
        self.guard.wait()
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let _ = self.stop();
    }
}

/// Sends a signal by its name.
pub fn signal(pid: u32, name: &str) -> io::Result<()> {
    signal_each(&[pid], name)
}

/// Sends a signal to several processes, in this order; fails if one of them is not there.
pub fn signal_each(pids: &[u32], name: &str) -> io::Result<()> {
    let status = Command::new("/bin/sh")
        .args(["-c", r#"name=$1; shift; kill -s "$name" "$@""#, "kill", name])
        .args(pids.iter().map(u32::to_string))
        .stderr(Stdio::null())
        .status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("not all of {pids:?} are there"))) }
}

/// Looks at a condition again and again until it holds; `None` after `at_most`.
pub fn wait_until<T>(at_most: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + at_most;
    loop {
        if let Some(value) = condition() {
            return Some(value);
        }
        if Instant::now() > end {
            return None;
        }
        std::thread::sleep(POLL);
    }
}

/// Waits until no server runs in the directory any more, then removes it.
const SWEEP: &str = r#"
read -r word
[ "$word" = keep ] && exit
tries=0
while [ "$tries" -lt 100 ] && [ -e "$1" ]; do
    # Whoever still writes there makes rm fail; it is on its way out.
    ls "$1"/*/postmaster.pid || rm -rf "$1" && [ ! -e "$1" ] && exit
    tries=$((tries + 1)); sleep 0.1
done
rm -rf "$1"
"#;

/// A directory that is removed when this value is dropped or when this process dies.
#[derive(Debug)]
pub struct TempDir {
    path: PathBuf,
    sweeper: Child,
}

impl TempDir {
    /// Makes a directory that only `owner` may enter (this user, if `None`).
    pub fn new(owner: Option<RunAs>) -> io::Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let path = loop {
            let name = format!("pooler-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
            let path = std::env::temp_dir().join(name);
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => break path,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        };
        let sweeper = Command::new("/bin/sh")
            .args(["-c", SWEEP, "sweep"])
            .arg(&path)
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let dir = Self { path, sweeper };
        if let Some(owner) = owner {
            std::os::unix::fs::chown(&dir.path, Some(owner.uid), Some(owner.gid))?;
        }
        Ok(dir)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves it where it is for whoever wants to look into it.
    pub fn keep(&mut self) -> io::Result<()> {
        self.sweeper.stdin.as_mut().map_or(Ok(()), |sweeper| sweeper.write_all(b"keep\n"))
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        drop(self.sweeper.stdin.take());
        let _ = self.sweeper.wait();
    }
}

/// A TCP port of 127.0.0.1 that nobody listens on, below the range that the kernel hands out to connections, so that
/// no outgoing connection can take it before it is used.
pub fn free_port() -> io::Result<u16> {
    const FIRST: u32 = 20_000;
    const COUNT: u32 = 12_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    for _ in 0..COUNT {
        // Processes that run side by side start at different places.
        let offset = std::process::id().wrapping_mul(131).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(FIRST + offset % COUNT).map_err(io::Error::other)?;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    Err(io::Error::other("no free TCP port between 20000 and 32000"))
}
