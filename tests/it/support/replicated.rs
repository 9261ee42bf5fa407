//! A primary and replicas of its own for one test: they can be delayed, frozen, killed, promoted, re-pointed, and say
//! which of them ran a statement.

use std::{collections::HashMap, fs, path::PathBuf, time::Duration};

use pooler::demo::{
    cluster::{Cluster, ClusterOptions, Node},
    process::wait_until,
};

use super::{
    database::{Version, options, password_of, start},
    pooler::{Pooler, Setup},
    raw::{PATIENCE, Raw},
};

/// The database that tests use on it, owned by `app`.
pub const DATABASE: &str = "replicated";

/// Lines for postgresql.conf of all nodes. What differs between them is in `node.conf`.
const CONF: [&str; 6] = [
    "max_prepared_transactions = 50",
    "wal_keep_size = '512MB'",
    "wal_retrieve_retry_interval = '100ms'",
    "shared_preload_libraries = 'pg_stat_statements'",
    "pg_stat_statements.track = top",
    "include_if_exists = 'node.conf'",
];

/// A primary (node 0 at first) and its replicas.
#[derive(Debug)]
pub struct Replicated {
    // Stop before the directory goes, which the cluster holds.
    replicas: Vec<Node>,
    cluster: Cluster,
    /// Own lines of each node.
    lines: Vec<Vec<String>>,
    /// Whom each node follows.
    upstream: Vec<Option<usize>>,
    /// Who was promoted last.
    primary: usize,
}

impl Replicated {
    /// A primary and so many replicas of it, with lines for postgresql.conf of all of them.
    pub fn start(replicas: usize, conf: &[&str]) -> Self {
        let conf = conf.iter().chain(&CONF).map(|&line| line.to_owned()).collect();
        let cluster = start(&ClusterOptions { conf, ..options(Version::Distribution) });
        let (replicas_yet, lines, upstream) = (Vec::new(), vec![Vec::new()], vec![None]);
        let mut started = Self { replicas: replicas_yet, cluster, lines, upstream, primary: 0 };
        let mut admin = started.admin_of(0, "postgres");
        admin.sql(&format!("CREATE DATABASE {DATABASE} OWNER app"));
        admin.sql("GRANT pg_monitor TO app");
        let boss = format!("CREATE ROLE boss SUPERUSER LOGIN PASSWORD '{}'", password_of("boss"));
        admin.sql(&boss);
        started.admin(0).sql("CREATE EXTENSION pg_stat_statements");
        for _ in 0..replicas {
            started.add(0);
        }
        started
    }

    /// Adds a replica that follows this node (another replica: a cascade); its index.
    pub fn add(&mut self, upstream: usize) -> usize {
        let index = self.upstream.len();
        self.replicas.push(self.cluster.primary.beside(&format!("node{index}")).unwrap());
        self.lines.push(Vec::new());
        self.upstream.push(Some(upstream));
        self.fill(index);
        index
    }

    /// Number of nodes.
    pub fn count(&self) -> usize {
        self.upstream.len()
    }

    /// A node by its index.
    pub fn node(&self, index: usize) -> &Node {
        if index == 0 { &self.cluster.primary } else { &self.replicas[index - 1] }
    }

    fn node_mut(&mut self, index: usize) -> &mut Node {
        if index == 0 { &mut self.cluster.primary } else { &mut self.replicas[index - 1] }
    }

    /// The node that was promoted last.
    pub fn primary(&self) -> usize {
        self.primary
    }

    /// Who follows somebody.
    pub fn replicas(&self) -> Vec<usize> {
        (0..self.count()).filter(|&index| self.upstream[index].is_some()).collect()
    }

    /// A superuser's connection to the test's database, not through pooler.
    pub fn admin(&self, index: usize) -> Raw {
        self.admin_of(index, DATABASE)
    }

    fn admin_of(&self, index: usize, database: &str) -> Raw {
        Raw::login_unix(&self.socket(index), "postgres", database)
    }

    fn socket(&self, index: usize) -> PathBuf {
        self.cluster.dir().join(format!(".s.PGSQL.{}", self.node(index).port))
    }

    /// A connection of `app` straight to a node.
    pub fn connect(&self, index: usize) -> Raw {
        self.connect_as(index, "app")
    }

    /// A connection of that role straight to a node: over the unix socket, which asks for no password.
    pub fn connect_as(&self, index: usize, role: &str) -> Raw {
        Raw::login_unix(&self.socket(index), role, DATABASE)
    }

    /// Rows of a statement run by the superuser at a node, columns joined by `|`.
    pub fn sql(&self, index: usize, sql: &str) -> Vec<String> {
        self.admin(index).sql(sql)
    }

    /// One number that a statement of the superuser returns at a node.
    pub fn number(&self, index: usize, sql: &str) -> i64 {
        self.sql(index, sql)[0].parse().unwrap()
    }

    /// Replaces the own lines of a node's configuration and makes it read them.
    pub fn configure(&mut self, index: usize, lines: &[&str]) {
        self.lines[index] = lines.iter().map(|&line| line.to_owned()).collect();
        self.write_conf(index);
        if self.node(index).pid().is_none() {
            return;
        }
        let loaded = || self.sql(index, "SELECT pg_conf_load_time()");
        let before = loaded();
        self.node(index).reload().unwrap();
        assert!(wait_until(PATIENCE, || (loaded() != before).then_some(())).is_some(), "node {index}");
    }

    fn write_conf(&self, index: usize) {
        let mut conf = self.lines[index].join("\n");
        if let Some(upstream) = self.upstream[index] {
            let (dir, port) = (self.cluster.dir().display(), self.node(upstream).port);
            conf += &format!(
                "\nprimary_conninfo = 'host={dir} port={port} user=postgres application_name=node{index}'"
            );
        }
        fs::write(self.node(index).data().join("node.conf"), conf + "\n").unwrap();
    }

    /// Fills the directory of a node with a copy of the primary and starts it as a replica.
    fn fill(&mut self, index: usize) {
        let source = self.primary();
        let mut admin = self.admin(source);
        admin.sql("SELECT pg_backup_start('copy', true)");
        let (from, to) =
            (self.node(source).data().display().to_string(), self.node(index).data().display().to_string());
        // Files may vanish while they are copied: what they held is in the WAL.
        self.node(index)
            .shell(&format!(
                "rm -rf '{to}'; cp -a '{from}' '{to}' 2>/dev/null; cd '{to}' && \
                 rm -rf postmaster.* pg_replslot/* pg_wal/0* pg_wal/summaries node.conf && touch standby.signal"
            ))
            .unwrap();
        let label = admin.sql("SELECT labelfile FROM pg_backup_stop(false)").remove(0);
        self.node(index).shell(&format!("cat >'{to}/backup_label' <<'END'\n{label}END\n")).unwrap();
        self.write_conf(index);
        self.node_mut(index).start().unwrap();
    }

    /// Makes a replica the primary and returns once it takes writes.
    pub fn promote(&mut self, index: usize) {
        assert_eq!(self.sql(index, "SELECT pg_promote(true, 30)"), ["t"]);
        (self.upstream[index], self.primary) = (None, index);
        self.write_conf(index);
    }

    /// Points a replica at another node, whose timeline it follows from there on.
    pub fn follow(&mut self, index: usize, upstream: usize) {
        self.upstream[index] = Some(upstream);
        self.write_conf(index);
        self.node(index).reload().unwrap();
    }

    /// The same, and where it is ahead of that node on another timeline, with a fresh copy.
    pub fn follow_or_rejoin(&mut self, index: usize, upstream: usize) {
        self.follow(index, upstream);
        let timeline =
            self.sql(upstream, "SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)").remove(0);
        let question = format!(
            "SELECT count(*) FROM pg_stat_wal_receiver \
             WHERE status = 'streaming' AND lpad(to_hex(received_tli), 8, '0') = lower('{timeline}')"
        );
        let follows =
            wait_until(Duration::from_secs(3), || (self.number(index, &question) == 1).then_some(()));
        if follows.is_none() {
            self.rejoin(index, upstream);
        }
    }

    /// Makes whatever a node was a replica of this one, with a fresh copy of the primary's data and no lines of its own:
    /// as a primary it may have waited for a replica that is not there any more.
    pub fn rejoin(&mut self, index: usize, upstream: usize) {
        self.node_mut(index).stop();
        self.lines[index].clear();
        self.upstream[index] = Some(upstream);
        self.fill(index);
    }

    /// Ends open transactions, sends everything to the replicas and stops.
    pub fn stop_fast(&mut self, index: usize) {
        self.node_mut(index).stop_by("INT").unwrap();
    }

    /// Stops at once, without a word to clients but a warning.
    pub fn stop_immediately(&mut self, index: usize) {
        self.node_mut(index).stop_by("QUIT").unwrap();
    }

    /// kill -9 of all its processes.
    pub fn crash(&mut self, index: usize) {
        self.node_mut(index).crash().unwrap();
    }

    /// Starts a node that was stopped or crashed, as it was.
    pub fn restart(&mut self, index: usize) {
        self.node_mut(index).start().unwrap();
    }

    /// Freezes all processes of a node: it keeps its connections and says nothing.
    pub fn freeze(&self, index: usize) {
        self.node(index).signal_all("STOP").unwrap();
    }

    /// Ends [`Replicated::freeze`].
    pub fn thaw(&self, index: usize) {
        self.node(index).signal_all("CONT").unwrap();
    }

    /// Waits until a replica has replayed what another node has now.
    pub fn catch_up(&self, replica: usize, with: usize) {
        let recovering = self.sql(with, "SELECT pg_is_in_recovery()") == ["t"];
        let position = if recovering { "pg_last_wal_replay_lsn()" } else { "pg_current_wal_flush_lsn()" };
        // What was committed asynchronously is flushed by the next commit that is not.
        if !recovering {
            self.sql(
                with,
                "SET synchronous_commit = local; SELECT pg_logical_emit_message(true, 'flush', '')",
            );
        }
        let goal = self.sql(with, &format!("SELECT {position}")).remove(0);
        let question = format!("SELECT pg_last_wal_replay_lsn() >= '{goal}'");
        let mut admin = self.admin(replica);
        let met = wait_until(4 * PATIENCE, || (admin.sql(&question) == ["t"]).then_some(()));
        assert!(met.is_some(), "node {replica} does not reach {goal} of node {with}");
    }

    /// Waits until every replica has replayed what the primary has now.
    pub fn catch_up_all(&self) {
        let primary = self.primary();
        self.replicas().into_iter().for_each(|index| self.catch_up(index, primary));
    }

    /// Lets the primary wait for this replica's flush at each commit, and waits until it does so.
    pub fn synchronous(&mut self, replica: usize) {
        let primary = self.primary();
        let names = format!("synchronous_standby_names = 'FIRST 1 (node{replica})'");
        self.configure(primary, &[&names, "synchronous_commit = on"]);
        let question = format!(
            "SELECT count(*) FROM pg_stat_replication \
             WHERE application_name = 'node{replica}' AND sync_state = 'sync'"
        );
        let met = wait_until(PATIENCE, || (self.number(primary, &question) == 1).then_some(()));
        assert!(met.is_some(), "node {replica} is not synchronous");
    }

    /// How often statements with this in their text ran at a node.
    pub fn calls(&self, index: usize, text: &str) -> i64 {
        let sum = "SELECT coalesce(sum(calls), 0)::int8 FROM pg_stat_statements WHERE query LIKE";
        self.number(index, &format!("{sum} '%{text}%' AND query NOT LIKE '%pg_stat_statements%'"))
    }

    /// A pooler to be in front of all nodes, listed in this order.
    pub fn setup(&self, order: &[usize]) -> Setup {
        let ports: Vec<u16> = order.iter().map(|&index| self.node(index).port).collect();
        Setup::nodes(DATABASE, &ports)
            .section(&format!("[users.boss]\npassword = \"{}\"\n", password_of("boss")))
    }

    /// Waits until reads that come through pooler run on every replica: it knows the nodes and the catalog.
    pub fn wait_for_replicas(&self, pooler: &Pooler) {
        let waiting = self.replicas();
        // Reads of clients at work count: they may keep one replica so busy that all that come here go to the other.
        let reads = |index| self.calls(index, "AS warm") + self.calls(index, "FROM still");
        let calls = || -> Vec<i64> { waiting.iter().map(|&index| reads(index)).collect() };
        let before = calls();
        let met = wait_until(PATIENCE, || {
            // Each client by itself may stay with one replica. Where failover_hold is short it may be refused at first.
            let mut client = pooler.connect();
            // Like no other read: pg_stat_statements shows those that differ in the names of columns as the first of them.
            (0..5).for_each(|_| drop(client.try_sql("SELECT 1 AS warm WHERE 'warm' LIKE '%warm'")));
            calls().iter().zip(&before).all(|(now, before)| now > before).then_some(())
        });
        let nodes = || pooler.console("SHOW NODES");
        assert!(
            met.is_some(),
            "no read gets to a replica: {before:?}, {:?}; {:?}\n{}",
            calls(),
            nodes(),
            pooler.log()
        );
    }

    /// Waits until no node counts as busy: whatever became of its servers, nothing is left of their work.
    pub fn wait_until_idle(&self, pooler: &Pooler) {
        let nodes = || pooler.console("SHOW NODES");
        let busy =
            |row: &Vec<(String, String)>| row.iter().any(|(name, value)| name == "busy" && value != "0");
        let met = wait_until(PATIENCE, || (!nodes().iter().any(busy)).then_some(()));
        assert!(met.is_some(), "{:?}\n{}", nodes(), pooler.log());
    }

    /// What ran where so far; needs `log_statement = all`.
    pub fn runs(&self) -> Runs {
        let mut runs = Runs::default();
        (0..self.count()).for_each(|index| runs.read(index, &self.node(index).log()));
        runs
    }
}

impl Drop for Replicated {
    fn drop(&mut self) {
        // A process that was stopped does not hear that it is to end.
        (0..self.count()).for_each(|index| drop(self.node(index).signal_all("CONT")));
    }
}

/// A comment that makes a statement known to [`Runs`].
pub fn marker(name: impl std::fmt::Display) -> String {
    format!("/*@{name}@*/")
}

/// Which nodes ran the statements that carried a marker, by the logs of the nodes.
#[derive(Debug, Default)]
pub struct Runs {
    executed: HashMap<String, Vec<usize>>,
    failed: HashMap<String, Vec<usize>>,
}

impl Runs {
    /// Reads a node's log. An entry begins without a tab; its other lines begin with one.
    fn read(&mut self, node: usize, log: &str) {
        let mut seen = &mut self.failed;
        for line in log.lines() {
            if !line.starts_with('\t') {
                let executes = line.contains("LOG:  statement: ") || line.contains("LOG:  execute ");
                seen = if executes { &mut self.executed } else { &mut self.failed };
            }
            for name in line.split("/*@").skip(1).filter_map(|rest| rest.split_once("@*/")) {
                seen.entry(name.0.to_owned()).or_default().push(node);
            }
        }
    }

    /// Nodes that executed it, once for each time, or that refused to parse it.
    pub fn ran_on(&self, name: &str) -> Vec<usize> {
        self.executed.get(name).or_else(|| self.failed.get(name)).cloned().unwrap_or_default()
    }
}
