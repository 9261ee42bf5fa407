//! The log: where it goes, and how its lines look.
//!
//! Standard error, `logfile` and syslog, each or none. `log_format` pgbouncer writes PgBouncer's lines, which other
//! programs read: `2026-11-30 17:18:56.576 UTC [4711] LOG C-0x2a: db/user@host:port message`. There is no address of a
//! structure to tell: the number behind C- and S- is what SHOW CLIENTS and SHOW SERVERS call `id`, and 0 before there is one.

use std::{
    fmt::{self, Write as _},
    fs::{File, OpenOptions},
    io::{self, IsTerminal as _, Write},
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    EnvFilter,
    fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter, format::Writer},
    layer::SubscriberExt as _,
    registry::LookupSpan,
    reload,
    util::SubscriberInitExt as _,
};

use super::StartError;
use crate::{
    admin::commands::ApplyLog,
    calendar,
    cli::Verbosity,
    config::{LogFormat, Settings},
};

/// Target of what ends the process; PgBouncer calls it FATAL.
pub(super) const FATAL: &str = "pooler::fatal";

/// Where syslog listens.
const SYSLOG: &str = "/dev/log";

/// The running log.
pub(super) struct Log {
    sinks: Arc<Mutex<Sinks>>,
    set_level: Box<dyn Fn(&str) + Send + Sync>,
}

#[derive(Debug, Default)]
struct Sinks {
    stderr: bool,
    file: Option<(PathBuf, File)>,
    syslog: Option<Syslog>,
}

#[derive(Debug)]
struct Syslog {
    socket: UnixDatagram,
    path: PathBuf,
    facility: u8,
    ident: String,
}

impl Log {
    /// Starts it; `stderr`: also there.
    pub(super) fn start(settings: &Settings, verbosity: Verbosity, stderr: bool) -> Result<Self, StartError> {
        let sinks = Sinks { stderr, ..Sinks::default() };
        let sinks = Arc::new(Mutex::new(sinks));
        lock(&sinks).open(settings).map_err(|error| error.to_string())?;
        let level = verbosity.level().unwrap_or(&settings.log_level);
        let (filter, handle) = reload::Layer::new(EnvFilter::try_new(filter_of(level))?);
        let registry = tracing_subscriber::registry().with(filter);
        let writer = Writers(Arc::clone(&sinks));
        match settings.log_format {
            LogFormat::Json => {
                registry.with(tracing_subscriber::fmt::layer().json().with_writer(writer)).try_init()?;
            }
            LogFormat::Text => {
                // Colours are for people who watch, not for files.
                let only_stderr = settings.logfile.is_none() && !settings.syslog && stderr;
                let layer = tracing_subscriber::fmt::layer()
                    .with_writer(writer)
                    .with_target(false)
                    .with_ansi(only_stderr && io::stderr().is_terminal());
                registry.with(layer).try_init()?;
            }
            LogFormat::Pgbouncer => {
                let layer = tracing_subscriber::fmt::layer().event_format(LikePgBouncer).with_writer(writer);
                registry.with(layer).try_init()?;
            }
        }
        let overridden = verbosity.level().is_some();
        let set_level = Box::new(move |level: &str| {
            if !overridden && let Ok(filter) = EnvFilter::try_new(filter_of(level)) {
                // Fails only when the subscriber is gone.
                let _ = handle.reload(filter);
            }
        });
        Ok(Self { sinks, set_level })
    }

    /// Nothing goes to standard error any more.
    pub(super) fn leave_stderr(&self) {
        lock(&self.sinks).stderr = false;
    }

    /// What a new configuration changes. Files are opened again, since somebody may have moved them.
    pub(super) fn apply(self) -> ApplyLog {
        Box::new(move |settings| {
            (self.set_level)(&settings.log_level);
            let opened = lock(&self.sinks).open(settings);
            if let Err(error) = opened {
                tracing::error!("{error}; the log goes where it went before");
            }
        })
    }
}

fn lock(sinks: &Mutex<Sinks>) -> std::sync::MutexGuard<'_, Sinks> {
    sinks.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What libraries have to say below `info` is for those who write them, and not a line for each event.
fn filter_of(level: &str) -> String {
    match level {
        "debug" | "trace" => format!("info,pooler={level}"),
        other => other.to_owned(),
    }
}

/// A place that cannot be written to.
#[derive(Debug, thiserror::Error)]
enum SinkError {
    #[error("Cannot open logfile: '{}': {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("cannot make a socket for syslog: {0}")]
    Syslog(io::Error),
}

impl Sinks {
    /// All of it or nothing.
    fn open(&mut self, settings: &Settings) -> Result<(), SinkError> {
        let file = match &settings.logfile {
            Some(path) => Some((
                path.clone(),
                open_file(path).map_err(|source| SinkError::File { path: path.clone(), source })?,
            )),
            None => None,
        };
        let syslog = settings.syslog.then(|| Syslog::open(settings, Path::new(SYSLOG)));
        let syslog = syslog.transpose().map_err(SinkError::Syslog)?;
        (self.file, self.syslog) = (file, syslog);
        Ok(())
    }

    /// Who cannot take a line does not keep the others from it.
    fn write(&mut self, line: &[u8], level: Level) {
        if self.stderr {
            let _ = io::stderr().write_all(line);
        }
        if let Some((_, file)) = &mut self.file {
            let _ = file.write_all(line);
        }
        if let Some(syslog) = &self.syslog {
            syslog.send(line, level);
        }
    }
}

fn open_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

impl Syslog {
    fn open(settings: &Settings, path: &Path) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        // A log must not stop the process.
        socket.set_nonblocking(true)?;
        // Where nobody listens yet, it is tried again with each line, as syslog(3) does it.
        let _ = socket.connect(path);
        let ident = settings.syslog_ident.clone();
        let path = path.to_owned();
        Ok(Self { socket, path, facility: facility(&settings.syslog_facility), ident })
    }

    fn send(&self, line: &[u8], level: Level) {
        let severity = match level {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            _ => 7,
        };
        let mut packet =
            format!("<{}>{}[{}]: ", self.facility * 8 + severity, self.ident, std::process::id());
        packet.push_str(String::from_utf8_lossy(line).trim_end());
        // A restarted syslog has another socket behind the same name.
        let lost = |error: &io::Error| error.kind() != io::ErrorKind::WouldBlock;
        if self.socket.send(packet.as_bytes()).as_ref().is_err_and(lost)
            && self.socket.connect(&self.path).is_ok()
        {
            let _ = self.socket.send(packet.as_bytes());
        }
    }
}

/// Numbers of syslog(3).
fn facility(name: &str) -> u8 {
    match name {
        "user" => 1,
        "auth" => 4,
        "authpriv" => 10,
        name => match name.strip_prefix("local").and_then(|number| number.parse::<u8>().ok()) {
            Some(number) => 16 + number.min(7),
            None => 3,
        },
    }
}

/// Hands out writers of one event each.
struct Writers(Arc<Mutex<Sinks>>);

/// The bytes of one event.
struct EventWriter {
    sinks: Arc<Mutex<Sinks>>,
    level: Level,
}

impl<'a> MakeWriter<'a> for Writers {
    type Writer = EventWriter;

    fn make_writer(&'a self) -> EventWriter {
        EventWriter { sinks: Arc::clone(&self.0), level: Level::INFO }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> EventWriter {
        EventWriter { sinks: Arc::clone(&self.0), level: *metadata.level() }
    }
}

impl Write for EventWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        lock(&self.sinks).write(bytes, self.level);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// PgBouncer's lines.
struct LikePgBouncer;

impl<S, N> FormatEvent<S, N> for LikePgBouncer
where
    S: Subscriber + for<'s> LookupSpan<'s>,
    N: for<'w> FormatFields<'w> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let level = match *event.metadata().level() {
            _ if event.metadata().target() == FATAL => "FATAL",
            Level::ERROR => "ERROR",
            Level::WARN => "WARNING",
            Level::INFO => "LOG",
            Level::DEBUG => "DEBUG",
            Level::TRACE => "NOISE",
        };
        writeln!(out, "{} {level} {}", head(), fields.line())
    }
}

/// Time and process, in front of each line.
fn head() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let pid = std::process::id();
    format!("{}.{:03} UTC [{pid}]", calendar::date(now.as_secs()), now.subsec_millis())
}

/// A line as PgBouncer's, for what cannot go to the log.
pub(super) fn line(level: &str, message: &str) -> String {
    format!("{} {level} {message}", head())
}

/// What an event says.
#[derive(Debug, Default)]
struct Fields {
    message: String,
    others: Vec<(&'static str, String)>,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.take(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.take(field, value.escape_debug().to_string());
    }
}

impl Fields {
    fn take(&mut self, field: &Field, value: String) {
        if field.name() == "message" {
            self.message = value;
        } else {
            self.others.push((field.name(), value));
        }
    }

    fn remove(&mut self, name: &str) -> Option<String> {
        let at = self.others.iter().position(|(known, _)| *known == name)?;
        Some(self.others.remove(at).1)
    }

    fn line(mut self) -> String {
        let mut out = String::new();
        let client = self.remove("peer").map(|peer| ("C", peer)).or_else(|| {
            let id = self.others.iter().any(|(name, _)| *name == "client");
            id.then(|| ("C", "-".to_owned()))
        });
        let is_of_server = self.others.iter().any(|(name, _)| *name == "host" || *name == "server");
        let end = match client {
            None if is_of_server => {
                let host = self.remove("host").unwrap_or_else(|| "-".to_owned());
                Some(("S", self.remove("port").map_or(host.clone(), |port| format!("{host}:{port}"))))
            }
            client => client,
        };
        if let Some((end, host)) = end {
            let db =
                self.remove("db").or_else(|| self.remove("database")).unwrap_or_else(|| "(nodb)".to_owned());
            let user = self.remove("user").unwrap_or_else(|| "(nouser)".to_owned());
            let id = self.remove("client").or_else(|| self.remove("server"));
            let id = id.and_then(|id| id.parse::<u64>().ok()).unwrap_or(0);
            let _ = write!(out, "{end}-{id:#x}: {db}/{user}@{host} ");
            if self.message == "login attempt:" {
                self.others.splice(0..0, [("db", db), ("user", user)]);
            }
        }
        // One event is one line, whatever somebody has sent.
        for c in self.message.chars() {
            if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
        }
        for (name, value) in &self.others {
            let _ = write!(out, " {name}={value}");
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syslog_gets_priority_name_and_line_also_after_its_restart() {
        let dir = crate::demo::process::TempDir::new(None).unwrap();
        let path = dir.path().join("log");
        let listen = || {
            let _ = std::fs::remove_file(&path);
            let socket = UnixDatagram::bind(&path).unwrap();
            socket.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
            socket
        };
        let read = |socket: &UnixDatagram| {
            let mut buffer = [0; 200];
            let length = socket.recv(&mut buffer).unwrap();
            String::from_utf8_lossy(&buffer[..length]).into_owned()
        };
        let settings =
            Settings { syslog_facility: "local3".into(), syslog_ident: "me".into(), ..Settings::default() };
        let syslog = Syslog::open(&settings, &path).unwrap();
        syslog.send(b"nobody listens\n", Level::ERROR);
        let first = listen();
        syslog.send(b"a line\n", Level::ERROR);
        let pid = std::process::id();
        assert_eq!(read(&first), format!("<155>me[{pid}]: a line"));
        drop(first);
        let second = listen();
        syslog.send(b"another\n", Level::INFO);
        assert_eq!(read(&second), format!("<158>me[{pid}]: another"));
    }

    #[test]
    fn facilities_have_the_numbers_of_syslog() {
        let numbers =
            [("user", 1), ("daemon", 3), ("auth", 4), ("authpriv", 10), ("local0", 16), ("local7", 23)];
        assert_eq!(numbers.map(|(name, _)| facility(name)), numbers.map(|(_, number)| number));
    }

    #[test]
    fn lines_look_as_those_of_pgbouncer() {
        let line = |message: &str, others: &[(&'static str, &str)]| {
            let others = others.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
            Fields { message: message.to_owned(), others }.line()
        };
        for (message, others, expected) in [
            ("process up", &[][..], "process up"),
            (
                "login attempt:",
                &[("db", "d"), ("user", "u"), ("tls", "no"), ("replication", "no"), ("peer", "1.2.3.4:5")],
                "C-0x0: d/u@1.2.3.4:5 login attempt: db=d user=u tls=no replication=no",
            ),
            (
                "new connection to server",
                &[("database", "d"), ("user", "u"), ("host", "h"), ("port", "1")],
                "S-0x0: d/u@h:1 new connection to server",
            ),
            (
                "closing because: query_timeout",
                &[("client", "42"), ("database", "d"), ("user", "u")],
                "C-0x2a: d/u@- closing because: query_timeout",
            ),
            (
                "closing because: server idle timeout",
                &[("server", "7"), ("database", "d"), ("user", "u")],
                "S-0x7: d/u@- closing because: server idle timeout",
            ),
            ("auth_query failed", &[("database", "d")], "auth_query failed database=d"),
            ("a\nb", &[("x", "1")], "a\\nb x=1"),
        ] {
            assert_eq!(line(message, others), expected);
        }
    }
}
