//! A trace's inputs to and from a file: one JSON object a line, `#` begins a comment line.

use std::io::{self, BufRead, BufWriter, Write};

use crate::bounded;
use crate::story::{Begin, Input};

/// Writes inputs.
pub struct Recorder {
    out: BufWriter<Box<dyn Write + Send>>,
}

impl Recorder {
    pub fn new(out: Box<dyn Write + Send>) -> Recorder {
        Recorder {
            out: BufWriter::new(out),
        }
    }

    /// Writes the next input. An error is the writer's own.
    pub fn write(&mut self, input: &Input) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, input)?;
        self.out.write_all(b"\n")
    }

    /// Hands everything written so far to the operating system.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Why a recording cannot be replayed to its end.
#[derive(Debug, thiserror::Error)]
pub enum Damaged {
    #[error("line {line}: {error}")]
    Unreadable { line: u64, error: io::Error },
    #[error("line {line} is longer than any line of a trace")]
    TooLong { line: u64 },
    #[error("line {line}: not an input of a trace: {error}")]
    Malformed { line: u64, error: serde_json::Error },
    #[error("line {line}: a recording begins with its only \"begin\"")]
    Begin { line: u64 },
    #[error("line {line}: nothing comes after \"end\"")]
    AfterEnd { line: u64 },
    #[error("line {line}: the recording breaks off before its \"end\"")]
    BreaksOff { line: u64 },
}

/// Reads inputs, from the one after [`Begin`] on.
pub struct Recording<R> {
    from: R,
    /// The line that was read last. Reused.
    text: Vec<u8>,
    /// The number of the last line read, from 1.
    line: u64,
    ended: bool,
}

impl<R: BufRead> Recording<R> {
    /// Reads what the recorded trace was.
    pub fn open(from: R) -> Result<(Begin, Recording<R>), Damaged> {
        let mut recording = Recording {
            from,
            text: vec![],
            line: 0,
            ended: false,
        };
        match recording.read()? {
            Some(Input::Begin(begin)) => Ok((begin, recording)),
            _ => Err(Damaged::Begin {
                line: recording.line,
            }),
        }
    }

    fn read(&mut self) -> Result<Option<Input>, Damaged> {
        loop {
            let read = bounded::read_line(&mut self.from, &mut self.text);
            let line = self.line + 1;
            match read.map_err(|error| Damaged::Unreadable { line, error })? {
                bounded::Line::End => return Ok(None),
                bounded::Line::TooLong => return Err(Damaged::TooLong { line }),
                bounded::Line::Whole => self.line = line,
            }
            let text = self.text.trim_ascii();
            if !text.is_empty() && !text.starts_with(b"#") {
                let input = serde_json::from_slice(text);
                return input
                    .map(Some)
                    .map_err(|error| Damaged::Malformed { line, error });
            }
        }
    }
}

/// After an error there is nothing worth reading.
impl<R: BufRead> Iterator for Recording<R> {
    type Item = Result<Input, Damaged>;

    fn next(&mut self) -> Option<Self::Item> {
        let input = match self.read() {
            Ok(input) => input,
            Err(error) => return Some(Err(error)),
        };
        let line = self.line;
        match input {
            Some(_) if self.ended => Some(Err(Damaged::AfterEnd { line })),
            Some(Input::Begin(_)) => Some(Err(Damaged::Begin { line })),
            Some(input) => {
                self.ended = matches!(input, Input::End(_));
                Some(Ok(input))
            }
            None if self.ended => None,
            None => Some(Err(Damaged::BreaksOff { line })),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::event::{Comm, Task};
    use crate::fields::Depth;
    use crate::fields::Session;
    use crate::story::Selection;
    use crate::story::{End, Import};

    fn begin() -> Input {
        Input::Begin(Begin {
            clock_offset_ns: 1_772_373_787_000_000_000,
            session: Session {
                mono_ns: 5,
                schema: 1,
                version: "0.1.0".into(),
                kernel: "6.12.0".into(),
                depth: Depth::Events,
                hooks: BTreeMap::new(),
                refused: BTreeMap::new(),
                filters: [("port".to_owned(), "7878".to_owned())].into(),
                unseen: vec![],
            },
            selection: Selection {
                pids: vec![4711],
                comms: vec![Comm::from("server")],
                ..Selection::default()
            },
            reset_reasons: [(3, "NO_SOCKET".to_owned())].into(),
        })
    }

    fn end() -> Input {
        Input::End(End {
            mono_ns: 9,
            hooks: BTreeMap::new(),
            undecodable: 0,
            late: 0,
        })
    }

    fn written(inputs: &[Input]) -> String {
        let lines = inputs.iter().map(|it| serde_json::to_string(it).unwrap());
        lines.map(|line| line + "\n").collect()
    }

    /// Everything after the beginning.
    fn read(text: &str) -> Result<Vec<Input>, String> {
        let (_, recording) = Recording::open(text.as_bytes()).map_err(|error| error.to_string())?;
        recording
            .collect::<Result<_, _>>()
            .map_err(|error| error.to_string())
    }

    #[test]
    fn comments_and_empty_lines_say_nothing() {
        let text = format!(
            "# A server\n\n{}# that ends\n{}",
            written(&[begin()]),
            written(&[Input::Missed {}, end()])
        );
        assert_eq!(read(&text), Ok(vec![Input::Missed {}, end()]));
    }

    #[test]
    fn a_name_comes_back_byte_for_byte() {
        let name = |bytes: &[u8]| {
            let mut comm = [0; 16];
            comm[..bytes.len()].copy_from_slice(bytes);
            Comm::new(comm)
        };
        for bytes in [
            &b"nginx"[..],
            b"\x1b[31m\"\\",
            "grün".as_bytes(),
            b"\xff\xfe",
            b"",
        ] {
            let task = Task {
                pid: 4711,
                tid: 4712,
                comm: name(bytes),
                process: name(bytes),
            };
            let import = Input::Import(Import {
                owners: [(u64::MAX, task)].into(),
                until_ns: u64::MAX,
            });
            let text = written(&[begin(), import.clone(), end()]);
            assert_eq!(read(&text), Ok(vec![import, end()]));
        }
    }

    #[test]
    fn what_is_damaged_is_told_with_its_line() {
        let [begin, end] = [begin(), end()].map(|it| written(&[it]));
        for (text, told) in [
            (String::new(), "line 0: a recording begins with"),
            (end.clone(), "line 1: a recording begins with"),
            (
                format!("# x\n{begin}oops\n{end}"),
                "line 3: not an input of a trace",
            ),
            (
                format!("{begin}{{\"event\":{{}}}}\n{end}"),
                "line 2: not an input of a trace",
            ),
            (
                format!("{begin}{begin}{end}"),
                "line 2: a recording begins with",
            ),
            (begin.clone(), "line 1: the recording breaks off"),
            (format!("{begin}{end}{end}"), "line 3: nothing comes after"),
        ] {
            let error = read(&text).unwrap_err();
            assert!(error.starts_with(told), "{error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }
}
