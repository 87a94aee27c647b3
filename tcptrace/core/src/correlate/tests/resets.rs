//! Tests of sent and received RSTs and their connections.

use super::ending::{STATS, does, failed, fin_received, happens, orphan, with};
use super::*;
use crate::event::{Direction, Reset, Stats};
use crate::fields::Ended;

fn reset(sock: &Sock, direction: Direction, reason: Option<u32>) -> Reset {
    Reset {
        sk: Some(sock.sk),
        cookie: None,
        netns: NETNS,
        tuple: sock.tuple,
        state: Some(Established),
        direction,
        reason,
    }
}

#[test]
fn rst_sent_by_the_kernel_ends_the_connection_as_reset_sent() {
    let mut t = syn_sent();
    t.set(happens(SynSent, Established));
    t.set(does(Established, FinWait1));
    t.event(Kind::Reset(reset(&client(2), Direction::Sent, Some(13))));
    t.set(orphan(FinWait1, Close));
    t.finish();
    assert_eq!(t.connection(1).ending.ended, Some(Ended::ResetSent));
    let Some(Line::Reset(line)) = t.lines.iter().find(|line| matches!(line, Line::Reset(_))) else {
        panic!();
    };
    assert_eq!(line.subject.conn, Some(1));
    // This trace does not know the kernel's names for RST reasons.
    assert_eq!(line.rst_reason, None);
}

#[test]
fn rst_after_the_end_has_no_conn() {
    let mut t = syn_sent();
    t.set(happens(SynSent, Established));
    t.set(does(Established, FinWait1));
    t.set(orphan(FinWait1, FinWait2));
    t.set(fin_received(orphan(FinWait2, Close)));
    t.event(Kind::Reset(reset(&client(2), Direction::Sent, None)));
    let Some(Line::Reset(line)) = t.lines.last() else {
        panic!();
    };
    assert_eq!(line.subject.conn, None);
    assert_eq!(line.subject.rport, Some(PORT));
}

fn rst(direction: Direction, state: State) -> Kind {
    Kind::Reset(Reset {
        sk: Some(client(2).sk),
        cookie: None,
        netns: NETNS,
        tuple: client(2).tuple,
        state: Some(state),
        direction,
        reason: None,
    })
}

/// Plays events of a connected client, a microsecond apart, with lookahead.
fn played(script: &[Kind]) -> Trace {
    let mut t = syn_sent();
    t.set(happens(SynSent, Established));
    let events: Vec<Event> = script
        .iter()
        .map(|kind| {
            t.wait(US);
            Event {
                mono_ns: t.now,
                cpu: 0,
                lost: 0,
                kind: kind.clone(),
            }
        })
        .collect();
    for (n, event) in events.iter().enumerate() {
        if t.correlator.look_ahead(event, &events[n + 1..]) {
            t.correlator.note_lookahead();
        }
        t.correlator.event(event, &mut t.lines);
    }
    t.finish();
    t
}

fn resets(t: &Trace) -> Vec<(Direction, Option<u64>)> {
    let resets = t.lines.iter().filter_map(|line| match line {
        Line::Reset(x) => Some((x.direction, x.subject.conn)),
        _ => None,
    });
    resets.collect()
}

/// The kernel handles a received RST and late data by tcp_reset(), but answers only the data with a
/// RST.
#[test]
fn late_data_is_not_reported_as_a_received_rst() {
    let data_came = Stats {
        data_segs_in: 1,
        rcv_shutdown: true,
        ..STATS
    };
    let closed = |stats, answered: bool| {
        let mut script = vec![
            Kind::SetState(does(Established, FinWait1)),
            rst(Direction::Received, FinWait1),
            Kind::SetState(with(stats, failed(ECONNRESET, orphan(FinWait1, Close)))),
        ];
        if answered {
            script.push(rst(Direction::Sent, Close));
        }
        played(&script)
    };
    let t = closed(data_came, true);
    assert_eq!(t.connection(1).ending.ended, Some(Ended::ResetSent));
    assert_eq!(resets(&t), [(Direction::Sent, Some(1))]);
    let last = t.transitions().last().unwrap().cause;
    assert_eq!(last, Some(fields::Cause::DataReceived));

    let quiet = Stats {
        rcv_shutdown: true,
        ..STATS
    };
    let t = closed(quiet, false);
    assert_eq!(t.connection(1).ending.ended, Some(Ended::ResetReceived));
    assert_eq!(resets(&t), [(Direction::Received, Some(1))]);
}

/// The kernel sends this RST when the socket is CLOSE and the connection has ended.
#[test]
fn rst_after_an_abort_belongs_to_its_connection() {
    let t = played(&[
        Kind::SetState(does(Established, Close)),
        rst(Direction::Sent, Close),
    ]);
    assert_eq!(resets(&t), [(Direction::Sent, Some(1))]);
}
