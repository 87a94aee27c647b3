//! The PID namespaces and containers of processes, from /proc.
//!
//! Each process is looked up once, when its first record arrives. Some processes have ended by then,
//! and theirs are unknown.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};

use rustc_hash::FxHashSet;
use tcptrace_core::container::Container;

use crate::batch::Batch;
use crate::capture::Numbers;
use crate::cgroups;
use crate::containers::Containers;
use crate::decode::{Seen, peek_process};
use crate::trace::{Process, Small};

/// Upper bound on the processes that are remembered. When it is reached, all are forgotten.
const REMEMBERED: usize = 16_384;

/// How long the place of an exited process stays known, in nanoseconds. It still closes its
/// connections after its exit. The kernel gives its id to another process much later.
const EXITED_FOR_NS: u64 = 1_000_000_000;

/// Time between two readings of the processes' ids in a PID namespace, in nanoseconds.
const NUMBERS_EVERY_NS: u64 = 100_000_000;

/// The processes that have been seen.
pub struct Processes {
    proc: PathBuf,
    numbers: Numbers,
    numbers_at_ns: u64,
    /// The files of container runtimes, if a process's cgroups of version 1 name its container.
    containers: Option<Containers>,
    /// Processes that have been looked up.
    known: FxHashSet<u32>,
    /// Processes whose place the trace has been given.
    told: FxHashSet<u32>,
    /// Exited processes with the time, the oldest first.
    exited: VecDeque<(u64, u32)>,
    /// The process seen last; 0 before the first.
    last: u32,
    /// Whether the trace has to forget all processes.
    forget: bool,
    new: BTreeMap<u32, Process>,
}

impl Processes {
    pub fn new(numbers: Numbers) -> Processes {
        let containers = cgroups::has_version_1().then(|| Containers::below(Path::new("/")));
        Processes::with("/proc".into(), numbers, containers)
    }

    fn with(proc: PathBuf, numbers: Numbers, containers: Option<Containers>) -> Processes {
        Processes {
            proc,
            numbers,
            numbers_at_ns: 0,
            containers,
            known: FxHashSet::default(),
            told: FxHashSet::default(),
            exited: VecDeque::new(),
            last: 0,
            forget: false,
            new: BTreeMap::new(),
        }
    }

    /// Returns whether a record's process has no number yet in the PID namespace of this process, and
    /// it is time to read them again.
    pub fn wants_numbers(&mut self, batch: &Batch, now_ns: u64) -> bool {
        let Numbers::Here(numbers) = &self.numbers else {
            return false;
        };
        if now_ns.saturating_sub(self.numbers_at_ns) < NUMBERS_EVERY_NS {
            return false;
        }
        let mut seen = batch.records().filter_map(peek_process);
        let is_new = seen.any(|it| match it {
            Seen::Running(pid) => !self.known.contains(&pid) && !numbers.contains_key(&pid),
            Seen::Exited(_) => false,
        });
        if is_new {
            self.numbers_at_ns = now_ns;
        }
        is_new
    }

    /// Takes the ids of the processes in this PID namespace.
    pub fn set_numbers(&mut self, numbers: Numbers) {
        self.numbers = numbers;
    }

    /// Looks up the process of a record.
    #[inline]
    pub fn note(&mut self, record: &[u8], now_ns: u64) {
        match peek_process(record) {
            // Consecutive records mostly come from one process.
            Some(Seen::Running(pid)) if pid != self.last => self.look_up(pid),
            Some(Seen::Exited(pid)) if self.known.remove(&pid) => {
                self.last = 0;
                self.exited.push_back((now_ns, pid));
            }
            _ => {}
        }
    }

    /// Looks up a process, unless that has been done.
    pub fn look_up(&mut self, pid: u32) {
        self.last = pid;
        if self.known.contains(&pid) {
            return;
        }
        if self.known.len() >= REMEMBERED {
            self.forget();
        }
        self.known.insert(pid);
        let Some(process) = self.read(pid) else {
            return;
        };
        // A process without a place takes the id of one with a place.
        if process != Process::default() || self.told.remove(&pid) {
            if process != Process::default() {
                self.told.insert(pid);
            }
            self.new.insert(pid, process);
        }
    }

    /// Looks up a process that a search has found, which may have sockets from fork() and not be in its
    /// cgroup yet. Therefore it is looked up again, unless it has a place.
    pub fn look_up_holder(&mut self, pid: u32) {
        let is_new = !self.known.contains(&pid);
        self.look_up(pid);
        if is_new && !self.told.contains(&pid) {
            self.known.remove(&pid);
            self.last = 0;
        }
    }

    /// Forgets all processes, for example because the exit of one may have been lost.
    pub fn forget(&mut self) {
        self.known.clear();
        self.told.clear();
        self.exited.clear();
        self.new.clear();
        self.last = 0;
        self.forget = true;
    }

    /// Returns what is new for the trace.
    pub fn take(&mut self, now_ns: u64) -> Option<Small> {
        while let Some((exited_ns, pid)) = self.exited.front().copied()
            && exited_ns + EXITED_FOR_NS <= now_ns
        {
            self.exited.pop_front();
            // The id may belong to another process by now.
            if !self.known.contains(&pid) && self.told.remove(&pid) {
                self.new.insert(pid, Process::default());
            }
        }
        if self.new.is_empty() && !self.forget {
            return None;
        }
        Some(Small::Processes {
            forget: std::mem::take(&mut self.forget),
            processes: std::mem::take(&mut self.new),
        })
    }

    /// Reads the place of a running process; `None` if it has ended, or is not visible.
    fn read(&self, pid: u32) -> Option<Process> {
        let here = match &self.numbers {
            Numbers::Kernels => pid,
            Numbers::Here(numbers) => *numbers.get(&pid)?,
            Numbers::Unknown => return None,
        };
        let folder = self.proc.join(here.to_string());
        let status = fs::read_to_string(folder.join("status")).ok()?;
        let nspid = nspid(&status)?;
        let container = self.containers.as_ref().and_then(|containers| {
            let cgroups = fs::read_to_string(folder.join("cgroup")).ok()?;
            let id = cgroups::container_of_process(&cgroups)?;
            Some::<Container>(containers.named(id))
        });
        Some(Process {
            nspid: (nspid != pid).then_some(nspid),
            container,
        })
    }
}

/// Returns a process's number in its own PID namespace, which is the last one in
/// /proc/PID/status (proc_pid_status(5)).
fn nspid(status: &str) -> Option<u32> {
    let line = status.lines().find_map(|it| it.strip_prefix("NStgid:"))?;
    line.split_whitespace().next_back()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "4f66ad9a0b2e8b3c1d5e7f90a1b2c3d4e5f60718293a4b5c6d7e8f9001122334";

    /// Writes the files of a process.
    fn process(proc: &Path, here: u32, nspids: &str, cgroups: &str) {
        let folder = proc.join(here.to_string());
        fs::create_dir_all(&folder).unwrap();
        let status = format!("Name:\tweb\nTgid:\t{here}\nNStgid:\t{nspids}\nNSpid:\t{nspids}\n");
        fs::write(folder.join("status"), status).unwrap();
        fs::write(folder.join("cgroup"), cgroups).unwrap();
    }

    fn seen(proc: &Path, numbers: Numbers) -> Processes {
        let containers = Containers::below(proc);
        Processes::with(proc.to_owned(), numbers, Some(containers))
    }

    fn in_namespace(nspid: u32) -> Process {
        Process {
            nspid: Some(nspid),
            container: None,
        }
    }

    fn told(processes: &mut Processes, now_ns: u64) -> Vec<(u32, Process)> {
        match processes.take(now_ns) {
            Some(Small::Processes { processes, .. }) => processes.into_iter().collect(),
            _ => vec![],
        }
    }

    #[test]
    fn a_process_has_its_number_in_its_innermost_pid_namespace() {
        let proc = tempfile::tempdir().unwrap();
        process(proc.path(), 100, "100", "0::/\n");
        process(proc.path(), 101, "101\t1", "0::/\n");
        process(proc.path(), 102, "102\t30\t7", "0::/\n");
        let mut processes = seen(proc.path(), Numbers::Kernels);
        for pid in [100, 101, 102, 103, 101] {
            processes.look_up(pid);
        }
        let expected = [(101, in_namespace(1)), (102, in_namespace(7))];
        assert_eq!(told(&mut processes, 0), expected);
        assert_eq!(processes.take(0), None);
    }

    #[test]
    fn inside_a_pid_namespace_proc_is_read_by_the_number_there() {
        let proc = tempfile::tempdir().unwrap();
        process(proc.path(), 2, "2", "0::/\n");
        process(proc.path(), 3, "3\t1", "0::/\n");
        let numbers = Numbers::Here([(4700, 2), (4701, 3)].into());
        let mut processes = seen(proc.path(), numbers);
        for pid in [4700, 4701, 2, 3] {
            processes.look_up(pid);
        }
        let expected = [(4700, in_namespace(2)), (4701, in_namespace(1))];
        assert_eq!(told(&mut processes, 0), expected);
        let mut processes = seen(proc.path(), Numbers::Unknown);
        processes.look_up(2);
        assert_eq!(processes.take(0), None);
    }

    #[test]
    fn a_process_has_the_container_of_its_cgroups_of_version_1() {
        let proc = tempfile::tempdir().unwrap();
        process(
            proc.path(),
            100,
            "100\t1",
            &format!("4:pids:/docker/{ID}\n0::/\n"),
        );
        let mut processes = seen(proc.path(), Numbers::Kernels);
        processes.look_up(100);
        let expected = Process {
            nspid: Some(1),
            container: Some(Container::new(ID)),
        };
        assert_eq!(told(&mut processes, 0), [(100, expected)]);
    }

    #[test]
    fn a_process_that_was_found_before_it_entered_its_cgroup_is_looked_up_again() {
        let proc = tempfile::tempdir().unwrap();
        process(proc.path(), 100, "100", "4:pids:/\n0::/\n");
        let mut processes = seen(proc.path(), Numbers::Kernels);
        processes.look_up_holder(100);
        assert_eq!(processes.take(0), None);
        process(proc.path(), 100, "100", &format!("4:pids:/docker/{ID}\n"));
        processes.look_up(100);
        let expected = Process {
            nspid: None,
            container: Some(Container::new(ID)),
        };
        assert_eq!(told(&mut processes, 0), [(100, expected)]);
    }

    #[test]
    fn the_place_of_an_exited_process_is_void_before_its_id_is_used_again() {
        let proc = tempfile::tempdir().unwrap();
        process(proc.path(), 100, "100\t1", "");
        process(proc.path(), 101, "101\t2", "");
        let mut processes = seen(proc.path(), Numbers::Kernels);
        let exit = |processes: &mut Processes, pid| {
            assert!(processes.known.remove(&pid));
            processes.exited.push_back((10, pid));
        };
        processes.look_up(100);
        processes.look_up(101);
        assert_eq!(told(&mut processes, 10).len(), 2);
        exit(&mut processes, 100);
        exit(&mut processes, 101);
        // It closes its sockets after its exit.
        assert_eq!(told(&mut processes, 11), []);
        // Another process has the id, in no namespace of its own.
        process(proc.path(), 100, "100", "");
        processes.look_up(100);
        assert_eq!(told(&mut processes, 12), [(100, Process::default())]);
        assert_eq!(
            told(&mut processes, 10 + EXITED_FOR_NS),
            [(101, Process::default())]
        );
        assert_eq!(processes.take(u64::MAX), None);
    }

    #[test]
    fn after_a_loss_every_process_is_looked_up_again() {
        let proc = tempfile::tempdir().unwrap();
        process(proc.path(), 100, "100\t1", "");
        let mut processes = seen(proc.path(), Numbers::Kernels);
        processes.look_up(100);
        assert_eq!(told(&mut processes, 0).len(), 1);
        processes.forget();
        processes.look_up(100);
        let expected = Small::Processes {
            forget: true,
            processes: [(100, in_namespace(1))].into(),
        };
        assert_eq!(processes.take(0), Some(expected));
        assert_eq!(processes.take(0), None);
    }
}
