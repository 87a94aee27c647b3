//! The configuration files: their places, and who may write them.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::stdio::plain;

/// The machine's file.
const MACHINE: &str = "/etc/tcptrace.toml";

/// Largest size of a file, in bytes.
const LARGEST: u64 = 1 << 20;

/// Permission bits of the group and of others to write.
const WRITE_BY_OTHERS: u32 = 0o022;

/// Returns the paths of the files, that of the highest precedence first. `variable` returns a variable of
/// the environment. As the XDG Base Directory Specification demands, relative paths are ignored.
pub fn paths(variable: impl Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    let absolute = |name| {
        let path = variable(name).map(PathBuf::from);
        path.filter(|it| it.is_absolute())
    };
    let home = || Some(absolute("HOME")?.join(".config"));
    let user = absolute("XDG_CONFIG_HOME").or_else(home);
    let user = user.map(|it| it.join("tcptrace/config.toml"));
    user.into_iter().chain([MACHINE.into()]).collect()
}

/// Returns the text of a file, or `None` if there is no such file.
///
/// # Errors
/// One line, if the file cannot be read, or if another user may have written it: tcptrace may run with
/// more privileges than that user.
pub fn read(path: &Path) -> Result<Option<String>, String> {
    let refused = |what: &str| format!("{}: {what}", path.display());
    // Without O_NONBLOCK, open() waits for a writer of a FIFO.
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if absent(error.kind()) || is_hidden(path) => return Ok(None),
        Err(error) => return Err(refused(&plain(&error))),
    };
    let about = file.metadata().map_err(|error| refused(&plain(&error)))?;
    if !about.is_file() {
        return Err(refused("not a regular file"));
    }
    let own = nix::unistd::geteuid().as_raw();
    check_writers(about.uid(), about.mode(), own).map_err(|what| refused(&what))?;
    if about.len() > LARGEST {
        return Err(refused("a configuration file has at most 1 MiB"));
    }
    let mut text = String::new();
    match file.take(LARGEST).read_to_string(&mut text) {
        Ok(_) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::InvalidData => Err(refused("not UTF-8")),
        Err(error) => Err(refused(&plain(&error))),
    }
}

fn absent(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::NotFound | ErrorKind::NotADirectory)
}

/// Returns true if this user may not search the file's directory. The variable HOME may name the home
/// of another user, such as root's after `su`. Nothing in it is meant for this user.
fn is_hidden(path: &Path) -> bool {
    let found = std::fs::symlink_metadata(path);
    found.is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
}

/// Checks that only root and the user with the id `own` can write a file.
fn check_writers(owner: u32, mode: u32, own: u32) -> Result<(), String> {
    if owner != 0 && owner != own {
        return Err(format!(
            "the file belongs to user {owner}, but tcptrace runs as user {own} and trusts only its \
             own files and those of root; --no-config ignores it"
        ));
    }
    if mode & WRITE_BY_OTHERS != 0 {
        return Err(format!(
            "other users may write the file (mode {:03o}); `chmod go-w` corrects it, --no-config \
             ignores it",
            mode & 0o777
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn paths_of(variables: &[(&str, &str)]) -> Vec<String> {
        let value = |name: &str| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| OsString::from(value))
        };
        let paths = paths(value).into_iter();
        paths.map(|it| it.display().to_string()).collect()
    }

    #[test]
    fn the_users_file_lies_below_xdg_config_home_or_home() {
        let machine = "/etc/tcptrace.toml";
        for (variables, user) in [
            (
                &[("HOME", "/home/a")][..],
                Some("/home/a/.config/tcptrace/config.toml"),
            ),
            (
                &[("HOME", "/home/a"), ("XDG_CONFIG_HOME", "/x")],
                Some("/x/tcptrace/config.toml"),
            ),
            (
                &[("HOME", "/h"), ("XDG_CONFIG_HOME", "")],
                Some("/h/.config/tcptrace/config.toml"),
            ),
            (
                &[("HOME", "/h"), ("XDG_CONFIG_HOME", "relative")],
                Some("/h/.config/tcptrace/config.toml"),
            ),
            (&[("HOME", "")], None),
            (&[], None),
        ] {
            let expected: Vec<&str> = user.into_iter().chain([machine]).collect();
            assert_eq!(paths_of(variables), expected, "{variables:?}");
        }
    }

    #[test]
    fn a_file_that_another_user_can_write_is_not_trusted() {
        for (owner, mode, own, trusted) in [
            (0, 0o100644, 0, true),
            (0, 0o100644, 1000, true),
            (1000, 0o100600, 1000, true),
            (1000, 0o100600, 0, false),
            (1000, 0o100644, 1001, false),
            (0, 0o100664, 0, false),
            (1000, 0o100602, 1000, false),
        ] {
            let checked = check_writers(owner, mode, own);
            assert_eq!(
                checked.is_ok(),
                trusted,
                "{owner} {mode:o} {own}: {checked:?}"
            );
        }
        let error = check_writers(0, 0o100666, 0).unwrap_err();
        assert!(error.contains("(mode 666)"), "{error}");
    }

    #[test]
    fn a_missing_file_is_no_error_but_an_unreadable_one_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let write = |name: &str, bytes: &[u8]| {
            std::fs::write(path(name), bytes).unwrap();
            let mode = std::fs::Permissions::from_mode(0o600);
            std::fs::set_permissions(path(name), mode).unwrap();
        };
        assert_eq!(read(&path("missing")), Ok(None));
        write("good", b"port = 80\n");
        assert_eq!(read(&path("good")), Ok(Some("port = 80\n".to_owned())));
        assert_eq!(read(&path("good/below")), Ok(None));
        write("bytes", b"port = \xff");
        write("large", &vec![b'#'; (LARGEST + 1) as usize]);
        std::os::unix::fs::symlink("loop", path("loop")).unwrap();
        std::fs::create_dir(path("directory")).unwrap();
        nix::unistd::mkfifo(&path("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        for (name, expected) in [
            ("bytes", "not UTF-8"),
            ("large", "a configuration file has at most 1 MiB"),
            ("loop", "Too many levels of symbolic links"),
            ("directory", "not a regular file"),
            ("fifo", "not a regular file"),
        ] {
            let expected = format!("{}: {expected}", path(name).display());
            assert_eq!(read(&path(name)), Err(expected));
        }
    }
}
