//! Where each client is: found by its cancel key, wherever it has moved since.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use foldhash::fast::RandomState;

use crate::protocol::BackendKeyData;

/// A client's worker and its slot there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) worker: usize,
    pub(crate) slot: usize,
}

/// The places, by the start of the key: its first eight bytes, which is all of it in protocol 3.0. Touched at login, at
/// the end, when a client moves, and by cancel requests.
#[derive(Debug, Default)]
pub(crate) struct Directory(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    places: HashMap<u64, Place, RandomState>,
    /// What the console calls its clients.
    ids: HashSet<u32, RandomState>,
}

fn start_of(key: &BackendKeyData) -> u64 {
    let secret = key.secret.first_chunk().map_or(0, |secret| u32::from_be_bytes(*secret));
    u64::from(key.pid) << 32 | u64::from(secret)
}

impl Directory {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an id and a key for a client; false if one of them is in use.
    pub(crate) fn claim(&self, id: u32, key: &BackendKeyData, place: Place) -> bool {
        let mut known = self.lock();
        if key.pid == 0 || known.ids.contains(&id) || known.places.contains_key(&start_of(key)) {
            return false;
        }
        known.ids.insert(id);
        known.places.insert(start_of(key), place);
        true
    }

    pub(crate) fn get(&self, key: &BackendKeyData) -> Option<Place> {
        self.lock().places.get(&start_of(key)).copied()
    }

    /// The client has arrived at another place.
    pub(crate) fn set(&self, key: &BackendKeyData, place: Place) {
        self.lock().places.insert(start_of(key), place);
    }

    /// The client is on its way from `from` to `to`, unless it has arrived already.
    pub(crate) fn leave(&self, key: &BackendKeyData, from: Place, to: Place) {
        if let Some(place) = self.lock().places.get_mut(&start_of(key)).filter(|p| **p == from) {
            *place = to;
        }
    }

    /// The client is gone.
    pub(crate) fn remove(&self, id: u32, key: &BackendKeyData) {
        let mut known = self.lock();
        known.ids.remove(&id);
        known.places.remove(&start_of(key));
        if known.places.len() < known.places.capacity() / 8 {
            known.places.shrink_to_fit();
            known.ids.shrink_to_fit();
        }
    }
}
