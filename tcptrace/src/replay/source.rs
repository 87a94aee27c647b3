//! The source of a recording: a file or standard input, compressed or not.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context;

use super::Recorded;

/// How far a file has been read.
#[derive(Clone, Default)]
pub struct Position {
    read: Arc<AtomicU64>,
    /// Size of the file in bytes; `None` for a pipe.
    size: Option<u64>,
}

impl Position {
    /// Returns the part that has been read, from 0 to 100; `None` if the size is unknown.
    pub fn percent(&self) -> Option<u64> {
        let size = self.size.filter(|&size| size > 0)?;
        // The file may grow while it is read.
        Some((self.read.load(Ordering::Relaxed).saturating_mul(100) / size).min(100))
    }
}

/// Returns true if the recording comes from standard input.
fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Returns the name of the source for messages.
pub fn name(path: &Path) -> String {
    match is_stdin(path) {
        true => "standard input".to_owned(),
        false => path.display().to_string(),
    }
}

/// Opens a file, or standard input for `-`.
pub fn open(path: &Path) -> io::Result<(Box<dyn Read + Send>, Position)> {
    if is_stdin(path) {
        return Ok((Box::new(io::stdin()), Position::default()));
    }
    of(File::open(path)?)
}

fn of(file: File) -> io::Result<(Box<dyn Read + Send>, Position)> {
    let metadata = file.metadata()?;
    let position = Position {
        read: Arc::default(),
        size: metadata.is_file().then_some(metadata.len()),
    };
    let counted = Counted {
        file,
        read: position.read.clone(),
    };
    Ok((Box::new(counted), position))
}

/// A recording that can be read several times: a file, or a temporary copy of standard input or of
/// a pipe.
pub struct Twice(File);

impl Twice {
    pub fn open(path: &Path) -> anyhow::Result<Twice> {
        let mut from: Box<dyn Read> = if is_stdin(path) {
            Box::new(io::stdin())
        } else {
            let file = File::open(path)?;
            if file.metadata()?.is_file() {
                return Ok(Twice(file));
            }
            Box::new(file)
        };
        // O_TMPFILE creates a file without a name. The kernel deletes it when this process ends.
        let folder = std::env::temp_dir();
        let mut copy = OpenOptions::new();
        let copy = copy.read(true).write(true).custom_flags(libc::O_TMPFILE);
        let kept = copy.open(&folder).and_then(|mut copy| {
            io::copy(&mut from, &mut copy)?;
            Ok(copy)
        });
        let kept = kept.with_context(|| {
            let folder = folder.display();
            format!("--conn reads it twice, and no copy can be kept in {folder}; save it in a file")
        });
        kept.map(Twice)
    }

    /// Returns the recording from its beginning.
    pub fn recorded(&self, name: &str) -> anyhow::Result<Recorded> {
        let again = || {
            let mut file = self.0.try_clone()?;
            file.rewind()?;
            of(file)
        };
        Recorded::from(again(), name)
    }
}

struct Counted {
    file: File,
    read: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read(bytes)?;
        self.read.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}
