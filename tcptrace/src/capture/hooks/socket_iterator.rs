//! The iterator over the kernel's TCP sockets. It runs when it is read.

use super::{AttachMethod, HookRow, Point, Program};
use crate::event::Hook;

pub const ROW: HookRow = HookRow {
    hook: Hook::SocketIterator,
    shows: "listeners and connections that are older than the trace, and the end of TIME_WAIT buckets",
    without: Some(
        "listeners and connections older than the trace, until something happens to them",
    ),
    methods: &[AttachMethod {
        name: "iter",
        via: "",
        parameters: None,
        programs: &[Program::new("socket_iterator", Point::Iterator("tcp"))],
        unseen: &[],
    }],
};
