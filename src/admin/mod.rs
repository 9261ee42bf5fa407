//! The admin console: databases `pooler` and `pgbouncer` over psql, with PgBouncer's commands.
//!
//! One task per console client; the worker that owns its socket hands over whole messages. Simple query protocol only.

mod command;
mod result;
mod show;

use std::{sync::Arc, time::Duration};

use command::Command;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::{
    app::{
        commands::{Commands, Shutdown},
        process::pid_of,
    },
    client::{ConsoleRight, LoggedIn},
    protocol::{
        BackendKeyData,
        encode::{self, Severity},
        frontend,
    },
    worker::message::{ClientRef, ConsoleInput, Message},
};

/// What SHOW HELP tells.
const HELP: &str = "\n\tSHOW HELP|CONFIG|DATABASES|POOLS|CLIENTS|SERVERS|USERS|STATS|LISTS|STATE|VERSION\n\t\
    PAUSE [<db>]\n\tRESUME [<db>]\n\tRECONNECT [<db>]\n\tKILL [<db>]\n\tKILL_CLIENT <client_id>\n\tRELOAD\n\t\
    SHUTDOWN [WAIT_FOR_SERVERS|WAIT_FOR_CLIENTS]";
/// How often a waiting PAUSE looks.
const POLL: Duration = Duration::from_millis(50);

struct Console {
    commands: Arc<Commands>,
    right: ConsoleRight,
    unsent: Vec<u8>,
}

/// A failed command.
struct Refused {
    sqlstate: &'static str,
    message: String,
}

impl From<String> for Refused {
    fn from(message: String) -> Self {
        Self { sqlstate: "08P01", message }
    }
}

/// Starts a console task for a client. The greeting is sent by the task.
pub(crate) fn open(commands: Arc<Commands>, client: &LoggedIn) -> (UnboundedSender<ConsoleInput>, Vec<u8>) {
    let (sender, receiver) = unbounded_channel();
    let right = client.console.unwrap_or(ConsoleRight::Stats);
    let console = Console { commands, right, unsent: client.unsent.clone() };
    tokio::spawn(console.run(receiver));
    (sender, Vec::new())
}

impl Console {
    async fn run(mut self, mut input: UnboundedReceiver<ConsoleInput>) {
        let Some(ConsoleInput::Connected(client)) = input.recv().await else { return };
        let greeting = self.greeting(client);
        self.send(client, greeting, false);
        while let Some(next) = input.recv().await {
            let ConsoleInput::Frame(tag, body) = next else { continue };
            let mut out = Vec::new();
            if tag != frontend::QUERY {
                let text = "extended query protocol not supported by admin console";
                encode::error(&mut out, Severity::Fatal, "08P01", text, None, None);
                return self.send(client, out, true);
            }
            let sql = String::from_utf8_lossy(body.strip_suffix(b"\0").unwrap_or(&body)).into_owned();
            if let Err(refused) = self.execute(&sql, &mut out).await {
                encode::error(&mut out, Severity::Error, refused.sqlstate, &refused.message, None, None);
            }
            encode::ready_for_query(&mut out, b'I');
            self.send(client, out, false);
        }
    }

    fn send(&self, client: ClientRef, bytes: Vec<u8>, close: bool) {
        if let Some(worker) = self.commands.process.workers.get(client.worker) {
            worker.send(Message::ConsoleOutput { client, bytes, close });
        }
    }

    fn greeting(&mut self, client: ClientRef) -> Vec<u8> {
        let mut out = std::mem::take(&mut self.unsent);
        encode::authentication_ok(&mut out);
        let parameters = [
            // Exporters read PgBouncer's version here.
            ("server_version", "1.25.2/bouncer"),
            ("client_encoding", "UTF8"),
            ("server_encoding", "UTF8"),
            ("DateStyle", "ISO"),
            ("TimeZone", "GMT"),
            ("standard_conforming_strings", "on"),
            ("is_superuser", "on"),
        ];
        for (name, value) in parameters {
            encode::parameter_status(&mut out, name, value);
        }
        // Nothing runs here that could be cancelled: the key matches nothing.
        let pid = pid_of(client.id);
        encode::backend_key_data(&mut out, &BackendKeyData { pid, secret: Box::new([0; 4]) });
        encode::ready_for_query(&mut out, b'I');
        out
    }

    async fn execute(&self, sql: &str, out: &mut Vec<u8>) -> Result<(), Refused> {
        let invalid = || Refused::from(format!("invalid command '{sql}', use SHOW HELP;"));
        let Command { verb, argument } = command::parse(sql).ok_or_else(invalid)?;
        if let "SHOW" | "SELECT" = verb.as_str() {
            let what = argument.ok_or_else(invalid)?;
            if what.eq_ignore_ascii_case("help") {
                encode::error(out, Severity::Notice, "00000", "Console usage", Some(HELP), None);
                result::complete(out, "SHOW");
                return Ok(());
            }
            let table = show::table(&self.commands, &what).await.ok_or_else(invalid)?;
            table.write(out);
            return Ok(());
        }
        if self.right != ConsoleRight::Admin {
            return Err("admin access needed".to_owned().into());
        }
        self.act(&verb, argument.as_deref(), &invalid).await?;
        result::complete(out, &verb);
        Ok(())
    }

    async fn act(
        &self,
        verb: &str,
        argument: Option<&str>,
        invalid: &impl Fn() -> Refused,
    ) -> Result<(), Refused> {
        let commands = &self.commands;
        match verb {
            "RELOAD" => {
                let task = Arc::clone(commands);
                let reloaded = tokio::task::spawn_blocking(move || task.reload().is_ok()).await;
                if !reloaded.unwrap_or(false) {
                    let message = "RELOAD failed, see logs for additional details".to_owned();
                    return Err(Refused { sqlstate: "F0000", message });
                }
            }
            "PAUSE" => {
                self.known(argument)?;
                if argument.is_none() && commands.process.pools.all_paused() {
                    return Err("already suspended/paused".to_owned().into());
                }
                commands.pause(argument);
                while commands.busy_servers(argument).await > 0 {
                    tokio::time::sleep(POLL).await;
                }
            }
            "RESUME" => {
                self.known(argument)?;
                if argument.is_none() && !commands.process.pools.all_paused() {
                    return Err("pooler is not paused/suspended".to_owned().into());
                }
                commands.resume(argument);
            }
            "RECONNECT" => {
                self.known(argument)?;
                commands.reconnect(argument);
            }
            "KILL" => {
                self.known(argument)?;
                commands.kill(argument);
            }
            "KILL_CLIENT" => {
                let id = argument.and_then(|a| a.parse().ok());
                let id = id.ok_or_else(|| "invalid client pointer supplied".to_owned())?;
                if !commands.kill_client(id).await {
                    return Err("client not found".to_owned().into());
                }
            }
            "SHUTDOWN" => commands.shut_down(match argument.map(str::to_ascii_uppercase).as_deref() {
                None => Shutdown::Now,
                Some("WAIT_FOR_SERVERS") => Shutdown::WaitForServers,
                Some("WAIT_FOR_CLIENTS") => Shutdown::WaitForClients,
                Some(_) => return Err(invalid()),
            }),
            _ => return Err(invalid()),
        }
        Ok(())
    }

    /// The database that a command names must exist.
    fn known(&self, database: Option<&str>) -> Result<(), Refused> {
        match database {
            Some(name) if self.commands.process.config().resolve_database(name).is_none() => {
                Err(format!("no such database: {name}").into())
            }
            _ => Ok(()),
        }
    }
}
