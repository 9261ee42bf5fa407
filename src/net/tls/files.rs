//! Reading PEM files: certificates, authorities and keys. What was read goes into a fingerprint.

use std::{
    fmt,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    sync::Arc,
};

use ring::digest::{Context, SHA256};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject};

use super::{Fingerprint, TlsError};

/// Reads files and remembers a hash of all of them.
pub(super) struct Files {
    hash: Context,
}

impl Files {
    pub(super) fn new() -> Self {
        Self { hash: Context::new(&SHA256) }
    }

    /// Lets a setting take part in the fingerprint.
    pub(super) fn note(&mut self, setting: impl fmt::Debug) {
        self.hash.update(format!("{setting:?}\0").as_bytes());
    }

    pub(super) fn fingerprint(self) -> Fingerprint {
        let mut bytes = [0; 32];
        let digest = self.hash.finish();
        bytes.copy_from_slice(digest.as_ref().get(..32).unwrap_or(&[0; 32]));
        Fingerprint(bytes)
    }

    /// All certificates of a file, at least one.
    pub(super) fn certificates(
        &mut self,
        setting: &'static str,
        path: &Path,
    ) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let text = self.read(setting, path)?;
        let bad = |reason: String| TlsError::Content {
            setting,
            path: path.to_owned(),
            expected: "certificate",
            reason,
        };
        let found = CertificateDer::pem_slice_iter(&text)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| bad(e.to_string()))?;
        if found.is_empty() { Err(bad("no CERTIFICATE section".into())) } else { Ok(found) }
    }

    /// The private key of a file: PKCS #8, PKCS #1 or SEC 1, not encrypted.
    pub(super) fn key(
        &mut self,
        setting: &'static str,
        path: &Path,
    ) -> Result<PrivateKeyDer<'static>, TlsError> {
        let text = zeroize::Zeroizing::new(self.read(setting, path)?);
        warn_if_readable(setting, path);
        PrivateKeyDer::from_pem_slice(&text).map_err(|e| {
            let encrypted = text.windows(9).any(|w| w == b"ENCRYPTED");
            let reason = match e {
                _ if encrypted => {
                    "the key is encrypted; take the passphrase off with \"openssl pkey\"".to_owned()
                }
                pem::Error::NoItemsFound => "no PRIVATE KEY section".to_owned(),
                e => e.to_string(),
            };
            TlsError::Content { setting, path: path.to_owned(), expected: "private key", reason }
        })
    }

    fn read(&mut self, setting: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
        let text = std::fs::read(path).map_err(|source| TlsError::Read {
            setting,
            path: path.to_owned(),
            source: Arc::new(source),
        })?;
        self.note((setting, text.len()));
        self.hash.update(&text);
        Ok(text)
    }
}

/// PostgreSQL's rule: a key of one's own must be 0600 or less; one that belongs to root may be 0640.
fn warn_if_readable(setting: &str, path: &Path) {
    let Ok(meta) = std::fs::metadata(path) else { return };
    let allowed = if meta.uid() == 0 { 0o640 } else { 0o600 };
    let mode = meta.permissions().mode() & 0o777;
    if mode & !allowed & 0o077 != 0 {
        tracing::warn!(
            "{setting}: private key \"{}\" has permissions {mode:04o}; others may read it (chmod 0600)",
            path.display()
        );
    }
}
