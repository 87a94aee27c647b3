//! Tests of every edge of the TCP state diagram (RFC 9293, figure 5), as the tracepoint reports
//! them. NEW_SYN_RECV and TIME_WAIT are states of request sockets and buckets, so the tracepoint
//! never reports them.

use super::*;

const ACTIVE: &[State] = &[Close, SynSent, Established];
const PASSIVE: &[State] = &[Listen, SynRecv, Established];
const CROSSED: &[State] = &[Close, SynSent, SynRecv, Established];

const ACTIVE_CLOSE: &[State] = &[Established, FinWait1, FinWait2, Close];
const PASSIVE_CLOSE: &[State] = &[Established, CloseWait, LastAck, Close];
const SIMULTANEOUS_CLOSE: &[State] = &[Established, FinWait1, Closing, Close];
const FIN_AND_ACK_AT_ONCE: &[State] = &[Established, FinWait1, Close];

/// Plays a path of states on one socket and checks the properties that all paths have in common.
fn check(sock: &Sock, path: &[State], err: Option<u32>) -> fields::Connection {
    let name = format!("{path:?}");
    let mut t = trace();
    t.walk(sock, &path[..path.len() - 1]);
    t.wait(MS - US);
    let [before, last] = path[path.len() - 2..] else {
        unreachable!("a path has two states at least");
    };
    t.set(SetState {
        err,
        ..sock.enters(before, last)
    });
    t.finish();

    let seen: Vec<_> = t
        .transitions()
        .iter()
        .map(|x| (x.oldstate, x.newstate))
        .collect();
    let walked: Vec<_> = path.windows(2).map(|step| (step[0], step[1])).collect();
    assert_eq!(seen, walked, "{name}");
    for (n, line) in t.transitions().iter().enumerate() {
        assert_eq!(line.subject.conn, Some(1), "{name}");
        assert_eq!(line.in_state_ns, (n > 0).then_some(MS), "{name}");
    }

    let connection = t.connection(1).clone();
    assert!(connection.complete, "{name}");
    assert_eq!(connection.state, last, "{name}");
    assert_eq!(connection.closed_mono_ns.is_some(), last == Close, "{name}");
    connection
}

fn join(opening: &[State], closing: &[State]) -> Vec<State> {
    let (_, rest) = closing.split_first().unwrap();
    [opening, rest].concat()
}

#[test]
fn every_opening_and_closing_path_gives_its_transitions() {
    for (sock, opening, side) in [
        (client(2), ACTIVE, Side::Client),
        (client(2), CROSSED, Side::Client),
        (child(2), PASSIVE, Side::Server),
    ] {
        for closing in [
            ACTIVE_CLOSE,
            PASSIVE_CLOSE,
            SIMULTANEOUS_CLOSE,
            FIN_AND_ACK_AT_ONCE,
            &[Established, Close],
        ] {
            let connection = check(&sock, &join(opening, closing), None);
            assert_eq!(connection.subject.side, Some(side));
            assert!(connection.established_mono_ns.is_some());
            assert_eq!(connection.verdict.is_some(), side == Side::Server);
        }
    }
}

#[test]
fn rst_received_in_each_state_ends_the_connection() {
    for path in [ACTIVE_CLOSE, PASSIVE_CLOSE, SIMULTANEOUS_CLOSE] {
        for end in 1..path.len() {
            for (sock, opening) in [(client(2), ACTIVE), (child(2), PASSIVE)] {
                let mut path = join(opening, &path[..end]);
                path.push(Close);
                let connection = check(&sock, &path, Some(ECONNRESET));
                assert_eq!(connection.error.as_deref(), Some("ECONNRESET"));
            }
        }
    }
    for (sock, path) in [
        (client(2), &[Close, SynSent, SynRecv, Close][..]),
        (child(2), &[Listen, SynRecv, Close][..]),
    ] {
        let connection = check(&sock, path, Some(ECONNRESET));
        assert_eq!(connection.established_mono_ns, None);
    }
}

#[test]
fn syn_sent_rst_is_refused() {
    let connection = check(&client(2), &[Close, SynSent, Close], Some(111));
    assert_eq!(connection.error.as_deref(), Some("ECONNREFUSED"));
    assert_eq!(connection.handshake_ns, None);
    assert_eq!(connection.verdict, None);
    assert_eq!(connection.reason, None);
    assert_eq!(connection.evidence, None);
}

#[test]
fn half_closed_connection_stays_open() {
    for (closing, last) in [
        (&[Established, FinWait1, FinWait2][..], FinWait2),
        (&[Established, CloseWait][..], CloseWait),
    ] {
        let connection = check(&client(2), &join(ACTIVE, closing), None);
        assert_eq!(connection.state, last);
    }
}

#[test]
fn fast_open_child_closed_before_the_final_ack() {
    let connection = check(
        &child(2),
        &[Listen, SynRecv, FinWait1, FinWait2, Close],
        None,
    );
    assert_eq!(connection.established_mono_ns, None);
}

#[test]
fn client_handshake_time_is_syn_sent_to_established() {
    let connection = check(&client(2), &join(ACTIVE, ACTIVE_CLOSE), None);
    assert_eq!(connection.handshake_ns, Some(MS));
    assert_eq!(connection.syn_mono_ns, Some(START + MS));
    assert_eq!(connection.accept_queue_ns, None);
    assert_eq!(connection.backlog_max, None);
}

#[test]
fn listener_that_closes_makes_no_connection() {
    let mut t = listening();
    t.wait(MS - US);
    t.set(listener().enters_by(server(), Listen, Close));
    assert_eq!(t.last_transition().in_state_ns, Some(MS));
    assert_eq!(t.last_transition().subject.side, Some(Side::Listener));
    let totals = t.finish();
    assert!(t.connections().is_empty());
    assert_eq!((totals.servers, totals.clients), (0, 0));
    assert_eq!(totals.listeners.len(), 1);
}

#[test]
fn socket_that_listens_then_connects_has_two_numbers() {
    let mut t = listening();
    let again = Sock {
        sk: listener().sk,
        ..client(2)
    };
    t.set(listener().enters_by(server(), Listen, Close));
    t.walk(&again, &[Close, SynSent, Established, Close]);
    t.walk(&again, &[Close, SynSent]);
    t.finish();
    assert_eq!(t.connections().len(), 2);
    assert_eq!(t.connection(2).subject.side, Some(Side::Client));
    assert_eq!(t.connection(3).state, SynSent);
}
