//! Every setting of PgBouncer at work: what is seen of it without it, with it, and when it goes again.
//!
//! What RELOAD changes is changed by RELOAD, in a pooler that all cases of a group share; what needs a restart is tried
//! with a pooler of its own, and told in the log of the other.

mod auth;
mod limits;
mod process;
mod rest;
mod times;
mod tls;

use std::{collections::BTreeSet, fs, net::TcpListener, time::Duration};

use pooler::demo::process::{free_port, wait_until};

use crate::{
    pgbouncer::{Running, Stage},
    support::{
        database::{Database, certificates, password_of},
        msg::query,
        raw::{PATIENCE, Raw},
    },
};

/// A setting.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// Other lines of `[pgbouncer]`, which are there all the time.
    pub(crate) base: &'static str,
    /// Lines may follow.
    pub(crate) value: &'static str,
    /// What is seen of it, in a few words.
    pub(crate) probe: fn(&Ground) -> String,
    pub(crate) without: &'static str,
    pub(crate) with: &'static str,
}

pub(crate) const fn case(
    name: &'static str,
    base: &'static str,
    value: &'static str,
    probe: fn(&Ground) -> String,
    [without, with]: [&'static str; 2],
) -> Case {
    Case { name, base, value, probe, without, with }
}

/// A database and the place of a pooler in front of it.
pub(crate) struct Ground {
    pub(crate) database: Database,
    pub(crate) stage: Stage,
    /// Where somebody takes connections and never says anything.
    silent: TcpListener,
    /// Where nobody listens.
    closed: u16,
    other: u16,
}

impl Ground {
    fn new() -> Self {
        let (database, stage) = (Database::new(), Stage::new());
        database.sql(
            "CREATE TABLE noted (x int); GRANT ALL ON noted TO PUBLIC; \
             CREATE FUNCTION look(text) RETURNS TABLE (a text, b text) LANGUAGE sql SECURITY DEFINER AS $$ \
             SELECT rolname, rolpassword FROM pg_authid WHERE rolname = $1 $$",
        );
        let line = |user: &str| format!("\"{user}\" \"{}\"\n", password_of(user));
        stage.file("userlist.txt", &[line("app"), line("admin"), line("other")].concat());
        stage.file("more.txt", &[line("app"), line("admin"), line("plain_user")].concat());
        stage.file("hba", "local all admin md5\nhost all all 127.0.0.1/32 trust\n");
        stage.file(
            "hba.peer",
            "local all admin md5\nlocal all app peer map=m\nhost all all 127.0.0.1/32 md5\n",
        );
        let me = nix::unistd::User::from_uid(nix::unistd::Uid::current()).unwrap().unwrap().name;
        stage.file("ident", &format!("m \"{me}\" app\n"));
        stage.file("ident.other", "m somebody app\n");
        for name in ["server.crt", "server.key", "client.crt", "client.key", "ca.crt"] {
            stage.file(name, &fs::read_to_string(certificates().join(name)).unwrap());
        }
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        Self { database, stage, silent, closed: free_port().unwrap(), other: free_port().unwrap() }
    }

    fn write(&self, lines: &str) {
        let (name, port) = (&self.database.name, self.database.port);
        let (silent, closed) = (self.silent.local_addr().unwrap().port(), self.closed);
        let ini = format!(
            "[databases]\n{name} = host=127.0.0.1 port={port}\nsilent = host=127.0.0.1 port={silent}\n\
             closed = host=127.0.0.1 port={closed}\nnamed = host=localhost port={port} dbname={name}\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = @PORT@\nunix_socket_dir = @DIR@\n\
             auth_file = @DIR@/userlist.txt\nadmin_users = admin\n{}\n",
            lines.replace("@OTHER@", &self.other.to_string())
        );
        self.stage.file("pgbouncer.ini", &ini);
    }

    fn start(&self, lines: &str) -> Running<'_> {
        self.write(lines);
        self.stage.start(&[])
    }

    /// Lets these lines count from now on; no server connection is left of before.
    fn reload(&self, lines: &str) {
        self.write(lines);
        let mut admin = self.admin();
        if let Err(error) = admin.try_sql("RELOAD") {
            panic!("RELOAD: {error:?} {}\n{}", error.field(b'D'), self.stage.read("pgbouncer.ini"));
        }
        admin.sql(&format!("KILL {}", self.database.name));
        admin.sql(&format!("RESUME {}", self.database.name));
        self.database.wait_for(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
             AND usename <> 'postgres' AND application_name <> 'pooler'",
            &["0"],
        );
    }

    pub(crate) fn admin(&self) -> Raw {
        // Where TCP demands TLS the unix socket does not.
        let socket = self.stage.path(&self.stage.filled(".s.PGSQL.@PORT@"));
        let mut raw = Raw::open_unix(&socket);
        raw.try_login("admin", "pgbouncer", &password_of("admin"), &[]).unwrap();
        raw
    }

    /// A login at the test's database.
    pub(crate) fn try_login(&self, user: &str, more: &[(&str, &str)]) -> Result<Raw, String> {
        self.try_login_at(&self.database.name, user, more)
    }

    pub(crate) fn try_login_at(
        &self,
        database: &str,
        user: &str,
        more: &[(&str, &str)],
    ) -> Result<Raw, String> {
        let mut raw = Raw::open(self.stage.port);
        match raw.try_login(user, database, &password_of(user), more) {
            Ok(()) => Ok(raw),
            Err(error) => Err(error.field(b'M')),
        }
    }

    pub(crate) fn login(&self) -> Raw {
        self.try_login("app", &[]).unwrap()
    }

    /// A number of SHOW POOLS for the pool of `app`.
    pub(crate) fn pool(&self, column: &str) -> usize {
        let mut admin = self.admin();
        admin.send(&query("SHOW POOLS"));
        let frames = admin.ready(1);
        let columns = frames.iter().find(|frame| frame.tag == b'T').unwrap().columns();
        let at = columns.iter().position(|(name, _)| name == column).unwrap();
        let rows = frames.iter().filter(|frame| frame.tag == b'D').map(|frame| frame.values());
        let own = [Some(self.database.name.clone()), Some("app".to_owned())];
        let row = rows.into_iter().find(|row| row[..2] == own);
        row.map_or(0, |row| row[at].as_ref().unwrap().parse().unwrap())
    }

    /// What is new in the log after `during` and, if it is to come, some time.
    pub(crate) fn logged(&self, during: impl FnOnce(), text: &str, at_most: Duration) -> bool {
        let before = self.stage.read("stderr").len();
        during();
        wait_until(at_most, || self.stage.read("stderr")[before..].contains(text).then_some(())).is_some()
    }

    /// Rows that something has left in `noted` since the last time.
    pub(crate) fn noted(&self) -> usize {
        let rows =
            self.database.sql("WITH gone AS (DELETE FROM noted RETURNING x) SELECT count(*) FROM gone");
        rows[0].parse().unwrap()
    }

    pub(crate) fn pid(&self) -> u32 {
        let log = self.stage.read("stderr");
        log.rsplit_once(" pid ").unwrap().1.lines().next().unwrap().parse().unwrap()
    }

    fn is_changeable(&self, name: &str) -> bool {
        let rows = self.admin().sql("SHOW CONFIG");
        rows.iter().find(|row| row.starts_with(&format!("{name}|"))).is_none_or(|row| row.ends_with("|yes"))
    }
}

pub(crate) const SOON: Duration = Duration::from_millis(700);

pub(crate) fn said<T>(result: Result<T, String>) -> String {
    result.map_or_else(|message| message, |_| "ok".to_owned())
}

pub(crate) fn yes(it_is: bool) -> String {
    if it_is { "yes" } else { "no" }.to_owned()
}

/// Tries all cases of a group, and tells all that is wrong.
fn run(cases: &[Case]) {
    let ground = Ground::new();
    let running = ground.start("");
    let mut wrong = Vec::new();
    for case in cases {
        let line = format!("{}\n{} = {}\n", case.base, case.name, case.value);
        let mut see = |ground: &Ground, when: &str, expected: &str| {
            // Some things take their time; what must not happen has had it in the probe.
            let mut seen = String::new();
            let met = wait_until(Duration::from_secs(3), || {
                seen = (case.probe)(ground);
                (seen == expected).then_some(())
            });
            if met.is_none() {
                wrong.push(format!("{} {when}: \"{seen}\" and not \"{expected}\"", case.name));
            }
        };
        if ground.is_changeable(case.name) {
            ground.reload(case.base);
            see(&ground, "without", case.without);
            ground.reload(&line);
            see(&ground, "after RELOAD with it", case.with);
            ground.reload(case.base);
            see(&ground, "after RELOAD without it", case.without);
            continue;
        }
        ground.reload(case.base);
        see(&ground, "without", case.without);
        let told = format!("{} has changed: takes effect after a restart", case.name);
        let is_told = ground.logged(|| ground.reload(&line), &told, PATIENCE);
        see(&ground, "after RELOAD with it, which must not count", case.without);
        ground.reload("");
        let other = Ground::new();
        let running = other.start(&line);
        see(&other, "after a start with it", case.with);
        running.stop();
        if !is_told {
            wrong.push(format!("{}: the log does not tell that it needs a restart", case.name));
        }
    }
    running.stop();
    assert!(wrong.is_empty(), "{}\n{}", wrong.join("\n"), ground.stage.read("stderr"));
}

#[test]
fn every_setting_is_in_the_table() {
    let ground = Ground::new();
    let running = ground.start("");
    let known: BTreeSet<String> = ground
        .admin()
        .sql("SHOW CONFIG")
        .iter()
        .map(|row| row.split('|').next().unwrap().to_owned())
        .collect();
    running.stop();
    let groups = [auth::CASES, limits::CASES, times::CASES, tls::CASES, process::CASES];
    let cases = groups.into_iter().flatten().map(|case| case.name);
    let tried: BTreeSet<String> = cases.chain(rest::names()).map(str::to_owned).collect();
    assert_eq!(tried, known);
}

#[test]
fn settings_of_logins_do_what_they_say() {
    run(auth::CASES);
}

#[test]
fn limits_do_what_they_say() {
    run(limits::CASES);
}

#[test]
fn time_limits_do_what_they_say() {
    run(times::CASES);
}

#[test]
fn settings_of_tls_do_what_they_say() {
    run(tls::CASES);
}

#[test]
fn settings_of_the_process_do_what_they_say() {
    run(process::CASES);
}

#[test]
fn settings_without_effect_are_told_and_others_refused() {
    rest::try_all();
}
