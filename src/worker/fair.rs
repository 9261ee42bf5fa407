//! One queue for the replicas: a read waits for the first server that can serve it, wherever it was sent first.

use std::sync::atomic::Ordering;

use super::{
    Worker,
    client::ClientState,
    decision::Decision,
    queue::{PATIENCE, ShardState, UNFAIR, Waiting},
};
use crate::{
    cluster::{Node, Role},
    pool::Pool,
};

impl Worker {
    /// The reader who has waited longest at another replica, longer than the first one here, if this shard's node can serve
    /// him as well. He is taken out of the other queue.
    pub(super) fn take_from_sibling(&mut self, index: usize) -> Option<Waiting> {
        let shard = self.shards.get(index)?;
        let seat = shard.seat.as_ref()?;
        let node = replica_of(shard)?;
        let own = shard.waiting.front().map_or(u64::MAX, |first| first.since);
        let heads = seat.siblings().filter(|sibling| *sibling != index).filter_map(|sibling| {
            let first = *self.shards.get(sibling)?.waiting.front()?;
            (first.since < own && self.waits_to_read(first)).then_some((first, sibling))
        });
        let (first, sibling) = heads.min_by_key(|(first, _)| first.since)?;
        if !self.could_serve(first.client, node) {
            return None;
        }
        self.dequeue(first.client);
        let client = self.clients.get_mut(first.client)?;
        debug_assert_eq!(client.shard, sibling, "who waits in a queue belongs to it");
        client.shard = index;
        Some(first)
    }

    /// The first one who waits here joins the queue of another replica that would serve him sooner: servers of other workers
    /// serve that one too. Once; then he stays there.
    pub(super) fn join_sibling(&mut self, index: usize) {
        let Some(shard) = self.shards.get(index) else { return };
        let (Some(&first), Some(seat)) = (shard.waiting.front(), shard.seat.as_ref()) else { return };
        let waited = self.now.saturating_sub(first.since);
        if first.moved || waited < PATIENCE || !self.waits_to_read(first) {
            return;
        }
        let sooner = |sibling: &usize| {
            let shard = self.shards.get(*sibling);
            shard.is_some_and(|shard| !shard.pool.is_paused() && is_sooner(&shard.pool, self.now, waited))
        };
        let siblings: Vec<usize> = seat.siblings().filter(|s| *s != index).filter(sooner).collect();
        let serves = |sibling: &usize| {
            let node = self.shards.get(*sibling).and_then(replica_of);
            node.is_some_and(|node| self.could_serve(first.client, node))
        };
        if let Some(sibling) = siblings.into_iter().find(serves) {
            self.dequeue(first.client);
            if let Some(client) = self.clients.get_mut(first.client) {
                client.shard = sibling;
            }
            self.insert_by_age(sibling, Waiting { moved: true, ..first });
        }
    }

    fn waits_to_read(&self, waiting: Waiting) -> bool {
        let client = self.clients.get(waiting.client).filter(|client| client.session.id == waiting.id);
        client.is_some_and(|client| {
            let why = client.routing.as_ref().map(|routing| routing.why);
            matches!(client.state, ClientState::Waiting) && why.is_some_and(Decision::is_replica)
        })
    }

    /// Whether a node can serve what a client waits for.
    fn could_serve(&mut self, slot: usize, node: usize) -> bool {
        let Some(client) = self.clients.get_mut(slot) else { return false };
        let pending = std::mem::take(&mut client.pending);
        self.scanned = None;
        let scan = self.scan_once(slot, &pending);
        let Some(client) = self.clients.get_mut(slot) else { return false };
        client.pending = pending;
        let Some(client) = self.clients.get(slot) else { return false };
        let cluster = self.cluster_of(client);
        scan.zip(cluster).is_some_and(|(scan, cluster)| {
            let floor = self.floor_now(client, &scan);
            self.is_fit(client, cluster, node, floor, &scan)
        })
    }
}

/// The node of a shard, if it is a replica.
fn replica_of(shard: &ShardState) -> Option<usize> {
    let seat = shard.seat.as_ref()?;
    let role = seat.cluster.nodes.get(seat.node).map(Node::role);
    (role == Some(Role::Replica)).then_some(seat.node)
}

/// Who has waited for so long would be served sooner by this pool.
fn is_sooner(pool: &Pool, now: u64, waited: u64) -> bool {
    let others = pool.shards.iter().map(|shard| shard.waiting_since.load(Ordering::Acquire));
    match others.filter(|since| *since > 0).min() {
        // Its queue gets on.
        Some(since) => waited > now.saturating_sub(since).saturating_mul(2) + UNFAIR,
        None => !pool.is_full(false) || pool.shards.iter().any(|s| s.idle.load(Ordering::Acquire) > 0),
    }
}
