//! The `--expect` of a run: fed as one more output, judged at the end.

use std::io;
use std::ops::BitOr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use crate::exit;
use crate::expect::{Expectation, Measured};
use crate::fields::{Line, Wanted};
use crate::pipeline::Output;
use crate::sink::{Show, Sink};
use crate::stdio::say;

/// What is expected, and what was measured so far.
pub struct Checks {
    expectations: Vec<Expectation>,
    measured: Arc<Mutex<Measured>>,
}

impl Checks {
    pub fn new(expectations: &[Expectation]) -> Checks {
        Checks {
            expectations: expectations.to_vec(),
            measured: Arc::new(Mutex::new(Measured::new(expectations))),
        }
    }

    /// What to feed with the lines; `None` when nothing is expected.
    pub fn output(&self) -> Option<Output> {
        let measured = self.measured.clone();
        let take = move |line: &Line| {
            let mut measured = measured.lock().unwrap_or_else(PoisonError::into_inner);
            measured.line(line);
        };
        let wanted = self.expectations.iter().map(Expectation::wants);
        (!self.expectations.is_empty()).then(|| Output {
            name: "--expect".into(),
            sink: Box::new(Show {
                wanted: wanted.fold(Wanted::NOTHING, Wanted::bitor),
                show: take,
            }),
        })
    }

    /// Says on stderr what became of each expectation. The value is the exit code: `code`, unless
    /// that is 0 and an expectation was not met.
    pub fn tell(&self, code: u8) -> u8 {
        let measured = self.measured.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all_met = true;
        for expectation in &self.expectations {
            let judgement = expectation.judge(&measured);
            say(judgement.text);
            all_met &= judgement.met;
        }
        match (code, all_met) {
            (exit::DONE, false) => exit::NOT_MET,
            (code, _) => code,
        }
    }
}

/// The `--trigger` of a flight recorder: an expectation about the lines of each second.
pub struct Trigger {
    expectation: Expectation,
    fired: Arc<Notify>,
}

impl Trigger {
    pub fn new(expectation: &Expectation) -> Trigger {
        Trigger {
            expectation: expectation.clone(),
            fired: Arc::default(),
        }
    }

    /// As it was given.
    pub fn text(&self) -> String {
        self.expectation.to_string()
    }

    /// Notified when the expectation holds, at most once a second.
    pub fn fired(&self) -> Arc<Notify> {
        self.fired.clone()
    }

    /// The output to feed with the lines.
    pub fn output(&self) -> Output {
        let expectations = vec![self.expectation.clone()];
        Output {
            name: "--trigger".into(),
            sink: Box::new(Second {
                measured: Measured::new(&expectations),
                expectations,
                session: None,
                since_ns: 0,
                judged: true,
                fired: self.fired.clone(),
            }),
        }
    }
}

/// Measures one second after the other.
struct Second {
    /// The one.
    expectations: Vec<Expectation>,
    measured: Measured,
    /// Says what the hooks can show.
    session: Option<Line>,
    /// When the second at hand began (CLOCK_MONOTONIC, nanoseconds).
    since_ns: u64,
    /// No line has come since it was last judged, or it has fired.
    judged: bool,
    fired: Arc<Notify>,
}

const SECOND_NS: u64 = 1_000_000_000;

impl Sink for Second {
    fn line(&mut self, line: &Line) -> io::Result<()> {
        if let Line::Session(_) = line {
            self.session = Some(line.clone());
        }
        let mono_ns = line.mono_ns();
        if mono_ns.saturating_sub(self.since_ns) >= SECOND_NS {
            self.since_ns = mono_ns;
            self.measured = Measured::new(&self.expectations);
            if let Some(session) = &self.session {
                self.measured.line(session);
            }
        }
        self.measured.line(line);
        self.judged = false;
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if !std::mem::replace(&mut self.judged, true) {
            let holds = |it: &Expectation| it.judge(&self.measured).met;
            if self.expectations.iter().all(holds) {
                self.fired.notify_one();
                // Once a second is enough.
                self.measured = Measured::new(&self.expectations);
            }
        }
        Ok(())
    }
}
