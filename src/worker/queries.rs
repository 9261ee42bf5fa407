//! What kinds of statements take: counted where they are answered, and told to the console.

use super::Worker;
use crate::{config::Config, session::queries::Took};

/// How many kinds of statements are told apart, if any.
pub(super) fn kept_queries(config: &Config) -> Option<usize> {
    let kept = usize::try_from(config.settings.query_statistics).unwrap_or(0);
    (kept > 0).then_some(kept)
}

/// One kind of statements, in one pool on one worker. Times in microseconds.
#[derive(Clone, Debug)]
pub(crate) struct QueryRow {
    pub(crate) database: String,
    pub(crate) user: String,
    pub(crate) node: String,
    pub(crate) text: String,
    pub(crate) calls: u64,
    pub(crate) errors: u64,
    pub(crate) time: u64,
    pub(crate) longest: u64,
    pub(crate) wait: u64,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
}

impl Worker {
    /// Counts the requests that a server has answered just now.
    pub(super) fn count_queries(&mut self, slot: usize) {
        let Some(server) = self.servers.get_mut(slot).filter(|server| !server.session.done.is_empty()) else {
            return;
        };
        // Those that end together share their time.
        let number = u64::try_from(server.session.done.len()).unwrap_or(1);
        let sent = server.session.done.first().map_or(self.now, |done| done.meter.sent);
        let time = self.now.saturating_sub(sent.max(server.measured));
        let time = if number == 1 { time } else { time.checked_div(number).unwrap_or(0) };
        server.measured = self.now;
        for done in server.session.done.drain(..) {
            self.queries.count(&done, Took { time, wait: std::mem::take(&mut server.waited) });
        }
    }

    pub(super) fn query_rows(&self) -> Vec<QueryRow> {
        let rows = self.queries.kinds().filter_map(|kind| {
            let key = &self.shards.get(kind.pool)?.pool.key;
            Some(QueryRow {
                database: key.database.clone(),
                user: key.user.clone(),
                node: key.node.clone(),
                text: String::from_utf8_lossy(&kind.text).into_owned(),
                calls: kind.calls,
                errors: kind.errors,
                time: kind.time,
                longest: kind.longest,
                wait: kind.wait,
                rows: kind.rows,
                bytes: kind.bytes,
            })
        });
        rows.collect()
    }
}
