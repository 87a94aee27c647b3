//! One connection, from the peer's end.

use std::time::Duration;

use super::{Peer, Received, Segment, SendTimes};
use crate::eventually;

/// The peer's initial sequence number in every conversation.
const FIRST: u32 = 1_000_000;

/// The peer's end of a connection: the numbers of the peer's next segment, and the kernel's
/// segments so far. Methods such as [`syn`](Talk::syn) send segments that are in order and
/// acknowledge all that was received. [`send`](Talk::send) sends any other.
///
/// Only the script makes the peer send. Segments for which it does not wait are skipped.
pub struct Talk<'a> {
    peer: &'a Peer,
    own: u16,
    kernel: u16,
    /// The peer's next sequence number.
    pub seq: u32,
    /// The next sequence number of the kernel; `None` before its first segment.
    pub ack: Option<u32>,
    /// The receive window that the peer advertises.
    pub window: u16,
    last: Segment,
    /// How many of the kernel's segments, to any port, were examined.
    looked_at: usize,
}

impl<'a> Talk<'a> {
    pub(super) fn new(peer: &'a Peer, own: u16, kernel: u16) -> Talk<'a> {
        Talk {
            peer,
            own,
            kernel,
            seq: FIRST,
            ack: None,
            window: u16::MAX,
            last: Segment::default(),
            looked_at: 0,
        }
    }
}

impl Talk<'_> {
    /// The peer's port.
    pub fn own(&self) -> u16 {
        self.own
    }
}

/// Methods that send. Each returns the times before and after.
impl Talk<'_> {
    /// Returns an ACK of everything received, as a base for other segments.
    pub fn segment(&self) -> Segment {
        Segment {
            from: self.own,
            to: self.kernel,
            seq: self.seq,
            ack: self.ack,
            window: self.window,
            ..Segment::default()
        }
    }

    /// Sends any segment without advancing the sequence numbers.
    pub fn send(&self, segment: Segment) -> SendTimes {
        self.peer.send(&segment)
    }

    /// Repeats the last segment that was sent in order.
    pub fn again(&self) -> SendTimes {
        self.peer.send(&self.last)
    }

    fn send_next(&mut self, segment: Segment) -> SendTimes {
        self.seq = segment.end();
        self.last = segment;
        self.again()
    }

    /// Sends a SYN without ACK: the first segment of a handshake, or a SYN that crosses the
    /// kernel's SYN.
    pub fn syn(&mut self) -> SendTimes {
        let segment = Segment {
            syn: true,
            ack: None,
            ..self.segment()
        };
        self.send_next(segment)
    }

    pub fn syn_ack(&mut self) -> SendTimes {
        let segment = Segment {
            syn: true,
            ..self.segment()
        };
        self.send_next(segment)
    }

    pub fn ack(&mut self) -> SendTimes {
        self.send_next(self.segment())
    }

    pub fn data(&mut self, data: &[u8]) -> SendTimes {
        let segment = Segment {
            data: data.to_vec(),
            ..self.segment()
        };
        self.send_next(segment)
    }

    pub fn fin(&mut self) -> SendTimes {
        self.fin_with(&[])
    }

    /// Sends the last data and a FIN in one segment.
    pub fn fin_with(&mut self, data: &[u8]) -> SendTimes {
        let segment = Segment {
            fin: true,
            data: data.to_vec(),
            ..self.segment()
        };
        self.send_next(segment)
    }

    /// Sends a RST with exactly the sequence number that the kernel expects.
    pub fn rst(&mut self) -> SendTimes {
        let segment = Segment {
            rst: true,
            ..self.segment()
        };
        self.send_next(segment)
    }
}

/// Methods that receive.
impl Talk<'_> {
    /// Waits for the kernel's next segment that satisfies `wanted`. Skips those before it.
    pub fn receive(&mut self, what: &str, wanted: impl Fn(&Segment) -> bool) -> Received {
        let received = eventually(what, || {
            let received = self.peer.received();
            let mut news = received.into_iter().enumerate().skip(self.looked_at);
            let (index, found) =
                news.find(|(_, it)| self.is_ours(&it.segment) && wanted(&it.segment))?;
            self.looked_at = index + 1;
            Some(found)
        });
        let segment = &received.segment;
        if segment.syn || self.ack == Some(segment.seq) {
            self.ack = Some(segment.end());
        }
        received
    }

    /// Waits for a SYN without ACK.
    pub fn receive_syn(&mut self) -> Received {
        self.receive("a SYN", |it| it.syn && it.ack.is_none())
    }

    pub fn receive_syn_ack(&mut self) -> Received {
        let ack = Some(self.seq);
        self.receive("a SYN-ACK", |it| it.syn && it.ack == ack)
    }

    /// Waits for a segment that acknowledges everything that the peer has sent, and has no data,
    /// SYN, FIN or RST.
    pub fn receive_ack(&mut self) -> Received {
        let ack = Some(self.seq);
        self.receive("an ACK", |it| it.is_empty() && !it.rst && it.ack == ack)
    }

    pub fn receive_data(&mut self) -> Received {
        self.receive("data", |it| !it.data.is_empty())
    }

    pub fn receive_fin(&mut self) -> Received {
        self.receive("a FIN", |it| it.fin)
    }

    pub fn receive_rst(&mut self) -> Received {
        self.receive("a RST", |it| it.rst)
    }

    /// Asserts that the kernel sends nothing to this connection for this time.
    pub fn receive_nothing_for(&self, time: Duration) {
        let before = self.received().len();
        std::thread::sleep(time);
        let news = &self.received()[before..];
        assert!(news.is_empty(), "the kernel sent: {news:?}");
    }

    /// Returns all segments that the kernel has sent so far between these ports.
    pub fn received(&self) -> Vec<Received> {
        let mut received = self.peer.received();
        received.retain(|it| self.is_ours(&it.segment));
        received
    }

    fn is_ours(&self, segment: &Segment) -> bool {
        (segment.from, segment.to) == (self.kernel, self.own)
    }
}
