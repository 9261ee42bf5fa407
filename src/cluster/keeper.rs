//! Keeps the snapshot of a database's catalog: one task for each cluster. It reads the primary's: replicas may be behind.
//!
//! A snapshot is taken when there is none, after every change that passed through pooler, and when the database looks
//! different (a cheap question, now and then: others change it too).

use std::{
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use super::{Cluster, snapshot::CatalogState};
use crate::{
    server::{ConnectError, ConnectSpec, OwnSession, QueryError},
    sql::{
        Catalog,
        catalog::{self, CatalogError},
    },
};

/// Between looks at what others have changed.
const LOOK: Duration = Duration::from_secs(10);
/// Between two snapshots: changes come in swarms.
const GAP: Duration = Duration::from_millis(100);
/// After a failure.
const RETRY: Duration = Duration::from_secs(1);
/// So long a snapshot is good while the primary does not answer.
const LASTS: Duration = Duration::from_secs(60);
/// How long the server may take.
const LIMIT: Duration = Duration::from_secs(30);

#[derive(Debug, thiserror::Error)]
enum KeeperError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Query(#[from] QueryError),
    #[error(transparent)]
    Rows(#[from] CatalogError),
}

/// Runs until the cluster is dropped or stopped. `spec_of`: how to log in at a node.
pub async fn keep_catalog<S>(cluster: Arc<Cluster>, spec_of: S)
where
    S: Fn(usize) -> ConnectSpec + Send + Sync + 'static,
{
    let wake = Arc::clone(&cluster.catalog.wake);
    let mut keeper = Keeper {
        cluster: Arc::downgrade(&cluster),
        session: None,
        seen: None,
        looked: Instant::now(),
        complained: false,
    };
    drop(cluster);
    loop {
        let pause = match keeper.look(&spec_of).await {
            Ok(true) => LOOK,
            Ok(false) => {
                // The next list's keeper waits for the same, and may be the one that was meant.
                wake.notify_one();
                return;
            }
            Err(error) => keeper.failed(&error),
        };
        // A change in between has left its mark: it wakes at once.
        tokio::select! {
            () = wake.notified() => tokio::time::sleep(GAP).await,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

struct Keeper {
    cluster: Weak<Cluster>,
    /// At this node.
    session: Option<(usize, OwnSession)>,
    /// The database's signature when the snapshot was taken, and the number of changes seen until then.
    seen: Option<(String, u64)>,
    /// When the database last said whether the snapshot is right.
    looked: Instant,
    complained: bool,
}

impl Keeper {
    /// Takes a new snapshot if need be. False: the cluster is gone.
    async fn look<S: Fn(usize) -> ConnectSpec>(&mut self, spec_of: &S) -> Result<bool, KeeperError> {
        let Some(cluster) = self.cluster.upgrade().filter(|cluster| !cluster.is_stopped()) else {
            return Ok(false);
        };
        let Some(primary) = cluster.primary() else { return Err(QueryError::Unusable.into()) };
        // Before the database is asked: a change that comes later makes what it says worthless.
        let changes = cluster.catalog.changes();
        let mut session = match self.session.take() {
            Some((node, session)) if node == primary && session.is_usable() => session,
            _ => OwnSession::connect(&spec_of(primary)).await?,
        };
        let signature = session.query(&catalog::signature_text(), LIMIT).await?;
        let signature = signature.into_iter().flatten().next().flatten().unwrap_or_default();
        let same = self.seen.as_ref().is_some_and(|(seen, at)| *seen == signature && *at == changes);
        if !same || cluster.catalog.generation() == 0 {
            // What others have changed may be in use already.
            cluster.catalog.distrust();
            let catalog = take(&mut session).await?;
            // It would be put in force for the next list of nodes.
            if cluster.is_stopped() {
                return Ok(false);
            }
            self.publish(&cluster, catalog, changes);
            self.seen = Some((signature, changes));
        }
        self.session = Some((primary, session));
        self.looked = Instant::now();
        Ok(true)
    }

    fn publish(&mut self, cluster: &Cluster, catalog: Catalog, changes: u64) {
        if catalog.has_async_commits() {
            cluster.note_async_commits();
        }
        if let Some(poison) = catalog.poison() {
            tracing::warn!(
                database = cluster.database,
                "all reads stay on the primary: {poison} is used without being mentioned and is not known to be safe"
            );
        }
        tracing::debug!(database = cluster.database, bytes = catalog.size(), "catalog read");
        self.complained = false;
        cluster.catalog.publish(Arc::new(catalog), changes);
    }

    /// What is known stays in force for a while: a primary that is lost is changed by nobody. Then everything is for the
    /// primary. Says so once.
    fn failed(&mut self, error: &KeeperError) -> Duration {
        self.session = None;
        let Some(cluster) = self.cluster.upgrade().filter(|cluster| !cluster.is_stopped()) else {
            return GAP;
        };
        if self.looked.elapsed() < LASTS && cluster.catalog.generation() > 0 {
            return GAP;
        }
        // A primary that is lost is the monitor's to tell.
        if cluster.primary().is_none() {
            return GAP;
        }
        cluster.catalog.distrust();
        if !std::mem::replace(&mut self.complained, true) {
            tracing::warn!(
                database = cluster.database,
                "all requests go to the primary: the catalog cannot be read: {error}"
            );
        }
        RETRY
    }
}

async fn take(session: &mut OwnSession) -> Result<Catalog, KeeperError> {
    let version = session.query("SHOW server_version_num", LIMIT).await?;
    let version = version.into_iter().flatten().next().flatten().and_then(|v| v.parse().ok()).unwrap_or(0);
    let results = session.results(&catalog::load_text(version), LIMIT).await?;
    // Some milliseconds of work, or more in a database with much in it.
    let built =
        tokio::task::spawn_blocking(move || Catalog::of(CatalogState::next_generation(), &results)).await;
    built.unwrap_or(Err(CatalogError::TooLarge)).map_err(Into::into)
}
