//! What PostgreSQL tells: its limits, its databases, its replicas, and which of these can be reached from here.

use std::time::Duration;

use super::sizes::Room;
use crate::{
    cli::{Init, target::Target},
    config::Problem,
    error::Printable,
    inspect::{Facts, explain},
    server::{ConnectError, OwnSession, QueryError},
};

/// A login may take so long.
const LOGIN: Duration = Duration::from_secs(10);
/// The same at an address that is only guessed.
const GUESS: Duration = Duration::from_secs(3);
const ANSWER: Duration = Duration::from_secs(5);
/// PostgreSQL's own.
const USUAL_PORT: u16 = 5432;
/// More databases than these are not written down.
pub(super) const MOST_DATABASES: usize = 50;

const DATABASES: &str = "\
SELECT datname FROM pg_catalog.pg_database WHERE datallowconn AND NOT datistemplate \
AND pg_catalog.has_database_privilege(oid, 'CONNECT') ORDER BY 1";

/// Without pg_monitor all but the name are hidden.
const REPLICAS: &str = "\
SELECT application_name, pg_catalog.host(client_addr), client_hostname, state IS NULL, client_addr IS NULL \
FROM pg_catalog.pg_stat_replication \
WHERE coalesce(state, '') <> 'backup' AND application_name NOT IN ('pg_basebackup', 'pg_receivewal') ORDER BY 1, 2, pid";

/// Where a replica gets its WAL from.
const SENDER: &str = "SELECT sender_host, sender_port FROM pg_catalog.pg_stat_wal_receiver";

/// What is known.
#[derive(Debug)]
pub(super) struct Survey {
    /// The primary, and who has logged in there.
    pub(super) target: Target,
    pub(super) version: String,
    pub(super) facts: Facts,
    /// All nodes have TLS.
    pub(super) encrypted: bool,
    /// The one that was asked for first.
    pub(super) databases: Vec<String>,
    pub(super) further_databases: usize,
    pub(super) replicas: Vec<Replica>,
    /// Replicas that cannot be written down, and why.
    pub(super) missing: Vec<String>,
    pub(super) cores: Option<u32>,
}

#[derive(Debug)]
pub(super) struct Replica {
    pub(super) host: String,
    pub(super) port: u16,
    /// application_name, if it tells anything.
    pub(super) name: Option<String>,
}

impl Survey {
    pub(super) fn room(&self) -> Room {
        let limits = [self.facts.role_limit.filter(|_| !self.facts.superuser), self.facts.database_limit];
        Room {
            max_connections: self.facts.max_connections,
            reserved: self.facts.reserved,
            limit: limits.into_iter().flatten().min(),
            cores: self.cores,
            databases: u32::try_from(self.databases.len()).unwrap_or(u32::MAX),
            has_replicas: !self.replicas.is_empty(),
        }
    }
}

pub(super) async fn survey(mut target: Target, options: &Init) -> Result<Survey, Problem> {
    let session = target.connect_asking(LOGIN).await.map_err(|error| refused(&target, &error))?;
    let (mut session, facts, target) = primary(session, target).await?;
    // Packagers say more behind it.
    let version = session.parameter("server_version").unwrap_or_default();
    let version = version.split(' ').next().unwrap_or_default().to_owned();
    let mut others: Vec<String> = session
        .query(DATABASES, ANSWER)
        .await
        .map_err(|error| unanswered(&target, &error))?
        .into_iter()
        .filter_map(|row| row.into_iter().next().flatten())
        .filter(|name| *name != target.dbname && name != "postgres" && name != "*")
        .collect();
    let further_databases = others.len().saturating_sub(MOST_DATABASES - 1);
    others.truncate(MOST_DATABASES - 1);
    let mut databases = vec![target.dbname.clone()];
    databases.append(&mut others);

    let mut found = Found {
        target: &target,
        facts: &facts,
        replicas: Vec::new(),
        missing: Vec::new(),
        encrypted: session.is_encrypted(),
    };
    for node in &options.node {
        found.named(node).await?;
    }
    let rows = session.query(REPLICAS, ANSWER).await.map_err(|error| unanswered(&target, &error))?;
    let streaming = rows.len();
    for row in rows {
        let [name, address, host_name, hidden, local] = row.try_into().unwrap_or_default();
        let walreceiver = |name: &String| !name.is_empty() && name != "walreceiver";
        let (name, is) = (name.filter(walreceiver), |flag: Option<String>| flag.as_deref() == Some("t"));
        if is(hidden) {
            found.hidden(name.as_deref());
        } else {
            found.streaming(name, address, host_name, is(local)).await;
        }
    }
    let (replicas, mut missing, encrypted) = (found.replicas, found.missing, found.encrypted);
    // Those that were named on the command line are among them.
    missing.truncate(streaming.saturating_sub(replicas.len()));
    let here = || std::thread::available_parallelism().ok().and_then(|n| u32::try_from(n.get()).ok());
    let cores = options.cores.or_else(|| if target.is_local() { here() } else { None });
    session.close().await;
    Ok(Survey { target, version, facts, encrypted, databases, further_databases, replicas, missing, cores })
}

/// Leads from a replica to its primary.
async fn primary(mut session: OwnSession, target: Target) -> Result<(OwnSession, Facts, Target), Problem> {
    let facts = Facts::ask(&mut session, ANSWER).await.map_err(|error| unanswered(&target, &error))?;
    if !facts.standby {
        return Ok((session, facts, target));
    }
    let sender = session.query(SENDER, ANSWER).await.unwrap_or_default().into_iter().next();
    session.close().await;
    let remedy = "name the primary: what writes has to go there";
    let mut sender = sender.unwrap_or_default().into_iter();
    let (Some(host), Some(Ok(port))) =
        (sender.next().flatten(), sender.next().flatten().map(|port| port.parse::<u16>()))
    else {
        let message =
            format!("{target} is a replica, and does not tell {} where its primary is", target.user);
        return Err(Problem::of_call(message).remedy(format!("{remedy} (or GRANT pg_monitor TO the user)")));
    };
    let primary = target.at(&host, port);
    let failed = |reason: String| {
        let message = format!(
            "{target} is a replica; its primary, {}, cannot be used: {reason}",
            Printable(&primary.to_string())
        );
        Problem::of_call(message).remedy(remedy)
    };
    let mut session = primary.connect(LOGIN).await.map_err(|error| failed(error.to_string()))?;
    let facts = Facts::ask(&mut session, ANSWER).await.map_err(|error| failed(error.to_string()))?;
    if facts.standby {
        return Err(failed("it is a replica, too".to_owned()));
    }
    Ok((session, facts, primary))
}

fn refused(target: &Target, error: &ConnectError) -> Problem {
    let (message, remedy) = explain(error, &target.user, &target.dbname);
    let who = format!("{target}, user {}, database {}", Printable(&target.user), Printable(&target.dbname));
    let remedy = match error {
        ConnectError::WrongSecret { have: "no password", .. } => {
            "give the password in PGPASSWORD or in ~/.pgpass, or call this at a terminal, where it is asked for".to_owned()
        }
        _ => remedy,
    };
    Problem::of_call(format!("{who}: {message}")).remedy(remedy)
}

fn unanswered(target: &Target, error: &QueryError) -> Problem {
    Problem::of_call(format!("{target} does not tell what it is: {}", Printable(&error.to_string())))
        .remedy("name a PostgreSQL server itself: a pooler or a proxy in front of it cannot be asked")
}

/// Replicas so far.
struct Found<'a> {
    target: &'a Target,
    facts: &'a Facts,
    replicas: Vec<Replica>,
    missing: Vec<String>,
    /// All sessions so far had TLS.
    encrypted: bool,
}

impl Found<'_> {
    /// It is a replica of this primary.
    async fn is_replica(&mut self, host: &str, port: u16, limit: Duration) -> Result<(), String> {
        let place = self.target.at(host, port);
        let mut session = place.connect(limit).await.map_err(|error| error.to_string())?;
        let facts = Facts::ask(&mut session, ANSWER).await.map_err(|error| error.to_string());
        let encrypted = session.is_encrypted();
        session.close().await;
        let facts = facts?;
        if facts.system != self.facts.system {
            return Err("it belongs to another cluster".to_owned());
        }
        if !facts.standby {
            return Err("it is no replica".to_owned());
        }
        self.encrypted &= encrypted;
        Ok(())
    }

    fn knows(&self, host: &str, port: u16) -> bool {
        (host, port) == (&self.target.host, self.target.port)
            || self.replicas.iter().any(|known| (known.host.as_str(), known.port) == (host, port))
    }

    /// One that was named on the command line.
    async fn named(&mut self, node: &str) -> Result<(), Problem> {
        let wrong = |reason: &str| Problem::of_call(format!("--node {}: {reason}", Printable(node)));
        let (host, port) = crate::config::host_and_port(node, USUAL_PORT)
            .map_err(|reason| wrong(reason).remedy("write HOST:PORT"))?;
        if self.knows(&host, port) {
            return Ok(());
        }
        if let Err(reason) = self.is_replica(&host, port, LOGIN).await {
            let remedy = "name a replica of the same primary that this machine reaches, or leave it away";
            return Err(wrong(&Printable(&reason).to_string()).remedy(remedy));
        }
        self.replicas.push(Replica { host, port, name: None });
        Ok(())
    }

    fn hidden(&mut self, name: Option<&str>) {
        let name = name.map(|name| format!(" \"{}\"", Printable(name))).unwrap_or_default();
        self.missing.push(format!(
            "There is a replica{name}, and where it is, is hidden from {}: GRANT pg_monitor, or add it by hand.",
            Printable(&self.target.user)
        ));
    }

    /// One that the primary streams to. Where its clients connect is not known there: likely places are tried.
    async fn streaming(
        &mut self,
        name: Option<String>,
        address: Option<String>,
        host_name: Option<String>,
        local: bool,
    ) {
        let is_loopback = address
            .as_ref()
            .is_some_and(|address| address.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback()));
        // On the primary's own machine.
        let address = if local || is_loopback { Some(self.target.host.clone()) } else { address };
        let like_a_host = |name: &String| {
            name.contains('.') && name.chars().all(|c| c.is_ascii_alphanumeric() || ".-".contains(c))
        };
        let hosts = [address.clone(), host_name, name.clone().filter(like_a_host)];
        let mut tried = Vec::new();
        for host in hosts.into_iter().flatten() {
            for port in [self.target.port, USUAL_PORT] {
                let place = format!("{host}:{port}");
                if self.knows(&host, port) || tried.iter().any(|(known, _)| *known == place) {
                    continue;
                }
                match self.is_replica(&host, port, GUESS).await {
                    Ok(()) => {
                        self.replicas.push(Replica { host, port, name });
                        return;
                    }
                    Err(reason) => tried.push((place, reason)),
                }
            }
        }
        let name = name.map(|name| format!(" \"{}\"", Printable(&name))).unwrap_or_default();
        let from = address.map(|address| format!(" at {}", Printable(&address))).unwrap_or_default();
        let tried: Vec<String> = tried
            .iter()
            .map(|(place, reason)| format!("{} ({})", Printable(place), Printable(reason)))
            .collect();
        let tried = if tried.is_empty() { String::new() } else { format!(" Tried: {}.", tried.join(", ")) };
        self.missing.push(format!(
            "There is a replica{name}{from} that cannot be reached from here at a port that is known: add it by hand, \
             or call `pooler init --node HOST:PORT`.{tried}"
        ));
    }
}
