//! The facts that the session line of a trace states.

use std::collections::BTreeMap;

use crate::capture::{Capture, Request};
use crate::correlate::Selection;
use crate::event::Hook;
use crate::fields::FailedMethod;
use crate::filter::Filter;
use crate::symbols;
use crate::trace::RefusedMethod;

/// Returns the output of `uname -r`.
pub fn kernel_release() -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    release.trim().to_owned()
}

/// Returns all filter conditions by name: those of the kernel programs and those of the correlator.
pub fn filters(filter: &Filter, selection: &Selection) -> BTreeMap<String, String> {
    let conditions = filter.describe().into_iter().chain(selection.describe());
    conditions
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

/// Returns the refused attach methods of each hook.
pub(super) fn refused(capture: &Capture) -> BTreeMap<Hook, Vec<RefusedMethod>> {
    let refused = |it: FailedMethod| RefusedMethod {
        method: it.method,
        reason: it.error,
    };
    let hooks = capture.refused().into_iter();
    hooks
        .map(|(hook, all)| (hook, all.into_iter().map(refused).collect()))
        .collect()
}

/// Returns what the trace cannot show.
pub(super) fn unseen(capture: &Capture, request: &Request) -> Vec<String> {
    let mut unseen = capture.unseen();
    if request.why_ns.is_some() {
        unseen.extend(symbols::unseen());
    }
    unseen
}
