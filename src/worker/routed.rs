//! What servers of a cluster have been sent: how far a replica may go on with a client's pipeline, and what transactions
//! on the primary have changed.

use std::sync::{Arc, atomic::Ordering};

use super::{
    Worker,
    client::ClientState,
    decision::Decision,
    replay::{Attempt, MOST_TRIES},
    route::shown_floor,
    routing::Shown,
    scan::Scan,
    server::{Server, ServerState},
};
use crate::{
    cluster::{
        Cluster,
        floors::{Changes, Open},
    },
    config::{PoolMode, ReadConsistency},
    pool::seat::Seat,
    protocol::TransactionStatus,
    session::{downstream::Downstream, unit::Extent},
};

/// A server's part in routing.
#[derive(Debug, Default)]
pub(crate) struct Routed {
    /// It was given to its client as a replica: it must get nothing but reads, outside of read-only transactions.
    pub(crate) as_replica: bool,
    /// It counts as busy on its node.
    counted: bool,
    /// The request that it was given for has not been sent yet.
    chosen: bool,
    /// So many of the client's next bytes have been looked at already, and may go.
    seen: usize,
    /// A transaction is open on it, or will be when it has answered (a read-only one if it is a replica).
    in_transaction: bool,
    wrote: Open,
    /// Definitions may be among it, which no tag will tell.
    alters: bool,
    /// What reads that have not been answered may show.
    reads: Changes,
    /// Statements about pooler itself may be among what it was sent.
    pub(super) own: bool,
    /// A COMMIT, or what commits by itself, has been sent and not been answered.
    committing: bool,
    /// The next statement of its transaction waits here for what it must show.
    pub(super) waits: Option<WaitingStatement>,
    /// The client's request, as long as it can be sent to another node instead.
    pub(crate) attempt: Option<Attempt>,
}

/// A statement of a read-only transaction that waits for its replica.
#[derive(Clone, Copy, Debug)]
pub(super) struct WaitingStatement {
    since: u64,
    /// The replica must have caught more than this,
    floor: u64,
    /// if the statement is all of so many bytes: more of it may read more.
    extent: Extent,
}

impl Routed {
    /// The request that can be sent again: as much of it as has been sent. The rest is still with the client's input.
    pub(super) fn take_attempt(&mut self) -> Option<Attempt> {
        let mut attempt = self.attempt.take()?;
        attempt.cut(self.seen);
        Some(attempt)
    }

    /// Nobody can say whether what was under way has happened.
    pub(crate) fn may_have_committed(&self) -> bool {
        self.committing && !self.wrote.is_empty()
    }

    /// Since when the next statement waits for its replica, while none of what is before it is on its way.
    pub(super) fn waits_since(&self) -> Option<u64> {
        self.waits.filter(|_| self.seen == 0).map(|waits| waits.since)
    }

    /// A transaction that is open may have changed something.
    pub(super) fn has_written(&self) -> bool {
        !self.wrote.is_empty()
    }

    /// A transaction will be open when the server has answered.
    pub(super) fn is_in_transaction(&self) -> bool {
        self.in_transaction
    }

    /// The primary has answered all that it was sent. What was looked at and has not been sent is looked at again: what was
    /// noted of it is gone, and what its names stand for may only be known now.
    fn all_answered(&mut self, ended: bool) {
        self.committing = false;
        self.own = false;
        self.seen = 0;
        self.reads.clear();
        self.wrote.commit_ended();
        if ended {
            self.wrote = Open::default();
        }
    }
}

/// What a server has said; see [`Downstream`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Replied {
    transactions: u64,
    committed: u64,
    completed: u64,
    ready: u64,
}

impl Replied {
    pub(super) fn of(downstream: &Downstream<'_>) -> Self {
        let Downstream { transactions, committed, completed, ready, .. } = *downstream;
        Self { transactions, committed, completed, ready }
    }
}

impl Server {
    /// It works off a transaction on a list of nodes that is not in force any more, and those that are say that its node is
    /// of no use, or no primary any more.
    pub(super) fn is_outlived_by(&self, cluster: &Cluster) -> bool {
        let Some(seat) = self.pool.seat.as_ref().filter(|_| self.pool.is_replaced()) else { return false };
        if self.pool.key.database != cluster.database || std::ptr::eq(&*seat.cluster, cluster) {
            return false;
        }
        let timeline = |cluster: &Cluster| cluster.reign().map(|reign| reign.timeline());
        if !self.routed.as_replica && timeline(cluster) > timeline(&seat.cluster) {
            return true;
        }
        let Some(own) = seat.place() else { return false };
        let same = cluster.nodes.iter().find(|node| node.address.is_same(&own.address));
        same.is_some_and(|node| node.role().is_out())
    }

    /// Its connection is closed: what it was sent may happen all the same.
    pub(super) fn leave_unknown(&mut self) {
        std::mem::take(&mut self.routed.wrote).leave(self.info.key.pid);
    }

    /// What is about pooler waits until all before it has been answered. Behind what no Sync has ended nothing may come before
    /// that: the server refuses it. `more`: some of what is before it has not been sent yet.
    fn keeps_own_back(&self, scan: &Scan, more: bool) -> bool {
        let pipeline = &self.session.pipeline;
        scan.own && (more || !pipeline.is_empty() && pipeline.is_closed())
    }

    /// It works for a client: reads that choose between nodes should know.
    fn begin_work(&mut self) {
        let Some(node) = self.pool.seat.as_ref().and_then(Seat::place) else { return };
        if !std::mem::replace(&mut self.routed.counted, true) {
            node.busy.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// It does not any more, and forgets what it has done.
    pub(super) fn end_work(&mut self) {
        let counted = std::mem::take(&mut self.routed).counted;
        if let Some(node) = self.pool.seat.as_ref().and_then(Seat::place).filter(|_| counted) {
            node.busy.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Worker {
    /// A client that was routed has got its server.
    pub(super) fn link_routed(&mut self, client: usize, server: usize) {
        let keeps = self.clients.get(client).is_some_and(|c| c.mode != PoolMode::Session);
        let decision = self.clients.get(client).and_then(|c| c.routing.as_ref()).map(|r| r.why);
        if let Some(server) = self.servers.get_mut(server) {
            server.routed.as_replica = decision.is_some_and(Decision::is_replica);
            server.routed.chosen = true;
            // That of the pool is none of the client's.
            server.session.take_discarded();
            if let (Some(decision), Some(shard)) = (decision, server.pool.shards.get(self.id)) {
                shard.routes.add(decision.index());
            }
            server.begin_work();
            server.routed.seen = 0;
            server.routed.in_transaction = false;
            server.session.outlived = keeps && server.pool.seat.is_some();
        }
    }

    /// How much of a client's bytes its server may get; all that is not a matter of routing. Takes note of what the server is
    /// about to do.
    pub(super) fn admit(&mut self, slot: usize, server_slot: usize, input: &[u8]) -> usize {
        let (Some(client), Some(server)) = (self.clients.get(slot), self.servers.get(server_slot)) else {
            return input.len();
        };
        if server.pool.seat.is_none() {
            return input.len();
        }
        let passed = client.session.passing.max(server.routed.seen).min(input.len());
        let (seen, admitted) = if server.routed.as_replica {
            self.admit_to_replica(slot, server_slot, input, passed)
        } else {
            self.note_writes(slot, server_slot, input, passed)
        };
        if let Some(server) = self.servers.get_mut(server_slot) {
            server.routed.seen = seen;
        }
        admitted
    }

    /// Of the bytes that were looked at last, so many have been sent.
    pub(super) fn note_sent(&mut self, server_slot: usize, sent: usize) {
        if let Some(server) = self.servers.get_mut(server_slot) {
            server.routed.seen = server.routed.seen.saturating_sub(sent);
        }
    }

    /// How many bytes were looked at, and how many may go.
    fn admit_to_replica(
        &mut self,
        slot: usize,
        server_slot: usize,
        input: &[u8],
        passed: usize,
    ) -> (usize, usize) {
        let mut pos = passed;
        loop {
            let rest = input.get(pos..).unwrap_or_default();
            if rest.is_empty() {
                return (pos, pos);
            }
            let Some(scan) = self.scan_once(slot, rest) else { return (pos, pos) };
            if self.servers.get(server_slot).is_some_and(|server| server.keeps_own_back(&scan, pos > passed))
            {
                return (pos, pos);
            }
            let (open, goes_on) = self.is_amid(slot, server_slot, pos);
            let decided = self.servers.get(server_slot).is_some_and(|server| server.routed.chosen);
            let goes = decided || open || goes_on || self.may_follow(slot, server_slot, &scan);
            if open && !decided && !self.has_caught_up(slot, server_slot, &scan) {
                return (pos, pos);
            }
            let Some(server) = self.servers.get_mut(server_slot) else { return (pos, pos) };
            let attempt = server.routed.attempt.as_ref();
            let takes = |len| attempt.is_none_or(|kept| kept.takes(rest.get(..len).unwrap_or_default()));
            let len = match scan.extent {
                Extent::Whole(len) if decided || (goes && takes(len)) => len,
                Extent::Flushed(len) if goes && attempt.is_none() => len,
                Extent::Cut if (open || goes_on) && attempt.is_none() => {
                    server.routed.in_transaction = open && !scan.ends;
                    return (pos, input.len());
                }
                _ => return (pos, pos),
            };
            server.routed.chosen = false;
            server.routed.own |= scan.own || scan.unread;
            server.routed.in_transaction = (open || scan.begins.is_some()) && !scan.ends;
            server.routed.reads.add_all(&scan.reads);
            if let Some(request) = rest.get(..len) {
                self.keep_request(slot, server_slot, request, decided);
            }
            pos += len;
        }
    }

    /// Whether a replica has a transaction open, or will have when it has answered; and whether what its client sends at
    /// `pos` belongs to what only a Sync will end.
    fn is_amid(&self, slot: usize, server_slot: usize, pos: usize) -> (bool, bool) {
        let (Some(client), Some(server)) = (self.clients.get(slot), self.servers.get(server_slot)) else {
            return (false, false);
        };
        let pipeline = &server.session.pipeline;
        // Once all is answered the server has said it.
        let open = match pos == 0 && pipeline.is_empty() {
            true => server.session.status != TransactionStatus::Idle,
            false => server.routed.in_transaction,
        };
        (open, pos <= client.session.passing && !pipeline.is_closed())
    }

    /// A request must not go to the replica that the client has: once that owes nothing, the client looks for another node.
    /// True if it does so now.
    pub(super) fn leave_replica(&mut self, slot: usize, server_slot: usize) -> bool {
        let (Some(client), Some(server)) = (self.clients.get_mut(slot), self.servers.get(server_slot)) else {
            return false;
        };
        if client.state.server() != Some(server_slot) {
            return false;
        }
        if !server.session.is_free() || client.session.passing > 0 {
            client.stalled = true;
            client.session.held = true;
            return false;
        }
        // Not as at the end of a transaction: what it has sent is being read, so it must stay on this worker.
        client.part(self.now);
        self.recover(server_slot, false);
        true
    }

    /// No node can take a client's request.
    pub(super) fn hold(&mut self, slot: usize) {
        if let Some(client) = self.clients.get_mut(slot) {
            client.state = ClientState::Held;
            client.since = self.now;
            self.held.push(slot);
        }
    }

    /// Whether a statement of a read-only transaction sees on its replica what it must. Until then it waits: the transaction
    /// cannot go elsewhere.
    fn has_caught_up(&mut self, slot: usize, server_slot: usize, scan: &Scan) -> bool {
        let (Some(client), Some(server)) = (self.clients.get(slot), self.servers.get(server_slot)) else {
            return true;
        };
        let Some(seat) = server.pool.seat.as_ref().filter(|_| scan.shows) else { return true };
        let waits = server.routed.waits;
        let floor = match waits {
            // What has waited is still the same statement.
            Some(waits) if waits.extent == scan.extent && scan.extent != Extent::Cut => waits.floor,
            // Its first statement has waited for the primary.
            _ if self.consistency(client) == ReadConsistency::Strict => scan.floor,
            _ => self.floor_of(client, scan),
        };
        let (cluster, node) = self.watched_place(seat);
        let caught = cluster.caught_up(node, floor) && self.has_replayed_token(client, &cluster, node);
        if !caught {
            cluster.want_poll();
            cluster.wait();
        }
        let since = waits.map_or(self.now, |waits| waits.since);
        if let Some(server) = self.servers.get_mut(server_slot) {
            server.routed.waits = (!caught).then_some(WaitingStatement { since, floor, extent: scan.extent });
        }
        caught
    }

    /// Where a server's node is watched: on the list in force, if its own is not any more.
    fn watched_place(&self, seat: &Seat) -> (Arc<Cluster>, usize) {
        let in_force = || {
            let cluster = self.process.pools.cluster(&seat.cluster.database)?;
            let node = cluster.number_of(&seat.place()?.address)?;
            Some((cluster, node))
        };
        let replaced = seat.cluster.is_stopped().then(in_force).flatten();
        replaced.unwrap_or_else(|| (Arc::clone(&seat.cluster), seat.node))
    }

    /// Whether a request that comes behind others may go to the same replica.
    fn may_follow(&self, slot: usize, server_slot: usize, scan: &Scan) -> bool {
        let (Some(client), Some(server)) = (self.clients.get(slot), self.servers.get(server_slot)) else {
            return false;
        };
        let Some(seat) = &server.pool.seat else { return false };
        let wanted = self.wants_replica(client, scan).is_ok();
        let floor = self.floor_of(client, scan).max(shown_floor(client, scan));
        wanted
            && seat.cluster.is_eligible(seat.node, floor, self.max_lag())
            && self.has_replayed_token(client, &seat.cluster, seat.node)
    }

    /// What goes to the primary may change something. How many bytes were looked at, and how many may
    /// go.
    fn note_writes(
        &mut self,
        slot: usize,
        server_slot: usize,
        input: &[u8],
        passed: usize,
    ) -> (usize, usize) {
        let mut pos = passed;
        while pos < input.len() {
            let rest = input.get(pos..).unwrap_or_default();
            let Some(scan) = self.scan_once(slot, rest) else { return (pos, pos) };
            let Some(server) = self.servers.get_mut(server_slot) else { return (pos, pos) };
            // A read that can be sent again has to be answered before anything follows it.
            if server.routed.attempt.is_some() {
                return (pos, pos);
            }
            if server.keeps_own_back(&scan, pos > passed) {
                return (pos, pos);
            }
            // In a transaction that is open, or whose BEGIN is on its way.
            let open = server.session.status != TransactionStatus::Idle;
            let inside = open || scan.begins.is_some();
            let before = if server.session.pipeline.is_empty() && pos == 0 {
                open
            } else {
                server.routed.in_transaction
            };
            server.routed.in_transaction = (before || scan.begins.is_some()) && !scan.ends;
            let alone = !inside;
            server.routed.committing |= scan.ends || alone;
            if let Some(seat) = &server.pool.seat {
                server.routed.wrote.add(&seat.cluster, &scan.wrote);
            }
            if server.routed.committing {
                server.routed.wrote.commits();
            }
            server.routed.alters |= scan.alters;
            server.routed.own |= scan.own || scan.unread;
            server.routed.reads.add_all(&scan.reads);
            if let Some(routing) = self.clients.get_mut(slot).and_then(|c| c.routing.as_mut()) {
                routing.note(scan.attaches);
            }
            self.keep_read(slot, server_slot, rest, &scan);
            match scan.extent {
                Extent::Whole(len) | Extent::Flushed(len) => pos += len,
                // It is looked at again when the rest has come, unless it is long; then it counts as it is.
                Extent::Cut => return (pos, input.len()),
            }
        }
        (pos, pos.max(input.len()))
    }

    /// What only reads on the primary can be sent again too, if that is lost; but not for ever: somebody may want it to end.
    fn keep_read(&mut self, slot: usize, server_slot: usize, rest: &[u8], scan: &Scan) {
        let routing = self.clients.get(slot).and_then(|client| client.routing.as_ref());
        let often = routing.is_some_and(|routing| routing.tries >= MOST_TRIES);
        let Some(server) = self.servers.get_mut(server_slot) else { return };
        let first = std::mem::take(&mut server.routed.chosen);
        let alone = scan.reads_only && scan.begins.is_none() && !scan.attaches && !scan.ends;
        if first && alone && !often && scan.extent == Extent::Whole(rest.len()) {
            server.routed.attempt = Attempt::on_primary(rest, &mut self.spare);
        }
    }

    /// A server has answered, and its client is about to be told: what it has changed must be seen from here on.
    pub(super) fn note_replies(&mut self, slot: usize, told: Replied) {
        let Some(server) = self.servers.get_mut(slot) else { return };
        let Some(seat) = &server.pool.seat else { return };
        if let Some(standby) = server.session.in_hot_standby {
            seat.cluster.observe(seat.node, standby);
        }
        if told.ready == 0 && told.completed == 0 {
            return;
        }
        let epoch = seat.cluster.epoch();
        if server.routed.as_replica && server.query_start > 0 {
            seat.cluster.took(seat.node, self.now.saturating_sub(server.query_start));
        }
        let client = match server.state {
            ServerState::Active(client) => self.clients.get_mut(client),
            _ => None,
        };
        let mut routing = client.and_then(|c| c.routing.as_mut());
        if server.routed.as_replica {
            let failed = server.routed.attempt.as_ref().is_some_and(|attempt| attempt.has_failed());
            if let Some(routing) = routing.filter(|_| told.ready > 0 && !failed) {
                let more = seat.cluster.floors.may_show_more(&server.routed.reads, &Open::default());
                routing.read_from(seat.node, epoch, more);
                if seat.cluster.caught_up(seat.node, routing.shown.epoch) {
                    routing.shown = Shown::default();
                }
            }
            if told.ready > 0 && server.session.pipeline.is_empty() {
                server.routed.reads.clear();
            }
            return;
        }
        // What CALL and DO have committed before an error is not told by tags. What is told before ReadyForQuery comes (Flush,
        // several statements) may be a COMMIT.
        let ended = told.committed > 0
            || told.completed > 0
            || (told.transactions > 0 && server.routed.wrote.is_everything());
        if ended
            && server.routed.wrote.acknowledge(epoch)
            && let Some(routing) = &mut routing
        {
            routing.wrote(epoch);
        }
        if told.ready == 0 {
            return;
        }
        let more = !server.routed.reads.is_empty()
            && seat.cluster.floors.may_show_more(&server.routed.reads, &server.routed.wrote);
        if let Some(routing) = routing {
            routing.answered();
            let (discarded, settled) = (server.session.take_discarded(), server.session.take_settled());
            if (discarded || settled) && server.session.pipeline.is_empty() {
                routing.detach();
            }
            if more {
                routing.shown.add(epoch, &server.routed.reads);
            }
        }
        if server.session.pipeline.is_empty() {
            server.routed.all_answered(told.transactions > 0);
        }
        let altered = server.session.take_altered();
        if altered || (ended && std::mem::take(&mut server.routed.alters)) {
            seat.cluster.catalog.outdate();
        }
    }

    /// A server is lost: what it was told may have happened.
    pub(super) fn note_loss(&mut self, slot: usize) {
        let Some(server) = self.servers.get_mut(slot) else { return };
        let Some(seat) = &server.pool.seat else { return };
        let epoch = seat.cluster.epoch();
        let wrote = server.routed.wrote.acknowledge(epoch);
        seat.cluster.lost_connection(seat.node);
        if let ServerState::Active(client) = server.state
            && let Some(routing) = self.clients.get_mut(client).and_then(|c| c.routing.as_mut())
            && wrote
        {
            routing.wrote(epoch);
        }
    }
}
