//! auth_query: the secrets of users who are in no list, asked of PostgreSQL.
//!
//! Asked on sessions of pooler's own, which no client's parameters ever reach (CVE-2025-12819): one for each database and
//! auth_user, closed when nobody has needed it for a while. What was found is kept for `auth_query_lifetime`, never
//! what was not; a secret that a client could not prove is asked for again.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    config::{Config, Lookup},
    error::{Printable, Secret},
    net::tls::ServerTls,
    pool::registry::{Context, lookup_specs},
    server::{ConnectError, ConnectSpec, OwnSession, QueryError, Row, first_of},
};

/// A session that nobody has needed for so long is closed.
const IDLE: Duration = Duration::from_secs(10);
/// So long a server may take to let pooler in before the next one is tried as well.
const PATIENCE: Duration = Duration::from_secs(1);
/// Longest time for an answer.
const ANSWER: Duration = Duration::from_secs(15);
/// SQLSTATE invalid_catalog_name.
const NO_DATABASE: &str = "3D000";
/// Most secrets that are kept.
const MOST_KEPT: usize = 100_000;

/// What PostgreSQL knows of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// No such user.
    Nobody,
    /// Nobody can log in with a password (it has expired, or there is none).
    WithoutPassword,
    Secret(Secret<String>),
}

/// Why PostgreSQL could not be asked. The client is told no more than that: it is a stranger.
#[derive(Debug, thiserror::Error)]
#[error("the user cannot be looked up")]
pub struct LookupError;

/// What all logins share.
#[derive(Debug, Default)]
pub struct Lookups {
    sources: Mutex<HashMap<(String, String), Arc<Source>>>,
    kept: Mutex<HashMap<Key, (Secret<String>, Instant)>>,
    /// The last secret that was found was an md5 hash: what an unknown user pretends to have.
    md5: AtomicBool,
}

/// Database, auth_user, query and user.
type Key = (String, String, String, String);

/// Where secrets are asked for.
#[derive(Debug, Default)]
struct Source {
    asking: tokio::sync::Mutex<Asking>,
}

#[derive(Debug, Default)]
struct Asking {
    session: Option<(ConnectSpec, OwnSession)>,
    used: bool,
    /// Somebody sees to its end.
    watched: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn key(lookup: &Lookup, user: &str) -> Key {
    let Lookup { database, auth_user, query } = lookup;
    (database.name.clone(), auth_user.clone(), query.clone(), user.to_owned())
}

impl Lookups {
    /// Looks a user up.
    pub(crate) async fn find(
        &self,
        config: &Config,
        tls: &Arc<ServerTls>,
        lookup: &Lookup,
        user: &str,
    ) -> Result<Found, LookupError> {
        let lifetime = config.settings.auth_query_lifetime;
        if let Some((secret, since)) = lock(&self.kept).get(&key(lookup, user))
            && since.elapsed() < lifetime
        {
            return Ok(Found::Secret(secret.clone()));
        }
        let specs = lookup_specs(Context { config, tls, names: None }, &lookup.database, &lookup.auth_user);
        let place = (lookup.database.name.clone(), lookup.auth_user.clone());
        let source = Arc::clone(lock(&self.sources).entry(place.clone()).or_default());
        let asked_at = Instant::now();
        let rows = match source.ask(&specs, &lookup.query, user).await {
            // Whoever knows no password is not told which databases there are.
            Err(QueryError::Lost(ConnectError::Refused(error))) if error.sqlstate() == Some(NO_DATABASE) => {
                Ok(Vec::new())
            }
            rows => rows,
        };
        // With `*` a stranger may ask for any name: what leads nowhere is not kept.
        if rows.as_ref().map_or(true, Vec::is_empty) {
            lock(&self.sources).retain(|known, source| *known != place || Arc::strong_count(source) > 2);
        }
        let found = rows.map_err(|error| error.to_string()).and_then(|rows| found(rows, user));
        let found = found.map_err(|error| {
            let (database, error) = (Printable(&lookup.database.name), Printable(&error));
            tracing::error!(user = lookup.auth_user, "auth_query failed in database {database}: {error}");
            LookupError
        })?;
        if let Found::Secret(secret) = &found {
            self.md5.store(secret.0.starts_with("md5"), Ordering::Relaxed);
            if !lifetime.is_zero() {
                let mut kept = lock(&self.kept);
                if kept.len() >= MOST_KEPT {
                    kept.retain(|_, (_, since)| since.elapsed() < lifetime);
                }
                if kept.len() < MOST_KEPT {
                    kept.insert(key(lookup, user), (secret.clone(), asked_at));
                }
            }
        }
        Ok(found)
    }

    /// The secret may be outdated.
    pub(crate) fn forget(&self, lookup: &Lookup, user: &str) {
        lock(&self.kept).remove(&key(lookup, user));
    }

    /// Forgets all that was found: the configuration is another one.
    pub(crate) fn forget_all(&self) {
        lock(&self.kept).clear();
    }

    /// What kind of secret users have, as far as that is known.
    pub(crate) fn are_md5(&self) -> bool {
        self.md5.load(Ordering::Relaxed)
    }
}

/// What the rows say. Of several the last one counts, as in PgBouncer.
fn found(rows: Vec<Row>, user: &str) -> Result<Found, String> {
    let Some(row) = rows.into_iter().last() else { return Ok(Found::Nobody) };
    let [name, secret]: [Option<String>; 2] =
        row.try_into().map_err(|row: Row| format!("expected 2 columns, not {}", row.len()))?;
    match (name, secret) {
        (None, _) => Ok(Found::Nobody),
        // Whoever proves the secret of one user must not become another.
        (Some(name), _) if name != user => {
            tracing::warn!("auth_query answers about user {}, not {}", Printable(&name), Printable(user));
            Ok(Found::Nobody)
        }
        (Some(_), Some(secret)) if !secret.is_empty() => Ok(Found::Secret(Secret(secret))),
        (Some(_), _) => Ok(Found::WithoutPassword),
    }
}

/// Whether a session serves what another specification wants.
fn is_same(a: &ConnectSpec, b: &ConnectSpec) -> bool {
    let (x, y) = (&a.address, &b.address);
    (&x.host, x.port, x.sslmode) == (&y.host, y.port, y.sslmode)
        && Arc::ptr_eq(&x.tls, &y.tls)
        && (&a.user, &a.database, &a.credentials) == (&b.user, &b.database, &b.credentials)
        && (&a.parameters, &a.connect_query) == (&b.parameters, &b.connect_query)
}

impl Source {
    /// Asks one of the servers: whichever answers.
    async fn ask(
        self: Arc<Self>,
        specs: &[ConnectSpec],
        sql: &str,
        user: &str,
    ) -> Result<Vec<Row>, QueryError> {
        let mut asking = self.asking.lock().await;
        if let Some((spec, mut session)) = asking.session.take()
            && session.is_usable()
            && specs.iter().any(|wanted| is_same(&spec, wanted))
        {
            match session.query_with(sql, user, ANSWER).await {
                // It has been ended by somebody: the question is asked again.
                Err(error) if !session.is_usable() && !matches!(error, QueryError::Timeout(_)) => {}
                answer => return self.keep(&mut asking, spec, session, answer),
            }
        }
        let attempts = specs.iter().cloned().map(|spec| {
            let attempt = async move {
                let session = OwnSession::connect(&spec).await?;
                Ok((spec, session))
            };
            (PATIENCE, attempt)
        });
        let (_, (spec, mut session)) = first_of(attempts, |_, _| {}).await?;
        let answer = session.query_with(sql, user, ANSWER).await;
        self.keep(&mut asking, spec, session, answer)
    }

    fn keep(
        self: &Arc<Self>,
        asking: &mut Asking,
        spec: ConnectSpec,
        session: OwnSession,
        answer: Result<Vec<Row>, QueryError>,
    ) -> Result<Vec<Row>, QueryError> {
        if session.is_usable() {
            asking.session = Some((spec, session));
            asking.used = true;
            if !std::mem::replace(&mut asking.watched, true) {
                tokio::spawn(Arc::clone(self).close_when_idle());
            }
        }
        answer
    }

    async fn close_when_idle(self: Arc<Self>) {
        loop {
            tokio::time::sleep(IDLE).await;
            let mut asking = self.asking.lock().await;
            if std::mem::take(&mut asking.used) {
                continue;
            }
            asking.watched = false;
            let session = asking.session.take();
            drop(asking);
            if let Some((_, session)) = session {
                session.close().await;
            }
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_say_who_is_known_and_by_what() {
        let text = |text: &str| Some(text.to_owned());
        let secret = |text: &str| Ok(Found::Secret(Secret(text.to_owned())));
        let columns = |number| Err(format!("expected 2 columns, not {number}"));
        for (rows, expected) in [
            (vec![], Ok(Found::Nobody)),
            (vec![vec![text("u"), text("x")]], secret("x")),
            (vec![vec![text("u"), text("x")], vec![text("u"), text("y")]], secret("y")),
            (vec![vec![text("u"), None]], Ok(Found::WithoutPassword)),
            (vec![vec![text("u"), text("")]], Ok(Found::WithoutPassword)),
            (vec![vec![None, text("x")]], Ok(Found::Nobody)),
            (vec![vec![text("root"), text("x")]], Ok(Found::Nobody)),
            (vec![vec![text("x")]], columns(1)),
            (vec![vec![text("u"), text("x"), None]], columns(3)),
        ] {
            assert_eq!(found(rows, "u"), expected);
        }
    }
}
