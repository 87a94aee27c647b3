//! A server as they are: requests on IPv6 connections that are kept for a while, and a crowd of
//! threads that wait in accept().

use std::{
    io::{Read as _, Write as _},
    net::{Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use socket2::SockRef;

use crate::{Shared, join};

/// Threads blocked in accept(); each serves what it accepts.
const ACCEPTORS: usize = 200;
/// Threads that make requests.
const CLIENTS: usize = 4;
/// Requests on one connection.
const REQUESTS: usize = 100;
/// Bytes of a request, and of its answer.
const SIZES: (usize, usize) = (64, 1024);

/// Gives the requests that were answered, and the seconds that it took.
pub fn run(port: u16, time: Duration) -> Result<(u64, f64)> {
    let at = SocketAddr::from((Ipv6Addr::LOCALHOST, port));
    let listener = TcpListener::bind(at).with_context(|| format!("cannot listen on {at}"))?;
    let answered = &Shared::default();
    thread::scope(|scope| {
        let spawn = |_| scope.spawn(|| serve(&listener));
        let acceptors: Vec<_> = (0..ACCEPTORS).map(spawn).collect();
        let clients = (0..CLIENTS).map(|_| scope.spawn(|| request(at, answered)));
        let clients: Vec<_> = clients.collect();
        let measured = answered.measure(time);
        let called: Result<()> = clients.into_iter().try_for_each(|it| join(it).flatten());
        SockRef::from(&listener).shutdown(Shutdown::Both)?;
        acceptors.into_iter().try_for_each(join)?;
        called.map(|()| measured)
    })
}

/// Accepts until the listener is shut down.
fn serve(listener: &TcpListener) {
    while let Ok((mut stream, _)) = listener.accept() {
        let (mut request, answer) = ([0; SIZES.0], [0; SIZES.1]);
        // A client that has gone is no concern of the server's.
        while stream.read_exact(&mut request).is_ok() && stream.write_all(&answer).is_ok() {}
    }
}

fn request(at: SocketAddr, answered: &Shared) -> Result<()> {
    let (request, mut answer) = ([0; SIZES.0], [0; SIZES.1]);
    while answered.goes_on() {
        let mut stream = TcpStream::connect(at).context("cannot connect")?;
        stream.set_nodelay(true)?;
        for _ in 0..REQUESTS {
            stream.write_all(&request)?;
            stream.read_exact(&mut answer)?;
            answered.count();
        }
    }
    Ok(())
}
