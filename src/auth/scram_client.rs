//! SCRAM-SHA-256 (and -PLUS) as client, towards PostgreSQL: pure, three messages.
//!
//! ```text
//! new ──initial──▶ server-first ──on_continue──▶ client-final ──▶ server-final ──on_final──▶ done
//! ```
//! Any other order is an error. Source: RFC 5802 section 5, RFC 5929 (tls-server-end-point).

use std::{mem, num::NonZeroU32};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use zeroize::Zeroizing;

use super::{
    AuthError, ScramKeys,
    scram::{
        KEY_LEN, MAX_ITERATIONS, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, attribute, decode_key, hmac, is_nonce,
        nonce, same, saslprep, sha256, xor,
    },
};

/// Longest message of a server that is looked at, as PostgreSQL's own limit (PG_MAX_SASL_MESSAGE_LENGTH).
const MAX_MESSAGE: usize = 1024;

/// What the client proves with.
#[derive(Clone, Copy, Debug)]
pub enum ScramSecretSource<'a> {
    /// The password; costs a PBKDF2 in `on_continue`.
    Password(&'a str),
    /// Keys that a client of ours proved against the same stored secret (pass-through).
    Keys(&'a ScramKeys),
}

enum Source {
    Password(Zeroizing<String>),
    Keys(ScramKeys),
}

enum State {
    /// The initial message has been handed out.
    First { source: Source },
    /// The proof has been handed out; the server must show this signature.
    Final { server_signature: [u8; KEY_LEN] },
    /// Done or failed.
    Over,
}

/// One exchange.
pub struct ScramClient {
    /// `p=tls-server-end-point,,`, `y,,` or `n,,`.
    gs2_header: &'static str,
    /// Certificate hash that follows the header; empty without channel binding.
    binding: Vec<u8>,
    nonce: String,
    state: State,
}

impl std::fmt::Debug for ScramClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ScramClient").field("gs2_header", &self.gs2_header).finish_non_exhaustive()
    }
}

impl ScramClient {
    /// Chooses the mechanism out of those `offered` and gives its name and the initial message.
    ///
    /// `channel_binding`: hash of the server's certificate (`tls-server-end-point`) if the connection uses
    /// TLS and the hash is known.
    pub fn new(
        source: ScramSecretSource<'_>,
        channel_binding: Option<&[u8]>,
        offered: &[&str],
    ) -> Result<(Self, &'static str, Vec<u8>), AuthError> {
        Self::with_nonce(source, channel_binding, offered, nonce()?)
    }

    fn with_nonce(
        source: ScramSecretSource<'_>,
        channel_binding: Option<&[u8]>,
        offered: &[&str],
        nonce: String,
    ) -> Result<(Self, &'static str, Vec<u8>), AuthError> {
        let (mechanism, gs2_header, binding) = match channel_binding {
            Some(hash) if offered.contains(&SCRAM_SHA_256_PLUS) => {
                (SCRAM_SHA_256_PLUS, "p=tls-server-end-point,,", hash.to_vec())
            }
            _ if !offered.contains(&SCRAM_SHA_256) => return Err(AuthError::NoMechanism),
            // "y": we could bind, the server seems unable to; it fails the login if somebody removed its offer.
            Some(_) => (SCRAM_SHA_256, "y,,", Vec::new()),
            None => (SCRAM_SHA_256, "n,,", Vec::new()),
        };
        let source = match source {
            ScramSecretSource::Password(password) => {
                Source::Password(Zeroizing::new(saslprep(password).into_owned()))
            }
            ScramSecretSource::Keys(keys) => Source::Keys(keys.clone()),
        };
        // The user name stays empty: PostgreSQL takes it from the startup packet.
        let initial = format!("{gs2_header}n=,r={nonce}").into_bytes();
        Ok((Self { gs2_header, binding, nonce, state: State::First { source } }, mechanism, initial))
    }

    /// Takes the payload of AuthenticationSASLContinue and gives that of the SASLResponse.
    ///
    /// From a password this runs PBKDF2 (milliseconds): call it in `spawn_blocking`. From keys it is quick.
    pub fn on_continue(&mut self, data: &[u8]) -> Result<Vec<u8>, AuthError> {
        let State::First { source } = mem::replace(&mut self.state, State::Over) else {
            return Err(AuthError::ServerMessage("unexpected SASL continuation"));
        };
        let server_first = text(data)?;
        let (nonce, salt, iterations) = parse_server_first(server_first)?;
        if nonce.len() <= self.nonce.len() || !nonce.starts_with(&self.nonce) {
            return Err(AuthError::ServerMessage("nonce does not extend the client's"));
        }
        let keys = match source {
            Source::Keys(keys) => keys,
            Source::Password(password) => ScramKeys::derive(password.as_bytes(), &salt, iterations),
        };

        let mut bound = self.gs2_header.as_bytes().to_vec();
        bound.extend_from_slice(&self.binding);
        let mut client_final = format!("c={},r={nonce}", BASE64.encode(bound));
        let auth_message = format!("n=,r={},{server_first},{client_final}", self.nonce);
        let signature = hmac(&sha256(&keys.client_key), &[auth_message.as_bytes()]);
        client_final.push_str(",p=");
        BASE64.encode_string(xor(&keys.client_key, &signature), &mut client_final);

        let server_signature = hmac(&keys.server_key, &[auth_message.as_bytes()]);
        self.state = State::Final { server_signature };
        Ok(client_final.into_bytes())
    }

    /// Takes the payload of AuthenticationSASLFinal: an error unless the server proved that it knows the secret.
    pub fn on_final(&mut self, data: &[u8]) -> Result<(), AuthError> {
        let State::Final { server_signature } = mem::replace(&mut self.state, State::Over) else {
            return Err(AuthError::ServerMessage("unexpected end of SASL exchange"));
        };
        let message = text(data)?;
        if let Some((reason, _)) = attribute(message, 'e') {
            return Err(AuthError::ServerRefused(
                reason.chars().filter(|c| !c.is_control()).take(100).collect(),
            ));
        }
        let (signature, _) =
            attribute(message, 'v').ok_or(AuthError::ServerMessage("server signature is missing"))?;
        match decode_key(signature.as_bytes()) {
            Some(signature) if same(&signature, &server_signature) => Ok(()),
            _ => Err(AuthError::ServerSignature),
        }
    }
}

fn text(data: &[u8]) -> Result<&str, AuthError> {
    if data.len() > MAX_MESSAGE {
        return Err(AuthError::ServerMessage("message is too long"));
    }
    std::str::from_utf8(data).map_err(|_| AuthError::ServerMessage("message is not UTF-8"))
}

fn parse_server_first(message: &str) -> Result<(&str, Vec<u8>, NonZeroU32), AuthError> {
    let bad = AuthError::ServerMessage;
    if message.starts_with("m=") {
        return Err(bad("mandatory extension"));
    }
    let (nonce, rest) = attribute(message, 'r').ok_or(bad("nonce is missing"))?;
    let (salt, rest) = attribute(rest, 's').ok_or(bad("salt is missing"))?;
    let (iterations, _) = attribute(rest, 'i').ok_or(bad("iteration count is missing"))?;
    if !is_nonce(nonce) {
        return Err(bad("nonce is not printable"));
    }
    let salt = BASE64.decode(salt).map_err(|_| bad("salt is not base64"))?;
    let iterations: NonZeroU32 = iterations.parse().map_err(|_| bad("iteration count is not a number"))?;
    if iterations.get() > MAX_ITERATIONS {
        return Err(bad("iteration count is out of range"));
    }
    Ok((nonce, salt, iterations))
}

#[cfg(test)]
mod tests {
    use super::*;

    // RFC 7677's example has a user name in the first message; PostgreSQL's clients send none, so the vectors
    // here are checked against postgres-protocol's client, which does the same.
    fn client(
        password: &str,
        binding: Option<&[u8]>,
        offered: &[&str],
    ) -> (ScramClient, &'static str, String) {
        let (client, mechanism, initial) = ScramClient::with_nonce(
            ScramSecretSource::Password(password),
            binding,
            offered,
            "9IZ2O01zb9IgiIZ1WJ/zgpJB".to_owned(),
        )
        .unwrap();
        (client, mechanism, String::from_utf8(initial).unwrap())
    }

    #[test]
    fn transcript_with_a_postgresql_server_is_reproduced() {
        // Recorded by the authors of postgres-protocol against PostgreSQL (its own unit test).
        let (mut client, mechanism, initial) = client("foobar", None, &[SCRAM_SHA_256]);
        assert_eq!(mechanism, SCRAM_SHA_256);
        assert_eq!(initial, "n,,n=,r=9IZ2O01zb9IgiIZ1WJ/zgpJB");
        let response = client
            .on_continue(b"r=9IZ2O01zb9IgiIZ1WJ/zgpJBjx/oIRLs02gGSHcw1KEty3eY,s=fs3IXBy7U7+IvVjZ,i=4096")
            .unwrap();
        assert_eq!(
            String::from_utf8(response).unwrap(),
            "c=biws,r=9IZ2O01zb9IgiIZ1WJ/zgpJBjx/oIRLs02gGSHcw1KEty3eY,\
             p=AmNKosjJzS31NTlQYNs5BTeQjdHdk7lOflDo5re2an8="
        );
        client.on_final(b"v=U+ppxD5XUKtradnv8e2MkeupiA8FU87Sg8CXzXHDAzw=").unwrap();
    }

    #[test]
    fn wrong_server_signature_is_refused() {
        let (mut client, ..) = client("foobar", None, &[SCRAM_SHA_256]);
        client
            .on_continue(b"r=9IZ2O01zb9IgiIZ1WJ/zgpJBjx/oIRLs02gGSHcw1KEty3eY,s=fs3IXBy7U7+IvVjZ,i=4096")
            .unwrap();
        assert_eq!(
            client.on_final(b"v=V+ppxD5XUKtradnv8e2MkeupiA8FU87Sg8CXzXHDAzw="),
            Err(AuthError::ServerSignature)
        );
    }

    #[test]
    fn channel_binding_flag_says_what_is_possible() {
        let both = [SCRAM_SHA_256_PLUS, SCRAM_SHA_256];
        assert!(client("x", Some(b"hash"), &both).2.starts_with("p=tls-server-end-point,,n=,r="));
        assert_eq!(client("x", Some(b"hash"), &both).1, SCRAM_SHA_256_PLUS);
        assert!(client("x", Some(b"hash"), &[SCRAM_SHA_256]).2.starts_with("y,,"));
        assert!(client("x", None, &both).2.starts_with("n,,"));
        let none = ScramClient::new(ScramSecretSource::Password("x"), None, &["OAUTHBEARER"]);
        assert_eq!(none.err(), Some(AuthError::NoMechanism));
    }

    /// S13: over-long nonces and other nonsense of a server end in an error.
    #[test]
    fn malformed_server_messages_are_refused() {
        let long = format!("r=9IZ2O01zb9IgiIZ1WJ/zgpJB{},s=AAAA,i=1", "x".repeat(100_000));
        for message in [
            "",
            "r=",
            "r=other,s=AAAA,i=1",
            "r=9IZ2O01zb9IgiIZ1WJ/zgpJB,s=AAAA,i=1",
            "r=9IZ2O01zb9IgiIZ1WJ/zgpJBx,s=A,i=1",
            "r=9IZ2O01zb9IgiIZ1WJ/zgpJBx,s=AAAA,i=0",
            "r=9IZ2O01zb9IgiIZ1WJ/zgpJBx,s=AAAA,i=4294967295",
            "r=9IZ2O01zb9IgiIZ1WJ/zgpJBx,s=AAAA,i=-1",
            "r=9IZ2O01zb9IgiIZ1WJ/zgpJB\u{1},s=AAAA,i=1",
            "m=x,r=9IZ2O01zb9IgiIZ1WJ/zgpJBx,s=AAAA,i=1",
            long.as_str(),
        ] {
            let (mut client, ..) = client("x", None, &[SCRAM_SHA_256]);
            let error = client.on_continue(message.as_bytes()).unwrap_err();
            assert!(matches!(error, AuthError::ServerMessage(_)), "{message:.40}: {error}");
            // A failed exchange stays failed.
            assert!(client.on_final(b"v=AAAA").is_err());
        }
    }

    #[test]
    fn messages_out_of_order_are_refused() {
        let (mut client, ..) = client("x", None, &[SCRAM_SHA_256]);
        assert!(client.on_final(b"v=U+ppxD5XUKtradnv8e2MkeupiA8FU87Sg8CXzXHDAzw=").is_err());
        assert!(client.on_continue(b"r=9IZ2O01zb9IgiIZ1WJ/zgpJBx,s=AAAA,i=1").is_err());
    }

    #[test]
    fn refusal_of_the_server_is_quoted() {
        let (mut client, ..) = client("x", None, &[SCRAM_SHA_256]);
        client.on_continue(b"r=9IZ2O01zb9IgiIZ1WJ/zgpJBx,s=AAAA,i=1").unwrap();
        assert_eq!(
            client.on_final(b"e=other-error"),
            Err(AuthError::ServerRefused("other-error".to_owned()))
        );
    }
}
