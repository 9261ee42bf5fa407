//! Requests that pooler answers by itself, in the words of a server: to each message of the request its reply.

use crate::protocol::{
    backend as be,
    encode::{self, Severity},
    frame::{HEADER, Header},
    frontend as fe,
};

/// Type `text` (pg_type.dat).
const TEXT: u32 = 25;

/// How to say it.
const UNCLEAR: &str = "SET pooler.name = 'value', RESET pooler.name or SHOW pooler.name, alone, and behind Sync if others \
    were sent before it.";

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Done: the command's tag.
    Done(&'static str),
    /// The same, although it has had no effect: SQLSTATE and message of a warning.
    Warned { tag: &'static str, sqlstate: &'static str, message: &'static str },
    /// One row of one column, of a SHOW.
    Value { name: String, value: String },
    /// SQLSTATE, message, hint.
    Refused(&'static str, String, &'static str),
}

impl Answer {
    /// The replies to a whole request, and the status of the transaction behind it.
    pub(super) fn to(&self, request: &[u8], status: u8) -> Vec<u8> {
        let mut out = Vec::new();
        let mut rest = request;
        let mut failed = false;
        while let Some(header) = Header::peek(rest) {
            let body = rest.get(HEADER..header.total()).unwrap_or_default();
            match header.tag {
                fe::SYNC => encode::ready_for_query(&mut out, status),
                fe::QUERY => {
                    self.describe(&mut out);
                    self.execute(&mut out);
                    encode::ready_for_query(&mut out, status);
                }
                // As after every error: up to Sync nothing is done.
                _ if failed => {}
                fe::PARSE => encode::message(&mut out, be::PARSE_COMPLETE, |_| {}),
                fe::BIND => encode::message(&mut out, be::BIND_COMPLETE, |_| {}),
                fe::DESCRIBE => {
                    if body.first() == Some(&b'S') {
                        encode::message(&mut out, be::PARAMETER_DESCRIPTION, |b| {
                            b.extend_from_slice(&[0, 0])
                        });
                    }
                    if !self.describe(&mut out) {
                        encode::message(&mut out, be::NO_DATA, |_| {});
                    }
                }
                fe::EXECUTE => failed = !self.execute(&mut out),
                fe::CLOSE => encode::message(&mut out, be::CLOSE_COMPLETE, |_| {}),
                _ => {}
            }
            rest = rest.get(header.total()..).unwrap_or_default();
        }
        out
    }

    /// False if there are no rows.
    fn describe(&self, out: &mut Vec<u8>) -> bool {
        let Self::Value { name, .. } = self else { return false };
        describe_row(name, 0, out);
        true
    }

    /// The row, if there is one.
    pub(super) fn row(&self, out: &mut Vec<u8>) {
        let Self::Value { value, .. } = self else { return };
        encode::message(out, be::DATA_ROW, |b| {
            b.extend_from_slice(&[0, 1]);
            // Unlike that of a message, the length of a value does not count itself.
            b.extend_from_slice(&u32::try_from(value.len()).unwrap_or(0).to_be_bytes());
            b.extend_from_slice(value.as_bytes());
        });
    }

    /// False if it is refused.
    pub(super) fn execute(&self, out: &mut Vec<u8>) -> bool {
        self.row(out);
        let tag = match self {
            Self::Done(tag) => tag,
            Self::Warned { tag, sqlstate, message } => {
                encode::error(out, Severity::Warning, sqlstate, message, None, None);
                tag
            }
            Self::Value { .. } => "SHOW",
            Self::Refused(sqlstate, message, hint) => {
                encode::error(out, Severity::Error, sqlstate, message, None, Some(hint));
                return false;
            }
        };
        encode::message(out, be::COMMAND_COMPLETE, |b| encode::cstr(b, tag.as_bytes()));
        true
    }

    /// The parameter is one of pooler's, but none that there is.
    pub(super) fn unknown(name: &str) -> Self {
        let message = format!("unrecognized configuration parameter \"{name}\"");
        const HINT: &str =
            "There are pooler.route, pooler.read_consistency, pooler.read_after and pooler.lsn.";
        Self::Refused("42704", message, HINT)
    }

    /// As PostgreSQL says it (xact.c, WarnNoTransactionBlock).
    pub(super) fn outside_of_block(tag: &'static str) -> Self {
        let message = "SET LOCAL can only be used in transaction blocks";
        Self::Warned { tag, sqlstate: "25P01", message }
    }

    /// The parameter can only be shown.
    pub(super) fn fixed(name: &str) -> Self {
        Self::Refused(
            "55P02",
            format!("parameter \"{name}\" cannot be changed"),
            "Set pooler.read_after to it.",
        )
    }

    /// It is not said as pooler reads it.
    pub(super) fn unclear() -> Self {
        let message = "settings of pooler itself are set and shown by statements of their own".to_owned();
        Self::Refused("0A000", message, UNCLEAR)
    }

    /// The parameter does not take this value.
    pub(super) fn invalid(name: &str, value: &str, hint: &'static str) -> Self {
        Self::Refused("22023", invalid_value(name, value), hint)
    }
}

/// As PostgreSQL says it (guc.c).
pub(super) fn invalid_value(name: &str, value: &str) -> String {
    format!("invalid value for parameter \"{name}\": \"{}\"", value.escape_debug())
}

/// RowDescription of a SHOW whose row comes in this format.
pub(super) fn describe_row(name: &str, format: u16, out: &mut Vec<u8>) {
    encode::message(out, be::ROW_DESCRIPTION, |b| {
        b.extend_from_slice(&[0, 1]);
        encode::cstr(b, name.as_bytes());
        // No table, no column, type, of any length, no modifier, format.
        b.extend_from_slice(&[0; 6]);
        b.extend_from_slice(&TEXT.to_be_bytes());
        b.extend_from_slice(&(-1_i16).to_be_bytes());
        b.extend_from_slice(&(-1_i32).to_be_bytes());
        b.extend_from_slice(&format.to_be_bytes());
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        encode::message(&mut out, tag, |b| b.extend_from_slice(body));
        out
    }

    fn tags(bytes: &[u8]) -> String {
        let mut rest = bytes;
        let mut tags = String::new();
        while let Some(header) = Header::peek(rest) {
            tags.push(char::from(header.tag));
            rest = &rest[header.total()..];
        }
        tags
    }

    #[test]
    fn each_message_is_answered_as_a_server_would() {
        let simple = message(b'Q', b"BEGIN\0");
        let extended = [
            message(b'P', b"\0BEGIN\0\0\0"),
            message(b'D', b"S\0"),
            message(b'B', b"\0\0\0\0\0\0\0\0"),
            message(b'D', b"P\0"),
            message(b'E', b"\0\0\0\0\0"),
            message(b'C', b"P\0"),
            message(b'S', b""),
        ]
        .concat();
        let value = Answer::Value { name: "a".to_owned(), value: "b".to_owned() };
        let refused = Answer::unknown("pooler.x");
        assert!(value.to(&simple, b'T').windows(12).any(|row| row == b"D\0\0\0\x0b\0\x01\0\0\0\x01b"));
        for (answer, to_simple, to_extended) in [
            (Answer::Done("BEGIN"), "CZ", "1tn2nC3Z"),
            (value, "TDCZ", "1tT2TDC3Z"),
            (refused, "EZ", "1tn2nEZ"),
        ] {
            assert_eq!(tags(&answer.to(&simple, b'T')), to_simple);
            assert_eq!(tags(&answer.to(&extended, b'T')), to_extended);
        }
    }
}
