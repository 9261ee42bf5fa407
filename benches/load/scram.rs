//! The client side of SCRAM-SHA-256 (RFC 5802, 7677), with the slow part remembered.
//!
//! The driver logs in thousands of times with one password; repeating 4,096 rounds of HMAC each time would
//! measure the driver. It does not verify the server's signature: it measures, it protects nothing.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ring::rand::SecureRandom;
use ring::{digest, hmac, pbkdf2};

use crate::Res;

/// Client key and stored key.
type Keys = ([u8; 32], [u8; 32]);

/// Password with the keys that were already derived from it, per salt and iteration count.
pub(crate) struct Password {
    text: String,
    keys: Mutex<HashMap<(Vec<u8>, u32), Keys>>,
}

impl Password {
    pub(crate) fn new(text: String) -> Self {
        Self { text, keys: Mutex::new(HashMap::new()) }
    }

    fn keys(&self, salt: Vec<u8>, iterations: u32) -> Res<Keys> {
        let mut cache = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(keys) = cache.get(&(salt.clone(), iterations)) {
            return Ok(*keys);
        }
        let rounds = NonZeroU32::new(iterations).ok_or("SCRAM with no iterations")?;
        let mut salted = [0; 32];
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, &salt, self.text.as_bytes(), &mut salted);
        let client: [u8; 32] = hmac_sha256(&salted, b"Client Key")?;
        let stored: [u8; 32] = digest::digest(&digest::SHA256, &client).as_ref().try_into()?;
        cache.insert((salt, iterations), (client, stored));
        Ok((client, stored))
    }
}

/// One exchange.
pub(crate) struct Scram {
    first_bare: String,
}

impl Scram {
    pub(crate) fn new() -> Res<Self> {
        let mut nonce = [0; 18];
        ring::rand::SystemRandom::new().fill(&mut nonce).map_err(|_| "no randomness")?;
        Ok(Self { first_bare: format!("n=,r={}", BASE64_STANDARD.encode(nonce)) })
    }

    pub(crate) fn first(&self) -> String {
        format!("n,,{}", self.first_bare)
    }

    pub(crate) fn last(&self, server_first: &str, password: &Password) -> Res<String> {
        let field = |name: &str| {
            server_first.split(',').find_map(|part| part.strip_prefix(name)).ok_or("bad SCRAM challenge")
        };
        let salt = BASE64_STANDARD.decode(field("s=")?)?;
        let (client, stored) = password.keys(salt, field("i=")?.parse()?)?;
        let unproven = format!("c=biws,r={}", field("r=")?);
        let signed = format!("{},{server_first},{unproven}", self.first_bare);
        let mut proof = hmac_sha256(&stored, signed.as_bytes())?;
        for (byte, key) in proof.iter_mut().zip(client) {
            *byte ^= key;
        }
        Ok(format!("{unproven},p={}", BASE64_STANDARD.encode(proof)))
    }
}

fn hmac_sha256(key: &[u8], data: &[u8]) -> Res<[u8; 32]> {
    Ok(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data).as_ref().try_into()?)
}
