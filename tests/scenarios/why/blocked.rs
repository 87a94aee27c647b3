//! Acceptors that are blocked in a system call.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tests::Lab;
use tests::task::{join, spawn};
use tests::trace::Line;
use tests::traffic::*;

use super::{assert_near, delay, delay_ns, late_by, trace};

/// More bytes than a pipe holds.
const MANY: usize = 4 << 20;

/// The reader of a pipe begins late.
#[test]
fn an_acceptor_that_writes_to_a_pipe_nobody_reads_is_blocked_in_write() {
    let late = late_by(|| {
        let (mut reader, mut writer) = std::io::pipe().expect("a pipe");
        let (_, drain) = spawn(move || {
            sleep(delay());
            let mut all = vec![];
            reader.read_to_end(&mut all).expect("read");
        });
        writer.write_all(&vec![0; MANY]).expect("write");
        drop(writer);
        join(drain);
    });
    late.says("blocked", "in write()");
    let place = late.blocked_in();
    assert_eq!(place["syscall"], "write");
}

#[test]
fn an_acceptor_that_sleeps_is_blocked_in_clock_nanosleep() {
    let late = late_by(|| sleep(delay()));
    late.says("blocked", "in clock_nanosleep()");
    let place = late.blocked_in();
    assert_eq!(place["syscall"], "clock_nanosleep");
    assert_near(
        "the sleep",
        place["ns"].as_u64().unwrap(),
        delay_ns(),
        &late.line,
    );
    assert_eq!(place["times"], 1);
}

#[test]
fn an_acceptor_that_writes_to_disk_is_blocked_in_fsync() {
    let late = late_by(|| {
        let mut file = tempfile::tempfile().expect("a file");
        let began = Instant::now();
        while began.elapsed() < delay() {
            file.write_all(&[1; 1 << 20]).expect("write");
            file.sync_all().expect("fsync");
        }
    });
    // A memory file system blocks nowhere, and its fsync() does nothing.
    let blocked_ns = late.accounts.blocked_ns();
    if blocked_ns < 40_000_000 {
        return;
    }
    let places = late.line["acceptor_blocked_in"].as_array().expect("a list");
    let in_fsync = places.iter().filter(|it| it["syscall"] == "fsync");
    let in_fsync: u64 = in_fsync.filter_map(|it| it["ns"].as_u64()).sum();
    assert!(in_fsync > blocked_ns / 2, "{}", late.line);
}

#[test]
fn an_acceptor_that_waits_for_a_lock_names_the_thread_that_released_it() {
    let (released, is_released) = channel();
    let late = late_by(move || {
        let lock = Arc::new(Mutex::new(()));
        let holders_lock = lock.clone();
        let (locked, is_locked) = channel();
        let (holder, thread) = spawn(move || {
            let guard = holders_lock.lock().expect("no panic");
            locked.send(()).expect("a receiver");
            sleep(delay());
            drop(guard);
        });
        is_locked.recv().expect("the lock is held");
        drop(lock.lock().expect("no panic"));
        released.send(holder).expect("a receiver");
        join(thread);
    });
    let holder = is_released.recv().expect("a thread");
    late.says("lock", "for a lock");
    let place = late.blocked_in();
    assert_eq!(place["syscall"], "futex");
    let released_by = place["woken_by"].as_str().expect("a thread");
    assert!(
        released_by.ends_with(&format!("[{holder}]")),
        "{released_by}"
    );
}

/// As a resolver waits for an answer. The thread waits for connections in accept() itself, so its
/// poll() is no event loop.
#[test]
fn an_acceptor_that_polls_for_an_answer_is_blocked_in_poll() {
    let late = late_by(|| {
        let (one, _other) = UnixStream::pair().expect("a socket pair");
        use std::os::fd::AsFd;
        let mut wanted = [PollFd::new(one.as_fd(), PollFlags::POLLIN)];
        let poll_timeout = PollTimeout::try_from(delay()).expect("a short time");
        let ready = poll(&mut wanted, poll_timeout).expect("poll");
        assert_eq!(ready, 0);
    });
    late.says("blocked", "in poll()");
}

#[test]
fn a_short_wait_has_no_explanation() {
    let lab = Lab::alone();
    let port = lab.port();
    let tracer = trace(&lab, "--why=10s");
    let listener = listen(port);
    let client = connect_queued(port);
    sleep(Duration::from_millis(50));
    close(client, accept(&listener).stream);
    tracer.wait_for_ends(2);
    let trace = tracer.stop();
    assert!(trace.server().num("accept_queue_ns") > 40_000_000);
    let explained = |line: &&Line| line.0.get("late_because").is_some();
    assert_eq!(trace.lines.iter().find(explained), None);
}
