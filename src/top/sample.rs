//! One look at a console. Columns are found by their names, so that older and other consoles do as well; what a console does
//! not know is `None`.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use super::text::clean;
use crate::server::{OwnSession, QueryError, Row, Table};

/// An answer may take so long.
const ANSWER: Duration = Duration::from_secs(5);
/// The pool of the console itself.
const CONSOLE: &str = "pgbouncer";

/// What was seen.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) at: Instant,
    pub(super) version: String,
    pub(super) pools: Vec<Pool>,
    pub(super) databases: Vec<Database>,
    pub(super) nodes: Option<Vec<Node>>,
    pub(super) queries: Option<Vec<Query>>,
    /// query_statistics is on.
    pub(super) counts_queries: bool,
    pub(super) pins: Option<Vec<Pin>>,
    /// Logged in.
    pub(super) clients: u64,
    pub(super) paused: bool,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Pool {
    pub(super) database: String,
    pub(super) user: String,
    pub(super) mode: String,
    pub(super) active: u64,
    pub(super) waiting: u64,
    pub(super) servers_active: u64,
    pub(super) servers_idle: u64,
    pub(super) servers_login: u64,
    pub(super) servers: u64,
    /// 0: no limit.
    pub(super) size: u64,
    /// In microseconds.
    pub(super) maxwait: u64,
}

/// Counters since the start; times in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counters {
    pub(super) transactions: u64,
    pub(super) queries: u64,
    pub(super) received: u64,
    pub(super) sent: u64,
    pub(super) transaction_time: u64,
    pub(super) query_time: u64,
    pub(super) wait_time: u64,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Database {
    pub(super) name: String,
    pub(super) counters: Counters,
    pub(super) clients: Option<u64>,
    pub(super) servers: Option<u64>,
    pub(super) state: &'static str,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Node {
    pub(super) database: String,
    pub(super) node: String,
    pub(super) role: String,
    pub(super) weight: u64,
    pub(super) timeline: u64,
    pub(super) lag_bytes: Option<u64>,
    pub(super) lag_time: Option<u64>,
    pub(super) busy: u64,
    pub(super) probe_time: Option<u64>,
    pub(super) since: String,
    pub(super) reason: String,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Query {
    pub(super) database: String,
    pub(super) user: String,
    pub(super) node: String,
    pub(super) text: String,
    pub(super) calls: u64,
    pub(super) errors: u64,
    pub(super) time: u64,
    pub(super) longest: u64,
    pub(super) wait: u64,
    pub(super) rows: u64,
    pub(super) bytes: u64,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Pin {
    pub(super) database: String,
    pub(super) user: String,
    pub(super) reason: String,
    pub(super) servers: u64,
    /// In seconds.
    pub(super) longest: u64,
    pub(super) pins: u64,
}

/// A session of a console.
#[derive(Debug)]
pub(super) struct Console {
    session: OwnSession,
    /// What it has refused to show.
    lacks: BTreeSet<&'static str>,
    version: Option<String>,
}

impl Console {
    pub(super) fn new(session: OwnSession) -> Self {
        Self { session, lacks: BTreeSet::new(), version: None }
    }

    /// Looks once.
    pub(super) async fn sample(&mut self) -> Result<Sample, QueryError> {
        if self.version.is_none() {
            let table = self.show("VERSION").await?.unwrap_or_default();
            let cell = table.rows.into_iter().next().and_then(|row| row.into_iter().next().flatten());
            self.version = Some(clean(&cell.unwrap_or_default()));
        }
        let pools = self.need("POOLS").await?;
        let stats = self.need("STATS").await?;
        let at = Instant::now();
        let databases = self.show("DATABASES").await?.unwrap_or_default();
        let users = self.show("USERS").await?.unwrap_or_default();
        let lists = self.show("LISTS").await?.unwrap_or_default();
        let state = self.show("STATE").await?.unwrap_or_default();
        let nodes = self.show("NODES").await?;
        let queries = self.show("QUERIES").await?;
        let pins = self.show("PINS").await?;
        let counts_queries = match &queries {
            Some(table) if table.rows.is_empty() => self.counts_queries().await?,
            Some(_) => true,
            None => false,
        };
        let databases = databases_of(&Rows(&stats), &Rows(&databases));
        Ok(Sample {
            at,
            version: self.version.clone().unwrap_or_default(),
            pools: pools_of(&Rows(&pools), &databases.1, &Rows(&users)),
            databases: databases.0,
            nodes: nodes.as_ref().map(|table| Rows(table).each(node)),
            queries: queries.as_ref().map(|table| Rows(table).each(query)),
            counts_queries,
            pins: pins.as_ref().map(|table| Rows(table).each(pin)),
            clients: item(&Rows(&lists), "used_clients").unwrap_or(0),
            paused: Rows(&state)
                .each(|f| f.text("key") == "paused" && f.text("value") == "yes")
                .contains(&true),
        })
    }

    /// `None`: it has no such thing.
    async fn show(&mut self, what: &'static str) -> Result<Option<Table>, QueryError> {
        if self.lacks.contains(what) {
            return Ok(None);
        }
        match self.session.table(&format!("SHOW {what}"), ANSWER).await {
            Ok(table) => Ok(Some(table)),
            Err(QueryError::Server(_)) if self.session.is_usable() => {
                self.lacks.insert(what);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// What every console has: an error says why this one does not tell.
    async fn need(&mut self, what: &'static str) -> Result<Table, QueryError> {
        self.session.table(&format!("SHOW {what}"), ANSWER).await
    }

    async fn counts_queries(&mut self) -> Result<bool, QueryError> {
        let config = self.show("CONFIG").await?.unwrap_or_default();
        let on = Rows(&config).each(|f| f.text("key") == "query_statistics" && f.number("value") != Some(0));
        Ok(on.contains(&true))
    }
}

/// A table whose columns are asked for by name.
pub(super) struct Rows<'a>(pub(super) &'a Table);

/// One row of it.
pub(super) struct Fields<'a> {
    columns: &'a [String],
    row: &'a Row,
}

impl Rows<'_> {
    pub(super) fn each<T>(&self, read: impl Fn(&Fields<'_>) -> T) -> Vec<T> {
        self.0.rows.iter().map(|row| read(&Fields { columns: &self.0.columns, row })).collect()
    }
}

impl Fields<'_> {
    fn raw(&self, column: &str) -> Option<&str> {
        let index = self.columns.iter().position(|name| name == column)?;
        self.row.get(index)?.as_deref()
    }

    /// Empty if there is none.
    pub(super) fn text(&self, column: &str) -> String {
        clean(self.raw(column).unwrap_or_default())
    }

    pub(super) fn number(&self, column: &str) -> Option<u64> {
        self.raw(column)?.trim().parse().ok()
    }

    fn count(&self, column: &str) -> u64 {
        self.number(column).unwrap_or(0)
    }
}

fn item(lists: &Rows<'_>, name: &str) -> Option<u64> {
    let items = lists.each(|f| (f.text("list") == name).then(|| f.number("items")).flatten());
    items.into_iter().flatten().next()
}

fn pools_of(pools: &Rows<'_>, sizes: &BTreeMap<String, u64>, users: &Rows<'_>) -> Vec<Pool> {
    let own: BTreeMap<String, u64> = users
        .each(|f| Some((f.text("name"), f.number("pool_size")?)))
        .into_iter()
        .flatten()
        .filter(|(_, size)| *size > 0)
        .collect();
    let read = |f: &Fields<'_>| {
        let (database, user) = (f.text("database"), f.text("user"));
        let servers = [
            "sv_active",
            "sv_active_cancel",
            "sv_being_canceled",
            "sv_idle",
            "sv_used",
            "sv_tested",
            "sv_login",
        ];
        Pool {
            size: own.get(&user).or_else(|| sizes.get(&database)).copied().unwrap_or(0),
            mode: f.text("pool_mode"),
            active: f.count("cl_active"),
            waiting: f.count("cl_waiting"),
            servers_active: f.count("sv_active"),
            servers_idle: f.count("sv_idle") + f.count("sv_used") + f.count("sv_tested"),
            servers_login: f.count("sv_login"),
            servers: servers.into_iter().map(|column| f.count(column)).sum(),
            maxwait: f.count("maxwait") * 1_000_000 + f.count("maxwait_us"),
            database,
            user,
        }
    };
    pools.each(read).into_iter().filter(|pool| pool.database != CONSOLE).collect()
}

/// The databases that have done something, and the sizes of pools of all.
fn databases_of(stats: &Rows<'_>, databases: &Rows<'_>) -> (Vec<Database>, BTreeMap<String, u64>) {
    let sizes = databases.each(|f| (f.text("name"), f.count("pool_size"))).into_iter().collect();
    let known: BTreeMap<String, (Option<u64>, Option<u64>, &'static str)> = databases
        .each(|f| {
            let state = match (f.number("paused"), f.number("disabled")) {
                (Some(1), _) => "paused",
                (_, Some(1)) => "disabled",
                _ => "",
            };
            (f.text("name"), (f.number("current_client_connections"), f.number("current_connections"), state))
        })
        .into_iter()
        .collect();
    let read = |f: &Fields<'_>| {
        let name = f.text("database");
        let (clients, servers, state) = known.get(&name).copied().unwrap_or_default();
        let counters = Counters {
            transactions: f.count("total_xact_count"),
            queries: f.count("total_query_count"),
            received: f.count("total_received"),
            sent: f.count("total_sent"),
            transaction_time: f.count("total_xact_time"),
            query_time: f.count("total_query_time"),
            wait_time: f.count("total_wait_time"),
        };
        Database { name, counters, clients, servers, state }
    };
    (stats.each(read).into_iter().filter(|database| database.name != CONSOLE).collect(), sizes)
}

fn node(f: &Fields<'_>) -> Node {
    Node {
        database: f.text("database"),
        node: f.text("node"),
        role: f.text("role"),
        weight: f.count("weight"),
        timeline: f.count("timeline"),
        lag_bytes: f.number("lag_bytes"),
        lag_time: f.number("lag_us"),
        busy: f.count("busy"),
        probe_time: f.number("probe_us"),
        since: f.text("since"),
        reason: f.text("reason"),
    }
}

fn query(f: &Fields<'_>) -> Query {
    Query {
        database: f.text("database"),
        user: f.text("user"),
        node: f.text("node"),
        text: f.text("query"),
        calls: f.count("calls"),
        errors: f.count("errors"),
        time: f.count("total_time"),
        longest: f.count("max_time"),
        wait: f.count("total_wait_time"),
        rows: f.count("rows"),
        bytes: f.count("bytes"),
    }
}

fn pin(f: &Fields<'_>) -> Pin {
    Pin {
        database: f.text("database"),
        user: f.text("user"),
        reason: f.text("reason"),
        servers: f.count("servers"),
        longest: f.count("longest"),
        pins: f.count("pins"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &str) -> Table {
        let mut lines = text.lines();
        let cells = |line: &str| line.split('|').map(str::to_owned).collect::<Vec<_>>();
        let columns = cells(lines.next().unwrap());
        Table { columns, rows: lines.map(|line| cells(line).into_iter().map(Some).collect()).collect() }
    }

    #[test]
    fn columns_are_found_by_name_whatever_their_order_and_number() {
        let pools = table(
            "user|database|cl_waiting|cl_active|sv_active|sv_idle|sv_used|maxwait|maxwait_us|new\n\
             u|a|1|2|3|4|5|6|7|8\npgbouncer|pgbouncer|0|1|0|0|0|0|0|0\nv|a|0|0|0|0|0|0|0|0",
        );
        let users = table("name|pool_size\nu|        9\nv|\n");
        let databases = table("name|pool_size|paused|disabled|current_connections\na|20|1|0|4");
        let stats = table("database|total_xact_count|total_query_count\na|10|20\npgbouncer|1|1");
        let (rows, sizes) = databases_of(&Rows(&stats), &Rows(&databases));
        assert_eq!(rows.len(), 1);
        assert_eq!((rows[0].counters.transactions, rows[0].servers, rows[0].state), (10, Some(4), "paused"));
        let pools = pools_of(&Rows(&pools), &sizes, &Rows(&users));
        let seen: Vec<_> = pools.iter().map(|p| (p.user.as_str(), p.servers, p.size, p.maxwait)).collect();
        assert_eq!(seen, [("u", 12, 9, 6_000_007), ("v", 0, 20, 0)]);
        assert_eq!(item(&Rows(&table("list|items\nusers|3\nused_clients|7")), "used_clients"), Some(7));
    }
}
