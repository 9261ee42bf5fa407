//! Pools that nobody has used for long, and databases that only `*` knows, are dropped: pool_idle_timeout,
//! autodb_idle_timeout.
//!
//! A client may come to such a pool at any moment: it finds that the pool has been replaced, and goes to a new one. Pools
//! of databases with nodes stay: these are watched as the first of their users.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Weak, atomic::Ordering},
    time::{Duration, Instant},
};

use super::process::Process;
use crate::{
    config::Config,
    pool::{Pool, PoolKey},
    worker::{
        message::Message,
        report::{PoolRow, ReportKind},
    },
};

/// How often is looked, at the shortest and at the longest.
const SHORTEST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(5);

/// Since when nobody has used a pool; the pool itself, since another one may get its key.
type Unused = HashMap<PoolKey, (Weak<Pool>, Instant)>;

/// Looks at pools now and then, as long as the process lives.
pub(crate) async fn drop_idle_pools(process: Weak<Process>) {
    let mut unused = Unused::new();
    loop {
        let Some(this) = process.upgrade() else { return };
        let config = this.config();
        let pause = pause(&config);
        this.look_at_idle_pools(&config, &mut unused).await;
        drop((this, config));
        tokio::time::sleep(pause).await;
    }
}

fn pause(config: &Config) -> Duration {
    let timeouts = [config.settings.pool_idle_timeout, config.settings.autodb_idle_timeout];
    let shortest = timeouts.into_iter().filter(|timeout| !timeout.is_zero()).min();
    shortest.map_or(LONGEST, |shortest| (shortest / 4).clamp(SHORTEST, LONGEST))
}

impl Process {
    async fn look_at_idle_pools(self: &Arc<Self>, config: &Config, unused: &mut Unused) {
        let now = Instant::now();
        let idle = self.idle_pools(config).await;
        let known = std::mem::take(unused);
        for pool in &idle {
            let since = known.get(&pool.key).filter(|(of, _)| of.as_ptr() == Arc::as_ptr(pool));
            let since = since.map_or(now, |(_, since)| *since);
            unused.insert(pool.key.clone(), (Arc::downgrade(pool), since));
        }
        let mut dropped = HashSet::new();
        for pool in &idle {
            let age = unused.get(&pool.key).map_or(Duration::ZERO, |(_, since)| now - *since);
            if is_over(age, config.settings.pool_idle_timeout) && self.pools.drop_idle(pool) {
                let (database, user, age) = (&pool.key.database, &pool.key.user, age.as_secs());
                tracing::info!(
                    "cleaning up idle pool for user {user} on db {database} because: pool idle timeout (age= {age}s)"
                );
                dropped.insert(pool.key.database.clone());
            }
        }
        for database in self.idle_databases(config, unused, now) {
            tracing::warn!(
                "dropping database '{database}' as it does not exist anymore or inactive auto-database"
            );
            for pool in idle.iter().filter(|pool| pool.key.database == database) {
                self.pools.drop_idle(pool);
            }
            self.pools.forget_database(&database);
        }
        // One of those that are left has to see to what is known of functions.
        for pool in self.pools.all().iter().filter(|pool| dropped.contains(&pool.key.database)) {
            self.look_at_functions_again(pool);
        }
    }

    /// Pools without clients and servers, of those that are not to stay for ever.
    async fn idle_pools(&self, config: &Config) -> Vec<Arc<Pool>> {
        let of_use = !config.settings.pool_idle_timeout.is_zero();
        let of_star = !config.settings.autodb_idle_timeout.is_zero();
        let listeners = self.listeners.all();
        let may_go = |pool: &Arc<Pool>| {
            let key = &pool.key;
            let listens = listeners.iter().any(|l| l.database == key.database && l.user == key.user);
            let is_meant = of_use || (of_star && is_auto(config, &key.database));
            is_meant && pool.seat.is_none() && pool.open_servers() == 0 && !listens
        };
        let mut idle = self.pools.all();
        idle.retain(may_go);
        if idle.is_empty() {
            return idle;
        }
        let mut used = HashSet::new();
        for worker in &self.workers {
            let (reply, answer) = tokio::sync::oneshot::channel();
            worker.send(Message::Report { kind: ReportKind::Pools, reply });
            let Ok(report) = answer.await else { return Vec::new() };
            let rows = report.pools.into_iter().filter(PoolRow::is_used);
            used.extend(rows.map(|row| PoolKey { database: row.database, user: row.user, node: row.node }));
        }
        idle.retain(|pool| !used.contains(&pool.key));
        idle
    }

    /// Databases that `*` has made, of which all pools have been idle for long.
    fn idle_databases(&self, config: &Config, unused: &Unused, now: Instant) -> HashSet<String> {
        let limit = config.settings.autodb_idle_timeout;
        let is_idle =
            |pool: &Pool| unused.get(&pool.key).is_some_and(|(_, since)| is_over(now - *since, limit));
        let all = self.pools.all();
        let names = all.iter().map(|pool| &pool.key.database).filter(|name| is_auto(config, name));
        let mut idle: HashSet<String> = names.cloned().collect();
        for pool in &all {
            // What an operator has said of it is not forgotten.
            let stays = pool.is_paused() || pool.database.disabled.load(Ordering::Acquire);
            if stays || !is_idle(pool) {
                idle.remove(&pool.key.database);
            }
        }
        idle
    }
}

fn is_auto(config: &Config, database: &str) -> bool {
    !config.databases.contains_key(database)
}

fn is_over(age: Duration, limit: Duration) -> bool {
    !limit.is_zero() && age >= limit
}
