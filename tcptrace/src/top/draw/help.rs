//! The help overlay: keys and columns.

use ratatui::layout::{Constraint, Flex, Layout, Rect};
use ratatui::widgets::{Block, Paragraph};

use super::Theme;
use crate::top::model::View;

const WIDTH: u16 = 78;
const NAME: usize = 12;

const KEYS: [(&str, &str); 9] = [
    ("q, Ctrl-C", "quit; Esc too, when no filter is set"),
    ("Tab", "the next pane; Shift-Tab the one before"),
    ("↑ ↓ j k", "one row; Page Up, Page Down, Home, End"),
    (
        "s, S",
        "sort listeners by queue, p99, conn/s, overflows, port",
    ),
    ("r", "reverse that order"),
    (
        "/",
        "show only rows that contain a text: an address, a process, …",
    ),
    (
        "Enter",
        "show only this listener's port; Esc shows all again",
    ),
    ("p, Space", "freeze the screen; the trace continues"),
    ("Ctrl-Z", "suspend"),
];

const COLUMNS: [(&str, &str); 9] = [
    (
        "CONN/s",
        "connections that became ESTABLISHED, in the last seconds",
    ),
    (
        "ACC/s",
        "connections that accept() returned, in the last seconds",
    ),
    (
        "HALF",
        "half-open connections now; - if this kernel cannot show them",
    ),
    (
        "QUEUE",
        "connections in the accept queue / its limit (the queue holds one more). ≥3: the trace began \
             later. 3?: events were lost. Each of several sockets (×4) has its own queue",
    ),
    (
        "P50 P99 MAX",
        "how long the connections accepted in the last seconds waited in the queue",
    ),
    (
        "WAITS",
        "the longest wait of each second: ▁ under 10 µs, each step ten times longer, █ 10 s or \
             more",
    ),
    (
        "OVERFL",
        "SYNs and ACKs that met a full queue since the trace began; - if this kernel cannot show them",
    ),
    (
        "WHY LATE",
        "with --why: the main reason of late accept() calls in the last seconds",
    ),
    (
        "PROCESS",
        "name[pid]? is the listener's process: nobody has accepted the connection yet",
    ),
];

pub fn place(within: Rect) -> Rect {
    let [area] = Layout::horizontal([Constraint::Max(WIDTH)])
        .flex(Flex::Center)
        .areas(within);
    area
}

/// Returns the help scrolled by `from` lines, limited so that the last page is full. Also returns
/// the limited value.
pub fn text<'a>(view: &View, area: Rect, from: u16, theme: Theme) -> (Paragraph<'a>, u16) {
    let width = usize::from(area.width.saturating_sub(2)).max(NAME + 8);
    let mut lines = vec![];
    let mut entry = |name: &str, means: &str| {
        for (index, line) in textwrap::wrap(means, width - NAME).iter().enumerate() {
            let name = if index == 0 { name } else { "" };
            lines.push(format!("{name:<NAME$}{line}"));
        }
    };
    for (name, means) in KEYS {
        entry(name, means);
    }
    entry("", " ");
    for (name, means) in COLUMNS {
        entry(name, means);
    }
    for (index, what) in view.unseen.iter().enumerate() {
        if index == 0 {
            entry("", " ");
        }
        entry(if index == 0 { "NOT SEEN" } else { "" }, what);
    }
    let room = usize::from(area.height.saturating_sub(2));
    let last = lines.len().saturating_sub(room) as u16;
    let from = from.min(last);
    let title = match last {
        0 => " Help: any key closes ",
        _ => " Help: ↑↓ scroll, any other key closes ",
    };
    let block = Block::bordered().title(title).title_style(theme.strong());
    let text = Paragraph::new(lines.join("\n"));
    (text.block(block).scroll((from, 0)), from)
}
