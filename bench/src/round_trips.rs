//! Round trips of a byte on one connection that stays open: TCP traffic, and no change of state.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};

use crate::{Shared, join};

/// Gives the round trips, and the seconds that they took.
pub fn run(at: SocketAddr, time: Duration) -> Result<(u64, f64)> {
    let listener = TcpListener::bind(at).with_context(|| format!("cannot listen on {at}"))?;
    let client = TcpStream::connect(at).context("cannot connect")?;
    let (server, _) = listener.accept()?;
    let trips = &Shared::default();
    thread::scope(|scope| {
        let echo = scope.spawn(|| echo(server));
        let ping = scope.spawn(|| ping(client, trips));
        let measured = trips.measure(time);
        join(ping).flatten()?;
        join(echo).flatten().map(|()| measured)
    })
}

/// Sends back what comes, until the other end closes.
fn echo(mut stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut byte = [0];
    while stream.read(&mut byte)? > 0 {
        stream.write_all(&byte)?;
    }
    Ok(())
}

fn ping(mut stream: TcpStream, trips: &Shared) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut byte = [0];
    while trips.goes_on() {
        stream.write_all(&byte)?;
        stream.read_exact(&mut byte)?;
        trips.count();
    }
    Ok(())
}
