//! TIME_WAIT buckets, which the kernel keeps after the socket is gone. A bucket is in FIN_WAIT2
//! until the peer's FIN is received, then in TIME_WAIT (RFC 9293 section 3.3.2).
//!
//! The transitions of the socket end with FIN_WAIT2→CLOSE or CLOSING→CLOSE, and the `connection`
//! line is written there. The bucket continues under the same connection number. It has
//! `transition` lines that the tracepoint did not report, and at its end one `time_wait` line.
//! Where no hook sees buckets, the socket's flags at CLOSE show which bucket the socket leaves.

use std::collections::BTreeSet;

use super::append;
use crate::correlate::judge::cause;
use crate::correlate::state::Correlator;
use crate::correlate::state::buckets::{Begun, Bucket};
use crate::correlate::state::connection::Connection;
use crate::correlate::state::processes::current_owner;
use crate::correlate::state::why::Why;
use crate::event::{
    Event, Kind, SetState, SnapshotEnd, SnapshotEntry, State, Timewait, TimewaitStep,
};
use crate::fields::{Backlog, BucketEnd, Line, Source, TimeWait, Transition};

impl Correlator {
    /// Declares that hooks see buckets ([`Hook::TimewaitSock`](crate::event::Hook)).
    pub fn sees_buckets(&mut self) {
        self.buckets.seen = true;
    }

    /// Handles the begin, a change or the end of a bucket.
    pub(super) fn timewait(&mut self, event: &Event, it: &Timewait, out: &mut Vec<Line>) {
        if let (TimewaitStep::Begun, Some(sk)) = (it.step, it.sk) {
            let begun = Begun {
                mono_ns: event.mono_ns,
                tw: Some(it.tw),
                state: it.substate,
            };
            self.buckets.begun.insert(sk, begun);
            return;
        }
        let key = (it.netns, it.tuple);
        // The bucket is not of a traced connection, or began before the trace.
        let Some(bucket) = self.buckets.open.get_mut(&key) else {
            return;
        };
        if bucket.tw != Some(it.tw) {
            return;
        }
        let ended = match it.step {
            TimewaitStep::Begun => return,
            TimewaitStep::Restarted => None,
            TimewaitStep::Expired => Some(BucketEnd::Expired),
            TimewaitStep::Killed { syn: true } | TimewaitStep::Taken => Some(BucketEnd::Reused),
            TimewaitStep::Killed { syn: false } => Some(BucketEnd::Reset),
            TimewaitStep::Purged => Some(BucketEnd::Purged),
        };
        match ended {
            None if bucket.state != it.substate => {
                let why = cause::bucket_turns();
                let step = bucket.enters(it.substate, event, Source::TimewaitSock, why);
                out.push(Line::Transition(step));
            }
            None => {}
            Some(ended) => {
                if let Some(mut bucket) = self.buckets.open.remove(&key) {
                    if bucket.state != it.substate {
                        // The change to TIME_WAIT was missed.
                        bucket.state = it.substate;
                        bucket.since_ns = None;
                    }
                    bucket.end(ended, event, Source::TimewaitSock, out);
                }
            }
        }
    }

    /// Opens the bucket, if any, that a connection leaves behind by a transition that it is about
    /// to make.
    pub(super) fn leave_bucket(
        &mut self,
        event: &Event,
        change: &SetState,
        connection: &mut Connection,
        reset_follows: bool,
        out: &mut Vec<Line>,
    ) {
        let begun = self.buckets.begun.remove(&change.sk);
        if change.newstate != State::Close {
            return;
        }
        let source = match begun {
            Some(_) => Source::TimewaitSock,
            None => Source::SocketFlags,
        };
        let presumed = || {
            (!self.buckets.seen && !reset_follows)
                .then(|| presume(event, change))
                .flatten()
        };
        let Some(begun) = begun.or_else(presumed) else {
            return;
        };
        let owner = current_owner(
            &self.listeners,
            &self.processes,
            connection,
            change.orphaned,
        );
        let socket = &mut connection.socket;
        socket.learn(&change.tuple, change.cookie);
        let mut bucket = Bucket {
            tw: begun.tw,
            subject: socket.subject(owner),
            state: change.oldstate,
            since_ns: socket.since(change.oldstate),
            fin_wait2_ns: None,
            source,
            present_ns: event.mono_ns,
        };
        connection.bucket = Some(begun.state);
        if begun.state != bucket.state {
            let at = Event {
                mono_ns: begun.mono_ns,
                cpu: event.cpu,
                lost: event.lost,
                kind: Kind::SetState(*change),
            };
            let why = cause::bucket_begins(change.oldstate);
            match self.wants(crate::fields::Kind::Transition) {
                true => append(out, || {
                    Line::Transition(bucket.enters(begun.state, &at, source, why))
                }),
                false => drop(bucket.enters(begun.state, &at, source, why)),
            }
        }
        let key = (change.netns, connection.socket.tuple);
        if let Some(old) = self.buckets.open.insert(key, bucket) {
            append(out, || old.line(event.mono_ns, None, None));
        }
    }

    /// Returns the network namespaces with buckets that only snapshots show.
    pub fn wants_snapshot(&self) -> BTreeSet<u32> {
        match self.buckets.seen {
            true => BTreeSet::new(),
            false => self.buckets.open.keys().map(|key| key.0).collect(),
        }
    }

    /// Handles a bucket in a snapshot. Only the interval since the previous snapshot is known as
    /// the time of its last change.
    pub(super) fn bucket_entry(
        &mut self,
        event: &Event,
        entry: &SnapshotEntry,
        out: &mut Vec<Line>,
    ) {
        let bucket = self.buckets.open.get_mut(&(entry.netns, entry.tuple));
        let Some(bucket) = bucket.filter(|_| !self.buckets.seen) else {
            return;
        };
        bucket.present_ns = event.mono_ns;
        if bucket.state != entry.state {
            bucket.since_ns = None;
            let why = cause::bucket_turns();
            let step = bucket.enters(entry.state, event, Source::SocketIterator, why);
            bucket.since_ns = None;
            out.push(Line::Transition(step));
        }
    }

    /// Handles the end of a snapshot. Buckets that the snapshot does not have are gone.
    pub(super) fn end_missing_buckets(
        &mut self,
        event: &Event,
        snapshot: &SnapshotEnd,
        out: &mut Vec<Line>,
    ) {
        if self.buckets.seen {
            return;
        }
        let gone = self.buckets.open.extract_if(|key, bucket| {
            key.0 == snapshot.netns && bucket.present_ns < snapshot.began_ns
        });
        let mut gone: Vec<Bucket> = gone.map(|(_, bucket)| bucket).collect();
        gone.sort_unstable_by_key(|bucket| bucket.subject.conn);
        for mut bucket in gone {
            bucket.since_ns = None;
            bucket.end(BucketEnd::Gone, event, Source::SocketIterator, out);
        }
    }

    /// Writes the lines of the buckets that are open at the end of the trace, in the order of their
    /// connection numbers.
    pub(super) fn finish_buckets(&mut self, mono_ns: u64, out: &mut Vec<Line>) {
        let mut rest: Vec<Bucket> = self.buckets.open.drain().map(|(_, it)| it).collect();
        rest.sort_unstable_by_key(|bucket| bucket.subject.conn);
        out.extend(rest.iter().map(|it| it.line(mono_ns, None, None)));
    }
}

/// Returns the bucket that a socket leaves behind, according to the socket's flags at CLOSE.
///
/// `tcp_time_wait` leads from FIN_WAIT2 and CLOSING to CLOSE without an error. SOCK_DONE is set if
/// the FIN was received. Otherwise the socket was closed by its process and the bucket waits for
/// the FIN in FIN_WAIT2. The flags do not show that the kernel had no bucket left
/// (TCPTimeWaitOverflow). With TCP_LINGER2 below 0 the kernel sends a RST and makes no bucket. See
/// net/ipv4/tcp_minisocks.c and tcp_input.c, Linux 6.12.
fn presume(event: &Event, change: &SetState) -> Option<Begun> {
    use State::{Closing, FinWait2, TimeWait};
    let state = match change.oldstate {
        _ if change.err.is_some() => return None,
        FinWait2 | Closing if change.fin_received => TimeWait,
        _ if change.stats.is_some_and(|stats| stats.no_fin_wait2) => return None,
        FinWait2 if change.orphaned => FinWait2,
        _ => return None,
    };
    Some(Begun {
        mono_ns: event.mono_ns,
        tw: None,
        state,
    })
}

impl Bucket {
    /// Enters a state and returns the `transition` line.
    #[inline(always)]
    fn enters(
        &mut self,
        newstate: State,
        event: &Event,
        source: Source,
        why: Option<Why>,
    ) -> Transition {
        let oldstate = std::mem::replace(&mut self.state, newstate);
        let since = self.since_ns.replace(event.mono_ns);
        let in_state_ns = since.and_then(|since| event.mono_ns.checked_sub(since));
        if oldstate == State::FinWait2 && newstate == State::TimeWait {
            self.fin_wait2_ns = in_state_ns;
        }
        self.source = source;
        Transition {
            mono_ns: event.mono_ns,
            subject: self.subject.clone(),
            oldstate,
            newstate,
            in_state_ns,
            context: None,
            cpu: event.cpu,
            synthetic: true,
            source,
            cause: why.map(|why| why.cause),
            function: why.map(|why| why.function.into()),
            rfc9293: why.and_then(|why| why.rfc()).map(Into::into),
            bucket: None,
            error: None,
            listener: None,
            backlog: Backlog::default(),
        }
    }

    /// Ends the bucket and appends its lines.
    fn end(mut self, ended: BucketEnd, event: &Event, source: Source, out: &mut Vec<Line>) {
        let last = self.state;
        let closing = self.enters(State::Close, event, source, cause::bucket_end(ended));
        self.state = last;
        let in_state_ns = closing.in_state_ns;
        out.push(Line::Transition(closing));
        out.push(self.line(event.mono_ns, in_state_ns, Some(ended)));
    }

    /// Returns the `time_wait` line. `in_state_ns`: the time in the last state, if that is over.
    #[inline(always)]
    fn line(&self, mono_ns: u64, in_state_ns: Option<u64>, ended: Option<BucketEnd>) -> Line {
        let (fin_wait2_ns, time_wait_ns) = match self.state {
            State::TimeWait => (self.fin_wait2_ns, in_state_ns),
            _ => (in_state_ns, None),
        };
        Line::TimeWait(TimeWait {
            mono_ns,
            subject: self.subject.clone(),
            state: self.state,
            fin_wait2_ns,
            time_wait_ns,
            bucket_end: ended,
            source: self.source,
        })
    }
}
