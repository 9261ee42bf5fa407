//! Message headers: one tag byte and a big-endian length that counts itself.

/// Bytes of a header: tag and length.
pub const HEADER: usize = 5;

/// A complete header. `len` counts the length field and the body, not the tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Message type.
    pub tag: u8,
    /// Length as on the wire (at least 4).
    pub len: u32,
}

impl Header {
    /// Reads a header from the start of `bytes`; `None` if fewer than five are there.
    pub fn peek(bytes: &[u8]) -> Option<Self> {
        let &[tag, a, b, c, d, ..] = bytes else { return None };
        Some(Self { tag, len: u32::from_be_bytes([a, b, c, d]) })
    }

    /// Bytes of the whole message, tag included.
    pub fn total(self) -> usize {
        self.len as usize + 1
    }
}

/// Reads a NUL-terminated string: the string and what follows it.
pub fn split_cstr(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|&b| b == 0)?;
    let (head, tail) = bytes.split_at_checked(end)?;
    Some((head, tail.get(1..)?))
}

/// Reads a big-endian u32 and what follows it.
pub fn split_u32(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (head, tail) = bytes.split_first_chunk::<4>()?;
    Some((u32::from_be_bytes(*head), tail))
}
