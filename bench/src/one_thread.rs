//! connect, accept, close: all by one thread, so that no wake-up and no scheduler is measured.

use std::{
    net::{SocketAddr, TcpListener},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use socket2::{Domain, Socket, Type};

use crate::WARM_UP;

/// Connections that are timed together.
const BATCH: u64 = 100;

/// Gives the connections, and the seconds that they would have taken at the pace of the fastest tenth
/// of batches: what else the machine does meanwhile makes the others slower.
pub fn run(at: SocketAddr, time: Duration) -> Result<(u64, f64)> {
    let listener = TcpListener::bind(at).with_context(|| format!("cannot listen on {at}"))?;
    let began = Instant::now();
    let mut batches = vec![];
    while began.elapsed() < WARM_UP + time {
        let batch = Instant::now();
        for _ in 0..BATCH {
            let client = Socket::new(Domain::for_address(at), Type::STREAM, None)?;
            // close() sends a RST, so nothing stays behind in TIME_WAIT.
            client.set_linger(Some(Duration::ZERO))?;
            client.connect(&at.into()).context("cannot connect")?;
            let (server, _) = listener.accept()?;
            drop(client);
            drop(server);
        }
        if began.elapsed() > WARM_UP {
            batches.push(batch.elapsed());
        }
    }
    batches.sort_unstable();
    let pace = batches
        .get(batches.len() / 10)
        .context("no batch in that time")?;
    let connections = BATCH * batches.len() as u64;
    Ok((connections, pace.as_secs_f64() * batches.len() as f64))
}
