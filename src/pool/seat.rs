//! A pool's place in a cluster: each user of a database has one pool on every node.

use std::sync::{Arc, OnceLock, Weak};

use super::Pool;
use crate::cluster::{Cluster, Node};

/// Which node a pool is for.
#[derive(Debug)]
pub struct Seat {
    pub cluster: Arc<Cluster>,
    /// Index of its node.
    pub node: usize,
    /// The pools of the same user, by node.
    siblings: OnceLock<Box<[Weak<Pool>]>>,
}

impl Seat {
    /// To be told of its siblings.
    pub(super) fn new(cluster: Arc<Cluster>, node: usize) -> Self {
        Self { cluster, node, siblings: OnceLock::new() }
    }

    /// Takes note of the pools on all nodes, once.
    pub(super) fn introduce(&self, pools: &[Arc<Pool>]) {
        self.siblings.get_or_init(|| pools.iter().map(Arc::downgrade).collect());
    }

    /// Its node.
    pub fn place(&self) -> Option<&Node> {
        self.cluster.nodes.get(self.node)
    }

    /// The pools of the same user on all nodes, this one included.
    pub fn pools(&self) -> impl Iterator<Item = Arc<Pool>> {
        self.siblings.get().into_iter().flatten().filter_map(Weak::upgrade)
    }

    /// The pool of the same user on another node, as long as it exists.
    pub fn sibling(&self, node: usize) -> Option<Arc<Pool>> {
        self.siblings.get()?.get(node)?.upgrade()
    }
}
