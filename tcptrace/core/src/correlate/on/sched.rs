//! The scheduling of acceptors, and the explanations of late accept() calls.

use crate::correlate::judge::late::{self, Wait};
use crate::correlate::state::Correlator;
use crate::correlate::state::acceptors::{Place, Thread};
use crate::correlate::state::connection::Connection;
use crate::correlate::state::listener::ListenerId;
use crate::event::{self, Event, Sched, SchedStep, Stack, Task};
use crate::fields::{Kind, Late, Line, Verdict};

impl Correlator {
    /// Takes stacks whose addresses have been looked up.
    pub fn stacks(&mut self, stacks: &[Stack]) {
        if let Some(acceptors) = &mut self.acceptors {
            let stacks = stacks.iter().cloned();
            stacks.for_each(|stack| acceptors.stacks.insert(stack));
        }
    }

    /// Handles a scheduling event of an acceptor.
    pub(super) fn sched(&mut self, event: &Event, sched: &Sched) {
        let Some(acceptors) = &mut self.acceptors else {
            return;
        };
        let known = acceptors.get(sched.tid).map(|it| it.task.pid);
        let timeline = match sched.step {
            SchedStep::Enrolled {
                task,
                listener,
                listens,
            } => {
                let place = listener.map(|sk| Place {
                    sk,
                    id: self.listeners.open_at(sk, event.mono_ns),
                    accepts: !listens,
                });
                Some(acceptors.enrol(task, place))
            }
            // The event that enrolled the thread was lost.
            _ if known.is_none_or(|pid| pid != sched.pid) => {
                let task = Task {
                    pid: sched.pid,
                    tid: sched.tid,
                    ..Task::default()
                };
                Some(acceptors.enrol(task, None))
            }
            _ => acceptors.timeline(sched.tid),
        };
        if let Some(timeline) = timeline {
            timeline.step(event.mono_ns, &sched.step, self.losses);
        }
    }

    /// Learns from an accept() that its thread accepts on the listener.
    pub(super) fn learn_acceptor(&mut self, accept: &event::Accept, listener: Option<ListenerId>) {
        if let Some(acceptors) = &mut self.acceptors
            && accept.task.tid != 0
        {
            let place = accept.listener.map(|sk| Place {
                sk,
                id: listener,
                accepts: true,
            });
            acceptors.enrol(accept.task, place);
        }
    }

    /// Explains the wait of a connection that an accept() has just returned, if the wait was long.
    /// Keeps the explanation for the `connection` line.
    pub(super) fn explain_accepted(
        &mut self,
        connection: &Connection,
        accept: &event::Accept,
    ) -> Option<Box<Late>> {
        let to_ns = connection.accepted?.mono_ns;
        let late = self.explain(connection, to_ns, Some(accept.task))?;
        let acceptors = self.acceptors.as_mut()?;
        acceptors.keep(connection.socket.conn, late.clone());
        Some(late)
    }

    /// Adds the explanation of a long wait to the `connection` line, the last of `out`.
    pub(super) fn explain_ended(&mut self, connection: &Connection, out: &mut [Line]) {
        let Some(acceptors) = &mut self.acceptors else {
            return;
        };
        let Some(Line::Connection(line)) = out.last_mut() else {
            return;
        };
        line.late = acceptors.take_kept(connection.socket.conn);
        if line.late.is_some() {
            return;
        }
        line.late = match connection.accepted {
            // ESTABLISHED came after the accept(), or too many explanations were kept.
            Some(accepted) => self.explain(connection, accepted.mono_ns, Some(accepted.task)),
            None if line.verdict == Some(Verdict::NeverAccepted) => {
                let to_ns = line.closed_mono_ns.unwrap_or(line.mono_ns);
                self.explain(connection, to_ns, None)
            }
            None => None,
        };
    }

    fn explain(
        &self,
        connection: &Connection,
        to_ns: u64,
        accepted_by: Option<Task>,
    ) -> Option<Box<Late>> {
        let acceptors = self.acceptors.as_ref()?;
        let from_ns = connection.established_ns()?;
        if to_ns.saturating_sub(from_ns) <= acceptors.why_ns {
            return None;
        }
        let listener = connection.listener;
        let listener = listener.and_then(|id| Some((id, self.listeners.get(id)?.sk())));
        let (mut threads, accept) =
            listener.map_or((vec![], false), |(id, sk)| acceptors.of(id, sk));
        if let Some(task) = accepted_by
            && let Some(thread) = acceptors.get(task.tid)
            && !threads.iter().any(|it: &&Thread| it.task.tid == task.tid)
        {
            threads.push(thread);
        }
        let wait = Wait {
            from_ns,
            to_ns,
            accepted_by,
            threads: &threads,
            accept,
            losses: self.losses,
        };
        Some(Box::new(late::explain(acceptors, &wait)))
    }

    /// Inserts a `stack` line before the first line that refers to its stack, from index `first` on.
    pub(super) fn write_stacks(&mut self, first: usize, lines: &mut Vec<Line>) {
        if !self.is_shown(Kind::Stack) {
            return;
        }
        let Some(acceptors) = &mut self.acceptors else {
            return;
        };
        let mut at = first;
        while let Some(line) = lines.get(at) {
            let late = match line {
                Line::Accept(x) => x.late.as_deref(),
                Line::Connection(x) => x.late.as_deref(),
                _ => None,
            };
            let mono_ns = line.mono_ns();
            let new: Vec<Line> = late
                .into_iter()
                .flat_map(Late::stacks)
                .filter_map(|number| acceptors.stacks.announce(number, mono_ns))
                .map(Line::Stack)
                .collect();
            let count = new.len();
            lines.splice(at..at, new);
            at += count + 1;
        }
    }
}
