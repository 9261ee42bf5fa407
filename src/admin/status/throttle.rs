//! Who has failed to prove who he is, and how long he has to wait: by address, in bounded memory.

use std::{
    net::{IpAddr, Ipv6Addr},
    num::NonZeroUsize,
    time::{Duration, Instant},
};

use lru::LruCache;

/// Addresses that are remembered.
const KEPT: NonZeroUsize = NonZeroUsize::MIN.saturating_add(4095);
/// So many failures cost nothing yet: people mistype.
const FREE: u32 = 5;
/// So many attempts may be under way at a time: a page loads its parts together.
const AT_A_TIME: u32 = 16;
/// The longest pause is 2 to the power of this, in seconds.
const MOST_DOUBLINGS: u32 = 6;
/// What was so long ago counts no more.
const FORGOTTEN: Duration = Duration::from_secs(600);

#[derive(Debug, Default)]
struct Entry {
    failures: u32,
    under_way: u32,
    last: Option<Instant>,
    /// Nothing is looked at before.
    until: Option<Instant>,
}

/// All addresses that have tried.
#[derive(Debug)]
pub(super) struct Throttle(LruCache<IpAddr, Entry>);

impl Default for Throttle {
    fn default() -> Self {
        Self(LruCache::new(KEPT))
    }
}

/// Neighbours in a network of IPv6 are one.
fn site(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address @ IpAddr::V4(_) => address,
    }
}

impl Throttle {
    /// An attempt is about to be looked at; or how many seconds are to be waited.
    pub(super) fn begin(&mut self, from: IpAddr, now: Instant) -> Result<(), u64> {
        let entry = self.0.get_or_insert_mut(site(from), Entry::default);
        if entry.last.is_some_and(|last| now.saturating_duration_since(last) > FORGOTTEN) {
            *entry = Entry { under_way: entry.under_way, ..Entry::default() };
        }
        if let Some(until) = entry.until.filter(|until| *until > now) {
            return Err(until.saturating_duration_since(now).as_secs() + 1);
        }
        // One guess after each pause.
        if entry.under_way >= if entry.failures < FREE { AT_A_TIME } else { 1 } {
            return Err(1);
        }
        entry.under_way += 1;
        Ok(())
    }

    /// What came of an attempt.
    pub(super) fn end(&mut self, from: IpAddr, right: bool, now: Instant) {
        let entry = self.0.get_or_insert_mut(site(from), Entry::default);
        entry.under_way = entry.under_way.saturating_sub(1);
        if right {
            *entry = Entry { under_way: entry.under_way, ..Entry::default() };
            return;
        }
        entry.failures = entry.failures.saturating_add(1);
        entry.last = Some(now);
        if let Some(more) = entry.failures.checked_sub(FREE) {
            entry.until = now.checked_add(Duration::from_secs(1 << more.min(MOST_DOUBLINGS)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    fn guess(throttle: &mut Throttle, from: IpAddr, now: Instant) -> Result<(), u64> {
        throttle.begin(from, now)?;
        throttle.end(from, false, now);
        Ok(())
    }

    #[test]
    fn guesses_become_slower_and_others_are_not_bothered() {
        let (mut throttle, start) = (Throttle::default(), Instant::now());
        let mut now = start;
        for _ in 0..FREE {
            assert_eq!(guess(&mut throttle, A, now), Ok(()));
        }
        let mut pauses = Vec::new();
        for _ in 0..9 {
            let pause = guess(&mut throttle, A, now).unwrap_err();
            pauses.push(pause - 1);
            now += Duration::from_secs(pause);
            assert_eq!(guess(&mut throttle, A, now), Ok(()));
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 64, 64]);
        assert_eq!(throttle.begin(B, now), Ok(()));
        // Only one at a time after a pause.
        now += Duration::from_secs(65);
        assert_eq!((throttle.begin(A, now), throttle.begin(A, now)), (Ok(()), Err(1)));
        throttle.end(A, true, now);
        assert_eq!(guess(&mut throttle, A, now), Ok(()));
        assert_eq!(guess(&mut throttle, A, now), Ok(()));
    }

    #[test]
    fn attempts_at_the_same_time_are_few_and_old_ones_are_forgotten() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        let begun = (0..100).filter(|_| throttle.begin(A, now).is_ok()).count();
        assert_eq!(begun, AT_A_TIME as usize);
        (0..begun).for_each(|_| throttle.end(A, false, now));
        assert!(throttle.begin(A, now).is_err());
        assert_eq!(throttle.begin(A, now + FORGOTTEN + Duration::from_secs(1)), Ok(()));
    }

    #[test]
    fn addresses_of_one_network_are_one() {
        let of = |text: &str| site(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:10.0.0.1"), A);
    }
}
