//! Who gets a server, and when a new one is opened: the shard of a pool.
//!
//! First come, first served within a shard; between shards close to it (a shard whose first client has waited much
//! longer than the own one is served instead). Servers move to where clients wait.

use std::{
    collections::VecDeque,
    num::NonZeroUsize,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use super::{
    Worker,
    client::ClientState,
    long::Pace,
    message::Message,
    route::ShardSeat,
    server::{Server, ServerState},
};
use crate::{
    cluster::CatalogState,
    config::{Config, MOST_NODES, PoolMode, SessionFunctions},
    pool::{Pool, PoolSettings},
    session::hidden::Hidden,
    sql::Catalog,
};

/// So long (microseconds) a client waits for a server of its own worker, which is likely to have one soon, before others
/// are asked and new ones opened.
pub(super) const PATIENCE: u64 = 500;
/// Those who wait are looked at again after such a pause (microseconds) at most; logins and servers that end do so too.
const LONGEST_PAUSE: u64 = 50_000;
/// Another shard's first client must have waited at least so much longer (microseconds), and twice as long.
pub(super) const UNFAIR: u64 = 5_000;

/// A pool on one worker.
#[derive(Debug)]
pub(crate) struct ShardState {
    pub(crate) pool: Arc<Pool>,
    pub(crate) settings: Arc<PoolSettings>,
    pub(crate) max_statements: Option<NonZeroUsize>,
    /// Free servers; the last used is the last.
    pub(crate) idle: VecDeque<usize>,
    /// Clients in order: slot, id, and since when.
    pub(crate) waiting: VecDeque<Waiting>,
    /// Logins at the server under way.
    pub(crate) connecting: u32,
    /// Servers on this worker, whatever they do.
    pub(crate) servers: u32,
    /// Its place among the nodes of the database, if there are some.
    pub(crate) seat: Option<ShardSeat>,
    /// What is known of the database if it has no nodes, by host.
    catalogs: Vec<(Arc<CatalogState>, Arc<Catalog>)>,
}

/// A place in the queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiting {
    pub(crate) client: usize,
    pub(crate) id: u64,
    pub(crate) since: u64,
    /// It has waited for another replica before.
    pub(crate) moved: bool,
}

impl ShardState {
    pub(crate) fn new(pool: Arc<Pool>, config: &Config) -> Self {
        let settings = pool.settings();
        Self {
            seat: ShardSeat::of(&pool),
            pool,
            settings,
            max_statements: max_statements(config),
            idle: VecDeque::new(),
            waiting: VecDeque::new(),
            connecting: 0,
            servers: 0,
            catalogs: Vec::new(),
        }
    }

    /// What functions may leave in the session of a client in this mode, where that is looked for. `host`: what is known of
    /// its server's.
    pub(super) fn hidden(
        &mut self,
        mode: PoolMode,
        policy: SessionFunctions,
        host: &Arc<CatalogState>,
    ) -> Option<Hidden<'_>> {
        if mode == PoolMode::Session || policy == SessionFunctions::Trust {
            return None;
        }
        let catalog = match &mut self.seat {
            Some(seat) => {
                seat.refresh_catalog();
                &seat.catalog
            }
            None => {
                let place = self.catalogs.iter().position(|(of, _)| Arc::ptr_eq(of, host));
                let place = place.unwrap_or_else(|| {
                    // Those of hosts that are gone.
                    self.catalogs.truncate(MOST_NODES);
                    self.catalogs.insert(0, (Arc::clone(host), Arc::default()));
                    0
                });
                let (_, copy) = self.catalogs.get_mut(place)?;
                host.refresh(copy);
                &*copy
            }
        };
        let binds = policy == SessionFunctions::Pin;
        catalog.hides().then_some(Hidden { catalog, binds })
    }

    /// Takes over settings after a reload.
    pub(crate) fn refresh(&mut self, config: &Config) {
        self.settings = self.pool.settings();
        self.max_statements = max_statements(config);
    }

    /// Names are handled by the pooler: not in session mode, where a client meets one server only.
    pub(crate) fn tracked_statements(&self, mode: PoolMode) -> Option<NonZeroUsize> {
        self.max_statements.filter(|_| mode != PoolMode::Session)
    }

    /// Shows the other workers what is idle and who waits here.
    fn publish(&self, worker: usize) {
        let Some(shard) = self.pool.shards.get(worker) else { return };
        shard.idle.store(u32::try_from(self.idle.len()).unwrap_or(u32::MAX), Ordering::Release);
        let since = self.waiting.front().map_or(0, |w| w.since.max(1));
        shard.waiting_since.store(since, Ordering::Release);
    }
}

fn max_statements(config: &Config) -> Option<NonZeroUsize> {
    NonZeroUsize::new(usize::try_from(config.settings.max_prepared_statements).unwrap_or(0))
}

impl Worker {
    /// A free server for a client that comes now; `None` if it has to queue.
    pub(super) fn checkout(&mut self, shard_index: usize) -> Option<usize> {
        loop {
            let shard = self.shards.get_mut(shard_index)?;
            if !shard.waiting.is_empty() || shard.pool.is_paused() {
                return None;
            }
            let slot = take_idle(shard, self.config.settings.server_round_robin)?;
            shard.publish(self.id);
            if self.fit_for_use(slot) {
                return Some(slot);
            }
        }
    }

    /// A server could be had right now.
    pub(super) fn can_checkout(&self, shard_index: usize) -> bool {
        self.shards
            .get(shard_index)
            .is_some_and(|s| !s.idle.is_empty() && s.waiting.is_empty() && !s.pool.is_paused())
    }

    /// Whether an idle server may be used as it is. If not, it is being checked or closed.
    fn fit_for_use(&mut self, slot: usize) -> bool {
        if self.close_if_outdated(slot) {
            return false;
        }
        let Some(server) = self.servers.get(slot) else { return false };
        if !self.is_to_be_checked(server) {
            return true;
        }
        let query = self.config.settings.server_check_query.clone();
        self.run_own_query(slot, &query, ServerState::Testing);
        false
    }

    /// Whether a server was idle for so long that it is checked before the next client gets it.
    pub(super) fn is_to_be_checked(&self, server: &Server) -> bool {
        let settings = &self.config.settings;
        let delay = u64::try_from(settings.server_check_delay.as_micros()).unwrap_or(u64::MAX);
        self.now.saturating_sub(server.since) >= delay.max(1) && !settings.server_check_query.is_empty()
    }

    /// Puts a client at the end of the queue, and sees to it that a server comes.
    pub(super) fn enqueue(&mut self, slot: usize, state: ClientState) {
        let Some(client) = self.clients.get_mut(slot) else { return };
        client.state = state;
        client.since = self.now;
        let waiting = Waiting { client: slot, id: client.session.id, since: self.now, moved: false };
        let index = client.shard;
        self.insert_by_age(index, waiting);
    }

    /// Puts one who waits where it belongs in a queue.
    pub(super) fn insert_by_age(&mut self, index: usize, waiting: Waiting) {
        let Some(shard) = self.shards.get_mut(index) else { return };
        let place = shard.waiting.iter().rposition(|other| other.since <= waiting.since).map_or(0, |i| i + 1);
        shard.waiting.insert(place, waiting);
        shard.publish(self.id);
        if shard.servers == 0 {
            self.grow(index);
        }
        if !self.hungry.contains(&index) {
            self.hungry.push(index);
            self.feeding_pause = PATIENCE;
            self.next_feeding = self.next_feeding.min(self.now + PATIENCE);
        }
    }

    /// Sees to it that those who have waited for a while get a server.
    pub(super) fn feed_hungry(&mut self) {
        // Who joins another queue makes that one hungry.
        let mut place = 0;
        while let Some(&index) = self.hungry.get(place) {
            place += 1;
            let first = self.shards.get(index).and_then(|shard| shard.waiting.front());
            if first.is_some_and(|first| self.now.saturating_sub(first.since) >= PATIENCE) {
                self.grow(index);
                self.join_sibling(index);
            }
        }
        self.hungry.retain(|&index| self.shards.get(index).is_some_and(|shard| !shard.waiting.is_empty()));
        self.feeding_pause = (self.feeding_pause * 2).min(LONGEST_PAUSE);
        self.next_feeding = if self.hungry.is_empty() { u64::MAX } else { self.now + self.feeding_pause };
    }

    /// Takes a client out of the queue (cancelled, gone, timed out).
    pub(super) fn dequeue(&mut self, slot: usize) {
        let Some(client) = self.clients.get(slot) else { return };
        let id = client.session.id;
        if let Some(shard) = self.shards.get_mut(client.shard) {
            shard.waiting.retain(|w| w.id != id);
            shard.publish(self.id);
        }
    }

    /// Hands a free server to the first who waits, here or on another worker; else it is idle.
    pub(super) fn give(&mut self, slot: usize) {
        let Some(server) = self.servers.get(slot).filter(|s| s.state == ServerState::Free) else { return };
        let index = server.shard;
        if self.close_if_outdated(slot) {
            return self.grow(index);
        }
        let Some(shard) = self.shards.get_mut(index) else { return };
        if !shard.pool.is_paused() {
            if let Some(target) = needier_shard(shard, self.id, self.now) {
                return self.hand_over(slot, target);
            }
            if let Some(first) = self.take_from_sibling(index) {
                return self.serve(first, slot);
            }
            let Some(shard) = self.shards.get_mut(index) else { return };
            if let Some(first) = shard.waiting.pop_front() {
                shard.publish(self.id);
                return self.serve(first, slot);
            }
        }
        let Some(shard) = self.shards.get_mut(index) else { return };
        shard.idle.push_back(slot);
        shard.publish(self.id);
        if let Some(server) = self.servers.get_mut(slot) {
            server.state = ServerState::Idle;
            server.wake_at(1);
            server.since = self.now;
        }
    }

    fn serve(&mut self, first: Waiting, server: usize) {
        let state = self.clients.get(first.client).filter(|c| c.session.id == first.id).map(|c| &c.state);
        match state {
            Some(ClientState::LoginWaiting) => self.serve_login(first.client, server),
            Some(ClientState::Waiting) => {
                self.link(first.client, server);
                self.client_readable(first.client);
                self.unlink_if_unused(first.client, server);
            }
            _ => self.freed.push_front(server),
        }
    }

    /// Opens servers while clients wait and limits allow, a few at once.
    pub(super) fn grow(&mut self, index: usize) {
        loop {
            let Some(shard) = self.shards.get_mut(index) else { return };
            let wanted = u32::try_from(shard.waiting.len()).unwrap_or(u32::MAX);
            let at_once = self.config.settings.max_connect_attempts.max(1);
            if shard.connecting >= wanted.min(at_once) || shard.pool.is_paused() || self.ask_others(index) {
                return;
            }
            if !self.open_server(index) {
                return;
            }
        }
    }

    /// Asks a worker that has an idle server of this pool. True if one was asked.
    fn ask_others(&mut self, index: usize) -> bool {
        let Some(shard) = self.shards.get(index) else { return false };
        let holder = shard
            .pool
            .shards
            .iter()
            .enumerate()
            .find(|(worker, s)| *worker != self.id && s.idle.load(Ordering::Acquire) > 0);
        let Some((worker, _)) = holder else { return false };
        if let Some(handle) = self.process.workers.get(worker) {
            handle.send(Message::Want { pool: Arc::clone(&shard.pool), worker: self.id });
        }
        true
    }

    /// Starts one login at the server, within limits. True if it was started.
    pub(super) fn open_server(&mut self, index: usize) -> bool {
        let Some(shard) = self.shards.get_mut(index) else { return false };
        if !shard.pool.may_connect(Instant::now()) {
            return false;
        }
        let waited = shard.waiting.front().map_or(0, |w| self.now.saturating_sub(w.since));
        let patience = u64::try_from(shard.settings.reserve_timeout.as_micros()).unwrap_or(u64::MAX);
        let reserve = patience > 0 && waited >= patience && !shard.waiting.is_empty();
        if !shard.pool.reserve_server(reserve) {
            // Only for clients (min_pool_size takes nothing from others), and only where others can give what is lacking.
            if !shard.waiting.is_empty() && !shard.pool.is_full(reserve) {
                self.make_room(index);
            }
            return false;
        }
        let Some(shard) = self.shards.get_mut(index) else { return false };
        shard.connecting += 1;
        self.process.connect_server(self.id, &shard.pool);
        true
    }

    /// The database's or the user's limit is reached: an idle server of another pool makes room.
    pub(super) fn make_room(&mut self, index: usize) {
        let Some(shard) = self.shards.get(index) else { return };
        let pool = Arc::clone(&shard.pool);
        let full = |b: &crate::pool::budget::Budget| b.limit() > 0 && b.used() >= b.limit();
        let database = if full(&pool.database.servers) { pool.key.database.clone() } else { String::new() };
        let user = if full(&pool.user_servers) { pool.key.user.clone() } else { String::new() };
        if database.is_empty() && user.is_empty() {
            return;
        }
        if self.evict_idle(&database, &user) {
            return;
        }
        for (worker, handle) in self.process.workers.iter().enumerate() {
            if worker != self.id {
                handle.send(Message::Evict { database: database.clone(), user: user.clone() });
            }
        }
    }

    /// Closes the least recently used idle server of a database or user, preferably of a pool that has more than its
    /// minimum.
    pub(super) fn evict_idle(&mut self, database: &str, user: &str) -> bool {
        let minimal = |s: &Server| {
            self.shards.get(s.shard).is_some_and(|shard| s.pool.open_servers() <= shard.settings.min_size)
        };
        let victim = self
            .servers
            .iter()
            .filter(|(_, s)| s.state == ServerState::Idle)
            .filter(|(_, s)| s.pool.key.database == database || s.pool.key.user == user)
            .min_by_key(|(_, s)| (minimal(s), s.since))
            .map(|(slot, _)| slot);
        let Some(slot) = victim else { return false };
        self.remove_idle(slot);
        self.close_server(slot, "evicted");
        true
    }

    /// Takes a server off its shard's idle list.
    pub(super) fn remove_idle(&mut self, slot: usize) {
        let Some(server) = self.servers.get_mut(slot) else { return };
        server.state = ServerState::Free;
        if let Some(shard) = self.shards.get_mut(server.shard) {
            shard.idle.retain(|s| *s != slot);
            shard.publish(self.id);
        }
    }

    /// Another worker's clients wait: it gets an idle server, if there still is one and nobody waits here.
    pub(super) fn give_away_idle(&mut self, pool: &Arc<Pool>, worker: usize) {
        let index = self.shard(pool);
        let Some(shard) = self.shards.get_mut(index) else { return };
        let waits = pool.shards.get(worker).is_some_and(|s| s.waiting_since.load(Ordering::Acquire) > 0);
        if !waits || !shard.waiting.is_empty() || shard.pool.is_paused() {
            return;
        }
        let Some(slot) = take_idle(shard, false) else { return };
        shard.publish(self.id);
        // If it has to be checked first, it is handed over afterwards.
        if self.fit_for_use(slot) {
            self.hand_over(slot, worker);
        }
    }

    fn hand_over(&mut self, slot: usize, worker: usize) {
        let Some(server) = self.servers.get_mut(slot) else { return };
        server.wake_at(1);
        if server.cancels > 0 || server.conn.wire().detach(self.poll.registry()).is_err() {
            return self.close_server(slot, "cannot be handed to another worker");
        }
        let server = Box::new(self.servers.remove(slot));
        if let Some(shard) = self.shards.get_mut(server.shard) {
            shard.servers = shard.servers.saturating_sub(1);
        }
        if let Some(handle) = self.process.workers.get(worker) {
            handle.send(Message::Server { server });
        }
    }

    /// Takes over a server that another worker gave away.
    pub(super) fn adopt_server(&mut self, mut server: Box<Server>) {
        server.shard = self.shard(&Arc::clone(&server.pool));
        if let Some(shard) = self.shards.get_mut(server.shard) {
            shard.servers += 1;
        }
        server.state = ServerState::Free;
        let entry = self.servers.vacant_entry();
        let slot = entry.key();
        let token = super::server_token(slot, server.id);
        // It may have been told of on the way.
        server.look_at_name(&self.process.pools.names);
        let attached = server.conn.wire().attach(self.poll.registry(), token);
        server.conn.look_again();
        // What others have notified there has been heard on another worker, if at all.
        (server.heard, server.answered) = (false, self.now);
        // It is amid no reply, and in no list of this worker.
        server.pace = Pace::default();
        entry.insert(*server);
        if attached.is_err() {
            return self.close_server(slot, "cannot be registered");
        }
        self.server_readable(slot);
        if self.servers.get(slot).is_some_and(|s| s.state == ServerState::Free) {
            self.freed.push_back(slot);
        }
    }
}

fn take_idle(shard: &mut ShardState, round_robin: bool) -> Option<usize> {
    if round_robin { shard.idle.pop_front() } else { shard.idle.pop_back() }
}

/// Another worker whose first client should be served before the own ones.
fn needier_shard(shard: &ShardState, own: usize, now: u64) -> Option<usize> {
    let own_wait = shard.waiting.front().map(|w| now.saturating_sub(w.since));
    let others = shard.pool.shards.iter().enumerate().filter(|(worker, _)| *worker != own);
    let (worker, since) = others
        .map(|(worker, s)| (worker, s.waiting_since.load(Ordering::Acquire)))
        .filter(|(_, since)| *since > 0)
        .min_by_key(|(_, since)| *since)?;
    let waited = now.saturating_sub(since);
    match own_wait {
        None => (waited >= PATIENCE).then_some(worker),
        Some(own_wait) => (waited > own_wait.saturating_mul(2) + UNFAIR).then_some(worker),
    }
}
