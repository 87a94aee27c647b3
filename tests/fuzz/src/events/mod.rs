//! Sequences of events of every kind through a whole trace, from records to the outputs.
//!
//! A simulated kernel side writes records, filters and loses events, and counts them. The lines must
//! agree with it.

mod lines;
mod outputs;
mod records;

use std::collections::BTreeMap;

use arbitrary::{Result, Unstructured};
use bytes::Bytes;
use tcptrace_core::balance::Counts;
use tcptrace_core::batch::Batch;
use tcptrace_core::correlate::Selection;
use tcptrace_core::decode::decode;
use tcptrace_core::event::{
    Holder, Holders, Hook, Loss, NetnsCounters, Note, Place, QueueCounters, SnapshotEnd, Stack,
    StackKey, State, Task, Why,
};
use tcptrace_core::fields::{Depth, Frame, Line, Side};
use tcptrace_core::trace::{Begin, Input, Settled, Small, Trace};
use tcptrace_ebpf::abi;

const START_NS: u64 = 1_000_000_000_000;

/// Upper bound on the steps of one run.
const STEPS: usize = 500;

/// Upper bound on the lines of a run for each step. A step can end all connections.
const LINES_EACH: usize = 200;

pub fn run(data: &[u8]) {
    // An error says that the bytes are used up.
    let _ = simulate(&mut Unstructured::new(data));
}

fn simulate(u: &mut Unstructured<'_>) -> Result<()> {
    let begin = begin(u)?;
    let output: u8 = u.arbitrary()?;
    let mut run = Run {
        trace: Trace::new(&begin),
        kernel: Kernel::default(),
        now_ns: START_NS,
        is_wild: u.ratio(1, 8)?,
        batch: vec![],
        lines: vec![],
    };
    for _ in 0..STEPS {
        if u.is_empty() || run.step(u).is_err() {
            break;
        }
    }
    run.flush(u64::MAX);
    let end = run.end(output);
    let said = lines::Said {
        begin: &begin,
        lines: &run.lines,
        kernel: &run.kernel,
        end,
        is_wild: run.is_wild,
    };
    said.check();
    outputs::write(output, &run.lines);
    Ok(())
}

/// The way in which the inputs end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Whole,
    Cut,
    BrokenOff,
}

fn begin(u: &mut Unstructured<'_>) -> Result<Begin> {
    let [form, without, selecting] = u.arbitrary::<[u8; 3]>()?;
    let method = if form & 1 == 0 { "fentry" } else { "syscall" };
    let hooks = Hook::ALL.into_iter().enumerate();
    // Without the first two, there is no trace.
    let hooks = hooks.map(|(n, hook)| {
        let is_missing =
            n >= 2 && without != 0 && (n as u8 ^ without).count_ones().is_multiple_of(3);
        (hook, (!is_missing).then(|| method.to_owned()))
    });
    let mut selection = Selection::default();
    match selecting {
        0..=199 => {}
        200..=209 => selection.pids = vec![1, 2],
        210..=219 => selection.sides = vec![Side::Server],
        220..=229 => selection.states = vec![State::Established, State::Close],
        230..=239 => selection.comms = vec!["a".into()],
        240..=249 => selection.traced_only = true,
        _ => selection.sides = vec![Side::Client, Side::Listener],
    }
    let filters = [("port".to_owned(), "7878".to_owned())];
    Ok(Begin {
        version: "0.2.0".into(),
        abi: abi::VERSION,
        kernel: if form & 2 == 0 { "6.18.1" } else { "6.1.0" }.into(),
        machine: "x86_64".into(),
        clock_offset_ns: START_NS,
        mono_ns: START_NS,
        depth: match form >> 2 & 7 {
            0 => Depth::Connections,
            1 => Depth::Histogram,
            _ => Depth::Events,
        },
        hooks: hooks.collect(),
        filters: filters.into_iter().filter(|_| form & 32 != 0).collect(),
        selection,
        count: (form & 192 == 192).then_some(u64::from(form >> 2 & 3)),
        why_ns: (form & 64 != 0).then_some(1_000),
        ..Begin::default()
    })
}

/// The counts of the simulated kernel side.
#[derive(Default)]
struct Kernel {
    counts: BTreeMap<Hook, Counts>,
    /// Events that were seen and are in no count.
    missing: BTreeMap<Hook, u64>,
    lost: u64,
    garbage: u64,
}

struct Run {
    trace: Trace,
    kernel: Kernel,
    now_ns: u64,
    /// True if times are any number.
    is_wild: bool,
    /// Records that are not handed over yet.
    batch: Vec<Vec<u8>>,
    lines: Vec<Line>,
}

impl Run {
    fn step(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let before = self.lines.len();
        match u.arbitrary::<u8>()? {
            0..=207 => self.record(u)?,
            208..=215 => self.flush(self.now_ns),
            216..=219 => self.flush(0),
            220..=221 => self.note(Note::Tick),
            222..=224 => {
                let [age, form] = u.arbitrary::<[u8; 2]>()?;
                self.note(Note::SnapshotEnd(SnapshotEnd {
                    netns: records::NETNS[usize::from(form & 1)],
                    began_ns: self.now_ns.saturating_sub(u64::from(age) * 50_000),
                    is_audit: form & 2 != 0,
                    is_last: form & 12 == 12,
                }));
            }
            225..=227 => {
                let holders = (0..u.int_in_range(0..=3)?).map(|_| {
                    let [sk, pid] = u.arbitrary::<[u8; 2]>()?;
                    let task = task(pid);
                    Ok(Holder {
                        sk: records::sk(sk),
                        task,
                    })
                });
                let holders = holders.collect::<Result<_>>()?;
                let began_ns = self
                    .now_ns
                    .saturating_sub(u64::from(u.arbitrary::<u8>()?) * 50_000);
                self.note(Note::Holders(Holders { began_ns, holders }));
            }
            228..=230 => {
                let counters: [u8; 4] = u.arbitrary()?;
                let [a, b, c, d] = counters.map(u64::from);
                self.note(Note::Counters(NetnsCounters {
                    netns: records::NETNS[usize::from(u.arbitrary::<bool>()?)],
                    queues: QueueCounters {
                        listen_overflows: a,
                        listen_drops: b,
                        syn_queue_drops: c,
                        syn_queue_cookies: d,
                    },
                }));
            }
            231..=232 => {
                let (hook, count): (u8, u8) = u.arbitrary()?;
                self.note(Note::Lost(Loss {
                    hook: Hook::ALL[usize::from(hook) % Hook::ALL.len()],
                    why: if count & 1 == 0 {
                        Why::RingBufferFull
                    } else {
                        Why::TooManyCalls
                    },
                    count: u64::from(count),
                }));
            }
            233 => self.note(Note::Missed),
            234..=236 => {
                self.flush(self.now_ns);
                let counts = self.kernel.counts.iter().map(|(&hook, it)| {
                    let filtered_or_lost = it.filtered + it.lost;
                    (
                        hook,
                        Settled {
                            seen: it.seen,
                            filtered_or_lost,
                        },
                    )
                });
                let counts = counts.collect();
                self.small(Small::Counted {
                    mono_ns: self.now_ns,
                    counts,
                });
            }
            237..=239 => {
                let owners = (0..u.int_in_range(0..=3)?).map(|_| {
                    let [inode, pid] = u.arbitrary::<[u8; 2]>()?;
                    Ok((u64::from(inode % 4), task(pid)))
                });
                let owners = owners.collect::<Result<_>>()?;
                self.small(Small::Import {
                    owners,
                    until_ns: self.now_ns,
                });
            }
            240..=242 => {
                let frame = |address: u8| Frame {
                    address: u64::from(address),
                    function: (address & 1 == 0).then(|| format!("f{address}")),
                    ..Frame::default()
                };
                let [key, kernel, user] = u.arbitrary::<[u8; 3]>()?;
                self.small(Small::Stacks(vec![Stack {
                    key: StackKey(records::stack_key(key)),
                    pid: u32::from(user % 4),
                    kernel: (0..kernel % 3).map(frame).collect(),
                    user: (0..user % 5).map(frame).collect(),
                }]));
            }
            243 if self.is_wild => {
                self.trace.gap();
                self.advance();
            }
            244..=247 => {
                self.trace.wants_holders();
                self.trace.wants_snapshot();
                self.trace.wants_counters();
                self.trace.wants_audit(self.now_ns, false);
                self.trace.unproven();
            }
            _ => self.now_ns += records::DELAYS_NS[usize::from(u.arbitrary::<u8>()? % 8)],
        }
        let more = self.lines.len() - before;
        assert!(more <= LINES_EACH * STEPS, "{more} lines of one step");
        Ok(())
    }

    /// Writes a record, or counts the event as filtered or lost.
    fn record(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let [delay, fate] = u.arbitrary::<[u8; 2]>()?;
        self.now_ns += records::DELAYS_NS[usize::from(delay % 4)];
        let mono_ns = match delay >> 4 {
            _ if self.is_wild && delay >= 250 => u.arbitrary()?,
            // Two CPUs reserve their records in another order than that of their clock readings.
            0 => self.now_ns - u64::from(delay) * 1_000,
            _ => self.now_ns,
        };
        let lost = self.kernel.lost as u32;
        let record = records::record(u, mono_ns, lost)?;
        let Ok(event) = decode(&record) else {
            self.kernel.garbage += 1;
            self.batch.push(record);
            return Ok(());
        };
        if let Some(hook) = event.kind.hook() {
            let counts = self.kernel.counts.entry(hook).or_default();
            counts.seen += 1;
            match fate {
                0..=3 => counts.filtered += 1,
                4 => {
                    counts.lost += 1;
                    self.kernel.lost += 1;
                }
                5 if self.is_wild => *self.kernel.missing.entry(hook).or_default() += 1,
                _ => self.batch.push(record),
            }
        }
        if self.batch.len() >= 8 {
            self.flush(self.now_ns);
        }
        Ok(())
    }

    fn flush(&mut self, complete_until_ns: u64) {
        let records = std::mem::take(&mut self.batch);
        let batch: Batch = records.iter().map(Vec::as_slice).collect();
        let batch = Batch::from_bytes(Bytes::copy_from_slice(batch.bytes()));
        self.input(&Input::Records {
            batch,
            complete_until_ns,
        });
    }

    fn note(&mut self, note: Note) {
        self.small(Small::Note {
            mono_ns: self.now_ns,
            note,
        });
    }

    fn small(&mut self, small: Small) {
        self.input(&Input::Small(small));
    }

    fn input(&mut self, input: &Input) {
        self.trace.push(input);
        self.advance();
    }

    fn advance(&mut self) {
        while self.trace.advance(&mut self.lines) {}
    }

    fn end(&mut self, form: u8) -> End {
        if form & 16 == 0 {
            self.small(Small::Ending {
                mono_ns: self.now_ns,
            });
        }
        let end = match form % 8 {
            6 => {
                self.small(Small::Cut {
                    mono_ns: self.now_ns,
                });
                End::Cut
            }
            7 => {
                self.trace.break_off();
                End::BrokenOff
            }
            _ => {
                let counts = self.kernel.counts.clone();
                self.small(Small::End { counts });
                End::Whole
            }
        };
        self.advance();
        // Inputs after the end are ignored.
        let count = self.lines.len();
        self.note(Note::Tick);
        assert_eq!(self.lines.len(), count);
        end
    }
}

/// Returns one of a few tasks. The name of one of them is hostile.
fn task(n: u8) -> Task {
    let names = ["a", "b", "\u{1b}[2J\n\"", "d"];
    let pid = u32::from(n % 4) + 1;
    Task {
        pid,
        tid: pid + u32::from(n >> 6),
        comm: names[usize::from(n % 4)].into(),
        process: names[usize::from(n >> 2 & 3)].into(),
        place: Place::default(),
    }
}
