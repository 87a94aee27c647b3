//! The keys of each kind of line, in order: when a line has a key, and its value.
//!
//! A line has the keys that apply to it. Null means that a key applies and its value is unknown.
//! Texts that can be derived from other keys are left out. A key that only some lines of a kind
//! have is followed by a condition, and by its description for the JSON Schema.

use serde::Serialize;
use serde_json::Error;

use super::writer::Writer;
use crate::event::{Context, ListenQueue, OverflowSegment, State};
use crate::fields::{
    Accept, Connection, Ending, Histogram, Overflow, Preexisting, Reset, Retransmit, Segment, Side,
    Source, Subject, TimeWait, Transition, Verdict,
};

/// A key of one kind of line.
pub struct Key {
    pub name: &'static str,
    /// Describes the lines of the kind that have the key; empty: all.
    pub when: &'static str,
}

/// Defines two items for each kind of line: a list of the keys after `event` and `ts`, and a
/// function that writes these keys, each preceded by a comma.
macro_rules! keys {
    ($(
        $(#[$doc:meta])*
        $kind:ident / $list:ident: |$line:ident: $type:ty, $subject:ident| {
            $($key:ident $(if $when:expr, $words:literal)? => $value:expr,)*
        }
    )*) => {$(
        $(#[$doc])*
        pub fn $kind(out: &mut Vec<u8>, $line: &$type) -> Result<(), Error> {
            let $subject = Whose::whose($line);
            $(
                if true $(&& $when)? {
                    out.extend_from_slice(concat!(",\"", stringify!($key), "\":").as_bytes());
                    $value.serialize(Writer::new(out))?;
                }
            )*
            Ok(())
        }

        const $list: &[Key] = &[$(
            Key { name: stringify!($key), when: concat!($($words)?) },
        )*];
    )*};
}

keys! {
    preexisting / PREEXISTING: |x: Preexisting, s| {
        conn => s.conn,
        side => s.side,
        laddr => s.laddr,
        lport => s.lport,
        raddr if !s.is_listener(), "of connections" => s.raddr,
        rport if !s.is_listener(), "of connections" => s.rport,
        scope_id if s.scope_id.is_some(), "with link-local addresses" => s.scope_id,
        netns => s.netns,
        cookie => s.cookie,
        uid => s.uid,
        cgroup => s.cgroup,
        container if s.container.is_some(), "of sockets in a known container" => s.container,
        container_name if s.container.is_some(), "of sockets in a known container" => s.container_name,
        container_image if s.container.is_some(), "of sockets in a known container" => s.container_image,
        k8s_pod_name if s.container.is_some(), "of sockets in a known container" => s.k8s_pod_name,
        k8s_namespace_name if s.container.is_some(), "of sockets in a known container" => s.k8s_namespace_name,
        pid => s.pid,
        nspid if s.nspid.is_some(), "of processes known to have another number in their PID namespace" => s.nspid,
        tid if s.pid.is_some(), "with pid" => s.tid,
        comm if s.pid.is_some(), "with pid" => s.comm,
        process if s.pid.is_some(), "with pid" => s.process,
        pid_source if s.pid.is_some(), "with pid" => s.pid_source,
        state => x.state,
        backlog_len if s.is_listener(), "of listeners" => x.backlog_len,
        backlog_max if s.is_listener(), "of listeners" => x.backlog_max,
    }

    transition / TRANSITION: |x: Transition, s| {
        conn => s.conn,
        side if s.is_listener(), "of listeners" => s.side,
        laddr => s.laddr,
        lport => s.lport,
        raddr if !s.is_listener(), "of connections" => s.raddr,
        rport if !s.is_listener(), "of connections" => s.rport,
        scope_id if s.scope_id.is_some(), "with link-local addresses" => s.scope_id,
        netns if s.is_listener() || begins(x), "of listeners, and where a connection begins" => s.netns,
        cookie if s.is_listener(), "of listeners" => s.cookie,
        uid if s.is_listener(), "of listeners" => s.uid,
        cgroup if s.is_listener(), "of listeners" => s.cgroup,
        container if s.is_listener() && s.container.is_some(), "of listeners in a known container" => s.container,
        container_name if s.is_listener() && s.container.is_some(), "of listeners in a known container" => s.container_name,
        container_image if s.is_listener() && s.container.is_some(), "of listeners in a known container" => s.container_image,
        k8s_pod_name if s.is_listener() && s.container.is_some(), "of listeners in a known container" => s.k8s_pod_name,
        k8s_namespace_name if s.is_listener() && s.container.is_some(), "of listeners in a known container" => s.k8s_namespace_name,
        pid if names_process(x), "of listeners, where a connection begins, and where context is process" => s.pid,
        nspid if names_process(x) && s.nspid.is_some(), "with pid, of processes known to have another number in their PID namespace" => s.nspid,
        tid if s.is_listener() && s.pid.is_some(), "of listeners, with pid" => s.tid,
        comm if names_process(x) && s.pid.is_some(), "with pid" => s.comm,
        process if s.is_listener() && s.pid.is_some(), "of listeners, with pid" => s.process,
        pid_source if names_source(x) && s.pid.is_some(), "of listeners, and where a server's connection begins, with pid" => s.pid_source,
        oldstate => x.oldstate,
        newstate => x.newstate,
        in_state_ns if !begins(x), "where no connection or listener begins" => x.in_state_ns,
        context => x.context,
        cpu => x.cpu,
        source if x.source != Source::Tracepoint, "that the tracepoint itself did not print" => x.source,
        cause => x.cause,
        bucket if x.bucket.is_some(), "of sockets that leave a bucket behind" => x.bucket,
        error if x.error.is_some(), "of sockets with a pending error" => x.error,
        backlog_max if listens(x), "of changes into LISTEN" => x.backlog.backlog_max,
        backlog_asked if listens(x), "of changes into LISTEN" => x.backlog.backlog_asked,
        somaxconn if listens(x), "of changes into LISTEN" => x.backlog.somaxconn,
        backlog_clipped if listens(x), "of changes into LISTEN" => x.backlog.backlog_clipped,
    }

    accept / ACCEPT: |x: Accept, s| {
        mono_ns => x.mono_ns,
        conn if x.accept_error.is_none(), "of calls that gave a connection" => s.conn,
        laddr => s.laddr,
        lport => s.lport,
        raddr if x.accept_error.is_none(), "of calls that gave a connection" => s.raddr,
        rport if x.accept_error.is_none(), "of calls that gave a connection" => s.rport,
        scope_id if s.scope_id.is_some(), "with link-local addresses" => s.scope_id,
        netns if s.conn.is_none(), "without conn" => s.netns,
        pid => s.pid,
        tid => s.tid,
        comm => s.comm,
        listener => x.listener,
        called_mono_ns => x.called_mono_ns,
        blocked_ns => x.blocked_ns,
        accept_queue_ns if x.accept_error.is_none(), "of calls that gave a connection" => x.accept_queue_ns,
        backlog_len => x.backlog_len,
        backlog_max => x.backlog_max,
        witness => x.witness,
        accept_error if x.accept_error.is_some(), "of calls that failed" => x.accept_error,
        verdict if x.accept_error.is_none(), "of calls that gave a connection" => x.verdict,
        acceptor_tid if x.late.is_some(), "of a wait that --why explains" => x.late.as_ref().map(|it| &it.acceptor_tid),
        acceptor_running_ns if x.late.is_some(), "of a wait that --why explains" => x.late.as_ref().map(|it| &it.acceptor_running_ns),
        acceptor_runnable_ns if x.late.is_some(), "of a wait that --why explains" => x.late.as_ref().map(|it| &it.acceptor_runnable_ns),
        acceptor_throttled_ns if x.late.is_some(), "of a wait that --why explains" => x.late.as_ref().map(|it| &it.acceptor_throttled_ns),
        acceptor_blocked_ns if x.late.is_some(), "of a wait that --why explains" => x.late.as_ref().map(|it| &it.acceptor_blocked_ns),
        acceptor_unseen_ns if x.late.is_some(), "of a wait that --why explains" => x.late.as_ref().map(|it| &it.acceptor_unseen_ns),
        acceptor_blocked_in if x.late.is_some(), "of a wait that --why explains" => x.late.as_ref().map(|it| &it.acceptor_blocked_in),
        acceptor_running_in if x.late.is_some(), "of a wait that --why explains" => x.late.as_ref().map(|it| &it.acceptor_running_in),
        other_acceptors if x.late.is_some(), "of a wait that --why explains" => x.late.as_ref().map(|it| &it.other_acceptors),
        late_reason if x.late.is_some(), "of a wait that --why explains" => x.late.as_ref().map(|it| &it.late_reason),
        late_because if x.late.is_some(), "of a wait that --why explains" => x.late.as_ref().map(|it| &it.late_because),
    }

    overflow / OVERFLOW: |x: Overflow, s| {
        conn if s.conn.is_some(), "where the segment is of a connection of the trace" => s.conn,
        laddr => s.laddr,
        lport => s.lport,
        raddr => s.raddr,
        rport => s.rport,
        scope_id if s.scope_id.is_some(), "with link-local addresses" => s.scope_id,
        netns if s.conn.is_none(), "without conn" => s.netns,
        listener => x.listener,
        dropped => x.dropped,
        queue => x.queue,
        queue_len => x.queue_len,
        queue_max => x.queue_max,
        reserve if x.queue == ListenQueue::Syn, "of a full SYN queue" => x.reserve,
        aborted if x.dropped == OverflowSegment::Ack, "of a dropped ACK" => x.aborted,
    }

    segment / SEGMENT: |x: Segment, s| {
        conn if s.conn.is_some(), "where its end has a connection" => s.conn,
        laddr => s.laddr,
        lport => s.lport,
        raddr => s.raddr,
        rport => s.rport,
        scope_id if s.scope_id.is_some(), "with link-local addresses" => s.scope_id,
        netns if s.conn.is_none(), "without conn" => s.netns,
        direction => x.direction,
        flags => x.flags,
        seq => x.seq,
        ack if x.ack.is_some(), "with the ACK flag" => x.ack,
        rel_seq => x.rel_seq,
        rel_ack if x.ack.is_some(), "with the ACK flag" => x.rel_ack,
        len => x.len,
        win => x.win,
        ifindex => x.ifindex,
        cpu => x.cpu,
    }

    connection / CONNECTION: |x: Connection, s| {
        mono_ns => x.mono_ns,
        conn => s.conn,
        side => s.side,
        laddr => s.laddr,
        lport => s.lport,
        raddr => s.raddr,
        rport => s.rport,
        scope_id if s.scope_id.is_some(), "with link-local addresses" => s.scope_id,
        netns => s.netns,
        cookie => s.cookie,
        uid => s.uid,
        cgroup => s.cgroup,
        container if s.container.is_some(), "of sockets in a known container" => s.container,
        container_name if s.container.is_some(), "of sockets in a known container" => s.container_name,
        container_image if s.container.is_some(), "of sockets in a known container" => s.container_image,
        k8s_pod_name if s.container.is_some(), "of sockets in a known container" => s.k8s_pod_name,
        k8s_namespace_name if s.container.is_some(), "of sockets in a known container" => s.k8s_namespace_name,
        pid => s.pid,
        nspid if s.nspid.is_some(), "of processes known to have another number in their PID namespace" => s.nspid,
        tid if s.pid.is_some(), "with pid" => s.tid,
        comm if s.pid.is_some(), "with pid" => s.comm,
        process if s.pid.is_some(), "with pid" => s.process,
        pid_source if s.pid.is_some(), "with pid" => s.pid_source,
        syn_mono_ns => x.syn_mono_ns,
        syn_source if is_other(x.syn_source), "where syn_mono_ns is not the tracepoint's" => x.syn_source,
        established_mono_ns => x.established_mono_ns,
        accept_called_mono_ns if may_be_accepted(x), "of a server's connection that was accepted, or may have been" => x.accept_called_mono_ns,
        accepted_mono_ns if may_be_accepted(x), "of a server's connection that was accepted, or may have been" => x.accepted_mono_ns,
        closed_mono_ns if x.closed_mono_ns.is_some_and(|ns| ns != x.mono_ns), "where that was before mono_ns" => x.closed_mono_ns,
        handshake_ns => x.handshake_ns,
        half_open_ns if s.is_server(), "of a server's connection" => x.half_open_ns,
        half_open_end if is_half_open(x), "of a half-open connection" => x.half_open_end,
        synack_retransmits if s.is_server(), "of a server's connection" => x.synack_retransmits,
        syncookie if s.is_server(), "of a server's connection" => x.syncookie,
        defer_accept if s.is_server(), "of a server's connection" => x.defer_accept,
        syn_queue_ahead if s.is_server(), "of a server's connection" => x.syn_queue_ahead,
        accept_queue_ns if may_be_accepted(x), "of a server's connection that was accepted, or may have been" => x.accept_queue_ns,
        backlog_ahead if s.is_server() && !is_half_open(x), "of a server's connection that was not half-open to its end" => x.backlog_ahead,
        backlog_max if s.is_server() && !is_half_open(x), "of a server's connection that was not half-open to its end" => x.backlog_max,
        listener if s.is_server(), "of a server's connection" => x.listener,
        listener_source if s.is_server(), "of a server's connection" => x.listener_source,
        verdict if s.is_server(), "of a server's connection" => x.verdict,
        reason if x.reason.is_some() && !x.reason_follows, "where it says more than the verdict and the times" => x.reason,
        acceptor_tid if x.late.is_some(), "of a wait that --why explains" => x.late.as_ref().map(|it| &it.acceptor_tid),
        acceptor_running_ns if x.late.is_some(), "of a wait that --why explains" => x.late.as_ref().map(|it| &it.acceptor_running_ns),
        acceptor_runnable_ns if x.late.is_some(), "of a wait that --why explains" => x.late.as_ref().map(|it| &it.acceptor_runnable_ns),
        acceptor_throttled_ns if x.late.is_some(), "of a wait that --why explains" => x.late.as_ref().map(|it| &it.acceptor_throttled_ns),
        acceptor_blocked_ns if x.late.is_some(), "of a wait that --why explains" => x.late.as_ref().map(|it| &it.acceptor_blocked_ns),
        acceptor_unseen_ns if x.late.is_some(), "of a wait that --why explains" => x.late.as_ref().map(|it| &it.acceptor_unseen_ns),
        acceptor_blocked_in if x.late.is_some(), "of a wait that --why explains" => x.late.as_ref().map(|it| &it.acceptor_blocked_in),
        acceptor_running_in if x.late.is_some(), "of a wait that --why explains" => x.late.as_ref().map(|it| &it.acceptor_running_in),
        other_acceptors if x.late.is_some(), "of a wait that --why explains" => x.late.as_ref().map(|it| &it.other_acceptors),
        late_reason if x.late.is_some(), "of a wait that --why explains" => x.late.as_ref().map(|it| &it.late_reason),
        late_because if x.late.is_some(), "of a wait that --why explains" => x.late.as_ref().map(|it| &it.late_because),
        state => x.state,
        peer_conn if x.peer_conn.is_some(), "of connections whose other end is in the trace" => x.peer_conn,
        overflows if s.is_server() || x.overflows.is_some(), "of a server's connection, and of a client's whose other end shows it" => x.overflows,
        first_overflow_mono_ns if x.first_overflow_mono_ns.is_some(), "of connections with overflows" => x.first_overflow_mono_ns,
        explanation if x.explanation.is_some(), "of a client's connection that met a full queue" => x.explanation,
        bucket if x.bucket.is_some(), "of connections that have left a bucket behind" => x.bucket,
        error if x.error.is_some(), "of connections that ended with an error" => x.error,
        ended if has_ended(x), "of connections whose socket has ended" => x.ending.ended,
        closed_first if x.ending.closed_first.is_some(), "where a FIN was sent, and it is known whose was first" => x.ending.closed_first,
        fin_sent if has_ended(x), "of connections whose socket has ended" => x.ending.fin_sent,
        syn_retransmits if s.side == Some(Side::Client), "of a client's connection" => x.ending.syn_retransmits,
        bytes_acked if has_ended(x), "of connections whose socket has ended" => x.ending.bytes_acked,
        bytes_received if has_ended(x), "of connections whose socket has ended" => x.ending.bytes_received,
        segs_out if has_ended(x), "of connections whose socket has ended" => x.ending.segs_out,
        segs_in if has_ended(x), "of connections whose socket has ended" => x.ending.segs_in,
        retransmits if has_ended(x), "of connections whose socket has ended" => x.ending.retransmits,
        srtt_ns if has_ended(x), "of connections whose socket has ended" => x.ending.srtt_ns,
        snd_cwnd if has_ended(x), "of connections whose socket has ended" => x.ending.snd_cwnd,
        unread_bytes if has_ended(x), "of connections whose socket has ended" => x.ending.unread_bytes,
        complete => x.complete,
        evicted if !x.complete, "where complete is false" => x.evicted,
    }

    retransmit / RETRANSMIT: |x: Retransmit, s| {
        conn if s.conn.is_some(), "of a connection of the trace" => s.conn,
        laddr => s.laddr,
        lport => s.lport,
        raddr => s.raddr,
        rport => s.rport,
        scope_id if s.scope_id.is_some(), "with link-local addresses" => s.scope_id,
        netns if s.conn.is_none(), "without conn" => s.netns,
        state => x.state,
        retransmitted => x.retransmitted,
        retransmits => x.retransmits,
    }

    reset / RESET: |x: Reset, s| {
        conn if s.conn.is_some(), "of a connection of the trace" => s.conn,
        laddr => s.laddr,
        lport => s.lport,
        raddr => s.raddr,
        rport => s.rport,
        scope_id if s.scope_id.is_some(), "with link-local addresses" => s.scope_id,
        netns if s.conn.is_none(), "without conn" => s.netns,
        state if x.state.is_some(), "with a socket" => x.state,
        direction => x.direction,
        rst_reason if x.rst_reason.is_some(), "where the kernel gives one" => x.rst_reason,
    }

    time_wait / TIME_WAIT: |x: TimeWait, s| {
        conn => s.conn,
        laddr => s.laddr,
        lport => s.lport,
        raddr => s.raddr,
        rport => s.rport,
        scope_id if s.scope_id.is_some(), "with link-local addresses" => s.scope_id,
        state => x.state,
        fin_wait2_ns => x.fin_wait2_ns,
        time_wait_ns => x.time_wait_ns,
        bucket_end => x.bucket_end,
        source => x.source,
    }

    histogram / HISTOGRAM: |x: Histogram, s| {
        mono_ns => x.mono_ns,
        interval_ns => x.interval_ns,
        side => s,
        netns => x.netns,
        port => x.port,
        went_well => x.went_well,
        queued if s == Side::Server, "of a server's connection" => x.queued,
        awaited if s == Side::Server, "of a server's connection" => x.awaited,
        handshake => x.handshake,
        accept_queue if s == Side::Server, "of a server's connection" => x.accept_queue,
        late_connections if x.late.is_some(), "of servers, with --why" => x.late.as_ref().map(|it| it.late_connections),
        late_running_ns if x.late.is_some(), "of servers, with --why" => x.late.as_ref().map(|it| it.late_running_ns),
        late_cpu_ns if x.late.is_some(), "of servers, with --why" => x.late.as_ref().map(|it| it.late_cpu_ns),
        late_quota_ns if x.late.is_some(), "of servers, with --why" => x.late.as_ref().map(|it| it.late_quota_ns),
        late_blocked_ns if x.late.is_some(), "of servers, with --why" => x.late.as_ref().map(|it| it.late_blocked_ns),
        late_lock_ns if x.late.is_some(), "of servers, with --why" => x.late.as_ref().map(|it| it.late_lock_ns),
        late_page_fault_ns if x.late.is_some(), "of servers, with --why" => x.late.as_ref().map(|it| it.late_page_fault_ns),
        late_not_woken_ns if x.late.is_some(), "of servers, with --why" => x.late.as_ref().map(|it| it.late_not_woken_ns),
        late_stopped_ns if x.late.is_some(), "of servers, with --why" => x.late.as_ref().map(|it| it.late_stopped_ns),
        late_traced_ns if x.late.is_some(), "of servers, with --why" => x.late.as_ref().map(|it| it.late_traced_ns),
        late_frozen_ns if x.late.is_some(), "of servers, with --why" => x.late.as_ref().map(|it| it.late_frozen_ns),
        late_unseen_ns if x.late.is_some(), "of servers, with --why" => x.late.as_ref().map(|it| it.late_unseen_ns),
    }
}

/// Returns the keys of a kind of line after `event` and `ts`. `None` for kinds whose lines have all
/// fields.
pub fn of(event: &str) -> Option<&'static [Key]> {
    Some(match event {
        "preexisting" => PREEXISTING,
        "transition" => TRANSITION,
        "accept" => ACCEPT,
        "overflow" => OVERFLOW,
        "segment" => SEGMENT,
        "connection" => CONNECTION,
        "retransmit" => RETRANSMIT,
        "reset" => RESET,
        "time_wait" => TIME_WAIT,
        "histogram" => HISTOGRAM,
        _ => return None,
    })
}

/// Access to the subject of a line: a socket, or a side for histograms.
trait Whose<'a> {
    type Of;
    fn whose(line: &'a Self) -> Self::Of;
}

macro_rules! whose {
    ($($type:ident)*) => {$(
        impl<'a> Whose<'a> for $type {
            type Of = &'a Subject;
            fn whose(line: &'a $type) -> &'a Subject {
                &line.subject
            }
        }
    )*};
}

whose! { Preexisting Transition Accept Overflow Segment Connection Retransmit Reset TimeWait }

impl Whose<'_> for Histogram {
    type Of = Side;
    fn whose(line: &Histogram) -> Side {
        line.side
    }
}

/// Returns true if the change begins a connection, half-open or not, or a listener.
fn begins(x: &Transition) -> bool {
    match x.newstate {
        State::Listen | State::SynSent | State::NewSynRecv => true,
        State::SynRecv => x.oldstate == State::Listen,
        _ => false,
    }
}

fn listens(x: &Transition) -> bool {
    x.newstate == State::Listen
}

/// Returns true if the line names the process: the socket is a listener or new, or its process made
/// the change.
fn names_process(x: &Transition) -> bool {
    x.subject.is_listener() || begins(x) || x.context == Some(Context::Process)
}

/// Returns true if the line has `pid_source`. The process that the line names need not have caused
/// the change.
fn names_source(x: &Transition) -> bool {
    x.subject.is_listener() || begins(x) && x.newstate != State::SynSent
}

fn is_other(source: Option<Source>) -> bool {
    source.is_some_and(|source| source != Source::Tracepoint)
}

/// Returns true if the connection stayed half-open: it never had a socket or a place in the accept
/// queue.
fn is_half_open(x: &Connection) -> bool {
    x.verdict == Some(Verdict::Unfinished) && x.ending == Ending::default()
}

fn may_be_accepted(x: &Connection) -> bool {
    x.accepted_mono_ns.is_some() || x.verdict == Some(Verdict::Unknown)
}

fn has_ended(x: &Connection) -> bool {
    x.state == State::Close && !is_half_open(x)
}
