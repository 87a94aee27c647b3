//! Files that container runtimes write. Their contents are untrusted: whoever starts a container
//! chooses most of them.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::de::DeserializeOwned;

/// A directory of a runtime's files.
pub struct Directory(File);

impl Directory {
    /// Opens a directory. Symbolic links on the way are followed, because an administrator may
    /// have moved the directory to another disk.
    pub fn open(path: &Path) -> Option<Directory> {
        let mut options = OpenOptions::new();
        options.read(true);
        options.custom_flags(libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC);
        options.open(path).ok().map(Directory)
    }

    /// Reads a JSON file below the directory. `None` if it does not exist, or if it is not a
    /// regular file of at most `max` bytes with the expected contents. Symbolic links below the
    /// directory are not followed.
    pub fn json<T: DeserializeOwned>(&self, path: &Path, max: u64) -> Option<T> {
        let file = self.open_beneath(path).ok()?;
        // A FIFO or a device may block, or never end.
        if !file.metadata().ok()?.is_file() {
            return None;
        }
        let mut bytes = vec![];
        // The file may grow while it is read.
        file.take(max + 1).read_to_end(&mut bytes).ok()?;
        if bytes.len() as u64 > max {
            return None;
        }
        serde_json::from_slice(&bytes).ok()
    }

    /// Opens a file without waiting, with openat2(2), which Linux has since 5.6.
    fn open_beneath(&self, path: &Path) -> io::Result<File> {
        let path = CString::new(path.as_os_str().as_bytes())?;
        // SAFETY: the kernel's structure is plain numbers, and zeros are valid.
        let mut how: libc::open_how = unsafe { std::mem::zeroed() };
        how.flags = (libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY) as u64;
        how.resolve = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_SYMLINKS;
        // SAFETY: the descriptor is open, the string ends with NUL, and the size is the structure's.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_openat2,
                self.0.as_raw_fd(),
                path.as_ptr(),
                &raw const how,
                size_of::<libc::open_how>(),
            )
        };
        match fd {
            // SAFETY: the descriptor is new, and nothing else owns it.
            0.. => Ok(unsafe { File::from_raw_fd(fd as i32) }),
            _ => Err(io::Error::last_os_error()),
        }
    }
}
