//! A span of OpenTelemetry for each transaction that is traced: what is noted of it while it runs, and where it goes then.
//!
//! Without `otlp_endpoint` nothing is noted, and no text is looked at. With it, texts are searched for the comment of
//! sqlcommenter as they are sent: a statement that is prepared tells of the transaction that prepares it. Spans wait in a bounded
//! queue for [`export`]; what does not fit is dropped and counted.

mod document;
mod export;

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use tokio::sync::{
    mpsc::{self, Receiver, Sender},
    oneshot,
};

pub(crate) use export::export;

use super::{Worker, server::ServerState};
use crate::{
    cluster::Role,
    pool::Pool,
    protocol::{
        frame::{HEADER, Header, split_cstr},
        frontend as fe,
    },
    sql::traceparent::TraceParent,
};

/// So many spans wait; more are dropped.
const QUEUE: usize = 4096;
/// So many transactions of a pipeline have one span at most.
const MOST_TOGETHER: u64 = 1_000;
/// Longest of the words below.
const LONGEST_WORD: usize = 12;

/// First words that may name a span: names are to be few.
const OPERATIONS: [&str; 38] = [
    "ALTER",
    "ANALYZE",
    "BEGIN",
    "CALL",
    "CLOSE",
    "COMMENT",
    "COMMIT",
    "COPY",
    "CREATE",
    "DEALLOCATE",
    "DECLARE",
    "DELETE",
    "DISCARD",
    "DO",
    "DROP",
    "END",
    "EXECUTE",
    "EXPLAIN",
    "FETCH",
    "GRANT",
    "INSERT",
    "LISTEN",
    "LOCK",
    "MERGE",
    "NOTIFY",
    "PREPARE",
    "REFRESH",
    "RESET",
    "REVOKE",
    "ROLLBACK",
    "SELECT",
    "SET",
    "SHOW",
    "START",
    "TRUNCATE",
    "UPDATE",
    "VALUES",
    "WITH",
];

/// What is noted of a server's transaction.
#[derive(Debug, Default)]
pub(crate) struct Recording {
    /// A transaction is under way.
    open: bool,
    parent: Option<TraceParent>,
    /// The first word of its first text.
    operation: Option<&'static str>,
    queries: u64,
    /// So many have ended, and another one was on its way.
    transactions: u64,
    /// How long its client has waited for the server, and since when that has it; in microseconds of the process clock.
    waited: u64,
    began: u64,
    /// Rows that the server had told of before.
    rows: u64,
    error: Option<[u8; 5]>,
    /// Why it went where it goes.
    route: &'static str,
}

/// A transaction that is to be told of.
#[derive(Debug)]
pub(crate) struct Span {
    parent: Option<TraceParent>,
    operation: Option<&'static str>,
    pool: Arc<Pool>,
    /// Address and port of the server.
    peer: (String, u16),
    role: Option<Role>,
    /// Unix time in microseconds: when it began to wait, when it had a server, when it was over.
    waits_since: u64,
    began: u64,
    ended: u64,
    queries: u64,
    rows: u64,
    transactions: u64,
    error: Option<[u8; 5]>,
    /// It did not come to its end.
    cut: Option<&'static str>,
    route: &'static str,
    /// What SHOW CLIENTS calls its id; `None`: it has left.
    client: Option<u64>,
}

/// What the task that sends spans gets.
enum Item {
    Span(Box<Span>),
    /// Send what there is, and say so.
    Flush(oneshot::Sender<()>),
}

/// The queue, and what has become of spans.
#[derive(Debug)]
pub(crate) struct Spans {
    queue: Sender<Item>,
    /// Until the task has it that sends them.
    waiting: Mutex<Option<Receiver<Item>>>,
    pub(crate) exported: AtomicU64,
    /// There was no room in the queue.
    pub(crate) dropped: AtomicU64,
    /// The collector did not take them.
    pub(crate) failed: AtomicU64,
}

impl std::fmt::Debug for Item {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Span(_) => "Span",
            Self::Flush(_) => "Flush",
        })
    }
}

impl Default for Spans {
    fn default() -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE);
        let waiting = Mutex::new(Some(waiting));
        let [exported, dropped, failed] = [(); 3].map(|()| AtomicU64::new(0));
        Self { queue, waiting, exported, dropped, failed }
    }
}

impl Spans {
    fn take_queue(&self) -> Option<Receiver<Item>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn add(&self, span: Box<Span>) {
        if self.queue.try_send(Item::Span(span)).is_err() {
            self.dropped.fetch_add(1, Relaxed);
        }
    }

    /// Sends what there is. Returns when it has been tried, or at once if nothing can be.
    pub(crate) async fn flush(&self) {
        let (done, answer) = oneshot::channel();
        if self.queue.try_send(Item::Flush(done)).is_ok() {
            let _ = answer.await;
        }
    }
}

impl Recording {
    /// A text of the transaction is sent.
    fn note_text(&mut self, text: &[u8]) {
        if self.parent.is_none() {
            self.parent = TraceParent::of(text);
        }
        if self.operation.is_none() {
            self.operation = Some(operation(text));
        }
    }

    /// Whatever texts are among messages, behind the rest of one that began before.
    fn note_messages(&mut self, bytes: &[u8], passing: usize) {
        let mut rest = bytes.get(passing..).unwrap_or_default();
        while let Some(header) = Header::peek(rest) {
            let message = rest.get(..header.total().min(rest.len())).unwrap_or_default();
            let body = message.get(HEADER..).unwrap_or_default();
            match header.tag {
                fe::QUERY => self.note_text(body),
                fe::PARSE => {
                    let text = split_cstr(body).map(|(_, behind)| behind);
                    self.note_text(text.and_then(split_cstr).map_or(&[], |(text, _)| text));
                }
                _ => {}
            }
            rest = rest.get(message.len()..).unwrap_or_default();
        }
    }
}

/// The first word of a text, if it is a command's; else nothing.
fn operation(text: &[u8]) -> &'static str {
    let mut text = text.trim_ascii_start();
    while let Some(inner) = text.strip_prefix(b"/*") {
        let Some(end) = memchr::memmem::find(inner, b"*/") else { return "" };
        text = inner.get(end + 2..).unwrap_or_default().trim_ascii_start();
    }
    let len = text.iter().take(LONGEST_WORD).take_while(|byte| byte.is_ascii_alphabetic()).count();
    let word = text.get(..len).unwrap_or_default();
    OPERATIONS.into_iter().find(|known| word.eq_ignore_ascii_case(known.as_bytes())).unwrap_or_default()
}

impl Worker {
    /// Transactions may be traced.
    pub(super) fn traces(&self) -> bool {
        self.config.settings.otlp_endpoint.is_some()
    }

    /// A client has been given a server, for which it has waited so long.
    pub(super) fn span_waited(&mut self, slot: usize, waited: u64) {
        if let Some(server) = self.servers.get_mut(slot) {
            **server.recording.get_or_insert_default() = Recording { waited, ..Recording::default() };
        }
    }

    /// Bytes of a client go to its server. `first`: of a transaction, in front of which `begin` is sent. `passing`: so many of
    /// them belong to a message that began before.
    pub(super) fn span_sent(
        &mut self,
        (client, server): (usize, usize),
        bytes: &[u8],
        passing: usize,
        queries: u64,
        first: Option<Option<&[u8]>>,
    ) {
        let route = self.clients.get(client).and_then(|client| client.routing.as_ref());
        let route = route.map_or("", |routing| routing.why.as_str());
        let now = self.now;
        let Some(server) = self.servers.get_mut(server).filter(|_| !bytes.is_empty()) else { return };
        let rows = server.session.rows_told;
        let recording = server.recording.get_or_insert_default();
        if let Some(begin) = first.filter(|_| !recording.open) {
            let waited = std::mem::take(&mut recording.waited);
            let routed = if server.pool.seat.is_some() { route } else { "" };
            **recording =
                Recording { open: true, waited, began: now, rows, route: routed, ..Recording::default() };
            if let Some(begin) = begin {
                recording.queries = 1;
                recording.note_text(begin);
            }
        }
        if recording.open {
            recording.queries += queries;
            recording.note_messages(bytes, passing);
        }
    }

    /// A server has said so much about what its client has asked for: errors, and ends of transactions.
    pub(super) fn span_answered(&mut self, slot: usize, error: Option<[u8; 5]>, transactions: u64) {
        let Some(server) = self.servers.get_mut(slot) else { return };
        let Some(recording) = &mut server.recording else { return };
        recording.error = recording.error.or(error);
        recording.transactions += transactions;
        // Those that are sent without waiting for each other are told of together.
        let over = server.session.is_free() || recording.transactions >= MOST_TOGETHER;
        if recording.transactions > 0 && over {
            self.end_span(slot, None);
        }
    }

    /// A transaction is over, or `cut` off.
    pub(super) fn end_span(&mut self, slot: usize, cut: Option<&'static str>) {
        let Some(server) = self.servers.get_mut(slot) else { return };
        let Some(recording) = server.recording.as_mut().filter(|recording| recording.open) else { return };
        let recording = std::mem::take(&mut **recording);
        let sample = u64::from(self.config.settings.trace_sample);
        let sampled = match recording.parent {
            Some(parent) => parent.sampled,
            None => {
                self.traced = self.traced.wrapping_add(1);
                sample > 0 && self.traced.is_multiple_of(sample)
            }
        };
        // The setting may have gone since it began.
        if !sampled || self.config.settings.otlp_endpoint.is_none() {
            return;
        }
        let client = match server.state {
            ServerState::Active(client) => self.clients.get(client).map(|client| client.session.id),
            _ => None,
        };
        let unix = |micros| self.process.clock.unix_of(micros);
        let seat = server.pool.seat.as_ref();
        let span = Span {
            parent: recording.parent,
            operation: recording.operation.filter(|operation| !operation.is_empty()),
            peer: (server.info.host.clone(), server.info.peer_port),
            role: seat.and_then(|seat| seat.cluster.nodes.get(seat.node)).map(crate::cluster::Node::role),
            pool: Arc::clone(&server.pool),
            waits_since: unix(recording.began.saturating_sub(recording.waited)),
            began: unix(recording.began),
            ended: unix(self.now),
            queries: recording.queries,
            rows: server.session.rows_told.saturating_sub(recording.rows),
            transactions: recording.transactions,
            error: recording.error,
            cut,
            route: recording.route,
            client,
        };
        self.process.spans.add(Box::new(span));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_first_words_of_commands() {
        for (text, expected) in [
            ("select 1", "SELECT"),
            (" /* pooler: primary *//**/ Insert into t", "INSERT"),
            ("BEGIN;", "BEGIN"),
            ("frobnicate", ""),
            ("/* open", ""),
            ("", ""),
        ] {
            assert_eq!(operation(text.as_bytes()), expected, "{text}");
        }
        assert!(OPERATIONS.is_sorted() && OPERATIONS.iter().all(|word| word.len() <= LONGEST_WORD));
    }

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let len = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
        [&[tag], &len[..], body].concat()
    }

    #[test]
    fn texts_of_messages_are_found_behind_the_rest_of_another() {
        let comment = "/*traceparent='00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'*/";
        let parse = message(b'P', format!("name\0INSERT INTO t VALUES (1) {comment}\0\0\0").as_bytes());
        let bytes =
            [b"of something else".to_vec(), message(b'S', b""), parse, message(b'B', b"\0\0")].concat();
        let mut recording = Recording::default();
        recording.note_messages(&bytes, 17);
        assert!(recording.parent.is_some_and(|parent| parent.sampled));
        assert_eq!(recording.operation, Some("INSERT"));
        // The first one counts, and the start of a message that is not all there says something too.
        let first = recording.parent;
        recording.note_messages(
            &message(b'Q', format!("SELECT 1 {}\0", comment.replace("-b7", "-c7")).as_bytes()),
            0,
        );
        assert_eq!((recording.parent, recording.operation), (first, Some("INSERT")));
        let mut recording = Recording::default();
        let long = message(b'Q', format!("{comment} COPY t FROM STDIN").as_bytes());
        recording.note_messages(&long[..long.len() - 3], 0);
        assert!(recording.parent.is_some() && recording.operation == Some("COPY"));
        recording.note_messages(b"", 5);
    }
}
