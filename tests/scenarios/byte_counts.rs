//! Byte and segment counts at the end of a connection.

use std::io::{Read, Write};

use tests::Lab;
use tests::trace::NULL;
use tests::traffic::*;

#[test]
fn bytes_are_counted_in_both_directions_without_syn_and_fin() {
    const OUT: usize = 100_000;
    const BACK: usize = 7;
    let lab = Lab::new();
    let port = lab.port();
    let tracer = lab.trace();
    let listener = listen(port);
    let mut client = connect(port);
    let mut server = accept(&listener).stream;
    let saying = std::thread::spawn(move || {
        client.write_all(&[b'x'; OUT]).expect("write");
        client.read_exact(&mut [0; BACK]).expect("read");
        client
    });
    server.read_exact(&mut vec![0; OUT]).expect("read");
    server.write_all(&[b'y'; BACK]).expect("write");
    let client = tests::task::join(saying);
    close(client, server);
    tracer.wait_for_ends(2);
    let trace = tracer.stop();

    trace.client().shows(&[
        ("bytes_acked", &OUT),
        ("bytes_received", &BACK),
        ("unread_bytes", &0),
        ("syn_retransmits", &0),
        ("ended", &"orderly"),
        ("closed_first", &"local"),
    ]);
    trace.server().shows(&[
        ("bytes_acked", &BACK),
        ("bytes_received", &OUT),
        ("unread_bytes", &0),
        ("syn_retransmits", &NULL),
        ("ended", &"orderly"),
        ("closed_first", &"remote"),
    ]);
    for side in [trace.client(), trace.server()] {
        assert!(side.num("srtt_ns") > 0, "{side}");
        assert!(side.num("snd_cwnd") > 0, "{side}");
        // Data segments, FINs, and their ACKs.
        assert!(
            side.num("segs_out") >= 3 && side.num("segs_in") >= 3,
            "{side}"
        );
    }
}

#[test]
fn a_connection_without_data_has_zero_bytes() {
    let lab = Lab::new();
    let tracer = lab.trace();
    talk(lab.port());
    tracer.wait_for_ends(2);
    let trace = tracer.stop();

    for side in [trace.client(), trace.server()] {
        side.shows(&[
            ("bytes_acked", &0),
            ("bytes_received", &0),
            ("unread_bytes", &0),
        ]);
    }
}

#[test]
fn an_open_connection_has_no_byte_counts() {
    let lab = Lab::new();
    let port = lab.port();
    let tracer = lab.trace();
    let listener = listen(port);
    let mut client = connect(port);
    send_text(&mut client);
    let server = accept(&listener).stream;
    tracer.wait_for(1, "the accept", |line| line.is("accept"));
    let trace = tracer.stop();
    drop((client, server));

    trace.server().shows(&[
        ("ended", &NULL),
        ("bytes_received", &NULL),
        ("segs_in", &NULL),
        ("unread_bytes", &NULL),
    ]);
}

#[test]
fn unread_bytes_are_reported_at_close() {
    let lab = Lab::new();
    let port = lab.port();
    let tracer = lab.trace();
    let listener = listen(port);
    let mut client = connect(port);
    send_text(&mut client);
    let mut server = accept(&listener).stream;
    server.read_exact(&mut [0; 5]).expect("read");
    // A close with unread data is an abort (RFC 1122, section 4.2.2.13).
    drop(server);
    client.read(&mut [0]).expect_err("a reset");
    tracer.wait_for_ends(2);
    let trace = tracer.stop();

    trace.server().shows(&[
        ("ended", &"aborted"),
        ("bytes_received", &TEXT.len()),
        ("unread_bytes", &(TEXT.len() - 5)),
        ("closed_first", &NULL),
        ("error", &NULL),
    ]);
    trace.client().shows(&[
        ("ended", &"reset_received"),
        ("bytes_acked", &TEXT.len()),
        ("error", &"ECONNRESET"),
    ]);
}
