//! The tables of `[databases.NAME]`, `[users.NAME]` and `[peers.ID]`.
//!
//! An entry is what the file says before references (`url`, `password_file`) are followed; `file` turns
//! it into a `Database`, `User` or `Peer`.

use std::path::PathBuf;

use super::{
    Database, LoadBalanceHosts, NodeAddress, PatroniApi, User,
    settings::{CONSISTENCIES, LOAD_BALANCES, POOL_MODES, ROUTES, SSL_MODES},
    table::{Change, Row},
    value::{
        COUNT, Codec, FilePath, HostName, Hosts, Name, Nodes, Number, Password, PatroniApis, Text, Time,
    },
};
use crate::error::Secret;

/// `[databases.NAME]` as written.
#[derive(Debug, Default)]
pub(super) struct DatabaseEntry {
    pub host: Option<Vec<HostName>>,
    pub port: Option<u16>,
    pub load_balance_hosts: Option<LoadBalanceHosts>,
    pub nodes: Option<Vec<NodeAddress>>,
    pub patroni: Option<Vec<PatroniApi>>,
    pub url: Option<Secret<String>>,
    pub password_file: Option<PathBuf>,
    pub application_name: Option<String>,
    pub client_encoding: Option<String>,
    pub datestyle: Option<String>,
    pub timezone: Option<String>,
    /// Everything that needs no work.
    pub database: Database,
}

/// `[users.NAME]` as written.
#[derive(Debug, Default)]
pub(super) struct UserEntry {
    pub password_file: Option<PathBuf>,
    pub user: User,
}

/// `[peers.ID]` as written.
#[derive(Debug, Default)]
pub(super) struct PeerEntry {
    pub host: Option<String>,
    pub port: Option<u16>,
    pub pool_size: Option<u32>,
}

/// One key a line: `name => field, codec, how PgBouncer's differs;` where the field is an `Option`.
macro_rules! keys {
    ($table:ident: $entry:ty { $($(#[doc = $doc:literal])+ $name:ident => $($field:ident).+, $codec:expr $(, $note:literal)?;)+ }) => {
        pub(super) static $table: &[Row<$entry>] = &[$(Row {
            name: stringify!($name),
            section: "",
            doc: concat!($($doc, "\n"),+),
            note: concat!($($note)?),
            change: Change::Live,
            is_path: || $codec.is_path(),
            form: || $codec.form(),
            parse: |entry, input| $codec.parse(input).map(|value| entry.$($field).+ = value.into()),
            show: |entry| entry.$($field).+.as_ref().and_then(|value| $codec.show(&value.clone().into())),
            literal: |entry| entry.$($field).+.as_ref().map(|value| $codec.literal(&value.clone().into())),
            copy: |to, from| to.$($field).+.clone_from(&from.$($field).+),
        },)+];
    };
}

keys! { DATABASE_KEYS: DatabaseEntry {
    /// Host name or IP address of the server, or the directory of its unix socket (starts with `/`, or with `@` if it is an
    /// abstract one). Required, here or in `url`. A list of hosts (`["db1", "db2:5433"]`) stands for servers of which any will
    /// do for any request, as for PgBouncer: nothing is found out about their roles (see `nodes`). New connections go to
    /// each in turn (see `load_balance_hosts`); one that cannot be reached, or has not answered after a second, is
    /// passed over at once and tried again after a pause, up to `server_login_retry`.
    host => host, Hosts, "Required; PgBouncer takes the unix socket when it is missing. It passes over no host that cannot be reached.";
    /// Which host of a list the next connection goes to: `round-robin` (each in turn) or `disable` (the same, until it cannot
    /// be reached).
    load_balance_hosts => load_balance_hosts, LOAD_BALANCES;
    /// Port of the server, or of the hosts of a list that are given without one. 5432 if not given.
    port => port, Number(1..=u16::MAX);
    /// Instead of `host` and `port`: a primary and its streaming replicas, in any order. Which one is the primary is found
    /// out, also after a failover. Reads go to replicas (see `route` and `read_consistency`). A name whose addresses are
    /// nodes of their own (a headless service of Kubernetes) is marked, `"db.internal addresses=each"`: it is looked up again
    /// every `node_discovery_interval`, its IPv6 addresses only if it has no others.
    nodes => nodes, Nodes, "Not in PgBouncer.";
    /// Instead of `nodes`: the REST APIs of Patroni's members, which tell the nodes. They are asked one after the other until
    /// one answers, every `node_discovery_interval`. Who is not Patroni's leader gets no writes; the tag `noloadbalance` keeps
    /// reads away.
    patroni => patroni, PatroniApis, "Not in PgBouncer.";
    /// Instead of the setting of that name.
    route => database.route, ROUTES, "Not in PgBouncer.";
    /// Instead of the setting of that name.
    read_consistency => database.read_consistency, CONSISTENCIES, "Not in PgBouncer.";
    /// Name of the database at the server. The name of the entry if not given; for `*` the name that the
    /// client asked for.
    dbname => database.dbname, Name;
    /// Log in at the server as this user, whoever the client is: all clients share one pool. Without it each
    /// client's own name is used.
    user => database.user, Name;
    /// Password of `user`.
    password => database.password, Password;
    /// File that contains the password; the line end at its end does not count.
    password_file => password_file, FilePath, "Not in PgBouncer.";
    /// All of the above in one: `postgres://user:password@host:port/dbname?sslmode=require`.
    url => url, Password, "Not in PgBouncer.";
    /// Instead of the setting of that name.
    auth_user => database.auth_user, Name;
    /// Instead of the setting of that name.
    auth_query => database.auth_query, Name;
    /// Instead of the setting of that name.
    auth_dbname => database.auth_dbname, Name;
    /// Size of each pool, instead of `default_pool_size`; 0: no limit.
    pool_size => database.pool_size, COUNT;
    /// Instead of the setting of that name.
    min_pool_size => database.min_pool_size, COUNT;
    /// Instead of the setting of that name.
    reserve_pool_size => database.reserve_pool_size, COUNT;
    /// Instead of the setting of that name; 0: no limit.
    max_db_connections => database.max_db_connections, COUNT, "In PgBouncer 0 means the global setting.";
    /// Instead of the setting of that name; 0: no limit.
    max_db_client_connections => database.max_db_client_connections, COUNT, "In PgBouncer 0 means the global setting.";
    /// Instead of the setting of that name.
    pool_mode => database.pool_mode, POOL_MODES;
    /// Instead of the setting of that name; 0: for ever.
    query_wait_timeout => database.query_wait_timeout, Time;
    /// Instead of the setting of that name; 0: use each connection only once.
    server_lifetime => database.server_lifetime, Time, "In PgBouncer 0 means the global setting.";
    /// Run once after each login at the server.
    connect_query => database.connect_query, Text;
    /// `application_name` at the server until a client says otherwise.
    application_name => application_name, Text;
    /// `client_encoding` at the server until a client says otherwise.
    client_encoding => client_encoding, Name;
    /// `DateStyle` at the server until a client says otherwise.
    datestyle => datestyle, Name;
    /// `TimeZone` at the server until a client says otherwise.
    timezone => timezone, Name;
    /// Instead of the setting of that name.
    server_tls_sslmode => database.server_tls_sslmode, SSL_MODES, "Not in PgBouncer.";
} }

keys! { USER_KEYS: UserEntry {
    /// Plain password, `md5` with a hash, or a SCRAM secret as in `pg_authid`. Wins over `auth_file`.
    password => user.password, Password, "PgBouncer knows passwords only from `auth_file` and `auth_query`.";
    /// File that contains the password; the line end at its end does not count.
    password_file => password_file, FilePath, "Not in PgBouncer.";
    /// Instead of the one of the database and of `[pooler]`.
    pool_mode => user.pool_mode, POOL_MODES;
    /// Instead of the one of the database and of `[pooler]`.
    route => user.route, ROUTES, "Not in PgBouncer.";
    /// Instead of the one of the database and of `[pooler]`.
    read_consistency => user.read_consistency, CONSISTENCIES, "Not in PgBouncer.";
    /// Size of the user's pools, instead of the one of the database and `default_pool_size`; 0: no limit.
    pool_size => user.pool_size, COUNT;
    /// Instead of the one of the database and of `[pooler]`.
    reserve_pool_size => user.reserve_pool_size, COUNT;
    /// Instead of the setting of that name; 0: no limit.
    max_user_connections => user.max_user_connections, COUNT;
    /// Instead of the setting of that name; 0: no limit.
    max_user_client_connections => user.max_user_client_connections, COUNT;
    /// Instead of the setting of that name; 0: no limit.
    query_timeout => user.query_timeout, Time, "In PgBouncer 0 means the global setting.";
    /// Instead of the one of the database and of `[pooler]`; 0: for ever.
    query_wait_timeout => user.query_wait_timeout, Time;
    /// Instead of the setting of that name; 0: no limit.
    transaction_timeout => user.transaction_timeout, Time, "In PgBouncer 0 means the global setting.";
    /// Instead of the setting of that name; 0: never.
    idle_transaction_timeout => user.idle_transaction_timeout, Time, "In PgBouncer 0 means the global setting.";
    /// Instead of the setting of that name; 0: never.
    client_idle_timeout => user.client_idle_timeout, Time, "In PgBouncer 0 means the global setting.";
} }

keys! { PEER_KEYS: PeerEntry {
    /// Host name or IP address of the peer, or the directory of its unix socket (starts with `/`): one that leads to it alone.
    /// Required.
    host => host, Name;
    /// Its port. 6432 if not given.
    port => port, Number(1..=u16::MAX);
    /// Cancel requests that may be on their way to it, instead of `default_pool_size`; 0: no limit.
    pool_size => pool_size, COUNT;
} }
