//! Who was the last primary, as the next list of nodes has to know it: never back to a lower timeline, whatever the list.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use super::{
    Cluster, NONE, NodeAddress,
    decide::{Accepted, Health, Seen},
};

/// The last primary of a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reign {
    address: NodeAddress,
    accepted: Accepted,
}

impl Reign {
    /// The timeline that it wrote.
    pub fn timeline(&self) -> u32 {
        self.accepted.timeline
    }
}

/// What a cluster knows of the last primary.
#[derive(Debug, Default)]
pub(super) struct Succession {
    last: Mutex<Option<Reign>>,
    /// An operator has given other nodes, of which none was a primary yet: if all are of another system, that one is meant.
    other_system: AtomicBool,
}

/// No node of this cluster.
const ELSEWHERE: usize = usize::MAX;

impl Cluster {
    /// The last primary was this. `by_operator`: the nodes were configured, not found.
    pub(super) fn succeed(&mut self, last: Option<Reign>, by_operator: bool) {
        let last = last.map(|reign| {
            let node = self.number_of(&reign.address).unwrap_or(ELSEWHERE);
            Reign { accepted: Accepted { node, ..reign.accepted }, ..reign }
        });
        self.succession = Succession { last: Mutex::new(last), other_system: by_operator.into() };
    }

    /// The last primary, of this cluster or of the one before.
    pub fn reign(&self) -> Option<Reign> {
        self.succession.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// An operator has changed the nodes, and none of them was a primary since.
    pub fn may_change_system(&self) -> bool {
        self.succession.other_system.load(Ordering::Relaxed)
    }

    /// Only this node may be the primary, whatever others say of themselves; `None`: that is not known.
    pub fn set_leader(&self, leader: Option<&NodeAddress>) {
        let index = leader.and_then(|leader| self.number_of(leader));
        let leader = index.and_then(|index| u32::try_from(index).ok()).unwrap_or(NONE);
        if self.leader.swap(leader, Ordering::AcqRel) != leader {
            self.suspect();
        }
    }

    pub(super) fn leader(&self) -> Option<usize> {
        let leader = self.leader.load(Ordering::Acquire);
        (leader != NONE).then_some(leader as usize)
    }

    /// The same, as the monitor begins.
    pub(super) fn inherited(&self) -> Option<Accepted> {
        self.reign().map(|reign| reign.accepted)
    }

    /// A node was accepted as the primary, or has come further.
    pub(super) fn note_reign(&self, accepted: Accepted) {
        let Some(node) = self.nodes.get(accepted.node) else { return };
        self.succession.other_system.store(false, Ordering::Relaxed);
        let mut last = self.succession.last.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *last {
            Some(reign) if reign.accepted.node == accepted.node => reign.accepted = accepted,
            other => *other = Some(Reign { address: node.address.clone(), accepted }),
        }
    }

    /// What was inherited is of no concern to these nodes: an operator has put those of another system in their place.
    pub(super) fn is_of_another_system(&self, inherited: Accepted, seen: &[Seen]) -> bool {
        let other = |node: &Seen| {
            node.health == Health::Answers && node.fact.is_some_and(|f| f.system != inherited.system)
        };
        self.may_change_system() && seen.iter().all(other)
    }
}
