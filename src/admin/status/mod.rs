//! The status page: one static page, and the numbers that it asks for every few seconds. It changes nothing.
//!
//! Whoever looks at it proves who he is, as one of `admin_users` or `stats_users`. The page runs no script but its own, asks
//! nobody but pooler, and takes what it is told (names of databases, texts of statements: other people's input) as text.

mod admission;
mod history;
mod numbers;
#[cfg(test)]
mod tests;
mod throttle;

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use http_body_util::Full;
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::Bytes,
    header::{
        ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderName, HeaderValue, ORIGIN,
        REFERRER_POLICY, RETRY_AFTER, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
    },
};
use tokio::{sync::Mutex, time::timeout};

use self::{admission::Denied, history::History, throttle::Throttle};
use super::commands::Commands;

/// So long the workers may take to answer.
const GATHERED_WITHIN: Duration = Duration::from_secs(5);
/// However many look, the workers are asked once in so long.
const FRESH: Duration = Duration::from_millis(900);
/// Between two points of the history.
const STEP: Duration = Duration::from_secs(2);

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

/// Nothing is loaded from elsewhere, nothing in the page is run, and nothing becomes markup.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
                      trusted-types 'none'";

/// The headers of all answers, besides those that hyper has names for.
const ISOLATION: [(&str, &str); 2] =
    [("cross-origin-opener-policy", "same-origin"), ("cross-origin-resource-policy", "same-origin")];

type Answer = Response<Full<Bytes>>;

/// What the page needs to remember.
#[derive(Debug, Default)]
pub(crate) struct Status {
    history: std::sync::Mutex<History>,
    throttle: std::sync::Mutex<Throttle>,
    /// The last numbers, and when they were gathered.
    last: Mutex<Option<(Instant, Bytes)>>,
}

/// What there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Page,
    Style,
    Script,
    Numbers,
}

impl Part {
    /// What a path names.
    pub(super) fn of(path: &str) -> Option<Self> {
        match path {
            "/" | "/status" => Some(Self::Page),
            "/status.css" => Some(Self::Style),
            "/status.js" => Some(Self::Script),
            "/status.json" => Some(Self::Numbers),
            _ => None,
        }
    }
}

/// Answers a request for a part of it.
pub(super) async fn answer<B>(part: Part, request: &Request<B>, from: IpAddr, commands: &Commands) -> Answer {
    if request.method() != Method::GET {
        let mut refused = of(StatusCode::METHOD_NOT_ALLOWED, TEXT, Bytes::from_static(b"only GET\n"));
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
        return refused;
    }
    if is_foreign(part, request.headers()) {
        return of(StatusCode::FORBIDDEN, TEXT, Bytes::from_static(b"not for other sites\n"));
    }
    if let Err(denied) = admission::admit(request.headers(), from, commands).await {
        return refuse(&denied);
    }
    match part {
        Part::Page => of(StatusCode::OK, HTML, Bytes::from_static(include_bytes!("page.html"))),
        Part::Style => of(StatusCode::OK, CSS, Bytes::from_static(include_bytes!("page.css"))),
        Part::Script => of(StatusCode::OK, SCRIPT, Bytes::from_static(include_bytes!("page.js"))),
        Part::Numbers => match timeout(GATHERED_WITHIN, gathered(commands)).await {
            Ok(Some(numbers)) => of(StatusCode::OK, JSON, numbers),
            _ => {
                let said = Bytes::from_static(b"the workers do not answer\n");
                of(StatusCode::SERVICE_UNAVAILABLE, TEXT, said)
            }
        },
    }
}

/// The numbers of now, or of a moment ago.
async fn gathered(commands: &Commands) -> Option<Bytes> {
    // Who comes meanwhile waits for the same.
    let mut last = commands.status.last.lock().await;
    if let Some((at, numbers)) = &*last
        && at.elapsed() < FRESH
    {
        return Some(numbers.clone());
    }
    let numbers = Bytes::from(numbers::gather(commands).await?);
    *last = Some((Instant::now(), numbers.clone()));
    Some(numbers)
}

/// Another site has made the browser ask. A link to the page may be anywhere; what the page asks for is asked for by itself
/// alone.
fn is_foreign(part: Part, headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if headers.contains_key(ORIGIN) {
        let own = text(HOST.as_str());
        let origin = text(ORIGIN.as_str()).and_then(|origin| origin.split_once("://")).map(|(_, host)| host);
        if origin.is_none() || origin != own {
            return true;
        }
    }
    match text("sec-fetch-site") {
        None => headers.contains_key("sec-fetch-site"),
        Some("same-origin" | "none") => false,
        Some(_) => {
            let is_link =
                text("sec-fetch-mode") == Some("navigate") && text("sec-fetch-dest") == Some("document");
            part != Part::Page || !is_link
        }
    }
}

fn refuse(denied: &Denied) -> Answer {
    match denied {
        Denied::Unknown => {
            let said = Bytes::from_static(b"for admin_users and stats_users of pooler, by their passwords\n");
            let mut answer = of(StatusCode::UNAUTHORIZED, TEXT, said);
            let challenge = HeaderValue::from_static("Basic realm=\"pooler\", charset=\"UTF-8\"");
            answer.headers_mut().insert(WWW_AUTHENTICATE, challenge);
            answer
        }
        Denied::Wait(seconds) => {
            let said = Bytes::from_static(b"too many failed logins: wait\n");
            let mut answer = of(StatusCode::TOO_MANY_REQUESTS, TEXT, said);
            answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(*seconds));
            answer
        }
    }
}

fn of(status: StatusCode, content_type: &'static str, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    for (name, value) in [
        (CONTENT_TYPE, content_type),
        (CACHE_CONTROL, "no-store"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    for (name, value) in ISOLATION {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    answer
}

/// Notes what the page shows of the last minutes, as long as it is there.
pub(crate) async fn keep_history(commands: Arc<Commands>) {
    let mut ticks = tokio::time::interval(STEP);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let process = &commands.process;
        let mut history = commands.status.history.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if process.config().settings.status_page {
            history.add(
                process.clock.micros(),
                process.clock.unix_micros(),
                history::Sums::of(&process.pools.all()),
            );
        } else {
            *history = History::default();
        }
    }
}
