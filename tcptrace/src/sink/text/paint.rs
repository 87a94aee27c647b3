//! The colours of the log.

use anstyle::{AnsiColor, Style};

use crate::event::State;
use crate::fields::Verdict;

pub const PLAIN: Style = Style::new();
pub const DIM: Style = Style::new().dimmed();
pub const STRONG: Style = Style::new().bold();
pub const ALARM: Style = AnsiColor::Red.on_default().bold();

pub fn verdict(verdict: Verdict) -> Style {
    match verdict {
        Verdict::Queued => AnsiColor::Yellow.on_default(),
        Verdict::Awaited => AnsiColor::Green.on_default(),
        Verdict::FastOpen | Verdict::Overlapped => AnsiColor::Cyan.on_default(),
        Verdict::NeverAccepted | Verdict::Unfinished => AnsiColor::Red.on_default(),
        Verdict::Unknown => DIM,
        Verdict::Violated => ALARM,
    }
}

pub fn state(state: State) -> Style {
    match state {
        State::Established => AnsiColor::Green.on_default(),
        State::Close => DIM,
        _ => Style::new(),
    }
}
