//! The stacks of a trace that need names: those of long blocks and those of samples.
//!
//! A stack is an input of the trace before the records that refer to it. If its functions are not
//! found in time, it has only addresses, and the complete stack follows later.

use std::time::Duration;

use hashlink::LinkedHashMap;
use rustc_hash::FxHashMap;
use tcptrace_ebpf::abi::sched_step;
use tokio::time::Instant;

use crate::decode::{Peek, peek_stack, stack_key};
use crate::event::{Stack, StackKey};
use crate::symbols::{RawStack, Symbols};

/// Upper bound on the stacks that are remembered as known.
const KNOWN: usize = 16_384;

/// A known stack is sent again after this time, because a flight recorder forgets old inputs.
const AGAIN_NS: u64 = 60_000_000_000;

/// Upper bound on the blocked threads whose stack is kept.
const BLOCKED: usize = 4096;

/// Upper bound on new stacks per second. Further stacks get no names.
const NEW_PER_SECOND: u32 = 256;

const SECOND_NS: u64 = 1_000_000_000;

/// Upper bound on the time that the records of one batch wait for the names of their stacks.
const WAIT: Duration = Duration::from_millis(50);

/// After a wait, this many times its duration passes without another wait, so that slow answers
/// cannot fill the ring buffer.
const PAUSE_FACTOR: u32 = 4;

/// Finds the functions of the stacks that the trace needs.
pub struct Stacks {
    symbols: Symbols,
    /// Shorter blocks get no names, in nanoseconds.
    why_ns: u64,
    /// The threads that are blocked now, by thread id, in the order in which they were blocked.
    blocked: LinkedHashMap<u32, Blocked>,
    /// The stacks that were requested, and when (CLOCK_MONOTONIC, nanoseconds).
    known: LinkedHashMap<StackKey, u64>,
    /// Requested stacks without an answer, which the trace has not received yet.
    pending: FxHashMap<StackKey, RawStack>,
    /// Start of the second in which new stacks are counted (CLOCK_MONOTONIC, nanoseconds), and
    /// their number.
    second_ns: u64,
    new: u32,
    no_wait_before: Instant,
}

struct Blocked {
    since_ns: u64,
    stack: RawStack,
}

impl Stacks {
    pub fn new(symbols: Symbols, why_ns: u64) -> Stacks {
        Stacks {
            symbols,
            why_ns,
            blocked: LinkedHashMap::new(),
            known: LinkedHashMap::new(),
            pending: FxHashMap::default(),
            second_ns: 0,
            new: 0,
            no_wait_before: Instant::now(),
        }
    }

    /// Reads the symbols of a server before one of its threads accepts.
    pub fn prepare(&self, pid: u32) {
        self.symbols.prepare(pid);
    }

    /// Looks for stacks that need names in the next record.
    #[inline]
    pub fn see(&mut self, peek: Peek, record: &[u8]) {
        if let Peek::Sched {
            mono_ns,
            tid,
            pid,
            step,
        } = peek
        {
            self.sched(mono_ns, tid, pid, step, record);
        }
    }

    fn sched(&mut self, mono_ns: u64, tid: u32, pid: u32, step: u8, record: &[u8]) {
        let stack = || {
            let addresses = peek_stack(record)?;
            Some(RawStack {
                key: stack_key(pid, &addresses),
                pid,
                addresses: Box::new(addresses),
            })
        };
        match step {
            sched_step::ENROLLED => self.symbols.prepare(pid),
            sched_step::OUT => {
                self.blocked.remove(&tid);
                if let Some(stack) = stack() {
                    let since_ns = mono_ns;
                    self.blocked.insert(tid, Blocked { since_ns, stack });
                    if self.blocked.len() > BLOCKED {
                        self.blocked.pop_front();
                    }
                }
            }
            sched_step::IN => {
                if let Some(blocked) = self.blocked.remove(&tid)
                    && mono_ns.saturating_sub(blocked.since_ns) >= self.why_ns
                {
                    self.want(blocked.stack, mono_ns);
                }
            }
            sched_step::SAMPLE => {
                if let Some(stack) = stack() {
                    self.want(stack, mono_ns);
                }
            }
            _ => {}
        }
    }

    /// Requests the functions of a stack that is not known yet.
    fn want(&mut self, stack: RawStack, now_ns: u64) {
        if let Some(since_ns) = self.known.get(&stack.key)
            && now_ns.saturating_sub(*since_ns) < AGAIN_NS
        {
            return;
        }
        if now_ns.saturating_sub(self.second_ns) >= SECOND_NS {
            (self.second_ns, self.new) = (now_ns, 0);
        }
        if self.new >= NEW_PER_SECOND || !self.symbols.request(stack.clone()) {
            return;
        }
        self.new += 1;
        self.known.remove(&stack.key);
        self.known.insert(stack.key, now_ns);
        if self.known.len() > KNOWN {
            self.known.pop_front();
        }
        self.pending.insert(stack.key, stack);
    }

    /// Returns the stacks that the trace needs before the records that were seen, which were read
    /// at `now_ns` (CLOCK_MONOTONIC, nanoseconds). Waits for a bounded time.
    pub async fn take(&mut self, now_ns: u64) -> Vec<Stack> {
        // The stack of a block that goes on can be found while the process exists.
        while let Some((&tid, blocked)) = self.blocked.front()
            && now_ns.saturating_sub(blocked.since_ns) >= self.why_ns
            && let Some(blocked) = self.blocked.remove(&tid)
        {
            self.want(blocked.stack, now_ns);
        }
        let mut stacks = Vec::new();
        while let Some(stack) = self.symbols.try_next() {
            self.pending.remove(&stack.key);
            stacks.push(stack);
        }
        let began = Instant::now();
        if !self.pending.is_empty() && began >= self.no_wait_before {
            while !self.pending.is_empty()
                && let Ok(Some(stack)) =
                    tokio::time::timeout_at(began + WAIT, self.symbols.next()).await
            {
                self.pending.remove(&stack.key);
                stacks.push(stack);
            }
            self.no_wait_before = Instant::now() + began.elapsed() * PAUSE_FACTOR;
        }
        let late = self.pending.drain();
        stacks.extend(late.map(|(_, raw)| raw.unresolved()));
        stacks
    }
}

#[cfg(test)]
mod tests;
