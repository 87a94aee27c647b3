//! A segment in the log, in a form like tcpdump's.

use std::io;

use super::paint::DIM;
use super::piece::Piece;
use super::words::{End, Who};
use super::{CONN, PROCESS, TUPLE, Text, WHAT};
use crate::event::Direction;
use crate::fields::Segment;

impl Text {
    /// Writes `→ S.  seq 0 ack 1 win 65483`.
    pub(super) fn segment(&mut self, x: &Segment) -> io::Result<()> {
        match x.subject.side {
            Some(_) => self.begin(x.mono_ns, &x.subject, x.subject.conn),
            // The client is unknown, so show the sender first.
            None => self.begin_unknown(x),
        }
        self.row.put(DIM, What(x));
        if x.subject.pid.is_some() {
            self.row.column(PROCESS).plain(Who(&x.subject));
        }
        if self.style.verbose {
            self.detail(("device ", x.ifindex, " on cpu ", x.cpu));
            self.identity(&x.subject);
        }
        self.end()
    }

    fn begin_unknown(&mut self, x: &Segment) {
        let own = End(Some(x.subject.laddr), x.subject.lport);
        let peer = End(x.subject.raddr, x.subject.rport);
        let (from, to) = match x.direction {
            Direction::Sent => (own, peer),
            Direction::Received => (peer, own),
        };
        self.time(x.mono_ns);
        self.row.column(CONN);
        match x.subject.conn {
            Some(conn) => self.row.plain(("#", conn)),
            None => self.row.plain("-"),
        };
        self.row.column(TUPLE).plain((from, " → ", to)).column(WHAT);
    }
}

/// The description of a segment. Sequence numbers are relative if the SYN was seen, as in tcpdump.
struct What<'a>(&'a Segment);

impl Piece for What<'_> {
    fn put(&self, to: &mut Vec<u8>) {
        let x = self.0;
        let arrow = match x.direction {
            Direction::Sent => "→ ",
            Direction::Received => "← ",
        };
        (arrow, format_args!("{:<3}", x.flags)).put(to);
        number(to, " seq ", x.rel_seq, x.seq);
        if let Some(ack) = x.ack {
            number(to, " ack ", x.rel_ack, ack);
        }
        (" win ", x.win).put(to);
        if x.len > 0 {
            (" len ", x.len).put(to);
        }
    }
}

fn number(to: &mut Vec<u8>, name: &'static str, relative: Option<u32>, absolute: u32) {
    match relative {
        Some(relative) => (name, relative).put(to),
        None => (name, absolute, " (absolute)").put(to),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::TcpFlags;
    use crate::fields::{Line, Subject};
    use crate::sink::samples;
    use crate::sink::text::{Style, Zone};

    fn written(segment: Segment) -> String {
        let style = Style {
            color: false,
            verbose: false,
            quiet: false,
            explain: false,
            zone: Zone::Utc,
        };
        samples::written(&Line::Segment(segment), |out| {
            Box::new(Text::new(out, samples::clock(), style))
        })
    }

    #[test]
    fn a_segment_of_a_connection_has_its_number_and_process() {
        assert_eq!(
            written(samples::segment()),
            "14:03:07.123456  #2    127.0.0.1:39709 → 127.0.0.1:7878   \
             ← S.  seq 0 ack 1 win 65483         nc[4712]\n"
        );
    }

    #[test]
    fn a_segment_without_a_connection_shows_the_sender_first() {
        let segment = Segment {
            subject: Subject {
                conn: None,
                side: None,
                ..samples::without_process(samples::server())
            },
            flags: TcpFlags(0x19),
            rel_seq: None,
            len: 18,
            ..samples::segment()
        };
        assert_eq!(
            written(segment),
            "14:03:07.123456  -     127.0.0.1:39709 → 127.0.0.1:7878   \
             ← FP. seq 4294967295 (absolute) ack 1 win 65483 len 18\n"
        );
    }
}
