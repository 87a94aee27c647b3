//! JSON Lines output: one flat object for each line. The names are a contract, see
//! [`crate::fields`]. [`keys`] decides which of them a line has.

pub mod keys;
mod writer;

use std::io::{self, Write};

use serde::Serialize;

use self::writer::Writer;
use super::Sink;
use super::lines::Lines;
use super::stamp::Stamp;
use crate::clock::Clock;
use crate::fields::{Line, Stamped, Wanted};

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

    /// Writes a line with all its fields.
    fn write_all(&mut self, line: &Line) -> io::Result<()> {
        let ts = self.stamp.of(self.clock.wall_ns(line.mono_ns()));
        let event = line.event();
        Stamped { event, ts, line }.serialize(Writer::new(&mut self.lines.text))?;
        self.lines.end()
    }

    /// Writes `event`, `ts` and the keys of a line.
    #[inline(always)]
    fn write<T>(
        &mut self,
        start: &str,
        mono_ns: u64,
        line: &T,
        keys: impl FnOnce(&mut Vec<u8>, &T) -> serde_json::Result<()>,
    ) -> io::Result<()> {
        let text = &mut self.lines.text;
        text.extend_from_slice(start.as_bytes());
        text.extend_from_slice(self.stamp.of(self.clock.wall_ns(mono_ns)).as_bytes());
        text.push(b'"');
        keys(text, line)?;
        text.push(b'}');
        self.lines.end()
    }
}

/// The constant beginning of a line.
macro_rules! start {
    ($event:literal) => {
        concat!(r#"{"event":""#, $event, r#"","ts":""#)
    };
}

impl Sink for Json {
    fn line(&mut self, line: &Line) -> io::Result<()> {
        match line {
            Line::Preexisting(x) => {
                self.write(start!("preexisting"), x.mono_ns, x, keys::preexisting)
            }
            Line::Transition(x) => self.write(start!("transition"), x.mono_ns, x, keys::transition),
            Line::Accept(x) => self.write(start!("accept"), x.mono_ns, x, keys::accept),
            Line::Overflow(x) => self.write(start!("overflow"), x.mono_ns, x, keys::overflow),
            Line::Segment(x) => self.write(start!("segment"), x.mono_ns, x, keys::segment),
            Line::Connection(x) => self.write(start!("connection"), x.mono_ns, x, keys::connection),
            Line::Retransmit(x) => self.write(start!("retransmit"), x.mono_ns, x, keys::retransmit),
            Line::Reset(x) => self.write(start!("reset"), x.mono_ns, x, keys::reset),
            Line::TimeWait(x) => self.write(start!("time_wait"), x.mono_ns, x, keys::time_wait),
            Line::Histogram(x) => self.write(start!("histogram"), x.mono_ns, x, keys::histogram),
            Line::Session(_) | Line::Stack(_) | Line::Lost(_) | Line::Summary(_) => {
                self.write_all(line)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.lines.flush()
    }

    fn wants(&self) -> Wanted {
        Wanted::LINES
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
    fn a_transition_has_these_keys() {
        let line = json(Line::Transition(samples::transition()));
        assert_eq!(
            line,
            concat!(
                r#"{"event":"transition","ts":"2026-03-01T14:03:07.123456789Z","#,
                r#""conn":3,"laddr":"127.0.0.1","lport":7878,"raddr":"127.0.0.1","rport":39709,"#,
                r#""oldstate":"SYN_RECV","newstate":"ESTABLISHED","in_state_ns":23100,"#,
                r#""context":"softirq","cpu":1,"cause":"ack_received"}"#,
                "\n"
            )
        );
    }

    #[test]
    fn a_listener_on_ipv6_has_its_queue_limits() {
        let line = json(Line::Transition(samples::listen()));
        let expect = concat!(
            r#","conn":1,"side":"listener","laddr":"::","lport":7878,"netns":4026531840,"#,
            r#""cookie":null,"uid":1000,"cgroup":25,"pid":null,"oldstate":"CLOSE","newstate":"LISTEN","#,
            r#""context":null,"cpu":1,"cause":"ack_received","#,
            r#""backlog_max":128,"backlog_asked":128,"somaxconn":4096,"backlog_clipped":false}"#,
        );
        assert!(line.contains(expect), "{line}");
    }

    #[test]
    fn an_unknown_value_is_null() {
        let mut accept = samples::accept();
        accept.subject = samples::without_process(accept.subject);
        accept.called_mono_ns = None;
        accept.accept_queue_ns = None;
        let line = json(Line::Accept(accept));
        for name in ["pid", "tid", "comm", "called_mono_ns", "accept_queue_ns"] {
            assert!(line.contains(&format!("\"{name}\":null")), "{name}: {line}");
        }
    }

    #[test]
    fn a_hostile_name_is_escaped_and_reads_back_unchanged() {
        for name in [
            "\x1b[31m",
            "\u{9b}31m",
            "\u{202e}moc",
            "a\"\\\n",
            "\u{e0001}",
            "\u{3164}\u{1160}",
        ] {
            let mut accept = samples::accept();
            accept.subject.comm = Some(Comm::from(name));
            let line = json(Line::Accept(accept));
            let printed = line.trim_end_matches('\n');
            assert!(!printed.contains(char::is_control), "{printed:?}");
            assert!(printed.chars().all(is_printable), "{printed:?}");
            let value: serde_json::Value = serde_json::from_str(&line).unwrap();
            assert_eq!(value["comm"], name);
        }
    }

    /// Compares the keys of a server's, a client's, and an open connection.
    #[test]
    fn a_line_has_only_the_keys_that_apply_to_it() {
        let keys = |line: Line| {
            let line: serde_json::Value = serde_json::from_str(&json(line)).unwrap();
            let keys = line.as_object().unwrap().keys().cloned();
            keys.collect::<std::collections::BTreeSet<String>>()
        };
        let server = keys(Line::Connection(samples::connection()));
        let client = keys(Line::Connection(samples::client()));
        let open = keys(Line::Connection(crate::fields::Connection {
            state: crate::event::State::Established,
            closed_mono_ns: None,
            ..samples::client()
        }));
        let servers: Vec<&str> = server.difference(&client).map(String::as_str).collect();
        assert_eq!(
            servers,
            [
                "accept_called_mono_ns",
                "accept_queue_ns",
                "accepted_mono_ns",
                "backlog_ahead",
                "backlog_max",
                "defer_accept",
                "half_open_ns",
                "listener",
                "listener_source",
                "syn_queue_ahead",
                "synack_retransmits",
                "syncookie",
                "verdict",
            ]
        );
        let clients: Vec<&str> = client.difference(&server).map(String::as_str).collect();
        assert_eq!(clients, ["syn_retransmits"]);
        let ended: Vec<&str> = client.difference(&open).map(String::as_str).collect();
        assert_eq!(
            ended,
            [
                "bytes_acked",
                "bytes_received",
                "ended",
                "fin_sent",
                "retransmits",
                "segs_in",
                "segs_out",
                "snd_cwnd",
                "srtt_ns",
                "unread_bytes",
            ]
        );
    }

    /// The value in JSON equals the field of the line in memory.
    #[test]
    fn a_key_has_the_value_of_its_field() {
        for line in samples::all() {
            let all = samples::json(&line);
            let some: serde_json::Value = serde_json::from_str(&json(line)).unwrap();
            for (key, value) in some.as_object().unwrap() {
                assert_eq!(&all[key], value, "{key} of {some}");
            }
        }
    }

    #[test]
    fn every_line_is_one_line_of_text() {
        for line in samples::all() {
            let text = json(line);
            assert_eq!(text.matches('\n').count(), 1);
            assert!(text.starts_with(r#"{"event":""#) && text.ends_with("}\n"));
        }
    }
}
