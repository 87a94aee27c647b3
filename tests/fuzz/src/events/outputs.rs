//! Every output writes every sequence of lines, and nothing of a name reaches a terminal unescaped.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use tcptrace::clock::Clock;
use tcptrace::sink::columns::Columns;
use tcptrace::sink::text::{Style, Zone};
use tcptrace::sink::{Chrome, Csv, Json, Pcapng, Sink, Text};
use tcptrace_core::fields::Line;

#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("one thread").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes the lines to the output that `form` selects. Half of the forms write nothing.
pub fn write(form: u8, lines: &[Line]) {
    let buffer = Buffer::default();
    let out = Box::new(buffer.clone());
    let clock = Clock::with_offset(1_700_000_000_000_000_000);
    let style = Style {
        color: false,
        verbose: form & 8 != 0,
        quiet: false,
        explain: form & 8 == 0,
        zone: Zone::Utc,
    };
    let mut sink: Box<dyn Sink> = match form >> 5 {
        0 => Box::new(Json::new(out, clock)),
        1 => Box::new(Text::new(out, clock, style)),
        2 => Box::new(Csv::new(out, clock, Columns::all(&[]))),
        3 if form & 8 != 0 => Box::new(Chrome::new(out)),
        3 => Box::new(Pcapng::new(out, clock)),
        _ => return,
    };
    let wanted = sink.wants();
    for line in lines.iter().filter(|line| wanted.has(line.kind())) {
        sink.line(line).expect("memory takes everything");
    }
    sink.flush().expect("memory takes everything");
    drop(sink);
    let bytes = buffer.0.lock().expect("one thread");
    match form >> 5 {
        0 => {
            let text = std::str::from_utf8(&bytes).expect("JSON is UTF-8");
            assert_eq!(text.lines().count(), lines.len());
            for line in text.lines() {
                let value: serde_json::Value = serde_json::from_str(line).expect(line);
                assert!(value["event"].is_string(), "{line}");
            }
        }
        1 | 2 => {
            let text = std::str::from_utf8(&bytes).expect("text is UTF-8");
            let control = text.chars().find(|&c| c.is_control() && c != '\n');
            assert_eq!(control, None, "{text:?}");
        }
        3 if form & 8 != 0 => {
            serde_json::from_slice::<serde_json::Value>(&bytes).expect("one document");
        }
        _ => assert!(bytes.len().is_multiple_of(4), "blocks of pcapng are padded"),
    }
}
