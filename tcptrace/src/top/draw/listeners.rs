//! The listener pane: as many columns as fit, by importance.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Paragraph, Row as TableRow, Table, Wrap};

use super::{Theme, cursor, frame_of, nothing, per_second};
use crate::duration::Human;
use crate::top::model::{Row, SPARK_S, View};
use crate::top::ui::{Pane, Ui};

/// Number of lines below the table for the listener under the cursor.
pub const DETAILS: u16 = 2;

const BAR: u16 = 6;

/// Number of reasons of late waits in the details.
const LATE_CAUSES: usize = 4;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Column {
    Listener,
    Connections,
    Accepted,
    HalfOpen,
    Queue,
    P50,
    P99,
    Max,
    Waits,
    Overflows,
    Acceptor,
    Why,
}

use Column::*;

/// The columns from left to right.
const ORDER: [Column; 12] = [
    Listener,
    Connections,
    Accepted,
    HalfOpen,
    Queue,
    P50,
    P99,
    Max,
    Waits,
    Overflows,
    Why,
    Acceptor,
];

/// The columns by importance. The last ones are dropped first.
const RANK: [Column; 12] = [
    Listener,
    Queue,
    P99,
    Why,
    Connections,
    Accepted,
    Overflows,
    HalfOpen,
    Waits,
    Acceptor,
    Max,
    P50,
];

impl Column {
    fn title(self) -> &'static str {
        match self {
            Listener => "LISTENER",
            Connections => "CONN/s",
            Accepted => "ACC/s",
            HalfOpen => "HALF",
            Queue => "QUEUE",
            P50 => "P50",
            P99 => "P99",
            Max => "MAX",
            Waits => "WAITS",
            Overflows => "OVERFL",
            Acceptor => "ACCEPTED BY",
            Why => "WHY LATE",
        }
    }

    fn width(self, rows: &[&Row]) -> u16 {
        let longest = |texts: &mut dyn Iterator<Item = String>| {
            let widths = texts.map(|text| text.chars().count() as u16);
            widths.max().unwrap_or(0).max(self.title().len() as u16)
        };
        match self {
            Listener => longest(&mut rows.iter().map(|row| name(row))).min(30),
            Acceptor => longest(&mut rows.iter().map(|row| acceptor(row))).min(26),
            Why => longest(&mut rows.iter().map(|row| why(row))).min(24),
            Connections | Accepted | Overflows => 6,
            HalfOpen => 4,
            Queue => BAR + 1 + longest(&mut rows.iter().map(|row| queue(row))),
            P50 | P99 | Max => 8,
            Waits => 7,
        }
    }

    fn cell<'a>(self, row: &Row, width: u16, theme: Theme) -> Cell<'a> {
        let right = |text: String| Cell::from(Line::from(text).right_aligned());
        let count = |n: Option<u64>| right(n.map_or("-".to_owned(), |n| n.to_string()));
        let time = |ns: Option<u64>| right(ns.map_or("-".to_owned(), |ns| Human(ns).to_string()));
        match self {
            Listener => Cell::from(cut(name(row), width)),
            Connections => right(per_second(row.connections_per_s)),
            Accepted => right(per_second(row.accepted_per_s)),
            HalfOpen => count(row.half_open),
            Queue => {
                let fill = row.fill();
                let style = fill.map_or(theme.dim(), |fill| theme.fill(fill));
                let text = queue(row);
                let pad = usize::from(width - BAR);
                Cell::from(Line::from(vec![
                    Span::styled(bar(fill), style),
                    Span::raw(format!("{text:>pad$}")),
                ]))
            }
            P50 => time(row.p50_ns),
            P99 => time(row.p99_ns),
            Max => time(row.max_ns),
            Waits => Cell::from(sparkline(&row.longest_ns, width)),
            Overflows => match row.overflows {
                Some(n) if n > 0 => count(Some(n)).style(theme.fill(1.0)),
                n => count(n),
            },
            Acceptor => Cell::from(cut(acceptor(row), width)),
            Why => Cell::from(cut(why(row), width)),
        }
    }
}

pub fn draw(frame: &mut Frame, area: Rect, view: &View, ui: &mut Ui, theme: Theme) {
    let rows = ui.listeners(view);
    let mut title = format!("Listeners {}", rows.len());
    if rows.len() < view.listeners.len() {
        title += &format!(" of {}", view.listeners.len());
    }
    if view.left_out > 0 {
        title += &format!(", +{} more", view.left_out);
    }
    title += &format!(", last {} s", view.window_s);
    let block = frame_of(Pane::Listeners, title, ui, theme);
    let inside = block.inner(area);
    frame.render_widget(block, area);
    if rows.is_empty() {
        let text = match view.listeners.is_empty() {
            true => "None yet: no listening socket matches the filters.",
            false => "No row contains the filter's text.",
        };
        ui.sized(Pane::Listeners, usize::from(inside.height), 0);
        return frame.render_widget(nothing(text, theme), inside);
    }
    let details = if inside.height > DETAILS + 2 {
        DETAILS
    } else {
        0
    };
    let [table, below] =
        Layout::vertical([Constraint::Fill(1), Constraint::Length(details)]).areas(inside);
    let room = usize::from(table.height.saturating_sub(1));
    let at = place_cursor(ui, &rows, room);

    let columns = columns(&rows, table.width, view.explains);
    let cells = |row: &&Row| {
        let cells = columns.iter();
        let cells = cells.map(|&(column, width)| column.cell(row, width, theme));
        let style = if row.closed {
            theme.dim()
        } else {
            Default::default()
        };
        TableRow::new(cells.collect::<Vec<_>>()).style(style)
    };
    let titles = columns.iter().map(|&(column, width)| {
        let title = Line::from(column.title());
        Cell::from(match column {
            Listener | Waits | Acceptor | Why => title,
            Queue => Line::from(format!("{:>1$}", column.title(), usize::from(width))),
            _ => title.right_aligned(),
        })
    });
    let widget = Table::new(
        rows.iter().map(cells).collect::<Vec<_>>(),
        columns.iter().map(|(_, width)| Constraint::Length(*width)),
    )
    .header(TableRow::new(titles.collect::<Vec<_>>()).style(theme.dim()))
    .column_spacing(1)
    .row_highlight_style(cursor(Pane::Listeners, ui, theme));
    frame.render_stateful_widget(widget, table, ui.table(Pane::Listeners));
    if let Some(row) = rows.get(at) {
        let text = Paragraph::new(details_of(row)).style(theme.dim());
        frame.render_widget(text.wrap(Wrap { trim: true }), below);
    }
}

/// Moves the cursor to the current row of its listener. Returns the row.
fn place_cursor(ui: &mut Ui, rows: &[&Row], room: usize) -> usize {
    ui.sized(Pane::Listeners, room, rows.len());
    let found = ui
        .cursor
        .and_then(|key| rows.iter().position(|row| row.key == key));
    let table = ui.table(Pane::Listeners);
    let at = found.or(table.selected()).unwrap_or(0);
    table.select(Some(at));
    ui.cursor = rows.get(at).map(|row| row.key);
    at
}

/// Returns the columns that fit, with their widths. The sparkline gets the remaining width.
fn columns(rows: &[&Row], room: u16, explains: bool) -> Vec<(Column, u16)> {
    let mut taken = vec![];
    let mut left = room;
    for column in RANK.into_iter().filter(|it| *it != Why || explains) {
        let width = column.width(rows);
        let gap = u16::from(!taken.is_empty());
        if taken.is_empty() || width + gap <= left {
            taken.push((column, width.min(left)));
            left = left.saturating_sub(width + gap);
        }
    }
    if let Some((_, width)) = taken.iter_mut().find(|(column, _)| *column == Waits) {
        *width += left.min(SPARK_S as u16 - *width);
    }
    taken.sort_by_key(|(column, _)| ORDER.iter().position(|it| it == column));
    taken
}

/// Returns the address, and the number of sockets that share it: `0.0.0.0:80 ×4`.
fn name(row: &Row) -> String {
    match row.sockets {
        0 | 1 => row.key.to_string(),
        n => format!("{} ×{n}", row.key),
    }
}

fn acceptor(row: &Row) -> String {
    row.acceptor.map_or("-".to_owned(), |it| it.to_string())
}

/// Returns the main reason of late waits: `blocked fsync()`.
fn why(row: &Row) -> String {
    let main = row.late.first();
    main.map_or("-".to_owned(), |(cause, _)| cause.to_string())
}

/// Returns the length and the limit of the queue: `3/128`. With several sockets, each queue has
/// this limit.
fn queue(row: &Row) -> String {
    let limit = match row.backlog.backlog_max {
        Some(max) => max.to_string(),
        None => "?".to_owned(),
    };
    format!("{}/{limit}", row.depth)
}

/// Returns a bar of the queue's fill level, with a resolution of half a character.
fn bar(fill: Option<f64>) -> String {
    let Some(fill) = fill else {
        return "·".repeat(BAR.into());
    };
    let all = usize::from(BAR);
    // Round up, so that one queued connection is visible.
    let halves = (fill * 2.0 * all as f64).ceil() as usize;
    let (whole, half) = (halves / 2, halves % 2);
    let rest = all - whole - half;
    format!(
        "{}{}{}",
        "█".repeat(whole),
        "▌".repeat(half),
        "·".repeat(rest)
    )
}

/// Returns one bar for each second. Each step is ten times longer, from below 10 µs to 10 s or
/// more.
fn sparkline(longest_ns: &[Option<u64>], width: u16) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let last = longest_ns.len().saturating_sub(width.into());
    let bar = |ns: &Option<u64>| match ns {
        None => ' ',
        Some(ns) => {
            let digits = (ns / 1_000).checked_ilog10().unwrap_or(0) as usize;
            BARS[digits.min(BARS.len() - 1)]
        }
    };
    longest_ns[last..].iter().map(bar).collect()
}

/// Returns the details of a listener in one line.
fn details_of(row: &Row) -> String {
    let mut parts = vec![];
    if row.closed {
        parts.push("closed".to_owned());
    }
    if let Some(owner) = row.owner {
        parts.push(format!("listens: {owner}"));
    }
    if let Some(acceptor) = row.acceptor {
        parts.push(format!("accepted last: {acceptor}"));
    }
    if let (Some(p50), Some(p99), Some(max)) = (row.p50_ns, row.p99_ns, row.max_ns) {
        let [p50, p99, max] = [p50, p99, max].map(Human);
        parts.push(format!("waits p50 {p50} p99 {p99} max {max}"));
    }
    if !row.late.is_empty() {
        let causes = row.late.iter().take(LATE_CAUSES);
        let causes: Vec<String> = causes
            .map(|(cause, ns)| format!("{cause} {}", Human(*ns)))
            .collect();
        parts.push(format!("late by: {}", causes.join(", ")));
    }
    parts.push(format!(
        "total {} established, {} accepted, {} never accepted",
        row.connections, row.accepted, row.never_accepted
    ));
    if row.failed_accepts > 0 {
        parts.push(format!("{} accept() failed", row.failed_accepts));
    }
    if let (Some(true), Some(asked)) = (row.backlog.backlog_clipped, row.backlog.backlog_asked) {
        parts.push(format!("backlog {asked} clipped by net.core.somaxconn"));
    }
    parts.join(" · ")
}

/// Shortens a text to the width. The last character of a shortened text is `…`.
pub fn cut(text: String, width: u16) -> String {
    let width = usize::from(width);
    if text.chars().count() <= width {
        return text;
    }
    let kept: String = text.chars().take(width.saturating_sub(1)).collect();
    format!("{kept}…")
}
