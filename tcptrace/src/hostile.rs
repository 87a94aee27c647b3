//! Tests with recordings made to do harm: numbers at their extremes, and texts with control or
//! invisible characters. No output panics or shows such a text unescaped.

use std::fs::File;
use std::io::Write;
use std::sync::{Arc, Mutex};

use tcptrace_core::recording::{Item, Reader};
use tcptrace_ebpf::abi;
use zerocopy::{FromBytes, IntoBytes};

use crate::batch::Batch;
use crate::clock::Clock;
use crate::diagram::{Collector, Diagram, Keep, mermaid, text};
use tcptrace_core::container::Container;

use crate::expect::{Expectation, Measured};
use crate::explain::prose_of as prose;
use crate::fields::Line;
use crate::printable::is_printable;
use crate::report;
use crate::sink::columns::Columns;
use crate::sink::text::{Style, Zone};
use crate::sink::{Chrome, Csv, Json, Pcapng, Sink, Text};
use crate::top::model::Model;
use crate::trace::{Begin, Input, Small, Trace};

const NUMBERS: [u64; 6] = [0, 1, u16::MAX as u64, u32::MAX as u64, 1 << 63, u64::MAX];

const HOSTILE: &str = "\x1b[31m\n\u{9b}\u{202e}\u{200b}\u{2028}\u{feff}\u{3164}\u{1160}\u{2800}";

/// Recordings that together have every recordable kind of event.
const RECORDINGS: [&str; 8] = [
    "late_accept",
    "half_open_reset",
    "crossing_fins",
    "time_wait",
    "overflow_ack",
    "four_segments_close",
    "older_listener",
    "loss",
];

/// Returns every output that can be made from `lines`, with its name.
fn outputs_of(clock: Clock, lines: &[Line]) -> Vec<(&'static str, String)> {
    let mut outputs = vec![];
    let style = Style {
        color: false,
        verbose: true,
        quiet: false,
        explain: true,
        zone: Zone::Utc,
    };
    for (form, sink) in sinks(clock, style) {
        outputs.push((form, written(lines, sink)));
    }
    outputs.push(("page", page(clock, lines)));
    outputs.push(("top", top(lines)));
    measure(lines);
    let mut collector = Collector::new(Keep::UntilGone);
    let mut groups: Vec<_> = lines
        .iter()
        .filter_map(|line| collector.take(line))
        .collect();
    groups.extend(collector.finish());
    for diagram in groups.iter().filter_map(Diagram::of) {
        for ascii in [false, true] {
            let look = text::Look {
                color: false,
                ascii,
            };
            outputs.push(("explain", prose(&diagram, clock, look)));
            outputs.push(("diagram", text::draw(&diagram, look)));
        }
        outputs.push(("mermaid", mermaid::draw(&diagram)));
    }
    outputs
}

type Make = Box<dyn FnOnce(Box<dyn Write + Send>) -> Box<dyn Sink>>;

fn sinks(clock: Clock, style: Style) -> [(&'static str, Make); 7] {
    [
        ("json", Box::new(move |out| Box::new(Json::new(out, clock)))),
        (
            "text",
            Box::new(move |out| Box::new(Text::new(out, clock, style))),
        ),
        (
            "diagrams",
            Box::new(move |out| Box::new(Text::new(out, clock, style).with_diagrams())),
        ),
        (
            "wide",
            Box::new(move |out| {
                Box::new(Text::new(out, clock, style).with_columns(Columns::wide(&[])))
            }),
        ),
        (
            "csv",
            Box::new(move |out| Box::new(Csv::new(out, clock, Columns::all(&[])))),
        ),
        ("chrome", Box::new(|out| Box::new(Chrome::new(out)))),
        (
            "pcapng",
            Box::new(move |out| Box::new(Pcapng::new(out, clock))),
        ),
    ]
}

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Returns the bytes that a sink writes. An error of a line is ignored, because pcapng fails
/// without segments.
fn written(lines: &[Line], sink: Make) -> String {
    let shared = Shared::default();
    let mut sink = sink(Box::new(shared.clone()));
    let _ = lines.iter().try_for_each(|line| sink.line(line));
    sink.flush().unwrap();
    let bytes = shared.0.lock().unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn page(clock: Clock, lines: &[Line]) -> String {
    let mut content = report::Content::new(clock, HOSTILE.to_owned());
    lines.iter().for_each(|line| content.line(line));
    let finished = content.finish();
    let mut json = report::json(&finished.trace);
    json.extend(report::json(&finished.connections));
    String::from_utf8(json).unwrap()
}

fn top(lines: &[Line]) -> String {
    let mut model = Model::new(10);
    let mut shown = String::new();
    for (n, line) in lines.iter().enumerate() {
        model.line(line);
        if n + 1 == lines.len() || n % 8 == 0 {
            let view = model.view(if n % 16 == 0 {
                u64::MAX
            } else {
                line.mono_ns()
            });
            shown += &format!("{:?}{:?}", view.filters, view.unseen);
            shown.extend(view.verdicts.iter().map(|it| it.reason.as_str()));
        }
    }
    shown
}

fn measure(lines: &[Line]) {
    let expectations: Vec<Expectation> = ["connections==0", "lost==0", "accept_queue_p99<1ms"]
        .iter()
        .map(|text| text.parse().unwrap())
        .collect();
    let mut measured = Measured::new(&expectations);
    lines.iter().for_each(|line| measured.line(line));
    for expectation in &expectations {
        expectation.judge(&measured);
    }
}

/// How many times each recording is mutated.
const ROUNDS: u64 = 40;

/// xorshift64: random enough, and reproducible.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n as u64) as usize
    }
}

/// A hostile text that fits into a thread's name.
const HOSTILE_NAME: &str = "\x1b[31m\u{202e}\n\u{200b}";

#[test]
fn hostile_text_in_a_recording_is_escaped_in_every_output() {
    let mut shown = 0;
    for name in RECORDINGS {
        let (mut begin, inputs) = inputs(name);
        begin.version = HOSTILE.to_owned();
        begin.kernel = HOSTILE.to_owned();
        begin.filters.insert(HOSTILE.to_owned(), HOSTILE.to_owned());
        begin.unseen.push(HOSTILE.to_owned());
        let methods = begin.hooks.values_mut().flatten();
        methods.for_each(|method| *method = HOSTILE.to_owned());
        for refused in begin.refused.values_mut().flatten() {
            (refused.method, refused.reason) = (HOSTILE.to_owned(), HOSTILE.to_owned());
        }
        let reasons = begin.reset_reasons.values_mut();
        reasons.for_each(|reason| *reason = HOSTILE.to_owned());
        let mut trace = Trace::new(&begin);
        let mut lines = vec![];
        let container = Container {
            name: Some(HOSTILE.into()),
            image: Some(HOSTILE.into()),
            pod: Some(HOSTILE.into()),
            namespace: Some(HOSTILE.into()),
            ..Container::new(HOSTILE)
        };
        let containers = [(CGROUP, Some(container))].into();
        trace.push(&Small::Containers(containers).into());
        for input in inputs {
            let input = match &input {
                Input::Records {
                    batch,
                    complete_until_ns,
                } => Input::Records {
                    batch: renamed(batch).iter().map(Vec::as_slice).collect(),
                    complete_until_ns: *complete_until_ns,
                },
                _ => input,
            };
            trace.push(&input);
            while trace.advance(&mut lines) {}
        }
        for (form, text) in outputs_of(Clock::with_offset(begin.clock_offset_ns), &lines) {
            shown += usize::from(text.contains("202e"));
            // Packet fields are binary, so only the hostile characters above ASCII are checked.
            let bad = match form {
                "pcapng" => text
                    .chars()
                    .find(|&c| HOSTILE.contains(c) && c as u32 > 0x7f),
                _ => text.chars().find(|&c| {
                    let drawn = matches!(c, '\u{2500}'..='\u{25ff}');
                    c != '\n' && !drawn && !is_printable(c)
                }),
            };
            assert_eq!(bad, None, "{name} as {form}: {text}");
        }
    }
    assert!(shown > 40, "only {shown} outputs have the text");
}

const CGROUP: u64 = 4711;

/// Returns the records with hostile thread and process names, and with a cgroup.
fn renamed(batch: &Batch) -> Vec<Vec<u8>> {
    let task = |record: &mut Vec<u8>, at: usize| {
        for name in [at, at + 16] {
            record[name..name + 16].fill(0);
            record[name..name + HOSTILE_NAME.len()].copy_from_slice(HOSTILE_NAME.as_bytes());
        }
    };
    let rename = |record: &[u8]| {
        let mut record = record.to_vec();
        let (header, rest) = abi::Header::read_from_prefix(&record[..]).unwrap();
        let start = record.len() - rest.len();
        if header.kind == abi::kind::SET_STATE {
            let (mut change, _) = abi::SetState::read_from_prefix(rest).unwrap();
            change.cgroup = CGROUP;
            let ends = match change.sections & abi::section::V4 {
                0 => size_of::<abi::Addrs6>(),
                _ => size_of::<abi::Addrs4>(),
            };
            let payload = change.as_bytes();
            record[start..start + payload.len()].copy_from_slice(payload);
            if change.sections & abi::section::TASK != 0 {
                task(&mut record, start + payload.len() + ends + 8);
            }
        } else if header.kind == abi::kind::ACCEPT {
            let names = record.len() - 32;
            task(&mut record, names);
        }
        record
    };
    batch.records().map(rename).collect()
}

/// Returns the inputs of a golden recording.
fn inputs(name: &str) -> (Begin, Vec<Input>) {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");
    let file = File::open(format!("{folder}/{name}.trace")).unwrap();
    let (begin, mut reader) = Reader::open(file).unwrap();
    let items = std::iter::from_fn(|| reader.next());
    let inputs = items.map(|item| match item {
        Item::Input(input) => input,
        Item::Gap => panic!("{name} is damaged"),
    });
    (begin, inputs.collect())
}

/// Returns the record with some of its numbers at their extremes. The kind stays, because records
/// of an unknown kind are only counted.
fn hostile_record(record: &[u8], dice: &mut Dice) -> Vec<u8> {
    const HEADER: usize = 16;
    let mut record = record.to_vec();
    if dice.below(8) == 0 {
        let number = NUMBERS[dice.below(NUMBERS.len())];
        record[..8].copy_from_slice(&number.to_le_bytes());
    }
    for _ in 0..dice.below(4) {
        let width = [1, 2, 4, 8][dice.below(4)];
        let places = (record.len() - HEADER) / width;
        let at = HEADER + dice.below(places) * width;
        let number = NUMBERS[dice.below(NUMBERS.len())].to_le_bytes();
        record[at..at + width].copy_from_slice(&number[..width]);
    }
    record
}

#[test]
fn extreme_numbers_in_a_recording_cause_no_panic() {
    let mut dice = Dice(0x2545_f491_4f6c_dd1d);
    for name in RECORDINGS {
        let (begin, inputs) = inputs(name);
        for _ in 0..ROUNDS {
            let mut trace = Trace::new(&begin);
            let mut lines = vec![];
            for input in &inputs {
                let input = match input {
                    Input::Records { batch, .. } => {
                        let records = batch.records();
                        let records: Vec<Vec<u8>> =
                            records.map(|it| hostile_record(it, &mut dice)).collect();
                        Input::Records {
                            batch: records.iter().map(Vec::as_slice).collect(),
                            complete_until_ns: NUMBERS[dice.below(NUMBERS.len())],
                        }
                    }
                    Input::Small(Small::Note { mono_ns, note }) => {
                        let mono_ns = match dice.below(3) {
                            0 => NUMBERS[dice.below(NUMBERS.len())],
                            _ => *mono_ns,
                        };
                        Input::note(mono_ns, note.clone())
                    }
                    input => input.clone(),
                };
                trace.push(&input);
                while trace.advance(&mut lines) {}
            }
            outputs_of(Clock::with_offset(begin.clock_offset_ns), &lines);
        }
    }
}
