//! Cancelling the query of a server connection.
//!
//! The request goes to the address that the connection goes to (a name may have others), and under TLS if
//! the connection is: the key must not travel in clear text then. Source: PostgreSQL docs, "Canceling Requests in
//! Progress".

use std::{path::Path, time::Duration};

use super::{
    ConnectError, Keepalive, ServerAddress,
    connect::{TlsParts, bounded, open_as_peer},
    wire::{Endpoint, TlsAnswer, Wire},
};
use crate::protocol::{BackendKeyData, encode};

/// Where to send the cancel request of a server connection.
#[derive(Clone, Debug)]
pub struct CancelTarget {
    pub(super) endpoint: Endpoint,
    pub(super) tls: Option<TlsParts>,
    pub(super) keepalive: Keepalive,
}

/// A cancel request that could not be delivered, or of which nobody knows whether it was.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CancelError {
    /// The server sent no key.
    #[error("the server gave no key to cancel with")]
    NoKey,
    #[error("cancel request failed: {0}")]
    Connect(#[from] ConnectError),
}

/// Sends CancelRequest and waits until the server closes the connection: then it has sent the signal, and a
/// query sent later cannot be hit by it.
pub async fn cancel(
    target: &CancelTarget,
    key: &BackendKeyData,
    timeout: Duration,
) -> Result<(), CancelError> {
    if key.secret.is_empty() {
        return Err(CancelError::NoKey);
    }
    let name = || target.endpoint.to_string();
    bounded(timeout, name, Box::pin(send(target, key))).await?;
    Ok(())
}

/// A connection to another pooler, for a cancel request that is for one of its clients.
pub struct PeerConnection(Wire);

impl PeerConnection {
    /// Connects, with TLS as to servers.
    pub async fn open(address: &ServerAddress, timeout: Duration) -> Result<Self, ConnectError> {
        let target = || format!("{}:{}", address.host, address.port);
        bounded(timeout, target, Box::pin(open_as_peer(address))).await.map(Self)
    }

    /// Connects to a unix socket.
    pub async fn at(path: &Path, timeout: Duration) -> Result<Self, ConnectError> {
        let open =
            Box::pin(async { Wire::open(Endpoint::Unix(path.to_owned()), &Keepalive::default()).await });
        bounded(timeout, || path.display().to_string(), open).await.map(Self)
    }

    /// Sends the request and waits until the peer closes the connection: then it has seen to it.
    pub async fn cancel(self, key: &BackendKeyData) -> Result<(), ConnectError> {
        request(self.0, key).await
    }
}

async fn send(target: &CancelTarget, key: &BackendKeyData) -> Result<(), ConnectError> {
    let mut wire = Wire::open(target.endpoint.clone(), &target.keepalive).await?;
    if let Some((config, name)) = &target.tls {
        let TlsAnswer::Willing = wire.request_tls().await? else { return Err(ConnectError::TlsRefused) };
        wire = wire.start_tls(config.clone(), name.clone()).await?;
    }
    request(wire, key).await
}

async fn request(mut wire: Wire, key: &BackendKeyData) -> Result<(), ConnectError> {
    let mut request = Vec::new();
    encode::cancel_request(&mut request, key);
    wire.send(&request).await?;
    wire.drain().await;
    Ok(())
}
