//! The two ends of a session, without their sockets.

use std::sync::Arc;

use super::{
    params::{Label, Labels, Params},
    pipeline::{Pipeline, Undone},
    statements::{ClientStatements, Registry, ServerStatements},
};
use crate::protocol::TransactionStatus;

/// What all sessions of the process share.
#[derive(Debug)]
pub struct Shared {
    pub registry: Registry,
    pub labels: Labels,
}

/// What a client remembers from one transaction to the next.
#[derive(Debug)]
pub struct ClientSession {
    /// Unique in the process.
    pub id: u64,
    pub label: Label,
    /// Named statements; made with the first one.
    pub statements: Option<Box<ClientStatements>>,
    /// The last unnamed Parse (body behind the name), to be repeated on another server.
    pub unnamed: Vec<u8>,
    /// Bytes of a message body that still have to pass to the server.
    pub passing: usize,
    /// Its next message waits for replies.
    pub held: bool,
}

/// What a server connection has been told and still owes.
#[derive(Debug)]
pub struct ServerSession {
    pub label: Label,
    /// The label before the last [`Self::adopt`].
    before: Label,
    /// The label at login: the parameters that the server reports.
    pub reported: Label,
    pub statements: ServerStatements,
    pub pipeline: Pipeline,
    /// Status in the last ReadyForQuery.
    pub status: TransactionStatus,
    /// The client whose unnamed statement the server holds; 0: nobody's.
    pub unnamed_of: u64,
    /// Bytes of a message body that still have to pass to the client.
    pub passing: usize,
    /// Bytes of a message body that must not pass.
    pub swallowing: usize,
    /// session_authorization as first reported.
    pub login_role: Option<Box<str>>,
    /// is_superuser as first reported: it changes with SET ROLE.
    pub login_superuser: Option<Box<str>>,
    /// Session state that cannot follow the client: the server stays with it until it leaves.
    pub pinned: Option<&'static str>,
    /// Why the server must not be used again after this transaction.
    pub spoiled: Option<&'static str>,
    /// A query of the pooler's own failed: nothing more may reach the client.
    pub injected_failed: Option<Box<[u8]>>,
    /// Scratch for what an error made the server skip.
    pub undone: Vec<Undone>,
}

/// What was counted while bytes passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub queries: u64,
    pub client_parses: u64,
    pub server_parses: u64,
    pub binds: u64,
}

impl ClientSession {
    /// A client that just logged in.
    pub fn new(id: u64, label: Label) -> Self {
        Self { id, label, statements: None, unnamed: Vec::new(), passing: 0, held: false }
    }

    /// Number of named statements.
    pub fn statement_count(&self) -> usize {
        self.statements.as_ref().map_or(0, |s| s.len())
    }
}

impl ServerSession {
    /// A server that just logged in with these parameters.
    pub fn new(label: Label, parameters: &[(String, String)]) -> Self {
        let reported =
            |name: &str| parameters.iter().find(|(n, _)| n == name).map(|(_, v)| Box::from(v.as_str()));
        Self {
            before: Arc::clone(&label),
            reported: Arc::clone(&label),
            label,
            statements: ServerStatements::default(),
            pipeline: Pipeline::default(),
            status: TransactionStatus::Idle,
            unnamed_of: 0,
            passing: 0,
            swallowing: 0,
            login_role: reported("session_authorization"),
            login_superuser: reported("is_superuser"),
            pinned: None,
            spoiled: None,
            injected_failed: None,
            undone: Vec::new(),
        }
    }

    /// ReadyForQuery `I` has been read and nothing is owed: another client may have it.
    pub fn is_free(&self) -> bool {
        self.pipeline.is_empty()
            && self.pipeline.is_closed()
            && self.status == TransactionStatus::Idle
            && self.passing == 0
            && self.swallowing == 0
            && !self.pipeline.copy_in()
    }

    /// RESET ALL or DISCARD ALL: what the server does not report is at its default again, or may be.
    pub fn forget_unreported(&mut self, shared: &Shared) {
        let reported = self.label.iter().filter(|(name, _)| self.reported.get(name).is_some());
        self.label = shared.labels.intern(Params::from_pairs(reported));
    }

    /// The settings that were sent last have not been applied.
    pub fn restore_label(&mut self) {
        self.label = Arc::clone(&self.before);
    }

    /// Makes the server's settings those of `client`: appends a Query unless they are equal, and notes it.
    pub fn adopt(&mut self, client: &mut ClientSession, write: impl FnOnce(&str)) {
        if Arc::ptr_eq(&self.label, &client.label) {
            return;
        }
        let mut sql = String::new();
        self.label.write_changes(&client.label, &mut sql);
        if !sql.is_empty() {
            self.pipeline.push(super::pipeline::Expected::InjectedQuery);
            // A simple Query drops the unnamed statement (postgres.c, exec_simple_query).
            self.unnamed_of = 0;
            write(&sql);
        }
        self.before = std::mem::replace(&mut self.label, Arc::clone(&client.label));
    }
}
