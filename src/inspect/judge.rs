//! What the outcome of all logins means: what would fail, what might, and what to do about it.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Facts, Outcome,
    capacity::{Pools, UNLIMITED, processes},
    plan::Attempt,
    trouble::About,
    verdict::{Finding, Verdict},
};
use crate::{
    config::{Config, Database},
    error::Printable,
};

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

pub(super) struct Judge<'a> {
    pub(super) config: &'a Config,
    pub(super) outcome: &'a Outcome,
    pub(super) verdict: Verdict,
}

fn databases(outcome: &Outcome) -> Vec<&Database> {
    let by_name: BTreeMap<&str, &Database> = outcome
        .logins
        .iter()
        .map(|(attempt, _)| (attempt.database.name.as_str(), &*attempt.database))
        .collect();
    by_name.into_values().collect()
}

pub(super) fn shown(text: &str) -> String {
    Printable(text).to_string()
}

pub(super) fn listed(texts: &BTreeSet<String>) -> String {
    texts.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}

/// What the same trouble concerns.
#[derive(Default)]
pub(super) struct Concerned {
    pub(super) databases: BTreeSet<String>,
    pub(super) places: BTreeSet<String>,
    pub(super) users: BTreeSet<String>,
    pub(super) serious: bool,
}

impl Judge<'_> {
    pub(super) fn error(&mut self, message: String, remedy: impl Into<String>) {
        self.verdict.findings.push(Finding::error(message, remedy));
    }

    pub(super) fn warn(&mut self, message: String, remedy: impl Into<String>) {
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
