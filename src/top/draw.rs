//! Draws what is looked at, at whatever size the terminal has.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Block, Clear, Paragraph, Row, Sparkline, Table, Wrap},
};

use super::{
    app::{App, Sort, Tab},
    plain::widths,
    rates::float,
    tables::{self, Cell, Mood, View},
    text::{bytes, count, time},
};

/// Height from which on there is room for the sparkline.
const TALL: u16 = 14;
/// Cells of a bar that shows how full a pool is.
const BAR: u16 = 8;
/// Cells between columns.
const SPACING: u16 = 2;
/// Names of others may be long.
const WIDEST: usize = 40;
/// What the last column needs at least.
const LAST: usize = 24;

const KEYS: &[(&str, &str)] = &[
    ("q, Esc, ^C", "leave"),
    ("1 … 5, Tab", "pools, databases, nodes, queries, pins"),
    ("↑ ↓ PgUp PgDn Home", "scroll"),
    ("s", "sort by the next column"),
    ("r", "the other way around"),
    ("p, space", "pause"),
    ("?", "this"),
];

/// Who is watched.
pub(super) fn headline(app: &App) -> String {
    let version = app.sample.as_ref().map_or("", |sample| sample.version.as_str());
    let version = if version.is_empty() { "pooler top" } else { version };
    let paused = app.sample.as_ref().is_some_and(|sample| sample.paused);
    format!("{version} at {}{}", app.target, if paused { " (PAUSE is in force)" } else { "" })
}

/// All databases together.
pub(super) fn summary(app: &App) -> String {
    let Some(sample) = &app.sample else { return "connecting …".to_owned() };
    let waiting: u64 = sample.pools.iter().map(|pool| pool.waiting).sum();
    let servers: u64 = sample.pools.iter().map(|pool| pool.servers).sum();
    let at_work: u64 = sample.pools.iter().map(|pool| pool.servers_active).sum();
    let mut out =
        format!("{} clients ({waiting} waiting)  {servers} servers ({at_work} at work)", sample.clients);
    match &app.rates {
        Some(rates) => {
            let of = |value: Option<f64>| value.map_or("-".to_owned(), time);
            out.push_str(&format!(
                "  {} tx/s  {} query/s  in {}/s  out {}/s  tx {}  query {}  wait {}",
                count(rates.transactions),
                count(rates.queries),
                bytes(rates.received),
                bytes(rates.sent),
                of(rates.transaction_time),
                of(rates.query_time),
                of(rates.wait_time),
            ));
        }
        None => out.push_str("  rates come with the next look"),
    }
    out
}

fn style(mood: Mood) -> Style {
    match mood {
        Mood::Plain => Style::new(),
        Mood::Dim => Style::new().fg(Color::DarkGray),
        Mood::Good => Style::new().fg(Color::Green),
        Mood::Warm => Style::new().fg(Color::Yellow),
        Mood::Bad => Style::new().fg(Color::Red).add_modifier(Modifier::BOLD),
    }
}

pub(super) fn draw(frame: &mut Frame<'_>, app: &App) {
    let area = frame.area();
    let spark = if area.height >= TALL { 3 } else { 0 };
    let above = |row: u16| if area.height > row { 1 } else { 0 };
    // The table first: on a terminal of a few lines there is nothing else.
    let [head, sums, sparks, tabs, body, foot] = Layout::vertical([
        Constraint::Length(above(3)),
        Constraint::Length(if area.height > 6 { summary_lines(app, area.width) } else { above(4) }),
        Constraint::Length(spark),
        Constraint::Length(above(5)),
        Constraint::Min(1),
        Constraint::Length(above(2)),
    ])
    .areas(area);
    frame.render_widget(Line::styled(headline(app), Style::new().add_modifier(Modifier::BOLD)), head);
    frame.render_widget(Paragraph::new(summary(app)).wrap(Wrap { trim: true }), sums);
    sparkline(frame, app, sparks);
    frame.render_widget(tab_line(app), tabs);
    let view = tables::view(app, app.tab);
    table(frame, app, &view, body);
    frame.render_widget(footer(app, view.rows.len()), foot);
    if app.help {
        help(frame, area);
    }
}

fn summary_lines(app: &App, width: u16) -> u16 {
    let needed = Span::raw(summary(app)).width().div_ceil(usize::from(width).max(1));
    u16::try_from(needed).unwrap_or(1).clamp(1, 3)
}

fn sparkline(frame: &mut Frame<'_>, app: &App, area: Rect) {
    if area.height == 0 || area.width < 20 {
        return;
    }
    let most = app.history.iter().max().copied().unwrap_or(0);
    let label = format!("max {}", count(float(most)));
    let [name, graph] = Layout::horizontal([
        Constraint::Length(u16::try_from(label.len() + 1).unwrap_or(20)),
        Constraint::Min(1),
    ])
    .areas(area);
    // The newest at the right.
    let room = usize::from(graph.width);
    let start = app.history.len().saturating_sub(room);
    let mut values = vec![0; room.saturating_sub(app.history.len())];
    values.extend(app.history.iter().skip(start));
    frame.render_widget(Paragraph::new(format!("tx/s\n{label}")).style(style(Mood::Dim)), name);
    frame.render_widget(Sparkline::default().data(&values).style(Style::new().fg(Color::Cyan)), graph);
}

fn tab_line(app: &App) -> Line<'static> {
    let mut spans = Vec::new();
    for (number, tab) in Tab::ALL.into_iter().enumerate() {
        let text = format!(" {} {} ", number + 1, tab.name());
        let chosen =
            if tab == app.tab { Style::new().add_modifier(Modifier::REVERSED) } else { Style::new() };
        spans.extend([Span::styled(text, chosen), Span::raw(" ")]);
    }
    Line::from(spans)
}

fn table(frame: &mut Frame<'_>, app: &App, view: &View, area: Rect) {
    if view.rows.is_empty() {
        let nothing = Paragraph::new(view.nothing.as_str()).wrap(Wrap { trim: true });
        frame.render_widget(nothing.style(style(Mood::Dim)), area);
        return;
    }
    let sort = app.sort(app.tab);
    let shown = columns(view, sort, usize::from(area.width));
    let constraints = shown.iter().map(|(index, width)| {
        let width = u16::try_from(*width).unwrap_or(u16::MAX);
        // What is last may be as long as it likes, and is cut.
        if *index + 1 == view.columns.len() { Constraint::Min(1) } else { Constraint::Length(width) }
    });
    let head = shown.iter().filter_map(|(index, _)| {
        let column = view.columns.get(*index)?;
        let mark = match sort {
            Some(sort) if sort.column == *index => {
                if sort.down {
                    " ▼"
                } else {
                    " ▲"
                }
            }
            _ => "",
        };
        let line = Line::from(format!("{}{mark}", column.name));
        Some(if column.right { line.right_aligned() } else { line })
    });
    let rows = view.rows.iter().skip(app.scroll).take(usize::from(area.height)).map(|row| {
        let cells = shown.iter().filter_map(|(index, _)| {
            let (line, column) = (line(row.get(*index)?), view.columns.get(*index)?);
            Some(if column.right { line.right_aligned() } else { line })
        });
        Row::new(cells.collect::<Vec<_>>())
    });
    let mut table =
        Table::new(rows.collect::<Vec<_>>(), constraints.collect::<Vec<_>>()).column_spacing(SPACING);
    if area.height > 1 {
        let head = Row::new(head.collect::<Vec<_>>());
        table = table.header(head.style(Style::new().add_modifier(Modifier::UNDERLINED)));
    }
    frame.render_widget(table, area);
}

/// The columns that there is room for, and how wide they are.
fn columns(view: &View, sort: Option<Sort>, room: usize) -> Vec<(usize, usize)> {
    let has_bar =
        |index: usize| view.rows.iter().any(|row| row.get(index).is_some_and(|cell| cell.full.is_some()));
    let wide = |(index, width): (usize, usize)| {
        let bar = if has_bar(index) { usize::from(BAR) + 1 } else { 0 };
        // The mark of the sorted column.
        let mark = usize::from(sort.is_some_and(|sort| sort.column == index)) * 2;
        (index, width.min(WIDEST) + bar + mark)
    };
    let mut shown: Vec<(usize, usize)> = widths(view).into_iter().enumerate().map(wide).collect();
    let rank = |index: usize| view.columns.get(index).map_or(0, |column| column.rank);
    let needs = |shown: &[(usize, usize)]| {
        let width = |(index, width): &(usize, usize)| {
            let is_last = *index + 1 == view.columns.len();
            if is_last { (*width).min(LAST) } else { *width }
        };
        shown.iter().map(width).sum::<usize>() + shown.len().saturating_sub(1) * usize::from(SPACING)
    };
    while shown.len() > 1 && needs(&shown) > room {
        // Of the same rank the last.
        let least = shown.iter().map(|(index, _)| rank(*index)).max().unwrap_or(0);
        let Some(place) = shown.iter().rposition(|(index, _)| rank(*index) == least) else { break };
        shown.remove(place);
    }
    shown
}

fn line(cell: &Cell) -> Line<'_> {
    let text = Span::styled(cell.text.as_str(), style(cell.mood));
    let Some(full) = cell.full else { return Line::from(text) };
    let filled = bar(full);
    let bar = "█".repeat(filled) + &"░".repeat(usize::from(BAR) - filled);
    Line::from(vec![Span::styled(bar, style(cell.mood)), Span::raw(" "), text])
}

/// Filled cells; one at least where something is at work.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to BAR")]
fn bar(full: f64) -> usize {
    (full.clamp(0.0, 1.0) * f64::from(BAR)).ceil() as usize
}

fn footer(app: &App, rows: usize) -> Line<'static> {
    if let Some(trouble) = &app.trouble {
        return Line::styled(format!("connection lost: {trouble}; trying again …"), style(Mood::Bad));
    }
    if app.paused {
        return Line::styled("paused; p goes on", style(Mood::Warm));
    }
    let place = if rows > 0 && app.scroll > 0 {
        format!("  from row {} of {rows}", app.scroll + 1)
    } else {
        String::new()
    };
    Line::styled(
        format!("q leave  1-5 views  s sort  p pause  ? help  every {} s{place}", app.interval.as_secs_f64()),
        style(Mood::Dim),
    )
}

fn help(frame: &mut Frame<'_>, area: Rect) {
    let width = area.width.min(64);
    let height = area.height.min(u16::try_from(KEYS.len()).unwrap_or(0) + 2);
    let box_area =
        Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height };
    let lines: Vec<Line<'_>> =
        KEYS.iter().map(|(key, what)| Line::from(format!(" {key:<20}{what}"))).collect();
    frame.render_widget(Clear, box_area);
    frame.render_widget(Paragraph::new(lines).block(Block::bordered().title(" Keys ")), box_area);
}
