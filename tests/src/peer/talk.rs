//! One connection, from the peer's end.

use std::time::Duration;

use super::{Between, Heard, Peer, Segment};
use crate::eventually;

/// The first sequence number of every conversation.
const FIRST: u32 = 1_000_000;

/// The peer's next segment, and the kernel's segments so far. The verbs send segments that are in
/// order and acknowledge all that was received. [`send`](Talk::send) sends any other.
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
    pub fn send(&self, segment: Segment) -> Between {
        self.peer.send(&segment)
    }

    /// Repeats the segment of the last verb.
    pub fn again(&self) -> Between {
        self.peer.send(&self.last)
    }

    fn say(&mut self, segment: Segment) -> Between {
        self.seq = segment.end();
        self.last = segment;
        self.again()
    }

    /// Sends a SYN without ACK: the first of three segments, or one that crosses the kernel's.
    pub fn syn(&mut self) -> Between {
        let segment = Segment {
            syn: true,
            ack: None,
            ..self.segment()
        };
        self.say(segment)
    }

    pub fn syn_ack(&mut self) -> Between {
        let segment = Segment {
            syn: true,
            ..self.segment()
        };
        self.say(segment)
    }

    pub fn ack(&mut self) -> Between {
        self.say(self.segment())
    }

    pub fn data(&mut self, data: &[u8]) -> Between {
        let segment = Segment {
            data: data.to_vec(),
            ..self.segment()
        };
        self.say(segment)
    }

    pub fn fin(&mut self) -> Between {
        self.fin_with(&[])
    }

    /// Sends the last data and a FIN in one segment.
    pub fn fin_with(&mut self, data: &[u8]) -> Between {
        let segment = Segment {
            fin: true,
            data: data.to_vec(),
            ..self.segment()
        };
        self.say(segment)
    }

    /// Sends a RST with exactly the sequence number that the kernel expects.
    pub fn rst(&mut self) -> Between {
        let segment = Segment {
            rst: true,
            ..self.segment()
        };
        self.say(segment)
    }
}

/// Methods that receive.
impl Talk<'_> {
    /// Waits for the kernel's next segment that satisfies `wanted`. Skips those before it.
    pub fn hear(&mut self, what: &str, wanted: impl Fn(&Segment) -> bool) -> Heard {
        let heard = eventually(what, || {
            let heard = self.peer.heard();
            let mut news = heard.into_iter().enumerate().skip(self.looked_at);
            let (index, found) =
                news.find(|(_, it)| self.is_ours(&it.segment) && wanted(&it.segment))?;
            self.looked_at = index + 1;
            Some(found)
        });
        let segment = &heard.segment;
        if segment.syn || self.ack == Some(segment.seq) {
            self.ack = Some(segment.end());
        }
        heard
    }

    /// Waits for a SYN without ACK.
    pub fn hear_syn(&mut self) -> Heard {
        self.hear("a SYN", |it| it.syn && it.ack.is_none())
    }

    pub fn hear_syn_ack(&mut self) -> Heard {
        let ack = Some(self.seq);
        self.hear("a SYN-ACK", |it| it.syn && it.ack == ack)
    }

    /// Waits for an ACK of everything sent, without anything else.
    pub fn hear_ack(&mut self) -> Heard {
        let ack = Some(self.seq);
        self.hear("an ACK", |it| it.is_empty() && !it.rst && it.ack == ack)
    }

    pub fn hear_data(&mut self) -> Heard {
        self.hear("data", |it| !it.data.is_empty())
    }

    pub fn hear_fin(&mut self) -> Heard {
        self.hear("a FIN", |it| it.fin)
    }

    pub fn hear_rst(&mut self) -> Heard {
        self.hear("a RST", |it| it.rst)
    }

    /// Asserts that the kernel sends nothing to this connection for this time.
    pub fn hear_nothing_for(&self, time: Duration) {
        let before = self.heard().len();
        std::thread::sleep(time);
        let news = &self.heard()[before..];
        assert!(news.is_empty(), "the kernel had to be silent: {news:?}");
    }

    /// Returns all segments that the kernel has sent so far between these ports.
    pub fn heard(&self) -> Vec<Heard> {
        let mut heard = self.peer.heard();
        heard.retain(|it| self.is_ours(&it.segment));
        heard
    }

    fn is_ours(&self, segment: &Segment) -> bool {
        (segment.from, segment.to) == (self.kernel, self.own)
    }
}
