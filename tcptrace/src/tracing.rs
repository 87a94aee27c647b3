//! The programs at their hooks, from attaching them to the end of the trace.

mod handover;
mod place;
mod progress;
mod sightings;
mod triggers;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, MissedTickBehavior};

pub use self::handover::Amount;
use self::handover::Handover;
use self::place::record;
pub use self::place::{Place, To};
pub use self::progress::Progress;
pub use self::triggers::Triggers;
use crate::balance::Counts;
use crate::capture::counters::{CounterReader, Reading};
use crate::capture::iterator::Look;
use crate::capture::{Capture, Request};
use crate::clock::{Clock, mono_now_ns};
use crate::command::Running;
use crate::correlate::Selection;
use crate::depth::Depth;
use crate::event::{Hook, Looked, Loss, Note, Why};
use crate::fields::Refusal;
use crate::filter::Filter;
use crate::pipeline::{self, Feedback, Outcome, Output, WorthALook};
use crate::signals::Signals;
use crate::stdio::say;
use crate::trace::{Begin, Refused, Settled, Small};

/// How often the loss counters are looked at.
const LOSS_EVERY: Duration = Duration::from_millis(250);

/// So many looks at the counters later, no program is running any more that had counted an event as
/// seen: a second.
const LOOKS_FOR_BALANCE: usize = 4;

/// How often the counts of `--depth histogram` are told.
const TICK_EVERY: Duration = Duration::from_secs(1);

/// How often the kernel's sockets are looked through while that can tell something.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A look that takes long is followed by a pause of so many times as much.
const LOOK_SHARE: u32 = 20;

/// The descriptors of all processes are not looked through more often than this.
const HOLDERS_EVERY: Duration = Duration::from_millis(20);

/// How long the pipeline may take to say where to look at the end.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// How long one drain may go on while records keep coming.
const DRAIN_AT_MOST_NS: u64 = 100_000_000;

/// When to say that nothing has happened.
const HINT_AFTER: Duration = Duration::from_secs(3);

/// The owners of sockets that go into one input.
const OWNERS_AT_ONCE: usize = 16_384;

/// What to trace.
pub struct Plan<'a> {
    pub request: &'a Request,
    pub clock: Clock,
    pub selection: Selection,
    pub depth: Depth,
    /// The trace ends when so many connections have ended.
    pub count: Option<u64>,
}

/// Where a trace goes.
#[derive(Default)]
pub struct Outputs {
    pub lines: Vec<Output>,
    pub recording: Option<To>,
}

/// When a trace ends by itself.
#[derive(Default)]
pub struct Until {
    pub duration: Option<Duration>,
    /// Printed once if nothing happens for a while.
    pub hint: Option<String>,
    /// Told now and then how much has been recorded.
    pub progress: Option<Progress>,
    /// Has the stretch written that a flight recorder keeps.
    pub triggers: Option<Triggers>,
}

/// The programs at their hooks and the pipeline that takes their records.
pub struct Tracing {
    capture: Capture,
    handover: Handover,
    /// Where there is a pipeline.
    outcome: Option<oneshot::Receiver<Outcome>>,
    feedback: Feedback,
    signals: Signals,
    /// Whether somebody wants to know that a second has passed.
    ticks: bool,
    /// How often it may be looked who has the listeners.
    holders_every: Duration,
    counters: CounterReader,
    /// Their readings from before the hooks were attached, until they are handed over.
    readings_before: Vec<Reading>,
    /// The counters when losses were last told.
    told: BTreeMap<Hook, Counts>,
    /// What each hook had seen at the last looks at the counters.
    seen: VecDeque<BTreeMap<Hook, u64>>,
    /// What was handed over of that last.
    settled: BTreeMap<Hook, Settled>,
    /// Whether a look finds each socket that the filter lets through. A socket's user and cgroup may
    /// change.
    can_audit: bool,
}

impl Tracing {
    /// Attaches the hooks, opens the outputs and starts the pipeline. There is none where nobody wants lines
    /// or their count.
    pub fn start(
        plan: Plan<'_>,
        open: impl FnOnce() -> anyhow::Result<Outputs>,
    ) -> anyhow::Result<Tracing> {
        let Plan {
            request,
            clock,
            selection,
            depth,
            count,
        } = plan;
        // Before attaching: a signal from now on ends the trace in good order.
        let signals = Signals::new()?;
        let mut counters = CounterReader::default();
        let readings_before = counters.read_all();
        let mut capture = Capture::start(request)?;
        let conditions = filters(&request.filter, &selection);
        let selection = Selection {
            pids: capture.kernels_pids(&selection.pids)?,
            ..selection
        };
        let outputs = open()?;
        let needs_pipeline = !outputs.lines.is_empty() || count.is_some();
        let is_recorded = outputs.recording.is_some();
        let begin = Begin {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            abi: tcptrace_ebpf::abi::VERSION,
            big_endian: cfg!(target_endian = "big"),
            kernel: kernel_release(),
            machine: std::env::consts::ARCH.to_owned(),
            clock_offset_ns: clock.offset_ns(),
            mono_ns: capture.attached_ns,
            depth,
            hooks: capture.methods(),
            refused: refused(&capture),
            filters: conditions,
            unseen: capture.unseen(),
            selection,
            reset_reasons: capture.reset_reasons.clone(),
            count,
            lost: 0,
        };
        let feedback = Feedback::default();
        let recording = outputs.recording.map(|to| record(to, &begin)).transpose()?;
        let stop = feedback.stop.clone();
        let who_listens = feedback.who_listens.clone();
        let mut handover = Handover::new(&begin, recording, stop, who_listens);
        let outcome = match needs_pipeline {
            true => {
                let (feed, outcome) = pipeline::spawn(begin, outputs.lines, feedback.clone())?;
                handover.feed(feed);
                Some(outcome)
            }
            false => None,
        };
        Ok(Tracing {
            capture,
            handover,
            holders_every: match outcome {
                Some(_) => HOLDERS_EVERY,
                None => LOOK_EVERY,
            },
            outcome,
            feedback,
            signals,
            ticks: is_recorded || depth == Depth::Histogram,
            counters,
            readings_before,
            told: BTreeMap::new(),
            seen: VecDeque::new(),
            settled: BTreeMap::new(),
            can_audit: request.filter.users.is_empty() && request.filter.cgroups.is_empty(),
        })
    }

    /// Traces until a signal, the end of the time, of the command, or what the pipeline was asked
    /// for. Gives the command's status if that was it.
    pub async fn trace(
        &mut self,
        until: Until,
        command: Option<&mut Running>,
    ) -> anyhow::Result<Option<ExitStatus>> {
        let deadline = until.duration.map(|duration| Instant::now() + duration);
        let mut hint = until.hint.map(|hint| (Instant::now() + HINT_AFTER, hint));
        let mut losses = tokio::time::interval(LOSS_EVERY);
        losses.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut progress = until.progress;
        let mut triggers = until.triggers;
        let mut ticks = tokio::time::interval(TICK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let ended = ended(command);
        tokio::pin!(ended);
        let stop = self.feedback.stop.clone();
        let before = std::mem::take(&mut self.readings_before);
        self.counters_read(before).await;
        self.read_counters().await;
        let who_listens = self.feedback.who_listens.clone();
        let (mut holders_at, mut holders_wanted) = (Instant::now(), false);
        self.import().await;
        let mut look_at = Instant::now() + LOOK_EVERY;
        let mut asked = None;

        loop {
            tokio::select! {
                () = self.capture.ring.due() => {
                    self.drain().await;
                    if self.handover.wants_snapshot() {
                        self.import().await;
                    }
                }
                _ = losses.tick() => self.tell_losses().await?,
                _ = ticks.tick(), if self.ticks => {
                    self.handover.note(mono_now_ns(), Note::Tick).await;
                }
                () = tokio::time::sleep_until(look_at), if asked.is_none() => {
                    // The pipeline answers when it comes to it; the draining goes on.
                    asked = Some(self.handover.where_to_look(mono_now_ns(), false).await);
                }
                worth = answer(&mut asked) => {
                    asked = None;
                    let took = self.look_again(worth).await;
                    look_at = Instant::now() + LOOK_EVERY.max(took * LOOK_SHARE);
                }
                () = who_listens.notified() => holders_wanted = true,
                () = tokio::time::sleep_until(holders_at), if holders_wanted => {
                    holders_wanted = false;
                    let took = self.look_for_holders().await;
                    holders_at = Instant::now() + self.holders_every.max(took * LOOK_SHARE);
                }
                () = at(hint.as_ref().map(|(at, _)| *at)) => {
                    if let Some((_, hint)) = hint.take()
                        && !self.feedback.busy.load(Ordering::Relaxed)
                    {
                        say(hint);
                    }
                }
                () = due(&mut progress) => {
                    if let Some(progress) = &mut progress {
                        progress.tell(self.handover.amount());
                    }
                }
                why = triggered(&mut triggers) => self.trigger(&why),
                () = at(deadline) => return Ok(None),
                () = stop.notified() => return Ok(None),
                () = self.signals.first() => return Ok(None),
                status = &mut ended => return Ok(Some(status?)),
            }
        }
    }

    /// Has the stretch written that is kept in memory.
    fn trigger(&mut self, why: &str) {
        if let Some(path) = self.handover.trigger(mono_now_ns()) {
            say(format_args!("writing {}: {why}", path.display()));
        }
    }

    /// Tells of the listeners and connections that are older than the trace. Their records come
    /// before the first drain, so they are put in order with the events of the meantime.
    async fn import(&mut self) {
        let looks = self.capture.look(None);
        let found = self.capture.holders();
        let mut owners = found.map(|found| found.owners).unwrap_or_default();
        let inodes: BTreeSet<u64> = looks
            .iter()
            .flat_map(|it| it.inodes.iter().copied())
            .collect();
        owners.retain(|inode, _| inodes.contains(inode));
        let until_ns = mono_now_ns();
        loop {
            // In pieces, because a recording keeps each in one block.
            let rest = match owners.keys().nth(OWNERS_AT_ONCE).copied() {
                Some(next) => owners.split_off(&next),
                None => BTreeMap::new(),
            };
            let owners_of_some = std::mem::replace(&mut owners, rest);
            let import = Small::Import {
                owners: owners_of_some,
                until_ns,
            };
            self.handover.small(import).await;
            if owners.is_empty() {
                break;
            }
        }
        for look in looks {
            self.looked(look, false, false).await;
        }
    }

    /// Hands over what a look through the sockets of a namespace has found.
    async fn looked(&mut self, look: Look, is_audit: bool, is_last: bool) {
        self.handover.records(look.found, look.ended_ns, 0).await;
        let looked = Looked {
            netns: look.netns,
            began_ns: look.began_ns,
            is_audit,
            is_last,
        };
        self.handover
            .note(look.ended_ns, Note::Looked(looked))
            .await;
    }

    async fn counters_read(&mut self, readings: Vec<Reading>) {
        for (mono_ns, counters) in readings {
            self.handover.note(mono_ns, Note::Counters(counters)).await;
        }
    }

    /// Looks through the sockets of these namespaces, and reads the counters of those; how long
    /// that took.
    async fn look_again(&mut self, mut worth: WorthALook) -> Duration {
        let began = Instant::now();
        if !self.can_audit {
            worth.audit.clear();
        }
        let all = &worth.sockets | &worth.audit;
        if !all.is_empty() {
            for look in self.capture.look(Some(&all)) {
                let is_audit = worth.audit.contains(&look.netns);
                self.looked(look, is_audit, false).await;
            }
        }
        if !worth.counters.is_empty() {
            let readings = self.counters.read(&worth.counters);
            self.counters_read(readings).await;
        }
        began.elapsed()
    }

    /// Reads the counters of all namespaces.
    async fn read_counters(&mut self) {
        let readings = self.counters.read_all();
        self.counters_read(readings).await;
    }

    /// Finds out which of the connections that the trace takes for open are gone.
    async fn look_at_last(&mut self) {
        let mut asked = Some(self.handover.where_to_look(mono_now_ns(), true).await);
        loop {
            tokio::select! {
                () = self.capture.ring.due() => { self.drain().await; }
                mut worth = answer(&mut asked) => {
                    worth.sockets.clear();
                    worth.counters.clear();
                    self.look_again(worth).await;
                    return;
                }
            }
        }
    }

    /// Looks through the descriptors of all processes for those of listeners; how long that took.
    async fn look_for_holders(&mut self) -> Duration {
        let began = Instant::now();
        if let Some(found) = self.capture.holders() {
            let note = Note::Holders(found.listeners);
            self.handover.note(mono_now_ns(), note).await;
        }
        began.elapsed()
    }

    /// Looks which connections are still in an accept queue: only that shows that no accept() has
    /// taken them.
    async fn look_last(&mut self) {
        self.drain().await;
        let wanted = self.handover.where_to_look_last().await;
        // A pipeline whose reader does not read must not keep the trace from its end.
        let wanted = tokio::time::timeout(ANSWER_WITHIN, wanted).await;
        let Ok(Ok(namespaces)) = wanted else { return };
        if !namespaces.is_empty() {
            for look in self.capture.look(Some(&namespaces)) {
                self.looked(look, false, true).await;
            }
        }
    }

    /// Notified, it ends [`Tracing::trace`].
    pub fn stop(&self) -> Arc<Notify> {
        self.feedback.stop.clone()
    }

    /// Detaches, takes what is left, and waits for the summary to be written.
    pub async fn end(mut self) -> anyhow::Result<Outcome> {
        self.handover.hurry();
        self.look_at_last().await;
        self.tell_losses().await?;
        self.look_last().await;
        // One reading before the end, and one after it.
        self.read_counters().await;
        // Detaching takes a while, in which some hooks still see and others do not.
        let mono_ns = mono_now_ns();
        self.handover.small(Small::Ending { mono_ns }).await;
        self.read_counters().await;
        let counts = self.capture.detach()?;
        // Nothing is attached any more, so this comes to an end.
        while !self.drain().await {}
        self.tell_losses().await?;
        let counts = counts.into_iter().collect();
        // The pipeline outlives every message but this one.
        self.handover.small(Small::End { counts }).await;
        let failed = self.handover.finish();
        let mut outcome = match self.outcome {
            Some(outcome) => outcome.await.context("the pipeline has failed")?,
            None => Outcome::default(),
        };
        outcome.failed.extend(failed);
        Ok(outcome)
    }

    /// Hands over what is in the ring buffer; true when that emptied it.
    async fn drain(&mut self) -> bool {
        let drained_ns = mono_now_ns();
        self.capture.ring.mark();
        loop {
            let (batch, emptied) = self.capture.ring.drain();
            let complete_ns = match emptied {
                true => self.capture.ring.complete_until(),
                false => 0,
            };
            let now_ns = mono_now_ns();
            self.handover.records(batch, now_ns, complete_ns).await;
            // Writers that are faster than this reader must not keep it here for ever.
            if emptied || now_ns - drained_ns > DRAIN_AT_MOST_NS {
                self.capture.print_log();
                return emptied;
            }
        }
    }

    /// Has the pipeline compare what the hooks had seen a while ago, whose programs are over, with what
    /// has become of it.
    async fn check_balance(&mut self, mono_ns: u64, counters: &[(Hook, Counts)]) {
        let seen = counters.iter().map(|(hook, count)| (*hook, count.seen));
        self.seen.push_back(seen.collect());
        if self.seen.len() <= LOOKS_FOR_BALANCE {
            return;
        }
        let Some(seen) = self.seen.pop_front() else {
            return;
        };
        // Of what is still in the buffers nobody knows yet.
        if self.drain().await {
            let counts = counters.iter().filter_map(|(hook, count)| {
                let settled = Settled {
                    seen: *seen.get(hook)?,
                    filtered_or_lost: count.filtered + count.lost,
                };
                Some((*hook, settled))
            });
            let counts: BTreeMap<Hook, Settled> = counts.collect();
            if counts != self.settled {
                self.settled = counts.clone();
                self.handover
                    .small(Small::Counted { mono_ns, counts })
                    .await;
            }
        }
    }

    /// Looks at the counters: tells what has been lost, and has the pipeline check what it has received.
    async fn tell_losses(&mut self) -> anyhow::Result<()> {
        let counters = self.capture.counters()?;
        let mono_ns = mono_now_ns();
        self.check_balance(mono_ns, &counters).await;
        for (hook, count) in counters {
            let told = self.told.insert(hook, count).unwrap_or_default();
            let missed = |count: &Counts| count.recursion_misses.unwrap_or(0);
            if missed(&count) > missed(&told) {
                self.handover.note(mono_ns, Note::Missed).await;
            }
            let calls = count.lost_calls.saturating_sub(told.lost_calls);
            // The counters are not read at one moment, so a call may be counted as one only.
            let records = count.lost.saturating_sub(told.lost + calls);
            for (why, count) in [(Why::RingBufferFull, records), (Why::TooManyCalls, calls)] {
                if count > 0 {
                    let loss = Loss { hook, why, count };
                    self.handover.note(mono_ns, Note::Lost(loss)).await;
                }
            }
        }
        Ok(())
    }
}

/// The answer to a question, if one was asked. A pipeline that is gone has none.
async fn answer(asked: &mut Option<oneshot::Receiver<WorthALook>>) -> WorthALook {
    match asked {
        Some(answer) => answer.await.unwrap_or_default(),
        None => std::future::pending().await,
    }
}

/// `uname -r`.
pub fn kernel_release() -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    release.trim().to_owned()
}

async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

async fn ended(command: Option<&mut Running>) -> io::Result<ExitStatus> {
    match command {
        Some(command) => command.ended().await,
        None => std::future::pending().await,
    }
}

/// All conditions by name, whoever decides them.
pub fn filters(filter: &Filter, selection: &Selection) -> BTreeMap<String, String> {
    let conditions = filter.describe().into_iter().chain(selection.describe());
    conditions
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

/// The attach methods that were refused, by hook.
fn refused(capture: &Capture) -> BTreeMap<Hook, Vec<Refused>> {
    let refused = |it: Refusal| Refused {
        method: it.method,
        reason: it.refusal,
    };
    let hooks = capture.refused().into_iter();
    hooks
        .map(|(hook, all)| (hook, all.into_iter().map(refused).collect()))
        .collect()
}

/// Waits for a trigger, and says what it is.
async fn triggered(triggers: &mut Option<Triggers>) -> String {
    match triggers {
        Some(triggers) => triggers.next().await,
        None => std::future::pending().await,
    }
}

/// Waits until progress is to be told.
async fn due(progress: &mut Option<Progress>) {
    match progress {
        Some(progress) => progress.due().await,
        None => std::future::pending().await,
    }
}
