//! A listener that takes every connection through `login`, and a stand-in for the worker that follows.

use std::{
    io::{Read, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixListener},
    sync::mpsc,
};

use super::super::*;
use crate::{
    auth::md5,
    config::{AuthType, Settings},
    error::Secret,
    net::{Socket, Stream},
    protocol::{
        backend, encode,
        frame::{HEADER, Header},
    },
};

/// The longest that a test waits for something that should come at once.
const PATIENCE: Duration = Duration::from_secs(20);

/// SCRAM secret of `pencil` (RFC 7677).
const SCRAM: &str = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:\
                     wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

/// Users `plain`, `md5` and `scram`, all with the password `pencil`; `nobody` has none; database `app`.
pub(super) fn config(auth_type: AuthType) -> Config {
    let settings = Settings {
        auth_type,
        max_client_conn: 100,
        scram_iterations: 4096,
        client_login_timeout: PATIENCE,
        admin_users: vec!["plain".to_owned()],
        stats_users: vec!["md5".to_owned()],
        ..Settings::default()
    };
    let mut config = Config { settings, ..Config::default() };
    let md5 = md5::stored("md5", "pencil");
    for (name, password) in
        [("plain", Some("pencil")), ("md5", Some(md5.as_str())), ("scram", Some(SCRAM)), ("nobody", None)]
    {
        let password = password.map(|text| Secret(text.to_owned()));
        let user = User { name: name.to_owned(), password, ..User::default() };
        config.users.insert(name.to_owned(), Arc::new(user));
    }
    config
        .databases
        .insert("app".to_owned(), Arc::new(Database { name: "app".to_owned(), ..Database::default() }));
    config
}

/// A directory of its own, removed at the end.
pub(super) struct TempDir(pub(super) PathBuf);

impl TempDir {
    pub(super) fn new() -> Self {
        let name = format!("pooler-login-{}-{:?}", std::process::id(), std::thread::current().id());
        let path = std::env::temp_dir().join(name.replace(['(', ')'], ""));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A self-signed certificate for `localhost`; switches TLS on in `config`.
pub(super) fn with_tls(config: &mut Config, dir: &Path, mode: SslMode) {
    let (cert, key) = (dir.join("server.crt"), dir.join("server.key"));
    let status = std::process::Command::new("openssl")
        .args(["req", "-new", "-x509", "-days", "2", "-nodes", "-newkey", "ec"])
        .args(["-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj", "/CN=localhost"])
        .args(["-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE"])
        .args([
            std::ffi::OsStr::new("-keyout"),
            key.as_os_str(),
            std::ffi::OsStr::new("-out"),
            cert.as_os_str(),
        ])
        .stderr(std::process::Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    config.settings.client_tls_sslmode = mode;
    config.settings.client_tls_cert_file = Some(cert);
    config.settings.client_tls_key_file = Some(key);
}

/// The running listener.
pub(super) struct Stage {
    pub(super) address: SocketAddr,
    pub(super) context: LoginContext,
    outcomes: mpsc::UnboundedReceiver<Result<Opened, LoginError>>,
}

impl Stage {
    /// Listens on TCP; `greet`: logged-in clients are answered by the stand-in of a worker.
    pub(super) async fn new(config: Config) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tls = ClientTls::build(&config.settings).unwrap().map(Arc::new);
        let shared = Arc::new(LoginShared::new().unwrap());
        let server_tls = Arc::new(ServerTls::build(&config.settings).unwrap());
        let context = LoginContext { config: Arc::new(config), tls, server_tls, shared };
        let (sender, outcomes) = mpsc::unbounded_channel();
        let stage = Self { address: listener.local_addr().unwrap(), context: context.clone(), outcomes };
        tokio::spawn(async move {
            while let Ok((socket, peer)) = listener.accept().await {
                let (context, sender) = (context.clone(), sender.clone());
                tokio::spawn(async move {
                    let _ = sender.send(login(Accepted::tcp(socket, peer).unwrap(), &context).await);
                });
            }
        });
        stage
    }

    /// Listens on a unix socket as well; its outcomes come the same way.
    pub(super) fn listen_unix(&mut self, path: &Path) {
        let listener = UnixListener::bind(path).unwrap();
        let (sender, outcomes) = mpsc::unbounded_channel();
        self.outcomes = outcomes;
        let context = self.context.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (context, sender) = (context.clone(), sender.clone());
                tokio::spawn(async move {
                    let _ = sender.send(login(Accepted::unix(socket).unwrap(), &context).await);
                });
            }
        });
    }

    pub(super) async fn outcome(&mut self) -> Result<Opened, LoginError> {
        tokio::time::timeout(PATIENCE, self.outcomes.recv()).await.expect("no login in time").unwrap()
    }

    pub(super) async fn logged_in(&mut self) -> Box<LoggedIn> {
        match self.outcome().await {
            Ok(Opened::LoggedIn(client)) => client,
            other => panic!("not logged in: {other:?}"),
        }
    }

    pub(super) async fn failure(&mut self) -> LoginError {
        self.outcome().await.expect_err("login should have failed")
    }

    pub(super) async fn connect(&self) -> Client {
        Client(TcpStream::connect(self.address).await.unwrap())
    }
}

/// Does what a worker does first, and answers each query with an empty reply until the client leaves.
/// Gives the client back for a look at it.
pub(super) async fn serve(mut client: Box<LoggedIn>) -> Box<LoggedIn> {
    let work = move || {
        let mut out = std::mem::take(&mut client.unsent);
        encode::authentication_ok(&mut out);
        encode::parameter_status(&mut out, "server_version", "15.0");
        encode::parameter_status(&mut out, "client_encoding", "UTF8");
        encode::ready_for_query(&mut out, b'I');
        let mut stream = Blocking(&mut client.stream);
        stream.write_all(&out).unwrap();
        loop {
            let mut header = [0; HEADER];
            if stream.read_exact(&mut header).is_err() {
                break;
            }
            let header = Header::peek(&header).unwrap();
            let mut body = vec![0; header.total() - HEADER];
            stream.read_exact(&mut body).unwrap();
            if header.tag != b'Q' {
                break;
            }
            let mut reply = Vec::new();
            encode::message(&mut reply, backend::EMPTY_QUERY_RESPONSE, |_| {});
            encode::ready_for_query(&mut reply, b'I');
            stream.write_all(&reply).unwrap();
        }
        client
    };
    tokio::task::spawn_blocking(work).await.unwrap()
}

/// A handed-over stream, used with blocking calls.
struct Blocking<'a>(&'a mut Stream);

impl Blocking<'_> {
    fn with<T>(&mut self, act: impl Fn(&mut dyn ReadWrite) -> std::io::Result<T>) -> std::io::Result<T> {
        match &mut self.0.socket {
            Socket::Tcp(socket) => {
                socket.set_nonblocking(false).unwrap();
                socket.set_read_timeout(Some(PATIENCE)).unwrap();
                match &mut self.0.tls {
                    None => act(socket),
                    Some(tls) => match &mut **tls {
                        rustls::Connection::Server(session) => act(&mut rustls::Stream::new(session, socket)),
                        rustls::Connection::Client(_) => panic!("a client connection"),
                    },
                }
            }
            Socket::Unix(socket) => {
                socket.set_nonblocking(false).unwrap();
                act(socket)
            }
        }
    }
}

trait ReadWrite: Read + Write {}
impl<T: Read + Write> ReadWrite for T {}

impl Read for Blocking<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let mut scratch = vec![0; buf.len()];
        let read = {
            let cell = std::cell::RefCell::new(&mut scratch);
            self.with(|stream| stream.read(&mut cell.borrow_mut()))?
        };
        buf[..read].copy_from_slice(&scratch[..read]);
        Ok(read)
    }
}

impl Write for Blocking<'_> {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        self.with(|stream| stream.write(buf))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.with(|stream| stream.flush())
    }
}

/// A client that sends bytes as told.
pub(super) struct Client(pub(super) TcpStream);

impl Client {
    pub(super) async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }

    pub(super) async fn byte(&mut self) -> u8 {
        tokio::time::timeout(PATIENCE, self.0.read_u8()).await.unwrap().unwrap()
    }

    /// Reads a message: tag and body.
    pub(super) async fn message(&mut self) -> (u8, Vec<u8>) {
        let read = async {
            let tag = self.0.read_u8().await.unwrap();
            let len = self.0.read_u32().await.unwrap();
            let mut body = vec![0; usize::try_from(len).unwrap() - 4];
            self.0.read_exact(&mut body).await.unwrap();
            (tag, body)
        };
        tokio::time::timeout(PATIENCE, read).await.expect("no message in time")
    }

    /// Reads a FATAL error and the end of the connection: SQLSTATE and message.
    pub(super) async fn fatal(&mut self) -> (String, String) {
        let (tag, body) = self.message().await;
        assert_eq!(char::from(tag), 'E', "{:?}", String::from_utf8_lossy(&body));
        let field = |code| String::from_utf8_lossy(backend::error_field(&body, code).unwrap()).into_owned();
        assert_eq!(field(b'S'), "FATAL");
        assert!(self.closed().await);
        (field(b'C'), field(b'M'))
    }

    /// Whether the next thing to come is the end of the connection.
    pub(super) async fn closed(&mut self) -> bool {
        let mut byte = [0];
        let read = tokio::time::timeout(PATIENCE, self.0.read(&mut byte)).await.expect("not closed in time");
        matches!(read, Ok(0) | Err(_))
    }
}

/// A startup packet.
pub(super) fn startup(version: u32, parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    encode::sized(&mut out, |b| {
        b.extend_from_slice(&version.to_be_bytes());
        for (name, value) in parameters {
            encode::cstr(b, name.as_bytes());
            encode::cstr(b, value.as_bytes());
        }
        b.push(0);
    });
    out
}

/// SSLRequest or GSSENCRequest.
pub(super) fn request(code: u32) -> Vec<u8> {
    let mut out = Vec::new();
    encode::sized(&mut out, |b| b.extend_from_slice(&code.to_be_bytes()));
    out
}

/// PasswordMessage with a string.
pub(super) fn password(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    encode::password(&mut out, &[text.as_bytes(), b"\0"].concat());
    out
}
