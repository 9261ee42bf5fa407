//! Who may log in, and how.

use super::{Case, Ground, case, said};
use crate::support::{
    msg::build,
    raw::{Raw, startup},
};

const LOOK: &str = "auth_query = SELECT a, b FROM look($1)";

#[rustfmt::skip]
pub(super) const CASES: &[Case] = &[
    case("admin_users", "", "admin, app", reload_by_app, ["not allowed", "ok"]),
    case("stats_users", "", "app", version_by_app, ["not allowed", "ok"]),
    case("application_name_add_host", "", "1", application_name, ["me", "me - 127.0.0.1"]),
    case("auth_dbname", "auth_user = other\nauth_query = SELECT a, b FROM look($1)\nstats_users = scram_user", "named", console_of_unlisted, ["password authentication failed for user \"scram_user\"", "ok"]),
    case("auth_file", "", "@DIR@/more.txt", login_of_plain_user, ["password authentication failed for user \"plain_user\"", "ok"]),
    case("auth_hba_file", "auth_type = hba\nauth_hba_file = @DIR@/hba.peer", "@DIR@/hba", wrong_password, ["password authentication failed for user \"app\"", "ok"]),
    case("auth_ident_file", "auth_type = hba\nauth_hba_file = @DIR@/hba.peer\nauth_ident_file = @DIR@/ident.other", "@DIR@/ident", by_socket, ["unix socket login rejected", "ok"]),
    case("auth_query", "auth_user = other", "SELECT a, b FROM look($1)", login_of_scram_user, ["the user cannot be looked up", "ok"]),
    case("auth_type", "", "trust", wrong_password, ["password authentication failed for user \"app\"", "ok"]),
    case("auth_user", LOOK, "other", login_of_scram_user, ["password authentication failed for user \"scram_user\"", "ok"]),
    case("ignore_startup_parameters", "", "no_such_parameter", strange_parameter, ["unrecognized configuration parameter \"no_such_parameter\"", "ok"]),
    case("scram_iterations", "auth_type = scram-sha-256", "5000", iterations, ["4096", "5000"]),
];

fn by_app(ground: &Ground, command: &str) -> String {
    said(
        ground
            .try_login_at("pgbouncer", "app", &[])
            .and_then(|mut console| console.try_sql(command).map_err(|error| error.field(b'M'))),
    )
}

fn reload_by_app(ground: &Ground) -> String {
    by_app(ground, "RELOAD")
}

fn version_by_app(ground: &Ground) -> String {
    by_app(ground, "SHOW VERSION")
}

fn application_name(ground: &Ground) -> String {
    let mut client = ground.try_login("app", &[("application_name", "me")]).unwrap();
    let name = client.sql("SHOW application_name").remove(0);
    name.rsplit_once(':').map_or(name.clone(), |(name, _)| name.to_owned())
}

fn console_of_unlisted(ground: &Ground) -> String {
    said(ground.try_login_at("pgbouncer", "scram_user", &[]))
}

fn login_of_plain_user(ground: &Ground) -> String {
    said(ground.try_login("plain_user", &[]))
}

fn login_of_scram_user(ground: &Ground) -> String {
    said(ground.try_login("scram_user", &[]))
}

fn wrong_password(ground: &Ground) -> String {
    let mut raw = Raw::open(ground.stage.port);
    said(raw.try_login("app", &ground.database.name, "wrong", &[]).map_err(|error| error.field(b'M')))
}

fn by_socket(ground: &Ground) -> String {
    let socket = ground.stage.path(&ground.stage.filled(".s.PGSQL.@PORT@"));
    let mut raw = Raw::open_unix(&socket);
    said(raw.try_login("app", &ground.database.name, "", &[]).map_err(|error| error.field(b'M')))
}

fn strange_parameter(ground: &Ground) -> String {
    let result = ground.try_login("app", &[("no_such_parameter", "1")]);
    said(result.and_then(|mut client| client.try_sql("SELECT 1").map_err(|error| error.field(b'M'))))
}

/// What the server's first message of SCRAM says.
fn iterations(ground: &Ground) -> String {
    let mut raw = Raw::open(ground.stage.port);
    raw.send(&startup(3 << 16, &[("user", "app"), ("database", &ground.database.name)]));
    assert_eq!(raw.frame().tag, b'R');
    let first = b"n,,n=,r=nonce";
    let length = u32::try_from(first.len()).unwrap().to_be_bytes();
    let initial = [b"SCRAM-SHA-256\0".as_slice(), &length, first].concat();
    raw.send(&build(b'p', |body| body.extend(initial)));
    let challenge = String::from_utf8_lossy(&raw.frame().body).into_owned();
    challenge.rsplit_once(",i=").unwrap().1.to_owned()
}
