//! The process: from the configuration to running workers and listeners, and the way back.

mod descriptors;
mod identity;
mod listener;
mod log;
mod metrics;
mod signals;
mod sockets;
mod statistics;
mod succession;
mod takeover;

use std::{os::fd::OwnedFd, process::ExitCode, sync::Arc, thread, time::Duration};

use mio::{Poll, Waker};
use tokio::runtime::{Builder, Runtime};

use crate::{
    admin::{
        commands::{ApplyLog, Commands},
        status::keep_history,
    },
    cli::{Source, Verbosity, pgbouncer},
    client::login::LoginShared,
    config::{Loaded, Problems, Settings},
    events::Kind,
    net::{
        timer::Timer,
        tls::{ClientTls, ServerTls, TlsError},
    },
    worker::{
        Worker,
        idle::drop_idle_pools,
        memory,
        message::{Message, WorkerHandle},
        process::{Live, MAX_WORKERS, Process, keep_names},
        spans::export,
    },
};

use self::{
    identity::PidFile,
    signals::Signals,
    sockets::Listener,
    succession::Estate,
    takeover::{Heritage, Legacy},
};

/// A reason not to start.
type StartError = Box<dyn std::error::Error + Send + Sync>;

/// How the process starts.
#[derive(Clone, Debug, Default)]
pub struct Launch {
    pub verbosity: Verbosity,
    /// As PgBouncer: says what it says when it cannot start, and does not run as root.
    pub as_pgbouncer: bool,
    /// In the background.
    pub daemon: bool,
    /// Nothing to standard error.
    pub quiet: bool,
    /// System user to become, instead of the configured one.
    pub user: Option<String>,
    /// In the place of the process that runs.
    pub takeover: bool,
}

/// Serves until told to stop.
pub fn run(source: Source, verbosity: Verbosity, takeover: bool) -> ExitCode {
    launch(source, &Launch { verbosity, takeover, ..Launch::default() })
}

/// As `run`, in the way of PgBouncer.
pub fn run_as_pgbouncer(call: pgbouncer::Call) -> ExitCode {
    let pgbouncer::Call { config, daemon, quiet, verbosity, user, takeover } = call;
    launch(Source::Ini(config), &Launch { verbosity, as_pgbouncer: true, daemon, quiet, user, takeover })
}

fn launch(source: Source, launch: &Launch) -> ExitCode {
    memory::return_large_buffers();
    let loaded = match source.load() {
        Ok(loaded) => loaded,
        Err(problems) => {
            launch.complain_of(&problems);
            return ExitCode::FAILURE;
        }
    };
    let mut ready = match prepare(&loaded, launch) {
        Ok(ready) => ready,
        Err(error) => {
            launch.give_up(&error.to_string());
            return ExitCode::FAILURE;
        }
    };
    for warning in &loaded.warnings {
        tracing::warn!("{}", warning.in_one_line());
    }
    let result = go_on(launch, &loaded, &mut ready).and_then(|()| serve(source, loaded, ready));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let what = if launch.as_pgbouncer { "" } else { "cannot start: " };
            tracing::error!(target: log::FATAL, "{what}{error}");
            ExitCode::FAILURE
        }
    }
}

/// What is there before the first thread is.
struct Ready {
    client_tls: Option<Arc<ClientTls>>,
    server_tls: Arc<ServerTls>,
    log: log::Log,
    /// Sockets that systemd has opened.
    passed: Vec<OwnedFd>,
    /// What the process has whose place this one takes.
    heritage: Option<Heritage>,
}

/// Everything up to the log. The order is PgBouncer's: files of TLS may be those of root.
fn prepare(loaded: &Loaded, launch: &Launch) -> Result<Ready, StartError> {
    // Before the process changes its number.
    let passed = sockets::passed_by_systemd();
    let settings = &loaded.config.settings;
    let tls = |error: TlsError| format!("TLS setup failed: {error}");
    let client_tls = ClientTls::build(settings).map_err(tls)?.map(Arc::new);
    let server_tls = Arc::new(ServerTls::build(settings).map_err(tls)?);
    match launch.user.as_deref().unwrap_or(&settings.user) {
        "" => {}
        user => identity::become_user(user)?,
    }
    if launch.as_pgbouncer && identity::is_root() {
        return Err("PgBouncer should not run as root".into());
    }
    if launch.daemon && settings.pidfile.is_none() {
        return Err("daemon needs pidfile configured".into());
    }
    let log = log::Log::start(settings, launch.verbosity, !launch.quiet)?;
    Ok(Ready { client_tls, server_tls, log, passed, heritage: None })
}

/// What has to be seen to once there is a log: who else runs, and the background.
fn go_on(launch: &Launch, loaded: &Loaded, ready: &mut Ready) -> Result<(), StartError> {
    let settings = &loaded.config.settings;
    if launch.takeover {
        ready.heritage = takeover::ask(settings)?;
        if ready.heritage.is_none() {
            tracing::info!("old process not found, try to continue normally");
        }
    }
    let alone = ready.heritage.is_none() && ready.passed.is_empty();
    if launch.as_pgbouncer && alone && sockets::is_in_use(settings) {
        return Err("unix socket is in use, cannot continue".into());
    }
    // That of the old process goes with it.
    if let Some(path) = settings.pidfile.as_ref().filter(|_| ready.heritage.is_none()) {
        identity::PidFile::check(path)?;
    }
    if launch.daemon {
        ready.log.leave_stderr();
        identity::go_into_background()?;
    }
    Ok(())
}

impl Launch {
    /// The configuration cannot be read.
    fn complain_of(&self, problems: &Problems) {
        if !self.as_pgbouncer {
            eprintln!("{problems}");
        } else if !self.quiet {
            for problem in &problems.0 {
                eprintln!("{}", log::line("ERROR", &problem.in_one_line()));
            }
            eprintln!("{}", log::line("FATAL", "cannot load config file"));
        }
    }

    /// There is no log yet.
    fn give_up(&self, reason: &str) {
        if !self.as_pgbouncer {
            eprintln!("pooler: cannot start: {reason}");
        } else if !self.quiet {
            eprintln!("{}", log::line("FATAL", reason));
        }
    }
}

fn serve(source: Source, loaded: Loaded, ready: Ready) -> Result<(), StartError> {
    let Ready { client_tls, server_tls, log, passed, heritage } = ready;
    let live = Live { client_tls, server_tls, config: Arc::new(loaded.config) };
    let count = worker_count(&live.config.settings);
    let runtime = Builder::new_multi_thread()
        .worker_threads((count / 4).clamp(1, 4))
        .thread_name("pooler-login")
        .enable_all()
        .build()?;
    let (process, threads) = start_workers(live, count, &runtime)?;
    let result = runtime.block_on(listen_until_stopped(&process, source, log.apply(), passed, heritage));
    for worker in &process.workers {
        worker.send(Message::Stop);
    }
    for thread in threads {
        if thread.join().is_err() {
            return Err("a worker ended with a panic".into());
        }
    }
    result
}

async fn listen_until_stopped(
    process: &Arc<Process>,
    source: Source,
    apply_log: ApplyLog,
    passed: Vec<OwnedFd>,
    mut heritage: Option<Heritage>,
) -> Result<(), StartError> {
    let settings = process.config().settings.clone();
    let passed_by_systemd = !passed.is_empty();
    let mut listeners = if !passed_by_systemd {
        let sockets = heritage.as_mut().map(|heritage| std::mem::take(&mut heritage.sockets));
        sockets::bind(&settings, sockets::inherit(sockets.unwrap_or_default())?).await?
    } else {
        tracing::info!(
            "sockets passed by systemd: listen_addr, listen_port, unix_socket_dir make no difference"
        );
        sockets::take(passed)?
    };
    let taken_over = heritage.is_some();
    // Before anything that the old process cannot take back.
    let metrics = match &settings.metrics_addr {
        Some(endpoint) if !taken_over => metrics::bind(endpoint).await?,
        _ => Vec::new(),
    };
    let line = match heritage {
        Some(heritage) => {
            let Legacy { cancels, disabled, line } =
                tokio::task::spawn_blocking(move || heritage.go()).await??;
            if let Some(cancels) = cancels {
                // Nobody else sets it.
                let _ = process.predecessor.set(cancels);
            }
            disabled.iter().for_each(|database| process.pools.set_disabled(database, true));
            listeners.iter_mut().for_each(Listener::take_file);
            Some(line)
        }
        None => None,
    };
    // Before there is anything that only the end of the process removes.
    let signals = Signals::new()?;
    let pidfile = match settings.pidfile.as_deref().map(PidFile::write).transpose() {
        Err(error) if taken_over => {
            // Too late to give up: the old process serves nobody new.
            tracing::error!("{error}");
            None
        }
        written => written?,
    };
    let successor = if passed_by_systemd { None } else { takeover::listen(&settings) };
    let commands = Arc::new(Commands::new(Arc::clone(process), source, apply_log));
    process.discover();
    tokio::spawn(keep_names(Arc::downgrade(process)));
    tokio::spawn(export(Arc::downgrade(process)));
    let mut estate = Estate::new(pidfile);
    tokio::spawn(drop_idle_pools(Arc::downgrade(process)));
    for listener in listeners {
        tracing::info!("listening on {}", listener.name);
        estate.accept_on(listener, process, &commands);
    }
    let text = format!("pooler {} has started, pid {}", env!("CARGO_PKG_VERSION"), std::process::id());
    process.pools.events.tell(Kind::Process, "", &text);
    if settings.metrics_addr.is_some() {
        tokio::spawn(keep_history(Arc::clone(&commands)));
    }
    metrics::answer_on(metrics, &commands);
    if let Some(endpoint) = settings.metrics_addr.clone().filter(|_| taken_over) {
        metrics::inherit(endpoint, &commands);
    }
    commands.open_minimum();
    if let Some(line) = line {
        let process = Arc::clone(process);
        // A thread of its own: it may wait for as long as the old process is there.
        thread::Builder::new()
            .name("pooler-heir".to_owned())
            .spawn(move || takeover::receive(line, &process))?;
    }
    tokio::spawn(statistics::keep(Arc::clone(&commands)));
    let pidfile = succession::keep(estate, successor, process, &commands);
    tracing::info!(
        "process up: pooler {}, {} workers, pid {}",
        env!("CARGO_PKG_VERSION"),
        process.workers.len(),
        std::process::id()
    );
    identity::notify_systemd("READY=1");
    signals::until_stopped(signals, &commands).await?;
    if process.config().settings.otlp_endpoint.is_some() {
        // A collector that hangs holds nobody up for longer.
        let _ = tokio::time::timeout(LAST_SPANS, process.spans.flush()).await;
    }
    drop(pidfile);
    Ok(())
}

/// So long the last spans may take on their way.
const LAST_SPANS: Duration = Duration::from_secs(1);

fn worker_count(settings: &Settings) -> usize {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let wanted = if settings.workers == 0 { cores } else { settings.workers };
    wanted.clamp(1, MAX_WORKERS)
}

type WorkerThread = thread::JoinHandle<()>;

fn start_workers(
    live: Live,
    count: usize,
    runtime: &Runtime,
) -> Result<(Arc<Process>, Vec<WorkerThread>), StartError> {
    let mut handles = Vec::new();
    let mut parts = Vec::new();
    for _ in 0..count {
        let poll = Poll::new()?;
        let (handle, inbox) = WorkerHandle::new(Waker::new(poll.registry(), crate::worker::WAKER)?);
        handles.push(handle);
        let timer = Timer::register(poll.registry(), crate::worker::TIMER)?;
        parts.push((poll, timer, inbox));
    }
    let logins = Arc::new(LoginShared::new()?);
    logins.limits.keep_descriptors_from(descriptors::raise_limit(live.config.settings.max_client_conn));
    let process = Arc::new(Process::new(live, handles, logins, runtime.handle().clone()));
    let mut threads = Vec::new();
    for (id, (poll, timer, inbox)) in parts.into_iter().enumerate() {
        let worker_process = Arc::clone(&process);
        let body = move || {
            if let Err(error) = Worker::new(id, poll, timer, inbox, worker_process).run() {
                tracing::error!("worker {id} cannot wait for events: {error}");
            }
        };
        threads.push(thread::Builder::new().name(format!("pooler-worker-{id}")).spawn(body)?);
    }
    Ok((process, threads))
}
