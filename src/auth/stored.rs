//! The kinds of password that a user list may hold, told apart by shape as PostgreSQL does.

use super::{ScramSecret, md5, scram};

/// A stored password.
#[derive(Debug)]
pub enum Stored<'a> {
    Plain(Plain<'a>),
    /// `md5` + 32 hex digits.
    Md5(Plain<'a>),
    Scram(ScramSecret),
}

/// Text that does not print.
#[derive(Clone, Copy)]
pub struct Plain<'a>(pub &'a str);

impl std::fmt::Debug for Plain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

impl<'a> Stored<'a> {
    /// `None`: nobody can log in with it (empty, or a damaged SCRAM secret: as a plain password it would let
    /// in whoever has read the file).
    pub fn parse(text: &'a str) -> Option<Self> {
        if text.starts_with("SCRAM-SHA-256$") {
            ScramSecret::parse(text).map(Self::Scram)
        } else if text.is_empty() {
            None
        } else if md5::is_stored(text) {
            Some(Self::Md5(Plain(text)))
        } else {
            Some(Self::Plain(Plain(text)))
        }
    }

    /// Compares a password that came in clear text. Takes milliseconds for SCRAM secrets (PBKDF2).
    pub fn verify(&self, user: &str, password: &str) -> bool {
        match self {
            Self::Plain(stored) => scram::same(stored.0.as_bytes(), password.as_bytes()),
            Self::Md5(stored) => {
                let stored = stored.0.to_ascii_lowercase();
                scram::same(stored.as_bytes(), md5::stored(user, password).as_bytes())
            }
            Self::Scram(secret) => secret.verify(password),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    #[test]
    fn shape_decides_and_each_shape_verifies_the_clear_text() {
        let one = NonZeroU32::MIN;
        let secret = Stored::Scram(ScramSecret::derive("pw", b"salt", one));
        let md5 = md5::stored("bob", "pw");
        for stored in [Stored::parse("pw").unwrap(), Stored::parse(&md5).unwrap(), secret] {
            assert!(stored.verify("bob", "pw"), "{stored:?}");
            assert!(!stored.verify("bob", "pW"), "{stored:?}");
            assert!(!stored.verify("bob", ""), "{stored:?}");
        }
        assert!(matches!(Stored::parse(&md5), Some(Stored::Md5(_))));
        assert!(Stored::parse("").is_none());
    }

    #[test]
    fn damaged_scram_secret_is_no_plain_password() {
        assert!(Stored::parse("SCRAM-SHA-256$4096:damaged").is_none());
    }

    #[test]
    fn stored_passwords_do_not_print() {
        assert!(!format!("{:?}", Stored::parse("hunter2")).contains("hunter2"));
    }
}
