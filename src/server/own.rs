//! Sessions for pooler's own questions: what a node is, what a catalog holds. They stay on tokio.
//!
//! One question at a time, by the simple protocol, or the extended one if it has a parameter. Whoever gives up waiting drops the session: nothing is known of
//! the answer then, and no other question may follow it. Source: PostgreSQL docs, "Message Flow", "Simple Query".

use std::time::Duration;

use super::{
    ConnectError, ConnectSpec, ServerError,
    connect::{Opened, open_session},
    login::Session,
    wire::{Message, Wire},
};
use crate::protocol::{TransactionStatus, backend, encode, frame::split_cstr, frontend};

/// Most bytes of one reply: catalogs of many thousand functions fit.
pub(super) const MAX_REPLY: usize = 64 << 20;

/// The columns of a row as text; `None`: NULL.
pub type Row = Vec<Option<String>>;

/// A result set with the names of its columns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    pub columns: Vec<String>,
    pub rows: Vec<Row>,
}

/// A question that got no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum QueryError {
    /// ErrorResponse; the session can be used on if it says so.
    #[error("{0}")]
    Server(Box<ServerError>),
    /// The connection is gone.
    #[error("{0}")]
    Lost(ConnectError),
    #[error("no answer in {} s", .0.as_secs_f32())]
    Timeout(Duration),
    #[error("the answer is longer than {MAX_REPLY} bytes")]
    TooLong,
    #[error("{0}")]
    Protocol(&'static str),
    /// An earlier question failed.
    #[error("the session is not usable any more")]
    Unusable,
}

impl QueryError {
    /// The server's SQLSTATE.
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Server(error) => error.sqlstate(),
            _ => None,
        }
    }
}

impl From<ConnectError> for QueryError {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Protocol(what) => Self::Protocol(what),
            other => Self::Lost(other),
        }
    }
}

/// A session of pooler itself.
pub struct OwnSession {
    wire: Wire,
    session: Session,
    usable: bool,
}

impl std::fmt::Debug for OwnSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OwnSession").field("pid", &self.session.key.pid).finish_non_exhaustive()
    }
}

impl OwnSession {
    /// Logs in, within the time of `spec`.
    pub async fn connect(spec: &ConnectSpec) -> Result<Self, ConnectError> {
        let Opened { mut wire, session, .. } = open_session(spec).await?;
        wire.longest = MAX_REPLY;
        Ok(Self { wire, session, usable: true })
    }

    /// Rows of the last result set. A session that failed is not usable any more, but for errors of the server that
    /// ended nothing but the statement.
    pub async fn query(&mut self, sql: &str, limit: Duration) -> Result<Vec<Row>, QueryError> {
        self.results(sql, limit).await.map(|mut sets| sets.pop().unwrap_or_default())
    }

    /// Rows of every result set of a text with several statements.
    pub async fn results(&mut self, sql: &str, limit: Duration) -> Result<Vec<Vec<Row>>, QueryError> {
        let tables = self.tables(sql, limit).await?;
        Ok(tables.into_iter().map(|table| table.rows).collect())
    }

    /// The last result set, with the names of its columns.
    pub async fn table(&mut self, sql: &str, limit: Duration) -> Result<Table, QueryError> {
        self.tables(sql, limit).await.map(|mut tables| tables.pop().unwrap_or_default())
    }

    async fn tables(&mut self, sql: &str, limit: Duration) -> Result<Vec<Table>, QueryError> {
        let mut query = Vec::with_capacity(sql.len() + 8);
        encode::query(&mut query, sql);
        self.asked(query, limit).await
    }

    async fn asked(&mut self, request: Vec<u8>, limit: Duration) -> Result<Vec<Table>, QueryError> {
        if !std::mem::take(&mut self.usable) {
            return Err(QueryError::Unusable);
        }
        match tokio::time::timeout(limit, self.exchange(&request)).await {
            Ok(answer) => answer,
            Err(_) => Err(QueryError::Timeout(limit)),
        }
    }

    /// Rows of a statement with one parameter, a text.
    pub async fn query_with(
        &mut self,
        sql: &str,
        parameter: &str,
        limit: Duration,
    ) -> Result<Vec<Row>, QueryError> {
        let mut request = Vec::with_capacity(sql.len() + parameter.len() + 64);
        encode::unnamed(&mut request, sql, parameter);
        self.asked(request, limit).await.map(|mut sets| sets.pop().unwrap_or_default().rows)
    }

    /// A question may follow.
    pub fn is_usable(&self) -> bool {
        self.usable
    }

    /// The newest value of a parameter that the server reports.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        let known = self.session.parameters.iter().find(|(known, _)| known == name);
        known.map(|(_, value)| value.as_str())
    }

    /// TLS protects the session.
    pub fn is_encrypted(&self) -> bool {
        self.wire.tls().is_some()
    }

    /// The server is a standby, as it last reported; servers before 14 do not.
    pub fn in_hot_standby(&self) -> Option<bool> {
        self.parameter("in_hot_standby").map(|value| value == "on")
    }

    /// Ends when the server ends the session; a question may be asked instead of waiting on.
    pub async fn closed(&mut self) -> QueryError {
        loop {
            let error = match self.wire.message().await {
                Ok(Message { tag: backend::PARAMETER_STATUS, body }) => {
                    let Err(error) = self.session.set_parameter(&body) else { continue };
                    error.into()
                }
                Ok(Message { tag: backend::ERROR_RESPONSE, body }) => {
                    QueryError::Server(Box::new(ServerError::new(body, false)))
                }
                Ok(_) => continue,
                Err(error) => error.into(),
            };
            self.usable = false;
            return error;
        }
    }

    /// Ends the session as the protocol wants it.
    pub async fn close(mut self) {
        let mut goodbye = Vec::new();
        encode::terminate(&mut goodbye);
        // The server finds out either way.
        let _ = self.wire.send(&goodbye).await;
    }

    async fn exchange(&mut self, request: &[u8]) -> Result<Vec<Table>, QueryError> {
        self.wire.send(request).await?;
        let mut answer = Answer::default();
        loop {
            let Message { tag, body } = self.wire.message().await?;
            match tag {
                backend::READY_FOR_QUERY => {
                    self.usable = body.first().copied().map(TransactionStatus::from_byte)
                        == Some(TransactionStatus::Idle);
                    return answer.finish();
                }
                backend::PARAMETER_STATUS => self.session.set_parameter(&body)?,
                backend::COPY_IN_RESPONSE | backend::COPY_BOTH_RESPONSE => {
                    let mut fail = Vec::new();
                    encode::message(&mut fail, frontend::COPY_FAIL, |b| {
                        encode::cstr(b, b"pooler does not copy")
                    });
                    self.wire.send(&fail).await?;
                }
                _ => answer.take(tag, body)?,
            }
        }
    }
}

/// What has come so far.
#[derive(Default)]
struct Answer {
    sets: Vec<Table>,
    size: usize,
    error: Option<Box<ServerError>>,
}

impl Answer {
    fn take(&mut self, tag: u8, body: Vec<u8>) -> Result<(), QueryError> {
        self.size += body.len();
        if self.size > MAX_REPLY {
            return Err(QueryError::TooLong);
        }
        match tag {
            backend::ROW_DESCRIPTION => {
                let columns = columns(&body).ok_or(QueryError::Protocol("malformed RowDescription"))?;
                self.sets.push(Table { columns, rows: Vec::new() });
            }
            backend::DATA_ROW => {
                let row = row(&body).ok_or(QueryError::Protocol("malformed DataRow"))?;
                let set =
                    self.sets.last_mut().ok_or(QueryError::Protocol("DataRow without RowDescription"))?;
                set.rows.push(row);
            }
            backend::ERROR_RESPONSE => {
                let error = Box::new(ServerError::new(body, false));
                // No ReadyForQuery follows.
                if error.field(b'V').or(error.field(b'S')).is_some_and(|s| s == "FATAL" || s == "PANIC") {
                    return Err(QueryError::Server(error));
                }
                self.error = Some(error);
            }
            _ => {}
        }
        Ok(())
    }

    fn finish(self) -> Result<Vec<Table>, QueryError> {
        match self.error {
            Some(error) => Err(QueryError::Server(error)),
            None => Ok(self.sets),
        }
    }
}

/// The names in a RowDescription.
fn columns(body: &[u8]) -> Option<Vec<String>> {
    let (count, mut rest) = body.split_first_chunk::<2>()?;
    let mut names = Vec::new();
    for _ in 0..u16::from_be_bytes(*count) {
        let (name, tail) = split_cstr(rest)?;
        names.push(String::from_utf8_lossy(name).into_owned());
        // Table, column, type, its size and modifier, format.
        rest = tail.get(18..)?;
    }
    rest.is_empty().then_some(names)
}

/// Reads a DataRow.
fn row(body: &[u8]) -> Option<Row> {
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    Some(backend::data_row(body)?.into_iter().map(|value| value.map(text)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_whole_or_not_at_all() {
        let body = [0, 2, 0, 0, 0, 2, b'h', b'i', 0xff, 0xff, 0xff, 0xff];
        assert_eq!(row(&body), Some(vec![Some("hi".to_owned()), None]));
        for cut in 0..body.len() {
            assert_eq!(row(&body[..cut]), None, "{cut}");
        }
        assert_eq!(row(&[&body[..], &[0]].concat()), None);
    }

    #[test]
    fn names_of_columns_are_read_whole_or_not_at_all() {
        let field = |name: &str| [name.as_bytes(), &[0; 19][..]].concat();
        let body = [&[0, 2][..], &field("database"), &field("")].concat();
        assert_eq!(columns(&body), Some(vec!["database".to_owned(), String::new()]));
        for cut in 0..body.len() {
            assert_eq!(columns(&body[..cut]), None, "{cut}");
        }
        assert_eq!(columns(&[&body[..], &[0]].concat()), None);
    }
}
