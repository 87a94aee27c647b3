//! A trace in progress.

use nix::sys::signal::Signal;

use crate::known_fields::KnownFields;
use crate::lab::{Lab, Ports};
use crate::netns::Netns;
use crate::programs::Programs;
use crate::recording::Recording;
use crate::run::{Ended, Running, tcptrace_trace};
use crate::trace::{Line, Trace};
use crate::witness::{Seen, Share, Tuple, Witness, compare};
use crate::{invariants, known_fields, known_gap, run};

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
    /// Starts `tcptrace -o json ARGS…` and waits for the session line: all hooks are attached.
    pub(crate) fn start(lab: &Lab, args: &[&str]) -> Tracer {
        let recording = Recording::wanted(lab);
        let more = recording.as_ref().map(Recording::args);
        let more = more.as_ref().map_or(&[][..], |args| args);
        let command = tcptrace_trace(&[&["-o", "json"], more, args].concat());
        let mut tracer = Tracer::spawn(lab, command);
        tracer.recording = recording;
        tracer
    }

    /// Starts any command line that writes JSON to stdout.
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

    /// The ids of the tracer's programs in the kernel.
    pub fn programs(&self) -> &Programs {
        &self.programs
    }

    /// Waits until the scenario's namespace has had `n` lines that satisfy `wanted`.
    pub fn wait_for(&self, n: usize, what: &str, wanted: impl Fn(&Line) -> bool) -> Vec<Line> {
        let mut read = 0;
        let mut found = Vec::new();
        let mut fields = KnownFields::default();
        self.running.stdout().wait_until(what, |lines| {
            for line in &lines[read..] {
                let mut line = Line::parse(line);
                fields.learn(&line);
                fields.complete(&mut line);
                if self.is_own(&line) && wanted(&line) {
                    found.push(line);
                }
            }
            read = lines.len();
            (found.len() >= n).then(|| std::mem::take(&mut found))
        })
    }

    /// Whether a line is about the scenario's namespace. A line of a connection that began before
    /// the trace may lack `netns`, but no other scenario has its port.
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

    /// Waits for `n` `connection` lines. Each end of a connection has its own line.
    pub fn wait_for_ends(&self, n: usize) {
        self.wait_for(n, "connections to end", |line| line.is("connection"));
    }

    /// Ends the trace with SIGINT. Checks the exit code, and the schema, sums and order of the
    /// lines. Checks that the tracer's eBPF programs are gone, and that the witness saw the same
    /// state changes.
    pub fn stop(self) -> Trace {
        self.stop_against(Share::All)
    }

    /// Like [`stop`](Self::stop), but also returns the records of the witness.
    pub fn stop_with_testimony(self) -> (Trace, Vec<Seen>) {
        self.running.signal(Signal::SIGINT);
        self.finish(0, Share::All)
    }

    /// Stops a trace that must have exactly the witness's state changes that satisfy its filter.
    pub fn stop_filtered(self, filter: impl Fn(&Tuple) -> bool) -> Trace {
        self.stop_against(Share::Where(&filter))
    }

    /// Stops a trace with a depth that does not report every state change.
    pub fn stop_with_less_detail(self) -> Trace {
        self.stop_against(Share::Some)
    }

    /// Stops a trace that may have lost records.
    pub fn stop_lossy(self) -> Trace {
        self.stop_against(Share::Some)
    }

    /// Stops a trace of so many connections that some softirq may have interrupted init, see
    /// [`Share::AllButHidden`].
    pub fn stop_allowing_gap(self) -> Trace {
        self.stop_against(Share::AllButHidden)
    }

    fn stop_against(self, share: Share) -> Trace {
        self.running.signal(Signal::SIGINT);
        self.finish(0, share).0
    }

    /// Checks a trace that ends by itself, or was already stopped, with this exit code.
    pub fn ended(self, code: i32) -> Trace {
        self.finish(code, Share::All).0
    }

    /// Like [`ended`](Self::ended), for a trace with a filter.
    pub fn ended_filtered(self, code: i32, filter: impl Fn(&Tuple) -> bool) -> Trace {
        self.finish(code, Share::Where(&filter)).0
    }

    /// Like [`ended`](Self::ended), for a trace that may lack state changes that the witness saw.
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
        // Until here, [`Tracer`]'s `Drop` prints the evidence.
        trace.evidence = known_gap::evidence(&trace.lines, &testimony);
        (trace, testimony)
    }
}

/// Prints the evidence of hidden events when a scenario fails.
impl Drop for Tracer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let lines = self.running.stdout().lines();
            let lines = lines.iter().map(|line| serde_json::from_str(line));
            let mut lines: Vec<Line> = lines.flatten().map(Line).collect();
            known_fields::complete(&mut lines);
            if let Some(evidence) =
                known_gap::evidence(&lines, &self.witness.testimony_if_readable())
            {
                eprintln!("{evidence}");
            }
        }
    }
}

/// Waits for the first line: tracing has begun.
pub fn await_session(running: &Running) -> Line {
    running.stdout().wait_until("the session line", |lines| {
        let line = Line::parse(lines.first()?);
        assert!(line.is("session"), "the first line: {line}");
        Some(line)
    })
}

/// Runs a `tcptrace ARGS…` that does not trace to its end.
pub fn tcptrace(args: &[&str]) -> Ended {
    Running::run_to_end(run::tcptrace(args))
}
