//! The settings, the outputs and the end of a trace.

use std::time::Duration;

use super::{Progress, To, Triggers};
use crate::capture::Request;
use crate::clock::Clock;
use crate::correlate::Selection;
use crate::depth::Depth;
use crate::pipeline::Output;

/// The settings of a trace.
pub struct Plan<'a> {
    pub request: &'a Request,
    pub clock: Clock,
    pub selection: Selection,
    pub depth: Depth,
    /// The trace ends when this many connections have ended.
    pub count: Option<u64>,
}

/// The outputs of a trace.
#[derive(Default)]
pub struct Outputs {
    pub lines: Vec<Output>,
    pub recording: Option<To>,
}

/// The conditions that end a trace, and what to show meanwhile.
#[derive(Default)]
pub struct Until {
    pub duration: Option<Duration>,
    /// Printed once if nothing happens for a while.
    pub hint: Option<String>,
    /// Shows how much has been recorded.
    pub progress: Option<Progress>,
    /// Triggers that write the flight recorder's buffer.
    pub triggers: Option<Triggers>,
}
