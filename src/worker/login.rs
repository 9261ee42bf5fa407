//! The last part of a client's login: the parameters, on whichever server the pool has.
//!
//! A client is told what the pool's newest server told. Startup parameters that no server has accepted yet are tried on
//! one: the client gets the server's own error if they are wrong, and the server's spelling if they are right.

use std::sync::Arc;

use super::{
    Worker,
    client::{Client, ClientInfo, ClientState, Discarding},
    conn::Conn,
    directory::Place,
    long::Pace,
    message::{ClientRef, ConsoleInput, ConsoleLink, LoginResult},
    release::{ClientError, Told, error_of},
    routed::Routed,
    routing::Routing,
    server::{Server, ServerInfo, ServerState},
};
use crate::{
    client::{LoggedIn, startup::Replication},
    config::Currval,
    error::{Printable, Report as _},
    events::Kind,
    net::wire::Wire,
    pool::{Failure, Pool, Welcome, definitions::Site},
    protocol::{
        ProtocolVersion,
        encode::{self, Severity},
    },
    server::{self, ConnectError, ServerLogin},
    session::{
        params::{self, Label, Params},
        sequences::{Habit, Sequences},
        state::{ClientSession, ServerSession},
    },
    worker::process::pid_of,
};

impl Worker {
    /// A client that proved who it is, in time or when the process is shutting down.
    pub(super) fn welcome_client(&mut self, login: LoggedIn, pool: &Arc<Pool>, late: bool) {
        if login.replication != Replication::None {
            return self.welcome_tunnel(login, pool, late);
        }
        let shard = self.shard(pool);
        let empty = self.process.shared.labels.intern(Params::default());
        let mut login = login;
        let routing = pool.seat.as_ref().map(|_| Routing::at_login(&mut login.parameters));
        let Some(slot) = self.insert_client(login, shard, ClientState::Idle, empty) else { return };
        match routing {
            Some(Ok(routing)) => self.set_routing(slot, routing),
            Some(Err(error)) => return self.fail_client(slot, &error),
            None => {}
        }
        // The nodes may have changed while it was on its way.
        self.rehome(slot);
        if let Some(error) = self.why_not_welcome(pool, late) {
            return self.fail_client(slot, &error);
        }
        if let Some(failure) = pool.failure()
            && failure.refused
            && pool.open_servers() == 0
            && failure.retry_at > std::time::Instant::now()
        {
            return self.fail_client(slot, &ClientError::Server(told(&failure, true)));
        }
        if !self.try_login(slot) {
            self.enqueue_login(slot);
        }
    }

    pub(super) fn enqueue_login(&mut self, slot: usize) {
        let Some(client) = self.clients.get(slot) else { return };
        match self.checkout(client.shard) {
            Some(server) => self.serve_login(slot, server),
            None => self.enqueue(slot, ClientState::LoginWaiting),
        }
    }

    pub(super) fn insert_client(
        &mut self,
        login: LoggedIn,
        shard: usize,
        state: ClientState,
        label: Label,
    ) -> Option<usize> {
        let entry = self.clients.vacant_entry();
        let slot = entry.key();
        let (id, key) = self.process.new_client(Place { worker: self.id, slot }, login.protocol);
        let token = super::client_token(slot, id);
        let wire = match Wire::register(login.stream, self.poll.registry(), token) {
            Ok(wire) => wire,
            Err(error) => {
                tracing::error!("cannot register a client's socket: {error}");
                self.process.directory.remove(pid_of(id), &key);
                self.count_client(-1);
                return None;
            }
        };
        let info = ClientInfo {
            user: login.user,
            user_config: login.user_config,
            database: login.database_name,
            peer: login.peer,
            tls: login.tls_description,
            key,
            replication: login.replication,
            wanted: Params::from_pairs(login.parameters.iter().map(|(n, v)| (n.as_str(), v.as_str()))),
            unsent: login.unsent,
            connected_at: self.process.clock.unix_micros(),
            told_of: 0,
            stuck_since: 0,
            refused: None,
            stays: false,
            _permit: login.permit,
        };
        entry.insert(Client {
            conn: Conn::new(wire),
            session: ClientSession::new(id, label),
            state,
            shard,
            mode: self.shards.get(shard).map(|s| s.settings.mode).unwrap_or_default(),
            pending: login.leftover,
            since: self.now,
            discarding: Discarding::Nothing,
            aborted: None,
            stalled: false,
            ignoring: 0,
            routing: None,
            listening: None,
            info: Box::new(info),
        });
        Some(slot)
    }

    /// Finishes the login if everything that it has to tell is known.
    fn try_login(&mut self, slot: usize) -> bool {
        let Some(client) = self.clients.get_mut(slot) else { return true };
        let Some(shard) = self.shards.get(client.shard) else { return true };
        let Some(welcome) = shard.pool.welcome() else { return false };
        let Some(label) = label_for(&shard.pool, &welcome, &client.info.wanted, &self.process.shared.labels)
        else {
            return false;
        };
        client.session.log_in(label);
        let application = client.session.label.get("application_name").unwrap_or_default();
        let known = shard.pool.database.habits.of(&shard.pool.key.user, application);
        client.session.sequences = Sequences::with(known.max(habit_of(self.config.settings.currval)));
        client.info.wanted = Params::default();
        if let Some(stats) = shard.pool.shards.get(self.id).map(|s| &s.stats) {
            stats.logins.add(1);
        }
        let mut bytes = std::mem::take(&mut client.info.unsent);
        encode::authentication_ok(&mut bytes);
        for (name, value) in &welcome.parameters {
            let value = client.session.label.get(name).unwrap_or(value);
            encode::parameter_status(&mut bytes, name, value);
        }
        encode::backend_key_data(&mut bytes, &client.info.key);
        let notice = &self.config.settings.login_notify_message;
        if !notice.is_empty() {
            encode::error(&mut bytes, Severity::Notice, "00000", notice, None, None);
        }
        encode::ready_for_query(&mut bytes, b'I');
        client.state = ClientState::Idle;
        client.since = self.now;
        self.send_to_client(slot, &bytes);
        self.look_later_at_client(slot);
        true
    }

    /// A client asks for the last numbers of sequences: others of its kind will too.
    pub(super) fn note_habit(&self, slot: usize, habit: Habit) {
        let Some(client) = self.clients.get(slot) else { return };
        let Some(shard) = self.shards.get(client.shard) else { return };
        let application = client.session.label.get("application_name").unwrap_or_default();
        let (database, user) = (&shard.pool.key.database, &shard.pool.key.user);
        tracing::info!(database, user, application = %Printable(application), "clients ask for currval() or lastval(): {}", habit.told());
        shard.pool.database.habits.learn(user, application, habit);
        // Many tell their names only once they are logged in.
        let at_login = client.session.startup.get("application_name").unwrap_or_default();
        shard.pool.database.habits.learn(user, at_login, habit);
    }

    /// A server for a client that is logging in.
    pub(super) fn serve_login(&mut self, slot: usize, server_slot: usize) {
        if self.try_login(slot) {
            return self.free(server_slot);
        }
        let Some(welcome) = self.servers.get(server_slot).and_then(|server| server.pool.welcome()) else {
            // The pool was told to start afresh: this server is outdated, the next one will tell.
            self.free(server_slot);
            return self.enqueue(slot, ClientState::LoginWaiting);
        };
        self.link(slot, server_slot);
        let (Some(client), Some(server)) = (self.clients.get_mut(slot), self.servers.get_mut(server_slot))
        else {
            return;
        };
        client.state = ClientState::LoginLinked(server_slot);
        let mut bytes = Vec::new();
        let write = |sql: &str| encode::query(&mut bytes, sql);
        let (at_login, wanted) = (&welcome.label, &client.info.wanted);
        server.session.try_startup(&mut client.session, at_login, wanted, &self.process.shared, write);
        if bytes.is_empty() {
            return self.login_parameters_tried(slot, server_slot);
        }
        if server.send(&bytes).is_err() {
            self.server_readable(server_slot);
        }
    }

    /// The server has accepted the startup parameters, or not.
    pub(super) fn login_parameters_tried(&mut self, slot: usize, server_slot: usize) {
        let (Some(client), Some(server)) = (self.clients.get_mut(slot), self.servers.get_mut(server_slot))
        else {
            return;
        };
        if let Some(message) = server.session.injected_failed.take() {
            // One implicit transaction: nothing of it has been applied.
            server.session.restore_label();
            let body = message.get(crate::protocol::frame::HEADER..).unwrap_or_default();
            let error = error_of(body);
            return self.fail_client(slot, &error);
        }
        if let Some(welcome) = server.pool.welcome() {
            let tried = without_certain(&client.info.wanted);
            // Without what is this client's alone: others with these parameters have a name of their own, or none.
            let certain = client.info.wanted.iter().filter(|(n, v)| params::is_certain(n, v));
            let labels = &self.process.shared.labels;
            let label = certain.fold(Arc::clone(&client.session.label), |label, (name, _)| {
                labels.with(&label, name, welcome.label.get(name).unwrap_or_default())
            });
            server.pool.accept(tried, label);
        }
        client.state = ClientState::LoginWaiting;
        client.since = self.now;
        self.free_after_login(server_slot);
        if !self.try_login(slot) {
            // The pool was told to start afresh meanwhile.
            self.enqueue_login(slot);
        }
    }

    fn free_after_login(&mut self, slot: usize) {
        let Some(server) = self.servers.get_mut(slot) else { return };
        server.transaction_start = 0;
        server.query_start = 0;
        self.free(slot);
    }

    /// A login at the server has ended.
    pub(super) fn server_connected(
        &mut self,
        pool: &Arc<Pool>,
        generation: u64,
        result: Option<LoginResult>,
    ) {
        let index = self.shard(pool);
        if let Some(shard) = self.shards.get_mut(index) {
            shard.connecting = shard.connecting.saturating_sub(1);
        }
        // The settings may have changed since the login began: what it tells is about a server that is no longer asked.
        let outdated = !pool.is_current(generation);
        match result {
            Some(Ok(login)) if !outdated => {
                self.insert_server(index, pool, generation, *login);
                // Whoever gets it needs no other.
                self.settle();
            }
            Some(Err(error)) if !outdated => {
                pool.release_server();
                self.connect_failed(index, pool, &error);
            }
            _ => pool.release_server(),
        }
        self.grow(index);
    }

    fn insert_server(&mut self, index: usize, pool: &Arc<Pool>, generation: u64, login: ServerLogin) {
        if pool.seat.is_none() && pool.failure().is_some() {
            let text = format!("{} can be used again as {}", login.host, pool.key.user);
            self.process.pools.events.tell(Kind::Server, &pool.key.database, &text);
        }
        pool.set_failure(None);
        let differ = !pool.settings().is_one_place();
        let settable = login.parameters.iter().filter(|(n, _)| params::is_settable(n));
        let settable = settable.filter(|(n, _)| !differ || !params::is_of_some_versions(n));
        let pairs = settable.map(|(n, v)| (n.as_str(), v.as_str()));
        let label = self.process.shared.labels.intern(Params::from_pairs(pairs));
        pool.set_welcome(Welcome { parameters: login.parameters.clone(), label: Arc::clone(&label) });
        let Some(slot) = self.new_server(index, pool, generation, login, label) else { return };
        self.freed.push_back(slot);
    }

    /// A server that nobody has yet, and that is in no list.
    pub(super) fn new_server(
        &mut self,
        index: usize,
        pool: &Arc<Pool>,
        generation: u64,
        login: ServerLogin,
        label: Label,
    ) -> Option<usize> {
        let id = self.process.next_id();
        let entry = self.servers.vacant_entry();
        let slot = entry.key();
        let token = super::server_token(slot, id);
        let wire = match Wire::register(login.stream, self.poll.registry(), token) {
            Ok(wire) => wire,
            Err(error) => {
                tracing::error!("cannot register a server's socket: {error}");
                pool.release_server();
                return None;
            }
        };
        if let Some(shard) = self.shards.get_mut(index) {
            shard.servers += 1;
        }
        let settings = pool.settings();
        let place = Site::new(&login.host, login.port, login.peer.parse().ok());
        let catalog = pool.database.catalogs.of(place);
        let info = ServerInfo {
            cancel_target: login.cancel_target,
            key: login.key,
            host: login.host,
            peer: login.peer,
            peer_port: login.peer_port,
            local: login.local,
            local_port: login.local_port,
            tls: login.tls_description,
            connected_at: self.process.clock.unix_micros(),
        };
        entry.insert(Server {
            conn: Conn::new(wire),
            session: ServerSession::new(label, &login.parameters),
            state: ServerState::Free,
            pool: Arc::clone(pool),
            shard: index,
            id,
            session_client: false,
            tunnel: false,
            routed: Routed::default(),
            catalog,
            obsolete: false,
            generation,
            pending: login.leftover,
            since: self.now,
            pin: None,
            transaction_start: 0,
            query_start: 0,
            waited: 0,
            recording: None,
            measured: 0,
            answered: 0,
            heard: true,
            expires: self.process.expiry(id, self.now, settings.server_lifetime),
            drained: 0,
            pace: Pace::default(),
            cancels: 0,
            deferred_cancels: Vec::new(),
            info: Box::new(info),
        });
        if let Some(server) = self.servers.get_mut(slot) {
            server.look_at_name(&self.process.pools.names);
        }
        Some(slot)
    }

    /// The server cannot be reached. If it said why, and nobody is connected, those who wait are told.
    fn connect_failed(&mut self, index: usize, pool: &Arc<Pool>, error: &ConnectError) {
        let retry = self.config.settings.server_login_retry;
        let failure = Failure::after(pool.failure().as_ref(), error, retry);
        let (message, settings) = (error.to_string(), pool.settings());
        tracing::warn!(
            database = pool.key.database,
            user = pool.key.user,
            host = settings.host_text(),
            port = settings.connect.address.port,
            "server login failed: {}; next attempt in {:?}",
            Printable(message.strip_prefix("server login failed: ").unwrap_or(&message)),
            failure.pause
        );
        match &pool.seat {
            Some(seat) => seat.cluster.suspect(),
            // Nodes are told of by those who watch them.
            None if pool.failure().is_none() => {
                let text = format!("{} cannot be used as {}: {message}", settings.host_text(), pool.key.user);
                self.process.pools.events.warn(Kind::Server, &pool.key.database, &text);
            }
            None => {}
        }
        // A node that starts or stops is not the last word where there are others.
        let passing = pool.seat.is_some() && failure.sqlstate.starts_with("57P");
        let hopeless = failure.refused && !passing && pool.open_servers() == 0;
        let told = ClientError::Server(told(&failure, false));
        pool.set_failure(Some(failure));
        if let Some(seat) = pool.seat.as_ref().filter(|seat| seat.cluster.primary() != Some(seat.node)) {
            // Others can serve reads.
            return self.send_waiting_elsewhere(index, &Arc::clone(&seat.cluster), seat.node);
        }
        if !hopeless {
            return;
        }
        let Some(shard) = self.shards.get_mut(index) else { return };
        let waiting: Vec<usize> = shard.waiting.iter().map(|w| w.client).collect();
        for slot in waiting {
            self.fail_client(slot, &told);
        }
    }

    /// A client of the admin console.
    pub(super) fn welcome_console(&mut self, login: LoggedIn, console: ConsoleLink) {
        let label = self.process.shared.labels.intern(Params::default());
        let input = console.input.clone();
        let Some(slot) = self.insert_client(login, usize::MAX, ClientState::Console(console), label) else {
            return;
        };
        // A shutdown does not wait for those who may have asked for it.
        self.count_client(-1);
        let Some(client) = self.clients.get(slot) else { return };
        let (id, key) = (client.session.id, client.info.key.clone());
        let client = ClientRef { worker: self.id, slot, id };
        // Fails when the console has ended: the client is closed then.
        let _ = input.try_send(ConsoleInput::Connected { client, key });
        self.client_readable(slot);
    }
}

/// What a failure tells clients. `cached`: those that come after it.
fn told(failure: &Failure, cached: bool) -> Told {
    let cached = cached.then(|| {
        "The server has been refusing logins; this is its last error (see server_login_retry).".to_owned()
    });
    Told {
        sqlstate: failure.sqlstate.clone(),
        message: failure.message.clone(),
        detail: failure.detail.clone().or(cached),
        hint: failure.hint.clone(),
    }
}

impl Failure {
    /// The pause doubles from attempt to attempt, up to server_login_retry.
    fn after(previous: Option<&Self>, error: &ConnectError, longest: std::time::Duration) -> Self {
        let first = std::time::Duration::from_millis(100).min(longest);
        let pause = previous.map_or(first, |p| (p.pause * 2).min(longest));
        let sqlstate = match error {
            ConnectError::Refused(server) => server.sqlstate().unwrap_or("08004").to_owned(),
            other => other.sqlstate().to_owned(),
        };
        // Waiting helps only against what may pass by itself.
        let refused = error.failure() != server::Failure::Unreachable;
        Self {
            sqlstate,
            message: error.message(),
            detail: error.detail(),
            hint: error.hint(),
            refused,
            retry_at: std::time::Instant::now() + pause,
            pause,
        }
    }
}

/// What is expected of a client that nobody knows.
fn habit_of(currval: Currval) -> Habit {
    match currval {
        Currval::Learn => Habit::Never,
        Currval::Transaction => Habit::Amid,
        Currval::Session => Habit::Always,
    }
}

/// The label that a client with these startup parameters has, if that can be told without asking a server.
fn label_for(pool: &Pool, welcome: &Welcome, wanted: &Params, labels: &params::Labels) -> Option<Label> {
    let differing = wanted.iter().filter(|(n, v)| welcome.label.get(n) != Some(v));
    let uncertain = Params::from_pairs(differing.filter(|(n, v)| !params::is_certain(n, v)));
    let base = if uncertain.iter().next().is_none() {
        Arc::clone(&welcome.label)
    } else {
        pool.accepted(&without_certain(wanted))?
    };
    let certain = wanted.iter().filter(|(n, v)| params::is_certain(n, v));
    Some(certain.fold(base, |label, (name, value)| labels.with(&label, name, value)))
}

fn without_certain(wanted: &Params) -> Params {
    Params::from_pairs(wanted.iter().filter(|(n, v)| !params::is_certain(n, v)))
}

/// Whether a version's cancel secret may be longer than four bytes.
pub(crate) fn secret_length(protocol: ProtocolVersion) -> usize {
    if protocol >= ProtocolVersion::V3_2 { 32 } else { 4 }
}
