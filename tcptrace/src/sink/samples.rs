//! Sample lines for the tests of all sinks: a late accept() on 127.0.0.1:7878, and related lines.

mod connection;
mod trace;

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};

pub use connection::*;
pub use trace::*;

use super::Sink;
use super::stamp::Stamp;
use crate::clock::Clock;
use crate::fields::{Line, Stamped};

/// The time of all samples: 2026-03-01 14:03:07.123456789 UTC on [`clock`].
pub const NOW: u64 = 5_123_456_789;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const MS: u64 = 1_000_000;

pub fn clock() -> Clock {
    Clock::with_offset(1_772_373_782_000_000_000)
}

/// Returns the output of a sink for one line.
pub fn written(line: &Line, sink: impl FnOnce(Box<dyn Write + Send>) -> Box<dyn Sink>) -> String {
    all_written(std::slice::from_ref(line), sink)
}

/// Returns the output of a sink for several lines.
pub fn all_written(
    lines: &[Line],
    sink: impl FnOnce(Box<dyn Write + Send>) -> Box<dyn Sink>,
) -> String {
    let shared = Shared::default();
    let mut sink = sink(Box::new(shared.clone()));
    for line in lines {
        sink.line(line).unwrap();
    }
    sink.flush().unwrap();
    let bytes = shared.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

/// Returns all fields of a line as JSON.
pub fn json(line: &Line) -> serde_json::Value {
    let mut stamp = Stamp::default();
    let ts = stamp.of(clock().wall_ns(line.mono_ns()));
    let event = line.event();
    serde_json::to_value(Stamped { event, ts, line }).unwrap()
}

/// A writer whose content remains readable after it was moved into a sink.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Returns at least one line of every kind.
pub fn all() -> Vec<Line> {
    vec![
        Line::Session(session()),
        Line::Preexisting(preexisting()),
        Line::Transition(listen()),
        Line::Transition(transition()),
        Line::Accept(accept()),
        Line::Accept(accept_with_verdict()),
        Line::Accept(late_accept()),
        Line::Accept(failed_accept("EMFILE")),
        Line::Overflow(overflow()),
        Line::Segment(segment()),
        Line::Connection(late_connection()),
        Line::Connection(client()),
        Line::Connection(unknown()),
        Line::Retransmit(retransmit()),
        Line::Reset(reset()),
        Line::TimeWait(time_wait()),
        Line::Histogram(histogram()),
        Line::Stack(stack()),
        Line::Lost(lost()),
        Line::Summary(summary()),
    ]
}
