//! The process: from the configuration to running workers and listeners, and the way back.

mod descriptors;
mod listener;
mod signals;
mod statistics;

use std::{io::IsTerminal as _, process::ExitCode, sync::Arc, thread};

use mio::{Poll, Waker};
use tokio::runtime::{Builder, Runtime};

use crate::{
    admin::commands::{Commands, LogLevel},
    cli::{Source, Verbosity},
    client::login::LoginShared,
    config::{Loaded, LogFormat, Settings},
    net::{
        timer::Timer,
        tls::{ClientTls, ServerTls},
    },
    worker::{
        Worker, memory,
        message::{Message, WorkerHandle},
        process::{Live, MAX_WORKERS, Process},
    },
};

/// A reason not to start.
type StartError = Box<dyn std::error::Error + Send + Sync>;

/// Serves until told to stop.
pub fn run(source: Source, verbosity: Verbosity) -> ExitCode {
    memory::return_large_buffers();
    let loaded = match source.load() {
        Ok(loaded) => loaded,
        Err(problems) => {
            eprintln!("{problems}");
            return ExitCode::FAILURE;
        }
    };
    let log_level = match start_log(&loaded.config.settings, verbosity) {
        Ok(reload) => reload,
        Err(error) => {
            eprintln!("pooler: cannot start the log: {error}");
            return ExitCode::FAILURE;
        }
    };
    for warning in &loaded.warnings {
        tracing::warn!("{}", warning.in_one_line());
    }
    match serve(source, loaded, log_level) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("cannot start: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What libraries have to say below `info` is for those who write them, and not a line for each event.
fn filter_of(level: &str) -> String {
    match level {
        "debug" | "trace" => format!("info,pooler={level}"),
        other => other.to_owned(),
    }
}

fn start_log(settings: &Settings, verbosity: Verbosity) -> Result<LogLevel, StartError> {
    use tracing_subscriber::{EnvFilter, layer::SubscriberExt as _, reload, util::SubscriberInitExt as _};
    let level = verbosity.level().unwrap_or(&settings.log_level);
    let (filter, handle) = reload::Layer::new(EnvFilter::try_new(filter_of(level))?);
    let registry = tracing_subscriber::registry().with(filter);
    match settings.log_format {
        LogFormat::Json => {
            registry.with(tracing_subscriber::fmt::layer().json().with_writer(std::io::stderr)).try_init()?;
        }
        LogFormat::Text => {
            let layer = tracing_subscriber::fmt::layer()
                .with_writer(std::io::stderr)
                .with_target(false)
                .with_ansi(std::io::stderr().is_terminal());
            registry.with(layer).try_init()?;
        }
    }
    let overridden = verbosity.level().is_some();
    Ok(Box::new(move |level| {
        if !overridden && let Ok(filter) = EnvFilter::try_new(filter_of(level)) {
            // Fails only when the subscriber is gone.
            let _ = handle.reload(filter);
        }
    }))
}

fn serve(source: Source, loaded: Loaded, log_level: LogLevel) -> Result<(), StartError> {
    let settings = &loaded.config.settings;
    let live = Live {
        client_tls: ClientTls::build(settings)?.map(Arc::new),
        server_tls: Arc::new(ServerTls::build(settings)?),
        config: Arc::new(loaded.config),
    };
    let count = worker_count(&live.config.settings);
    let runtime = Builder::new_multi_thread()
        .worker_threads((count / 4).clamp(1, 4))
        .thread_name("pooler-login")
        .enable_all()
        .build()?;
    let (process, threads) = start_workers(live, count, &runtime)?;
    let result = runtime.block_on(listen_until_stopped(&process, source, log_level));
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
    log_level: LogLevel,
) -> Result<(), StartError> {
    let listeners = listener::bind(&process.config().settings).await?;
    let commands = Arc::new(Commands::new(Arc::clone(process), source, log_level));
    process.discover();
    for listener in listeners {
        tracing::info!("listening on {}", listener.name());
        tokio::spawn(listener.accept_loop(Arc::clone(process), Arc::clone(&commands)));
    }
    commands.open_minimum();
    tokio::spawn(statistics::keep(Arc::clone(&commands)));
    tracing::info!(
        "process up: pooler {}, {} workers, pid {}",
        env!("CARGO_PKG_VERSION"),
        process.workers.len(),
        std::process::id()
    );
    signals::until_stopped(&commands).await?;
    Ok(())
}

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
