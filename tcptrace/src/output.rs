//! The output of a trace's lines to standard output, in the requested form.

use std::io::{self, Write};

use crate::cli::{Explained, Form, Show};
use crate::clock::Clock;
use crate::fields::{Kind, Line, Wanted};
use crate::pipeline::Output;
use crate::sink::text::{Style, Zone};
use crate::sink::{Chrome, Csv, Json, Pcapng, Sink, Text};

/// Returns the standard output in the form that `show` asks for.
pub fn stdout(show: &Show, clock: Clock) -> Output {
    Output {
        name: "standard output".into(),
        sink: sink(show, Box::new(io::stdout()), clock),
    }
}

fn sink(show: &Show, out: Box<dyn Write + Send>, clock: Clock) -> Box<dyn Sink> {
    let text = |out| {
        let style = Style {
            color: show.color.on_stdout(),
            verbose: show.verbose,
            quiet: show.quiet,
            explain: show.explain.is_some(),
            zone: Zone::Local,
        };
        Text::new(out, clock, style)
    };
    let sink: Box<dyn Sink> = match (show.output, show.columns()) {
        // CSV and text with columns filter the lines themselves (`--only`).
        (Form::Csv, Some(columns)) => return Box::new(Csv::new(out, clock, columns)),
        (_, Some(columns)) => return Box::new(text(out).with_columns(columns)),
        (Form::Json, None) => Box::new(Json::new(out, clock)),
        (Form::Chrome, None) => Box::new(Chrome::new(out)),
        (Form::Pcapng, None) => Box::new(Pcapng::new(out, clock)),
        (_, None) if show.explain == Some(Explained::Diagram) => {
            Box::new(text(out).with_diagrams())
        }
        (_, None) => Box::new(text(out)),
    };
    match show.only.is_empty() {
        true => sink,
        false => Box::new(Only {
            kinds: show.only.clone(),
            sink,
        }),
    }
}

/// Passes only lines of the given kinds to another sink.
struct Only {
    kinds: Vec<String>,
    sink: Box<dyn Sink>,
}

impl Sink for Only {
    fn line(&mut self, line: &Line) -> io::Result<()> {
        match self.kinds.iter().any(|kind| kind == line.event()) {
            true => self.sink.line(line),
            false => Ok(()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }

    fn wants(&self) -> Wanted {
        let is_let_through = |kind: Kind| self.kinds.iter().any(|it| it == kind.name());
        self.sink.wants().filter(is_let_through)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filtering_sink_wants_just_the_kinds_of_lines_that_it_passes_on() {
        let clock = Clock::with_offset(0);
        let only = |kinds: &[&str], sink: Box<dyn Sink>| Only {
            kinds: kinds.iter().map(|&it| it.to_owned()).collect(),
            sink,
        };
        let json = || Box::new(Json::new(Box::new(io::sink()), clock));
        let wanted = only(&["connection", "lost"], json()).wants();
        let expected = [Kind::Connection, Kind::Lost].into_iter().collect();
        assert_eq!(wanted, expected);
        let pcapng = Box::new(Pcapng::new(Box::new(io::sink()), clock));
        let wanted = only(&["transition"], pcapng).wants();
        assert_eq!(wanted, Wanted::WORDS);
    }
}
