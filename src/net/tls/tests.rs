//! Handshakes in memory, with certificates made by the openssl command.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use rustls::{ClientConfig, ClientConnection, Connection, ServerConnection, pki_types::ServerName};

use super::*;
use crate::config::{Settings, SslMode};

/// A directory with `root`, `stranger` and `server` (signed by root for localhost), removed when dropped.
struct Files(PathBuf);

impl Files {
    fn new() -> Self {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("pooler-tls-{}-{number}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        let files = Self(dir);
        for name in ["root", "stranger"] {
            files.openssl(&format!("{NEW_EC} -x509 -subj /CN={name} -keyout {name}.key -out {name}.crt"));
        }
        files.sign("server", "root", "subjectAltName=DNS:localhost");
        files
    }

    fn sign(&self, name: &str, authority: &str, extensions: &str) {
        fs::write(self.path("ext"), extensions).unwrap();
        self.openssl(&format!("{NEW_EC} -subj /CN={name} -keyout {name}.key -out {name}.csr"));
        self.openssl(&format!(
            "x509 -req -in {name}.csr -CA {authority}.crt -CAkey {authority}.key -CAcreateserial -extfile ext \
             -out {name}.crt"
        ));
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn openssl(&self, arguments: &str) -> Vec<u8> {
        let arguments = arguments.split_ascii_whitespace();
        let output = Command::new("openssl").args(arguments.clone()).current_dir(&self.0).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "openssl {:?}: {said}", arguments.collect::<Vec<_>>());
        output.stdout
    }

    fn client_settings(&self, mode: SslMode) -> Settings {
        Settings {
            client_tls_sslmode: mode,
            client_tls_cert_file: Some(self.path("server.crt")),
            client_tls_key_file: Some(self.path("server.key")),
            ..Settings::default()
        }
    }

    fn server_settings(&self, identity: Option<&str>) -> Settings {
        Settings {
            server_tls_ca_file: Some(self.path("root.crt")),
            server_tls_cert_file: identity.map(|name| self.path(&format!("{name}.crt"))),
            server_tls_key_file: identity.map(|name| self.path(&format!("{name}.key"))),
            ..Settings::default()
        }
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const NEW_EC: &str = "req -new -nodes -newkey ec -pkeyopt ec_paramgen_curve:prime256v1";
const NEW_RSA: &str = "req -new -nodes -newkey rsa:2048";

/// Runs a handshake of the pooler (as client of a server) with the pooler (as server of a client).
fn handshake(
    server: &ClientTls,
    client: Arc<ClientConfig>,
    host: &str,
) -> Result<(Connection, Connection), rustls::Error> {
    let name = ServerName::try_from(host.to_owned()).unwrap();
    let mut client = Connection::from(ClientConnection::new(client, name)?);
    let mut server = Connection::from(ServerConnection::new(server.config.clone())?);
    let mut wire = Vec::new();
    for _ in 0..10 {
        for turn in 0..2 {
            let (from, to) = if turn == 0 { (&mut client, &mut server) } else { (&mut server, &mut client) };
            while from.wants_write() {
                from.write_tls(&mut wire).unwrap();
            }
            let mut bytes = std::mem::take(&mut wire);
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                to.read_tls(&mut rest).unwrap();
                to.process_new_packets()?;
            }
            bytes.clear();
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok((client, server))
}

#[test]
fn handshake_negotiates_tls_1_3_and_alpn_and_sends_no_tickets() {
    let files = Files::new();
    let server = ClientTls::build(&files.client_settings(SslMode::Require)).unwrap().unwrap();
    let servers = ServerTls::build(&files.server_settings(None)).unwrap();
    let config = servers.config(SslMode::VerifyFull).unwrap();
    let (client, at_server) = handshake(&server, config.clone(), "localhost").unwrap();
    assert_eq!(client.alpn_protocol(), Some(ALPN));
    assert_eq!(describe(&client), "TLSv1.3/TLS_AES_256_GCM_SHA384");
    let Connection::Client(session) = &client else { unreachable!() };
    assert_eq!(session.tls13_tickets_received(), 0);
    assert!(at_server.peer_certificates().is_none());
    assert!(handshake(&server, config, "elsewhere").is_err());

    let leaf = client.peer_certificates().unwrap()[0].clone();
    assert_eq!(server_end_point(&leaf).as_deref(), Some(&*server.server_end_point));
}

#[test]
fn client_certificates_are_optional_up_to_require_and_demanded_by_verify_modes() {
    let files = Files::new();
    files.sign("member", "root", "extendedKeyUsage=clientAuth");
    files.sign("intruder", "stranger", "extendedKeyUsage=clientAuth");
    let modes = [
        (SslMode::Allow, true),
        (SslMode::Prefer, true),
        (SslMode::Require, true),
        (SslMode::VerifyCa, false),
        (SslMode::VerifyFull, false),
    ];
    for (mode, optional) in modes {
        let mut settings = files.client_settings(mode);
        settings.client_tls_ca_file = Some(files.path("root.crt"));
        let server = ClientTls::build(&settings).unwrap().unwrap();
        let with = |identity| {
            let tls = ServerTls::build(&files.server_settings(identity)).unwrap();
            handshake(&server, tls.config(SslMode::VerifyFull).unwrap(), "localhost")
        };
        assert_eq!(with(None).is_ok(), optional, "{mode:?}");
        let (_, at_server) = with(Some("member")).unwrap();
        assert_eq!(at_server.peer_certificates().map(<[_]>::len), Some(1));
        assert!(with(Some("intruder")).is_err(), "{mode:?}");
    }
}

#[test]
fn server_end_point_is_the_hash_that_openssl_computes() {
    let files = Files::new();
    let cases = [
        ("-sha1", NEW_RSA, Some("sha256")),
        ("-sha256", NEW_RSA, Some("sha256")),
        ("-sha384", NEW_RSA, Some("sha384")),
        ("-sha512", NEW_RSA, Some("sha512")),
        ("-sha384 -sigopt rsa_padding_mode:pss", NEW_RSA, Some("sha384")),
        ("-sha1 -sigopt rsa_padding_mode:pss", NEW_RSA, Some("sha256")),
        ("-sha256", NEW_EC, Some("sha256")),
        ("-sha512", NEW_EC, Some("sha512")),
        ("", "req -new -nodes -newkey ed25519", None),
    ];
    for (options, new, hash) in cases {
        files.openssl(&format!("{new} -x509 {options} -subj /CN=x -keyout x.key -outform der -out x.der"));
        let found = server_end_point(&fs::read(files.path("x.der")).unwrap());
        let expected = hash.map(|hash| files.openssl(&format!("dgst -{hash} -binary x.der")));
        assert_eq!(found, expected, "{options} {new}");
    }
}

/// Certificates come from strangers before anything is verified.
#[test]
fn broken_certificates_are_refused_without_a_panic() {
    let files = Files::new();
    files.openssl("x509 -in server.crt -outform der -out server.der");
    let good = fs::read(files.path("server.der")).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    let trusted = vec![rustls::pki_types::CertificateDer::from(good.clone())];
    roots.add(trusted[0].clone()).unwrap();
    let verifier = verify::ServerVerifier::new(verify::Check::ChainAndName, Arc::new(roots), trusted.into());
    let verify = |der: &[u8]| {
        use rustls::client::danger::ServerCertVerifier;
        let name = ServerName::try_from("localhost").unwrap();
        let now = rustls::pki_types::UnixTime::now();
        verifier.verify_server_cert(&der.into(), &[], &name, &[], now).is_ok()
    };
    assert!(verify(&good));
    for end in 0..good.len() {
        assert!(!verify(&good[..end]));
        assert_eq!(server_end_point(&good[..end]), None);
    }
    for at in 0..good.len() {
        for value in [0, 0x7f, 0x80, 0xff] {
            let mut bad = good.clone();
            bad[at] = value;
            let _ = server_end_point(&bad);
            assert_eq!(verify(&bad), bad == good, "byte {at} set to {value}");
        }
    }
}

#[test]
fn same_files_are_equal_and_changed_contents_are_not() {
    let files = Files::new();
    let clients = || ClientTls::build(&files.client_settings(SslMode::Require)).unwrap().unwrap();
    let servers = || ServerTls::build(&files.server_settings(Some("server"))).unwrap();
    let (client, server) = (clients(), servers());
    assert_eq!((&client, &server), (&clients(), &servers()));
    assert_ne!(client, ClientTls::build(&files.client_settings(SslMode::Prefer)).unwrap().unwrap());
    assert_ne!(server, ServerTls::build(&files.server_settings(None)).unwrap());
    files.sign("server", "root", "subjectAltName=DNS:localhost");
    assert_ne!(client, clients());
    assert_ne!(server, servers());
}

#[test]
fn keys_in_all_three_formats_are_read() {
    let files = Files::new();
    let build = || ClientTls::build(&files.client_settings(SslMode::Require));
    let header = || fs::read_to_string(files.path("server.key")).unwrap().lines().next().unwrap().to_owned();
    assert_eq!(header(), "-----BEGIN PRIVATE KEY-----");
    build().unwrap();
    files.openssl("ec -in server.key -out server.key");
    assert_eq!(header(), "-----BEGIN EC PRIVATE KEY-----");
    build().unwrap();
    files.openssl(&format!("{NEW_RSA} -x509 -subj /CN=rsa -keyout server.key -out server.crt"));
    files.openssl("rsa -in server.key -traditional -out server.key");
    assert_eq!(header(), "-----BEGIN RSA PRIVATE KEY-----");
    build().unwrap();
}

#[test]
fn errors_name_setting_file_and_remedy() {
    let files = Files::new();
    let check = |settings: &Settings, setting: &str, path: &Path, text: &str| {
        let error = ClientTls::build(settings).unwrap_err();
        let message = error.to_string();
        for part in [setting, path.to_str().unwrap(), text] {
            assert!(message.contains(part), "\"{message}\" lacks \"{part}\"");
        }
        assert!(!error.hint().is_empty());
    };
    let good = files.client_settings(SslMode::Require);
    let missing = files.path("missing");
    let with_key = |key: &str| Settings { client_tls_key_file: Some(files.path(key)), ..good.clone() };
    let no_certificate = Settings { client_tls_cert_file: Some(missing.clone()), ..good.clone() };
    check(&no_certificate, "client_tls_cert_file", &missing, "No such file");
    check(&with_key("server.crt"), "client_tls_key_file", &files.path("server.crt"), "private key");
    check(&with_key("root.key"), "client_tls_key_file", &files.path("root.key"), "does not serve");
    files.openssl("pkey -in server.key -aes128 -passout pass:x -out locked.key");
    check(&with_key("locked.key"), "client_tls_key_file", &files.path("locked.key"), "encrypted");

    let mode_only = Settings { client_tls_sslmode: SslMode::Require, ..Settings::default() };
    let error = ClientTls::build(&mode_only).unwrap_err();
    assert_eq!(error.to_string(), "client_tls_cert_file is not set, but client_tls_sslmode asks for TLS");
    assert!(ClientTls::build(&files.client_settings(SslMode::VerifyCa)).is_err(), "no CA file");
    assert_eq!(ClientTls::build(&Settings::default()).unwrap(), None);
    let half = Settings { server_tls_cert_file: Some(files.path("server.crt")), ..Settings::default() };
    assert!(ServerTls::build(&half).is_err());
}
