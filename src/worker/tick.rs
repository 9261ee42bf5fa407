//! Deadlines, looked at ten times a second: no timer per query.

use std::time::Duration;

use super::{
    Worker,
    client::{Client, ClientState},
    release::{ClientError, DRAIN_TIME},
    server::{Server, ServerState},
};
use crate::{config::Config, protocol::TransactionStatus};

/// What has run out.
enum Expired {
    Client(usize, ClientError),
    /// Too slow to read what it asked for.
    SlowReader(usize),
    Server(usize, &'static str),
    /// Still at work for a client that left.
    Orphan(usize),
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

impl Worker {
    pub(super) fn tick(&mut self) {
        let mut expired = Vec::new();
        for (slot, client) in &self.clients {
            expired.extend(self.check_client(slot, client));
        }
        for (slot, server) in &self.servers {
            expired.extend(self.check_server(slot, server));
        }
        for what in expired {
            match what {
                Expired::Client(slot, error) => self.expire_client(slot, &error),
                Expired::SlowReader(slot) => self.close_client(slot, "client_write_timeout"),
                Expired::Server(slot, reason) => self.close_server(slot, reason),
                Expired::Orphan(slot) => self.cancel_and_close(slot),
            }
        }
        for index in 0..self.shards.len() {
            self.care_for_shard(index);
        }
        self.rebalance();
    }

    /// A client that is ended in the middle of a transaction takes its server with it.
    fn expire_client(&mut self, slot: usize, error: &ClientError) {
        let server = self.clients.get(slot).and_then(|c| c.state.server());
        self.fail_client(slot, error);
        if let Some(server) = server
            && self.servers.get(server).is_some_and(|s| s.state == ServerState::Draining)
        {
            self.close_server(server, "client timed out");
        }
    }

    fn check_client(&self, slot: usize, client: &Client) -> Option<Expired> {
        let age = self.now.saturating_sub(client.since);
        let over = |limit: Option<Duration>| limit.is_some_and(|l| !l.is_zero() && age > micros(l));
        let stuck = client.info.stuck_since;
        let patience = self.config.settings.client_write_timeout;
        if stuck > 0 && !patience.is_zero() && self.now.saturating_sub(stuck) > micros(patience) {
            return Some(Expired::SlowReader(slot));
        }
        let user = &client.info.user_config;
        match client.state {
            ClientState::Waiting => {
                let database = self.shards.get(client.shard).map(|s| &s.settings.database)?;
                over(self.config.query_wait_timeout(database, user))
                    .then_some(Expired::Client(slot, ClientError::QueryWait))
            }
            ClientState::LoginWaiting | ClientState::LoginLinked(_) => {
                over(Some(self.config.settings.client_login_timeout))
                    .then_some(Expired::Client(slot, ClientError::LoginWait))
            }
            ClientState::Idle => over(self.config.client_idle_timeout(user))
                .then_some(Expired::Client(slot, ClientError::ClientIdle)),
            ClientState::Linked(server) => {
                let server = self.servers.get(server)?;
                linked_error(&self.config, client, server, self.now).map(|e| Expired::Client(slot, e))
            }
            ClientState::Console(_) => None,
        }
    }

    fn check_server(&self, slot: usize, server: &Server) -> Option<Expired> {
        let settings = &self.config.settings;
        let age = self.now.saturating_sub(server.since);
        let reason = match server.state {
            ServerState::Idle => return self.check_idle_server(slot, server, age),
            ServerState::Testing | ServerState::Resetting
                if !settings.server_connect_timeout.is_zero()
                    && age > micros(settings.server_connect_timeout) =>
            {
                "check or reset query timeout"
            }
            ServerState::Draining if age > DRAIN_TIME => return Some(Expired::Orphan(slot)),
            ServerState::BeingCanceled
                if !settings.cancel_wait_timeout.is_zero()
                    && age > micros(settings.cancel_wait_timeout) * 2 =>
            {
                "cancel_wait_timeout"
            }
            _ => return None,
        };
        Some(Expired::Server(slot, reason))
    }

    fn check_idle_server(&self, slot: usize, server: &Server, age: u64) -> Option<Expired> {
        let settings = &self.config.settings;
        let keep = self.shards.get(server.shard).map_or(0, |s| s.settings.min_size);
        let reason = if server.generation != server.pool.generation.load(std::sync::atomic::Ordering::Acquire)
        {
            "database configuration changed"
        } else if self.now >= server.expires {
            "server lifetime over"
        } else if server.pool.over_limit() {
            "too many servers in the pool"
        } else if server.pool.is_paused() {
            "pause mode"
        } else if !settings.server_idle_timeout.is_zero()
            && age > micros(settings.server_idle_timeout)
            && server.pool.open_servers() > keep
        {
            "server idle timeout"
        } else {
            return None;
        };
        Some(Expired::Server(slot, reason))
    }

    /// Opens what min_pool_size asks for, and what earlier failures left undone.
    fn care_for_shard(&mut self, index: usize) {
        self.grow(index);
        let Some(shard) = self.shards.get(index) else { return };
        let lacking = shard.pool.open_servers() < shard.settings.min_size;
        if self.id == 0 && lacking && shard.connecting == 0 && !shard.pool.is_paused() {
            self.open_server(index);
        }
    }
}

fn linked_error(config: &Config, client: &Client, server: &Server, now: u64) -> Option<ClientError> {
    let user = &client.info.user_config;
    let over = |limit: Option<Duration>, since: u64| {
        since > 0 && limit.is_some_and(|l| !l.is_zero() && now.saturating_sub(since) > micros(l))
    };
    if over(config.query_timeout(user), server.query_start) {
        return Some(ClientError::Query);
    }
    let in_transaction = server.session.status != TransactionStatus::Idle;
    let idle = server.session.pipeline.is_empty() && in_transaction;
    if idle && over(config.idle_transaction_timeout(user), server.answered) {
        return Some(ClientError::IdleTransaction);
    }
    let busy = in_transaction || !server.session.pipeline.is_empty();
    (busy && over(config.transaction_timeout(user), server.transaction_start))
        .then_some(ClientError::Transaction)
}
