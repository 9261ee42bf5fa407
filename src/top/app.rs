//! What is looked at: the last samples, and what the keys have chosen. Knows no terminal.

use std::{collections::VecDeque, time::Duration};

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::{
    rates::{self, Rates},
    sample::Sample,
    tables,
};

/// Values that the sparkline has room for on a wide terminal.
const HISTORY: usize = 512;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Tab {
    #[default]
    Pools,
    Databases,
    Nodes,
    Queries,
    Pins,
}

impl Tab {
    pub(super) const ALL: [Self; 5] = [Self::Pools, Self::Databases, Self::Nodes, Self::Queries, Self::Pins];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Pools => "Pools",
            Self::Databases => "Databases",
            Self::Nodes => "Nodes",
            Self::Queries => "Queries",
            Self::Pins => "Pins",
        }
    }

    fn step(self, by: usize) -> Self {
        let all = Self::ALL;
        all.get((self as usize + by) % all.len()).copied().unwrap_or_default()
    }
}

/// By which column rows are sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sort {
    pub(super) column: usize,
    /// The greatest first.
    pub(super) down: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Goes,
    Quits,
}

/// Everything that is shown.
#[derive(Debug, Default)]
pub(super) struct App {
    pub(super) target: String,
    pub(super) interval: Duration,
    pub(super) tab: Tab,
    pub(super) sample: Option<Sample>,
    /// The one before it.
    pub(super) before: Option<Sample>,
    /// Of all databases.
    pub(super) rates: Option<Rates>,
    /// Transactions a second, the newest last.
    pub(super) history: VecDeque<u64>,
    sorts: [Option<Sort>; Tab::ALL.len()],
    pub(super) scroll: usize,
    pub(super) paused: bool,
    pub(super) help: bool,
    /// Why nothing new comes.
    pub(super) trouble: Option<String>,
}

impl App {
    pub(super) fn new(target: String, interval: Duration) -> Self {
        Self { target, interval, ..Self::default() }
    }

    /// A new sample.
    pub(super) fn take(&mut self, sample: Sample) {
        self.trouble = None;
        if self.paused {
            return;
        }
        self.before = self.sample.take();
        self.rates = self.before.as_ref().and_then(|before| rates::of_all(before, &sample));
        self.sample = Some(sample);
        if let Some(rates) = self.rates {
            if self.history.len() == HISTORY {
                self.history.pop_front();
            }
            self.history.push_back(whole(rates.transactions));
        }
    }

    /// There is none: the connection is lost.
    pub(super) fn lose(&mut self, why: String) {
        self.trouble = Some(why);
        self.rates = None;
        // What has been between the last sample and the next one is not known to be one process's.
        self.before = None;
    }

    pub(super) fn sort(&self, tab: Tab) -> Option<Sort> {
        self.sorts.get(tab as usize).copied().flatten()
    }

    pub(super) fn key(&mut self, key: KeyEvent) -> Next {
        if key.kind == KeyEventKind::Release {
            return Next::Goes;
        }
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        if std::mem::take(&mut self.help) && !(control && key.code == KeyCode::Char('c')) {
            return Next::Goes;
        }
        match key.code {
            KeyCode::Char('c') if control => return Next::Quits,
            KeyCode::Char('q') | KeyCode::Esc => return Next::Quits,
            KeyCode::Char('?' | 'h') => self.help = true,
            KeyCode::Char('p' | ' ') => self.paused = !self.paused,
            KeyCode::Char(c @ '1'..='5') => self.show(Tab::default().step(c as usize - '1' as usize)),
            KeyCode::Tab | KeyCode::Right => self.show(self.tab.step(1)),
            KeyCode::BackTab | KeyCode::Left => self.show(self.tab.step(Tab::ALL.len() - 1)),
            KeyCode::Char('s') => self.sort_by_next(),
            KeyCode::Char('r') => self.turn_around(),
            KeyCode::Down | KeyCode::Char('j') => self.scroll = self.scroll.saturating_add(1),
            KeyCode::Up | KeyCode::Char('k') => self.scroll = self.scroll.saturating_sub(1),
            KeyCode::PageDown => self.scroll = self.scroll.saturating_add(20),
            KeyCode::PageUp => self.scroll = self.scroll.saturating_sub(20),
            KeyCode::Home => self.scroll = 0,
            _ => {}
        }
        let rows = tables::view(self, self.tab).rows.len();
        self.scroll = self.scroll.min(rows.saturating_sub(1));
        Next::Goes
    }

    fn show(&mut self, tab: Tab) {
        (self.tab, self.scroll) = (tab, 0);
    }

    /// Column after column, and then the console's order again.
    fn sort_by_next(&mut self) {
        let view = tables::view(self, self.tab);
        let next = self.sort(self.tab).map_or(0, |sort| sort.column + 1);
        // Of numbers the greatest are of interest.
        let sort = view.columns.get(next).map(|column| Sort { column: next, down: column.right });
        if let Some(own) = self.sorts.get_mut(self.tab as usize) {
            *own = sort;
        }
    }

    fn turn_around(&mut self) {
        if let Some(Some(sort)) = self.sorts.get_mut(self.tab as usize) {
            sort.down = !sort.down;
        }
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rounded and bounded")]
fn whole(number: f64) -> u64 {
    number.clamp(0.0, 1e15).round() as u64
}
