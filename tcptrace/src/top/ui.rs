//! The state that the keys control: pane, order, filter and scroll position. Uses no terminal.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::widgets::TableState;

use super::model::{Key, Row, VerdictEntry, View, Waiting};
use crate::printable::is_printable;
use crate::sink::text::{Tuple, verdict_words};

/// A pane of the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pane {
    Listeners,
    Waiting,
    Verdicts,
}

impl Pane {
    pub const ALL: [Pane; 3] = [Pane::Listeners, Pane::Waiting, Pane::Verdicts];
}

/// The order of the listeners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    Queue,
    Wait,
    Rate,
    Overflows,
    Port,
}

impl Sort {
    const ALL: [Sort; 5] = [
        Sort::Queue,
        Sort::Wait,
        Sort::Rate,
        Sort::Overflows,
        Sort::Port,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Sort::Queue => "queue",
            Sort::Wait => "p99",
            Sort::Rate => "conn/s",
            Sort::Overflows => "overflows",
            Sort::Port => "port",
        }
    }

    /// Returns the next or the previous order.
    fn step(self, forward: bool) -> Sort {
        let at = Sort::ALL.iter().position(|it| *it == self).unwrap_or(0);
        let by = if forward { 1 } else { Sort::ALL.len() - 1 };
        Sort::ALL[(at + by) % Sort::ALL.len()]
    }
}

/// The action that a key requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Redraw the screen.
    Draw,
    Quit,
    /// Ctrl-Z
    Suspend,
}

pub struct Ui {
    pub pane: Pane,
    pub sort: Sort,
    /// The reverse of the default order. By default the largest value is first, and the smallest
    /// port.
    pub reversed: bool,
    pub filter: String,
    /// The user is typing the filter.
    pub typing: bool,
    pub paused: bool,
    pub help: bool,
    /// Number of help lines scrolled off the top.
    pub help_from: u16,
    /// The listener under the cursor. The cursor stays on it when the order changes.
    pub cursor: Option<Key>,
    tables: [TableState; 3],
    /// Visible rows and total rows of each pane, as last drawn.
    sizes: [(usize, usize); 3],
}

impl Default for Ui {
    fn default() -> Ui {
        Ui {
            pane: Pane::Listeners,
            sort: Sort::Queue,
            reversed: false,
            filter: String::new(),
            typing: false,
            paused: false,
            help: false,
            help_from: 0,
            cursor: None,
            tables: [(); 3].map(|()| TableState::default().with_selected(0)),
            sizes: [(0, 0); 3],
        }
    }
}

impl Ui {
    pub fn table(&mut self, pane: Pane) -> &mut TableState {
        &mut self.tables[pane as usize]
    }

    /// Sets the number of visible rows and of all rows of a pane, which limits scrolling.
    pub fn sized(&mut self, pane: Pane, room: usize, rows: usize) {
        self.sizes[pane as usize] = (room, rows);
        let table = self.table(pane);
        let last = rows.saturating_sub(1);
        table.select(Some(table.selected().unwrap_or(0).min(last)));
        // If rows have been removed, keep the last one at the bottom.
        *table.offset_mut() = table.offset().min(rows.saturating_sub(room));
    }

    pub fn key(&mut self, key: KeyEvent) -> Wish {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c') if control => return Wish::Quit,
            KeyCode::Char('z') if control => return Wish::Suspend,
            KeyCode::Char('l') if control => return Wish::Draw,
            _ if self.typing => self.type_filter(key.code, control),
            KeyCode::Char('q') => return Wish::Quit,
            KeyCode::Down | KeyCode::Char('j') | KeyCode::PageDown if self.help => {
                self.help_from = self.help_from.saturating_add(1);
            }
            KeyCode::Up | KeyCode::Char('k') | KeyCode::PageUp if self.help => {
                self.help_from = self.help_from.saturating_sub(1);
            }
            _ if self.help => self.help = false,
            KeyCode::Esc if !self.filter.is_empty() => self.filter.clear(),
            KeyCode::Esc => return Wish::Quit,
            KeyCode::Char('?' | 'h') | KeyCode::F(1) => {
                self.help = true;
                self.help_from = 0;
            }
            KeyCode::Enter => self.follow_cursor(),
            KeyCode::Char('p' | ' ') => self.paused = !self.paused,
            KeyCode::Char('/') => self.typing = true,
            KeyCode::Char('s') => self.sort = self.sort.step(true),
            KeyCode::Char('S') => self.sort = self.sort.step(false),
            KeyCode::Char('r') => self.reversed = !self.reversed,
            KeyCode::Tab | KeyCode::Right => self.turn(1),
            KeyCode::BackTab | KeyCode::Left => self.turn(Pane::ALL.len() - 1),
            KeyCode::Down | KeyCode::Char('j') => self.scroll(|at, _| at + 1),
            KeyCode::Up | KeyCode::Char('k') => self.scroll(|at, _| at.saturating_sub(1)),
            KeyCode::PageDown => self.scroll(|at, page| at + page),
            KeyCode::PageUp => self.scroll(usize::saturating_sub),
            KeyCode::Home | KeyCode::Char('g') => self.scroll(|_, _| 0),
            KeyCode::End | KeyCode::Char('G') => self.scroll(|_, _| usize::MAX),
            _ => {}
        }
        Wish::Draw
    }

    /// Filters by the port of the listener under the cursor.
    fn follow_cursor(&mut self) {
        if let (Pane::Listeners, Some(key)) = (self.pane, self.cursor) {
            self.filter = format!(":{}", key.port);
        }
    }

    fn type_filter(&mut self, code: KeyCode, control: bool) {
        match code {
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => {
                self.typing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Char('u') if control => self.filter.clear(),
            KeyCode::Char(c) if !control && is_printable(c) => self.filter.push(c),
            _ => {}
        }
    }

    fn turn(&mut self, by: usize) {
        self.pane = Pane::ALL[(self.pane as usize + by) % Pane::ALL.len()];
    }

    fn scroll(&mut self, to: impl Fn(usize, usize) -> usize) {
        let (room, rows) = self.sizes[self.pane as usize];
        let table = self.table(self.pane);
        let at = to(table.selected().unwrap_or(0), room.max(1));
        table.select(Some(at.min(rows.saturating_sub(1))));
        if self.pane == Pane::Listeners {
            // Drawing sets the cursor to the listener in the selected row.
            self.cursor = None;
        }
    }

    /// Returns the listeners that match the filter, sorted.
    pub fn listeners<'a>(&self, view: &'a View) -> Vec<&'a Row> {
        let wanted = |row: &&Row| {
            let processes = [row.owner, row.acceptor].into_iter().flatten();
            let processes: Vec<String> = processes.map(|it| it.to_string()).collect();
            self.lets_through(&[row.key.to_string(), processes.join(" ")])
        };
        let mut rows: Vec<&Row> = view.listeners.iter().filter(wanted).collect();
        // The sort is stable, so equal rows stay in the view's order, which is by port.
        match self.sort {
            Sort::Queue => rows.sort_by(|a, b| {
                let count = |row: &Row| row.depth.count();
                count(b).cmp(&count(a)).then(b.by_rate(a))
            }),
            Sort::Wait => rows.sort_by_key(|row| std::cmp::Reverse(row.p99_ns)),
            Sort::Rate => rows.sort_by(|a, b| b.by_rate(a)),
            Sort::Overflows => rows.sort_by_key(|row| std::cmp::Reverse(row.overflows)),
            Sort::Port => {}
        }
        if self.reversed {
            rows.reverse();
        }
        rows
    }

    pub fn waiting<'a>(&self, view: &'a View) -> Vec<&'a Waiting> {
        let wanted = |it: &&Waiting| {
            let conn = it.subject.conn.unwrap_or_default();
            let tuple = Tuple(&it.subject).to_string();
            self.lets_through(&[tuple, format!("#{conn} {}", it.state)])
        };
        view.waiting.iter().filter(wanted).collect()
    }

    pub fn verdicts<'a>(&self, view: &'a View) -> Vec<&'a VerdictEntry> {
        let wanted = |it: &&VerdictEntry| {
            let conn = it.subject.conn.unwrap_or_default();
            let text = format!("#{conn} {}: {}", verdict_words(it.verdict), it.reason);
            self.lets_through(&[Tuple(&it.subject).to_string(), text])
        };
        view.verdicts.iter().filter(wanted).collect()
    }

    /// Returns true if one of the texts contains the filter, or if there is no filter.
    fn lets_through(&self, texts: &[String]) -> bool {
        let wanted = self.filter.to_lowercase();
        let has = |text: &String| text.to_lowercase().contains(&wanted);
        wanted.is_empty() || texts.iter().any(has)
    }
}
