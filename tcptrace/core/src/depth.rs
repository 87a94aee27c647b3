//! The depth of a trace: which lines it writes for a connection.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The value of `--depth`. The hooks and the correlator's state are the same at every depth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Depth {
    /// Every change of state and every accept(), as they happen
    #[default]
    Events,
    /// One line per connection, at its end, with all its times and counters
    Connections,
    /// Histograms of handshake times and waits for accept(), each second. Only connections that
    /// went wrong get a line
    Histogram,
}

impl Depth {
    /// Returns the events that this depth leaves out, for the session line.
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
