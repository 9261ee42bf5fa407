//! A session that listens for pooler's clients: queries without rows, and notifications whenever they come. Stays on tokio.
//!
//! Source: PostgreSQL docs, "Message Flow", "Asynchronous Operations"; async.c. What another session has notified before
//! its client was told that it has committed comes before the answer to a query that is sent then: the signal is there
//! first, and a backend tells what it has been signalled before each ReadyForQuery.

use std::ops::Range;

use super::{
    ConnectError, ConnectSpec, QueryError, ServerError,
    connect::{Opened, open_session},
    login::Session,
    own::MAX_REPLY,
    wire::Wire,
};
use crate::protocol::{
    backend, encode,
    frame::{HEADER, Header, split_cstr, split_u32},
};

/// Bytes asked for at once.
const READ: usize = 32 << 10;

/// Notifications in the order in which they came, as the server has written them.
#[derive(Debug, Default)]
pub struct Notifications {
    bytes: Vec<u8>,
    items: Vec<Notification>,
}

/// One of them.
#[derive(Clone, Debug)]
pub struct Notification {
    /// The backend that it comes from.
    pub pid: u32,
    message: Range<usize>,
    channel: Range<usize>,
}

impl Notifications {
    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Notification> {
        self.items.iter()
    }

    /// None.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Bytes of all messages.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// The channel of one.
    pub fn channel(&self, of: &Notification) -> &[u8] {
        self.bytes.get(of.channel.clone()).unwrap_or_default()
    }

    /// Appends the message of one, as if it came from this backend.
    pub fn write(&self, of: &Notification, pid: u32, out: &mut Vec<u8>) {
        const PID: usize = 4;
        let message = self.bytes.get(of.message.clone()).unwrap_or_default();
        out.extend_from_slice(message.get(..HEADER).unwrap_or_default());
        out.extend_from_slice(&pid.to_be_bytes());
        out.extend_from_slice(message.get(HEADER + PID..).unwrap_or_default());
    }

    /// Appends a NotificationResponse; `None` if it is malformed.
    fn push(&mut self, message: &[u8]) -> Option<()> {
        let (pid, behind) = split_u32(message.get(HEADER..)?)?;
        let (channel, payload) = split_cstr(behind)?;
        split_cstr(payload).filter(|(_, rest)| rest.is_empty())?;
        let start = self.bytes.len();
        let name = start + message.len() - behind.len();
        self.bytes.extend_from_slice(message);
        let channel = name..name + channel.len();
        self.items.push(Notification { pid, message: start..self.bytes.len(), channel });
        Some(())
    }
}

/// What has come.
#[derive(Debug, Default)]
pub struct Heard {
    pub notifications: Notifications,
    /// Queries that have been answered. All that was to come before the answers is here.
    pub answers: usize,
}

/// The session.
pub struct ListeningSession {
    wire: Wire,
    session: Session,
}

impl std::fmt::Debug for ListeningSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ListeningSession").field("pid", &self.session.key.pid).finish_non_exhaustive()
    }
}

impl ListeningSession {
    /// Logs in, within the time of `spec`.
    pub async fn connect(spec: &ConnectSpec) -> Result<Self, ConnectError> {
        let Opened { mut wire, session, .. } = open_session(spec).await?;
        wire.longest = MAX_REPLY;
        wire.at_once = READ;
        Ok(Self { wire, session })
    }

    /// Its backend's.
    pub fn pid(&self) -> u32 {
        self.session.key.pid
    }

    /// Where it is connected to.
    pub fn peer(&self) -> String {
        self.wire.endpoint.to_string()
    }

    /// Sends a query that has no rows, or whose rows are of no interest.
    pub async fn ask(&mut self, sql: &str) -> Result<(), QueryError> {
        let mut query = Vec::with_capacity(sql.len() + 8);
        encode::query(&mut query, sql);
        Ok(self.wire.send(&query).await?)
    }

    /// Waits for what comes, and gives all that is here. May be given up and called again. An error ends the session.
    pub async fn hear(&mut self) -> Result<Heard, QueryError> {
        loop {
            let bytes = self.wire.messages().await?;
            let heard = read(&bytes)?;
            if heard.answers > 0 || !heard.notifications.is_empty() {
                return Ok(heard);
            }
        }
    }

    /// Ends the session as the protocol wants it.
    pub async fn close(mut self) {
        let mut goodbye = Vec::new();
        encode::terminate(&mut goodbye);
        // The server finds out either way.
        let _ = self.wire.send(&goodbye).await;
    }
}

/// Reads whole messages.
fn read(bytes: &[u8]) -> Result<Heard, QueryError> {
    let mut heard = Heard::default();
    let mut rest = bytes;
    while let Some(header) = Header::peek(rest) {
        let (message, behind) = rest.split_at_checked(header.total()).unwrap_or((rest, &[]));
        rest = behind;
        match header.tag {
            backend::NOTIFICATION_RESPONSE => {
                let pushed = heard.notifications.push(message);
                pushed.ok_or(QueryError::Protocol("malformed NotificationResponse"))?;
            }
            backend::READY_FOR_QUERY => heard.answers += 1,
            backend::ERROR_RESPONSE => {
                let body = message.get(HEADER..).unwrap_or_default().to_vec();
                return Err(QueryError::Server(Box::new(ServerError::new(body, false))));
            }
            _ => {}
        }
    }
    Ok(heard)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notification(pid: u32, channel: &str, payload: &str) -> Vec<u8> {
        let mut out = Vec::new();
        encode::message(&mut out, backend::NOTIFICATION_RESPONSE, |b| {
            b.extend_from_slice(&pid.to_be_bytes());
            encode::cstr(b, channel.as_bytes());
            encode::cstr(b, payload.as_bytes());
        });
        out
    }

    #[test]
    fn notifications_are_passed_on_as_they_came() {
        let mut ready = Vec::new();
        encode::ready_for_query(&mut ready, b'I');
        let first = notification(7, "news", "");
        let second = notification(8, "a\u{fc}", "hello");
        let heard = read(&[&first[..], &ready[..], &second[..]].concat()).unwrap();
        assert_eq!((heard.answers, heard.notifications.len()), (1, 2));
        let told: Vec<(u32, Vec<u8>)> = heard
            .notifications
            .iter()
            .map(|one| (one.pid, heard.notifications.channel(one).to_vec()))
            .collect();
        assert_eq!(told, [(7, b"news".to_vec()), (8, "a\u{fc}".as_bytes().to_vec())]);
        let mut out = Vec::new();
        for (one, pid) in heard.notifications.iter().zip([7, 9]) {
            heard.notifications.write(one, pid, &mut out);
        }
        assert_eq!(out, [first, notification(9, "a\u{fc}", "hello")].concat());
    }

    #[test]
    fn malformed_notifications_and_errors_end_the_session() {
        for cut in 1..8 {
            let mut message = notification(7, "news", "");
            message.truncate(message.len() - cut);
            let length = u32::try_from(message.len() - 1).unwrap();
            message[1..5].copy_from_slice(&length.to_be_bytes());
            assert!(matches!(read(&message), Err(QueryError::Protocol(_))), "{cut}");
        }
        let mut error = Vec::new();
        encode::error(&mut error, encode::Severity::Fatal, "57P01", "the end", None, None);
        assert!(matches!(read(&error), Err(QueryError::Server(_))));
    }
}
