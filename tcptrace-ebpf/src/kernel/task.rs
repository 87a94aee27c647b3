//! Reader of the current task: its system call and its descriptors.

use aya_ebpf::Global;
use aya_ebpf::helpers::generated::{
    bpf_get_current_comm, bpf_get_current_task_btf, bpf_task_pt_regs,
};
use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_get_current_task};
use tcptrace_ebpf::abi::{self, aarch64, x86_64};

use crate::globals::{
    CFS_RQ_THROTTLE_COUNT, FDT_FD, FDT_MAX_FDS, FILE_PRIVATE_DATA, FILES_FDT, SOCKET_FILE,
    SOCKET_SK, TASK_CFS_RQ, TASK_COMM, TASK_FILES, TASK_FLAGS, TASK_GROUP_LEADER, TASK_HELPERS,
    TASK_JOBCTL, TASK_OLD_STATE, TASK_PID, TASK_STATE, TASK_STATUS, TASK_TGID, TASK_THREAD_FLAGS,
    TASK_THROTTLED,
};
use crate::kernel::memory::{Direct, FromTask, Members, Memory, Probed};
use crate::kernel::registers::{Registers, is_aarch64, is_accept};
use crate::kernel::sock::{Sock, TCP_LISTEN};

/// `JOBCTL_TRAP_FREEZE`, include/linux/sched/jobctl.h
const JOBCTL_TRAP_FREEZE: u64 = 1 << 23;

/// Bits of `task_struct.flags`, include/linux/sched.h: an exiting task, a worker of io_uring, a
/// kernel thread.
const PF_EXITING: u32 = 0x0000_0004;
const PF_IO_WORKER: u32 = 0x0000_0010;
const PF_KTHREAD: u32 = 0x0020_0000;

/// `TS_COMPAT`, arch/x86/include/asm/thread_info.h: the task is in a 32-bit system call. Its
/// numbers and registers have other meanings.
const TS_COMPAT: u32 = 0x0002;

/// `_TIF_32BIT`, arch/arm64/include/asm/thread_info.h: the task is a 32-bit one.
const TIF_32BIT: u32 = 1 << 22;

/// Returns whether a thread that blocks in this 64-bit system call waits for work, such as a
/// connection. Its call stack explains nothing.
#[inline(always)]
pub fn waits_for_work(number: i32) -> bool {
    if is_accept(number) {
        return true;
    }
    let number = number as u32;
    if is_aarch64() {
        use aarch64::{EPOLL_PWAIT, EPOLL_PWAIT2, IO_URING_ENTER};
        matches!(number, EPOLL_PWAIT | IO_URING_ENTER | EPOLL_PWAIT2)
    } else {
        use x86_64::{EPOLL_PWAIT, EPOLL_PWAIT2, EPOLL_WAIT, IO_URING_ENTER};
        matches!(
            number,
            EPOLL_WAIT | EPOLL_PWAIT | IO_URING_ENTER | EPOLL_PWAIT2
        )
    }
}

/// Returns the kind of a 64-bit system call, a number of [`abi::call`]. In exit() and exit_group()
/// PF_EXITING is set instead.
#[inline(always)]
fn kind_of_call(number: u32) -> u32 {
    if is_aarch64() {
        use aarch64::*;
        match number {
            CLOSE | DUP3 | EXECVE | EXECVEAT | CLOSE_RANGE => abi::call::CLOSE,
            CONNECT => abi::call::CONNECT,
            SHUTDOWN => abi::call::SHUTDOWN,
            WRITE | WRITEV | SENDTO | SENDMSG | SENDMMSG => abi::call::SEND,
            _ => abi::call::UNKNOWN,
        }
    } else {
        use x86_64::*;
        match number {
            CLOSE | DUP2 | DUP3 | EXECVE | EXECVEAT | CLOSE_RANGE => abi::call::CLOSE,
            CONNECT => abi::call::CONNECT,
            SHUTDOWN => abi::call::SHUTDOWN,
            WRITE | WRITEV | SENDTO | SENDMSG | SENDMMSG => abi::call::SEND,
            _ => abi::call::UNKNOWN,
        }
    }
}

/// The current `struct task_struct`.
#[derive(Clone, Copy)]
pub struct Task(*const u8);

impl Task {
    #[inline(always)]
    pub fn current() -> Task {
        // SAFETY: the helpers take nothing and cannot fail.
        Task(unsafe {
            if TASK_HELPERS.load() != 0 {
                bpf_get_current_task_btf() as *const u8
            } else {
                bpf_get_current_task() as *const u8
            }
        })
    }

    #[inline(always)]
    fn get<T: Copy>(self, offset: &Global<u32>) -> T {
        // SAFETY: a struct task_struct, and every caller names an offset into one.
        unsafe { FromTask::read(self.0, offset) }
    }

    /// Returns the section of a record. Bytes after the name's NUL may be the rest of an earlier,
    /// longer name.
    #[inline(always)]
    pub fn as_section(self) -> abi::Task {
        if TASK_HELPERS.load() != 0 {
            let comm: [u64; 2] = self.get(&TASK_COMM);
            return abi::Task {
                pid: self.get(&TASK_TGID),
                tid: self.get(&TASK_PID),
                // SAFETY: two u64 are sixteen bytes.
                comm: unsafe { core::mem::transmute::<[u64; 2], [u8; 16]>(comm) },
                process: self.process_name(),
            };
        }
        let pid_tgid = bpf_get_current_pid_tgid();
        let mut comm = [0; 16];
        // SAFETY: the given size is that of `comm`, so the helper cannot fail.
        unsafe { bpf_get_current_comm((&raw mut comm).cast(), size_of_val(&comm) as u32) };
        abi::Task {
            pid: (pid_tgid >> 32) as u32,
            tid: pid_tgid as u32,
            comm,
            process: self.process_name(),
        }
    }

    /// Returns the name of the process: its first thread's name.
    #[inline(always)]
    fn process_name(self) -> [u8; 16] {
        let first: *const u8 = self.get(&TASK_GROUP_LEADER);
        // SAFETY: a struct task_struct; two u64 are sixteen bytes.
        unsafe {
            let comm: [u64; 2] = FromTask::read(first, &TASK_COMM);
            core::mem::transmute::<[u64; 2], [u8; 16]>(comm)
        }
    }

    /// Returns the process: the kernel's tgid.
    #[inline(always)]
    pub fn process(self) -> u32 {
        self.get(&TASK_TGID)
    }

    /// Returns the thread: the kernel's pid.
    #[inline(always)]
    pub fn thread(self) -> u32 {
        self.get(&TASK_PID)
    }

    /// Returns `task_struct.__state`; 0 if it is running or runnable.
    #[inline(always)]
    pub fn state(self) -> u32 {
        if TASK_STATE.load() != 0 {
            self.get(&TASK_STATE)
        } else {
            self.get(&TASK_OLD_STATE)
        }
    }

    /// Returns whether the cgroup freezer stops this thread (`do_freezer_trap`, kernel/signal.c).
    #[inline(always)]
    pub fn is_freezing(self) -> bool {
        self.get::<u64>(&TASK_JOBCTL) & JOBCTL_TRAP_FREEZE != 0
    }

    /// Returns whether this thread may not run, because a cgroup has used up its CPU quota. From
    /// Linux 6.18 each thread is throttled when it returns to user mode
    /// (`throttle_cfs_rq_work`, kernel/sched/fair.c). Before, the whole run queue of the cgroup is
    /// (`throttle_cfs_rq`). False if the kernel has no quotas.
    #[inline(always)]
    pub fn is_throttled(self) -> bool {
        if TASK_THROTTLED.load() != 0 {
            return self.get::<u8>(&TASK_THROTTLED) != 0;
        }
        if TASK_CFS_RQ.load() == 0 || CFS_RQ_THROTTLE_COUNT.load() == 0 {
            return false;
        }
        let queue: *const u8 = self.get(&TASK_CFS_RQ);
        // SAFETY: the cgroup's struct cfs_rq on this CPU.
        unsafe { FromTask::read::<i32>(queue, &CFS_RQ_THROTTLE_COUNT) > 0 }
    }

    /// Returns the number of the 64-bit system call that this task is in, [`abi::NO_SYSCALL`] or
    /// [`abi::UNKNOWN_SYSCALL`]. The task must be the current one.
    #[inline(always)]
    pub fn call_number(self) -> i32 {
        let is_user = self.get::<u32>(&TASK_FLAGS) & (PF_IO_WORKER | PF_KTHREAD) == 0;
        if TASK_HELPERS.load() == 0 || !is_user || self.is_compat() {
            return abi::UNKNOWN_SYSCALL;
        }
        // SAFETY: the current task's own registers.
        unsafe {
            let regs = bpf_task_pt_regs(bpf_get_current_task_btf()) as *const u8;
            Registers::<Direct>::new(regs).number()
        }
    }

    /// Returns whether it is a kernel thread, which works on behalf of other tasks.
    #[inline(always)]
    pub fn is_kernel_thread(self) -> bool {
        self.get::<u32>(&TASK_FLAGS) & PF_KTHREAD != 0
    }

    /// Returns whether the task is in a 32-bit system call.
    #[inline(always)]
    pub fn is_compat(self) -> bool {
        if is_aarch64() {
            self.get::<u32>(&TASK_THREAD_FLAGS) & TIF_32BIT != 0
        } else {
            self.get::<u32>(&TASK_STATUS) & TS_COMPAT != 0
        }
    }

    /// Returns the socket of a descriptor, of any protocol, or null.
    #[inline(always)]
    pub fn sock(self, fd: i32) -> Sock<Probed> {
        Sock::new(sock_of_fd(self.0, fd))
    }

    /// Returns the TCP socket of a descriptor, or null.
    #[inline(always)]
    pub fn tcp_sock(self, fd: i32) -> Sock<Probed> {
        self.sock(fd).tcp()
    }

    /// Returns the listener of the accept system call that this task is in, for a call whose entry
    /// was not seen. The saved registers still have its descriptor. Null if unknown.
    #[inline(always)]
    pub fn listener_of_accept(self, child: Sock<Probed>) -> Sock<Probed> {
        let Some(descriptor) = self.descriptor_of_accept() else {
            return Sock::null();
        };
        let listener = self.tcp_sock(descriptor as i32);
        // Another thread may have replaced the descriptor's socket meanwhile.
        if listener.state() == TCP_LISTEN && listener.tuple().lport == child.tuple().lport {
            listener
        } else {
            Sock::null()
        }
    }

    /// Returns the descriptor argument of the accept system call that this task is in. `None` if it
    /// is in no such call, or if unknown.
    #[inline(always)]
    pub fn descriptor_of_accept(self) -> Option<u64> {
        let call = self.system_call()?;
        is_accept(call.number()).then(|| call.first_argument())
    }

    /// Returns whether this task is certainly not in an accept system call.
    #[inline(always)]
    pub fn is_outside_of_accept(self) -> bool {
        self.system_call()
            .is_some_and(|call| !is_accept(call.number()))
    }

    /// Returns whether this task is leaving an accept system call with this result, at the delivery
    /// of a signal; true also if unknown.
    #[inline(always)]
    pub fn is_leaving_accept(self, result: i32) -> bool {
        match self.system_call() {
            Some(call) => call.is_leaving_accept(result),
            None => true,
        }
    }

    /// Returns the `backlog` argument of the listen() system call that this task is in. `None` if
    /// it is in no such call, or if unknown. io_uring listens from another system call (Linux
    /// 6.11).
    #[inline(always)]
    pub fn backlog_of_listen(self) -> Option<i32> {
        let call = self.system_call()?;
        let listen = if is_aarch64() {
            aarch64::LISTEN
        } else {
            x86_64::LISTEN
        };
        (call.number() as u32 == listen).then(|| call.second_argument() as i32)
    }

    /// Returns the kind of the system call that this task is in, a number of [`abi::call`].
    #[inline(always)]
    pub fn call(self) -> u32 {
        let flags: u32 = self.get(&TASK_FLAGS);
        if flags & PF_EXITING != 0 {
            return abi::call::CLOSE;
        }
        if flags & (PF_IO_WORKER | PF_KTHREAD) != 0 {
            return abi::call::UNKNOWN;
        }
        match self.system_call() {
            Some(call) => kind_of_call(call.number() as u32),
            None => abi::call::UNKNOWN,
        }
    }

    /// Returns the saved registers of the 64-bit system call that this task is in. The task must be
    /// the current one.
    #[inline(always)]
    fn system_call(self) -> Option<Registers<Probed>> {
        if TASK_HELPERS.load() == 0 || self.is_compat() {
            return None;
        }
        // SAFETY: the current task's own registers.
        unsafe {
            let regs = bpf_task_pt_regs(bpf_get_current_task_btf()) as *const u8;
            Some(Registers::new(regs))
        }
    }
}

/// Returns the `struct sock` of a descriptor, or null if it is not a socket's. Like
/// `sockfd_lookup`, but without its locks. Tracing programs run with preemption disabled inside an
/// RCU read section, so the table and the file stay allocated. A read that faults yields null.
///
/// A separate subprogram, because inlining it three times would fill most of the object.
#[inline(never)]
fn sock_of_fd(task: *const u8, fd: i32) -> *const u8 {
    // SAFETY: each pointer is read from the structure before it, and the helper checks addresses.
    unsafe {
        // Some verifiers require a null check of an RCU-protected pointer.
        let files: *const u8 = FromTask::read(task, &TASK_FILES);
        if files.is_null() {
            return core::ptr::null();
        }
        let table: *const u8 = FromTask::read(files, &FILES_FDT);
        if table.is_null() || fd < 0 || fd as u32 >= FromTask::read::<u32>(table, &FDT_MAX_FDS) {
            return core::ptr::null();
        }
        let entries: *const u8 = FromTask::read(table, &FDT_FD);
        let file: *const u8 =
            Probed::read_at(entries.wrapping_add(fd as usize * size_of::<usize>()));
        let socket = Probed::read(file, &FILE_PRIVATE_DATA);
        let socket = Probed::block::<2>(socket, &SOCKET_FILE);
        // Every kind of file has private data; only a socket's points back to the file.
        if file.is_null() || socket.get::<*const u8>(&SOCKET_FILE) != file {
            return core::ptr::null();
        }
        socket.get(&SOCKET_SK)
    }
}
