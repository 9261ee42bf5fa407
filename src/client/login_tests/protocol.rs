//! Encryption requests in every order, negotiation, cancel, pipelining, direct TLS.

use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::stage::{Client, Stage, TempDir, config, password, request, startup, with_tls};
use crate::{
    client::{error::LoginError, login::Opened},
    config::{AuthType, SslMode},
    protocol::{
        BackendKeyData, ProtocolVersion, encode,
        startup::{GSSENC_REQUEST, SSL_REQUEST},
    },
};

const V3: u32 = 3 << 16;
const PLAIN: &[(&str, &str)] = &[("user", "plain"), ("database", "app")];

async fn tls_stage(mode: SslMode) -> (TempDir, Stage) {
    let (dir, mut config) = (TempDir::new(), config(AuthType::Trust));
    with_tls(&mut config, &dir.0, mode);
    let stage = Stage::new(config).await;
    (dir, stage)
}

/// S45: without TLS both requests are declined, in any order, each once.
#[tokio::test]
async fn encryption_requests_are_declined_once_each_in_any_order() {
    let mut stage = Stage::new(config(AuthType::Trust)).await;
    for order in [[SSL_REQUEST, GSSENC_REQUEST], [GSSENC_REQUEST, SSL_REQUEST]] {
        let mut client = stage.connect().await;
        for code in order {
            client.send(&request(code)).await;
            assert_eq!(client.byte().await, b'N');
        }
        client.send(&startup(V3, PLAIN)).await;
        assert_eq!(stage.logged_in().await.user, "plain");
    }
    for code in [SSL_REQUEST, GSSENC_REQUEST] {
        let mut client = stage.connect().await;
        client.send(&request(code)).await;
        assert_eq!(client.byte().await, b'N');
        client.send(&request(code)).await;
        assert_eq!(client.fatal().await.0, "08P01");
        assert!(matches!(stage.failure().await, LoginError::RepeatedRequest));
    }
}

/// H39, S45: bytes stuffed behind an encryption request are refused, not taken for the client's.
#[tokio::test]
async fn clear_bytes_behind_an_encryption_request_are_refused() {
    let (_dir, mut stage) = tls_stage(SslMode::Prefer).await;
    for (code, text) in [
        (SSL_REQUEST, "received unencrypted data after SSL request"),
        (GSSENC_REQUEST, "received unencrypted data after GSSAPI encryption request"),
    ] {
        let mut client = stage.connect().await;
        client.send(&[request(code), startup(V3, PLAIN)].concat()).await;
        assert_eq!(client.fatal().await, ("08P01".to_owned(), text.to_owned()));
        assert!(matches!(stage.failure().await, LoginError::Unencrypted(_)));
    }
}

/// H39: a client that asks for 3.9 with options hears 3.2 and which options are unknown.
#[tokio::test]
async fn newer_protocol_is_negotiated_down() {
    let mut stage = Stage::new(config(AuthType::Plain)).await;
    for (asked, options, spoken, due) in [
        (V3 | 9, "_pq_.x", ProtocolVersion::V3_2, true),
        (V3 | 1, "x", ProtocolVersion::V3_0, true),
        (V3 | 2, "x", ProtocolVersion::V3_2, false),
    ] {
        let mut client = stage.connect().await;
        client.send(&startup(asked, &[("user", "plain"), ("database", "app"), (options, "1")])).await;
        if due {
            let (tag, body) = client.message().await;
            assert_eq!((tag, body.get(..4)), (b'v', Some(&spoken.0.to_be_bytes()[..])));
            assert_eq!(body.ends_with(b"_pq_.x\0"), options == "_pq_.x");
        }
        assert_eq!(client.message().await, (b'R', vec![0, 0, 0, 3]));
        client.send(&password("pencil")).await;
        let done = stage.logged_in().await;
        assert_eq!(done.protocol, spoken);
        assert!(done.unsent.is_empty());
    }
}

#[tokio::test]
async fn bytes_sent_ahead_are_handed_over() {
    let mut stage = Stage::new(config(AuthType::Trust)).await;
    let mut query = Vec::new();
    encode::query(&mut query, "select 1");
    let mut client = stage.connect().await;
    client.send(&[startup(V3 | 1, PLAIN), query.clone()].concat()).await;
    let done = stage.logged_in().await;
    // What the socket still holds the worker will read.
    assert!(query.starts_with(&done.leftover));
    // No authentication message carried the negotiation.
    assert_eq!(done.unsent.first(), Some(&b'v'));
}

#[tokio::test]
async fn cancel_request_is_handed_over_with_its_connection() {
    let mut stage = Stage::new(config(AuthType::ScramSha256)).await;
    for len in [4, 32, 256] {
        let key = BackendKeyData { pid: 4711, secret: vec![7; len].into() };
        let mut packet = Vec::new();
        encode::cancel_request(&mut packet, &key);
        let mut client = stage.connect().await;
        client.send(&packet).await;
        let Ok(Opened::Cancel(cancel)) = stage.outcome().await else { panic!("no cancel") };
        assert_eq!(cancel.key, key);
        // The client waits for the end of the connection, which is ours to choose.
        assert!(client.0.try_read(&mut [0]).is_err());
        drop(cancel);
        assert!(client.closed().await);
    }
}

/// Startup, SCRAM and all arrive byte by byte.
#[tokio::test]
async fn packets_may_arrive_in_pieces() {
    let mut stage = Stage::new(config(AuthType::Plain)).await;
    let mut client = stage.connect().await;
    client.0.set_nodelay(true).unwrap();
    for byte in startup(V3, PLAIN) {
        client.send(&[byte]).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(client.message().await, (b'R', vec![0, 0, 0, 3]));
    for byte in password("pencil") {
        client.send(&[byte]).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(stage.logged_in().await.user, "plain");
}

#[tokio::test]
async fn clear_client_is_refused_where_tls_is_required() {
    let (_dir, mut stage) = tls_stage(SslMode::Require).await;
    let mut client = stage.connect().await;
    client.send(&startup(V3, PLAIN)).await;
    assert_eq!(client.fatal().await, ("28000".to_owned(), "SSL required".to_owned()));
    assert!(matches!(stage.failure().await, LoginError::SslRequired));
}

#[tokio::test]
async fn clear_client_is_served_where_tls_is_optional() {
    let (_dir, mut stage) = tls_stage(SslMode::Prefer).await;
    let mut client = stage.connect().await;
    client.send(&startup(V3, PLAIN)).await;
    assert_eq!(stage.logged_in().await.tls_description, "");
}

async fn tls_client(
    dir: &TempDir,
    client: Client,
    alpn: Option<&[u8]>,
) -> std::io::Result<tokio_rustls::client::TlsStream<tokio::net::TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(dir.0.join("server.crt")).unwrap()).unwrap();
    let mut config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols.extend(alpn.map(<[u8]>::to_vec));
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    connector.connect(ServerName::try_from("localhost").unwrap(), client.0).await
}

/// As in PostgreSQL 17: direct TLS needs ALPN.
#[tokio::test]
async fn direct_tls_needs_alpn() {
    let (dir, mut stage) = tls_stage(SslMode::Require).await;
    let mut stream = tls_client(&dir, stage.connect().await, Some(b"postgresql")).await.unwrap();
    stream.write_all(&startup(V3, PLAIN)).await.unwrap();
    assert!(stage.logged_in().await.tls_description.starts_with("TLSv1.3/"));

    let mut stream = tls_client(&dir, stage.connect().await, None).await.unwrap();
    let mut said = Vec::new();
    let _ = stream.read_to_end(&mut said).await;
    assert!(String::from_utf8_lossy(&said).contains("without ALPN"));
    assert!(matches!(stage.failure().await, LoginError::NoAlpn));

    assert!(tls_client(&dir, stage.connect().await, Some(b"http/1.1")).await.is_err());
    assert!(matches!(stage.failure().await, LoginError::Handshake(_)));
}

#[tokio::test]
async fn ssl_request_inside_tls_is_refused() {
    let (dir, mut stage) = tls_stage(SslMode::Require).await;
    let mut client = stage.connect().await;
    client.send(&request(SSL_REQUEST)).await;
    assert_eq!(client.byte().await, b'S');
    let mut stream = tls_client(&dir, client, None).await.unwrap();
    stream.write_all(&request(SSL_REQUEST)).await.unwrap();
    assert!(matches!(stage.failure().await, LoginError::RepeatedRequest));
}

#[tokio::test]
async fn garbage_instead_of_a_tls_handshake_ends_the_connection() {
    let (_dir, mut stage) = tls_stage(SslMode::Prefer).await;
    let mut client = stage.connect().await;
    client.send(&[0x16, 0x16, 0x16, 0x16, 0x16, 0x16, 0x16, 0x16]).await;
    assert!(matches!(stage.failure().await, LoginError::Handshake(_)));
    let mut client = stage.connect().await;
    client.send(&request(SSL_REQUEST)).await;
    assert_eq!(client.byte().await, b'S');
    client.send(&startup(V3, PLAIN)).await;
    assert!(matches!(stage.failure().await, LoginError::Handshake(_)));
}
