//! Segments that are sent again.

use super::{Carrier, HookRow, Point, Program};
use crate::event::Hook;

pub const SOCKETS: HookRow = HookRow {
    hook: Hook::TcpRetransmitSkb,
    shows: "each segment that a socket sends again, a client's SYN among them",
    without: Some("retransmits as they happen (the connection line still counts them)"),
    carriers: &[
        Carrier {
            name: "raw_tp",
            via: "with the error (Linux 6.17 and later)",
            parameters: None,
            programs: &[Program::new(
                "retransmit_skb_err",
                Point::RawTracepoint("tcp_retransmit_skb"),
            )],
            unseen: &[],
        },
        Carrier {
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
    shows: "SYN-ACKs that are sent again",
    without: Some("SYN-ACKs that are sent again, and so the estimate of when a SYN came"),
    carriers: &[Carrier {
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
