//! The iterators over processes and their file descriptors. They run when they are read.

use super::{AttachMethod, HookRow, Point, Program};
use crate::event::Hook;

pub const ROW: HookRow = HookRow {
    hook: Hook::TaskFileIterator,
    shows: "the owners of sockets that are older than the trace, and of listeners",
    without: Some(
        "the owners of sockets that are older than the trace, and of listeners that were handed over",
    ),
    methods: &[AttachMethod {
        name: "iter",
        via: "",
        parameters: None,
        programs: &[
            Program::new("task_file_iterator", Point::Iterator("task_file")),
            Program::new("task_iterator", Point::Iterator("task")),
        ],
        unseen: &[],
    }],
};
