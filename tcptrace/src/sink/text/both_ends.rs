//! Both ends of a connection on this host, and the calls that they wait in: what came first.

use std::io;

use super::Text;
use super::paint::DIM;
use crate::duration::Human;
use crate::fields::Accept;

impl Text {
    /// `both ends: connect() called 0, client #2 ESTABLISHED +173.5 µs, server ESTABLISHED +198.0 µs,
    /// accept() called +503.9 ms, returned +504.1 ms`, under an accept() whose connection has its
    /// other end here.
    pub(super) fn both_ends(&mut self, x: &Accept) -> io::Result<()> {
        let Some(steps) = steps(x) else { return Ok(()) };
        self.begin(x.mono_ns, &x.subject, x.subject.conn);
        self.row.put(DIM, format_args!("both ends: {steps}"));
        self.end()
    }
}

/// In order of time; equal times in the order of the kernel's work.
fn steps(x: &Accept) -> Option<String> {
    let client = x.peer_conn?;
    let client_ns = x.peer_established_mono_ns?;
    let zero_ns = x.peer_syn_mono_ns.unwrap_or(client_ns);
    let returned = match x.called_mono_ns {
        Some(_) => "returned".to_owned(),
        None => "accept() returned".to_owned(),
    };
    let steps = [
        (x.peer_syn_mono_ns, "connect() called".to_owned()),
        (Some(client_ns), format!("client #{client} ESTABLISHED")),
        (x.established_mono_ns, "server ESTABLISHED".to_owned()),
        (x.called_mono_ns, "accept() called".to_owned()),
        (Some(x.mono_ns), returned),
    ];
    let mut steps: Vec<(u64, String)> = steps
        .into_iter()
        .filter_map(|(ns, what)| Some((ns?, what)))
        .collect();
    steps.sort_by_key(|(ns, _)| *ns);
    let told = steps.iter().map(|(ns, what)| {
        let apart = Human(ns.abs_diff(zero_ns));
        match ns.cmp(&zero_ns) {
            std::cmp::Ordering::Less => format!("{what} −{apart}"),
            std::cmp::Ordering::Equal => format!("{what} 0"),
            std::cmp::Ordering::Greater => format!("{what} +{apart}"),
        }
    });
    Some(told.collect::<Vec<_>>().join(", "))
}
