//! What operators can have done, by console or signal: reload, pause, resume, reconnect, kill, shutdown.

use std::sync::{Arc, Mutex, PoisonError, atomic::Ordering};

use tokio::sync::watch;

use super::{LogLevel, process::Process, reload};
use crate::{
    cli::Source,
    config::{Problems, User},
    worker::{
        message::Message,
        report::{ReportKind, WorkerReport},
    },
};

/// How a shutdown goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Shutdown {
    /// Until the clients have left.
    WaitForClients,
    /// Until the servers are free.
    WaitForServers,
    /// At once.
    Now,
}

/// The operators' hand on the process.
pub(crate) struct Commands {
    pub(crate) process: Arc<Process>,
    source: Source,
    log_level: LogLevel,
    /// One reload at a time.
    reloading: Mutex<()>,
    closing: watch::Sender<bool>,
    shutdown: watch::Sender<Option<Shutdown>>,
}

impl Commands {
    pub(super) fn new(process: Arc<Process>, source: Source, log_level: LogLevel) -> Self {
        Self {
            process,
            source,
            log_level,
            reloading: Mutex::new(()),
            closing: watch::Sender::new(false),
            shutdown: watch::Sender::new(None),
        }
    }

    /// Becomes true when no more clients are to be accepted.
    pub(super) fn closing(&self) -> watch::Receiver<bool> {
        self.closing.subscribe()
    }

    /// What kind of shutdown has been asked for.
    pub(super) fn shutdown_requests(&self) -> watch::Receiver<Option<Shutdown>> {
        self.shutdown.subscribe()
    }

    /// Reads the configuration again. What cannot be read changes nothing. Blocks on files.
    pub(crate) fn reload(&self) -> Result<(), Problems> {
        let _one = self.reloading.lock().unwrap_or_else(PoisonError::into_inner);
        reload::reload(&self.process, &self.source)?;
        (self.log_level)(&self.process.config().settings.log_level);
        self.open_minimum();
        Ok(())
    }

    /// Makes the pools that min_pool_size wants before any client comes: those with a forced user.
    pub(super) fn open_minimum(&self) {
        let config = self.process.config();
        for database in config.databases.values().filter(|d| d.name != "*") {
            let Some(name) = &database.user else { continue };
            let user = config.users.get(name).cloned().unwrap_or_else(|| Arc::new(User::default()));
            if config.min_pool_size(database, &user) > 0 {
                let pool = self.process.pool(database, &user);
                if let Some(worker) = self.process.workers.first() {
                    worker.send(Message::Grow { pool });
                }
            }
        }
    }

    /// Stops handing out servers of a database, or of all.
    pub(crate) fn pause(&self, database: Option<&str>) {
        self.process.pools.set_paused(database, true);
        self.process.refresh();
    }

    /// The end of a pause.
    pub(crate) fn resume(&self, database: Option<&str>) {
        self.process.pools.set_paused(database, false);
        self.process.refresh();
    }

    /// Replaces the server connections of a database, or all, as they become free.
    pub(crate) fn reconnect(&self, database: Option<&str>) {
        for pool in self.process.pools.all() {
            if database.is_none_or(|d| pool.key.database == d) {
                pool.recycle();
            }
        }
        self.process.refresh();
    }

    /// Drops clients and servers of a database, or all, and leaves it paused.
    pub(crate) fn kill(&self, database: Option<&str>) {
        self.process.pools.set_paused(database, true);
        self.process.refresh();
        for worker in &self.process.workers {
            worker.send(Message::Kill { database: database.map(str::to_owned), reason: "database removed" });
        }
    }

    /// Drops one client. False if there is none with this id.
    pub(crate) async fn kill_client(&self, id: u64) -> bool {
        let mut found = false;
        for worker in &self.process.workers {
            let (reply, answer) = tokio::sync::oneshot::channel();
            worker.send(Message::KillClient { id, reply });
            found |= answer.await.unwrap_or(false);
        }
        found
    }

    /// Rows of all workers.
    pub(crate) async fn report(&self, kind: ReportKind) -> WorkerReport {
        let mut all = WorkerReport::default();
        for worker in &self.process.workers {
            let (reply, answer) = tokio::sync::oneshot::channel();
            worker.send(Message::Report { kind, reply });
            if let Ok(report) = answer.await {
                all.pools.extend(report.pools);
                all.clients.extend(report.clients);
                all.servers.extend(report.servers);
            }
        }
        all
    }

    /// Server connections that work for somebody, in a database or in all.
    pub(crate) async fn busy_servers(&self, database: Option<&str>) -> usize {
        let servers = self.report(ReportKind::Servers).await.servers;
        servers.iter().filter(|s| s.state != "idle" && database.is_none_or(|d| s.database == d)).count()
    }

    /// Ends the process: in the way asked for, or faster if it is asked for again.
    pub(crate) fn shut_down(&self, how: Shutdown) {
        self.process.shutting_down.store(true, Ordering::Release);
        self.closing.send_replace(true);
        self.shutdown.send_modify(|current| {
            *current = match *current {
                None => Some(how),
                Some(_) => Some(Shutdown::Now),
            }
        });
    }
}
