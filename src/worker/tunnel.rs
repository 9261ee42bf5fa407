//! Replication connections: each client has a server of its own, opened with its startup parameters, and what they say to
//! each other passes as it is, in both directions at once.
//!
//! Such a server counts in the limits of its pool; an idle one of the pool makes room for it. It ends with its client, and at
//! once when it is outdated.

use std::sync::{Arc, atomic::Ordering};

use super::{
    READS_PER_TURN, Worker,
    client::{ClientState, TunnelWait},
    message::{ClientRef, LoginResult, Message},
    release::{ClientError, NoServer},
    server::ServerState,
    tick::micros,
};
use crate::{
    client::LoggedIn, pool::Pool, protocol::encode, server::Failure, session::params::Params,
    worker::process::TunnelTo,
};

/// Microseconds between attempts to reach a server.
const RETRY: u64 = 500_000;

impl Worker {
    /// A client that wants to replicate has proved who it is.
    pub(super) fn welcome_tunnel(&mut self, mut login: LoggedIn, pool: &Arc<Pool>, late: bool) {
        let shard = self.shard(pool);
        let mut parameters = std::mem::take(&mut login.parameters);
        let named = parameters.iter().filter(|(name, _)| name.eq_ignore_ascii_case("application_name"));
        let label = Params::from_pairs(named.map(|(name, value)| (name.as_str(), value.as_str())));
        let label = self.process.shared.labels.intern(label);
        parameters.push(("replication".to_owned(), login.replication.parameter().to_owned()));
        let wait = TunnelWait { parameters, connecting: false, retry_at: 0, last: None };
        let Some(slot) = self.insert_client(login, shard, ClientState::TunnelWaiting(Box::new(wait)), label)
        else {
            return;
        };
        if let Some(error) = self.why_not_welcome(pool, late) {
            return self.fail_client(slot, &error);
        }
        self.open_tunnel(slot);
    }

    /// Begins to connect to a server for a client, if there is room.
    pub(super) fn open_tunnel(&mut self, slot: usize) {
        // The pool may have been replaced while it was on its way, or waited.
        self.rehome(slot);
        let Some(client) = self.clients.get_mut(slot) else { return };
        let id = client.session.id;
        let ClientState::TunnelWaiting(wait) = &mut client.state else { return };
        if wait.connecting || wait.retry_at > self.now {
            return;
        }
        let parameters = wait.parameters.clone();
        let Some(home) = self.shards.get(client.shard).map(|shard| Arc::clone(&shard.pool)) else { return };
        // A replica may take part in it, too, but nobody can tell which one is meant.
        let pool = match &home.seat {
            Some(seat) => seat.cluster.primary().and_then(|primary| seat.sibling(primary)),
            None => Some(home),
        };
        let Some(pool) = pool.filter(|pool| !pool.is_paused()) else { return };
        let index = self.shard(&pool);
        if !pool.reserve_server(false) {
            return self.make_room_for_tunnel(index, &pool);
        }
        if let Some(ClientState::TunnelWaiting(wait)) = self.clients.get_mut(slot).map(|c| &mut c.state) {
            wait.connecting = true;
        }
        let client = ClientRef { worker: self.id, slot, id };
        self.process.connect_tunnel(TunnelTo { client, pool, parameters });
    }

    fn make_room_for_tunnel(&mut self, index: usize, pool: &Arc<Pool>) {
        if !pool.is_full(false) {
            return self.make_room(index);
        }
        if self.evict_idle_of(pool) {
            return;
        }
        for (worker, handle) in self.process.workers.iter().enumerate() {
            if worker != self.id {
                handle.send(Message::EvictOf { pool: Arc::clone(pool) });
            }
        }
    }

    /// Closes the least recently used idle server of a pool.
    pub(super) fn evict_idle_of(&mut self, pool: &Arc<Pool>) -> bool {
        let idle = self.servers.iter().filter(|(_, s)| s.state == ServerState::Idle);
        let victim = idle.filter(|(_, s)| Arc::ptr_eq(&s.pool, pool)).min_by_key(|(_, s)| s.since);
        let Some(slot) = victim.map(|(slot, _)| slot) else { return false };
        self.remove_idle(slot);
        self.close_server(slot, "evicted");
        true
    }

    /// A server has been connected to for a client, or not.
    pub(super) fn tunnel_connected(&mut self, to: &TunnelTo, generation: u64, result: LoginResult) {
        let (pool, slot) = (&to.pool, to.client.slot);
        let waits = |state: &ClientState| matches!(state, ClientState::TunnelWaiting(_));
        let client = self.clients.get(slot).filter(|c| c.session.id == to.client.id && waits(&c.state));
        let Some(label) = client.map(|client| Arc::clone(&client.session.label)) else {
            return pool.release_server();
        };
        match result {
            Ok(login) if pool.is_current(generation) => {
                let parameters = login.parameters.clone();
                let index = self.shard(pool);
                let Some(server) = self.new_server(index, pool, generation, *login, label) else {
                    return self.close_client(slot, "no server");
                };
                self.begin_tunnel(slot, server, &parameters);
            }
            Ok(_) => {
                pool.release_server();
                self.retry_tunnel(slot, 0, None);
            }
            Err(error) => {
                pool.release_server();
                let (database, user) = (&pool.key.database, &pool.key.user);
                tracing::warn!(database, user, "server login for replication failed: {error}");
                if error.failure() == Failure::Unreachable {
                    return self.retry_tunnel(slot, self.now + RETRY, Some(error.to_string()));
                }
                self.fail_client(slot, &ClientError::refused(&error));
            }
        }
    }

    fn retry_tunnel(&mut self, slot: usize, retry_at: u64, last: Option<String>) {
        let Some(client) = self.clients.get_mut(slot) else { return };
        if let ClientState::TunnelWaiting(wait) = &mut client.state {
            (wait.connecting, wait.retry_at, wait.last) = (false, retry_at, last);
        }
    }

    /// The login of the client ends as that of its server did; then both are on their own.
    fn begin_tunnel(&mut self, slot: usize, server_slot: usize, parameters: &[(String, String)]) {
        let (Some(client), Some(server)) = (self.clients.get_mut(slot), self.servers.get_mut(server_slot))
        else {
            return;
        };
        client.state = ClientState::Tunnel(server_slot);
        client.since = self.now;
        server.tunnel = true;
        server.state = ServerState::Active(slot);
        server.since = self.now;
        if let Some(stats) = server.pool.shards.get(self.id).map(|s| &s.stats) {
            stats.logins.add(1);
            stats.server_assignments.add(1);
        }
        let key = client.info.key.clone();
        let mut bytes = std::mem::take(&mut client.info.unsent);
        encode::authentication_ok(&mut bytes);
        for (name, value) in parameters {
            encode::parameter_status(&mut bytes, name, value);
        }
        encode::backend_key_data(&mut bytes, &key);
        encode::ready_for_query(&mut bytes, b'I');
        bytes.append(&mut server.pending);
        let early = std::mem::take(&mut client.pending);
        let failed = !early.is_empty() && server.conn.send(&early).is_err();
        self.send_to_client(slot, &bytes);
        if failed {
            return self.close_client(slot, "server conn crashed?");
        }
        self.look_later_at_client(slot);
        self.look_later_at_server(server_slot);
    }

    /// From a client to its server.
    pub(super) fn tunnel_up(&mut self, slot: usize, server_slot: usize) {
        for turn in 0.. {
            let (Some(client), Some(server)) =
                (self.clients.get_mut(slot), self.servers.get_mut(server_slot))
            else {
                return;
            };
            // As fast as the server takes it.
            if !client.conn.readable || !server.conn.is_flushed() {
                return;
            }
            if turn == READS_PER_TURN || self.buffer.is_empty() {
                return self.look_later_at_client(slot);
            }
            let Ok(read) = client.conn.read(&mut self.buffer) else {
                return self.close_client(slot, "client unexpected eof");
            };
            let bytes = self.buffer.get(..read.n).unwrap_or_default();
            if let Some(stats) = server.pool.shards.get(self.id).map(|s| &s.stats) {
                stats.received.add(u64::try_from(read.n).unwrap_or(0));
            }
            if server.conn.send(bytes).is_err() {
                return self.close_client(slot, "server conn crashed?");
            }
            if read.eof {
                // What it has sent last is to arrive.
                client.conn.readable = true;
                if server.conn.is_flushed() {
                    self.close_client(slot, "client unexpected eof");
                }
                return;
            }
        }
    }

    /// From a server to its client.
    pub(super) fn tunnel_down(&mut self, server_slot: usize) {
        for turn in 0.. {
            let Some(server) = self.servers.get_mut(server_slot) else { return };
            let ServerState::Active(slot) = server.state else { return };
            let Some(client) = self.clients.get_mut(slot) else { return };
            // As fast as the client takes it.
            if !server.conn.readable || !client.conn.is_flushed() {
                return;
            }
            if turn == READS_PER_TURN || self.buffer.is_empty() {
                return self.look_later_at_server(server_slot);
            }
            let Ok(read) = server.conn.read(&mut self.buffer) else {
                return self.close_client(slot, "server conn crashed?");
            };
            let bytes = self.buffer.get(..read.n).unwrap_or_default();
            if let Some(stats) = server.pool.shards.get(self.id).map(|s| &s.stats) {
                stats.sent.add(u64::try_from(read.n).unwrap_or(0));
            }
            if client.conn.send(bytes).is_err() {
                return self.close_client(slot, "client unexpected eof");
            }
            if read.eof {
                server.conn.readable = true;
                if client.conn.is_flushed() {
                    self.close_client(slot, "server closed the connection");
                }
                return;
            }
        }
    }

    /// Why a client without a server yet waits no longer.
    pub(super) fn tunnel_expired(&self, wait: &TunnelWait, age: u64) -> Option<ClientError> {
        if self.process.servers_closing.load(Ordering::Acquire) {
            return Some(ClientError::Killed("server shutting down"));
        }
        let limit = self.config.settings.client_login_timeout;
        let over = !limit.is_zero() && age > micros(limit);
        over.then(|| ClientError::LoginWait(wait.why()))
    }

    /// Why a login comes too late, if it does.
    pub(super) fn why_not_welcome(&self, pool: &Pool, late: bool) -> Option<ClientError> {
        if late {
            Some(ClientError::Killed("pooler is shutting down"))
        } else if pool.is_removed() {
            Some(ClientError::Killed("database removed"))
        } else if pool.database.disabled.load(Ordering::Acquire) {
            Some(ClientError::Disabled(pool.key.database.clone()))
        } else {
            None
        }
    }
}

impl TunnelWait {
    fn why(&self) -> NoServer {
        self.last.clone().map_or(NoServer::Busy, NoServer::Unreachable)
    }
}
