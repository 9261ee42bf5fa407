//! Where metrics and the status page are to be had: the socket, and how many may ask at the same time.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{net::TcpListener, sync::Semaphore};

use crate::{
    admin::{
        commands::{Accepting, Commands},
        metrics::http::serve,
    },
    config::Endpoint,
};

/// Connections at the same time; more wait.
const MOST: usize = 128;
/// Pause before the next attempt to take the place of the process before, and after a failed accept.
const RETRY: Duration = Duration::from_millis(200);

/// Opens the sockets of an endpoint. Of several addresses it is enough that there are some.
pub(super) async fn bind(endpoint: &Endpoint) -> Result<Vec<TcpListener>, String> {
    let failed = |error: &dyn std::fmt::Display| format!("cannot listen on metrics_addr {endpoint}: {error}");
    let addresses: Vec<SocketAddr> = match endpoint.host.as_str() {
        "*" => vec![([0; 4], endpoint.port).into(), ([0; 8], endpoint.port).into()],
        host => {
            let found = tokio::net::lookup_host((host, endpoint.port)).await;
            found.map_err(|error| failed(&error))?.collect()
        }
    };
    let (mut listeners, mut missing) = (Vec::new(), None);
    for address in addresses {
        match listen(address) {
            Ok(listener) => listeners.push(listener),
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => missing = Some(error),
            Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => missing = Some(error),
            Err(error) => return Err(failed(&error)),
        }
    }
    match missing {
        Some(error) if listeners.is_empty() => Err(failed(&error)),
        _ => Ok(listeners),
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    use socket2::{Domain, Socket, Type};
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(64)?;
    TcpListener::from_std(socket.into())
}

/// Answers on these sockets until the process ends, or another one takes its place.
pub(super) fn answer_on(listeners: Vec<TcpListener>, commands: &Arc<Commands>) {
    let permits = Arc::new(Semaphore::new(MOST));
    for listener in listeners {
        if let Ok(address) = listener.local_addr() {
            tracing::info!("metrics on http://{address}/metrics");
            if commands.process.config().settings.status_page {
                tracing::info!("status page on http://{address}/status");
            }
        }
        tokio::spawn(accept(listener, Arc::clone(&permits), Arc::clone(commands)));
    }
}

/// The same when the process before, whose place this one takes, has left the address.
pub(super) fn inherit(endpoint: Endpoint, commands: &Arc<Commands>) {
    let commands = Arc::clone(commands);
    tokio::spawn(async move {
        let mut told = false;
        loop {
            match bind(&endpoint).await {
                Ok(listeners) => return answer_on(listeners, &commands),
                Err(error) if !told => {
                    tracing::info!("{error}: waiting for the old process to leave it");
                    told = true;
                }
                Err(_) => {}
            }
            tokio::time::sleep(RETRY).await;
        }
    });
}

async fn accept(listener: TcpListener, permits: Arc<Semaphore>, commands: Arc<Commands>) {
    let mut accepting = commands.accepting();
    loop {
        let accepted = async {
            let permit = Arc::clone(&permits).acquire_owned().await.ok();
            listener.accept().await.map(|(stream, from)| (stream, from.ip(), permit))
        };
        let accepted = tokio::select! {
            accepted = accepted => accepted,
            _ = accepting.wait_for(|accepting| *accepting == Accepting::Elsewhere) => return,
        };
        match accepted {
            Ok((stream, from, permit)) => {
                let commands = Arc::clone(&commands);
                tokio::spawn(async move {
                    serve(stream, from, commands).await;
                    drop(permit);
                });
            }
            // Out of descriptors, most likely.
            Err(_) => tokio::time::sleep(RETRY).await,
        }
    }
}
