//! The ends and the names of processes.

use super::{Carrier, HookRow, Point, Program};
use crate::event::Hook;

pub const ROW: HookRow = HookRow {
    hook: Hook::SchedProcessExit,
    shows: "that a process which has, or had, a traced socket exits, or has a new name",
    without: Some("that a socket's process has exited: it stays the owner"),
    carriers: &[Carrier {
        name: "raw_tp",
        via: "",
        parameters: None,
        programs: &[
            Program::new("process_exit", Point::RawTracepoint("sched_process_exit")),
            Program::new("process_renamed", Point::RawTracepoint("task_rename")),
        ],
        unseen: &[],
    }],
};
