//! Tasks that find nodes: one for each source that the configuration names, as long as it does.
//!
//! What they find is put in force as a RELOAD with another list would be.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use super::process::Process;
use crate::{
    cluster::discovery::{DiscoveryError, Found, Source},
    config::{Config, Database},
};

/// A source may take so long to answer.
const LIMIT: Duration = Duration::from_secs(5);
/// Between questions while there is no primary.
const URGENT: Duration = Duration::from_millis(500);
/// Between questions, whatever happens.
const SHORTEST: Duration = Duration::from_millis(100);

/// The tasks.
#[derive(Debug, Default)]
pub(crate) struct Discovery {
    /// Each tells whether it has had an answer, or none, for the first time.
    tasks: Mutex<HashMap<Source, watch::Receiver<bool>>>,
    /// Something has happened to nodes: look now.
    wake: Notify,
}

impl Discovery {
    fn lock(&self) -> MutexGuard<'_, HashMap<Source, watch::Receiver<bool>>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets all look now.
    pub(crate) fn hurry(&self) {
        self.wake.notify_waiters();
    }
}

/// All that the configuration names.
fn sources(config: &Config) -> HashSet<Source> {
    config.databases.values().flat_map(|database| Source::of(database)).collect()
}

impl Process {
    /// Starts what finds the nodes of the configured databases, unless it runs.
    pub(crate) fn discover(self: &Arc<Self>) {
        let mut tasks = self.discovery.lock();
        for source in sources(&self.config()) {
            if tasks.contains_key(&source) {
                continue;
            }
            let (first, answered) = watch::channel(false);
            tasks.insert(source.clone(), answered);
            self.runtime.spawn(find(Arc::downgrade(self), source, first));
        }
    }

    /// Waits until the nodes of a database have been looked for, once.
    pub(crate) async fn nodes_were_looked_for(&self, database: &Database) {
        for source in Source::of(database) {
            let task = self.discovery.lock().get(&source).cloned();
            if let Some(mut answered) = task {
                // Fails when the task has ended: nobody asks for these nodes any more.
                let _ = answered.wait_for(|answered| *answered).await;
            }
        }
    }

    /// False, and its task is to end, if no database needs this source any more.
    fn is_needed(&self, source: &Source) -> bool {
        // Whoever needs it again waits for this, and starts another task.
        let mut tasks = self.discovery.lock();
        let needed = sources(&self.config()).contains(source);
        if !needed {
            tasks.remove(source);
            self.pools.forget_found(source);
        }
        needed
    }

    /// Puts in force what was found; `None`: nothing was.
    fn put_found(self: &Arc<Self>, source: &Source, mut found: Option<Found>) {
        loop {
            let live = self.live();
            let context = self.context(&live);
            let renewed = self.pools.found(context, source, found.take());
            if !renewed.is_empty() {
                self.take_in(&renewed);
                self.refresh();
            }
            // A reload meanwhile has seen it, or must not be undone.
            if Arc::ptr_eq(&self.config(), &live.config) {
                return;
            }
            found = self.pools.found_last(source);
        }
    }
}

/// Looks for nodes as long as the configuration names their source.
async fn find(process: Weak<Process>, source: Source, first: watch::Sender<bool>) {
    let mut last: Option<Result<Found, DiscoveryError>> = None;
    loop {
        let Some(this) = process.upgrade() else { return };
        if !this.is_needed(&source) {
            return;
        }
        let tls = this.live().server_tls;
        drop(this);
        let asked = Instant::now();
        let answer = source.look_up(&tls, LIMIT).await;
        let Some(this) = process.upgrade() else { return };
        if last.as_ref() != Some(&answer) {
            log(&source, last.as_ref(), &answer);
            this.put_found(&source, answer.as_ref().ok().cloned());
            last = Some(answer);
        }
        first.send_replace(true);
        let config = this.config();
        let interval = config.settings.node_discovery_interval;
        let urgent = this.pools.lacks_primary(&config, &source);
        let next = asked + if urgent { URGENT.min(interval) } else { interval };
        tokio::select! {
            () = tokio::time::sleep_until(next) => {}
            () = this.discovery.wake.notified() => tokio::time::sleep_until(asked + SHORTEST).await,
        }
    }
}

fn log(
    source: &Source,
    last: Option<&Result<Found, DiscoveryError>>,
    answer: &Result<Found, DiscoveryError>,
) {
    match answer {
        Ok(found) => {
            let nodes: Vec<String> = found.nodes.iter().map(ToString::to_string).collect();
            let leader = found.leader.as_ref().map(|leader| format!("; the leader is {leader}"));
            tracing::info!("{source}: found {}{}", nodes.join(", "), leader.unwrap_or_default());
        }
        Err(error) => {
            let known = matches!(last, Some(Ok(_)));
            let kept = if known { "; the nodes that were found last stay in force" } else { "" };
            tracing::warn!("{source}: nodes cannot be found: {error}{kept}");
        }
    }
}
