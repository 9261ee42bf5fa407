//! Changes from outside: a new configuration, PAUSE and RESUME, KILL.

use std::sync::Arc;

use super::{Worker, client::ClientState, release::ClientError, server::ServerState};
use crate::config::Config;

impl Worker {
    /// Looks at every shard with new eyes. Clients that are connected get the new settings too.
    pub(super) fn refresh(&mut self, config: Arc<Config>) {
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
        self.tick();
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

    /// Ends one client. True if it was here.
    pub(super) fn kill_client(&mut self, id: u64) -> bool {
        let slot = self.clients.iter().find(|(_, c)| c.session.id == id).map(|(slot, _)| slot);
        if let Some(slot) = slot {
            self.fail_client(slot, &ClientError::Killed("admin forced disconnect"));
        }
        slot.is_some()
    }
}
