//! The panes of waiting connections and of verdicts.

use ratatui::Frame;
use ratatui::layout::{Constraint, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Row as TableRow, Table};

use super::listeners::cut;
use super::{Theme, cursor, frame_of, nothing};
use crate::duration::Human;
use crate::fields::Subject;
use crate::sink::text::{Tuple, Who, verdict_words};
use crate::top::model::{VerdictEntry, View, Waiting};
use crate::top::ui::{Pane, Ui};

/// Width of a duration such as `999.9 ms`.
const TIME: u16 = 8;
const STATE: u16 = 11;

pub fn waiting(frame: &mut Frame, area: Rect, view: &View, ui: &mut Ui, theme: Theme) {
    let all = ui.waiting(view);
    let mut title = format!("Waiting for accept() {}", all.len());
    if all.len() < view.waiting.len() {
        title += &format!(" of {}", view.waiting.len());
    }
    if view.waiting_more > 0 {
        title += &format!(", +{} more", view.waiting_more);
    }
    if view.waiting_unnamed > 0 {
        title += &format!(", +{} not seen arriving", view.waiting_unnamed);
    }
    let conn = number_width(all.iter().map(|it| &it.subject));
    let process = area
        .width
        .saturating_sub(TIME + conn + 30 + STATE + 4)
        .clamp(8, 26);
    let row = |it: &&Waiting| {
        let waited = Human(view.now_ns.saturating_sub(it.since_ns)).to_string();
        TableRow::new([
            Cell::from(Line::from(waited).right_aligned()),
            Cell::from(number(&it.subject)),
            Cell::from(Tuple(&it.subject).to_string()),
            Cell::from(it.state.name()),
            Cell::from(cut(Who(&it.subject).to_string(), process)),
        ])
    };
    let list = List {
        pane: Pane::Waiting,
        title,
        nothing: match view.waiting_unnamed {
            0 => "None: every established connection has been accepted.",
            _ => "The waiting connections were queued before this trace, so they have no names.",
        },
        header: &["  WAITED", "CONN", "FROM → TO", "STATE", "PROCESS"],
        widths: &[
            Constraint::Length(TIME),
            Constraint::Length(conn),
            Constraint::Fill(1),
            Constraint::Length(STATE),
            Constraint::Length(process),
        ],
        rows: all.iter().map(row).collect(),
    };
    list.draw(frame, area, ui, theme);
}

pub fn verdicts(frame: &mut Frame, area: Rect, view: &View, ui: &mut Ui, theme: Theme) {
    let all = ui.verdicts(view);
    let conn = number_width(all.iter().map(|it| &it.subject));
    let longest = all.iter();
    let longest = longest.map(|it| Tuple(&it.subject).to_string().chars().count());
    let tuple = (longest.max().unwrap_or(0) as u16).clamp(9, 40);
    let row = |it: &&VerdictEntry| {
        let ago = Human(view.now_ns.saturating_sub(it.mono_ns)).to_string();
        let verdict = Span::styled(verdict_words(it.verdict), theme.verdict(it.verdict));
        let reason = Span::raw(format!(": {}", it.reason));
        TableRow::new([
            Cell::from(Line::from(ago).right_aligned()),
            Cell::from(number(&it.subject)),
            Cell::from(Tuple(&it.subject).to_string()),
            Cell::from(Line::from(vec![verdict, reason])),
        ])
    };
    let list = List {
        pane: Pane::Verdicts,
        title: "Last verdicts".to_owned(),
        nothing: "None yet.",
        header: &["     AGO", "CONN", "FROM → TO", "VERDICT"],
        widths: &[
            Constraint::Length(TIME),
            Constraint::Length(conn),
            Constraint::Length(tuple),
            Constraint::Fill(1),
        ],
        rows: all.iter().map(row).collect(),
    };
    list.draw(frame, area, ui, theme);
}

struct List<'a> {
    pane: Pane,
    title: String,
    /// Text of an empty list.
    nothing: &'static str,
    header: &'static [&'static str],
    widths: &'a [Constraint],
    rows: Vec<TableRow<'a>>,
}

impl List<'_> {
    fn draw(self, frame: &mut Frame, area: Rect, ui: &mut Ui, theme: Theme) {
        let block = frame_of(self.pane, self.title, ui, theme);
        let inside = block.inner(area);
        frame.render_widget(block, area);
        let room = usize::from(inside.height.saturating_sub(1));
        ui.sized(self.pane, room, self.rows.len());
        if self.rows.is_empty() {
            let text = match ui.filter.is_empty() {
                true => self.nothing,
                false => "No row contains the filter's text.",
            };
            return frame.render_widget(nothing(text, theme), inside);
        }
        let table = Table::new(self.rows, self.widths)
            .header(TableRow::new(self.header.iter().copied()).style(theme.dim()))
            .column_spacing(1)
            .row_highlight_style(cursor(self.pane, ui, theme));
        frame.render_stateful_widget(table, inside, ui.table(self.pane));
    }
}

fn number(subject: &Subject) -> String {
    subject
        .conn
        .map_or("-".to_owned(), |conn| format!("#{conn}"))
}

fn number_width<'a>(subjects: impl Iterator<Item = &'a Subject>) -> u16 {
    let widths = subjects.map(|subject| number(subject).len() as u16);
    widths.max().unwrap_or(0).max(4)
}
