//! One GET by HTTP/1.1, with bounds: what answers may be anything.

use std::{io, pin::pin, sync::Arc};

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Request, StatusCode, body::Bytes, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use crate::{
    config::{PatroniApi, SslMode},
    net::tls::{ServerTls, TlsError},
};

/// Longest answer, and longest head of one.
const LONGEST: usize = 1 << 20;
const LONGEST_HEAD: usize = 64 << 10;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum HttpError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Tls(#[from] TlsError),
    #[error("no certificate can name the host")]
    Name,
    #[error("{}", told(.0))]
    Http(#[from] hyper::Error),
    #[error("the request cannot be made: {0}")]
    Request(#[from] hyper::http::Error),
    #[error("the answer is longer than {LONGEST} bytes, or ends early: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    #[error("status {0}")]
    Status(StatusCode),
}

/// The cause is what tells something.
fn told(error: &hyper::Error) -> String {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
    format!("{error}{cause}")
}

/// The body of the answer. Certificates are checked as towards servers with `verify-full`.
pub(super) async fn get(api: &PatroniApi, path: &str, tls: &ServerTls) -> Result<Bytes, HttpError> {
    let stream = TcpStream::connect((api.host.as_str(), api.port)).await?;
    if !api.https {
        return exchange(stream, api, path).await;
    }
    let mut config = rustls::ClientConfig::clone(&*tls.config(SslMode::VerifyFull)?);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let name = ServerName::try_from(api.host.clone()).map_err(|_| HttpError::Name)?;
    exchange(TlsConnector::from(Arc::new(config)).connect(name, stream).await?, api, path).await
}

async fn exchange<S>(stream: S, api: &PatroniApi, path: &str) -> Result<Bytes, HttpError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = http1::Builder::new();
    builder.max_buf_size(LONGEST_HEAD);
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
    let host = api.to_string();
    let host = host.split_once("://").map_or(host.as_str(), |(_, host)| host);
    let request = Request::get(path)
        .header(header::HOST, host)
        .header(header::USER_AGENT, "pooler")
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())?;
    let mut answer = pin!(async {
        let response = sender.send_request(request).await?;
        if response.status() != StatusCode::OK {
            return Err(HttpError::Status(response.status()));
        }
        let body = Limited::new(response.into_body(), LONGEST).collect().await;
        Ok(body.map_err(HttpError::Body)?.to_bytes())
    });
    tokio::select! {
        answer = &mut answer => return answer,
        // Its end may come before the answer is put together.
        ended = connection => ended?,
    }
    answer.await
}
