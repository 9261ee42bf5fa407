//! Read tokens: a place in the WAL that a client carries to another connection, past this pooler too.
//!
//! Epochs are this process's own; a position means the same to every pooler of a cluster, as long as it is told which
//! timeline it is on: positions of two timelines cannot be compared.

use std::{
    fmt,
    sync::{PoisonError, atomic::Ordering},
};

use super::{
    Cluster, Node,
    epochs::{Mark, parse_lsn},
};

/// `3:0/301E018`: a timeline, and a position in its WAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// 0: it was not told; the primary's.
    pub timeline: u32,
    pub lsn: u64,
}

impl Token {
    /// Reads a token, or a position alone.
    pub fn parse(text: &str) -> Option<Self> {
        let plain = text.bytes().all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'/'));
        let (timeline, lsn) = match text.split_once(':') {
            Some((timeline, lsn)) => (timeline.parse().ok().filter(|timeline| *timeline > 0)?, lsn),
            None => (0, text),
        };
        Some(Self { timeline, lsn: parse_lsn(lsn).filter(|_| plain)? })
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.timeline > 0 {
            write!(f, "{}:", self.timeline)?;
        }
        write!(f, "{:X}/{:X}", self.lsn >> 32, self.lsn & 0xffff_ffff)
    }
}

/// Where the primary's WAL ended when it was asked last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Position {
    timeline: u32,
    mark: Mark,
}

impl Cluster {
    /// The timeline of the last primary; 0: there was none yet. It only goes up.
    pub fn timeline(&self) -> u32 {
        self.timeline.load(Ordering::SeqCst)
    }

    /// Where the primary's WAL ended when it was asked in a later epoch than this one: behind all that was acknowledged
    /// in it. `None`: it has not answered such a question yet.
    pub fn position_after(&self, epoch: u64) -> Option<Token> {
        self.exact_wanted.store(true, Ordering::SeqCst);
        let position = *self.position.lock().unwrap_or_else(PoisonError::into_inner);
        let Position { timeline, mark } = position.filter(|position| position.mark.epoch > epoch)?;
        let lsn = if self.acknowledges_before_flush() { mark.insert } else { mark.flush };
        Some(Token { timeline, lsn })
    }

    /// Whether a replica has replayed all up to the token.
    pub fn has_replayed(&self, node: usize, token: Token) -> bool {
        self.reaches(node, token) || {
            self.exact_wanted.store(true, Ordering::SeqCst);
            self.reaches(node, token)
        }
    }

    fn reaches(&self, node: usize, token: Token) -> bool {
        let Some(found) = self.nodes.get(node) else { return false };
        // In this order: with another timeline what was replayed is forgotten first. What was read before that cannot
        // meet the new timeline, and what counts on that is read behind it.
        let replayed = found.replayed.load(Ordering::SeqCst);
        let timeline = self.timeline();
        match token.timeline {
            0 => replayed >= token.lsn,
            of if of == timeline => replayed >= token.lsn,
            // All that is left of an older timeline is in the first position of this one.
            of => of < timeline && self.caught(node) > 0,
        }
    }

    /// The primary has said where its WAL ends.
    pub(super) fn tell_position(&self, timeline: u32, mark: Mark) {
        *self.position.lock().unwrap_or_else(PoisonError::into_inner) = Some(Position { timeline, mark });
        self.tell_who_wants_it_exactly();
    }

    /// A replica has replayed so much of the primary's timeline.
    pub(super) fn tell_replayed(&self, node: usize, lsn: u64) {
        let news =
            self.nodes.get(node).is_some_and(|node| node.replayed.fetch_max(lsn, Ordering::SeqCst) < lsn);
        if news {
            self.tell_who_wants_it_exactly();
        }
    }

    /// Everybody else waits for epochs.
    fn tell_who_wants_it_exactly(&self) {
        if self.exact_wanted.swap(false, Ordering::SeqCst) {
            self.advanced.notify_waiters();
        }
    }
}

impl Node {
    /// It may have to replay it again.
    pub(super) fn forget_replayed(&self) {
        self.replayed.store(0, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::{
        super::{NodeAddress, Role},
        *,
    };

    fn token(text: &str) -> Token {
        Token::parse(text).unwrap()
    }

    #[test]
    fn tokens_are_written_as_they_are_read() {
        for text in ["1:0/301E018", "4294967295:FFFFFFFF/FFFFFFFF", "0/301E018", "12:1A/FF", "0/0"] {
            assert_eq!(token(text).to_string(), text);
        }
        assert_eq!(token("12:1a/ff"), Token { timeline: 12, lsn: 0x1A_0000_00FF });
        for wrong in [
            "",
            ":",
            "1:",
            ":0/1",
            "0:0/1",
            "-1:0/1",
            "+1:0/1",
            "1:+0/1",
            "1:0/+1",
            "4294967296:0/1",
            "1:2:0/1",
            "1",
            "0/",
            "1:0/1 ",
            " 1:0/1",
            "1:0/1/2",
            "1.0/1",
            "a:0/1",
            "1:0/100000000",
            "1:0/g",
            "0/1\0",
            "0/é",
        ] {
            assert_eq!(Token::parse(wrong), None, "{wrong}");
        }
    }

    /// A replica on timeline 2, which it has caught a mark of, at 0/500.
    fn cluster() -> Cluster {
        let address = NodeAddress::new("h", 1);
        let cluster = Cluster::new("db".to_owned(), vec![address]);
        cluster.nodes[0].role.store(Role::Replica as u8, Ordering::SeqCst);
        cluster.timeline.store(2, Ordering::SeqCst);
        cluster.tell_replayed(0, 0x500);
        cluster
    }

    #[test]
    fn replica_has_replayed_a_token_by_timeline_and_position() {
        let cluster = cluster();
        let table =
            [("2:0/500", true), ("2:0/501", false), ("0/500", true), ("0/501", false), ("3:0/1", false)];
        for (text, expected) in table {
            assert_eq!(cluster.has_replayed(0, token(text)), expected, "{text}");
        }
        assert!(!cluster.has_replayed(1, token("0/1")));
        // Of an older timeline: once it has caught up with the primary of this one, wherever that is.
        assert!(!cluster.has_replayed(0, token("1:0/400")));
        cluster.nodes[0].caught_flush.epoch.store(7, Ordering::SeqCst);
        assert!(cluster.has_replayed(0, token("1:0/400")) && cluster.has_replayed(0, token("1:0/9999")));
        cluster.nodes[0].forget_caught();
        for text in ["1:0/1", "2:0/1", "0/1"] {
            assert!(!cluster.has_replayed(0, token(text)), "{text}");
        }
        // It does not go back.
        cluster.tell_replayed(0, 0x500);
        cluster.tell_replayed(0, 0x400);
        assert!(cluster.has_replayed(0, token("2:0/500")));
    }

    #[test]
    fn position_counts_if_it_was_asked_for_after_the_question() {
        let cluster = cluster();
        assert_eq!(cluster.position_after(0), None);
        let mark = Mark { epoch: 5, start: Instant::now(), flush: 0x10, insert: 0x20 };
        cluster.tell_position(2, mark);
        assert_eq!(cluster.position_after(5), None);
        assert_eq!(cluster.position_after(4), Some(token("2:0/10")));
        // What may not be flushed yet is covered as well.
        cluster.note_async_commits();
        assert_eq!(cluster.position_after(4), Some(token("2:0/20")));
    }
}
