//! The rows of the benchmark: a watcher for the loads, and the goals.
//!
//! A further way to run tcptrace is measured by adding a row.

use std::{
    env,
    path::{Path, PathBuf},
};

use super::load::Load;

/// A watcher for the load.
pub struct Row {
    pub name: &'static str,
    pub watcher: Watcher,
    /// The loads under which it is measured.
    pub loads: &'static [Load],
}

#[derive(Clone, Copy)]
pub enum Watcher {
    Nobody,
    Tcptrace {
        args: &'static [&'static str],
        object: Object,
    },
    /// Another program, if it is installed.
    Peer {
        program: &'static str,
        args: &'static [&'static str],
    },
}

/// The eBPF object that tcptrace loads.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Object {
    Own,
    /// The same programs at the same hooks, each of which returns at once. It measures the kernel's
    /// cost of running any program.
    Empty,
}

/// The file name of the recording.
pub const RECORDING: &str = "bench.trace";

const ALL: &[Load] = &Load::ALL;
const CONNECTIONS: &[Load] = &[Load::Connections];

/// The row without a watcher. Like every row it is compared with the untraced runs before and after
/// it. Its distance from 0 is the noise of the measurement.
pub const UNTRACED: &str = "untraced";
pub const RECORD: &str = "record";
pub const HISTOGRAM: &str = "depth histogram";
pub const TCPDUMP: &str = "tcpdump -w";

pub const ROWS: &[Row] = &[
    Row {
        name: UNTRACED,
        watcher: Watcher::Nobody,
        loads: ALL,
    },
    Row {
        name: "empty programs",
        watcher: Watcher::Tcptrace {
            args: &["-o", "json"],
            object: Object::Empty,
        },
        loads: ALL,
    },
    // A port that none of the loads uses.
    tcptrace("filter rejects all", &["-o", "json", "-p", "1"], ALL),
    tcptrace(RECORD, &["record", "-o", RECORDING], ALL),
    tcptrace("json", &["-o", "json"], ALL),
    tcptrace(
        "depth connections",
        &["-o", "json", "--depth", "connections"],
        CONNECTIONS,
    ),
    tcptrace(
        HISTOGRAM,
        &["-o", "json", "--depth", "histogram"],
        CONNECTIONS,
    ),
    tcptrace("segments", &["-o", "json", "--segments"], ALL),
    peer(
        TCPDUMP,
        "tcpdump",
        &["-i", "lo", "-w", "-", "tcp", "port", "7878"],
    ),
    peer("tcplife", "tcplife", &[]),
    peer("tcpstates", "tcpstates", &[]),
    peer("tcptracer", "tcptracer", &[]),
    peer("bpftrace", "bpftrace", &["-e", TRANSITIONS]),
];

/// Debian's packages of the compared tools, and of the server with its load.
pub const PACKAGES: [&str; 5] = ["libbpf-tools", "bpftrace", "tcpdump", "nginx-light", "wrk"];

const TRANSITIONS: &str = r#"tracepoint:sock:inet_sock_set_state /args->protocol == 6/ {
    printf("%d %d %d %d %d -> %d\n", nsecs, pid, args->sport, args->dport, args->oldstate,
        args->newstate);
}"#;

const fn tcptrace(
    name: &'static str,
    args: &'static [&'static str],
    loads: &'static [Load],
) -> Row {
    Row {
        name,
        watcher: Watcher::Tcptrace {
            args,
            object: Object::Own,
        },
        loads,
    }
}

const fn peer(name: &'static str, program: &'static str, args: &'static [&'static str]) -> Row {
    Row {
        name,
        watcher: Watcher::Peer { program, args },
        loads: CONNECTIONS,
    }
}

impl Row {
    pub fn named(name: &str) -> Option<&'static Row> {
        ROWS.iter().find(|row| row.name == name)
    }

    /// Returns the program of the row; `None` if it is not installed.
    pub fn program(&self, tcptrace: &Path) -> Option<PathBuf> {
        match self.watcher {
            Watcher::Nobody => Some(PathBuf::new()),
            Watcher::Tcptrace { .. } => Some(tcptrace.to_path_buf()),
            Watcher::Peer { program, .. } => find(program),
        }
    }

    pub fn is_peer(&self) -> bool {
        matches!(self.watcher, Watcher::Peer { .. })
    }

    pub fn has_empty_programs(&self) -> bool {
        matches!(self.watcher, Watcher::Tcptrace { object, .. } if object == Object::Empty)
    }
}

/// Finds a program in PATH and in the folders of system programs.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/sbin".into(), "/bin".into()]);
    let mut files = folders.map(|folder| folder.join(program));
    files.find(|file| file.is_file())
}

/// A figure of a row under the load of connections, for which a goal sets a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Figure {
    /// Microseconds per connection in the load.
    Kernel,
    /// Microseconds per connection in the load and the tool together.
    Sum,
    /// Lost events, in the worst round.
    Lost,
    /// Milliseconds from the start to the first line.
    Attach,
    /// Resident memory before the load begins, in MiB.
    AtRest,
    /// Maximum resident memory, in MiB, in the worst round.
    Peak,
}

pub enum Limit {
    AtMost(f64),
    /// A multiple of the same figure of another row.
    OfRow(f64, &'static str),
}

/// A limit for the median, unless the figure says otherwise.
pub struct Goal {
    pub row: &'static str,
    pub figure: Figure,
    pub limit: Limit,
}

const fn goal(row: &'static str, figure: Figure, limit: Limit) -> Goal {
    Goal { row, figure, limit }
}

pub const GOALS: &[Goal] = &[
    goal(RECORD, Figure::Sum, Limit::OfRow(1.0, TCPDUMP)),
    goal(
        "filter rejects all",
        Figure::Kernel,
        Limit::OfRow(1.0, TCPDUMP),
    ),
    goal("json", Figure::Sum, Limit::OfRow(0.25, "tcplife")),
    goal(
        "depth connections",
        Figure::Sum,
        Limit::OfRow(0.15, "tcplife"),
    ),
    goal(HISTOGRAM, Figure::Sum, Limit::OfRow(1.0, TCPDUMP)),
    goal(RECORD, Figure::Lost, Limit::AtMost(0.0)),
    goal("json", Figure::Lost, Limit::AtMost(0.0)),
    goal("json", Figure::Attach, Limit::AtMost(150.0)),
    goal("json", Figure::AtRest, Limit::AtMost(20.0)),
    goal("json", Figure::Peak, Limit::AtMost(30.0)),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_goal_is_about_rows_that_are_measured() {
        for goal in GOALS {
            let other = match goal.limit {
                Limit::OfRow(_, other) => other,
                Limit::AtMost(_) => goal.row,
            };
            for name in [goal.row, other] {
                let row = Row::named(name).expect(name);
                assert!(row.loads.contains(&Load::Connections), "{name}");
            }
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
