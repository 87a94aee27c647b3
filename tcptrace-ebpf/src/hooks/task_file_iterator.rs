//! Search through the descriptors of all processes, and through the processes, by the kernel's
//! iterators.
//!
//! ```text
//! int bpf_iter_task_file(struct bpf_iter_meta *meta, struct task_struct *task, u32 fd, struct file *file)    5.8 to 6.18
//! int bpf_iter_task(struct bpf_iter_meta *meta, struct task_struct *task)                                    5.8 to 6.18
//! ```
//! <https://elixir.bootlin.com/linux/v6.12/source/kernel/bpf/task_iter.c#L343>
//!
//! A program runs in the process that reads the iterator, once for each descriptor or process. It
//! sees the processes of the reader's PID namespace and of its descendants, like /proc. The output
//! goes to that reader and not into the ring buffer. If the reader's buffer is full, the kernel
//! runs the program again for the same item.

use aya_ebpf::bindings::seq_file;
use aya_ebpf::helpers::generated::bpf_seq_write;
use tcptrace_ebpf::abi::{Holder, HolderRecord, NamespacedPid, kind};

use crate::emit::{header, now_ns};
use crate::globals::{FILE_PRIVATE_DATA, SOCKET_FILE, SOCKET_INO, SOCKET_SK};
use crate::kernel::memory::{Members, Memory, Probed};
use crate::kernel::sock::Sock;
use crate::kernel::thread::Thread;
use crate::maps;

/// The beginning of `struct bpf_iter_meta`.
#[repr(C)]
struct IterMeta {
    seq: *mut seq_file,
}

/// `struct bpf_iter__task_file`, whose members the kernel pads to eight bytes each.
#[repr(C)]
pub struct IterTaskFile {
    meta: *const IterMeta,
    /// Null after the last item, like `file`.
    task: *const u8,
    fd: u64,
    file: *const u8,
}

/// `struct bpf_iter__task`
#[repr(C)]
pub struct IterTask {
    meta: *const IterMeta,
    /// Null when there are no more.
    task: *const u8,
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
pub fn task_file_iterator(ctx: *const IterTaskFile) -> i32 {
    // SAFETY: `ctx` is a struct bpf_iter__task_file, and the verifier checks each load.
    let (seq, task, file) = unsafe { ((*(*ctx).meta).seq, (*ctx).task, (*ctx).file) };
    if !task.is_null() && !file.is_null() {
        write_holder(seq, Thread::new(task), file);
    }
    0
}

#[inline(always)]
fn write_holder(seq: *mut seq_file, thread: Thread, file: *const u8) {
    // SAFETY: each pointer is read from the structure before it, and the helper checks addresses.
    let sock = unsafe {
        let socket = Probed::read(file, &FILE_PRIVATE_DATA);
        let socket = Probed::block::<2>(socket, &SOCKET_FILE);
        // Every kind of file has private data; only a socket's points back to the file.
        if socket.get::<*const u8>(&SOCKET_FILE) != file {
            return;
        }
        Sock::<Probed>::new(socket.get(&SOCKET_SK)).tcp()
    };
    if sock.is_null() {
        return;
    }
    let pid = thread.process();
    maps::remember_process(pid);
    // The exit may have happened just before the process was added.
    if !thread.is_process_alive() {
        maps::forget_process(pid);
        return;
    }
    let inode = match sock.has_descriptor() {
        // SAFETY: a struct socket is the first half of a struct socket_alloc.
        true => unsafe { Probed::read(sock.socket(), &SOCKET_INO) },
        false => 0,
    };
    let record = HolderRecord {
        header: header(kind::HOLDER, now_ns()),
        holder: Holder {
            sk: sock.id(),
            inode,
            pid,
            state: sock.state(),
            reserved: [0; 3],
            comm: thread.process_name(),
        },
    };
    // SAFETY: the record is as long as it is said to be.
    unsafe {
        bpf_seq_write(
            seq,
            (&raw const record).cast(),
            size_of::<HolderRecord>() as u32,
        )
    };
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
pub fn task_iterator(ctx: *const IterTask) -> i32 {
    // SAFETY: as above.
    let (seq, task) = unsafe { ((*(*ctx).meta).seq, (*ctx).task) };
    let thread = Thread::new(task);
    if task.is_null() || !thread.is_first() {
        return 0;
    }
    let record = NamespacedPid {
        pid: thread.process(),
        pid_in_reader: thread.pid_in_namespace_of(Thread::current()),
    };
    // SAFETY: the record is as long as it is said to be.
    unsafe {
        bpf_seq_write(
            seq,
            (&raw const record).cast(),
            size_of::<NamespacedPid>() as u32,
        )
    };
    0
}
