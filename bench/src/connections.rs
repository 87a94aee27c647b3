//! connect, accept, reset: one client and one server thread.

use std::{
    net::{Shutdown, SocketAddr, TcpListener},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use socket2::{Domain, SockRef, Socket, Type};

use crate::{Shared, join};

/// Connections that the client may be ahead of the server. At a full accept queue it would wait a
/// second for its SYN's retransmission.
const AHEAD: u64 = 64;

/// Gives the connections that were accepted, and the seconds that it took.
pub fn run(at: SocketAddr, time: Duration) -> Result<(u64, f64)> {
    let listener = TcpListener::bind(at).with_context(|| format!("cannot listen on {at}"))?;
    let accepted = &Shared::default();
    thread::scope(|scope| {
        let server = scope.spawn(|| {
            // Ends when the listener is shut down.
            while let Ok(connection) = listener.accept() {
                drop(connection);
                accepted.count();
            }
        });
        let client = scope.spawn(|| call(at, accepted));
        let measured = accepted.measure(time);
        let called = join(client).flatten();
        SockRef::from(&listener).shutdown(Shutdown::Both)?;
        join(server)?;
        called.map(|()| measured)
    })
}

fn call(at: SocketAddr, accepted: &Shared) -> Result<()> {
    let mut made = 0;
    while accepted.goes_on() {
        while made - accepted.done() >= AHEAD {
            thread::yield_now();
        }
        let socket = Socket::new(Domain::for_address(at), Type::STREAM, None)?;
        // close() sends a RST, so nothing stays behind in TIME_WAIT.
        socket.set_linger(Some(Duration::ZERO))?;
        socket.connect(&at.into()).context("cannot connect")?;
        made += 1;
    }
    Ok(())
}
