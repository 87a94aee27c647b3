//! The mappings of a process (`/proc/PID/maps`, fs/proc/task_mmu.c).

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Upper bound on the mappings of a process that are read.
const MOST: usize = 65_536;

/// An executable mapping.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Mapping {
    pub start: u64,
    pub end: u64,
    /// Offset in the file.
    pub offset: u64,
    pub inode: u64,
    /// Path of the file in the process's mount namespace, or a name such as `[vdso]`; empty for
    /// anonymous memory.
    pub path: String,
}

impl Mapping {
    /// Returns the name of the file without its directory. `None` for anonymous memory.
    pub fn module(&self) -> Option<&str> {
        let name = self.path.rsplit('/').next().unwrap_or_default();
        let name = name.strip_suffix(" (deleted)").unwrap_or(name);
        Some(name).filter(|name| !name.is_empty())
    }

    /// Returns whether a file is mapped.
    pub fn is_file(&self) -> bool {
        self.path.starts_with('/')
    }

    /// Returns the link to the mapped file, which works for deleted files and those of other mount
    /// namespaces. Following it needs CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE.
    pub fn link(&self, pid: u32) -> PathBuf {
        PathBuf::from(format!(
            "/proc/{pid}/map_files/{:x}-{:x}",
            self.start, self.end
        ))
    }
}

/// The executable mappings of a process, by address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Maps(Vec<Mapping>);

impl Maps {
    /// Reads the mappings of a process. `None` if the process is gone or may not be read.
    pub fn of(pid: u32) -> Option<Maps> {
        let bytes = std::fs::read(format!("/proc/{pid}/maps")).ok()?;
        let maps = Maps::parse(&String::from_utf8_lossy(&bytes));
        // A process that has exited and is not reaped yet has an empty file.
        Some(maps).filter(|maps| !maps.0.is_empty())
    }

    pub(crate) fn parse(text: &str) -> Maps {
        let executable = text.lines().filter_map(mapping);
        Maps(executable.take(MOST).collect())
    }

    /// Returns the mapping that contains the address.
    pub fn find(&self, address: u64) -> Option<&Mapping> {
        let after = self.0.partition_point(|it| it.start <= address);
        let it = self.0.get(after.checked_sub(1)?)?;
        (address < it.end).then_some(it)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Mapping> {
        self.0.iter()
    }
}

/// Parses a line such as `7f00-7f10 r-xp 00001000 fe:01 1234   /usr/lib/libc.so.6`. `None` if the
/// mapping is not executable.
fn mapping(line: &str) -> Option<Mapping> {
    let (range, rest) = line.split_once(' ')?;
    let (flags, rest) = rest.split_once(' ')?;
    let (offset, rest) = rest.split_once(' ')?;
    let (_device, rest) = rest.split_once(' ')?;
    let (inode, path) = rest.split_once(' ').unwrap_or((rest, ""));
    if flags.as_bytes().get(2) != Some(&b'x') {
        return None;
    }
    let (start, end) = range.split_once('-')?;
    Some(Mapping {
        start: u64::from_str_radix(start, 16).ok()?,
        end: u64::from_str_radix(end, 16).ok()?,
        offset: u64::from_str_radix(offset, 16).ok()?,
        inode: inode.parse().ok()?,
        path: path.trim_start().to_owned(),
    })
}

/// Returns the time at which a process started, in clock ticks since boot. It distinguishes
/// processes with the same id (`/proc/PID/stat`, field 22).
pub fn started(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may contain spaces and parentheses.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// The ids of a process in `/proc/PID/status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// The effective user.
    pub euid: u32,
    /// The process id in the process's own PID namespace.
    pub own_pid: u32,
}

impl Status {
    pub fn of(pid: u32) -> Option<Status> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        Status::parse(&status)
    }

    pub(crate) fn parse(status: &str) -> Option<Status> {
        let field = |name| {
            let mut lines = status.lines();
            lines.find_map(|line: &str| line.strip_prefix(name)?.strip_prefix(':'))
        };
        let euid = field("Uid")?.split_ascii_whitespace().nth(1)?;
        let own = field("NStgid").or(field("Tgid"))?;
        let own = own.split_ascii_whitespace().next_back()?;
        Some(Status {
            euid: euid.parse().ok()?,
            own_pid: own.parse().ok()?,
        })
    }
}

/// Returns whether a process may have written the file: its user or root owns it.
pub fn may_own(status: Status, metadata: &std::fs::Metadata) -> bool {
    [0, status.euid].contains(&metadata.uid())
}

/// Returns the root directory of a process as a path.
pub fn root(pid: u32) -> PathBuf {
    Path::new("/proc").join(pid.to_string()).join("root")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "\
55d0c1a00000-55d0c1a01000 r--p 00000000 fe:01 42                         /usr/sbin/a server
55d0c1a01000-55d0c1a04000 r-xp 00001000 fe:01 42                         /usr/sbin/a server
7f0000000000-7f0000021000 rwxp 00000000 00:00 0 
7f0000100000-7f0000102000 r-xp 00000000 00:01 7                          /memfd:jit (deleted)
7ffc00000000-7ffc00002000 r-xp 00000000 00:00 0                          [vdso]
";

    #[test]
    fn an_address_belongs_to_the_executable_mapping_around_it() {
        let maps = Maps::parse(MAPS);
        let module = |address| maps.find(address).map(Mapping::module);
        assert_eq!(module(0x55d0_c1a0_0fff), None);
        assert_eq!(module(0x55d0_c1a0_1000), Some(Some("a server")));
        assert_eq!(module(0x55d0_c1a0_3fff), Some(Some("a server")));
        assert_eq!(module(0x55d0_c1a0_4000), None);
        assert_eq!(module(0x7f00_0000_0000), Some(None));
        assert_eq!(module(0x7f00_0010_0000), Some(Some("memfd:jit")));
        assert_eq!(module(0x7ffc_0000_0000), Some(Some("[vdso]")));
        assert_eq!(module(u64::MAX), None);
        let program = maps.find(0x55d0_c1a0_1000).unwrap();
        assert_eq!((program.offset, program.inode), (0x1000, 42));
        assert!(program.is_file());
        assert_eq!(
            program.link(9),
            Path::new("/proc/9/map_files/55d0c1a01000-55d0c1a04000")
        );
    }

    #[test]
    fn status_gives_the_effective_user_and_the_innermost_id() {
        let status = "Name:\tx\nTgid:\t70\nUid:\t1\t2\t3\t4\nNStgid:\t70\t7\n";
        let own_pid = 7;
        assert_eq!(Status::parse(status), Some(Status { euid: 2, own_pid }));
        assert_eq!(Status::parse("Name:\tx\n"), None);
    }

    #[test]
    fn own_process_is_found_in_proc() {
        let pid = std::process::id();
        assert_eq!(Status::of(pid).unwrap().own_pid, pid);
        assert!(started(pid).unwrap() > 0);
        let here = own_pid_is_mapped as fn() as usize as u64;
        assert!(Maps::of(pid).unwrap().find(here).unwrap().is_file());
    }

    fn own_pid_is_mapped() {}
}
