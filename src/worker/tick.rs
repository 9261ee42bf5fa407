//! Deadlines, looked at ten times a second: no timer per query.

use std::{sync::atomic::Ordering, time::Duration};

use super::{
    Worker,
    client::{Client, ClientState, Refusal},
    decision::Decision,
    release::{ClientError, DRAIN_TIME, NoServer},
    server::{Server, ServerState},
};
use crate::{
    config::Config,
    protocol::{
        TransactionStatus,
        encode::{self, Severity},
    },
};

/// Fewer clients than this are not worth giving memory back.
const MANY_CLIENTS: usize = 256;

/// Replicas that do replay may be so far behind.
const PATIENCE: Duration = Duration::from_secs(1);

/// What has run out.
enum Expired {
    Client(usize, ClientError),
    /// Its request is not carried out; the client stays.
    Refused(usize, Refusal),
    /// The same of a statement that waits for the replica of its transaction.
    NotReplayed(usize),
    /// Has not taken all that was sent to it, as was not known yet.
    Behind(usize),
    /// Has waited for a server for so long that it is told.
    LongWait(usize),
    /// Wants a server of its own.
    Tunnel(usize),
    /// Too slow to read what it asked for.
    SlowReader(usize),
    Server(usize, &'static str),
    /// Still at work for a client that left.
    Orphan(usize),
    /// What it has said so far may be less than was to be expected.
    Sparse(usize),
}

pub(super) fn micros(time: Duration) -> u64 {
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
                Expired::Refused(slot, refusal) => self.refuse_waiting(slot, refusal),
                Expired::NotReplayed(slot) => self.refuse_open_read(slot, Refusal::NotReplayed),
                Expired::Behind(slot) => self.fell_behind(slot),
                Expired::LongWait(slot) => self.tell_of_wait(slot),
                Expired::Tunnel(slot) => self.open_tunnel(slot),
                Expired::SlowReader(slot) => self.close_client(slot, "client_write_timeout"),
                Expired::Server(slot, _) => self.close_expired(slot),
                Expired::Orphan(slot) => self.cancel_and_close(slot),
                Expired::Sparse(slot) => self.wake_for_anything(slot),
            }
        }
        for index in 0..self.shards.len() {
            self.care_for_shard(index);
        }
        self.look_for_nodes();
        self.rebalance();
        self.give_idle_away();
        self.shrink();
    }

    /// A client does not read as fast as its server replies. If the rest of the reply is short, it need not keep the server.
    fn fell_behind(&mut self, slot: usize) {
        let Some(client) = self.clients.get_mut(slot) else { return };
        client.info.stuck_since = self.now;
        if let Some(server) = client.state.server() {
            self.server_readable(server);
        }
    }

    /// Once for each wait.
    fn tell_of_wait(&mut self, slot: usize) {
        const TEXT: &str = "No server connection available in postgres backend, client being queued";
        let Some(client) = self.clients.get_mut(slot) else { return };
        client.info.told_of = client.since;
        let mut notice = Vec::new();
        encode::error(&mut notice, Severity::Notice, "00000", TEXT, None, None);
        self.send_to_client(slot, &notice);
    }

    /// Gives memory back each time that half of many clients have left.
    fn shrink(&mut self) {
        self.most_clients = self.most_clients.max(self.clients.len());
        if self.most_clients < MANY_CLIENTS || self.clients.len() > self.most_clients / 2 {
            return;
        }
        self.most_clients = self.clients.len();
        self.clients.shrink_to_fit();
        self.ready.shrink_to_fit();
        for shard in &mut self.shards {
            shard.waiting.shrink_to_fit();
        }
        self.process.trim_memory();
    }

    /// Closes a server if that is still due: the ones closed just now may have been all that were too many.
    fn close_expired(&mut self, slot: usize) {
        let expired = self.servers.get(slot).and_then(|server| self.check_server(slot, server));
        if let Some(Expired::Server(_, reason)) = expired {
            self.close_server(slot, reason);
        }
    }

    /// A client that is ended in the middle of a transaction takes its server with it, and what that was doing.
    fn expire_client(&mut self, slot: usize, error: &ClientError) {
        let server = self.clients.get(slot).and_then(|c| c.state.server());
        if let Some(server) = server.and_then(|s| self.servers.get(s))
            && !server.session.pipeline.is_empty()
        {
            self.process.cancel_server(&server.info.cancel_target, &server.info.key);
        }
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
        // How long it may take is PostgreSQL's to say.
        if matches!(client.state, ClientState::Tunnel(_)) {
            return None;
        }
        if !client.conn.is_flushed() {
            let stuck = client.info.stuck_since;
            let patience = self.config.settings.client_write_timeout;
            if stuck == 0 {
                return Some(Expired::Behind(slot));
            }
            if !patience.is_zero() && self.now.saturating_sub(stuck) > micros(patience) {
                return Some(Expired::SlowReader(slot));
            }
        }
        let user = &client.info.user_config;
        if client.state.is_waiting() && self.process.servers_closing.load(Ordering::Acquire) {
            return Some(Expired::Client(slot, ClientError::Killed("server shutting down")));
        }
        match client.state {
            ClientState::Waiting => {
                let database = self.shards.get(client.shard).map(|s| &s.settings.database)?;
                if over(self.config.query_wait_timeout(database, user)) {
                    return Some(Expired::Client(slot, ClientError::QueryWait(self.why_no_server(client))));
                }
                let is_due = over(Some(self.config.settings.query_wait_notify)) && client.conn.is_flushed();
                (is_due && client.info.told_of != client.since).then_some(Expired::LongWait(slot))
            }
            ClientState::Held => self.check_held(slot, client, age),
            ClientState::LoginWaiting | ClientState::LoginLinked(_) => {
                over(Some(self.config.settings.client_login_timeout))
                    .then(|| Expired::Client(slot, ClientError::LoginWait(self.why_no_server(client))))
            }
            ClientState::Idle => over(self.config.client_idle_timeout(user))
                .then_some(Expired::Client(slot, ClientError::ClientIdle)),
            ClientState::Linked(server) => {
                let server = self.servers.get(server)?;
                if self.waits_in_vain(server) {
                    return Some(Expired::NotReplayed(slot));
                }
                linked_error(&self.config, client, server, self.now).map(|e| Expired::Client(slot, e))
            }
            ClientState::TunnelWaiting(ref wait) => match self.tunnel_expired(wait, age) {
                Some(error) => Some(Expired::Client(slot, error)),
                None => Some(Expired::Tunnel(slot)),
            },
            ClientState::Tunnel(_) | ClientState::Console(_) => None,
        }
    }

    fn check_held(&self, slot: usize, client: &Client, age: u64) -> Option<Expired> {
        let routing = client.routing.as_deref();
        // Who asks for the primary's position is told when it looks again, and a read that waits for a replica goes to the
        // primary then.
        let looks = routing.is_some_and(|routing| routing.own.asked.is_some() || routing.why.waits());
        if looks || age <= micros(self.config.settings.failover_hold) {
            return None;
        }
        let cluster = self.cluster_of(client);
        let ahead = cluster.is_some_and(|cluster| self.is_ahead_of(client, cluster));
        let refusal = match routing.map(|routing| routing.why) {
            _ if ahead => Refusal::Behind,
            Some(Decision::LacksReplica) => Refusal::NoReplica,
            _ => Refusal::NoPrimary,
        };
        Some(Expired::Refused(slot, refusal))
    }

    /// The next statement of a transaction has waited for its replica for as long as it may.
    fn waits_in_vain(&self, server: &Server) -> bool {
        let settings = &self.config.settings;
        let patience = settings.failover_hold.max(settings.causal_wait).max(PATIENCE);
        let since = server.routed.waits_since().filter(|_| server.session.pipeline.is_empty());
        since.is_some_and(|since| self.now.saturating_sub(since) > micros(patience))
    }

    /// What keeps a client waiting.
    fn why_no_server(&self, client: &Client) -> NoServer {
        let Some(shard) = self.shards.get(client.shard) else { return NoServer::Busy };
        match shard.pool.failure() {
            _ if shard.pool.is_paused() => NoServer::Paused,
            Some(failure) => NoServer::Unreachable(failure.message),
            None => NoServer::Busy,
        }
    }

    fn check_server(&self, slot: usize, server: &Server) -> Option<Expired> {
        let settings = &self.config.settings;
        let age = self.now.saturating_sub(server.since);
        let reason = match server.state {
            ServerState::Idle => return self.check_idle_server(slot, server, age),
            ServerState::Active(client) if server.tunnel => {
                let outdated = server.why_outdated().is_some();
                let reason = "database configuration changed";
                return outdated.then_some(Expired::Client(client, ClientError::Killed(reason)));
            }
            // Its client would keep it for as long as it likes.
            ServerState::Active(client)
                if settings.server_fast_close
                    && (server.session_client || server.pin.is_some())
                    && server.session.is_free()
                    && server.why_outdated().is_some() =>
            {
                let reason = "database configuration changed";
                return Some(Expired::Client(client, ClientError::Killed(reason)));
            }
            ServerState::Testing | ServerState::Resetting
                if !settings.server_connect_timeout.is_zero()
                    && age > micros(settings.server_connect_timeout) =>
            {
                "check or reset query timeout"
            }
            ServerState::Draining if age > DRAIN_TIME => return Some(Expired::Orphan(slot)),
            ServerState::Active(_) if server.pace.expects_more() => return Some(Expired::Sparse(slot)),
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
        let reason = if let Some(reason) = server.why_outdated() {
            reason
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
        let of_use = shard.seat.as_ref().is_none_or(|seat| seat.is_of_use()) && !shard.pool.is_replaced();
        let lacking = of_use && shard.pool.open_servers() < shard.settings.min_size;
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
    if server.session.is_free() {
        // In session mode, or pinned: the client has the server, but nothing for it to do.
        let longest = Some(config.settings.pinned_idle_timeout);
        if let Some(pin) = server.pin.filter(|pin| over(longest, pin.since.max(server.answered))) {
            return Some(ClientError::PinnedIdle(pin.bond));
        }
        return over(config.client_idle_timeout(user), client.since.max(server.answered))
            .then_some(ClientError::ClientIdle);
    }
    // As in PostgreSQL: after Flush the server waits for the client too, but is not idle.
    let idle = server.query_start == 0
        && server.routed.waits_since().is_none()
        && server.session.status != TransactionStatus::Idle;
    if idle && over(config.idle_transaction_timeout(user), server.answered) {
        return Some(ClientError::IdleTransaction);
    }
    over(config.transaction_timeout(user), server.transaction_start).then_some(ClientError::Transaction)
}
