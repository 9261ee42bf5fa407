//! The start without a file.

use super::*;

fn start(url: &str, listen: Option<&str>) -> Result<Config, Problems> {
    let environment = |name: &str| (name == "PGPASSWORD").then(|| "from-env".to_owned());
    Config::from_upstream_in(url, listen, &environment)
}

#[test]
fn one_url_serves_its_database_to_its_user_with_its_password() {
    let config = start("postgres://bob:p%40ss@db1:5433/app?sslmode=require", None).unwrap();
    let database = config.resolve_database("app").unwrap();
    assert_eq!((database.host.as_str(), database.port), ("db1", 5433));
    assert_eq!(database.server_user("x"), "bob");
    assert_eq!(database.password, Some(Secret("p@ss".to_owned())));
    assert_eq!(database.server_tls_sslmode, Some(SslMode::Require));
    assert_eq!(config.users["bob"].password, Some(Secret("p@ss".to_owned())));
    assert_eq!((config.databases.len(), config.users.len()), (1, 1));
    let stats_users = vec!["bob".to_owned()];
    assert_eq!(config.settings, Settings { stats_users, ..Settings::default() });
    assert!(config.resolve_database("other").is_none());
}

#[test]
fn what_the_url_leaves_out_comes_from_where_libpq_takes_it() {
    let config = start("postgres://bob@%2Frun%2Fpg", None).unwrap();
    let database = config.resolve_database("bob").unwrap();
    assert_eq!((database.host.as_str(), database.server_dbname()), ("/run/pg", "bob"));
    assert_eq!(database.password, Some(Secret("from-env".to_owned())));
}

#[test]
fn listen_takes_addresses_and_ports() {
    for (listen, address, port) in [
        ("0.0.0.0:7000", "0.0.0.0", 7000),
        ("*:7000", "*", 7000),
        (":7000", "127.0.0.1", 7000),
        ("7000", "127.0.0.1", 7000),
        ("[::1]:7000", "::1", 7000),
        ("[::1]", "::1", 6432),
        ("::1", "::1", 6432),
        ("localhost", "localhost", 6432),
    ] {
        let settings = start("postgres://u:p@h/d", Some(listen)).unwrap().settings;
        assert_eq!(
            (settings.listen_addr.as_slice(), settings.listen_port),
            (&[address.to_owned()][..], port)
        );
    }
    for listen in ["", "h:", "h:0", "h:65536", "[::1", "[h]:1", "[::1]7000", "h:x", "70000", "a:b:1"] {
        let problem = start("postgres://u:p@h/d", Some(listen)).unwrap_err().to_string();
        assert!(problem.starts_with("--listen: "), "{listen}: {problem}");
    }
}

#[test]
fn what_is_missing_is_said_all_at_once_and_without_the_password() {
    let problem = |url: &str| Config::from_upstream_in(url, Some("x:"), &|_| None).unwrap_err().to_string();
    let all = problem("postgres://");
    for expected in ["--listen: ", "names no host", "names no user", "no password"] {
        assert!(all.contains(expected), "{expected} not in {all}");
    }
    for (url, expected) in [
        ("postgres://u:s3cret@h/pooler", "console"),
        ("postgres://u:s3cret@localhost:6432/d", "pooler itself listens"),
        ("postgres://u:s3cret@h/d?sslrootcert=x", "server_tls_ca_file"),
        ("u:s3cret@h", "postgres://"),
    ] {
        let found = start(url, None).unwrap_err().to_string();
        assert!(found.contains(expected) && !found.contains("s3cret"), "{url}: {found}");
    }
    assert!(start("postgres://u:p@localhost:6432/d", Some(":7000")).is_ok());
}
