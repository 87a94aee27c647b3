//! Judgement of a connection: the causes of its changes of state, its verdict, and its line.

use super::verdict::{self, Facts, Fate, Gap, Judgement, Queue};
use super::{cause, ending};
use crate::correlate::state::connection::{Accepted, Connection, birth, called_ns};
use crate::correlate::state::dropped_syns::REMEMBER_NS;
use crate::correlate::state::handshake::Handshake;
use crate::correlate::state::listener::{ListenerId, Listeners};
use crate::correlate::state::socket::Owner;
use crate::correlate::state::why::{Clues, Judged};
use crate::errno;
use crate::event::{Called, SetState, State};
use crate::fields::{self, Side};

/// Judges a change of state that a connection is about to make. `reset_follows`: the kernel sends a
/// RST from the socket right afterwards.
pub fn change(connection: &Connection, change: &SetState, reset_follows: bool) -> Judged {
    let clues = Clues {
        was_orphaned: connection.socket.was_orphaned,
        reset_follows,
        data_may_be_late: connection.ending.data_may_have_come_too_late(change),
    };
    let why = cause::cause(change, clues);
    let (side, was_held) = (connection.socket.side, connection.was_held());
    let ended = ending::ended(&connection.ending, side, was_held, change, clues, why);
    let born_by = connection
        .born_by
        .filter(|_| birth(change) == Some(Side::Server));
    Judged {
        why: born_by.and_then(|by| cause::birth(change, by)).or(why),
        ended,
    }
}

impl Connection {
    /// Returns the `connection` line at the end of the connection. `owner`: the connection's owner.
    #[inline(always)]
    pub fn line(&self, end: &End, owner: Option<Owner>) -> fields::Connection {
        let judgement = self.is_server().then(|| self.judge(end));
        let evidence = judgement.as_ref().filter(|_| end.words);
        let evidence = evidence.and_then(Judgement::evidence);
        let reason_follows = judgement.as_ref().is_some_and(|it| it.follows);
        let (verdict, reason) = judgement.map(|it| (it.verdict, it.reason)).unzip();
        fields::Connection {
            mono_ns: end.mono_ns,
            subject: self.socket.subject(owner),
            syn_mono_ns: self.handshake.syn.map(|(ns, _)| ns),
            syn_source: self.handshake.syn.map(|(_, source)| source),
            established_mono_ns: self.established_ns,
            accept_called_mono_ns: self.accepted.and_then(|a| called_ns(a.called)),
            accepted_mono_ns: self.accepted.map(|a| a.mono_ns),
            closed_mono_ns: self.closed_ns,
            handshake_ns: self.handshake_ns(),
            half_open_ns: self.half_open_ns(),
            half_open_end: None,
            synack_retransmits: self.handshake.synack_retransmits,
            syncookie: self.handshake.syncookie,
            defer_accept: self.handshake.defer_accept,
            syn_queue_ahead: self.handshake.syn_queue_ahead,
            accept_queue_ns: self.accept_queue_ns(),
            backlog_ahead: self.backlog.as_ref().map(|b| b.ahead),
            backlog_max: self.backlog.as_ref().map(|b| b.max),
            listener: self.listener.map(ListenerId::conn),
            listener_source: self.listener_source.filter(|_| self.is_server()),
            verdict,
            reason: reason.flatten(),
            reason_follows,
            late: None,
            evidence,
            state: self.socket.state,
            peer_conn: self.peer.map(|peer| peer.conn),
            peer_established_mono_ns: self.peer.map(|peer| peer.established_ns),
            overflows: self.overflows(end),
            first_overflow_mono_ns: self.handshake.drops.first_ns(),
            explanation: self.explanation(end),
            bucket: self.bucket,
            error: self.err.map(errno::name),
            ending: self.ending.fields(self.socket.side),
            complete: self.gap(end).is_none(),
            evicted: self.evicted,
        }
    }

    /// Returns the number of the connection's segments that met a full queue. For a client only the
    /// peer's socket can show that, and only if it is on this host.
    fn overflows(&self, end: &End) -> Option<u32> {
        let can_know = self.is_server() || self.peer.is_some();
        let times = overflows(&self.handshake, end)?;
        (can_know || times > 0).then_some(times)
    }

    /// Returns the effect of a full queue on a client, as text.
    fn explanation(&self, end: &End) -> Option<String> {
        let (syn_ns, _) = self.handshake.syn?;
        if self.socket.side != Some(Side::Client) {
            return None;
        }
        let left_ns = self.established_ns.or(self.closed_ns);
        let waited_ns = left_ns.unwrap_or(end.mono_ns).checked_sub(syn_ns);
        let late_ns = self
            .peer
            .zip(self.established_ns)
            .and_then(|(peer, own_ns)| peer.established_ns.checked_sub(own_ns));
        let Handshake {
            drops, suspected, ..
        } = &self.handshake;
        let seen = drops.of_client(waited_ns, late_ns);
        seen.or_else(|| {
            let answered = self.established_ns.is_some();
            let silent = !answered
                && matches!(
                    self.err.map(errno::name).as_deref(),
                    None | Some("ETIMEDOUT")
                );
            let syn_again = self.ending.syn_retransmits();
            suspected.of_client(syn_again, answered, silent, waited_ns, late_ns)
        })
    }

    /// Returns the judgement from the facts so far, as if the connection ended with `end`.
    fn judge(&self, end: &End) -> Judgement {
        let drops = &self.handshake.drops;
        let again = self.handshake.synack_retransmits;
        let suspected = match drops.times() {
            0 => self.handshake.suspected.of_server(again),
            _ => None,
        };
        let is_plain = self.failed_meanwhile.is_none() && suspected.is_none() && drops.times() == 0;
        let mut judgement = self.judge_handshake(end, end.words || !is_plain);
        if let Some(failed) = &self.failed_meanwhile {
            judgement.add("; ");
            judgement.add(failed);
        }
        if let Some(more) = suspected {
            judgement.add(&more);
        }
        if drops.times() > 0 {
            let until_ns = self.established_ns.unwrap_or(end.mono_ns);
            judgement.add(&drops.of_server(until_ns, again));
            judgement.evidence.push("listen_overflow");
        }
        judgement
    }

    fn judge_handshake(&self, end: &End, words: bool) -> Judgement {
        verdict::judge(&Facts {
            attached_ns: end.attached_ns,
            established_ns: self.established_ns,
            accepted: self.accepted.map(|accepted| match accepted.called {
                Called::BeforeTrace if end.missed => Accepted {
                    called: Called::Unknown,
                    ..accepted
                },
                _ => accepted,
            }),
            gap: self.gap(end),
            skipped_established: self.skipped_established,
            fate: self.fate(end),
            queue: self.queue(end),
            words,
        })
    }

    /// Returns the judgement at the return of accept(). Returns `None` if an ESTABLISHED that
    /// follows may still decide.
    pub fn judge_at_accept(&self, now: &End) -> Option<Judgement> {
        let undecided =
            self.established_ns.is_none() && !self.skipped_established && self.gap(now).is_none();
        (!undecided).then(|| self.judge(now))
    }

    fn handshake_ns(&self) -> Option<u64> {
        self.established_ns?.checked_sub(self.handshake.syn?.0)
    }

    /// Returns the time from the SYN to the birth of the server's child socket, which the final ACK
    /// makes.
    fn half_open_ns(&self) -> Option<u64> {
        let born_ns = (self.is_server() && !self.birth_unseen).then_some(self.first_seen_ns)?;
        born_ns.checked_sub(self.handshake.syn?.0)
    }

    fn gap(&self, end: &End) -> Option<Gap> {
        // If the trace found the connection after an event loss, the lost event may be the
        // connection's birth.
        if self.first_seen_ns < end.attached_ns || (self.is_older && self.losses == 0) {
            Some(Gap::BeforeTrace)
        } else if self.evicted {
            Some(Gap::Evicted)
        } else if self.late {
            Some(Gap::Late)
        } else if self.birth_unseen {
            Some(Gap::Beginning)
        } else if self.losses != end.losses {
            Some(end.why_lost)
        } else if self.socket.missed || self.was_accepted_established() {
            Some(Gap::Missed)
        } else {
            None
        }
    }

    /// Returns whether accept() returned the connection as ESTABLISHED although no change to
    /// ESTABLISHED was seen.
    fn was_accepted_established(&self) -> bool {
        let state = self.accepted.and_then(|it| it.state);
        self.established_ns.is_none() && state == Some(State::Established)
    }

    fn queue(&self, end: &End) -> Queue {
        let is_queued = match self.socket.state {
            State::Close => self.still_queued,
            _ => end
                .last_snapshot_ns
                .and_then(|snapshot_ns| self.was_queued_at(snapshot_ns).then_some(true)),
        };
        match is_queued {
            Some(true) => Queue::Queued,
            Some(false) => Queue::Left,
            None if end.sees_all_accepts => Queue::NoAccept,
            None => Queue::Unknown,
        }
    }

    fn fate(&self, end: &End) -> Fate {
        match (self.socket.state, self.err) {
            _ if self.held || self.held_at_end => Fate::Held,
            (State::Close, Some(errno)) => Fate::Failed(errno),
            (State::Close, None) if end.listener_closed => Fate::ListenerClosed,
            (State::Close, None) => Fate::Dropped,
            (State::CloseWait, _) => Fate::PeerClosed,
            _ => Fate::Open,
        }
    }
}

/// Facts of the trace that the judgement of a connection depends on.
pub struct End {
    pub mono_ns: u64,
    /// When all hooks were attached.
    pub attached_ns: u64,
    /// Number of event losses noticed so far.
    pub losses: u64,
    /// The kind of gap if events were lost since the connection began.
    pub why_lost: Gap,
    /// True if the kernel skipped runs of an eBPF program, possibly the program at the entry of
    /// accept().
    pub missed: bool,
    /// True if the accept queue that the connection can have been in no longer exists.
    pub listener_closed: bool,
    pub sees_overflows: bool,
    /// When entries of [`DroppedSyns`](crate::correlate::state::dropped_syns::DroppedSyns) were
    /// last removed to make room.
    pub forgot_syns_ns: Option<u64>,
    /// True if the hooks see every accept(), those by io_uring and by the kernel included.
    pub sees_all_accepts: bool,
    /// When the snapshot at the end of the trace began.
    pub last_snapshot_ns: Option<u64>,
    /// True if a reader wants the words that follow from the verdict and the times.
    pub words: bool,
}

/// Returns the number of a connection's segments that met a full queue; `None` if the trace may
/// have missed some of them.
pub fn overflows(handshake: &Handshake, end: &End) -> Option<u32> {
    let times = handshake.drops.times();
    let since_ns = handshake.syn.map_or(0, |(ns, _)| ns);
    let all_known = end.sees_overflows
        && end.attached_ns <= since_ns
        && end
            .forgot_syns_ns
            .is_none_or(|ns| ns.saturating_add(REMEMBER_NS) < since_ns);
    (all_known || times > 0).then_some(times)
}

/// Returns whether the accept queue that a child socket can be in no longer exists.
pub fn listener_closed(listeners: &Listeners, child: &Connection) -> bool {
    match child.listener {
        Some(id) => listeners.is_closed(id),
        // The kernel named a listener that the trace does not know.
        None if child.clone_of.is_some() => false,
        None => listeners.closed_for(&child.socket, child.first_seen_ns, child.is_dropped()),
    }
}
