//! Telling clients what has been notified: at once if they are between transactions, else before the ReadyForQuery that ends
//! theirs; in the order in which it came, all that a turn brings in one write.

use std::sync::{Arc, atomic::Ordering};

use super::{
    Worker,
    client::{Client, ClientState, Discarding},
    release::ClientError,
    server::Server,
};
use crate::{
    protocol::frame::{HEADER, Header, split_cstr, split_u32},
    server::Notifications,
    session::channels::Channels,
    sql::Dialect,
};

/// Most bytes that wait for a client to take them.
const MOST_UNTOLD: usize = 4 << 20;
/// Bytes of the number of the backend that a notification comes from.
const PID: usize = 4;

impl Worker {
    /// Notifications have come. They are told at the end of the turn, or when their clients are ready for them.
    pub(super) fn heard(&mut self, listener: u64, notifications: &Arc<Notifications>) {
        let Some(link) = self.links.iter().find(|link| link.listener.id == listener) else { return };
        link.listener.took(notifications.size());
        let nobody = link.listener.pid.load(Ordering::Relaxed);
        let mut behind = Vec::new();
        for one in notifications.iter() {
            for slot in link.asks.listeners(notifications.channel(one)) {
                let Some(client) = self.clients.get_mut(slot) else { continue };
                let server = client.state.server().and_then(|server| self.servers.get(server));
                let Some(listening) = &mut client.listening else { continue };
                let is_its = |server: &Server| {
                    server.info.key.pid == one.pid && server.pool.key.node == link.listener.node
                };
                let own = listening.owns && server.is_some_and(is_its);
                let pid = shown_pid(one.pid, own, client.info.key.pid, nobody);
                listening.mixed |=
                    client.session.channels.as_ref().is_none_or(|channels| channels.are_unsettled());
                notifications.write(one, pid, &mut listening.untold);
                if listening.untold.len() > MOST_UNTOLD {
                    behind.push(slot);
                }
                if !std::mem::replace(&mut listening.listed, true) {
                    self.untold.push((slot, client.session.id));
                }
            }
        }
        behind.dedup();
        for slot in behind {
            if self
                .clients
                .get(slot)
                .and_then(|c| c.listening.as_ref())
                .is_some_and(|l| l.untold.len() > MOST_UNTOLD)
            {
                self.fail_client(slot, &ClientError::NotificationsUnread);
            }
        }
    }

    /// Tells those who are ready for it.
    pub(super) fn tell_notifications(&mut self) {
        for (slot, id) in std::mem::take(&mut self.untold) {
            let Some(client) = self.clients.get(slot).filter(|client| client.session.id == id) else {
                continue;
            };
            let Some(listening) = &client.listening else { continue };
            if !listening.untold.is_empty() && !self.may_be_told(client) {
                self.untold.push((slot, id));
                continue;
            }
            let told = self.take_untold(slot).unwrap_or_default();
            if let Some(listening) = self.clients.get_mut(slot).and_then(|client| client.listening.as_mut()) {
                listening.listed = false;
            }
            if !told.is_empty() {
                self.send_to_client(slot, &told);
            }
        }
    }

    /// It is between transactions, as far as it knows, and takes what it is sent.
    fn may_be_told(&self, client: &Client) -> bool {
        let amid = client.routing.as_ref().is_some_and(|r| r.begin.is_some() || r.own.is_amid_batch());
        let refused = client.aborted.is_some() || client.discarding != Discarding::Nothing;
        !amid && !refused && client.conn.is_flushed() && !client.waits_behind() && self.is_between(client)
    }

    fn is_between(&self, client: &Client) -> bool {
        match client.state {
            ClientState::Idle | ClientState::Waiting | ClientState::Held => true,
            ClientState::Linked(server) => self
                .servers
                .get(server)
                .is_some_and(|server| server.session.is_free() && client.session.passing == 0),
            ClientState::LoginWaiting
            | ClientState::LoginLinked(_)
            | ClientState::TunnelWaiting(_)
            | ClientState::Tunnel(_)
            | ClientState::Console(_) => false,
        }
    }

    /// What a client is to be told now. `None`: it is gone, or must go.
    pub(super) fn take_untold(&mut self, slot: usize) -> Option<Vec<u8>> {
        self.drop_unaddressed(slot);
        let client = self.clients.get_mut(slot)?;
        let listening = client.listening.as_mut()?;
        let untold = std::mem::take(&mut listening.untold);
        let encoding = client.session.label.get("client_encoding").unwrap_or_default();
        let utf8 = Dialect::of("on", encoding).ascii_safe;
        if !utf8 && !messages(&untold).all(|one| one.get(HEADER + PID..).is_some_and(<[u8]>::is_ascii)) {
            self.fail_client(slot, &ClientError::NotificationEncoding);
            return None;
        }
        let id = listening.listener;
        if !untold.is_empty() {
            self.show_what_was_notified(slot);
        }
        if let Some(link) = self.links.iter().find(|link| link.listener.id == id) {
            let count = u64::try_from(messages(&untold).count()).unwrap_or(0);
            link.listener.delivered.fetch_add(count, Ordering::Relaxed);
        }
        Some(untold)
    }

    /// What has been notified is committed, although perhaps nobody has been told so yet: to this client replicas must show it.
    fn show_what_was_notified(&mut self, slot: usize) {
        let Some(client) = self.clients.get(slot) else { return };
        let Some(epoch) = self.cluster_of(client).map(|cluster| cluster.epoch()) else { return };
        if let Some(client) = self.clients.get_mut(slot) {
            client.routing.get_or_insert_default().notified(epoch);
        }
    }

    /// Drops what has come for channels that a client does not listen to, or not yet.
    pub(super) fn drop_unaddressed(&mut self, slot: usize) {
        let Some(client) = self.clients.get_mut(slot) else { return };
        let Some(listening) = &mut client.listening else { return };
        if !std::mem::take(&mut listening.mixed) || listening.untold.is_empty() {
            return;
        }
        let Some(channels) = &client.session.channels else { return listening.untold.clear() };
        listening.untold =
            messages(&listening.untold).filter(|one| is_for(channels, one)).flatten().copied().collect();
    }
}

/// The number that a client is shown of the backend that has notified: its own if that is what it knows of itself, and in no
/// other case. `nobody`: a number that is no client's, as its backend never notifies.
fn shown_pid(pid: u32, own: bool, client: u32, nobody: u32) -> u32 {
    match own {
        true => client,
        false if pid == client => nobody,
        false => pid,
    }
}

fn is_for(channels: &Channels, message: &[u8]) -> bool {
    let body = message.get(HEADER..).and_then(split_u32);
    let channel = body.and_then(|(_, behind)| split_cstr(behind));
    channel.is_some_and(|(channel, _)| channels.is_active(channel))
}

/// One message after the other.
fn messages(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (message, behind) = rest.split_at_checked(Header::peek(rest)?.total())?;
        rest = behind;
        Some(message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    // H25: numbers of backends and those of pooler's clients are not told apart.
    #[test]
    fn only_its_own_notifications_have_a_clients_number() {
        for (pid, own, shown) in [(4711, true, 7), (4711, false, 4711), (7, false, 4712), (7, true, 7)] {
            assert_eq!(shown_pid(pid, own, 7, 4712), shown, "{pid} {own}");
        }
    }
}
