//! Micro-benches of what happens per message, without a socket.
//!
//! Whole transactions are measured by `scripts/bench.sh`; these tell which part of the codec moved.

use std::{fmt::Write as _, hint::black_box, num::NonZeroUsize};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use pooler::{
    pool::budget::Budget,
    protocol::{
        backend, encode,
        frame::{self, HEADER, Header},
        frontend,
    },
    session::{
        downstream::Downstream,
        outgoing::Outgoing,
        params::{Labels, Params},
        pipeline::{Expected, Pipeline},
        queries::{Queries, Took},
        state::{ClientSession, ServerSession, Shared},
        statements::Registry,
        upstream::Upstream,
    },
    sql,
};

/// What one read of a busy server connection can bring.
const READ: usize = 64 * 1024;

/// DataRows of one text column of `width` bytes, as many whole ones as fit in a read.
fn data_rows(width: usize) -> Vec<u8> {
    let mut row = Vec::new();
    encode::message(&mut row, backend::DATA_ROW, |b| {
        b.extend_from_slice(&1u16.to_be_bytes());
        b.extend_from_slice(&u32::try_from(width).unwrap_or(0).to_be_bytes());
        b.resize(b.len() + width, b'x');
    });
    row.repeat(READ / row.len())
}

/// Walks the headers as a relay does; counts messages so that nothing can be left out.
fn scan(mut bytes: &[u8]) -> usize {
    let mut messages = 0;
    while let Some(header) = Header::peek(bytes) {
        let Some(rest) = bytes.get(header.total().max(HEADER)..) else { break };
        messages += 1;
        bytes = rest;
    }
    messages
}

fn header_scan(c: &mut Criterion) {
    let mut group = c.benchmark_group("header_scan");
    for width in [16, 100, 1024] {
        let rows = data_rows(width);
        group.throughput(Throughput::Bytes(rows.len() as u64));
        group.bench_function(format!("64 KB of {width} byte rows"), |b| b.iter(|| scan(black_box(&rows))));
    }
    group.finish();
}

fn strings(c: &mut Criterion) {
    let body = b"statement_name\0SELECT abalance FROM pgbench_accounts WHERE aid = $1\0\0\0";
    c.bench_function("split_cstr of a Parse", |b| {
        b.iter(|| {
            let (name, rest) = frame::split_cstr(black_box(body))?;
            let (text, _) = frame::split_cstr(rest)?;
            Some(name.len() + text.len())
        });
    });
}

fn encoding(c: &mut Criterion) {
    c.bench_function("encode ReadyForQuery into a kept buffer", |b| {
        b.iter_batched_ref(
            || Vec::with_capacity(64),
            |out| encode::ready_for_query(out, black_box(b'I')),
            BatchSize::SmallInput,
        );
    });
}

/// A client and a server with the same settings, and what they share.
struct Session {
    client: ClientSession,
    server: ServerSession,
    shared: Shared,
    queries: Queries,
    staged: Vec<u8>,
}

impl Session {
    fn new() -> Self {
        let shared = Shared { registry: Registry::new(1), labels: Labels::default() };
        let label =
            shared.labels.intern(Params::from_pairs([("TimeZone", "UTC"), ("client_encoding", "UTF8")]));
        let client = ClientSession::new(1, label.clone());
        let server = ServerSession::new(label, &[]);
        let mut queries = Queries::default();
        queries.keep(500);
        Self { client, server, shared, queries, staged: Vec::with_capacity(READ) }
    }

    /// Sends a request and takes its reply; bytes that went out at both ends.
    fn transaction(&mut self, request: &[u8], reply: &[u8]) -> usize {
        self.staged.clear();
        let mut out = Outgoing::new(request, &mut self.staged);
        self.server.adopt(&mut self.client, |sql| encode::query(out.inject(), sql));
        let mut upstream = Upstream {
            client: &mut self.client,
            server: &mut self.server,
            shared: &self.shared,
            max_statements: NonZeroUsize::new(200),
            max_packet_size: usize::MAX,
            now: 0,
            counts: Default::default(),
            flush: false,
            hidden: None,
            listens: true,
            heard: true,
            lacks: None,
            simple: true,
            refuses: false,
            queries: Some(&mut self.queries),
            pool: 0,
        };
        upstream.translate(request, &mut out);
        let sent = out.finish().len();
        self.staged.clear();
        let mut out = Outgoing::new(reply, &mut self.staged);
        let mut downstream = Downstream::new(&mut self.client, &mut self.server, &self.shared);
        let used = downstream.translate(reply, &mut out);
        self.server.done.drain(..).for_each(|done| self.queries.count(&done, Took::default()));
        assert!(used.is_ok_and(|used| used == reply.len()) && self.server.is_free());
        sent + out.finish().len()
    }
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode::message(&mut bytes, tag, |b| b.extend_from_slice(body));
    bytes
}

/// What pgbench -S sends and gets: one row of one number.
fn transactions(c: &mut Criterion) {
    let sql = b"SELECT abalance FROM pgbench_accounts WHERE aid = $1;\0";
    let row = [
        message(
            backend::ROW_DESCRIPTION,
            b"\0\x01abalance\0\0\0\x40\0\0\x03\0\0\0\x17\0\x04\xff\xff\xff\xff\0\0",
        ),
        message(backend::DATA_ROW, b"\0\x01\0\0\0\x0512345"),
        message(backend::COMMAND_COMPLETE, b"SELECT 1\0"),
        message(backend::READY_FOR_QUERY, b"I"),
    ]
    .concat();
    let extended = |parse: &[u8], name: &str| {
        let values = b"\0\0\0\x01\0\0\0\x0512345\0\0";
        let bind = message(frontend::BIND, &[b"\0", name.as_bytes(), b"\0", values].concat());
        let describe = message(frontend::DESCRIBE, b"P\0");
        let execute = message(frontend::EXECUTE, b"\0\0\0\0\0");
        [parse, &bind, &describe, &execute, &message(frontend::SYNC, b"")].concat()
    };
    let parsed = |name: &[u8]| message(frontend::PARSE, &[name, b"\0", sql, b"\0\0"].concat());
    let (one, two) = (message(backend::PARSE_COMPLETE, b""), message(backend::BIND_COMPLETE, b""));
    let bound = [&two[..], &row].concat();

    let mut group = c.benchmark_group("transaction both ways");
    let mut session = Session::new();
    let simple = message(frontend::QUERY, sql);
    group.bench_function("simple", |b| b.iter(|| session.transaction(black_box(&simple), black_box(&row))));
    let unnamed = extended(&parsed(b""), "");
    let reply = [&one[..], &bound].concat();
    group.bench_function("extended", |b| {
        b.iter(|| session.transaction(black_box(&unnamed), black_box(&reply)))
    });
    let described = [
        message(backend::PARAMETER_DESCRIPTION, b"\0\x01\0\0\0\x17"),
        message(backend::NO_DATA, b""),
        message(backend::READY_FOR_QUERY, b"I"),
    ];
    let prepare = [parsed(b"P_0"), message(frontend::SYNC, b"")].concat();
    session.transaction(&prepare, &[&one[..], &described.concat()].concat());
    let prepared = extended(b"", "P_0");
    group.bench_function("prepared", |b| {
        b.iter(|| session.transaction(black_box(&prepared), black_box(&bound)))
    });
    group.finish();
}

/// What one prepared transaction costs in the reply queue alone.
fn reply_queue(c: &mut Criterion) {
    let mut pipeline = Pipeline::default();
    let mut undone = Vec::new();
    c.bench_function("reply queue: Bind, Describe, Execute, Sync", |b| {
        b.iter(|| {
            for expected in [Expected::Bind, Expected::Describe, Expected::Execute, Expected::Sync] {
                pipeline.push(black_box(expected));
            }
            for tag in *b"2TDCZ" {
                black_box(pipeline.on_reply(black_box(tag), &mut undone));
            }
            pipeline.is_empty()
        });
    });
}

/// The place of a server in its limits.
fn budget(c: &mut Criterion) {
    let budget = Budget::default();
    budget.set_limit(20);
    c.bench_function("budget: acquire and release", |b| {
        b.iter(|| {
            let had = black_box(&budget).acquire(0);
            budget.release();
            had
        });
    });
}

/// A database of 3,000 safe functions and 500 tainted names.
struct Database {
    functions: hashbrown::HashSet<Vec<u8>, foldhash::fast::RandomState>,
    tainted: hashbrown::HashSet<Vec<u8>, foldhash::fast::RandomState>,
}

impl Database {
    fn new() -> Self {
        let functions = (0..3000).map(|n| format!("function_{n}").into_bytes());
        let functions =
            functions.chain(["count", "coalesce", "json_agg"].map(|name| name.as_bytes().to_vec()));
        let tainted = (0..500).map(|n| format!("pg_stat_{n}").into_bytes());
        Self { functions: functions.collect(), tainted: tainted.collect() }
    }
}

impl sql::Facts for Database {
    fn is_unknown(&self) -> bool {
        false
    }
    fn function_is_safe(&self, name: &[u8]) -> bool {
        self.functions.contains(name)
    }
    fn function_reads_anything(&self, name: &[u8]) -> bool {
        self.tainted.contains(name)
    }
    fn function_writes_nothing(&self, _: &[u8]) -> bool {
        false
    }
    fn function_touches_session(&self, name: &[u8]) -> bool {
        self.tainted.contains(name)
    }
    fn relation_touches_session(&self, _: &[u8]) -> bool {
        false
    }
    fn is_tainted(&self, name: &[u8]) -> bool {
        self.tainted.contains(name)
    }
    fn tainted_may_write(&self, _: &[u8]) -> bool {
        true
    }
    fn operator_is_safe(&self, operator: &[u8]) -> bool {
        !self.tainted.contains(operator)
    }
    fn add_reads(&self, name: &[u8], slots: &mut Vec<u16>) -> bool {
        slots.push(sql::slot(name));
        !self.tainted.contains(name)
    }
    fn writes_of(&self, name: &[u8]) -> sql::Names {
        sql::Names::Known([sql::slot(name)].into())
    }
}

/// Texts as applications send them: pgbench, an ORM's joins, a long list, TPC-B.
fn texts() -> [(&'static str, String); 4] {
    let select = "SELECT abalance FROM pgbench_accounts WHERE aid = $1".to_owned();
    let mut joins = String::from(
        "SELECT \"public\".\"Order\".\"id\", \"public\".\"Order\".\"createdAt\", COALESCE(\"a0\".\"n\", 0)",
    );
    for n in 0..6 {
        let _ = write!(joins, ", \"j{n}\".\"id\", \"j{n}\".\"title\"");
    }
    joins.push_str(" FROM \"public\".\"Order\"");
    for n in 0..6 {
        let _ = write!(
            joins,
            " LEFT JOIN \"public\".\"Product{n}\" AS \"j{n}\" ON (\"j{n}\".\"id\") = (\"public\".\"Order\".\"product{n}Id\")"
        );
    }
    joins.push_str(" WHERE (\"public\".\"Order\".\"userId\" = $1 AND \"j1\".\"id\" IS NOT NULL) ORDER BY 1 ASC LIMIT $2 OFFSET $3");
    let list = (0..3000).map(|n| format!("${n}")).collect::<Vec<_>>().join(", ");
    let list = format!("SELECT id, title FROM posts WHERE id IN ({list})");
    let update = "UPDATE pgbench_accounts SET abalance = abalance + $1 WHERE aid = $2;".to_owned();
    [("pgbench SELECT", select), ("six joins", joins), ("list of 3,000", list), ("TPC-B UPDATE", update)]
}

fn classes(c: &mut Criterion) {
    let database = Database::new();
    let dialect = sql::Dialect { standard_strings: true, ascii_safe: true };
    let mut group = c.benchmark_group("classify");
    for (name, text) in texts() {
        let class = sql::classify_with(text.as_bytes(), dialect, &database);
        assert_eq!(class.kind == sql::Kind::Read, name != "TPC-B UPDATE", "{class:?}");
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(format!("{name}, {} bytes", text.len()), |b| {
            b.iter(|| sql::classify_with(black_box(text.as_bytes()), dialect, &database));
        });
        group.bench_function(format!("tokens of {name}"), |b| {
            b.iter(|| sql::lexer::Lexer::new(black_box(text.as_bytes()), true).count());
        });
    }
    group.finish();
}

criterion_group!(benches, classes, header_scan, strings, encoding, transactions, reply_queue, budget);
criterion_main!(benches);
