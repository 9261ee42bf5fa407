//! What a reload changes, so that connections are kept wherever they can be.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Change, Config, Database};

/// Names of what differs between two configurations, sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    pub databases_added: Vec<String>,
    /// Their clients and servers have to go.
    pub databases_removed: Vec<String>,
    /// Reached in another way: servers that are open have to go when they become free. With `*` in it: also
    /// the databases that `*` made.
    pub databases_to_recycle: Vec<String>,
    /// Other limits, modes or passwords; servers stay.
    pub databases_changed: Vec<String>,
    pub users_added: Vec<String>,
    pub users_removed: Vec<String>,
    pub users_changed: Vec<String>,
    /// Other peers, or others of their addresses.
    pub peers_changed: bool,
    /// Settings that take effect at once.
    pub settings_changed: Vec<&'static str>,
    /// Settings that differ but need a restart.
    pub needs_restart: Vec<&'static str>,
}

/// A change of these concerns connections to every server.
const SERVER_TLS: [&str; 6] = [
    "server_tls_ca_file",
    "server_tls_cert_file",
    "server_tls_key_file",
    "server_tls_protocols",
    "server_tls_ciphers",
    "server_tls13_ciphers",
];

impl Config {
    /// What changes when `new` takes the place of `old`. Files are compared by name, not by content, except
    /// for `auth_file`, whose users are part of the configuration.
    pub fn diff(old: &Self, new: &Self) -> Diff {
        let mut diff = Diff::default();
        for row in old.settings.differences(&new.settings) {
            match row.change {
                Change::Live => diff.settings_changed.push(row.name),
                Change::Restart => diff.needs_restart.push(row.name),
            }
        }
        let tls_changed = diff.settings_changed.iter().any(|name| SERVER_TLS.contains(name));
        diff.databases_added = missing(&new.databases, &old.databases);
        diff.databases_removed = missing(&old.databases, &new.databases);
        for (name, database) in &old.databases {
            let Some(changed) = new.databases.get(name) else { continue };
            let same_way = !tls_changed
                && old.server_tls_sslmode(database) == new.server_tls_sslmode(changed)
                && same_connection(database, changed);
            if !same_way {
                diff.databases_to_recycle.push(name.clone());
            } else if database != changed {
                diff.databases_changed.push(name.clone());
            }
        }
        diff.users_added = missing(&new.users, &old.users);
        diff.users_removed = missing(&old.users, &new.users);
        diff.peers_changed = old.peers != new.peers;
        let differs = |(name, user): &(&String, _)| new.users.get(*name).is_some_and(|other| other != *user);
        diff.users_changed = old.users.iter().filter(differs).map(|(name, _)| name.clone()).collect();
        diff
    }
}

impl Diff {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

fn missing<T>(here: &BTreeMap<String, Arc<T>>, there: &BTreeMap<String, Arc<T>>) -> Vec<String> {
    here.keys().filter(|name| !there.contains_key(*name)).cloned().collect()
}

/// Whether a connection made for one can go on serving the other. The password is not part of it: who is
/// logged in stays logged in, as in PgBouncer.
fn same_connection(a: &Database, b: &Database) -> bool {
    a.host == b.host
        && a.port == b.port
        && a.hosts == b.hosts
        && a.load_balance_hosts == b.load_balance_hosts
        && a.nodes == b.nodes
        && a.patroni == b.patroni
        && a.server_dbname() == b.server_dbname()
        && a.user == b.user
        && a.connect_query == b.connect_query
        && a.server_parameters == b.server_parameters
}
