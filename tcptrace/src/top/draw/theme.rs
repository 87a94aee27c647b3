//! The styles of the screen, with and without colours.

use ratatui::style::{Color, Modifier, Style};

use crate::fields::Verdict;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Theme {
    /// The terminal may show colours.
    pub color: bool,
}

impl Theme {
    pub fn strong(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    pub fn dim(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    pub fn alarm(self) -> Style {
        match self.color {
            true => self.strong().fg(Color::White).bg(Color::Red),
            false => self.strong().add_modifier(Modifier::REVERSED),
        }
    }

    pub fn focus(self) -> Style {
        match self.color {
            true => self.strong().fg(Color::Cyan),
            false => self.strong().add_modifier(Modifier::UNDERLINED),
        }
    }

    pub fn cursor(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    /// Returns the style for a queue's fill level, from 0 to 1.
    pub fn fill(self, fill: f64) -> Style {
        match fill {
            fill if fill >= 0.9 => self.in_color(Color::Red).add_modifier(Modifier::BOLD),
            fill if fill >= 0.5 => self.in_color(Color::Yellow),
            _ => self.in_color(Color::Green),
        }
    }

    /// Returns the style of a verdict, with the colours of the text log.
    pub fn verdict(self, verdict: Verdict) -> Style {
        match verdict {
            Verdict::Queued => self.in_color(Color::Yellow),
            Verdict::Awaited => self.in_color(Color::Green),
            Verdict::FastOpen | Verdict::Overlapped => self.in_color(Color::Cyan),
            Verdict::NeverAccepted | Verdict::Unfinished => self.in_color(Color::Red),
            Verdict::Unknown => self.dim(),
            Verdict::Violated => self.alarm(),
        }
    }

    fn in_color(self, color: Color) -> Style {
        match self.color {
            true => Style::new().fg(color),
            false => Style::new(),
        }
    }
}
