//! Network events, made by a peer that sends what the script says, segment by segment.
//!
//! tcptrace shows the kernel's end. The peer's end has no socket.

pub(crate) mod closing;
pub(crate) mod connecting;
pub(crate) mod half_open;
mod overflow;
mod resets;
mod sending;

use std::io;
use std::net::{TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

use tests::peer::{KERNEL, PEER, SendTimes, Talk};
use tests::task::{now_ns, spawn};
use tests::traffic::{accept, listen_at};
use tests::{Lab, Peer, Trace, Tracer};

/// A delay that is long enough to be distinguished from no delay.
pub(crate) const A_WHILE: Duration = Duration::from_millis(400);

/// Creates a listener that the peer can reach.
pub(crate) fn serve(port: u16) -> TcpListener {
    listen_at((KERNEL, port).into(), 16)
}

/// Starts a connect() to the peer in a thread. Returns the time before the call, and the thread.
pub(crate) fn call(port: u16) -> (u64, JoinHandle<io::Result<TcpStream>>) {
    let called_ns = now_ns();
    (called_ns, spawn(move || TcpStream::connect((PEER, port))).1)
}

/// Makes an accepted connection from the peer.
pub(crate) fn accepted<'a>(lab: &Lab, peer: &'a Peer) -> (Talk<'a>, TcpStream) {
    let (own, port) = (lab.port(), lab.port());
    let listener = serve(port);
    let talk = peer.connect(own, port);
    (talk, accept(&listener).stream)
}

/// Waits until tcptrace has shown the kernel's end in this state.
pub(crate) fn until(tracer: &Tracer, state: &str) {
    tracer.wait_for(1, state, |line| {
        line.is("transition") && line["side"] != "listener" && line["newstate"] == state
    });
}

/// Returns how long the only connection was in a state.
#[track_caller]
pub(crate) fn time_in(trace: &Trace, state: &str) -> u64 {
    let mut lines = trace
        .own("transition")
        .filter(|it| it["oldstate"] == state && !it.is_synthetic());
    let line = lines.next().expect("the connection was in that state");
    assert!(lines.next().is_none(), "only once in {state}");
    line.num("in_state_ns")
}

/// Returns when the only connection entered a state.
#[track_caller]
pub(crate) fn entered(trace: &Trace, state: &str) -> u64 {
    let mut lines = trace
        .own("transition")
        .filter(|it| it["newstate"] == state && it["side"] != "listener")
        .filter(|it| !it.is_synthetic());
    let line = lines.next().expect("the connection entered that state");
    assert!(lines.next().is_none(), "only once into {state}");
    line.num("mono_ns")
}

/// Returns the states of the only connection.
#[track_caller]
pub(crate) fn path(trace: &Trace) -> String {
    let all: Vec<_> = trace.own("connection").collect();
    let [connection] = all[..] else {
        panic!("{} connections instead of one", all.len());
    };
    trace.path(&connection["conn"])
}

/// Asserts that a traced duration is the script's own. The kernel's end acts in a system call
/// between the start of that call and the segment that it sends.
#[track_caller]
pub(crate) fn lasted(traced_ns: u64, since: SendTimes, until: SendTimes) {
    let (shortest, longest) = (until[0] - since[1], until[1] - since[0]);
    let tolerance = tolerance(longest);
    assert!(
        traced_ns + tolerance >= shortest && traced_ns <= longest + tolerance,
        "tcptrace says {traced_ns} ns, the script {shortest} to {longest} ns"
    );
}

/// Asserts that an event happened when the script caused it, and not when the wait for it began.
#[track_caller]
pub(crate) fn caused(happened_ns: u64, caused_ns: SendTimes, waited_since_ns: u64) {
    let [before, after] = caused_ns;
    let tolerance = tolerance(after - waited_since_ns);
    assert!(
        (before..=after + tolerance).contains(&happened_ns),
        "tcptrace says at {happened_ns}, the script at {caused_ns:?}, since {waited_since_ns}"
    );
}

fn tolerance(of_ns: u64) -> u64 {
    of_ns / 20 + 2_000_000
}
