//! Changes from outside: a new configuration, PAUSE and RESUME, KILL.

use std::sync::Arc;

use super::{
    Worker,
    client::{Client, ClientState},
    queries::kept_queries,
    queue::ShardState,
    release::ClientError,
    server::ServerState,
};
use crate::{config::Config, worker::process::pid_of};

impl Worker {
    /// Looks at every shard with new eyes. Clients that are connected get the new settings too.
    pub(super) fn refresh(&mut self, config: Arc<Config>) {
        self.queries.keep(kept_queries(&config));
        for (_, client) in &mut self.clients {
            if let Some(user) = config.users.get(&client.info.user) {
                client.info.user_config = Arc::clone(user);
            }
        }
        for index in 0..self.shards.len() {
            let Some(shard) = self.shards.get_mut(index) else { continue };
            shard.refresh(&config);
            if !shard.pool.is_paused() && !shard.waiting.is_empty() {
                let idle: Vec<usize> = shard.idle.iter().copied().collect();
                for slot in idle {
                    self.remove_idle(slot);
                    self.freed.push_back(slot);
                }
            }
        }
        self.config = config;
        self.leave_replaced();
        self.tick();
    }

    /// Clients of pools that have been replaced go where these are now: those who wait would get servers that nobody watches.
    fn leave_replaced(&mut self) {
        let leaves = |client: &Client| {
            let shard = self.shards.get(client.shard);
            client.state.server().is_none() && shard.is_some_and(|shard| shard.pool.is_replaced())
        };
        let leaving = self.clients.iter().filter(|(_, client)| leaves(client));
        let leaving: Vec<usize> = leaving.map(|(slot, _)| slot).collect();
        for slot in leaving {
            self.dequeue(slot);
            self.rehome(slot);
            if self.clients.get(slot).is_some_and(|client| client.state.is_waiting()) {
                self.begin_again(slot);
            }
            self.settle();
        }
    }

    /// The place of a shard whose pool is gone, and whose clients and servers too: lists of nodes may change often.
    pub(super) fn vacant_shard(&mut self) -> Option<usize> {
        let over = |shard: &ShardState| {
            let gone = shard.pool.is_replaced() || shard.pool.is_removed();
            gone && shard.servers == 0 && shard.connecting == 0 && shard.waiting.is_empty()
        };
        let used = |index: usize| {
            self.hungry.contains(&index)
                || self.clients.iter().any(|(_, client)| client.shard == index)
                || self.servers.iter().any(|(_, server)| server.shard == index)
        };
        let mut places = self.shards.iter().enumerate();
        let (vacant, _) = places.find(|(index, shard)| over(shard) && !used(*index))?;
        self.shard_of.retain(|_, index| *index != vacant);
        for seat in self.shards.iter_mut().filter_map(|shard| shard.seat.as_mut()) {
            seat.forget_sibling(vacant);
        }
        Some(vacant)
    }

    /// Ends the clients of a database (or all but those of the console), and closes its servers.
    pub(super) fn kill(&mut self, database: Option<&str>, reason: &'static str) {
        let concerned = |name: &str| database.is_none_or(|d| d == name);
        let clients: Vec<usize> = self
            .clients
            .iter()
            .filter(|(_, c)| !matches!(c.state, ClientState::Console(_)) && concerned(&c.info.database))
            .map(|(slot, _)| slot)
            .collect();
        for slot in clients {
            self.fail_client(slot, &ClientError::Killed(reason));
        }
        let servers: Vec<usize> = self
            .servers
            .iter()
            .filter(|(_, s)| concerned(&s.pool.key.database) && !matches!(s.state, ServerState::Active(_)))
            .map(|(slot, _)| slot)
            .collect();
        for slot in servers {
            self.close_server(slot, reason);
        }
    }

    /// Ends the client of this pid. True if it was here.
    pub(super) fn kill_client(&mut self, pid: u32) -> bool {
        let slot = self.clients.iter().find(|(_, c)| pid_of(c.session.id) == pid).map(|(slot, _)| slot);
        if let Some(slot) = slot {
            self.fail_client(slot, &ClientError::Killed("admin forced disconnect"));
        }
        slot.is_some()
    }
}
