//! Lookup of cgroups: from an id to a directory, and from a directory to its container.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustc_hash::FxHashSet;
use tcptrace_core::container::Container;

use crate::containers::Containers;
use crate::privileges::Lookups;

/// Upper bound on the cgroups that are remembered as reported. When it is reached, all are
/// forgotten, and a cgroup that reappears is reported again. The kernel never reuses a cgroup's id.
const REMEMBERED: usize = 16_384;

/// `FILEID_KERNFS`, include/linux/exportfs.h: a file handle that consists of an inode id.
const FILEID_KERNFS: libc::c_int = 0xfe;

/// The cgroup v2 hierarchy of this machine, if it is mounted.
pub struct Hierarchy {
    mount: Option<File>,
    containers: Containers,
}

/// Finds the containers of cgroups.
pub struct Cgroups {
    hierarchy: Arc<Hierarchy>,
    lookups: Lookups,
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
    pub fn new(lookups: Lookups) -> Cgroups {
        Cgroups {
            hierarchy: Arc::new(Hierarchy::open()),
            lookups,
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
        let hierarchy = self.hierarchy.clone();
        let found = self.lookups.run(move || hierarchy.container(id));
        new.insert(id, found.flatten());
    }
}

impl Hierarchy {
    /// Opens the mount point. Lookups return `None` if cgroup v2 is not mounted, or without
    /// CAP_DAC_READ_SEARCH, which open_by_handle_at(2) requires.
    pub fn open() -> Hierarchy {
        Hierarchy {
            mount: mount().and_then(|path| File::open(path).ok()),
            containers: Containers::below(Path::new("/")),
        }
    }

    /// Returns the container of a cgroup.
    fn container(&self, id: u64) -> Option<Container> {
        let path = self.path(id)?;
        container(&path).map(|it| self.containers.named(it))
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

/// Returns why containers may be missing from the trace, or `None` if nothing is known to be
/// missing.
pub fn unseen() -> Option<&'static str> {
    unseen_by(&fs::read_to_string("/proc/self/mountinfo").ok()?)
}

/// Returns whether containers may be defined by cgroups of version 1 here.
pub fn has_version_1() -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mounts.lines().any(is_version_1)
}

fn unseen_by(mounts: &str) -> Option<&'static str> {
    if mounts.lines().any(is_version_1) {
        return Some(
            "some containers: cgroups of version 1 are in use here, so a container is looked up by the \
             process that has the socket; it is unknown if that process ends at once, and --container \
             and --pod do not find it",
        );
    }
    let has_version_2 = mounts.lines().any(|it| mount_of(it).is_some());
    (!has_version_2)
        .then_some("containers: no cgroups are mounted here, by which they are identified")
}

/// Whether a line of mountinfo is about cgroups of version 1 that may define containers. A hierarchy
/// without a controller, such as `name=systemd`, does not.
fn is_version_1(line: &str) -> bool {
    let has_controller = |options: &str| {
        options
            .split(',')
            .any(|it| !matches!(it, "rw" | "ro" | "none" | "xattr") && !it.contains('='))
    };
    let options = line.split_once(" - ").and_then(|(_, what)| {
        let mut what = what.split(' ');
        (what.next()? == "cgroup").then(|| what.nth(1))?
    });
    options.is_some_and(has_controller)
}

/// Returns the id of a process's container from its /proc/PID/cgroup (cgroups(7)), which has a line
/// for each hierarchy: `4:memory:/docker/4f66…`. `None` if it is in no container, or if hierarchies
/// name different containers.
pub fn container_of_process(cgroups: &str) -> Option<&str> {
    let paths = cgroups
        .lines()
        .filter_map(|line| line.splitn(3, ':').nth(2));
    let mut ids = paths.filter_map(|path| container(Path::new(path)));
    let id = ids.next()?;
    ids.all(|it| it == id).then_some(id)
}

/// Returns the mount point of cgroup v2. A container may have its own cgroup mounted, and that of
/// the host elsewhere, which is preferred.
pub fn mount() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let mut paths: Vec<PathBuf> = mounts.lines().filter_map(mount_of).collect();
    paths.sort_by_key(|it| !shows_root(it));
    paths.into_iter().next()
}

/// Whether a mount point shows the root cgroup, which has the first inode of kernfs.
fn shows_root(mount: &Path) -> bool {
    fs::metadata(mount).is_ok_and(|it| it.ino() == 1)
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
    let mount = mount()?.canonicalize().ok()?;
    let is_root = shows_root(&mount);
    let directory = directory.canonicalize().ok()?;
    let below = directory.strip_prefix(&mount).ok().filter(|_| is_root)?;
    Some(below.iter().count() as u32)
}

/// Parses a line of mountinfo (proc_pid_mountinfo(5)). Returns the mount point if the line is about
/// cgroup v2 from its root, or from that of a cgroup namespace:
/// `35 24 0:30 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw`. In a cgroup namespace, the root of
/// the whole hierarchy is shown as `/../..` (cgroup_namespaces(7)).
fn mount_of(line: &str) -> Option<PathBuf> {
    let (place, what) = line.split_once(" - ")?;
    let mut place = place.split(' ').skip(3);
    let (root, path) = (place.next()?, place.next()?);
    let is_above = root.split('/').skip(1).all(|it| it == "..");
    let is_whole = (root == "/" || is_above) && what.starts_with("cgroup2 ");
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
    fn the_container_of_a_process_is_read_from_its_cgroups_of_version_1() {
        let dind = ID.replace('4', "5");
        for (cgroups, id) in [
            // Docker with the cgroupfs driver, version 1 only.
            (
                "12:perf_event:/docker/ID\n11:pids:/docker/ID\n9:memory:/docker/ID\n\
                 2:cpu,cpuacct:/docker/ID\n1:name=systemd:/docker/ID\n",
                Some(ID),
            ),
            // Docker with the systemd driver, hybrid.
            (
                "11:pids:/system.slice/docker-ID.scope\n5:memory:/system.slice/docker-ID.scope\n\
                 1:name=systemd:/system.slice/docker-ID.scope\n0::/system.slice/docker-ID.scope\n",
                Some(ID),
            ),
            // Docker with the cgroupfs driver, hybrid: version 2 has no container.
            (
                "10:memory:/docker/ID\n1:name=systemd:/docker/ID\n0::/system.slice/containerd.service\n",
                Some(ID),
            ),
            // containerd under the kubelet, with both drivers.
            (
                "11:memory:/kubepods/burstable/pod1b2c-33/ID\n1:name=systemd:/kubepods/burstable/pod1b2c-33/ID\n",
                Some(ID),
            ),
            (
                "9:cpuset:/kubepods-besteffort-pod1b2c_33.slice:cri-containerd:ID\n\
                 4:memory:/system.slice/containerd.service/kubepods-besteffort-pod1b2c_33.slice:cri-containerd:ID\n\
                 1:name=systemd:/system.slice/containerd.service/kubepods-besteffort-pod1b2c_33.slice:cri-containerd:ID\n",
                Some(ID),
            ),
            // CRI-O.
            (
                "8:blkio:/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1b2c_33.slice/crio-ID.scope\n\
                 1:name=systemd:/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1b2c_33.slice/crio-ID.scope\n\
                 0::/\n",
                Some(ID),
            ),
            // Podman as root, and its monitor, which is outside.
            (
                "10:memory:/machine.slice/libpod-ID.scope\n1:name=systemd:/machine.slice/libpod-ID.scope\n",
                Some(ID),
            ),
            ("10:memory:/machine.slice/libpod-conmon-ID.scope\n", None),
            // Podman without root makes no cgroups of version 1.
            (
                "10:memory:/user.slice/user-1000.slice/session-3.scope\n\
                 1:name=systemd:/user.slice/user-1000.slice/session-3.scope\n0::/user.slice\n",
                None,
            ),
            // Docker in Docker: the inner container counts, unless hierarchies differ.
            ("4:memory:/docker/ID/docker/DIND\n", Some(&dind)),
            ("5:cpu:/docker/ID\n4:memory:/docker/ID/docker/DIND\n", None),
            // A path may contain colons, and a service is no container.
            ("4:memory:/a:b/ID\n", Some(ID)),
            ("4:memory:/system.slice/nginx.service\n0::/\n", None),
            ("", None),
            ("4:memory\nID\n", None),
        ] {
            let text = cgroups.replace("DIND", &dind).replace("ID", ID);
            assert_eq!(container_of_process(&text), id, "{cgroups}");
        }
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
        assert!(said(&[ONE]).unwrap().contains("version 1"));
        assert!(said(&[NAMED]).unwrap().contains("no cgroups"));
        assert!(said(&[]).unwrap().contains("no cgroups"));
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
            // The host's, in a container with a cgroup namespace of its own.
            (
                "41 32 0:37 /../../.. /host/cgroup ro - cgroup2 cgroup2 rw",
                Some("/host/cgroup"),
            ),
            (
                "41 32 0:37 /../docker /sys/fs/cgroup rw - cgroup2 cgroup2 rw",
                None,
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
