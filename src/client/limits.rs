//! Limits on client connections, counted before authentication.
//!
//! Owns the counters of the process; the limits themselves come from the configuration at each login, so a
//! reload changes them for the next client. Texts as in PgBouncer, SQLSTATE as in PostgreSQL.

use std::{
    collections::HashMap,
    os::fd::RawFd,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use crate::{
    config::{Config, Database, User},
    error::Report,
};

/// A limit that is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    #[error("no more connections allowed (max_client_conn)")]
    Clients,
    /// The process has hardly any file descriptors left.
    #[error("no more connections allowed (limit of open files)")]
    Descriptors,
    #[error("client connections exceeded (max_db_client_connections)")]
    Database,
    #[error("client connections exceeded (max_user_client_connections)")]
    User,
}

impl Report for LimitError {
    fn sqlstate(&self) -> &'static str {
        "53300"
    }

    fn hint(&self) -> Option<String> {
        let setting = match self {
            Self::Clients => "max_client_conn",
            Self::Descriptors => {
                let text = "Raise the limit of open files of the pooler (LimitNOFILE= in systemd, ulimit -n in a shell).";
                return Some(text.to_owned());
            }
            Self::Database => "max_db_client_connections",
            Self::User => "max_user_client_connections",
        };
        Some(format!("Raise {setting} in the configuration of the pooler, or close idle clients."))
    }
}

/// Clients per name (database or user); names without clients are not kept, so strangers cannot fill it.
#[derive(Debug, Default)]
struct Counters(Mutex<HashMap<Arc<str>, u32>>);

impl Counters {
    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one more, unless `limit` is reached: the name under which it is counted.
    fn enter(&self, name: &str, limit: Option<u32>) -> Option<Arc<str>> {
        let mut counts = self.lock();
        let (name, count) = match counts.get_key_value(name) {
            Some((name, count)) => (Arc::clone(name), *count),
            None => (Arc::from(name), 0),
        };
        if limit.is_some_and(|limit| count >= limit) {
            return None;
        }
        counts.insert(Arc::clone(&name), count.saturating_add(1));
        Some(name)
    }

    fn leave(&self, name: &str) {
        let mut counts = self.lock();
        match counts.get_mut(name) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                counts.remove(name);
            }
        }
    }

    fn count(&self, name: &str) -> u32 {
        self.lock().get(name).copied().unwrap_or(0)
    }
}

/// Counters of client connections, one per process.
#[derive(Debug, Default)]
pub struct ClientLimits {
    clients: AtomicU32,
    /// First file descriptor that is not for clients; 0: unknown.
    descriptors: AtomicU32,
    databases: Counters,
    users: Counters,
}

impl ClientLimits {
    /// Counts a connection from accept on.
    pub fn enter(self: &Arc<Self>) -> ClientPermit {
        self.clients.fetch_add(1, Relaxed);
        ClientPermit { limits: Arc::clone(self), crowded: false, database: None, user: None }
    }

    /// Sets the first file descriptor that is not for clients.
    pub fn keep_descriptors_from(&self, first: u32) {
        self.descriptors.store(first, Relaxed);
    }

    /// All client connections, those still logging in and console users included.
    pub fn clients(&self) -> u32 {
        self.clients.load(Relaxed)
    }

    /// Clients that asked for the database of this name.
    pub fn of_database(&self, name: &str) -> u32 {
        self.databases.count(name)
    }

    /// Clients that said to be this user.
    pub fn of_user(&self, name: &str) -> u32 {
        self.users.count(name)
    }
}

/// Counts one client connection until it is dropped.
#[derive(Debug)]
pub struct ClientPermit {
    limits: Arc<ClientLimits>,
    /// Its socket has a descriptor that is not for clients.
    crowded: bool,
    database: Option<Arc<str>>,
    user: Option<Arc<str>>,
}

/// What a client asked for, as far as limits care.
#[derive(Clone, Copy, Debug)]
pub struct Admission<'a> {
    pub database: &'a str,
    pub user: &'a str,
    /// The admin console: exempt from max_client_conn.
    pub console: bool,
}

impl ClientPermit {
    /// The descriptor of the client's socket.
    pub fn note_descriptor(&mut self, descriptor: RawFd) {
        let first = self.limits.descriptors.load(Relaxed);
        self.crowded = first > 0 && u32::try_from(descriptor).is_ok_and(|number| number >= first);
    }

    /// Applies the limits once the client has said who it is and what it wants; counts it under both names.
    pub fn admit(&mut self, config: &Config, client: Admission<'_>) -> Result<(), LimitError> {
        let settings = &config.settings;
        if !client.console && self.crowded {
            return Err(LimitError::Descriptors);
        }
        // This connection is counted already.
        if !client.console && self.limits.clients() > settings.max_client_conn {
            return Err(LimitError::Clients);
        }
        let exempt = client.console && settings.admin_users.iter().any(|admin| admin == client.user);
        let database = config.databases.get(client.database).or_else(|| config.databases.get("*"));
        let (nothing, nobody) = (Database::default(), User::default());
        let database = database.filter(|_| !client.console).map_or(&nothing, |database| database);
        let user = config.users.get(client.user).map_or(&nobody, |user| user);
        let (of_database, of_user) = if exempt {
            (None, None)
        } else {
            (config.max_db_client_connections(database), config.max_user_client_connections(user))
        };
        let counters = &self.limits;
        let entered = counters.databases.enter(client.database, of_database);
        self.database = Some(entered.ok_or(LimitError::Database)?);
        let entered = counters.users.enter(client.user, of_user);
        self.user = Some(entered.ok_or(LimitError::User)?);
        Ok(())
    }
}

impl Drop for ClientPermit {
    fn drop(&mut self) {
        if let Some(name) = &self.database {
            self.limits.databases.leave(name);
        }
        if let Some(name) = &self.user {
            self.limits.users.leave(name);
        }
        self.limits.clients.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(clients: u32, database: u32, user: u32) -> Config {
        let mut config = Config::default();
        config.settings.max_client_conn = clients;
        config.settings.max_db_client_connections = database;
        config.settings.max_user_client_connections = user;
        config.settings.admin_users = vec!["admin".to_owned()];
        config
    }

    fn app(user: &str) -> Admission<'_> {
        Admission { database: "app", user, console: false }
    }

    #[test]
    fn each_limit_refuses_the_client_beyond_it_and_counters_balance() {
        for (config, expected) in [
            (config(2, 0, 0), LimitError::Clients),
            (config(9, 2, 0), LimitError::Database),
            (config(9, 0, 2), LimitError::User),
        ] {
            let limits = Arc::new(ClientLimits::default());
            let mut permits = [limits.enter(), limits.enter()];
            for permit in &mut permits {
                permit.admit(&config, app("bob")).unwrap();
            }
            let mut third = limits.enter();
            assert_eq!(third.admit(&config, app("bob")), Err(expected));
            drop(third);
            assert_eq!((limits.clients(), limits.of_database("app"), limits.of_user("bob")), (2, 2, 2));
            drop(permits);
            assert_eq!((limits.clients(), limits.of_database("app"), limits.of_user("bob")), (0, 0, 0));
            assert!(limits.databases.lock().is_empty() && limits.users.lock().is_empty());
        }
    }

    #[test]
    fn console_passes_max_client_conn_and_admins_pass_all() {
        let limits = Arc::new(ClientLimits::default());
        let config = config(1, 1, 1);
        let console = |user| Admission { database: "pooler", user, console: true };
        let mut held = vec![limits.enter()];
        held[0].admit(&config, app("bob")).unwrap();
        for (user, expected) in [("ann", Ok(())), ("admin", Ok(())), ("eve", Err(LimitError::Database))] {
            let mut permit = limits.enter();
            assert_eq!(permit.admit(&config, console(user)), expected, "{user}");
            held.push(permit);
        }
        assert_eq!(limits.of_database("pooler"), 2);
    }

    // S50: servers can still be reached when clients have taken nearly all descriptors.
    #[test]
    fn descriptors_kept_for_servers_are_not_for_clients() {
        let limits = Arc::new(ClientLimits::default());
        limits.keep_descriptors_from(100);
        for (descriptor, console, expected) in
            [(99, false, Ok(())), (100, false, Err(LimitError::Descriptors)), (100, true, Ok(()))]
        {
            let mut permit = limits.enter();
            permit.note_descriptor(descriptor);
            let client = Admission { database: "app", user: "bob", console };
            assert_eq!(permit.admit(&config(9, 0, 0), client), expected, "{descriptor} {console}");
        }
    }

    #[test]
    fn reload_applies_to_the_next_client() {
        let limits = Arc::new(ClientLimits::default());
        let mut first = limits.enter();
        first.admit(&config(1, 0, 0), app("bob")).unwrap();
        let mut second = limits.enter();
        assert!(second.admit(&config(1, 0, 0), app("bob")).is_err());
        assert!(second.admit(&config(2, 0, 0), app("bob")).is_ok());
    }

    #[test]
    fn users_own_limit_beats_the_default() {
        let mut config = config(9, 0, 0);
        let bob = User { max_user_client_connections: Some(1), ..User::default() };
        config.users.insert("bob".to_owned(), Arc::new(bob));
        let limits = Arc::new(ClientLimits::default());
        let (mut first, mut second) = (limits.enter(), limits.enter());
        first.admit(&config, app("bob")).unwrap();
        assert_eq!(second.admit(&config, app("bob")), Err(LimitError::User));
    }
}
