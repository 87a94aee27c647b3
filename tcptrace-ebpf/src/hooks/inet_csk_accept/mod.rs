//! Hook for accept(): the time of the call, and the result of `inet_csk_accept`.
//!
//! ```text
//! struct sock *inet_csk_accept(struct sock *sk, int flags, int *err, bool kern)    5.10 to 6.9
//! struct sock *inet_csk_accept(struct sock *sk, struct proto_accept_arg *arg)      6.10 to 6.18
//! ```
//! <https://elixir.bootlin.com/linux/v6.9/source/net/ipv4/inet_connection_sock.c#L650>
//! <https://elixir.bootlin.com/linux/v6.10/source/net/ipv4/inet_connection_sock.c#L657>
//!
//! `function` attaches `fentry` or `kprobe` programs to the function. `syscall` attaches programs
//! to the system call, for kernels with neither. Both use this module, which has the calls in
//! flight and writes the record of an accept.

mod function;
mod signal;
mod syscall;

use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns};
use tcptrace_ebpf::abi::{Accept, ListenerAddr, accept_flag, hook, kind, total};

use crate::acceptors;
use crate::emit::{Pair, Place, submit_with_addrs};
use crate::filter;
use crate::globals::{FILE_FLAGS, SOCKET_FILE, WHY};
use crate::kernel::memory::{Memory, Probed};
use crate::kernel::sock::{Sock, TCP_ESTABLISHED};
use crate::kernel::task::Task;
use crate::maps::{self, CALLS, Call, count};

/// Stores that the current task has called accept().
///
/// A call that does not fit in the map counts as a lost event, even with a filter, because its
/// connection is not known yet. Its return may still be seen, with an unknown time of the call.
#[inline(always)]
fn called(listener: Sock<Probed>, error: u64, flags: u64) {
    signal::begin_call();
    if WHY.load() != 0 {
        enrol(listener.id() as *const u8);
    }
    let call = Call {
        called_ns: unsafe { bpf_ktime_get_ns() },
        listener: listener.id(),
        error,
        emitted: 0,
        flags,
    };
    if CALLS.insert(bpf_get_current_pid_tgid(), call, 0).is_err() {
        maps::add_to_total(total::MISSED_CALLS);
        count(hook::ACCEPT, |counters| counters.admitted += 1);
        count(hook::ACCEPT, |counters| counters.lost_calls += 1);
        maps::count_lost(hook::ACCEPT);
    }
}

/// Makes the current task an acceptor if its listener passes the filter.
///
/// A separate subprogram, because inlining it in every program of accept() would fill most of the
/// object.
#[inline(never)]
fn enrol(listener: *const u8) {
    let listener = Sock::<Probed>::new(listener);
    if filter::passes(&listener.tuple(), || listener.netns(), listener) {
        acceptors::accepts(listener.id());
    }
}

/// Removes and returns the current task's call; `None` if its entry was not seen.
#[inline(always)]
fn take_call() -> Option<Call> {
    let id = bpf_get_current_pid_tgid();
    // SAFETY: only this task touches its own entry.
    let call = unsafe { *CALLS.get_ptr_mut(id)? };
    // The entry exists, so the removal cannot fail.
    let _ = CALLS.remove(id);
    Some(call)
}

/// A call that has returned. Absent sockets are null and read as zero, so the code below needs no
/// branch for them: the verifier walks every path.
struct Returned {
    /// Null if the call failed.
    child: Sock<Probed>,
    /// Null if unknown.
    listener: Sock<Probed>,
    call: Option<Call>,
    /// A negated errno if the call failed.
    result: i32,
    /// `abi::witness`
    witness: u8,
    /// True if accept() made a wrapper socket around the child (MPTCP), and has locked the wrapper.
    is_wrapped: bool,
}

impl Returned {
    /// Writes the record, unless the kernel hides this return from the caller.
    #[inline(always)]
    fn write_unless_hidden(self) {
        if self.child.is_null() && (signal::defer_to_signal(&self) || self.is_io_uring_attempt()) {
            return;
        }
        self.write();
    }

    /// Returns whether this was an internal attempt of io_uring, which it repeats when a connection
    /// is queued (`io_accept`, io_uring/net.c). It has O_NONBLOCK, outside of the accept system
    /// call or on a listener without that flag.
    #[inline(always)]
    fn is_io_uring_attempt(&self) -> bool {
        const EAGAIN: i32 = 11;
        const O_NONBLOCK: u32 = 0o4000;
        let Some(call) = self.call else {
            return false;
        };
        if self.result != -EAGAIN || call.flags as u32 & O_NONBLOCK == 0 {
            return false;
        }
        // SAFETY: each pointer is read from the structure before it, and the helper checks addresses.
        unsafe {
            let file: *const u8 = Probed::read(self.listener.socket(), &SOCKET_FILE);
            // A socket of the kernel itself has no file.
            let is_blocking = Probed::read::<u32>(file, &FILE_FLAGS) & O_NONBLOCK == 0;
            !file.is_null() && (is_blocking || Task::current().is_outside_of_accept())
        }
    }

    /// Writes the record if it passes the filter.
    #[inline(always)]
    fn write(self) {
        let (child, listener) = (self.child, self.listener);
        let subject = if child.is_null() { listener } else { child };
        let common = subject.common();
        let tuple = subject.tuple_with(&common);
        if !filter::admit(hook::ACCEPT, &tuple, || common.netns(), subject) {
            return;
        }
        let (cookie, state) = match child.is_null() {
            true => (0, 0),
            false => (common.cookie(), common.state()),
        };
        let mut flags = 0;
        // The kernel removes the request before the socket is ESTABLISHED
        // (`tcp_rcv_synrecv_state_fastopen`).
        if state != TCP_ESTABLISHED && child.has_fastopen_request() {
            flags |= accept_flag::FASTOPEN;
        }
        if self.call.is_none() && maps::total(total::MISSED_CALLS) == 0 {
            flags |= accept_flag::BLOCKED_AT_ATTACH;
        }
        if self.is_wrapped {
            flags |= accept_flag::WRAPPED;
        }
        let (backlog_len, backlog_max) = listener.backlog();
        let called_ns = self.call.map_or(0, |call| call.called_ns);
        let (netns, result, witness) = (common.netns(), self.result, self.witness);
        let payload = |sections| Accept {
            sk: child.id(),
            listener: listener.id(),
            cookie,
            called_ns,
            netns,
            backlog_len,
            backlog_max,
            result,
            lport: tuple.lport,
            rport: tuple.rport,
            state,
            witness,
            flags,
            sections,
            listener_port: listener.lport(),
            padding: [0; 6],
        };
        maps::remember_process(Task::current().process());
        // The call can be older than the hooks. A filter can leave out the listener, whose address
        // is not the child's.
        acceptors::accepts(listener.id());
        submit_with_addrs(
            hook::ACCEPT,
            kind::ACCEPT,
            tuple.addrs,
            payload,
            #[inline(always)]
            |place: Place<Pair<_, _>>| {
                let (first, rest) = place.split();
                first.fill(ListenerAddr(listener.laddr()));
                rest.fill(Task::current().as_section());
            },
        );
    }
}
