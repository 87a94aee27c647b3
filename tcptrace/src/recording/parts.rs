//! The flight recorder: a recording in numbered files. Keeps the last files, or the records around
//! a trigger.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hashlink::LinkedHashMap;
use rustix::fs::{Access, AtFlags, CWD, accessat};

use super::{BLOCK, Recorder};
use crate::decode::lost;
use crate::event::{Stack, StackKey};
use crate::files::{self, folder_of};
use crate::trace::{Begin, Input, Process, Small};
use tcptrace_core::container::Container;
use tcptrace_core::recording::item;

/// Upper bound on the memory of a buffer that is limited by time, in bytes.
const MOST: u64 = 256 << 20;

/// Upper bound on the time span of a buffered block, in nanoseconds. The buffer drops whole blocks,
/// so that short blocks let it drop old events soon.
const BLOCK_NS: u64 = 250_000_000;

/// Upper bound on the stacks that every file begins with: the newest ones.
const STACKS: usize = 512;

/// Upper bound on the stacks of one input, because a recording stores each input in one block.
const STACKS_AT_ONCE: usize = 16;

/// Selects the recorded events that are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// The events of the last files.
    Files {
        /// The size at which the next file begins, in bytes before compression.
        size: u64,
        /// The number of files that are kept; `None`: all.
        files: Option<u32>,
    },
    /// The last events, buffered in memory until a trigger writes them.
    Stretch {
        stretch: Stretch,
        /// How long the file continues after the trigger.
        after: Duration,
    },
}

/// The limit of the buffer in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stretch {
    /// The events of this time span, as far as they fit into [`MOST`] bytes.
    Time(Duration),
    /// This many bytes of records.
    Bytes(u64),
}

/// A recording in numbered files: FILE.0001, FILE.0002 and so on.
pub struct Parts {
    begin: Begin,
    files: Numbered,
    is_compressed: bool,
    keep: Keep,
    /// The names of containers so far, by cgroup. Every file begins with them.
    containers: BTreeMap<u64, Option<Container>>,
    /// The processes with a place of their own, likewise.
    processes: BTreeMap<u32, Process>,
    /// The newest stacks. Every file begins with them.
    stacks: LinkedHashMap<StackKey, Stack>,
    /// The kernel side's counter of lost records, modulo 2^32, from the last record.
    lost: u32,
    /// The file that is being written.
    current: Option<Current>,
    kept: Kept,
    /// End of the trace (CLOCK_MONOTONIC, nanoseconds).
    ended_ns: u64,
    /// A new file needs a snapshot of the sockets that are older than it.
    wants_snapshot: bool,
    /// Bytes of the finished files, before compression.
    bytes: u64,
}

struct Current {
    path: PathBuf,
    recorder: Recorder,
    /// End of the file (CLOCK_MONOTONIC, nanoseconds); `None` if its size decides.
    until_ns: Option<u64>,
}

/// The buffer in memory.
#[derive(Default)]
struct Kept {
    blocks: VecDeque<Block>,
    /// Items of the block that is being filled.
    open: Vec<u8>,
    /// Start of the block that is being filled (CLOCK_MONOTONIC, nanoseconds). All older records
    /// have been passed on before.
    open_since_ns: u64,
    /// The kernel side's counter of lost records at the start of that block.
    open_lost: u32,
    bytes: u64,
}

struct Block {
    contents: Vec<u8>,
    since_ns: u64,
    lost: u32,
    until_ns: u64,
}

impl Parts {
    /// Begins a recording. The numbers continue after the highest existing one.
    ///
    /// # Errors An error of the folder or of the file.
    pub fn begin(path: &Path, begin: &Begin, keep: Keep, is_compressed: bool) -> io::Result<Parts> {
        let mut parts = Parts {
            begin: begin.clone(),
            files: Numbered::behind(path)?,
            is_compressed,
            keep,
            containers: BTreeMap::new(),
            processes: BTreeMap::new(),
            stacks: LinkedHashMap::new(),
            lost: 0,
            current: None,
            kept: Kept {
                open_since_ns: begin.mono_ns,
                ..Kept::default()
            },
            ended_ns: 0,
            wants_snapshot: false,
            bytes: 0,
        };
        if let Keep::Files { .. } = keep {
            parts.open(begin.mono_ns, 0, None)?;
        }
        Ok(parts)
    }

    /// Adds the next input of the trace.
    ///
    /// # Errors
    /// As [`Recorder::input`].
    pub fn input(&mut self, input: &Input) -> io::Result<()> {
        match input {
            // These counters start at the beginning of the trace, not of a file.
            Input::Small(Small::Counted { .. }) => return Ok(()),
            // Older records are still to come, so the file is closed at `End`.
            Input::Small(Small::Ending { mono_ns }) => {
                self.ended_ns = *mono_ns;
                return Ok(());
            }
            Input::Small(Small::End { .. }) => return self.close(self.ended_ns),
            Input::Records { batch, .. } => {
                let lost = batch.records().last().and_then(lost);
                self.lost = lost.unwrap_or(self.lost);
            }
            Input::Small(Small::Containers(containers)) => {
                self.containers.extend(containers.clone());
            }
            Input::Small(Small::Processes { forget, processes }) => {
                if *forget {
                    self.processes.clear();
                }
                self.processes.extend(processes.clone());
                // A process without values has exited.
                self.processes.retain(|_, it| *it != Process::default());
            }
            Input::Small(Small::Stacks(stacks)) => {
                for stack in stacks {
                    self.stacks.insert(stack.key, stack.clone());
                }
                while self.stacks.len() > STACKS {
                    self.stacks.pop_front();
                }
            }
            _ => {}
        }
        match &mut self.current {
            Some(current) => current.recorder.input(input),
            None => {
                item(input, &mut self.kept.open);
                Ok(())
            }
        }
    }

    /// Writes what has been added. Begins the next file or ends the current one if it is time.
    ///
    /// All records older than `complete_ns` have been added at `now_ns` (both CLOCK_MONOTONIC,
    /// nanoseconds).
    ///
    /// # Errors
    /// As [`input`](Parts::input).
    pub fn flush(&mut self, now_ns: u64, complete_ns: u64) -> io::Result<()> {
        let Some(current) = &mut self.current else {
            self.kept.flush(now_ns, complete_ns, self.lost, self.keep);
            return Ok(());
        };
        current.recorder.flush()?;
        match (self.keep, current.until_ns) {
            (Keep::Files { size, files }, _) if current.recorder.bytes() >= size => {
                self.close(now_ns)?;
                self.files.keep(files)?;
                self.open(complete_ns, self.lost, None)?;
                self.wants_snapshot = true;
            }
            (Keep::Stretch { .. }, Some(until_ns)) if until_ns <= now_ns => {
                self.close(now_ns)?;
                (self.kept.open_since_ns, self.kept.open_lost) = (complete_ns, self.lost);
            }
            _ => {}
        }
        Ok(())
    }

    /// Writes the buffer to the next file, which then continues for the `after` time. Returns its
    /// path.
    ///
    /// Returns `None` if a file is already being written; its end is postponed.
    ///
    /// # Errors
    /// As [`input`](Parts::input).
    pub fn trigger(&mut self, now_ns: u64) -> io::Result<Option<PathBuf>> {
        let Keep::Stretch { after, .. } = self.keep else {
            return Ok(None);
        };
        let until_ns = Some(now_ns.saturating_add(after.as_nanos() as u64));
        if let Some(current) = &mut self.current {
            current.until_ns = until_ns;
            return Ok(None);
        }
        let kept = std::mem::take(&mut self.kept);
        let (since_ns, lost) = match kept.blocks.front() {
            Some(first) => (first.since_ns, first.lost),
            None => (kept.open_since_ns, kept.open_lost),
        };
        let path = self.open(since_ns, lost, until_ns)?;
        if let Some(current) = &mut self.current {
            for block in &kept.blocks {
                current.recorder.block(&block.contents)?;
            }
            current.recorder.block(&kept.open)?;
        }
        Ok(Some(path))
    }

    /// Returns whether the process may create the next file.
    pub fn may_create(&self) -> bool {
        let access = Access::WRITE_OK | Access::EXEC_OK;
        accessat(CWD, self.folder(), access, AtFlags::EACCESS).is_ok()
    }

    /// Returns the folder of all files.
    pub fn folder(&self) -> &Path {
        folder_of(&self.files.base)
    }

    /// Returns true once for each new file that needs a snapshot of older sockets.
    pub fn wants_snapshot(&mut self) -> bool {
        std::mem::take(&mut self.wants_snapshot)
    }

    /// Returns the bytes of all files, before compression.
    pub fn bytes(&self) -> u64 {
        let current = self.current.as_ref().map_or(0, |it| it.recorder.bytes());
        self.bytes + current
    }

    fn open(&mut self, since_ns: u64, lost: u32, until_ns: Option<u64>) -> io::Result<PathBuf> {
        let (path, file) = self.files.next()?;
        let begin = Begin {
            mono_ns: since_ns.max(self.begin.mono_ns),
            lost,
            ..self.begin.clone()
        };
        let mut recorder = Recorder::begin(file, &begin, self.is_compressed)?;
        if !self.containers.is_empty() {
            recorder.input(&Small::Containers(self.containers.clone()).into())?;
        }
        if !self.processes.is_empty() {
            let processes = Small::Processes {
                forget: false,
                processes: self.processes.clone(),
            };
            recorder.input(&processes.into())?;
        }
        let stacks: Vec<Stack> = self.stacks.values().cloned().collect();
        for stacks in stacks.chunks(STACKS_AT_ONCE) {
            recorder.input(&Small::Stacks(stacks.to_vec()).into())?;
        }
        self.current = Some(Current {
            path: path.clone(),
            recorder,
            until_ns,
        });
        Ok(path)
    }

    /// Ends the current file at `mono_ns` (CLOCK_MONOTONIC, nanoseconds).
    fn close(&mut self, mono_ns: u64) -> io::Result<()> {
        let Some(mut current) = self.current.take() else {
            return Ok(());
        };
        current.recorder.input(&Small::Cut { mono_ns }.into())?;
        self.bytes += current.recorder.bytes();
        current.recorder.finish()
    }

    /// Returns the path of the file that is being written.
    pub fn path(&self) -> Option<&Path> {
        self.current.as_ref().map(|it| it.path.as_path())
    }
}

impl Kept {
    fn flush(&mut self, now_ns: u64, complete_ns: u64, lost: u32, keep: Keep) {
        let age_ns = complete_ns.saturating_sub(self.open_since_ns);
        if self.open.len() >= BLOCK || (age_ns >= BLOCK_NS && !self.open.is_empty()) {
            self.bytes += self.open.len() as u64;
            self.blocks.push_back(Block {
                contents: std::mem::take(&mut self.open),
                since_ns: self.open_since_ns,
                lost: self.open_lost,
                until_ns: now_ns,
            });
        }
        if self.open.is_empty() {
            (self.open_since_ns, self.open_lost) = (complete_ns, lost);
        }
        let (bytes, since_ns) = match keep {
            Keep::Stretch {
                stretch: Stretch::Time(time),
                ..
            } => (MOST, now_ns.saturating_sub(time.as_nanos() as u64)),
            Keep::Stretch {
                stretch: Stretch::Bytes(bytes),
                ..
            } => (bytes, 0),
            Keep::Files { .. } => return,
        };
        while let Some(first) = self.blocks.front()
            && (self.bytes > bytes || first.until_ns < since_ns)
        {
            self.bytes -= first.contents.len() as u64;
            self.blocks.pop_front();
        }
    }
}

/// Files whose names end in a number.
struct Numbered {
    base: PathBuf,
    last: u32,
    /// Files that this process has written, oldest first.
    written: VecDeque<PathBuf>,
}

impl Numbered {
    /// Finds the highest existing number and continues after it.
    fn behind(base: &Path) -> io::Result<Numbered> {
        let name = base.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let mut last = 0;
        for entry in fs::read_dir(folder_of(base))? {
            last = last.max(number(&entry?.file_name(), name).unwrap_or(0));
        }
        Ok(Numbered {
            base: base.to_owned(),
            last,
            written: VecDeque::new(),
        })
    }

    /// Creates the next file.
    fn next(&mut self) -> io::Result<(PathBuf, File)> {
        self.last += 1;
        let mut name = self.base.clone().into_os_string();
        name.push(format!(".{:04}", self.last));
        let path = PathBuf::from(name);
        // An existing file is never overwritten.
        let file = files::create_new(&path)?;
        self.written.push_back(path.clone());
        Ok((path, file))
    }

    /// Removes the oldest files that this process has written, so that at most `files` exist after
    /// the next one.
    fn keep(&mut self, files: Option<u32>) -> io::Result<()> {
        let Some(files) = files else { return Ok(()) };
        while self.written.len() >= files as usize
            && let Some(oldest) = self.written.pop_front()
        {
            match fs::remove_file(oldest) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Returns the number at the end of a file name, if the rest is `name`.
fn number(file: &OsString, name: &std::ffi::OsStr) -> Option<u32> {
    let rest = file
        .as_encoded_bytes()
        .strip_prefix(name.as_encoded_bytes())?;
    std::str::from_utf8(rest.strip_prefix(b".")?)
        .ok()?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests;
