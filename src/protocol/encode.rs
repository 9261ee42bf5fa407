//! Messages that the pooler writes itself, to either end.

use super::{BackendKeyData, ProtocolVersion, backend, frontend};

/// Writes one message: tag, length, and the body that `body` appends.
pub fn message(out: &mut Vec<u8>, tag: u8, body: impl FnOnce(&mut Vec<u8>)) {
    out.push(tag);
    sized(out, body);
}

/// Writes a length that counts itself, and the body that `body` appends (a startup packet has no tag).
pub fn sized(out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    body(out);
    let len = u32::try_from(out.len() - at).unwrap_or(u32::MAX);
    if let Some(slot) = out.get_mut(at..at + 4) {
        slot.copy_from_slice(&len.to_be_bytes());
    }
}

/// Appends a NUL-terminated string; a NUL inside would end it early, so it is left out.
pub fn cstr(out: &mut Vec<u8>, text: &[u8]) {
    if text.contains(&0) {
        out.extend(text.iter().copied().filter(|&b| b != 0));
    } else {
        out.extend_from_slice(text);
    }
    out.push(0);
}

/// Parse, Bind, Describe, Execute and Sync of an unnamed statement with one parameter, a text.
pub fn unnamed(out: &mut Vec<u8>, sql: &str, parameter: &str) {
    message(out, frontend::PARSE, |b| {
        b.push(0);
        cstr(b, sql.as_bytes());
        b.extend_from_slice(&[0; 2]);
    });
    message(out, frontend::BIND, |b| {
        // No names and no formats; one parameter; no formats of columns.
        b.extend_from_slice(&[0, 0, 0, 0, 0, 1]);
        b.extend_from_slice(&u32::try_from(parameter.len()).unwrap_or(u32::MAX).to_be_bytes());
        b.extend_from_slice(parameter.as_bytes());
        b.extend_from_slice(&[0; 2]);
    });
    message(out, frontend::DESCRIBE, |b| b.extend_from_slice(b"P\0"));
    message(out, frontend::EXECUTE, |b| b.extend_from_slice(&[0; 5]));
    message(out, frontend::SYNC, |_| {});
}

/// AuthenticationOk.
pub fn authentication_ok(out: &mut Vec<u8>) {
    authentication(out, 0, &[]);
}

/// An authentication request with its code and payload.
pub fn authentication(out: &mut Vec<u8>, code: u32, payload: &[u8]) {
    message(out, backend::AUTHENTICATION, |b| {
        b.extend_from_slice(&code.to_be_bytes());
        b.extend_from_slice(payload);
    });
}

/// ParameterStatus.
pub fn parameter_status(out: &mut Vec<u8>, name: &str, value: &str) {
    message(out, backend::PARAMETER_STATUS, |b| {
        cstr(b, name.as_bytes());
        cstr(b, value.as_bytes());
    });
}

/// BackendKeyData.
pub fn backend_key_data(out: &mut Vec<u8>, key: &BackendKeyData) {
    message(out, backend::BACKEND_KEY_DATA, |b| {
        b.extend_from_slice(&key.pid.to_be_bytes());
        b.extend_from_slice(&key.secret);
    });
}

/// ReadyForQuery with its status byte (`I`, `T` or `E`).
pub fn ready_for_query(out: &mut Vec<u8>, status: u8) {
    message(out, backend::READY_FOR_QUERY, |b| b.push(status));
}

/// NegotiateProtocolVersion: the newest minor version that is served and the options that are not known.
pub fn negotiate_protocol_version(out: &mut Vec<u8>, version: ProtocolVersion, unknown: &[&str]) {
    message(out, backend::NEGOTIATE_PROTOCOL_VERSION, |b| {
        b.extend_from_slice(&version.0.to_be_bytes());
        b.extend_from_slice(&u32::try_from(unknown.len()).unwrap_or(0).to_be_bytes());
        for name in unknown {
            cstr(b, name.as_bytes());
        }
    });
}

/// PasswordMessage, SASLInitialResponse or SASLResponse: the payload as it is.
pub fn password(out: &mut Vec<u8>, payload: &[u8]) {
    message(out, frontend::PASSWORD, |b| b.extend_from_slice(payload));
}

/// Query.
pub fn query(out: &mut Vec<u8>, sql: &str) {
    message(out, frontend::QUERY, |b| cstr(b, sql.as_bytes()));
}

/// Terminate.
pub fn terminate(out: &mut Vec<u8>) {
    message(out, frontend::TERMINATE, |_| {});
}

/// CancelRequest (no tag).
pub fn cancel_request(out: &mut Vec<u8>, key: &BackendKeyData) {
    sized(out, |b| {
        b.extend_from_slice(&super::startup::CANCEL_REQUEST.to_be_bytes());
        b.extend_from_slice(&key.pid.to_be_bytes());
        b.extend_from_slice(&key.secret);
    });
}

/// Severity of a message that the pooler writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The statement failed, the connection goes on.
    Error,
    /// The connection ends after this message.
    Fatal,
    /// Nothing failed, but it may not be what the client wants.
    Warning,
    /// Nothing failed.
    Notice,
}

impl Severity {
    fn text(self) -> &'static [u8] {
        match self {
            Self::Error => b"ERROR",
            Self::Fatal => b"FATAL",
            Self::Warning => b"WARNING",
            Self::Notice => b"NOTICE",
        }
    }
}

/// ErrorResponse or NoticeResponse.
pub fn error(
    out: &mut Vec<u8>,
    severity: Severity,
    sqlstate: &str,
    text: &str,
    detail: Option<&str>,
    hint: Option<&str>,
) {
    let failed = matches!(severity, Severity::Error | Severity::Fatal);
    let tag = if failed { backend::ERROR_RESPONSE } else { backend::NOTICE_RESPONSE };
    message(out, tag, |b| {
        let fields = [
            (b'S', Some(severity.text())),
            (b'V', Some(severity.text())),
            (b'C', Some(sqlstate.as_bytes())),
            (b'M', Some(text.as_bytes())),
            (b'D', detail.map(str::as_bytes)),
            (b'H', hint.map(str::as_bytes)),
        ];
        for (code, value) in fields {
            if let Some(value) = value {
                b.push(code);
                cstr(b, value);
            }
        }
        b.push(0);
    });
}
