//! The hook table: what each hook shows, what can carry it, and what is unknown without it.
//!
//! A plan is not computed from kernel versions: carriers are tried in order, and the first whose
//! programs load and attach is taken (feature probes lie, loading does not).

use anyhow::bail;
use aya::Ebpf;
use aya::programs::{
    BtfTracePoint, FEntry, FExit, KProbe, ProgramError, RawTracePoint, TracePoint,
};

use super::load::Kernel;
use crate::event::Hook;

/// One hook.
pub struct HookRow {
    pub hook: Hook,
    /// What it shows, for `doctor`.
    pub shows: &'static str,
    /// What is unknown without it, for `doctor` and the session line; `None`: nothing works
    /// without it.
    pub without: Option<&'static str>,
    /// In order of preference.
    pub carriers: &'static [Carrier],
}

/// A way to run programs at a hook.
pub struct Carrier {
    /// As named by `--attach`, in `doctor` and in the session line.
    pub name: &'static str,
    /// How it attaches, where one name has several ways; else empty.
    pub via: &'static str,
    /// The prototype its programs are written for: a function and its number of parameters.
    pub parameters: Option<(&'static str, usize)>,
    /// Attached in this order.
    pub programs: &'static [Program],
    /// What it cannot see, for `doctor` and the session line.
    pub unseen: &'static [&'static str],
}

/// A program of the eBPF object and where it goes.
pub struct Program {
    /// Its symbol in the object.
    pub name: &'static str,
    pub point: Point,
    /// Makes up for runs of the program before it that the kernel skips, on kernels that do.
    pub is_backup: bool,
}

impl Program {
    const fn new(name: &'static str, point: Point) -> Program {
        Program {
            name,
            point,
            is_backup: false,
        }
    }

    const fn backup(name: &'static str, point: Point) -> Program {
        Program {
            is_backup: true,
            ..Program::new(name, point)
        }
    }
}

pub enum Point {
    BtfTracepoint(&'static str),
    RawTracepoint(&'static str),
    Tracepoint(&'static str, &'static str),
    Fentry(&'static str),
    Fexit(&'static str),
    /// Entry or return, as the program was built.
    Kprobe(&'static str),
}

const FENTRY_UNSEEN: &[&str] = &["a failed accept() that was already blocked when tracing began"];

const SYSCALL_UNSEEN: &[&str] = &["accepts by io_uring, by 32-bit programs and inside the kernel"];

/// Accept comes first: every accept() that has begun when the last hook is attached is then known
/// to be older than any transition of the trace.
pub const HOOKS: &[HookRow] = &[
    HookRow {
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
                    Program::new("graft_kprobe", Point::Kprobe("security_sock_graft")),
                    Program::new("accept_kprobe", Point::Kprobe("inet_csk_accept")),
                    Program::new("accept_kretprobe", Point::Kprobe("inet_csk_accept")),
                ],
                unseen: &[
                    "a failed accept() when more than a handful of threads are blocked in accept() \
                     (kretprobes run out), or when it was already blocked when tracing began",
                ],
            },
            Carrier {
                name: "syscall",
                via: "BTF tracepoints sys_enter and sys_exit",
                parameters: None,
                // sys_enter first: a call that sys_exit finds no entry of began before.
                programs: &[
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
                    Program::new("sys_enter_raw", Point::RawTracepoint("sys_enter")),
                    Program::new("sys_exit_raw", Point::RawTracepoint("sys_exit")),
                ],
                unseen: SYSCALL_UNSEEN,
            },
        ],
    },
    HookRow {
        hook: Hook::InetSockSetState,
        shows: "every change of state of a full TCP socket",
        without: None,
        carriers: &[
            Carrier {
                name: "tp_btf",
                via: "",
                parameters: None,
                programs: &[
                    Program::new("state_btf", Point::BtfTracepoint("inet_sock_set_state")),
                    Program::backup(
                        "state_backup_btf",
                        Point::BtfTracepoint("inet_sock_set_state"),
                    ),
                ],
                unseen: STATE_UNSEEN,
            },
            Carrier {
                name: "raw_tp",
                via: "",
                parameters: None,
                programs: &[
                    Program::new("state_raw", Point::RawTracepoint("inet_sock_set_state")),
                    Program::backup(
                        "state_backup_raw",
                        Point::RawTracepoint("inet_sock_set_state"),
                    ),
                ],
                unseen: STATE_UNSEEN,
            },
            Carrier {
                name: "tracepoint",
                via: "",
                parameters: None,
                programs: &[Program::new(
                    "state_tp",
                    Point::Tracepoint("sock", "inet_sock_set_state"),
                )],
                unseen: STATE_UNSEEN,
            },
        ],
    },
    HookRow {
        hook: Hook::TcpRetransmitSynack,
        shows: "SYN-ACKs that are sent again",
        without: Some("SYN-ACKs that are sent again, and so the estimate of when a SYN came"),
        carriers: &[Carrier {
            name: "raw_tp",
            via: "",
            parameters: None,
            programs: &[Program::new(
                "synack_raw",
                Point::RawTracepoint("tcp_retransmit_synack"),
            )],
            unseen: &[],
        }],
    },
    HookRow {
        hook: Hook::RequestSock,
        shows: "half-open connections (NEW_SYN_RECV), from the SYN to the final ACK or to their end",
        without: Some(
            "half-open connections (NEW_SYN_RECV): a server's handshake is estimated from its \
             first round trip, and what never completes is seen only if its SYN-ACK is sent again",
        ),
        carriers: &[
            Carrier {
                name: "fentry",
                via: "at __inet_csk_reqsk_queue_drop",
                parameters: Some(("__inet_csk_reqsk_queue_drop", 3)),
                // The beginning last: what it sees has its child or its end seen, too.
                programs: &[
                    Program::new(
                        "req_clone_fentry",
                        Point::Fentry("tcp_create_openreq_child"),
                    ),
                    Program::new(
                        "req_end_fentry",
                        Point::Fentry("__inet_csk_reqsk_queue_drop"),
                    ),
                    Program::new(
                        "req_begin_fentry",
                        Point::Fentry("inet_csk_reqsk_queue_hash_add"),
                    ),
                ],
                unseen: &[],
            },
            Carrier {
                name: "fentry",
                via: "at inet_csk_reqsk_queue_drop, without its timer (Linux 5.10)",
                parameters: None,
                programs: &[
                    Program::new(
                        "req_clone_fentry",
                        Point::Fentry("tcp_create_openreq_child"),
                    ),
                    Program::new(
                        "req_drop_fentry",
                        Point::Fentry("inet_csk_reqsk_queue_drop"),
                    ),
                    Program::new(
                        "req_begin_fentry",
                        Point::Fentry("inet_csk_reqsk_queue_hash_add"),
                    ),
                ],
                unseen: REQUEST_TIMEOUTS_UNSEEN,
            },
            Carrier {
                name: "kprobe",
                via: "at __inet_csk_reqsk_queue_drop",
                parameters: Some(("__inet_csk_reqsk_queue_drop", 3)),
                // The beginning last: what it sees has its child or its end seen, too.
                programs: &[
                    Program::new(
                        "req_clone_kprobe",
                        Point::Kprobe("tcp_create_openreq_child"),
                    ),
                    Program::new(
                        "req_end_kprobe",
                        Point::Kprobe("__inet_csk_reqsk_queue_drop"),
                    ),
                    Program::new(
                        "req_begin_kprobe",
                        Point::Kprobe("inet_csk_reqsk_queue_hash_add"),
                    ),
                ],
                unseen: &[],
            },
            Carrier {
                name: "kprobe",
                via: "at inet_csk_reqsk_queue_drop, without its timer (Linux 5.10)",
                parameters: None,
                programs: &[
                    Program::new(
                        "req_clone_kprobe",
                        Point::Kprobe("tcp_create_openreq_child"),
                    ),
                    Program::new(
                        "req_drop_kprobe",
                        Point::Kprobe("inet_csk_reqsk_queue_drop"),
                    ),
                    Program::new(
                        "req_begin_kprobe",
                        Point::Kprobe("inet_csk_reqsk_queue_hash_add"),
                    ),
                ],
                unseen: REQUEST_TIMEOUTS_UNSEEN,
            },
        ],
    },
    HookRow {
        hook: Hook::ListenOverflow,
        shows: "SYNs and ACKs that met a full queue of their listener",
        without: Some("SYNs and ACKs dropped because a listener's queue was full"),
        carriers: &[
            Carrier {
                name: "fentry",
                via: "",
                parameters: None,
                programs: &[
                    Program::new("overflow_syn_fentry", Point::Fentry("tcp_conn_request")),
                    Program::new(
                        "overflow_ack4_fentry",
                        Point::Fentry("tcp_v4_syn_recv_sock"),
                    ),
                    Program::new(
                        "overflow_ack6_fentry",
                        Point::Fentry("tcp_v6_syn_recv_sock"),
                    ),
                ],
                unseen: &[],
            },
            Carrier {
                name: "kprobe",
                via: "",
                parameters: None,
                programs: &[
                    Program::new("overflow_syn_kprobe", Point::Kprobe("tcp_conn_request")),
                    Program::new(
                        "overflow_ack4_kprobe",
                        Point::Kprobe("tcp_v4_syn_recv_sock"),
                    ),
                    Program::new(
                        "overflow_ack6_kprobe",
                        Point::Kprobe("tcp_v6_syn_recv_sock"),
                    ),
                ],
                unseen: &[],
            },
        ],
    },
];

const REQUEST_TIMEOUTS_UNSEEN: &[&str] = &["when a half-open connection times out"];

const STATE_UNSEEN: &[&str] = &["the state TIME_WAIT, which the tracepoint does not print"];

impl HookRow {
    /// The carriers to try under `--attach MODE`; all of them when the choice is free.
    ///
    /// The mode names the accept hook's carrier. Of the other hooks it takes the probes that it
    /// excludes: `syscall` is how a kernel without probes is traced.
    pub fn carriers(&self, mode: Option<&str>) -> impl Iterator<Item = &'static Carrier> {
        let is_accept = self.hook == Hook::InetCskAccept;
        self.carriers.iter().filter(move |carrier| {
            mode.is_none_or(|mode| match carrier.name {
                name if name == mode => true,
                "fentry" | "kprobe" | "syscall" => false,
                _ => !is_accept,
            })
        })
    }
}

impl Carrier {
    /// Loads and attaches all programs, or none.
    ///
    /// # Errors
    /// What the kernel says against it.
    pub fn attach(&self, ebpf: &mut Ebpf, kernel: &Kernel) -> anyhow::Result<()> {
        if let Some((function, expected)) = self.parameters {
            match kernel.own_btf.parameters(function) {
                Some(found) if found == expected => {}
                Some(found) => bail!("{function} has {found} parameters here, not {expected}"),
                None => bail!("this kernel has no {function}"),
            }
        }
        let attached = self
            .programs
            .iter()
            .filter(|program| !program.is_backup || kernel.guards_recursion)
            .try_for_each(|program| program.attach(ebpf, &kernel.btf));
        if attached.is_err() {
            self.detach(ebpf);
        }
        Ok(attached?)
    }

    /// Detaches what is attached and unloads what is loaded.
    pub fn detach(&self, ebpf: &mut Ebpf) {
        for program in self.programs {
            // The only error is "not loaded".
            let _ = match ebpf.program_mut(program.name) {
                Some(aya::programs::Program::BtfTracePoint(program)) => program.unload(),
                Some(aya::programs::Program::RawTracePoint(program)) => program.unload(),
                Some(aya::programs::Program::TracePoint(program)) => program.unload(),
                Some(aya::programs::Program::FEntry(program)) => program.unload(),
                Some(aya::programs::Program::FExit(program)) => program.unload(),
                Some(aya::programs::Program::KProbe(program)) => program.unload(),
                _ => Ok(()),
            };
        }
    }
}

impl Program {
    fn attach(&self, ebpf: &mut Ebpf, btf: &aya::Btf) -> Result<(), ProgramError> {
        let program = ebpf
            .program_mut(self.name)
            .ok_or(ProgramError::InvalidName {
                name: self.name.into(),
            })?;
        match self.point {
            Point::BtfTracepoint(name) => {
                let program: &mut BtfTracePoint = program.try_into()?;
                program.load(name, btf)?;
                program.attach()?;
            }
            Point::RawTracepoint(name) => {
                let program: &mut RawTracePoint = program.try_into()?;
                program.load()?;
                program.attach(name)?;
            }
            Point::Tracepoint(category, name) => {
                let program: &mut TracePoint = program.try_into()?;
                program.load()?;
                program.attach(category, name)?;
            }
            Point::Fentry(function) => {
                let program: &mut FEntry = program.try_into()?;
                program.load(function, btf)?;
                program.attach()?;
            }
            Point::Fexit(function) => {
                let program: &mut FExit = program.try_into()?;
                program.load(function, btf)?;
                program.attach()?;
            }
            Point::Kprobe(function) => {
                let program: &mut KProbe = program.try_into()?;
                program.load()?;
                program.attach(function, 0)?;
            }
        }
        Ok(())
    }
}
