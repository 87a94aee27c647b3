//! Measures the times and counts of `--expect` from the lines of a trace.

use hdrhistogram::Histogram;

use super::{Expectation, Quantity, Share};
use crate::duration::Human;
use crate::event::Hook;
use crate::fields::{
    self, Connection, Depth, LateReason, LateTimes, Line, NetnsCounters, QueueCounters, Session,
    Side, Subject, Summary, Times, Verdict,
};

/// Bounds on a measured time or count, from what was observed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measure {
    /// Lower bound.
    pub least: u64,
    /// Upper bound; `None` if unknown.
    pub most: Option<u64>,
    /// Why the bounds differ.
    pub why: Option<String>,
}

impl Measure {
    fn exact(n: u64) -> Measure {
        Measure {
            least: n,
            most: Some(n),
            why: None,
        }
    }

    fn at_least(n: u64, why: &str) -> Measure {
        Measure {
            least: n,
            most: None,
            why: Some(why.to_owned()),
        }
    }

    fn unknown(why: &str) -> Measure {
        Measure::at_least(0, why)
    }
}

/// The measurements of a trace so far.
pub struct Measured {
    session: Option<Session>,
    summary: Option<Summary>,
    /// The trace continues after judging (`--trigger`). A wait is recorded when accept() returns,
    /// not when its connection ends.
    is_live: bool,
    /// Counts of the whole trace (`None`), and of each port that an expectation names.
    scopes: Vec<(Option<u16>, Counts)>,
}

/// Counts of one port, or of the whole trace.
struct Counts {
    servers: u64,
    clients: u64,
    accepted: u64,
    verdicts: [u64; Verdict::ALL.len()],
    overflows: u64,
    half_open_failed: u64,
    failed_accepts: u64,
    retransmits: u64,
    resets: u64,
    incomplete: u64,
    accept_queue: Waits,
    handshake: Waits,
    late: LateTimes,
}

/// A distribution of times in nanoseconds, with a precision of 0.1 %.
struct Waits {
    times: Histogram<u64>,
    max_ns: u64,
    /// Some times are upper bounds of histogram buckets.
    bucketed: bool,
}

impl Waits {
    fn new() -> Waits {
        Waits {
            times: Histogram::new(3).expect("three significant digits are within 0..=5"),
            max_ns: 0,
            bucketed: false,
        }
    }

    fn record(&mut self, ns: u64, count: u64) {
        self.max_ns = self.max_ns.max(ns);
        self.times
            .record_n(ns, count)
            .expect("a histogram that resizes takes every value");
    }

    fn record_all(&mut self, times: &Times) {
        self.bucketed = true;
        for &(end_ns, count) in &times.buckets {
            self.record(end_ns.min(times.max_ns), count);
        }
    }

    /// Returns a quantile of the times, or `None` if there are none.
    fn of(&self, share: Share) -> Option<u64> {
        let quantile = |share| self.times.value_at_quantile(share).min(self.max_ns);
        (!self.times.is_empty()).then(|| match share {
            Share::P50 => quantile(0.50),
            Share::P90 => quantile(0.90),
            Share::P99 => quantile(0.99),
            Share::Max => self.max_ns,
        })
    }
}

impl Counts {
    fn new() -> Counts {
        Counts {
            servers: 0,
            clients: 0,
            accepted: 0,
            verdicts: [0; Verdict::ALL.len()],
            overflows: 0,
            half_open_failed: 0,
            failed_accepts: 0,
            retransmits: 0,
            resets: 0,
            incomplete: 0,
            accept_queue: Waits::new(),
            handshake: Waits::new(),
            late: LateTimes::default(),
        }
    }

    fn verdict(&mut self, verdict: Verdict) -> &mut u64 {
        let at = Verdict::ALL.iter().position(|it| *it == verdict);
        &mut self.verdicts[at.expect("ALL has every verdict")]
    }

    fn line(&mut self, line: &Line, is_live: bool) {
        match line {
            Line::Accept(x) => {
                add(
                    &mut self.failed_accepts,
                    u64::from(x.accept_error.is_some()),
                );
                if let (true, Some(ns)) = (is_live, x.accept_queue_ns) {
                    self.accept_queue.record(ns, 1);
                }
                if let (true, Some(late)) = (is_live, &x.late) {
                    self.late.add_all(&late.times);
                }
            }
            Line::Overflow(_) => self.overflows += 1,
            Line::Retransmit(_) => self.retransmits += 1,
            Line::Reset(_) => self.resets += 1,
            Line::Connection(x) => self.connection(x, is_live),
            Line::Histogram(x) => self.histogram(x),
            _ => {}
        }
    }

    fn connection(&mut self, x: &Connection, is_live: bool) {
        match x.subject.side {
            Some(Side::Client) => add(&mut self.clients, 1),
            Some(Side::Server) => add(&mut self.servers, 1),
            _ => {}
        }
        add(&mut self.incomplete, u64::from(!x.complete));
        if let Some(ns) = x.handshake_ns {
            self.handshake.record(ns, 1);
        }
        if let (false, Some(ns)) = (is_live, x.accept_queue_ns) {
            self.accept_queue.record(ns, 1);
        }
        let is_counted = is_live && x.accepted_mono_ns.is_some();
        if let (false, Some(late)) = (is_counted, &x.late) {
            self.late.add_all(&late.times);
        }
        if let Some(verdict) = x.verdict {
            add(self.verdict(verdict), 1);
            add(&mut self.accepted, u64::from(x.accepted_mono_ns.is_some()));
            let failed = verdict == Verdict::Unfinished && x.closed_mono_ns.is_some();
            add(&mut self.half_open_failed, u64::from(failed));
        }
    }

    fn histogram(&mut self, x: &fields::Histogram) {
        match x.side {
            Side::Client => add(&mut self.clients, x.went_well),
            _ => {
                add(&mut self.servers, x.went_well);
                add(&mut self.accepted, x.went_well);
                add(self.verdict(Verdict::Queued), x.queued.unwrap_or(0));
                add(self.verdict(Verdict::Awaited), x.awaited.unwrap_or(0));
            }
        }
        if let Some(times) = &x.handshake {
            self.handshake.record_all(times);
        }
        if let Some(times) = &x.accept_queue {
            self.accept_queue.record_all(times);
        }
        if let Some(late) = &x.late {
            self.late.add_all(late);
        }
    }
}

/// Returns the server port of a line's connection or listener.
fn port(line: &Line) -> Option<u16> {
    if let Line::Histogram(x) = line {
        return Some(x.port);
    }
    let Subject {
        side, lport, rport, ..
    } = line.subject()?;
    match side {
        Some(Side::Client) => *rport,
        _ => *lport,
    }
}

impl Measured {
    /// Measures the times and counts that these expectations compare.
    pub fn new(expectations: &[Expectation]) -> Measured {
        let mut ports: Vec<Option<u16>> = expectations.iter().map(|it| it.port()).collect();
        ports.sort_unstable();
        ports.dedup();
        let scopes = ports.into_iter().map(|port| (port, Counts::new()));
        Measured {
            session: None,
            summary: None,
            is_live: false,
            scopes: scopes.collect(),
        }
    }

    /// Measures a part of a trace that continues. `session` is the first line of the trace.
    pub fn live(expectations: &[Expectation], session: &Session) -> Measured {
        Measured {
            session: Some(session.clone()),
            summary: Some(Summary::default()),
            is_live: true,
            ..Measured::new(expectations)
        }
    }

    /// Takes the next line of the trace.
    pub fn line(&mut self, line: &Line) {
        match line {
            Line::Session(x) => self.session = Some(x.clone()),
            Line::Summary(x) => self.summary = Some(x.clone()),
            Line::Lost(x) if self.is_live => {
                let summary = self.summary.get_or_insert_default();
                let count = summary.hook_counts.entry(x.hook).or_default();
                count.lost = count.lost.saturating_add(x.count);
            }
            line => {
                let is_live = self.is_live;
                let at = port(line);
                let scopes = self.scopes.iter_mut();
                let scopes = scopes.filter(|(port, _)| port.is_none() || *port == at);
                scopes.for_each(|(_, counts)| counts.line(line, is_live));
            }
        }
    }

    /// Returns the bounds of a time or count at a port, or of the whole trace.
    pub fn measure(&self, quantity: Quantity, port: Option<u16>) -> Measure {
        let scope = self.scopes.iter().find(|(it, _)| *it == port);
        let (Some((_, counts)), Some(session)) = (scope, &self.session) else {
            return Measure::unknown("there was no trace");
        };
        let Some(summary) = &self.summary else {
            return Measure::unknown(
                "the trace has no end: its last line, the summary, is missing",
            );
        };
        if quantity == Quantity::Lost {
            return Measure::exact(sum(summary.hook_counts.values().map(|count| count.lost)));
        }
        let by_hook = sees(session, Hook::ListenOverflow);
        if quantity == Quantity::Overflows && !by_hook && !summary.netns_counters.is_empty() {
            return by_counters(session, summary, port);
        }
        let measure = self.observed(quantity, counts, session, summary, port);
        match incomplete(summary) {
            None => measure,
            // With the lost events, a count or a maximum can only be higher. A quantile can be
            // higher or lower.
            Some(why) => match quantity {
                Quantity::AcceptQueue(share) | Quantity::Handshake(share)
                    if share != Share::Max =>
                {
                    Measure::unknown(&why)
                }
                _ => Measure::at_least(measure.least, &why),
            },
        }
    }

    /// Like `measure`, but assumes that no events were lost.
    fn observed(
        &self,
        quantity: Quantity,
        counts: &Counts,
        session: &Session,
        summary: &Summary,
        port: Option<u16>,
    ) -> Measure {
        if let Some(why) = unseen(quantity, session) {
            return Measure::unknown(&why);
        }
        match quantity {
            Quantity::AcceptQueue(share) => {
                // The listeners' maximum waits are exact at every depth.
                let listeners = summary.listeners.iter();
                let mine = listeners.filter(|it| port.is_none() || it.lport == port);
                let exact = match share {
                    Share::Max => mine.filter_map(|it| it.accept_queue_max_ns).max(),
                    _ => None,
                };
                exact.map_or_else(
                    || {
                        time(
                            &counts.accept_queue,
                            share,
                            "no accept-queue wait was measured",
                        )
                    },
                    Measure::exact,
                )
            }
            Quantity::Handshake(share) => {
                time(&counts.handshake, share, "no handshake was measured")
            }
            Quantity::Connections => Measure::exact(counts.servers.saturating_add(counts.clients)),
            Quantity::Servers => Measure::exact(counts.servers),
            Quantity::Clients => Measure::exact(counts.clients),
            Quantity::Accepted => Measure::exact(counts.accepted),
            Quantity::FailedAccepts => Measure::exact(counts.failed_accepts),
            Quantity::Incomplete => Measure::exact(counts.incomplete),
            Quantity::Verdict(verdict) => {
                let at = Verdict::ALL.iter().position(|it| *it == verdict);
                let n = counts.verdicts[at.expect("ALL has every verdict")];
                match verdict {
                    Verdict::Unfinished if !sees(session, Hook::RequestSock) => {
                        let why = "half-open connections are not seen, except where a SYN-ACK was \
                                   sent again";
                        Measure::at_least(n, why)
                    }
                    _ => Measure::exact(n),
                }
            }
            Quantity::Overflows => Measure::exact(counts.overflows),
            Quantity::HalfOpenFailed => Measure::exact(counts.half_open_failed),
            Quantity::Retransmits => Measure::exact(counts.retransmits),
            Quantity::Resets => Measure::exact(counts.resets),
            Quantity::LateConnections => Measure::exact(counts.late.late_connections),
            Quantity::Late(reason) => late(&counts.late, reason),
            Quantity::Lost => unreachable!("`measure` handles it"),
        }
    }
}

/// Returns the bounds of the waiting time of a reason. Time without knowledge about an acceptor may
/// belong to any reason.
fn late(times: &LateTimes, reason: LateReason) -> Measure {
    let (ns, unseen_ns) = (times.of(reason), times.of(LateReason::Unseen));
    if reason == LateReason::Unseen || unseen_ns == 0 {
        return Measure::exact(ns);
    }
    Measure {
        least: ns,
        most: Some(ns.saturating_add(unseen_ns)),
        why: Some(format!(
            "the reasons of {} of waiting time are not known",
            Human(unseen_ns)
        )),
    }
}

/// Returns true if a hook is attached.
fn sees(session: &Session, hook: Hook) -> bool {
    matches!(session.hooks.get(&hook), Some(Some(_)))
}

/// Returns the reason why no line of a trace can show a quantity, if there is one. The counters of the
/// network namespaces may still have bounds on it, at the end of the trace.
pub fn unseen(quantity: Quantity, session: &Session) -> Option<String> {
    let is_lighter = session.depth != Depth::Events;
    let unless = |hook, what: &str| {
        let why = format!("{what} cannot be seen on this kernel");
        (!sees(session, hook)).then_some(why)
    };
    let one_by_one = |hook, what: &str| match is_lighter {
        true => Some(format!(
            "{what} are not reported one by one at this --depth"
        )),
        false => unless(hook, what),
    };
    match quantity {
        Quantity::AcceptQueue(_)
        | Quantity::Accepted
        | Quantity::FailedAccepts
        | Quantity::Verdict(
            Verdict::Queued
            | Verdict::Awaited
            | Verdict::FastOpen
            | Verdict::Overlapped
            | Verdict::NeverAccepted,
        ) => {
            let why = "no hook of this trace sees accept()";
            (!sees(session, Hook::InetCskAccept)).then(|| why.to_owned())
        }
        Quantity::Overflows => unless(Hook::ListenOverflow, "segments that meet a full queue"),
        Quantity::HalfOpenFailed => unless(Hook::RequestSock, "half-open connections"),
        Quantity::Retransmits => one_by_one(Hook::TcpRetransmitSkb, "retransmissions"),
        Quantity::Resets => one_by_one(Hook::TcpReset, "RSTs"),
        Quantity::LateConnections | Quantity::Late(_) => {
            let why = "only --why explains waits in the accept queue";
            session.why_ns.is_none().then(|| why.to_owned())
        }
        _ => None,
    }
}

/// Returns bounds on the segments that met a full queue, from the counters of the network
/// namespaces.
fn by_counters(session: &Session, summary: &Summary, port: Option<u16>) -> Measure {
    let all = &summary.netns_counters;
    let sum = |of: fn(&NetnsCounters) -> &Option<QueueCounters>| {
        let counts = all.iter().map(move |it| of(it).as_ref());
        counts.map(|it| it.map(|it| it.listen_overflows.saturating_add(it.syn_queue_drops)))
    };
    // The counters cover every listener of a namespace, including listeners that are not traced.
    let counts_no_others = session.filters.is_empty() && port.is_none();
    let least = sum(|it| &it.at_least).flatten().sum();
    let most: Option<u64> = sum(|it| &it.at_most).sum();
    let why = match counts_no_others {
        true => "only the counters of the network namespaces show them",
        false => "only the counters of the network namespaces show them, for all listeners there",
    };
    Measure {
        least: if counts_no_others { least } else { 0 },
        most,
        why: Some(format!(
            "no hook sees segments that meet a full queue; {why}"
        )),
    }
}

fn time(waits: &Waits, share: Share, none: &str) -> Measure {
    match waits.of(share) {
        None => Measure::unknown(none),
        Some(ns) if waits.bucketed => Measure {
            // The width of a bucket is at most an eighth of its lower bound.
            least: ns - ns / 9,
            most: Some(ns),
            why: Some("--depth histogram has only the bounds of buckets".to_owned()),
        },
        Some(ns) => Measure::exact(ns),
    }
}

/// Returns why something may be missing from the trace, or `None` if it is complete.
fn incomplete(summary: &Summary) -> Option<String> {
    let hooks = || summary.hook_counts.values();
    let lost = sum(hooks().map(|count| count.lost));
    let missed = sum(hooks().filter_map(|count| count.recursion_misses));
    let lines = summary.dropped_lines;
    let undecodable = summary.undecodable;
    let (n, what) = [
        (lost, "events were lost"),
        (missed, "runs of a hook were skipped by the kernel"),
        (summary.evicted_connections, "open connections were evicted"),
        (summary.late, "events came too late to be put in order"),
        (lines, "lines were dropped"),
        (undecodable, "records could not be read"),
    ]
    .into_iter()
    .find(|(n, _)| *n > 0)?;
    Some(format!("{n} {what}"))
}

/// Adds with saturation, because a recording may contain any numbers.
fn add(count: &mut u64, more: u64) {
    *count = count.saturating_add(more);
}

fn sum(counts: impl Iterator<Item = u64>) -> u64 {
    counts.fold(0, u64::saturating_add)
}
