//! What operators can have done, by console or signal: reload, pause, resume, reconnect, kill, shutdown.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
};

use tokio::sync::watch;

use super::{reload, status::Status};
use crate::{
    cli::Source,
    config::{Problem, Problems, Settings, User},
    events::{Events, Kind},
    pool::stats::{History, Totals},
    worker::{
        message::Message,
        process::Process,
        report::{ReportKind, ServerRow, WorkerReport},
    },
};

/// Gives the log of the running process its settings, and opens its files again.
pub(crate) type ApplyLog = Box<dyn Fn(&Settings) + Send + Sync>;

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

/// Who accepts clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Accepting {
    /// This process.
    Here,
    /// Nobody: the process ends.
    Over,
    /// The process that has taken this one's place.
    Elsewhere,
}

/// The operators' hand on the process.
pub(crate) struct Commands {
    pub(crate) process: Arc<Process>,
    source: Source,
    apply_log: ApplyLog,
    /// One reload at a time.
    reloading: Mutex<()>,
    accepting: watch::Sender<Accepting>,
    shutdown: watch::Sender<Option<Shutdown>>,
    /// Changes when a configuration has been put in force.
    reloaded: watch::Sender<()>,
    history: History,
    /// What the console itself has done.
    console: Mutex<Totals>,
    pub(super) status: Status,
}

impl Commands {
    pub(crate) fn new(process: Arc<Process>, source: Source, apply_log: ApplyLog) -> Self {
        Self {
            process,
            source,
            apply_log,
            reloading: Mutex::new(()),
            accepting: watch::Sender::new(Accepting::Here),
            shutdown: watch::Sender::new(None),
            reloaded: watch::Sender::new(()),
            history: History::default(),
            console: Mutex::default(),
            status: Status::default(),
        }
    }

    /// Tells when no more clients are to be accepted.
    pub(crate) fn accepting(&self) -> watch::Receiver<Accepting> {
        self.accepting.subscribe()
    }

    /// Another process accepts clients from now on. False: this one is about to end.
    pub(crate) fn hand_over(&self) -> bool {
        self.accepting.send_if_modified(|accepting| {
            let here = *accepting == Accepting::Here;
            if here {
                *accepting = Accepting::Elsewhere;
            }
            here
        })
    }

    /// What kind of shutdown has been asked for.
    pub(crate) fn shutdown_requests(&self) -> watch::Receiver<Option<Shutdown>> {
        self.shutdown.subscribe()
    }

    /// Reads the configuration again. What cannot be read changes nothing. Blocks on files.
    pub(crate) fn reload(&self) -> Result<(), Problems> {
        let _one = self.reloading.lock().unwrap_or_else(PoisonError::into_inner);
        // Who has moved the file of the log wants it opened again, whatever becomes of the rest.
        (self.apply_log)(&self.process.config().settings);
        if let Err(problems) = reload::reload(&self.process, &self.source) {
            let first = problems.0.first().map(Problem::in_one_line).unwrap_or_default();
            self.events().warn(Kind::Configuration, "", &format!("not reloaded: {first}"));
            return Err(problems);
        }
        self.events().tell(Kind::Configuration, "", "reloaded");
        self.in_force();
        Ok(())
    }

    /// Changes one setting until the next reload. Blocks on files (of TLS). The reason if it cannot be.
    pub(crate) fn set(&self, name: &str, value: &str) -> Result<(), String> {
        let _one = self.reloading.lock().unwrap_or_else(PoisonError::into_inner);
        reload::set(&self.process, name, value)?;
        // Some values are secrets.
        self.events().tell(Kind::Configuration, "", &format!("SET {name}"));
        self.in_force();
        Ok(())
    }

    fn events(&self) -> &Events {
        &self.process.pools.events
    }

    /// An operator has done something to a database, or to all.
    fn told(&self, what: &str, database: Option<&str>) {
        let text = if database.is_none() { format!("{what} of all databases") } else { what.to_owned() };
        self.events().tell(Kind::Command, database.unwrap_or_default(), &text);
    }

    fn in_force(&self) {
        (self.apply_log)(&self.process.config().settings);
        self.open_minimum();
        self.reloaded.send_replace(());
    }

    /// Tells of each configuration that is put in force.
    pub(crate) fn reloads(&self) -> watch::Receiver<()> {
        self.reloaded.subscribe()
    }

    /// Makes the pools that min_pool_size wants before any client comes: those with a forced user. The others are kept
    /// from their first client on.
    pub(crate) fn open_minimum(&self) {
        let config = self.process.config();
        for database in config.databases.values().filter(|d| d.name != "*") {
            let Some(name) = &database.user else { continue };
            let user = config.users.get(name).cloned().unwrap_or_else(|| Arc::new(User::default()));
            if config.min_pool_size(database, &user) > 0 {
                self.process.watch(&self.process.pool(database, &user));
            }
        }
        for pool in self.process.pools.all() {
            self.process.keep_minimum(&pool);
        }
    }

    /// Stops handing out servers of a database, or of all.
    pub(crate) fn pause(&self, database: Option<&str>) {
        self.told("PAUSE", database);
        self.process.pools.set_paused(database, true);
        self.process.refresh();
    }

    /// Nothing is to be read from clients and servers any more.
    pub(crate) fn suspend(&self) {
        self.told("SUSPEND", None);
        self.process.suspended.store(true, Ordering::Release);
    }

    /// Makes the workers suspend, unless that is over again. Returns how many connections have not taken everything that
    /// they are owed.
    pub(crate) async fn unflushed(&self) -> usize {
        let mut unflushed = 0;
        for worker in &self.process.workers {
            let (reply, answer) = tokio::sync::oneshot::channel();
            worker.send(Message::Suspend { reply });
            unflushed += answer.await.unwrap_or(0);
        }
        unflushed
    }

    /// Closes the connections that have not taken everything.
    pub(crate) fn drop_unflushed(&self) {
        self.process.workers.iter().for_each(|worker| worker.send(Message::DropUnflushed));
    }

    /// Nothing is read (SUSPEND).
    pub(crate) fn is_suspended(&self) -> bool {
        self.process.suspended.load(Ordering::Acquire)
    }

    /// The end of a SUSPEND. False: there was none.
    pub(crate) fn end_suspension(&self) -> bool {
        let was = self.process.suspended.swap(false, Ordering::AcqRel);
        if was {
            self.process.workers.iter().for_each(|worker| worker.send(Message::EndSuspension));
        }
        was
    }

    /// The end of a pause.
    pub(crate) fn resume(&self, database: Option<&str>) {
        self.told("RESUME", database);
        self.process.pools.set_paused(database, false);
        self.process.refresh();
    }

    /// Replaces the server connections of a database, or all, as they become free.
    pub(crate) fn reconnect(&self, database: Option<&str>) {
        self.told("RECONNECT", database);
        for pool in self.process.pools.all() {
            if database.is_none_or(|d| pool.key.database == d) {
                pool.recycle();
            }
        }
        self.process.refresh();
    }

    /// Drops clients and servers of a database, or all, and leaves it paused.
    pub(crate) fn kill(&self, database: Option<&str>) {
        self.told("KILL", database);
        self.process.pools.set_paused(database, true);
        self.process.refresh();
        for worker in &self.process.workers {
            worker.send(Message::Kill { database: database.map(str::to_owned), reason: "database removed" });
        }
        self.process.listeners.kill(database);
    }

    /// Drops one client, by the pid that SHOW CLIENTS calls its id. False if there is none.
    pub(crate) async fn kill_client(&self, pid: u32) -> bool {
        let mut found = false;
        for worker in &self.process.workers {
            let (reply, answer) = tokio::sync::oneshot::channel();
            worker.send(Message::KillClient { pid, reply });
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
                all.queries.extend(report.queries);
                all.consoles += report.consoles;
            }
        }
        all
    }

    /// Server connections that work for somebody, in a database or in all.
    pub(crate) async fn busy_servers(&self, database: Option<&str>) -> usize {
        let servers = self.report(ReportKind::Servers).await.servers;
        let is_busy = |s: &&ServerRow| !["idle", "used"].contains(&s.state);
        servers.iter().filter(is_busy).filter(|s| database.is_none_or(|d| s.database == d)).count()
    }

    /// Server connections that are closed as soon as they are free, since the way to the server has changed.
    pub(crate) async fn outdated_servers(&self, database: Option<&str>) -> usize {
        let servers = self.report(ReportKind::Servers).await.servers;
        servers.iter().filter(|s| s.close_needed && database.is_none_or(|d| s.database == d)).count()
    }

    /// Counts what the console does.
    pub(crate) fn count_console(&self, count: impl FnOnce(&mut Totals)) {
        count(&mut self.console.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// What each database has counted since the start.
    fn totals(&self) -> BTreeMap<String, Totals> {
        let mut totals: BTreeMap<String, Totals> = BTreeMap::new();
        for pool in self.process.pools.all() {
            let sum = totals.entry(pool.key.database.clone()).or_default();
            pool.shards.iter().for_each(|shard| sum.add(&shard.stats));
        }
        let console = *self.console.lock().unwrap_or_else(PoisonError::into_inner);
        totals.insert("pgbouncer".to_owned(), console);
        totals
    }

    /// Every database with its totals and averages.
    pub(crate) fn statistics(&self) -> Vec<(String, Totals, Totals)> {
        let totals = self.totals();
        let (over, mut recent) = self.history.window(self.process.clock.micros(), &totals);
        let line = |(name, total): (String, Totals)| {
            let average = recent.remove(&name).unwrap_or_default().averages(over);
            (name, total, average)
        };
        totals.into_iter().map(line).collect()
    }

    /// The totals of all databases together, and their averages.
    pub(crate) fn sums(&self) -> (Totals, Totals) {
        let totals = self.totals();
        let (over, recent) = self.history.window(self.process.clock.micros(), &totals);
        let sum = |all: &BTreeMap<String, Totals>| {
            all.values().fold(Totals::default(), |sum, totals| sum.plus(totals))
        };
        (sum(&totals), sum(&recent).averages(over))
    }

    /// A period of statistics is over. Returns averages over it.
    pub(crate) fn period_over(&self) -> Totals {
        self.history.tick(self.process.clock.micros(), self.totals())
    }

    /// The process takes no new clients.
    pub(crate) fn is_shutting_down(&self) -> bool {
        self.process.shutting_down.load(Ordering::Acquire)
    }

    /// Ends the process: in the way asked for, or faster if it is asked for again. Nobody could leave a suspended one.
    pub(crate) fn shut_down(&self, how: Shutdown) {
        let how = if self.is_suspended() { Shutdown::Now } else { how };
        let until = match how {
            Shutdown::WaitForClients => "shutting down: waiting for the clients to leave",
            Shutdown::WaitForServers => "shutting down: waiting for the transactions under way",
            Shutdown::Now => "shutting down at once",
        };
        self.events().warn(Kind::Process, "", until);
        self.process.shutting_down.store(true, Ordering::Release);
        self.accepting.send_if_modified(|accepting| {
            let here = *accepting == Accepting::Here;
            if here {
                *accepting = Accepting::Over;
            }
            here
        });
        if how == Shutdown::WaitForServers {
            self.process.servers_closing.store(true, Ordering::Release);
            self.pause(None);
        }
        self.shutdown.send_modify(|current| {
            *current = match *current {
                None => Some(how),
                Some(_) => Some(Shutdown::Now),
            }
        });
    }
}
