//! Child processes that end with this one, and their use of CPU and memory.

use std::{
    fs,
    os::unix::process::CommandExt as _,
    process::{Child, Command},
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::{
    sys::signal::Signal,
    time::{clock_getcpuclockid, clock_gettime},
    unistd::Pid,
};

/// Starts a process that is killed when this one ends in any way.
pub fn spawn(command: &mut Command) -> Result<Child> {
    // SAFETY: prctl is async-signal-safe.
    unsafe {
        command.pre_exec(|| Ok(nix::sys::prctl::set_pdeathsig(Some(Signal::SIGKILL))?));
    }
    command
        .spawn()
        .with_context(|| format!("cannot start `{}`", crate::cmd::line(command)))
}

/// Returns the CPU time of all threads of a process so far, in seconds.
pub fn cpu_seconds(pid: u32) -> Result<f64> {
    let clock = clock_getcpuclockid(Pid::from_raw(pid as i32)).context("it has ended")?;
    Ok(Duration::from(clock_gettime(clock)?).as_secs_f64())
}

/// Returns a line of /proc/PID/status, such as `VmRSS`, in KiB.
pub fn memory_kib(pid: u32, name: &str) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim_matches([':', ' ', '\t', 'k', 'B']).parse().ok()
}

#[cfg(test)]
mod tests {
    use std::{thread, time::Instant};

    use super::*;

    #[test]
    fn cpu_time_of_a_process_is_that_of_all_its_threads() {
        let before = cpu_seconds(std::process::id()).unwrap();
        let began = Instant::now();
        thread::spawn(move || while began.elapsed() < Duration::from_millis(200) {})
            .join()
            .unwrap();
        assert!(cpu_seconds(std::process::id()).unwrap() > before);
    }

    #[test]
    fn memory_of_a_process_is_read_by_its_name() {
        let pid = std::process::id();
        let rest = memory_kib(pid, "VmRSS").unwrap();
        assert!(rest > 100.0 && Some(rest) <= memory_kib(pid, "VmHWM"));
        assert_eq!(memory_kib(pid, "VmNone"), None);
    }
}
