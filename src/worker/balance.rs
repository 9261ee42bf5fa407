//! Which worker a client lives on.
//!
//! A worker that has more to do at once needs fewer wake-ups for each transaction, so that clients share as few
//! workers as the load needs: a busy worker gives clients to the one that has least to do, and two that need
//! little together become one. Clients move between transactions, when a server has just been taken from them.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};

use super::{
    Worker,
    client::{Client, Discarding},
    client_token,
    directory::Place,
    message::{Message, WorkerHandle},
    release::ClientError,
};
use crate::{config::ClientPlacement, pool::Pool};

/// Thousandths of a core from which on a worker gives clients away.
const BUSY: u32 = 750;
/// Two workers that need less than this together become one, which then needs less than they did; a worker below it takes
/// new clients.
const QUIET: u32 = 650;
/// The other worker must have so much less to do.
const WORTH_IT: u32 = 200;
/// Of the clients that were active in a tick, every so many-th moves in the next one.
const SHARE: u32 = 4;

/// What a worker knows of its load.
#[derive(Debug, Default)]
pub(crate) struct Balance {
    /// CPU time of the thread when it was last looked at, and the process clock then.
    cpu: Duration,
    at: u64,
    /// Releases since then.
    releases: u32,
    /// To which worker clients go, and how many more.
    moving: Option<(usize, u32)>,
}

impl Balance {
    /// To be asked at each release: whether the client should move.
    pub(super) fn moves(&mut self) -> bool {
        self.releases = self.releases.saturating_add(1);
        self.moving.is_some_and(|(_, left)| left > 0)
    }
}

/// The worker for a new client.
pub(crate) fn place(workers: &[WorkerHandle], even: bool) -> Option<&WorkerHandle> {
    let usage = |w: &&WorkerHandle| w.usage.load(Ordering::Relaxed);
    if even {
        return workers.iter().min_by_key(|w| w.clients.load(Ordering::Relaxed));
    }
    workers.iter().find(|w| usage(w) < QUIET).or_else(|| workers.iter().min_by_key(usage))
}

impl Worker {
    /// Looks at the load and decides whether clients shall move until the next tick.
    pub(super) fn rebalance(&mut self) {
        let spent = clock_gettime(ClockId::ThreadCPUTime);
        let cpu = Duration::new(
            u64::try_from(spent.tv_sec).unwrap_or(0),
            u32::try_from(spent.tv_nsec).unwrap_or(0),
        );
        let wall = self.now.saturating_sub(self.balance.at).max(1);
        let used = cpu.saturating_sub(self.balance.cpu).as_micros() * 1000 / u128::from(wall);
        let used = u32::try_from(used).unwrap_or(u32::MAX).min(1000);
        let Some(handle) = self.handle() else { return };
        // Most of it is the past: a few busy ticks (many logins at once) do not move anybody.
        let usage = (handle.usage.load(Ordering::Relaxed) * 3 + used) / 4;
        handle.usage.store(usage, Ordering::Relaxed);
        let active = self.balance.releases.min(u32::try_from(self.clients.len()).unwrap_or(u32::MAX));
        self.balance.cpu = cpu;
        self.balance.at = self.now;
        self.balance.releases = 0;
        self.balance.moving = match self.config.settings.client_placement {
            ClientPlacement::Packed => self.better_worker(usage, active),
            ClientPlacement::Even => None,
            ClientPlacement::Rotate => Some(((self.id + 1) % self.process.workers.len().max(1), u32::MAX)),
        };
    }

    fn better_worker(&self, usage: u32, active: u32) -> Option<(usize, u32)> {
        let loads = || self.process.workers.iter().map(|w| w.usage.load(Ordering::Relaxed)).enumerate();
        if usage > BUSY {
            let (target, least) = loads().filter(|(w, _)| *w != self.id).min_by_key(|(_, u)| *u)?;
            return (least + WORTH_IT < usage).then_some((target, (active / SHARE).max(1)));
        }
        let (target, _) = loads().take(self.id).find(|(_, u)| u + usage < QUIET)?;
        Some((target, u32::MAX))
    }

    /// Gives an idle client to another worker. False if it has to stay for now.
    pub(super) fn move_away(&mut self, slot: usize) -> bool {
        let Some((target, left)) = self.balance.moving else { return false };
        let (Some(client), Some(handle)) = (self.clients.get_mut(slot), self.process.workers.get(target))
        else {
            return false;
        };
        let unread =
            !client.pending.is_empty() || client.discarding != Discarding::Nothing || client.ignoring > 0;
        let busy = unread || !client.conn.is_flushed() || client.listening.is_some();
        if target == self.id || busy || client.conn.wire().detach(self.poll.registry()).is_err() {
            return false;
        }
        let Some(pool) = self.shards.get(client.shard).map(|s| Arc::clone(&s.pool)) else { return false };
        let client = Box::new(self.clients.remove(slot));
        self.balance.moving = Some((target, left.saturating_sub(u32::from(left < u32::MAX))));
        let key = client.info.key.clone();
        handle.clients.fetch_add(1, Ordering::Relaxed);
        self.count_client(-1);
        handle.send(Message::Moved { client, pool });
        let from = Place { worker: self.id, slot };
        self.process.directory.leave(&key, from, Place { worker: target, slot: usize::MAX });
        true
    }

    /// Takes over a client that another worker gave away.
    pub(super) fn adopt_client(&mut self, mut client: Client, pool: &Arc<Pool>) {
        client.shard = self.shard(pool);
        if let Some(user) = self.config.users.get(&client.info.user) {
            client.info.user_config = Arc::clone(user);
        }
        let entry = self.clients.vacant_entry();
        let slot = entry.key();
        let (id, key) = (client.session.id, client.info.key.clone());
        let attached = client.conn.wire().attach(self.poll.registry(), client_token(slot, id));
        client.conn.look_again();
        entry.insert(client);
        self.process.directory.set(&key, Place { worker: self.id, slot });
        if attached.is_err() {
            return self.close_client(slot, "cannot be registered");
        }
        if pool.is_removed() {
            // While it was on its way, when nobody could tell it.
            return self.fail_client(slot, &ClientError::Killed("database removed"));
        }
        self.client_readable(slot);
    }
}
