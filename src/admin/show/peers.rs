//! SHOW PEERS and PEER_POOLS.

use std::sync::atomic::Ordering;

use super::{
    super::result::{
        Columns,
        Kind::{Int4, Text},
        Row,
    },
    text,
};
use crate::admin::commands::Commands;

pub(super) const PEERS: Columns = &[("peer_id", Int4), ("host", Text), ("port", Int4), ("pool_size", Int4)];

pub(super) const PEER_POOLS: Columns = &[
    ("peer_id", Int4),
    ("cl_active_cancel_req", Int4),
    ("cl_waiting_cancel_req", Int4),
    ("sv_active_cancel", Int4),
    ("sv_login", Int4),
];

/// Those of the configuration, the process itself among them if it is listed.
pub(super) fn peers(commands: &Commands) -> Vec<Row> {
    let live = commands.process.config();
    let row = |peer: &crate::config::Peer| {
        let size = peer.pool_size.unwrap_or(live.settings.default_pool_size);
        vec![text(peer.id), text(&peer.host), text(peer.port), text(size)]
    };
    live.peers.values().map(row).collect()
}

/// Those that cancel requests have been passed on to.
pub(super) fn peer_pools(commands: &Commands) -> Vec<Row> {
    let pools = commands.process.peers.pools(&commands.process.config());
    let row = |(id, pool): (u16, std::sync::Arc<crate::worker::peers::PeerPool>)| {
        let count = |counter: &std::sync::atomic::AtomicUsize| text(counter.load(Ordering::Relaxed));
        vec![text(id), count(&pool.sent), count(&pool.waiting), count(&pool.sent), count(&pool.connecting)]
    };
    pools.into_iter().map(row).collect()
}
