//! In the steady state a worker takes no memory: not for a transaction, whatever protocol it uses.
//!
//! (TLS takes some for each record.)
//!
//! Runs pooler within this process, under an allocator that counts for each thread.

#![allow(unreachable_pub, reason = "a binary has no outside")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

#[path = "it/support/mod.rs"]
mod support;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    fs,
    sync::atomic::{AtomicI32, AtomicU64, AtomicUsize, Ordering},
};

use pooler::{
    cli::{Source, Verbosity},
    demo::process::{TempDir, free_port, wait_until},
};
use support::{
    database::{Database, password_of},
    msg::*,
    raw::{PATIENCE, Raw},
    replicated::{DATABASE, Replicated},
};

/// Threads that are counted for.
const THREADS: usize = 256;
/// Transactions before counting starts: tables have grown, statements are prepared.
const WARM_UP: usize = 100;
/// Transactions that are counted.
const COUNTED: usize = 1_000;

/// How often they are counted until none takes any.
const ROUNDS: usize = 5;

/// Counts what each thread takes.
struct Counting;

static NEXT: AtomicUsize = AtomicUsize::new(0);
static TAKEN: [AtomicU64; THREADS] = [const { AtomicU64::new(0) }; THREADS];
static IDS: [AtomicI32; THREADS] = [const { AtomicI32::new(0) }; THREADS];

thread_local! {
    /// The thread's place in the tables; `usize::MAX`: none yet.
    static PLACE: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// The kernel's number for this thread.
#[allow(unsafe_code, reason = "std has no way to ask")]
fn thread_id() -> i32 {
    // SAFETY: takes nothing, cannot fail.
    unsafe { libc::gettid() }
}

fn count() {
    // Not while the thread ends: then there is no place any more.
    let place = PLACE.try_with(|place| {
        if place.get() == usize::MAX {
            place.set(NEXT.fetch_add(1, Ordering::Relaxed));
            if let Some(id) = IDS.get(place.get()) {
                id.store(thread_id(), Ordering::Relaxed);
            }
        }
        place.get()
    });
    if let Some(taken) = place.ok().and_then(|place| TAKEN.get(place)) {
        taken.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: every call is passed on unchanged to the system's allocator, which keeps the contract; counting touches
// statics and a thread-local that needs neither memory nor a destructor.
#[allow(unsafe_code, reason = "an allocator cannot be had without")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: `block` comes from `System` with this layout, as the caller says.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: `block` comes from `System` with this layout, as the caller says.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How often pooler's workers have taken memory.
fn taken_by_workers() -> u64 {
    let taken = (0..THREADS).filter(|&place| {
        let id = IDS[place].load(Ordering::Relaxed);
        let name = fs::read_to_string(format!("/proc/self/task/{id}/comm")).unwrap_or_default();
        name.starts_with("pooler-worker")
    });
    taken.map(|place| TAKEN[place].load(Ordering::Relaxed)).sum()
}

/// Starts pooler in this process, for a database on one server and one on several nodes; its port.
fn start(database: &Database, cluster: &Replicated, dir: &TempDir) -> u16 {
    let port = free_port().unwrap();
    let file = dir.path().join("pooler.toml");
    let toml = format!(
        "[pooler]\nlisten_addr = \"127.0.0.1\"\nlisten_port = {port}\nauth_type = \"scram-sha-256\"\n\
         default_pool_size = 1\nworkers = 1\nserver_tls_sslmode = \"disable\"\n[databases.{}]\nhost = \"127.0.0.1\"\nport = {}\n\
         [databases.{DATABASE}]\nnodes = [\"127.0.0.1:{}\", \"127.0.0.1:{}\"]\n[users.app]\npassword = \"{}\"\n",
        database.name,
        database.port,
        cluster.node(0).port,
        cluster.node(1).port,
        password_of("app")
    );
    fs::write(&file, toml).unwrap();
    std::thread::spawn(|| pooler::app::run(Source::File(file), Verbosity::Quiet, false));
    let listens = wait_until(PATIENCE, || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
    assert!(listens.is_some(), "pooler does not listen");
    port
}

/// Sends this request again and again, from two clients in turn, and asserts that it costs the workers nothing.
fn costs_nothing(clients: &mut [Raw], what: &str, request: &[u8], answers: usize) {
    let mut run = |times: usize| {
        for turn in 0..times {
            let client = &mut clients[turn % 2];
            client.send(request);
            let frames = client.ready(answers);
            assert!(frames.iter().all(|frame| frame.tag != b'E'), "{frames:?}");
        }
    };
    run(WARM_UP);
    // What happens now and then on a busy machine (somebody waits, a node is late) may take some; transactions take it always.
    let mut round = || {
        let before = taken_by_workers();
        run(COUNTED);
        taken_by_workers() - before
    };
    let taken: Vec<_> =
        std::iter::repeat_with(&mut round).take(ROUNDS).take_while(|taken| *taken > 0).collect();
    assert!(taken.len() < ROUNDS, "{what}: memory was taken {taken:?} times in {COUNTED} transactions each");
}

// One test: others in this process would be counted too.
#[test]
fn transactions_take_no_memory() {
    let database = Database::new();
    let cluster = Replicated::start(1, &[]);
    let dir = TempDir::new(None).unwrap();
    let port = start(&database, &cluster, &dir);
    let mut clients: Vec<Raw> =
        (0..2).map(|_| Raw::login(port, "app", &database.name, &password_of("app"))).collect();
    assert!(taken_by_workers() > 0, "the workers are not counted");
    for client in &mut clients {
        client.send_all(&[parse("s", "SELECT $1::int, generate_series(1, 10)"), sync()]);
        client.ready(1);
    }
    let values = [Some("7")];
    let unnamed = [parse("", "SELECT $1::int"), bind("", &values), describe_portal(""), execute(), sync()];
    let prepared = [bind("s", &values), describe_portal(""), execute(), sync()].concat();
    let block = [query("BEGIN"), prepared.clone(), query("COMMIT")].concat();
    let pipeline = [prepared.repeat(5), query("SELECT 1")].concat();
    costs_nothing(&mut clients, "simple", &query("SELECT 1, 'two'"), 1);
    costs_nothing(&mut clients, "extended", &unnamed.concat(), 1);
    costs_nothing(&mut clients, "prepared", &prepared, 1);
    costs_nothing(&mut clients, "transaction block", &block, 3);
    costs_nothing(&mut clients, "pipeline", &pipeline, 6);
    routed_transactions_take_no_memory(&cluster, port);
}

fn routed_transactions_take_no_memory(cluster: &Replicated, port: u16) {
    let login = || Raw::login(port, "app", DATABASE, &password_of("app"));
    cluster.connect(0).sql("CREATE TABLE t AS SELECT 1 AS a, 2 AS b");
    cluster.catch_up_all();
    let mut clients: Vec<Raw> = (0..2).map(|_| login()).collect();
    let found = wait_until(PATIENCE, || {
        clients[0].sql("SELECT a FROM t");
        (cluster.calls(1, "FROM t") > 0).then_some(())
    });
    assert!(found.is_some(), "no read gets to the replica");
    let read = "SELECT a, b FROM t WHERE a = $1::int";
    for client in &mut clients {
        client.send_all(&[parse("r", read), parse("w", "UPDATE t SET b = $1::int"), sync()]);
        client.ready(1);
    }
    let values = [Some("1")];
    let run = |name| [bind(name, &values), describe_portal(""), execute(), sync()].concat();
    let unnamed = [parse("", read), run("")].concat();
    let before = cluster.calls(1, "FROM t");
    costs_nothing(&mut clients, "routed, prepared", &run("r"), 1);
    costs_nothing(&mut clients, "routed, extended", &unnamed, 1);
    costs_nothing(&mut clients, "routed, simple", &query("SELECT a, b FROM t"), 1);
    let read = cluster.calls(1, "FROM t") - before;
    assert!(read > 2 * i64::try_from(COUNTED).unwrap(), "the replica has answered {read}");
    costs_nothing(&mut clients, "a write with nodes", &run("w"), 1);
    for client in &mut clients {
        client.sql("SET pooler.route = 'primary'");
    }
    costs_nothing(&mut clients, "a read on the primary", &run("r"), 1);
}
