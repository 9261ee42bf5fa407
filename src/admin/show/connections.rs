//! SHOW CLIENTS, SHOW SERVERS and SHOW SOCKETS.

use super::{
    super::result::{
        Columns,
        Kind::{self, Int4, Text},
        Row,
    },
    text,
};
use crate::{
    admin::commands::Commands,
    calendar,
    config::PeerAddr,
    worker::{process::pid_of, report::ReportKind},
};

const CONNECTION: [(&str, Kind); 21] = [
    ("type", Text),
    ("user", Text),
    ("database", Text),
    ("replication", Text),
    ("state", Text),
    ("addr", Text),
    ("port", Int4),
    ("local_addr", Text),
    ("local_port", Int4),
    ("connect_time", Text),
    ("request_time", Text),
    ("wait", Int4),
    ("wait_us", Int4),
    ("close_needed", Int4),
    ("ptr", Text),
    ("link", Text),
    ("remote_pid", Int4),
    ("tls", Text),
    ("application_name", Text),
    ("prepared_statements", Int4),
    ("id", Int4),
];

pub(super) const SERVERS: Columns = &and::<{ CONNECTION.len() + 1 }>(&["pinned"]);
pub(super) const CLIENTS: Columns = &and::<{ CONNECTION.len() + 3 }>(&["route", "node", "class"]);

/// Those of PgBouncer, whose last ones are about its buffers.
pub(super) const SOCKETS: Columns = &{
    let mut columns = [("", Int4); CONNECTION.len() + BUFFERS.len()];
    let (connection, buffers) = columns.split_at_mut(CONNECTION.len());
    connection.copy_from_slice(&CONNECTION);
    buffers.copy_from_slice(&BUFFERS);
    columns
};
const BUFFERS: [(&str, Kind); 7] = [
    ("recv_pos", Int4),
    ("pkt_pos", Int4),
    ("pkt_remain", Int4),
    ("send_pos", Int4),
    ("send_remain", Int4),
    ("pkt_avail", Int4),
    ("send_avail", Int4),
];

/// The columns of PgBouncer, and behind them some that it has nothing of: `N` in all.
const fn and<const N: usize>(more: &[&'static str]) -> [(&'static str, Kind); N] {
    let mut columns = [("", Text); N];
    let (connection, mut behind) = columns.split_at_mut(CONNECTION.len());
    connection.copy_from_slice(&CONNECTION);
    let mut names = more;
    while let ([name, others @ ..], [(column, _), rest @ ..]) = (names, behind) {
        *column = name;
        (names, behind) = (others, rest);
    }
    columns
}

/// What names a connection: its id, within the bounds of the column `id`.
fn pointer(id: u64) -> Option<String> {
    text(format!("{:#x}", pid_of(id)))
}

pub(super) async fn clients(commands: &Commands) -> Vec<Row> {
    let port_of_unix = commands.process.config().settings.listen_port;
    let rows = commands.report(ReportKind::Clients).await.clients.into_iter().map(|c| -> Row {
        let (addr, port, local, local_port, pid) = match &c.peer {
            PeerAddr::Tcp { peer, local } => {
                (peer.ip().to_string(), peer.port(), local.ip().to_string(), local.port(), 0)
            }
            PeerAddr::Unix { pid, .. } => {
                ("unix".to_owned(), port_of_unix, "unix".to_owned(), port_of_unix, *pid)
            }
        };
        vec![
            text("C"),
            text(c.user),
            text(c.database),
            text(c.replication),
            text(c.state),
            text(addr),
            text(port),
            text(local),
            text(local_port),
            time(c.connected_at),
            time(c.request_at),
            text(c.wait / 1_000_000),
            text(c.wait % 1_000_000),
            text(0),
            pointer(c.id),
            c.link.map_or(text(""), pointer),
            text(pid),
            text(c.tls),
            text(c.application_name),
            text(c.prepared_statements),
            text(pid_of(c.id)),
            text(c.route),
            text(c.node),
            text(c.class),
        ]
    });
    rows.collect()
}

pub(super) async fn servers(commands: &Commands) -> Vec<Row> {
    let rows = commands.report(ReportKind::Servers).await.servers.into_iter().map(|s| -> Row {
        vec![
            text("S"),
            text(s.user),
            text(s.database),
            text(s.replication),
            text(s.state),
            text(s.peer),
            text(s.port),
            text(s.local),
            text(s.local_port),
            time(s.connected_at),
            time(s.request_at),
            text(0),
            text(0),
            text(u8::from(s.close_needed)),
            pointer(s.id),
            s.link.map_or(text(""), pointer),
            text(s.remote_pid),
            text(s.tls),
            text(s.application_name),
            text(s.prepared_statements),
            text(pid_of(s.id)),
            text(s.pinned),
        ]
    });
    rows.collect()
}

/// All connections, or those that are at work. Buffers are not told: they are taken when bytes come.
pub(super) async fn sockets(commands: &Commands, active: bool) -> Vec<Row> {
    const STATE: usize = 4;
    let mut rows = Vec::new();
    for (prefix, found) in [("sv", servers(commands).await), ("cl", clients(commands).await)] {
        for mut row in found {
            row.truncate(CONNECTION.len());
            let Some(state) = row.get_mut(STATE).and_then(Option::as_mut) else { continue };
            if active && state != "active" {
                continue;
            }
            state.insert_str(0, &format!("{prefix}_"));
            row.extend(BUFFERS.iter().map(|_| text(0)));
            rows.push(row);
        }
    }
    rows
}

/// Unix microseconds as `YYYY-MM-DD HH:MM:SS UTC`.
pub(super) fn time(micros: u64) -> Option<String> {
    text(format!("{} UTC", calendar::date(micros / 1_000_000)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_dates() {
        for (seconds, expected) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_399, "2000-02-28 23:59:59 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (1_709_164_800, "2024-02-29 00:00:00 UTC"),
            (4_102_444_799, "2099-12-31 23:59:59 UTC"),
        ] {
            assert_eq!(time(seconds * 1_000_000).as_deref(), Some(expected), "{seconds}");
        }
    }
}
