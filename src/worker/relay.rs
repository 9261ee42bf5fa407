//! Moving bytes: what a client sent to its server, what a server replied to its client.

use super::{End, READS_PER_TURN, Worker, client::ClientState, server::ServerState};
use crate::{
    config::PoolMode,
    error::Report as _,
    protocol::{
        TransactionStatus,
        encode::{self, Severity},
        frame::Header,
        frontend as fe,
    },
    session::{
        downstream::{Downstream, write_synthetic},
        outgoing::Outgoing,
        upstream::{Stop, Upstream},
    },
    worker::release::ClientError,
};

/// What a client without a server has sent.
#[derive(Debug, PartialEq, Eq)]
enum Request {
    /// Not yet a whole message (or nothing).
    Incomplete,
    /// So many bytes that mean nothing without a server: COPY data that comes after the COPY failed, Flush.
    Ignore(usize),
    Terminate,
    /// Needs a server.
    Work,
}

impl Worker {
    /// A client may have bytes for us, read or unread.
    pub(super) fn client_readable(&mut self, slot: usize) {
        let Some(client) = self.clients.get(slot) else { return };
        match client.state {
            ClientState::Idle => self.idle_client_readable(slot),
            ClientState::Linked(server) => self.pump_client(slot, server),
            ClientState::Console(_) => self.console_readable(slot),
            ClientState::Waiting | ClientState::LoginWaiting | ClientState::LoginLinked(_) => {}
        }
    }

    /// The request stays in the socket until there is a server for it: queued clients cost nothing.
    fn idle_client_readable(&mut self, slot: usize) {
        let Some(client) = self.clients.get(slot) else { return };
        let (shard, flushed) = (client.shard, client.conn.is_flushed());
        if !flushed {
            return;
        }
        if !client.discarding && client.pending.is_empty() && !self.can_checkout(shard) {
            return self.enqueue(slot, ClientState::Waiting);
        }
        self.read_client(slot);
        // What is left in the socket (or its end) raises no event.
        if let Some(client) = self.clients.get(slot)
            && client.conn.readable
            && matches!(client.state, ClientState::Idle | ClientState::Linked(_))
        {
            self.ready.push_back((End::Client(slot), client.session.id));
        }
    }

    /// Reads from a linked client for as long as its server takes the bytes.
    fn pump_client(&mut self, slot: usize, server: usize) {
        for turn in 0.. {
            let Some(client) = self.clients.get(slot) else { return };
            if client.state.server() != Some(server) {
                return;
            }
            let waits = self.servers.get(server).is_none_or(|s| !s.conn.is_flushed());
            let nothing = !client.conn.readable && (turn > 0 || client.pending.is_empty());
            if waits || nothing || client.session.held {
                return;
            }
            if turn == READS_PER_TURN {
                let id = client.session.id;
                return self.ready.push_back((End::Client(slot), id));
            }
            self.read_client(slot);
        }
    }

    /// One read (none if unread input is there and the socket has nothing), and what follows from it.
    fn read_client(&mut self, slot: usize) {
        let Some(client) = self.clients.get_mut(slot) else { return };
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut eof = false;
        let mut n = 0;
        if client.conn.readable {
            match client.conn.read(&mut buffer) {
                Ok(read) => (n, eof) = (read.n, read.eof),
                Err(_) => eof = true,
            }
        }
        if client.pending.is_empty() {
            let input = buffer.get(..n).unwrap_or_default();
            let used = self.process_input(slot, input);
            self.keep_rest(slot, input.get(used..).unwrap_or_default());
        } else {
            let mut input = std::mem::take(&mut client.pending);
            input.extend_from_slice(buffer.get(..n).unwrap_or_default());
            let used = self.process_input(slot, &input);
            input.drain(..used);
            if let Some(client) = self.clients.get_mut(slot) {
                client.pending = input;
            }
        }
        self.buffer = buffer;
        if eof && self.clients.get(slot).is_some_and(|c| !c.state.is_waiting() || !c.pending.is_empty()) {
            self.close_client(slot, "client unexpected eof");
        }
    }

    fn keep_rest(&mut self, slot: usize, rest: &[u8]) {
        if rest.is_empty() {
            return;
        }
        if let Some(client) = self.clients.get_mut(slot) {
            client.pending.extend_from_slice(rest);
        }
    }

    /// What to do with bytes of a client. Returns how many were used.
    fn process_input(&mut self, slot: usize, input: &[u8]) -> usize {
        let mut used = 0;
        loop {
            let Some(client) = self.clients.get_mut(slot) else { return input.len() };
            let rest = input.get(used..).unwrap_or_default();
            if client.discarding {
                let n = self.discard_request(slot, rest);
                if n == 0 {
                    return used;
                }
                used += n;
                continue;
            }
            match client.state {
                ClientState::Linked(server) => {
                    used += self.forward(slot, server, rest);
                    return used;
                }
                ClientState::Idle => {}
                _ => return used,
            }
            match request(rest) {
                Request::Incomplete => return used,
                Request::Ignore(n) => used += n,
                Request::Terminate => {
                    self.close_client(slot, "client close request");
                    return input.len();
                }
                Request::Work => {
                    let shard = client.shard;
                    let Some(server) = self.checkout(shard) else {
                        self.enqueue(slot, ClientState::Waiting);
                        return used;
                    };
                    self.link(slot, server);
                }
            }
        }
    }

    /// Sends to the server what the client sent, translated, in one write. Returns how many bytes were used.
    fn forward(&mut self, slot: usize, server_slot: usize, input: &[u8]) -> usize {
        let (Some(client), Some(server)) = (self.clients.get_mut(slot), self.servers.get_mut(server_slot))
        else {
            return input.len();
        };
        let Some(shard) = self.shards.get(client.shard) else { return input.len() };
        let mut staging = std::mem::take(&mut self.staging);
        staging.clear();
        let mut out = Outgoing::new(input, &mut staging);
        if server.session.is_free() {
            server.session.adopt(&mut client.session, |sql| encode::query(out.inject(), sql));
        }
        let mut upstream = Upstream {
            client: &mut client.session,
            server: &mut server.session,
            shared: &self.process.shared,
            max_statements: shard.tracked_statements(),
            max_packet_size: usize::try_from(self.config.settings.max_packet_size).unwrap_or(usize::MAX),
            counts: Default::default(),
            flush: false,
        };
        let (used, stop) = upstream.translate(input, &mut out);
        let (counts, flush) = (upstream.counts, upstream.flush);
        let bytes = out.finish();
        let sent = if bytes.is_empty() { Ok(()) } else { server.conn.send(bytes) };
        if let Some(stats) = shard.pool.shards.get(self.id).map(|s| &s.stats) {
            stats.received.add(u64::try_from(used).unwrap_or(0));
            stats.queries.add(counts.queries);
            stats.client_parses.add(counts.client_parses);
            stats.server_parses.add(counts.server_parses);
            stats.binds.add(counts.binds);
        }
        if server.query_start == 0 && !server.session.pipeline.is_empty() {
            server.query_start = self.now;
        }
        self.staging = staging;
        if sent.is_err() {
            // What the server said before it went away is still to be read.
            self.server_readable(server_slot);
        }
        if flush {
            self.answer_flush(slot, server_slot);
        }
        match stop {
            Stop::NeedMore => {}
            Stop::Held => {
                if let Some(client) = self.clients.get_mut(slot) {
                    client.session.held = true;
                }
            }
            Stop::Terminate => self.close_client(slot, "client close request"),
            Stop::Broken(message) => self.fail_client(slot, &ClientError::Protocol(message)),
        }
        used
    }

    /// Flush: answers that the pooler gives itself, and that no reply of the server will carry along.
    fn answer_flush(&mut self, slot: usize, server_slot: usize) {
        let Some(server) = self.servers.get_mut(server_slot) else { return };
        let mut bytes = Vec::new();
        while let Some(synthetic) = server.session.pipeline.next_synthetic() {
            write_synthetic(&mut bytes, synthetic);
        }
        if !bytes.is_empty() {
            self.send_to_client(slot, &bytes);
        }
    }

    /// Reads what a server sent, as long as its client takes it.
    pub(super) fn server_readable(&mut self, slot: usize) {
        for turn in 0.. {
            let Some(server) = self.servers.get(slot) else { return };
            if !server.conn.readable {
                return;
            }
            if let ServerState::Active(client) = server.state
                && self.clients.get(client).is_some_and(|c| !c.conn.is_flushed())
            {
                return;
            }
            // Others get their turn too.
            if turn == READS_PER_TURN {
                let id = server.id;
                return self.ready.push_back((End::Server(slot), id));
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
                server.pending = input;
            }
        }
        self.buffer = buffer;
        if eof {
            self.server_gone(slot);
        }
    }

    /// Passes a server's bytes to its client. Returns how many were used.
    fn deliver(&mut self, slot: usize, input: &[u8]) -> usize {
        let Some(server) = self.servers.get_mut(slot) else { return input.len() };
        let client_slot = match server.state {
            ServerState::Active(client) => Some(client),
            _ => None,
        };
        let client = client_slot.and_then(|c| self.clients.get_mut(c));
        let (session, mut conn) = match client {
            Some(client) => (&mut client.session, Some(&mut client.conn)),
            None => (&mut self.nobody, None),
        };
        let mut staging = std::mem::take(&mut self.staging);
        staging.clear();
        let mut out = Outgoing::new(input, &mut staging);
        let mut downstream = Downstream {
            client: session,
            server: &mut server.session,
            shared: &self.process.shared,
            transactions: 0,
            ready: 0,
            fatal: false,
        };
        let result = downstream.translate(input, &mut out);
        let (transactions, ready, fatal) = (downstream.transactions, downstream.ready, downstream.fatal);
        let bytes = out.finish();
        let failed = match &mut conn {
            Some(conn) if !bytes.is_empty() => conn.send(bytes).is_err(),
            _ => false,
        };
        let passed = bytes.len();
        self.staging = staging;
        self.count_reply(slot, input.len(), transactions, ready, conn_less(client_slot, passed));
        if let (true, Some(client)) = (failed, client_slot) {
            self.close_client(client, "client unexpected eof");
        }
        let used = match result {
            Ok(used) => used,
            Err(broken) => {
                self.server_broken(slot, broken.0);
                return input.len();
            }
        };
        if fatal && let Some(server) = self.servers.get_mut(slot) {
            server.session.spoiled = Some("server closed the connection");
        }
        self.after_reply(slot);
        used
    }

    fn count_reply(&mut self, slot: usize, read: usize, transactions: u64, ready: u64, wasted: usize) {
        let Some(server) = self.servers.get_mut(slot) else { return };
        server.drained += wasted;
        let Some(stats) = server.pool.shards.get(self.id).map(|s| &s.stats) else { return };
        stats.sent.add(u64::try_from(read).unwrap_or(0));
        if ready > 0 {
            server.answered = self.now;
            stats.query_time.add(self.now.saturating_sub(server.query_start));
            server.query_start = if server.session.pipeline.is_empty() { 0 } else { self.now };
        }
        if transactions > 0 {
            stats.transactions.add(transactions);
            stats.transaction_time.add(self.now.saturating_sub(server.transaction_start));
            server.transaction_start = self.now;
        }
    }

    /// The state of a server may have changed with what it said.
    fn after_reply(&mut self, slot: usize) {
        let Some(server) = self.servers.get(slot) else { return };
        if !server.deferred_cancels.is_empty() && !server.session.pipeline.front_is_injected() {
            self.start_deferred_cancels(slot);
        }
        let Some(server) = self.servers.get(slot) else { return };
        match server.state {
            ServerState::Active(client) => self.after_client_reply(slot, client),
            ServerState::Testing | ServerState::Resetting if server.session.is_free() => {
                self.own_query_done(slot);
            }
            ServerState::Draining => self.go_on_draining(slot),
            ServerState::Idle if !server.session.pipeline.is_empty() || server.session.spoiled.is_some() => {
                self.close_server(slot, "unexpected message on an idle server");
            }
            _ => {}
        }
    }

    fn after_client_reply(&mut self, slot: usize, client_slot: usize) {
        let (Some(server), Some(client)) = (self.servers.get(slot), self.clients.get(client_slot)) else {
            return;
        };
        if let ClientState::LoginLinked(_) = client.state {
            if server.session.is_free() {
                self.login_parameters_tried(client_slot, slot);
            }
            return;
        }
        if server.session.injected_failed.is_some() {
            return self.settings_refused(client_slot, slot);
        }
        if client.session.held {
            return self.go_on_with_held(client_slot);
        }
        let Some(shard) = self.shards.get(server.shard) else { return };
        let mode = shard.settings.mode;
        if mode == PoolMode::Statement && server.session.status != TransactionStatus::Idle {
            return self.fail_client(client_slot, &ClientError::TransactionInStatementMode);
        }
        let kept = mode == PoolMode::Session || server.session.pinned.is_some();
        if !kept && server.session.is_free() && client.session.passing == 0 {
            self.release(client_slot, slot);
        }
    }

    /// The server has said more: the message that waited for it may go on. The server stays until it has.
    fn go_on_with_held(&mut self, slot: usize) {
        if let Some(client) = self.clients.get_mut(slot) {
            client.session.held = false;
            self.ready.push_back((End::Client(slot), client.session.id));
        }
    }

    /// There is room in a client's socket again.
    pub(super) fn client_writable(&mut self, slot: usize) {
        let Some(client) = self.clients.get_mut(slot) else { return };
        match client.conn.flush() {
            Err(_) => self.close_client(slot, "client unexpected eof"),
            Ok(false) => client.info.stuck_since = self.now,
            Ok(true) => {
                client.info.stuck_since = 0;
                match client.state.server() {
                    Some(server) => self.server_readable(server),
                    None => self.client_readable(slot),
                }
            }
        }
    }

    /// There is room in a server's socket again.
    pub(super) fn server_writable(&mut self, slot: usize) {
        let Some(server) = self.servers.get_mut(slot) else { return };
        match (server.conn.flush(), server.state) {
            (Err(_), _) => self.server_readable(slot),
            (Ok(true), ServerState::Active(client)) => self.client_readable(client),
            _ => {}
        }
    }

    /// Sends bytes of the pooler's own to a client.
    pub(super) fn send_to_client(&mut self, slot: usize, bytes: &[u8]) {
        let Some(client) = self.clients.get_mut(slot) else { return };
        if client.conn.send(bytes).is_err() {
            self.close_client(slot, "client unexpected eof");
        }
    }

    /// Throws away what is left of a request that was cancelled in the queue, and ends it with ReadyForQuery.
    /// Returns how many bytes were used.
    fn discard_request(&mut self, slot: usize, input: &[u8]) -> usize {
        let Some(header) = Header::peek(input) else { return 0 };
        if header.tag == fe::TERMINATE || header.len < 4 {
            self.close_client(slot, "client close request");
            return input.len();
        }
        if input.len() < header.total() {
            return 0;
        }
        if matches!(header.tag, fe::QUERY | fe::SYNC | fe::FUNCTION_CALL) {
            if let Some(client) = self.clients.get_mut(slot) {
                client.discarding = false;
            }
            let mut bytes = Vec::new();
            encode::ready_for_query(&mut bytes, b'I');
            self.send_to_client(slot, &bytes);
        }
        header.total()
    }

    /// Ends a client with an error.
    pub(super) fn fail_client(&mut self, slot: usize, error: &ClientError) {
        let mut bytes = Vec::new();
        error.write(&mut bytes, Severity::Fatal);
        if self.config.settings.log_pooler_errors {
            tracing::warn!(sqlstate = error.sqlstate(), "pooler error: {error}");
        }
        self.send_to_client(slot, &bytes);
        self.close_client(slot, "pooler error");
    }
}

/// Bytes that had no client to go to.
fn conn_less(client: Option<usize>, passed: usize) -> usize {
    if client.is_none() { passed } else { 0 }
}

/// The first message of a client that has no server.
fn request(input: &[u8]) -> Request {
    let Some(header) = Header::peek(input) else { return Request::Incomplete };
    let whole = input.len() >= header.total().min(crate::session::upstream::STREAM_OVER);
    match header.tag {
        fe::TERMINATE => Request::Terminate,
        fe::COPY_DATA | fe::COPY_DONE | fe::COPY_FAIL | fe::FLUSH if header.len >= 4 => {
            if input.len() >= header.total() { Request::Ignore(header.total()) } else { Request::Incomplete }
        }
        _ if whole || header.len < 4 || header.len > i32::MAX.unsigned_abs() - 1 => Request::Work,
        _ => Request::Incomplete,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_messages_are_told_apart() {
        let cases: [(&[u8], Request); 9] = [
            (b"", Request::Incomplete),
            (b"Q\0\0\0", Request::Incomplete),
            (b"Q\0\0\0\x08abc", Request::Incomplete),
            (b"Q\0\0\0\x08abc\0", Request::Work),
            (b"S\0\0\0\x04", Request::Work),
            (b"X\0\0\0\x04", Request::Terminate),
            (b"c\0\0\0\x04S\0\0\0\x04", Request::Ignore(5)),
            (b"H\0\0\0\x04", Request::Ignore(5)),
            (b"d\0\0\0\x08ab", Request::Incomplete),
        ];
        for (input, expected) in cases {
            assert_eq!(request(input), expected, "{input:?}");
        }
    }
}
