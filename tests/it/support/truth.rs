//! The statements of routing_table.txt: what they are, and the ways to send them.

use std::sync::atomic::{AtomicU32, Ordering};

use super::{
    database::password_of,
    msg::*,
    pooler::Pooler,
    raw::Raw,
    replicated::{DATABASE, Replicated, marker},
};

/// Who has to run a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A replica.
    Replica,
    /// The primary, at the first attempt.
    Primary,
    /// Anybody who gives the primary's answer.
    Same,
}

/// How a statement reaches the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// A Query of its own.
    Simple,
    /// Unnamed Parse, Bind, Execute, Sync.
    Extended,
    /// A named statement, prepared once and run twice.
    Prepared,
    /// The second statement of a Query.
    Several,
    /// The second of three units that are sent together.
    Pipeline,
}

/// Every way.
pub const WAYS: [Way; 5] = [Way::Simple, Way::Extended, Way::Prepared, Way::Several, Way::Pipeline];

/// One line of the table.
#[derive(Debug)]
pub struct Row {
    /// Number of the line.
    pub line: usize,
    /// The comment above it.
    pub section: String,
    /// Who has to run it.
    pub place: Place,
    /// Its text; see [`Row::text`].
    sql: String,
    flags: Vec<String>,
    args: Vec<String>,
    /// What the primary says to it, if that is an error.
    pub error: Option<String>,
}

/// Reads the table.
pub fn rows(table: &str) -> Vec<Row> {
    let mut section = String::new();
    let mut rows = Vec::new();
    for (index, line) in table.lines().enumerate() {
        if let Some(title) = line.strip_prefix("# ") {
            section = title.to_owned();
        } else if let Some((head, sql)) = line.split_once(' ').filter(|_| !line.starts_with('#')) {
            // Values of arguments may have blanks.
            let (head, sql) = match line.split_once("] ") {
                Some((flagged, sql)) if head.contains('[') => (flagged, sql),
                _ => (head, sql),
            };
            rows.push(Row::read(index + 1, &section, head, sql));
        }
    }
    rows
}

impl Row {
    fn read(line: usize, section: &str, head: &str, sql: &str) -> Self {
        let (place, flags) = head.split_once('[').unwrap_or((head, ""));
        let place = match place {
            "replica" => Place::Replica,
            "primary" => Place::Primary,
            "same" => Place::Same,
            other => panic!("line {line}: {other}"),
        };
        let (flags, args) = flags.split_once("args=").unwrap_or((flags, ""));
        let args = args.trim_end_matches(']').split('|').filter(|arg| !arg.is_empty()).map(str::to_owned);
        let flags: Vec<String> = flags.trim_end_matches(']').split(',').map(str::to_owned).collect();
        let error = flags.iter().find_map(|flag| flag.strip_prefix("error=")).map(str::to_owned);
        let sql = unescape(sql);
        Self { line, section: section.to_owned(), place, sql, flags, args: args.collect(), error }
    }

    /// Whether it has this flag.
    pub fn is(&self, flag: &str) -> bool {
        self.flags.iter().any(|known| known == flag)
    }

    /// Ways that it can go.
    pub fn ways(&self) -> impl Iterator<Item = Way> {
        let (simple, extended) = (self.is("simple"), self.is("extended"));
        WAYS.into_iter().filter(move |way| match way {
            Way::Simple | Way::Several => !extended,
            Way::Extended | Way::Prepared | Way::Pipeline => !simple,
        })
    }

    /// The way to ask the primary for the right answer.
    pub fn plainest_way(&self) -> Way {
        self.ways().next().unwrap()
    }

    /// Who sends it.
    pub fn role(&self) -> &'static str {
        if self.is("super") { "boss" } else { "app" }
    }

    /// What is sent, with a marker of this name.
    pub fn text(&self, cluster: &Replicated, name: &str) -> String {
        static COUNT: AtomicU32 = AtomicU32::new(1);
        let number = COUNT.fetch_add(1, Ordering::Relaxed).to_string();
        let text = fill(&self.sql, cluster).replace("{n}", &number);
        let marker = marker(name);
        if text.contains("{m}") { text.replace("{m}", &marker) } else { format!("{text} {marker}") }
    }

    /// The name that its marker has in a run, sent this way.
    pub fn name(&self, run: &str, way: Way) -> String {
        format!("{run} {} {way:?}", self.line)
    }

    /// Sends it as part of a run and gives what came back: rows and errors.
    pub fn send(&self, client: &mut Raw, way: Way, run: &str, cluster: &Replicated) -> Vec<String> {
        let name = self.name(run, way);
        let text = self.text(cluster, &name);
        let args: Vec<Option<&str>> = self.args.iter().map(|arg| Some(arg.as_str())).collect();
        let run_it = |statement: &str| [bind(statement, &args), execute(), sync()].concat();
        let one = |sql: &str| [parse("", sql), bind("", &[]), execute(), sync()].concat();
        client.received.clear();
        match way {
            Way::Simple => client.send(&query(&text)),
            Way::Several => client.send(&query(&format!("SELECT 'before'; {text}"))),
            Way::Extended => client.send_all(&[parse("", &text), run_it("")]),
            Way::Prepared => client.send_all(&[parse(&name, &text), sync()]),
            Way::Pipeline => {
                client.send_all(&[one("SELECT 1"), parse("", &text), run_it(""), one("SELECT 2")])
            }
        }
        match way {
            Way::Simple | Way::Extended => answer(&client.ready(1)),
            Way::Several => {
                let mut answer = answer(&client.ready(1));
                // Nothing of a text that is wrong is executed.
                answer.retain(|line| line != "before");
                answer
            }
            Way::Pipeline => {
                client.ready(1);
                let answer = answer(&client.ready(1));
                client.ready(1);
                answer
            }
            Way::Prepared => {
                client.ready(1);
                client.send(&run_it(&name));
                client.ready(1);
                client.send(&run_it(&name));
                let answer = answer(&client.ready(1));
                client.send_all(&[close(&name), sync()]);
                client.ready(1);
                answer
            }
        }
    }

    /// How often that executes it.
    pub fn executions(way: Way) -> usize {
        if way == Way::Prepared { 2 } else { 1 }
    }
}

/// Rows, copied data and errors among messages.
fn answer(frames: &[Frame]) -> Vec<String> {
    let line = |frame: &Frame| match frame.tag {
        b'D' => Some(frame.row()),
        b'd' => Some(String::from_utf8_lossy(&frame.body).into_owned()),
        b'E' => Some(format!("error {}: {}", frame.field(b'C'), frame.field(b'M'))),
        _ => None,
    };
    frames.iter().filter_map(line).collect()
}

/// The error that an answer is, if it is one.
pub fn error_of(answer: &[String]) -> Option<&str> {
    answer.last()?.strip_prefix("error ").and_then(|error| error.get(..5))
}

fn unescape(sql: &str) -> String {
    let mut out = String::new();
    let mut chars = sql.chars();
    while let Some(c) = chars.next() {
        out.push(match (c, c == '\\') {
            (c, false) => c,
            (_, true) => match chars.next() {
                Some('n') => '\n',
                Some('t') => '\t',
                Some('f') => '\x0c',
                Some('\\') => '\\',
                other => panic!("\\{other:?} in {sql}"),
            },
        });
    }
    out
}

/// Puts the primary's port and app's password where they belong.
pub fn fill(sql: &str, cluster: &Replicated) -> String {
    let port = cluster.node(cluster.primary()).port.to_string();
    sql.replace("@PORT@", &port).replace("@PASSWORD@", &password_of("app"))
}

/// Runs the blocks of a set-up file at the primary.
pub fn set_up(cluster: &Replicated, file: &str) {
    let mut admin = cluster.admin(cluster.primary());
    let file: String = file.lines().filter(|line| !line.starts_with("--")).flat_map(|l| [l, "\n"]).collect();
    for block in file.split("\n\n").filter(|block| !block.trim().is_empty()) {
        admin.sql(&fill(block, cluster));
    }
    cluster.catch_up_all();
}

/// A client of that role, through pooler.
pub fn client(pooler: &Pooler, role: &str) -> Raw {
    Raw::login(pooler.port, role, DATABASE, &password_of(role))
}
