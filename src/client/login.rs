//! One client from accept to `LoggedIn`, as plain sequential code.
//!
//! ```text
//! [TLS at once | SSLRequest → S, handshake | → N | GSSENCRequest → N] → startup packet → limits
//!     → authentication → database or console → LoggedIn            (or: CancelRequest → CancelRequest)
//! ```
//! Until the client has proved who it is, nothing tells a known user or database from an unknown one.

use std::{os::unix::fs::MetadataExt, sync::Arc, time::Instant};

use nix::unistd::{Uid, User as SystemUser};
use tokio::net::{TcpStream, UnixStream};

use super::{
    ConsoleRight, LoggedIn,
    error::LoginError,
    failures::FailedLogins,
    lookup::{Found, Lookups},
    password::{Dialogue, Proof},
    startup::{Replication, Request},
    wire::Wire,
};
use crate::{
    auth::{AuthError, SecretCache},
    client::limits::{Admission, ClientLimits, ClientPermit},
    config::{Asking, AuthType, Config, Database, Demand, PeerAddr, SslMode, User, is_console},
    error::{Printable, Report, Secret},
    net::tls::{ClientTls, ServerTls},
    protocol::{BackendKeyData, ProtocolVersion, encode::Severity, startup::StartupPacket},
};

/// What all logins share for as long as the process lives: a reload keeps it.
#[derive(Debug)]
pub struct LoginShared {
    pub limits: Arc<ClientLimits>,
    pub secrets: SecretCache,
    pub lookups: Lookups,
    /// Logins that did not come about.
    pub failures: FailedLogins,
    /// User id of the process: its owner reaches the console through the unix socket without a password.
    uid: Option<u32>,
}

impl LoginShared {
    /// Fails if the operating system has no random bytes.
    pub fn new() -> Result<Self, AuthError> {
        let uid = std::fs::metadata("/proc/self").ok().map(|metadata| metadata.uid());
        Ok(Self {
            limits: Arc::default(),
            secrets: SecretCache::new()?,
            lookups: Lookups::default(),
            failures: FailedLogins::default(),
            uid,
        })
    }
}

/// What a login decides by: one per loaded configuration.
#[derive(Clone, Debug)]
pub struct LoginContext {
    pub config: Arc<Config>,
    /// `None`: client_tls_sslmode is disable.
    pub tls: Option<Arc<ClientTls>>,
    /// For auth_query.
    pub server_tls: Arc<ServerTls>,
    pub shared: Arc<LoginShared>,
}

/// An accepted connection.
#[derive(Debug)]
pub struct Accepted {
    wire: Wire,
    peer: PeerAddr,
}

impl Accepted {
    /// From a TCP listener; switches Nagle's algorithm off.
    pub fn tcp(socket: TcpStream, peer: std::net::SocketAddr) -> std::io::Result<Self> {
        socket.set_nodelay(true)?;
        let local = socket.local_addr()?;
        Ok(Self { wire: Wire::tcp(socket), peer: PeerAddr::Tcp { peer, local } })
    }

    /// From a unix socket.
    pub fn unix(socket: UnixStream) -> std::io::Result<Self> {
        let credentials = socket.peer_cred()?;
        let pid = credentials.pid().and_then(|pid| u32::try_from(pid).ok()).unwrap_or(0);
        Ok(Self { wire: Wire::unix(socket), peer: PeerAddr::Unix { pid, uid: credentials.uid() } })
    }
}

/// What came of a connection.
#[derive(Debug)]
pub enum Opened {
    LoggedIn(Box<LoggedIn>),
    Cancel(Box<CancelRequest>),
}

/// Somebody asks to cancel a query. The client waits for the connection to be closed: drop it when the
/// cancel has been passed on.
#[derive(Debug)]
pub struct CancelRequest {
    pub key: BackendKeyData,
    pub peer: PeerAddr,
    _connection: Wire,
    _permit: ClientPermit,
}

/// Takes a connection through login. On failure the client has been told why, the reason has been logged,
/// and the connection is closed.
pub async fn login(accepted: Accepted, context: &LoginContext) -> Result<Opened, LoginError> {
    let started = Instant::now();
    let Accepted { mut wire, peer } = accepted;
    let mut permit = context.shared.limits.enter();
    permit.note_descriptor(wire.descriptor());
    let mut login = Login { context, peer: &peer, permit, request: None };
    let limit = context.config.settings.client_login_timeout;
    let outcome = if limit.is_zero() {
        login.run(&mut wire).await
    } else {
        // Expired: whatever step was under way is dropped, the socket is not.
        tokio::time::timeout(limit, login.run(&mut wire)).await.unwrap_or(Err(LoginError::Timeout))
    };
    match outcome {
        Ok(Outcome::Cancel(key)) => {
            let _permit = login.permit;
            Ok(Opened::Cancel(Box::new(CancelRequest { key, peer, _connection: wire, _permit })))
        }
        Ok(Outcome::Session(session)) => {
            login.finish(session, wire).map(|done| Opened::LoggedIn(Box::new(done)))
        }
        Err(error) => {
            login.log_failure(&error, started);
            context.shared.failures.count(&error);
            if let Some(report) = error.report() {
                report.write(&mut wire.out, Severity::Fatal);
                wire.say_goodbye().await;
            }
            Err(error)
        }
    }
}

/// How the dialogue ended.
enum Outcome {
    Cancel(BackendKeyData),
    Session(Session),
}

/// A client that is who it says, and what it may use.
struct Session {
    proof: Proof,
    looked_up: Option<Secret<String>>,
    user_config: Arc<User>,
    target: Target,
}

/// Where a session goes.
enum Target {
    Console(ConsoleRight),
    Database(Arc<Database>),
}

/// One login under way.
struct Login<'a> {
    context: &'a LoginContext,
    peer: &'a PeerAddr,
    permit: ClientPermit,
    /// Known once the startup packet has been read.
    request: Option<Request>,
}

impl Login<'_> {
    async fn run(&mut self, wire: &mut Wire) -> Result<Outcome, LoginError> {
        let (version, parameters) = match self.open(wire).await? {
            StartupPacket::Cancel(key) => return Ok(Outcome::Cancel(key)),
            StartupPacket::Startup(version, parameters) => (version, parameters),
            StartupPacket::SslRequest | StartupPacket::GssEncRequest => {
                return Err(LoginError::RepeatedRequest);
            }
        };
        if wire.is_clear_tcp() && self.context.tls.as_ref().is_some_and(|tls| tls.mode >= SslMode::Require) {
            return Err(LoginError::SslRequired);
        }
        self.start(wire, version, parameters).await.map(Outcome::Session)
    }

    /// Settles encryption and reads the packet that follows. Each request is answered once, in any order.
    async fn open(&self, wire: &mut Wire) -> Result<StartupPacket, LoginError> {
        let tls = self.context.tls.as_ref().filter(|_| wire.is_clear_tcp());
        if let Some(tls) = tls
            && wire.starts_with_tls().await?
        {
            wire.accept_tls(&tls.config).await?;
            if !wire.has_alpn() {
                return Err(LoginError::NoAlpn);
            }
            return wire.startup_packet().await;
        }
        let (mut ssl_asked, mut gss_asked) = (false, false);
        loop {
            match wire.startup_packet().await? {
                StartupPacket::SslRequest if !ssl_asked => {
                    ssl_asked = true;
                    refuse_input(wire, "SSL")?;
                    let Some(tls) = tls else {
                        answer(wire, b'N').await?;
                        continue;
                    };
                    answer(wire, b'S').await?;
                    wire.accept_tls(&tls.config).await?;
                    return wire.startup_packet().await;
                }
                StartupPacket::GssEncRequest if !gss_asked => {
                    gss_asked = true;
                    refuse_input(wire, "GSSAPI encryption")?;
                    answer(wire, b'N').await?;
                }
                packet => return Ok(packet),
            }
        }
    }

    /// Limits, authentication, target.
    async fn start(
        &mut self,
        wire: &mut Wire,
        version: ProtocolVersion,
        parameters: Vec<(String, String)>,
    ) -> Result<Session, LoginError> {
        let config = &*self.context.config;
        let mut request = Request::read(version, parameters, &config.settings.ignore_startup_parameters)?;
        if config.settings.application_name_add_host {
            request.add_host(&self.host(config.settings.listen_port));
        }
        let request = self.request.insert(request);
        if config.settings.log_connections {
            log_attempt(request, self.peer, wire);
        }
        let (user, database) = (request.user.as_str(), request.database.as_str());
        let console = is_console(database);
        self.permit.admit(config, Admission { database, user, console })?;
        request.write_negotiation(&mut wire.out);

        if console && self.context.is_owner(user, self.peer) {
            let (proof, target) = (Proof::default(), Target::Console(ConsoleRight::Admin));
            return Ok(Session { proof, looked_up: None, user_config: user_config(config, user), target });
        }
        let tls = self.context.tls.as_ref().filter(|_| wire.is_tls());
        let binding = tls.map(|tls| Arc::clone(&tls.server_end_point)).filter(|hash| !hash.is_empty());
        let physical = request.replication == Replication::Physical;
        let target = (database, physical);
        let demand = method_of(config, self.peer, wire, user, target)?;
        let method = demand.method;
        let lookups = &self.context.shared.lookups;
        // Others know these, or nobody does.
        let lookup = match method {
            AuthType::Any | AuthType::Ldap | AuthType::Pam => None,
            _ => config.lookup(user, database),
        };
        let found = match &lookup {
            Some(lookup) => Some(lookups.find(config, &self.context.server_tls, lookup, user).await?),
            None => None,
        };
        let secrets = &self.context.shared.secrets;
        let are_md5 = lookup.is_some() && lookups.are_md5();
        let dialogue = Dialogue {
            config,
            secrets,
            binding,
            user,
            from: self.peer,
            demand: &demand,
            found: found.as_ref(),
            are_md5,
        };
        let proof = dialogue.run(wire).await.inspect_err(|_| {
            if let Some(lookup) = &lookup {
                lookups.forget(lookup, user);
            }
        })?;
        let target = if console {
            let right =
                console_right(config, user).or((method == AuthType::Any).then_some(ConsoleRight::Stats));
            Target::Console(right.ok_or(LoginError::ConsoleNotAllowed)?)
        } else {
            let found = config.resolve_database(database);
            let found = found.ok_or_else(|| LoginError::NoSuchDatabase(database.to_owned()))?;
            if method == AuthType::Any && found.user.is_none() {
                return Err(LoginError::NoForcedUser(database.to_owned()));
            }
            Target::Database(found)
        };
        let looked_up = match found {
            Some(Found::Secret(secret)) => Some(secret),
            _ => None,
        };
        Ok(Session { proof, looked_up, user_config: user_config(config, user), target })
    }

    fn finish(self, session: Session, wire: Wire) -> Result<LoggedIn, LoginError> {
        let request = self.request.ok_or(LoginError::Closed)?;
        let tls_description = wire.tls_description();
        let (stream, leftover, unsent) = wire.into_parts()?;
        let (database, console) = match session.target {
            Target::Console(right) => (None, Some(right)),
            Target::Database(database) => (Some(database), None),
        };
        Ok(LoggedIn {
            stream,
            leftover,
            unsent,
            protocol: request.protocol,
            user: request.user,
            user_config: session.user_config,
            database,
            console,
            database_name: request.database,
            parameters: request.parameters,
            replication: request.replication,
            scram_keys: session.proof.scram_keys,
            password: session.proof.password,
            looked_up: session.looked_up,
            peer: self.peer.clone(),
            tls_description,
            permit: self.permit,
        })
    }

    /// Where the client is, as PgBouncer says it.
    fn host(&self, listen_port: u16) -> String {
        match self.peer {
            PeerAddr::Tcp { peer, .. } => peer.to_string(),
            PeerAddr::Unix { pid, .. } => {
                let machine = nix::unistd::gethostname().unwrap_or_default();
                format!("unix({pid}@{}):{listen_port}", machine.to_string_lossy())
            }
        }
    }

    /// In PgBouncer's words, which people grep for.
    fn log_failure(&self, error: &LoginError, started: Instant) {
        let settings = &self.context.config.settings;
        let (db, user) = self
            .request
            .as_ref()
            .map_or(("(nodb)", "(nouser)"), |request| (request.database.as_str(), request.user.as_str()));
        let (db, user, peer) = (Printable(db), Printable(user), Peer(self.peer));
        let reason = error.message();
        let reason = Printable(&reason);
        if settings.log_pooler_errors && error.report().is_some() {
            tracing::warn!(%db, %user, %peer, sqlstate = error.sqlstate(), "pooler error: {reason}");
        }
        if settings.log_disconnections {
            let age = started.elapsed().as_secs();
            tracing::info!(%db, %user, %peer, "closing because: {reason} (age={age}s)");
        }
    }
}

/// How the client has to prove who it is. What its socket shows is looked at here.
fn method_of(
    config: &Config,
    from: &PeerAddr,
    wire: &Wire,
    user: &str,
    (database, physical): (&str, bool),
) -> Result<Demand, LoginError> {
    let address = match from {
        PeerAddr::Tcp { peer, .. } => Some(peer.ip()),
        PeerAddr::Unix { .. } => None,
    };
    let demand = match config.settings.auth_type {
        AuthType::Hba => {
            let asking = Asking { database, user, address, tls: wire.is_tls(), physical };
            config.hba.demand(asking).ok_or(LoginError::NoRule)?
        }
        method => Demand { method, ..Demand::default() },
    };
    let map = demand.map.as_deref();
    match demand.method {
        AuthType::Reject => return Err(LoginError::Rejected),
        AuthType::Peer => {
            let PeerAddr::Unix { uid, .. } = from else { return Err(LoginError::Peer) };
            let owner = SystemUser::from_uid(Uid::from_raw(*uid)).ok().flatten().ok_or(LoginError::Peer)?;
            if !config.hba.maps(map, &owner.name, user) {
                return Err(LoginError::Peer);
            }
        }
        AuthType::Cert if !wire.certified_names().iter().any(|name| config.hba.maps(map, name, user)) => {
            return Err(LoginError::Certificate);
        }
        _ => {}
    }
    Ok(demand)
}

impl LoginContext {
    /// Whoever runs the process reaches its console through the unix socket, as user `pooler` or `pgbouncer`.
    fn is_owner(&self, user: &str, peer: &PeerAddr) -> bool {
        let PeerAddr::Unix { uid, .. } = peer else { return false };
        is_console(user) && self.shared.uid == Some(*uid)
    }
}

/// A byte behind an encryption request that is there already cannot have waited for the answer.
fn refuse_input(wire: &Wire, request: &'static str) -> Result<(), LoginError> {
    if wire.has_input() { Err(LoginError::Unencrypted(request)) } else { Ok(()) }
}

async fn answer(wire: &mut Wire, byte: u8) -> Result<(), LoginError> {
    wire.out.push(byte);
    wire.flush().await
}

fn user_config(config: &Config, user: &str) -> Arc<User> {
    let default = || Arc::new(User { name: user.to_owned(), ..User::default() });
    config.users.get(user).map_or_else(default, Arc::clone)
}

fn console_right(config: &Config, user: &str) -> Option<ConsoleRight> {
    let listed = |list: &[String]| list.iter().any(|name| name == user);
    if listed(&config.settings.admin_users) {
        Some(ConsoleRight::Admin)
    } else if listed(&config.settings.stats_users) {
        Some(ConsoleRight::Stats)
    } else {
        None
    }
}

fn log_attempt(request: &Request, peer: &PeerAddr, wire: &Wire) {
    if !tracing::enabled!(tracing::Level::INFO) {
        return;
    }
    let (db, user, peer) = (Printable(&request.database), Printable(&request.user), Peer(peer));
    let description = wire.tls_description();
    let tls = if description.is_empty() { "no" } else { description.as_str() };
    tracing::info!(%db, %user, %tls, replication = %request.replication.parameter(), %peer, "login attempt:");
}

/// `ADDRESS:PORT` or `unix(PID)`.
struct Peer<'a>(&'a PeerAddr);

impl std::fmt::Display for Peer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            PeerAddr::Tcp { peer, .. } => write!(f, "{peer}"),
            PeerAddr::Unix { pid, .. } => write!(f, "unix({pid})"),
        }
    }
}

#[cfg(test)]
#[path = "login_tests/mod.rs"]
mod tests;
