//! Asking one node: a task for each, so that one that hangs delays nobody.
//!
//! It keeps a session open, notices its end at once, and opens another one when asked next. Source of the questions:
//! PostgreSQL docs, "System Administration Functions", "pg_stat_wal_receiver", "pg_control_checkpoint".

use std::{io::ErrorKind, sync::Arc, time::Duration};

use tokio::{
    sync::mpsc::{Receiver, UnboundedSender},
    time::Instant,
};

use super::{
    decide::Fact,
    epochs::{WalSizes, parse_lsn},
};
use crate::server::{ConnectError, ConnectSpec, Failure, OwnSession, QueryError, Row};

/// What a node is. One statement, and one look at whether it is a standby: a promotion in the middle of it must not mix
/// the two. Without pg_monitor nobody sees received_tli; then the last checkpoint tells, later.
///
/// The last column: commits may be acknowledged before they are flushed. A setting of pooler's own role or database
/// hides the server's, so that nothing is known of it.
const PROBE: &str = "\
SELECT s.standby, (SELECT system_identifier FROM pg_catalog.pg_control_system()), \
CASE WHEN s.standby THEN greatest((SELECT received_tli FROM pg_catalog.pg_stat_wal_receiver), \
  (SELECT timeline_id FROM pg_catalog.pg_control_checkpoint()))::text \
 ELSE pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()) END, \
CASE WHEN s.standby THEN pg_catalog.pg_last_wal_replay_lsn() ELSE pg_catalog.pg_current_wal_flush_lsn() END, \
CASE WHEN s.standby THEN NULL ELSE pg_catalog.pg_current_wal_insert_lsn() END, \
pg_catalog.current_setting('wal_block_size'), \
pg_catalog.pg_size_bytes(pg_catalog.current_setting('wal_segment_size')), \
pg_catalog.current_setting('synchronous_commit') = 'off' OR EXISTS (SELECT 1 \
 FROM pg_catalog.pg_db_role_setting d, pg_catalog.unnest(d.setconfig) c \
 WHERE c LIKE 'synchronous_commit=%' AND (pg_catalog.lower(pg_catalog.split_part(c, '=', 2)) \
   NOT IN ('on', 'true', 'yes', '1', 'local', 'remote_write', 'remote_apply') \
  OR d.setrole IN (0, (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = current_user)) \
  AND d.setdatabase IN (0, (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())))) \
FROM (SELECT pg_catalog.pg_is_in_recovery() AS standby OFFSET 0) s";

const POSITIONS: &str = "\
SELECT pg_catalog.pg_current_wal_flush_lsn(), pg_catalog.pg_current_wal_insert_lsn(), \
pg_catalog.current_setting('synchronous_commit') = 'off'";

/// The position before the timeline: what was replayed was of no later one.
const REPLAYED: &str = "\
SELECT pg_catalog.pg_last_wal_replay_lsn(), (SELECT received_tli FROM pg_catalog.pg_stat_wal_receiver)";

/// Of those of other users nobody sees more than this.
const BACKENDS: &str = "SELECT pid FROM pg_catalog.pg_stat_activity";

/// What to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// What are you?
    Probe,
    /// Where does your WAL end? To the primary.
    Positions,
    /// How much have you replayed? To a replica.
    Replayed,
    /// Which backends do you have? To the primary.
    Backends,
}

/// What was answered.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    Probe(ProbeAnswer),
    Positions(Positions),
    Replayed {
        lsn: u64,
        timeline: Option<u32>,
    },
    /// Their process IDs.
    Backends(Vec<u32>),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct ProbeAnswer {
    pub(super) fact: Fact,
    /// Of a primary.
    pub(super) positions: Option<Positions>,
}

/// Where the WAL of a primary ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Positions {
    pub(super) flush: u64,
    /// The end of the last record.
    pub(super) insert: u64,
    pub(super) async_commits: bool,
}

/// Why there was no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Not in time.
    Missed(String),
    /// Nobody listens, or only to say that the server is not up.
    Refused(String),
    /// The server is there, but does not let pooler look.
    Locked(String),
}

/// A question on its way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticket {
    pub(super) question: Question,
    /// The number that was taken for it; 0: none.
    pub(super) epoch: u64,
    /// The reign of the primary in which it was asked.
    pub(super) term: u64,
    /// So many connections to the primary had been lost before it was asked.
    pub(super) doubts: u64,
    pub(super) start: std::time::Instant,
    pub(super) limit: Duration,
    /// A session that is older goes: its address may be another server's by now (H31).
    pub(super) renew_after: Duration,
}

/// What a task tells the monitor.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) node: usize,
    pub(super) what: What,
}

#[derive(Debug)]
pub(super) enum What {
    Answer {
        ticket: Ticket,
        answer: Result<Answer, Trouble>,
        /// By another session than the one before: what was known of the server may have been another's.
        new_session: bool,
    },
    /// The server ended the session.
    Lost(String),
}

/// The task of one node.
pub(super) struct Asker<S> {
    pub(super) node: usize,
    pub(super) spec_of: Arc<S>,
    pub(super) tickets: Receiver<Ticket>,
    pub(super) told: UnboundedSender<Told>,
    pub(super) held: Option<Held>,
    pub(super) new_session: bool,
}

/// An open session.
pub(super) struct Held {
    session: OwnSession,
    since: Instant,
    sizes: WalSizes,
}

impl<S: Fn(usize) -> ConnectSpec> Asker<S> {
    /// Ends when the monitor does.
    pub(super) async fn run(mut self) {
        loop {
            let ticket = match &mut self.held {
                None => self.tickets.recv().await,
                Some(held) => tokio::select! {
                    biased;
                    ticket = self.tickets.recv() => ticket,
                    error = held.session.closed() => {
                        self.held = None;
                        self.tell(What::Lost(error.to_string()));
                        continue;
                    }
                },
            };
            let Some(ticket) = ticket else { return };
            let answer = self.ask(&ticket).await;
            if !self.held.as_ref().is_some_and(|held| held.session.is_usable()) {
                self.held = None;
            }
            let new_session = std::mem::take(&mut self.new_session);
            self.tell(What::Answer { ticket, answer, new_session });
        }
    }

    fn tell(&self, what: What) {
        // Nobody listens any more: the next ticket will not come either.
        let _ = self.told.send(Told { node: self.node, what });
    }

    async fn ask(&mut self, ticket: &Ticket) -> Result<Answer, Trouble> {
        let deadline = Instant::now() + ticket.limit;
        if ticket.question == Question::Probe {
            self.renew(ticket, deadline).await?;
        }
        let asked = self.held.is_some();
        let lost = match self.try_ask(ticket, deadline).await {
            Ok(answer) => return Ok(answer),
            Err(QueryError::Lost(_) | QueryError::Unusable) => true,
            Err(QueryError::Server(_)) if !self.is_usable() => true,
            Err(error) => return Err(trouble(&error)),
        };
        // Somebody may have ended the session and nothing else.
        if lost && ticket.question == Question::Probe {
            self.held = None;
            self.open(deadline).await?;
            return self.try_ask(ticket, deadline).await.map_err(|error| trouble(&error));
        }
        if lost && asked {
            self.tell(What::Lost("its end was met by a question".to_owned()));
        }
        Err(Trouble::Missed("the session was lost".to_owned()))
    }

    fn is_usable(&self) -> bool {
        self.held.as_ref().is_some_and(|held| held.session.is_usable())
    }

    /// Opens a session if there is none, or another one if it is old.
    async fn renew(&mut self, ticket: &Ticket, deadline: Instant) -> Result<(), Trouble> {
        match &self.held {
            None => self.open(deadline).await,
            Some(held) if held.since.elapsed() < ticket.renew_after => Ok(()),
            Some(_) => match self.open(deadline).await {
                // The old one still sees.
                Err(Trouble::Locked(reason)) => {
                    tracing::debug!("node {}: a new session of the monitor was refused: {reason}", self.node);
                    Ok(())
                }
                other => other,
            },
        }
    }

    async fn open(&mut self, deadline: Instant) -> Result<(), Trouble> {
        let mut spec = (self.spec_of)(self.node);
        let left = deadline.saturating_duration_since(Instant::now());
        // Zero would be no limit.
        spec.timeout = left.max(Duration::from_millis(1));
        match OwnSession::connect(&spec).await {
            Ok(session) => {
                self.new_session = true;
                self.held = Some(Held { session, since: Instant::now(), sizes: WalSizes::default() });
                Ok(())
            }
            Err(error) => Err(connect_trouble(&error)),
        }
    }

    async fn try_ask(&mut self, ticket: &Ticket, deadline: Instant) -> Result<Answer, QueryError> {
        let Some(held) = &mut self.held else { return Err(QueryError::Unusable) };
        let left = deadline.saturating_duration_since(Instant::now());
        let sql = match ticket.question {
            Question::Probe => PROBE,
            Question::Positions => POSITIONS,
            Question::Replayed => REPLAYED,
            Question::Backends => BACKENDS,
        };
        let rows = held.session.query(sql, left).await?;
        if ticket.question == Question::Backends {
            let pids = rows.iter().filter_map(|row| field(row, 0)?.parse().ok());
            return Ok(Answer::Backends(pids.collect()));
        }
        let row = rows.first().ok_or(QueryError::Protocol("no row"))?;
        let answer = match ticket.question {
            Question::Probe => read_probe(row, &mut held.sizes).map(Answer::Probe),
            Question::Positions => read_positions(row, held.sizes).map(Answer::Positions),
            Question::Replayed => read_replayed(row),
            Question::Backends => None,
        };
        answer.ok_or(QueryError::Protocol("the answer is not as expected"))
    }
}

fn field(row: &Row, index: usize) -> Option<&str> {
    row.get(index)?.as_deref()
}

fn read_probe(row: &Row, sizes: &mut WalSizes) -> Option<ProbeAnswer> {
    let standby = field(row, 0)? == "t";
    let system = field(row, 1)?.parse::<i64>().ok()?.cast_unsigned();
    let timeline = match field(row, 2) {
        Some(number) if standby => number.parse().ok()?,
        // Of a standby that has just begun; it follows nobody yet.
        None if standby => 0,
        file => u32::from_str_radix(file?.get(..8)?, 16).ok()?,
    };
    let lsn = field(row, 3).map_or(Some(0), parse_lsn)?;
    *sizes = WalSizes { page: field(row, 5)?.parse().ok()?, segment: field(row, 6)?.parse().ok()? };
    let positions = |insert| Positions {
        flush: lsn,
        insert: sizes.end_of_record(insert),
        async_commits: field(row, 7) != Some("f"),
    };
    let positions = if standby { None } else { Some(positions(parse_lsn(field(row, 4)?)?)) };
    Some(ProbeAnswer { fact: Fact { standby, system, timeline, lsn }, positions })
}

fn read_positions(row: &Row, sizes: WalSizes) -> Option<Positions> {
    Some(Positions {
        flush: parse_lsn(field(row, 0)?)?,
        insert: sizes.end_of_record(parse_lsn(field(row, 1)?)?),
        async_commits: field(row, 2) != Some("f"),
    })
}

fn read_replayed(row: &Row) -> Option<Answer> {
    let timeline = field(row, 1).map(str::parse).transpose().ok()?;
    Some(Answer::Replayed { lsn: parse_lsn(field(row, 0)?)?, timeline })
}

fn trouble(error: &QueryError) -> Trouble {
    let text = error.to_string();
    match error {
        QueryError::Timeout(_) => Trouble::Missed(text),
        QueryError::Lost(error) => connect_trouble(error),
        QueryError::Server(error) if error.sqlstate().is_some_and(|code| code.starts_with("57P")) => {
            Trouble::Refused(text)
        }
        _ => Trouble::Locked(text),
    }
}

fn connect_trouble(error: &ConnectError) -> Trouble {
    let text = error.to_string();
    let passing = [ErrorKind::TimedOut, ErrorKind::HostUnreachable, ErrorKind::NetworkUnreachable];
    match error {
        ConnectError::Timeout { .. } | ConnectError::Resolve { .. } => Trouble::Missed(text),
        ConnectError::Network { kind, .. } if passing.contains(kind) => Trouble::Missed(text),
        // 57P01 to 57P05: on its way down, up, or to another state.
        ConnectError::Refused(refused) if refused.sqlstate().is_some_and(|code| code.starts_with("57P")) => {
            Trouble::Refused(text)
        }
        other if other.failure() == Failure::Unreachable => Trouble::Refused(text),
        _ => Trouble::Locked(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(fields: &[&str]) -> Row {
        fields.iter().map(|field| (*field != "-").then(|| (*field).to_owned())).collect()
    }

    #[test]
    fn probe_of_a_primary_and_of_a_standby() {
        let mut sizes = WalSizes::default();
        let name = "0000000A00000000000000FF";
        let primary = row(&["f", "-7", name, "0/FF001000", "0/FF002018", "8192", "16777216", "f"]);
        let answer = read_probe(&primary, &mut sizes).unwrap();
        let system = 7_u64.wrapping_neg();
        assert_eq!(answer.fact, Fact { standby: false, system, timeline: 10, lsn: 0xFF00_1000 });
        let positions = answer.positions.unwrap();
        assert_eq!(
            (positions.flush, positions.insert, positions.async_commits),
            (0xFF00_1000, 0xFF00_2000, false)
        );

        let standby = row(&["t", "7", "3", "0/10", "-", "4096", "1048576", "t"]);
        let answer = read_probe(&standby, &mut sizes).unwrap();
        assert_eq!(answer.fact, Fact { standby: true, system: 7, timeline: 3, lsn: 16 });
        assert!(answer.positions.is_none());
        assert_eq!(sizes, WalSizes { page: 4096, segment: 1 << 20 });
        // Nothing replayed yet.
        let young = row(&["t", "7", "-", "-", "-", "8192", "16777216", "f"]);
        assert_eq!(read_probe(&young, &mut sizes).unwrap().fact.lsn, 0);
        for wrong in [&primary[..5], &[]] {
            assert!(read_probe(&wrong.to_vec(), &mut sizes).is_none());
        }
    }

    #[test]
    fn troubles_are_told_apart() {
        let network = |kind| ConnectError::Network { target: "x".to_owned(), kind, reason: "y".to_owned() };
        let refused = |trouble: Trouble| matches!(trouble, Trouble::Refused(_));
        assert!(refused(connect_trouble(&network(ErrorKind::ConnectionRefused))));
        assert!(refused(connect_trouble(&network(ErrorKind::NotFound))));
        assert!(refused(connect_trouble(&ConnectError::Closed)));
        assert!(matches!(connect_trouble(&network(ErrorKind::HostUnreachable)), Trouble::Missed(_)));
        assert!(matches!(connect_trouble(&ConnectError::Method("GSSAPI")), Trouble::Locked(_)));
        assert!(matches!(trouble(&QueryError::Timeout(Duration::ZERO)), Trouble::Missed(_)));
    }
}
