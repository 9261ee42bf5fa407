//! How many logins have failed, and why: for those who watch.
//!
//! By a few words only: names that come with a login are anybody's.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::error::LoginError;

/// Why a login failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailedLogin {
    /// The password is wrong, or the user unknown: nobody is told which.
    Password,
    /// Rules, certificates or lists of users do not let it in.
    NotAllowed,
    NoDatabase,
    /// Too many clients.
    Limit,
    Tls,
    /// client_login_timeout.
    Timeout,
    /// auth_query could not be asked.
    Lookup,
    /// What came is no login that could be served.
    Protocol,
    /// The client went away.
    Closed,
}

/// Counters by reason.
#[derive(Debug, Default)]
pub struct FailedLogins([AtomicU64; FailedLogin::ALL.len()]);

impl FailedLogin {
    /// All, in the order of their numbers.
    pub const ALL: [Self; 9] = [
        Self::Password,
        Self::NotAllowed,
        Self::NoDatabase,
        Self::Limit,
        Self::Tls,
        Self::Timeout,
        Self::Lookup,
        Self::Protocol,
        Self::Closed,
    ];

    /// What operators read.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::NotAllowed => "not_allowed",
            Self::NoDatabase => "no_database",
            Self::Limit => "limit",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::Lookup => "lookup",
            Self::Protocol => "protocol",
            Self::Closed => "closed",
        }
    }

    /// What an error comes under.
    pub fn of(error: &LoginError) -> Self {
        use LoginError as Error;
        match error {
            Error::Auth(_) | Error::WrongPassword { .. } | Error::Elsewhere { .. } => Self::Password,
            Error::ConsoleNotAllowed
            | Error::NoRule
            | Error::Rejected
            | Error::Peer
            | Error::Certificate
            | Error::NoForcedUser(_) => Self::NotAllowed,
            Error::NoSuchDatabase(_) => Self::NoDatabase,
            Error::Limit(_) => Self::Limit,
            Error::Handshake(_) | Error::NoAlpn | Error::SslRequired | Error::Unencrypted(_) => Self::Tls,
            Error::Timeout => Self::Timeout,
            Error::Lookup(_) => Self::Lookup,
            // What opens a connection and says nothing, as checks of load balancers do.
            Error::Closed | Error::Io(_) => Self::Closed,
            Error::Packet(_)
            | Error::Startup(_)
            | Error::Options(_)
            | Error::RepeatedRequest
            | Error::NotPassword(_)
            | Error::MessageLength => Self::Protocol,
        }
    }
}

impl FailedLogins {
    /// Counts one.
    pub fn count(&self, error: &LoginError) {
        self.add(FailedLogin::of(error));
    }

    /// Counts one that failed for this reason.
    pub fn add(&self, why: FailedLogin) {
        if let Some(counter) = self.0.get(why as usize) {
            counter.fetch_add(1, Relaxed);
        }
    }

    /// How many of each there were.
    pub fn counts(&self) -> Vec<(&'static str, u64)> {
        let counts = self.0.iter().map(|counter| counter.load(Relaxed));
        FailedLogin::ALL.into_iter().map(FailedLogin::as_str).zip(counts).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_list() {
        for (index, why) in FailedLogin::ALL.into_iter().enumerate() {
            assert_eq!(why as usize, index);
        }
        let failures = FailedLogins::default();
        failures.count(&LoginError::Timeout);
        failures.count(&LoginError::NoSuchDatabase("x".to_owned()));
        failures.count(&LoginError::Timeout);
        let counted: Vec<_> = failures.counts().into_iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(counted, [("no_database", 1), ("timeout", 2)]);
    }
}
