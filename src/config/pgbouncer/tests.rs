//! Reading a whole pgbouncer.ini: each setting without a value and with one, connect strings, what is refused, and that
//! the pooler.toml made of it says the same.

use std::{path::Path, time::Duration};

use super::{
    import,
    parameters::{Meaning, PARAMETERS},
    reader::defaults,
};
use crate::{
    config::{
        AuthType, Change, Config, Database, LoadBalanceHosts, NodeAddress, PoolMode, Settings, User,
        settings::SETTINGS,
    },
    error::Secret,
};

fn load(text: &str) -> Result<(Config, String), String> {
    let loaded = Config::from_ini_text(Path::new("p.ini"), text).map_err(|problems| problems.to_string())?;
    let warnings = loaded.warnings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    Ok((loaded.config, warnings))
}

fn with(line: &str) -> String {
    format!("[databases]\na = host=h\n[pgbouncer]\n{line}\n")
}

fn value(settings: &Settings, name: &str) -> String {
    let row = SETTINGS.iter().find(|row| row.name == name).unwrap_or_else(|| panic!("{name}"));
    (row.literal)(settings).unwrap()
}

/// What becomes of a value.
enum Then {
    /// This literal of this setting of pooler's.
    Is(&'static str, &'static str),
    /// It makes no difference, which is told.
    Told,
    /// It is refused.
    Refused,
    /// It makes no difference, which need not be told.
    Nothing,
}
use Then::{Is, Nothing, Refused, Told};

/// Setting; pooler's literal at PgBouncer's default; a value that is not the default; what becomes of it.
#[rustfmt::skip]
const EXAMPLES: &[(&str, Then, &str, Then)] = &[
    ("admin_users", Is("admin_users", "[]"), "a, b c", Is("admin_users", r#"["a", "b", "c"]"#)),
    ("application_name_add_host", Is("application_name_add_host", "false"), "1", Is("application_name_add_host", "true")),
    ("auth_dbname", Is("auth_dbname", r#""""#), "a", Is("auth_dbname", r#""a""#)),
    ("auth_file", Is("auth_file", r#""""#), "/nowhere/users", Is("auth_file", r#""/nowhere/users""#)),
    ("auth_hba_file", Is("auth_hba_file", r#""""#), "/x", Is("auth_hba_file", r#""/x""#)),
    ("auth_ident_file", Is("auth_ident_file", r#""""#), "/x", Is("auth_ident_file", r#""/x""#)),
    ("auth_ldap_options", Is("auth_ldap_options", r#""""#), "x", Is("auth_ldap_options", r#""x""#)),
    ("auth_query", Nothing, "SELECT 1", Is("auth_query", r#""SELECT 1""#)),
    ("auth_type", Is("auth_type", r#""md5""#), "SCRAM-SHA-256", Is("auth_type", r#""scram-sha-256""#)),
    ("auth_user", Is("auth_user", r#""""#), "x", Is("auth_user", r#""x""#)),
    ("autodb_idle_timeout", Is("autodb_idle_timeout", r#""1h""#), "60", Is("autodb_idle_timeout", r#""1min""#)),
    ("cancel_wait_timeout", Is("cancel_wait_timeout", r#""10s""#), "0", Is("cancel_wait_timeout", "0")),
    ("client_idle_timeout", Is("client_idle_timeout", "0"), "1.5", Is("client_idle_timeout", r#""1500ms""#)),
    ("client_login_timeout", Is("client_login_timeout", r#""1min""#), "30", Is("client_login_timeout", r#""30s""#)),
    ("client_tls13_ciphers", Is("client_tls13_ciphers", r#""""#), "TLS_AES_256_GCM_SHA384", Is("client_tls13_ciphers", r#""TLS_AES_256_GCM_SHA384""#)),
    ("client_tls_ca_file", Is("client_tls_ca_file", r#""""#), "/dev/null", Refused),
    ("client_tls_cert_file", Is("client_tls_cert_file", r#""""#), "/x", Refused),
    ("client_tls_ciphers", Is("client_tls_ciphers", r#""default""#), "HIGH:!aNULL", Is("client_tls_ciphers", r#""HIGH:!aNULL""#)),
    ("client_tls_dheparams", Nothing, "legacy", Told),
    ("client_tls_ecdhcurve", Nothing, "prime256v1", Told),
    ("client_tls_key_file", Is("client_tls_key_file", r#""""#), "/x", Refused),
    ("client_tls_protocols", Is("client_tls_protocols", r#""secure""#), "tlsv1.3", Is("client_tls_protocols", r#""tlsv1.3""#)),
    ("client_tls_sslmode", Is("client_tls_sslmode", r#""disable""#), "on", Refused),
    ("conffile", Nothing, "/x", Refused),
    ("default_pool_size", Is("default_pool_size", "20"), "0x10", Is("default_pool_size", "16")),
    ("disable_pqexec", Is("disable_pqexec", "false"), "1", Is("disable_pqexec", "true")),
    ("dns_max_ttl", Is("dns_max_ttl", r#""15s""#), "1", Is("dns_max_ttl", r#""1s""#)),
    ("dns_nxdomain_ttl", Is("dns_nxdomain_ttl", r#""15s""#), "0", Is("dns_nxdomain_ttl", "0")),
    ("dns_zone_check_period", Is("dns_zone_check_period", "0"), "5", Is("dns_zone_check_period", r#""5s""#)),
    ("idle_transaction_timeout", Is("idle_transaction_timeout", "0"), "60", Is("idle_transaction_timeout", r#""1min""#)),
    ("ignore_startup_parameters", Is("ignore_startup_parameters", "[]"), "extra_float_digits, options", Is("ignore_startup_parameters", r#"["extra_float_digits", "options"]"#)),
    ("job_name", Nothing, "x", Told),
    ("listen_addr", Is("listen_addr", "[]"), "*", Is("listen_addr", r#"["*"]"#)),
    ("listen_backlog", Is("listen_backlog", "128"), "010", Is("listen_backlog", "8")),
    ("listen_port", Is("listen_port", "6432"), "5432", Is("listen_port", "5432")),
    ("log_connections", Is("log_connections", "true"), "0", Is("log_connections", "false")),
    ("log_disconnections", Is("log_disconnections", "true"), "0", Is("log_disconnections", "false")),
    ("log_pooler_errors", Is("log_pooler_errors", "true"), "0", Is("log_pooler_errors", "false")),
    ("log_stats", Is("log_stats", "true"), "0", Is("log_stats", "false")),
    ("logfile", Is("logfile", r#""""#), "/x/y.log", Is("logfile", r#""/x/y.log""#)),
    ("login_notify_message", Is("login_notify_message", r#""""#), "hello", Is("login_notify_message", r#""hello""#)),
    ("max_client_conn", Is("max_client_conn", "100"), "5000", Is("max_client_conn", "5000")),
    ("max_db_client_connections", Is("max_db_client_connections", "0"), "5", Is("max_db_client_connections", "5")),
    ("max_db_connections", Is("max_db_connections", "0"), "5", Is("max_db_connections", "5")),
    ("max_packet_size", Is("max_packet_size", "1073741823"), "65536", Is("max_packet_size", r#""64kB""#)),
    ("max_prepared_statements", Is("max_prepared_statements", "200"), "0", Is("max_prepared_statements", "0")),
    ("max_user_client_connections", Is("max_user_client_connections", "0"), "5", Is("max_user_client_connections", "5")),
    ("max_user_connections", Is("max_user_connections", "0"), "5", Is("max_user_connections", "5")),
    ("min_pool_size", Is("min_pool_size", "0"), "5", Is("min_pool_size", "5")),
    ("peer_id", Is("peer_id", "0"), "5", Is("peer_id", "5")),
    ("pidfile", Is("pidfile", r#""""#), "/x/y.pid", Is("pidfile", r#""/x/y.pid""#)),
    ("pkt_buf", Nothing, "8192", Told),
    ("pool_idle_timeout", Is("pool_idle_timeout", "0"), "60", Is("pool_idle_timeout", r#""1min""#)),
    ("pool_mode", Is("pool_mode", r#""session""#), "Transaction", Is("pool_mode", r#""transaction""#)),
    ("query_timeout", Is("query_timeout", "0"), "10", Is("query_timeout", r#""10s""#)),
    ("query_wait_notify", Is("query_wait_notify", r#""5s""#), "0", Is("query_wait_notify", "0")),
    ("query_wait_timeout", Is("query_wait_timeout", r#""2min""#), "0", Is("query_wait_timeout", "0")),
    ("reserve_pool_size", Is("reserve_pool_size", "0"), "5", Is("reserve_pool_size", "5")),
    ("reserve_pool_timeout", Is("reserve_pool_timeout", r#""5s""#), ".5", Is("reserve_pool_timeout", r#""500ms""#)),
    ("resolv_conf", Nothing, "/x", Refused),
    ("sbuf_loopcnt", Nothing, "0", Told),
    ("scram_iterations", Is("scram_iterations", "4096"), "10000", Is("scram_iterations", "10000")),
    ("server_check_delay", Is("server_check_delay", r#""30s""#), "0", Is("server_check_delay", "0")),
    ("server_check_query", Is("server_check_query", r#""<empty>""#), "select 'a'", Is("server_check_query", r#""select 'a'""#)),
    ("server_connect_timeout", Is("server_connect_timeout", r#""15s""#), "3", Is("server_connect_timeout", r#""3s""#)),
    ("server_fast_close", Is("server_fast_close", "false"), "1", Is("server_fast_close", "true")),
    ("server_idle_timeout", Is("server_idle_timeout", r#""10min""#), "0", Is("server_idle_timeout", "0")),
    ("server_lifetime", Is("server_lifetime", r#""1h""#), "0", Is("server_lifetime", "0")),
    ("server_login_retry", Is("server_login_retry", r#""15s""#), "1", Is("server_login_retry", r#""1s""#)),
    ("server_reset_query", Is("server_reset_query", r#""DISCARD ALL""#), "", Is("server_reset_query", r#""""#)),
    ("server_reset_query_always", Is("server_reset_query_always", "false"), "1", Is("server_reset_query_always", "true")),
    ("server_round_robin", Is("server_round_robin", "false"), "1", Is("server_round_robin", "true")),
    ("server_tls13_ciphers", Is("server_tls13_ciphers", r#""""#), "TLS_AES_256_GCM_SHA384", Is("server_tls13_ciphers", r#""TLS_AES_256_GCM_SHA384""#)),
    ("server_tls_ca_file", Is("server_tls_ca_file", r#""""#), "/x", Refused),
    ("server_tls_cert_file", Is("server_tls_cert_file", r#""""#), "/x", Refused),
    ("server_tls_ciphers", Is("server_tls_ciphers", r#""default""#), "HIGH", Is("server_tls_ciphers", r#""HIGH""#)),
    ("server_tls_key_file", Is("server_tls_key_file", r#""""#), "/x", Refused),
    ("server_tls_protocols", Is("server_tls_protocols", r#""secure""#), "tlsv1.2", Is("server_tls_protocols", r#""tlsv1.2""#)),
    ("server_tls_sslmode", Is("server_tls_sslmode", r#""prefer""#), "VERIFY-FULL", Is("server_tls_sslmode", r#""verify-full""#)),
    ("so_reuseport", Is("so_reuseport", "false"), "1", Is("so_reuseport", "true")),
    ("stats_period", Is("stats_period", r#""1min""#), "15", Is("stats_period", r#""15s""#)),
    ("stats_users", Is("stats_users", "[]"), "a", Is("stats_users", r#"["a"]"#)),
    ("suspend_timeout", Is("suspend_timeout", r#""10s""#), "1", Is("suspend_timeout", r#""1s""#)),
    ("syslog", Is("syslog", "false"), "1", Is("syslog", "true")),
    ("syslog_facility", Is("syslog_facility", r#""daemon""#), "LOCAL0", Is("syslog_facility", r#""local0""#)),
    ("syslog_ident", Is("syslog_ident", r#""pgbouncer""#), "x", Is("syslog_ident", r#""x""#)),
    ("tcp_defer_accept", Nothing, "0", Told),
    ("tcp_keepalive", Is("tcp_keepalive", "true"), "0", Is("tcp_keepalive", "false")),
    ("tcp_keepcnt", Is("tcp_keepcnt", "0"), "3", Is("tcp_keepcnt", "3")),
    ("tcp_keepidle", Is("tcp_keepidle", "0"), "60", Is("tcp_keepidle", r#""1min""#)),
    ("tcp_keepintvl", Is("tcp_keepintvl", "0"), "10", Is("tcp_keepintvl", r#""10s""#)),
    ("tcp_socket_buffer", Nothing, "65536", Told),
    ("tcp_user_timeout", Is("tcp_user_timeout", "0"), "1500", Is("tcp_user_timeout", r#""1500ms""#)),
    ("track_extra_parameters", Nothing, "search_path", Told),
    ("transaction_timeout", Is("transaction_timeout", "0"), "10", Is("transaction_timeout", r#""10s""#)),
    ("unix_socket_dir", Is("unix_socket_dir", r#""/tmp""#), "/", Is("unix_socket_dir", r#""/""#)),
    ("unix_socket_group", Is("unix_socket_group", r#""""#), "staff", Is("unix_socket_group", r#""staff""#)),
    ("unix_socket_mode", Is("unix_socket_mode", r#""0777""#), "0700", Is("unix_socket_mode", r#""0700""#)),
    ("user", Is("user", r#""""#), "postgres", Is("user", r#""postgres""#)),
    ("verbose", Is("log_level", r#""info""#), "1", Is("log_level", r#""debug""#)),
];

#[test]
fn every_setting_has_an_example_in_the_order_of_the_table() {
    let names: Vec<_> = PARAMETERS.iter().map(|parameter| parameter.name).collect();
    let examples: Vec<_> = EXAMPLES.iter().map(|(name, ..)| *name).collect();
    assert_eq!(names, examples);
}

#[test]
fn every_default_is_that_of_pgbouncer() {
    let settings = defaults();
    for (name, default, ..) in EXAMPLES {
        if let Is(target, literal) = default {
            assert_eq!(value(&settings, target), *literal, "{name}");
        }
    }
    let (config, warnings) = load(&with("auth_type = trust")).unwrap();
    assert_eq!(config.settings, Settings { auth_type: AuthType::Trust, ..settings });
    assert!(!warnings.contains("makes no difference"), "{warnings}");
}

#[test]
fn every_default_may_be_written() {
    for parameter in PARAMETERS {
        let Some(default) = parameter.default else { continue };
        let (config, warnings) = load(&with(&format!("{} = {default}", parameter.name))).unwrap();
        assert_eq!(config.settings, defaults(), "{}", parameter.name);
        assert!(!warnings.contains("makes no difference"), "{warnings}");
    }
}

#[test]
fn every_setting_is_read_or_told_or_refused() {
    for (name, _, text, then) in EXAMPLES {
        let loaded = load(&with(&format!("{name} = {text}")));
        match (then, loaded) {
            (Is(target, literal), Ok((config, warnings))) => {
                assert_eq!(value(&config.settings, target), *literal, "{name}");
                let mut others = config.settings.clone();
                let row = SETTINGS.iter().find(|row| row.name == *target).unwrap();
                (row.copy)(&mut others, &defaults());
                assert_eq!(others, defaults(), "{name} changes others");
                assert_ne!(config.settings, defaults(), "{name}: the example is the default");
                assert!(!warnings.contains("makes no difference"), "{warnings}");
            }
            (Told | Nothing, Ok((config, warnings))) => {
                assert_eq!(config.settings, defaults(), "{name}");
                let told = warnings.contains(&format!("p.ini:4: {name} makes no difference: "));
                assert_eq!(told, matches!(then, Told), "{name}: {warnings}");
            }
            (Refused, Err(problems)) => {
                assert!(problems.starts_with("p.ini:4: "), "{name}: {problems}");
                assert!(problems.contains(name), "{name}: {problems}");
                assert!(problems.lines().nth(1).is_some_and(|line| line.len() > 10), "{name}: {problems}");
            }
            (_, Ok((_, warnings))) => panic!("{name} is read: {warnings}"),
            (_, Err(problems)) => panic!("{name} is not read: {problems}"),
        }
    }
}

#[test]
fn what_can_be_changed_live_is_as_in_pgbouncer() {
    for parameter in PARAMETERS.iter().filter(|parameter| parameter.meaning == Meaning::Same) {
        let row = SETTINGS.iter().find(|row| row.name == parameter.name).unwrap();
        assert_eq!(parameter.changeable, row.change == Change::Live, "{}", parameter.name);
    }
}

/// SHOW CONFIG of PgBouncer 1.26.1 with nothing but a few settings, as psql -At prints it with NULL for null.
const SHOWN: &str = include_str!("show_config.txt");

#[test]
fn settings_are_shown_as_by_pgbouncer() {
    let text = "[pgbouncer]\nlisten_port=7777\nlisten_addr=127.0.0.1\nunix_socket_dir=/tmp\nauth_type=TRUST\n\
                admin_users=x\nserver_idle_timeout=0x10\nunix_socket_mode=0700\nlog_stats=7\nverbose=1\n";
    let (config, _) = load(text).unwrap();
    let or_null = |text: Option<String>| text.unwrap_or_else(|| "NULL".to_owned());
    let shown: Vec<String> = config
        .rows()
        .into_iter()
        .map(|row| {
            let changeable = if row.changeable { "yes" } else { "no" };
            format!("{}|{}|{}|{changeable}", row.key, or_null(row.value), or_null(row.default))
        })
        .collect();
    assert_eq!(shown.join("\n"), SHOWN.trim_end().replace("t.ini", "p.ini"));
}

#[test]
fn set_takes_the_names_and_units_of_pgbouncer_and_shows_them() {
    let (mut config, _) = load(&with("auth_type = trust")).unwrap();
    let shown = |config: &Config, name: &str| {
        let row = config.rows().into_iter().find(|row| row.key == name).unwrap();
        row.value.unwrap_or_default()
    };
    config.set("tcp_user_timeout", "1500").unwrap();
    config.set("query_timeout", "1.50").unwrap();
    config.set("verbose", "2").unwrap();
    config.set("pkt_buf", "1").unwrap_err();
    config.set("sbuf_loopcnt", "0").unwrap();
    assert_eq!(config.settings.tcp_user_timeout, Duration::from_millis(1500));
    assert_eq!(
        (shown(&config, "tcp_user_timeout").as_str(), shown(&config, "query_timeout").as_str()),
        ("1500", "1.5")
    );
    assert_eq!((config.settings.log_level.as_str(), shown(&config, "verbose").as_str()), ("trace", "2"));
    assert_eq!(shown(&config, "sbuf_loopcnt"), "0");
    let before = config.settings.clone();
    for (name, value, why) in [
        ("listen_port", "1", "listen_port can only be changed by a restart"),
        (
            "default_pool_size",
            "many",
            "invalid value \"many\" for parameter default_pool_size; expected a whole number",
        ),
        (
            "query_timeout",
            "10s",
            "invalid value \"10s\" for parameter query_timeout; expected a number of seconds",
        ),
        ("disable_pqexec", "1", "disable_pqexec can only be changed by a restart"),
        ("auth_type", "kerberos", "invalid value \"kerberos\" for parameter auth_type; expected"),
        ("nope", "1", "unknown setting \"nope\""),
    ] {
        let error = config.set(name, value).unwrap_err();
        assert!(error.starts_with(why), "{error}");
    }
    assert_eq!(config.settings, before);
}

#[test]
fn a_reload_keeps_what_needs_a_restart() {
    let (running, _) = load(&with("listen_port = 1\nauth_type = trust")).unwrap();
    let (mut new, _) =
        load(&with("listen_port = 2\njob_name = x\nlisten_backlog = 5\ndefault_pool_size = 7")).unwrap();
    new.keep_restart_settings(&running);
    assert_eq!((new.settings.listen_port, new.settings.default_pool_size), (1, 7));
    let changed: Vec<_> =
        new.rows().into_iter().zip(running.rows()).filter(|(new, old)| new != old).collect();
    let names: Vec<_> = changed.iter().map(|(new, _)| new.key).collect();
    assert_eq!(names, ["auth_type", "default_pool_size"]);
}

#[test]
fn connect_strings_are_read() {
    let text = "[databases]\n\
        plain = host=h\n\
        nothing =\n\
        full = dbname=d host=::1,@x,::1 port=7 user=u password='p ''q' client_encoding=UTF8 datestyle=ISO timezone=UTC \
               application_name=x pool_size=3 min_pool_size=1 reserve_pool=2 max_db_connections=4 \
               max_db_client_connections=5 pool_mode=TRANSACTION connect_query='select 1' query_wait_timeout=0 \
               server_lifetime=60 load_balance_hosts=disable\n\
        unset = host=h pool_size=-1 max_db_connections=0 server_lifetime=0 query_wait_timeout=-1\n\
        * = host=star\n\
        [users]\n\
        u = pool_mode=statement pool_size=0 reserve_pool_size=1 max_user_connections=2 max_user_client_connections=3 \
            query_timeout=4 query_wait_timeout=5 idle_transaction_timeout=6 transaction_timeout=7 client_idle_timeout=8\n\
        v = query_timeout=0 max_user_connections=0\n\
        [pgbouncer]\nunix_socket_dir = /\n";
    let (config, _) = load(&text.replace("               ", "").replace("            ", "")).unwrap();
    let database = |name: &str, host: &str| Database {
        name: name.to_owned(),
        host: host.to_owned(),
        ..Database::default()
    };
    assert_eq!(*config.databases["plain"], database("plain", "h"));
    assert_eq!(*config.databases["nothing"], database("nothing", "/"));
    assert_eq!(*config.databases["unset"], database("unset", "h"));
    assert_eq!(*config.databases["*"], database("*", "star"));
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    let parameters =
        [("application_name", "x"), ("client_encoding", "UTF8"), ("DateStyle", "ISO"), ("TimeZone", "UTC")];
    let full = Database {
        port: 7,
        hosts: ["::1", "@x", "::1"].map(|host| NodeAddress::new(host, 7)).to_vec(),
        load_balance_hosts: LoadBalanceHosts::Disable,
        dbname: Some("d".to_owned()),
        user: Some("u".to_owned()),
        password: Some(Secret("p 'q".to_owned())),
        server_parameters: parameters.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
        pool_size: Some(3),
        min_pool_size: Some(1),
        reserve_pool_size: Some(2),
        max_db_connections: Some(4),
        max_db_client_connections: Some(5),
        pool_mode: Some(PoolMode::Transaction),
        connect_query: Some("select 1".to_owned()),
        query_wait_timeout: seconds(0),
        server_lifetime: seconds(60),
        ..database("full", "::1")
    };
    assert_eq!(*config.databases["full"], full);
    let u = User {
        name: "u".to_owned(),
        pool_mode: Some(PoolMode::Statement),
        pool_size: Some(0),
        reserve_pool_size: Some(1),
        max_user_connections: Some(2),
        max_user_client_connections: Some(3),
        query_timeout: seconds(4),
        query_wait_timeout: seconds(5),
        idle_transaction_timeout: seconds(6),
        transaction_timeout: seconds(7),
        client_idle_timeout: seconds(8),
        ..User::default()
    };
    assert_eq!(*config.users["u"], u);
    assert_eq!(*config.users["v"], User { name: "v".to_owned(), ..User::default() });
}

#[test]
fn every_problem_is_told_with_its_line_and_remedy_and_without_secrets() {
    let long = "d".repeat(64);
    for (text, expected) in [
        ("", "p.ini: main section missing from config file\n"),
        ("x=1\n", "p.ini:1: value without section: x\n"),
        ("[pgbouncer]\nx=1\n", "p.ini:2: unknown parameter: pgbouncer/x\n"),
        (
            "[pgbouncer]\npol_mode=session\n",
            "p.ini:2: unknown parameter: pgbouncer/pol_mode\n  did you mean pool_mode?",
        ),
        (
            "[pgbouncer]\nfailover_hold=1\n",
            "p.ini:2: unknown parameter: pgbouncer/failover_hold\n  it is a setting of pooler.toml",
        ),
        ("[pgbouncer]\nlisten_port 7\n", "p.ini:2: syntax error in configuration\n"),
        (
            "[pgbouncer]\nlisten_port=abc\n",
            "p.ini:2: invalid value \"abc\" for parameter listen_port\n  expected a whole number",
        ),
        (
            "[pgbouncer]\nlisten_port=0\n",
            "p.ini:2: invalid value \"0\" for parameter listen_port\n  expected a whole number from 1",
        ),
        (
            "[pgbouncer]\nunix_socket_mode=999\n",
            "p.ini:2: invalid value \"999\" for parameter unix_socket_mode",
        ),
        (
            "[pgbouncer]\npool_mode=foo\n",
            "p.ini:2: invalid value \"foo\" for parameter pool_mode\n  expected one of",
        ),
        ("[foo]\n", "p.ini:1: invalid section \"foo\"\n"),
        ("[DATABASES]\n", "p.ini:1: invalid section \"DATABASES\"\n"),
        ("[databases]\na=foo=s3cret\n", "p.ini:2: database \"a\": unrecognized connection parameter: foo\n"),
        (
            "[databases]\na=password=s3cret hots=x\n",
            "p.ini:2: database \"a\": unrecognized connection parameter: hots\n  did you mean host?",
        ),
        (
            "[databases]\na=password='s3cret\n",
            "p.ini:2: syntax error in connection string of database \"a\"\n",
        ),
        (
            "[databases]\na=host=a,,b\n",
            "p.ini:2: database \"a\": invalid list of hosts\n  write 1 to 64 hosts",
        ),
        ("[databases]\na=host=a,b port=1,2\n", "p.ini:2: database \"a\": invalid port\n"),
        (
            "[databases]\na=host=a load_balance_hosts=random\n",
            "p.ini:2: database \"a\": invalid value for load_balance_hosts\n",
        ),
        ("[databases]\na=port=70000\n", "p.ini:2: database \"a\": invalid port\n"),
        ("[databases]\na=pool_size=x\n", "p.ini:2: database \"a\": invalid value for pool_size\n"),
        ("[databases]\na=pool_mode=x\n", "p.ini:2: database \"a\": invalid pool mode: x\n"),
        (
            "[databases]\na=host=b auth_dbname=pgbouncer\n[pgbouncer]\n",
            "p.ini:2: auth_dbname leads to the console\n",
        ),
        ("[pgbouncer]\nauth_dbname=pgbouncer\n", "p.ini:2: auth_dbname leads to the console\n"),
        ("[databases]\npgbouncer=host=a\n", "p.ini:2: database name \"pgbouncer\" is reserved\n"),
        ("[users]\na=foo=1\n", "p.ini:2: user \"a\": unrecognized user parameter: foo\n"),
        ("[pgbouncer]\nunix_socket_dir=\n", "p.ini:1: nothing to listen on\n"),
        ("[pgbouncer]\nunix_socket_dir=/nowhere\n", "p.ini:2: /nowhere is not a directory\n"),
        (
            "[pgbouncer]\nunix_socket_dir=\nlisten_addr=*\n[databases]\na=port=1\n",
            "p.ini:5: database \"a\" has no host\n",
        ),
        ("[peers]\nx=host=a\n", "p.ini:2: ids of peers must be a number larger than 0"),
        ("[peers]\n0=host=a\n", "p.ini:2: ids of peers must be a number larger than 0"),
        ("[peers]\n65536=host=a\n", "p.ini:2: ids of peers must be a number larger than 0"),
        ("[peers]\n1=host=a prt=5\n", "p.ini:2: peer 1: unrecognized connection parameter: prt\n"),
        ("[peers]\n1=host=a port=0\n", "p.ini:2: peer 1: invalid port\n"),
        ("[peers]\n1=host\n", "p.ini:2: syntax error in connection string of a peer\n"),
        ("[pgbouncer]\npeer_id=1\n[peers]\n1=port=5\n", "p.ini:4: host was not provided for peer 1\n"),
        (&format!("[databases]\n{long}=host=a\n"), "p.ini:2: the name is longer than 63 bytes\n"),
    ] {
        let problems = load(text).map(|(config, _)| config.settings).unwrap_err();
        assert!(problems.contains(expected), "{expected}\nnot in\n{problems}");
        assert!(!problems.contains("s3cret"), "{problems}");
    }
}

#[test]
fn what_pgbouncer_starts_with_is_only_told() {
    for (text, expected) in [
        ("[pgbouncer]\n", "p.ini: no database is configured\n"),
        ("[pgbouncer]\nauth_file=/nowhere\n", "p.ini:2: cannot read auth_file /nowhere: "),
        ("[pgbouncer]\nmin_pool_size=50\n", "p.ini:2: min_pool_size is greater than default_pool_size\n"),
        (
            "[pgbouncer]\npool_mode=transaction\n[pgbouncer]\n",
            "p.ini:3: another [pgbouncer]: what the one above sets is back",
        ),
    ] {
        let (_, warnings) = load(text).unwrap();
        assert!(warnings.contains(expected), "{expected}\nnot in\n{warnings}");
    }
}

#[test]
fn another_main_section_undoes_the_first_but_for_what_has_no_default() {
    let text = "[pgbouncer]\npool_mode=transaction\nauth_file=/nowhere\nverbose=1\n[databases]\n[pgbouncer]\nlisten_port=1\n";
    let (config, _) = load(text).unwrap();
    assert_eq!((config.settings.pool_mode, config.settings.listen_port), (PoolMode::Session, 1));
    assert_eq!(config.settings.auth_file.as_deref(), Some(Path::new("/nowhere")));
    assert_eq!(config.settings.log_level, "debug");
}

#[test]
fn the_toml_that_is_made_of_it_says_the_same() {
    let dir = std::env::temp_dir().join(format!("pooler-import-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let users = dir.join("users.txt");
    std::fs::write(&users, "\"alice\" \"secret\"\n\"u\" \"md5x\"\n\"nobody\" \"\"\n").unwrap();
    let mut text = String::from("[pgbouncer]\n");
    for (name, _, value, then) in EXAMPLES {
        // What fits together with all the others.
        let value = if *name == "auth_file" { users.to_str().unwrap() } else { value };
        if !matches!(then, Refused) {
            text += &format!("{name} = {value}\n");
        }
    }
    text += "[databases]\n\
        plain = auth_user=u auth_dbname=plain auth_query='select ''$1'', 2'\n\
        'odd \"name' = host=::1 port=7 user=u password='p ${x} \"q\" $${' dbname=d timezone=UTC datestyle='ISO, DMY' \
        connect_query='select ''${a}''' pool_size=0 query_wait_timeout=0 application_name=a client_encoding=UTF8\n\
        * = host=h max_db_connections=3 pool_mode=statement min_pool_size=1 reserve_pool_size=2 server_lifetime=5 \
        max_db_client_connections=3\n\
        [users]\nu = pool_size=3 query_timeout=5\n'ghost user' = pool_mode=session\nonly =\n\
        [peers]\n5 = host=/tmp port=7 pool_size=3\n65535 = host=peer pool_size=-1\n";
    let (config, _) = load(&text).unwrap();
    let toml = import::toml(&config);
    let same = Config::from_text(Path::new("p.toml"), &toml, &|_| None);
    std::fs::remove_dir_all(&dir).unwrap();
    let same = same.unwrap_or_else(|problems| panic!("{problems}\n{toml}")).config;
    assert_eq!(same.settings, config.settings);
    assert_eq!(same.databases, config.databases);
    assert_eq!(same.users, config.users);
    assert_eq!(config.users.len(), 5);
    assert_eq!((same.peers, config.peers.len()), (config.peers, 2));
    for part in [
        "# Made of p.ini by `pooler import`.\n",
        "# Not here: pkt_buf = 8192 (",
        "# \"scram-sha-256\" unless",
    ] {
        assert_eq!(toml.contains(part), !part.contains("scram"), "{part}\n{toml}");
    }
}

#[test]
fn damaged_files_never_panic() {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed % u64::try_from(below).unwrap()).unwrap()
    };
    let mut base = String::from(
        "[databases]\na = host=h port=7 password='x y' pool_size=3\n[users]\nu = pool_mode=session\n[pgbouncer]\n",
    );
    for (name, _, value, then) in EXAMPLES {
        if !matches!(then, Refused) {
            base += &format!("{name} = {value}\n");
        }
    }
    let base: Vec<char> = base.chars().collect();
    let pieces = ["[", "]", "=", "'", "\"", "\n", ";", " ", "é", "\0", "0x", "-", "''", "1e999"];
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
        loaded += u32::from(load(&text.into_iter().collect::<String>()).is_ok());
    }
    assert!((1..300).contains(&loaded), "{loaded} of 300 load");
}
