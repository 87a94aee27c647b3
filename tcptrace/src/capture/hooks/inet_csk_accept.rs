//! accept(), in the kernel's own functions or at the system call.

use super::{Carrier, HookRow, Point, Program};
use crate::event::Hook;

/// Tells of calls that a signal interrupts, when that has become an error.
const SIGNAL: Program = Program::optional(
    "accept_signal",
    Point::RawTracepoint("signal_deliver"),
    "accept() calls that a signal has ended",
);

/// When a program is attached to the function or leaves it, the kernel has the calls that sleep in
/// it return past the fexit programs (`bpf_tramp_image_put`, kernel/bpf/trampoline.c, Linux 6.12).
const FENTRY_UNSEEN: &[&str] = &[
    "a failed accept() that was already blocked when tracing began, or when another tracer was \
     attached to inet_csk_accept or left it",
    NO_DESCRIPTOR,
    DONTWAIT_UNSEEN,
];

/// The system call asks for a descriptor first (`do_accept`, net/socket.c).
const NO_DESCRIPTOR: &str = "an accept() that finds no free descriptor (EMFILE, ENFILE)";

/// It looks like the first attempt of one that waits, which io_uring keeps to itself.
const DONTWAIT_UNSEEN: &str =
    "an io_uring accept with IORING_ACCEPT_DONTWAIT (Linux 6.10) that finds nothing (EAGAIN)";

const SYSCALL_UNSEEN: &[&str] = &["accepts by io_uring, by 32-bit programs and inside the kernel"];

pub const ROW: HookRow = HookRow {
    hook: Hook::InetCskAccept,
    shows: "accept() called and returned, by which thread, on which listener",
    without: None,
    carriers: &[
        Carrier {
            name: "fentry",
            via: "BTF trampolines at inet_csk_accept (Linux 6.10 and later) and security_sock_graft",
            parameters: Some(("inet_csk_accept", 2)),
            // The graft first: what it sees without an entry began before.
            programs: &[
                SIGNAL,
                Program::new("graft_fentry", Point::Fentry("security_sock_graft")),
                Program::new("accept_fentry2", Point::Fentry("inet_csk_accept")),
                Program::new("accept_fexit2", Point::Fexit("inet_csk_accept")),
            ],
            unseen: FENTRY_UNSEEN,
        },
        Carrier {
            name: "fentry",
            via: "BTF trampolines at inet_csk_accept (Linux 6.9 and before) and security_sock_graft",
            parameters: Some(("inet_csk_accept", 4)),
            // The graft first: what it sees without an entry began before.
            programs: &[
                SIGNAL,
                Program::new("graft_fentry", Point::Fentry("security_sock_graft")),
                Program::new("accept_fentry4", Point::Fentry("inet_csk_accept")),
                Program::new("accept_fexit4", Point::Fexit("inet_csk_accept")),
            ],
            unseen: FENTRY_UNSEEN,
        },
        Carrier {
            name: "kprobe",
            via: "kprobes at inet_csk_accept and security_sock_graft",
            parameters: None,
            programs: &[
                SIGNAL,
                Program::new("graft_kprobe", Point::Kprobe("security_sock_graft")),
                Program::new("accept_kprobe", Point::Kprobe("inet_csk_accept")),
                Program::new("accept_kretprobe", Point::Kprobe("inet_csk_accept")),
            ],
            unseen: &[
                "a failed accept() when more than a handful of threads are blocked in accept() \
                 (kretprobes run out), or when it was already blocked when tracing began",
                NO_DESCRIPTOR,
                DONTWAIT_UNSEEN,
            ],
        },
        Carrier {
            name: "syscall",
            via: "tracepoints of accept() and accept4()",
            parameters: None,
            // The entry first: a call that its exit finds no entry of began before.
            programs: &[
                SIGNAL,
                Program::new(
                    "accept_enter_tp",
                    Point::Tracepoint("syscalls", &["sys_enter_accept", "sys_enter_accept4"]),
                ),
                Program::new(
                    "accept_exit_tp",
                    Point::Tracepoint("syscalls", &["sys_exit_accept", "sys_exit_accept4"]),
                ),
            ],
            unseen: SYSCALL_UNSEEN,
        },
        Carrier {
            name: "syscall",
            via: "BTF tracepoints sys_enter and sys_exit",
            parameters: None,
            // sys_enter first: a call that sys_exit finds no entry of began before.
            programs: &[
                SIGNAL,
                Program::new("sys_enter_btf", Point::BtfTracepoint("sys_enter")),
                Program::new("sys_exit_btf", Point::BtfTracepoint("sys_exit")),
            ],
            unseen: SYSCALL_UNSEEN,
        },
        Carrier {
            name: "syscall",
            via: "raw tracepoints sys_enter and sys_exit",
            parameters: None,
            programs: &[
                SIGNAL,
                Program::new("sys_enter_raw", Point::RawTracepoint("sys_enter")),
                Program::new("sys_exit_raw", Point::RawTracepoint("sys_exit")),
            ],
            unseen: SYSCALL_UNSEEN,
        },
    ],
};
