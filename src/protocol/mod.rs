//! The PostgreSQL wire protocol, as far as a pooler has to read it.
//!
//! Owns tags, headers, startup packets and the encoding of the few messages that the pooler writes
//! itself. Pure: bytes in, bytes out. Source: PostgreSQL docs, chapter "Frontend/Backend Protocol".

pub mod backend;
pub mod encode;
pub mod frame;
pub mod frontend;
pub mod peering;
pub mod startup;

/// Protocol version as sent in a startup packet: major in the high 16 bits, minor in the low ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProtocolVersion(pub u32);

impl ProtocolVersion {
    /// 3.0, what every client and server speaks.
    pub const V3_0: Self = Self(3 << 16);
    /// Never released; some old PgBouncers claimed it.
    pub const V3_1: Self = Self((3 << 16) | 1);
    /// 3.2 (PostgreSQL 18): cancel keys of up to 256 bytes.
    pub const V3_2: Self = Self((3 << 16) | 2);

    /// Major version (3 for everything that is served).
    pub fn major(self) -> u32 {
        self.0 >> 16
    }

    /// Minor version.
    pub fn minor(self) -> u32 {
        self.0 & 0xffff
    }
}

/// The key that cancels a session's query: process id and secret (4 bytes in 3.0, up to 256 in 3.2).
#[derive(Clone, PartialEq, Eq)]
pub struct BackendKeyData {
    /// Process id, or what stands for it.
    pub pid: u32,
    /// Secret bytes; compared in constant time, never logged.
    pub secret: Box<[u8]>,
}

impl std::fmt::Debug for BackendKeyData {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BackendKeyData(pid {}, secret of {} bytes)", self.pid, self.secret.len())
    }
}

/// Transaction status of ReadyForQuery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionStatus {
    /// `I`: no transaction.
    Idle,
    /// `T`: in a transaction block.
    InTransaction,
    /// `E`: in a failed transaction block.
    Failed,
}

impl TransactionStatus {
    /// From the byte of ReadyForQuery; an unknown byte counts as "in a transaction", the careful choice.
    pub fn from_byte(byte: u8) -> Self {
        match byte {
            b'I' => Self::Idle,
            b'E' => Self::Failed,
            _ => Self::InTransaction,
        }
    }
}
