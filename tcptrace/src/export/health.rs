//! Whether the trace makes progress, for `/healthz` and the watchdog of systemd.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock::mono_now_ns;

/// A pipeline that has not run for this time is stuck, in nanoseconds. It has an input each second.
const STUCK_NS: u64 = 10_000_000_000;

/// The time at which the pipeline last ran.
#[derive(Debug)]
pub struct Health(AtomicU64);

impl Health {
    pub fn new() -> Health {
        Health(AtomicU64::new(mono_now_ns()))
    }

    /// Notes that the pipeline runs.
    pub fn alive(&self, now_ns: u64) {
        self.0.store(now_ns, Ordering::Relaxed);
    }

    /// Returns what is wrong; `None` if all is well.
    pub fn problem(&self) -> Option<&'static str> {
        self.problem_at(mono_now_ns())
    }

    fn problem_at(&self, now_ns: u64) -> Option<&'static str> {
        let age_ns = now_ns.saturating_sub(self.0.load(Ordering::Relaxed));
        (age_ns > STUCK_NS).then_some("events have not been processed for 10 seconds\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipeline_that_has_not_run_for_ten_seconds_is_a_problem() {
        let health = Health::new();
        health.alive(5);
        assert_eq!(health.problem_at(5 + STUCK_NS), None);
        assert!(
            health
                .problem_at(6 + STUCK_NS)
                .unwrap()
                .contains("10 seconds")
        );
        health.alive(6);
        assert_eq!(health.problem_at(6 + STUCK_NS), None);
    }
}
