//! Listening sockets, and what becomes of what they accept.

use std::{
    io,
    net::SocketAddr,
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use nix::unistd::Group;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::{TcpListener, UnixListener},
    sync::{Semaphore, oneshot},
};

use crate::{
    admin::{self, commands::Commands},
    client::{
        LoggedIn,
        login::{Accepted, CancelRequest, LoginContext, Opened, login},
        startup::Replication,
    },
    config::{PoolMode, Settings},
    pool::registry::{credentials, proved},
    server::{self, Keepalive},
    worker::{message::Message, process::Process},
};

/// Cancel requests that are passed on at the same time; more wait.
static CANCELS: Semaphore = Semaphore::const_new(128);

/// One listening socket.
pub(super) enum Listener {
    Tcp(TcpListener, String),
    Unix(UnixListener, SocketFile),
}

/// The file of a unix socket; removed at the end.
pub(super) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Somebody else may have removed it.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A socket that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {name}: {source}{remedy}")]
pub(super) struct BindError {
    name: String,
    source: io::Error,
    remedy: &'static str,
}

impl BindError {
    fn new(name: &str, source: io::Error) -> Self {
        let remedy = match source.kind() {
            io::ErrorKind::AddrInUse => " (another process listens there: stop it, or change listen_port)",
            io::ErrorKind::AddrNotAvailable => " (no such address on this machine: see listen_addr)",
            io::ErrorKind::PermissionDenied => " (no permission: see listen_port, unix_socket_dir)",
            _ => "",
        };
        Self { name: name.to_owned(), source, remedy }
    }
}

/// Opens everything that the settings name.
pub(super) async fn bind(settings: &Settings) -> Result<Vec<Listener>, BindError> {
    let mut listeners = Vec::new();
    for host in &settings.listen_addr {
        listeners.append(&mut bind_host(host, settings).await?);
    }
    if let Some(path) = socket_path(settings) {
        listeners.push(bind_unix(&path, settings)?);
    }
    Ok(listeners)
}

/// One entry of listen_addr. Of several addresses it is enough that there are some: machines without IPv6 have only
/// one of those of `localhost` and `*`.
async fn bind_host(host: &str, settings: &Settings) -> Result<Vec<Listener>, BindError> {
    let (mut listeners, mut missing) = (Vec::new(), None);
    for address in resolve(host, settings.listen_port).await? {
        let name = address.to_string();
        match bind_tcp(address, settings) {
            Ok(listener) => listeners.push(Listener::Tcp(listener, name)),
            Err(error) if is_missing(&error) => {
                tracing::warn!("cannot listen on {name}: {error}");
                missing = Some(BindError::new(&name, error));
            }
            Err(error) => return Err(BindError::new(&name, error)),
        }
    }
    match missing {
        Some(error) if listeners.is_empty() => Err(error),
        _ => Ok(listeners),
    }
}

/// The machine has no such address.
fn is_missing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(libc::EAFNOSUPPORT)
}

fn socket_path(settings: &Settings) -> Option<PathBuf> {
    let directory = settings.unix_socket_dir.as_ref()?;
    Some(directory.join(format!(".s.PGSQL.{}", settings.listen_port)))
}

/// Somebody answers on the unix socket.
pub(super) fn is_socket_in_use(settings: &Settings) -> bool {
    socket_path(settings).is_some_and(|path| path.exists() && !is_left_behind(&path))
}

/// The process that made the socket is gone. Who may not connect cannot know.
fn is_left_behind(path: &Path) -> bool {
    let connected = std::os::unix::net::UnixStream::connect(path);
    connected.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, BindError> {
    if host == "*" {
        return Ok(vec![SocketAddr::from(([0, 0, 0, 0], port)), SocketAddr::from(([0; 8], port))]);
    }
    let found = tokio::net::lookup_host((host, port)).await.map_err(|e| BindError::new(host, e))?;
    Ok(found.collect())
}

fn bind_tcp(address: SocketAddr, settings: &Settings) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // IPv4 has a socket of its own.
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    if settings.so_reuseport {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(settings.listen_backlog).unwrap_or(i32::MAX))?;
    TcpListener::from_std(socket.into())
}

fn bind_unix(path: &Path, settings: &Settings) -> Result<Listener, BindError> {
    let name = path.display().to_string();
    let fail = |e| BindError::new(&name, e);
    if std::fs::metadata(path).is_ok_and(|m| m.file_type().is_socket()) {
        if !is_left_behind(path) {
            return Err(fail(io::ErrorKind::AddrInUse.into()));
        }
        // Left behind by a process that was killed.
        std::fs::remove_file(path).map_err(fail)?;
    }
    let listener = UnixListener::bind(path).map_err(fail)?;
    let file = SocketFile(path.to_owned());
    let mode = std::fs::Permissions::from_mode(settings.unix_socket_mode);
    std::fs::set_permissions(path, mode).map_err(fail)?;
    if !settings.unix_socket_group.is_empty() {
        let group = Group::from_name(&settings.unix_socket_group).ok().flatten().map(|group| group.gid);
        let group = group
            .ok_or_else(|| fail(io::Error::other("there is no such group as unix_socket_group names")))?;
        std::os::unix::fs::chown(path, None, Some(group.as_raw())).map_err(fail)?;
    }
    Ok(Listener::Unix(listener, file))
}

impl Listener {
    /// For the log.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Tcp(_, name) => name.clone(),
            Self::Unix(_, file) => file.0.display().to_string(),
        }
    }

    /// The next connection; `None`: it was over before it began.
    async fn accept(&self, process: &Process) -> io::Result<Option<Accepted>> {
        match self {
            Self::Tcp(listener, _) => {
                let (socket, peer) = listener.accept().await?;
                // Fails for who has left again already: the login will see that.
                let _ = Keepalive::of(&process.config().settings).apply(&socket);
                Ok(Accepted::tcp(socket, peer).ok())
            }
            Self::Unix(listener, _) => Ok(Accepted::unix(listener.accept().await?.0).ok()),
        }
    }

    /// Accepts until the process shuts down; on a unix socket until it ends, so that the console can be reached.
    pub(super) async fn accept_loop(self, process: Arc<Process>, commands: Arc<Commands>) {
        let mut closing = commands.closing();
        let mut trouble = None;
        let stays = matches!(self, Self::Unix(..));
        loop {
            let accepted = tokio::select! {
                accepted = self.accept(&process) => accepted,
                _ = closing.wait_for(|closed| *closed), if !stays => return,
            };
            match accepted {
                Ok(accepted) => {
                    if let Some(since) = trouble.take() {
                        say_it_is_over(since);
                    }
                    if let Some(accepted) = accepted {
                        tokio::spawn(open(accepted, Arc::clone(&process), Arc::clone(&commands)));
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

/// Takes one connection through its login and hands it on.
async fn open(accepted: Accepted, process: Arc<Process>, commands: Arc<Commands>) {
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
            hand_on(client, &process, &commands).await;
        }
        Ok(Opened::Cancel(request)) => cancel(&request, &process).await,
        // The client has been told, and the log too.
        Err(_) => {}
    }
}

async fn hand_on(client: Box<LoggedIn>, process: &Arc<Process>, commands: &Arc<Commands>) {
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
    worker.send(Message::Client { login: client, pool });
}

/// Passes a cancel request on. The client's connection stays open until the server has seen it.
async fn cancel(request: &CancelRequest, process: &Process) {
    let Ok(_permit) = CANCELS.acquire().await else { return };
    let Some(place) = process.directory.get(request.key.pid) else { return };
    let Some(worker) = process.workers.get(place.worker) else { return };
    let (reply, job) = oneshot::channel();
    worker.send(Message::Cancel { key: request.key.clone(), reply });
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
