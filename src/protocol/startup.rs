//! The packets that open a connection: they have a length and no tag.

use super::{BackendKeyData, ProtocolVersion};

/// CancelRequest code.
pub const CANCEL_REQUEST: u32 = 80_877_102;
/// SSLRequest code.
pub const SSL_REQUEST: u32 = 80_877_103;
/// GSSENCRequest code.
pub const GSSENC_REQUEST: u32 = 80_877_104;
/// Longest startup packet that is read, as in PostgreSQL (MAX_STARTUP_PACKET_LENGTH).
pub const MAX_STARTUP_PACKET: usize = 10_000;

/// What a client may open with.
#[derive(Debug, PartialEq, Eq)]
pub enum StartupPacket {
    /// Asks for TLS.
    SslRequest,
    /// Asks for GSSAPI encryption.
    GssEncRequest,
    /// Asks to cancel the query of another connection.
    Cancel(BackendKeyData),
    /// Asks for a session: version and parameters (`user`, `database`, `options`, …) in order.
    Startup(ProtocolVersion, Vec<(String, String)>),
}
