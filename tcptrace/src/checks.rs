//! `--expect` and `--trigger`: outputs that measure the lines and judge them.

use std::io;
use std::ops::BitOr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use crate::exit;
use crate::expect::{Expectation, Measured};
use crate::fields::{Kind, Line, Session, Wanted};
use crate::pipeline::Output;
use crate::sink::{Show, Sink};
use crate::stdio::say;

/// The expectations and their measurements so far.
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

    /// Returns the output to feed with the lines, or `None` if nothing is expected.
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

    /// Reports each expectation on stderr. Returns the exit code: `code` unless it is 0 and an
    /// expectation was not met.
    pub fn report(&self, code: u8) -> u8 {
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

    /// Returns the expectation as it was given.
    pub fn text(&self) -> String {
        self.expectation.to_string()
    }

    /// Returns the notification that is sent when the expectation holds, at most once a second.
    pub fn fired(&self) -> Arc<Notify> {
        self.fired.clone()
    }

    /// Returns the output to feed with the lines.
    pub fn output(&self) -> Output {
        let expectations = vec![self.expectation.clone()];
        Output {
            name: "--trigger".into(),
            sink: Box::new(Second {
                expectations,
                measured: None,
                session: None,
                since_ns: 0,
                is_new: false,
                fired: self.fired.clone(),
            }),
        }
    }
}

/// Measures each second separately and notifies when the expectation holds.
struct Second {
    /// Has exactly one element.
    expectations: Vec<Expectation>,
    /// Measurements of the current second. `None` before the first line, and after the trigger has
    /// fired in this second.
    measured: Option<Measured>,
    /// The session line, the first of a trace.
    session: Option<Session>,
    /// When the second began (CLOCK_MONOTONIC, nanoseconds).
    since_ns: u64,
    /// A line has arrived since the last judgement.
    is_new: bool,
    fired: Arc<Notify>,
}

/// Returns a warning if a trigger can never fire in this trace.
fn cannot_fire(trigger: &Expectation, session: &Session) -> Option<String> {
    let why = trigger.unseen(session)?;
    Some(format!(
        "--trigger {trigger} cannot fire, because {why}; SIGUSR1 still writes the records"
    ))
}

const SECOND_NS: u64 = 1_000_000_000;

impl Sink for Second {
    fn wants(&self) -> Wanted {
        let wanted = self.expectations.iter().map(Expectation::wants);
        wanted.fold(Wanted::kind(Kind::Accept), Wanted::bitor)
    }

    fn line(&mut self, line: &Line) -> io::Result<()> {
        if let Line::Session(session) = line {
            self.expectations
                .iter()
                .filter_map(|it| cannot_fire(it, session))
                .for_each(say);
            self.session = Some(session.clone());
        }
        let mono_ns = line.mono_ns();
        if mono_ns.saturating_sub(self.since_ns) >= SECOND_NS {
            self.since_ns = mono_ns;
            let session = self.session.as_ref();
            self.measured = session.map(|it| Measured::live(&self.expectations, it));
        }
        if let Some(measured) = &mut self.measured {
            measured.line(line);
            self.is_new = true;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.is_new)
            && let Some(measured) = &self.measured
            && self.expectations.iter().all(|it| it.judge(measured).met)
        {
            self.fired.notify_one();
            self.measured = None;
        }
        Ok(())
    }
}
