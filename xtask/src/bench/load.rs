//! The loads of the benchmark. Each runs in one thread that is pinned to a CPU and reads its own
//! CPU clock.
//!
//! On loopback, the softirqs of both ends run in the sending thread, and so does every eBPF program
//! and packet tap on the way. `CONFIG_IRQ_TIME_ACCOUNTING` would exclude them from the thread's
//! clock.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd as _,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Error, Result};
use clap::ValueEnum;
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    sys::socket::{setsockopt, sockopt::Linger},
    time::{ClockId, clock_gettime},
    unistd::Pid,
};
use serde::Serialize;

/// The port of the loads.
pub const PORT: u16 = 7878;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Load {
    Connections,
    RoundTrips,
    Syscalls,
}

impl Load {
    pub const ALL: [Load; 3] = [Load::Connections, Load::RoundTrips, Load::Syscalls];

    pub fn name(self) -> &'static str {
        match self {
            Load::Connections => "connections",
            Load::RoundTrips => "round-trips",
            Load::Syscalls => "syscalls",
        }
    }

    pub fn what(self) -> &'static str {
        match self {
            Load::Connections => {
                "Connections over loopback that are made, accepted and reset; both ends together."
            }
            Load::RoundTrips => "A byte there and back on a TCP connection that stays open.",
            Load::Syscalls => {
                "System calls that have nothing to do with TCP: getppid() and read()."
            }
        }
    }

    /// The unit that is counted.
    pub fn unit(self) -> &'static str {
        match self {
            Load::Connections => "connection",
            Load::RoundTrips => "round trip",
            Load::Syscalls => "call",
        }
    }

    /// Returns the number of operations of a run that makes `connections` with the first load.
    pub fn operations(self, connections: u32) -> u32 {
        match self {
            Load::Connections | Load::RoundTrips => connections,
            Load::Syscalls => connections * 20,
        }
    }
}

/// Runs a load in the network namespace of the calling thread. Returns the CPU time per operation
/// in microseconds.
pub fn play(load: Load, connections: u32) -> Result<f64> {
    let operations = load.operations(connections);
    let played = thread::scope(|scope| {
        let player = scope.spawn(|| -> Result<Duration> {
            pin()?;
            match load {
                Load::Connections => connect(operations),
                Load::RoundTrips => talk(operations),
                Load::Syscalls => call(operations),
            }
        });
        player.join()
    });
    let took = played.map_err(|_| Error::msg("the load panicked"))?;
    let took = took.with_context(|| format!("the load `{}` failed", load.name()))?;
    Ok(took.as_secs_f64() * 1e6 / f64::from(operations))
}

/// Pins the calling thread to the last of its CPUs.
fn pin() -> Result<()> {
    let this = Pid::from_raw(0);
    let allowed = sched_getaffinity(this)?;
    let mut cpus = (0..CpuSet::count()).rev();
    let last = cpus.find(|&cpu| allowed.is_set(cpu).unwrap_or(false));
    let mut one = CpuSet::new();
    one.set(last.context("no CPU to run on")?)?;
    Ok(sched_setaffinity(this, &one)?)
}

/// Returns the CPU time of `play` in the calling thread, after a warm-up of a tenth of the
/// operations.
fn timed(operations: u32, mut play: impl FnMut(u32) -> Result<()>) -> Result<Duration> {
    play(operations.div_ceil(10))?;
    let clock = || clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from);
    let before = clock()?;
    play(operations)?;
    Ok(clock()?.saturating_sub(before))
}

fn address() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, PORT).into()
}

fn connect(operations: u32) -> Result<Duration> {
    let listener = TcpListener::bind(address()).context("cannot listen")?;
    let at_once = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    timed(operations, |n| {
        for _ in 0..n {
            let client = TcpStream::connect(address()).context("cannot connect")?;
            // close() sends a RST, so no bucket in TIME_WAIT remains.
            setsockopt(&client.as_fd(), Linger, &at_once)?;
            let (server, _) = listener.accept()?;
            drop(client);
            drop(server);
        }
        Ok(())
    })
}

fn talk(operations: u32) -> Result<Duration> {
    let listener = TcpListener::bind(address()).context("cannot listen")?;
    let mut client = TcpStream::connect(address()).context("cannot connect")?;
    let (mut server, _) = listener.accept()?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    timed(operations, |n| {
        let mut byte = [0];
        for _ in 0..n {
            client.write_all(&byte)?;
            server.read_exact(&mut byte)?;
            server.write_all(&byte)?;
            client.read_exact(&mut byte)?;
        }
        Ok(())
    })
}

fn call(operations: u32) -> Result<Duration> {
    let mut zeros = File::open("/dev/zero").context("cannot open /dev/zero")?;
    timed(operations, |n| {
        for _ in 0..n / 2 {
            // SAFETY: getppid() takes no arguments and cannot fail.
            unsafe { libc::getppid() };
            zeros.read_exact(&mut [0; 64])?;
        }
        Ok(())
    })
}
