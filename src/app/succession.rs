//! What a process has that there is only one of, and what becomes of it when a successor comes: its sockets, its pid file,
//! its place in the directory of unix sockets.

use std::{
    os::fd::OwnedFd,
    sync::{Arc, Mutex, PoisonError, Weak},
    thread,
    time::Duration,
};

use tokio::{net::UnixListener, sync::mpsc, task::JoinHandle};

use super::{
    identity::{self, PidFile},
    listener::{Until, accept_loop},
    sockets::{self, Listener, ListeningSocket, SocketFile},
    takeover::{self, Elder, Line},
};
use crate::{
    admin::commands::{Accepting, Commands, Shutdown},
    events::Kind,
    worker::{message::Message, process::Process},
};

/// What is to be inherited.
pub(super) struct Estate {
    /// Gone as soon as nobody accepts on them any more.
    sockets: Vec<Weak<Listener>>,
    accepting: Vec<JoinHandle<()>>,
    pidfile: Arc<Mutex<Option<PidFile>>>,
}

impl Estate {
    pub(super) fn new(pidfile: Option<PidFile>) -> Self {
        Self { sockets: Vec::new(), accepting: Vec::new(), pidfile: Arc::new(Mutex::new(pidfile)) }
    }

    /// Begins to accept clients.
    pub(super) fn accept_on(
        &mut self,
        mut listener: Listener,
        process: &Arc<Process>,
        commands: &Arc<Commands>,
    ) {
        let file = listener.file.take();
        let until = match listener.socket {
            ListeningSocket::Unix(_) if !listener.shared => Until::HandedOver,
            _ => Until::Closed,
        };
        let listener = Arc::new(listener);
        self.sockets.push(Arc::downgrade(&listener));
        let accepting = accept_loop(listener, file, until, Arc::clone(process), Arc::clone(commands));
        self.accepting.push(tokio::spawn(accepting));
    }

    /// A descriptor of each socket.
    fn descriptors(&self) -> Vec<OwnedFd> {
        let open = self.sockets.iter().filter_map(Weak::upgrade);
        open.filter_map(|listener| listener.duplicate().ok()).collect()
    }
}

/// Waits for a successor. What is returned keeps the pid file, unless that one has come.
pub(super) fn keep(
    estate: Estate,
    successor: Option<(UnixListener, SocketFile)>,
    process: &Arc<Process>,
    commands: &Arc<Commands>,
) -> Arc<Mutex<Option<PidFile>>> {
    let pidfile = Arc::clone(&estate.pidfile);
    if let Some((listener, file)) = successor {
        tokio::spawn(wait_for_successor(estate, listener, file, Arc::clone(process), Arc::clone(commands)));
    }
    pidfile
}

async fn wait_for_successor(
    estate: Estate,
    listener: UnixListener,
    file: SocketFile,
    process: Arc<Process>,
    commands: Arc<Commands>,
) {
    let mut accepting = commands.accepting();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = accepting.wait_for(|accepting| *accepting != Accepting::Here) => return,
        };
        let Ok((stream, _)) = accepted else {
            // Out of descriptors, most likely.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Some(mut line) = Line::accepted(stream) else { continue };
        let descriptors = estate.descriptors();
        let refusal = (commands.is_suspended() || process.pools.is_any_paused())
            .then_some("its databases are paused: RESUME there first, clients that stay could not go on");
        let answered = tokio::task::spawn_blocking(move || {
            let heir = takeover::answer(&mut line, &descriptors, refusal);
            (line, heir)
        });
        match answered.await {
            Ok((line, Ok(Some(pid)))) => {
                drop((listener, file));
                return hand_over(estate, line, pid, &process, &commands).await;
            }
            Ok((_, Ok(None))) => tracing::info!("a successor has asked, and gone again"),
            Ok((_, Err(error))) => tracing::warn!("a successor has asked, and failed: {error}"),
            Err(_) => {}
        }
    }
}

/// The successor can serve. From here on this process is there for its clients alone.
async fn hand_over(
    estate: Estate,
    mut line: Line,
    pid: u32,
    process: &Arc<Process>,
    commands: &Arc<Commands>,
) {
    if !commands.hand_over() {
        // It is about to end. The successor sees that nobody answers.
        return;
    }
    let text = format!("process {pid} has taken over, waiting for all clients to leave");
    process.pools.events.tell(Kind::Takeover, "", &text);
    tracing::info!("{text}");
    for task in estate.accepting {
        // They end by themselves.
        let _ = task.await;
    }
    drop(estate.pidfile.lock().unwrap_or_else(PoisonError::into_inner).take());
    let settings = process.config().settings.clone();
    let path = takeover::old_socket(&settings, std::process::id()).filter(|path| takeover::fits(path));
    let opened = path.and_then(|path| match sockets::bind_unix(&path, &settings) {
        Ok(listener) => Some((path, listener)),
        Err(error) => {
            tracing::warn!("cancel requests for the clients that stay here are lost: {error}");
            None
        }
    });
    let cancels = opened.map(|(path, mut listener)| {
        let file = listener.file.take();
        let (process, commands) = (Arc::clone(process), Arc::clone(commands));
        tokio::spawn(accept_loop(Arc::new(listener), file, Until::End, process, commands));
        path
    });
    identity::notify_systemd(&format!("MAINPID={pid}"));
    let disabled = process.pools.disabled();
    let told = tokio::task::spawn_blocking(move || {
        line.send(&Elder::Gone { cancels, disabled }, &[]).map(|()| line)
    });
    match told.await {
        Ok(Ok(line)) => give_clients(line, process),
        Ok(Err(error)) => tracing::error!("process {pid} does not answer any more: {error}"),
        Err(_) => {}
    }
    commands.shut_down(Shutdown::WaitForClients);
}

/// Clients that can go on in the new process.
fn give_clients(line: Line, process: &Arc<Process>) {
    let (to, clients) = mpsc::unbounded_channel();
    let giver = Arc::clone(process);
    let started = thread::Builder::new()
        .name("pooler-elder".to_owned())
        .spawn(move || takeover::give(line, clients, &giver));
    match started {
        Ok(_) => process.workers.iter().for_each(|worker| worker.send(Message::GiveAway { to: to.clone() })),
        Err(error) => tracing::warn!("clients stay here until they leave: {error}"),
    }
}
