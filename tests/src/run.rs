//! tcptrace as a child process: start it, signal it, read its output.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{TIMEOUT, eventually};

/// Builds `tcptrace ARGS…`, exactly.
pub fn tcptrace(args: &[&str]) -> Command {
    let bin = std::env::var_os("TCPTRACE_BIN")
        .expect("TCPTRACE_BIN names the tcptrace to test; cargo xtask test sets it");
    let mut command = Command::new(bin);
    command.args(args).stdin(Stdio::null());
    command
}

/// Builds `tcptrace ARGS…` for a trace, with `TCPTRACE_TEST_ARGS`.
pub fn tcptrace_trace(args: &[&str]) -> Command {
    let mode = std::env::var("TCPTRACE_TEST_ARGS").unwrap_or_default();
    let mode: Vec<&str> = mode.split_whitespace().collect();
    tcptrace(&[&mode, args].concat())
}

/// Builds `tests-helper ARGS…`, the other process of a scenario.
pub fn helper(args: &[&str]) -> Command {
    let mut command = Command::new(helper_path());
    command.args(args);
    command
}

pub fn helper_path() -> PathBuf {
    let exe = std::env::current_exe().expect("the path of this test");
    exe.ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join("tests-helper"))
        .find(|path| path.exists())
        .expect("tests-helper lies beside the scenarios, or in the folder above")
}

/// A running process whose output is read as it comes. It is killed if the scenario fails.
pub struct Running {
    child: Child,
    stdout: Output,
    stderr: Output,
}

/// How a process ended, and all its output.
#[derive(Debug)]
pub struct Ended {
    /// `None` when a signal ended it.
    pub code: Option<i32>,
    pub signal: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Running {
    /// Starts a process with pipes for its output.
    pub fn start(mut command: Command) -> Running {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Running::spawn(command)
    }

    /// Starts a process. The caller reads a `stdout` that it has set itself.
    pub fn spawn(mut command: Command) -> Running {
        // Kills the tracer when the scenario dies, even by SIGKILL.
        // SAFETY: prctl is async-signal-safe.
        unsafe {
            command.pre_exec(|| Ok(nix::sys::prctl::set_pdeathsig(Some(Signal::SIGKILL))?));
        }
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("start {command:?}: {error}"));
        Running {
            stdout: Output::read(child.stdout.take()),
            stderr: Output::read(child.stderr.take()),
            child,
        }
    }

    /// Starts a process and waits until it has ended.
    pub fn run_to_end(command: Command) -> Ended {
        Running::start(command).wait()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid() as i32), signal).expect("signal a child");
    }

    /// Whether the process still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("wait for a child").is_none()
    }

    /// The process's stdout so far, by lines.
    pub fn stdout(&self) -> &Output {
        &self.stdout
    }

    /// Prints the last line after a scenario has failed. A tracer's summary has the lost events.
    fn print_last_line(&mut self) {
        let _ = kill(Pid::from_raw(self.pid() as i32), Signal::SIGINT);
        let deadline = Instant::now() + TIMEOUT / 10;
        while self.is_running() && Instant::now() < deadline {
            std::thread::sleep(TIMEOUT / 1000);
        }
        let lines = self.stdout.lines();
        eprintln!(
            "The last line of a process that still ran: {:?}",
            lines.last()
        );
    }

    /// Waits until the process has ended by itself.
    pub fn wait(mut self) -> Ended {
        self.wait_here()
    }

    /// Writes a line to the process's stdin, a pipe.
    pub fn write_line(&mut self) {
        let stdin = self.child.stdin.as_mut().expect("a pipe");
        stdin.write_all(b"\n").expect("write to a child");
    }

    /// Closes the process's stdin, a pipe, and waits until the process has ended.
    pub fn wait_without_input(mut self) -> Ended {
        drop(self.child.stdin.take());
        self.wait_here()
    }

    /// Like [`wait`](Self::wait), for a process inside a value that is still needed.
    pub(crate) fn wait_here(&mut self) -> Ended {
        let status = eventually("a process to end", || {
            self.child.try_wait().expect("wait for a child")
        });
        Ended {
            code: status.code(),
            signal: status.signal(),
            stdout: self.stdout.all(),
            stderr: self.stderr.all(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if std::thread::panicking() && self.is_running() {
            self.print_last_line();
        }
        // Both fail if the process has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The lines that were read from a pipe.
pub struct Output {
    shared: Arc<Shared>,
    reader: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    lines: Mutex<Vec<String>>,
    grown: Condvar,
}

impl Shared {
    /// Ignores poisoning: a scenario that fails while it holds the lock still prints the lines.
    fn lines(&self) -> MutexGuard<'_, Vec<String>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Output {
    fn read(pipe: Option<impl Read + Send + 'static>) -> Output {
        let shared = Arc::new(Shared::default());
        let reader = pipe.map(|pipe| {
            let shared = shared.clone();
            std::thread::spawn(move || {
                let mut pipe = BufReader::new(pipe);
                let mut line = Vec::new();
                while pipe.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
                    let text = String::from_utf8_lossy(&line).into_owned();
                    line.clear();
                    shared.lines().push(text);
                    shared.grown.notify_all();
                }
            })
        });
        Output { shared, reader }
    }

    /// Waits until `done` returns something for the lines so far.
    pub fn wait_until<T>(&self, what: &str, mut done: impl FnMut(&[String]) -> Option<T>) -> T {
        let deadline = Instant::now() + TIMEOUT;
        let mut lines = self.lines();
        loop {
            if let Some(answer) = done(&lines) {
                return answer;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero(),
                "timed out waiting for {what}; {} lines, the last: {:?}",
                lines.len(),
                lines.last()
            );
            // Wakes up now and then, because the process may end without a line.
            let wait = left.min(TIMEOUT / 10);
            lines = self.shared.grown.wait_timeout(lines, wait).unwrap().0;
        }
    }

    /// Whether there is no line yet.
    pub fn is_empty(&self) -> bool {
        self.lines().is_empty()
    }

    pub fn lines(&self) -> MutexGuard<'_, Vec<String>> {
        self.shared.lines()
    }

    /// Returns everything up to the end of the pipe.
    fn all(&mut self) -> String {
        if let Some(reader) = self.reader.take() {
            reader.join().expect("no panic");
        }
        self.lines().concat()
    }
}
