//! A PostgreSQL of its own for each test, with certificates made by the openssl command.

use std::{
    fs,
    io::{Read, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Mutex,
    time::{Duration, Instant},
};

use pooler::{
    net::{Socket, Stream},
    protocol::{backend::error_field, encode, frame::Header},
    server::ServerLogin,
};

const BIN: &str = "/usr/lib/postgresql/15/bin";

/// What certificate the server has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cert {
    None,
    /// Version 3, alternative name `localhost`, signed with SHA-384 by root.crt.
    SignedByCa,
    /// `openssl req -new -x509 -subj /CN=localhost`: an authority by its extensions, no alternative name.
    SelfSigned,
    /// `openssl x509 -req` without extensions.
    Version1,
    /// As SelfSigned, but of the past.
    Expired,
}

pub(crate) struct Cluster {
    pub(crate) port: u16,
    dir: PathBuf,
    server: Child,
}

impl Cluster {
    pub(crate) fn start(cert: Cert) -> Self {
        let dir = fresh_dir();
        make_certificates(&dir, cert);
        run("chown", &["-R", "postgres", dir.to_str().unwrap()]);
        let data = dir.join("data");
        make_data(&data);
        configure(&dir, cert);
        // The port is free now and nobody else is likely to take it before PostgreSQL does.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut server = Command::new("setpriv");
        server.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]);
        server.arg(format!("{BIN}/postgres")).arg("-D").arg(&data).args(["-p", &port.to_string()]);
        let log = fs::File::create(dir.join("log")).unwrap();
        let server = server.stderr(log).stdout(Stdio::null()).spawn().unwrap();
        let cluster = Self { port, dir, server };
        cluster.wait_until_ready();
        cluster.psql(
            "SET password_encryption = 'scram-sha-256'; \
             CREATE ROLE trusted LOGIN; CREATE ROLE only_tls LOGIN; CREATE ROLE only_clear LOGIN; \
             CREATE ROLE by_cert LOGIN; \
             CREATE ROLE by_password LOGIN PASSWORD 'open sesame'; \
             CREATE ROLE by_scram LOGIN PASSWORD 'open sesame'; \
             SET password_encryption = 'md5'; CREATE ROLE by_md5 LOGIN PASSWORD 'open sesame'",
        );
        cluster
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub(crate) fn socket_dir(&self) -> String {
        self.dir.to_str().unwrap().to_owned()
    }

    fn wait_until_ready(&self) {
        let deadline = Instant::now() + Duration::from_secs(30);
        let mut ready = Command::new(format!("{BIN}/pg_isready"));
        ready.args(["-q", "-h", self.dir.to_str().unwrap(), "-p", &self.port.to_string()]);
        while !ready.status().unwrap().success() {
            let log = || fs::read_to_string(self.dir.join("log")).unwrap();
            assert!(Instant::now() < deadline, "PostgreSQL does not start:\n{}", log());
        }
    }

    fn psql(&self, sql: &str) {
        let port = self.port.to_string();
        let host = self.socket_dir();
        run("psql", &["-qX", "-h", &host, "-p", &port, "-U", "postgres", "-v", "ON_ERROR_STOP=1", "-c", sql]);
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-QUIT", &self.server.id().to_string()]).status();
        let _ = self.server.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn fresh_dir() -> PathBuf {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let dir = std::env::temp_dir().join(format!("pooler-connect-{}-{number}", std::process::id()));
    fs::create_dir(&dir).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

/// A data directory, copied from a template that the first test makes.
fn make_data(data: &Path) {
    static TEMPLATE: Mutex<Option<PathBuf>> = Mutex::new(None);
    let mut template = TEMPLATE.lock().unwrap_or_else(|e| e.into_inner());
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("postgres-15-data");
    if template.is_none() && !kept.exists() {
        as_postgres(&format!("{BIN}/initdb"), &["-D", data.to_str().unwrap(), "--no-sync", "-A", "trust"]);
        let own = kept.with_extension(std::process::id().to_string());
        run("cp", &["-a", data.to_str().unwrap(), own.to_str().unwrap()]);
        // Another process may have been quicker; its template is as good.
        if fs::rename(&own, &kept).is_err() {
            fs::remove_dir_all(&own).unwrap();
        }
        *template = Some(kept);
        return;
    }
    *template = Some(kept.clone());
    run("cp", &["-a", kept.to_str().unwrap(), data.to_str().unwrap()]);
}

fn configure(dir: &Path, cert: Cert) {
    let path = dir.display();
    let ssl = if cert == Cert::None { "off" } else { "on" };
    let conf = format!(
        "listen_addresses = 'localhost'\nunix_socket_directories = '{path}'\nfsync = off\nssl = {ssl}\n\
         ssl_cert_file = '{path}/server.crt'\nssl_key_file = '{path}/server.key'\nssl_ca_file = '{path}/root.crt'\n"
    );
    let hba = "local all all trust\n\
               hostssl all only_tls all trust\n\
               hostnossl all only_clear all trust\n\
               hostssl all by_cert all cert\n\
               host all by_password all password\n\
               host all by_md5 all md5\n\
               host all by_scram all scram-sha-256\n\
               host all trusted all trust\n";
    append(&dir.join("data/postgresql.conf"), &conf);
    fs::write(dir.join("data/pg_hba.conf"), hba).unwrap();
}

fn append(path: &Path, text: &str) {
    fs::OpenOptions::new().append(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
}

/// root.crt, stranger.crt, impostor.crt (same name as root.crt), server.crt, by_cert.crt and keys.
fn make_certificates(dir: &Path, cert: Cert) {
    // RSA where PostgreSQL's documentation says so, else what is quick to make.
    let new = match cert {
        Cert::SelfSigned | Cert::Version1 => "req -new -nodes -newkey rsa:2048",
        _ => "req -new -nodes -newkey ec -pkeyopt ec_paramgen_curve:prime256v1",
    };
    for (name, subject) in [("root", "/CN=root"), ("stranger", "/CN=stranger"), ("impostor", "/CN=root")] {
        openssl(dir, &format!("{new} -x509 -subj {subject} -keyout {name}.key -out {name}.crt"));
    }
    openssl(dir, &format!("{new} -subj /CN=localhost -keyout server.key -out server.csr"));
    fs::write(dir.join("server.ext"), "subjectAltName=DNS:localhost\n").unwrap();
    let sign = "x509 -req -in server.csr -CA root.crt -CAkey root.key -CAcreateserial -out server.crt";
    match cert {
        Cert::None | Cert::SignedByCa => openssl(dir, &format!("{sign} -sha384 -extfile server.ext")),
        Cert::Version1 => openssl(dir, sign),
        Cert::SelfSigned => {
            openssl(dir, &format!("{new} -x509 -subj /CN=localhost -keyout server.key -out server.crt"));
        }
        Cert::Expired => {
            openssl(dir, "x509 -req -in server.csr -signkey server.key -days -1 -out server.crt");
        }
    }
    openssl(dir, &format!("{new} -subj /CN=by_cert -keyout by_cert.key -out by_cert.csr"));
    fs::write(dir.join("client.ext"), "extendedKeyUsage=clientAuth\n").unwrap();
    openssl(
        dir,
        "x509 -req -in by_cert.csr -CA root.crt -CAkey root.key -CAcreateserial -extfile client.ext -out by_cert.crt",
    );
}

fn openssl(dir: &Path, arguments: &str) {
    let output = Command::new("openssl").args(arguments.split(' ')).current_dir(dir).output().unwrap();
    assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

fn as_postgres(program: &str, arguments: &[&str]) {
    let mut all = vec!["--reuid=postgres", "--regid=postgres", "--clear-groups", "--", program];
    all.extend(arguments);
    run("setpriv", &all);
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
}

/// Talks on a connection that was handed over, as a worker would: plain socket, rustls session beside it.
pub(crate) struct Conversation {
    stream: Stream,
    buffer: Vec<u8>,
}

impl Conversation {
    pub(crate) fn new(login: ServerLogin) -> Self {
        match &login.stream.socket {
            Socket::Tcp(s) => s.set_nonblocking(false).unwrap(),
            Socket::Unix(s) => s.set_nonblocking(false).unwrap(),
        }
        Self { stream: login.stream, buffer: login.leftover }
    }

    /// First column of the first row.
    pub(crate) fn query(&mut self, sql: &str) -> String {
        let mut value = String::new();
        for (tag, body) in self.exchange(sql) {
            assert_ne!(tag, b'E', "{sql}: {}", String::from_utf8_lossy(&body));
            if tag == b'D' {
                value = String::from_utf8(body[6..].to_vec()).unwrap();
            }
        }
        value
    }

    /// SQLSTATE of the error that the query ends with.
    pub(crate) fn error(&mut self, sql: &str) -> String {
        let answers = self.exchange(sql);
        let error = answers.iter().find(|(tag, _)| *tag == b'E').expect("an error");
        String::from_utf8_lossy(error_field(&error.1, b'C').unwrap()).into_owned()
    }

    fn exchange(&mut self, sql: &str) -> Vec<(u8, Vec<u8>)> {
        let mut query = Vec::new();
        encode::query(&mut query, sql);
        self.io(|io| io.write_all(&query).and_then(|()| io.flush()));
        let mut answers = Vec::new();
        loop {
            let (tag, body) = self.message();
            answers.push((tag, body));
            if tag == b'Z' {
                return answers;
            }
        }
    }

    fn message(&mut self) -> (u8, Vec<u8>) {
        loop {
            if let Some(header) = Header::peek(&self.buffer).filter(|h| self.buffer.len() >= h.total()) {
                let rest = self.buffer.split_off(header.total());
                let whole = std::mem::replace(&mut self.buffer, rest);
                return (header.tag, whole[5..].to_vec());
            }
            let mut bytes = [0; 4096];
            let read = self.io(|io| io.read(&mut bytes));
            assert!(read > 0, "the server closed the connection");
            self.buffer.extend_from_slice(&bytes[..read]);
        }
    }

    fn io<T>(&mut self, work: impl FnOnce(&mut dyn ReadWrite) -> std::io::Result<T>) -> T {
        let socket: &mut dyn ReadWrite = match &mut self.stream.socket {
            Socket::Tcp(s) => s,
            Socket::Unix(s) => s,
        };
        let done = match self.stream.tls.as_deref_mut() {
            None => work(socket),
            Some(rustls::Connection::Client(session)) => {
                let mut socket = socket;
                work(&mut rustls::Stream::new(session, &mut socket))
            }
            Some(rustls::Connection::Server(_)) => panic!("we are the client"),
        };
        done.unwrap()
    }
}

pub(crate) trait ReadWrite: Read + Write {}
impl<T: Read + Write> ReadWrite for T {}
