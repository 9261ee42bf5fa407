//! A look as plain text: every view, one below the other.

use std::fmt::Write as _;

use ratatui::text::Span;

use super::{
    app::{App, Tab},
    draw::{headline, summary},
    tables,
};

pub(super) fn text(app: &App) -> String {
    let mut out = format!("{}\n{}\n", headline(app), summary(app));
    for tab in Tab::ALL {
        let view = tables::view(app, tab);
        let _ = write!(out, "\n{}\n", tab.name());
        if view.rows.is_empty() {
            let _ = writeln!(out, "  {}", view.nothing);
            continue;
        }
        let widths = widths(&view);
        let mut line = |cells: Vec<&str>| {
            let mut text = String::new();
            for ((cell, width), column) in cells.iter().zip(&widths).zip(&view.columns) {
                let room = " ".repeat(width.saturating_sub(Span::raw(*cell).width()));
                let (before, after) = if column.right { (room.as_str(), "") } else { ("", room.as_str()) };
                let _ = write!(text, "  {before}{cell}{after}");
            }
            let _ = writeln!(out, "{}", text.trim_end());
        };
        line(view.columns.iter().map(|column| column.name).collect());
        for row in &view.rows {
            line(row.iter().map(|cell| cell.text.as_str()).collect());
        }
    }
    out
}

/// What each column needs.
pub(super) fn widths(view: &tables::View) -> Vec<usize> {
    let widest = |(index, column): (usize, &tables::Column)| {
        let cells = view.rows.iter().filter_map(|row| row.get(index));
        cells.map(|cell| Span::raw(cell.text.as_str()).width()).max().unwrap_or(0).max(column.name.len())
    };
    view.columns.iter().enumerate().map(widest).collect()
}
