//! A temporary cgroup (version 2) for a scenario's processes.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// A cgroup that is removed at the end of the scenario.
pub struct Cgroup {
    pub path: PathBuf,
}

impl Cgroup {
    /// Creates a cgroup below the root, under a unique name.
    pub fn new() -> Cgroup {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("tcptrace-test-{}-{n}", std::process::id());
        Cgroup::make(mount().join(name))
    }

    /// Creates a cgroup of version 1 with this path below the root, in the hierarchy of any
    /// controller. `None` if there is none, and none can be mounted.
    pub fn version_1(path: &str) -> Option<Cgroup> {
        let path = version_1()?.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).expect("make a cgroup");
        }
        Some(Cgroup::make(path))
    }

    /// Creates a cgroup inside this one.
    pub fn child(&self, name: &str) -> Cgroup {
        Cgroup::make(self.path.join(name))
    }

    fn make(path: PathBuf) -> Cgroup {
        fs::create_dir(&path).expect("make a cgroup");
        Cgroup { path }
    }

    /// Limits the CPU time of the cgroup: `quota_us` microseconds in each `period_us`. Returns
    /// `None` if the controller is not available in this hierarchy.
    pub fn limit_cpu(&self, quota_us: u64, period_us: u64) -> Option<()> {
        let parent = self.path.parent()?;
        let _ = fs::write(parent.join("cgroup.subtree_control"), "+cpu");
        fs::write(self.path.join("cpu.max"), format!("{quota_us} {period_us}")).ok()
    }

    /// Returns how long the kernel throttled the cgroup's tasks, in nanoseconds.
    pub fn throttled_ns(&self) -> u64 {
        let text = fs::read_to_string(self.path.join("cpu.stat")).expect("cpu.stat");
        let mut lines = text.lines();
        let microseconds = lines.find_map(|line| line.strip_prefix("throttled_usec "));
        let microseconds: u64 = microseconds.expect("a line").parse().expect("a number");
        microseconds * 1000
    }

    /// Returns the cgroup's id, which lines have in the field `cgroup`.
    pub fn id(&self) -> u64 {
        fs::metadata(&self.path).expect("a cgroup").ino()
    }

    /// Makes the command's process start in this cgroup.
    pub fn put(&self, command: &mut Command) {
        let procs = self.path.join("cgroup.procs");
        let procs = OpenOptions::new().write(true).open(procs);
        let procs = procs.expect("open cgroup.procs");
        // SAFETY: write is async-signal-safe; 0 stands for the calling process.
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
        // EBUSY while a process in it is still exiting.
        for _ in 0..1000 {
            if fs::remove_dir(&self.path).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }
}

/// Returns the mount point of a hierarchy of version 1. Mounts one if there is none.
fn version_1() -> Option<PathBuf> {
    const CONTROLLER: &str = "pids";
    let mounts = fs::read_to_string("/proc/mounts").expect("/proc is mounted");
    let mut mounts = mounts.lines().map(|line| line.split(' '));
    let found = mounts.find_map(|mut fields| {
        let path = fields.nth(1)?.to_owned();
        let is_v1 = fields.next()? == "cgroup";
        let mut options = fields.next()?.split(',');
        (is_v1 && options.any(|it| it == CONTROLLER)).then(|| PathBuf::from(path))
    });
    if found.is_some() {
        return found;
    }
    // Fails if the controller belongs to version 2.
    let usual = std::env::temp_dir().join("tcptrace-cgroup-v1");
    fs::create_dir_all(&usual).expect("a folder");
    let (none, flags) = (None::<&str>, nix::mount::MsFlags::empty());
    let mounted = nix::mount::mount(none, &usual, Some("cgroup"), flags, Some(CONTROLLER));
    mounted.ok().map(|()| usual)
}

/// Returns the mount point of cgroup version 2. Mounts it at the usual place if it is not mounted.
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
