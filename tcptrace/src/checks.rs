//! The `--expect` of a run: fed as one more output, judged at the end.

use std::ops::BitOr;
use std::sync::{Arc, Mutex, PoisonError};

use crate::exit;
use crate::expect::{Expectation, Measured};
use crate::fields::{Line, Wanted};
use crate::pipeline::Output;
use crate::sink::Show;
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
