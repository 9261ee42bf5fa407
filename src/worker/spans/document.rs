//! Spans as OTLP by HTTP has them, in JSON.
//!
//! Sources: opentelemetry-proto, trace/v1/trace.proto; OTLP specification, "JSON Protobuf Encoding" (ids in hex, integers of 64 bits
//! as strings, enumerations as numbers); semantic conventions for database spans.

use ring::rand::{SecureRandom as _, SystemRandom};
use serde_json::{Value, json};

use super::Span;

/// SPAN_KIND_CLIENT.
const CLIENT: u8 = 3;
/// STATUS_CODE_ERROR.
const ERROR: u8 = 2;
/// What W3C calls sampled.
const SAMPLED: u32 = 0x01;
/// It is known whether the parent is of another process, and it is.
const REMOTE: u32 = 0x100 | 0x200;

/// A request with all of them; `None`: there are no random bytes.
pub(super) fn request(spans: &[Span], random: &SystemRandom) -> Option<Vec<u8>> {
    let spans: Vec<Value> = spans.iter().map(|span| of(span, random)).collect::<Option<_>>()?;
    let host = nix::unistd::gethostname().unwrap_or_default();
    let version = env!("CARGO_PKG_VERSION");
    let resource = [
        text("service.name", "pooler"),
        text("service.version", version),
        text("service.instance.id", &format!("{}:{}", host.to_string_lossy(), std::process::id())),
        text("host.name", &host.to_string_lossy()),
        number("process.pid", std::process::id().into()),
    ];
    let request = json!({ "resourceSpans": [{
        "resource": { "attributes": resource },
        "scopeSpans": [{ "scope": { "name": "pooler", "version": version }, "spans": spans }],
    }] });
    serde_json::to_vec(&request).ok()
}

fn of(span: &Span, random: &SystemRandom) -> Option<Value> {
    let (mut trace, mut id) = ([0; 16], [0; 8]);
    random.fill(&mut id).ok()?;
    match span.parent {
        Some(parent) => trace = parent.trace,
        None => random.fill(&mut trace).ok()?,
    }
    let nanos = |micros: u64| micros.saturating_mul(1000).to_string();
    let key = &span.pool.key;
    let several = span.queries > 1 || span.transactions > 1;
    let operation = if several { Some("TRANSACTION") } else { span.operation };
    let mut attributes = vec![
        text("db.system.name", "postgresql"),
        // As it was called before semantic conventions 1.33.
        text("db.system", "postgresql"),
        text("db.namespace", &span.pool.settings().connect.database),
        text("server.address", &span.peer.0),
        number("server.port", span.peer.1.into()),
        text("pooler.database", &key.database),
        text("pooler.user", &key.user),
        number("pooler.wait_us", span.began.saturating_sub(span.waits_since)),
        number("pooler.execution_us", span.ended.saturating_sub(span.began)),
        number("pooler.queries", span.queries),
        number("db.response.returned_rows", span.rows),
    ];
    attributes.extend(span.operation.filter(|_| !several).map(|word| text("db.operation.name", word)));
    attributes.extend(span.client.map(|client| number("pooler.client", client)));
    if span.transactions > 1 {
        attributes.push(number("pooler.transactions", span.transactions));
    }
    if span.pool.seat.is_some() {
        attributes.push(text("pooler.node", &key.node));
        attributes.extend(span.role.map(|role| text("pooler.node.role", &role.to_string())));
        attributes.push(text("pooler.route", span.route));
    }
    let code = span.error.as_ref().map(|code| String::from_utf8_lossy(code).into_owned());
    let failed = code.as_deref().or(span.cut);
    if let Some(code) = &code {
        attributes.push(text("db.response.status_code", code));
    }
    attributes.extend(failed.map(|what| text("error.type", what)));
    let mut value = json!({
        "traceId": hex(&trace),
        "spanId": hex(&id),
        "flags": SAMPLED | if span.parent.is_some() { REMOTE } else { 0 },
        "name": operation.map_or_else(|| key.database.clone(), |word| format!("{word} {}", key.database)),
        "kind": CLIENT,
        "startTimeUnixNano": nanos(span.waits_since),
        "endTimeUnixNano": nanos(span.ended),
        "attributes": attributes,
        "events": [{ "timeUnixNano": nanos(span.began), "name": "server assigned" }],
        "status": {},
    });
    if let Some(parent) = span.parent {
        set(&mut value, "parentSpanId", hex(&parent.span).into());
    }
    if let Some(what) = failed {
        set(&mut value, "status", json!({ "code": ERROR, "message": what }));
    }
    Some(value)
}

fn set(object: &mut Value, field: &str, value: Value) {
    if let Value::Object(fields) = object {
        fields.insert(field.to_owned(), value);
    }
}

fn text(key: &str, value: &str) -> Value {
    json!({ "key": key, "value": { "stringValue": value } })
}

fn number(key: &str, value: u64) -> Value {
    json!({ "key": key, "value": { "intValue": value.to_string() } })
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // A String takes all.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
