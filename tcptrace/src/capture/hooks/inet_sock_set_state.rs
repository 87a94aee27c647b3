//! Changes of state.

use super::{Carrier, HookRow, Point, Program};
use crate::event::Hook;

pub const ROW: HookRow = HookRow {
    hook: Hook::InetSockSetState,
    shows: "every change of state of a full TCP socket",
    without: None,
    carriers: &[
        Carrier {
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
        Carrier {
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
        Carrier {
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
