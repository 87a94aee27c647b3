//! accept() by io_uring, without an accept system call.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use io_uring::squeue::{self, Flags};
use io_uring::{IoUring, opcode, types};
use tests::task::{pid, tid};
use tests::trace::NULL;
use tests::traffic::*;
use tests::{Lab, Trace};

/// Creates an io_uring. Returns `None` if the kernel offers none.
pub(crate) fn ring() -> Option<IoUring> {
    // The errors if Docker's seccomp filter, the sysctl kernel.io_uring_disabled or the kernel's
    // configuration forbids io_uring.
    const REFUSED: [i32; 3] = [libc::EPERM, libc::EACCES, libc::ENOSYS];
    match IoUring::new(4) {
        Ok(ring) => Some(ring),
        Err(error) if error.raw_os_error().is_some_and(|it| REFUSED.contains(&it)) => {
            eprintln!("skipped: io_uring_setup: {error}");
            None
        }
        Err(error) => panic!("io_uring_setup: {error}"),
    }
}

pub(crate) fn accept_from(listener: &impl AsRawFd, flags: Flags) -> squeue::Entry {
    let (no_address, no_length) = (std::ptr::null_mut(), std::ptr::null_mut());
    opcode::Accept::new(types::Fd(listener.as_raw_fd()), no_address, no_length)
        .build()
        .flags(flags)
}

pub(crate) fn submit(ring: &mut IoUring, entry: &squeue::Entry) {
    // SAFETY: the entry names a descriptor, and no memory.
    unsafe { ring.submission().push(entry) }.expect("room in the ring");
    ring.submit().expect("io_uring_enter");
}

pub(crate) fn completed(ring: &mut IoUring) -> std::net::TcpStream {
    ring.submit_and_wait(1).expect("io_uring_enter");
    let fd = ring.completion().next().expect("a completion").result();
    assert!(fd >= 0, "accept by io_uring: {fd}");
    // SAFETY: the descriptor is new and has no other owner.
    unsafe { OwnedFd::from_raw_fd(fd) }.into()
}

/// Queues a connection and accepts it by io_uring, with an entry that has these flags. The server
/// closes first.
fn queued_connection(flags: Flags) -> Option<Trace> {
    let lab = Lab::new();
    let port = lab.port();
    let mut ring = ring()?;
    let tracer = lab.trace();
    let listener = listen(port);
    let client = connect_queued(port);
    submit(&mut ring, &accept_from(&listener, flags));
    close(completed(&mut ring), client);
    tracer.wait_for_ends(2);
    Some(tracer.stop())
}

/// Asserts that the trace declares the accept() unseen and guesses nothing. The syscall method does
/// not see io_uring.
fn is_unseen(trace: &Trace) {
    assert!(trace.accepts().is_empty());
    trace.server().shows(&[
        ("verdict", &"unknown"),
        (
            "reason",
            &"a process had it, but no accept() of it was seen",
        ),
        ("complete", &true),
    ]);
    let unseen = trace.session()["unseen"].as_array().expect("a list");
    let names_io_uring =
        |line: &serde_json::Value| line.as_str().expect("a text").contains("io_uring");
    assert!(unseen.iter().any(names_io_uring), "{}", trace.session());
}

#[test]
fn an_accept_by_io_uring_is_attributed_to_its_submitter() {
    let Some(trace) = queued_connection(Flags::empty()) else {
        return;
    };
    if trace.accept_attach_method() == "syscall" {
        return is_unseen(&trace);
    }
    trace.accept().shows(&[("pid", &pid()), ("tid", &tid())]);
    let server = trace.server();
    server.shows(&[
        ("verdict", &"queued"),
        ("pid", &pid()),
        ("tid", &tid()),
        ("comm", &trace.client()["comm"]),
        ("pid_source", &"accept"),
    ]);
}

#[test]
fn an_accept_by_an_io_uring_worker_is_attributed_to_the_worker() {
    let Some(trace) = queued_connection(Flags::ASYNC) else {
        return;
    };
    if trace.accept_attach_method() == "syscall" {
        return is_unseen(&trace);
    }
    // A kernel thread that belongs to this process.
    let server = trace.server();
    server.shows(&[("verdict", &"queued"), ("pid", &pid())]);
    let accept = trace.accept();
    assert_ne!(accept["tid"], tid());
    accept.shows(&[("pid", &pid()), ("tid", &server["tid"])]);
    let comm = accept.text("comm");
    assert!(comm.starts_with("iou-wrk-"), "{comm}");
}

/// io_uring tries once without waiting, and again when there is a connection.
#[test]
fn an_accept_that_waits_in_io_uring_gives_one_connection() {
    let lab = Lab::new();
    let port = lab.port();
    let Some(mut ring) = ring() else {
        return;
    };
    let tracer = lab.trace();
    let listener = listen(port);
    submit(&mut ring, &accept_from(&listener, Flags::empty()));
    let client = connect_queued(port);
    close(completed(&mut ring), client);
    tracer.wait_for_ends(2);
    let trace = tracer.stop();

    if trace.accept_attach_method() == "syscall" {
        return is_unseen(&trace);
    }
    // io_uring does not report to this process that its first attempt found no connection.
    let failed = trace.failed_accepts();
    assert!(failed.is_empty(), "{failed:?}");
    trace.accept().shows(&[("pid", &pid()), ("tid", &tid())]);
    trace
        .server()
        .shows(&[("tid", &tid()), ("complete", &true)]);
}

/// listen() by io_uring (Linux 6.11) makes no listen() system call. Its backlog is unknown, and no
/// other value replaces it.
#[test]
fn a_listener_made_by_io_uring_has_an_unknown_backlog() {
    let lab = Lab::new();
    let port = lab.port();
    let Some(mut ring) = ring() else { return };
    let tracer = lab.trace();
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let addr: std::net::SocketAddr = (LOOPBACK, port).into();
    socket.bind(&addr.into()).unwrap();
    let listen = opcode::Listen::new(types::Fd(socket.as_raw_fd()), 7).build();
    submit(&mut ring, &listen);
    ring.submit_and_wait(1).expect("io_uring_enter");
    let result = ring.completion().next().expect("a completion").result();
    if result == -libc::EINVAL {
        return eprintln!("skipped: this kernel's io_uring cannot listen");
    }
    assert_eq!(result, 0);
    drop(socket);
    tracer.wait_for(1, "the listener to close", |line| {
        line.is("transition") && line["oldstate"] == "LISTEN"
    });
    let trace = tracer.stop();
    trace.listen().shows(&[
        ("backlog_max", &7),
        ("backlog_asked", &NULL),
        ("backlog_clipped", &NULL),
    ]);
}
