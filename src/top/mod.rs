//! `pooler top`: what a running pooler does, as seen by its console. Works with PgBouncer's, too, as far as that tells.
//!
//! `sample` asks the console, `rates` compares two samples, `tables` makes rows and columns of them, and `app` is what is
//! looked at, without a terminal. `draw` and `plain` show it; `terminal` reads keys. Text of others is made harmless where it
//! comes in (`text`).

mod app;
mod draw;
#[cfg(test)]
mod draw_tests;
mod plain;
mod rates;
mod sample;
mod tables;
mod terminal;
mod text;

use std::{
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
    time::Duration,
};

use tokio::runtime::Runtime;

use self::{app::App, sample::Console};
use crate::{
    cli::{
        Top,
        target::{Defaults, Target},
    },
    config::Problem,
    inspect::explain,
};

/// A login may take so long.
const LOGIN: Duration = Duration::from_secs(5);
/// A name of the console that PgBouncer knows, too.
const CONSOLE: &str = "pgbouncer";

/// Does it.
pub fn run(options: &Top) -> ExitCode {
    let result = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => watch(options, runtime),
        Err(error) => Err(Problem::of_call(format!("cannot start: {error}"))),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("pooler top: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn watch(options: &Top, runtime: Runtime) -> Result<(), Problem> {
    let defaults =
        Defaults { host: Some("127.0.0.1"), port: 6432, dbname: Some(CONSOLE), is_postgres: false };
    let mut target = Target::resolve(&options.target, None, defaults, &|name| std::env::var(name).ok())?;
    let interval = Duration::from_secs_f64(options.interval);
    let console = runtime.block_on(connect(&mut target))?;
    let app = App::new(text::clean(&target.to_string()), interval);
    if options.once || !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        return once(app, console, interval, &runtime, &target);
    }
    // What is connected belongs to this runtime.
    terminal::run(app, console, target, runtime).map_err(|error| {
        Problem::of_call(format!("the terminal cannot be used: {error}")).remedy("see --once")
    })
}

async fn connect(target: &mut Target) -> Result<Console, Problem> {
    match target.connect_asking(LOGIN).await {
        Ok(session) => Ok(Console::new(session)),
        Err(error) => {
            let (message, remedy) = explain(&error, &target.user, &target.dbname);
            let message = format!(
                "{}, user {}: {message}",
                text::clean(&target.to_string()),
                text::clean(&target.user)
            );
            Err(Problem::of_call(message).remedy(advice(&error, remedy)))
        }
    }
}

/// What is said of PostgreSQL's logins does not all fit a console's.
fn advice(error: &crate::server::ConnectError, remedy: String) -> String {
    use crate::server::ConnectError;
    match error {
        ConnectError::WrongSecret { have: "no password", .. } => {
            "give the password in PGPASSWORD or in ~/.pgpass, or call this at a terminal, where it is asked for".to_owned()
        }
        ConnectError::WrongSecret { .. } | ConnectError::Auth(_) | ConnectError::Refused(_) => {
            "log in as one of admin_users or stats_users, with that user's password (--user, PGPASSWORD)".to_owned()
        }
        ConnectError::Network { .. } | ConnectError::Closed => {
            "start pooler, or name its address (--host, --port): this is not PostgreSQL's".to_owned()
        }
        _ => remedy,
    }
}

/// Two looks, for the rates, as text.
fn once(
    mut app: App,
    mut console: Console,
    interval: Duration,
    runtime: &Runtime,
    target: &Target,
) -> Result<(), Problem> {
    let looks = async {
        let first = console.sample().await?;
        tokio::time::sleep(interval).await;
        Ok::<_, crate::server::QueryError>((first, console.sample().await?))
    };
    let (first, second) = runtime.block_on(looks).map_err(|error| {
        let message = format!("{}: {}", text::clean(&target.to_string()), text::clean(&error.to_string()));
        Problem::of_call(message)
            .remedy("is this the console of pooler or of PgBouncer, and may this user use SHOW? (admin_users, stats_users)")
    })?;
    app.take(first);
    app.take(second);
    // Who closed the other end of a pipe does not want to read on.
    let _ = io::stdout().write_all(plain::text(&app).as_bytes());
    Ok(())
}
