//! What both sides of SCRAM-SHA-256 share: keys, stored secrets, attributes, SASLprep.
//! Source: RFC 5802, RFC 7677; PostgreSQL's `src/common/scram-common.c`.

use std::{borrow::Cow, num::NonZeroU32};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use ring::{digest, hmac, pbkdf2, rand::SecureRandom, rand::SystemRandom};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use super::AuthError;

/// Name of the mechanism without channel binding.
pub const SCRAM_SHA_256: &str = "SCRAM-SHA-256";
/// Name of the mechanism with channel binding.
pub const SCRAM_SHA_256_PLUS: &str = "SCRAM-SHA-256-PLUS";

/// Length of SHA-256, so of all keys.
pub const KEY_LEN: usize = 32;
/// Most iterations that are computed or believed: about half a second of CPU. Without a bound a server
/// (or a line of `auth_file`) could keep a core busy for an hour.
pub const MAX_ITERATIONS: u32 = 1_000_000;

/// A key, signature or proof.
pub(crate) type Key = [u8; KEY_LEN];

/// The keys a client proved during SCRAM: enough to log in to a server that stores the same secret.
#[derive(Clone, PartialEq, Eq)]
pub struct ScramKeys {
    pub client_key: [u8; 32],
    pub server_key: [u8; 32],
}

impl std::fmt::Debug for ScramKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ScramKeys(…)")
    }
}

impl ScramKeys {
    /// Derives the keys from a salted password.
    fn from_salted(salted: &Key) -> Self {
        Self { client_key: hmac(salted, &[b"Client Key"]), server_key: hmac(salted, &[b"Server Key"]) }
    }

    /// Derives the keys from a password. Takes about a third of a microsecond per iteration: milliseconds,
    /// so not on a worker.
    pub(crate) fn derive(prepared: &[u8], salt: &[u8], iterations: NonZeroU32) -> Self {
        let mut salted = Zeroizing::new([0; KEY_LEN]);
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, salt, prepared, &mut *salted);
        Self::from_salted(&salted)
    }
}

/// What a server stores of a password: `SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey`.
#[derive(Clone, PartialEq, Eq)]
pub struct ScramSecret {
    pub(crate) iterations: NonZeroU32,
    pub(crate) salt: Vec<u8>,
    pub(crate) stored_key: Key,
    pub(crate) server_key: Key,
}

impl std::fmt::Debug for ScramSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ScramSecret(…)")
    }
}

impl Drop for ScramSecret {
    fn drop(&mut self) {
        self.stored_key.zeroize();
        self.server_key.zeroize();
    }
}

impl ScramSecret {
    /// Reads a stored secret; `None` if `text` is not one.
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("SCRAM-SHA-256$")?;
        let (head, keys) = rest.split_once('$')?;
        let (iterations, salt) = head.split_once(':')?;
        let (stored, server) = keys.split_once(':')?;
        let iterations: NonZeroU32 = iterations.parse().ok()?;
        let salt = BASE64.decode(salt).ok()?;
        if iterations.get() > MAX_ITERATIONS || salt.is_empty() {
            return None;
        }
        let (stored_key, server_key) = (decode_key(stored.as_bytes())?, decode_key(server.as_bytes())?);
        Some(Self { iterations, salt, stored_key, server_key })
    }

    /// Derives the secret of a password. Slow, see `ScramKeys::derive`.
    pub fn derive(password: &str, salt: &[u8], iterations: NonZeroU32) -> Self {
        let prepared = Zeroizing::new(saslprep(password).into_owned());
        let keys = ScramKeys::derive(prepared.as_bytes(), salt, iterations);
        Self {
            iterations,
            salt: salt.to_vec(),
            stored_key: sha256(&keys.client_key),
            server_key: keys.server_key,
        }
    }

    /// Whether `password` is the one behind this secret. Slow, see `ScramKeys::derive`.
    pub fn verify(&self, password: &str) -> bool {
        let other = Self::derive(password, &self.salt, self.iterations);
        same(&self.stored_key, &other.stored_key)
    }
}

/// SASLprep of a password; a password that SASLprep forbids is used as it is, as PostgreSQL does.
pub fn saslprep(password: &str) -> Cow<'_, str> {
    if password.is_ascii() && !password.bytes().any(|b| b.is_ascii_control()) {
        return Cow::Borrowed(password);
    }
    stringprep::saslprep(password).unwrap_or(Cow::Borrowed(password))
}

/// Compares secrets in a time that does not depend on their content.
pub(crate) fn same(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

pub(crate) fn sha256(data: &[u8]) -> Key {
    let mut out = [0; KEY_LEN];
    out.copy_from_slice(digest::digest(&digest::SHA256, data).as_ref());
    out
}

/// HMAC-SHA-256 over the parts in order.
pub(crate) fn hmac(key: &[u8], parts: &[&[u8]]) -> Key {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
    for part in parts {
        context.update(part);
    }
    let mut out = [0; KEY_LEN];
    out.copy_from_slice(context.sign().as_ref());
    out
}

pub(crate) fn xor(a: &Key, b: &Key) -> Key {
    let mut out = *a;
    for (x, y) in out.iter_mut().zip(b) {
        *x ^= y;
    }
    out
}

/// A key in base64, which must be exactly 32 bytes.
pub(crate) fn decode_key(text: &[u8]) -> Option<Key> {
    BASE64.decode(text).ok()?.try_into().ok()
}

/// Random bytes from the operating system.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], AuthError> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| AuthError::Internal)?;
    Ok(bytes)
}

/// A fresh nonce: 18 random bytes (as PostgreSQL) in base64.
pub(crate) fn nonce() -> Result<String, AuthError> {
    Ok(BASE64.encode(random::<18>()?))
}

/// Whether `text` may be a nonce: printable ASCII without comma, not empty.
pub(crate) fn is_nonce(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic() && b != b',')
}

/// Reads `name=value` off the front of a comma-separated list: the value and what follows the comma.
pub(crate) fn attribute(text: &str, name: char) -> Option<(&str, &str)> {
    let value = text.strip_prefix(name)?.strip_prefix('=')?;
    Some(value.split_once(',').unwrap_or((value, "")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7677, section 3: user `user`, password `pencil`.
    const SECRET: &str = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$\
                          WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

    #[test]
    fn stored_secret_of_rfc_7677_equals_the_derived_one() {
        let stored = ScramSecret::parse(SECRET).unwrap();
        let derived = ScramSecret::derive("pencil", &stored.salt, stored.iterations);
        assert!(stored == derived);
        assert!(stored.verify("pencil"));
        assert!(!stored.verify("pencils"));
    }

    #[test]
    fn malformed_secrets_are_not_secrets() {
        for text in [
            "",
            "SCRAM-SHA-256$",
            "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==",
            "SCRAM-SHA-256$0:W22Z$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=",
            "SCRAM-SHA-256$4096:W22Z$WG5d:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=",
            "SCRAM-SHA-256$2000000:W22Z$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=",
            "SCRAM-SHA-1$4096:W22Z$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=",
        ] {
            assert!(ScramSecret::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn saslprep_maps_what_rfc_4013_maps_and_leaves_forbidden_text_alone() {
        assert_eq!(saslprep("I\u{AD}X"), "IX");
        assert_eq!(saslprep("\u{2168}"), "IX");
        assert_eq!(saslprep("plain"), "plain");
        assert_eq!(saslprep("bell\u{7}"), "bell\u{7}");
    }

    #[test]
    fn secrets_do_not_print() {
        let printed = format!("{:?}", ScramSecret::parse(SECRET).unwrap());
        assert_eq!(printed, "ScramSecret(…)");
    }
}
