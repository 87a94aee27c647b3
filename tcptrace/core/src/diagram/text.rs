//! Drawing a diagram as text, 80 columns wide.
//!
//! ```text
//!            client        client                      server        server
//!            process       kernel                      kernel        process
//!          0  ┬ connect()   │                          │              │
//!             ┃    SYN_SENT ┤ 44.06 µs                 │              │
//!             ┃             ├╌╌╌╌╌╌╌╌╌ SYN ╌╌╌╌╌╌╌╌╌╌╌▷│              │
//! ```

mod canvas;

use std::fmt::Display;

use anstyle::{AnsiColor, Style};

use self::canvas::Canvas;
pub use self::canvas::ascii;
use super::rows::{self, Moment, Row};
use super::words::{self, role};
use super::*;
use crate::duration::Human;

/// Columns of the lanes: the processes outside, the kernels inside, with the arrows between them.
const LANES: [usize; 4] = [13, 27, 54, 70];
const WIDTH: usize = 80;

/// Width of the time column, which is right-aligned.
const TIME: usize = 11;

const PLAIN: Style = Style::new();
const DIM: Style = Style::new().dimmed();
const STRONG: Style = Style::new().bold();
const ALARM: Style = AnsiColor::Red.on_default().bold();
const WAITING: Style = AnsiColor::Yellow.on_default();
const CALLING: Style = AnsiColor::Cyan.on_default();
const OPEN: Style = AnsiColor::Green.on_default();

/// Appearance of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// True for colour codes, for a terminal.
    pub color: bool,
    /// True for ASCII characters only.
    pub ascii: bool,
}

/// Returns the diagram as lines of text, each with its newline, at most 80 columns wide.
pub fn draw(diagram: &Diagram, look: Look) -> String {
    let rows = rows::of(diagram);
    let mut drawing = Drawing {
        diagram,
        canvas: Canvas::new(look),
        last_time: None,
    };
    drawing.titles();
    for (index, row) in rows.iter().enumerate() {
        drawing.row(row, &rows, index);
    }
    drawing.legend();
    drawing.canvas.text()
}

struct Drawing<'a> {
    diagram: &'a Diagram,
    canvas: Canvas,
    /// The time written last. An equal time is not repeated.
    last_time: Option<String>,
}

impl Drawing<'_> {
    fn titles(&mut self) {
        for (at, end) in [(0, &self.diagram.left), (3, &self.diagram.right)] {
            let role = role(self.diagram, end);
            for lane in [at, if at == 0 { 1 } else { 2 }] {
                self.canvas.centred(LANES[lane], STRONG, role);
            }
        }
        self.canvas.end();
        for (lane, title) in LANES
            .into_iter()
            .zip(["process", "kernel", "kernel", "process"])
        {
            self.canvas.centred(lane, STRONG, title);
        }
        self.canvas.end();
    }

    fn row(&mut self, row: &Row, rows: &[Row], index: usize) {
        self.lanes(row, rows, index);
        match row {
            Row::Gap { ns, label } => self.gap(*ns, *label, rows, index),
            Row::At(at_ns, moment) => {
                self.time(*at_ns);
                self.moment(*at_ns, moment);
            }
        }
        self.canvas.end();
    }

    /// Draws the lanes of a row: sockets, calls and the wait in the accept queue.
    fn lanes(&mut self, row: &Row, rows: &[Row], index: usize) {
        let gap = matches!(row, Row::Gap { .. });
        let line = if gap { '┊' } else { '│' };
        for place in Place::BOTH {
            let (process, kernel) = lanes(place);
            if self.diagram.endpoint(place).subject.is_none() {
                self.canvas.put(kernel, DIM, '┊');
                continue;
            }
            match rows::kernel_at(place, rows, index) {
                rows::Kernel::Gone => {}
                rows::Kernel::Bucket => self.canvas.put(kernel, DIM, '┊'),
                rows::Kernel::Socket => {
                    self.canvas.put(kernel, DIM, line);
                    self.canvas.put(process, DIM, line);
                }
            }
            if rows::calling(place, rows, index) {
                self.canvas.put(process, CALLING, '┃');
            }
        }
        if let Some((_, wait)) = rows::waiting(self.diagram, rows, index) {
            self.canvas.put(lanes(wait.place).1 + 1, WAITING, '▒');
        }
    }

    fn gap(&mut self, ns: u64, label: bool, rows: &[Row], index: usize) {
        if label {
            self.canvas
                .right(TIME, DIM, format_args!("({})", Human(ns)));
        }
        if let Some((first, wait)) = rows::waiting(self.diagram, rows, index)
            && first
        {
            let at = lanes(wait.place).1 + 3;
            self.canvas.text_at(at, WAITING, "accept queue");
        }
    }

    fn time(&mut self, at_ns: u64) {
        let text = words::offset(self.diagram, at_ns);
        if self.last_time.as_ref() != Some(&text) {
            self.canvas.right(TIME, DIM, &text);
            self.last_time = Some(text);
        }
    }

    fn moment(&mut self, at_ns: u64, moment: &Moment) {
        match moment {
            Moment::State(span) => self.state(at_ns, span),
            Moment::Called(call) => {
                let (process, _) = lanes(call.place);
                self.canvas.put(process, CALLING, '┬');
                self.canvas.text_at(process + 2, CALLING, call.name.name());
            }
            Moment::Returned(call) => self.returned(at_ns, call),
            Moment::Instant(call) => {
                let (process, _) = lanes(call.place);
                self.canvas.put(process, CALLING, '┼');
                self.canvas.text_at(process + 2, CALLING, call.name.name());
            }
            Moment::Arrow(arrow) => self.arrow(arrow),
            Moment::Mark(mark) => self.mark(mark),
        }
    }

    fn state(&mut self, at_ns: u64, span: &StateSpan) {
        let style = match span.state {
            State::Established => OPEN,
            State::Close => DIM,
            _ => PLAIN,
        };
        let (_, kernel) = lanes(span.place);
        let found = if span.begun { "" } else { "…" };
        self.label(span.place, style, format_args!("{found}{}", span.state));
        let lasts = span.until_ns.map(|until| until.saturating_sub(at_ns));
        if let Some(ns) = lasts {
            // The socket was in the state before its first event or snapshot, so the time is a
            // lower bound.
            let least = if span.begun && !span.is_from_snapshot() {
                ""
            } else {
                "≥ "
            };
            let text = format!("{least}{}", Human(ns));
            match span.place {
                Place::Left => self.canvas.text_at(kernel + 2, DIM, text),
                Place::Right => self.canvas.right(kernel - 1, DIM, text),
            }
        }
    }

    /// Writes a word beside a kernel's lane, on its outer side.
    fn label(&mut self, place: Place, style: Style, text: impl Display) {
        let (_, kernel) = lanes(place);
        match place {
            Place::Left => {
                self.canvas.put(kernel, PLAIN, '┤');
                self.canvas.right(kernel - 1, style, text);
            }
            Place::Right => {
                self.canvas.put(kernel, PLAIN, '├');
                self.canvas.text_at(kernel + 3, style, text);
            }
        }
    }

    fn returned(&mut self, at_ns: u64, call: &Call) {
        let (process, kernel) = lanes(call.place);
        let glyph = if call.begun { '┴' } else { '┼' };
        let text = match (&call.error, call.name, call.begun) {
            (Some(error), ..) => error.clone(),
            (None, CallName::Connect, _) => "can return".to_owned(),
            (None, _, true) => "returned".to_owned(),
            (None, name, false) => name.name().to_owned(),
        };
        if call.name == CallName::Accept && call.place == Place::Right {
            // accept() takes the connection out of the queue.
            self.canvas.put(kernel, PLAIN, '├');
            for at in kernel + 1..process - 1 {
                self.canvas.put(at, WAITING, '─');
            }
            self.canvas.put(process - 1, WAITING, '▶');
            let wait = self.diagram.wait().filter(|(_, it)| it.until_ns == at_ns);
            if let Some((since_ns, _)) = wait {
                let text = format!(" {} ", Human(at_ns.saturating_sub(since_ns)));
                self.canvas.text_at(kernel + 3, WAITING, text);
            }
        }
        self.canvas.put(process, CALLING, glyph);
        let style = if call.error.is_some() { ALARM } else { CALLING };
        self.canvas.text_at(process + 2, style, text);
    }

    fn arrow(&mut self, x: &Arrow) {
        let style = match x.kind {
            Kind::Rst => ALARM,
            _ => PLAIN,
        };
        let line = match x.evidence {
            Evidence::Seen => '─',
            Evidence::Inferred | Evidence::Estimated => '╌',
        };
        let (left, right) = (LANES[1], LANES[2]);
        for at in left + 1..right {
            self.canvas.put(at, style, line);
        }
        let arrived = x.received_ns.is_some();
        match x.from {
            Place::Left => {
                self.canvas.put(left, PLAIN, '├');
                let head = if arrived { '▶' } else { '▷' };
                self.canvas.put(right - 1, style, head);
            }
            Place::Right => {
                self.canvas.put(right, PLAIN, '┤');
                let head = if arrived { '◀' } else { '◁' };
                self.canvas.put(left + 1, style, head);
            }
        }
        let room = right - left - 6;
        let labels = words::labels(x);
        let fits = |label: &&String| label.chars().count() <= room;
        if let Some(label) = labels.iter().find(fits).or(labels.last()) {
            let middle = (left + right) / 2;
            self.canvas
                .centred(middle, style, format_args!(" {label} "));
        }
    }

    fn mark(&mut self, mark: &Mark) {
        let Some(text) = words::mark(&mark.kind) else {
            return;
        };
        match &mark.kind {
            MarkKind::Overflow(_) | MarkKind::Reset(_) | MarkKind::Retransmit { .. } => {
                let (_, kernel) = lanes(mark.place);
                self.canvas.put(kernel, ALARM, '╳');
                match mark.place {
                    Place::Left => self.canvas.text_at(kernel + 2, ALARM, text),
                    Place::Right => self.canvas.right(kernel - 1, ALARM, text),
                }
            }
            _ => self.label(mark.place, DIM, text),
        }
    }

    /// Writes a legend of the signs that the diagram uses.
    fn legend(&mut self) {
        let arrows = || {
            self.diagram
                .items
                .iter()
                .filter_map(|item| match &item.what {
                    ItemKind::Arrow(arrow) => Some(arrow),
                    _ => None,
                })
        };
        let inferred = arrows().any(|it| it.evidence != Evidence::Seen);
        let one_sided = arrows().any(|it| it.received_ns.is_none());
        let mut words = vec![];
        if inferred {
            words.push("╌ inferred from a state");
        }
        if one_sided {
            words.push("▷ its arrival was not seen");
        }
        if self.diagram.wait().is_some() {
            words.push("▒ in the accept queue");
        }
        if !words.is_empty() {
            self.canvas.text_at(2, DIM, words.join("   "));
            self.canvas.end();
        }
        if self.diagram.left_out > 0 {
            let n = self.diagram.left_out;
            let text = format!("{n} more lines of this connection are left out");
            self.canvas.text_at(LANES[0], ALARM, text);
            self.canvas.end();
        }
    }
}

/// Returns the columns of an end's process and kernel.
fn lanes(place: Place) -> (usize, usize) {
    match place {
        Place::Left => (LANES[0], LANES[1]),
        Place::Right => (LANES[3], LANES[2]),
    }
}
