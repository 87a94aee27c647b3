//! Evidence for the demo's conclusions: the lines of its trace.

use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::bail;

use crate::event::{Hook, State};
use crate::fields::{Connection, Line, Side, Transition};
use crate::sink::Sink;

/// How long to wait for the trace to show something that has happened.
const PATIENCE: Duration = Duration::from_secs(5);

/// The lines of the trace so far. Clones share them, and can wait for a line.
#[derive(Clone, Default)]
pub struct Evidence(Arc<(Mutex<Vec<Line>>, Condvar)>);

/// A sink that collects evidence. Lines become visible on flush, so the log, which is flushed
/// first, is already on the screen.
pub struct Collector {
    fresh: Vec<Line>,
    evidence: Evidence,
}

impl Sink for Collector {
    fn line(&mut self, line: &Line) -> io::Result<()> {
        self.fresh.push(line.clone());
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let (lines, arrived) = &*self.evidence.0;
        let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.append(&mut self.fresh);
        arrived.notify_all();
        Ok(())
    }
}

impl Evidence {
    pub fn collector(&self) -> Collector {
        Collector {
            fresh: vec![],
            evidence: self.clone(),
        }
    }

    /// Waits until `find` returns something for a line of the trace.
    ///
    /// # Errors
    /// If nothing is found within [`PATIENCE`]. `what` names it in the message.
    fn wait<T>(&self, what: &str, find: impl Fn(&Line) -> Option<T>) -> anyhow::Result<T> {
        let (lines, arrived) = &*self.0;
        let deadline = Instant::now() + PATIENCE;
        let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(found) = lines.iter().find_map(&find) {
                return Ok(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("the trace does not show {what}");
            }
            (lines, _) = arrived
                .wait_timeout(lines, left)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits for the end of the listener at `port` and of the connection to it. Returns the server
    /// end's connection line.
    pub fn server_connection(&self, port: u16) -> anyhow::Result<Connection> {
        self.wait("the end of the listener", |line| match line {
            Line::Transition(transition)
                if transition.subject.side == Some(Side::Listener)
                    && transition.subject.lport == Some(port)
                    && transition.newstate == State::Close =>
            {
                Some(())
            }
            _ => None,
        })?;
        self.wait("the end of the connection", |line| match line {
            Line::Connection(connection)
                if connection.subject.side == Some(Side::Server)
                    && connection.subject.lport == Some(port) =>
            {
                Some(connection.clone())
            }
            _ => None,
        })
    }

    /// Waits until one end of the connection to `port` becomes ESTABLISHED.
    pub fn established(&self, side: Side, port: u16) -> anyhow::Result<Transition> {
        self.wait("ESTABLISHED on both sides", |line| match line {
            Line::Transition(transition) => {
                let subject = &transition.subject;
                let servers_port = match side {
                    Side::Client => subject.rport,
                    _ => subject.lport,
                };
                (subject.side == Some(side)
                    && servers_port == Some(port)
                    && transition.newstate == State::Established)
                    .then(|| transition.clone())
            }
            _ => None,
        })
    }

    /// Returns whether the trace shows the scheduling of acceptors.
    pub fn sees_acceptors(&self) -> bool {
        let lines = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().any(|line| match line {
            Line::Session(session) => {
                matches!(session.hooks.get(&Hook::SchedSwitch), Some(Some(_)))
            }
            _ => false,
        })
    }

    /// Returns true if any accept() for `port` has returned so far, successful or not.
    pub fn any_accept(&self, port: u16) -> bool {
        let lines = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines
            .iter()
            .any(|line| matches!(line, Line::Accept(accept) if accept.subject.lport == Some(port)))
    }
}
