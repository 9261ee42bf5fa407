//! The connections that listen for clients, one for each database: opened with its first LISTEN, closed a while after its last
//! listener has left. They live on tokio; workers ask (`listening`) and are told in order.
//!
//! They are beyond the pools and their limits, max_db_connections included: one more than is there for transactions.

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use foldhash::fast::RandomState;
use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, MissedTickBehavior, interval, timeout},
};

use crate::{
    error::Printable,
    events::Kind,
    pool::Pool,
    server::{ConnectError, ListeningSession, Notifications, QueryError},
    worker::{message::Message, process::Process},
};

/// How often a listener looks at itself.
const TICK: Duration = Duration::from_secs(1);
/// It asks its server for a sign of life when it has heard nothing for so long.
const QUIET: Duration = Duration::from_secs(10);
/// A server that does not answer for so long is lost.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long it stays when nobody listens any more.
const LINGER: Duration = Duration::from_secs(5);
/// No other attempt so soon after one that has failed.
const RETRY: Duration = Duration::from_secs(3);
/// Most channels that one query is about.
const MOST_CHANGES: usize = 1000;
/// Most bytes that workers have not taken yet; more stays with the server.
const MOST_UNTAKEN: usize = 8 << 20;

/// The name of a channel.
pub(crate) type Name = Box<[u8]>;

/// Why a listener has ended.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum End {
    #[error("{0}")]
    Unreachable(ConnectError),
    #[error("{0}")]
    Lost(QueryError),
    #[error("no answer from the server")]
    NoAnswer,
    #[error("the primary, or the way to the server, is another one")]
    Outdated,
    #[error("database killed")]
    Killed,
    #[error("nobody listens")]
    Unused,
}

/// What a worker wants.
#[derive(Debug, Default)]
pub(crate) struct Command {
    pub(crate) worker: usize,
    /// Channels to listen to, and those that nobody there needs any more.
    pub(crate) listen: Vec<Name>,
    pub(crate) unlisten: Vec<Name>,
    /// Told when this has been done, behind what was heard before. 0: nobody waits.
    pub(crate) ticket: u64,
}

/// One connection, as workers and console see it.
#[derive(Debug)]
pub(crate) struct Listener {
    /// Unique in the process.
    pub(crate) id: u64,
    pub(crate) database: String,
    pub(crate) user: String,
    /// The node that it listens to, as its pool has it.
    pub(crate) node: String,
    commands: mpsc::UnboundedSender<Command>,
    ended: AtomicBool,
    killed: AtomicBool,
    wake: Notify,
    untaken: AtomicUsize,
    /// Its backend's; 0 until it is connected.
    pub(crate) pid: AtomicU32,
    /// Unix time in microseconds.
    pub(crate) connected_at: AtomicU64,
    peer: Mutex<String>,
    /// Clients that listen.
    pub(crate) clients: AtomicUsize,
    pub(crate) channels: AtomicUsize,
    /// Notifications that came, and those that clients were given.
    pub(crate) received: AtomicU64,
    pub(crate) delivered: AtomicU64,
}

impl Listener {
    /// Asks for something. False if it has ended: nothing will come of it.
    pub(crate) fn ask(&self, command: Command) -> bool {
        self.commands.send(command).is_ok() && !self.ended.load(Ordering::SeqCst)
    }

    /// A worker has taken so many bytes.
    pub(crate) fn took(&self, bytes: usize) {
        let before = self.untaken.fetch_sub(bytes, Ordering::AcqRel);
        if before > MOST_UNTAKEN && before - bytes <= MOST_UNTAKEN {
            self.wake.notify_one();
        }
    }

    /// Where it is connected to.
    pub(crate) fn peer(&self) -> String {
        lock(&self.peer).clone()
    }

    fn is_ahead(&self) -> bool {
        self.untaken.load(Ordering::Acquire) > MOST_UNTAKEN
    }
}

/// Those of the process, by database.
#[derive(Debug, Default)]
pub(crate) struct Listeners(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    open: HashMap<String, Arc<Listener>>,
    /// When the last attempt has failed.
    failed: HashMap<String, Instant>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Listeners {
    /// All that there are, by database.
    pub(crate) fn all(&self) -> Vec<Arc<Listener>> {
        let mut all: Vec<_> = lock(&self.0).open.values().cloned().collect();
        all.sort_by(|a, b| a.database.cmp(&b.database));
        all
    }

    /// Ends that of a database, or all.
    pub(crate) fn kill(&self, database: Option<&str>) {
        for listener in self.all().iter().filter(|l| database.is_none_or(|d| l.database == d)) {
            listener.killed.store(true, Ordering::Release);
            listener.wake.notify_one();
        }
    }

    /// The one of a pool's database; begun if there is none. `None`: there cannot be one at the moment.
    pub(crate) fn get(&self, process: &Arc<Process>, pool: &Arc<Pool>) -> Option<Arc<Listener>> {
        let mut inner = lock(&self.0);
        let database = &pool.key.database;
        if let Some(open) = inner.open.get(database) {
            return Some(Arc::clone(open));
        }
        if inner.failed.get(database).is_some_and(|at| at.elapsed() < RETRY) {
            return None;
        }
        let pool = primary_of(pool)?;
        let (commands, asked) = mpsc::unbounded_channel();
        let listener = Arc::new(Listener {
            id: process.next_id(),
            database: database.clone(),
            user: pool.key.user.clone(),
            node: pool.key.node.clone(),
            commands,
            ended: AtomicBool::new(false),
            killed: AtomicBool::new(false),
            wake: Notify::new(),
            untaken: AtomicUsize::new(0),
            pid: AtomicU32::new(0),
            connected_at: AtomicU64::new(0),
            peer: Mutex::default(),
            clients: AtomicUsize::new(0),
            channels: AtomicUsize::new(0),
            received: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
        });
        inner.open.insert(database.clone(), Arc::clone(&listener));
        process.runtime.spawn(listen(Arc::downgrade(process), Arc::clone(&listener), pool, asked));
        Some(listener)
    }

    /// It has ended: others may take its place.
    fn remove(&self, listener: &Arc<Listener>, end: &End) {
        let mut inner = lock(&self.0);
        // Whoever asks it from here on is told so.
        listener.ended.store(true, Ordering::SeqCst);
        inner.open.retain(|_, open| !Arc::ptr_eq(open, listener));
        inner.failed.retain(|_, at| at.elapsed() < RETRY);
        if let End::Unreachable(_) = end {
            inner.failed.insert(listener.database.clone(), Instant::now());
        }
    }
}

/// The pool of the same user where notifications are: on the primary.
fn primary_of(pool: &Arc<Pool>) -> Option<Arc<Pool>> {
    match &pool.seat {
        Some(seat) => seat.sibling(seat.cluster.primary()?),
        // Nothing says that what is notified at one host is heard at another.
        None => pool.settings().is_one_place().then(|| Arc::clone(pool)),
    }
}

/// From the login to the end.
async fn listen(
    process: Weak<Process>,
    listener: Arc<Listener>,
    pool: Arc<Pool>,
    asked: mpsc::UnboundedReceiver<Command>,
) {
    let end = match connect(&process, &listener, &pool).await {
        Ok((session, generation)) => {
            let mut task = Task::new(&process, &listener, &pool, asked, generation);
            task.run(session).await
        }
        Err(end) => end,
    };
    let Some(process) = process.upgrade() else { return };
    process.listeners.remove(&listener, &end);
    let reason = end.to_string();
    match end {
        End::Unused | End::Killed => {}
        _ => {
            let text = format!("the connection that listens for clients has ended: {}", Printable(&reason));
            process.pools.events.warn(Kind::Listener, &listener.database, &text);
            tracing::warn!(database = listener.database, user = listener.user, "{text}");
        }
    }
    for worker in &process.workers {
        worker.send(Message::Deaf { listener: listener.id, end: end.clone() });
    }
}

async fn connect(
    process: &Weak<Process>,
    listener: &Listener,
    pool: &Pool,
) -> Result<(ListeningSession, u64), End> {
    // In this order: a change in between makes the session outdated, never wrong.
    let generation = pool.generation.load(Ordering::Acquire);
    let spec = pool.own_spec("pooler listener");
    let mut session = ListeningSession::connect(&spec).await.map_err(End::Unreachable)?;
    // Since PostgreSQL 14.
    const STAY: &str = "SELECT pg_catalog.set_config(name, '0', false) FROM pg_catalog.pg_settings \
        WHERE name OPERATOR(pg_catalog.=) 'idle_session_timeout'";
    let stays = async {
        session.ask(STAY).await?;
        while session.hear().await?.answers == 0 {}
        Ok(())
    };
    match timeout(PATIENCE, stays).await {
        Ok(answer) => answer.map_err(End::Lost)?,
        Err(_) => return Err(End::NoAnswer),
    }
    let process = process.upgrade().ok_or(End::Unused)?;
    listener.pid.store(session.pid(), Ordering::Release);
    listener.connected_at.store(process.clock.unix_micros(), Ordering::Release);
    *lock(&listener.peer) = session.peer();
    if process.config().settings.log_connections {
        tracing::info!(
            database = listener.database,
            user = listener.user,
            host = spec.address.host,
            port = spec.address.port,
            "new connection to server, which listens for clients"
        );
    }
    Ok((session, generation))
}

/// What has been sent and not been answered.
struct Round {
    /// Workers, and their tickets.
    tickets: Vec<(usize, u64)>,
    since: Instant,
}

/// The connection at work.
struct Task<'a> {
    process: &'a Weak<Process>,
    listener: &'a Arc<Listener>,
    pool: &'a Arc<Pool>,
    asked: mpsc::UnboundedReceiver<Command>,
    generation: u64,
    /// Channels, and the workers that need them.
    channels: HashMap<Name, Vec<usize>, RandomState>,
    /// Channels of each worker.
    of_worker: Vec<usize>,
    commands: VecDeque<Command>,
    round: Option<Round>,
    /// When something came last.
    heard: Instant,
    /// Since when nobody listens.
    unused: Option<Instant>,
}

impl<'a> Task<'a> {
    fn new(
        process: &'a Weak<Process>,
        listener: &'a Arc<Listener>,
        pool: &'a Arc<Pool>,
        asked: mpsc::UnboundedReceiver<Command>,
        generation: u64,
    ) -> Self {
        let workers = process.upgrade().map_or(0, |process| process.workers.len());
        Self {
            process,
            listener,
            pool,
            asked,
            generation,
            channels: HashMap::default(),
            of_worker: vec![0; workers],
            commands: VecDeque::new(),
            round: None,
            heard: Instant::now(),
            unused: Some(Instant::now()),
        }
    }

    async fn run(&mut self, mut session: ListeningSession) -> End {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if let Some(sql) = self.next_round() {
                match timeout(PATIENCE, session.ask(&sql)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => return End::Lost(error),
                    Err(_) => return End::NoAnswer,
                }
            }
            let takes = !self.listener.is_ahead();
            let outdated = self.pool.outdated();
            tokio::select! {
                command = self.asked.recv() => {
                    // Its sender is never gone before it.
                    self.commands.extend(command);
                    while let Ok(command) = self.asked.try_recv() {
                        self.commands.push_back(command);
                    }
                }
                heard = session.hear(), if takes => match heard {
                    Ok(heard) => {
                        self.heard = Instant::now();
                        self.tell(heard.notifications);
                        (0..heard.answers).for_each(|_| self.answered());
                    }
                    Err(error) => return End::Lost(error),
                },
                () = self.listener.wake.notified() => {}
                () = outdated => {}
                _ = tick.tick() => {}
            }
            if let Some(end) = self.over(takes) {
                session.close().await;
                return end;
            }
        }
    }

    /// What to ask next: nothing while something else is asked. One query for all that has come meanwhile.
    fn next_round(&mut self) -> Option<String> {
        if self.round.is_some() || self.commands.is_empty() {
            return None;
        }
        let mut sql = String::new();
        let mut tickets = Vec::new();
        let mut changes = 0;
        while changes < MOST_CHANGES
            && let Some(command) = self.commands.pop_front()
        {
            changes += command.listen.len() + command.unlisten.len();
            for name in command.unlisten {
                self.unlisten(command.worker, &name, &mut sql);
            }
            for name in command.listen {
                self.listen(command.worker, name, &mut sql);
            }
            tickets.extend((command.ticket > 0).then_some((command.worker, command.ticket)));
        }
        self.listener.channels.store(self.channels.len(), Ordering::Relaxed);
        self.unused = match self.channels.is_empty() {
            true => self.unused.or_else(|| Some(Instant::now())),
            false => None,
        };
        self.round = Some(Round { tickets, since: Instant::now() });
        Some(sql)
    }

    fn listen(&mut self, worker: usize, name: Name, sql: &mut String) {
        if !self.channels.contains_key(&name) {
            statement(sql, "LISTEN", &name);
        }
        let workers = self.channels.entry(name).or_default();
        if !workers.contains(&worker) {
            workers.push(worker);
            if let Some(count) = self.of_worker.get_mut(worker) {
                *count += 1;
            }
        }
    }

    fn unlisten(&mut self, worker: usize, name: &[u8], sql: &mut String) {
        let Some(workers) = self.channels.get_mut(name) else { return };
        let before = workers.len();
        workers.retain(|other| *other != worker);
        if let Some(count) = self.of_worker.get_mut(worker) {
            *count -= before - workers.len();
        }
        if workers.is_empty() {
            self.channels.remove(name);
            statement(sql, "UNLISTEN", name);
        }
    }

    /// Tells the workers that need any of it.
    fn tell(&self, notifications: Notifications) {
        if notifications.is_empty() {
            return;
        }
        let Some(process) = self.process.upgrade() else { return };
        let count = u64::try_from(notifications.len()).unwrap_or(0);
        self.listener.received.fetch_add(count, Ordering::Relaxed);
        let (size, notifications) = (notifications.size(), Arc::new(notifications));
        for (worker, _) in process.workers.iter().zip(&self.of_worker).filter(|(_, count)| **count > 0) {
            self.listener.untaken.fetch_add(size, Ordering::AcqRel);
            let notifications = Arc::clone(&notifications);
            worker.send(Message::Heard { listener: self.listener.id, notifications });
        }
    }

    /// The round is over.
    fn answered(&mut self) {
        let Some(process) = self.process.upgrade() else { return };
        for (worker, ticket) in self.round.take().into_iter().flat_map(|round| round.tickets) {
            if let Some(worker) = process.workers.get(worker) {
                worker.send(Message::Answered { listener: self.listener.id, ticket });
            }
        }
    }

    /// Why it is to end now, if so. `takes`: it has been looking for answers.
    fn over(&mut self, takes: bool) -> Option<End> {
        if self.listener.killed.load(Ordering::Acquire) {
            return Some(End::Killed);
        }
        if !self.is_current() {
            return Some(End::Outdated);
        }
        match &mut self.round {
            Some(round) if !takes => round.since = Instant::now(),
            Some(round) if round.since.elapsed() > PATIENCE => return Some(End::NoAnswer),
            Some(_) => {}
            None if self.heard.elapsed() > QUIET => {
                self.heard = Instant::now();
                self.commands.push_back(Command::default());
            }
            None => {}
        }
        let unused = self.unused.is_some_and(|since| since.elapsed() > LINGER);
        (unused && self.round.is_none() && self.commands.is_empty()).then_some(End::Unused)
    }

    /// Clients' transactions go where it is connected to. While no primary is known nothing goes anywhere.
    fn is_current(&self) -> bool {
        let Some(process) = self.process.upgrade() else { return false };
        let Some(own) = self.pool.seat.as_ref().and_then(|seat| seat.place()) else {
            let peer = self.listener.peer().parse::<SocketAddr>();
            let settings = self.pool.settings();
            let names = settings.connect.address.names.as_ref();
            let gone = peer.is_ok_and(|peer| {
                names.is_some_and(|names| names.is_gone(&settings.connect.address.host, peer.ip()))
            });
            return self.pool.is_current(self.generation) && settings.is_one_place() && !gone;
        };
        let Some(cluster) = process.pools.cluster(&self.listener.database) else { return false };
        let primary = cluster.primary().and_then(|node| cluster.nodes.get(node));
        primary.is_none_or(|primary| primary.address.is_same(&own.address))
    }
}

/// Appends a statement about a channel.
fn statement(sql: &mut String, verb: &str, channel: &[u8]) {
    sql.push_str(verb);
    sql.push_str(" \"");
    // Names come from texts in UTF-8.
    sql.push_str(&String::from_utf8_lossy(channel).replace('"', "\"\""));
    sql.push_str("\";");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted() {
        let mut sql = String::new();
        statement(&mut sql, "LISTEN", b"News");
        statement(&mut sql, "UNLISTEN", "a\"\u{fc}".as_bytes());
        assert_eq!(sql, "LISTEN \"News\";UNLISTEN \"a\"\"\u{fc}\";");
    }
}
