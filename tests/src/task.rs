//! Threads: their ids, names, users, CPUs, and whether they wait.

use std::thread::{JoinHandle, ScopedJoinHandle};
use std::time::Duration;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::signal::Signal;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{Pid, gettid};

/// CLOCK_MONOTONIC in nanoseconds, comparable with `mono_ns`.
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("CLOCK_MONOTONIC");
    Duration::from(now).as_nanos() as u64
}

/// The calling thread's id, as in `tid` of the lines.
pub fn tid() -> u32 {
    gettid().as_raw() as u32
}

/// This process's id, as in `pid` of the lines.
pub fn pid() -> u32 {
    std::process::id()
}

/// Sets the calling thread's name to any bytes.
pub fn set_name(name: &std::ffi::CStr) {
    nix::sys::prctl::set_name(name).expect("PR_SET_NAME");
}

/// Changes the user of the calling thread only.
pub fn become_user(uid: u32) {
    // Calls the system call directly, because libc's function changes the user of every thread.
    // SAFETY: plain numbers; -1 leaves an id as it is.
    let changed = unsafe { libc::syscall(libc::SYS_setresuid, -1, uid, -1) };
    assert_eq!(changed, 0);
}

/// Sends a signal to one thread of this process.
pub fn send_signal(tid: u32, signal: Signal) {
    // SAFETY: plain system call; a thread that is gone is an error.
    let result = unsafe { libc::syscall(libc::SYS_tgkill, pid(), tid, signal as libc::c_int) };
    assert_eq!(result, 0, "signal a thread");
}

/// Starts a thread. Returns its id and its handle.
pub fn spawn<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> (u32, JoinHandle<T>) {
    let (sender, receiver) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        sender.send(tid()).expect("the receiver exists");
        drop(sender);
        work()
    });
    (receiver.recv().expect("the thread sends its id"), thread)
}

/// Returns the value of a thread, or resumes its panic.
pub fn join<T>(thread: JoinHandle<T>) -> T {
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Like [`join`], for a scoped thread.
pub fn join_scoped<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Waits until the thread sleeps inside accept().
pub fn wait_until_in_accept(tid: u32) {
    wait_until_in_call(tid, &[libc::SYS_accept, libc::SYS_accept4]);
}

/// Waits until the thread sleeps inside one of these system calls.
pub fn wait_until_in_call(tid: u32, numbers: &[i64]) {
    crate::eventually("a thread to block in a system call", || {
        // The file has the system call's number while the thread sleeps in one, and "running"
        // otherwise.
        let path = format!("/proc/self/task/{tid}/syscall");
        let syscall = std::fs::read_to_string(path).ok()?;
        let number: i64 = syscall.split(' ').next()?.trim().parse().ok()?;
        numbers.contains(&number).then_some(())
    });
}

/// The CPUs that the calling thread may run on.
pub fn cpus() -> Vec<usize> {
    let set = sched_getaffinity(Pid::from_raw(0)).expect("an affinity");
    (0..CpuSet::count())
        .filter(|&cpu| set.is_set(cpu).unwrap_or(false))
        .collect()
}

/// Keeps the calling thread on one CPU.
pub fn pin_to(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu).expect("a CPU's number");
    sched_setaffinity(Pid::from_raw(0), &set).expect("pin a thread");
}
