//! The kernel's own iterator over its TCP sockets, which runs when it is read.

use super::{Carrier, HookRow, Point, Program};
use crate::event::Hook;

pub const ROW: HookRow = HookRow {
    hook: Hook::SocketIterator,
    shows: "listeners and connections that are older than the trace, and what becomes of buckets",
    without: Some(
        "listeners and connections older than the trace, until something happens to them",
    ),
    carriers: &[Carrier {
        name: "iter",
        via: "",
        parameters: None,
        programs: &[Program::new("socket_iterator", Point::Iterator("tcp"))],
        unseen: &[],
    }],
};
