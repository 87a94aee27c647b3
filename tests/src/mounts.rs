//! Child processes with a private view of the mounts.

use std::ffi::{CStr, CString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

/// Lets the command's process see an empty folder at `path`.
pub fn hide(command: &mut Command, path: &'static CStr) {
    in_private(command, move || {
        let none = None::<&CStr>;
        mount(none, path, Some(c"tmpfs"), MsFlags::empty(), none)
    });
}

/// Lets the command's process see the folder `by` at `path`.
pub fn replace(command: &mut Command, path: &'static CStr, by: &Path) {
    let by = CString::new(by.as_os_str().as_bytes()).expect("a path has no NUL");
    in_private(command, move || {
        let none = None::<&CStr>;
        mount(Some(by.as_c_str()), path, none, MsFlags::MS_BIND, none)
    });
}

/// Unmounts `path` for the command's process, if it is mounted.
pub fn unmount(command: &mut Command, path: &'static CStr) {
    in_private(command, move || {
        let _ = umount2(path, MntFlags::MNT_DETACH);
        Ok(())
    });
}

/// Lets the command's process see the folder `source` at each of these paths, which exist.
pub fn bind(command: &mut Command, binds: Vec<(CString, CString)>) {
    in_private(command, move || {
        let none = None::<&CStr>;
        let mut binds = binds.iter();
        binds.try_for_each(|(source, path)| {
            mount(
                Some(source.as_c_str()),
                path.as_c_str(),
                none,
                MsFlags::MS_BIND,
                none,
            )
        })
    });
}

fn in_private(command: &mut Command, change: impl Fn() -> nix::Result<()> + Send + Sync + 'static) {
    // SAFETY: system calls without allocation are async-signal-safe.
    unsafe {
        command.pre_exec(move || {
            unshare(CloneFlags::CLONE_NEWNS)?;
            let none = None::<&CStr>;
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(none, c"/", none, private, none)?;
            change().map_err(io::Error::from)
        });
    }
}
