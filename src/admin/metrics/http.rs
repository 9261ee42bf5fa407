//! Metrics, whether the process lives and is ready, and the status page, by HTTP: one request for each connection, which is soon over.

use std::{convert::Infallible, net::IpAddr, sync::Arc, time::Duration};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpStream, sync::Semaphore, time::timeout};

use super::{Format, gather::Snapshot, write};
use crate::admin::{
    commands::Commands,
    status::{self, Part},
};

/// So long the head of a request may take.
const HEAD_WITHIN: Duration = Duration::from_secs(5);
/// So long the whole connection may last.
const OVER_WITHIN: Duration = Duration::from_secs(15);
/// So long the workers may take to answer.
const GATHERED_WITHIN: Duration = Duration::from_secs(5);
/// A request may have so many headers, and its head so many bytes.
const MOST_HEADERS: usize = 64;
const LONGEST_HEAD: usize = 16 << 10;

/// Workers are asked for one request after the other.
static GATHERING: Semaphore = Semaphore::const_new(1);

type Answer = Response<Full<Bytes>>;

/// Answers the request of one connection. What it does wrong is its own affair.
pub(crate) async fn serve(stream: TcpStream, from: IpAddr, commands: Arc<Commands>) {
    let service = service_fn(|request| {
        let commands = Arc::clone(&commands);
        async move { Ok::<_, Infallible>(answer(&request, from, &commands).await) }
    });
    let connection = http1::Builder::new()
        .keep_alive(false)
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .max_headers(MOST_HEADERS)
        .max_buf_size(LONGEST_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(OVER_WITHIN, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!("request for metrics: {error}"),
        Err(_) => tracing::debug!("request for metrics: took too long"),
    }
}

async fn answer(request: &Request<Incoming>, from: IpAddr, commands: &Commands) -> Answer {
    let path = request.uri().path();
    if let Some(part) = Part::of(path).filter(|_| commands.process.config().settings.status_page) {
        return status::answer(part, request, from, commands).await;
    }
    if !["/metrics", "/healthz", "/readyz"].contains(&path) {
        return text(StatusCode::NOT_FOUND, "there are /metrics, /healthz and /readyz\n");
    }
    if request.method() != Method::GET {
        let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
        return refused;
    }
    if path == "/healthz" {
        return text(StatusCode::OK, "ok\n");
    }
    let gathered = async {
        let _permit = GATHERING.acquire().await;
        Snapshot::take(commands).await
    };
    let Ok(snapshot) = timeout(GATHERED_WITHIN, gathered).await else {
        return text(StatusCode::SERVICE_UNAVAILABLE, "the workers do not answer\n");
    };
    if path == "/readyz" {
        return match snapshot.why_not_ready() {
            None => text(StatusCode::OK, "ready\n"),
            Some(reason) => text(StatusCode::SERVICE_UNAVAILABLE, reason),
        };
    }
    let accepts =
        |value: &HeaderValue| value.to_str().is_ok_and(|v| v.contains("application/openmetrics-text"));
    let open = request.headers().get_all(ACCEPT).iter().any(accepts);
    let format = if open { Format::OpenMetrics } else { Format::Text };
    match write(snapshot, format) {
        Ok(metrics) => with_type(StatusCode::OK, metrics.into(), format.content_type()),
        Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "metrics cannot be written\n"),
    }
}

fn text(status: StatusCode, text: &'static str) -> Answer {
    with_type(status, Bytes::from_static(text.as_bytes()), "text/plain; charset=utf-8")
}

fn with_type(status: StatusCode, body: Bytes, content_type: &'static str) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
