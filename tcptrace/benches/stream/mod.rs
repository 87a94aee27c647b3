//! A synthetic stream of records, as the kernel programs would write it: many concurrent
//! connections over loopback, each with both ends.
//!
//! The stream is deterministic, so that measurements are comparable.

use tcptrace::batch::Batch;
use tcptrace_ebpf::abi;
use zerocopy::IntoBytes;

/// Time when the hooks were attached (CLOCK_MONOTONIC, nanoseconds). Every record is later.
pub const ATTACHED_NS: u64 = 1_000_000_000;

/// Number of connections that are open at the same time.
const AT_ONCE: u64 = 100;
/// One of this many connections ends with a RST.
const RESET_EVERY: u64 = 4;

const NETNS: u32 = 4_026_531_840;
const LISTENER: u64 = 0xffff_8880_0001_0000;
const PORT: u16 = 7878;
const FIRST_CLIENT_PORT: u16 = 32_768;

const ECONNRESET: u32 = 104;

/// States with the kernel's numbers (include/net/tcp_states.h).
const ESTABLISHED: u8 = 1;
const SYN_SENT: u8 = 2;
const SYN_RECV: u8 = 3;
const FIN_WAIT1: u8 = 4;
const FIN_WAIT2: u8 = 5;
const CLOSE: u8 = 7;
const CLOSE_WAIT: u8 = 8;
const LAST_ACK: u8 = 9;
const LISTEN: u8 = 10;

/// Records in the order of the ring buffer.
#[derive(Default)]
pub struct Stream {
    bytes: Vec<u8>,
    /// End of each record in `bytes`.
    ends: Vec<usize>,
    now_ns: u64,
}

impl Stream {
    /// Returns a stream of one listener with this many connections, a multiple of [`AT_ONCE`].
    pub fn of(connections: u64) -> Stream {
        let mut stream = Stream {
            now_ns: ATTACHED_NS,
            ..Stream::default()
        };
        let listener = End {
            sk: LISTENER,
            cookie: 1,
            lport: PORT,
            rport: 0,
        };
        stream.change(listener, CLOSE, LISTEN, Circumstances::process(10));
        for wave in 0..connections / AT_ONCE {
            stream.wave(wave);
        }
        stream
    }

    pub fn records(&self) -> impl Iterator<Item = &[u8]> {
        let begins = std::iter::once(&0).chain(&self.ends);
        let spans = begins.zip(&self.ends);
        spans.map(|(&begin, &end)| &self.bytes[begin..end])
    }

    /// Returns batches of this many records.
    #[allow(dead_code)]
    pub fn batches(&self, records: usize) -> Vec<Batch> {
        let all: Vec<&[u8]> = self.records().collect();
        let chunks = all.chunks(records);
        chunks
            .map(|chunk| chunk.iter().copied().collect())
            .collect()
    }

    /// Writes [`AT_ONCE`] concurrent connections: each step for all of them before the next step.
    fn wave(&mut self, wave: u64) {
        let pairs = (0..AT_ONCE).map(|n| (wave * AT_ONCE + n, n));
        let pairs: Vec<_> = pairs.map(|(born, n)| Pair::new(born, n)).collect();
        for step in [Pair::connect, Pair::accept, Pair::close] {
            pairs.iter().for_each(|pair| step(pair, self));
        }
    }

    fn change(&mut self, end: End, oldstate: u8, newstate: u8, of: Circumstances) {
        let section = |there: bool, bit| if there { bit } else { 0 };
        let payload = abi::SetState {
            sk: end.sk,
            cookie: end.cookie,
            cgroup: 1,
            netns: NETNS,
            backlog_len: 0,
            backlog_max: of.backlog_max,
            err: of.err,
            srtt_us: srtt_us(oldstate),
            uid: 1000,
            lport: end.lport,
            rport: end.rport,
            oldstate,
            newstate,
            flags: of.flags,
            sections: abi::section::V4
                | section(of.pid != 0, abi::section::TASK)
                | section(newstate == CLOSE, abi::section::STATS),
        };
        let addrs = abi::Addrs4 {
            laddr: [127, 0, 0, 1],
            raddr: if oldstate == LISTEN || newstate != LISTEN {
                [127, 0, 0, 1]
            } else {
                [0; 4]
            },
        };
        let (task, stats) = (task(of.pid), STATS);
        let mut parts = vec![payload.as_bytes(), addrs.as_bytes()];
        if of.pid != 0 {
            parts.push(task.as_bytes());
        }
        if newstate == CLOSE {
            parts.push(stats.as_bytes());
        }
        self.write(abi::kind::SET_STATE, &parts);
    }

    fn write(&mut self, kind: u8, parts: &[&[u8]]) {
        // Records alternate between two CPUs.
        let n = self.ends.len();
        self.now_ns += 1_000;
        let header = abi::Header {
            // One record in eight has a later time than the next record.
            mono_ns: self.now_ns + if n.is_multiple_of(8) { 1_500 } else { 0 },
            lost: 0,
            cpu: (n % 2) as u16,
            kind,
            version: abi::VERSION,
        };
        self.bytes.extend_from_slice(header.as_bytes());
        for part in parts {
            self.bytes.extend_from_slice(part);
        }
        self.ends.push(self.bytes.len());
    }
}

/// One end of a connection.
#[derive(Clone, Copy)]
struct End {
    sk: u64,
    cookie: u64,
    lport: u16,
    rport: u16,
}

/// A connection's two ends.
struct Pair {
    client: End,
    server: End,
    is_reset: bool,
}

impl Pair {
    /// Creates the `n`th connection of a wave. It reuses the sockets and ports of the previous
    /// wave, as the kernel does.
    fn new(born: u64, n: u64) -> Pair {
        let port = FIRST_CLIENT_PORT + n as u16;
        Pair {
            client: End {
                sk: LISTENER + 0x1000 * (2 * n + 1),
                cookie: 2 * born + 2,
                lport: port,
                rport: PORT,
            },
            server: End {
                sk: LISTENER + 0x1000 * (2 * n + 2),
                cookie: 2 * born + 3,
                lport: PORT,
                rport: port,
            },
            is_reset: born.is_multiple_of(RESET_EVERY),
        }
    }

    fn connect(&self, stream: &mut Stream) {
        stream.change(self.client, CLOSE, SYN_SENT, Circumstances::process(20));
        stream.change(self.server, LISTEN, SYN_RECV, Circumstances::queued());
        stream.change(self.server, SYN_RECV, ESTABLISHED, Circumstances::queued());
        stream.change(
            self.client,
            SYN_SENT,
            ESTABLISHED,
            Circumstances::process(20),
        );
    }

    fn accept(&self, stream: &mut Stream) {
        let mut mapped = [0; 16];
        mapped[10..].copy_from_slice(&[0xff, 0xff, 127, 0, 0, 1]);
        let payload = abi::Accept {
            sk: self.server.sk,
            listener: LISTENER,
            cookie: self.server.cookie,
            called_ns: stream.now_ns - 500,
            netns: NETNS,
            backlog_len: 0,
            backlog_max: 128,
            result: 4,
            lport: PORT,
            rport: self.server.rport,
            state: ESTABLISHED,
            witness: abi::witness::SYS_EXIT,
            flags: 0,
            sections: abi::section::V4,
            listener_port: PORT,
            padding: [0; 6],
        };
        let addrs = abi::Addrs4 {
            laddr: [127, 0, 0, 1],
            raddr: [127, 0, 0, 1],
        };
        let listener = abi::ListenerAddr(mapped);
        let task = task(10);
        let parts = [
            payload.as_bytes(),
            addrs.as_bytes(),
            listener.as_bytes(),
            task.as_bytes(),
        ];
        stream.write(abi::kind::ACCEPT, &parts);
    }

    fn close(&self, stream: &mut Stream) {
        let (client, server) = (self.client, self.server);
        let held = Circumstances::held();
        if self.is_reset {
            stream.change(client, ESTABLISHED, CLOSE, Circumstances::process(20));
            let reset = Circumstances {
                err: ECONNRESET,
                ..held
            };
            stream.change(server, ESTABLISHED, CLOSE, reset);
            return;
        }
        stream.change(client, ESTABLISHED, FIN_WAIT1, Circumstances::process(20));
        stream.change(server, ESTABLISHED, CLOSE_WAIT, held);
        stream.change(client, FIN_WAIT1, FIN_WAIT2, Circumstances::orphan());
        stream.change(server, CLOSE_WAIT, LAST_ACK, Circumstances::process(10));
        stream.change(client, FIN_WAIT2, CLOSE, Circumstances::orphan());
        stream.change(server, LAST_ACK, CLOSE, Circumstances::orphan());
    }
}

/// Properties of a change of state besides the states.
#[derive(Clone, Copy, Default)]
struct Circumstances {
    flags: u8,
    /// The process in whose context it happened; 0: unknown.
    pid: u32,
    err: u32,
    backlog_max: u32,
}

impl Circumstances {
    fn process(pid: u32) -> Circumstances {
        Circumstances {
            flags: abi::state_flag::OWNED | abi::state_flag::HELD,
            pid,
            ..Circumstances::default()
        }
    }

    fn held() -> Circumstances {
        Circumstances {
            flags: abi::state_flag::HELD,
            ..Circumstances::default()
        }
    }

    fn orphan() -> Circumstances {
        Circumstances {
            flags: abi::state_flag::ORPHANED | abi::state_flag::FIN_RECEIVED,
            ..Circumstances::default()
        }
    }

    fn queued() -> Circumstances {
        Circumstances {
            backlog_max: 128,
            ..Circumstances::default()
        }
    }
}

/// The kernel has its first round-trip estimate when the handshake is complete.
fn srtt_us(oldstate: u8) -> u32 {
    match oldstate {
        CLOSE | LISTEN | SYN_SENT => 0,
        _ => 8 * 27,
    }
}

fn task(pid: u32) -> abi::Task {
    abi::Task {
        pid,
        tid: pid,
        process: [0; 16],
        comm: match pid {
            10 => *b"server\0\0\0\0\0\0\0\0\0\0",
            _ => *b"client\0\0\0\0\0\0\0\0\0\0",
        },
    }
}

const STATS: abi::Stats = abi::Stats {
    bytes_acked: 19,
    bytes_received: 19,
    segs_in: 5,
    segs_out: 5,
    data_segs_in: 1,
    retransmits: 0,
    snd_cwnd: 10,
    unacked: 0,
    unread: 0,
    flags: 0,
};
