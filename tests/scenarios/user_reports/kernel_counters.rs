//! Comparisons with the kernel's own counters. They matter most in VMs, on kernels with kprobes and
//! BTF trampolines. On this machine they cover only the methods of its kernel.

use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use io_uring::squeue::Flags;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use tests::netns::Netns;
use tests::task::{join, send_signal, spawn, wait_until_in_accept};
use tests::trace::NULL;
use tests::tracer::await_session;
use tests::traffic::*;
use tests::{Lab, Line, Peer, Trace, eventually};

use crate::io_uring::{accept_from, completed, ring, submit};

/// Returns a counter of the calling thread's network namespace. `Tcp` counters are in snmp,
/// `TcpExt` counters in netstat. Each group has a line of names and a line of values.
fn counter(group: &str, name: &str) -> u64 {
    let file = if group == "TcpExt" { "netstat" } else { "snmp" };
    let text = std::fs::read_to_string(format!("/proc/thread-self/net/{file}")).expect(file);
    let mut lines = text
        .lines()
        .filter_map(|line| line.strip_prefix(group)?.strip_prefix(':'));
    let (names, values) = (lines.next().expect(group), lines.next().expect(group));
    let mut both = names.split_whitespace().zip(values.split_whitespace());
    let (_, value) = both.find(|(it, _)| *it == name).expect(name);
    value.parse().expect("a number")
}

fn sysctl(name: &str, value: &str) {
    std::fs::write(format!("/proc/sys/net/ipv4/{name}"), value)
        .unwrap_or_else(|error| panic!("{name}: {error}"));
}

fn says_unseen(trace: &Trace, what: &str) -> bool {
    let unseen = trace.session()["unseen"].as_array().expect("a list");
    unseen
        .iter()
        .any(|line| line.as_str().expect("a text").contains(what))
}

fn has_hook(trace: &Trace, hook: &str) -> bool {
    !trace.session()["hooks"][hook].is_null()
}

#[test]
fn a_rst_for_a_closed_port_is_reported_or_declared_unseen() {
    const CALLS: usize = 5;
    let lab = Lab::new();
    let port = lab.port();
    let tracer = lab.trace();
    let before = counter("Tcp", "OutRsts");
    for _ in 0..CALLS {
        TcpStream::connect((LOOPBACK, port)).expect_err("nobody listens there");
    }
    let sent = counter("Tcp", "OutRsts") - before;
    assert_eq!(sent, CALLS as u64);
    // The server's RST belongs to a socket.
    let listener = listen(port);
    reset(connect_queued(port));
    tracer.wait_for_ends(CALLS + 1);
    drop(listener);
    let trace = tracer.stop();

    let (of_sockets, of_none): (Vec<&Line>, Vec<&Line>) = trace
        .own("reset")
        .filter(|line| line["direction"] == "sent")
        .partition(|line| !line["state"].is_null());
    assert_eq!(of_sockets.len(), 1, "{of_sockets:?}");
    if says_unseen(&trace, "RSTs to segments that met no socket") {
        // Linux 6.9 and earlier do not show these RSTs, and tcptrace invents none.
        assert_eq!(of_none.len(), 0, "{of_none:?}");
        of_sockets[0].shows(&[("rst_reason", &NULL)]);
    } else {
        assert_eq!(of_none.len() as u64, sent, "{of_none:?}");
        for line in of_none {
            line.shows(&[("rst_reason", &"NO_SOCKET"), ("lport", &port)]);
        }
    }
}

#[test]
fn a_bucket_is_purged_once_when_its_namespace_ends() {
    let lab = Lab::new();
    let mut tracer = lab.trace();
    // The witness ignores these ports, because it cannot separate namespaces.
    let (_, gone) = spawn(|| {
        Netns::enter();
        let listener = listen(0);
        let port = listener.local_addr().expect("an address").port();
        let client = connect_queued(port);
        close(client, accept(&listener).stream);
        port
    });
    let port = join(gone);
    // A line of a bucket omits the namespace of its connection.
    let of_namespace =
        |line: &Line| line.is("time_wait") && (line["lport"] == port || line["rport"] == port);
    let session = await_session(tracer.process());
    if session["hooks"]["timewait_sock"].is_null() {
        // A socket snapshot cannot enter a namespace that has ended.
        drop(tracer.stop());
        return;
    }
    tracer.wait_for_line("the bucket to end", of_namespace);
    let trace = tracer.stop();

    let buckets: Vec<&Line> = trace.lines.iter().filter(|it| of_namespace(it)).collect();
    assert_eq!(buckets.len(), 1, "{buckets:?}");
    buckets[0].shows(&[
        ("state", &"TIME_WAIT"),
        ("bucket_end", &"purged"),
        ("source", &"timewait_sock"),
    ]);
}

/// Calls accept() once, without restarting it. Returns its result.
fn accept_once(listener: &TcpListener) -> io::Result<i32> {
    let (no_address, no_length) = (std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: accept4() accepts null pointers for the address.
    let fd = unsafe { libc::accept4(listener.as_raw_fd(), no_address, no_length, 0) };
    (fd >= 0).then_some(fd).ok_or_else(io::Error::last_os_error)
}

#[test]
fn accept_ends_with_eintr_only_if_its_caller_sees_eintr() {
    extern "C" fn nothing(_: libc::c_int) {}
    let handler = SigHandler::Handler(nothing);
    for (signal, flags) in [
        (Signal::SIGUSR1, SaFlags::SA_RESTART),
        (Signal::SIGUSR2, SaFlags::empty()),
    ] {
        let action = SigAction::new(handler, flags, SigSet::empty());
        // SAFETY: the handler does nothing.
        unsafe { sigaction(signal, &action) }.expect("sigaction");
    }
    // With fentry, another tracer that attaches or detaches meanwhile hides a return with an error.
    let lab = Lab::alone();
    let port = lab.port();
    let tracer = lab.trace();
    let listener = listen(port);
    let (acceptor, accepting) = spawn(move || {
        let interrupted = accept_once(&listener).expect_err("interrupted");
        assert_eq!(interrupted.raw_os_error(), Some(libc::EINTR));
        accept(&listener).stream
    });
    wait_until_in_accept(acceptor);
    for signal in [Signal::SIGUSR1, Signal::SIGUSR2] {
        send_signal(acceptor, signal);
        std::thread::sleep(Duration::from_millis(300));
        wait_until_in_accept(acceptor);
    }
    close(connect(port), join(accepting));
    tracer.wait_for_ends(2);
    let trace = tracer.stop();

    let [failed] = trace.failed_accepts()[..] else {
        panic!("{:?}", trace.failed_accepts());
    };
    failed.shows(&[
        ("accept_error", &"EINTR"),
        ("tid", &acceptor),
        ("lport", &port),
    ]);
    assert!(failed.maybe("called_mono_ns").is_some());
    trace
        .listener_summary(port)
        .shows(&[("accepted", &1), ("failed_accepts", &1)]);
    trace.server().shows(&[("verdict", &"awaited")]);
}

#[test]
fn syns_dropped_for_the_reserved_quarter_of_the_syn_backlog_are_reported() {
    const SYNS: u16 = 20;
    const DROPPED: u64 = 7;
    let lab = Lab::new();
    let port = lab.port();
    sysctl("tcp_syncookies", "0");
    sysctl("tcp_max_syn_backlog", "16");
    let tracer = lab.trace();
    let peer = Peer::new(&lab);
    let listener = listen_at((Ipv4Addr::UNSPECIFIED, port).into(), 128);
    let before = counter("TcpExt", "ListenDrops");
    for own in 4000..4000 + SYNS {
        peer.talk(own, port).syn();
    }
    eventually("the kernel to drop some", || {
        (counter("TcpExt", "ListenDrops") - before == DROPPED).then_some(())
    });
    let trace = tracer.stop();
    assert_eq!(counter("TcpExt", "ListenDrops") - before, DROPPED);
    drop(listener);

    let overflows: Vec<&Line> = trace.own("overflow").collect();
    if !has_hook(&trace, "listen_overflow") {
        assert!(says_unseen(&trace, "queue was full"), "{}", trace.session());
        return;
    }
    assert_eq!(overflows.len() as u64, DROPPED, "{overflows:?}");
    for line in overflows {
        line.shows(&[
            ("dropped", &"syn"),
            ("queue", &"syn"),
            ("reserve", &true),
            ("queue_len", &13),
            ("queue_max", &12),
            ("lport", &port),
            ("listener", &trace.listen()["conn"]),
        ]);
    }
    let listener = trace.listener_summary(port);
    listener.shows(&[("overflows", &DROPPED), ("backlog_max", &128)]);
}

#[test]
fn an_internal_retry_of_io_uring_is_not_reported() {
    let Some(mut ring) = ring() else {
        return;
    };
    // With fentry, another tracer that attaches or detaches meanwhile hides a return with an error.
    let lab = Lab::alone();
    let port = lab.port();
    let tracer = lab.trace();
    let listener = listen(port);
    submit(&mut ring, &accept_from(&listener, Flags::empty()));
    let client = connect(port);
    close(completed(&mut ring), client);
    tracer.wait_for_ends(2);

    // io_uring may complete a nonblocking accept() at once. Then this process sees that the attempt
    // failed.
    listener.set_nonblocking(true).expect("O_NONBLOCK");
    submit(&mut ring, &accept_from(&listener, Flags::empty()));
    std::thread::sleep(Duration::from_millis(200));
    let seen: Vec<i32> = ring.completion().map(|it| it.result()).collect();
    if seen.is_empty() {
        let client = connect(port);
        close(completed(&mut ring), client);
        tracer.wait_for_ends(4);
    } else {
        assert_eq!(seen, [-libc::EAGAIN]);
    }
    let trace = tracer.stop();

    let failed = trace.failed_accepts();
    let accepts = trace.accepts().len();
    if trace.accept_attach_method() == "syscall" {
        assert!(says_unseen(&trace, "io_uring"));
        assert_eq!((accepts, failed.len()), (0, 0));
        return;
    }
    assert_eq!(failed.len(), seen.len(), "{failed:?}");
    assert_eq!(accepts, 2 - seen.len());
}

#[test]
fn a_hook_falls_back_to_kprobes_without_a_trampoline() {
    let lab = Lab::new();
    let trace = lab.trace().stop();
    let session = trace.session();
    let refused = session["failed_methods"].as_object().expect("an object");
    for refusal in refused
        .values()
        .flat_map(|it| it.as_array().expect("a list"))
    {
        let reason = refusal["error"].as_str().expect("a text");
        assert!(!reason.starts_with("errno"), "{refusal}");
    }
    // A kernel that supports one kind of probe supports the other.
    let [probed, overflow] = ["request_sock", "listen_overflow"].map(|it| has_hook(&trace, it));
    assert_eq!(probed, overflow, "{session}");
    let kernel = session.text("kernel");
    if kernel.starts_with("6.1.") && trace.accept_attach_method() == "fentry" {
        assert_eq!(session["hooks"]["listen_overflow"], "kprobe");
        assert_eq!(
            session["failed_methods"]["listen_overflow"][0]["error"],
            "ENOTSUPP"
        );
    }
}
