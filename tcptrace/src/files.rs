//! The files named on a command line. No file is both read and written, no file receives two
//! outputs, and no existing file changes before there is something to write.

use std::fmt::Display;
use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;
use tempfile::NamedTempFile;

use crate::exit::Usage;
use crate::stdio::plain;

/// Device and inode: the same for every name and every descriptor of a file.
type Identity = (u64, u64);

/// The files of a command line that have been checked so far.
pub struct Files {
    inputs: Vec<(String, Identity)>,
    outputs: Vec<(String, Identity)>,
    /// Outputs that do not exist yet.
    new: Vec<(String, PathBuf)>,
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
            new: vec![],
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

    /// Prepares a file for `option`. An existing file is unchanged until [`Target::begin`].
    ///
    /// # Errors
    /// [`Usage`] as for [`Files::write`], and if a file exists that is not empty, unless `force` is
    /// set. Any other error means that the file cannot be written.
    pub fn target(&mut self, path: &Path, option: &str, force: bool) -> anyhow::Result<Target> {
        let existing = fs::metadata(path).ok();
        if let Some(identity) = existing.as_ref().and_then(identity) {
            self.add(path, option, identity)?;
            if of_descriptor(io::stderr().as_fd()) == Some(identity) {
                let path = path.display();
                return Err(Usage(format!(
                    "messages go to {path}, too; choose another file for {option}"
                ))
                .into());
            }
        }
        let unwritable = |error| cannot_write(path, option, error);
        let place = real(path).map_err(unwritable)?;
        if existing.is_none() {
            self.add_new(&place, option)?;
        }
        let is_file = existing.as_ref().is_none_or(Metadata::is_file);
        if is_file && existing.is_some_and(|it| it.len() > 0) && !force {
            let path = path.display();
            return Err(Usage(format!(
                "{path} exists; choose another file for {option}, or replace it with --force"
            ))
            .into());
        }
        let out = match is_file {
            true => Out::Beside(new_beside(&place).map_err(unwritable)?),
            false => Out::Open(open_existing(&place).map_err(unwritable)?),
        };
        Ok(Target {
            name: path.display().to_string(),
            place,
            out,
        })
    }

    fn add_new(&mut self, place: &Path, option: &str) -> Result<(), Usage> {
        if let Some((other, _)) = self.new.iter().find(|(_, it)| it == place) {
            return Err(two_outputs(place, other, option));
        }
        self.new.push((option.to_owned(), place.to_owned()));
        Ok(())
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
            name: path.display().to_string(),
            place: path,
            out: Out::Open(file),
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
            return Err(two_outputs(path, &other, option));
        }
        self.outputs.push((option.to_owned(), identity));
        Ok(())
    }
}

fn two_outputs(path: &Path, other: &str, option: &str) -> Usage {
    let path = path.display();
    Usage(format!(
        "{path} cannot have two outputs, and {other} goes to it; choose another file for {option}"
    ))
}

/// An output file whose path still has its old contents.
pub struct Target {
    name: String,
    place: PathBuf,
    out: Out,
}

enum Out {
    /// A new file in the same folder, which is removed on drop. It replaces the old one.
    Beside(NamedTempFile),
    /// A pipe, a device, or standard output.
    Open(File),
}

impl Target {
    /// Returns the name of the file for messages.
    pub fn name(&self) -> String {
        self.name.clone()
    }

    /// Replaces what is at the path, and returns the file for writing.
    pub fn begin(self) -> io::Result<File> {
        match self.out {
            Out::Beside(file) => Ok(file.persist(&self.place)?),
            Out::Open(file) => {
                if file.metadata()?.is_file() {
                    file.set_len(0)?;
                }
                Ok(file)
            }
        }
    }
}

/// Returns the permissions of a new file: only for its owner if root creates it, because a trace shows
/// what all users do. Otherwise the umask decides.
pub fn permissions() -> Permissions {
    Permissions::from_mode(if geteuid().is_root() { 0o600 } else { 0o666 })
}

/// Creates a file that does not exist. Does not follow symbolic links.
pub fn create_new(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let options = options.write(true).create_new(true);
    let file = options.mode(permissions().mode()).open(path)?;
    give_to_caller(&file);
    Ok(file)
}

/// Creates a file beside another one, to be renamed to it.
pub fn new_beside(path: &Path) -> io::Result<NamedTempFile> {
    let file = tempfile::Builder::new()
        .prefix(".tcptrace-")
        .permissions(permissions())
        .tempfile_in(folder_of(path))?;
    give_to_caller(file.as_file());
    Ok(file)
}

/// Returns the ids of the user and the group who called sudo.
pub fn caller_of_sudo() -> Option<(u32, u32)> {
    let id = |name| std::env::var(name).ok()?.parse().ok();
    let ids = (id("SUDO_UID")?, id("SUDO_GID")?);
    geteuid().is_root().then_some(ids)
}

/// Makes the user who called sudo the owner of a new file, so that reading it needs no sudo.
fn give_to_caller(file: &File) {
    if let Some((uid, gid)) = caller_of_sudo() {
        // Some file systems have no owners.
        let _ = std::os::unix::fs::fchown(file, Some(uid), Some(gid));
    }
}

/// Returns the folder of a file.
pub fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Returns whether other users than its owner may write to a folder.
fn is_shared(folder: &Path) -> io::Result<bool> {
    const OTHERS_WRITE: u32 = 0o022;
    Ok(fs::metadata(folder)?.mode() & OTHERS_WRITE != 0)
}

/// Returns the path of an output with all symbolic links resolved.
///
/// # Errors
/// [`io::ErrorKind::PermissionDenied`] if the file is a symbolic link that another user has made, in a
/// folder that all users may write to. The folder may be missing.
pub fn real(path: &Path) -> io::Result<PathBuf> {
    let folder = folder_of(path);
    let link = fs::symlink_metadata(path).ok();
    let link = link.filter(|it| it.file_type().is_symlink());
    if let Some(link) = link {
        if is_shared(folder)? && link.uid() != geteuid().as_raw() {
            let why = "it is a symbolic link of another user in a shared folder";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        }
        match fs::canonicalize(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            real => return real,
        }
    }
    let name = path.file_name().ok_or(io::ErrorKind::IsADirectory)?;
    Ok(fs::canonicalize(folder)?.join(name))
}

/// Opens an existing pipe or device for writing. Never blocks: a FIFO without a reader is an error.
/// `path` is the result of [`real`]: it is a link only in /proc/self/fd, unless another user has just
/// made it one.
pub fn open_existing(path: &Path) -> io::Result<File> {
    let flags = match is_shared(folder_of(path))? {
        true => libc::O_NONBLOCK | libc::O_NOFOLLOW,
        false => libc::O_NONBLOCK,
    };
    let mut options = OpenOptions::new();
    let file = options.write(true).custom_flags(flags).open(path)?;
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
            new: vec![],
        }
    }

    #[test]
    fn an_existing_file_is_unchanged_until_something_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (folder.path().join("old"), folder.path().join("new"));
        fs::write(&old, "an old recording").unwrap();
        for path in [&old, &new] {
            drop(files().target(path, "--write", true).unwrap());
        }
        assert_eq!(fs::read(&old).unwrap(), b"an old recording");
        assert!(!new.exists());
        for path in [&old, &new] {
            let target = files().target(path, "--write", true).unwrap();
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
            let error = files.target(&path(name), "--write", true).err().unwrap();
            assert!(
                error.is::<Usage>() && error.to_string().contains("at once"),
                "{error}"
            );
            assert!(files.write(&path(name), "-o").is_err());
        }
        for name in ["file", "hard", "soft"] {
            let mut files = files();
            let _first = files.target(&path("file"), "--write", true).unwrap();
            let error = files.target(&path(name), "-o", true).err().unwrap();
            assert!(
                error.is::<Usage>() && error.to_string().contains("two outputs"),
                "{error}"
            );
        }
        assert_eq!(fs::read(path("file")).unwrap(), b"x");
        // Here both outputs name a file that did not exist before.
        let mut files = files();
        let _first = files.target(&path("new"), "--write", true).unwrap();
        assert!(files.target(&path("new"), "-o", true).is_err());
    }

    #[test]
    fn dev_null_may_be_an_input_and_have_several_outputs() {
        let null = Path::new("/dev/null");
        let mut files = files();
        files.read(null, "null").unwrap();
        for option in ["--write", "-o"] {
            files.target(null, option, false).unwrap().begin().unwrap();
        }
    }

    #[test]
    fn a_fifo_without_a_reader_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        let name = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
        // SAFETY: a name that ends in NUL.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        let error = files().target(&path, "--write", true).err().unwrap();
        assert!(error.to_string().contains("nobody reads"), "{error}");
        assert!(path.exists());
        let reading = OpenOptions::new();
        let reading = reading
            .clone()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(&path)
            .unwrap();
        let mut writing = files()
            .target(&path, "--write", true)
            .unwrap()
            .begin()
            .unwrap();
        writing.write_all(b"x").unwrap();
        drop(reading);
    }
}
