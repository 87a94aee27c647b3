//! What is measured: the loads, who watches them, and what is to be reached.
//!
//! A way to run tcptrace is measured by adding a row.

use std::{
    env,
    path::{Path, PathBuf},
};

use clap::ValueEnum;
use serde::Serialize;

/// The port that the loads use.
pub const PORT: &str = "7878";

/// A load of `bench/src/main.rs`, by its name there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Load {
    Connections,
    OneThread,
    Mix,
    Syscalls,
    Traffic,
}

impl Load {
    pub fn name(self) -> &'static str {
        match self {
            Load::Connections => "connections",
            Load::OneThread => "one-thread",
            Load::Mix => "mix",
            Load::Syscalls => "syscalls",
            Load::Traffic => "traffic",
        }
    }

    pub fn what(self) -> &'static str {
        match self {
            Load::Connections => {
                "Connections over loopback that are accepted and reset, as fast as one client and \
                 one server thread can."
            }
            Load::OneThread => {
                "Connections that one thread makes, accepts and resets, at the pace of the fastest \
                 tenth of its time: what a connection itself pays, without the scheduler."
            }
            Load::Mix => {
                "Requests on IPv6 connections that are kept for a hundred of them, with 200 \
                 threads blocked in accept()."
            }
            Load::Syscalls => {
                "System calls that have nothing to do with TCP: getppid() and read()."
            }
            Load::Traffic => "Round trips on a TCP connection that stays open.",
        }
    }

    /// What is counted.
    pub fn unit(self) -> &'static str {
        match self {
            Load::Connections | Load::OneThread => "connections/s",
            Load::Mix => "requests/s",
            Load::Syscalls => "calls/s",
            Load::Traffic => "round trips/s",
        }
    }
}

/// Who watches the load.
pub struct Row {
    pub name: &'static str,
    pub watcher: Watcher,
    pub loads: &'static [Load],
}

pub enum Watcher {
    Nobody,
    Tcptrace {
        args: &'static [&'static str],
        screen: Screen,
        object: Object,
    },
    /// Somebody else's program, when it is installed.
    Peer {
        program: &'static str,
        args: &'static [&'static str],
    },
}

/// What tcptrace loads.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Object {
    Own,
    /// The same programs at the same hooks, and each returns at once: what the kernel takes to run
    /// any.
    Hollow,
}

/// Where a watcher's stdout goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Screen {
    File,
    Terminal,
    /// A terminal that shows nothing while the load is on, as after Ctrl-S.
    Stopped,
}

/// Every load.
pub const ALL: &[Load] = &[
    Load::Connections,
    Load::OneThread,
    Load::Mix,
    Load::Syscalls,
    Load::Traffic,
];
const STORM: &[Load] = &[Load::Connections];
const BOTH: &[Load] = &[Load::Connections, Load::OneThread];

pub const UNTRACED: &str = "untraced";

pub const ROWS: &[Row] = &[
    Row {
        name: UNTRACED,
        watcher: Watcher::Nobody,
        loads: ALL,
    },
    hollow("empty programs", &["-o", "json"], ALL),
    tcptrace("json", &["-o", "json"], Screen::File, ALL),
    tcptrace("terminal", &[], Screen::Terminal, STORM),
    tcptrace("reader stopped", &[], Screen::Stopped, STORM),
    // A port that none of the loads uses.
    tcptrace("filtered", &["-o", "json", "-p", "1"], Screen::File, ALL),
    tcptrace(
        "depth connections",
        &["-o", "json", "--depth", "connections"],
        Screen::File,
        &[Load::Connections, Load::OneThread, Load::Mix],
    ),
    tcptrace(
        "depth histogram",
        &["-o", "json", "--depth", "histogram"],
        Screen::File,
        ALL,
    ),
    tcptrace(
        "segments",
        &["-o", "json", "--segments"],
        Screen::File,
        &[Load::Connections, Load::Traffic],
    ),
    peer("tcplife", "tcplife", &[]),
    peer("tcpstates", "tcpstates", &[]),
    peer("tcpstates -L", "tcpstates", &["-L", PORT]),
    peer("tcptracer", "tcptracer", &[]),
    peer("bcc tcplife", "tcplife-bpfcc", &[]),
    peer("bcc tcpstates", "tcpstates-bpfcc", &[]),
    peer("bpftrace", "bpftrace", &["-e", TRANSITIONS]),
    peer(
        "tcpdump",
        "tcpdump",
        &["-i", "lo", "-w", "-", "tcp", "port", PORT],
    ),
];

/// Debian's packages that have these peers; those of bcc need a compiler and the kernel's headers
/// beside them, and are left to the one who has these.
pub const PACKAGES: [&str; 3] = ["libbpf-tools", "bpftrace", "tcpdump"];

const TRANSITIONS: &str = r#"tracepoint:sock:inet_sock_set_state /args->protocol == 6/ {
    printf("%d %d %d %d %d -> %d\n", nsecs, pid, args->sport, args->dport, args->oldstate,
        args->newstate);
}"#;

const fn tcptrace(
    name: &'static str,
    args: &'static [&'static str],
    screen: Screen,
    loads: &'static [Load],
) -> Row {
    Row {
        name,
        watcher: Watcher::Tcptrace {
            args,
            screen,
            object: Object::Own,
        },
        loads,
    }
}

const fn hollow(name: &'static str, args: &'static [&'static str], loads: &'static [Load]) -> Row {
    Row {
        name,
        watcher: Watcher::Tcptrace {
            args,
            screen: Screen::File,
            object: Object::Hollow,
        },
        loads,
    }
}

const fn peer(name: &'static str, program: &'static str, args: &'static [&'static str]) -> Row {
    Row {
        name,
        watcher: Watcher::Peer { program, args },
        loads: BOTH,
    }
}

impl Row {
    pub fn named(name: &str) -> Option<&'static Row> {
        ROWS.iter().find(|row| row.name == name)
    }

    /// What runs it; `None` when it is not installed.
    pub fn program(&self, tcptrace: &Path) -> Option<PathBuf> {
        match self.watcher {
            Watcher::Nobody => Some(PathBuf::new()),
            Watcher::Tcptrace { .. } => Some(tcptrace.to_path_buf()),
            Watcher::Peer { program, .. } => find(program),
        }
    }
}

/// Finds a program of the system, of those for root as well.
fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/sbin".into()]);
    let mut files = folders.map(|folder| folder.join(program));
    files.find(|file| file.is_file())
}

/// A limit for what a row does to a load: for the median, where nothing else is said.
pub struct Goal {
    pub row: &'static str,
    pub load: Load,
    pub limit: Limit,
}

pub enum Limit {
    /// Of the untraced rate, at least.
    Share(f64),
    /// Events, at most, in the worst round.
    Lost(f64),
    /// From the start to the first line, in milliseconds, at most.
    Attach(f64),
    /// Resident memory before the load begins, in MiB, at most.
    AtRest(f64),
    /// Resident memory at its highest, in MiB, at most.
    Peak(f64),
    /// From connect() to the first line about it on the terminal, in milliseconds, at most.
    Shown(f64),
}

const fn goal(row: &'static str, limit: Limit) -> Goal {
    Goal {
        row,
        load: Load::Connections,
        limit,
    }
}

pub const GOALS: &[Goal] = &[
    goal("json", Limit::Share(0.95)),
    goal("json", Limit::Lost(0.0)),
    goal("terminal", Limit::Share(0.90)),
    goal("terminal", Limit::Lost(0.0)),
    goal("filtered", Limit::Share(0.985)),
    goal("depth connections", Limit::Share(0.97)),
    goal("depth connections", Limit::Lost(0.0)),
    goal("depth histogram", Limit::Share(0.98)),
    goal("depth histogram", Limit::Lost(0.0)),
    goal("json", Limit::Attach(150.0)),
    goal("json", Limit::AtRest(20.0)),
    goal("terminal", Limit::Shown(50.0)),
    // However long it lasts: no more waits than has room.
    goal("reader stopped", Limit::Peak(160.0)),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_goal_is_about_something_that_is_measured() {
        for goal in GOALS {
            let row = Row::named(goal.row).expect(goal.row);
            assert!(row.loads.contains(&goal.load), "{}", goal.row);
        }
    }

    #[test]
    fn every_load_is_measured_untraced_too() {
        let untraced = Row::named(UNTRACED).unwrap();
        for load in ROWS.iter().flat_map(|row| row.loads) {
            assert!(untraced.loads.contains(load), "{load:?}");
        }
    }

    #[test]
    fn names_are_unique() {
        for row in ROWS {
            let same = ROWS.iter().filter(|it| it.name == row.name);
            assert_eq!(same.count(), 1, "{}", row.name);
            assert!(!row.name.contains(','), "--only takes a list: {}", row.name);
        }
    }
}
