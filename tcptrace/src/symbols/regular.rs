//! Opens files that a traced process has chosen.
//!
//! A path may lead to a FIFO, which blocks, or to a device, where even opening has effects.
//! Therefore a path is first opened with O_PATH, which only names the file. The named file is opened
//! for reading when it has been found to be regular. Reading a file of another user's FUSE file system
//! fails at once, because the kernel does not let that user delay root (`fuse_allow_current_process`,
//! fs/fuse/dir.c).

use std::ffi::CString;
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Opens a regular file of at most `most` bytes. The last part of the path may be a link.
///
/// # Errors
/// Errors of open(2), and [`io::ErrorKind::InvalidInput`] for any other kind of file and for larger
/// files.
pub fn open(path: &Path, most: u64) -> io::Result<(File, Metadata)> {
    let named = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_CLOEXEC)
        .open(path)?;
    reopen(&named, most)
}

/// Like [`open`], but `path` is resolved as if the directory `root` were the root directory.
///
/// # Errors
/// As [`open`]; also [`io::ErrorKind::Unsupported`] without openat2(2), which came with Linux 5.6.
pub fn open_in(root: &Path, path: &Path, most: u64) -> io::Result<(File, Metadata)> {
    let root = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC)
        .open(root)?;
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: `open_how` consists of integers, for which zero is valid.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = (libc::O_PATH | libc::O_CLOEXEC) as u64;
    how.resolve = libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_MAGICLINKS;
    // SAFETY: the descriptor is open, the path ends in a zero, and the size is that of `how`. The
    // result is a new descriptor or negative.
    let named = unsafe {
        let fd = libc::syscall(
            libc::SYS_openat2,
            root.as_raw_fd(),
            path.as_ptr(),
            &raw const how,
            size_of::<libc::open_how>(),
        );
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        File::from_raw_fd(fd as libc::c_int)
    };
    reopen(&named, most)
}

/// Opens the file that a descriptor of O_PATH names.
fn reopen(named: &File, most: u64) -> io::Result<(File, Metadata)> {
    let metadata = named.metadata()?;
    if !metadata.is_file() || metadata.len() > most {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC)
        .open(format!("/proc/self/fd/{}", named.as_raw_fd()))?;
    Ok((file, metadata))
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn only_regular_files_of_bounded_size_are_opened() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "text").unwrap();
        let fifo = folder.path().join("fifo");
        let name = CString::new(fifo.as_os_str().as_bytes()).unwrap();
        // SAFETY: the path ends in a zero.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        let kind = |path: &Path, most| open(path, most).err().map(|error| error.kind());
        assert_eq!(kind(&file, 4), None);
        assert_eq!(kind(&file, 3), Some(io::ErrorKind::InvalidInput));
        assert_eq!(kind(&fifo, 4), Some(io::ErrorKind::InvalidInput));
        let null = Path::new("/dev/null");
        assert_eq!(kind(null, 4), Some(io::ErrorKind::InvalidInput));
    }

    #[test]
    fn links_within_a_root_do_not_leave_it() {
        let root = tempfile::tempdir().unwrap();
        let (inside, outside) = (root.path().join("file"), "/etc/hostname");
        std::fs::write(inside, "inside").unwrap();
        let link = |name, to| std::os::unix::fs::symlink(to, root.path().join(name)).unwrap();
        link("absolute", "/file");
        link("upwards", "../../../../../../file");
        link("outside", outside);
        let read = |path: &str| {
            let mut text = String::new();
            let (mut file, _) = open_in(root.path(), Path::new(path), 100)?;
            file.read_to_string(&mut text).map(|_| text)
        };
        assert_eq!(read("/absolute").unwrap(), "inside");
        assert_eq!(read("upwards").unwrap(), "inside");
        let error = read("/outside").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
