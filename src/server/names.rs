//! Addresses of host names: looked up as the system does it, kept for a while, and used in turn.
//!
//! Where several addresses answer to a name, each new connection begins with the next one; those of the other kind (IPv4,
//! IPv6) than the one that the system prefers, and those that could not be reached lately, are tried last.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::{Notify, futures::Notified};

use crate::config::Settings;

/// So long an address is tried last after a failure.
const SHUNNED: Duration = Duration::from_secs(15);

/// Every name that somebody has asked for.
#[derive(Debug, Default)]
pub struct Names {
    known: Mutex<BTreeMap<String, Arc<Name>>>,
    /// In microseconds.
    max_ttl: AtomicU64,
    nxdomain_ttl: AtomicU64,
    /// Addresses have gone away.
    gone: Notify,
    /// So often.
    losses: AtomicU64,
}

#[derive(Debug, Default)]
struct Name {
    /// One lookup at a time.
    asking: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The last answer, in the system's order; empty: there was none yet.
    addresses: Vec<IpAddr>,
    /// Why there was no answer, if that came last.
    error: Option<String>,
    /// Until when that counts.
    until: Option<Instant>,
    turn: usize,
    shunned: Vec<(IpAddr, Instant)>,
}

/// What is known of a name, for operators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownName {
    pub name: String,
    /// How long that still counts.
    pub ttl: Duration,
    pub addresses: Vec<IpAddr>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

impl Names {
    /// Takes times from the settings.
    pub fn configure(&self, settings: &Settings) {
        self.max_ttl.store(micros(settings.dns_max_ttl), Ordering::Relaxed);
        self.nxdomain_ttl.store(micros(settings.dns_nxdomain_ttl), Ordering::Relaxed);
    }

    /// The addresses of a name in the order in which they are to be tried for one more connection.
    pub async fn look_up(&self, name: &str) -> Result<Vec<IpAddr>, String> {
        let known = self.known_name(name).await;
        lock(&known.state).next(Instant::now())
    }

    /// How many addresses connections go to as long as they can be reached, by the last answer.
    pub fn count(&self, name: &str) -> usize {
        let known = lock(&self.known).get(name).map(Arc::clone);
        known.map_or(0, |known| lock(&known.state).preferred().len())
    }

    /// What is known of a name, looked up if that does not count any more.
    async fn known_name(&self, name: &str) -> Arc<Name> {
        let known = Arc::clone(lock(&self.known).entry(name.to_owned()).or_default());
        if !lock(&known.state).counts(Instant::now()) {
            let asking = known.asking.lock().await;
            // Somebody may have asked meanwhile.
            if !lock(&known.state).counts(Instant::now()) {
                self.ask(name, &known).await;
            }
            drop(asking);
        }
        known
    }

    /// Looks every name up again, whatever is known of it, but for those whose lookup is under way.
    pub async fn look_all_up_again(&self) {
        let all: Vec<_> =
            lock(&self.known).iter().map(|(name, known)| (name.clone(), Arc::clone(known))).collect();
        for (name, known) in all {
            if let Ok(_asking) = known.asking.try_lock() {
                self.ask(&name, &known).await;
            }
        }
    }

    async fn ask(&self, name: &str, known: &Name) {
        let found = tokio::net::lookup_host((name, 0)).await;
        let found = found.map(|found| found.map(|address| address.ip()).collect()).map_err(|e| e.to_string());
        let ttl = if found.is_ok() { &self.max_ttl } else { &self.nxdomain_ttl };
        let until = Instant::now() + Duration::from_micros(ttl.load(Ordering::Relaxed));
        if let Err(error) = &found {
            tracing::warn!("DNS lookup failed: {name}: {error}");
        }
        if lock(&known.state).put(found, until) {
            self.losses.fetch_add(1, Ordering::Release);
            self.gone.notify_waiters();
        }
    }

    /// An address could not be reached.
    pub fn shun(&self, name: &str, address: IpAddr) {
        if let Some(known) = lock(&self.known).get(name) {
            let now = Instant::now();
            let mut state = lock(&known.state);
            state.shunned.retain(|(other, until)| *other != address && *until > now);
            state.shunned.push((address, now + SHUNNED));
        }
    }

    /// None of the addresses could be reached: who asks next is told what is true then.
    pub fn doubt(&self, name: &str) {
        if let Some(known) = lock(&self.known).get(name) {
            lock(&known.state).until = None;
        }
    }

    /// Whether the last answer about a name was without this address.
    pub fn is_gone(&self, name: &str, address: IpAddr) -> bool {
        let known = lock(&self.known).get(name).map(Arc::clone);
        known.is_some_and(|known| {
            let state = lock(&known.state);
            !state.addresses.is_empty() && !state.addresses.contains(&address)
        })
    }

    /// Ends when addresses have gone away after the moment of the call.
    pub fn gone(&self) -> Notified<'_> {
        self.gone.notified()
    }

    /// How often addresses have gone away, also while nobody waited for it.
    pub fn losses(&self) -> u64 {
        self.losses.load(Ordering::Acquire)
    }

    /// What is known.
    pub fn known(&self) -> Vec<KnownName> {
        let now = Instant::now();
        let known = lock(&self.known);
        let shown = known.iter().map(|(name, known)| {
            let state = lock(&known.state);
            let ttl = state.until.map(|until| until.saturating_duration_since(now)).unwrap_or_default();
            let addresses = if state.error.is_none() { state.addresses.clone() } else { Vec::new() };
            KnownName { name: name.clone(), ttl, addresses }
        });
        shown.collect()
    }
}

impl State {
    /// What is known still counts.
    fn counts(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| until > now)
    }

    /// Addresses of the kind that the system prefers.
    fn preferred(&self) -> Vec<IpAddr> {
        let kind = self.addresses.first().map(IpAddr::is_ipv4);
        self.addresses.iter().filter(|address| Some(address.is_ipv4()) == kind).copied().collect()
    }

    /// Takes a turn.
    fn next(&mut self, now: Instant) -> Result<Vec<IpAddr>, String> {
        if let Some(error) = &self.error {
            return Err(error.clone());
        }
        let preferred = self.preferred();
        let mut order = preferred.clone();
        let turn = self.turn % order.len().max(1);
        order.rotate_left(turn);
        self.turn = turn + 1;
        order.extend(self.addresses.iter().filter(|address| !preferred.contains(address)));
        let is_shunned =
            |address: &IpAddr| self.shunned.iter().any(|(other, until)| other == address && *until > now);
        order.sort_by_key(is_shunned);
        Ok(order)
    }

    /// Notes an answer. True if addresses have gone away. One that failed leaves the last one for comparison.
    fn put(&mut self, found: Result<Vec<IpAddr>, String>, until: Instant) -> bool {
        self.until = Some(until);
        let found = match found {
            Ok(found) if !found.is_empty() => found,
            Ok(_) => return self.failed("the name has no address".to_owned()),
            Err(error) => return self.failed(error),
        };
        self.error = None;
        let mut addresses: Vec<IpAddr> = Vec::new();
        for address in found {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        let gone = self.addresses.iter().any(|old| !addresses.contains(old));
        self.addresses = addresses;
        gone
    }

    fn failed(&mut self, error: String) -> bool {
        self.error = Some(error);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn addresses_take_turns_and_others_follow() {
        let now = Instant::now();
        let mut state = State::default();
        assert!(!state.put(Ok(ips(&["10.0.0.1", "10.0.0.2", "10.0.0.1", "::1", "10.0.0.3"])), now));
        assert_eq!(state.preferred(), ips(&["10.0.0.1", "10.0.0.2", "10.0.0.3"]));
        for expected in [
            ["10.0.0.1", "10.0.0.2", "10.0.0.3", "::1"],
            ["10.0.0.2", "10.0.0.3", "10.0.0.1", "::1"],
            ["10.0.0.3", "10.0.0.1", "10.0.0.2", "::1"],
            ["10.0.0.1", "10.0.0.2", "10.0.0.3", "::1"],
        ] {
            assert_eq!(state.next(now), Ok(ips(&expected)));
        }
        state.shunned =
            vec![("10.0.0.2".parse().unwrap(), now + SHUNNED), ("10.0.0.3".parse().unwrap(), now)];
        assert_eq!(state.next(now), Ok(ips(&["10.0.0.3", "10.0.0.1", "::1", "10.0.0.2"])));
    }

    #[test]
    fn what_has_gone_is_told_once_and_failures_take_nothing_away() {
        let (now, later) = (Instant::now(), Instant::now() + Duration::from_secs(1));
        let mut state = State::default();
        assert!(!state.counts(now));
        state.put(Ok(ips(&["10.0.0.1", "10.0.0.2"])), later);
        assert!(state.counts(now) && !state.counts(later));
        assert_eq!(state.next(now), Ok(ips(&["10.0.0.1", "10.0.0.2"])));
        assert!(!state.put(Err("no".to_owned()), later));
        assert_eq!(state.next(now), Err("no".to_owned()));
        assert!(!state.put(Ok(Vec::new()), later));
        assert_eq!(state.next(now), Err("the name has no address".to_owned()));
        assert!(state.put(Ok(ips(&["10.0.0.2", "10.0.0.3"])), later));
        assert!(!state.put(Ok(ips(&["10.0.0.3", "10.0.0.2"])), later));
    }

    #[tokio::test]
    async fn names_of_the_system_are_found_and_kept() {
        let names = Names::default();
        names.configure(&Settings::default());
        assert!(names.look_up("localhost").await.unwrap().iter().all(IpAddr::is_loopback));
        let known = names.known();
        assert!(known[0].ttl > Duration::from_secs(10) && known[0].name == "localhost", "{known:?}");
        assert!(names.is_gone("localhost", "10.9.8.7".parse().unwrap()));
        assert!(
            !names.is_gone("localhost", known[0].addresses[0]) && !names.is_gone("x", known[0].addresses[0])
        );
        names.doubt("localhost");
        assert_eq!(names.known()[0].ttl, Duration::ZERO);
    }
}
