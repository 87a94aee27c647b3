//! How deep a trace goes: what is told of each connection.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `--depth`. The hooks and what is known of each connection are the same at every depth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Depth {
    /// Every change of state and every accept(), as they happen
    #[default]
    Events,
    /// A line a connection, at its end, with all its times and figures
    Connections,
    /// How long handshakes and waits for accept() took, each second. A line only for the
    /// connections that went wrong
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
