//! The place where a scenario runs: a network namespace, ports, and a lock on the machine.

use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::Tracer;
use crate::netns::Netns;

/// Number of ports of one scenario.
const PORTS: u16 = 8;

/// Storms, which load the whole machine, hold this lock for writing. Scenarios that can run beside
/// others hold it for reading.
static MACHINE: RwLock<()> = RwLock::new(());

/// Keeps a lock guard alive.
enum Turn {
    Shared(#[allow(dead_code)] RwLockReadGuard<'static, ()>),
    Alone(#[allow(dead_code)] RwLockWriteGuard<'static, ()>),
    Any,
}

/// A private network namespace, and ports that no other scenario of this process uses. The calling
/// thread is in the namespace, and so are the threads and processes that it starts.
///
/// The tracer and the witness see the whole machine. `netns` distinguishes lines of other
/// namespaces, but ftrace does not print it, so the ports must differ, too.
pub struct Lab {
    pub netns: Netns,
    pub ports: Ports,
    next: AtomicU16,
    _turn: Turn,
}

impl Lab {
    /// Enters a lab for a scenario that can run beside others.
    pub fn new() -> Lab {
        Lab::enter(Turn::Shared(
            MACHINE.read().unwrap_or_else(PoisonError::into_inner),
        ))
    }

    /// Enters a lab for a storm, or for a scenario that a storm would disturb.
    pub fn alone() -> Lab {
        Lab::enter(Turn::Alone(
            MACHINE.write().unwrap_or_else(PoisonError::into_inner),
        ))
    }

    /// Enters a lab for a scenario that only waits, even beside storms. The scenario must filter
    /// its trace by its own ports.
    pub fn beside_storms() -> Lab {
        Lab::enter(Turn::Any)
    }

    fn enter(turn: Turn) -> Lab {
        Lab {
            netns: Netns::enter(),
            ports: Ports::reserve(),
            next: AtomicU16::new(0),
            _turn: turn,
        }
    }

    /// Returns a port that was not handed out yet.
    pub fn port(&self) -> u16 {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        assert!(n < PORTS, "a scenario has {PORTS} ports");
        self.ports.first + n
    }

    /// Starts tcptrace on everything and waits until it traces.
    pub fn trace(&self) -> Tracer {
        self.trace_with(&[])
    }

    /// Starts tcptrace with these arguments and waits until it traces.
    pub fn trace_with(&self, args: &[&str]) -> Tracer {
        Tracer::start(self, args)
    }
}

impl Default for Lab {
    fn default() -> Lab {
        Lab::new()
    }
}

/// A block of ports for one scenario.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    pub first: u16,
    pub last: u16,
}

impl Ports {
    /// The ports lie below Linux's range of ephemeral ports. Each process starts at another block,
    /// because two test runs may share a machine.
    fn reserve() -> Ports {
        const FIRST: u16 = 10_000;
        const BLOCKS: u16 = 2_500;
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let start = (std::process::id() % u32::from(BLOCKS / 100)) as u16 * 100;
        let block = (start + NEXT.fetch_add(1, Ordering::Relaxed)) % BLOCKS;
        let first = FIRST + block * PORTS;
        Ports {
            first,
            last: first + PORTS - 1,
        }
    }

    /// Whether a field of a line is one of these ports.
    pub fn have(&self, field: &serde_json::Value) -> bool {
        let port = field.as_u64().and_then(|port| u16::try_from(port).ok());
        port.is_some_and(|port| self.contain(port))
    }

    pub fn contain(&self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }
}
