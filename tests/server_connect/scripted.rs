//! Servers that follow a script: what real ones seldom do.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::Arc,
    thread,
    time::Duration,
};

use pooler::{
    config::{At, Settings, SslMode},
    error::{Report, Secret},
    net::tls::ServerTls,
    protocol::{BackendKeyData, ProtocolVersion, encode},
    server::{
        ConnectError, ConnectSpec, Credentials, Failure, Keepalive, ServerAddress, ServerLogin, connect,
    },
};

/// Serves one connection after the other, each by the next script.
fn serve(scripts: Vec<fn(&mut TcpStream)>) -> ConnectSpec {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for script in scripts {
            let (mut socket, _) = listener.accept().unwrap();
            script(&mut socket);
            // Until the client is done, so that no reset overtakes the answer.
            let _ = socket.shutdown(std::net::Shutdown::Write);
            let _ = socket.read_to_end(&mut Vec::new());
        }
    });
    ConnectSpec {
        address: ServerAddress {
            host: "127.0.0.1".to_owned(),
            port,
            at: At::Any,
            sslmode: SslMode::Disable,
            tls: Arc::new(ServerTls::build(&Settings::default()).unwrap()),
            keepalive: Keepalive::default(),
            names: None,
        },
        user: "somebody".to_owned(),
        database: "somewhere".to_owned(),
        credentials: Credentials::Password(Secret("secret".to_owned())),
        parameters: Vec::new(),
        connect_query: None,
        timeout: Duration::from_secs(10),
    }
}

/// Reads a packet without a tag and gives its first number.
fn read_startup(socket: &mut TcpStream) -> u32 {
    let mut length = [0; 4];
    socket.read_exact(&mut length).unwrap();
    let mut body = vec![0; u32::from_be_bytes(length) as usize - 4];
    socket.read_exact(&mut body).unwrap();
    u32::from_be_bytes(body[..4].try_into().unwrap())
}

fn notice() -> Vec<u8> {
    let mut out = Vec::new();
    encode::error(&mut out, encode::Severity::Notice, "00000", "hello", None, None);
    out
}

/// AuthenticationOk and ReadyForQuery, and in between what `middle` writes.
fn welcome(middle: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encode::authentication_ok(&mut out);
    out.extend_from_slice(middle);
    encode::ready_for_query(&mut out, b'I');
    out
}

async fn log_in(scripts: Vec<fn(&mut TcpStream)>) -> Result<ServerLogin, ConnectError> {
    let spec = serve(scripts);
    // Spawned, so that the future is known to be Send.
    tokio::spawn(async move { connect(&spec).await }).await.unwrap()
}

#[tokio::test]
async fn notices_during_login_are_passed_over() {
    let login = log_in(vec![|socket| {
        read_startup(socket);
        socket.write_all(&[notice(), welcome(&notice())].concat()).unwrap();
    }]);
    let login = login.await.unwrap();
    assert_eq!((login.key.pid, login.key.secret.len()), (0, 0), "no BackendKeyData was sent");
}

#[tokio::test]
async fn bytes_behind_ready_for_query_are_handed_over() {
    let login = log_in(vec![|socket| {
        read_startup(socket);
        let mut late = Vec::new();
        encode::parameter_status(&mut late, "in_hot_standby", "on");
        socket.write_all(&[welcome(&[]), late].concat()).unwrap();
    }]);
    let mut late = Vec::new();
    encode::parameter_status(&mut late, "in_hot_standby", "on");
    assert_eq!(login.await.unwrap().leftover, late);
}

#[tokio::test]
async fn protocol_3_2_is_asked_for_and_its_long_keys_are_taken() {
    let login = log_in(vec![|socket| {
        assert_eq!(read_startup(socket), ProtocolVersion::V3_2.0);
        let mut middle = Vec::new();
        encode::backend_key_data(&mut middle, &BackendKeyData { pid: 7, secret: vec![9; 256].into() });
        socket.write_all(&welcome(&middle)).unwrap();
    }]);
    let login = login.await.unwrap();
    assert_eq!((login.key.pid, login.key.secret.len()), (7, 256));
    assert_eq!(login.protocol, ProtocolVersion::V3_2);
}

#[tokio::test]
async fn server_that_refuses_3_2_is_asked_for_3_0() {
    let login = log_in(vec![
        |socket| {
            read_startup(socket);
            let mut out = Vec::new();
            let text = "unsupported frontend protocol 3.2: server supports 1.0 to 3.0";
            encode::error(&mut out, encode::Severity::Fatal, "0A000", text, None, None);
            socket.write_all(&out).unwrap();
        },
        |socket| {
            assert_eq!(read_startup(socket), ProtocolVersion::V3_0.0);
            socket.write_all(&welcome(&[])).unwrap();
        },
    ]);
    assert_eq!(login.await.unwrap().protocol, ProtocolVersion::V3_0);
}

/// S13.
#[tokio::test]
async fn error_without_sqlstate_gets_one_on_its_way_to_clients() {
    let error = log_in(vec![|socket| {
        read_startup(socket);
        let mut out = Vec::new();
        encode::authentication(&mut out, 3, &[]);
        encode::message(&mut out, b'E', |b| b.extend_from_slice(b"SFATAL\0Mno such thing\0Dreally\0\0"));
        socket.write_all(&out).unwrap();
    }]);
    let error = error.await.unwrap_err();
    assert_eq!((error.failure(), error.message().as_str()), (Failure::Server, "no such thing"));
    let mut out = Vec::new();
    error.write(&mut out, encode::Severity::Fatal);
    assert_eq!(&out[5..], b"SFATAL\0VFATAL\0C08004\0Mno such thing\0Dreally\0\0");
}

/// A server must prove that it knows the secret, too.
#[tokio::test]
async fn server_that_skips_its_scram_proof_is_refused() {
    let error = log_in(vec![|socket| {
        read_startup(socket);
        let mut out = Vec::new();
        encode::authentication(&mut out, 10, b"SCRAM-SHA-256\0\0");
        out.extend_from_slice(&welcome(&[]));
        socket.write_all(&out).unwrap();
    }]);
    let error = error.await.unwrap_err();
    assert_eq!(error.message(), "server login failed: invalid server signature");
}

#[tokio::test]
async fn nonsense_of_a_server_ends_in_an_error() {
    let scripts: [fn(&mut TcpStream); 7] = [
        |socket| socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap(),
        |socket| socket.write_all(b"R\0\0\0\x03").unwrap(),
        |socket| socket.write_all(b"R\x7f\xff\xff\xff").unwrap(),
        |socket| socket.write_all(b"R\0\0\0\x06\0\0").unwrap(),
        |socket| socket.write_all(b"R\0\0\0\x08\0\0\0\x00K\0\0\0\x08\0\0\0\x01").unwrap(),
        |socket| socket.write_all(b"R\0\0\0\x08\0\0\0\x00S\0\0\0\x06ab").unwrap(),
        |socket| socket.write_all(b"Z\0\0\0\x05I").unwrap(),
    ];
    for script in scripts {
        let error = log_in(vec![script]).await.unwrap_err();
        assert!(matches!(error, ConnectError::Protocol(_)), "{error}");
    }
    let closed = log_in(vec![|socket| {
        read_startup(socket);
    }]);
    assert!(matches!(closed.await.unwrap_err(), ConnectError::Closed));
}

/// CVE-2021-23222: what stands in clear text behind the answer to SSLRequest is not taken for the server's.
#[tokio::test]
async fn bytes_behind_the_answer_to_ssl_request_fail_the_handshake() {
    let mut spec = serve(vec![|socket| {
        read_startup(socket);
        socket.write_all(&[b"S".as_slice(), &welcome(&[])].concat()).unwrap();
    }]);
    spec.address.sslmode = SslMode::Require;
    assert!(matches!(connect(&spec).await.unwrap_err(), ConnectError::Handshake(_)));
}

/// As libpq does with sslmode prefer; require does not.
#[tokio::test]
async fn failed_handshake_is_followed_by_clear_text_only_with_prefer() {
    let break_handshake: fn(&mut TcpStream) = |socket| {
        read_startup(socket);
        socket.write_all(b"Snonsense, not TLS").unwrap();
    };
    let mut spec = serve(vec![break_handshake, |socket| {
        read_startup(socket);
        socket.write_all(&welcome(&[])).unwrap();
    }]);
    spec.address.sslmode = SslMode::Prefer;
    assert!(connect(&spec).await.unwrap().stream.tls.is_none());

    let mut spec = serve(vec![break_handshake]);
    spec.address.sslmode = SslMode::Require;
    assert!(matches!(connect(&spec).await.unwrap_err(), ConnectError::Handshake(_)));
}

#[tokio::test]
async fn silent_server_costs_no_more_than_the_timeout() {
    let mut spec = serve(vec![|_| thread::park()]);
    spec.timeout = Duration::from_millis(50);
    let error = connect(&spec).await.unwrap_err();
    assert!(matches!(error, ConnectError::Timeout { .. }));
    assert_eq!(error.failure(), Failure::Unreachable);
}
