//! The few fields of an X.509 certificate (RFC 5280) that are needed as they are on the wire: the signed
//! part, the public key, the signature and its algorithm.
//!
//! A walk over DER that knows nothing of extensions, so that it reads every certificate that OpenSSL
//! accepts, version 1 included.

use ring::digest::{self, digest};

/// Constructed SEQUENCE.
const SEQUENCE: u8 = 0x30;
/// `[0]` EXPLICIT: the version of a certificate, the hash of RSASSA-PSS parameters.
const EXPLICIT_0: u8 = 0xa0;
const OID: u8 = 0x06;
const BIT_STRING: u8 = 0x03;

/// Slices of one certificate, each a whole DER value with its header unless said.
pub(super) struct View<'a> {
    /// TBSCertificate: what the signature covers.
    pub(super) signed: &'a [u8],
    /// No version field: version 1, which has no extensions.
    pub(super) v1: bool,
    pub(super) issuer: &'a [u8],
    pub(super) subject: &'a [u8],
    /// SubjectPublicKeyInfo.
    pub(super) public_key: &'a [u8],
    /// AlgorithmIdentifier, contents only.
    pub(super) algorithm: &'a [u8],
    /// The signature's bits.
    pub(super) signature: &'a [u8],
}

impl<'a> View<'a> {
    /// Reads `der`; `None` if it is not a certificate.
    pub(super) fn new(der: &'a [u8]) -> Option<Self> {
        let certificate = Value::read(der)?.of(SEQUENCE)?.content;
        let signed = Value::read(certificate)?.of(SEQUENCE)?;
        let algorithm = Value::read(signed.rest)?.of(SEQUENCE)?;
        let signature = bits(Value::read(algorithm.rest)?)?;

        let first = Value::read(signed.content)?;
        let v1 = first.tag != EXPLICIT_0;
        let serial = if v1 { first } else { Value::read(first.rest)? };
        let inner_algorithm = Value::read(serial.rest)?;
        let issuer = Value::read(inner_algorithm.rest)?.of(SEQUENCE)?;
        let validity = Value::read(issuer.rest)?;
        let subject = Value::read(validity.rest)?.of(SEQUENCE)?;
        let public_key = Value::read(subject.rest)?.of(SEQUENCE)?;
        Some(Self {
            signed: signed.whole,
            v1,
            issuer: issuer.whole,
            subject: subject.whole,
            public_key: public_key.whole,
            algorithm: algorithm.content,
            signature,
        })
    }
}

/// A SubjectPublicKeyInfo taken apart: the algorithm (contents only) and the key's bits.
pub(super) fn public_key_parts(info: &[u8]) -> Option<(&[u8], &[u8])> {
    let algorithm = Value::read(Value::read(info)?.of(SEQUENCE)?.content)?.of(SEQUENCE)?;
    Some((algorithm.content, bits(Value::read(algorithm.rest)?)?))
}

/// The `tls-server-end-point` channel binding of a certificate (RFC 5929 §4.1): its hash by the hash of its
/// signature, SHA-256 in place of MD5 and SHA-1. `None` where the binding is undefined, as for Ed25519.
pub fn server_end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    let hash = signature_hash(View::new(certificate)?.algorithm)?;
    Some(digest(hash, certificate).as_ref().to_vec())
}

/// 1.2.840.113549.1.1: PKCS #1; one more byte tells the algorithm.
const PKCS1: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01];
/// 1.2.840.10045.4: ECDSA signatures.
const ECDSA: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04];
/// 2.16.840.1.101.3.4.2: SHA-2 hashes.
const SHA2: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02];
/// 1.3.14.3.2.26: SHA-1.
const SHA1: &[u8] = &[0x2b, 0x0e, 0x03, 0x02, 0x1a];

fn signature_hash(algorithm: &[u8]) -> Option<&'static digest::Algorithm> {
    let oid = Value::read(algorithm)?.of(OID)?;
    if let Some(kind) = oid.content.strip_prefix(PKCS1) {
        return match kind {
            // MD5 and SHA-1 are too weak to bind: RFC 5929 takes SHA-256.
            [4 | 5] => Some(&digest::SHA256),
            [10] => pss_hash(oid.rest),
            [11] => Some(&digest::SHA256),
            [12] => Some(&digest::SHA384),
            [13] => Some(&digest::SHA512),
            _ => None,
        };
    }
    match oid.content.strip_prefix(ECDSA)? {
        [1] | [3, 2] => Some(&digest::SHA256),
        [3, 3] => Some(&digest::SHA384),
        [3, 4] => Some(&digest::SHA512),
        _ => None,
    }
}

/// The hash of RSASSA-PSS-params (RFC 4055 §3.1); SHA-1 when it is left out.
fn pss_hash(parameters: &[u8]) -> Option<&'static digest::Algorithm> {
    let content = Value::read(parameters)?.of(SEQUENCE)?.content;
    let Some(first) = Value::read(content).filter(|v| v.tag == EXPLICIT_0) else {
        return Some(&digest::SHA256);
    };
    let hash = Value::read(Value::read(first.content)?.of(SEQUENCE)?.content)?.of(OID)?.content;
    if hash == SHA1 {
        return Some(&digest::SHA256);
    }
    match hash.strip_prefix(SHA2)? {
        [1] => Some(&digest::SHA256),
        [2] => Some(&digest::SHA384),
        [3] => Some(&digest::SHA512),
        _ => None,
    }
}

/// One DER value and what follows it.
#[derive(Clone, Copy)]
struct Value<'a> {
    tag: u8,
    /// With its header.
    whole: &'a [u8],
    content: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Value<'a> {
    fn read(input: &'a [u8]) -> Option<Self> {
        let &[tag, first, ..] = input else { return None };
        // Tags of more than one byte do not occur in certificates.
        if tag & 0x1f == 0x1f {
            return None;
        }
        let (length, header) = if first < 0x80 {
            (usize::from(first), 2)
        } else {
            let bytes = usize::from(first & 0x7f);
            if !(1..=4).contains(&bytes) {
                return None;
            }
            let digits = input.get(2..2 + bytes)?;
            (digits.iter().fold(0, |sum, &digit| sum << 8 | usize::from(digit)), 2 + bytes)
        };
        let (whole, rest) = input.split_at_checked(header.checked_add(length)?)?;
        Some(Self { tag, whole, content: whole.get(header..)?, rest })
    }

    fn of(self, tag: u8) -> Option<Self> {
        (self.tag == tag).then_some(self)
    }
}

/// The bytes of a BIT STRING without unused bits.
fn bits(value: Value<'_>) -> Option<&[u8]> {
    match value.of(BIT_STRING)?.content {
        [0, bytes @ ..] => Some(bytes),
        _ => None,
    }
}
