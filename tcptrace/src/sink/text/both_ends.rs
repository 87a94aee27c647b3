//! The order of events at both ends of a connection whose ends are both on this host.

use std::cmp::Ordering;
use std::io;

use super::Text;
use super::paint::DIM;
use super::piece::Piece;
use crate::duration::Human;
use crate::fields::Accept;

impl Text {
    /// Writes the steps below an accept() whose connection has its other end here: `both ends:
    /// connect() called 0, client #2 ESTABLISHED +173.5 µs, server ESTABLISHED +198.0 µs, accept()
    /// called +503.9 ms, returned +504.1 ms`.
    pub(super) fn both_ends(&mut self, x: &Accept) -> io::Result<()> {
        let (Some(client), Some(client_ns)) = (x.peer_conn, x.peer_established_mono_ns) else {
            return Ok(());
        };
        self.begin(x.mono_ns, &x.subject, x.subject.conn);
        self.row.put(
            DIM,
            Steps {
                x,
                client,
                client_ns,
            },
        );
        self.end()
    }
}

struct Steps<'a> {
    x: &'a Accept,
    client: u64,
    client_ns: u64,
}

impl Piece for Steps<'_> {
    /// Sorted by time. Equal times keep the order of the kernel's work.
    fn put(&self, to: &mut Vec<u8>) {
        let x = self.x;
        let zero_ns = x.peer_syn_mono_ns.unwrap_or(self.client_ns);
        let returned = match x.called_mono_ns {
            Some(_) => "returned",
            None => "accept() returned",
        };
        let client = ("client #", self.client, " ESTABLISHED");
        let mut steps = [
            (x.peer_syn_mono_ns, "connect() called", None),
            (Some(self.client_ns), "", Some(client)),
            (x.established_mono_ns, "server ESTABLISHED", None),
            (x.called_mono_ns, "accept() called", None),
            (Some(x.mono_ns), returned, None),
        ];
        steps.sort_by_key(|(ns, ..)| *ns);
        let mut before = "both ends: ";
        for (ns, what, client) in steps {
            let Some(ns) = ns else { continue };
            (before, what, client).put(to);
            let apart = Human(ns.abs_diff(zero_ns));
            match ns.cmp(&zero_ns) {
                Ordering::Less => (" −", apart).put(to),
                Ordering::Equal => " 0".put(to),
                Ordering::Greater => (" +", apart).put(to),
            }
            before = ", ";
        }
    }
}
