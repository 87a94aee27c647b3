//! Batches to lines: decode → order → story → sinks, on one thread.

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
use crate::balance::Balance;
use crate::capture::cgroups::Cgroups;
use crate::capture::counters::Reading;
use crate::capture::iterator::Look;
use crate::capture::ring::Batch;
use crate::clock::mono_now_ns;
use crate::decode::decode;
use crate::event::{Event, Holders, Hook, Kind, Looked, State};
use crate::fields::{HookCount, Line, Lost, Wanted, Why};
use crate::order::{HOLD_BACK_NS, Order};
use crate::record::Recorder;
use crate::sink::Sink;
use crate::story::{Begin, End, Import, Input, Story};

/// What the capturing side hands over.
pub enum Message {
    /// Records from the ring buffer.
    Drained {
        batch: Batch,
        /// Everything that was written before this time (CLOCK_MONOTONIC, nanoseconds) has now
        /// been handed over; 0 when that is not known.
        complete_until_ns: u64,
    },
    /// Records were lost since the last such message.
    Lost(Lost),
    /// The kernel skipped runs of a program, and nothing made up for them.
    Missed,
    /// A look through the sockets of a network namespace, some of them older than the trace.
    Looked(Look),
    /// A look through the descriptors of all processes, which was over at a time (CLOCK_MONOTONIC,
    /// nanoseconds): the answer to [`Feedback::who_listens`].
    Holders { ended_ns: u64, holders: Holders },
    /// Asks for what has been counted until a time (CLOCK_MONOTONIC, nanoseconds).
    Tick { mono_ns: u64 },
    /// Readings of the kernel's own counters.
    Counters(Vec<Reading>),
    /// Announces such a look at the start of the trace.
    Import(Import),
    /// Asks which namespaces are worth a look now (CLOCK_MONOTONIC, nanoseconds), or a reading of
    /// their counters.
    WhereToLook {
        mono_ns: u64,
        /// The trace is about to end.
        is_last: bool,
        answer: oneshot::Sender<WorthALook>,
    },
    /// What the kernel side had counted, each hook's events that were seen a while ago and those that
    /// have been filtered or lost since; the records are in what was drained before.
    Counted(Vec<(Hook, u64, u64)>),
    /// Asks which namespaces to look into at the end of the trace.
    WhereToLookLast(oneshot::Sender<BTreeSet<u32>>),
    /// The hooks are being detached: what happened after this time (CLOCK_MONOTONIC,
    /// nanoseconds) is not part of the trace, because not all of them saw it.
    Ending { ended_ns: u64 },
    /// Nothing more will come.
    End { counts: Vec<(Hook, HookCount)> },
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

/// Where a trace is recorded and what to call that when it fails.
pub struct Tape {
    pub name: String,
    pub recorder: Recorder,
}

/// A sink that failed and was given up.
#[derive(Debug)]
pub struct Failed {
    pub name: String,
    pub error: io::Error,
}

/// How a pipeline ended.
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
        let records = match self {
            Message::Drained { batch, .. } => batch.len(),
            Message::Looked(look) => look.found.len(),
            Message::Holders { holders, .. } => size_of_val(&holders.holders[..]),
            _ => 0,
        };
        size_of::<Message>() + records
    }
}

/// Starts the thread. The last message is [`Message::End`].
pub fn spawn(
    begin: Begin,
    outputs: Vec<Output>,
    tape: Option<Tape>,
    count: Option<u64>,
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
                let pipeline = Pipeline::new(begin, outputs, tape, count, feedback);
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
fn wanted(outputs: &[Output]) -> Wanted {
    let wanted = outputs.iter().map(|output| output.sink.wants());
    wanted.fold(Wanted::NOTHING, Wanted::bitor)
}

struct Pipeline {
    order: Order,
    story: Story,
    cgroups: Cgroups,
    outputs: Vec<Output>,
    tape: Option<Tape>,
    failed: Vec<Failed>,
    feedback: Feedback,
    /// The trace is over when so many connections have ended.
    count: Option<u64>,
    /// When the last of them ended: what happened later is not part of the trace.
    counted_ns: Option<u64>,
    /// What happened later is not part of the trace; `u64::MAX` while it goes on.
    ended_ns: u64,
    balance: Balance,
    undecodable: u64,
    /// It was asked who has the listeners, and the answer has not come.
    asked: bool,
    /// Reused from event to event.
    lines: Vec<Line>,
}

impl Pipeline {
    fn new(
        begin: Begin,
        outputs: Vec<Output>,
        tape: Option<Tape>,
        count: Option<u64>,
        feedback: Feedback,
    ) -> Pipeline {
        let mut pipeline = Pipeline {
            order: Order::default(),
            story: Story::new(&begin).wanting(wanted(&outputs)),
            cgroups: Cgroups::new(),
            outputs,
            tape,
            failed: vec![],
            feedback,
            count,
            counted_ns: None,
            ended_ns: u64::MAX,
            balance: Balance::default(),
            undecodable: 0,
            asked: false,
            lines: vec![],
        };
        // Written at once: it tells a reader that everything from here on is traced.
        pipeline.tell(&Input::Begin(begin));
        pipeline.flush();
        pipeline
    }

    /// Does what comes; `None` when it ends without [`Message::End`].
    fn run(mut self, mut fed: Fed) -> Option<Outcome> {
        loop {
            match fed.receive()? {
                Message::Drained {
                    batch,
                    complete_until_ns,
                } => self.drained(&batch, complete_until_ns),
                Message::Lost(mut lost) => {
                    lost.mono_ns = lost.mono_ns.min(self.ended_ns);
                    self.tell(&Input::Lost(lost));
                }
                Message::Missed => self.tell(&Input::Missed {}),
                Message::Import(import) => self.tell(&Input::Import(import)),
                Message::Looked(look) => self.looked(&look),
                Message::Holders { ended_ns, holders } => {
                    self.own_event(ended_ns, Kind::Holders(holders));
                }
                Message::Tick { mono_ns } => self.own_event(mono_ns, Kind::Tick),
                Message::Counters(readings) => {
                    for (mono_ns, counters) in readings {
                        self.own_event(mono_ns, Kind::Counters(counters));
                    }
                }
                Message::WhereToLook {
                    mono_ns,
                    is_last,
                    answer,
                } => {
                    // Nobody waits for it when the trace ends just now.
                    let _ = answer.send(WorthALook {
                        sockets: self.story.worth_a_look(),
                        counters: self.story.worth_counting(),
                        audit: self.story.worth_an_audit(mono_ns, is_last),
                    });
                }
                Message::Counted(counts) => self.counted(&counts),
                Message::WhereToLookLast(answer) => {
                    let _ = answer.send(self.unproven());
                }
                Message::Ending { ended_ns } => self.ended_ns = ended_ns,
                Message::End { counts } => return Some(self.end(counts)),
            }
        }
    }

    fn looked(&mut self, look: &Look) {
        self.take(&look.found);
        let looked = Looked {
            netns: look.netns,
            began_ns: look.began_ns,
            is_audit: look.is_audit,
            is_last: look.is_last,
        };
        self.own_event(look.ended_ns, Kind::Looked(looked));
    }

    /// The namespaces with connections that may be in an accept queue, those among them whose events
    /// are still held back.
    fn unproven(&self) -> BTreeSet<u32> {
        let mut namespaces = self.story.unproven();
        namespaces.extend(
            self.order
                .held()
                .iter()
                .filter_map(|event| match &event.kind {
                    Kind::SetState(change) if change.oldstate == State::Listen => {
                        Some(change.netns)
                    }
                    _ => None,
                }),
        );
        namespaces
    }

    /// Something that no record tells.
    fn own_event(&mut self, mono_ns: u64, kind: Kind) {
        self.order.push(Event {
            mono_ns,
            cpu: 0,
            lost: 0,
            kind,
        });
    }

    fn drained(&mut self, batch: &Batch, complete_until_ns: u64) {
        self.take(batch);
        if let Some(until_ns) = complete_until_ns.checked_sub(HOLD_BACK_NS) {
            self.release(until_ns);
        }
    }

    fn take(&mut self, batch: &Batch) {
        for record in batch.records() {
            match decode(record) {
                Ok(event) => {
                    self.balance.decoded(event.kind.hook());
                    self.order.push(event);
                }
                Err(_) => self.undecodable += 1,
            }
        }
    }

    /// Tells of events that are in no count.
    fn counted(&mut self, counts: &[(Hook, u64, u64)]) {
        for &(hook, seen, counted) in counts {
            let count = self.balance.more_unaccounted(hook, seen, counted);
            if count > 0 {
                let lost = Lost {
                    mono_ns: mono_now_ns().min(self.ended_ns),
                    hook,
                    why: Why::Unaccounted,
                    count,
                };
                self.tell(&Input::Lost(lost));
            }
        }
    }

    fn release(&mut self, until_ns: u64) {
        let mut order = std::mem::take(&mut self.order);
        order.release(until_ns, |event, later, is_late| {
            let is_over = self.is_counted() || event.mono_ns > self.ended_ns;
            // A reading after the end bounds what was counted until then.
            if is_over && !matches!(event.kind, Kind::Counters(_)) {
                return;
            }
            // A trace that may end at any event does not know what comes.
            if self.count.is_none() {
                let until = later.partition_point(|it| it.mono_ns <= self.ended_ns);
                if self.story.foresees(event, &later[..until]) {
                    self.tell(&Input::Foreseen {});
                }
            }
            if is_late {
                self.tell(&Input::Late {});
            }
            self.asked &= !matches!(event.kind, Kind::Holders(_));
            // Only a recording needs an input of its own.
            self.on_tape(|recorder| recorder.write(&Input::Event(event.clone())));
            self.told(|story, lines| story.event(event, lines));
            if self.is_counted() && self.counted_ns.is_none() {
                self.counted_ns = Some(event.mono_ns);
                self.feedback.stop.notify_one();
            }
        });
        self.order = order;
        if self.story.wants_holders() && !std::mem::replace(&mut self.asked, true) {
            self.feedback.who_listens.notify_one();
        }
        self.flush();
    }

    /// Takes the story on by one input.
    fn tell(&mut self, input: &Input) {
        self.on_tape(|recorder| recorder.write(input));
        self.told(|story, lines| story.tell(input, lines));
    }

    /// Writes the lines that the story tells.
    fn told(&mut self, tell: impl FnOnce(&mut Story, &mut Vec<Line>)) {
        let mut lines = std::mem::take(&mut self.lines);
        tell(&mut self.story, &mut lines);
        loop {
            for line in &mut lines {
                self.put(line);
            }
            lines.clear();
            if !self.story.more(&mut lines) {
                break;
            }
        }
        self.lines = lines;
    }

    /// Whether so many connections have ended as were asked for.
    fn is_counted(&self) -> bool {
        self.count.is_some_and(|count| self.story.closed() >= count)
    }

    fn end(mut self, counts: Vec<(Hook, HookCount)>) -> Outcome {
        self.release(u64::MAX);
        let last = counts
            .iter()
            .map(|(hook, count)| (*hook, count.seen, count.filtered + count.lost));
        self.counted(&last.collect::<Vec<_>>());
        let hooks = counts.into_iter();
        let hooks = hooks
            .map(|(hook, count)| (hook, self.balance.last(hook, count)))
            .collect();
        self.tell(&Input::End(End {
            mono_ns: self.counted_ns.unwrap_or(self.ended_ns),
            hooks,
            undecodable: self.undecodable,
            late: self.order.late(),
        }));
        self.flush();
        Outcome {
            failed: self.failed,
        }
    }

    fn put(&mut self, line: &mut Line) {
        if let Some(subject) = line.subject_mut() {
            subject.container = subject.cgroup.and_then(|id| self.cgroups.container(id));
        }
        if !matches!(line, Line::Session(_) | Line::Preexisting(_)) {
            self.feedback.busy.store(true, Ordering::Relaxed);
        }
        self.each_output(|sink| sink.line(line));
    }

    fn flush(&mut self) {
        self.each_output(|sink| sink.flush());
        self.on_tape(|recorder| recorder.flush());
    }

    fn on_tape(&mut self, act: impl FnOnce(&mut Recorder) -> io::Result<()>) {
        let acted = self.tape.as_mut().map(|tape| act(&mut tape.recorder));
        if let Some(Err(error)) = acted
            && let Some(Tape { name, .. }) = self.tape.take()
        {
            self.fail(name, error);
        }
    }

    /// An output that fails is given up and ends the trace; the others get their summary.
    fn each_output(&mut self, mut act: impl FnMut(&mut dyn Sink) -> io::Result<()>) {
        let mut index = 0;
        while let Some(output) = self.outputs.get_mut(index) {
            match act(output.sink.as_mut()) {
                Ok(()) => index += 1,
                Err(error) => {
                    let Output { name, .. } = self.outputs.remove(index);
                    self.fail(name, error);
                }
            }
        }
    }

    fn fail(&mut self, name: String, error: io::Error) {
        self.failed.push(Failed { name, error });
        self.feedback.stop.notify_one();
    }
}
