//! Drawing: turns a view and the state of the keys into a frame. Uses no terminal and no clock.

mod help;
mod listeners;
mod lists;
#[cfg(test)]
mod tests;
mod theme;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Clear, Paragraph};

pub use self::theme::Theme;
use super::model::View;
use super::ui::{Pane, Ui};
use crate::fields::Why;

/// Minimum height for all panes. Below it one pane is shown, and Tab switches.
const ROOM_FOR_ALL: u16 = 15;

/// Minimum height of a pane: its title, its column heads and two rows.
const LEAST: u16 = 4;

pub fn draw(frame: &mut Frame, view: &View, ui: &mut Ui, theme: Theme) {
    let lost = lost(view);
    let [header, alarm, body, footer] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(u16::from(lost.is_some())),
        Constraint::Fill(1),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(title(view, ui, theme), header);
    if let Some(lost) = lost {
        frame.render_widget(Line::styled(lost, theme.alarm()), alarm);
    }
    for (pane, area) in places(body, view, ui) {
        match pane {
            Pane::Listeners => listeners::draw(frame, area, view, ui, theme),
            Pane::Waiting => lists::waiting(frame, area, view, ui, theme),
            Pane::Verdicts => lists::verdicts(frame, area, view, ui, theme),
        }
    }
    frame.render_widget(keys(ui, theme), footer);
    if ui.help {
        let area = help::place(body);
        frame.render_widget(Clear, area);
        let (help, from) = help::text(view, area, ui.help_from, theme);
        ui.help_from = from;
        frame.render_widget(help, area);
    }
}

/// `tcptrace top  0:42  last 10 s  port 7878  2 listeners, 12.0 conn/s, 3 waiting`
fn title<'a>(view: &View, ui: &Ui, theme: Theme) -> Line<'a> {
    let seconds = view.now_ns.saturating_sub(view.began_ns) / 1_000_000_000;
    let (minutes, seconds) = (seconds / 60, seconds % 60);
    let mut spans = vec![
        Span::styled("tcptrace top", theme.strong()),
        Span::raw(format!("  {minutes}:{seconds:02}")),
    ];
    if ui.paused {
        spans.push(Span::raw("  "));
        spans.push(Span::styled(" PAUSED ", theme.alarm()));
    }
    let listeners = view.listeners.len() as u64 + view.left_out;
    let rates = view.listeners.iter();
    let rate: f64 = rates.map(|row| row.connections_per_s).sum();
    let waiting: u64 = view
        .listeners
        .iter()
        .map(|row| row.depth.count())
        .fold(0, u64::saturating_add);
    spans.push(Span::raw(format!(
        "  {listeners} listener{}, {} conn/s, {waiting} waiting",
        if listeners == 1 { "" } else { "s" },
        per_second(rate)
    )));
    let filters = view.filters.iter();
    let filters: Vec<String> = filters
        .map(|(name, value)| format!("{} {value}", name.replace('_', " ")))
        .collect();
    if !filters.is_empty() {
        let filters = format!("  {}", filters.join(", "));
        spans.push(Span::styled(filters, theme.dim()));
    }
    Line::from(spans)
}

/// `LOST 1234 events (ring buffer full) 12 calls (…): …`
fn lost(view: &View) -> Option<String> {
    let sum = |why| {
        let of = view.lost.iter().filter(|((_, it), _)| *it == why);
        of.map(|(_, count)| *count).fold(0, u64::saturating_add)
    };
    let events = sum(Why::RingBufferFull) + sum(Why::Unaccounted);
    let calls = sum(Why::TooManyCalls);
    let what = match (events, calls) {
        (0, 0) => return None,
        (events, 0) => format!("{events} events"),
        (0, calls) => format!("{calls} calls of accept()"),
        (events, calls) => format!("{events} events, {calls} calls of accept()"),
    };
    Some(format!(
        "LOST {what}: queues marked ? and rates may be wrong; filter by port, or see tcptrace --help"
    ))
}

fn keys<'a>(ui: &Ui, theme: Theme) -> Line<'a> {
    if ui.typing {
        let typed = format!("/{}▏", ui.filter);
        let hint = "  Enter keeps it, Esc clears it";
        return Line::from(vec![Span::raw(typed), Span::styled(hint, theme.dim())]);
    }
    let mut spans = vec![];
    let mut key = |key: &'static str, does: String| {
        spans.push(Span::styled(key, theme.strong()));
        spans.push(Span::styled(format!(" {does}  "), theme.dim()));
    };
    if !ui.filter.is_empty() {
        key("Esc", format!("clears /{}", ui.filter));
    }
    key("q", "quit".to_owned());
    key("?", "help".to_owned());
    key("Tab", "pane".to_owned());
    let order = if ui.reversed { ", reversed" } else { "" };
    key("s", format!("sort: {}{order}", ui.sort.name()));
    key("/", "filter".to_owned());
    key("p", if ui.paused { "resume" } else { "pause" }.to_owned());
    key("↑↓", "scroll".to_owned());
    Line::from(spans)
}

/// Returns the area of each pane. With little room the focused pane is extended first; with less it
/// is the only one.
fn places(body: Rect, view: &View, ui: &Ui) -> Vec<(Pane, Rect)> {
    if body.height < ROOM_FOR_ALL {
        return vec![(ui.pane, body)];
    }
    let needs = Pane::ALL.map(|pane| match pane {
        Pane::Listeners => 2 + listeners::DETAILS + rows(ui.listeners(view).len()),
        Pane::Waiting => 2 + rows(ui.waiting(view).len()),
        Pane::Verdicts => 2 + rows(ui.verdicts(view).len()),
    });
    let mut heights = [LEAST; 3];
    let mut left = body.height - LEAST * 3;
    // First give each pane at most this share, so that one long list does not take everything.
    let fair = [left / 2, left / 4, left / 4];
    let mut give = |pane: Pane, most: u16| {
        let height = &mut heights[pane as usize];
        let more = needs[pane as usize]
            .saturating_sub(*height)
            .min(most)
            .min(left);
        *height += more;
        left -= more;
    };
    for pane in Pane::ALL {
        give(pane, fair[pane as usize]);
    }
    for pane in [ui.pane, Pane::Listeners, Pane::Waiting, Pane::Verdicts] {
        give(pane, u16::MAX);
    }
    heights[Pane::Verdicts as usize] += left;
    let places: [Rect; 3] = Layout::vertical(heights.map(Constraint::Length)).areas(body);
    Pane::ALL.into_iter().zip(places).collect()
}

fn rows(n: usize) -> u16 {
    u16::try_from(n).unwrap_or(u16::MAX / 4).min(u16::MAX / 4)
}

/// Returns the frame of a pane: a title line above its content.
fn frame_of<'a>(pane: Pane, title: String, ui: &Ui, theme: Theme) -> Block<'a> {
    let style = match ui.pane == pane {
        true => theme.focus(),
        false => theme.strong(),
    };
    Block::new()
        .borders(Borders::TOP)
        .border_style(theme.dim())
        .title(Span::styled(format!(" {title} "), style))
}

/// Returns the text of an empty pane.
fn nothing<'a>(text: &'a str, theme: Theme) -> Paragraph<'a> {
    Paragraph::new(text).style(theme.dim())
}

/// Returns the style of the cursor's row if the pane has the focus.
fn cursor(pane: Pane, ui: &Ui, theme: Theme) -> Style {
    match ui.pane == pane {
        true => theme.cursor(),
        false => Style::new(),
    }
}

/// `0`, `0.3`, `12.5`, `4021`, `123k`
fn per_second(rate: f64) -> String {
    match rate {
        0.0 => "0".to_owned(),
        rate if rate < 99.95 => format!("{rate:.1}"),
        rate if rate < 99_999.5 => format!("{rate:.0}"),
        rate => format!("{:.0}k", rate / 1000.0),
    }
}
