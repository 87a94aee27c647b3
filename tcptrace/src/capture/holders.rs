//! Owners of sockets: searches the file descriptors of all processes.
//!
//! It uses the kernel's task_file iterator, which reports the same process ids as the hooks, and
//! costs a tenth of reading the links in /proc.

use std::collections::BTreeMap;
use std::io::Read;

use aya::Ebpf;
use aya::programs::Iter;
use tcptrace_ebpf::abi;
use zerocopy::FromBytes;

use super::error::no_map;
use crate::clock::mono_now_ns;
use crate::event::{Comm, Holder, Holders, Place, Sk, State, Task};

/// Symbols of the programs in the eBPF object.
const DESCRIPTORS: &str = "task_file_iterator";
const PROCESSES: &str = "task_iterator";

/// The result of one search through all descriptors.
pub struct SocketOwners {
    /// The process with the smallest id that has a descriptor of each socket, by the socket's
    /// inode.
    pub owners: BTreeMap<u64, Task>,
    /// The processes that have a descriptor of each listener.
    pub listeners: Holders,
}

/// Searches the descriptors of the processes in this PID namespace and in its descendants.
pub fn find(ebpf: &mut Ebpf) -> anyhow::Result<SocketOwners> {
    let began_ns = mono_now_ns();
    let bytes = read(ebpf, DESCRIPTORS)?;
    let mut owners = BTreeMap::new();
    let mut holders = vec![];
    let records = bytes.chunks_exact(size_of::<abi::HolderRecord>());
    for record in records.filter_map(|it| abi::HolderRecord::read_from_bytes(it).ok()) {
        let it = record.holder;
        let name = Comm::new(it.comm);
        let task = Task {
            pid: it.pid,
            tid: 0,
            comm: name,
            process: name,
            place: Place::default(),
        };
        if it.inode != 0 {
            let owner = owners.entry(it.inode).or_insert(task);
            if task.pid < owner.pid {
                *owner = task;
            }
        }
        if it.state == State::Listen as u8 {
            holders.push(Holder {
                sk: Sk(it.sk),
                task,
            });
        }
    }
    holders.sort_by_key(|it| it.task.pid);
    holders.dedup();
    let listeners = Holders { began_ns, holders };
    Ok(SocketOwners { owners, listeners })
}

/// Returns the kernel's ids of the processes in this PID namespace, by their ids here.
pub fn numbers(ebpf: &mut Ebpf) -> anyhow::Result<BTreeMap<u32, u32>> {
    let bytes = read(ebpf, PROCESSES)?;
    let records = bytes.chunks_exact(size_of::<abi::NamespacedPid>());
    let records = records.filter_map(|it| abi::NamespacedPid::read_from_bytes(it).ok());
    Ok(records.map(|it| (it.pid_in_reader, it.pid)).collect())
}

/// Reads the complete output of an iterator.
fn read(ebpf: &mut Ebpf, program: &str) -> anyhow::Result<Vec<u8>> {
    let program: &mut Iter = ebpf.program_mut(program).ok_or_else(no_map)?.try_into()?;
    let link = program.attach()?;
    let mut bytes = vec![];
    let mut file = program.take_link(link)?.into_file()?;
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}
