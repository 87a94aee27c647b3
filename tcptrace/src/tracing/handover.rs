//! The distribution of a trace's inputs: to a recording, to the pipeline, or to both.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{Notify, oneshot};

use super::planner::SnapshotPlanner;
use super::stacks::Stacks;
use crate::batch::Batch;
use crate::cgroups::Cgroups;
use crate::decode::peek;
use crate::event::Note;
use crate::files;
use crate::order::HOLD_BACK_NS;
use crate::pipeline::{Failed, Feed, Message, SnapshotTargets};
use crate::privileges::Lookups;
use crate::processes::Processes;
use crate::recording::Recorder;
use crate::recording::parts::Parts;
use crate::trace::{Begin, Input, Small};

/// Upper bound on the stacks in one input, because a recording stores each input in one block.
const STACKS_AT_ONCE: usize = 16;

/// Upper bound on the servers whose symbols are read before one of their threads accepts.
const SERVERS: usize = 64;

/// A recording with its name for error messages.
pub struct Recording {
    pub name: String,
    pub store: Store,
}

/// The file or files of a recording.
pub enum Store {
    File(Recorder),
    Parts(Box<Parts>),
}

impl Store {
    fn input(&mut self, input: &Input) -> io::Result<()> {
        match self {
            Store::File(recorder) => recorder.input(input),
            Store::Parts(parts) => parts.input(input),
        }
    }

    fn flush(&mut self, now_ns: u64, complete_ns: u64) -> io::Result<()> {
        match self {
            Store::File(recorder) => recorder.flush(),
            Store::Parts(parts) => parts.flush(now_ns, complete_ns),
        }
    }

    fn bytes(&self) -> u64 {
        match self {
            Store::File(recorder) => recorder.bytes(),
            Store::Parts(parts) => parts.bytes(),
        }
    }

    fn finish(self) -> io::Result<()> {
        match self {
            Store::File(recorder) => recorder.finish(),
            Store::Parts(_) => Ok(()),
        }
    }
}

/// The amount of recorded data so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Amount {
    pub records: u64,
    /// Bytes of the recording, before compression.
    pub bytes: u64,
    /// Events that the hooks have lost.
    pub lost: u64,
}

/// Passes the inputs of a trace on, in order.
pub struct Handover {
    cgroups: Cgroups,
    processes: Processes,
    recording: Option<Recording>,
    feed: Option<Feed>,
    planner: SnapshotPlanner,
    /// Finds the functions of stacks. `None` without `--why`.
    stacks: Option<Stacks>,
    failed: Option<Failed>,
    /// Ends the trace when notified.
    stop: Arc<Notify>,
    /// Requests a search for the owners of listeners when notified.
    owners_wanted: Arc<Notify>,
    amount: Amount,
    /// The latest time of all records and notes so far.
    latest_ns: u64,
    /// The latest time up to which all records have been passed on.
    complete_ns: u64,
}

impl Handover {
    pub fn new(
        begin: &Begin,
        processes: Processes,
        recording: Option<Recording>,
        stacks: Option<Stacks>,
        lookups: Lookups,
        stop: Arc<Notify>,
        owners_wanted: Arc<Notify>,
    ) -> Handover {
        Handover {
            cgroups: Cgroups::new(lookups),
            processes,
            recording,
            feed: None,
            planner: SnapshotPlanner::new(begin),
            stacks,
            failed: None,
            stop,
            owners_wanted,
            amount: Amount::default(),
            latest_ns: begin.mono_ns,
            complete_ns: 0,
        }
    }

    /// Also sends all further inputs to a pipeline.
    pub fn feed(&mut self, feed: Feed) {
        self.feed = Some(feed);
    }

    /// Passes on records that were drained until `now_ns`. All records older than
    /// `complete_until_ns` have then been passed on; 0 if that is unknown.
    pub async fn records(&mut self, batch: Batch, now_ns: u64, complete_until_ns: u64) {
        if !batch.is_empty() {
            self.latest_ns = self.latest_ns.max(now_ns);
            self.inspect(&batch, now_ns).await;
        }
        self.resolve(now_ns).await;
        if batch.is_empty() {
            // Without new records, a later `complete_until_ns` only matters until the pipeline has
            // released all records that it holds back.
            let is_news = self.complete_ns < self.latest_ns + HOLD_BACK_NS;
            if !is_news || complete_until_ns <= self.complete_ns {
                return;
            }
        }
        self.complete_ns = self.complete_ns.max(complete_until_ns);
        let records = Input::Records {
            batch,
            complete_until_ns,
        };
        self.input(records).await;
        if complete_until_ns > 0 {
            self.write(|store| store.flush(now_ns, complete_until_ns));
        }
    }

    pub async fn note(&mut self, mono_ns: u64, note: Note) {
        self.latest_ns = self.latest_ns.max(mono_ns);
        match &note {
            Note::Lost(loss) => {
                self.amount.lost += loss.count;
                self.planner.lost(mono_ns);
                self.processes.forget();
            }
            Note::Missed => {
                self.planner.lost(mono_ns);
                self.processes.forget();
            }
            Note::Holders(found) => {
                self.planner.owners_searched(mono_ns);
                let pids = found.holders.iter().map(|it| it.task.pid);
                pids.for_each(|pid| self.processes.look_up_holder(pid));
                self.tell_processes(mono_ns).await;
            }
            _ => {}
        }
        self.input(Input::note(mono_ns, note)).await;
    }

    pub async fn small(&mut self, small: Small) {
        if let Small::Import { owners, until_ns } = &small {
            let pids = owners.values().map(|it| it.pid);
            pids.for_each(|pid| self.processes.look_up_holder(pid));
            self.tell_processes(*until_ns).await;
        }
        self.input(small.into()).await;
    }

    /// Announces processes that listen.
    pub fn servers(&self, pids: impl Iterator<Item = u32>) {
        if let Some(stacks) = &self.stacks {
            pids.take(SERVERS).for_each(|pid| stacks.prepare(pid));
        }
    }

    /// The processes that have been seen.
    pub fn processes(&mut self) -> &mut Processes {
        &mut self.processes
    }

    async fn tell_processes(&mut self, now_ns: u64) {
        if let Some(processes) = self.processes.take(now_ns) {
            self.input(processes.into()).await;
        }
    }

    /// Reads the fields that are needed before decoding: cgroups, processes, and hints for snapshots.
    async fn inspect(&mut self, batch: &Batch, now_ns: u64) {
        let mut containers = BTreeMap::new();
        for record in batch.records() {
            self.amount.records += 1;
            self.processes.note(record, now_ns);
            if let Some(peek) = peek(record) {
                self.cgroups.note(peek.cgroup(), &mut containers);
                self.planner.see(peek);
                if let Some(stacks) = &mut self.stacks {
                    stacks.see(peek, record);
                }
            }
        }
        if self.feed.is_none() && self.planner.wants_owners() {
            self.owners_wanted.notify_one();
        }
        if !containers.is_empty() {
            self.input(Small::Containers(containers).into()).await;
        }
        self.tell_processes(now_ns).await;
    }

    /// Passes on the stacks whose functions have been found until `now_ns`.
    async fn resolve(&mut self, now_ns: u64) {
        let Some(stacks) = &mut self.stacks else {
            return;
        };
        let stacks = stacks.take(now_ns).await;
        for stacks in stacks.chunks(STACKS_AT_ONCE) {
            self.input(Small::Stacks(stacks.to_vec()).into()).await;
        }
    }

    async fn input(&mut self, input: Input) {
        self.write(|store| store.input(&input));
        if let Some(feed) = &mut self.feed {
            feed.send(Message::Input(input)).await;
        }
    }

    /// Writes to the recording. On an error, closes it and ends the trace.
    fn write(&mut self, act: impl FnOnce(&mut Store) -> io::Result<()>) {
        let Some(recording) = &mut self.recording else {
            return;
        };
        let done = act(&mut recording.store);
        self.amount.bytes = recording.store.bytes();
        if let Err(error) = done
            && let Some(Recording { name, .. }) = self.recording.take()
        {
            self.failed = Some(Failed { name, error });
            self.stop.notify_one();
        }
    }

    /// Asks which namespaces need a snapshot at `mono_ns` (CLOCK_MONOTONIC, nanoseconds).
    pub async fn ask_targets(
        &mut self,
        mono_ns: u64,
        is_last: bool,
    ) -> oneshot::Receiver<SnapshotTargets> {
        let (answer, wanted) = oneshot::channel();
        match &mut self.feed {
            Some(feed) => {
                let question = Message::Targets {
                    mono_ns,
                    is_last,
                    answer,
                };
                feed.send(question).await;
            }
            None => {
                // The receiver exists, so this cannot fail.
                let _ = answer.send(self.planner.targets(mono_ns, is_last));
            }
        }
        wanted
    }

    /// Asks in which namespaces connections may still be in an accept queue.
    pub async fn ask_last_targets(&mut self) -> oneshot::Receiver<BTreeSet<u32>> {
        let (answer, wanted) = oneshot::channel();
        match &mut self.feed {
            Some(feed) => feed.send(Message::LastTargets(answer)).await,
            None => {
                let _ = answer.send(self.planner.namespaces());
            }
        }
        wanted
    }

    /// Writes the flight recorder's buffer. Returns the path if that begins a file.
    pub fn trigger(&mut self, now_ns: u64) -> Option<PathBuf> {
        let mut path = None;
        self.write(|store| {
            if let Store::Parts(parts) = store {
                path = parts.trigger(now_ns)?;
            }
            Ok(())
        });
        path
    }

    /// Returns true once for each new file that needs a snapshot of older sockets.
    pub fn wants_snapshot(&mut self) -> bool {
        match &mut self.recording {
            Some(Recording {
                store: Store::Parts(parts),
                ..
            }) => parts.wants_snapshot(),
            _ => false,
        }
    }

    /// Returns the recording if it begins files later.
    fn parts(&self) -> Option<&Parts> {
        match &self.recording {
            Some(Recording {
                store: Store::Parts(parts),
                ..
            }) => Some(parts),
            _ => None,
        }
    }

    /// Returns the folder of files that are begun later.
    pub fn folder(&self) -> Option<PathBuf> {
        self.parts().map(|parts| parts.folder().to_owned())
    }

    /// Returns whether the process may create such files.
    pub fn may_create(&self) -> bool {
        self.parts().is_none_or(Parts::may_create)
    }

    /// Returns whether such files get another owner.
    pub fn gives_files(&self) -> bool {
        self.parts().is_some() && files::caller_of_sudo().is_some()
    }

    /// Announces that a caller waits for the end of the trace.
    pub fn hurry(&mut self) {
        if let Some(feed) = &mut self.feed {
            feed.hurry();
        }
    }

    pub fn amount(&self) -> Amount {
        self.amount
    }

    /// Finishes the recording after the last input. Returns the output that failed, if any.
    pub fn finish(self) -> Option<Failed> {
        if let Some(Recording { name, store }) = self.recording
            && let Err(error) = store.finish()
        {
            return Some(Failed { name, error });
        }
        self.failed
    }
}
