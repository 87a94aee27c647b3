//! Late accept() calls and their explanations: each kind of cause, and missing evidence.

mod causes;
mod evidence;
mod threads;
mod totals;

use super::*;
use crate::event::{OffCpu, Sched, SchedStep, Stack, StackKey, Syscall};
use crate::fields::{Frame, Late, LateReason};
use crate::syscall::Machine;

/// Numbers of system calls on x86-64.
pub const READ: u32 = 0;
pub const POLL: u32 = 7;
pub const FSYNC: u32 = 74;
pub const FUTEX: u32 = 202;
pub const CLOCK_NANOSLEEP: u32 = 230;
pub const EPOLL_WAIT: u32 = 232;

pub const RUNNABLE: OffCpu = OffCpu::Runnable { throttled: false };
pub const THROTTLED: OffCpu = OffCpu::Runnable { throttled: true };

/// Returns a trace with `listener()` in LISTEN that explains waits of more than a millisecond.
pub fn why() -> Trace {
    let mut t = trace();
    t.correlator = Correlator::new(START).with_why(MS, Machine::X86_64, true);
    t.correlator.open = Table::of_size(1, 1 << 16);
    t.set(listener().enters_by(server(), Close, Listen));
    t
}

/// Like [`why`], with the server's thread enrolled as an acceptor, and `child(2)` ESTABLISHED at
/// the same time.
pub fn enrolled() -> Trace {
    let mut t = why();
    t.enrolls(server());
    t.establish(&child(2));
    t
}

pub fn in_syscall(number: u32) -> Option<Syscall> {
    Some(Syscall::Number(number))
}

pub fn frame(function: &str, module: Option<&str>) -> Frame {
    Frame {
        function: Some(function.to_owned()),
        module: module.map(str::to_owned),
        ..Frame::default()
    }
}

/// The stack of a server that saves its state.
pub fn saving() -> Stack {
    let kernel = [
        "bpf_prog_ad0f0f4ad3038289_left_cpu",
        "bpf_trace_run4",
        "__traceiter_sched_switch",
        "__schedule",
        "schedule",
        "io_schedule",
        "folio_wait_bit_common",
        "ext4_sync_file",
        "__x64_sys_fsync",
        "do_syscall_64",
    ];
    Stack {
        key: StackKey(7),
        pid: server().pid,
        kernel: kernel.map(|it| frame(it, None)).to_vec(),
        user: vec![
            frame("fsync", Some("libc.so.6")),
            frame("std::fs::File::sync_all", Some("server")),
            frame("save_state", Some("server")),
            frame("handle_request", Some("server")),
            frame("main", Some("server")),
        ],
    }
}

impl Trace {
    pub fn enrolls(&mut self, task: Task) {
        let listener = Some(listener().sk);
        let listens = false;
        self.sched(
            task,
            SchedStep::Enrolled {
                task,
                listener,
                listens,
            },
        );
    }

    pub fn sched(&mut self, task: Task, step: SchedStep) {
        let Task { tid, pid, .. } = task;
        self.event(Kind::Sched(Sched { tid, pid, step }));
    }

    /// Plays a block of the server's thread for 20 ms with the stack of [`saving`].
    pub fn saves(&mut self) {
        let stack = Some(saving().key);
        self.out_at(server(), OffCpu::Uninterruptible, in_syscall(FSYNC), stack);
        self.wait(20 * MS);
        self.wakes(server());
        self.gets_cpu(server());
    }

    /// Plays the switch away from the server's thread.
    pub fn out(&mut self, off: OffCpu, syscall: Option<Syscall>) {
        self.out_at(server(), off, syscall, None);
    }

    pub fn out_at(
        &mut self,
        task: Task,
        off: OffCpu,
        syscall: Option<Syscall>,
        stack: Option<StackKey>,
    ) {
        self.sched(
            task,
            SchedStep::Out {
                off,
                syscall,
                stack,
            },
        );
    }

    pub fn wakes(&mut self, task: Task) {
        let by = visitor();
        self.sched(task, SchedStep::Waking { by, syscall: None });
    }

    pub fn gets_cpu(&mut self, task: Task) {
        self.sched(task, SchedStep::In);
    }

    /// Plays a block of the server's thread that lasts `blocked_ns`, and its wait for a CPU.
    pub fn blocks(&mut self, syscall: Option<Syscall>, blocked_ns: u64, runnable_ns: u64) {
        self.out(OffCpu::Interruptible, syscall);
        self.wait(blocked_ns);
        self.wakes(server());
        self.wait(runnable_ns);
        self.gets_cpu(server());
    }

    /// Plays the server's accept() of `child(2)` without a delay.
    pub fn accepts_now(&mut self) {
        let accept = listener().accepts(&child(2), Called::At(self.now));
        self.event(Kind::Accept(accept));
    }

    /// Returns the explanation in the last `accept` line.
    pub fn explained(&self) -> &Late {
        self.last_accept().late.as_deref().expect("an explanation")
    }
}

/// Returns the times of an explanation: running, runnable, blocked, unseen.
pub fn times(late: &Late) -> [u64; 4] {
    [
        late.acceptor_running_ns,
        late.acceptor_runnable_ns,
        late.acceptor_blocked_ns,
        late.acceptor_unseen_ns,
    ]
}
