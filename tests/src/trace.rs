//! A finished trace, with queries for scenarios.

use serde_json::Value;

use crate::known_fields;
pub use crate::line::{Line, NULL, Shown};
use crate::netns::Netns;

/// All lines of a trace.
#[derive(Clone)]
pub struct Trace {
    /// Lines about the whole machine, in the order in which they were written.
    pub lines: Vec<Line>,
    pub netns: Netns,
    /// The events that the kernel hid, see [`known_gap`](crate::known_gap).
    pub(crate) evidence: Option<String>,
}

impl Trace {
    /// Parses the output of tcptrace.
    pub fn read(text: &str, netns: Netns) -> Trace {
        let mut lines: Vec<Line> = text.lines().map(Line::parse).collect();
        known_fields::complete(&mut lines);
        Trace {
            lines,
            netns,
            evidence: None,
        }
    }

    pub fn session(&self) -> &Line {
        &self.lines[0]
    }

    pub fn summary(&self) -> &Line {
        self.lines.last().expect("a summary")
    }

    /// Returns the lines of one kind about the scenario's own namespace.
    pub fn own<'a>(&'a self, event: &'a str) -> impl Iterator<Item = &'a Line> {
        let inode = self.netns.inode;
        self.lines
            .iter()
            .filter(move |line| line.is(event) && line["netns"] == inode)
    }

    /// Returns the scenario's `connection` lines of a side, in the order of their ends.
    pub fn connections(&self, side: &str) -> Vec<&Line> {
        self.own("connection")
            .filter(|line| line["side"] == side)
            .collect()
    }

    /// Returns the only server-side connection.
    #[track_caller]
    pub fn server(&self) -> &Line {
        self.only(self.connections("server"), "server-side connection")
    }

    /// Returns the only client-side connection.
    #[track_caller]
    pub fn client(&self) -> &Line {
        self.only(self.connections("client"), "client-side connection")
    }

    /// Returns the server side of the connection from this client port.
    #[track_caller]
    pub fn server_of(&self, client_port: u16) -> &Line {
        let mut servers = self.connections("server");
        servers.retain(|line| line["rport"] == client_port);
        self.only(servers, "server-side connection from that port")
    }

    /// Returns the server side of the connection from this client port to this port. Clients that
    /// connect to different ports may have the same port.
    #[track_caller]
    pub fn server_at(&self, port: u16, client_port: u16) -> &Line {
        let mut servers = self.connections("server");
        servers.retain(|line| line["lport"] == port && line["rport"] == client_port);
        self.only(servers, "server-side connection between these ports")
    }

    /// Returns the scenario's accept() calls that returned a connection.
    pub fn accepts(&self) -> Vec<&Line> {
        self.own("accept")
            .filter(|line| line["accept_error"].is_null())
            .collect()
    }

    /// Returns the only accept() that returned a connection.
    #[track_caller]
    pub fn accept(&self) -> &Line {
        self.only(self.accepts(), "accept")
    }

    /// Returns the accept() of the connection from this client port.
    #[track_caller]
    pub fn accept_of(&self, client_port: u16) -> &Line {
        let mut accepts = self.accepts();
        accepts.retain(|line| line["rport"] == client_port);
        self.only(accepts, "accept of a connection from that port")
    }

    /// Returns the scenario's accept() calls that failed.
    pub fn failed_accepts(&self) -> Vec<&Line> {
        self.own("accept")
            .filter(|line| !line["accept_error"].is_null())
            .collect()
    }

    /// Asserts that there were `n` connections. Each is complete on both sides and has its own
    /// accept().
    #[track_caller]
    pub fn shows_each_once(&self, n: usize) {
        for side in ["server", "client"] {
            let connections = self.connections(side);
            assert_eq!(connections.len(), n, "{side}");
            for line in connections {
                line.shows(&[("complete", &true), ("state", &"CLOSE")]);
            }
        }
        let mut accepted: Vec<u64> = self.accepts().iter().map(|it| it.num("conn")).collect();
        accepted.sort();
        accepted.dedup();
        assert_eq!(accepted.len(), n, "accepts of different connections");
    }

    /// Returns the attach method that sees accept(): fentry, kprobe or syscall.
    pub fn accept_attach_method(&self) -> &str {
        let method = &self.session()["hooks"]["inet_csk_accept"];
        method.as_str().expect("accept() was hooked")
    }

    /// Returns the transitions of one connection or listener that the tracepoint printed.
    pub fn transitions(&self, conn: &Value) -> Vec<&Line> {
        self.own("transition")
            .filter(|line| line["conn"] == *conn && !line.is_synthetic())
            .collect()
    }

    /// Returns the states of a connection or listener: `"CLOSE LISTEN CLOSE"`.
    pub fn path(&self, conn: &Value) -> String {
        let mut path = Vec::new();
        for line in self.transitions(conn) {
            let (old, new) = (line.text("oldstate"), line.text("newstate"));
            match path.last() {
                None => path.push(old),
                Some(&last) => assert_eq!(last, old, "a gap before {line}"),
            }
            path.push(new);
        }
        path.join(" ")
    }

    /// Returns the transitions into LISTEN in order, one per listener.
    pub fn listens(&self) -> Vec<&Line> {
        self.own("transition")
            .filter(|line| line["newstate"] == "LISTEN")
            .collect()
    }

    /// Returns the only listener's transition into LISTEN.
    #[track_caller]
    pub fn listen(&self) -> &Line {
        self.only(self.listens(), "listener")
    }

    /// Returns the summary's entry of the listener on this port.
    #[track_caller]
    pub fn listener_summary(&self, port: u16) -> Line {
        let listeners = self.summary()["listeners"].as_array().expect("a list");
        let mut own = listeners
            .iter()
            .filter(|it| it["netns"] == self.netns.inode && it["lport"] == port);
        let found = own.next().expect("the listener is in the summary");
        assert!(own.next().is_none(), "one entry per listener");
        Line(found.clone())
    }

    #[track_caller]
    fn only<'a>(&self, lines: Vec<&'a Line>, what: &str) -> &'a Line {
        match lines[..] {
            [line] => line,
            _ => panic!("{} lines instead of one: {what}: {lines:#?}", lines.len()),
        }
    }
}

/// Prints the trace when a scenario fails.
impl Drop for Trace {
    fn drop(&mut self) {
        const ENOUGH: usize = 40;
        if std::thread::panicking() {
            let inode = self.netns.inode;
            let own = self
                .lines
                .iter()
                .filter(|line| line.0.get("netns").is_none_or(|it| *it == inode));
            eprintln!("The trace (netns {inode}):");
            for line in own.take(ENOUGH) {
                eprintln!("{line}");
            }
            // The summary's counts show whether the kernel skipped or lost anything.
            if let Some(last) = self.lines.last() {
                eprintln!("…\n{last}");
            }
            if let Some(evidence) = &self.evidence {
                eprintln!("{evidence}");
            }
        }
    }
}
