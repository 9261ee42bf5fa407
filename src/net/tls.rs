//! TLS towards clients and servers, by rustls.

use std::sync::Arc;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use crate::config::{Settings, SslMode};

/// TLS settings towards servers: roots, client certificate. One per loaded configuration.
#[derive(Debug)]
pub struct ServerTls {}

/// Placeholder of branch auth: branch srv has the real one, which wins when merged.
#[derive(Debug)]
pub struct ClientTls {
    pub config: Arc<rustls::ServerConfig>,
    pub mode: SslMode,
    pub server_end_point: Arc<[u8]>,
}

#[derive(Debug)]
pub struct TlsError;

impl ClientTls {
    pub fn build(settings: &Settings) -> Result<Option<Self>, TlsError> {
        let (Some(cert), Some(key)) = (&settings.client_tls_cert_file, &settings.client_tls_key_file) else {
            return Ok(None);
        };
        let cert = CertificateDer::from_pem_file(cert).map_err(|_| TlsError)?;
        let key = PrivateKeyDer::from_pem_file(key).map_err(|_| TlsError)?;
        let digest = ring::digest::digest(&ring::digest::SHA256, &cert);
        let mut config = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![cert], key)
            .map_err(|_| TlsError)?;
        config.alpn_protocols = vec![b"postgresql".to_vec()];
        let server_end_point = digest.as_ref().into();
        Ok(Some(Self { config: Arc::new(config), mode: settings.client_tls_sslmode, server_end_point }))
    }
}
