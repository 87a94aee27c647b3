//! Repeated failures of accept(), for example in a server that polls and has run out of
//! descriptors. The first failure gets a line of its own. Repeats are counted and get one line a
//! second.

use std::collections::BTreeMap;

use crate::fields::{Accept, Subject};

/// Time between two lines about repeats, in nanoseconds.
const EVERY_NS: u64 = 1_000_000_000;

/// Upper bound on the threads whose repeated failures are counted. Each failure of a further thread
/// gets a line.
const MANY: usize = 4096;

/// Identifies a repeated failure: the same error of the same thread at the same listener.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    netns: u32,
    listener: Option<u64>,
    port: Option<u16>,
    tid: Option<u32>,
    error: String,
}

/// The state of a repeated failure.
struct Repeated {
    reported_ns: u64,
    /// Failures since the last line.
    more: u64,
    subject: Subject,
    listener: Option<u64>,
}

/// Failures that share a line.
pub(super) struct Repeats {
    pub subject: Subject,
    pub listener: Option<u64>,
    pub error: String,
    pub count: u64,
}

/// How to report a failed call.
pub(super) enum Report {
    /// In a line of its own.
    Single,
    Later,
    /// In one line with the failures before it.
    Together(Box<Repeats>),
}

#[derive(Default)]
pub(super) struct Failing {
    calls: BTreeMap<Key, Repeated>,
}

impl Failing {
    /// Counts a failed call.
    pub fn again(&mut self, x: &Accept, error: &str) -> Report {
        let key = Key {
            error: error.to_owned(),
            ..key(x)
        };
        if let Some(repeated) = self.calls.get_mut(&key) {
            repeated.more += 1;
            if x.mono_ns.saturating_sub(repeated.reported_ns) < EVERY_NS {
                return Report::Later;
            }
            repeated.reported_ns = x.mono_ns;
            return Report::Together(Box::new(repeated.take(error)));
        }
        if self.calls.len() >= MANY {
            let is_recent = |it: &Repeated| x.mono_ns.saturating_sub(it.reported_ns) < EVERY_NS;
            self.calls.retain(|_, it| it.more > 0 || is_recent(it));
        }
        if self.calls.len() < MANY {
            let repeated = Repeated {
                reported_ns: x.mono_ns,
                more: 0,
                subject: x.subject.clone(),
                listener: x.listener,
            };
            self.calls.insert(key, repeated);
        }
        Report::Single
    }

    /// Returns the unreported failures of a thread at a listener, because it has now accepted
    /// there.
    pub fn accepted(&mut self, x: &Accept) -> Vec<Repeats> {
        if self.calls.is_empty() {
            return vec![];
        }
        let it = key(x);
        let is_its = |key: &Key, _: &mut Repeated| {
            (key.netns, key.listener, key.tid) == (it.netns, it.listener, it.tid)
        };
        all(self.calls.extract_if(.., is_its))
    }

    /// Returns all unreported failures at the end of the trace.
    pub fn rest(&mut self) -> Vec<Repeats> {
        all(std::mem::take(&mut self.calls))
    }
}

impl Repeated {
    fn take(&mut self, error: &str) -> Repeats {
        Repeats {
            subject: self.subject.clone(),
            listener: self.listener,
            error: error.to_owned(),
            count: std::mem::take(&mut self.more),
        }
    }
}

fn all(calls: impl IntoIterator<Item = (Key, Repeated)>) -> Vec<Repeats> {
    let calls = calls.into_iter().filter(|(_, it)| it.more > 0);
    calls.map(|(key, mut it)| it.take(&key.error)).collect()
}

fn key(x: &Accept) -> Key {
    Key {
        netns: x.subject.netns,
        listener: x.listener,
        port: x.subject.lport,
        tid: x.subject.tid.or(x.subject.pid),
        error: String::new(),
    }
}
