//! A program that watches the load: start, stop, and cost.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::Serialize;

use super::{
    balance::Balance,
    rows::{Object, RECORDING, Row, Watcher},
};
use crate::process::{cpu_seconds, memory_kib, spawn};

/// Timeout for anything that is certain to happen.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A tool whose descriptors have not changed for this time has finished attaching.
const QUIET: Duration = Duration::from_millis(500);

/// The object of [`Object::Empty`].
pub const EMPTY_OBJECT: &str = "empty.bpf.o";

/// Number of bytes at the end of a watcher's output that are searched for its summary.
const TAIL: u64 = 256 << 10;

/// The cost of watching, and its result.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Cost {
    /// From the start of the process to its first line, in milliseconds; null for another tool.
    pub attach_ms: Option<f64>,
    /// CPU seconds of the process from the start of the load until it is idle. The load's own time
    /// includes eBPF programs in the kernel.
    pub cpu_s: f64,
    /// Resident memory before the load, in MiB.
    pub rest_mib: Option<f64>,
    /// Maximum resident memory, in MiB.
    pub peak_mib: Option<f64>,
    /// Number of received events; null if the tool does not print it.
    pub events: Option<u64>,
    /// Number of lost events; null if the tool does not print it.
    pub lost: Option<u64>,
}

/// An attached watcher. Killed when it is dropped.
pub struct Running {
    child: Child,
    ended: bool,
    output: File,
    messages: File,
    /// The file that `tcptrace record` writes, and the program that reads it.
    recording: Option<(PathBuf, PathBuf)>,
    is_peer: bool,
    attach_ms: Option<f64>,
    rest_mib: Option<f64>,
    /// CPU seconds before the load.
    cpu_before_s: f64,
}

impl Running {
    /// Starts the program of a row and waits until it is attached. It runs in `folder`, which also
    /// has [`EMPTY_OBJECT`]. Its output goes to a nameless file there.
    pub fn start(row: &Row, program: &Path, folder: &Path) -> Result<Running> {
        let mut command = Command::new(program);
        let is_peer = match row.watcher {
            Watcher::Nobody => bail!("{} runs no program", row.name),
            Watcher::Tcptrace { args, object } => {
                command.args(args);
                if object == Object::Empty {
                    // Only a build for diagnostics reads this variable.
                    command.env("TCPTRACE_BPF_OBJECT", folder.join(EMPTY_OBJECT));
                }
                false
            }
            Watcher::Peer { args, .. } => {
                command.args(args);
                true
            }
        };
        let (output, messages) = (nameless(folder)?, nameless(folder)?);
        let records = command.get_args().any(|arg| arg == RECORDING);
        let recording = records.then(|| (folder.join(RECORDING), program.to_path_buf()));
        if let Some((file, _)) = &recording {
            // A recording of an earlier run would look like the start of this one.
            let _ = fs::remove_file(file);
        }
        command
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(messages.try_clone()?);
        let began = Instant::now();
        let mut running = Running {
            child: spawn(&mut command)?,
            ended: false,
            output,
            messages,
            recording,
            is_peer,
            attach_ms: None,
            rest_mib: None,
            cpu_before_s: 0.0,
        };
        running.wait_until_attached(began)?;
        running.settle()?;
        // The watcher's output may have been an error.
        running.still_runs()?;
        running.rest_mib = running.memory("VmRSS");
        running.cpu_before_s = cpu_seconds(running.child.id())?;
        Ok(running)
    }

    /// Whether tcptrace has printed anything, which it does only after all hooks are attached.
    fn has_begun(&self) -> Result<bool> {
        let printed = self.output.metadata()?.len() + self.messages.metadata()?.len();
        let file = self
            .recording
            .as_ref()
            .and_then(|(file, _)| fs::metadata(file).ok());
        Ok(printed + file.map_or(0, |it| it.len()) > 0)
    }

    /// # Errors If the watcher has ended by itself, with the last line of its messages.
    fn still_runs(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            self.ended = true;
            let said = tail(&self.messages)?;
            let said = said.trim().lines().last().unwrap_or_default();
            bail!("it ended at once, {status}: {said}");
        }
        Ok(())
    }

    fn wait_until_attached(&mut self, began: Instant) -> Result<()> {
        let (mut last, mut since) = (0, Instant::now());
        loop {
            self.still_runs()?;
            if self.is_peer {
                let watching = watching(self.child.id());
                if watching != last {
                    (last, since) = (watching, Instant::now());
                } else if watching > 0 && since.elapsed() > QUIET {
                    return Ok(());
                }
            } else if self.has_begun()? {
                self.attach_ms = Some(began.elapsed().as_secs_f64() * 1e3);
                return Ok(());
            }
            if began.elapsed() > TIMEOUT {
                bail!("it did not attach");
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits until the watcher uses less than a hundredth of a CPU.
    fn settle(&self) -> Result<()> {
        const INTERVAL: Duration = Duration::from_millis(100);
        let began = Instant::now();
        let mut last = cpu_seconds(self.child.id())?;
        loop {
            thread::sleep(INTERVAL);
            let now = cpu_seconds(self.child.id())?;
            if now - last < INTERVAL.as_secs_f64() / 100.0 {
                return Ok(());
            }
            if began.elapsed() > TIMEOUT {
                bail!("it does not become idle");
            }
            last = now;
        }
    }

    /// Waits until the watcher is idle, ends it with SIGINT, and returns its cost.
    pub fn stop(mut self) -> Result<Cost> {
        self.settle()?;
        let cpu_s = cpu_seconds(self.child.id())? - self.cpu_before_s;
        let peak_mib = self.memory("VmHWM");
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGINT)?;
        self.reap()?;
        let messages = tail(&self.messages)?;
        let balance = match &self.recording {
            _ if self.is_peer => Balance::of_messages(&messages),
            None => Balance::of_json(&tail(&self.output)?),
            Some((file, tcptrace)) => {
                let mut replay = Command::new(tcptrace);
                replay
                    .arg("replay")
                    .arg(file)
                    .args(["-o", "json", "--only", "summary"]);
                let summary = crate::cmd::output(&mut replay)?;
                fs::remove_file(file)?;
                Balance::of_json(&summary)
            }
        };
        Ok(Cost {
            attach_ms: self.attach_ms,
            cpu_s,
            rest_mib: self.rest_mib,
            peak_mib,
            events: balance.events,
            lost: balance.lost,
        })
    }

    fn reap(&mut self) -> Result<()> {
        let began = Instant::now();
        while self.child.try_wait()?.is_none() {
            if began.elapsed() > TIMEOUT {
                bail!("it does not end on SIGINT");
            }
            thread::sleep(Duration::from_millis(5));
        }
        self.ended = true;
        Ok(())
    }

    /// Returns a line of /proc/PID/status, in MiB.
    fn memory(&self, name: &str) -> Option<f64> {
        memory_kib(self.child.id(), name).map(|kib| kib / 1024.0)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.ended {
            // Both calls fail if the watcher has just ended by itself.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Creates a file without a name, which is gone when it is closed.
fn nameless(folder: &Path) -> Result<File> {
    let path = folder.join(format!("output-{}", std::process::id()));
    let cannot = || format!("cannot make {}", path.display());
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(true);
    let file = options.open(&path).with_context(cannot)?;
    fs::remove_file(&path).with_context(cannot)?;
    Ok(file)
}

/// Returns the end of a file.
fn tail(file: &File) -> Result<String> {
    let len = file.metadata()?.len();
    let mut bytes = vec![0; len.min(TAIL) as usize];
    file.read_exact_at(&mut bytes, len.saturating_sub(TAIL))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Returns the number of a process's descriptors for watching: BPF programs, perf events, packet
/// sockets.
fn watching(pid: u32) -> usize {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return 0;
    };
    let packets = fs::read_to_string(format!("/proc/{pid}/net/packet")).unwrap_or_default();
    let packets: Vec<String> = packets
        .lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().last())
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    let links = entries
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok());
    links
        .filter(|link| {
            let link = link.to_string_lossy();
            let anonymous = ["bpf_link", "bpf-link", "perf_event", "bpf-raw-tracepoint"];
            anonymous.iter().any(|name| link.contains(name)) || packets.iter().any(|it| *it == link)
        })
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watcher_that_only_prints_an_error_is_not_measured() {
        let folder = tempfile::tempdir().unwrap();
        let row = Row {
            name: "broken",
            watcher: Watcher::Tcptrace {
                args: &["-c", "echo no such option >&2; exit 2"],
                object: Object::Own,
            },
            loads: &[],
        };
        let Err(error) = Running::start(&row, Path::new("/bin/sh"), folder.path()) else {
            panic!("it has ended");
        };
        let error = error.to_string();
        assert!(error.contains("no such option"), "{error}");
    }
}
