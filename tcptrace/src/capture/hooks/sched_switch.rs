//! The hooks of the scheduling of acceptors, which are attached only with `--why`.

use super::{AttachMethod, HookRow, Point, Program};
use crate::event::Hook;

const UNSEEN: &[&str] =
    &["what a thread did before its first accept() of the trace, unless it called listen()"];

/// The scheduling of acceptors.
pub const ROW: HookRow = HookRow {
    hook: Hook::SchedSwitch,
    shows: "with --why: when threads that accept run, wait for a CPU, block and are woken",
    without: Some("why accept() was late"),
    methods: &[
        AttachMethod {
            name: "tp_btf",
            via: "BTF tracepoints sched_switch and sched_waking",
            parameters: None,
            programs: &[
                Program::new("waking_btf", Point::BtfTracepoint("sched_waking")),
                Program::new("switch_btf", Point::BtfTracepoint("sched_switch")),
            ],
            unseen: UNSEEN,
        },
        AttachMethod {
            name: "raw_tp",
            via: "raw tracepoints sched_switch and sched_waking",
            parameters: None,
            programs: &[
                Program::new("waking_raw", Point::RawTracepoint("sched_waking")),
                Program::new("switch_raw", Point::RawTracepoint("sched_switch")),
            ],
            unseen: UNSEEN,
        },
    ],
};

/// Samples of acceptors on a CPU.
pub const SAMPLES: HookRow = HookRow {
    hook: Hook::CpuSample,
    shows: "with --why: the code that threads that accept run, 199 times a second on each CPU",
    without: Some("which code a thread ran while a connection waited for its accept()"),
    methods: &[AttachMethod {
        name: "perf_event",
        via: "the software event cpu-clock",
        parameters: None,
        programs: &[Program::new("cpu_sample", Point::CpuClock)],
        unseen: &[],
    }],
};
