//! The accept() hook: in the kernel's functions or at the system call.

use super::{AttachMethod, HookRow, Point, Program};
use crate::event::Hook;

/// Reports calls that a signal has interrupted with an error.
const SIGNAL: Program = Program::optional(
    "accept_signal",
    Point::RawTracepoint("signal_deliver"),
    "accept() calls that a signal has ended",
);

/// When a program is attached to or detached from `inet_csk_accept`, calls that sleep in it return
/// without running the fexit programs (`bpf_tramp_image_put`, kernel/bpf/trampoline.c, Linux 6.12).
const FENTRY_UNSEEN: &[&str] = &[
    "a failed accept() that was already blocked when tracing began, or when another tracer was \
     attached to inet_csk_accept or left it",
    NO_DESCRIPTOR,
    DONTWAIT_UNSEEN,
];

/// The system call reserves a descriptor before it calls `inet_csk_accept` (`do_accept`,
/// net/socket.c).
const NO_DESCRIPTOR: &str = "an accept() that finds no free descriptor (EMFILE, ENFILE)";

/// With this flag a failed accept() looks to the hook like io_uring's first attempt of an accept()
/// that waits. The hook does not report such an attempt, because io_uring repeats it when a
/// connection is queued.
const DONTWAIT_UNSEEN: &str =
    "an io_uring accept with IORING_ACCEPT_DONTWAIT (Linux 6.10) that finds nothing (EAGAIN)";

const SYSCALL_UNSEEN: &[&str] = &["accepts by io_uring, by 32-bit programs and inside the kernel"];

pub const ROW: HookRow = HookRow {
    hook: Hook::InetCskAccept,
    shows: "accept() called and returned, by which thread, on which listener",
    without: None,
    methods: &[
        AttachMethod {
            name: "fentry",
            via: "BTF trampolines at inet_csk_accept (Linux 6.10 and later) and security_sock_graft",
            parameters: Some(("inet_csk_accept", 2)),
            // The program at `security_sock_graft` is attached before those at `inet_csk_accept`. A
            // graft without a seen entry into accept() then belongs to a call that is older than
            // the trace.
            programs: &[
                SIGNAL,
                Program::new("graft_fentry", Point::Fentry("security_sock_graft")),
                Program::new("accept_fentry2", Point::Fentry("inet_csk_accept")),
                Program::new("accept_fexit2", Point::Fexit("inet_csk_accept")),
            ],
            unseen: FENTRY_UNSEEN,
        },
        AttachMethod {
            name: "fentry",
            via: "BTF trampolines at inet_csk_accept (Linux 6.9 and before) and security_sock_graft",
            parameters: Some(("inet_csk_accept", 4)),
            // The program at `security_sock_graft` is attached before those at `inet_csk_accept`. A
            // graft without a seen entry into accept() then belongs to a call that is older than
            // the trace.
            programs: &[
                SIGNAL,
                Program::new("graft_fentry", Point::Fentry("security_sock_graft")),
                Program::new("accept_fentry4", Point::Fentry("inet_csk_accept")),
                Program::new("accept_fexit4", Point::Fexit("inet_csk_accept")),
            ],
            unseen: FENTRY_UNSEEN,
        },
        AttachMethod {
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
        AttachMethod {
            name: "syscall",
            via: "tracepoints of accept() and accept4()",
            parameters: None,
            // The entry program is attached before the exit program. A return from accept() without
            // a seen entry then belongs to a call that is older than the trace.
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
        AttachMethod {
            name: "syscall",
            via: "BTF tracepoints sys_enter and sys_exit",
            parameters: None,
            // The program at sys_enter is attached before that at sys_exit. A return from accept()
            // without a seen entry then belongs to a call that is older than the trace.
            programs: &[
                SIGNAL,
                Program::new("sys_enter_btf", Point::BtfTracepoint("sys_enter")),
                Program::new("sys_exit_btf", Point::BtfTracepoint("sys_exit")),
            ],
            unseen: SYSCALL_UNSEEN,
        },
        AttachMethod {
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
