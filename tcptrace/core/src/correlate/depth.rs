//! What `--depth` leaves of the lines.

use super::Correlator;
use crate::fields::{Depth, Line};

impl Correlator {
    /// Takes out of the lines from `first` on those that the trace's depth does not tell. At
    /// [`Depth::Histogram`] the connections that went well are counted instead.
    pub(super) fn shorten(&mut self, first: usize, lines: &mut Vec<Line>) {
        if self.depth == Depth::Events || lines.len() == first {
            return;
        }
        let counts = self.depth == Depth::Histogram;
        let histograms = &mut self.histograms;
        let told = lines.extract_if(first.., |line| match line {
            Line::Connection(line) => counts && histograms.count(line),
            Line::Accept(line) => line.accept_error.is_none(),
            Line::Overflow(_) | Line::Histogram(_) => false,
            _ => true,
        });
        told.for_each(drop);
    }
}
