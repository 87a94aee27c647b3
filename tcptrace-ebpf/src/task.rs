//! The current task: the system call it is in, and its descriptors.

use aya_ebpf::helpers::generated::{bpf_get_current_task_btf, bpf_task_pt_regs};
use aya_ebpf::helpers::{bpf_get_current_task, bpf_probe_read_kernel};

use crate::memory::{Memory, Probed};
use crate::settings::{
    FDT_FD, FDT_MAX_FDS, FILE_PRIVATE_DATA, FILES_FDT, REGS_DI, REGS_HELPER, REGS_ORIG_AX,
    SOCKET_FILE, SOCKET_SK, TASK_FILES, TASK_STATUS,
};
use crate::sock::{Sock, TCP_LISTEN};

/// arch/x86/entry/syscalls/syscall_64.tbl
const NR_ACCEPT: u64 = 43;
const NR_ACCEPT4: u64 = 288;

/// `TS_COMPAT`, arch/x86/include/asm/thread_info.h: in a 32-bit system call, whose numbers and
/// registers mean something else.
const TS_COMPAT: u32 = 0x0002;

/// Whether a (64-bit) system call's number is that of accept() or accept4().
#[inline(always)]
pub fn is_accept(number: u64) -> bool {
    number == NR_ACCEPT || number == NR_ACCEPT4
}

/// The current `struct task_struct`.
#[derive(Clone, Copy)]
pub struct Task(*const u8);

impl Task {
    #[inline(always)]
    pub fn current() -> Task {
        Task(unsafe { bpf_get_current_task() } as *const u8)
    }

    /// In a 32-bit system call.
    #[inline(always)]
    pub fn is_compat(self) -> bool {
        // SAFETY: a struct task_struct.
        unsafe { Probed::read::<u32>(self.0, &TASK_STATUS) }.unwrap_or(0) & TS_COMPAT != 0
    }

    /// The TCP socket behind a descriptor.
    #[inline(always)]
    pub fn tcp_sock(self, fd: i32) -> Option<Sock<Probed>> {
        let sk = sock_of_fd(self.0, fd);
        if sk.is_null() {
            return None;
        }
        Sock::<Probed>::new(sk).tcp()
    }

    /// The listener of the accept system call that this task is in, when the call's entry was not
    /// seen: its descriptor is still in the saved registers.
    #[inline(always)]
    pub fn listener_of_accept(self, child: Sock<Probed>) -> Option<Sock<Probed>> {
        if REGS_HELPER.load() == 0 || self.is_compat() {
            return None;
        }
        // SAFETY: the current task's own registers.
        let regs = unsafe { bpf_task_pt_regs(bpf_get_current_task_btf()) } as *const u8;
        // SAFETY: a struct pt_regs.
        let number: u64 = unsafe { Probed::read(regs, &REGS_ORIG_AX) }?;
        if !is_accept(number) {
            return None;
        }
        // SAFETY: as above.
        let fd: u64 = unsafe { Probed::read(regs, &REGS_DI) }?;
        let listener = self.tcp_sock(fd as i32)?;
        // Another thread may have put another socket there meanwhile.
        let fits = listener.state() == TCP_LISTEN && listener.ends().lport == child.ends().lport;
        fits.then_some(listener)
    }
}

/// From a descriptor to its `struct sock`, null when it is not a socket's: the way of
/// `sockfd_lookup` without its locks. Tracing programs run with preemption off inside an RCU read
/// section, so the table and the file stay; a fault reads as nothing.
///
/// A subprogram of its own: inlined three times it would fill most of the object.
#[inline(never)]
fn sock_of_fd(task: *const u8, fd: i32) -> *const u8 {
    // SAFETY: each pointer is read from the structure before it; the helper checks addresses.
    let sk = || unsafe {
        let files = Probed::read::<*const u8>(task, &TASK_FILES)?;
        let table = Probed::read::<*const u8>(files, &FILES_FDT)?;
        if fd < 0 || fd as u32 >= Probed::read::<u32>(table, &FDT_MAX_FDS)? {
            return None;
        }
        let entries = Probed::read::<*const u8>(table, &FDT_FD)?;
        let entry = entries.wrapping_add(fd as usize * size_of::<usize>());
        let file = bpf_probe_read_kernel(entry.cast::<*const u8>()).ok()?;
        let socket = Probed::read::<*const u8>(file, &FILE_PRIVATE_DATA)?;
        // Any kind of file has private data; only a socket's points back to the file.
        if Probed::read::<*const u8>(socket, &SOCKET_FILE)? != file {
            return None;
        }
        Probed::read::<*const u8>(socket, &SOCKET_SK)
    };
    sk().unwrap_or(core::ptr::null())
}
