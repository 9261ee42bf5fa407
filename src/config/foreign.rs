//! What to say to keys that are known from elsewhere: PgBouncer's settings that pooler does not have, and
//! keys in the wrong table.

use super::{
    entries::{DATABASE_KEYS, PEER_KEYS, USER_KEYS},
    settings::SETTINGS,
    suggest::closest,
};

/// PgBouncer's (and others') names, and what pooler offers instead.
const FOREIGN: &[(&str, &str)] = &[
    ("pool_size", "in [pooler] it is default_pool_size; pool_size is for [databases.NAME] and [users.NAME]"),
    ("reserve_pool", "it is called reserve_pool_size"),
    ("verbose", "set log_level instead"),
    ("job_name", "remove it"),
    ("pkt_buf", "buffers need no tuning; remove it"),
    ("sbuf_loopcnt", "remove it"),
    ("tcp_defer_accept", "remove it"),
    ("tcp_socket_buffer", "the kernel tunes it; remove it"),
    ("track_extra_parameters", "every parameter that the server reports is tracked; remove it"),
    ("listen_address", "it is called listen_addr"),
    ("max_connections", "clients: max_client_conn; servers: max_db_connections"),
    ("resolv_conf", "names are looked up as the system does it; remove it"),
];

/// Which table a key stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Table {
    Pooler,
    Databases,
    Users,
    Peers,
}

impl Table {
    fn names(self) -> Vec<&'static str> {
        match self {
            Self::Pooler => SETTINGS.iter().map(|row| row.name).collect(),
            Self::Databases => DATABASE_KEYS.iter().map(|row| row.name).collect(),
            Self::Users => USER_KEYS.iter().map(|row| row.name).collect(),
            Self::Peers => PEER_KEYS.iter().map(|row| row.name).collect(),
        }
    }

    fn heading(self) -> &'static str {
        match self {
            Self::Pooler => "[pooler]",
            Self::Databases => "[databases.NAME]",
            Self::Users => "[users.NAME]",
            Self::Peers => "[peers.ID]",
        }
    }
}

/// What to do about a key that `table` does not have.
pub(super) fn remedy(table: Table, key: &str) -> String {
    if let Some((_, remedy)) = FOREIGN.iter().find(|(name, _)| *name == key) {
        return (*remedy).to_owned();
    }
    let tables = [Table::Pooler, Table::Databases, Table::Users, Table::Peers];
    if let Some(right) = tables.into_iter().find(|other| other.names().contains(&key)) {
        return format!("{key} belongs to {}", right.heading());
    }
    match closest(key, table.names()) {
        Some(name) => format!("did you mean {name}?"),
        None => format!("remove it; docs/settings.md lists what {} takes", table.heading()),
    }
}
