//! Landlock (landlock(7)): the files that a thread may write, and whether it may connect by TCP.
//!
//! Reading is not restricted. A thread under Landlock may not look at other processes in /proc, so the
//! threads that do this, those of [`Role::Lookups`](super::Role) and `Symbols`, are not under it.

use std::path::PathBuf;

use landlock::{
    ABI, AccessFs, AccessNet, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetError,
    path_beneath_rules,
};

/// Devices that a terminal program may open for writing.
const DEVICES: [&str; 2] = ["/dev/null", "/dev/tty"];

/// The access that a trace needs after its start.
#[derive(Clone, Debug, Default)]
pub struct Needs {
    /// The folders of files that are created later.
    pub folders: Vec<PathBuf>,
    /// Connections by TCP, as in the demo.
    pub connects: bool,
}

/// Restricts the calling thread, and the threads that it starts, to `needs`. They may not execute
/// programs. Restricts nothing on a kernel without Landlock, and less on an older one.
///
/// # Errors
/// If the kernel has Landlock and refuses.
pub fn restrict(needs: &Needs) -> Result<(), RulesetError> {
    let writing = AccessFs::from_write(ABI::V3);
    let mut ruleset = Ruleset::default().handle_access(writing | AccessFs::Execute)?;
    if !needs.connects {
        ruleset = ruleset.handle_access(AccessNet::BindTcp | AccessNet::ConnectTcp)?;
    }
    let folders = path_beneath_rules(&needs.folders, writing);
    let devices = path_beneath_rules(DEVICES, AccessFs::WriteFile);
    let ruleset = ruleset.create()?.add_rules(folders)?.add_rules(devices)?;
    // Other code has set no_new_privs.
    ruleset.restrict_self()?;
    Ok(())
}

/// Returns the version of Landlock in this kernel, or `None` if it has none or has turned it off.
pub fn version() -> Option<u32> {
    /// `LANDLOCK_CREATE_RULESET_VERSION`, include/uapi/linux/landlock.h.
    const VERSION: u32 = 1;
    let none: *const u8 = std::ptr::null();
    // SAFETY: with this flag, the kernel reads no memory.
    let version = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, none, 0, VERSION) };
    u32::try_from(version).ok().filter(|version| *version > 0)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::ErrorKind;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_restricted_thread_writes_only_in_the_folder_of_its_files() {
        let Some(version) = version() else {
            return;
        };
        let [inside, outside] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let needs = Needs {
            folders: vec![inside.path().to_owned()],
            connects: false,
        };
        let (to, not_to) = (inside.path().join("a"), outside.path().join("a"));
        let thread = std::thread::spawn(move || {
            restrict(&needs).unwrap();
            let refused = fs::write(&not_to, "x").map_err(|error| error.kind());
            let executed = std::process::Command::new("/bin/true").spawn();
            let executed = executed.map(drop).map_err(|error| error.kind());
            let connected = TcpStream::connect(address).map(drop);
            let written = fs::write(&to, "x").and_then(|()| fs::remove_file(&to));
            let read = fs::read_to_string("/proc/self/stat").is_ok();
            (refused, executed, written.is_ok(), read, connected.is_ok())
        });
        let denied = Err(ErrorKind::PermissionDenied);
        let expected = (denied, denied, true, true, version < 4);
        assert_eq!(thread.join().unwrap(), expected);
        fs::write(outside.path().join("a"), "x").expect("other threads are as before");
    }
}
