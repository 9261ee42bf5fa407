//! Host names with several addresses: turns, addresses that come and go (H31, S59).

use std::{net::TcpStream, time::Duration};

use pooler::demo::process::{free_port, wait_until};
use socket2::{Domain, Socket, Type};

use crate::support::{
    database::{Database, Version, shared, superuser},
    gate::Gate,
    pooler::{Pooler, Setup},
    raw::{PATIENCE, Raw},
};

/// A name whose addresses, 127.0.0.2 and so on, lead to one database.
struct Name {
    database: Database,
    port: u16,
    gates: Vec<Gate>,
}

impl Name {
    fn of(addresses: u8) -> Self {
        let (database, port) = (Database::new(), free_port().unwrap());
        let gates =
            (2..addresses + 2).map(|n| Gate::at(&format!("127.0.0.{n}"), port, database.port)).collect();
        Self { database, port, gates }
    }

    /// An address that leads to a database of the same name in another cluster.
    fn lead_elsewhere(&mut self) {
        let other = shared(Version::V18);
        superuser(other, "postgres").sql(&format!("CREATE DATABASE {} OWNER app", self.database.name));
        let address = format!("127.0.0.{}", self.gates.len() + 2);
        self.gates.push(Gate::at(&address, self.port, other.primary.port));
    }

    /// /etc/hosts with these of its addresses.
    fn hosts(addresses: &[u8]) -> String {
        let lines = addresses.iter().map(|n| format!("127.0.0.{n} many.test\n"));
        format!("127.0.0.1 localhost\n{}", lines.collect::<String>())
    }

    fn setup(&self, addresses: &[u8]) -> Setup {
        let entry = format!("host = \"many.test\"\nport = {}", self.port);
        Setup::new(&self.database)
            .entry(&entry)
            .hosts(&Self::hosts(addresses))
            .setting("session_functions = \"trust\"")
    }

    fn connections(&self) -> Vec<usize> {
        self.gates.iter().map(Gate::connections).collect()
    }
}

/// An address where connections are neither taken nor refused: as many wait as may.
struct Hole {
    _listener: Socket,
    _waiting: Vec<TcpStream>,
}

impl Hole {
    fn at(address: &str, port: u16) -> Self {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let address = format!("{address}:{port}").parse::<std::net::SocketAddr>().unwrap();
        listener.bind(&address.into()).unwrap();
        listener.listen(0).unwrap();
        let waiting =
            std::iter::from_fn(|| TcpStream::connect_timeout(&address, Duration::from_millis(200)).ok());
        Self { _waiting: waiting.collect(), _listener: listener }
    }
}

/// Addresses of the servers that there are, sorted.
fn addresses(pooler: &Pooler) -> Vec<String> {
    let columns = pooler.console("SHOW SERVERS").into_iter().flatten();
    let mut found: Vec<String> = columns.filter(|(name, _)| name == "addr").map(|(_, value)| value).collect();
    found.sort();
    found
}

fn wait_for_addresses(pooler: &Pooler, expected: &[&str]) {
    let met = wait_until(PATIENCE, || (addresses(pooler) == expected).then_some(()));
    assert!(met.is_some(), "{:?} and not {expected:?}\n{}", addresses(pooler), pooler.log());
}

#[test]
fn new_connections_go_to_each_address_in_turn() {
    let name = Name::of(3);
    let pooler = name.setup(&[2, 3, 4]).start();
    let _clients = pooler.hold(6);
    assert_eq!(name.connections(), [2, 2, 2]);
    let rows = pooler.console("SHOW DNS_HOSTS");
    let [(_, host), (_, ttl), (_, shown)] = &rows[0][..] else { panic!("{rows:?}") };
    assert_eq!((host.as_str(), rows.len()), ("many.test", 1));
    assert!((1..=15).contains(&ttl.parse::<u32>().unwrap()), "{ttl}");
    let mut shown: Vec<&str> = shown.split(',').collect();
    shown.sort_unstable();
    assert_eq!(shown, ["127.0.0.2:0", "127.0.0.3:0", "127.0.0.4:0"]);
    let lists = pooler.console("SHOW LISTS");
    assert!(lists.iter().any(|row| row[0].1 == "dns_names" && row[1].1 == "1"), "{lists:?}");
}

/// Without a limit, who waited for the silent one would wait for ever.
#[test]
fn addresses_that_refuse_or_do_not_answer_are_passed_over() {
    let name = Name::of(1);
    let _hole = Hole::at("127.0.0.8", name.port);
    // Nobody is at 127.0.0.9.
    let pooler = name.setup(&[8, 9, 2]).setting("server_connect_timeout = 0").start();
    let _clients = pooler.hold(3);
    assert_eq!(addresses(&pooler), ["127.0.0.2"; 3]);
}

/// Who takes connections and says nothing costs the first one its time, and not those that follow.
#[test]
fn addresses_that_say_nothing_are_tried_last() {
    let name = Name::of(2);
    name.gates[0].shut();
    let pooler = name.setup(&[2, 3]).setting("server_connect_timeout = 1").start();
    let _clients = pooler.hold(4);
    assert_eq!(addresses(&pooler), ["127.0.0.3"; 4]);
    assert_eq!(name.connections(), [1, 4]);
}

#[test]
fn connections_to_addresses_that_are_gone_are_closed_when_they_are_free() {
    let name = Name::of(3);
    let pooler = name.setup(&[2, 3]).setting("dns_max_ttl = \"100ms\"").start();
    let mut clients = pooler.hold(2);
    clients[0].sql("COMMIT");
    let both = addresses(&pooler);
    assert_eq!(both, ["127.0.0.2", "127.0.0.3"]);
    pooler.set_hosts(&Name::hosts(&[4]));
    // Nobody asks: nothing is known.
    clients[0].sql("SELECT 1");
    assert_eq!(addresses(&pooler), both);
    let mut more = pooler.hold(1);
    let _asks = wait_until(PATIENCE, || {
        more.extend(pooler.hold(1));
        addresses(&pooler).iter().any(|address| address == "127.0.0.4").then_some(())
    });
    // The transaction that is open goes on to its end.
    assert_eq!(clients[1].sql("SELECT 'open'"), ["open"]);
    clients.iter_mut().chain(&mut more).for_each(|client| drop(client.sql("COMMIT")));
    let gone = wait_until(PATIENCE, || addresses(&pooler).iter().all(|a| a == "127.0.0.4").then_some(()));
    assert!(gone.is_some(), "{:?}\n{}", addresses(&pooler), pooler.log());
    pooler.wait_for_log("closing because: obsolete connection");
}

#[test]
fn names_are_looked_up_again_now_and_then_if_wanted() {
    let name = Name::of(2);
    let pooler = name.setup(&[2]).start();
    drop(pooler.hold(1));
    wait_for_addresses(&pooler, &["127.0.0.2"]);
    pooler.set_hosts(&Name::hosts(&[3]));
    pooler.admin().sql("SET dns_zone_check_period = '0.1'");
    wait_for_addresses(&pooler, &[]);
    pooler.connect().sql("SELECT 1");
    assert_eq!(addresses(&pooler), ["127.0.0.3"]);
}

/// Nothing says that addresses of one name lead to one server: what functions leave is told by each one's own catalog, and
/// servers listen themselves.
#[test]
fn nothing_is_taken_from_one_address_for_true_at_another() {
    let mut name = Name::of(1);
    name.lead_elsewhere();
    name.database.sql("CREATE FUNCTION f(text) RETURNS text LANGUAGE sql AS $$ SELECT $1 $$");
    superuser(shared(Version::V18), &name.database.name).sql(
        "CREATE FUNCTION f(text) RETURNS text LANGUAGE sql AS $$ SELECT set_config('app.tenant', $1, false) $$",
    );
    let entry = format!("host = \"many.test\"\nport = {}", name.port);
    let setup = Setup::new(&name.database).entry(&entry).hosts(&Name::hosts(&[2, 3]));
    let pooler = setup.setting("server_round_robin = true").setting("workers = 1").start();
    drop(pooler.hold(2));
    let (mut client, mut other) = (pooler.connect(), pooler.connect());
    let tenant = "SELECT coalesce(nullif(current_setting('app.tenant', true), ''), 'none')";
    let mut left = 0;
    for round in 0..6 {
        client.sql(&format!("SELECT f('r{round}')"));
        let own = client.sql(tenant);
        left += usize::from(own == [format!("r{round}")]);
        // An odd number of turns in all.
        for _ in 0..3 {
            assert_eq!(other.sql(tenant), ["none"], "round {round}");
        }
    }
    assert!(left > 0 && left < 6, "{left}");
    other.sql("LISTEN news");
    assert!(pooler.console("SHOW LISTENERS").is_empty() && pooler.pinned().len() == 1);
}

/// H31: what has been known for too long costs nobody a connection.
#[test]
fn names_whose_addresses_cannot_be_reached_are_looked_up_at_once() {
    let name = Name::of(1);
    let pooler = name.setup(&[9]).setting("dns_max_ttl = \"1h\"").start();
    let waiting = {
        let (port, database) = (pooler.port, name.database.name.clone());
        let password = crate::support::database::password_of("app");
        std::thread::spawn(move || Raw::login(port, "app", &database, &password).sql("SELECT 'in time'"))
    };
    pooler.wait_for_log("server login failed");
    pooler.set_hosts(&Name::hosts(&[2]));
    assert_eq!(waiting.join().unwrap(), ["in time"]);
}

#[test]
fn failed_lookups_count_for_their_own_time() {
    let name = Name::of(1);
    let pooler = name.setup(&[]).setting("dns_nxdomain_ttl = \"1h\"").start();
    let waiting = {
        let (port, database) = (pooler.port, name.database.name.clone());
        let password = crate::support::database::password_of("app");
        std::thread::spawn(move || Raw::login(port, "app", &database, &password).sql("SELECT 'in time'"))
    };
    pooler.wait_for_log("DNS lookup failed: many.test");
    pooler.set_hosts(&Name::hosts(&[2]));
    // Tries again and again without asking.
    let tries = || pooler.log().matches("server login failed").count();
    let before = tries();
    assert!(wait_until(PATIENCE, || (tries() > before + 1).then_some(())).is_some());
    assert_eq!(pooler.log().matches("DNS lookup failed").count(), 1);
    pooler.admin().sql("SET dns_nxdomain_ttl = '0'");
    pooler.admin().sql("SET dns_zone_check_period = '0.1'");
    assert_eq!(waiting.join().unwrap(), ["in time"]);
}
