//! `tcptrace demo`: runs and traces four experiments on loopback, and prints what they show.

mod evidence;
mod experiments;
mod wrapped;

use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};

use crate::capture::Request;
use crate::cli::Demo;
use crate::clock::Clock;
use crate::correlate::Selection;
use crate::depth::Depth;
use crate::exit;
use crate::fields::Line;
use crate::filter::{Filter, PortRange};
use crate::pipeline::Output;
use crate::sink::text::{Style, Zone};
use crate::sink::{Sink, Text};
use crate::stdio::{self, say};
use crate::tracing::{Needed, Outputs, Plan, Tracing, Until};

use evidence::Evidence;
use experiments::{EXPERIMENTS, FOLDERS, Stage};
use wrapped::{Wrapped, sentences};

/// Waits in the accept queue that are longer than this are explained.
const WHY_NS: u64 = 100_000_000;

/// Runs the demo. Returns the exit code, which is 0 only if the trace showed everything.
pub async fn run(options: &Demo) -> anyhow::Result<u8> {
    let stages = EXPERIMENTS
        .iter()
        .map(|_| Stage::new())
        .collect::<io::Result<Vec<_>>>()?;
    let ports = stages.iter().map(|stage| {
        let port = stage.port();
        PortRange {
            first: port,
            last: port,
        }
    });
    let request = Request {
        filter: Filter {
            ports: ports.collect(),
            ..Filter::default()
        },
        mode: options.attach.mode(),
        why_ns: Some(WHY_NS),
        ..Request::default()
    };
    let evidence = Evidence::default();
    let style = Style {
        color: options.color.on_stdout(),
        verbose: false,
        quiet: false,
        explain: false,
        zone: Zone::Local,
    };
    let clock = Clock::measure();
    let log = Text::new(Box::new(Wrapped(io::stdout())), clock, style).with_ports_only();
    let outputs = vec![
        Output {
            name: "standard output".into(),
            sink: Box::new(Body(log)),
        },
        Output {
            name: "the demo's evidence".into(),
            sink: Box::new(evidence.collector()),
        },
    ];
    let open = || {
        Ok(Outputs {
            lines: outputs,
            recording: None,
        })
    };
    let plan = Plan {
        request: &request,
        clock,
        selection: Selection::default(),
        depth: Depth::Events,
        count: None,
    };
    let mut tracing = Tracing::start(plan, open)?;
    tracing.confine(Needed {
        folders: FOLDERS.map(PathBuf::from).into(),
        connects: true,
        ..Needed::NOTHING
    })?;

    let begun = stdio::print(
        "Does accept() do the three-way handshake? Four experiments on this machine's kernel.\n\
         All addresses are 127.0.0.1; the log shows the ports.\n",
    );
    if begun.is_err() {
        return Ok(stdio::code_of(begun));
    }
    let played = play(stages, evidence, &tracing)?;
    tracing.trace(Until::default(), None).await?;
    let outcome = tracing.end().await?;
    if let Some(failed) = outcome.failed.into_iter().next() {
        return Ok(stdio::code_of(Err(failed.error)));
    }
    match played.try_recv() {
        Ok(Ok(())) => {
            let shown = stdio::print(
                "\nShown: the kernel finishes the three-way handshake by itself. accept() only takes a \
                 finished\nconnection out of the listener's queue, makes no new port, and need \
                 not be called at all for both\nends to be ESTABLISHED.\n",
            );
            Ok(stdio::code_of(shown))
        }
        Ok(Err(Unproven::NotPrinted(error))) => Ok(stdio::code_of(Err(error))),
        Ok(Err(Unproven::NotShown(error))) => Err(error.context("not shown")),
        Err(_) => {
            say("the demo was interrupted");
            Ok(exit::INTERRUPTED)
        }
    }
}

/// Why the demo failed.
enum Unproven {
    NotShown(anyhow::Error),
    /// Standard output could not be written.
    NotPrinted(io::Error),
}

/// Runs the experiments on a thread of their own. Ends the trace after the last one.
fn play(
    stages: Vec<Stage>,
    evidence: Evidence,
    tracing: &Tracing,
) -> io::Result<Receiver<Result<(), Unproven>>> {
    let (sender, receiver) = channel();
    let stop = tracing.stop();
    std::thread::Builder::new()
        .name("demo".into())
        .spawn(move || {
            let shown = EXPERIMENTS.iter().zip(stages).enumerate().try_for_each(
                |(index, (experiment, stage))| {
                    let (title, plot) = (experiment.title, experiment.plot);
                    let heading = format!("\n{}. {title}\n   {plot}\n\n", index + 1);
                    stdio::print(heading).map_err(Unproven::NotPrinted)?;
                    let concluded = (experiment.play)(stage, &evidence);
                    let conclusion = concluded.map_err(Unproven::NotShown)?;
                    stdio::print(format!("\n{}\n", sentences(&conclusion)))
                        .map_err(Unproven::NotPrinted)
                },
            );
            // A send error means that the process is ending.
            let _ = sender.send(shown);
            stop.notify_one();
        })?;
    Ok(receiver)
}

/// The log without header and summary.
struct Body(Text);

impl Sink for Body {
    fn line(&mut self, line: &Line) -> io::Result<()> {
        match line {
            Line::Session(_) | Line::Summary(_) => Ok(()),
            line => self.0.line(line),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
