//! The members of a Patroni cluster, by `GET /cluster` of its REST API.
//!
//! Source: Patroni docs, "Patroni REST API", "Cluster status endpoints"; "Dynamic Configuration Settings", tags.

use std::{sync::Arc, time::Duration};

use serde::Deserialize;
use serde_json::Value;
use tokio::task::JoinSet;

use super::{DiscoveryError, Found, http};
use crate::{
    config::{MOST_NODES, NodeAddress, PatroniApi},
    net::tls::ServerTls,
};

/// After so long without an answer the next API is asked too.
const STAGGER: Duration = Duration::from_millis(500);

#[derive(Debug, Deserialize)]
struct ClusterStatus {
    members: Vec<Member>,
}

#[derive(Debug, Deserialize)]
struct Member {
    #[serde(default)]
    role: String,
    #[serde(default)]
    state: String,
    /// Missing while it has never run.
    host: Option<String>,
    port: Option<u16>,
    #[serde(default)]
    tags: Value,
}

/// Asks one API after the other, until one has an answer that makes sense.
pub(super) async fn look_up(
    apis: &[PatroniApi],
    tls: &Arc<ServerTls>,
    limit: Duration,
) -> Result<Found, DiscoveryError> {
    let mut troubles = Vec::new();
    match tokio::time::timeout(limit, first_answer(apis, tls, &mut troubles)).await {
        Ok(Some(found)) => return Ok(found),
        Ok(None) => {}
        Err(_) => troubles.push(format!("no answer within {limit:?}")),
    }
    Err(DiscoveryError::Lookup(troubles.join("; ")))
}

async fn first_answer(
    apis: &[PatroniApi],
    tls: &Arc<ServerTls>,
    troubles: &mut Vec<String>,
) -> Option<Found> {
    let mut asked = JoinSet::new();
    let mut left = apis.iter().cloned();
    loop {
        if let Some(api) = left.next() {
            let tls = Arc::clone(tls);
            asked.spawn(async move { ask(&api, &tls).await.map_err(|error| format!("{api}: {error}")) });
        }
        let patience = if left.len() > 0 { STAGGER } else { Duration::MAX };
        match tokio::time::timeout(patience, asked.join_next()).await {
            Ok(Some(Ok(Ok(found)))) => return Some(found),
            Ok(Some(Ok(Err(trouble)))) => troubles.push(trouble),
            Ok(Some(Err(ended))) => troubles.push(ended.to_string()),
            Ok(None) => return None,
            // The next one is asked too.
            Err(_) => {}
        }
    }
}

async fn ask(api: &PatroniApi, tls: &ServerTls) -> Result<Found, DiscoveryError> {
    let body = http::get(api, "/cluster", tls).await;
    read(&body.map_err(|error| DiscoveryError::Lookup(error.to_string()))?)
}

fn read(body: &[u8]) -> Result<Found, DiscoveryError> {
    let nonsense =
        |error: serde_json::Error| DiscoveryError::Lookup(format!("not the answer of Patroni: {error}"));
    let status: ClusterStatus = serde_json::from_slice(body).map_err(nonsense)?;
    let mut found = Found::default();
    for member in &status.members {
        let Some(node) = member.node() else { continue };
        if found.nodes.iter().any(|known| known.is_same(&node)) {
            continue;
        }
        if member.leads() {
            found.leader = Some(node.clone());
        }
        found.nodes.push(node);
    }
    found.nodes.sort_by(|a, b| (&a.host, a.port).cmp(&(&b.host, b.port)));
    match found.nodes.len() {
        0 => Err(DiscoveryError::Lookup("Patroni names no member that has an address".to_owned())),
        1..=MOST_NODES => Ok(found),
        _ => Err(DiscoveryError::TooMany),
    }
}

impl Member {
    fn node(&self) -> Option<NodeAddress> {
        let host = self.host.as_deref().filter(|host| !host.is_empty() && !host.contains('\0'))?;
        let port = self.port.filter(|port| *port > 0)?;
        let weight = if self.has_tag("noloadbalance") { 0 } else { 1 };
        Some(NodeAddress { weight, ..NodeAddress::new(host, port) })
    }

    /// It keeps the lock, and its server is up. The leader of a standby cluster is a standby.
    fn leads(&self) -> bool {
        matches!(self.role.as_str(), "leader" | "primary" | "master") && self.state == "running"
    }

    /// As Patroni reads tags: true, or a text that says so.
    fn has_tag(&self, name: &str) -> bool {
        match self.tags.get(name) {
            Some(Value::Bool(set)) => *set,
            Some(Value::String(text)) => {
                ["true", "yes", "on", "1"].contains(&text.to_ascii_lowercase().as_str())
            }
            Some(Value::Number(number)) => number.as_u64() == Some(1),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(body: &str) -> Result<(Vec<String>, Option<String>), String> {
        let found = read(body.as_bytes()).map_err(|error| error.to_string())?;
        let nodes = found.nodes.iter().map(|node| format!("{node} {}", node.weight)).collect();
        Ok((nodes, found.leader.map(|leader| leader.to_string())))
    }

    #[test]
    fn members_are_read_with_their_tags_and_their_leader() {
        let body = r#"{"members": [
            {"name": "c", "role": "replica", "state": "streaming", "api_url": "http://10.0.0.3:8008/patroni",
             "host": "10.0.0.3", "port": 5432, "timeline": 4, "lag": 0, "tags": {"noloadbalance": true}},
            {"name": "a", "role": "leader", "state": "running", "host": "10.0.0.1", "port": 5432, "timeline": 4},
            {"name": "b", "role": "sync_standby", "state": "running", "host": "10.0.0.2", "port": 5433,
             "lag": "unknown", "tags": {"noloadbalance": "no", "nofailover": true}},
            {"name": "never", "role": "uninitialized", "state": "stopped"},
            {"name": "odd", "role": "replica", "state": "x", "host": "", "port": 5432}
          ], "scope": "demo"}"#;
        let nodes = ["10.0.0.1:5432 1", "10.0.0.2:5433 1", "10.0.0.3:5432 0"].map(str::to_owned);
        assert_eq!(shown(body), Ok((nodes.to_vec(), Some("10.0.0.1:5432".to_owned()))));
        for (from, to) in [
            (r#""state": "running", "host": "10.0.0.1""#, r#""state": "starting", "host": "10.0.0.1""#),
            (r#""role": "leader""#, r#""role": "standby_leader""#),
        ] {
            assert_eq!(shown(&body.replace(from, to)), Ok((nodes.to_vec(), None)), "{to}");
        }
    }

    #[test]
    fn nonsense_finds_nothing() {
        let many: Vec<String> = (1..=65).map(|port| format!(r#"{{"host":"h","port":{port}}}"#)).collect();
        for body in [
            "",
            "null",
            "[]",
            "{}",
            r#"{"members": []}"#,
            r#"{"members": [{"host": "h"}]}"#,
            r#"{"members": [{"host": "h", "port": 0}]}"#,
            r#"{"members": [{"host": "h", "port": 65536}]}"#,
            r#"{"members": [{"host": 7, "port": 1}]}"#,
            &format!(r#"{{"members": [{}]}}"#, many.join(",")),
            &format!("{}{}", "[".repeat(100_000), "]".repeat(100_000)),
        ] {
            assert!(read(body.as_bytes()).is_err(), "{:.100}", body);
        }
    }
}
