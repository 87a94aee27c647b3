//! The hooks of retransmitted segments.

use super::{AttachMethod, HookRow, Point, Program};
use crate::event::Hook;

pub const SOCKETS: HookRow = HookRow {
    hook: Hook::TcpRetransmitSkb,
    shows: "each segment that a socket retransmits, including a client's SYN",
    without: Some("retransmits as they happen (the connection line still counts them)"),
    methods: &[
        AttachMethod {
            name: "raw_tp",
            via: "with the error (Linux 6.17 and later)",
            parameters: None,
            programs: &[Program::new(
                "retransmit_skb_err",
                Point::RawTracepoint("tcp_retransmit_skb"),
            )],
            unseen: &[],
        },
        AttachMethod {
            name: "raw_tp",
            via: "",
            parameters: None,
            programs: &[Program::new(
                "retransmit_skb",
                Point::RawTracepoint("tcp_retransmit_skb"),
            )],
            unseen: &[],
        },
    ],
};

pub const SYNACKS: HookRow = HookRow {
    hook: Hook::TcpRetransmitSynack,
    shows: "SYN-ACKs that are retransmitted",
    without: Some("retransmitted SYN-ACKs, and so the estimate of when a SYN came"),
    methods: &[AttachMethod {
        name: "raw_tp",
        via: "",
        parameters: None,
        programs: &[Program::new(
            "synack_raw",
            Point::RawTracepoint("tcp_retransmit_synack"),
        )],
        unseen: &[],
    }],
};
