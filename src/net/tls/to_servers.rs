//! TLS towards servers: what each sslmode asks of the server's certificate, as libpq does it.

use std::{
    path::Path,
    sync::{Arc, OnceLock},
};

use rustls::{
    ClientConfig, RootCertStore,
    client::Resumption,
    pki_types::{CertificateDer, PrivateKeyDer},
};

use super::{
    ALPN, Fingerprint, TlsError,
    files::Files,
    suites::Choice,
    verify::{Check, ServerVerifier},
};
use crate::config::{Settings, SslMode};

const CA_FILE: &str = "server_tls_ca_file";
const CERT_FILE: &str = "server_tls_cert_file";
const KEY_FILE: &str = "server_tls_key_file";

/// TLS settings towards servers: roots, client certificate. One per loaded configuration.
///
/// Two are equal when their settings and the contents of their files are.
#[derive(Debug)]
pub struct ServerTls {
    unverified: Arc<ClientConfig>,
    /// From server_tls_ca_file.
    verified: Option<Verified>,
    /// From the system's authorities, loaded when a verify-* mode first needs them.
    system: OnceLock<Result<Verified, TlsError>>,
    fingerprint: Fingerprint,
}

/// Configurations that check the certificate's chain.
#[derive(Clone, Debug)]
struct Verified {
    chain: Arc<ClientConfig>,
    chain_and_name: Arc<ClientConfig>,
}

impl PartialEq for ServerTls {
    fn eq(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint
    }
}

impl Eq for ServerTls {}

impl ServerTls {
    /// Reads the files that the settings name. Blocks on files: not for a worker.
    pub fn build(settings: &Settings) -> Result<Self, TlsError> {
        let mut files = Files::new();
        let identity = identity(settings, &mut files)?;
        let choice = Choice {
            protocols: ("server_tls_protocols", &settings.server_tls_protocols),
            ciphers: ("server_tls_ciphers", &settings.server_tls_ciphers),
            ciphers13: ("server_tls13_ciphers", &settings.server_tls13_ciphers),
        };
        files.note((choice.protocols, choice.ciphers, choice.ciphers13));
        let unverified = Arc::new(base(identity, &choice)?);
        let verified = match &settings.server_tls_ca_file {
            Some(path) => Some(Verified::from_file(&unverified, path, &mut files)?),
            None => None,
        };
        let tls = Self { unverified, verified, system: OnceLock::new(), fingerprint: files.fingerprint() };
        // Better now than at the first login.
        tls.config(settings.server_tls_sslmode)?;
        Ok(tls)
    }

    /// The configuration for a mode. As in libpq, `require` checks the chain if there is an authority
    /// to check it with; `allow` and `prefer` take any certificate, because they would rather take none.
    pub fn config(&self, mode: SslMode) -> Result<Arc<ClientConfig>, TlsError> {
        match mode {
            SslMode::Disable | SslMode::Allow | SslMode::Prefer => Ok(self.unverified.clone()),
            SslMode::Require => Ok(self.verified.as_ref().map_or(&self.unverified, |v| &v.chain).clone()),
            SslMode::VerifyCa => Ok(self.verified()?.chain.clone()),
            SslMode::VerifyFull => Ok(self.verified()?.chain_and_name.clone()),
        }
    }

    fn verified(&self) -> Result<&Verified, TlsError> {
        match &self.verified {
            Some(verified) => Ok(verified),
            None => self
                .system
                .get_or_init(|| Verified::from_system(&self.unverified))
                .as_ref()
                .map_err(Clone::clone),
        }
    }
}

impl Verified {
    fn from_file(base: &ClientConfig, path: &Path, files: &mut Files) -> Result<Self, TlsError> {
        let trusted = files.certificates(CA_FILE, path)?;
        let mut roots = RootCertStore::empty();
        for certificate in &trusted {
            roots.add(certificate.clone()).map_err(|source| TlsError::Authority {
                setting: CA_FILE,
                path: path.to_owned(),
                source: Box::new(source),
            })?;
        }
        Ok(Self::new(base, roots, trusted))
    }

    fn from_system(base: &ClientConfig) -> Result<Self, TlsError> {
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        let (added, _) = roots.add_parsable_certificates(found.certs);
        if added == 0 {
            let reason = found.errors.first().map_or("none found".to_owned(), ToString::to_string);
            return Err(TlsError::SystemRoots(reason));
        }
        Ok(Self::new(base, roots, Vec::new()))
    }

    fn new(base: &ClientConfig, roots: RootCertStore, trusted: Vec<CertificateDer<'static>>) -> Self {
        let roots = Arc::new(roots);
        let trusted: Arc<[_]> = trusted.into();
        let with = |check| {
            let mut config = base.clone();
            let verifier = ServerVerifier::new(check, roots.clone(), trusted.clone());
            config.dangerous().set_certificate_verifier(Arc::new(verifier));
            Arc::new(config)
        };
        Self { chain: with(Check::Chain), chain_and_name: with(Check::ChainAndName) }
    }
}

/// Certificate, key and the files they came from.
type Identity<'a> = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>, &'a Path, &'a Path);

fn identity<'a>(settings: &'a Settings, files: &mut Files) -> Result<Option<Identity<'a>>, TlsError> {
    match (&settings.server_tls_cert_file, &settings.server_tls_key_file) {
        (Some(certificate), Some(key)) => {
            let chain = files.certificates(CERT_FILE, certificate)?;
            Ok(Some((chain, files.key(KEY_FILE, key)?, certificate, key)))
        }
        (None, None) => Ok(None),
        (Some(_), None) => Err(TlsError::Missing { setting: KEY_FILE, because: "server_tls_cert_file is" }),
        (None, Some(_)) => Err(TlsError::Missing { setting: CERT_FILE, because: "server_tls_key_file is" }),
    }
}

/// A configuration that takes any certificate of the server.
fn base(identity: Option<Identity<'_>>, choice: &Choice<'_>) -> Result<ClientConfig, TlsError> {
    let verifier = ServerVerifier::new(Check::Nothing, Arc::new(RootCertStore::empty()), Arc::new([]));
    let builder = ClientConfig::builder_with_provider(choice.provider()?)
        .with_protocol_versions(&choice.versions()?)
        .map_err(|e| TlsError::Setup(e.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some((chain, key, certificate_path, key_path)) => {
            builder.with_client_auth_cert(chain, key).map_err(|source| TlsError::Identity {
                setting: KEY_FILE,
                certificate: certificate_path.to_owned(),
                key: key_path.to_owned(),
                source: Box::new(source),
            })?
        }
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    // PostgreSQL resumes no sessions; remembering any would only cost memory.
    config.resumption = Resumption::disabled();
    Ok(config)
}
