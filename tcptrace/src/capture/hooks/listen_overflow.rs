//! The hook of SYNs and ACKs that meet a full queue of a listener.

use super::{AttachMethod, HookRow, Point, Program};
use crate::event::Hook;

const RESERVE_UNSEEN: &str =
    "SYNs dropped because the last quarter of tcp_max_syn_backlog is kept for known peers";

pub const ROW: HookRow = HookRow {
    hook: Hook::ListenOverflow,
    shows: "SYNs and ACKs that met a full queue of their listener",
    without: Some("SYNs and ACKs dropped because a listener's queue was full"),
    methods: &[
        AttachMethod {
            name: "fentry",
            via: "",
            parameters: None,
            programs: &[
                Program::new("overflow_syn_fentry", Point::Fentry("tcp_conn_request")),
                Program::new(
                    "overflow_ack4_fentry",
                    Point::Fentry("tcp_v4_syn_recv_sock"),
                ),
                Program::new(
                    "overflow_ack6_fentry",
                    Point::Fentry("tcp_v6_syn_recv_sock"),
                ),
                Program::optional(
                    "overflow_proven_fexit",
                    Point::Fexit("tcp_peer_is_proven"),
                    RESERVE_UNSEEN,
                ),
            ],
            unseen: &[],
        },
        AttachMethod {
            name: "kprobe",
            via: "",
            parameters: None,
            programs: &[
                Program::new("overflow_syn_kprobe", Point::Kprobe("tcp_conn_request")),
                Program::new(
                    "overflow_ack4_kprobe",
                    Point::Kprobe("tcp_v4_syn_recv_sock"),
                ),
                Program::new(
                    "overflow_ack6_kprobe",
                    Point::Kprobe("tcp_v6_syn_recv_sock"),
                ),
                Program::optional(
                    "overflow_proven_kprobe",
                    Point::Kprobe("tcp_peer_is_proven"),
                    RESERVE_UNSEEN,
                ),
                Program::optional(
                    "overflow_proven_kretprobe",
                    Point::Kprobe("tcp_peer_is_proven"),
                    RESERVE_UNSEEN,
                ),
            ],
            unseen: &[],
        },
    ],
};
