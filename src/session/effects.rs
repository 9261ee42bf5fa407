//! What portals will do beyond their results: known when they are bound, true when they are executed.

use std::sync::Arc;

use super::{pipeline::Detail, text::TextEffect};
use crate::sql::channels::Channels;

/// A change of the session.
#[derive(Clone, Debug)]
pub enum Effect {
    Text(TextEffect),
    /// LISTEN or UNLISTEN, without effect on the server.
    Channels(Arc<Channels>),
    /// DEALLOCATE of a statement that was prepared by Parse.
    Deallocate(Detail),
}

/// Portals with an effect; nearly always none.
#[derive(Debug, Default)]
pub struct Effects(Vec<(Box<[u8]>, Effect)>);

impl Effects {
    /// A portal is bound.
    pub fn bind(&mut self, portal: &[u8], effect: Option<Effect>) {
        self.0.retain(|(known, _)| **known != *portal);
        self.0.extend(effect.map(|effect| (portal.into(), effect)));
    }

    /// What executing a portal does.
    pub fn of(&self, portal: &[u8]) -> Option<&Effect> {
        self.0.iter().find(|(known, _)| **known == *portal).map(|(_, effect)| effect)
    }

    /// No portal has one.
    pub fn are_none(&self) -> bool {
        self.0.is_empty()
    }

    /// The transaction is over, and so are its portals.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}
