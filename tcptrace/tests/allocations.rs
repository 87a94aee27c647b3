//! In the steady state, decoding and correlating an event allocates nothing, because what a
//! connection needs was allocated for an earlier one; but for the two texts that a verdict has.

#[path = "../benches/stream/mod.rs"]
mod stream;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use tcptrace::correlate::Correlator;
use tcptrace::decode::decode;
use tcptrace::event::Hook;
use tcptrace::fields::Line;

use stream::{ATTACHED_NS, Stream};

/// The system's allocator, which counts what each thread asks it for.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: hands everything to the system's allocator, unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(at, layout, size) }
    }
}

/// How often `work` allocates.
fn allocations(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

#[test]
fn an_allocation_is_counted() {
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
fn correlating_allocates_only_what_a_verdict_says() {
    let stream = Stream::of(2_000);
    let mut events: Vec<_> = stream
        .records()
        .map(|record| decode(record).expect("a sound record"))
        .collect();
    events.sort_by_key(|event| event.mono_ns);
    let (warm_up, steady) = events.split_at(events.len() / 2);
    let hooks = [Hook::InetSockSetState, Hook::InetCskAccept];
    let mut correlator = Correlator::new(ATTACHED_NS).with_hooks(hooks);
    let mut lines = Vec::with_capacity(16);
    for event in warm_up {
        correlator.event(event, &mut lines);
        lines.clear();
    }
    let mut verdicts = 0;
    for event in steady {
        let count = allocations(|| correlator.event(event, &mut lines));
        let judged = lines.iter().filter(|line| is_judged(line)).count() as u64;
        assert!(
            count <= judged * PER_VERDICT,
            "{count} for {event:?}: {lines:?}"
        );
        verdicts += judged;
        lines.clear();
    }
    // One when accept() returns, and one at the end; the middle of the stream is no clean cut.
    assert!(verdicts >= 1_900, "{verdicts}");
}

/// Its reason and the names of the events that it rests on.
const PER_VERDICT: u64 = 2;

fn is_judged(line: &Line) -> bool {
    match line {
        Line::Accept(accept) => accept.verdict.is_some(),
        Line::Connection(connection) => connection.verdict.is_some(),
        _ => false,
    }
}
