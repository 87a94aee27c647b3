//! Random events of every kind.

use super::super::{queues, requests, segments};
use super::*;
use crate::event::{
    CloneOf, Direction, Hook, ListenQueue, Loss, NetnsCounters, OffCpu, Overflow, OverflowSegment,
    QueueCounters, Request, RequestStep, Reset, Retransmit, Retransmitted, Sched, SchedStep,
    Segment, SnapshotEnd, SnapshotEntry, StackKey, Syscall, Task, Timewait, TimewaitStep, Why,
};

/// Number of kinds of events.
const KINDS: usize = 17;

/// Returns the index of a kind in [`Random::kind`]. A new kind does not compile without one.
fn place(kind: &Kind) -> usize {
    match kind {
        Kind::SetState(_) => 0,
        Kind::Accept(_) => 1,
        Kind::Retransmit(_) => 2,
        Kind::Reset(_) => 3,
        Kind::Request(_) => 4,
        Kind::Overflow(_) => 5,
        Kind::Timewait(_) => 6,
        Kind::SnapshotEntry(_) => 7,
        Kind::Note(Note::SnapshotEnd(_)) => 8,
        Kind::Process(_) => 9,
        Kind::Note(Note::Holders(_)) => 10,
        Kind::Segment(_) => 11,
        Kind::Note(Note::Counters(_)) => 12,
        Kind::Note(Note::Tick) => 13,
        Kind::Note(Note::Lost(_)) => 14,
        Kind::Sched(_) => 15,
        Kind::Note(Note::Missed) => KINDS - 1,
    }
}

impl Random {
    fn among<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }

    /// Returns an event of any kind. Half of the events are transitions, so that the other events
    /// find sockets.
    pub fn kind(&mut self, now: u64) -> Kind {
        match self.below(2 * KINDS as u64) as usize {
            1 => Kind::Accept(self.accept(now)),
            2 => Kind::Retransmit(self.retransmit()),
            3 => Kind::Reset(self.reset()),
            4 => Kind::Request(self.request()),
            5 => Kind::Overflow(self.overflow()),
            6 => Kind::Timewait(self.timewait()),
            7 => Kind::SnapshotEntry(self.entry()),
            8 => Kind::Note(Note::SnapshotEnd(self.snapshot_end(now))),
            9 => Kind::Process(self.process()),
            10 => Kind::Note(Note::Holders(self.holders(now))),
            11 => Kind::Segment(self.segment()),
            12 => Kind::Note(Note::Counters(self.counters())),
            13 => Kind::Note(Note::Tick),
            14 => Kind::Note(Note::Lost(self.loss())),
            15 => Kind::Sched(self.sched()),
            16 => Kind::Note(Note::Missed),
            _ => Kind::SetState(self.change()),
        }
    }

    fn sched(&mut self) -> Sched {
        let tid = 1 + self.below(4) as u32;
        let syscall = self.among(&[None, Some(Syscall::None), Some(Syscall::Number(202))]);
        let stack = self.among(&[None, Some(StackKey(1)), Some(StackKey(2))]);
        let task = Task {
            pid: tid,
            tid,
            ..Task::default()
        };
        let sk = self.sock().sk;
        let listener = self.among(&[None, Some(sk)]);
        let off = self.among(&[
            OffCpu::Runnable { throttled: false },
            OffCpu::Runnable { throttled: true },
            OffCpu::Interruptible,
            OffCpu::Uninterruptible,
            OffCpu::Stopped,
            OffCpu::Traced,
            OffCpu::Frozen,
            OffCpu::Dead,
        ]);
        let step = match self.below(5) {
            0 => SchedStep::Enrolled {
                task,
                listener,
                listens: self.one_in(2),
            },
            1 => SchedStep::In,
            2 => SchedStep::Waking { by: task, syscall },
            3 => SchedStep::Sample {
                is_user: self.below(2) == 0,
                syscall,
                stack,
            },
            _ => SchedStep::Out {
                off,
                syscall,
                stack,
            },
        };
        Sched {
            tid,
            pid: tid,
            step,
        }
    }

    fn retransmit(&mut self) -> Retransmit {
        let sock = self.sock();
        use Retransmitted::*;
        Retransmit {
            sk: sock.sk,
            cookie: None,
            netns: NETNS,
            tuple: sock.tuple,
            state: self.state(),
            what: self.among(&[Syn, SynAck, Fin, Data]),
            retransmits: self.below(4) as u32,
        }
    }

    fn reset(&mut self) -> Reset {
        let sock = self.sock();
        let state = self.state();
        Reset {
            sk: self.maybe(sock.sk),
            cookie: None,
            netns: NETNS,
            tuple: sock.tuple,
            state: self.maybe(state),
            direction: self.among(&[Direction::Sent, Direction::Received]),
            reason: self.one_in(2).then_some(13),
        }
    }

    fn request(&mut self) -> Request {
        let step = self.among(&[
            RequestStep::Begun,
            RequestStep::Cloning(CloneOf::Request),
            RequestStep::Cloning(CloneOf::Cookie),
            RequestStep::Cloning(CloneOf::FastOpen),
            RequestStep::SynackRetransmitted,
            requests::TIMEOUT,
            requests::DROPPED,
        ]);
        let child = self.sock();
        Request {
            req: Sk(self.below(4)),
            sk: Sk(self.below(6)),
            ..requests::request(&child, step)
        }
    }

    fn overflow(&mut self) -> Overflow {
        let segment = self.among(&[OverflowSegment::Syn, OverflowSegment::Ack]);
        let child = self.sock();
        Overflow {
            listener: Sk(self.below(6)),
            queue: self.among(&[ListenQueue::Accept, ListenQueue::Syn]),
            ..requests::overflow(&child, segment, self.one_in(2))
        }
    }

    fn timewait(&mut self) -> Timewait {
        let sock = self.sock();
        Timewait {
            tw: Sk(self.below(4)),
            sk: self.maybe(sock.sk),
            cookie: None,
            netns: NETNS,
            tuple: sock.tuple,
            step: self.among(&[
                TimewaitStep::Begun,
                TimewaitStep::Restarted,
                TimewaitStep::Expired,
                TimewaitStep::Killed { syn: true },
                TimewaitStep::Killed { syn: false },
                TimewaitStep::Taken,
                TimewaitStep::Purged,
            ]),
            substate: self.among(&[FinWait2, TimeWait]),
        }
    }

    fn entry(&mut self) -> SnapshotEntry {
        let sock = self.sock();
        SnapshotEntry {
            state: self.state(),
            is_bucket: self.one_in(4),
            ..queues::seen(&sock, self.one_in(2))
        }
    }

    fn snapshot_end(&mut self, now: u64) -> SnapshotEnd {
        SnapshotEnd {
            netns: NETNS,
            began_ns: now.saturating_sub(self.below(50) * US),
            is_audit: self.one_in(2),
            is_last: false,
        }
    }

    fn process(&mut self) -> Process {
        let comm = Comm::from("renamed");
        Process {
            pid: self.among(&[server().pid, visitor().pid, 1]),
            step: self.among(&[ProcessStep::Exited, ProcessStep::Renamed { comm }]),
        }
    }

    fn holders(&mut self, now: u64) -> Holders {
        let holders = (0..self.below(3)).map(|_| Holder {
            sk: Sk(self.below(6)),
            task: self.among(&[server(), visitor()]),
        });
        Holders {
            holders: holders.collect(),
            began_ns: now.saturating_sub(self.below(50) * US),
        }
    }

    fn segment(&mut self) -> Segment {
        let sock = self.sock();
        let (seq, ack) = (self.below(4) as u32, self.below(4) as u32);
        let sent = segments::sent(&sock, self.below(32) as u8, seq, ack);
        Segment {
            direction: self.among(&[Direction::Sent, Direction::Received]),
            sk: self.maybe(sock.sk),
            ..sent
        }
    }

    fn loss(&mut self) -> Loss {
        Loss {
            hook: self.among(&Hook::ALL),
            why: self.among(&[Why::RingBufferFull, Why::TooManyCalls, Why::Unaccounted]),
            count: 1 + self.below(9),
        }
    }

    fn counters(&mut self) -> NetnsCounters {
        NetnsCounters {
            netns: NETNS,
            queues: QueueCounters {
                listen_overflows: self.below(9),
                listen_drops: self.below(9),
                syn_queue_drops: self.below(9),
                syn_queue_cookies: self.below(9),
            },
        }
    }
}

#[test]
fn random_generator_makes_every_kind_of_event() {
    let mut random = Random(1);
    let places = (0..2_000).map(|_| place(&random.kind(START)));
    let made: std::collections::BTreeSet<usize> = places.collect();
    assert_eq!(made, (0..KINDS).collect());
}
