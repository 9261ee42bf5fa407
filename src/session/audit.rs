//! Now and then a server is asked although no text told that something may have been left: is it as it is believed to be?
//! What the client sent meanwhile is remembered, without values, for the log.

use super::state::ServerSession;
use crate::sql;

/// Most texts that are remembered.
const MOST: usize = 8;
/// Most bytes of each.
const LONGEST: usize = 200;

/// The texts of one client on one server.
#[derive(Debug, Default)]
pub struct Audit(Vec<Box<str>>);

impl Audit {
    fn note(&mut self, text: &[u8]) {
        let mut shape = Vec::new();
        // Values may be secrets: of a text whose literals cannot be told for certain only the first word is kept.
        if !sql::shape(text, &mut shape) {
            let word = text.trim_ascii_start().split(|byte| !byte.is_ascii_alphabetic()).next();
            shape = [word.unwrap_or_default(), b" ..."].concat();
        }
        shape.truncate(LONGEST);
        if self.0.len() == MOST {
            self.0.remove(0);
        }
        self.0.push(String::from_utf8_lossy(&shape).into());
    }

    /// All of them, the last one at the end.
    pub fn texts(&self) -> String {
        self.0.join("; ")
    }
}

impl ServerSession {
    /// A text is sent.
    pub(super) fn note_text(&mut self, text: &[u8]) {
        if let Some(audit) = &mut self.audit {
            audit.note(text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_not_remembered() {
        let mut audit = Audit::default();
        for n in 0..10 {
            audit.note(format!("SELECT f({n}, 'secret {n}')").as_bytes());
        }
        audit.note(b"ALTER ROLE app PASSWORD 'secret'");
        audit.note(b"SELECT $$secret$$");
        let texts = audit.texts();
        assert!(!texts.contains("secret"), "{texts}");
        assert!(texts.ends_with("SELECT f(0, ''); ALTER ...; SELECT ..."), "{texts}");
        assert_eq!(audit.0.len(), MOST);
    }
}
