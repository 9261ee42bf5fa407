//! RESET and its kin: a client's settings go back to what it asked for at startup, not to the server's own.
//!
//! The server carries the statement out, and falls back to the defaults of its connection. When its ReadyForQuery
//! comes, that is kept back, what the client's startup gives otherwise is set, and the client is shown its parameters
//! as they are then: within a transaction, so that a rollback undoes both. What was reset is told by the text
//! where one statement stands alone, else by tags and reported values: those that have just become the server's
//! default. A SET … TO DEFAULT among other statements, or any reset in a function, is taken as a value of the
//! client's own choice.

use std::sync::Arc;

use super::{
    downstream::Downstream,
    outgoing::Outgoing,
    pipeline::{Expected, Pipeline},
    setting::write_set,
    state::NOBODY,
    text::Reset,
};
use crate::protocol::{TransactionStatus, encode};

/// How far a reset has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Nothing,
    /// A statement was sent that may reset something.
    Expected,
    /// A tag said that something was reset.
    Done,
    /// The same, and a ReadyForQuery has passed: an error does not take it back any more.
    Sure,
    /// The startup values are being set again.
    Restoring,
}

/// The resets under way on a server.
#[derive(Debug, Default)]
pub struct Resets {
    stage: Stage,
    known: Vec<Reset>,
    /// Batches that were sent before the first of `known` and have not been answered.
    ahead: usize,
    /// Something was reset, but not by a statement whose text was recognised.
    unknown: bool,
}

impl Resets {
    /// Notes a statement that is about to be sent.
    pub fn expect(&mut self, reset: Reset, pipeline: &Pipeline) {
        self.known.push(reset);
        if self.stage == Stage::Nothing {
            self.stage = Stage::Expected;
            self.ahead = pipeline.batches();
        }
    }

    /// What comes behind in the pipeline has to wait.
    pub fn are_expected(&self) -> bool {
        self.stage != Stage::Nothing
    }

    /// Parameters that the server reports now may be about to change again.
    pub fn keep_back_parameters(&self) -> bool {
        matches!(self.stage, Stage::Done | Stage::Sure | Stage::Restoring)
    }

    /// A statement of the client has ended with this tag.
    pub fn on_tag(&mut self, tag: &[u8]) {
        let known = self.stage == Stage::Expected && self.ahead == 0;
        if matches!(tag, b"RESET" | b"DISCARD ALL") || (tag == b"SET" && known) {
            self.unknown |= !known && self.stage != Stage::Done;
            if matches!(self.stage, Stage::Nothing | Stage::Expected) {
                self.stage = Stage::Done;
            }
        }
    }

    /// An error takes back what its implicit transaction did.
    pub fn on_error(&mut self) {
        if self.stage == Stage::Done {
            self.stage = if self.known.is_empty() { Stage::Nothing } else { Stage::Expected };
            self.unknown = false;
        }
    }

    /// A message will not have the ReadyForQuery that it asked for.
    pub fn on_skipped_batch(&mut self) {
        self.ahead = self.ahead.saturating_sub(1);
    }

    /// ReadyForQuery has come, and nothing more is owed (`last`) or something is. True if it is time to restore.
    pub fn on_ready(&mut self, last: bool) -> bool {
        self.ahead = self.ahead.saturating_sub(1);
        match self.stage {
            Stage::Done if !last => self.stage = Stage::Sure,
            Stage::Expected if last => *self = Self::default(),
            _ => {}
        }
        last && matches!(self.stage, Stage::Done | Stage::Sure)
    }
}

impl Downstream<'_> {
    /// A ReadyForQuery of the client's own has come. Sets what a RESET has set to the server's default instead of the
    /// client's: true, and the client is not told yet. If there is nothing to set (any more), it is told how its
    /// parameters are now.
    pub(super) fn restore(&mut self, out: &mut Outgoing<'_>) -> bool {
        let restored = self.server.resets.stage == Stage::Restoring;
        if !restored && !self.server.resets.on_ready(self.server.pipeline.is_empty()) {
            return false;
        }
        let sql = if restored { String::new() } else { self.startup_values() };
        if !sql.is_empty() {
            self.server.resets.stage = Stage::Restoring;
            self.server.pipeline.push(Expected::Restore);
            self.server.unnamed_of = NOBODY;
            encode::query(&mut self.request, &sql);
            return true;
        }
        self.server.resets = Resets::default();
        for (name, value) in self.server.label.iter() {
            if self.server.reported.get(name).is_some() && self.client.label.get(name) != Some(value) {
                encode::parameter_status(out.inject(), name, value);
                self.client.label = self.shared.labels.with(&self.client.label, name, value);
            }
        }
        false
    }

    /// The statements that bring the client's startup values back; notes that the server has them.
    fn startup_values(&mut self) -> String {
        let mut sql = String::new();
        self.forget_reset_values();
        if self.server.status == TransactionStatus::Failed {
            return sql;
        }
        let mut label = Arc::clone(&self.server.label);
        for (name, value) in self.client.startup.iter() {
            let now = self.server.label.get(name);
            let Some(local) = self.was_reset(name, now).filter(|_| now != Some(value)) else { continue };
            // Outside a transaction SET LOCAL did nothing.
            if !local || self.server.status == TransactionStatus::InTransaction {
                write_set(&mut sql, name, value, local);
                label = self.shared.labels.with(&label, name, value);
            }
        }
        self.server.label = label;
        sql
    }

    /// What is not reported is not known any more.
    fn forget_reset_values(&mut self) {
        let server = &mut *self.server;
        server.all_reset |= server.resets.known.contains(&Reset::All);
        let all = server.resets.unknown || server.resets.known.contains(&Reset::All);
        let known = std::mem::take(&mut server.resets.known);
        for reset in &known {
            if let Reset::One { name, .. } = reset {
                server.forget(name, self.shared);
            }
        }
        server.resets.known = known;
        if all {
            server.forget_unreported(self.shared);
        }
    }

    /// Whether a parameter was reset that has this value now; if so, whether by SET LOCAL.
    fn was_reset(&self, name: &str, now: Option<&str>) -> Option<bool> {
        let resets = &self.server.resets;
        let known = resets.known.iter().rev().find_map(|reset| match reset {
            Reset::All => Some(false),
            Reset::One { name: one, local } => one.eq_ignore_ascii_case(name).then_some(*local),
        });
        let fell_back = now == self.server.reported.get(name) && now != self.client.label.get(name);
        known.or((resets.unknown && (now.is_none() || fell_back)).then_some(false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_takes_back_what_its_own_batch_reset() {
        let mut resets = Resets::default();
        resets.on_tag(b"RESET");
        resets.on_error();
        assert!(!resets.on_ready(true));
        resets.on_tag(b"RESET");
        assert!(!resets.on_ready(false));
        resets.on_error();
        assert!(resets.on_ready(true));
    }

    #[test]
    fn set_counts_only_where_its_text_said_so() {
        let mut resets = Resets::default();
        resets.on_tag(b"SET");
        assert!(!resets.on_ready(true));
        resets.expect(Reset::All, &Pipeline::default());
        assert!(resets.are_expected());
        resets.on_tag(b"SET");
        assert!(resets.on_ready(true));
    }
}
