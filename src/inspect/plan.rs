//! Which logins a configuration leads to.

use std::{collections::BTreeSet, sync::Arc};

use super::login_limit;
use crate::{
    cluster::discovery::{self, FoundBySource},
    config::{AuthType, Config, Database, NodeAddress, User},
    net::tls::ServerTls,
    pool::registry::{Context, login_spec, lookup_specs},
    server::{ConnectSpec, Credentials},
};

/// Most logins that are tried: a server should not be flooded.
const MOST: usize = 2000;
/// Where the logins of `*` are tried, whose clients name the database.
const ANY_DATABASE: &str = "postgres";

/// Everything that is to be tried.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) attempts: Vec<Attempt>,
    pub(super) lookups: Vec<LookupAttempt>,
    /// What cannot be tried, and why.
    pub(super) notes: Vec<String>,
}

/// The login of a user at one of a database's servers.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    pub(super) database: Arc<Database>,
    pub(super) place: NodeAddress,
    /// Who logs in at the server.
    pub(super) user: String,
    pub(super) spec: ConnectSpec,
    /// The secret comes from the client, or is proved by it: what pooler itself has does not tell.
    pub(super) needs_client: bool,
    /// A user of the console, who need not be known at a server.
    pub(super) operator: bool,
}

/// The question of auth_query.
#[derive(Clone, Debug)]
pub(super) struct LookupAttempt {
    /// As clients ask for it.
    pub(super) database: String,
    pub(super) auth_user: String,
    pub(super) query: String,
    pub(super) specs: Vec<ConnectSpec>,
}

/// The places that a database's pools lead to.
pub(super) fn places(database: &Database, found: &FoundBySource) -> Vec<NodeAddress> {
    if database.has_nodes() { discovery::nodes_of(database, found) } else { database.places() }
}

pub(super) fn plan(config: &Config, tls: &Arc<ServerTls>, found: &FoundBySource) -> Plan {
    let context = Context { config, tls, names: None };
    let mut plan = Plan::default();
    for entry in config.databases.values() {
        let database = concrete(entry, &mut plan.notes);
        let users = users(config, &database, &mut plan.notes);
        // What was not found has been told.
        let places = places(&database, found).into_iter().filter(|place| place.at != crate::config::At::Each);
        for place in places {
            for user in &users {
                plan.attempts.push(attempt(context, &database, place.clone(), user));
            }
        }
        plan.add_lookup(context, entry);
    }
    let untried = plan.attempts.len().saturating_sub(MOST);
    if untried > 0 {
        plan.attempts.truncate(MOST);
        plan.notes.push(format!("{untried} further logins are not tried: {MOST} are enough for one check"));
    }
    plan
}

/// The entry, or what `*` makes of a name.
fn concrete(entry: &Arc<Database>, notes: &mut Vec<String>) -> Arc<Database> {
    if entry.name != "*" || entry.dbname.is_some() {
        return Arc::clone(entry);
    }
    notes.push(format!("database \"*\": tried with {ANY_DATABASE}, in the place of what clients ask for"));
    Arc::new(Database { dbname: Some(ANY_DATABASE.to_owned()), ..Database::clone(entry) })
}

/// Who logs in at the servers of a database, as far as the configuration tells.
fn users(config: &Config, database: &Database, notes: &mut Vec<String>) -> Vec<String> {
    if let Some(user) = &database.user {
        return vec![user.clone()];
    }
    let known: Vec<String> = config
        .users
        .values()
        .filter(|user| user.password.is_some() || logs_in_without(config, user))
        .map(|user| user.name.clone())
        .collect();
    if known.is_empty() {
        notes.push(format!(
            "database {}: no user is known whose login could be tried",
            database.name.escape_debug()
        ));
    }
    known
}

/// A user in whose entry is no password gets into pooler all the same.
fn logs_in_without(config: &Config, user: &User) -> bool {
    match config.settings.auth_type {
        // Looked up, or refused.
        AuthType::ScramSha256 | AuthType::Md5 | AuthType::Plain => false,
        AuthType::Hba => config.lookup(&user.name, "").is_none(),
        _ => true,
    }
}

fn attempt(context: Context<'_>, database: &Arc<Database>, place: NodeAddress, user: &str) -> Attempt {
    let config = context.config;
    let mut spec = login_spec(context, database, user, &place);
    spec.timeout = login_limit(spec.timeout);
    // Failures of it are the log's; here it would only hide them.
    spec.connect_query = None;
    let proves = !matches!(config.settings.auth_type, AuthType::Trust | AuthType::Cert | AuthType::Any);
    let settings = &config.settings;
    let operator = settings.admin_users.iter().chain(&settings.stats_users).any(|name| name == user);
    Attempt {
        needs_client: spec.credentials == Credentials::None && proves && database.password.is_none(),
        operator: operator && database.user.is_none(),
        database: Arc::clone(database),
        place,
        user: user.to_owned(),
        spec,
    }
}

impl Plan {
    fn add_lookup(&mut self, context: Context<'_>, entry: &Database) {
        let config = context.config;
        let name = if entry.name == "*" { ANY_DATABASE } else { &entry.name };
        let Some(lookup) = config.lookup(&stranger(config), name) else { return };
        let (database, auth_user) = (lookup.database.name.clone(), lookup.auth_user.clone());
        if self.lookups.iter().any(|known| {
            (&known.database, &known.auth_user, &known.query) == (&database, &auth_user, &lookup.query)
        }) {
            return;
        }
        let mut specs = lookup_specs(context, &lookup.database, &auth_user);
        specs.iter_mut().for_each(|spec| spec.timeout = login_limit(spec.timeout));
        self.lookups.push(LookupAttempt { database, auth_user, query: lookup.query, specs });
    }
}

/// Somebody in no list.
fn stranger(config: &Config) -> String {
    let names: BTreeSet<&str> = config.users.keys().map(String::as_str).collect();
    let mut name = "somebody".to_owned();
    while names.contains(name.as_str()) {
        name.push('_');
    }
    name
}
