//! Tests with random events in random order: no panic, one line per connection, totals that agree.

mod kinds;

use std::collections::BTreeMap;

use super::*;
use crate::fields::Wanted;
use crate::syscall::Machine;

/// A small generator (xorshift64), so that a failing seed fails again.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn maybe<T>(&mut self, value: T) -> Option<T> {
        (!self.one_in(4)).then_some(value)
    }

    fn state(&mut self) -> State {
        State::ALL[self.below(State::ALL.len() as u64) as usize]
    }

    /// Few kernel addresses, IP addresses and ports, so that connections collide.
    fn sock(&mut self) -> Sock {
        let addrs = ["127.0.0.1", "0.0.0.0", "::", "::1"];
        let laddr = addrs[self.below(4) as usize].parse().unwrap();
        let peer = addrs[self.below(4) as usize].parse().unwrap();
        let (lport, rport) = (self.below(3) as u16, self.below(3) as u16);
        Sock {
            sk: Sk(self.below(6)),
            tuple: Tuple {
                laddr,
                lport: self.maybe(lport),
                raddr: self.maybe(peer),
                rport: self.maybe(rport),
            },
            backlog_max: self.below(3) as u32,
        }
    }

    fn change(&mut self) -> SetState {
        let births = [(Close, SynSent), (Listen, SynRecv), (Close, Listen)];
        let steps = [
            (SynRecv, Established),
            (Established, Close),
            (Listen, Close),
        ];
        let (oldstate, newstate) = match self.below(3) {
            0 => births[self.below(3) as usize],
            1 => steps[self.below(3) as usize],
            _ => (self.state(), self.state()),
        };
        let sock = self.sock();
        let change = match self.one_in(2) {
            true => sock.enters_by(visitor(), oldstate, newstate),
            false => sock.enters(oldstate, newstate),
        };
        SetState {
            err: self.one_in(3).then_some(ECONNRESET),
            ..change
        }
    }

    fn accept(&mut self, now: u64) -> Accept {
        let listener = self.sock();
        let called = match self.below(3) {
            0 => Called::BeforeTrace,
            1 => Called::Unknown,
            _ => Called::At((now + 50 * US).saturating_sub(self.below(100) * US)),
        };
        let child = self.sock();
        let accept = match self.below(4) {
            0 => listener.fails_to_accept([11, 22][self.below(2) as usize]),
            1 => listener.accepts_fast(&child, called),
            _ => listener.accepts(&child, called),
        };
        Accept {
            listener: self.maybe(listener.sk),
            ..accept
        }
    }
}

fn run(seed: u64, events: usize) -> (Vec<Line>, Totals) {
    run_on(trace(), seed, events)
}

fn run_on(mut t: Trace, seed: u64, events: usize) -> (Vec<Line>, Totals) {
    let mut random = Random(seed);
    for _ in 0..events {
        t.wait(random.below(20) * US);
        if random.one_in(5) {
            t.now -= random.below(30) * US;
        }
        if random.one_in(50) {
            t.lost = t.lost.wrapping_add(random.below(3) as u32);
        }
        t.wait(US);
        let kind = match random.below(3) {
            // Enough accept() calls for connections to reach their end.
            0 => Kind::Accept(random.accept(t.now)),
            1 => Kind::SetState(random.change()),
            _ => random.kind(t.now),
        };
        t.event(kind);
    }
    let totals = t.finish();
    (t.lines, totals)
}

/// Checks the properties that every trace must have.
fn check(seed: u64, lines: &[Line], totals: &Totals) {
    let mut sockets: BTreeMap<u64, (bool, u32)> = BTreeMap::new();
    let mut verdicts: BTreeMap<Verdict, u64> = BTreeMap::new();
    let mut incomplete = 0;
    for line in lines {
        let (subject, connection_lines) = match line {
            // Lines of these kinds can follow the `connection` line.
            Line::Overflow(_) | Line::Segment(_) | Line::Reset(_) | Line::TimeWait(_) => continue,
            Line::Histogram(_) | Line::Stack(_) | Line::Lost(_) => continue,
            // A bucket outlives its connection.
            Line::Transition(x) if x.synthetic => continue,
            Line::Connection(x) => {
                assert_eq!(x.verdict.is_some(), x.subject.side == Some(Side::Server));
                assert_eq!(x.reason.is_some(), x.verdict.is_some());
                incomplete += u64::from(!x.complete);
                if let Some(verdict) = x.verdict {
                    *verdicts.entry(verdict).or_default() += 1;
                }
                (&x.subject, 1)
            }
            other => match other.subject() {
                Some(subject) => (subject, 0),
                None => panic!("seed {seed}: {other:?}"),
            },
        };
        assert_eq!(subject.pid.is_some(), subject.pid_source.is_some());
        let Some(conn) = subject.conn else { continue };
        let listens = subject.side == Some(Side::Listener);
        let socket = sockets.entry(conn).or_insert((listens, 0));
        assert_eq!(socket.0, listens, "seed {seed}: {conn} changed its nature");
        assert_eq!(
            socket.1, 0,
            "seed {seed}: after the end of {conn}: {line:?}"
        );
        socket.1 += connection_lines;
    }
    for (conn, (listens, connection_lines)) in sockets {
        assert_eq!(
            connection_lines,
            u32::from(!listens),
            "seed {seed}: ends of {conn}"
        );
    }
    assert_eq!(totals.verdicts, verdicts, "seed {seed}");
    assert_eq!(
        totals.servers,
        verdicts.values().sum::<u64>(),
        "seed {seed}"
    );
    assert_eq!(totals.incomplete, incomplete, "seed {seed}");

    let accepted: u64 = totals.listeners.iter().map(|l| l.accepted).sum();
    let failed: u64 = totals.listeners.iter().map(|l| l.failed_accepts).sum();
    let accepts = lines
        .iter()
        .filter(|l| matches!(l, Line::Accept(_)))
        .count();
    assert_eq!(accepted + failed, accepts as u64, "seed {seed}");
}

#[test]
fn random_events_never_panic_and_totals_agree() {
    for seed in 1..=300 {
        let (lines, totals) = run(seed * 0x9e37_79b9, 400);
        check(seed, &lines, &totals);
    }
}

/// The four times of an explanation add up to the wait, for each thread.
#[test]
fn explanations_of_random_events_add_up() {
    let mut explained = 0;
    for seed in 1..=300 {
        let mut t = trace();
        let why = Correlator::new(START).with_why(US, Machine::X86_64, true);
        t.correlator = Correlator {
            open: std::mem::take(&mut t.correlator.open),
            ..why
        };
        t.correlator.stacks(&[why::saving()]);
        let (lines, totals) = run_on(t, seed * 0x9e37_79b9, 400);
        check(seed, &lines, &totals);
        for line in &lines {
            let (late, wait_ns) = match line {
                Line::Accept(x) => (x.late.as_ref(), x.accept_queue_ns),
                Line::Connection(x) => {
                    let until_ns = x.accepted_mono_ns.or(x.closed_mono_ns).unwrap_or(x.mono_ns);
                    let since_ns = x.established_mono_ns;
                    let wait_ns = since_ns.and_then(|ns| until_ns.checked_sub(ns));
                    (x.late.as_ref(), wait_ns)
                }
                _ => continue,
            };
            assert_eq!(
                late.is_some(),
                wait_ns.is_some_and(|ns| ns > US) && is_explained(line),
                "seed {seed}: {line:?}"
            );
            let Some(late) = late else { continue };
            explained += 1;
            let wait_ns = wait_ns.unwrap();
            let sum: u64 = why::times(late).iter().sum();
            assert_eq!(sum, wait_ns, "seed {seed}: {line:?}");
            for it in &late.other_acceptors {
                let sum = it.running_ns + it.runnable_ns + it.blocked_ns + it.unseen_ns;
                assert_eq!(sum, wait_ns, "seed {seed}: {line:?}");
            }
            let reasons = late.times.largest_first();
            assert_eq!(reasons.iter().map(|(_, ns)| ns).sum::<u64>(), wait_ns);
            let places: u64 = late.acceptor_blocked_in.iter().map(|it| it.ns).sum();
            assert!(places <= late.acceptor_blocked_ns);
        }
    }
    assert!(explained > 500, "{explained}");
}

/// Returns whether the line is of a connection that was accepted, or that was never accepted for
/// certain.
fn is_explained(line: &Line) -> bool {
    match line {
        Line::Accept(x) => x.accept_error.is_none(),
        Line::Connection(x) => {
            x.accepted_mono_ns.is_some() || x.verdict == Some(Verdict::NeverAccepted)
        }
        _ => false,
    }
}

#[test]
fn packed_connections_give_the_same_lines() {
    for seed in 1..=50 {
        let mut unpacked = trace();
        unpacked.correlator.open = Table::default();
        assert_eq!(run_on(unpacked, seed, 400), run(seed, 400));
    }
}

#[test]
fn same_events_give_the_same_lines() {
    assert_eq!(run(42, 2_000), run(42, 2_000));
}

/// Returns the lines without the text fields that follow from other fields.
fn without_words(lines: impl IntoIterator<Item = Line>) -> Vec<Line> {
    let mut lines: Vec<Line> = lines.into_iter().collect();
    for line in &mut lines {
        match line {
            Line::Connection(x) => {
                x.reason.take_if(|_| x.reason_follows);
                x.evidence = x
                    .evidence
                    .take()
                    .filter(|_| x.verdict == Some(Verdict::Unfinished));
            }
            Line::Accept(x) => x.reason = None,
            _ => {}
        }
    }
    lines
}

/// Unwanted kinds are left out, and the other lines and the totals stay the same.
#[test]
fn unwanted_kinds_do_not_change_other_lines() {
    use fields::Kind;
    let only = |kinds: &[Kind]| kinds.iter().copied().collect::<Wanted>();
    let cases = [
        Wanted::NOTHING,
        Wanted::LINES,
        only(&[Kind::Connection]),
        only(&[Kind::Transition]),
        only(&[Kind::Accept, Kind::Reset]),
        only(&[Kind::Connection, Kind::Segment, Kind::TimeWait]),
    ];
    for seed in 1..=40 {
        let (all, totals) = run(seed, 400);
        for wanted in cases {
            let mut t = trace();
            t.correlator.wanted = wanted;
            let (lines, counted) = run_on(t, seed, 400);
            let expected = all.iter().filter(|line| wanted.has(line.kind())).cloned();
            let (lines, expected) = (without_words(lines), without_words(expected));
            for (line, expected) in lines.iter().zip(&expected) {
                assert_eq!(line, expected, "seed {seed}, {wanted:?}");
            }
            assert_eq!(lines.len(), expected.len(), "seed {seed}, {wanted:?}");
            assert_eq!(counted, totals, "seed {seed}, {wanted:?}");
        }
    }
}

/// Text that follows from other fields is not made if no reader wants it.
#[test]
fn words_are_made_only_if_wanted_or_not_derivable() {
    let mut t = accepted();
    t.correlator.wanted = Wanted::LINES;
    t.set(child(2).enters(Established, Close));
    let line = t.connection(2);
    assert_eq!(
        (line.verdict, line.reason_follows),
        (Some(Verdict::Queued), true)
    );
    assert_eq!((&line.reason, &line.evidence), (&None, &None));
}
