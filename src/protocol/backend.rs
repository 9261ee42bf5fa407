//! Message types that a server sends, and reading the fields of an error.

use super::frame::{split_cstr, split_u32};

/// `R` Authentication request.
pub const AUTHENTICATION: u8 = b'R';
/// `K` BackendKeyData.
pub const BACKEND_KEY_DATA: u8 = b'K';
/// `S` ParameterStatus.
pub const PARAMETER_STATUS: u8 = b'S';
/// `Z` ReadyForQuery.
pub const READY_FOR_QUERY: u8 = b'Z';
/// `E` ErrorResponse.
pub const ERROR_RESPONSE: u8 = b'E';
/// `N` NoticeResponse.
pub const NOTICE_RESPONSE: u8 = b'N';
/// `A` NotificationResponse.
pub const NOTIFICATION_RESPONSE: u8 = b'A';
/// `v` NegotiateProtocolVersion.
pub const NEGOTIATE_PROTOCOL_VERSION: u8 = b'v';
/// `1` ParseComplete.
pub const PARSE_COMPLETE: u8 = b'1';
/// `2` BindComplete.
pub const BIND_COMPLETE: u8 = b'2';
/// `3` CloseComplete.
pub const CLOSE_COMPLETE: u8 = b'3';
/// `C` CommandComplete.
pub const COMMAND_COMPLETE: u8 = b'C';
/// `D` DataRow.
pub const DATA_ROW: u8 = b'D';
/// `I` EmptyQueryResponse.
pub const EMPTY_QUERY_RESPONSE: u8 = b'I';
/// `s` PortalSuspended.
pub const PORTAL_SUSPENDED: u8 = b's';
/// `T` RowDescription.
pub const ROW_DESCRIPTION: u8 = b'T';
/// `t` ParameterDescription.
pub const PARAMETER_DESCRIPTION: u8 = b't';
/// `n` NoData.
pub const NO_DATA: u8 = b'n';
/// `G` CopyInResponse.
pub const COPY_IN_RESPONSE: u8 = b'G';
/// `H` CopyOutResponse.
pub const COPY_OUT_RESPONSE: u8 = b'H';
/// `W` CopyBothResponse.
pub const COPY_BOTH_RESPONSE: u8 = b'W';
/// `d` CopyData.
pub const COPY_DATA: u8 = b'd';
/// `c` CopyDone.
pub const COPY_DONE: u8 = b'c';
/// `V` FunctionCallResponse.
pub const FUNCTION_CALL_RESPONSE: u8 = b'V';

/// The columns of a DataRow body; NULL is `None`.
pub fn data_row(body: &[u8]) -> Option<Vec<Option<&[u8]>>> {
    let (count, mut rest) = body.split_first_chunk::<2>()?;
    let mut columns = Vec::new();
    for _ in 0..u16::from_be_bytes(*count) {
        let (length, tail) = split_u32(rest)?;
        let is_null = length == u32::MAX;
        let (value, tail) = tail.split_at_checked(if is_null { 0 } else { length as usize })?;
        columns.push((!is_null).then_some(value));
        rest = tail;
    }
    rest.is_empty().then_some(columns)
}

/// One field of an ErrorResponse or NoticeResponse body, by its code (`S`, `V`, `C`, `M`, `D`, `H`, …).
/// `None` where the server left it out (some proxies send errors without SQLSTATE).
pub fn error_field(body: &[u8], code: u8) -> Option<&[u8]> {
    error_fields(body).find(|(field, _)| *field == code).map(|(_, value)| value)
}

/// Code and value of each field of such a body.
pub fn error_fields(mut rest: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let (&code, tail) = rest.split_first().filter(|(code, _)| **code != 0)?;
        let (value, tail) = split_cstr(tail)?;
        rest = tail;
        Some((code, value))
    })
}
