//! The pipeline: the thread that correlates events and writes lines.

mod feed;
pub mod priority;

use std::collections::BTreeSet;
use std::io;
use std::ops::BitOr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use tokio::sync::{Notify, oneshot};

use self::feed::Fed;
pub use self::feed::Feed;
use self::priority::Priority;
use crate::event::{Note, Task};
use crate::fields::{Line, Wanted};
use crate::privileges;
use crate::sink::Sink;
use crate::trace::{Begin, Input, Small, Trace};

/// A message from the capturing side: input for the trace, or a question.
pub enum Message {
    Input(Input),
    /// Asks which namespaces need a socket snapshot or a reading of their counters now
    /// (CLOCK_MONOTONIC, nanoseconds).
    Targets {
        mono_ns: u64,
        /// The trace is about to end.
        is_last: bool,
        answer: oneshot::Sender<SnapshotTargets>,
    },
    /// Asks which namespaces need a socket snapshot at the end of the trace.
    LastTargets(oneshot::Sender<BTreeSet<u32>>),
}

/// Network namespaces where reading the kernel's state would add information, by what to read.
#[derive(Debug, Default)]
pub struct SnapshotTargets {
    /// Take a socket snapshot.
    pub sockets: BTreeSet<u32>,
    /// Read the counters.
    pub counters: BTreeSet<u32>,
    /// Take a socket snapshot, because the trace may have missed changes of connections.
    pub audit: BTreeSet<u32>,
}

/// A sink with a name for error messages.
pub struct Output {
    pub name: String,
    pub sink: Box<dyn Sink>,
}

/// A sink that failed and was closed.
#[derive(Debug)]
pub struct Failed {
    pub name: String,
    pub error: io::Error,
}

/// The result of a pipeline.
#[derive(Default)]
pub struct Outcome {
    pub failed: Vec<Failed>,
    /// Records were lost because a buffer was full.
    pub lost: bool,
}

/// Signals from the pipeline to the capturing side.
#[derive(Clone, Default)]
pub struct Feedback {
    /// The trace should end: enough connections have ended, or an output has failed.
    pub stop: Arc<Notify>,
    /// The process that owns a listener is not known any more.
    pub owners_wanted: Arc<Notify>,
    /// A line about a socket that is not older than the trace has been written.
    pub busy: Arc<AtomicBool>,
}

impl Message {
    /// Returns the memory that the message takes: its records and the message itself. A pipeline
    /// that is blocked for hours receives millions of messages without records.
    fn bytes(&self) -> usize {
        let more = match self {
            Message::Input(Input::Records { batch, .. }) => batch.len(),
            Message::Input(Input::Small(Small::Import { owners, .. })) => {
                owners.len() * size_of::<(u64, Task)>()
            }
            Message::Input(Input::Small(Small::Note {
                note: Note::Holders(holders),
                ..
            })) => size_of_val(&holders.holders[..]),
            _ => 0,
        };
        size_of::<Message>() + more
    }
}

/// Starts the thread. Its last message must be [`Small::End`].
pub fn spawn(
    begin: Begin,
    outputs: Vec<Output>,
    feedback: Feedback,
) -> io::Result<(Feed, oneshot::Receiver<Outcome>)> {
    let (done, outcome) = oneshot::channel();
    let feed = feed::feed(|fed| {
        let (started, priority) = mpsc::sync_channel(1);
        std::thread::Builder::new()
            .name("pipeline".into())
            .spawn(move || {
                // A send error means that `spawn` has returned with an error.
                let _ = started.send(Priority::of_this_thread());
                privileges::give_up();
                let pipeline = Pipeline::new(&begin, outputs, feedback);
                if let Some(outcome) = pipeline.run(fed) {
                    // A send error means that the process is ending.
                    let _ = done.send(outcome);
                }
            })?;
        priority.recv().map_err(io::Error::other)
    })?;
    Ok((feed, outcome))
}

/// Returns the kinds of lines that the outputs read.
pub fn wanted(outputs: &[Output]) -> Wanted {
    let wanted = outputs.iter().map(|output| output.sink.wants());
    wanted.fold(Wanted::NOTHING, Wanted::bitor)
}

struct Pipeline {
    trace: Trace,
    outputs: Vec<Output>,
    failed: Vec<Failed>,
    feedback: Feedback,
    /// The owners of listeners have been requested, and the answer is pending.
    asked: bool,
    /// Buffer that is reused for every input.
    lines: Vec<Line>,
}

impl Pipeline {
    fn new(begin: &Begin, outputs: Vec<Output>, feedback: Feedback) -> Pipeline {
        let mut pipeline = Pipeline {
            trace: Trace::new(begin).wanting(wanted(&outputs)),
            outputs,
            failed: vec![],
            feedback,
            asked: false,
            lines: vec![],
        };
        // Write the session line immediately: readers learn from it that tracing has started.
        pipeline.advance();
        pipeline
    }

    /// Processes messages. Returns `None` if they end without [`Small::End`].
    fn run(mut self, mut fed: Fed) -> Option<Outcome> {
        loop {
            match fed.receive()? {
                Message::Input(input) => {
                    self.input(&input);
                    if let Input::Small(Small::End { .. }) = input {
                        return Some(Outcome {
                            failed: self.failed,
                            ..Outcome::default()
                        });
                    }
                }
                Message::Targets {
                    mono_ns,
                    is_last,
                    answer,
                } => {
                    // A send error means that the trace is just ending.
                    let _ = answer.send(SnapshotTargets {
                        sockets: self.trace.wants_snapshot(),
                        counters: self.trace.wants_counters(),
                        audit: self.trace.wants_audit(mono_ns, is_last),
                    });
                }
                Message::LastTargets(answer) => {
                    let _ = answer.send(self.trace.unproven());
                }
            }
        }
    }

    fn input(&mut self, input: &Input) {
        self.trace.push(input);
        self.advance();
        if let Input::Small(Small::Note {
            note: Note::Holders(_),
            ..
        }) = input
        {
            self.asked = false;
        }
        if self.trace.wants_holders() && !std::mem::replace(&mut self.asked, true) {
            self.feedback.owners_wanted.notify_one();
        }
    }

    /// Writes the lines that result from the input so far.
    fn advance(&mut self) {
        let mut lines = std::mem::take(&mut self.lines);
        let was_counted = self.trace.is_counted();
        while self.trace.advance(&mut lines) {
            for line in lines.drain(..) {
                self.put(&line);
            }
        }
        self.lines = lines;
        if self.trace.is_counted() && !was_counted {
            self.feedback.stop.notify_one();
        }
        self.each_output(|sink| sink.flush());
    }

    fn put(&mut self, line: &Line) {
        if !matches!(line, Line::Session(_) | Line::Preexisting(_)) {
            self.feedback.busy.store(true, Ordering::Relaxed);
        }
        self.each_output(|sink| sink.line(line));
    }

    /// Calls `act` for each output. An output that fails is closed and ends the trace. The others
    /// still get their summary.
    fn each_output(&mut self, mut act: impl FnMut(&mut dyn Sink) -> io::Result<()>) {
        let mut index = 0;
        while let Some(output) = self.outputs.get_mut(index) {
            match act(output.sink.as_mut()) {
                Ok(()) => index += 1,
                Err(error) => {
                    let Output { name, .. } = self.outputs.remove(index);
                    self.failed.push(Failed { name, error });
                    self.feedback.stop.notify_one();
                }
            }
        }
    }
}
