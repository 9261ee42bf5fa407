//! Each setting of the table: without it, with it, with a bad value, and by SET.

use super::*;

/// Setting; a literal that is not the default; how SHOW CONFIG prints it; a literal that is refused.
#[rustfmt::skip]
const EXAMPLES: &[(&str, &str, &str, &str)] = &[
    ("listen_addr", r#"["*", "::1"]"#, "*,::1", r#"[""]"#),
    ("listen_port", "5433", "5433", "65536"),
    ("listen_backlog", "10", "10", "0"),
    ("unix_socket_dir", r#""/tmp""#, "/tmp", r#""/nowhere/at/all""#),
    ("unix_socket_mode", r#""0700""#, "0700", "777"),
    ("unix_socket_group", r#""staff""#, "staff", "1"),
    ("so_reuseport", "true", "1", "2"),
    ("peer_id", "7", "7", "65536"),
    ("workers", "2", "2", "-1"),
    ("client_placement", r#""even""#, "even", r#""evenly""#),
    ("pool_mode", r#""session""#, "session", r#""sesion""#),
    ("session_state", r#""always""#, "always", r#""never""#),
    ("session_audit", "1000", "1000", "-1"),
    ("session_functions", r#""pin""#, "pin", r#""ask""#),
    ("currval", r#""session""#, "session", r#""server""#),
    ("default_pool_size", "5", "5", r#""many""#),
    ("min_pool_size", "3", "3", "21"),
    ("reserve_pool_size", "4", "4", "1.5"),
    ("pinned_pool_size", "4", "4", "-1"),
    ("reserve_pool_timeout", "1.5", "1.5", "-1"),
    ("max_client_conn", "100", "100", "true"),
    ("max_db_connections", "9", "9", "4294967296"),
    ("max_user_connections", "9", "9", "[]"),
    ("max_db_client_connections", "9", "9", r#""""#),
    ("max_user_client_connections", "9", "9", r#""nine""#),
    ("max_connect_attempts", "1", "1", "0"),
    ("pool_idle_timeout", "60", "60", "-1"),
    ("autodb_idle_timeout", "0", "0", r#""never""#),
    ("server_round_robin", "true", "1", "2"),
    ("server_lifetime", r#""2h""#, "7200", r#""2 hours""#),
    ("server_idle_timeout", "0", "0", r#""soon""#),
    ("server_connect_timeout", r#""500ms""#, "0.5", "true"),
    ("server_login_retry", "1", "1", "nan"),
    ("server_check_delay", "0", "0", "inf"),
    ("server_check_query", r#""select 1""#, "select 1", "1"),
    ("server_reset_query", r#""""#, "", "false"),
    ("server_reset_query_always", "1", "1", r#""maybe""#),
    ("server_fast_close", "true", "1", "2"),
    ("dns_max_ttl", "1", "1", "-1"),
    ("dns_nxdomain_ttl", "0", "0", r#""never""#),
    ("dns_zone_check_period", "0.5", "0.5", "[]"),
    ("route", r#""replica""#, "replica", r#""primry""#),
    ("read_consistency", r#""session""#, "session", r#""strong""#),
    ("causal_wait", r#""5ms""#, "0.005", r#""5 parsecs""#),
    ("max_lag", "2", "2", "-1"),
    ("node_check_interval", "5", "5", "0"),
    ("node_check_timeout", "5", "5", "0.05"),
    ("node_discovery_interval", "15", "15", "0.05"),
    ("failover_hold", "0", "0", r#""ever""#),
    ("query_timeout", "10", "10", r#""-1s""#),
    ("query_wait_timeout", "0", "0", r#""1y""#),
    ("query_wait_notify", "5", "5", "-1"),
    ("transaction_timeout", r#""1d""#, "86400", r#""3651d""#),
    ("idle_transaction_timeout", "10", "10", r#""ms""#),
    ("pinned_idle_timeout", "10", "10", r#""soon""#),
    ("client_idle_timeout", "10", "10", "[1]"),
    ("client_login_timeout", "10", "10", r#""1m""#),
    ("client_write_timeout", "10", "10", "-0.1"),
    ("cancel_wait_timeout", "5", "5", r#""""#),
    ("suspend_timeout", "0", "0", "-1"),
    ("shutdown_timeout", r#""5min""#, "300", "1e300"),
    ("max_prepared_statements", "0", "0", "100001"),
    ("max_packet_size", r#""1MB""#, "1048576", r#""2GB""#),
    ("ignore_startup_parameters", r#""a, b""#, "a,b", "1"),
    ("application_name_add_host", "true", "1", "2"),
    ("login_notify_message", r#""hello""#, "hello", "1"),
    ("disable_pqexec", "true", "1", "2"),
    ("auth_type", r#""MD5""#, "md5", r#""kerberos""#),
    ("auth_hba_file", r#""/hba""#, "/hba", "1"),
    ("auth_ident_file", r#""/ident""#, "/ident", "1"),
    ("auth_ldap_options", r#""x""#, "x", "1"),
    ("auth_pam_service", r#""x""#, "x", "1"),
    ("auth_file", r#""AUTH""#, "AUTH", r#""/nowhere/at/all""#),
    ("auth_user", r#""a""#, "a", "1"),
    ("auth_query", r#""SELECT 1""#, "SELECT 1", "1"),
    ("auth_dbname", r#""app""#, "app", "1"),
    ("auth_query_lifetime", "0", "0", "-1"),
    ("scram_iterations", "1000", "1000", "0"),
    ("admin_users", r#"["u"]"#, "u", "[1]"),
    ("stats_users", r#"["u"]"#, "u", "[[]]"),
    ("client_tls_sslmode", r#""allow""#, "allow", r#""on""#),
    ("client_tls_cert_file", r#""PEM""#, "PEM", r#""/nowhere/at/all""#),
    ("client_tls_key_file", r#""PEM""#, "PEM", r#""/nowhere/at/all""#),
    ("client_tls_ca_file", r#""PEM""#, "PEM", r#""/nowhere/at/all""#),
    ("client_tls_protocols", r#""tlsv1.3""#, "tlsv1.3", "1"),
    ("client_tls_ciphers", r#""HIGH""#, "HIGH", "1"),
    ("client_tls13_ciphers", r#""TLS_AES_256_GCM_SHA384""#, "TLS_AES_256_GCM_SHA384", "1"),
    ("server_tls_sslmode", r#""verify-full""#, "verify-full", r#""full""#),
    ("server_tls_ca_file", r#""PEM""#, "PEM", r#""/tmp""#),
    ("server_tls_cert_file", r#""PEM""#, "PEM", r#""/nowhere/at/all""#),
    ("server_tls_key_file", r#""PEM""#, "PEM", r#""/nowhere/at/all""#),
    ("server_tls_protocols", r#""tlsv1.3""#, "tlsv1.3", "1"),
    ("server_tls_ciphers", r#""HIGH""#, "HIGH", "1"),
    ("server_tls13_ciphers", r#""TLS_AES_256_GCM_SHA384""#, "TLS_AES_256_GCM_SHA384", "1"),
    ("tcp_keepalive", "false", "0", r#""""#),
    ("tcp_keepidle", "10", "10", "1979-05-27"),
    ("tcp_keepintvl", "10", "10", "{}"),
    ("tcp_keepcnt", "3", "3", "128"),
    ("tcp_user_timeout", "0.25", "0.25", "'1,5'"),
    ("pidfile", r#""/run/p.pid""#, "/run/p.pid", "1"),
    ("user", r#""postgres""#, "postgres", "1"),
    ("log_format", r#""json""#, "json", r#""xml""#),
    ("logfile", r#""/var/log/p.log""#, "/var/log/p.log", "true"),
    ("syslog", "true", "1", "2"),
    ("syslog_facility", r#""local3""#, "local3", r#""kernel""#),
    ("syslog_ident", r#""p""#, "p", "1"),
    ("log_level", r#""debug""#, "debug", r#""loud""#),
    ("log_connections", r#""off""#, "0", "1.0"),
    ("log_disconnections", "false", "0", "3"),
    ("log_pooler_errors", "false", "0", "3"),
    ("log_min_duration", r#""250ms""#, "0.25", "-1"),
    ("log_query_sample", "1000", "1000", "1.5"),
    ("log_stats", "0", "0", "-1"),
    ("stats_period", "15", "15", r#""x""#),
    ("query_statistics", "500", "500", "-1"),
    ("metrics_addr", "9127", "127.0.0.1:9127", r#""localhost""#),
    ("status_page", "true", "1", r#""maybe""#),
    ("otlp_endpoint", r#""http://127.0.0.1""#, "http://127.0.0.1:4318", r#""collector:4318""#),
    ("trace_sample", "0", "0", "-1"),
];

#[test]
fn every_default_parses() {
    assert_eq!(check_defaults(), Vec::<String>::new());
}

#[test]
fn every_setting_has_an_example_in_the_order_of_the_table() {
    let names: Vec<_> = SETTINGS.iter().map(|row| row.name).collect();
    let examples: Vec<_> = EXAMPLES.iter().map(|(name, ..)| *name).collect();
    assert_eq!(names, examples);
}

#[test]
fn every_setting_is_read_and_shown_and_leaves_the_others_alone() {
    let dir = Dir::new();
    let pem = dir.file("x.pem", "").display().to_string();
    let auth = dir.file("users.txt", "\"a\" \"b\"\n").display().to_string();
    for (name, literal, shown, _) in EXAMPLES {
        let fill = |text: &str| text.replace("PEM", &pem).replace("AUTH", &auth);
        // What some settings need of others.
        let with = match *name {
            "client_tls_cert_file" => "client_tls_key_file = 'PEM'",
            "client_tls_key_file" => "client_tls_cert_file = 'PEM'",
            "server_tls_cert_file" => "server_tls_key_file = 'PEM'",
            "server_tls_key_file" => "server_tls_cert_file = 'PEM'",
            "status_page" => "metrics_addr = 9127",
            "client_tls_sslmode" => "client_tls_cert_file = 'PEM'\nclient_tls_key_file = 'PEM'",
            _ => "",
        };
        let settings = settings(&fill(&format!("{name} = {literal}\n{with}")));
        for row in settings.rows() {
            if row.key == *name {
                assert_eq!(row.value, Some(fill(shown)), "{name}");
                assert_ne!(row.value, row.default, "{name}: the example is the default");
            } else if !with.contains(row.key) {
                assert_eq!(row.value, row.default, "{name} changes {}", row.key);
            }
        }
    }
}

#[test]
fn every_bad_value_is_refused_in_its_line_by_name_and_with_a_remedy() {
    for (name, .., bad) in EXAMPLES {
        let text = problems(&format!("[pooler]\n\n{name} = {bad}\n{DATABASE}{USER}"));
        let first = text.lines().next().unwrap_or_default();
        assert!(first.starts_with("p.toml:3: "), "{name}: {text}");
        assert!(first.contains(name) || first.contains("/nowhere"), "{name}: {text}");
        assert!(text.lines().nth(1).is_some_and(|line| line.starts_with("  ")), "{name}: {text}");
        assert!(text.lines().filter(|line| line.starts_with("p.toml")).count() <= 2, "{name}: {text}");
    }
}

#[test]
fn what_is_shown_can_be_set_again() {
    let dir = Dir::new();
    let path = dir.file("x.pem", "").display().to_string();
    for (row, (name, _, shown, _)) in SETTINGS.iter().zip(EXAMPLES) {
        let mut settings = Settings::default();
        let value = shown.replace("PEM", &path).replace("AUTH", &path);
        match settings.set(name, &value) {
            Ok(()) => assert_eq!((row.show)(&settings), Some(value), "{name}"),
            Err(error) => {
                assert_eq!(error, SettingError::NeedsRestart { name: row.name });
                assert_eq!(row.change, Change::Restart, "{name}");
                assert_eq!(settings, Settings::default());
            }
        }
    }
}

#[test]
fn set_refuses_what_it_cannot_do_and_changes_nothing() {
    let mut settings = Settings::default();
    let message = |result: Result<(), SettingError>| result.unwrap_err().to_string();
    assert_eq!(
        message(settings.set("defualt_pool_size", "1")),
        "unknown setting \"defualt_pool_size\"; did you mean \"default_pool_size\"?"
    );
    assert_eq!(message(settings.set("colour", "red")), "unknown setting \"colour\"");
    assert_eq!(message(settings.set("listen_port", "1")), "listen_port can only be changed by a restart");
    assert!(message(settings.set("pool_mode", "x")).contains("\"session\", \"transaction\", \"statement\""));
    assert!(message(settings.set("auth_file", "users.txt")).contains("absolute"));
    assert_eq!(settings, Settings::default());
}

#[test]
fn defaults_are_as_documented() {
    let settings = Settings::default();
    assert_eq!(settings.pool_mode, PoolMode::Transaction);
    assert_eq!(settings.auth_type, AuthType::ScramSha256);
    assert_eq!(
        (settings.listen_addr.as_slice(), settings.listen_port),
        (&["127.0.0.1".to_owned()][..], 6432)
    );
    assert_eq!((settings.default_pool_size, settings.max_client_conn), (20, 10_000));
    assert_eq!(settings.server_lifetime, Duration::from_secs(3600));
    assert_eq!(settings.query_wait_timeout, Duration::from_secs(120));
    assert_eq!(settings.max_packet_size, 16 << 20);
    assert_eq!(settings.unix_socket_mode, 0o777);
    assert_eq!(settings.unix_socket_dir, None);
    assert_eq!(settings.server_tls_sslmode, SslMode::Prefer);
}

#[test]
fn times_take_numbers_and_units() {
    for (literal, millis) in [
        ("15", 15_000),
        ("0.25", 250),
        ("\"15\"", 15_000),
        ("\"1.5\"", 1500),
        ("\"500ms\"", 500),
        ("\"250000us\"", 250),
        ("\"15s\"", 15_000),
        ("\"10min\"", 600_000),
        ("\"1.5 h\"", 5_400_000),
        ("\" 1d \"", 86_400_000),
        ("\"3650d\"", 315_360_000_000),
    ] {
        let time = settings(&format!("query_timeout = {literal}")).query_timeout;
        assert_eq!(time, Duration::from_millis(millis), "{literal}");
    }
}
