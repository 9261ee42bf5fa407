//! PostgreSQL's own scanner and parser (libpg_query) as the judge of `pooler::sql`.
//!
//!     pooler-oracle SOURCE [--mutations N] [--seconds S] [--seed X]
//!
//! SOURCE is a source tree of PostgreSQL: its regression tests are the statements, its pg_proc.dat tells which functions
//! are safe. First every statement is judged as it is, then mutations of them. Fails if a token ends elsewhere than for
//! the server, if anything unsafe is called a read, if a target of a write or a change of the session is missed, or if
//! less than nine of ten reads are recognised.

mod ast;
mod database;
mod judge;
mod mutate;
mod statements;

use std::{
    path::PathBuf,
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use database::Database;
use judge::Tally;

struct Args {
    source: PathBuf,
    mutations: u64,
    seconds: u64,
    seed: u64,
}

fn args() -> Result<Args, String> {
    let mut found = Args { source: PathBuf::new(), mutations: 1_000_000, seconds: 40, seed: 1 };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut number = || args.next().and_then(|n| n.parse().ok()).ok_or(format!("{arg} needs a number"));
        match arg.as_str() {
            "--mutations" => found.mutations = number()?,
            "--seconds" => found.seconds = number()?,
            "--seed" => found.seed = number()?,
            _ => found.source = arg.into(),
        }
    }
    if found.source.is_dir() { Ok(found) } else { Err("SOURCE: a source tree of PostgreSQL".into()) }
}

fn main() -> ExitCode {
    let args = match args() {
        Ok(args) => args,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let database = Database::read(&args.source);
    let statements = statements::read(&args.source);
    println!("{} statements, {} safe functions", statements.len(), database.safe());

    let start = Instant::now();
    let mut plain = Tally::default();
    statements.iter().for_each(|text| plain.judge(text, true, &database));
    println!("as they are ({:.1} s): {plain}", start.elapsed().as_secs_f64());

    let mutated = mutated(&args, &statements, &database);
    println!("mutated, seed {} ({:.1} s in all): {mutated}", args.seed, start.elapsed().as_secs_f64());

    let share = plain.recognised as f64 / plain.reads.max(1) as f64;
    println!("recognised {:.1} % of the reads", share * 100.0);
    // An empty run proves nothing.
    let enough = plain.texts > 10_000 && plain.reads > 1_000 && plain.shaped > 1_000 && mutated.texts > 1_000;
    if plain.is_right() && mutated.is_right() && share >= 0.9 && enough {
        println!("ok");
        return ExitCode::SUCCESS;
    }
    println!("FAILED");
    ExitCode::FAILURE
}

/// Judges mutations with all processors, until there were enough of them or the time is over.
fn mutated(args: &Args, statements: &[String], database: &Database) -> Tally {
    let total = Mutex::new(Tally::default());
    let done = AtomicU64::new(0);
    let end = Instant::now() + Duration::from_secs(args.seconds);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (total, done) = (&total, &done);
            scope.spawn(move || {
                let mut tally = Tally::default();
                let mut mutator = mutate::Mutator::new(args.seed * 1_000 + thread as u64, statements);
                while done.fetch_add(1, Ordering::Relaxed) < args.mutations && Instant::now() < end {
                    let (text, standard_strings) = mutator.next();
                    tally.judge(&text, standard_strings, database);
                }
                total.lock().unwrap().add(tally);
            });
        }
    });
    total.into_inner().unwrap()
}
