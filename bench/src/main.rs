//! A load for measurements: does one thing as often as it can for a given time, and prints how
//! often that was. `cargo xtask bench` runs it with and without a tracer beside it.

mod connections;
mod keep_alive;
mod one_thread;
mod round_trips;
mod syscalls;

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread::{self, ScopedJoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};
use clap::{Parser, ValueEnum};
use serde_json::json;

/// Does one thing as often as it can, and prints how often that was
#[derive(Parser)]
#[command(name = "storm")]
struct Cli {
    /// What to do
    load: Load,
    /// For how long to count
    #[arg(long, value_name = "SECONDS", default_value = "3", value_parser = seconds)]
    seconds: Duration,
    /// The server's port on the loopback interface
    #[arg(long, value_name = "PORT", default_value_t = 7878)]
    port: u16,
}

#[derive(Clone, Copy, ValueEnum)]
enum Load {
    /// Connections that are accepted and reset, one after another
    Connections,
    /// Connections that one thread makes, accepts and resets, at the pace of its fastest tenth
    OneThread,
    /// Requests on IPv6 connections that are kept for a hundred of them, and 200 threads blocked
    /// in accept()
    Mix,
    /// System calls that have nothing to do with TCP
    Syscalls,
    /// Round trips on a connection that stays open
    Traffic,
}

/// Nothing is counted before this: caches, slabs and the scheduler settle.
const WARM_UP: Duration = Duration::from_millis(200);

/// What the threads of a load share.
#[derive(Default)]
struct Shared {
    /// Operations so far.
    done: AtomicU64,
    stop: AtomicBool,
}

impl Shared {
    fn count(&self) {
        self.done.fetch_add(1, Ordering::Release);
    }

    fn done(&self) -> u64 {
        self.done.load(Ordering::Acquire)
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    /// Counts for so long; the operations and the seconds that it was in the end.
    fn measure(&self, time: Duration) -> (u64, f64) {
        thread::sleep(WARM_UP);
        let (before, began) = (self.done(), Instant::now());
        thread::sleep(time);
        let (after, took) = (self.done(), began.elapsed());
        self.stop.store(true, Ordering::Relaxed);
        (after - before, took.as_secs_f64())
    }
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, cli.port));
    let (operations, seconds) = match cli.load {
        Load::Connections => connections::run(at, cli.seconds)?,
        Load::OneThread => one_thread::run(at, cli.seconds)?,
        Load::Mix => keep_alive::run(cli.port, cli.seconds)?,
        Load::Syscalls => syscalls::run(cli.seconds)?,
        Load::Traffic => round_trips::run(at, cli.seconds)?,
    };
    println!(
        "{}",
        json!({ "operations": operations, "seconds": seconds })
    );
    Ok(())
}

/// What a thread gave; an error when it panicked.
fn join<T>(thread: ScopedJoinHandle<'_, T>) -> Result<T> {
    thread.join().map_err(|_| anyhow!("a thread has panicked"))
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok();
    let time = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    time.filter(|time| !time.is_zero())
        .ok_or_else(|| "a time is a number of seconds above 0, such as 0.5".into())
}
