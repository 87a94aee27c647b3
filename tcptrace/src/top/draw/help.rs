//! What the keys do and what the columns mean.

use ratatui::layout::{Constraint, Flex, Layout, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph, Wrap};

use super::Theme;
use crate::top::model::View;

const WIDTH: u16 = 78;

const KEYS: [(&str, &str); 8] = [
    ("q, Ctrl-C", "quit; Esc too, when no filter is set"),
    ("Tab", "the next pane; Shift-Tab the one before"),
    ("↑ ↓ j k", "one row; Page Up, Page Down, Home, End"),
    ("s, S", "sort listeners by queue, p99, conn/s, overflows, port"),
    ("r", "reverse that order"),
    ("/", "show only what has a text in it: address, process, state, verdict"),
    ("p, Space", "hold the screen still; the trace goes on"),
    ("Ctrl-Z", "suspend"),
];

const COLUMNS: [(&str, &str); 6] = [
    ("QUEUE", "waiting now / the limit, which holds one more. ≥3: the trace began later; 3?: events were lost"),
    ("P50 P99 MAX", "wait in the accept queue of those accepted in the last seconds"),
    ("WAITS", "the longest wait of each second, ▁ under 10 µs, each step ten times, █ 10 s and more"),
    ("HALF", "half-open connections now; - where this kernel cannot show them"),
    ("OVERFL", "SYNs and ACKs that met a full queue since the trace began; - as above"),
    ("PROCESS", "name[pid]?: the listener's, as nobody has accepted yet"),
];

pub fn place(within: Rect) -> Rect {
    let [area] = Layout::horizontal([Constraint::Max(WIDTH)])
        .flex(Flex::Center)
        .areas(within);
    area
}

pub fn text<'a>(view: &'a View, theme: Theme) -> Paragraph<'a> {
    let entry = |(name, means): (&'a str, &'a str)| {
        let name = Span::styled(format!("{name:<12}"), theme.strong());
        Line::from(vec![name, Span::raw(means)])
    };
    let mut lines: Vec<Line> = KEYS.into_iter().map(entry).collect();
    lines.push(Line::default());
    lines.extend(COLUMNS.into_iter().map(entry));
    if !view.unseen.is_empty() {
        lines.push(Line::default());
        lines.push(Line::styled("This kernel or trace cannot show:", theme.strong()));
        lines.extend(view.unseen.iter().map(|what| Line::from(format!("- {what}"))));
    }
    Paragraph::new(lines)
        .wrap(Wrap { trim: false })
        .block(Block::bordered().title(" Help: any key closes "))
}
