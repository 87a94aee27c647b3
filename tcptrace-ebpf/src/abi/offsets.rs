//! Names of the frozen globals: structure offsets and settings.

/// Calls `$then!` with every structure offset that the programs read.
///
/// An entry has the name of the frozen global and the member's path in kernel BTF. The loader
/// resolves each path on the running kernel; no offset comes from a header.
#[macro_export]
macro_rules! for_each_offset {
    ($then:ident) => {
        $then! {
            SK_FAMILY = "sock.__sk_common.skc_family";
            SK_STATE = "sock.__sk_common.skc_state";
            SK_DADDR = "sock.__sk_common.skc_daddr";
            SK_RCV_SADDR = "sock.__sk_common.skc_rcv_saddr";
            SK_V6_DADDR = "sock.__sk_common.skc_v6_daddr";
            SK_V6_RCV_SADDR = "sock.__sk_common.skc_v6_rcv_saddr";
            SK_DPORT = "sock.__sk_common.skc_dport";
            SK_NUM = "sock.__sk_common.skc_num";
            SK_BOUND_DEV_IF = "sock.__sk_common.skc_bound_dev_if";
            SK_NET = "sock.__sk_common.skc_net.net";
            SK_COOKIE = "sock.__sk_common.skc_cookie";
            SK_LOCK_OWNED = "sock.sk_lock.owned";
            SK_PROTOCOL = "sock.sk_protocol";
            SK_SOCKET = "sock.sk_socket";
            SK_ERR = "sock.sk_err";
            SK_FLAGS = "sock.__sk_common.skc_flags";
            SK_UID = "sock.sk_uid.val";
            SK_CGROUP = "sock.sk_cgrp_data.cgroup";
            SK_CGROUP_OR_CLASS = "sock.sk_cgrp_data.val";
            CGROUP_KN = "cgroup.kn";
            CGROUP_LEVEL = "cgroup.level";
            CGROUP_ANCESTORS = "cgroup.ancestors";
            CGROUP_ANCESTOR_IDS = "cgroup.ancestor_ids";
            KERNFS_NODE_ID = "kernfs_node.id";
            SK_ACK_BACKLOG = "sock.sk_ack_backlog";
            SK_MAX_ACK_BACKLOG = "sock.sk_max_ack_backlog";
            INET_SPORT = "inet_sock.inet_sport";
            TCP_SRTT_US = "tcp_sock.srtt_us";
            SK_NODE_PPREV = "sock.__sk_common.skc_node.pprev";
            ICSK_QLEN = "inet_connection_sock.icsk_accept_queue.qlen";
            ICSK_DEFER_ACCEPT = "inet_connection_sock.icsk_accept_queue.rskq_defer_accept";
            REQ_LISTENER = "request_sock.__req_common.skc_listener";
            REQ_NUM_RETRANS = "request_sock.num_retrans";
            REQ_RCV_ISN = "tcp_request_sock.rcv_isn";
            REQ_SNT_SYNACK = "tcp_request_sock.snt_synack";
            NET_ABORT_ON_OVERFLOW = "net.ipv4.sysctl_tcp_abort_on_overflow";
            NET_SYNCOOKIES = "net.ipv4.sysctl_tcp_syncookies";
            NET_MAX_SYN_BACKLOG = "net.ipv4.sysctl_max_syn_backlog";
            NET_FASTOPEN = "net.ipv4.sysctl_tcp_fastopen";
            NET_SOMAXCONN = "net.core.sysctl_somaxconn";
            TCP_FASTOPEN_RSK = "tcp_sock.fastopen_rsk";
            TCP_BYTES_ACKED = "tcp_sock.bytes_acked";
            TCP_BYTES_RECEIVED = "tcp_sock.bytes_received";
            TCP_SEGS_IN = "tcp_sock.segs_in";
            TCP_SEGS_OUT = "tcp_sock.segs_out";
            TCP_DATA_SEGS_IN = "tcp_sock.data_segs_in";
            TCP_TOTAL_RETRANS = "tcp_sock.total_retrans";
            TCP_SND_CWND = "tcp_sock.snd_cwnd";
            TCP_SND_UNA = "tcp_sock.snd_una";
            TCP_SND_NXT = "tcp_sock.snd_nxt";
            TCP_WRITE_SEQ = "tcp_sock.write_seq";
            TCP_RCV_NXT = "tcp_sock.rcv_nxt";
            TCP_COPIED_SEQ = "tcp_sock.copied_seq";
            TCP_LINGER2 = "tcp_sock.linger2";
            TCP_TSORTED_SENT_QUEUE = "tcp_sock.tsorted_sent_queue.next";
            SK_SHUTDOWN = "sock.sk_shutdown";
            SKB_CB = "sk_buff.cb";
            SKB_CB_TCP_FLAGS = "tcp_skb_cb.tcp_flags";
            SKB_HEAD = "sk_buff.head";
            SKB_NETWORK_HEADER = "sk_buff.network_header";
            SKB_TRANSPORT_HEADER = "sk_buff.transport_header";
            SKB_DEV = "sk_buff.dev";
            MPTCP_FIRST = "mptcp_sock.first";
            NET_INUM = "net.ns.inum";
            NET_COUNT = "net.count";
            NET_NS_COUNT = "net.ns.count";
            NET_NS_REF = "net.ns.__ns_ref";
            TW_SUBSTATE = "inet_timewait_sock.tw_substate";
            TW_TIMER = "inet_timewait_sock.tw_timer";
            TASK_FILES = "task_struct.files";
            TASK_TGID = "task_struct.tgid";
            TASK_PID = "task_struct.pid";
            TASK_COMM = "task_struct.comm";
            TASK_FLAGS = "task_struct.flags";
            TASK_STATE = "task_struct.__state";
            TASK_OLD_STATE = "task_struct.state";
            TASK_JOBCTL = "task_struct.jobctl";
            TASK_THROTTLED = "task_struct.throttled";
            TASK_CFS_RQ = "task_struct.se.cfs_rq";
            CFS_RQ_THROTTLE_COUNT = "cfs_rq.throttle_count";
            TASK_GROUP_LEADER = "task_struct.group_leader";
            TASK_SIGNAL = "task_struct.signal";
            TASK_THREAD_PID = "task_struct.thread_pid";
            SIGNAL_LIVE = "signal_struct.live";
            PID_LEVEL = "pid.level";
            PID_NUMBERS = "pid.numbers";
            TASK_STATUS = "task_struct.thread_info.status";
            TASK_THREAD_FLAGS = "task_struct.thread_info.flags";
            FILES_FDT = "files_struct.fdt";
            FDT_FD = "fdtable.fd";
            FDT_MAX_FDS = "fdtable.max_fds";
            FILE_FLAGS = "file.f_flags";
            FILE_PRIVATE_DATA = "file.private_data";
            SOCKET_FILE = "socket.file";
            SOCKET_SK = "socket.sk";
            SOCKET_INO = "socket_alloc.vfs_inode.i_ino";
            PROTO_ACCEPT_ARG_ERR = "proto_accept_arg.err";
            PROTO_ACCEPT_ARG_FLAGS = "proto_accept_arg.flags";
            REGS_ORIG_AX = "pt_regs.orig_ax";
            REGS_AX = "pt_regs.ax";
            REGS_DI = "pt_regs.di";
            REGS_SI = "pt_regs.si";
            REGS_CS = "pt_regs.cs";
            REGS_X = "pt_regs.regs";
            REGS_PSTATE = "pt_regs.pstate";
            REGS_ORIG_X0 = "pt_regs.orig_x0";
            REGS_SYSCALLNO = "pt_regs.syscallno";
            SA_FLAGS = "k_sigaction.sa.sa_flags";
            SA_HANDLER = "k_sigaction.sa.sa_handler";
            SKB_DATA = "sk_buff.data";
            SKB_LEN = "sk_buff.len";
            SKB_PROTOCOL = "sk_buff.protocol";
            SKB_SK = "sk_buff.sk";
            DEV_IFINDEX = "net_device.ifindex";
            DEV_NET = "net_device.nd_net.net";
        }
    };
}

macro_rules! offset_table {
    ($($global:ident = $path:literal;)*) => {
        /// The name of the global and the path in kernel BTF of every structure offset.
        pub const OFFSETS: &[(&str, &str)] = &[$((stringify!($global), $path)),*];
    };
}
for_each_offset!(offset_table);

/// Like [`for_each_offset`], for every bit field that the programs read. The global holds an offset
/// in bits.
#[macro_export]
macro_rules! for_each_bit {
    ($then:ident) => {
        $then! {
            TCP_REPAIR = "tcp_sock.repair";
            TCP_FASTOPEN_CONNECT = "tcp_sock.fastopen_connect";
        }
    };
}

macro_rules! bit_table {
    ($($global:ident = $path:literal;)*) => {
        /// Like [`OFFSETS`], for bit fields that are one bit wide.
        pub const BITS: &[(&str, &str)] = &[$((stringify!($global), $path)),*];
    };
}
for_each_bit!(bit_table);

/// Offsets that a kernel may lack, because it is older than the structure or was built without the
/// feature. Their globals are 0 then.
pub const OPTIONAL_OFFSETS: &[&str] = &[
    "MPTCP_FIRST",
    "TCP_TSORTED_SENT_QUEUE",
    // From Linux 5.15; until 5.14. A kernel without CONFIG_SOCK_CGROUP_DATA has neither.
    "SK_CGROUP",
    "SK_CGROUP_OR_CLASS",
    "CGROUP_KN",
    "CGROUP_LEVEL",
    // From Linux 6.1; until 6.0.
    "CGROUP_ANCESTORS",
    "CGROUP_ANCESTOR_IDS",
    "KERNFS_NODE_ID",
    "PROTO_ACCEPT_ARG_ERR",
    "PROTO_ACCEPT_ARG_FLAGS",
    // Until Linux 5.10; from 5.11; from 6.18.
    "NET_COUNT",
    "NET_NS_COUNT",
    "NET_NS_REF",
    // From Linux 5.14; until 5.13.
    "TASK_STATE",
    "TASK_OLD_STATE",
    // From Linux 6.18, with CONFIG_CFS_BANDWIDTH.
    "TASK_THROTTLED",
    // With CONFIG_FAIR_GROUP_SCHED; with CONFIG_CFS_BANDWIDTH.
    "TASK_CFS_RQ",
    "CFS_RQ_THROTTLE_COUNT",
];

/// Offsets that only x86-64 has. Their globals are 0 on other processors.
pub const X86_64_OFFSETS: &[&str] = &[
    "REGS_ORIG_AX",
    "REGS_AX",
    "REGS_DI",
    "REGS_SI",
    "REGS_CS",
    "TASK_STATUS",
];

/// Offsets that only arm64 has. Their globals are 0 on other processors.
pub const AARCH64_OFFSETS: &[&str] = &["REGS_X", "REGS_PSTATE", "REGS_ORIG_X0", "REGS_SYSCALLNO"];

/// Names of the frozen globals that are settings, not offsets; all are `u32`.
pub mod setting {
    /// The processor, a value of [`machine`](super::super::machine).
    pub const MACHINE: &str = "MACHINE";
    /// [`filter`](super::super::filter) bits.
    pub const FILTER: &str = "FILTER";
    /// Bit n is set if a requested cgroup may be n levels below the root.
    pub const CGROUP_LEVELS: &str = "CGROUP_LEVELS";
    /// 1 if BTF tracepoints may call `bpf_get_socket_cookie` (Linux 5.12).
    pub const COOKIE_HELPER: &str = "COOKIE_HELPER";
    /// Number of parameters of `inet_csk_accept`: 4 until Linux 6.9, 2 from 6.10.
    pub const ACCEPT_ARGS: &str = "ACCEPT_ARGS";
    /// 1 if programs may call `bpf_get_current_task_btf` and `bpf_task_pt_regs` (Linux 5.15).
    pub const TASK_HELPERS: &str = "TASK_HELPERS";
    /// 1 if the scheduling of acceptors is traced.
    pub const WHY: &str = "WHY";
    /// 1 if `sched_switch` passes the state of the thread that leaves the CPU (Linux 5.18).
    pub const SWITCH_STATE: &str = "SWITCH_STATE";
    /// Number of unread bytes in the ring buffer at which the reader is woken before its timer.
    pub const WAKE_AT: &str = "WAKE_AT";
    /// Offsets of the classic tracepoint's fields, from its `format` file, in bytes.
    pub const TP_SKADDR: &str = "TP_SKADDR";
    pub const TP_OLDSTATE: &str = "TP_OLDSTATE";
    pub const TP_NEWSTATE: &str = "TP_NEWSTATE";
}
