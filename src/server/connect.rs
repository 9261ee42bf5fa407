//! Opening connections: name, socket, TLS as sslmode wants it, login.
//!
//! Follows libpq in what it tries again: another address of the name if nobody listens, without TLS or
//! with it as sslmode allows, protocol 3.0 if the server does not know of 3.2.

use std::{future::Future, net::IpAddr, path::Path, sync::Arc, time::Duration};

use rustls::{ClientConfig, pki_types::ServerName};
use tokio::time::{Instant, timeout_at};

use super::{
    CancelTarget, ConnectError, ConnectSpec, Failure, Names, ServerAddress, ServerLogin,
    login::{Session, log_in},
    race::first_of,
    wire::{Endpoint, TlsAnswer, Wire},
};
use crate::{
    config::{At, SslMode},
    net::tls::{self, server_end_point},
    protocol::ProtocolVersion,
};

/// Stands for "no limit" where a deadline is needed.
const FOR_EVER: Duration = Duration::from_secs(86_400 * 365);

/// Opens a connection and logs in.
pub async fn connect(spec: &ConnectSpec) -> Result<ServerLogin, ConnectError> {
    hand_over(open_session(spec).await?, &spec.address)
}

/// The same for whoever stays on tokio.
pub(super) async fn open_session(spec: &ConnectSpec) -> Result<Opened, ConnectError> {
    let target = || format!("{}:{}", spec.address.host, spec.address.port);
    bounded(spec.timeout, target, Box::pin(with_sslmode(spec))).await
}

/// A connection that is logged in.
pub(super) struct Opened {
    pub(super) wire: Wire,
    pub(super) session: Session,
    tls: Option<TlsParts>,
}

/// Runs `work` with a deadline; zero: none.
pub(super) async fn bounded<T, F: Future<Output = Result<T, ConnectError>>>(
    limit: Duration,
    target: impl FnOnce() -> String,
    work: F,
) -> Result<T, ConnectError> {
    let deadline = Instant::now() + if limit.is_zero() { FOR_EVER } else { limit };
    match timeout_at(deadline, work).await {
        Ok(result) => result,
        Err(_) => Err(ConnectError::Timeout { target: target(), limit }),
    }
}

/// Whether one attempt uses TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encryption {
    Never,
    IfOffered,
    Always,
}

/// libpq's order of attempts. The second one is made only if encryption can be the reason that the first one
/// failed.
async fn with_sslmode(spec: &ConnectSpec) -> Result<Opened, ConnectError> {
    let address = &spec.address;
    let (first, second) = match address.sslmode {
        _ if is_unix(address) => (Encryption::Never, None),
        SslMode::Disable => (Encryption::Never, None),
        SslMode::Allow => (Encryption::Never, Some(Encryption::Always)),
        SslMode::Prefer => (Encryption::IfOffered, Some(Encryption::Never)),
        SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => (Encryption::Always, None),
    };
    let Failed { error, over_tls } = match with_protocol(spec, first).await {
        Ok(opened) => return Ok(opened),
        Err(failed) => failed,
    };
    let Some(second) = second.filter(|_| encryption_may_matter(&error, first, over_tls)) else {
        return Err(error);
    };
    tracing::debug!(
        "server {}:{}: {error}; trying {} TLS",
        address.host,
        address.port,
        if second == Encryption::Never { "without" } else { "with" }
    );
    match with_protocol(spec, second).await {
        // The server has no TLS: what it said without is the truth.
        Err(Failed { error: ConnectError::TlsRefused, .. }) => Err(error),
        other => other.map_err(|failed| failed.error),
    }
}

fn encryption_may_matter(error: &ConnectError, tried: Encryption, over_tls: bool) -> bool {
    match error {
        // pg_hba.conf: "no pg_hba.conf entry for host …, no encryption" is 28000 and comes at once.
        ConnectError::Refused(e) => {
            let about_access = e.sqlstate().is_none_or(|code| code.starts_with("28"));
            e.before_authentication && about_access && (over_tls || tried == Encryption::Never)
        }
        ConnectError::Handshake(_) | ConnectError::TlsRefused => tried == Encryption::IfOffered,
        _ => false,
    }
}

/// A failed attempt.
struct Failed {
    error: ConnectError,
    /// TLS had been set up.
    over_tls: bool,
}

/// One attempt with protocol 3.2, and one with 3.0 for servers older than NegotiateProtocolVersion.
async fn with_protocol(spec: &ConnectSpec, encryption: Encryption) -> Result<Opened, Failed> {
    match attempt(spec, encryption, ProtocolVersion::V3_2).await {
        Err(Failed { error: ConnectError::Refused(error), .. })
            if error.before_authentication
                && error.sqlstate().is_none_or(|code| matches!(code, "0A000" | "08P01")) =>
        {
            attempt(spec, encryption, ProtocolVersion::V3_0).await
        }
        result => result,
    }
}

async fn attempt(
    spec: &ConnectSpec,
    encryption: Encryption,
    version: ProtocolVersion,
) -> Result<Opened, Failed> {
    let mut trying = None;
    let opened = async {
        let wire = open(&spec.address).await?;
        trying = Trying::begin(&spec.address, &wire.endpoint);
        encrypt(wire, &spec.address, encryption).await
    };
    let (mut wire, tls) = opened.await.map_err(|error| Failed { error, over_tls: false })?;
    let over_tls = tls.is_some();
    let end_point = wire.tls().and_then(|session| session.peer_certificates()?.first());
    let end_point = end_point.and_then(|certificate| server_end_point(certificate));
    let result = log_in(&mut wire, spec, version, end_point).await;
    if let Some(trying) = &mut trying {
        trying.answered = result.as_ref().err().is_none_or(|error| error.failure() != Failure::Unreachable);
    }
    match result {
        Ok(session) => Ok(Opened { wire, session, tls }),
        Err(error) => Err(Failed { error, over_tls }),
    }
}

/// A login at one of a name's addresses. If nothing comes of it, however it ends, others are tried first for a while.
struct Trying<'a> {
    names: &'a Names,
    host: &'a str,
    ip: IpAddr,
    answered: bool,
}

impl<'a> Trying<'a> {
    fn begin(address: &'a ServerAddress, endpoint: &Endpoint) -> Option<Self> {
        let (Some(names), Endpoint::Tcp(at)) = (&address.names, endpoint) else { return None };
        Some(Self { names, host: &address.host, ip: at.ip(), answered: false })
    }
}

impl Drop for Trying<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.names.shun(self.host, self.ip);
        }
    }
}

fn hand_over(opened: Opened, address: &ServerAddress) -> Result<ServerLogin, ConnectError> {
    let Opened { wire, session, tls } = opened;
    let endpoint = wire.endpoint.clone();
    let (peer, peer_port) = match &endpoint {
        Endpoint::Tcp(peer) => (peer.ip().to_string(), peer.port()),
        Endpoint::Unix(_) => (address.host.clone(), address.port),
    };
    let (local, local_port) = match wire.local() {
        Some((ip, port)) => (ip.to_string(), port),
        None => (address.host.clone(), 0),
    };
    let tls_description = wire.tls().map(|session| tls::describe(session)).unwrap_or_default();
    let (stream, leftover) = wire.into_stream()?;
    Ok(ServerLogin {
        stream,
        leftover,
        key: session.key,
        protocol: session.protocol,
        parameters: session.parameters,
        host: address.host.clone(),
        port: address.port,
        peer,
        peer_port,
        local,
        local_port,
        tls_description,
        cancel_target: Arc::new(CancelTarget { endpoint, tls, keepalive: address.keepalive }),
    })
}

/// What a TLS handshake needs, kept to make a like one for a cancel.
pub(super) type TlsParts = (Arc<ClientConfig>, ServerName<'static>);

/// Sets TLS up if `encryption` says so and the server can.
async fn encrypt(
    mut wire: Wire,
    address: &ServerAddress,
    encryption: Encryption,
) -> Result<(Wire, Option<TlsParts>), ConnectError> {
    if encryption == Encryption::Never {
        return Ok((wire, None));
    }
    match (wire.request_tls().await?, encryption) {
        (TlsAnswer::Willing, _) => {}
        (TlsAnswer::Unwilling, Encryption::IfOffered) => return Ok((wire, None)),
        (TlsAnswer::Unwilling | TlsAnswer::Error, _) => return Err(ConnectError::TlsRefused),
    }
    let config = address.tls.config(address.sslmode).map_err(|e| ConnectError::TlsSettings(Box::new(e)))?;
    let name = server_name(address, &wire.endpoint)?;
    let wire = wire.start_tls(config.clone(), name.clone()).await?;
    Ok((wire, Some((config, name))))
}

/// The name to ask for and to look for in the certificate. A host name that cannot be one in a certificate
/// cannot be verified either; otherwise the address does.
fn server_name(address: &ServerAddress, endpoint: &Endpoint) -> Result<ServerName<'static>, ConnectError> {
    match (ServerName::try_from(address.host.clone()), endpoint) {
        (Ok(name), _) => Ok(name),
        (Err(_), Endpoint::Tcp(peer)) if address.sslmode != SslMode::VerifyFull => {
            Ok(ServerName::IpAddress(peer.ip().into()))
        }
        _ => Err(ConnectError::Handshake(format!("no certificate can name the host \"{}\"", address.host))),
    }
}

/// A connection to another pooler. As in PgBouncer without TLS if that one has none and sslmode allows it.
pub(super) async fn open_as_peer(address: &ServerAddress) -> Result<Wire, ConnectError> {
    let encryption = match address.sslmode {
        _ if is_unix(address) => Encryption::Never,
        SslMode::Disable => Encryption::Never,
        SslMode::Allow | SslMode::Prefer => Encryption::IfOffered,
        SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => Encryption::Always,
    };
    let wire = open(address).await?;
    Ok(encrypt(wire, address, encryption).await?.0)
}

fn is_unix(address: &ServerAddress) -> bool {
    address.host.starts_with(['/', '@'])
}

/// So long an address may take to answer before the next one of the name is tried as well.
const PATIENCE: Duration = Duration::from_secs(1);

/// Connects to the first address that answers.
async fn open(address: &ServerAddress) -> Result<Wire, ConnectError> {
    let endpoints = resolve(address).await?;
    if let [endpoint] = endpoints.as_slice() {
        let opened = Wire::open(endpoint.clone(), &address.keepalive).await;
        return opened.inspect_err(|_| doubt(address));
    }
    let keepalive = address.keepalive;
    let attempts = endpoints
        .iter()
        .cloned()
        .map(|endpoint| (PATIENCE, async move { Wire::open(endpoint, &keepalive).await }));
    let failed = |number: usize, _: Option<&ConnectError>| {
        if let (Some(Endpoint::Tcp(at)), Some(names)) = (endpoints.get(number), &address.names) {
            names.shun(&address.host, at.ip());
        }
    };
    match first_of(attempts, failed).await {
        Ok((_, wire)) => Ok(wire),
        Err(ConnectError::Closed) if endpoints.is_empty() => Err(ConnectError::Resolve {
            host: address.host.clone(),
            reason: "the name has no address".to_owned(),
        }),
        Err(error) => {
            doubt(address);
            Err(error)
        }
    }
}

/// What is known of the name may not be true any more.
fn doubt(address: &ServerAddress) {
    if let Some(names) = &address.names {
        names.doubt(&address.host);
    }
}

async fn resolve(address: &ServerAddress) -> Result<Vec<Endpoint>, ConnectError> {
    if is_unix(address) {
        // The name of an abstract socket begins with a NUL byte.
        let directory = match address.host.strip_prefix('@') {
            Some(name) => format!("\0{name}"),
            None => address.host.clone(),
        };
        let socket = Path::new(&directory).join(format!(".s.PGSQL.{}", address.port));
        return Ok(vec![Endpoint::Unix(socket)]);
    }
    let tcp = |ip: IpAddr| Endpoint::Tcp((ip, address.port).into());
    match address.at {
        At::Any => {}
        At::Each => {
            let reason = "its nodes have not been found yet".to_owned();
            return Err(ConnectError::Resolve { host: address.host.clone(), reason });
        }
        At::Ip(ip) => return Ok(vec![tcp(ip)]),
    }
    if let Ok(ip) = address.host.parse() {
        return Ok(vec![tcp(ip)]);
    }
    let unknown = |reason: String| ConnectError::Resolve { host: address.host.clone(), reason };
    if let Some(names) = &address.names {
        return Ok(names.look_up(&address.host).await.map_err(unknown)?.into_iter().map(tcp).collect());
    }
    let found = tokio::net::lookup_host((address.host.as_str(), address.port)).await;
    Ok(found.map_err(|e| unknown(e.to_string()))?.map(Endpoint::Tcp).collect())
}
