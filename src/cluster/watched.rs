//! What the monitor makes of the answers: marks, what replicas have caught, roles, and the log of their changes.

use std::{
    borrow::Cow,
    time::{Duration, Instant},
};

use tokio::sync::mpsc::Sender;

use super::{
    Cluster, Role,
    ask::{Positions, ProbeAnswer, Ticket, Trouble},
    decide::{Accepted, Health, Ruling, Seen, Verdict, decide},
    epochs::Mark,
    monitor::Monitor,
};
use crate::events::Kind;

/// Between questions to a replica that has not caught up: at once at first, then longer and longer.
const EAGER: u32 = 3;
const FIRST_GAP: Duration = Duration::from_millis(1);
const LONGEST_GAP: Duration = Duration::from_millis(5);

/// One node, as the monitor sees it.
pub(super) struct Watched {
    pub(super) ask: Sender<Ticket>,
    /// A question is on its way.
    pub(super) asked: bool,
    pub(super) seen: Seen,
    /// Why it does not answer.
    trouble: Option<String>,
    /// The last ruling's, to log it once.
    reason: Option<Cow<'static, str>>,
    pub(super) eligible: bool,
    pub(super) last_probe: Instant,
    pub(super) next_probe: Instant,
    pub(super) next_poll: Instant,
    /// Questions in a row after which it had not caught up.
    polls: u32,
    pub(super) replayed: u64,
    /// The same when the primary was last asked: it must have had all of that then.
    pub(super) replayed_before: u64,
    /// When its last finished probe began.
    probed: Option<Instant>,
    probe_time: Duration,
}

impl Watched {
    pub(super) fn new(ask: Sender<Ticket>, now: Instant) -> Self {
        Self {
            ask,
            asked: false,
            seen: Seen::NOTHING,
            trouble: None,
            reason: None,
            eligible: false,
            last_probe: now,
            next_probe: now,
            next_poll: now,
            polls: 0,
            replayed: 0,
            replayed_before: 0,
            probed: None,
            probe_time: Duration::ZERO,
        }
    }

    pub(super) fn is_locked(&self) -> bool {
        self.seen.health == Health::Locked
    }

    fn poll_gap(&self) -> Duration {
        match self.polls.checked_sub(EAGER) {
            None => Duration::ZERO,
            Some(times) => FIRST_GAP.saturating_mul(1 << times.min(8)).min(LONGEST_GAP),
        }
    }
}

impl Monitor {
    pub(super) fn probed(
        &mut self,
        cluster: &Cluster,
        index: usize,
        ticket: &Ticket,
        answer: ProbeAnswer,
        now: Instant,
    ) {
        let Some(node) = self.nodes.get_mut(index) else { return };
        node.seen.health = Health::Answers;
        node.seen.fact = Some(answer.fact);
        node.trouble = None;
        node.probe_time = now.saturating_duration_since(ticket.start);
        node.probed = Some(ticket.start);
        self.judge(cluster, now);
        self.settle_doubts(cluster, index, ticket);
        match answer.positions {
            Some(positions) => self.mark(cluster, index, ticket, positions, now),
            None => self.caught(cluster, index, ticket, answer.fact.lsn, now),
        }
    }

    pub(super) fn failed(
        &mut self,
        cluster: &Cluster,
        index: usize,
        ticket: &Ticket,
        trouble: Trouble,
        now: Instant,
    ) {
        let Some(node) = self.nodes.get_mut(index) else { return };
        let (health, text) = match trouble {
            Trouble::Missed(text) => match node.seen.health {
                Health::Missed(times) => (Health::Missed(times.saturating_add(1)), text),
                Health::Refused => (Health::Refused, text),
                _ => (Health::Missed(1), text),
            },
            Trouble::Refused(text) => (Health::Refused, text),
            Trouble::Locked(text) => (Health::Locked, text),
        };
        if health == Health::Locked && node.trouble.as_ref() != Some(&text) {
            let name = cluster.node_name(index);
            tracing::warn!("database {}: cannot look at node {name}: {text}", cluster.database);
        }
        node.seen.health = health;
        node.trouble = Some(text);
        node.probe_time = now.saturating_duration_since(ticket.start);
        node.probed = Some(ticket.start);
        if self.primary == Some(index) {
            self.suspect(now);
        }
        self.judge(cluster, now);
        // It is there, and will not say more.
        if health == Health::Locked {
            self.settle_doubts(cluster, index, ticket);
        }
    }

    /// The node has answered; if it is the primary, it was still there when it was asked.
    fn settle_doubts(&self, cluster: &Cluster, index: usize, ticket: &Ticket) {
        if self.primary == Some(index) {
            cluster.settle_doubts(ticket.doubts);
        }
    }

    /// The primary said where its WAL ends.
    pub(super) fn mark(
        &mut self,
        cluster: &Cluster,
        index: usize,
        ticket: &Ticket,
        positions: Positions,
        now: Instant,
    ) {
        if ticket.term != self.term || self.primary != Some(index) || ticket.epoch == 0 {
            return;
        }
        // Before anything is caught by it.
        if positions.async_commits {
            cluster.note_async_commits();
        }
        let Positions { flush, insert, .. } = positions;
        if let Some(fact) = self.nodes.get_mut(index).and_then(|node| node.seen.fact.as_mut()) {
            fact.lsn = flush;
        }
        if let Some(last) = &mut self.accepted {
            last.lsn = last.lsn.max(flush);
            cluster.note_reign(*last);
        }
        let eager: Vec<bool> = (0..self.nodes.len()).map(|node| !self.is_behind(cluster, node)).collect();
        let mark = Mark { epoch: ticket.epoch, start: ticket.start, flush, insert };
        let timeline = self.accepted.map_or(0, |last| last.timeline);
        cluster.marks().push(timeline, mark);
        cluster.tell_position(timeline, mark);
        let mut diverged = false;
        for (node, eager) in self.nodes.iter_mut().zip(eager) {
            if node.eligible && node.replayed_before > flush {
                node.seen.diverged = true;
                diverged = true;
            }
            if eager {
                node.polls = 0;
                node.next_poll = now;
            }
        }
        self.ask_replicas_for_a_while(now);
        self.forget_marks(cluster);
        if diverged {
            self.judge(cluster, now);
        }
    }

    /// A replica said how much it has replayed, and whom it follows if that can be seen.
    pub(super) fn replayed(
        &mut self,
        cluster: &Cluster,
        index: usize,
        ticket: &Ticket,
        lsn: u64,
        timeline: Option<u32>,
        now: Instant,
    ) {
        let expected = self.accepted.map(|last| last.timeline);
        if timeline.is_some() && timeline != expected {
            // A promotion that has not been seen yet: what it replays now may be another's.
            self.poll_later(index, now);
            return self.suspect(now);
        }
        self.caught(cluster, index, ticket, lsn, now);
    }

    fn caught(&mut self, cluster: &Cluster, index: usize, ticket: &Ticket, lsn: u64, now: Instant) {
        if ticket.term != self.term || !self.reads(index) {
            return;
        }
        cluster.caught_marks(index, cluster.marks().caught(lsn));
        cluster.tell_replayed(index, lsn);
        let behind = self.is_behind(cluster, index);
        if let Some(node) = self.nodes.get_mut(index) {
            node.replayed = node.replayed.max(lsn);
            node.polls = if behind { node.polls.saturating_add(1) } else { 0 };
            node.next_poll = now + node.poll_gap();
        }
        self.forget_marks(cluster);
    }

    /// It gave no answer that is of use.
    pub(super) fn poll_later(&mut self, index: usize, now: Instant) {
        if let Some(node) = self.nodes.get_mut(index) {
            node.next_poll = now + LONGEST_GAP;
        }
    }

    /// Drops the marks that no replica needs any more.
    fn forget_marks(&mut self, cluster: &Cluster) {
        let replicas = cluster.nodes.iter().zip(&self.nodes).filter(|(_, watched)| watched.eligible);
        let least =
            replicas.map(|(node, _)| node.caught_both()).map(|(flush, insert)| flush.min(insert)).min();
        let mut marks = cluster.marks();
        let newest = marks.newest().map(|mark| mark.epoch);
        if let Some(epoch) = least.or(newest) {
            marks.forget_before(epoch);
        }
    }

    /// Decides who is what, and makes it known.
    pub(super) fn judge(&mut self, cluster: &Cluster, now: Instant) {
        let seen: Vec<Seen> = self.nodes.iter().map(|node| node.seen).collect();
        if self.accepted.is_some_and(|last| cluster.is_of_another_system(last, &seen)) {
            self.accepted = None;
            cluster.marks().clear();
            cluster.catalog.outdate();
        }
        let Some(verdict) = decide(self.accepted, cluster.leader(), &seen) else {
            return self.report(cluster, &[]);
        };
        let reign = |accepted: Option<Accepted>| accepted.map(|last| (last.node, last.timeline));
        let other_primary = reign(verdict.accepted) != reign(self.accepted);
        if other_primary {
            self.term += 1;
            cluster.marks().clear();
            for node in &mut self.nodes {
                (node.replayed, node.replayed_before) = (0, 0);
            }
            // Replicas are of use again as soon as possible.
            self.want_poll = true;
        }
        let before: Vec<Role> = cluster.nodes.iter().map(super::Node::role).collect();
        cluster.publish(&verdict, other_primary);
        if self.primary.is_some() && verdict.primary.is_none() {
            self.suspect(now);
        }
        self.follow(cluster, &verdict, now);
        for (index, ruling) in verdict.rulings.iter().enumerate() {
            self.log(cluster, index, before.get(index).copied().unwrap_or(Role::Unknown), ruling);
        }
        self.report(cluster, &before);
    }

    /// What the monitor does next follows from what was decided.
    fn follow(&mut self, cluster: &Cluster, verdict: &Verdict, now: Instant) {
        self.primary = verdict.primary;
        self.accepted = verdict.accepted;
        if let Some(last) = verdict.accepted.filter(|_| verdict.primary.is_some()) {
            cluster.note_reign(last);
        }
        for (index, (node, ruling)) in self.nodes.iter_mut().zip(&verdict.rulings).enumerate() {
            let silent = node.seen.health != Health::Answers;
            if let Some(node) = cluster.nodes.get(index) {
                node.set_silent(silent);
            }
            if ruling.eligible && !node.eligible {
                node.polls = 0;
                node.next_poll = now;
                (node.replayed, node.replayed_before) = (0, 0);
                self.want_poll = true;
            }
            node.eligible = ruling.eligible;
            if ruling.eligible && verdict.accepted.is_none() && verdict.settled {
                cluster.caught_nothing_to_catch(index);
            }
        }
        let asked_since = self.nodes.iter().all(|node| node.probed >= Some(self.suspected_at));
        if verdict.primary.is_some() && verdict.settled && asked_since && self.suspect_since.is_some() {
            self.suspect_since = None;
            for node in &mut self.nodes {
                node.next_probe = node.last_probe + self.settings.check_interval;
            }
        }
    }

    fn log(&mut self, cluster: &Cluster, index: usize, before: Role, ruling: &Ruling) {
        let Some(node) = self.nodes.get_mut(index) else { return };
        let news = before != ruling.role || node.reason != ruling.reason;
        node.reason.clone_from(&ruling.reason);
        if !news {
            return;
        }
        let (database, name, role) = (&cluster.database, cluster.node_name(index), ruling.role);
        let reason = ruling.reason.as_deref().or(node.trouble.as_deref());
        let reason = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
        let text = format!("node {name} was {before}, is {role}{reason}");
        let another = role == Role::Primary && before != Role::Unknown && before != role;
        let kind = if another { Kind::Failover } else { Kind::Node };
        if role.is_out() || before == Role::Primary && role != before {
            cluster.events.warn(kind, database, &text);
        } else {
            cluster.events.tell(kind, database, &text);
        }
        if role.is_out() || before == Role::Primary {
            tracing::warn!("database {database}: {text}");
        } else {
            tracing::info!("database {database}: {text}");
        }
    }

    /// What operators see.
    fn report(&self, cluster: &Cluster, before: &[Role]) {
        let newest = self.accepted.map(|last| last.lsn);
        for (index, (node, watched)) in cluster.nodes.iter().zip(&self.nodes).enumerate() {
            let before = before.get(index).copied().unwrap_or(Role::Unknown);
            node.update_report(before, |report| {
                if let Some(fact) = watched.seen.fact {
                    report.timeline = fact.timeline;
                    report.system_identifier = fact.system;
                    report.lsn = fact.lsn.max(watched.replayed);
                    report.lag_bytes = newest.map_or(0, |newest| newest.saturating_sub(report.lsn));
                }
                report.probe_time = u64::try_from(watched.probe_time.as_micros()).unwrap_or(u64::MAX);
                report.reason = watched.reason.as_deref().or(watched.trouble.as_deref()).map(str::to_owned);
            });
        }
    }
}

impl Cluster {
    /// A node's name in logs.
    pub(super) fn node_name(&self, index: usize) -> String {
        let address = self.nodes.get(index).map(|node| &node.address);
        address.map(ToString::to_string).unwrap_or_default()
    }
}
