//! The call stacks of acceptors, with the names of their functions.

use hashlink::LinkedHashMap;
use rustc_hash::{FxBuildHasher, FxHashMap};

use crate::event::{Stack, StackKey};
use crate::fields::{self, Frame};

/// Upper bound on stacks. Those that were used least recently are forgotten first.
const MANY: usize = 1 << 14;

#[derive(Default)]
pub struct Stacks {
    /// In the order of their arrival.
    all: LinkedHashMap<StackKey, Numbered, FxBuildHasher>,
    /// The stacks that no `stack` line has shown with these functions, by number.
    new: FxHashMap<u64, StackKey>,
    /// The last number given to a stack.
    last: u64,
}

/// A stack and its number in the trace.
pub struct Numbered {
    pub number: u64,
    pub stack: Stack,
}

impl Stacks {
    /// Takes a stack. One that is known already keeps its number. It is announced again if more of
    /// its functions are known now.
    pub fn insert(&mut self, mut stack: Stack) {
        let tracers = stack.kernel.iter().take_while(|it| is_tracers(it)).count();
        stack.kernel.drain(..tracers);
        if let Some(known) = self.all.get_mut(&stack.key) {
            if named(&known.stack) < named(&stack) {
                self.new.insert(known.number, stack.key);
                known.stack = stack;
            }
            return;
        }
        if self.all.len() >= MANY
            && let Some((_, oldest)) = self.all.pop_front()
        {
            self.new.remove(&oldest.number);
        }
        self.last += 1;
        let number = self.last;
        self.new.insert(number, stack.key);
        self.all.insert(stack.key, Numbered { number, stack });
    }

    pub fn get(&self, key: StackKey) -> Option<&Numbered> {
        self.all.get(&key)
    }

    /// Returns the `stack` line of a stack, unless an earlier call returned the same.
    pub fn announce(&mut self, number: u64, mono_ns: u64) -> Option<fields::Stack> {
        let key = self.new.remove(&number)?;
        let Stack {
            pid, kernel, user, ..
        } = &self.get(key)?.stack;
        Some(fields::Stack {
            mono_ns,
            stack: number,
            pid: *pid,
            kernel_frames: kernel.clone(),
            user_frames: user.clone(),
        })
    }
}

/// Returns the number of frames whose function is known.
fn named(stack: &Stack) -> usize {
    let all = stack.kernel.iter().chain(&stack.user);
    all.filter(|it| it.function.is_some()).count()
}

/// Returns whether a frame is of the tracer itself: its program at the tracepoint, and the functions
/// that run the program.
fn is_tracers(frame: &Frame) -> bool {
    let function = frame.function.as_deref().unwrap_or_default();
    ["bpf_prog_", "bpf_trace_run", "__bpf_trace_", "__traceiter_"]
        .iter()
        .any(|prefix| function.starts_with(prefix))
}
