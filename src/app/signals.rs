//! Signals, as in PgBouncer: HUP reloads, USR1 and USR2 pause and resume, TERM, INT and QUIT end the process.

use std::{io, sync::Arc, time::Duration};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::Instant,
};

use super::identity;
use crate::admin::commands::{Accepting, Commands, Shutdown};

/// How often it is looked whether everybody has left.
const POLL: Duration = Duration::from_millis(100);

/// What the process hears.
pub(super) struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    pause: Signal,
    resume: Signal,
}

impl Signals {
    /// From here on signals wait to be handled.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            pause: signal(SignalKind::user_defined1())?,
            resume: signal(SignalKind::user_defined2())?,
        })
    }

    /// Waits for one signal and does what it says.
    async fn handle_one(&mut self, commands: &Arc<Commands>) {
        tokio::select! {
            _ = self.hangup.recv() => {
                tracing::info!("got SIGHUP, re-reading config");
                let commands = Arc::clone(commands);
                identity::notify_systemd(&reloading());
                // What is wrong has been logged.
                let _ = tokio::task::spawn_blocking(move || commands.reload()).await;
                identity::notify_systemd("READY=1");
            }
            _ = self.terminate.recv() => {
                if commands.is_shutting_down() {
                    tracing::info!("got SIGTERM while shutting down, fast exit");
                } else {
                    tracing::info!("got SIGTERM, shutting down, waiting for all clients disconnect");
                }
                commands.shut_down(Shutdown::WaitForClients);
            }
            _ = self.interrupt.recv() => {
                tracing::info!("got SIGINT, shutting down, waiting for all servers connections to be released");
                commands.shut_down(Shutdown::WaitForServers);
            }
            _ = self.quit.recv() => {
                tracing::info!("got SIGQUIT, fast exit");
                commands.shut_down(Shutdown::Now);
            }
            _ = self.pause.recv() => {
                if commands.is_suspended() {
                    tracing::info!("got SIGUSR1, but already paused/suspended");
                } else {
                    tracing::info!("got SIGUSR1, PAUSE");
                    commands.pause(None);
                }
            }
            _ = self.resume.recv() => {
                if commands.is_shutting_down() {
                    tracing::info!("got SIGUSR2 while shutting down, ignoring");
                } else {
                    tracing::info!("got SIGUSR2, RESUME");
                    commands.end_suspension();
                    commands.resume(None);
                }
            }
        }
    }
}

/// What systemd wants to hear of units of type notify-reload.
fn reloading() -> String {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    format!("RELOADING=1\nMONOTONIC_USEC={}", now.tv_sec * 1_000_000 + now.tv_nsec / 1000)
}

/// That it may take longer than TimeoutStopSec is only said if its end is known.
fn stopping(limit: Duration) -> String {
    /// What it takes to close all connections.
    const SPARE: Duration = Duration::from_secs(10);
    if limit.is_zero() {
        return "STOPPING=1".to_owned();
    }
    format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={}", (limit + SPARE).as_micros())
}

/// Handles signals until a shutdown has been asked for and is complete.
pub(super) async fn until_stopped(mut signals: Signals, commands: &Arc<Commands>) -> io::Result<()> {
    let mut requests = commands.shutdown_requests();
    loop {
        tokio::select! {
            () = signals.handle_one(commands) => {}
            _ = requests.wait_for(Option::is_some) => break,
        }
    }
    let limit = commands.process.config().settings.shutdown_timeout;
    let deadline = (!limit.is_zero()).then(|| Instant::now() + limit);
    // Who has handed over is not the service any more.
    if *commands.accepting().borrow() != Accepting::Elsewhere {
        identity::notify_systemd(&stopping(limit));
    }
    loop {
        let how = *requests.borrow_and_update();
        if how == Some(Shutdown::Now) {
            return Ok(());
        }
        if deadline.is_some_and(|d| Instant::now() >= d) {
            let clients = commands.process.clients();
            tracing::warn!("shutdown_timeout is over, dropping {clients} client connections, exiting");
            return Ok(());
        }
        if is_done(commands, how).await {
            return Ok(());
        }
        tokio::select! {
            () = signals.handle_one(commands) => {}
            _ = requests.changed() => {}
            () = tokio::time::sleep(POLL) => {}
        }
    }
}

async fn is_done(commands: &Commands, how: Option<Shutdown>) -> bool {
    if how == Some(Shutdown::WaitForServers) {
        let done = commands.busy_servers(None).await == 0;
        if done {
            tracing::info!("server connections dropped, exiting");
        }
        return done;
    }
    let done = commands.process.clients() == 0;
    if done {
        tracing::info!("client connections dropped, exiting");
    }
    done
}
