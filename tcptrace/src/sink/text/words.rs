//! Texts for processes, addresses, counts, overflows and verdicts.

use std::fmt::{self, Display};
use std::net::IpAddr;

use super::piece::Piece;
use crate::duration::Human;
use crate::event::{ListenQueue, OverflowSegment};
use crate::fields::{LateTimes, Overflow, PidSource, Side, Subject, Verdict};

/// The process of a socket: `server[4711]`, `server[4711]?` if it is presumed, `-` if unknown.
pub struct Who<'a>(pub &'a Subject);

impl Piece for Who<'_> {
    fn put(&self, to: &mut Vec<u8>) {
        let Some(pid) = self.0.pid else {
            return "-".put(to);
        };
        let presumed = self.0.pid_source == Some(PidSource::Presumed);
        (self.0.comm, "[", pid, if presumed { "]?" } else { "]" }).put(to);
    }
}

impl Display for Who<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

/// The addresses from client to server: `10.0.0.9:39709 → :7878` at the server's end,
/// `10.0.0.1:39709 → 10.0.0.9:443` at the client's. A listener has its own address only.
pub struct Tuple<'a>(pub &'a Subject);

impl Piece for Tuple<'_> {
    fn put(&self, to: &mut Vec<u8>) {
        let s = self.0;
        let own = ScopedEnd(End(Some(s.laddr), s.lport), s.scope_id);
        let peer = ScopedEnd(End(s.raddr, s.rport), s.scope_id);
        match s.side {
            Some(Side::Server) => (peer, " → ", End(None, s.lport)).put(to),
            Some(Side::Listener) => own.put(to),
            None if s.raddr.is_none() => own.put(to),
            Some(Side::Client) | None => (own, " → ", peer).put(to),
        }
    }
}

/// The ports from client to server: `:39709 → :7878`. A listener has its own port only.
pub struct Ports<'a>(pub &'a Subject);

impl Piece for Ports<'_> {
    fn put(&self, to: &mut Vec<u8>) {
        let s = self.0;
        let (own, peer) = (End(None, s.lport), End(None, s.rport));
        match s.side {
            Some(Side::Server) => (peer, " → ", own).put(to),
            Some(Side::Listener) => own.put(to),
            None if s.raddr.is_none() => own.put(to),
            Some(Side::Client) | None => (own, " → ", peer).put(to),
        }
    }
}

impl Display for Tuple<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

/// An address and a port, with the device of a link-local address: `[fe80::1%2]:80`.
pub struct ScopedEnd(pub End, pub Option<u32>);

impl Piece for ScopedEnd {
    fn put(&self, to: &mut Vec<u8>) {
        let ScopedEnd(End(addr, port), scope) = self;
        let (Some(IpAddr::V6(addr)), Some(scope)) = (addr, scope) else {
            return self.0.put(to);
        };
        if !addr.is_unicast_link_local() {
            return self.0.put(to);
        }
        ("[", IpAddr::V6(*addr), ("%", *scope, "]")).put(to);
        put_port(*port, to);
    }
}

/// An address and a port. IPv6 is in brackets; an unknown port is `?`.
pub struct End(pub Option<IpAddr>, pub Option<u16>);

impl Piece for End {
    fn put(&self, to: &mut Vec<u8>) {
        match self.0 {
            Some(addr @ IpAddr::V4(_)) => addr.put(to),
            Some(addr @ IpAddr::V6(_)) => ("[", addr, "]").put(to),
            None if self.1.is_none() => return "?".put(to),
            None => {}
        }
        put_port(self.1, to);
    }
}

fn put_port(port: Option<u16>, to: &mut Vec<u8>) {
    match port {
        Some(port) => (":", port).put(to),
        None => ":?".put(to),
    }
}

impl Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

/// A number with its noun: `1 connection`, `2 connections`.
pub struct Count<'a>(pub u64, pub &'a str);

impl Display for Count<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.0 == 1 { "" } else { "s" };
        write!(f, "{} {}{plural}", self.0, self.1)
    }
}

/// Returns `the final ACK was dropped: the accept queue was full (2 queued, limit 1)`.
pub fn overflow(x: &Overflow) -> String {
    let segment = match x.dropped {
        OverflowSegment::Syn => "the SYN",
        OverflowSegment::Ack => "the final ACK",
    };
    let fate = if x.aborted {
        "answered with RST"
    } else {
        "dropped"
    };
    let (queue, held) = match x.queue {
        ListenQueue::Syn if x.reserve => {
            let (len, limit) = (x.queue_len, x.queue_max);
            return format!(
                "{segment} was {fate}: the rest of the SYN queue is kept for known peers ({len} \
                 half-open, limit {limit})"
            );
        }
        ListenQueue::Accept => ("accept", "queued"),
        ListenQueue::Syn => ("SYN", "half-open"),
    };
    let (len, max) = (x.queue_len, x.queue_max);
    format!("{segment} was {fate}: the {queue} queue was full ({len} {held}, limit {max})")
}

/// Returns `2 connections waited long: 4.900 s blocked, 100.0 ms waiting for a CPU` with the longest
/// times; `None` if no connection did.
pub fn waited_long(late: Option<&LateTimes>) -> Option<String> {
    let late = late.filter(|it| it.late_connections > 0)?;
    let all = late.largest_first();
    let least_ns = all.iter().map(|(_, ns)| ns).sum::<u64>() / 100;
    let longest = all.iter().filter(|(_, ns)| *ns > least_ns).take(3);
    let times: Vec<String> = longest
        .map(|&(reason, ns)| format!("{} {}", Human(ns), reason.words()))
        .collect();
    let connections = Count(late.late_connections, "connection");
    Some(format!("{connections} waited long: {}", times.join(", ")))
}

/// Returns the name of a verdict with blanks instead of underscores.
pub fn verdict_words(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::FastOpen => "fast open",
        Verdict::NeverAccepted => "never accepted",
        _ => verdict.name(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Comm;
    use crate::sink::samples;

    #[test]
    fn the_process_text_shows_a_presumed_an_accepted_and_an_unknown_process() {
        let presumed = samples::server();
        assert_eq!(Who(&presumed).to_string(), "server[4711]?");
        let sure = samples::accept().subject;
        assert_eq!(Who(&sure).to_string(), "server[4711]");
        assert_eq!(Who(&samples::without_process(sure)).to_string(), "-");
        let hostile = Subject {
            comm: Some(Comm::from("\x1b[31m")),
            ..samples::listener()
        };
        assert_eq!(Who(&hostile).to_string(), "\\u{1b}[31m[4711]");
    }

    #[test]
    fn verdict_words_are_the_name_with_blanks() {
        for verdict in Verdict::ALL {
            assert_eq!(verdict_words(verdict), verdict.name().replace('_', " "));
        }
    }

    #[test]
    fn a_tuple_leads_from_client_to_server() {
        let check = |subject: &Subject, expect| assert_eq!(Tuple(subject).to_string(), expect);
        let v4 = samples::server();
        check(&v4, "127.0.0.1:39709 → :7878");
        check(&samples::listener(), "127.0.0.1:7878");
        check(
            &samples::client().subject,
            "127.0.0.1:39709 → 127.0.0.1:7878",
        );

        let v6 = Subject {
            family: 6,
            laddr: "::1".parse().unwrap(),
            raddr: Some("fe80::1".parse().unwrap()),
            ..v4.clone()
        };
        check(&v6, "[fe80::1]:39709 → :7878");
        let scoped = Subject {
            scope_id: Some(2),
            ..v6.clone()
        };
        check(&scoped, "[fe80::1%2]:39709 → :7878");
        let client = Subject {
            side: Some(Side::Client),
            ..scoped
        };
        check(&client, "[::1]:7878 → [fe80::1%2]:39709");

        // Before Linux 6.15 the peer is unknown when the child socket is created.
        let newborn = Subject {
            raddr: None,
            rport: None,
            ..v4.clone()
        };
        check(&newborn, "? → :7878");

        // A client's port is chosen after SYN_SENT.
        let portless = Subject {
            lport: None,
            ..samples::client().subject
        };
        check(&portless, "127.0.0.1:? → 127.0.0.1:7878");
    }
}
