//! Rows and columns of each view, as text; the same for the terminal and for print.

use std::cmp::Ordering;

use super::{
    app::{App, Tab},
    rates::{self, float},
    sample::Sample,
    text::{bytes, count, time},
};

/// How a row or a cell stands out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Mood {
    #[default]
    Plain,
    Dim,
    Good,
    Warm,
    Bad,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Cell {
    pub(super) text: String,
    /// By which rows are sorted; texts where there is none.
    number: Option<f64>,
    pub(super) mood: Mood,
    /// From 0 to 1: how full something is.
    pub(super) full: Option<f64>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    pub(super) name: &'static str,
    pub(super) right: bool,
    /// Where there is no room for all, columns of the highest rank go first; those of 0 stay.
    pub(super) rank: u8,
}

impl Column {
    const fn rank(self, rank: u8) -> Self {
        Self { rank, ..self }
    }
}

/// What is shown.
#[derive(Clone, Debug, Default)]
pub(super) struct View {
    pub(super) columns: Vec<Column>,
    pub(super) rows: Vec<Vec<Cell>>,
    /// In the place of rows, where there are none.
    pub(super) nothing: String,
}

const fn left(name: &'static str) -> Column {
    Column { name, right: false, rank: 0 }
}

const fn right(name: &'static str) -> Column {
    Column { name, right: true, rank: 0 }
}

fn word(text: &str) -> Cell {
    Cell { text: text.to_owned(), ..Cell::default() }
}

fn number(n: u64) -> Cell {
    let mood = if n == 0 { Mood::Dim } else { Mood::Plain };
    Cell { text: n.to_string(), number: Some(float(n)), mood, full: None }
}

/// `None` is shown as `-`.
fn shown(value: Option<f64>, show: fn(f64) -> String) -> Cell {
    match value {
        Some(value) => Cell {
            text: show(value),
            number: Some(value),
            mood: if value == 0.0 { Mood::Dim } else { Mood::Plain },
            full: None,
        },
        None => Cell { text: "-".to_owned(), number: Some(-1.0), mood: Mood::Dim, full: None },
    }
}

impl Cell {
    fn mood(self, mood: Mood) -> Self {
        Self { mood, ..self }
    }

    fn compare(&self, other: &Self) -> Ordering {
        match (self.number, other.number) {
            (Some(a), Some(b)) => a.total_cmp(&b),
            _ => self.text.cmp(&other.text),
        }
    }
}

/// The view of a tab, sorted.
pub(super) fn view(app: &App, tab: Tab) -> View {
    let Some(sample) = &app.sample else {
        return View { nothing: "Nothing has been seen yet.".to_owned(), ..View::default() };
    };
    let mut view = match tab {
        Tab::Pools => pools(sample),
        Tab::Databases => databases(app, sample),
        Tab::Nodes => nodes(sample),
        Tab::Queries => queries(app, sample),
        Tab::Pins => pins(sample),
    };
    if let Some(sort) = app.sort(tab) {
        // What is equal stays in the console's order.
        view.rows.sort_by(|a, b| {
            let (Some(a), Some(b)) = (a.get(sort.column), b.get(sort.column)) else { return Ordering::Equal };
            let order = a.compare(b);
            if sort.down { order.reverse() } else { order }
        });
    }
    view
}

fn pools(sample: &Sample) -> View {
    let row = |pool: &super::sample::Pool| {
        let busy = float(pool.servers_active);
        let full = (pool.size > 0).then(|| busy / float(pool.size));
        let heat = |full: f64| {
            if full >= 1.0 {
                Mood::Bad
            } else if full >= 0.8 {
                Mood::Warm
            } else {
                Mood::Plain
            }
        };
        let waits = match pool.maxwait {
            0 => Mood::Dim,
            us if us >= 1_000_000 => Mood::Bad,
            _ => Mood::Warm,
        };
        let size = if pool.size == 0 { "∞".to_owned() } else { pool.size.to_string() };
        vec![
            word(&pool.database),
            word(&pool.user),
            number(pool.active),
            number(pool.waiting).mood(if pool.waiting > 0 { Mood::Warm } else { Mood::Dim }),
            shown(Some(float(pool.maxwait)), time).mood(waits),
            number(pool.servers_active),
            number(pool.servers_idle),
            number(pool.servers_login),
            Cell {
                text: format!("{}/{size}", pool.servers),
                number: Some(float(pool.servers)),
                ..Cell::default()
            },
            Cell {
                text: full.map_or("-".to_owned(), |full| format!("{:.0}%", full * 100.0)),
                number: Some(full.unwrap_or(-1.0)),
                mood: full.map_or(Mood::Dim, heat),
                full,
            },
            word(&pool.mode).mood(Mood::Dim),
        ]
    };
    View {
        columns: vec![
            left("database"),
            left("user"),
            right("clients").rank(2),
            right("waiting"),
            right("maxwait").rank(1),
            right("at work").rank(2),
            right("idle").rank(3),
            right("login").rank(4),
            right("servers"),
            right("full").rank(1),
            left("mode").rank(5),
        ],
        rows: sample.pools.iter().map(row).collect(),
        nothing: "No client has asked for a database yet.".to_owned(),
    }
}

fn databases(app: &App, sample: &Sample) -> View {
    let row = |database: &super::sample::Database| {
        let rates = app.before.as_ref().and_then(|before| rates::of_database(before, sample, &database.name));
        let of = |value: fn(&rates::Rates) -> f64, show| shown(rates.as_ref().map(value), show);
        let state = if database.state.is_empty() { Mood::Plain } else { Mood::Warm };
        vec![
            word(&database.name),
            of(|r| r.transactions, count),
            of(|r| r.queries, count),
            shown(rates.and_then(|r| r.transaction_time), time),
            shown(rates.and_then(|r| r.query_time), time),
            shown(rates.and_then(|r| r.wait_time), time),
            of(|r| r.received, bytes),
            of(|r| r.sent, bytes),
            shown(database.clients.map(float), count),
            shown(database.servers.map(float), count),
            word(database.state).mood(state),
        ]
    };
    View {
        columns: vec![
            left("database"),
            right("tx/s"),
            right("query/s").rank(1),
            right("tx time").rank(1),
            right("query time").rank(2),
            right("wait").rank(2),
            right("in/s").rank(3),
            right("out/s").rank(3),
            right("clients").rank(4),
            right("servers").rank(4),
            left("state").rank(1),
        ],
        rows: sample.databases.iter().map(row).collect(),
        nothing: "No client has asked for a database yet.".to_owned(),
    }
}

fn nodes(sample: &Sample) -> View {
    let row = |node: &super::sample::Node| {
        let role = match node.role.as_str() {
            "primary" | "replica" => Mood::Good,
            _ => Mood::Bad,
        };
        let (float_of, late) =
            (|n: Option<u64>| n.map(float), node.lag_time.is_some_and(|us| us >= 1_000_000));
        vec![
            word(&node.database),
            word(&node.node),
            word(&node.role).mood(role),
            shown(float_of(node.lag_time), time).mood(if late { Mood::Warm } else { Mood::Plain }),
            shown(float_of(node.lag_bytes), bytes),
            number(node.busy),
            number(node.weight),
            number(node.timeline),
            shown(float_of(node.probe_time), time),
            word(&node.since).mood(Mood::Dim),
            word(&node.reason),
        ]
    };
    let nothing = match &sample.nodes {
        Some(_) => "No database with nodes has been used (nodes = […] or patroni = […] in [databases.NAME]).",
        None => "This console knows no nodes.",
    };
    View {
        columns: vec![
            left("database").rank(1),
            left("node"),
            left("role"),
            right("lag"),
            right("behind").rank(2),
            right("busy").rank(3),
            right("weight").rank(5),
            right("timeline").rank(4),
            right("probe").rank(5),
            left("since").rank(4),
            left("reason").rank(1),
        ],
        rows: sample.nodes.iter().flatten().map(row).collect(),
        nothing: nothing.to_owned(),
    }
}

fn queries(app: &App, sample: &Sample) -> View {
    let total: u64 = sample.queries.iter().flatten().map(|query| query.time).sum();
    let row = |query: &super::sample::Query| {
        let each = |sum: u64| (query.calls > 0).then(|| float(sum) / float(query.calls));
        let share = (total > 0).then(|| float(query.time) / float(total) * 100.0);
        let rate = app.before.as_ref().and_then(|before| rates::calls(before, sample, query));
        vec![
            shown(share, |share| format!("{share:.0}%")),
            shown(Some(float(query.calls)), count),
            shown(rate, count),
            shown(each(query.time), time),
            shown(Some(float(query.longest)), time),
            shown(each(query.wait), time),
            shown(each(query.rows), count),
            shown(each(query.bytes), bytes),
            number(query.errors).mood(if query.errors > 0 { Mood::Warm } else { Mood::Dim }),
            word(&query.database),
            word(&query.user),
            word(&query.node).mood(Mood::Dim),
            word(&query.text),
        ]
    };
    let nothing = match (&sample.queries, sample.counts_queries) {
        (None, _) => "This console counts no statements.",
        (Some(_), true) => "No statement has been counted yet.",
        (Some(_), false) => {
            "Statements are not counted: set query_statistics = 500 in [pooler] and RELOAD, or SET query_statistics = 500 in \
             the console until the next RELOAD."
        }
    };
    View {
        columns: vec![
            right("% time"),
            right("calls").rank(1),
            right("call/s").rank(1),
            right("each"),
            right("max").rank(3),
            right("wait").rank(2),
            right("rows").rank(4),
            right("bytes").rank(5),
            right("errors").rank(2),
            left("database").rank(5),
            left("user").rank(5),
            left("node").rank(5),
            left("query"),
        ],
        rows: sample.queries.iter().flatten().map(row).collect(),
        nothing: nothing.to_owned(),
    }
}

fn pins(sample: &Sample) -> View {
    let row = |pin: &super::sample::Pin| {
        let seconds = float(pin.longest) * 1e6;
        vec![
            word(&pin.database),
            word(&pin.user),
            word(&pin.reason),
            number(pin.servers),
            shown(Some(seconds), time),
            shown(Some(float(pin.pins)), count),
        ]
    };
    let nothing = match &sample.pins {
        Some(_) => "No server has stayed with its client between transactions.",
        None => "This console does not tell which servers stay with their clients.",
    };
    View {
        columns: vec![
            left("database"),
            left("user").rank(1),
            left("reason"),
            right("servers"),
            right("longest").rank(1),
            right("so far").rank(2),
        ],
        rows: sample.pins.iter().flatten().map(row).collect(),
        nothing: nothing.to_owned(),
    }
}
