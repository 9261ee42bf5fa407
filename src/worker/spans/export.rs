//! Sends spans to the collector, many at once, in the background: nobody waits for it.
//!
//! Source: OTLP specification, "OTLP/HTTP Response", "Failures", "OTLP/HTTP Throttling".

use std::{
    sync::{Weak, atomic::Ordering::Relaxed},
    time::Duration,
};

use http_body_util::Full;
use hyper::{Request, Response, StatusCode, body::Bytes, header};
use ring::rand::SystemRandom;
use serde_json::Value;
use tokio::{
    sync::{mpsc::Receiver, oneshot},
    time::{Instant, timeout},
};

use super::{Item, Span, document};
use crate::{
    net::http::{Place, ask},
    worker::process::Process,
};

/// So many are sent at once.
const MOST: usize = 512;
/// The first of them waits so long for others.
const PATIENCE: Duration = Duration::from_secs(1);
/// The collector may take so long.
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);
/// How often spans are sent that a collector is too busy for, or that did not reach it.
const ATTEMPTS: u32 = 4;
/// Pause before the second attempt; twice as long before each next one.
const PAUSE: Duration = Duration::from_millis(500);
/// A collector may ask for a pause so long.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Why spans were not taken.
struct Trouble {
    what: String,
    /// It may work later: the least pause.
    again: Option<Duration>,
}

/// Runs as long as the process does.
pub(crate) async fn export(process: Weak<Process>) {
    let Some(mut queue) = process.upgrade().and_then(|process| process.spans.take_queue()) else { return };
    let random = SystemRandom::new();
    let mut complained = false;
    loop {
        let (spans, flushed) = batch(&mut queue).await;
        let Some(process) = process.upgrade() else { return };
        if !spans.is_empty() {
            let attempts = if flushed.is_empty() { ATTEMPTS } else { 1 };
            let count = u64::try_from(spans.len()).unwrap_or(0);
            let sent = match document::request(&spans, &random) {
                Some(document) => send(&process, document.into(), attempts).await,
                None => Err("there are no random bytes".to_owned()),
            };
            let refused = match sent {
                Ok(refused) => {
                    if std::mem::take(&mut complained) {
                        tracing::info!("traces are taken again");
                    }
                    refused.min(count)
                }
                Err(trouble) => {
                    if !std::mem::replace(&mut complained, true) {
                        tracing::warn!("traces cannot be sent: {trouble}; what cannot be sent is dropped");
                    }
                    count
                }
            };
            process.spans.failed.fetch_add(refused, Relaxed);
            process.spans.exported.fetch_add(count - refused, Relaxed);
        }
        for done in flushed {
            let _ = done.send(());
        }
    }
}

/// The next spans, and who waits for them to be sent.
async fn batch(queue: &mut Receiver<Item>) -> (Vec<Span>, Vec<oneshot::Sender<()>>) {
    let (mut spans, mut flushed) = (Vec::new(), Vec::new());
    let mut deadline = None;
    while spans.len() < MOST && flushed.is_empty() {
        let next = match deadline {
            None => queue.recv().await,
            Some(deadline) => match tokio::time::timeout_at(deadline, queue.recv()).await {
                Ok(next) => next,
                Err(_) => break,
            },
        };
        deadline.get_or_insert_with(|| Instant::now() + PATIENCE);
        match next {
            Some(Item::Span(span)) => spans.push(*span),
            Some(Item::Flush(done)) => flushed.push(done),
            None => break,
        }
    }
    (spans, flushed)
}

/// Returns how many were refused.
async fn send(process: &Process, document: Bytes, attempts: u32) -> Result<u64, String> {
    let mut pause = PAUSE;
    for attempt in 1.. {
        let trouble = match timeout(ANSWERED_WITHIN, post(process, document.clone())).await {
            Ok(Ok(refused)) => return Ok(refused),
            Ok(Err(trouble)) => trouble,
            Err(_) => {
                Trouble { what: format!("no answer within {ANSWERED_WITHIN:?}"), again: Some(Duration::ZERO) }
            }
        };
        let Some(least) = trouble.again.filter(|_| attempt < attempts) else { return Err(trouble.what) };
        tokio::time::sleep(pause.max(least).min(LONGEST_PAUSE)).await;
        pause *= 2;
    }
    Ok(0)
}

async fn post(process: &Process, document: Bytes) -> Result<u64, Trouble> {
    let live = process.live();
    let never = |what: String| Trouble { what, again: None };
    let Some(url) = &live.config.settings.otlp_endpoint else {
        return Err(never("there is no otlp_endpoint any more".to_owned()));
    };
    let request = Request::post(format!("{}/v1/traces", url.path))
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(document))
        .map_err(|error| never(format!("{url}: {error}")))?;
    let place = Place { https: url.https, host: &url.host, port: url.port };
    match ask(place, request, &live.server_tls).await {
        Ok(answer) => {
            read(&answer).map_err(|trouble| Trouble { what: format!("{url}: {}", trouble.what), ..trouble })
        }
        Err(error) => Err(Trouble { what: format!("{url}: {error}"), again: Some(Duration::ZERO) }),
    }
}

/// How many were refused, of those that a collector has answered about.
fn read(answer: &Response<Bytes>) -> Result<u64, Trouble> {
    let status = answer.status();
    if status.is_success() {
        let said: Value = serde_json::from_slice(answer.body()).unwrap_or_default();
        let refused = said.pointer("/partialSuccess/rejectedSpans");
        // An integer of 64 bits: a string, in JSON of protobuf.
        let refused = refused.and_then(|n| n.as_u64().or_else(|| n.as_str()?.parse().ok()));
        return Ok(refused.unwrap_or(0));
    }
    let later = matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
    );
    let wanted =
        answer.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let again = later.then(|| Duration::from_secs(wanted.unwrap_or(0)));
    Err(Trouble { what: format!("status {status}"), again })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_tell_what_is_taken_and_what_may_be_tried_again() {
        let of = |status: u16, retry: &str, body: &'static str| {
            let answer = Response::builder().status(status).header(header::RETRY_AFTER, retry);
            read(&answer.body(Bytes::from_static(body.as_bytes())).unwrap()).map_err(|trouble| trouble.again)
        };
        assert_eq!(of(200, "", "{}"), Ok(0));
        assert_eq!(of(200, "", ""), Ok(0));
        assert_eq!(of(202, "", r#"{"partialSuccess":{"rejectedSpans":"3"}}"#), Ok(3));
        assert_eq!(of(400, "", "no"), Err(None));
        assert_eq!(of(404, "5", ""), Err(None));
        assert_eq!(of(503, "", ""), Err(Some(Duration::ZERO)));
        assert_eq!(of(429, "7", ""), Err(Some(Duration::from_secs(7))));
    }
}
