//! Load driver: many clients, one request under way each, latencies in a histogram.
//!
//! Prints `READY` when all clients are logged in, `START` and `END` around the measured time (the caller
//! reads the pooler's CPU clock there), then one line of JSON. Connections are set up with blocking calls,
//! then each thread drives its share by epoll, as pgbench -j does.

mod client;
mod histogram;
mod scram;
mod tls;
mod wire;
mod work;

use std::io::Read;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use mio::{Events, Interest, Poll, Token};

use client::Client;
use histogram::Histogram;
use wire::{Target, Wire};
use work::{Mode, Work};

pub(crate) type Res<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Drives load at a PostgreSQL server or a pooler on this machine.
#[derive(Parser)]
struct Args {
    /// Port on 127.0.0.1; without it nothing is done.
    #[arg(long)]
    port: Option<u16>,
    #[arg(long, default_value = "bench")]
    user: String,
    #[arg(long, default_value = "bench")]
    password: String,
    #[arg(long, default_value = "bench")]
    database: String,
    #[arg(long, value_enum, default_value = "simple")]
    mode: Mode,
    #[arg(long, default_value_t = 32)]
    clients: usize,
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Measured time.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Time before that, under the same load.
    #[arg(long, default_value_t = 1.0)]
    warmup: f64,
    /// pgbench's scale factor.
    #[arg(long, default_value_t = 10)]
    scale: u64,
    #[arg(long)]
    tls: bool,
    /// Each client sets three settings first, to values that no client next to it has.
    #[arg(long)]
    settings: bool,
    /// Run one transaction per client, say READY and stay idle until standard input ends.
    #[arg(long)]
    idle: bool,
    /// Passed by cargo bench.
    #[arg(long, hide = true)]
    bench: bool,
}

/// The measured time, known once all clients are there.
#[derive(Clone, Copy)]
struct Window {
    start: Instant,
    end: Instant,
}

/// What a thread saw.
struct Tally {
    latencies: Histogram,
    errors: u64,
    first_error: Option<String>,
}

impl Tally {
    fn new() -> Self {
        Self { latencies: Histogram::new(), errors: 0, first_error: None }
    }

    fn done(&mut self, begun: Instant, window: &Window) {
        let now = Instant::now();
        if now >= window.start && now < window.end {
            self.latencies.record(u64::try_from((now - begun).as_nanos()).unwrap_or(u64::MAX));
        }
    }

    fn failed(&mut self, error: String) {
        self.errors += 1;
        self.first_error.get_or_insert(error);
    }
}

fn main() -> Res<()> {
    let args = Args::parse();
    let Some(port) = args.port else {
        println!("load driver of scripts/bench.sh; needs --port, see --help");
        return Ok(());
    };
    let target = Arc::new(Target {
        port,
        user: args.user.clone(),
        database: args.database.clone(),
        password: scram::Password::new(args.password.clone()),
        tls: if args.tls { Some(tls::config()?) } else { None },
    });
    if args.idle { idle(&args, &target) } else { measure(Arc::new(args), target) }
}

/// Logs a client in and sends what comes before its first transaction.
fn begin(args: &Args, target: &Target, seed: u64) -> Res<(Wire, Work)> {
    let mut wire = Wire::login(target)?;
    let work = Work::new(args.mode, args.scale, seed);
    if args.settings {
        wire.exchange(&work::settings(seed))?;
    }
    if let Some(prelude) = work.prelude() {
        wire.exchange(&prelude)?;
    }
    Ok((wire, work))
}

/// Logs clients in and lets each run one transaction, then holds them.
fn idle(args: &Args, target: &Target) -> Res<()> {
    let mut wires = Vec::with_capacity(args.clients);
    for (seed, _) in (0u64..).zip(0..args.clients) {
        let (mut wire, mut work) = begin(args, target, seed)?;
        let mut request = Vec::new();
        work.next(&mut request);
        wire.exchange(&request)?;
        wires.push(wire);
    }
    println!("READY");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    for wire in &mut wires {
        wire.send(b"X\0\0\0\x04")?;
    }
    Ok(())
}

fn measure(args: Arc<Args>, target: Arc<Target>) -> Res<()> {
    let threads = if args.mode == Mode::Connect { args.clients } else { args.threads.min(args.clients) };
    let (ready, all_ready) = channel();
    let mut handles = Vec::new();
    let mut windows: Vec<Sender<Window>> = Vec::new();
    for thread in 0..threads {
        let (send, window) = channel();
        windows.push(send);
        let share = (args.clients + threads - 1 - thread) / threads;
        let (target, ready, args) = (Arc::clone(&target), ready.clone(), Arc::clone(&args));
        let seed = u64::try_from(thread)? << 32;
        handles.push(thread::spawn(move || match args.mode {
            Mode::Connect => reconnect(&target, args.scale, seed, &ready, &window),
            _ => drive(&args, &target, seed, share, &ready, &window),
        }));
    }
    drop(ready);
    if all_ready.iter().take(threads).count() == threads {
        println!("READY");
        let start = Instant::now() + Duration::from_secs_f64(args.warmup);
        let window = Window { start, end: start + Duration::from_secs_f64(args.seconds) };
        for send in &windows {
            send.send(window).ok();
        }
        announce(&window);
    }
    drop(windows);
    let mut sum = Tally::new();
    for handle in handles {
        let tally = handle.join().map_err(|_| "a thread panicked")??;
        sum.latencies.merge(&tally.latencies);
        sum.errors += tally.errors;
        sum.first_error = sum.first_error.or(tally.first_error);
    }
    report(&args, &sum);
    Ok(())
}

fn announce(window: &Window) {
    thread::sleep(window.start.saturating_duration_since(Instant::now()));
    println!("START");
    thread::sleep(window.end.saturating_duration_since(Instant::now()));
    println!("END");
}

fn report(args: &Args, tally: &Tally) {
    let at = |per_mille| tally.latencies.micros_at(per_mille);
    let error = tally.first_error.as_deref().unwrap_or_default().replace(['"', '\\'], "'");
    println!(
        "{{\"transactions\":{},\"seconds\":{},\"p50\":{:.1},\"p99\":{:.1},\"p999\":{:.1},\"max\":{:.1},\
         \"errors\":{},\"error\":\"{error}\"}}",
        tally.latencies.total(),
        args.seconds,
        at(500),
        at(990),
        at(999),
        at(1000),
        tally.errors,
    );
}

/// Drives `share` clients by one event loop until the window ends.
fn drive(
    args: &Args,
    target: &Target,
    seed: u64,
    share: usize,
    ready: &Sender<()>,
    window: &Receiver<Window>,
) -> Res<Tally> {
    let mut poll = Poll::new()?;
    let mut clients = Vec::with_capacity(share);
    for (number, index) in (0u64..).zip(0..share) {
        let (wire, work) = begin(args, target, seed + number)?;
        let mut client = Client::new(wire, work)?;
        poll.registry().register(
            &mut client.socket,
            Token(index),
            Interest::READABLE | Interest::WRITABLE,
        )?;
        clients.push(client);
    }
    ready.send(())?;
    let window = window.recv()?;
    for client in &mut clients {
        client.ask()?;
    }
    let mut tally = Tally::new();
    let mut events = Events::with_capacity(256);
    let mut buffer = vec![0; 256 * 1024];
    while Instant::now() < window.end {
        poll.poll(&mut events, Some(Duration::from_millis(50)))?;
        for event in &events {
            let Some(client) = clients.get_mut(event.token().0) else { continue };
            client.flush()?;
            if !event.is_readable() {
                continue;
            }
            let progress = client.wake(&mut buffer)?;
            match (progress.failed, progress.done) {
                (Some(error), _) => tally.failed(error),
                (None, Some(begun)) => tally.done(begun, &window),
                (None, None) => {}
            }
        }
    }
    Ok(tally)
}

/// One client that logs in for each transaction.
fn reconnect(
    target: &Target,
    scale: u64,
    seed: u64,
    ready: &Sender<()>,
    window: &Receiver<Window>,
) -> Res<Tally> {
    let mut work = Work::new(Mode::Connect, scale, seed);
    let mut request = Vec::new();
    ready.send(())?;
    let window = window.recv()?;
    let mut tally = Tally::new();
    while Instant::now() < window.end {
        let begun = Instant::now();
        request.clear();
        work.next(&mut request);
        let outcome = Wire::login(target).and_then(|mut wire| {
            wire.exchange(&request)?;
            wire.send(b"X\0\0\0\x04")
        });
        match outcome {
            Ok(()) => tally.done(begun, &window),
            Err(error) => tally.failed(error.to_string()),
        }
    }
    Ok(tally)
}
