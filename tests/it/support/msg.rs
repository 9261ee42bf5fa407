//! Messages of a client, as bytes, and messages of a server, as one line of text each.

use pooler::protocol::encode::{cstr, message};

/// Query.
pub fn query(sql: &str) -> Vec<u8> {
    build(b'Q', |b| cstr(b, sql.as_bytes()))
}

/// Parse without parameter types.
pub fn parse(name: &str, sql: &str) -> Vec<u8> {
    parse_typed(name, sql, &[])
}

/// Parse with the OIDs of parameter types.
pub fn parse_typed(name: &str, sql: &str, types: &[u32]) -> Vec<u8> {
    build(b'P', |b| {
        cstr(b, name.as_bytes());
        cstr(b, sql.as_bytes());
        b.extend(count(types.len()));
        types.iter().for_each(|oid| b.extend(oid.to_be_bytes()));
    })
}

/// Bind to the unnamed portal, parameters and results as text.
pub fn bind(statement: &str, values: &[Option<&str>]) -> Vec<u8> {
    bind_portal("", statement, values)
}

/// Bind to a named portal.
pub fn bind_portal(portal: &str, statement: &str, values: &[Option<&str>]) -> Vec<u8> {
    build(b'B', |b| {
        cstr(b, portal.as_bytes());
        cstr(b, statement.as_bytes());
        b.extend(count(0));
        b.extend(count(values.len()));
        for value in values {
            match value {
                None => b.extend((-1_i32).to_be_bytes()),
                Some(text) => {
                    b.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
                    b.extend(text.as_bytes());
                }
            }
        }
        b.extend(count(0));
    })
}

/// Describe a statement.
pub fn describe(statement: &str) -> Vec<u8> {
    named(b'D', b'S', statement)
}

/// Describe a portal.
pub fn describe_portal(portal: &str) -> Vec<u8> {
    named(b'D', b'P', portal)
}

/// Close a statement.
pub fn close(statement: &str) -> Vec<u8> {
    named(b'C', b'S', statement)
}

/// Close a portal.
pub fn close_portal(portal: &str) -> Vec<u8> {
    named(b'C', b'P', portal)
}

/// Execute the unnamed portal to its end.
pub fn execute() -> Vec<u8> {
    execute_portal("", 0)
}

/// Execute a portal for at most so many rows (0: all).
pub fn execute_portal(portal: &str, rows: u32) -> Vec<u8> {
    build(b'E', |b| {
        cstr(b, portal.as_bytes());
        b.extend(rows.to_be_bytes());
    })
}

/// Sync.
pub fn sync() -> Vec<u8> {
    build(b'S', |_| {})
}

/// Flush.
pub fn flush() -> Vec<u8> {
    build(b'H', |_| {})
}

/// Terminate.
pub fn terminate() -> Vec<u8> {
    build(b'X', |_| {})
}

/// CopyData.
pub fn copy_data(data: &str) -> Vec<u8> {
    build(b'd', |b| b.extend(data.as_bytes()))
}

/// CopyDone.
pub fn copy_done() -> Vec<u8> {
    build(b'c', |_| {})
}

/// CopyFail.
pub fn copy_fail(reason: &str) -> Vec<u8> {
    build(b'f', |b| cstr(b, reason.as_bytes()))
}

/// FunctionCall with text arguments and a text result.
pub fn function_call(oid: u32, arguments: &[&str]) -> Vec<u8> {
    build(b'F', |b| {
        b.extend(oid.to_be_bytes());
        b.extend(count(0));
        b.extend(count(arguments.len()));
        for argument in arguments {
            b.extend(u32::try_from(argument.len()).unwrap().to_be_bytes());
            b.extend(argument.as_bytes());
        }
        b.extend(count(0));
    })
}

/// Any message.
pub fn build(tag: u8, body: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    message(&mut out, tag, body);
    out
}

fn named(tag: u8, kind: u8, name: &str) -> Vec<u8> {
    build(tag, |b| {
        b.push(kind);
        cstr(b, name.as_bytes());
    })
}

/// A count of 16 bits, as Parse, Bind and FunctionCall have it.
fn count(n: usize) -> [u8; 2] {
    u16::try_from(n).unwrap().to_be_bytes()
}

/// One message of a server.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    /// Message type.
    pub tag: u8,
    /// What follows the length.
    pub body: Vec<u8>,
}

impl Frame {
    /// A field of an ErrorResponse or NoticeResponse; empty if it is not there.
    pub fn field(&self, code: u8) -> String {
        let value = pooler::protocol::backend::error_field(&self.body, code).unwrap_or_default();
        String::from_utf8_lossy(value).into_owned()
    }

    /// Values of a DataRow.
    pub fn values(&self) -> Vec<Option<String>> {
        let mut rest = &self.body[2..];
        let mut values = Vec::new();
        while !rest.is_empty() {
            let (len, tail) = rest.split_first_chunk::<4>().unwrap();
            let (value, tail) = match usize::try_from(i32::from_be_bytes(*len)) {
                Ok(len) => (Some(String::from_utf8_lossy(&tail[..len]).into_owned()), &tail[len..]),
                Err(_) => (None, tail),
            };
            values.push(value);
            rest = tail;
        }
        values
    }

    /// A DataRow's values joined by `|`.
    pub fn row(&self) -> String {
        let text = |value: Option<String>| value.unwrap_or_else(|| "NULL".to_owned());
        self.values().into_iter().map(text).collect::<Vec<_>>().join("|")
    }

    /// What a transcript shows of it: everything that a client may rely on. Table OIDs differ between the two
    /// databases that are compared, file and line of an error between PostgreSQL and pooler.
    fn describe(&self) -> String {
        match self.tag {
            b'1' => "ParseComplete".to_owned(),
            b'2' => "BindComplete".to_owned(),
            b'3' => "CloseComplete".to_owned(),
            b'n' => "NoData".to_owned(),
            b's' => "PortalSuspended".to_owned(),
            b'I' => "EmptyQueryResponse".to_owned(),
            b'c' => "CopyDone".to_owned(),
            b'Z' => format!("ReadyForQuery {}", char::from(self.body[0])),
            b'C' => format!("CommandComplete {}", self.text()),
            b'S' => format!("ParameterStatus {}", self.text()),
            b'd' => format!("CopyData {}", self.text()),
            b'D' => format!("DataRow {}", shorten(&self.row())),
            b'E' | b'N' => {
                let name = if self.tag == b'E' { "ErrorResponse" } else { "NoticeResponse" };
                format!("{name} {} {} {}", self.field(b'V'), self.field(b'C'), self.field(b'M'))
            }
            b'T' => format!("RowDescription {:?}", self.columns()),
            tag => format!("{} {:?}", char::from(tag), self.body),
        }
    }

    /// Names and type OIDs of a RowDescription.
    pub fn columns(&self) -> Vec<(String, u32)> {
        let mut rest = &self.body[2..];
        let mut columns = Vec::new();
        while let Some(end) = rest.iter().position(|&b| b == 0) {
            let name = String::from_utf8_lossy(&rest[..end]).into_owned();
            let fields = &rest[end + 1..];
            columns.push((name, u32::from_be_bytes(fields[6..10].try_into().unwrap())));
            rest = &fields[18..];
        }
        columns
    }

    fn text(&self) -> String {
        shorten(&String::from_utf8_lossy(&self.body).trim_end_matches('\0').replace('\0', " = "))
    }
}

impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.describe())
    }
}

/// Long values by their length and a checksum, so that transcripts stay readable.
fn shorten(text: &str) -> String {
    if text.len() <= 80 {
        return text.to_owned();
    }
    let sum = text.bytes().fold(0_u32, |sum, b| sum.wrapping_mul(31).wrapping_add(u32::from(b)));
    format!("({} bytes, sum {sum:08x})", text.len())
}
