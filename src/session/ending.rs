//! How the transaction of a client has ended, as the tags of its server tell.

use crate::protocol::TransactionStatus;

/// What has been said of it since the last ReadyForQuery.
#[derive(Debug, Default)]
pub(super) struct Ending {
    /// It is over: whether it was committed. What was begun behind it does not count.
    committed: Option<bool>,
    /// A ROLLBACK: of all of it, or to a savepoint.
    rolled_back: bool,
}

/// What ReadyForQuery tells, kept while its client is told later, behind what pooler asks the server first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outcome {
    /// Whether the transaction was committed, if one is over.
    pub(super) ended: Option<bool>,
    /// By an error, or a ROLLBACK alone.
    pub(super) aborted: bool,
    /// Something was committed, whatever followed.
    pub(super) commits: bool,
}

impl Ending {
    /// CommandComplete of what the client has sent.
    pub(super) fn on_tag(&mut self, tag: &[u8]) {
        let committed = match tag {
            b"COMMIT" | b"PREPARE TRANSACTION" => true,
            b"ROLLBACK" => {
                self.rolled_back = true;
                return;
            }
            b"BEGIN" | b"START TRANSACTION" if self.rolled_back => false,
            _ => return,
        };
        self.committed.get_or_insert(committed);
    }

    /// ReadyForQuery: whether the transaction was committed, if one is over. `erred`: there was an error before it.
    pub(super) fn on_ready(&mut self, status: TransactionStatus, erred: bool) -> Option<bool> {
        let Self { committed, rolled_back } = std::mem::take(self);
        let over = status == TransactionStatus::Idle;
        // One that nobody has begun ends by itself.
        committed.or_else(|| over.then_some(!rolled_back && !erred))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_tell_how_a_transaction_has_ended() {
        use TransactionStatus::{Failed, Idle, InTransaction};
        for (tags, erred, status, expected) in [
            (vec!["SELECT 1"], false, InTransaction, None),
            (vec!["COMMIT"], false, Idle, Some(true)),
            (vec!["PREPARE TRANSACTION"], false, Idle, Some(true)),
            (vec!["ROLLBACK"], false, Idle, Some(false)),
            // COMMIT AND CHAIN, and what comes behind in the same batch.
            (vec!["COMMIT"], false, InTransaction, Some(true)),
            (vec!["COMMIT", "BEGIN", "ROLLBACK"], false, Idle, Some(true)),
            (vec!["ROLLBACK", "BEGIN", "COMMIT"], false, Idle, Some(false)),
            (vec!["ROLLBACK", "START TRANSACTION"], true, Failed, Some(false)),
            // To a savepoint.
            (vec!["ROLLBACK"], false, InTransaction, None),
            (vec!["ROLLBACK", "COMMIT"], false, Idle, Some(true)),
            // Of a deferred constraint, of a statement, of what comes behind.
            (vec![], true, Idle, Some(false)),
            (vec![], true, Failed, None),
            (vec!["COMMIT"], true, Idle, Some(true)),
            (vec!["SELECT 1"], false, Idle, Some(true)),
        ] {
            let mut ending = Ending::default();
            tags.iter().for_each(|tag| ending.on_tag(tag.as_bytes()));
            assert_eq!(ending.on_ready(status, erred), expected, "{tags:?}");
            assert_eq!(ending.on_ready(InTransaction, false), None, "{tags:?}");
        }
    }
}
