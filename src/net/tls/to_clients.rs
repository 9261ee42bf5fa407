//! TLS towards clients: our certificate, and what is asked of theirs.

use std::sync::Arc;

use rustls::{
    RootCertStore, ServerConfig,
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
};

use super::{
    ALPN, Fingerprint, TlsError, certificate::server_end_point, files::Files, provider, suites::Choice,
};
use crate::config::{Settings, SslMode};

const CERT_FILE: &str = "client_tls_cert_file";
const KEY_FILE: &str = "client_tls_key_file";
const CA_FILE: &str = "client_tls_ca_file";

/// TLS settings towards clients. One per loaded configuration; equal when settings and files are.
#[derive(Clone, Debug)]
pub struct ClientTls {
    pub config: Arc<ServerConfig>,
    pub mode: SslMode,
    /// `tls-server-end-point` of our certificate. Empty where it is undefined (Ed25519): then
    /// SCRAM-SHA-256-PLUS cannot be offered.
    pub server_end_point: Arc<[u8]>,
    fingerprint: Fingerprint,
}

impl PartialEq for ClientTls {
    fn eq(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint
    }
}

impl Eq for ClientTls {}

impl ClientTls {
    /// Reads the files that the settings name; `None` if TLS is off. Blocks on files: not for a worker.
    pub fn build(settings: &Settings) -> Result<Option<Self>, TlsError> {
        let mode = settings.client_tls_sslmode;
        if mode == SslMode::Disable {
            return Ok(None);
        }
        let because = "client_tls_sslmode asks for TLS";
        let missing = |setting| TlsError::Missing { setting, because };
        let certificate = settings.client_tls_cert_file.as_deref().ok_or(missing(CERT_FILE))?;
        let key = settings.client_tls_key_file.as_deref().ok_or(missing(KEY_FILE))?;

        let mut files = Files::new();
        files.note(mode);
        let chain = files.certificates(CERT_FILE, certificate)?;
        let server_end_point = chain.first().and_then(|leaf| server_end_point(leaf)).unwrap_or_default();
        let choice = Choice {
            protocols: ("client_tls_protocols", &settings.client_tls_protocols),
            ciphers: ("client_tls_ciphers", &settings.client_tls_ciphers),
            ciphers13: ("client_tls13_ciphers", &settings.client_tls13_ciphers),
        };
        files.note((choice.protocols, choice.ciphers, choice.ciphers13));
        let mut config = ServerConfig::builder_with_provider(choice.provider()?)
            .with_protocol_versions(&choice.versions()?)
            .map_err(|e| TlsError::Setup(e.to_string()))?
            .with_client_cert_verifier(client_verifier(settings, &mut files)?)
            .with_single_cert(chain, files.key(KEY_FILE, key)?)
            .map_err(|source| TlsError::Identity {
                setting: KEY_FILE,
                certificate: certificate.to_owned(),
                key: key.to_owned(),
                source: Box::new(source),
            })?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        // libpq resumes no sessions, and PostgreSQL offers none: no tickets, no cache, no memory for them.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Some(Self {
            config: Arc::new(config),
            mode,
            server_end_point: server_end_point.into(),
            fingerprint: files.fingerprint(),
        }))
    }
}

/// verify-ca and verify-full demand a certificate; the other modes check the one that is sent, if there is
/// an authority to check it with, and ask for none otherwise.
fn client_verifier(settings: &Settings, files: &mut Files) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let demanded = settings.client_tls_sslmode >= SslMode::VerifyCa;
    let Some(path) = settings.client_tls_ca_file.as_deref() else {
        if demanded {
            let because = "client_tls_sslmode asks for certificates of clients";
            return Err(TlsError::Missing { setting: CA_FILE, because });
        }
        return Ok(WebPkiClientVerifier::no_client_auth());
    };
    let mut roots = RootCertStore::empty();
    for certificate in files.certificates(CA_FILE, path)? {
        roots.add(certificate).map_err(|source| TlsError::Authority {
            setting: CA_FILE,
            path: path.to_owned(),
            source: Box::new(source),
        })?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
    let builder = if demanded { builder } else { builder.allow_unauthenticated() };
    builder.build().map_err(|e| TlsError::Setup(e.to_string()))
}
