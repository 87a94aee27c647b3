//! A running tcptrace, and what it costs.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
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

/// The thread of `tcptrace export` that answers scrapes.
const HTTP: &str = "http";

/// Timeout for the start and the end.
const TIMEOUT: Duration = Duration::from_secs(60);

pub struct Tracer {
    child: Child,
}

/// CPU time so far, in seconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cpu {
    /// Without the thread that answers scrapes.
    pub tracing_s: f64,
    pub scrapes_s: f64,
}

/// The kernel's statistics of eBPF programs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Programs {
    pub runs: u64,
    pub ns: u64,
}

impl Tracer {
    /// Starts tcptrace. Its output goes to a file, in which the first line shows that it traces.
    pub fn start(tcptrace: &Path, args: &[&str], messages: &Path) -> Result<Tracer> {
        let file = File::create(messages)?;
        let mut command = Command::new(tcptrace);
        command.args(args).env("TCPTRACE_NO_CONFIG", "1");
        command.stdin(Stdio::null());
        command.stdout(file.try_clone()?).stderr(file);
        let mut tracer = Tracer {
            child: crate::process::spawn(&mut command)?,
        };
        let began = Instant::now();
        while fs::metadata(messages)?.len() == 0 {
            tracer.still_runs(messages)?;
            if began.elapsed() > TIMEOUT {
                bail!("tcptrace does not start; see {}", messages.display());
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(tracer)
    }

    /// # Errors
    /// If it has ended.
    pub fn still_runs(&mut self, messages: &Path) -> Result<()> {
        match self.child.try_wait()? {
            Some(status) => bail!("tcptrace ended, {status}; see {}", messages.display()),
            None => Ok(()),
        }
    }

    /// Returns a line of /proc/PID/status, in KiB.
    pub fn memory_kib(&self, name: &str) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.map(|it| it.trim_matches([':', ' ', '\t', 'k', 'B']).parse());
        kib.and_then(Result::ok)
            .with_context(|| format!("no {name} of a process"))
    }

    pub fn cpu(&self) -> Result<Cpu> {
        let all_s = crate::process::cpu_seconds(self.child.id())?;
        let scrapes_s = self.thread_s(HTTP).unwrap_or(0.0);
        Ok(Cpu {
            tracing_s: all_s - scrapes_s,
            scrapes_s,
        })
    }

    /// Returns the CPU time of the thread with this name.
    fn thread_s(&self, name: &str) -> Option<f64> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).ok()?;
        let mut tasks = tasks.flatten().map(|it| it.path());
        let task = tasks.find(|it| {
            let comm = fs::read_to_string(it.join("comm"));
            comm.is_ok_and(|comm| comm.trim_end() == name)
        })?;
        let text = fs::read_to_string(task.join("schedstat")).ok()?;
        Some(text.split(' ').next()?.parse::<f64>().ok()? / 1e9)
    }

    /// Returns the sums over its eBPF programs. They rise only while the kernel's statistics are on.
    pub fn programs(&self) -> Result<Programs> {
        let mut sums = Programs::default();
        for entry in fs::read_dir(format!("/proc/{}/fdinfo", self.child.id()))?.flatten() {
            let text = fs::read_to_string(entry.path()).unwrap_or_default();
            let number = |name: &str| {
                let line = text.lines().find_map(|line| line.strip_prefix(name))?;
                line.trim_start_matches([':', '\t']).parse::<u64>().ok()
            };
            if let (Some(_), Some(ns), Some(runs)) = (
                number("prog_type"),
                number("run_time_ns"),
                number("run_cnt"),
            ) {
                sums.ns += ns;
                sums.runs += runs;
            }
        }
        Ok(sums)
    }

    /// Ends it with SIGINT.
    pub fn end(mut self) -> Result<()> {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGINT)?;
        let began = Instant::now();
        while self.child.try_wait()?.is_none() {
            if began.elapsed() > TIMEOUT {
                bail!("tcptrace does not end on SIGINT");
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // Both calls fail if it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Lets the kernel count runs and run time of all eBPF programs of the machine, until the descriptor
/// is closed (`BPF_ENABLE_STATS`, Linux 5.8).
pub fn enable_statistics() -> Result<std::os::fd::OwnedFd> {
    use std::os::fd::FromRawFd as _;
    const BPF_ENABLE_STATS: libc::c_int = 32;
    // `BPF_STATS_RUN_TIME` is 0.
    let attributes = [0_u32; 32];
    // SAFETY: the kernel reads the attributes, which outlive the call. A new descriptor is owned by
    // nothing else.
    unsafe {
        let size = size_of_val(&attributes);
        let fd = libc::syscall(libc::SYS_bpf, BPF_ENABLE_STATS, attributes.as_ptr(), size);
        if fd < 0 {
            return Err(std::io::Error::last_os_error()).context("no statistics of eBPF programs");
        }
        Ok(std::os::fd::OwnedFd::from_raw_fd(fd as i32))
    }
}

/// The answer to a scrape.
#[derive(Debug)]
pub struct Scrape {
    pub time: Duration,
    pub text: String,
}

/// Asks for the metrics as Prometheus does.
pub fn scrape(address: SocketAddr) -> Result<Scrape> {
    let began = Instant::now();
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let request = "GET /metrics HTTP/1.1\r\nHost: soak\r\n\
                   Accept: application/openmetrics-text;version=1.0.0\r\n\r\n";
    stream.write_all(request.as_bytes())?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let time = began.elapsed();
    let is_whole = text.starts_with("HTTP/1.1 200") && text.ends_with("# EOF\n");
    anyhow::ensure!(is_whole, "no whole answer: {:?}", text.lines().next());
    Ok(Scrape { time, text })
}

/// Returns the sum over a metric's series.
pub fn sum(text: &str, metric: &str) -> f64 {
    let values = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(metric)?;
        rest.starts_with(['{', ' ']).then_some(())?;
        rest.rsplit(' ').next()?.parse::<f64>().ok()
    });
    values.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_of_one_metric_are_summed() {
        let text = "# TYPE lost counter\nlost_total{hook=\"a b\"} 2\nlost_total{hook=\"c\"} 3\n\
                    lost_totals 7\nlost_total 1\n";
        assert!((sum(text, "lost_total") - 6.0).abs() < 1e-9);
        assert!(sum(text, "lost").abs() < 1e-9);
    }
}
