//! Records of every kind, from few bytes: few sockets, addresses and ports, so that they collide.

use arbitrary::{Result, Unstructured};
use tcptrace_core::decode;
use tcptrace_core::event::Sk;
use tcptrace_ebpf::abi;
use zerocopy::IntoBytes;

pub const NETNS: [u32; 2] = [4_026_531_840, 4_026_532_000];

pub const DELAYS_NS: [u64; 8] = [
    0,
    1_000,
    30_000,
    1_500_000,
    7_000_000,
    1_000_000_000,
    70_000_000_000,
    700_000_000_000,
];

/// Returns the address of one of six sockets.
pub fn sk(n: u8) -> Sk {
    Sk(0xffff_8880_0000_1000 + 0x1000 * u64::from(n % 6))
}

fn address_or_none(n: u8) -> u64 {
    if n % 8 == 7 { 0 } else { sk(n).0 }
}

fn stack(n: u8) -> abi::Stack {
    let mut stack = abi::Stack {
        kernel: [0; abi::KERNEL_FRAMES],
        user: [0; abi::USER_FRAMES],
    };
    stack.kernel[0] = 0xffff_ffff_8100_0000 + u64::from(n % 3);
    stack.user[0] = u64::from(n % 2);
    stack
}

/// Returns the key of one of the stacks of [`record`].
pub fn stack_key(n: u8) -> u64 {
    decode::stack_key(u32::from(n >> 2 & 3), &stack(n)).0
}

/// Makes a record of a kind that the next bytes choose.
pub fn record(u: &mut Unstructured<'_>, mono_ns: u64, lost: u32) -> Result<Vec<u8>> {
    let kinds = [
        abi::kind::SET_STATE,
        abi::kind::SET_STATE,
        abi::kind::SET_STATE,
        abi::kind::SET_STATE,
        abi::kind::SET_STATE,
        abi::kind::ACCEPT,
        abi::kind::ACCEPT,
        abi::kind::ACCEPT,
        abi::kind::REQUEST,
        abi::kind::REQUEST,
        abi::kind::SCHED,
        abi::kind::SCHED,
        abi::kind::SEGMENT,
        abi::kind::SEGMENT,
        abi::kind::TIMEWAIT,
        abi::kind::TIMEWAIT,
        abi::kind::SOCKET,
        abi::kind::SOCKET,
        abi::kind::OVERFLOW,
        abi::kind::RESET,
        abi::kind::RETRANSMIT,
        abi::kind::PROCESS,
        abi::kind::HOLDER,
    ];
    let choice: u8 = u.arbitrary()?;
    let kind = kinds[usize::from(choice) % kinds.len()];
    let header = abi::Header {
        mono_ns,
        lost,
        cpu: u16::from(choice >> 7),
        kind,
        version: abi::VERSION,
    };
    let mut record = header.as_bytes().to_vec();
    let mut source = Source { u };
    source.payload(kind, mono_ns, &mut record)?;
    Ok(record)
}

struct Source<'a, 'b> {
    u: &'a mut Unstructured<'b>,
}

/// The addresses and the ports of a socket, and its network namespace.
struct Ends {
    v4: bool,
    addrs: [u8; 2],
    lport: u16,
    rport: u16,
    netns: u32,
}

impl Source<'_, '_> {
    fn byte(&mut self) -> Result<u8> {
        self.u.arbitrary()
    }

    /// Returns a small number, seldom a large one.
    fn number(&mut self) -> Result<u32> {
        Ok(match self.byte()? {
            n @ 0..=239 => u32::from(n % 5),
            240..=249 => u32::from(self.u.arbitrary::<u16>()?),
            _ => self.u.arbitrary()?,
        })
    }

    fn large(&mut self) -> Result<u64> {
        Ok(match self.byte()? {
            n @ 0..=247 => u64::from(n % 5),
            _ => self.u.arbitrary()?,
        })
    }

    /// Returns the number of a state that the kernel has, seldom any number.
    fn state(&mut self) -> Result<u8> {
        Ok(match self.byte()? {
            255 => self.byte()?,
            n => n % 13 + 1,
        })
    }

    fn ends(&mut self) -> Result<Ends> {
        let n = self.byte()?;
        let ports = [7878, 40_000, 40_001, 0];
        let swap = n & 16 != 0;
        let (a, b) = (ports[usize::from(n & 3)], ports[usize::from(n >> 2 & 3)]);
        Ok(Ends {
            v4: n & 32 == 0,
            addrs: [n >> 6 & 1, n >> 7],
            lport: if swap { b } else { a },
            rport: if swap { a } else { b },
            netns: NETNS[usize::from(n == 255)],
        })
    }

    fn addrs(&mut self, ends: &Ends, record: &mut Vec<u8>) {
        let v4 = [[127, 0, 0, 1], [0, 0, 0, 0]];
        let [laddr, raddr] = ends.addrs.map(usize::from);
        if ends.v4 {
            let (laddr, raddr) = (v4[laddr], v4[raddr]);
            record.extend_from_slice(abi::Addrs4 { laddr, raddr }.as_bytes());
        } else {
            record.extend_from_slice(ends.addrs6().as_bytes());
        }
    }

    fn task(&mut self, record: &mut Vec<u8>) -> Result<()> {
        let task = super::task(self.byte()?);
        let name = |comm: &[u8]| {
            let mut name = [0; 16];
            name[..comm.len()].copy_from_slice(comm);
            name
        };
        let task = abi::Task {
            pid: task.pid,
            tid: task.tid,
            comm: name(task.comm.bytes()),
            process: name(
                task.process()
                    .map_or(&[][..], |it| &b"abcdefghijklmno"[..it.bytes().len()]),
            ),
        };
        record.extend_from_slice(task.as_bytes());
        Ok(())
    }

    fn payload(&mut self, kind: u8, mono_ns: u64, record: &mut Vec<u8>) -> Result<()> {
        match kind {
            abi::kind::SET_STATE => self.set_state(record),
            abi::kind::ACCEPT => self.accept(mono_ns, record),
            abi::kind::REQUEST => self.request(mono_ns, record),
            abi::kind::SCHED => self.sched(record),
            abi::kind::SEGMENT => self.segment(record),
            abi::kind::TIMEWAIT => self.timewait(record),
            abi::kind::SOCKET => self.socket(record),
            abi::kind::OVERFLOW => self.overflow(record),
            abi::kind::RESET => self.reset(record),
            abi::kind::RETRANSMIT => self.retransmit(record),
            abi::kind::PROCESS => {
                let [pid, step] = [self.byte()?, self.byte()?];
                let payload = abi::Process {
                    pid: u32::from(pid % 5),
                    step: step % 3,
                    reserved: [0; 3],
                    comm: *b"renamed\0\0\0\0\0\0\0\0\0",
                };
                record.extend_from_slice(payload.as_bytes());
                Ok(())
            }
            _ => {
                record.push(self.byte()?);
                Ok(())
            }
        }
    }

    fn set_state(&mut self, record: &mut Vec<u8>) -> Result<()> {
        // The usual changes are more frequent than the others.
        const USUAL: [(u8, u8); 16] = [
            (7, 10),
            (10, 3),
            (3, 1),
            (7, 2),
            (2, 1),
            (1, 4),
            (4, 5),
            (1, 8),
            (8, 9),
            (9, 7),
            (5, 7),
            (1, 7),
            (10, 7),
            (2, 7),
            (3, 7),
            (4, 11),
        ];
        let [n, flags, more] = [self.byte()?, self.byte()?, self.byte()?];
        let (oldstate, newstate) = match n {
            0..=239 => USUAL[usize::from(n % 16)],
            _ => (self.state()?, self.state()?),
        };
        let ends = self.ends()?;
        let sk = sk(more);
        let is_birth = (oldstate, newstate) == (10, 3);
        let mut sections = u8::from(ends.v4);
        if more & 64 != 0 {
            sections |= abi::section::TASK;
        }
        if newstate == 7 || more & 128 != 0 {
            sections |= abi::section::STATS;
        }
        if (oldstate, newstate) == (7, 10) {
            sections |= abi::section::LISTEN;
        }
        let payload = abi::SetState {
            sk: sk.0,
            cookie: if is_birth {
                address_or_none(self.byte()?)
            } else {
                self.large()?
            },
            cgroup: u64::from(more >> 3 & 1),
            netns: ends.netns,
            backlog_len: self.number()?,
            backlog_max: self.number()?,
            err: if more & 32 != 0 {
                [104, 110, 32, 111][usize::from(flags & 3)]
            } else {
                0
            },
            srtt_us: self.number()?,
            uid: u32::from(more >> 4 & 1),
            lport: ends.lport,
            rport: ends.rport,
            oldstate,
            newstate,
            flags,
            sections,
        };
        record.extend_from_slice(payload.as_bytes());
        self.addrs(&ends, record);
        if sections & abi::section::TASK != 0 {
            self.task(record)?;
        }
        if sections & abi::section::STATS != 0 {
            let stats = abi::Stats {
                bytes_acked: self.large()?,
                bytes_received: self.large()?,
                segs_in: self.number()?,
                segs_out: self.number()?,
                data_segs_in: self.number()?,
                retransmits: self.number()?,
                snd_cwnd: self.number()?,
                unacked: self.number()?,
                unread: self.number()?,
                flags: u32::from(self.byte()? & 15) | u32::from(self.byte()? % 6) << 8,
            };
            record.extend_from_slice(stats.as_bytes());
        }
        if sections & abi::section::LISTEN != 0 {
            let listen = abi::Listen {
                backlog: self.number()?.cast_signed(),
                is_known: self.number()? & 1,
                somaxconn: self.number()?,
                reserved: 0,
            };
            record.extend_from_slice(listen.as_bytes());
        }
        Ok(())
    }

    fn accept(&mut self, mono_ns: u64, record: &mut Vec<u8>) -> Result<()> {
        let [n, m, form] = [self.byte()?, self.byte()?, self.byte()?];
        let ends = self.ends()?;
        let failed = form & 7 == 7;
        let payload = abi::Accept {
            sk: if failed { 0 } else { sk(n).0 },
            listener: address_or_none(m),
            cookie: 0,
            called_ns: match form >> 3 & 3 {
                0 => 0,
                n => mono_ns.saturating_sub(DELAYS_NS[usize::from(n)]),
            },
            netns: ends.netns,
            backlog_len: self.number()?,
            backlog_max: self.number()?,
            result: if failed { -11 } else { 5 },
            lport: ends.lport,
            rport: ends.rport,
            state: self.state()?,
            witness: match n >> 5 {
                0 => self.byte()?,
                n => n % 4 + 1,
            },
            flags: m >> 5,
            sections: u8::from(ends.v4),
            listener_port: [7878, 0][usize::from(form >> 7)],
            padding: [0; 6],
        };
        record.extend_from_slice(payload.as_bytes());
        self.addrs(&ends, record);
        let mut listener = [0; 16];
        listener[10..].copy_from_slice(&[0xff, 0xff, 127, 0, 0, 1]);
        record.extend_from_slice(abi::ListenerAddr(listener).as_bytes());
        self.task(record)
    }

    fn request(&mut self, mono_ns: u64, record: &mut Vec<u8>) -> Result<()> {
        let [n, m, step] = [self.byte()?, self.byte()?, self.byte()?];
        let ends = self.ends()?;
        let payload = abi::Request {
            req: 0xffff_8880_0010_0000 + u64::from(n % 4) * 0x200,
            sk: sk(m).0,
            synack_us: match n >> 4 {
                0 => 0,
                1 => self.large()?,
                n => (mono_ns / 1_000).saturating_sub(u64::from(n)),
            },
            netns: ends.netns,
            syn_queue_len: self.number()?,
            isn: self.number()?,
            reserved: 0,
            lport: ends.lport,
            rport: ends.rport,
            step: step % 7,
            retransmits: step >> 4,
            flags: m >> 4,
            sections: u8::from(ends.v4),
        };
        record.extend_from_slice(payload.as_bytes());
        self.addrs(&ends, record);
        Ok(())
    }

    fn sched(&mut self, record: &mut Vec<u8>) -> Result<()> {
        let [n, form, state] = [self.byte()?, self.byte()?, self.byte()?];
        let mut payload = abi::Sched::of(u32::from(n % 4) + 1, u32::from(n >> 2 & 3));
        payload.step = form % 6;
        payload.listener = match payload.step {
            abi::sched_step::ENROLLED => address_or_none(state),
            _ => 0,
        };
        payload.state = match state & 15 {
            0..=11 => u32::from(state & 15 & 3),
            _ => 1 << (state >> 4),
        };
        payload.syscall = match form >> 4 & 3 {
            0 => abi::NO_SYSCALL,
            1 => abi::UNKNOWN_SYSCALL,
            2 => i32::from(state),
            _ => 202,
        };
        payload.sections = form >> 6;
        payload.flags = n >> 4;
        record.extend_from_slice(payload.as_bytes());
        if payload.sections & abi::sched_section::TASK != 0 {
            self.task(record)?;
        }
        if payload.sections & abi::sched_section::STACK != 0 {
            record.extend_from_slice(stack(n).as_bytes());
        }
        Ok(())
    }

    fn segment(&mut self, record: &mut Vec<u8>) -> Result<()> {
        let [n, flags, form] = [self.byte()?, self.byte()?, self.byte()?];
        let ends = self.ends()?;
        let payload = abi::Segment {
            sk: address_or_none(n),
            netns: ends.netns,
            ifindex: u32::from(form & 1),
            seq: self.number()?,
            ack: self.number()?,
            len: self.number()?,
            lport: ends.lport,
            rport: ends.rport,
            window: u16::from(form),
            flags,
            direction: if n == 255 { 3 } else { form >> 1 & 1 } + 1,
            sk_state: self.state()?,
            sections: u8::from(ends.v4),
            reserved: 0,
        };
        record.extend_from_slice(payload.as_bytes());
        self.addrs(&ends, record);
        Ok(())
    }

    fn timewait(&mut self, record: &mut Vec<u8>) -> Result<()> {
        let [n, step, m] = [self.byte()?, self.byte()?, self.byte()?];
        let ends = self.ends()?;
        let payload = abi::Timewait {
            tw: 0xffff_8880_0020_0000 + u64::from(n % 4) * 0x200,
            sk: address_or_none(m),
            cookie: 0,
            netns: ends.netns,
            lport: ends.lport,
            rport: ends.rport,
            step: step % 7,
            substate: if n & 128 != 0 {
                self.state()?
            } else {
                5 + (n >> 2 & 1)
            },
            segment: step,
            sections: u8::from(ends.v4),
            reserved: 0,
        };
        record.extend_from_slice(payload.as_bytes());
        self.addrs(&ends, record);
        Ok(())
    }

    fn socket(&mut self, record: &mut Vec<u8>) -> Result<()> {
        let [n, m] = [self.byte()?, self.byte()?];
        let ends = self.ends()?;
        let payload = abi::Socket {
            sk: sk(n).0,
            cookie: self.large()?,
            cgroup: u64::from(m & 1),
            inode: u64::from(m >> 1 & 3),
            netns: ends.netns,
            uid: 0,
            backlog_len: self.number()?,
            backlog_max: self.number()?,
            lport: ends.lport,
            rport: ends.rport,
            state: self.state()?,
            substate: 5 + (m >> 3 & 1),
            flags: m >> 4,
            reserved: 0,
        };
        record.extend_from_slice(payload.as_bytes());
        record.extend_from_slice(ends.addrs6().as_bytes());
        Ok(())
    }

    fn overflow(&mut self, record: &mut Vec<u8>) -> Result<()> {
        let [n, flags] = [self.byte()?, self.byte()?];
        let ends = self.ends()?;
        let payload = abi::Overflow {
            listener: sk(n).0,
            req: address_or_none(n >> 4),
            netns: ends.netns,
            backlog_len: self.number()?,
            backlog_max: self.number()?,
            lport: ends.lport,
            rport: ends.rport,
            isn: self.number()?,
            flags,
            sections: u8::from(ends.v4),
            reserved: 0,
        };
        record.extend_from_slice(payload.as_bytes());
        self.addrs(&ends, record);
        Ok(())
    }

    fn reset(&mut self, record: &mut Vec<u8>) -> Result<()> {
        let [n, form] = [self.byte()?, self.byte()?];
        let ends = self.ends()?;
        let payload = abi::Reset {
            sk: address_or_none(n),
            cookie: 0,
            netns: if form & 2 == 0 { ends.netns } else { 0 },
            reason: if form & 4 == 0 {
                abi::NO_REASON
            } else {
                u32::from(form)
            },
            lport: ends.lport,
            rport: ends.rport,
            state: self.state()?,
            sent: form & 1,
            sections: u8::from(ends.v4),
            reserved: 0,
        };
        record.extend_from_slice(payload.as_bytes());
        self.addrs(&ends, record);
        Ok(())
    }

    fn retransmit(&mut self, record: &mut Vec<u8>) -> Result<()> {
        let [n, tcp_flags] = [self.byte()?, self.byte()?];
        let ends = self.ends()?;
        let payload = abi::Retransmit {
            sk: sk(n).0,
            cookie: 0,
            netns: ends.netns,
            retransmits: self.number()?,
            lport: ends.lport,
            rport: ends.rport,
            state: self.state()?,
            tcp_flags,
            sections: u8::from(ends.v4),
            reserved: 0,
        };
        record.extend_from_slice(payload.as_bytes());
        self.addrs(&ends, record);
        Ok(())
    }
}

impl Ends {
    /// Returns the addresses as IPv6; IPv4 addresses are IPv4-mapped.
    fn addrs6(&self) -> abi::Addrs6 {
        let address = |n: u8| {
            let mut bytes = [0; 16];
            match (self.v4, n) {
                (true, n) => bytes[10..].copy_from_slice(&[0xff, 0xff, 127 * (1 - n), 0, 0, 1 - n]),
                (false, 0) => bytes[15] = 1,
                // A link-local address with the index of a device.
                (false, _) if self.rport == 40_001 => {
                    let upper = abi::link_local::MARKED | 3;
                    bytes[..8].copy_from_slice(&upper.to_be_bytes());
                }
                (false, _) => {}
            }
            bytes
        };
        let [laddr, raddr] = self.addrs.map(address);
        abi::Addrs6 { laddr, raddr }
    }
}

#[test]
fn every_kind_of_event_is_made() {
    use std::collections::BTreeSet;
    use zerocopy::FromBytes;
    let mut kinds = BTreeSet::new();
    let mut seed = 1u64;
    for _ in 0..2_000 {
        let bytes: Vec<u8> = (0..200)
            .map(|_| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (seed >> 33) as u8
            })
            .collect();
        let record = record(&mut Unstructured::new(&bytes), 1, 0).unwrap();
        let (header, _) = abi::Header::read_from_prefix(&record).unwrap();
        if decode::decode(&record).is_ok() {
            kinds.insert(header.kind);
        }
    }
    // All but the descriptors, which are not records of a trace.
    assert_eq!(
        kinds.into_iter().collect::<Vec<_>>(),
        [1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12]
    );
}
