//! What the keys do and what the columns mean.

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
        "show only what has a text in it: an address, a process, …",
    ),
    (
        "Enter",
        "show only this listener's port; Esc shows all again",
    ),
    ("p, Space", "hold the screen still; the trace goes on"),
    ("Ctrl-Z", "suspend"),
];

const COLUMNS: [(&str, &str); 8] = [
    (
        "CONN/s",
        "connections that became ESTABLISHED, of the last seconds",
    ),
    ("ACC/s", "those that accept() returned"),
    (
        "HALF",
        "half-open connections now; - where this kernel cannot show them",
    ),
    (
        "QUEUE",
        "connections in the accept queue / its limit, which holds one more. ≥3: the trace began \
         later. 3?: events were lost. Several sockets (×4) have a queue each",
    ),
    (
        "P50 P99 MAX",
        "how long those waited in it that were accepted in the last seconds",
    ),
    (
        "WAITS",
        "the longest wait of each second: ▁ under 10 µs, each step up ten times as long, █ from \
         10 s on",
    ),
    (
        "OVERFL",
        "SYNs and ACKs that met a full queue since the trace began; - as above",
    ),
    (
        "PROCESS",
        "name[pid]? is the listener's, as nobody has accepted yet",
    ),
];

pub fn place(within: Rect) -> Rect {
    let [area] = Layout::horizontal([Constraint::Max(WIDTH)])
        .flex(Flex::Center)
        .areas(within);
    area
}

/// The help from a line on, or from the last that leaves none of the room empty; and which that is.
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
