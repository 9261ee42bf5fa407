//! A primary, its replica, and a monitor that watches them.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use pooler::{
    cluster::{Cluster, MonitorSettings, NodeAddress, Role, monitor},
    config::{At, Settings, SslMode},
    demo::{
        cluster::{Binaries, Cluster as Servers, ClusterOptions, Node},
        process::signal,
    },
    net::tls::ServerTls,
    server::{ConnectSpec, Credentials, Keepalive, OwnSession, ServerAddress},
};

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The program's settings of the cluster, durable enough to have flushed what was acknowledged.
pub(crate) fn servers(conf: &[&str]) -> Servers {
    let mut options = ClusterOptions::new(Binaries::newest().unwrap());
    options.replica = true;
    options.conf = ["synchronous_commit = on"].iter().chain(conf).map(|line| (*line).to_owned()).collect();
    Servers::start(&options, &|| false).unwrap()
}

fn spec(dir: &Path, port: u16, user: &str) -> ConnectSpec {
    ConnectSpec {
        address: ServerAddress {
            host: dir.to_str().unwrap().to_owned(),
            port,
            at: At::Any,
            sslmode: SslMode::Disable,
            tls: Arc::new(ServerTls::build(&Settings::default()).unwrap()),
            keepalive: Keepalive::default(),
            names: None,
        },
        user: user.to_owned(),
        database: "postgres".to_owned(),
        credentials: Credentials::None,
        parameters: Vec::new(),
        connect_query: None,
        timeout: PATIENCE,
    }
}

/// Opens a session at one server.
pub(crate) async fn session(servers: &Servers, node: &Node) -> Session {
    Session(OwnSession::connect(&spec(servers.dir(), node.port, "postgres")).await.unwrap())
}

pub(crate) struct Session(OwnSession);

impl Session {
    /// First column of the first row.
    pub(crate) async fn ask(&mut self, sql: &str) -> Option<String> {
        let rows = self.0.query(sql, PATIENCE).await.unwrap();
        rows.into_iter().next().and_then(|row| row.into_iter().next()).flatten()
    }
}

/// Watches the primary (node 0) and the replica (node 1).
pub(crate) fn watch(servers: &Servers, user: &str, settings: MonitorSettings) -> Arc<Cluster> {
    let ports = [servers.primary.port, servers.replica.as_ref().unwrap().port];
    let node = |port| NodeAddress::new("server", port);
    let cluster = Arc::new(Cluster::new("postgres".to_owned(), ports.map(node).to_vec()));
    let specs = ports.map(|port| spec(servers.dir(), port, user));
    tokio::spawn(monitor(cluster.clone(), move |node| specs[node].clone(), move || settings));
    cluster
}

pub(crate) fn roles(cluster: &Cluster) -> Vec<Role> {
    cluster.nodes.iter().map(pooler::cluster::Node::role).collect()
}

/// Waits until a condition holds; how long that took.
pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) -> Duration {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    start.elapsed()
}

/// Waits for roles; how long that took.
pub(crate) async fn until_roles(cluster: &Cluster, expected: &[Role]) -> Duration {
    let start = Instant::now();
    loop {
        let generation = cluster.generation();
        if roles(cluster) == expected {
            return start.elapsed();
        }
        let waiting = tokio::time::timeout(PATIENCE, cluster.changed_since(generation)).await;
        let told: Vec<_> = cluster.nodes.iter().map(pooler::cluster::Node::report).collect();
        waiting.unwrap_or_else(|_| panic!("{:?}, not {expected:?}: {told:#?}", roles(cluster)));
    }
}

/// Stops or continues a server with all its processes, as if its machine hung.
pub(crate) fn freeze(node: &Node, name: &str) {
    let pid = node.pid().unwrap();
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    signal(pid, name).unwrap();
    for child in children.split_whitespace() {
        // It may have ended.
        let _ = signal(child.parse().unwrap(), name);
    }
}
