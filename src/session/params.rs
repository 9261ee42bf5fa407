//! Session parameters as labels: a client and a server whose labels are equal need no SET between them.
//!
//! A label holds the parameters that the server reports and that a client can change, and what else a client asked for
//! at startup. The server's ParameterStatus is the truth for those that it reports.

use std::sync::Arc;

use super::interner::Interner;

/// Reported, but not for a client to set: never part of a label.
const NOT_SETTABLE: [&str; 6] = [
    "server_version",
    "server_encoding",
    "integer_datetimes",
    "is_superuser",
    "session_authorization",
    "in_hot_standby",
];

/// Longest application_name that PostgreSQL keeps (NAMEDATALEN - 1).
const MAX_APPLICATION_NAME: usize = 63;

/// Whether the server would take the value and report it unchanged. Everything else has to be tried on a server.
pub fn is_certain(name: &str, value: &str) -> bool {
    name.eq_ignore_ascii_case("application_name")
        && value.len() <= MAX_APPLICATION_NAME
        && value.bytes().all(|b| (32..127).contains(&b))
}

/// Whether a reported parameter follows the client.
pub fn is_settable(name: &str) -> bool {
    !NOT_SETTABLE.iter().any(|n| n.eq_ignore_ascii_case(name))
}

/// Whether only some versions of PostgreSQL that are in use know a reported parameter (`scram_iterations`: since 16): where
/// hosts may differ, it is in no label before a client sets it.
pub fn is_of_some_versions(name: &str) -> bool {
    name.eq_ignore_ascii_case("scram_iterations")
}

/// All labels in use.
#[derive(Debug, Default)]
pub struct Labels(Interner<Params>);

impl Labels {
    /// The shared label with these parameters.
    pub fn intern(&self, params: Params) -> Label {
        self.0.intern(&params.clone(), |p| *p == params, || params.clone())
    }

    /// `label` without what does not satisfy `keep`; `label` itself if all of it does.
    pub fn keeping(&self, label: &Label, keep: impl Fn(&str) -> bool) -> Label {
        if label.iter().all(|(name, _)| keep(name)) {
            return Arc::clone(label);
        }
        self.intern(Params::from_pairs(label.iter().filter(|(name, _)| keep(name))))
    }

    /// `label` with one value changed; `label` itself if nothing changes.
    pub fn with(&self, label: &Label, name: &str, value: &str) -> Label {
        if label.get(name) == Some(value) {
            return Arc::clone(label);
        }
        let mut params = Params::clone(label);
        params.set(name, value);
        self.intern(params)
    }
}

/// Names and values, sorted by lower-case name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Params(Vec<(Arc<str>, Arc<str>)>);

/// A set of parameters that clients and servers share by pointer.
pub type Label = Arc<Params>;

fn order(a: &str, b: &str) -> std::cmp::Ordering {
    let lower = |s: &str| s.bytes().map(|b| b.to_ascii_lowercase()).collect::<Vec<_>>();
    lower(a).cmp(&lower(b))
}

impl Params {
    /// From ParameterStatus or startup pairs; a later pair wins.
    pub fn from_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut params = Self::default();
        for (name, value) in pairs {
            params.set(name, value);
        }
        params
    }

    /// The value of a parameter, whatever the case of its name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| &**v)
    }

    /// Sets a value; an existing name keeps its spelling (the server's).
    pub fn set(&mut self, name: &str, value: &str) {
        match self.0.iter_mut().find(|(n, _)| n.eq_ignore_ascii_case(name)) {
            Some((_, old)) => {
                if **old != *value {
                    *old = value.into();
                }
            }
            None => {
                let at = self.0.partition_point(|(n, _)| order(n, name).is_lt());
                self.0.insert(at, (name.into(), value.into()));
            }
        }
    }

    /// All pairs in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(n, v)| (&**n, &**v))
    }
}
