//! What a login leaves to those that come after it (S42, S47).

use crate::support::{
    compare::Pair,
    database::{Database, password_of},
    gate::Gate,
    pooler::Setup,
    raw::Raw,
};

// S42: a client without a name got that of the first one with the same other parameters.
#[test]
fn startup_parameters_of_one_client_do_not_reach_another() {
    let pair = Pair::new();
    let login = |more: &[(&str, &str)]| {
        Raw::login_with(pair.pooler.port, "app", &pair.database.name, &password_of("app"), more)
    };
    let _first = login(&[("application_name", "of the first"), ("extra_float_digits", "2")]);
    for (name, more) in
        [("", &[("extra_float_digits", "2")][..]), ("other", &[("application_name", "other")])]
    {
        let mut client = login(more);
        assert_eq!(client.parameter("application_name"), Some(name));
        assert_eq!(client.sql("SHOW application_name"), [name]);
    }
}

// S42: what the first server of a pool had said was imposed on all clients until a RECONNECT.
#[test]
fn changed_defaults_reach_new_clients() {
    let pair = Pair::new();
    let mut old = pair.pooler.connect();
    let before = old.sql("SHOW TimeZone");
    pair.database.sql(&format!("ALTER DATABASE {} SET TimeZone = 'Asia/Tokyo'", pair.database.name));
    let pid = &old.sql("SELECT pg_backend_pid()")[0];
    pair.database.sql(&format!("SELECT pg_terminate_backend({pid})"));
    pair.pooler.wait_for_pool("sv_idle", 0);
    // A session keeps what it began with.
    assert_eq!(old.sql("SHOW TimeZone"), before);
    let mut new = pair.pooler.connect();
    assert_eq!(new.parameter("TimeZone"), Some("Asia/Tokyo"));
    assert_eq!(new.sql("SHOW TimeZone"), ["Asia/Tokyo"]);
}

// S47: a login that was under way when the settings changed counted as one with the new settings, for ever.
#[test]
fn login_that_was_under_way_at_a_reconnect_is_not_used() {
    let database = Database::new();
    let gate = Gate::before(database.port);
    // Otherwise the catalog's keeper connects, too.
    let setup = Setup::new(&database).setting("session_functions = \"trust\"");
    let pooler = setup.by_port(gate.port).start();
    gate.shut();
    let login = std::thread::scope(|scope| {
        let client = scope.spawn(|| pooler.connect());
        gate.wait_for(1);
        pooler.console("RECONNECT");
        gate.open();
        client.join().unwrap()
    });
    drop(login);
    assert_eq!(gate.connections(), 2);
}
