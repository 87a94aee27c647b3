//! A trace in progress.

use nix::sys::signal::Signal;

use crate::joined::Joined;
use crate::lab::{Lab, Ports};
use crate::netns::Netns;
use crate::programs::Programs;
use crate::recording::Recording;
use crate::run::{Ended, Running, tcptrace_trace};
use crate::trace::{Line, Trace};
use crate::witness::{Ends, Seen, Share, Witness, compare};
use crate::{hole, invariants, joined, run};

/// tcptrace with JSON on its stdout, and the witness beside it.
pub struct Tracer {
    running: Running,
    witness: Witness,
    programs: Programs,
    netns: Netns,
    ports: Ports,
    recording: Option<Recording>,
}

impl Tracer {
    /// `tcptrace -o json ARGS…`, when its session line has said that all hooks are attached.
    pub(crate) fn start(lab: &Lab, args: &[&str]) -> Tracer {
        let recording = Recording::wanted(lab);
        let more = recording.as_ref().map(Recording::args);
        let more = more.as_ref().map_or(&[][..], |args| args);
        let command = tcptrace_trace(&[&["-o", "json"], more, args].concat());
        let mut tracer = Tracer::spawn(lab, command);
        tracer.recording = recording;
        tracer
    }

    /// Any command line that writes JSON to stdout.
    pub fn spawn(lab: &Lab, command: std::process::Command) -> Tracer {
        let witness = Witness::start(lab.ports);
        let running = Running::start(command);
        await_session(&running);
        Tracer {
            programs: Programs::of(running.pid()),
            running,
            witness,
            netns: lab.netns,
            ports: lab.ports,
            recording: None,
        }
    }

    pub fn process(&mut self) -> &mut Running {
        &mut self.running
    }

    /// The ids of its programs in the kernel.
    pub fn programs(&self) -> &Programs {
        &self.programs
    }

    /// Waits until the scenario's namespace has had `n` lines that satisfy `wanted`.
    pub fn wait_for(&self, n: usize, what: &str, wanted: impl Fn(&Line) -> bool) -> Vec<Line> {
        let mut read = 0;
        let mut found = Vec::new();
        let mut joined = Joined::default();
        self.running.stdout().wait_until(what, |lines| {
            for line in &lines[read..] {
                let mut line = Line::parse(line);
                joined.learn(&line);
                joined.complete(&mut line);
                if self.is_own(&line) && wanted(&line) {
                    found.push(line);
                }
            }
            read = lines.len();
            (found.len() >= n).then(|| std::mem::take(&mut found))
        })
    }

    /// Whether a line is about the scenario's namespace. One of a connection that began before the
    /// trace may not say so until the connection ends, but no other scenario has its port.
    fn is_own(&self, line: &Line) -> bool {
        let has_port = |key| line.0.get(key).is_some_and(|it| self.ports.have(it));
        match line.0.get("netns") {
            Some(netns) => *netns == self.netns.inode,
            None => has_port("lport") || has_port("rport"),
        }
    }

    /// Waits for a line that is about no namespace.
    pub fn wait_for_line(&self, what: &str, wanted: impl Fn(&Line) -> bool) {
        self.running.stdout().wait_until(what, |lines| {
            let mut lines = lines.iter().map(|line| Line::parse(line));
            lines.any(|line| wanted(&line)).then_some(())
        });
    }

    /// Waits until `n` sockets have ended: both sides of a connection count.
    pub fn wait_for_ends(&self, n: usize) {
        self.wait_for(n, "connections to end", |line| line.is("connection"));
    }

    /// Ends the trace with SIGINT, and checks what it left: exit code, schema, arithmetic, order,
    /// programs gone, and that the witness saw the same.
    pub fn stop(self) -> Trace {
        self.stop_against(Share::All)
    }

    /// As [`stop`](Self::stop), and gives what the witness saw as well.
    pub fn stop_with_testimony(self) -> (Trace, Vec<Seen>) {
        self.running.signal(Signal::SIGINT);
        self.finish(0, Share::All)
    }

    /// For a trace with a filter: it has exactly the witness's state changes that satisfy it.
    pub fn stop_filtered(self, filter: impl Fn(&Ends) -> bool) -> Trace {
        self.stop_against(Share::Where(&filter))
    }

    /// For a trace of a depth that does not tell every change of state.
    pub fn stop_joined(self) -> Trace {
        self.stop_against(Share::Some)
    }

    /// For a trace that may have lost records.
    pub fn stop_lossy(self) -> Trace {
        self.stop_against(Share::Some)
    }

    /// For a trace so long that softirqs come on top of init, see [`Share::Whole`].
    pub fn stop_marked(self) -> Trace {
        self.stop_against(Share::Whole)
    }

    fn stop_against(self, share: Share) -> Trace {
        self.running.signal(Signal::SIGINT);
        self.finish(0, share).0
    }

    /// For a trace that ends by itself, or was told to: with the exit code that it must have.
    pub fn ended(self, code: i32) -> Trace {
        self.finish(code, Share::All).0
    }

    /// The same for a trace with a filter.
    pub fn ended_filtered(self, code: i32, filter: impl Fn(&Ends) -> bool) -> Trace {
        self.finish(code, Share::Where(&filter)).0
    }

    /// The same for one that leaves out more than the witness can tell.
    pub fn ended_lossy(self, code: i32) -> Trace {
        self.finish(code, Share::Some).0
    }

    fn finish(mut self, code: i32, share: Share) -> (Trace, Vec<Seen>) {
        let ended = self.running.wait_here();
        assert_eq!(ended.code, Some(code), "{}", ended.stderr);
        self.programs.wait_until_gone();
        if let Some(recording) = &self.recording {
            recording.print();
        }
        let mut trace = Trace::read(&ended.stdout, self.netns);
        invariants::check(&trace);
        let testimony = self.witness.testimony();
        compare(&trace, &testimony, share);
        // Until here it is the tracer that tells it.
        trace.evidence = hole::evidence(&trace.lines, &testimony);
        (trace, testimony)
    }
}

/// A scenario that fails, in vain or by what was left, says whether the kernel has hidden anything.
impl Drop for Tracer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let lines = self.running.stdout().lines();
            let lines = lines.iter().map(|line| serde_json::from_str(line));
            let mut lines: Vec<Line> = lines.flatten().map(Line).collect();
            joined::complete(&mut lines);
            if let Some(evidence) = hole::evidence(&lines, &self.witness.remains()) {
                eprintln!("{evidence}");
            }
        }
    }
}

/// Waits for the first line, which says that tracing is on.
pub fn await_session(running: &Running) -> Line {
    running.stdout().wait_until("the session line", |lines| {
        let line = Line::parse(lines.first()?);
        assert!(line.is("session"), "the first line: {line}");
        Some(line)
    })
}

/// `tcptrace ARGS…` that is not about a trace: to its end.
pub fn tcptrace(args: &[&str]) -> Ended {
    Running::to_the_end(run::tcptrace(args))
}
