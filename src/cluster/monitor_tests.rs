//! The monitor fed by hand: what counts, what no longer does, and in which order.

use tokio::sync::mpsc::Receiver;

use super::*;
use crate::{
    cluster::{
        NodeAddress, Role,
        ask::{Positions, ProbeAnswer, Trouble},
        decide::Fact,
        floors::{Changes, Open},
    },
    sql::Names,
};

struct Rig {
    cluster: Cluster,
    monitor: Monitor,
    asked: Vec<Receiver<Ticket>>,
    now: Instant,
}

impl Rig {
    fn new(nodes: usize) -> Self {
        let address = |node: usize| NodeAddress::new(format!("db{node}"), 5432);
        let now = Instant::now();
        let (asks, asked): (Vec<_>, Vec<_>) = (0..nodes).map(|_| mpsc::channel(1)).unzip();
        let nodes_asked = asks.into_iter().map(|ask| Watched::new(ask, now)).collect();
        let monitor = Monitor::new(nodes_asked, JoinSet::new(), now);
        let cluster = Cluster::new("db".to_owned(), (0..nodes).map(address).collect());
        Self { cluster, monitor, asked, now }
    }

    /// In the place of the nodes that another rig has watched.
    fn after(last: &Self, nodes: usize, by_operator: bool) -> Self {
        let addresses = last.cluster.nodes.iter().map(|node| node.address.clone()).take(nodes).collect();
        let cluster = Cluster::after("db".to_owned(), addresses, last.cluster.legacy(by_operator));
        let mut rig = Self::new(nodes);
        rig.monitor.accepted = cluster.inherited();
        Self { cluster, ..rig }
    }

    /// Lets time pass and gives the question that a node is asked then.
    fn asked(&mut self, node: usize, millis: u64) -> Option<Ticket> {
        self.now += Duration::from_millis(millis);
        self.monitor.ask_what_is_due(&self.cluster, self.now);
        self.asked[node].try_recv().ok()
    }

    fn tell(&mut self, node: usize, what: What) {
        self.monitor.take(&self.cluster, Told { node, what }, self.now);
    }

    fn answer(&mut self, node: usize, ticket: Ticket, answer: Result<Answer, Trouble>) {
        self.tell(node, What::Answer { ticket, answer, new_session: false });
    }

    /// Every node is probed and answers; what it was asked before, it answers alike.
    fn round(&mut self, answers: &[Result<Answer, Trouble>]) {
        self.now += Duration::from_millis(1);
        for (node, answer) in answers.iter().enumerate() {
            self.monitor.nodes[node].next_probe = self.now;
            while let Some(ticket) = self.asked(node, 0) {
                let probed = ticket.question == Question::Probe;
                let answer = if probed { answer.clone() } else { Err(Trouble::Missed("lost".to_owned())) };
                self.answer(node, ticket, answer);
                if probed {
                    break;
                }
                self.monitor.nodes[node].next_probe = self.now;
            }
        }
        // Answers after the last probe may have been taken for trouble.
        self.monitor.suspect_since = None;
        for (node, asked) in self.monitor.nodes.iter_mut().zip(&mut self.asked) {
            node.next_probe = self.now + Duration::from_secs(1);
            node.asked = false;
            while asked.try_recv().is_ok() {}
        }
    }

    fn roles(&self) -> Vec<Role> {
        self.cluster.nodes.iter().map(crate::cluster::Node::role).collect()
    }

    /// The primary is polled: the number of the poll.
    fn poll(&mut self, node: usize, flush: u64) -> u64 {
        self.cluster.want_poll();
        let ticket = self.asked(node, 10).unwrap();
        assert_eq!(ticket.question, Question::Positions);
        self.answer(node, ticket, positions(flush));
        ticket.epoch
    }

    /// The next poll of a replica.
    fn replica_ticket(&mut self, node: usize) -> Ticket {
        let ticket = self.asked(node, 10).unwrap();
        assert_eq!(ticket.question, Question::Replayed);
        ticket
    }
}

fn probe(standby: bool, timeline: u32, lsn: u64) -> Result<Answer, Trouble> {
    let positions = Positions { flush: lsn, insert: lsn, async_commits: false };
    let fact = Fact { standby, system: 7, timeline, lsn };
    Ok(Answer::Probe(ProbeAnswer { fact, positions: (!standby).then_some(positions) }))
}

fn positions(flush: u64) -> Result<Answer, Trouble> {
    Ok(Answer::Positions(Positions { flush, insert: flush, async_commits: false }))
}

fn replayed(lsn: u64, timeline: u32) -> Result<Answer, Trouble> {
    Ok(Answer::Replayed { lsn, timeline: Some(timeline) })
}

fn refused() -> Result<Answer, Trouble> {
    Err(Trouble::Refused("nobody listens".to_owned()))
}

#[test]
fn number_is_taken_before_the_question_and_covers_only_what_was_written_before() {
    let mut rig = Rig::new(2);
    rig.round(&[probe(false, 1, 100), probe(true, 1, 100)]);
    assert_eq!(rig.roles(), [Role::Primary, Role::Replica]);
    rig.cluster.want_poll();
    let before = rig.cluster.epoch();
    let ticket = rig.asked(0, 10).unwrap();
    assert_eq!((ticket.epoch, rig.cluster.epoch()), (before + 1, before + 1));
    // Acknowledged while the question is on its way: the answer may not have it.
    let during = rig.cluster.epoch();
    rig.answer(0, ticket, positions(110));
    let ticket = rig.replica_ticket(1);
    rig.answer(1, ticket, replayed(109, 1));
    assert!(!rig.cluster.caught_up(1, before));
    let ticket = rig.replica_ticket(1);
    rig.answer(1, ticket, replayed(110, 1));
    assert!(rig.cluster.caught_up(1, before) && !rig.cluster.caught_up(1, during));
    // A wish that comes while a poll is on its way gets another one.
    rig.cluster.want_poll();
    let ticket = rig.asked(0, 10).unwrap();
    rig.cluster.want_poll();
    assert!(rig.asked(0, 10).is_none(), "one at a time");
    rig.answer(0, ticket, positions(120));
    assert_eq!(rig.asked(0, 10).map(|next| next.epoch), Some(ticket.epoch + 1));
}

/// Nodes: the old primary, the promoted one, and their sibling, which was ahead of it.
#[test]
fn nothing_of_an_earlier_reign_counts_in_the_next() {
    let mut rig = Rig::new(3);
    rig.round(&[probe(false, 1, 100), probe(true, 1, 100), probe(true, 1, 100)]);
    rig.poll(0, 200);
    let (old, late) = (rig.replica_ticket(2), rig.cluster.epoch());
    let generation = rig.cluster.generation();
    rig.round(&[refused(), probe(false, 2, 150), probe(true, 1, 190)]);
    assert_eq!(rig.roles(), [Role::Down, Role::Primary, Role::Replica]);
    assert!(rig.cluster.generation() > generation);
    assert!(rig.cluster.floors.of(&Names::Known([].into())) >= late, "readers need a later epoch");
    assert_eq!(rig.cluster.caught(2), 0);
    // An answer that was asked for in the old reign.
    rig.answer(2, old, replayed(200, 1));
    assert_eq!(rig.cluster.caught(2), 0);
    // ROUTING 4.6: positions of another timeline, however high, do not count.
    let epoch = rig.poll(1, 160);
    rig.round(&[refused(), probe(false, 2, 160), probe(true, 1, 200)]);
    assert_eq!((rig.cluster.caught(2), rig.cluster.choose_replica(0, None, 7)), (0, None));
    rig.round(&[refused(), probe(false, 2, 160), probe(true, 2, 160)]);
    assert!(rig.cluster.caught_up(2, epoch - 1));
    assert_eq!(rig.cluster.primary(), Some(1));
}

#[test]
fn replica_that_follows_somebody_else_meanwhile_catches_nothing() {
    let mut rig = Rig::new(2);
    rig.round(&[probe(false, 1, 100), probe(true, 1, 100)]);
    let epoch = rig.poll(0, 110);
    let ticket = rig.replica_ticket(1);
    rig.answer(1, ticket, replayed(500, 2));
    assert!(!rig.cluster.caught_up(1, epoch - 1));
    assert!(rig.monitor.suspect_since.is_some());
}

#[test]
fn new_session_at_a_replica_starts_from_nothing() {
    for lost in [true, false] {
        let mut rig = Rig::new(2);
        rig.round(&[probe(false, 1, 100), probe(true, 1, 100)]);
        rig.poll(0, 100);
        let ticket = rig.replica_ticket(1);
        rig.answer(1, ticket, replayed(100, 1));
        assert!(rig.cluster.caught(1) > 0);
        if lost {
            rig.tell(1, What::Lost("end of stream".to_owned()));
            assert_eq!(rig.cluster.caught(1), 0);
            continue;
        }
        // It was restarted and is back where it was consistent.
        rig.monitor.nodes[1].next_probe = rig.now;
        let ticket = rig.asked(1, 0).unwrap();
        rig.tell(1, What::Answer { ticket, answer: probe(true, 1, 90), new_session: true });
        assert_eq!(rig.cluster.caught(1), 0);
    }
}

#[test]
fn replica_ahead_of_its_primary_is_not_read_from() {
    let mut rig = Rig::new(2);
    rig.round(&[probe(false, 1, 100), probe(true, 1, 100)]);
    rig.poll(0, 120);
    let ticket = rig.replica_ticket(1);
    // The replica replays on while the primary is asked: that is no divergence.
    rig.answer(1, ticket, replayed(130, 1));
    rig.poll(0, 130);
    assert_eq!(rig.cluster.choose_replica(0, None, 7), Some(1));
    rig.poll(0, 125);
    assert_eq!(rig.cluster.choose_replica(0, None, 7), None);
    let reason = rig.cluster.nodes[1].report().reason.unwrap();
    assert!(reason.contains("does not have"), "{reason}");
}

#[test]
fn replicas_alone_are_read_from_until_there_is_a_primary() {
    let mut rig = Rig::new(2);
    rig.round(&[refused(), probe(true, 1, 100)]);
    assert_eq!((rig.cluster.primary(), rig.cluster.choose_replica(0, None, 7)), (None, Some(1)));
    assert_eq!(rig.cluster.choose_replica(0, Some(Duration::from_secs(1)), 7), None);
    rig.round(&[probe(false, 1, 100), probe(true, 1, 100)]);
    // Once there is one, they have to catch up like all others.
    assert_eq!((rig.cluster.primary(), rig.cluster.caught(1)), (Some(0), 0));
}

/// The same of another system.
fn of_system(system: u64, answer: Result<Answer, Trouble>) -> Result<Answer, Trouble> {
    answer.map(|answer| match answer {
        Answer::Probe(probe) => Answer::Probe(ProbeAnswer { fact: Fact { system, ..probe.fact }, ..probe }),
        other => other,
    })
}

/// H29: what was the last primary is known to the nodes that take the place of those before.
#[test]
fn next_list_begins_with_the_last_primary() {
    let mut first = Rig::new(3);
    first.round(&[probe(false, 3, 100), probe(true, 3, 100), refused()]);
    first.poll(0, 200);
    // Nobody was a primary in between, and it is known all the same.
    let mut between = Rig::after(&first, 3, true);
    between.round(&[refused(), refused(), refused()]);
    let next = |nodes| Rig::after(&between, nodes, true);
    for (node, role) in [
        (probe(false, 2, 900), Role::Fenced),
        // Where it was it may be back with less; elsewhere it would be a copy.
        (probe(false, 3, 150), Role::Primary),
        (probe(false, 4, 150), Role::Primary),
    ] {
        let mut rig = next(1);
        rig.round(std::slice::from_ref(&node));
        assert_eq!(rig.roles(), [role], "{node:?}");
    }
    let mut copy = next(2);
    copy.round(&[refused(), probe(false, 3, 150)]);
    assert_eq!(copy.roles(), [Role::Down, Role::Fenced]);
    copy.round(&[refused(), probe(false, 3, 200)]);
    assert_eq!(copy.roles(), [Role::Down, Role::Primary]);
}

/// Reads go on where the list changes while there is no primary: from replicas that have what the last one had told.
#[test]
fn replicas_of_the_next_list_catch_what_the_last_primary_has_told() {
    let mut first = Rig::new(3);
    first.round(&[probe(false, 3, 100), probe(true, 3, 90), refused()]);
    let (early, late) = (first.poll(0, 110), first.poll(0, 200));
    first.cluster.floors.raise(&Names::Any, early - 1);
    let next = |first: &Rig, lsn, timeline| {
        let mut rig = Rig::after(first, 2, true);
        assert_eq!((rig.cluster.epoch(), rig.cluster.floors.of(&Names::Any)), (late, early - 1));
        assert_eq!(rig.cluster.choose_replica(0, None, 7), None, "it has not said anything yet");
        rig.round(&[refused(), probe(true, timeline, lsn)]);
        assert_eq!(rig.roles(), [Role::Down, Role::Replica]);
        rig
    };
    // Not taken for fresh because no primary was seen here.
    assert_eq!(next(&first, 99, 3).cluster.caught(1), 0);
    assert_eq!(next(&first, 200, 4).cluster.caught(1), 0);
    assert_eq!(next(&first, 110, 3).cluster.caught(1), early);
    let mut rig = next(&first, 200, 3);
    assert_eq!(rig.cluster.caught(1), late);
    // What goes on in the old list is seen in the new one, and no question is asked under an old number.
    first.cluster.floors.raise(&Names::Any, late);
    assert_eq!(rig.cluster.floors.of(&Names::Any), late);
    // Time goes on too: what is shown is as old as it is.
    assert!(rig.cluster.staleness(1) >= first.cluster.staleness(1));
    rig.round(&[probe(false, 3, 210), probe(true, 3, 200)]);
    assert_eq!(rig.cluster.caught(1), late, "marks of the same reign");
    assert!(rig.poll(0, 220) > late);
    rig.round(&[refused(), probe(false, 4, 200)]);
    assert!(rig.cluster.floors.of(&Names::Any) > late);
    // Another primary's marks are no longer the first one's.
    let mut other = Rig::after(&rig, 1, true);
    other.round(&[probe(true, 3, 900)]);
    assert_eq!(other.cluster.caught(0), 0);
    // Where there was no list for a while, all has to be asked for anew.
    let mut lapsed = first.cluster.legacy(true);
    assert!(Cluster::after("db".to_owned(), Vec::new(), lapsed.clone()).marks().newest().is_some());
    lapsed.lapse();
    let cluster = Cluster::after("db".to_owned(), Vec::new(), lapsed);
    assert!(cluster.marks().newest().is_none() && cluster.floors.of(&Names::Any) == cluster.epoch());
}

#[test]
fn other_system_is_meant_only_by_an_operator_and_if_nothing_of_the_last_is_left() {
    let mut first = Rig::new(2);
    first.round(&[probe(false, 3, 100), probe(true, 3, 100)]);
    let of_another = |answer| of_system(8, answer);
    for (by_operator, other, role) in [
        (true, of_another(probe(true, 1, 50)), Role::Primary),
        (false, of_another(probe(true, 1, 50)), Role::Fenced),
        (true, probe(true, 3, 100), Role::Fenced),
        (true, refused(), Role::Fenced),
    ] {
        let mut rig = Rig::after(&first, 2, by_operator);
        rig.round(&[of_another(probe(false, 1, 50)), other]);
        assert_eq!(rig.roles()[0], role, "{by_operator}");
        if role == Role::Primary {
            // From here on it is the one that counts.
            rig.round(&[probe(false, 9, 100), probe(true, 9, 100)]);
            assert_eq!(rig.roles(), [Role::Fenced; 2]);
        }
    }
}

#[test]
fn suspicion_probes_often_until_roles_are_settled() {
    let mut rig = Rig::new(2);
    let up = [probe(false, 1, 100), probe(true, 1, 100)];
    rig.round(&up);
    let probed = |rig: &mut Rig, millis, answer: [Result<Answer, Trouble>; 2]| {
        let mut times = 0;
        for (node, answer) in answer.into_iter().enumerate() {
            let mut ticket = rig.asked(node, if node == 0 { millis } else { 0 });
            while let Some(asked) = ticket {
                times += u32::from(asked.question == Question::Probe);
                let answer = match asked.question {
                    Question::Probe => answer.clone(),
                    Question::Positions => positions(100),
                    Question::Replayed => replayed(100, 1),
                    Question::Backends => unreachable!("nothing was left"),
                };
                rig.answer(node, asked, answer);
                ticket = rig.asked(node, 0);
            }
        }
        times
    };
    let down = || [refused(), probe(true, 1, 100)];
    assert_eq!(probed(&mut rig, 200, up.clone()), 0);
    rig.cluster.suspect();
    assert_eq!(probed(&mut rig, 1, down()), 2, "at once");
    // No primary: again and again.
    for _ in 0..5 {
        assert_eq!((probed(&mut rig, 20, down()), probed(&mut rig, 50, down())), (0, 2));
    }
    assert_eq!(probed(&mut rig, 50, up.clone()), 2);
    assert_eq!((rig.cluster.primary(), rig.monitor.suspect_since), (Some(0), None));
    assert_eq!((probed(&mut rig, 900, up.clone()), probed(&mut rig, 100, up)), (0, 2));
}

/// Where one connection to the primary was lost the others may follow: nothing is begun there until it has been asked.
#[test]
fn primary_is_doubtful_until_it_has_answered_a_question_asked_after_the_loss() {
    let mut rig = Rig::new(2);
    let up = [probe(false, 1, 100), probe(true, 1, 100)];
    rig.round(&up);
    assert!(!rig.cluster.is_doubtful());
    rig.cluster.lost_connection(1);
    assert!(!rig.cluster.is_doubtful(), "a replica's");
    rig.round(&up);
    let generation = rig.cluster.generation();
    let early = rig.asked(0, 1000).unwrap();
    rig.cluster.lost_connection(0);
    rig.answer(0, early, up[0].clone());
    assert!(rig.cluster.is_doubtful() && rig.cluster.generation() == generation);
    let mut ticket = rig.asked(0, 100).unwrap();
    while ticket.question != Question::Probe {
        rig.answer(0, ticket, positions(100));
        ticket = rig.asked(0, 100).unwrap();
    }
    rig.cluster.lost_connection(0);
    rig.answer(0, ticket, up[0].clone());
    assert!(rig.cluster.is_doubtful(), "another one was lost meanwhile");
    rig.round(&up);
    assert!(!rig.cluster.is_doubtful());
    assert_eq!(rig.cluster.generation(), generation + 1, "those who wait are told");
    // Somebody ends sessions one by one: that must not keep everybody waiting.
    rig.cluster.lost_connection(0);
    assert!(!rig.cluster.is_doubtful());
    rig.cluster.settled_at.store(0, Ordering::Relaxed);
    // One that lets nobody look is there all the same.
    rig.cluster.lost_connection(0);
    rig.round(&[Err(Trouble::Locked("too many clients".to_owned())), up[1].clone()]);
    assert!(!rig.cluster.is_doubtful());
    rig.cluster.settled_at.store(0, Ordering::Relaxed);
    // The monitor's own session is one like others.
    rig.tell(1, What::Lost("end of stream".to_owned()));
    assert!(!rig.cluster.is_doubtful(), "a replica's");
    rig.tell(0, What::Lost("end of stream".to_owned()));
    assert!(rig.cluster.is_doubtful());
    rig.round(&up);
    assert!(!rig.cluster.is_doubtful());
    rig.cluster.settled_at.store(0, Ordering::Relaxed);
    // Of another primary nothing is said by it.
    rig.cluster.lost_connection(0);
    rig.round(&[refused(), probe(false, 2, 100)]);
    assert_eq!(rig.cluster.primary(), Some(1));
    assert!(!rig.cluster.is_doubtful());
}

/// A server was closed amid a write: it counts as open until the primary has no such backend any more.
#[test]
fn backend_that_was_left_is_looked_for_until_it_is_gone() {
    let mut rig = Rig::new(2);
    rig.round(&[probe(false, 1, 100), probe(true, 1, 100)]);
    let cluster = Arc::new(Cluster::new("db".to_owned(), Vec::new()));
    rig.cluster.floors = Arc::clone(&cluster.floors);
    let mut everything = Changes::default();
    everything.add(&Names::Any);
    let leave = |backend| {
        let mut open = Open::default();
        open.add(&cluster, &everything);
        open.leave(backend);
    };
    let is_open = || cluster.floors.may_show_more(&everything, &Open::default());
    let backends = |pids: &[u32]| Ok(Answer::Backends(pids.to_vec()));
    rig.poll(0, 100);
    assert!(rig.asked(0, 60).is_none());
    leave(70);
    let ticket = rig.asked(0, 60).unwrap();
    assert_eq!(ticket.question, Question::Backends);
    rig.answer(0, ticket, backends(&[7, 70]));
    assert!(is_open() && rig.asked(0, 10).is_none(), "not all the time");
    let ticket = rig.asked(0, 60).unwrap();
    rig.answer(0, ticket, Err(Trouble::Missed("late".to_owned())));
    assert!(is_open() && rig.monitor.suspect_since.is_none());
    let ticket = rig.asked(0, 60).unwrap();
    rig.answer(0, ticket, backends(&[7]));
    assert!(!is_open() && rig.asked(0, 60).is_none());
    assert_eq!(cluster.floors.of(&Names::Any), rig.cluster.epoch());
    // Another primary has no part in it.
    leave(71);
    rig.round(&[refused(), probe(false, 2, 100)]);
    assert!(!is_open());
}
