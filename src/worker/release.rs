//! Linking a client and a server, and what happens at the end: release, reset, drain, close.

use super::{
    Worker,
    client::{Client, ClientState},
    lost::Tie,
    server::{Server, ServerState},
};
use crate::{
    config::{PoolMode, SessionState},
    error::Report,
    protocol::{TransactionStatus, backend, encode, frame::HEADER},
    server::ConnectError,
    session::{bonds::Bond, pipeline::Expected, state::NOBODY, traces::Asking},
    worker::process::pid_of,
};

/// A reply that nobody reads is thrown away up to this size; then the connection is closed instead.
const DRAIN_AT_MOST: usize = 1 << 20;
/// Replies that nobody reads are waited for this long (microseconds).
pub(super) const DRAIN_TIME: u64 = 5_000_000;

/// Why a client is ended. Wording as in PgBouncer where tools look for it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    #[error("{0}")]
    Protocol(String),
    #[error("transaction blocks not allowed in statement pooling mode")]
    TransactionInStatementMode,
    #[error("query_wait_timeout")]
    QueryWait(NoServer),
    #[error("query timeout")]
    Query,
    #[error("transaction timeout")]
    Transaction,
    #[error("idle transaction timeout")]
    IdleTransaction,
    #[error("client_idle_timeout")]
    ClientIdle,
    #[error("pinned_idle_timeout")]
    PinnedIdle(Bond),
    #[error("client_login_timeout (server down)")]
    LoginWait(NoServer),
    #[error("server conn crashed?")]
    ServerGone(Tie),
    #[error("{0}")]
    Killed(&'static str),
    #[error("{0}")]
    Parameter(String),
    #[error("database \"{0}\" is disabled")]
    Disabled(String),
    #[error("the connection that listens for clients was lost")]
    ListenerLost(String),
    #[error("notifications are not read")]
    NotificationsUnread,
    #[error("a notification cannot be told in this client_encoding")]
    NotificationEncoding,
    #[error("it cannot be told which channels are listened to")]
    ChannelsUnclear,
    #[error("{}", .0.message)]
    Server(Told),
}

/// Why a client has waited in vain.
#[derive(Debug)]
pub(crate) enum NoServer {
    /// All were busy, as far as is known.
    Busy,
    Paused,
    /// With what the last attempt to open one ended.
    Unreachable(String),
}

/// What the server said, or why it cannot be reached.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) sqlstate: String,
    pub(crate) message: String,
    pub(crate) detail: Option<String>,
    pub(crate) hint: Option<String>,
}

impl Report for ClientError {
    fn sqlstate(&self) -> &'static str {
        match self {
            Self::Protocol(_) => "08P01",
            Self::TransactionInStatementMode => "0A000",
            Self::Parameter(_) => "22023",
            Self::QueryWait(why) | Self::LoginWait(why) => match why {
                NoServer::Busy => "53300",
                NoServer::Paused => "57P03",
                NoServer::Unreachable(_) => "08001",
            },
            Self::Query | Self::Transaction => "57014",
            Self::IdleTransaction => "25P03",
            Self::ClientIdle | Self::PinnedIdle(_) => "57P05",
            Self::ServerGone(_) | Self::ListenerLost(_) => "08006",
            Self::NotificationsUnread => "53200",
            Self::NotificationEncoding => "22P05",
            Self::ChannelsUnclear => "0A000",
            Self::Killed(_) => "57P01",
            // Passes by itself, as PostgreSQL says it when it does not take connections at the moment.
            Self::Disabled(_) => "57P03",
            Self::Server(_) => "08001",
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::QueryWait(NoServer::Busy) => {
                "All server connections of the pool were busy: see default_pool_size, query_wait_timeout."
            }
            Self::LoginWait(NoServer::Busy) => {
                "No server connection was free in time: see default_pool_size, client_login_timeout, and pooler's log."
            }
            Self::QueryWait(NoServer::Paused) | Self::LoginWait(NoServer::Paused) => {
                "The database is paused (PAUSE or KILL): RESUME it on pooler's console."
            }
            Self::QueryWait(NoServer::Unreachable(_)) | Self::LoginWait(NoServer::Unreachable(_)) => {
                "The server cannot be reached: is it up, and are host and port of the database right?"
            }
            Self::Query => "See query_timeout.",
            Self::Transaction => "See transaction_timeout.",
            Self::IdleTransaction => "See idle_transaction_timeout.",
            Self::ClientIdle => "See client_idle_timeout.",
            Self::PinnedIdle(bond) => {
                return Some(format!(
                    "Something of its session ({}) kept a server for it alone, which it did not use: see pinned_idle_timeout.",
                    bond.as_str()
                ));
            }
            Self::Parameter(_) => {
                "There are pooler.route (auto, primary, replica), pooler.read_consistency (strict, fresh, session, eventual, \
                 primary) and pooler.read_after (a token of SHOW pooler.lsn)."
            }
            Self::ListenerLost(_) => {
                "Notifications may have been missed: connect and LISTEN again, and look at what has changed."
            }
            Self::NotificationEncoding => "Set client_encoding to UTF8 before LISTEN.",
            Self::ChannelsUnclear => "Send LISTEN and UNLISTEN alone, and before savepoints.",
            Self::TransactionInStatementMode => "Use pool_mode = \"transaction\".",
            Self::Server(told) => return told.hint.clone(),
            Self::ServerGone(tie) => return tie.hint(),
            _ => return None,
        };
        Some(hint.to_owned())
    }

    fn write(&self, out: &mut Vec<u8>, severity: encode::Severity) {
        let (sqlstate, detail) = match self {
            Self::Server(told) => (told.sqlstate.as_str(), told.detail.as_deref()),
            Self::QueryWait(NoServer::Unreachable(last)) | Self::LoginWait(NoServer::Unreachable(last)) => {
                (self.sqlstate(), Some(last.as_str()))
            }
            Self::ListenerLost(why) => (self.sqlstate(), Some(why.as_str())),
            _ => (self.sqlstate(), None),
        };
        encode::error(out, severity, sqlstate, &self.to_string(), detail, self.hint().as_deref());
    }
}

impl Worker {
    /// Client and server belong together from here on.
    pub(super) fn link(&mut self, client_slot: usize, server_slot: usize) {
        let (Some(client), Some(server)) =
            (self.clients.get_mut(client_slot), self.servers.get_mut(server_slot))
        else {
            return;
        };
        if let Some(shard) = server.pool.shards.get(self.id) {
            let waited = if client.state.is_waiting() { self.now.saturating_sub(client.since) } else { 0 };
            shard.stats.server_assignments.add(1);
            shard.stats.wait_time.add(waited);
            shard.wait_times.add(waited);
            server.waited = waited;
        }
        let waited = server.waited;
        client.state = ClientState::Linked(server_slot);
        client.since = self.now;
        server.heard &= client.listening.is_some();
        server.state = ServerState::Active(client_slot);
        server.session_client = client.mode == PoolMode::Session;
        let sample = self.config.settings.session_audit;
        self.linked = self.linked.wrapping_add(1);
        let audited = sample > 0 && self.linked.is_multiple_of(u64::from(sample));
        server.session.asking = match self.config.settings.session_state {
            _ if server.session_client => Asking::Never,
            SessionState::Suspected if !audited => Asking::Suspected,
            SessionState::Suspected | SessionState::Always => Asking::Always,
        };
        server.session.audit = (server.session.asking == Asking::Always).then(Box::default);
        server.since = self.now;
        server.transaction_start = self.now;
        server.query_start = 0;
        self.link_routed(client_slot, server_slot);
        if self.traces() {
            self.span_waited(server_slot, waited);
        }
    }

    /// A client that got a server from the queue turned out to need none (its message is not complete yet).
    pub(super) fn unlink_if_unused(&mut self, client_slot: usize, server_slot: usize) {
        let Some(server) = self.servers.get(server_slot) else { return };
        if server.state != ServerState::Active(client_slot) || !server.session.is_free() {
            return;
        }
        let Some(client) = self.clients.get(client_slot).filter(|client| !client.waits_for_listener()) else {
            return;
        };
        let keeps = server.session.bonds.reason().is_some() || client.mode == PoolMode::Session;
        if client.session.passing == 0 && !keeps {
            self.release(client_slot, server_slot);
        }
    }

    /// The transaction is over: the server goes back, the client waits for its next request.
    pub(super) fn release(&mut self, client_slot: usize, server_slot: usize) {
        if let Some(client) = self.clients.get_mut(client_slot) {
            client.part(self.now);
            if self.depart(client_slot) || (self.balance.moves() && self.move_away(client_slot)) {
                return self.recover(server_slot, false);
            }
        }
        if let Some(client) = self.clients.get(client_slot)
            && (client.conn.readable || !client.pending.is_empty())
        {
            self.look_later_at_client(client_slot);
        }
        self.recover(server_slot, false);
    }

    /// A server without a client: reset it if need be, and free it. `left`: its client has gone for good.
    pub(super) fn recover(&mut self, slot: usize, left: bool) {
        self.end_span(slot, Some(if left { "client disconnected" } else { "not completed" }));
        let Some(server) = self.servers.get_mut(slot) else { return };
        server.query_start = 0;
        server.transaction_start = 0;
        for reply in server.deferred_cancels.drain(..) {
            // Nothing runs any more that could be cancelled.
            let _ = reply.send(None);
        }
        server.end_work();
        server.session.outlived = false;
        server.session.trying = None;
        self.unpin(slot);
        let Some(server) = self.servers.get_mut(slot) else { return };
        if let Some(reason) = server.session.why_spoiled() {
            return self.close_server(slot, reason);
        }
        let Some(shard) = self.shards.get(server.shard) else { return };
        if shard.settings.server_lifetime.is_zero() {
            return self.close_server(slot, "server lifetime over");
        }
        let settings = &self.config.settings;
        if server.session.bonds.last() {
            return self.close_server(slot, "its client has left what nobody can clear");
        }
        let pinned = server.session.bonds.cut();
        // What nobody has asked for before the client left.
        if pinned || server.session.traces.are_suspected() {
            return self.run_own_query(slot, "DISCARD ALL", ServerState::Resetting);
        }
        let session_ends = left && server.session_client;
        if (session_ends || settings.server_reset_query_always) && !settings.server_reset_query.is_empty() {
            let query = settings.server_reset_query.clone();
            return self.run_own_query(slot, &query, ServerState::Resetting);
        }
        self.free(slot);
    }

    /// Free for the next, unless a cancel request could still hit whoever comes next.
    pub(super) fn free(&mut self, slot: usize) {
        let Some(server) = self.servers.get_mut(slot) else { return };
        server.since = self.now;
        server.session.doubt_role(&self.process.shared);
        if server.cancels > 0 {
            server.state = ServerState::BeingCanceled;
            return;
        }
        server.state = ServerState::Free;
        self.freed.push_back(slot);
    }

    /// Sends a query of the pooler's own to a server that nobody uses.
    pub(super) fn run_own_query(&mut self, slot: usize, sql: &str, state: ServerState) {
        let Some(server) = self.servers.get_mut(slot) else { return };
        let sql = if sql == "<empty>" { ";" } else { sql };
        let mut bytes = Vec::new();
        encode::query(&mut bytes, sql);
        server.session.pipeline.push(Expected::InjectedQuery);
        server.session.unnamed_of = NOBODY;
        server.state = state;
        server.since = self.now;
        if server.send(&bytes).is_err() {
            self.close_server(slot, "server conn crashed?");
        }
    }

    /// A check or reset has ended.
    pub(super) fn own_query_done(&mut self, slot: usize) {
        let Some(server) = self.servers.get_mut(slot) else { return };
        if server.session.injected_failed.take().is_some() {
            return self.close_server(slot, "reset or check query failed");
        }
        if let Some(reason) = server.session.why_spoiled() {
            return self.close_server(slot, reason);
        }
        if server.session.bonds.cut() {
            return self.run_own_query(slot, "DISCARD ALL", ServerState::Resetting);
        }
        self.free(slot);
    }

    /// Ends a client. Its server is given back, drained or closed, whatever it was doing.
    pub(super) fn close_client(&mut self, slot: usize, reason: &'static str) {
        let Some(client) = self.clients.get(slot) else { return };
        if client.state.is_waiting() {
            self.dequeue(slot);
        }
        let Some(mut client) = self.clients.try_remove(slot) else { return };
        if client.listening.is_some() {
            self.forget_channels(slot, &mut client);
        }
        self.process.directory.remove(pid_of(client.session.id), &client.info.key);
        if !matches!(client.state, ClientState::Console(_)) {
            self.count_client(-1);
        }
        client.conn.wire().close_notify();
        if self.config.settings.log_disconnections {
            tracing::info!(
                client = client.session.id,
                database = client.info.database,
                user = client.info.user,
                "closing because: {reason}"
            );
        }
        if let Some(server) = client.state.server() {
            self.abandon(server, &client);
        }
    }

    /// The client of a server has gone.
    fn abandon(&mut self, slot: usize, client: &Client) {
        let Some(server) = self.servers.get_mut(slot) else { return };
        if server.tunnel {
            return self.close_server(slot, "replication client is gone");
        }
        // Without its Sync the implicit transaction must not be committed: closing rolls it back, as it would without
        // a pooler.
        let unfinished = client.session.passing > 0 || !server.session.pipeline.is_closed();
        if unfinished || server.session.pipeline.copy_in() || !server.conn.is_flushed() {
            return self.close_server(slot, "client disconnected with query in progress");
        }
        if server.session.injected_failed.is_some() {
            return self.close_server(slot, "settings of the client could not be applied");
        }
        server.state = ServerState::Draining;
        server.since = self.now;
        server.drained = 0;
        self.go_on_draining(slot);
        // Its client may have been too slow to take what is there.
        if self.servers.get(slot).is_some_and(|s| s.conn.readable && s.state == ServerState::Draining) {
            self.look_later_at_server(slot);
        }
    }

    /// A server whose client has gone: once it owes nothing, its transaction is rolled back and it is free.
    pub(super) fn go_on_draining(&mut self, slot: usize) {
        let Some(server) = self.servers.get_mut(slot) else { return };
        if server.drained > DRAIN_AT_MOST || server.session.pipeline.copy_in() {
            return self.close_server(slot, "client disconnected with query in progress");
        }
        if server.session.injected_failed.take().is_some() {
            return self.close_server(slot, "rollback failed");
        }
        if server.session.is_free() {
            return self.recover(slot, true);
        }
        let in_transaction = server.session.status != TransactionStatus::Idle;
        if server.session.pipeline.is_empty() && in_transaction {
            // Comes back here: what the session leaves behind is still to be reset.
            self.run_own_query(slot, "ROLLBACK", ServerState::Draining);
        }
    }

    /// The server has closed the connection (or the connection broke).
    pub(super) fn server_gone(&mut self, slot: usize) {
        if let Some(server) = self.servers.get(slot).filter(|server| server.tunnel)
            && let ServerState::Active(client) = server.state
        {
            return self.close_client(client, "server conn crashed?");
        }
        if let Some(ServerState::Active(client)) = self.servers.get(slot).map(|server| server.state) {
            self.tell_ready_at_once(client);
        }
        self.note_loss(slot);
        if self.replay_lost(slot) {
            return self.close_server(slot, "server conn crashed?");
        }
        let Err(tie) = self.outlive(slot) else { return };
        let Some(server) = self.servers.get(slot) else { return };
        let client = match server.state {
            ServerState::Active(client) => Some(client),
            _ => None,
        };
        let told = server.session.spoiled == Some("server closed the connection");
        // It was swallowed: the server ended amid the client's settings.
        let unseen = server.session.injected_failed.as_deref().and_then(|m| m.get(HEADER..)).map(error_of);
        match (client, unseen) {
            (Some(client), Some(error)) => self.fail_client(client, &error),
            (Some(client), None) if told => self.close_client(client, "server conn crashed?"),
            (Some(client), None) => self.fail_client(client, &ClientError::ServerGone(tie)),
            (None, _) => {}
        }
        self.close_server(slot, "server conn crashed?");
    }

    /// The server broke the protocol.
    pub(super) fn server_broken(&mut self, slot: usize, what: &'static str) {
        tracing::error!("server broke the protocol: {what}");
        if let Some(server) = self.servers.get_mut(slot) {
            server.session.spoiled = Some("protocol violation");
        }
        self.server_gone(slot);
    }

    /// Settings that the client is entitled to could not be established: its statement ran without them.
    pub(super) fn settings_refused(&mut self, client_slot: usize, server_slot: usize) {
        let Some(server) = self.servers.get(server_slot) else { return };
        let message = server.session.injected_failed.clone().unwrap_or_default();
        let body = message.get(HEADER..).unwrap_or_default();
        let error = error_of(body);
        self.fail_client(client_slot, &error);
        self.close_server(server_slot, "settings of the client could not be applied");
    }

    /// Closes a server for good; gives its place back and lets the queue open another.
    pub(super) fn close_server(&mut self, slot: usize, reason: &'static str) {
        if self.servers.get(slot).is_some_and(|s| s.state == ServerState::Idle) {
            self.remove_idle(slot);
        }
        self.unpin(slot);
        self.end_span(slot, Some("connection closed"));
        let Some(mut server) = self.servers.try_remove(slot) else { return };
        server.leave_unknown();
        server.end_work();
        self.say_goodbye(&mut server);
        if let Some(shard) = self.shards.get_mut(server.shard) {
            shard.servers = shard.servers.saturating_sub(1);
        }
        server.pool.release_server();
        for reply in server.deferred_cancels.drain(..) {
            let _ = reply.send(None);
        }
        if self.config.settings.log_disconnections {
            tracing::info!(
                server = server.id,
                database = server.pool.key.database,
                user = server.pool.key.user,
                "closing because: {reason}"
            );
        }
        self.process.server_closed(self.id, &server.pool);
        self.grow(server.shard);
    }

    fn say_goodbye(&self, server: &mut Server) {
        // Not into the middle of a message: the server would read it as data.
        if server.conn.is_flushed() && server.session.pipeline.is_empty() && !server.tunnel {
            let mut bytes = Vec::new();
            encode::terminate(&mut bytes);
            // The connection ends either way.
            let _ = server.conn.send(&bytes);
        }
        server.conn.wire().close_notify();
    }

    /// Closes a server that is free but must not be used again. True if it did.
    pub(super) fn close_if_outdated(&mut self, slot: usize) -> bool {
        let Some(server) = self.servers.get(slot) else { return true };
        let reason = if let Some(reason) = server.why_outdated() {
            reason
        } else if self.now >= server.expires {
            "server lifetime over"
        } else if server.pool.over_limit() {
            "too many servers in the pool"
        } else if let Some(reason) = server.session.why_spoiled() {
            // It said so on the way from one worker to another.
            reason
        } else {
            return false;
        };
        self.close_server(slot, reason);
        true
    }
}

impl ClientError {
    /// A login at a server has failed.
    pub(super) fn refused(error: &ConnectError) -> Self {
        let sqlstate = match error {
            ConnectError::Refused(server) => server.sqlstate().unwrap_or("08004"),
            other => other.sqlstate(),
        };
        Self::Server(Told {
            sqlstate: sqlstate.to_owned(),
            message: error.message(),
            detail: error.detail(),
            hint: error.hint(),
        })
    }
}

/// An error of the server as one of ours.
pub(super) fn error_of(body: &[u8]) -> ClientError {
    let text = |code| backend::error_field(body, code).map(|v| String::from_utf8_lossy(v).into_owned());
    ClientError::Server(Told {
        sqlstate: text(b'C').unwrap_or_default(),
        message: text(b'M').unwrap_or_default(),
        detail: text(b'D'),
        hint: text(b'H'),
    })
}
