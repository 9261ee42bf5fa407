//! The two ends of a session, without their sockets.

use std::sync::Arc;

use super::{
    audit::Audit,
    bonds::Bonds,
    channels::Channels,
    effects::Effects,
    ending::{Ending, Outcome},
    params::{Label, Labels, Params},
    pipeline::{Pipeline, Synthetic, Undone},
    prepared::{Replay, Texts},
    queries::{Bound, Done},
    resets::Resets,
    sequences::Sequences,
    setting::{Changes, Risk, Trial},
    statements::{ClientStatements, Registry, ServerStatements},
    traces::{Asking, Traces},
};
use crate::{
    protocol::{TransactionStatus, backend},
    sql,
};

/// Most bytes of buffer that a client keeps for its next unnamed statement.
const KEEP: usize = 4 << 10;

/// What all sessions of the process share.
#[derive(Debug)]
pub struct Shared {
    pub registry: Registry,
    pub labels: Labels,
}

/// Bytes of a ReadyForQuery.
const READY: usize = 6;

/// Stands in for the client of a server that has none.
pub const NOBODY: u64 = 0;

/// Stands for a client that has no use any more for what its server holds.
pub const SOMEBODY: u64 = u64::MAX;

/// What a client remembers from one transaction to the next.
#[derive(Debug)]
pub struct ClientSession {
    /// Unique in the process.
    pub id: u64,
    pub label: Label,
    /// Its label at login: what RESET brings back.
    pub startup: Label,
    /// Named statements; made with the first one.
    pub statements: Option<Box<ClientStatements>>,
    /// The last unnamed Parse (body behind the name), to be repeated on another server.
    pub unnamed: Vec<u8>,
    /// Bytes of a message body that still have to pass to the server.
    pub passing: usize,
    /// Its next message waits for replies.
    pub held: bool,
    pub sequences: Sequences,
    /// What it has prepared by SQL.
    pub prepared: Texts,
    /// What pooler listens to for it.
    pub channels: Option<Box<Channels>>,
    /// What made the last server's settings its own: often the next one's too.
    changes: Option<Box<Changes>>,
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
    pub resets: Resets,
    pub effects: Effects,
    pub traces: Traces,
    pub asking: Asking,
    /// It is asked to see whether it is as it is believed to be.
    pub audit: Option<Box<Audit>>,
    /// The server has said that nothing binds it to its client, and nobody has asked since.
    pub(super) settled: bool,
    /// Status in the last ReadyForQuery.
    pub status: TransactionStatus,
    /// The client whose unnamed statement the server holds, or [`NOBODY`].
    pub unnamed_of: u64,
    /// What statements may leave whose names pass as they are, if there are such.
    pub(super) untracked: Option<Box<sql::traces::Traces>>,
    /// What has been prepared by SQL binds it, whatever else there is.
    pub(super) prepared_stays: bool,
    /// What has been prepared by SQL, as it has said last.
    pub prepared: Texts,
    pub(super) replay: Option<Box<Replay>>,
    /// The only client that may have drawn numbers of sequences which the server remembers, [`NOBODY`], or [`SOMEBODY`]: several.
    pub sequences_of: u64,
    /// The turn of that client which they are of.
    pub(super) sequences_turn: u64,
    /// Bytes of a message body that still have to pass to the client.
    pub passing: usize,
    /// Bytes of a message body that must not pass.
    pub swallowing: usize,
    /// session_authorization as first reported.
    pub login_role: Option<Box<str>>,
    /// is_superuser as first reported: it changes with SET ROLE.
    pub login_superuser: Option<Box<str>>,
    /// session_authorization or is_superuser are not those of the login.
    pub foreign: Foreign,
    /// Session state that cannot follow the client: the server stays with it for as long as it is there.
    pub bonds: Bonds,
    /// Its client goes on when the server ends.
    pub outlived: bool,
    /// What it said at its end, for a client that goes on.
    pub last_words: Option<Box<[u8]>>,
    /// Why the server must not be used again after this transaction. See also [`Self::why_spoiled`].
    pub spoiled: Option<&'static str>,
    /// A query of the pooler's own failed: nothing more may reach the client.
    pub injected_failed: Option<Box<[u8]>>,
    pub trying: Option<Trial>,
    /// A table or the like was altered in the transaction that is open.
    pub altered: bool,
    /// CommandCompletes since the last ReadyForQuery, and whether the last one was ROLLBACK.
    pub(super) tags: u32,
    pub(super) rolled_back: bool,
    /// DISCARD ALL was carried out, and nobody has asked since.
    pub(super) discarded: bool,
    /// RESET ALL or DISCARD ALL was carried out, alone, and nobody has asked since.
    pub(super) all_reset: bool,
    /// One of them has ended a transaction, or may have done so within.
    pub(super) commits: bool,
    /// An error since then.
    pub(super) erred: bool,
    /// SQLSTATEs of errors that nobody has counted yet.
    pub errors: Vec<[u8; 5]>,
    /// Requests that have been answered and nobody has counted yet.
    pub done: Vec<Done>,
    pub(super) bound: Option<Bound>,
    /// Rows that it has told its clients of.
    pub rows_told: u64,
    /// Of the request that is being answered: rows, and whether there was an error.
    pub(super) rows: u64,
    pub(super) failed: bool,
    /// Bytes that the server has said, and how many of them belong to what was before.
    pub(super) said: u64,
    pub(super) said_before: u64,
    /// There has been a savepoint in the transaction that is open.
    pub(super) savepoint: bool,
    /// What the client's ReadyForQuery has told, which was kept back.
    pub(super) told_later: Option<Outcome>,
    pub(super) ending: Ending,
    /// It was, and nobody has asked since.
    was_altered: bool,
    /// in_hot_standby as last reported; `None`: never (before PostgreSQL 14).
    pub in_hot_standby: Option<bool>,
    /// Scratch for what an error made the server skip.
    pub undone: Vec<Undone>,
}

/// Which of the parameters that tell whom the server works for differ from those of its login.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Foreign {
    pub role: bool,
    pub superuser: bool,
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
        let startup = Arc::clone(&label);
        Self {
            id,
            label,
            startup,
            statements: None,
            unnamed: Vec::new(),
            passing: 0,
            held: false,
            sequences: Sequences::default(),
            prepared: None,
            channels: None,
            changes: None,
        }
    }

    /// What makes a server's settings its own; `None`: they are.
    fn changes_from(&mut self, from: &Label) -> Option<&Changes> {
        if Arc::ptr_eq(from, &self.label) {
            return None;
        }
        let known = self.changes.take().filter(|known| known.are(from, &self.label));
        let changes = known.unwrap_or_else(|| Box::new(Changes::between(from, &self.label)));
        Some(self.changes.insert(changes))
    }

    /// What a server has made of the startup parameters.
    pub fn log_in(&mut self, label: Label) {
        self.startup = Arc::clone(&label);
        self.label = label;
    }

    /// Drops the unnamed statement. A large one leaves no buffer behind.
    pub fn forget_unnamed(&mut self) {
        if self.unnamed.capacity() > KEEP { self.unnamed = Vec::new() } else { self.unnamed.clear() }
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
            resets: Resets::default(),
            effects: Effects::default(),
            traces: Traces::default(),
            asking: Asking::Never,
            audit: None,
            settled: false,
            status: TransactionStatus::Idle,
            unnamed_of: NOBODY,
            sequences_of: NOBODY,
            sequences_turn: 0,
            untracked: None,
            prepared_stays: false,
            prepared: None,
            replay: None,
            passing: 0,
            swallowing: 0,
            login_role: reported("session_authorization"),
            login_superuser: reported("is_superuser"),
            foreign: Foreign::default(),
            bonds: Bonds::default(),
            outlived: false,
            last_words: None,
            spoiled: None,
            injected_failed: None,
            trying: None,
            altered: false,
            tags: 0,
            rolled_back: false,
            commits: false,
            erred: false,
            errors: Vec::new(),
            done: Vec::new(),
            bound: None,
            rows_told: 0,
            rows: 0,
            failed: false,
            said: 0,
            said_before: 0,
            savepoint: false,
            told_later: None,
            ending: Ending::default(),
            discarded: false,
            all_reset: false,
            was_altered: false,
            in_hot_standby: reported("in_hot_standby").map(|value| *value == *"on"),
            undone: Vec::new(),
        }
    }

    /// ReadyForQuery `I` has been read and nothing is owed: another client may have it.
    pub fn is_free(&self) -> bool {
        self.owes_nothing() && self.status == TransactionStatus::Idle
    }

    /// All has been answered and nothing begun, but for a transaction that may be open.
    pub fn owes_nothing(&self) -> bool {
        self.pipeline.is_empty()
            && self.pipeline.is_closed()
            && self.passing == 0
            && self.swallowing == 0
            && !self.pipeline.copy_in()
    }

    /// The next answer that the pooler has to give now: not in the middle of a message that passes.
    pub fn next_synthetic(&mut self) -> Option<Synthetic> {
        if self.passing > 0 || self.injected_failed.is_some() {
            return None;
        }
        self.pipeline.next_synthetic()
    }

    /// Whether something has been created, altered or dropped for all to see since this was asked last.
    pub fn take_altered(&mut self) -> bool {
        std::mem::take(&mut self.was_altered)
    }

    /// Whether a DISCARD ALL has been carried out since this was asked last.
    pub fn take_discarded(&mut self) -> bool {
        std::mem::take(&mut self.discarded)
    }

    /// Whether the server has said, since this was asked last, that its client has left nothing that cannot follow it.
    pub fn take_settled(&mut self) -> bool {
        std::mem::take(&mut self.settled)
    }

    /// Whether a RESET ALL or DISCARD ALL has been carried out since this was asked last.
    pub fn take_all_reset(&mut self) -> bool {
        std::mem::take(&mut self.all_reset)
    }

    /// The body of an error: it is to be counted.
    pub(super) fn note_error(&mut self, body: &[u8]) {
        let code = backend::error_field(body, b'C').and_then(|code| code.first_chunk());
        self.errors.push(code.copied().unwrap_or(*b"-----"));
    }

    /// ReadyForQuery: whether what stands before it has changed nothing, as far as its tags tell: it is an error alone, or a
    /// ROLLBACK alone.
    pub(super) fn take_abort(&mut self) -> bool {
        let aborted = if self.tags == 0 { self.erred } else { self.tags == 1 && self.rolled_back };
        (self.tags, self.rolled_back, self.erred) = (0, false, false);
        aborted
    }

    /// What was altered is seen by others from here on.
    pub(super) fn publish_altered(&mut self) {
        self.altered = false;
        self.was_altered = true;
    }

    /// Why the server must not be used again, if so.
    pub fn why_spoiled(&self) -> Option<&'static str> {
        // With a role of its client's it is not the superuser any more, or one.
        let superuser = self.foreign.superuser && self.label.get("role").is_none();
        let foreign = self.foreign.role || superuser;
        let uncertain = self.pipeline.is_uncertain().then_some("failed COPY may still owe replies");
        self.spoiled.or(foreign.then_some("role changed")).or(uncertain)
    }

    /// RESET ALL or DISCARD ALL: what the server does not report is at its default again, or may be.
    pub fn forget_unreported(&mut self, shared: &Shared) {
        self.label = shared.labels.keeping(&self.label, |name| self.reported.get(name).is_some());
    }

    /// RESET of one parameter: the same.
    pub fn forget(&mut self, gone: &str, shared: &Shared) {
        let keep = |name: &str| !name.eq_ignore_ascii_case(gone) || self.reported.get(name).is_some();
        self.label = shared.labels.keeping(&self.label, keep);
    }

    /// Before another transaction: by then the role may have been dropped and made anew, and the server would go on with the
    /// one that is gone. Of all settings only this one is looked up when it is set.
    pub fn doubt_role(&mut self, shared: &Shared) {
        if !Arc::ptr_eq(&self.label, &self.reported) && self.label.get("role").is_some() {
            // No role's name.
            self.label = shared.labels.with(&self.label, "role", "");
        }
    }

    /// The settings that were sent last have not been applied.
    pub fn restore_label(&mut self) {
        self.label = Arc::clone(&self.before);
    }

    /// Makes the server's session that of `client`, as far as it is tracked: what has to go in front is written, each as one
    /// Query, and noted. Returns how many bytes the server will answer at least, if it carries all out.
    pub fn adopt(&mut self, client: &mut ClientSession, mut write: impl FnMut(&str)) -> usize {
        if let Some(under) = self.prepares_under(client) {
            let mut sql = String::new();
            self.label.write_changes(&under, &mut sql);
            self.set(&sql, under, &mut write);
            self.adopt_prepared(client, &mut write);
            // Of settings that are refused only the last are taken back.
            self.spoiled = self.spoiled.or(Some("statements were prepared under other settings"));
        }
        let answer = self.adopt_settings(client, &mut write);
        self.adopt_prepared(client, write);
        answer
    }

    /// What an adoption would set that the server may refuse.
    pub fn risk(&self, client: &mut ClientSession) -> Option<Risk> {
        client.changes_from(&self.label)?.risk
    }

    /// Sends the settings alone: nothing is carried out before it is known that they are there.
    pub fn try_settings(&mut self, client: &mut ClientSession, risk: Risk, write: impl FnOnce(&str)) {
        self.trying = Some(Trial { risk, wanted: Arc::clone(&client.label) });
        self.adopt_settings(client, write);
    }

    fn adopt_settings(&mut self, client: &mut ClientSession, write: impl FnOnce(&str)) -> usize {
        let forget = self.meet_sequences(client);
        if Arc::ptr_eq(&self.label, &client.label) && forget.is_none() {
            return 0;
        }
        let label = Arc::clone(&client.label);
        let changes = client.changes_from(&self.label);
        let (sql, answer) = changes.map_or(("", 0), |changes| (&changes.sql, changes.answer));
        match forget {
            None => self.set(sql, label, write),
            Some(forget) if sql.is_empty() => self.set(forget, label, write),
            Some(forget) => self.set(&format!("{forget};{sql}"), label, write),
        }
        if answer > 0 { answer + READY } else { 0 }
    }

    /// Tries a client's startup parameters, from what servers have at login: a value may say a part only (DateStyle), and the
    /// rest is not to be another client's. Of parameters that the server reports its own word counts, also when it says
    /// nothing because nothing has changed: they may be spelled in another way.
    pub fn try_startup(
        &mut self,
        client: &mut ClientSession,
        at_login: &Params,
        wanted: &Params,
        shared: &Shared,
        write: impl FnOnce(&str),
    ) {
        let mut asked_for = at_login.clone();
        wanted.iter().for_each(|(name, value)| asked_for.set(name, value));
        let mut sql = String::new();
        self.label.write_changes(at_login, &mut sql);
        at_login.write_changes(&asked_for, &mut sql);
        let is_reported = |name: &str| self.reported.get(name).is_some();
        let told = self.label.iter().filter(|(name, _)| is_reported(name));
        let untold = wanted.iter().filter(|(name, _)| !is_reported(name));
        client.label = shared.labels.intern(Params::from_pairs(told.chain(untold)));
        self.set(&sql, Arc::clone(&client.label), write);
    }

    fn set(&mut self, sql: &str, label: Label, write: impl FnOnce(&str)) {
        if !sql.is_empty() {
            self.pipeline.push(super::pipeline::Expected::InjectedQuery);
            // A simple Query drops the unnamed statement (postgres.c, exec_simple_query).
            self.unnamed_of = NOBODY;
            write(sql);
        }
        self.before = std::mem::replace(&mut self.label, label);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // H45: one of the two going back to its value made the server good again, although the other had not.
    #[test]
    fn server_is_spoiled_until_role_and_superuser_are_those_of_the_login() {
        let shared = Shared { registry: Registry::new(0), labels: Labels::default() };
        let at_login =
            ["session_authorization", "is_superuser"].map(|n| (n.to_owned(), "as at login".to_owned()));
        let mut server = ServerSession::new(shared.labels.intern(Params::default()), &at_login);
        assert_eq!(server.why_spoiled(), None);
        for (name, value, spoiled) in [
            ("session_authorization", "other", true),
            ("is_superuser", "other", true),
            ("is_superuser", "as at login", true),
            ("session_authorization", "as at login", false),
        ] {
            server.report(name, value, &shared);
            assert_eq!(server.why_spoiled().is_some(), spoiled, "{name} {value}");
        }
        server.spoiled = Some("protocol violation");
        server.report("is_superuser", "as at login", &shared);
        assert_eq!(server.why_spoiled(), Some("protocol violation"));
    }
}
