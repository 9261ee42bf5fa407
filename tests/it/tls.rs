//! TLS on both legs: modes, certificates, ALPN, channel binding, cancels, and bytes slipped in before the handshake.

use std::{process::Output, sync::Arc};

use pooler::demo::{
    cluster::{Cluster, ClusterOptions},
    process::wait_until,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{
    compare::Pair,
    database::{Database, Version, certificates, options, password_of, start, superuser},
    msg::*,
    pooler::{Pooler, Setup},
    raw::{Chunks, PATIENCE, Raw, cancel_request, startup},
    tls::{self, Options, gss_request, ssl_request},
};

const SERVER_LEG: &str = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
const POSTGRESQL: Options<'_> = Options { direct: false, alpn: Some("postgresql"), certificate: None };

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

fn ca() -> String {
    format!("sslrootcert={}", certificates().join("ca.crt").display())
}

fn client_certificate(name: &str) -> String {
    let certs = certificates().display();
    format!("sslcert={certs}/{name}.crt sslkey={certs}/client.key")
}

/// Each mode with clients that ask for TLS and clients that do not.
#[test]
fn every_client_tls_sslmode_takes_and_refuses_what_it_should() {
    let database = Database::new();
    let own = client_certificate("client");
    let stranger = client_certificate("stranger");
    let full = format!("sslmode=verify-full {}", ca());
    let (clear, tls, no_tls, needs_tls, needs_certificate) =
        ("You are connected", "SSL connection", "server does not support SSL", "SSL required", "ertificate");
    let cases = [
        ("disable", "sslmode=disable", "", clear),
        ("disable", "sslmode=prefer", "", clear),
        ("disable", "sslmode=require", "", no_tls),
        ("allow", "sslmode=disable", "", clear),
        ("allow", "sslmode=allow", "", clear),
        ("allow", "sslmode=require", "", tls),
        ("prefer", "sslmode=disable", "", clear),
        ("prefer", "sslmode=prefer", "", tls),
        ("prefer", &full, "", tls),
        ("require", "sslmode=disable", "", needs_tls),
        ("require", "sslmode=allow", "", tls),
        ("require", "sslmode=prefer", "", tls),
        ("require", &full, "", tls),
        ("require", &full, &own, tls),
        ("verify-ca", &full, "", needs_certificate),
        ("verify-ca", &full, &stranger, "unknown ca"),
        ("verify-ca", &full, &own, tls),
        ("verify-full", &full, "", needs_certificate),
        ("verify-full", &full, &stranger, "unknown ca"),
        ("verify-full", &full, &own, tls),
        ("verify-full", "sslmode=disable", "", needs_tls),
    ];
    let mut pooler: Option<(&str, Pooler)> = None;
    for (mode, parameters, certificate, expected) in cases {
        let running = match pooler.take() {
            Some((running, pooler)) if running == mode => pooler,
            _ => Setup::new(&database).tls(mode).start(),
        };
        let output = running.psql_with(&format!("{parameters} {certificate}"), "\\conninfo");
        assert!(said(&output).contains(expected), "{mode}, {parameters} {certificate}: {}", said(&output));
        assert_eq!(output.status.success(), [clear, tls].contains(&expected), "{mode}, {parameters}");
        assert_eq!(said(&output).contains("SSL connection"), expected == tls, "{mode}, {parameters}");
        pooler = Some((mode, running));
    }
}

#[test]
fn client_that_wants_another_name_or_authority_is_not_fooled() {
    let database = Database::new();
    let pooler = Setup::new(&database).tls("prefer").start();
    let host = format!("host=elsewhere.example hostaddr=127.0.0.1 sslmode=verify-full {}", ca());
    assert!(said(&pooler.psql_with(&host, "SELECT 1")).contains("does not match host name"));
    let authority = certificates().join("stranger_ca.crt");
    let stranger = format!("sslmode=verify-ca sslrootcert={}", authority.display());
    assert!(said(&pooler.psql_with(&stranger, "SELECT 1")).contains("certificate verify failed"));
}

/// As in PostgreSQL 17: TLS from the first byte, if ALPN says that PostgreSQL's protocol follows.
#[test]
fn direct_tls_needs_the_right_alpn() {
    let database = Database::new();
    let pooler = Setup::new(&database).tls("require").start();
    let login = |raw: &mut Raw| raw.try_login("app", &pooler.database, &password_of("app"), &[]);
    let direct = |alpn| tls::open(pooler.port, Options { direct: true, alpn, certificate: None });

    let mut client = direct(Some("postgresql")).unwrap();
    login(&mut client).unwrap();
    assert_eq!(client.sql("SELECT 'direct'"), ["direct"]);

    let refused = direct(None).unwrap().closed();
    assert_eq!(refused[0].field(b'C'), "08P01");
    assert!(refused[0].field(b'M').contains("without ALPN"), "{refused:?}");

    assert!(direct(Some("http/1.1")).is_err());

    // After SSLRequest ALPN may be missing (libpq before 17), but not be wrong.
    let asked = |alpn| tls::open(pooler.port, Options { direct: false, alpn, certificate: None });
    login(&mut asked(None).unwrap()).unwrap();
    login(&mut asked(Some("postgresql")).unwrap()).unwrap();
    assert!(asked(Some("http/1.1")).is_err());
}

#[test]
fn direct_tls_is_refused_where_tls_is_off() {
    let pair = Pair::new();
    let direct = Options { direct: true, ..POSTGRESQL };
    assert!(tls::open(pair.pooler.port, direct).is_err());
    pair.next_client_is_untouched();
}

/// libpq of PostgreSQL 18, under the psql that there is.
#[test]
fn libpq_18_connects_directly_and_with_protocol_3_2() {
    let database = Database::of(Version::V18);
    let pooler = Setup::new(&database).tls("prefer").start();
    let bin = Version::V18.binaries().program("postgres").unwrap();
    let libraries = bin.parent().unwrap().parent().unwrap().join("lib");
    let parameters = format!(
        "dbname={} host=localhost hostaddr=127.0.0.1 port={} user=app sslmode=verify-full sslnegotiation=direct \
         channel_binding=require min_protocol_version=3.2 max_protocol_version=latest {}",
        pooler.database,
        pooler.port,
        ca()
    );
    let output = std::process::Command::new("psql")
        .args(["-XAt", "-d", &parameters, "-c", "SELECT 'over TLS'", "-c", "\\conninfo"])
        .env("LD_LIBRARY_PATH", libraries)
        .env("PGPASSWORD", password_of("app"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert!(
        said(&output).contains("over TLS") && said(&output).contains("SSL connection"),
        "{}",
        said(&output)
    );
}

/// S45: each encryption request is answered once, in either order.
#[test]
fn encryption_requests_come_in_any_order() {
    let database = Database::new();
    let pooler = Setup::new(&database).tls("prefer").start();
    let login = |raw: &mut Raw| raw.try_login("app", &pooler.database, &password_of("app"), &[]);

    let mut clear = Raw::open(pooler.port);
    clear.send(&gss_request());
    assert_eq!(clear.bytes(1), b"N");
    login(&mut clear).unwrap();

    let mut tcp = std::net::TcpStream::connect(("127.0.0.1", pooler.port)).unwrap();
    let mut answer = [0];
    for (request, expected) in [(gss_request(), b"N"), (ssl_request(), b"S")] {
        std::io::Write::write_all(&mut tcp, &request).unwrap();
        std::io::Read::read_exact(&mut tcp, &mut answer).unwrap();
        assert_eq!(&answer, expected);
    }
    let mut both = tls::handshake(tcp, POSTGRESQL).unwrap();
    login(&mut both).unwrap();
    assert_eq!(both.sql("SELECT 'both'"), ["both"]);

    // Inside TLS nothing is left to ask for.
    for request in [ssl_request(), gss_request()] {
        let mut inside = tls::open(pooler.port, POSTGRESQL).unwrap();
        inside.send(&request);
        assert_eq!(inside.closed()[0].field(b'C'), "08P01");
    }
    // And none is answered twice.
    let mut twice = Raw::open(pooler.port);
    twice.send(&gss_request());
    assert_eq!(twice.bytes(1), b"N");
    twice.send(&gss_request());
    assert_eq!(twice.closed()[0].field(b'C'), "08P01");
}

/// H39, S45, CVE-2021-23214: what somebody puts in front of the encrypted session is not taken for part of it.
#[test]
fn bytes_before_the_handshake_are_refused() {
    let database = Database::new();
    let pooler = Setup::new(&database).tls("prefer").start();
    let login = startup(3 << 16, &[("user", "app"), ("database", &pooler.database)]);
    for request in [ssl_request(), gss_request()] {
        for stuffed in [login.clone(), query("SELECT 1"), vec![0]] {
            let mut client = Raw::open(pooler.port);
            client.send_all(&[request.clone(), stuffed]);
            let frames = client.closed();
            assert_eq!(frames.len(), 1, "{frames:?}");
            assert!(frames[0].field(b'M').contains("unencrypted data after"), "{frames:?}");
        }
    }
    // A client that does not wait for the answer to its request loses its handshake, and nothing else happens.
    let mut client = Raw::open(pooler.port);
    client.send(&ssl_request());
    assert_eq!(client.bytes(1), b"S");
    client.send_all(&[login, query("SELECT 1")]);
    let mut rest = Vec::new();
    let _ = client.drain(&mut rest);
    assert!(!rest.contains(&b'R') && !rest.contains(&b'Z'), "{rest:?}");
}

#[test]
fn handshake_that_ends_early_leaves_nothing_behind() {
    let database = Database::new();
    let pooler = Setup::new(&database).tls("require").setting("max_client_conn = 1").start();
    for bytes in [&b"\x16\x03\x01\x02\x00\x01\x00\x01"[..], b"\x16", b"\x16\x03\x01\xff\xff"] {
        let mut client = Raw::open(pooler.port);
        client.send(bytes);
        drop(client);
        let mut client = Raw::open(pooler.port);
        client.send(&ssl_request());
        client.bytes(1);
        client.send(bytes);
    }
    // S51: each of them has been counted off again, or this one would be too many.
    let client = wait_until(PATIENCE, || {
        let mut client = tls::open(pooler.port, POSTGRESQL).unwrap();
        client.try_login("app", &pooler.database, &password_of("app"), &[]).ok().map(|()| client)
    });
    assert_eq!(client.unwrap().sql("SELECT 1"), ["1"]);
}

#[test]
fn session_over_tls_is_the_same_whatever_the_pieces() {
    let database = Database::new();
    let pooler = Setup::new(&database)
        .tls("require")
        .setting("server_tls_sslmode = \"require\"")
        .setting("default_pool_size = 1")
        .start();
    for chunks in [Chunks::Whole, Chunks::Of(1), Chunks::Of(1000)] {
        let mut client = tls::open(pooler.port, POSTGRESQL).unwrap();
        client.chunks = chunks;
        client.try_login("app", &pooler.database, &password_of("app"), &[]).unwrap();
        assert_eq!(client.sql(SERVER_LEG), ["t"]);
        client.send_all(&[
            parse("p", "SELECT repeat($1, 100000)"),
            bind("p", &[Some("ab")]),
            execute(),
            sync(),
        ]);
        assert_eq!(client.ready(1)[2].row().len(), 200_000);
        let large = "x".repeat(3_000_000);
        assert_eq!(
            client.sql(&format!("SELECT length('{large}'), md5('{large}') = md5(repeat('x', 3000000))")),
            ["3000000|t"]
        );
        let rows = client.sql("SELECT i, repeat(i::text, 20) FROM generate_series(1, 50000) i");
        assert!(rows.iter().zip(1..).all(|(row, i)| *row == format!("{i}|{}", i.to_string().repeat(20))));
        assert_eq!(rows.len(), 50_000);
        client.send(&terminate());
        assert_eq!(client.closed(), []);
    }
}

/// S40: the key travels under TLS on both legs.
#[test]
fn cancel_works_over_tls_on_both_legs() {
    let sleeping = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                    AND state = 'active' AND query LIKE 'SELECT pg_sleep%'";
    for version in [Version::Distribution, Version::V18] {
        let database = Database::of(version);
        let pooler = Setup::new(&database).tls("require").setting("server_tls_sslmode = \"require\"").start();
        for direct in [false, true] {
            let mut client = tls::open(pooler.port, POSTGRESQL).unwrap();
            client.try_login("app", &pooler.database, &password_of("app"), &[]).unwrap();
            client.send(&query("SELECT pg_sleep(600)"));
            database.wait_for(sleeping, &["1"]);
            let mut other = tls::open(pooler.port, Options { direct, ..POSTGRESQL }).unwrap();
            other.send(&cancel_request(&client.key));
            assert_eq!(other.closed(), []);
            assert_eq!(client.ready(1)[1].field(b'C'), "57014");
            assert_eq!(client.sql("SELECT 'not hit'"), ["not hit"]);
        }
    }
}

#[test]
fn psql_binds_the_channel_through_pooler() {
    let database = Database::new();
    let pooler = Setup::new(&database).tls("prefer").setting("server_tls_sslmode = \"require\"").start();
    let bound = pooler.psql_with("sslmode=require channel_binding=require", "SELECT 'bound'");
    assert_eq!(said(&bound), "bound\n");
    let unbound = pooler.psql_with("sslmode=require channel_binding=disable", "SELECT 'unbound'");
    assert_eq!(said(&unbound), "unbound\n");
    let clear = pooler.psql_with("sslmode=disable channel_binding=require", "SELECT 1");
    assert!(!clear.status.success(), "{}", said(&clear));
}

/// Somebody in the middle, with a certificate that neither end checks, gets no session: SCRAM-SHA-256-PLUS binds the
/// login to the certificate that each end saw, on the way to pooler and on the way to PostgreSQL.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn channel_binding_finds_somebody_in_the_middle_on_both_legs() {
    let database = Database::new();
    let to_server = man_in_the_middle(database.port).await;
    let pooler =
        Setup::new(&database).server("127.0.0.1", to_server).setting("server_tls_sslmode = \"require\"");
    let pooler = pooler.start();
    let error =
        Raw::open(pooler.port).try_login("app", &pooler.database, &password_of("app"), &[]).unwrap_err();
    assert!(error.field(b'M').contains("channel binding"), "{error:?}");

    let honest = Setup::new(&database).tls("require").start();
    let to_pooler = man_in_the_middle(honest.port).await;
    let parameters = format!("port={to_pooler} sslmode=require channel_binding=require");
    let output = honest.psql_with(&parameters, "SELECT 1");
    assert!(!output.status.success() && said(&output).contains("channel binding"), "{}", said(&output));
}

/// Ends TLS with a certificate of its own and goes on with TLS towards `port`. Returns its port.
async fn man_in_the_middle(port: u16) -> u16 {
    let pem = |name: &str| certificates().join(name);
    let chain = vec![CertificateDer::from_pem_file(pem("elsewhere.crt")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(pem("elsewhere.key")).unwrap();
    let server = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(pem("ca.crt")).unwrap()).unwrap();
    let client = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let own = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut victim, _) = listener.accept().await.unwrap();
            let (acceptor, connector) = (acceptor.clone(), connector.clone());
            tokio::spawn(async move {
                let mut request = [0; 8];
                victim.read_exact(&mut request).await.ok()?;
                victim.write_all(b"S").await.ok()?;
                let mut victim = acceptor.accept(victim).await.ok()?;
                let mut real = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok()?;
                real.write_all(&request).await.ok()?;
                real.read_exact(&mut [0]).await.ok()?;
                let name = ServerName::try_from("localhost").ok()?;
                let mut real = connector.connect(name, real).await.ok()?;
                tokio::io::copy_bidirectional(&mut victim, &mut real).await.ok()
            });
        }
    });
    own
}

fn cluster(change: impl FnOnce(&mut ClusterOptions)) -> Cluster {
    let mut options = options(Version::Distribution);
    change(&mut options);
    start(&options)
}

/// A pooler in front of the database `postgres` of a cluster of its own.
fn in_front_of(cluster: &Cluster, host: &str, settings: &[String]) -> Pooler {
    let users = format!("[users.app]\npassword = \"{}\"\n", password_of("app"));
    let mut pooler = Pooler::start(&format!(
        "[pooler]\nlisten_addr = \"127.0.0.1\"\nlisten_port = @PORT@\n{}\n[databases.postgres]\nhost = \"{host}\"\n\
         port = {}\n{users}",
        settings.join("\n"),
        cluster.primary.port
    ));
    pooler.database = "postgres".to_owned();
    pooler
}

fn server_tls(mode: &str, more: &[(&str, &str)]) -> Vec<String> {
    let files = more
        .iter()
        .map(|(name, file)| format!("server_tls_{name}_file = \"{}\"", certificates().join(file).display()));
    std::iter::once(format!("server_tls_sslmode = \"{mode}\"")).chain(files).collect()
}

#[test]
fn every_server_tls_sslmode_reaches_a_server_with_tls() {
    let database = Database::new();
    let ca = ("ca", "ca.crt");
    for (mode, host, files, encrypted) in [
        ("disable", "127.0.0.1", &[][..], "f"),
        ("allow", "127.0.0.1", &[], "f"),
        ("prefer", "127.0.0.1", &[], "t"),
        ("require", "127.0.0.1", &[], "t"),
        ("verify-ca", "127.0.0.1", &[ca], "t"),
        ("verify-full", "127.0.0.1", &[ca], "t"),
        ("verify-full", "localhost", &[ca], "t"),
    ] {
        let setup = Setup::new(&database).server(host, database.port);
        let setup = server_tls(mode, files).iter().fold(setup, |setup, line| setup.setting(line));
        let pooler = setup.start();
        assert_eq!(pooler.connect().sql(SERVER_LEG), [encrypted], "{mode}");
    }
}

#[test]
fn server_whose_certificate_is_not_trusted_is_named_in_the_error() {
    let elsewhere = cluster(|options| {
        let certs = certificates();
        options.tls = Some((certs.join("elsewhere.crt"), certs.join("elsewhere.key")));
    });
    let ca = [("ca", "ca.crt")];
    assert_eq!(
        in_front_of(&elsewhere, "127.0.0.1", &server_tls("verify-ca", &ca)).connect().sql(SERVER_LEG),
        ["t"]
    );
    let strangers = [("ca", "stranger_ca.crt")];
    for (mode, host, authority, reason) in [
        ("verify-full", "127.0.0.1", &ca, "not valid for"),
        ("verify-full", "localhost", &ca, "not valid for"),
        ("verify-ca", "127.0.0.1", &strangers, "UnknownIssuer"),
        ("verify-full", "127.0.0.1", &strangers, "UnknownIssuer"),
    ] {
        let pooler = in_front_of(&elsewhere, host, &server_tls(mode, authority));
        let error =
            Raw::open(pooler.port).try_login("app", "postgres", &password_of("app"), &[]).unwrap_err();
        assert_eq!(error.field(b'C'), "08001", "{error:?}");
        assert!(error.field(b'M').contains("TLS with the server failed"), "{error:?}");
        assert!(error.field(b'M').contains(reason), "{mode} {host}: {error:?}");
        assert!(error.field(b'H').contains("server_tls_ca_file"), "{error:?}");
        assert!(pooler.log().contains("TLS with the server failed"));
    }
}

#[test]
fn server_without_tls_is_reached_only_where_sslmode_allows() {
    let clear = cluster(|options| (options.tls, options.client_ca) = (None, None));
    for mode in ["disable", "allow", "prefer"] {
        assert_eq!(in_front_of(&clear, "127.0.0.1", &server_tls(mode, &[])).connect().sql(SERVER_LEG), ["f"]);
    }
    for (mode, files) in [("require", &[][..]), ("verify-ca", &[("ca", "ca.crt")])] {
        let pooler = in_front_of(&clear, "127.0.0.1", &server_tls(mode, files));
        let error =
            Raw::open(pooler.port).try_login("app", "postgres", &password_of("app"), &[]).unwrap_err();
        assert_eq!((error.field(b'C').as_str(), error.field(b'M').as_str()), ("08001", "server refused SSL"));
    }
}

#[test]
fn server_gets_the_client_certificate_that_it_asks_for() {
    let strict = cluster(|options| options.hba = vec!["hostssl all app 127.0.0.1/32 cert".to_owned()]);
    let own = [("cert", "client.crt"), ("key", "client.key")];
    let pooler = in_front_of(&strict, "127.0.0.1", &server_tls("require", &own));
    assert_eq!(
        pooler.connect().sql("SELECT client_dn FROM pg_stat_ssl WHERE pid = pg_backend_pid()"),
        ["/CN=app"]
    );
    let pooler = in_front_of(&strict, "127.0.0.1", &server_tls("require", &[]));
    let error = Raw::open(pooler.port).try_login("app", "postgres", &password_of("app"), &[]).unwrap_err();
    assert!(error.field(b'M').contains("requires a valid client certificate"), "{error:?}");
    assert_eq!(superuser(&strict, "postgres").sql("SELECT 'still there'"), ["still there"]);
}
