//! tcptrace as a process: started, told, and looked at from outside.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{PATIENCE, eventually};

/// `tcptrace ARGS…`, exactly.
pub fn tcptrace(args: &[&str]) -> Command {
    let bin = std::env::var_os("TCPTRACE_BIN")
        .expect("TCPTRACE_BIN names the tcptrace to test; cargo xtask test sets it");
    let mut command = Command::new(bin);
    command.args(args).stdin(Stdio::null());
    command
}

/// `tcptrace ARGS…` for a trace: in the attach mode that this run is about.
pub fn tcptrace_trace(args: &[&str]) -> Command {
    let mode = std::env::var("TCPTRACE_TEST_ARGS").unwrap_or_default();
    let mode: Vec<&str> = mode.split_whitespace().collect();
    tcptrace(&[&mode, args].concat())
}

/// `tests-helper ARGS…`, the other process of a scenario.
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

/// A running process whose output is read as it comes. Killed if the scenario fails.
pub struct Running {
    child: Child,
    stdout: Output,
    stderr: Output,
}

/// How a process ended, and all that it printed.
#[derive(Debug)]
pub struct Ended {
    /// `None` when a signal ended it.
    pub code: Option<i32>,
    pub signal: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Running {
    /// Starts it with pipes for its output.
    pub fn start(mut command: Command) -> Running {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Running::spawn(command)
    }

    /// Starts it. A `stdout` that the caller chose is the caller's to read.
    pub fn spawn(mut command: Command) -> Running {
        // No scenario leaves a tracer behind, not even one that is killed.
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

    /// Starts it, and waits until it has ended.
    pub fn to_the_end(command: Command) -> Ended {
        Running::start(command).wait()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid() as i32), signal).expect("signal a child");
    }

    /// Whether it has not ended yet.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().expect("wait for a child").is_none()
    }

    /// The lines it has printed on stdout so far.
    pub fn stdout(&self) -> &Output {
        &self.stdout
    }

    /// For a scenario that has failed: a tracer's summary says what was lost or missed.
    fn say_last_words(&mut self) {
        let _ = kill(Pid::from_raw(self.pid() as i32), Signal::SIGINT);
        let deadline = Instant::now() + PATIENCE / 10;
        while self.runs() && Instant::now() < deadline {
            std::thread::sleep(PATIENCE / 1000);
        }
        let lines = self.stdout.lines();
        eprintln!(
            "The last line of a process that still ran: {:?}",
            lines.last()
        );
    }

    /// Waits until it has ended by itself.
    pub fn wait(mut self) -> Ended {
        self.wait_here()
    }

    /// The same for one that belongs to something that is still needed.
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
        if std::thread::panicking() && self.runs() {
            self.say_last_words();
        }
        // Both fail when it has ended, as it should have.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What comes out of a pipe, by lines.
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
    /// A scenario that fails while it looks at them still wants them told.
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

    /// Waits until `done` is satisfied by the lines so far, and gives its answer.
    pub fn wait_until<T>(&self, what: &str, mut done: impl FnMut(&[String]) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        let mut lines = self.lines();
        loop {
            if let Some(answer) = done(&lines) {
                return answer;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero(),
                "waited in vain for {what}; {} lines, the last: {:?}",
                lines.len(),
                lines.last()
            );
            // Wakes up now and then, because the process may end without a line.
            let wait = left.min(PATIENCE / 10);
            lines = self.shared.grown.wait_timeout(lines, wait).unwrap().0;
        }
    }

    pub(crate) fn lines(&self) -> MutexGuard<'_, Vec<String>> {
        self.shared.lines()
    }

    /// Everything, to the end of the pipe.
    fn all(&mut self) -> String {
        if let Some(reader) = self.reader.take() {
            reader.join().expect("no panic");
        }
        self.lines().concat()
    }
}
