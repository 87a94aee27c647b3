//! The `segment` line.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Subject;
use crate::event::{Direction, TcpFlags};

/// A segment that opens or closes a connection passed a network device: SYN, SYN-ACK, FIN, RST, and
/// the first ACK of a SYN-ACK or a FIN.
///
/// laddr and lport are those of the sender of a sent segment, and of the receiver of a received
/// one. `conn` is null while the end at laddr has no connection. A server's connection begins with
/// the last ACK of the handshake. Segments that the kernel answers in TIME_WAIT have a `conn` too,
/// even after the `connection` line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Segment {
    /// Time of the event, in CLOCK_MONOTONIC nanoseconds (bpf_ktime_get_ns).
    pub mono_ns: u64,
    #[serde(flatten)]
    pub subject: Subject,
    /// sent: seen before the driver; received: seen before the IP layer.
    pub direction: Direction,
    /// The TCP flags as tcpdump prints them: F FIN, S SYN, R RST, P PSH, . ACK, U URG, E ECE, W
    /// CWR.
    pub flags: TcpFlags,
    /// The sequence number.
    pub seq: u32,
    /// The acknowledgment number; null without the ACK flag.
    pub ack: Option<u32>,
    /// seq relative to the sender's initial sequence number; null when the sender's SYN was not
    /// seen.
    pub rel_seq: Option<u32>,
    /// ack relative to the receiver's initial sequence number; null when the receiver's SYN was not
    /// seen.
    pub rel_ack: Option<u32>,
    /// Bytes of payload.
    pub len: u32,
    /// The window field of the header, not scaled.
    pub win: u16,
    /// Index of the network device, as `ip link` shows it in the namespace `netns`.
    pub ifindex: u32,
    /// The CPU that the hook ran on.
    pub cpu: u16,
}
