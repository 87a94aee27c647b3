//! The kernel's counters of SYNs and ACKs dropped by listeners, for each network namespace.
//!
//! Counters are read through a thread in the namespace. If only `ip netns` names the namespace, a
//! thread enters it. No descriptor is kept, because it would keep the namespace alive.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::iterator::{enter, inode, namespaces};
use crate::clock::mono_now_ns;
use crate::event::{NetnsCounters, QueueCounters};

/// Counters with the time of the reading (CLOCK_MONOTONIC, nanoseconds).
pub type Reading = (u64, NetnsCounters);

/// Reads the counters and remembers a path to each namespace.
#[derive(Default)]
pub struct CounterReader {
    paths: BTreeMap<u32, PathBuf>,
}

impl CounterReader {
    /// Reads the counters of every namespace that can be found.
    pub fn read_all(&mut self) -> Vec<Reading> {
        self.paths = namespaces();
        let paths = self.paths.iter();
        paths
            .filter_map(|(&netns, path)| read(netns, path))
            .collect()
    }

    /// Reads the counters of these namespaces. Returns nothing for one that cannot be found.
    pub fn read(&mut self, only: &BTreeSet<u32>) -> Vec<Reading> {
        let known = |paths: &BTreeMap<u32, PathBuf>, netns: u32| read(netns, paths.get(&netns)?);
        let mut readings = vec![];
        let mut missing = vec![];
        for &netns in only {
            match known(&self.paths, netns) {
                Some(reading) => readings.push(reading),
                None => missing.push(netns),
            }
        }
        if !missing.is_empty() {
            // The threads by whose paths these namespaces were read have ended, or the namespaces
            // are new.
            self.paths = namespaces();
            let again = missing.into_iter();
            readings.extend(again.filter_map(|netns| known(&self.paths, netns)));
        }
        readings
    }
}

/// Returns the counters of a namespace; `None` if the path does not lead to it any more.
fn read(netns: u32, path: &Path) -> Option<Reading> {
    let text = match path.strip_prefix("/proc") {
        Ok(_) => by_thread(netns, path),
        Err(_) => by_name(netns, path),
    };
    let queues = parse(&text.ok()?)?;
    Some((mono_now_ns(), NetnsCounters { netns, queues }))
}

/// Reads `/proc/PID/task/TID/net/netstat` of the thread whose `ns/net` is `path`.
fn by_thread(netns: u32, path: &Path) -> io::Result<String> {
    let thread = path.ancestors().nth(2).ok_or(io::ErrorKind::NotFound)?;
    let text = fs::read_to_string(thread.join("net/netstat"))?;
    // The thread may have left the namespace, or its id may have been reused.
    match inode(path) {
        Some(now) if now == netns => Ok(text),
        _ => Err(io::ErrorKind::NotFound.into()),
    }
}

/// Reads the counters of a namespace named by `ip netns`. A new thread enters it.
fn by_name(netns: u32, path: &Path) -> io::Result<String> {
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            enter(netns, path)?;
            fs::read_to_string("/proc/thread-self/net/netstat")
        });
        reader
            .join()
            .map_err(|_| io::Error::other("the reader panicked"))?
    })
}

/// Parses `/proc/net/netstat`: a line of names and a line of values for each protocol
/// (`netstat_seq_show`, net/ipv4/proc.c).
pub(crate) fn parse(text: &str) -> Option<QueueCounters> {
    let mut lines = text
        .lines()
        .filter_map(|line| line.strip_prefix("TcpExt: "));
    let (names, values) = (lines.next()?, lines.next()?);
    let value = |wanted: &str| {
        let mut pairs = names.split(' ').zip(values.split(' '));
        let (_, value) = pairs.find(|(name, _)| *name == wanted)?;
        value.parse().ok()
    };
    Some(QueueCounters {
        listen_overflows: value("ListenOverflows")?,
        listen_drops: value("ListenDrops")?,
        syn_queue_drops: value("TCPReqQFullDrop")?,
        syn_queue_cookies: value("TCPReqQFullDoCookies")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_by_name() {
        let text = "\
            TcpExt: SyncookiesSent ListenOverflows ListenDrops TCPReqQFullDoCookies TCPReqQFullDrop\n\
            TcpExt: 9 125 130 4 2\n\
            IpExt: InNoRoutes ListenOverflows\n\
            IpExt: 1 2\n";
        let expected = QueueCounters {
            listen_overflows: 125,
            listen_drops: 130,
            syn_queue_drops: 2,
            syn_queue_cookies: 4,
        };
        assert_eq!(parse(text), Some(expected));
        assert_eq!(parse("IpExt: InNoRoutes\nIpExt: 1\n"), None);
    }

    #[test]
    fn the_own_namespace_can_be_read() {
        let own = inode("/proc/thread-self/ns/net").expect("/proc is mounted");
        let readings = CounterReader::default().read(&[own].into());
        assert_eq!(readings.len(), 1);
        assert_eq!(readings[0].1.netns, own);
    }

    #[test]
    fn a_namespace_without_a_process_has_no_reading() {
        assert!(CounterReader::default().read(&[1].into()).is_empty());
    }
}
