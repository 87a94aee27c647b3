//! The files that a command line names: none is read and written at once, none gets two outputs, and
//! none that is there already is changed before there is something to write.

use std::fmt::Display;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::exit::Usage;
use crate::stdio::plain;

/// Device and inode of a file. However many names and descriptors it has, these are the same.
type Identity = (u64, u64);

/// The files of a command line so far.
pub struct Files {
    inputs: Vec<(String, Identity)>,
    outputs: Vec<(String, Identity)>,
}

impl Files {
    /// None yet but standard output, where something goes there.
    pub fn new(to_stdout: bool) -> Files {
        let stdout = of_descriptor(io::stdout().as_fd()).filter(|_| to_stdout);
        let outputs = stdout.map(|it| ("standard output".to_owned(), it));
        Files {
            inputs: vec![],
            outputs: outputs.into_iter().collect(),
        }
    }

    /// A recording is read from `path`, or from standard input where that is `-`.
    ///
    /// # Errors
    /// [`Usage`] if lines are to be written there, too.
    pub fn read(&mut self, path: &Path, name: &str) -> Result<(), Usage> {
        let identity = match path.as_os_str() == "-" {
            true => of_descriptor(io::stdin().as_fd()),
            // One that is not there is the reader's to tell.
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

    /// Whether `option` may write to what `path` is now, if there is something.
    ///
    /// # Errors
    /// [`Usage`] if it is read, or has another output already.
    pub fn write(&mut self, path: &Path, option: &str) -> Result<(), Usage> {
        let identity = fs::metadata(path).ok().and_then(|it| identity(&it));
        identity.map_or(Ok(()), |it| self.add(path, option, it))
    }

    /// Opens a file for `option`, or creates it, and leaves its contents alone.
    ///
    /// # Errors
    /// [`Usage`] as with [`Files::write`]; else that it cannot be opened.
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

    /// Standard output, for what no lines go to.
    ///
    /// # Errors
    /// [`Usage`] as with [`Files::write`]; else that it cannot be opened.
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

/// A file that is to be written, untouched so far. Where it was created for that, it goes away
/// again unless something is written.
pub struct Target {
    path: PathBuf,
    /// `None` once it is written.
    file: Option<File>,
    is_new: bool,
}

impl Target {
    /// What to call it in a message.
    pub fn name(&self) -> String {
        self.path.display().to_string()
    }

    pub fn has_extension(&self, extension: &str) -> bool {
        self.path.extension().is_some_and(|it| it == extension)
    }

    /// Takes away what it had, and gives it to be written.
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
            // Nothing has been promised of it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Opens a file for writing, or creates it; true when it is new. Never waits: a FIFO that nobody
/// reads is an error.
fn open(path: &Path) -> io::Result<(File, bool)> {
    let created = OpenOptions::new().write(true).create_new(true).open(path);
    match created {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        // A link to a file that is not there yet is not created by this.
        created => return created.map(|file| (file, true)),
    }
    Ok((open_existing(path)?, false))
}

/// Opens what is there for writing, or what a link says should be. Never waits for a FIFO's reader.
pub fn open_existing(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let options = options.write(true).create(true).truncate(false);
    let file = options.custom_flags(libc::O_NONBLOCK).open(path)?;
    // From here on writing may wait.
    // SAFETY: plain system calls on a descriptor that is open.
    let done = unsafe {
        let flags = libc::fcntl(file.as_raw_fd(), libc::F_GETFL);
        libc::fcntl(file.as_raw_fd(), libc::F_SETFL, flags & !libc::O_NONBLOCK)
    };
    match done {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(file),
    }
}

/// Why a file cannot be written, and what to do.
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

/// A message that says all, with its cause for whoever asks for its number.
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

/// `None` for what can have several users at once: terminals, /dev/null, sockets.
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
    fn a_file_keeps_what_it_has_until_something_is_written() {
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
    fn one_file_by_two_names_is_one_file() {
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
        // Neither was there before.
        let mut files = files();
        let _first = files.target(&path("new"), "--write").unwrap();
        assert!(files.target(&path("new"), "-o").is_err());
    }

    #[test]
    fn what_several_can_use_is_no_matter() {
        let null = Path::new("/dev/null");
        let mut files = files();
        files.read(null, "null").unwrap();
        for option in ["--write", "-o"] {
            files.target(null, option).unwrap().begin().unwrap();
        }
    }

    #[test]
    fn a_pipe_that_nobody_reads_is_an_error() {
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
