//! Watches the nodes of one database: probes, epochs, and what follows from them. One task for each cluster, and one for
//! each node that asks (`ask`); nothing else writes what `Cluster` publishes.
//!
//! | when | what |
//! |---|---|
//! | each check_interval | every node is probed; the primary's answer is an epoch too |
//! | a session ends, a worker suspects | every node at once, then each 50 ms until the roles are settled |
//! | a read found no replica | the primary's positions, then the replicas until one has caught up |
//! | a server was closed amid a write | which backends the primary has, each 50 ms until that one is gone |

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use tokio::{
    sync::mpsc::{self, UnboundedReceiver},
    task::JoinSet,
};

use super::{
    Cluster,
    ask::{Answer, Asker, Question, Ticket, Told, What},
    decide::Accepted,
    watched::Watched,
};
use crate::server::ConnectSpec;

/// Between probes while the primary may be lost, and when that goes on for long.
const SUSPECT_GAP: Duration = Duration::from_millis(50);
const LONG_SUSPECT_GAP: Duration = Duration::from_millis(250);
const LONG_SUSPECT: Duration = Duration::from_secs(30);
/// Between logins at a node that refuses them.
const LOCKED_GAP: Duration = Duration::from_secs(5);
/// Between polls of the primary; while no replica has caught the last one there is no hurry.
const POLL_GAP: Duration = Duration::from_millis(1);
const LAZY_POLL_GAP: Duration = Duration::from_millis(4);
/// Between questions for backends that were left.
const LEFT_GAP: Duration = Duration::from_millis(50);
/// So long replicas are asked again and again for one read.
const PATIENCE: Duration = Duration::from_millis(200);
/// Age at which a session is opened anew, and while the primary may be lost.
const SESSION_AGE: Duration = Duration::from_secs(60);
const SUSPECT_SESSION_AGE: Duration = Duration::from_secs(10);

/// How often nodes are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MonitorSettings {
    pub check_interval: Duration,
    /// A node that does not answer for so long, three times, is down.
    pub check_timeout: Duration,
}

impl Default for MonitorSettings {
    fn default() -> Self {
        Self { check_interval: Duration::from_secs(1), check_timeout: Duration::from_secs(1) }
    }
}

/// Watches the nodes until the cluster is dropped or stopped.
pub async fn monitor<S, T>(cluster: Arc<Cluster>, spec_of: S, settings: T)
where
    S: Fn(usize) -> ConnectSpec + Send + Sync + 'static,
    T: Fn() -> MonitorSettings + Send + 'static,
{
    let (weak, wake) = (Arc::downgrade(&cluster), cluster.wake.clone());
    let (mut monitor, mut told) = Monitor::start(&cluster, spec_of);
    drop(cluster);
    let alive = || weak.upgrade().filter(|cluster| !cluster.stopped.load(Ordering::Acquire));
    loop {
        let Some(cluster) = alive() else { return };
        monitor.settings = settings();
        let next = monitor.ask_what_is_due(&cluster, Instant::now());
        drop(cluster);
        tokio::select! {
            Some(said) = told.recv() => {
                let Some(cluster) = alive() else { return };
                monitor.take(&cluster, said, Instant::now());
            }
            () = wake.notified() => {}
            () = tokio::time::sleep_until(next.into()) => {}
        }
    }
}

/// What is known, and what is to be done.
pub(super) struct Monitor {
    pub(super) settings: MonitorSettings,
    pub(super) nodes: Vec<Watched>,
    pub(super) accepted: Option<Accepted>,
    pub(super) primary: Option<usize>,
    /// Goes up with every other primary or timeline: answers to older questions do not count.
    pub(super) term: u64,
    /// Since when the primary may be lost.
    pub(super) suspect_since: Option<Instant>,
    /// Nodes have to be probed after this before roles are settled.
    pub(super) suspected_at: Instant,
    last_poll: Instant,
    pub(super) want_poll: bool,
    next_look: Instant,
    /// Until then somebody waits for replicas.
    wanted_until: Instant,
    /// The tasks of the nodes; they end with this.
    _tasks: JoinSet<()>,
}

impl Monitor {
    fn start<S>(cluster: &Cluster, spec_of: S) -> (Self, UnboundedReceiver<Told>)
    where
        S: Fn(usize) -> ConnectSpec + Send + Sync + 'static,
    {
        let (tell, told) = mpsc::unbounded_channel();
        let (spec_of, mut tasks) = (Arc::new(spec_of), JoinSet::new());
        let now = Instant::now();
        let nodes = (0..cluster.nodes.len()).map(|node| {
            let (ask, tickets) = mpsc::channel(1);
            let (spec_of, told) = (spec_of.clone(), tell.clone());
            let asker = Asker { node, spec_of, tickets, told, held: None, new_session: false };
            tasks.spawn(asker.run());
            Watched::new(ask, now)
        });
        let nodes = nodes.collect();
        let accepted = cluster.inherited();
        (Self { accepted, ..Self::new(nodes, tasks, now) }, told)
    }

    /// Nothing is known yet, and everything is to be asked. `tasks` answer for the nodes.
    pub(super) fn new(nodes: Vec<Watched>, tasks: JoinSet<()>, now: Instant) -> Self {
        Self {
            settings: MonitorSettings::default(),
            nodes,
            accepted: None,
            primary: None,
            term: 0,
            suspect_since: Some(now),
            suspected_at: now,
            last_poll: now,
            want_poll: false,
            next_look: now,
            wanted_until: now,
            _tasks: tasks,
        }
    }

    /// Asks, and says when there will be more to ask.
    fn ask_what_is_due(&mut self, cluster: &Cluster, now: Instant) -> Instant {
        if cluster.suspected.swap(false, Ordering::AcqRel) {
            self.suspect(now);
        }
        let probes = self.probe(cluster, now);
        let poll = self.poll_primary(cluster, now);
        let replicas = self.poll_replicas(cluster, now);
        let left = self.look_for_left(cluster, now);
        [poll, replicas, left].into_iter().flatten().fold(probes, Instant::min)
    }

    /// The primary may be lost: every node is probed now.
    pub(super) fn suspect(&mut self, now: Instant) {
        self.suspect_since.get_or_insert(now);
        self.suspected_at = now;
        for node in &mut self.nodes {
            // A worker that suspects with every connection that it opens must not make it more often.
            node.next_probe = node.next_probe.min(now.max(node.last_probe + SUSPECT_GAP));
        }
    }

    fn probe_gap(&self, now: Instant) -> Duration {
        let normal = self.settings.check_interval.max(SUSPECT_GAP);
        match self.suspect_since {
            None => normal,
            Some(since) if now.saturating_duration_since(since) < LONG_SUSPECT => SUSPECT_GAP,
            Some(_) => LONG_SUSPECT_GAP.min(normal),
        }
    }

    fn probe(&mut self, cluster: &Cluster, now: Instant) -> Instant {
        let gap = self.probe_gap(now);
        let mut next = now + gap;
        for index in 0..self.nodes.len() {
            let Some(node) = self.nodes.get_mut(index).filter(|node| !node.asked) else { continue };
            if node.next_probe <= now {
                node.last_probe = now;
                node.next_probe = now + if node.is_locked() { gap.max(LOCKED_GAP) } else { gap };
                self.ask(cluster, index, Question::Probe, now);
            } else {
                next = next.min(node.next_probe);
            }
        }
        next
    }

    fn poll_primary(&mut self, cluster: &Cluster, now: Instant) -> Option<Instant> {
        self.want_poll |= cluster.poll_wanted.load(Ordering::Acquire);
        if !self.want_poll {
            return None;
        }
        self.wanted_until = now + PATIENCE;
        let Some(primary) = self.primary else {
            cluster.poll_wanted.store(false, Ordering::Release);
            self.want_poll = false;
            return None;
        };
        if self.nodes.get(primary).is_none_or(|node| node.asked) {
            return None;
        }
        let caught = (0..self.nodes.len()).any(|node| self.reads(node) && !self.is_behind(cluster, node));
        let due = self.last_poll + if caught { POLL_GAP } else { LAZY_POLL_GAP };
        if due > now {
            return Some(due);
        }
        // Before the number is taken: whoever wants a poll from here on gets another one.
        cluster.poll_wanted.swap(false, Ordering::AcqRel);
        self.want_poll = false;
        self.ask(cluster, primary, Question::Positions, now);
        None
    }

    fn poll_replicas(&mut self, cluster: &Cluster, now: Instant) -> Option<Instant> {
        let mut next = None;
        for index in 0..self.nodes.len() {
            if now >= self.wanted_until || !self.reads(index) || !self.is_behind(cluster, index) {
                continue;
            }
            let Some(node) = self.nodes.get(index).filter(|node| !node.asked) else { continue };
            if node.next_poll <= now {
                self.ask(cluster, index, Question::Replayed, now);
            } else {
                next = Some(next.map_or(node.next_poll, |next: Instant| next.min(node.next_poll)));
            }
        }
        next
    }

    fn look_for_left(&mut self, cluster: &Cluster, now: Instant) -> Option<Instant> {
        let primary = self.primary.filter(|_| cluster.floors.has_left())?;
        if self.next_look > now {
            return Some(self.next_look);
        }
        // Its answer comes here again.
        self.nodes.get(primary).filter(|node| !node.asked)?;
        self.next_look = now + LEFT_GAP;
        self.ask(cluster, primary, Question::Backends, now);
        None
    }

    /// Replicas are asked for a while, as for a read that waits.
    pub(super) fn ask_replicas_for_a_while(&mut self, now: Instant) {
        self.wanted_until = self.wanted_until.max(now + PATIENCE);
    }

    /// Reads may be sent there, or could if it had caught up.
    pub(super) fn reads(&self, node: usize) -> bool {
        self.nodes.get(node).is_some_and(|node| node.eligible)
    }

    /// It has not caught the newest mark.
    pub(super) fn is_behind(&self, cluster: &Cluster, node: usize) -> bool {
        cluster.marks().newest().is_some_and(|newest| cluster.caught(node) < newest.epoch)
    }

    fn ask(&mut self, cluster: &Cluster, index: usize, question: Question, now: Instant) {
        let mut epoch = 0;
        if self.primary == Some(index) {
            self.last_poll = now;
            for node in &mut self.nodes {
                node.replayed_before = node.replayed;
            }
            // The rule that all freshness stands on: the number first, then the question.
            epoch = cluster.epoch.fetch_add(1, Ordering::SeqCst) + 1;
        }
        // First the number: a loss from here on wants another question.
        let doubts = cluster.doubts.load(Ordering::SeqCst);
        let renew_after = match self.suspect_since {
            // A server that shuts down takes no new connections before it ends the first of those that there are.
            _ if cluster.settled.load(Ordering::SeqCst) < doubts => Duration::ZERO,
            Some(_) => SUSPECT_SESSION_AGE,
            None => SESSION_AGE,
        };
        let limit = self.settings.check_timeout.max(Duration::from_millis(1));
        let ticket = Ticket { question, epoch, term: self.term, doubts, start: now, limit, renew_after };
        let Some(node) = self.nodes.get_mut(index) else { return };
        // One question at a time: there is room.
        node.asked = node.ask.try_send(ticket).is_ok();
    }

    fn take(&mut self, cluster: &Cluster, told: Told, now: Instant) {
        let index = told.node;
        let Some(node) = self.nodes.get_mut(index) else { return };
        let (ticket, answer) = match told.what {
            What::Lost(reason) => return self.lost(cluster, index, &reason, now),
            What::Answer { ticket, answer, new_session } => {
                node.asked = false;
                if new_session {
                    self.forget(cluster, index);
                }
                (ticket, answer)
            }
        };
        match answer {
            Ok(Answer::Probe(answer)) => self.probed(cluster, index, &ticket, answer, now),
            Ok(Answer::Positions(positions)) => self.mark(cluster, index, &ticket, positions, now),
            Ok(Answer::Replayed { lsn, timeline }) => {
                self.replayed(cluster, index, &ticket, lsn, timeline, now);
            }
            Ok(Answer::Backends(backends)) if ticket.term == self.term && self.primary == Some(index) => {
                cluster.floors.settle_left(ticket.epoch, &backends, cluster.epoch());
            }
            Ok(Answer::Backends(_)) => {}
            Err(trouble) if ticket.question == Question::Probe => {
                self.failed(cluster, index, &ticket, trouble, now);
            }
            // The next probe finds out why.
            Err(_) if ticket.question == Question::Backends => {}
            Err(_) => {
                self.poll_later(index, now);
                self.suspect(now);
            }
        }
    }

    /// What a server has replayed, its next start may have to replay again: nothing that it caught counts any more.
    fn forget(&mut self, cluster: &Cluster, index: usize) {
        if let Some(node) = self.nodes.get_mut(index) {
            (node.replayed, node.replayed_before) = (0, 0);
            node.seen.diverged = false;
        }
        if let Some(node) = cluster.nodes.get(index) {
            node.forget_caught();
        }
    }

    fn lost(&mut self, cluster: &Cluster, index: usize, reason: &str, now: Instant) {
        tracing::debug!(
            "database {}: the monitor's session at node {index} ended: {reason}",
            cluster.database
        );
        self.forget(cluster, index);
        // As with the clients' connections: others may be about to go the same way.
        cluster.lost_connection(index);
        self.suspect(now);
    }
}

#[cfg(test)]
#[path = "monitor_tests.rs"]
mod tests;
