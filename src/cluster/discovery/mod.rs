//! Nodes that are found: the addresses of a name, the members of a Patroni cluster.
//!
//! What was found last counts until something else is found: a name server or an API that does not answer takes no node
//! away. Roles are not found here; but who is not Patroni's leader gets no writes.

mod http;
mod names;
mod patroni;

use std::{collections::HashMap, sync::Arc, time::Duration};

use crate::{
    config::{At, Database, MOST_NODES, NodeAddress, PatroniApi},
    net::tls::ServerTls,
};

/// What tells nodes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// The addresses of this name, with this port.
    Name(String, u16),
    /// Any of these.
    Patroni(Vec<PatroniApi>),
}

/// Nodes that were found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Always in the same order.
    pub nodes: Vec<NodeAddress>,
    /// The only node that may take writes; `None`: that is not known here.
    pub leader: Option<NodeAddress>,
}

/// Why nothing was found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiscoveryError {
    #[error("{0}")]
    Lookup(String),
    #[error("the name has no address")]
    NoAddress,
    #[error("more than {MOST_NODES} nodes")]
    TooMany,
}

/// Everything that was found, by what told it.
pub type FoundBySource = HashMap<Source, Found>;

impl Source {
    /// What tells nodes of this database.
    pub fn of(database: &Database) -> Vec<Self> {
        if !database.patroni.is_empty() {
            return vec![Self::Patroni(database.patroni.clone())];
        }
        let each = database.nodes.iter().filter(|node| node.at == At::Each);
        each.map(|node| Self::Name(node.host.clone(), node.port)).collect()
    }

    /// Asks for them once.
    pub async fn look_up(&self, tls: &Arc<ServerTls>, limit: Duration) -> Result<Found, DiscoveryError> {
        match self {
            Self::Name(name, port) => names::look_up(name, *port, limit).await,
            Self::Patroni(apis) => patroni::look_up(apis, tls, limit).await,
        }
    }
}

/// As in logs.
impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Name(name, port) => write!(f, "{name}:{port}"),
            Self::Patroni(apis) => match apis.first() {
                Some(first) => write!(f, "Patroni at {first}"),
                None => f.write_str("Patroni"),
            },
        }
    }
}

/// The nodes of a database, as far as they have been found. For what has not there is one that nobody can connect to.
pub fn nodes_of(database: &Database, found: &FoundBySource) -> Vec<NodeAddress> {
    if !database.patroni.is_empty() {
        let members = found.get(&Source::Patroni(database.patroni.clone()));
        let nobody =
            || NodeAddress { at: At::Each, ..NodeAddress::new(database.host.clone(), database.port) };
        return members.map_or_else(|| vec![nobody()], |members| members.nodes.clone());
    }
    let mut nodes: Vec<NodeAddress> = Vec::new();
    // One server under two names would be two primaries.
    let mut add = |node: NodeAddress| {
        let twice =
            node.ip().is_some_and(|ip| nodes.iter().any(|n| (n.ip(), n.port) == (Some(ip), node.port)));
        if !twice && nodes.len() < MOST_NODES {
            nodes.push(node);
        }
    };
    for entry in &database.nodes {
        match found.get(&Source::Name(entry.host.clone(), entry.port)).filter(|_| entry.at == At::Each) {
            Some(each) => {
                each.nodes.iter().for_each(|node| add(NodeAddress { weight: entry.weight, ..node.clone() }));
            }
            None => add(entry.clone()),
        }
    }
    nodes
}

/// The only node of a database that may take writes, as far as that was found.
pub fn leader_of(database: &Database, found: &FoundBySource) -> Option<NodeAddress> {
    Source::of(database).iter().find_map(|source| found.get(source)?.leader.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_of_a_marked_name_is_a_node() {
        let marked = NodeAddress { at: At::Each, weight: 3, ..NodeAddress::new("many", 5432) };
        let database = Database {
            nodes: vec![NodeAddress::new("10.0.0.2", 5432), marked.clone(), NodeAddress::new("one", 5432)],
            ..Database::default()
        };
        let mut found = FoundBySource::new();
        let shown = |found: &FoundBySource| -> Vec<String> {
            let nodes = nodes_of(&database, found);
            nodes.iter().map(|node| format!("{node} {}", node.weight)).collect()
        };
        assert_eq!(shown(&found), ["10.0.0.2:5432 1", "many(not found yet):5432 3", "one:5432 1"]);
        assert_eq!(Source::of(&database), [Source::Name("many".to_owned(), 5432)]);
        let at = |ip: &str| NodeAddress { at: At::Ip(ip.parse().unwrap()), ..NodeAddress::new("many", 5432) };
        let nodes = vec![at("10.0.0.1"), at("10.0.0.2"), at("10.0.0.3")];
        found.insert(Source::Name("many".to_owned(), 5432), Found { nodes, leader: None });
        assert_eq!(
            shown(&found),
            ["10.0.0.2:5432 1", "many(10.0.0.1):5432 3", "many(10.0.0.3):5432 3", "one:5432 1"]
        );
    }
}
