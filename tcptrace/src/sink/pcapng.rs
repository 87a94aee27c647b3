//! Packets for Wireshark, made from segments: pcapng (draft-ietf-opsawg-pcapng), link type raw IP.
//!
//! tcptrace copies no packets. The headers are rebuilt from recorded fields: addresses, ports,
//! sequence numbers, flags and window are real. There are no options and no payload, and TTL,
//! identification and similar fields are invented. A packet's original length includes the payload.
//! The TCP checksum is correct if there was no payload; otherwise it is 0. A segment seen at both
//! ends becomes one packet, at the time of sending.
//!
//! A packet's comment names its connection, and the verdict if it is known within a second. Packets
//! are held back for that time, at most [`MOST_HELD`] of them.

mod block;
mod packet;

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, BufWriter, Write};

use self::block::Blocks;
use super::Sink;
use crate::clock::Clock;
use crate::event::{Direction, Hook};
use crate::fields::{Kind, Line, Segment, Session, Side, Subject, Verdict, Wanted};

/// How long a packet waits for its verdict, in nanoseconds of trace time.
const HOLD_NS: u64 = 1_000_000_000;
const MOST_HELD: usize = 4096;

/// Upper bound on connections whose verdict is remembered, for the comments of their later packets.
const MOST_VERDICTS: usize = 65_536;

/// A packet and its connection: the sender's, or the receiver's if the sender is not traced.
struct Held {
    segment: Segment,
    whose: Subject,
}

/// Writes packets.
pub struct Pcapng {
    blocks: Blocks<BufWriter<Box<dyn Write + Send>>>,
    clock: Clock,
    held: VecDeque<Held>,
    /// The last sent segments. The arrival of one of them does not become a separate packet.
    sent: VecDeque<Segment>,
    /// The verdict as a sentence, by `conn`.
    verdicts: BTreeMap<u64, String>,
    /// Interfaces of the file, by the namespace and the index of the network device.
    interfaces: BTreeMap<(u32, u32), u32>,
}

impl Pcapng {
    pub fn new(out: Box<dyn Write + Send>, clock: Clock) -> Pcapng {
        Pcapng {
            blocks: Blocks::new(BufWriter::new(out)),
            clock,
            held: VecDeque::new(),
            sent: VecDeque::new(),
            verdicts: BTreeMap::new(),
            interfaces: BTreeMap::new(),
        }
    }

    /// Begins the file.
    ///
    /// # Errors
    /// Kind `InvalidInput` if the trace has no segments. Otherwise the writer's own.
    fn session(&mut self, x: &Session) -> io::Result<()> {
        if !matches!(x.hooks.get(&Hook::Segment), Some(Some(_))) {
            let what = "this trace has no segments, and packets are made from segments: record it with \
                          --segments";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        self.blocks.section(
            &format!("tcptrace {}", x.version),
            &format!("Linux {}", x.kernel),
        )
    }

    fn segment(&mut self, x: &Segment) {
        match x.direction {
            Direction::Sent => {
                if self.sent.len() == MOST_HELD {
                    self.sent.pop_front();
                }
                self.sent.push_back(x.clone());
            }
            Direction::Received => {
                // Match the latest copy that has not arrived: earlier ones may have been lost.
                let same = self.sent.iter().rposition(|sent| is_same(sent, x));
                if let Some(sent) = same.and_then(|at| self.sent.remove(at)) {
                    self.arrived(&sent, x);
                    return;
                }
            }
        }
        self.held.push_back(Held {
            segment: x.clone(),
            whose: x.subject.clone(),
        });
    }

    /// Adds the receiver's connection to a held packet. The sender may not have a `conn` yet, as
    /// with a SYN-ACK.
    fn arrived(&mut self, sent: &Segment, came: &Segment) {
        let held = self.held.iter_mut().rev().find(|it| it.segment == *sent);
        if let Some(held) = held
            && held.whose.conn.is_none()
        {
            held.whose = came.subject.clone();
        }
    }

    /// Remembers a verdict. A later line replaces it.
    fn verdict(&mut self, conns: [Option<u64>; 2], verdict: Option<Verdict>, reason: Option<&str>) {
        let (Some(verdict), Some(reason)) = (verdict, reason) else {
            return;
        };
        for conn in conns.into_iter().flatten() {
            let text = format!("{}: {reason}", verdict.name());
            self.verdicts.insert(conn, text);
        }
        while self.verdicts.len() > MOST_VERDICTS {
            self.verdicts.pop_first();
        }
    }

    /// Writes the packets that have waited long enough, in order.
    fn release(&mut self, now_ns: u64) -> io::Result<()> {
        while let Some(next) = self.held.front() {
            let known = match next.whose.conn {
                Some(conn) => self.verdicts.contains_key(&conn),
                // The segment's arrival may still provide the `conn`.
                None => false,
            };
            let old = now_ns.saturating_sub(next.segment.mono_ns) >= HOLD_NS;
            if !known && !old && self.held.len() <= MOST_HELD {
                break;
            }
            if let Some(held) = self.held.pop_front() {
                self.write(&held)?;
            }
        }
        Ok(())
    }

    fn write(&mut self, Held { segment: x, whose }: &Held) -> io::Result<()> {
        let device = (x.subject.netns, x.ifindex);
        let interface = match self.interfaces.get(&device) {
            Some(&known) => known,
            None => {
                let (netns, index) = device;
                let name = format!("device {index} of net:[{netns}]");
                let new = self.interfaces.len() as u32;
                self.blocks.interface(&name)?;
                self.interfaces.insert(device, new);
                new
            }
        };
        let Some(headers) = packet::headers(x) else {
            return Ok(());
        };
        let length = (headers.len() as u32).saturating_add(x.len);
        let comment = self.comment(whose);
        self.blocks.packet(
            interface,
            self.clock.wall_ns(x.mono_ns),
            &headers,
            length,
            x.direction,
            comment.as_deref(),
        )
    }

    /// Returns the comment of a packet: `tcptrace #3 server, nc[4711]; queued: the kernel finished
    /// …`
    fn comment(&self, x: &Subject) -> Option<String> {
        let conn = x.conn?;
        let side = match x.side {
            Some(Side::Client) => " client",
            Some(Side::Server) => " server",
            Some(Side::Listener) | None => "",
        };
        let mut text = format!("tcptrace #{conn}{side}");
        if let (Some(comm), Some(pid)) = (x.comm, x.pid) {
            text.push_str(&format!(", {comm}[{pid}]"));
        }
        if let Some(verdict) = self.verdicts.get(&conn) {
            text.push_str(&format!("; {verdict}"));
        }
        Some(text)
    }
}

/// Returns true if `came` is the arrival of `sent`.
fn is_same(sent: &Segment, came: &Segment) -> bool {
    let numbers = |it: &Segment| (it.flags, it.seq, it.ack, it.len);
    let (from, to) = (&sent.subject, &came.subject);
    numbers(sent) == numbers(came)
        && (Some(from.laddr), from.lport) == (to.raddr, to.rport)
        && (from.raddr, from.rport) == (Some(to.laddr), to.lport)
}

impl Sink for Pcapng {
    fn line(&mut self, line: &Line) -> io::Result<()> {
        match line {
            Line::Session(x) => self.session(x)?,
            Line::Segment(x) => self.segment(x),
            Line::Accept(x) => {
                self.verdict(
                    [x.subject.conn, x.peer_conn],
                    x.verdict,
                    x.reason.as_deref(),
                );
            }
            Line::Connection(x) => {
                self.verdict(
                    [x.subject.conn, x.peer_conn],
                    x.verdict,
                    x.reason.as_deref(),
                );
            }
            Line::Summary(_) => return self.release(u64::MAX),
            _ => {}
        }
        self.release(line.mono_ns())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.blocks.flush()
    }

    fn wants(&self) -> Wanted {
        use Kind::{Accept, Connection, Session, Summary};
        let kinds = [Session, Kind::Segment, Accept, Connection, Summary];
        kinds.into_iter().collect::<Wanted>() | Wanted::WORDS
    }
}
