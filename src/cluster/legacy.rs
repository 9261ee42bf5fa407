//! What one list of nodes leaves to the next one of the same database.
//!
//! The counter of epochs goes on, so that what clients have written and seen keeps its meaning, and so do the floors, which
//! transactions of the old list may still raise. With the primary's last marks replicas of the new list catch what they have
//! replayed, although there may be no primary to ask: each has to say so itself, to the new list's monitor.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use super::{Cluster, NodeAddress, Reign, epochs::Epochs, floors::Floors, snapshot::CatalogState};
use crate::sql::Names;

/// What is known of a database, whatever its nodes are.
#[derive(Clone, Debug)]
pub struct Legacy {
    last: Option<Reign>,
    by_operator: bool,
    epoch: Arc<AtomicU64>,
    marks: Epochs,
    floors: Arc<Floors>,
    catalog: Arc<CatalogState>,
    async_commits: Arc<AtomicBool>,
    made: Instant,
}

impl Legacy {
    /// Nobody has taken over at once. What is written until somebody does raises no floors, so that nothing counts but what the
    /// primary says from then on.
    pub fn lapse(&mut self) {
        self.marks.clear();
        self.floors.raise(&Names::Any, self.epoch.load(Ordering::SeqCst));
        self.catalog.outdate();
    }
}

impl Cluster {
    /// To be left to the next list of nodes. `by_operator`: that is configured, not found.
    pub fn legacy(&self, by_operator: bool) -> Legacy {
        let last = self.reign();
        // Those of another primary, which may have come or gone in between, mean nothing.
        let mut marks = self.marks().clone();
        marks.keep_of(last.as_ref().map_or(0, Reign::timeline));
        Legacy {
            last,
            by_operator: by_operator || self.may_change_system(),
            epoch: Arc::clone(&self.epoch),
            marks,
            floors: Arc::clone(&self.floors),
            catalog: Arc::clone(&self.catalog),
            async_commits: Arc::clone(&self.async_commits),
            made: self.made,
        }
    }

    /// Takes the place of the cluster that has left this.
    pub fn after(database: String, nodes: Vec<NodeAddress>, legacy: Legacy) -> Self {
        let Legacy { last, by_operator, epoch, marks, floors, catalog, async_commits, made } = legacy;
        let mut cluster = Self::new(database, nodes);
        (cluster.epoch, cluster.floors, cluster.catalog) = (epoch, floors, catalog);
        (cluster.marks, cluster.async_commits, cluster.made) = (Mutex::new(marks), async_commits, made);
        cluster.succeed(last, by_operator);
        cluster
    }
}
