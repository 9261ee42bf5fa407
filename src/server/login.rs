//! The login itself, from the startup packet to ReadyForQuery, on a connection that is open.
//!
//! Source: PostgreSQL docs, "Message Flow", "Start-up". Sequential code: a server sends what it likes in
//! any order, and each message is taken for what it is.

use super::{
    ConnectError, ConnectSpec, Credentials, ServerError,
    wire::{Message, Wire},
};
use crate::{
    auth::{AuthError, ScramClient, ScramSecretSource, md5},
    protocol::{
        BackendKeyData, ProtocolVersion, TransactionStatus, backend, encode,
        frame::{split_cstr, split_u32},
        frontend,
    },
};

/// What the server said of the new session.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) key: BackendKeyData,
    pub(super) protocol: ProtocolVersion,
    pub(super) parameters: Vec<(String, String)>,
}

/// Logs in with `version`; `end_point` is the channel binding, if there is one.
pub(super) async fn log_in(
    wire: &mut Wire,
    spec: &ConnectSpec,
    version: ProtocolVersion,
    end_point: Option<Vec<u8>>,
) -> Result<Session, ConnectError> {
    wire.send(&startup_packet(spec, version)).await?;
    // Without BackendKeyData nothing can be cancelled; pid 0 belongs to nobody.
    let key = BackendKeyData { pid: 0, secret: Box::default() };
    let mut session = Session { key, protocol: version, parameters: Vec::new() };
    authenticate(wire, spec, &mut session, end_point).await?;
    finish_startup(wire, &mut session).await?;
    if let Some(sql) = &spec.connect_query {
        run_connect_query(wire, sql, &mut session).await?;
    }
    Ok(session)
}

fn startup_packet(spec: &ConnectSpec, version: ProtocolVersion) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    encode::sized(&mut out, |body| {
        body.extend_from_slice(&version.0.to_be_bytes());
        let own = [("user", spec.user.as_str()), ("database", spec.database.as_str())];
        let further = spec.parameters.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        // An empty name would end the packet; user and database are not for parameters to change.
        let further = further.filter(|(name, _)| !matches!(*name, "" | "user" | "database"));
        for (name, value) in own.into_iter().chain(further) {
            encode::cstr(body, name.as_bytes());
            encode::cstr(body, value.as_bytes());
        }
        body.push(0);
    });
    out
}

/// From the startup packet to AuthenticationOk.
async fn authenticate(
    wire: &mut Wire,
    spec: &ConnectSpec,
    session: &mut Session,
    end_point: Option<Vec<u8>>,
) -> Result<(), ConnectError> {
    let mut asked = false;
    let mut scram = Scram::None;
    loop {
        let Message { tag, body } = wire.message().await?;
        match tag {
            backend::AUTHENTICATION => {
                asked = true;
                match Request::read(&body)? {
                    Request::Ok => return scram.check_done(),
                    Request::ClearText => send_secret(wire, clear_text(&spec.credentials)?).await?,
                    Request::Md5(salt) => send_secret(wire, &md5_answer(spec, salt)?).await?,
                    Request::Sasl(mechanisms) => {
                        scram = Scram::start(wire, spec, end_point.as_deref(), &mechanisms).await?;
                    }
                    Request::SaslContinue(data) => scram = scram.go_on(wire, data.to_vec()).await?,
                    Request::SaslFinal(data) => scram = scram.finish(data)?,
                }
            }
            backend::ERROR_RESPONSE => return Err(refused(body, !asked)),
            backend::NEGOTIATE_PROTOCOL_VERSION => session.protocol = negotiated(&body, session.protocol)?,
            backend::NOTICE_RESPONSE => log_notice(&body),
            _ => {
                return Err(ConnectError::Protocol(
                    "unexpected message from the server before authentication",
                ));
            }
        }
    }
}

/// From AuthenticationOk to ReadyForQuery.
async fn finish_startup(wire: &mut Wire, session: &mut Session) -> Result<(), ConnectError> {
    loop {
        let Message { tag, body } = wire.message().await?;
        match tag {
            backend::READY_FOR_QUERY => return Ok(()),
            backend::BACKEND_KEY_DATA => session.key = key_data(&body)?,
            backend::PARAMETER_STATUS => session.set_parameter(&body)?,
            backend::ERROR_RESPONSE => return Err(refused(body, false)),
            backend::NEGOTIATE_PROTOCOL_VERSION => session.protocol = negotiated(&body, session.protocol)?,
            backend::NOTICE_RESPONSE => log_notice(&body),
            _ => {
                return Err(ConnectError::Protocol(
                    "unexpected message from the server after authentication",
                ));
            }
        }
    }
}

/// Runs connect_query. Its errors are logged only; an open transaction makes the connection useless.
async fn run_connect_query(wire: &mut Wire, sql: &str, session: &mut Session) -> Result<(), ConnectError> {
    let mut query = Vec::new();
    encode::query(&mut query, sql);
    wire.send(&query).await?;
    loop {
        let Message { tag, body } = wire.message().await?;
        match tag {
            backend::READY_FOR_QUERY => {
                let status = TransactionStatus::from_byte(body.first().copied().unwrap_or_default());
                return match status {
                    TransactionStatus::Idle => Ok(()),
                    _ => Err(ConnectError::OpenTransaction),
                };
            }
            backend::PARAMETER_STATUS => session.set_parameter(&body)?,
            backend::ERROR_RESPONSE => {
                let error = ServerError::new(body, false);
                // FATAL: no ReadyForQuery follows.
                if error.field(b'V').or(error.field(b'S')).is_some_and(|s| s == "FATAL" || s == "PANIC") {
                    return Err(ConnectError::Refused(Box::new(error)));
                }
                tracing::warn!("connect_query failed: {error}");
            }
            backend::COPY_IN_RESPONSE | backend::COPY_BOTH_RESPONSE => {
                let mut fail = Vec::new();
                encode::message(&mut fail, frontend::COPY_FAIL, |b| {
                    encode::cstr(b, b"connect_query cannot copy")
                });
                wire.send(&fail).await?;
            }
            _ => {}
        }
    }
}

impl Session {
    pub(super) fn set_parameter(&mut self, body: &[u8]) -> Result<(), ConnectError> {
        let read = split_cstr(body).and_then(|(name, rest)| Some((name, split_cstr(rest)?.0)));
        let (name, value) = read.ok_or(ConnectError::Protocol("malformed ParameterStatus"))?;
        let name = String::from_utf8_lossy(name).into_owned();
        let value = String::from_utf8_lossy(value).into_owned();
        match self.parameters.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = value,
            None => self.parameters.push((name, value)),
        }
        Ok(())
    }
}

/// An Authentication request.
enum Request<'a> {
    Ok,
    ClearText,
    Md5([u8; 4]),
    Sasl(Vec<&'a str>),
    SaslContinue(&'a [u8]),
    SaslFinal(&'a [u8]),
}

impl<'a> Request<'a> {
    fn read(body: &'a [u8]) -> Result<Self, ConnectError> {
        let malformed = || ConnectError::Protocol("malformed Authentication request");
        let (code, data) = split_u32(body).ok_or_else(malformed)?;
        match code {
            0 => Ok(Self::Ok),
            3 => Ok(Self::ClearText),
            5 => Ok(Self::Md5(*data.first_chunk().ok_or_else(malformed)?)),
            10 => {
                let names = data.split(|&b| b == 0).filter(|name| !name.is_empty());
                Ok(Self::Sasl(names.filter_map(|name| std::str::from_utf8(name).ok()).collect()))
            }
            11 => Ok(Self::SaslContinue(data)),
            12 => Ok(Self::SaslFinal(data)),
            2 => Err(ConnectError::Method("Kerberos V5")),
            7 | 8 => Err(ConnectError::Method("GSSAPI")),
            9 => Err(ConnectError::Method("SSPI")),
            _ => Err(ConnectError::Method("of an unknown number")),
        }
    }
}

/// Where the SCRAM exchange is.
enum Scram {
    None,
    /// The first message is out.
    Started {
        client: Box<ScramClient>,
        slow: bool,
    },
    /// The proof is out; the server has to prove itself.
    Proved(Box<ScramClient>),
    Done,
}

impl Scram {
    async fn start(
        wire: &mut Wire,
        spec: &ConnectSpec,
        end_point: Option<&[u8]>,
        mechanisms: &[&str],
    ) -> Result<Self, ConnectError> {
        let (source, slow) = match &spec.credentials {
            Credentials::Password(password) => (ScramSecretSource::Password(&password.0), true),
            Credentials::Scram(keys) => (ScramSecretSource::Keys(keys), false),
            other => return Err(wrong_secret("a SCRAM proof", other)),
        };
        let (client, mechanism, initial) = ScramClient::new(source, end_point, mechanisms)?;
        let mut payload = Vec::new();
        encode::cstr(&mut payload, mechanism.as_bytes());
        payload.extend_from_slice(&u32::try_from(initial.len()).unwrap_or(0).to_be_bytes());
        payload.extend_from_slice(&initial);
        send_response(wire, &payload).await?;
        Ok(Self::Started { client: Box::new(client), slow })
    }

    async fn go_on(self, wire: &mut Wire, data: Vec<u8>) -> Result<Self, ConnectError> {
        let Self::Started { mut client, slow } = self else {
            return Err(ConnectError::Protocol("unexpected SASL message from the server"));
        };
        let (client, response) = if slow {
            // PBKDF2 takes milliseconds: not on a thread that others wait for.
            let task = tokio::task::spawn_blocking(move || {
                let response = client.on_continue(&data);
                (client, response)
            });
            task.await.map_err(|_| AuthError::Internal)?
        } else {
            let response = client.on_continue(&data);
            (client, response)
        };
        send_response(wire, &response?).await?;
        Ok(Self::Proved(client))
    }

    fn finish(self, data: &[u8]) -> Result<Self, ConnectError> {
        let Self::Proved(mut client) = self else {
            return Err(ConnectError::Protocol("unexpected SASL message from the server"));
        };
        client.on_final(data)?;
        Ok(Self::Done)
    }

    /// A server that began SCRAM must have proved that it knows the secret.
    fn check_done(self) -> Result<(), ConnectError> {
        match self {
            Self::None | Self::Done => Ok(()),
            Self::Started { .. } | Self::Proved(_) => Err(AuthError::ServerSignature.into()),
        }
    }
}

fn clear_text(credentials: &Credentials) -> Result<&str, ConnectError> {
    match credentials {
        Credentials::Password(password) => Ok(&password.0),
        other => Err(wrong_secret("a password in clear text", other)),
    }
}

fn md5_answer(spec: &ConnectSpec, salt: [u8; 4]) -> Result<String, ConnectError> {
    match &spec.credentials {
        Credentials::Password(password) => Ok(md5::hash(&spec.user, &password.0, salt)),
        Credentials::Md5(stored) => Ok(md5::hash_stored(&stored.0, salt)),
        other => Err(wrong_secret("an MD5 password", other)),
    }
}

fn wrong_secret(asked: &'static str, credentials: &Credentials) -> ConnectError {
    let have = match credentials {
        Credentials::None => "no password",
        Credentials::Password(_) => "a password",
        Credentials::Md5(_) => "only an MD5 hash",
        Credentials::Scram(_) => "only SCRAM keys",
    };
    ConnectError::WrongSecret { asked, have }
}

/// PasswordMessage.
async fn send_secret(wire: &mut Wire, secret: &str) -> Result<(), ConnectError> {
    let mut payload = Vec::with_capacity(secret.len() + 1);
    encode::cstr(&mut payload, secret.as_bytes());
    send_response(wire, &payload).await
}

async fn send_response(wire: &mut Wire, payload: &[u8]) -> Result<(), ConnectError> {
    let mut out = Vec::with_capacity(payload.len() + 5);
    encode::password(&mut out, payload);
    wire.send(&out).await
}

fn refused(fields: Vec<u8>, before_authentication: bool) -> ConnectError {
    ConnectError::Refused(Box::new(ServerError::new(fields, before_authentication)))
}

/// NegotiateProtocolVersion: the newest version that the server serves.
fn negotiated(body: &[u8], asked: ProtocolVersion) -> Result<ProtocolVersion, ConnectError> {
    let (number, _) = split_u32(body).ok_or(ConnectError::Protocol("malformed NegotiateProtocolVersion"))?;
    let version = ProtocolVersion(number);
    // The documentation once said "minor version"; PostgreSQL sends both halves.
    let version =
        if version.major() == 0 { ProtocolVersion(ProtocolVersion::V3_0.0 | number) } else { version };
    if version.major() != 3 || version > asked {
        return Err(ConnectError::Protocol("server negotiates a protocol version that was not asked for"));
    }
    Ok(version)
}

/// 4 bytes in 3.0, up to 256 in 3.2; some that speak 3.0 send more than 4, which does no harm.
fn key_data(body: &[u8]) -> Result<BackendKeyData, ConnectError> {
    match split_u32(body) {
        Some((pid, secret)) if (4..=256).contains(&secret.len()) => {
            Ok(BackendKeyData { pid, secret: secret.into() })
        }
        _ => Err(ConnectError::Protocol("malformed BackendKeyData")),
    }
}

fn log_notice(body: &[u8]) {
    let text = backend::error_field(body, b'M').map(String::from_utf8_lossy).unwrap_or_default();
    tracing::debug!("notice during server login: {text}");
}
