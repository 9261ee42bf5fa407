//! Accepting clients, and what becomes of them.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    net::TcpStream,
    sync::{Semaphore, oneshot},
};

use super::sockets::{Listener, ListeningSocket, SocketFile};
use crate::{
    admin::{
        self,
        commands::{Accepting, Commands},
    },
    client::{
        LoggedIn,
        login::{Accepted, CancelRequest, LoginContext, Opened, login},
        startup::Replication,
    },
    config::PoolMode,
    pool::registry::{credentials, proved},
    server::{self, Keepalive},
    worker::{
        message::Message,
        process::{Arriving, Process},
    },
};

/// Cancel requests that are passed on at the same time; more wait.
static CANCELS: Semaphore = Semaphore::const_new(128);

/// How long a socket is accepted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    /// As long as the process takes clients.
    Closed,
    /// Until it ends, so that the console can be reached, or another process does it.
    HandedOver,
    /// Until it ends, in any case.
    End,
}

/// Accepts for as long as it should.
pub(super) async fn accept_loop(
    listener: Arc<Listener>,
    file: Option<SocketFile>,
    until: Until,
    process: Arc<Process>,
    commands: Arc<Commands>,
) {
    let mut accepting = commands.accepting();
    let mut trouble = None;
    let stays = until != Until::Closed;
    let is_over = |accepting: &Accepting| match until {
        Until::Closed => *accepting != Accepting::Here,
        Until::HandedOver => *accepting == Accepting::Elsewhere,
        Until::End => false,
    };
    // A shutdown waits for those who have come before it.
    let arriving = (!stays).then(|| process.arriving());
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener.socket, &process) => accepted,
            _ = accepting.wait_for(is_over) => break,
        };
        match accepted {
            Ok(accepted) => {
                if let Some(since) = trouble.take() {
                    say_it_is_over(since);
                }
                if let Some(accepted) = accepted {
                    let late = stays && commands.is_shutting_down();
                    let arriving = (!late).then(|| process.arriving());
                    tokio::spawn(open(accepted, arriving, Arc::clone(&process), Arc::clone(&commands)));
                }
            }
            Err(error) if concerns_one_connection(&error) => {}
            Err(error) => {
                // Out of descriptors, most likely: spinning would make it worse, and the log is not for each try.
                if trouble.is_none() {
                    tracing::error!("cannot accept clients: {error}; trying again every 100 ms");
                    trouble = Some(Instant::now());
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    if *accepting.borrow() == Accepting::Elsewhere {
        if let Some(file) = file {
            file.leave();
        }
    } else if !listener.shared {
        for accepted in left(&listener, &process) {
            let arriving = Some(process.arriving());
            tokio::spawn(open(accepted, arriving, Arc::clone(&process), Arc::clone(&commands)));
        }
    }
    drop(arriving);
}

/// The next connection; `None`: it was over before it began.
async fn accept(socket: &ListeningSocket, process: &Process) -> io::Result<Option<Accepted>> {
    match socket {
        ListeningSocket::Tcp(listener) => {
            let (socket, peer) = listener.accept().await?;
            Ok(accepted(socket, peer, process))
        }
        ListeningSocket::Unix(listener) => Ok(Accepted::unix(listener.accept().await?.0).ok()),
    }
}

fn accepted(socket: TcpStream, peer: std::net::SocketAddr, process: &Process) -> Option<Accepted> {
    // Fails for who has left again already: the login will see that.
    let _ = Keepalive::of(&process.config().settings).apply(&socket);
    Accepted::tcp(socket, peer).ok()
}

/// Who is connected already when the socket is to be closed: the kernel would reset them.
fn left(listener: &Listener, process: &Process) -> Vec<Accepted> {
    let ListeningSocket::Tcp(_) = listener.socket else { return Vec::new() };
    let Ok(socket) = listener.duplicate().map(std::net::TcpListener::from) else { return Vec::new() };
    let mut left = Vec::new();
    loop {
        match socket.accept() {
            Ok((stream, peer)) => {
                let stream = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
                left.extend(stream.ok().and_then(|stream| accepted(stream, peer, process)));
            }
            Err(error) if concerns_one_connection(&error) => {}
            Err(_) => return left,
        }
    }
}

fn say_it_is_over(since: Instant) {
    tracing::info!("accepting clients again, after {:.1} s", since.elapsed().as_secs_f32());
}

/// accept(2) also tells of errors of the connection that it would have returned; the next one may be fine.
fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionReset, HostUnreachable, Interrupted, NetworkDown, NetworkUnreachable,
    };
    matches!(
        error.kind(),
        ConnectionAborted
            | ConnectionReset
            | HostUnreachable
            | Interrupted
            | NetworkDown
            | NetworkUnreachable
    )
}

/// Takes one connection through its login and hands it on. Who comes when the process shuts down (`arriving` is `None`)
/// gets no further than to the console.
async fn open(
    accepted: Accepted,
    arriving: Option<Arriving>,
    process: Arc<Process>,
    commands: Arc<Commands>,
) {
    let live = process.live();
    let context = LoginContext {
        config: live.config,
        tls: live.client_tls,
        server_tls: live.server_tls,
        shared: Arc::clone(&process.logins),
    };
    match login(accepted, &context).await {
        Ok(Opened::LoggedIn(client)) => {
            if let Some(database) = &client.database {
                process.nodes_were_looked_for(database).await;
            }
            hand_on(client, arriving.is_none(), &process, &commands).await;
        }
        Ok(Opened::Cancel(request)) => cancel(&request, &process).await,
        // The client has been told, and the log too.
        Err(_) => {}
    }
    // Only now: it counts where it is.
    drop(arriving);
}

async fn hand_on(client: Box<LoggedIn>, late: bool, process: &Arc<Process>, commands: &Arc<Commands>) {
    tracing::debug!(database = client.database_name, user = client.user, "client has proved who it is");
    let Some(database) = &client.database else {
        let Some(worker) = process.place(false) else { return };
        let console = admin::open(Arc::clone(commands), &client);
        return worker.send(Message::Console { login: client, console });
    };
    let pool = process.pool(database, &client.user_config);
    if let Some(credentials) = proved(client.password.as_ref(), client.scram_keys.as_ref())
        .or_else(|| client.looked_up.as_ref().map(credentials))
        && database.user.is_none()
    {
        pool.offer_credentials(&credentials);
    }
    let replicates = client.replication != Replication::None;
    if !replicates || pool.seat.is_some() {
        process.watch(&pool);
    }
    if !replicates {
        process.functions_were_looked_at(&pool).await;
    }
    let moves = pool.settings().mode != PoolMode::Session && !replicates;
    let Some(worker) = process.place(moves) else { return };
    worker.send(Message::Client { login: client, pool, late });
}

/// Passes a cancel request on. The client's connection stays open until the server has seen it.
async fn cancel(request: &CancelRequest, process: &Process) {
    let Some((key, place)) = process.find(&request.key) else {
        return process.pass_on(&request.key).await;
    };
    let Ok(_permit) = CANCELS.acquire().await else { return };
    let Some(worker) = process.workers.get(place.worker) else { return };
    let (reply, job) = oneshot::channel();
    worker.send(Message::Cancel { key, reply });
    let Ok(Some(job)) = job.await else { return };
    let limit = process.config().settings.cancel_wait_timeout;
    let sent = server::cancel(&job.target, &job.key, limit).await;
    if let Err(error) = &sent {
        tracing::warn!("cancel request failed: {error}");
    }
    if let Some(worker) = process.workers.get(job.server.worker) {
        worker.send(Message::CancelDone { server: job.server, lost: sent.is_err() });
    }
}
