//! The shape of a text: what is left of it without the contents of its literals. Clients that put values into their texts
//! send ever new ones of few shapes, and what a text does hardly ever depends on a value.
//!
//! Texts of one shape are the same tokens, but for the contents of numbers and strings: where that is not plain to
//! see, a text has no shape.

use super::{begins_as, lexer};

/// Puts the shape of a text, for which strings conform to the standard and ASCII is safe, into `shape`. False: it has none.
pub fn shape(text: &[u8], shape: &mut Vec<u8>) -> bool {
    shape.clear();
    begins_as(text, &[b"select", b"insert", b"update", b"delete", b"with", b"values"])
        && shape_of(text, shape).is_some()
}

fn shape_of(text: &[u8], shape: &mut Vec<u8>) -> Option<()> {
    // All others are copied.
    let is_special =
        |byte: &u8| matches!(byte, b'0'..=b'9' | b'\'' | b'"' | b'\\' | b'$' | b'-' | b'/' | b';' | 0);
    let mut rest = text;
    loop {
        let at = rest.iter().position(is_special).unwrap_or(rest.len());
        let (plain, special) = rest.split_at_checked(at)?;
        shape.extend_from_slice(plain);
        let Some(&byte) = special.first() else { return Some(()) };
        let len = match byte {
            b'0'..=b'9' => {
                let len = digits(special);
                // Else digits of a name, a parameter, or behind a point.
                let number = !shape.last().is_some_and(|&before| lexer::goes_on(before) || before == b'.');
                if number {
                    // `1e5`, `0x1F`, `1_000`, or junk.
                    if special.get(len).is_some_and(|&behind| lexer::goes_on(behind)) {
                        return None;
                    }
                    shape.push(b'0');
                } else {
                    shape.extend_from_slice(special.get(..len)?);
                }
                len
            }
            b'\'' => {
                shape.extend_from_slice(b"''");
                1 + string(special.get(1..)?)?
            }
            b'"' => {
                let len = memchr::memchr(b'"', special.get(1..)?)? + 2;
                shape.extend_from_slice(special.get(..len)?);
                len
            }
            b'$' if special.get(1).is_some_and(u8::is_ascii_digit) => copy(shape, byte),
            b'-' | b'/' if !matches!(special.get(1), Some(b'-' | b'*')) => copy(shape, byte),
            // One statement.
            b';' if special.trim_ascii_end().len() == 1 => copy(shape, byte),
            _ => return None,
        };
        rest = special.get(len..)?;
    }
}

fn copy(shape: &mut Vec<u8>, byte: u8) -> usize {
    shape.push(byte);
    1
}

fn digits(text: &[u8]) -> usize {
    text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len())
}

/// Length of a string up to and with its quote. None with an escape in it, or with a name that may be one of a setting.
fn string(inside: &[u8]) -> Option<usize> {
    let end = memchr::memchr(b'\'', inside)?;
    let content = inside.get(..end)?;
    (!content.iter().any(|byte| matches!(byte, b'\\' | b'_' | 0))).then_some(end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shaped(text: &str) -> Option<String> {
        let mut found = b"of another text".to_vec();
        shape(text.as_bytes(), &mut found).then(|| String::from_utf8(found).unwrap())
    }

    #[test]
    fn contents_of_literals_are_left_out() {
        for (text, expected) in [
            ("SELECT * FROM t1 WHERE id = 123;", "SELECT * FROM t1 WHERE id = 0;"),
            ("select -17, 3.25, .5, a.b2 - 4/2", "select -0, 0.25, .5, a.b2 - 0/0"),
            (
                "INSERT INTO \"t 1\" VALUES ('x', 'it''s', E'2 -- /*')",
                "INSERT INTO \"t 1\" VALUES ('', '''', E'')",
            ),
            ("UPDATE t SET a = $1 WHERE é5 = '1; é $$' ; ", "UPDATE t SET a = $1 WHERE é5 = '' ; "),
            ("WITH x AS (VALUES (007)) SELECT \"a\"\"0\"", "WITH x AS (VALUES (0)) SELECT \"a\"\"0\""),
            ("VALUES (1)", "VALUES (0)"),
        ] {
            assert_eq!(shaped(text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_not_plain_has_no_shape() {
        for text in [
            "SELECT 1e5",
            "SELECT 0x1F",
            "SELECT 1_000",
            "SELECT 1a",
            "SELECT 1é",
            "SELECT 1$",
            "SELECT '\\'",
            "SELECT '",
            "SELECT \"",
            "SELECT $$a$$",
            "SELECT 1 -- 2",
            "SELECT /* pooler: primary */ 1",
            "SELECT 1; SELECT 2",
            "SELECT f('synchronous_commit')",
            "SELECT 1\0",
            "SELECT '\0'",
            "SET x = 1",
            "BEGIN",
            "",
        ] {
            assert_eq!(shaped(text), None, "{text}");
        }
    }
}
