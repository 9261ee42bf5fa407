//! SCRAM-SHA-256 (and -PLUS) as server, towards clients: pure, two messages in, two out.
//!
//! ```text
//! new ◀──client-first── on_initial ──server-first──▶ ◀──client-final── on_final ──server-final──▶ keys
//! ```
//! An exchange for an unknown user is `doomed`: it runs through the same steps at the same cost and fails at
//! the end. Source: RFC 5802 section 5 to 7, RFC 5929; PostgreSQL's `src/backend/libpq/auth-scram.c`.

use std::{mem, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};

use super::{
    AuthError, ScramKeys, ScramSecret,
    scram::{
        KEY_LEN, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, attribute, decode_key, hmac, is_nonce, nonce, same,
        sha256, xor,
    },
};
use crate::protocol::frame::{split_cstr, split_u32};

/// The only channel binding type that is offered, as in PostgreSQL.
const BINDING_TYPE: &str = "tls-server-end-point";

/// The client's gs2 flag.
enum Gs2 {
    /// `n`: cannot bind.
    No,
    /// `y`: could bind, thinks that we cannot.
    NotOffered,
    /// `p`: binds.
    Bound,
}

enum State {
    Initial,
    /// server-first has been handed out.
    Final {
        gs2: Gs2,
        /// `client-first-bare,server-first`.
        auth_message: String,
        nonce: String,
    },
    Over,
}

/// One exchange.
pub struct ScramServer {
    secret: Arc<ScramSecret>,
    doomed: bool,
    /// Hash of our certificate; `None`: -PLUS is not offered.
    binding: Option<Arc<[u8]>>,
    state: State,
}

impl std::fmt::Debug for ScramServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ScramServer(…)")
    }
}

impl ScramServer {
    /// `doomed`: there is no such user (or no usable secret); `secret` is a mock one and nothing matches it.
    pub fn new(secret: Arc<ScramSecret>, doomed: bool, binding: Option<Arc<[u8]>>) -> Self {
        Self { secret, doomed, binding, state: State::Initial }
    }

    /// Payload of AuthenticationSASL: the mechanisms, best first, and the empty name that ends the list.
    pub fn mechanisms(&self) -> Vec<u8> {
        let names: &[&str] =
            if self.binding.is_some() { &[SCRAM_SHA_256_PLUS, SCRAM_SHA_256] } else { &[SCRAM_SHA_256] };
        let mut out = Vec::with_capacity(40);
        for name in names {
            out.extend_from_slice(name.as_bytes());
            out.push(0);
        }
        out.push(0);
        out
    }

    /// Takes the body of SASLInitialResponse, gives the payload of AuthenticationSASLContinue.
    pub fn on_initial(&mut self, body: &[u8]) -> Result<Vec<u8>, AuthError> {
        self.on_initial_with(body, &nonce()?)
    }

    fn on_initial_with(&mut self, body: &[u8], server_nonce: &str) -> Result<Vec<u8>, AuthError> {
        if !matches!(mem::replace(&mut self.state, State::Over), State::Initial) {
            return Err(AuthError::Malformed("Unexpected SASL initial response."));
        }
        let (plus, message) = self.split_initial(body)?;
        let (gs2, bare) = self.parse_gs2(message, plus)?;
        if bare.starts_with("m=") {
            return Err(AuthError::Extension);
        }
        let (_name, rest) = attribute(bare, 'n').ok_or(AuthError::Malformed("User name is missing."))?;
        let (client_nonce, _) = attribute(rest, 'r').ok_or(AuthError::Malformed("Nonce is missing."))?;
        if !is_nonce(client_nonce) {
            return Err(AuthError::Malformed("Non-printable characters in SCRAM nonce."));
        }

        let nonce = format!("{client_nonce}{server_nonce}");
        let mut server_first = format!("r={nonce},s=");
        BASE64.encode_string(&self.secret.salt, &mut server_first);
        server_first.push_str(",i=");
        server_first.push_str(&self.secret.iterations.to_string());
        let auth_message = format!("{bare},{server_first}");
        self.state = State::Final { gs2, auth_message, nonce };
        Ok(server_first.into_bytes())
    }

    /// Reads mechanism and length: whether it is -PLUS, and the SCRAM message.
    fn split_initial<'a>(&self, body: &'a [u8]) -> Result<(bool, &'a str), AuthError> {
        let (mechanism, rest) = split_cstr(body).ok_or(AuthError::Malformed("Mechanism is missing."))?;
        let plus = match mechanism {
            m if m == SCRAM_SHA_256.as_bytes() => false,
            m if m == SCRAM_SHA_256_PLUS.as_bytes() && self.binding.is_some() => true,
            _ => return Err(AuthError::Mechanism),
        };
        let (len, message) = split_u32(rest).ok_or(AuthError::Malformed("Message length is missing."))?;
        // -1 ("no initial response") is refused too: SCRAM is client-first and libpq always sends it.
        if usize::try_from(len) != Ok(message.len()) {
            return Err(AuthError::Malformed("Message length does not match input length."));
        }
        Ok((plus, text(message)?))
    }

    fn parse_gs2<'a>(&self, message: &'a str, plus: bool) -> Result<(Gs2, &'a str), AuthError> {
        let (flag, rest) = message.split_once(',').ok_or(AuthError::Malformed("GS2 header is missing."))?;
        let gs2 = match flag {
            "n" | "y" if plus => {
                return Err(AuthError::Malformed(
                    "The client selected SCRAM-SHA-256-PLUS, but the SCRAM message does not include channel \
                     binding data.",
                ));
            }
            "n" => Gs2::No,
            // Somebody between us took -PLUS off our offer.
            "y" if self.binding.is_some() => return Err(AuthError::ChannelBindingNegotiation),
            "y" => Gs2::NotOffered,
            _ => match flag.strip_prefix("p=") {
                Some(_) if !plus => {
                    return Err(AuthError::Malformed(
                        "The client selected SCRAM-SHA-256 without channel binding, but the SCRAM message \
                         includes channel binding data.",
                    ));
                }
                Some(BINDING_TYPE) => Gs2::Bound,
                Some(_) => return Err(AuthError::ChannelBindingType),
                None => return Err(AuthError::Malformed("Unexpected channel-binding flag.")),
            },
        };
        let (authzid, bare) = rest.split_once(',').ok_or(AuthError::Malformed("GS2 header is cut."))?;
        if !authzid.is_empty() {
            return Err(AuthError::AuthorizationIdentity);
        }
        Ok((gs2, bare))
    }

    /// Takes the body of SASLResponse; on success gives the keys and the payload of AuthenticationSASLFinal.
    pub fn on_final(&mut self, body: &[u8]) -> Result<(ScramKeys, Vec<u8>), AuthError> {
        let State::Final { gs2, mut auth_message, nonce } = mem::replace(&mut self.state, State::Over) else {
            return Err(AuthError::Malformed("Unexpected SASL response."));
        };
        let message = text(body)?;
        let (unproved, proof) =
            message.rsplit_once(",p=").ok_or(AuthError::Malformed("Proof is missing."))?;
        let (binding, rest) =
            attribute(unproved, 'c').ok_or(AuthError::Malformed("Channel binding is missing."))?;
        let (their_nonce, _) = attribute(rest, 'r').ok_or(AuthError::Malformed("Nonce is missing."))?;
        let proof = decode_key(proof.as_bytes()).ok_or(AuthError::Malformed("Malformed proof."))?;
        self.check_binding(&gs2, binding)?;
        if their_nonce != nonce {
            return Err(AuthError::Nonce);
        }

        auth_message.push(',');
        auth_message.push_str(unproved);
        self.check_proof(auth_message.as_bytes(), &proof)
    }

    fn check_binding(&self, gs2: &Gs2, attribute: &str) -> Result<(), AuthError> {
        match (gs2, &self.binding) {
            (Gs2::No, _) if attribute == "biws" => Ok(()),
            (Gs2::NotOffered, _) if attribute == "eSws" => Ok(()),
            (Gs2::Bound, Some(hash)) => {
                let mut expected = format!("p={BINDING_TYPE},,").into_bytes();
                expected.extend_from_slice(hash);
                if same(attribute.as_bytes(), BASE64.encode(expected).as_bytes()) {
                    Ok(())
                } else {
                    Err(AuthError::ChannelBindingCheck)
                }
            }
            _ => Err(AuthError::Malformed(
                "Unexpected SCRAM channel-binding attribute in client-final-message.",
            )),
        }
    }

    fn check_proof(
        &self,
        auth_message: &[u8],
        proof: &[u8; KEY_LEN],
    ) -> Result<(ScramKeys, Vec<u8>), AuthError> {
        let secret = &*self.secret;
        let client_key = xor(proof, &hmac(&secret.stored_key, &[auth_message]));
        let proved = same(&sha256(&client_key), &secret.stored_key);
        if !proved || self.doomed {
            return Err(AuthError::Sasl);
        }
        let mut server_final = String::with_capacity(48);
        server_final.push_str("v=");
        BASE64.encode_string(hmac(&secret.server_key, &[auth_message]), &mut server_final);
        Ok((ScramKeys { client_key, server_key: secret.server_key }, server_final.into_bytes()))
    }
}

fn text(message: &[u8]) -> Result<&str, AuthError> {
    match std::str::from_utf8(message) {
        Ok(text) if !text.contains('\0') => Ok(text),
        _ => Err(AuthError::Malformed("Message is not text.")),
    }
}

#[cfg(test)]
#[path = "scram_server_tests.rs"]
mod tests;
