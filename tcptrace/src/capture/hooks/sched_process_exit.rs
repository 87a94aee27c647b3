//! The hook of process exits and process names.

use super::{AttachMethod, HookRow, Point, Program};
use crate::event::Hook;

pub const ROW: HookRow = HookRow {
    hook: Hook::SchedProcessExit,
    shows: "exits and renames of processes that have, or had, a traced socket",
    without: Some("that a socket's process has exited: it stays the owner"),
    methods: &[AttachMethod {
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
