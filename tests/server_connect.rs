//! Logins at a real PostgreSQL: every sslmode, every authentication method, cancels.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking; clippy sees only #[test] functions as tests"
)]

mod server_connect {
    mod own;
    pub(crate) mod postgres;
    mod scripted;
}

use std::{sync::Arc, time::Duration};

use pooler::{
    auth::ScramKeys,
    config::{At, Settings, SslMode},
    error::{Report, Secret},
    net::tls::ServerTls,
    protocol::{BackendKeyData, ProtocolVersion},
    server::{
        CancelError, ConnectError, ConnectSpec, Credentials, Failure, Keepalive, ServerAddress, cancel,
        connect,
    },
};
use server_connect::postgres::{Cert, Cluster, Conversation};

const LIMIT: Duration = Duration::from_secs(10);

fn password(text: &str) -> Credentials {
    Credentials::Password(Secret(text.to_owned()))
}

/// A login at `cluster` by name, so that verify-full has one to check.
fn spec(cluster: &Cluster, sslmode: SslMode, settings: &Settings) -> ConnectSpec {
    ConnectSpec {
        address: ServerAddress {
            host: "localhost".to_owned(),
            port: cluster.port,
            at: At::Any,
            sslmode,
            tls: Arc::new(ServerTls::build(settings).unwrap()),
            keepalive: Keepalive {
                enabled: true,
                idle: Duration::from_secs(60),
                interval: Duration::from_secs(5),
                count: 3,
                user_timeout: Duration::from_secs(30),
            },
            names: None,
        },
        user: "trusted".to_owned(),
        database: "postgres".to_owned(),
        credentials: Credentials::None,
        parameters: vec![("application_name".to_owned(), "pooler test".to_owned())],
        connect_query: None,
        timeout: LIMIT,
    }
}

fn trusting(ca: std::path::PathBuf) -> Settings {
    Settings { server_tls_ca_file: Some(ca), ..Settings::default() }
}

/// sslmode, whether the login succeeds, and whether it uses TLS.
async fn outcome(spec: &ConnectSpec, sslmode: SslMode) -> Result<bool, ConnectError> {
    let mut spec = spec.clone();
    spec.address.sslmode = sslmode;
    let login = connect(&spec).await?;
    let tls = login.stream.tls.is_some();
    assert_eq!(tls, login.tls_description.starts_with("TLSv1.3/TLS_"), "{}", login.tls_description);
    let said = Conversation::new(login).query("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()");
    assert_eq!(said, if tls { "t" } else { "f" }, "the server's view differs");
    Ok(tls)
}

#[tokio::test]
async fn every_sslmode_with_a_server_certificate_of_an_authority() {
    let cluster = Cluster::start(Cert::SignedByCa);
    let trusted = spec(&cluster, SslMode::Prefer, &trusting(cluster.file("root.crt")));
    let expected = [
        (SslMode::Disable, false),
        (SslMode::Allow, false),
        (SslMode::Prefer, true),
        (SslMode::Require, true),
        (SslMode::VerifyCa, true),
        (SslMode::VerifyFull, true),
    ];
    for (mode, tls) in expected {
        assert_eq!(outcome(&trusted, mode).await.unwrap(), tls, "{mode:?}");
    }

    // Another authority: only the modes that do not look at it succeed.
    let stranger = spec(&cluster, SslMode::Prefer, &trusting(cluster.file("stranger.crt")));
    assert!(outcome(&stranger, SslMode::Prefer).await.unwrap());
    for mode in [SslMode::Require, SslMode::VerifyCa, SslMode::VerifyFull] {
        let error = outcome(&stranger, mode).await.unwrap_err();
        assert!(matches!(error, ConnectError::Handshake(_)), "{mode:?}: {error}");
        assert_eq!(error.failure(), Failure::Tls);
    }

    // No authority: require takes any certificate.
    let bare = spec(&cluster, SslMode::Prefer, &Settings::default());
    assert!(outcome(&bare, SslMode::Require).await.unwrap());

    // The certificate names localhost, not the address.
    let mut by_address = trusted.clone();
    by_address.address.host = "127.0.0.1".to_owned();
    assert!(outcome(&by_address, SslMode::VerifyCa).await.unwrap());
    let error = outcome(&by_address, SslMode::VerifyFull).await.unwrap_err();
    assert!(matches!(error, ConnectError::Handshake(_)), "{error}");
    // A node that was found at one address of a name has to be who has the name.
    let mut found = trusted.clone();
    found.address.at = At::Ip([127, 0, 0, 1].into());
    assert!(outcome(&found, SslMode::VerifyFull).await.unwrap());
    found.address.host = "elsewhere.example".to_owned();
    assert!(outcome(&found, SslMode::VerifyCa).await.unwrap());
    assert!(matches!(outcome(&found, SslMode::VerifyFull).await, Err(ConnectError::Handshake(_))));
    found.address.at = At::Each;
    assert!(matches!(outcome(&found, SslMode::Disable).await, Err(ConnectError::Resolve { .. })));
}

/// The two recipes of PostgreSQL's documentation, whose certificates webpki does not take.
#[tokio::test]
async fn certificates_made_as_postgresql_teaches_are_verified() {
    for cert in [Cert::SelfSigned, Cert::Version1] {
        let cluster = Cluster::start(cert);
        let ca = if cert == Cert::SelfSigned { "server.crt" } else { "root.crt" };
        let trusted = spec(&cluster, SslMode::Prefer, &trusting(cluster.file(ca)));
        for mode in [SslMode::Prefer, SslMode::Require, SslMode::VerifyCa, SslMode::VerifyFull] {
            assert!(outcome(&trusted, mode).await.unwrap(), "{cert:?} {mode:?}");
        }
        let mut by_address = trusted.clone();
        by_address.address.host = "127.0.0.1".to_owned();
        assert!(outcome(&by_address, SslMode::VerifyCa).await.unwrap());
        assert!(outcome(&by_address, SslMode::VerifyFull).await.is_err(), "{cert:?}");

        let stranger = spec(&cluster, SslMode::Prefer, &trusting(cluster.file("stranger.crt")));
        assert!(outcome(&stranger, SslMode::VerifyCa).await.is_err(), "{cert:?}");
        // Same subject as the true authority, other key.
        let impostor = spec(&cluster, SslMode::Prefer, &trusting(cluster.file("impostor.crt")));
        assert!(outcome(&impostor, SslMode::VerifyCa).await.is_err(), "{cert:?}");
    }
}

#[tokio::test]
async fn expired_certificate_is_refused_even_if_it_is_listed() {
    let cluster = Cluster::start(Cert::Expired);
    let trusted = spec(&cluster, SslMode::Prefer, &trusting(cluster.file("server.crt")));
    assert!(outcome(&trusted, SslMode::VerifyCa).await.is_err());
    // As libpq: without verification, any certificate does.
    assert!(outcome(&trusted, SslMode::Prefer).await.unwrap());
}

#[tokio::test]
async fn server_without_tls_is_used_in_clear_text_only_if_sslmode_allows() {
    let cluster = Cluster::start(Cert::None);
    let spec = spec(&cluster, SslMode::Prefer, &Settings::default());
    for mode in [SslMode::Disable, SslMode::Allow, SslMode::Prefer] {
        assert!(!outcome(&spec, mode).await.unwrap(), "{mode:?}");
    }
    let error = outcome(&spec, SslMode::Require).await.unwrap_err();
    assert!(matches!(error, ConnectError::TlsRefused));
    assert_eq!((error.message().as_str(), error.sqlstate()), ("server refused SSL", "08001"));
}

/// pg_hba.conf has `hostssl` and `hostnossl` lines: allow and prefer find the one that fits.
#[tokio::test]
async fn allow_and_prefer_try_the_other_way_when_pg_hba_wants_it() {
    let cluster = Cluster::start(Cert::SignedByCa);
    let mut only_tls = spec(&cluster, SslMode::Allow, &Settings::default());
    only_tls.user = "only_tls".to_owned();
    assert!(outcome(&only_tls, SslMode::Allow).await.unwrap());
    let error = outcome(&only_tls, SslMode::Disable).await.unwrap_err();
    let ConnectError::Refused(refusal) = &error else { panic!("{error}") };
    assert_eq!(refusal.sqlstate(), Some("28000"));
    assert!(refusal.before_authentication);

    let mut only_clear = spec(&cluster, SslMode::Prefer, &Settings::default());
    only_clear.user = "only_clear".to_owned();
    assert!(!outcome(&only_clear, SslMode::Prefer).await.unwrap());
    assert!(outcome(&only_clear, SslMode::Require).await.is_err());
}

#[tokio::test]
async fn client_certificate_logs_in() {
    let cluster = Cluster::start(Cert::SignedByCa);
    let mut settings = trusting(cluster.file("root.crt"));
    let mut without = spec(&cluster, SslMode::VerifyFull, &settings);
    without.user = "by_cert".to_owned();
    let error = connect(&without).await.unwrap_err();
    assert_eq!(error.failure(), Failure::Server, "{error}");

    settings.server_tls_cert_file = Some(cluster.file("by_cert.crt"));
    settings.server_tls_key_file = Some(cluster.file("by_cert.key"));
    let mut with = spec(&cluster, SslMode::VerifyFull, &settings);
    with.user = "by_cert".to_owned();
    assert!(outcome(&with, SslMode::VerifyFull).await.unwrap());
}

#[tokio::test]
async fn every_authentication_method_with_and_without_tls() {
    let cluster = Cluster::start(Cert::SignedByCa);
    for sslmode in [SslMode::Disable, SslMode::Require] {
        for user in ["by_password", "by_md5", "by_scram"] {
            let mut spec = spec(&cluster, sslmode, &Settings::default());
            spec.user = user.to_owned();
            spec.credentials = password("open sesame");
            let login = connect(&spec).await.unwrap_or_else(|e| panic!("{user} {sslmode:?}: {e}"));
            assert_eq!(Conversation::new(login).query("SELECT current_user"), user);

            spec.credentials = password("wrong");
            let error = connect(&spec).await.unwrap_err();
            let ConnectError::Refused(refusal) = &error else { panic!("{user}: {error}") };
            assert_eq!(refusal.sqlstate(), Some("28P01"), "{user}");
            assert_eq!(error.failure(), Failure::Server);
        }
    }
}

#[tokio::test]
async fn scram_keys_and_md5_hashes_log_in_without_the_password() {
    let cluster = Cluster::start(Cert::SignedByCa);
    for sslmode in [SslMode::Disable, SslMode::Require] {
        let mut spec = spec(&cluster, sslmode, &Settings::default());
        spec.user = "by_scram".to_owned();
        spec.credentials = Credentials::Scram(keys_of(&cluster, "by_scram", "open sesame").await);
        connect(&spec).await.unwrap();
        spec.credentials = Credentials::Scram(keys_of(&cluster, "by_scram", "another").await);
        assert!(connect(&spec).await.is_err());

        spec.user = "by_md5".to_owned();
        let stored = pooler::auth::md5::stored("by_md5", "open sesame");
        spec.credentials = Credentials::Md5(Secret(stored));
        connect(&spec).await.unwrap();
    }
}

/// The keys that a client with this password proves against the secret that the server has stored.
async fn keys_of(cluster: &Cluster, user: &str, password: &str) -> ScramKeys {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let mut spec = spec(cluster, SslMode::Disable, &Settings::default());
    spec.user = "postgres".to_owned();
    spec.address.host = cluster.socket_dir();
    let sql = format!("SELECT rolpassword FROM pg_authid WHERE rolname = '{user}'");
    let secret = Conversation::new(connect(&spec).await.unwrap()).query(&sql);
    let (iterations, rest) = secret.strip_prefix("SCRAM-SHA-256$").unwrap().split_once(':').unwrap();
    let salt = STANDARD.decode(rest.split_once('$').unwrap().0).unwrap();
    let mut salted = [0; 32];
    let iterations = iterations.parse().unwrap();
    ring::pbkdf2::derive(
        ring::pbkdf2::PBKDF2_HMAC_SHA256,
        iterations,
        &salt,
        password.as_bytes(),
        &mut salted,
    );
    let key = |label: &str| {
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &salted);
        ring::hmac::sign(&key, label.as_bytes()).as_ref().try_into().unwrap()
    };
    ScramKeys { client_key: key("Client Key"), server_key: key("Server Key") }
}

#[tokio::test]
async fn wrong_kind_of_secret_is_told_apart_from_a_wrong_one() {
    let cluster = Cluster::start(Cert::SignedByCa);
    let md5 = || Credentials::Md5(Secret(pooler::auth::md5::stored("x", "y")));
    for (user, credentials) in [
        ("by_password", Credentials::None),
        ("by_password", md5()),
        ("by_md5", Credentials::None),
        ("by_scram", md5()),
        ("by_scram", Credentials::None),
    ] {
        let mut spec = spec(&cluster, SslMode::Disable, &Settings::default());
        spec.user = user.to_owned();
        spec.credentials = credentials;
        let error = connect(&spec).await.unwrap_err();
        assert!(matches!(error, ConnectError::WrongSecret { .. }), "{user}: {error}");
        assert_eq!(error.message(), "server login failed: wrong password type");
        assert_eq!(error.failure(), Failure::Credentials);
        assert!(error.detail().is_some() && error.hint().is_some());
    }
}

#[tokio::test]
async fn unix_socket_ignores_sslmode() {
    let cluster = Cluster::start(Cert::None);
    let mut spec = spec(&cluster, SslMode::VerifyFull, &trusting(cluster.file("root.crt")));
    spec.address.host = cluster.socket_dir();
    let login = connect(&spec).await.unwrap();
    assert_eq!((login.peer.clone(), login.peer_port), (cluster.socket_dir(), cluster.port));
    assert_eq!(Conversation::new(login).query("SELECT 1"), "1");
}

#[tokio::test]
async fn session_starts_with_the_parameters_that_were_asked_for() {
    let cluster = Cluster::start(Cert::None);
    let mut spec = spec(&cluster, SslMode::Disable, &Settings::default());
    spec.parameters.push(("TimeZone".to_owned(), "Asia/Tokyo".to_owned()));
    spec.connect_query = Some("SET application_name = 'by connect_query'; SELECT 1/0".to_owned());
    let login = connect(&spec).await.unwrap();
    let parameter = |name: &str| login.parameters.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
    assert_eq!(parameter("TimeZone"), Some("Asia/Tokyo"));
    assert!(parameter("server_version").is_some());
    assert_eq!(parameter("application_name"), Some("pooler test"), "the failed query was rolled back");
    assert_eq!(login.protocol, ProtocolVersion::V3_0, "PostgreSQL 15 speaks no 3.2");
    assert_eq!(login.key.secret.len(), 4);
    assert!(login.leftover.is_empty());
    let pid = login.key.pid.to_string();
    assert_eq!(Conversation::new(login).query("SELECT pg_backend_pid()"), pid);

    spec.connect_query = Some("BEGIN".to_owned());
    assert!(matches!(connect(&spec).await, Err(ConnectError::OpenTransaction)));
}

#[tokio::test]
async fn refusal_of_the_server_keeps_its_sqlstate_and_message() {
    let cluster = Cluster::start(Cert::None);
    let mut spec = spec(&cluster, SslMode::Disable, &Settings::default());
    spec.database = "missing".to_owned();
    let error = connect(&spec).await.unwrap_err();
    assert_eq!(error.message(), "database \"missing\" does not exist");
    let mut bytes = Vec::new();
    error.write(&mut bytes, pooler::protocol::encode::Severity::Fatal);
    assert_eq!(pooler::protocol::backend::error_field(&bytes[5..], b'C'), Some(&b"3D000"[..]));
}

#[tokio::test]
async fn unreachable_servers_do_not_look_like_refusals() {
    let cluster = Cluster::start(Cert::None);
    let mut spec = spec(&cluster, SslMode::Prefer, &Settings::default());
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    spec.address.port = unused;
    let refused = connect(&spec).await.unwrap_err();
    assert!(matches!(refused, ConnectError::Network { kind: std::io::ErrorKind::ConnectionRefused, .. }));
    spec.address.host = "no-such-host.invalid".to_owned();
    let unknown = connect(&spec).await.unwrap_err();
    assert!(matches!(unknown, ConnectError::Resolve { .. }), "{unknown}");
    spec.address.host = "/nowhere".to_owned();
    let missing = connect(&spec).await.unwrap_err();
    for error in [refused, unknown, missing] {
        assert_eq!((error.failure(), error.sqlstate()), (Failure::Unreachable, "08001"), "{error}");
    }
}

#[tokio::test]
async fn cancel_ends_the_query_over_clear_text_tls_and_unix_socket() {
    let cluster = Cluster::start(Cert::SignedByCa);
    for (sslmode, unix) in [(SslMode::Disable, false), (SslMode::VerifyFull, false), (SslMode::Disable, true)]
    {
        let mut spec = spec(&cluster, sslmode, &trusting(cluster.file("root.crt")));
        if unix {
            spec.address.host = cluster.socket_dir();
        }
        let login = connect(&spec).await.unwrap();
        let (target, key) = (login.cancel_target.clone(), login.key.clone());
        let sleeper =
            tokio::task::spawn_blocking(move || Conversation::new(login).error("SELECT pg_sleep(60)"));

        let mut watcher = Conversation::new(connect(&spec).await.unwrap());
        let running = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE pid = {} AND state = 'active' AND query LIKE '%pg_sleep%'",
            key.pid
        );
        let deadline = std::time::Instant::now() + LIMIT;
        while watcher.query(&running) != "1" {
            assert!(std::time::Instant::now() < deadline, "the query never started");
        }

        let wrong = BackendKeyData { pid: key.pid, secret: vec![0; key.secret.len()].into() };
        cancel(&target, &wrong, LIMIT).await.unwrap();
        assert_eq!(watcher.query(&running), "1", "a wrong key cancels nothing");
        cancel(&target, &key, LIMIT).await.unwrap();
        assert_eq!(sleeper.await.unwrap(), "57014");

        let none = BackendKeyData { pid: 0, secret: Box::default() };
        assert!(matches!(cancel(&target, &none, LIMIT).await, Err(CancelError::NoKey)));
    }
}
