//! What statements of one kind have in common: a text without its literals and comments, to be shown to operators.
//!
//! What may be a literal is never shown: where a text cannot be read for certain, what follows is left out.

use super::{
    Dialect,
    lexer::{Lexer, TokenKind},
};

/// So much of a text is looked at.
const READ_AT_MOST: usize = 4096;
/// So much is shown.
const SHOWN_AT_MOST: usize = 1024;
/// Stands for a literal.
const LITERAL: &[u8] = b"?";
/// Stands for the rest of a list, or of the text.
const MORE: &[u8] = b"...";

/// Puts what is to be shown of a text into `out`.
///
/// `SELECT a FROM t -- x\nWHERE b IN (1, 2, 3)` becomes `SELECT a FROM t WHERE b IN (?, ...)`.
pub fn fingerprint(text: &[u8], dialect: Dialect, out: &mut Vec<u8>) {
    out.clear();
    let text = text.get(..READ_AT_MOST).unwrap_or(text);
    // Bytes of other characters may look like quotes.
    let certain = dialect.ascii_safe || text.is_ascii();
    let mut lists = Lists::default();
    // The second word and so on of SET, whose value need not be quoted.
    let (mut words, mut sets) = (0, false);
    let mut end = 0;
    for token in Lexer::new(text, dialect.standard_strings) {
        let Ok(token) = token else { return leave_out(out) };
        if out.len() > SHOWN_AT_MOST || (!certain && words > 0) {
            return leave_out(out);
        }
        let range = token.range();
        if range.start > end && !out.is_empty() {
            out.push(b' ');
        }
        end = range.end;
        let bytes = text.get(range).unwrap_or_default();
        match token.kind {
            TokenKind::Number | TokenKind::Bits => lists.item(LITERAL, out),
            TokenKind::Text | TokenKind::Escaped => {
                lists.item(LITERAL, out);
                // It ends elsewhere if the server takes it for one of the other kind by now.
                if bytes.first() == Some(&b'\'') && bytes.contains(&b'\\') {
                    return leave_out(out);
                }
            }
            TokenKind::Param => lists.item(bytes, out),
            TokenKind::Punctuation(b'(') => lists.open(out),
            TokenKind::Punctuation(b')') => lists.close(out),
            TokenKind::Punctuation(b',') => out.push(b','),
            _ => {
                lists.other();
                out.extend_from_slice(bytes);
            }
        }
        if token.kind == TokenKind::Word {
            words += 1;
            sets |= words == 1 && bytes.eq_ignore_ascii_case(b"set");
        }
        let assigns = bytes == b"=" || bytes.eq_ignore_ascii_case(b"to");
        if sets && assigns {
            out.extend_from_slice(b" ?");
            return;
        }
    }
    while out.last().is_some_and(|last| matches!(last, b';' | b' ')) {
        out.pop();
    }
}

fn leave_out(out: &mut Vec<u8>) {
    if !out.is_empty() && out.last() != Some(&b' ') {
        out.push(b' ');
    }
    out.extend_from_slice(MORE);
}

/// Lists of literals and parameters, of which the first one is shown: there are as many texts as lengths otherwise.
#[derive(Debug, Default)]
struct Lists {
    /// Where the parenthesis is behind which there are only literals and parameters so far.
    opened: Option<usize>,
    /// It is not that of a function.
    row: bool,
    /// Where the last one of a list of rows of those has ended.
    closed: Option<usize>,
    /// Where the last literal or parameter has ended.
    ended: Option<usize>,
}

impl Lists {
    fn item(&mut self, item: &[u8], out: &mut Vec<u8>) {
        if let Some(ended) = self.ended.filter(|ended| is_comma(out.get(*ended..))) {
            out.truncate(ended);
            if !out.ends_with(MORE) {
                out.extend_from_slice(b", ");
                out.extend_from_slice(MORE);
            }
        } else {
            out.extend_from_slice(item);
        }
        self.ended = Some(out.len());
    }

    fn open(&mut self, out: &mut Vec<u8>) {
        (self.opened, self.ended) = (Some(out.len()), None);
        self.row = out.last().is_some_and(|before| matches!(before, b' ' | b','));
        out.push(b'(');
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        out.push(b')');
        let Some(opened) = self.opened.take().filter(|_| self.ended.take().is_some()) else {
            self.other();
            return;
        };
        if let Some(closed) = self.closed.filter(|closed| is_comma(out.get(*closed..opened))) {
            out.truncate(closed);
        }
        self.closed = self.row.then_some(out.len());
    }

    /// Anything else, of which no list may consist.
    fn other(&mut self) {
        *self = Self::default();
    }
}

/// Between two of a list.
fn is_comma(between: Option<&[u8]>) -> bool {
    between.is_some_and(|between| between.trim_ascii() == b",")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const UTF8: Dialect = Dialect { standard_strings: true, ascii_safe: true };

    fn shown_by(text: &str, dialect: Dialect) -> String {
        let mut out = b"of another".to_vec();
        fingerprint(text.as_bytes(), dialect, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn shown(text: &str) -> String {
        shown_by(text, UTF8)
    }

    #[test]
    fn literals_and_comments_are_left_out() {
        for (text, expected) in [
            ("SELECT a FROM t WHERE b = 'secret' AND c > 12.5e3;", "SELECT a FROM t WHERE b = ? AND c > ?"),
            ("select  1\n ; ", "select ?"),
            ("SELECT /* traceparent='00-1' */ 1 -- 2\n + 3", "SELECT ? + ?"),
            ("INSERT INTO \"t 1\" VALUES ($1, $2)", "INSERT INTO \"t 1\" VALUES ($1, ...)"),
            ("INSERT INTO t VALUES (1,'a'),(2,'b'), (3,'c')", "INSERT INTO t VALUES (?, ...)"),
            (
                "SELECT * FROM t WHERE a IN (1, 2, 3) AND b = 4",
                "SELECT * FROM t WHERE a IN (?, ...) AND b = ?",
            ),
            ("SELECT * FROM t WHERE a IN (1)", "SELECT * FROM t WHERE a IN (?)"),
            ("SELECT f(1), g(2), (3)", "SELECT f(?), g(?), (?)"),
            ("SELECT f(a, 1), (2, b)", "SELECT f(a, ?), (?, b)"),
            ("UPDATE t SET a = 1, b = 2", "UPDATE t SET a = ?, b = ?"),
            ("SELECT E'a\\'b', X'1F', U&'d', 'it''s'", "SELECT ?, ..."),
            ("DO $$ secret $$", "DO ?"),
            ("ALTER ROLE a PASSWORD 'secret'", "ALTER ROLE a PASSWORD ?"),
            ("SET app.token = secret", "SET app.token = ?"),
            ("set local app.token to secret, more", "set local app.token to ?"),
            ("SET TRANSACTION READ ONLY", "SET TRANSACTION READ ONLY"),
            ("BEGIN", "BEGIN"),
            ("", ""),
            ("-- nothing", ""),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    #[test]
    fn lists_of_any_length_are_one_text() {
        let list = |n: usize| vec!["7"; n].join(", ");
        let texts: std::collections::BTreeSet<String> =
            (2..500).map(|n| shown(&format!("SELECT 1 FROM t WHERE a IN ({})", list(n)))).collect();
        assert_eq!(texts.len(), 1, "{texts:?}");
    }

    #[test]
    fn what_cannot_be_read_for_certain_is_left_out() {
        let odd = Dialect { standard_strings: false, ascii_safe: true };
        let other = Dialect { standard_strings: true, ascii_safe: false };
        for (text, dialect, expected) in [
            ("SELECT 'not ended secret", UTF8, "SELECT ..."),
            ("SELECT $a$ secret", UTF8, "SELECT ..."),
            ("SELECT 'a\\' secret'", UTF8, "SELECT ? ..."),
            ("SELECT 'a\\'' secret'", odd, "SELECT ? ..."),
            ("SELECT 'é' secret", other, "SELECT ..."),
            ("SELECT a", other, "SELECT a"),
        ] {
            assert_eq!(shown_by(text, dialect), expected, "{text}");
        }
        let cut = format!("SELECT {} 'secret' FROM t", " ".repeat(READ_AT_MOST - 10));
        assert_eq!(shown(&cut), "SELECT ...");
        let long = shown(&format!("SELECT {} 'secret'", "abc, ".repeat(700)));
        assert!(long.len() < SHOWN_AT_MOST + 20 && long.ends_with("..."), "{long}");
    }

    proptest! {
        /// S: what stands in strings and numbers is never shown, wherever they are.
        #[test]
        fn secrets_are_never_shown(
            parts in prop::collection::vec(("[a-z,()=;+ ]{0,12}", 0..6_usize), 0..8),
            cut in 0..200_usize,
        ) {
            let secret = "QZX";
            let text: String = parts.iter().map(|(plain, quote)| match quote {
                0 => format!("{plain}'{secret}'"),
                1 => format!("{plain} E'a\\'{secret}'"),
                2 => format!("{plain} $t${secret}'$t$"),
                3 => format!("{plain}'a''{secret}'"),
                4 => format!("{plain}/* {secret} '*/"),
                _ => format!("{plain}-- {secret} \n"),
            }).collect();
            let cut = text.get(..cut).unwrap_or(&text);
            prop_assert!(!shown(cut).contains("QZ"), "{} of {}", shown(cut), cut);
        }
    }
}
