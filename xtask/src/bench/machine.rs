//! A description of the measured machine, without its name.

use std::{fs, iter, path::Path, thread};

use serde::Serialize;

/// The mount point of tracefs.
pub const TRACEFS: &str = "/sys/kernel/tracing";

#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    pub cpu: Option<String>,
    pub cpus: Option<usize>,
    pub memory_mib: Option<u64>,
    pub kernel: Option<String>,
    pub distribution: Option<String>,
    /// Load average over the minute before. Other load is noise in the figures.
    pub load_average: Option<f64>,
    /// ftrace instances that record state changes as well. They slow down every row.
    pub ftrace: Vec<String>,
    /// Packages of the compared tools, with their versions.
    pub peers: Vec<String>,
}

impl Machine {
    pub fn detect(peers: Vec<String>) -> Machine {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let memory = value(&read("/proc/meminfo"), "MemTotal", ':');
        let kib = memory.and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
        // The release without the suffix, which may contain a name.
        let release = read("/proc/sys/kernel/osrelease");
        let kernel = release
            .trim()
            .split('-')
            .next()
            .unwrap_or_default()
            .to_owned();
        Machine {
            cpu: value(&read("/proc/cpuinfo"), "model name", ':'),
            cpus: thread::available_parallelism().ok().map(Into::into),
            memory_mib: kib.map(|kib| kib / 1024),
            kernel: (!kernel.is_empty()).then_some(kernel),
            distribution: value(&read("/etc/os-release"), "PRETTY_NAME", '='),
            load_average: load_average(),
            ftrace: ftrace(Path::new(TRACEFS)),
            peers,
        }
    }

    /// Formats `- CPU: …`, one line each; unknown values are marked.
    pub fn list(&self) -> String {
        let unknown = || "unknown".to_owned();
        let cpus = self.cpus.map(|cpus| format!("{cpus} × "));
        let lines = [
            (
                "CPU",
                cpus.unwrap_or_default() + &self.cpu.clone().unwrap_or_else(unknown),
            ),
            (
                "memory",
                self.memory_mib
                    .map_or_else(unknown, |mib| format!("{mib} MiB")),
            ),
            (
                "kernel",
                self.kernel
                    .as_ref()
                    .map_or_else(unknown, |it| format!("Linux {it}")),
            ),
            (
                "distribution",
                self.distribution.clone().unwrap_or_else(unknown),
            ),
            (
                "load average before",
                self.load_average
                    .map_or_else(unknown, |load| load.to_string()),
            ),
        ];
        let mut list: String = lines
            .iter()
            .map(|(name, value)| format!("- {name}: {value}\n"))
            .collect();
        if !self.ftrace.is_empty() {
            list += &format!("- ftrace records beside it: {}\n", self.ftrace.join(", "));
        }
        if !self.peers.is_empty() {
            list += &format!("- peers: {}\n", self.peers.join(", "));
        }
        list
    }
}

/// Returns the value of the first line `name SEPARATOR value`.
fn value(text: &str, name: &str, separator: char) -> Option<String> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(separator)?;
        let value = value.trim().trim_matches('"');
        (key.trim() == name && !value.is_empty()).then(|| value.to_owned())
    })
}

fn load_average() -> Option<f64> {
    let text = fs::read_to_string("/proc/loadavg").ok()?;
    text.split(' ').next()?.parse().ok()
}

/// Returns the instances that record `sock:inet_sock_set_state`: `tracefs` itself and those in it.
fn ftrace(tracefs: &Path) -> Vec<String> {
    let instances = fs::read_dir(tracefs.join("instances"));
    let instances = instances.into_iter().flatten().flatten();
    let folders = iter::once(tracefs.to_owned()).chain(instances.map(|entry| entry.path()));
    folders
        .filter(|folder| {
            let enabled = folder.join("events/sock/inet_sock_set_state/enable");
            fs::read_to_string(enabled).is_ok_and(|it| it.starts_with('1'))
        })
        .map(|folder| folder.display().to_string())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_by_name() {
        let text = "processor\t: 0\nmodel name\t: Fast CPU 9000\nmodel name\t: other\nbugs\t:\n";
        let get = |name| value(text, name, ':');
        assert_eq!(get("model name").as_deref(), Some("Fast CPU 9000"));
        assert_eq!(get("bugs"), None);
        assert_eq!(get("flags"), None);
        let quoted = value(
            "ID=debian\nPRETTY_NAME=\"Some Linux 1\"\n",
            "PRETTY_NAME",
            '=',
        );
        assert_eq!(quoted.as_deref(), Some("Some Linux 1"));
    }

    #[test]
    fn unknown_values_are_listed_as_unknown() {
        let machine = Machine {
            cpu: Some("Fast CPU".into()),
            cpus: Some(2),
            memory_mib: None,
            kernel: Some("6.12.1".into()),
            distribution: None,
            load_average: Some(0.25),
            ftrace: vec!["/sys/kernel/tracing".into()],
            peers: vec!["tcpdump 4.99".into()],
        };
        assert_eq!(
            machine.list(),
            "- CPU: 2 × Fast CPU\n- memory: unknown\n- kernel: Linux 6.12.1\n\
             - distribution: unknown\n- load average before: 0.25\n\
             - ftrace records beside it: /sys/kernel/tracing\n- peers: tcpdump 4.99\n"
        );
    }
}
