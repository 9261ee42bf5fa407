//! What a client has asked for about routing, and what it has seen and written so far.

use super::{
    answer::invalid_value,
    begin::HeldBegin,
    decision::{Decision, RequestClass},
    own::Own,
    release::ClientError,
    replay::Elsewhere,
    settings::{Outcomes, Settings},
};
use crate::cluster::floors::Changes;

/// What a client's requests have in common.
#[derive(Debug, Default)]
pub(crate) struct Routing {
    pub(super) settings: Settings,
    /// They are these again behind RESET.
    pub(super) at_login: Settings,
    /// Its transaction has changed them.
    pub(super) outcomes: Option<Box<Outcomes>>,
    /// What it asks of pooler itself.
    pub(super) own: Own,
    /// Epoch of its own last write.
    pub(super) floor: u64,
    /// The replica that it read from last, and the epoch then.
    pub(super) last: Option<(usize, u64)>,
    /// It may have seen there what had not been acknowledged by the end of this epoch, and the primary may not show yet; or 0.
    pub(super) ahead: u64,
    /// What it has seen on the primary.
    pub(super) shown: Shown,
    /// It has left something on the primary that its reads may depend on.
    pub(super) attached: bool,
    /// It has begun a transaction that no server knows of.
    pub(super) begin: Option<HeldBegin>,
    /// Its request has failed on a replica, so many times, and goes elsewhere.
    pub(super) tries: u8,
    pub(super) elsewhere: Option<Elsewhere>,
    /// Its request waits for a replica.
    pub(super) waiting: Option<WaitingRead>,
    /// Why its last request went where it went.
    pub(crate) why: Decision,
    /// What that was taken for; `None`: there was none.
    pub(super) class: Option<RequestClass>,
}

/// What a client has seen on the primary before it was acknowledged: to it replicas must show no less.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Shown {
    /// Replicas that have caught more than this show it.
    pub(super) epoch: u64,
    /// Of the relations in question; see [`Changes::mask`].
    relations: u64,
}

impl Shown {
    pub(super) fn add(&mut self, epoch: u64, reads: &Changes) {
        *self = Self { epoch, relations: self.relations | reads.mask() };
    }

    /// What a replica must have caught to show it to a reader of these.
    pub(super) fn floor(self, reads: u64) -> u64 {
        if self.relations & reads == 0 { 0 } else { self.epoch }
    }
}

/// A request that waits for a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WaitingRead {
    /// The replica must have caught more than this.
    pub(super) floor: u64,
    pub(super) since: u64,
}

impl Routing {
    /// A request was sent that may leave something behind.
    pub(super) fn note(&mut self, attaches: bool) {
        self.attached |= attaches;
    }

    /// Its request goes to any node but this.
    pub(super) fn avoid(&mut self, node: usize) {
        self.elsewhere = Some(Elsewhere::NotTo(node));
    }

    /// DISCARD ALL: nothing is left behind.
    pub(super) fn detach(&mut self) {
        self.attached = false;
    }

    /// What a client asks for when it logs in (`options=-c pooler.route=primary`); the server need not know.
    pub(super) fn at_login(parameters: &mut Vec<(String, String)>) -> Result<Self, ClientError> {
        let mut routing = Self::default();
        let mut wrong = None;
        parameters.retain(|(name, value)| {
            let name = name.to_ascii_lowercase();
            let own = name.starts_with("pooler.");
            if own && !routing.settings.set(&name, value) {
                wrong = Some(invalid_value(&name, value));
            }
            !own
        });
        match wrong {
            Some(message) => Err(ClientError::Parameter(message)),
            None => {
                routing.at_login = routing.settings;
                Ok(routing)
            }
        }
    }

    /// In the next list of nodes of its database: epochs go on there, nodes have other numbers, if they are in it.
    pub(super) fn moved(self, number: impl Fn(usize) -> Option<usize>) -> Self {
        let last = self.last.map(|(node, epoch)| (number(node).unwrap_or(usize::MAX), epoch));
        let elsewhere = self.elsewhere.and_then(|elsewhere| match elsewhere {
            Elsewhere::NotTo(node) => number(node).map(Elsewhere::NotTo),
            Elsewhere::Primary => Some(elsewhere),
        });
        Self { own: self.own.moved(), last, elsewhere, ..self }
    }

    /// It has read from a replica; `more` than what has been acknowledged, perhaps.
    pub(crate) fn read_from(&mut self, node: usize, epoch: u64, more: bool) {
        self.answered();
        self.last = Some((node, epoch));
        if more {
            self.ahead = epoch;
        }
    }

    /// Its request has been answered.
    pub(crate) fn answered(&mut self) {
        self.tries = 0;
        self.elsewhere = None;
        self.waiting = None;
    }

    /// It has been told of what somebody has written.
    pub(crate) fn notified(&mut self, epoch: u64) {
        self.wrote(epoch);
        self.shown = Shown { epoch, relations: u64::MAX };
    }

    /// It has written.
    pub(crate) fn wrote(&mut self, epoch: u64) {
        self.floor = epoch;
    }
}
