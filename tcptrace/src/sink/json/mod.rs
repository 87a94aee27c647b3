//! JSON Lines: one flat object a line. The names are a contract, see [`crate::fields`].

mod writer;

use std::io::{self, Write};

use serde::Serialize;

use self::writer::Writer;
use super::Sink;
use super::lines::Lines;
use super::stamp::Stamp;
use crate::clock::Clock;
use crate::fields::{Line, Stamped};

/// Writes JSON Lines.
pub struct Json {
    lines: Lines,
    clock: Clock,
    stamp: Stamp,
}

impl Json {
    pub fn new(out: Box<dyn Write + Send>, clock: Clock) -> Json {
        Json {
            lines: Lines::new(out),
            clock,
            stamp: Stamp::default(),
        }
    }

    fn write(&mut self, event: &str, mono_ns: u64, line: &impl Serialize) -> io::Result<()> {
        let ts = self.stamp.of(self.clock.wall_ns(mono_ns));
        Stamped { event, ts, line }.serialize(Writer::new(&mut self.lines.text))?;
        self.lines.end()
    }
}

impl Sink for Json {
    fn line(&mut self, line: &Line) -> io::Result<()> {
        let mono_ns = line.mono_ns();
        match line {
            Line::Session(x) => self.write("session", mono_ns, x),
            Line::Preexisting(x) => self.write("preexisting", mono_ns, x),
            Line::Transition(x) => self.write("transition", mono_ns, x),
            Line::Accept(x) => self.write("accept", mono_ns, x),
            Line::Overflow(x) => self.write("overflow", mono_ns, x),
            Line::Segment(x) => self.write("segment", mono_ns, x),
            Line::Connection(x) => self.write("connection", mono_ns, x),
            Line::Retransmit(x) => self.write("retransmit", mono_ns, x),
            Line::Reset(x) => self.write("reset", mono_ns, x),
            Line::TimeWait(x) => self.write("time_wait", mono_ns, x),
            Line::Histogram(x) => self.write("histogram", mono_ns, x),
            Line::Lost(x) => self.write("lost", mono_ns, x),
            Line::Summary(x) => self.write("summary", mono_ns, x),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.lines.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Comm;
    use crate::printable::is_printable;
    use crate::sink::samples;

    fn json(line: Line) -> String {
        samples::written(&line, |out| Box::new(Json::new(out, samples::clock())))
    }

    #[test]
    fn transition() {
        let line = json(Line::Transition(samples::transition()));
        assert_eq!(
            line,
            concat!(
                r#"{"event":"transition","ts":"2026-03-01T14:03:07.123456789Z","#,
                r#""mono_ns":5123456789,"conn":3,"side":"server","family":4,"#,
                r#""laddr":"127.0.0.1","lport":7878,"raddr":"127.0.0.1","rport":39709,"scope_id":null,"#,
                r#""netns":4026531840,"cookie":17,"uid":1000,"cgroup":25,"container":null,"#,
                r#""pid":4711,"tid":4711,"comm":"server","process":"server","#,
                r#""pid_source":"presumed","oldstate":"SYN_RECV","newstate":"ESTABLISHED","#,
                r#""in_state_ns":23100,"context":"softirq","cpu":1,"synthetic":false,"source":"tracepoint","#,
                r#""cause":"ack_received","function":"tcp_rcv_state_process","rfc9293":"3.10.7.4","#,
                r#""bucket":null,"error":null,"listener":1,"backlog_max":null,"backlog_asked":null,"#,
                r#""somaxconn":null,"backlog_clipped":null}"#,
                "\n"
            )
        );
    }

    #[test]
    fn listener_on_ipv6() {
        let line = json(Line::Transition(samples::listen()));
        let expect = concat!(
            r#""conn":1,"side":"listener","family":6,"laddr":"::","lport":7878,"#,
            r#""raddr":null,"rport":null"#
        );
        assert!(line.contains(expect), "{line}");
    }

    #[test]
    fn unknown_is_null() {
        let mut accept = samples::accept();
        accept.subject = samples::nobody(accept.subject);
        accept.called_mono_ns = None;
        accept.accept_queue_ns = None;
        let line = json(Line::Accept(accept));
        for name in ["pid", "tid", "comm", "called_mono_ns", "accept_queue_ns"] {
            assert!(line.contains(&format!("\"{name}\":null")), "{name}: {line}");
        }
    }

    #[test]
    fn hostile_name_is_escaped_and_reads_back() {
        for name in [
            "\x1b[31m",
            "\u{9b}31m",
            "\u{202e}moc",
            "a\"\\\n",
            "\u{e0001}",
            "\u{3164}\u{1160}",
        ] {
            let mut transition = samples::transition();
            transition.subject.comm = Some(Comm::from(name));
            let line = json(Line::Transition(transition));
            let printed = line.trim_end_matches('\n');
            assert!(!printed.contains(char::is_control), "{printed:?}");
            assert!(printed.chars().all(is_printable), "{printed:?}");
            let value: serde_json::Value = serde_json::from_str(&line).unwrap();
            assert_eq!(value["comm"], name);
        }
    }

    #[test]
    fn one_line_each() {
        for line in samples::all() {
            let text = json(line);
            assert_eq!(text.matches('\n').count(), 1);
            assert!(text.starts_with(r#"{"event":""#) && text.ends_with("}\n"));
        }
    }
}
