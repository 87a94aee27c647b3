//! The hook of segments on the wire.

use super::{AttachMethod, HookRow, Point, Program};
use crate::event::Hook;

const SEGMENT_UNSEEN: &[&str] =
    &["segments that IPsec hides, or that XDP or hardware handles without the kernel"];

pub const ROW: HookRow = HookRow {
    hook: Hook::Segment,
    shows: "with --segments: SYN, SYN-ACK, FIN, RST and their ACKs on the wire",
    without: Some("segments on the wire"),
    methods: &[
        AttachMethod {
            name: "tp_btf",
            via: "BTF tracepoints net_dev_start_xmit and netif_receive_skb",
            parameters: None,
            programs: &[
                Program::new(
                    "segment_out_btf",
                    Point::BtfTracepoint("net_dev_start_xmit"),
                ),
                Program::new("segment_in_btf", Point::BtfTracepoint("netif_receive_skb")),
            ],
            unseen: SEGMENT_UNSEEN,
        },
        AttachMethod {
            name: "raw_tp",
            via: "raw tracepoints net_dev_start_xmit and netif_receive_skb",
            parameters: None,
            programs: &[
                Program::new(
                    "segment_out_raw",
                    Point::RawTracepoint("net_dev_start_xmit"),
                ),
                Program::new("segment_in_raw", Point::RawTracepoint("netif_receive_skb")),
            ],
            unseen: SEGMENT_UNSEEN,
        },
    ],
};
