//! Message types that a client sends.

/// `Q` Query: a simple query string.
pub const QUERY: u8 = b'Q';
/// `P` Parse.
pub const PARSE: u8 = b'P';
/// `B` Bind.
pub const BIND: u8 = b'B';
/// `D` Describe.
pub const DESCRIBE: u8 = b'D';
/// `E` Execute.
pub const EXECUTE: u8 = b'E';
/// `C` Close.
pub const CLOSE: u8 = b'C';
/// `H` Flush.
pub const FLUSH: u8 = b'H';
/// `S` Sync.
pub const SYNC: u8 = b'S';
/// `F` FunctionCall.
pub const FUNCTION_CALL: u8 = b'F';
/// `d` CopyData.
pub const COPY_DATA: u8 = b'd';
/// `c` CopyDone.
pub const COPY_DONE: u8 = b'c';
/// `f` CopyFail.
pub const COPY_FAIL: u8 = b'f';
/// `p` PasswordMessage, SASLInitialResponse, SASLResponse.
pub const PASSWORD: u8 = b'p';
/// `X` Terminate.
pub const TERMINATE: u8 = b'X';
