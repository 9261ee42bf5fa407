//! PostgreSQL's md5 authentication: `md5` + hex(md5(hex(md5(password + user)) + salt)).

use md5::{Digest, Md5};

/// Whether `text` has the shape of a stored md5 secret: `md5` and 32 hex digits.
pub fn is_stored(text: &str) -> bool {
    text.strip_prefix("md5").is_some_and(|hex| hex.len() == 32 && hex.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// The stored secret of a password: `md5` + hex(md5(password + user)).
pub fn stored(user: &str, password: &str) -> String {
    tagged_hex(&[password.as_bytes(), user.as_bytes()])
}

/// The answer to a salt from a plain password.
pub fn hash(user: &str, password: &str, salt: [u8; 4]) -> String {
    hash_stored(&stored(user, password), salt)
}

/// The answer to a salt from a stored secret (`md5…`, in lower case as PostgreSQL stores it).
pub fn hash_stored(stored: &str, salt: [u8; 4]) -> String {
    let hex = stored.strip_prefix("md5").unwrap_or(stored).to_ascii_lowercase();
    tagged_hex(&[hex.as_bytes(), &salt])
}

fn tagged_hex(parts: &[&[u8]]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut context = Md5::new();
    for part in parts {
        context.update(part);
    }
    let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).map_or('0', |&d| char::from(d));
    let mut out = String::with_capacity(35);
    out.push_str("md5");
    for byte in context.finalize() {
        out.push(digit(byte >> 4));
        out.push(digit(byte & 15));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_the_hash_of_postgres_protocol() {
        let salt = [0x2a, 0x3d, 0x8f, 0xe0];
        let theirs = postgres_protocol::authentication::md5_hash(b"md5_user", b"password", salt);
        assert_eq!(hash("md5_user", "password", salt), theirs);
        assert_eq!(hash_stored(&stored("md5_user", "password"), salt), theirs);
    }

    #[test]
    fn stored_secret_is_told_by_shape() {
        assert!(is_stored(&stored("u", "p")));
        assert!(is_stored("md5E8A48653851E28C69D0506508FB27FC5"));
        assert!(!is_stored("md5tooshort"));
        assert!(!is_stored("md5zz8a48653851e28c69d0506508fb27fc5"));
    }
}
