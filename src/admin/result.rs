//! Result sets of the console: columns typed as in PgBouncer, values as text or, when asked for, binary.

use crate::protocol::{backend, encode};

/// Type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Int4,
    Int8,
    Numeric,
}

impl Kind {
    /// Type OID and size (pg_type).
    fn oid_and_size(self) -> (u32, i16) {
        match self {
            Self::Text => (25, -1),
            Self::Int4 => (23, 4),
            Self::Int8 => (20, 8),
            Self::Numeric => (1700, -1),
        }
    }

    /// A value as it goes over the wire. Numbers that the type cannot hold become the greatest that it can:
    /// better than a driver that stops at them.
    fn encode(self, out: &mut Vec<u8>, text: &str, format: Format) {
        let number = || text.parse::<u64>().unwrap_or_default();
        let int4 = || i32::try_from(number()).unwrap_or(i32::MAX);
        let int8 = || i64::try_from(number()).unwrap_or(i64::MAX);
        match (self, format) {
            (Self::Int4, Format::Text) => out.extend_from_slice(int4().to_string().as_bytes()),
            (Self::Int8, Format::Text) => out.extend_from_slice(int8().to_string().as_bytes()),
            (Self::Int4, Format::Binary) => out.extend_from_slice(&int4().to_be_bytes()),
            (Self::Int8, Format::Binary) => out.extend_from_slice(&int8().to_be_bytes()),
            (Self::Numeric, Format::Binary) => numeric(out, number()),
            (Self::Text, _) | (Self::Numeric, Format::Text) => out.extend_from_slice(text.as_bytes()),
        }
    }
}

/// How values are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Format {
    #[default]
    Text,
    Binary,
}

/// numeric_send: groups of four digits, the highest first.
fn numeric(out: &mut Vec<u8>, mut value: u64) {
    let mut groups = Vec::new();
    while value > 0 {
        groups.push(u16::try_from(value % 10_000).unwrap_or_default());
        value /= 10_000;
    }
    let weight = i16::try_from(groups.len()).unwrap_or_default() - 1;
    out.extend_from_slice(&count(groups.len()));
    out.extend_from_slice(&weight.max(0).to_be_bytes());
    // Positive, no digits behind the point.
    out.extend_from_slice(&[0; 4]);
    groups.iter().rev().for_each(|group| out.extend_from_slice(&group.to_be_bytes()));
}

/// Columns: name and type.
pub(super) type Columns = &'static [(&'static str, Kind)];
/// As many values as there are columns (`None`: null).
pub(super) type Row = Vec<Option<String>>;

/// RowDescription. `formats`: one for each column; those that are missing are text.
pub(super) fn describe(out: &mut Vec<u8>, columns: Columns, formats: &[Format]) {
    encode::message(out, backend::ROW_DESCRIPTION, |b| {
        b.extend_from_slice(&count(columns.len()));
        for (index, (name, kind)) in columns.iter().enumerate() {
            let (oid, size) = kind.oid_and_size();
            encode::cstr(b, name.as_bytes());
            b.extend_from_slice(&[0; 6]);
            b.extend_from_slice(&oid.to_be_bytes());
            b.extend_from_slice(&size.to_be_bytes());
            b.extend_from_slice(&(-1_i32).to_be_bytes());
            let binary = format(formats, index) == Format::Binary;
            b.extend_from_slice(&u16::from(binary).to_be_bytes());
        }
    });
}

/// DataRow.
pub(super) fn row(out: &mut Vec<u8>, columns: Columns, formats: &[Format], row: &Row) {
    encode::message(out, backend::DATA_ROW, |b| {
        b.extend_from_slice(&count(row.len()));
        for (index, (value, (_, kind))) in row.iter().zip(columns).enumerate() {
            let Some(text) = value else {
                b.extend_from_slice(&(-1_i32).to_be_bytes());
                continue;
            };
            let mut bytes = Vec::new();
            kind.encode(&mut bytes, text, format(formats, index));
            b.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or_default().to_be_bytes());
            b.extend_from_slice(&bytes);
        }
    });
}

fn format(formats: &[Format], index: usize) -> Format {
    formats.get(index).copied().unwrap_or_default()
}

/// A count of 16 bits.
pub(super) fn count(n: usize) -> [u8; 2] {
    u16::try_from(n).unwrap_or(0).to_be_bytes()
}

/// CommandComplete.
pub(super) fn complete(out: &mut Vec<u8>, tag: &str) {
    encode::message(out, backend::COMMAND_COMPLETE, |b| encode::cstr(b, tag.as_bytes()));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(kind: Kind, text: &str, format: Format) -> Vec<u8> {
        let mut out = Vec::new();
        kind.encode(&mut out, text, format);
        out
    }

    #[test]
    fn binary_values_are_what_postgresql_sends() {
        assert_eq!(encoded(Kind::Text, "a", Format::Binary), b"a");
        assert_eq!(encoded(Kind::Int4, "258", Format::Binary), [0, 0, 1, 2]);
        assert_eq!(encoded(Kind::Int8, "258", Format::Binary), [0, 0, 0, 0, 0, 0, 1, 2]);
        // SELECT numeric_send(n) at PostgreSQL.
        let cases: [(&str, &[u8]); 4] = [
            ("0", &[0, 0, 0, 0, 0, 0, 0, 0]),
            ("7", &[0, 1, 0, 0, 0, 0, 0, 0, 0, 7]),
            ("10000", &[0, 2, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0]),
            ("123456789", &[0, 3, 0, 2, 0, 0, 0, 0, 0, 1, 0x09, 0x29, 0x1a, 0x85]),
        ];
        for (text, expected) in cases {
            assert_eq!(encoded(Kind::Numeric, text, Format::Binary), expected, "{text}");
        }
    }

    #[test]
    fn numbers_that_do_not_fit_become_the_greatest_that_do() {
        let max = u64::MAX.to_string();
        assert_eq!(encoded(Kind::Int4, &max, Format::Text), b"2147483647");
        assert_eq!(encoded(Kind::Int8, &max, Format::Text), b"9223372036854775807");
        assert_eq!(encoded(Kind::Numeric, &max, Format::Text), max.as_bytes());
        assert_eq!(encoded(Kind::Int4, &max, Format::Binary), i32::MAX.to_be_bytes());
    }
}
