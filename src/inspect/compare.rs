//! The servers of a database, compared with what is expected of them and with each other.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use super::{
    Facts, Login,
    judge::{Concerned, Judge, listed, shown},
    plan::Attempt,
};
use crate::config::{Database, Route};

/// The oldest PostgreSQL that has what nodes are asked for.
const OLDEST: u32 = 10;
/// The oldest that pooler is tested with.
const TESTED: u32 = 15;
/// A replica that is further behind is worth a word: one segment of WAL.
const FAR_BEHIND: u64 = 16 << 20;

impl Judge<'_> {
    /// Roles, versions and what else differs between the servers of a database.
    pub(super) fn database(&mut self, database: &Database) {
        let name = shown(&database.name);
        let mut seen: BTreeMap<String, &Login> = BTreeMap::new();
        let mut users: BTreeSet<String> = BTreeSet::new();
        for (attempt, result) in &self.outcome.logins {
            if attempt.database.name == database.name
                && let Ok(login) = result
            {
                seen.entry(attempt.place.to_string()).or_insert(login);
                users.insert(shown(&attempt.user));
            }
        }
        if seen.is_empty() {
            return;
        }
        let known: Vec<(&str, &Facts)> = seen
            .iter()
            .filter_map(|(place, login)| Some((place.as_str(), login.facts.as_ref().ok()?)))
            .collect();
        let written =
            known.iter().filter(|(_, facts)| !facts.standby).filter_map(|(_, facts)| facts.lsn).max();
        for (place, login) in &seen {
            self.verdict.seen.push(seen_at(&name, place, login, written));
        }
        self.verdict.seen.push(format!("{name}: users who get in: {}", listed(&users)));
        for (place, login) in &seen {
            if let Err(reason) = &login.facts {
                self.warn(
                    format!("{place} (database {name}) does not tell what it is: {}", shown(reason)),
                    "pooler is made for PostgreSQL itself; with what stands in its place not everything may work",
                );
            }
        }
        self.versions(&name, database, &seen);
        if database.has_nodes() {
            self.roles(&name, &known, written);
            self.alike(&name, &known);
            self.watcher(database, &known);
        } else {
            self.hosts(&name, &known);
        }
        self.settings(database);
    }

    fn versions(&mut self, name: &str, database: &Database, seen: &BTreeMap<String, &Login>) {
        let majors: BTreeMap<&str, u32> =
            seen.iter().filter_map(|(place, login)| Some((place.as_str(), major(login)?))).collect();
        for (place, major) in &majors {
            if *major < OLDEST && database.has_nodes() {
                self.error(
                    format!(
                        "{place} (database {name}): PostgreSQL {major} does not tell what nodes are asked for"
                    ),
                    format!(
                        "upgrade it, or use `host` in the place of `nodes`: {OLDEST} is the oldest with nodes"
                    ),
                );
            } else if *major < TESTED {
                self.warn(
                    format!("{place} (database {name}): PostgreSQL {major} is older than what pooler is tested with"),
                    format!("upgrade it: {TESTED} and newer are tested"),
                );
            }
        }
        let different: BTreeSet<u32> = majors.values().copied().collect();
        if different.len() > 1 {
            let list: Vec<String> =
                majors.iter().map(|(place, major)| format!("{place} has {major}")).collect();
            self.warn(
                format!("database {name}: servers of different versions ({})", list.join(", ")),
                "clients are told the version of one of them: use one major version",
            );
        }
    }

    /// A primary and its replicas.
    fn roles(&mut self, name: &str, known: &[(&str, &Facts)], written: Option<u64>) {
        let systems: BTreeSet<&str> = known.iter().map(|(_, facts)| facts.system.as_str()).collect();
        if systems.len() > 1 {
            let list: Vec<String> =
                known.iter().map(|(place, facts)| format!("{place} is {}", shown(&facts.system))).collect();
            self.error(
                format!(
                    "database {name}: its nodes are not one cluster (system identifiers: {})",
                    list.join(", ")
                ),
                "list a primary and its replicas only, or make the others anew with pg_basebackup",
            );
            return;
        }
        let primaries: Vec<&(&str, &Facts)> = known.iter().filter(|(_, facts)| !facts.standby).collect();
        match primaries.as_slice() {
            [] if known.is_empty() => {}
            [] => self.error(
                format!("database {name}: no node that answers is a primary"),
                "add the primary to `nodes`, or promote a replica: what writes would wait for failover_hold, and fail",
            ),
            [_] => {}
            several => {
                let list: Vec<String> =
                    several.iter().map(|(place, f)| format!("{place} on timeline {}", f.timeline)).collect();
                self.error(
                    format!("database {name}: {} nodes take writes ({})", several.len(), list.join(", ")),
                    "stop the one that is not to, and make it a replica: only that of the highest timeline gets requests",
                );
            }
        }
        for (place, facts) in known.iter().filter(|(_, facts)| facts.standby) {
            let behind = behind(facts, written);
            if !facts.streams {
                self.warn(
                    format!("{place} (database {name}): the replica receives nothing from a primary"),
                    "see its log, primary_conninfo, and pg_stat_replication of the primary: what it shows gets old",
                );
            } else if facts.apply_delay > 0 {
                self.warn(
                    format!(
                        "{place} (database {name}): the replica shows everything {} s late (recovery_min_apply_delay)",
                        facts.apply_delay.div_ceil(1000)
                    ),
                    "leave it out of `nodes`, or set that to 0: reads that want what was just written never go there",
                );
            } else if behind.is_some_and(|bytes| bytes > FAR_BEHIND) {
                self.warn(
                    format!(
                        "{place} (database {name}): the replica is {} behind",
                        bytes(behind.unwrap_or_default())
                    ),
                    "see what it waits for (its load, the network, long queries): until then reads go to the primary",
                );
            }
        }
    }

    /// Servers that are not told apart.
    fn hosts(&mut self, name: &str, known: &[(&str, &Facts)]) {
        let standbys: Vec<&str> =
            known.iter().filter(|(_, facts)| facts.standby).map(|(place, _)| *place).collect();
        if !standbys.is_empty() && standbys.len() < known.len() {
            self.warn(
                format!("database {name}: {} of its hosts are replicas ({})", standbys.len(), standbys.join(", ")),
                "any host may get any request, and what writes fails at these: use `nodes` in the place of `host`",
            );
        } else if !standbys.is_empty() && self.config.settings.route != Route::Replica {
            self.warn(
                format!("database {name}: {} takes no writes, it is a replica", standbys.join(", ")),
                "fine for what only reads; otherwise give the primary, or both in `nodes`",
            );
        }
        let systems: BTreeSet<&str> = known.iter().map(|(_, facts)| facts.system.as_str()).collect();
        if systems.len() > 1 {
            self.warn(
                format!("database {name}: its hosts have data of their own each"),
                "any host may get any request: list only hosts of which it does not matter which one answers",
            );
        }
    }

    /// The user by whom nodes are watched may be any.
    fn watcher(&mut self, database: &Database, known: &[(&str, &Facts)]) {
        let blind: BTreeSet<String> = self
            .logins_of(database)
            .filter(|(_, facts)| !facts.monitors && !facts.superuser)
            .map(|(attempt, _)| shown(&attempt.user))
            .collect();
        if !blind.is_empty() && known.iter().any(|(_, facts)| facts.standby) {
            self.verdict.notes.push(format!(
                "database {}: without pg_monitor the timeline of replicas is seen a little later after a failover \
                 (GRANT pg_monitor TO {})",
                shown(&database.name),
                listed(&blind)
            ));
        }
    }

    /// Settings with which clients fare badly. Roles may have their own.
    fn settings(&mut self, database: &Database) {
        let name = shown(&database.name);
        let own = self.config.settings.server_idle_timeout;
        let mut same: BTreeMap<(String, &str), Concerned> = BTreeMap::new();
        let mut add = |attempt: &Attempt, message: String, remedy| {
            let concerned = same.entry((message, remedy)).or_default();
            concerned.users.insert(shown(&attempt.user));
            concerned.places.insert(attempt.place.to_string());
        };
        for (attempt, facts) in self.logins_of(database) {
            let timeout = facts.idle_session_timeout;
            if timeout > 0 && (own.is_zero() || own.as_millis() >= u128::from(timeout)) {
                add(
                    attempt,
                    format!(
                        "sessions that are idle for {} s are ended (idle_session_timeout)",
                        timeout.div_ceil(1000)
                    ),
                    "set server_idle_timeout below that, or ALTER ROLE … SET idle_session_timeout = 0: a request that \
                     meets the end of its session fails",
                );
            }
            if facts.read_only && !facts.standby {
                add(
                    attempt,
                    "default_transaction_read_only is on at the primary".to_owned(),
                    "transactions that write fail there unless they say READ WRITE: set it to off",
                );
            }
            if facts.serializable && facts.standby && database.has_nodes() {
                add(
                    attempt,
                    "default_transaction_isolation is serializable, which replicas refuse".to_owned(),
                    "set another one, or route = \"primary\" for this user: each read is tried there in vain, and runs again on the primary",
                );
            }
        }
        for ((message, remedy), concerned) in same {
            let (users, places) = (listed(&concerned.users), listed(&concerned.places));
            self.warn(format!("user {users}, database {name} at {places}: {message}"), remedy);
        }
    }

    /// The logins that succeeded, with what the server says to each.
    fn logins_of(&self, database: &Database) -> impl Iterator<Item = (&'_ Attempt, &'_ Facts)> + use<'_> {
        let name = database.name.clone();
        let of = self.outcome.logins.iter().filter(move |(attempt, _)| attempt.database.name == name);
        of.filter_map(|(attempt, result)| Some((attempt, result.as_ref().ok()?.facts.as_ref().ok()?)))
    }

    /// Reads go to any of the nodes: all should answer alike.
    fn alike(&mut self, name: &str, known: &[(&str, &Facts)]) {
        let Some((first, rest)) = known.split_first() else { return };
        let remedy = "make them the same on all nodes, or set them for the role or the database: reads go to any of them";
        for (place, facts) in rest {
            let different: Vec<String> = first
                .1
                .settings
                .iter()
                .zip(&facts.settings)
                .filter(|(a, b)| a != b)
                .map(|(a, b)| {
                    format!("{} and {}", shown(a), shown(b.split_once('=').map_or("", |(_, value)| value)))
                })
                .collect();
            if !different.is_empty() {
                self.warn(
                    format!(
                        "database {name}: settings differ between {} and {place}: {}",
                        first.0,
                        different.join(", ")
                    ),
                    remedy,
                );
            }
            if let (Some(a), Some(b)) = (&first.1.collation, &facts.collation)
                && a != b
            {
                self.warn(
                    format!(
                        "database {name}: {} and {place} sort by different versions of their library ({} and {})",
                        first.0,
                        shown(a),
                        shown(b)
                    ),
                    "use the same system on all nodes: an index that was sorted by one may not be found in by the other",
                );
            }
        }
    }
}

fn major(login: &Login) -> Option<u32> {
    match &login.facts {
        Ok(facts) => Some(facts.major()),
        Err(_) => login.version.split(['.', ' ']).next()?.parse().ok(),
    }
}

/// Bytes that a replica has not replayed.
fn behind(facts: &Facts, written: Option<u64>) -> Option<u64> {
    Some(written?.saturating_sub(facts.lsn?))
}

fn bytes(number: u64) -> String {
    match number {
        0..1024 => format!("{number} bytes"),
        1024..1_048_576 => format!("{} kB", number / 1024),
        _ => format!("{} MB", number / (1024 * 1024)),
    }
}

fn seen_at(name: &str, place: &str, login: &Login, written: Option<u64>) -> String {
    let mut out = format!("{name}: {place}");
    match &login.facts {
        Ok(facts) if facts.standby => {
            out.push_str(" replica");
            if let Some(behind) = behind(facts, written) {
                let _ = write!(out, ", {} behind", bytes(behind));
                if let Some(seconds) = facts.replayed_ago.filter(|_| behind > 0) {
                    let _ = write!(out, " (the last commit it has is {seconds} s old)");
                }
            }
        }
        Ok(_) => out.push_str(" primary"),
        Err(_) => out.push_str(" (unknown)"),
    }
    // Packagers say more behind it.
    let version = login.version.split(' ').next().unwrap_or_default();
    let _ = write!(out, ", PostgreSQL {}", shown(version));
    out.push_str(if login.encrypted { ", TLS" } else { ", no TLS" });
    out
}
