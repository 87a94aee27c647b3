//! The hook of TCP state changes.

use super::{AttachMethod, HookRow, Point, Program};
use crate::event::Hook;

pub const ROW: HookRow = HookRow {
    hook: Hook::InetSockSetState,
    shows: "every change of state of a full TCP socket",
    without: None,
    methods: &[
        AttachMethod {
            name: "tp_btf",
            via: "",
            parameters: None,
            programs: &[
                Program::new("state_btf", Point::BtfTracepoint("inet_sock_set_state")),
                Program::backup(
                    "state_backup_btf",
                    Point::BtfTracepoint("inet_sock_set_state"),
                ),
            ],
            unseen: &[],
        },
        AttachMethod {
            name: "raw_tp",
            via: "",
            parameters: None,
            programs: &[
                Program::new("state_raw", Point::RawTracepoint("inet_sock_set_state")),
                Program::backup(
                    "state_backup_raw",
                    Point::RawTracepoint("inet_sock_set_state"),
                ),
            ],
            unseen: &[],
        },
        AttachMethod {
            name: "tracepoint",
            via: "",
            parameters: None,
            programs: &[Program::new(
                "state_tp",
                Point::Tracepoint("sock", &["inet_sock_set_state"]),
            )],
            unseen: &[],
        },
    ],
};
