//! A program that watches the load: started, waited for, stopped, and what it has cost.

use std::{
    fs::{self, File},
    io,
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::unix::{fs::FileExt as _, process::CommandExt as _},
    path::Path,
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
    rows::{Object, Row, Screen, Watcher},
    terminal::Terminal,
};

/// How long anything may take that is sure to happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// A peer whose descriptors have not changed for so long has attached what it wants to attach.
const QUIET: Duration = Duration::from_millis(500);

/// The object of [`Object::Hollow`].
pub const HOLLOW: &str = "hollow.bpf.o";

/// Bytes of output that are looked at for the summary.
const TAIL: u64 = 256 << 10;

/// What watching has cost, and given.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Cost {
    /// From the start of the process to its first line, in milliseconds; null for a peer.
    pub attach_ms: Option<f64>,
    /// From a connect() to what a terminal shows of it, without load, in milliseconds; null without
    /// a terminal.
    pub shown_ms: Option<f64>,
    /// CPU time of the process from the beginning of the load to its end, in seconds; the programs
    /// in the kernel run on the load's own time.
    pub cpu_s: f64,
    /// Resident memory before the load, in MiB.
    pub rest_mib: Option<f64>,
    /// The most resident memory, in MiB.
    pub peak_mib: Option<f64>,
    /// Events received; null where it does not say.
    pub events: Option<u64>,
    /// Events lost; null where it does not say.
    pub lost: Option<u64>,
}

/// A watcher that is attached. Killed when it is dropped.
pub struct Running {
    child: Child,
    ended: bool,
    output: Output,
    messages: File,
    is_peer: bool,
    attach_ms: Option<f64>,
    shown_ms: Option<f64>,
    rest_mib: Option<f64>,
    /// CPU seconds before the load.
    cpu_before_s: f64,
}

enum Output {
    File(File),
    Terminal(Terminal),
}

impl Running {
    /// Starts what the row says, and waits until it watches. Output goes to a nameless file in
    /// `folder`, where [`HOLLOW`] is as well, or to a terminal.
    pub fn start(row: &Row, program: &Path, folder: &Path) -> Result<Running> {
        let mut command = Command::new(program);
        command.stdin(Stdio::null());
        let (screen, is_peer) = match row.watcher {
            Watcher::Nobody => bail!("{} is no program", row.name),
            Watcher::Tcptrace {
                args,
                screen,
                object,
            } => {
                command.args(args);
                if object == Object::Hollow {
                    // Only a build for diagnostics looks at it.
                    command.env("TCPTRACE_BPF_OBJECT", folder.join(HOLLOW));
                }
                (screen, false)
            }
            Watcher::Peer { args, .. } => {
                command.args(args);
                (Screen::File, true)
            }
        };
        let output = match screen {
            Screen::File => {
                let file = nameless(folder)?;
                command.stdout(file.try_clone()?);
                Output::File(file)
            }
            Screen::Terminal | Screen::Stopped => {
                let (terminal, slave) = Terminal::open()?;
                command.stdout(slave);
                Output::Terminal(terminal)
            }
        };
        let messages = nameless(folder)?;
        command.stderr(messages.try_clone()?);
        let began = Instant::now();
        let mut running = Running {
            child: spawn(&mut command)?,
            ended: false,
            output,
            messages,
            is_peer,
            attach_ms: None,
            shown_ms: None,
            rest_mib: None,
            cpu_before_s: 0.0,
        };
        // The terminal ends with the last writer, and `command` would be one.
        drop(command);
        running.wait_until_attached(began)?;
        // What attaching has stirred up settles.
        thread::sleep(QUIET);
        running.shown_ms = running.connect_and_see()?;
        if let Output::Terminal(terminal) = &running.output {
            terminal.stop(screen == Screen::Stopped);
        }
        running.rest_mib = running.memory("VmRSS");
        running.cpu_before_s = cpu_seconds(running.child.id()).unwrap_or(0.0);
        Ok(running)
    }

    fn wait_until_attached(&mut self, began: Instant) -> Result<()> {
        let (mut last, mut since) = (0, Instant::now());
        loop {
            if let Some(status) = self.child.try_wait()? {
                self.ended = true;
                let said = tail(&self.messages)?;
                let said = said.trim().lines().last().unwrap_or_default();
                bail!("it ended at once, {status}: {said}");
            }
            if self.is_peer {
                let watching = watching(self.child.id());
                if watching != last {
                    (last, since) = (watching, Instant::now());
                } else if watching > 0 && since.elapsed() > QUIET {
                    return Ok(());
                }
            } else if self.says_something()? {
                self.attach_ms = Some(began.elapsed().as_secs_f64() * 1e3);
                return Ok(());
            }
            if began.elapsed() > PATIENCE {
                bail!("it has not begun to watch");
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn says_something(&self) -> Result<bool> {
        Ok(match &self.output {
            Output::File(file) => file.metadata()?.len() > 0,
            Output::Terminal(terminal) => terminal.bytes() > 0,
        })
    }

    /// How long it takes until the terminal shows a connection, in milliseconds.
    fn connect_and_see(&self) -> Result<Option<f64>> {
        let Output::Terminal(terminal) = &self.output else {
            return Ok(None);
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        // That one listens is shown as well.
        thread::sleep(QUIET);
        let before = terminal.bytes();
        let began = Instant::now();
        let _client = TcpStream::connect(listener.local_addr()?)?;
        while terminal.bytes() == before {
            if began.elapsed() > PATIENCE {
                bail!("it does not show a connection");
            }
            thread::sleep(Duration::from_micros(100));
        }
        Ok(Some(began.elapsed().as_secs_f64() * 1e3))
    }

    /// Ends it as Ctrl-C does, and gives what it has cost.
    pub fn stop(mut self) -> Result<Cost> {
        let peak_mib = self.memory("VmHWM");
        if let Output::Terminal(terminal) = &self.output {
            terminal.stop(false);
        }
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGINT)?;
        let cpu_s = self.reap()?;
        let messages = Balance::of_messages(&tail(&self.messages)?);
        let output = std::mem::replace(&mut self.output, Output::File(self.messages.try_clone()?));
        let balance = match (self.is_peer, output) {
            (true, _) => messages,
            (false, Output::File(file)) => Balance::of_json(&tail(&file)?),
            (false, Output::Terminal(terminal)) => {
                Balance::of_text(&String::from_utf8_lossy(&terminal.last_page()))
            }
        };
        Ok(Cost {
            attach_ms: self.attach_ms,
            shown_ms: self.shown_ms,
            cpu_s: (cpu_s - self.cpu_before_s).max(0.0),
            rest_mib: self.rest_mib,
            peak_mib,
            events: balance.events,
            lost: balance.lost,
        })
    }

    /// Waits until it has ended; its CPU seconds.
    fn reap(&mut self) -> Result<f64> {
        let pid = self.child.id() as i32;
        let began = Instant::now();
        loop {
            // SAFETY: all zero is a valid rusage.
            let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
            // SAFETY: wait4 writes to `usage`, which outlives the call, and to nothing else.
            let reaped =
                unsafe { libc::wait4(pid, std::ptr::null_mut(), libc::WNOHANG, &mut usage) };
            if reaped == pid {
                self.ended = true;
                let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
                return Ok(seconds(usage.ru_utime) + seconds(usage.ru_stime));
            }
            if reaped < 0 {
                return Err(io::Error::last_os_error()).context("cannot wait for it");
            }
            if began.elapsed() > PATIENCE {
                bail!("it does not end at Ctrl-C");
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// A line of /proc/PID/status, in MiB.
    fn memory(&self, name: &str) -> Option<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: f64 = line.trim_matches([':', ' ', '\t', 'k', 'B']).parse().ok()?;
        Some(kib / 1024.0)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.ended {
            // Both fail when it has just ended by itself.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Starts a process that does not outlive this one, however that ends.
pub fn spawn(command: &mut Command) -> Result<Child> {
    // SAFETY: prctl is async-signal-safe.
    unsafe {
        command.pre_exec(|| Ok(nix::sys::prctl::set_pdeathsig(Some(Signal::SIGKILL))?));
    }
    command
        .spawn()
        .with_context(|| format!("cannot start `{}`", crate::cmd::line(command)))
}

/// A file that is gone when it is closed.
fn nameless(folder: &Path) -> Result<File> {
    let path = folder.join(format!("output-{}", std::process::id()));
    let cannot = || format!("cannot make {}", path.display());
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(true);
    let file = options.open(&path).with_context(cannot)?;
    fs::remove_file(&path).with_context(cannot)?;
    Ok(file)
}

/// The end of a file.
fn tail(file: &File) -> Result<String> {
    let len = file.metadata()?.len();
    let mut bytes = vec![0; len.min(TAIL) as usize];
    file.read_exact_at(&mut bytes, len.saturating_sub(TAIL))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// How many descriptors a process has of things that watch: BPF programs, perf events, packet
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

/// CPU time of a process so far, in steps of a clock tick.
fn cpu_seconds(pid: u32) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ').skip(11);
    let ticks: f64 = fields.next()?.parse::<f64>().ok()? + fields.next()?.parse::<f64>().ok()?;
    // SAFETY: takes a number and gives one.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    Some(ticks / per_second as f64)
}
