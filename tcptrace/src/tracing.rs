//! A running trace: the attached programs, from attaching them to the end.

mod facts;
mod handover;
mod needed;
mod place;
mod plan;
mod planner;
mod progress;
mod stacks;
mod triggers;
mod waits;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, MissedTickBehavior};

pub use self::facts::{filters, kernel_release};
use self::facts::{refused, unseen};
pub use self::handover::Amount;
use self::handover::Handover;
pub use self::needed::Needed;
use self::place::record;
pub use self::place::{Place, To};
pub use self::plan::{Outputs, Plan, Until};
pub use self::progress::Progress;
use self::stacks::Stacks;
pub use self::triggers::Triggers;
use self::waits::{answer, at, due, ended, triggered};
use crate::balance::Counts;
use crate::capture::Capture;
use crate::capture::counters::{CounterReader, Reading};
use crate::capture::iterator::Snapshot;
use crate::clock::mono_now_ns;
use crate::command::Running;
use crate::correlate::Selection;
use crate::depth::Depth;
use crate::event::{Hook, Loss, Note, SnapshotEnd, Why};
use crate::pipeline::{self, Feedback, Outcome, SnapshotTargets};
use crate::privileges::{self, Lookups};
use crate::processes::Processes;
use crate::signals::Signals;
use crate::stdio::say;
use crate::symbols::Symbols;
use crate::trace::{Begin, Settled, Small};

/// Time between two reads of the hooks' counters, which include the lost events.
const LOSS_EVERY: Duration = Duration::from_millis(250);

/// Age of the `seen` counters that are compared with the received events, in counter reads: about a
/// second. By then every program run that counted an event as seen has ended.
const READS_FOR_BALANCE: usize = 4;

/// Interval of the counts of `--depth histogram`.
const TICK_EVERY: Duration = Duration::from_secs(1);

/// Minimum time between two socket snapshots, while snapshots are useful.
const SNAPSHOT_EVERY: Duration = Duration::from_secs(1);

/// A snapshot is followed by a pause of this many times its duration.
const PAUSE_FACTOR: u32 = 20;

/// Minimum time between two searches of all file descriptors.
const HOLDERS_EVERY: Duration = Duration::from_millis(20);

/// How long the pipeline may take to say which namespaces need a socket snapshot at the end of the
/// trace. Without its answer no snapshot is taken.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// Upper bound on the time of one drain while records keep coming, in nanoseconds.
const DRAIN_AT_MOST_NS: u64 = 100_000_000;

/// Time without events after which the hint is shown.
const HINT_AFTER: Duration = Duration::from_secs(3);

/// Upper bound on the socket owners in one input, because a recording stores each input in one
/// block.
const OWNERS_AT_ONCE: usize = 16_384;

/// The attached programs, and the pipeline that processes their records.
pub struct Tracing {
    capture: Capture,
    handover: Handover,
    /// The result of the pipeline; `None` without a pipeline.
    outcome: Option<oneshot::Receiver<Outcome>>,
    feedback: Feedback,
    signals: Signals,
    /// The trace has an input for each second, from which `--depth histogram` makes its lines.
    ticks: bool,
    /// Minimum time between two searches for the owners of listeners.
    holders_every: Duration,
    /// `None` after a reading that failed.
    counters: Option<CounterReader>,
    lookups: Lookups,
    /// Readings of the kernel's counters from before the hooks were attached, until they are passed
    /// on.
    readings_before: Vec<Reading>,
    /// The hooks' counters at the last report of lost events.
    reported: BTreeMap<Hook, Counts>,
    /// The `seen` counters of each hook at the last reads, oldest first.
    seen: VecDeque<BTreeMap<Hook, u64>>,
    /// The hooks' counters that were last sent to the pipeline, which compares them with the events
    /// that it has received.
    settled: BTreeMap<Hook, Settled>,
    /// Snapshots contain every socket that passes the filter. False for filters by user and cgroup,
    /// because a socket's user and cgroup may change.
    can_audit: bool,
}

impl Tracing {
    /// Attaches the hooks, opens the outputs and starts the pipeline. No pipeline is needed if
    /// there is neither an output for lines nor a count.
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
        privileges::allow_current_nice();
        // Install the handlers first: a signal from now on ends the trace normally.
        let signals = Signals::new()?;
        let lookups = Lookups::start()?;
        let mut counters = Some(CounterReader::default());
        let readings_before = read(&mut counters, &lookups, CounterReader::read_all);
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
            unseen: unseen(&capture, request),
            selection,
            reset_reasons: capture.reset_reasons.clone(),
            count,
            lost: 0,
            why_ns: request.why_ns,
        };
        let feedback = Feedback::default();
        let recording = outputs.recording.map(|to| record(to, &begin)).transpose()?;
        let stop = feedback.stop.clone();
        let owners_wanted = feedback.owners_wanted.clone();
        let stacks = match request.why_ns {
            Some(why_ns) => Some(Stacks::new(Symbols::start()?, why_ns)),
            None => None,
        };
        let processes = Processes::new(capture.numbers());
        let mut handover = Handover::new(
            &begin,
            processes,
            recording,
            stacks,
            lookups.clone(),
            stop,
            owners_wanted,
        );
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
                None => SNAPSHOT_EVERY,
            },
            outcome,
            feedback,
            signals,
            ticks: is_recorded || depth == Depth::Histogram,
            counters,
            lookups,
            readings_before,
            reported: BTreeMap::new(),
            seen: VecDeque::new(),
            settled: BTreeMap::new(),
            can_audit: request.filter.users.is_empty() && !request.filter.has_cgroups(),
        })
    }

    /// Gives the pipeline an input each second at any depth.
    pub fn with_ticks(mut self) -> Tracing {
        self.ticks = true;
        self
    }

    /// Traces until a signal, the end of the time, the end of the command, or until the pipeline
    /// asks to stop. Returns the command's status if the command has ended.
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
        self.push_readings(before).await;
        self.read_counters().await;
        let owners_wanted = self.feedback.owners_wanted.clone();
        let (mut holders_at, mut holders_wanted) = (Instant::now(), false);
        self.import().await;
        let mut snapshot_at = Instant::now() + SNAPSHOT_EVERY;
        let mut asked = None;

        loop {
            tokio::select! {
                () = self.capture.ring.due() => {
                    self.drain().await;
                    if self.handover.wants_snapshot() {
                        self.import().await;
                    }
                }
                _ = losses.tick() => {
                    self.capture.follow_containers(&self.lookups);
                    self.report_losses().await?;
                }
                _ = ticks.tick(), if self.ticks => {
                    self.handover.note(mono_now_ns(), Note::Tick).await;
                }
                () = tokio::time::sleep_until(snapshot_at), if asked.is_none() => {
                    // The pipeline may answer late. Draining continues meanwhile.
                    asked = Some(self.handover.ask_targets(mono_now_ns(), false).await);
                }
                worth = answer(&mut asked) => {
                    asked = None;
                    let took = self.take_snapshots(worth).await;
                    snapshot_at = Instant::now() + SNAPSHOT_EVERY.max(took * PAUSE_FACTOR);
                }
                () = owners_wanted.notified() => holders_wanted = true,
                () = tokio::time::sleep_until(holders_at), if holders_wanted => {
                    holders_wanted = false;
                    let took = self.find_owners().await;
                    holders_at = Instant::now() + self.holders_every.max(took * PAUSE_FACTOR);
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
                        progress.update(self.handover.amount());
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

    /// Writes the buffer of the flight recorder.
    fn trigger(&mut self, why: &str) {
        if let Some(path) = self.handover.trigger(mono_now_ns()) {
            say(format_args!("writing {}: {why}", path.display()));
        }
    }

    /// Passes on the listeners and connections that are older than the trace. They are passed on
    /// before the first drain, so they are sorted together with the events since the hooks were
    /// attached.
    async fn import(&mut self) {
        let snapshots = self.capture.snapshots(None, &self.lookups);
        let found = self.capture.holders();
        let (mut owners, listeners) = match found {
            Some(found) => (found.owners, found.listeners.holders),
            None => Default::default(),
        };
        let inodes: BTreeSet<u64> = snapshots
            .iter()
            .flat_map(|it| it.inodes.iter().copied())
            .collect();
        owners.retain(|inode, _| inodes.contains(inode));
        let listening: BTreeSet<u32> = listeners.iter().map(|it| it.task.pid).collect();
        let servers: BTreeSet<u32> = owners.values().map(|it| it.pid).collect();
        self.handover.servers((&servers & &listening).into_iter());
        let until_ns = mono_now_ns();
        loop {
            // More owners are split into several inputs.
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
        for snapshot in snapshots {
            self.push_snapshot(snapshot, false, false).await;
        }
    }

    /// Passes on the snapshot of a namespace.
    async fn push_snapshot(&mut self, snapshot: Snapshot, is_audit: bool, is_last: bool) {
        self.handover
            .records(snapshot.records, snapshot.ended_ns, 0)
            .await;
        let note = SnapshotEnd {
            netns: snapshot.netns,
            began_ns: snapshot.began_ns,
            is_audit,
            is_last,
        };
        self.handover
            .note(snapshot.ended_ns, Note::SnapshotEnd(note))
            .await;
    }

    async fn push_readings(&mut self, readings: Vec<Reading>) {
        for (mono_ns, counters) in readings {
            self.handover.note(mono_ns, Note::Counters(counters)).await;
        }
    }

    /// Takes snapshots of these namespaces and reads their counters. Returns the time that it took.
    async fn take_snapshots(&mut self, mut worth: SnapshotTargets) -> Duration {
        let began = Instant::now();
        if !self.can_audit {
            worth.audit.clear();
        }
        let all = &worth.sockets | &worth.audit;
        if !all.is_empty() {
            for snapshot in self.capture.snapshots(Some(all), &self.lookups) {
                let is_audit = worth.audit.contains(&snapshot.netns);
                self.push_snapshot(snapshot, is_audit, false).await;
            }
        }
        if !worth.counters.is_empty() {
            let only = worth.counters;
            let readings = read(&mut self.counters, &self.lookups, move |it| it.read(&only));
            self.push_readings(readings).await;
        }
        began.elapsed()
    }

    /// Reads the counters of all namespaces.
    async fn read_counters(&mut self) {
        let readings = read(&mut self.counters, &self.lookups, CounterReader::read_all);
        self.push_readings(readings).await;
    }

    /// Finds connections that have ended without a seen event, at the end of the trace.
    async fn final_audit(&mut self) {
        let mut asked = Some(self.handover.ask_targets(mono_now_ns(), true).await);
        loop {
            tokio::select! {
                () = self.capture.ring.due() => { self.drain().await; }
                mut worth = answer(&mut asked) => {
                    worth.sockets.clear();
                    worth.counters.clear();
                    self.take_snapshots(worth).await;
                    return;
                }
            }
        }
    }

    /// Searches the descriptors of all processes for listeners. Returns the time that it took.
    async fn find_owners(&mut self) -> Duration {
        let began = Instant::now();
        if let Some(found) = self.capture.holders() {
            let note = Note::Holders(found.listeners);
            self.handover.note(mono_now_ns(), note).await;
        }
        began.elapsed()
    }

    /// Finds the connections that are still in an accept queue. Only a snapshot proves that no
    /// accept() has returned them.
    async fn snapshot_queues(&mut self) {
        self.drain().await;
        let wanted = self.handover.ask_last_targets().await;
        // A pipeline that is blocked by its reader must not prevent the end of the trace.
        let wanted = tokio::time::timeout(ANSWER_WITHIN, wanted).await;
        let Ok(Ok(namespaces)) = wanted else { return };
        if !namespaces.is_empty() {
            for snapshot in self.capture.snapshots(Some(namespaces), &self.lookups) {
                self.push_snapshot(snapshot, false, true).await;
            }
        }
    }

    /// Returns the notification that ends [`Tracing::trace`].
    pub fn stop(&self) -> Arc<Notify> {
        self.feedback.stop.clone()
    }

    /// Detaches, passes on the remaining records, and waits for the summary.
    pub async fn end(mut self) -> anyhow::Result<Outcome> {
        self.handover.hurry();
        self.final_audit().await;
        self.report_losses().await?;
        self.snapshot_queues().await;
        // The kernel's counters are read before the end of the trace and after it. The two readings
        // bound how much the counters grew during the trace.
        self.read_counters().await;
        // While hooks are being detached, some still see events and others do not.
        let mono_ns = mono_now_ns();
        self.handover.small(Small::Ending { mono_ns }).await;
        self.read_counters().await;
        let counts = self.capture.detach()?;
        // Nothing is attached, so no new records come.
        while !self.drain().await {}
        self.report_losses().await?;
        let mut reported = self.reported.values();
        let lost = reported.any(|count| count.lost > count.lost_calls);
        let counts = counts.into_iter().collect();
        // This is the last message. The pipeline ends after it.
        self.handover.small(Small::End { counts }).await;
        let failed = self.handover.finish();
        let mut outcome = match self.outcome {
            Some(outcome) => outcome.await.context("the pipeline has failed")?,
            None => Outcome::default(),
        };
        outcome.failed.extend(failed);
        outcome.lost = lost;
        Ok(outcome)
    }

    /// Passes on the content of the ring buffer. Returns true if it was emptied.
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
            if self.handover.processes().wants_numbers(&batch, now_ns) {
                let numbers = self.capture.numbers();
                self.handover.processes().set_numbers(numbers);
            }
            self.handover.records(batch, now_ns, complete_ns).await;
            // Fast writers must not keep this loop running forever.
            if emptied || now_ns - drained_ns > DRAIN_AT_MOST_NS {
                self.capture.print_log();
                return emptied;
            }
        }
    }

    /// Sends the `seen` counters of a second ago to the pipeline, which compares them with the
    /// events that it has received. The program runs that incremented these counters have ended.
    async fn check_balance(&mut self, mono_ns: u64, counters: &[(Hook, Counts)]) {
        let seen = counters.iter().map(|(hook, count)| (*hook, count.seen));
        self.seen.push_back(seen.collect());
        if self.seen.len() <= READS_FOR_BALANCE {
            return;
        }
        let Some(seen) = self.seen.pop_front() else {
            return;
        };
        // The check needs an empty ring buffer, because records in it are neither received nor
        // lost.
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

    /// Reads the hooks' counters, reports lost events, and lets the pipeline check for missing
    /// records.
    async fn report_losses(&mut self) -> anyhow::Result<()> {
        let counters = self.capture.counters()?;
        let mono_ns = mono_now_ns();
        self.check_balance(mono_ns, &counters).await;
        for (hook, count) in counters {
            let reported = self.reported.insert(hook, count).unwrap_or_default();
            let missed = |count: &Counts| count.recursion_misses.unwrap_or(0);
            if missed(&count) > missed(&reported) {
                self.handover.note(mono_ns, Note::Missed).await;
            }
            let calls = count.lost_calls.saturating_sub(reported.lost_calls);
            // `lost` and `lost_calls` are not read atomically, so a lost accept() call may be
            // counted in only one of them.
            let records = count.lost.saturating_sub(reported.lost + calls);
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

/// Reads counters on the thread for lookups.
fn read(
    counters: &mut Option<CounterReader>,
    lookups: &Lookups,
    read: impl FnOnce(&mut CounterReader) -> Vec<Reading> + Send + 'static,
) -> Vec<Reading> {
    let Some(mut reader) = counters.take() else {
        return vec![];
    };
    let done = lookups.run(move || {
        let readings = read(&mut reader);
        (reader, readings)
    });
    let Some((reader, readings)) = done else {
        return vec![];
    };
    *counters = Some(reader);
    readings
}
