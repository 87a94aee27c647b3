//! `tcptrace explain`: the story of each connection of a recorded trace, as prose and as a sequence
//! diagram.

mod numbers;
mod prose;

use std::io::{self, BufWriter, Write};

use crate::cli::{Explain, Story};
use crate::clock::Clock;
use crate::diagram::{Collector, Diagram, Keep, mermaid, text};
use crate::exit;
use crate::fields::Side;
use crate::files::Files;
use crate::replay::Recorded;
use crate::stdio::{self, say};

use self::numbers::Numbers;
#[cfg(test)]
pub(crate) use self::prose::of as story;

/// Runs `tcptrace explain FILE`; the value is the exit code.
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
    let mut teller = Teller::new(options, recorded.clock());
    if let Err(error) = teller.all(&mut recorded) {
        return Ok(stdio::code_of(Err(error)));
    }
    let damage = recorded.damage();
    // One connection may have been told before the end was reached.
    let to_its_end = options.conn.is_none() || teller.told == 0;
    if to_its_end && !damage.to_string().is_empty() {
        say(format_args!("{file}: {damage}"));
    }
    if teller.told > 0 {
        let whole = !to_its_end || damage.is_none();
        return Ok(if whole { exit::DONE } else { exit::FAILURE });
    }
    match options.conn {
        None => {
            say(format_args!("{file} tells of no connection"));
            Ok(exit::DONE)
        }
        Some(conn) => {
            let what = match (teller.listeners.has(conn), teller.conns.is_empty()) {
                (true, _) => format!("{conn} is a listener in {file}"),
                (false, _) => format!("{file} has no connection {conn}"),
            };
            match teller.conns.is_empty() {
                true => say(format_args!("{what}; it tells of no connection at all")),
                false => say(format_args!("{what}; its connections are {}", teller.conns)),
            }
            Ok(exit::USAGE)
        }
    }
}

struct Teller<'a> {
    options: &'a Explain,
    clock: Clock,
    out: BufWriter<io::Stdout>,
    color: bool,
    told: u64,
    conns: Numbers,
    listeners: Numbers,
}

impl Teller<'_> {
    fn new(options: &Explain, clock: Clock) -> Teller<'_> {
        Teller {
            options,
            clock,
            out: BufWriter::new(io::stdout()),
            color: options.color.on_stdout(),
            told: 0,
            conns: Numbers::default(),
            listeners: Numbers::default(),
        }
    }

    /// Each as it ends, and then those that have not.
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
                self.tell(Diagram::of(&group))?;
                if self.options.conn.is_some() {
                    self.out.flush()?;
                    return Ok(());
                }
            }
        }
        for group in collector.finish() {
            if self.wanted(&group.conns) {
                self.tell(Diagram::of(&group))?;
            }
        }
        self.out.flush()?;
        Ok(())
    }

    fn wanted(&self, conns: &[u64]) -> bool {
        self.options.conn.is_none_or(|conn| conns.contains(&conn))
    }

    fn tell(&mut self, diagram: Option<Diagram>) -> io::Result<()> {
        let Some(diagram) = diagram else {
            return Ok(());
        };
        if self.told > 0 {
            writeln!(self.out)?;
        }
        self.told += 1;
        match self.options.output {
            Story::Text => {
                let look = text::Look {
                    color: self.color,
                    ascii: self.options.ascii,
                };
                let prose = prose::of(&diagram, self.clock, look);
                self.out.write_all(prose.as_bytes())?;
                writeln!(self.out)?;
                self.out.write_all(text::draw(&diagram, look).as_bytes())
            }
            Story::Mermaid => self.out.write_all(mermaid::draw(&diagram).as_bytes()),
        }
    }
}
