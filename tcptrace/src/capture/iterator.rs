//! Snapshots of the kernel's TCP sockets, one network namespace at a time.
//!
//! The socket iterator covers the namespace of the thread that creates it (`bpf_iter_init_seq_net`,
//! fs/proc/proc_net.c), so a new thread enters each namespace. Namespaces are found through
//! processes and `ip netns`. Entering requires CAP_SYS_ADMIN.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use tcptrace_ebpf::abi;
use zerocopy::FromBytes;

use crate::batch::Batch;
use crate::clock::mono_now_ns;

/// The symbol of the program in the eBPF object.
pub const PROGRAM: &str = "socket_iterator";

/// The sockets of one namespace.
pub struct Snapshot {
    pub netns: u32,
    /// Start of the iteration (CLOCK_MONOTONIC, nanoseconds).
    pub began_ns: u64,
    pub ended_ns: u64,
    /// Records of [`abi::kind::SOCKET`].
    pub records: Batch,
    /// The inodes of the sockets' descriptors.
    pub inodes: BTreeSet<u64>,
}

/// Takes snapshots of these namespaces, or of all that can be found if `only` is `None`. A
/// namespace that cannot be found or entered is left out. `program` is the loaded [`PROGRAM`].
pub fn snapshots(program: BorrowedFd, only: Option<&BTreeSet<u32>>) -> Vec<Snapshot> {
    let mut namespaces = namespaces();
    if let Some(only) = only {
        namespaces.retain(|netns, _| only.contains(netns));
    }
    let paths = namespaces.into_iter();
    paths
        .filter_map(|(netns, path)| snapshot_of(program, netns, &path).ok())
        .collect()
}

fn snapshot_of(program: BorrowedFd, netns: u32, path: &Path) -> io::Result<Snapshot> {
    let began_ns = mono_now_ns();
    let bytes = std::thread::scope(|scope| {
        let read = || {
            enter(netns, path)?;
            let mut bytes = vec![];
            iterate(program)?.read_to_end(&mut bytes)?;
            io::Result::Ok(bytes)
        };
        let reader = std::thread::Builder::new().spawn_scoped(scope, read)?;
        reader
            .join()
            .map_err(|_| io::Error::other("the reader panicked"))?
    })?;
    let records = bytes.chunks_exact(size_of::<abi::SocketRecord>());
    Ok(Snapshot {
        netns,
        began_ns,
        ended_ns: mono_now_ns(),
        inodes: records
            .clone()
            .filter_map(|record| abi::SocketRecord::read_from_bytes(record).ok())
            .map(|record| record.socket.inode)
            .collect(),
        records: records.collect(),
    })
}

/// Starts an iteration in the namespace of the calling thread. Returns the file to read. aya needs the
/// whole object for this, which belongs to another thread.
fn iterate(program: BorrowedFd) -> io::Result<File> {
    /// `BPF_LINK_CREATE`, `BPF_ITER_CREATE` and `BPF_TRACE_ITER`, include/uapi/linux/bpf.h.
    const LINK_CREATE: libc::c_int = 28;
    const ITER_CREATE: libc::c_int = 33;
    const TRACE_ITER: u32 = 28;
    let call = |command: libc::c_int, attributes: &[u32; 4]| {
        // SAFETY: the kernel reads only the attributes. A result is a new descriptor or negative.
        unsafe {
            let size = size_of_val(attributes);
            let fd = libc::syscall(libc::SYS_bpf, command, attributes.as_ptr(), size);
            match fd {
                0.. => Ok(OwnedFd::from_raw_fd(fd as libc::c_int)),
                _ => Err(io::Error::last_os_error()),
            }
        }
    };
    // prog_fd, target_fd, attach_type, flags
    let link = call(LINK_CREATE, &[program.as_raw_fd() as u32, 0, TRACE_ITER, 0])?;
    // link_fd, flags
    let file = call(ITER_CREATE, &[link.as_raw_fd() as u32, 0, 0, 0])?;
    Ok(file.into())
}

/// Moves the calling thread into a namespace, unless it is already there.
pub(super) fn enter(netns: u32, path: &Path) -> io::Result<()> {
    if inode("/proc/thread-self/ns/net") == Some(netns) {
        return Ok(());
    }
    let namespace = File::open(path)?;
    // The process may have ended, and its id may have been reused.
    if namespace.metadata()?.ino() != u64::from(netns) {
        return Err(io::ErrorKind::NotFound.into());
    }
    // SAFETY: the descriptor is open. Only the calling thread changes its namespace.
    match unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Returns the namespaces of all threads and those named by `ip netns`, by inode.
pub(super) fn namespaces() -> BTreeMap<u32, PathBuf> {
    let named = entries("/run/netns".as_ref());
    let processes = entries("/proc".as_ref()).filter(|path| is_number(path));
    let threads = processes.flat_map(|process| entries(&process.join("task")));
    let mut found = BTreeMap::new();
    for path in threads.map(|thread| thread.join("ns/net")).chain(named) {
        if let Some(netns) = inode(&path) {
            found.entry(netns).or_insert(path);
        }
    }
    found
}

pub(super) fn inode(path: impl AsRef<Path>) -> Option<u32> {
    Some(fs::metadata(path).ok()?.ino() as u32)
}

/// Returns the entries of a folder; nothing if it cannot be read.
pub(super) fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    entries.filter_map(|entry| Some(entry.ok()?.path()))
}

pub(super) fn is_number(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
}
