//! In the steady state, decoding and correlating an event allocates nothing: what a connection
//! needs was allocated for an earlier one. Lines own nothing either, until a sink writes them.

#[path = "../benches/stream/mod.rs"]
mod stream;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use tcptrace::correlate::Correlator;
use tcptrace::decode::decode;
use tcptrace::event::Hook;

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
fn correlating_allocates_nothing_once_it_is_warm() {
    let stream = Stream::of(4_000);
    let mut events: Vec<_> = stream
        .records()
        .map(|record| decode(record).expect("a sound record"))
        .collect();
    events.sort_by_key(|event| event.mono_ns);
    let hooks = [Hook::InetSockSetState, Hook::InetCskAccept];
    let mut correlator = Correlator::new(ATTACHED_NS).with_hooks(hooks);
    let mut lines = Vec::with_capacity(16);
    let half = events.len() / 2;
    let mut by_kind = std::collections::BTreeMap::<String, (u64, u64)>::new();
    for (n, event) in events.iter().enumerate() {
        let count = allocations(|| correlator.event(event, &mut lines));
        if n >= half {
            let name = match &event.kind {
                tcptrace::event::Kind::SetState(c) => format!("{:?} {:?} {:?}", c.oldstate, c.newstate, c.err),
                _ => "accept".into(),
            };
            let it = by_kind.entry(name).or_default();
            it.0 += 1; it.1 += count;
        }
        lines.clear();
    }
    eprintln!("{by_kind:#?}");
    assert!(false);
}
