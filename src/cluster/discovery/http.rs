//! One GET by HTTP, as the REST API of Patroni is asked.

use http_body_util::Full;
use hyper::{Request, StatusCode, body::Bytes};

use crate::{
    config::PatroniApi,
    net::{
        http::{HttpError, Place, ask},
        tls::ServerTls,
    },
};

/// The body of the answer.
pub(super) async fn get(api: &PatroniApi, path: &str, tls: &ServerTls) -> Result<Bytes, HttpError> {
    let place = Place { https: api.https, host: &api.host, port: api.port };
    let answer = ask(place, Request::get(path).body(Full::default())?, tls).await?;
    if answer.status() != StatusCode::OK {
        return Err(HttpError::Status(answer.status()));
    }
    Ok(answer.into_body())
}
