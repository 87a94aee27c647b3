//! Drawing a diagram in Mermaid's language (<https://mermaid.js.org/syntax/sequenceDiagram.html>).
//!
//! Dashed arrows are inferred from a state. The arrival of a segment with an open arrow was not
//! seen.

use std::fmt::{Display, Write};

use super::rows::{self, Moment, Row};
use super::words::{self, role};
use super::*;
use crate::duration::Human;
use crate::printable::printable;

/// Gaps in time that are shorter than this get no label.
const GAP_NS: u64 = 1_000_000;

/// Returns the diagram as text, ending with a newline.
pub fn draw(diagram: &Diagram) -> String {
    let mut mermaid = Mermaid {
        diagram,
        text: String::from("sequenceDiagram\n"),
    };
    mermaid.participants();
    let rows = rows::of(diagram);
    for row in &rows {
        match row {
            Row::Gap { ns, label: true } if *ns >= GAP_NS => mermaid.gap(*ns),
            Row::Gap { .. } => {}
            Row::At(at_ns, moment) => mermaid.moment(*at_ns, moment),
        }
    }
    mermaid.text
}

struct Mermaid<'a> {
    diagram: &'a Diagram,
    text: String,
}

impl Mermaid<'_> {
    fn participants(&mut self) {
        for place in Place::BOTH {
            let end = self.diagram.endpoint(place);
            let role = role(self.diagram, end);
            let (process, kernel) = lanes(place);
            let address = match (end.addr, end.port) {
                (Some(addr), Some(port)) if addr.is_ipv6() => format!("[{addr}]:{port}"),
                (Some(addr), Some(port)) => format!("{addr}:{port}"),
                (Some(addr), None) => addr.to_string(),
                (None, _) => String::new(),
            };
            let Some(subject) = &end.subject else {
                let what = format!("{role} {address} (not known)");
                self.say(format_args!("participant {kernel} as {}", Label(&what)));
                continue;
            };
            let who = match (subject.comm, subject.pid) {
                (Some(comm), Some(pid)) => format!("{role} process {comm}[{pid}]"),
                (None, Some(pid)) => format!("{role} process [{pid}]"),
                (_, None) => format!("{role} process"),
            };
            let conn = subject.conn.map(|it| format!(" #{it}")).unwrap_or_default();
            let system = format!("{role} kernel{conn} {address}");
            let mut both = [(process, who), (kernel, system)];
            if place == Place::Right {
                both.reverse();
            }
            for (lane, what) in both {
                self.say(format_args!("participant {lane} as {}", Label(&what)));
            }
        }
    }

    fn gap(&mut self, ns: u64) {
        let outer = |place: Place| match self.diagram.endpoint(place).subject {
            Some(_) => lanes(place).0,
            None => lanes(place).1,
        };
        let (left, right) = (outer(Place::Left), outer(Place::Right));
        let text = format!("{} later", Human(ns));
        self.say(format_args!("Note over {left},{right}: {}", Label(&text)));
    }

    fn moment(&mut self, at_ns: u64, moment: &Moment) {
        let time = words::offset(self.diagram, at_ns);
        match moment {
            Moment::State(span) => {
                let (_, kernel) = lanes(span.place);
                let text = format!("{time} {}", span.state);
                self.say(format_args!("Note over {kernel}: {}", Label(&text)));
            }
            Moment::Called(call) => {
                let (process, kernel) = lanes(call.place);
                let text = format!("{time} {}", call.name.name());
                self.say(format_args!("{process}->>{kernel}: {}", Label(&text)));
                self.say(format_args!("activate {process}"));
            }
            Moment::Instant(call) => {
                let (process, kernel) = lanes(call.place);
                let text = format!("{time} {}", call.name.name());
                self.say(format_args!("{process}->>{kernel}: {}", Label(&text)));
            }
            Moment::Returned(call) => self.returned(at_ns, &time, call),
            Moment::Arrow(arrow) => self.arrow(&time, arrow),
            Moment::Mark(mark) => {
                let (_, kernel) = lanes(mark.place);
                let words = words::mark(&mark.kind).unwrap_or_default();
                let text = format!("{time} {words}");
                self.say(format_args!("Note over {kernel}: {}", Label(&text)));
            }
        }
    }

    fn returned(&mut self, at_ns: u64, time: &str, call: &Call) {
        let (process, kernel) = lanes(call.place);
        let what = match (&call.error, call.name) {
            (Some(error), _) => error.clone(),
            (None, CallName::Connect) => "can return".to_owned(),
            (None, _) => "returned".to_owned(),
        };
        let waited = self.diagram.wait().filter(|(_, it)| it.until_ns == at_ns);
        if let Some((since, _)) = waited {
            let text = format!("{} in the accept queue", Human(at_ns.saturating_sub(since)));
            // Mermaid wants the lanes from left to right.
            self.say(format_args!(
                "Note over {kernel},{process}: {}",
                Label(&text)
            ));
        }
        let text = format!("{time} {} {what}", call.name.name());
        self.say(format_args!("{kernel}->>{process}: {}", Label(&text)));
        if call.begun {
            self.say(format_args!("deactivate {process}"));
        }
    }

    fn arrow(&mut self, time: &str, x: &Arrow) {
        let (from, to) = (lanes(x.from).1, lanes(x.from.other()).1);
        let line = match (x.evidence, x.received_ns) {
            (Evidence::Seen, Some(_)) => "->>",
            (Evidence::Seen, None) => "-)",
            (_, Some(_)) => "-->>",
            (_, None) => "--)",
        };
        let label = words::labels(x).into_iter().next().unwrap_or_default();
        let text = format!("{time} {label}");
        self.say(format_args!("{from}{line}{to}: {}", Label(&text)));
    }

    fn say(&mut self, what: impl Display) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "    {what}");
    }
}

/// Returns the Mermaid names of an end's process and kernel lane.
fn lanes(place: Place) -> (&'static str, &'static str) {
    match place {
        Place::Left => ("P1", "K1"),
        Place::Right => ("P2", "K2"),
    }
}

/// Text escaped for Mermaid: every character that may have a meaning in its language is written as
/// its number.
struct Label<'a>(&'a str);

impl Display for Label<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for c in printable(self.0).chars() {
            match c {
                '.' | '_' | '-' | '(' | ')' | '[' | ']' | '+' | ' ' | '−' | '≈' => {
                    f.write_char(c)?
                }
                ':' => f.write_char(c)?,
                _ if c.is_alphanumeric() => f.write_char(c)?,
                _ => write!(f, "#{};", u32::from(c))?,
            }
        }
        Ok(())
    }
}
