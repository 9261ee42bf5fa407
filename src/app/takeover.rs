//! A restart in which the new process takes the place of the old one: listening sockets pass from one to the other, so
//! that nobody is ever refused, and the old process serves those who stay with it until they leave.
//!
//! Beside its unix socket each process listens on another one, for its successor alone: of the same user, or root.
//!
//! ```text
//! new: Take               old: Sockets, with their descriptors: both may accept now
//!      Go (it can serve)       accepts no more, has no pid file and no place any more, Gone
//!      Answer, to each         Client, with its socket, one after the other as they are between transactions
//!      …                       waits for those who stay, as after SIGTERM
//! ```
//! What ends in between changes nothing for the other side before Go, and is the new one's matter behind it. A client of
//! which nobody knows whether it has been taken is served by the old process no more. Cancel
//! requests that the new process knows no client for go to a unix socket that the old one opens for them when it goes.

use std::{
    io::{self, IoSlice, IoSliceMut, Read as _, Write as _},
    mem::MaybeUninit,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::{fs::PermissionsExt as _, net::UnixStream},
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use nix::unistd::Uid;
use rustix::io::retry_on_intr;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg, sockopt::socket_peercred,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{net::UnixListener, sync::mpsc::UnboundedReceiver};

use super::sockets::SocketFile;
use crate::{
    config::{PeerAddr, Settings},
    events::Kind,
    net::{Socket, Stream},
    worker::{
        departure::{self, Departing, Parcel},
        process::Process,
    },
};

/// What both sides have to speak. Goes up when an older process would not understand.
const LANGUAGE: u32 = 1;
/// Descriptors that one message may carry (SCM_MAX_FD).
const MOST_DESCRIPTORS: usize = 253;
/// Longest message.
const LONGEST: usize = 64 << 20;
/// How long one side waits for the other.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the new process says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Heir {
    Take { language: u32 },
    Go { pid: u32 },
    Answer { taken: bool },
}

/// What the old process says.
#[derive(Serialize, Deserialize)]
pub(super) enum Elder {
    /// So many descriptors of listening sockets come with it.
    Sockets {
        pid: u32,
    },
    Refused {
        why: String,
    },
    /// Cancel requests for its clients reach it there.
    Gone {
        cancels: Option<PathBuf>,
        /// Databases that take no new clients.
        #[serde(default)]
        disabled: Vec<String>,
    },
    Client(Box<Parcel>),
}

/// As `Elder::Client`.
#[derive(Serialize)]
struct Offer<'a> {
    #[serde(rename = "Client")]
    parcel: &'a Parcel,
}

/// Why nothing is taken over.
#[derive(Debug, thiserror::Error)]
pub(super) enum TakeoverError {
    #[error("cannot take over from the old process: {0}")]
    Io(#[from] io::Error),
    #[error("cannot take over from the old process: {0}")]
    Refused(String),
    #[error("a takeover needs unix_socket_dir: the old process is found there")]
    NoDirectory,
}

/// Where a process is asked by its successor.
fn path_of(settings: &Settings) -> Option<PathBuf> {
    let directory = settings.unix_socket_dir.as_ref()?;
    Some(directory.join(format!(".s.POOLER.{}", settings.listen_port)))
}

/// Where the process with this number can be reached when its place is another one's.
pub(super) fn old_socket(settings: &Settings, pid: u32) -> Option<PathBuf> {
    let directory = settings.unix_socket_dir.as_ref()?;
    Some(directory.join(format!(".s.PGSQL.{}.{pid}", settings.listen_port)))
}

/// Opens the socket for a successor. Without one the process serves all the same.
pub(super) fn listen(settings: &Settings) -> Option<(UnixListener, SocketFile)> {
    let path = path_of(settings)?;
    let open = || {
        if std::os::unix::net::UnixStream::connect(&path)
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
        {
            // Left behind by a process that was killed.
            std::fs::remove_file(&path)?;
        }
        let listener = UnixListener::bind(&path)?;
        let file = SocketFile::new(path.clone());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        Ok((listener, file))
    };
    let opened: io::Result<_> = open();
    opened
        .inspect_err(|error| tracing::warn!("no successor can take over, at {}: {error}", path.display()))
        .ok()
}

/// A connection between the two.
pub(super) struct Line(UnixStream);

impl Line {
    /// From the socket of [`listen`]; `None`: whoever it is, it may not ask.
    pub(super) fn accepted(stream: tokio::net::UnixStream) -> Option<Self> {
        let uid = stream.peer_cred().ok()?.uid();
        if !is_own(uid) {
            tracing::warn!("user {uid} may not take over this process");
            return None;
        }
        let stream = stream.into_std().ok()?;
        stream.set_nonblocking(false).ok()?;
        Self::new(stream).ok()
    }

    fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self(stream))
    }

    /// Sends a message with descriptors.
    pub(super) fn send(
        &mut self,
        message: &impl Serialize,
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        let body = serde_json::to_vec(message)?;
        if body.len() > LONGEST {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let length = u32::try_from(body.len()).map_err(io::Error::other)?.to_be_bytes();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(io::Error::other("too many descriptors"));
        }
        let sent = retry_on_intr(|| {
            sendmsg(&self.0, &[IoSlice::new(&length)], &mut ancillary, SendFlags::NOSIGNAL)
        })?;
        self.0.write_all(length.get(sent..).unwrap_or_default())?;
        self.0.write_all(&body)
    }

    /// The next message and what comes with it; `None`: the other side has ended.
    pub(super) fn receive<T: DeserializeOwned>(&mut self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        let mut length = [0; 4];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = retry_on_intr(|| {
            let mut parts = [IoSliceMut::new(&mut length)];
            recvmsg(&self.0, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC)
        })?;
        let mut descriptors = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                descriptors.extend(rights);
            }
        }
        if received.bytes == 0 {
            return Ok(None);
        }
        if received.flags.contains(ReturnFlags::CTRUNC) {
            return Err(io::Error::other("descriptors have been lost"));
        }
        self.0.read_exact(length.get_mut(received.bytes..).unwrap_or_default())?;
        let length = usize::try_from(u32::from_be_bytes(length)).map_err(io::Error::other)?;
        if length > LONGEST {
            return Err(io::Error::other("message too long"));
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body)?;
        Ok(Some((serde_json::from_slice(&body)?, descriptors)))
    }
}

/// What a process has been given by the one before it.
pub(super) struct Heritage {
    line: Line,
    /// Listening sockets.
    pub(super) sockets: Vec<OwnedFd>,
}

/// Asks the process that runs for its sockets; `None`: there is none.
pub(super) fn ask(settings: &Settings) -> Result<Option<Heritage>, TakeoverError> {
    let path = path_of(settings).ok_or(TakeoverError::NoDirectory)?;
    let stream = match UnixStream::connect(&path) {
        Ok(stream) => stream,
        Err(error) if is_nobody(&error) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    // Anybody may have taken the name, where all may write.
    if !is_own(socket_peercred(&stream).map_err(io::Error::from)?.uid.as_raw()) {
        return Err(TakeoverError::Refused("it is another user's".to_owned()));
    }
    let mut line = Line::new(stream)?;
    line.send(&Heir::Take { language: LANGUAGE }, &[])?;
    match line.receive()? {
        Some((Elder::Sockets { pid }, sockets)) if !sockets.is_empty() => {
            tracing::info!("taking over {} sockets from process {pid}", sockets.len());
            Ok(Some(Heritage { line, sockets }))
        }
        Some((Elder::Refused { why }, _)) => Err(TakeoverError::Refused(why)),
        _ => Err(TakeoverError::Refused("it has given no sockets".to_owned())),
    }
}

/// The same user, or root.
fn is_own(uid: u32) -> bool {
    uid == 0 || uid == Uid::effective().as_raw()
}

fn is_nobody(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

/// What a process leaves that has gone.
pub(super) struct Legacy {
    /// Where cancel requests for its clients reach it.
    pub(super) cancels: Option<PathBuf>,
    /// Databases that take no new clients.
    pub(super) disabled: Vec<String>,
    /// Its clients come this way.
    pub(super) line: Line,
}

impl Heritage {
    /// Tells the old process to go, which accepts nobody any more then.
    pub(super) fn go(mut self) -> Result<Legacy, TakeoverError> {
        self.line.send(&Heir::Go { pid: std::process::id() }, &[])?;
        match self.line.receive()? {
            Some((Elder::Gone { cancels, disabled }, _)) => Ok(Legacy { cancels, disabled, line: self.line }),
            Some((Elder::Refused { why }, _)) => Err(TakeoverError::Refused(why)),
            _ => Err(TakeoverError::Refused("it does not go".to_owned())),
        }
    }
}

/// Answers a successor until it says that it can serve; its process. `None`: it has given up, or may not.
pub(super) fn answer(
    line: &mut Line,
    sockets: &[OwnedFd],
    refusal: Option<&'static str>,
) -> io::Result<Option<u32>> {
    let Some((Heir::Take { language }, _)) = line.receive()? else { return Ok(None) };
    let other = || format!("it speaks version {LANGUAGE} of the takeover, not {language}");
    if let Some(why) = refusal.map(str::to_owned).or_else(|| (language != LANGUAGE).then(other)) {
        line.send(&Elder::Refused { why }, &[])?;
        return Ok(None);
    }
    let sockets: Vec<_> = sockets.iter().map(|socket| socket.as_fd()).collect();
    line.send(&Elder::Sockets { pid: std::process::id() }, &sockets)?;
    match line.receive()? {
        Some((Heir::Go { pid }, _)) => Ok(Some(pid)),
        _ => Ok(None),
    }
}

/// Gives clients to the successor, until it takes no more.
pub(super) fn give(mut line: Line, mut clients: UnboundedReceiver<Departing>, process: &Process) {
    while let Some(client) = clients.blocking_recv() {
        match line.send(&Offer { parcel: &client.parcel }, &[client.socket()]) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                client.stay(process);
                continue;
            }
            Err(_) => {
                // It has not got all of it.
                client.stay(process);
                break;
            }
        }
        match line.receive() {
            Ok(Some((Heir::Answer { taken: true }, _))) => client.gone(process),
            Ok(Some((Heir::Answer { taken: false }, _))) => client.stay(process),
            _ => {
                client.gone(process);
                break;
            }
        }
    }
    tracing::info!("the new process takes no more clients");
    clients.close();
    while let Ok(client) = clients.try_recv() {
        client.stay(process);
    }
}

/// Takes clients from the old process, for as long as that is there.
pub(super) fn receive(mut line: Line, process: &Arc<Process>) {
    let mut taken = 0_u64;
    let ended = line.take_clients(process, &mut taken);
    if let Err(error) = ended {
        tracing::warn!("the old process gives no more clients: {error}");
    }
    let text = format!("{taken} clients have come from the old process");
    process.pools.events.tell(Kind::Takeover, "", &text);
    tracing::info!("{text}");
}

impl Line {
    fn take_clients(&mut self, process: &Arc<Process>, taken: &mut u64) -> io::Result<()> {
        self.0.set_read_timeout(None)?;
        while let Some((Elder::Client(parcel), mut sockets)) = self.receive()? {
            let came = sockets.pop().and_then(|socket| stream_of(socket).ok());
            let arrived = came.and_then(|(stream, peer)| {
                process.runtime.block_on(departure::arrive(*parcel, stream, peer, process))
            });
            *taken += u64::from(arrived.is_some());
            self.send(&Heir::Answer { taken: arrived.is_some() }, &[])?;
        }
        Ok(())
    }
}

/// A client's socket, and who is at its other end.
fn stream_of(socket: OwnedFd) -> io::Result<(Stream, PeerAddr)> {
    let socket = socket2::Socket::from(socket);
    socket.set_nonblocking(true)?;
    let (peer, local) = (socket.peer_addr()?.as_socket(), socket.local_addr()?.as_socket());
    Ok(match (peer, local) {
        (Some(peer), Some(local)) => {
            (Stream { socket: Socket::Tcp(socket.into()), tls: None }, PeerAddr::Tcp { peer, local })
        }
        _ => (
            Stream { socket: Socket::Unix(socket.into()), tls: None },
            PeerAddr::Unix { pid: 0, uid: u32::MAX },
        ),
    })
}

/// A path may be that of a unix socket.
pub(super) fn fits(path: &Path) -> bool {
    path.as_os_str().len() < 108
}
