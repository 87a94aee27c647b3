//! Tests of connections whose client and server are on the same host.

use super::*;

/// Plays client and server of a connection to ESTABLISHED, the client first. The server ends first.
fn both_ends(client: &SetState, server: &SetState) -> Trace {
    let mut t = listening();
    let steps = [
        (client, Close, SynSent),
        (client, SynSent, Established),
        (server, Listen, SynRecv),
        (server, SynRecv, Established),
        (server, Established, Close),
        (client, Established, Close),
    ];
    for (end, oldstate, newstate) in steps {
        t.wait(US);
        t.set(SetState {
            oldstate,
            newstate,
            ..*end
        });
    }
    t.finish();
    t
}

fn end(sock: Sock, netns: u32) -> SetState {
    SetState {
        netns,
        ..sock.enters(Close, Close)
    }
}

/// Returns the client and the server of a connection that is not on the loopback interface.
fn on_a_bridge(netns: [u32; 2]) -> [SetState; 2] {
    let server = tuple("10.0.0.1", PORT, Some(("10.0.0.2", 40_002)));
    let client = tuple("10.0.0.2", 40_002, Some(("10.0.0.1", PORT)));
    let with = |sock: Sock, tuple, netns| SetState {
        tuple,
        ..end(sock, netns)
    };
    [
        with(super::client(2), client, netns[0]),
        with(child(3), server, netns[1]),
    ]
}

#[test]
fn peers_on_one_host_have_each_others_number() {
    // The listener's child socket has the mirrored tuple of this client.
    let client = SetState {
        tuple: tuple("127.0.0.1", 40_003, Some(("127.0.0.1", PORT))),
        ..end(super::client(2), NETNS)
    };
    let t = both_ends(&client, &end(child(3), NETNS));
    let (client, server) = (t.connection(2), t.connection(3));
    assert_eq!(client.peer_conn, Some(3));
    assert_eq!(server.peer_conn, Some(2));
    assert_eq!(client.peer_established_mono_ns, server.established_mono_ns);
    assert_eq!(server.peer_established_mono_ns, client.established_mono_ns);
}

#[test]
fn peers_match_across_namespaces_except_on_loopback() {
    let [client, server] = on_a_bridge([NETNS, NETNS + 1]);
    let t = both_ends(&client, &server);
    assert_eq!(t.connection(2).peer_conn, Some(3));

    let client = SetState {
        tuple: tuple("127.0.0.1", 40_003, Some(("127.0.0.1", PORT))),
        ..end(super::client(2), NETNS + 1)
    };
    let t = both_ends(&client, &end(child(3), NETNS));
    assert_eq!(t.connection(2).peer_conn, None);
    assert_eq!(t.connection(3).peer_conn, None);
}
