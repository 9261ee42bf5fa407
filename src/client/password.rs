//! The dialogue by which a client proves who it is, per auth_type and kind of stored secret.
//!
//! An unknown user gets the dialogue of a known one: SCRAM with a mock secret, or the dialogue that the kind
//! of the first stored password calls for. (A list that mixes kinds tells them apart, as in PgBouncer.)

use std::{num::NonZeroU32, sync::Arc};

use zeroize::Zeroizing;

use super::{error::LoginError, ldap, lookup::Found, pam, wire::Wire};
use crate::{
    auth::{AuthError, ScramKeys, ScramSecret, ScramServer, SecretCache, Stored, md5, scram, secrets},
    config::{AuthType, Config, Demand, PeerAddr, ldap::Ldap},
    error::{Printable, Secret},
    protocol::encode,
};

/// Authentication request codes.
const CLEARTEXT: u32 = 3;
const MD5: u32 = 5;
const SASL: u32 = 10;
const SASL_CONTINUE: u32 = 11;
const SASL_FINAL: u32 = 12;

/// What a login left behind that may log in to a server.
#[derive(Debug, Default)]
pub(crate) struct Proof {
    pub(crate) scram_keys: Option<ScramKeys>,
    pub(crate) password: Option<Secret<String>>,
}

/// One client's dialogue.
#[derive(Debug)]
pub(crate) struct Dialogue<'a> {
    pub(crate) config: &'a Config,
    pub(crate) secrets: &'a SecretCache,
    /// `tls-server-end-point` hash, on TLS connections.
    pub(crate) binding: Option<Arc<[u8]>>,
    pub(crate) user: &'a str,
    pub(crate) from: &'a PeerAddr,
    pub(crate) demand: &'a Demand,
    /// What auth_query has found, if it has been asked.
    pub(crate) found: Option<&'a Found>,
    /// Those whom auth_query finds have md5 hashes rather than SCRAM secrets.
    pub(crate) are_md5: bool,
}

impl<'a> Dialogue<'a> {
    /// Asks for a proof and checks it. On success something may remain in `wire.out`.
    pub(crate) async fn run(self, wire: &mut Wire) -> Result<Proof, LoginError> {
        self.prove(wire).await.map_err(|error| match error {
            LoginError::Auth(cause @ (AuthError::Password | AuthError::Sasl)) => {
                LoginError::WrongPassword { user: self.user.to_owned(), cause }
            }
            error => error,
        })
    }

    async fn prove(&self, wire: &mut Wire) -> Result<Proof, LoginError> {
        let listed = self.config.users.get(self.user).and_then(|user| user.password.as_ref());
        let (known, text) = match self.found {
            None => (self.config.users.contains_key(self.user), listed),
            Some(Found::Nobody) => (false, None),
            Some(Found::WithoutPassword) => (true, None),
            Some(Found::Secret(secret)) => (true, Some(secret)),
        };
        let stored = text.and_then(|text| Stored::parse(&text.0));
        match self.demand.method {
            AuthType::Trust if known => Ok(Proof::default()),
            AuthType::Trust => Err(AuthError::Trust.into()),
            // What the socket shows has been looked at: what remains is that the user is known.
            AuthType::Peer if known => Ok(Proof::default()),
            AuthType::Peer => Err(LoginError::Peer),
            AuthType::Cert if known => Ok(Proof::default()),
            AuthType::Cert => Err(LoginError::Certificate),
            AuthType::Any => Ok(Proof::default()),
            AuthType::Reject | AuthType::Hba => Err(LoginError::Rejected),
            AuthType::Ldap => self.ldap(wire).await,
            AuthType::Pam => self.pam(wire).await,
            AuthType::Plain => self.plain(wire, stored).await,
            AuthType::ScramSha256 => self.scram(wire, stored).await,
            AuthType::Md5 => match stored {
                Some(stored @ Stored::Scram(_)) => self.scram(wire, Some(stored)).await,
                None if self.is_scram_typical() => self.scram(wire, None).await,
                stored => self.md5(wire, stored.as_ref()).await,
            },
        }
    }

    /// What an unknown user pretends to have: what auth_query finds, else what stands in the list first.
    fn is_scram_typical(&self) -> bool {
        if self.found.is_some() {
            return !self.are_md5;
        }
        let mut listed = self.config.users.values();
        matches!(listed.find_map(|user| Stored::parse(&user.password.as_ref()?.0)), Some(Stored::Scram(_)))
    }

    fn iterations(&self) -> NonZeroU32 {
        NonZeroU32::new(self.config.settings.scram_iterations).unwrap_or(secrets::DEFAULT_ITERATIONS)
    }

    async fn password(wire: &mut Wire) -> Result<Zeroizing<String>, LoginError> {
        encode::authentication(&mut wire.out, CLEARTEXT, &[]);
        wire.flush().await?;
        read_password(wire).await
    }

    async fn ldap(&self, wire: &mut Wire) -> Result<Proof, LoginError> {
        let password = Self::password(wire).await?;
        let known = match &self.demand.ldap {
            Some(ldap) => {
                ldap::authenticate(ldap, self.user, &password).await.map_err(|error| error.to_string())
            }
            // SET does not look at what settings need of each other.
            None => match Ldap::parse(&self.config.settings.auth_ldap_options) {
                Ok(ldap) => {
                    ldap::authenticate(&ldap, self.user, &password).await.map_err(|error| error.to_string())
                }
                Err(wrong) => Err(format!("auth_ldap_options: {wrong}")),
            },
        };
        self.known_elsewhere("LDAP", known, &password)
    }

    async fn pam(&self, wire: &mut Wire) -> Result<Proof, LoginError> {
        let password = Self::password(wire).await?;
        let service = self.demand.pam_service.as_deref();
        let service = service.unwrap_or(&self.config.settings.auth_pam_service);
        let host = match self.from {
            PeerAddr::Tcp { peer, .. } => Some(peer.ip().to_string()),
            PeerAddr::Unix { .. } => None,
        };
        let known = pam::authenticate(service, self.user, password.clone(), host).await;
        self.known_elsewhere("PAM", known.map_err(|error| error.to_string()), &password)
    }

    /// What somebody else says of the user. The client is not told why it is refused.
    fn known_elsewhere(
        &self,
        by: &'static str,
        known: Result<(), String>,
        password: &Zeroizing<String>,
    ) -> Result<Proof, LoginError> {
        match known {
            Ok(()) => Ok(Proof { password: Some(Secret(password.to_string())), scram_keys: None }),
            Err(why) => {
                let (user, why) = (Printable(self.user), Printable(&why));
                tracing::warn!("{by} authentication failed for user {user}: {why}");
                Err(LoginError::Elsewhere { by, user: self.user.to_owned() })
            }
        }
    }

    async fn plain(&self, wire: &mut Wire, stored: Option<Stored<'_>>) -> Result<Proof, LoginError> {
        let password = Self::password(wire).await?;
        let right = match stored {
            Some(Stored::Scram(secret)) => self.secrets.verify(Arc::new(secret), password.clone()).await?,
            Some(stored) => stored.verify(self.user, &password),
            None => self.refuse(password.clone()).await?,
        };
        if !right {
            return Err(AuthError::Password.into());
        }
        Ok(Proof { password: Some(Secret(password.to_string())), scram_keys: None })
    }

    /// Spends on an unknown user what a known one costs; no password is right.
    async fn refuse(&self, password: Zeroizing<String>) -> Result<bool, AuthError> {
        if self.is_scram_typical() {
            let mock = self.secrets.mock(self.user, self.iterations());
            self.secrets.verify(mock, password).await?;
        }
        Ok(false)
    }

    async fn md5(&self, wire: &mut Wire, stored: Option<&Stored<'_>>) -> Result<Proof, LoginError> {
        let salt: [u8; 4] = scram::random()?;
        encode::authentication(&mut wire.out, MD5, &salt);
        wire.flush().await?;
        let answer = read_password(wire).await?;
        let expected = match stored {
            Some(Stored::Plain(password)) => Some(md5::hash(self.user, password.0, salt)),
            Some(Stored::Md5(secret)) => Some(md5::hash_stored(secret.0, salt)),
            Some(Stored::Scram(_)) | None => None,
        };
        match expected {
            Some(expected) if scram::same(expected.as_bytes(), answer.as_bytes()) => Ok(Proof::default()),
            _ => Err(AuthError::Password.into()),
        }
    }

    /// The secret to run SCRAM with, whether it is the user's stored one, and whether no proof can match.
    async fn scram_secret(&self, stored: Option<Stored<'_>>) -> Result<(Arc<ScramSecret>, Kind), AuthError> {
        match stored {
            Some(Stored::Scram(secret)) => Ok((Arc::new(secret), Kind::Stored)),
            Some(Stored::Plain(password)) => {
                let secret = self.secrets.ad_hoc(self.user, password.0, self.iterations()).await?;
                Ok((secret, Kind::AdHoc))
            }
            Some(Stored::Md5(_)) | None => Ok((self.secrets.mock(self.user, self.iterations()), Kind::Mock)),
        }
    }

    async fn scram(&self, wire: &mut Wire, stored: Option<Stored<'_>>) -> Result<Proof, LoginError> {
        let (secret, kind) = self.scram_secret(stored).await?;
        let mut server = ScramServer::new(secret, kind == Kind::Mock, self.binding.clone());
        encode::authentication(&mut wire.out, SASL, &server.mechanisms());
        wire.flush().await?;
        let initial = wire.password_message().await?;
        let challenge = server.on_initial(&initial)?;
        encode::authentication(&mut wire.out, SASL_CONTINUE, &challenge);
        wire.flush().await?;
        let response = wire.password_message().await?;
        let (keys, last) = server.on_final(&response)?;
        // Not flushed: it goes out with AuthenticationOk, or with the error that follows.
        encode::authentication(&mut wire.out, SASL_FINAL, &last);
        // Keys of an ad hoc secret log in nowhere else: the server has another salt.
        Ok(Proof { scram_keys: (kind == Kind::Stored).then_some(keys), password: None })
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Stored,
    AdHoc,
    Mock,
}

/// Reads a PasswordMessage: a NUL-terminated string and nothing else.
async fn read_password(wire: &mut Wire) -> Result<Zeroizing<String>, LoginError> {
    let body = wire.password_message().await?;
    match body.split_last() {
        Some((0, [])) => Err(AuthError::EmptyPassword.into()),
        Some((0, password)) if !password.contains(&0) => match std::str::from_utf8(password) {
            Ok(text) => Ok(Zeroizing::new(text.to_owned())),
            // Stored passwords are UTF-8, so this one is wrong.
            Err(_) => Err(AuthError::Password.into()),
        },
        _ => Err(AuthError::MalformedPassword.into()),
    }
}
