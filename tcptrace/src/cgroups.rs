//! Lookup of cgroups: from an id to a directory, and from a directory to its container.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustc_hash::FxHashSet;
use tcptrace_core::container::Container;

use crate::containers::Containers;

/// Upper bound on the cgroups that are remembered as reported. When it is reached, all are
/// forgotten, and a cgroup that reappears is reported again. The kernel never reuses a cgroup's id.
const REMEMBERED: usize = 16_384;

/// `FILEID_KERNFS`, include/linux/exportfs.h: a file handle that consists of an inode id.
const FILEID_KERNFS: libc::c_int = 0xfe;

/// The cgroup v2 hierarchy of this machine, if it is mounted.
pub struct Cgroups {
    mount: Option<File>,
    containers: Containers,
    /// Ids of cgroups whose containers have been reported.
    known: FxHashSet<u64>,
    /// The id seen last; 0 before the first.
    last: u64,
}

/// `struct file_handle` with its bytes (open_by_handle_at(2)).
#[repr(C)]
struct Handle {
    bytes: libc::c_uint,
    kind: libc::c_int,
    id: u64,
}

impl Cgroups {
    /// Opens the mount point. Lookups return `None` if cgroup v2 is not mounted, or without
    /// CAP_DAC_READ_SEARCH, which open_by_handle_at(2) requires.
    pub fn new() -> Cgroups {
        Cgroups {
            mount: mount().and_then(|path| File::open(path).ok()),
            containers: Containers::below(Path::new("/")),
            known: FxHashSet::default(),
            last: 0,
        }
    }

    /// Notes the cgroup of a record. On its first appearance, adds its container to `new`. `None`
    /// in `new` means that the cgroup is in no container, or that this is unknown.
    #[inline]
    pub fn note(&mut self, id: u64, new: &mut BTreeMap<u64, Option<Container>>) {
        // Consecutive records mostly come from one process, so this shortcut skips the hash lookup.
        if id != self.last && id != 0 {
            self.last = id;
            self.add(id, new);
        }
    }

    fn add(&mut self, id: u64, new: &mut BTreeMap<u64, Option<Container>>) {
        if self.known.contains(&id) {
            return;
        }
        if self.known.len() >= REMEMBERED {
            self.known.clear();
        }
        self.known.insert(id);
        let path = self.path(id);
        let container = path.as_deref().and_then(container);
        new.insert(id, container.map(|it| self.containers.named(it)));
    }

    /// Returns the directory of a cgroup, or `None` if it has been removed.
    pub fn path(&self, id: u64) -> Option<PathBuf> {
        let mut handle = Handle {
            bytes: size_of::<u64>() as libc::c_uint,
            kind: FILEID_KERNFS,
            id,
        };
        // SAFETY: the descriptor is open, and the handle is as long as it says.
        let directory = unsafe {
            let mount = self.mount.as_ref()?.as_raw_fd();
            let fd = libc::open_by_handle_at(mount, (&raw mut handle).cast(), libc::O_PATH);
            (fd >= 0).then(|| OwnedFd::from_raw_fd(fd))?
        };
        fs::read_link(format!("/proc/self/fd/{}", directory.as_raw_fd())).ok()
    }
}

impl Default for Cgroups {
    fn default() -> Cgroups {
        Cgroups::new()
    }
}

/// Returns why containers may be missing from the trace, or `None` if nothing is known to be
/// missing.
pub fn unseen() -> Option<&'static str> {
    unseen_by(&fs::read_to_string("/proc/self/mountinfo").ok()?)
}

fn unseen_by(mounts: &str) -> Option<&'static str> {
    if mounts.lines().find_map(mount_of).is_none() {
        return Some(
            "containers: they are identified by cgroups of version 2, which are not mounted here",
        );
    }
    // A v1 hierarchy without a controller, such as `name=systemd`, does not define containers.
    let has_controller = |options: &str| {
        options
            .split(',')
            .any(|it| !matches!(it, "rw" | "ro" | "none" | "xattr") && !it.contains('='))
    };
    let is_old = |line: &str| {
        let (_, what) = line.split_once(" - ")?;
        let mut what = what.split(' ');
        let (kind, options) = (what.next()?, what.nth(1)?);
        (kind == "cgroup" && has_controller(options)).then_some(())
    };
    mounts.lines().find_map(is_old).map(|()| {
        "containers with cgroups of version 1 only, which are in use here: containers are identified by \
         cgroups of version 2"
    })
}

/// Returns the mount point of cgroup v2.
pub fn mount() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    mounts.lines().find_map(mount_of)
}

/// Upper bound on the cgroups in which [`containers`] searches.
const SEARCHED: usize = 65_536;

/// Returns the cgroups of all containers that have processes: the cgroup's id, and the container's.
pub fn containers() -> Vec<(u64, String)> {
    mount().map_or_else(Vec::new, |mount| containers_below(&mount))
}

fn containers_below(mount: &Path) -> Vec<(u64, String)> {
    let mut found = vec![];
    let mut left = vec![mount.to_owned()];
    let mut searched = 0;
    while let Some(directory) = left.pop() {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        for entry in entries.filter(|it| it.file_type().is_ok_and(|it| it.is_dir())) {
            searched += 1;
            if searched > SEARCHED {
                return found;
            }
            let path = entry.path();
            if let Some(id) = container(Path::new(&entry.file_name()))
                && has_processes(&path)
            {
                found.push((entry.ino(), id.to_owned()));
            }
            left.push(path);
        }
    }
    found
}

/// Returns false if no process is in the cgroup or below it. A runtime that was killed leaves such
/// cgroups behind.
fn has_processes(directory: &Path) -> bool {
    let events = fs::read_to_string(directory.join("cgroup.events"));
    events.is_ok_and(|it| it.lines().any(|line| line == "populated 1"))
}

/// Returns the depth of a cgroup's directory below the root cgroup. Returns `None` if the mount
/// does not show the root, as in a container.
pub fn level(directory: &Path) -> Option<u32> {
    /// Inode of the root cgroup: the first inode of kernfs.
    const ROOT: u64 = 1;
    let mount = mount()?.canonicalize().ok()?;
    let is_root = fs::metadata(&mount).is_ok_and(|it| it.ino() == ROOT);
    let directory = directory.canonicalize().ok()?;
    let below = directory.strip_prefix(&mount).ok().filter(|_| is_root)?;
    Some(below.iter().count() as u32)
}

/// Parses a line of mountinfo (proc_pid_mountinfo(5)). Returns the mount point if the line is about
/// cgroup v2:
/// `35 24 0:30 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw`.
fn mount_of(line: &str) -> Option<PathBuf> {
    let (place, what) = line.split_once(" - ")?;
    let mut place = place.split(' ').skip(3);
    let (root, path) = (place.next()?, place.next()?);
    let is_whole = root == "/" && what.split(' ').next() == Some("cgroup2");
    is_whole.then(|| PathBuf::from(path))
}

/// Returns the id of the innermost container in a cgroup's path.
///
/// Container runtimes name the directory by an id of 64 hexadecimal digits. It stands alone
/// (`/docker/…`, `/kubepods/…/…`) or after the runtime's name (`docker-….scope`,
/// `cri-containerd-….scope`, `crio-….scope`, `libpod-….scope`).
fn container(path: &Path) -> Option<&str> {
    let names = path.iter().rev();
    let mut names = names.filter_map(|name| std::str::from_utf8(name.as_bytes()).ok());
    names.find_map(|name| {
        let name = name.strip_suffix(".scope").unwrap_or(name);
        let (runtime, id) = name.rsplit_once(['-', ':']).unwrap_or(("", name));
        let is_id = id.len() == 64 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        // conmon monitors a container from outside.
        (is_id && !runtime.ends_with("conmon")).then_some(id)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "4f66ad9a0b2e8b3c1d5e7f90a1b2c3d4e5f60718293a4b5c6d7e8f9001122334";

    #[test]
    fn a_container_id_is_found_in_the_path_of_every_runtime() {
        for path in [
            "/sys/fs/cgroup/docker/ID",
            "/sys/fs/cgroup/system.slice/docker-ID.scope",
            "/sys/fs/cgroup/system.slice/docker-ID.scope/init.scope",
            "/kubepods/burstable/pod1b2c-33/ID",
            "/kubepods.slice/kubepods-pod1b2c_33.slice/cri-containerd-ID.scope",
            "/kubepods.slice/kubepods-besteffort.slice/crio-ID.scope/container",
            "/machine.slice/libpod-ID.scope/container",
            "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope",
            "/system.slice/containerd.service/kubepods-pod1b2c.slice:cri-containerd:ID",
        ] {
            let path = path.replace("ID", ID);
            assert_eq!(container(path.as_ref()), Some(ID), "{path}");
        }
    }

    #[test]
    fn a_path_without_a_container_has_no_id() {
        for path in [
            "/",
            "/sys/fs/cgroup",
            "/system.slice/nginx.service",
            "/user.slice/user-1000.slice/session-3.scope",
            "/machine.slice/libpod-conmon-ID.scope",
            "/kubepods.slice/crio-conmon-ID.scope",
            "/docker/IDa",
            "/docker/4f66ad9a0b2e",
        ] {
            let path = path.replace("ID", ID);
            assert_eq!(container(path.as_ref()), None, "{path}");
        }
    }

    #[test]
    fn nested_containers_yield_the_innermost_id() {
        let inner = ID.replace('4', "5");
        let path = format!("/docker/{ID}/docker/{inner}");
        assert_eq!(container(path.as_ref()), Some(inner.as_str()));
    }

    #[test]
    fn containers_are_reported_as_unseen_with_cgroups_of_version_1() {
        const TWO: &str = "41 32 0:37 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw";
        const NAMED: &str =
            "40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd";
        const ONE: &str = "33 32 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct";
        let said = |mounts: &[&str]| unseen_by(&mounts.join("\n"));
        assert_eq!(said(&[TWO]), None);
        assert_eq!(said(&[TWO, NAMED]), None);
        assert!(said(&[NAMED, ONE, TWO]).unwrap().contains("version 1"));
        assert!(said(&[ONE]).unwrap().contains("not mounted"));
        assert!(said(&[]).unwrap().contains("not mounted"));
    }

    #[test]
    fn containers_are_found_in_nested_cgroups() {
        let root = tempfile::tempdir().unwrap();
        let inner = ID.replace('4', "5");
        let pod = format!("kubepods.slice/pod1/cri-containerd-{ID}.scope");
        let nested = root.path().join(format!("{pod}/docker/{inner}/init"));
        fs::create_dir_all(&nested).unwrap();
        let empty = root.path().join("docker").join(ID.replace('4', "6"));
        fs::create_dir_all(&empty).unwrap();
        for (path, populated) in [
            (root.path().join(&pod), 1),
            (nested.parent().unwrap().to_owned(), 1),
            (empty, 0),
        ] {
            let events = format!("populated {populated}\nfrozen 0\n");
            fs::write(path.join("cgroup.events"), events).unwrap();
        }
        let ino = |path: &Path| fs::metadata(path).unwrap().ino();
        let expected = [
            (ino(&root.path().join(pod)), ID.to_owned()),
            (ino(nested.parent().unwrap()), inner),
        ];
        assert_eq!(containers_below(root.path()), expected);
    }

    #[test]
    fn mount_point_is_found_only_for_a_whole_cgroup2_mount() {
        for (line, path) in [
            (
                "35 24 0:30 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate",
                Some("/sys/fs/cgroup"),
            ),
            (
                "41 32 0:37 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw",
                Some("/sys/fs/cgroup/unified"),
            ),
            // A bind mount of a subtree, as in a container.
            (
                "41 32 0:37 /docker/x /sys/fs/cgroup rw - cgroup2 cgroup rw",
                None,
            ),
            ("33 32 0:29 / /sys/fs/cgroup/cpu rw - cgroup cpu rw", None),
            ("", None),
        ] {
            assert_eq!(mount_of(line), path.map(PathBuf::from), "{line}");
        }
    }
}
