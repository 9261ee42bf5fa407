//! Which node a request goes to, and what others must know of it: the rules of routing where they meet clients and
//! servers.
//!
//! A request is routed as a whole, up to its Query or Sync ([`crate::session::unit`]): to a replica if all of it is proven
//! to read only and some replica has caught up with what it reads, else to the primary. What was sent to the primary and
//! may have changed something raises the floors of the cluster, before its client learns that it was done.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Worker,
    client::Client,
    decision::{Decision, RequestClass},
    replay::Elsewhere,
    routing::{Routing, WaitingRead},
    scan::Scan,
    tick::micros,
};
use crate::{
    cluster::{Cluster, Node, Role},
    config::{PoolMode, ReadConsistency, Route},
    session::unit::Extent,
    sql::{Catalog, Hint, Why},
};

/// A shard's place in a cluster.
#[derive(Debug)]
pub(crate) struct ShardSeat {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) node: usize,
    /// Shards of the same user on this worker, by node.
    siblings: Vec<Option<usize>>,
    pub(super) catalog: Arc<Catalog>,
}

impl ShardSeat {
    pub(crate) fn of(pool: &crate::pool::Pool) -> Option<Self> {
        let seat = pool.seat.as_ref()?;
        Some(Self {
            cluster: Arc::clone(&seat.cluster),
            node: seat.node,
            siblings: vec![None; seat.cluster.nodes.len()],
            catalog: seat.cluster.catalog.current(),
        })
    }

    /// Shards of the same user on other nodes.
    pub(super) fn siblings(&self) -> impl Iterator<Item = usize> {
        self.siblings.iter().flatten().copied()
    }

    /// Its node is known to serve somebody.
    pub(super) fn is_of_use(&self) -> bool {
        let role = self.cluster.nodes.get(self.node).map(Node::role);
        matches!(role, Some(Role::Primary | Role::Replica))
    }

    /// The shard is another pool's from now on.
    pub(super) fn forget_sibling(&mut self, shard: usize) {
        for known in self.siblings.iter_mut().filter(|known| **known == Some(shard)) {
            *known = None;
        }
    }

    /// The snapshot in force; an unknown one while none can be trusted.
    pub(super) fn refresh_catalog(&mut self) {
        self.cluster.catalog.refresh(&mut self.catalog);
    }
}

/// What a replica must have caught to show this client no less than it has seen on the primary.
pub(super) fn shown_floor(client: &Client, scan: &Scan) -> u64 {
    // What a transaction will read is not known.
    let reads = if scan.begins.is_some() { u64::MAX } else { scan.reads.mask() };
    client.routing.as_ref().map_or(0, |routing| routing.shown.floor(reads))
}

/// Microseconds that a reader who has seen more on a replica waits for the primary to show it too. A commit takes as long
/// as its synchronous replicas do.
const AHEAD: u64 = 2_000_000;

/// Where to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Shard(usize),
    /// Nowhere for now.
    Hold,
}

impl Worker {
    /// The shard for a client's request, of which `input` is what has come. Takes note of what it says about routing.
    pub(super) fn route(&mut self, slot: usize, input: &[u8]) -> Target {
        let Some(home) = self.clients.get(slot).map(|client| client.shard) else { return Target::Hold };
        let Some(scan) = self.scan_once(slot, input) else { return Target::Shard(home) };
        let (node, why) = self.decide(slot, &scan);
        let Some(client) = self.clients.get_mut(slot) else { return Target::Hold };
        let routing = client.routing.get_or_insert_default();
        (routing.why, routing.class) = (why, Some(RequestClass::of(&scan)));
        routing.note(scan.attaches);
        if scan.reads_a_snapshot() && node.is_some() && !why.is_replica() {
            routing.ahead = 0;
        }
        self.scanned = Some((slot, input.len(), scan));
        if let Decision::Waits(floor) = why {
            self.wait_for_replica(slot, floor);
            return Target::Hold;
        }
        let target = node.and_then(|node| self.sibling(home, node));
        let (Some(target), Some(client)) = (target, self.clients.get_mut(slot)) else { return Target::Hold };
        client.shard = target;
        Target::Shard(target)
    }

    /// A client whose pool was replaced, by a reload or because nobody seemed to use it, goes to the one that has taken its place.
    pub(super) fn rehome(&mut self, slot: usize) {
        let Some(client) = self.clients.get(slot) else { return };
        let Some(shard) = self.shards.get(client.shard).filter(|shard| shard.pool.is_replaced()) else {
            return;
        };
        let old = Arc::clone(&shard.pool);
        let database = self.config.resolve_database(&old.key.database);
        let user = Arc::clone(&client.info.user_config);
        let Some(pool) = database.map(|database| self.process.pool(&database, &user)) else { return };
        if let Some(proved) = old.proved_credentials() {
            pool.offer_credentials(&proved);
        }
        self.process.watch(&pool);
        let index = self.shard(&pool);
        if let Some(client) = self.clients.get_mut(slot) {
            client.shard = index;
            let number = |node: usize| {
                let (old, new) = (&old.seat.as_ref()?.cluster, &pool.seat.as_ref()?.cluster);
                new.number_of(&old.nodes.get(node)?.address)
            };
            client.routing = client.routing.take().map(|routing| Box::new(routing.moved(number)));
        }
    }

    pub(super) fn cluster_of(&self, client: &Client) -> Option<&Arc<Cluster>> {
        self.shards.get(client.shard)?.seat.as_ref().map(|seat| &seat.cluster)
    }

    fn decide(&self, slot: usize, scan: &Scan) -> (Option<usize>, Decision) {
        let nowhere = (None, Decision::NoPrimary);
        let Some(client) = self.clients.get(slot) else { return nowhere };
        let Some(cluster) = self.cluster_of(client) else { return nowhere };
        if self.is_ahead_of(client, cluster) {
            return nowhere;
        }
        let waiting = client.routing.as_ref().and_then(|routing| routing.waiting);
        let floor = self.floor_now(client, scan);
        let primary = |why| match cluster.primary().filter(|_| !cluster.is_doubtful()) {
            Some(_) if self.has_seen_more(client, cluster, scan, waiting) => (None, Decision::Waits(floor)),
            Some(node) => (Some(node), why),
            None => nowhere,
        };
        let why = match self.wants_replica(client, scan) {
            Ok(why) => why,
            Err(why) => return primary(why),
        };
        match self.choose_replica(client, cluster, floor, scan) {
            Some(node) => (Some(node), why),
            // What may write is not to be done on the primary after all.
            None if why == Decision::AskedReplica && !scan.reads_only => {
                cluster.want_poll();
                (None, Decision::LacksReplica)
            }
            None if cluster.has_replicas() => {
                cluster.want_poll();
                if self.waits_for_replica(waiting) {
                    (None, Decision::Waits(floor))
                } else {
                    primary(Decision::Stale)
                }
            }
            None => primary(Decision::NoReplica),
        }
    }

    /// What a replica must have seen for this request. One that has waited is still the same request.
    pub(super) fn floor_now(&self, client: &Client, scan: &Scan) -> u64 {
        let waiting = client.routing.as_ref().and_then(|routing| routing.waiting);
        waiting.map_or_else(|| self.floor_of(client, scan), |waiting| waiting.floor)
    }

    /// What a replica must have seen for this request, by what was written.
    pub(super) fn floor_of(&self, client: &Client, scan: &Scan) -> u64 {
        match self.consistency(client) {
            ReadConsistency::Fresh | ReadConsistency::Primary => scan.floor,
            // Whatever the primary says from now on.
            ReadConsistency::Strict => self.cluster_of(client).map_or(u64::MAX, |cluster| cluster.epoch()),
            ReadConsistency::Session => client.routing.as_ref().map_or(0, |routing| routing.floor),
            ReadConsistency::Eventual => 0,
        }
    }

    pub(super) fn max_lag(&self) -> Option<Duration> {
        Some(self.config.settings.max_lag).filter(|lag| !lag.is_zero())
    }

    fn waits_for_replica(&self, waiting: Option<WaitingRead>) -> bool {
        let patience = micros(self.config.settings.causal_wait);
        patience > 0 && waiting.is_none_or(|waiting| self.now < waiting.since.saturating_add(patience))
    }

    /// Whether the primary may not show yet what this client has seen on a replica. Statements that change rows wait for
    /// that by themselves: they find them locked.
    fn has_seen_more(
        &self,
        client: &Client,
        cluster: &Cluster,
        scan: &Scan,
        waiting: Option<WaitingRead>,
    ) -> bool {
        let ahead = client.routing.as_ref().map_or(0, |routing| routing.ahead);
        let in_time = || waiting.is_none_or(|waiting| self.now < waiting.since.saturating_add(AHEAD));
        ahead > 0 && scan.reads_a_snapshot() && in_time() && cluster.floors.commits_under_way(ahead)
    }

    /// A request waits for a replica to catch up, or for the primary to show as much.
    fn wait_for_replica(&mut self, slot: usize, floor: u64) {
        let now = self.now;
        let Some(client) = self.clients.get(slot) else { return };
        if let Some(cluster) = self.cluster_of(client) {
            cluster.want_poll();
            cluster.wait();
        }
        let Some(client) = self.clients.get_mut(slot) else { return };
        let routing = client.routing.get_or_insert_default();
        let since = routing.waiting.get_or_insert(WaitingRead { floor, since: now }).since;
        for patience in [micros(self.config.settings.causal_wait), AHEAD] {
            let until = since.saturating_add(patience);
            if until > now {
                self.next_wait = self.next_wait.min(until);
            }
        }
    }

    /// Whether a request may go to a replica, and why; or why it may not.
    pub(super) fn wants_replica(&self, client: &Client, scan: &Scan) -> Result<Decision, Decision> {
        if client.mode == PoolMode::Session {
            return Err(Decision::SessionMode);
        }
        if client.routing.as_ref().is_some_and(|routing| routing.elsewhere == Some(Elsewhere::Primary)) {
            return Err(Decision::Again);
        }
        let route = match (scan.hint, self.wanted_route(client)) {
            (Some(Hint::Primary), _) => Route::Primary,
            (Some(Hint::Replica), _) => Route::Replica,
            (None, route) => route,
        };
        if route == Route::Primary {
            return Err(Decision::AskedPrimary);
        }
        // How it goes on is not known: on a replica it could get stuck.
        let Extent::Whole(_) = scan.extent else { return Err(Decision::Open) };
        if route == Route::Replica {
            return Ok(Decision::AskedReplica);
        }
        if !scan.reads_only {
            return Err(Decision::Class(scan.why));
        }
        if client.routing.as_ref().is_some_and(|routing| routing.attached) || scan.attaches {
            return Err(Decision::Session);
        }
        // No standby is (transam/README-SSI).
        if client.session.label.get("default_transaction_isolation") == Some("serializable") {
            return Err(Decision::Session);
        }
        let by_default = || client.session.label.get("default_transaction_read_only") == Some("on");
        match scan.begins {
            Some(mode) if mode.serializable == Some(true) || !mode.read_only.unwrap_or_else(by_default) => {
                Err(Decision::Class(Why::Statement))
            }
            _ if self.consistency(client) == ReadConsistency::Primary => Err(Decision::Consistency),
            Some(_) => Ok(Decision::ReadOnlyTransaction),
            None => Ok(Decision::Read),
        }
    }

    pub(super) fn wanted_route(&self, client: &Client) -> Route {
        let own = client.routing.as_ref().and_then(|routing| routing.settings.route);
        own.unwrap_or_else(|| match self.shards.get(client.shard) {
            Some(shard) => self.config.route(&shard.settings.database, &client.info.user_config),
            None => Route::Primary,
        })
    }

    pub(super) fn consistency(&self, client: &Client) -> ReadConsistency {
        let own = client.routing.as_ref().and_then(|routing| routing.settings.consistency);
        own.unwrap_or_else(|| match self.shards.get(client.shard) {
            Some(shard) => self.config.read_consistency(&shard.settings.database, &client.info.user_config),
            None => ReadConsistency::Primary,
        })
    }

    /// A replica that has seen what it must.
    fn choose_replica(&self, client: &Client, cluster: &Cluster, floor: u64, scan: &Scan) -> Option<usize> {
        let floor = floor.max(shown_floor(client, scan));
        let last = client.routing.as_deref().and_then(|routing| routing.last);
        let seen = last.map_or(0, |(_, epoch)| epoch);
        let random = client.session.id.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(17) ^ self.now;
        let chosen = cluster.choose_replica(floor.max(seen), self.max_lag(), random);
        // The last one is as good as those that have caught up with it.
        let stay =
            last.map(|(node, _)| node).filter(|node| cluster.is_eligible(*node, floor, self.max_lag()));
        let chosen = match (stay, chosen) {
            (Some(stay), Some(other)) => Some(cluster.less_busy(stay, other)),
            (one, other) => one.or(other),
        };
        let nodes = || 0..cluster.nodes.len();
        let fit = |node: &usize| self.is_fit(client, cluster, *node, floor, scan);
        let at_once = |node: &usize| self.has_server_at(client, *node);
        // The first one that is fit: what has failed on one is rare.
        let chosen =
            chosen.filter(|node| !self.is_unfit(client, cluster, *node)).or_else(|| nodes().find(fit))?;
        if at_once(&chosen) || !self.is_full(client, chosen) {
            return Some(chosen);
        }
        // Nobody waits at one replica while another has a server for him. (One that may open more does so.)
        nodes().find(|node| at_once(node) && fit(node)).or(Some(chosen))
    }

    /// Whether a node may get this read, which wants to see what was written up to `floor`. Reads of one client never go
    /// back in time: another replica than the last one must have caught up with what was read there.
    pub(super) fn is_fit(
        &self,
        client: &Client,
        cluster: &Cluster,
        node: usize,
        floor: u64,
        scan: &Scan,
    ) -> bool {
        let last = client.routing.as_deref().and_then(|routing| routing.last);
        let seen = last.filter(|(last, _)| *last != node).map_or(0, |(_, epoch)| epoch);
        let floor = floor.max(shown_floor(client, scan)).max(seen);
        cluster.is_eligible(node, floor, self.max_lag()) && !self.is_unfit(client, cluster, node)
    }

    fn is_unfit(&self, client: &Client, cluster: &Cluster, node: usize) -> bool {
        let elsewhere = client.routing.as_deref().and_then(|routing| routing.elsewhere);
        matches!(elsewhere, Some(Elsewhere::NotTo(not)) if not == node)
            || !self.has_replayed_token(client, cluster, node)
            || self.takes_no_logins(client, node)
    }

    /// A client's shard on a node, if its worker has one already.
    fn known_sibling(&self, client: &Client, node: usize) -> Option<usize> {
        let seat = self.shards.get(client.shard)?.seat.as_ref()?;
        if seat.node == node { Some(client.shard) } else { seat.siblings.get(node).copied()? }
    }

    /// A node may not have more servers for this client than it has.
    fn is_full(&self, client: &Client, node: usize) -> bool {
        let shard = self.known_sibling(client, node).and_then(|shard| self.shards.get(shard));
        shard.is_some_and(|shard| shard.pool.is_full(false))
    }

    /// A node has a free server for this client.
    fn has_server_at(&self, client: &Client, node: usize) -> bool {
        self.known_sibling(client, node).is_some_and(|shard| self.can_checkout(shard))
    }

    /// A node has no server for this client, refused the last login, and is not to be asked again yet.
    fn takes_no_logins(&self, client: &Client, node: usize) -> bool {
        let shard = self.known_sibling(client, node).and_then(|shard| self.shards.get(shard));
        let Some(pool) = shard.map(|shard| &shard.pool) else { return false };
        pool.open_servers() == 0 && !pool.may_connect(Instant::now())
    }

    /// What a client has asked for at its login.
    pub(super) fn set_routing(&mut self, slot: usize, routing: Routing) {
        if let Some(client) = self.clients.get_mut(slot) {
            client.routing = Some(Box::new(routing));
        }
    }

    /// Two shards of one user are on nodes of one cluster: they, and those that each knows, know each other from here on.
    fn introduce(&mut self, one: usize, other: usize) {
        let seat = |shard: usize| self.shards.get(shard).and_then(|shard| shard.seat.as_ref());
        let known = |shard: usize| seat(shard).into_iter().flat_map(ShardSeat::siblings);
        let family: Vec<usize> = [one, other].into_iter().chain(known(one)).chain(known(other)).collect();
        let nodes: Vec<(usize, usize)> =
            family.iter().filter_map(|&shard| Some((shard, seat(shard)?.node))).collect();
        for shard in family {
            let Some(seat) = self.shards.get_mut(shard).and_then(|shard| shard.seat.as_mut()) else {
                continue;
            };
            for &(sibling, node) in &nodes {
                if node != seat.node
                    && let Some(known) = seat.siblings.get_mut(node)
                {
                    *known = Some(sibling);
                }
            }
        }
    }

    /// The shard of the same user on another node.
    pub(super) fn sibling(&mut self, shard: usize, node: usize) -> Option<usize> {
        let seat = self.shards.get(shard)?.seat.as_ref()?;
        if seat.node == node {
            return Some(shard);
        }
        if let Some(known) = seat.siblings.get(node).copied().flatten() {
            return Some(known);
        }
        let pool = self.shards.get(shard)?.pool.seat.as_ref()?.sibling(node)?;
        let index = self.shard(&pool);
        self.introduce(shard, index);
        Some(index)
    }
}
