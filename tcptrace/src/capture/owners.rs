//! Whose a socket is that is older than the trace: some process that has a descriptor of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::iterator::{entries, is_number};
use crate::event::{Comm, Task};

/// Inode of the first PID namespace: `PROC_PID_INIT_INO`, include/linux/proc_ns.h.
const FIRST_PID_NAMESPACE: &str = "pid:[4026531836]";

/// The process with the smallest number that has a descriptor of each of these sockets, and the
/// name of its first thread.
///
/// Nothing outside the first PID namespace, where /proc has other numbers than the kernel's own,
/// which the hooks record.
pub fn owners(inodes: &BTreeSet<u64>) -> BTreeMap<u64, Task> {
    let mut owners = BTreeMap::new();
    let own = fs::read_link("/proc/self/ns/pid");
    if inodes.is_empty() || !own.is_ok_and(|link| link == Path::new(FIRST_PID_NAMESPACE)) {
        return owners;
    }
    let mut pids: Vec<u32> = entries("/proc".as_ref())
        .filter(|path| is_number(path))
        .filter_map(|path| path.file_name()?.to_str()?.parse().ok())
        .collect();
    pids.sort_unstable();
    for pid in pids {
        let process = format!("/proc/{pid}");
        let descriptors = entries(format!("{process}/fd").as_ref());
        let sockets = descriptors.filter_map(|path| socket_inode(&path));
        let mut task = None;
        for inode in sockets.filter(|inode| inodes.contains(inode)) {
            let Some(task) = *task.get_or_insert_with(|| read_task(pid, &process)) else {
                break;
            };
            owners.entry(inode).or_insert(task);
        }
    }
    owners
}

/// 4711 of a link to `socket:[4711]`.
fn socket_inode(descriptor: &Path) -> Option<u64> {
    let target = fs::read_link(descriptor).ok()?;
    let inode = target.to_str()?.strip_prefix("socket:[")?;
    inode.strip_suffix(']')?.parse().ok()
}

fn read_task(pid: u32, process: &str) -> Option<Task> {
    let name = fs::read(format!("{process}/comm")).ok()?;
    let name = name.strip_suffix(b"\n").unwrap_or(&name);
    let mut comm = [0; 16];
    let n = name.len().min(15);
    comm[..n].copy_from_slice(&name[..n]);
    Some(Task {
        pid,
        tid: 0,
        comm: Comm::new(comm),
    })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn a_socket_of_this_process_is_its_own() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let link = format!("/proc/self/fd/{}", listener.as_raw_fd());
        let inode = socket_inode(link.as_ref()).unwrap();
        let found = owners(&[inode].into());
        // Where another PID namespace hides the numbers, nobody is named.
        let first = fs::read_link("/proc/self/ns/pid").unwrap();
        match first == Path::new(FIRST_PID_NAMESPACE) {
            true => assert_eq!(found[&inode].pid, std::process::id()),
            false => assert!(found.is_empty()),
        }
        assert!(owners(&[0].into()).is_empty());
    }
}
