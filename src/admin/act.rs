//! The commands that do something, with PgBouncer's conditions and texts.

use std::{
    ops::ControlFlow,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use super::{Console, Refused};
use crate::{admin::commands::Shutdown, config::is_console};

/// How often a command that waits looks again.
const POLL: Duration = Duration::from_millis(20);

/// Verbs, and what follows them.
const VERBS: &[(&str, Argument)] = &[
    ("RELOAD", Argument::None),
    ("PAUSE", Argument::Optional),
    ("SUSPEND", Argument::None),
    ("RESUME", Argument::Optional),
    ("DISABLE", Argument::Optional),
    ("ENABLE", Argument::Optional),
    ("RECONNECT", Argument::Optional),
    ("KILL", Argument::Optional),
    ("KILL_CLIENT", Argument::Optional),
    ("WAIT_CLOSE", Argument::Optional),
    ("SHUTDOWN", Argument::OneOf(&["WAIT_FOR_SERVERS", "WAIT_FOR_CLIENTS"])),
];

enum Argument {
    None,
    /// Where one is missing that is needed, the command says so.
    Optional,
    OneOf(&'static [&'static str]),
}

/// Whether there is such a command with such an argument.
pub(super) fn is_known(verb: &str, argument: Option<&str>) -> bool {
    VERBS.iter().find(|(known, _)| *known == verb).is_some_and(|(_, wanted)| match (wanted, argument) {
        (_, None) | (Argument::Optional, _) => true,
        (Argument::None, Some(_)) => false,
        (Argument::OneOf(words), Some(argument)) => {
            words.iter().any(|word| word.eq_ignore_ascii_case(argument))
        }
    })
}

fn wrong_state(message: impl Into<String>) -> Refused {
    Refused::new("55000", message)
}

impl Console {
    /// Does what a known verb says.
    pub(super) async fn act(&mut self, verb: &str, argument: Option<&str>) -> Result<(), Refused> {
        self.cancelled.store(false, Ordering::Release);
        match verb {
            "RELOAD" => self.reload().await,
            "PAUSE" => self.pause(argument).await,
            "SUSPEND" => self.suspend().await,
            "RESUME" => self.resume(argument),
            "DISABLE" => self.disable(argument, true),
            "ENABLE" => self.disable(argument, false),
            "RECONNECT" => {
                self.known(argument, "reconnect")?;
                self.commands.reconnect(argument);
                Ok(())
            }
            "KILL" => {
                self.known(argument, "kill")?;
                self.commands.kill(argument);
                Ok(())
            }
            "KILL_CLIENT" => self.kill_client(argument).await,
            "WAIT_CLOSE" => self.wait_close(argument).await,
            _ => {
                self.shut_down(argument);
                Ok(())
            }
        }
    }

    /// SET: changes a setting until the next reload.
    pub(super) async fn set(&self, name: &str, value: &str) -> Result<(), Refused> {
        let commands = Arc::clone(&self.commands);
        let (name, value) = (name.to_ascii_lowercase(), value.to_owned());
        let set = tokio::task::spawn_blocking(move || commands.set(&name, &value)).await;
        match set {
            Ok(Ok(())) => Ok(()),
            Ok(Err(reason)) => Err(Refused { detail: Some(reason), ..Refused::new("22023", "SET failed") }),
            Err(_) => Err(Refused::new("XX000", "SET failed")),
        }
    }

    async fn reload(&self) -> Result<(), Refused> {
        let commands = Arc::clone(&self.commands);
        let reloaded = tokio::task::spawn_blocking(move || commands.reload()).await;
        let detail = match reloaded {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(problems)) => Some(problems.to_string()),
            Err(_) => None,
        };
        Err(Refused { detail, ..Refused::new("F0000", "RELOAD failed, see logs for additional details") })
    }

    /// Answers when nothing is connected any more: what was busy has finished, what was idle is closed.
    async fn pause(&mut self, database: Option<&str>) -> Result<(), Refused> {
        self.known(database, "pause")?;
        let commands = Arc::clone(&self.commands);
        if commands.is_suspended() || (database.is_none() && commands.process.pools.all_paused()) {
            return Err(wrong_state("already suspended/paused"));
        }
        commands.pause(database);
        let pools = &commands.process.pools;
        while pools.open_servers(database) > 0 {
            match self.nap().await {
                Ok(ControlFlow::Continue(())) => {}
                Ok(ControlFlow::Break(())) => break,
                Err(cancelled) => {
                    commands.resume(database);
                    return Err(cancelled);
                }
            }
        }
        Ok(())
    }

    /// Answers when everything has left that was to be sent: nothing is read any more.
    async fn suspend(&mut self) -> Result<(), Refused> {
        let commands = Arc::clone(&self.commands);
        if commands.is_suspended() || commands.process.pools.all_paused() {
            return Err(wrong_state("already suspended/paused"));
        }
        if commands.process.pools.is_any_paused() {
            return Err(wrong_state("cannot suspend with paused databases"));
        }
        tracing::info!("suspending");
        let limit = commands.process.config().settings.suspend_timeout;
        let deadline = (!limit.is_zero()).then(|| Instant::now() + limit);
        commands.suspend();
        while commands.unflushed().await > 0 {
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                commands.drop_unflushed();
                break;
            }
            match self.nap().await {
                Ok(ControlFlow::Continue(())) => {}
                Ok(ControlFlow::Break(())) => break,
                Err(cancelled) => {
                    commands.end_suspension();
                    return Err(cancelled);
                }
            }
            if !commands.is_suspended() {
                // Another console has said RESUME.
                break;
            }
        }
        Ok(())
    }

    fn resume(&self, database: Option<&str>) -> Result<(), Refused> {
        let pools = &self.commands.process.pools;
        if self.commands.is_shutting_down() {
            return Err(wrong_state("pooler is shutting down"));
        }
        match database {
            None if self.commands.end_suspension() => return Ok(()),
            None if !pools.all_paused() => return Err(wrong_state("pooler is not paused/suspended")),
            // One that has been removed since it was paused can still be resumed: a takeover waits for that.
            Some(name) if !pools.is_paused(name) => {
                self.known(database, "resume")?;
                return Err(wrong_state(format!("database {name} is not paused")));
            }
            Some(_) | None => {}
        }
        self.commands.resume(database);
        Ok(())
    }

    fn disable(&self, database: Option<&str>, disabled: bool) -> Result<(), Refused> {
        let name = database.ok_or_else(|| Refused::new("42601", "a database is required"))?;
        self.known(database, if disabled { "disable" } else { "enable" })?;
        self.commands.process.pools.set_disabled(name, disabled);
        Ok(())
    }

    async fn kill_client(&self, argument: Option<&str>) -> Result<(), Refused> {
        // The column id, or ptr.
        let id = argument.and_then(|text| match text.strip_prefix("0x") {
            Some(hex) => u32::from_str_radix(hex, 16).ok(),
            None => text.parse().ok(),
        });
        let id = id.ok_or_else(|| Refused::new("22023", "invalid client pointer supplied"))?;
        if self.commands.kill_client(id).await {
            Ok(())
        } else {
            Err(Refused::new("42704", "client not found"))
        }
    }

    /// Answers when all servers are gone that RECONNECT or RELOAD have given up.
    async fn wait_close(&mut self, database: Option<&str>) -> Result<(), Refused> {
        self.known(database, "wait in")?;
        let commands = Arc::clone(&self.commands);
        while commands.outdated_servers(database).await > 0 {
            if self.nap().await?.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Notes what to do once the answer is on its way.
    fn shut_down(&mut self, argument: Option<&str>) {
        self.shutdown = Some(match argument.map(str::to_ascii_uppercase).as_deref() {
            None => Shutdown::Now,
            Some("WAIT_FOR_SERVERS") => Shutdown::WaitForServers,
            _ => Shutdown::WaitForClients,
        });
    }

    /// Between two looks at what a command waits for. Breaks when the client has gone: what was begun goes on without
    /// it. Fails when the client cancels.
    async fn nap(&mut self) -> Result<ControlFlow<()>, Refused> {
        tokio::time::sleep(POLL).await;
        if self.cancelled.swap(false, Ordering::AcqRel) {
            return Err(Refused::new("57014", "canceling statement due to user request"));
        }
        Ok(if self.input.is_closed() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    }

    /// The database that a command names must exist, and not be the console.
    fn known(&self, database: Option<&str>, verb: &str) -> Result<(), Refused> {
        match database {
            Some(name) if is_console(name) => {
                Err(Refused::new("42501", format!("cannot {verb} admin db: {name}")))
            }
            Some(name) if self.commands.process.config().resolve_database(name).is_none() => {
                Err(Refused::new("3D000", format!("no such database: {name}")))
            }
            _ => Ok(()),
        }
    }
}
