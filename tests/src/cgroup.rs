//! A cgroup (version 2) of its own for a scenario's processes.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// A cgroup, removed at the end of the scenario.
pub struct Cgroup {
    pub path: PathBuf,
}

impl Cgroup {
    /// Below the root, under a name that nobody else has.
    pub fn new() -> Cgroup {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("tcptrace-test-{}-{n}", std::process::id());
        Cgroup::make(mount().join(name))
    }

    /// Inside this one.
    pub fn child(&self, name: &str) -> Cgroup {
        Cgroup::make(self.path.join(name))
    }

    fn make(path: PathBuf) -> Cgroup {
        fs::create_dir(&path).expect("make a cgroup");
        Cgroup { path }
    }

    /// As in the lines' `cgroup`.
    pub fn id(&self) -> u64 {
        fs::metadata(&self.path).expect("a cgroup").ino()
    }

    /// The command's process will live here.
    pub fn put(&self, command: &mut Command) {
        let procs = self.path.join("cgroup.procs");
        let procs = OpenOptions::new().write(true).open(procs);
        let procs = procs.expect("open cgroup.procs");
        // SAFETY: write is async-signal-safe; 0 stands for whoever writes.
        unsafe {
            command.pre_exec(move || (&procs).write_all(b"0"));
        }
    }
}

impl Default for Cgroup {
    fn default() -> Cgroup {
        Cgroup::new()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Busy while a process in it is still ending.
        for _ in 0..1000 {
            if fs::remove_dir(&self.path).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }
}

/// Where cgroups of version 2 are mounted. A machine that has not mounted them gets them at their
/// usual place.
fn mount() -> PathBuf {
    let mounts = fs::read_to_string("/proc/mounts").expect("/proc is mounted");
    let mut mounts = mounts.lines().map(|line| line.split(' '));
    let of_v2 = |mut fields: std::str::Split<char>| {
        let path = fields.nth(1)?.to_owned();
        (fields.next() == Some("cgroup2")).then_some(PathBuf::from(path))
    };
    if let Some(path) = mounts.find_map(of_v2) {
        return path;
    }
    let usual = Path::new("/sys/fs/cgroup");
    let (none, flags) = (None::<&str>, nix::mount::MsFlags::empty());
    nix::mount::mount(none, usual, Some("cgroup2"), flags, none).expect("mount cgroup2");
    usual.to_owned()
}
