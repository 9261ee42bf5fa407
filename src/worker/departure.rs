//! Clients that go on in another process, which has taken this one's place: between two transactions, as they would move
//! to another worker.

use std::{
    os::fd::{AsRawFd as _, BorrowedFd},
    sync::{Arc, atomic::Ordering},
};

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::UnboundedSender;

use super::{
    Worker,
    client::{Client, ClientInfo, ClientState, Discarding},
    conn::Conn,
    directory::Place,
    message::Message,
    process::{Arriving, Process, pid_of},
};
use crate::{
    auth::ScramKeys,
    client::{limits::Admission, startup::Replication},
    config::{PeerAddr, PoolMode, User},
    error::Secret,
    net::{Socket, Stream, wire::Wire},
    pool::Pool,
    protocol::BackendKeyData,
    server::Credentials,
    session::{luggage::Luggage, params::Params},
};

/// A client that has left its worker.
pub(crate) struct Departing {
    pub(crate) parcel: Parcel,
    client: Box<Client>,
    pool: Arc<Pool>,
    worker: usize,
    /// A shutdown waits for it.
    _arriving: Arriving,
}

/// What the other process has to know of a client, beside its socket.
#[derive(Serialize, Deserialize)]
pub(crate) struct Parcel {
    database: String,
    user: String,
    pid: u32,
    secret: Vec<u8>,
    mode: u8,
    connected_at: u64,
    /// Process and user at the other end of a unix socket.
    unix: Option<(u32, u32)>,
    credentials: Option<PackedCredentials>,
    session: Luggage,
}

/// What its pool logs in to servers with, if a client has proved it.
#[derive(Serialize, Deserialize)]
enum PackedCredentials {
    Password(String),
    Md5(String),
    Scram { client_key: [u8; 32], server_key: [u8; 32] },
}

/// Those whose clients may move.
const MODES: [PoolMode; 2] = [PoolMode::Transaction, PoolMode::Statement];

impl Worker {
    /// From now on clients that can are given to another process.
    pub(super) fn give_away(&mut self, to: UnboundedSender<Departing>) {
        self.departure = Some(to);
        self.give_idle_away();
    }

    /// Those who do nothing at the moment.
    pub(super) fn give_idle_away(&mut self) {
        if self.departure.is_none() {
            return;
        }
        let slots: Vec<usize> = self.clients.iter().map(|(slot, _)| slot).collect();
        for slot in slots {
            self.depart(slot);
        }
    }

    /// Gives a client away if nothing keeps it. False if it stays.
    pub(super) fn depart(&mut self, slot: usize) -> bool {
        let Some(to) = &self.departure else { return false };
        let Some(client) = self.clients.get_mut(slot).filter(|client| client.may_depart()) else {
            return false;
        };
        let Some(pool) = self.shards.get(client.shard).map(|shard| Arc::clone(&shard.pool)) else {
            return false;
        };
        if pool.seat.is_some() || pool.is_removed() {
            return false;
        }
        let Some(parcel) = Parcel::of(client, &pool) else { return false };
        if client.conn.wire().detach(self.poll.registry()).is_err() {
            return false;
        }
        let client = Box::new(self.clients.remove(slot));
        let from = Place { worker: self.id, slot };
        let arriving = self.process.arriving();
        self.process.directory.leave(&client.info.key, from, Place { worker: self.id, slot: usize::MAX });
        let departing = Departing { parcel, client, pool, worker: self.id, _arriving: arriving };
        let sent = to.send(departing);
        self.count_client(-1);
        if let Err(unsent) = sent {
            // Nobody takes any more.
            self.departure = None;
            unsent.0.stay(&self.process);
        }
        true
    }
}

impl Client {
    fn may_depart(&self) -> bool {
        let nothing_unread =
            self.pending.is_empty() && self.discarding == Discarding::Nothing && self.ignoring == 0;
        let nothing_special = self.routing.is_none() && self.listening.is_none() && self.aborted.is_none();
        matches!(self.state, ClientState::Idle)
            && nothing_unread
            && nothing_special
            && !self.stalled
            && !self.info.stays
            && self.info.tls.is_empty()
            && self.conn.is_flushed()
    }
}

impl Parcel {
    fn of(client: &Client, pool: &Pool) -> Option<Self> {
        let mode = MODES.iter().position(|mode| *mode == client.mode)?;
        let unix = match client.info.peer {
            PeerAddr::Unix { pid, uid } => Some((pid, uid)),
            PeerAddr::Tcp { .. } => None,
        };
        Some(Self {
            database: client.info.database.clone(),
            user: client.info.user.clone(),
            pid: client.info.key.pid,
            secret: client.info.key.secret.to_vec(),
            mode: u8::try_from(mode).ok()?,
            connected_at: client.info.connected_at,
            unix,
            credentials: pool.proved_credentials().as_ref().and_then(PackedCredentials::of),
            session: client.session.pack()?,
        })
    }
}

impl PackedCredentials {
    fn of(credentials: &Credentials) -> Option<Self> {
        match credentials {
            Credentials::None => None,
            Credentials::Password(password) => Some(Self::Password(password.0.clone())),
            Credentials::Md5(hash) => Some(Self::Md5(hash.0.clone())),
            Credentials::Scram(keys) => {
                Some(Self::Scram { client_key: keys.client_key, server_key: keys.server_key })
            }
        }
    }

    fn unpacked(self) -> Credentials {
        match self {
            Self::Password(password) => Credentials::Password(Secret(password)),
            Self::Md5(hash) => Credentials::Md5(Secret(hash)),
            Self::Scram { client_key, server_key } => {
                Credentials::Scram(ScramKeys { client_key, server_key })
            }
        }
    }
}

impl Departing {
    /// Its socket, to be sent along.
    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.client.conn.descriptor()
    }

    /// The other process has not taken it: it goes on here, and is not given away again.
    pub(crate) fn stay(mut self, process: &Process) {
        self.client.info.stays = true;
        if let Some(worker) = process.workers.get(self.worker) {
            worker.clients.fetch_add(1, Ordering::Relaxed);
            worker.send(Message::Moved { client: self.client, pool: self.pool });
        }
    }

    /// The other process has it, or nobody knows whether it has: it must not be served here.
    pub(crate) fn gone(self, process: &Process) {
        process.directory.remove(pid_of(self.client.session.id), &self.client.info.key);
    }
}

/// Takes a client over from another process. `None` if it has to stay there.
pub(crate) async fn arrive(
    parcel: Parcel,
    stream: Stream,
    peer: PeerAddr,
    process: &Arc<Process>,
) -> Option<()> {
    let config = process.config();
    let database = config.resolve_database(&parcel.database)?;
    let known_nodes = !database.nodes.is_empty() || !database.patroni.is_empty();
    let mode = *MODES.get(usize::from(parcel.mode))?;
    let keeps_statements = config.settings.max_prepared_statements > 0;
    if known_nodes || (parcel.session.has_statements() && !keeps_statements) {
        return None;
    }
    let mut permit = process.logins.limits.enter();
    permit.note_descriptor(match &stream.socket {
        Socket::Tcp(socket) => socket.as_raw_fd(),
        Socket::Unix(socket) => socket.as_raw_fd(),
    });
    let admission = Admission { database: &parcel.database, user: &parcel.user, console: false };
    permit.admit(&config, admission).ok()?;
    let user = || Arc::new(User { name: parcel.user.clone(), ..User::default() });
    let user_config = config.users.get(&parcel.user).map_or_else(user, Arc::clone);
    let pool = process.pool(&database, &user_config);
    if let Some(credentials) = parcel.credentials.filter(|_| database.user.is_none()) {
        pool.offer_credentials(&credentials.unpacked());
    }
    process.watch(&pool);
    process.functions_were_looked_at(&pool).await;
    let key = BackendKeyData { pid: parcel.pid, secret: parcel.secret.into() };
    let peer = parcel.unix.map_or(peer, |(pid, uid)| PeerAddr::Unix { pid, uid });
    let id = process.claim(&key)?;
    let Some(session) = parcel.session.unpack(id, &process.shared) else {
        process.directory.remove(pid_of(id), &key);
        return None;
    };
    let info = ClientInfo {
        user: parcel.user,
        user_config,
        database: parcel.database,
        peer,
        tls: String::new(),
        key,
        wanted: Params::default(),
        unsent: Vec::new(),
        connected_at: parcel.connected_at,
        replication: Replication::None,
        told_of: 0,
        stuck_since: 0,
        refused: None,
        stays: false,
        _permit: permit,
    };
    let client = Client {
        conn: Conn::new(Wire::detached(stream)),
        session,
        state: ClientState::Idle,
        // Of its worker.
        shard: usize::MAX,
        mode,
        pending: Vec::new(),
        since: process.clock.micros(),
        discarding: Discarding::Nothing,
        aborted: None,
        stalled: false,
        ignoring: 0,
        routing: None,
        listening: None,
        info: Box::new(info),
    };
    let worker = process.place(true)?;
    worker.send(Message::Moved { client: Box::new(client), pool });
    Some(())
}
