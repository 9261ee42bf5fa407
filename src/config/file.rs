//! Reads `pooler.toml` and the files it refers to into a `Config`, and tells everything that is wrong.
//! (`pgbouncer` reads pgbouncer.ini into the same.)
//!
//! Keys come from the tables in `settings` and `entries`; what settings need of each other is in `check`.
//! TOML 1.0 by the `toml` crate, whose parser goes on after an error and knows where each value stands.

use std::{
    collections::BTreeMap,
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::Arc,
};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    Config, Database, NodeAddress, Peer, check,
    entries::{DATABASE_KEYS, DatabaseEntry, PEER_KEYS, PeerEntry, USER_KEYS, UserEntry},
    foreign::{self, Table},
    interpolate::{Environment, interpolate, process_environment},
    pgbouncer,
    problem::{Problem, Problems},
    settings::SETTINGS,
    suggest::closest,
    table::{Row, SettingError},
    url,
    value::Input,
};

/// Longest name of a database, in bytes (NAMEDATALEN - 1).
pub(super) const LONGEST_NAME: usize = 63;
/// Names that lead to the console.
pub(super) const RESERVED: [&str; 2] = ["pooler", "pgbouncer"];

/// A configuration that can be used, and what is odd about it.
#[derive(Debug)]
pub struct Loaded {
    pub config: Config,
    pub warnings: Vec<Problem>,
}

impl Config {
    /// Reads a `pooler.toml`, or a pgbouncer.ini, and the files that it refers to.
    pub fn load(path: &Path) -> Result<Loaded, Problems> {
        if pgbouncer::is_ini(path) {
            return Self::load_ini(path);
        }
        let bytes = fs::read(path).map_err(|error| {
            let remedy = match error.kind() {
                ErrorKind::PermissionDenied => "let the user that pooler runs as read it (chown, chmod)",
                _ => "name the configuration with -c FILE; pooler.toml.example is a start",
            };
            Problem::in_file(path, format!("cannot read the file: {error}")).remedy(remedy)
        })?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let valid = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
            let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
            Problem::in_file(path, "the file is not UTF-8 text").at(Some(line)).remedy("save it as UTF-8")
        })?;
        Self::from_text(path, &text, &process_environment)
    }

    /// As `load`, for a text that is already there.
    pub fn from_text(path: &Path, text: &str, environment: Environment<'_>) -> Result<Loaded, Problems> {
        let mut reader = Reader::new(path, text, environment, Dialect::Toml);
        let (root, errors) = DeTable::parse_recoverable(text);
        for error in &errors {
            // The message never quotes the text, which may be a password.
            let line = error.span().map(|span| reader.line(span.start));
            let remedy = match error.message() {
                "duplicate key" => "each key stands once in its table, and each table once: remove one",
                _ => "texts need quotes (host = \"db1\"), tables start with [name]",
            };
            reader.problems.push(Problem::in_file(path, error.message()).at(line).remedy(remedy));
        }
        reader.read_root(root.get_ref());
        reader.read_auth_file();
        reader.read_hba();
        if errors.is_empty() {
            check::check(&mut reader);
        }
        reader.finish()
    }
}

/// What is known so far.
pub(super) struct Reader<'a> {
    pub(super) file: &'a Path,
    directory: PathBuf,
    text: &'a str,
    environment: Environment<'a>,
    pub(super) config: Config,
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<Problem>,
    pub(super) dialect: Dialect,
    /// By table (`databases.app`) and key; the key is empty for the table itself.
    places: BTreeMap<(String, String), Place>,
}

/// Which kind of file is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    Toml,
    /// pgbouncer.ini: what PgBouncer starts with is no reason not to.
    PgBouncer,
}

/// Where something stands.
#[derive(Clone, Debug)]
enum Place {
    /// In the text of the file.
    Offset(usize),
    Line(PathBuf, usize),
}

impl<'a> Reader<'a> {
    pub(super) fn new(file: &'a Path, text: &'a str, environment: Environment<'a>, dialect: Dialect) -> Self {
        let directory = file.parent().unwrap_or(Path::new("")).to_owned();
        let config = Config { path: Some(file.to_owned()), ..Config::default() };
        let (problems, warnings, places) = (Vec::new(), Vec::new(), BTreeMap::new());
        Self { file, directory, text, environment, config, problems, warnings, dialect, places }
    }

    fn line(&self, offset: usize) -> usize {
        self.text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
    }

    /// Whether the file has that key.
    pub(super) fn has(&self, table: &str, key: &str) -> bool {
        self.places.contains_key(&(table.to_owned(), key.to_owned()))
    }

    /// Something about a key, at its line or else at that of its table.
    pub(super) fn at(&self, table: &str, key: &str, message: impl Into<String>) -> Problem {
        let place = |key: &str| self.places.get(&(table.to_owned(), key.to_owned()));
        match place(key).or_else(|| place("")) {
            Some(Place::Offset(offset)) => Problem::in_file(self.file, message).at(Some(self.line(*offset))),
            Some(Place::Line(file, line)) => Problem::in_file(file, message).at(Some(*line)),
            None => Problem::in_file(self.file, message),
        }
    }

    fn remember(&mut self, table: &str, key: &str, offset: usize) {
        self.places.insert((table.to_owned(), key.to_owned()), Place::Offset(offset));
    }

    /// The key stands in that line of that file.
    pub(super) fn remember_line(&mut self, table: &str, key: &str, file: &Path, line: usize) {
        self.places.insert((table.to_owned(), key.to_owned()), Place::Line(file.to_owned(), line));
    }

    /// What ends a start from a pooler.toml, and is only told at one from a pgbouncer.ini.
    pub(super) fn tell(&mut self, problem: Problem) {
        match self.dialect {
            Dialect::Toml => self.problems.push(problem),
            Dialect::PgBouncer => self.warnings.push(problem),
        }
    }

    /// What was read, if it can be used.
    pub(super) fn finish(self) -> Result<Loaded, Problems> {
        if self.problems.is_empty() {
            Ok(Loaded { config: self.config, warnings: Problems::sorted(self.warnings).0 })
        } else {
            Err(Problems::sorted(self.problems))
        }
    }

    fn read_root(&mut self, root: &DeTable<'_>) {
        // Settings first: the rest may depend on them.
        if let Some((key, value)) = root.iter().find(|(key, _)| key.get_ref() == "pooler") {
            self.remember("pooler", "", key.span().start);
            let mut settings = std::mem::take(&mut self.config.settings);
            self.read_table(Table::Pooler, SETTINGS, "pooler", &mut settings, value);
            self.config.settings = settings;
        }
        for (key, value) in root {
            match key.get_ref().as_ref() {
                "pooler" => {}
                kind @ ("databases" | "users" | "peers") => self.read_entries(kind, value),
                other => self.unknown_table(other, key.span().start),
            }
        }
    }

    fn unknown_table(&mut self, name: &str, offset: usize) {
        let remedy = match name {
            "pgbouncer" => "settings stand in [pooler]".to_owned(),
            _ if SETTINGS.iter().any(|row| row.name == name) => {
                format!("{name} belongs to [pooler]: write [pooler] on a line above it")
            }
            _ => match closest(name, ["pooler", "databases", "users", "peers"]) {
                Some(known) => format!("did you mean {known}?"),
                None => "there are [pooler], [databases.NAME], [users.NAME] and [peers.ID]".to_owned(),
            },
        };
        let problem =
            Problem::in_file(self.file, format!("unknown table or key \"{}\"", name.escape_debug()));
        self.problems.push(problem.at(Some(self.line(offset))).remedy(remedy));
    }

    fn read_entries(&mut self, kind: &str, value: &Spanned<DeValue<'_>>) {
        let DeValue::Table(entries) = value.get_ref() else {
            let problem = Problem::in_file(self.file, format!("{kind} is not a table"));
            let line = self.line(value.span().start);
            self.problems
                .push(problem.at(Some(line)).remedy(format!("write [{kind}.NAME] and keys below it")));
            return;
        };
        for (name, value) in entries {
            let table = format!("{kind}.{}", name.get_ref());
            self.remember(&table, "", name.span().start);
            match kind {
                "databases" => self.read_database(name.get_ref(), &table, value),
                "users" => self.read_user(name.get_ref(), &table, value),
                _ => self.read_peer(name.get_ref(), &table, value),
            }
        }
    }

    fn read_database(&mut self, name: &str, table: &str, value: &Spanned<DeValue<'_>>) {
        let mut entry = DatabaseEntry::default();
        self.read_table(Table::Databases, DATABASE_KEYS, table, &mut entry, value);
        self.check_name(table, name, LONGEST_NAME);
        if RESERVED.contains(&name) {
            let problem = self.at(table, "", format!("database name \"{name}\" is reserved"));
            self.problems.push(
                problem.remedy("it leads to the console; choose another name (dbname keeps the server's)"),
            );
        }
        entry.database.name = name.to_owned();
        let database = self.finish_database(table, entry);
        self.config.databases.insert(name.to_owned(), Arc::new(database));
    }

    pub(super) fn check_name(&mut self, table: &str, name: &str, longest: usize) {
        let wrong = if name.is_empty() {
            "is empty".to_owned()
        } else if name.contains('\0') {
            "contains a NUL byte".to_owned()
        } else if name.len() > longest {
            format!("is longer than {longest} bytes")
        } else {
            return;
        };
        let problem = self.at(table, "", format!("the name {wrong}"));
        self.problems.push(problem.remedy("choose another name"));
    }

    /// Follows `url` and `password_file`.
    fn finish_database(&mut self, table: &str, entry: DatabaseEntry) -> Database {
        let mut database = entry.database;
        if let Some(url) = &entry.url {
            match url::parse(&url.0) {
                Ok(url) => {
                    self.refuse_twice(table, &url);
                    take_url(&mut database, url);
                }
                Err(error) => {
                    let problem = self.at(table, "url", error.to_string()).remedy(error.remedy());
                    self.problems.push(problem);
                }
            }
        }
        if let Some(port) = entry.port {
            database.port = port;
        }
        if let Some(hosts) = entry.host {
            let hosts =
                hosts.into_iter().map(|host| NodeAddress::new(host.host, host.port.unwrap_or(database.port)));
            database.set_hosts(hosts.collect());
        }
        database.load_balance_hosts = entry.load_balance_hosts.unwrap_or_default();
        if let Some(nodes) = entry.nodes {
            self.refuse_beside(table, "nodes", &["host", "port", "patroni"]);
            if let Some(first) = nodes.first() {
                database.host.clone_from(&first.host);
                database.port = first.port;
            }
            database.nodes = nodes;
        }
        if let Some(apis) = entry.patroni {
            self.refuse_beside(table, "patroni", &["host", "port"]);
            if let Some(first) = apis.first() {
                database.host.clone_from(&first.host);
                database.port = first.port;
            }
            database.patroni = apis;
        }
        for (name, value) in [
            ("application_name", entry.application_name),
            ("client_encoding", entry.client_encoding),
            ("DateStyle", entry.datestyle),
            ("TimeZone", entry.timezone),
        ] {
            if let Some(value) = value {
                database.server_parameters.retain(|(known, _)| known != name);
                database.server_parameters.push((name.to_owned(), value));
            }
        }
        self.read_password_file(table, &mut database.password, entry.password_file);
        database
    }

    /// `says` tells where the servers are; these keys must not say so too.
    fn refuse_beside(&mut self, table: &str, says: &str, keys: &[&str]) {
        for key in keys.iter().filter(|key| self.has(table, key)).collect::<Vec<_>>() {
            let problem = self.at(table, key, format!("{key} is given beside {says}"));
            self.problems.push(problem.remedy(format!("remove it: {says} says where the servers are")));
        }
    }

    /// What the URL says must not be said again beside it.
    fn refuse_twice(&mut self, table: &str, url: &url::ServerUrl) {
        for (key, given) in [
            ("host", url.host.is_some()),
            ("port", url.port.is_some()),
            ("dbname", url.dbname.is_some()),
            ("user", url.user.is_some()),
            ("password", url.password.is_some()),
            ("password_file", url.password.is_some()),
            ("server_tls_sslmode", url.sslmode.is_some()),
        ] {
            if given && self.has(table, key) {
                let problem = self.at(table, key, format!("{key} is given here and in url"));
                self.problems.push(problem.remedy("remove one of them"));
            }
        }
    }

    fn read_user(&mut self, name: &str, table: &str, value: &Spanned<DeValue<'_>>) {
        let mut entry = UserEntry::default();
        self.read_table(Table::Users, USER_KEYS, table, &mut entry, value);
        self.check_name(table, name, LONGEST_NAME);
        entry.user.name = name.to_owned();
        self.read_password_file(table, &mut entry.user.password, entry.password_file);
        self.config.users.insert(name.to_owned(), Arc::new(entry.user));
    }

    fn read_peer(&mut self, name: &str, table: &str, value: &Spanned<DeValue<'_>>) {
        let mut entry = PeerEntry::default();
        self.read_table(Table::Peers, PEER_KEYS, table, &mut entry, value);
        let Some(id) = name.parse().ok().filter(|id| *id > 0) else {
            let message = format!("\"{}\" is no id of a peer", name.escape_debug());
            let problem = self.at(table, "", message);
            self.problems.push(problem.remedy("write [peers.ID] with the peer_id of the other process"));
            return;
        };
        let new = Peer::new(id);
        let peer = Peer {
            host: entry.host.unwrap_or(new.host),
            port: entry.port.unwrap_or(new.port),
            pool_size: entry.pool_size,
            ..new
        };
        self.config.peers.insert(id, peer);
    }

    /// Reads every key of one table.
    fn read_table<S>(
        &mut self,
        kind: Table,
        rows: &[Row<S>],
        table: &str,
        target: &mut S,
        value: &Spanned<DeValue<'_>>,
    ) {
        let DeValue::Table(keys) = value.get_ref() else {
            let problem = self.at(table, "", format!("{table} is not a table"));
            self.problems.push(problem.remedy(format!("write [{table}] and keys below it")));
            return;
        };
        for (key, value) in keys {
            let name = key.get_ref().as_ref();
            self.remember(table, name, key.span().start);
            match rows.iter().find(|row| row.name == name) {
                Some(row) => self.read_key(row, table, target, value.get_ref()),
                None => {
                    let message = format!("unknown key \"{}\" in [{table}]", name.escape_debug());
                    let problem = self.at(table, name, message).remedy(foreign::remedy(kind, name));
                    self.problems.push(problem);
                }
            }
        }
    }

    fn read_key<S>(&mut self, row: &Row<S>, table: &str, target: &mut S, value: &DeValue<'_>) {
        let input = match self.input(value) {
            Ok(Input::Text(text)) if (row.is_path)() && !text.is_empty() => {
                Input::Text(self.directory.join(text).to_string_lossy().into_owned())
            }
            Ok(input) => input,
            Err((message, remedy)) => {
                let problem = self.at(table, row.name, format!("{}: {message}", row.name)).remedy(remedy);
                self.problems.push(problem);
                return;
            }
        };
        if let Err(SettingError::Invalid { name, message, form }) = row.apply(target, &input) {
            let problem = self.at(table, name, format!("invalid value for {name}: {message}"));
            self.problems.push(problem.remedy(format!("expected {form}")));
        }
        if matches!(row.name, "password" | "url") && value.as_str().is_some_and(|text| !text.contains("${")) {
            self.warn_if_others_can_read(self.file);
        }
    }

    /// A TOML value as the codecs take it, with its references replaced.
    fn input(&self, value: &DeValue<'_>) -> Result<Input, (String, String)> {
        let unfit = |what: &str| {
            Err((format!("{what} is not a value for a setting"), "give a text or a number".to_owned()))
        };
        match value {
            DeValue::String(text) => self.interpolated(text).map(Input::Text),
            DeValue::Boolean(flag) => Ok(Input::Flag(*flag)),
            DeValue::Integer(integer) => match i64::from_str_radix(integer.as_str(), integer.radix()) {
                Ok(value) => Ok(Input::Integer { value, radix: integer.radix() }),
                Err(_) => Err(("the number is out of range".to_owned(), "give a smaller number".to_owned())),
            },
            DeValue::Float(float) => match float.as_str().parse() {
                Ok(value) => Ok(Input::Float(value)),
                Err(_) => unfit("this number"),
            },
            DeValue::Array(items) => {
                let mut texts = Vec::new();
                for item in items.iter() {
                    match item.get_ref() {
                        DeValue::String(text) => texts.push(self.interpolated(text)?),
                        _ => {
                            return Err((
                                "a list takes only texts".to_owned(),
                                "put quotes around each".to_owned(),
                            ));
                        }
                    }
                }
                Ok(Input::List(texts))
            }
            DeValue::Datetime(_) => unfit("a date"),
            DeValue::Table(_) => unfit("a table"),
        }
    }

    fn interpolated(&self, text: &str) -> Result<String, (String, String)> {
        interpolate(text, self.environment).map_err(|error| (error.to_string(), error.remedy()))
    }
}

/// Fills in what the URL says.
pub(super) fn take_url(database: &mut Database, url: url::ServerUrl) {
    database.host = url.host.unwrap_or_default();
    database.port = url.port.unwrap_or(database.port);
    database.dbname = url.dbname.or(database.dbname.take());
    database.user = url.user.or(database.user.take());
    database.password = url.password.or(database.password.take());
    database.server_tls_sslmode = url.sslmode.or(database.server_tls_sslmode);
    database.server_parameters.extend(url.parameters);
}
