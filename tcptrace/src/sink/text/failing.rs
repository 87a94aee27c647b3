//! accept() calls that fail again and again, as in a server that has run out of descriptors and
//! polls: the first failure has a line, the next ones one line a second together.

use std::collections::BTreeMap;

use crate::fields::{Accept, Subject};

/// How often repeats are told, in nanoseconds.
const EVERY_NS: u64 = 1_000_000_000;

/// Of no more threads repeats are waited for. More are told call by call.
const MANY: usize = 4096;

/// The same failure, of the same thread at the same listener.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    netns: u32,
    listener: Option<u64>,
    port: Option<u16>,
    tid: Option<u32>,
    error: String,
}

/// What was told of it.
struct Told {
    told_ns: u64,
    /// Calls that failed since then.
    more: u64,
    subject: Subject,
    listener: Option<u64>,
}

/// Calls that are to be told together.
pub(super) struct Repeats {
    pub subject: Subject,
    pub listener: Option<u64>,
    pub error: String,
    pub count: u64,
}

/// How to tell a call that has failed.
pub(super) enum Tell {
    /// By a line of its own.
    Itself,
    Later,
    /// Together with those before it.
    Together(Box<Repeats>),
}

#[derive(Default)]
pub(super) struct Failing {
    calls: BTreeMap<Key, Told>,
}

impl Failing {
    /// A call has failed.
    pub fn again(&mut self, x: &Accept, error: &str) -> Tell {
        let key = Key {
            error: error.to_owned(),
            ..key(x)
        };
        if let Some(told) = self.calls.get_mut(&key) {
            told.more += 1;
            if x.mono_ns.saturating_sub(told.told_ns) < EVERY_NS {
                return Tell::Later;
            }
            told.told_ns = x.mono_ns;
            return Tell::Together(Box::new(told.repeats(error)));
        }
        if self.calls.len() >= MANY {
            let is_fresh = |told: &Told| x.mono_ns.saturating_sub(told.told_ns) < EVERY_NS;
            self.calls.retain(|_, told| told.more > 0 || is_fresh(told));
        }
        if self.calls.len() < MANY {
            let told = Told {
                told_ns: x.mono_ns,
                more: 0,
                subject: x.subject.clone(),
                listener: x.listener,
            };
            self.calls.insert(key, told);
        }
        Tell::Itself
    }

    /// A thread has accepted at a listener: what failed before that and is not told yet.
    pub fn accepted(&mut self, x: &Accept) -> Vec<Repeats> {
        if self.calls.is_empty() {
            return vec![];
        }
        let it = key(x);
        let is_its = |key: &Key, _: &mut Told| {
            (key.netns, key.listener, key.tid) == (it.netns, it.listener, it.tid)
        };
        all(self.calls.extract_if(.., is_its))
    }

    /// The trace ends: all that is not told yet.
    pub fn rest(&mut self) -> Vec<Repeats> {
        all(std::mem::take(&mut self.calls))
    }
}

impl Told {
    fn repeats(&mut self, error: &str) -> Repeats {
        Repeats {
            subject: self.subject.clone(),
            listener: self.listener,
            error: error.to_owned(),
            count: std::mem::take(&mut self.more),
        }
    }
}

fn all(calls: impl IntoIterator<Item = (Key, Told)>) -> Vec<Repeats> {
    let calls = calls.into_iter().filter(|(_, told)| told.more > 0);
    calls
        .map(|(key, mut told)| told.repeats(&key.error))
        .collect()
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
