//! Decoding of [`abi::kind::SCHED`].

use tcptrace_ebpf::abi::{self, sched_flag, sched_section, sched_step};

use super::{Rest, Undecodable, task};
use crate::event::{OffCpu, Sched, SchedStep, Sk, StackKey, Syscall, Task};

/// Bits of `task_struct.__state`, include/linux/sched.h, Linux 5.10 to 6.18.
mod state {
    pub const INTERRUPTIBLE: u32 = 0x0001;
    pub const UNINTERRUPTIBLE: u32 = 0x0002;
    pub const STOPPED: u32 = 0x0004;
    pub const TRACED: u32 = 0x0008;
    /// `EXIT_DEAD`, `EXIT_ZOMBIE` and `TASK_DEAD`.
    pub const DEAD: u32 = 0x0010 | 0x0020 | 0x0080;
}

pub(super) fn sched(rest: &mut Rest) -> Result<Sched, Undecodable> {
    let payload: abi::Sched = rest.take()?;
    let has = |section| payload.sections & section != 0;
    let task = match has(sched_section::TASK) {
        true => Some(task(rest)?),
        false => None,
    };
    let stack = match has(sched_section::STACK) {
        true => Some(stack_key(payload.pid, &rest.take()?)),
        false => None,
    };
    let flag = |flag| payload.flags & flag != 0;
    let syscall = match payload.syscall {
        abi::NO_SYSCALL => Some(Syscall::None),
        number => u32::try_from(number).ok().map(Syscall::Number),
    };
    // Both kinds of records have the task.
    let task = task.unwrap_or(Task {
        pid: payload.pid,
        tid: payload.tid,
        ..Task::default()
    });
    let step = match payload.step {
        sched_step::ENROLLED => SchedStep::Enrolled {
            task,
            listener: (payload.listener != 0).then_some(Sk(payload.listener)),
            listens: flag(sched_flag::LISTENS),
        },
        sched_step::OUT => SchedStep::Out {
            off: off_cpu(
                payload.state,
                flag(sched_flag::THROTTLED),
                flag(sched_flag::FROZEN),
            ),
            syscall,
            stack,
        },
        sched_step::IN => SchedStep::In,
        sched_step::WAKING => SchedStep::Waking { by: task, syscall },
        sched_step::SAMPLE => SchedStep::Sample {
            is_user: flag(sched_flag::USER),
            syscall,
            stack,
        },
        value => {
            return Err(Undecodable::Value {
                field: "step",
                value,
            });
        }
    };
    Ok(Sched {
        tid: payload.tid,
        pid: payload.pid,
        step,
    })
}

/// Returns the reason from the state with which a thread left its CPU.
fn off_cpu(state: u32, throttled: bool, frozen: bool) -> OffCpu {
    match state {
        0 => OffCpu::Runnable { throttled },
        it if it & state::DEAD != 0 => OffCpu::Dead,
        it if it & state::TRACED != 0 => OffCpu::Traced,
        it if it & state::STOPPED != 0 => OffCpu::Stopped,
        _ if frozen => OffCpu::Frozen,
        it if it & state::UNINTERRUPTIBLE != 0 => OffCpu::Uninterruptible,
        it if it & state::INTERRUPTIBLE != 0 => OffCpu::Interruptible,
        // A newer kernel's state, such as TASK_FROZEN: the thread cannot run.
        _ => OffCpu::Uninterruptible,
    }
}

/// Returns the key of a process's stacks: an FNV-1a hash. Recordings contain it, so it must not
/// change.
pub fn stack_key(pid: u32, stack: &abi::Stack) -> StackKey {
    let frames = stack.kernel.iter().chain(&stack.user).copied();
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for word in std::iter::once(u64::from(pid)).chain(frames) {
        for byte in word.to_le_bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    StackKey(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_bits_give_the_reason() {
        let off = |state| off_cpu(state, false, false);
        assert_eq!(off(0), OffCpu::Runnable { throttled: false });
        assert_eq!(
            off_cpu(0, true, false),
            OffCpu::Runnable { throttled: true }
        );
        assert_eq!(off(0x1), OffCpu::Interruptible);
        // TASK_KILLABLE; TASK_IDLE.
        assert_eq!(off(0x102), OffCpu::Uninterruptible);
        assert_eq!(off(0x402), OffCpu::Uninterruptible);
        assert_eq!(off(0x4), OffCpu::Stopped);
        assert_eq!(off(0x8), OffCpu::Traced);
        assert_eq!(off(0x80), OffCpu::Dead);
        // do_freezer_trap(): TASK_INTERRUPTIBLE | TASK_FREEZABLE.
        assert_eq!(off_cpu(0x2001, false, true), OffCpu::Frozen);
    }
}
