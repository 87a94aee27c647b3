//! The scheduling of acceptors.

use crate::correlate::state::Correlator;
use crate::event::{Event, Sched, Stack};

impl Correlator {
    /// Takes stacks whose addresses have been looked up.
    pub fn stacks(&mut self, _stacks: &[Stack]) {}

    /// Handles a scheduling event of an acceptor.
    pub(super) fn sched(&mut self, _event: &Event, _sched: &Sched) {}
}
