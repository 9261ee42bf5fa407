//! Result sets of the console: every column as text, typed as in PgBouncer.

use crate::protocol::{backend, encode};

/// Type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
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
}

/// A table: columns, then rows of as many values (`None`: null).
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) columns: &'static [(&'static str, Kind)],
    pub(crate) rows: Vec<Vec<Option<String>>>,
}

impl Table {
    /// RowDescription, DataRows and CommandComplete.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        encode::message(out, backend::ROW_DESCRIPTION, |b| {
            b.extend_from_slice(&count(self.columns.len()));
            for (name, kind) in self.columns {
                let (oid, size) = kind.oid_and_size();
                encode::cstr(b, name.as_bytes());
                b.extend_from_slice(&[0; 6]);
                b.extend_from_slice(&oid.to_be_bytes());
                b.extend_from_slice(&size.to_be_bytes());
                b.extend_from_slice(&(-1_i32).to_be_bytes());
                b.extend_from_slice(&[0; 2]);
            }
        });
        for row in &self.rows {
            encode::message(out, backend::DATA_ROW, |b| {
                b.extend_from_slice(&count(row.len()));
                for value in row {
                    match value {
                        None => b.extend_from_slice(&(-1_i32).to_be_bytes()),
                        Some(text) => {
                            let length = i32::try_from(text.len()).unwrap_or(0);
                            b.extend_from_slice(&length.to_be_bytes());
                            b.extend_from_slice(text.as_bytes());
                        }
                    }
                }
            });
        }
        complete(out, "SHOW");
    }
}

fn count(n: usize) -> [u8; 2] {
    u16::try_from(n).unwrap_or(0).to_be_bytes()
}

/// CommandComplete.
pub(crate) fn complete(out: &mut Vec<u8>, tag: &str) {
    encode::message(out, backend::COMMAND_COMPLETE, |b| encode::cstr(b, tag.as_bytes()));
}
