//! auth_hba_file: which way clients have to prove who they are, by where they come from; and auth_ident_file.
//!
//! PostgreSQL's pg_hba.conf ("The pg_hba.conf File" in its docs) as far as PgBouncer takes it: no groups, no names of
//! hosts, no samehost, samenet and samerole. Of the rules the first that fits counts. What cannot be read is told; who
//! reads it decides whether it may be passed over.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{AuthType, ldap::Ldap};

/// The rules of the file, and the maps that they name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hba {
    rules: Vec<Rule>,
    maps: Vec<MapLine>,
}

/// A line.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    connection: Connection,
    databases: Names,
    users: Names,
    /// Of those by TCP; `None`: all.
    addresses: Option<Network>,
    demand: Demand,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Connection {
    Local,
    Host,
    HostSsl,
    HostNoSsl,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Names {
    all: bool,
    /// The database that is called as the user.
    same: bool,
    /// Physical replication, which `all` does not stand for.
    replication: bool,
    names: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    bits: u32,
}

/// `map-name system-user database-user`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct MapLine {
    map: String,
    system: String,
    /// `None`: all.
    user: Option<String>,
}

/// Who asks to be let in.
#[derive(Clone, Copy, Debug)]
pub struct Asking<'a> {
    pub database: &'a str,
    pub user: &'a str,
    /// `None`: by unix socket.
    pub address: Option<IpAddr>,
    pub tls: bool,
    /// For physical replication: of the whole cluster, and not of a database.
    pub physical: bool,
}

/// What a rule demands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    pub method: AuthType,
    /// For methods that ask somebody else who the client is.
    pub map: Option<String>,
    /// Where method ldap asks; `None`: where auth_ldap_options say.
    pub ldap: Option<Arc<Ldap>>,
    /// Service of method pam; `None`: auth_pam_service.
    pub pam_service: Option<String>,
}

/// A line that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BadLine {
    pub(super) line: usize,
    pub(super) message: String,
    /// It may keep somebody out: without it more are let in.
    pub(super) rejects: bool,
}

const METHODS: &[(&str, AuthType)] = &[
    ("trust", AuthType::Trust),
    ("reject", AuthType::Reject),
    ("password", AuthType::Plain),
    ("plain", AuthType::Plain),
    ("md5", AuthType::Md5),
    ("scram-sha-256", AuthType::ScramSha256),
    ("peer", AuthType::Peer),
    ("cert", AuthType::Cert),
    ("ldap", AuthType::Ldap),
    ("pam", AuthType::Pam),
];

/// A part of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Word {
    text: String,
    /// It stands for nothing but itself.
    quoted: bool,
    /// A comma follows.
    goes_on: bool,
    /// Bytes of the line behind it.
    behind: usize,
}

impl Hba {
    /// Reads the rules. Names in files (`@FILE`) are read from beside `path`.
    pub(super) fn parse(&mut self, path: &Path, text: &str) -> Vec<BadLine> {
        let mut bad = Vec::new();
        let directory = path.parent().unwrap_or(Path::new(""));
        for (index, line) in text.lines().enumerate() {
            let read = words(line).and_then(|words| rule(line, &words, directory));
            match read {
                Ok(rule) => self.rules.extend(rule),
                Err(message) => {
                    bad.push(BadLine { line: index + 1, message, rejects: line.contains("reject") })
                }
            }
        }
        bad
    }

    /// Reads the maps.
    pub(super) fn parse_maps(&mut self, text: &str) -> Vec<BadLine> {
        let mut bad = Vec::new();
        for (index, line) in text.lines().enumerate() {
            match words(line).map(|words| words.into_iter().map(|word| word.text).collect::<Vec<_>>()) {
                Ok(words) if words.is_empty() => {}
                Ok(words) => match <[String; 3]>::try_from(words) {
                    Ok([map, system, user]) if !system.starts_with('/') && !user.starts_with('+') => {
                        let user = (user != "all").then_some(user);
                        self.maps.push(MapLine { map, system, user });
                    }
                    _ => {
                        let message = "expected: map-name system-user user (or all)".to_owned();
                        bad.push(BadLine { line: index + 1, message, rejects: false });
                    }
                },
                Err(message) => bad.push(BadLine { line: index + 1, message, rejects: false }),
            }
        }
        bad
    }

    /// What the first rule that fits demands; `None`: there is none, and nobody is let in.
    pub fn demand(&self, asking: Asking<'_>) -> Option<Demand> {
        let rule = self.rules.iter().find(|rule| rule.fits(asking))?;
        Some(rule.demand.clone())
    }

    /// Whether a user of the system (or of a certificate) may be this user.
    pub fn maps(&self, map: Option<&str>, system: &str, user: &str) -> bool {
        match map {
            None => system == user,
            Some(map) => self.maps.iter().any(|line| {
                line.map == map
                    && line.system == system
                    && line.user.as_deref().is_none_or(|mapped| mapped == user)
            }),
        }
    }

    /// Whether some rule has this method.
    pub(super) fn uses(&self, method: AuthType) -> bool {
        self.rules.iter().any(|rule| rule.demand.method == method)
    }

    /// Maps that rules name and that are not there.
    pub(super) fn missing_maps(&self) -> Vec<&str> {
        let named = self.rules.iter().filter_map(|rule| rule.demand.map.as_deref());
        named.filter(|map| !self.maps.iter().any(|line| line.map == **map)).collect()
    }
}

impl Rule {
    fn fits(&self, asking: Asking<'_>) -> bool {
        let by_this_way = match (self.connection, asking.address) {
            (Connection::Local, address) => address.is_none(),
            (_, None) => false,
            (Connection::Host, _) => true,
            (Connection::HostSsl, _) => asking.tls,
            (Connection::HostNoSsl, _) => !asking.tls,
        };
        let from_here = match (self.addresses, asking.address) {
            (Some(network), Some(address)) => network.has(address),
            _ => true,
        };
        by_this_way && from_here && self.concerns(asking) && self.users.has(asking.user)
    }
}

impl Rule {
    fn concerns(&self, asking: Asking<'_>) -> bool {
        let databases = &self.databases;
        if asking.physical {
            return databases.replication;
        }
        databases.has(asking.database) || databases.same && asking.database == asking.user
    }
}

impl Names {
    fn has(&self, name: &str) -> bool {
        self.all || self.names.iter().any(|known| known == name)
    }
}

impl Network {
    fn has(self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                same_start(u128::from(own.to_bits()) << 96, u128::from(other.to_bits()) << 96, self.bits)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => same_start(own.to_bits(), other.to_bits(), self.bits),
            _ => false,
        }
    }
}

fn same_start(a: u128, b: u128, bits: u32) -> bool {
    (a ^ b).checked_shr(128 - bits.min(128)).unwrap_or(0) == 0
}

/// The words of a line; quotes may stand around any part of one.
fn words(line: &str) -> Result<Vec<Word>, String> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while !rest.is_empty() && !rest.starts_with('#') {
        let mut word = Word { text: String::new(), quoted: false, goes_on: false, behind: 0 };
        let mut inside = false;
        let mut end = rest.len();
        for (at, c) in rest.char_indices() {
            match c {
                '"' => (inside, word.quoted) = (!inside, true),
                ',' if !inside => {
                    word.goes_on = true;
                    end = at + 1;
                    break;
                }
                '#' if !inside => {
                    end = at;
                    break;
                }
                c if c.is_whitespace() && !inside => {
                    end = at;
                    break;
                }
                c => word.text.push(c),
            }
        }
        if inside {
            return Err("a double quote is not closed".to_owned());
        }
        rest = rest.get(end..).unwrap_or_default();
        word.behind = rest.len();
        rest = rest.trim_start();
        // A comma may stand behind a blank, too.
        if let Some(behind) = rest.strip_prefix(',').filter(|_| !word.goes_on) {
            word.goes_on = true;
            rest = behind.trim_start();
        }
        words.push(word);
    }
    Ok(words)
}

/// The words of one field, and those behind it.
fn field(words: &[Word]) -> Option<(&[Word], &[Word])> {
    let length = words.iter().position(|word| !word.goes_on)? + 1;
    words.split_at_checked(length)
}

fn rule(line: &str, words: &[Word], directory: &Path) -> Result<Option<Rule>, String> {
    let Some((first, rest)) = words.split_first() else { return Ok(None) };
    let connection = match first.text.as_str() {
        "local" => Connection::Local,
        "host" => Connection::Host,
        "hostssl" => Connection::HostSsl,
        "hostnossl" => Connection::HostNoSsl,
        other => return Err(format!("unknown kind of connection \"{}\"", other.escape_debug())),
    };
    let missing = |what: &str| format!("{what} is missing");
    let (databases, rest) = field(rest).ok_or_else(|| missing("the database"))?;
    let (users, rest) = field(rest).ok_or_else(|| missing("the user"))?;
    let databases = names(databases, directory, &["sameuser"], &["samerole", "samegroup"])?;
    let users = names(users, directory, &[], &[])?;
    let (addresses, rest) = match connection {
        Connection::Local => (None, rest),
        _ => addresses(rest)?,
    };
    let (word, options) = rest.split_first().ok_or_else(|| missing("the method"))?;
    let found = METHODS.iter().find(|(name, _)| *name == word.text);
    let method = found.map(|(_, method)| *method).ok_or_else(|| {
        let known = METHODS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        format!("method \"{}\" is not supported; there are {known}", word.text.escape_debug())
    })?;
    if method == AuthType::Peer && connection != Connection::Local {
        return Err("method peer is for local connections".to_owned());
    }
    if method == AuthType::Cert && connection != Connection::HostSsl {
        return Err("method cert is for hostssl".to_owned());
    }
    let mut demand = Demand { method, ..Demand::default() };
    if method == AuthType::Ldap {
        // They have quotes of their own, and end where the words do.
        let from = line.len().saturating_sub(word.behind);
        let to = line.len().saturating_sub(options.last().map_or(word.behind, |last| last.behind));
        demand.ldap = Some(Arc::new(Ldap::parse(line.get(from..to).unwrap_or_default())?));
        return Ok(Some(Rule { connection, databases, users, addresses, demand }));
    }
    for option in options {
        match option.text.split_once('=') {
            Some(("map", name)) if matches!(method, AuthType::Peer | AuthType::Cert) => {
                demand.map = Some(name.to_owned());
            }
            Some(("pamservice", name)) if method == AuthType::Pam && !name.is_empty() => {
                demand.pam_service = Some(name.to_owned());
            }
            _ => return Err(format!("option \"{}\" is not supported", option.text.escape_debug())),
        }
    }
    Ok(Some(Rule { connection, databases, users, addresses, demand }))
}

fn names(words: &[Word], directory: &Path, special: &[&str], refused: &[&str]) -> Result<Names, String> {
    let mut found = Names::default();
    for word in words {
        let text = word.text.as_str();
        if word.quoted {
            found.names.push(text.to_owned());
        } else if text == "all" {
            found.all = true;
        } else if special.contains(&text) {
            found.same = true;
        } else if refused.contains(&text) || text.starts_with('+') || text.starts_with('/') {
            return Err(format!("\"{}\" is not supported", text.escape_debug()));
        } else if let Some(file) = text.strip_prefix('@') {
            let path: PathBuf = directory.join(file);
            let text = std::fs::read_to_string(&path)
                .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
            for line in text.lines() {
                found.names.extend(self::words(line)?.into_iter().map(|word| word.text));
            }
        } else if !text.is_empty() {
            match text {
                // Of a user's name it is nothing special.
                "replication" if special.contains(&"sameuser") => found.replication = true,
                name => found.names.push(name.to_owned()),
            }
        }
    }
    Ok(found)
}

/// `all`, `ADDRESS/BITS`, `ADDRESS` with or without `MASK`; and what follows.
fn addresses(words: &[Word]) -> Result<(Option<Network>, &[Word]), String> {
    let (first, rest) = words.split_first().ok_or("the address is missing")?;
    if first.text == "all" && !first.quoted {
        return Ok((None, rest));
    }
    let wrong = || format!("\"{}\" is not an address", first.text.escape_debug());
    let (address, bits) = match first.text.split_once('/') {
        Some((address, bits)) => (address, Some(bits.parse::<u32>().map_err(|_| wrong())?)),
        None => (first.text.as_str(), None),
    };
    let address: IpAddr = address.parse().map_err(|_| wrong())?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    if bits.is_some_and(|bits| bits > most) {
        return Err(wrong());
    }
    let mask = rest.first().filter(|_| bits.is_none()).and_then(|word| word.text.parse::<IpAddr>().ok());
    match (bits, mask) {
        (Some(bits), _) => Ok((Some(Network { address, bits }), rest)),
        (None, None) => Ok((Some(Network { address, bits: most }), rest)),
        (None, Some(mask)) => {
            let (ones, zeros, same) = match mask {
                IpAddr::V4(mask) => {
                    (mask.to_bits().leading_ones(), mask.to_bits().trailing_zeros(), address.is_ipv4())
                }
                IpAddr::V6(mask) => {
                    (mask.to_bits().leading_ones(), mask.to_bits().trailing_zeros(), address.is_ipv6())
                }
            };
            if !same || ones + zeros < most {
                return Err("the mask is none of that address".to_owned());
            }
            Ok((Some(Network { address, bits: ones }), rest.get(1..).unwrap_or_default()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Hba, Vec<BadLine>) {
        let mut hba = Hba::default();
        let bad = hba.parse(Path::new("/nowhere/hba"), text);
        (hba, bad)
    }

    fn asked(hba: &Hba, database: &str, user: &str, address: &str, tls: bool) -> String {
        let address = (address != "unix").then(|| address.parse().unwrap());
        let (database, physical) = match database.strip_prefix("physical ") {
            Some(database) => (database, true),
            None => (database, false),
        };
        match hba.demand(Asking { database, user, address, tls, physical }) {
            None => "none".to_owned(),
            Some(demand) => METHODS.iter().find(|(_, method)| *method == demand.method).unwrap().0.to_owned(),
        }
    }

    #[test]
    fn first_rule_that_fits_counts() {
        let (hba, bad) = read(
            "# comment\n\n\
             local all postgres peer map=m\n\
             local all all md5 # comment\n\
             host \"all\" all all reject\n\
             host sameuser all 10.0.0.0/8 trust\n\
             host db1,db2 , db3 alice,\"bob\" 192.168.1.0 255.255.255.0 password\n\
             hostssl all all ::/0 scram-sha-256\n\
             hostnossl all all 2001:db8::1 reject\n\
             host replication all 0.0.0.0/0 trust\n\
             hostssl secure carol 1.2.3.4/32 cert\n",
        );
        assert_eq!(bad, []);
        for (database, user, address, tls, expected) in [
            ("x", "postgres", "unix", false, "peer"),
            ("x", "alice", "unix", false, "md5"),
            ("all", "alice", "10.1.2.3", false, "reject"),
            ("alice", "alice", "10.1.2.3", false, "trust"),
            ("alice", "alice", "11.1.2.3", false, "none"),
            ("x", "alice", "10.1.2.3", false, "none"),
            ("db1", "alice", "192.168.1.77", true, "password"),
            ("db3", "bob", "192.168.1.77", false, "password"),
            ("db2", "carol", "192.168.1.77", false, "none"),
            ("db2", "bob", "192.168.2.77", false, "none"),
            ("x", "x", "2001:db8::1", true, "scram-sha-256"),
            ("x", "y", "2001:db8::1", false, "reject"),
            ("x", "y", "2001:db8::2", false, "none"),
            ("secure", "carol", "1.2.3.4", true, "cert"),
            ("secure", "carol", "1.2.3.4", false, "none"),
            ("replication", "carol", "1.2.3.4", false, "none"),
            ("physical x", "carol", "1.2.3.4", false, "trust"),
            // `all` does not stand for it.
            ("physical x", "alice", "2001:db8::2", true, "none"),
        ] {
            assert_eq!(
                asked(&hba, database, user, address, tls),
                expected,
                "{database} {user} {address} {tls}"
            );
        }
        assert_eq!(hba.missing_maps(), ["m"]);
        assert!(hba.uses(AuthType::Cert) && !hba.uses(AuthType::Any));
    }

    #[test]
    fn lines_that_cannot_be_read_are_told() {
        for (line, expected) in [
            ("hostgssenc all all all trust", "unknown kind of connection \"hostgssenc\""),
            ("local", "the database is missing"),
            ("local all,", "the database is missing"),
            ("local all", "the user is missing"),
            ("local all all", "the method is missing"),
            ("host all all", "the address is missing"),
            ("host all all trust", "\"trust\" is not an address"),
            ("host all all 1.2.3.4/33 trust", "\"1.2.3.4/33\" is not an address"),
            ("host all all 1.2.3.4 255.0.255.0 trust", "the mask is none of that address"),
            ("host all all 1.2.3.4 ffff:: trust", "the mask is none of that address"),
            ("host all all example.com trust", "\"example.com\" is not an address"),
            ("host all all samenet trust", "\"samenet\" is not an address"),
            ("host samerole all all trust", "\"samerole\" is not supported"),
            ("host all +admins all trust", "\"+admins\" is not supported"),
            ("host all /^a all trust", "\"/^a\" is not supported"),
            ("host all @none all trust", "cannot read /nowhere/none: No such file or directory (os error 2)"),
            ("host all \"x all trust", "a double quote is not closed"),
            (
                "local all all radius x=y",
                "method \"radius\" is not supported; there are trust, reject, password, plain, md5, scram-sha-256, peer, cert, ldap, pam",
            ),
            ("local all all ldap ldapserver=x", "ldapbasedn, ldapprefix or ldapsuffix is missing"),
            ("local all all ldap", "ldapserver is missing"),
            ("local all all pam map=x", "option \"map=x\" is not supported"),
            ("host all all all peer", "method peer is for local connections"),
            ("host all all all cert", "method cert is for hostssl"),
            ("local all all md5 map=x", "option \"map=x\" is not supported"),
        ] {
            let (hba, bad) = read(line);
            assert_eq!(bad.first().map(|bad| bad.message.as_str()), Some(expected), "{line}");
            assert_eq!(hba, Hba::default(), "{line}");
        }
        let rejects = |line| read(line).1[0].rejects;
        assert!(rejects("host all +bad all reject") && !rejects("host all +good all md5"));
    }

    #[test]
    fn options_of_ldap_and_pam_are_those_of_their_line() {
        let (hba, bad) = read(
            "host all a all ldap ldapserver=h ldapprefix=\"cn=\" ldapsuffix=\",dc=x\" # comment\n\
             host all b all pam\nhost all c all pam pamservice=mine\n",
        );
        assert_eq!(bad, []);
        let address = Some("1.2.3.4".parse().unwrap());
        let demand =
            |user| hba.demand(Asking { database: "d", user, address, tls: false, physical: false }).unwrap();
        let expected = Ldap::parse("ldapserver=h ldapprefix=cn= ldapsuffix=\",dc=x\"").unwrap();
        assert_eq!(demand("a").ldap, Some(Arc::new(expected)));
        assert_eq!((demand("b").pam_service, demand("c").pam_service), (None, Some("mine".to_owned())));
    }

    #[test]
    fn maps_say_who_may_be_whom() {
        let mut hba = Hba::default();
        let bad = hba.parse_maps("# comment\nm root postgres\nm \"a b\" all\nbroken\nm /^x y\nm x +y\n");
        assert_eq!(bad.iter().map(|bad| bad.line).collect::<Vec<_>>(), [4, 5, 6]);
        for (map, system, user, expected) in [
            (None, "x", "x", true),
            (None, "x", "y", false),
            (Some("m"), "root", "postgres", true),
            (Some("m"), "root", "root", false),
            (Some("m"), "a b", "anybody", true),
            (Some("other"), "root", "postgres", false),
            (Some("other"), "root", "root", false),
        ] {
            assert_eq!(hba.maps(map, system, user), expected, "{map:?} {system} {user}");
        }
    }
}
