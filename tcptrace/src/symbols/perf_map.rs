//! Names of functions that a runtime such as Node or the JVM has compiled: `/tmp/perf-PID.map`
//! (tools/perf/Documentation/jit-interface.txt in the kernel's source).

use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::maps::{self, Status};
use super::regular;

/// Upper bound on the bytes of a file that are read.
const MOST: u64 = 64 << 20;

/// Upper bound on the functions of a process.
const FUNCTIONS: usize = 1 << 20;

/// The compiled functions of a process. The runtime appends to the file while it runs.
#[derive(Default)]
pub struct PerfMap {
    /// The functions by start: end and name.
    functions: BTreeMap<u64, (u64, Box<str>)>,
    /// Device and inode of the file that was read.
    file: (u64, u64),
    /// Bytes of the file that were read.
    read: u64,
}

impl PerfMap {
    /// Reads the new part of the process's file. Keeps what is known if the file cannot be read, or
    /// if neither the process's user nor root owns it.
    pub fn update(&mut self, pid: u32) {
        // The errors are expected: most processes have no such file.
        let _ = Status::of(pid).map(|status| self.update_in(&maps::root(pid), status));
    }

    fn update_in(&mut self, root: &Path, status: Status) -> io::Result<()> {
        // The runtime sees its own /tmp, and its process id in its own namespace.
        let path = PathBuf::from(format!("tmp/perf-{}.map", status.own_pid));
        let (file, metadata) = regular::open_in(root, &path, u64::MAX)?;
        if !maps::may_own(status, &metadata) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        self.append(&file, &metadata)
    }

    fn append(&mut self, file: &File, metadata: &Metadata) -> io::Result<()> {
        let (inode, len) = ((metadata.dev(), metadata.ino()), metadata.len().min(MOST));
        if self.file != inode || len < self.read {
            *self = PerfMap {
                file: inode,
                ..PerfMap::default()
            };
        }
        let mut bytes = vec![0; (len - self.read) as usize];
        file.read_exact_at(&mut bytes, self.read)?;
        self.read += self.add(&bytes) as u64;
        Ok(())
    }

    /// Adds the functions of the complete lines. Returns the size of these lines in bytes.
    pub(crate) fn add(&mut self, bytes: &[u8]) -> usize {
        // The last line may be incomplete. It is read again next time.
        let complete = bytes.iter().rposition(|byte| *byte == b'\n');
        let complete = complete.map_or(0, |last| last + 1);
        for line in String::from_utf8_lossy(&bytes[..complete]).lines() {
            if let Some((start, end, name)) = function(line)
                && self.functions.len() < FUNCTIONS
            {
                self.insert(start, end, name);
            }
        }
        complete
    }

    /// Inserts a function. It replaces older ones, because the runtime reuses memory.
    fn insert(&mut self, start: u64, end: u64, name: &str) {
        while let Some((&old, _)) = self.functions.range(start..end).next() {
            self.functions.remove(&old);
        }
        self.functions.insert(start, (end, name.into()));
    }

    /// Returns the function that contains the address.
    pub fn find(&self, address: u64) -> Option<&str> {
        let (_, (end, name)) = self.functions.range(..=address).next_back()?;
        (address < *end).then_some(name)
    }
}

/// Parses a line such as `7f2a1c000000 4c LazyCompile:~handle server.js:12`: start and size in
/// hexadecimal, name.
fn function(line: &str) -> Option<(u64, u64, &str)> {
    let mut parts = line.splitn(3, ' ');
    let mut number = || {
        let digits = parts.next()?;
        let digits = digits.strip_prefix("0x").unwrap_or(digits);
        u64::from_str_radix(digits, 16).ok()
    };
    let start = number()?;
    let end = start.checked_add(number()?)?;
    let name = parts.next()?.trim();
    (end > start && !name.is_empty()).then_some((start, end, name))
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;
    use std::io::Write;
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    fn status() -> Status {
        Status {
            // SAFETY: a plain system call.
            euid: unsafe { libc::geteuid() },
            own_pid: 7,
        }
    }

    fn root() -> (tempfile::TempDir, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("tmp")).unwrap();
        let path = root.path().join("tmp/perf-7.map");
        (root, path)
    }

    #[test]
    fn the_newest_function_at_an_address_is_found() {
        let (root, path) = root();
        let mut map = PerfMap::default();
        let text = "1000 100 old\n2000 10 LazyCompile:~handle server.js:12\nbad line\n3000 10 cut";
        std::fs::write(&path, text).unwrap();
        map.update_in(root.path(), status()).unwrap();
        assert_eq!(map.find(0xfff), None);
        assert_eq!(map.find(0x10ff), Some("old"));
        assert_eq!(map.find(0x2000), Some("LazyCompile:~handle server.js:12"));
        assert_eq!(map.find(0x2010), None);
        assert_eq!(map.find(0x3000), None);
        // The rest of the line arrives, and a new function in the memory of an old one.
        let mut file = File::options().append(true).open(&path).unwrap();
        file.write_all(b" no more\n0xff0 20 new\n").unwrap();
        map.update_in(root.path(), status()).unwrap();
        assert_eq!(map.find(0x3000), Some("cut no more"));
        assert_eq!(map.find(0x1005), Some("new"));
        assert_eq!(map.find(0x1010), None);
    }

    #[test]
    fn a_fifo_is_not_read() {
        let (root, path) = root();
        let name = CString::new(path.as_os_str().as_bytes()).unwrap();
        // SAFETY: the path ends in a zero.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o666) }, 0);
        let error = PerfMap::default()
            .update_in(root.path(), status())
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn a_file_of_another_user_is_not_read() {
        let (root, path) = root();
        std::fs::write(&path, "1000 100 f\n").unwrap();
        let mut map = PerfMap::default();
        if std::os::unix::fs::chown(&path, Some(12_345), None).is_err() {
            // Only root may change the owner.
            return;
        }
        let error = map.update_in(root.path(), status()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        assert_eq!(map.find(0x1000), None);
    }
}
