//! From a server to its client: reading replies, passing them on, and what they change.

use super::{
    READS_PER_TURN, Worker,
    client::ClientState,
    relay::{rest_of, reusable},
    release::ClientError,
    routed::Replied,
    server::ServerState,
};
use crate::{
    config::PoolMode,
    error::Printable,
    protocol::TransactionStatus,
    session::{downstream::Downstream, outgoing::Outgoing},
};

impl Worker {
    /// Reads what a server sent, as long as its client takes it.
    pub(super) fn server_readable(&mut self, slot: usize) {
        for turn in 0.. {
            if self.suspended {
                return;
            }
            let Some(server) = self.servers.get(slot) else { return };
            if server.tunnel {
                return self.tunnel_down(slot);
            }
            if !server.conn.readable {
                return;
            }
            // A read further up has it, and a read of nothing would look like the end.
            if self.buffer.is_empty() {
                return self.look_later_at_server(slot);
            }
            if let ServerState::Active(client) = server.state
                && self.clients.get(client).is_some_and(|c| !c.takes_more() || c.waits_behind())
            {
                return;
            }
            // Others get their turn too.
            if turn == READS_PER_TURN {
                return self.look_later_at_server(slot);
            }
            self.read_server(slot);
        }
    }

    fn read_server(&mut self, slot: usize) {
        let Some(server) = self.servers.get_mut(slot) else { return };
        let mut buffer = std::mem::take(&mut self.buffer);
        let (n, eof) = match server.conn.read(&mut buffer) {
            Ok(read) => (read.n, read.eof),
            Err(_) => (0, true),
        };
        if server.pending.is_empty() {
            let input = buffer.get(..n).unwrap_or_default();
            let used = self.deliver(slot, input);
            if let Some(server) = self.servers.get_mut(slot) {
                server.pending.extend_from_slice(input.get(used..).unwrap_or_default());
            }
        } else {
            let mut input = std::mem::take(&mut server.pending);
            input.extend_from_slice(buffer.get(..n).unwrap_or_default());
            let used = self.deliver(slot, &input);
            input.drain(..used);
            if let Some(server) = self.servers.get_mut(slot) {
                server.pending = rest_of(input);
            }
        }
        self.buffer = buffer;
        self.keep_pace(slot);
        if eof {
            self.server_gone(slot);
        }
    }

    /// Passes a server's bytes to its client. Returns how many were used.
    pub(super) fn deliver(&mut self, slot: usize, input: &[u8]) -> usize {
        let (mut used, mut goes_on) = self.deliver_some(slot, input);
        while goes_on {
            let (more, again) = self.deliver_some(slot, input.get(used..).unwrap_or_default());
            (used, goes_on) = (used + more, again);
        }
        used
    }

    /// The same, for a client that listens up to the next ReadyForQuery: it may have to be kept back. Returns how many bytes
    /// were used, and whether there may be more to pass.
    fn deliver_some(&mut self, slot: usize, input: &[u8]) -> (usize, bool) {
        let Some(server) = self.servers.get_mut(slot) else { return (input.len(), false) };
        let client_slot = match server.state {
            ServerState::Active(client) => Some(client),
            _ => None,
        };
        let client = client_slot.and_then(|c| self.clients.get_mut(c));
        let stops = client.as_ref().is_some_and(|client| client.listening.is_some());
        let session = client.map_or(&mut self.nobody, |client| &mut client.session);
        let mut staging = std::mem::take(&mut self.staging);
        staging.clear();
        let mut out = Outgoing::new(input, &mut staging);
        let mut downstream = Downstream::new(session, &mut server.session, &self.process.shared);
        downstream.stops = stops;
        let result = downstream.translate(input, &mut out);
        let (transactions, ready, fatal) = (downstream.transactions, downstream.ready, downstream.fatal);
        let (error, ended, told) = (downstream.error, downstream.ended, Replied::of(&downstream));
        let (terminated, asked, stopped) = (downstream.terminated, downstream.asked, downstream.stopped);
        let habit = downstream.client.sequences.take_news();
        let request = std::mem::take(&mut downstream.request);
        if !request.is_empty() {
            // If the server is gone, reading will tell.
            let _ = server.send(&request);
        }
        let bytes = out.finish();
        let stats = server.pool.shards.get(self.id).map(|shard| &shard.stats);
        if let (true, Some(stats)) = (asked > 0, stats) {
            stats.questions.add(asked);
        }
        if let Some(found) = server.session.traces.take_surprise() {
            let (database, user) = (&server.pool.key.database, &server.pool.key.user);
            let texts = server.session.audit.as_ref().map(|audit| audit.texts()).unwrap_or_default();
            tracing::warn!(
                database,
                user,
                "a transaction has left {}, which no text of it told: {}",
                Printable(&found),
                Printable(&texts)
            );
            if let Some(stats) = stats {
                stats.surprises.add(1);
            }
            // Whoever had it before may have met that.
            server.session.spoiled = Some("it held what no text had told of");
        }
        // Before the client is told.
        if server.pool.seat.is_none() && server.session.take_altered() {
            server.pool.database.catalogs.outdate();
        }
        if let (true, Some(client)) = (server.session.take_all_reset(), client_slot) {
            self.reset_settings(client);
        }
        if let (Some(habit), Some(client)) = (habit, client_slot) {
            self.note_habit(client, habit);
        }
        self.note_replies(slot, told);
        let passes = self.hold_back(slot, bytes, ready, error);
        // What is sent again elsewhere is not over.
        if let (Some(client), Some(committed), Some(_)) = (client_slot, ended, &passes) {
            self.transaction_ended(client, committed);
        }
        let listens = client_slot.filter(|_| stopped && passes.is_some());
        let kept_back = listens.map_or(0, |client| self.keeps_ready(client, slot));
        let client = client_slot.and_then(|c| self.clients.get_mut(c));
        let failed = match (client, passes) {
            (Some(client), Some(bytes)) if bytes.len() > kept_back => {
                let bytes = bytes.get(..bytes.len() - kept_back).unwrap_or_default();
                client.conn.send(bytes).is_err()
            }
            _ => false,
        };
        let passed = bytes.len();
        self.staging = reusable(staging);
        let read = result.as_ref().ok().filter(|_| stopped).map_or(input.len(), |used| *used);
        self.count_reply(slot, read, transactions, ready, conn_less(client_slot, passed));
        if let (true, Some(client)) = (failed, client_slot) {
            self.close_client(client, "client unexpected eof");
        }
        let used = match result {
            Ok(used) => used,
            Err(broken) => {
                self.server_broken(slot, broken.0);
                return (input.len(), false);
            }
        };
        if let Some(server) = self.servers.get_mut(slot) {
            if fatal {
                server.session.spoiled = Some("server closed the connection");
            }
            // The end of the stream may not be read any more: an idle server is closed for this message.
            if let Some(seat) = server.pool.seat.as_ref().filter(|_| terminated) {
                seat.cluster.lost_connection(seat.node);
            }
        }
        if stopped {
            // Behind it there may be replies that are pooler's own.
            return (used, kept_back == 0 && !self.is_unclear(client_slot));
        }
        self.after_reply(slot);
        (used, false)
    }

    fn count_reply(&mut self, slot: usize, read: usize, transactions: u64, ready: u64, wasted: usize) {
        self.count_queries(slot);
        let Some(server) = self.servers.get_mut(slot) else { return };
        server.drained += wasted;
        server.pace.note(read, ready > 0);
        let Some(shard) = server.pool.shards.get(self.id) else { return };
        let stats = &shard.stats;
        stats.sent.add(u64::try_from(read).unwrap_or(0));
        let error = server.session.errors.first().copied();
        server.session.errors.drain(..).for_each(|code| shard.errors.add(code));
        if ready > 0 {
            server.answered = self.now;
            let time = self.now.saturating_sub(server.query_start);
            stats.query_time.add(time);
            shard.query_times.share(time, ready);
            server.query_start = if server.session.pipeline.is_empty() { 0 } else { self.now };
        }
        if transactions > 0 {
            stats.transactions.add(transactions);
            let time = self.now.saturating_sub(server.transaction_start);
            stats.transaction_time.add(time);
            shard.transaction_times.share(time, transactions);
            server.transaction_start = self.now;
        }
        if server.recording.is_some() {
            self.span_answered(slot, error, transactions);
        }
    }

    /// The state of a server may have changed with what it said.
    fn after_reply(&mut self, slot: usize) {
        let Some(server) = self.servers.get(slot) else { return };
        if !server.deferred_cancels.is_empty() && !server.session.pipeline.front_is_own_query() {
            self.start_deferred_cancels(slot);
        }
        let Some(server) = self.servers.get(slot) else { return };
        match server.state {
            ServerState::Active(client) => self.after_client_reply(slot, client),
            ServerState::Testing | ServerState::Resetting if server.session.is_free() => {
                self.own_query_done(slot);
            }
            ServerState::Draining => self.go_on_draining(slot),
            ServerState::Idle
                if !server.session.pipeline.is_empty() || server.session.why_spoiled().is_some() =>
            {
                self.close_server(slot, "unexpected message on an idle server");
            }
            _ => {}
        }
    }

    fn after_client_reply(&mut self, slot: usize, client_slot: usize) {
        if self.replay_failed(slot) {
            return;
        }
        let (Some(server), Some(client)) = (self.servers.get(slot), self.clients.get(client_slot)) else {
            return;
        };
        if let ClientState::LoginLinked(_) = client.state {
            if server.session.is_free() {
                self.login_parameters_tried(client_slot, slot);
            }
            return;
        }
        if server.session.trying.is_some() {
            return self.settings_tried(client_slot, slot);
        }
        if server.session.injected_failed.is_some() {
            return self.settings_refused(client_slot, slot);
        }
        if client.session.held {
            return self.go_on_with_held(client_slot);
        }
        if client.waits_behind() {
            return;
        }
        let mode = client.mode;
        if mode == PoolMode::Statement && server.session.status != TransactionStatus::Idle {
            return self.fail_client(client_slot, &ClientError::TransactionInStatementMode);
        }
        if mode == PoolMode::Session || !server.session.is_free() || client.session.passing > 0 {
            return;
        }
        let bond = server.session.bonds.reason();
        if bond.is_some() || server.pin.is_some() {
            self.note_pin(slot, bond);
        }
        if bond.is_none() {
            self.release(client_slot, slot);
        }
    }

    /// The server has said more: the message that waited for it may go on. The server stays until it has.
    pub(super) fn go_on_with_held(&mut self, slot: usize) {
        if let Some(client) = self.clients.get_mut(slot) {
            client.session.held = false;
        }
        self.look_later_at_client(slot);
    }
}

/// Bytes that had no client to go to.
fn conn_less(client: Option<usize>, passed: usize) -> usize {
    if client.is_none() { passed } else { 0 }
}
