//! Benchmarks of the path from record to line: events per second of each part, and of the whole
//! path.
//!
//! Run with `cargo bench -p tcptrace`.

mod stream;

use std::collections::BTreeMap;
use std::io;

use divan::Bencher;
use divan::counter::ItemsCount;
use tcptrace::clock::Clock;
use tcptrace::correlate::Correlator;
use tcptrace::decode::decode;
use tcptrace::event::{Event, Hook};
use tcptrace::fields::{Kind, Wanted};
use tcptrace::order::{HOLD_BACK_NS, Order};

use tcptrace::pipeline::{self, Feedback, Message, Output};
use tcptrace::sink::text::{Style, Zone};
use tcptrace::sink::{Json, Sink, Text};
use tcptrace::trace::{Begin, Input, Small};

use stream::{ATTACHED_NS, Stream};

/// Number of connections in the stream. Together they have about 100,000 events.
const CONNECTIONS: u64 = 10_000;
/// Number of records in a batch. A drain under load returns about as many.
const BATCH: usize = 2_000;
/// 2026-03-01, so that formatted times have a realistic length.
const WALL_NS: u64 = 1_772_373_782_000_000_000;

const HOOKS: [Hook; 2] = [Hook::InetSockSetState, Hook::InetCskAccept];

fn main() {
    divan::main();
}

#[divan::bench]
fn decoding(bencher: Bencher) {
    let stream = Stream::of(CONNECTIONS);
    bencher
        .counter(ItemsCount::new(stream.records().count()))
        .bench_local(|| {
            for record in stream.records() {
                divan::black_box(decode(record).expect("a sound record"));
            }
        });
}

#[divan::bench]
fn ordering(bencher: Bencher) {
    let events = arriving();
    bencher
        .counter(ItemsCount::new(events.len()))
        .with_inputs(|| events.clone())
        .bench_local_values(|events| {
            let mut order = Order::default();
            let mut sum = 0;
            let mut take = |order: &mut Order| {
                while let Some((event, ..)) = order.next() {
                    sum ^= event.mono_ns;
                }
            };
            for (n, event) in events.into_iter().enumerate() {
                let until_ns = event.mono_ns.saturating_sub(HOLD_BACK_NS);
                order.push(event);
                if n.is_multiple_of(BATCH) {
                    order.release(until_ns);
                    take(&mut order);
                }
            }
            order.release(u64::MAX);
            take(&mut order);
            sum
        });
}

#[divan::bench]
fn correlating(bencher: Bencher) {
    correlating_for(bencher, Wanted::ALL);
}

/// Correlates as for `-o json`, without the sentences that follow from other fields.
#[divan::bench]
fn correlating_for_json(bencher: Bencher) {
    correlating_for(bencher, Wanted::LINES);
}

/// Correlates without making a line, except for the summary.
#[divan::bench]
fn correlating_for_a_summary(bencher: Bencher) {
    correlating_for(bencher, Wanted::kind(Kind::Summary));
}

fn correlating_for(bencher: Bencher, wanted: Wanted) {
    let events = in_order();
    bencher
        .counter(ItemsCount::new(events.len()))
        .bench_local(|| {
            let mut correlator = correlator().with_wanted(wanted);
            let mut lines = vec![];
            for event in &events {
                correlator.event(event, &mut lines);
                divan::black_box(&lines);
                lines.clear();
            }
            correlator
        });
}

#[divan::bench]
fn decoding_and_correlating(bencher: Bencher) {
    let stream = Stream::of(CONNECTIONS);
    bencher
        .counter(ItemsCount::new(stream.records().count()))
        .bench_local(|| {
            let mut correlator = correlator();
            let mut lines = vec![];
            for record in stream.records() {
                let event = decode(record).expect("a sound record");
                correlator.event(&event, &mut lines);
                divan::black_box(&lines);
                lines.clear();
            }
            correlator
        });
}

/// Counts lines, which are more than the events.
#[divan::bench]
fn writing_json(bencher: Bencher) {
    writing(bencher, || {
        Box::new(Json::new(Box::new(io::sink()), Clock::with_offset(WALL_NS)))
    });
}

/// Counts lines, which are more than the events.
#[divan::bench]
fn writing_text(bencher: Bencher) {
    writing(bencher, text);
}

fn text() -> Box<dyn Sink> {
    let style = Style {
        color: true,
        verbose: false,
        quiet: false,
        explain: false,
        zone: Zone::Local,
    };
    let clock = Clock::with_offset(WALL_NS);
    Box::new(Text::new(Box::new(io::sink()), clock, style))
}

fn writing(bencher: Bencher, sink: impl Fn() -> Box<dyn Sink>) {
    let mut correlator = correlator();
    let mut lines = vec![];
    for event in in_order() {
        correlator.event(&event, &mut lines);
    }
    bencher
        .counter(ItemsCount::new(lines.len()))
        .bench_local(|| {
            let mut sink = sink();
            for line in &lines {
                sink.line(line).expect("nothing that could fail");
            }
        });
}

/// Runs the pipeline thread on batches of records and writes JSON Lines.
#[divan::bench]
fn the_whole_chain_to_json(bencher: Bencher) {
    chain(bencher, || {
        Box::new(Json::new(Box::new(io::sink()), Clock::with_offset(WALL_NS)))
    });
}

/// Runs the pipeline thread on batches of records and writes the text log.
#[divan::bench]
fn the_whole_chain_to_text(bencher: Bencher) {
    chain(bencher, text);
}

fn chain(bencher: Bencher, sink: impl Fn() -> Box<dyn Sink>) {
    let stream = Stream::of(CONNECTIONS);
    let batches = stream.batches(BATCH);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    bencher
        .counter(ItemsCount::new(stream.records().count()))
        .bench_local(|| {
            let output = Output {
                name: "nowhere".into(),
                sink: sink(),
            };
            let (mut feed, outcome) =
                pipeline::spawn(begin(), vec![output], Feedback::default()).expect("a thread");
            let mut until_ns = ATTACHED_NS;
            for batch in &batches {
                // Consecutive records are a microsecond apart in the stream.
                until_ns += BATCH as u64 * 1_000;
                let records = Input::Records {
                    batch: batch.clone(),
                    complete_until_ns: until_ns,
                };
                runtime.block_on(feed.send(Message::Input(records)));
            }
            let end = Small::End {
                counts: BTreeMap::new(),
            };
            runtime.block_on(feed.send(Message::Input(end.into())));
            outcome.blocking_recv().expect("a pipeline")
        });
}

fn correlator() -> Correlator {
    Correlator::new(ATTACHED_NS).with_hooks(HOOKS)
}

/// Returns the events in the order of their records, which is not sorted by time.
fn arriving() -> Vec<Event> {
    let stream = Stream::of(CONNECTIONS);
    let events = stream.records().map(decode);
    events.collect::<Result<_, _>>().expect("sound records")
}

fn in_order() -> Vec<Event> {
    let mut events = arriving();
    events.sort_by_key(|event| event.mono_ns);
    events
}

fn begin() -> Begin {
    Begin {
        mono_ns: ATTACHED_NS,
        kernel: "6.12".into(),
        clock_offset_ns: WALL_NS,
        hooks: HOOKS.map(|hook| (hook, Some("tp_btf".into()))).into(),
        ..Begin::default()
    }
}
