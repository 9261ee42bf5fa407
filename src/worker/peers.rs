//! Other processes that clients may reach by the same address: a cancel request for one of their clients goes to the peer
//! that has made its key.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::Semaphore;

use crate::{
    config::{At, Config, Peer},
    net::tls::ServerTls,
    protocol::{BackendKeyData, peering},
    server::{ConnectError, Keepalive, PeerConnection, ServerAddress},
};

/// The peers that requests have been passed on to.
#[derive(Debug, Default)]
pub(crate) struct Peers(Mutex<BTreeMap<u16, Arc<PeerPool>>>);

/// Requests on their way to one peer.
#[derive(Debug)]
pub(crate) struct PeerPool {
    peer: Peer,
    /// As many as may be on their way.
    size: usize,
    places: Semaphore,
    /// Have no connection yet.
    pub(crate) waiting: AtomicUsize,
    pub(crate) connecting: AtomicUsize,
    /// Have been sent; the peer has not said yet that it has seen to them.
    pub(crate) sent: AtomicUsize,
}

/// Counts one more for as long as it lives.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn new(counter: &'a AtomicUsize) -> Self {
        counter.fetch_add(1, Ordering::Relaxed);
        Self(counter)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Peers {
    /// The other process that may have made a key.
    pub(crate) fn maker<'c>(&self, key: &BackendKeyData, config: &'c Config) -> Option<&'c Peer> {
        let id = peering::peer_of(key);
        let own = config.settings.peer_id;
        if own == 0 || own == id { None } else { config.peers.get(&id) }
    }

    /// Passes a request on that is for no client of this process, if there is somebody who may know its key. Ends when
    /// that one has seen to it.
    pub(crate) async fn pass_on(&self, key: &BackendKeyData, config: &Config, tls: &Arc<ServerTls>) {
        let Some(peer) = self.maker(key, config) else { return };
        let id = peer.id;
        let Some(key) = peering::passed_on(key) else {
            tracing::warn!(
                "a cancel request for peer {id} has been passed on too often: see peer_id and peers"
            );
            return;
        };
        let pool = self.pool(peer, config);
        let limit = config.settings.cancel_wait_timeout;
        let passed = pool.pass_on(&key, config, tls);
        let failed = if limit.is_zero() {
            passed.await.err()
        } else {
            match tokio::time::timeout(limit, passed).await {
                Ok(passed) => passed.err(),
                Err(_) => Some(timeout(peer, limit)),
            }
        };
        if let Some(error) = failed {
            tracing::warn!("cancel request for peer {id} failed: {error}");
        }
    }

    fn pool(&self, peer: &Peer, config: &Config) -> Arc<PeerPool> {
        let size = peer.pool_size.unwrap_or(config.settings.default_pool_size);
        let size = match usize::try_from(size) {
            Ok(size) if size > 0 => size,
            _ => Semaphore::MAX_PERMITS,
        };
        let mut pools = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match pools.get(&peer.id).filter(|pool| pool.peer == *peer && pool.size == size) {
            Some(pool) => Arc::clone(pool),
            None => {
                let pool = Arc::new(PeerPool {
                    peer: peer.clone(),
                    size,
                    places: Semaphore::new(size),
                    waiting: AtomicUsize::new(0),
                    connecting: AtomicUsize::new(0),
                    sent: AtomicUsize::new(0),
                });
                pools.insert(peer.id, Arc::clone(&pool));
                pool
            }
        }
    }

    /// Those of the configuration, in the order of their ids.
    pub(crate) fn pools(&self, config: &Config) -> Vec<(u16, Arc<PeerPool>)> {
        let pools = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = pools.iter().filter(|(id, _)| config.peers.contains_key(id));
        known.map(|(id, pool)| (*id, Arc::clone(pool))).collect()
    }
}

fn timeout(peer: &Peer, limit: Duration) -> ConnectError {
    ConnectError::Timeout { target: format!("{}:{}", peer.host, peer.port), limit }
}

impl PeerPool {
    async fn pass_on(
        &self,
        key: &BackendKeyData,
        config: &Config,
        tls: &Arc<ServerTls>,
    ) -> Result<(), ConnectError> {
        let waiting = Counted::new(&self.waiting);
        // Never closed.
        let Ok(_place) = self.places.acquire().await else { return Ok(()) };
        let connecting = Counted::new(&self.connecting);
        let address = ServerAddress {
            host: self.peer.host.clone(),
            port: self.peer.port,
            at: At::Any,
            names: None,
            sslmode: config.settings.server_tls_sslmode,
            tls: Arc::clone(tls),
            keepalive: Keepalive::of(&config.settings),
        };
        let connection = PeerConnection::open(&address, config.settings.server_connect_timeout).await?;
        drop((waiting, connecting));
        let _sent = Counted::new(&self.sent);
        connection.cancel(key).await
    }
}
