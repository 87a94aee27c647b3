//! Properties that the lines of every trace have.

use std::collections::{BTreeMap, BTreeSet};

use tcptrace_core::correlate::Selection;
use tcptrace_core::event::Hook;
use tcptrace_core::fields::{Connection, Depth, Line, Side, Summary, Verdict, Why};
use tcptrace_core::trace::Begin;

use super::{End, Kernel};

/// The lines of a trace, and what the simulated kernel side knows.
pub struct Said<'a> {
    pub begin: &'a Begin,
    pub lines: &'a [Line],
    pub kernel: &'a Kernel,
    pub end: End,
    pub is_wild: bool,
}

impl Said<'_> {
    pub fn check(&self) {
        assert!(matches!(self.lines.first(), Some(Line::Session(_))));
        let sessions = self
            .lines
            .iter()
            .filter(|it| matches!(it, Line::Session(_)));
        assert_eq!(sessions.count(), 1);
        let summaries = self
            .lines
            .iter()
            .filter(|it| matches!(it, Line::Summary(_)));
        assert_eq!(summaries.count(), usize::from(self.end != End::BrokenOff));
        if let Some(Line::Summary(summary)) = self.lines.last() {
            self.balance(summary);
            self.totals(summary);
        } else {
            assert_eq!(self.end, End::BrokenOff);
        }
        self.ends();
        for line in self.lines {
            match line {
                Line::Connection(line) if !self.is_wild => times(line),
                Line::Accept(line) => {
                    let blocked_ns = line.called_mono_ns.map(|ns| line.mono_ns.checked_sub(ns));
                    if !self.is_wild {
                        assert_eq!(line.blocked_ns, blocked_ns.flatten(), "{line:?}");
                    }
                }
                _ => {}
            }
        }
    }

    /// Each event is counted once: seen = filtered + emitted + lost.
    fn balance(&self, summary: &Summary) {
        assert_eq!(summary.undecodable, self.kernel.garbage);
        if self.end == End::Cut {
            assert!(summary.hook_counts.is_empty());
            return;
        }
        for (hook, counts) in &self.kernel.counts {
            let missing = self.kernel.missing.get(hook).copied().unwrap_or(0);
            let it = &summary.hook_counts[hook];
            assert_eq!(
                it.seen,
                it.filtered + it.emitted + it.lost,
                "{hook:?}: {it:?}"
            );
            assert_eq!((it.seen, it.filtered), (counts.seen, counts.filtered));
            assert_eq!((it.lost, it.unaccounted), (counts.lost + missing, missing));
            assert_eq!(self.unaccounted(*hook), missing, "{hook:?}");
        }
    }

    /// Returns the number of events that `lost` lines call unaccounted.
    fn unaccounted(&self, hook: Hook) -> u64 {
        let lost = self.lines.iter().filter_map(|line| match line {
            Line::Lost(it) if (it.hook, it.why) == (hook, Why::Unaccounted) => Some(it.count),
            _ => None,
        });
        lost.sum()
    }

    fn connections(&self) -> impl Iterator<Item = &Connection> {
        self.lines.iter().filter_map(|line| match line {
            Line::Connection(line) => Some(line),
            _ => None,
        })
    }

    /// The summary counts the `connection` lines.
    fn totals(&self, summary: &Summary) {
        let mut verdicts: BTreeMap<Verdict, u64> = BTreeMap::new();
        let [mut servers, mut clients, mut incomplete] = [0; 3];
        for line in self.connections() {
            servers += u64::from(line.subject.side == Some(Side::Server));
            clients += u64::from(line.subject.side == Some(Side::Client));
            incomplete += u64::from(!line.complete);
            assert_eq!(
                line.verdict.is_some(),
                line.subject.side == Some(Side::Server)
            );
            assert_eq!(line.reason.is_some(), line.verdict.is_some());
            if let Some(verdict) = line.verdict {
                *verdicts.entry(verdict).or_default() += 1;
            }
        }
        // At this depth, connections that went well have no line.
        if self.begin.depth == Depth::Histogram {
            assert!(summary.servers >= servers && summary.clients >= clients);
            return;
        }
        assert_eq!((summary.servers, summary.clients), (servers, clients));
        assert_eq!(summary.incomplete, incomplete);
        assert_eq!(summary.verdicts, verdicts);
        let accepted: u64 = summary.listeners.iter().map(|it| it.accepted).sum();
        let failed: u64 = summary.listeners.iter().map(|it| it.failed_accepts).sum();
        if self.begin.selection == Selection::default() && self.begin.depth == Depth::Events {
            let accepts = self.lines.iter().filter(|it| matches!(it, Line::Accept(_)));
            assert_eq!(accepted + failed, accepts.count() as u64);
        }
    }

    /// Each connection ends once, and nothing follows its end but events that need no socket.
    fn ends(&self) {
        let mut sockets: BTreeMap<u64, (bool, u32)> = BTreeMap::new();
        // Sockets of a snapshot that had no event have no `connection` line.
        let mut with_events = BTreeSet::new();
        for line in self.lines {
            let ends = match line {
                Line::Overflow(_) | Line::Segment(_) | Line::Reset(_) | Line::TimeWait(_) => {
                    continue;
                }
                // A bucket outlives its connection.
                Line::Transition(it) if it.synthetic => continue,
                Line::Connection(_) => 1,
                _ => 0,
            };
            let Some(subject) = line.subject() else {
                continue;
            };
            assert_eq!(subject.pid.is_some(), subject.pid_source.is_some());
            let Some(conn) = subject.conn else { continue };
            let listens = subject.side == Some(Side::Listener);
            let socket = sockets.entry(conn).or_insert((listens, 0));
            assert_eq!(socket.0, listens, "{conn} changed its nature");
            assert_eq!(socket.1, 0, "after the end of {conn}: {line:?}");
            socket.1 += ends;
            if !matches!(line, Line::Preexisting(_)) {
                with_events.insert(conn);
            }
        }
        let is_whole =
            self.begin.depth != Depth::Histogram && self.begin.selection == Selection::default();
        for (conn, (listens, ends)) in sockets {
            let expected = u32::from(!listens && with_events.contains(&conn));
            assert!(ends == expected || !is_whole, "{ends} ends of {conn}");
        }
    }
}

/// The times of a connection are in order, and the derived times follow from them.
fn times(line: &Connection) {
    let in_order = |early: Option<u64>, late: Option<u64>| {
        early.zip(late).is_none_or(|(early, late)| early <= late)
    };
    let is_sound = in_order(line.syn_mono_ns, line.established_mono_ns)
        && in_order(line.established_mono_ns, line.closed_mono_ns)
        && in_order(line.accept_called_mono_ns, line.accepted_mono_ns)
        && in_order(line.closed_mono_ns, Some(line.mono_ns));
    assert!(is_sound || !line.complete, "{line:?}");
    let handshake_ns = line.syn_mono_ns.zip(line.established_mono_ns);
    let handshake_ns = handshake_ns.and_then(|(syn, established)| established.checked_sub(syn));
    assert_eq!(line.handshake_ns, handshake_ns, "{line:?}");
    let wait_ns = line.established_mono_ns.zip(line.accepted_mono_ns);
    let wait_ns = wait_ns.map(|(established, accepted)| accepted.saturating_sub(established));
    assert_eq!(line.accept_queue_ns, wait_ns, "{line:?}");
}
