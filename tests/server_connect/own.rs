//! Pooler's own questions at a real PostgreSQL.

use std::time::{Duration, Instant};

use pooler::{
    config::{Settings, SslMode},
    server::{OwnSession, QueryError},
};

use super::postgres::{Cert, Cluster};
use crate::{LIMIT, spec, trusting};

fn text(values: &[&str]) -> Vec<Option<String>> {
    values.iter().map(|value| Some((*value).to_owned())).collect()
}

#[tokio::test]
async fn own_session_answers_over_tls_and_in_clear() {
    let cluster = Cluster::start(Cert::SignedByCa);
    for (mode, tls) in [(SslMode::Disable, "f"), (SslMode::VerifyFull, "t")] {
        let spec = spec(&cluster, mode, &trusting(cluster.file("root.crt")));
        let mut session = OwnSession::connect(&spec).await.unwrap();
        assert_eq!(session.in_hot_standby(), Some(false));
        let rows = session.query("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()", LIMIT).await;
        assert_eq!(rows.unwrap(), [text(&[tls])]);
        // The rows of the last result set; nothing of the ones before.
        let rows =
            session.query("SELECT 1; SELECT x, NULL FROM generate_series(1, 2) x", LIMIT).await.unwrap();
        assert_eq!(rows, [vec![Some("1".to_owned()), None], vec![Some("2".to_owned()), None]]);
        // Rows and replies that are much longer than any message of a login.
        let rows =
            session.query("SELECT repeat('x', 100000) FROM generate_series(1, 50)", LIMIT).await.unwrap();
        assert!(rows.len() == 50 && rows.iter().all(|row| row[0].as_ref().unwrap().len() == 100_000));
        session.close().await;
    }
}

#[tokio::test]
async fn own_session_outlives_errors_and_nothing_else() {
    let cluster = Cluster::start(Cert::None);
    let spec = spec(&cluster, SslMode::Disable, &Settings::default());
    let mut session = OwnSession::connect(&spec).await.unwrap();
    let error = session.query("SELECT 1; SELECT 1/0", LIMIT).await.unwrap_err();
    assert_eq!(error.sqlstate(), Some("22012"));
    assert_eq!(session.query("COPY pg_class TO STDOUT; SELECT 7", LIMIT).await.unwrap(), [text(&["7"])]);
    let copy = "CREATE TEMP TABLE t (x int); COPY t FROM STDIN";
    assert_eq!(session.query(copy, LIMIT).await.unwrap_err().sqlstate(), Some("57014"));
    // A parameter that changes later.
    session.query("SET application_name = 'changed'", LIMIT).await.unwrap();
    assert_eq!(session.parameter("application_name"), Some("changed"));
    assert!(session.is_usable());
    session.query("BEGIN", LIMIT).await.unwrap();
    assert!(!session.is_usable(), "a transaction is open");
    assert!(matches!(session.query("SELECT 1", LIMIT).await, Err(QueryError::Unusable)));
}

#[tokio::test]
async fn own_session_gives_up_in_time_and_notices_its_end() {
    let cluster = Cluster::start(Cert::None);
    let spec = spec(&cluster, SslMode::Disable, &Settings::default());
    let mut session = OwnSession::connect(&spec).await.unwrap();
    let start = Instant::now();
    let error = session.query("SELECT pg_sleep(60)", Duration::from_millis(100)).await.unwrap_err();
    assert!(matches!(error, QueryError::Timeout(_)), "{error}");
    assert!(start.elapsed() < Duration::from_secs(10) && !session.is_usable());

    let mut session = OwnSession::connect(&spec).await.unwrap();
    let error = session.query("SELECT pg_terminate_backend(pg_backend_pid())", LIMIT).await.unwrap_err();
    assert_eq!(error.sqlstate(), Some("57P01"));
    assert!(!session.is_usable());
    drop(cluster);
    assert!(OwnSession::connect(&spec).await.is_err());
}
