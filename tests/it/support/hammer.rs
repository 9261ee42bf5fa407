//! Writers and readers on connections of their own: who reads what was acknowledged before the read began, and who does
//! not.

use std::{
    collections::HashMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use super::{msg::*, raw::Raw};

/// How something is sent; `{k}` stands for the key and `{n}` for the number that is written. A read must say `hammered`.
#[derive(Clone, Debug)]
pub enum Op {
    /// Queries, one after the other.
    Simple(Vec<String>),
    /// A named statement, prepared once on each connection; $1 is the key, $2 the number.
    Prepared(String),
    /// An unnamed statement.
    Unnamed(String),
}

impl Op {
    /// One query.
    pub fn query(sql: &str) -> Self {
        Self::queries(&[sql])
    }

    /// Several queries.
    pub fn queries(sqls: &[&str]) -> Self {
        Self::Simple(sqls.iter().map(|&sql| sql.to_owned()).collect())
    }

    /// A named statement.
    pub fn prepared(sql: &str) -> Self {
        Self::Prepared(sql.to_owned())
    }

    /// An unnamed statement.
    pub fn unnamed(sql: &str) -> Self {
        Self::Unnamed(sql.to_owned())
    }
}

/// A place to write to, and how to read what was written.
#[derive(Clone, Debug)]
pub struct Channel {
    /// What it is.
    pub name: String,
    /// It has keys 1 to this.
    pub keys: usize,
    /// Ways to write a number under a key.
    pub writes: Vec<Op>,
    /// Ways to read it; the first column of the last row is the number.
    pub reads: Vec<Op>,
}

/// How a connection is made.
pub type Connect<'a> = Box<dyn Fn() -> Raw + Sync + 'a>;

/// Who hammers, and how hard.
pub struct Hammer<'a> {
    /// Where.
    pub channels: Vec<Channel>,
    /// Connections that write.
    pub writers: usize,
    /// Connections that read.
    pub readers: usize,
    /// Reads in all.
    pub reads: u64,
    /// Writers wait for so many reads after each write.
    pub reads_per_write: u64,
    /// Writers rest so long after each write.
    pub rest: Duration,
    /// Whether readers look mostly at what was written last.
    pub hot: bool,
    /// A connection for a writer.
    pub writer: Connect<'a>,
    /// A connection for a reader.
    pub reader: Connect<'a>,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Reads made.
    pub reads: u64,
    /// Writes acknowledged.
    pub writes: u64,
    /// Reads that missed an acknowledged write.
    pub stale: u64,
    /// Reads that were older than what the same connection had read before.
    pub backwards: u64,
    /// Some of both, to look at.
    pub examples: Vec<String>,
}

/// So many reads, or what the variable POOLER_HAMMER_READS says.
pub fn reads(default: u64) -> u64 {
    std::env::var("POOLER_HAMMER_READS").map_or(default, |reads| reads.parse().unwrap())
}

/// A small generator: good enough to mix, and the same in each run.
#[derive(Debug)]
pub struct Dice(u64);

impl Dice {
    /// Starts from a seed.
    pub fn new(seed: usize) -> Self {
        Self((seed as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }

    /// A number below this.
    pub fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).unwrap() % end
    }
}

/// A connection that remembers what it has prepared.
#[derive(Debug)]
pub struct Player {
    raw: Raw,
    names: HashMap<String, String>,
}

impl Player {
    /// On a connection.
    pub fn new(raw: Raw) -> Self {
        Self { raw, names: HashMap::new() }
    }

    /// Sends it and gives the first column of the last row, if there is one.
    pub fn play(&mut self, op: &Op, key: usize, number: i64) -> Option<i64> {
        let frames = match op {
            Op::Simple(queries) => {
                let mut frames = Vec::new();
                for text in queries {
                    self.raw.send(&query(&fill(text, key, number)));
                    frames.extend(self.raw.ready(1));
                }
                frames
            }
            Op::Unnamed(text) => {
                let text = fill(text, key, number);
                self.raw.send_all(&[parse("", &text), bind("", &[]), execute(), sync()]);
                self.raw.ready(1)
            }
            Op::Prepared(text) => self.prepared(text, key, number),
        };
        self.raw.received.clear();
        if let Some(error) = frames.iter().find(|frame| frame.tag == b'E') {
            panic!("{op:?} with {key}, {number}: {error:?}");
        }
        let last = frames.iter().rfind(|frame| frame.tag == b'D')?;
        last.values().first()?.as_ref()?.parse().ok()
    }

    fn prepared(&mut self, text: &str, key: usize, number: i64) -> Vec<Frame> {
        let mut messages = Vec::new();
        if !self.names.contains_key(text) {
            let name = format!("s{}", self.names.len());
            messages.push(parse(&name, text));
            self.names.insert(text.to_owned(), name);
        }
        let (key, number) = (key.to_string(), number.to_string());
        let values = [Some(key.as_str()), Some(number.as_str())];
        let count = if text.contains("$2") { 2 } else { 1 };
        messages.extend([bind(&self.names[text], &values[..count]), execute(), sync()]);
        self.raw.send_all(&messages);
        self.raw.ready(1)
    }
}

/// Puts key and number in their places; `{sub …}` is repeated in so many subtransactions that they overflow what a
/// snapshot has room for.
fn fill(text: &str, key: usize, number: i64) -> String {
    let text = match text.split_once("{sub ").and_then(|(head, rest)| Some((head, rest.split_once("}}")?))) {
        Some((head, (body, tail))) => {
            let one = format!("SAVEPOINT s; {body}}}; ");
            format!("{head}{}{tail}", one.repeat(70))
        }
        None => text.to_owned(),
    };
    text.replace("{k}", &key.to_string()).replace("{n}", &number.to_string())
}

/// What all threads know.
struct Board<'a> {
    hammer: &'a Hammer<'a>,
    /// The last number acknowledged, by channel and key.
    acknowledged: Vec<Vec<AtomicI64>>,
    /// Channel and key that were written last.
    last: (AtomicUsize, AtomicUsize),
    reads: AtomicU64,
    writes: AtomicU64,
    over: AtomicBool,
    outcome: Mutex<Outcome>,
}

impl Hammer<'_> {
    /// Hammers until enough was read.
    pub fn run(&self) -> Outcome {
        let zeros = |channel: &Channel| (0..channel.keys).map(|_| AtomicI64::new(0)).collect();
        let board = Board {
            hammer: self,
            acknowledged: self.channels.iter().map(zeros).collect(),
            last: (AtomicUsize::new(0), AtomicUsize::new(1)),
            reads: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            over: AtomicBool::new(false),
            outcome: Mutex::default(),
        };
        let start = Instant::now();
        std::thread::scope(|scope| {
            let writers: Vec<_> = (0..self.writers)
                .map(|index| {
                    scope.spawn({
                        let board = &board;
                        move || board.write(index)
                    })
                })
                .collect();
            let readers: Vec<_> = (0..self.readers)
                .map(|index| {
                    scope.spawn({
                        let board = &board;
                        move || board.read(index)
                    })
                })
                .collect();
            let ends: Vec<_> = readers.into_iter().map(|thread| thread.join()).collect();
            board.over.store(true, SeqCst);
            ends.into_iter()
                .chain(writers.into_iter().map(|thread| thread.join()))
                .for_each(|end| end.unwrap());
        });
        let (reads, writes) = (board.reads.into_inner(), board.writes.into_inner());
        let outcome = Outcome { reads, writes, ..board.outcome.into_inner().unwrap() };
        eprintln!("{:?} in {:?}", outcome, start.elapsed());
        outcome
    }
}

impl Board<'_> {
    /// Writes numbers that go up, each under a key that nobody else writes.
    fn write(&self, index: usize) {
        let mut dice = Dice::new(index);
        let mut player = Player::new((self.hammer.writer)());
        let _end = Over(&self.over);
        while !self.over.load(SeqCst) {
            if self.writes.load(SeqCst) * self.hammer.reads_per_write > self.reads.load(SeqCst) {
                std::thread::sleep(Duration::from_micros(200));
                continue;
            }
            let at = dice.below(self.hammer.channels.len());
            let channel = &self.hammer.channels[at];
            let key = 1 + dice.below(channel.keys);
            if (key + at) % self.hammer.writers != index {
                continue;
            }
            let acknowledged = &self.acknowledged[at][key - 1];
            let number = acknowledged.load(SeqCst) + 1;
            player.play(&channel.writes[dice.below(channel.writes.len())], key, number);
            acknowledged.store(number, SeqCst);
            self.last.0.store(at, SeqCst);
            self.last.1.store(key, SeqCst);
            self.writes.fetch_add(1, SeqCst);
            std::thread::sleep(self.hammer.rest);
        }
    }

    fn read(&self, index: usize) {
        let mut dice = Dice::new(1000 + index);
        let mut player = Player::new((self.hammer.reader)());
        let mut seen: HashMap<(usize, usize), i64> = HashMap::new();
        while self.reads.fetch_add(1, SeqCst) < self.hammer.reads && !self.over.load(SeqCst) {
            let hot = self.hammer.hot && dice.below(4) > 0;
            let at = if hot { self.last.0.load(SeqCst) } else { dice.below(self.hammer.channels.len()) };
            let channel = &self.hammer.channels[at];
            let key = if hot { self.last.1.load(SeqCst) } else { 1 + dice.below(channel.keys) };
            let key = key.min(channel.keys);
            let expected = self.acknowledged[at][key - 1].load(SeqCst);
            let op = &channel.reads[dice.below(channel.reads.len())];
            let found = player.play(op, key, 0).unwrap_or(0);
            let before = seen.insert((at, key), found).unwrap_or(0);
            if found < expected || found < before {
                self.note(found, expected, before, &format!("{} by {op:?}, key {key}", channel.name));
            }
        }
    }

    fn note(&self, found: i64, expected: i64, before: i64, what: &str) {
        let mut outcome = self.outcome.lock().unwrap();
        outcome.stale += u64::from(found < expected);
        outcome.backwards += u64::from(found < before);
        if outcome.examples.len() < 8 {
            outcome
                .examples
                .push(format!("{what}: {found} after {expected} was acknowledged, {before} seen"));
        }
    }
}

/// Ends the readers too when a writer panics.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}
