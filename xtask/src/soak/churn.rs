//! The load of a soak: listeners, network namespaces and processes that come and go, and their
//! connections.
//!
//! Each worker is a process. It makes connections at an even pace for some seconds, and ends. Every
//! second worker has a network namespace of its own.

use std::{
    env,
    io::{ErrorKind, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    ops::AddAssign,
    os::fd::AsFd as _,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        prctl::set_pdeathsig,
        signal::Signal,
        socket::{setsockopt, sockopt::Linger},
        wait::{WaitStatus, waitpid},
    },
    unistd::{ForkResult, fork},
};
use serde::{Deserialize, Serialize};

use crate::{netns, process::spawn};

/// Accepted connections a second: 1,080,000 an hour.
const RATE: f64 = 300.0;

/// Workers at the same time.
const SLOTS: u32 = 2;

/// How long a worker makes connections.
const SHIFT: Duration = Duration::from_secs(2);

/// Connections of one listener.
const PER_LISTENER: u64 = 50;

/// The ports of the listeners, above Linux's range of ephemeral ports. The tracers filter by them,
/// so other traffic of the machine changes no count.
pub const PORTS: &str = "61000-61999";
const FIRST_PORT: u16 = 61_000;
/// A worker has two ports; it listens on the first one.
const PAIRS: u64 = 500;

/// Longer than anything that a worker waits for.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The connections that were made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// Calls of connect(), of which each makes a client's end.
    pub connects: u64,
    /// Server's ends.
    pub established: u64,
    /// Server's ends that were in the accept queue when their listener was closed.
    pub never_accepted: u64,
}

impl AddAssign for Made {
    fn add_assign(&mut self, other: Made) {
        self.connects += other.connects;
        self.established += other.established;
        self.never_accepted += other.never_accepted;
    }
}

/// Makes connections until `ends`, or until `stop`. `progress` has the number of connections so far.
pub fn run(ends: Instant, progress: &AtomicU64, stop: &AtomicBool) -> Result<Made> {
    thread::scope(|scope| {
        let slots: Vec<_> = (0..SLOTS)
            .map(|slot| {
                scope.spawn(move || {
                    let made = workers(slot, ends, progress, stop);
                    stop.fetch_or(made.is_err(), Ordering::Relaxed);
                    made
                })
            })
            .collect();
        let mut sum = Made::default();
        for slot in slots {
            match slot.join() {
                Ok(made) => sum += made?,
                Err(_) => bail!("the churn panicked"),
            }
        }
        Ok(sum)
    })
}

/// Runs one worker after the other.
fn workers(slot: u32, ends: Instant, progress: &AtomicU64, stop: &AtomicBool) -> Result<Made> {
    netns::enter()?;
    let begun = Instant::now();
    let (mut sum, mut shifts) = (Made::default(), 0);
    while Instant::now() < ends && !stop.load(Ordering::Relaxed) {
        // A worker that was late is made up for by its successors.
        let due = (begun.elapsed() + SHIFT).as_secs_f64() * RATE / f64::from(SLOTS);
        let usual = SHIFT.as_secs_f64() * RATE / f64::from(SLOTS);
        let connections = (due - sum.established as f64).clamp(1.0, 4.0 * usual) as u64;
        // Two slots never have the same port.
        let pair = (shifts * u64::from(SLOTS) + u64::from(slot)) % PAIRS;
        let worker = Worker {
            connections,
            port: FIRST_PORT + 2 * pair as u16,
            own_netns: shifts % 2 == 1,
        };
        let made = worker.in_a_process()?;
        progress.fetch_add(made.connects, Ordering::Relaxed);
        sum += made;
        shifts += 1;
    }
    Ok(sum)
}

/// The side that closes an accepted connection, or a RST.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Client,
    Server,
    Reset,
}

impl End {
    /// Most connections are closed by the client.
    fn nth(n: u64) -> End {
        match n % 8 {
            5 | 6 => End::Server,
            7 => End::Reset,
            _ => End::Client,
        }
    }
}

#[derive(clap::Args)]
pub struct Worker {
    #[arg(long)]
    connections: u64,
    #[arg(long)]
    port: u16,
    #[arg(long)]
    own_netns: bool,
}

impl Worker {
    fn in_a_process(&self) -> Result<Made> {
        let mut command = Command::new(env::current_exe()?);
        command
            .args(["soak", "worker", "--connections"])
            .arg(self.connections.to_string())
            .arg("--port")
            .arg(self.port.to_string())
            .args(self.own_netns.then_some("--own-netns"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let output = spawn(&mut command)?.wait_with_output()?;
        ensure!(
            output.status.success(),
            "a worker failed: {}",
            output.status
        );
        serde_json::from_slice(&output.stdout).context("a worker printed no counts")
    }

    /// Makes the connections and prints their counts.
    pub fn run(&self) -> Result<()> {
        if self.own_netns {
            netns::enter()?;
        }
        let pace = Pace {
            begun: Instant::now(),
            interval: SHIFT.div_f64(self.connections as f64),
        };
        let mut made = Made::default();
        for generation in 0.. {
            let left = self.connections - made.established;
            if left == 0 {
                break;
            }
            self.one_listener(generation, left.min(PER_LISTENER), &pace, &mut made)?;
        }
        println!("{}", serde_json::to_string(&made)?);
        Ok(())
    }

    fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Makes a listener, its connections, and closes it. The last connection is never accepted, and
    /// one more is refused.
    fn one_listener(&self, generation: u64, n: u64, pace: &Pace, made: &mut Made) -> Result<()> {
        let listener = TcpListener::bind(self.address()).context("cannot listen")?;
        let accepted = n - 1;
        let first = made.established;
        let clients = || -> Result<()> {
            for n in 0..accepted {
                pace.wait(first + n);
                client(self.connect()?, End::nth(n))?;
            }
            Ok(())
        };
        let servers = || (0..accepted).try_for_each(|n| server(listener.accept()?.0, End::nth(n)));
        match generation % 3 {
            0 => {
                for n in 0..accepted {
                    pace.wait(first + n);
                    let client_end = self.connect()?;
                    let server_end = listener.accept()?.0;
                    thread::scope(|scope| {
                        let serving = scope.spawn(|| server(server_end, End::nth(n)));
                        client(client_end, End::nth(n))?;
                        serving.join().expect("no panic")
                    })?;
                }
            }
            1 => thread::scope(|scope| {
                let serving = scope.spawn(servers);
                clients()?;
                serving.join().expect("no panic")
            })?,
            _ => in_a_child(servers, clients)?,
        }
        made.connects += n;
        made.established += n;
        pace.wait(first + accepted);
        let waits = self.connect()?;
        let mut queued = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        let ready = poll(&mut queued, PollTimeout::try_from(TIMEOUT)?)?;
        ensure!(ready == 1, "the last connection is not in the accept queue");
        made.never_accepted += 1;
        drop(listener);
        drop(waits);
        let refused = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port + 1));
        let error = refused.err().map(|error| error.kind());
        ensure!(
            error == Some(ErrorKind::ConnectionRefused),
            "a port without a listener: {error:?}"
        );
        made.connects += 1;
        Ok(())
    }

    fn connect(&self) -> Result<TcpStream> {
        let stream = TcpStream::connect(self.address()).context("cannot connect")?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        Ok(stream)
    }
}

/// Spreads connections evenly.
struct Pace {
    begun: Instant,
    interval: Duration,
}

impl Pace {
    /// Waits until the `n`th connection is due.
    fn wait(&self, n: u64) {
        let due = self.interval.mul_f64(n as f64);
        thread::sleep(due.saturating_sub(self.begun.elapsed()));
    }
}

/// Runs `servers` in a child process that ends without closing its listener, and `clients` here. No
/// other thread runs.
fn in_a_child(servers: impl Fn() -> Result<()>, clients: impl Fn() -> Result<()>) -> Result<()> {
    // SAFETY: this process has one thread.
    match unsafe { fork() }? {
        ForkResult::Child => {
            let served = set_pdeathsig(Some(Signal::SIGKILL))
                .map_err(Into::into)
                .and_then(|()| servers());
            // SAFETY: the child leaves its parent's output alone.
            unsafe { libc::_exit(served.is_err().into()) }
        }
        ForkResult::Parent { child } => {
            clients()?;
            let ended = waitpid(child, None)?;
            ensure!(ended == WaitStatus::Exited(child, 0), "a server: {ended:?}");
            Ok(())
        }
    }
}

fn client(mut stream: TcpStream, end: End) -> Result<()> {
    match end {
        End::Client => stream.write_all(b"This is tcp client")?,
        End::Server => {
            ensure!(stream.read(&mut [0])? == 0, "the server has not closed");
        }
        End::Reset => {
            // A connection that is reset before accept() has another verdict.
            stream.read_exact(&mut [0])?;
            let at_once = libc::linger {
                l_onoff: 1,
                l_linger: 0,
            };
            setsockopt(&stream.as_fd(), Linger, &at_once)?;
        }
    }
    Ok(())
}

fn server(mut stream: TcpStream, end: End) -> Result<()> {
    stream.set_read_timeout(Some(TIMEOUT))?;
    match end {
        End::Client => {
            let mut text = vec![];
            stream.read_to_end(&mut text)?;
            ensure!(text == b"This is tcp client", "a client sent {text:?}");
        }
        End::Server => {}
        End::Reset => {
            stream.write_all(b"x")?;
            let error = stream.read(&mut [0]).err().map(|error| error.kind());
            ensure!(
                error == Some(ErrorKind::ConnectionReset),
                "a connection that was reset: {error:?}"
            );
        }
    }
    Ok(())
}
