//! How deep a trace goes: what is told of each connection.

use clap::ValueEnum;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `--depth`. The hooks and what is known of each connection are the same at every depth.
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
    /// A line a connection, at its end, with all its times and figures
    #[value(
        help = "A line a connection, at its end, with all its times and figures, and the calls of \
                accept() and the segments that failed. Costs the same in the kernel, and less of \
                tcptrace's own CPU time"
    )]
    Connections,
    /// How long handshakes and waits for accept() took, each second. A line only for the
    /// connections that went wrong
    #[value(
        help = "How long handshakes and waits for accept() took, of the connections that have \
                ended, each second. A line only for those that went wrong. Costs the same in the \
                kernel, and less of tcptrace's own CPU time"
    )]
    Histogram,
}

impl Depth {
    /// What a trace of this depth leaves out, for the session line.
    pub fn unseen(self) -> &'static [&'static str] {
        match self {
            Depth::Events => &[],
            Depth::Connections => &[
                "changes of state, accept() calls, retransmits, resets and TIME_WAIT one by one, \
                 because of --depth",
            ],
            Depth::Histogram => &[
                "changes of state, accept() calls, retransmits, resets and TIME_WAIT one by one, \
                 because of --depth",
                "the connections that went well one by one, because of --depth",
            ],
        }
    }
}
