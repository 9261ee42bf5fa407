//! What settings need of each other and of the machine: sizes, TLS files, directories, users.
//!
//! Runs after everything was read; forms and bounds of single values are the codecs' work.

use std::{
    fs::File,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use super::{
    At, AuthType, Config, Database, Settings, SslMode,
    file::{Dialect, Reader},
    is_console,
    ldap::Ldap,
    problem::Problem,
};
use crate::auth::stored::Stored;

/// Longest path of a unix socket (`sun_path` without its end), less `/.s.PGSQL.65535`.
const LONGEST_SOCKET_DIR: usize = 107 - 15;

/// Adds what it finds to the reader's problems and warnings.
pub(super) fn check(reader: &mut Reader<'_>) {
    let config = reader.config.clone();
    listening(reader, &config.settings);
    tls_towards_clients(reader, &config.settings);
    tls_towards_servers(reader, &config.settings);
    directory(reader, &config.settings);
    status_page(reader, &config);
    certificates_as_proof(reader, &config);
    users(reader);
    if config.settings.default_pool_size > 0
        && config.settings.min_pool_size > config.settings.default_pool_size
    {
        let problem = reader.at("pooler", "min_pool_size", "min_pool_size is greater than default_pool_size");
        reader.tell(problem.remedy("lower min_pool_size or raise default_pool_size"));
    }
    if config.databases.is_empty() {
        let problem = Problem::in_file(reader.file, "no database is configured");
        let remedy = match reader.dialect {
            Dialect::Toml => "add [databases.NAME] with host = \"…\", or url = \"postgres://…\"",
            Dialect::PgBouncer => "add NAME = host=… to [databases]",
        };
        reader.tell(problem.remedy(remedy));
    }
    lookups(reader, &config);
    peers(reader, &config);
    for database in config.databases.values() {
        one_database(reader, database);
    }
}

fn peers(reader: &mut Reader<'_>, config: &Config) {
    for peer in config.peers.values().filter(|peer| peer.host.is_empty()) {
        let table = format!("peers.{}", peer.id);
        let problem = reader.at(&table, "", format!("host was not provided for peer {}", peer.id));
        reader.problems.push(problem.remedy("add its host"));
    }
    if let Some(peer) = config.peers.values().next().filter(|_| config.settings.peer_id == 0) {
        let table = format!("peers.{}", peer.id);
        let problem = reader.at(&table, "", "there are peers, but this process has no peer_id");
        reader.tell(problem.remedy("set peer_id to a number that no other peer has"));
    }
}

fn listening(reader: &mut Reader<'_>, settings: &Settings) {
    if settings.listen_addr.is_empty() && settings.unix_socket_dir.is_none() {
        let problem = reader.at("pooler", "listen_addr", "nothing to listen on");
        reader.problems.push(problem.remedy("set listen_addr or unix_socket_dir"));
    }
    for address in &settings.listen_addr {
        if address.parse::<SocketAddr>().is_ok() || address.starts_with('[') {
            let problem =
                reader.at("pooler", "listen_addr", format!("\"{address}\" is not an address without a port"));
            reader.problems.push(problem.remedy("write the address alone and set listen_port"));
        }
    }
    let Some(dir) = &settings.unix_socket_dir else { return };
    let wrong = if !dir.is_dir() {
        "is not a directory"
    } else if dir.as_os_str().len() > LONGEST_SOCKET_DIR {
        "is too long for the path of a unix socket"
    } else {
        return;
    };
    let problem = reader.at("pooler", "unix_socket_dir", format!("{} {wrong}", dir.display()));
    reader.problems.push(problem.remedy("create it, or choose another; \"\" for no unix socket"));
}

fn tls_towards_clients(reader: &mut Reader<'_>, settings: &Settings) {
    let mode = settings.client_tls_sslmode;
    pair(
        reader,
        ("client_tls_cert_file", &settings.client_tls_cert_file),
        ("client_tls_key_file", &settings.client_tls_key_file),
    );
    readable(reader, "client_tls_ca_file", settings.client_tls_ca_file.as_ref());
    if mode != SslMode::Disable
        && settings.client_tls_cert_file.is_none()
        && settings.client_tls_key_file.is_none()
    {
        let problem = reader.at("pooler", "client_tls_sslmode", "TLS towards clients needs a certificate");
        reader.problems.push(problem.remedy("set client_tls_cert_file and client_tls_key_file"));
    }
    if mode >= SslMode::VerifyCa && settings.client_tls_ca_file.is_none() {
        let problem = reader.at(
            "pooler",
            "client_tls_sslmode",
            "client certificates cannot be verified without an authority",
        );
        reader.problems.push(problem.remedy("set client_tls_ca_file"));
    }
}

fn tls_towards_servers(reader: &mut Reader<'_>, settings: &Settings) {
    pair(
        reader,
        ("server_tls_cert_file", &settings.server_tls_cert_file),
        ("server_tls_key_file", &settings.server_tls_key_file),
    );
    readable(reader, "server_tls_ca_file", settings.server_tls_ca_file.as_ref());
}

/// Passwords of operators go there in clear.
fn status_page(reader: &mut Reader<'_>, config: &Config) {
    let settings = &config.settings;
    if !settings.status_page {
        return;
    }
    let Some(endpoint) = &settings.metrics_addr else {
        let problem =
            reader.at("pooler", "status_page", "status_page needs metrics_addr, where it is served");
        return reader.problems.push(problem.remedy("set metrics_addr = 9127"));
    };
    let known = |name: &String| config.users.get(name).is_some_and(|user| user.password.is_some());
    if !settings.admin_users.iter().chain(&settings.stats_users).any(known) {
        let message = "nobody can see the status page: no user of the console has a password here";
        let problem = reader.at("pooler", "status_page", message);
        let remedy = "name a user with a password in admin_users or stats_users";
        reader.warnings.push(problem.remedy(remedy));
    }
    let local =
        endpoint.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()) || endpoint.host == "localhost";
    if !local {
        let message = format!("passwords for the status page cross the network to {endpoint} in clear text");
        let problem = reader.at("pooler", "status_page", message);
        let remedy =
            "let metrics_addr be one of the machine itself (127.0.0.1), with a proxy that has TLS in front";
        reader.warnings.push(problem.remedy(remedy));
    }
}

/// Names in certificates prove nothing unless an authority vouches for them.
fn certificates_as_proof(reader: &mut Reader<'_>, config: &Config) {
    let settings = &config.settings;
    let asked = settings.auth_type == AuthType::Cert || config.hba.uses(AuthType::Cert);
    let verified = settings.client_tls_sslmode != SslMode::Disable && settings.client_tls_ca_file.is_some();
    if asked && !verified {
        let problem = reader.at(
            "pooler",
            "auth_type",
            "clients are to prove who they are by certificates, which are not verified",
        );
        reader.problems.push(problem.remedy("set client_tls_sslmode = verify-full and client_tls_ca_file"));
    }
}

/// Options that cannot be read would let nobody in.
fn directory(reader: &mut Reader<'_>, settings: &Settings) {
    if settings.auth_type == AuthType::Ldap
        && let Err(wrong) = Ldap::parse(&settings.auth_ldap_options)
    {
        let problem = reader.at("pooler", "auth_ldap_options", format!("auth_ldap_options: {wrong}"));
        reader.problems.push(problem.remedy(
            "auth_type is ldap: give for example ldapserver=HOST ldapbasedn=\"DN\", or ldapserver=HOST ldapprefix=\"cn=\" ldapsuffix=\",DN\"",
        ));
    }
}

/// A certificate and its key: both or none.
fn pair(reader: &mut Reader<'_>, cert: (&str, &Option<PathBuf>), key: (&str, &Option<PathBuf>)) {
    for ((name, file), (other, other_file)) in [(cert, key), (key, cert)] {
        if file.is_some() && other_file.is_none() {
            let problem = reader.at("pooler", name, format!("{name} is set without {other}"));
            reader.problems.push(problem.remedy(format!("set {other}, too")));
        }
    }
    readable(reader, cert.0, cert.1.as_ref());
    readable(reader, key.0, key.1.as_ref());
    if let Some(file) = key.1 {
        reader.warn_if_others_can_read(file);
    }
}

fn readable(reader: &mut Reader<'_>, name: &str, file: Option<&PathBuf>) {
    let Some(file) = file else { return };
    let error = match File::open(file).and_then(|file| file.metadata()) {
        Ok(metadata) if metadata.is_file() => return,
        Ok(_) => "not a file".to_owned(),
        Err(error) => error.to_string(),
    };
    let problem = reader.at("pooler", name, format!("cannot read {name} {}: {error}", file.display()));
    reader.problems.push(problem.remedy("give the path of a PEM file that pooler's user can read"));
}

/// auth_query needs a database that can be asked, and somebody who can log in there.
fn lookups(reader: &mut Reader<'_>, config: &Config) {
    let settings = &config.settings;
    let global = ("pooler".to_owned(), Some(&settings.auth_user), Some(&settings.auth_dbname));
    let own = config.databases.values().map(|database| {
        let table = format!("databases.{}", database.name);
        (table, database.auth_user.as_ref(), database.auth_dbname.as_ref())
    });
    for (table, user, elsewhere) in std::iter::once(global).chain(own) {
        if let Some(name) = elsewhere.filter(|name| !name.is_empty()) {
            if is_console(name) {
                let problem = reader.at(&table, "auth_dbname", "auth_dbname leads to the console");
                reader.problems.push(problem.remedy("name a database that PostgreSQL has"));
            } else if config.resolve_database(name).is_none() {
                let message =
                    format!("auth_dbname names \"{}\", which is not configured", name.escape_debug());
                let problem = reader.at(&table, "auth_dbname", message);
                reader.tell(problem.remedy("add the database, or correct the name"));
            }
        }
        let Some(user) = user.filter(|user| !user.is_empty()) else { continue };
        let password = config.users.get(user).and_then(|user| user.password.as_ref());
        let what = match password {
            None => "has no password",
            Some(password) if password.0.starts_with("SCRAM-SHA-256$") => {
                "has a SCRAM secret, which only its owner can use"
            }
            Some(_) => continue,
        };
        let problem = reader.at(&table, "auth_user", format!("auth_user \"{}\" {what}", user.escape_debug()));
        let remedy =
            "unless PostgreSQL lets it in without, list it with its password in clear text, or an md5 hash";
        reader.warnings.push(problem.remedy(remedy));
    }
    for database in config.databases.values() {
        let finds_nodes =
            !database.patroni.is_empty() || database.nodes.iter().any(|node| node.at == At::Each);
        if finds_nodes
            && config.lookup("", &database.name).is_some_and(|lookup| lookup.database.name == database.name)
        {
            let table = format!("databases.{}", database.name);
            let problem = reader.at(&table, "", "auth_query cannot be asked where nodes are found out");
            reader.problems.push(
                problem.remedy("set auth_dbname to a database with host, or with nodes that are listed"),
            );
        }
    }
}

fn users(reader: &mut Reader<'_>) {
    let settings = &reader.config.settings;
    let mut found: Vec<Problem> = Vec::new();
    let by_password = [AuthType::Plain, AuthType::Md5, AuthType::ScramSha256].contains(&settings.auth_type);
    // PostgreSQL, a directory or the system may know those who are in no list.
    let elsewhere = [AuthType::Ldap, AuthType::Pam];
    let asks =
        elsewhere.iter().any(|method| settings.auth_type == *method || reader.config.hba.uses(*method))
            || !settings.auth_user.is_empty()
            || reader.config.databases.values().any(|database| database.auth_user.is_some());
    if reader.config.users.is_empty() && !asks && settings.auth_type != AuthType::Any {
        let problem = reader.at("pooler", "", "no user is configured, so nobody can log in");
        let remedy = match reader.dialect {
            Dialect::Toml => "add [users.NAME] with password, or set auth_file",
            Dialect::PgBouncer => "set auth_file",
        };
        found.push(problem.remedy(remedy));
    }
    if settings.auth_type == AuthType::ScramSha256 {
        let is_md5 = |password: &str| password.len() == 35 && password.starts_with("md5");
        let users = reader.config.users.values();
        let md5: Vec<&str> = users
            .filter(|user| user.password.as_ref().is_some_and(|password| is_md5(&password.0)))
            .map(|user| user.name.as_str())
            .collect();
        if !md5.is_empty() {
            let message = format!(
                "users with md5 hashes cannot log in with auth_type scram-sha-256: {}",
                md5.join(", ")
            );
            let problem = reader.at("pooler", "auth_type", message);
            found.push(problem.remedy("store plain passwords or SCRAM secrets, or set auth_type = \"md5\""));
        }
    }
    for user in reader.config.users.values().filter(|_| by_password) {
        let what = match &user.password {
            None if asks => continue,
            None => "has no password",
            Some(password) if Stored::parse(&password.0).is_none() => "has a damaged SCRAM secret",
            Some(_) => continue,
        };
        let message = format!("user \"{}\" {what} and cannot log in", user.name.escape_debug());
        let problem = reader.at(&format!("users.{}", user.name), "", message);
        let remedy = match reader.dialect {
            Dialect::Toml => "give password, password_file or an entry in auth_file",
            Dialect::PgBouncer => "give a password in auth_file",
        };
        found.push(problem.remedy(remedy));
    }
    for (key, names) in [("admin_users", &settings.admin_users), ("stats_users", &settings.stats_users)] {
        for name in names.iter().filter(|name| {
            !asks && settings.auth_type != AuthType::Any && !reader.config.users.contains_key(*name)
        }) {
            let problem =
                reader.at("pooler", key, format!("{key} names \"{name}\", who is not a known user"));
            found.push(problem.remedy("add the user, or correct the name"));
        }
    }
    reader.warnings.extend(found);
}

fn one_database(reader: &mut Reader<'_>, database: &Database) {
    let table = format!("databases.{}", database.name);
    let settings = reader.config.settings.clone();
    let has = |key| reader.has(&table, key);
    // What is wrong with that has been told.
    let told = has("host") || has("nodes") || has("patroni");
    if database.host.is_empty() && !told && !has("url") {
        let problem =
            reader.at(&table, "", format!("database \"{}\" has no host", database.name.escape_debug()));
        reader.problems.push(problem.remedy("set host (or url)"));
    } else if database.host.is_empty() && !told {
        let already = reader.at(&table, "url", "");
        if !reader.problems.iter().any(|problem| problem.line == already.line) {
            let problem = reader.at(&table, "url", "the URL names no host");
            reader.problems.push(problem.remedy("write postgres://user:password@host:port/dbname"));
        }
    }
    if database.host.contains(',') {
        let problem = reader.at(&table, "host", "host is a list");
        reader.problems.push(
            problem.remedy("write host = [\"db1\", \"db2\"] if any will do for any request, or nodes = [\"db1\", \"db2\"] for a primary and its replicas"),
        );
    }
    let size = database.pool_size.unwrap_or(settings.default_pool_size);
    if size > 0 && database.min_pool_size.is_some_and(|min| min > size) {
        let problem = reader.at(
            &table,
            "min_pool_size",
            format!("min_pool_size is greater than the pool size of {size}"),
        );
        reader.tell(problem.remedy("lower min_pool_size or raise pool_size"));
    }
    if let Some(problem) = own_address(&settings, database) {
        let problem = reader.at(&table, "", problem);
        reader.problems.push(problem.remedy("give the address of PostgreSQL, or another listen_port"));
    }
}

/// Says so when pooler would connect to itself.
pub(super) fn own_address(settings: &Settings, database: &Database) -> Option<String> {
    const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "::1"];
    let listens_here = |address: &String| {
        LOOPBACK.contains(&address.as_str()) || ["*", "0.0.0.0", "::"].contains(&address.as_str())
    };
    let places = database.places();
    let own = places.iter().find(|place| {
        place.port == settings.listen_port
            && LOOPBACK.contains(&place.host.as_str())
            && settings.listen_addr.iter().any(listens_here)
    });
    own.map(|place| format!("{place} is where pooler itself listens"))
}
