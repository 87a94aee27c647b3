//! Memory tests. In the steady state, decoding and correlating an event allocates nothing except
//! the two texts of a verdict, because connection records are reused. A million open connections
//! fit in 256 MiB.

#[path = "../benches/stream/mod.rs"]
mod stream;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::Ipv4Addr;

use tcptrace::correlate::Correlator;
use tcptrace::decode::decode;
use tcptrace::event::{
    Accept, Called, Comm, Context, Event, Hook, Kind, Outcome, SetState, Sk, State, Task, Tuple,
    Witness,
};
use tcptrace::fields::{Kind as LineKind, Line, Verdict, Wanted};

use stream::{ATTACHED_NS, Stream};

/// The system's allocator, which counts the allocations of each thread.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    /// Allocated bytes, with the rounding of the system's allocator.
    static IN_USE: Cell<i64> = const { Cell::new(0) };
}

/// Adds the size of a block: 8 bytes of overhead, rounded up to a multiple of 16 (glibc on 64
/// bits).
fn add(size: usize, sign: i64) {
    let block = (size + 8).next_multiple_of(16).max(32) as i64;
    IN_USE.set(IN_USE.get() + sign * block);
}

// SAFETY: every call is forwarded to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        add(layout.size(), 1);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        add(layout.size(), -1);
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        add(layout.size(), -1);
        add(size, 1);
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(at, layout, size) }
    }
}

/// Returns the number of allocations of `work`.
fn allocations(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

#[test]
fn the_allocator_counts_an_allocation() {
    assert_eq!(allocations(|| drop(std::hint::black_box(vec![1]))), 1);
}

#[test]
fn decoding_allocates_nothing() {
    let stream = Stream::of(100);
    let count = allocations(|| {
        for record in stream.records() {
            let _ = std::hint::black_box(decode(record).expect("a sound record"));
        }
    });
    assert_eq!(count, 0);
}

#[test]
fn correlating_allocates_only_the_texts_of_a_verdict() {
    correlating_allocates(Wanted::ALL, 2);
}

/// JSON output does not need the sentences that can be derived from the verdict and the times.
#[test]
fn correlating_without_words_allocates_nothing() {
    correlating_allocates(Wanted::LINES, 0);
}

/// No line except the summary is needed.
#[test]
fn correlating_for_a_summary_makes_no_lines() {
    correlating_allocates(Wanted::kind(LineKind::Summary), 0);
}

/// Correlates a stream and checks that each verdict takes at most `most` allocations: for its
/// reason and for the names of its evidence. The waits of a listener are counted in batches, which
/// takes some more: less than one for each 25 connections.
fn correlating_allocates(wanted: Wanted, most: u64) {
    const CONNECTIONS: u64 = 2_000;
    let stream = Stream::of(CONNECTIONS);
    let mut events: Vec<_> = stream
        .records()
        .map(|record| decode(record).expect("a sound record"))
        .collect();
    events.sort_by_key(|event| event.mono_ns);
    let (warm_up, steady) = events.split_at(events.len() / 2);
    let hooks = [Hook::InetSockSetState, Hook::InetCskAccept];
    let correlator = Correlator::new(ATTACHED_NS).with_hooks(hooks);
    let mut correlator = correlator.with_wanted(wanted);
    let mut lines = Vec::with_capacity(16);
    for event in warm_up {
        correlator.event(event, &mut lines);
        lines.clear();
    }
    let mut verdicts = 0;
    let mut for_batches = 0;
    for event in steady {
        let count = allocations(|| correlator.event(event, &mut lines));
        assert!(
            lines.iter().all(|line| wanted.has(line.kind())),
            "{lines:?}"
        );
        let judged = lines.iter().filter(|line| is_judged(line)).count() as u64;
        for_batches += count.saturating_sub(judged * most);
        verdicts += judged;
        lines.clear();
    }
    assert!(for_batches <= CONNECTIONS / 2 / 25, "{for_batches}");
    // A verdict is reported when accept() returns and at the end. Some connections cross the middle
    // of the stream.
    match wanted.has(LineKind::Connection) {
        true => assert!(verdicts >= 1_900, "{verdicts}"),
        false => assert_eq!(verdicts, 0),
    }
}

fn is_judged(line: &Line) -> bool {
    match line {
        Line::Accept(accept) => accept.verdict.is_some(),
        Line::Connection(connection) => connection.verdict.is_some(),
        _ => false,
    }
}

/// Tests half of the connections in half of the memory, which fills the hash table to the same
/// share.
#[test]
fn a_million_open_connections_have_room_in_256_mib() {
    const MANY: u32 = 1_000_000 / 2;
    const BYTES: i64 = (256 << 20) / 2;
    let before = IN_USE.get();
    let hooks = [Hook::InetSockSetState, Hook::InetCskAccept];
    let mut correlator = Correlator::new(ATTACHED_NS).with_hooks(hooks);
    let mut lines = vec![];
    let mut event = |mono_ns, kind| {
        let event = Event {
            mono_ns,
            cpu: 1,
            lost: 0,
            kind,
        };
        correlator.event(&event, &mut lines);
        lines.clear();
    };
    // Times half a day after boot.
    let mut now_ns = ATTACHED_NS + 43_200_000_000_000;
    for n in 0..MANY {
        now_ns += 600_000;
        let child = Child(n);
        event(now_ns, child.enters(State::Listen, State::SynRecv));
        event(
            now_ns + 4_000,
            child.enters(State::SynRecv, State::Established),
        );
        event(now_ns + 300_000, child.is_accepted(now_ns + 290_000));
    }
    let bytes = IN_USE.get() - before;
    assert!(bytes < BYTES, "{bytes} bytes");

    // No connection was evicted. Reporting all of them needs no more memory.
    let mut reported = 0;
    while correlator.end_some(1_000, now_ns + 1_000_000, 0, &mut lines) {
        let bytes = IN_USE.get() - before;
        assert!(bytes < BYTES, "{bytes} bytes after {reported}");
        reported += lines.drain(..).count() as u32;
    }
    let totals = correlator.finish(now_ns + 1_000_000, 0, &mut lines);
    assert_eq!(reported + lines.len() as u32, MANY);
    assert_eq!((totals.servers, totals.evicted), (MANY.into(), 0));
    assert_eq!(totals.verdicts, [(Verdict::Queued, MANY.into())].into());
}

/// An accepted connection from a distinct remote address.
struct Child(u32);

impl Child {
    fn sk(&self) -> Sk {
        Sk(0xffff_8880_0000_0000 + u64::from(self.0) * 0x980)
    }

    fn tuple(&self) -> Tuple {
        Tuple {
            laddr: Ipv4Addr::new(10, 1, 2, 3).into(),
            lport: Some(443),
            raddr: Some(Ipv4Addr::from_bits(0xc000_0000 + self.0).into()),
            rport: Some(32_768 + (self.0 % 28_000) as u16),
        }
    }

    fn enters(&self, oldstate: State, newstate: State) -> Kind {
        Kind::SetState(SetState {
            sk: self.sk(),
            cookie: Some(1_000 + u64::from(self.0)),
            cgroup: Some(6_425),
            netns: 4_026_531_840,
            tuple: self.tuple(),
            scope: None,
            oldstate,
            newstate,
            context: Some(Context::Softirq),
            task: None,
            backlog_len: 3,
            backlog_max: 4_096,
            held: false,
            fin_received: false,
            orphaned: false,
            srtt_ns: Some(23_456_000),
            uid: 33,
            err: None,
            stats: None,
            listen: None,
            no_fast_open: false,
            repair: false,
            fastopen_connect: false,
            fin_uncounted: false,
            clone_of: None,
        })
    }

    fn is_accepted(&self, called_ns: u64) -> Kind {
        Kind::Accept(Accept {
            outcome: Outcome::Accepted {
                sk: self.sk(),
                cookie: Some(1_000 + u64::from(self.0)),
                tuple: self.tuple(),
                state: Some(State::Established),
                fastopen: false,
                wrapped: false,
            },
            listener: Some(Sk(0xffff_8880_0001_0000)),
            listener_addr: Ipv4Addr::UNSPECIFIED.into(),
            listener_port: Some(443),
            netns: 4_026_531_840,
            called: Called::At(called_ns),
            witness: Witness::SysExit,
            task: Task {
                pid: 471_100,
                tid: 471_123,
                comm: Comm::from("nginx"),
                process: Comm::from("nginx"),
                ..Task::default()
            },
            backlog_len: 2,
            backlog_max: 4_096,
        })
    }
}
