//! systemd: sockets that it passes, and notifications to it.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use listenfd::ListenFd;
use nix::sys::socket::{getsockopt, sockopt};
use sd_notify::NotifyState;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use super::health::Health;
use crate::exit::Usage;
use crate::stdio::{plain, say};

/// Returns the socket that systemd has passed (`LISTEN_FDS`, sd_listen_fds(3)), if any. Must be
/// called before any thread is started, because it removes the variables.
///
/// # Errors
/// A [`Usage`] error if there is more than one socket, or another kind of socket.
pub fn listener() -> anyhow::Result<Option<TcpListener>> {
    let mut passed = ListenFd::from_env();
    if passed.len() > 1 {
        let n = passed.len();
        return Err(Usage(format!("LISTEN_FDS has {n} sockets, and export takes one")).into());
    }
    let listener = match passed.len() {
        0 => Ok(None),
        _ => passed.take_tcp_listener(0),
    };
    listener
        .and_then(|it| it.map(listening).transpose())
        .map_err(|error| Usage(plain(&error)))
        .context("cannot use the socket of LISTEN_FDS")
}

fn listening(listener: TcpListener) -> io::Result<TcpListener> {
    match getsockopt(&listener, sockopt::AcceptConn)? {
        true => Ok(listener),
        false => Err(io::Error::other("it does not listen")),
    }
}

/// Tells systemd that the hooks are attached and the server answers (`READY=1`, sd_notify(3)).
/// Without systemd, does nothing.
pub fn ready() {
    notify(NotifyState::Ready);
}

/// Tells systemd that the process is ending.
pub fn stopping() {
    notify(NotifyState::Stopping);
}

fn notify(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        say(format_args!("cannot notify systemd: {}", plain(&error)));
    }
}

/// Notifies the watchdog of systemd (`WATCHDOG_USEC`) while the trace makes progress. The task runs
/// in the runtime that reads the ring buffer, so it stops with it.
pub fn watch(health: Arc<Health>) -> Option<JoinHandle<()>> {
    let every = sd_notify::watchdog_enabled()? / 2;
    let mut ticks = tokio::time::interval(every.max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    Some(tokio::spawn(async move {
        loop {
            ticks.tick().await;
            if health.problem().is_none() {
                notify(NotifyState::Watchdog);
            }
        }
    }))
}
