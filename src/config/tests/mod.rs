//! Tests of reading a whole configuration: files, references, line numbers, remedies.

mod comparing;
mod every_setting;
mod resolving;
mod upstream;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use super::{settings::check_defaults, *};

/// A directory that goes with the test.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("pooler-config-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// Writes a file that only its owner can read.
    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const DATABASE: &str = "\n[databases.app]\nhost = \"db1\"\n";
const USER: &str = "\n[users.u]\npassword = \"${SECRET}\"\n";

fn environment(name: &str) -> Option<String> {
    match name {
        "SECRET" => Some("from-env".to_owned()),
        "SIZE" => Some("7".to_owned()),
        "HOST" => Some("db9".to_owned()),
        _ => None,
    }
}

fn load(text: &str) -> Result<Loaded, Problems> {
    Config::from_text(Path::new("p.toml"), text, &environment)
}

/// Settings with one line in `[pooler]`.
fn settings(line: &str) -> Settings {
    load(&format!("[pooler]\n{line}\n{DATABASE}{USER}"))
        .unwrap_or_else(|problems| panic!("{problems}"))
        .config
        .settings
}

fn problems(text: &str) -> String {
    match load(text) {
        Ok(loaded) => panic!("loads, with warnings {:?}", loaded.warnings),
        Err(problems) => problems.to_string(),
    }
}

fn warnings(text: &str) -> String {
    let loaded = load(text).unwrap_or_else(|problems| panic!("{problems}"));
    Problems(loaded.warnings).to_string()
}

#[test]
fn a_full_file_is_read() {
    let dir = Dir::new();
    dir.file("secret", "from-file\n");
    dir.file("users.txt", "\"carol\" \"md5 or not\"\n\"alice\" \"loses\"\n");
    let path = dir.file(
        "pooler.toml",
        r#"
        [pooler]
        default_pool_size = "30"
        auth_file = "users.txt"
        peer_id = 7
        [databases.app]
        host = ["db1", "[::1]:1", "@x"]
        load_balance_hosts = "disable"
        port = 5433
        dbname = "app_v2"
        user = "app"
        password_file = "secret"
        auth_user = "bob"
        auth_query = "SELECT 1"
        auth_dbname = "other"
        pool_size = 0
        min_pool_size = 1
        reserve_pool_size = 2
        max_db_connections = 3
        max_db_client_connections = 4
        pool_mode = "statement"
        route = "primary"
        read_consistency = "eventual"
        query_wait_timeout = "1s"
        server_lifetime = 60
        connect_query = "set x to 1"
        application_name = "a"
        client_encoding = "UTF8"
        datestyle = "ISO"
        timezone = "UTC"
        server_tls_sslmode = "require"
        [databases]
        other.url = "postgres://u:p%40@[::1]:1/d?sslmode=verify-ca&application_name=x"
        other.pool_size = 2
        "*" = { host = "/run/postgresql" }
        many.nodes = ["db1", "db2:5433 weight=2"]
        found.patroni = ["http://10.0.0.1:8008", "https://db2"]
        [users.alice]
        password = "wins"
        pool_mode = "session"
        route = "replica"
        read_consistency = "session"
        pool_size = 1
        reserve_pool_size = 2
        max_user_connections = 3
        max_user_client_connections = 4
        query_timeout = 5
        query_wait_timeout = 6
        transaction_timeout = 7
        idle_transaction_timeout = 8
        client_idle_timeout = 9
        [users.bob]
        password_file = "secret"
        [peers.7]
        host = "p7"
        [peers.65535]
        host = "/run/pooler"
        port = 7
        pool_size = 8
        "#,
    );
    let Loaded { config, warnings } = Config::load(&path).unwrap();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    let peer = |id, host: &str, port, pool_size| (id, Peer { id, host: host.to_owned(), port, pool_size });
    let peers = [peer(7, "p7", 6432, None), peer(65535, "/run/pooler", 7, Some(8))];
    assert_eq!(config.peers, peers.into());
    assert!(warnings[0].message.contains("\"alice\" has a password in [users]"), "{warnings:?}");
    assert_eq!(config.settings.default_pool_size, 30);
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    let secret = |text: &str| Some(Secret(text.to_owned()));
    let parameters =
        |list: &[(&str, &str)]| list.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
    let app = Database {
        name: "app".to_owned(),
        host: "db1".to_owned(),
        port: 5433,
        hosts: vec![NodeAddress::new("db1", 5433), NodeAddress::new("::1", 1), NodeAddress::new("@x", 5433)],
        load_balance_hosts: LoadBalanceHosts::Disable,
        nodes: Vec::new(),
        patroni: Vec::new(),
        route: Some(Route::Primary),
        read_consistency: Some(ReadConsistency::Eventual),
        dbname: Some("app_v2".to_owned()),
        user: Some("app".to_owned()),
        password: secret("from-file"),
        auth_user: Some("bob".to_owned()),
        auth_query: Some("SELECT 1".to_owned()),
        auth_dbname: Some("other".to_owned()),
        pool_size: Some(0),
        min_pool_size: Some(1),
        reserve_pool_size: Some(2),
        max_db_connections: Some(3),
        max_db_client_connections: Some(4),
        pool_mode: Some(PoolMode::Statement),
        query_wait_timeout: seconds(1),
        server_lifetime: seconds(60),
        connect_query: Some("set x to 1".to_owned()),
        server_parameters: parameters(&[
            ("application_name", "a"),
            ("client_encoding", "UTF8"),
            ("DateStyle", "ISO"),
            ("TimeZone", "UTC"),
        ]),
        server_tls_sslmode: Some(SslMode::Require),
    };
    assert_eq!(*config.databases["app"], app);
    let other = Database {
        name: "other".to_owned(),
        host: "::1".to_owned(),
        port: 1,
        dbname: Some("d".to_owned()),
        user: Some("u".to_owned()),
        password: secret("p@"),
        pool_size: Some(2),
        server_parameters: parameters(&[("application_name", "x")]),
        server_tls_sslmode: Some(SslMode::VerifyCa),
        ..Database::default()
    };
    assert_eq!(*config.databases["other"], other);
    let many = &config.databases["many"];
    let nodes: Vec<_> = many.nodes.iter().map(|n| (n.host.as_str(), n.port, n.weight)).collect();
    assert_eq!(nodes, [("db1", 5432, 1), ("db2", 5433, 2)]);
    let apis: Vec<_> = config.databases["found"].patroni.iter().map(ToString::to_string).collect();
    assert_eq!(apis, ["http://10.0.0.1:8008", "https://db2:8008"]);
    assert_eq!((many.host.as_str(), many.port), ("db1", 5432));
    assert_eq!((config.databases["*"].host.as_str(), config.databases["*"].port), ("/run/postgresql", 5432));
    let alice = User {
        name: "alice".to_owned(),
        password: secret("wins"),
        pool_mode: Some(PoolMode::Session),
        route: Some(Route::Replica),
        read_consistency: Some(ReadConsistency::Session),
        pool_size: Some(1),
        reserve_pool_size: Some(2),
        max_user_connections: Some(3),
        max_user_client_connections: Some(4),
        query_timeout: seconds(5),
        query_wait_timeout: seconds(6),
        transaction_timeout: seconds(7),
        idle_transaction_timeout: seconds(8),
        client_idle_timeout: seconds(9),
    };
    assert_eq!(*config.users["alice"], alice);
    assert_eq!(config.users["bob"].password, secret("from-file"));
    assert_eq!(config.users["carol"].password, secret("md5 or not"));
    let debug = format!("{config:?}");
    for secret in ["from-file", "wins", "md5 or not", "p@"] {
        assert!(!debug.contains(secret), "{secret} in {debug}");
    }
}

#[test]
fn every_problem_is_reported_with_line_and_remedy() {
    let text = "\
[pooler]
defualt_pool_size = 5
max_conections = 5
pool_size = 5
resolv_conf = \"x\"
host = \"x\"
listen_port = 99999
[databases.app]
hsot = \"db1\"
password = \"${MISSING}\"
max_client_conn = 5
[databases.pgbouncer]
host = \"db1\"
[database.x]
[pgbouncer]
[users.u]
pasword = \"s3cret\"
password = 5
";
    let found = problems(text);
    for expected in [
        "p.toml:2: unknown key \"defualt_pool_size\" in [pooler]\n  did you mean default_pool_size?",
        "p.toml:3: unknown key \"max_conections\" in [pooler]\n",
        "p.toml:4: unknown key \"pool_size\" in [pooler]\n  in [pooler] it is default_pool_size",
        "p.toml:5: unknown key \"resolv_conf\" in [pooler]\n  names are looked up",
        "p.toml:6: unknown key \"host\" in [pooler]\n  host belongs to [databases.NAME]",
        "p.toml:7: invalid value for listen_port: 99999 is out of range\n  expected a whole number from 1 to 65535",
        "p.toml:8: database \"app\" has no host\n",
        "p.toml:9: unknown key \"hsot\" in [databases.app]\n  did you mean host?",
        "p.toml:10: password: environment variable MISSING is not set\n  set it, or give a default: ${MISSING:-default}",
        "p.toml:11: unknown key \"max_client_conn\" in [databases.app]\n  max_client_conn belongs to [pooler]",
        "p.toml:12: database name \"pgbouncer\" is reserved\n",
        "p.toml:14: unknown table or key \"database\"\n  did you mean databases?",
        "p.toml:15: unknown table or key \"pgbouncer\"\n  settings stand in [pooler]",
        "p.toml:17: unknown key \"pasword\" in [users.u]\n  did you mean password?",
        "p.toml:18: invalid value for password: the value is not a text\n",
    ] {
        assert!(found.contains(expected), "{expected}\nnot in\n{found}");
    }
    let lines: Vec<usize> = load(text).unwrap_err().0.iter().map(|problem| problem.line.unwrap()).collect();
    assert!(lines.is_sorted(), "{lines:?}");
    assert_eq!(lines.len(), 15, "{found}");
    assert!(!found.contains("s3cret"));
}

#[test]
fn syntax_errors_are_reported_with_their_lines_and_without_the_text() {
    let found = problems("[pooler]\nlisten_port = \n[users.u]\npassword = s3cret!\nx = 1\n[users.u]\n");
    for line in ["p.toml:2: ", "p.toml:4: ", "p.toml:5: unknown key \"x\"", "p.toml:6: "] {
        assert!(found.contains(line), "{line} not in\n{found}");
    }
    assert!(!found.contains("s3cret"), "{found}");
}

#[test]
fn tables_in_the_wrong_shape_are_reported() {
    for (text, expected) in [
        ("pooler = 1", "p.toml:1: pooler is not a table"),
        ("[databases]\napp = \"postgres://h/d\"", "p.toml:2: databases.app is not a table"),
        ("databases = []", "p.toml:1: databases is not a table"),
        (
            "listen_port = 1",
            "p.toml:1: unknown table or key \"listen_port\"\n  listen_port belongs to [pooler]",
        ),
        ("", "p.toml: no database is configured"),
        ("[databases.\"\"]\nhost='h'", "p.toml:1: the name is empty"),
    ] {
        let found = problems(text);
        assert!(found.contains(expected), "{expected}\nnot in\n{found}");
    }
    let long = "d".repeat(64);
    assert!(problems(&format!("[databases.{long}]\nhost='h'")).contains("longer than 63 bytes"));
    assert!(load(&format!("[databases.{}]\nhost='h'", &long[1..])).is_ok());
}

#[test]
fn a_status_page_that_nobody_can_see_or_many_can_hear_is_warned_of() {
    let of = |addr: &str, users: &str| {
        let settings = format!("status_page = true\nmetrics_addr = '{addr}'\n{users}");
        warnings(&format!("[pooler]\n{settings}\n{DATABASE}{USER}"))
    };
    let nobody = "p.toml:2: nobody can see the status page: no user of the console has a password here";
    let clear = "p.toml:2: passwords for the status page cross the network to 0.0.0.0:9127 in clear text";
    for (addr, users, expected) in [
        ("9127", "stats_users = 'u'", &[][..]),
        ("localhost:9127", "admin_users = 'u'", &[]),
        ("[::1]:9127", "", &[nobody]),
        ("0.0.0.0:9127", "admin_users = 'u'", &[clear]),
        ("0.0.0.0:9127", "", &[nobody, clear]),
    ] {
        let told = of(addr, users);
        let found: Vec<&str> = told.lines().filter(|line| line.starts_with("p.toml:2")).collect();
        assert_eq!(found, expected, "{addr} {users}");
    }
}

#[test]
fn settings_that_do_not_fit_together_are_reported() {
    let dir = Dir::new();
    let pem = dir.file("x.pem", "").display().to_string();
    for (text, expected) in [
        ("min_pool_size = 21", "p.toml:2: min_pool_size is greater than default_pool_size"),
        ("listen_addr = []", "p.toml:2: nothing to listen on"),
        ("listen_addr = '127.0.0.1:6432'", "p.toml:2: \"127.0.0.1:6432\" is not an address without a port"),
        ("client_tls_sslmode = 'require'", "p.toml:2: TLS towards clients needs a certificate"),
        ("client_tls_cert_file = 'PEM'", "p.toml:2: client_tls_cert_file is set without client_tls_key_file"),
        ("server_tls_key_file = 'PEM'", "p.toml:2: server_tls_key_file is set without server_tls_cert_file"),
        (
            "client_tls_sslmode = 'verify-ca'\nclient_tls_cert_file = 'PEM'\nclient_tls_key_file = 'PEM'",
            "p.toml:2: client certificates cannot be verified without an authority",
        ),
        ("auth_file = 'none.txt'", "p.toml:2: cannot read auth_file none.txt"),
        (
            "status_page = true",
            "p.toml:2: status_page needs metrics_addr, where it is served\n  set metrics_addr",
        ),
        (
            "otlp_endpoint = 'http://u:s3cret@h'",
            "p.toml:2: invalid value for otlp_endpoint: the URL cannot be used",
        ),
    ] {
        let found = problems(&format!("[pooler]\n{}\n{DATABASE}{USER}", text.replace("PEM", &pem)));
        assert!(found.starts_with(expected), "{expected}\nnot in\n{found}");
    }
    assert!(settings("default_pool_size = 0\nmin_pool_size = 5").min_pool_size == 5, "0 is no limit");
    for (text, expected) in [
        (
            "host='h'\npool_size = 2\nmin_pool_size = 3",
            "p.toml:4: min_pool_size is greater than the pool size of 2",
        ),
        ("host='h'\n[peers.2]\nhost='b'", "p.toml:3: there are peers, but this process has no peer_id"),
        ("host='h'\n[peers.2]\nport=1", "p.toml:3: host was not provided for peer 2"),
        ("host='h'\n[peers.0]\nhost='b'", "p.toml:3: \"0\" is no id of a peer"),
        ("host='h'\n[peers.b]\nhost='b'", "p.toml:3: \"b\" is no id of a peer"),
        ("host='localhost'\nport = 6432", "p.toml:1: localhost:6432 is where pooler itself listens"),
        ("host='h'\nurl='postgres://h/d'", "p.toml:2: host is given here and in url"),
        ("url='postgres:///d'", "p.toml:2: the URL names no host"),
        ("url='http://u:s3cret@h/d'", "p.toml:2: the URL does not start with postgres://"),
        ("host='h'\npassword='a'\npassword_file='b'", "p.toml:4: cannot read b: "),
        ("port=1", "p.toml:1: database \"a\" has no host"),
        ("host=1", "p.toml:2: invalid value for host"),
        ("host='h1,h2'", "p.toml:2: host is a list"),
        ("host=[]", "p.toml:2: invalid value for host: the list is empty"),
        ("host=['a', 'b,c']", "p.toml:2: invalid value for host: \"b,c\": is not one host"),
        ("host=['a', 'b:0']", "p.toml:2: invalid value for host: \"b:0\": the port is not from"),
        ("host=['a', '127.0.0.1:6432']", "p.toml:1: 127.0.0.1:6432 is where pooler itself listens"),
        ("host='a'\nload_balance_hosts='random'", "p.toml:3: invalid value for load_balance_hosts"),
        ("port=1\nnodes=['h']", "p.toml:2: port is given beside nodes\n  remove it: nodes says where"),
        ("nodes=['h']\npatroni=['http://h']", "p.toml:3: patroni is given beside nodes"),
        ("patroni=['http://h']\nhost='h'", "p.toml:3: host is given beside patroni"),
        (
            "patroni=['h:8008']",
            "p.toml:2: invalid value for patroni: \"h:8008\": http:// or https:// is missing",
        ),
        ("nodes=['h addresses=all']", "p.toml:2: invalid value for nodes: \"h addresses=all\": what follows"),
    ] {
        let found = problems(&format!("[databases.a]\n{text}\n{USER}"));
        assert!(found.starts_with(expected), "{expected}\nnot in\n{found}");
        assert!(!found.contains("s3cret"));
    }
    assert_eq!(
        problems("[databases.a]\nhost=1\n").lines().count(),
        2,
        "no second problem follows from the first"
    );
}

#[test]
fn oddities_are_warned_of() {
    let md5 = format!("[users.m]\npassword = \"${{X:-md5{}}}\"\n", "a".repeat(32));
    for (text, expected) in [
        (DATABASE.to_owned(), "p.toml: no user is configured"),
        (format!("{DATABASE}[users.x]\npool_mode='session'\n"), "p.toml:4: user \"x\" has no password"),
        (
            format!("{DATABASE}[users.x]\npassword='SCRAM-SHA-256$4096:no'\n"),
            "p.toml:4: user \"x\" has a damaged SCRAM secret",
        ),
        (
            format!("[pooler]\nadmin_users = 'u, root'{DATABASE}{USER}"),
            "p.toml:2: admin_users names \"root\"",
        ),
        (
            format!("{DATABASE}{md5}"),
            "p.toml: users with md5 hashes cannot log in with auth_type scram-sha-256: m",
        ),
    ] {
        let found = warnings(&text);
        assert!(found.starts_with(expected), "{expected}\nnot in\n{found}");
    }
    assert_eq!(warnings(&format!("{DATABASE}{USER}")), "");
    assert_eq!(warnings(&format!("[pooler]\nauth_type = 'md5'\n{DATABASE}{md5}")), "");
}

#[test]
fn secrets_that_everybody_can_read_are_warned_of() {
    let dir = Dir::new();
    let secret = dir.file("secret", "s3cret\r\n");
    let path = dir.file("p.toml", &format!("{DATABASE}[users.u]\npassword_file = \"secret\"\n"));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let loaded = Config::load(&path).unwrap();
    assert_eq!(loaded.warnings, []);
    assert_eq!(loaded.config.users["u"].password, Some(Secret("s3cret".to_owned())));

    fs::set_permissions(&secret, fs::Permissions::from_mode(0o644)).unwrap();
    let warnings = Config::load(&path).unwrap().warnings;
    assert_eq!(warnings.len(), 1);
    assert_eq!(warnings[0].file.as_deref(), Some(secret.as_path()));

    fs::write(&path, format!("{DATABASE}[users.u]\npassword = \"literal\"\n")).unwrap();
    let warnings = Config::load(&path).unwrap().warnings;
    assert_eq!((warnings.len(), warnings[0].file.as_deref()), (1, Some(path.as_path())));
}

#[test]
fn files_that_cannot_be_read_are_reported() {
    let dir = Dir::new();
    let missing = Config::load(&dir.0.join("none.toml")).unwrap_err().to_string();
    assert!(missing.contains("none.toml: cannot read the file") && missing.contains("-c FILE"), "{missing}");
    let missing = Config::load(&dir.0.join("none.ini")).unwrap_err().to_string();
    assert!(
        missing.starts_with("could not load file ")
            && missing.ends_with("none.ini\": No such file or directory")
    );
    let path = dir.0.join("latin1.toml");
    fs::write(&path, b"[pooler]\n# \xe4\n").unwrap();
    let latin1 = Config::load(&path).unwrap_err().to_string();
    assert!(latin1.contains("latin1.toml:2: the file is not UTF-8"), "{latin1}");
    dir.file("empty", "\n");
    let path = dir.file("p.toml", &format!("{DATABASE}password_file = \"empty\"\n"));
    let empty = Config::load(&path).unwrap_err().to_string();
    assert!(empty.contains("p.toml:4: ") && empty.contains("contains no password"), "{empty}");
}

#[test]
fn auth_file_problems_name_the_auth_file() {
    let dir = Dir::new();
    dir.file("users.txt", "\"a\" \"1\"\nbroken s3cret\n\"a\" \"2\"\n\"b\"\n");
    let text = format!("[pooler]\nauth_file = \"users.txt\"\n{DATABASE}[users.a]\npool_size = 1\n");
    let path = dir.file("p.toml", &text);
    let found = Config::load(&path).unwrap_err().to_string();
    assert!(found.contains("users.txt:2: the line does not start with a user name"), "{found}");
    assert!(found.contains("users.txt:4: the user name is not followed by a password"), "{found}");
    assert!(!found.contains("s3cret"));
    dir.file("users.txt", "\"a\" \"1\"\n\"a\" \"2\"\n");
    let loaded = Config::load(&path).unwrap();
    assert!(
        loaded.warnings[0]
            .to_string()
            .contains("users.txt:2: user \"a\" is already in line 1; this line counts")
    );
    assert_eq!(loaded.config.users["a"].password, Some(Secret("2".to_owned())));
    assert_eq!(loaded.config.users["a"].pool_size, Some(1));
}

#[test]
fn references_work_in_every_kind_of_value() {
    let text = "[pooler]\ndefault_pool_size = \"${SIZE}\"\nlisten_addr = [\"${ADDR:-::1}\"]\n\
                [databases.a]\nhost = \"${HOST}.example\"\n[users.u]\npassword = \"$${${SECRET}\"\n";
    let config = load(text).unwrap().config;
    assert_eq!(config.settings.default_pool_size, 7);
    assert_eq!(config.settings.listen_addr, ["::1"]);
    assert_eq!(config.databases["a"].host, "db9.example");
    assert_eq!(config.users["u"].password, Some(Secret("${from-env".to_owned())));
}

/// Numbers below a bound, the same in every run.
fn random_numbers() -> impl FnMut(usize) -> usize {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    move |below| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed % u64::try_from(below).unwrap()).unwrap()
    }
}

fn read_as_everything(text: &str) -> bool {
    let _ = url::parse(text);
    let _ = auth_file::parse(text);
    let _ = Config::from_upstream_in(&format!("postgres://{text}"), Some(text), &|_| None);
    match load(text) {
        Ok(_) => true,
        Err(problems) => {
            assert!(!problems.0.is_empty());
            false
        }
    }
}

#[test]
fn damaged_files_never_panic() {
    let mut random = random_numbers();
    let base =
        include_str!("../../../pooler.toml.example").replace('#', "").replace("_PASSWORD}", "_PASSWORD:-x}");
    let base = base.lines().filter(|line| line.contains(" = ") || line.starts_with('['));
    let base: Vec<char> = base.flat_map(|line| line.chars().chain(['\n'])).collect();
    let pieces =
        ["[", "]", "=", "\"", "'", "\n", "${", "}", "#", "é", "\0", "0x", "1e9", "[[", "{", ".", "\"\"\""];
    assert!(read_as_everything(&base.iter().collect::<String>()), "the undamaged file loads");
    let mut loaded = 0;
    for _ in 0..300 {
        let mut text = base.clone();
        for _ in 0..1 + random(4) {
            let at = random(text.len() + 1);
            match random(3) {
                0 => drop(text.splice(at..at, pieces[random(pieces.len())].chars())),
                1 => drop(text.splice(at..(at + random(5)).min(text.len()), [])),
                _ => text.truncate(at.max(random(text.len() + 1))),
            }
        }
        loaded += u32::from(read_as_everything(&text.into_iter().collect::<String>()));
    }
    assert!((1..300).contains(&loaded), "{loaded} of 300 load");
}

#[test]
fn random_bytes_never_panic() {
    let mut random = random_numbers();
    for _ in 0..2000 {
        let bytes: Vec<u8> = (0..random(200)).map(|_| u8::try_from(random(256)).unwrap()).collect();
        let text = String::from_utf8_lossy(&bytes);
        assert!(!read_as_everything(&text), "{text:?} has no database");
    }
}
