//! What kinds of statements take: counted where they are answered, told to the console, and logged where that is wanted.

use super::{Worker, server::ServerState, tick::micros};
use crate::{
    config::{Config, Settings},
    error::Printable,
    session::queries::{Done, Took},
};

/// So many kinds are known when it is only the log that wants to know them.
const KEPT_FOR_THE_LOG: usize = 100;

/// How many kinds of statements are told apart.
pub(super) fn kept_queries(config: &Config) -> usize {
    let settings = &config.settings;
    let kept = usize::try_from(settings.query_statistics).unwrap_or(0);
    match kept {
        0 if logs(settings) => KEPT_FOR_THE_LOG,
        kept => kept,
    }
}

fn logs(settings: &Settings) -> bool {
    settings.log_query_sample > 0 || !settings.log_min_duration.is_zero()
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
        let mut wait = std::mem::take(&mut server.waited);
        let logs = logs(&self.config.settings);
        let mut answered = std::mem::take(&mut server.session.done);
        for done in answered.drain(..) {
            let took = Took { time, wait: std::mem::take(&mut wait) };
            self.queries.count(&done, took);
            if logs {
                self.log_query(slot, &done, took);
            }
        }
        if let Some(server) = self.servers.get_mut(slot) {
            // What it takes is kept for the next ones.
            server.session.done = answered;
        }
    }

    /// Logs a query that has taken too long, or whose turn it is.
    fn log_query(&mut self, slot: usize, done: &Done, took: Took) {
        let settings = &self.config.settings;
        let (limit, sample) = (micros(settings.log_min_duration), settings.log_query_sample);
        let slow = limit > 0 && took.time.saturating_add(took.wait) > limit;
        self.answered = self.answered.wrapping_add(1);
        if !slow && (sample == 0 || !self.answered.is_multiple_of(u64::from(sample))) {
            return;
        }
        let Some(server) = self.servers.get(slot) else { return };
        let client = match server.state {
            ServerState::Active(client) => self.clients.get(client).map(|client| client.session.id),
            _ => None,
        };
        let (key, text) = (&server.pool.key, self.queries.text_of(done.meter).unwrap_or_default());
        tracing::info!(
            client,
            database = key.database,
            user = key.user,
            node = key.node,
            time_us = took.time,
            wait_us = took.wait,
            rows = done.rows,
            bytes = done.bytes,
            failed = done.failed,
            "{} query: {}",
            if slow { "slow" } else { "sampled" },
            Printable(&String::from_utf8_lossy(text))
        );
    }

    pub(super) fn query_rows(&self) -> Vec<QueryRow> {
        // Those that are kept for the log are too few to tell anything.
        let shown = self.queries.kinds().filter(|_| self.config.settings.query_statistics > 0);
        let rows = shown.filter_map(|kind| {
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
