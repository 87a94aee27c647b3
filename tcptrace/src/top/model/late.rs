//! The reasons for which accept() was late.

use std::fmt;

use crate::fields::{Late, LateReason};
use crate::printable::printable;

/// Upper bound on different causes. Waits with further ones are not counted.
const MOST: usize = 16;

/// A reason, and the system call or function in which the acceptor was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    pub reason: LateReason,
    pub place: Option<String>,
}

impl Cause {
    /// Returns the main cause of a wait.
    pub fn of(late: &Late) -> Cause {
        let reason = late.late_reason;
        let blocked = late.acceptor_blocked_in.iter();
        let blocked = blocked.clone().find(|it| it.late_reason == reason);
        let place = match reason {
            LateReason::Blocked | LateReason::Lock | LateReason::NotWoken => blocked
                .and_then(|it| it.syscall.as_deref())
                .map(|name| format!("{name}()")),
            LateReason::Running => (late.acceptor_running_in.first())
                .and_then(|it| it.function.as_deref())
                .map(|name| printable(name).into_owned()),
            _ => None,
        };
        Cause { reason, place }
    }
}

/// Writes `blocked fsync()`, `running parse` or `no CPU`.
impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.reason {
            LateReason::Running => "running",
            LateReason::Cpu => "no CPU",
            LateReason::Quota => "CPU quota",
            LateReason::Blocked => "blocked",
            LateReason::Lock => "lock",
            LateReason::PageFault => "page fault",
            LateReason::NotWoken => "not woken",
            LateReason::Stopped => "stopped",
            LateReason::Traced => "debugger",
            LateReason::Frozen => "frozen",
            LateReason::Unseen => "not known",
        })?;
        match &self.place {
            Some(place) => write!(f, " {place}"),
            None => Ok(()),
        }
    }
}

/// Sums of late waits by cause, in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Causes(Vec<(Cause, u64)>);

impl Causes {
    pub fn add(&mut self, cause: Cause, ns: u64) {
        if let Some((_, sum)) = self.0.iter_mut().find(|(it, _)| *it == cause) {
            *sum = sum.saturating_add(ns);
        } else if self.0.len() < MOST {
            self.0.push((cause, ns));
        }
    }

    pub fn add_all(&mut self, other: &Causes) {
        for (cause, ns) in &other.0 {
            self.add(cause.clone(), *ns);
        }
    }

    /// Returns the causes, the longest sum first.
    pub fn sorted(mut self) -> Vec<(Cause, u64)> {
        self.0.sort_by_key(|(_, ns)| std::cmp::Reverse(*ns));
        self.0
    }
}
