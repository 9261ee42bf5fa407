//! What every error that can end an exchange says of itself.

use crate::protocol::encode::{self, Severity};

/// An error as PostgreSQL would put it to a client.
pub trait Report: std::error::Error {
    /// SQLSTATE, five characters (PostgreSQL docs, appendix A).
    fn sqlstate(&self) -> &'static str;
    /// What went wrong, safe to show to a client that has not logged in.
    fn message(&self) -> String {
        self.to_string()
    }
    /// More about it, where it helps.
    fn detail(&self) -> Option<String> {
        None
    }
    /// What to do, naming the setting where one decides.
    fn hint(&self) -> Option<String> {
        None
    }

    /// Appends the ErrorResponse.
    fn write(&self, out: &mut Vec<u8>, severity: Severity) {
        let (message, detail, hint) = (self.message(), self.detail(), self.hint());
        encode::error(out, severity, self.sqlstate(), &message, detail.as_deref(), hint.as_deref());
    }
}

/// A value that never prints.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret<T>(pub T);

impl<T> std::fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Text of a stranger, fit for one line of a log.
pub struct Printable<'a>(pub &'a str);

impl std::fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for c in self.0.chars() {
            if c.is_control() { write!(f, "{}", c.escape_default())? } else { write!(f, "{c}")? }
        }
        Ok(())
    }
}
