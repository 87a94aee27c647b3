//! Calls of accept() that fail, are interrupted, or are not about TCP.

use std::io::ErrorKind;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use tests::Lab;
use tests::task::{join, pid, send_signal, spawn, tid, wait_until_in_accept};
use tests::trace::NULL;
use tests::traffic::*;

const A_WHILE: Duration = Duration::from_millis(400);

#[test]
fn nonblocking_accept_on_an_empty_queue_fails_with_eagain() {
    let lab = Lab::new();
    let port = lab.port();
    let tracer = lab.trace();

    let listener = listen(port);
    listener.set_nonblocking(true).unwrap();
    let error = listener.accept().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    let client = connect_queued(port);
    close(client, accept(&listener).stream);
    tracer.wait_for_ends(2);
    let trace = tracer.stop();

    let failed = trace.failed_accepts();
    assert_eq!(failed.len(), 1, "{failed:?}");
    failed[0].shows(&[
        ("accept_error", &"EAGAIN"),
        ("conn", &NULL),
        ("listener", &trace.listen()["conn"]),
        ("lport", &port),
        ("pid", &pid()),
        ("tid", &tid()),
        ("accept_queue_ns", &NULL),
    ]);
    assert!(failed[0].maybe("called_mono_ns").is_some());
    trace.server().shows(&[("verdict", &"queued")]);
    trace.listener_summary(port).shows(&[
        ("connections", &1),
        ("accepted", &1),
        ("failed_accepts", &1),
    ]);
}

#[test]
fn accept_with_a_timeout_reports_its_blocked_time() {
    // With fentry, another tracer that attaches or detaches meanwhile hides a return with an error.
    let lab = Lab::alone();
    let tracer = lab.trace();

    let listener = listen(lab.port());
    socket2::SockRef::from(&listener)
        .set_read_timeout(Some(A_WHILE))
        .unwrap();
    listener.accept().unwrap_err();
    let trace = tracer.stop();

    let failed = trace.failed_accepts();
    assert_eq!(failed.len(), 1, "{failed:?}");
    failed[0].shows(&[("accept_error", &"EAGAIN")]);
    // The kernel counts timeouts in ticks, and may start within a tick.
    let blocked = failed[0].num("blocked_ns") as f64;
    assert!(blocked > 0.9 * A_WHILE.as_nanos() as f64, "{blocked} ns");
}

#[test]
fn accept_restarted_after_a_signal_is_one_call() {
    let lab = Lab::new();
    let port = lab.port();
    // Installs a handler that does nothing, with SA_RESTART.
    extern "C" fn nothing(_: libc::c_int) {}
    let handler = SigHandler::Handler(nothing);
    let action = SigAction::new(handler, SaFlags::SA_RESTART, SigSet::empty());
    // SAFETY: the handler does nothing.
    unsafe { sigaction(Signal::SIGUSR1, &action) }.unwrap();
    let tracer = lab.trace();

    let listener = listen(port);
    let (acceptor, accepting) = spawn(move || accept(&listener));
    wait_until_in_accept(acceptor);
    send_signal(acceptor, Signal::SIGUSR1);
    std::thread::sleep(A_WHILE);
    wait_until_in_accept(acceptor);
    close(connect(port), join(accepting).stream);
    tracer.wait_for_ends(2);
    let trace = tracer.stop();

    // The kernel restarts the call internally. Its caller sees one call that did not fail.
    assert!(trace.failed_accepts().is_empty());
    trace
        .listener_summary(port)
        .shows(&[("accepted", &1), ("failed_accepts", &0)]);
    trace.server().shows(&[("verdict", &"awaited")]);
    trace.accept().shows(&[("tid", &acceptor)]);
}

/// C libraries may still use the older system call, which has another number.
#[test]
fn the_older_accept_system_call_is_seen() {
    let lab = Lab::new();
    let port = lab.port();
    let tracer = lab.trace();
    let listener = listen(port);
    let client = connect_queued(port);
    // SAFETY: accept() accepts null pointers for the address.
    let fd = unsafe {
        let null = std::ptr::null_mut::<libc::c_void>();
        libc::syscall(libc::SYS_accept, listener.as_raw_fd(), null, null)
    };
    assert!(fd >= 0);
    // SAFETY: the descriptor is new and has no other owner.
    let server = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    close(client, server.into());
    tracer.wait_for_ends(2);
    let trace = tracer.stop();

    trace
        .server()
        .shows(&[("verdict", &"queued"), ("tid", &tid())]);
}

#[test]
fn accept_of_a_unix_socket_is_ignored() {
    let lab = Lab::new();
    let port = lab.port();
    let tracer = lab.trace();

    let path = std::env::temp_dir().join(format!("tcptrace-test-{port}.socket"));
    let listener = UnixListener::bind(&path).unwrap();
    let _client = UnixStream::connect(&path).unwrap();
    listener.accept().unwrap();
    listener.set_nonblocking(true).unwrap();
    listener.accept().unwrap_err();
    std::fs::remove_file(&path).unwrap();
    talk(port);
    tracer.wait_for_ends(2);
    let trace = tracer.stop();

    let mut accepts = trace
        .lines
        .iter()
        .filter(|line| line.is("accept") && line["tid"] == tid());
    assert_eq!(accepts.next().unwrap()["lport"], port);
    assert!(accepts.next().is_none());
}

#[test]
fn accept_fails_when_its_listener_is_shut_down() {
    // Alone, because with fentry another tracer can hide a return with an error.
    let lab = Lab::alone();
    let port = lab.port();
    let tracer = lab.trace();
    let listener = listen(port);
    let shut = listener.try_clone().unwrap();
    let (acceptor, accepting) = spawn(move || listener.accept().unwrap_err().raw_os_error());
    wait_until_in_accept(acceptor);
    socket2::SockRef::from(&shut)
        .shutdown(std::net::Shutdown::Both)
        .unwrap();
    assert_eq!(join(accepting), Some(libc::EINVAL));
    let trace = tracer.stop();

    let failed = trace.failed_accepts();
    assert_eq!(failed.len(), 1, "{failed:?}");
    let listener = &trace.listen()["conn"];
    failed[0].shows(&[
        ("accept_error", &"EINVAL"),
        ("tid", &acceptor),
        ("conn", &NULL),
    ]);
    assert_eq!(trace.path(listener), "CLOSE LISTEN CLOSE");
}

/// The kernel side keeps an entry for each accept() call in a table of limited size, and removes it
/// when the call returns.
#[test]
fn accept_calls_that_return_free_their_entries_in_the_call_table() {
    const ROOM: usize = 512;
    const GONE: usize = 200;
    const BLOCKED: usize = 400;
    let lab = Lab::alone();
    let port = lab.port();
    let tracer = lab.trace_with(&["--calls", &ROOM.to_string()]);

    let listener = Arc::new(listen(port));
    for _ in 0..GONE {
        let client = connect_queued(port);
        let listener = listener.clone();
        let (_, acceptor) = spawn(move || accept(&listener));
        reset(client);
        join(acceptor);
    }
    let acceptors = blocked_in_accept(&listener, BLOCKED);
    let clients: Vec<_> = (0..BLOCKED).map(|_| connect(port)).collect();
    acceptors.into_iter().for_each(|(_, it)| drop(join(it)));
    drop(clients);
    tracer.wait_for_ends(2 * (GONE + BLOCKED));
    // The trace must have lost nothing.
    let trace = tracer.stop();

    let accepts = trace.accepts();
    assert_eq!(accepts.len(), GONE + BLOCKED);
    let called = |line: &&&tests::Line| line.maybe("called_mono_ns").is_some();
    assert_eq!(accepts.iter().filter(called).count(), GONE + BLOCKED);
}
