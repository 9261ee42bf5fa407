//! Where each client is: found by the pid of its cancel key, wherever it has moved since.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// A client's worker and its slot there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) worker: usize,
    pub(crate) slot: usize,
}

/// The places, by pid. Touched at login, at the end, when a client moves, and by cancel requests.
#[derive(Debug, Default)]
pub(crate) struct Directory(Mutex<HashMap<u32, Place, foldhash::fast::RandomState>>);

impl Directory {
    fn lock(&self) -> MutexGuard<'_, HashMap<u32, Place, foldhash::fast::RandomState>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a pid for a client; `None` if it is in use.
    pub(crate) fn claim(&self, pid: u32, place: Place) -> Option<u32> {
        let mut places = self.lock();
        if pid == 0 || places.contains_key(&pid) {
            return None;
        }
        places.insert(pid, place);
        Some(pid)
    }

    pub(crate) fn get(&self, pid: u32) -> Option<Place> {
        self.lock().get(&pid).copied()
    }

    /// The client has arrived at another place.
    pub(crate) fn set(&self, pid: u32, place: Place) {
        self.lock().insert(pid, place);
    }

    /// The client is on its way from `from` to `to`, unless it has arrived already.
    pub(crate) fn leave(&self, pid: u32, from: Place, to: Place) {
        if let Some(place) = self.lock().get_mut(&pid).filter(|p| **p == from) {
            *place = to;
        }
    }

    /// The client is gone.
    pub(crate) fn remove(&self, pid: u32) {
        let mut places = self.lock();
        places.remove(&pid);
        if places.len() < places.capacity() / 8 {
            places.shrink_to_fit();
        }
    }
}
