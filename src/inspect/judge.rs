//! What the outcome of all logins means: what would fail, what might, and what to do about it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    path::Path,
};

use super::{
    Facts, Login, Outcome,
    capacity::{Pools, UNLIMITED, processes},
    plan::Attempt,
    trouble::About,
};
use crate::{
    config::{Config, Database, Route},
    error::Printable,
};

/// The oldest PostgreSQL that has what nodes are asked for.
const OLDEST: u32 = 10;
/// The oldest that pooler is tested with.
const TESTED: u32 = 15;
/// A replica that is further behind is worth a word: one segment of WAL.
const FAR_BEHIND: u64 = 16 << 20;

/// One thing that is worth telling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    /// Something would fail.
    pub(super) serious: bool,
    pub(super) message: String,
    pub(super) remedy: String,
}

impl Finding {
    pub(super) fn error(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { serious: true, message: message.into(), remedy: remedy.into() }
    }

    pub(super) fn warning(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { serious: false, ..Self::error(message, remedy) }
    }
}

/// Everything that is told.
#[derive(Clone, Debug, Default)]
pub(super) struct Verdict {
    /// What was seen.
    pub(super) seen: Vec<String>,
    pub(super) findings: Vec<Finding>,
    pub(super) notes: Vec<String>,
    tried: usize,
    succeeded: usize,
}

impl Verdict {
    pub(super) fn of(findings: Vec<Finding>) -> Self {
        Self { findings, ..Self::default() }
    }

    pub(super) fn would_fail(&self) -> bool {
        self.findings.iter().any(|finding| finding.serious)
    }

    /// As it is printed.
    pub(super) fn text(&self, path: &Path) -> String {
        let mut out = String::new();
        let mut line = |text: &str| {
            out.push_str(text);
            out.push('\n');
        };
        self.seen.iter().for_each(|seen| line(seen));
        let (errors, warnings): (Vec<_>, Vec<_>) = self.findings.iter().partition(|finding| finding.serious);
        for (word, findings) in [("error", &errors), ("warning", &warnings)] {
            for finding in findings {
                line(&format!("{word}: {}\n  {}", finding.message, finding.remedy));
            }
        }
        self.notes.iter().for_each(|note| line(&format!("note: {note}")));
        let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        line(&format!(
            "{}: {} of {} succeed ({}, {})",
            path.display(),
            self.succeeded,
            count(self.tried, "login"),
            count(errors.len(), "error"),
            count(warnings.len(), "warning"),
        ));
        out
    }
}

/// Makes findings of everything.
pub(super) fn judge(
    config: &Config,
    outcome: &Outcome,
    notes: Vec<String>,
    findings: Vec<Finding>,
) -> Verdict {
    let mut judge = Judge { config, outcome, verdict: Verdict { notes, findings, ..Verdict::default() } };
    let lookups = outcome.lookups.iter().filter(|(_, result)| result.is_ok()).count();
    judge.verdict.tried = outcome.logins.len() + outcome.lookups.len();
    judge.verdict.succeeded = outcome.logins.iter().filter(|(_, result)| result.is_ok()).count() + lookups;
    judge.logins();
    judge.lookups();
    for database in databases(outcome) {
        judge.database(database);
    }
    judge.servers();
    judge.verdict
}

struct Judge<'a> {
    config: &'a Config,
    outcome: &'a Outcome,
    verdict: Verdict,
}

fn databases(outcome: &Outcome) -> Vec<&Database> {
    let by_name: BTreeMap<&str, &Database> = outcome
        .logins
        .iter()
        .map(|(attempt, _)| (attempt.database.name.as_str(), &*attempt.database))
        .collect();
    by_name.into_values().collect()
}

fn shown(text: &str) -> String {
    Printable(text).to_string()
}

fn listed(texts: &BTreeSet<String>) -> String {
    texts.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}

/// What the same trouble concerns.
#[derive(Default)]
struct Concerned {
    databases: BTreeSet<String>,
    places: BTreeSet<String>,
    users: BTreeSet<String>,
    serious: bool,
}

impl Judge<'_> {
    fn error(&mut self, message: String, remedy: impl Into<String>) {
        self.verdict.findings.push(Finding::error(message, remedy));
    }

    fn warn(&mut self, message: String, remedy: impl Into<String>) {
        self.verdict.findings.push(Finding::warning(message, remedy));
    }

    fn gets_in(&self, is: impl Fn(&Attempt) -> bool) -> bool {
        self.outcome.logins.iter().any(|(attempt, result)| result.is_ok() && is(attempt))
    }

    /// Logins that failed, the same ones together.
    fn logins(&mut self) {
        let mut same: BTreeMap<(About, String, String, String), Concerned> = BTreeMap::new();
        let (mut operators, mut clients) = (BTreeSet::new(), BTreeSet::new());
        for (attempt, result) in &self.outcome.logins {
            let Err(trouble) = result else { continue };
            let about = trouble.about(attempt.needs_client);
            let user = shown(&attempt.user);
            match about {
                // Of these nothing was to be expected.
                About::User | About::Access if attempt.operator => {
                    operators.insert(user);
                    self.verdict.tried -= 1;
                    continue;
                }
                About::Client => {
                    clients.insert(user);
                    self.verdict.tried -= 1;
                    continue;
                }
                _ => {}
            }
            let subject = match about {
                About::Place => attempt.place.to_string(),
                About::Database => shown(&attempt.database.name),
                _ => user.clone(),
            };
            let remedy = trouble.remedy(&attempt.user, attempt.database.server_dbname());
            let concerned = same.entry((about, subject, trouble.message(), remedy)).or_default();
            concerned.databases.insert(shown(&attempt.database.name));
            concerned.places.insert(attempt.place.to_string());
            concerned.users.insert(user);
            // Not everybody has to get in everywhere.
            concerned.serious |= about != About::Access
                || !self.gets_in(|other| other.user == attempt.user)
                || !self.gets_in(|other| other.database.name == attempt.database.name);
        }
        for ((about, subject, message, remedy), concerned) in same {
            let (databases, places) = (listed(&concerned.databases), listed(&concerned.places));
            let text = match about {
                About::Place => format!("{subject} (database {databases}): {message}"),
                About::Database => format!("database {subject} at {places}: {message}"),
                _ => format!("user {subject}, database {databases} at {places}: {message}"),
            };
            let serious = concerned.serious;
            self.verdict.findings.push(Finding { serious, message: text, remedy });
        }
        if !clients.is_empty() {
            self.verdict.notes.push(format!(
                "not tried, as only their clients can log in (with a SCRAM secret or no password here): {}",
                listed(&clients)
            ));
        }
        if !operators.is_empty() {
            self.verdict.notes.push(format!(
                "users of the console who are let in by no database, or not by all: {}",
                listed(&operators)
            ));
        }
    }

    fn lookups(&mut self) {
        for (lookup, result) in &self.outcome.lookups {
            let Err(trouble) = result else { continue };
            let dbname = lookup.specs.first().map_or("", |spec| spec.database.as_str());
            let message = format!(
                "auth_query in database {}, as {}: {}",
                shown(&lookup.database),
                shown(&lookup.auth_user),
                trouble.message()
            );
            let remedy = trouble.remedy(&lookup.auth_user, dbname);
            self.verdict.findings.push(Finding::error(message, remedy));
        }
    }

    /// Roles, versions and what else differs between the servers of a database.
    fn database(&mut self, database: &Database) {
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
            self.watcher(database, &known);
        } else {
            self.hosts(&name, &known);
        }
        for (place, facts) in &known {
            self.settings(&name, place, facts);
        }
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
        for (place, facts) in &primaries {
            if facts.read_only {
                self.warn(
                    format!("{place} (database {name}): default_transaction_read_only is on at the primary"),
                    "transactions that write fail there unless they say READ WRITE: set it to off",
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
            .outcome
            .logins
            .iter()
            .filter(|(attempt, result)| {
                let facts = result.as_ref().ok().and_then(|login| login.facts.as_ref().ok());
                attempt.database.name == database.name && facts.is_some_and(|f| !f.monitors && !f.superuser)
            })
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

    fn settings(&mut self, name: &str, place: &str, facts: &Facts) {
        let (timeout, own) = (facts.idle_session_timeout, self.config.settings.server_idle_timeout);
        if timeout > 0 && (own.is_zero() || own.as_millis() >= u128::from(timeout)) {
            self.warn(
                format!(
                    "{place} (database {name}): the server ends sessions that are idle for {} s (idle_session_timeout)",
                    timeout.div_ceil(1000)
                ),
                "set server_idle_timeout below that, or ALTER ROLE … SET idle_session_timeout = 0: a request that \
                 meets the end of its session fails",
            );
        }
    }

    /// What the pools may take at each server, and what that has.
    fn servers(&mut self) {
        let mut pools: BTreeMap<String, Pools> = BTreeMap::new();
        let mut facts: BTreeMap<String, &Facts> = BTreeMap::new();
        for (attempt, result) in &self.outcome.logins {
            let Ok(login) = result else { continue };
            let place = attempt.place.to_string();
            pools.entry(place.clone()).or_default().add(&attempt.database, &attempt.user);
            if let Ok(known) = &login.facts {
                facts.entry(place).or_insert(known);
            }
        }
        for (place, pools) in &pools {
            if let Some(facts) = facts.get(place) {
                self.room(place, pools, facts);
                self.room_of_roles(place, pools);
            }
        }
    }

    fn room(&mut self, place: &str, pools: &Pools, facts: &Facts) {
        let (demand, own, usable) =
            (pools.demand(self.config), pools.own(self.config), u64::from(facts.usable()));
        let several = match processes(self.config) {
            1 => String::new(),
            number => format!(", {number} processes together"),
        };
        let wanted = if demand >= UNLIMITED { "any number of".to_owned() } else { demand.to_string() };
        let has = format!(
            "{usable} (max_connections {}, {} of them reserved)",
            facts.max_connections, facts.reserved
        );
        self.verdict.seen.push(format!(
            "{place}: {} may take {wanted} connections{several}, and pooler {own} for itself; the server has {has}, {} \
             open now",
            match pools.count() {
                1 => "1 pool".to_owned(),
                number => format!("{number} pools"),
            },
            facts.open
        ));
        if demand.saturating_add(own) > usable {
            let each = usable.saturating_sub(own) / pools.count().max(1) / processes(self.config);
            self.warn(
                format!("{place}: the pools may take {wanted} connections{several}, and the server has {has}"),
                format!(
                    "when all are busy it refuses further ones (53300): raise its max_connections, or let a pool take \
                     no more than {each} (default_pool_size, reserve_pool_size and pinned_pool_size together), or set \
                     max_db_connections or max_user_connections"
                ),
            );
        }
    }

    /// Roles and databases may have limits of their own.
    fn room_of_roles(&mut self, place: &str, pools: &Pools) {
        let (mut roles, mut databases) = (BTreeMap::new(), BTreeMap::new());
        for (attempt, result) in &self.outcome.logins {
            let known = result.as_ref().ok().and_then(|login| login.facts.as_ref().ok());
            let Some(facts) = known.filter(|_| attempt.place.to_string() == place) else { continue };
            if let Some(limit) = facts.role_limit.filter(|_| !facts.superuser) {
                roles.insert(attempt.user.as_str(), limit);
            }
            if let Some(limit) = facts.database_limit.filter(|_| !facts.superuser) {
                databases.insert(attempt.database.server_dbname(), limit);
            }
        }
        for (user, limit) in roles {
            let demand = pools.demand_of_user(self.config, user);
            if demand > u64::from(limit) {
                self.warn(
                    format!("{place}: role {} may have {limit} connections, and its pools more", shown(user)),
                    format!("ALTER ROLE … CONNECTION LIMIT, or set max_user_connections = {limit} for it"),
                );
            }
        }
        for (dbname, limit) in databases {
            let demand = pools.demand_of_database(self.config, dbname);
            if demand > u64::from(limit) {
                self.warn(
                    format!(
                        "{place}: database {} may have {limit} connections, and its pools more",
                        shown(dbname)
                    ),
                    format!("ALTER DATABASE … CONNECTION LIMIT, or set max_db_connections = {limit} for it"),
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
