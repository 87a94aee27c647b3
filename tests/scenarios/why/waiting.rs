//! Event loops: epoll_wait() is the wait for work, and a slow handler is not.

use std::net::TcpListener;
use std::thread::sleep;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use tests::traffic::accept;

use super::{Late, delay, late_at};

fn watch(listener: &TcpListener) -> Epoll {
    let epoll = Epoll::new(EpollCreateFlags::empty()).expect("epoll");
    let readable = EpollEvent::new(EpollFlags::EPOLLIN, 1);
    epoll.add(listener, readable).expect("EPOLL_CTL_ADD");
    epoll
}

/// Waits for at most [`delay`]. Returns whether an event came.
fn wait(epoll: &Epoll) -> bool {
    let mut events = [EpollEvent::empty()];
    let wait = epoll.wait(
        &mut events,
        EpollTimeout::try_from(delay()).expect("a short time"),
    );
    wait.expect("epoll_wait") == 1
}

/// Accepts two connections in an event loop. `cause` runs while the second one is queued.
fn late_loop(cause: impl Fn(&TcpListener) + Send + Sync + 'static) -> Late {
    let serve = |listener: &TcpListener| {
        let epoll = watch(listener);
        assert!(wait(&epoll));
        drop(accept(listener).stream);
    };
    late_at(serve, cause)
}

#[test]
fn an_event_loop_with_a_slow_handler_is_late_because_of_the_handler() {
    let late = late_loop(|_| sleep(delay()));
    late.says("blocked", "in clock_nanosleep()");
}

#[test]
fn an_event_loop_without_the_listener_in_its_set_is_not_woken() {
    let late = late_loop(|listener| {
        let epoll = watch(listener);
        epoll.delete(listener).expect("EPOLL_CTL_DEL");
        assert!(!wait(&epoll));
    });
    late.says("not_woken", "in epoll_wait()");
}
