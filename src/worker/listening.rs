//! Clients that listen without a server of their own: what a worker asks of the database's listener (`listeners`) for them, and
//! what of theirs waits for its answer. What comes is told in `notifications`.
//!
//! What is asked gets a ticket, one for all that a turn of the worker asks; the answer comes behind all that the listener has
//! heard before. A client waits for one
//!
//! - before its LISTEN is sent, and before all that follows it in its transaction: so nothing that is notified once that is
//!   committed is missed, not by itself either, and nothing that was notified before is told;
//! - before its transaction is begun on a server that others had since the last answer: what they have notified must
//!   not be taken for its own, which is told by the server's pid;
//! - behind its transaction, with its ReadyForQuery: what it has notified itself is told in front of that, as by PostgreSQL.
//!   It keeps its server meanwhile, so that nothing of the next client's is taken for its own.
//!
//! Clients that listen stay on their worker.

use std::sync::{Arc, atomic::Ordering};

use super::{
    Worker,
    client::Client,
    link::{Asks, Link, Waiting},
    listeners::{End, Name},
    release::ClientError,
};
use crate::{
    protocol::{TransactionStatus, encode},
    sql::channels::Channels,
};

/// What a client that listens has to do with the listener.
#[derive(Debug, Default)]
pub(crate) struct Listening {
    /// Id of the listener.
    pub(super) listener: u64,
    /// What it waits for, and the ticket.
    waits: Option<(Waits, u64)>,
    /// What comes from the server that it has is its own.
    pub(super) owns: bool,
    /// All that had been notified before it asked for what it asks next has been heard.
    pub(super) fresh: bool,
    /// There is no listener to be had: until its transaction is over, its server has to listen.
    really: bool,
    /// Notifications that it has not been told.
    pub(super) untold: Vec<u8>,
    /// Among them may be some that are not for it after all.
    pub(super) mixed: bool,
    /// It is among those who have not been told.
    pub(super) listed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waits {
    /// With what it asks for next, on the server of this id.
    Before(u64),
    /// With its ReadyForQuery.
    Behind,
}

impl Client {
    /// Its ReadyForQuery is kept back.
    pub(super) fn waits_behind(&self) -> bool {
        matches!(self.waits(), Some((Waits::Behind, _)))
    }

    /// It waits for the listener.
    pub(super) fn waits_for_listener(&self) -> bool {
        self.waits().is_some()
    }

    fn waits(&self) -> Option<(Waits, u64)> {
        self.listening.as_ref()?.waits
    }

    /// What had been notified before it asked for what it asks next has been heard.
    pub(super) fn has_heard(&self) -> bool {
        self.listening.as_ref().is_some_and(|listening| listening.fresh)
    }

    /// LISTEN need not go to its server.
    pub(super) fn may_share_listener(&self) -> bool {
        self.mode != crate::config::PoolMode::Session && self.listening.as_ref().is_none_or(|l| !l.really)
    }
}

impl Worker {
    fn link_to(&mut self, listener: u64) -> Option<&mut Link> {
        self.links.iter_mut().find(|link| link.listener.id == listener)
    }

    /// The link to the listener of a server's database.
    fn link_for(&mut self, slot: usize, server_slot: usize) -> Option<u64> {
        let known = self.clients.get(slot)?.listening.as_ref().map_or(0, |listening| listening.listener);
        if known > 0 {
            return Some(known);
        }
        let pool = Arc::clone(&self.servers.get(server_slot)?.pool);
        let listener = self.process.listeners.get(&self.process, &pool)?;
        let id = listener.id;
        if self.link_to(id).is_none() {
            self.links.push(Link { listener: Arc::clone(&listener), asks: Asks::of(self.id) });
        }
        listener.clients.fetch_add(1, Ordering::Relaxed);
        let listening = self.clients.get_mut(slot)?.listening.get_or_insert_default();
        listening.listener = id;
        Some(id)
    }

    /// A client is about to send this to its server: once pooler listens to the channels, it goes on.
    pub(super) fn listen_first(&mut self, slot: usize, server_slot: usize, channels: &Channels) {
        let Some(id) = self.link_for(slot, server_slot) else {
            if let Some(client) = self.clients.get_mut(slot) {
                client.listening.get_or_insert_default().really = true;
            }
            return self.look_later_at_client(slot);
        };
        let now = self.now;
        let Some(client) = self.clients.get_mut(slot) else { return };
        let kept = &mut client.session.channels.get_or_insert_default().kept;
        let Some(link) = self.links.iter_mut().find(|link| link.listener.id == id) else { return };
        for name in channels.listens() {
            kept.insert(name.into());
            link.asks.want(name, slot);
        }
        let ticket = link.asks.ticket(now);
        self.wait_before(slot, server_slot, ticket);
    }

    /// Whether what comes from a client's server from here on is the client's own: all that others have notified there has
    /// been heard.
    fn owns_what_comes(&mut self, slot: usize, server_slot: usize) -> bool {
        let (Some(client), Some(server)) = (self.clients.get_mut(slot), self.servers.get(server_slot)) else {
            return true;
        };
        let Some(listening) = &mut client.listening else { return true };
        let id = listening.listener;
        let link = self.links.iter().find(|link| link.listener.id == id);
        let heard = server.heard || link.is_some_and(|link| link.asks.has_heard(server.answered));
        listening.owns |= heard;
        listening.owns
    }

    /// A client that listens, or may do so, asks its server for something. False if it has to wait.
    pub(super) fn begins_heard(&mut self, slot: usize, server_slot: usize) -> bool {
        let (Some(client), Some(server)) = (self.clients.get_mut(slot), self.servers.get(server_slot)) else {
            return true;
        };
        let Some(listening) = &mut client.listening else { return true };
        if listening.waits.is_some() {
            // Its server has said something, which is not what it waits for.
            (client.stalled, client.session.held) = (true, true);
            return false;
        }
        let Some(channels) = client.session.channels.as_ref().filter(|_| client.session.passing == 0) else {
            return true;
        };
        let id = listening.listener;
        let may_commit = channels.are_pending() && server.session.owes_nothing() && !listening.fresh;
        let begins = channels.are_active() && server.session.is_free();
        if !may_commit && (!begins || self.owns_what_comes(slot, server_slot)) {
            return true;
        }
        let now = self.now;
        let Some(link) = self.link_to(id) else { return true };
        let ticket = link.asks.ticket(now);
        self.wait_before(slot, server_slot, ticket);
        false
    }

    fn wait_before(&mut self, slot: usize, server_slot: usize, ticket: u64) {
        let Some(server) = self.servers.get(server_slot).map(|server| server.id) else { return };
        self.wait(slot, Waits::Before(server), ticket);
        if let Some(client) = self.clients.get_mut(slot) {
            (client.stalled, client.session.held) = (true, true);
        }
    }

    fn wait(&mut self, slot: usize, waits: Waits, ticket: u64) {
        let Some(client) = self.clients.get_mut(slot) else { return };
        let id = client.session.id;
        let Some(listening) = &mut client.listening else { return };
        listening.waits = Some((waits, ticket));
        let listener = listening.listener;
        if let Some(link) = self.link_to(listener) {
            link.asks.wait(Waiting { ticket, slot, id });
        }
    }

    /// ReadyForQuery of a client that listens, or may do so, has come. So many bytes of it are kept back.
    pub(super) fn keeps_ready(&mut self, slot: usize, server_slot: usize) -> usize {
        const READY: usize = 6;
        if self.waits_for_own(slot, server_slot) { READY } else { 0 }
    }

    fn waits_for_own(&mut self, slot: usize, server_slot: usize) -> bool {
        let (Some(client), Some(server)) = (self.clients.get_mut(slot), self.servers.get(server_slot)) else {
            return false;
        };
        let idle = server.session.status == TransactionStatus::Idle;
        let Some(listening) = &mut client.listening else { return false };
        listening.really &= !idle;
        listening.mixed = true;
        let Some(channels) = &client.session.channels else {
            if !listening.really {
                client.listening = None;
            }
            return false;
        };
        if channels.lost {
            return false;
        }
        if !idle || !channels.are_active() {
            self.sort_out(slot);
            return false;
        }
        let (now, id) = (self.now, listening.listener);
        let Some(link) = self.link_to(id) else { return false };
        let ticket = link.asks.ticket(now);
        self.wait(slot, Waits::Behind, ticket);
        true
    }

    /// Ends a client of which it is not known any more what it listens to.
    pub(super) fn is_unclear(&mut self, slot: Option<usize>) -> bool {
        let client = slot.and_then(|slot| self.clients.get(slot));
        let unclear = client.and_then(|client| client.session.channels.as_ref()).is_some_and(|c| c.lost);
        if let Some(slot) = slot.filter(|_| unclear) {
            self.fail_client(slot, &ClientError::ChannelsUnclear);
        }
        unclear
    }

    /// The listener has answered.
    pub(super) fn listener_answered(&mut self, listener: u64, ticket: u64) {
        let Some(link) = self.link_to(listener) else { return };
        for Waiting { ticket: awaited, slot, id } in link.asks.answered(ticket) {
            let client = self.clients.get_mut(slot).filter(|client| client.session.id == id);
            let Some(client) = client else { continue };
            match client.waits() {
                Some((Waits::Before(server), ticket)) if ticket == awaited => self.go_on_before(slot, server),
                Some((Waits::Behind, ticket)) if ticket == awaited => self.go_on_behind(slot),
                _ => {}
            }
            self.settle();
        }
    }

    /// What a client has asked for can be sent.
    fn go_on_before(&mut self, slot: usize, server: u64) {
        let Some(client) = self.clients.get_mut(slot) else { return };
        let same =
            client.state.server().and_then(|slot| self.servers.get(slot)).is_some_and(|s| s.id == server);
        if let Some(listening) = &mut client.listening {
            listening.waits = None;
            listening.owns |= same;
            (listening.fresh, listening.mixed) = (true, true);
        }
        client.session.held = false;
        self.tell_before(slot);
        self.look_later_at_client(slot);
    }

    /// A client is told what has come before what it asks for next, unless that is amid a transaction.
    fn tell_before(&mut self, slot: usize) {
        let Some(client) = self.clients.get(slot) else { return };
        let server = client.state.server().and_then(|slot| self.servers.get(slot));
        let amid =
            server.is_some_and(|s| s.session.status != TransactionStatus::Idle || s.session.passing > 0);
        if amid || !client.conn.is_flushed() {
            return self.drop_unaddressed(slot);
        }
        if let Some(told) = self.take_untold(slot).filter(|told| !told.is_empty()) {
            self.send_to_client(slot, &told);
        }
    }

    /// A client's transaction is over, and all that it has notified is here.
    fn go_on_behind(&mut self, slot: usize) {
        let Some(server_slot) = self.tell_ready(slot) else { return };
        let Some(server) = self.servers.get_mut(server_slot) else { return };
        server.heard = true;
        let (id, input) = (server.id, std::mem::take(&mut server.pending));
        // Replies to what it has sent meanwhile; and the server is free, if nothing is owed.
        let used = self.deliver(server_slot, &input);
        let Some(server) = self.servers.get_mut(server_slot).filter(|server| server.id == id) else { return };
        server.pending = input.get(used..).unwrap_or_default().to_vec();
        self.server_readable(server_slot);
        self.look_later_at_client(slot);
    }

    /// Tells a client what has come, and the ReadyForQuery that was kept back. Returns its server.
    fn tell_ready(&mut self, slot: usize) -> Option<usize> {
        let client = self.clients.get_mut(slot)?;
        client.listening.as_mut()?.waits = None;
        client.session.held = false;
        let mut out = self.take_untold(slot)?;
        encode::ready_for_query(&mut out, b'I');
        self.send_to_client(slot, &out);
        self.sort_out(slot);
        self.clients.get(slot)?.state.server()
    }

    /// Its server is lost, and it has been told all but ReadyForQuery.
    pub(super) fn tell_ready_at_once(&mut self, slot: usize) {
        if self.clients.get(slot).is_some_and(Client::waits_behind) {
            self.tell_ready(slot);
        }
    }

    /// A client's transaction has gone on, or is over: what it listens to may have changed.
    fn sort_out(&mut self, slot: usize) {
        self.drop_unaddressed(slot);
        let Some(client) = self.clients.get_mut(slot).filter(|client| !client.waits_for_listener()) else {
            return;
        };
        let server = client.state.server().and_then(|slot| self.servers.get(slot));
        let amid =
            server.is_some_and(|s| s.session.status != TransactionStatus::Idle || !s.session.owes_nothing());
        let Some(channels) = client.session.channels.as_mut().filter(|_| !amid) else { return };
        let unused = channels.take_unused();
        let is_over = channels.kept.is_empty();
        let listener = client.listening.as_ref().map_or(0, |listening| listening.listener);
        self.leave_channels(slot, listener, unused.iter());
        if is_over {
            self.stop_listening(slot);
        }
    }

    fn leave_channels<'n>(&mut self, slot: usize, listener: u64, names: impl Iterator<Item = &'n Name>) {
        let Some(link) = self.link_to(listener) else { return };
        names.for_each(|name| link.asks.leave(name, slot));
    }

    /// It has nothing to do with the listener any more.
    fn stop_listening(&mut self, slot: usize) {
        let Some(client) = self.clients.get_mut(slot) else { return };
        let Some(listening) = client.listening.as_mut() else { return };
        client.session.channels = None;
        let listener = std::mem::take(&mut listening.listener);
        if !listening.really {
            client.listening = None;
        }
        if let Some(link) = self.link_to(listener) {
            link.listener.clients.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// A client is gone.
    pub(super) fn forget_channels(&mut self, slot: usize, client: &mut Client) {
        let (Some(listening), Some(channels)) = (client.listening.take(), client.session.channels.take())
        else {
            return;
        };
        self.leave_channels(slot, listening.listener, channels.kept.iter());
        if let Some(link) = self.link_to(listening.listener) {
            link.listener.clients.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// A listener has ended: nobody knows what its clients have missed. They are told so.
    pub(super) fn listener_ended(&mut self, listener: u64, end: &End) {
        let Some(index) = self.links.iter().position(|link| link.listener.id == listener) else { return };
        self.links.remove(index);
        let of_it = |client: &Client| client.listening.as_ref().is_some_and(|l| l.listener == listener);
        let clients: Vec<usize> =
            self.clients.iter().filter(|(_, client)| of_it(client)).map(|(slot, _)| slot).collect();
        for slot in clients {
            let Some(client) = self.clients.get_mut(slot) else { continue };
            let channels = client.session.channels.as_ref();
            if channels.is_some_and(|channels| channels.are_wanted()) {
                self.fail_client(slot, &ClientError::ListenerLost(end.to_string()));
                continue;
            }
            client.session.channels = None;
            let waits = client.waits_for_listener();
            let really = matches!(end, End::Unreachable(_));
            client.listening = really.then(|| Box::new(Listening { really, ..Listening::default() }));
            if waits {
                client.session.held = false;
                self.look_later_at_client(slot);
            }
        }
    }

    /// Asks the listeners what this turn has brought up.
    pub(super) fn ask_listeners(&mut self) {
        let mut ended = Vec::new();
        for link in &mut self.links {
            if let Some(draft) = link.asks.take_draft()
                && !link.listener.ask(draft)
            {
                ended.push(link.listener.id);
            }
        }
        for listener in ended {
            self.listener_ended(listener, &End::Unused);
        }
    }
}
