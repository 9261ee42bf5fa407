//! What a worker tells the console about its clients, servers and pools.

use std::sync::Arc;

use super::{
    Worker,
    client::{Client, ClientState},
    decision::RequestClass,
    queries::QueryRow,
    routing::Routing,
    server::ServerState,
};
use crate::{
    client::startup::Replication,
    config::{PeerAddr, PoolMode},
    session::bonds::Bond,
};

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReportKind {
    Pools,
    Clients,
    Servers,
    Queries,
}

/// The answer; only what was asked for is filled.
#[derive(Debug, Default)]
pub(crate) struct WorkerReport {
    pub(crate) pools: Vec<PoolRow>,
    pub(crate) clients: Vec<ClientRow>,
    pub(crate) servers: Vec<ServerRow>,
    pub(crate) queries: Vec<QueryRow>,
    /// Clients of the console; told with the pools.
    pub(crate) consoles: u64,
}

/// One shard.
#[derive(Clone, Debug, Default)]
pub(crate) struct PoolRow {
    pub(crate) database: String,
    pub(crate) user: String,
    pub(crate) node: String,
    pub(crate) mode: PoolMode,
    /// Those that do nothing included.
    pub(crate) cl_active: u64,
    pub(crate) cl_idle: u64,
    pub(crate) cl_waiting: u64,
    pub(crate) cl_active_cancel_req: u64,
    pub(crate) sv_active: u64,
    pub(crate) sv_active_cancel: u64,
    pub(crate) sv_being_canceled: u64,
    pub(crate) sv_idle: u64,
    /// Idle for so long that they are checked before use.
    pub(crate) sv_used: u64,
    pub(crate) sv_tested: u64,
    pub(crate) sv_login: u64,
    /// Those of the above that stay with a client between its transactions, by the number of the reason.
    pub(crate) pinned: [u64; Bond::ALL.len()],
    /// Longest wait of those in the queue, in microseconds.
    pub(crate) maxwait: u64,
}

impl PoolRow {
    /// Whether it has clients or servers.
    pub(crate) fn is_used(&self) -> bool {
        self.cl_active + self.cl_waiting + self.open_servers() + self.sv_login > 0
    }

    /// Servers that have been logged in to.
    pub(crate) fn open_servers(&self) -> u64 {
        let at_work = self.sv_active + self.sv_active_cancel + self.sv_being_canceled;
        at_work + self.sv_idle + self.sv_used + self.sv_tested
    }
}

/// One client.
#[derive(Clone, Debug)]
pub(crate) struct ClientRow {
    pub(crate) id: u64,
    pub(crate) user: String,
    pub(crate) database: String,
    pub(crate) replication: &'static str,
    pub(crate) state: &'static str,
    pub(crate) peer: PeerAddr,
    /// Unix time in microseconds.
    pub(crate) connected_at: u64,
    /// Unix time in microseconds of its last change of state.
    pub(crate) request_at: u64,
    /// Microseconds that it has been waiting.
    pub(crate) wait: u64,
    /// Id of its server, if it has one.
    pub(crate) link: Option<u64>,
    pub(crate) tls: String,
    pub(crate) application_name: String,
    pub(crate) prepared_statements: usize,
    /// Where its last request went, and why; empty where there is no choice.
    pub(crate) route: &'static str,
    /// The node that it went to, and what it was taken for; the same.
    pub(crate) node: String,
    pub(crate) class: &'static str,
}

/// One server.
#[derive(Clone, Debug)]
pub(crate) struct ServerRow {
    pub(crate) id: u64,
    pub(crate) user: String,
    pub(crate) database: String,
    pub(crate) replication: &'static str,
    pub(crate) state: &'static str,
    pub(crate) peer: String,
    pub(crate) port: u16,
    pub(crate) local: String,
    pub(crate) local_port: u16,
    pub(crate) connected_at: u64,
    pub(crate) request_at: u64,
    pub(crate) close_needed: bool,
    pub(crate) link: Option<u64>,
    pub(crate) remote_pid: u32,
    pub(crate) tls: String,
    pub(crate) application_name: String,
    pub(crate) prepared_statements: usize,
    /// What keeps it with its client; or nothing.
    pub(crate) pinned: &'static str,
    /// Microseconds that its client has kept it.
    pub(crate) pinned_for: u64,
}

impl Worker {
    /// Rows of one kind.
    pub(super) fn report(&self, kind: ReportKind) -> WorkerReport {
        let mut report = WorkerReport::default();
        match kind {
            ReportKind::Pools => {
                report.pools = self.pool_rows();
                let consoles =
                    self.clients.iter().filter(|(_, c)| matches!(c.state, ClientState::Console(_))).count();
                report.consoles = u64::try_from(consoles).unwrap_or(0);
            }
            ReportKind::Clients => report.clients = self.client_rows(),
            ReportKind::Servers => report.servers = self.server_rows(),
            ReportKind::Queries => report.queries = self.query_rows(),
        }
        report
    }

    fn pool_rows(&self) -> Vec<PoolRow> {
        let mut rows: Vec<PoolRow> = self
            .shards
            .iter()
            .map(|shard| PoolRow {
                database: shard.pool.key.database.clone(),
                user: shard.pool.key.user.clone(),
                node: shard.pool.key.node.clone(),
                mode: shard.settings.mode,
                sv_login: u64::from(shard.connecting),
                maxwait: shard.waiting.front().map_or(0, |w| self.now.saturating_sub(w.since)),
                ..PoolRow::default()
            })
            .collect();
        for (_, client) in &self.clients {
            let Some(row) = rows.get_mut(client.shard) else { continue };
            match client.state {
                ClientState::Waiting
                | ClientState::Held
                | ClientState::LoginWaiting
                | ClientState::TunnelWaiting(_) => row.cl_waiting += 1,
                _ => row.cl_active += 1,
            }
            row.cl_idle += u64::from(matches!(client.state, ClientState::Idle));
        }
        for (_, server) in &self.servers {
            let Some(row) = rows.get_mut(server.shard) else { continue };
            match server.state {
                ServerState::Active(_) if server.cancels > 0 => row.sv_active_cancel += 1,
                ServerState::Active(_) => row.sv_active += 1,
                ServerState::Idle if self.is_to_be_checked(server) => row.sv_used += 1,
                ServerState::Idle | ServerState::Free => row.sv_idle += 1,
                ServerState::Testing | ServerState::Resetting => row.sv_tested += 1,
                // Nobody's, but still at work.
                ServerState::Draining => row.sv_active += 1,
                ServerState::BeingCanceled => row.sv_being_canceled += 1,
            }
            row.cl_active_cancel_req += u64::from(server.cancels);
            if let Some(count) = server.pin.and_then(|pin| row.pinned.get_mut(pin.bond as usize)) {
                *count += 1;
            }
        }
        rows
    }

    fn client_rows(&self) -> Vec<ClientRow> {
        self.clients
            .iter()
            .map(|(_, client)| {
                let waiting = client.state.is_waiting();
                let (routing, node) = self.last_decision(client).unzip();
                let node = node.flatten();
                ClientRow {
                    id: client.session.id,
                    user: client.info.user.clone(),
                    database: client.info.database.clone(),
                    replication: client.info.replication.as_str(),
                    state: match client.state {
                        ClientState::Waiting
                        | ClientState::Held
                        | ClientState::LoginWaiting
                        | ClientState::TunnelWaiting(_) => "waiting",
                        ClientState::Idle => "idle",
                        _ => "active",
                    },
                    peer: client.info.peer.clone(),
                    connected_at: client.info.connected_at,
                    request_at: self.process.clock.unix_of(client.since),
                    wait: if waiting { self.now.saturating_sub(client.since) } else { 0 },
                    link: client.state.server().and_then(|s| self.servers.get(s)).map(|s| s.id),
                    tls: client.info.tls.clone(),
                    application_name: name_in(&client.session.label),
                    prepared_statements: client.session.statement_count(),
                    route: routing.map_or("", |routing| routing.why.as_str()),
                    node: node.cloned().unwrap_or_default(),
                    class: routing.and_then(|routing| routing.class).map_or("", RequestClass::as_str),
                }
            })
            .collect()
    }

    /// What its last request was taken for, and where that went, in databases with nodes.
    fn last_decision<'a>(&'a self, client: &'a Client) -> Option<(&'a Routing, Option<&'a String>)> {
        let routing = client.routing.as_deref().filter(|_| self.cluster_of(client).is_some())?;
        // What waits for a node is with the one before.
        let node = self.shards.get(client.shard).filter(|_| routing.why.has_a_node());
        Some((routing, node.map(|shard| &shard.pool.key.node)))
    }

    fn server_rows(&self) -> Vec<ServerRow> {
        self.servers
            .iter()
            .map(|(_, server)| ServerRow {
                id: server.id,
                user: server.pool.key.user.clone(),
                database: server.pool.key.database.clone(),
                replication: match server.state {
                    ServerState::Active(client) if server.tunnel => {
                        self.clients.get(client).map_or(Replication::None, |c| c.info.replication)
                    }
                    _ => Replication::None,
                }
                .as_str(),
                state: match server.state {
                    ServerState::Idle if self.is_to_be_checked(server) => "used",
                    ServerState::Idle | ServerState::Free => "idle",
                    ServerState::Active(_) if server.cancels > 0 => "active_cancel",
                    ServerState::Active(_) | ServerState::Draining => "active",
                    ServerState::Testing | ServerState::Resetting => "tested",
                    ServerState::BeingCanceled => "being_canceled",
                },
                peer: server.info.peer.clone(),
                port: server.info.peer_port,
                local: server.info.local.clone(),
                local_port: server.info.local_port,
                connected_at: server.info.connected_at,
                request_at: self.process.clock.unix_of(server.since),
                close_needed: server.why_outdated().is_some(),
                link: match server.state {
                    ServerState::Active(client) => self.clients.get(client).map(|c| c.session.id),
                    _ => None,
                },
                remote_pid: server.info.key.pid,
                tls: server.info.tls.clone(),
                application_name: name_in(&server.session.label),
                prepared_statements: server.session.statements.len(),
                pinned: server.session.bonds.reason().map_or("", Bond::as_str),
                pinned_for: server.pin.map_or(0, |pin| self.now.saturating_sub(pin.since)),
            })
            .collect()
    }
}

fn name_in(label: &Arc<crate::session::params::Params>) -> String {
    label.get("application_name").unwrap_or_default().to_owned()
}
