//! Nodes have changed, or have caught up: who waits for one looks again, and servers of nodes that are gone are given up.

use std::sync::Arc;

use super::{
    Worker,
    client::{Client, ClientState},
    server::{Server, ServerState},
};
use crate::{
    cluster::Cluster,
    pool::{Failure, Pool},
};

impl Worker {
    /// Clients that wait for a node of this cluster look for one again. Servers of nodes that must not be used, or do not
    /// answer, are given up.
    pub(super) fn cluster_changed(&mut self, cluster: &Arc<Cluster>) {
        let of_cluster = |pool: &Pool| {
            pool.seat.as_ref().filter(|seat| Arc::ptr_eq(&seat.cluster, cluster)).map(|seat| seat.node)
        };
        let unusable: Vec<usize> = self
            .servers
            .iter()
            .filter(|(_, server)| {
                let node = of_cluster(&server.pool).and_then(|node| cluster.nodes.get(node));
                node.is_some_and(|node| node.role().is_out()) || server.is_outlived_by(cluster)
            })
            .map(|(slot, _)| slot)
            .collect();
        for slot in unusable {
            if let Some(server) = self.servers.get(slot) {
                // Nobody would get what they bring.
                server.pool.give_up_logins();
            }
            self.server_gone(slot);
        }
        self.forgive_nodes(cluster);
        let waiting: Vec<usize> = self
            .clients
            .iter()
            .filter(|(_, client)| client.state.is_waiting())
            .filter(|(_, client)| {
                self.shards.get(client.shard).is_some_and(|shard| of_cluster(&shard.pool).is_some())
            })
            .map(|(slot, _)| slot)
            .collect();
        for slot in waiting {
            self.look_for_node_again(slot, cluster);
            self.settle();
        }
        // Those who are held again are in it twice.
        self.held.sort_unstable();
        self.held.dedup();
    }

    /// Servers whose addresses have gone from the names of their hosts are closed when they are free.
    pub(super) fn note_obsolete_servers(&mut self) {
        for (_, server) in &mut self.servers {
            server.look_at_name(&self.process.pools.names);
        }
    }

    /// Nodes that are up need not make up for the logins that failed while they were not.
    fn forgive_nodes(&self, cluster: &Arc<Cluster>) {
        for shard in &self.shards {
            let Some(seat) = shard.seat.as_ref().filter(|seat| Arc::ptr_eq(&seat.cluster, cluster)) else {
                continue;
            };
            let passed = |failure: Failure| !failure.refused || failure.sqlstate.starts_with("57P");
            if seat.is_of_use() && shard.pool.failure().is_some_and(passed) {
                shard.pool.set_failure(None);
            }
        }
    }

    /// A node takes no logins: who waits for a server there looks for another one.
    pub(super) fn send_waiting_elsewhere(&mut self, shard: usize, cluster: &Cluster, node: usize) {
        if self.shards.get(shard).is_none_or(|shard| shard.servers > 0) {
            return;
        }
        let waiting = self.shards.get(shard).map(|shard| shard.waiting.iter().map(|w| w.client).collect());
        let waiting: Vec<usize> = waiting.unwrap_or_default();
        for slot in waiting {
            if let Some(routing) = self.clients.get_mut(slot).and_then(|client| client.routing.as_mut()) {
                routing.avoid(node);
            }
            self.look_for_node_again(slot, cluster);
        }
    }

    /// Clients that no node could serve try again: replicas may have caught up meanwhile.
    pub(super) fn look_for_nodes(&mut self) {
        for slot in std::mem::take(&mut self.held) {
            let client = self.clients.get(slot).filter(|client| matches!(client.state, ClientState::Held));
            let cluster = client.and_then(|client| self.cluster_of(client)).map(Arc::clone);
            if let Some(cluster) = cluster {
                self.look_for_node_again(slot, &cluster);
                self.settle();
            }
        }
        self.look_at_open_reads();
    }

    /// Read-only transactions whose replica had not caught up look again, and who waits for the primary's position.
    fn look_at_open_reads(&mut self) {
        let waits = |server: &Server| {
            let ServerState::Active(slot) = server.state else { return None };
            let client = self.clients.get(slot).filter(|client| client.session.held)?;
            let asks = client.routing.as_ref().is_some_and(|routing| routing.own.asked.is_some());
            ((server.routed.as_replica || asks) && server.session.pipeline.is_empty()).then_some(slot)
        };
        // Not by the clients: there may be thousands of them.
        let waiting: Vec<usize> = self.servers.iter().filter_map(|(_, server)| waits(server)).collect();
        for slot in waiting {
            if let Some(client) = self.clients.get_mut(slot) {
                client.session.held = false;
            }
            self.look_later_at_client(slot);
        }
    }

    fn look_for_node_again(&mut self, slot: usize, cluster: &Cluster) {
        self.dequeue(slot);
        let Some(client) = self.clients.get(slot) else { return };
        let shard = client.shard;
        if matches!(client.state, ClientState::LoginWaiting)
            && let Some(home) = self.sibling(shard, cluster.home())
            && let Some(client) = self.clients.get_mut(slot)
        {
            client.shard = home;
        }
        self.begin_again(slot);
    }

    /// Nothing came of what it has sent.
    fn read_on_if_idle(&mut self, slot: usize) {
        if let Some(client) = self.clients.get_mut(slot).filter(|c| matches!(c.state, ClientState::Idle)) {
            client.stalled = false;
            self.look_later_at_client(slot);
        }
    }

    /// A client that has waited, and is in no queue any more, looks for a server anew.
    pub(super) fn begin_again(&mut self, slot: usize) {
        let Some(client) = self.clients.get_mut(slot) else { return };
        let (since, waited) = (client.since, client.waits_for_replica());
        if matches!(client.state, ClientState::LoginWaiting) {
            self.enqueue_login(slot);
        } else {
            client.state = ClientState::Idle;
            // What it has sent is enough: each look would read on.
            client.stalled = !client.pending.is_empty();
            self.client_readable(slot);
            self.read_on_if_idle(slot);
        }
        let Some(client) = self.clients.get_mut(slot).filter(|c| c.state.is_waiting()) else { return };
        // It has waited all the time, but not always for the same: for a primary no longer than since there is none.
        let anew = waited && matches!(client.state, ClientState::Held) && !client.waits_for_replica();
        if !anew {
            client.since = since;
        }
    }
}

impl Client {
    /// Its request waits for a replica to catch up.
    fn waits_for_replica(&self) -> bool {
        matches!(self.state, ClientState::Held)
            && self.routing.as_ref().is_some_and(|routing| routing.why.waits())
    }
}
