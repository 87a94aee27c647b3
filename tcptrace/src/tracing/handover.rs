//! Where the inputs of a trace go: into a recording, to the pipeline, or both.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{Notify, oneshot};

use super::sightings::Sightings;
use crate::batch::Batch;
use crate::cgroups::Cgroups;
use crate::decode::glimpse;
use crate::event::Note;
use crate::order::HOLD_BACK_NS;
use crate::pipeline::{Failed, Feed, Message, WorthALook};
use crate::recording::Recorder;
use crate::recording::parts::Parts;
use crate::trace::{Begin, Input, Small};

/// A recording, and what to call it when it cannot be written.
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

/// What has been handed over so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Amount {
    pub records: u64,
    /// Bytes of the recording.
    pub bytes: u64,
    /// Events that the hooks have lost.
    pub lost: u64,
}

/// Takes the inputs of a trace, in order.
pub struct Handover {
    cgroups: Cgroups,
    recording: Option<Recording>,
    feed: Option<Feed>,
    sightings: Sightings,
    failed: Option<Failed>,
    /// Notified, it ends the trace.
    stop: Arc<Notify>,
    /// Notified, it asks who has the listeners.
    who_listens: Arc<Notify>,
    amount: Amount,
    /// No record or note that was handed over is later than this.
    latest_ns: u64,
    /// The last time until which everything was said to be complete.
    complete_ns: u64,
}

impl Handover {
    pub fn new(
        begin: &Begin,
        recording: Option<Recording>,
        stop: Arc<Notify>,
        who_listens: Arc<Notify>,
    ) -> Handover {
        Handover {
            cgroups: Cgroups::new(),
            recording,
            feed: None,
            sightings: Sightings::new(begin),
            failed: None,
            stop,
            who_listens,
            amount: Amount::default(),
            latest_ns: begin.mono_ns,
            complete_ns: 0,
        }
    }

    /// From now on the inputs go to a pipeline, too.
    pub fn feed(&mut self, feed: Feed) {
        self.feed = Some(feed);
    }

    /// Hands over records that were drained up to `now_ns`. Everything that was written before
    /// `complete_until_ns` has been handed over with them; 0 when that is not known.
    pub async fn records(&mut self, batch: Batch, now_ns: u64, complete_until_ns: u64) {
        if batch.is_empty() {
            // Everything that is there has been released already.
            let is_news = self.complete_ns < self.latest_ns + HOLD_BACK_NS;
            if !is_news || complete_until_ns <= self.complete_ns {
                return;
            }
        } else {
            self.latest_ns = self.latest_ns.max(now_ns);
            self.look_at(&batch).await;
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
                self.sightings.lost(mono_ns);
            }
            Note::Missed => self.sightings.lost(mono_ns),
            Note::Holders(_) => self.sightings.looked_for_holders(mono_ns),
            _ => {}
        }
        self.input(Input::note(mono_ns, note)).await;
    }

    pub async fn small(&mut self, small: Small) {
        self.input(small.into()).await;
    }

    /// Looks for what is worth knowing before the records are decoded.
    async fn look_at(&mut self, batch: &Batch) {
        let mut containers = BTreeMap::new();
        for record in batch.records() {
            self.amount.records += 1;
            if let Some(glimpse) = glimpse(record) {
                self.cgroups.note(glimpse.cgroup(), &mut containers);
                self.sightings.see(glimpse);
            }
        }
        if self.feed.is_none() && self.sightings.wants_holders() {
            self.who_listens.notify_one();
        }
        if !containers.is_empty() {
            self.input(Small::Containers(containers).into()).await;
        }
    }

    async fn input(&mut self, input: Input) {
        self.write(|store| store.input(&input));
        if let Some(feed) = &mut self.feed {
            feed.send(Message::Input(input)).await;
        }
    }

    /// A recording that cannot be written is given up, and ends the trace.
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

    /// Asks where a look can tell something at a time (CLOCK_MONOTONIC, nanoseconds).
    pub async fn where_to_look(
        &mut self,
        mono_ns: u64,
        is_last: bool,
    ) -> oneshot::Receiver<WorthALook> {
        let (answer, wanted) = oneshot::channel();
        match &mut self.feed {
            Some(feed) => {
                let question = Message::WhereToLook {
                    mono_ns,
                    is_last,
                    answer,
                };
                feed.send(question).await;
            }
            None => {
                // The receiver is right here.
                let _ = answer.send(self.sightings.worth_a_look(mono_ns, is_last));
            }
        }
        wanted
    }

    /// Asks in which namespaces connections may be in an accept queue at the end.
    pub async fn where_to_look_last(&mut self) -> oneshot::Receiver<BTreeSet<u32>> {
        let (answer, wanted) = oneshot::channel();
        match &mut self.feed {
            Some(feed) => feed.send(Message::WhereToLookLast(answer)).await,
            None => {
                let _ = answer.send(self.sightings.namespaces());
            }
        }
        wanted
    }

    /// Has the stretch that is kept written; the file, if that begins one.
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

    /// Whether a file of the recording has begun that lacks a snapshot of the sockets older than it.
    pub fn wants_snapshot(&mut self) -> bool {
        match &mut self.recording {
            Some(Recording {
                store: Store::Parts(parts),
                ..
            }) => parts.wants_snapshot(),
            _ => false,
        }
    }

    /// From now on somebody waits for the end.
    pub fn hurry(&mut self) {
        if let Some(feed) = &mut self.feed {
            feed.hurry();
        }
    }

    pub fn amount(&self) -> Amount {
        self.amount
    }

    /// Writes the rest of the recording, behind the last input; the output that failed, if one did.
    pub fn finish(self) -> Option<Failed> {
        if let Some(Recording { name, store }) = self.recording
            && let Err(error) = store.finish()
        {
            return Some(Failed { name, error });
        }
        self.failed
    }
}
