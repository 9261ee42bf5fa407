//! A pooler process for one test.

use std::{
    fs,
    process::{Command, Output, Stdio},
};

use pooler::demo::process::{Guarded, TempDir, free_port, wait_until};

use super::{
    database::{Database, ROLES, certificates, password_of},
    msg::Frame,
    raw::{PATIENCE, Raw},
};

/// A running pooler; stopped, and its log looked through for panics, when it is dropped.
#[derive(Debug)]
pub struct Pooler {
    /// Where it listens at 127.0.0.1.
    pub port: u16,
    /// Database that [`Pooler::connect`] asks for.
    pub database: String,
    process: Guarded,
    dir: TempDir,
}

/// A pooler to be, in front of one test's database.
#[derive(Clone, Debug)]
pub struct Setup {
    database: String,
    settings: String,
    entry: String,
    sections: String,
    /// Limit of open files.
    files: Option<u32>,
    /// What it is to see as /etc/hosts.
    hosts: Option<String>,
    /// The port to listen on, if that is known before.
    port: Option<u16>,
    /// Files that it is to see in /etc/pam.d, and nothing else there.
    services: Vec<(String, String)>,
}

impl Setup {
    /// Serves the database under its own name to every role, with passwords in the user list.
    pub fn new(database: &Database) -> Self {
        Self::serving(&database.name, format!("host = \"127.0.0.1\"\nport = {}\n", database.port))
    }

    /// Serves a database of several nodes at these ports of 127.0.0.1, whose roles pooler has to find out.
    pub fn nodes(database: &str, ports: &[u16]) -> Self {
        let nodes: Vec<String> = ports.iter().map(|port| format!("\"127.0.0.1:{port}\"")).collect();
        Self::serving(database, format!("nodes = [{}]\n", nodes.join(", ")))
    }

    fn serving(database: &str, entry: String) -> Self {
        let users =
            ROLES.map(|(role, _)| format!("[users.{role}]\npassword = \"{}\"\n", password_of(role))).concat();
        Self {
            database: database.to_owned(),
            settings: String::new(),
            entry,
            sections: format!("{users}[users.admin]\npassword = \"{}\"\n", password_of("admin")),
            files: None,
            hosts: None,
            port: None,
            services: Vec::new(),
        }
    }

    /// Forgets the users but `admin`: those of [`Setup::section`] count.
    pub fn own_users(mut self) -> Self {
        self.sections = format!("[users.admin]\npassword = \"{}\"\n", password_of("admin"));
        self
    }

    /// Replaces the address of the server.
    pub fn server(mut self, host: &str, port: u16) -> Self {
        self.entry = format!("host = \"{host}\"\nport = {port}\n");
        self
    }

    /// Serves TLS with the certificate of the tests.
    pub fn tls(self, sslmode: &str) -> Self {
        let certs = certificates().display();
        self.setting(&format!("client_tls_sslmode = \"{sslmode}\""))
            .setting(&format!("client_tls_cert_file = \"{certs}/server.crt\""))
            .setting(&format!("client_tls_key_file = \"{certs}/server.key\""))
            .setting(&format!("client_tls_ca_file = \"{certs}/ca.crt\""))
    }

    /// Listens on this port.
    pub fn at(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// Limits the files that the process may open.
    pub fn files(mut self, limit: u32) -> Self {
        self.files = Some(limit);
        self
    }

    /// Lets it see these lines as /etc/hosts; [`Pooler::set_hosts`] changes them.
    pub fn hosts(mut self, hosts: &str) -> Self {
        self.hosts = Some(hosts.to_owned());
        self
    }

    /// Lets it see this file, of those that it is given so and no others, in /etc/pam.d.
    pub fn pam_service(mut self, name: &str, rules: &str) -> Self {
        self.services.push((name.to_owned(), rules.to_owned()));
        self
    }

    /// Replaces what the database's section says.
    pub fn entry(mut self, lines: &str) -> Self {
        self.entry = format!("{lines}\n");
        self
    }

    /// Adds a line to `[pooler]`.
    pub fn setting(mut self, line: &str) -> Self {
        self.settings += &format!("{line}\n");
        self
    }

    /// Adds a line to the database's section.
    pub fn database(mut self, line: &str) -> Self {
        self.entry += &format!("{line}\n");
        self
    }

    /// Reaches PostgreSQL by this port.
    pub fn by_port(mut self, port: u16) -> Self {
        self.entry = format!("host = \"127.0.0.1\"\nport = {port}\n");
        self
    }

    /// Adds whole sections.
    pub fn section(mut self, toml: &str) -> Self {
        self.sections += &format!("{toml}\n");
        self
    }

    /// Starts it.
    pub fn start(self) -> Pooler {
        let Self { database, settings, entry, sections, files, hosts, port, services } = self;
        let auth = if settings.contains("auth_type") { "" } else { "auth_type = \"scram-sha-256\"\n" };
        let toml = format!(
            "[pooler]\nlisten_addr = \"127.0.0.1\"\nlisten_port = @PORT@\nadmin_users = [\"admin\"]\n\
             {auth}{settings}\n[databases.{database}]\n{entry}\n{sections}"
        );
        let port = port.unwrap_or_else(|| free_port().unwrap());
        let mut pooler = Pooler::start_with(&toml, port, files, hosts.as_deref(), &services);
        pooler.database = database;
        pooler
    }
}

impl Pooler {
    /// In front of the database, with these lines in `[pooler]`.
    pub fn of(database: &Database, settings: &[&str]) -> Self {
        settings.iter().fold(Setup::new(database), |setup, line| setup.setting(line)).start()
    }

    /// With this pooler.toml, where `@PORT@` stands for the port that it is to listen on.
    pub fn start(toml: &str) -> Self {
        Self::start_with(toml, free_port().unwrap(), None, None, &[])
    }

    fn start_with(
        toml: &str,
        port: u16,
        files: Option<u32>,
        hosts: Option<&str>,
        services: &[(String, String)],
    ) -> Self {
        let dir = TempDir::new(None).unwrap();
        let file = dir.path().join("pooler.toml");
        fs::write(&file, toml_for(toml, port)).unwrap();
        let limit =
            files.map_or_else(|| "exec \"$@\"".to_owned(), |n| format!("ulimit -n {n} && exec \"$@\""));
        let program = env!("CARGO_BIN_EXE_pooler");
        let mut arguments = vec!["/bin/sh", "-c", &limit, "sh", program, "run", "-c", file.to_str().unwrap()];
        let pam = dir.path().join("pam.d");
        if !services.is_empty() {
            fs::create_dir(&pam).unwrap();
            services.iter().for_each(|(name, rules)| fs::write(pam.join(name), rules).unwrap());
            // In a namespace of its own.
            let script = "mount --bind \"$0\" /etc/pam.d && exec \"$@\"";
            arguments.splice(0..0, ["unshare", "-rm", "/bin/sh", "-c", script, pam.to_str().unwrap()]);
        }
        let hosts_file = dir.path().join("hosts");
        if let Some(hosts) = hosts {
            fs::write(&hosts_file, hosts).unwrap();
            // In a namespace of its own.
            let script = "mount --bind \"$0\" /etc/hosts && exec \"$@\"";
            let before = ["unshare", "-rm", "/bin/sh", "-c", script, hosts_file.to_str().unwrap()];
            arguments.splice(0..0, before);
        }
        let process = Guarded::spawn(None, &arguments, &dir.path().join("pooler.log"), "TERM").unwrap();
        let mut pooler = Self { port, database: String::new(), process, dir };
        let listens = wait_until(PATIENCE, || {
            let ended = pooler.process.ended();
            let open = std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
            (ended.is_some() || open).then_some(ended.is_none())
        });
        assert_eq!(listens, Some(true), "pooler does not listen:\n{}", pooler.log());
        // The connection that found it listening must not count as a client any more.
        let quiet = wait_until(PATIENCE, || pooler.log().contains("client unexpected eof").then_some(()));
        assert!(quiet.is_some(), "pooler keeps a connection that was closed:\n{}", pooler.log());
        pooler
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("pooler.log")).unwrap_or_default()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Writes another pooler.toml (`@PORT@` as before); a reload reads it.
    pub fn rewrite(&self, toml: &str) {
        fs::write(self.dir.path().join("pooler.toml"), toml_for(toml, self.port)).unwrap();
    }

    /// Changes what it sees as /etc/hosts.
    pub fn set_hosts(&self, hosts: &str) {
        fs::write(self.dir.path().join("hosts"), hosts).unwrap();
    }

    /// The pooler.toml that it started with, to change and [`Pooler::rewrite`].
    pub fn toml(&self) -> String {
        fs::read_to_string(self.dir.path().join("pooler.toml")).unwrap()
    }

    /// Sends a signal by its name.
    pub fn signal(&self, name: &str) {
        self.process.signal(name).unwrap();
    }

    /// A connection of `app`.
    pub fn connect(&self) -> Raw {
        self.connect_as("app")
    }

    /// A connection of that role.
    pub fn connect_as(&self, role: &str) -> Raw {
        Raw::login(self.port, role, &self.database, &password_of(role))
    }

    /// A connection of `app` with further startup parameters.
    pub fn connect_with(&self, more: &[(&str, &str)]) -> Raw {
        Raw::login_with(self.port, "app", &self.database, &password_of("app"), more)
    }

    /// What keeps servers with their clients.
    pub fn pinned(&self) -> Vec<String> {
        let columns = self.console("SHOW SERVERS").into_iter().flatten();
        let reasons = columns.filter(|(name, _)| name == "pinned").map(|(_, reason)| reason);
        reasons.filter(|reason| !reason.is_empty()).collect()
    }

    /// Clients that have a server each.
    pub fn hold(&self, count: usize) -> Vec<Raw> {
        let begun = |_| {
            let mut client = self.connect();
            client.sql("BEGIN");
            client
        };
        (0..count).map(begun).collect()
    }

    /// A console session.
    pub fn admin(&self) -> Raw {
        Raw::login(self.port, "admin", "pooler", &password_of("admin"))
    }

    /// Rows of a console command, each column under its name.
    pub fn console(&self, command: &str) -> Vec<Vec<(String, String)>> {
        let mut admin = self.admin();
        admin.send(&super::msg::query(command));
        let frames = admin.ready(1);
        let columns = frames.iter().find(|frame| frame.tag == b'T').map(Frame::columns).unwrap_or_default();
        let names = || columns.iter().map(|(name, _)| name.clone());
        let rows = frames.iter().filter(|frame| frame.tag == b'D').map(Frame::values);
        rows.map(|row| names().zip(row.into_iter().map(Option::unwrap_or_default)).collect()).collect()
    }

    /// One number of SHOW POOLS for the pool of `app`; 0 before anybody has used it.
    pub fn pool(&self, column: &str) -> u64 {
        self.pool_of(&self.database, "app", column).unwrap_or(0)
    }

    /// The same for any pool; `None` if there is no such pool.
    fn pool_of(&self, database: &str, user: &str, column: &str) -> Option<u64> {
        let rows = self.console("SHOW POOLS");
        let value = |row: &[(String, String)], name: &str| {
            row.iter().find(|(column, _)| column == name).map(|(_, value)| value.clone())
        };
        let row = rows.iter().find(|row| {
            value(row, "database").as_deref() == Some(database) && value(row, "user").as_deref() == Some(user)
        });
        let text = value(row?, column).unwrap_or_else(|| panic!("no column {column}"));
        Some(text.parse().unwrap())
    }

    /// Waits until a number of SHOW POOLS is this.
    pub fn wait_for_pool(&self, column: &str, expected: u64) {
        self.wait_for_pool_of(&self.database, "app", column, expected);
    }

    /// Waits until so many clients of that role wait for a server.
    pub fn wait_for_waiting(&self, role: &str, expected: u64) {
        self.wait_for_pool_of(&self.database, role, "cl_waiting", expected);
    }

    /// Waits until a number of SHOW POOLS is this, for any pool.
    pub fn wait_for_pool_of(&self, database: &str, user: &str, column: &str, expected: u64) {
        let mut last = None;
        let met = wait_until(PATIENCE, || {
            last = self.pool_of(database, user, column);
            (last == Some(expected)).then_some(())
        });
        assert!(met.is_some(), "{column} is {last:?}, not {expected}, after {PATIENCE:?}:\n{}", self.log());
    }

    /// Runs psql as `app`, with further connection parameters (`sslmode=require`).
    pub fn psql_with(&self, parameters: &str, sql: &str) -> Output {
        self.psql(&["-d", &format!("dbname={} {parameters}", self.database), "-c", sql])
    }

    /// The start of a field of `/proc/PID/status`, in kB.
    pub fn memory(&self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Runs psql as `app`.
    pub fn psql(&self, arguments: &[&str]) -> Output {
        Command::new("psql")
            .args([
                "-X",
                "-At",
                "-v",
                "ON_ERROR_STOP=1",
                "-h",
                "127.0.0.1",
                "-U",
                "app",
                "-p",
                &self.port.to_string(),
            ])
            .args(["-d", &self.database])
            .args(arguments)
            .env("PGPASSWORD", password_of("app"))
            .stdin(Stdio::null())
            .output()
            .expect("psql: run scripts/install.sh")
    }

    /// How tokio-postgres connects as `app`.
    pub fn client_config(&self) -> tokio_postgres::Config {
        let mut config = tokio_postgres::Config::new();
        config
            .host("127.0.0.1")
            .port(self.port)
            .user("app")
            .dbname(&self.database)
            .password(password_of("app"));
        config
    }

    /// A tokio-postgres client of `app`; its connection runs on a task of the current runtime.
    pub async fn client(&self) -> tokio_postgres::Client {
        let (client, connection) = self.client_config().connect(tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    /// Waits until it ends by itself; its exit code.
    pub fn ended(&mut self) -> Option<i32> {
        let status = self.process.wait(PATIENCE);
        status.unwrap_or_else(|| panic!("pooler goes on:\n{}", self.log())).code()
    }

    /// Whether it runs.
    pub fn is_running(&mut self) -> bool {
        self.process.ended().is_none()
    }

    /// Waits until its log has this in it.
    pub fn wait_for_log(&self, text: &str) {
        let found = wait_until(PATIENCE, || self.log().contains(text).then_some(()));
        assert!(found.is_some(), "no \"{text}\" in the log:\n{}", self.log());
    }

    /// Directory of its files.
    pub fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// Changes a part of its pooler.toml, which must be there.
    pub fn edit(&self, from: &str, to: &str) {
        let toml = self.toml();
        assert!(toml.contains(from), "no {from} in {toml}");
        self.rewrite(&toml.replace(from, to));
    }

    /// Stops it by SIGTERM and asserts that it ended well.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let status = self.process.stop().unwrap();
        let log = self.log();
        assert!(!log.contains("panicked"), "pooler panicked:\n{log}");
        assert_eq!(status.code(), Some(0), "pooler after SIGTERM:\n{log}");
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of pooler\n{}", self.log());
            return;
        }
        // After stop() the process has gone and this looks at the same status again.
        self.end();
    }
}

/// The configuration on this port. With POOLER_TEST_PLACEMENT in the environment all tests run with that
/// `client_placement` on three workers, with POOLER_TEST_SESSION with that `session_state`, unless they choose themselves.
fn toml_for(toml: &str, port: u16) -> String {
    let mut lines = String::from("[pooler]\n");
    let chosen = |name: &str| std::env::var(name).ok();
    if let Some(placement) = chosen("POOLER_TEST_PLACEMENT")
        && !toml.contains("client_placement")
        && !toml.contains("workers")
    {
        lines.push_str(&format!("client_placement = \"{placement}\"\nworkers = 3\n"));
    }
    if let Some(state) = chosen("POOLER_TEST_SESSION").filter(|_| !toml.contains("session_state")) {
        lines.push_str(&format!("session_state = \"{state}\"\n"));
    }
    toml.replace("@PORT@", &port.to_string()).replacen("[pooler]\n", &lines, 1)
}
