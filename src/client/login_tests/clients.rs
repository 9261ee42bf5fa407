//! Real clients, every method, every kind of secret, with and without TLS.

use std::process::Stdio;

use super::stage::{Stage, TempDir, config, serve, with_tls};
use crate::{
    client::ConsoleRight,
    config::{AuthType, PeerAddr, SslMode},
};

/// Runs psql to the end while the stage serves it. Gives what it said on failure.
async fn psql(port: u16, conninfo: &str) -> Result<(), String> {
    let output = tokio::process::Command::new("psql")
        .arg(format!("hostaddr=127.0.0.1 host=localhost port={port} connect_timeout=15 {conninfo}"))
        .args(["-X", "-w", "-c", "select 1"])
        .env("PGPASSWORD", "pencil")
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

#[tokio::test]
async fn psql_logs_in_by_every_method() {
    for (auth_type, users) in [
        (AuthType::Trust, &["plain", "md5", "scram", "nobody"][..]),
        (AuthType::Plain, &["plain", "md5", "scram"]),
        (AuthType::Md5, &["plain", "md5", "scram"]),
        (AuthType::ScramSha256, &["plain", "scram"]),
    ] {
        let mut stage = Stage::new(config(auth_type)).await;
        for user in users {
            let conninfo = format!("user={user} dbname=app sslmode=disable");
            let (said, client) = tokio::join!(psql(stage.address.port(), &conninfo), async {
                serve(stage.logged_in().await).await
            });
            assert_eq!(said, Ok(()), "{auth_type:?} {user}");
            assert_eq!(client.user, *user);
            assert_eq!(client.database.as_ref().unwrap().name, "app");
            assert_eq!(client.console, None);
            let sent_in_clear = client.password.as_ref().map(|secret| secret.0.as_str());
            assert_eq!(sent_in_clear, (auth_type == AuthType::Plain).then_some("pencil"));
            let by_scram = matches!(auth_type, AuthType::Md5 | AuthType::ScramSha256) && *user == "scram";
            assert_eq!(client.scram_keys.is_some(), by_scram, "{auth_type:?} {user}");
        }
    }
}

/// S45: a client that offers channel binding, or insists on it, works; so does one that refuses it.
#[tokio::test]
async fn psql_logs_in_over_tls_with_and_without_channel_binding() {
    let (dir, mut config) = (TempDir::new(), config(AuthType::ScramSha256));
    with_tls(&mut config, &dir.0, SslMode::Require);
    let mut stage = Stage::new(config).await;
    let ca = dir.0.join("server.crt");
    for user in ["plain", "scram"] {
        for conninfo in [
            "sslmode=require channel_binding=require".to_owned(),
            "sslmode=require channel_binding=disable".to_owned(),
            format!("sslmode=verify-full sslrootcert={}", ca.display()),
        ] {
            let conninfo = format!("user={user} dbname=app {conninfo}");
            let (said, client) = tokio::join!(psql(stage.address.port(), &conninfo), async {
                serve(stage.logged_in().await).await
            });
            assert_eq!(said, Ok(()), "{conninfo}");
            assert_eq!(client.tls_description, "TLSv1.3/TLS_AES_256_GCM_SHA384");
            assert!(client.stream.tls.is_some());
        }
    }
}

#[tokio::test]
async fn tokio_postgres_logs_in_and_its_parameters_arrive() {
    let mut stage = Stage::new(config(AuthType::ScramSha256)).await;
    let mut settings = tokio_postgres::Config::new();
    settings.host("127.0.0.1").port(stage.address.port()).user("scram").password("pencil").dbname("app");
    settings.application_name("a test").options("-c search_path=a,b");
    let (connected, client) = tokio::join!(
        async {
            // Dropping both ends the connection, and with it the stand-in.
            settings.connect(tokio_postgres::NoTls).await.map(|_| ())
        },
        async { serve(stage.logged_in().await).await }
    );
    connected.unwrap();
    let parameter = |name: &str| {
        client.parameters.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    };
    assert_eq!(client.parameters.first().map(|(name, _)| name.as_str()), Some("search_path"));
    assert_eq!(parameter("search_path"), Some("a,b"));
    assert_eq!(parameter("application_name"), Some("a test"));
    assert!(matches!(client.peer, PeerAddr::Tcp { local, .. } if local == stage.address));
    // Counted while it lives, and not after.
    let limits = &stage.context.shared.limits;
    assert_eq!((limits.clients(), limits.of_database("app"), limits.of_user("scram")), (1, 1, 1));
    drop(client);
    assert_eq!((limits.clients(), limits.of_database("app"), limits.of_user("scram")), (0, 0, 0));
}

#[tokio::test]
async fn console_rights_follow_admin_users_and_stats_users() {
    let mut stage = Stage::new(config(AuthType::Md5)).await;
    for (user, database, right) in [
        ("plain", "pooler", Some(ConsoleRight::Admin)),
        ("plain", "pgbouncer", Some(ConsoleRight::Admin)),
        ("md5", "pooler", Some(ConsoleRight::Stats)),
        ("scram", "pooler", None),
    ] {
        let conninfo = format!("user={user} dbname={database}");
        let (said, outcome) = tokio::join!(psql(stage.address.port(), &conninfo), async {
            match stage.outcome().await {
                Ok(super::super::Opened::LoggedIn(client)) => Ok(serve(client).await),
                other => Err(other),
            }
        });
        match (outcome, right) {
            (Ok(client), Some(right)) => {
                assert_eq!(said, Ok(()));
                assert!(client.database.is_none());
                assert_eq!((client.console, client.database_name.as_str()), (Some(right), database));
            }
            (Err(_), None) => assert!(said.unwrap_err().contains("FATAL:  not allowed")),
            other => panic!("{user} {database}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn owner_of_the_process_reaches_the_console_through_the_unix_socket() {
    let (dir, mut stage) = (TempDir::new(), Stage::new(config(AuthType::ScramSha256)).await);
    stage.listen_unix(&dir.0.join(".s.PGSQL.6432"));
    let run = |user: &str| {
        let conninfo = format!("host={} port=6432 user={user} dbname=pooler", dir.0.display());
        let mut command = tokio::process::Command::new("psql");
        command.args([conninfo.as_str(), "-X", "-w", "-c", "select 1"]).stdin(Stdio::null());
        async move { command.output().await.unwrap() }
    };
    let (output, client) = tokio::join!(run("pgbouncer"), async { serve(stage.logged_in().await).await });
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(client.console, Some(ConsoleRight::Admin));
    assert!(matches!(client.peer, PeerAddr::Unix { .. }));
    // Anybody else has to prove who they are, there too.
    let (output, _) = tokio::join!(run("plain"), stage.failure());
    assert!(!output.status.success());
}
