//! What a client listens to without a server of its own: pooler listens for it, on one connection for all.
//!
//! A LISTEN goes to the client's server as an UNLISTEN (`sql::channels`), which has no effect there, and is refused where
//! LISTEN would be; its tag is put right on the way back. What it asks for holds when the transaction that it was part of
//! is committed, as the server's tags and ReadyForQuery tell (async.c: AtCommit_Notify, AtAbort_Notify).
//!
//! Which savepoint a ROLLBACK TO goes back to is told by no tag. Behind a savepoint, LISTEN therefore goes to the server as
//! it is. If one has slipped through behind it, in a pipeline, and it is not known what becomes of it, the client is
//! [`lost`](Channels::lost).
//!
//! What differs from PostgreSQL: a transaction with LISTEN may be prepared (PREPARE TRANSACTION), and listens from then on.

use std::{collections::HashSet, sync::Arc};

use foldhash::fast::RandomState;

use super::{
    downstream::Downstream,
    outgoing::Outgoing,
    pipeline::Expected,
    state::NOBODY,
    statements::Statement,
    text::TextEffect,
    traces::Asking,
    upstream::{Upstream, expect},
};
use crate::{
    protocol::{
        TransactionStatus, backend as be, encode,
        frame::{split_cstr, split_u32},
        frontend as fe,
    },
    sql::{
        Dialect,
        channels::{self, Action},
    },
};

/// Names of channels.
pub type Names = HashSet<Box<[u8]>, RandomState>;

/// The channels of one client.
#[derive(Debug, Default)]
pub struct Channels {
    /// It listens to these.
    active: Names,
    /// What the transaction that is open has asked for.
    pending: Vec<Action>,
    /// A savepoint may undo some of that.
    unsure: bool,
    /// ROLLBACK has come although there was a savepoint: what follows tells whether the transaction is over.
    rolled_back: bool,
    /// Pooler listens to these for it: all of the others, and those that it is about to ask for.
    pub kept: Names,
    /// It is not known what it listens to.
    pub lost: bool,
}

impl Channels {
    /// Notifications of this channel are for it.
    pub fn is_active(&self, channel: &[u8]) -> bool {
        self.active.contains(channel)
    }

    /// Notifications are for it, or would be if its transaction were committed.
    pub fn are_wanted(&self) -> bool {
        !self.active.is_empty() || !self.pending.is_empty()
    }

    /// It listens to something.
    pub fn are_active(&self) -> bool {
        !self.active.is_empty()
    }

    /// A transaction that is open has asked for something.
    pub fn are_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Pooler listens to more for it than it listens to itself.
    pub fn are_unsettled(&self) -> bool {
        self.kept.len() > self.active.len()
    }

    /// Pooler listens to all that this text asks for.
    pub fn keeps(&self, asked: &channels::Channels) -> bool {
        asked.listens().all(|channel| self.kept.contains(channel))
    }

    /// What pooler listens to for nothing, as nothing of the client's is under way.
    pub fn take_unused(&mut self) -> Vec<Box<[u8]>> {
        let unused = self.kept.iter().filter(|channel| !self.active.contains(*channel));
        let unused: Vec<_> = unused.cloned().collect();
        self.kept.retain(|channel| self.active.contains(channel));
        unused
    }

    /// A statement has been carried out. `behind`: there is a savepoint before it.
    pub(super) fn ask(&mut self, action: Action, behind: bool) {
        // There is nothing that it could end.
        if let Action::Unlisten(_) = action
            && self.active.is_empty()
            && self.pending.is_empty()
        {
            return;
        }
        self.unsure |= behind;
        self.pending.push(action);
    }

    /// An UNLISTEN of nobody knows what has been carried out.
    pub(super) fn ask_anything(&mut self) {
        self.lost |= self.are_wanted();
    }

    /// A statement of the client has ended with this tag. `behind`: there is a savepoint before it.
    pub(super) fn on_tag(&mut self, tag: &[u8], behind: bool) {
        match tag {
            b"COMMIT" | b"PREPARE TRANSACTION" => {
                self.lost |= self.rolled_back && !self.pending.is_empty();
                self.commit();
            }
            b"BEGIN" | b"START TRANSACTION" => {
                self.lost |= self.rolled_back && !self.pending.is_empty();
            }
            b"ROLLBACK" if behind => self.rolled_back = true,
            b"ROLLBACK" => self.abort(),
            b"DISCARD ALL" => {
                self.active.clear();
                self.abort();
            }
            _ => {}
        }
    }

    /// ReadyForQuery. `erred`: there was an error before it.
    pub(super) fn on_ready(&mut self, status: TransactionStatus, erred: bool) {
        match status {
            TransactionStatus::Idle if self.rolled_back || erred => self.abort(),
            TransactionStatus::Idle => self.commit(),
            TransactionStatus::InTransaction | TransactionStatus::Failed => {
                self.lost |= self.rolled_back && self.unsure;
                self.rolled_back = false;
            }
        }
    }

    fn commit(&mut self) {
        for action in std::mem::take(&mut self.pending) {
            match action {
                Action::Listen(channel) => drop(self.active.insert(channel)),
                Action::Unlisten(Some(channel)) => drop(self.active.remove(&channel)),
                Action::Unlisten(None) => self.active.clear(),
            }
        }
        self.abort();
    }

    fn abort(&mut self) {
        self.pending.clear();
        (self.unsure, self.rolled_back) = (false, false);
    }
}

/// Texts with LISTEN or UNLISTEN that a server has not answered, one for each entry of its pipeline that has one.
#[derive(Debug)]
pub struct Asked {
    channels: Arc<channels::Channels>,
    next: usize,
}

impl Asked {
    pub fn new(channels: Arc<channels::Channels>) -> Self {
        Self { channels, next: 0 }
    }

    /// The next of its statements has been carried out.
    pub fn next_action(&mut self) -> Option<Action> {
        let action = self.channels.actions.get(self.next)?;
        self.next += 1;
        Some(action.clone())
    }
}

impl Upstream<'_> {
    /// The channels of a text that are to be followed, and whether they are pooler's part. The server's own they are where
    /// names or what becomes of them cannot be known for sure, or where it listens for the client already.
    pub(super) fn asked(&self, effect: Option<&TextEffect>) -> Option<(Arc<channels::Channels>, bool)> {
        let channels = effect?.channels.as_ref()?;
        let utf8 = Dialect::of("on", self.encoding()).ascii_safe;
        if !utf8 && !channels.instead.is_ascii() {
            return None;
        }
        let listens = channels.listens().next().is_some();
        let hidden = listens && self.server.savepoint;
        let shared = self.listens && utf8 && !hidden && !self.server.bonds.listens();
        let followed = self.client.channels.is_some() || (shared && listens);
        followed.then(|| (Arc::clone(channels), shared))
    }

    /// Pooler does not listen yet to what a message asks for, or has not heard all that its client has to be told before it
    /// does not listen any more.
    pub(super) fn has_to_wait(&mut self, asked: Option<&(Arc<channels::Channels>, bool)>) -> bool {
        let Some((channels, true)) = asked else { return false };
        let keeps = self.client.channels.as_ref().is_some_and(|kept| kept.keeps(channels));
        let begins = self.server.status == TransactionStatus::Idle && !self.heard;
        let waits = !keeps || (begins && channels.unlistens());
        if waits {
            self.lacks = Some(Arc::clone(channels));
        }
        waits
    }

    /// A Query with LISTEN or UNLISTEN.
    pub(super) fn listen(
        &mut self,
        channels: &Arc<channels::Channels>,
        shared: bool,
        effect: Option<TextEffect>,
        out: &mut Outgoing<'_>,
    ) -> bool {
        if let Some(effect) = effect.filter(|_| !shared || !channels.alone) {
            expect(effect, self.server);
        }
        self.server.pipeline.push_channels(Expected::ChannelsQuery, channels);
        if shared {
            encode::message(out.inject(), fe::QUERY, |b| encode::cstr(b, &channels.instead));
        }
        shared
    }

    /// It is one statement, and there is a name for what is put in its place.
    pub(super) fn can_bind(&self, channels: &channels::Channels) -> bool {
        channels.alone && channels.actions.len() == 1 && self.max_statements.is_some()
    }

    /// Makes sure that the server has what is bound in the place of a LISTEN.
    pub(super) fn reach_instead(
        &mut self,
        channels: &channels::Channels,
        name: &[u8],
        out: &mut Outgoing<'_>,
    ) -> Option<Arc<Statement>> {
        let text_and_types = [&*channels.instead, b"\0\0\0"].concat();
        let statement = self.shared.registry.intern(&text_and_types, "");
        self.ensure(&statement, name, self.max_statements?, out);
        Some(statement)
    }
}

impl Downstream<'_> {
    /// A statement has ended with this tag. True if it was a LISTEN that the server knows nothing of.
    pub(super) fn follow_channels(&mut self, tag: &[u8]) -> bool {
        // Nearly all clients.
        let Some(channels) = &mut self.client.channels else { return false };
        let server = &mut *self.server;
        if server.pipeline.front_is_own_query() {
            return false;
        }
        let tag = tag.strip_suffix(b"\0").unwrap_or(tag);
        if !matches!(tag, b"LISTEN" | b"UNLISTEN") {
            channels.on_tag(tag, server.savepoint);
            return false;
        }
        match (server.pipeline.next_action(), tag) {
            // Its own server listens.
            (Some(Action::Listen(_)), b"LISTEN") | (None, b"LISTEN") => false,
            (Some(action), _) => {
                let listens = matches!(action, Action::Listen(_));
                channels.ask(action, server.savepoint);
                listens
            }
            (None, _) => {
                channels.ask_anything();
                false
            }
        }
    }

    /// Whether a notification of the server is for its client. It may be for one that had the server before and has left a
    /// subscription behind that no text told of; and what pooler listens to comes by another way.
    pub(super) fn is_addressed(&mut self, body: &[u8]) -> bool {
        let shares = self.server.asking != Asking::Never && self.client.id != NOBODY;
        if !shares {
            return true;
        }
        if !self.server.bonds.listens() && !self.server.traces.may_listen() {
            self.server.spoiled = Some("listens for nobody");
            return false;
        }
        let Some(channels) = &self.client.channels else { return true };
        let channel = split_u32(body).and_then(|(_, behind)| split_cstr(behind)).map(|(channel, _)| channel);
        channel.is_none_or(|channel| !channels.is_active(channel))
    }
}

/// What the client is told of a LISTEN.
pub(super) fn listen_tag() -> Vec<u8> {
    let mut out = Vec::new();
    encode::message(&mut out, be::COMMAND_COMPLETE, |b| encode::cstr(b, b"LISTEN"));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays what a server says: `+a`, `-a`, `-*` for LISTEN and UNLISTEN, tags, `Z…` for ReadyForQuery, `!` for an error.
    fn play(channels: &mut Channels, said: &str) {
        let (mut savepoint, mut erred) = (false, false);
        for word in said.split(' ') {
            match word.split_at(1) {
                ("+", name) => channels.ask(Action::Listen(name.as_bytes().into()), savepoint),
                ("-", "*") => channels.ask(Action::Unlisten(None), savepoint),
                ("-", name) => channels.ask(Action::Unlisten(Some(name.as_bytes().into())), savepoint),
                ("Z", status) => {
                    let status = TransactionStatus::from_byte(status.as_bytes()[0]);
                    channels.on_ready(status, erred);
                    savepoint &= status != TransactionStatus::Idle;
                    erred = false;
                }
                ("!", _) => erred = true,
                _ => {
                    savepoint |= word == "SAVEPOINT";
                    channels.on_tag(word.as_bytes(), savepoint);
                }
            }
        }
    }

    #[test]
    fn channels_follow_transactions() {
        for (said, expected) in [
            ("+a ZI", "a"),
            ("+a ! ZI", ""),
            ("+a +b ZI -a ZI", "b"),
            ("+a +b -a ZI", "b"),
            ("+a ZI -* +b ZI", "b"),
            ("+a ZI BEGIN ZT -a ZT +b ZT ROLLBACK ZI", "a"),
            ("BEGIN ZT +a ZT COMMIT ZI", "a"),
            ("BEGIN ZT +a ZT ! ZE ROLLBACK ZI", ""),
            // COMMIT that fails.
            ("BEGIN ZT +a ZT ! ZI", ""),
            ("BEGIN +a COMMIT SELECT ! ZI", "a"),
            ("BEGIN +a COMMIT +b ! ZI", "a"),
            ("BEGIN +a ROLLBACK BEGIN +b COMMIT ZI", "b"),
            // AND CHAIN.
            ("BEGIN ZT +a ZT COMMIT ZT +b ZT ROLLBACK ZI", "a"),
            ("BEGIN ZT +a ZT SAVEPOINT ZT ROLLBACK ZT COMMIT ZI", "a"),
            ("BEGIN ZT +a ZT SAVEPOINT ZT ! ZE ROLLBACK ZT SELECT ZT COMMIT ZI", "a"),
            ("BEGIN ZT +a ZT SAVEPOINT ZT ROLLBACK ZI", ""),
            ("BEGIN ZT SAVEPOINT ZT +a ZT COMMIT ZI", "a"),
            ("BEGIN ZT SAVEPOINT ZT +a ZT ROLLBACK ZI", ""),
            ("+a ZI DISCARD\u{a0}ALL ZI", "a"),
        ] {
            let mut channels = Channels::default();
            play(&mut channels, said);
            let mut active: Vec<_> =
                channels.active.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect();
            active.sort();
            assert_eq!((active.concat().as_str(), channels.lost), (expected, false), "{said}");
            assert!(channels.pending.is_empty() && !channels.unsure && !channels.rolled_back, "{said}");
        }
        let mut channels = Channels::default();
        play(&mut channels, "+a ZI");
        channels.on_tag(b"DISCARD ALL", false);
        assert!(!channels.are_active());
    }

    #[test]
    fn what_a_savepoint_may_have_undone_is_not_guessed() {
        for said in [
            "BEGIN ZT SAVEPOINT +a ZT ROLLBACK ZT",
            "BEGIN ZT SAVEPOINT +a ZT ROLLBACK COMMIT ZI",
            "BEGIN ZT +a ZT SAVEPOINT ROLLBACK COMMIT ZI",
            "BEGIN ZT +a ZT SAVEPOINT ROLLBACK BEGIN ZT",
        ] {
            let mut channels = Channels::default();
            play(&mut channels, said);
            assert!(channels.lost, "{said}");
        }
        let mut channels = Channels::default();
        channels.ask_anything();
        assert!(!channels.lost);
        play(&mut channels, "+a ZI");
        channels.ask_anything();
        assert!(channels.lost);
    }

    #[test]
    fn what_nobody_needs_is_given_back() {
        let mut channels = Channels::default();
        channels.kept.extend(["a", "b"].map(|name| Box::from(name.as_bytes())));
        play(&mut channels, "+a ZI");
        assert_eq!(channels.take_unused(), [Box::from(&b"b"[..])]);
        assert!(channels.kept.contains(&b"a"[..]) && channels.kept.len() == 1);
    }
}
