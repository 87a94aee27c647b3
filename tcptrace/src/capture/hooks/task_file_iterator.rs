//! The kernel's own iterators over processes and their descriptors, which run when they are read.

use super::{Carrier, HookRow, Point, Program};
use crate::event::Hook;

pub const ROW: HookRow = HookRow {
    hook: Hook::TaskFileIterator,
    shows: "which process has a socket that is older than the trace, and which has a listener now",
    without: Some(
        "which process has a socket that is older than the trace, or a listener that was handed over",
    ),
    carriers: &[Carrier {
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
