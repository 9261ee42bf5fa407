//! Settings that a server may refuse are sent alone, and the request follows when they are there: without them, under another
//! role, it would be another one.

use std::sync::Arc;

use super::{
    Worker,
    client::{Client, Discarding, Refusal},
};
use crate::{
    protocol::encode,
    session::{
        params::{Label, Labels},
        setting::Risk,
        unit,
    },
};

impl Worker {
    /// Sends the settings that a client's request needs, if it has to wait for them.
    pub(super) fn tries_settings(&mut self, slot: usize, server_slot: usize) -> bool {
        let (Some(client), Some(server)) = (self.clients.get_mut(slot), self.servers.get_mut(server_slot))
        else {
            return false;
        };
        if !server.session.is_free() || client.session.passing > 0 {
            return false;
        }
        let Some(risk) = server.session.risk(&mut client.session) else { return false };
        let mut bytes = Vec::new();
        server.session.try_settings(&mut client.session, risk, |sql| encode::query(&mut bytes, sql));
        (client.stalled, client.session.held) = (true, true);
        server.transaction_start = self.now;
        server.query_start = self.now;
        if server.send(&bytes).is_err() {
            // What the server said before it went away is still to be read.
            self.look_later_at_server(server_slot);
        }
        true
    }

    /// The server has answered: the request follows, or its client is told why it does not.
    pub(super) fn settings_tried(&mut self, client_slot: usize, server_slot: usize) {
        let (Some(client), Some(server)) =
            (self.clients.get_mut(client_slot), self.servers.get_mut(server_slot))
        else {
            return;
        };
        if !server.session.pipeline.is_empty() {
            return;
        }
        let trial = server.session.trying.take();
        let (Some(message), Some(trial)) = (server.session.injected_failed.take(), trial) else {
            return self.go_on_with_held(client_slot);
        };
        server.session.restore_label();
        // What was reported meanwhile has been taken back.
        client.session.label = trial.wanted;
        if trial.risk == Risk::Resets {
            // Whose setting is refused is not known: another server may have none of the other client's.
            server.session.spoiled = Some("settings cannot be reset");
        } else if let Some(label) = label_behind(client, &self.process.shared.labels) {
            client.session.label = label;
        } else {
            client.info.refused = Some(message);
            client.discarding = Discarding::Request(Refusal::Settings);
        }
        self.release(client_slot, server_slot);
    }
}

/// The label that a client's request leaves, if it is one that does away with what is refused.
fn label_behind(client: &Client, labels: &Labels) -> Option<Label> {
    let (text, _) = unit::only_text(&client.pending, &client.session)?;
    let text = text.trim_ascii();
    let text = text.strip_suffix(b";").unwrap_or(text).trim_ascii_end().to_ascii_lowercase();
    let session = &client.session;
    let label = match &*text {
        b"discard all" | b"reset all" => Arc::clone(&session.startup),
        b"reset role" | b"set role none" => {
            labels.keeping(&session.label, |name| !name.eq_ignore_ascii_case("role"))
        }
        _ => return None,
    };
    (!Arc::ptr_eq(&label, &session.label)).then_some(label)
}
