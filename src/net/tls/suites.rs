//! Which protocols and cipher suites are offered, of those that there are: TLS 1.2 and 1.3, and suites with ECDHE and AEAD.
//!
//! Written as PgBouncer takes them: protocols as lists of `tlsv1.2`, `tlsv1.3`, `secure`, `all`; suites of TLS 1.2 as OpenSSL's
//! cipher lists (ciphers(1)): names, classes joined by `+`, `!` and `-` to take away, in the order of preference. What names
//! no suite that there is adds and takes away nothing, as in OpenSSL; it is an error if none remains.

use std::sync::Arc;

use rustls::{
    CipherSuite, SupportedCipherSuite, SupportedProtocolVersion,
    crypto::CryptoProvider,
    version::{TLS12, TLS13},
};

use super::{TlsError, provider};

/// OpenSSL's names of the suites of TLS 1.2.
const NAMES: &[(CipherSuite, &str)] = &[
    (CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, "ECDHE-ECDSA-AES256-GCM-SHA384"),
    (CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, "ECDHE-ECDSA-AES128-GCM-SHA256"),
    (CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, "ECDHE-ECDSA-CHACHA20-POLY1305"),
    (CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, "ECDHE-RSA-AES256-GCM-SHA384"),
    (CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, "ECDHE-RSA-AES128-GCM-SHA256"),
    (CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256, "ECDHE-RSA-CHACHA20-POLY1305"),
];
/// Classes that all of them belong to.
const EVERY: &[&str] =
    &["ALL", "COMPLEMENTOFDEFAULT", "HIGH", "ECDHE", "kECDHE", "EECDH", "kEECDH", "ECDH", "TLSv1.2", "FIPS"];
/// PgBouncer's words for what the library offers.
const DEFAULTS: &[&str] = &["default", "secure", "fast", "normal", "all", ""];

/// What the settings of one side say, with their names.
pub(super) struct Choice<'a> {
    pub(super) protocols: (&'static str, &'a str),
    /// Of TLS 1.2.
    pub(super) ciphers: (&'static str, &'a str),
    /// Of TLS 1.3.
    pub(super) ciphers13: (&'static str, &'a str),
}

impl Choice<'_> {
    /// The provider with the suites that were chosen, in their order.
    pub(super) fn provider(&self) -> Result<Arc<CryptoProvider>, TlsError> {
        let known = provider();
        let is_13 = |suite: &SupportedCipherSuite| suite.tls13().is_some();
        let all13: Vec<_> = known.cipher_suites.iter().copied().filter(is_13).collect();
        let all12: Vec<_> = known.cipher_suites.iter().copied().filter(|suite| !is_13(suite)).collect();
        let refused =
            |(setting, text): (&'static str, &str)| TlsError::Choice { setting, text: text.to_owned() };
        let mut suites = chosen13(all13, self.ciphers13.1).ok_or_else(|| refused(self.ciphers13))?;
        suites.extend(chosen12(&all12, self.ciphers.1).ok_or_else(|| refused(self.ciphers))?);
        Ok(Arc::new(CryptoProvider { cipher_suites: suites, ..(*known).clone() }))
    }

    /// The versions that were chosen.
    pub(super) fn versions(&self) -> Result<Vec<&'static SupportedProtocolVersion>, TlsError> {
        let (setting, text) = self.protocols;
        versions(text).ok_or_else(|| TlsError::Choice { setting, text: text.to_owned() })
    }
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split([':', ',', ' ', ';']).filter(|word| !word.is_empty())
}

fn versions(text: &str) -> Option<Vec<&'static SupportedProtocolVersion>> {
    let (mut v12, mut v13) = (false, false);
    for word in words(text) {
        let (sign, name) = match word.strip_prefix('!') {
            Some(name) => (false, name),
            None => (true, word),
        };
        match name.to_ascii_lowercase().as_str() {
            "secure" | "default" | "all" | "legacy" => (v12, v13) = (sign, sign),
            "tlsv1.2" => v12 = sign,
            "tlsv1.3" => v13 = sign,
            // They are never spoken.
            "tlsv1" | "tlsv1.0" | "tlsv1.1" => {}
            _ => return None,
        }
    }
    let chosen: Vec<_> =
        [(v13, &TLS13), (v12, &TLS12)].into_iter().filter(|(on, _)| *on).map(|(_, v)| v).collect();
    (!chosen.is_empty()).then_some(chosen)
}

fn chosen13(all: Vec<SupportedCipherSuite>, text: &str) -> Option<Vec<SupportedCipherSuite>> {
    if text.is_empty() {
        return Some(all);
    }
    let named = |name: &str| {
        let is_it = |suite: &&SupportedCipherSuite| {
            suite.suite().as_str().is_some_and(|known| known.replacen("TLS13_", "TLS_", 1) == name)
        };
        all.iter().find(is_it).copied()
    };
    let chosen: Vec<_> = words(text).filter_map(named).collect();
    (!chosen.is_empty()).then_some(chosen)
}

fn chosen12(all: &[SupportedCipherSuite], text: &str) -> Option<Vec<SupportedCipherSuite>> {
    if DEFAULTS.iter().any(|word| word.eq_ignore_ascii_case(text)) {
        return Some(all.to_vec());
    }
    let (mut chosen, mut banned): (Vec<SupportedCipherSuite>, Vec<CipherSuite>) = (Vec::new(), Vec::new());
    for word in words(text) {
        if word.starts_with('@') {
            // Order and strength: all of them are strong.
            continue;
        }
        let (sign, class) = match word.split_at_checked(1) {
            Some((sign @ ("!" | "-" | "+"), class)) => (sign, class),
            _ => ("", word),
        };
        let meant: Vec<_> = all.iter().copied().filter(|suite| belongs(suite.suite(), class)).collect();
        let is_meant = |suite: &SupportedCipherSuite| meant.contains(suite);
        match sign {
            "!" | "-" => {
                chosen.retain(|suite| !is_meant(suite));
                if sign == "!" {
                    banned.extend(meant.iter().map(SupportedCipherSuite::suite));
                }
            }
            "+" => chosen.sort_by_key(is_meant),
            _ => {
                let new = meant.into_iter().filter(|suite| !banned.contains(&suite.suite()));
                for suite in new {
                    if !chosen.contains(&suite) {
                        chosen.push(suite);
                    }
                }
            }
        }
    }
    (!chosen.is_empty()).then_some(chosen)
}

/// Whether a suite is of a class, or of several that are joined.
fn belongs(suite: CipherSuite, class: &str) -> bool {
    let Some((_, name)) = NAMES.iter().find(|(known, _)| *known == suite) else { return false };
    class.split('+').all(|class| {
        let has = |part: &str| name.contains(part);
        *name == class
            || EVERY.contains(&class)
            || match class {
                "DEFAULT" => true,
                "ECDSA" | "aECDSA" => has("-ECDSA-"),
                "RSA" | "aRSA" => has("-RSA-"),
                "AES" => has("-AES"),
                "AES128" => has("-AES128-"),
                "AES256" => has("-AES256-"),
                "AESGCM" => has("-GCM-"),
                "CHACHA20" => has("-CHACHA20-"),
                "SHA256" => has("SHA256"),
                "SHA384" => has("SHA384"),
                _ => false,
            }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice<'a>(protocols: &'a str, ciphers: &'a str, ciphers13: &'a str) -> Choice<'a> {
        Choice { protocols: ("p", protocols), ciphers: ("c", ciphers), ciphers13: ("c13", ciphers13) }
    }

    /// The suites of TLS 1.2 that a list leaves, by their names without ECDHE.
    fn left(ciphers: &str) -> String {
        let suites = choice("secure", ciphers, "").provider().map(|provider| provider.cipher_suites.clone());
        let name = |suite: &SupportedCipherSuite| {
            let found = NAMES.iter().find(|(known, _)| *known == suite.suite());
            found.map(|(_, name)| name.replace("ECDHE-", ""))
        };
        match suites {
            Ok(suites) => suites.iter().filter_map(name).collect::<Vec<_>>().join(" "),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn cipher_lists_choose_as_in_openssl() {
        let all = left("default");
        assert_eq!(all.split(' ').count(), NAMES.len(), "each has a name: {all}");
        for (list, expected) in [
            ("HIGH:!aNULL:!MD5:!3DES", all.as_str()),
            ("fast", &all),
            ("", &all),
            ("DEFAULT:@SECLEVEL=2", &all),
            ("EECDH+AESGCM+aECDSA:EDH+AESGCM", "ECDSA-AES256-GCM-SHA384 ECDSA-AES128-GCM-SHA256"),
            (
                "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-AES256-GCM-SHA384",
                "RSA-AES256-GCM-SHA384 ECDSA-AES256-GCM-SHA384",
            ),
            ("HIGH:!AES128:!CHACHA20:!aRSA", "ECDSA-AES256-GCM-SHA384"),
            ("!AES256:ECDHE+AESGCM+ECDSA", "ECDSA-AES128-GCM-SHA256"),
            ("AES256+ECDSA:-AES256:AES128+ECDSA", "ECDSA-AES128-GCM-SHA256"),
            (
                "CHACHA20:AES256:+ECDSA:!AES128",
                "RSA-CHACHA20-POLY1305 RSA-AES256-GCM-SHA384 ECDSA-CHACHA20-POLY1305 ECDSA-AES256-GCM-SHA384",
            ),
            ("AES256-SHA:RC4", "c: \"AES256-SHA:RC4\" leaves nothing to offer"),
        ] {
            assert_eq!(left(list), expected, "{list}");
        }
    }

    #[test]
    fn suites_of_tls_13_are_chosen_by_name() {
        let suites = |list: &str| {
            let provider = choice("secure", "default", list).provider().ok()?;
            Some(provider.cipher_suites.iter().filter(|suite| suite.tls13().is_some()).count())
        };
        assert_eq!(suites(""), Some(3));
        assert_eq!(
            suites("TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_CCM_SHA256"),
            Some(2)
        );
        assert_eq!(suites("TLS_AES_256_GCM_SHA384 TLS_AES_128_GCM_SHA256"), Some(2));
        assert_eq!(suites("TLS_AES_128_CCM_SHA256"), None);
    }

    #[test]
    fn protocols_are_chosen_by_lists() {
        for (list, expected) in [
            ("secure", Some("13 12")),
            ("ALL", Some("13 12")),
            ("tlsv1.3", Some("13")),
            ("tlsv1.2", Some("12")),
            ("tlsv1.1, tlsv1.2 : TLSv1.3", Some("13 12")),
            ("all:!tlsv1.2", Some("13")),
            ("tlsv1.1", None),
            ("", None),
            ("sslv3", None),
        ] {
            let found = choice(list, "", "").versions().ok().map(|versions| {
                let name =
                    |v: &&SupportedProtocolVersion| if v.version == TLS13.version { "13" } else { "12" };
                versions.iter().map(name).collect::<Vec<_>>().join(" ")
            });
            assert_eq!(found.as_deref(), expected, "{list}");
        }
    }
}
