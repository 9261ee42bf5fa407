//! Whose certificate it is.

use rustls::pki_types::CertificateDer;
use x509_cert::{
    Certificate,
    der::{Decode as _, asn1::ObjectIdentifier},
    ext::pkix::{SubjectAltName, name::GeneralName},
};

/// id-at-commonName.
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");

/// The names that it gives its owner: the common name, and subject alternative names of DNS, as PgBouncer takes them; but no
/// patterns (`*.example.net`): each stands for a user.
pub fn names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let mut names: Vec<String> = common_name(certificate).into_iter().collect();
    let parsed = Certificate::from_der(certificate).ok();
    let alternative = parsed.as_ref().and_then(|certificate| {
        certificate.tbs_certificate().get_extension::<SubjectAltName>().ok().flatten()
    });
    if let Some((_, SubjectAltName(alternative))) = alternative {
        names.extend(alternative.into_iter().filter_map(|name| match name {
            GeneralName::DnsName(name) => Some(name.as_str().to_owned()),
            _ => None,
        }));
    }
    names.retain(|name| !name.is_empty() && !name.contains(['\0', '*']));
    names
}

/// The common name of the subject; `None` if there is none, or more than one, or it is no clean text: it stands for a user.
fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let certificate = Certificate::from_der(certificate).ok()?;
    let subject = certificate.tbs_certificate().subject();
    let mut names = subject.iter().filter(|attribute| attribute.oid == COMMON_NAME);
    let (name, None) = (names.next()?, names.next()) else { return None };
    let text = std::str::from_utf8(name.value.value()).ok()?;
    (!text.contains('\0')).then(|| text.to_owned())
}
