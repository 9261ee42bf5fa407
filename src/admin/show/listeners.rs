//! SHOW LISTENERS: the connections that listen for clients, which PgBouncer has nothing of.

use std::sync::atomic::Ordering;

use super::{
    super::result::{
        Columns,
        Kind::{Int4, Int8, Text},
        Row,
    },
    connections::time,
    text,
};
use crate::admin::commands::Commands;

pub(super) const LISTENERS: Columns = &[
    ("database", Text),
    ("user", Text),
    ("state", Text),
    ("addr", Text),
    ("remote_pid", Int4),
    ("connect_time", Text),
    ("clients", Int4),
    ("channels", Int4),
    ("notifications", Int8),
    ("delivered", Int8),
];

/// A row for each database that somebody listens to.
pub(super) fn listeners(commands: &Commands) -> Vec<Row> {
    let rows = commands.process.listeners.all().into_iter().map(|listener| -> Row {
        let pid = listener.pid.load(Ordering::Acquire);
        let connected_at = listener.connected_at.load(Ordering::Acquire);
        vec![
            text(&listener.database),
            text(&listener.user),
            text(if pid == 0 { "login" } else { "listening" }),
            text(listener.peer()),
            text(pid),
            if pid == 0 { text("") } else { time(connected_at) },
            text(listener.clients.load(Ordering::Relaxed)),
            text(listener.channels.load(Ordering::Relaxed)),
            text(listener.received.load(Ordering::Relaxed)),
            text(listener.delivered.load(Ordering::Relaxed)),
        ]
    });
    rows.collect()
}
