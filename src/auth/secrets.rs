//! SCRAM secrets that are not stored anywhere: ad hoc ones of plain passwords, and mock ones of unknown users.
//!
//! An ad hoc secret costs a PBKDF2 once per (user, password, iterations); concurrent logins wait for the same
//! computation. Salts of ad hoc and mock secrets come from the same keyed hash of the user's name, so that
//! neither a repeated login nor a changed password tells known users from unknown ones.

use std::{
    num::{NonZeroU32, NonZeroUsize},
    sync::{Arc, Mutex, PoisonError},
};

use lru::LruCache;
use tokio::sync::{OnceCell, Semaphore};
use zeroize::Zeroizing;

use super::{
    AuthError, ScramSecret,
    scram::{Key, hmac, random},
};

/// PostgreSQL's default for `scram_iterations`.
pub const DEFAULT_ITERATIONS: NonZeroU32 = NonZeroU32::MIN.saturating_add(4095);
/// Most ad hoc secrets that are kept; about 250 bytes each.
const CAPACITY: NonZeroUsize = NonZeroUsize::MIN.saturating_add(9_999);
/// Length of a salt, as in PostgreSQL.
const SALT_LEN: usize = 16;

type Entry = Arc<OnceCell<Arc<ScramSecret>>>;

/// One per process.
pub struct SecretCache {
    /// Random; keys the hashes below, so that nothing outside the process can compute them.
    key: Key,
    /// By keyed hash of user, password and iterations: no password is kept.
    ad_hoc: Mutex<LruCache<Key, Entry>>,
    /// Hashing that may run at once: a flood of logins must not take the cores from the workers.
    hashing: Semaphore,
}

impl std::fmt::Debug for SecretCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretCache(…)")
    }
}

impl SecretCache {
    /// Draws the key; fails if the operating system has no random bytes.
    pub fn new() -> Result<Self, AuthError> {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Ok(Self {
            key: random()?,
            ad_hoc: Mutex::new(LruCache::new(CAPACITY)),
            hashing: Semaphore::new((cores / 2).max(1)),
        })
    }

    /// Runs work of milliseconds (PBKDF2) on tokio's blocking threads, a bounded number at once.
    async fn hash<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, AuthError> {
        let _turn = self.hashing.acquire().await.map_err(|_| AuthError::Internal)?;
        tokio::task::spawn_blocking(work).await.map_err(|_| AuthError::Internal)
    }

    /// Whether `password` is the one behind `secret`.
    pub async fn verify(
        &self,
        secret: Arc<ScramSecret>,
        password: Zeroizing<String>,
    ) -> Result<bool, AuthError> {
        self.hash(move || secret.verify(&password)).await
    }

    fn salt(&self, user: &str) -> [u8; SALT_LEN] {
        let mut salt = [0; SALT_LEN];
        for (to, from) in salt.iter_mut().zip(hmac(&self.key, &[b"salt\0", user.as_bytes()])) {
            *to = from;
        }
        salt
    }

    /// The secret shown for a user that does not exist: always the same one, which no password matches.
    pub fn mock(&self, user: &str, iterations: NonZeroU32) -> Arc<ScramSecret> {
        Arc::new(ScramSecret {
            iterations,
            salt: self.salt(user).to_vec(),
            stored_key: hmac(&self.key, &[b"stored\0", user.as_bytes()]),
            server_key: hmac(&self.key, &[b"server\0", user.as_bytes()]),
        })
    }

    /// The secret of a plain password; the first time it is computed on tokio's blocking threads.
    pub async fn ad_hoc(
        &self,
        user: &str,
        password: &str,
        iterations: NonZeroU32,
    ) -> Result<Arc<ScramSecret>, AuthError> {
        let count = iterations.get().to_be_bytes();
        let name = hmac(&self.key, &[b"entry\0", &count, user.as_bytes(), b"\0", password.as_bytes()]);
        let entry = {
            let mut ad_hoc = self.ad_hoc.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(ad_hoc.get_or_insert(name, Entry::default))
        };
        let secret = entry.get_or_try_init(|| async {
            let (salt, password) = (self.salt(user), Zeroizing::new(password.to_owned()));
            self.hash(move || Arc::new(ScramSecret::derive(&password, &salt, iterations))).await
        });
        secret.await.map(Arc::clone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ad_hoc_secret_is_computed_once_and_follows_the_password() {
        let cache = SecretCache::new().unwrap();
        let (a, b) = tokio::join!(
            cache.ad_hoc("bob", "pw", DEFAULT_ITERATIONS),
            cache.ad_hoc("bob", "pw", DEFAULT_ITERATIONS)
        );
        assert!(Arc::ptr_eq(&a.clone().unwrap(), &b.unwrap()));
        assert!(a.clone().unwrap().verify("pw"));
        let changed = cache.ad_hoc("bob", "new", DEFAULT_ITERATIONS).await.unwrap();
        assert!(changed.verify("new") && !changed.verify("pw"));
        assert_eq!(changed.salt, a.unwrap().salt);
    }

    #[tokio::test]
    async fn mock_secret_is_stable_per_user_and_looks_like_an_ad_hoc_one() {
        let cache = SecretCache::new().unwrap();
        let mock = cache.mock("eve", DEFAULT_ITERATIONS);
        assert!(mock == cache.mock("eve", DEFAULT_ITERATIONS));
        assert_ne!(mock.salt, cache.mock("mallory", DEFAULT_ITERATIONS).salt);
        assert_ne!(mock.salt, SecretCache::new().unwrap().mock("eve", DEFAULT_ITERATIONS).salt);
        // The same user once added to the list keeps the salt that was shown before.
        assert_eq!(mock.salt, cache.ad_hoc("eve", "pw", DEFAULT_ITERATIONS).await.unwrap().salt);
    }
}
