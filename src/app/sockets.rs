//! Listening sockets: those that the settings name, and those that systemd has opened.

use std::{
    io,
    net::SocketAddr,
    os::{
        fd::{AsFd as _, FromRawFd as _, OwnedFd, RawFd},
        unix::fs::{FileTypeExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
};

use nix::unistd::Group;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, UnixListener};

use crate::config::Settings;

/// The first descriptor that systemd passes on (SD_LISTEN_FDS_START).
const FIRST_PASSED: RawFd = 3;

/// One listening socket.
pub(super) struct Listener {
    pub(super) socket: ListeningSocket,
    /// For the log.
    pub(super) name: String,
    /// Somebody else accepts on it, too, or will: what is not accepted here is not lost.
    pub(super) shared: bool,
    /// To be removed at the end.
    pub(super) file: Option<SocketFile>,
}

pub(super) enum ListeningSocket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// The file of a unix socket; removed at the end.
pub(super) struct SocketFile(PathBuf);

impl SocketFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// It is somebody else's from now on.
    pub(super) fn leave(mut self) {
        self.0.clear();
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Somebody else may have removed it, or have it now.
        if !self.0.as_os_str().is_empty() {
            let _ = std::fs::remove_file(&self.0);
        }
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

/// Opens everything that the settings name and that is not open already.
pub(super) async fn bind(settings: &Settings, mut open: Vec<Listener>) -> Result<Vec<Listener>, BindError> {
    let mut listeners = Vec::new();
    for host in &settings.listen_addr {
        listeners.append(&mut bind_host(host, settings, &mut open).await?);
    }
    if let Some(path) = socket_path(settings) {
        listeners.push(match take_out(&path.display().to_string(), &mut open) {
            Some(listener) => listener,
            None => bind_unix(&path, settings)?,
        });
    }
    for listener in open {
        tracing::info!("listening on {} no more", listener.name);
    }
    Ok(listeners)
}

fn take_out(name: &str, open: &mut Vec<Listener>) -> Option<Listener> {
    let at = open.iter().position(|listener| listener.name == name)?;
    Some(open.swap_remove(at))
}

/// One entry of listen_addr. Of several addresses it is enough that there are some: machines without IPv6 have only
/// one of those of `localhost` and `*`.
async fn bind_host(
    host: &str,
    settings: &Settings,
    open: &mut Vec<Listener>,
) -> Result<Vec<Listener>, BindError> {
    let (mut listeners, mut missing) = (Vec::new(), None);
    for address in resolve(host, settings.listen_port).await? {
        let name = address.to_string();
        if let Some(listener) = take_out(&name, open) {
            listeners.push(listener);
            continue;
        }
        match bind_tcp(address, settings) {
            Ok(listener) => listeners.push(Listener::own(ListeningSocket::Tcp(listener), name, None)),
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
pub(super) fn is_in_use(settings: &Settings) -> bool {
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

pub(super) fn bind_unix(path: &Path, settings: &Settings) -> Result<Listener, BindError> {
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
    Ok(Listener::own(ListeningSocket::Unix(listener), name, Some(file)))
}

impl Listener {
    /// The process that has opened it is gone: its file, if it has one, is this one's.
    pub(super) fn take_file(&mut self) {
        if matches!(self.socket, ListeningSocket::Unix(_)) && !self.shared && self.file.is_none() {
            self.file = Some(SocketFile(PathBuf::from(&self.name)));
        }
    }

    /// Another descriptor of the socket.
    pub(super) fn duplicate(&self) -> io::Result<OwnedFd> {
        match &self.socket {
            ListeningSocket::Tcp(socket) => socket.as_fd().try_clone_to_owned(),
            ListeningSocket::Unix(socket) => socket.as_fd().try_clone_to_owned(),
        }
    }

    fn own(socket: ListeningSocket, name: String, file: Option<SocketFile>) -> Self {
        Self { socket, name, shared: false, file }
    }

    /// One that somebody else has opened.
    fn passed(descriptor: OwnedFd) -> io::Result<Self> {
        let socket = Socket::from(descriptor);
        if socket.r#type()? != Type::STREAM || !socket.is_listener()? {
            return Err(io::Error::other("it is no stream socket that is listened on"));
        }
        socket.set_cloexec(true)?;
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?;
        let (socket, name) = match (address.as_socket(), address.as_pathname()) {
            (Some(address), _) => {
                (ListeningSocket::Tcp(TcpListener::from_std(socket.into())?), address.to_string())
            }
            (None, path) => {
                let name =
                    path.map_or("an abstract unix socket".to_owned(), |path| path.display().to_string());
                (ListeningSocket::Unix(UnixListener::from_std(socket.into())?), name)
            }
        };
        Ok(Self { socket, name, shared: true, file: None })
    }
}

/// Sockets that systemd has opened for this process (sd_listen_fds(3)). To be asked for once, before there are others.
pub(super) fn passed_by_systemd() -> Vec<OwnedFd> {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
    if number("LISTEN_PID") != Some(std::process::id()) {
        return Vec::new();
    }
    let count = number("LISTEN_FDS").and_then(|count| RawFd::try_from(count).ok()).unwrap_or(0);
    let is_open = |fd: &RawFd| Path::new("/proc/self/fd").join(fd.to_string()).symlink_metadata().is_ok();
    // SAFETY: systemd has opened them for this process, and nobody has taken them yet.
    #[allow(unsafe_code)]
    let own = |fd| unsafe { OwnedFd::from_raw_fd(fd) };
    (FIRST_PASSED..FIRST_PASSED.saturating_add(count)).take_while(is_open).map(own).collect()
}

/// Sockets that the process before this one has opened. Their files are still that one's.
pub(super) fn inherit(sockets: Vec<OwnedFd>) -> Result<Vec<Listener>, BindError> {
    let listeners = sockets.into_iter().map(|descriptor| {
        let listener = Listener::passed(descriptor).map(|listener| Listener { shared: false, ..listener });
        listener.map_err(|error| BindError::new("a socket of the old process", error))
    });
    listeners.collect()
}

/// Accepts on sockets that systemd has opened, whatever the settings say.
pub(super) fn take(passed: Vec<OwnedFd>) -> Result<Vec<Listener>, BindError> {
    let listeners = passed.into_iter().map(|descriptor| {
        Listener::passed(descriptor).map_err(|error| BindError::new("a socket passed by systemd", error))
    });
    listeners.collect()
}
