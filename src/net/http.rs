//! One request by HTTP/1.1, with bounds: what answers may be anything.

use std::{io, pin::pin, sync::Arc};

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Request, Response, StatusCode, body::Bytes, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use super::tls::{ServerTls, TlsError};
use crate::config::{SslMode, host_with_port};

/// Longest answer, and longest head of one.
const LONGEST: usize = 1 << 20;
const LONGEST_HEAD: usize = 64 << 10;

/// Who is asked.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    pub https: bool,
    pub host: &'a str,
    pub port: u16,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
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

/// The answer, whatever its status. Certificates are checked as towards servers with `verify-full`.
pub async fn ask(
    place: Place<'_>,
    mut request: Request<Full<Bytes>>,
    tls: &ServerTls,
) -> Result<Response<Bytes>, HttpError> {
    let authority = host_with_port(place.host, place.port);
    let headers = request.headers_mut();
    headers.insert(header::HOST, authority.parse().map_err(hyper::http::Error::from)?);
    headers.insert(header::USER_AGENT, header::HeaderValue::from_static("pooler"));
    headers.insert(header::CONNECTION, header::HeaderValue::from_static("close"));
    let stream = TcpStream::connect((place.host, place.port)).await?;
    if !place.https {
        return exchange(stream, request).await;
    }
    let mut config = rustls::ClientConfig::clone(&*tls.config(SslMode::VerifyFull)?);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let name = ServerName::try_from(place.host.to_owned()).map_err(|_| HttpError::Name)?;
    exchange(TlsConnector::from(Arc::new(config)).connect(name, stream).await?, request).await
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Response<Bytes>, HttpError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = http1::Builder::new();
    builder.max_buf_size(LONGEST_HEAD);
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
    let mut answer = pin!(async {
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, LONGEST).collect().await.map_err(HttpError::Body)?;
        Ok(Response::from_parts(head, body.to_bytes()))
    });
    tokio::select! {
        answer = &mut answer => return answer,
        // Its end may come before the answer is put together.
        ended = connection => ended?,
    }
    answer.await
}
