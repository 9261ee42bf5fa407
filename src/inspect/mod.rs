//! `pooler check --connect`: logs in wherever clients of a configuration would be led to, and tells what would fail there.
//!
//! `plan` says which logins there are, `facts` asks a server what it is, `capacity` counts what the pools may take,
//! `compare` looks at the servers of a database side by side, and `judge` makes findings of it all (`verdict`), without
//! asking anybody itself. Logins are those of the pools: the same TLS, the same secrets. Nothing is changed at the servers,
//! and no secret is printed.

mod capacity;
mod compare;
mod facts;
mod judge;
#[cfg(test)]
mod judge_tests;
mod plan;
mod trouble;
mod verdict;

use std::{
    collections::HashMap,
    io::Write as _,
    path::Path,
    process::ExitCode,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Semaphore, task::JoinSet};

pub(crate) use self::facts::Facts;
use self::{
    plan::{Attempt, LookupAttempt, Plan},
    trouble::Trouble,
    verdict::{Finding, Verdict},
};
use crate::{
    cli,
    cluster::discovery::{FoundBySource, Source},
    config::Config,
    net::tls::ServerTls,
    server::{ConnectError, OwnSession, QueryError},
};

/// Logins that are under way at the same time.
const AT_ONCE: usize = 12;
/// A login may take so long, unless `server_connect_timeout` is shorter.
const LOGIN: Duration = Duration::from_secs(10);
/// An answer may take so long.
const ANSWER: Duration = Duration::from_secs(5);

/// What became of the logins.
#[derive(Debug, Default)]
struct Outcome {
    logins: Vec<(Attempt, Result<Login, Trouble>)>,
    lookups: Vec<(LookupAttempt, Result<(), Trouble>)>,
}

/// A login that succeeded.
#[derive(Clone, Debug)]
struct Login {
    encrypted: bool,
    /// `server_version`, as the server reports it.
    version: String,
    /// What the server says of itself, or why it does not.
    facts: Result<Facts, String>,
}

/// Checks the file as `pooler check` does, and then what it leads to.
pub fn run(path: &Path) -> ExitCode {
    let loaded = match cli::load_usable(path) {
        Ok(loaded) => loaded,
        failed => return cli::tell(path, failed),
    };
    let config = loaded.config.clone();
    let code = cli::tell(path, Ok(loaded));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let verdict = match runtime {
        Ok(runtime) => runtime.block_on(inspect(&config)),
        Err(error) => {
            eprintln!("pooler: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    // Who closed the other end of a pipe does not want to read on.
    let _ = std::io::stdout().write_all(verdict.text(path).as_bytes());
    if verdict.would_fail() { ExitCode::FAILURE } else { code }
}

/// Logs in everywhere, and judges.
async fn inspect(config: &Config) -> Verdict {
    let mut findings = Vec::new();
    let tls = match ServerTls::build(&config.settings) {
        Ok(tls) => Arc::new(tls),
        // `check` has told it already.
        Err(error) => return Verdict::of(vec![Finding::error(error.to_string(), error.hint())]),
    };
    let found = find_nodes(config, &tls, &mut findings).await;
    let plan = plan::plan(config, &tls, &found);
    let notes = plan.notes.clone();
    let outcome = carry_out(plan).await;
    judge::judge(config, &outcome, notes, findings)
}

/// The nodes of databases that do not name them all.
async fn find_nodes(config: &Config, tls: &Arc<ServerTls>, findings: &mut Vec<Finding>) -> FoundBySource {
    let mut found = FoundBySource::new();
    let sources: std::collections::BTreeMap<String, Source> = config
        .databases
        .values()
        .flat_map(|database| Source::of(database))
        .map(|source| (source.to_string(), source))
        .collect();
    for (name, source) in sources {
        match source.look_up(tls, ANSWER).await {
            Ok(nodes) => drop(found.insert(source, nodes)),
            Err(error) => {
                let remedy = match source {
                    Source::Name(..) => "check the name; without its addresses the database has no nodes",
                    Source::Patroni(_) => {
                        "check the addresses in `patroni`: one of these REST APIs has to answer from here"
                    }
                };
                findings.push(Finding::error(format!("{name}: nodes cannot be found: {error}"), remedy));
            }
        }
    }
    found
}

/// All logins, a few at a time.
async fn carry_out(plan: Plan) -> Outcome {
    let permits = Arc::new(Semaphore::new(AT_ONCE));
    let silent = Arc::new(Silent::default());
    let mut logins = JoinSet::new();
    for (number, attempt) in plan.attempts.into_iter().enumerate() {
        let (permits, silent) = (Arc::clone(&permits), Arc::clone(&silent));
        logins.spawn(async move {
            // Nobody closes it.
            let _permit = permits.acquire_owned().await;
            let result = log_in(&attempt, &silent).await;
            (number, attempt, result)
        });
    }
    let mut lookups = JoinSet::new();
    for (number, lookup) in plan.lookups.into_iter().enumerate() {
        let permits = Arc::clone(&permits);
        lookups.spawn(async move {
            let _permit = permits.acquire_owned().await;
            let result = look_up(&lookup).await;
            (number, lookup, result)
        });
    }
    let mut logins = logins.join_all().await;
    let mut lookups = lookups.join_all().await;
    logins.sort_by_key(|(number, ..)| *number);
    lookups.sort_by_key(|(number, ..)| *number);
    Outcome {
        logins: logins.into_iter().map(|(_, attempt, result)| (attempt, result)).collect(),
        lookups: lookups.into_iter().map(|(_, lookup, result)| (lookup, result)).collect(),
    }
}

/// Why a login failed, and what to do about it.
pub(crate) fn explain(error: &ConnectError, user: &str, dbname: &str) -> (String, String) {
    let trouble = Trouble::Login(error.clone());
    (trouble.message(), trouble.remedy(user, dbname))
}

/// Never without a limit, which `server_connect_timeout = 0` would be.
fn login_limit(configured: Duration) -> Duration {
    if configured.is_zero() { LOGIN } else { configured.min(LOGIN) }
}

/// Places that nobody could reach: others need not wait there, too.
#[derive(Debug, Default)]
struct Silent(Mutex<HashMap<(String, String), ConnectError>>);

impl Silent {
    fn known(&self) -> MutexGuard<'_, HashMap<(String, String), ConnectError>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn connect(&self, attempt: &Attempt) -> Result<OwnSession, ConnectError> {
        // Databases may differ in how they connect.
        let place = (attempt.place.to_string(), attempt.database.name.clone());
        if let Some(error) = self.known().get(&place) {
            return Err(error.clone());
        }
        let result = OwnSession::connect(&attempt.spec).await;
        if let Err(
            error @ (ConnectError::Resolve { .. }
            | ConnectError::Network { .. }
            | ConnectError::Timeout { .. }),
        ) = &result
        {
            self.known().insert(place, error.clone());
        }
        result
    }
}

async fn log_in(attempt: &Attempt, silent: &Silent) -> Result<Login, Trouble> {
    let mut session = silent.connect(attempt).await.map_err(Trouble::Login)?;
    let facts = Facts::ask(&mut session, ANSWER).await.map_err(|error| error.to_string());
    let version = session.parameter("server_version").unwrap_or_default().to_owned();
    let login = Login { encrypted: session.is_encrypted(), version, facts };
    session.close().await;
    Ok(login)
}

/// Asks whichever server answers for the secret of auth_user itself.
async fn look_up(lookup: &LookupAttempt) -> Result<(), Trouble> {
    let mut last = Trouble::Login(ConnectError::Closed);
    for spec in &lookup.specs {
        let mut session = match OwnSession::connect(spec).await {
            Ok(session) => session,
            Err(error) => {
                last = Trouble::Login(error);
                continue;
            }
        };
        let answer = session.query_with(&lookup.query, &lookup.auth_user, ANSWER).await;
        session.close().await;
        return match answer {
            Err(QueryError::Lost(error)) => Err(Trouble::Login(error)),
            Err(error) => Err(Trouble::Question(error)),
            Ok(rows) => match rows.last() {
                Some(row) if row.len() != 2 => Err(Trouble::Columns(row.len())),
                Some(row) if row.first().is_some_and(|name| name.as_deref() != Some(&lookup.auth_user)) => {
                    Err(Trouble::OtherUser)
                }
                _ => Ok(()),
            },
        };
    }
    Err(last)
}
