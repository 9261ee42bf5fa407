//! Spans of transactions, as a collector of OpenTelemetry gets them: what they tell, whose trace they belong to, and that nobody
//! waits for them.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU16, Ordering::SeqCst},
    },
    thread,
};

use pooler::demo::process::wait_until;
use serde_json::Value;

use crate::{
    metrics::Seen,
    support::{
        database::Database,
        msg::*,
        pooler::Setup,
        raw::{PATIENCE, Raw},
        replicated::Replicated,
    },
};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// A comment of sqlcommenter.
fn comment(sampled: bool) -> String {
    format!("/*action='%2Fx',traceparent='00-{TRACE}-{PARENT}-0{}'*/", u8::from(sampled))
}

/// A collector. It answers with this status; 0: not at all.
struct Collector {
    port: u16,
    status: Arc<AtomicU16>,
    bodies: Arc<Mutex<Vec<String>>>,
}

impl Collector {
    fn start(status: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (status, bodies) = (Arc::new(AtomicU16::new(status)), Arc::default());
        let (answers, kept) = (Arc::clone(&status), Arc::clone(&bodies));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (answers, kept) = (Arc::clone(&answers), Arc::clone(&kept));
                thread::spawn(move || collect(stream.unwrap(), &answers, &kept));
            }
        });
        Self { port, status, bodies }
    }

    /// In front of a database, each transaction of which is traced.
    fn watch(&self, setup: Setup) -> Seen {
        let endpoint = format!("otlp_endpoint = \"http://127.0.0.1:{}/otel/\"", self.port);
        Seen::start(setup.setting(&endpoint))
    }

    /// All spans so far, their fields checked.
    fn spans(&self) -> Vec<Span> {
        let bodies = self.bodies.lock().unwrap().clone();
        bodies.iter().flat_map(|body| read(body)).collect()
    }

    /// Waits for so many spans of an operation, and nothing else.
    fn wait_for(&self, count: usize) -> Vec<Span> {
        let mut spans = Vec::new();
        wait_until(PATIENCE, || {
            spans = self.spans();
            (spans.len() >= count).then_some(())
        });
        assert_eq!(spans.len(), count, "{spans:#?}");
        spans
    }
}

fn collect(mut stream: TcpStream, status: &AtomicU16, bodies: &Mutex<Vec<String>>) {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).unwrap_or(0) == 0 {
            return;
        }
        head.extend(byte);
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    assert!(head.starts_with("post /otel/v1/traces http/1.1\r\n"), "{head}");
    assert!(head.contains("content-type: application/json\r\n"), "{head}");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    stream.read_exact(&mut body).unwrap();
    let answer = match status.load(SeqCst) {
        0 => return drop(stream.read(&mut byte)),
        200 => {
            bodies.lock().unwrap().push(String::from_utf8(body).unwrap());
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 21\r\n\r\n{\"partialSuccess\":{}}".to_owned()
        }
        status => format!("HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n"),
    };
    let _ = stream.write_all(answer.as_bytes());
}

#[derive(Debug)]
struct Span {
    name: String,
    trace: String,
    id: String,
    parent: Option<String>,
    failed: Option<String>,
    /// Texts as they are, numbers in digits.
    attributes: BTreeMap<String, String>,
    /// Nanoseconds.
    start: u64,
    assigned: u64,
    end: u64,
}

impl Span {
    fn get(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }

    fn number(&self, name: &str) -> u64 {
        self.get(name).parse().unwrap_or_else(|_| panic!("{name} of {self:?}"))
    }
}

fn is_hex(text: &str, len: usize) -> bool {
    text.len() == len && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// What a field of 64 bits is in JSON of protobuf.
fn long(value: &Value) -> u64 {
    value.as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{value}"))
}

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

/// Attributes as the schema has them.
fn attributes(list: &Value) -> BTreeMap<String, String> {
    let pair = |pair: &Value| {
        assert_eq!(keys(pair), BTreeSet::from(["key", "value"]));
        let value = &pair["value"];
        let text = value["stringValue"].as_str().map(str::to_owned);
        let value = text.unwrap_or_else(|| long(&value["intValue"]).to_string());
        (pair["key"].as_str().unwrap().to_owned(), value)
    };
    list.as_array().unwrap().iter().map(pair).collect()
}

/// The spans of a request, whose form is that of opentelemetry-proto.
fn read(body: &str) -> Vec<Span> {
    let request: Value = serde_json::from_str(body).unwrap();
    assert_eq!(keys(&request), BTreeSet::from(["resourceSpans"]));
    let resource = &request["resourceSpans"][0];
    assert_eq!(keys(resource), BTreeSet::from(["resource", "scopeSpans"]));
    let of = attributes(&resource["resource"]["attributes"]);
    assert_eq!(
        (of["service.name"].as_str(), of["service.version"].as_str()),
        ("pooler", env!("CARGO_PKG_VERSION"))
    );
    let scope = &resource["scopeSpans"][0];
    assert_eq!(
        (keys(scope), &scope["scope"]["name"]),
        (BTreeSet::from(["scope", "spans"]), &"pooler".into())
    );
    let known = BTreeSet::from([
        "attributes",
        "endTimeUnixNano",
        "events",
        "flags",
        "kind",
        "name",
        "parentSpanId",
        "spanId",
        "startTimeUnixNano",
        "status",
        "traceId",
    ]);
    let span = |span: &Value| {
        assert!(keys(span).is_subset(&known), "{span:#}");
        let text = |field: &str| span[field].as_str().unwrap().to_owned();
        let read = Span {
            name: text("name"),
            trace: text("traceId"),
            id: text("spanId"),
            parent: span["parentSpanId"].as_str().map(str::to_owned),
            failed: (span["status"]["code"] == 2)
                .then(|| span["status"]["message"].as_str().unwrap().to_owned()),
            attributes: attributes(&span["attributes"]),
            start: long(&span["startTimeUnixNano"]),
            assigned: long(&span["events"][0]["timeUnixNano"]),
            end: long(&span["endTimeUnixNano"]),
        };
        assert!(is_hex(&read.trace, 32) && is_hex(&read.id, 16) && span["kind"] == 3, "{span:#}");
        assert!(read.start <= read.assigned && read.assigned <= read.end, "{span:#}");
        read
    };
    scope["spans"].as_array().unwrap().iter().map(span).collect()
}

#[test]
fn each_transaction_is_a_span() {
    let (database, collector) = (Database::new(), Collector::start(200));
    let setup = Setup::new(&database).setting("trace_sample = 1").setting("default_pool_size = 1");
    let seen = collector.watch(setup);
    let mut client = seen.pooler.connect();
    client.sql("SELECT generate_series(1, 3), 'secret literal'");
    client.send_all(&[
        parse("s", "/* x */ VALUES ($1::text)"),
        bind("s", &[Some("secret value")]),
        execute(),
        sync(),
    ]);
    client.ready(1);
    for sql in ["BEGIN", "CREATE TEMP TABLE t ON COMMIT DROP AS SELECT 1", "SELECT pg_sleep(0.05)", "COMMIT"]
    {
        client.sql(sql);
    }
    assert!(client.try_sql("SELECT 1/0").is_err());
    let spans = collector.wait_for(4);
    let names: Vec<String> =
        ["SELECT", "VALUES", "TRANSACTION", "SELECT"].map(|word| format!("{word} {}", database.name)).into();
    assert_eq!(spans.iter().map(|span| span.name.clone()).collect::<Vec<_>>(), names);
    let rows: Vec<u64> = spans.iter().map(|span| span.number("db.response.returned_rows")).collect();
    assert_eq!(rows, [3, 1, 2, 0]);
    assert_eq!(spans.iter().map(|span| span.number("pooler.queries")).collect::<Vec<_>>(), [1, 1, 4, 1]);
    for span in &spans {
        for (name, value) in [
            ("db.system.name", "postgresql"),
            ("db.namespace", database.name.as_str()),
            ("server.address", "127.0.0.1"),
            ("server.port", &database.port.to_string()),
            ("pooler.database", &database.name),
            ("pooler.user", "app"),
            ("pooler.route", ""),
        ] {
            assert_eq!(span.get(name), value, "{name} of {span:#?}");
        }
        assert!(span.number("pooler.client") > 0 && span.parent.is_none());
    }
    assert!(spans[2].number("pooler.execution_us") >= 50_000 && spans[2].end - spans[2].start >= 50_000_000);
    assert_eq!(spans[3].get("db.response.status_code"), "22012");
    assert_eq!(
        spans.iter().map(|s| s.failed.as_deref()).collect::<Vec<_>>(),
        [None, None, None, Some("22012")]
    );
    let different: BTreeSet<&str> = spans.iter().map(|span| span.trace.as_str()).collect();
    assert_eq!(different.len(), 4);
    assert!(!collector.bodies.lock().unwrap().concat().contains("secret"));
    // Who waits for a server is told of with the wait.
    client.sql("BEGIN");
    let mut late = seen.pooler.connect();
    late.send(&query("SELECT 1"));
    client.sql("SELECT pg_sleep(0.1)");
    client.sql("COMMIT");
    late.ready(1);
    let waited = collector.wait_for(6).pop().unwrap();
    assert!(
        waited.number("pooler.wait_us") > 50_000 && waited.assigned - waited.start > 50_000_000,
        "{waited:#?}"
    );
    // Those that are sent in one go are told of together.
    let pipeline = ["SELECT 1", "BEGIN", "SELECT 2", "COMMIT", "SELECT 1/0", "SELECT 3"].map(query).concat();
    client.send(&pipeline);
    client.ready(6);
    let together = collector.wait_for(7).pop().unwrap();
    assert_eq!(
        ["pooler.transactions", "pooler.queries", "db.response.returned_rows"].map(|n| together.number(n)),
        [4, 6, 3]
    );
    assert_eq!(together.failed.as_deref(), Some("22012"));
    // A connection that is lost amid a transaction is an error, and one that leaves its transaction.
    client.sql("BEGIN");
    client.sql("SELECT 1");
    drop(client);
    let left = collector.wait_for(8).pop().unwrap();
    assert_eq!(left.failed.as_deref(), Some("client disconnected"), "{left:#?}");
    assert_eq!(seen.sum("pooler_trace_spans_total", &["outcome=\"exported\""]), 8.0);
}

#[test]
fn traceparents_of_comments_decide_whose_spans_they_are() {
    let (database, collector) = (Database::new(), Collector::start(200));
    let seen = collector.watch(Setup::new(&database).setting("trace_sample = 0"));
    let mut client = seen.pooler.connect();
    let (yes, no) = (comment(true), comment(false));
    // Without, and with the flag that says no: nothing.
    client.sql("SELECT 1");
    client.sql(&format!("SELECT 2 {no}"));
    // At the end, at the start, within a transaction, prepared.
    client.sql(&format!("SELECT 3 {yes}"));
    client.sql(&format!("{yes} SELECT 4"));
    client.sql("BEGIN");
    client.sql(&format!("SELECT 5 {yes}"));
    client.sql("COMMIT");
    client.send_all(&[parse("s", &format!("SELECT 6 {yes}")), bind("s", &[]), execute(), sync()]);
    client.ready(1);
    // What was prepared with it is another transaction's affair later.
    client.send_all(&[bind("s", &[]), execute(), sync()]);
    client.ready(1);
    // In a literal it is none.
    client.sql(&format!("SELECT '{}'", yes.replace('\'', "''")));
    client.sql(&format!("SELECT 7 {yes}"));
    let spans = collector.wait_for(5);
    for span in &spans {
        assert_eq!((span.trace.as_str(), span.parent.as_deref()), (TRACE, Some(PARENT)), "{span:#?}");
    }
    assert_eq!(spans.iter().map(|span| &*span.id).collect::<BTreeSet<_>>().len(), 5);
    // Off: nothing more, and on again.
    seen.pooler.console("SET otlp_endpoint = ''");
    client.sql(&format!("SELECT 8 {yes}"));
    seen.pooler.console("RELOAD");
    client.sql(&format!("SELECT 9 {yes}"));
    assert_eq!(collector.wait_for(6).len(), 6);
}

#[test]
fn spans_tell_of_nodes_and_routes() {
    let (cluster, collector) = (Replicated::start(1, &[]), Collector::start(200));
    cluster.connect(0).sql("CREATE TABLE t AS SELECT 1 AS a");
    cluster.catch_up_all();
    let setup = cluster.setup(&[0, 1]).setting("trace_sample = 0").setting("read_consistency = \"eventual\"");
    let seen = collector.watch(setup);
    cluster.wait_for_replicas(&seen.pooler);
    let mut client = seen.pooler.connect();
    let yes = comment(true);
    client.sql(&format!("SELECT a FROM t {yes}"));
    client.sql(&format!("UPDATE t SET a = 2 {yes}"));
    client.sql(&format!("BEGIN READ ONLY {yes}"));
    client.sql("SELECT a FROM t");
    client.sql("COMMIT");
    let spans = collector.wait_for(3);
    let told = |span: &Span| {
        let name = span.name.split(' ').next().unwrap().to_owned();
        [
            name,
            span.get("pooler.node").to_owned(),
            span.get("pooler.node.role").to_owned(),
            span.get("pooler.route").to_owned(),
        ]
    };
    let node = |index| format!("127.0.0.1:{}", cluster.node(index).port);
    let expected = [
        ["SELECT".to_owned(), node(1), "replica".to_owned(), "replica: read".to_owned()],
        ["UPDATE".to_owned(), node(0), "primary".to_owned(), "primary: statement".to_owned()],
        ["TRANSACTION".to_owned(), node(1), "replica".to_owned(), "replica: read_only".to_owned()],
    ];
    assert_eq!(spans.iter().map(told).collect::<Vec<_>>(), expected);
}

#[test]
fn a_collector_that_hangs_or_refuses_costs_nobody_anything() {
    let (database, collector) = (Database::new(), Collector::start(0));
    let seen = collector.watch(Setup::new(&database).setting("trace_sample = 1"));
    let mut client = seen.pooler.connect();
    let outcome = |word: &str| seen.sum("pooler_trace_spans_total", &[&format!("outcome=\"{word}\"")]);
    // One batch is on its way, 4096 wait, and no more.
    (0..6_000).for_each(|_| drop(client.sql("SELECT 1")));
    assert!(outcome("dropped") > 500.0, "{}", outcome("dropped"));
    assert_eq!(outcome("exported"), 0.0);
    // It is there again, and says no for good: counted, and logged once.
    collector.status.store(400, SeqCst);
    let rest = 6_000.0 - outcome("dropped");
    let failed = wait_until(4 * PATIENCE, || (outcome("failed") == rest).then_some(()));
    assert!(failed.is_some(), "{} of {rest}", outcome("failed"));
    assert_eq!(seen.pooler.log().matches("traces cannot be sent").count(), 1);
    collector.status.store(200, SeqCst);
    client.sql("SELECT 1");
    seen.wait_for("pooler_trace_spans_total", &["outcome=\"exported\""], 1.0);
    assert!(seen.pooler.log().contains("traces are taken again"));
    assert_eq!(collector.spans().len(), 1);
}

#[test]
fn the_last_spans_are_sent_when_the_process_ends() {
    let (database, collector) = (Database::new(), Collector::start(200));
    let seen = collector.watch(Setup::new(&database).setting("trace_sample = 1"));
    let mut client: Raw = seen.pooler.connect();
    client.sql("SELECT 1");
    seen.pooler.signal("QUIT");
    assert_eq!(collector.wait_for(1).len(), 1);
}
