//! Which host the next connection of a pool goes to, where its database has several without roles.
//!
//! Hosts that could not be reached are remembered for all pools of a database, and tried last for a while.

use std::{
    sync::{Mutex, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use super::Pool;
use crate::{
    config::LoadBalanceHosts,
    server::{ConnectError, ConnectSpec, Failure, ServerAddress},
};

/// So long a host may take to answer before the next one is tried as well.
const PATIENCE: Duration = Duration::from_secs(1);
/// The same of one that has failed and not been reached since, where others have not.
const LITTLE_PATIENCE: Duration = Duration::from_millis(100);
/// After the first failure it is tried last for so long; then twice as long each time, up to server_login_retry.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// A host that could not be reached.
#[derive(Clone, Debug)]
struct Mark {
    host: String,
    port: u16,
    retry_at: Instant,
    pause: Duration,
}

/// Those of a database.
#[derive(Debug, Default)]
pub struct Marks(Mutex<Vec<Mark>>);

impl Marks {
    fn find(&self, address: &ServerAddress) -> Option<Mark> {
        let marks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        marks.iter().find(|mark| mark.is_of(address)).cloned()
    }

    fn set(&self, address: &ServerAddress, now: Instant, longest: Duration) {
        let mut marks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = marks.iter().position(|mark| mark.is_of(address)).map(|place| marks.swap_remove(place));
        // Attempts that began together are one failure.
        let pause = match &known {
            Some(known) if known.retry_at > now => known.pause,
            Some(known) => (known.pause * 2).min(longest),
            None => FIRST_PAUSE.min(longest),
        };
        let (host, port) = (address.host.clone(), address.port);
        marks.push(Mark { host, port, retry_at: now + pause, pause });
    }

    fn clear(&self, address: &ServerAddress) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|mark| !mark.is_of(address));
    }

    /// Forgets all: whatever was wrong may have been put right.
    pub(super) fn forget(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Mark {
    fn is_of(&self, address: &ServerAddress) -> bool {
        self.host == address.host && self.port == address.port
    }
}

/// A host to try, and for how long alone.
#[derive(Debug)]
pub struct Attempt {
    pub spec: ConnectSpec,
    pub patience: Duration,
}

/// The order in which hosts are tried from `first` on: those that are to be tried again only at some time come last, the
/// next one first.
fn order(count: usize, first: usize, retry_at: impl Fn(usize) -> Option<Instant>) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).map(|i| (first % count + i) % count).collect();
    order.sort_by_key(|host| retry_at(*host));
    order
}

impl Pool {
    /// The hosts in the order in which they are to be tried for one more connection.
    pub fn attempts(&self, now: Instant) -> Vec<Attempt> {
        let settings = self.settings();
        let spec = self.connect_spec();
        let hosts = &settings.hosts;
        if hosts.len() < 2 {
            return vec![Attempt { spec, patience: PATIENCE }];
        }
        let first = match settings.database.load_balance_hosts {
            LoadBalanceHosts::RoundRobin => self.turn.fetch_add(1, Ordering::Relaxed),
            LoadBalanceHosts::Disable => self.turn.load(Ordering::Relaxed),
        };
        let marks: Vec<_> = hosts.iter().map(|host| self.database.hosts.find(host)).collect();
        let retry_at = |host: usize| {
            let mark = marks.get(host)?.as_ref()?;
            Some(mark.retry_at).filter(|time| *time > now)
        };
        let attempt = |host: usize| {
            // Where all are slow, more logins would make them slower.
            let doubtful = marks.get(host)?.is_some() && marks.iter().any(Option::is_none);
            let spec = ConnectSpec { address: hosts.get(host)?.clone(), ..spec.clone() };
            Some(Attempt { spec, patience: if doubtful { LITTLE_PATIENCE } else { PATIENCE } })
        };
        order(hosts.len(), first, retry_at).into_iter().filter_map(attempt).collect()
    }

    /// A host has let somebody log in.
    pub fn host_answered(&self, address: &ServerAddress) {
        self.database.hosts.clear(address);
        let settings = self.settings();
        let host = settings.hosts.iter().position(|host| host.is_same(address));
        if let (LoadBalanceHosts::Disable, Some(host)) = (settings.database.load_balance_hosts, host) {
            self.turn.store(host, Ordering::Relaxed);
        }
    }

    /// A host could not be reached (`None`: another one has answered before it), or let nobody log in.
    pub fn host_failed(
        &self,
        address: &ServerAddress,
        error: Option<&ConnectError>,
        longest_pause: Duration,
    ) {
        let (host, port) = (&address.host, address.port);
        let (database, user) = (&self.key.database, &self.key.user);
        match error {
            Some(error) => tracing::warn!(database, user, host, port, "this host is passed over: {error}"),
            None => {
                tracing::warn!(database, user, host, port, "this host is passed over: it does not answer")
            }
        }
        // What it thinks of one user says nothing of others.
        let of_all = error.is_none_or(|error| match error {
            ConnectError::Refused(said) => {
                said.sqlstate().is_some_and(|code| code.starts_with("57P") || code.starts_with("53"))
            }
            other => other.failure() != Failure::Credentials,
        });
        if of_all {
            self.database.hosts.set(address, Instant::now(), longest_pause);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_take_turns_and_those_that_have_failed_come_last() {
        let now = Instant::now();
        let never = |_| None;
        assert_eq!(order(3, 0, never), [0, 1, 2]);
        assert_eq!(order(3, 4, never), [1, 2, 0]);
        assert_eq!(order(3, usize::MAX, never).len(), 3);
        let late = |host| (host != 2).then(|| now + Duration::from_secs(10 - host as u64));
        assert_eq!(order(3, 0, late), [2, 1, 0]);
    }
}
