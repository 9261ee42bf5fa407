//! Checks of a server's certificate: none, its chain (verify-ca), or chain and host name (verify-full).
//!
//! rustls' own rules (webpki) are stricter than OpenSSL's, which libpq uses and for which the certificates
//! of many PostgreSQL servers were made. Three kinds that PostgreSQL's own documentation teaches to make
//! are accepted too: a self-signed certificate that is itself listed as an authority; a version 1
//! certificate that an authority signed directly; and a host name in the common name only.

use std::sync::Arc;

use rustls::{
    CertificateError, DigitallySignedStruct, Error, PeerMisbehaved, RootCertStore, SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor, verify_server_name,
    },
    crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key},
    pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime},
    server::ParsedCertificate,
};
use x509_cert::{
    Certificate,
    der::Decode,
    ext::pkix::{BasicConstraints, NameConstraints, SubjectAltName, name::GeneralName},
};

use super::{
    certificate::{View, public_key_parts},
    provider,
};

/// What to check of a server's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Check {
    Nothing,
    Chain,
    ChainAndName,
}

/// Checks the certificates of servers.
#[derive(Debug)]
pub(super) struct ServerVerifier {
    check: Check,
    roots: Arc<RootCertStore>,
    /// The certificates that `roots` was made of, if a file listed them.
    trusted: Arc<[CertificateDer<'static>]>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerVerifier {
    pub(super) fn new(
        check: Check,
        roots: Arc<RootCertStore>,
        trusted: Arc<[CertificateDer<'static>]>,
    ) -> Self {
        Self { check, roots, trusted, algorithms: provider().signature_verification_algorithms }
    }

    fn chain(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let verified = ParsedCertificate::try_from(leaf).and_then(|parsed| {
            let algorithms = self.algorithms.all;
            verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, intermediates, now, algorithms)
        });
        match verified {
            Err(_) if self.trusts_directly(leaf, now) => Ok(()),
            other => other,
        }
    }

    /// Whether `leaf` is a trusted certificate itself, or of version 1 and signed by one.
    fn trusts_directly(&self, leaf: &[u8], now: UnixTime) -> bool {
        is_current(leaf, now)
            && self.trusted.iter().any(|trusted| {
                trusted.as_ref() == leaf || (is_current(trusted, now) && self.signed(leaf, trusted))
            })
    }

    /// Whether the version 1 certificate `leaf` was signed by the authority `issuer`. Only version 1: it
    /// has no extensions, so none can be overlooked here.
    fn signed(&self, leaf: &[u8], issuer: &[u8]) -> bool {
        let (Some(leaf), Some(authority)) = (View::new(leaf), View::new(issuer)) else { return false };
        leaf.v1
            && leaf.issuer == authority.subject
            && may_sign(issuer)
            && public_key_parts(authority.public_key).is_some_and(|(kind, key)| {
                self.algorithms.all.iter().any(|algorithm| {
                    algorithm.signature_alg_id().as_ref() == leaf.algorithm
                        && algorithm.public_key_alg_id().as_ref() == kind
                        && algorithm.verify_signature(key, leaf.signed, leaf.signature).is_ok()
                })
            })
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.check != Check::Nothing {
            self.chain(end_entity, intermediates, now)?;
        }
        if self.check == Check::ChainAndName {
            verify_name(end_entity, server_name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let view = View::new(cert).ok_or(CertificateError::BadEncoding)?;
        let (kind, key) = public_key_parts(view.public_key).ok_or(CertificateError::BadEncoding)?;
        let (_, candidates) = self
            .algorithms
            .mapping
            .iter()
            .find(|(scheme, _)| *scheme == dss.scheme)
            .ok_or(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme)?;
        let valid = candidates.iter().any(|algorithm| {
            algorithm.public_key_alg_id().as_ref() == kind
                && algorithm.verify_signature(key, message, dss.signature()).is_ok()
        });
        if valid {
            Ok(HandshakeSignatureValid::assertion())
        } else {
            Err(CertificateError::BadSignature.into())
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        // By the bare key, because webpki reads no certificate of version 1.
        let view = View::new(cert).ok_or(CertificateError::BadEncoding)?;
        let key = SubjectPublicKeyInfoDer::from(view.public_key);
        verify_tls13_signature_with_raw_key(message, &key, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Whether `now` lies in the certificate's period of validity.
fn is_current(certificate: &[u8], now: UnixTime) -> bool {
    let Ok(certificate) = Certificate::from_der(certificate) else { return false };
    let validity = certificate.tbs_certificate().validity();
    let now = now.as_secs();
    (validity.not_before.to_unix_duration().as_secs()..=validity.not_after.to_unix_duration().as_secs())
        .contains(&now)
}

/// Whether a certificate may sign others: it says so, or it is too old to say (version 1, self-issued).
/// One that limits the names it may sign for is left to webpki.
fn may_sign(authority: &[u8]) -> bool {
    let (Some(view), Ok(parsed)) = (View::new(authority), Certificate::from_der(authority)) else {
        return false;
    };
    if view.v1 {
        return view.issuer == view.subject;
    }
    let fields = parsed.tbs_certificate();
    let limited = !matches!(fields.get_extension::<NameConstraints>(), Ok(None));
    let authority = matches!(fields.get_extension::<BasicConstraints>(), Ok(Some((_, basic))) if basic.ca);
    authority && !limited
}

/// libpq's rule (verify-full): the alternative names decide; without any that names a host, the common name.
fn verify_name(leaf: &CertificateDer<'_>, name: &ServerName<'_>) -> Result<(), Error> {
    let verified = ParsedCertificate::try_from(leaf).and_then(|parsed| verify_server_name(&parsed, name));
    match verified {
        Err(_) if common_name_matches(leaf, name) => Ok(()),
        // Version 1 certificates cannot be read by webpki; the truth about them is that the name differs.
        Err(Error::InvalidCertificate(CertificateError::Other(_))) => {
            Err(CertificateError::NotValidForName.into())
        }
        other => other,
    }
}

fn common_name_matches(leaf: &[u8], host: &ServerName<'_>) -> bool {
    let Ok(leaf) = Certificate::from_der(leaf) else { return false };
    let fields = leaf.tbs_certificate();
    let alternatives = match fields.get_extension::<SubjectAltName>() {
        Ok(found) => found.map(|(_, SubjectAltName(names))| names).unwrap_or_default(),
        Err(_) => return false,
    };
    let names_host = |name: &GeneralName| matches!(name, GeneralName::DnsName(_) | GeneralName::IpAddress(_));
    if alternatives.iter().any(names_host) {
        return false;
    }
    let Ok(Some(common_name)) = fields.subject().common_name() else { return false };
    match host {
        ServerName::DnsName(host) => host_matches(&common_name.value(), host.as_ref()),
        ServerName::IpAddress(address) => common_name.value() == std::net::IpAddr::from(*address).to_string(),
        _ => false,
    }
}

/// Case-insensitive; a leading `*.` stands for exactly one label, as in libpq.
fn host_matches(pattern: &str, host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.eq_ignore_ascii_case(pattern) {
        return true;
    }
    let Some(suffix) = pattern.strip_prefix("*.") else { return false };
    // A wildcard over a whole top-level domain matches nothing.
    suffix.contains('.')
        && host
            .split_once('.')
            .is_some_and(|(label, rest)| !label.is_empty() && rest.eq_ignore_ascii_case(suffix))
}
