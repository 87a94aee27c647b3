//! How deep a trace goes: what is told of each connection, and so what it costs.

use clap::ValueEnum;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::Hook;

/// `--depth`
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Depth {
    /// Every change of state and every accept(), as they happen
    #[default]
    #[value(
        help = "Every change of state and every accept(), as they happen. Costs 3 to 6 µs \
                a connection in the kernel, both ends together, and 21 to 31 µs of tcptrace's own \
                CPU time"
    )]
    Events,
    /// A line a connection, at its end, with all its times; joined in the kernel
    #[value(
        help = "A line a connection, at its end, with all its times; joined in the kernel. Costs \
                3 to 6 µs, and 10 to 16 µs of tcptrace's. Cannot show what is going on just now, \
                half-open connections, TIME_WAIT, retransmits and resets, nor which two ends \
                belong together"
    )]
    Connections,
    /// How long handshakes and waits for accept() took, each second; counted in the kernel. A line
    /// only for the connections that went wrong
    #[value(
        help = "How long handshakes and waits for accept() took, each second; counted in the \
                kernel. A line only for the connections that went wrong. Costs 3 to 6 µs, \
                and at most 2 µs of tcptrace's. Cannot show what `connections` cannot, nor the \
                connections that went well one by one"
    )]
    Histogram,
}

const JOINED: &str = "half-open connections (NEW_SYN_RECV), TIME_WAIT, retransmits and resets, and \
                      who is whose other end, because of --depth";

impl Depth {
    /// Whether a trace of this depth attaches a hook.
    pub fn takes(self, hook: Hook) -> bool {
        match self {
            Depth::Events => true,
            Depth::Connections | Depth::Histogram => matches!(
                hook,
                Hook::InetSockSetState
                    | Hook::InetCskAccept
                    | Hook::ListenOverflow
                    | Hook::TcpRetransmitSynack
                    | Hook::SocketIterator
            ),
        }
    }

    /// What a trace of this depth leaves out, for the session line.
    pub fn unseen(self) -> &'static [&'static str] {
        match self {
            Depth::Events => &[],
            Depth::Connections => &[JOINED, "what happens to a connection, as it happens"],
            Depth::Histogram => &[
                JOINED,
                "the connections that were accepted after their handshake, one by one",
            ],
        }
    }
}
