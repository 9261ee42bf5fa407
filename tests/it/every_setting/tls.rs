//! TLS on both sides.

use super::{Case, Ground, case, said, yes};
use crate::support::{
    database::password_of,
    tls::{Options, open},
};

const CLIENT: &str = "client_tls_sslmode = allow\nclient_tls_cert_file = @DIR@/server.crt\nclient_tls_key_file = @DIR@/server.key";
const OLDER: &str = "client_tls_sslmode = allow\nclient_tls_cert_file = @DIR@/server.crt\nclient_tls_key_file = @DIR@/server.key\n\
                     client_tls_protocols = tlsv1.2";
const FILES: &str = "client_tls_cert_file = @DIR@/server.crt\nclient_tls_key_file = @DIR@/server.key";

#[rustfmt::skip]
pub(super) const CASES: &[Case] = &[
    case("client_tls_sslmode", FILES, "require", clear, ["ok", "SSL required"]),
    case("client_tls_cert_file", "", "@DIR@/server.crt\nclient_tls_key_file = @DIR@/server.key\nclient_tls_sslmode = allow", encrypted, ["no TLS", "TLSv1.3"]),
    case("client_tls_key_file", "", "@DIR@/server.key\nclient_tls_cert_file = @DIR@/server.crt\nclient_tls_sslmode = allow", encrypted, ["no TLS", "TLSv1.3"]),
    case("client_tls_ca_file", CLIENT, "@DIR@/ca.crt", stranger, ["ok", "refused"]),
    case("client_tls_protocols", CLIENT, "tlsv1.2", encrypted, ["TLSv1.3", "TLSv1.2"]),
    case("client_tls_ciphers", OLDER, "ECDHE-ECDSA-AES128-GCM-SHA256", suite, ["TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"]),
    case("client_tls13_ciphers", CLIENT, "TLS_CHACHA20_POLY1305_SHA256", suite, ["TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"]),
    case("server_tls_sslmode", "", "disable", to_server, ["TLSv1.3", "NULL"]),
    case("server_tls_protocols", "", "tlsv1.2", to_server, ["TLSv1.3", "TLSv1.2"]),
    case("server_tls_ciphers", "server_tls_protocols = tlsv1.2", "ECDHE-ECDSA-AES128-GCM-SHA256", suite_to_server, ["ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-AES128-GCM-SHA256"]),
    case("server_tls13_ciphers", "", "TLS_CHACHA20_POLY1305_SHA256", suite_to_server, ["TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"]),
    case("server_tls_ca_file", "server_tls_sslmode = verify-full\nclient_login_timeout = 0.4", "@DIR@/ca.crt", is_served, ["no", "yes"]),
    case("server_tls_cert_file", "", "@DIR@/client.crt\nserver_tls_key_file = @DIR@/client.key", shown_to_server, ["NULL", "/CN=app"]),
    case("server_tls_key_file", "", "@DIR@/client.key\nserver_tls_cert_file = @DIR@/client.crt", shown_to_server, ["NULL", "/CN=app"]),
];

fn clear(ground: &Ground) -> String {
    said(ground.try_login("app", &[]))
}

/// The column `tls` of SHOW CLIENTS, of a client over TLS.
fn description(ground: &Ground, certificate: Option<&str>) -> Result<String, String> {
    let mut raw = open(ground.stage.port, Options { certificate, ..Options::default() })
        .map_err(|_| "no TLS".to_owned())?;
    raw.try_login("app", &ground.database.name, &password_of("app"), &[])
        .map_err(|error| error.field(b'M'))?;
    let rows = ground.admin().sql("SHOW CLIENTS");
    let row = rows.iter().find(|row| row.contains("TLS")).unwrap();
    Ok(row.split('|').find(|column| column.starts_with("TLS")).unwrap().to_owned())
}

fn half(ground: &Ground, at: usize) -> String {
    match description(ground, None) {
        Ok(text) => text.split('/').nth(at).unwrap().to_owned(),
        Err(message) => message,
    }
}

fn encrypted(ground: &Ground) -> String {
    half(ground, 0)
}

fn suite(ground: &Ground) -> String {
    half(ground, 1)
}

/// A client with a certificate that an unknown authority has signed.
fn stranger(ground: &Ground) -> String {
    let port = ground.stage.port;
    let database = ground.database.name.clone();
    // The end of the handshake is heard of late.
    let login = std::thread::spawn(move || {
        let mut raw =
            open(port, Options { certificate: Some("stranger.crt"), ..Options::default() }).unwrap();
        raw.try_login("app", &database, &password_of("app"), &[]).unwrap();
    });
    if login.join().is_ok() { "ok" } else { "refused" }.to_owned()
}

fn of_own_session(ground: &Ground, column: &str) -> String {
    ground.login().sql(&format!("SELECT {column} FROM pg_stat_ssl WHERE pid = pg_backend_pid()")).remove(0)
}

fn to_server(ground: &Ground) -> String {
    of_own_session(ground, "version")
}

fn suite_to_server(ground: &Ground) -> String {
    of_own_session(ground, "cipher")
}

fn shown_to_server(ground: &Ground) -> String {
    of_own_session(ground, "client_dn")
}

/// By a database with the name that the server's certificate is for.
fn is_served(ground: &Ground) -> String {
    let login = ground.try_login_at("named", "app", &[]);
    yes(login.is_ok_and(|mut client| client.try_sql("SELECT 1").is_ok()))
}
