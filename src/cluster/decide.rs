//! Who is the primary: from what every node said of itself to what it is used for. Pure.
//!
//! The rule above all others: whatever may be an old primary gets no writes. In doubt there is no primary.
//!
//! | seen | ruling |
//! |---|---|
//! | another system identifier than the primary's (or, before there was one, than most have) | fenced |
//! | takes writes, on the highest timeline of all that do and of all standbys | primary |
//! | takes writes, on a lower timeline than another node, or than the last primary's | fenced |
//! | several take writes on one timeline | the primary stays as long as it answers; else none of them |
//! | takes writes on the last primary's timeline, but is another node | primary if it has all of its WAL, else fenced |
//! | standby on the primary's timeline | replica |
//! | standby on another timeline | replica that no read is sent to; a higher one fences the primary |
//! | did not answer in time | what it was; down at the third time |
//! | refuses connections | down |
//! | refuses the login | what it was |
//! | would be the primary, but Patroni names another node | fenced; there is no primary |
//!
//! A promotion always makes a new timeline, a restart never does: source/backend/access/transam/xlog.c of PostgreSQL.

use std::borrow::Cow;

use super::Role;

/// A node is down when it did not answer so many times.
pub(super) const MISSES: u32 = 3;

/// What a node said of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fact {
    pub(super) standby: bool,
    pub(super) system: u64,
    /// The timeline that it writes; of a standby: that it receives.
    pub(super) timeline: u32,
    /// Flushed; of a standby: replayed.
    pub(super) lsn: u64,
}

/// Whether a node answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    /// It was not asked yet.
    Unasked,
    Answers,
    /// It did not answer in time, so many times in a row.
    Missed(u32),
    /// Nobody listens, or only to say that the server is not up.
    Refused,
    /// It answers, but does not let pooler look.
    Locked,
}

/// What is known of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) health: Health,
    /// Its last answer.
    pub(super) fact: Option<Fact>,
    /// A standby that has replayed WAL which its primary does not have.
    pub(super) diverged: bool,
}

impl Seen {
    pub(super) const NOTHING: Self = Self { health: Health::Unasked, fact: None, diverged: false };

    /// The last answer, as long as it may be taken for the truth.
    fn usable(&self) -> Option<Fact> {
        match self.health {
            Health::Answers | Health::Locked => self.fact,
            Health::Missed(times) if times < MISSES => self.fact,
            _ => None,
        }
    }

    fn candidate(&self, system: u64) -> Option<Fact> {
        self.usable().filter(|fact| !fact.standby && fact.system == system)
    }
}

/// The last primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Accepted {
    pub(super) node: usize,
    pub(super) system: u64,
    pub(super) timeline: u32,
    /// The highest position that it is known to have flushed.
    pub(super) lsn: u64,
}

/// What a node is used for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ruling {
    pub(super) role: Role,
    /// Reads may be sent there, as soon as it has caught up.
    pub(super) eligible: bool,
    pub(super) reason: Option<Cow<'static, str>>,
}

impl Ruling {
    fn plain(role: Role) -> Self {
        Self { role, eligible: false, reason: None }
    }

    fn because(role: Role, reason: impl Into<Cow<'static, str>>) -> Self {
        Self { role, eligible: false, reason: Some(reason.into()) }
    }
}

/// The result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) primary: Option<usize>,
    /// The last primary, with this one; it outlives a time without any.
    pub(super) accepted: Option<Accepted>,
    pub(super) rulings: Vec<Ruling>,
    /// Nothing more is to be expected of the nodes that did not answer.
    pub(super) settled: bool,
}

/// Decides. `None` until every node has answered or failed to, once.
/// `leader`: the only node that may win, if that is known.
pub(super) fn decide(accepted: Option<Accepted>, leader: Option<usize>, seen: &[Seen]) -> Option<Verdict> {
    if seen.iter().any(|node| node.health == Health::Unasked) {
        return None;
    }
    let system = accepted.map(|last| last.system).or_else(|| likely_system(seen));
    let election = elect(accepted, system, seen).confirmed_by(leader);
    let accepted = election.winner.or(accepted);
    let primary = election.winner.map(|winner| winner.node);
    let view = View { accepted, primary, system, election: &election, seen };
    let rulings = seen.iter().enumerate().map(|(index, node)| rule(&view, index, node)).collect();
    let waiting = |node: &Seen| matches!(node.health, Health::Missed(times) if times < MISSES);
    let settled = !seen.iter().any(waiting);
    Some(Verdict { primary, accepted, rulings, settled })
}

/// The system that most nodes belong to; of as many, the one of a node that takes writes, then of the first node.
fn likely_system(seen: &[Seen]) -> Option<u64> {
    let facts = || seen.iter().filter_map(Seen::usable);
    let weight = |system: u64| {
        let of_it = || facts().filter(move |fact| fact.system == system);
        (of_it().count(), of_it().any(|fact| !fact.standby))
    };
    // `max_by_key` takes the last of equals.
    let systems: Vec<u64> = facts().map(|fact| fact.system).collect();
    systems.into_iter().rev().max_by_key(|system| weight(*system))
}

/// Who may write.
struct Election {
    winner: Option<Accepted>,
    /// Why none of those who would does.
    reason: Option<Cow<'static, str>>,
    /// Another node takes writes on the winner's timeline: who a standby follows is not known.
    rivals: bool,
}

impl Election {
    fn none(reason: impl Into<Cow<'static, str>>) -> Self {
        Self { winner: None, reason: Some(reason.into()), rivals: false }
    }

    /// Whoever keeps the lock in Patroni's store is the only one that may write.
    fn confirmed_by(self, leader: Option<usize>) -> Self {
        match (&self.winner, leader) {
            (Some(winner), Some(leader)) if winner.node != leader => {
                Self { rivals: self.rivals, ..Self::none("Patroni names another node as the leader") }
            }
            _ => self,
        }
    }
}

fn elect(accepted: Option<Accepted>, system: Option<u64>, seen: &[Seen]) -> Election {
    let none = Election { winner: None, reason: None, rivals: false };
    let Some(system) = system else { return none };
    let candidates =
        || seen.iter().enumerate().filter_map(|(index, node)| Some((index, node.candidate(system)?)));
    let Some(top) = candidates().map(|(_, fact)| fact.timeline).max() else { return none };
    if let Some(last) = accepted.filter(|last| top < last.timeline) {
        return Election::none(format!(
            "its timeline {top} is older than {} of the last primary; restart pooler if it is meant to be one",
            last.timeline
        ));
    }
    let standbys = seen.iter().filter_map(Seen::usable).filter(|f| f.standby && f.system == system);
    if let Some(newest) = standbys.map(|fact| fact.timeline).max().filter(|newest| *newest > top) {
        return Election::none(format!("its timeline {top} is older than {newest}, which a standby follows"));
    }
    let of_top: Vec<(usize, Fact)> = candidates().filter(|(_, fact)| fact.timeline == top).collect();
    let rivals = of_top.len() > 1;
    let won = |(node, fact): (usize, Fact)| {
        // Its own position may be lower after it was restored; others are measured by what was acknowledged.
        let winner = Accepted { node, system, timeline: fact.timeline, lsn: fact.lsn };
        Election { winner: Some(winner), reason: None, rivals }
    };
    let same = accepted.filter(|last| last.timeline == top);
    let incumbent = same.and_then(|last| of_top.iter().find(|(node, _)| *node == last.node));
    match (incumbent, of_top.as_slice()) {
        (Some(incumbent), _) => won(*incumbent),
        (None, [only]) => succeed(*only, same, seen).map_or_else(Election::none, |()| won(*only)),
        (None, _) => Election::none(format!("several nodes take writes on timeline {top}")),
    }
}

/// Whether the only candidate may follow `same`, the last primary if that had the same timeline.
fn succeed(
    (node, fact): (usize, Fact),
    same: Option<Accepted>,
    seen: &[Seen],
) -> Result<(), Cow<'static, str>> {
    if seen.get(node).is_none_or(|node| node.health != Health::Answers) {
        return Err("it does not answer any more".into());
    }
    match same {
        // A promotion would have made a new timeline. The same data at another address is fine; another branch that
        // happens to have this number, or an old copy, is not.
        Some(last) if fact.lsn < last.lsn => {
            Err("it lacks WAL of the last primary, which was on the same timeline".into())
        }
        _ => Ok(()),
    }
}

/// What the ruling on one node depends on.
struct View<'a> {
    accepted: Option<Accepted>,
    primary: Option<usize>,
    system: Option<u64>,
    election: &'a Election,
    seen: &'a [Seen],
}

impl View<'_> {
    /// The timeline that replicas have to be on.
    fn timeline(&self) -> Option<u32> {
        let standbys = || self.seen.iter().filter_map(Seen::usable).filter(|fact| fact.standby);
        let of_system = || standbys().filter(|fact| Some(fact.system) == self.system);
        self.accepted.map(|last| last.timeline).or_else(|| of_system().map(|fact| fact.timeline).max())
    }
}

fn rule(view: &View<'_>, index: usize, node: &Seen) -> Ruling {
    match node.health {
        Health::Refused => return Ruling::plain(Role::Down),
        Health::Missed(times) if times >= MISSES => return Ruling::plain(Role::Down),
        Health::Unasked | Health::Missed(_) | Health::Locked | Health::Answers => {}
    }
    let Some(fact) = node.fact else { return Ruling::plain(Role::Unknown) };
    if Some(fact.system) != view.system {
        return Ruling::because(Role::Fenced, format!("it belongs to another system ({})", fact.system));
    }
    if fact.standby {
        return rule_standby(view, node, fact);
    }
    match (view.primary, view.accepted) {
        (Some(primary), _) if primary == index => Ruling::plain(Role::Primary),
        (Some(_), Some(last)) if fact.timeline < last.timeline => Ruling::because(
            Role::Fenced,
            format!("its timeline {} is older than {} of the primary", fact.timeline, last.timeline),
        ),
        (Some(_), _) => {
            Ruling::because(Role::Fenced, "it takes writes on the timeline of the primary: split brain")
        }
        (None, _) => Ruling { role: Role::Fenced, eligible: false, reason: view.election.reason.clone() },
    }
}

fn rule_standby(view: &View<'_>, node: &Seen, fact: Fact) -> Ruling {
    let role = Role::Replica;
    if node.diverged {
        return Ruling::because(role, "it has replayed WAL that the primary does not have");
    }
    if view.election.rivals {
        return Ruling::because(role, "several nodes take writes on its timeline");
    }
    match view.timeline() {
        Some(timeline) if timeline != fact.timeline => {
            Ruling::because(role, format!("it follows timeline {}, not {timeline}", fact.timeline))
        }
        _ => Ruling { role, eligible: true, reason: None },
    }
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
