//! Keeps the snapshot of a database's catalog: one task for each. It reads the primary's: replicas may be behind.
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
/// Between two looks at least: changes come in swarms.
const GAP: Duration = Duration::from_millis(100);
/// And so many times as long as one takes, and as a snapshot takes between two of these, for the server's sake.
const BREATHER: u32 = 4;
/// How often the pause after a failure is doubled.
const MOST_DOUBLINGS: u32 = 5;
/// So many failures in a row are worth a word, where what is read may be dropped meanwhile.
const WORTH_A_WORD: u32 = 8;
/// After a failure.
const RETRY: Duration = Duration::from_secs(1);
/// So long a snapshot is good while the primary does not answer.
const LASTS: Duration = Duration::from_secs(60);
/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);
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

/// Whose snapshot it is.
pub trait Source: Send + Sync + 'static {
    fn database(&self) -> &str;
    fn catalog(&self) -> &CatalogState;
    /// The node that tells.
    fn primary(&self) -> Option<usize>;
    fn is_stopped(&self) -> bool;
    /// Nobody needs it for now, and the connection may be in somebody's way.
    fn rests(&self) -> bool;
    /// A new snapshot is about to be put in force.
    fn taken(&self, catalog: &Catalog);
    /// What happens while there is none, for the log.
    fn without(&self) -> &'static str;
}

impl Source for Cluster {
    fn database(&self) -> &str {
        &self.database
    }

    fn catalog(&self) -> &CatalogState {
        &self.catalog
    }

    fn primary(&self) -> Option<usize> {
        self.primary()
    }

    fn is_stopped(&self) -> bool {
        self.is_stopped()
    }

    fn rests(&self) -> bool {
        false
    }

    fn taken(&self, catalog: &Catalog) {
        if catalog.has_async_commits() {
            self.note_async_commits();
        }
        if let Some(poison) = catalog.poison() {
            tracing::warn!(
                database = self.database,
                "all reads stay on the primary: {poison} is used without being mentioned and is not known to be safe"
            );
        }
    }

    fn without(&self) -> &'static str {
        "all requests go to the primary"
    }
}

/// Runs until the source is dropped or stopped. `spec_of`: how to log in at a node.
pub async fn keep_catalog<T, S>(source: Arc<T>, spec_of: S)
where
    T: Source,
    S: Fn(usize) -> ConnectSpec + Send + Sync + 'static,
{
    let wake = Arc::clone(&source.catalog().wake);
    let mut keeper = Keeper {
        source: Arc::downgrade(&source),
        session: None,
        seen: None,
        looked: Instant::now(),
        complained: false,
        failures: 0,
        looks: Pace::default(),
        reads: Pace::default(),
    };
    drop(source);
    loop {
        if keeper.rests() {
            wake.notified().await;
            continue;
        }
        let pause = match keeper.look(&spec_of).await {
            Ok(Looked::Known) => LOOK,
            Ok(Looked::TooSoon(pause)) => {
                tokio::time::sleep(pause).await;
                continue;
            }
            Ok(Looked::InVain) => {
                // The next list's keeper waits for the same, and may be the one that was meant.
                wake.notify_one();
                return;
            }
            Err(error) => keeper.failed(&error),
        };
        // A change in between has left its mark: it wakes at once.
        tokio::select! {
            () = wake.notified() => tokio::time::sleep(keeper.looks.rest(GAP)).await,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// What came of a look.
enum Looked {
    /// What is in force is right.
    Known,
    /// A snapshot is to be taken, but not before this.
    TooSoon(Duration),
    /// The cluster is gone.
    InVain,
}

/// How often something may be asked of the server: most of the time it rests.
#[derive(Debug, Default)]
struct Pace {
    /// When it was done last, and what it took.
    last: Option<(Instant, Duration)>,
}

impl Pace {
    fn note(&mut self, begun: Instant) {
        self.last = Some((Instant::now(), begun.elapsed()));
    }

    /// How long to wait for the next time.
    fn rest(&self, at_least: Duration) -> Duration {
        let rest = |(ended, took): (Instant, Duration)| {
            at_least.max(took * BREATHER).min(LOOK).saturating_sub(ended.elapsed())
        };
        self.last.map_or(Duration::ZERO, rest)
    }
}

struct Keeper<T> {
    source: Weak<T>,
    /// At this node.
    session: Option<(usize, OwnSession)>,
    /// The snapshot, and the database's signature when it was taken.
    seen: Option<(String, Arc<Catalog>)>,
    /// When the database last said whether the snapshot is right.
    looked: Instant,
    complained: bool,
    /// In a row.
    failures: u32,
    looks: Pace,
    reads: Pace,
}

impl<T: Source> Keeper<T> {
    fn source(&self) -> Option<Arc<T>> {
        self.source.upgrade().filter(|source| !source.is_stopped())
    }

    /// Nothing is known, and no connection is held, until somebody wakes it.
    fn rests(&mut self) -> bool {
        let rests = self.source().is_some_and(|source| source.rests());
        if rests {
            self.session = None;
        }
        rests
    }

    /// Takes a new snapshot if need be.
    async fn look<S: Fn(usize) -> ConnectSpec>(&mut self, spec_of: &S) -> Result<Looked, KeeperError> {
        let Some(source) = self.source() else { return Ok(Looked::InVain) };
        let Some(primary) = source.primary() else { return Err(QueryError::Unusable.into()) };
        // Before the database is asked: a change that comes later makes what it says worthless.
        let changes = source.catalog().changes();
        let mut session = match self.session.take() {
            Some((node, session)) if node == primary && session.is_usable() => session,
            _ => connect(&spec_of(primary)).await?,
        };
        let begun = Instant::now();
        let signature = session.query(&catalog::signature_text(), LIMIT).await?;
        self.looks.note(begun);
        let signature = signature.into_iter().flatten().next().flatten().unwrap_or_default();
        let same = self.seen.take().filter(|(seen, _)| *seen == signature);
        let catalog = match same {
            // What has changed were temporary tables, or it was for nothing.
            Some((_, catalog)) => catalog,
            None => {
                // What others have changed may be in use already.
                source.catalog().distrust();
                let rest = self.reads.rest(GAP);
                if !rest.is_zero() {
                    self.session = Some((primary, session));
                    return Ok(Looked::TooSoon(rest));
                }
                let begun = Instant::now();
                let catalog = take(&mut session).await;
                self.reads.note(begun);
                let catalog = match catalog {
                    Ok(catalog) => catalog,
                    Err(error) => {
                        // It may do better the next time.
                        self.session = Some((primary, session));
                        return Err(error);
                    }
                };
                source.taken(&catalog);
                tracing::debug!(database = source.database(), bytes = catalog.size(), "catalog read");
                Arc::new(catalog)
            }
        };
        // It would be put in force for the next list of nodes.
        if source.is_stopped() {
            return Ok(Looked::InVain);
        }
        (self.complained, self.failures) = (false, 0);
        if source.catalog().generation() != catalog.generation {
            source.catalog().publish(Arc::clone(&catalog), changes);
        }
        source.catalog().set_tried();
        self.seen = Some((signature, catalog));
        self.session = Some((primary, session));
        self.looked = Instant::now();
        Ok(Looked::Known)
    }

    /// What is known stays in force for a while: a primary that is lost is changed by nobody. Then everything is for the
    /// primary. Says so once.
    fn failed(&mut self, error: &KeeperError) -> Duration {
        // Whoever wants to know wakes it: not at once for each.
        self.looks.note(Instant::now());
        let Some(source) = self.source() else { return GAP };
        if self.looked.elapsed() < LASTS && source.catalog().generation() > 0 {
            return GAP;
        }
        // A primary that is lost is the monitor's to tell.
        if source.primary().is_none() {
            return GAP;
        }
        source.catalog().distrust();
        self.failures = self.failures.saturating_add(1);
        // What is dropped while it is read makes the server say an error, or leaves holes in what it says.
        let passes = matches!(error, KeeperError::Query(QueryError::Server(_)) | KeeperError::Rows(_));
        if passes && self.failures < WORTH_A_WORD {
            return self.reads.rest(GAP).max(GAP);
        }
        source.catalog().set_tried();
        // There is nothing to read in a database that does not exist, as its clients are told.
        let missing = matches!(error, KeeperError::Connect(ConnectError::Refused(error)) if error.sqlstate() == Some("3D000"));
        if !missing && !std::mem::replace(&mut self.complained, true) {
            tracing::warn!(
                database = source.database(),
                "{}: the catalog cannot be read: {error}",
                source.without()
            );
        }
        retry_after(self.failures)
    }
}

/// Twice as long each time: what is refused today may be counted (lock-outs), and is refused tomorrow.
fn retry_after(failures: u32) -> Duration {
    RETRY * 2_u32.pow(failures.saturating_sub(1).min(MOST_DOUBLINGS))
}

/// Not for as long as a configuration may allow: the server may be another one by then.
async fn connect(spec: &ConnectSpec) -> Result<OwnSession, KeeperError> {
    match tokio::time::timeout(CONNECT, OwnSession::connect(spec)).await {
        Ok(session) => Ok(session?),
        Err(_) => Err(QueryError::Timeout(CONNECT).into()),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_of_the_time_nothing_is_asked() {
        assert_eq!(Pace::default().rest(GAP), Duration::ZERO);
        let ago = |ended: u64, took: u64| {
            let ended = Instant::now().checked_sub(Duration::from_millis(ended)).unwrap();
            Pace { last: Some((ended, Duration::from_millis(took))) }.rest(GAP)
        };
        // A change comes alone: it is looked at at once. In a swarm they are looked at together.
        assert_eq!(ago(150, 1), Duration::ZERO);
        assert!(ago(0, 1) > GAP / 2 && ago(0, 1) <= GAP);
        assert!(ago(0, 500) > LOOK / 10 && ago(2_100, 500).is_zero());
        assert!(ago(0, 60_000) <= LOOK);
    }

    #[test]
    fn pauses_grow_and_have_an_end() {
        let pauses = [1, 2, 3, 6, 7, u32::MAX].map(retry_after).map(|pause| pause.as_secs());
        assert_eq!(pauses, [1, 2, 4, 32, 32, 32]);
    }
}
