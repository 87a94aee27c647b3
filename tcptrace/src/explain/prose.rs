//! The description of a connection in prose: its ends, the events with their causes, and the
//! verdict.

use std::fmt::{Display, Write};

use anstyle::Style;

use crate::clock::Clock;
use crate::diagram::text::{Look, ascii};
use crate::diagram::words::{labels, offset, role};
use crate::diagram::{
    Arrow, Call, CallName, Diagram, Endpoint, Evidence, ItemKind, Kind, Mark, MarkKind, Place,
    StateSpan,
};
use crate::duration::Human;
use crate::printable::{is_printable, printable};
use crate::sink::text::Zone;
use crate::sink::text::ending::Ending;
use crate::sink::text::explain;
use crate::sink::text::paint::{self, ALARM, DIM, PLAIN, STRONG};
use crate::sink::text::time::TimeOfDay;
use crate::sink::text::words::{self, End as Address, Who, verdict_words};

const WIDTH: usize = 80;
/// Column of the sentences, right of the time.
const INDENT: usize = 13;

/// Returns the description, ending with a newline.
pub fn of(diagram: &Diagram, clock: Clock, look: Look) -> String {
    let mut prose = Prose {
        diagram,
        look,
        text: String::new(),
    };
    prose.heading(clock);
    prose.steps();
    prose.outcome();
    prose.text
}

struct Prose<'a> {
    diagram: &'a Diagram,
    look: Look,
    text: String,
}

impl Prose<'_> {
    fn heading(&mut self, clock: Clock) {
        let numbers: Vec<String> = self.diagram.conns().map(|it| format!("#{it}")).collect();
        let numbers = numbers.join(" → ");
        let end = |end: &Endpoint| Address(end.addr, end.port).to_string();
        let (left, right) = (end(&self.diagram.left), end(&self.diagram.right));
        self.put(STRONG, format_args!("{numbers}  {left} → {right}"));
        let verdict = self.connections().find_map(|it| it.verdict);
        if let Some(verdict) = verdict {
            self.put(PLAIN, "  ");
            self.put(paint::verdict(verdict), verdict_words(verdict));
        }
        self.put(PLAIN, "\n");
        for place in Place::BOTH {
            let end = self.diagram.endpoint(place);
            let role = role(self.diagram, end);
            let who = match &end.subject {
                None => {
                    "not known: it is elsewhere, or its addresses are translated (NAT)".to_owned()
                }
                Some(subject) => Who(subject).to_string(),
            };
            self.put(DIM, format_args!("  {role:<7}{who}\n"));
            if end.incomplete() {
                let why = "incomplete: the trace began later, or lost events";
                self.put(ALARM, format_args!("  {:<7}{why}\n", ""));
            }
        }
        let mut time = TimeOfDay::new(Zone::Local);
        let began = time.of(clock.wall_ns(self.diagram.zero_ns)).to_owned();
        let zone = Zone::Local.name();
        self.put(DIM, format_args!("  0 is   {began} ({zone})\n\n"));
    }

    fn connections(&self) -> impl Iterator<Item = &crate::fields::Connection> {
        // Only the server's end has a verdict, so it comes first.
        let ends = [&self.diagram.right, &self.diagram.left];
        ends.into_iter().filter_map(|it| it.connection.as_ref())
    }

    fn steps(&mut self) {
        let diagram = self.diagram;
        for item in &diagram.items {
            let step = match &item.what {
                ItemKind::State(span) => Some((item.at_ns, self.state(span))),
                ItemKind::Call(call) => self.call(item.at_ns, call),
                ItemKind::Arrow(arrow) => self.arrow(arrow).map(|text| (item.at_ns, text)),
                ItemKind::Mark(mark) => self.mark(mark).map(|text| (item.at_ns, text)),
                ItemKind::Wait(_) => None,
            };
            if let Some((at_ns, sentence)) = step {
                self.step(at_ns, &sentence);
            }
        }
    }

    fn step(&mut self, at_ns: u64, sentence: &str) {
        let time = offset(self.diagram, at_ns);
        for (index, line) in textwrap::wrap(&printable(sentence), WIDTH - INDENT)
            .iter()
            .enumerate()
        {
            let time = if index == 0 { time.as_str() } else { "" };
            self.put(DIM, format_args!("{time:>11}  "));
            self.put(PLAIN, format_args!("{line}\n"));
        }
    }

    /// Returns `The client` or `The server`.
    fn who(&self, place: Place) -> String {
        format!("The {}", role(self.diagram, self.diagram.endpoint(place)))
    }

    fn state(&self, span: &StateSpan) -> String {
        let who = self.who(span.place);
        let state = span.state;
        let Some(transition) = &span.transition else {
            return match span.begun {
                true => format!("{who} is {state}."),
                false => format!("{who} was already {state} when the trace began."),
            };
        };
        let after = match transition.in_state_ns {
            Some(ns) => format!(" after {} in {}", Human(ns), transition.oldstate),
            None => String::new(),
        };
        let noticed = if span.is_from_snapshot() {
            " (first seen now)"
        } else {
            ""
        };
        match explain::transition(transition) {
            Some(why) => format!("{who} is {state}{after}{noticed}. {why}"),
            None => format!("{who} is {state}{after}{noticed}."),
        }
    }

    /// Describes accept() with its time and its caller. Other calls are described by the states
    /// they cause.
    fn call(&self, at_ns: u64, call: &Call) -> Option<(u64, String)> {
        if call.name != CallName::Accept {
            return None;
        }
        let until = call.until_ns?;
        let subject = match &call.accept {
            Some(accept) => Some(&accept.subject),
            None => self.diagram.endpoint(call.place).subject.as_ref(),
        };
        let who = subject.map(|it| Who(it).to_string()).unwrap_or_default();
        let mut text = format!("accept() returned the connection to {who}");
        if call.begun {
            let blocked = Human(until.saturating_sub(at_ns));
            let _ = write!(text, " after {blocked} in the call");
        }
        match self.diagram.wait() {
            Some((since, wait)) if wait.until_ns == until => {
                let waited = Human(until.saturating_sub(since));
                let _ = write!(
                    text,
                    ". It took it out of the accept queue, after {waited} there."
                );
            }
            _ => text.push('.'),
        }
        Some((until, text))
    }

    /// Describes a captured segment. An inferred segment is part of a state's sentence.
    fn arrow(&self, x: &Arrow) -> Option<String> {
        if x.evidence != Evidence::Seen {
            return None;
        }
        let words = labels(x).into_iter().next()?;
        let (from, to) = (self.who(x.from), self.who(x.from.other()).to_lowercase());
        if let (Kind::Rst, None, Some(_)) = (x.kind, &x.header, &x.reason) {
            let reason = x.reason.as_deref().unwrap_or_default();
            return Some(format!("{from} sends a RST: {reason}."));
        }
        Some(match (x.sent_ns, x.received_ns) {
            (Some(_), None) => format!("{from} sends {words}."),
            (None, _) => format!("{words} comes from {}.", from.to_lowercase()),
            (Some(sent), Some(received)) => {
                let flight = Human(received.saturating_sub(sent));
                format!("{from} sends {words}; it comes to {to} {flight} later.")
            }
        })
    }

    fn mark(&self, mark: &Mark) -> Option<String> {
        let who = self.who(mark.place);
        Some(match &mark.kind {
            MarkKind::Overflow(x) => {
                format!("{}. {}", capital(&words::overflow(x)), explain::overflow(x))
            }
            MarkKind::SocketFreed { bucket } => {
                format!("{who}'s socket is gone; {bucket} goes on without it.")
            }
            MarkKind::BucketEnded(ended) => format!("Its TIME_WAIT bucket is {ended:?}."),
            MarkKind::TraceEnds { state } => {
                format!(
                    "The trace ends, and {} is still {state}.",
                    who.to_lowercase()
                )
            }
            MarkKind::Retransmit { .. } | MarkKind::Reset(_) => return None,
        })
    }

    /// Writes the verdict with its evidence, and how each end was closed.
    fn outcome(&mut self) {
        let diagram = self.diagram;
        let mut lines = vec![];
        for connection in self.connections() {
            if let (Some(verdict), Some(reason)) = (connection.verdict, &connection.reason) {
                lines.push((
                    paint::verdict(verdict),
                    format!("{}: {reason}.", verdict_words(verdict)),
                ));
            }
            if let Some(evidence) = &connection.evidence {
                lines.push((DIM, format!("Evidence: {evidence}.")));
            }
        }
        for place in Place::BOTH {
            let end = diagram.endpoint(place);
            let Some(connection) = &end.connection else {
                continue;
            };
            let mut text = format!("{}: {}.", self.who(place), Ending(connection));
            if let Some(explanation) = &connection.explanation {
                let _ = write!(text, " {}.", capital(explanation));
            }
            lines.push((PLAIN, text));
        }
        if !lines.is_empty() {
            self.put(PLAIN, "\n");
        }
        for (style, text) in lines {
            for line in textwrap::wrap(&printable(&text), WIDTH - 2) {
                self.put(PLAIN, "  ");
                self.put(style, format_args!("{line}\n"));
            }
        }
    }

    fn put(&mut self, style: Style, what: impl Display) {
        let what = self.plain(what.to_string());
        // Writing to a String cannot fail.
        let _ = match self.look.color && style != PLAIN {
            // The newline is not coloured: some terminals fill the rest of the line with the
            // background.
            true => match what.strip_suffix('\n') {
                Some(line) => writeln!(self.text, "{style}{line}{style:#}"),
                None => write!(self.text, "{style}{what}{style:#}"),
            },
            false => write!(self.text, "{what}"),
        };
    }

    /// Replaces unprintable characters, which could move the cursor. With --ascii, also replaces
    /// all others outside ASCII.
    fn plain(&self, text: String) -> String {
        let text = text.chars().map(|c| match c {
            '\n' => c,
            c if !is_printable(c) => '?',
            c if self.look.ascii => ascii(c),
            c => c,
        });
        text.collect()
    }
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().into_iter().flat_map(char::to_uppercase);
    first.chain(chars.clone()).collect()
}
