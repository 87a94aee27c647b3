//! `tcptrace explain`: explains each connection of a recorded trace in prose and in a sequence
//! diagram.

mod numbers;
mod prose;

use std::io::{self, BufWriter, Write};

use crate::cli::{Explain, ExplainForm};
use crate::clock::Clock;
use crate::diagram::{Collector, Diagram, Keep, mermaid, text};
use crate::exit;
use crate::fields::Side;
use crate::files::Files;
use crate::replay::Recorded;
use crate::stdio::{self, say};

use self::numbers::Numbers;
#[cfg(test)]
pub(crate) use self::prose::of as prose_of;

/// Runs `tcptrace explain FILE`. Returns the exit code.
pub fn run(options: &Explain) -> anyhow::Result<u8> {
    Files::new(true).read(&options.file, &options.file.display().to_string())?;
    let mut recorded = match Recorded::open(&options.file) {
        Ok(recorded) => recorded,
        Err(error) => {
            say(error);
            return Ok(exit::USAGE);
        }
    };
    let file = options.file.display();
    let mut writer = Writer::new(options, recorded.clock());
    if let Err(error) = writer.all(&mut recorded) {
        return Ok(stdio::code_of(Err(error)));
    }
    let damage = recorded.damage();
    // With --conn, reading stops after that connection, possibly before the damage.
    let to_its_end = options.conn.is_none() || writer.written == 0;
    if to_its_end && !damage.to_string().is_empty() {
        say(format_args!("{file}: {damage}"));
    }
    if writer.written > 0 {
        let whole = !to_its_end || damage.is_none();
        return Ok(if whole { exit::DONE } else { exit::FAILURE });
    }
    match options.conn {
        None => {
            say(format_args!("{file} contains no connection"));
            Ok(exit::DONE)
        }
        Some(conn) => {
            let what = match (writer.listeners.has(conn), writer.conns.is_empty()) {
                (true, _) => format!("{conn} is a listener in {file}"),
                (false, _) => format!("{file} has no connection {conn}"),
            };
            match writer.conns.is_empty() {
                true => say(format_args!("{what}; it contains no connection at all")),
                false => say(format_args!("{what}; its connections are {}", writer.conns)),
            }
            Ok(exit::USAGE)
        }
    }
}

struct Writer<'a> {
    options: &'a Explain,
    clock: Clock,
    out: BufWriter<io::Stdout>,
    color: bool,
    written: u64,
    conns: Numbers,
    listeners: Numbers,
}

impl Writer<'_> {
    fn new(options: &Explain, clock: Clock) -> Writer<'_> {
        Writer {
            options,
            clock,
            out: BufWriter::new(io::stdout()),
            color: options.color.on_stdout(),
            written: 0,
            conns: Numbers::default(),
            listeners: Numbers::default(),
        }
    }

    /// Writes each connection when it ends, then those that have not ended.
    fn all(&mut self, lines: &mut Recorded) -> io::Result<()> {
        let mut collector = Collector::new(Keep::UntilGone);
        for line in lines {
            if let Some(subject) = line.subject()
                && let Some(conn) = subject.conn
            {
                match subject.side {
                    Some(Side::Listener) => self.listeners.add(conn),
                    _ => self.conns.add(conn),
                }
            }
            if let Some(group) = collector.take(&line)
                && self.wanted(&group.conns)
            {
                self.write(Diagram::of(&group))?;
                if self.options.conn.is_some() {
                    self.out.flush()?;
                    return Ok(());
                }
            }
        }
        for group in collector.finish() {
            if self.wanted(&group.conns) {
                self.write(Diagram::of(&group))?;
            }
        }
        self.out.flush()?;
        Ok(())
    }

    fn wanted(&self, conns: &[u64]) -> bool {
        self.options.conn.is_none_or(|conn| conns.contains(&conn))
    }

    fn write(&mut self, diagram: Option<Diagram>) -> io::Result<()> {
        let Some(diagram) = diagram else {
            return Ok(());
        };
        if self.written > 0 {
            writeln!(self.out)?;
        }
        self.written += 1;
        match self.options.output {
            ExplainForm::Text => {
                let look = text::Look {
                    color: self.color,
                    ascii: self.options.ascii,
                };
                let prose = prose::of(&diagram, self.clock, look);
                self.out.write_all(prose.as_bytes())?;
                writeln!(self.out)?;
                self.out.write_all(text::draw(&diagram, look).as_bytes())
            }
            ExplainForm::Mermaid => self.out.write_all(mermaid::draw(&diagram).as_bytes()),
        }
    }
}
