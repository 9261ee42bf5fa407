//! Whose cancel key it is, among several processes: the encoding of PgBouncer (1.19 and later), so that both may be peers.
//!
//! Of the eight bytes of a key, the second and third are the peer's id (the low byte first), and the lowest two bits of
//! the last are how often the request may still be passed on: each peer that does takes one off, so that no request goes
//! round for ever. All other bits are random, but for the first one, which is 0: drivers expect a positive pid.
//! Source: `welcome_client`, `accept_cancel_request` in PgBouncer.

use super::BackendKeyData;

/// Bytes of the secret; PgBouncer knows no longer ones.
pub const SECRET: usize = 4;
/// Bits of the last byte that count hops.
const HOPS: u8 = 3;

/// Makes a key of random bytes that of a peer.
pub fn mark(key: &mut BackendKeyData, peer: u16) {
    let [a, _, _, d] = key.pid.to_be_bytes();
    let [low, high] = peer.to_le_bytes();
    key.pid = u32::from_be_bytes([a & 0x7f, low, high, d]);
    if let Some(last) = key.secret.get_mut(SECRET - 1) {
        *last |= HOPS;
    }
}

/// The peer that has made a key, if peers have; any other key says something at random.
pub fn peer_of(key: &BackendKeyData) -> u16 {
    let [_, low, high, _] = key.pid.to_be_bytes();
    u16::from_le_bytes([low, high])
}

/// The key as its peer has made it, however often the request has been passed on.
pub fn as_made(key: &BackendKeyData) -> BackendKeyData {
    let mut made = key.clone();
    if let Some(last) = made.secret.get_mut(SECRET - 1) {
        *last |= HOPS;
    }
    made
}

/// What to pass on; `None`: it has been passed on often enough.
pub fn passed_on(key: &BackendKeyData) -> Option<BackendKeyData> {
    let mut next = key.clone();
    let last = next.secret.get_mut(SECRET - 1).filter(|last| **last & HOPS > 0)?;
    *last -= 1;
    Some(next)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(bytes: [u8; 8]) -> BackendKeyData {
        let [a, b, c, d, secret @ ..] = bytes;
        BackendKeyData { pid: u32::from_be_bytes([a, b, c, d]), secret: secret.into() }
    }

    #[test]
    fn bytes_are_those_of_pgbouncer() {
        let mut one = key([0xff; 8]);
        mark(&mut one, 0x1234);
        assert_eq!(one, key([0x7f, 0x34, 0x12, 0xff, 0xff, 0xff, 0xff, 0xff]));
        let mut zero = key([0; 8]);
        mark(&mut zero, 1);
        assert_eq!(zero, key([0, 1, 0, 0, 0, 0, 0, 3]));
    }

    #[test]
    fn requests_are_passed_on_three_times() {
        let mut made = key([1, 0, 0, 4, 5, 6, 7, 0xf0]);
        mark(&mut made, 9);
        let mut hop = made.clone();
        for left in [0xf2, 0xf1, 0xf0] {
            hop = passed_on(&hop).unwrap();
            assert_eq!(hop.secret[3], left);
            assert_eq!((peer_of(&hop), as_made(&hop)), (9, made.clone()));
        }
        assert_eq!(passed_on(&hop), None);
    }

    proptest! {
        #[test]
        fn whatever_a_request_says_it_ends(bytes in any::<[u8; 8]>(), longer in prop::collection::vec(any::<u8>(), 0..9)) {
            let secret = [&bytes[4..], &longer].concat().into();
            let mut request = BackendKeyData { secret, ..key(bytes) };
            for _ in 0..=HOPS {
                match passed_on(&request) {
                    Some(next) => request = next,
                    None => return Ok(()),
                }
            }
            prop_assert!(false, "passed on too often");
        }
    }
}
