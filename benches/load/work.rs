//! What the clients ask: pgbench's scripts in each query protocol, and large results.

use clap::ValueEnum;

use crate::wire::{cstr, message};

/// A kind of transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// pgbench -S -M simple.
    Simple,
    /// pgbench -S -M extended: an unnamed statement parsed each time.
    Extended,
    /// pgbench -S -M prepared: a named statement, parsed once per client.
    Prepared,
    /// pgbench's built-in TPC-B-like script, seven simple queries.
    Tpcb,
    /// 1 MB in one row.
    BigRow,
    /// 1 MB in ten thousand rows.
    ManyRows,
    /// Log in, one simple query, leave.
    Connect,
    /// Nine SELECTs for each UPDATE, on ten tables, simple queries.
    Mixed,
    /// The same, with named statements.
    MixedPrepared,
}

const SELECT: &str = "SELECT abalance FROM pgbench_accounts WHERE aid = $1";
const STATEMENT: &str = "P_0";
const ROWS_PER_SCALE: u64 = 100_000;
/// Of `mixed`: tables mixed_0, mixed_1, …, and rows in each.
const TABLES: u64 = 10;
const ROWS: u64 = 10_000;

/// One client's stream of requests.
pub(crate) struct Work {
    mode: Mode,
    scale: u64,
    random: u64,
    step: usize,
    picks: Picks,
}

/// What a TPC-B transaction chose at its start.
#[derive(Default)]
struct Picks {
    account: u64,
    branch: u64,
    teller: u64,
    delta: u64,
}

impl Work {
    pub(crate) fn new(mode: Mode, scale: u64, seed: u64) -> Self {
        let random = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        Self { mode, scale, random, step: 0, picks: Picks::default() }
    }

    /// What has to be sent once, before the first transaction.
    pub(crate) fn prelude(&self) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        match self.mode {
            Mode::Prepared => parse(&mut out, STATEMENT, SELECT),
            Mode::MixedPrepared => {
                for table in 0..TABLES {
                    for write in [false, true] {
                        parse(&mut out, &mixed_name(table, write), &mixed(table, write, "$1"));
                    }
                }
            }
            _ => return None,
        }
        message(&mut out, b'S', |_| {});
        Some(out)
    }

    /// Appends the next request; `true` if its reply completes a transaction.
    pub(crate) fn next(&mut self, out: &mut Vec<u8>) -> bool {
        match self.mode {
            Mode::Simple | Mode::Connect => {
                query(out, &format!("SELECT abalance FROM pgbench_accounts WHERE aid = {}", self.account()));
            }
            Mode::Extended => {
                parse(out, "", SELECT);
                execute(out, "", self.account());
            }
            Mode::Prepared => execute(out, STATEMENT, self.account()),
            Mode::Mixed => {
                let (table, write) = self.mix();
                query(out, &mixed(table, write, &self.pick(ROWS).to_string()));
            }
            Mode::MixedPrepared => {
                let (table, write) = self.mix();
                execute(out, &mixed_name(table, write), self.pick(ROWS));
            }
            Mode::Tpcb => return self.tpcb(out),
            Mode::BigRow => query(out, "SELECT repeat('0123456789abcdef0123456789abcdef', 32768)"),
            Mode::ManyRows => query(out, "SELECT i, repeat('x', 85) FROM generate_series(1, 10000) i"),
        }
        true
    }

    /// A table, and whether it is written.
    fn mix(&mut self) -> (u64, bool) {
        (self.pick(TABLES) - 1, self.pick(10) == 1)
    }

    fn tpcb(&mut self, out: &mut Vec<u8>) -> bool {
        if self.step == 0 {
            self.picks = Picks {
                account: self.account(),
                branch: self.pick(self.scale),
                teller: self.pick(10 * self.scale),
                delta: self.pick(5000),
            };
        }
        let Picks { account, branch, teller, delta } = self.picks;
        let sql = match self.step {
            0 => "BEGIN".to_owned(),
            1 => format!("UPDATE pgbench_accounts SET abalance = abalance + {delta} WHERE aid = {account}"),
            2 => format!("SELECT abalance FROM pgbench_accounts WHERE aid = {account}"),
            3 => format!("UPDATE pgbench_tellers SET tbalance = tbalance + {delta} WHERE tid = {teller}"),
            4 => format!("UPDATE pgbench_branches SET bbalance = bbalance + {delta} WHERE bid = {branch}"),
            5 => format!(
                "INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) \
                 VALUES ({teller}, {branch}, {account}, {delta}, CURRENT_TIMESTAMP)"
            ),
            _ => "END".to_owned(),
        };
        query(out, &sql);
        self.step = (self.step + 1) % 7;
        self.step == 0
    }

    fn account(&mut self) -> u64 {
        self.pick(ROWS_PER_SCALE * self.scale)
    }

    /// 1 to `most`, by xorshift.
    fn pick(&mut self, most: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) % most.max(1) + 1
    }
}

/// Settings of a client's own, as an application might have them; the values differ from client to client.
pub(crate) fn settings(seed: u64) -> Vec<u8> {
    let own = (seed ^ (seed >> 32)) % 1000;
    let mut out = Vec::new();
    let sql = format!(
        "SET statement_timeout = {}; SET search_path = tenant_{own}, public; SET work_mem = '{}kB'",
        60_000 + own,
        4096 + own
    );
    query(&mut out, &sql);
    out
}

fn query(out: &mut Vec<u8>, sql: &str) {
    message(out, b'Q', |b| cstr(b, sql));
}

fn mixed(table: u64, write: bool, id: &str) -> String {
    if write {
        format!("UPDATE mixed_{table} SET v = v + 1 WHERE id = {id}")
    } else {
        format!("SELECT v FROM mixed_{table} WHERE id = {id}")
    }
}

fn mixed_name(table: u64, write: bool) -> String {
    format!("{}{table}", if write { "w" } else { "r" })
}

/// The same messages as libpq's: Bind, Describe, Execute, Sync.
fn execute(out: &mut Vec<u8>, statement: &str, value: u64) {
    let value = value.to_string();
    message(out, b'B', |b| {
        cstr(b, "");
        cstr(b, statement);
        b.extend_from_slice(&[0, 0, 0, 1]);
        b.extend_from_slice(&u32::try_from(value.len()).unwrap_or(0).to_be_bytes());
        b.extend_from_slice(value.as_bytes());
        b.extend_from_slice(&[0, 1, 0, 0]);
    });
    message(out, b'D', |b| {
        b.push(b'P');
        cstr(b, "");
    });
    message(out, b'E', |b| {
        cstr(b, "");
        b.extend_from_slice(&[0; 4]);
    });
    message(out, b'S', |_| {});
}

fn parse(out: &mut Vec<u8>, statement: &str, sql: &str) {
    message(out, b'P', |b| {
        cstr(b, statement);
        cstr(b, sql);
        b.extend_from_slice(&[0, 0]);
    });
}
