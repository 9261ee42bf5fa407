//! A worker: one thread, one epoll, and everything that its clients and servers do after login.
//!
//! No locks and no tasks on the path of a query: the worker reads a socket, translates what it read (`session`), and
//! writes the other socket. Queues and checkout are in `queue`, requests in `relay`, replies in
//! `replies`, the end of a transaction or a connection in `release`.

mod answer;
pub(crate) mod balance;
mod begin;
mod cancel;
mod changes;
mod classes;
pub(crate) mod client;
pub(crate) mod conn;
mod console;
pub(crate) mod decision;
pub(crate) mod departure;
pub(crate) mod directory;
pub(crate) mod discovery;
mod errors;
mod fair;
pub(crate) mod idle;
mod link;
pub(crate) mod listeners;
mod listening;
pub(crate) mod login;
mod long;
mod lost;
pub(crate) mod memory;
pub(crate) mod message;
mod notifications;
mod own;
pub(crate) mod peers;
mod pins;
mod portals;
pub(crate) mod process;
pub(crate) mod queries;
mod queue;
mod refusal;
mod relay;
mod release;
mod reload;
mod replay;
mod replies;
pub(crate) mod report;
mod route;
mod routed;
mod routing;
mod scan;
pub(crate) mod server;
mod settings;
pub(crate) mod spans;
mod suspend;
mod tick;
mod tokens;
mod trying;
mod tunnel;

use std::{
    collections::{HashMap, VecDeque},
    io,
    sync::{Arc, atomic::Ordering, mpsc::Receiver},
    time::Duration,
};

use balance::Balance;
use client::{Client, ClientState};
use message::{Message, WorkerHandle};
use mio::{Events, Poll, Token, event::Event};
use queries::kept_queries;
use queue::ShardState;
use release::ClientError;
use server::Server;
use slab::Slab;
use tokio::sync::mpsc::UnboundedSender;

use crate::{
    config::Config,
    error::Report as _,
    net::timer::Timer,
    pool::{Pool, PoolKey},
    protocol::encode::Severity,
    session::{
        queries::Queries,
        state::{ClientSession, NOBODY},
    },
    worker::process::Process,
};

/// Bytes that one read may bring. Large, so that big results cost few system calls; one per worker.
const READ_BUFFER: usize = 64 << 10;
/// Events taken from the kernel at once.
const EVENTS: usize = 256;
/// Reads from one socket before others get their turn.
const READS_PER_TURN: usize = 8;
/// How often deadlines are looked at.
const TICK: Duration = Duration::from_millis(100);

/// Token of the waker.
pub(crate) const WAKER: Token = Token(usize::MAX);
/// Token of the timer.
pub(crate) const TIMER: Token = Token(usize::MAX - 1);

/// The state of one worker thread.
pub(crate) struct Worker {
    id: usize,
    poll: Poll,
    timer: Timer,
    process: Arc<Process>,
    inbox: Receiver<Message>,
    config: Arc<Config>,
    clients: Slab<Client>,
    servers: Slab<Server>,
    shards: Vec<ShardState>,
    shard_of: HashMap<PoolKey, usize>,
    /// Ends that have bytes to be looked at although no event will say so, with their ids.
    ready: VecDeque<(End, u64)>,
    /// Servers that are free and not yet given to anyone.
    freed: VecDeque<usize>,
    /// What is read lands here.
    buffer: Vec<u8>,
    /// What has to be changed before it is written is put together here.
    staging: Vec<u8>,
    /// What a client has asked for, between routing and sending: its slot, and how many bytes it was.
    scanned: Option<(usize, usize, scan::Scan)>,
    classes: classes::Classes,
    queries: Queries,
    /// Queries that were answered while some are logged.
    answered: u64,
    /// Transactions that no traceparent decides about, while some are traced.
    traced: u64,
    spare: replay::Spare,
    /// Stands for the client of a server whose client has left.
    nobody: ClientSession,
    /// Microseconds of the process clock, read once per turn.
    now: u64,
    next_tick: u64,
    /// Shards whose clients wait, and when they are looked at next.
    hungry: Vec<usize>,
    next_feeding: u64,
    /// How long after that (microseconds): longer and longer while nothing can be done for them.
    feeding_pause: u64,
    /// When the first of the reads that wait for a replica has waited for long enough; `u64::MAX`: none waits.
    next_wait: u64,
    /// Clients that no node can take; some may have gone on or left.
    held: Vec<usize>,
    /// Servers that are amid a long reply, with their ids.
    long: Vec<(usize, u64)>,
    /// What clients listen to without servers of their own.
    links: Vec<link::Link>,
    /// Clients with notifications that they have not been told, with their ids.
    untold: Vec<(usize, u64)>,
    balance: Balance,
    /// Where clients go that can, if another process has taken this one's place.
    departure: Option<UnboundedSender<departure::Departing>>,
    /// How often a client got a server.
    linked: u64,
    /// Most clients at a time since memory was given back.
    most_clients: usize,
    /// Nothing is read: see `suspend`.
    suspended: bool,
    stopping: bool,
}

/// One end of a relay, by its slot.
#[derive(Clone, Copy, Debug)]
enum End {
    Client(usize),
    Server(usize),
}

fn client_token(slot: usize, id: u64) -> Token {
    token(slot << 1, id)
}

fn server_token(slot: usize, id: u64) -> Token {
    token((slot << 1) | 1, id)
}

/// Low half: slot and end; high half: the low bits of the id, so that a late event cannot meet the slot's next user.
fn token(low: usize, id: u64) -> Token {
    let generation = usize::try_from(id & 0x7fff_ffff).unwrap_or(0);
    Token(generation << 32 | low)
}

impl Worker {
    pub(crate) fn new(
        id: usize,
        poll: Poll,
        timer: Timer,
        inbox: Receiver<Message>,
        process: Arc<Process>,
    ) -> Self {
        let nobody = ClientSession::new(NOBODY, process.shared.labels.intern(Default::default()));
        let config = process.config();
        let mut queries = Queries::default();
        queries.keep(kept_queries(&config));
        Self {
            id,
            poll,
            timer,
            inbox,
            config,
            clients: Slab::new(),
            servers: Slab::new(),
            shards: Vec::new(),
            shard_of: HashMap::new(),
            ready: VecDeque::new(),
            freed: VecDeque::new(),
            buffer: vec![0; READ_BUFFER],
            staging: Vec::new(),
            scanned: None,
            classes: classes::Classes::default(),
            queries,
            answered: 0,
            traced: 0,
            spare: replay::Spare::default(),
            nobody,
            now: process.clock.micros(),
            next_tick: 0,
            hungry: Vec::new(),
            next_feeding: u64::MAX,
            feeding_pause: 0,
            next_wait: u64::MAX,
            held: Vec::new(),
            long: Vec::new(),
            links: Vec::new(),
            untold: Vec::new(),
            balance: Balance::default(),
            departure: None,
            linked: 0,
            most_clients: 0,
            suspended: false,
            stopping: false,
            process,
        }
    }

    /// Runs until told to stop.
    pub(crate) fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        while !self.stopping {
            match self.poll.poll(&mut events, Some(self.patience())) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
            self.now = self.process.clock.micros();
            for event in &events {
                self.on_event(event);
            }
            // Replies first, then requests: what is done alike is done faster one after the other.
            self.settle();
            self.go_on_with_ready();
            if self.suspended {
                continue;
            }
            if self.now >= self.next_feeding {
                self.feed_hungry();
                self.settle();
            }
            if self.now >= self.next_wait {
                self.next_wait = u64::MAX;
                self.look_for_nodes();
                self.settle();
            }
            if self.now >= self.next_tick {
                self.next_tick = self.now + u64::try_from(TICK.as_micros()).unwrap_or(0);
                self.tick();
                self.settle();
            }
            if !self.links.is_empty() {
                self.ask_listeners();
                self.tell_notifications();
                self.settle();
            }
        }
        self.close_all();
        Ok(())
    }

    fn patience(&self) -> Duration {
        if self.suspended {
            return TICK;
        }
        if self.ready.is_empty() {
            let next = self.next_tick.min(self.next_feeding).min(self.next_wait);
            Duration::from_micros(next.saturating_sub(self.now).max(1))
        } else {
            Duration::ZERO
        }
    }

    fn on_event(&mut self, event: &Event) {
        match event.token() {
            WAKER => return self.read_inbox(),
            TIMER => return self.fetch_long(),
            _ => {}
        }
        let closed = event.is_read_closed() || event.is_error();
        match self.end(event.token()) {
            Some(End::Client(slot)) => self.client_event(slot, event, closed),
            Some(End::Server(slot)) => self.server_event(slot, event, closed),
            None => {}
        }
    }

    fn end(&self, token: Token) -> Option<End> {
        let slot = (token.0 & 0xffff_ffff) >> 1;
        if token.0 & 1 == 0 {
            let client = self.clients.get(slot)?;
            return (client_token(slot, client.session.id) == token).then_some(End::Client(slot));
        }
        let server = self.servers.get(slot)?;
        (server_token(slot, server.id) == token).then_some(End::Server(slot))
    }

    fn client_event(&mut self, slot: usize, event: &Event, closed: bool) {
        let Some(client) = self.clients.get_mut(slot) else { return };
        client.conn.readable |= event.is_readable() || closed;
        client.conn.guessed &= !event.is_readable();
        client.conn.hung_up |= closed;
        if event.is_writable() && !client.conn.is_flushed() {
            self.client_writable(slot);
        }
        let Some(client) = self.clients.get_mut(slot) else { return };
        if closed && (client.state.is_waiting() || matches!(client.state, ClientState::TunnelWaiting(_))) {
            self.close_client(slot, "client unexpected eof");
        } else if client.conn.readable {
            self.client_readable(slot);
        }
    }

    fn server_event(&mut self, slot: usize, event: &Event, closed: bool) {
        let Some(server) = self.servers.get_mut(slot) else { return };
        server.conn.readable |= event.is_readable() || closed;
        server.conn.hung_up |= closed;
        if event.is_writable() && !server.conn.is_flushed() {
            self.server_writable(slot);
        }
        self.server_readable(slot);
    }

    /// Gives servers that became free to whoever waits. Not from inside the handlers: they may be deep in one.
    fn settle(&mut self) {
        while !self.suspended
            && let Some(slot) = self.freed.pop_front()
        {
            self.give(slot);
        }
    }

    fn go_on_with_ready(&mut self) {
        for _ in 0..self.ready.len() {
            match self.ready.pop_front() {
                Some((End::Client(slot), id)) => {
                    let Some(client) = self.clients.get_mut(slot).filter(|c| c.session.id == id) else {
                        continue;
                    };
                    client.conn.queued = false;
                    self.client_readable(slot);
                }
                Some((End::Server(slot), id)) => {
                    let Some(server) = self.servers.get_mut(slot).filter(|s| s.id == id) else { continue };
                    server.conn.queued = false;
                    self.server_readable(slot);
                }
                None => return,
            }
            self.settle();
        }
    }

    /// No event will tell of what there is to do for this client, or whoever asks is in the middle of another read, with the
    /// buffer in use. One turn for each, however often it is asked for:
    /// else a connection that always has something to read would get more and more of them.
    fn look_later_at_client(&mut self, slot: usize) {
        if let Some(client) = self.clients.get_mut(slot)
            && !std::mem::replace(&mut client.conn.queued, true)
        {
            self.ready.push_back((End::Client(slot), client.session.id));
        }
    }

    /// The same for a server.
    fn look_later_at_server(&mut self, slot: usize) {
        if let Some(server) = self.servers.get_mut(slot)
            && !std::mem::replace(&mut server.conn.queued, true)
        {
            self.ready.push_back((End::Server(slot), server.id));
        }
    }

    fn handle(&self) -> Option<&WorkerHandle> {
        self.process.workers.get(self.id)
    }

    fn read_inbox(&mut self) {
        if let Some(handle) = self.handle() {
            handle.rearm();
        }
        while let Ok(message) = self.inbox.try_recv() {
            self.on_message(message);
            self.settle();
        }
    }

    fn on_message(&mut self, message: Message) {
        match message {
            Message::Client { login, pool, late } => self.welcome_client(*login, &pool, late),
            Message::Console { login, console } => self.welcome_console(*login, console),
            Message::ConsoleOutput { client, bytes, close } => self.console_output(client, &bytes, close),
            Message::Connected { pool, generation, result } => {
                self.server_connected(&pool, generation, result);
            }
            Message::Tunnel { to, generation, result } => self.tunnel_connected(&to, generation, result),
            Message::EvictOf { pool } => {
                self.evict_idle_of(&pool);
            }
            Message::Server { server } => self.adopt_server(server),
            Message::GiveAway { to } => self.give_away(to),
            Message::Moved { client, pool } => self.adopt_client(*client, &pool),
            Message::Want { pool, worker } => self.give_away_idle(&pool, worker),
            Message::Grow { pool } => {
                let index = self.shard(&pool);
                self.grow(index);
            }
            Message::Evict { database, user } => {
                self.evict_idle(&database, &user);
            }
            Message::Cancel { key, reply } => self.cancel(key, reply),
            Message::CancelDone { server, lost } => self.cancel_done(server, lost),
            Message::ClusterChanged { cluster } => self.cluster_changed(&cluster),
            Message::ClusterAdvanced => self.look_for_nodes(),
            Message::NamesChanged => self.note_obsolete_servers(),
            Message::Refresh { config } => self.refresh(config),
            Message::Report { kind, reply } => {
                // The console may have gone away.
                let _ = reply.send(self.report(kind));
            }
            Message::Heard { listener, notifications } => self.heard(listener, &notifications),
            Message::Answered { listener, ticket } => self.listener_answered(listener, ticket),
            Message::Deaf { listener, end } => self.listener_ended(listener, &end),
            Message::Kill { database, reason } => self.kill(database.as_deref(), reason),
            Message::Suspend { reply } => {
                let _ = reply.send(self.suspend());
            }
            Message::DropUnflushed => self.drop_unflushed(),
            Message::EndSuspension => self.end_suspension(),
            Message::KillClient { pid, reply } => {
                let _ = reply.send(self.kill_client(pid));
            }
            Message::Stop => self.stopping = true,
        }
    }

    /// The shard of a pool on this worker; made when first asked for.
    fn shard(&mut self, pool: &Arc<Pool>) -> usize {
        if let Some(&index) = self.shard_of.get(&pool.key)
            && self.shards.get(index).is_some_and(|s| Arc::ptr_eq(&s.pool, pool))
        {
            return index;
        }
        // A database that was removed and came back: late messages of the old pool must not hide the new one.
        if let Some(index) = self.shards.iter().position(|s| Arc::ptr_eq(&s.pool, pool)) {
            return index;
        }
        let new = ShardState::new(Arc::clone(pool), &self.config);
        let vacant = self.vacant_shard();
        let index = vacant.unwrap_or(self.shards.len());
        match vacant.and_then(|index| self.shards.get_mut(index)) {
            Some(shard) => {
                *shard = new;
                self.queries.forget(index);
            }
            None => self.shards.push(new),
        }
        self.shard_of.insert(pool.key.clone(), index);
        index
    }

    fn close_all(&mut self) {
        let clients: Vec<usize> = self.clients.iter().map(|(slot, _)| slot).collect();
        let mut goodbye = Vec::new();
        ClientError::Killed("pooler is shutting down").write(&mut goodbye, Severity::Fatal);
        for slot in clients {
            self.send_last_words(slot, &goodbye);
            self.close_client(slot, "pooler is shutting down");
        }
        let servers: Vec<usize> = self.servers.iter().map(|(slot, _)| slot).collect();
        for slot in servers {
            self.close_server(slot, "pooler is shutting down");
        }
    }

    fn count_client(&self, change: isize) {
        if let Some(handle) = self.handle() {
            handle.clients.fetch_add(change.cast_unsigned(), Ordering::Relaxed);
        }
    }
}
