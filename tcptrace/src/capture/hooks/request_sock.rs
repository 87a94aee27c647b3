//! The hook of half-open connections.

use super::{AttachMethod, HookRow, Point, Program};
use crate::event::Hook;

const REQUEST_TIMEOUTS_UNSEEN: &[&str] = &["when a half-open connection times out"];

pub const ROW: HookRow = HookRow {
    hook: Hook::RequestSock,
    shows: "half-open connections (NEW_SYN_RECV), from the SYN to the final ACK or to their end",
    without: Some(
        "half-open connections (NEW_SYN_RECV): a server's handshake is estimated from its \
         first round trip, and what never completes is seen only if its SYN-ACK is sent again",
    ),
    methods: &[
        AttachMethod {
            name: "fentry",
            via: "at __inet_csk_reqsk_queue_drop",
            parameters: Some(("__inet_csk_reqsk_queue_drop", 3)),
            // The program that sees a new request socket is attached last. The child socket or the
            // end of every such request socket is then seen, too.
            programs: &[
                Program::new(
                    "req_clone_fentry",
                    Point::Fentry("tcp_create_openreq_child"),
                ),
                Program::new(
                    "req_end_fentry",
                    Point::Fentry("__inet_csk_reqsk_queue_drop"),
                ),
                Program::new(
                    "req_begin_fentry",
                    Point::Fentry("inet_csk_reqsk_queue_hash_add"),
                ),
            ],
            unseen: &[],
        },
        AttachMethod {
            name: "fentry",
            via: "at inet_csk_reqsk_queue_drop, without its timer (Linux 5.10)",
            parameters: None,
            programs: &[
                Program::new(
                    "req_clone_fentry",
                    Point::Fentry("tcp_create_openreq_child"),
                ),
                Program::new(
                    "req_drop_fentry",
                    Point::Fentry("inet_csk_reqsk_queue_drop"),
                ),
                Program::new(
                    "req_begin_fentry",
                    Point::Fentry("inet_csk_reqsk_queue_hash_add"),
                ),
            ],
            unseen: REQUEST_TIMEOUTS_UNSEEN,
        },
        AttachMethod {
            name: "kprobe",
            via: "at __inet_csk_reqsk_queue_drop",
            parameters: Some(("__inet_csk_reqsk_queue_drop", 3)),
            programs: &[
                Program::new(
                    "req_clone_kprobe",
                    Point::Kprobe("tcp_create_openreq_child"),
                ),
                Program::new(
                    "req_end_kprobe",
                    Point::Kprobe("__inet_csk_reqsk_queue_drop"),
                ),
                Program::new(
                    "req_begin_kprobe",
                    Point::Kprobe("inet_csk_reqsk_queue_hash_add"),
                ),
            ],
            unseen: &[],
        },
        AttachMethod {
            name: "kprobe",
            via: "at inet_csk_reqsk_queue_drop, without its timer (Linux 5.10)",
            parameters: None,
            programs: &[
                Program::new(
                    "req_clone_kprobe",
                    Point::Kprobe("tcp_create_openreq_child"),
                ),
                Program::new(
                    "req_drop_kprobe",
                    Point::Kprobe("inet_csk_reqsk_queue_drop"),
                ),
                Program::new(
                    "req_begin_kprobe",
                    Point::Kprobe("inet_csk_reqsk_queue_hash_add"),
                ),
            ],
            unseen: REQUEST_TIMEOUTS_UNSEEN,
        },
    ],
};
