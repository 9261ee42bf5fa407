//! What a session makes of its startup packet: version, names, parameters. Pure.
//!
//! Source: PostgreSQL docs "Start-up" and "NegotiateProtocolVersion"; `ProcessStartupPacket` and
//! `process_startup_options` in PostgreSQL.

use super::error::{LoginError, StartupError};
use crate::protocol::{ProtocolVersion, encode, startup::parse_options};

/// A session that a client asks for.
#[derive(Debug, PartialEq, Eq)]
pub struct Request {
    /// As negotiated: 3.0 or 3.2.
    pub protocol: ProtocolVersion,
    /// NegotiateProtocolVersion is due: the client asked for another version, or for these options.
    pub negotiate: Option<Vec<String>>,
    pub user: String,
    /// Defaults to the user's name.
    pub database: String,
    /// As in `LoggedIn::parameters`.
    pub parameters: Vec<(String, String)>,
    pub replication: Replication,
}

/// What a client wants to replicate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Replication {
    /// It is a client as others are.
    #[default]
    None,
    /// What happens in one database.
    Logical,
    /// The whole cluster.
    Physical,
}

impl Replication {
    /// As in SHOW.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Logical => "logical",
            Self::Physical => "physical",
        }
    }

    /// As in a startup packet, and in the log.
    pub fn parameter(self) -> &'static str {
        match self {
            Self::None => "no",
            Self::Logical => "database",
            Self::Physical => "yes",
        }
    }
}

impl Request {
    /// Reads version and parameters; those named in `ignored` (ignore_startup_parameters) are dropped.
    pub fn read(
        version: ProtocolVersion,
        parameters: Vec<(String, String)>,
        ignored: &[String],
    ) -> Result<Self, LoginError> {
        let (mut user, mut database, mut options) = (None, None, None);
        let mut replication = Replication::None;
        let (mut unknown, mut rest) = (Vec::new(), Vec::with_capacity(parameters.len()));
        for (name, value) in parameters {
            // Of a name given twice the last one counts, as in PostgreSQL.
            match name.as_str() {
                "user" => user = Some(value),
                "database" => database = Some(value),
                _ if ignored.contains(&name) => {}
                "options" => options = Some(value),
                "replication" => replication = replication_of(&value)?,
                _ if name.starts_with("_pq_.") => unknown.push(name),
                _ => rest.push((name, value)),
            }
        }
        let user = user.filter(|user| !user.is_empty()).ok_or(StartupError::NoUser)?;
        let database = database.filter(|name| !name.is_empty()).unwrap_or_else(|| user.clone());
        let mut parameters = match options {
            // The server reads them itself.
            Some(options) if replication != Replication::None => vec![("options".to_owned(), options)],
            Some(options) => parse_options(&options)?,
            None => Vec::new(),
        };
        parameters.retain(|(name, _)| !ignored.contains(name));
        parameters.append(&mut rest);
        let protocol = negotiated(version);
        let negotiate = (protocol != version || !unknown.is_empty()).then_some(unknown);
        Ok(Self { protocol, negotiate, user, database, parameters, replication })
    }

    /// Adds where the client is to its application_name; one without a name is called `app`, as in PgBouncer.
    pub fn add_host(&mut self, host: &str) {
        let name = "application_name";
        let given = self.parameters.iter().rposition(|(known, _)| known.eq_ignore_ascii_case(name));
        let own = given.map(|at| self.parameters.remove(at).1).filter(|own| !own.is_empty());
        let value = format!("{} - {host}", own.as_deref().unwrap_or("app"));
        self.parameters.push((name.to_owned(), value));
    }

    /// Appends NegotiateProtocolVersion, if due.
    pub fn write_negotiation(&self, out: &mut Vec<u8>) {
        if let Some(unknown) = &self.negotiate {
            let names: Vec<&str> = unknown.iter().map(String::as_str).collect();
            encode::negotiate_protocol_version(out, self.protocol, &names);
        }
    }
}

/// The version that is spoken with a client that asks for `version` (of major 3).
fn negotiated(version: ProtocolVersion) -> ProtocolVersion {
    if version >= ProtocolVersion::V3_2 { ProtocolVersion::V3_2 } else { ProtocolVersion::V3_0 }
}

/// `database` or a boolean. Spellings as in PostgreSQL's `parse_bool`: any unambiguous prefix.
fn replication_of(value: &str) -> Result<Replication, StartupError> {
    let value = value.to_ascii_lowercase();
    let is = |word: &str, shortest: usize| value.len() >= shortest && word.starts_with(&value);
    if value == "0" || is("false", 1) || is("no", 1) || is("off", 2) {
        Ok(Replication::None)
    } else if value == "database" {
        Ok(Replication::Logical)
    } else if value == "1" || is("true", 1) || is("yes", 1) || is("on", 2) {
        Ok(Replication::Physical)
    } else {
        Err(StartupError::ReplicationValue(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Report;

    fn read(version: ProtocolVersion, list: &[(&str, &str)]) -> Result<Request, LoginError> {
        let parameters = list.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Request::read(version, parameters, &["extra".to_owned()])
    }

    #[test]
    fn options_come_first_and_special_names_do_not_appear() {
        let request = read(
            ProtocolVersion::V3_0,
            &[
                ("user", "bob"),
                ("application_name", "psql"),
                ("extra", "x"),
                ("replication", "off"),
                ("options", "-c search_path=a --extra=1"),
                ("client_encoding", "UTF8"),
            ],
        )
        .unwrap();
        assert_eq!((request.user.as_str(), request.database.as_str()), ("bob", "bob"));
        let names: Vec<&str> = request.parameters.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["search_path", "application_name", "client_encoding"]);
        assert_eq!(request.negotiate, None);
    }

    #[test]
    fn the_host_is_added_to_the_name_that_counts() {
        for (list, expected) in [
            (&[("user", "a")][..], "app - h:1"),
            (&[("user", "a"), ("application_name", "")], "app - h:1"),
            (&[("user", "a"), ("application_name", "x"), ("application_name", "y")], "y - h:1"),
            (&[("user", "a"), ("options", "-c application_name=z")], "z - h:1"),
        ] {
            let mut request = read(ProtocolVersion::V3_0, list).unwrap();
            request.add_host("h:1");
            let last = ("application_name".to_owned(), expected.to_owned());
            assert_eq!(request.parameters.last(), Some(&last));
        }
    }

    #[test]
    fn last_of_duplicates_counts() {
        let request = read(
            ProtocolVersion::V3_0,
            &[("user", "a"), ("database", "x"), ("user", "b"), ("database", "y")],
        )
        .unwrap();
        assert_eq!((request.user.as_str(), request.database.as_str()), ("b", "y"));
    }

    /// H39: version and `_pq_.` options are negotiated.
    #[test]
    fn newer_versions_and_unknown_options_are_negotiated() {
        let v = |minor: u32| ProtocolVersion((3 << 16) | minor);
        for (asked, option, spoken, negotiated) in [
            (v(0), None, v(0), false),
            (v(1), None, v(0), true),
            (v(2), None, v(2), false),
            (v(3), None, v(2), true),
            (v(9999), None, v(2), true),
            (v(0), Some("_pq_.x"), v(0), true),
            (v(2), Some("_pq_.x"), v(2), true),
        ] {
            let mut list = vec![("user", "bob")];
            list.extend(option.map(|name| (name, "1")));
            let request = read(asked, &list).unwrap();
            assert_eq!(request.protocol, spoken);
            assert_eq!(request.negotiate.is_some(), negotiated, "{asked:?}");
            assert!(request.parameters.is_empty());
            let mut out = Vec::new();
            request.write_negotiation(&mut out);
            if option.is_some() {
                assert!(out.ends_with(b"\0\0\0\x01_pq_.x\0"));
            }
            assert_eq!(out.first().copied(), negotiated.then_some(b'v'));
        }
    }

    #[test]
    fn missing_user_and_nonsense_about_replication_are_refused() {
        for (list, code) in [
            (&[("database", "x")][..], "28000"),
            (&[("user", "")], "28000"),
            (&[("user", "a"), ("replication", "o")], "22023"),
            (&[("user", "a"), ("options", "-B 4")], "0A000"),
        ] {
            assert_eq!(read(ProtocolVersion::V3_0, list).unwrap_err().sqlstate(), code, "{list:?}");
        }
        for (replication, values) in [
            (Replication::None, &["0", "f", "FALSE", "no", "off"][..]),
            (Replication::Physical, &["1", "t", "True", "yes", "on"]),
            (Replication::Logical, &["database", "DATABASE"]),
        ] {
            for value in values {
                let list = [("user", "a"), ("options", "-B 4"), ("replication", value)];
                let list = if replication == Replication::None { &[list[0], list[2]][..] } else { &list };
                let request = read(ProtocolVersion::V3_0, list).unwrap();
                assert_eq!(request.replication, replication, "{value}");
                let options = request.parameters.iter().find(|(name, _)| name == "options");
                assert_eq!(options.map(|(_, value)| value.as_str()), list.get(2).map(|_| "-B 4"));
            }
        }
    }
}
