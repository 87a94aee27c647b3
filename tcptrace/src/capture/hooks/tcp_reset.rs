//! The hook of RSTs.

use super::{AttachMethod, HookRow, Point, Program};
use crate::event::Hook;

/// Before Linux 6.10 the tracepoint `tcp_send_reset` fires only for a RST of a socket, and does not
/// give its reason.
const UNSEEN_BEFORE_6_10: &[&str] = &["why a RST was sent", "RSTs to segments that met no socket"];

pub const ROW: HookRow = HookRow {
    hook: Hook::TcpReset,
    shows: "every RST that is sent, and every received RST that ends a socket",
    without: Some("resets as they happen, and why a RST was sent"),
    methods: &[
        AttachMethod {
            name: "tp_btf",
            via: "with the reason (Linux 6.10 and later)",
            parameters: Some(("tcp_send_reset", 3)),
            programs: &[
                Program::new("send_reset_btf", Point::BtfTracepoint("tcp_send_reset")),
                Program::new(
                    "receive_reset_btf",
                    Point::BtfTracepoint("tcp_receive_reset"),
                ),
            ],
            unseen: &[],
        },
        AttachMethod {
            name: "tp_btf",
            via: "without a reason (Linux 6.9 and before)",
            parameters: Some(("tcp_send_reset", 2)),
            programs: &[
                Program::new("send_reset_btf_6_9", Point::BtfTracepoint("tcp_send_reset")),
                Program::new(
                    "receive_reset_btf",
                    Point::BtfTracepoint("tcp_receive_reset"),
                ),
            ],
            unseen: UNSEEN_BEFORE_6_10,
        },
        AttachMethod {
            name: "raw_tp",
            via: "with the reason (Linux 6.10 and later)",
            parameters: None,
            programs: &[
                Program::new("send_reset_reason", Point::RawTracepoint("tcp_send_reset")),
                Program::new("receive_reset", Point::RawTracepoint("tcp_receive_reset")),
            ],
            unseen: &[],
        },
        AttachMethod {
            name: "raw_tp",
            via: "without a reason",
            parameters: None,
            programs: &[
                Program::new("send_reset", Point::RawTracepoint("tcp_send_reset")),
                Program::new("receive_reset", Point::RawTracepoint("tcp_receive_reset")),
            ],
            unseen: UNSEEN_BEFORE_6_10,
        },
    ],
};
