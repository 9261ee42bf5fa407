//! Clients that go on whatever happens to the servers, and know what they were told: what was acknowledged, what failed,
//! and whether anybody was disconnected.

use std::{
    collections::HashMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use pooler::demo::process::wait_until;

use super::{msg::*, raw::Raw, replicated::Replicated};

/// What a client is told.
#[derive(Debug)]
pub enum Reply {
    /// Rows, and the status of the transaction.
    Rows(Vec<String>, u8),
    /// An error, and the status.
    Error(Frame, u8),
    /// The connection is gone; the error before it, if there was one.
    Closed(Option<Frame>),
}

/// Sends and reads until ReadyForQuery.
pub fn ask(raw: &mut Raw, bytes: &[u8]) -> Reply {
    raw.received.clear();
    if raw.try_send(bytes).is_err() {
        return Reply::Closed(None);
    }
    let (mut rows, mut error) = (Vec::new(), None);
    loop {
        match raw.try_frame() {
            Ok(Some(frame)) => match frame.tag {
                b'D' => rows.push(frame.row()),
                b'E' => error = Some(frame),
                b'Z' => {
                    return error
                        .map_or(Reply::Rows(rows, frame.body[0]), |e| Reply::Error(e, frame.body[0]));
                }
                _ => {}
            },
            Ok(None) => return Reply::Closed(error),
            Err(stuck) => panic!("no answer: {stuck}; {raw:?}"),
        }
    }
}

/// What clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Insert rows into `ledger`: alone, prepared, in transactions; and read some of them back.
    Ledger,
    /// Transactions like TPC-B's, over `branch`, `teller`, `account` and `history`.
    Bank,
    /// Reads of a table that nobody writes to.
    Reads,
}

/// Tables for all kinds of work.
pub const SET_UP: &str = "CREATE TABLE ledger (id bigint); \
    CREATE INDEX ON ledger (id); \
    CREATE TABLE still AS SELECT generate_series(1, 100) AS x; \
    CREATE TABLE branch AS SELECT 1 AS id, 0::bigint AS balance; \
    CREATE TABLE teller AS SELECT id, 0::bigint AS balance FROM generate_series(1, 10) id; \
    CREATE TABLE account AS SELECT id, 0::bigint AS balance FROM generate_series(1, 1000) id; \
    CREATE UNIQUE INDEX ON account (id); \
    CREATE TABLE history (id bigint, delta bigint)";

/// A primary and so many replicas, with these tables on all of them.
pub fn start(replicas: usize) -> Replicated {
    let cluster = Replicated::start(replicas, &[]);
    cluster.connect(0).sql(SET_UP);
    cluster.catch_up_all();
    cluster
}

/// What happened to one client.
#[derive(Debug, Default)]
pub struct Story {
    /// Acknowledged writes, in their order.
    pub acknowledged: Vec<i64>,
    /// Writes that failed, and how.
    pub failed: Vec<(i64, String)>,
    /// Reads that failed or were wrong.
    pub bad_reads: Vec<String>,
    /// Reads that were right.
    pub reads: u64,
    /// How often the connection was closed.
    pub disconnects: u64,
    /// The longest that anything took.
    pub longest: Duration,
}

/// Clients at work.
#[derive(Debug)]
pub struct Load {
    over: AtomicBool,
    /// What each client has done so far.
    done: Vec<AtomicU64>,
    stories: Mutex<Vec<Story>>,
}

impl Load {
    /// Runs clients while `during` does what it does to the servers; their stories.
    pub fn run(work: &[Work], connect: &(dyn Fn() -> Raw + Sync), during: impl FnOnce(&Self)) -> Vec<Story> {
        let done = work.iter().map(|_| AtomicU64::new(0)).collect();
        let load = Self { over: AtomicBool::new(false), done, stories: Mutex::default() };
        std::thread::scope(|scope| {
            for (index, work) in work.iter().enumerate() {
                let load = &load;
                scope.spawn(move || {
                    let story = load.work(*work, index, connect);
                    load.stories.lock().unwrap().push(story);
                });
            }
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| during(&load)));
            load.over.store(true, SeqCst);
            result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        });
        load.stories.into_inner().unwrap()
    }

    /// Waits until every client has done this much more, and says how long that took.
    pub fn goes_on(&self, at_most: Duration) -> Duration {
        const MORE: u64 = 2;
        let start = Instant::now();
        let before: Vec<u64> = self.done.iter().map(|done| done.load(SeqCst)).collect();
        let on = || self.done.iter().zip(&before).all(|(now, before)| now.load(SeqCst) >= before + MORE);
        assert!(wait_until(at_most, || on().then_some(())).is_some(), "no service after {at_most:?}");
        start.elapsed()
    }

    fn work(&self, work: Work, index: usize, connect: &(dyn Fn() -> Raw + Sync)) -> Story {
        let mut client = Client { raw: connect(), prepared: false, story: Story::default(), index };
        let mut number = 0;
        while !self.over.load(SeqCst) {
            number += 1;
            let start = Instant::now();
            let ok = match work {
                Work::Ledger => client.ledger(number),
                Work::Bank => client.bank(number),
                Work::Reads => client.read("SELECT count(*), sum(x) FROM still", "100|5050", number),
            };
            client.story.longest = client.story.longest.max(start.elapsed());
            match ok {
                Ok(()) => drop(self.done[index].fetch_add(1, SeqCst)),
                Err(Gone) => {
                    client.story.disconnects += 1;
                    (client.raw, client.prepared) = (connect(), false);
                }
            }
        }
        client.story
    }
}

/// The connection was closed.
struct Gone;

struct Client {
    raw: Raw,
    prepared: bool,
    story: Story,
    index: usize,
}

impl Client {
    /// A number that nobody else writes.
    fn id(&self, number: i64) -> i64 {
        i64::try_from(self.index).unwrap() * 100_000_000 + number
    }

    fn ledger(&mut self, number: i64) -> Result<(), Gone> {
        let id = self.id(number);
        let insert = query(&format!("INSERT INTO ledger VALUES ({id})"));
        match number % 3 {
            0 => self.write(id, &[insert])?,
            1 => self.write(id, &[query("BEGIN"), insert, query("COMMIT")])?,
            _ => {
                let text = "INSERT INTO ledger VALUES ($1)";
                let first = if self.prepared { Vec::new() } else { parse("insert", text) };
                let step = [first, bind("insert", &[Some(&id.to_string())]), execute(), sync()].concat();
                let written = self.write(id, &[step]);
                // What was not answered does not count: the server may have been lost with it.
                self.prepared |= self.raw.received.iter().any(|frame| frame.tag == b'1');
                written?;
            }
        }
        match self.story.acknowledged.last() {
            Some(last) if number % 4 == 0 => {
                self.read(&format!("SELECT count(*) FROM ledger WHERE id = {last}"), "1", number)
            }
            _ => Ok(()),
        }
    }

    fn bank(&mut self, number: i64) -> Result<(), Gone> {
        let id = self.id(number);
        let (account, teller, delta) = (1 + id % 997, 1 + id % 10, id % 19 - 9);
        let move_it = |table: &str, row: i64| {
            query(&format!("UPDATE {table} SET balance = balance + {delta} WHERE id = {row}"))
        };
        let steps = [
            query("BEGIN"),
            move_it("account", account),
            query(&format!("SELECT balance FROM account WHERE id = {account}")),
            move_it("teller", teller),
            move_it("branch", 1),
            query(&format!("INSERT INTO history VALUES ({id}, {delta})")),
            query("END"),
        ];
        self.write(id, &steps)
    }

    /// A transaction: all steps, or as far as they go. The last one is what acknowledges it.
    fn write(&mut self, id: i64, steps: &[Vec<u8>]) -> Result<(), Gone> {
        for step in steps {
            match ask(&mut self.raw, step) {
                // Each step is one command: nothing has been done without its tag.
                Reply::Rows(..) if !self.raw.received.iter().any(|frame| frame.tag == b'C') => {
                    panic!("{id}: {:?} is no answer to {}", self.raw.received, String::from_utf8_lossy(step));
                }
                Reply::Rows(..) => {}
                Reply::Error(error, status) => {
                    self.story.failed.push((id, format!("{error:?}")));
                    return if status == b'I' { Ok(()) } else { self.roll_back() };
                }
                Reply::Closed(error) => {
                    self.story.failed.push((id, format!("closed after {error:?}")));
                    return Err(Gone);
                }
            }
        }
        self.story.acknowledged.push(id);
        Ok(())
    }

    fn roll_back(&mut self) -> Result<(), Gone> {
        match ask(&mut self.raw, &query("ROLLBACK")) {
            Reply::Closed(_) => Err(Gone),
            _ => Ok(()),
        }
    }

    fn read(&mut self, sql: &str, expected: &str, number: i64) -> Result<(), Gone> {
        let bytes = match number % 2 {
            0 => query(sql),
            _ => [parse("", sql), bind("", &[]), execute(), sync()].concat(),
        };
        match ask(&mut self.raw, &bytes) {
            Reply::Rows(rows, _) if rows == [expected] => {
                self.story.reads += 1;
                Ok(())
            }
            Reply::Closed(error) => {
                self.story.bad_reads.push(format!("{sql}: closed after {error:?}"));
                Err(Gone)
            }
            other => {
                self.story.bad_reads.push(format!("{sql}: {other:?}"));
                Ok(())
            }
        }
    }
}

/// Asserts that no client was disconnected or got a wrong answer to a read, and that none lost more than so many
/// transactions: those in flight.
pub fn assert_served(stories: &[Story], failures: usize) {
    for story in stories {
        let count = story.acknowledged.len();
        eprintln!("{count} writes, {} reads, longest {:?}; {:?}", story.reads, story.longest, story.failed);
        assert!(count as u64 + story.reads > 10, "nothing was done");
        assert_eq!(story.bad_reads, [""; 0]);
        assert_eq!(story.disconnects, 0, "{:?}", story.failed);
        assert!(story.failed.len() <= failures, "{:?}", story.failed);
    }
}

/// Asserts that a node has every acknowledged write, once, and of the others none twice.
pub fn assert_kept(cluster: &Replicated, node: usize, table: &str, stories: &[Story]) {
    let mut counts: HashMap<i64, u32> = HashMap::new();
    for id in cluster.sql(node, &format!("SELECT id FROM {table}")) {
        *counts.entry(id.parse().unwrap()).or_default() += 1;
    }
    let doubled: Vec<_> = counts.iter().filter(|(_, count)| **count > 1).collect();
    assert!(doubled.is_empty(), "written twice: {doubled:?}");
    let acknowledged = || stories.iter().flat_map(|story| &story.acknowledged);
    let lost: Vec<_> = acknowledged().filter(|id| !counts.contains_key(id)).collect();
    assert!(lost.is_empty(), "{} of {} acknowledged are lost: {lost:?}", lost.len(), acknowledged().count());
    let tried = |id: &i64| stories.iter().any(|s| s.failed.iter().any(|(failed, _)| failed == id));
    let known: std::collections::HashSet<&i64> = acknowledged().collect();
    let strange: Vec<_> = counts.keys().filter(|id| !known.contains(id) && !tried(id)).collect();
    assert!(strange.is_empty(), "nobody wrote {strange:?}");
}

/// Asserts that no money was made or lost.
pub fn assert_balanced(cluster: &Replicated, node: usize) {
    let sums = cluster.sql(
        node,
        "SELECT (SELECT sum(balance) FROM account), (SELECT sum(balance) FROM teller), \
         (SELECT sum(balance) FROM branch), (SELECT sum(delta) FROM history)",
    );
    let sums: Vec<&str> = sums[0].split('|').collect();
    assert!(sums.iter().all(|sum| *sum == sums[0]), "{sums:?}");
}
