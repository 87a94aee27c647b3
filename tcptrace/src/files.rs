//! The files named on a command line. No file is both read and written, no file receives two
//! outputs, and no existing file changes before there is something to write.

use std::fmt::Display;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::exit::Usage;
use crate::stdio::plain;

/// Device and inode: the same for every name and every descriptor of a file.
type Identity = (u64, u64);

/// The files of a command line that have been checked so far.
pub struct Files {
    inputs: Vec<(String, Identity)>,
    outputs: Vec<(String, Identity)>,
}

impl Files {
    /// Starts with standard output as a registered output if lines go there (`to_stdout`), else
    /// with no file.
    pub fn new(to_stdout: bool) -> Files {
        let stdout = of_descriptor(io::stdout().as_fd()).filter(|_| to_stdout);
        let outputs = stdout.map(|it| ("standard output".to_owned(), it));
        Files {
            inputs: vec![],
            outputs: outputs.into_iter().collect(),
        }
    }

    /// Registers an input: a recording that is read from `path`, or from standard input if `path`
    /// is `-`.
    ///
    /// # Errors
    /// [`Usage`] if an output goes to the same file.
    pub fn read(&mut self, path: &Path, name: &str) -> Result<(), Usage> {
        let identity = match path.as_os_str() == "-" {
            true => of_descriptor(io::stdin().as_fd()),
            // A missing file is reported by its reader.
            false => fs::metadata(path).ok().and_then(|it| identity(&it)),
        };
        let Some(identity) = identity else {
            return Ok(());
        };
        let output = self.outputs.iter().find(|(_, it)| *it == identity);
        if let Some((output, _)) = output {
            return Err(Usage(format!(
                "{name} cannot be read and written at once, and {output} goes to it"
            )));
        }
        self.inputs.push((name.to_owned(), identity));
        Ok(())
    }

    /// Registers `path` as the output of `option`, if the file exists.
    ///
    /// # Errors
    /// [`Usage`] if the file is an input or already has another output.
    pub fn write(&mut self, path: &Path, option: &str) -> Result<(), Usage> {
        let identity = fs::metadata(path).ok().and_then(|it| identity(&it));
        identity.map_or(Ok(()), |it| self.add(path, option, it))
    }

    /// Opens or creates a file for `option` and leaves its contents unchanged.
    ///
    /// # Errors
    /// [`Usage`] as for [`Files::write`]. Any other error means that the file cannot be opened.
    pub fn target(&mut self, path: &Path, option: &str) -> anyhow::Result<Target> {
        let (file, is_new) = open(path).map_err(|error| cannot_write(path, option, error))?;
        let target = Target {
            path: path.to_owned(),
            file: Some(file),
            is_new,
        };
        let identity = target
            .file
            .as_ref()
            .and_then(|it| of_descriptor(it.as_fd()));
        if let Some(identity) = identity {
            self.add(path, option, identity)?;
            if of_descriptor(io::stderr().as_fd()) == Some(identity) {
                let path = path.display();
                return Err(Usage(format!(
                    "messages go to {path}, too; choose another file for {option}"
                ))
                .into());
            }
        }
        Ok(target)
    }

    /// Registers standard output as the output of `-o`.
    ///
    /// # Errors
    /// [`Usage`] as for [`Files::write`]. Any other error means that the descriptor cannot be
    /// duplicated.
    pub fn stdout(&mut self) -> anyhow::Result<Target> {
        let file = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        let path = PathBuf::from("standard output");
        if let Some(identity) = of_descriptor(file.as_fd()) {
            self.add(&path, "-o", identity)?;
        }
        Ok(Target {
            path,
            file: Some(file),
            is_new: false,
        })
    }

    fn add(&mut self, path: &Path, option: &str, identity: Identity) -> Result<(), Usage> {
        let name = path.display();
        let same = |files: &[(String, Identity)]| {
            let found = files.iter().find(|(_, it)| *it == identity);
            found.map(|(name, _)| name.clone())
        };
        if same(&self.inputs).is_some() {
            return Err(Usage(format!(
                "{name} cannot be read and written at once; choose another file for {option}"
            )));
        }
        if let Some(other) = same(&self.outputs) {
            return Err(Usage(format!(
                "{name} cannot have two outputs, and {other} goes to it; choose another file for \
                 {option}"
            )));
        }
        self.outputs.push((option.to_owned(), identity));
        Ok(())
    }
}

/// An open output file that is still unchanged. A file that was created for this is removed on drop
/// unless [`Target::begin`] was called.
pub struct Target {
    path: PathBuf,
    /// `None` after [`Target::begin`].
    file: Option<File>,
    is_new: bool,
}

impl Target {
    /// Returns the name of the file for messages.
    pub fn name(&self) -> String {
        self.path.display().to_string()
    }

    pub fn has_extension(&self, extension: &str) -> bool {
        self.path.extension().is_some_and(|it| it == extension)
    }

    /// Truncates the file and returns it for writing.
    pub fn begin(mut self) -> io::Result<File> {
        let file = self.file.take().ok_or(io::ErrorKind::InvalidInput)?;
        if file.metadata()?.is_file() {
            file.set_len(0)?;
        }
        Ok(file)
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if self.is_new && self.file.is_some() {
            // Removal is best effort: a file that stays is empty.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Opens or creates a file for writing. Returns true if it is new. Never blocks: a FIFO without a
/// reader is an error.
fn open(path: &Path) -> io::Result<(File, bool)> {
    let created = OpenOptions::new().write(true).create_new(true).open(path);
    match created {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        // `create_new` does not follow a symbolic link whose target is missing.
        created => return created.map(|file| (file, true)),
    }
    Ok((open_existing(path)?, false))
}

/// Opens an existing file for writing, or creates the missing target of a symbolic link. Never
/// blocks: a FIFO without a reader is an error.
pub fn open_existing(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let options = options.write(true).create(true).truncate(false);
    let file = options.custom_flags(libc::O_NONBLOCK).open(path)?;
    // O_NONBLOCK was only for open(): later writes may block.
    // SAFETY: plain system calls on an open descriptor.
    let done = unsafe {
        let flags = libc::fcntl(file.as_raw_fd(), libc::F_GETFL);
        libc::fcntl(file.as_raw_fd(), libc::F_SETFL, flags & !libc::O_NONBLOCK)
    };
    match done {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(file),
    }
}

/// Returns the error for a file that cannot be written, with advice.
pub fn cannot_write(path: &Path, option: &str, error: io::Error) -> anyhow::Error {
    let is_fifo = fs::metadata(path).is_ok_and(|it| it.file_type().is_fifo());
    let path = path.display();
    match is_fifo && error.raw_os_error() == Some(libc::ENXIO) {
        true => anyhow::anyhow!("nobody reads the named pipe {path}; start its reader first"),
        false => because(
            format!(
                "cannot write to {path}: {}; choose another file for {option}",
                plain(&error)
            ),
            error,
        ),
    }
}

/// Returns `message` as an error. Keeps the original error for EMFILE and ENFILE, because
/// `failure::message` has its own text for them.
fn because(message: impl Display, cause: io::Error) -> anyhow::Error {
    match cause.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE) => cause.into(),
        _ => anyhow::anyhow!("{message}"),
    }
}

fn of_descriptor(fd: BorrowedFd) -> Option<Identity> {
    let file = File::from(fd.try_clone_to_owned().ok()?);
    identity(&file.metadata().ok()?)
}

/// Returns `None` for files that several users may share: terminals, /dev/null, sockets.
fn identity(metadata: &Metadata) -> Option<Identity> {
    let kind = metadata.file_type();
    let is_shared = kind.is_char_device() || kind.is_socket();
    (!is_shared).then(|| (metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn files() -> Files {
        Files {
            inputs: vec![],
            outputs: vec![],
        }
    }

    #[test]
    fn an_existing_file_is_unchanged_until_something_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (folder.path().join("old"), folder.path().join("new"));
        fs::write(&old, "an old recording").unwrap();
        for path in [&old, &new] {
            drop(files().target(path, "--write").unwrap());
        }
        assert_eq!(fs::read(&old).unwrap(), b"an old recording");
        assert!(!new.exists());
        for path in [&old, &new] {
            let target = files().target(path, "--write").unwrap();
            target.begin().unwrap().write_all(b"x").unwrap();
            assert_eq!(fs::read(path).unwrap(), b"x");
        }
    }

    #[test]
    fn a_file_with_several_names_is_recognized_as_one_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("file"), "x").unwrap();
        fs::hard_link(path("file"), path("hard")).unwrap();
        std::os::unix::fs::symlink(path("file"), path("soft")).unwrap();
        for name in ["file", "hard", "soft"] {
            let mut files = files();
            files.read(&path("file"), "file").unwrap();
            let error = files.target(&path(name), "--write").err().unwrap();
            assert!(
                error.is::<Usage>() && error.to_string().contains("at once"),
                "{error}"
            );
            assert!(files.write(&path(name), "-o").is_err());
        }
        for name in ["file", "hard", "soft"] {
            let mut files = files();
            let _first = files.target(&path("file"), "--write").unwrap();
            let error = files.target(&path(name), "-o").err().unwrap();
            assert!(
                error.is::<Usage>() && error.to_string().contains("two outputs"),
                "{error}"
            );
        }
        assert_eq!(fs::read(path("file")).unwrap(), b"x");
        // Here both outputs name a file that did not exist before.
        let mut files = files();
        let _first = files.target(&path("new"), "--write").unwrap();
        assert!(files.target(&path("new"), "-o").is_err());
    }

    #[test]
    fn dev_null_may_be_an_input_and_have_several_outputs() {
        let null = Path::new("/dev/null");
        let mut files = files();
        files.read(null, "null").unwrap();
        for option in ["--write", "-o"] {
            files.target(null, option).unwrap().begin().unwrap();
        }
    }

    #[test]
    fn a_fifo_without_a_reader_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        let name = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
        // SAFETY: a name that ends in NUL.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        let error = files().target(&path, "--write").err().unwrap();
        assert!(error.to_string().contains("nobody reads"), "{error}");
        assert!(path.exists());
        let reading = OpenOptions::new();
        let reading = reading
            .clone()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(&path)
            .unwrap();
        let mut writing = files().target(&path, "--write").unwrap().begin().unwrap();
        writing.write_all(b"x").unwrap();
        drop(reading);
    }
}
