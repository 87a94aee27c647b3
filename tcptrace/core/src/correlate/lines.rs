//! Lines on their way out.

use std::iter;

use crate::fields::Line;

/// Appends a line and builds it where it stays. A line that is built first and pushed then is copied,
/// and all of it: whatever its kind, it takes as much room as the largest. For that, what builds the
/// usual lines has to be inlined.
#[inline(always)]
pub(super) fn append(out: &mut Vec<Line>, build: impl FnOnce() -> Line) {
    // Makes room before it builds: what is built has not to be dropped should there be none.
    out.extend(iter::once_with(build));
}
