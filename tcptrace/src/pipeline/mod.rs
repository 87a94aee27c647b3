//! The thread on which a trace goes on and its lines are written.

mod feed;
mod priority;

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
use crate::sink::Sink;
use crate::trace::{Begin, Input, Small, Trace};

/// What the capturing side hands over, and what it asks.
pub enum Message {
    Input(Input),
    /// Asks which namespaces are worth a look now (CLOCK_MONOTONIC, nanoseconds), or a reading of
    /// their counters.
    WhereToLook {
        mono_ns: u64,
        /// The trace is about to end.
        is_last: bool,
        answer: oneshot::Sender<WorthALook>,
    },
    /// Asks which namespaces to look into at the end of the trace.
    WhereToLookLast(oneshot::Sender<BTreeSet<u32>>),
}

/// The network namespaces that can tell something, by what they are asked for.
#[derive(Debug, Default)]
pub struct WorthALook {
    /// A look through their sockets.
    pub sockets: BTreeSet<u32>,
    /// A reading of their counters.
    pub counters: BTreeSet<u32>,
    /// A look through their sockets, because connections may not be as the trace has them.
    pub audit: BTreeSet<u32>,
}

/// A sink and what to call it when it fails.
pub struct Output {
    pub name: String,
    pub sink: Box<dyn Sink>,
}

/// A sink that failed and was given up.
#[derive(Debug)]
pub struct Failed {
    pub name: String,
    pub error: io::Error,
}

/// How a pipeline ended.
#[derive(Default)]
pub struct Outcome {
    pub failed: Vec<Failed>,
}

/// The signals from the pipeline to whoever feeds it.
#[derive(Clone, Default)]
pub struct Feedback {
    /// The trace should end: enough connections, or an output that failed.
    pub stop: Arc<Notify>,
    /// It is not known any more which process has a listener.
    pub who_listens: Arc<Notify>,
    /// Something has been traced.
    pub busy: Arc<AtomicBool>,
}

impl Message {
    /// How much memory it takes: its records, and itself. A pipeline that is held up for a night is
    /// sent millions of messages without a record.
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

/// Starts the thread. The last message is [`Small::End`].
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
                // Whoever starts it waits for that.
                let _ = started.send(Priority::of_this_thread());
                let pipeline = Pipeline::new(&begin, outputs, feedback);
                if let Some(outcome) = pipeline.run(fed) {
                    // The receiver is gone only when the process is being torn down.
                    let _ = done.send(outcome);
                }
            })?;
        priority.recv().map_err(io::Error::other)
    })?;
    Ok((feed, outcome))
}

/// The lines that an output reads.
pub fn wanted(outputs: &[Output]) -> Wanted {
    let wanted = outputs.iter().map(|output| output.sink.wants());
    wanted.fold(Wanted::NOTHING, Wanted::bitor)
}

struct Pipeline {
    trace: Trace,
    outputs: Vec<Output>,
    failed: Vec<Failed>,
    feedback: Feedback,
    /// It was asked who has the listeners, and the answer has not come.
    asked: bool,
    /// Reused from input to input.
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
        // Written at once: it tells a reader that everything from here on is traced.
        pipeline.advance();
        pipeline
    }

    /// Does what comes; `None` when it ends without [`Small::End`].
    fn run(mut self, mut fed: Fed) -> Option<Outcome> {
        loop {
            match fed.receive()? {
                Message::Input(input) => {
                    self.input(&input);
                    if let Input::Small(Small::End { .. }) = input {
                        return Some(Outcome {
                            failed: self.failed,
                        });
                    }
                }
                Message::WhereToLook {
                    mono_ns,
                    is_last,
                    answer,
                } => {
                    // Nobody waits for it when the trace ends just now.
                    let _ = answer.send(WorthALook {
                        sockets: self.trace.worth_a_look(),
                        counters: self.trace.worth_counting(),
                        audit: self.trace.worth_an_audit(mono_ns, is_last),
                    });
                }
                Message::WhereToLookLast(answer) => {
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
            self.feedback.who_listens.notify_one();
        }
    }

    /// Writes the lines that follow from what has come.
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

    /// An output that fails is given up and ends the trace; the others get their summary.
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
